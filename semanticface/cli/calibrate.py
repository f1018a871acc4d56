"""``semanticface calibrate``: fit a model's intervals to held-out faces."""

from __future__ import annotations

import argparse
from pathlib import Path

from semanticface.cli import arguments
from semanticface.cli.arguments import Subparsers, add_command


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "calibrate",
        "fit a model's intervals to faces it was not trained on",
        "MODEL is nano or the folder of a model or adapter, DATASET a folder of labelled faces such as\n"
        "semanticface render-faces writes. The intervals are fitted on half of its people so that they contain 80 %\n"
        "of the true values; coverage is measured on the other half. The result is stored in MODEL's\n"
        "semanticface.json, for both modes (full and numbers). Uncalibrated intervals are the model's own.",
        "semanticface calibrate outputs/my-adapter outputs/faces",
        "semanticface calibrate outputs/my-adapter outputs/crops --crop box --split test --limit 300",
    )
    parser.add_argument("model", metavar="MODEL", help='"nano" or a folder')
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder of faces")
    parser.add_argument("--split", default="validation", help="a split not used in training (default: %(default)s)")
    parser.add_argument("--limit", type=arguments.positive, default=1000, help="maximum pictures (%(default)s)")
    parser.add_argument(
        "--crop",
        choices=("auto", "box"),
        default="auto",
        help="detect the face or use the dataset's box (%(default)s)",
    )
    arguments.add_batch_size(parser)
    arguments.add_seed(parser, "selects the pictures and the halves")
    arguments.add_device(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from semanticface.inference.calibration import calibrate, table

    result = calibrate(
        options.model,
        options.dataset,
        split=options.split,
        limit=options.limit,
        crop=options.crop,
        batch_size=options.batch_size,
        device=options.device,
        seed=options.seed,
    )
    print(table(result, options.model))
    return 0
