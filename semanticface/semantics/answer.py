"""The answer a model writes, `{"analysis": …, "arkit": {…52…}}`: its schema, its one canonical text, and the way back.

``format_answer`` writes the canonical text: no spaces, every coefficient with two decimals, keys in a fixed order.
``parse_answer`` reads it back, and reads what models really write: prose or code fences around the JSON, free spacing
and key order, PascalCase and ``_L``/``_R`` spellings, the nine head and eye pose values of Live Link beside the 52, and
a bare object of coefficients without ``analysis`` (the published SemanticFace outputs are numbered prose followed by
one). An answer is 52 numbers in [0, 1] or an ``AnswerError``; nothing is filled in, clipped or guessed.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np

from semanticface.arkit import N_ACTIONS, NAME_OF, NAMES, POSE_NAMES, REGIONS, to_hundredths
from semanticface.errors import AnswerError
from semanticface.semantics.analysis import Analysis

_TEXT = {"type": "string", "minLength": 1}

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "SemanticFace answer",
    "type": "object",
    "properties": {
        "analysis": {
            "type": "object",
            "properties": {
                "expression_category": _TEXT,
                "muscle_movements": {
                    "type": "object",
                    "properties": dict.fromkeys(REGIONS, _TEXT),
                    "required": list(REGIONS),
                    "additionalProperties": False,
                },
                "emotional_implication": _TEXT,
                "symmetry": _TEXT,
            },
            "required": ["expression_category", "muscle_movements", "symmetry"],
            "additionalProperties": False,
        },
        "arkit": {
            "type": "object",
            "properties": {name: {"type": "number", "minimum": 0, "maximum": 1} for name in NAMES},
            "required": list(NAMES),
            "additionalProperties": False,
        },
    },
    "required": ["analysis", "arkit"],
    "additionalProperties": False,
}
"""JSON Schema (draft 2020-12) of an answer; ``emotional_implication`` is absent where emotion is switched off."""

MAX_CHARACTERS = 1_000_000
"""A longer text is refused unread; a real answer has about 1,500 characters."""

MAX_LENGTH = {"gaze": 256, "mouth": 720}
"""Longest free text of the analysis fields that can be long, in characters; all of Stage I's texts fit."""

MAX_DEFAULT_LENGTH = 192
"""Longest free text of every other analysis field."""

NUMBER_TEXTS = tuple(f"{number / 100:.2f}" for number in range(101))
"""The numbers of a canonical answer, as written."""

ARKIT_START = '"arkit":{'
"""What precedes the numbers of a canonical answer; free text holds no quotes, so nothing else looks like it."""

ANALYSIS_END = '"},'
"""What stands between the last word of the analysis and ``ARKIT_START``."""

FIRST_KEY = f'{ANALYSIS_END}{ARKIT_START}"{NAMES[0]}":'
"""What follows the last word of the analysis: its end and the first key."""

_KEYS = tuple(f'"{name}":' for name in NAMES)
_POSE_OF = {name.lower(): name for name in POSE_NAMES}
_OBJECT_START = re.compile(r'\{\s*["}]|\{\s*\Z')
_CUT_TOKEN = re.compile(r"[\\\w.+-]{0,10}\s*")  # the rest of a text that ends within a number, a word or an escape
_INSIDE = re.compile(r'"\s*:\s*\Z')  # before an object that is a value of a larger, broken one
_CLOSES = re.compile(r"\s*\}")
_MORE_KEY_PLACES = 8  # keys named in a message before it says how many more


def answer_schema(mode: Literal["full", "numbers"], *, emotion: bool) -> dict[str, Any]:
    """Return ``SCHEMA`` for the answers of one mode, as servers of structured output take it.

    Every key is required, and texts have no lengths: some servers refuse a schema otherwise.

    Args:
        mode: ``numbers`` answers have no analysis.
        emotion: False leaves ``emotional_implication`` out.
    """
    whole = SCHEMA["properties"]
    properties = {"arkit": whole["arkit"]}
    if mode == "full":
        text = {"type": "string"}
        keys = [key for key in whole["analysis"]["properties"] if emotion or key != "emotional_implication"]
        keys = [key for key in whole["analysis"]["properties"] if emotion or key != "emotional_implication"]
        words: dict[str, Any] = dict.fromkeys(keys, text)
        movements = whole["analysis"]["properties"]["muscle_movements"]
        words["muscle_movements"] = {**movements, "properties": dict.fromkeys(REGIONS, text)}
        analysis = {**whole["analysis"], "properties": words, "required": keys}
        properties = {"analysis": analysis, **properties}
    named = {"title": SCHEMA["title"], "type": "object", "properties": properties}
    return {**named, "required": list(properties), "additionalProperties": False}


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a text answered.

    Attributes:
        coefficients: float32[52] in [0, 1], project order, finite.
        analysis: the explanation, or None where the text has none in the answer's form.
        pose: head and eye pose by ``arkit.POSE_NAMES``, as far as given, in the text's own units; or None.
    """

    coefficients: np.ndarray
    analysis: Analysis | None
    pose: dict[str, float] | None


class _DuplicateKeyError(ValueError):
    pass


class _NotFiniteError(ValueError):
    pass


def format_answer(coefficients: np.ndarray, analysis: Analysis | None) -> str:
    """Return the canonical text of an answer: compact JSON, two decimals, fixed key order.

    Args:
        coefficients: [52] in [0, 1], project order; rounded to to_hundredths.
        analysis: the explanation, without ``emotional_implication`` where that is None; None writes numbers alone.

    Raises:
        ValueError: a wrong shape, or a value that is not a number in [0, 1].
    """
    values = to_hundredths(coefficients)
    if values.shape != (N_ACTIONS,):
        raise ValueError(f"expected [{N_ACTIONS}] coefficients, got shape {values.shape}")
    numbers = ",".join([key + NUMBER_TEXTS[value] for key, value in zip(_KEYS, values.tolist(), strict=True)])
    if analysis is None:
        return f"{{{ARKIT_START}{numbers}}}}}"
    words = json.dumps(analysis.to_dict(), ensure_ascii=False, separators=(",", ":"))
    return f'{{"analysis":{words},{ARKIT_START}{numbers}}}}}'


def parse_answer(text: str) -> Answer:
    """Read an answer out of generated text.

    Raises:
        AnswerError: with one of these codes.
            ``no_json``: no JSON object with an answer in the text.
            ``truncated``: the JSON breaks off at the end of the text.
            ``bad_json``: the JSON is malformed elsewhere, or nested too deeply.
            ``missing_keys``, ``unknown_keys``, ``duplicate_keys``: the keys are not the 52, each once.
            ``not_a_number``: null, a boolean, text or another value in place of a number.
            ``not_finite``: NaN or an infinity.
            ``out_of_range``: a coefficient outside [0, 1].
            ``ambiguous``: several answers that differ.
            ``too_long``: more than ``MAX_CHARACTERS`` characters.
    """
    if len(text) > MAX_CHARACTERS:
        raise AnswerError("too_long", f"the text has {len(text):,} characters, an answer at most {MAX_CHARACTERS:,}")
    found = [_read(value) for value in _objects(text)]
    if not found:
        raise AnswerError("no_json", "the text has no JSON object with coefficients: ask the model for JSON alone")
    first = found[0]
    for other in found[1:]:
        same = np.array_equal(first.coefficients, other.coefficients) and first.pose == other.pose
        if not same or first.analysis != other.analysis:
            raise AnswerError("ambiguous", f"the text has {len(found)} answers that differ: keep one")
    return first


# --- finding the JSON ---------------------------------------------------------------------------------------------


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)
    return out


def _constant(name: str) -> NoReturn:
    raise _NotFiniteError(name)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant)


def _objects(text: str) -> list[dict[str, Any]]:
    """Return the answers among the JSON objects of a text; braces in prose are passed over, broken JSON is an error."""
    out = []
    position = 0
    while match := _OBJECT_START.search(text, position):
        start = match.start()
        try:
            value, position = _DECODER.raw_decode(text, start)
        except _DuplicateKeyError as error:
            raise AnswerError("duplicate_keys", f"the key {_short(error.args[0])} is given twice") from None
        except _NotFiniteError as error:
            raise AnswerError("not_finite", f"{error.args[0]} is not a coefficient") from None
        except json.JSONDecodeError as error:
            if error.msg.startswith("Unterminated") or _CUT_TOKEN.fullmatch(text, error.pos):
                raise AnswerError("truncated", "the JSON breaks off: allow the model more tokens") from None
            raise AnswerError("bad_json", f"malformed JSON at character {error.pos}: {error.msg}") from None
        except (RecursionError, ValueError):
            raise AnswerError("bad_json", "the JSON is nested too deeply or holds a number of absurd length") from None
        if _is_answer(value):
            if _INSIDE.search(text, max(0, start - 40), start) or _CLOSES.match(text, position):
                raise AnswerError("bad_json", f"the JSON around character {start} has unbalanced braces")
            out.append(value)
    return out


def _is_answer(value: dict[str, Any]) -> bool:
    return "arkit" in value or "analysis" in value or any(_name_of(key) or _pose_of(key) for key in value)


# --- reading one object -------------------------------------------------------------------------------------------


def _name_of(key: str) -> str | None:
    # lower() maps a few letters beyond ASCII onto ASCII ones (the Kelvin sign onto k): those are not our keys.
    return NAME_OF.get(key.lower()) if key.isascii() else None


def _pose_of(key: str) -> str | None:
    return _POSE_OF.get(key.lower()) if key.isascii() else None


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _some(names: list[str]) -> str:
    rest = len(names) - _MORE_KEY_PLACES
    return ", ".join(names[:_MORE_KEY_PLACES]) + (f" and {rest} more" if rest > 0 else "")


def _read(value: dict[str, Any]) -> Answer:
    if "arkit" in value or "analysis" in value:
        unknown = [key for key in value if key not in ("analysis", "arkit")]
        if unknown:
            raise AnswerError("unknown_keys", f"beside analysis and arkit: {_some([_short(key) for key in unknown])}")
        if "arkit" not in value:
            raise AnswerError("missing_keys", "the answer has an analysis but no arkit")
        if not isinstance(value["arkit"], dict):
            raise AnswerError("not_a_number", "arkit must be an object of 52 numbers")
        coefficients, pose = _numbers(value["arkit"])
        return Answer(coefficients, _analysis(value.get("analysis")), pose)
    coefficients, pose = _numbers(value)
    return Answer(coefficients, None, pose)


def _numbers(values: dict[str, Any]) -> tuple[np.ndarray, dict[str, float] | None]:
    found: dict[str, float] = {}
    pose: dict[str, float] = {}
    unknown = []
    for key, value in values.items():
        name = key if key in _KNOWN else _name_of(key)
        place = found
        if name is None:
            name = _pose_of(key)
            place = pose
            if name is None:
                unknown.append(_short(key))
                continue
        if name in place:
            raise AnswerError("duplicate_keys", f"{name} is given twice, in different spellings")
        place[name] = _number(name, value, place is found)
    if unknown:
        raise AnswerError("unknown_keys", f"not among the 52 actions: {_some(unknown)}")
    if len(found) != N_ACTIONS:
        missing = [name for name in NAMES if name not in found]
        raise AnswerError("missing_keys", f"{len(missing)} of the 52 actions are missing: {_some(missing)}")
    return np.array([found[name] for name in NAMES], dtype=np.float32), pose or None


_KNOWN = frozenset(NAMES)


def _number(name: str, value: object, bounded: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise AnswerError("not_a_number", f"{name} is {_short(value)}, which is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise AnswerError("not_finite", f"{name} is too large to be a number")
    if bounded and not 0 <= number <= 1:
        raise AnswerError("out_of_range", f"{name} is {number:g}; coefficients lie between 0 and 1")
    return number + 0.0  # turns -0.0 into 0.0


def _analysis(value: object) -> Analysis | None:
    if not isinstance(value, dict):
        return None
    try:
        analysis = Analysis.from_dict(value)
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate could be parsed, but never be written again
    except ValueError:
        return None
    return analysis
