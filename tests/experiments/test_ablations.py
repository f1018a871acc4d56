"""The ablations: statistics over seeds, tables, and the command, which keeps every run."""

import json
import types
from pathlib import Path

import numpy as np
import pytest

from semanticface.data.rendered import RenderSettings
from semanticface.errors import SemanticFaceError
from semanticface.evaluation import metrics
from semanticface.experiments import ablations as tables
from semanticface.experiments.ablations import RULE, Spread, figures
from semanticface.semantics.analysis import describe, describe_many
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.semantics.faithfulness import agreement
from tests.helpers.scripts import load_script
from tests.helpers.tiny_models import faces

KEYS = [*(figure.key for figure in metrics.FIGURES), RULE.key]


def runs_of(*correlations: float, own: float | None = None):
    def of(value: float) -> dict[str, float | None]:
        return dict.fromkeys(KEYS) | {"correlation": value, "mae": value / 2, "agreement_own": own}

    constants = {key: dict.fromkeys(KEYS) | {"correlation": 0.0, "mae": 0.25} for key, _ in metrics.BASELINES}
    return {seed: {"photo": {"model": of(value), **constants}} for seed, value in enumerate(correlations)}


def test_mean_and_spread():
    figure = next(each for each in metrics.FIGURES if each.key == "correlation")
    assert Spread.of([0.2, 0.4, 0.6]) == Spread(0.4, 0.2)
    assert Spread.of([0.5]) == Spread(0.5, None)
    assert Spread.of([0.5, None]) == Spread(None, None)
    assert Spread(0.4, 0.2).text(figure) == "0.400 ± 0.200"
    assert Spread(0.4).text(figure, signed=True) == "+0.400"
    assert Spread(-0.4).text(figure, signed=True) == "-0.400"
    assert Spread(0.41, 0.02).text(RULE) == "41.0 ± 2.0 %"
    assert Spread(None).text(figure) == "–"


def test_gains_are_taken_seed_by_seed():
    gained = tables.gains(runs_of(0.5, 0.7), runs_of(0.4, 0.6))["photo"]["correlation"]
    assert gained == Spread(0.1, 0.0)
    once = tables.gains(runs_of(0.5, 0.7), runs_of(0.4))["photo"]["correlation"]
    assert once == Spread(0.2, 0.14142)


def test_tables_have_every_variant_the_constants_and_the_differences():
    runs = {"coefficients": runs_of(0.4, 0.6), "semantics-first": runs_of(0.5, 0.7, own=0.9)}
    found, gained = (table.markdown() for table in tables.variant_tables(runs, "photo"))
    assert "| coefficients only | 0.500 ± 0.141 | 0.250 ± 0.071 | – |" in found
    assert "| semantics, then coefficients | 0.600 ± 0.141 | 0.300 ± 0.071 | 90.0 ± 0.0 % |" in found
    assert "| constant mean | 0.000 | 0.250 | – |" in found.replace(" ± 0.000", "")
    assert "| semantics, then coefficients | +0.100 ± 0.000 | +0.050 ± 0.000 |" in gained
    assert len(tables.variant_tables({"linear": runs_of(0.4)}, "photo")) == 1
    assert tables.variant_tables({}, "photo") == tables.personal_tables({}, {}) == []
    line = tables.headline(runs, "photo", {50: runs_of(0.5, 0.7)}, runs_of(0.4))
    assert line == {
        "coefficients_photo_corr": 0.5, "coefficients_photo_mae": 0.25, "semantics_first_photo_corr": 0.6,
        "semantics_first_photo_mae": 0.3, "semantics_first_agreement_own": 0.9, "semantics_first_agreement_true": None,
        "personal_50_corr_gain": 0.2, "personal_50_mae_gain": 0.1,
    }  # fmt: skip


def test_figures_are_those_of_metrics_and_of_the_rule_based_analysis():
    rng = np.random.default_rng(0)
    true = np.stack([sample_coefficients(rng) for _ in range(6)]).astype(np.float32)
    predicted = (0.8 * true).astype(np.float32)
    predicted[2] = np.nan
    analyses = [None if np.isnan(row).any() else describe(row) for row in predicted]
    found = figures(true, predicted, analyses, metrics.constants(true))
    scored = metrics.score(true, predicted, analyses=analyses, train_mean=true.mean(0), train_median=np.median(true, 0))
    assert found["model"]["correlation"] == scored["model"]["correlation"]
    valid = [0, 1, 3, 4, 5]
    scores = [
        agreement(analysis, true[i]).score for i, analysis in zip(valid, describe_many(predicted[valid]), strict=True)
    ]
    assert found["model"][RULE.key] == pytest.approx(np.mean(scores))
    assert found["model"]["agreement_true"] == pytest.approx(np.mean(scores))
    assert set(found) == {"model", *(key for key, _ in metrics.BASELINES)}


@pytest.fixture(scope="module")
def script():
    return load_script("eval/ablations.py")


def test_the_command_prints_figures_and_does_nothing_twice(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "TESTED", ("photo", "drawn"))
    monkeypatch.setattr(script, "VALIDATION_ROWS", 1)
    monkeypatch.setattr(
        script.regression_heads, "cross_fitted_ridge", lambda features, truth, people: truth
    )  # slow, tested apart
    monkeypatch.setattr(script.Ablations, "_distill", lambda *_: "nano")
    arguments = ["--quick", "--rows", "12", "--samples", "64", "--tests", "2", "--personal", "2", "--workers", "1"]
    arguments += ["--only", "coefficients", "linear", "personal", "--out", str(tmp_path)]
    assert script.main(arguments) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    names = {f"{key}_{style}_{figure}" for key in ("coefficients", "linear") for style in ("photo", "drawn")
             for figure in ("corr", "mae")}  # fmt: skip
    assert set(line) == names | {"personal_2_corr_gain", "personal_2_mae_gain"}
    assert line["personal_2_mae_gain"] == 0  # the same model
    results = json.loads((tmp_path / "ablations.json").read_text())
    assert results["headline"] == line
    assert results["runs"]["linear"]["0"]["photo"]["model"]["valid_share"] == 1
    assert results["variants"]["coefficients"]["drawn"]["mae"] == [line["coefficients_drawn_mae"], None]
    text = (tmp_path / "ablations.md").read_text()
    assert "| regression head, linear |" in text
    assert "new character (imp)" in text
    assert sorted(path.suffix for path in (tmp_path / "runs").iterdir()) == [".json"] * 4

    def refuse(*_, **__):
        raise AssertionError("done twice")

    for name in ("pretrain_language_model", "render_set", "predict"):
        monkeypatch.setattr(script, name, refuse)
    assert script.main(arguments) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == line
    with pytest.raises(AssertionError, match="done twice"):
        script.main([*arguments[:-4], "linear", "--samples", "96", "--out", str(tmp_path)])


def test_personalisation_works_from_any_folder(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = []

    def run(command, *, check):
        _, distill, _, config, _, *changes = command
        runs.append(dict(change.split("=", 1) for change in changes))
        assert Path(distill).is_file() and Path(config).is_file() and not check
        return types.SimpleNamespace(returncode=len(runs) - 1)

    monkeypatch.setattr(script.subprocess, "run", run)
    work = script.Ablations(script._options(["--quick", "--out", "out"]))
    adapter = work._distill(faces(tmp_path / "imp"), 3, 1, Path("out/runs/one"))
    assert adapter == Path(runs[0]["output"]) and runs[0]["train.seed"] == "1"
    assert len(script.load_faces(runs[0]["dataset"], "train")) == 3
    with pytest.raises(SemanticFaceError, match=r"train/distill\.py failed on"):
        work._distill(tmp_path / "imp", 3, 1, Path("out/runs/one"))


def test_subjects_are_in_no_other_set(script):
    assert RenderSettings().subjects < script.FIRST_SUBJECT
    assert script.FIRST_SUBJECT + script.SUBJECTS < 8_000_000  # the benchmark's first subject


def test_wrong_use_is_one_line(script, tmp_path, capsys):
    assert script.main(["--model", str(tmp_path / "missing"), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ablations: ")
    with pytest.raises(SystemExit):
        script.main(["--rows", "0"])
    assert "--rows is 0" in capsys.readouterr().err
