"""Cameras: names on each system, and frames. FFmpeg's test pictures replace a device."""

from fractions import Fraction
from types import SimpleNamespace

import av
import pytest

from semanticface.errors import VideoError
from semanticface.vision.webcam import Camera, Device, find_camera, is_camera


def pattern(seconds="0.5", rate="10"):
    return Device("camera", f"testsrc=size=64x48:rate={rate}:duration={seconds}", "lavfi")


@pytest.mark.parametrize(
    ("word", "means"),
    [
        ("camera", True), ("camera:1", True), ("camera:FaceTime HD", True), ("/dev/video0", True),
        ("/dev/v4l/by-id/usb-cam", True), ("camera.mp4", False), ("cameras", False), ("/dev/stdin", False),
        ("./camera", False), ("camera:", False),
    ],
)  # fmt: skip
def test_is_camera(word, means):
    assert is_camera(word) is means


@pytest.mark.parametrize(
    ("word", "platform", "format", "file"),
    [
        ("camera", "linux", "v4l2", "/dev/video0"),
        ("camera:2", "linux", "v4l2", "/dev/video2"),
        ("/dev/v4l/by-id/x", "linux", "v4l2", "/dev/v4l/by-id/x"),
        ("camera", "darwin", "avfoundation", "0:none"),
        ("camera:FaceTime HD", "darwin", "avfoundation", "FaceTime HD:none"),
        ("camera", "win32", "dshow", "video=Front"),
        ("camera:1", "win32", "dshow", "video=Rear"),
        ("camera:Rear", "win32", "dshow", "video=Rear"),
    ],
)
def test_devices(word, platform, format, file, monkeypatch):
    there = [("Microphone", ["audio"]), ("Front", ["video"]), ("video=Rear", ["video"])]
    found = [SimpleNamespace(name=name, media_types=media) for name, media in there]
    monkeypatch.setattr(av.device, "enumerate_input_devices", lambda format: found if format == "dshow" else [])
    assert find_camera(word, None, platform) == Device(word, file, format, {"framerate": "30/1"})
    assert find_camera(word, Fraction(60000, 1001), platform).options == {"framerate": "60000/1001"}


@pytest.mark.parametrize(
    ("word", "platform", "why"),
    [
        ("camera:Front", "linux", "Write camera:0"),
        ("/dev/video0", "darwin", "no such camera on this system"),
        ("camera", "sunos5", "no such camera on this system"),
        ("camera:3", "win32", "0 cameras found"),
    ],
)
def test_no_such_camera(word, platform, why, monkeypatch):
    monkeypatch.setattr(av.device, "enumerate_input_devices", lambda format: [])
    with pytest.raises(VideoError, match=why):
        find_camera(word, None, platform)


def test_frames_are_in_order():
    camera = Camera(pattern(rate="50"))
    assert camera.rate == 50
    frames = list(camera.frames())
    assert len(frames) == 25 and frames[0].to_ndarray(format="rgb24").shape == (48, 64, 3)


def test_devices_that_cannot_be_opened():
    with pytest.raises(VideoError, match=r"camera:9: No such file or directory\. Is it connected"):
        Camera(Device("camera:9", "/dev/video999", "v4l2"))
    with pytest.raises(VideoError, match="has no video"):
        Camera(Device("camera", "sine=duration=0.1", "lavfi"))
    with pytest.raises(VideoError, match="no container format"):
        Camera(Device("camera", "x", "no such way"))


class FakeContainer:
    """A fake container that yields the given frames or errors."""

    def __init__(self, *events):
        self.events, self.closed = list(events), False
        self.streams = SimpleNamespace(video=[SimpleNamespace(average_rate=None, guessed_rate=None)])

    def demux(self, stream):
        while self.events:
            event = self.events.pop(0)
            if isinstance(event, Exception):
                raise event
            yield SimpleNamespace(decode=event)

    def close(self):
        self.closed = True


def test_an_idle_camera_is_polled_and_a_damaged_frame_is_skipped(monkeypatch):
    def damaged():
        raise av.error.InvalidDataError(1, "damaged")

    nothing_yet = av.error.BlockingIOError(11, "Resource temporarily unavailable")
    container = FakeContainer(
        lambda: ["a"], nothing_yet, damaged, lambda: ["b"], av.error.OSError(19, "No such device")
    )
    monkeypatch.setattr(av, "open", lambda *_, **__: container)
    waits, got = [], []
    camera = Camera(Device("camera", "x", "v4l2"), wait=waits.append)
    assert camera.rate == 30
    with pytest.raises(VideoError, match="camera: No such device"):
        for frame in camera.frames():
            got.append(frame)
    assert got == ["a", "b"] and len(waits) == 1 and container.closed
