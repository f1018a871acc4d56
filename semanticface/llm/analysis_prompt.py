"""The prompt that asks a language model for an analysis, and the check of its reply.

The prompt is ``prompts/describe.txt``; ``{face}`` is replaced by the measurements of each region that moves, each with
its grade in words. A reply is accepted only if it has the form of an analysis, contradicts no coefficient and leaves
little out; otherwise the next attempt lists its problems.

Changing a text that a model reads changes ``prompt_sha256`` and every cache key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from semanticface.arkit import ACTIONS, INDEX, REGIONS, to_hundredths
from semanticface.llm.chat import ChatRequest
from semanticface.prompts import load_prompt
from semanticface.semantics.analysis import Analysis, describe
from semanticface.semantics.answer import MAX_DEFAULT_LENGTH, MAX_LENGTH, answer_schema
from semanticface.semantics.expression import UNCLEAR
from semanticface.semantics.faithfulness import Claim, agreement
from semanticface.semantics.movements import ASYMMETRIC, DIFFERS, PAIR_LEFT, PAIR_RIGHT, RELAXED, VISIBLE
from semanticface.semantics.phrasing import GRADES

PROMPT = "describe"
MIN_SCORE = 0.8
"""Minimum ``Agreement.score`` of an accepted analysis: it must describe most of what is visible."""
MAX_OMITTED = 0.4
"""No region may omit an action with a coefficient from here on, the grade "clearly"."""

# What each action does, in wording that ``agreement`` parses; {} is the side.
_ACTION_TEXT = {
    "browDown": "{} brow lowered",
    "browInnerUp": "inner brows raised",
    "browOuterUp": "{} outer brow raised",
    "eyeBlink": "{} eyelid lowered",
    "eyeSquint": "{} eye narrowed",
    "eyeWide": "{} eye widened",
    "eyeLookUp": "{} eye looking up",
    "eyeLookDown": "{} eye looking down",
    "eyeLookOutLeft": "left eye looking to the subject's left",
    "eyeLookInRight": "right eye looking to the subject's left",
    "eyeLookInLeft": "left eye looking to the subject's right",
    "eyeLookOutRight": "right eye looking to the subject's right",
    "cheekPuff": "both cheeks puffed out",
    "cheekSquint": "{} cheek raised",
    "noseSneer": "{} side of the nose wrinkled",
    "mouthSmile": "{} corner pulled up",
    "mouthFrown": "{} corner pulled down",
    "mouthDimple": "{} corner tucked in",
    "mouthStretch": "{} corner stretched",
    "mouthFunnel": "lips funneled",
    "mouthPucker": "lips puckered",
    "mouthClose": "lips closed over the open jaw",
    "mouthRollLower": "lower lip rolled in",
    "mouthRollUpper": "upper lip rolled in",
    "mouthShrugLower": "lower lip pushed up",
    "mouthShrugUpper": "upper lip pushed up",
    "mouthPress": "lips pressed together on the {}",
    "mouthLowerDown": "lower lip pulled down on the {}",
    "mouthUpperUp": "upper lip raised on the {}",
    "mouthLeft": "mouth shifted to the subject's left",
    "mouthRight": "mouth shifted to the subject's right",
    "jawOpen": "jaw open",
    "jawForward": "jaw pushed forward",
    "jawLeft": "jaw shifted to the subject's left",
    "jawRight": "jaw shifted to the subject's right",
    "tongueOut": "tongue out",
}
_SIDE = re.compile("(?:Left|Right)$")
_PLACEHOLDER = "{face}"
_RETRY = "An earlier answer of yours was not right. Write the whole object anew, without this:"
_MAX_PROBLEMS = 6  # listed in a retry: a longer list does not help the model
_MAX_QUOTED = 160  # characters of a claim

# Models write typographic marks; an answer is ASCII without quotes, which every decoder can write (``grammar``).
_TO_ASCII = str.maketrans(dict.fromkeys('"“”„‘’`´', "'") | dict.fromkeys("–—‐‑", "-") | {"…": "..."})
_ALLOWED = re.compile(r"[ -\[\]-~]+")  # printable ASCII without the backslash
_OBJECT = re.compile(r'\{\s*"')
_MAX_READ = 20_000  # characters of a reply after its reasoning; an analysis has about 700


@dataclass(frozen=True, slots=True)
class Verdict:
    """The check of a reply.

    Attributes:
        analysis: the parsed analysis if it is accepted, otherwise None.
        code: ``ok``, ``form`` (not the requested object), ``contradicts`` or ``omits``.
        problems: what is wrong, in the words sent back to the model.
    """

    analysis: Analysis | None
    code: str
    problems: tuple[str, ...] = ()


@cache
def prompt_sha256(*, emotion: bool = True) -> str:
    """Return the hash of all text in a prompt, including the wording of the measurements."""
    text = json.dumps([load_prompt(PROMPT, emotion=emotion).sha256, _ACTION_TEXT, _RETRY, GRADES])
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def schema(*, emotion: bool = True) -> dict[str, Any]:
    """Return the JSON Schema of an analysis, every key required, for servers with structured output."""
    analysis: dict[str, Any] = answer_schema("full", emotion=emotion)["properties"]["analysis"]
    return analysis


def format_measurements(coefficients: np.ndarray, *, emotion: bool = True) -> str:
    """Return the measurements of a [52] vector for the prompt: visible actions by region, each with its grade."""
    values = to_hundredths(coefficients)
    if values.ndim != 1:
        raise ValueError(f"expected one vector of coefficients, got shape {values.shape}")
    lines = []
    for region in REGIONS:
        visible = [action for action in ACTIONS if action.region == region and values[action.index] >= VISIBLE * 100]
        lines.append(f"{region}:" if visible else f"{region}: {RELAXED[region]}")
        lines += [
            f"- {_action_text(action.name)}: {_grade(values[action.index])} ({values[action.index] / 100:.2f})"
            for action in visible
        ]
    gaps = np.abs(values[PAIR_LEFT] - values[PAIR_RIGHT])
    pair, gap = int(gaps.argmax()), int(gaps.max())
    symmetry = "symmetric" if gap < DIFFERS else "mostly symmetric" if gap < ASYMMETRIC else "asymmetric"
    if gap >= DIFFERS:
        stronger = PAIR_LEFT[pair] if values[PAIR_LEFT[pair]] > values[PAIR_RIGHT[pair]] else PAIR_RIGHT[pair]
        symmetry += (
            f"; the two sides differ most in: {_action_text(ACTIONS[stronger].name)}, which is more by {gap / 100:.2f}"
        )
    lines.append(f"symmetry: {symmetry}")
    if emotion:
        lines.append(f"what the muscles suggest: {describe(coefficients).emotional_implication}")
    return "\n".join(lines)


def _action_text(name: str) -> str:
    stem = _SIDE.sub("", name)
    return _ACTION_TEXT[name] if name in _ACTION_TEXT else _ACTION_TEXT[stem].format(name[len(stem) :].lower())


def _grade(value: int) -> str:
    return next(adverb for adverb, low, high in GRADES if low <= value <= high)


def build_request(
    coefficients: np.ndarray,
    problems: tuple[str, ...] = (),
    *,
    emotion: bool = True,
    max_tokens: int,
    temperature: float,
    seed: int,
) -> ChatRequest:
    """Return the request about a [52] vector; ``problems`` are those of the previous attempt."""
    prompt = load_prompt(PROMPT, emotion=emotion)
    user = prompt.user.replace(_PLACEHOLDER, format_measurements(coefficients, emotion=emotion))
    if problems:
        user = "\n".join([user, "", _RETRY, *(f"- {problem}" for problem in problems)])
    chat = [{"role": "system", "content": prompt.system}, {"role": "user", "content": user}]
    return ChatRequest(chat, max_tokens, schema(emotion=emotion), temperature, seed)


# --- reading the reply --------------------------------------------------------------------------------------------


def judge(text: str, coefficients: np.ndarray, *, emotion: bool = True, cut: bool = False) -> Verdict:
    """Check whether a reply is accepted as the analysis of a [52] vector.

    Args:
        text: the reply; prose, reasoning or a code fence around the object are ignored.
        coefficients: [52] in [0, 1].
        emotion: whether an emotion is required; otherwise none may be given.
        cut: whether the reply was cut at ``max_tokens``.
    """
    try:
        analysis = _parse(text, emotion)
    except ValueError as error:
        problem = "the answer was too long" if cut else str(error)
        return Verdict(None, "form", (problem,))
    found, values = agreement(analysis, coefficients), to_hundredths(coefficients)
    if found.contradicts:
        problems = [_contradiction(claim, coefficients) for claim in found.contradicts]
        return Verdict(None, "contradicts", tuple(dict.fromkeys(problems))[:_MAX_PROBLEMS])
    # The symmetry says which side moves more, not how far, so it does not count as a description of a region.
    omits = agreement(dataclasses.replace(analysis, symmetry="symmetric"), coefficients).omits
    if found.score < MIN_SCORE or any(values[INDEX[name]] >= 100 * MAX_OMITTED for name in omits):
        strongest_first = sorted(omits, key=lambda name: -coefficients[INDEX[name]])
        problems = [f"it leaves out: {_action_text(name)}, {_measured(name, coefficients)}" for name in strongest_first]
        return Verdict(None, "omits", tuple(problems)[:_MAX_PROBLEMS] or ("it says nothing that could be checked",))
    return Verdict(analysis, "ok")


def _parse(text: str, emotion: bool) -> Analysis:
    """Return the analysis in a reply; a ValueError explains why there is none that an answer can hold."""
    text = text.rpartition("</think>")[2][:_MAX_READ]
    value = None
    for start in (match.start() for match in _OBJECT.finditer(text)):
        try:
            value, _ = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        break
    if not isinstance(value, dict):
        raise ValueError("the answer was not one JSON object, whole and without mistakes")
    value = value.get("analysis", value)
    analysis = Analysis.from_dict(value)
    if emotion and analysis.emotional_implication is None:
        raise ValueError(f"emotional_implication was missing; where nothing is suggested it is {UNCLEAR}")
    if not emotion and analysis.emotional_implication is not None:
        raise ValueError("emotional_implication was not asked for")
    fields = analysis.to_dict()
    out = {key: _to_ascii(key, text) for key, text in fields.items() if isinstance(text, str)}
    movements = {region: _to_ascii(region, text) for region, text in fields["muscle_movements"].items()}
    return Analysis.from_dict(out | {"muscle_movements": movements})


def _to_ascii(key: str, text: str) -> str:
    """Return a text in the form of answers: printable ASCII on one line, without quotes, of limited length."""
    text = " ".join(text.translate(_TO_ASCII).split()).rstrip(".")
    limit = MAX_LENGTH.get(key, MAX_DEFAULT_LENGTH)
    if not _ALLOWED.fullmatch(text):
        raise ValueError(f"{key} was empty, or held letters other than plain ones")
    if len(text) > limit:
        raise ValueError(f"{key} was too long: {len(text)} letters, where {limit} are allowed")
    return text


def _contradiction(claim: Claim, coefficients: np.ndarray) -> str:
    quoted = claim.text if len(claim.text) <= _MAX_QUOTED else f"{claim.text[:_MAX_QUOTED]}..."
    actual = [f"{_action_text(name)}: {_measured(name, coefficients)}" for name in claim.actions if name in INDEX]
    facts = "; ".join(actual[:4]) or "the measurements do not show it"
    return f"{claim.source}: {quoted} (in fact {facts})"


def _measured(name: str, coefficients: np.ndarray) -> str:
    value = int(to_hundredths(coefficients)[INDEX[name]])
    return f"{_grade(value)} ({value / 100:.2f})" if value >= VISIBLE * 100 else "not at all"
