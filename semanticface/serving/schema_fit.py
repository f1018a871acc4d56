"""Whether every possible answer satisfies a client's JSON Schema.

Constrained decoding always produces answers of one form, which cannot be adapted to another schema. ``fits`` compares
the schemas before decoding and is True only if no answer can violate the client's. Unknown keywords (``pattern``,
``enum``, ``multipleOf``, …) make it False.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semanticface.inference.decoder import Mode
from semanticface.semantics.answer import answer_schema
from semanticface.semantics.grammar import MAX_DEFAULT_LENGTH, MAX_LENGTH

_ANNOTATIONS = {"$schema", "$comment", "$defs", "definitions", "title", "description", "default", "examples"}
_OBJECT_KEYWORDS = {"properties", "required", "additionalProperties", "minProperties", "maxProperties"}
_NUMBER_KEYWORDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
_STRING_KEYWORDS = {"minLength", "maxLength"}
_ARRAY_KEYWORDS = {"items", "minItems", "maxItems", "prefixItems", "uniqueItems"}
_GENERAL_KEYWORDS = {"type", "$ref", "anyOf", "allOf"}
_KNOWN = _ANNOTATIONS | _OBJECT_KEYWORDS | _NUMBER_KEYWORDS | _STRING_KEYWORDS | _ARRAY_KEYWORDS | _GENERAL_KEYWORDS
_MAX_DEPTH = 32
_MAX_STEPS = 20_000  # references can make a short schema infinite


def fits(schema: object, mode: Mode, *, emotion: bool) -> bool:
    """Return whether every answer certainly satisfies a schema.

    Args:
        schema: a JSON Schema (a subset of draft 2020-12).
        mode: of the answers.
        emotion: whether answers include an emotion.
    """
    return _Checker(schema).implies(answer_schema(mode, emotion=emotion), schema, "", 0)


class _Checker:
    def __init__(self, root: object) -> None:
        self.root = root
        self.steps = 0

    def implies(self, ours: Mapping[str, Any], theirs: object, key: str, depth: int) -> bool:
        """Return whether every value of ``ours``, the schema of ``key``, satisfies ``theirs``."""
        if isinstance(theirs, bool):
            return theirs
        self.steps += 1
        if depth > _MAX_DEPTH or self.steps > _MAX_STEPS or not isinstance(theirs, Mapping) or set(theirs) - _KNOWN:
            return False
        if "$ref" in theirs and not self.implies(ours, self._resolve(theirs["$ref"]), key, depth + 1):
            return False
        all_of, any_of = theirs.get("allOf", []), theirs.get("anyOf", [True])
        if not isinstance(all_of, list) or not all(self.implies(ours, each, key, depth + 1) for each in all_of):
            return False
        if not isinstance(any_of, list) or not any(self.implies(ours, each, key, depth + 1) for each in any_of):
            return False
        types = theirs.get("type", ours["type"])
        if ours["type"] not in (types if isinstance(types, list) else [types]):
            return False
        if ours["type"] == "object":
            return self._object(ours, theirs, depth)
        if ours["type"] == "number":
            return _minimum_allowed(theirs, "minimum", "exclusiveMinimum") and _maximum_allowed(
                theirs, "maximum", "exclusiveMaximum"
            )
        return _at_most(theirs, "minLength", 1) and _at_least(
            theirs, "maxLength", MAX_LENGTH.get(key, MAX_DEFAULT_LENGTH)
        )

    def _object(self, ours: Mapping[str, Any], theirs: Mapping[str, Any], depth: int) -> bool:
        properties = ours["properties"]
        required, named = theirs.get("required", []), theirs.get("properties", {})
        if not isinstance(required, list) or not isinstance(named, Mapping):
            return False
        if not (
            _at_most(theirs, "minProperties", len(properties)) and _at_least(theirs, "maxProperties", len(properties))
        ):
            return False
        if not all(isinstance(key, str) and key in properties for key in required):
            return False
        others = theirs.get("additionalProperties", True)
        return all(self.implies(value, named.get(key, others), key, depth + 1) for key, value in properties.items())

    def _resolve(self, name: object) -> object:
        """Return the target of a local reference; False, which nothing satisfies, if it does not exist."""
        if not isinstance(name, str) or not name.startswith("#"):
            return False
        found = self.root
        for part in name.removeprefix("#").split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or part not in found:
                return False
            found = found[part]
        return found


def _number(theirs: Mapping[str, Any], keyword: str, default: float) -> float | None:
    value = theirs.get(keyword, default)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _at_most(theirs: Mapping[str, Any], keyword: str, limit: float) -> bool:
    value = _number(theirs, keyword, limit)
    return value is not None and value <= limit


def _at_least(theirs: Mapping[str, Any], keyword: str, limit: float) -> bool:
    value = _number(theirs, keyword, limit)
    return value is not None and value >= limit


def _minimum_allowed(theirs: Mapping[str, Any], keyword: str, exclusive: str) -> bool:
    bound = _number(theirs, exclusive, -1)
    return _at_most(theirs, keyword, 0) and bound is not None and bound < 0


def _maximum_allowed(theirs: Mapping[str, Any], keyword: str, exclusive: str) -> bool:
    bound = _number(theirs, exclusive, 2)
    return _at_least(theirs, keyword, 1) and bound is not None and bound > 1
