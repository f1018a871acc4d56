"""``semanticface forget``: delete a person's data."""

from __future__ import annotations

import argparse
from pathlib import Path

from semanticface.cli.arguments import Subparsers, add_command
from semanticface.cli.output import warn
from semanticface.errors import SemanticFaceError


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "forget",
        "delete a person's data everywhere, and name the models trained on it",
        "Deletes SUBJECT from everything this project wrote under the PLACES, folders of any depth: datasets of faces\n"
        "and copies of them with other analyses or labels, their pages, ms-swift exports with their pictures,\n"
        "candidates, choices and pairs. Evaluation pages and predictions on such a dataset are deleted whole. It\n"
        "lists what goes and asks; this cannot be undone. Stop all other commands first; half-written files of killed\n"
        "ones are deleted too. If interrupted, run the same command again.\n\n"
        "Hidden folders are searched too; links out of the PLACES are not followed. What could not be read, or was\n"
        "passed over, is named, and the exit code is 1.\n\n"
        "Adapters trained on SUBJECT are named, with what to do: they cannot unlearn. Adapters trained by this\n"
        "version record it (people.json next to the weights, hashes of names); for older ones the training dataset is\n"
        "named. Not touched: original takes and pictures, what predict, demo or card wrote about single pictures, and\n"
        "copies elsewhere.",
        "semanticface forget ann --dry-run",
        "semanticface forget ann outputs/captures outputs/run archive/exports --yes",
    )
    parser.add_argument("subject", metavar="SUBJECT", help="as in the datasets' column subject")
    parser.add_argument(
        "places", type=Path, nargs="*", metavar="PLACE", help="folders, or files of choices (default: outputs)"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="list what would be deleted, and delete nothing")
    how.add_argument("--yes", action="store_true", help="delete without asking")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from semanticface.privacy.forget_all import OUTPUTS, find_everywhere, forget_found

    found = find_everywhere(options.subject, options.places or [OUTPUTS])
    skipped = list(found.places.skipped)
    if not options.yes:
        print(f"About {options.subject}:")
        for line in found.lines():
            print(f"  {line}")
    if options.dry_run:
        for model in found.models:
            print(model.advice(options.subject))
    elif options.yes or _confirmed():
        skipped = list(forget_found(found).skipped)
    else:
        raise SemanticFaceError("nothing was deleted. Answer y, or pass --yes.")
    for line in skipped:
        warn(line)
    return 1 if skipped else 0


def _confirmed() -> bool:
    try:
        return input("Delete all of this? It cannot be undone. [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
