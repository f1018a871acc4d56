"""A schema is taken only where no answer could break it."""

from __future__ import annotations

import copy
from typing import Annotated

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from semanticface.arkit import NAMES, REGIONS, by_name
from semanticface.semantics.answer import SCHEMA, answer_schema
from semanticface.semantics.grammar import MAX_DEFAULT_LENGTH, MAX_LENGTH
from semanticface.serving.schema_fit import fits

KINDS = [(mode, emotion) for mode in ("full", "numbers") for emotion in (True, False)]


def answers(mode, emotion):
    """Return answers at the edges of what can be written."""
    out = []
    for coefficients, letters in ((np.zeros(52), 1), (np.ones(52), 10_000), (np.linspace(0, 1, 52).round(2), 7)):

        def text(field, letters=letters):
            return "x" * min(letters, MAX_LENGTH.get(field, MAX_DEFAULT_LENGTH))

        answer = {"arkit": {name: float(value) for name, value in by_name(coefficients).items()}}
        if mode == "full":
            words = {"expression_category": text(""), "symmetry": text("")}
            words["muscle_movements"] = {region: text(region) for region in REGIONS}
            answer["analysis"] = words | ({"emotional_implication": text("")} if emotion else {})
        out.append(answer)
    return out


def satisfied(schema, mode, emotion):
    check = jsonschema.Draft202012Validator(schema)
    return all(check.is_valid(answer) for answer in answers(mode, emotion))


@pytest.mark.parametrize(("mode", "emotion"), KINDS)
def test_our_own_schema_is_what_answers_satisfy(mode, emotion):
    for other in KINDS:
        same = answer_schema(*other[:1], emotion=other[1])
        assert fits(same, mode, emotion=emotion) == satisfied(same, mode, emotion)
    assert fits(SCHEMA, mode, emotion=emotion) == (mode == "full")
    assert fits({}, mode, emotion=emotion) and fits({"type": "object"}, mode, emotion=emotion)


def test_schemas_made_from_classes():
    share = Annotated[float, Field(ge=0, le=1)]

    class Analysis(BaseModel):
        expression_category: str
        muscle_movements: dict[str, str]
        emotional_implication: str | None = None
        symmetry: str

    class Face(BaseModel):
        model_config = ConfigDict(extra="forbid")
        analysis: Analysis
        arkit: dict[str, share]

    class Numbers(BaseModel):
        model_config = ConfigDict(extra="forbid")
        arkit: dict[str, share]

    class Wider(Face):
        confidence: float

    assert [fits(Face.model_json_schema(), *kind[:1], emotion=kind[1]) for kind in KINDS] == [True, True, False, False]
    assert [fits(Numbers.model_json_schema(), *kind[:1], emotion=kind[1]) for kind in KINDS] == [False] * 2 + [True] * 2
    assert not any(fits(Wider.model_json_schema(), *kind[:1], emotion=kind[1]) for kind in KINDS)


@pytest.mark.parametrize(
    "broken",
    [
        False,
        None,
        [],
        {"type": "array"},
        {"required": ["mood"]},
        {"required": "arkit"},
        {"properties": {"arkit": {"type": "string"}}},
        {"properties": {"arkit": {"additionalProperties": {"enum": [0, 1]}}}},
        {"properties": {"arkit": {"additionalProperties": {"type": "integer"}}}},
        {"properties": {"arkit": {"additionalProperties": {"multipleOf": 0.05}}}},
        {"properties": {"arkit": {"additionalProperties": {"exclusiveMinimum": 0}}}},
        {"properties": {"arkit": {"additionalProperties": {"maximum": 0.99}}}},
        {"properties": {"arkit": {"maxProperties": 51}}},
        {"properties": {"analysis": {"properties": {"symmetry": {"pattern": "^(a+)+$"}}}}},
        {"properties": {"analysis": {"properties": {"symmetry": {"maxLength": 80}}}}},
        {"properties": {"analysis": {"properties": {"symmetry": {"minLength": 2}}}}},
        {"$ref": "https://example.org/schema.json"},
        {"$ref": "#/$defs/none"},
        {"$ref": "#"},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"anyOf": []},
        {"allOf": [{}, False]},
        {"not": {}},
        {"anyOf": [{"$ref": "#"}] * 9},  # which would take 9 to the power of 16 steps to follow
    ],
)
def test_schemas_that_an_answer_could_break(broken):
    assert not fits(broken, "full", emotion=True)


_CHANGES = st.one_of(
    st.tuples(
        st.just("type"), st.sampled_from(["object", "number", "string", ["object", "null"], ["number", "string"]])
    ),
    st.tuples(st.sampled_from(["minimum", "exclusiveMinimum"]), st.sampled_from([-1, 0, 0.5])),
    st.tuples(st.sampled_from(["maximum", "exclusiveMaximum"]), st.sampled_from([2, 1, 0.5])),
    st.tuples(st.sampled_from(["minLength", "maxLength"]), st.sampled_from([0, 1, 2, 192, 256, 720])),
    st.tuples(st.sampled_from(["minProperties", "maxProperties"]), st.sampled_from([0, 2, 52, 53])),
    st.tuples(st.just("required"), st.sampled_from([[], ["arkit"], ["analysis"], ["jawOpen"], ["gaze", "jaw"]])),
    st.tuples(st.just("additionalProperties"), st.sampled_from([True, False, {"type": "number"}, {"type": "string"}])),
    st.tuples(st.just("properties"), st.sampled_from([{}, {"mood": {"type": "string"}}])),
    st.tuples(st.sampled_from(["anyOf", "allOf"]), st.sampled_from([[{}], [{"type": "number"}, {"type": "object"}]])),
    st.tuples(st.just("$ref"), st.sampled_from(["#/$defs/part", "#/$defs/other", "#"])),
    st.tuples(st.just("enum"), st.just([0])),
)


@given(st.sampled_from(KINDS), st.sampled_from(KINDS), st.lists(st.tuples(st.integers(0, 70), _CHANGES), max_size=3))
def test_what_is_taken_is_never_broken(written, asked, changes):
    schema = copy.deepcopy(answer_schema(asked[0], emotion=asked[1]))
    schema["$defs"] = {"part": {"type": ["object", "number", "string"]}, "other": {"type": "number", "minimum": 0}}
    places = [schema]
    for place in places:
        places += [value for value in place.get("properties", {}).values() if isinstance(value, dict)]
    for number, (keyword, value) in changes:
        places[number % len(places)][keyword] = copy.deepcopy(value)
    if fits(schema, written[0], emotion=written[1]):
        assert satisfied(schema, *written)


def test_the_names_are_ours():
    inside = answer_schema("numbers", emotion=True)["properties"]["arkit"]
    assert tuple(inside["properties"]) == NAMES == tuple(inside["required"])
