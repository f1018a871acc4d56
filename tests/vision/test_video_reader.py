"""Frames of takes: all at their position with exact times, in every container; other files are rejected."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from semanticface.errors import PictureError, VideoError
from semanticface.vision import video_reader
from semanticface.vision.image_io import load_picture
from semanticface.vision.timecode import RATES
from semanticface.vision.video_reader import is_video, open_take
from tests.helpers.clips import bars, damage, number_of, write_clip, write_sound

KINDS = [
    ("a.mp4", "libx264"), ("a.mov", "libx264"), ("a.mkv", "libx264"), ("a.mp4", "libx265"), ("a.webm", "libvpx-vp9"),
    ("a.webm", "libvpx"), ("a.avi", "mpeg4"), ("a.mov", "mjpeg"),
]  # fmt: skip


def read(path, rate=None, skip=0):
    take = open_take(path, rate)
    return take, list(take.frames(skip))


def numbers(frames):
    """Return the numbers painted on frames; None without a picture."""
    return [None if frame.picture is None else number_of(np.asarray(frame.picture)) for frame in frames]


@pytest.mark.parametrize(("name", "codec"), KINDS)
def test_every_frame_at_its_position(tmp_path, name, codec):
    path = write_clip(tmp_path / name, bars(40), codec=codec)
    take, frames = read(path)
    assert (take.rate, take.count, take.shortfall) == (30, 40, "")
    assert numbers(frames) == list(range(40))
    assert [frame.number for frame in frames] == list(range(1, 41))
    assert [frame.time for frame in frames] == [Fraction(n, 30) for n in range(40)]
    assert frames[7].picture.mode == "RGB" and frames[7].picture.size == (64, 48)
    red = np.asarray(frames[7].picture)[4, 4].astype(int)
    assert red[0] > 180 and red[1:].max() < 80


@pytest.mark.parametrize("rate", RATES)
def test_rates_and_times_are_exact(tmp_path, rate):
    # Matroska stores times in thousandths of a second; the frames still fall on the grid of their rate.
    for name in ("a.mkv", "a.mp4"):
        take, frames = read(write_clip(tmp_path / name, bars(30), rate=rate))
        assert take.rate == take.timecode_rate == rate
        assert [frame.time for frame in frames] == [n / rate for n in range(30)]


def test_variable_frame_rate(tmp_path):
    times = [0.0, 0.031, 0.1, 0.35, 0.36, 1.25]
    for name in ("a.mp4", "a.mkv"):
        take, frames = read(write_clip(tmp_path / name, bars(6), times=times))
        assert [float(frame.time) for frame in frames] == pytest.approx(times, abs=0.001)
        assert numbers(frames) == list(range(6))
        assert take.shortfall == ""


def test_a_dropped_frame_leaves_a_gap(tmp_path):
    kept = [n for n in range(30) if n not in (10, 11)]
    frames = bars(30)
    path = write_clip(tmp_path / "a.mp4", [frames[n] for n in kept], times=[n / 30 for n in kept])
    _, found = read(path)
    assert [frame.time * 30 for frame in found] == kept
    assert [frame.number for frame in found] == list(range(1, 29))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_rotation_and_mirroring_are_applied(tmp_path, degrees, mirrored):
    pixels = bars(1)[0]
    path = write_clip(tmp_path / "a.mp4", [pixels] * 2, turn=(degrees, mirrored))
    expected = np.rot90(pixels, degrees // 90)
    expected = expected[:, ::-1] if mirrored else expected
    _, frames = read(path)
    for frame in frames:
        shown = np.asarray(frame.picture).astype(int)
        assert shown.shape == expected.shape
        assert np.abs(shown - expected).mean() < 6


def test_non_square_pixels_are_resampled(tmp_path):
    path = write_clip(tmp_path / "a.mkv", bars(2), aspect=Fraction(4, 3))
    _, frames = read(path)
    assert frames[0].picture.size == (85, 48)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mp4", "libx265"), ("a.avi", "mpeg4")])
def test_a_damaged_frame_keeps_its_position(tmp_path, name, codec):
    path = damage(write_clip(tmp_path / name, bars(40), codec=codec, options={"g": "10"}), 25)
    take, frames = read(path)
    assert [frame.number for frame in frames] == list(range(1, 41))
    assert [frame.time for frame in frames] == [Fraction(n, 30) for n in range(40)]
    bad = [frame for frame in frames if frame.code]
    assert 1 <= len(bad) <= 5 and all(20 <= frame.number <= 31 for frame in bad)
    assert bad[0].code == "damaged" and f"{path}, frame {bad[0].number}: the frame is damaged" in bad[0].reason
    sure = [n for n in range(40) if not 20 <= n < 30]
    assert [numbers(frames)[n] for n in sure] == sure
    assert take.shortfall == ""


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_truncated_video_reports_what_is_missing(tmp_path, name):
    codec, options = ("mpeg4", {}) if name == "a.avi" else ("libx264", {"g": "10"})
    path = write_clip(tmp_path / name, bars(60), codec=codec, options=options)
    if name == "a.mp4":  # index first, as in downloads
        path = faststart(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    take, frames = read(path)
    assert take.count == 60
    there = [number for number in numbers(frames) if number is not None]
    assert there == list(range(len(there))) and 5 <= len(there) < 59
    expected = f"{len(frames)} of 60 frames" if path.suffix == ".mp4" else "of 2.0 seconds"
    assert expected in take.shortfall and str(path) in take.shortfall


def test_a_video_trimmed_by_an_edit_list_is_complete(tmp_path):
    """Like phones trim: frames before the cut stay in the file, because later ones depend on them."""
    path, out = write_clip(tmp_path / "a.mp4", bars(40), options={"g": "20"}), tmp_path / "cut.mp4"
    with av.open(str(path)) as source, av.open(str(out), "w", options={"avoid_negative_ts": "disabled"}) as target:
        copied = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                shift = round(Fraction(7, 30) / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copied
                target.mux(packet)
    take, frames = read(out)
    assert numbers(frames) == list(range(7, 40))
    assert (take.count, take.shortfall) == (33, "")
    assert [frame.time for frame in frames] == [Fraction(n, 30) for n in range(33)]


def faststart(path):
    """Return the same video with its index before the data."""
    out = path.with_name("fast.mp4")
    with av.open(str(path)) as source, av.open(str(out), "w", options={"movflags": "faststart"}) as target:
        copied = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copied
                target.mux(packet)
    return out


def test_skipped_frames_are_counted_without_pictures(tmp_path):
    path = write_clip(tmp_path / "a.mp4", bars(20))
    _, frames = read(path, skip=12)
    assert numbers(frames) == [None] * 12 + list(range(12, 20))
    assert not any(frame.code for frame in frames)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_the_cameras_own_timecode(tmp_path, name):
    assert open_take(write_clip(tmp_path / name, bars(2), timecode="01:02:03:04")).timecode == "01:02:03:04"
    assert open_take(write_clip(tmp_path / f"plain-{name}", bars(2))).timecode is None


def test_a_folder_of_frames(tmp_path):
    for number, pixels in enumerate(bars(12), start=1):
        Image.fromarray(pixels).save(tmp_path / f"frame{number}.png")
    (tmp_path / "frame3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "notes.txt").touch()
    take, frames = read(tmp_path, Fraction(12))
    assert (take.count, take.rate, take.timecode_rate, take.timecode) == (12, 12, 30, None)
    assert numbers(frames) == [0, 1, None, *range(3, 12)]
    assert [frame.time for frame in frames] == [Fraction(n, 12) for n in range(12)]
    assert frames[2].code == "damaged" and "frame3.png" in frames[2].reason
    assert numbers(read(tmp_path, Fraction(12), skip=10)[1])[10:] == [10, 11]
    with pytest.raises(VideoError, match="--fps 30"):
        open_take(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PictureError, match="no picture in this folder"):
        open_take(tmp_path / "empty", Fraction(30))


def test_identity_distinguishes_takes(tmp_path):
    frames = bars(4)
    path = write_clip(tmp_path / "a.mp4", frames)
    other = write_clip(tmp_path / "b.mp4", frames[::-1])
    copy = tmp_path / "c.mp4"
    copy.write_bytes(path.read_bytes())
    assert open_take(path).identity == open_take(copy).identity != open_take(other).identity
    (tmp_path / "d").mkdir()
    Image.fromarray(frames[0]).save(tmp_path / "d" / "1.png")
    before = open_take(tmp_path / "d", Fraction(30)).identity
    assert before == open_take(tmp_path / "d", Fraction(30)).identity
    assert before != open_take(tmp_path / "d", Fraction(25)).identity
    Image.fromarray(frames[1]).save(tmp_path / "d" / "2.png")
    assert before != open_take(tmp_path / "d", Fraction(30)).identity


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.mp4", b"", "empty"),
        ("a.mp4", b"just words " * 500, "not a readable video"),
        ("a.mov", b"\x00\x00\x00\x20ftypqt  " + bytes(300), "an unfinished recording"),
        ("a.mkv", b"\x1a\x45\xdf\xa3" + bytes(300), "not a readable video"),
        # A playlist could refer to other files and URLs.
        ("a.mp4", b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n", "not a readable video"),
        ("a.avi", b"ffconcat version 1.0\nfile other.mp4\n", "not a readable video"),
    ],
)
def test_other_files_are_rejected_by_name(tmp_path, name, content, word):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(VideoError, match=word) as caught:
        open_take(path)
    assert str(path) in str(caught.value)


def test_an_unfinished_recording(tmp_path):
    path = write_clip(tmp_path / "a.mp4", bars(30))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # the index is at the end
    with pytest.raises(VideoError, match="truncated"):
        open_take(path)


def test_unusable_videos(tmp_path, monkeypatch):
    with pytest.raises(VideoError, match="no video stream"):
        open_take(write_sound(tmp_path / "sound.mp4"))
    with pytest.raises(VideoError, match="No such file"):
        open_take(tmp_path / "gone.mp4")
    with pytest.raises(VideoError, match="not a regular file"):
        open_take("/dev/zero")
    path = write_clip(tmp_path / "a.mp4", bars(4))
    for tag, word in ((b"encv", "encrypted"), (b"zzzz", "an unknown codec")):
        odd = tmp_path / "odd.mp4"
        odd.write_bytes(path.read_bytes().replace(b"avc1" + bytes(6), tag + bytes(6)))
        with pytest.raises(VideoError, match=word):
            open_take(odd)
    with pytest.raises(VideoError, match=r"codec flv is not supported.*ffmpeg -i"):
        open_take(write_clip(tmp_path / "old.avi", bars(4), codec="flv"))
    with pytest.raises(VideoError, match="at least 16"):
        open_take(write_clip(tmp_path / "tiny.mp4", [np.zeros((8, 32, 3), np.uint8)] * 2))
    monkeypatch.setattr(video_reader, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(VideoError, match="64 x 48 pixels"):
        open_take(path)
    monkeypatch.undo()
    monkeypatch.setattr(video_reader, "MAX_FRAMES", 3)
    with pytest.raises(VideoError, match="more than 3 frames"):
        list(open_take(path).frames())


def test_corrupted_bytes_raise_only_video_errors(tmp_path):
    whole = write_clip(tmp_path / "a.mp4", bars(12)).read_bytes()
    random = np.random.default_rng(3)
    path = tmp_path / "b.mp4"
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(random.integers(1, 12)):
            data[random.integers(len(data))] = random.integers(256)
        path.write_bytes(data)
        try:
            take, frames = read(path)
        except VideoError as error:
            assert str(path) in str(error)
            continue
        assert [frame.number for frame in frames] == list(range(1, len(frames) + 1))
        assert all((frame.picture is None) == bool(frame.reason) for frame in frames)
        assert len(frames) == 12 or take.shortfall or take.count != 12


def test_is_video(tmp_path):
    clip = write_clip(tmp_path / "a.mkv", bars(2))
    (tmp_path / "named").write_bytes(clip.read_bytes())
    Image.new("RGB", (20, 20)).save(tmp_path / "face.png")
    (tmp_path / "face.heic").write_bytes(b"\x00\x00\x00\x20ftypheic" + bytes(64))
    (tmp_path / "folder.mp4").mkdir()
    assert is_video(clip) and is_video(tmp_path / "named") and is_video(tmp_path / "gone.mp4")
    for name in ("face.png", "face.heic", "folder.mp4", "gone.png"):
        assert not is_video(tmp_path / name)
    assert load_picture(tmp_path / "face.png").size == (20, 20)
