"""One take becomes rows: its video is read twice, first for the times of its frames, then for the faces worth keeping.

Which frames are wanted is known from coefficients and times alone, so only those are searched for a face, cropped and
encoded anew. No frame of the video is written anywhere, and no metadata of it.

Which frames of a take are worth keeping, and what the software reads in a face at rest.

Thirty frames a second mostly repeat each other, and people in front of a camera mostly rest. Everything here looks at
coefficients alone, never at pictures.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Any, Literal

import numpy as np

from semanticface import arkit
from semanticface.config import check_range
from semanticface.data.captures.dataset import CaptureSet, ShardWriter, TakeRecord, shard_writer
from semanticface.data.captures.files import TakeFiles
from semanticface.data.captures.pairing import LoggedFrame, Pairing, TakeRows, pair, read_log
from semanticface.data.captures.report import SHOWN, Thumbnail, thumbnail, write_take_page
from semanticface.data.consent import LOOK
from semanticface.errors import ConfigError, SemanticFaceError
from semanticface.semantics.analysis import describe
from semanticface.semantics.answer import format_answer
from semanticface.utils.progress import tqdm
from semanticface.vision.crop import Box, crop_face, to_crop
from semanticface.vision.face_tracker import FaceTracker
from semanticface.vision.image_io import encode_jpeg
from semanticface.vision.timecode import format_rate, timecode_base
from semanticface.vision.video_reader import MAX_FRAMES, Frame, Take, open_take

Fate = Literal["kept", "near neutral", "near duplicate"]

_AT_REST = 10
"""Percentile that is taken for rest: most actions rest most of the time, and the lowest values of all are noise."""
_EYES = np.isin(np.arange(arkit.N_ACTIONS), np.concatenate([arkit.REGION_INDEX["eyes"], arkit.REGION_INDEX["gaze"]]))


def rest_of(coefficients: np.ndarray) -> np.ndarray:
    """Return what a person's coefficients are at rest, float32[52], given all of theirs, float32[N, 52].

    The tenth percentile of each action; the median for eyelids and gaze, which have no rest to go back to.
    """
    rest = np.percentile(coefficients, _AT_REST, axis=0)
    return np.where(_EYES, np.median(coefficients, axis=0), rest).astype(np.float32)


def calibrated(coefficients: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Take the resting face off: rest becomes 0 and 1 stays 1. Eyelids and gaze are left alone.

    Args:
        coefficients: float32[N, 52] in [0, 1].
        rest: float32[52].

    Returns:
        float32[N, 52] in [0, 1].
    """
    # An action that "rests" near 1 would be blown up to noise; it does not rest, it is always there.
    off = np.where(_EYES, 0, np.clip(rest, 0, 0.9))
    return np.clip((coefficients - off) / (1 - off), 0, 1).astype(np.float32)


def thin(coefficients: np.ndarray, rest: np.ndarray, *, neutral: float, keep_neutral: int, apart: float) -> list[Fate]:
    """Say of each frame of a take, in order of time, whether it is kept, and if not, why.

    Args:
        coefficients: float32[N, 52].
        rest: float32[52], of the person, as they are in ``coefficients``.
        neutral: a face in which no action is this far from rest is near neutral.
        keep_neutral: how many of those are kept all the same, spread over the take: models must see faces at rest.
        apart: a face is a near duplicate of one kept before where no action differs by this much.
    """
    resting = np.flatnonzero(np.abs(coefficients - rest).max(axis=1, initial=0.0) < neutral)
    spread = np.linspace(0, len(resting) - 1, min(keep_neutral, len(resting))).round().astype(int)
    wanted = set(resting[spread].tolist())
    skipped = set(resting.tolist()) - wanted
    fates: list[Fate] = []
    kept = np.empty_like(coefficients)
    count = 0
    for place, face in enumerate(coefficients):
        if place in skipped:
            fates.append("near neutral")
            continue
        if place not in wanted and count and np.abs(kept[:count] - face).max(axis=1).min() < apart:
            fates.append("near duplicate")
            continue
        kept[count] = face
        count += 1
        fates.append("kept")
    return fates


Calibrate = Literal["app", "none", "rest"]

CONTEXT = 1.5
"""Side of the picture kept in sides of the face's box: training shifts and scales its crops by up to a tenth."""

SMALLEST = 64
"""Pixels a side at least, however small the face is."""
_MOST_REMARKS = 20


def check_kept(size: int, neutral: float, keep_neutral: int, apart: float, splits: dict[str, float]) -> None:
    """Raise a ConfigError unless these settings, which takes and pictures share, are in range."""
    check_range("size", size, SMALLEST, 2048)
    check_range("neutral", neutral, 0, 1)
    check_range("keep_neutral", keep_neutral, 0, 100_000)
    check_range("apart", apart, 0, 1)
    if not splits or not all(name.isidentifier() and share > 0 for name, share in splits.items()):
        raise ConfigError(f"splits must be name=share pairs with shares above 0, not {splits}")


@dataclass(frozen=True, slots=True)
class ImportSettings:
    """What decides the rows of a dataset of captures.

    Attributes:
        size: side of the pictures in pixels at most; faces that are smaller in the video are not enlarged.
        calibrate: ``app`` takes the calibrated numbers where the app calibrated, else those recorded; ``none`` takes
            those recorded; ``rest`` takes each person's resting face off, the app's where it has one, else the tenth
            percentile of all their rows.
        neutral: a face in which no action is this far from rest is near neutral.
        keep_neutral: how many of those are kept of each take.
        apart: a face is a near duplicate of one kept before where no action differs by this much.
        splits: share of each split, by name.
        emotion: whether answers carry an emotional implication.
    """

    size: int = 512
    calibrate: Calibrate = "app"
    neutral: float = 0.15
    keep_neutral: int = 5
    apart: float = 0.1
    splits: dict[str, float] = dataclasses.field(default_factory=lambda: {"train": 0.8, "validation": 0.1, "test": 0.1})
    emotion: bool = True

    def __post_init__(self) -> None:
        check_kept(self.size, self.neutral, self.keep_neutral, self.apart, self.splits)


@dataclass(frozen=True, slots=True, eq=False)
class TakeToImport:
    """A take whose table is read.

    Attributes:
        files: where it lies.
        key: names what is written of it.
        subject: who is recorded.
        rows: of its table.
        neutral: float32[52], the resting face that the app took off; None where it did not, or where nobody asks.
    """

    files: TakeFiles
    key: str
    subject: str
    rows: TakeRows
    neutral: np.ndarray | None


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
        split: where its subject belongs.
        settings: see there.
        coefficients: float32[N, 52] in [0, 1], of the take's rows, calibrated as wanted.
        rest: float32[52], of the same, of the person at rest.

    Raises:
        SemanticFaceError: the video cannot be read, nothing of the take is left, or the system refuses to write.
    """
    film, log = take.files.film, take.files.log
    if film is None:
        raise SemanticFaceError(f"{take.files.table}: no video beside it. Copy the whole folder of the take.")
    logged: list[LoggedFrame] = []
    remarks = list(take.rows.problems)
    if log is not None:
        with log.on_disk(captures.scratch) as path:
            logged, complaint = read_log(path, str(log))
            remarks += [complaint] if complaint else []
    with film.on_disk(captures.scratch) as path:
        try:
            return _Work(captures, take, split, settings, coefficients, rest, remarks, open_take(path)).do(logged)
        except SemanticFaceError as error:
            raise SemanticFaceError(str(error).replace(str(path), str(film))) from error


class _Work:
    def __init__(
        self,
        captures: CaptureSet,
        take: TakeToImport,
        split: str,
        settings: ImportSettings,
        coefficients: np.ndarray,
        rest: np.ndarray,
        remarks: list[str],
        film: Take,
    ) -> None:
        self._captures, self._take, self._split, self._settings = captures, take, split, settings
        self._coefficients, self._rest, self._remarks, self._film = coefficients, rest, remarks, film
        self._fates: list[str] = ["no frame"] * len(coefficients)
        self._shown: dict[str, list[Thumbnail]] = defaultdict(list)
        self._broken = bool(take.rows.problems)

    def do(self, logged: Sequence[LoggedFrame]) -> TakeRecord:
        take, film = self._take, self._film
        times, damaged = self._times()
        if not times:
            raise SemanticFaceError(f"{film.path}: no frame in it. Export it again.")
        base = timecode_base(film.path)
        pairing = pair(take.rows, times, film.rate, start=film.timecode, start_base=base, log=logged)
        self._remarks += [f"{take.files.table}: {pairing.warning}"] if pairing.warning else []
        for row, frame in enumerate(pairing.frame_of.tolist()):
            if frame in damaged:
                self._fates[row] = "damaged frame"
                self._broken = True
            elif frame >= 0:
                self._fates[row] = "dropped frame" if logged and logged[frame].dropped else "paired"
        paired = [row for row, fate in enumerate(self._fates) if fate == "paired"]
        fates = thin(
            self._coefficients[paired],
            self._rest,
            neutral=self._settings.neutral,
            keep_neutral=self._settings.keep_neutral,
            apart=self._settings.apart,
        )
        for row, fate in zip(paired, fates, strict=True):
            self._fates[row] = fate
        self._remarks += list(damaged.values())
        if film.shortfall:
            self._remarks.append(film.shortfall)
            self._broken = True
        shard = self._captures.folder / self._split / f"take-{take.key}.arrow"
        with shard_writer(shard) as writer:
            self._write(pairing, writer)
            if "kept" not in self._fates:
                raise SemanticFaceError(f"{take.files.table}: nothing of it is left: {self._why()}.")
        return self._finish(pairing, len(times))

    def _times(self) -> tuple[list[Fraction], dict[int, str]]:
        """Return the time of each frame, and by number, from 0, what is wrong with those that cannot be decoded."""
        times, damaged = [], {}
        bar = tqdm(self._film.frames(MAX_FRAMES), total=self._film.count, unit="frame", leave=False)
        bar.set_description(f"{self._take.files.name}, timing")
        for frame in bar:
            times.append(frame.time)
            if frame.reason:
                damaged[frame.number - 1] = frame.reason
        return times, damaged

    def _write(self, pairing: Pairing, writer: ShardWriter) -> None:
        """Crop and write the faces that are kept, and look at a few of the others for the page."""
        looked = self._looked_at()
        row_at = {int(pairing.frame_of[row]): row for row in looked}
        shown = self._spread("kept", SHOWN["kept"])
        tracker = FaceTracker()
        for frame in self._pictures(row_at):
            row = row_at[frame.number - 1]
            fate = self._fates[row]
            assert frame.picture is not None
            seen = tracker.update(frame.picture, float(frame.time))
            caption = f"{self._take.rows.timecodes[row]}, frame {frame.number}"
            if seen.note:
                self._remarks.append(f"{self._film.path}, frame {frame.number}: {seen.note}")
            if seen.box is None:
                if fate == "kept":
                    self._fates[row], self._broken = "no face", True
                    if len(self._shown["no face"]) < SHOWN["no face"]:
                        self._shown["no face"].append(Thumbnail(thumbnail(frame.picture, None), caption))
                    self._remarks.append(f"{self._film.path}, frame {frame.number}: no face found. Left out.")
                continue
            if fate == "kept":
                writer.add(self._row(row, frame, seen.box))
            if fate != "kept" or row in shown:
                self._shown[fate].append(
                    Thumbnail(thumbnail(frame.picture, seen.box), caption, self._coefficients[row])
                )

    def _spread(self, fate: str, most: int) -> set[int]:
        """Return some rows of a fate, spread evenly over the take."""
        there = [row for row, each in enumerate(self._fates) if each == fate]
        return {there[place] for place in np.linspace(0, len(there) - 1, min(most, len(there))).round().astype(int)}

    def _looked_at(self) -> set[int]:
        looked = {row for row, fate in enumerate(self._fates) if fate == "kept"}
        for fate in ("near duplicate", "near neutral"):
            looked |= self._spread(fate, SHOWN[fate])
        return looked

    def _pictures(self, wanted: dict[int, int]) -> Iterator[Frame]:
        """Yield the wanted frames, with their pictures."""
        if not wanted:
            return
        first, last = min(wanted), max(wanted)
        frames = islice(self._film.frames(first), last + 1)
        bar = tqdm(frames, total=last + 1, unit="frame", leave=False, desc=f"{self._take.files.name}, faces")
        for frame in bar:
            if frame.number - 1 in wanted and frame.picture is not None:
                yield frame

    def _row(self, row: int, frame: Frame, box: Box) -> dict[str, Any]:
        assert frame.picture is not None
        window = box.square(CONTEXT)
        side = min(self._settings.size, max(SMALLEST, round(window.width)))
        picture = crop_face(frame.picture, window, side)
        values = self._coefficients[row]
        # Stage I reads the numbers as the answer shows them, so that words and digits never disagree.
        shown = np.round(values, 2)
        corners = to_crop(np.array([[box.x0, box.y0], [box.x1, box.y1]]), window, side)
        return {
            "picture": encode_jpeg(picture),
            "coefficients": values,
            "subject": self._take.subject,
            "look": LOOK,
            "answer": format_answer(shown, describe(shown, emotion=self._settings.emotion)),
            "box": corners.ravel().astype(np.float32),
            "pose": self._take.rows.pose[row],
            "take": self._take.key,
            "timecode": self._take.rows.timecodes[row],
            "frame": frame.number,
        }

    def _finish(self, pairing: Pairing, frames: int) -> TakeRecord:
        take, film = self._take, self._take.files.film
        assert film is not None
        counts = Counter(self._fates)
        counts["bad row"] = take.rows.total - len(take.rows.lines)
        counts["no row"] = frames - int((pairing.frame_of >= 0).sum())
        off = np.abs(pairing.off[pairing.frame_of >= 0])
        paired = (
            f"{pairing.by}, {pairing.base} frames to a second of timecode, run at {format_rate(pairing.rate)}; "
            f"{float(np.median(off)):.1f} ms apart, {float(off.max()):.1f} at most"
        )
        remarks = [remark.replace(str(self._film.path), str(film)) for remark in self._remarks]
        if len(remarks) > _MOST_REMARKS:
            more = len(remarks) - _MOST_REMARKS
            remarks[_MOST_REMARKS:] = [f"{take.files.table}: {more} more remarks of this kind."]
        record = TakeRecord(
            take.key,
            take.files.name,
            take.subject,
            self._split,
            film.size,
            {fate: count for fate, count in sorted(counts.items()) if count},
            paired,
            remarks,
            self._broken,
        )
        write_take_page(self._captures.page(take.key), record, {fate: self._shown[fate] for fate in SHOWN})
        self._captures.put(record)
        return record

    def _why(self) -> str:
        counts = Counter(self._fates)
        told = ", ".join(f"{count:,} rows {fate}" for fate, count in counts.most_common())
        return f"{told}{'; ' + self._remarks[-1] if self._remarks else ''}"
