"""``semanticface convert``: recordings between Live Link Face CSV, JSONL, CSV and animated glTF."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from semanticface.cli import arguments
from semanticface.cli.arguments import Subparsers, add_command
from semanticface.cli.output import grouped_warnings, warn
from semanticface.errors import SemanticFaceError


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "convert",
        "convert a recording to another format",
        "IN is a Live Link Face CSV (or another app's: columns are found by name), a JSONL or CSV written by predict,\n"
        "or an ms-swift JSONL as published with SemanticFace (messages or response).\n\n"
        "livelink  Live Link Face CSV, for Unreal, Maya and Blender: timecode, the 52, head and eye rotations (0 if\n"
        "          unknown). Unreal takes slate, take and subject from a name such as Scene1_1_Ann.csv. Unreadable\n"
        "          rows are left out, which the timecodes show.\n"
        "jsonl     one object per line, with timecode, rotations and analysis if there are any. No digit is lost.\n"
        "csv       image (the timecode, for a recording that has them) and the 52 with six decimals.\n"
        "glb       the plain head as binary glTF, for Blender, browsers and game engines: 52 morph targets with ARKit\n"
        "          names, animated at the times of the rows. With --avatar, your own head instead: morph targets with\n"
        "          ARKit names are found in any spelling (eyeBlinkLeft, EyeBlinkLeft, eye_blink_left, eyeBlink_L,\n"
        "          Fcl_EyeBlinkLeft), as are a VRM's expressions; missing ones are named.\n\n"
        "Unreadable rows are named on standard error.",
        "semanticface convert faces.jsonl --out Scene1_1_Ann.csv",
        "semanticface convert take.csv --out take.jsonl",
        "semanticface convert swift.jsonl --to csv --out faces.csv",
        "semanticface convert take.csv --out take.glb",
        "semanticface convert take.csv --avatar robot.vrm --out robot-take.glb",
    )
    parser.add_argument("file", type=Path, metavar="IN", help="CSV or JSONL of coefficients")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="output file")
    parser.add_argument(
        "--to",
        choices=("livelink", "jsonl", "csv", "glb"),
        dest="form",
        help="output format (default: by the name of OUT; of .csv, livelink)",
    )
    parser.add_argument(
        "--fps",
        type=arguments.rate,
        metavar="N",
        help="rows per second of a recording without times (default: 30); for glb also the frames per second that its "
        "timecodes count (default: what they show)",
    )
    parser.add_argument("--avatar", type=Path, metavar="X.glb", help="for glb: animate this .glb or .vrm instead")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from semanticface.formats import convert

    options.form = options.form or convert.format_of(options.out)
    convert.check_output_name(options.out, options.form)
    if options.avatar is not None:
        if options.form != "glb":
            raise SemanticFaceError("--avatar is for --to glb. Leave it out.")
    elif options.form == "glb" and options.out.suffix.lower() == ".vrm":
        raise SemanticFaceError(f"{options.out}: the plain head is no VRM. Give an --avatar, or end the name in .glb.")
    with grouped_warnings() as warn_row:
        counts = convert.convert(
            options.file, options.out, options.form, options.fps, warn_row, options.avatar, note=warn
        )
    print(f"{options.out}: {counts.rows} rows, {counts.failed} failed", file=sys.stderr)
    return 1 if counts.failed else 0
