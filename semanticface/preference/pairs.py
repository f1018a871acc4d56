"""From choices to what a model learns: pairs of faces, one to be preferred to the other.

What people chose about the halves of a face is put together again: the preferred face has the winner of each half, the
other face the losers (``region_pairs``). ``whole_pairs`` is the baseline: whole candidates, as they were sampled.

Choices become pairs in three steps, each by a rule that knows neither the order of choices nor the sides they were
shown on:

1. A judgement for each two candidates and area. What an annotator answered to a question and its repetitions counts
   once, as what most of the answers say, and not at all if they are undecided; a skipped question does not count. Then
   annotators vote. Without a verdict that has more votes than any other it is a tie.
2. Contradictions. Where judgements lead round in a circle (A before B before C before A), the candidates of the circle
   are ranked by their wins less their losses within it, and only judgements that lead from a higher to a lower rank
   stay. A plain circle of three goes altogether.
3. Pairs. The judgements that stay are used once each.
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
from semanticface.preference.files import coefficients_from, coefficients_record, field, write_records
from semanticface.preference.regions import ACTIONS, AREAS, HALVES, Area, Half, merge_halves
from semanticface.preference.types import Candidate, CandidateSet, Choice, Pair

_Vote = Literal["first", "second", "same", "neither"]
_Outcome = Literal["first", "second", "same", "neither", "tie"]
_Key = tuple[str, Area, int, int]
"""Picture, area, and the places of two candidates in the slate, the lower one first."""
_Edge = tuple[int, int]
"""Places of the winner and the loser."""


@dataclass(frozen=True, slots=True)
class PairCounts:
    """What became of choices. A judgement is what all choices about two candidates in one area say together.

    Attributes:
        choices: given, without those given twice.
        skipped: choices without an opinion.
        foreign: choices about candidates that are not in the slates, or about areas that these pairs are not made of.
        same: judgements that see no difference, or where there is none.
        neither: judgements that find both wrong.
        ties: judgements without a majority; for whole faces also halves that do not agree.
        half_judged: judgements about one half where the other half of the same candidates has none; of whole faces.
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
    slates: Iterable[CandidateSet], choices: Iterable[Choice], *, seed: int
) -> tuple[list[Pair], PairCounts]:
    """Return pairs whose halves are put together from what was chosen about each.

    Chance decides which upper and which lower judgement of a picture make a pair. A judgement left over makes a pair
    alone. The half it says nothing of is the same in both faces: the best there by the picture's other judgements
    (most wins less losses), so that no half known to be worse is held up as good; without any, the winner's own, since
    the model wrote the two halves together.

    Args:
        slates: one for each picture.
        choices: of one round, in any order; those of the area ``whole`` are not used.
        seed: of the chance.

    Raises:
        DatasetError: choices of several models or rounds, whose candidates have the same names.
        ValueError: two slates of one picture.
    """
    ordered, judgements, tally = _judged(slates, choices, HALVES)
    edges = _edges(judgements, ordered, tally)
    pairs = []
    for slate in ordered:
        rng = np.random.default_rng([seed, *hashlib.sha256(slate.picture.encode()).digest()])
        shuffled: dict[Half, list[_Edge]] = {}
        for half in HALVES:
            kept = edges.get((slate.picture, half), [])
            shuffled[half] = [kept[place] for place in rng.permutation(len(kept))]
        for upper, lower in zip_longest(shuffled["upper"], shuffled["lower"]):
            judged: dict[Half, _Edge | None] = {"upper": upper, "lower": lower}
            winner = next(edge[0] for edge in judged.values() if edge)
            ends = {half: edge or (_best(shuffled[half], winner),) * 2 for half, edge in judged.items()}
            chosen, rejected = (
                merge_halves(*(slate.candidates[ends[half][end]].coefficients for half in HALVES)) for end in (0, 1)
            )
            areas = tuple(half for half, edge in judged.items() if edge)
            pairs.append(Pair(slate.picture, slate.row, chosen, rejected, areas))
    return pairs, _counted(tally, pairs)


def whole_pairs(
    slates: Iterable[CandidateSet], choices: Iterable[Choice], *, seed: int
) -> tuple[list[Pair], PairCounts]:
    """Return pairs of whole candidates: the baseline.

    Two candidates are judged by the choices of the area ``whole``; where there are none, by their halves, if both have
    a judgement and the two agree.

    Args:
        slates: as in ``region_pairs``.
        choices: as in ``region_pairs``, of any area.
        seed: orders the pairs of a picture.

    Raises:
        DatasetError: as in ``region_pairs``.
        ValueError: as in ``region_pairs``.
    """
    ordered, judgements, tally = _judged(slates, choices, AREAS)
    edges = _edges(_of_wholes(judgements, tally), ordered, tally)
    pairs = []
    for slate in ordered:
        rng = np.random.default_rng([seed, *hashlib.sha256(slate.picture.encode()).digest()])
        kept = edges.get((slate.picture, "whole"), [])
        for place in rng.permutation(len(kept)):
            chosen, rejected = (slate.candidates[end].coefficients.copy() for end in kept[place])
            pairs.append(Pair(slate.picture, slate.row, chosen, rejected, ("whole",)))
    return pairs, _counted(tally, pairs)


def _counted(tally: Counter[str], pairs: Sequence[Pair]) -> PairCounts:
    one_half = sum(len(pair.areas) == 1 and pair.areas != ("whole",) for pair in pairs)
    counts = {name: tally[name] for name in PairCounts.__dataclass_fields__}
    return PairCounts(**counts | {"both_halves": len(pairs) - one_half, "one_half": one_half})


def _judged(
    slates: Iterable[CandidateSet], choices: Iterable[Choice], areas: Sequence[Area]
) -> tuple[list[CandidateSet], dict[_Key, _Outcome], Counter[str]]:
    """Return the slates by row, the judgements of some areas, and counts by the names of ``PairCounts``."""
    ordered = sorted(slates, key=lambda slate: (slate.row, slate.picture))
    by_picture = {slate.picture: slate for slate in ordered}
    if len(by_picture) < len(ordered):
        raise ValueError("two slates of one picture: join them first")
    given = set(choices)
    rounds = sorted({(choice.model, choice.round) for choice in given})
    if len(rounds) > 1:
        told = ", ".join(f"round {number} of model {model[:12]}" for model, number in rounds[:3])
        raise DatasetError(
            f"choices of several rounds: {told}. Candidates of different rounds share names: give one round at a time."
        )
    tally: Counter[str] = Counter(choices=len(given))
    votes: dict[_Key, dict[str, list[_Vote]]] = {}
    for choice in given:
        question = choice.question
        slate = by_picture.get(question.picture)
        places = {} if slate is None else {candidate.id: n for n, candidate in enumerate(slate.candidates)}
        if question.area not in areas or not {question.a, question.b} <= places.keys() or question.a == question.b:
            tally["foreign"] += 1
        elif choice.verdict == "skip":
            tally["skipped"] += 1
        else:
            left, right = places[question.a], places[question.b]
            key = (question.picture, question.area, min(left, right), max(left, right))
            vote: _Vote
            if choice.verdict in ("same", "neither"):
                vote = choice.verdict
            else:
                vote = "first" if (choice.verdict == "a") == (left < right) else "second"
            votes.setdefault(key, {}).setdefault(choice.annotator, []).append(vote)
    return ordered, {key: _outcome(votes[key]) for key in sorted(votes)}, tally


def _outcome(votes: Mapping[str, Sequence[_Vote]]) -> _Outcome:
    """Return what annotators say together, each with one vote."""
    own = [_majority(each) for each in votes.values()]
    return _majority([vote for vote in own if vote != "tie"])


def _majority(votes: Sequence[_Vote]) -> _Outcome:
    ranked = Counter(votes).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return "tie"
    return ranked[0][0]


def _of_wholes(judgements: Mapping[_Key, _Outcome], tally: Counter[str]) -> dict[_Key, _Outcome]:
    """Return judgements of whole faces: as they were given, or what both halves agree on."""
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
    judgements: Mapping[_Key, _Outcome], slates: Sequence[CandidateSet], tally: Counter[str]
) -> dict[tuple[str, Area], list[_Edge]]:
    """Return who won against whom by picture and area, without contradictions; all else is counted."""
    by_picture = {slate.picture: slate for slate in slates}
    won: dict[tuple[str, Area], list[_Edge]] = {}
    for (picture, area, first, second), outcome in judgements.items():
        if outcome == "tie":
            tally["ties"] += 1
        elif outcome == "neither":
            tally["neither"] += 1
        elif outcome == "same" or _alike(by_picture[picture].candidates, first, second, area):
            tally["same"] += 1
        else:
            edge = (first, second) if outcome == "first" else (second, first)
            won.setdefault((picture, area), []).append(edge)
    out = {place: _consistent(edges) for place, edges in won.items()}
    tally["kept"] = sum(map(len, out.values()))
    tally["contradictions"] = sum(map(len, won.values())) - tally["kept"]
    return out


def _alike(candidates: Sequence[Candidate], first: int, second: int, area: Area) -> bool:
    indices = list(ACTIONS[area])
    return np.array_equal(candidates[first].coefficients[indices], candidates[second].coefficients[indices])


def _consistent(edges: Sequence[_Edge]) -> list[_Edge]:
    """Drop edges that go against the ranking of the circle they are part of."""
    size = 1 + max(end for edge in edges for end in edge)
    reach = np.eye(size, dtype=bool)
    for winner, loser in edges:
        reach[winner, loser] = True
    for middle in range(size):
        reach |= reach[:, [middle]] & reach[[middle]]
    circular = [edge for edge in edges if reach[edge[1], edge[0]]]
    net = _net_wins(circular)
    return [edge for edge in edges if edge not in circular or net[edge[0]] > net[edge[1]]]


def _net_wins(edges: Iterable[_Edge]) -> Counter[int]:
    net: Counter[int] = Counter()
    for winner, loser in edges:
        net[winner] += 1
        net[loser] -= 1
    return net


def _best(edges: Sequence[_Edge], otherwise: int) -> int:
    """Return the candidate with most wins less losses, the first in the shuffled order where several have as many."""
    if not edges:
        return otherwise
    net = _net_wins(edges)
    return max(net, key=net.__getitem__)


def write_pairs(path: str | Path, pairs: Iterable[Pair]) -> None:
    """Write pairs as JSONL, one a line: picture, row, areas, chosen and rejected by action name; whole or not at all.

    Raises:
        SemanticFaceError: the system refuses to write.
    """
    records = (
        {
            "picture": pair.picture,
            "row": pair.row,
            "areas": list(pair.areas),
            "chosen": coefficients_record(pair.chosen),
            "rejected": coefficients_record(pair.rejected),
        }
        for pair in pairs
    )
    write_records(path, records)


def read_pairs(path: str | Path) -> tuple[list[Pair], list[str]]:
    """Read what ``write_pairs`` wrote.

    Returns:
        The pairs, and what is wrong with lines that hold none, each with its number and the fix.

    Raises:
        TableError: no such file, or it is empty.
    """
    pairs, problems = [], []
    for line, record, problem in read_objects(path):
        try:
            if record is None:
                raise TableError(problem)
            pairs.append(_pair(record, f"{path}, line {line}"))
        except TableError as error:
            problems.append(str(error))
    return pairs, problems


def _pair(record: Mapping[str, Any], at: str) -> Pair:
    areas = field(record, "areas", list, at)
    if not areas or not all(area in get_args(Area) for area in areas):
        raise TableError(f"{at}: areas must list some of {', '.join(AREAS)}. Make the pairs again.")
    chosen, rejected = (coefficients_from(record.get(name), f"{at}, {name}") for name in ("chosen", "rejected"))
    return Pair(field(record, "picture", str, at), field(record, "row", int, at), chosen, rejected, tuple(areas))
