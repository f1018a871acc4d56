"""The answer a model generates, `{"analysis": …, "arkit": {…52…}, "pose": {…9…}}`: schema, text and parser.

``format_answer`` writes the canonical text: no spaces, two decimals per coefficient, fixed key order. ``parse_answer``
also reads what models write in practice: prose or code fences around the JSON, free spacing and key order, PascalCase
and ``_L``/``_R`` spellings, Live Link's nine rotations of head and eyes beside or among the 52, and a bare object of
coefficients without ``analysis`` (the published SemanticFace outputs are numbered prose followed by one). Of a model
that thinks aloud only what follows the last ``</think>`` is the answer. The result is 52 numbers in [0, 1] or an
``AnswerError``; nothing is filled in or guessed, and only values within ``TOLERANCE`` of the border become the border.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np

from semanticface.arkit import (
    N_ACTIONS,
    N_POSE,
    NAME_OF,
    NAMES,
    POSE_NAMES,
    REGIONS,
    pose_units,
    to_hundredths,
)
from semanticface.errors import AnswerError
from semanticface.semantics.analysis import Analysis
from semanticface.utils.listing import listed

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
        "pose": {
            "type": "object",
            "properties": {name: {"type": "number", "minimum": -1, "maximum": 1} for name in POSE_NAMES},
            "required": list(POSE_NAMES),
            "additionalProperties": False,
        },
    },
    "required": ["analysis", "arkit"],
    "additionalProperties": False,
}
"""JSON Schema (draft 2020-12) of an answer; ``emotional_implication`` is absent when emotion is off, ``pose``
(``arkit.POSE_NAMES``, radians) where a model does not predict it."""

MAX_CHARACTERS = 1_000_000
"""Longer texts are rejected unparsed; a real answer has about 1,500 characters."""

TOLERANCE = 0.02
"""How far outside [0, 1] a coefficient may be and count as 0 or 1."""

MAX_LENGTH = {"gaze": 256, "mouth": 720}
"""Maximum characters of the analysis fields that can be long; every Stage I text fits."""

MAX_DEFAULT_LENGTH = 192
"""Maximum characters of every other analysis field."""

NUMBER_TEXTS = tuple(f"{number / 100:.2f}" for number in range(101))
"""Every number a canonical answer can contain."""

POSE_TEXTS = tuple(f"{(number - 50) / 50:.2f}" for number in range(101))
"""Every rotation a canonical answer can contain, radians: as many as there are numbers, 1.1 degrees apart."""

ARKIT_START = '"arkit":{'
"""Text before the numbers of a canonical answer; unambiguous, because free text contains no quotes."""

ANALYSIS_END = '"},'
"""Text between the last character of the analysis and ``ARKIT_START``."""

FIRST_KEY = f'{ANALYSIS_END}{ARKIT_START}"{NAMES[0]}":'
"""Text between the last character of the analysis and the first number."""

POSE_START = '},"pose":{'
"""Text between the last coefficient and the first key of the pose."""

POSE_KEYS = (f'{POSE_START}"{POSE_NAMES[0]}":', *(f',"{name}":' for name in POSE_NAMES[1:]))
"""Text before each rotation."""

_KEYS = tuple(f'"{name}":' for name in NAMES)
_ACTION_NAMES = frozenset(NAMES)
_POSE_OF = {name.lower(): name for name in POSE_NAMES}
_OBJECT_START = re.compile(r'\{\s*["}]|\{\s*\Z')
_CUT_TOKEN = re.compile(r"[\\\w.+-]{0,10}\s*")  # the rest of a text cut inside a number, word or escape
_INSIDE = re.compile(r'"\s*:\s*\Z')  # before an object that is the value of a larger, malformed one
_CLOSES = re.compile(r"\s*\}")
_THINKING_STARTS, _THINKING_ENDS = "<think>", "</think>"


def answer_schema(mode: Literal["full", "numbers"], *, emotion: bool) -> dict[str, Any]:
    """Return ``SCHEMA`` for one mode, in the form that structured-output servers accept.

    Every key is required and texts have no lengths, because some servers reject other schemas.

    Args:
        mode: ``numbers`` omits the analysis.
        emotion: False omits ``emotional_implication``.
    """
    whole = SCHEMA["properties"]
    properties = {"arkit": whole["arkit"]}
    if mode == "full":
        text = {"type": "string"}
        keys = [key for key in whole["analysis"]["properties"] if emotion or key != "emotional_implication"]
        fields: dict[str, Any] = dict.fromkeys(keys, text)
        movements = whole["analysis"]["properties"]["muscle_movements"]
        fields["muscle_movements"] = {**movements, "properties": dict.fromkeys(REGIONS, text)}
        analysis = {**whole["analysis"], "properties": fields, "required": keys}
        properties = {"analysis": analysis, **properties}
    schema = {"title": SCHEMA["title"], "type": "object", "properties": properties}
    return {**schema, "required": list(properties), "additionalProperties": False}


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A parsed answer.

    Attributes:
        coefficients: float32[52] in [0, 1], project order, finite.
        analysis: the analysis, or None if the text has none in the expected form.
        pose: the head and eye pose values present, by ``arkit.POSE_NAMES``, in the text's own units; or None.
    """

    coefficients: np.ndarray
    analysis: Analysis | None
    pose: dict[str, float] | None


class _DuplicateKeyError(ValueError):
    pass


class _NotFiniteError(ValueError):
    pass


def format_answer(coefficients: np.ndarray, analysis: Analysis | None, pose: np.ndarray | None = None) -> str:
    """Return the canonical text of an answer: compact JSON, two decimals, fixed key order.

    Args:
        coefficients: [52] in [0, 1], project order; rounded to hundredths.
        analysis: its ``emotional_implication`` is omitted if None; None writes numbers only.
        pose: [9] radians, ``arkit.POSE_NAMES``; clipped to 1 radian and rounded to a fiftieth.

    Raises:
        ValueError: a wrong shape, or a value outside [0, 1].
    """
    values = to_hundredths(coefficients)
    if values.shape != (N_ACTIONS,):
        raise ValueError(f"expected [{N_ACTIONS}] coefficients, got shape {values.shape}")
    numbers = ",".join([key + NUMBER_TEXTS[value] for key, value in zip(_KEYS, values.tolist(), strict=True)])
    if pose is not None:
        rotations = np.asarray(pose, dtype=np.float64)
        if rotations.shape != (N_POSE,) or not np.isfinite(rotations).all():
            raise ValueError(f"expected [{N_POSE}] finite rotations, got shape {rotations.shape}")
        rotations = np.rint(100 * pose_units(rotations)).astype(np.int64)
        numbers += "".join([key + POSE_TEXTS[k] for key, k in zip(POSE_KEYS, rotations.tolist(), strict=True)])
    if analysis is None:
        return f"{{{ARKIT_START}{numbers}}}}}"
    text = json.dumps(analysis.to_dict(), ensure_ascii=False, separators=(",", ":"))
    return f'{{"analysis":{text},{ARKIT_START}{numbers}}}}}'


def parse_answer(text: str) -> Answer:
    """Parse the answer in generated text.

    Raises:
        AnswerError: with one of these codes.
            ``no_json``: the text has no JSON object with an answer.
            ``truncated``: the JSON is cut off at the end of the text.
            ``bad_json``: the JSON is otherwise malformed, or nested too deeply.
            ``missing_keys``, ``unknown_keys``, ``duplicate_keys``: the keys are not the 52, each once.
            ``not_a_number``: null, a boolean, text or another value instead of a number.
            ``not_finite``: NaN or an infinity.
            ``out_of_range``: a coefficient outside [0, 1] by more than ``TOLERANCE``.
            ``ambiguous``: several different answers.
            ``too_long``: more than ``MAX_CHARACTERS`` characters.
    """
    if len(text) > MAX_CHARACTERS:
        raise AnswerError("too_long", f"the text has {len(text):,} characters, an answer at most {MAX_CHARACTERS:,}")
    answer = text.rpartition(_THINKING_ENDS)[2]
    if _THINKING_STARTS in answer:
        raise AnswerError("truncated", "the text ends while the model is thinking: allow the model more tokens")
    found = [_parse_object(value) for value in _objects(answer)]
    if not found:
        raise AnswerError("no_json", "the text has no JSON object with coefficients: ask the model for JSON only")
    first = found[0]
    for other in found[1:]:
        same = np.array_equal(first.coefficients, other.coefficients) and first.pose == other.pose
        if not same or first.analysis != other.analysis:
            raise AnswerError("ambiguous", f"the text has {len(found)} answers that differ: keep one")
    return first


# --- locating the JSON ----------------------------------------------------------------------------------------------


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)
    return out


def _reject_constant(name: str) -> NoReturn:
    raise _NotFiniteError(name)


_DECODER = json.JSONDecoder(object_pairs_hook=_reject_duplicate_keys, parse_constant=_reject_constant)


def _objects(text: str) -> list[dict[str, Any]]:
    """Return the answers among the JSON objects of a text; ignores braces in prose, rejects malformed JSON."""
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
                raise AnswerError("truncated", "the JSON is cut off: allow the model more tokens") from None
            raise AnswerError("bad_json", f"malformed JSON at character {error.pos}: {error.msg}") from None
        except (RecursionError, ValueError):
            raise AnswerError("bad_json", "the JSON is nested too deeply or contains an absurdly long number") from None
        if _is_answer(value):
            if _INSIDE.search(text, max(0, start - 40), start) or _CLOSES.match(text, position):
                raise AnswerError("bad_json", f"the JSON around character {start} has unbalanced braces")
            out.append(value)
    return out


def _is_answer(value: dict[str, Any]) -> bool:
    return "arkit" in value or "analysis" in value or any(_action_name(key) or _pose_name(key) for key in value)


# --- parsing one object -------------------------------------------------------------------------------------------


def _action_name(key: str) -> str | None:
    # lower() maps a few non-ASCII letters to ASCII (the Kelvin sign to k): those are not our keys.
    return NAME_OF.get(key.lower()) if key.isascii() else None


def _pose_name(key: str) -> str | None:
    return _POSE_OF.get(key.lower()) if key.isascii() else None


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _parse_object(value: dict[str, Any]) -> Answer:
    if "arkit" in value or "analysis" in value:
        unknown = [key for key in value if key not in ("analysis", "arkit", "pose")]
        if unknown:
            raise AnswerError("unknown_keys", f"next to analysis and arkit: {listed([_short(key) for key in unknown])}")
        if "arkit" not in value:
            raise AnswerError("missing_keys", "the answer has an analysis but no arkit object")
        if not isinstance(value["arkit"], dict):
            raise AnswerError("not_a_number", "arkit must be an object of 52 numbers")
        coefficients, pose = _numbers(value["arkit"])
        if "pose" in value:
            if pose is not None:
                raise AnswerError("duplicate_keys", "the rotations are given twice, in arkit and in pose")
            pose = _rotations(value["pose"])
        return Answer(coefficients, _analysis(value.get("analysis")), pose)
    coefficients, pose = _numbers(value)
    return Answer(coefficients, None, pose)


def _numbers(values: dict[str, Any]) -> tuple[np.ndarray, dict[str, float] | None]:
    found: dict[str, float] = {}
    pose: dict[str, float] = {}
    unknown = []
    for key, value in values.items():
        name = key if key in _ACTION_NAMES else _action_name(key)
        target = found
        if name is None:
            name = _pose_name(key)
            target = pose
            if name is None:
                unknown.append(_short(key))
                continue
        if name in target:
            raise AnswerError("duplicate_keys", f"{name} is given twice, in different spellings")
        target[name] = _number(name, value, target is found)
    if unknown:
        raise AnswerError("unknown_keys", f"not among the 52 actions: {listed(unknown)}")
    if len(found) != N_ACTIONS:
        missing = [name for name in NAMES if name not in found]
        raise AnswerError("missing_keys", f"{len(missing)} of the 52 actions are missing: {listed(missing)}")
    return np.array([found[name] for name in NAMES], dtype=np.float32), pose or None


def _rotations(values: object) -> dict[str, float]:
    if not isinstance(values, dict):
        raise AnswerError("not_a_number", f"pose must be an object of {N_POSE} rotations")
    pose: dict[str, float] = {}
    for key, value in values.items():
        name = _pose_name(key)
        if name is None:
            raise AnswerError("unknown_keys", f"in pose: {_short(key)}")
        if name in pose:
            raise AnswerError("duplicate_keys", f"{name} is given twice, in different spellings")
        pose[name] = _number(name, value, bounded=False)
    if missing := [name for name in POSE_NAMES if name not in pose]:
        raise AnswerError("missing_keys", f"{len(missing)} of the {N_POSE} rotations are missing: {listed(missing)}")
    return pose


def _number(name: str, value: object, bounded: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise AnswerError("not_a_number", f"{name} is {_short(value)}, which is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise AnswerError("not_finite", f"{name} is too large to be a number")
    if bounded:
        if not -TOLERANCE <= number <= 1 + TOLERANCE:
            raise AnswerError("out_of_range", f"{name} is {value}; coefficients lie between 0 and 1")
        number = min(max(number, 0.0), 1.0)
    return number + 0.0  # turns -0.0 into 0.0


def _analysis(value: object) -> Analysis | None:
    if not isinstance(value, dict):
        return None
    try:
        analysis = Analysis.from_dict(value)
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate parses but cannot be encoded
    except ValueError:
        return None
    return analysis
