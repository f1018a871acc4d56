"""Write videos frame by frame: H.264 in MP4 if the encoder is available, else MPEG-4; no sound, no metadata."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from semanticface.utils.files import atomic_path

_MAX_RATE_NUMERATOR = 60_000  # numerator of 59.94
_MIN_TICKS = 12_000  # minimum ticks per second: times off any grid are accurate to 0.1 ms
_ENCODER_OPTIONS = {"libx264": {"crf": "18", "preset": "veryfast"}, "mpeg4": {"qmin": "2", "qmax": "4"}}


def encoder() -> str:
    """Return the encoder used: ``libx264``, or ``mpeg4`` if unavailable."""
    return next(name for name in _ENCODER_OPTIONS if name == "mpeg4" or name in av.codecs_available)


class VideoWriter:
    """Writes the frames of a video in order; created by ``write_video``."""

    def __init__(self, container: Any, rate: Fraction) -> None:
        self._container = container
        self._rate = rate
        # Times on the grid of the rate are exact, 29.97 included; a measured rate has no grid.
        self._ticks = (
            rate.numerator * -(-_MIN_TICKS // rate.numerator) if rate.numerator <= _MAX_RATE_NUMERATOR else _MIN_TICKS
        )
        self._stream: Any = None
        self._last = -1

    def add(self, time: Fraction, pixels: np.ndarray) -> None:
        """Add a frame uint8[h, w, 3], all of one even size, at ``time`` seconds from the first, increasing."""
        if self._stream is None:
            self._stream = self._container.add_stream(encoder(), rate=self._rate, options=_ENCODER_OPTIONS[encoder()])
            self._stream.height, self._stream.width = pixels.shape[:2]
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, self._ticks)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
        frame.time_base = Fraction(1, self._ticks)
        frame.pts = self._last = max(round(time * self._ticks), self._last + 1)
        frame.duration = round(self._ticks / self._rate)
        self._container.mux(self._stream.encode(frame))

    def flush(self) -> None:
        """Flush the encoder."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())


@contextlib.contextmanager
def write_video(out: Path, rate: Fraction) -> Iterator[VideoWriter]:
    """Write an MP4 atomically.

    Args:
        out: ends in .mp4.
        rate: average fps.
    """
    with atomic_path(out) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        writer = VideoWriter(container, rate)
        yield writer
        writer.flush()
