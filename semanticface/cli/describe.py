"""``semanticface describe``: an analysis of given coefficients."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from semanticface.cli.arguments import OUT_HELP, Subparsers, add_command, add_no_emotion
from semanticface.cli.output import deliver, warn

if TYPE_CHECKING:
    from semanticface.formats.tables import RowResult

_BLOCK = 1024  # rows held in memory
_SHORTEST = 6  # frames, a fifth of a second at 30 a second


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "describe",
        "describe coefficients in words",
        "FILE is a Live Link Face CSV, or a CSV (image and the 52 actions) or JSONL written by predict.\n"
        "A Live Link Face recording is printed as its segments: while the category of the expression stays the same,\n"
        "one paragraph about the median face; a category that lasts under six frames counts to the one before. --all\n"
        "and --out have every frame. Left and right are the subject's own.",
        "semanticface describe take.csv",
        "semanticface describe take.csv --no-emotion --out take.jsonl",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="CSV or JSONL of coefficients")
    parser.add_argument("--out", metavar="X", help=OUT_HELP)
    parser.add_argument("--all", action="store_true", help="print every frame of a recording, not its segments")
    add_no_emotion(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    emotion = not options.no_emotion
    rows = _described(options.file, emotion=emotion)
    if options.out is None and not options.all and _is_recording(options.file):
        rows = _segments(rows, emotion=emotion)
    return deliver(rows, options, grouped=True, gaps=("no_face",))


def _is_recording(path: Path) -> bool:
    from semanticface.formats.tables import read_coefficients

    first = next((row for row in read_coefficients(path) if not row.error), None)
    return first is not None and first.live_link is not None


def _segments(rows: Iterable[RowResult], *, emotion: bool) -> Iterator[RowResult]:
    """Merge consecutive frames of one category; bad rows pass through, before the segment that they are in."""
    segment: list[RowResult] = []
    other: list[RowResult] = []  # frames at the end of the segment that may begin the next one
    for row in rows:
        if row.analysis is None:
            yield row
            continue
        segment.append(row)
        if row.analysis.expression_category == _category(segment[0]):
            other = []
        elif other and row.analysis.expression_category == _category(other[0]):
            other.append(row)
        else:
            other = [row]
        if len(other) == _SHORTEST:
            if len(segment) > len(other):
                yield _merged(segment[: -len(other)], emotion)
            segment, other = other, []
    if segment:
        yield _merged(segment, emotion)


def _category(row: RowResult) -> str:
    return "" if row.analysis is None else row.analysis.expression_category


def _merged(segment: list[RowResult], emotion: bool) -> RowResult:
    import numpy as np

    from semanticface.formats.tables import RowResult
    from semanticface.semantics.analysis import describe

    first, last = segment[0].image, segment[-1].image
    name = first if len(segment) == 1 else f"{first} to {last}, {len(segment)} frames"
    values = np.median([row.coefficients for row in segment if row.coefficients is not None], axis=0)
    return RowResult(name, coefficients=values, analysis=describe(values, emotion=emotion))


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
