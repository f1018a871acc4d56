"""``semanticface push``: upload a model to the Hugging Face Hub."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semanticface.cli.arguments import Subparsers, add_command
from semanticface.errors import ConfigError

if TYPE_CHECKING:
    from semanticface.hub.upload_list import UploadEntry

_ORDER = ("refused", "included", "left out")


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "push",
        "upload a model with its card to the Hugging Face Hub",
        "MODEL is nano or the folder of a model or adapter, with the card that `semanticface card` wrote. Only parts\n"
        "of a model are uploaded, with weights as safetensors; every file is listed with its verdict and the reason.\n"
        "Pickles, data, checkpoints, pictures of people and possible secrets stay here. A model trained on people is\n"
        "uploaded only if all of them agreed to `publish` in the consent.yaml of its dataset.\n\n"
        "The repository is private unless you pass --public. You are asked to confirm. Log in with `hf auth login`,\n"
        "or set HF_TOKEN; HF_ENDPOINT selects another server than huggingface.co.",
        "semanticface push outputs/my-adapter ann/my-adapter --dry-run",
        "semanticface push outputs/my-adapter ann/my-adapter",
        "semanticface push outputs/my-adapter ann/my-adapter --space outputs/my-space --public --yes",
    )
    parser.add_argument("model", metavar="MODEL", help='"nano", or the folder of a model or adapter')
    parser.add_argument("repo", metavar="OWNER/NAME", help="the repository")
    parser.add_argument("--card", type=Path, metavar="README.md", help="its card (default: README.md in the folder)")
    parser.add_argument(
        "--space", type=Path, metavar="DIR", help="also upload the demo that `card --space DIR` wrote, as OWNER/NAME"
    )
    parser.add_argument("--public", action="store_true", help="make the repository public (default: private)")
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    parser.add_argument("--dry-run", action="store_true", help="only list the files and their verdicts")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from semanticface.hub.card_mark import README
    from semanticface.hub.push import Kind, check_id, push
    from semanticface.hub.space import list_space
    from semanticface.hub.upload_list import list_model
    from semanticface.models.files import NANO, resolve_model

    check_id(options.repo)
    if options.model != "nano" and not Path(options.model).is_dir():
        raise ConfigError(f"{options.model} is no folder: push a model that is on this machine.")
    folder, _ = resolve_model(options.model)
    if folder == NANO and options.card is None:
        raise ConfigError("nano is part of the package: name its card, such as --card nano-card/README.md.")
    parts: list[tuple[Kind, list[UploadEntry]]] = [("model", list_model(folder, options.card or folder / README))]
    if options.space is not None:
        parts.append(("space", list_space(options.space, folder)))
    state = "public" if options.public else "private"
    for kind, entries in parts:
        print(f"{kind} {options.repo}, {state}")
        _print_entries(entries)
    refused = [entry.name for _, entries in parts for entry in entries if entry.verdict == "refused"]
    if refused:
        names = ", ".join(refused)
        print(f"semanticface: refused: {names}. Nothing was uploaded; fix the problems above.", file=sys.stderr)
        return 2
    if options.dry_run:
        print("Dry run: nothing was uploaded. Without --dry-run the included files are uploaded once you confirm.")
        return 0
    if not options.yes and not _confirmed(options.repo, state):
        print("semanticface: nothing was uploaded", file=sys.stderr)
        return 1
    for kind, entries in parts:
        result = push(entries, options.repo, kind=kind, public=options.public)
        sent = sum(entry.verdict == "included" for entry in entries)
        visibility = "private" if result.private else "public"
        print(f"{result.url}: {sent} files, verified; {visibility}; commit {result.commit}")
        if result.others:
            print(f"also there, from before: {', '.join(result.others)}")
    return 0


def _print_entries(entries: Sequence[UploadEntry]) -> None:
    wide = max((len(entry.name) for entry in entries), default=0)
    for entry in sorted(entries, key=lambda entry: _ORDER.index(entry.verdict)):
        print(f"  {entry.verdict:<8}  {entry.name:<{wide}}  {_size(entry.size):>9}  {entry.why}")
    sent = [entry for entry in entries if entry.verdict == "included"]
    print(f"  {len(sent)} of {len(entries)} files included, {_size(sum(entry.size for entry in sent))}")


def _confirmed(repo: str, state: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("no terminal to confirm on: pass --yes to upload, or --dry-run to look.")
    return input(f"Upload this to {repo}, {state}? [y/N] ").strip().lower() in ("y", "yes")


def _size(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
