"""``semanticface show``: each row next to its own picture, in order, and a reason if either is missing."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semanticface import arkit
from semanticface.cli.main import main
from semanticface.errors import SemanticFaceError, TableError, VideoError
from semanticface.evaluation.compare import Comparison
from semanticface.evaluation.compare_sources import read_rows
from semanticface.formats import live_link, tables
from semanticface.inference.predictor import Prediction
from semanticface.inference.video import predict_take
from semanticface.rendering import render
from semanticface.vision.crop import Box, crop_face
from semanticface.vision.video_reader import open_take
from tests.helpers.clips import PixelPredictor, bars, damage, number_of, write_clip

SIZE = 64
GREY = (226, 226, 226)


def face(number):
    return arkit.vector({"jawOpen": number / 10, "browInnerUp": 1 - number / 10})


def head(values, style="photo"):
    return render(values, style=style, subject=None, size=SIZE, framing="crop").image


def is_note(pixels):
    """Whether a panel is grey with dark text on it."""
    off = np.abs(pixels.astype(int) - GREY).max(axis=2)
    return (off <= 12).mean() > 0.5 and off[:, [1, -2]].max() <= 24 and (off > 100).any()


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Six rows: the third's picture is missing, the fourth has no answer; each picture has its own colour."""
    monkeypatch.chdir(tmp_path)
    rows = []
    for number in range(6):
        if number != 2:
            Image.new("RGB", (90, 60), (40 * number, 200, 10)).save(f"{number}.png")
        if number == 3:
            rows.append(Prediction(f"{number}.png", "no_face", f"{number}.png: no face found. Give a box."))
        else:
            rows.append(Prediction(f"{number}.png", "ok", coefficients=face(number), box=Box(10, 10, 50, 50)))
    tables.write("faces.jsonl", rows)
    return Path("faces.jsonl")


def cells(path):
    """Left and right panel of each cell of a sheet, uint8[n, 2, SIZE, SIZE, 3]."""
    sheet = np.asarray(Image.open(path).convert("RGB"))
    across, down = 2 * SIZE + 10, SIZE + 36 + 10
    found = []
    for y in range(10, sheet.shape[0] - down + 1, down):
        for x in range(10, sheet.shape[1] - across + 1, across):
            found.append([sheet[y : y + SIZE, x + left : x + left + SIZE] for left in (0, SIZE)])
    return np.array(found)


def test_a_sheet_shows_every_row_in_order(pictures):
    warnings = []
    done = Comparison(pictures, warnings.append).write_sheet(Path("sheet.png"), size=SIZE)
    assert (done.shown, done.incomplete) == (6, 2)
    shown = cells("sheet.png")
    assert len(shown) == 8  # two lines of four, the last two empty
    for number, (left, right) in enumerate(shown[:6]):
        if number == 2:
            assert is_note(left)
        else:
            assert left[SIZE // 2, SIZE // 2].tolist() == [40 * number, 200, 10]
        assert is_note(right) if number == 3 else np.array_equal(right, head(face(number)))
    assert warnings == [
        "2.png: not found. Say where the pictures are: --pictures DIR",
        "3.png: no face found. Give a box.",
    ]


def test_heads_are_turned_as_the_file_says(pictures):
    turned = np.array([0.5, 0.2, -0.3, 0, 0, 0, 0, 0, 0])
    tables.write("turned.jsonl", [tables.RowResult("0.png", coefficients=face(0), pose=turned)])
    for options, pose in (([], turned), (["--frontal"], None)):
        assert main(["show", "turned.jsonl", "--out", "sheet.png", "--size", str(SIZE), *options]) == 0
        ((_, right),) = cells("sheet.png")
        wanted = render(face(0), subject=None, size=SIZE, framing="crop", pose=pose)
        assert np.array_equal(right, wanted.image)
        assert np.allclose(wanted.pose[:3], 0 if pose is None else turned[:3])


def test_rows_of_a_sheet_are_spread_evenly(pictures):
    assert Comparison(pictures, lambda _: None).write_sheet(Path("sheet.png"), size=SIZE, max_rows=2).shown == 2
    shown = cells("sheet.png")
    assert [left[20, 20].tolist() for left, _ in shown] == [[0, 200, 10], [200, 200, 10]]


def test_the_face_is_cropped_to_the_box_or_detected(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn = render(face(3), style="photo", subject=5, size=160)
    canvas = Image.new("RGB", (320, 200), (90, 90, 90))
    canvas.paste(Image.fromarray(drawn.image), (100, 20))
    canvas.save("a.png")
    box = Box(120, 40, 240, 160)
    tables.write("boxed.jsonl", [Prediction("a.png", "ok", coefficients=face(3), box=box)])
    tables.write("plain.csv", [Prediction("a.png", "ok", coefficients=face(3))])
    Comparison(Path("boxed.jsonl"), pytest.fail).write_sheet(Path("boxed.png"), size=SIZE)
    ((left, _),) = cells("boxed.png")
    assert np.array_equal(left, np.asarray(crop_face(canvas, box, SIZE)))
    Comparison(Path("plain.csv"), pytest.fail).write_sheet(Path("plain.png"), size=SIZE)
    ((left, _),) = cells("plain.png")
    assert (left == 90).all(axis=2).mean() < 0.2  # the face, not the background


def test_a_style_and_another_folder(pictures, tmp_path):
    (tmp_path / "old").mkdir()
    Path("1.png").rename("old/1.png")
    comparison = Comparison(pictures, lambda _: None, folder=Path("old"), style="drawn")
    assert comparison.write_sheet(Path("sheet.png"), size=SIZE).incomplete == 2
    left, right = cells("sheet.png")[1]
    assert left[20, 20].tolist() == [40, 200, 10] and np.array_equal(right, head(face(1), "drawn"))


def test_a_tree_of_pictures_that_moved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for who, blue in (("ann", 0), ("ben", 250)):
        (tmp_path / "moved" / who).mkdir(parents=True)
        Image.new("RGB", (60, 60), (0, 200, blue)).save(f"moved/{who}/1.png")
    names = ["in/ann/1.png", "in/ben/1.png"]
    tables.write("faces.jsonl", [Prediction(name, "ok", coefficients=face(1), box=Box(5, 5, 50, 50)) for name in names])
    assert (
        Comparison(Path("faces.jsonl"), pytest.fail, folder=Path("moved"))
        .write_sheet(Path("sheet.png"), size=SIZE)
        .incomplete
        == 0
    )
    assert [left[20, 20].tolist() for left, _ in cells("sheet.png")] == [[0, 200, 0], [0, 200, 250]]
    # Two rows never share one picture.
    warnings = []
    assert (
        Comparison(Path("faces.jsonl"), warnings.append, folder=Path("moved/ann"))
        .write_sheet(Path("a.png"), size=SIZE)
        .incomplete
        == 1
    )
    assert "already matches in/ann/1.png" in warnings[0]


def test_inputs_are_not_overwritten(pictures, capsys):
    before = Path("1.png").read_bytes()
    assert main(["show", "faces.jsonl", "--out", "1.png"]) == 2
    assert "is an input of this command" in capsys.readouterr().err and Path("1.png").read_bytes() == before


def test_pictures_of_odd_shapes_fit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, size in (("thin", (16, 20_000)), ("flat", (20_000, 16))):
        Image.new("RGB", size, (250, 0, 0)).save(f"{name}.png")
    tables.write("a.jsonl", [Prediction(f"{name}.png", "ok", coefficients=face(1)) for name in ("thin", "flat")])
    monkeypatch.setattr("semanticface.evaluation.compare.detect_faces", lambda picture: [])
    assert Comparison(Path("a.jsonl"), pytest.fail).write_sheet(Path("a.png"), size=SIZE).incomplete == 0
    (thin, _), (flat, _) = cells("a.png")
    assert (thin[:, SIZE // 2 - 1] != 255).any() and (thin[:, :20] == 255).all() and (flat[:20] == 255).all()
    assert Comparison(Path("a.jsonl"), pytest.fail).write_video(Path("a.mp4"), size=SIZE).shown == 2
    # A box outside the picture is ignored: the picture is shown whole.
    tables.write("b.jsonl", [Prediction("thin.png", "ok", coefficients=face(1), box=Box(900, 900, 950, 950))])
    assert Comparison(Path("b.jsonl"), pytest.fail).write_sheet(Path("b.png"), size=SIZE).incomplete == 0


def decode(path):
    """The frames of a video: their times, and left and right side."""
    frames = [(frame.time, np.asarray(frame.picture)) for frame in open_take(path).frames()]
    return [time for time, _ in frames], [(p[:SIZE, :-SIZE], p[:SIZE, -SIZE:]) for _, p in frames]


def check_heads(sides, values):
    """Compare the right sides with the expected heads, None for a note."""
    for (_, right), each in zip(sides, values, strict=True):
        if each is None:
            assert is_note(right)
        else:
            assert np.abs(right.astype(int) - head(each)).mean() < 6


@pytest.mark.parametrize("times", [None, [0, 0.033, 0.1, 0.11, 0.25, 0.4, 0.433, 0.5]])
def test_a_video_beside_its_heads(tmp_path, times):
    clip = write_clip(tmp_path / "a.mp4", bars(8), times=times)
    out = tmp_path / "a.jsonl"
    predict_take(open_take(clip), out, PixelPredictor(fails_on=(2,)), crop="none")
    warnings = []
    done = Comparison(out, warnings.append).write_video(tmp_path / "shown.mp4", size=SIZE)
    assert (done.shown, done.incomplete) == (8, 1)
    assert warnings == [f"{clip}, frame 3: the model failed: no reason"]
    when, sides = decode(tmp_path / "shown.mp4")
    assert np.allclose([float(time) for time in when], times or np.arange(8) / 30, atol=1e-4)
    assert [number_of(left) for left, _ in sides] == list(range(8))
    assert sides[0][0].shape[1] == 86  # 64 x 48 pixels, as wide as they are high by that much, and even
    check_heads(sides, [row.values for row in read_rows(out)])


def test_a_recording_beside_its_video(tmp_path):
    clip = write_clip(tmp_path / "a.mov", bars(6), timecode="10:00:00:05")
    codes = [f"10:00:00:{frame:02d}.000" for frame in (6, 7, 9)]
    rows = [live_link.LiveLinkRow(code, face(n), np.zeros(9)) for n, code in enumerate(codes)]
    live_link.write(tmp_path / "a.csv", rows)
    done = Comparison(tmp_path / "a.csv", pytest.fail, video=clip).write_video(tmp_path / "shown.mp4", size=SIZE)
    assert (done.shown, done.incomplete) == (6, 0)
    _, sides = decode(tmp_path / "shown.mp4")
    check_heads(sides, [None, face(0), face(1), None, face(2), None])


def test_two_rows_of_one_frame(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", bars(3))
    out = tmp_path / "a.jsonl"
    predict_take(open_take(clip), out, PixelPredictor(), crop="none")
    lines = out.read_text().splitlines()
    out.write_text("\n".join([*lines, lines[1]]))
    warnings = []
    assert Comparison(out, warnings.append).write_video(tmp_path / "shown.mp4", size=SIZE).shown == 3
    assert warnings == [f"{out}: {clip}, frame 2: another row is of frame 2 too. The first is shown."]


def test_rows_beyond_the_video_are_reported(tmp_path):
    long, short = (write_clip(tmp_path / f"{count}.mp4", bars(count)) for count in (9, 5))
    out = tmp_path / "a.jsonl"
    predict_take(open_take(long), out, PixelPredictor(), crop="none")
    warnings = []
    done = Comparison(out, warnings.append, video=short).write_video(tmp_path / "shown.mp4", size=SIZE)
    assert (done.shown, done.incomplete) == (5, 4) and warnings == [f"{out}: 4 rows match no frame of {short}"]
    warnings.clear()
    assert Comparison(out, warnings.append, video=short).write_sheet(tmp_path / "sheet.png", size=SIZE).incomplete == 4
    assert warnings[0] == f"no frame 6 in {short}"
    assert [is_note(left) for left, _ in cells(tmp_path / "sheet.png")[:9]] == [False] * 5 + [True] * 4


def test_a_damaged_frame_is_a_note_and_shifts_nothing(tmp_path):
    whole = write_clip(tmp_path / "a.mp4", bars(12), codec="mjpeg")
    out = tmp_path / "a.jsonl"
    predict_take(open_take(whole), out, PixelPredictor(), crop="none")
    damage(whole, 4)
    warnings = []
    assert Comparison(out, warnings.append).write_video(tmp_path / "shown.mp4", size=SIZE).incomplete == 1
    _, sides = decode(tmp_path / "shown.mp4")
    assert is_note(sides[4][0]) and "frame 5: the frame is damaged" in warnings[0]
    assert [number_of(left) for number, (left, _) in enumerate(sides) if number != 4] == [0, 1, 2, 3, *range(5, 12)]


def test_a_slideshow_of_pictures(pictures):
    done = Comparison(pictures, lambda _: None).write_video(Path("shown.mp4"), size=SIZE, rate=Fraction(2))
    assert (done.shown, done.incomplete) == (6, 2)
    when, sides = decode("shown.mp4")
    assert when == [Fraction(n, 2) for n in range(6)] and all(left.shape[1] == SIZE for left, _ in sides)
    assert is_note(sides[2][0])
    for number in (0, 1, 3, 4, 5):
        assert np.abs(sides[number][0][32, 32].astype(int) - (40 * number, 200, 10)).max() < 12
    check_heads(sides, [None if number == 3 else face(number) for number in range(6)])


def test_the_number_of_threads_does_not_change_the_bytes(pictures, monkeypatch):
    for threads in (1, 3):
        monkeypatch.setattr("semanticface.evaluation.compare._THREADS", threads)
        Comparison(pictures, lambda _: None).write_video(Path(f"{threads}.mp4"), size=SIZE)
    assert Path("1.mp4").read_bytes() == Path("3.mp4").read_bytes()


def test_invalid_input(pictures, tmp_path):
    with pytest.raises(SemanticFaceError, match="no such style"):
        Comparison(pictures, pytest.fail, style="clay")
    live_link.write("empty.csv", [])
    with pytest.raises(TableError, match="no rows below the header"):
        Comparison(Path("empty.csv"), pytest.fail)
    with pytest.raises(VideoError, match="Check the path"):
        Comparison(pictures, pytest.fail, video=Path("gone.mp4"))


def test_the_command(pictures, capsys):
    assert main(["show", "faces.jsonl", "--out", "sheet.jpg", "--rows", "3", "--size", "64"]) == 1
    assert "sheet.jpg: 3 rows, 1 without picture or answer" in capsys.readouterr().err
    assert Image.open("sheet.jpg").size == (3 * 138 + 10, 64 + 36 + 20)
    rows = [Prediction("0.png", "ok", coefficients=face(1), box=Box(10, 10, 50, 50))]
    tables.write("good.jsonl", rows)
    assert main(["show", "good.jsonl", "--out", "shown.mp4", "--size", "65", "--fps", "5"]) == 0
    assert "shown.mp4: 1 rows, 0 without" in capsys.readouterr().err
    assert open_take("shown.mp4").rate == 5


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--out", "sheet.gif"], "end its name in .png for a sheet, or in .mp4"),
        (["--out", "folder.png"], "is a folder"),
        (["--out", "a.mp4", "--rows", "3"], "--rows is for a sheet"),
        (["--out", "a.png", "--fps", "3"], "--fps is for a video of single pictures"),
        (["--out", "a.png", "--video", "gone.mp4"], "gone.mp4: No such file"),
    ],
)
def test_options_that_do_not_go_together(pictures, capsys, words, why):
    Path("folder.png").mkdir()
    assert main(["show", "faces.jsonl", *words]) == 2
    assert why in capsys.readouterr().err


def test_many_warnings_are_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tables.write("a.jsonl", [Prediction(f"{n}.png", "ok", coefficients=face(0)) for n in range(25)])
    assert main(["show", "a.jsonl", "--out", "a.mp4", "--size", "32", "--style", "drawn"]) == 1
    printed = capsys.readouterr().err
    assert printed.count("0.png: not found") == 1 and "(25 rows alike)" in printed
