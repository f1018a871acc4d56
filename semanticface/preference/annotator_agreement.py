"""Annotator agreement: consistency with oneself, agreement between annotators, and position bias.

Two answers to a question agree if they name the same candidate, or are both "same" or both "neither"; skipped questions
do not count. Agreement between annotators is corrected for chance by Krippendorff's alpha for nominal data (Content
Analysis, chapter 11): 1 is full agreement, 0 is what the frequency of the answers would give by chance.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from semanticface.preference.regions import REGIONS, Region
from semanticface.preference.types import Choice

Answer = Literal["first", "second", "same", "neither"]
"""A verdict independent of sides: the candidate whose id sorts first or second, or one of the others."""

_Z = 1.959964  # 95 % interval


@dataclass(frozen=True, slots=True)
class Proportion:
    """``hits`` of ``of``."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        """hits / of; NaN if ``of`` is 0."""
        return self.hits / self.of if self.of else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval (Wilson 1927); 0 to 1 if ``of`` is 0."""
        if not self.of:
            return 0.0, 1.0
        p, n, z2 = self.value, self.of, _Z * _Z
        middle, reach = p + z2 / (2 * n), _Z * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        return float((middle - reach) / (1 + z2 / n)), float((middle + reach) / (1 + z2 / n))


@dataclass(frozen=True, slots=True)
class AnnotatorStats:
    """One annotator in one region.

    Attributes:
        annotator: pseudonym.
        region: what was judged; None for all together.
        choices: number of choices.
        decided: choices that name a side.
        skipped: choices without an opinion.
        repeats: same answer when asked again the same way round.
        mirrored: same answer when asked again with sides swapped.
        left: choices of the left side among those that name one; 0.5 without position bias.
    """

    annotator: str
    region: Region | None
    choices: int
    decided: Proportion
    skipped: Proportion
    repeats: Proportion
    mirrored: Proportion
    left: Proportion


@dataclass(frozen=True, slots=True)
class PairStats:
    """Two annotators in one region, over the questions that both answered.

    Attributes:
        one, other: pseudonyms.
        region: what was judged; None for all together.
        same: same answer.
        winner: same winner, among questions for which both named one.
    """

    one: str
    other: str
    region: Region | None
    same: Proportion
    winner: Proportion


@dataclass(frozen=True, slots=True)
class Report:
    """Consistency and agreement of annotators.

    Attributes:
        annotators: for each annotator all regions together, then each region with choices.
        pairs: likewise for each two annotators with a question in common.
        alpha: Krippendorff's alpha over all annotators, by region, None for all together; NaN where undefined.
    """

    annotators: tuple[AnnotatorStats, ...]
    pairs: tuple[PairStats, ...]
    alpha: dict[Region | None, float]


def answer(choice: Choice) -> Answer | None:
    """Return the answer independent of sides; None if skipped."""
    if choice.verdict == "skip":
        return None
    if choice.verdict in ("same", "neither"):
        return choice.verdict
    question = choice.question
    return "first" if (choice.verdict == "a") == (question.a < question.b) else "second"


def report(choices: Iterable[Choice]) -> Report:
    """Return consistency and agreement over choices of any annotators and rounds."""
    choices = list(choices)
    judged = {choice.question.region for choice in choices}
    regions: list[Region | None] = [None, *(region for region in REGIONS if region in judged)]
    names = sorted({choice.annotator for choice in choices})
    firsts = {region: _first_answers(_in(choices, region)) for region in regions}
    annotators = [_annotator_stats(name, region, choices) for name in names for region in regions]
    pairs = [
        found
        for one, other in combinations(names, 2)
        for region in regions
        if (found := _pair_stats(one, other, region, firsts[region])).same.of
    ]
    alpha = {
        region: krippendorff_alpha([list(given.values()) for given in firsts[region].values()]) for region in regions
    }
    return Report(tuple(each for each in annotators if each.choices), tuple(pairs), alpha)


def consistency(choices: Iterable[Choice]) -> tuple[Proportion, Proportion]:
    """Return how often one annotator gave the same answer when asked again: the same way round, and mirrored."""
    given = {(c.model, c.round, c.question.id): c for c in choices}
    hits, total = Counter[str](), Counter[str]()
    for (model, round, _), again in given.items():
        first = given.get((model, round, again.question.of)) if again.question.of else None
        if first is None or None in (answer(first), answer(again)):
            continue
        total[again.question.kind] += 1
        hits[again.question.kind] += answer(first) == answer(again)
    return Proportion(hits["repeat"], total["repeat"]), Proportion(hits["mirrored"], total["mirrored"])


def agreement(choices: Iterable[Choice]) -> tuple[Proportion, Proportion]:
    """Return how often two annotators gave the same answer, and named the same winner; over all pairs of annotators."""
    pairs = [pair for pair in report(choices).pairs if pair.region is None]
    return _sum([pair.same for pair in pairs]), _sum([pair.winner for pair in pairs])


def _sum(proportions: Sequence[Proportion]) -> Proportion:
    return Proportion(sum(each.hits for each in proportions), sum(each.of for each in proportions))


def krippendorff_alpha(units: Iterable[Sequence[str]]) -> float:
    """Return Krippendorff's alpha for nominal data.

    Args:
        units: the answers to each question; questions with fewer than two are ignored.

    Returns:
        At most 1; NaN where no question has two answers, or all answers are equal.
    """
    usable = [Counter(unit) for unit in units if len(unit) >= 2]
    totals = sum(usable, Counter[str]())
    n = totals.total()
    expected = n * n - sum(count * count for count in totals.values())
    if expected == 0:
        return float("nan")
    observed = sum(
        (unit.total() ** 2 - sum(count * count for count in unit.values())) / (unit.total() - 1) for unit in usable
    )
    return 1 - (n - 1) * observed / expected


def _in(choices: Sequence[Choice], region: Region | None) -> list[Choice]:
    return [choice for choice in choices if region in (None, choice.question.region)]


def _annotator_stats(name: str, region: Region | None, choices: Sequence[Choice]) -> AnnotatorStats:
    mine = [choice for choice in _in(choices, region) if choice.annotator == name]
    verdicts = Counter(choice.verdict for choice in mine)
    sided = verdicts["a"] + verdicts["b"]
    repeats, mirrored = consistency(mine)
    return AnnotatorStats(
        name,
        region,
        len(mine),
        decided=Proportion(sided, len(mine)),
        skipped=Proportion(verdicts["skip"], len(mine)),
        repeats=repeats,
        mirrored=mirrored,
        left=Proportion(verdicts["a"], sided),
    )


_Key = tuple[str, int, str, Region, frozenset[str]]


def _key(choice: Choice) -> _Key:
    """Return a key that is equal for the same question to two annotators, whichever way round."""
    question = choice.question
    return choice.model, choice.round, question.picture, question.region, frozenset((question.a, question.b))


def _first_answers(choices: Iterable[Choice]) -> dict[_Key, dict[str, Answer]]:
    """Return the answers to first questions, by question and annotator."""
    out: dict[_Key, dict[str, Answer]] = defaultdict(dict)
    for choice in choices:
        given = answer(choice)
        if choice.question.kind == "first" and given is not None:
            out[_key(choice)].setdefault(choice.annotator, given)
    return out


def _pair_stats(one: str, other: str, region: Region | None, firsts: dict[_Key, dict[str, Answer]]) -> PairStats:
    both = [(given[one], given[other]) for given in firsts.values() if one in given and other in given]
    sided = [pair for pair in both if set(pair) <= {"first", "second"}]
    same, winner = (Proportion(sum(a == b for a, b in pairs), len(pairs)) for pairs in (both, sided))
    return PairStats(one, other, region, same, winner)


def format_report(found: Report) -> str:
    """Return a report as a table for a terminal."""
    if not found.annotators:
        return "No choices yet."
    lines: list[tuple[str, ...]] = [
        ("annotator", "region", "choices", "decided", "skipped", "same on repeat", "same mirrored", "left side")
    ]
    for each in found.annotators:
        who = each.annotator if each.region is None else ""
        again = format_proportion(each.repeats), format_proportion(each.mirrored)
        left = _percent(each.left) + ("*" if _biased(each.left) else "")
        figures = str(each.choices), _percent(each.decided), _percent(each.skipped), *again, left
        lines.append((who, each.region or "all", *figures))
    out = [*_columns(lines), ""]
    if found.pairs:
        lines = [("annotators", "region", "in common", "same answer", "same winner")]
        for pair in found.pairs:
            who = f"{pair.one}, {pair.other}" if pair.region is None else ""
            agree = str(pair.same.of), _percent(pair.same), format_proportion(pair.winner)
            lines.append((who, pair.region or "all", *agree))
        alphas = [f"{region or 'all'} {value:.2f}" for region, value in found.alpha.items() if not np.isnan(value)]
        out += [*_columns(lines), ""]
        out.append(f"Krippendorff's alpha: {', '.join(alphas) or 'undefined, all answers are equal'}")
    else:
        out.append("No question was answered by two annotators: their agreement is unknown. See --overlap.")
    if any(_biased(each.left) for each in found.annotators):
        out.append("* position bias: favours one side more than chance explains (95 %).")
    return "\n".join(out)


def _columns(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        named = [cell.ljust(width) for cell, width in zip(line[:2], widths[:2], strict=True)]
        figures = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
        yield "  ".join([*named, *figures]).rstrip()


def _percent(proportion: Proportion) -> str:
    return f"{100 * proportion.value:.0f} %" if proportion.of else "-"


def format_proportion(proportion: Proportion) -> str:
    """Return percent and counts; a dash if there is nothing to count."""
    return f"{_percent(proportion)} ({proportion.hits} of {proportion.of})" if proportion.of else "-"


def _biased(left: Proportion) -> bool:
    low, high = left.interval
    return not low <= 0.5 <= high
