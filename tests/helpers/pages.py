"""What the pages of docs/ tell their readers to type, for tests that do so. Not a test file."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from semanticface.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of a page of docs/ that are in a language, such as ``sh``."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """Return the commands of a page, as words."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command of a page in this process, in the current folder; return its exit code.

    ``semanticface …``, ``python SCRIPT …`` and ``accelerate launch … SCRIPT …`` are known; accelerate's own options are
    only read.
    """
    if words[0] == "semanticface":
        return main(words[1:])
    if words[:2] == ["accelerate", "launch"]:
        from accelerate.commands.launch import launch_command_parser

        launched = launch_command_parser().parse_args(words[2:])
        words = ["python", launched.training_script, *launched.training_script_args]
    assert words[0] == "python", words
    monkeypatch.setattr(sys, "argv", words[1:])
    monkeypatch.setattr(sys, "path", list(sys.path))
    try:
        runpy.run_path(str(ROOT / words[1]), run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    return 0
