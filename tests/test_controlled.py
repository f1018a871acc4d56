"""The controlled experiment's figures, tables and last line; and the command itself, tiny."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scripts import load_script

from semanticface.errors import ConfigError
from semanticface.preference.align import AlignSettings
from semanticface.preference.controlled import FIGURES, figures, headline, tables
from semanticface.preference.judges import SimulatedJudge
from semanticface.preference.measured import Measured, picture_names
from semanticface.preference.rounds import RoundSettings
from semanticface.preference.takes import TakeSettings, draw_takes


def told(seed: int, *reductions: float, best: int) -> dict:
    def made(reduction: float) -> dict[str, float]:
        return dict.fromkeys((figure.key for figure in FIGURES), 0.5) | {"reduction": reduction}

    way = {"best": best, "stopped": "", "rounds": [made(reduction) for reduction in (0.0, *reductions)]}
    whole = way | {"rounds": [made(reduction / 2) for reduction in (0.0, *reductions)]}
    return {"seed": seed, "labels": {"mae": 0.1}, "region": way, "whole": whole}


def test_the_last_line_takes_the_rounds_that_the_rule_chose():
    line = headline([told(0, 0.2, 0.4, best=2), told(1, 0.3, 0.1, best=1)])
    assert line["vertex_error_reduction"] == pytest.approx(0.35)
    assert line["region_minus_whole"] == pytest.approx(0.175)
    assert (line["rounds"], line["seeds"]) == (2, 2)
    unmoved = headline([told(0, -0.1, best=0)])
    assert unmoved["vertex_error_reduction"] == 0


def test_tables_have_a_row_for_every_round_of_both_ways():
    every, chosen = (table.markdown() for table in tables([told(0, 0.2, best=1), told(1, 0.4, best=0)]))
    for name in ("pseudo labels", "SFT on pseudo labels", "region, round 1", "whole, round 1"):
        assert f"| {name} |" in every
    assert "30.0 ± 14.1 %" in every
    assert "| region | 1 | 0 |" in chosen


def test_figures_know_the_truth_from_what_is_worse(tmp_path):
    settings = TakeSettings(train=1, validation=2, frames=4, look="drawn")
    exact = draw_takes(tmp_path / "exact", settings)
    measured = Measured(exact, exact, 8)
    faces = measured.faces(exact)
    true = np.array(faces["coefficients"], np.float32)
    rest = np.zeros_like(true)
    judge = SimulatedJudge(dict(zip(picture_names(faces), true, strict=True)), noise=0.0)
    found = figures(measured, true, rest, rest, judge, seed=0)
    assert found["mae"] == found["vertex_error_whole"] == 0
    assert found["reduction"] == 1
    assert found["wins_sft"] == found["wins_labels"] > 0.5


@pytest.mark.slow
def test_the_command_ends_with_its_figures_and_does_nothing_twice(tmp_path, capsys, monkeypatch):
    script = load_script("eval/superface.py")
    tiny = dataclasses.replace(
        script.QUICK,
        takes=TakeSettings(train=6, validation=2, frames=4, look="drawn"),
        samples=64,
        steps=2,
        rounds=RoundSettings(most=1, heed=False, per_picture=4, eval_rows=8),
        align=AlignSettings(passes=1, batch=8),
    )
    monkeypatch.setattr(script, "QUICK", tiny)
    out = tmp_path / "out"
    assert script.main(["--quick", "--out", str(out)]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["seeds"] == line["rounds"] == 1
    assert json.loads((out / "superface.json").read_text())["headline"] == line
    made = {path: path.stat().st_mtime_ns for path in out.glob("seed-0/*/round-*/*/*.safetensors")}
    assert len(made) == 2
    assert script.main(["--quick", "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == line
    assert {path: path.stat().st_mtime_ns for path in made} == made
    with pytest.raises(ConfigError, match="other settings"):
        script.run("nano", dataclasses.replace(tiny, steps=3), 1, out)
