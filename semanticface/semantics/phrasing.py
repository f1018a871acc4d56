"""Clauses: what moves, how strongly, how, on which side; for one face in plain steps, for many at once with tables.

An *item* is a noun, its left and right level (0: not visible, 1 to 5: FACS A to E; an action on the midline has one
level for both) and a verb. Levels are graded like the five letters of FACS (A trace, B slight, C marked or pronounced,
D severe or extreme, E maximum; FACS manual, Ekman, Friesen, Hager 2002), each with one adverb and one fixed range of
the coefficient in hundredths (``GRADES``).

Items of the same noun and the same levels share a clause ("both corners slightly pulled
down and stretched"), clauses of one noun stand together, and a clause whose subject was just named does not name it
again. ``phrase`` says one face's items, ``fragments`` those of many faces, in the same words.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

GRADES: tuple[tuple[str, int, int], ...] = (
    ("barely", 10, 19),
    ("slightly", 20, 39),
    ("clearly", 40, 59),
    ("strongly", 60, 84),
    ("fully", 85, 100),
)
"""(adverb, lowest, highest hundredth), FACS A to E; below the first range an action is not visible."""

ADVERBS = ("", *(adverb for adverb, _, _ in GRADES))
"""The word for each level."""
_LEVELS = len(ADVERBS)
_STARTS, _NAMES, _GOES_ON = range(3)  # a clause begins the phrase, names its subject, or goes on about the last one


class Noun(NamedTuple):
    """What moves.

    Attributes:
        one: its name, empty where the region says it already.
        both: the name of two of its kind, for nouns that come in two: these say left and right before the noun.
        lead: the words between a clause that names it and the clause before.
    """

    one: str
    both: str = ""
    lead: str = ", "


Item = tuple[Noun, int, int, str]
"""Noun, left level, right level, verb."""
Items = tuple[Noun, np.ndarray, np.ndarray, str]
"""An item of many faces: noun, uint8[N] left levels, uint8[N] right levels, verb."""


def _subject(noun: Noun, left: int, right: int) -> tuple[str, str, bool]:
    """Return what moves, how strongly, and whether a clause with the same subject may follow without naming it."""
    a, b = ADVERBS[left], ADVERBS[right]
    if noun.both:
        if left == right:
            return f"both {noun.both} ", f"{a} ", True
        if left and right:
            return f"left {noun.one} {a} and right {noun.one} ", f"{b} ", False
        return (f"left {noun.one} ", f"{a} ", True) if left else (f"right {noun.one} ", f"{b} ", True)
    start = f"{noun.one} " if noun.one else ""
    if left == right:
        return start, f"{a} ", True
    return start, "" if left and right else f"{a or b} ", False


def _side_after(noun: Noun, left: int, right: int) -> str:
    """Return the words after the movements, for nouns whose sides are said there."""
    if noun.both or left == right:
        return ""
    if left and right:
        return f" {ADVERBS[left]} on the left and {ADVERBS[right]} on the right"
    return " on the left" if left else " on the right"


def _clause(noun: Noun, left: int, right: int, verbs: Sequence[str], goes_on: bool) -> str:
    subject, adverb, alone = _subject(noun, left, right)
    listed = " and ".join(verbs)
    if alone and len(verbs) > 2:
        listed = f"{', '.join(verbs[:-1])} and {verbs[-1]}"
    return f"{'' if goes_on else subject}{adverb}{listed}{_side_after(noun, left, right)}"


def phrase(items: Sequence[Item], start: str = "") -> str:
    """Return what one face's items say after ``start``; ``start`` alone where nothing is visible."""
    nouns: dict[Noun, dict[tuple[int, int], list[str]]] = {}
    for noun, left, right, verb in items:
        if left or right:
            nouns.setdefault(noun, {}).setdefault((left, right), []).append(verb)
    out = start
    for noun, groups in nouns.items():
        last = ""
        for (left, right), verbs in groups.items():
            subject, _, alone = _subject(noun, left, right)
            goes_on = alone and subject == last
            lead = (", " if goes_on else noun.lead) if out else ""
            out += lead + _clause(noun, left, right, verbs, goes_on)
            last = subject if alone else ""
    return out


# --- many faces ---------------------------------------------------------------------------------------------------
# Every item becomes a fragment: its clause where it is the first of the items that share one, else nothing. Which
# fragment follows from the pair of levels, which later items share it, and how the clause begins; so a face's phrase
# is its items' fragments, looked up and put one after another.


@lru_cache(maxsize=64)
def _table(noun: Noun, verbs: tuple[str, ...]) -> np.ndarray:
    """Every fragment of the item whose verb comes first and that later items (``verbs[1:]``) may join.

    Object array, flat, of [pair of levels, bits of the later items that join, beginning].
    """
    later = verbs[1:]
    table = np.full((_LEVELS * _LEVELS, 1 << len(later), 3), "", dtype=object)
    for (left, right), joined in itertools.product(np.ndindex(_LEVELS, _LEVELS), range(1 << len(later))):
        if left or right:
            said = [verbs[0], *(verb for bit, verb in enumerate(later) if joined >> bit & 1)]
            named = _clause(noun, left, right, said, goes_on=False)
            follows = ", " + _clause(noun, left, right, said, goes_on=True)
            table[left * _LEVELS + right, joined] = named, noun.lead + named, follows
    return table.ravel()


@lru_cache(maxsize=64)
def _subjects(noun: Noun) -> np.ndarray:
    """A number for the subject of each pair of levels, uint8[36]; 0 where no clause may go on about it."""
    numbers: dict[str, int] = {}
    out = np.zeros(_LEVELS * _LEVELS, dtype=np.uint8)
    for number, (left, right) in enumerate(np.ndindex(_LEVELS, _LEVELS)):
        subject, _, alone = _subject(noun, left, right)
        out[number] = numbers.setdefault(subject, len(numbers) + 1) if alone else 0
    return out


def fragments(items: Sequence[Items], started: np.ndarray | None = None) -> np.ndarray:
    """Return text to be joined for each face: ``"".join(fragments(items)[:, face]) == phrase(items of that face)``.

    Args:
        items: the same items for all N faces.
        started: bool[N], faces whose phrase has begun already; none by default.

    Returns:
        Object array [len(items), N] of str.
    """
    pairs = [left * np.uint8(_LEVELS) + right for _, left, right, _ in items]
    places: dict[Noun, list[int]] = {}
    for place, (noun, _, _, _) in enumerate(items):
        places.setdefault(noun, []).append(place)
    firsts = np.stack([_first(pairs, own, len(items)) for own in places.values()])
    opening = firsts.min(axis=0)
    if started is not None:
        opening[started] = len(items)
    columns: list[np.ndarray] = []
    for noun, own in places.items():
        columns += _fragments(noun, [items[place][3] for place in own], [pairs[p] for p in own], own, opening)
    return _in_spoken_order(np.stack(columns), list(places.values()), firsts)


def _first(pairs: list[np.ndarray], places: list[int], none: int) -> np.ndarray:
    """The place of the first visible item among some, uint8[N]."""
    first = np.full(len(pairs[0]), none, dtype=np.uint8)
    for place in reversed(places):
        first[pairs[place] != 0] = place
    return first


def _fragments(
    noun: Noun, verbs: list[str], pairs: list[np.ndarray], places: list[int], opening: np.ndarray
) -> list[np.ndarray]:
    """The fragments of one noun's items, an object array [N] each; ``opening``: the place that begins the phrase."""
    subjects = _subjects(noun)
    taken = [np.zeros(len(opening), dtype=bool) for _ in pairs]
    last = np.zeros(len(opening), dtype=np.uint8)
    out = []
    for number, (pair, place) in enumerate(zip(pairs, places, strict=True)):
        joined = np.zeros(len(pair), dtype=np.intp)
        for bit, other in enumerate(range(number + 1, len(pairs))):
            shares = pair == pairs[other]
            taken[other] |= shares
            joined += shares * (1 << bit)
        own = np.where(taken[number], 0, pair)
        subject = subjects[own]
        begins = np.where((subject == last) & (subject != 0), _GOES_ON, _NAMES)
        begins[opening == place] = _STARTS
        last = np.where(own != 0, subject, last)
        later = len(pairs) - 1 - number
        out.append(_table(noun, tuple(verbs[number:])).take(((own.astype(np.intp) << later) + joined) * 3 + begins))
    return out


def _in_spoken_order(columns: np.ndarray, places: list[list[int]], firsts: np.ndarray) -> np.ndarray:
    """Move each face's nouns into the order of their first visible items.

    Args:
        columns: object [items, N], the nouns one after another.
        places: each noun's places among the items.
        firsts: [nouns, N], the place of the first visible item; beyond all places where there is none.
    """
    # An invisible noun may stand anywhere; where it would by default, few faces need to change.
    default = np.array([own[0] for own in places], dtype=firsts.dtype)[:, None]
    firsts = np.where(firsts < len(columns), firsts, default)
    swapped = np.zeros(columns.shape[1], dtype=np.intp)
    bit = 1
    for one, other in itertools.combinations(range(len(places)), 2):
        if places[one][-1] > places[other][0]:  # else they cannot change places
            swapped |= (firsts[one] > firsts[other]) * bit
            bit *= 2
    columns_of = np.split(np.arange(len(columns)), np.cumsum([len(own) for own in places])[:-1])
    for pattern in np.unique(swapped[swapped != 0]):
        faces = np.flatnonzero(swapped == pattern)
        nouns = np.argsort(firsts[:, faces[0]])
        order = np.concatenate([columns_of[noun] for noun in nouns])
        columns[:, faces] = columns[np.ix_(order, faces)]
    return columns
