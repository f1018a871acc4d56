"""``semanticface calibrate``: fit a model's intervals to held-out faces."""

from __future__ import annotations

import argparse
from pathlib import Path

from semanticface.cli import arguments
from semanticface.cli.arguments import DEVICE_HELP, Subparsers, add_command


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "calibrate",
        "fit a model's intervals to faces it was not trained on",
        "They hold 80 % of the truths then. MODEL is nano or the folder of a model or adapter, DATASET a folder of\n"
        "faces with labels, as data_prep/render_faces.py writes it. Half of its people are fitted to; on the others\n"
        "it is measured how often the intervals hold the truth. The result goes into MODEL's semanticface.json, for\n"
        "words with numbers and for numbers alone. Uncalibrated intervals are what the model's distribution says.",
        "semanticface calibrate outputs/my-adapter outputs/faces",
        "semanticface calibrate outputs/my-adapter outputs/crops --crop box --split test --limit 300",
    )
    parser.add_argument("model", metavar="MODEL", help='"nano", or a folder')
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder of faces")
    parser.add_argument("--split", default="validation", help="part of it, unseen in training (default: %(default)s)")
    parser.add_argument(
        "--limit", type=arguments.positive, default=1000, help="pictures at most (default: %(default)s)"
    )
    parser.add_argument(
        "--crop", choices=("auto", "box"), default="auto", help="find the face, or take the dataset's box (%(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=arguments.positive, default=16, help="pictures at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=arguments.seed, default=0, help="draws pictures and halves (default: %(default)s)"
    )
    parser.add_argument("--device", help=DEVICE_HELP)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the subcommand and return its exit code."""
    from semanticface.inference.calibration import calibrate, table

    found = calibrate(
        options.model,
        options.dataset,
        split=options.split,
        limit=options.limit,
        crop=options.crop,
        batch_size=options.batch_size,
        device=options.device,
        seed=options.seed,
    )
    print(table(found, options.model))
    return 0
