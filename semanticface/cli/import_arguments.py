"""Options, settings, output and exit codes shared by the scripts that import pictures."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from semanticface.cli.arguments import weights
from semanticface.data.captures.admission import ImportResult
from semanticface.data.captures.report import PAGE
from semanticface.data.captures.rows import CaptureSettings
from semanticface.data.importers.pictures import ImagePart, PictureSettings, Reader, import_parts
from semanticface.errors import SemanticFaceError

S = TypeVar("S", bound=CaptureSettings)

MAX_PRINTED = 8
"""Warnings of a part that are printed; its page has the rest."""


def assignment(text: str) -> tuple[str, str]:
    """Parse ``ann=train``."""
    subject, equals, split = text.rpartition("=")
    if not (equals and subject and split):
        raise argparse.ArgumentTypeError(f"{text!r}: write SUBJECT=SPLIT, as in ann=train")
    return subject, split


def add_arguments(parser: argparse.ArgumentParser, *, subject: str = "who is in all of these pictures") -> None:
    """Add the common options; ``subject`` is the help of ``--subject``."""
    default = CaptureSettings()
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the dataset, new or to extend")
    parser.add_argument(
        "--consent", type=Path, metavar="FILE", help="who agreed to what (default: consent.yaml in --out)"
    )
    parser.add_argument("--subject", metavar="NAME", help=subject)
    parser.add_argument(
        "--assign",
        type=assignment,
        action="append",
        default=[],
        metavar="SUBJECT=SPLIT",
        help="put a person into a split",
    )
    splits = ",".join(f"{name}={value:g}" for name, value in default.splits.items())
    parser.add_argument(
        "--splits",
        type=weights("train=8,test=2"),
        default=default.splits,
        help=f"relative size of each split (default {splits})",
    )
    parser.add_argument(
        "--size", type=int, default=default.size, help="maximum side of a picture in pixels (default %(default)s)"
    )
    parser.add_argument("--no-emotion", dest="emotion", action="store_false", help="answers without emotion")


def add_selection(parser: argparse.ArgumentParser, of: str) -> None:
    """Add the options that select the frames of a take or video."""
    default = CaptureSettings()
    parser.add_argument(
        "--apart",
        type=float,
        default=default.apart,
        help=f"frames of a {of} are near duplicates if no coefficient differs by this much (default %(default)s)",
    )
    parser.add_argument(
        "--neutral",
        type=float,
        default=default.neutral,
        help="a frame is near neutral if no coefficient differs from rest by this much (default %(default)s)",
    )
    parser.add_argument(
        "--keep-neutral",
        type=int,
        default=default.keep_neutral,
        help=f"near-neutral frames kept per {of}, so that models see faces at rest (default %(default)s)",
    )


def add_crop(parser: argparse.ArgumentParser) -> None:
    """Add ``--no-crop``."""
    parser.add_argument(
        "--no-crop",
        dest="crop",
        action="store_const",
        const="none",
        default="find",
        help="pictures are already square crops of one face",
    )


def settings_from(options: argparse.Namespace, kind: type[S], **more: Any) -> S:
    """Return settings from the options that have the names of their fields."""
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in vars(options).items() if name in names}, **more)


def run(
    options: argparse.Namespace,
    settings: Callable[[], PictureSettings],
    read: Callable[[], tuple[Sequence[ImagePart], Sequence[str]]],
    reader: Callable[[], Reader | None] = lambda: None,
) -> int:
    """Import, print the result, and return the exit code."""
    try:
        wanted = settings()
        parts, problems = read()
        result = import_parts(
            parts,
            options.out,
            wanted,
            problems=problems,
            reader=reader(),
            consent=options.consent,
            assign=dict(options.assign),
        )
    except SemanticFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        return 130
    code = print_result(result, options.out, wanted.splits)
    if result.records and wanted.labels.get("unknown"):
        unknown, weak = (", ".join(wanted.labels[key]) for key in ("unknown", "weak"))
        print(f"labels    by {wanted.labels['by']}: {unknown} is 0 in every row, {weak} hardly ever detected")
    return code


def print_result(result: ImportResult, out: Path, splits: Mapping[str, float]) -> int:
    """Print the result of an import into a folder, and return the exit code."""
    page = out / PAGE
    for record in result.records:
        for remark in record.remarks[:MAX_PRINTED] if record.key in result.new else ():
            print(remark, file=sys.stderr)
        if record.key in result.new and len(record.remarks) > MAX_PRINTED:
            print(f"and more of {record.name}; see {page}", file=sys.stderr)
    for problem in result.problems[:MAX_PRINTED]:
        print(problem, file=sys.stderr)
    if len(result.problems) > MAX_PRINTED:
        print(f"and {len(result.problems) - MAX_PRINTED} more problems; see {page}", file=sys.stderr)
    if not result.records:
        print(f"error: nothing could be imported into {out}", file=sys.stderr)
        return 2
    counts = ", ".join(f"{count:,} in {split}" for split, count in result.rows.items())
    print(f"{out}: {counts}. Look at {page}.")
    if "train" in splits and "train" not in result.rows:
        print("nobody is in train yet: with few people, name one: --assign SUBJECT=train", file=sys.stderr)
    return 1 if result.left_out else 0
