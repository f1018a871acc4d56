"""Choices to DPO pairs: a chosen face and a rejected one.

Choices about the halves of a face are merged: the chosen face has the winner of each half, the rejected face the losers
(``region_pairs``). ``whole_pairs`` is the baseline: whole candidates, as they were sampled.

Choices become pairs in three steps, independent of the order of choices and of the sides:

1. Judgements, one for each two candidates and region. An annotator's answers to a question and its repetitions count as
   one vote for the majority, or none if they tie; skipped questions do not count. Then annotators vote. Without a
   verdict that has more votes than any other it is a tie.
2. Contradictions. Where judgements form a cycle (A before B before C before A), its candidates are ranked by wins minus
   losses within it, and only judgements from a higher to a lower rank stay. A plain cycle of three is dropped.
3. Pairs. Each remaining judgement is used once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from semanticface.errors import DatasetError, TableError
from semanticface.formats.tables import read_objects
from semanticface.preference.files import coefficients_record, field, parse_coefficients, write_records
from semanticface.preference.regions import ACTIONS, HALVES, REGIONS, Half, Region, merge_halves
from semanticface.preference.types import Candidate, CandidateSet, Choice, Pair

_Vote = Literal["first", "second", "same", "neither"]
_Outcome = Literal["first", "second", "same", "neither", "tie"]
_Key = tuple[str, Region, int, int]
"""Picture, region, and the indices of two candidates in their set, the lower one first."""
_Edge = tuple[int, int]
"""Indices of the winner and the loser."""


@dataclass(frozen=True, slots=True)
class PairCounts:
    """How choices were used. A judgement combines all choices about two candidates in one region.

    Attributes:
        choices: given, without duplicates.
        skipped: choices without an opinion.
        foreign: choices about unknown candidates, or about regions that these pairs are not made of.
        same: judgements of no difference, or of equal candidates.
        neither: judgements that both are wrong.
        ties: judgements without a majority; for whole faces also halves that disagree.
        half_judged: for whole faces, judgements about one half where the other half has none.
        contradictions: judgements dropped because others contradict them.
        kept: judgements that pairs were made of.
        both_halves: pairs with a verdict in both halves, or of the whole.
        one_half: pairs with a verdict in one half.
    """

    choices: int
    skipped: int
    foreign: int
    same: int
    neither: int
    ties: int
    half_judged: int
    contradictions: int
    kept: int
    both_halves: int
    one_half: int


def region_pairs(
    candidate_sets: Iterable[CandidateSet], choices: Iterable[Choice], *, seed: int
) -> tuple[list[Pair], PairCounts]:
    """Return pairs whose halves are merged from the choices about each.

    Chance decides which upper and which lower judgement of a picture make a pair. A judgement left over makes a pair
    alone. Its other half is the same in both faces: the best there by the picture's other judgements (most wins minus
    losses), so that no half known to be worse is preferred; without any, the winner's own, since the model wrote the
    two halves together.

    Args:
        candidate_sets: one for each picture.
        choices: of one round, in any order; those of the region ``whole`` are not used.
        seed: of the chance.

    Raises:
        DatasetError: choices of several models or rounds, whose candidates share names.
        ValueError: two candidate sets of one picture.
    """
    ordered, judgements, tally = _judge(candidate_sets, choices, HALVES)
    edges = _edges(judgements, ordered, tally)
    pairs = []
    for candidate_set in ordered:
        rng = np.random.default_rng([seed, *hashlib.sha256(candidate_set.picture.encode()).digest()])
        shuffled: dict[Half, list[_Edge]] = {}
        for half in HALVES:
            kept = edges.get((candidate_set.picture, half), [])
            shuffled[half] = [kept[index] for index in rng.permutation(len(kept))]
        for upper, lower in zip_longest(shuffled["upper"], shuffled["lower"]):
            judged: dict[Half, _Edge | None] = {"upper": upper, "lower": lower}
            winner = next(edge[0] for edge in judged.values() if edge)
            ends = {half: edge or (_best(shuffled[half], winner),) * 2 for half, edge in judged.items()}
            chosen, rejected = (
                merge_halves(*(candidate_set.candidates[ends[half][end]].coefficients for half in HALVES))
                for end in (0, 1)
            )
            regions = tuple(half for half, edge in judged.items() if edge)
            pairs.append(Pair(candidate_set.picture, candidate_set.row, chosen, rejected, regions))
    return pairs, _pair_counts(tally, pairs)


def whole_pairs(
    candidate_sets: Iterable[CandidateSet], choices: Iterable[Choice], *, seed: int
) -> tuple[list[Pair], PairCounts]:
    """Return pairs of whole candidates: the baseline.

    Two candidates are judged by the choices of the region ``whole``; without those by their halves, if both have a
    judgement and the two agree. Arguments and errors as in ``region_pairs``; choices of any region are used.
    """
    ordered, judgements, tally = _judge(candidate_sets, choices, REGIONS)
    edges = _edges(_whole_judgements(judgements, tally), ordered, tally)
    pairs = []
    for candidate_set in ordered:
        rng = np.random.default_rng([seed, *hashlib.sha256(candidate_set.picture.encode()).digest()])
        kept = edges.get((candidate_set.picture, "whole"), [])
        for index in rng.permutation(len(kept)):
            chosen, rejected = (candidate_set.candidates[end].coefficients.copy() for end in kept[index])
            pairs.append(Pair(candidate_set.picture, candidate_set.row, chosen, rejected, ("whole",)))
    return pairs, _pair_counts(tally, pairs)


def _pair_counts(tally: Counter[str], pairs: Sequence[Pair]) -> PairCounts:
    one_half = sum(len(pair.regions) == 1 and pair.regions != ("whole",) for pair in pairs)
    counts = {name: tally[name] for name in PairCounts.__dataclass_fields__}
    return PairCounts(**counts | {"both_halves": len(pairs) - one_half, "one_half": one_half})


def _judge(
    candidate_sets: Iterable[CandidateSet], choices: Iterable[Choice], regions: Sequence[Region]
) -> tuple[list[CandidateSet], dict[_Key, _Outcome], Counter[str]]:
    """Return the sets by row, the judgements of some regions, and counts by the names of ``PairCounts``."""
    ordered = sorted(candidate_sets, key=lambda candidate_set: (candidate_set.row, candidate_set.picture))
    by_picture = {each.picture: each for each in ordered}
    if len(by_picture) < len(ordered):
        raise ValueError("two candidate sets of one picture: merge them first")
    given = set(choices)
    rounds = sorted({(choice.model, choice.round) for choice in given})
    if len(rounds) > 1:
        found = ", ".join(f"round {number} of model {model[:12]}" for model, number in rounds[:3])
        raise DatasetError(
            f"choices of several rounds: {found}. Candidates of different rounds share names: give one round at a time."
        )
    tally: Counter[str] = Counter(choices=len(given))
    votes: dict[_Key, dict[str, list[_Vote]]] = {}
    for choice in given:
        question = choice.question
        candidate_set = by_picture.get(question.picture)
        indices = (
            {} if candidate_set is None else {candidate.id: n for n, candidate in enumerate(candidate_set.candidates)}
        )
        if question.region not in regions or not {question.a, question.b} <= indices.keys() or question.a == question.b:
            tally["foreign"] += 1
        elif choice.verdict == "skip":
            tally["skipped"] += 1
        else:
            left, right = indices[question.a], indices[question.b]
            key = (question.picture, question.region, min(left, right), max(left, right))
            vote: _Vote
            if choice.verdict in ("same", "neither"):
                vote = choice.verdict
            else:
                vote = "first" if (choice.verdict == "a") == (left < right) else "second"
            votes.setdefault(key, {}).setdefault(choice.annotator, []).append(vote)
    return ordered, {key: _combine(votes[key]) for key in sorted(votes)}, tally


def _combine(votes: Mapping[str, Sequence[_Vote]]) -> _Outcome:
    """Return the majority over annotators, each with one vote."""
    own = [_majority(each) for each in votes.values()]
    return _majority([vote for vote in own if vote != "tie"])


def _majority(votes: Sequence[_Vote]) -> _Outcome:
    ranked = Counter(votes).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return "tie"
    return ranked[0][0]


def _whole_judgements(judgements: Mapping[_Key, _Outcome], tally: Counter[str]) -> dict[_Key, _Outcome]:
    """Return judgements of whole faces: as given, or where both halves agree."""
    out = {key: outcome for key, outcome in judgements.items() if key[1] == "whole"}
    for picture, _, first, second in judgements:
        key: _Key = (picture, "whole", first, second)
        if key in out:
            continue
        halves = [judgements[each] for half in HALVES if (each := (picture, half, first, second)) in judgements]
        if len(halves) == 1:
            tally["half_judged"] += 1
        else:
            out[key] = halves[0] if halves[0] == halves[1] else "tie"
    return out


def _edges(
    judgements: Mapping[_Key, _Outcome], candidate_sets: Sequence[CandidateSet], tally: Counter[str]
) -> dict[tuple[str, Region], list[_Edge]]:
    """Return winners and losers by picture and region, without contradictions; the rest is counted."""
    by_picture = {each.picture: each for each in candidate_sets}
    won: dict[tuple[str, Region], list[_Edge]] = {}
    for (picture, region, first, second), outcome in judgements.items():
        if outcome == "tie":
            tally["ties"] += 1
        elif outcome == "neither":
            tally["neither"] += 1
        elif outcome == "same" or _equal(by_picture[picture].candidates, first, second, region):
            tally["same"] += 1
        else:
            edge = (first, second) if outcome == "first" else (second, first)
            won.setdefault((picture, region), []).append(edge)
    out = {key: _consistent(edges) for key, edges in won.items()}
    tally["kept"] = sum(map(len, out.values()))
    tally["contradictions"] = sum(map(len, won.values())) - tally["kept"]
    return out


def _equal(candidates: Sequence[Candidate], first: int, second: int, region: Region) -> bool:
    indices = list(ACTIONS[region])
    return np.array_equal(candidates[first].coefficients[indices], candidates[second].coefficients[indices])


def _consistent(edges: Sequence[_Edge]) -> list[_Edge]:
    """Drop edges that go against the ranking of the cycle they are part of."""
    size = 1 + max(end for edge in edges for end in edge)
    reach = np.eye(size, dtype=bool)
    for winner, loser in edges:
        reach[winner, loser] = True
    for middle in range(size):
        reach |= reach[:, [middle]] & reach[[middle]]
    cyclic = [edge for edge in edges if reach[edge[1], edge[0]]]
    net = _net_wins(cyclic)
    return [edge for edge in edges if edge not in cyclic or net[edge[0]] > net[edge[1]]]


def _net_wins(edges: Iterable[_Edge]) -> Counter[int]:
    net: Counter[int] = Counter()
    for winner, loser in edges:
        net[winner] += 1
        net[loser] -= 1
    return net


def _best(edges: Sequence[_Edge], otherwise: int) -> int:
    """Return the candidate with most wins minus losses; of equals the first in the shuffled order."""
    if not edges:
        return otherwise
    net = _net_wins(edges)
    return max(net, key=net.__getitem__)


def write_pairs(path: str | Path, pairs: Iterable[Pair]) -> None:
    """Write pairs as JSONL, one per line, coefficients by action name; all or nothing.

    Raises:
        SemanticFaceError: the file cannot be written.
    """
    records = (
        {
            "picture": pair.picture,
            "row": pair.row,
            "areas": list(pair.regions),
            "chosen": coefficients_record(pair.chosen),
            "rejected": coefficients_record(pair.rejected),
        }
        for pair in pairs
    )
    write_records(path, records)


def read_pairs(path: str | Path) -> tuple[list[Pair], list[str]]:
    """Read a file of ``write_pairs``.

    Returns:
        The pairs, and errors in unreadable lines, each with its number and the fix.

    Raises:
        TableError: no such file, or it is empty.
    """
    pairs, problems = [], []
    for line, record, problem in read_objects(path):
        try:
            if record is None:
                raise TableError(problem)
            pairs.append(_parse_pair(record, f"{path}, line {line}"))
        except TableError as error:
            problems.append(str(error))
    return pairs, problems


def _parse_pair(record: Mapping[str, Any], at: str) -> Pair:
    regions = field(record, "areas", list, at)
    if not regions or not all(region in get_args(Region) for region in regions):
        raise TableError(f"{at}: areas must list some of {', '.join(REGIONS)}. Make the pairs again.")
    chosen, rejected = (parse_coefficients(record.get(name), f"{at}, {name}") for name in ("chosen", "rejected"))
    return Pair(field(record, "picture", str, at), field(record, "row", int, at), chosen, rejected, tuple(regions))
