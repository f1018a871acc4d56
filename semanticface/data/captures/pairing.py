"""Pair the rows of a take with the frames of its video, by timecode.

Times are whole thousandths of a frame since midnight, as the app writes them (ticks). The times of the video's frames
come from the best of three sources:

1. the app's ``frame_log.csv``: a line per frame, with its timecode;
2. the timecode of the video's first frame (a ``tmcd`` track) plus the frames' presentation times;
3. none: the first frame is assumed to belong to the first row, with a warning.

A creation date is of no use: it is in whole seconds. A timecode in whole frames lacks the fraction; the first row's is
used, because both come from the same camera.

A row gets the frame nearest to it if it is also the row nearest to that frame and they are less than half a frame
apart. So a dropped frame or row leaves its partner unpaired and never shifts the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from semanticface.errors import SemanticFaceError, TableError
from semanticface.formats import tables
from semanticface.formats.timecode_count import (
    BASES,
    NTSC,
    dropped_before,
    find_base,
    is_drop_frame,
    milliseconds_behind,
)
from semanticface.utils import csv_lines as lines
from semanticface.vision.timecode import parse, timecode_rate

_UNIT = 1000  # thousandths of a frame
_DAY = 24 * 60 * 60
_LONGEST_LINE = 2**12
_OTHER_PACE = 0.2  # penalty if rows come at half or twice the frame rate: that of a rate off by a fifth

Source = Literal["frame log", "timecode of the video", "first row"]


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """A timecode whose frames per second are not known yet: whole seconds, and FF in thousandths of a frame.

    ``drop_frame`` if it is written with a ``;``.
    """

    seconds: int
    frame: int
    drop_frame: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class TakeRows:
    """The valid rows of a take, in order of time.

    Attributes:
        lines: int[N], line numbers in the file, from 1.
        timecodes: as in the file.
        labels: the same, parsed.
        coefficients: float32[N, 52] in [0, 1].
        pose: float32[N, 9], ``arkit.POSE_NAMES``, in the app's own units; 0 if not recorded.
        problems: a sentence for each invalid row, with its line.
        total: rows in the file.
    """

    lines: np.ndarray
    timecodes: tuple[str, ...]
    labels: tuple[Label, ...]
    coefficients: np.ndarray
    pose: np.ndarray
    problems: tuple[str, ...]
    total: int


@dataclass(frozen=True, slots=True, eq=False)
class LoggedFrame:
    """A video frame in the app's log; if ``dropped``, the camera lost it and the video repeats another frame."""

    label: Label
    dropped: bool


@dataclass(frozen=True, slots=True, eq=False)
class Pairing:
    """Which rows and frames belong together.

    Attributes:
        frames: int[N], the frame of each row, from 0; -1 for none.
        source: of the frames' times.
        base: frames that a second of timecode counts.
        rate: frames per second at which timecodes run.
        offset_ms: float[N], milliseconds from the row to its frame; NaN for none.
        warning: a sentence; mostly empty.
    """

    frames: np.ndarray
    source: Source
    base: int
    rate: Fraction
    offset_ms: np.ndarray
    warning: str = ""


def parse_label(text: str) -> Label | None:
    """Parse ``HH:MM:SS:FF.fff``, with at most three decimals; None if it is not a timecode."""
    found = parse(text)
    if found is None or (ticks := found[1] * _UNIT).denominator > 1:
        return None
    return Label(found[0], int(ticks), ";" in text)


def read_rows(path: Path, name: str) -> TakeRows:
    """Read a Live Link Face CSV.

    Args:
        path: the file.
        name: for messages; the file may have been unpacked from an archive.

    Raises:
        TableError: the file is missing, is not a Live Link Face CSV, or has no valid row.
    """
    found: list[tables.TableRow] = []
    labels: list[Label] = []
    problems: list[str] = []
    total = 0
    try:
        for row in tables.read_coefficients(path):
            total += 1
            if row.error:
                problems.append(row.error.replace(str(path), name, 1))
                continue
            if row.live_link is None:
                raise TableError(f"{path}: not a Live Link Face CSV: it has no timecodes. Use the app's own export.")
            label = parse_label(row.label)
            if label is None:
                problems.append(
                    f"{name}, line {row.line}: {lines.quote(row.label)} is not a timecode. Correct or remove the row."
                )
                continue
            found.append(row)
            labels.append(label)
    except TableError as error:
        raise TableError(str(error).replace(str(path), name, 1)) from error
    if not found:
        raise TableError(f"{name}: no usable row. {problems[0] if problems else 'It ends after its header.'}")
    return TakeRows(
        np.array([row.line for row in found]),
        tuple(row.label for row in found),
        tuple(labels),
        np.stack([row.coefficients for row in found if row.coefficients is not None]),
        np.stack([row.live_link.pose for row in found if row.live_link is not None]).astype(np.float32),
        tuple(problems),
        total,
    )


def read_log(path: Path, name: str) -> tuple[list[LoggedFrame], str]:
    """Read the frames of the video in ``frame_log.csv``: ``V,index,time,timescale,timecode[,dropped]``.

    Returns:
        The frames up to the first unreadable line, and the problem with that line, mostly empty.
    """
    frames: list[LoggedFrame] = []
    try:
        for number, text, problem in lines.read_lines(
            path, max_line_bytes=_LONGEST_LINE, max_lines=2 * tables.MAX_ROWS
        ):
            cells = text.split(",")
            if not problem and cells[0].strip() != "V":  # D is depth, A is sound
                continue
            label = parse_label(cells[4]) if len(cells) in (5, 6) else None
            if problem or label is None or cells[1].strip() != str(len(frames)):
                return frames, f"{name}, line {number}: expected video frame {len(frames)}. Copy the file again."
            frames.append(LoggedFrame(label, len(cells) == 6 and cells[5].strip() != "0"))
    except SemanticFaceError as error:
        return frames, str(error).replace(str(path), name, 1)
    return frames, ""


def detect_base(labels: Sequence[Label], frame_rate: Fraction) -> int:
    """Return how many frames a second of these timecodes counts, mostly one of ``BASES``.

    Args:
        labels: of consecutive rows.
        frame_rate: of the video; decides if all labels are within one second.

    Raises:
        TableError: FF is too large for any of ``BASES``.
    """
    seconds, frames = _columns(labels)
    possible = [base for base in BASES if base * _UNIT > frames.max()]
    if not possible:
        raise TableError(f"a timecode counts frame {frames.max() // _UNIT}, but a second has at most {BASES[-1]}.")
    if (found := find_base(seconds, frames / _UNIT)) is not None:
        return found
    elapsed, steps = np.diff(seconds), np.diff(frames)
    within = steps[(elapsed == 0) & (steps > 0)]
    # Less than a second: assume that rows come at the frame rate, or at half or twice that.
    step = float(np.median(within)) / _UNIT if len(within) else 1.0

    def penalty(base: int) -> float:
        return min(
            abs(math.log(base / step / (float(frame_rate) * times))) + (times != 1) * _OTHER_PACE
            for times in (0.5, 1, 2)
        )

    return min(possible, key=penalty)


def ticks(labels: Sequence[Label], base: int) -> np.ndarray:
    """Return thousandths of a frame since the first label's midnight, int64[N], still growing after 23:59:59.

    Numbers that drop-frame timecode leaves out are not counted, nor milliseconds behind FF.
    """
    seconds, frames = _columns(labels)
    if milliseconds_behind(frames / _UNIT, base) == "even":
        frames = frames // _UNIT * _UNIT
    out = seconds * base * _UNIT + frames
    if _are_drop_frame(labels, base):
        out -= dropped_before(seconds, base) * _UNIT
    day = _DAY * base * _UNIT
    midnights = np.cumsum(np.diff(out, prepend=out[:1]) < -day // 2)
    unwrapped: np.ndarray = out + midnights * day
    return unwrapped


def pair_rows(
    rows: TakeRows,
    times: Sequence[Fraction],
    frame_rate: Fraction,
    *,
    start: str | None = None,
    start_base: int | None = None,
    log: Sequence[LoggedFrame] = (),
) -> Pairing:
    """Pair rows with frames.

    Args:
        rows: of the take.
        times: of each frame, in seconds since the first.
        frame_rate: of the video.
        start: timecode of the first frame, as ``video_reader.Take.timecode``.
        start_base: how many frames a second it counts; by default the video's frame rate.
        log: the app's frame log; takes precedence.

    Raises:
        TableError: the timecodes are impossible.
    """
    if log:
        return _pair_by_log(rows, times, frame_rate, log)
    base = detect_base(rows.labels, frame_rate)
    at = ticks(rows.labels, base)
    drop_frame = _are_drop_frame(rows.labels, base)
    source: Source = "timecode of the video"
    warning = ""
    first = None
    label = parse_label(start) if start else None
    if label is not None:
        start_base = start_base or round(timecode_rate(frame_rate))
        if label.frame < start_base * _UNIT:
            dropped = dropped_before(label.seconds, start_base) if label.drop_frame and drop_frame else 0
            first = _first_tick(label, dropped, start_base, base, int(at[0]))
    if first is None:
        first, source = int(at[0]), "first row"
        why = f"the video's timecode {start} cannot be read" if start else "the video has no timecode"
        warning = f"{why} and there is no frame log: its first frame is paired with the first row. Check the report."
    elif start and ";" in start and not drop_frame:
        warning = f"the video's timecode {start} is drop-frame, those of the rows are not. Check the report."
    seconds = np.array([float(time) for time in times])
    fits = []
    for rate in (Fraction(base), base * NTSC):
        frames_at = first + seconds * float(rate) * _UNIT
        frames, offset = _nearest(at, frames_at)
        fits.append((rate, frames, offset * 1000 / float(rate)))
    # The video's own kind of rate, unless the other fits better: the difference shows over minutes, not seconds.
    own, other = fits if frame_rate.denominator != 1001 else fits[::-1]
    better = _misfit(other[1], other[2]) < _misfit(own[1], own[2])
    rate, frames, offset_ms = other if better else own
    if source == "timecode of the video" and not (frames >= 0).any():
        warning = (
            f"rows from {rows.timecodes[0]} to {rows.timecodes[-1]} and a video from {start} do not overlap. "
            "Are they of the same take?"
        )
    return Pairing(frames, source, base, rate, offset_ms, warning)


def _pair_by_log(
    rows: TakeRows, times: Sequence[Fraction], frame_rate: Fraction, log: Sequence[LoggedFrame]
) -> Pairing:
    labels = [frame.label for frame in log[: len(times)]]
    base = detect_base([*rows.labels], frame_rate)
    if max(label.frame for label in labels) >= base * _UNIT:
        base = detect_base(labels, frame_rate)
    at, frames_at = ticks(rows.labels, base), ticks(labels, base)
    frames_at = frames_at + _days_apart(int(frames_at[0]), int(at[0]), base)
    if not (frames_at % _UNIT).any():
        at = at // _UNIT * _UNIT  # the log is in whole frames: compare rows without their fractions
    order = np.argsort(frames_at, kind="stable")
    frames, offset = _nearest(at, frames_at[order].astype(float))
    frames = np.where(frames >= 0, order[frames], -1)
    warning = ""
    if len(log) != len(times):
        warning = f"the frame log has {len(log)} frames, the video {len(times)}: only those in both are used."
    return Pairing(frames, "frame log", base, Fraction(base), offset * 1000 / base, warning)


def _first_tick(label: Label, dropped: int, start_base: int, base: int, first_row: int) -> int:
    """Return the tick of the first frame from its timecode, which has its own base and often counts whole frames.

    ``dropped`` numbers before it are left out by drop-frame timecode.
    """
    whole = (label.seconds * start_base - dropped) * _UNIT + label.frame
    phase = 0 if label.frame % _UNIT else first_row * start_base // base % _UNIT
    tick = (whole + phase) * base // start_base
    return tick + _days_apart(tick, first_row, base)


def _days_apart(frame_at: int, row_at: int, base: int) -> int:
    """Return the ticks to add to frames so that they are on the same day as rows: midnight may be between them."""
    day = _DAY * base * _UNIT
    return round((row_at - frame_at) / day) * day


def _nearest(rows_at: np.ndarray, frames_at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the frame of each row, int[N] with -1 for none, and its offset in frames of timecode, float[N]."""
    none = np.full(len(rows_at), -1), np.full(len(rows_at), np.nan)
    if len(frames_at) == 0:
        return none
    apart = np.diff(frames_at)
    apart = apart[apart > 0]
    most = (np.median(apart) if len(apart) else np.inf) / 2
    nearest_frame, offset = _closest(frames_at, rows_at)
    nearest_row, _ = _closest(rows_at.astype(float), frames_at)
    # Of rows or frames at the same time, the first is used.
    mutual = nearest_row[nearest_frame] == np.arange(len(rows_at))
    good = mutual & (np.abs(offset) < most)
    return np.where(good, nearest_frame, -1), np.where(good, offset / _UNIT, np.nan)


def _closest(values: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each target the index of the closest value, the first of equals, and value - target.

    Values need not be sorted: rows may be out of order.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    after = np.clip(np.searchsorted(ordered, targets, side="left"), 0, len(ordered) - 1)
    before = np.clip(np.searchsorted(ordered, ordered[np.maximum(after - 1, 0)], side="left"), 0, len(ordered) - 1)
    take_before = np.abs(ordered[before] - targets) < np.abs(ordered[after] - targets)
    best = np.where(take_before, before, after)
    return order[best], ordered[best] - targets


def _misfit(frames: np.ndarray, offset_ms: np.ndarray) -> tuple[int, float]:
    """Sort key, lower is better: rows without a frame, then the spread of offsets in whole milliseconds."""
    paired = offset_ms[frames >= 0]
    return int((frames < 0).sum()), float(np.round(np.std(paired))) if len(paired) else np.inf


def _are_drop_frame(labels: Sequence[Label], base: int) -> bool:
    seconds, frames = _columns(labels)
    return is_drop_frame(seconds, frames / _UNIT, base, marked=any(label.drop_frame for label in labels))


def _columns(labels: Sequence[Label]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([label.seconds for label in labels]), np.array([label.frame for label in labels])
