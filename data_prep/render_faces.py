"""Render a dataset of faces with exact labels, as ``datasets.load_from_disk`` reads it.

    python data_prep/render_faces.py --out outputs/faces --rows 2000 --workers 2

Each row: picture, coefficients, subject, look, camera, seed, answer (Stage I and the 52 numbers), points, box, family.
Each person is in one split. The same settings give the same bytes whatever the number of workers; the same command
resumes a stopped run.

More examples:

    # tight crops at the size of the base model, as train/pretrain.py wants them
    python data_prep/render_faces.py --out outputs/crops --rows 40000 --size 128 --supersample 1 --framing crop

    # for training: two families of heads, and people who move in their own ways
    python data_prep/render_faces.py --out outputs/mixed --rows 40000 --families makehuman=1,ict=1 --vary-actions

    # 600 pictures of held-out people
    python data_prep/render_faces.py --out outputs/test --rows 600 --only test

    # the shifted test set: harsh light, blur, noise, occlusions, large head rotations
    python data_prep/render_faces.py --out outputs/hard --rows 600 --only test --styles photo=1 --conditions hard

    # one new character, in a style unseen by the base model
    python data_prep/render_faces.py --out outputs/imp --rows 600 --styles imp=1 --subject 7
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from semanticface.cli.arguments import weights
from semanticface.cli.scripts import ScriptParser
from semanticface.data.rendered import RenderSettings, render_set, rows_by_split, subjects_by_split
from semanticface.errors import SemanticFaceError
from semanticface.rendering import CONDITIONS, FAMILIES

DEFAULTS = RenderSettings()


def format_shares(values: dict[str, float]) -> str:
    return ",".join(f"{name}={value:g}" for name, value in values.items())


def arguments() -> argparse.ArgumentParser:
    parser = ScriptParser(__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/faces"),
        help="folder to write, new or started by the same command (default: %(default)s)",
    )
    parser.add_argument("--rows", type=int, default=DEFAULTS.rows, help="rows of all splits (default %(default)s)")
    parser.add_argument(
        "--styles",
        dest="looks",
        type=weights("photo=2,toon=1"),
        default=DEFAULTS.looks,
        help=f"share of each style (default {format_shares(DEFAULTS.looks)})",
    )
    parser.add_argument(
        "--families",
        type=weights("makehuman=2,ict=1"),
        default=DEFAULTS.families,
        help=f"share of people with a head of each family: {', '.join(FAMILIES)} "
        f"(default {format_shares(DEFAULTS.families)})",
    )
    parser.add_argument(
        "--vary-actions", action="store_true", help="every person carries out the actions a little differently"
    )
    parser.add_argument("--size", type=int, default=DEFAULTS.size, help="side in pixels (default %(default)s)")
    parser.add_argument(
        "--supersample", type=int, default=DEFAULTS.supersample, help="samples per pixel and axis (default %(default)s)"
    )
    parser.add_argument(
        "--framing",
        choices=("portrait", "crop"),
        default=DEFAULTS.framing,
        help="a head in the frame, or the face's box, the input of a model (default %(default)s)",
    )
    parser.add_argument(
        "--conditions",
        choices=CONDITIONS,
        default=DEFAULTS.conditions,
        help="usual, or hard for a shifted test set (default %(default)s)",
    )
    parser.add_argument(
        "--splits",
        type=weights("photo=2,toon=1"),
        default=DEFAULTS.splits,
        help=f"share of each split (default {format_shares(DEFAULTS.splits)})",
    )
    parser.add_argument("--only", metavar="SPLIT", help="write only this split, such as test, with all rows")
    people = parser.add_mutually_exclusive_group()
    people.add_argument(
        "--subjects", type=int, default=DEFAULTS.subjects, help="number of people in all splits (default %(default)s)"
    )
    people.add_argument(
        "--subject", type=int, help="render only this person; the splits then hold out pictures, not people"
    )
    parser.add_argument("--seed", type=int, default=DEFAULTS.seed, help="of the rows (default %(default)s)")
    parser.add_argument(
        "--take-share",
        type=float,
        default=DEFAULTS.take_share,
        help="share of expressions as in a recorded take; the others cover every action evenly (default %(default)s)",
    )
    parser.add_argument("--no-emotion", dest="emotion", action="store_false", help="answers without emotion")
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes; does not change the result (default: all cores)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset that is already in --out")
    return parser


def main() -> int:
    options = vars(arguments().parse_args())
    out, workers, overwrite = (options.pop(name) for name in ("out", "workers", "overwrite"))
    try:
        settings = RenderSettings(**options)
        people = subjects_by_split(settings)
        for split, rows in rows_by_split(settings).items():
            who = f"{len(people[split])} people" if settings.subject is None else f"person {settings.subject}"
            print(f"{split}: {rows} rows of {who}")
        folder = render_set(out, settings, workers=workers, overwrite=overwrite)
    except SemanticFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command resumes with the missing shards", file=sys.stderr)
        return 130
    megabytes = sum(file.stat().st_size for file in folder.rglob("*.arrow")) / 1e6
    print(f"{folder}: {settings.rows} rows, {megabytes:.0f} MB. Read it with datasets.load_from_disk({str(folder)!r}).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
