"""``semanticface parse``: coefficients out of texts that any model wrote."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from semanticface.cli.arguments import NO_EMOTION_HELP, OUT_HELP, Subparsers, add_command
from semanticface.cli.output import deliver, without_emotion
from semanticface.errors import AnswerError

if TYPE_CHECKING:
    from semanticface.formats.tables import RowResult


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "parse",
        "read coefficients out of the texts any model wrote",
        'Each line of FILE is a JSON object with the generated text under "response" or "text" and, if you like, an\n'
        '"image" that names it. Code fences, prose around the JSON, PascalCase names and 61 keys are understood; an\n'
        "answer that is incomplete, out of range or cut off is refused with a reason, in its place.",
        "semanticface parse answers.jsonl",
        "semanticface parse answers.jsonl --out faces.csv",
    )
    parser.add_argument("file", type=Path, metavar="FILE.jsonl", help="one JSON object a line")
    parser.add_argument("--out", metavar="X", help=OUT_HELP)
    parser.add_argument("--no-emotion", action="store_true", help=NO_EMOTION_HELP)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the subcommand and return its exit code."""
    return deliver(_parsed(options.file, emotion=not options.no_emotion), options)


def _parsed(path: Path, *, emotion: bool) -> Iterator[RowResult]:
    from semanticface.formats.tables import RowResult, read_objects
    from semanticface.semantics.answer import parse_answer

    for line, row, error in read_objects(path):
        at = f"{path}, line {line}"
        row = row or {}
        name = row["image"] if isinstance(row.get("image"), str) and row["image"] else f"{path.name}:{line}"
        text = row.get("response", row.get("text"))
        if error:
            yield RowResult(name, "bad_line", error)
        elif not isinstance(text, str):
            yield RowResult(name, "no_text", f'{at}: no text under "response" or "text". Add the generated text.')
        else:
            try:
                answer = parse_answer(text)
                analysis = answer.analysis if emotion else without_emotion(answer.analysis)
                yield RowResult(name, coefficients=answer.coefficients, analysis=analysis)
            except AnswerError as refused:
                yield RowResult(name, refused.code, f"{at}: {refused}")
