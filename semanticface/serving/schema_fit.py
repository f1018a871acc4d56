"""Whether every answer that can be written fits a JSON Schema that somebody asks for.

Answers have one form, and constrained decoding never leaves it; it cannot be bent to another schema. But clients send
schemas, written by hand or derived from a class, and most of those that fit were written for this very form. ``fits``
proves it from the form alone, before anything is decoded: it is True only where no answer could break the schema.
Keywords that it does not know (``pattern``, ``enum``, ``multipleOf``, …) make it say no.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semanticface.inference.decoder import Mode
from semanticface.semantics.answer import answer_schema
from semanticface.semantics.grammar import MAX_DEFAULT_LENGTH, MAX_LENGTH

_SAYS_NOTHING = {"$schema", "$comment", "$defs", "definitions", "title", "description", "default", "examples"}
_OF_OBJECTS = {"properties", "required", "additionalProperties", "minProperties", "maxProperties"}
_OF_NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
_OF_TEXTS = {"minLength", "maxLength"}
_OF_LISTS = {"items", "minItems", "maxItems", "prefixItems", "uniqueItems"}
_EVERYWHERE = {"type", "$ref", "anyOf", "allOf"}
_KNOWN = _SAYS_NOTHING | _OF_OBJECTS | _OF_NUMBERS | _OF_TEXTS | _OF_LISTS | _EVERYWHERE
_DEEPEST = 32
_MOST_STEPS = 20_000  # references could make a short schema endless


def fits(schema: object, mode: Mode, *, emotion: bool) -> bool:
    """Return whether it is certain that every answer of a mode satisfies a schema.

    Args:
        schema: a JSON Schema (draft 2020-12, as far as this module knows it).
        mode: of the answers.
        emotion: of the answers.
    """
    return _Fit(schema).holds(answer_schema(mode, emotion=emotion), schema, "", 0)


class _Fit:
    def __init__(self, root: object) -> None:
        self.root = root
        self.steps = 0

    def holds(self, ours: Mapping[str, Any], theirs: object, key: str, depth: int) -> bool:
        """Return whether whatever fits ``ours``, the value of ``key``, fits ``theirs``."""
        if isinstance(theirs, bool):
            return theirs
        self.steps += 1
        if depth > _DEEPEST or self.steps > _MOST_STEPS or not isinstance(theirs, Mapping) or set(theirs) - _KNOWN:
            return False
        if "$ref" in theirs and not self.holds(ours, self._referred(theirs["$ref"]), key, depth + 1):
            return False
        every, some = theirs.get("allOf", []), theirs.get("anyOf", [True])
        if not isinstance(every, list) or not all(self.holds(ours, each, key, depth + 1) for each in every):
            return False
        if not isinstance(some, list) or not any(self.holds(ours, each, key, depth + 1) for each in some):
            return False
        types = theirs.get("type", ours["type"])
        if ours["type"] not in (types if isinstance(types, list) else [types]):
            return False
        if ours["type"] == "object":
            return self._object(ours, theirs, depth)
        if ours["type"] == "number":
            return _above(theirs, "minimum", "exclusiveMinimum") and _below(theirs, "maximum", "exclusiveMaximum")
        return _at_most(theirs, "minLength", 1) and _at_least(
            theirs, "maxLength", MAX_LENGTH.get(key, MAX_DEFAULT_LENGTH)
        )

    def _object(self, ours: Mapping[str, Any], theirs: Mapping[str, Any], depth: int) -> bool:
        inside = ours["properties"]
        required, named = theirs.get("required", []), theirs.get("properties", {})
        if not isinstance(required, list) or not isinstance(named, Mapping):
            return False
        if not (_at_most(theirs, "minProperties", len(inside)) and _at_least(theirs, "maxProperties", len(inside))):
            return False
        if not all(isinstance(key, str) and key in inside for key in required):
            return False
        others = theirs.get("additionalProperties", True)
        return all(self.holds(value, named.get(key, others), key, depth + 1) for key, value in inside.items())

    def _referred(self, name: object) -> object:
        """Return what a reference within the schema stands for; False, which nothing fits, where that is nothing."""
        if not isinstance(name, str) or not name.startswith("#"):
            return False
        found = self.root
        for part in name.removeprefix("#").split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or part not in found:
                return False
            found = found[part]
        return found


def _number(theirs: Mapping[str, Any], keyword: str, otherwise: float) -> float | None:
    value = theirs.get(keyword, otherwise)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _at_most(theirs: Mapping[str, Any], keyword: str, most: float) -> bool:
    value = _number(theirs, keyword, most)
    return value is not None and value <= most


def _at_least(theirs: Mapping[str, Any], keyword: str, least: float) -> bool:
    value = _number(theirs, keyword, least)
    return value is not None and value >= least


def _above(theirs: Mapping[str, Any], keyword: str, exclusive: str) -> bool:
    beyond = _number(theirs, exclusive, -1)
    return _at_most(theirs, keyword, 0) and beyond is not None and beyond < 0


def _below(theirs: Mapping[str, Any], keyword: str, exclusive: str) -> bool:
    beyond = _number(theirs, exclusive, 2)
    return _at_least(theirs, keyword, 1) and beyond is not None and beyond > 1
