"""What ``semanticface forget`` does: its options, what it tells."""

from __future__ import annotations

import argparse
from pathlib import Path

from semanticface.cli.arguments import Subparsers, add_command


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "forget",
        "delete a person everywhere, and name the models that learnt from them",
        "Deletes SUBJECT from everything made here that lies in the PLACES, folders of any depth: datasets of faces\n"
        "and copies of them with other words or labels, their pages, exports for ms-swift with their pictures,\n"
        "candidates, choices and pairs, and pages and predictions of evaluations on such a dataset as a whole. It\n"
        "cannot be undone. Stop all other commands first; what killed ones left half-written goes too. Broken off,\n"
        "the same command goes on.\n\n"
        "Adapters that learnt from SUBJECT are named, with what to do: they cannot unlearn. Those trained by this\n"
        "version know for sure (people.json beside the weights, hashes of names); of older ones it is told which\n"
        "dataset they learnt from. Not touched: takes and pictures as you were given them, what predict, demo or\n"
        "card made of single pictures, and copies elsewhere.",
        "semanticface forget ann",
        "semanticface forget ann outputs/captures outputs/run archive/exports",
    )
    parser.add_argument("subject", metavar="SUBJECT", help="as in the datasets' column subject")
    parser.add_argument(
        "places", type=Path, nargs="*", metavar="PLACE", help="folders, or files of what was chosen (default: outputs)"
    )
    parser.set_defaults(run=_forget)


def _forget(options: argparse.Namespace) -> int:
    from semanticface.privacy.forget_all import OUTPUTS, forget_everywhere

    forget_everywhere(options.subject, options.places or [OUTPUTS])
    return 0
