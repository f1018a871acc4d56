"""What commands print: warnings, and outcomes to a file or the terminal with every failed row named."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semanticface.formats.tables import Outcome
    from semanticface.semantics.analysis import Analysis


def warn(text: str) -> None:
    """Print a line to standard error, above any progress bar."""
    from semanticface.utils.progress import tqdm

    tqdm.write(f"semanticface: {text}", file=sys.stderr)


def deliver(outcomes: Iterable[Outcome], options: argparse.Namespace, log: Callable[..., None] = print) -> int:
    """Write outcomes to ``--out`` or print them as they come, name the failed ones, and return the exit code.

    ``log`` is ``print``, or ``tqdm.write`` under a progress bar.
    """
    failed = total = 0

    def checked() -> Iterator[Outcome]:
        nonlocal failed, total
        for outcome in outcomes:
            total += 1
            if outcome.status != "ok":
                failed += 1
                log(f"semanticface: {outcome.reason}", file=sys.stderr)
            yield outcome

    if options.out is None:
        for outcome in checked():
            log(summary(outcome))
    else:
        from semanticface.formats import tables

        tables.write(options.out, checked())
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
