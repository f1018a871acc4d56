"""Helpers: small real videos written with PyAV, and a fake predictor."""

import os
import signal
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
from PIL import Image

from semanticface.inference.predictor import Prediction
from semanticface.semantics.analysis import describe

TICKS = 12000
"""Time base of the clips: a multiple of every rate in use except the broadcast ones."""


def bars(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """Return frames with their number encoded in six black or white squares."""
    frames = []
    for number in range(count):
        pixels = np.zeros((height, width, 3), np.uint8)
        for bit in range(6):
            if number >> bit & 1:
                pixels[height // 2 :, bit * width // 6 : (bit + 1) * width // 6] = 255
        pixels[: height // 4, : width // 4] = (255, 0, 0)
        frames.append(pixels)
    return frames


def number_of(pixels: np.ndarray) -> int:
    """Return the number of a frame from ``bars``, also after compression."""
    height, width = pixels.shape[:2]
    values = [pixels[height * 3 // 4, (2 * bit + 1) * width // 12].mean() > 128 for bit in range(6)]
    return sum(value << bit for bit, value in enumerate(values))


def write_clip(
    path: Path,
    frames: list[np.ndarray],
    *,
    rate: Fraction | int = 30,
    codec: str = "libx264",
    times: list[float] | None = None,
    turn: tuple[int, bool] | None = None,
    timecode: str = "",
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write frames as a video.

    Args:
        path: its suffix chooses the container.
        frames: uint8[h, w, 3] each, of one even size.
        rate: fps.
        codec: an encoder of the PyAV wheel.
        times: seconds of each frame, if not evenly spaced.
        turn: display matrix: degrees counter-clockwise, and whether mirrored.
        timecode: of the first frame.
        aspect: a pixel's width by its height.
        options: of the encoder.
    """
    base = Fraction(1, TICKS) if times else 1 / Fraction(rate)
    with av.open(str(path), "w") as container:
        if timecode:
            container.metadata["timecode"] = timecode
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = base
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if turn is not None:
            stream.set_display_rotation(turn[0], hflip=turn[1])
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.time_base = base
            frame.pts = round(times[number] * TICKS) if times else number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """Write a tenth of a second of silence, without video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def damage(path: Path, number: int) -> Path:
    """Overwrite the data of one frame, counted from 0 in stored order, with zeros."""
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    start, size = packets[number]
    data = bytearray(path.read_bytes())
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    return path


class PixelPredictor:
    """A fake ``Predictor`` whose answers are row means of the crop.

    Args:
        kill_after: kill the process after this many batches, like a power cut.
        fails_on: indices over all crops, from 0, that fail.
    """

    bundle = SimpleNamespace(image_size=32, recipe={"kind": "test"})
    neutral = None

    def __init__(self, kill_after: int | None = None, fails_on: tuple[int, ...] = ()) -> None:
        self.batches: list[int] = []
        self._kill_after = kill_after
        self._fails_on = fails_on

    def stream(self, pictures: list[Image.Image], *, batch_size: int, crop: str) -> Iterator[Prediction]:
        assert crop == "none" and len(pictures) <= batch_size
        assert all(picture.size == (32, 32) for picture in pictures)
        if len(self.batches) == self._kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        before = sum(self.batches)
        self.batches.append(len(pictures))
        for index, picture in enumerate(pictures):
            name = f"picture {index + 1}"
            if before + index in self._fails_on:
                yield Prediction(name, "model_failed", f"{name}: the model failed: no reason")
                continue
            rows = np.asarray(picture, np.float32).mean(axis=(1, 2)) / 255
            values = np.resize(rows, 52).astype(np.float32)
            yield Prediction(name, "ok", coefficients=values, analysis=describe(values))
