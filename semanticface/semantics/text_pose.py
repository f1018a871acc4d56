"""Turn English into a face: the opposite of ``analysis.describe``, with the vocabulary of ``lexicon``.

Each claim that ``faithfulness`` parses from the text becomes the middle of its range; a movement without an intensity
is clear (``UNGRADED``). Head turns, which an analysis has no words for, are read here. Left and right are the subject's
own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from semanticface import arkit
from semanticface.semantics import lexicon
from semanticface.semantics.analysis import Analysis
from semanticface.semantics.faithfulness import TOLERANCE, Claim, text_claims
from semanticface.semantics.lexicon import GRADE_RANGES, IMPLIED_NOUN, MEANINGS, Token

UNGRADED = 60
"""Hundredths of a movement whose text states no intensity."""
HEAD_DEGREES = {"yaw": 40.0, "pitch": 30.0, "roll": 30.0}
"""Degrees of a head that is fully turned, raised or tilted."""

_PIECES = re.compile(r"[,;.:()/\n]+|\b(?:while|but|whereas)\b")
_WORD = re.compile(r"[\w']+")
# What people say, in words of the lexicon.
_RESTATED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"\b(?:one sided|lopsided|crooked)\b", "left"),
        (r"\bwink\w*(?: (?:with|of))?(?: (?:the|his|her))? (left|right)(?: eye)?\b", r"\1 eye closed"),
        (r"\b(left|right) wink\b", r"\1 eye closed"),
        (r"\b(mouth|jaw)( is)? (?:wide open|open(?:ed)? wide|widely open(?:ed)?)\b", r"\1 strongly open"),
        (r"\b(?:wide|widely) open(?:ed)? (mouth|jaw)\b", r"strongly open \1"),
        (r"\bopen (?:the |his |her )?(mouth|jaw) wide\b", r"strongly open \1"),
        (r"\bwide (smil|grin)", r"strongly \1"),
        (r"\b(smil\w+|grin\w*) wide(?:ly)?\b", r"strongly \1"),
        (r"\bclose\b", "closed"),
        (r"\bwiden\b", "widened"),
        (r"(?:^|(?<=[,;.] )|(?<=and ))lower (?!(?:eye)?lids?\b|lips?\b)", "lowered "),
    )
)
# Verbs that need no noun, for the mouth or a noun that they imply.
_ALONE = {*IMPLIED_NOUN, "smile", "together", "puckered", "funneled"}
_HEAD = re.compile(r"\b(?:head|face|nod\w*)\b")
_HEAD_WAYS: tuple[tuple[str, str, float, str], ...] = (
    ("roll", "left", 1, r"\b(?:tilt\w*|lean\w*|roll\w*)\b.*\bleft"),
    ("roll", "right", -1, r"\b(?:tilt\w*|lean\w*|roll\w*)\b.*\bright"),
    ("yaw", "left", 1, r"\bleft"),
    ("yaw", "right", -1, r"\bright"),
    ("pitch", "up", 1, r"\b(?:up\w*|rais\w+|lift\w*|back\w*)\b"),
    ("pitch", "down", -1, r"\b(?:down\w*|lower\w*|bow\w*|nod\w*|forwards?|drop\w*)\b"),
)
_HEAD_FORMS = re.compile(
    r"\b(?:head|face|turn\w*|tilt\w*|lean\w*|roll\w*|rotate\w*|up\w*|down\w*|rais\w+|lift\w*|lower\w*|bow\w*|nod\w*|drop\w*"
    r"|back\w*|forwards?|side(?:ways)?)\b"
)
_FILLERS = {
    *("a", "an", "the", "is", "are", "be", "it", "its", "his", "her", "their", "with", "and", "or", "of", "to", "at"),
    *("on", "in", "into", "from", "by", "for", "as", "that", "this", "them", "there", "he", "she", "they", "has"),
    *("have", "having", "face", "expression", "looks", "look", "while", "but", "one", "so", "just", "quite", "now"),
    *("make", "please", "then", "each", "other", "person's", "subject's", "toward", "towards", "side"),
}


@dataclass(frozen=True, slots=True, eq=False)
class TextPose:
    """A face read from text.

    Attributes:
        coefficients: float32[52] in [0, 1], project order; actions that the text does not mention are 0.
        pose: float32[9], radians, ``arkit.POSE_NAMES``; the eyes follow the gaze actions.
        mentioned: actions that the text states or denies, project order.
        not_understood: words of the text that changed nothing, in order.
    """

    coefficients: np.ndarray
    pose: np.ndarray
    mentioned: tuple[str, ...]
    not_understood: tuple[str, ...]

    @property
    def understood(self) -> bool:
        """Whether the text says anything about the face, head or eyes."""
        return bool(self.mentioned) or bool(self.pose.any())


def coefficients_from_text(text: str | Analysis) -> TextPose:
    """Return the face that a text describes.

    Args:
        text: English such as ``left brow raised, a faint smile, eyes half closed, head turned to the left``, or an
            analysis, whose muscle movements are read.

    Raises:
        TypeError: ``text`` is neither.
    """
    if not isinstance(text, str | Analysis):
        raise TypeError(f"expected text or an Analysis, got {type(text).__name__}")
    values: dict[str, float] = {}
    head = dict.fromkeys(HEAD_DEGREES, 0.0)
    unknown: list[str] = []
    if isinstance(text, Analysis):
        for region, words in text.muscle_movements.items():
            for claim in text_claims(region, words):
                values |= _values(claim)
    else:
        noun = False
        for piece in _PIECES.split(_restated(text)):
            noun = _read_piece(piece, values, head, unknown, noun)
    coefficients = arkit.vector(values)
    pose = arkit.pose_of(list(head.values()), arkit.gaze_degrees(coefficients))
    mentioned = tuple(name for name in arkit.NAMES if name in values)
    return TextPose(coefficients, pose + np.float32(0), mentioned, tuple(unknown))


def _restated(text: str) -> str:
    text = " ".join(text.lower().replace("’", "'").replace("-", " ").split())
    for pattern, words in _RESTATED:
        text = pattern.sub(words, text)
    return text


def _read_piece(
    piece: str, values: dict[str, float], head: dict[str, float], unknown: list[str], noun_before: bool
) -> bool:
    """Read a piece between two commas into ``values``, ``head`` and ``unknown``; return whether it names a part."""
    parts = re.split(r"\band\b", piece) if _HEAD.search(piece) else [piece]
    names_part = False
    for part in parts:
        found = lexicon.tokens(part)
        if _HEAD.search(part) and _read_head(part, found, head):
            unknown += _unknown(_HEAD_FORMS.sub(_blank, part), found)
            continue
        kinds = {token.kind for token in found}
        verbs = {token.value for token in found if token.kind == lexicon.VERB}
        names_part |= lexicon.NOUN in kinds
        stands = noun_before or kinds & {lexicon.NOUN, lexicon.LOOK, lexicon.REST} or verbs & _ALONE
        claims = text_claims("text", part) if stands else ()
        read: dict[str, float] = {}
        for claim in claims:
            read |= _values(claim)
        values |= read
        if read or lexicon.REST in kinds:
            unknown += _unknown(part, found)
        elif words := " ".join(part.split()):
            unknown.append(words)
    return names_part


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])


def _unknown(part: str, found: tuple[Token, ...]) -> list[str]:
    """Return the words of a part that are in no token and carry meaning."""
    covered = {place for token in found for place in range(token.start, token.stop)}
    return [match[0] for match in _WORD.finditer(part) if match.start() not in covered and match[0] not in _FILLERS]


def _read_head(part: str, found: tuple[Token, ...], head: dict[str, float]) -> bool:
    grade = next((token.value for token in found if token.kind == lexicon.GRADE), None)
    low, high = GRADE_RANGES[grade] if grade else (UNGRADED, UNGRADED)
    share = 0.0 if any(token.kind == lexicon.NOT for token in found) else (low + high) / 200
    for axis, _, sign, pattern in _HEAD_WAYS:
        if re.search(pattern, part):
            head[axis] = sign * share * HEAD_DEGREES[axis]
            return True
    return any(token.kind == lexicon.REST for token in found)


def _values(claim: Claim) -> dict[str, float]:
    """Return the value of each action that a claim is about, in [0, 1]."""
    if claim.test == "difference":
        return {}
    if claim.test == "measure":
        return _measured(claim)
    level = _level(claim)
    own: dict[str, float] = dict.fromkeys(claim.actions, level)
    # A brow that rises on one side alone lifts half of what the middle does.
    sided = {name[-4:] == "Left" for name in own if name.endswith(("Left", "Right"))}
    if len(sided) == 1 and set(own) & set(MEANINGS["brow"]["up"]):
        own |= {name: level / 2 for name in own if name == "browInnerUp"}
    return own


def _level(claim: Claim) -> float:
    low = claim.low + TOLERANCE if claim.low else 0
    high = claim.high - TOLERANCE if claim.high < 100 else 100
    if claim.low == 0 and high < 10:
        return 0.0
    if high == 100 and low < GRADE_RANGES["strongly"][0]:  # no intensity stated
        return 1.0 if low >= 40 else UNGRADED / 100
    return (low + high) / 200


def _measured(claim: Claim) -> dict[str, float]:
    name = claim.actions[0]
    level = _level(claim)
    if name == "wink":
        return {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 0.0}
    if name == "mouth open":
        return {"jawOpen": level}
    if name == "lips apart":
        return {"jawOpen": level / 2 if level else 0.0}
    return {}
