"""``semanticface describe``: coefficients to words."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from semanticface.cli.arguments import NO_EMOTION_HELP, OUT_HELP, Subparsers, add_command
from semanticface.cli.output import deliver

if TYPE_CHECKING:
    from semanticface.formats.tables import RowResult

_DESCRIBED_AT_ONCE = 1024


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "describe",
        "say in words what coefficients look like",
        "FILE is a Live Link Face export (63 columns) or a CSV of image and the 52 actions, as predict writes it.\n"
        "Left and right are the subject's own.",
        "semanticface describe take.csv",
        "semanticface describe take.csv --no-emotion --out take.jsonl",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a CSV of coefficients, or a JSONL made by predict")
    parser.add_argument("--out", metavar="X", help=OUT_HELP)
    parser.add_argument("--no-emotion", action="store_true", help=NO_EMOTION_HELP)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the subcommand and return its exit code."""
    return deliver(_described(options.file, emotion=not options.no_emotion), options)


def _described(path: Path, *, emotion: bool) -> Iterator[RowResult]:
    import numpy as np

    from semanticface.formats.tables import RowResult, read_coefficients
    from semanticface.semantics.analysis import describe_many

    rows = read_coefficients(path)
    while block := list(islice(rows, _DESCRIBED_AT_ONCE)):
        good = [row.coefficients for row in block if row.coefficients is not None]
        analyses = iter(describe_many(np.stack(good), emotion=emotion) if good else [])
        for row in block:
            name = row.label or f"{path.name}:{row.line}"
            if row.coefficients is None:
                yield RowResult(name, "bad_row", row.error)
            else:
                yield RowResult(name, coefficients=row.coefficients, analysis=next(analyses))
