"""How far annotators can be relied on: with themselves, with each other, and with both sides of the screen.

Two answers to one question are the same if they name the same candidate, or are both "same" or both "neither"; skipped
questions count for nothing. Between annotators, chance agreement is taken out by Krippendorff's alpha for nominal data
(Content Analysis, chapter 11): 1 is full agreement, 0 what the frequency of the answers would give by itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from semanticface.preference.regions import AREAS, Area
from semanticface.preference.types import Choice

Answer = Literal["first", "second", "same", "neither"]
"""A verdict, whatever side the candidates stood on: the first or the second by name, or one of the others."""

_Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many.

    Attributes:
        hits: at most ``of``.
        of: in all.
    """

    hits: int
    of: int

    @property
    def value(self) -> float:
        """The share, NaN of nothing."""
        return self.hits / self.of if self.of else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval (Wilson 1927); 0 to 1 of nothing."""
        if not self.of:
            return 0.0, 1.0
        p, n, z2 = self.value, self.of, _Z * _Z
        middle, reach = p + z2 / (2 * n), _Z * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        return float((middle - reach) / (1 + z2 / n)), float((middle + reach) / (1 + z2 / n))


@dataclass(frozen=True, slots=True)
class Alone:
    """One annotator in one area.

    Attributes:
        annotator: pseudonym.
        area: what was judged; None for all together.
        choices: made.
        decided: of them, those that name one side.
        skipped: of them, those without an opinion.
        repeats: same answer when asked again the same way round.
        mirrored: same answer when asked again with sides swapped.
        left: the left side, of choices that name one; 0.5 is expected.
    """

    annotator: str
    area: Area | None
    choices: int
    decided: Share
    skipped: Share
    repeats: Share
    mirrored: Share
    left: Share


@dataclass(frozen=True, slots=True)
class Together:
    """Two annotators in one area, over the questions that both answered.

    Attributes:
        one, other: pseudonyms.
        area: what was judged; None for all together.
        same: same answer.
        winner: same winner, of questions for which both named one.
    """

    one: str
    other: str
    area: Area | None
    same: Share
    winner: Share


@dataclass(frozen=True, slots=True)
class Report:
    """What ``report`` found.

    Attributes:
        alone: for each annotator all areas together, then each in which there are choices.
        together: likewise for each two annotators who answered a question in common.
        alpha: Krippendorff's, over all annotators, by area, None for all together; NaN where it is undefined.
    """

    alone: tuple[Alone, ...]
    together: tuple[Together, ...]
    alpha: dict[Area | None, float]


def answer(choice: Choice) -> Answer | None:
    """Return what was chosen, whatever the sides; None where it was skipped."""
    if choice.verdict == "skip":
        return None
    if choice.verdict in ("same", "neither"):
        return choice.verdict
    question = choice.question
    return "first" if (choice.verdict == "a") == (question.a < question.b) else "second"


def report(choices: Iterable[Choice]) -> Report:
    """Return how consistent annotators are, and how far they agree.

    Args:
        choices: standing ones, of any annotators and rounds.
    """
    choices = list(choices)
    areas: list[Area | None] = [None, *(area for area in AREAS if any(c.question.area == area for c in choices))]
    names = sorted({choice.annotator for choice in choices})
    firsts = {area: _first_answers(_in(choices, area)) for area in areas}
    alone = [_alone(name, area, choices) for name in names for area in areas]
    together = [
        found
        for one, other in combinations(names, 2)
        for area in areas
        if (found := _together(one, other, area, firsts[area])).same.of
    ]
    alpha = {area: krippendorff([list(given.values()) for given in firsts[area].values()]) for area in areas}
    return Report(tuple(each for each in alone if each.choices), tuple(together), alpha)


def consistency(choices: Iterable[Choice]) -> tuple[Share, Share]:
    """Return how often one annotator answered alike when asked again: the same way round, and mirrored."""
    given = {(c.model, c.round, c.question.id): c for c in choices}
    hits, total = Counter[str](), Counter[str]()
    for (model, round, _), again in given.items():
        first = given.get((model, round, again.question.of)) if again.question.of else None
        if first is None or None in (answer(first), answer(again)):
            continue
        total[again.question.kind] += 1
        hits[again.question.kind] += answer(first) == answer(again)
    return Share(hits["repeat"], total["repeat"]), Share(hits["mirrored"], total["mirrored"])


def agreement(choices: Iterable[Choice]) -> tuple[Share, Share]:
    """Return how often two annotators answered a question alike, and how often they named the same winner.

    Args:
        choices: as for ``report``; every two annotators count.
    """
    pairs = [pair for pair in report(choices).together if pair.area is None]
    return _sum([pair.same for pair in pairs]), _sum([pair.winner for pair in pairs])


def _sum(shares: Sequence[Share]) -> Share:
    return Share(sum(share.hits for share in shares), sum(share.of for share in shares))


def krippendorff(units: Iterable[Sequence[str]]) -> float:
    """Return Krippendorff's alpha for nominal data.

    Args:
        units: the answers that each question got; those with fewer than two say nothing.

    Returns:
        At most 1; NaN where no question has two answers, or all answers are alike.
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


def _in(choices: Sequence[Choice], area: Area | None) -> list[Choice]:
    return [choice for choice in choices if area in (None, choice.question.area)]


def _alone(name: str, area: Area | None, choices: Sequence[Choice]) -> Alone:
    mine = [choice for choice in _in(choices, area) if choice.annotator == name]
    verdicts = Counter(choice.verdict for choice in mine)
    sided = verdicts["a"] + verdicts["b"]
    repeats, mirrored = consistency(mine)
    return Alone(
        name,
        area,
        len(mine),
        decided=Share(sided, len(mine)),
        skipped=Share(verdicts["skip"], len(mine)),
        repeats=repeats,
        mirrored=mirrored,
        left=Share(verdicts["a"], sided),
    )


_Place = tuple[str, int, str, Area, frozenset[str]]


def _place(choice: Choice) -> _Place:
    """Return what makes two questions of two annotators the same one, whichever way round they were shown."""
    question = choice.question
    return choice.model, choice.round, question.picture, question.area, frozenset((question.a, question.b))


def _first_answers(choices: Iterable[Choice]) -> dict[_Place, dict[str, Answer]]:
    """Return by question and annotator what was answered when it was asked first."""
    out: dict[_Place, dict[str, Answer]] = defaultdict(dict)
    for choice in choices:
        given = answer(choice)
        if choice.question.kind == "first" and given is not None:
            out[_place(choice)].setdefault(choice.annotator, given)
    return out


def _together(one: str, other: str, area: Area | None, firsts: dict[_Place, dict[str, Answer]]) -> Together:
    both = [(given[one], given[other]) for given in firsts.values() if one in given and other in given]
    sided = [pair for pair in both if set(pair) <= {"first", "second"}]
    same, winner = (Share(sum(a == b for a, b in pairs), len(pairs)) for pairs in (both, sided))
    return Together(one, other, area, same, winner)


def table(found: Report) -> str:
    """Return a report as text for a terminal."""
    if not found.alone:
        return "No choices yet."
    lines: list[tuple[str, ...]] = [
        ("annotator", "area", "choices", "decided", "skipped", "again alike", "mirrored alike", "left side")
    ]
    for each in found.alone:
        who = each.annotator if each.area is None else ""
        shares = _percent(each.decided), _percent(each.skipped), counted(each.repeats), counted(each.mirrored)
        lines.append((who, each.area or "all", str(each.choices), *shares, _leaning(each.left)))
    out = [*_columns(lines), ""]
    if found.together:
        lines = [("together", "area", "in common", "same answer", "same winner")]
        for pair in found.together:
            who = f"{pair.one}, {pair.other}" if pair.area is None else ""
            lines.append((who, pair.area or "all", str(pair.same.of), _percent(pair.same), counted(pair.winner)))
        out += [*_columns(lines), ""]
        told = [f"{area or 'all'} {value:.2f}" for area, value in found.alpha.items() if not np.isnan(value)]
        out.append(f"Krippendorff's alpha: {', '.join(told) or 'undefined, all answers are alike'}")
    else:
        out.append("No question was answered by two annotators: their agreement is not known. See --overlap.")
    if any(_leans(each.left) for each in found.alone):
        out.append("* leans to one side more than chance explains (95 %).")
    return "\n".join(out)


def _columns(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        named = [cell.ljust(width) for cell, width in zip(line[:2], widths[:2], strict=True)]
        figures = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
        yield "  ".join([*named, *figures]).rstrip()


def _percent(share: Share) -> str:
    return f"{100 * share.value:.0f} %" if share.of else "-"


def counted(share: Share) -> str:
    """Return a share as percent and counts; a dash for nothing."""
    return f"{_percent(share)} ({share.hits} of {share.of})" if share.of else "-"


def _leans(left: Share) -> bool:
    low, high = left.interval
    return not low <= 0.5 <= high


def _leaning(left: Share) -> str:
    return _percent(left) + ("*" if _leans(left) else "")
