"""ms-swift JSONL: import, export, and a round trip without loss beyond the form's decimals."""

import io
import json
import re
import sys
import tempfile
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import Base

from semanticface import arkit
from semanticface.data.captures.dataset import FEATURES
from semanticface.data.captures.rows import crop_with_context
from semanticface.data.consent import NAME, consent_template, require_consent
from semanticface.data.faces import coefficients_of, load_faces
from semanticface.data.importers import pictures
from semanticface.data.importers.ms_swift import LABELS, read_swift
from semanticface.data.importers.pictures import PictureSettings, import_parts
from semanticface.data.ms_swift_export import export_swift, published_answer
from semanticface.errors import ConfigError, DatasetError, TableError
from semanticface.formats.convert import convert
from semanticface.recipe import RECIPE_NAME
from semanticface.rendering import render
from semanticface.semantics.analysis import describe
from semanticface.semantics.answer import format_answer, parse_answer
from semanticface.training.datasets import AugmentSettings, TrainFaces, check_rows
from semanticface.vision.crop import Box
from tests.helpers.scripts import load_script

ONE = {"train": 1.0}
VECTORS = st.lists(st.integers(0, 1000), min_size=52, max_size=52).map(lambda each: np.array(each) / 1000)


def picture_settings(**changes):
    return PictureSettings(**{"labels": LABELS, "crop": "none", "splits": ONE} | changes)


def agree(folder, *subjects, uses="[train, show]"):
    entries = "".join(f"  '{who}': {{reference: form, uses: {uses}}}\n" for who in subjects)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_text(f"subjects:\n{entries}")
    return folder / NAME


def picture(path, number=0, side=64):
    """A picture whose colour encodes a number, with a name in its metadata."""
    exif = Image.Exif()
    exif[Base.Artist] = "a name"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (number * 10 % 256, 100, 200)).save(
        path, "JPEG", quality=95, exif=exif, comment=b"x"
    )
    return path


def row(text, name, **more):
    said = [{"role": "user", "content": "<image>Read the face."}, {"role": "assistant", "content": text}]
    return {"messages": said, "images": [name], **more}


def write(path, *rows):
    path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in rows))
    return path


def run_import(file, out, settings=None, consent=None, **options):
    parts, problems = read_swift([file], **options)
    settings = settings or picture_settings()
    return import_parts(parts, out, settings, problems=problems, consent=consent, log=lambda _: None)


def face(number):
    values = np.zeros(52)
    values[arkit.INDEX["jawOpen"]] = number / 100
    return values


@pytest.fixture
def swift(tmp_path):
    """Five rows of two people, in both forms, with their pictures."""
    rows = []
    for number in range(5):
        picture(tmp_path / "pictures" / f"{number}.jpg", number)
        values = face(10 * number)
        text = format_answer(values, describe(values)) if number % 2 else published_answer(values, describe(values))
        rows.append(row(text, f"pictures/{number}.jpg", subject=("ann", "ben")[number % 2]))
    return write(tmp_path / "rows.jsonl", *rows)


def test_rows_are_ready_for_training(swift, tmp_path):
    out = tmp_path / "out"
    agree(out, "ann", "ben")
    done = run_import(swift, out)
    assert done.rows == {"train": 5} and not done.left_out
    faces = load_faces(out, "train")
    check_rows(faces, out, emotion=True)
    require_consent(out, faces, "train")
    assert faces.features == FEATURES and list(faces["frame"]) == [1, 3, 5, 2, 4]
    assert list(faces["subject"]) == ["ann", "ann", "ann", "ben", "ben"]
    assert np.allclose(coefficients_of(faces)[:, arkit.INDEX["jawOpen"]], [0, 0.2, 0.4, 0.1, 0.3])
    example = TrainFaces(faces, 32, count=10, augment=AugmentSettings(), emotion=True, seed=0)[3]
    assert example.picture.size == (32, 32)
    for each in faces.cast_column("picture", datasets.Image(decode=False)):
        with Image.open(io.BytesIO(each["picture"]["bytes"])) as kept:
            assert not kept.getexif() and "comment" not in kept.info and kept.size == (64, 64)
            assert abs(kept.getpixel((30, 30))[0] - (each["frame"] - 1) * 10) < 4
    assert "answers in ms-swift rows" in (out / "report.html").read_text()
    assert json.loads((out / RECIPE_NAME).read_text())["settings"]["labels"] == LABELS
    with pytest.raises(ConfigError, match="not to publish"):
        require_consent(out, faces, "publish")
    again = run_import(swift, out)
    assert not again.new and again.rows == {"train": 5}


def test_faces_are_found_and_two_are_ambiguous(tmp_path, monkeypatch):
    drawn = render(face(60).astype(np.float32), subject=3, shot=1, size=200)
    Image.fromarray(drawn.image).save(tmp_path / "a.png")
    Image.fromarray(np.hstack([drawn.image, drawn.image])).save(tmp_path / "b.png")
    Image.new("RGB", (120, 120)).save(tmp_path / "c.png")
    text = format_answer(face(60), describe(face(60)))
    file = write(tmp_path / "rows.jsonl", *(row(text, f"{name}.png") for name in "abc"))
    agree(tmp_path / "out", "ann")
    done = run_import(file, tmp_path / "out", picture_settings(crop="find"), subject="ann")
    (record,) = done.records
    assert record.counts == {"kept": 1, "no face": 1, "several faces": 1} and done.left_out
    assert "line 2: 2 faces found, and nothing says whose the coefficients are" in " ".join(record.remarks)
    assert "line 3: no face found" in " ".join(record.remarks)
    (found,) = load_faces(tmp_path / "out", "train")
    side = drawn.box[2] - drawn.box[0]
    assert abs(found["picture"].width - 1.5 * side) < 0.25 * side
    x0, _, x1, _ = found["box"]
    assert x0 == pytest.approx(found["picture"].width / 6, abs=1) and x1 - x0 == pytest.approx(2 * x0 * 2, rel=0.05)


def test_invalid_rows_are_named_and_shift_nobody(tmp_path):
    for number in range(3):
        picture(tmp_path / f"{number}.jpg", number)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff and no more")
    good = format_answer(face(50), describe(face(50)))
    file = write(
        tmp_path / "rows.jsonl",
        row(good, "0.jpg", who="ann"),
        "{broken",
        row("I see no face.", "1.jpg", who="ann"),
        row(good, "gone.jpg", who="ann"),
        row(good, "broken.jpg", who="ann"),
        row(good, "https://example.org/a.jpg", who="ann"),
        row(good, "1.jpg") | {"images": ["0.jpg", "1.jpg"], "who": "ann"},
        row(good, "1.jpg"),
        row(format_answer(face(70), None), {"path": "2.jpg"}, who="ann"),
        row(good, "1.jpg", who=7),
    )
    agree(tmp_path / "out", "ann", "7")
    done = run_import(file, tmp_path / "out", column="who")
    faces = load_faces(tmp_path / "out", "train")
    assert list(faces["frame"]) == [10, 1, 9] and list(faces["subject"]) == ["7", "ann", "ann"]
    assert np.allclose(coefficients_of(faces)[:, arkit.INDEX["jawOpen"]], [0.5, 0.5, 0.7])
    remarks = "\n".join([*done.problems, *(remark for record in done.records for remark in record.remarks)])
    for line in (2, 3, 4, 5, 6, 7, 8):
        assert f"rows.jsonl, line {line}" in remarks
    assert not re.search(r"jsonl, line (1|9|10)\b", remarks)
    assert "not fetched" in remarks and "2 images" in remarks and "the subject is unknown" in remarks and done.left_out


def test_nobody_without_consent(swift, tmp_path):
    with pytest.raises(ConfigError, match="nobody is imported without one") as refused:
        run_import(swift, tmp_path / "out")
    assert '"ann":' in str(refused.value) and '"ben":' in str(refused.value)
    agree(tmp_path / "out", "ann")
    done = run_import(swift, tmp_path / "out")
    assert set(load_faces(tmp_path / "out", "train")["subject"]) == {"ann"}
    assert "no consent of ben. Add an entry" in done.problems[0]
    with pytest.raises(DatasetError, match="other settings"):
        run_import(swift, tmp_path / "out", picture_settings(size=256))


def test_analyses_are_kept_and_emotion_is_switchable(swift, tmp_path):
    mine = describe(face(10))
    mine = type(mine)("an odd face", mine.muscle_movements, mine.emotional_implication, mine.symmetry)
    picture(tmp_path / "a.jpg")
    file = write(tmp_path / "a.jsonl", row(format_answer(face(10), mine), "a.jpg"))
    for emotion in (True, False):
        out = tmp_path / f"out {emotion}"
        agree(out, "ann")
        run_import(file, out, picture_settings(emotion=emotion), subject="ann")
        faces = load_faces(out, "train")
        check_rows(faces, out, emotion=emotion)
        assert parse_answer(faces[0]["answer"]).analysis.expression_category == "an odd face"


def test_a_stopped_import_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "PART_SIZE", 2)
    rows = [row(format_answer(face(n), None), f"{n}.jpg", subject="ann") for n in range(5)]
    for number in range(5):
        picture(tmp_path / f"{number}.jpg", number)
    file, out = write(tmp_path / "rows.jsonl", *rows), tmp_path / "out"
    agree(out, "ann")
    kept = pictures._import_part
    made = []

    def stop(*arguments):
        made.append(arguments)
        if len(made) == 2:
            raise KeyboardInterrupt
        return kept(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pictures, "_import_part", stop)
        run_import(file, out)
    done = run_import(file, out)
    assert len(done.records) == 3 and len(done.new) == 2
    assert list(load_faces(out, "train")["frame"]) == [1, 2, 3, 4, 5]
    picture(tmp_path / "4.jpg", 20, side=80)
    done = run_import(file, out)
    assert len(done.new) == 1 and load_faces(out, "train")[4]["picture"].width == 80


NAMES = ("ann", "../a/b", "zo\u00eb", 'a "b": c', "a\u2028b", "</script>", "x" * 200)


@settings(max_examples=6)
@given(st.lists(st.tuples(VECTORS, st.sampled_from(NAMES)), min_size=1, max_size=4), st.booleans())
def test_round_trip(found, emotion):
    """Numbers to the form's decimals, each with its picture, each person's rows in order."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        rows = []
        for number, (values, who) in enumerate(found):
            picture(place / f"{number}.jpg", number)
            text = format_answer(values, describe(values, emotion=emotion))
            rows.append(row(text, f"{number}.jpg", subject=who))
        (place / NAME).write_text(consent_template(NAMES), encoding="utf-8")
        setting = picture_settings(emotion=emotion)
        run_import(write(place / "rows.jsonl", *rows), place / "one", setting, consent=place / NAME)
        first = load_faces(place / "one", "train")
        for form, decimals in (("ours", 2), ("published", 1)):
            out = place / form
            export_swift(place / "one", out, form)
            lines = [json.loads(line) for line in (out / "train.jsonl").open(encoding="utf-8")]
            assert [line["subject"] for line in lines] == list(first["subject"])
            run_import(out / "train.jsonl", place / f"two {form}", setting, consent=place / NAME)
            second = load_faces(place / f"two {form}", "train")
            assert list(second["subject"]) == list(first["subject"])
            assert np.allclose(coefficients_of(second), np.round(coefficients_of(first).astype(float), decimals))
            if form == "ours":
                assert list(second["answer"]) == list(first["answer"])
            for one, other in zip(first["picture"], second["picture"], strict=True):
                assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= 4


def test_convert_reads_the_published_form(swift, tmp_path):
    values = np.linspace(0, 1, 52)
    text = published_answer(values, describe(values), np.linspace(-0.3, 0.3, 9))
    prose, _, numbers = text.partition("\n\n")
    assert re.match(r"1\. .+\n2\. .+\n3\. .+\n4\. ", prose) and len(json.loads(numbers)) == 61
    assert list(json.loads(numbers))[:2] == ["EyeBlinkLeft", "EyeLookDownLeft"] and "-0.0" not in numbers
    assert "suggests" not in published_answer(values, describe(values, emotion=False))
    file = write(tmp_path / "p.jsonl", row(text, "a.jpg"))
    counts = convert(file, tmp_path / "p.csv", "livelink", None, pytest.fail, note=pytest.fail)
    assert (counts.rows, counts.failed) == (1, 0)


def test_files_of_an_export(swift, tmp_path):
    agree(tmp_path / "faces", "ann", "ben")
    run_import(swift, tmp_path / "faces")
    done = export_swift(tmp_path / "faces", tmp_path / "out")
    assert done.rows == {"train": 5} and not done.problems
    lines = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert [turn["role"] for turn in lines[0]["messages"]] == ["system", "user", "assistant"]
    assert lines[0]["messages"][1]["content"].startswith("<image>")
    for line in lines:
        with Image.open(tmp_path / "out" / line["images"][0]) as kept:
            assert kept.format == "JPEG" and not kept.getexif() and kept.width == kept.height
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"train.jsonl", "images", RECIPE_NAME, NAME}
    with pytest.raises(DatasetError, match="already exists"):
        export_swift(tmp_path / "faces", tmp_path / "out")
    with pytest.raises(DatasetError, match="no such folder"):
        export_swift(tmp_path / "gone", tmp_path / "other")
    (tmp_path / "faces" / NAME).unlink()
    with pytest.raises(ConfigError, match="no consent of ann"):
        export_swift(tmp_path / "faces", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_scripts(swift, tmp_path, monkeypatch, capsys):
    into, outof = load_script("data_prep/import_swift.py"), load_script("data_prep/export_swift.py")

    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
        code = script.main()
        return code, *capsys.readouterr()

    code, _, err = run(into, swift, "--out", tmp_path / "in", "--no-crop")
    assert code == 2 and '"ann":' in err
    agree(tmp_path / "in", "ann", "ben")
    code, printed, err = run(into, swift, "--out", tmp_path / "in", "--no-crop", "--splits", "train=1", "--no-emotion")
    assert code == 0 and "5 in train" in printed and "error" not in err and "left out" not in err
    code, printed, _ = run(outof, tmp_path / "in", "--out", tmp_path / "out", "--form", "published")
    assert code == 0 and "5 rows in train.jsonl" in printed
    assert run(outof, tmp_path / "in", "--out", tmp_path / "out")[0] == 2
    swift.write_text(swift.read_text() + "{\n")
    assert run(into, swift, "--out", tmp_path / "in", "--no-crop", "--splits", "train=1", "--no-emotion")[0] == 1
    assert run(into, tmp_path / "gone.jsonl", "--out", tmp_path / "in", "--no-crop")[0] == 2
    assert "consent" in into.arguments().format_help() and "published" in outof.arguments().format_help()
    with pytest.raises(TableError, match="no usable row"):
        read_swift([write(tmp_path / "empty.jsonl", "{")])


def test_crops_may_extend_beyond_the_picture_as_in_training():
    crop, box = crop_with_context(Image.new("RGB", (100, 80)), Box(-10, 0, 70, 80), 512)
    assert crop.size == (120, 120) and np.allclose(box, [20, 20, 100, 100])


PARTS = [{"type": "image", "image": "0.jpg"}, {"type": "text", "text": "Read the face."}]
FORMS = {
    "parts": lambda text: {
        "messages": [
            {"role": "user", "content": PARTS}, {"role": "assistant", "content": [{"type": "text", "text": text}]},
        ],
        "images": ["0.jpg"],
    },
    "parts alone": lambda text: {
        "messages": [{"role": "user", "content": PARTS}, {"role": "assistant", "content": text}],
    },
    "picture as a url": lambda text: {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "0.jpg"}}]},
            {"role": "assistant", "content": text},
        ]
    },
    "sharegpt": lambda text: {
        "conversations": [{"from": "human", "value": "<image>Read."}, {"from": "gpt", "value": text}], "image": "0.jpg",
    },
    "prompt and completion": lambda text: {"prompt": "<image>Read.", "completion": text, "images": ["0.jpg"]},
    "prompt and completion in messages": lambda text: {
        "prompt": [{"role": "user", "content": PARTS}], "completion": [{"role": "assistant", "content": text}],
    },
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("array", [False, True])
def test_other_forms_of_training_rows(tmp_path, form, array):
    found = FORMS[form](format_answer(face(40), None))
    file = write(tmp_path / "rows.jsonl", found)
    if array:
        file = tmp_path / "rows.json"
        file.write_text(json.dumps([found], indent=2))
    (part,), problems = read_swift([file], subject="ann")
    assert not problems and not part.problems
    assert [item.path for item in part.items] == [tmp_path / "0.jpg"]
    assert part.items[0].coefficients[arkit.INDEX["jawOpen"]] == np.float32(0.4)


@pytest.mark.parametrize(
    ("text", "why"), [("{}", "not an array"), ("[1]", "no object"), ("[{", "not valid JSON"), ("", "not valid")]
)
def test_json_that_is_no_array_of_rows(tmp_path, text, why):
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(TableError, match=why):
        read_swift([tmp_path / "rows.json"], subject="ann")
