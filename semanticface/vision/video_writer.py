"""A video written frame by frame: H.264 in MP4 where the encoder is there, MPEG-4 otherwise; no sound, no metadata."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from semanticface.utils.files import atomic_path

_FINEST = 60_000  # numerator of 59.94
_FINE = 12_000  # ticks a second at least: times off any grid are kept to a tenth of a millisecond
_GOOD = {"libx264": {"crf": "18", "preset": "veryfast"}, "mpeg4": {"qmin": "2", "qmax": "4"}}


def encoder() -> str:
    """The name of the encoder used here: ``libx264``, or ``mpeg4`` where that is not there."""
    return next(name for name in _GOOD if name == "mpeg4" or name in av.codecs_available)


class VideoWriter:
    """Takes the frames of a video, first to last; made by ``write_video``."""

    def __init__(self, container: Any, rate: Fraction) -> None:
        self._container = container
        self._rate = rate
        # Times on the grid of the rate come out exact, 29.97 included; a rate measured on odd times has no grid.
        self._ticks = rate.numerator * -(-_FINE // rate.numerator) if rate.numerator <= _FINEST else _FINE
        self._stream: Any = None
        self._last = -1

    def add(self, time: Fraction, pixels: np.ndarray) -> None:
        """Add a frame: seconds from the first, later than the one before; uint8[h, w, 3], all of one even size."""
        if self._stream is None:
            self._stream = self._container.add_stream(encoder(), rate=self._rate, options=_GOOD[encoder()])
            self._stream.height, self._stream.width = pixels.shape[:2]
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, self._ticks)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
        frame.time_base = Fraction(1, self._ticks)
        frame.pts = self._last = max(round(time * self._ticks), self._last + 1)
        frame.duration = round(self._ticks / self._rate)
        self._container.mux(self._stream.encode(frame))

    def end(self) -> None:
        """Write what the encoder still holds."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())


@contextlib.contextmanager
def write_video(out: Path, rate: Fraction) -> Iterator[VideoWriter]:
    """Open an MP4 to be written; it appears only when it is complete.

    Args:
        out: ends in .mp4.
        rate: frames a second, on average.

    Raises:
        SemanticFaceError: the system refuses to write.
    """
    with atomic_path(out) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        film = VideoWriter(container, rate)
        yield film
        film.end()
