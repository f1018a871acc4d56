"""Every script runs without arguments, or says in one line what to give it."""

import sys

import pytest

from tests.helpers.scripts import load_script

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
