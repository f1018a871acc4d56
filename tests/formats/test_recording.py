"""Recordings: every format keeps its numbers, and rows get their times."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest

from semanticface import arkit
from semanticface.errors import TableError
from semanticface.formats import live_link, tables
from semanticface.formats.live_link import LiveLinkRow
from semanticface.formats.recording import RecordedFrame, TimecodeLabels, read, track
from semanticface.formats.timecode_count import BASES
from semanticface.semantics.analysis import describe
from semanticface.semantics.answer import format_answer
from semanticface.vision.timecode import parse


def face(**values):
    return np.array([values.get(name, 0.0) for name in arkit.NAMES])


def write_take(path, timecodes):
    rows = [LiveLinkRow(code, face(jawOpen=n % 100 / 100), np.zeros(9)) for n, code in enumerate(timecodes)]
    live_link.write(path, rows)
    return path


def write_lines(path, *objects):
    path.write_text("".join(json.dumps(found) + "\n" for found in objects))
    return path


def published(text, picture="faces/1.jpg"):
    question = {"role": "user", "content": "<image>Read the face."}
    return {"messages": [question, {"role": "assistant", "content": text}], "images": [picture]}


def test_a_take_keeps_what_the_app_wrote(tmp_path):
    recorded = LiveLinkRow("13:13:04:31.652", face(jawOpen=1.0) * 1.0033, np.linspace(-0.6, 0.6, 9))
    live_link.write(tmp_path / "a.csv", [recorded])
    (frame,) = read(tmp_path / "a.csv")
    assert (frame.timecode, frame.image, frame.status) == ("13:13:04:31.652", "13:13:04:31.652", "ok")
    assert frame.values[arkit.INDEX["jawOpen"]] == 1.0033
    assert np.allclose(frame.pose, np.linspace(-0.6, 0.6, 9), atol=1e-10)
    assert frame.coefficients.max() == 1 and frame.coefficients.dtype == np.float32


def test_rotations_that_were_not_recorded_are_none(tmp_path):
    (frame,) = read(write_take(tmp_path / "a.csv", ["00:00:00:00.000"]))
    assert frame.pose is None and "pose" not in frame.to_dict()


def test_our_own_tables(tmp_path):
    values = face(mouthSmileLeft=0.37, tongueOut=0.1)
    analysis = describe(values.astype(np.float32))
    found = tables.RowResult("a.png", coefficients=values.astype(np.float32), analysis=analysis)
    tables.write(tmp_path / "a.jsonl", [found, tables.RowResult("b.png", "no_face", "b.png: no face found.")])
    good, bad = read(tmp_path / "a.jsonl")
    assert good.values.tolist() == values.tolist() and good.analysis == analysis and good.timecode == ""
    assert (bad.status, bad.reason, bad.values) == ("no_face", "b.png: no face found.", None)
    tables.write(tmp_path / "a.csv", [good, bad])
    again, failed = read(tmp_path / "a.csv")
    assert again.image == "a.png" and again.values.tolist() == values.tolist() and failed.status == "bad_row"


def test_extra_jsonl_keys_are_kept(tmp_path):
    row = {"image": "t, frame 2", "frame": 2, "timecode": "00:00:00:01.000", "time": 0.033333, "status": "ok",
           "box": [1.0, 2.0, 3.0, 4.0], "coefficients": dict.fromkeys(arkit.NAMES, 0.25), "analysis": None}  # fmt: skip
    (frame,) = read(write_lines(tmp_path / "a.jsonl", row))
    assert frame.time == Fraction("0.033333") and frame.to_dict() == row


@pytest.mark.parametrize("spelling", ["ours", "pascal"])
def test_the_published_format(tmp_path, spelling):
    values = face(eyeBlinkLeft=0.4, jawOpen=0.6)
    analysis = describe(values.astype(np.float32))
    if spelling == "ours":
        text = f"```json\n{format_answer(values, analysis)}\n```"
    else:
        named = {arkit.PASCAL_CASE[name]: value for name, value in zip(arkit.NAMES, values.tolist(), strict=True)}
        analysis = None
        text = "1. The jaw is open.\n" + json.dumps(named | dict.fromkeys(arkit.POSE_NAMES, -0.1))
    response = {"response": text, "images": [{"bytes": None, "path": "faces/2.jpg"}]}
    first, second = read(write_lines(tmp_path / "a.jsonl", published(text), response))
    assert (first.image, second.image) == ("faces/1.jpg", "faces/2.jpg")
    for frame in (first, second):
        assert frame.values.tolist() == values.tolist() and frame.analysis == analysis
        assert frame.pose is None if spelling == "ours" else frame.pose.tolist() == [-0.1] * 9


def test_invalid_rows_keep_their_positions(tmp_path):
    good = {"image": "x", "coefficients": dict.fromkeys(arkit.NAMES, 0.5)}
    path = write_lines(
        tmp_path / "a.jsonl",
        good,
        {"messages": [{"role": "user", "content": "hi"}]},
        published('{"arkit":{"jawOpen":1}}'),
        good | {"pose": {"HeadYaw": 1}},
        good | {"timecode": 7},
        good | {"time": -1},
        good | {"coefficients": {**good["coefficients"], "jawOpen": 3}},
        good,
    )
    path.write_text(path.read_text() + "not json\n")
    frames = list(read(path))
    assert [frame.status for frame in frames] == [
        "ok", "no_text", "missing_keys", "bad_row", "bad_row", "bad_row", "bad_row", "ok", "bad_row",
    ]  # fmt: skip
    for frame in frames:
        assert frame.status == "ok" or f"a.jsonl, line {frame.line}" in frame.reason


@pytest.mark.parametrize(
    ("codes", "fps", "rate", "times"),
    [
        (["13:13:04:31.652", "13:13:04:33.651", "13:13:05:01.652"], None, 60, [0, 1.999 / 60, 0.5]),
        (["00:00:00:00.000", "00:00:00:29.000", "00:00:01:00.000"], None, 30, [0, 29 / 30, 1]),
        (["00:00:00:00.000", "00:00:00:20.000", "00:00:01:00.000"], Fraction(25), 25, [0, 0.8, 1]),
        (["00:00:00:00.000", "00:01:00:00.000"], Fraction(30000, 1001), Fraction(30000, 1001), [0, 60.06]),
        (["23:59:59:29.000", "00:00:00:00.000", "00:00:01:00.000"], None, 30, [0, 1 / 30, 31 / 30]),
    ],
)
def test_times_of_timecodes(tmp_path, codes, fps, rate, times):
    found = track(write_take(tmp_path / "a.csv", codes), fps, pytest.fail)
    assert found.rate == rate and np.allclose(found.times, times, atol=1e-12)
    assert np.allclose(found.values[:, arkit.INDEX["jawOpen"]], np.arange(len(codes)) / 100)
    seconds, frame = parse(codes[0])
    assert found.start == seconds * round(rate) + frame


def test_rows_out_of_order_are_skipped_and_reported(tmp_path):
    warnings = []
    codes = ["00:00:00:05.000", "00:00:00:05.000", "00:00:00:04.000", "00:00:00:06.000"]
    found = track(write_take(tmp_path / "a.csv", codes), None, warnings.append)
    assert np.allclose(found.times, [0, 1 / 30]) and found.values[1, arkit.INDEX["jawOpen"]] == np.float32(0.03)
    assert ["row 2" in warnings[0], "row 3" in warnings[1], len(warnings)] == [True, True, 2]


def test_rows_without_times_are_even_and_invalid_ones_leave_gaps(tmp_path):
    good = {"image": "x", "coefficients": dict.fromkeys(arkit.NAMES, 0.5)}
    path = write_lines(tmp_path / "a.jsonl", good, {"image": "y", "status": "no_face", "reason": "y: none"}, good)
    warnings = []
    found = track(path, Fraction(10), warnings.append)
    assert np.allclose(found.times, [0, 0.2]) and found.start == 0 and warnings == ["y: none"]
    timed = write_lines(tmp_path / "b.jsonl", good | {"time": 0.5}, good | {"time": 0.75})
    assert track(timed, None, warnings.append).times.tolist() == [0, 0.25]


def test_invalid_tracks(tmp_path):
    good = {"image": "x", "coefficients": dict.fromkeys(arkit.NAMES, 0.5)}
    mixed = write_lines(tmp_path / "a.jsonl", good | {"timecode": "00:00:00:00.000"}, good)
    with pytest.raises(TableError, match="others do not"):
        track(mixed, None, pytest.fail)
    with pytest.raises(TableError, match="has frame 40, but there are only 30"):
        track(write_take(tmp_path / "a.csv", ["00:00:00:40.000"]), Fraction(30), pytest.fail)
    with pytest.raises(TableError, match="no row with coefficients"):
        track(write_lines(tmp_path / "b.jsonl", {"image": "x"}), None, lambda text: None)


def test_timecodes_are_the_recordings_own_or_valid_in_unreal():
    own = TimecodeLabels(None)
    assert own.label(RecordedFrame(2, "x", timecode="13:13:04:31.652"), 0) == "13:13:04:31.652"
    with pytest.raises(TableError, match="line 3: other rows have a timecode"):
        own.label(RecordedFrame(3, "x"), 1)
    for fps, codes in ((None, ["00.000", "02.000"]), (Fraction(50), ["00.000", "02.400"])):
        labels = TimecodeLabels(fps)
        assert [labels.label(RecordedFrame(2, "x"), row) for row in (0, 2)] == [f"00:00:00:{code}" for code in codes]


def timecodes(count, base, *, start=36_000, drop_frame=False, mark=":"):
    """Timecodes of consecutive frames, counted one by one."""
    second, frame, out = start, 0, []
    for _ in range(count):
        if drop_frame and second % 60 == 0 and second // 60 % 10 and frame == 0:
            frame = base // 15
        out.append(f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}{mark}{frame:02d}.000")
        frame += 1
        if frame == base:
            second, frame = second + 1, 0
    return out


@pytest.mark.parametrize("base", [15, *BASES])
@pytest.mark.parametrize("every", [1, 2])
def test_the_rate_is_inferred_from_the_timecodes(tmp_path, base, every):
    codes = timecodes(60 if base < 50 else 2 * base, base)[::every]
    found = track(write_take(tmp_path / "a.csv", codes), None, pytest.fail)
    assert found.rate == base and found.start == 36_000 * base
    assert np.allclose(found.times, np.arange(len(codes)) * every / base, atol=1e-9)


def test_frames_lost_here_and_there_do_not_change_the_rate(tmp_path):
    codes = timecodes(200, 25)
    kept = [n for n in range(200) if n not in (24, 49, 50, 77, 120)]
    found = track(write_take(tmp_path / "a.csv", [codes[n] for n in kept]), None, pytest.fail)
    assert found.rate == 25 and np.allclose(found.times, np.array(kept) / 25)


@pytest.mark.parametrize(
    ("base", "start", "mark"),
    [(30, 36_000, ";"), (30, 36_059, ";"), (30, 36_059, ":"), (60, 36_059, ":"), (30, 86_399, ";")],
)
def test_drop_frame_timecode(tmp_path, base, start, mark):
    codes = [
        f"{int(code[:2]) % 24:02d}{code[2:]}" for code in timecodes(75, base, start=start, drop_frame=True, mark=mark)
    ]
    found = track(write_take(tmp_path / "a.csv", codes), None, pytest.fail)
    assert found.rate == Fraction(base * 1000, 1001)
    assert np.allclose(found.times, np.arange(75) * 1001 / 1000 / base, atol=1e-9)


def test_no_drop_frame_without_missing_numbers(tmp_path):
    found = track(write_take(tmp_path / "a.csv", timecodes(75, 30, start=36_059)), None, pytest.fail)
    assert found.rate == 30 and np.allclose(np.diff(found.times), 1 / 30)


@pytest.mark.parametrize("base", [24, 25, 30, 60])
@pytest.mark.parametrize("count", [10, 130])
@pytest.mark.parametrize("rounding", [math.floor, round])
def test_milliseconds_behind_the_frame(tmp_path, base, count, rounding):
    """As NeuroSync writes them: 01.016 is the second frame at 60."""
    codes = [
        f"{code[:-3]}{rounding(n % base * 1000 / base):03d}" for n, code in enumerate(timecodes(count, base, start=0))
    ]
    found = track(write_take(tmp_path / "a.csv", codes), None, pytest.fail)
    assert found.rate == base and np.allclose(np.diff(found.times), 1 / base, atol=1e-9)


def test_milliseconds_that_say_more_than_the_frame(tmp_path):
    times = np.cumsum(np.random.default_rng(3).integers(12, 60, 80)) / 1000
    codes = [f"00:00:{int(t):02d}:{int(t % 1 * 60 + 1e-6):02d}.{round(t % 1 * 1000):03d}" for t in times.tolist()]
    found = track(write_take(tmp_path / "a.csv", codes), None, pytest.fail)
    assert found.rate == 60 and np.allclose(found.times, times - times[0], atol=1e-9)


def test_a_lost_face_is_a_gap(tmp_path):
    path = write_take(tmp_path / "a.csv", timecodes(6, 30))
    lines = path.read_text().splitlines()
    lines[3:5] = [",".join([line.split(",")[0], "0", *["0"] * 61]) for line in lines[3:5]]
    path.write_text("\n".join(lines) + "\n")
    notes = []
    found = track(path, None, pytest.fail, notes.append)
    assert np.allclose(found.times * 30, [0, 1, 4, 5]) and found.total == 6 and len(notes) == 1
    frames = list(read(path))
    assert [frame.status for frame in frames] == ["ok", "ok", "no_face", "no_face", "ok", "ok"]
    assert not any(frame.failed for frame in frames) and frames[2].timecode == "10:00:00:02.000"
