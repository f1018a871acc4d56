"""What ``semanticface convert`` does: its options, its checks, what it tells."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from semanticface.cli import arguments
from semanticface.cli.arguments import Subparsers, add_command
from semanticface.errors import SemanticFaceError
from semanticface.utils.files import check_not_an_input


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "convert",
        "turn a recording into another form",
        "IN is a Live Link Face CSV (63 columns), a JSONL or CSV made by predict, or a JSONL of ms-swift in which\n"
        "SemanticFace was published (messages, or response).\n\n"
        "livelink  the CSV of Live Link Face, for Unreal, Maya, Blender: timecode, the 52, head and eye rotations (0\n"
        "          where they are not known). Unreal reads slate, take and subject from a name such as\n"
        "          Scene1_1_Ann.csv. A row that cannot be read is missing, which its timecode shows.\n"
        "jsonl     one object a line, with timecode, rotations and explanation where there are any. No digit is lost.\n"
        "csv       image (the timecode, for a recording that has them) and the 52 with six decimals.\n"
        "glb       the plain head as binary glTF, for Blender, browsers, game engines: 52 morph targets under their\n"
        "          ARKit names, animated at the times of the rows. With --avatar, your own head in its place: morph\n"
        "          targets with ARKit names in any spelling are found (eyeBlinkLeft, EyeBlinkLeft, eye_blink_left,\n"
        "          eyeBlink_L, Fcl_EyeBlinkLeft), a VRM's expressions are followed, and what is missing is named.\n\n"
        "Rows that cannot be read are named on standard error.",
        "semanticface convert faces.jsonl --to livelink --out Scene1_1_Ann.csv",
        "semanticface convert take.csv --to jsonl --out take.jsonl",
        "semanticface convert swift.jsonl --to csv --out faces.csv",
        "semanticface convert take.csv --to glb --out take.glb",
        "semanticface convert take.csv --to glb --avatar robot.vrm --out robot-take.glb",
    )
    parser.add_argument("file", type=Path, metavar="IN", help="CSV or JSONL of coefficients")
    parser.add_argument(
        "--to", required=True, choices=("livelink", "jsonl", "csv", "glb"), dest="form", help="what to write"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="where to")
    parser.add_argument(
        "--fps",
        type=arguments.rate,
        metavar="N",
        help="rows a second of a recording that does not tell when its rows were (default: 30); for glb also frames a "
        "second that its timecodes count (default: 60 where a frame number exceeds 29, else 30)",
    )
    parser.add_argument("--avatar", type=Path, metavar="X.glb", help="for glb: animate this .glb or .vrm instead")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from semanticface.formats import convert

    convert.check_output_name(options.out, options.form)
    if options.avatar is not None:
        if options.form != "glb":
            raise SemanticFaceError("--avatar is for --to glb. Leave it out.")
    elif options.form == "glb" and options.out.suffix.lower() == ".vrm":
        raise SemanticFaceError(f"{options.out}: the plain head is no VRM. Give an --avatar, or end the name in .glb.")
    check_not_an_input(options.out, options.file, options.avatar)
    counts = convert.convert(options.file, options.out, options.form, options.fps, _tell, options.avatar)
    print(f"{options.out}: {counts.rows} rows, {counts.failed} failed", file=sys.stderr)
    return 1 if counts.failed else 0


def _tell(text: str) -> None:
    """Say something on standard error, above a progress bar."""
    from semanticface.utils.progress import tqdm

    tqdm.write(f"semanticface: {text}", file=sys.stderr)
