"""A schema is accepted only if no answer can violate it."""

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
    """Return extreme answers: shortest and longest texts, coefficients at the limits."""
    out = []
    for coefficients, letters in ((np.zeros(52), 1), (np.ones(52), 10_000), (np.linspace(0, 1, 52).round(2), 7)):

        def text(field, letters=letters):
            return "x" * min(letters, MAX_LENGTH.get(field, MAX_DEFAULT_LENGTH))

        answer = {"arkit": {name: float(value) for name, value in by_name(coefficients).items()}}
        if mode == "full":
            analysis = {"expression_category": text(""), "symmetry": text("")}
            analysis["muscle_movements"] = {region: text(region) for region in REGIONS}
            answer["analysis"] = analysis | ({"emotional_implication": text("")} if emotion else {})
        out.append(answer)
    return out


def satisfied(schema, mode, emotion):
    validator = jsonschema.Draft202012Validator(schema)
    return all(validator.is_valid(answer) for answer in answers(mode, emotion))


@pytest.mark.parametrize(("mode", "emotion"), KINDS)
def test_our_own_schemas(mode, emotion):
    for other in KINDS:
        same = answer_schema(*other[:1], emotion=other[1])
        assert fits(same, mode, emotion=emotion) == satisfied(same, mode, emotion)
    assert fits(SCHEMA, mode, emotion=emotion) == (mode == "full")
    assert fits({}, mode, emotion=emotion) and fits({"type": "object"}, mode, emotion=emotion)


def test_schemas_of_pydantic_classes():
    coefficient = Annotated[float, Field(ge=0, le=1)]

    class Analysis(BaseModel):
        expression_category: str
        muscle_movements: dict[str, str]
        emotional_implication: str | None = None
        symmetry: str

    class Face(BaseModel):
        model_config = ConfigDict(extra="forbid")
        analysis: Analysis
        arkit: dict[str, coefficient]

    class Numbers(BaseModel):
        model_config = ConfigDict(extra="forbid")
        arkit: dict[str, coefficient]

    class Wider(Face):
        confidence: float

    assert [fits(Face.model_json_schema(), *kind[:1], emotion=kind[1]) for kind in KINDS] == [True, True, False, False]
    assert [fits(Numbers.model_json_schema(), *kind[:1], emotion=kind[1]) for kind in KINDS] == [False] * 2 + [True] * 2
    assert not any(fits(Wider.model_json_schema(), *kind[:1], emotion=kind[1]) for kind in KINDS)


@pytest.mark.parametrize(
    "schema",
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
        {"anyOf": [{"$ref": "#"}] * 9},  # 9 to the power of 16 steps without a limit
    ],
)
def test_schemas_that_an_answer_can_violate(schema):
    assert not fits(schema, "full", emotion=True)


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
def test_no_answer_violates_an_accepted_schema(kind, requested, changes):
    schema = copy.deepcopy(answer_schema(requested[0], emotion=requested[1]))
    schema["$defs"] = {"part": {"type": ["object", "number", "string"]}, "other": {"type": "number", "minimum": 0}}
    parts = [schema]
    for part in parts:
        parts += [value for value in part.get("properties", {}).values() if isinstance(value, dict)]
    for number, (keyword, value) in changes:
        parts[number % len(parts)][keyword] = copy.deepcopy(value)
    if fits(schema, kind[0], emotion=kind[1]):
        assert satisfied(schema, *kind)


def test_property_names_are_the_actions():
    properties = answer_schema("numbers", emotion=True)["properties"]["arkit"]
    assert tuple(properties["properties"]) == NAMES == tuple(properties["required"])
