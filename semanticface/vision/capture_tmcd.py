"""How many frames a second the timecode track of a MOV counts, which need not be how many the video has.

Live Link Face may count 60 to a second beside a video of 30. FFmpeg reads the track but does not say in what it counts,
so the one number is taken from the file here: the sample description ``tmcd`` of Apple's QuickTime File Format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

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
