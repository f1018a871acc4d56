"""Check an analysis against coefficients: parse its text into claims and test each one.

The parser understands the project's own phrases exactly and free English tolerantly (``lexicon``): synonyms of
movements and intensities, sides, "not", "relaxed", comparisons of both sides. Unknown words make no claim.

A claim bounds a number computed from coefficients: an action (each of several, or both sides combined if the text
names no side), the difference of two sides, or a measure of the whole face (``Faces``). The bounds are the range of the
stated intensity, widened by ``TOLERANCE`` on both sides, because adjacent intensities share a boundary and FACS coders
also agree only within one level.

Doubt widens a claim. "slightly or clearly raised" spans both ranges; "perhaps slightly raised" denies only what is more
than slight; "perhaps relaxed" allows slight movements. What excludes nothing ("perhaps raised", "perhaps joy") is no
claim.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from semanticface.arkit import INDEX, NAMES, REGION_INDEX, REGIONS, to_hundredths
from semanticface.semantics import expression, lexicon
from semanticface.semantics.expression import NEUTRAL_BELOW, NEUTRAL_CATEGORY, UNCLEAR
from semanticface.semantics.lexicon import GRADE_RANGES, IMPLIED_NOUN, MEANINGS, REGION_NOUN, Token
from semanticface.semantics.movements import ASYMMETRIC, DIFFERS, PAIR_LEFT, PAIR_RIGHT, VISIBLE

if TYPE_CHECKING:
    from semanticface.semantics.analysis import Analysis

TOLERANCE = 5
"""Hundredths by which a coefficient may lie outside the claimed range."""
_VISIBLE = round(VISIBLE * 100)
_SLACK = 20  # hundredths, about one grade, by which one side may differ from a claim about both
_SIDE = re.compile("(?:Left|Right|Lower|Upper)$")
_PUNCTUATION = re.compile(r"[,;.:()/]")
_SLIGHT = "slightly"  # how much may move where something is perhaps at rest
_SHUT = 40  # hundredths of a blink that count as closed without a stated intensity

Test = Literal["each", "any", "mean", "difference", "measure"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One checkable statement of an analysis.

    Attributes:
        source: the part of the analysis: a region, or one of the other keys.
        text: the words it was parsed from.
        test: what must be within the bounds: ``each`` action, ``any`` of them (both sides of one combined), their
            ``mean``, the ``difference`` of the first and the second, or a ``measure`` of the whole face.
        actions: the actions it is about; for a measure its name, then the actions it mentions.
        low, high: inclusive bounds in hundredths, tolerance included.
    """

    source: str
    text: str
    test: Test
    actions: tuple[str, ...]
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """Result of checking an analysis.

    Attributes:
        holds: true claims.
        contradicts: false claims.
        omits: visible actions that neither a region nor the symmetry mentions, project order.
        score: in [0, 1]: true claims / (true claims + false claims + omissions). An omission is weighted by how visible
            the action is, fully from a coefficient of 0.4. 0 if there are no claims.
    """

    holds: tuple[Claim, ...]
    contradicts: tuple[Claim, ...]
    omits: tuple[str, ...]
    score: float


def agreement(analysis: Analysis, coefficients: np.ndarray) -> Agreement:
    """Check an analysis against the [52] coefficients of a face.

    Raises:
        ValueError: a wrong shape, or a value outside [0, 1].
    """
    values = to_hundredths(coefficients)
    if values.ndim != 1:
        raise ValueError(f"expected one vector of {len(NAMES)} coefficients, got shape {values.shape}")
    holds: list[Claim] = []
    contradicts: list[Claim] = []
    mentioned: set[str] = set()
    faces = Faces(values[None])
    for claim in claims(analysis):
        (holds if faces.first_holds(claim) else contradicts).append(claim)
        if claim.source != "expression_category" and (claim.high > _VISIBLE + TOLERANCE or claim.test == "difference"):
            mentioned.update(claim.actions)
    visible = (name for name, value in zip(NAMES, values, strict=True) if value >= _VISIBLE)
    omits = tuple(name for name in visible if name not in mentioned)
    weight = len(holds) + len(contradicts) + sum(min(1.0, values[INDEX[name]] / 40) for name in omits)
    return Agreement(tuple(holds), tuple(contradicts), omits, float(len(holds) / weight) if holds else 0.0)


def claims(analysis: Analysis) -> tuple[Claim, ...]:
    """Return every claim parsed from an analysis."""
    return tuple(claim for source, text in analysis.texts().items() for claim in text_claims(source, text))


# --- checking -----------------------------------------------------------------------------------------------------


class Faces:
    """Faces to check claims against.

    Args:
        values: int[N, 52], coefficients in hundredths.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = np.ascontiguousarray(values.T, dtype=np.int64)  # [52, N]
        self._expression: dict[str, np.ndarray] | None = None
        self._ranges: dict[tuple[str, ...], tuple[list[_Range], list[_Range]]] = {}

    def hold(self, claim: Claim) -> np.ndarray:
        """Return for which faces a claim holds; bool[N]."""
        out: np.ndarray = _matches(claim, self._ranges_of(claim)[1])
        return out

    def first_holds(self, claim: Claim) -> bool:
        """Return whether a claim holds for the first face, much faster than ``hold``."""
        return bool(_matches(claim, self._ranges_of(claim)[0]))

    def _ranges_of(self, claim: Claim) -> tuple[list[_Range], list[_Range]]:
        """Return the ranges of the numbers that a claim bounds, of the first face and of all."""
        key = (claim.test, *claim.actions)
        found = self._ranges.get(key)
        if found is None:
            ranges = [
                _Range(own.min(axis=0), own.max(axis=0), own.sum(axis=0) / len(own)) for own in self._found(claim)
            ]
            first = [_Range(*(each[0].item() for each in found)) for found in ranges]
            found = self._ranges[key] = first, ranges
        return found

    def _found(self, claim: Claim) -> list[np.ndarray]:
        """Return the numbers that a claim bounds; groups of int64[n, N], of which one must match."""
        if claim.test == "measure":
            return [self._measure(claim.actions[0])[None]]
        own = self.values[[INDEX[name] for name in claim.actions]]
        if claim.test == "difference":
            return [(own[0] - own[1])[None]]
        if claim.test != "any":
            return [own]
        sides: dict[str, list[int]] = {}
        for row, name in enumerate(claim.actions):
            sides.setdefault(_SIDE.sub("", name), []).append(row)
        return [own[rows] for rows in sides.values()]

    def _measure(self, name: str) -> np.ndarray:
        """Return a measure of the whole face, int64[N] in hundredths."""

        def of(action: str) -> np.ndarray:
            return self.values[INDEX[action]]

        if name == "asymmetry":
            return np.abs(self.values[PAIR_LEFT] - self.values[PAIR_RIGHT]).max(axis=0)
        if name == "wink":
            return np.abs(of("eyeBlinkLeft") - of("eyeBlinkRight"))
        if name in ("mouth open", "lips apart"):
            aperture = np.maximum(of("jawOpen") - of("mouthClose"), 0)
            teeth = [of(f"mouth{way}{side}") for way in ("LowerDown", "UpperUp") for side in ("Left", "Right")]
            return aperture if name == "mouth open" else np.maximum.reduce([aperture, *teeth])
        if self._expression is None:
            self._expression = expression.measures(self.values.T)
        return self._expression[name]


class _Range(NamedTuple):
    """Least, largest and mean of some numbers, of one face or of many."""

    least: Any
    most: Any
    mean: Any


def _matches(claim: Claim, ranges: Sequence[_Range]) -> Any:
    """Return whether one of the ranges is as a claim says."""
    if claim.test in ("each", "difference", "measure"):
        ((least, most, _),) = ranges
        return (claim.low <= least) & (most <= claim.high)
    # The mean matches, or for "any" the larger one, and no side is far from it.
    out: Any = False
    for least, most, mean in ranges:
        found = (claim.low <= mean) & (mean <= claim.high)
        if claim.test == "any":
            found = found | ((claim.low <= most) & (most <= claim.high))
        out = out | (found & (claim.low - _SLACK <= least) & (most <= claim.high + _SLACK))
    return out


# --- parsing ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Chunk:
    """The tokens between two conjunctions: what moves, on which side, how, how strongly."""

    text: str
    nouns: list[str] = field(default_factory=list)
    verbs: list[str] = field(default_factory=list)
    sides: list[str] = field(default_factory=list)
    directions: list[str] = field(default_factory=list)
    grade: str | None = None
    maybe: bool = False
    negated: bool = False
    more: bool = False
    rest: bool = False
    skip: bool = False
    looks: bool = False

    @property
    def moves(self) -> bool:
        return bool(self.verbs or self.directions)


@lru_cache(maxsize=1 << 14)
def text_claims(source: str, text: str) -> tuple[Claim, ...]:
    """Return the claims parsed from one text of an analysis; ``source`` is its region or key."""
    if source == "emotional_implication":
        return tuple(_parse_emotion(source, text))
    found: list[Claim] = []
    if source == "symmetry":
        found += _parse_symmetry(text)
    if source == "expression_category":
        found += _parse_emotion(source, text) if text != UNCLEAR else ()
        if NEUTRAL_CATEGORY in text.lower().split() and not _doubtful(text):
            return (
                *found,
                Claim(source, text, "measure", ("expression",), 0, round(NEUTRAL_BELOW * 100) + 2 * TOLERANCE),
            )
    before: _Chunk | None = None
    for clause in _clauses(text, source):
        _continue_subject(clause[0], before)
        _fill_from_neighbours(clause, before)
        for chunk in clause:
            found += _chunk_claims(chunk, source)
        moving = [chunk for chunk in clause if chunk.moves]
        before = moving[-1] if moving else before
    return tuple(found)


def _clauses(text: str, source: str) -> Iterator[list[_Chunk]]:
    for piece in _PUNCTUATION.split(text):
        found = lexicon.tokens(piece)
        starts = [i for i, token in enumerate(found) if token.kind == lexicon.BREAK]
        for first, last in zip([-1, *starts], [*starts, len(found)], strict=True):
            part = found[first + 1 : last]
            cuts = [i for i, token in enumerate(part) if token.kind == lexicon.AND]
            spans = zip([-1, *cuts], [*cuts, len(part)], strict=True)
            chunks = [_chunk(part[a + 1 : b], piece, source) for a, b in spans if part[a + 1 : b]]
            looks = any(chunk.looks for chunk in chunks)
            for chunk in chunks:
                chunk.looks = looks
            if chunks:
                yield chunks


def _chunk(part: Sequence[Token], text: str, source: str) -> _Chunk:
    chunk = _Chunk(text[part[0].start : part[-1].stop])
    looks = source == "gaze" or any(token.kind == lexicon.LOOK and token.value == "look" for token in part)
    for i, (kind, value, _, _) in enumerate(part):
        following = part[i + 1] if i + 1 < len(part) else None
        if kind == lexicon.NOUN:
            chunk.nouns.append(value)
        elif kind == lexicon.VERB:
            chunk.verbs.append(value)
        elif kind == lexicon.SIDE:
            of_a_part = following is not None and following.kind == lexicon.NOUN
            aims = value != "both" and not of_a_part and (looks or "shifted" in chunk.verbs)
            (chunk.directions if aims else chunk.sides).append(value)
        elif kind == lexicon.GRADE:
            chunk.grade = value
        elif kind == lexicon.MAYBE:
            chunk.maybe = True
        elif kind == lexicon.NOT:
            chunk.negated = True
        elif kind == lexicon.MORE:
            chunk.more = True
        elif kind == lexicon.REST:
            chunk.rest = True
        elif kind == lexicon.SKIP:
            chunk.skip = True
    chunk.looks = looks
    return chunk


def _fill_from_neighbours(clause: list[_Chunk], before: _Chunk | None) -> None:
    """Fill in what each chunk of a clause leaves out because a neighbour states it."""
    for i, chunk in enumerate(clause):
        if chunk.moves or chunk.rest:
            continue
        later = _next_moving(clause[i + 1 :])
        earlier = next((other for other in reversed(clause[:i]) if other.moves), before if chunk.sides else None)
        # "left brow slightly and right brow strongly lowered" refers to the next chunk, but
        # "pressed slightly on the left and strongly on the right" to the previous one
        source = (later or earlier) if chunk.nouns else (earlier or later)
        if source is not None and (chunk.nouns or chunk.sides or chunk.grade):
            chunk.verbs, chunk.directions = list(source.verbs), list(source.directions)
            chunk.nouns = chunk.nouns or list(source.nouns)
            chunk.looks = chunk.looks or source.looks
            chunk.grade = chunk.grade or (None if chunk.more else source.grade)
    for i, chunk in enumerate(clause[1:], start=1):
        if chunk.moves and not chunk.nouns:
            previous = clause[i - 1]
            chunk.nouns = list(previous.nouns)
            chunk.sides = chunk.sides or list(previous.sides)
            chunk.maybe = chunk.maybe or (chunk.grade is None and previous.maybe)
            chunk.grade = chunk.grade or (None if chunk.looks and not chunk.nouns else previous.grade)
            chunk.negated = chunk.negated or previous.negated


def _continue_subject(chunk: _Chunk, before: _Chunk | None) -> None:
    """Let a clause continue the subject of the previous one ("corners pulled up, slightly stretched")."""
    if before is not None and chunk.moves and not chunk.nouns and not any(verb in IMPLIED_NOUN for verb in chunk.verbs):
        chunk.nouns = list(before.nouns)
        chunk.sides = chunk.sides or list(before.sides)
        chunk.grade = chunk.grade or (None if chunk.looks else before.grade)


def _next_moving(chunks: list[_Chunk]) -> _Chunk | None:
    """Return the first chunk with a movement, merged with bare movements after it ("pulled down and stretched")."""
    for i, first in enumerate(chunks):
        if first.moves:
            joined = replace(first, verbs=list(first.verbs), directions=list(first.directions))
            for other in chunks[i + 1 :]:
                if other.nouns or other.sides or other.grade or not other.moves:
                    break
                joined.verbs += other.verbs
                joined.directions += other.directions
            return joined
    return None


def _chunk_claims(chunk: _Chunk, source: str) -> Iterator[Claim]:
    if (chunk.skip and not chunk.moves) or (chunk.maybe and (chunk.negated or not (chunk.grade or chunk.rest))):
        return
    if chunk.rest:
        yield from _rest_claim(chunk, source)
        return
    low, high = _bounds(chunk)
    side = _single_side(chunk.sides)
    relative = chunk.more or source == "symmetry"
    if relative and chunk.maybe:
        return
    for noun, verb in _noun_verbs(chunk, source):
        measure = _measure_claim(noun, verb, chunk, source)
        if measure is not None:
            yield measure
            continue
        actions = MEANINGS[noun].get(verb)
        if actions is None:
            continue
        if relative:
            yield from _comparison_claims(chunk, source, noun, verb, side)
            continue
        if noun == "gaze":
            eye = [name for name in actions if side in (None, "both") or name.endswith(side.capitalize())]
            yield Claim(source, chunk.text, "mean" if side is None else "each", tuple(eye), low, high)
            continue
        if side in ("left", "right"):
            own = tuple(name for name in actions if name.endswith(side.capitalize()))
            middle = tuple(name for name in actions if not name.endswith(("Left", "Right")))
            if own or middle:
                yield Claim(source, chunk.text, "any", own + middle, low, high)
            continue
        yield Claim(source, chunk.text, "each" if side == "both" or chunk.negated else "any", actions, low, high)


def _single_side(sides: list[str]) -> str | None:
    return "both" if len(set(sides)) > 1 else sides[0] if sides else None


def _bounds(chunk: _Chunk) -> tuple[int, int]:
    if chunk.negated:  # "not raised" denies what is visible, "not fully closed" only that grade
        limit = GRADE_RANGES[chunk.grade][0] if chunk.grade else _VISIBLE
        return 0, limit + TOLERANCE - 1
    low, high = GRADE_RANGES[chunk.grade] if chunk.grade else (_VISIBLE, 100)
    if not chunk.grade and {"closed", "blink", "wink"} & set(chunk.verbs):
        low = _SHUT
    if chunk.maybe:  # "perhaps slightly raised": at most slightly
        low = 0
    return max(low - TOLERANCE, 0), min(high + TOLERANCE, 100)


def _noun_verbs(chunk: _Chunk, source: str) -> Iterator[tuple[str, str]]:
    """Yield the (noun, verb) pairs of a chunk."""
    if chunk.looks:
        verbs = [*chunk.directions, *(verb for verb in chunk.verbs if verb in MEANINGS["gaze"])]
        yield from (("gaze", verb) for verb in dict.fromkeys(verbs))
        return
    verbs = list(dict.fromkeys(chunk.verbs))
    if "shifted" in verbs and chunk.directions:
        verbs = [f"shifted {way}" for way in dict.fromkeys(chunk.directions)]
    for verb in verbs:
        for noun in dict.fromkeys(chunk.nouns) or (IMPLIED_NOUN.get(verb, REGION_NOUN.get(source, "mouth")),):
            yield noun, verb


def _measure_claim(noun: str, verb: str, chunk: _Chunk, source: str) -> Claim | None:
    """Return the claim of "open", "closed" or "wink" about eyes or mouth, which no single action covers."""
    low, high = _bounds(chunk)
    if noun in ("eye", "lid") and verb == "open":  # open eyes may be partly closed; eyes that are not open are closed
        blinks = _on_side(("eyeBlinkLeft", "eyeBlinkRight"), _single_side(chunk.sides))
        return Claim(source, chunk.text, "each", blinks, *((40, 100) if chunk.negated else (0, 60)))
    if verb == "wink" and not chunk.sides:
        return Claim(source, chunk.text, "measure", ("wink", "eyeBlinkLeft", "eyeBlinkRight"), _SHUT - TOLERANCE, 100)
    if noun in ("mouth", "lips") and verb in ("open", "closed"):
        name = "mouth open" if noun == "mouth" else "lips apart"
        if verb == "closed":
            low, high = (_VISIBLE - TOLERANCE, 100) if chunk.negated else (0, _VISIBLE + TOLERANCE - 1)
        mentions = ("jawOpen",) if noun == "mouth" else MEANINGS["teeth"]["bared"] + ("jawOpen",)
        return Claim(source, chunk.text, "measure", (name, *mentions), low, high)
    if noun == "jaw" and verb == "closed":
        return Claim(source, chunk.text, "each", ("jawOpen",), 0, _VISIBLE + TOLERANCE - 1)
    return None


def _on_side(actions: tuple[str, ...], side: str | None) -> tuple[str, ...]:
    return tuple(name for name in actions if side in (None, "both") or name.endswith(side.capitalize()))


def _rest_claim(chunk: _Chunk, source: str) -> Iterator[Claim]:
    if chunk.skip or chunk.negated or source not in REGIONS:
        return
    if chunk.nouns and REGION_NOUN[source] not in chunk.nouns:
        names = {name for noun in chunk.nouns for actions in MEANINGS.get(noun, {}).values() for name in actions}
    else:
        names = {NAMES[i] for i in REGION_INDEX[source]}
    if ordered := _on_side(tuple(name for name in NAMES if name in names), _single_side(chunk.sides)):
        high = GRADE_RANGES[_SLIGHT][1] + TOLERANCE if chunk.maybe else _VISIBLE + TOLERANCE - 1
        yield Claim(source, chunk.text, "each", ordered, 0, high)


def _comparison_claims(chunk: _Chunk, source: str, noun: str, verb: str, side: str | None) -> Iterator[Claim]:
    """Claim that one side is stronger than the other."""
    actions = MEANINGS[noun][verb]
    if verb.startswith("shifted "):
        other = "shifted right" if verb == "shifted left" else "shifted left"
        yield Claim(source, chunk.text, "difference", actions + MEANINGS[noun][other], TOLERANCE, 100)
    elif side in ("left", "right"):
        left = [name for name in actions if name.endswith("Left")]
        right = [name for name in actions if name.endswith("Right")]
        for a, b in zip(left, right, strict=True):
            pair = (a, b) if side == "left" else (b, a)
            yield Claim(source, chunk.text, "difference", pair, TOLERANCE, 100)


def _doubtful(text: str) -> bool:
    return any(token.kind == lexicon.MAYBE for token in lexicon.tokens(text))


def _parse_symmetry(text: str) -> Iterator[Claim]:
    words = text.lower().replace("-", " ")
    if _doubtful(text):
        return
    asymmetric = any(word in words for word in ("asymm", "not symm", "uneven", "lopsided", "one sided"))
    mild = re.search(r"\b(?:mostly|nearly|largely|roughly|almost|slight(?:ly)?|fairly|mild(?:ly)?)\b", words)
    if asymmetric:
        low, high = (DIFFERS, ASYMMETRIC + 15) if mild else (ASYMMETRIC, 100)
    elif any(word in words for word in ("symmetr", "even", "balanced")):
        low, high = (0, ASYMMETRIC if mild else DIFFERS)
    else:
        return
    yield Claim("symmetry", text, "measure", ("asymmetry",), max(low - TOLERANCE, 0), min(high + TOLERANCE, 100))


def _parse_emotion(source: str, text: str) -> Iterator[Claim]:
    words = text.lower()
    if _doubtful(text):
        return
    if UNCLEAR in words or "neutral" in words or "no clear emotion" in words:
        if source == "emotional_implication":
            yield Claim(source, text, "measure", ("own emotion",), 0, 50)
        return
    for emotion, pattern in lexicon.EMOTION_WORDS.items():
        if pattern.search(words):
            yield Claim(source, text, "measure", (emotion,), _VISIBLE + TOLERANCE, 100)
