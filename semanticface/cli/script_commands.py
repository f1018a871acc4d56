"""``semanticface train``, ``evaluate``, …: scripts of the repository as commands, in a wheel too.

The scripts are installed as data of the package, in ``semanticface/scripts/``; a checkout has them at its root. In
their help and messages they go by the name of the command.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import semanticface
from semanticface.cli.arguments import Subparsers
from semanticface.cli.scripts import COMMANDS

_PURPOSES = {
    "train": "fine-tune a model with LoRA on a dataset of faces",
    "evaluate": "measure a model on a dataset of faces",
    "render-faces": "render a dataset of faces with exact labels",
    "import livelink": "import Live Link takes with their videos into a dataset of faces",
    "import pictures": "import pictures, labelled by MediaPipe, into a dataset of faces",
    "import swift": "import ms-swift JSONL into a dataset of faces",
    "write-answers": "write Stage I's analyses into a dataset of faces",
    "prefer": "align a model to what people choose",
}


def add_commands(commands: Subparsers) -> None:
    """Add the names and purposes, for the list of commands; ``run`` has the options."""
    for name in dict.fromkeys(name.partition(" ")[0] for name in _PURPOSES):
        purpose = _PURPOSES.get(name, "import takes, pictures or JSONL into a dataset of faces")
        commands.add_parser(name, help=purpose, add_help=False)


def run(words: Sequence[str]) -> int | None:
    """Run a script with the arguments after its name, and return its exit code; None if no script is meant."""
    if not words or words[0] not in {name.partition(" ")[0] for name in _PURPOSES}:
        return None
    name = next((name for name in _PURPOSES if name.split() == list(words[: len(name.split())])), None)
    if name is None:
        kinds = [f"  semanticface {each:<16}  {purpose}" for each, purpose in _PURPOSES.items() if " " in each]
        print("\n".join(["usage: semanticface import KIND ...", "", *kinds]), file=sys.stderr)
        return 2
    path = script_path(next(script for script, command in COMMANDS.items() if command == name))
    spec = importlib.util.spec_from_file_location(f"semanticface_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for the names in their annotations
    before = sys.argv
    sys.argv = [f"semanticface {name}", *words[len(name.split()) :]]
    try:
        spec.loader.exec_module(module)
        return int(module.main())
    finally:
        sys.argv = before


def script_path(script: str) -> Path:
    """Return the file of a script such as ``train/distill.py``, in the installed package or the checkout."""
    package = Path(semanticface.__file__).parent
    installed = package / "scripts" / script
    return installed if installed.exists() else package.parent / script
