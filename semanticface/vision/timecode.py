"""Timecodes as Live Link Face writes them: ``HH:MM:SS:FF.fff``, FF a frame number with a fraction, not milliseconds.

FF counts frames at one of the ``RATES``. The 1000/1001 rates are counted without dropping: at 29.97 frames a second the
count is that of 30, so one hour of timecode lasts 3.6 seconds longer than an hour.

How many frames a second the timecode track of a MOV counts, which need not be how many the video has.

Live Link Face may count 60 to a second beside a video of 30. FFmpeg reads the track but does not say in what it counts,
so the one number is taken from the file here: the sample description ``tmcd`` of Apple's QuickTime File Format.
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
"""Frames a second that a timecode can count: 23.976, 24, 25, 29.97, 30, 50, 59.94, 60."""

_NEAR = Fraction(2, 1000)  # container rates are means over a file and miss the rate meant by a little
_FRACTIONS = 1000  # FF has three decimals
_TIMECODE = re.compile(r"(\d\d?):([0-5]\d):([0-5]\d)[:;](\d\d\d?(?:\.\d+)?)")
_DOTTED = re.compile(r"\.(\d\d\d?)$")


def standard_rate(rate: Fraction) -> Fraction | None:
    """The one of ``RATES`` that a measured rate stands for, within 0.2 %; None where it stands for none."""
    nearest = min(RATES, key=lambda named: abs(named - rate))
    return nearest if abs(nearest - rate) <= _NEAR * nearest else None


def timecode_rate(rate: Fraction) -> Fraction:
    """The rate in which to count frames that come ``rate`` a second: its name, else 30, or 60 where 30 is too slow."""
    return standard_rate(rate) or Fraction(30 if rate <= 30 else 60)


def parse_rate(text: str) -> Fraction:
    """Frames a second from ``30``, ``12.5``, ``29.97``, ``23.976`` or ``30000/1001``; the broadcast ones come exact.

    Raises:
        ValueError: not a number from 1 to 1000.
    """
    try:
        rate = Fraction(text.strip())
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 1 <= rate <= 1000:
        raise ValueError(f"{text!r} is not a number of frames a second from 1 to 1000")
    broadcast = [named for named in RATES if named.denominator > 1 and abs(named - rate) < Fraction(1, 100)]
    return broadcast[0] if broadcast else rate


def format_rate(rate: Fraction) -> str:
    """A rate as people write it: ``29.97``, ``30``."""
    return f"{float(rate):.3f}".rstrip("0").rstrip(".")


@dataclass(frozen=True, slots=True)
class Start:
    """The label of a take's first frame.

    Attributes:
        seconds: whole seconds since midnight.
        frame: FF, in frames of the rate it was read at.
        dropping: written with a ``;``: the camera leaves numbers out to keep up with the clock.
    """

    seconds: int = 0
    frame: int = 0
    dropping: bool = False


def parse(text: str) -> tuple[int, Fraction] | None:
    """Return whole seconds since midnight and FF of ``HH:MM:SS:FF.fff``; None where it is no timecode.

    A ``;`` before FF, which says that numbers are dropped, reads like a ``:``. FF is not held against any rate.
    """
    found = _TIMECODE.fullmatch(text.strip())
    if found is None or int(found[1]) > 23:
        return None
    hours, minutes, seconds = (int(found[k]) for k in (1, 2, 3))
    return (hours * 60 + minutes) * 60 + seconds, Fraction(found[4])


def parse_timecode(text: str, rate: Fraction) -> Start:
    """Read ``HH:MM:SS:FF`` (or ``HH:MM:SS;FF``, or ``HH:MM:SS.FF`` as some recorders tag videos) counted at ``rate``.

    Raises:
        SemanticFaceError: another form, or a part that does not exist at this rate.
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
    """Labels the frames of one take, first to last; each label is later than the one before.

    Frames that come at the same time, or less than a thousandth of a frame apart, are labelled a thousandth apart.

    Args:
        rate: one of ``RATES``, in which FF counts.
        start: the label of time 0.
        start_rate: the rate at which ``start`` was read; FF is converted where it differs.
    """

    def __init__(self, rate: Fraction, start: Start | None = None, start_rate: Fraction | None = None) -> None:
        start = start or Start()
        self.rate = rate
        self._base = round(rate)
        frame = Fraction(start.frame * self._base, round(start_rate or rate))
        self._zero = round((start.seconds * self._base + frame) * _FRACTIONS)
        self._last: int | None = None

    def label(self, time: Fraction) -> str:
        """The timecode of the next frame; ``time`` is in seconds from the first. After 23:59:59 comes 00:00:00."""
        ticks = self._zero + round(time * self.rate * _FRACTIONS)
        if self._last is not None:
            ticks = max(ticks, self._last + 1)
        self._last = ticks
        seconds, ticks = divmod(ticks, self._base * _FRACTIONS)
        minutes, seconds = divmod(seconds, 60)
        frame, fraction = divmod(ticks, _FRACTIONS)
        return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}:{seconds:02d}:{frame:02d}.{fraction:03d}"


_MOST = 2**26  # bytes of an index that are looked at; hours of video need a tenth
# One in the other. The first is split for the spelling check, which takes it for a slip.
_INSIDE = (b"tra" + b"k", b"mdia", b"minf", b"stbl")
_HEADER = 8
_FRAMES_AT = 8 + 16 + 8  # in a description: size and format; reserved, reference, reserved, flags; scale and duration


def timecode_base(path: Path) -> int | None:
    """Return how many frames a second of timecode has, as the file says; None where there is no such track.

    Args:
        path: any video; only MOV and MP4 have such tracks.
    """
    try:
        with path.open("rb") as file:
            return next(filter(None, map(_frames, _descriptions(memoryview(_index(file))))), None)
    except (OSError, struct.error):
        return None


def _index(file: BinaryIO) -> bytes:
    """Return what is in the box ``moov``; nothing where there is none of a sensible size."""
    while len(header := file.read(_HEADER)) == _HEADER:
        size, kind = struct.unpack(">I4s", header)
        head = _HEADER
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
            head += 8
        if kind == b"moov":
            return file.read(min(size - head, _MOST)) if size > head else b""
        if size < head:
            return b""
        file.seek(size - head, 1)
    return b""


def _descriptions(data: memoryview, depth: int = 0) -> Iterator[memoryview]:
    """Yield the first sample description of every track in the boxes of an index."""
    while len(data) >= _HEADER:
        size, kind = struct.unpack_from(">I4s", data)
        if not _HEADER <= size <= len(data):
            return
        if depth < len(_INSIDE) and kind == _INSIDE[depth]:
            yield from _descriptions(data[_HEADER:size], depth + 1)
        elif depth == len(_INSIDE) and kind == b"stsd":
            yield data[_HEADER + 8 : size]  # behind version, flags and the number of descriptions
        data = data[size:]


def _frames(description: memoryview) -> int | None:
    """Return the number of frames in a description of timecodes; None for any other."""
    if description[4:8] != b"tmcd" or len(description) <= _FRAMES_AT:
        return None
    return description[_FRAMES_AT] or None
