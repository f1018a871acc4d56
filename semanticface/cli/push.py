"""What ``semanticface push`` does: its options, what it lists, what it asks."""

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
        "of a model leave this machine, safetensors for weights; each file is listed with what becomes of it and why.\n"
        "Pickles, data, checkpoints, pictures of anybody and whatever may hold a secret stay here. A model that\n"
        "learnt from people goes out only if all of them agreed to `publish` in the consent.yaml of its dataset.\n\n"
        "The repository is private unless you say --public. You are asked first. Log in with `hf auth login`, or set\n"
        "HF_TOKEN; HF_ENDPOINT names another server than huggingface.co.",
        "semanticface push outputs/my-adapter ann/my-adapter --dry-run",
        "semanticface push outputs/my-adapter ann/my-adapter",
        "semanticface push outputs/my-adapter ann/my-adapter --space outputs/my-space --public --yes",
    )
    parser.add_argument("model", metavar="MODEL", help='"nano", or the folder of a model or adapter')
    parser.add_argument("repo", metavar="OWNER/NAME", help="of the repository")
    parser.add_argument("--card", type=Path, metavar="README.md", help="its card (default: README.md in the folder)")
    parser.add_argument(
        "--space", type=Path, metavar="DIR", help="also upload this demo, which `card --space DIR` wrote, as OWNER/NAME"
    )
    parser.add_argument("--public", action="store_true", help="for everybody to see; private otherwise")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="list what would become of each file, and stop")
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
        raise ConfigError("nano lies in the package: say where its card is, such as --card nano-card/README.md.")
    parts: list[tuple[Kind, list[UploadEntry]]] = [("model", list_model(folder, options.card or folder / README))]
    if options.space is not None:
        parts.append(("space", list_space(options.space, folder)))
    state = "public" if options.public else "private"
    for kind, listed in parts:
        print(f"{kind} {options.repo}, {state}")
        _show(listed)
    refused = [each for _, listed in parts for each in listed if each.verdict == "refused"]
    if refused:
        names = ", ".join(each.name for each in refused)
        print(f"semanticface: refused: {names}. Nothing was uploaded; put right what is said above.", file=sys.stderr)
        return 2
    if options.dry_run:
        print("A dry run: nothing was uploaded. Without --dry-run the included files are, once you have said yes.")
        return 0
    if not options.yes and not _asked(options.repo, state):
        print("semanticface: nothing was uploaded", file=sys.stderr)
        return 1
    for kind, listed in parts:
        done = push(listed, options.repo, kind=kind, public=options.public)
        sent = sum(each.verdict == "included" for each in listed)
        print(f"{done.url}: {sent} files, as here; {'private' if done.private else 'public'}; commit {done.commit}")
        if done.others:
            print(f"also there, from before: {', '.join(done.others)}")
    return 0


def _show(listed: Sequence[UploadEntry]) -> None:
    wide = max((len(each.name) for each in listed), default=0)
    for each in sorted(listed, key=lambda each: _ORDER.index(each.verdict)):
        print(f"  {each.verdict:<8}  {each.name:<{wide}}  {_size(each.size):>9}  {each.why}")
    sent = [each for each in listed if each.verdict == "included"]
    print(f"  {len(sent)} of {len(listed)} files included, {_size(sum(each.size for each in sent))}")


def _asked(repo: str, state: str) -> bool:
    """Return what the person at the terminal says."""
    if not sys.stdin.isatty():
        raise ConfigError("there is nobody to ask: say --yes to upload, or --dry-run to look.")
    return input(f"Upload this to {repo}, {state}? [y/N] ").strip().lower() in ("y", "yes")


def _size(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
