"""``semanticface show``: predictions next to their inputs, as a sheet or a video."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from semanticface.cli import arguments
from semanticface.cli.arguments import Subparsers, add_command
from semanticface.cli.output import grouped_warnings
from semanticface.errors import SemanticFaceError

_MAX_WARNINGS = 20


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "show",
        "show predictions next to their inputs, as a sheet or as a video",
        "FILE is a JSONL or CSV written by predict, of pictures or of a video, or a Live Link Face CSV with its\n"
        "--video. --out X.png (or .jpg) is a sheet of rows spread evenly over the file: the face, the head rendered\n"
        "from its numbers, and a caption. --out X.mp4 is a video of all rows, input left and head right, with\n"
        "the input's own timing and no sound. A missing picture or answer becomes a grey panel that says why.\n"
        "Pictures are looked up where FILE says and next to FILE, frames by number or timecode.",
        "semanticface show faces.jsonl --out sheet.png",
        "semanticface show take.jsonl --out take-shown.mp4 --style toon",
        "semanticface show Scene1_1_Ann.csv --video Scene1_1_Ann.mov --out check.mp4",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="predictions or a recording, CSV or JSONL")
    parser.add_argument("--out", type=Path, required=True, metavar="X", help="X.png or X.jpg: a sheet; X.mp4: a video")
    parser.add_argument("--video", type=Path, metavar="VIDEO", help="the video of FILE (default: the one it names)")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="folder where the pictures or the video are now")
    parser.add_argument("--style", default="photo", help="of the head: photo, toon or drawn (default: %(default)s)")
    parser.add_argument("--frontal", action="store_true", help="do not turn the heads by the rotations of FILE")
    parser.add_argument(
        "--size", type=arguments.size, help="side of each head in pixels (default: 224 in a sheet, 360 in a video)"
    )
    parser.add_argument("--rows", type=arguments.positive, metavar="N", help="maximum rows of a sheet (default: 24)")
    parser.add_argument(
        "--fps", type=arguments.rate, metavar="N", help="pictures per second in a video of pictures (default: 1)"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from semanticface.evaluation.compare import SHEETS, VIDEOS, Comparison
    from semanticface.utils.files import check_not_an_input

    suffix = options.out.suffix.lower()
    if suffix not in (*SHEETS, *VIDEOS):
        raise SemanticFaceError(f"{options.out}: end its name in .png for a sheet, or in .mp4 for a video.")
    if options.out.is_dir():
        raise SemanticFaceError(f"{options.out}: is a folder. Choose another name for the output.")
    if suffix in VIDEOS and options.rows is not None:
        raise SemanticFaceError("--rows is for a sheet: a video shows all rows. Leave it out.")

    with grouped_warnings(_MAX_WARNINGS) as warn:
        comparison = Comparison(
            options.file,
            warn,
            video=options.video,
            folder=options.pictures,
            style=options.style,
            frontal=options.frontal,
        )
        if options.fps is not None and (suffix in SHEETS or comparison.take is not None):
            raise SemanticFaceError("--fps is for a video of single pictures. Leave it out.")
        check_not_an_input(options.out, options.file, *comparison.inputs())
        size = {} if options.size is None else {"size": options.size}
        if suffix in SHEETS:
            rows = {} if options.rows is None else {"max_rows": options.rows}
            counts = comparison.write_sheet(options.out, **size, **rows)
        else:
            rate = {} if options.fps is None else {"rate": options.fps}
            counts = comparison.write_video(options.out, **size, **rate)
    what = "rows" if suffix in SHEETS or comparison.take is None else "frames"
    print(f"{options.out}: {counts.shown} {what}, {counts.incomplete} without picture or answer", file=sys.stderr)
    return 1 if counts.incomplete else 0
