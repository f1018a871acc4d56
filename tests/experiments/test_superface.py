"""The controlled experiment's figures, tables and last line; and the command itself, tiny."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from semanticface.errors import ConfigError
from semanticface.experiments.noisy_captures import TakeSettings, draw_takes
from semanticface.experiments.superface import FIGURES, figures, headline, tables
from semanticface.preference.dpo import AlignSettings
from semanticface.preference.judges import SimulatedJudge
from semanticface.preference.regions import distance, mask_outside
from semanticface.preference.round import HeldOutSet, RoundSettings, picture_names
from tests.helpers.scripts import load_script


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


def test_what_is_undefined_is_none_and_counts_for_nothing():
    """A model that learnt nothing has no margin to compare with; JSON has no word for that but null."""
    runs = [told(seed, 0.2, best=1) for seed in range(3)]
    runs[0]["region"]["rounds"][1]["blank_ratio"] = float("nan")
    runs[1]["region"]["rounds"][1]["blank_ratio"] = float("inf")
    assert headline(runs)["blank_picture_margin_ratio"] == 0.5
    line = headline(runs[:2])
    assert line["blank_picture_margin_ratio"] is None and line["vertex_error_reduction"] == 0.2
    json.dumps(line, allow_nan=False)
    every = tables(runs)[0].markdown().splitlines()
    assert next(row for row in every if row.startswith("| region, round 1")).endswith("| – |")
    # A round that was not made has no margins either, which is not the same as none left.
    before = told(0, 0.2, best=0)
    del before["region"]["rounds"][0]["blank_ratio"]
    assert headline([before])["blank_picture_margin_ratio"] is None
    assert headline([before, told(1, 0.2, best=1)])["blank_picture_margin_ratio"] == 0.5


def test_tables_have_a_row_for_every_round_of_both_ways():
    every, chosen = (table.markdown() for table in tables([told(0, 0.2, best=1), told(1, 0.4, best=0)]))
    for name in ("pseudo labels", "SFT on pseudo labels", "region, round 1", "whole, round 1"):
        assert f"| {name} |" in every
    assert "30.0 ± 14.1 %" in every
    assert "| region | 1 | 0 |" in chosen


def test_figures_know_the_truth_from_what_is_worse(tmp_path):
    settings = TakeSettings(train=1, validation=2, frames=4, style="drawn")
    exact = draw_takes(tmp_path / "exact", settings)
    measured = HeldOutSet(exact, exact, 8)
    faces = measured.faces(exact)
    true = np.array(faces["coefficients"], np.float32)
    rest = np.zeros_like(true)
    judge = SimulatedJudge(dict(zip(picture_names(faces), true, strict=True)), noise=0.0)
    found = figures(measured, true, rest, rest, judge, seed=0)
    assert found["mae"] == found["vertex_error_whole"] == 0
    assert found["reduction"] == 1
    assert found["wins_sft"] == found["wins_labels"] > 0.5


def test_whole_faces_are_compared_beside_halves(tmp_path):
    """Where a face is right below and wrong above, halves draw; of the whole, the lower half moves more."""
    settings = TakeSettings(train=1, validation=2, frames=4, style="drawn")
    exact = draw_takes(tmp_path / "exact", settings)
    measured = HeldOutSet(exact, exact, 8)
    faces = measured.faces(exact)
    true = np.array(faces["coefficients"], np.float32)
    upper, lower = mask_outside(true, "upper"), mask_outside(true, "lower")
    judge = SimulatedJudge(dict(zip(picture_names(faces), true, strict=True)), noise=0.0, jnd=0.0)
    found = figures(measured, lower, upper, upper, judge, seed=0)
    assert found["wins_labels"] == found["wins_sft"] == 0.5
    nearer = distance(lower, true, "whole") < distance(upper, true, "whole")
    assert found["wins_labels_whole"] == nearer.mean() != 0.5
    line = headline([told(0, 0.2, best=1)])
    assert line["win_rate_over_pseudo_labels_whole"] == 0.5
    assert "wins_labels_whole" in {figure.key for figure in FIGURES}


def test_no_seeds_are_no_experiment(capsys, tmp_path):
    with pytest.raises(SystemExit):
        load_script("eval/superface.py").main(["--seeds", "0", "--out", str(tmp_path / "out")])
    assert "--seeds is 0: give at least 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_ends_with_its_figures_and_does_nothing_twice(tmp_path, capsys, monkeypatch):
    script = load_script("eval/superface.py")
    tiny = dataclasses.replace(
        script.QUICK,
        takes=TakeSettings(train=6, validation=2, frames=4, style="drawn"),
        samples=64,
        steps=2,
        rounds=RoundSettings(max_rounds=1, early_stopping=False, per_picture=4, eval_rows=8),
        align=AlignSettings(num_train_epochs=1, per_device_train_batch_size=8),
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
