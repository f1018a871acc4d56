"""Figures, tables and last line of the controlled experiment, and the command on a tiny budget."""

import dataclasses
import json

import numpy as np
import pytest

from semanticface.errors import ConfigError
from semanticface.experiments.noisy_captures import TakeSettings, render_takes
from semanticface.experiments.superface import FIGURES, figures, headline, tables
from semanticface.preference.dpo import AlignSettings
from semanticface.preference.judges import SimulatedJudge
from semanticface.preference.regions import distance, mask_outside
from semanticface.preference.round import HeldOutSet, RoundSettings, picture_names
from tests.helpers.scripts import load_script


def run_of(seed: int, *reductions: float, best: int) -> dict:
    def round_of(reduction: float) -> dict[str, float]:
        return dict.fromkeys((figure.key for figure in FIGURES), 0.5) | {"reduction": reduction}

    way = {"best": best, "stopped": "", "rounds": [round_of(reduction) for reduction in (0.0, *reductions)]}
    whole = way | {"rounds": [round_of(reduction / 2) for reduction in (0.0, *reductions)]}
    return {"seed": seed, "labels": {"mae": 0.1}, "region": way, "whole": whole}


def test_the_headline_takes_the_rounds_that_the_rule_chose():
    line = headline([run_of(0, 0.2, 0.4, best=2), run_of(1, 0.3, 0.1, best=1)])
    assert line["vertex_error_reduction"] == pytest.approx(0.35)
    assert line["region_minus_whole"] == pytest.approx(0.175)
    assert (line["rounds"], line["seeds"]) == (2, 2)
    unchanged = headline([run_of(0, -0.1, best=0)])
    assert unchanged["vertex_error_reduction"] == 0


def test_undefined_figures_are_none_and_do_not_count():
    """A model that learnt nothing has no margin to compare with."""
    runs = [run_of(seed, 0.2, best=1) for seed in range(3)]
    runs[0]["region"]["rounds"][1]["blank_ratio"] = float("nan")
    runs[1]["region"]["rounds"][1]["blank_ratio"] = float("inf")
    assert headline(runs)["blank_picture_margin_ratio"] == 0.5
    line = headline(runs[:2])
    assert line["blank_picture_margin_ratio"] is None and line["vertex_error_reduction"] == 0.2
    json.dumps(line, allow_nan=False)
    every = tables(runs)[0].markdown().splitlines()
    assert next(row for row in every if row.startswith("| region, round 1")).endswith("| – |")
    # A round that was not made has no margins, which is not the same as none left.
    before = run_of(0, 0.2, best=0)
    del before["region"]["rounds"][0]["blank_ratio"]
    assert headline([before])["blank_picture_margin_ratio"] is None
    assert headline([before, run_of(1, 0.2, best=1)])["blank_picture_margin_ratio"] == 0.5


def test_tables_have_a_row_for_every_round_of_both_ways():
    every, chosen = (table.markdown() for table in tables([run_of(0, 0.2, best=1), run_of(1, 0.4, best=0)]))
    for name in ("pseudo labels", "SFT on pseudo labels", "region, round 1", "whole, round 1"):
        assert f"| {name} |" in every
    assert "30.0 ± 14.1 %" in every
    assert "| region | 1 | 0 |" in chosen


def test_figures_of_the_ground_truth_beat_the_neutral_face(tmp_path):
    settings = TakeSettings(train=1, validation=2, frames=4, style="drawn")
    exact = render_takes(tmp_path / "exact", settings)
    held_out = HeldOutSet(exact, exact, 8)
    faces = held_out.faces(exact)
    true = np.array(faces["coefficients"], np.float32)
    neutral = np.zeros_like(true)
    judge = SimulatedJudge(dict(zip(picture_names(faces), true, strict=True)), noise=0.0)
    found = figures(held_out, true, neutral, neutral, judge, seed=0)
    assert found["mae"] == found["vertex_error_whole"] == 0
    assert found["reduction"] == 1
    assert found["wins_sft"] == found["wins_labels"] > 0.5


def test_whole_faces_are_compared_too(tmp_path):
    """A face right below and wrong above ties by halves; as a whole, the lower half counts more."""
    settings = TakeSettings(train=1, validation=2, frames=4, style="drawn")
    exact = render_takes(tmp_path / "exact", settings)
    held_out = HeldOutSet(exact, exact, 8)
    faces = held_out.faces(exact)
    true = np.array(faces["coefficients"], np.float32)
    upper, lower = mask_outside(true, "upper"), mask_outside(true, "lower")
    judge = SimulatedJudge(dict(zip(picture_names(faces), true, strict=True)), noise=0.0, jnd=0.0)
    found = figures(held_out, lower, upper, upper, judge, seed=0)
    assert found["wins_labels"] == found["wins_sft"] == 0.5
    nearer = distance(lower, true, "whole") < distance(upper, true, "whole")
    assert found["wins_labels_whole"] == nearer.mean() != 0.5
    line = headline([run_of(0, 0.2, best=1)])
    assert line["win_rate_over_pseudo_labels_whole"] == 0.5
    assert "wins_labels_whole" in {figure.key for figure in FIGURES}


def test_no_seeds_are_refused(capsys, tmp_path):
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
