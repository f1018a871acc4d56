"""Whole takes: the tables, the report of frames without an answer, and resuming without changing a byte."""

import csv
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semanticface import arkit
from semanticface.cli.main import main
from semanticface.errors import SemanticFaceError, VideoError
from semanticface.formats import tables
from semanticface.inference.predictor import Predictor
from semanticface.inference.video import FrameAnswer, PartialFile, predict_take
from semanticface.rendering import render
from semanticface.utils import prefetch
from semanticface.utils.one_euro import DEFAULTS, coefficient_filter
from semanticface.vision.crop import Box
from semanticface.vision.timecode import Clock, Start
from semanticface.vision.video_reader import open_take
from tests.helpers.clips import PixelPredictor, bars, damage, write_clip

WHOLE = {"crop": "none", "batch_size": 4}


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """A video of a head that moves and opens its jaw; frames 11 and 12 show none."""
    frames = []
    for number in range(22):
        drawn = render(arkit.vector({"jawOpen": number / 22}), style="photo", subject=11, size=128).image
        canvas = np.full((160, 256, 3), 80, np.uint8)
        if number not in (10, 11):
            canvas[10:138, 4 * number : 4 * number + 128] = drawn
        frames.append(canvas)
    return write_clip(tmp_path_factory.mktemp("heads") / "heads.mp4", frames, options={"crf": "12"})


def rows_of(path):
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == arkit.LIVE_LINK_COLUMNS
    return rows


def test_a_live_link_recording(tmp_path):
    path = write_clip(tmp_path / "a.mp4", bars(10))
    out = tmp_path / "Scene_1_Ann.csv"
    report = predict_take(open_take(path), out, PixelPredictor(), clock=Clock(Fraction(30), Start(36000, 28)), **WHOLE)
    assert (report.frames, report.failed, report.remarks, report.shortfall) == (10, 0, [], "")
    rows = rows_of(out)
    assert [row[0] for row in rows][:3] == ["10:00:00:28.000", "10:00:00:29.000", "10:00:01:00.000"]
    assert all(len(row) == 63 and row[1] == "61" and row[54:] == ["0.0000000000"] * 9 for row in rows)
    read = list(tables.read_coefficients(out))
    assert len(read) == 10 and not any(row.error for row in read)
    assert not np.array_equal(read[0].coefficients, read[9].coefficients)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".partial"] == []


def test_a_row_for_every_frame_in_jsonl(tmp_path):
    path = write_clip(tmp_path / "a.mp4", bars(6))
    out = tmp_path / "take.jsonl"
    report = predict_take(open_take(path), out, PixelPredictor(fails_on=(2,)), **WHOLE)
    assert report.failed == 1
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["frame"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["timecode"] for row in rows] == [f"00:00:00:0{n}.000" for n in range(6)]
    assert [row["time"] for row in rows] == pytest.approx([n / 30 for n in range(6)], abs=1e-6)
    assert [row["status"] for row in rows] == ["ok", "ok", "model_failed", "ok", "ok", "ok"]
    assert rows[2]["reason"] == f"{path}, frame 3: the model failed: no reason" == report.remarks[0]
    assert list(rows[0]["coefficients"]) == list(arkit.NAMES) and rows[0]["analysis"]
    read = list(tables.read_coefficients(out))
    assert [bool(row.error) for row in read] == [False, False, True, False, False, False]
    assert read[0].analysis is not None and read[0].label == f"{path}, frame 1"


def test_frames_without_an_answer_leave_gaps_and_are_reported(tmp_path, heads):
    out = tmp_path / "take.csv"
    report = predict_take(open_take(heads), out, PixelPredictor(fails_on=(0,)), batch_size=4)
    assert (report.frames, report.failed) == (22, 3)
    frames = [int(row[0].split(":")[3].split(".")[0]) for row in rows_of(out)]
    assert frames == [n for n in range(22) if n not in (0, 10, 11)]
    assert report.remarks[0] == f"{heads}, frame 1: the model failed: no reason"
    assert report.remarks[1].startswith(f"{heads}, frames 11 to 12: no face found.")


def test_a_damaged_frame_shifts_nothing(tmp_path):
    path = damage(write_clip(tmp_path / "a.mp4", bars(30), options={"g": "5", "bf": "0", "sc_threshold": "0"}), 12)
    whole = write_clip(tmp_path / "b.mp4", bars(30), options={"g": "5", "bf": "0", "sc_threshold": "0"})
    for source in (path, whole):
        predict_take(open_take(source), source.with_suffix(".csv"), PixelPredictor(), **WHOLE)
    damaged = {row[0]: row for row in rows_of(path.with_suffix(".csv"))}
    intact = {row[0]: row for row in rows_of(whole.with_suffix(".csv"))}
    lost = set(intact) - set(damaged)
    assert "00:00:00:12.000" in lost and len(lost) <= 5
    for timecode, row in damaged.items():
        if not "00:00:00:12" <= timecode < "00:00:00:15":
            assert row == intact[timecode]


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, heads):
    batches = 3
    expected, out = tmp_path / "expected.jsonl", tmp_path / "take.jsonl"
    predict_take(open_take(heads), expected, PixelPredictor(), batch_size=4)
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from pathlib import Path\nfrom tests.helpers.clips import PixelPredictor\n"
        "from semanticface.inference.video import FrameAnswer, PartialFile, predict_take\n"
        "from semanticface.vision.video_reader import open_take\n"
        f"model = PixelPredictor(kill_after={batches})\n"
        f"predict_take(open_take({str(heads)!r}), Path({str(out)!r}), model, batch_size=4)"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert not out.exists()
    partial = out.with_name(out.name + ".partial")
    assert len(partial.read_bytes().splitlines()) == 1 + 4 * batches
    again = PixelPredictor()
    predict_take(open_take(heads), out, again, batch_size=4)
    assert out.read_bytes() == expected.read_bytes()
    assert not partial.exists()
    # 20 frames show a face; those predicted before the kill are not predicted again.
    assert sum(again.batches) == 20 - 10


@pytest.mark.parametrize("torn", ["", '{"frame": 9, "ti', '{"frame": 7}\n', "\x00\x00\n"])
def test_a_torn_partial_file_resumes_at_its_last_whole_batch(tmp_path, torn):
    path, out = write_clip(tmp_path / "a.mp4", bars(12)), tmp_path / "take.csv"
    predict_take(open_take(path), tmp_path / "whole.csv", PixelPredictor(), **WHOLE)
    partial = tmp_path / "take.csv.partial"

    class Stop(PixelPredictor):
        def stream(self, pictures, **options):
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().stream(pictures, **options)

    with pytest.raises(KeyboardInterrupt):
        predict_take(open_take(path), out, Stop(), **WHOLE)
    assert partial.exists() and not out.exists()
    with partial.open("a") as file:
        file.write(torn)
    again = PixelPredictor()
    predict_take(open_take(path), out, again, **WHOLE)
    assert again.batches == [4]
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_partial_file_of_another_run_is_rejected_and_kept(tmp_path):
    path, other = write_clip(tmp_path / "a.mp4", bars(8)), write_clip(tmp_path / "b.mp4", bars(9))
    out = tmp_path / "take.csv"

    class Stop(PixelPredictor):
        def stream(self, pictures, **options):
            if self.batches:
                raise KeyboardInterrupt
            return super().stream(pictures, **options)

    with pytest.raises(KeyboardInterrupt):
        predict_take(open_take(path), out, Stop(), settings={"model": "one"}, **WHOLE)
    before = (tmp_path / "take.csv.partial").read_bytes()
    for source, crop, model in ((other, "none", "one"), (path, Box(0, 0, 9, 9), "one"), (path, "none", "two")):
        with pytest.raises(SemanticFaceError, match=r"take\.csv\.partial: started with another take, model or other"):
            predict_take(open_take(source), out, PixelPredictor(), crop=crop, batch_size=4, settings={"model": model})
    assert (tmp_path / "take.csv.partial").read_bytes() == before
    # Smoothing and timecodes are applied at the end, so they may change.
    predict_take(open_take(path), out, PixelPredictor(), smoothing=DEFAULTS, settings={"model": "one"}, **WHOLE)
    assert len(rows_of(out)) == 8


def test_intervals_are_restored_and_written(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.random(52).astype(np.float32)
    interval = np.sort(rng.integers(0, 101, (52, 2)) / 100, axis=1).astype(np.float32)
    given = [
        FrameAnswer("a", coefficients=values, frame=1, interval=interval, calibrated=True),
        FrameAnswer("b", "no_face", "b: no face", frame=2, time=Fraction(1, 3)),
    ]
    with PartialFile(tmp_path / "x.partial", {}, 2) as partial:
        partial.append([(answer, None) for answer in given])
    first, second = PartialFile(tmp_path / "x.partial", {}, 2)
    np.testing.assert_array_equal(first.interval, interval)
    assert first.calibrated is True
    as_dict = first.to_dict()
    assert list(as_dict)[-3:] == ["interval", "calibrated", "analysis"]
    assert as_dict["interval"] == {name: np.round(pair.astype(float), 2).tolist()
                                for name, pair in zip(arkit.NAMES, interval, strict=True)}  # fmt: skip
    assert second.interval is None
    assert "interval" not in second.to_dict()
    assert "calibrated" not in second.to_dict()


def test_smoothing_is_of_the_numbers_at_their_true_times(tmp_path):
    times = [0.0, 0.03, 0.07, 0.1, 0.9, 0.93]
    path = write_clip(tmp_path / "a.mp4", bars(6), times=times)
    plain, smooth = tmp_path / "plain.csv", tmp_path / "smooth.csv"
    predict_take(open_take(path), plain, PixelPredictor(), **WHOLE)
    predict_take(open_take(path), smooth, PixelPredictor(), smoothing=DEFAULTS, **WHOLE)
    smoother = coefficient_filter(DEFAULTS)
    for time, before, after in zip(times, rows_of(plain), rows_of(smooth), strict=True):
        expected = smoother.step(np.array(before[2:54], float), time)
        assert np.array(after[2:54], float) == pytest.approx(expected, abs=1e-9)
        assert before[0] == after[0]
    with pytest.raises(ValueError, match="only the numbers of a CSV"):
        predict_take(open_take(path), tmp_path / "x.jsonl", PixelPredictor(), smoothing=DEFAULTS)


def test_a_take_without_faces_writes_nothing(tmp_path):
    path = write_clip(tmp_path / "a.mp4", bars(5))
    with pytest.raises(VideoError, match=r"a\.mp4: no frame has an answer\. .*frames 1 to 5: no face found"):
        predict_take(open_take(path), tmp_path / "take.csv", PixelPredictor())
    assert [item.name for item in tmp_path.iterdir()] == ["a.mp4"]


def test_remarks_are_few_however_many_frames_fail(tmp_path):
    path = write_clip(tmp_path / "a.mp4", bars(60))
    report = predict_take(open_take(path), tmp_path / "t.csv", PixelPredictor(fails_on=tuple(range(0, 60, 2))), **WHOLE)
    assert report.failed == 30
    assert len(report.remarks) == 21 and "10 more" in report.remarks[-1]


def test_prefetch_keeps_order_raises_in_place_and_stops():
    assert list(prefetch.prefetch(range(100), 3)) == list(range(100))

    def failing():
        yield 1
        raise VideoError("broken")

    items = prefetch.prefetch(failing(), 3)
    assert next(items) == 1
    with pytest.raises(VideoError, match="broken"):
        next(items)
    made = []
    endless = prefetch.prefetch((made.append(n) or n for n in iter(int, 1)), 2)
    assert [next(endless) for _ in range(3)] == [0, 0, 0]
    endless.close()
    assert len(made) <= 7


# The command.


@pytest.fixture
def fast_model(monkeypatch):
    """The command with a model that answers immediately."""
    loads = []

    def loaded(*arguments, **options):
        loads.append((arguments, options))
        return PixelPredictor()

    monkeypatch.setattr(Predictor, "from_pretrained", loaded)
    return loads


def run(capsys, *arguments):
    code = main(["predict", *map(str, arguments)])
    return code, capsys.readouterr().err


def test_the_command_on_a_video(capsys, fast_model, tmp_path):
    path = write_clip(tmp_path / "a.mp4", bars(6), rate=25, timecode="10:00:00:24")
    out = tmp_path / "a.csv"
    code, printed = run(capsys, path, "--no-crop", "--out", out)
    assert code == 0
    assert f"{out}: 6 rows of 6 frames, 0 failed" in printed
    assert "Unreal Engine needs 30 or 60" in printed
    assert [row[0] for row in rows_of(out)][:2] == ["10:00:00:24.000", "10:00:01:00.000"]
    code, printed = run(capsys, path, "--no-crop", "--out", out, "--fps", "60", "--start", "00:00:10:00", "--smooth")
    assert code == 0 and "Unreal" not in printed
    assert [row[0] for row in rows_of(out)][:3] == ["00:00:10:00.000", "00:00:10:02.400", "00:00:10:04.800"]
    code, printed = run(capsys, path, "--box", "0,0,9,9", "--out", out, "--smooth-region", "jaw=off", "--mode", "full")
    assert code == 0
    run(capsys, path, "--no-crop", "--out", tmp_path / "a.jsonl")
    assert [options["mode"] for _, options in fast_model] == ["numbers", "numbers", "full", "full"]


def test_the_command_on_a_folder_of_frames(capsys, fast_model, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, pixels in enumerate(bars(11)):
        Image.fromarray(pixels).save(folder / f"f{number}.png")
    (folder / "f4.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    out = tmp_path / "take.csv"
    code, printed = run(capsys, folder, "--fps", "15", "--no-crop", "--out", out)
    assert code == 1
    assert "f4.png: a damaged" in printed and "10 rows of 11 frames, 1 failed" in printed
    kept = [n for n in range(11) if n != 4]
    assert [row[0] for row in rows_of(out)] == [f"00:00:00:{2 * n:02d}.000" for n in kept]


def test_a_truncated_video_fails_but_keeps_its_frames(capsys, fast_model, tmp_path):
    path = write_clip(tmp_path / "a.mkv", bars(40), options={"g": "5"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    code, printed = run(capsys, path, "--no-crop", "--out", tmp_path / "a.csv")
    assert code == 1 and "the video is truncated" in printed and len(rows_of(tmp_path / "a.csv")) > 5


def test_odd_timecodes_are_reported(capsys, fast_model, tmp_path):
    path = write_clip(tmp_path / "a.mkv", bars(2), rate=Fraction(30000, 1001), timecode="10:00:00;02")
    _, printed = run(capsys, path, "--no-crop", "--out", tmp_path / "a.csv")
    assert "drop-frame" in printed and rows_of(tmp_path / "a.csv")[0][0] == "10:00:00:02.000"
    path = write_clip(tmp_path / "b.mkv", bars(2), timecode="10:00:00:77")
    code, printed = run(capsys, path, "--no-crop", "--out", tmp_path / "b.csv")
    assert code == 0 and "not used" in printed and rows_of(tmp_path / "b.csv")[0][0] == "00:00:00:00.000"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["CLIP"], "--out take.csv"),
        (["CLIP", "CLIP", "--out", "x.csv"], "a command of its own"),
        (["CLIP", "--out", "x.txt"], "Use the suffix .jsonl or .csv"),
        (["CLIP", "--out", "x.jsonl", "--smooth"], "--smooth is for a Live Link CSV"),
        (["CLIP", "--out", "x.csv", "--report", "x.html"], "--report is for pictures"),
        (["CLIP", "--out", "x.csv", "--temperature", "1"], "--temperature is for pictures"),
        (["CLIP", "--out", "x.csv", "--start", "1:2"], "Write HH:MM:SS:FF"),
        (["CLIP", "--out", "x.csv", "--fps", "15"], "timecodes count 23.976, 24, 25"),
        (["face.png", "--fps", "30"], "--fps is for a video or a folder"),
        (["face.png", "--smooth-region", "jaw=off"], "--smooth is for a video or a folder"),
        (["gone.mp4", "--out", "x.csv"], "gone.mp4: No such file"),
    ],
)
def test_options_that_do_not_apply(capsys, fast_model, tmp_path, arguments, word):
    clip = write_clip(tmp_path / "a.mp4", bars(2))
    code, printed = run(capsys, *[clip if argument == "CLIP" else argument for argument in arguments])
    assert code == 2 and word in printed
    assert not fast_model  # rejected before a model is loaded


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--fps", "fast"], "'fast' is not a frame rate from 1 to 1000"),
        (["--smooth-region", "ears=1,1"], "'ears' is no region: brows, eyes"),
        (["--smooth-region", "jaw=0,1"], "give a cutoff above 0"),
        (["--smooth-region", "jaw"], "jaw=off"),
    ],
)
def test_usage_errors(capsys, arguments, word):
    with pytest.raises(SystemExit) as stopped:
        main(["predict", "a.mp4", *arguments])
    assert stopped.value.code == 2
    assert word in capsys.readouterr().err


def test_an_interrupt_says_how_to_resume(capsys, monkeypatch, tmp_path):
    class Stop(PixelPredictor):
        def stream(self, pictures, **options):
            raise KeyboardInterrupt

    monkeypatch.setattr(Predictor, "from_pretrained", lambda *_, **__: Stop())
    code, printed = run(capsys, write_clip(tmp_path / "a.mp4", bars(4)), "--no-crop", "--out", tmp_path / "a.csv")
    assert code == 130 and "run the same command again to resume" in printed
