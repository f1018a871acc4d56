"""Which candidates are shown beside each other, in which area, on which side, and when.

Sides are balanced so that a judge who leans to one side leans towards nobody: in each area every candidate, and every
source of candidates, stands on the left as often as on the right, give or take one. A graph whose edges are the pairs
of a slate can always be directed like that, along closed walks (Euler).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import numpy as np

from semanticface.preference.regions import AREAS, Area, distance
from semanticface.preference.types import CandidateSet, Kind, Question

NOTICEABLE = 0.5
"""Faces nearer to each other than this in an area are not asked about, in percent of the inter-pupil distance.

About 0.3 mm on a person: in a render as wide as half a page, with 150 pixels from pupil to pupil, the vertices are then
less than a pixel apart on average.
"""
GAP = 10
"""First questions that lie between a question and its repetition, so that nobody answers from memory; half of all
where there are fewer than twice as many."""
MOST_AGAIN = 0.5
"""Largest share of questions that can be asked again, as they were and mirrored together."""

_Edge = tuple[int, int]
_NOBODY = -1


@dataclass(frozen=True, slots=True)
class _Placed:
    """A question and where in the order it comes."""

    place: float
    question: Question


def ask(
    slates: Iterable[CandidateSet],
    areas: Sequence[Area],
    *,
    per_picture: int,
    repeats: float = 0.0,
    mirrored: float = 0.0,
    seed: int,
    noticeable: float = NOTICEABLE,
) -> list[Question]:
    """Return the questions of a round in the order in which they are to be asked.

    They depend on the arguments alone, not on the order of the slates. A question's id names the picture, the area and
    the two candidates, so it is the same in every run.

    Args:
        slates: one for each picture.
        areas: what is judged, each area on its own.
        per_picture: first questions about a picture at most, over all areas, which share them evenly. Areas ask
            about the same candidates where they can, so that both halves of a pair get judged. Candidates are shown
            about equally often; a pair that looks alike in an area is not asked about there.
        repeats: share of the questions asked a second time, the same way round.
        mirrored: share of the questions asked a second time with sides swapped; other questions than the repeated.
        seed: of the choice of pairs, sides and order.
        noticeable: smallest difference asked about, in percent of the inter-pupil distance.

    Raises:
        ValueError: an argument out of range, an area named twice, or two slates of one picture.
    """
    if per_picture < 1 or seed < 0:
        raise ValueError(f"per_picture is {per_picture}, seed {seed}: give at least 1, and 0 or more")
    if not areas or len(set(areas)) < len(areas) or not set(areas) <= set(AREAS):
        raise ValueError(f"areas are {', '.join(areas) or 'missing'}: give some of {', '.join(AREAS)}, each once")
    if not (repeats >= 0 and mirrored >= 0 and repeats + mirrored <= MOST_AGAIN):
        raise ValueError(f"repeats {repeats} and mirrored {mirrored}: give 0 or more, together at most {MOST_AGAIN}")
    ordered = sorted(slates, key=lambda slate: slate.picture)
    for one, other in pairwise(ordered):
        if one.picture == other.picture:
            raise ValueError(f"two slates of the picture {one.picture}: join them first")
    different = {area: _different(ordered, area, noticeable) for area in areas}
    tilt = dict.fromkeys(areas, 0)
    firsts: list[Question] = []
    for index, slate in enumerate(ordered):
        rng = np.random.default_rng([seed, *hashlib.sha256(slate.picture.encode()).digest()])
        pairs = {area: different[area][index] for area in areas}
        asked: set[_Edge] = set()
        for area, count in _shared(pairs, per_picture, rng).items():
            chosen = _spread(pairs[area], count, asked, rng)
            asked.update(chosen)
            edges = _directed(chosen, rng)
            lean = _lean(slate, edges)
            if lean * tilt[area] > 0 or (lean * tilt[area] == 0 and rng.random() < 0.5):
                edges, lean = [(right, left) for left, right in edges], -lean
            tilt[area] += lean
            firsts += [_question(slate, area, edge) for edge in edges]
    return _ordered(firsts, repeats, mirrored, np.random.default_rng(seed))


def _different(slates: Sequence[CandidateSet], area: Area, noticeable: float) -> list[list[_Edge]]:
    """Return for each slate the pairs of its candidates that can be told apart in an area."""
    pairs = [(n, edge) for n, slate in enumerate(slates) for edge in combinations(range(len(slate.candidates)), 2)]
    found: list[list[_Edge]] = [[] for _ in slates]
    if pairs:
        one, other = (np.stack([slates[n].candidates[edge[side]].coefficients for n, edge in pairs]) for side in (0, 1))
        for (n, edge), apart in zip(pairs, distance(one, other, area).tolist(), strict=True):
            if apart >= noticeable:
                found[n].append(edge)
    return found


def _shared(pairs: dict[Area, list[_Edge]], total: int, rng: np.random.Generator) -> dict[Area, int]:
    """Return how many questions each area gets; chance decides who gets the odd one."""
    counts = dict.fromkeys(pairs, 0)
    order = [list(pairs)[place] for place in rng.permutation(len(pairs))]
    for _ in range(total):
        free = [area for area in order if counts[area] < len(pairs[area])]
        if not free:
            break
        counts[min(free, key=counts.__getitem__)] += 1
    return counts


def _spread(pairs: Sequence[_Edge], count: int, asked: Set[_Edge], rng: np.random.Generator) -> list[_Edge]:
    """Choose pairs, first those asked about in another area, then those whose candidates were chosen least so far."""
    left = [pairs[place] for place in rng.permutation(len(pairs))]
    shown = dict.fromkeys((end for pair in pairs for end in pair), 0)
    chosen = []
    for _ in range(count):
        pair = min(left, key=lambda pair: (pair not in asked, shown[pair[0]] + shown[pair[1]]))
        left.remove(pair)
        chosen.append(pair)
        for end in pair:
            shown[end] += 1
    return chosen


def _directed(edges: Sequence[_Edge], rng: np.random.Generator) -> list[_Edge]:
    """Return the edges as (left, right), so that each candidate is left as often as right, give or take one.

    Walks that start and end at one candidate leave each as often as they reach it. For them every candidate needs an
    even number of edges; those with an odd one get one more, to nobody, which is left out in the end.
    """
    degree: dict[int, int] = {}
    for edge in edges:
        for end in edge:
            degree[end] = degree.get(end, 0) + 1
    unused: dict[int, list[int]] = {end: [] for end in (*degree, _NOBODY)}
    for one, other in [*edges, *((end, _NOBODY) for end, count in degree.items() if count % 2)]:
        unused[one].append(other)
        unused[other].append(one)
    out = []
    for start in unused:
        here = start
        while unused[here]:
            there = unused[here].pop(int(rng.integers(len(unused[here]))))
            unused[there].remove(here)
            if _NOBODY not in (here, there):
                out.append((here, there))
            here = there
    return out


def _lean(slate: CandidateSet, edges: Sequence[_Edge]) -> int:
    """Return how much more often captured candidates stand on the left than on the right."""
    captured = [candidate.source == "capture" for candidate in slate.candidates]
    return sum(captured[left] - captured[right] for left, right in edges)


def _question(slate: CandidateSet, area: Area, edge: _Edge) -> Question:
    one, other = (slate.candidates[end].id for end in sorted(edge))
    left, right = (slate.candidates[end].id for end in edge)
    return Question(f"{slate.picture}/{area}/{one}/{other}", slate.picture, area, left, right)


def _ordered(firsts: Sequence[Question], repeats: float, mirrored: float, rng: np.random.Generator) -> list[Question]:
    """Shuffle questions and put some of them in again, later."""
    count = len(firsts)
    asked = [_Placed(place, firsts[index]) for place, index in enumerate(rng.permutation(count))]
    gap = min(GAP, count // 2)
    again = rng.permutation(count - gap)  # the last ones have no room behind them
    shares: dict[Kind, float] = {"repeat": repeats, "mirrored": mirrored}
    kinds = [kind for kind, share in shares.items() for _ in range(round(share * count))]
    for place, kind in zip(again.tolist(), kinds, strict=False):
        first = asked[place].question
        sides = (first.b, first.a) if kind == "mirrored" else (first.a, first.b)
        question = replace(first, id=f"{first.id}/{kind}", a=sides[0], b=sides[1], kind=kind, of=first.id)
        later = int(rng.integers(place + gap, count))
        asked.append(_Placed(later + rng.uniform(0.25, 0.75), question))
    return [each.question for each in sorted(asked, key=lambda each: each.place)]
