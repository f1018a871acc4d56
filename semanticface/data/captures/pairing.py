"""Which row of a take belongs to which frame of its video, by timecode.

Times are counted in thousandths of a frame since midnight, whole numbers, as the app writes them. Three things can say
when a video's frames were, from the surest to the weakest:

1. ``frame_log.csv`` of the app: a line for each frame, with its timecode;
2. the timecode of the video's first frame (a ``tmcd`` track), from which the frames' own times count on;
3. nothing: then the first frame is taken for the first row's, with a warning.

A creation date is not among them: it is in whole seconds. A timecode in whole frames has lost its fraction, as counting
does, so the fraction of the first row stands for it: both come from the same camera.

A row gets the frame nearest to it if it also is the row nearest to that frame and they are less than half a frame
apart. So a dropped frame or row leaves its partner alone and never shifts those after it.
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
from semanticface.utils import csv_lines as lines
from semanticface.vision.timecode import parse, timecode_rate

BASES = (24, 25, 30, 50, 60)
"""Frames that a second of timecode may count; 29.97 and 59.94 count 30 and 60."""
SLOW = Fraction(1000, 1001)
"""Of the rates 23.976, 29.97 and 59.94 to those they are counted as."""

_UNIT = 1000  # thousandths of a frame
_DAY = 24 * 60 * 60
_LONGEST_LINE = 2**12
_OTHER_PACE = 0.2  # how unlikely another pace is: as unlikely as a rate a fifth off

By = Literal["frame log", "timecode of the video", "first row"]


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """A timecode before it is known how many frames make a second: whole seconds, and FF in thousandths."""

    seconds: int
    frame: int


@dataclass(frozen=True, slots=True, eq=False)
class TakeRows:
    """The good rows of a take, in order of time.

    Attributes:
        lines: int[N], in the file, from 1.
        timecodes: as the file has them.
        labels: the same, read.
        coefficients: float32[N, 52] in [0, 1].
        pose: float32[N, 9], ``arkit.POSE_NAMES``, in the app's own units; 0 where it did not record them.
        problems: a sentence for each row that was left out, with its line.
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
    """A video frame in the app's log; ``dropped``: the camera lost it and the video repeats another in its place."""

    label: Label
    dropped: bool


@dataclass(frozen=True, slots=True, eq=False)
class Pairing:
    """Which rows and frames belong together.

    Attributes:
        frame_of: int[N], the frame of each row, from 0; -1 where it has none.
        by: what said so.
        base: frames that a second of timecode counts.
        rate: frames a second at which timecodes run.
        off: float[N], milliseconds from the row to its frame; NaN where it has none.
        warning: what is to be known of it, in a sentence; mostly empty.
    """

    frame_of: np.ndarray
    by: By
    base: int
    rate: Fraction
    off: np.ndarray
    warning: str = ""


def parse_label(text: str) -> Label | None:
    """Read ``HH:MM:SS:FF.fff``, with at most three decimals; None where it is no timecode."""
    found = parse(text)
    if found is None or (ticks := found[1] * _UNIT).denominator > 1:
        return None
    return Label(found[0], int(ticks))


def read_rows(path: Path, name: str) -> TakeRows:
    """Read a Live Link Face CSV.

    Args:
        path: where it is.
        name: what messages call it; it may have been unpacked from elsewhere.

    Raises:
        TableError: no such file, not a Live Link Face CSV, or no good row in it.
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
                raise TableError(f"{path}: not a Live Link Face CSV: it has no timecodes. Give the app's own export.")
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
        raise TableError(f"{name}: no row that can be used. {problems[0] if problems else 'It ends after its header.'}")
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
        The frames from the first as far as the log can be read, and what is wrong with it, mostly nothing.
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
                return frames, f"{name}, line {number}: not the line of video frame {len(frames)}. Copy the file again."
            frames.append(LoggedFrame(label, len(cells) == 6 and cells[5].strip() != "0"))
    except SemanticFaceError as error:
        return frames, str(error).replace(str(path), name, 1)
    return frames, ""


def counted(labels: Sequence[Label], frame_rate: Fraction) -> int:
    """Return how many frames a second of these timecodes counts, one of ``BASES``.

    Timecodes tell it themselves where they pass from one second to the next: that step is as long as the others.

    Args:
        labels: of consecutive rows.
        frame_rate: of the video; decides where all are of one second.

    Raises:
        TableError: FF beyond any of ``BASES``.
    """
    seconds, frames = _columns(labels)
    possible = [base for base in BASES if base * _UNIT > frames.max()]
    if not possible:
        raise TableError(f"a timecode counts frame {frames.max() // _UNIT}, but a second has at most {BASES[-1]}.")
    turned, steps = np.diff(seconds), np.diff(frames)
    within, across = steps[(turned == 0) & (steps > 0)], steps[turned == 1]
    if len(within) and len(across):
        step = np.median(within) - np.median(across)
        base = min(possible, key=lambda base: abs(base * _UNIT - step))
        if abs(base * _UNIT - step) <= np.median(within) / 2:
            return base
    # Less than a second: rows are taken to come as fast as frames do, or twice or half as fast.
    step = float(np.median(within)) / _UNIT if len(within) else 1.0

    def unlikely(base: int) -> float:
        return min(
            abs(math.log(base / step / (float(frame_rate) * times))) + (times != 1) * _OTHER_PACE
            for times in (0.5, 1, 2)
        )

    return min(possible, key=unlikely)


def ticks(labels: Sequence[Label], base: int) -> np.ndarray:
    """Thousandths of a frame since the first label's midnight, int64[N]; after 23:59:59 the count goes on."""
    seconds, frames = _columns(labels)
    out = seconds * base * _UNIT + frames
    day = _DAY * base * _UNIT
    midnights = np.cumsum(np.diff(out, prepend=out[:1]) < -day // 2)
    past: np.ndarray = out + midnights * day
    return past


def pair(
    rows: TakeRows,
    times: Sequence[Fraction],
    frame_rate: Fraction,
    *,
    start: str | None = None,
    start_base: int | None = None,
    log: Sequence[LoggedFrame] = (),
) -> Pairing:
    """Say which row belongs to which frame.

    Args:
        rows: of the take.
        times: seconds of each frame since the first.
        frame_rate: of the video.
        start: the timecode of the first frame, as ``video.Take.timecode``.
        start_base: how many frames a second it counts; by default as many as the video has.
        log: of the app; where it is there it decides.

    Raises:
        TableError: timecodes that no camera counts.
    """
    if log:
        return _by_log(rows, times, frame_rate, log)
    base = counted(rows.labels, frame_rate)
    at = ticks(rows.labels, base)
    by: By = "timecode of the video"
    warning = ""
    first = None
    label = parse_label(start) if start else None
    if label is not None:
        start_base = start_base or round(timecode_rate(frame_rate))
        if label.frame < start_base * _UNIT:
            first = _first_tick(label, start_base, base, int(at[0]))
    if first is None:
        first, by = int(at[0]), "first row"
        told = f"the video's timecode {start} cannot be read" if start else "the video has no timecode"
        warning = f"{told} and there is no frame log: its first frame is taken for the first row's. Look at the report."
    elif start and ";" in start:
        warning = (
            f"the video's timecode {start} leaves numbers out now and then, those of rows do not. Look at the report."
        )
    seconds = np.array([float(time) for time in times])
    fits = []
    for rate in (Fraction(base), base * SLOW):
        frames_at = first + seconds * float(rate) * _UNIT
        frame_of, off = _nearest(at, frames_at)
        fits.append((rate, frame_of, off * 1000 / float(rate)))
    # A whole-numbered rate, unless the other one fits better: over seconds nobody can tell, over minutes everybody.
    plain, slow = fits if frame_rate.denominator != 1001 else fits[::-1]
    better = _misfit(slow[1], slow[2]) < _misfit(plain[1], plain[2])
    rate, frame_of, off = slow if better else plain
    if by == "timecode of the video" and not (frame_of >= 0).any():
        warning = (
            f"rows from {rows.timecodes[0]} to {rows.timecodes[-1]} and a video from {start} have no moment in common. "
            "Are they of one take?"
        )
    return Pairing(frame_of, by, base, rate, off, warning)


def _by_log(rows: TakeRows, times: Sequence[Fraction], frame_rate: Fraction, log: Sequence[LoggedFrame]) -> Pairing:
    labels = [frame.label for frame in log[: len(times)]]
    base = counted([*rows.labels], frame_rate)
    if max(label.frame for label in labels) >= base * _UNIT:
        base = counted(labels, frame_rate)
    at, frames_at = ticks(rows.labels, base), ticks(labels, base)
    frames_at = frames_at + _days_apart(int(frames_at[0]), int(at[0]), base)
    if not (frames_at % _UNIT).any():
        at = at // _UNIT * _UNIT  # a log in whole frames: rows are compared without their fractions
    order = np.argsort(frames_at, kind="stable")
    frame_of, off = _nearest(at, frames_at[order].astype(float))
    frame_of = np.where(frame_of >= 0, order[frame_of], -1)
    warning = ""
    if len(log) != len(times):
        warning = f"the frame log has {len(log)} frames, the video {len(times)}: only what both have is used."
    return Pairing(frame_of, "frame log", base, Fraction(base), off * 1000 / base, warning)


def _first_tick(label: Label, start_base: int, base: int, first_row: int) -> int:
    """Return the tick of the first frame from its timecode, which counts in a base of its own, often whole frames."""
    whole = label.seconds * start_base * _UNIT + label.frame
    phase = 0 if label.frame % _UNIT else first_row * start_base // base % _UNIT
    tick = (whole + phase) * base // start_base
    return tick + _days_apart(tick, first_row, base)


def _days_apart(frame_at: int, row_at: int, base: int) -> int:
    """Return what to add to frames so that they are of the same day as rows; midnight may lie between them."""
    day = _DAY * base * _UNIT
    return round((row_at - frame_at) / day) * day


def _nearest(rows_at: np.ndarray, frames_at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the frame of each row, int[N] with -1 for none, and how far off it is in frames of timecode, float[N]."""
    none = np.full(len(rows_at), -1), np.full(len(rows_at), np.nan)
    if len(frames_at) == 0:
        return none
    apart = np.diff(frames_at)
    apart = apart[apart > 0]
    most = (np.median(apart) if len(apart) else np.inf) / 2
    nearest_frame, off = _closest(frames_at, rows_at)
    nearest_row, _ = _closest(rows_at.astype(float), frames_at)
    # Of rows and frames at the very same place the first is meant.
    mutual = nearest_row[nearest_frame] == np.arange(len(rows_at))
    good = mutual & (np.abs(off) < most)
    return np.where(good, nearest_frame, -1), np.where(good, off / _UNIT, np.nan)


def _closest(places: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each wanted number the index of the closest of the places, the first of equals, and places - wanted.

    Places need not be sorted: rows may be out of order.
    """
    order = np.argsort(places, kind="stable")
    ordered = places[order]
    after = np.clip(np.searchsorted(ordered, wanted, side="left"), 0, len(ordered) - 1)
    before = np.clip(np.searchsorted(ordered, ordered[np.maximum(after - 1, 0)], side="left"), 0, len(ordered) - 1)
    take_before = np.abs(ordered[before] - wanted) < np.abs(ordered[after] - wanted)
    best = np.where(take_before, before, after)
    return order[best], ordered[best] - wanted


def _misfit(frame_of: np.ndarray, off: np.ndarray) -> tuple[int, float]:
    """Sort key, lower is better: rows without a frame, then how unsteady the distance is, in whole milliseconds."""
    paired = off[frame_of >= 0]
    return int((frame_of < 0).sum()), float(np.round(np.std(paired))) if len(paired) else np.inf


def _columns(labels: Sequence[Label]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([label.seconds for label in labels]), np.array([label.frame for label in labels])
