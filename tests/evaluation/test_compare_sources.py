"""Matching rows to pictures or frames: by name, by number, by timecode; or to none."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semanticface import arkit
from semanticface.errors import SemanticFaceError, TableError, VideoError
from semanticface.evaluation.compare_sources import find_take, frames_of, locate, read_rows
from semanticface.formats import live_link, tables
from semanticface.formats.live_link import LiveLinkRow
from semanticface.inference.video import predict_take
from semanticface.semantics.analysis import describe
from semanticface.vision.crop import Box
from semanticface.vision.timecode import Clock, Start
from semanticface.vision.video_reader import open_take
from tests.helpers.clips import PixelPredictor, bars, write_clip


def recording(path, codes):
    rows = np.random.default_rng(1).uniform(0, 1, (len(codes), 52))
    live_link.write(path, map(LiveLinkRow, codes, rows, np.zeros((len(codes), 9))))
    return path


def frames(file, take):
    """The frames of a file's rows, without any warning."""
    return frames_of(file, read_rows(file), take, pytest.fail)


def test_rows_of_a_file(tmp_path):
    values = arkit.vector({"jawOpen": 0.6, "mouthSmileLeft": 0.25, "mouthPucker": 0.04})
    row = {"image": "t.mp4, frame 2", "frame": 2, "timecode": "00:00:00:01.000", "time": 0.033333, "status": "ok",
           "box": [1, 2.5, 30, 40], "coefficients": arkit.by_name(values),
           "analysis": describe(values).to_dict()}  # fmt: skip
    lost = {"image": "t.mp4, frame 3", "frame": True, "status": "no_face", "reason": "t.mp4, frame 3: no face found."}
    path = tmp_path / "a.jsonl"
    odd = [lost | {"box": box} for box in (["a", 1, 2, 3], [1, 2], 7, [True, 1, 2, 3])]
    path.write_text("\n".join(json.dumps(each) for each in (row, lost, row | {"analysis": None, "box": None}, *odd)))
    good, bad, plain, *strange = read_rows(path)
    assert len(strange) == 4 and all(each.box is None for each in strange)
    assert np.array_equal(good.values, values) and good.reason == ""
    assert (good.frame, good.time, good.timecode) == (2, Fraction("0.033333"), "00:00:00:01.000")
    assert good.box == Box(1, 2.5, 30, 40) and plain.box is None
    assert good.caption == f"{describe(values).expression_category} - jawOpen 0.60, mouthSmileLeft 0.25"
    assert plain.caption == "jawOpen 0.60, mouthSmileLeft 0.25"
    assert (bad.values, bad.reason, bad.caption, bad.frame) == (None, "t.mp4, frame 3: no face found.", "", None)


def test_where_pictures_are_looked_up(tmp_path, monkeypatch):
    here, beside, given = tmp_path / "here", tmp_path / "there", tmp_path / "given"
    for folder in (here / "faces", beside / "faces", given):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    file = beside / "faces.jsonl"
    assert locate("faces/1.png", file, given) is None
    (beside / "faces" / "1.png").touch()
    assert locate("faces/1.png", file, given) == beside / "faces" / "1.png"
    (here / "faces" / "1.png").touch()
    assert locate("faces/1.png", file, given) == Path("faces/1.png")
    (given / "1.png").touch()
    assert locate("faces/1.png", file, given) == given / "1.png"
    assert locate("\0", file, None) is None


@pytest.mark.parametrize(
    ("rate", "counted", "timecode", "start"),
    [
        (30, None, "", Start()),
        (30, None, "10:00:00:28", Start(36000, 28)),
        (24, Fraction(60), "", Start()),
        (24, Fraction(60), "01:00:00:12", Start(3600, 12)),
        (Fraction(30000, 1001), None, "23:59:59:20", Start(86399, 20)),
        (25, None, "", Start()),
        (50, None, "", Start()),
        (15, None, "", Start()),
    ],
)
def test_timecodes_of_predict_match_their_frames(tmp_path, rate, counted, timecode, start):
    clip = write_clip(tmp_path / "a.mov", bars(40), rate=rate, timecode=timecode)
    take = open_take(clip)
    failed = (0, 1, 7, 8, 9, 30)
    clock = Clock(counted or take.timecode_rate, start, take.timecode_rate)
    predict_take(take, tmp_path / "a.csv", PixelPredictor(fails_on=failed), crop="none", clock=clock)
    assert frames(tmp_path / "a.csv", take) == [number + 1 for number in range(40) if number not in failed]


def test_uneven_times_match_their_frames(tmp_path):
    times = [0, 0.033, 0.1, 0.11, 0.25, 0.4, 0.433]
    take = open_take(write_clip(tmp_path / "a.mp4", bars(7), times=times))
    predict_take(take, tmp_path / "a.csv", PixelPredictor(fails_on=(0, 3)), crop="none")
    assert frames(tmp_path / "a.csv", take) == [2, 3, 5, 6, 7]


def test_an_apps_rows_match_the_nearest_frame_or_none(tmp_path):
    take = open_take(write_clip(tmp_path / "a.mov", bars(8), timecode="13:13:04:10"))
    # Rows and frames are slightly offset; the first row precedes the video, one frame has no row.
    ticks = [8.3, 10.3, 11.31, 12.29, 14.3, 15.3, 16.3, 17.3]
    file = recording(tmp_path / "a.csv", [f"13:13:04:{tick:06.3f}" for tick in ticks])
    assert frames(file, take) == [None, 1, 2, 3, 5, 6, 7, 8]


def test_a_video_without_timecode_is_aligned_to_the_first_row_with_a_warning(tmp_path):
    take = open_take(write_clip(tmp_path / "a.mp4", bars(5)))
    file = recording(tmp_path / "a.csv", [f"13:13:04:{frame:02d}.250" for frame in (3, 4, 6, 7)])
    warnings = []
    assert frames_of(file, read_rows(file), take, warnings.append) == [1, 2, 4, 5]
    assert len(warnings) == 1 and "first frame is assumed to be the first row's" in warnings[0]


def test_rows_that_match_no_frame(tmp_path):
    take = open_take(write_clip(tmp_path / "a.mov", bars(5), timecode="13:13:04:10"))
    with pytest.raises(TableError, match="do not overlap"):
        frames(recording(tmp_path / "a.csv", ["17:00:00:00.000", "17:00:00:01.000"]), take)
    with pytest.raises(TableError, match="counts frame 130"):
        frames(recording(tmp_path / "b.csv", ["17:00:00:130.000"]), take)
    tables.write(tmp_path / "c.jsonl", [tables.RowResult("1.png", coefficients=np.zeros(52))])
    with pytest.raises(TableError, match="no row has a frame number or timecode"):
        frames(tmp_path / "c.jsonl", take)


def test_a_bad_row_among_timecodes_matches_no_frame(tmp_path):
    take = open_take(write_clip(tmp_path / "a.mp4", bars(5)))
    file = recording(tmp_path / "a.csv", [f"00:00:00:{frame:02d}.000" for frame in range(4)])
    text = file.read_text().splitlines()
    text[2] = text[2].replace(",61,", ",many,")
    file.write_text("\n".join(text))
    assert frames(file, take) == [1, None, 3, 4]


def test_the_video_that_rows_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip = write_clip(tmp_path / "a.mp4", bars(3))
    predict_take(open_take("a.mp4"), Path("a.jsonl"), PixelPredictor(), crop="none")
    rows = read_rows(Path("a.jsonl"))
    found = find_take(Path("a.jsonl"), rows, None, None)
    assert found.path == Path("a.mp4") and frames(Path("a.jsonl"), found) == [1, 2, 3]
    (tmp_path / "moved").mkdir()
    clip.rename(tmp_path / "moved" / "a.mp4")
    assert find_take(Path("a.jsonl"), rows, None, Path("moved")).path == Path("moved/a.mp4")
    with pytest.raises(VideoError, match=r"a\.mp4: not found\. .* --video a\.mp4"):
        find_take(Path("a.jsonl"), rows, None, None)
    tables.write("b.jsonl", [tables.RowResult("1.png", coefficients=np.zeros(52))])
    assert find_take(Path("b.jsonl"), read_rows(Path("b.jsonl")), None, None) is None
    with pytest.raises(SemanticFaceError, match=r"does not name its video. Give it: --video"):
        file = recording(Path("c.csv"), ["00:00:00:00.000"])
        find_take(file, read_rows(file), None, None)


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(12)])
def test_the_rate_of_a_folder_of_frames_comes_from_its_rows(tmp_path, rate):
    (tmp_path / "frames").mkdir()
    for number, pixels in enumerate(bars(12)):
        Image.fromarray(pixels).save(tmp_path / "frames" / f"{number}.png")
    out = tmp_path / "a.jsonl"
    predict_take(open_take(tmp_path / "frames", rate), out, PixelPredictor(), crop="none")
    assert find_take(out, read_rows(out), None, None).rate == rate
    out.write_text(out.read_text().splitlines()[0])  # a single frame has no rate
    assert find_take(out, read_rows(out), None, None).rate == 30
