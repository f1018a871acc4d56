"""Deleting a person: everything of theirs goes, everything of the others stays and still fits together."""

from __future__ import annotations

import json

import datasets
import numpy as np
import pytest
from slates import save, slates_of
from tiny_models import answers

from semanticface import cli
from semanticface.dataset import FEATURES, load_faces
from semanticface.errors import DatasetError, SemanticFaceError
from semanticface.preference import forget as forgetting
from semanticface.preference.candidates import read_candidates
from semanticface.preference.choice_file import read_choices, write_choices
from semanticface.preference.consent import NAME
from semanticface.preference.forget import forget
from semanticface.preference.pairs import read_pairs, write_pairs
from semanticface.preference.store import Store
from semanticface.preference.types import Choice, Pair, Question

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
    """A dataset of a few people, and in ``run`` what was made of its training split."""
    rng = np.random.default_rng(0)
    splits = {"train": _split(PEOPLE, rng), "test": _split(("dora", "ann"), rng)}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "faces"), num_shards={"train": 2, "test": 1})
    (tmp_path / "faces" / NAME).write_text("subjects:\n  ann: true\n  ben: true\n")
    slates = [slate for slate in slates_of(tmp_path / "faces") if slate.subject]
    run = tmp_path / "run" / "round-1"
    run.mkdir(parents=True)
    save(run / "candidates.jsonl", tmp_path / "faces", slates)
    when = "2026-11-22T09:30:00Z"
    asked = [Question(f"q{slate.row}", slate.picture, "upper", "model-1", "model-2") for slate in slates]
    made = [Choice(question, "a", "robin", "m", 1, when) for question in asked]
    write_choices(run / "choices.jsonl", made)
    faces = [(slate, *(each.coefficients for each in slate.candidates[:2])) for slate in slates]
    write_pairs(run / "pairs.jsonl", [Pair(s.picture, s.row, one, other, ("upper",)) for s, one, other in faces])
    (run / "metrics.jsonl").write_text('{"loss": 1}\n')
    (run / "empty.jsonl").write_text("")
    with Store(run / "choices.sqlite") as store:
        store.add_many(made)
    return tmp_path


def whole(place, left):
    """Check that everything speaks of the rows that are left, by their right numbers."""
    faces = load_faces(place / "faces", "train")
    assert list(faces["subject"]) == left
    run = place / "run" / "round-1"
    now = {slate.picture: slate.row for slate in slates_of(place / "faces")}
    named = {picture: row for picture, row in now.items() if left[row] is not None}
    found = read_candidates(run / "candidates.jsonl", dataset=faces._fingerprint)
    assert {slate.picture: slate.row for slate in found.slates} == named and not found.problems
    assert {pair.picture: pair.row for pair in read_pairs(run / "pairs.jsonl")[0]} == named
    assert [choice.question.picture for _, choice in read_choices(run / "choices.jsonl")[0]] == list(named)
    with Store(run / "choices.sqlite") as store:
        assert [choice.question.picture for choice in store.choices()] == list(named)
    assert (run / "metrics.jsonl").read_text() == '{"loss": 1}\n'


def held(place):
    return b"".join(file.read_bytes() for file in place.rglob("*") if file.is_file() and file.name != NAME)


def test_a_person_goes_and_the_others_stay_whole(place, capsys):
    whole(place, list(PEOPLE))
    pictures = [s.picture for s in slates_of(place / "faces") if s.subject == "ann"]
    raw = load_faces(place / "faces", "train").cast_column("picture", datasets.Image(decode=False))
    theirs = [row["picture"]["bytes"] for row in raw if row["subject"] == "ann"]
    assert all(data in held(place) for data in theirs)
    del raw
    cache = place / "faces" / "train" / "cache-0123.arrow"
    cache.write_bytes(theirs[0])
    assert cli.main(["forget", "ann", str(place / "faces"), str(place / "run")]) == 0
    told = capsys.readouterr().out
    assert "3 rows deleted" in told and "2 choices deleted from databases" in told
    for name in ("candidates", "choices", "pairs"):
        assert f"{name}.jsonl: 2 lines deleted" in told
    assert "consent.yaml still names ann: remove the line" in told
    whole(place, ["ben", "cem", None, "ben", "cem"])
    assert list(load_faces(place / "faces", "test")["subject"]) == ["dora"]
    after = held(place)
    assert not any(picture.encode() in after for picture in pictures)
    assert not any(data in after for data in theirs)


def test_broken_off_anywhere_the_same_call_goes_on(place, monkeypatch):
    class Broken(Exception):
        pass

    def breaking(*_):
        raise Broken

    for step in ("_rewrite_split", "_index", "_rewrite_trace"):
        with monkeypatch.context() as patch, pytest.raises(Broken):
            patch.setattr(forgetting, step, breaking)
            forget("ann", place / "faces", [place / "run"])
    forget("ann", place / "faces", [place / "run"])
    whole(place, ["ben", "cem", None, "ben", "cem"])


def test_what_was_read_from_their_pictures_goes_with_all_whose_rows_moved(place):
    """Predictions go by rows: left where they are, the next run would take them for those of other pictures."""
    read, own = place / "run" / "round-1" / "predictions.jsonl", place / "run" / "predictions.jsonl"
    for file in (read, own):
        file.write_text('{"image": "picture 1"}\n{"image": "picture 2"}\n')
    gone = forget("ann", place / "faces", [place / "run"])
    assert gone.lines[read] == 2 and not read.exists()
    assert own not in gone.lines and own.exists()


def test_one_after_another_down_to_nobody(place):
    for subject in ("ann", "ben", "cem", "dora"):
        forget(subject, place / "faces", [place / "run"])
    assert list(load_faces(place / "faces", "train")["subject"]) == [None]
    assert len(load_faces(place / "faces", "test")) == 0
    assert read_candidates(place / "run" / "round-1" / "candidates.jsonl").slates == ()


def test_bad_lines_stay_as_they_are(place):
    path = place / "run" / "round-1" / "candidates.jsonl"
    path.write_bytes(path.read_bytes() + b"{broken\n\xff\n")
    forget("ann", place / "faces", [place / "run"])
    assert path.read_bytes().endswith(b"\n{broken\n\xff\n")


def test_what_cannot_be_forgotten_is_told_and_nothing_is_deleted(place):
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
    """As when the rows were deleted by other means."""
    forget("ann", place / "faces", [])
    run = place / "run" / "round-1"
    assert json.loads((run / "candidates.jsonl").read_text().split("\n")[1])["subject"] == "ann"
    gone = forget("ann", place / "faces", [run])
    assert gone.rows == 0 and gone.choices == 2
    whole(place, ["ben", "cem", None, "ben", "cem"])
