"""``semanticface stream``: recordings, videos and cameras are sent under their subject's name to the given address."""

import socket

import av
import numpy as np
import pytest

from semanticface import arkit
from semanticface.cli.main import main
from semanticface.errors import VideoError
from semanticface.formats import live_link, live_link_udp
from semanticface.formats.live_link import LiveLinkRow
from semanticface.inference.predictor import Predictor
from semanticface.rendering import render
from semanticface.vision import webcam
from semanticface.vision.webcam import Device
from tests.formats.test_live_link_udp import decode
from tests.helpers.clips import PixelPredictor, bars, write_clip


@pytest.fixture
def listener():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        there.settimeout(5)
        yield there


@pytest.fixture
def take(tmp_path):
    rows = np.random.default_rng(2).uniform(0, 1, (5, 52)).round(6)
    codes = [f"10:00:00:{frame:06.3f}" for frame in (40, 40.5, 40.9, 41, 42)]
    live_link.write(tmp_path / "Scene1_2_Ann.csv", map(LiveLinkRow, codes, rows, np.zeros((5, 9))))
    return tmp_path / "Scene1_2_Ann.csv", rows


def stream(path, listener, *words):
    return main(["stream", str(path), "--to", f"127.0.0.1:{listener.getsockname()[1]}", *words])


def test_a_take_arrives(take, listener, capsys):
    path, rows = take
    assert stream(path, listener) == 0
    got = [decode(listener.recv(4096)) for _ in rows]
    assert {one["name"] for one in got} == {"Ann"} and {one["rate"] for one in got} == {(60, 1)}
    assert [one["frame"] for one in got] == [10 * 3600 * 60 + frame for frame in (40, 40, 40, 41, 42)]
    found = [[one["values"][arkit.PASCAL_CASE[name]] for name in arkit.NAMES] for one in got]
    assert np.allclose(found, rows, atol=1e-6)
    assert "5 frames sent, 0 rows left out" in capsys.readouterr().err


def test_bad_rows_are_named_and_left_out(take, listener, capsys):
    path, _ = take
    text = path.read_text().splitlines()
    text[2] = text[2].replace(",61,", ",many,")
    path.write_text("\n".join(text))
    assert stream(path, listener, "--name", "Bob") == 1
    assert [decode(listener.recv(4096))["name"] for _ in range(4)] == ["Bob"] * 4
    assert "line 3, column 2" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "code"), [(["--loop"], 0), ([], 130)])
def test_ctrl_c_stops_a_recording(take, listener, capsys, monkeypatch, words, code):
    def interrupted(packets, host, port):
        for number, _ in enumerate(packets, start=1):
            yield number
            if number == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(live_link_udp, "send", interrupted)
    assert stream(take[0], listener, *words) == code
    assert "3 frames sent" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["127.0.0.1:0", ":11111", "host:port", "host:99999", "[::1]x:5"])
def test_invalid_addresses(take, address, capsys):
    with pytest.raises(SystemExit):
        main(["stream", str(take[0]), "--to", address])
    assert "is not HOST:PORT" in capsys.readouterr().err


def test_forms_of_an_address(take, monkeypatch):
    sent_to = []

    def note(packets, host, port):
        sent_to.append((host, port))
        return iter(())

    monkeypatch.setattr(live_link_udp, "send", note)
    for words in ([], ["--to", "studio.local"], ["--to", "[::1]:5000"], ["--to", "[::1]"], ["--to", "::1"]):
        assert main(["stream", str(take[0]), *words]) == 0
    assert sent_to == [("127.0.0.1", 11111), ("studio.local", 11111), ("::1", 5000), ("::1", 11111), ("::1", 11111)]


@pytest.fixture
def model(monkeypatch):
    """Replace the model by one that answers from pixels; returns the arguments of each load."""
    asked = []

    def load(name, **settings):
        asked.append((name, settings))
        return PixelPredictor()

    monkeypatch.setattr(Predictor, "from_pretrained", load)
    return asked


@pytest.fixture
def clip(tmp_path):
    """A still face for 12 frames, starting at timecode 10:00:00:05."""
    face = render(arkit.vector({"jawOpen": 0.4}), subject=3, size=128).image
    return write_clip(tmp_path / "Scene1_3_Bea.mov", [face] * 12, timecode="10:00:00:05")


def test_a_video_arrives(clip, listener, model, capsys):
    assert stream(clip, listener, "--smooth", "--model", "outputs/mine") == 0
    got = [decode(listener.recv(4096)) for _ in range(12)]
    assert [one["frame"] for one in got] == [10 * 3600 * 30 + 5 + number for number in range(12)]
    assert {one["name"] for one in got} == {"Bea"} and {one["rate"] for one in got} == {(30, 1)}
    assert all(one["values"]["JawOpen"] > 0 for one in got)
    assert model == [("outputs/mine", {"device": None, "mode": "numbers"})]
    assert "12 packets sent, 0 of them without a face; 0 frames dropped; late by" in capsys.readouterr().err


def test_a_video_with_another_timecode_rate(clip, listener, model):
    assert stream(clip, listener, "--fps", "60") == 0
    first, second = (decode(listener.recv(4096)) for _ in range(2))
    assert (first["frame"], second["frame"], first["rate"]) == (10 * 3600 * 60 + 10, 10 * 3600 * 60 + 12, (60, 1))
    assert stream(clip, listener, "--fps", "12") == 2


def test_a_video_without_a_usable_timecode_starts_at_zero(tmp_path, listener, model, capsys):
    plain = write_clip(tmp_path / "a.mp4", bars(2))
    odd = write_clip(tmp_path / "b.mkv", bars(2), timecode="late")
    for path in (plain, odd):
        assert stream(path, listener) == 0
        assert [decode(listener.recv(4096))["frame"] for _ in range(2)] == [0, 1]
    assert "b.mkv: its own timecode is not used: late" in capsys.readouterr().err


def test_a_truncated_video_is_reported(clip, listener, model, capsys):
    cut = clip.with_suffix(".avi")
    write_clip(cut, bars(60), codec="mjpeg")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 3])
    assert stream(cut, listener) == 1
    assert "the video is truncated" in capsys.readouterr().err


def test_a_camera_arrives(clip, listener, model, monkeypatch, capsys):
    asked = []

    def find(word, rate):
        asked.append((word, rate))
        return Device(word, f"movie={clip}", "lavfi")

    monkeypatch.setattr(webcam, "find_camera", find)
    assert stream("camera:1", listener, "--fps", "25") == 0
    last = decode(listener.recv(4096))
    assert last["name"] == "SemanticFace" and last["values"]["JawOpen"] > 0 and asked == [("camera:1", 25)]
    assert "from frame to packet" in capsys.readouterr().err


def test_an_unplugged_camera_is_reported_after_the_summary(clip, listener, model, monkeypatch, capsys):
    def frames(self):
        with av.open(str(clip)) as container:
            yield next(container.decode(video=0))
        raise VideoError("camera: No such device. Is it there?")

    monkeypatch.setattr(webcam.Camera, "frames", frames)
    monkeypatch.setattr(webcam, "find_camera", lambda word, rate: Device(word, f"movie={clip}", "lavfi"))
    assert stream("camera", listener) == 2
    printed = capsys.readouterr().err
    assert "1 packets sent, 0 of them" in printed and "semanticface: camera: No such device" in printed


@pytest.mark.parametrize(("source", "words", "code"), [("camera", [], 0), ("clip", [], 130), ("clip", ["--loop"], 0)])
def test_ctrl_c_stops_videos_and_cameras(clip, listener, model, monkeypatch, capsys, source, words, code):
    def interrupted(packets, host, port):
        next(packets)
        yield 1
        raise KeyboardInterrupt

    monkeypatch.setattr(live_link_udp, "send", interrupted)
    monkeypatch.setattr(webcam, "find_camera", lambda word, rate: Device(word, f"movie={clip}", "lavfi"))
    assert stream(clip if source == "clip" else source, listener, *words) == code
    assert "packets sent" in capsys.readouterr().err


def test_options_that_do_not_apply(take, listener, capsys):
    for words in (["--smooth"], ["--model", "nano"], ["--device", "cpu"]):
        assert stream(take[0], listener, *words) == 2
        assert f"{words[0]} is for videos and cameras" in capsys.readouterr().err
    assert stream("camera", listener, "--loop") == 2
    assert "--loop is for recordings and videos" in capsys.readouterr().err
    assert stream("/dev/video999", listener) == 2
    assert "/dev/video999: No such file" in capsys.readouterr().err
