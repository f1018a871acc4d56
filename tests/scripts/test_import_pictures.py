"""Import of pictures and videos labelled by MediaPipe, which is not needed for these tests."""

import csv
import itertools
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from semanticface import arkit
from semanticface.cli.main import main
from semanticface.config import read_settings
from semanticface.data.consent import NAME, is_capture_dataset, require_consent
from semanticface.data.describe import describe_dataset
from semanticface.data.faces import coefficients_of, dataset_record, load_faces
from semanticface.data.importers import mediapipe, pictures
from semanticface.data.importers.mediapipe import UNKNOWN, WEAK, collect_parts, labels
from semanticface.data.importers.mediapipe_saved import read_saved
from semanticface.data.importers.pictures import PictureSettings, Reading, import_parts
from semanticface.errors import ConfigError, DatasetError, SemanticFaceError, TableError
from semanticface.recipe import RECIPE_NAME
from semanticface.rendering.types import POINTS
from semanticface.semantics.answer import parse_answer
from semanticface.training.datasets import check_rows
from semanticface.vision.crop import Box
from tests.helpers.clips import bars, damage, number_of, write_clip
from tests.helpers.live_takes import WholePicture
from tests.helpers.scripts import ROOT, load_script

JAW = arkit.INDEX["jawOpen"]
KNOWN = labels("MediaPipe 0.0.0", sha256="0" * 64)


def picture_settings(**changes):
    return PictureSettings(**{"labels": KNOWN, "crop": "none", "splits": {"train": 1.0}, "neutral": 0} | changes)


def agree(folder, *subjects):
    folder.mkdir(parents=True, exist_ok=True)
    entries = "".join(f"  {who}: {{reference: form, uses: [train]}}\n" for who in subjects)
    (folder / NAME).write_text(f"subjects:\n{entries}")
    return folder / NAME


def scores(jaw, **more):
    """MediaPipe's scores for a face: all at 0.05 but for the jaw."""
    return dict.fromkeys(arkit.MEDIAPIPE, 0.05) | {"jawOpen": jaw} | more


def reader(picture):
    """A stand-in for MediaPipe: jawOpen is the brightness of the picture; a black one has no face."""
    bright = float(np.asarray(picture).mean()) / 255
    return reading_of(scores(bright)) if bright > 0.01 else None


def reading_of(found):
    """What MediaPipe reads with these scores: landmarks all over, a head turned to the side."""
    points = np.linspace(0, 60, 2 * len(POINTS), dtype=np.float32).reshape(-1, 2)
    return Reading(mediapipe.vector(found), points, arkit.pose_of((20, 0, 0), np.zeros((2, 2))))


def grey(path, share):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (80, 80), (round(share * 255),) * 3).save(path)
    return path


def run_import(parts, out, settings=None, **options):
    log = []
    return import_parts(parts, out, settings or picture_settings(), reader=reader, log=log.append, **options), log


@pytest.fixture(autouse=True)
def whole_frames(monkeypatch):
    monkeypatch.setattr(mediapipe, "FaceTracker", WholePicture)
    monkeypatch.setattr(WholePicture, "faceless", ())


def test_a_folder_for_each_person(tmp_path):
    for number in range(4):
        grey(tmp_path / "photos" / ("ann", "ben")[number % 2] / f"{number}.png", 0.2 + number / 10)
    (tmp_path / "photos" / "ben" / "notes.txt").write_text("no picture")
    (tmp_path / "photos" / "ben" / ".hidden.png").write_bytes(b"")
    (tmp_path / "photos" / "ann" / "x.jpg").write_bytes(b"no picture either")
    grey(tmp_path / "photos" / "ben" / "z.png", 0.0)
    out = tmp_path / "out"
    agree(out, "ann", "ben")
    done, _ = run_import(collect_parts([tmp_path / "photos"]), out)
    faces = load_faces(out, "train")
    check_rows(faces, out, emotion=True)
    assert list(faces["subject"]) == ["ann", "ann", "ben", "ben"]
    assert np.allclose(coefficients_of(faces)[:, JAW], [0.2, 0.4, 0.3, 0.5], atol=0.01)
    assert [record.counts for record in done.records] == [{"kept": 2, "no picture": 1}, {"kept": 2, "no face": 1}]
    remarks = " ".join(remark for record in done.records for remark in record.remarks)
    assert (
        "x.jpg: the content is not a picture" in remarks
        and "z.png: MediaPipe 0.0.0 finds no face in the crop" in remarks
    )
    require_consent(out, faces, "train")
    with pytest.raises(ConfigError, match="not to show"):
        require_consent(out, faces, "show")


def test_missing_actions_are_recorded_everywhere(tmp_path):
    """In recipe, pages and the training's record: the zeros must not pass for a tongue that was not out."""
    assert set(UNKNOWN) == set(arkit.NAMES) - set(arkit.MEDIAPIPE) and set(WEAK) < set(arkit.MEDIAPIPE)
    out = tmp_path / "out"
    agree(out, "ann")
    run_import(collect_parts([grey(tmp_path / "a.png", 0.5)], "ann"), out)
    faces = load_faces(out, "train")
    assert coefficients_of(faces)[0, arkit.INDEX["tongueOut"]] == 0
    assert parse_answer(faces[0]["answer"]).analysis.muscle_movements["tongue"] == "not visible"
    for known in (json.loads((out / RECIPE_NAME).read_text()), dataset_record(faces, out)):
        assert known["settings"]["labels"] == {
            "by": "MediaPipe 0.0.0", "unknown": ["tongueOut"], "weak": ["cheekPuff"], "sha256": "0" * 64,
        }  # fmt: skip
    for page in (out / "report.html", *(out / "report").iterdir()):
        text = page.read_text()
        assert "does not have tongueOut: 0 in every row" in text and "hardly ever detects cheekPuff" in text
        assert "Live Link" not in text


def test_mediapipe_reads_the_stored_crop(tmp_path, monkeypatch):
    """MediaPipe gets the crop that training uses, without its surroundings."""
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[60:120, 100:160] = 102
    Image.fromarray(pixels).save(tmp_path / "a.png")
    monkeypatch.setattr(pictures, "_detect_faces", lambda _: [Box(110, 70, 150, 110), Box(0, 0, 10, 10)])
    agree(tmp_path / "out", "ann")
    run_import(collect_parts([tmp_path / "a.png"], "ann"), tmp_path / "out", picture_settings(crop="find"))
    (row,) = load_faces(tmp_path / "out", "train")
    assert row["picture"].size == (64, 64) and row["coefficients"][JAW] == pytest.approx(0.4, abs=0.02)
    assert np.allclose(row["box"], [64 / 6, 64 / 6, 64 * 5 / 6, 64 * 5 / 6], atol=0.1)
    monkeypatch.setattr(pictures, "_detect_faces", lambda _: [Box(110, 70, 150, 110), Box(0, 0, 30, 30)])
    done, _ = run_import(
        collect_parts([tmp_path / "a.png"], "ann"),
        tmp_path / "other",
        picture_settings(crop="find"),
        consent=tmp_path / "out" / NAME,
    )
    (problem,) = done.problems
    assert "a.png: 2 faces found, and nothing says whose the coefficients are" in problem and not done.records


def test_frames_of_a_video_are_selected_and_keep_their_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(WholePicture, "faceless", (7,))
    frames = bars(30, 64, 64)
    (tmp_path / "ann").mkdir()
    video = write_clip(tmp_path / "ann" / "film.mp4", frames, options={"crf": "5", "bf": "0"})
    damage(video, 3)
    out = tmp_path / "out"
    agree(out, "ann")

    def read(picture):
        return reading_of(scores(number_of(np.asarray(picture)) / 100))

    parts = collect_parts([tmp_path / "ann"])
    done = import_parts(parts, out, picture_settings(crop="find", apart=0.045), reader=read, log=lambda _: None)
    (record,) = done.records
    faces = load_faces(out, "train")
    numbers = [number_of(np.asarray(picture)) for picture in faces["picture"]]
    assert [frame - 1 for frame in faces["frame"]] == numbers and len(numbers) > 4
    assert np.allclose(coefficients_of(faces)[:, JAW], np.array(numbers) / 100, atol=1e-6)
    assert all(later - earlier >= 5 for earlier, later in itertools.pairwise(numbers))
    assert record.counts["no face"] == 1 and record.counts["near duplicate"] > 10 and done.left_out
    assert record.counts.get("damaged frame", 0) >= 1
    assert np.degrees(-faces["pose"][0][0]) == pytest.approx(20)
    assert faces["points"][0][-1] == pytest.approx([60, 60], abs=1)
    codes = list(faces["timecode"])
    assert codes[0] == "00:00:00:00.000" and codes == sorted(codes)
    assert "film.mp4, frame 8: no face found" in " ".join(record.remarks)


def test_import_resumes_and_adds(tmp_path):
    for who in ("ann", "ben"):
        grey(tmp_path / who / "a.png", 0.5)
    out = tmp_path / "out"
    agree(out, "ann", "ben")
    run_import(collect_parts([tmp_path / "ann"]), out)
    done, log = run_import(collect_parts([tmp_path / "ann", tmp_path / "ben"]), out)
    assert len(done.new) == 1 and "already imported, 1 faces of ann" in log[0]
    grey(tmp_path / "ann" / "b.png", 0.7)
    done, _ = run_import(collect_parts([tmp_path / "ann", tmp_path / "ben"]), out)
    assert len(done.new) == 1 and done.rows == {"train": 3}
    assert main(["forget", "ann", str(out), "--yes"]) == 0
    assert list(load_faces(out, "train")["subject"]) == ["ben"] and not list((out / "report").glob("ann*"))
    with pytest.raises(DatasetError, match="other settings"):
        run_import(collect_parts([tmp_path / "ben"]), out, picture_settings(labels=labels("MediaPipe 1.0.0")))


def test_unusable_paths_are_refused(tmp_path):
    with pytest.raises(SemanticFaceError, match="no such file or folder"):
        collect_parts([tmp_path / "gone"])
    with pytest.raises(SemanticFaceError, match="no pictures or videos"):
        collect_parts([tmp_path])
    with pytest.raises(SemanticFaceError, match=r"the subject is unknown\. Name it: --subject"):
        collect_parts([grey(tmp_path / "a.png", 0.5)])
    with pytest.raises(ConfigError, match="nobody is imported without one"):
        run_import(collect_parts([tmp_path / "a.png"], "ann"), tmp_path / "out")


def categories(values, key="category_name"):
    found = enumerate(values.items())
    return [{"index": place, "score": score, key: name, "display_name": ""} for place, (name, score) in found]


def saved_as(form, folder, jaws):
    """Save results for the pictures 0.png, 1.png, … in one of the forms; return the file."""
    results = {f"{number}.png": scores(jaw) for number, jaw in enumerate(jaws)}
    if form == "jsonl":
        lines = [{"image": name, "face_blendshapes": [categories(found)]} for name, found in results.items()]
        (folder / "saved.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder / "saved.jsonl"
    if form == "csv":
        with (folder / "saved.csv").open("w", newline="") as file:
            table = csv.writer(file)
            names = list(reversed(arkit.MEDIAPIPE))
            table.writerow(["image", *names])
            table.writerows([name, *(found[each] for each in names)] for name, found in results.items())
        return folder / "saved.csv"
    if form == "folder":
        (folder / "saved").mkdir(exist_ok=True)
        for name, found in results.items():
            (folder / "saved" / name.replace(".png", ".json")).write_text(json.dumps(categories(found, "categoryName")))
        return folder / "saved"
    value = {
        "javascript": [
            {"image": name, "faceBlendshapes": [{"categories": categories(found, "categoryName"), "headIndex": -1}]}
            for name, found in results.items()
        ],
        "by picture": {name: categories(found) for name, found in results.items()},
        "plain": {name: {each: found[each] for each in arkit.MEDIAPIPE[1:]} for name, found in results.items()},
    }[form]
    (folder / "saved.json").write_text(json.dumps(value))
    return folder / "saved.json"


FORMS = ("jsonl", "csv", "folder", "javascript", "by picture", "plain")


@pytest.mark.parametrize("form", FORMS)
@given(jaws=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=4))
def test_all_forms_of_saved_results_are_equivalent(tmp_path_factory, form, jaws):
    folder = tmp_path_factory.mktemp("saved")
    for number in range(len(jaws)):
        grey(folder / f"{number}.png", 0.5)
    (part,), problems = read_saved(saved_as(form, folder, jaws), pictures=folder, subject="ann")
    assert not problems and not part.problems and part.subject == "ann"
    assert [item.path for item in part.items] == [folder / f"{number}.png" for number in range(len(jaws))]
    for item, jaw in zip(part.items, jaws, strict=True):
        assert item.coefficients[JAW] == np.float32(jaw) and item.coefficients[arkit.INDEX["tongueOut"]] == 0
        assert item.coefficients[arkit.INDEX["cheekPuff"]] == np.float32(0.05)


def test_invalid_saved_results_are_named(tmp_path):
    for number in range(3):
        grey(tmp_path / f"{number}.png", 0.5)
    good = categories(scores(0.3))
    lines = [
        {"image": "0.png", "who": "ann", "face_blendshapes": [good]},
        {"image": "1.png", "who": "ann", "face_blendshapes": []},
        {"image": "1.png", "who": "ann", "face_blendshapes": [good, good]},
        {"image": "1.png", "who": "ann", "face_blendshapes": [good[:-1]]},
        {"image": "1.png", "who": "ann", "face_blendshapes": [categories(scores(7))]},
        {"image": "1.png", "who": "ann", "face_blendshapes": [categories(scores("much"))]},
        {"image": "1.png", "who": "ann", "face_blendshapes": [[*good, good[3]]]},
        {"image": "1.png", "who": "ann", "landmarks": []},
        {"who": "ann", "face_blendshapes": [good]},
        {"image": "1.png", "face_blendshapes": [good]},
        {"image": "gone.png", "who": "ann", "face_blendshapes": [good]},
        {"image": "2.png", "who": "ben", "face_blendshapes": good},
    ]
    saved = tmp_path / "saved.jsonl"
    saved.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{\n")
    out = tmp_path / "out"
    agree(out, "ann", "ben")
    parts, problems = read_saved(saved, column="who")
    done = import_parts(parts, out, picture_settings(), problems=problems, log=lambda _: None)
    faces = load_faces(out, "train")
    assert list(faces["frame"]) == [1, 12] and list(faces["subject"]) == ["ann", "ben"]
    remarks = "\n".join([*done.problems, *(remark for record in done.records for remark in record.remarks)])
    assert all(f"saved.jsonl, line {line}" in remarks for line in (*range(2, 12), 13))
    for why in ("found no face", "2 faces", "noseSneerRight", "outside 0 to 1", "not a number", "appears twice",
                "no face_blendshapes", "the picture is missing", "the subject is unknown"):  # fmt: skip
        assert why in remarks
    assert done.records[0].counts == {"kept": 1, "bad row": 8, "no picture": 1}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "not a .jsonl"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", "[]", "no usable result. It is empty"),
        ("a.json", "[1]", "not an object with its picture"),
        ("a.csv", "image,jawOpen\n", "there is no column browDownLeft"),
        ("a.csv", f"image,{','.join(arkit.MEDIAPIPE)}\na.png,{','.join(['x'] * 52)}\n", "'x' is not a number"),
        ("a.csv", f"image,{','.join(arkit.MEDIAPIPE)}\na.png,1\n", "2 cells where the header has 53"),
    ],
)
def test_files_without_results(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(TableError, match=message.replace(".", r"\.")):
        read_saved(tmp_path / name, subject="ann")
    with pytest.raises(TableError, match="No such file"):
        read_saved(tmp_path / "gone.json", subject="ann")


def test_the_script(tmp_path, monkeypatch, capsys):
    script = load_script("data_prep/import_pictures.py")
    out, task = tmp_path / "out", tmp_path / "face.task"
    task.write_bytes(b"weights")
    grey(tmp_path / "photos" / "ann" / "0.png", 0.4)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["import_pictures.py", *map(str, arguments), "--out", str(out), "--no-crop"])
        code = script.main()
        return code, *capsys.readouterr()

    one = ("--splits", "train=1")
    code, _, err = run(tmp_path / "photos", "--mediapipe", tmp_path / "gone.task", *one)
    assert code == 2 and "Download MediaPipe's face_landmarker.task" in err
    monkeypatch.setattr(mediapipe, "PACKAGE", "no-such-package")
    code, _, err = run(tmp_path / "photos", "--mediapipe", task, *one)
    assert code == 2 and "MediaPipe is not installed. Install it with: pip install" in err and not out.exists()
    monkeypatch.setattr(mediapipe, "PACKAGE", "numpy")

    class Landmarker:
        closed = 0

        def __init__(self, path):
            assert path == task

        def __enter__(self):
            return SimpleNamespace(measure=reader)

        def __exit__(self, *_):
            Landmarker.closed += 1

    monkeypatch.setattr(script, "FaceLandmarker", Landmarker)
    code, _, err = run(tmp_path / "photos", "--mediapipe", task, *one)
    assert code == 2 and '"ann":' in err
    agree(out, "ann")
    code, printed, _ = run(tmp_path / "photos", "--mediapipe", task, *one)
    assert code == 0 and "1 in train" in printed and Landmarker.closed == 2
    assert f"by MediaPipe {np.__version__}: tongueOut is 0 in every row, cheekPuff hardly ever detected" in printed
    grey(tmp_path / "photos" / "ann" / "1.png", 0.0)
    code, _, err = run(tmp_path / "photos", "--mediapipe", task, *one)
    assert code == 1 and "1.png: MediaPipe" in err
    out = tmp_path / "saved"
    agree(out, "ann")
    code, printed, _ = run("--saved", saved_as("csv", tmp_path / "photos" / "ann", [0.3]), "--subject", "ann", *one)
    assert code == 0 and "MediaPipe, saved by its user" in printed
    for wrong in ((tmp_path / "photos",), ("--saved", "x.csv", tmp_path / "photos"), ()):
        with pytest.raises(SystemExit):
            run(*wrong)


def test_a_described_copy_needs_the_same_consent(tmp_path):
    out, copy = tmp_path / "out", tmp_path / "copy"
    agree(out, "ann")
    run_import(collect_parts([grey(tmp_path / "a.png", 0.5)], "ann"), out)
    describe_dataset(out, copy, emotion=False)
    faces = load_faces(copy, "train")
    require_consent(copy, faces, "train")
    with pytest.raises(ConfigError, match="not to publish"):
        require_consent(copy, faces, "publish")
    assert not is_capture_dataset(copy)  # nothing can be added to it
    assert dataset_record(faces, copy)["settings"]["labels"] == KNOWN
    (copy / NAME).unlink()
    with pytest.raises(ConfigError, match="no consent of ann"):
        require_consent(copy, faces, "train")


def test_missing_actions_are_in_the_model_recipe(tmp_path):
    """The recipe of an adapter records where its labels come from."""
    out = tmp_path / "out"
    agree(out, "ann", "ben")
    for who, share in (("ann", 0.4), ("ben", 0.6)):
        grey(tmp_path / who / "a.png", share)
    both = picture_settings(splits={"train": 0.5, "validation": 0.5})
    run_import(
        collect_parts([tmp_path / "ann", tmp_path / "ben"]), out, both, assign={"ann": "train", "ben": "validation"}
    )
    distill = load_script("train/distill.py")
    model = ROOT / "semanticface" / "assets" / "nano"
    places = [f"dataset={out}", f"output={tmp_path / 'adapter'}", f"model.base={model}"]
    changes = [
        *places, "train.max_steps=1", "train.per_device_train_batch_size=1", "train.eval_rows=1",
        "augment.fixed_variants=0",
    ]  # fmt: skip
    distill.distill(read_settings(ROOT / "train/configs/quickstart.yaml", distill.Settings, changes))
    recipe = json.loads((tmp_path / "adapter" / RECIPE_NAME).read_text())
    assert recipe["settings"]["data"]["train"]["settings"]["labels"]["unknown"] == ["tongueOut"]
    (source,) = recipe["trained_on"]
    assert (source["dataset"], source["people"], source["rows"]) == (str(out), 1, 1)
