"""Import one Live Link Face take: select frames, crop the faces, write the rows.

Which frames to keep follows from coefficients and timecodes alone: 30 frames a second mostly repeat each other, and
people in front of a camera mostly rest. The video is decoded twice, first for the times of its frames, then for the
faces in the selected ones. Neither the video nor its metadata is stored.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Literal

import numpy as np

from semanticface import arkit
from semanticface.data.captures.dataset import CaptureSet, ShardWriter, TakeRecord, shard_writer
from semanticface.data.captures.files import TakeFiles
from semanticface.data.captures.pairing import LoggedFrame, Pairing, TakeRows, pair_rows, read_log
from semanticface.data.captures.report import MAX_THUMBNAILS, Thumbnail, evenly_spaced, finish_take, thumbnail
from semanticface.data.captures.rows import CaptureSettings, crop_with_context, make_row
from semanticface.errors import SemanticFaceError
from semanticface.utils.progress import tqdm
from semanticface.vision.face_tracker import FaceTracker
from semanticface.vision.timecode import format_rate, timecode_base
from semanticface.vision.video_reader import MAX_FRAMES, Frame, Take, open_take

Calibrate = Literal["app", "none", "rest"]
FrameStatus = Literal["kept", "near neutral", "near duplicate"]

_REST_PERCENTILE = 10
"""Taken for rest: most actions rest most of the time, and the lowest values of all are noise."""
_EYES = np.isin(np.arange(arkit.N_ACTIONS), np.concatenate([arkit.REGION_INDEX["eyes"], arkit.REGION_INDEX["gaze"]]))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSettings(CaptureSettings):
    """Settings that decide the rows of a dataset of takes.

    Attributes:
        calibrate: ``app`` uses the app's calibrated coefficients where there are any, else the recorded ones; ``none``
            uses the recorded ones; ``rest`` subtracts each person's resting face: the app's where it has one, else the
            tenth percentile of all their rows.
    """

    calibrate: Calibrate = "app"


@dataclass(frozen=True, slots=True, eq=False)
class TakeToImport:
    """A take whose table has been read.

    Attributes:
        files: its files.
        key: base name of the files written for it.
        subject: who is recorded.
        rows: of its table.
        neutral: float32[52], the resting face that the app subtracted; None if it did not, or if it is not needed.
    """

    files: TakeFiles
    key: str
    subject: str
    rows: TakeRows
    neutral: np.ndarray | None

    @property
    def name(self) -> str:
        return self.files.name

    @property
    def state(self) -> int:
        """Bytes of the video: another size is another take."""
        return self.files.video.size if self.files.video else 0


def estimate_rest(coefficients: np.ndarray) -> np.ndarray:
    """Return a person's coefficients at rest, float32[52], from all of theirs, float32[N, 52].

    The tenth percentile of each action; the median for eyelids and gaze, which have no resting position.
    """
    rest = np.percentile(coefficients, _REST_PERCENTILE, axis=0)
    return np.where(_EYES, np.median(coefficients, axis=0), rest).astype(np.float32)


def subtract_rest(coefficients: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Rescale coefficients so that rest becomes 0 and 1 stays 1; eyelids and gaze are unchanged.

    Args:
        coefficients: float32[N, 52] in [0, 1].
        rest: float32[52].

    Returns:
        float32[N, 52] in [0, 1].
    """
    # An action that "rests" near 1 would be blown up to noise: it is not at rest but always active.
    offset = np.where(_EYES, 0, np.clip(rest, 0, 0.9))
    return np.clip((coefficients - offset) / (1 - offset), 0, 1).astype(np.float32)


def select_frames(coefficients: np.ndarray, rest: np.ndarray, settings: CaptureSettings) -> list[FrameStatus]:
    """Return for each frame of a take, in order of time, whether it is kept, and if not, why.

    Args:
        coefficients: float32[N, 52].
        rest: float32[52], the person's, on the same scale.
        settings: ``neutral``, ``keep_neutral`` (spread over the take: models must see faces at rest) and ``apart``.
    """
    resting = np.flatnonzero(np.abs(coefficients - rest).max(axis=1, initial=0.0) < settings.neutral).tolist()
    keep = set(evenly_spaced(resting, settings.keep_neutral))
    skip = set(resting) - keep
    statuses: list[FrameStatus] = []
    kept = np.empty_like(coefficients)
    count = 0
    for index, face in enumerate(coefficients):
        if index in skip:
            statuses.append("near neutral")
            continue
        if index not in keep and count and np.abs(kept[:count] - face).max(axis=1).min() < settings.apart:
            statuses.append("near duplicate")
            continue
        kept[count] = face
        count += 1
        statuses.append("kept")
    return statuses


def import_take(
    captures: CaptureSet,
    take: TakeToImport,
    split: str,
    settings: ImportSettings,
    coefficients: np.ndarray,
    rest: np.ndarray,
) -> TakeRecord:
    """Write the rows, the page and the record of one take.

    Args:
        captures: the dataset.
        take: with a video.
        split: of its subject.
        settings: which rows to write.
        coefficients: float32[N, 52] in [0, 1], of the take's rows, calibrated as wanted.
        rest: float32[52], the person's, on the same scale.
    """
    video, log = take.files.video, take.files.log
    assert video is not None
    logged: list[LoggedFrame] = []
    remarks = list(take.rows.problems)
    if log is not None:
        with log.on_disk(captures.scratch) as path:
            logged, problem = read_log(path, str(log))
            remarks += [problem] if problem else []
    with video.on_disk(captures.scratch) as path:
        try:
            importer = _TakeImporter(captures, take, split, settings, coefficients, rest, remarks, open_take(path))
            return importer.run(logged)
        except SemanticFaceError as error:
            raise SemanticFaceError(str(error).replace(str(path), str(video))) from error


class _TakeImporter:
    def __init__(
        self,
        captures: CaptureSet,
        take: TakeToImport,
        split: str,
        settings: ImportSettings,
        coefficients: np.ndarray,
        rest: np.ndarray,
        remarks: list[str],
        video: Take,
    ) -> None:
        self._captures, self._take, self._split, self._settings = captures, take, split, settings
        self._coefficients, self._rest, self._remarks, self._video = coefficients, rest, remarks, video
        self._statuses: list[str] = ["no frame"] * len(coefficients)  # one per row
        self._thumbnails: dict[str, list[Thumbnail]] = defaultdict(list)
        self._broken = bool(take.rows.problems)

    def run(self, logged: Sequence[LoggedFrame]) -> TakeRecord:
        take, video = self._take, self._video
        times, damaged = self._read_times()
        if not times:
            raise SemanticFaceError(f"{video.path}: the video has no frames. Export it again.")
        base = timecode_base(video.path)
        pairing = pair_rows(take.rows, times, video.rate, start=video.timecode, start_base=base, log=logged)
        self._remarks += [f"{take.files.table}: {pairing.warning}"] if pairing.warning else []
        for row, frame in enumerate(pairing.frames.tolist()):
            if frame in damaged:
                self._statuses[row] = "damaged frame"
                self._broken = True
            elif frame >= 0:
                self._statuses[row] = "dropped frame" if logged and logged[frame].dropped else "paired"
        paired = self._rows_with("paired")
        selected = select_frames(self._coefficients[paired], self._rest, self._settings)
        for row, status in zip(paired, selected, strict=True):
            self._statuses[row] = status
        self._remarks += list(damaged.values())
        if video.shortfall:
            self._remarks.append(video.shortfall)
            self._broken = True
        with shard_writer(self._captures.folder / self._split / f"take-{take.key}.arrow") as writer:
            self._write_faces(pairing, writer)
            if not self._rows_with("kept"):
                counts = ", ".join(
                    f"{count:,} rows {status}" for status, count in Counter(self._statuses).most_common()
                )
                last = f"; {self._remarks[-1]}" if self._remarks else ""
                raise SemanticFaceError(f"{take.files.table}: no face left to import: {counts}{last}.")
        return self._finish(pairing, len(times))

    def _rows_with(self, status: str) -> list[int]:
        return [row for row, each in enumerate(self._statuses) if each == status]

    def _read_times(self) -> tuple[list[Fraction], dict[int, str]]:
        """Return the time of each frame, and why a frame, counted from 0, cannot be decoded."""
        times, damaged = [], {}
        bar = tqdm(self._video.frames(MAX_FRAMES), total=self._video.count, unit="frame", leave=False)
        bar.set_description(f"{self._take.name}, timing")
        for frame in bar:
            times.append(frame.time)
            if frame.reason:
                damaged[frame.number - 1] = frame.reason
        return times, damaged

    def _write_faces(self, pairing: Pairing, writer: ShardWriter) -> None:
        """Crop and write the kept faces, and make thumbnails of a few of the others."""
        kept = self._rows_with("kept")
        with_thumbnail = set(evenly_spaced(kept, MAX_THUMBNAILS["kept"]))
        others = [
            row
            for status in ("near duplicate", "near neutral")
            for row in evenly_spaced(self._rows_with(status), MAX_THUMBNAILS[status])
        ]
        row_at = {int(pairing.frames[row]): row for row in {*kept, *others}}
        tracker = FaceTracker()
        for frame in self._decode(row_at):
            row = row_at[frame.number - 1]
            status = self._statuses[row]
            assert frame.picture is not None
            seen = tracker.update(frame.picture, float(frame.time))
            caption = f"{self._take.rows.timecodes[row]}, frame {frame.number}"
            at = f"{self._video.path}, frame {frame.number}"
            if seen.note:
                self._remarks.append(f"{at}: {seen.note}")
            if seen.box is None:
                if status == "kept":
                    self._statuses[row], self._broken = "no face", True
                    if len(self._thumbnails["no face"]) < MAX_THUMBNAILS["no face"]:
                        self._thumbnails["no face"].append(Thumbnail(thumbnail(frame.picture, None), caption))
                    self._remarks.append(f"{at}: no face found. Left out.")
                continue
            values = self._coefficients[row]
            if status == "kept":
                crop, box = crop_with_context(frame.picture, seen.box, self._settings.size)
                writer.add(
                    make_row(
                        crop,
                        box,
                        values,
                        subject=self._take.subject,
                        take=self._take.key,
                        frame=frame.number,
                        emotion=self._settings.emotion,
                        timecode=self._take.rows.timecodes[row],
                        pose=self._take.rows.pose[row],
                    )
                )
            if status != "kept" or row in with_thumbnail:
                self._thumbnails[status].append(Thumbnail(thumbnail(frame.picture, seen.box), caption, values))

    def _decode(self, wanted: dict[int, int]) -> Iterator[Frame]:
        """Yield the wanted frames, counted from 0, that have a picture."""
        if not wanted:
            return
        first, last = min(wanted), max(wanted)
        frames = islice(self._video.frames(first), last + 1)
        bar = tqdm(frames, total=last + 1, unit="frame", leave=False, desc=f"{self._take.name}, faces")
        for frame in bar:
            if frame.number - 1 in wanted and frame.picture is not None:
                yield frame

    def _finish(self, pairing: Pairing, n_frames: int) -> TakeRecord:
        take, video = self._take, self._take.files.video
        counts = Counter(self._statuses)
        counts["bad row"] = take.rows.total - len(take.rows.lines)
        counts["no row"] = n_frames - int((pairing.frames >= 0).sum())
        offsets = np.abs(pairing.offset_ms[pairing.frames >= 0])
        paired = (
            f"{pairing.source}, {pairing.base} frames per second of timecode, running at {format_rate(pairing.rate)}; "
            f"median offset {float(np.median(offsets)):.1f} ms, at most {float(offsets.max()):.1f} ms"
        )
        record = TakeRecord(
            take.key,
            take.name,
            take.subject,
            self._split,
            take.state,
            counts,
            paired,
            [remark.replace(str(self._video.path), str(video)) for remark in self._remarks],
            self._broken,
        )
        return finish_take(self._captures, record, self._thumbnails, location=str(take.files.table))
