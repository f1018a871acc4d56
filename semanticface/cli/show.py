"""What ``semanticface show`` does: its options, its checks, what it tells."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from semanticface.cli import arguments
from semanticface.cli.arguments import Subparsers, add_command
from semanticface.errors import SemanticFaceError
from semanticface.utils.files import check_not_an_input

_MOST_REMARKS = 20


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "show",
        "show predictions beside what they were read from, as a sheet or as a video",
        "FILE is a JSONL or CSV made by predict, of pictures or of a video, or a Live Link Face CSV with its --video.\n"
        "--out X.png (or .jpg) is a sheet of rows spread evenly over the file: the face, the head drawn from its\n"
        "numbers, and words. --out X.mp4 is a video of everything, input left and head right, at the input's own\n"
        "times, without sound. Whatever has no picture or no answer gets a grey panel that says why, in its place.\n"
        "Pictures are looked for where FILE says and beside FILE, frames by their number or their timecode.",
        "semanticface show faces.jsonl --out sheet.png",
        "semanticface show take.jsonl --out take-shown.mp4 --style toon",
        "semanticface show Scene1_1_Ann.csv --video Scene1_1_Ann.mov --out check.mp4",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="predictions or a recording, CSV or JSONL")
    parser.add_argument("--out", type=Path, required=True, metavar="X", help="X.png or X.jpg: a sheet; X.mp4: a video")
    parser.add_argument(
        "--video", type=Path, metavar="VIDEO", help="that FILE is of (default: the one that FILE names)"
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="folder where the pictures or the video lie now")
    parser.add_argument("--style", default="photo", help="of the head: photo, toon or drawn (default: %(default)s)")
    parser.add_argument(
        "--size", type=arguments.size, help="pixels a side of each head (default: 224 in a sheet, 360 in a video)"
    )
    parser.add_argument("--rows", type=arguments.positive, metavar="N", help="at most, in a sheet (default: 24)")
    parser.add_argument(
        "--fps", type=arguments.rate, metavar="N", help="pictures a second, in a video of single pictures (default: 1)"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from semanticface.evaluation.compare import FILMS, SHEETS, Show

    suffix = options.out.suffix.lower()
    if suffix not in (*SHEETS, *FILMS):
        raise SemanticFaceError(f"{options.out}: end its name in .png for a sheet, or in .mp4 for a video.")
    if options.out.is_dir():
        raise SemanticFaceError(f"{options.out}: is a folder. Choose another name for the output.")
    if suffix in FILMS and options.rows is not None:
        raise SemanticFaceError("--rows is for a sheet: a video shows them all. Leave it out.")

    from semanticface.utils.progress import tqdm

    remarks = 0

    def complain(text: str) -> None:
        nonlocal remarks
        remarks += 1
        if remarks <= _MOST_REMARKS:
            tqdm.write(f"semanticface: {text}", file=sys.stderr)

    show = Show(options.file, complain, video=options.video, folder=options.pictures, style=options.style)
    if options.fps is not None and (suffix in SHEETS or show.take is not None):
        raise SemanticFaceError("--fps is for a video of single pictures. Leave it out.")
    check_not_an_input(options.out, options.file, *show.inputs())
    size = {} if options.size is None else {"size": options.size}
    if suffix in SHEETS:
        done = show.sheet(options.out, **size, **({} if options.rows is None else {"most": options.rows}))
    else:
        done = show.film(options.out, **size, **({} if options.fps is None else {"rate": options.fps}))
    if remarks > _MOST_REMARKS:
        print(f"semanticface: {remarks - _MOST_REMARKS} more remarks of this kind", file=sys.stderr)
    what = "rows" if suffix in SHEETS or show.take is None else "frames"
    print(f"{options.out}: {done.shown} {what}, {done.lacking} without picture or answer", file=sys.stderr)
    return 1 if done.lacking else 0
