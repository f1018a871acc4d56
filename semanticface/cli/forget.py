"""``semanticface forget``: delete a person's data."""

from __future__ import annotations

import argparse
from pathlib import Path

from semanticface.cli.arguments import Subparsers, add_command


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "forget",
        "delete a person's data everywhere, and name the models trained on it",
        "Deletes SUBJECT from everything this project wrote under the PLACES, folders of any depth: datasets of faces\n"
        "and copies of them with other analyses or labels, their pages, ms-swift exports with their pictures,\n"
        "candidates, choices and pairs. Evaluation pages and predictions on such a dataset are deleted whole. This\n"
        "cannot be undone. Stop all other commands first; half-written files of killed ones are deleted too. If\n"
        "interrupted, run the same command again.\n\n"
        "Adapters trained on SUBJECT are named, with what to do: they cannot unlearn. Adapters trained by this\n"
        "version record it (people.json next to the weights, hashes of names); for older ones the training dataset is\n"
        "named. Not touched: original takes and pictures, what predict, demo or card wrote about single pictures, and\n"
        "copies elsewhere.",
        "semanticface forget ann",
        "semanticface forget ann outputs/captures outputs/run archive/exports",
    )
    parser.add_argument("subject", metavar="SUBJECT", help="as in the datasets' column subject")
    parser.add_argument(
        "places", type=Path, nargs="*", metavar="PLACE", help="folders, or files of choices (default: outputs)"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from semanticface.privacy.forget_all import OUTPUTS, forget_everywhere

    forget_everywhere(options.subject, options.places or [OUTPUTS])
    return 0
