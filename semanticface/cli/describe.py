"""``semanticface describe``: an analysis of given coefficients."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from semanticface.cli.arguments import OUT_HELP, Subparsers, add_command, add_no_emotion
from semanticface.cli.output import deliver, warn

if TYPE_CHECKING:
    from semanticface.formats.tables import RowResult

_BLOCK = 1024  # rows held in memory


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "describe",
        "describe coefficients in words",
        "FILE is a Live Link Face CSV, or a CSV (image and the 52 actions) or JSONL written by predict.\n"
        "Left and right are the subject's own.",
        "semanticface describe take.csv",
        "semanticface describe take.csv --no-emotion --out take.jsonl",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="CSV or JSONL of coefficients")
    parser.add_argument("--out", metavar="X", help=OUT_HELP)
    add_no_emotion(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    rows = _described(options.file, emotion=not options.no_emotion)
    return deliver(rows, options, grouped=True, gaps=("no_face",))


def _described(path: Path, *, emotion: bool) -> Iterator[RowResult]:
    import numpy as np

    from semanticface.formats.tables import RowResult, read_coefficients
    from semanticface.semantics.analysis import describe_many

    rows = read_coefficients(path, warn)
    while block := list(islice(rows, _BLOCK)):
        good = [row.coefficients for row in block if row.coefficients is not None]
        analyses = iter(describe_many(np.stack(good), emotion=emotion) if good else [])
        for row in block:
            name = row.label or f"{path.name}:{row.line}"
            if row.coefficients is None:
                yield RowResult(name, "no_face" if row.lost else "bad_row", row.error)
            else:
                yield RowResult(name, coefficients=row.coefficients, analysis=next(analyses))
