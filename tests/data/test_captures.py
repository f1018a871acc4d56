"""Steps of a take import: finding files, pairing rows with frames, selecting frames."""

import stat
import zipfile
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticface import arkit
from semanticface.data.captures import files
from semanticface.data.captures.dataset import split_of
from semanticface.data.captures.files import ArchiveError, find_takes
from semanticface.data.captures.pairing import (
    LoggedFrame,
    TakeRows,
    detect_base,
    pair_rows,
    parse_label,
    read_log,
    read_rows,
)
from semanticface.data.captures.pairing import ticks as count_ticks
from semanticface.data.captures.rows import CaptureSettings
from semanticface.data.captures.take import estimate_rest, select_frames, subtract_rest
from semanticface.errors import TableError
from semanticface.formats import live_link
from semanticface.vision.timecode import timecode_base
from semanticface.vision.video_reader import VideoFile
from tests.helpers.clips import bars, write_clip
from tests.helpers.live_takes import CLOCK, count_sixty, face, row, ticks, timecode, write_take

SLOW = Fraction(30000, 1001)


def labels_of(when, base):
    return tuple(parse_label(timecode(tick, base)) for tick in when)


def rows_at(when, base):
    count = len(when)
    texts = tuple(timecode(tick, base) for tick in when)
    values = np.zeros((count, 52), np.float32)
    return TakeRows(np.arange(count) + 2, texts, labels_of(when, base), values, values[:, :9], (), count)


def test_header_spellings_and_invalid_rows(tmp_path):
    path = tmp_path / "Scene_1_ann.csv"
    when = ticks(6)
    live_link.write(path, [row(n, timecode(tick, 60)) for n, tick in enumerate(when)])
    lines = path.read_text().splitlines()
    lines[0] = lines[0].replace("BlendShapeCount", "BlendshapeCount")
    lines[2] = lines[2].replace("0.0500000000", "much", 1)
    lines[4] = lines[4].replace("13:13:04", "13:13", 1)
    path.write_text("\r\n".join(lines) + "\r\n")
    read = read_rows(path, "the take")
    assert read.lines.tolist() == [2, 4, 6, 7] and read.total == 6
    assert np.allclose(read.coefficients, [face(n) for n in (0, 2, 4, 5)]) and read.coefficients.dtype == np.float32
    assert np.allclose(read.pose[0], np.linspace(-0.1, 0.1, 9)) and read.timecodes[0] == timecode(when[0], 60)
    assert len(read.problems) == 2
    assert "the take, line 3, column 3" in read.problems[0] and "the take, line 5: '13:13:" in read.problems[1]


def test_tables_that_are_not_takes(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("image," + ",".join(arkit.NAMES) + "\na.png" + ",0.5" * 52 + "\n")
    with pytest.raises(TableError, match="the take: not a Live Link Face CSV"):
        read_rows(path, "the take")
    path.write_text(live_link.HEADER + "\n")
    with pytest.raises(TableError, match="no usable row"):
        read_rows(path, "the take")
    path.write_text("Timecode,Blend\n1,2\n")
    with pytest.raises(TableError, match="the take, line 1: the header starts"):
        read_rows(path, "the take")


@pytest.mark.parametrize("base", [24, 25, 30, 48, 50, 60, 100, 120])
def test_detecting_the_frames_per_second_of_timecodes(base):
    when = ticks(3 * base, base=base, rate=base, phase=0)
    assert detect_base(labels_of(when, base), Fraction(24)) == base
    if base in (50, 60, 100, 120):  # every other frame, so that FF alone does not reveal the base
        assert detect_base(labels_of(when[base::2], base), Fraction(24)) == base


def test_few_timecodes_fall_back_to_the_video_rate():
    few = labels_of(ticks(3, base=60, rate=60, phase=0), 60)
    assert detect_base(few, Fraction(25)) == 25 and detect_base(few, Fraction(60000, 1001)) == 60
    assert detect_base(labels_of([CLOCK * 60 + 45_000], 60), Fraction(30)) == 60
    with pytest.raises(TableError, match="counts frame 130"):
        detect_base([parse_label("00:00:00:130.000")], Fraction(30))


def test_midnight():
    when = ticks(90, base=30, rate=30, clock=(24 * 3600 - 1) * 1000)
    labels = tuple(parse_label(timecode(tick, 30).replace("24:00", "00:00", 1)) for tick in when)
    assert count_ticks(labels, 30).tolist() == when


@pytest.mark.parametrize("text", ["13:13:04", "25:00:00:00", "13:61:00:00", "13:13:04:5", "a", "13:13:04:05.1234"])
def test_invalid_timecodes(text):
    assert parse_label(text) is None


CAMERAS = [(60, 30), (60, 60), (30, 30), (30, SLOW), (25, 25), (60, Fraction(60000, 1001))]


@settings(max_examples=60)
@given(st.data())
def test_dropped_rows_and_frames_do_not_shift_the_others(data):
    base, rate = data.draw(st.sampled_from(CAMERAS))
    phase = data.draw(st.integers(0, 999))
    count = data.draw(st.integers(20, 120))
    taken = st.sets(st.integers(0, count - 1), max_size=count // 3)
    lost_rows, lost_frames = data.draw(taken), data.draw(taken)
    rows = [n for n in range(count) if n not in lost_rows]
    # The first frames are complete, so that their median distance is the camera's.
    frames = [n for n in range(count) if n < 8 or n not in lost_frames]
    when = ticks(count, base=base, rate=rate, phase=phase)
    times = [(n - frames[0]) / Fraction(rate) for n in frames]
    start = timecode(when[frames[0]] * round(rate) // base, round(rate)).partition(".")[0]
    expected = [frames.index(n) if n in frames else -1 for n in rows]
    found = pair_rows(rows_at([when[n] for n in rows], base), times, Fraction(rate), start=start)
    assert found.source == "timecode of the video" and found.frames.tolist() == expected and not found.warning
    assert np.nanmax(np.abs(found.offset_ms)) < 3
    logged = [LoggedFrame(parse_label(timecode(when[n], base)), False) for n in frames]
    found = pair_rows(rows_at([when[n] for n in rows], base), times, Fraction(rate), log=logged)
    assert found.source == "frame log" and found.frames.tolist() == expected
    # A log in whole frames pairs the same rows.
    whole = [LoggedFrame(parse_label(timecode(when[n] // 1000 * 1000, base)), False) for n in frames]
    found = pair_rows(rows_at([when[n] for n in rows], base), times, Fraction(rate), log=whole)
    assert found.frames.tolist() == expected


def test_ntsc_rates_are_detected_over_minutes():
    """A video declared as 30 whose frames match the timecodes only at 29.97, and the reverse."""
    when = ticks(7200, base=30, rate=30)
    rows = rows_at(when, 30)
    for frames, declared in ((SLOW, Fraction(30)), (Fraction(30), SLOW)):
        found = pair_rows(rows, [n / frames for n in range(7200)], declared, start="13:13:04:00")
        assert found.frames.tolist() == list(range(7200)) and found.rate == frames


def test_a_video_that_starts_earlier_and_ends_earlier():
    when = ticks(60)
    found = pair_rows(rows_at(when[10:], 60), [Fraction(n, 30) for n in range(40)], Fraction(30), start="13:13:04:00")
    assert found.frames.tolist() == [*range(10, 40), *[-1] * 20]


@pytest.mark.parametrize("rate", [24, 25, 30, 50, 60, SLOW])
def test_base_of_a_timecode_track(tmp_path, rate):
    clip = write_clip(tmp_path / "x.mov", bars(3), rate=rate, timecode="13:13:04:15")
    assert timecode_base(clip) == round(rate)
    data = clip.read_bytes()
    for length in (0, 4, 30, len(data) // 2, len(data) - 10):
        (tmp_path / "cut.mov").write_bytes(data[:length])
        assert timecode_base(tmp_path / "cut.mov") in (None, round(rate))


def test_videos_without_a_timecode_track(tmp_path):
    assert timecode_base(write_clip(tmp_path / "x.mov", bars(3))) is None
    assert timecode_base(write_clip(tmp_path / "x.mkv", bars(3), timecode="13:13:04:15")) is None
    assert timecode_base(tmp_path / "gone.mov") is None


@given(st.binary(max_size=200))
def test_arbitrary_bytes_instead_of_the_index(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("x") / "x.mov"
    path.write_bytes(len(data).to_bytes(4, "big") + b"moov" + data)
    assert timecode_base(path) in (None, *range(1, 256))


def test_a_timecode_base_of_twice_the_video_rate(tmp_path):
    count_sixty(write_clip(tmp_path / "x.mov", bars(20), rate=30, timecode="13:13:04:15"))
    take = VideoFile(tmp_path / "x.mov")
    assert (take.rate, take.timecode, timecode_base(take.path)) == (30, "13:13:04:30", 60)
    rows = rows_at(ticks(60), 60)
    times = [Fraction(n, 30) for n in range(20)]
    found = pair_rows(rows, times, take.rate, start=take.timecode, start_base=timecode_base(take.path))
    assert found.frames.tolist() == [*[-1] * 15, *range(20), *[-1] * 25] and found.source == "timecode of the video"


def test_midnight_between_the_first_frame_and_the_first_row():
    when = [tick % (24 * 3600 * 30_000) for tick in ticks(60, base=30, clock=(24 * 3600 - 1) * 1000)]
    frames = [Fraction(n, 30) for n in range(60)]
    found = pair_rows(rows_at(when[40:], 30), frames, Fraction(30), start="23:59:59:00")
    assert found.frames.tolist() == list(range(40, 60))
    log = [LoggedFrame(parse_label(timecode(tick, 30)), False) for tick in when]
    assert pair_rows(rows_at(when[40:], 30), frames, Fraction(30), log=log).frames.tolist() == list(range(40, 60))
    found = pair_rows(rows_at(when, 30), frames[:20], Fraction(30), log=log[40:])
    assert found.frames.tolist() == [*[-1] * 40, *range(20)]


def test_two_rows_to_a_frame_and_rows_twice():
    when = ticks(40, base=60, rate=60, phase=0)
    found = pair_rows(rows_at(when, 60), [Fraction(n, 30) for n in range(20)], Fraction(30), start="13:13:04:00")
    assert found.frames[::2].tolist() == list(range(20)) and (found.frames[1::2] == -1).all()
    twice = [when[0], when[2], when[2], when[4]]
    found = pair_rows(rows_at(twice, 60), [Fraction(n, 30) for n in range(3)], Fraction(30), start="13:13:04:00")
    assert found.frames.tolist() == [0, 1, -1, 2]


def test_without_timecode_the_first_row_is_the_first_frame():
    found = pair_rows(rows_at(ticks(5), 60), [Fraction(n, 30) for n in range(5)], Fraction(30))
    assert found.frames.tolist() == list(range(5)) and found.source == "first row"
    assert "paired with the first row" in found.warning
    found = pair_rows(rows_at(ticks(5), 60), [Fraction(n, 30) for n in range(5)], Fraction(30), start="13:13:04:77")
    assert found.source == "first row" and "13:13:04:77 cannot be read" in found.warning


def test_drop_frame_timecode_warns():
    found = pair_rows(rows_at(ticks(5), 60), [Fraction(n, 30) for n in range(5)], Fraction(30), start="13:13:04;00")
    assert found.frames.tolist() == list(range(5)) and "drop-frame" in found.warning


def test_a_video_without_overlap():
    found = pair_rows(rows_at(ticks(5), 60), [Fraction(n, 30) for n in range(5)], Fraction(30), start="14:13:04:00")
    assert (found.frames == -1).all() and "do not overlap" in found.warning


def test_the_frame_log(tmp_path):
    path = tmp_path / "frame_log.csv"
    path.write_text(
        "A,0,0,600,13:13:04:00.1\nV,0,0,600,13:13:04:00.652,0\nD,0,0,600,13:13:04:00.1,0\nV,1,20,600,13:13:04:02.652,1\n"
        "V,2,40,600,13:13:04:04.652\n"
    )
    frames, problem = read_log(path, "the log")
    assert [frame.dropped for frame in frames] == [False, True, False] and not problem
    assert frames[1].label.frame == 2652
    for broken in ("V,4,60,600,13:13:04:06.652", "V,2,60,600,now", "V,2", "V,2\xff"):
        path.write_bytes(b"V,0,0,600,13:13:04:00.652\nV,1,0,600,13:13:04:02.652\n" + broken.encode("latin-1"))
        frames, problem = read_log(path, "the log")
        assert len(frames) == 2 and problem.startswith("the log, line 3: expected video frame 2")
    path.write_text("V,0,0,600,13:13:04:00.652\nV,5,0,600,13:13:04:02.652\n")
    frames, problem = read_log(path, "the log")
    assert len(frames) == 1 and problem.startswith("the log, line 2: expected video frame 1")
    path.write_text("")
    assert read_log(path, "the log")[1].startswith("the log: the file is empty")


def select(faces, rest, **settings):
    return select_frames(faces, rest, CaptureSettings(**settings))


def test_neutral_and_duplicate_frames():
    faces = np.zeros((12, 52), np.float32)
    jaw = arkit.INDEX["jawOpen"]
    faces[:, jaw] = [0.0, 0.05, 0.5, 0.55, 0.5, 0.7, 0.02, 0.03, 0.0, 0.5, 0.05, 0.0]
    statuses = select(faces, np.zeros(52), neutral=0.1, keep_neutral=2, apart=0.1)
    rested, again = "near neutral", "near duplicate"
    assert statuses == ["kept", rested, "kept", again, again, "kept", rested, rested, rested, again, rested, "kept"]
    assert select(faces, np.zeros(52), neutral=0.0, keep_neutral=0, apart=0.0) == ["kept"] * 12
    assert select(faces[:0], np.zeros(52), neutral=0.1, keep_neutral=2, apart=0.1) == []


@given(st.integers(0, 10**6))
def test_kept_frames_are_apart_and_dropped_ones_are_near_a_kept_one(seed):
    rng = np.random.default_rng(seed)
    faces = rng.uniform(0, 1, (4, 52))[rng.integers(0, 4, 30)] + rng.uniform(0, 0.1, (30, 52))
    statuses = select(faces.astype(np.float32), np.full(52, -1.0), neutral=0.0, keep_neutral=0, apart=0.08)
    kept = faces[[status == "kept" for status in statuses]].astype(np.float32)
    apart = np.abs(kept[:, None] - kept[None]).max(axis=2)
    assert apart[~np.eye(len(kept), dtype=bool)].min(initial=1.0) >= 0.08
    for each, status in zip(faces.astype(np.float32), statuses, strict=True):
        assert status == "kept" or np.abs(kept - each).max(axis=1).min() < 0.08


def test_subtracting_rest_leaves_the_eyes_unchanged():
    rng = np.random.default_rng(0)
    resting = np.full(52, 0.2, np.float32)
    faces = np.clip(resting + (rng.random((400, 52)) < 0.2) * rng.uniform(0, 0.8, (400, 52)), 0, 1).astype(np.float32)
    rest = estimate_rest(faces)
    assert np.allclose(rest, 0.2)
    off = subtract_rest(faces, rest)
    eyes = [action.index for action in arkit.ACTIONS if action.region in ("eyes", "gaze")]
    others = [action.index for action in arkit.ACTIONS if action.region not in ("eyes", "gaze")]
    assert np.array_equal(off[:, eyes], faces[:, eyes]) and len(eyes) == 14
    assert np.allclose(off[:, others], (faces[:, others] - 0.2) / 0.8, atol=1e-6)
    assert np.allclose(subtract_rest(np.ones((1, 52), np.float32), np.full(52, 0.95)), 1)
    assert np.array_equal(subtract_rest(faces, np.zeros(52, np.float32)), faces)


def test_a_person_is_in_one_split_and_shares_are_kept():
    splits = {"train": 8.0, "validation": 1.0, "test": 1.0}
    people = [split_of(f"person {n}", splits) for n in range(2000)]
    assert 0.77 < people.count("train") / 2000 < 0.83 and 0.08 < people.count("test") / 2000 < 0.12
    assert split_of("ann", splits) == split_of("ann", dict(splits)) and split_of("ann", {"test": 0.1}) == "test"


def zipped(path, folder):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


def test_takes_in_folders_of_folders_and_archives(tmp_path):
    root = tmp_path / "takes"
    write_take(root / "day 1" / "20260314_Scene_1", "Scene_1_iPhone", count=2, subject="Ann's iPhone", says="log")
    write_take(root / "day 1" / "20260314_Scene_2", "Scene_2_ben", count=2)
    zipped(root / "more.zip", write_take(tmp_path / "Other_3", "Other_3_cem", count=2))
    (root / "notes.csv").write_text("a,b\n")
    (root / ".hidden.csv").write_text("Timecode\n")
    takes, problems = find_takes(root, tmp_path / "scratch")
    assert not problems
    by = {take.name: take for take in takes}
    subjects = {name: take.subject for name, take in by.items()}
    assert subjects == {"Scene_1_iPhone": "Ann's iPhone", "Scene_2_ben": "ben", "Other_3_cem": "cem"}
    assert all(take.video is not None for take in takes)
    assert by["Scene_1_iPhone"].log is not None and by["Scene_2_ben"].log is None
    with by["Other_3_cem"].table.on_disk(tmp_path / "scratch") as path:
        assert read_rows(path, "x").total == 2
    assert not path.exists() and not any((tmp_path / "scratch").iterdir())
    (one,), problems = find_takes(root / "day 1" / "20260314_Scene_1" / "Scene_1_iPhone.csv", tmp_path / "scratch")
    assert (one.subject, one.log is None, one.video is None) == ("Ann's iPhone", False, False) and not problems


def test_a_calibrated_take_has_three_tables(tmp_path):
    folder = write_take(tmp_path / "t", "Scene_1_ann", count=2)
    for part in ("raw", "neutral"):
        (folder / f"Scene_1_ann_{part}.csv").write_bytes((folder / "Scene_1_ann.csv").read_bytes())
    (folder / "Scene_1_ann.csv").rename(folder / "Scene_1_ann_cal.csv")
    (take,), problems = find_takes(folder, tmp_path / "scratch")
    assert (take.name, take.subject, not problems) == ("Scene_1_ann", "ann", True)
    for file, end in ((take.table, "_cal.csv"), (take.raw, "_raw.csv"), (take.neutral, "_neutral.csv")):
        assert file.name.endswith(end)
    assert take.video.name == "Scene_1_ann.mov"


def test_missing_files_are_named(tmp_path):
    folder = write_take(tmp_path / "t", "Scene_1_ann", count=2)
    (folder / "Scene_1_ann.csv").rename(tmp_path / "lone.csv")
    (problem,) = find_takes(folder, tmp_path)[1]
    assert "the CSV of this video is missing" in problem and "semanticface predict " in problem
    (folder / "take.json").write_text('{"subject": "Ann", "captureMode": "metahuman"}')
    (problem,) = find_takes(folder, tmp_path)[1]
    assert "a MetaHuman Animator take has no ARKit coefficients; semanticface predict " in problem
    assert "again" not in problem
    (folder / "take.json").unlink()
    (lone,), problems = find_takes(tmp_path / "lone.csv", tmp_path)
    assert lone.video is None and lone.subject == "" and not problems
    (tmp_path / "empty").mkdir()
    assert "no Live Link Face take in it" in find_takes(tmp_path / "empty", tmp_path)[1][0]
    assert "no such file or folder" in find_takes(tmp_path / "gone", tmp_path)[1][0]


@pytest.mark.parametrize("name", ["../evil.csv", "/evil.csv", "a/../../evil.csv", "..\\evil.csv", "C:\\evil.csv"])
def test_an_archive_with_paths_outside_it(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), "Timecode\n")
    takes, (problem,) = find_takes(tmp_path / "bad.zip", tmp_path / "scratch")
    assert not takes and "a path outside the archive" in problem
    assert [path.name for path in tmp_path.iterdir()] == ["bad.zip"]


def test_malicious_archives(tmp_path, monkeypatch):
    def problem():
        takes, (found,) = find_takes(tmp_path / "bad.zip", tmp_path / "scratch")
        assert not takes
        return found

    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        link = zipfile.ZipInfo("link.csv")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert "contains the link" in problem()
    with zipfile.ZipFile(tmp_path / "bad.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", b"0" * 10_000_000)
    assert "more than any take" in problem()
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("a.csv", "Timecode")
    data = (tmp_path / "bad.zip").read_bytes()
    central = data.index(b"PK\x01\x02")
    (tmp_path / "bad.zip").write_bytes(data[: central + 8] + b"\x01" + data[central + 9 :])
    assert "encrypted" in problem()
    (tmp_path / "bad.zip").write_bytes(data[:-30])
    assert "not a ZIP that can be read" in problem()
    (tmp_path / "bad.zip").write_bytes(data.replace(b"Timecode", b"Timec\x00de"))
    assert "cannot be unpacked" in problem()
    (tmp_path / "bad.zip").write_bytes(data)
    monkeypatch.setattr(files, "MAX_FILES", 0)
    assert "more than 0 files" in problem()


def test_a_member_larger_than_declared(tmp_path):
    write_take(tmp_path / "t", count=2)
    (take,), _ = find_takes(zipped(tmp_path / "t.zip", tmp_path / "t"), tmp_path / "scratch")
    lying = files.Stored(take.table.path, take.table.member, take.table.size - 1)
    with pytest.raises(ArchiveError, match="larger than the archive says"), lying.on_disk(tmp_path / "scratch"):
        pass
    assert not any((tmp_path / "scratch").iterdir())
