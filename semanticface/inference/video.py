"""A whole take, video or folder of frames, to coefficients: decode, crop, predict, smooth, write; goes on after a stop.

Frames are decoded, tracked and cropped on a thread ahead of the model; memory does not grow with the take. What the
model says is kept frame by frame in a side file, ``OUT.partial``; the table is written from it at the end, in one go.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from semanticface import arkit
from semanticface.errors import PictureError, VideoError
from semanticface.formats import live_link, tables
from semanticface.formats.live_link import LiveLinkRow
from semanticface.inference.predictor import Prediction, Predictor
from semanticface.inference.side_file import FrameAnswer, SideFile, corners
from semanticface.utils.one_euro import Settings, coefficient_filter
from semanticface.utils.prefetch import ahead
from semanticface.vision.crop import Box, crop_face
from semanticface.vision.face_tracker import FaceTracker
from semanticface.vision.timecode import Clock
from semanticface.vision.video_reader import Frame, Take

Crop = Literal["track", "none"] | Box
"""``track`` follows the face; ``none`` takes whole frames; a box is cut out of every frame."""

_MOST_REMARKS = 20


@dataclass(slots=True)
class Report:
    """What became of a take.

    Attributes:
        frames: how many there are.
        failed: how many of them have no answer.
        remarks: a sentence for each stretch of frames without an answer and for each note, as far as they are few.
        shortfall: what the video announces and does not hold, in a sentence; mostly empty.
    """

    frames: int = 0
    failed: int = 0
    remarks: list[str] = field(default_factory=list)
    shortfall: str = ""


@dataclass(frozen=True, slots=True)
class _Look:
    """A frame ready for the model, or the reason why it is not; and the tracker's state after it."""

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

    The CSV has no row for a frame without an answer: its timecode is missing there, and the report says so. Called
    again with the same arguments after it was stopped, it goes on, and writes the same bytes as without the stop.

    Args:
        take: from ``video.open_take``.
        out: ends in ``.csv`` or ``.jsonl``.
        predictor: the model.
        crop: which part of each frame the model sees.
        clock: gives the timecodes; by default at the take's own rate, from 00:00:00:00.
        smoothing: of the numbers in a CSV, see ``smooth``; None leaves them as predicted. Words are never changed.
        batch_size: frames predicted together.
        settings: what else the predictions depend on, such as the model's name, to know a begun side file by.

    Raises:
        VideoError: no frame, or none with an answer; a take that cannot be read.
        SemanticFaceError: a side file of another take or other settings, or no room to write.
        ValueError: smoothing of a JSONL.
    """
    as_csv = tables.check_target(out) == ".csv"
    if smoothing is not None and not as_csv:
        raise ValueError(f"{out}: only the numbers of a CSV are smoothed")
    recipe = {"take": take.identity, "crop": crop if isinstance(crop, str) else corners(crop), **(settings or {})}
    side = SideFile(out.with_name(f"{out.name}.partial"), recipe, batch_size)
    _predict(take, side, predictor, crop, batch_size)
    report = _reported(take, side)
    if report.frames == 0 or (as_csv and report.failed == report.frames):
        side.path.unlink()
        what = f"no frame has an answer. {report.remarks[0]}" if report.frames else "no frame in it. Export it again."
        raise VideoError(f"{take.path}: {what}")
    clock = clock or Clock(take.counting_rate)
    answers = (dataclasses.replace(answer, timecode=clock.label(answer.time)) for answer in side)
    if as_csv:
        live_link.write(out, _rows(answers, smoothing))
    else:
        tables.write(out, answers)
    side.path.unlink()
    return report


def model_record(name: str, predictor: Predictor) -> dict[str, Any]:
    """What tells a model from another one, or from the same trained anew, for ``predict_take``'s settings."""
    recipe = json.dumps(predictor.bundle.recipe, sort_keys=True, default=str)
    weights = sorted(Path(name).glob("*.safetensors")) if Path(name).is_dir() else []
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in weights]
    return {"name": name, "recipe": hashlib.sha256(recipe.encode()).hexdigest(), "weights": stats}


def _predict(take: Take, side: SideFile, predictor: Predictor, crop: Crop, batch_size: int) -> None:
    """Bring the side file to the take's end."""
    looks = ahead(_looks(take, crop, predictor.bundle.image_size, side.frames, side.state), depth=2 * batch_size)
    with side, tqdm(total=take.count, initial=side.frames, unit="frame") as bar, contextlib.closing(looks):
        while chunk := list(islice(looks, batch_size)):
            crops = [look.crop for look in chunk if look.crop is not None]
            predictions = predictor.stream(crops, batch_size=batch_size, crop="none")
            side.append([(_answer(take, look, predictions), look.state) for look in chunk])
            bar.update(len(chunk))


def _looks(take: Take, crop: Crop, size: int, skip: int, state: dict[str, Any] | None) -> Iterator[_Look]:
    """Yield the frames after the first ``skip``, cropped."""
    tracker = FaceTracker(state=state) if crop == "track" else None
    for frame in islice(take.frames(skip), skip, None):
        status, reason, note, cut, box = frame.code or "ok", frame.reason, "", None, None
        if frame.picture is not None:
            try:
                box, note = _place(frame, crop, tracker)
                cut = crop_face(frame.picture, box, size)
            except PictureError as error:
                status, reason = error.code, f"{take.path}, frame {frame.number}: {error}"
        # The picture itself goes no further: only the crop waits for the model.
        frame = dataclasses.replace(frame, picture=None)
        yield _Look(frame, cut, box, status, reason, note, None if tracker is None else tracker.state)


def _place(frame: Frame, crop: Crop, tracker: FaceTracker | None) -> tuple[Box, str]:
    """Return the part of a frame to show to the model and what is to be said of the choice."""
    assert frame.picture is not None
    if tracker is not None:
        seen = tracker.see(frame.picture, float(frame.time))
        if seen.box is None:
            raise PictureError("no_face", "no face found. Give a box around it, or use the whole frames as they are.")
        return seen.box, seen.note
    return crop if isinstance(crop, Box) else Box(0, 0, *frame.picture.size), ""


def _answer(take: Take, look: _Look, predictions: Iterator[Prediction]) -> FrameAnswer:
    """Return what is known of a frame; takes the next prediction if the frame was shown to the model."""
    number = look.frame.number
    name = f"{take.path}, frame {number}"
    answer = FrameAnswer(
        name, look.status, look.reason, frame=number, time=look.frame.time, box=look.box, note=look.note
    )
    if look.crop is None:
        return answer
    said = next(predictions)
    reason = said.reason and f"{name}: {said.reason.removeprefix(f'{said.image}: ')}"
    return dataclasses.replace(
        answer,
        status=said.status,
        reason=reason,
        coefficients=said.coefficients,
        analysis=said.analysis,
        interval=said.interval,
        calibrated=said.reading is not None and said.reading.calibrated,
    )


def _rows(answers: Iterable[FrameAnswer], smoothing: Settings | None) -> Iterator[LiveLinkRow]:
    """Yield the rows of a Live Link CSV; rotations of head and eyes are not predicted and stay 0."""
    pose = np.zeros(len(arkit.POSE_NAMES))
    smooth = None if smoothing is None else coefficient_filter(smoothing)
    for answer in answers:
        if answer.coefficients is not None:
            values = answer.coefficients.astype(np.float64)
            yield LiveLinkRow(
                answer.timecode, values if smooth is None else smooth.step(values, float(answer.time)), pose
            )


def _reported(take: Take, answers: Iterable[FrameAnswer]) -> Report:
    """Count the frames, and say of each stretch of them why it has no answer."""
    report = Report(shortfall=take.shortfall)
    stretches: list[list[FrameAnswer]] = []
    notes = []
    running = False
    for answer in answers:
        report.frames += 1
        if answer.note:
            notes.append(f"{answer.image}: {answer.note}")
        if answer.status == "ok":
            running = False
            continue
        report.failed += 1
        if running and stretches[-1][-1].status == answer.status:
            stretches[-1][1:] = [answer]
        else:
            stretches.append([answer])
        running = True
    for stretch in stretches:
        first, last = stretch[0], stretch[-1]
        reason = first.reason
        if last is not first:
            reason = reason.replace(f"{first.image}: ", f"{take.path}, frames {first.frame} to {last.frame}: ", 1)
        report.remarks.append(reason)
    report.remarks += notes
    if len(report.remarks) > _MOST_REMARKS:
        more = len(report.remarks) - _MOST_REMARKS
        report.remarks[_MOST_REMARKS:] = [f"{take.path}: {more} more remarks; a .jsonl holds them all."]
    return report
