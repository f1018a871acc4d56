"""``semanticface pose``: a face from a text, the opposite of ``describe``."""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from semanticface.cli.arguments import Subparsers, add_command
from semanticface.cli.output import warn
from semanticface.errors import SemanticFaceError

if TYPE_CHECKING:
    from semanticface.semantics.text_pose import TextPose

_SUFFIXES = (".glb", ".csv", ".json", ".png")
_SIZE = 512
_BAR = 30
_TIMECODE = "00:00:00:00.000"


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "pose",
        "turn a text into the coefficients of a face",
        "TEXT is English: parts of the face (brows, eyes, cheeks, nose, mouth, corners, lips, jaw, tongue, head),\n"
        "what they do (raised, lowered, closed, wide, smiling, puckered, turned, looking up, ...), which side (left,\n"
        "right, both, one-sided: left) and how much (faint, slightly, half, clearly, strongly, fully). What it\n"
        "does not mention stays at rest. Left and right are the subject's own. Words not understood are named\n"
        "on standard error. X.csv is a Live Link Face recording of one row, X.png a picture of the head.",
        'semanticface pose "left brow raised, a faint one-sided smile, eyes half closed"',
        'semanticface pose "wide smile, head turned slightly to the left" --out face.glb',
    )
    parser.add_argument("text", metavar="TEXT", help="the face in words")
    parser.add_argument(
        "--out", type=Path, metavar="X", help="write X.glb, X.csv, X.json or X.png instead of printing the actions"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.out is not None:
        if options.out.suffix.lower() not in _SUFFIXES:
            raise SemanticFaceError(f"{options.out}: end its name in {', '.join(_SUFFIXES)}.")
        if options.out.is_dir():
            raise SemanticFaceError(f"{options.out}: is a folder. Choose another name for the output.")

    from semanticface.semantics.text_pose import coefficients_from_text

    face = coefficients_from_text(options.text)
    if not face.understood and face.not_understood:
        raise SemanticFaceError(
            f"nothing understood in {options.text!r}. Name a part and what it does, such as: left brow slightly raised."
        )
    if face.not_understood:
        warn(f"not understood: {'; '.join(face.not_understood)}")
    if options.out is None:
        _print(face)
    else:
        _write(options.out, face, options.text)
    return 0


def _print(face: TextPose) -> None:
    import numpy as np

    from semanticface import arkit

    for name, value in arkit.by_name(face.coefficients).items():
        if value > 0:
            print(f"{name:<20} {value:.2f} {'█' * round(value * _BAR)}")
    for name, angle in zip(arkit.POSE_NAMES, np.degrees(face.pose).tolist(), strict=True):
        if round(angle):
            print(f"{name:<20} {angle:+.0f}°")
    if not face.coefficients.any() and not face.pose.any():
        print("a face at rest")


def _write(out: Path, face: TextPose, text: str) -> None:
    from semanticface.utils.files import atomic_path, write_json

    suffix = out.suffix.lower()
    if suffix == ".json":
        from semanticface.formats.tables import RowResult
        from semanticface.semantics.analysis import describe

        row = RowResult(
            text, coefficients=face.coefficients, analysis=describe(face.coefficients), pose=face.pose
        ).to_dict()
        write_json(out, row)
    elif suffix == ".csv":
        from semanticface.formats import live_link

        recorded = live_link.LiveLinkRow(_TIMECODE, face.coefficients.astype(float), face.pose.astype(float))
        live_link.write(out, [recorded])
    elif suffix == ".glb":
        import numpy as np

        from semanticface.formats.gltf_head import write_head
        from semanticface.formats.recording import DEFAULT_RATE, CoefficientTrack

        track = CoefficientTrack(
            np.zeros(1), face.coefficients[None], face.pose[None], DEFAULT_RATE, Fraction(0), total=1
        )
        write_head(out, track, out.stem)
    else:
        from PIL import Image

        from semanticface.rendering import render

        image = render(face.coefficients, subject=None, size=_SIZE, pose=face.pose).image
        with atomic_path(out) as temporary:
            Image.fromarray(image).save(temporary)
