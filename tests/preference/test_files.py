"""Choices as JSONL: they survive a file, and a bad line is reported by its number and affects no other."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semanticface.errors import SemanticFaceError, TableError
from semanticface.preference.files import check_pseudonym, choice_dict, now, parse_choice, read_choices, write_choices
from semanticface.preference.regions import REGIONS
from semanticface.preference.types import VERDICTS, Choice, Question

CHOICE = Choice(Question("q1", "p1", "upper", "model-0", "model-1"), "a", "robin", "m", 1, "2026-11-22T09:30:00.123Z")

names = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)


@st.composite
def choices(draw):
    a, b = draw(st.lists(names, min_size=2, max_size=2, unique=True))
    kind = draw(st.sampled_from(["first", "repeat", "mirrored"]))
    of = "" if kind == "first" else draw(names)
    question = Question(draw(names), draw(names), draw(st.sampled_from(REGIONS)), a, b, kind, of)
    return Choice(question, draw(st.sampled_from(VERDICTS)), draw(names), draw(names), draw(st.integers(1, 99)), now())


@given(choices())
def test_a_choice_survives_json(choice):
    assert parse_choice(json.loads(json.dumps(choice_dict(choice)))) == choice


def test_a_file_survives(tmp_path):
    made = [dataclasses.replace(CHOICE, round=n) for n in range(1, 4)]
    assert write_choices(tmp_path / "c.jsonl", made) == 3
    good, bad = read_choices(tmp_path / "c.jsonl")
    assert [choice for _, choice in good] == made and [line for line, _ in good] == [1, 2, 3]
    assert bad == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "left"}, "verdict is 'left'"),
        ({"verdict": None}, "verdict is 'null'"),
        ({"round": 0}, "round is '0'"),
        ({"round": True}, "round is 'true'"),
        ({"time": "yesterday"}, "time is 'yesterday'"),
        ({"time": "2026-13-41T09:30:00Z"}, "not a valid date"),
        ({"time": "2026-11-22T09:30:00+02:00"}, "not a UTC time"),
        ({"annotator": ""}, "annotator is ''"),
        ({"model": 7}, "model is '7'"),
        ({"mood": "good"}, "'mood' is unknown"),
        ({"question": "q1"}, "question is not an object"),
        ({"question": {"area": "nose"}}, "question.area is 'nose'"),
        ({"question": {"area": []}}, "question.area is"),
        ({"question": {"b": "model-0"}}, "the same candidate"),
        ({"question": {"kind": "repeat"}}, "question.of is ''"),
        ({"question": {"of": "q0"}}, "question.of must be empty"),
        ({"question": {"id": "a\nb"}}, "question.id is"),
    ],
)
def test_a_bad_line_is_reported_by_its_number(tmp_path, change, message):
    plain = choice_dict(CHOICE)
    if isinstance(change.get("question"), dict):
        change = {"question": plain["question"] | change["question"]}
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(json.dumps(each) for each in (plain, plain | change, plain)))
    good, bad = read_choices(path)
    assert [line for line, _ in good] == [1, 3]
    assert len(bad) == 1 and bad[0].startswith(f"{path}, line 2: ") and message in bad[0]


def test_a_missing_key_a_broken_line_and_a_missing_file(tmp_path):
    plain = choice_dict(CHOICE)
    del plain["model"]
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps(plain) + "\n{not json\n")
    good, bad = read_choices(path)
    assert not good and "line 1: the choice lacks model" in bad[0] and "line 2: not valid JSON" in bad[1]
    with pytest.raises(TableError, match="Check the path"):
        read_choices(tmp_path / "gone.jsonl")


@pytest.mark.parametrize("name", ["", "robin@example.org", "a" * 41, "two words", "../up", ".hidden"])
def test_pseudonyms(name):
    with pytest.raises(SemanticFaceError, match="pseudonym"):
        check_pseudonym(name)
    assert check_pseudonym("robin-2") == "robin-2"
