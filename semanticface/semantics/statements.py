"""What may be said of a face whose numbers are known, with the certainty of each: phrases that a model chooses among.

A phrase may be said if its claims (``faithfulness``) hold for the numbers, and if they hold with a probability of at
least ``CERTAIN`` for what the model thinks possible: faces drawn from its distributions. Where a plain phrase is not
that certain, a doubtful one may be: "slightly or clearly raised", "perhaps slightly raised". What is not certain even
so goes unsaid; a region of which nothing can be said is ``UNSURE``.

Every phrase is checked by the parser that checks answers, so an answer made of them cannot contradict its numbers.
``grammar.statements_grammar`` lets a model choose among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise, permutations

import numpy as np

from semanticface.arkit import INDEX, N_ACTIONS, NAMES, REGIONS, stem
from semanticface.semantics import expression
from semanticface.semantics.answer import MAX_DEFAULT_LENGTH, MAX_LENGTH
from semanticface.semantics.expression import CATEGORIES, EMOTIONS, NEUTRAL_CATEGORY, UNCLEAR
from semanticface.semantics.faithfulness import Faces, text_claims
from semanticface.semantics.movements import DIFFERS, PAIRS, RELAXED, difference_phrase
from semanticface.semantics.phrasing import GRADES

CERTAIN = 0.7
"""Least probability of what is said; measured on renders, see ``docs/experiments.md``."""
SEEN = 0.4
"""Actions that are visible with a lower probability are not mentioned."""
UNSURE = "unclear"
"""Phrase of a region, or of the symmetry, of which nothing is certain; it claims nothing."""

_VISIBLE = GRADES[0][1]
_ADVERBS = tuple(adverb for adverb, _, _ in GRADES)
_PERHAPS = ("slightly", "clearly")
_N_DRAWS = 256
_TOGETHER = 0.8  # correlation of the doubt about both sides of a face


@dataclass(frozen=True, slots=True)
class Clause:
    """Clauses with one subject: the subject, and for each movement in order the phrases for it."""

    subject: str
    movements: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Statements:
    """What may be said of one face.

    Attributes:
        regions: for each region the clauses that may be said in this order, and whole phrases that may be said instead;
            at least one of either.
        phrases: for every other key of the analysis the texts that may be said, at least one.
    """

    regions: dict[str, tuple[tuple[Clause, ...], tuple[str, ...]]]
    phrases: dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Slot:
    """Actions that one phrase can cover, and the slots of their parts, for when it does not."""

    subject: str
    template: str
    parts: tuple[_Slot, ...] = ()
    adverbs: tuple[str, ...] = _ADVERBS


def _sides(one: str, both: str, verb: str, adverbs: tuple[str, ...] = _ADVERBS) -> _Slot:
    parts = tuple(_Slot(f"{side} {one} ", f"{{}} {verb}", (), adverbs) for side in _SIDES)
    return _Slot(f"both {both} ", f"{{}} {verb}", parts, adverbs)


def _sides_after(subject: str, verb: str) -> _Slot:
    return _Slot(subject, f"{{}} {verb}", tuple(_Slot(subject, f"{{}} {verb} on the {side}") for side in _SIDES))


def _lips(verb: str) -> _Slot:
    return _Slot("lips ", f"{{}} {verb}", (_Slot("lower lip ", f"{{}} {verb}"), _Slot("upper lip ", f"{{}} {verb}")))


_SIDES = ("left", "right")
_SLOTS: dict[str, tuple[_Slot, ...]] = {
    "brows": (
        _sides("brow", "brows", "lowered"),
        _Slot(
            "both brows ",
            "{} raised",
            (_Slot("inner brows ", "{} raised"), _sides("outer brow", "outer brows", "raised")),
        ),
    ),
    "eyes": (
        _sides("eye", "eyes", "closed", _ADVERBS[-1:]),
        _sides("eyelid", "eyelids", "lowered", _ADVERBS[:-1]),
        _sides("eye", "eyes", "narrowed"),
        _sides("eye", "eyes", "widened"),
    ),
    "gaze": (
        _Slot("looking ", "{} to the subject's left"),
        _Slot("looking ", "{} to the subject's right"),
        _Slot("looking ", "{} up"),
        _Slot("looking ", "{} down"),
    ),
    "cheeks": (_Slot("both cheeks ", "{} puffed out"), _sides("cheek", "cheeks", "raised")),
    "nose": (_sides_after("", "wrinkled"),),
    "mouth": (
        *(_sides("corner", "corners", verb) for verb in ("pulled up", "pulled down", "tucked in", "stretched")),
        _Slot("lips ", "{} funneled"),
        _Slot("lips ", "{} puckered"),
        _sides_after("lips ", "pressed"),
        _lips("rolled in"),
        _lips("pushed up"),
        _sides_after("upper lip ", "raised"),
        _sides_after("lower lip ", "pulled down"),
        _Slot("lips ", "{} closed over the open jaw"),
        _Slot("mouth ", "{} shifted left"),
        _Slot("mouth ", "{} shifted right"),
    ),
    "jaw": (
        _Slot("", "{} open"),
        _Slot("", "{} pushed forward"),
        _Slot("", "{} shifted left"),
        _Slot("", "{} shifted right"),
    ),
    "tongue": (_Slot("", "{} stuck out"),),
}


def statements(values: np.ndarray, probs: np.ndarray, *, emotion: bool = True) -> Statements:
    """Return what may be said of a face.

    Args:
        values: int[52], its numbers in hundredths.
        probs: float[52, 101], the distribution of each number.
        emotion: False leaves ``emotional_implication`` out.
    """
    certainty = _Certainty(values, probs)
    regions = {region: _region(certainty, region) for region in REGIONS}
    phrases = {"expression_category": _category(certainty)}
    if emotion:
        phrases["emotional_implication"] = _emotion(certainty)
    phrases["symmetry"] = _symmetry(certainty)
    return Statements(regions, phrases)


class _Certainty:
    """The numbers of a face, and faces drawn from their distributions."""

    def __init__(self, values: np.ndarray, probs: np.ndarray) -> None:
        self.values = values
        drawn = draw(probs)
        self.seen = (drawn >= _VISIBLE).mean(axis=0)
        self._faces = Faces(np.concatenate([values[None], drawn]))

    def of(self, source: str, text: str) -> float:
        """Return the probability of a text's claims, -1 if one does not hold for the numbers, 1 without claims."""
        found = text_claims(source, text)
        if not all(self._faces.first_holds(claim) for claim in found):
            return -1.0
        holds = np.ones(1 + _N_DRAWS, dtype=bool)
        for claim in found:
            holds &= self._faces.hold(claim)
        return float(np.count_nonzero(holds) - 1) / _N_DRAWS

    def certain(self, source: str, texts: Sequence[str]) -> tuple[str, ...]:
        """Return the texts that are certain."""
        return tuple(text for text in texts if self.of(source, text) >= CERTAIN)

    def likeliest(self, source: str, texts: Sequence[str]) -> tuple[str, ...]:
        """Return the texts that are certain, or else the likeliest that holds for the numbers."""
        found = {text: self.of(source, text) for text in texts}
        return tuple(text for text, prob in found.items() if prob >= CERTAIN) or (max(found, key=found.__getitem__),)


def draw(probs: np.ndarray) -> np.ndarray:
    """Return 256 faces, int64[256, 52] in hundredths, that follow the distributions float[52, 101] of 52 numbers.

    Both sides of an action are correlated; other actions are independent.
    """
    cumulative = np.cumsum(probs, axis=1, dtype=np.float64)
    counts: np.ndarray = np.diff(np.rint(cumulative / cumulative[:, -1:] * _N_DRAWS), axis=1, prepend=0)
    ordered = (
        np.tile(np.arange(probs.shape[1]), N_ACTIONS)
        .repeat(counts.astype(np.int64).ravel())
        .reshape(N_ACTIONS, _N_DRAWS)
    )
    return np.take_along_axis(ordered, _ranks(), axis=1).T


@cache
def _ranks() -> np.ndarray:
    """Return the rank of each draw of each action, int64[52, 256]."""
    rng = np.random.default_rng(0)
    groups = [stem(name) for name in NAMES]
    shared = {group: rng.normal(size=_N_DRAWS) for group in dict.fromkeys(groups)}
    own = rng.normal(size=(N_ACTIONS, _N_DRAWS))
    mixed = _TOGETHER**0.5 * np.stack([shared[group] for group in groups]) + (1 - _TOGETHER) ** 0.5 * own
    return mixed.argsort(axis=1).argsort(axis=1)


# --- regions ------------------------------------------------------------------------------------------------------


def _region(certainty: _Certainty, region: str) -> tuple[tuple[Clause, ...], tuple[str, ...]]:
    found: dict[tuple[str, bool, int], list[tuple[str, ...]]] = {}
    for slot in _SLOTS[region]:
        for subject, phrases, graded in _said(certainty, region, slot):
            # Without an intensity of its own, a movement would have that of the one before it: name the subject again.
            key = (subject, graded, 0 if graded else len(found))
            found.setdefault(key, []).append(phrases)
    clauses = tuple(
        Clause(subject if graded or subject else f"{region} ", tuple(movements))
        for (subject, graded, _), movements in found.items()
    )
    while _longest(clauses) > MAX_LENGTH.get(region, MAX_DEFAULT_LENGTH):
        *clauses_before, last = clauses
        shorter = (Clause(last.subject, last.movements[:-1]),) if len(last.movements) > 1 else ()
        clauses = (*clauses_before, *shorter)
    rest = certainty.certain(region, (RELAXED[region],))
    if not rest and not clauses:
        rest = certainty.certain(region, (f"perhaps {RELAXED[region]}",)) or (UNSURE,)
    return clauses, rest


def _longest(clauses: Sequence[Clause]) -> int:
    """Return the length of the longest text of some clauses in characters."""
    between = len(" and ")
    return sum(len(each.subject) + sum(max(map(len, texts)) + between for texts in each.movements) for each in clauses)


def _said(certainty: _Certainty, region: str, slot: _Slot) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """Yield what may be said of a slot's actions: a subject, the phrases that may follow it, whether with intensity."""
    actions = _actions(region, slot)
    if certainty.seen[actions].max() < SEEN:
        return
    if phrases := _plain(certainty, region, slot):
        yield slot.subject, phrases, True
        return
    values = certainty.values[actions]
    parts = [each for part in slot.parts for each in _said(certainty, region, part)]
    if parts and values.max() - values.min() >= DIFFERS:
        yield from parts
    elif doubtful := _doubtful(certainty, region, slot):
        phrase, graded = doubtful
        yield slot.subject, (phrase,), graded


def _plain(certainty: _Certainty, region: str, slot: _Slot) -> tuple[str, ...]:
    texts = {slot.subject + slot.template.format(adverb): adverb for adverb in slot.adverbs}
    return tuple(slot.template.format(texts[text]) for text in certainty.certain(region, tuple(texts)))


def _doubtful(certainty: _Certainty, region: str, slot: _Slot) -> tuple[str, bool] | None:
    """Return the most that is certain: one of two adjacent intensities, any intensity, or at most the one given."""
    either = [f"{weaker} or {stronger} " for weaker, stronger in pairwise(slot.adverbs)]
    for adverbs in (either, [""], *([f"perhaps {adverb} "] for adverb in _PERHAPS if adverb in slot.adverbs)):
        texts = [slot.template.replace("{} ", adverb) for adverb in adverbs]
        found = {text: certainty.of(region, slot.subject + text) for text in texts}
        best = max(found, key=found.__getitem__, default="")
        if best and found[best] >= CERTAIN:
            return best, adverbs != [""]
    return None


@lru_cache(maxsize=256)
def _actions(region: str, slot: _Slot) -> np.ndarray:
    claims = text_claims(region, slot.subject + slot.template.format(slot.adverbs[-1]))
    return np.array([INDEX[name] for claim in claims for name in claim.actions])


# --- the whole face -----------------------------------------------------------------------------------------------

_CATEGORY_TEXTS = (NEUTRAL_CATEGORY, *(name for name, _, _ in CATEGORIES))
_MORE = tuple(difference_phrase(pair, side) for pair in range(len(PAIRS)) for side in _SIDES)


def _category(certainty: _Certainty) -> tuple[str, ...]:
    return certainty.certain("expression_category", _CATEGORY_TEXTS) or (UNCLEAR,)


def _emotion(certainty: _Certainty) -> tuple[str, ...]:
    measures = expression.measures(certainty.values[None])
    cues = tuple(expression.cue(emotion, int(measures[emotion][0]) / 100) for emotion in EMOTIONS)
    return certainty.likeliest("emotional_implication", (UNCLEAR, *cues))


def _symmetry(certainty: _Certainty) -> tuple[str, ...]:
    more = certainty.certain("symmetry", _MORE)
    pairs = [f"{one}, {other}" for one, other in permutations(more, 2)]
    texts = ["symmetric", "mostly symmetric", *(f"mostly symmetric, {each}" for each in more)]
    texts += ["asymmetric", *(f"asymmetric, {each}" for each in (*more, *pairs))]
    return certainty.likeliest("symmetry", texts)
