"""Bad input to whole commands, each in its own process: one line that names the file and the fix, a non-zero exit
code, and no half-written file.
"""

import json
import os
import resource
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from semanticface import arkit
from semanticface.errors import PictureError
from semanticface.formats import tables
from semanticface.vision.image_io import load_picture
from tests.helpers.tiny_models import answers, fast_vlm


def command(*arguments, limit=None, stdout=subprocess.PIPE):
    """Run a command; ``limit`` is the maximum size in bytes of a file it can write."""
    return subprocess.run(
        [sys.executable, "-m", "semanticface", *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=None if limit is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


def one_line(done, *words, code=2):
    """Check that standard error is one line without a traceback."""
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("semanticface: ")
    for word in words:
        assert str(word) in line


def bomb():
    """A PNG of 20,000 x 20,000 pixels in under 100 bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def bad_pictures(folder):
    """Make one file for each kind of bad picture; return its code and a word of the fix, by path."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    whole = Image.fromarray(noise)
    whole.save(folder / "whole.png")
    data = (folder / "whole.png").read_bytes()
    (folder / "truncated.png").write_bytes(data[:900])
    (folder / "huge.png").write_bytes(bomb())
    (folder / "zero.png").touch()
    whole.save(folder / "animated.png", save_all=True, append_images=[Image.new("RGB", (40, 40))])
    whole.save(folder / "scan.tiff")
    (folder / "scan.tiff").rename(folder / "named.jpg")
    (folder / "words.webp").write_text("not a picture at all")
    (folder / "whole.png").unlink()
    return {
        folder / "truncated.png": ("damaged", "again"),
        folder / "huge.png": ("too_many_pixels", "smaller"),
        folder / "zero.png": ("empty", "again"),
        folder / "animated.png": ("animated", "ffmpeg"),
        folder / "named.jpg": ("unsupported_format", "TIFF"),
        folder / "words.webp": ("not_a_picture", "PNG, JPEG or WEBP"),
        folder / "gone.png": ("missing", "Check the path"),
    }


def unusual_pictures(folder):
    """Make unusual but valid pictures; each is red on the left and blue on the right."""
    folder.mkdir()
    plain = Image.new("RGB", (60, 40), (200, 0, 0))
    plain.paste((0, 0, 200), (30, 0, 60, 40))
    plain.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    plain.transpose(Image.Transpose.ROTATE_90).save(folder / "rotated.jpg", exif=exif, quality=95)
    plain.save(folder / "named.png", format="JPEG", quality=95)
    plain.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png")
    return sorted(folder.iterdir())


def test_unusual_pictures_are_read_correctly(tmp_path):
    paths = unusual_pictures(tmp_path / "odd")
    assert len(paths) == 4
    for path in paths:
        image = load_picture(path)
        assert image.size == (60, 40), path
        left, right = np.asarray(image, int)[20, 10], np.asarray(image, int)[20, 50]
        assert np.abs(left - [200, 0, 0]).max() < 12 and np.abs(right - [0, 0, 200]).max() < 12, path


def test_each_bad_picture_keeps_its_row_and_says_why(tmp_path):
    model = fast_vlm(tmp_path / "tiny")
    expected = bad_pictures(tmp_path / "bad")
    out = tmp_path / "out.jsonl"
    done = command("predict", *expected, "--model", model, "--no-crop", "--out", out)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["image"] for row in rows] == [str(path) for path in expected]
    for row, (path, (code, word)) in zip(rows, expected.items(), strict=True):
        assert row["status"] == code
        assert str(path) in row["reason"] and word in row["reason"]
        assert row["reason"] in done.stderr
        with pytest.raises(PictureError) as caught:
            load_picture(path)
        assert caught.value.code == code


VALUES = ",".join(["0.5"] * 52)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "Timecode,BlendShapeCount,EyeBlinkLeft\n1,61,0\n",
            ["line 1", "no column for", "(51 of the 52 actions)", "Export the file again"],
        ),
        (f"image,{','.join(arkit.NAMES)},jaw_open\na,{VALUES},0\n", ["line 1", "jawOpen is there twice", "Keep one"]),
        (f"name;{';'.join(arkit.NAMES)}\n", ["line 1", "separated by ';'", "commas"]),
        ("", ["empty", "again"]),
        (b"\xff\xfe\x00\x00" * 9, ["not UTF-8", "Save"]),
    ],
)
@pytest.mark.parametrize("verb", ["describe", "render"])
def test_a_wrong_table_is_one_line_and_writes_nothing(tmp_path, content, words, verb):
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    out = tmp_path / ("o.jsonl" if verb == "describe" else "o")
    one_line(command(verb, path, "--out", out), path, *words)
    assert list(tmp_path.iterdir()) == [path]


def test_bad_rows_are_named_and_the_others_processed(tmp_path):
    path, out = tmp_path / "t.csv", tmp_path / "o.jsonl"
    rows = [f"a,{VALUES}", f"b,nan,{VALUES[4:]}", f"c,{VALUES[4:]}", f"d,{VALUES}"]
    path.write_text("\n".join([",".join(tables.COLUMNS), *rows]))
    done = command("describe", path, "--out", out)
    assert done.returncode == 1
    first, second, count = done.stderr.splitlines()
    assert f"{path}, line 3, column 2 (eyeBlinkLeft): 'nan' is not a number" in first
    assert f"{path}, line 4: a short row, 52 cells where the header has 53" in second
    assert "4 rows, 2 failed" in count
    assert [json.loads(line)["status"] for line in out.read_text().splitlines()] == ["ok", "bad_row", "bad_row", "ok"]


@pytest.mark.parametrize("verb", ["parse", "describe", "render"])
def test_a_missing_file_is_one_line(tmp_path, verb):
    out = tmp_path / "o.jsonl"
    one_line(command(verb, tmp_path / "gone.jsonl", "--out", out), tmp_path / "gone.jsonl", "No such file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", tables.SUFFIXES)
def test_a_full_disk_leaves_nothing_half_written(tmp_path, suffix):
    texts, out = tmp_path / "t.jsonl", tmp_path / f"out{suffix}"
    texts.write_text((json.dumps({"text": answers(1)[0]}) + "\n") * 100)
    out.write_text("before")
    one_line(command("parse", texts, "--out", out, limit=10_000), out, "Free some space")
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, "t.jsonl"]


def test_a_full_disk_while_rendering_keeps_whole_pictures_only(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("\n".join([",".join(tables.COLUMNS), f"a,{VALUES}", f"b,{VALUES}"]))
    # The first run may compile and cache the renderer, which the limit below would forbid as well.
    assert command("render", table, "--out", tmp_path / "whole", "--size", 256).returncode == 0
    done = command("render", table, "--out", tmp_path / "o", "--size", 256, limit=5_000)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "o" / "000001.png") in done.stderr.splitlines()[-1]
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["render.json"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")  # noqa: PTH110
def test_standard_output_on_a_full_disk(tmp_path):
    texts = tmp_path / "t.jsonl"
    texts.write_text(json.dumps({"text": answers(1)[0]}) + "\n")
    with open("/dev/full", "w") as full:  # noqa: PTH123
        one_line(command("parse", texts, stdout=full), "the output", "Free some space")


def test_unwritable_outputs(tmp_path):
    texts = tmp_path / "t.jsonl"
    texts.write_text(json.dumps({"text": answers(1)[0]}) + "\n")
    one_line(command("parse", texts, "--out", texts / "under" / "a.csv"), texts, "cannot write")
    one_line(command("parse", texts, "--out", tmp_path / "a.xlsx"), "a.xlsx", ".jsonl or .csv")
    (tmp_path / "taken.csv").mkdir()
    one_line(command("parse", texts, "--out", tmp_path / "taken.csv"), "taken.csv", "is a folder")


def test_predict_checks_its_outputs_before_loading_a_model(tmp_path):
    picture = tmp_path / "a.png"
    Image.new("RGB", (40, 40)).save(picture)
    one_line(command("predict", picture, "--out", tmp_path / "a.txt", "--model", "gone"), "a.txt", ".jsonl or .csv")
    one_line(command("predict", picture, "--report", tmp_path / "a.pdf", "--model", "gone"), "a.pdf", ".html")
    (tmp_path / "none").mkdir()
    one_line(command("predict", tmp_path / "none", "--model", "gone"), "none", "no picture in this folder")


def test_predict_reads_its_pictures_before_loading_a_model(tmp_path):
    out = tmp_path / "a.jsonl"
    (tmp_path / "text.png").write_text("no picture")
    done = command("predict", tmp_path / "gone.png", tmp_path / "text.png", "--out", out, "--model", "none")
    assert done.returncode == 1 and "gone.png: no such file. Check the path." in done.stderr
    assert "no model" not in done.stderr
    rows = list(map(json.loads, out.read_text().splitlines()))
    assert [row["status"] for row in rows] == ["missing", "not_a_picture"]
