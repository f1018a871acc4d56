"""Build phrases from graded movements: ``phrase`` for one face, ``fragments`` for many faces with lookup tables.

An *item* is a noun, its left and right level (0: not visible, 1 to 5: FACS A to E; midline actions have the same level
on both sides) and a verb. Levels follow the five FACS intensities (A trace, B slight, C marked or pronounced, D severe
or extreme, E maximum; FACS manual, Ekman, Friesen, Hager 2002), each with one adverb and one fixed coefficient range
in hundredths (``GRADES``).

Items with the same noun and levels share a clause ("both corners slightly pulled down and stretched"), clauses of one
noun are adjacent, and a clause does not repeat the subject of the clause before it.
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
"""The adverb of each level."""
_LEVELS = len(ADVERBS)
_STARTS, _NAMES, _CONTINUES = range(3)  # a clause starts the phrase, names its subject, or continues the last one


class Noun(NamedTuple):
    """What moves.

    Attributes:
        one: singular; empty if the region already names it.
        both: plural, for paired nouns: their side precedes the noun.
        lead: text between a clause that names it and the clause before.
    """

    one: str
    both: str = ""
    lead: str = ", "


Item = tuple[Noun, int, int, str]
"""Noun, left level, right level, verb."""
Items = tuple[Noun, np.ndarray, np.ndarray, str]
"""One item for N faces: noun, uint8[N] left levels, uint8[N] right levels, verb."""


def _subject(noun: Noun, left: int, right: int) -> tuple[str, str, bool]:
    """Return subject, adverb, and whether a following clause may omit the same subject."""
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
    """Return the side after the verbs, for nouns without a plural."""
    if noun.both or left == right:
        return ""
    if left and right:
        return f" {ADVERBS[left]} on the left and {ADVERBS[right]} on the right"
    return " on the left" if left else " on the right"


def _clause(noun: Noun, left: int, right: int, verbs: Sequence[str], continues: bool) -> str:
    subject, adverb, single = _subject(noun, left, right)
    listed = " and ".join(verbs)
    if single and len(verbs) > 2:
        listed = f"{', '.join(verbs[:-1])} and {verbs[-1]}"
    return f"{'' if continues else subject}{adverb}{listed}{_side_after(noun, left, right)}"


def phrase(items: Sequence[Item], start: str = "") -> str:
    """Return ``start`` followed by the phrase of one face's visible items."""
    nouns: dict[Noun, dict[tuple[int, int], list[str]]] = {}
    for noun, left, right, verb in items:
        if left or right:
            nouns.setdefault(noun, {}).setdefault((left, right), []).append(verb)
    out = start
    for noun, groups in nouns.items():
        last = ""
        for (left, right), verbs in groups.items():
            subject, _, single = _subject(noun, left, right)
            continues = single and subject == last
            lead = (", " if continues else noun.lead) if out else ""
            out += lead + _clause(noun, left, right, verbs, continues)
            last = subject if single else ""
    return out


# --- many faces ---------------------------------------------------------------------------------------------------
# Each item becomes a fragment: its clause if it is the first item of that clause, else "". The fragment depends on the
# pair of levels, on which later items share the clause, and on how the clause starts, so fragments are looked up in
# tables and a face's phrase is their concatenation.


@lru_cache(maxsize=64)
def _table(noun: Noun, verbs: tuple[str, ...]) -> np.ndarray:
    """Return every fragment of the item ``verbs[0]``, whose clause later items (``verbs[1:]``) may join.

    Flattened object array [pair of levels, bits of the later items that join, how the clause starts].
    """
    later = verbs[1:]
    table = np.full((_LEVELS * _LEVELS, 1 << len(later), 3), "", dtype=object)
    for (left, right), joined in itertools.product(np.ndindex(_LEVELS, _LEVELS), range(1 << len(later))):
        if left or right:
            joint = [verbs[0], *(verb for bit, verb in enumerate(later) if joined >> bit & 1)]
            named = _clause(noun, left, right, joint, continues=False)
            follows = ", " + _clause(noun, left, right, joint, continues=True)
            table[left * _LEVELS + right, joined] = named, noun.lead + named, follows
    return table.ravel()


@lru_cache(maxsize=64)
def _subjects(noun: Noun) -> np.ndarray:
    """Return an id of the subject for each pair of levels, uint8[36]; 0 if it may not be omitted."""
    numbers: dict[str, int] = {}
    out = np.zeros(_LEVELS * _LEVELS, dtype=np.uint8)
    for number, (left, right) in enumerate(np.ndindex(_LEVELS, _LEVELS)):
        subject, _, single = _subject(noun, left, right)
        out[number] = numbers.setdefault(subject, len(numbers) + 1) if single else 0
    return out


def fragments(items: Sequence[Items], started: np.ndarray | None = None) -> np.ndarray:
    """Return text fragments per face: ``"".join(fragments(items)[:, face]) == phrase(items of that face)``.

    Args:
        items: the same items for all N faces.
        started: bool[N], faces whose phrase already has text; none by default.

    Returns:
        Object array [len(items), N] of str.
    """
    pairs = [left * np.uint8(_LEVELS) + right for _, left, right, _ in items]
    positions: dict[Noun, list[int]] = {}
    for position, (noun, _, _, _) in enumerate(items):
        positions.setdefault(noun, []).append(position)
    firsts = np.stack([_first(pairs, own, len(items)) for own in positions.values()])
    opening = firsts.min(axis=0)
    if started is not None:
        opening[started] = len(items)
    columns: list[np.ndarray] = []
    for noun, own in positions.items():
        columns += _fragments(noun, [items[position][3] for position in own], [pairs[p] for p in own], own, opening)
    return _sort_nouns(np.stack(columns), list(positions.values()), firsts)


def _first(pairs: list[np.ndarray], positions: list[int], none: int) -> np.ndarray:
    """Return the position of the first visible item among ``positions``, uint8[N]."""
    first = np.full(len(pairs[0]), none, dtype=np.uint8)
    for position in reversed(positions):
        first[pairs[position] != 0] = position
    return first


def _fragments(
    noun: Noun, verbs: list[str], pairs: list[np.ndarray], positions: list[int], opening: np.ndarray
) -> list[np.ndarray]:
    """Return an object array [N] for each item of a noun; ``opening``: position that starts the phrase."""
    subjects = _subjects(noun)
    taken = [np.zeros(len(opening), dtype=bool) for _ in pairs]
    last = np.zeros(len(opening), dtype=np.uint8)
    out = []
    for number, (pair, position) in enumerate(zip(pairs, positions, strict=True)):
        joined = np.zeros(len(pair), dtype=np.intp)
        for bit, other in enumerate(range(number + 1, len(pairs))):
            shares = pair == pairs[other]
            taken[other] |= shares
            joined += shares * (1 << bit)
        own = np.where(taken[number], 0, pair)
        subject = subjects[own]
        begins = np.where((subject == last) & (subject != 0), _CONTINUES, _NAMES)
        begins[opening == position] = _STARTS
        last = np.where(own != 0, subject, last)
        later = len(pairs) - 1 - number
        out.append(_table(noun, tuple(verbs[number:])).take(((own.astype(np.intp) << later) + joined) * 3 + begins))
    return out


def _sort_nouns(columns: np.ndarray, positions: list[list[int]], firsts: np.ndarray) -> np.ndarray:
    """Sort each face's nouns by their first visible item.

    Args:
        columns: object [items, N], grouped by noun.
        positions: item positions of each noun.
        firsts: [nouns, N], position of the first visible item; ``len(columns)`` if none.
    """
    # Invisible nouns may be anywhere; their default position keeps the number of reordered faces small.
    default = np.array([own[0] for own in positions], dtype=firsts.dtype)[:, None]
    firsts = np.where(firsts < len(columns), firsts, default)
    swapped = np.zeros(columns.shape[1], dtype=np.intp)
    bit = 1
    for one, other in itertools.combinations(range(len(positions)), 2):
        if positions[one][-1] > positions[other][0]:  # else their order is fixed
            swapped |= (firsts[one] > firsts[other]) * bit
            bit *= 2
    columns_of = np.split(np.arange(len(columns)), np.cumsum([len(own) for own in positions])[:-1])
    for pattern in np.unique(swapped[swapped != 0]):
        faces = np.flatnonzero(swapped == pattern)
        nouns = np.argsort(firsts[:, faces[0]])
        order = np.concatenate([columns_of[noun] for noun in nouns])
        columns[:, faces] = columns[np.ix_(order, faces)]
    return columns
