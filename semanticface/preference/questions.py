"""The questions of a round: which candidates, in which region, on which side, in which order.

Sides are balanced against position bias: in each region every candidate, and every source of candidates, is on the left
as often as on the right, plus or minus one. A graph with the pairs of a candidate set as edges can always be directed
that way, along closed walks (Euler).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence, Set
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np

from semanticface.preference.regions import REGIONS, Region, distance
from semanticface.preference.types import CandidateSet, Kind, Question

MIN_DISTANCE = 0.5
"""Faces nearer to each other than this in a region are not compared; percent of the inter-pupil distance.

About 0.3 mm on a person: in a render as wide as half a page, with 150 pixels from pupil to pupil, the vertices are then
less than a pixel apart on average.
"""
REPEAT_GAP = 10
"""Fewest first questions between a question and its repetition, so that nobody answers from memory; half of all where
there are fewer than twice as many."""
MAX_REPEATED = 0.5
"""Largest proportion of questions asked again, repeated and mirrored together."""

_Edge = tuple[int, int]
_NOBODY = -1


def make_questions(
    candidate_sets: Iterable[CandidateSet],
    regions: Sequence[Region],
    *,
    per_picture: int,
    repeats: float = 0.0,
    mirrored: float = 0.0,
    seed: int,
    min_distance: float = MIN_DISTANCE,
) -> list[Question]:
    """Return the questions of a round in the order in which to ask them.

    They do not depend on the order of the candidate sets. A question's id is made of picture, region and candidates, so
    it is the same in every run.

    Args:
        candidate_sets: one for each picture.
        regions: the judged regions, each asked about separately.
        per_picture: most first questions about a picture, shared evenly by all regions. Regions ask about the same
            candidates where they can, so that both halves of a pair get judged. Candidates appear about equally often;
            a pair that looks alike in a region is not compared there.
        repeats: proportion of the questions asked a second time, the same way round.
        mirrored: proportion of the questions asked a second time with sides swapped; other questions than the repeated.
        seed: of the choice of pairs, sides and order.
        min_distance: smallest difference to ask about, in percent of the inter-pupil distance.

    Raises:
        ValueError: an argument out of range, a repeated region, or two candidate sets of one picture.
    """
    if per_picture < 1 or seed < 0:
        raise ValueError(f"per_picture is {per_picture}, seed {seed}: give at least 1, and 0 or more")
    if not regions or len(set(regions)) < len(regions) or not set(regions) <= set(REGIONS):
        raise ValueError(f"regions are {', '.join(regions) or 'missing'}: give some of {', '.join(REGIONS)}, each once")
    if not (repeats >= 0 and mirrored >= 0 and repeats + mirrored <= MAX_REPEATED):
        raise ValueError(f"repeats {repeats} and mirrored {mirrored}: give 0 or more, together at most {MAX_REPEATED}")
    ordered = sorted(candidate_sets, key=lambda candidate_set: candidate_set.picture)
    for one, other in pairwise(ordered):
        if one.picture == other.picture:
            raise ValueError(f"two candidate sets of the picture {one.picture}: merge them first")
    different = {region: _distinct_pairs(ordered, region, min_distance) for region in regions}
    total_surplus = dict.fromkeys(regions, 0)
    firsts: list[Question] = []
    for index, candidate_set in enumerate(ordered):
        rng = np.random.default_rng([seed, *hashlib.sha256(candidate_set.picture.encode()).digest()])
        pairs = {region: different[region][index] for region in regions}
        asked: set[_Edge] = set()
        for region, count in _allot(pairs, per_picture, rng).items():
            chosen = _choose_pairs(pairs[region], count, asked, rng)
            asked.update(chosen)
            edges = _direct(chosen, rng)
            surplus = _left_surplus(candidate_set, edges)
            if surplus * total_surplus[region] > 0 or (surplus * total_surplus[region] == 0 and rng.random() < 0.5):
                edges, surplus = [(right, left) for left, right in edges], -surplus
            total_surplus[region] += surplus
            firsts += [_question(candidate_set, region, edge) for edge in edges]
    return _order(firsts, repeats, mirrored, np.random.default_rng(seed))


def _distinct_pairs(candidate_sets: Sequence[CandidateSet], region: Region, min_distance: float) -> list[list[_Edge]]:
    """Return for each set the pairs of candidates that differ visibly in a region."""
    pairs = [
        (n, edge)
        for n, candidate_set in enumerate(candidate_sets)
        for edge in combinations(range(len(candidate_set.candidates)), 2)
    ]
    found: list[list[_Edge]] = [[] for _ in candidate_sets]
    if pairs:
        one, other = (
            np.stack([candidate_sets[n].candidates[edge[side]].coefficients for n, edge in pairs]) for side in (0, 1)
        )
        for (n, edge), apart in zip(pairs, distance(one, other, region).tolist(), strict=True):
            if apart >= min_distance:
                found[n].append(edge)
    return found


def _allot(pairs: dict[Region, list[_Edge]], total: int, rng: np.random.Generator) -> dict[Region, int]:
    """Return the number of questions per region; odd ones are allotted at random."""
    counts = dict.fromkeys(pairs, 0)
    order = [list(pairs)[nth] for nth in rng.permutation(len(pairs))]
    for _ in range(total):
        free = [region for region in order if counts[region] < len(pairs[region])]
        if not free:
            break
        counts[min(free, key=counts.__getitem__)] += 1
    return counts


def _choose_pairs(pairs: Sequence[_Edge], count: int, asked: Set[_Edge], rng: np.random.Generator) -> list[_Edge]:
    """Choose pairs: first those chosen in another region, then those whose candidates were chosen least so far."""
    left = [pairs[nth] for nth in rng.permutation(len(pairs))]
    shown = dict.fromkeys((end for pair in pairs for end in pair), 0)
    chosen = []
    for _ in range(count):
        pair = min(left, key=lambda pair: (pair not in asked, shown[pair[0]] + shown[pair[1]]))
        left.remove(pair)
        chosen.append(pair)
        for end in pair:
            shown[end] += 1
    return chosen


def _direct(edges: Sequence[_Edge], rng: np.random.Generator) -> list[_Edge]:
    """Return the edges as (left, right), so that each candidate is left as often as right, plus or minus one.

    Closed walks leave each candidate as often as they reach it. They need an even number of edges at every candidate;
    candidates with an odd number get one more, to nobody, which is dropped.
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


def _left_surplus(candidate_set: CandidateSet, edges: Sequence[_Edge]) -> int:
    """Return how many more captured candidates are on the left than on the right."""
    captured = [candidate.source == "capture" for candidate in candidate_set.candidates]
    return sum(captured[left] - captured[right] for left, right in edges)


def _question(candidate_set: CandidateSet, region: Region, edge: _Edge) -> Question:
    one, other = (candidate_set.candidates[end].id for end in sorted(edge))
    left, right = (candidate_set.candidates[end].id for end in edge)
    return Question(f"{candidate_set.picture}/{region}/{one}/{other}", candidate_set.picture, region, left, right)


def _order(firsts: Sequence[Question], repeats: float, mirrored: float, rng: np.random.Generator) -> list[Question]:
    """Shuffle questions and insert some of them again, later."""
    count = len(firsts)
    asked = [(float(position), firsts[index]) for position, index in enumerate(rng.permutation(count))]
    gap = min(REPEAT_GAP, count // 2)
    again = rng.permutation(count - gap)  # the last ones leave no room for a repetition
    proportions: dict[Kind, float] = {"repeat": repeats, "mirrored": mirrored}
    kinds = [kind for kind, proportion in proportions.items() for _ in range(round(proportion * count))]
    for position, kind in zip(again.tolist(), kinds, strict=False):
        _, first = asked[position]
        sides = (first.b, first.a) if kind == "mirrored" else (first.a, first.b)
        question = replace(first, id=f"{first.id}/{kind}", a=sides[0], b=sides[1], kind=kind, of=first.id)
        later = int(rng.integers(position + gap, count))
        asked.append((later + rng.uniform(0.25, 0.75), question))
    return [question for _, question in sorted(asked, key=lambda each: each[0])]
