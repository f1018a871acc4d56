"""What commands print: warnings, and outcomes to a file or the terminal with every failed row named."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semanticface.formats.tables import Outcome
    from semanticface.semantics.analysis import Analysis


_LINE = re.compile(r", line (\d+)")
_MAX_RANGES = 20


def warn(text: str) -> None:
    """Print a line to standard error, above any progress bar."""
    from semanticface.utils.progress import tqdm

    tqdm.write(f"semanticface: {text}", file=sys.stderr)


@contextlib.contextmanager
def grouped_warnings(limit: int | None = None) -> Iterator[Callable[[str], None]]:
    """Yield a function like ``warn`` for rows of a file; at the end, messages that differ in numbers only are one.

    Such a message is that of the first row, with the number of rows and their lines. Of more
    than ``limit`` different ones the first are shown.
    """
    first: dict[str, str] = {}
    lines: dict[str, list[int]] = {}

    def add(text: str) -> None:
        kind = re.sub(r"\d+", "0", text)
        line = _LINE.search(text)
        first.setdefault(kind, text)
        lines.setdefault(kind, []).append(int(line[1]) if line else 0)

    try:
        yield add
    finally:
        for kind, text in list(first.items())[:limit]:
            found = lines[kind]
            if len(found) == 1:
                warn(text)
            else:
                at = f": lines {_ranges(found)}" if all(found) else ""
                warn(f"{text} ({len(found):,} rows alike{at})")
        if limit is not None and len(first) > limit:
            warn(f"{len(first) - limit} more warnings")


def _ranges(numbers: list[int]) -> str:
    """Return numbers in order as ``3-5, 9``; of many ranges the first and the last."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [str(low) if low == high else f"{low}-{high}" for low, high in runs]
    if len(texts) > _MAX_RANGES:
        texts = [*texts[: _MAX_RANGES - 1], "…", texts[-1]]
    return ", ".join(texts)


def deliver(
    outcomes: Iterable[Outcome],
    options: argparse.Namespace,
    log: Callable[..., None] = print,
    *,
    grouped: bool = False,
    gaps: Collection[str] = (),
) -> int:
    """Write outcomes to ``--out`` or print them as they come, name the failed ones, and return the exit code.

    Args:
        outcomes: the rows.
        options: of the command.
        log: ``print``, or ``tqdm.write`` under a progress bar.
        grouped: name failed rows at the end, alike ones together (``grouped_warnings``).
        gaps: statuses of rows without coefficients that are no failure.
    """
    failed = total = 0
    naming = contextlib.nullcontext(lambda reason: log(f"semanticface: {reason}", file=sys.stderr))
    with grouped_warnings() if grouped else naming as name_row:

        def checked() -> Iterator[Outcome]:
            nonlocal failed, total
            for outcome in outcomes:
                total += 1
                if outcome.status != "ok" and outcome.status not in gaps:
                    failed += 1
                    name_row(outcome.reason)
                yield outcome

        if options.out is None:
            for outcome in checked():
                log(summary(outcome))
        else:
            from semanticface.formats import tables

            tables.write(options.out, checked())
    if options.out is not None:
        print(f"{options.out}: {total} rows, {failed} failed", file=sys.stderr)
    return 1 if failed else 0


def without_emotion(analysis: Analysis | None) -> Analysis | None:
    return analysis and dataclasses.replace(analysis, emotional_implication=None)


def summary(outcome: Outcome) -> str:
    """Return one outcome as a paragraph for the terminal."""
    from semanticface import arkit
    from semanticface.evaluation.metrics import ACTIVE

    face = getattr(outcome, "face", 0)  # of predictions of all faces of a picture
    lines = [f"{outcome.image}, face {face}" if face else outcome.image]
    if outcome.coefficients is None:
        return f"{outcome.image}\n  {outcome.status}: {outcome.reason}\n"
    analysis = outcome.analysis
    if analysis is not None:
        lines.append(f"  {analysis.expression_category}")
        if analysis.emotional_implication is not None:
            lines.append(f"  suggests  {analysis.emotional_implication}")
        lines += [f"  {region:<8}  {text}" for region, text in analysis.muscle_movements.items()]
        lines.append(f"  symmetry  {analysis.symmetry}")
    strongest = sorted(arkit.by_name(outcome.coefficients).items(), key=lambda item: -item[1])
    active = [f"{name} {value:.2f}" for name, value in strongest if value > ACTIVE]
    lines.append(f"  active    {', '.join(active) or 'nothing above ' + str(ACTIVE)}")
    return "\n".join(lines) + "\n"
