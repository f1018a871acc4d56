"""What a language model is told of a face, and whether what it wrote of it may stand.

The prompt is ``prompts/describe.txt``; in place of ``{face}`` it gets the measurements of each region that moves, each
with its grade in words. What comes back is kept only if it has the form of an analysis, contradicts no number and
leaves little unsaid; otherwise the problems are told to the model, which is asked again.
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
LEAST_SCORE = 0.8
"""An analysis that contradicts nothing must also say most of what is visible: ``Agreement.score`` from here on."""
MOST_LEFT_OUT = 0.4
"""And no region may leave out an action whose coefficient is as large as this, which is "clearly"."""

# What each action does, in words that ``agreement`` reads; {} takes the side.
_DOES = {
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
_FACE = "{face}"
_AGAIN = "An earlier answer of yours was not right. Write the whole object anew, without this:"
_MOST_PROBLEMS = 6  # told to the model; a text full of mistakes is no help to it
_MOST_QUOTED = 160

# Models write typographic marks; an answer is plain ASCII without quotes, which any decoder can write (``grammar``).
_PLAIN = str.maketrans(dict.fromkeys('"“”„‘’`´', "'") | dict.fromkeys("–—‐‑", "-") | {"…": "..."})
_LETTERS = re.compile(r"[ -\[\]-~]+")
_OBJECT = re.compile(r'\{\s*"')
_MOST_READ = 20_000  # characters of a reply after its thoughts; an analysis has about 700


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a reply.

    Attributes:
        analysis: what it says, if that may stand; otherwise None.
        code: ``ok``, ``form`` (not the object that was asked for), ``contradicts`` or ``omits``.
        problems: what is wrong, as the model is told.
    """

    analysis: Analysis | None
    code: str
    problems: tuple[str, ...] = ()


@cache
def form_sha256(*, emotion: bool = True) -> str:
    """Return the hash of all words a model is asked with, the measurements' own included."""
    words = json.dumps([load_prompt(PROMPT, emotion=emotion).sha256, _DOES, _AGAIN, GRADES])
    return hashlib.sha256(words.encode()).hexdigest()


@cache
def schema(*, emotion: bool = True) -> dict[str, Any]:
    """Return the JSON Schema of an analysis, every key required, for servers that hold replies to one."""
    form: dict[str, Any] = answer_schema("full", emotion=emotion)["properties"]["analysis"]
    return form


def face_in_words(coefficients: np.ndarray, *, emotion: bool = True) -> str:
    """Return the measurements of a [52] vector as a model is told them: visible actions by region, each with its grade.

    Raises:
        ValueError: a wrong shape, or a value that is not a number in [0, 1].
    """
    values = to_hundredths(coefficients)
    if values.ndim != 1:
        raise ValueError(f"expected one vector of coefficients, got shape {values.shape}")
    lines = []
    for region in REGIONS:
        own = [action for action in ACTIONS if action.region == region and values[action.index] >= VISIBLE * 100]
        lines.append(f"{region}:" if own else f"{region}: {RELAXED[region]}")
        lines += [
            f"- {_does(action.name)}: {_grade(values[action.index])} ({values[action.index] / 100:.2f})"
            for action in own
        ]
    gaps = np.abs(values[PAIR_LEFT] - values[PAIR_RIGHT])
    pair, gap = int(gaps.argmax()), int(gaps.max())
    word = "symmetric" if gap < DIFFERS else "mostly symmetric" if gap < ASYMMETRIC else "asymmetric"
    if gap >= DIFFERS:
        ahead = PAIR_LEFT[pair] if values[PAIR_LEFT[pair]] > values[PAIR_RIGHT[pair]] else PAIR_RIGHT[pair]
        word += f"; the two sides differ most in: {_does(ACTIONS[ahead].name)}, which is more by {gap / 100:.2f}"
    lines.append(f"symmetry: {word}")
    if emotion:
        lines.append(f"what the muscles suggest: {describe(coefficients).emotional_implication}")
    return "\n".join(lines)


def _does(name: str) -> str:
    stem = _SIDE.sub("", name)
    return _DOES[name] if name in _DOES else _DOES[stem].format(name[len(stem) :].lower())


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
    """Return what to ask about a [52] vector; ``problems`` are those of the answer before."""
    prompt = load_prompt(PROMPT, emotion=emotion)
    user = prompt.user.replace(_FACE, face_in_words(coefficients, emotion=emotion))
    if problems:
        user = "\n".join([user, "", _AGAIN, *(f"- {problem}" for problem in problems)])
    chat = [{"role": "system", "content": prompt.system}, {"role": "user", "content": user}]
    return ChatRequest(chat, max_tokens, schema(emotion=emotion), temperature, seed)


# --- reading the reply --------------------------------------------------------------------------------------------


def judge(text: str, coefficients: np.ndarray, *, emotion: bool = True, cut: bool = False) -> Verdict:
    """Return whether a reply may stand as the analysis of a [52] vector.

    Args:
        text: what the model wrote; prose, thoughts or a code fence around the object are passed over.
        coefficients: [52] in [0, 1].
        emotion: whether an emotion is asked for; without it none may be given.
        cut: whether the reply was cut at its longest.
    """
    try:
        analysis = _analysis(text, emotion)
    except ValueError as error:
        problem = "the answer was too long" if cut else str(error)
        return Verdict(None, "form", (problem,))
    found, values = agreement(analysis, coefficients), to_hundredths(coefficients)
    if found.contradicts:
        told = [_untrue(claim, coefficients) for claim in found.contradicts]
        return Verdict(None, "contradicts", tuple(dict.fromkeys(told))[:_MOST_PROBLEMS])
    # That one side moves more does not say how far: what a region leaves out, the symmetry cannot make good.
    omits = agreement(dataclasses.replace(analysis, symmetry="symmetric"), coefficients).omits
    if found.score < LEAST_SCORE or any(values[INDEX[name]] >= 100 * MOST_LEFT_OUT for name in omits):
        left_out = sorted(omits, key=lambda name: -coefficients[INDEX[name]])
        told = [f"it leaves out: {_does(name)}, {_measured(name, coefficients)}" for name in left_out]
        return Verdict(None, "omits", tuple(told)[:_MOST_PROBLEMS] or ("it says nothing that could be checked",))
    return Verdict(analysis, "ok")


def _analysis(text: str, emotion: bool) -> Analysis:
    """Raises:
    ValueError: there is no analysis in the text, or one that no answer could hold.
    """
    text = text.rpartition("</think>")[2][:_MOST_READ]
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
    words = analysis.to_dict()
    out = {key: _plain(key, text) for key, text in words.items() if isinstance(text, str)}
    movements = {region: _plain(region, text) for region, text in words["muscle_movements"].items()}
    return Analysis.from_dict(out | {"muscle_movements": movements})


def _plain(key: str, text: str) -> str:
    """Return a text as answers hold it: printable ASCII on one line, without quotes, not longer than answers allow."""
    text = " ".join(text.translate(_PLAIN).split()).rstrip(".")
    longest = MAX_LENGTH.get(key, MAX_DEFAULT_LENGTH)
    if not _LETTERS.fullmatch(text):
        raise ValueError(f"{key} was empty, or held letters other than plain ones")
    if len(text) > longest:
        raise ValueError(f"{key} was too long: {len(text)} letters, where {longest} are allowed")
    return text


def _untrue(claim: Claim, coefficients: np.ndarray) -> str:
    quoted = claim.text if len(claim.text) <= _MOST_QUOTED else f"{claim.text[:_MOST_QUOTED]}..."
    real = [f"{_does(name)}: {_measured(name, coefficients)}" for name in claim.actions if name in INDEX]
    told = "; ".join(real[:4]) or "the measurements do not show it"
    return f"{claim.source}: {quoted} (in fact {told})"


def _measured(name: str, coefficients: np.ndarray) -> str:
    value = int(to_hundredths(coefficients)[INDEX[name]])
    return f"{_grade(value)} ({value / 100:.2f})" if value >= VISIBLE * 100 else "not at all"
