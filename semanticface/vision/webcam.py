"""A camera as FFmpeg opens it, by the system's own way: Video4Linux, AVFoundation or DirectShow, all inside PyAV.

Nothing is recorded: frames come one after the other, as fast as the camera gives them, and are gone.
"""

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
"""Frames a second that a camera is asked for; it may give others."""

_WORD = re.compile(r"camera(?::(.+))?")
_FILE = re.compile(r"/dev/(video\d+|v4l/.+)")
_HINTS = {
    "linux": "Is it there (ls /dev/video*), free, and are you in the group video?",
    "darwin": "Is it there, free, and is the terminal allowed to use it (System Settings, Privacy, Camera)?",
    "win32": "Is it there, free, and may programs use it (Settings, Privacy, Camera)?",
}
_AGAIN = 0.002  # seconds after which a camera that has nothing yet is asked again


@dataclass(frozen=True, slots=True)
class Device:
    """What FFmpeg is to open.

    Attributes:
        name: what people call it.
        file: the device, as its format names it.
        format: of FFmpeg's input devices, such as ``v4l2``.
        options: of that format.
    """

    name: str
    file: str
    format: str
    options: dict[str, str] = field(default_factory=dict)


def is_camera(word: str) -> bool:
    """Whether a word on the command line means a camera: ``camera``, ``camera:1``, ``camera:NAME``, ``/dev/video0``."""
    return _WORD.fullmatch(word) is not None or _FILE.fullmatch(word) is not None


def find_camera(word: str, rate: Fraction | None = None, platform: str = sys.platform) -> Device:
    """Return the device that a word for which ``is_camera`` holds stands for; ``camera`` is the first one.

    Args:
        word: cameras are counted from 0; on macOS and Windows ``camera:NAME`` takes one by its name.
        rate: frames a second to ask it for (30).
        platform: as ``sys.platform``.

    Raises:
        VideoError: a system without a way to its cameras here, or no such camera.
    """
    asked = rate or RATE
    options = {"framerate": f"{asked.numerator}/{asked.denominator}"}
    found = _WORD.fullmatch(word)
    which = (found[1] or "0") if found else ""
    if platform == "linux":
        if found and not which.isdecimal():
            raise VideoError(f"{word}: Linux counts its cameras. Write camera:0, or the device, such as /dev/video0.")
        return Device(word, f"/dev/video{which}" if found else word, "v4l2", options)
    if not found or platform not in _HINTS:
        raise VideoError(f"{word}: no such camera on this system. Write camera, camera:1 or camera:NAME.")
    if platform == "darwin":
        return Device(word, f"{which}:none", "avfoundation", options)
    return Device(word, _direct_show(word, which), "dshow", options)


def _direct_show(word: str, which: str) -> str:
    """Return DirectShow's name of a camera that may be given by number, which DirectShow does not know."""
    if which.isdecimal():
        cameras = [each for each in av.device.enumerate_input_devices("dshow") if "video" in each.media_types]
        if int(which) >= len(cameras):
            raise VideoError(f"{word}: {len(cameras)} cameras are there. {_HINTS['win32']}")
        which = cameras[int(which)].name
    return f"video={which.removeprefix('video=')}"


class Camera:
    """A device, opened.

    Attributes:
        device: which.
        rate: in which timecodes count its frames, one of ``timecode.RATES``.

    Raises:
        VideoError: it cannot be opened, or gives no pictures.
    """

    def __init__(self, device: Device, wait: Callable[[float], None] = time.sleep) -> None:
        self.device = device
        self._wait = wait
        try:
            self._container: Any = av.open(device.file, format=device.format, options=device.options)
        except (av.FFmpegError, ValueError) as error:
            raise self._refused(error) from error
        if not self._container.streams.video:
            self._container.close()
            raise VideoError(f"{device.name}: gives no pictures. {self._hint}")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "SLICE"  # threads by frame would hold frames back
        measured = self._stream.average_rate or self._stream.guessed_rate
        self.rate = timecode_rate(Fraction(measured) if measured else RATE)

    def frames(self) -> Iterator[av.VideoFrame]:
        """Yield the frames as they come; closes the camera at the end.

        Raises:
            VideoError: it broke off.
        """
        packets = self._container.demux(self._stream)
        try:
            while True:
                try:
                    packet = next(packets)
                except StopIteration:
                    return
                except av.error.BlockingIOError:  # AVFoundation: no frame yet
                    self._wait(_AGAIN)
                    packets = self._container.demux(self._stream)
                    continue
                except av.FFmpegError as error:
                    raise self._refused(error) from error
                try:
                    yield from packet.decode()
                except av.FFmpegError:
                    continue  # one damaged on the way, as cables do; the next one is as good
        finally:
            self._container.close()

    @property
    def _hint(self) -> str:
        return _HINTS.get(sys.platform, "Is it there and free?")

    def _refused(self, error: Exception) -> VideoError:
        return VideoError(f"{self.device.name}: {getattr(error, 'strerror', None) or error}. {self._hint}")
