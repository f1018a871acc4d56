"""Predict a whole take, a video or a folder of frames: decode, crop, predict, smooth, write; resumes if stopped.

A thread decodes, tracks and crops frames ahead of the model; memory does not grow with the take. Predictions are saved
frame by frame in ``OUT.partial``, and the table is written from it at the end, atomically.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from PIL import Image

from semanticface import __version__, arkit
from semanticface.errors import PictureError, SemanticFaceError, VideoError
from semanticface.formats import live_link, tables
from semanticface.formats.live_link import LiveLinkRow
from semanticface.formats.tables import RowResult
from semanticface.inference.intervals import interval_dict
from semanticface.inference.predictor import Prediction, Predictor
from semanticface.semantics.analysis import Analysis
from semanticface.utils.lock import exclusive
from semanticface.utils.one_euro import FaceFilter, Settings
from semanticface.utils.prefetch import prefetch
from semanticface.utils.progress import tqdm
from semanticface.vision.crop import Box, crop_face
from semanticface.vision.face_tracker import FaceTracker
from semanticface.vision.timecode import Clock
from semanticface.vision.video_reader import Frame, Take

Crop = Literal["track", "none"] | Box
"""``track`` follows the face; ``none`` takes whole frames; a box crops every frame alike."""

_MAX_REMARKS = 20


@dataclass(frozen=True, slots=True, eq=False)
class FrameAnswer(RowResult):
    """The prediction for one frame; a ``tables.Outcome``.

    Attributes:
        frame: from 1.
        time: seconds since the first frame.
        timecode: ``HH:MM:SS:FF.fff``; empty until the table is written.
        box: the crop, in pixels; None where the model did not run.
        note: a remark on the frame; mostly empty.
        interval: float32[52, 2], as in ``Prediction``; None where there is no answer.
        calibrated: whether it was fitted on held-out faces.
    """

    frame: int = 0
    time: Fraction = Fraction(0)
    timecode: str = ""
    box: Box | None = None
    note: str = ""
    interval: np.ndarray | None = None
    calibrated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: as ``RowResult``, with frame, timecode, time (seconds), and the rest if present."""
        plain = RowResult.to_dict(self)
        out = {"image": plain.pop("image"), "frame": self.frame, "timecode": self.timecode}
        out |= {"time": round(float(self.time), 6), "status": plain.pop("status")}
        if self.note:
            out["note"] = self.note
        if self.box is not None:
            out["box"] = [round(corner, 2) for corner in corners(self.box)]
        out["coefficients"] = plain.pop("coefficients")
        if self.interval is not None:
            out |= interval_dict(self.interval, self.calibrated)
        return out | plain


@dataclass(slots=True)
class Report:
    """The outcome of a take.

    Attributes:
        frames: how many there are.
        failed: how many of them have no answer.
        remarks: a sentence for each run of frames without an answer and for each note, at most ``_MAX_REMARKS``.
        shortfall: what the video announces but does not contain, in a sentence; mostly empty.
    """

    frames: int = 0
    failed: int = 0
    remarks: list[str] = field(default_factory=list)
    shortfall: str = ""


@dataclass(frozen=True, slots=True)
class PreparedFrame:
    """A frame ready for the model, or the reason why it is not, and the tracker's state after it."""

    frame: Frame
    crop: Image.Image | None = None
    box: Box | None = None
    status: str = "ok"
    reason: str = ""
    note: str = ""
    state: dict[str, Any] | None = None


def predict_take(
    take: Take,
    out: Path,
    predictor: Predictor,
    *,
    crop: Crop = "track",
    clock: Clock | None = None,
    smoothing: Settings | None = None,
    batch_size: int = 16,
    settings: Mapping[str, Any] | None = None,
) -> Report:
    """Predict every frame of a take and write the table ``out``: Live Link CSV, or JSONL with a row for every frame.

    The CSV has no row for a frame without an answer: its timecode is missing, and the report says so. After a stop, the
    same call resumes and writes what it would have written without the stop.

    Args:
        take: from ``video_reader.open_take``.
        out: ends in ``.csv`` or ``.jsonl``.
        predictor: the model.
        crop: which part of each frame the model sees.
        clock: gives the timecodes; by default at the take's own rate, from 00:00:00:00.
        smoothing: of the numbers in a CSV, see ``one_euro``; None leaves them as predicted. The analysis never changes.
        batch_size: frames predicted together.
        settings: what else the predictions depend on, such as the model's name; a partial file must have the same.

    Raises:
        VideoError: no frame, or none with an answer; a take that cannot be read.
        SemanticFaceError: a partial file of another take or other settings, or no space to write.
        ValueError: smoothing of a JSONL.
    """
    as_csv = tables.check_output(out) == ".csv"
    if smoothing is not None and not as_csv:
        raise ValueError(f"{out}: only the numbers of a CSV are smoothed")
    with exclusive(out):
        recipe = {"take": take.identity, "crop": crop if isinstance(crop, str) else corners(crop), **(settings or {})}
        partial = PartialFile(out.with_name(f"{out.name}.partial"), recipe, batch_size)
        _predict(take, partial, predictor, crop, batch_size)
        report = _report(take, partial)
        if report.frames == 0 or (as_csv and report.failed == report.frames):
            partial.path.unlink()
            what = (
                f"no frame has an answer. {report.remarks[0]}" if report.frames else "no frame in it. Export it again."
            )
            raise VideoError(f"{take.path}: {what}")
        clock = clock or Clock(take.timecode_rate)
        answers = (dataclasses.replace(answer, timecode=clock.label(answer.time)) for answer in partial)
        if as_csv:
            live_link.write(out, _csv_rows(answers, smoothing))
        else:
            tables.write(out, answers)
        partial.path.unlink()
        return report


def model_record(name: str, predictor: Predictor) -> dict[str, Any]:
    """Return what identifies a model and its training, for ``predict_take``'s settings."""
    recipe = json.dumps(predictor.bundle.recipe, sort_keys=True, default=str)
    weights = sorted(Path(name).glob("*.safetensors")) if Path(name).is_dir() else []
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in weights]
    return {"name": name, "recipe": hashlib.sha256(recipe.encode()).hexdigest(), "weights": stats}


def _predict(take: Take, partial: PartialFile, predictor: Predictor, crop: Crop, batch_size: int) -> None:
    """Predict the frames that ``partial`` lacks."""
    frames = prefetch(
        cropped_frames(take, predictor.bundle.image_size, crop, partial.frames, partial.state), depth=2 * batch_size
    )
    with partial, tqdm(total=take.count, initial=partial.frames, unit="frame") as bar, contextlib.closing(frames):
        while chunk := list(islice(frames, batch_size)):
            crops = [frame.crop for frame in chunk if frame.crop is not None]
            predictions = predictor.stream(crops, batch_size=batch_size, crop="none")
            partial.append([(_answer(take, frame, predictions), frame.state) for frame in chunk])
            bar.update(len(chunk))


def cropped_frames(
    take: Take, size: int, crop: Crop = "track", skip: int = 0, state: dict[str, Any] | None = None
) -> Iterator[PreparedFrame]:
    """Yield the frames after the first ``skip``, cropped to ``size`` pixels; ``state`` is the tracker's before them."""
    tracker = FaceTracker(state=state) if crop == "track" else None
    for frame in islice(take.frames(skip), skip, None):
        status, reason, note, cut, box = frame.code or "ok", frame.reason, "", None, None
        if frame.picture is not None:
            try:
                box, note = _choose_box(frame, crop, tracker)
                cut = crop_face(frame.picture, box, size)
            except PictureError as error:
                status, reason = error.code, f"{take.path}, frame {frame.number}: {error}"
        # Only the crop waits for the model.
        frame = dataclasses.replace(frame, picture=None)
        yield PreparedFrame(frame, cut, box, status, reason, note, None if tracker is None else tracker.state)


def _choose_box(frame: Frame, crop: Crop, tracker: FaceTracker | None) -> tuple[Box, str]:
    """Return the box to crop and a note on the choice."""
    assert frame.picture is not None
    if tracker is not None:
        seen = tracker.update(frame.picture, float(frame.time))
        if seen.box is None:
            raise PictureError("no_face", "no face found. Give a box around it, or use the whole frames as they are.")
        return seen.box, seen.note
    return crop if isinstance(crop, Box) else Box(0, 0, *frame.picture.size), ""


def _answer(take: Take, frame: PreparedFrame, predictions: Iterator[Prediction]) -> FrameAnswer:
    """Return the answer to a frame; takes the next prediction if the frame has a crop."""
    number = frame.frame.number
    name = f"{take.path}, frame {number}"
    answer = FrameAnswer(
        name, frame.status, frame.reason, frame=number, time=frame.frame.time, box=frame.box, note=frame.note
    )
    if frame.crop is None:
        return answer
    prediction = next(predictions)
    reason = prediction.reason and f"{name}: {prediction.reason.removeprefix(f'{prediction.image}: ')}"
    return dataclasses.replace(
        answer,
        status=prediction.status,
        reason=reason,
        coefficients=prediction.coefficients,
        analysis=prediction.analysis,
        pose=prediction.pose,
        interval=prediction.interval,
        calibrated=prediction.summary is not None and prediction.summary.calibrated,
    )


def _csv_rows(answers: Iterable[FrameAnswer], smoothing: Settings | None) -> Iterator[LiveLinkRow]:
    """Yield the rows of a Live Link CSV; rotations are 0 where the model does not predict them."""
    smooth, unknown = FaceFilter(smoothing), np.zeros(arkit.N_POSE)
    for answer in answers:
        if answer.coefficients is not None:
            values, pose = smooth.step(answer.coefficients, answer.pose, float(answer.time))
            yield LiveLinkRow(answer.timecode, values, unknown if pose is None else pose)


def _report(take: Take, answers: Iterable[FrameAnswer]) -> Report:
    """Count the frames, and report why each run of frames has no answer."""
    report = Report(shortfall=take.shortfall)
    runs: list[list[FrameAnswer]] = []
    notes = []
    in_run = False
    for answer in answers:
        report.frames += 1
        if answer.note:
            notes.append(f"{answer.image}: {answer.note}")
        if answer.status == "ok":
            in_run = False
            continue
        report.failed += 1
        if in_run and runs[-1][-1].status == answer.status:
            runs[-1][1:] = [answer]
        else:
            runs.append([answer])
        in_run = True
    for run in runs:
        first, last = run[0], run[-1]
        reason = first.reason
        if last is not first:
            reason = reason.replace(f"{first.image}: ", f"{take.path}, frames {first.frame} to {last.frame}: ", 1)
        report.remarks.append(reason)
    report.remarks += notes
    if len(report.remarks) > _MAX_REMARKS:
        more = len(report.remarks) - _MAX_REMARKS
        report.remarks[_MAX_REMARKS:] = [f"{take.path}: {more} more remarks; a .jsonl holds them all."]
    return report


class PartialFile:
    """The predictions of one take so far, from which a stopped run resumes; use it as a context to add frames.

    One JSON object a line: first what the predictions depend on, then one line a frame, with the state of the tracker
    after it. Numbers survive exactly.

    Args:
        path: read if it exists; a frame cut off in the middle of its line is dropped.
        recipe: what the predictions depend on, JSON values.
        batch: frames predicted together. Only whole batches are kept, so that the same frames share a batch again.

    Attributes:
        frames: how many frames it holds.
        state: of the tracker after the last of them; None before the first, and without tracking.
    """

    def __init__(self, path: Path, recipe: Mapping[str, Any], batch: int) -> None:
        self.path = path
        self.frames = 0
        self.state: dict[str, Any] | None = None
        self._file: IO[bytes] | None = None
        # Through JSON and back, so that tuples compare equal to the lists they are read as.
        self._recipe = json.loads(json.dumps({"semanticface": __version__, **recipe}))
        self._end = 0
        if path.exists():
            self._resume(batch)

    def _resume(self, batch: int) -> None:
        with _named(self.path), self.path.open("rb") as file:
            if not (head := file.readline()).endswith(b"\n"):
                return  # stopped within the first line
            if _object(head) != self._recipe:
                raise SemanticFaceError(
                    f"{self.path}: started with another take, model or other settings. Use the same ones to resume, "
                    "or delete it to start over."
                )
            self._end = offset = len(head)
            for number, line in enumerate(file, start=1):
                row = _object(line)
                if not line.endswith(b"\n") or row is None or row.get("frame") != number:
                    break
                offset += len(line)
                if number % batch == 0:
                    self.frames, self.state, self._end = number, row["state"], offset

    def __enter__(self) -> PartialFile:
        with _named(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
            self._file.truncate(self._end)
            if self._end == 0:
                self._file.write(_line(self._recipe))
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        with _named(self.path):
            self._file.close()

    def append(self, answers: list[tuple[FrameAnswer, dict[str, Any] | None]]) -> None:
        """Add a batch of frames, each with the tracker's state after it, and flush."""
        assert self._file is not None
        with _named(self.path):
            for answer, state in answers:
                values = answer.coefficients
                row = {
                    "frame": answer.frame,
                    "time": str(answer.time),
                    "image": answer.image,
                    "status": answer.status,
                    "reason": answer.reason,
                    "coefficients": None if values is None else np.asarray(values, np.float32).tolist(),
                    "interval": None if answer.interval is None else np.rint(answer.interval * 100).tolist(),
                    "calibrated": answer.calibrated,
                    "pose": None if answer.pose is None else np.asarray(answer.pose, np.float32).tolist(),
                    "analysis": answer.analysis and answer.analysis.to_dict(),
                    "box": answer.box and corners(answer.box),
                    "note": answer.note,
                    "state": state,
                }
                self._file.write(_line(row))
            self._file.flush()
        self.frames += len(answers)

    def __iter__(self) -> Iterator[FrameAnswer]:
        """Yield the frames in order."""
        with _named(self.path), self.path.open("rb") as file:
            file.readline()
            for number, line in enumerate(file, start=1):
                row = _object(line)
                if row is None or row.get("frame") != number:
                    raise SemanticFaceError(f"{self.path}: damaged at frame {number}. Delete it to start over.")
                values, analysis, box = row["coefficients"], row["analysis"], row["box"]
                interval = row["interval"]
                yield FrameAnswer(
                    row["image"],
                    row["status"],
                    row["reason"],
                    None if values is None else np.array(values, np.float32),
                    None if analysis is None else Analysis.from_dict(analysis),
                    None if row["pose"] is None else np.array(row["pose"], np.float32),
                    row["frame"],
                    Fraction(row["time"]),
                    box=None if box is None else Box(*box),
                    note=row["note"],
                    interval=None if interval is None else np.array(interval, np.float32) / 100,
                    calibrated=row["calibrated"],
                )


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn an OSError within a block into a SemanticFaceError that names the file."""
    try:
        yield
    except OSError as error:
        raise SemanticFaceError(
            f"{path}: {error.strerror or error}. Free some space or choose another place; what is there is kept."
        ) from error


def corners(box: Box) -> list[float]:
    """Return left, top, right and bottom as plain numbers."""
    return [float(corner) for corner in (box.x0, box.y0, box.x1, box.y1)]


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
