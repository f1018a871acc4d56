"""Rendered datasets: deterministic bytes, resuming, splits by subject, and errors for incomplete ones."""

import dataclasses
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pytest

from semanticface.data import faces, rendered
from semanticface.data.faces import FEATURES, coefficients_of, load_faces
from semanticface.data.rendered import RenderSettings, rows_by_split, split_of, subjects_by_split
from semanticface.errors import ConfigError, DatasetError, SemanticFaceError
from semanticface.rendering.types import POINTS
from semanticface.semantics.answer import parse_answer

SCRIPT = Path(__file__).parents[2] / "data_prep/render_faces.py"
THREE_SPLITS = {"train": 0.9, "validation": 0.05, "test": 0.05}
SMALL = RenderSettings(
    rows=30, looks={"drawn": 1.0}, size=48, supersample=1, framing="crop", splits=THREE_SPLITS, subjects=200, seed=3
)


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(autouse=True)
def short_shards(monkeypatch):
    monkeypatch.setattr(rendered, "SHARD_ROWS", 10)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendered, "SHARD_ROWS", 10)
        return rendered.render_set(tmp_path_factory.mktemp("faces") / "made", SMALL)


def test_columns_and_round_trip(made):
    everything = datasets.load_from_disk(str(made))
    assert list(everything) == ["train", "validation", "test"]
    assert sum(len(split) for split in everything.values()) == SMALL.rows
    train = load_faces(made, "train")
    assert train.features == FEATURES
    for row in train:
        assert row["picture"].size == (48, 48) and row["picture"].mode == "RGB"
        coefficients = np.array(row["coefficients"], dtype=np.float32)
        answer = parse_answer(row["answer"])
        np.testing.assert_allclose(answer.coefficients, np.round(coefficients, 2), atol=1e-6)
        assert answer.analysis is not None and answer.analysis.emotional_implication is not None
        assert np.array(row["points"]).shape == (len(POINTS), 2)
        assert row["look"] == "drawn"
    assert len({row["subject"] for row in train}) > 10
    chosen = coefficients_of(train.select([5, 2]))
    assert chosen.dtype == np.float32 and np.array_equal(chosen, [train[5]["coefficients"], train[2]["coefficients"]])


def test_pictures_carry_no_metadata(made):
    stored = load_faces(made, "test").cast_column("picture", datasets.Image(decode=False))[0]["picture"]
    assert stored["path"] is None
    picture = PIL.Image.open(io.BytesIO(stored["bytes"]))
    assert set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert not picture.getexif()


def test_a_row_is_reproduced_from_its_seed(made):
    row = load_faces(made, "train").cast_column("picture", datasets.Image(decode=False))[5]
    again = rendered.make_row(SMALL, subjects_by_split(SMALL)["train"], row["seed"])
    assert again["picture"] == row["picture"]["bytes"]
    assert again["answer"] == row["answer"]
    assert again["subject"] == row["subject"]


def test_bytes_do_not_depend_on_workers(made, tmp_path):
    out = tmp_path / made.name
    two = rendered.render_set(out, SMALL, workers=2)
    assert hashes(two) == hashes(made)


def test_a_stopped_run_resumes_to_the_same_bytes(made, tmp_path, monkeypatch):
    out = tmp_path / made.name
    draw, drawn = rendered.make_row, []

    def stopping(*arguments):
        if len(drawn) == 17:
            raise KeyboardInterrupt
        drawn.append(arguments[-1])
        return draw(*arguments)

    monkeypatch.setattr(rendered, "make_row", stopping)
    with pytest.raises(KeyboardInterrupt):
        rendered.render_set(out, SMALL)
    finished = {name: sha for name, sha in hashes(out).items() if name.endswith(".arrow")}
    assert len(finished) == 1 and not list(out.rglob(".*"))
    with pytest.raises(DatasetError, match=r"incomplete.*again; it resumes"):
        load_faces(out, "train")
    with pytest.raises(FileNotFoundError):
        datasets.load_from_disk(str(out))

    monkeypatch.setattr(rendered, "make_row", draw)
    before = (out / next(iter(finished))).stat().st_mtime_ns
    rendered.render_set(out, SMALL)
    assert (out / next(iter(finished))).stat().st_mtime_ns == before, "a finished shard was rendered again"
    assert hashes(out) == hashes(made)


def test_a_killed_run_resumes_and_leaves_no_worker(made, tmp_path):
    out = tmp_path / "killed"
    program = (
        "from semanticface.data import rendered as r; r.SHARD_ROWS = 40; "
        "settings = r.RenderSettings(rows=200, looks={{'drawn': 1.0}}, size=48, splits={{'train': 1.0}}); "
        "r.render_set({!r}, settings, workers=2)"
    )
    command = [sys.executable, "-c", program.format(str(out))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300
    while not list(out.glob("train/*.arrow")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert list(out.glob("train/*.arrow"))
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("worker processes outlived the killed program")
    assert not (out / "dataset_dict.json").exists()
    again = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr
    assert len(load_faces(out, "train")) == 200
    assert not list(out.rglob(".*")), "scratch of the killed run"


def test_a_finished_folder_is_not_changed(made):
    before = hashes(made)
    assert rendered.render_set(made, SMALL) == made
    assert hashes(made) == before


@pytest.mark.parametrize("change", [{"rows": 31}, {"seed": 4}, {"emotion": False}, {"looks": {"toon": 1.0}}])
def test_other_settings_are_refused_and_named(made, change):
    with pytest.raises(DatasetError, match=rf"{next(iter(change))} .*--out.*--overwrite"):
        rendered.render_set(made, dataclasses.replace(SMALL, **change))


def test_a_newer_setting_has_its_default(tmp_path):
    few = dataclasses.replace(SMALL, rows=2, splits={"train": 1.0})
    out = rendered.render_set(tmp_path / "set", few)
    recipe = json.loads((out / rendered.RECIPE_NAME).read_text())
    del recipe["settings"]["first_subject"]
    (out / rendered.RECIPE_NAME).write_text(json.dumps(recipe))
    assert rendered.render_set(out, few) == out
    with pytest.raises(DatasetError, match="first_subject 0 there, 9 here"):
        rendered.render_set(out, dataclasses.replace(few, first_subject=9))


def test_overwrite_replaces_only_what_it_made(tmp_path):
    few = dataclasses.replace(SMALL, rows=4, splits={"train": 1.0})
    out = rendered.render_set(tmp_path / "set", few)
    rendered.render_set(out, dataclasses.replace(few, rows=5), overwrite=True)
    assert len(load_faces(out, "train")) == 5
    other = tmp_path / "letters"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    with pytest.raises(DatasetError, match="something else"):
        rendered.render_set(other, few, overwrite=True)
    assert (other / "letter.txt").read_text() == "dear"


def test_subjects_never_share_a_split_and_do_not_depend_on_rows_or_seed():
    many = RenderSettings(rows=10, subjects=5000, splits={"train": 0.8, "validation": 0.1, "test": 0.1})
    people = subjects_by_split(many)
    everyone = np.concatenate(list(people.values()))
    assert len(everyone) == len(set(everyone.tolist())) == 5000
    assert abs(len(people["train"]) / 5000 - 0.8) < 0.03
    changed = subjects_by_split(dataclasses.replace(many, rows=77, seed=9))
    for split in people:
        np.testing.assert_array_equal(people[split], changed[split])
    later = subjects_by_split(dataclasses.replace(many, subjects=4000, first_subject=1000))
    np.testing.assert_array_equal(later["test"], people["test"][people["test"] >= 1000])
    # Pinned: another hash would move people between splits of existing datasets.
    pinned = {0: "train", 1: "test", 8: "test", 12: "validation", 21: "validation"}
    assert {subject: split_of(subject, many.splits) for subject in pinned} == pinned


def test_subjects_of_rows_come_from_their_split(made):
    people = subjects_by_split(SMALL)
    seen = {}
    for split in SMALL.splits:
        names = {rendered.subject_name(subject) for subject in people[split]}
        seen[split] = set(load_faces(made, split)["subject"])
        assert seen[split] <= names
    assert not seen["train"] & seen["test"]


def test_one_subject_holds_out_pictures():
    settings = dataclasses.replace(SMALL, subject=7)
    people = {split: found.tolist() for split, found in subjects_by_split(settings).items()}
    assert people == {"train": [7], "validation": [7], "test": [7]}


def test_row_counts_are_exact():
    counts = rows_by_split(RenderSettings(rows=1001, splits={"train": 8, "validation": 1, "test": 1}))
    assert sum(counts.values()) == 1001 and counts["train"] == 801
    with pytest.raises(ConfigError, match="rows"):
        rows_by_split(RenderSettings(rows=3))
    with pytest.raises(ConfigError, match="raise subjects"):
        subjects_by_split(RenderSettings(subjects=2))


def test_a_single_split_has_its_own_people(tmp_path):
    settings = dataclasses.replace(SMALL, only="test", rows=3)
    folder = rendered.render_set(tmp_path / "test", settings, workers=1)
    assert list(datasets.load_from_disk(str(folder))) == ["test"]
    names = {rendered.subject_name(subject) for subject in subjects_by_split(SMALL)["test"]}
    rows = load_faces(folder, "test")
    assert len(rows) == 3 and set(rows["subject"]) <= names


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rows": 0}, "rows"),
        ({"only": "exam"}, "no split"),
        ({"size": 8}, "size"),
        ({"supersample": 9}, "supersample"),
        ({"looks": {"oil": 1.0}}, "oil"),
        ({"looks": {"photo": 0.0}}, "above 0"),
        ({"looks": {"photo": float("nan")}}, "above 0"),
        ({"splits": {}}, "splits"),
        ({"splits": {"../evil": 1.0}}, "plain name"),
        ({"framing": "wide"}, "framing"),
        ({"seed": -1}, "seed"),
        ({"first_subject": -1}, "first_subject"),
    ],
)
def test_invalid_settings_are_refused(change, named):
    with pytest.raises(ConfigError, match=named):
        RenderSettings(**change)


def test_no_shard_holds_more_rows_than_the_limit(tmp_path):
    shards = rendered._shards(tmp_path, dataclasses.replace(SMALL, rows=1234))
    assert max(shard.stop - shard.start for shard in shards) <= 10
    assert sum(shard.stop - shard.start for shard in shards) == 1234
    assert len({shard.path for shard in shards}) == len(shards)
    for split, rows in rows_by_split(dataclasses.replace(SMALL, rows=1234)).items():
        covered = [n for shard in shards if shard.split == split for n in range(shard.start, shard.stop)]
        assert covered == list(range(rows))


def test_memory_holds_one_shard(tmp_path, monkeypatch):
    """At most one shard's rows are alive at a time."""
    alive, most = set(), 0

    class Row(dict):
        def __init__(self, row):
            nonlocal most
            super().__init__(row)
            alive.add(id(self))
            most = max(most, len(alive))

        def __del__(self):
            alive.discard(id(self))

    draw = rendered.make_row
    monkeypatch.setattr(rendered, "make_row", lambda *arguments: Row(draw(*arguments)))
    rendered.render_set(tmp_path / "set", dataclasses.replace(SMALL, rows=60))
    assert most <= rendered.SHARD_ROWS + 1


def limit_file_size() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))


def test_full_disk_is_one_clear_error_and_resumable(tmp_path):
    out = tmp_path / "full"
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--rows", "20", "--styles", "drawn=1", "--size", "64",
               "--splits", "train=1", "--workers", "1"]  # fmt: skip
    full = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit_file_size, timeout=600)
    assert full.returncode == 1
    assert full.stderr.count("error:") == 1 and "Free some space" in full.stderr and "Traceback" not in full.stderr
    assert not list(out.rglob("*.arrow"))
    again = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr
    assert len(load_faces(out, "train")) == 20


def test_error_in_a_worker_reaches_the_caller(tmp_path):
    out = tmp_path / "set"
    few = dataclasses.replace(SMALL, rows=12, splits={"train": 1.0})
    out.mkdir()
    rendered._start(out, few, overwrite=False)
    (out / "train").write_text("a file where a folder must be")
    with pytest.raises(SemanticFaceError, match="cannot write"):
        rendered.render_set(out, few, workers=2)


def test_errors_of_load_faces(made, tmp_path):
    with pytest.raises(DatasetError, match=r"no such folder.*semanticface render-faces"):
        load_faces(tmp_path / "absent", "train")
    with pytest.raises(DatasetError, match=r"dataset_dict\.json is missing"):
        load_faces(made / "train", "train")
    with pytest.raises(DatasetError, match=r"no split 'dev'.*train, validation, test"):
        load_faces(made, "dev")

    plain = tmp_path / "plain"
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"picture": ["a"], "text": ["b"]})}).save_to_disk(plain)
    with pytest.raises(DatasetError, match="lacks the columns coefficients, subject, answer"):
        load_faces(plain, "train")

    broken = rendered.render_set(tmp_path / "broken", dataclasses.replace(SMALL, rows=6, splits={"train": 1.0}))
    shard = next(broken.glob("train/*.arrow"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="cannot be read"):
        load_faces(broken, "train")
    shard.unlink()
    with pytest.raises(DatasetError, match="is missing: copy"):
        load_faces(broken, "train")
    (broken / "train/state.json").write_text("{")
    with pytest.raises(DatasetError, match="cannot be read"):
        load_faces(broken, "train")
    (broken / "dataset_dict.json").write_text("[]")
    with pytest.raises(DatasetError, match="format"):
        load_faces(broken, "train")


def test_equal_rows_share_a_fingerprint(made, tmp_path):
    copy = shutil.copytree(made, tmp_path / "copy")
    assert load_faces(made, "train")._fingerprint == load_faces(copy, "train")._fingerprint
    assert load_faces(made, "train")._fingerprint != load_faces(made, "test")._fingerprint


def test_script_errors(tmp_path):
    bad = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(tmp_path / "x"), "--styles", "photo"], capture_output=True, text=True
    )
    assert bad.returncode == 2 and "photo=2,toon=1" in bad.stderr
    assert faces.recipe_of_kind(tmp_path / "x") is None


def test_expressions_are_shared_between_the_samplers(monkeypatch):
    monkeypatch.setattr(rendered, "sample_like_takes", lambda rng: "take")
    monkeypatch.setattr(rendered, "sample_coefficients", lambda rng: f"even {rng.random()}")
    monkeypatch.setattr(rendered, "render_row", lambda settings, coefficients, **rest: coefficients)

    def chosen(share):
        settings = dataclasses.replace(SMALL, take_share=share)
        return [rendered.make_row(settings, np.arange(9), seed) for seed in range(60)]

    assert set(chosen(1.0)) == {"take"}
    assert "take" not in chosen(0.0)
    assert 15 < chosen(0.5).count("take") < 45
    with pytest.raises(ConfigError, match="take_share"):
        dataclasses.replace(SMALL, take_share=1.5)
