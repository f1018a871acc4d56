"""Deleting a person: all their data goes; everybody else's stays and remains consistent."""

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
from pathlib import Path

import datasets
import numpy as np
import pytest

from semanticface.cli.main import main
from semanticface.data import ms_swift_export
from semanticface.data.captures import dataset, report
from semanticface.data.consent import NAME
from semanticface.data.describe import describe_dataset
from semanticface.data.faces import FEATURES, load_faces
from semanticface.data.ms_swift_export import export_swift
from semanticface.data.provenance import Source, source_of, sources_from_recipe, write_people
from semanticface.errors import DatasetError, SemanticFaceError
from semanticface.llm.chat import ChatReply
from semanticface.llm.reply_cache import ReplyCache
from semanticface.preference.files import read_candidates, read_choices, write_choices
from semanticface.preference.pairs import read_pairs, write_pairs
from semanticface.preference.store import Store
from semanticface.preference.types import Choice, Pair, Question
from semanticface.privacy import forget as forgetting
from semanticface.privacy import forget_all
from semanticface.privacy.forget import forget
from semanticface.privacy.forget_all import forget_everywhere
from semanticface.recipe import make_recipe, read_recipe, write_recipe
from semanticface.semantics.analysis import describe
from semanticface.semantics.answer import format_answer
from tests.data.test_ms_swift import agree, face, picture, row, run_import, write
from tests.helpers.candidate_sets import candidate_sets_of, save
from tests.helpers.scripts import ROOT
from tests.helpers.tiny_models import answers

PEOPLE = ("ann", "ben", "ann", "cem", None, "ben", "cem")


def _split(people, rng):
    count = len(people)
    columns = {
        "picture": [rng.integers(0, 256, (24, 24, 3), dtype=np.uint8) for _ in range(count)],
        "coefficients": [np.zeros(52, np.float32)] * count,
        "subject": list(people),
        "answer": answers(1) * count,
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features({key: FEATURES[key] for key in columns}))


@pytest.fixture
def place(tmp_path):
    """A dataset of a few people, and in ``run`` files about its training split."""
    rng = np.random.default_rng(0)
    splits = {"train": _split(PEOPLE, rng), "test": _split(("dora", "ann"), rng)}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "faces"), num_shards={"train": 2, "test": 1})
    (tmp_path / "faces" / NAME).write_text("subjects:\n  ann: true\n  ben: true\n")
    candidate_sets = [each for each in candidate_sets_of(tmp_path / "faces") if each.subject]
    run = tmp_path / "run" / "round-1"
    run.mkdir(parents=True)
    save(run / "candidates.jsonl", tmp_path / "faces", candidate_sets)
    when = "2026-11-22T09:30:00Z"
    asked = [Question(f"q{each.row}", each.picture, "upper", "model-1", "model-2") for each in candidate_sets]
    made = [Choice(question, "a", "robin", "m", 1, when) for question in asked]
    write_choices(run / "choices.jsonl", made)
    faces = [(each, *(candidate.coefficients for candidate in each.candidates[:2])) for each in candidate_sets]
    write_pairs(run / "pairs.jsonl", [Pair(s.picture, s.row, one, other, ("upper",)) for s, one, other in faces])
    (run / "metrics.jsonl").write_text('{"loss": 1}\n')
    (run / "empty.jsonl").write_text("")
    with Store(run / "choices.sqlite") as store:
        store.add_many(made)
    return tmp_path


def check_consistent(place, left):
    """Check that all files refer to the remaining rows by their new numbers."""
    faces = load_faces(place / "faces", "train")
    assert list(faces["subject"]) == left
    run = place / "run" / "round-1"
    now = {each.picture: each.row for each in candidate_sets_of(place / "faces")}
    named = {picture: row for picture, row in now.items() if left[row] is not None}
    found = read_candidates(run / "candidates.jsonl", dataset=faces._fingerprint)
    assert {each.picture: each.row for each in found.candidate_sets} == named and not found.problems
    assert {pair.picture: pair.row for pair in read_pairs(run / "pairs.jsonl")[0]} == named
    assert [choice.question.picture for _, choice in read_choices(run / "choices.jsonl")[0]] == list(named)
    with Store(run / "choices.sqlite") as store:
        assert [choice.question.picture for choice in store.choices()] == list(named)
    assert (run / "metrics.jsonl").read_text() == '{"loss": 1}\n'


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def held(place):
    return b"".join(file.read_bytes() for file in place.rglob("*") if file.is_file() and file.name != NAME)


def test_deleting_a_person_leaves_the_others_consistent(place, capsys):
    check_consistent(place, list(PEOPLE))
    pictures = [s.picture for s in candidate_sets_of(place / "faces") if s.subject == "ann"]
    raw = load_faces(place / "faces", "train").cast_column("picture", datasets.Image(decode=False))
    theirs = [row["picture"]["bytes"] for row in raw if row["subject"] == "ann"]
    assert all(data in held(place) for data in theirs)
    del raw
    cache = place / "faces" / "train" / "cache-0123.arrow"
    cache.write_bytes(theirs[0])
    assert main(["forget", "ann", str(place / "faces"), str(place / "run"), "--yes"]) == 0
    printed = capsys.readouterr().out
    assert "3 rows deleted" in printed and "2 choices deleted from databases" in printed
    for name in ("candidates", "choices", "pairs"):
        assert f"{name}.jsonl: 2 lines deleted" in printed
    assert "consent.yaml still names ann: remove the line" in printed
    check_consistent(place, ["ben", "cem", None, "ben", "cem"])
    assert list(load_faces(place / "faces", "test")["subject"]) == ["dora"]
    after = held(place)
    assert not any(picture.encode() in after for picture in pictures)
    assert not any(data in after for data in theirs)


def test_an_interrupted_call_resumes(place, monkeypatch):
    class Broken(Exception):
        pass

    def breaking(*_):
        raise Broken

    for step in ("_rewrite_split", "_index", "_rewrite_trace"):
        with monkeypatch.context() as patch, pytest.raises(Broken):
            patch.setattr(forgetting, step, breaking)
            forget("ann", place / "faces", [place / "run"])
    forget("ann", place / "faces", [place / "run"])
    check_consistent(place, ["ben", "cem", None, "ben", "cem"])


def test_round_predictions_are_deleted_whole(place):
    """Predictions are identified by row: the next run would attribute old ones to other pictures."""
    of_round, own = place / "run" / "round-1" / "predictions.jsonl", place / "run" / "predictions.jsonl"
    for file in (of_round, own):
        file.write_text('{"image": "picture 1"}\n{"image": "picture 2"}\n')
    gone = forget("ann", place / "faces", [place / "run"])
    assert gone.lines[of_round] == 2 and not of_round.exists()
    assert own not in gone.lines and own.exists()


def test_deleting_everybody_one_by_one(place):
    for subject in ("ann", "ben", "cem", "dora"):
        forget(subject, place / "faces", [place / "run"])
    assert list(load_faces(place / "faces", "train")["subject"]) == [None]
    assert len(load_faces(place / "faces", "test")) == 0
    assert read_candidates(place / "run" / "round-1" / "candidates.jsonl").candidate_sets == ()


def test_invalid_lines_are_unchanged(place):
    path = place / "run" / "round-1" / "candidates.jsonl"
    path.write_bytes(path.read_bytes() + b"{broken\n\xff\n")
    forget("ann", place / "faces", [place / "run"])
    assert path.read_bytes().endswith(b"\n{broken\n\xff\n")


def test_errors_delete_nothing(place):
    before = held(place)
    with pytest.raises(DatasetError, match=r"no picture of 'anne'.*Did you mean ann\?"):
        forget("anne", place / "faces", [place / "run"])
    with pytest.raises(SemanticFaceError, match="no such file or folder"):
        forget("ann", place / "faces", [place / "gone"])
    with pytest.raises(SemanticFaceError, match="neither"):
        forget("ann", place / "faces", [place / "faces" / NAME])
    with pytest.raises(DatasetError, match="not a dataset"):
        forget("ann", place / "run", [])
    assert held(place) == before


def test_a_person_of_whom_only_candidates_are_left(place):
    """As if the rows had been deleted by other means."""
    forget("ann", place / "faces", [])
    run = place / "run" / "round-1"
    assert json.loads((run / "candidates.jsonl").read_text().split("\n")[1])["subject"] == "ann"
    gone = forget("ann", place / "faces", [run])
    assert gone.rows == 0 and gone.choices == 2
    check_consistent(place, ["ben", "cem", None, "ben", "cem"])


def run_forget(subject, *paths):
    log = []
    return forget_everywhere(subject, paths, log=log.append), "\n".join(log)


def model(folder, sources, *, people=True, **recipe):
    made = make_recipe(
        "adapter", base=None, prompt={}, emotion=True, readout="mean", image_size=32, metrics={},
        settings=recipe, trained_on=None if sources is None else [source.to_dict() for source in sources],
    )  # fmt: skip
    folder.mkdir(parents=True)
    write_recipe(folder, made)
    if people and sources is not None:
        write_people(folder, sources)
    return folder


@pytest.fixture
def no_consent_check(monkeypatch):
    """Exports from before consent was required: of people on no list, and of rows that name nobody."""
    monkeypatch.setattr(ms_swift_export, "require_consent", lambda *_: None)


@pytest.mark.usefixtures("no_consent_check")
def test_copies_exports_pages_and_traces_are_deleted_and_models_named(place):
    faces, out = place / "faces", place / "exports" / "published"
    described, single = place / "described", place / "single"
    describe_dataset(faces, described)
    datasets.load_from_disk(str(faces))["train"].save_to_disk(str(single))
    export_swift(faces, out, "published")
    (place / "evaluation").mkdir()
    (place / "evaluation" / "metrics.json").write_text(json.dumps({"recipe": {"dataset": str(faces)}}))
    (place / "evaluation" / "report.html").write_text("pictures")
    (place / "other").mkdir()
    (place / "other" / "metrics.json").write_text(json.dumps({"recipe": {"dataset": "elsewhere"}}))
    (place / "other" / "report.html").write_text("pictures of others")
    source = source_of(load_faces(faces, "train"), faces, "train")
    trained = model(place / "trained", [source])
    validated = model(place / "validated", [source_of(load_faces(described, "test"), described, "test")])
    old = model(place / "old", None, dataset=str(faces), data={"train": {"fingerprint": "x", "rows": 7}})
    aligned = model(place / "aligned", [*sources_from_recipe(read_recipe(old)), Source("other", "train", "z", 1, 0)])
    unrelated = model(place / "unrelated", None, dataset="elsewhere", data={"train": {"fingerprint": "y", "rows": 7}})
    (place / "begun" / "features").mkdir(parents=True)
    (place / "begun" / "settings.json").write_text(json.dumps({"dataset": str(faces)}))
    (place / "begun" / "features" / "0.safetensors").write_bytes(b"cached vision features")
    raw = load_faces(faces, "train").cast_column("picture", datasets.Image(decode=False))
    theirs = [row["picture"]["bytes"] for row in raw if row["subject"] == "ann"]
    pictures = {name: (out / name).read_bytes() for row in lines(out / "train.jsonl") for name in row["images"]}
    gone, log = run_forget("ann", place)
    assert list(load_faces(described, "train")["subject"]) == ["ben", "cem", None, "ben", "cem"]
    assert list(datasets.load_from_disk(str(single))["subject"]) == ["ben", "cem", None, "ben", "cem"]
    check_consistent(place, ["ben", "cem", None, "ben", "cem"])
    assert [row["subject"] for row in lines(out / "train.jsonl")] == ["ben", "cem", None, "ben", "cem"]
    assert lines(out / "test.jsonl")[0]["subject"] == "dora"
    left = {name for row in lines(out / "train.jsonl") for name in row["images"]}
    assert {f"images/{path.name}" for path in (out / "images").glob("train-*")} == left
    assert all((out / name).read_bytes() == pictures[name] for name in left) and len(left) == 5
    assert not any(data in held(place) for data in theirs)
    assert not (place / "evaluation" / "report.html").exists() and (place / "evaluation" / "metrics.json").exists()
    assert (place / "other" / "report.html").exists() and not (place / "begun" / "features").exists()
    assert {(each.folder, each.certain, each.finished) for each in gone.models} == {
        (trained, True, True),
        (validated, True, True),
        (old, False, True),
        (aligned, False, True),
        (place / "begun", False, False),
    }
    assert f"{trained}: trained on ann. A model cannot unlearn: delete it and all its copies" in log
    assert f"{old}: trained on {faces}, perhaps with ann in it" in log and str(unrelated) not in log
    assert log.index(str(trained)) < log.index("rows deleted")  # logged first, in case of an interruption
    assert f"{faces / NAME} still names ann" in log and f"{out / NAME} still names ann" in log
    # Again: the pictures are deleted, the model is not.
    (faces / NAME).unlink()
    again, log = run_forget("ann", place)
    assert {each.folder for each in again.models} == {trained, validated} and not again.deleted


def test_an_unknown_person_is_an_error(place):
    before = held(place)
    with pytest.raises(DatasetError, match=r"nothing about 'anne'.*Did you mean ann\?"):
        run_forget("anne", place)
    with pytest.raises(SemanticFaceError, match="no such file or folder"):
        run_forget("ann", place / "gone")
    assert held(place) == before


def test_candidates_about_one_of_two_copies_keep_their_dataset(place):
    """The same pictures, saved twice: rows are renumbered, and the header still names its own dataset."""
    copy = place / "copied"
    describe_dataset(place / "faces", copy)
    assert load_faces(copy, "train")._fingerprint != load_faces(place / "faces", "train")._fingerprint
    run_forget("ann", place)
    check_consistent(place, ["ben", "cem", None, "ben", "cem"])
    candidate_sets = [each for each in candidate_sets_of(copy) if each.subject]
    save(place / "run" / "copied.jsonl", copy, candidate_sets)
    run_forget("ben", place)
    fingerprint = load_faces(copy, "train")._fingerprint
    assert read_candidates(place / "run" / "copied.jsonl", dataset=fingerprint).candidate_sets
    check_consistent(place, ["cem", None, "cem"])


def test_a_person_of_whom_only_candidates_are_left_anywhere(place):
    forget("ann", place / "faces", [])
    run_forget("ann", place)
    check_consistent(place, ["ben", "cem", None, "ben", "cem"])


@pytest.mark.usefixtures("no_consent_check")
def test_forget_everywhere_resumes(place, monkeypatch):
    export_swift(place / "faces", place / "export")
    describe_dataset(place / "faces", place / "described")
    for step in ("_rewrite_split", "_index", "_rewrite_trace"):
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(forgetting, step, lambda *_: 1 / 0)
            run_forget("ann", place)
    run_forget("ann", place)
    check_consistent(place, ["ben", "cem", None, "ben", "cem"])
    assert "ann" not in {row["subject"] for row in lines(place / "export" / "train.jsonl")}
    assert "ann" not in load_faces(place / "described", "train")["subject"]


@pytest.fixture
def captured(tmp_path, monkeypatch):
    """Captures of two people and an evaluation of them, in the working directory."""
    monkeypatch.chdir(tmp_path)
    rows = []
    for number, who in enumerate(["ann", "ben"] * 2):
        values = np.round(face(number), 2)
        file = picture(tmp_path / "given" / f"{number}.jpg", number)
        rows.append(row(format_answer(values, describe(values)), file.name, subject=who))
    out = Path("outputs", "captures")
    agree(out, "ann", "ben")
    run_import(write(tmp_path / "given" / "rows.jsonl", *rows), out)
    page = Path("outputs", "evaluated", "report.html")
    page.parent.mkdir()
    page.write_text("a page with pictures of ann")
    about = {"recipe": {"dataset": str(out), "data": load_faces(out, "train")._fingerprint}}
    page.with_name("metrics.json").write_text(json.dumps(about))
    return tmp_path / "outputs"


def check_deleted(outputs, name=b"ann"):
    """Check that no file but the consent list, which its user keeps, contains a name."""
    files = [path for path in outputs.rglob("*") if path.is_file() and path.name != NAME]
    assert files and not [path for path in files if name in path.read_bytes() or name.decode() in path.name]


@pytest.mark.parametrize(
    ("module", "step"),
    [
        (report, "write_index_page"), (dataset.CaptureSet, "write_index"), (forgetting, "remove_empty_takes"),
        (forgetting, "_rewrite_split"), (forgetting, "_save_fingerprints"), (forget_all, "forget"),
    ],
)  # fmt: skip
def test_captures_are_deleted_whatever_step_is_interrupted(module, step, captured, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(module, step, lambda *_: 1 / 0)
        run_forget("ann", captured)
    with contextlib.suppress(DatasetError):  # if only pages were left
        run_forget("ann", captured)
    check_deleted(captured)
    assert list(load_faces(captured / "captures", "train")["subject"]) == ["ben", "ben"]
    assert (captured / "captures" / "report.html").exists()


def test_choices_and_pairs_go_before_the_dataset_rows(place, monkeypatch):
    (place / "run" / "round-1" / "candidates.jsonl").unlink()
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(forgetting, "_index", lambda *_: 1 / 0)
        run_forget("ann", place)
    left = {each.picture for each in candidate_sets_of(place / "faces")}
    for name in ("choices", "pairs"):
        found = lines(place / "run" / "round-1" / f"{name}.jsonl")
        assert {(line.get("question") or line)["picture"] for line in found} <= left and found


def test_from_another_working_directory(captured, monkeypatch):
    run = captured / "begun"
    (run / "features").mkdir(parents=True)
    about = {"train": {"fingerprint": load_faces(captured / "captures", "train")._fingerprint}}
    (run / "settings.json").write_text(json.dumps({"dataset": "outputs/captures", "data": about}))
    monkeypatch.chdir(captured.parent / "given")
    found, _ = run_forget("ann", captured)
    check_deleted(captured)
    assert not (run / "features").exists() and [each.folder for each in found.models] == [run]


def test_files_of_killed_commands_are_deleted(captured, monkeypatch):
    """An export, whose folder appears only when complete; an import whose takes are not indexed yet."""
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(ms_swift_export, "write_json", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        export_swift(captured / "captures", captured / "export")
        os._exit(0)
    os.waitpid(child, 0)
    assert list(captured.glob(".export.*/export/images/*.jpg"))
    begun = captured / "begun"
    agree(begun, "ann")
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(report, "_write_take_page", lambda *_: 1 / 0)
        run_import(captured.parent / "given" / "rows.jsonl", begun, subject="ann")
    assert list(begun.glob("*/take-*.arrow"))
    (begun / ".unpacked").mkdir()
    (begun / ".unpacked" / "file.mov").write_bytes(b"ann")
    _, log = run_forget("ann", captured)
    check_deleted(captured)
    assert "left by a command that was stopped" in log and not list(captured.rglob("*.jpg"))


PAGE = (ROOT / "docs" / "captures.md").read_text()


@pytest.mark.parametrize("words", re.findall(r"^(semanticface forget .*?)(?: +#.*)?$", PAGE, re.MULTILINE))
def test_the_commands_of_the_page(place, monkeypatch, capsys, words):
    monkeypatch.chdir(place)
    Path("outputs").mkdir()
    Path("faces").rename("outputs/captures")
    Path("run").rename("outputs/run")
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert main(words.split()[1:]) == 0
    deletes = "--dry-run" not in words
    assert f"outputs/captures: 3 rows{' deleted' * deletes}\n" in capsys.readouterr().out
    if not deletes:
        return
    assert main(words.split()[1:]) == 2
    assert "outputs/captures" in (err := capsys.readouterr().err) or "outputs: nothing about 'ann'" in err


def test_the_page_has_commands():
    assert PAGE.count("\nsemanticface forget ann") == 3


def test_it_lists_what_goes_and_asks(place, monkeypatch, capsys):
    before, answers = held(place), iter(["n", "yes"])
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    assert main(["forget", "ann", str(place), "--dry-run"]) == 0
    listed = capsys.readouterr().out
    assert f"{place / 'faces'}: 3 rows\n" in listed and "choices.sqlite: 2 choices\n" in listed
    assert all(f"{name}.jsonl: 2 lines\n" in listed for name in ("candidates", "choices", "pairs"))
    assert main(["forget", "ann", str(place)]) == 2
    assert "nothing was deleted" in capsys.readouterr().err and held(place) == before
    assert main(["forget", "ann", str(place)]) == 0
    check_consistent(place, ["ben", "cem", None, "ben", "cem"])


def test_what_cannot_be_read_is_named_and_the_rest_goes(place, tmp_path_factory, capsys):
    outside = tmp_path_factory.mktemp("outside")
    shutil.copytree(place / "faces", outside / "faces")
    (place / "elsewhere").symlink_to(outside)
    (place / "loop").symlink_to(place)
    (place / "around").symlink_to("around")
    for name in ("logs", "checkpoints", ".hidden"):
        shutil.copytree(place / "faces", place / name / "faces")
    for name, text in {"a": "[]", "b": "{", "c": '{"splits": 7}', "d": '{"splits": ["train"]}'}.items():
        (place / name).mkdir()
        (place / name / "dataset_dict.json").write_text(text)
    (place / "broken.sqlite").write_bytes(b"no database")
    (place / "empty.sqlite").touch()
    with contextlib.closing(sqlite3.connect(place / "foreign.sqlite")) as foreign:
        foreign.execute("PRAGMA application_id = 7")
        foreign.execute("CREATE TABLE x (y)")
    with ReplyCache(place / "take.jsonl.replies.sqlite") as cache:
        cache.put("key", ChatReply("text", "stop", 1, 1, 0.0))
    assert main(["forget", "ann", str(place), "--yes"]) == 1
    named = capsys.readouterr().err
    for name in ("elsewhere", "a/dataset_dict.json", "b/dataset_dict.json", "c/dataset_dict.json", "d/train"):
        assert named.count(f"semanticface: {place / name}") == 1
    assert f"{place / 'broken.sqlite'}: damaged" in named and f"{place / 'foreign.sqlite'}: another program's" in named
    assert not any(word in named for word in ("loop", "around", "replies", "empty"))
    check_consistent(place, ["ben", "cem", None, "ben", "cem"])
    for name in ("logs", "checkpoints", ".hidden"):
        assert "ann" not in load_faces(place / name / "faces", "train")["subject"]
    assert "ann" in load_faces(outside / "faces", "train")["subject"]
