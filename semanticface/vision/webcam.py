"""Cameras through FFmpeg (in PyAV): Video4Linux, AVFoundation or DirectShow. Nothing is recorded."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import av.device

from semanticface.errors import VideoError
from semanticface.vision.timecode import timecode_rate

RATE = Fraction(30)
"""Requested fps; the camera may deliver another rate."""

_CAMERA = re.compile(r"camera(?::(.+))?")
_DEVICE_FILE = re.compile(r"/dev/(video\d+|v4l/.+)")
_HINTS = {
    "linux": "Is it connected (ls /dev/video*), free, and are you in the group video?",
    "darwin": "Is it connected, free, and is the terminal allowed to use it (System Settings, Privacy, Camera)?",
    "win32": "Is it connected, free, and are programs allowed to use it (Settings, Privacy, Camera)?",
}
_POLL_SECONDS = 0.002  # seconds between polls of a camera without a new frame


@dataclass(frozen=True, slots=True)
class Device:
    """A device for FFmpeg.

    Attributes:
        name: as the user gave it.
        file: the device's name in its format.
        format: FFmpeg input device, such as ``v4l2``.
        options: of the format.
    """

    name: str
    file: str
    format: str
    options: dict[str, str] = field(default_factory=dict)


def is_camera(word: str) -> bool:
    """Return whether an argument names a camera: ``camera``, ``camera:1``, ``camera:NAME``, ``/dev/video0``."""
    return _CAMERA.fullmatch(word) is not None or _DEVICE_FILE.fullmatch(word) is not None


def find_camera(word: str, rate: Fraction | None = None, platform: str = sys.platform) -> Device:
    """Return the device for an argument that ``is_camera`` accepts.

    Args:
        word: ``camera`` is the first one; numbers start at 0; ``camera:NAME`` works on macOS and Windows.
        rate: requested fps (30).
        platform: as ``sys.platform``.

    Raises:
        VideoError: an unsupported system, or no such camera.
    """
    requested = rate or RATE
    options = {"framerate": f"{requested.numerator}/{requested.denominator}"}
    found = _CAMERA.fullmatch(word)
    which = (found[1] or "0") if found else ""
    if platform == "linux":
        if found and not which.isdecimal():
            raise VideoError(
                f"{word}: cameras have numbers on Linux. Write camera:0, or the device, such as /dev/video0."
            )
        return Device(word, f"/dev/video{which}" if found else word, "v4l2", options)
    if not found or platform not in _HINTS:
        raise VideoError(f"{word}: no such camera on this system. Write camera, camera:1 or camera:NAME.")
    if platform == "darwin":
        return Device(word, f"{which}:none", "avfoundation", options)
    return Device(word, _direct_show(word, which), "dshow", options)


def _direct_show(word: str, which: str) -> str:
    """Return DirectShow's name of a camera given by name or by number, which DirectShow does not support."""
    if which.isdecimal():
        cameras = [each for each in av.device.enumerate_input_devices("dshow") if "video" in each.media_types]
        if int(which) >= len(cameras):
            raise VideoError(f"{word}: {len(cameras)} cameras found. {_HINTS['win32']}")
        which = cameras[int(which)].name
    return f"video={which.removeprefix('video=')}"


class Camera:
    """An open camera.

    Attributes:
        device: the device.
        rate: rate of its timecodes, one of ``timecode.RATES``.

    Raises:
        VideoError: it cannot be opened, or has no video.
    """

    def __init__(self, device: Device, wait: Callable[[float], None] = time.sleep) -> None:
        self.device = device
        self._wait = wait
        try:
            self._container: Any = av.open(device.file, format=device.format, options=device.options)
        except (av.FFmpegError, ValueError) as error:
            raise self._error(error) from error
        if not self._container.streams.video:
            self._container.close()
            raise VideoError(f"{device.name}: has no video. {self._hint}")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "SLICE"  # frame threading would delay frames
        measured = self._stream.average_rate or self._stream.guessed_rate
        self.rate = timecode_rate(Fraction(measured) if measured else RATE)

    def frames(self) -> Iterator[av.VideoFrame]:
        """Yield frames as they arrive, then close the camera; a VideoError if it fails."""
        packets = self._container.demux(self._stream)
        try:
            while True:
                try:
                    packet = next(packets)
                except StopIteration:
                    return
                except av.error.BlockingIOError:  # AVFoundation: no frame yet
                    self._wait(_POLL_SECONDS)
                    packets = self._container.demux(self._stream)
                    continue
                except av.FFmpegError as error:
                    raise self._error(error) from error
                try:
                    yield from packet.decode()
                except av.FFmpegError:
                    continue  # a frame damaged in transmission: continue with the next
        finally:
            self._container.close()

    @property
    def _hint(self) -> str:
        return _HINTS.get(sys.platform, "Is it connected and free?")

    def _error(self, error: Exception) -> VideoError:
        return VideoError(f"{self.device.name}: {getattr(error, 'strerror', None) or error}. {self._hint}")
