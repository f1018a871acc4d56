"""Timecodes as written by Live Link Face: ``HH:MM:SS:FF.fff``, FF a frame number with a fraction, not milliseconds.

FF counts frames at one of the ``RATES``. The 1000/1001 rates are non-drop-frame: 29.97 fps counts like 30, so one hour
of timecode lasts 3.6 seconds longer than an hour.

The timecode track of a MOV may count at another rate than the video: Live Link Face may count 60 for a video of 30 fps.
FFmpeg does not report that rate, so ``timecode_base`` reads it from the sample description ``tmcd`` (Apple's QuickTime
File Format).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from semanticface.errors import SemanticFaceError

RATES = (
    Fraction(24000, 1001),
    Fraction(24),
    Fraction(25),
    Fraction(30000, 1001),
    Fraction(30),
    Fraction(50),
    Fraction(60000, 1001),
    Fraction(60),
)
"""Frame rates of timecodes: 23.976, 24, 25, 29.97, 30, 50, 59.94, 60."""
UNREAL_RATES = (Fraction(30000, 1001), Fraction(30), Fraction(60000, 1001), Fraction(60))
"""Those that Unreal Engine reads."""

_TOLERANCE = Fraction(2, 1000)  # container rates are means over a file and slightly off
_FRACTIONS = 1000  # FF has three decimals
_TIMECODE = re.compile(r"(\d\d?):([0-5]\d):([0-5]\d)[:;](\d\d\d?(?:\.\d+)?)")
_DOTTED = re.compile(r"\.(\d\d\d?)$")


def standard_rate(rate: Fraction) -> Fraction | None:
    """Return the nearest of ``RATES`` within 0.2 % of a measured rate, or None."""
    nearest = min(RATES, key=lambda standard: abs(standard - rate))
    return nearest if abs(nearest - rate) <= _TOLERANCE * nearest else None


def timecode_rate(rate: Fraction) -> Fraction:
    """Return the timecode rate for ``rate`` fps: its standard rate, else 30, or 60 above 30."""
    return standard_rate(rate) or Fraction(30 if rate <= 30 else 60)


def parse_rate(text: str) -> Fraction:
    """Parse ``30``, ``12.5``, ``29.97``, ``23.976`` or ``30000/1001`` to fps; broadcast rates become exact.

    Raises:
        ValueError: not a number from 1 to 1000.
    """
    try:
        rate = Fraction(text.strip())
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 1 <= rate <= 1000:
        raise ValueError(f"{text!r} is not a frame rate from 1 to 1000")
    broadcast = [standard for standard in RATES if standard.denominator > 1 and abs(standard - rate) < Fraction(1, 100)]
    return broadcast[0] if broadcast else rate


def format_rate(rate: Fraction) -> str:
    """Return a rate as people write it: ``29.97``, ``30``."""
    return f"{float(rate):.3f}".rstrip("0").rstrip(".")


@dataclass(frozen=True, slots=True)
class Start:
    """The timecode of a take's first frame.

    Attributes:
        seconds: whole seconds since midnight.
        frame: FF, at the rate it was parsed with.
        drop_frame: drop-frame timecode, written with a ``;``.
    """

    seconds: int = 0
    frame: int = 0
    drop_frame: bool = False


def parse(text: str) -> tuple[int, Fraction] | None:
    """Return whole seconds since midnight and FF of ``HH:MM:SS:FF.fff``; None if it is not a timecode.

    A ``;`` before FF (drop-frame) is accepted. FF is not checked against a rate.
    """
    found = _TIMECODE.fullmatch(text.strip())
    if found is None or int(found[1]) > 23:
        return None
    hours, minutes, seconds = (int(found[k]) for k in (1, 2, 3))
    return (hours * 60 + minutes) * 60 + seconds, Fraction(found[4])


def parse_timecode(text: str, rate: Fraction) -> Start:
    """Parse ``HH:MM:SS:FF``, ``HH:MM:SS;FF``, or ``HH:MM:SS.FF`` as some recorders tag videos, at ``rate``.

    Raises:
        SemanticFaceError: another format, or a part out of range at this rate.
    """
    found = parse(_DOTTED.sub(r":\1", text.strip()))
    if found is None or found[1].denominator > 1 or found[1] >= round(rate):
        raise SemanticFaceError(
            f"{text}: not a timecode at {format_rate(rate)} frames a second. Write HH:MM:SS:FF, "
            f"with FF from 00 to {round(rate) - 1:02d}."
        )
    seconds, frame = found
    return Start(seconds, int(frame), ";" in text)


class Clock:
    """Timecodes for the frames of one take, in order and strictly increasing.

    Frames less than a thousandth of a frame apart get timecodes a thousandth apart.

    Args:
        rate: one of ``RATES``.
        start: timecode of time 0.
        start_rate: the rate of ``start``, if different; FF is converted.
    """

    def __init__(self, rate: Fraction, start: Start | None = None, start_rate: Fraction | None = None) -> None:
        start = start or Start()
        self.rate = rate
        self._base = round(rate)
        frame = Fraction(start.frame * self._base, round(start_rate or rate))
        self._zero = round((start.seconds * self._base + frame) * _FRACTIONS)
        self._last: int | None = None

    def label(self, time: Fraction) -> str:
        """Return the timecode of the next frame, ``time`` seconds after the first; wraps at midnight."""
        ticks = self._zero + round(time * self.rate * _FRACTIONS)
        if self._last is not None:
            ticks = max(ticks, self._last + 1)
        self._last = ticks
        seconds, ticks = divmod(ticks, self._base * _FRACTIONS)
        minutes, seconds = divmod(seconds, 60)
        frame, fraction = divmod(ticks, _FRACTIONS)
        return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}:{seconds:02d}:{frame:02d}.{fraction:03d}"


_MAX_INDEX_BYTES = 2**26  # bytes of the index to read; hours of video need a tenth
# Nested box types. The first is split because the spelling check takes it for a typo.
_NESTING = (b"tra" + b"k", b"mdia", b"minf", b"stbl")
_HEADER_BYTES = 8
_FRAMES_OFFSET = 8 + 16 + 8  # size and format; reserved, reference, reserved, flags; scale and duration


def timecode_base(path: Path) -> int | None:
    """Return the frames per second of a video's timecode track; None without one (only MOV and MP4 have them)."""
    try:
        with path.open("rb") as file:
            return next(filter(None, map(_frames, _descriptions(memoryview(_index(file))))), None)
    except (OSError, struct.error):
        return None


def _index(file: BinaryIO) -> bytes:
    """Return the content of the box ``moov``; empty if missing or malformed."""
    while len(header := file.read(_HEADER_BYTES)) == _HEADER_BYTES:
        size, kind = struct.unpack(">I4s", header)
        head = _HEADER_BYTES
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
            head += 8
        if kind == b"moov":
            return file.read(min(size - head, _MAX_INDEX_BYTES)) if size > head else b""
        if size < head:
            return b""
        file.seek(size - head, 1)
    return b""


def _descriptions(data: memoryview, depth: int = 0) -> Iterator[memoryview]:
    """Yield the first sample description of every track in an index."""
    while len(data) >= _HEADER_BYTES:
        size, kind = struct.unpack_from(">I4s", data)
        if not _HEADER_BYTES <= size <= len(data):
            return
        if depth < len(_NESTING) and kind == _NESTING[depth]:
            yield from _descriptions(data[_HEADER_BYTES:size], depth + 1)
        elif depth == len(_NESTING) and kind == b"stsd":
            yield data[_HEADER_BYTES + 8 : size]  # after version, flags and number of descriptions
        data = data[size:]


def _frames(description: memoryview) -> int | None:
    """Return the frames per second of a timecode description; None for others."""
    if description[4:8] != b"tmcd" or len(description) <= _FRAMES_OFFSET:
        return None
    return description[_FRAMES_OFFSET] or None
