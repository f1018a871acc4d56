"""Every command in README, docs/ and the scripts' docstrings names what exists, with options that it has."""

import argparse
import ast
import re
import shlex
from pathlib import Path

import pytest

from semanticface.cli.main import _parser
from semanticface.cli.scripts import COMMANDS
from tests.helpers.pages import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = [path for folder in ("train", "eval", "data_prep") for path in sorted((ROOT / folder).rglob("*.py"))]


def lines_of(path: Path) -> list[list[str]]:
    """Return the commands in a page's shell blocks, or in the indented lines of a script's docstring."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = "\n".join(re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL))
    else:
        text = "\n".join(re.findall(r"^ {4}(\S.*(?:\\\n.*)*)", ast.get_docstring(ast.parse(text)) or "", re.MULTILINE))
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        line = line.removeprefix("$ ").strip()
        if re.match(r"(\S+/)?(semanticface|python|accelerate) ", line):
            found.append(shlex.split(line, comments=True))
    return found


def subparsers() -> dict[str, argparse.ArgumentParser]:
    (choices,) = [action.choices for action in _parser()._actions if isinstance(action.choices, dict)]
    return choices


def options_of(script: str) -> set[str]:
    source = (ROOT / script).read_text() + (ROOT / "semanticface/cli/import_arguments.py").read_text()
    return {"--help", *re.findall(r'"(--[a-z][\w-]*)"', source)}


@pytest.mark.parametrize("path", [*PAGES, *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_name_what_exists(path):
    parsers = subparsers()
    for words in lines_of(path):
        options = [word.partition("=")[0] for word in words if re.fullmatch(r"--[a-z][\w-]*(=.*)?", word)]
        if Path(words[0]).name == "semanticface":
            if words[1].startswith("-"):
                continue
            known = set(parsers[words[1]]._option_string_actions)
            command = next(
                (name for name in COMMANDS.values() if name.split() == words[1 : 1 + len(name.split())]), None
            )
            if command is not None:
                known = options_of(next(script for script, name in COMMANDS.items() if name == command))
        else:
            script = next((word for word in words if word.endswith(".py")), None)
            if script is None or not re.match(r"(train|eval|data_prep)/|quickstart", script):
                continue
            assert (ROOT / script).is_file(), words
            options = [word for word in options if words.index(word) > words.index(script)]
            known = options_of(script)
        assert set(options) <= known, words
