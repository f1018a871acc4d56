"""Import of Live Link Face takes, and deletion of people from the dataset."""

import dataclasses
import datetime
import io
import shutil
import sys
import zipfile
from fractions import Fraction

import datasets
import numpy as np
import pytest
import yaml
from PIL import Image

from semanticface.cli.main import main
from semanticface.config import read_settings
from semanticface.data.captures import importer
from semanticface.data.captures import take as capture_take
from semanticface.data.captures.dataset import FEATURES
from semanticface.data.captures.importer import import_takes
from semanticface.data.captures.report import remove_empty_takes
from semanticface.data.captures.take import ImportSettings
from semanticface.data.consent import NAME, read_consent_file, require_consent
from semanticface.data.faces import coefficients_of, load_faces
from semanticface.errors import ConfigError, DatasetError
from semanticface.rendering import render
from semanticface.semantics.answer import parse_answer
from semanticface.training.datasets import AugmentSettings, EvalFaces, TrainFaces, check_rows
from tests.helpers.clips import bars, damage, number_of, write_clip
from tests.helpers.live_takes import WholePicture, count_sixty, face, write_take
from tests.helpers.scripts import ROOT, load_script

ALL = ImportSettings(neutral=0, apart=0, splits={"train": 1.0})
"""Keeps every frame, in one split."""
DISTILL = load_script("train/distill.py")


@pytest.fixture(autouse=True)
def whole_pictures(monkeypatch):
    """Bars are not faces: use whole pictures, unless a test restores the real face detector."""
    monkeypatch.setattr(capture_take, "FaceTracker", WholePicture)
    monkeypatch.setattr(WholePicture, "faceless", ())


def agree(path, *subjects, uses="[train, show]", more=""):
    entries = "".join(f"  {who}: {{reference: form, uses: {uses}{more}}}\n" for who in subjects)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"subjects:\n{entries}")
    return path


def run_import(paths, out, settings=ALL, **options):
    log = []
    return import_takes(paths, out, settings, log=log.append, **options), log


def numbers(out, split="train"):
    """Return the frame number in the picture of each row, and in its coefficients."""
    rows = load_faces(out, split)
    in_picture = [number_of(np.asarray(row["picture"])) for row in rows]
    labelled = [round(row["coefficients"][17] * 100) for row in rows]
    return in_picture, labelled


@pytest.mark.parametrize("rate", [30, 60, Fraction(30000, 1001)])
@pytest.mark.parametrize("source", ["video", "log", "nothing"])
def test_pictures_and_labels_match(tmp_path, rate, source):
    """With dropped rows and frames and different starts, pictures and labels still match."""
    rows = [n for n in range(40) if n not in (3, 11, 12, 30)]
    frames = [n for n in range(36) if n not in (20, 21)]
    if source != "nothing":
        rows, frames = rows[2:], frames[1:]
    base = 60 if rate == 60 else 30
    take = write_take(tmp_path / "take", count=40, rate=rate, base=base, rows=rows, frames=frames, says=source)
    out = tmp_path / "out"
    done, _ = run_import([take], out, consent=agree(tmp_path / "c.yaml", "ann"))
    both = [n for n in frames if n in rows]
    assert numbers(out) == (both, both)
    (record,) = done.records
    assert record.counts == {"kept": len(both), "no frame": len(rows) - len(both), "no row": len(frames) - len(both)}
    assert done.rows == {"train": len(both)} and not done.left_out
    assert [row["frame"] for row in load_faces(out, "train")] == [frames.index(n) + 1 for n in both]


def test_timecode_with_another_base_than_the_video(tmp_path):
    take = write_take(tmp_path / "take", count=40, frames=range(15, 40))
    count_sixty(take / "Scene_1_ann.mov")
    done, _ = run_import([take], tmp_path / "out", consent=agree(tmp_path / "c.yaml", "ann"))
    assert numbers(tmp_path / "out") == (list(range(15, 40)), list(range(15, 40)))
    assert done.records[0].paired.startswith("timecode of the video, 60 frames")


def test_rows_are_ready_for_training(tmp_path):
    out = tmp_path / "out"
    take = write_take(tmp_path / "take")
    run_import([take], out, consent=agree(tmp_path / "c.yaml", "ann"))
    rows = load_faces(out, "train")
    check_rows(rows, out, emotion=True)
    assert rows.features == FEATURES and len(rows) == 12
    assert np.allclose(coefficients_of(rows), [face(n) for n in range(12)])
    first = rows[0]
    assert (first["subject"], first["look"], first["timecode"]) == ("ann", "capture", "13:13:04:00.652")
    assert np.allclose(first["pose"], np.linspace(-0.1, 0.1, 9))
    assert np.allclose(first["box"], [64 / 6, 64 / 6, 64 * 5 / 6, 64 * 5 / 6], atol=1e-3)
    assert np.allclose(parse_answer(rows[7]["answer"]).coefficients, face(7), atol=0.006)
    example = TrainFaces(rows, 32, count=24, augment=AugmentSettings(), emotion=True, seed=0)[5]
    assert example.picture.size == (32, 32) and EvalFaces(rows, 32)[0].answer == first["answer"]
    whole = datasets.load_from_disk(str(out))
    assert list(whole) == ["train"]


def test_pictures_carry_no_metadata(tmp_path):
    out = tmp_path / "out"
    run_import([write_take(tmp_path / "take", count=3)], out, consent=agree(tmp_path / "c.yaml", "ann"))
    rows = load_faces(out, "train").cast_column("picture", datasets.Image(decode=False))
    for row in rows:
        assert row["picture"]["path"] is None
        with Image.open(io.BytesIO(row["picture"]["bytes"])) as picture:
            assert picture.format == "JPEG" and not picture.getexif()
            assert set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_a_real_face_is_found_and_cropped(tmp_path, monkeypatch):
    monkeypatch.undo()
    drawn = [render(face(20 * n).astype(np.float32), subject=3, shot=1, size=160) for n in range(4)]
    take = write_take(tmp_path / "take", count=4, pictures=[each.image for each in drawn])
    out = tmp_path / "out"
    run_import([take], out, consent=agree(tmp_path / "c.yaml", "ann"))
    for row, there in zip(load_faces(out, "train"), drawn, strict=True):
        side = there.box[2] - there.box[0]
        assert row["picture"].width == row["picture"].height
        assert abs(row["picture"].width - 1.5 * side) < 0.25 * side
        x0, y0, x1, y1 = row["box"]
        assert x0 == pytest.approx(row["picture"].width / 6, abs=1) and x1 - x0 == pytest.approx(y1 - y0, abs=1e-3)


def test_near_duplicates_and_neutral_frames_are_dropped(tmp_path):
    out = tmp_path / "out"
    settings = ImportSettings(neutral=0.04, keep_neutral=2, apart=0.095, splits={"train": 1.0})
    done, _ = run_import(
        [write_take(tmp_path / "take", count=40)], out, settings, consent=agree(tmp_path / "c.yaml", "ann")
    )
    # Rest is 0.04, the tenth percentile of 0, 0.01, … 0.39: frames 0 to 7 are neutral; the first and the last are kept.
    assert numbers(out)[1] == [0, 7, 17, 27, 37]
    assert done.records[0].counts == {"kept": 5, "near duplicate": 29, "near neutral": 6}
    page = (out / "report" / f"{done.records[0].key}.html").read_text()
    assert "Near duplicate" in page and "Near neutral" in page and page.count("<img") >= 5 * 2 + 6 * 2


def test_subtracting_the_resting_face(tmp_path):
    settings = ImportSettings(neutral=0, apart=0, calibrate="rest", splits={"train": 1.0})
    take = write_take(tmp_path / "take", count=21)
    consent = agree(tmp_path / "c.yaml", "ann")
    run_import([take], tmp_path / "a", settings, consent=consent)
    taken = coefficients_of(load_faces(tmp_path / "a", "train"))
    assert np.allclose(taken[:, 17], np.clip((np.arange(21) / 100 - 0.02) / 0.98, 0, 1), atol=1e-5)
    assert np.allclose(taken[:, 0], 0.05) and np.allclose(taken[:, 18], 0)
    # In a calibrated take, the app's own resting face is subtracted from the recorded values; by default its
    # calibrated values are used.
    stem = take / "Scene_1_ann.csv"
    for part in ("raw", "neutral", "cal"):
        text = stem.read_text()
        if part == "neutral":
            text = "\n".join(text.splitlines()[:2])
        (take / f"Scene_1_ann_{part}.csv").write_text(
            text.replace("0.0500000000", "0.0400000000") if part == "cal" else text
        )
    stem.unlink()
    run_import([take], tmp_path / "b", settings, consent=consent)
    taken = coefficients_of(load_faces(tmp_path / "b", "train"))
    assert np.allclose(taken[:, 17], np.arange(21) / 100, atol=1e-5) and np.allclose(taken[:, 18], 0)
    (take / "Scene_1_ann_neutral.csv").write_text("of an unknown form\n")
    run_import([take], tmp_path / "c", ALL, consent=consent)
    assert np.allclose(coefficients_of(load_faces(tmp_path / "c", "train"))[:, 18], 0.04)


def test_broken_input_is_named_and_the_rest_is_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(WholePicture, "faceless", (9,))
    root = tmp_path / "takes"
    good = write_take(root / "1", "Scene_1_ann")
    path = good / "Scene_1_ann.csv"
    lines = path.read_text().splitlines()
    lines[5] = lines[5].replace("0.0500000000", "nan", 1)
    path.write_text("\n".join(lines))
    damage(good / "Scene_1_ann.mov", 2)
    (write_take(root / "2", "Scene_2_ann") / "Scene_2_ann.mov").unlink()
    cut = write_take(root / "3", "Scene_3_ann") / "Scene_3_ann.mov"
    cut.write_bytes(cut.read_bytes()[:300])
    (write_take(root / "4", "Scene_4_ann") / "Scene_4_ann.csv").write_text("Timecode,x\n")
    (root / "5.zip").write_bytes(b"PK\x03\x04 and no more")
    write_take(root / "6", "Scene_6_ann", clock=3_600_000, count=4, subject="ann")
    shutil.copy(good / "Scene_1_ann.mov", root / "6" / "Scene_6_ann.mov")
    out = tmp_path / "out"
    done, _ = run_import([root], out, consent=agree(tmp_path / "c.yaml", "ann"))
    in_picture, labelled = numbers(out)
    assert in_picture[:2] == labelled[:2] == [0, 1] and not {2, 4, 9} & set(labelled) and {10, 11} <= set(labelled)
    (record,) = done.records
    assert record.counts["no face"] == 1 and record.counts["bad row"] == 1 and record.counts["damaged frame"] >= 1
    remarks = "\n".join(record.remarks)
    assert "Scene_1_ann.csv, line 6, column 3" in remarks and "frame 10: no face found" in remarks
    assert "frame 3: the frame is damaged" in remarks and done.left_out
    problems = "\n".join(done.problems)
    assert "Scene_2_ann.csv: its video is missing" in problems and "Scene_3_ann.mov: " in problems
    assert "Scene_4_ann.csv, line 1" in problems and "5.zip: not a ZIP" in problems
    assert "Scene_6_ann.csv: no face left to import" in problems and len(done.problems) == 5
    report = (out / "report.html").read_text()
    assert "Left out" in report and "5.zip" in report


def test_truncated_video(tmp_path):
    take, consent = write_take(tmp_path / "take", count=60), agree(tmp_path / "c.yaml", "ann")
    film = take / "Scene_1_ann.mov"
    # A truncated MOV lacks its index, which comes last; Matroska is readable up to the cut.
    whole = write_clip(film.with_suffix(".mkv"), bars(60, 64, 64), timecode="13:13:04:00").read_bytes()
    film.write_bytes(film.read_bytes()[:2000])
    film.with_suffix(".mkv").rename(tmp_path / "film.mkv")
    done, _ = run_import([take], tmp_path / "a", consent=consent)
    assert not done.records and "Scene_1_ann.mov: not a readable video" in done.problems[0]
    film.unlink()
    film.with_suffix(".mkv").write_bytes(whole[: len(whole) // 2])
    done, _ = run_import([take], tmp_path / "b", consent=consent)
    (record,) = done.records
    assert 5 < record.kept < 55 and record.counts["no frame"] == 60 - record.kept and done.left_out
    assert "the video is truncated" in "\n".join(record.remarks) and "Scene_1_ann.mkv" in "\n".join(record.remarks)
    in_picture, labelled = numbers(tmp_path / "b")
    assert in_picture == labelled == list(range(record.kept))


def test_zipped_takes_give_the_same_rows_and_leave_no_files(tmp_path):
    take = write_take(tmp_path / "Scene_1", says="log")
    with zipfile.ZipFile(tmp_path / "t.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in take.iterdir():
            archive.write(file, f"Scene_1/{file.name}")
    consent = agree(tmp_path / "c.yaml", "ann")
    run_import([take], tmp_path / "a", consent=consent)
    run_import([tmp_path / "t.zip"], tmp_path / "b", consent=consent)
    (one,), (other,) = ((tmp_path / name / "train").glob("*.arrow") for name in "ab")
    assert one.name == other.name and one.read_bytes() == other.read_bytes()
    assert not (tmp_path / "b" / ".unpacked").exists() and not list((tmp_path / "b").rglob(".*"))
    done, log = run_import([take, tmp_path / "t.zip"], tmp_path / "b")
    assert not done.new and len(done.records) == 1 and "already imported" in log[0]


def test_a_stopped_import_resumes(tmp_path, monkeypatch):
    for n in (1, 2, 3):
        write_take(tmp_path / "takes" / str(n), f"Scene_{n}_ann", clock=n * 3_600_000, count=4)
    out, consent = tmp_path / "out", agree(tmp_path / "c.yaml", "ann")
    run_import([tmp_path / "takes" / "1"], out, consent=consent)
    before = {path: path.read_bytes() for path in out.rglob("*.arrow")}
    made = []

    def stop(*arguments):
        made.append(arguments)
        if len(made) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    original = importer.import_take
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(importer, "import_take", stop)
        run_import([tmp_path / "takes"], out)
    assert len(load_faces(out, "train")) == 4  # the previous state, until everything is imported
    (out / "train" / ".take-x.arrow.abc").mkdir()
    (out / ".unpacked").mkdir()
    done, _ = run_import([tmp_path / "takes"], out)
    assert len(done.new) == 1 and done.rows == {"train": 12} and len(load_faces(out, "train")) == 12
    assert all(path.read_bytes() == data for path, data in before.items())
    assert not list(out.rglob(".*"))
    whole, _ = run_import([tmp_path / "takes"], tmp_path / "at once", consent=consent)
    assert whole.rows == done.rows
    for path in (tmp_path / "at once" / "train").glob("*"):
        assert path.read_bytes() == (out / "train" / path.name).read_bytes()


def test_people_stay_in_their_split(tmp_path):
    settings = ImportSettings(neutral=0, apart=0)
    takes = [write_take(tmp_path / who, f"Scene_1_{who}", count=2, clock=n * 3_600_000) for n, who in enumerate("abcd")]
    out, consent = tmp_path / "out", agree(tmp_path / "c.yaml", *"abcd")
    run_import(takes[:3], out, settings, consent=consent, assign={"a": "train", "b": "validation", "c": "test"})
    for split, who in (("train", "a"), ("validation", "b"), ("test", "c")):
        assert set(load_faces(out, split)["subject"]) == {who}
    again = write_take(tmp_path / "more", "Scene_2_b", count=3, clock=9 * 3_600_000)
    done, _ = run_import([again], out, settings)
    assert done.records[0].split == "validation" and done.rows == {"train": 2, "validation": 5, "test": 2}
    with pytest.raises(ConfigError, match=r"b is already in the split validation, and nobody may be in two"):
        run_import([again], out, settings, assign={"b": "train"})
    with pytest.raises(ConfigError, match="there is no split 'dev'"):
        run_import([again], out, settings, assign={"d": "dev"})


def test_a_replaced_video_is_imported_again(tmp_path):
    take = write_take(tmp_path / "take", count=10)
    film = take / "Scene_1_ann.mov"
    whole = film.read_bytes()
    write_take(tmp_path / "short", count=6)
    shutil.copy(tmp_path / "short" / "Scene_1_ann.mov", film)
    out = tmp_path / "out"
    run_import([take], out, consent=agree(tmp_path / "c.yaml", "ann"))
    assert len(load_faces(out, "train")) == 6
    film.write_bytes(whole)
    done, _ = run_import([take], out)
    assert len(done.new) == 1 and len(load_faces(out, "train")) == 10


def test_another_folder_or_other_settings_are_refused(tmp_path):
    take, consent = write_take(tmp_path / "take", count=2), agree(tmp_path / "c.yaml", "ann")
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(DatasetError, match="holds no captures"):
        run_import([take], other, consent=consent)
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]
    run_import([take], tmp_path / "out", consent=consent)
    with pytest.raises(DatasetError, match=r"other settings \(size 512 there, 256 here\)"):
        run_import([take], tmp_path / "out", ImportSettings(neutral=0, apart=0, splits={"train": 1.0}, size=256))
    with pytest.raises(DatasetError, match="holds no captures"):
        remove_empty_takes(tmp_path / "take")
    with pytest.raises(ConfigError, match="splits must be"):
        ImportSettings(splits={"a b": 1.0})


def test_without_consent_the_error_contains_a_template(tmp_path):
    take = write_take(tmp_path / "take", count=2, subject="Ann's iPhone")
    with pytest.raises(ConfigError, match="nobody is imported without one") as refused:
        run_import([take], tmp_path / "out", consent=tmp_path / "c.yaml")
    assert not list((tmp_path / "out").rglob("*.arrow"))
    text = str(refused.value).partition("\n\n")[2]
    assert list(yaml.safe_load(text)["subjects"]) == ["Ann's iPhone"]
    (tmp_path / "c.yaml").write_text(text)
    done, _ = run_import([take], tmp_path / "out", consent=tmp_path / "c.yaml")
    assert done.rows == {"train": 2} and "Ann's iPhone" in read_consent_file(tmp_path / "out" / NAME)


def test_people_without_consent_are_left_out(tmp_path):
    who = ("ann", "ben", "cem", "dora", "eve")
    takes = [write_take(tmp_path / name, f"S_1_{name}", count=2, clock=n * 3_600_000) for n, name in enumerate(who)]
    day = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=1)
    (tmp_path / "c.yaml").write_text(
        "subjects:\n  ann: {licence: CC0-1.0, uses: [train]}\n  ben: {reference: f, uses: [show]}\n"
        f"  cem: {{reference: f, uses: [train], until: {day}}}\n  dora: false\n"
    )
    done, _ = run_import(takes, tmp_path / "out", consent=tmp_path / "c.yaml")
    assert [record.subject for record in done.records] == ["ann"] and done.left_out
    problems = "\n".join(done.problems)
    assert "ben agreed to show, not to train" in problems and f"the consent of cem ended on {day}" in problems
    assert "no consent of dora" in problems and "no consent of eve. Add an entry:\n\nsubjects:\n" in problems
    assert set(load_faces(tmp_path / "out", "train")["subject"]) == {"ann"}


def test_a_consent_list_that_omits_somebody_is_refused(tmp_path):
    out = tmp_path / "out"
    run_import([write_take(tmp_path / "t", count=2)], out, consent=agree(tmp_path / "c.yaml", "ann"))
    with pytest.raises(ConfigError, match="does not name ann"):
        run_import([write_take(tmp_path / "u", "S_1_ben", count=2)], out, consent=agree(tmp_path / "d.yaml", "ben"))
    assert list(read_consent_file(out / NAME)) == ["ann"]


def test_training_and_evaluation_require_consent(tmp_path, capsys):
    out, both = tmp_path / "out", dataclasses.replace(ALL, splits={"train": 0.5, "validation": 0.5})
    assign = {"ann": "train", "ben": "validation"}
    takes = [
        write_take(tmp_path / who, f"S_1_{who}", count=2, clock=n * 3_600_000) for n, who in enumerate(("ann", "ben"))
    ]
    run_import(takes, out, both, consent=agree(tmp_path / "c.yaml", "ann", "ben"), assign=assign)
    faces = load_faces(out, "train")
    require_consent(out, faces, "train")
    require_consent(out, faces, "evaluate")
    with pytest.raises(ConfigError, match=r"ann agreed to .*, not to publish\. Ask them .* forget SUBJECT"):
        require_consent(out, faces, "publish")
    (out / NAME).unlink()
    with pytest.raises(ConfigError, match="no consent of ann"):
        require_consent(out, faces, "train")
    options = ["--dataset", str(out), "--split", "train", "--out", str(tmp_path / "figures")]
    assert load_script("eval/evaluate.py").main(options) == 2
    assert "no consent of ann. Ask them" in capsys.readouterr().err
    settings = read_settings(ROOT / "train/configs/quickstart.yaml", DISTILL.Settings, [f"dataset={out}"])
    with pytest.raises(ConfigError, match="no consent of ann"):
        DISTILL.distill(settings)


def test_expired_consent_is_reported(tmp_path):
    out = tmp_path / "out"
    run_import([write_take(tmp_path / "t", count=2)], out, consent=agree(tmp_path / "c.yaml", "ann"))
    agree(out / NAME, "ann", more=", until: 2020-01-01")
    _, log = run_import([write_take(tmp_path / "t", count=2)], out)
    assert log == [f"the consent of ann ended on 2020-01-01. Delete their faces: semanticface forget SUBJECT {out}"]


def test_forgetting_a_person_deletes_rows_pages_and_records(tmp_path, capsys):
    takes = [write_take(tmp_path / who, f"S_1_{who}", count=3, clock=n * 3_600_000) for n, who in enumerate("ab")]
    out = tmp_path / "out"
    done, _ = run_import(takes, out, consent=agree(tmp_path / "c.yaml", "a", "b"))
    key = next(record.key for record in done.records if record.subject == "a")
    assert main(["forget", "a", str(out), "--yes"]) == 0
    printed = capsys.readouterr().out
    assert "3 rows deleted" in printed and "consent.yaml still names a" in printed
    assert "pages and records of 1 takes deleted" in printed
    assert list(load_faces(out, "train")["subject"]) == ["b"] * 3
    left = [path for path in out.rglob("*") if path.is_file() and path.name != NAME]
    assert not any(key in path.name or key.encode() in path.read_bytes() for path in left)
    agree(out / NAME, "b")
    done, _ = run_import(takes, out)
    assert "no consent of a" in done.problems[0] and done.rows == {"train": 3}


def test_the_script(tmp_path, monkeypatch, capsys):
    script = load_script("data_prep/import_livelink.py")
    out = tmp_path / "out"

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["import_livelink.py", *map(str, arguments), "--out", str(out)])
        code = script.main()
        return code, *capsys.readouterr()

    help_text = script.arguments().format_help()
    assert "--consent consent.yaml" in help_text and "uses: [train" in help_text
    take = write_take(tmp_path / "take", "Scene_1_iPhone", count=4)
    wanted = ("--neutral", "0", "--apart", "0", "--no-emotion")
    code, _, err = run(take, "--subject", "ann", *wanted)
    assert code == 2 and "error: " in err and '"ann":' in err
    agree(out / NAME, "ann", "ben")
    code, printed, err = run(take, "--subject", "ann", "--assign", "ann=test", *wanted)
    assert code == 0 and "4 faces of ann kept in test" in printed and "4 in test" in printed
    assert "nobody is in train yet" in err
    code, printed, err = run(take, tmp_path / "gone", "--subject", "ann", *wanted)
    assert code == 1 and "already imported" in printed and "gone: no such file or folder" in err
    code, _, err = run(tmp_path / "gone", *wanted)
    assert code == 2 and "nothing could be imported" in err
    check_rows(load_faces(out, "test"), out, emotion=False)
    monkeypatch.setattr(script, "import_takes", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run(take)[0] == 130
    for wrong in ((), ("--assign", "ann"), ("--splits", "train"), ("--splits", "a=1,a=2")):
        with pytest.raises(SystemExit):
            run(*((take, *wrong) if wrong else ()))


def test_frame_numbers_can_be_read_from_bars():
    assert [number_of(pixels) for pixels in bars(40, 64, 64)] == list(range(40))
