"""Every script runs without arguments, or says in one line what to give it."""

import sys

import pytest

from semanticface.cli.main import main
from semanticface.cli.script_commands import script_path
from semanticface.cli.scripts import COMMANDS
from tests.helpers.scripts import ROOT, load_script

WANTING = {
    "train/pretrain.py": "--faces, --out",
    "eval/evaluate.py": "--dataset",
    "eval/rest.py": "PORTRAITS, --task",
    "eval/zero_shot.py": "a local MODEL, or a server",
    "data_prep/describe.py": "SOURCE, TARGET",
    "data_prep/export_swift.py": "DATASET, --out",
    "data_prep/import_livelink.py": "TAKE, --out",
    "data_prep/import_pictures.py": "--out",
    "data_prep/import_swift.py": "JSONL, --out",
}


@pytest.mark.parametrize("script", WANTING)
def test_what_is_missing_is_one_line_with_a_command_that_works(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script])
    with pytest.raises(SystemExit) as stopped:
        load_script(script).main()
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert WANTING[script] in line and f"For example: python {script} " in line.replace("accelerate launch", "python")


@pytest.mark.parametrize("command", COMMANDS.values())
def test_scripts_are_commands_too(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--help"])
    printed = capsys.readouterr().out
    assert stopped.value.code == 0 and printed.startswith(f"usage: semanticface {command} ")
    assert f"    semanticface {command} " in printed and not [name for name in COMMANDS if f"python {name}" in printed]


def test_a_command_that_is_a_script_says_what_it_lacks(monkeypatch, capsys):
    before = list(sys.argv)
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate"])
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and sys.argv == before
    assert "--dataset" in line and "For example: semanticface evaluate --model nano" in line
    assert main(["import"]) == 2 and "semanticface import livelink" in capsys.readouterr().err


def test_scripts_are_found_in_the_checkout():
    assert all(script_path(script) == ROOT / script for script in COMMANDS)
