"""Written videos: exact times, one stream without metadata, atomic."""

from fractions import Fraction

import av
import numpy as np
import pytest

from semanticface.errors import SemanticFaceError
from semanticface.vision.video_reader import open_take
from semanticface.vision.video_writer import encoder, write_video
from tests.helpers.clips import bars, number_of

NTSC = Fraction(30000, 1001)


def write(path, rate, times):
    with write_video(path, rate) as writer:
        for time, pixels in zip(times, bars(len(times)), strict=True):
            writer.add(time, pixels)
    return path


@pytest.mark.parametrize(
    ("rate", "times"),
    [
        (Fraction(30), [Fraction(n, 30) for n in range(12)]),
        (NTSC, [n / NTSC for n in range(12)]),
        (NTSC, [n / NTSC for n in (0, 1, 2, 5, 6, 9, 10)]),
        (Fraction(1), [Fraction(0), Fraction(1)]),
        (Fraction(25), [Fraction(0)]),
    ],
)
def test_frames_keep_their_times(tmp_path, rate, times):
    take = open_take(write(tmp_path / "a.mp4", rate, times))
    frames = list(take.frames())
    assert [frame.time for frame in frames] == times and take.shortfall == ""
    assert [number_of(np.asarray(frame.picture)) for frame in frames] == list(range(len(times)))


def test_times_off_any_grid_are_accurate_to_a_tenth_of_a_millisecond(tmp_path):
    times = [Fraction(0), Fraction("0.0417"), Fraction("0.0831"), Fraction("0.2001"), Fraction("0.2001")]
    frames = list(open_take(write(tmp_path / "a.mp4", Fraction(1_000_003, 50_000), times)).frames())
    assert np.allclose([float(frame.time) for frame in frames], [float(time) for time in times], atol=1.1e-4)


def test_there_is_one_stream_without_metadata(tmp_path):
    with av.open(str(write(tmp_path / "a.mp4", Fraction(30), [Fraction(0)]))) as container:
        (stream,) = container.streams
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert not {"timecode", "creation_time", "comment", "title"} & {key.lower() for key in container.metadata}


def test_mpeg4_without_an_h264_encoder(tmp_path, monkeypatch):
    assert encoder() == "libx264"
    monkeypatch.setattr(av, "codecs_available", {"mpeg4", "png"})
    assert encoder() == "mpeg4"
    path = write(tmp_path / "a.mp4", Fraction(30), [Fraction(n, 30) for n in range(5)])
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
        assert [number_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)] == list(range(5))


def test_a_partial_video_is_removed(tmp_path):
    with pytest.raises(RuntimeError, match="stopped"), write_video(tmp_path / "a.mp4", Fraction(30)) as writer:
        writer.add(Fraction(0), bars(1)[0])
        raise RuntimeError("stopped")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_location(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SemanticFaceError, match="cannot write"):
        write(tmp_path / "file" / "a.mp4", Fraction(30), [Fraction(0)])
