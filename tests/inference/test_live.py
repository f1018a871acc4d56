"""Live prediction: as predict, in the video's time; of a camera the newest frame, at the time of day."""

import itertools
import threading
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semanticface import arkit
from semanticface.errors import PictureError, VideoError
from semanticface.formats import live_link_udp, tables
from semanticface.formats.live_link_udp import Subject
from semanticface.inference import live
from semanticface.inference.live import MAX_GAP, PREBUFFER, FaceReader, StreamStats, camera_packets, newest
from semanticface.inference.live import video_packets as play
from semanticface.inference.video import predict_take
from semanticface.rendering import render
from semanticface.utils.one_euro import DEFAULTS
from semanticface.vision.video_reader import Frame, Take, open_take
from semanticface.vision.webcam import Camera, Device
from tests.formats.test_live_link_udp import decode
from tests.helpers.clips import PixelPredictor, bars, number_of, write_clip

ANN = Subject("Ann", Fraction(30))


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """A video of a head that opens its jaw; frames 6 and 7 show none."""
    frames = []
    for number in range(14):
        canvas = np.full((160, 256, 3), 80, np.uint8)
        if number not in (5, 6):
            drawn = render(arkit.vector({"jawOpen": number / 14}), style="photo", subject=11, size=128).image
            canvas[10:138, 8 * number : 8 * number + 128] = drawn
        frames.append(canvas)
    return write_clip(tmp_path_factory.mktemp("heads") / "heads.mp4", frames, options={"crf": "12"})


@pytest.mark.parametrize("smoothing", [None, DEFAULTS])
def test_coefficients_are_those_of_predict(tmp_path, heads, smoothing):
    predict_take(open_take(heads), tmp_path / "take.csv", PixelPredictor(), smoothing=smoothing)
    rows = [row.coefficients for row in tables.read_coefficients(tmp_path / "take.csv")]
    stats = StreamStats()
    sent = list(play(open_take(heads), FaceReader(PixelPredictor(), smoothing).read, ANN, stats))
    assert np.allclose([at for at, _ in sent], np.arange(14) / 30)
    faces = [decode(data) for _, data in sent]
    assert [face["frame"] for face in faces] == list(range(14))
    assert [face["values"] is None for face in faces] == [number in (5, 6) for number in range(14)]
    shown = [[face["values"][arkit.PASCAL_CASE[name]] for name in arkit.NAMES] for face in faces if face["values"]]
    assert np.allclose(shown, rows, atol=1e-7)
    assert (stats.sent, stats.faceless, stats.dropped) == (14, 2, 0)
    assert "14 packets sent, 2 of them without a face; 0 frames dropped; late by" in stats.summary("late by")


def test_frames_without_a_picture_or_a_crop_have_no_coefficients(monkeypatch):
    def outside(*_):
        raise PictureError("bad_box", "the box lies outside the picture")

    reader = FaceReader(PixelPredictor())
    picture = render(arkit.vector({}), subject=3, size=96).image
    assert reader.read([Frame(1, Fraction(0), None, "damaged", "x.mp4, frame 1: damaged")]) == [None]
    shown = Frame(2, Fraction(1, 30), Image.fromarray(picture))
    (values,) = reader.read([shown])
    assert values.shape == (52,)
    monkeypatch.setattr(live, "crop_face", outside)
    assert reader.read([shown]) == [None]


class Blank(Take):
    """Frames without pictures, 30 a second."""

    def __init__(self, count):
        super().__init__(Path("blank.mp4"), Fraction(30), count, {})

    def frames(self, skip=0):
        for number in range(self.count):
            yield Frame(number + 1, number / self.rate)


class Machine:
    """A clock that only waiting and predicting advance, and a model that takes time; single-threaded."""

    def __init__(self, monkeypatch, seconds=0.0):
        monkeypatch.setattr(live, "prefetch", lambda items, depth: (item for item in items))
        self.time, self.seconds, self.blocks = 50.0, seconds, []

    def now(self):
        return self.time

    def wait(self, seconds):
        self.time += seconds

    def read(self, frames):
        self.time += self.seconds
        self.blocks.append(len(frames))
        return [np.full(52, float(frame.time) / 100) for frame in frames]

    def play(self, take, **settings):
        """Return the clock's time at each packet, the packets, and the stats."""
        received = []
        stats = StreamStats()
        packets = play(take, self.read, ANN, stats, now=self.now, **settings)

        def recorded():
            for at, data in packets:
                received.append((at, decode(data)))
                yield at, data

        sending = live_link_udp.send(recorded(), "127.0.0.1", 9, now=self.now, wait=self.wait)
        times = [self.time for _ in sending]
        return np.array(times) - times[0], received, stats


def test_a_fast_machine_sends_every_frame_when_it_is_due(monkeypatch):
    times, sent, stats = Machine(monkeypatch, 0.02).play(Blank(90))
    assert np.allclose(times, np.arange(90) / 30) and [one["frame"] for _, one in sent] == list(range(90))
    assert (stats.sent, stats.dropped) == (90, 0) and max(stats.lags) < 1e-6
    assert "30.0 faces a second" in stats.summary("late by")


def test_a_slow_machine_drops_frames_and_keeps_the_videos_time(monkeypatch):
    machine = Machine(monkeypatch, 0.2)  # for four frames, which last 0.13
    times, sent, stats = machine.play(Blank(240))
    frames = [one["frame"] for _, one in sent]
    assert frames == sorted(set(frames)) and frames[:PREBUFFER] == list(range(PREBUFFER))
    assert stats.sent == len(frames) == sum(machine.blocks) and stats.sent + stats.dropped == 240
    assert 60 < stats.dropped < 180
    assert np.allclose(times, np.array(frames) / 30) and max(stats.lags) < 1e-6
    for at, one in sent:  # each packet is of its own frame
        assert one["values"]["JawOpen"] == pytest.approx(at / 100, abs=1e-6)


def test_a_machine_that_is_always_late_still_sends_frames(monkeypatch):
    _, sent, stats = Machine(monkeypatch, 3.0).play(Blank(300))
    apart = np.diff([at for at, _ in sent])
    assert apart.max() < float(MAX_GAP) + 1 / 30 + 1e-6 and stats.dropped > 150
    assert max(stats.lags) > 1


def test_frame_numbers_continue_in_a_loop(monkeypatch):
    monkeypatch.setattr(live, "prefetch", lambda items, depth: (item for item in items))
    packets = play(Blank(3), Machine(monkeypatch).read, ANN, StreamStats(), loop=True)
    sent = [next(packets) for _ in range(8)]
    assert [decode(data)["frame"] for _, data in sent] == list(range(8))
    assert np.allclose([at for at, _ in sent], np.arange(8) / 30)


@pytest.mark.parametrize("loop", [False, True])
def test_a_video_without_frames(loop):
    with pytest.raises(VideoError, match=r"blank\.mp4: no frame in it"):
        list(play(Blank(0), FaceReader(PixelPredictor()).read, ANN, StreamStats(), loop=loop))


def test_stopping_ends_the_threads(heads):
    before = threading.active_count()
    packets = play(open_take(heads), FaceReader(PixelPredictor()).read, ANN, StreamStats(), loop=True)
    assert len(list(itertools.islice(packets, 40))) == 40
    packets.close()
    assert threading.active_count() == before


def test_only_the_newest_item_is_yielded():
    taken, there, end = threading.Event(), threading.Event(), threading.Event()
    closed, dropped = [], []

    def items():
        try:
            yield 1
            taken.wait()
            yield 2
            yield 3
            yield 4
            there.set()
            end.wait()
            yield None
        finally:
            closed.append(threading.current_thread().name)

    seen = newest(items(), lambda: dropped.append(1))
    assert next(seen) == 1
    taken.set()
    there.wait()
    assert next(seen) == 4 and len(dropped) == 2
    end.set()
    assert list(seen) == [None] and closed == ["newest"]


def test_an_error_comes_after_the_last_item():
    def items():
        yield 1
        raise VideoError("unplugged")

    seen = newest(items(), pytest.fail)
    assert next(seen) == 1
    with pytest.raises(VideoError, match="unplugged"):
        next(seen)


def test_closing_ends_the_source():
    closed, go = threading.Event(), threading.Event()

    def items():
        try:
            for number in itertools.count():
                yield number
                go.wait()
        finally:
            closed.set()

    seen = newest(items(), lambda: None)
    next(seen)
    go.set()
    seen.close()
    assert closed.is_set()


def video_device(path, frames):
    """Return a device that FFmpeg reads from a file, as it would read a camera."""
    return Device("camera", f"movie={write_clip(path, frames)}", "lavfi")


def test_a_cameras_frames_carry_the_time_of_day(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "newest", lambda items, dropped: (item for item in items))
    moments = itertools.count(1000.0, 0.25)  # the clock, read on arrival, once for the day, and after each packet

    def read(frames):
        (frame,) = frames
        return [np.full(52, number_of(np.asarray(frame.picture)) / 100) if frame.number != 3 else None]

    stats = StreamStats()
    camera = Camera(video_device(tmp_path / "a.mp4", bars(4)))
    noon = datetime(2026, 3, 29, 12, 0, 0, 500_000)
    packets = camera_packets(camera, read, "Ann", stats, now=lambda: next(moments), clock=lambda: noon)
    sent = [(at, decode(data)) for at, data in packets]
    assert [at for at, _ in sent] == [0.0] * 4  # at once
    # The first arrived a quarter of a second before the time of day, noon and a half second, was read.
    first = 12 * 3600 * 30 + 7
    assert [one["frame"] + one["subframe"] for _, one in sent] == [first + step for step in (0.5, 23, 38, 53)]
    assert [one["values"] and round(one["values"]["JawOpen"] * 100) for _, one in sent] == [0, 1, None, 3]
    assert (stats.sent, stats.faceless) == (4, 1)
    assert list(stats.lags) == [0.5, 0.25, 0.25, 0.25]
    assert "from frame to packet 250 ms (median), 462 ms (95 %)" in stats.summary("from frame to packet")


def test_a_camera_is_read_to_its_end_and_its_last_frame_is_never_lost(tmp_path):
    got = []

    def read(frames):
        got.append(number_of(np.asarray(frames[0].picture)))
        return [None]

    stats = StreamStats()
    camera = Camera(video_device(tmp_path / "a.mp4", bars(20)))
    sent = list(camera_packets(camera, read, "Ann", stats))
    assert got == sorted(set(got)) and got[-1] == 19
    assert len(sent) == stats.sent == len(got) and stats.sent + stats.dropped == 20


def test_summary_without_packets():
    assert StreamStats().summary("late by") == "0 packets sent, 0 of them without a face; 0 frames dropped"
