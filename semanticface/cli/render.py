"""``semanticface render``: coefficients to pictures of a head."""

from __future__ import annotations

import argparse
from pathlib import Path

from semanticface.cli import arguments
from semanticface.cli.arguments import Subparsers, add_command


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "render",
        "render coefficients on a plain head, one PNG per row",
        "FILE is a Live Link Face CSV, a CSV of image and the 52 actions, or a JSONL written by predict or parse. Row\n"
        "1 becomes 000001.png and so on; a bad row leaves a gap. If interrupted, run the same command again to\n"
        "resume. To make a video: ffmpeg -i DIR/%06d.png face.mp4",
        "semanticface render take.csv --out frames/",
        "semanticface render faces.jsonl --out heads/ --style toon --size 512 --sheet",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="CSV or JSONL of coefficients")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the pictures")
    parser.add_argument("--style", default="photo", help="photo, toon or drawn (default: %(default)s)")
    parser.add_argument("--size", type=arguments.size, default=256, help="side in pixels (default: %(default)s)")
    parser.add_argument(
        "--sheet", action="store_true", help="also write sheet.png, up to 60 rows spread evenly over the file"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from semanticface.evaluation.render_table import render_table

    bad = render_table(options.file, options.out, style=options.style, size=options.size, sheet=options.sheet)
    return 1 if bad else 0
