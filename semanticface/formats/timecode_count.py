"""How a take's timecodes count: frames per second, drop-frame, milliseconds; all from the timecodes themselves.

The step from one second to the next shows how many frames a second has: it is as long as the other steps. Drop-frame
timecode (SMPTE ST 12-1, 29.97 and 59.94 fps) leaves out the first two or four numbers of every minute that is not a
tenth; it is written with a ``;`` or betrayed by the missing numbers. Some programs (NeuroSync) write the second's
milliseconds behind FF instead of a fraction of a frame: ``01.016`` is the second frame at 60 fps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np

BASES = (24, 25, 30, 48, 50, 60, 100, 120)
"""Frames that a second of timecode can count; 29.97 and 59.94 count 30 and 60."""
NTSC = Fraction(1000, 1001)
"""Ratio of the rates 23.976, 29.97 and 59.94 to those they are counted as."""
DROPPED = {30: 2, 60: 4}
"""Numbers that drop-frame timecode leaves out at the start of a minute, by base."""

_Seconds = TypeVar("_Seconds", int, np.ndarray)
_COMMON = (30, 60, 100, 120)  # in case of doubt the first that is large enough
_LEAST_A_SECOND = 4  # rows; of fewer the steps say little
_LEAST = 3  # rows that must agree on milliseconds
_LEAST_UNEVEN = 10


@dataclass(frozen=True, slots=True)
class Counting:
    """How timecodes count.

    Attributes:
        base: frames that a second of timecode counts.
        rate: frames per second at which they run.
        drop_frame: whether numbers are left out.
        milliseconds: ``even`` if milliseconds follow FF and only repeat it, ``uneven`` if they say more; else empty.
    """

    base: int
    rate: Fraction
    drop_frame: bool = False
    milliseconds: str = ""

    def frame(self, seconds: int, frame: Fraction) -> Fraction:
        """Return the frames since midnight of whole seconds and FF; seconds may exceed a day."""
        if self.milliseconds:
            number = frame.numerator // frame.denominator
            frame = Fraction(number) if self.milliseconds == "even" else (frame - number) * self.base
        return seconds * self.base + frame - (dropped_before(seconds, self.base) if self.drop_frame else 0)


def dropped_before(seconds: _Seconds, base: int) -> _Seconds:
    """Return how many numbers drop-frame timecode leaves out before times of day in whole seconds."""
    minutes = seconds // 60
    return DROPPED.get(base, 0) * (minutes - minutes // 10)


def find_counting(labels: Sequence[tuple[int, Fraction]], *, drop_frame: bool, rate: Fraction | None) -> Counting:
    """Infer how timecodes count.

    Args:
        labels: of consecutive rows, whole seconds since midnight and FF with its fraction (``vision.timecode.parse``).
        drop_frame: whether some are written with a ``;``.
        rate: frames per second at which they run, if known.
    """
    seconds = np.array([second for second, _ in labels], np.int64)
    frames = np.array([float(frame) for _, frame in labels])
    if rate is not None:
        base = round(rate)
        dropped = drop_frame and base in DROPPED and rate.denominator > 1
        return Counting(base, rate, dropped, milliseconds_behind(frames, base))
    for base in BASES:
        if milliseconds := milliseconds_behind(frames, base):
            return Counting(base, Fraction(base), milliseconds=milliseconds)
    found = find_base(seconds, frames)
    if found is None:
        highest = frames.max(initial=0)
        found = next((base for base in _COMMON if base > highest), _COMMON[-1])
    if is_drop_frame(seconds, frames, found, marked=drop_frame):
        return Counting(found, found * NTSC, drop_frame=True)
    return Counting(found, Fraction(found))


def find_base(seconds: np.ndarray, frames: np.ndarray) -> int | None:
    """Return how many frames a second counts; None if the timecodes do not show it.

    Args:
        seconds: int[N], whole seconds of consecutive rows.
        frames: float[N], FF.
    """
    elapsed, steps = np.diff(seconds), np.diff(frames)
    within, across = steps[(elapsed == 0) & (steps > 0)], steps[elapsed == 1]
    if not len(within) or not len(across):
        return None
    step = float(np.median(within))
    length = step - float(np.median(across))
    highest = frames.max()
    possible = [base for base in BASES if base > highest]
    if possible:
        base = min(possible, key=lambda base: abs(base - length))
        if abs(base - length) <= step / 2 and step <= base / _LEAST_A_SECOND:
            return base
    # Another rate, such as a webcam's 15, if every second says so.
    other = round(length)
    even = len(across) > 1 and step <= other / _LEAST_A_SECOND
    if even and other > highest and (np.abs(step - across - other) <= step / 4).all():
        return other
    return None


def is_drop_frame(seconds: np.ndarray, frames: np.ndarray, base: int, *, marked: bool) -> bool:
    """Whether timecodes are drop-frame: marked so, or without the numbers that it leaves out.

    Args:
        seconds: int[N], whole seconds of consecutive rows.
        frames: float[N], FF.
        base: only 30 and 60 have it.
        marked: whether some are written with a ``;``.
    """
    if base not in DROPPED or marked:
        return base in DROPPED
    dropped = DROPPED[base]
    starts = (seconds % 60 == 0) & (seconds // 60 % 10 != 0)
    if (starts & (frames < dropped)).any():
        return False
    elapsed, steps = np.diff(seconds), np.diff(frames)
    within = steps[(elapsed == 0) & (steps > 0)]
    at = steps[(elapsed == 1) & starts[1:]]
    if not len(within) or not len(at):
        return False
    step = np.median(within)
    return bool((np.abs(at + base - dropped - step) <= step / 4).all())


def milliseconds_behind(frames: np.ndarray, base: int) -> str:
    """Return ``Counting.milliseconds`` of the FF of consecutive rows, float[N]."""
    number = np.floor(frames)
    behind = (frames - number) * 1000 - number * 1000 / base
    there = number > 0
    if there.sum() >= _LEAST and (np.abs(behind) <= 1).all():
        return "even"
    if there.sum() >= _LEAST_UNEVEN and (number < base).all() and ((behind >= -1) & (behind < 1000 / base)).all():
        return "uneven"
    return ""
