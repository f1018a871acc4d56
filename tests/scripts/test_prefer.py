"""The script: the quickstart's config in small, people before and after they chose, and what can be got wrong."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from semanticface.config import read_settings
from semanticface.data.faces import coefficients_of, load_faces
from semanticface.errors import DatasetError
from semanticface.experiments.noisy_captures import CaptureErrors, TakeSettings, draw_takes, record_takes
from semanticface.preference.annotator_agreement import agreement, counted
from semanticface.preference.files import read_candidates, write_choices
from semanticface.preference.judges import decide
from semanticface.preference.learned_judge import LearnedJudge, learn, learned_judges, simulated_judges, truth_of
from semanticface.preference.questions import ask
from semanticface.preference.round import HeldOutSet
from semanticface.preference.rounds import Judges
from semanticface.preference.store import Store
from semanticface.recipe import read_recipe
from tests.helpers.scripts import ROOT, load_script
from tests.helpers.tiny_adapter import tiny_adapter

CONFIGS = "train/configs/prefer_quickstart.yaml", "train/configs/prefer.yaml"
SMALL = [
    "rounds.max_rounds=1",
    "rounds.eval_rows=2",
    "align.num_train_epochs=1",
    "align.precision=model",
    "candidates.tries=1",
]
TAKES = TakeSettings(train=5, validation=1, frames=2, every=4, style="drawn")

prefer = load_script("train/prefer.py")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prefer")
    record_takes(folder, TAKES, CaptureErrors.draw(0))
    return tiny_adapter(folder), folder / "captured", folder / "exact"


@pytest.fixture
def changes(places, tmp_path):
    model, captured, exact = places
    return [f"model={model}", f"dataset={captured}", f"truth={exact}", f"output={tmp_path / 'out'}", *SMALL]


@pytest.mark.parametrize("config", CONFIGS)
def test_configs_say_how_to_run_them(config):
    assert f"python train/prefer.py --config {config}" in (ROOT / config).read_text(encoding="utf-8")
    read_settings(ROOT / config, prefer.Settings)


def test_the_quickstart_in_small(changes, places, tmp_path, capsys):
    result = prefer.prefer(read_settings(ROOT / CONFIGS[0], prefer.Settings, changes))
    assert result.made == 1
    printed = capsys.readouterr().out
    assert "round 0   vertex error upper" in printed
    assert f"best      round {result.best} of 1" in printed
    margins = result.metrics[1]["margins"]
    assert margins["pairs"] > 0
    assert margins["after"] != margins["before"]
    assert read_recipe(tmp_path / "out" / "adapter")["kind"] == "adapter"
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["align"]["passes"] == 1
    # Nobody was shown the truth, but what the software wrote.
    exact = coefficients_of(load_faces(places[2], "train"))
    written = coefficients_of(load_faces(places[1], "train"))
    candidates = read_candidates(tmp_path / "out" / "round-1" / "candidates.jsonl")
    sources = {"model": 0, "capture": 0}
    for slate in candidates.slates:
        for each in slate.candidates:
            sources[each.source] += 1
            assert not np.allclose(each.coefficients, exact[slate.row])
            assert (each.source == "capture") == np.allclose(each.coefficients, written[slate.row])
    assert all(sources.values())


def test_the_truth_must_be_about_the_same_pictures(places, tmp_path):
    """As many rows of other people would teach the opposite of what anybody sees."""
    assert truth_of(places[1], places[2]).keys() == truth_of(places[1], places[1]).keys()
    others = draw_takes(
        tmp_path / "others", TakeSettings(train=5, validation=1, frames=2, every=4, style="drawn", seed=1)
    )
    with pytest.raises(DatasetError, match="does not hold the pictures of"):
        simulated_judges(places[1], others)


def test_people_choose_between_two_runs(changes, places, tmp_path, capsys, monkeypatch):
    settings = read_settings(
        ROOT / CONFIGS[1], prefer.Settings, [*changes, "align.words=false", "align.per_device_train_batch_size=8"]
    )
    assert prefer.prefer(settings) is None
    printed = capsys.readouterr().out
    made = tmp_path / "out" / "round-1" / "candidates.jsonl"
    assert f"semanticface annotate {made} --dataset {places[1]} --areas upper,lower --per-picture 6 " in printed
    slates = read_candidates(made).slates
    model = read_candidates(made).header.model
    judges = simulated_judges(places[1], places[1])
    by_picture = {slate.picture: slate for slate in slates}
    questions = ask(slates, ("upper", "lower"), per_picture=6, seed=0)
    choices = decide(judges.labels, questions, by_picture, model=model, round=1, time="2026-01-02T03:04:05Z")
    path = tmp_path / "choices.jsonl"
    write_choices(path, choices)
    path.write_text(path.read_text() + "{\n")
    # Ten pictures of one person teach nobody; that judges learn, the test below sees.
    monkeypatch.setattr(prefer, "learned_judges", lambda *args, **named: Judges(judges.audits, judges.audits))
    assert prefer.prefer(settings, path).made == 1
    assert f"line {len(choices) + 1}" in capsys.readouterr().out
    # Not asked for again.
    assert prefer.prefer(settings).made == 1
    assert "against what the capture software wrote" not in capsys.readouterr().out
    # Without a truth, errors are measured by the very labels that people correct.
    untold = replace(settings, truth=None, output=str(tmp_path / "untold"))
    assert prefer.prefer(untold) is None
    assert prefer.prefer(untold, path).made == 1
    assert "against what the capture software wrote" in capsys.readouterr().out


@pytest.fixture
def sampled(places, tmp_path):
    """Candidates for people to choose from, and somebody who can answer for them."""
    settings = [*SMALL, f"model={places[0]}", f"dataset={places[1]}", f"output={tmp_path / 'out'}"]
    settings = read_settings(ROOT / CONFIGS[1], prefer.Settings, settings)
    prefer.prefer(settings)
    slates = read_candidates(tmp_path / "out" / "round-1" / "candidates.jsonl").slates

    def choose(areas, seed):
        judge = simulated_judges(places[1], places[2], seed=seed).labels
        questions = ask(slates, areas, per_picture=6, seed=0)
        return decide(judge, questions, {slate.picture: slate for slate in slates}, model="m", round=1)

    return slates, choose


def test_two_judges_learn_from_people(places, sampled, tmp_path, monkeypatch):
    slates, choose = sampled
    taught = []

    def teach(choices, slates, sights, settings, *, name):
        taught.append(({choice.annotator for choice in choices}, settings.seed, set(sights)))
        return learn(choices, slates, sights, replace(settings, epochs=1), name=name)

    monkeypatch.setattr("semanticface.preference.learned_judge.learn", teach)
    measured = HeldOutSet(places[1], places[1], 2)
    told = []
    made = learned_judges(
        choose(("upper", "lower"), 3), slates, places[0], measured, tmp_path / "one", seed=4, say=told.append
    )
    assert (made.labels.name, made.audits.name) == ("learned-1", "learned-2")
    assert [(who, seed) for who, seed, _ in taught] == [({"simulated-3"}, 4), ({"simulated-3"}, 5)]
    assert all({slate.picture for slate in slates} < seen for _, _, seen in taught)
    assert "two people agree in -;" in told[0]

    # Of two people each teaches one; how far they agree is told beside how often a judge is right.
    both = choose(("upper", "lower"), 3) + choose(("upper", "lower"), 4)
    made = learned_judges(both, slates, places[0], measured, tmp_path / "two", say=told.append)
    assert [who for who, _, _ in taught[2:]] == [{"simulated-3"}, {"simulated-4"}]
    for judge, line in zip((made.labels, made.audits), told[2:], strict=True):
        figures = LearnedJudge.load(tmp_path / "two" / judge.name, {}).figures
        assert figures == judge.figures
        assert (figures.agreement, figures.agreement_winner) == agreement(both)
        assert figures.agreement_winner.of > 0
        assert f"right winner in {counted(figures.winner)} of those held out" in line
        assert f"two people agree in {counted(figures.agreement_winner)};" in line


def test_judges_must_have_learned_all_that_they_will_be_asked(places, sampled, tmp_path):
    """Or a round is trained for hours before its judges turn out to have nothing to say."""
    slates, choose = sampled
    measured = HeldOutSet(places[1], places[1], 2)
    with pytest.raises(DatasetError, match=r"simulated-0 chose nothing in the area upper.*--areas upper,lower"):
        learned_judges(choose(("lower",), 0), slates, places[0], measured, tmp_path)
    with pytest.raises(DatasetError, match="--areas upper,lower,whole"):
        areas = "upper", "lower", "whole"
        learned_judges(choose(("upper", "lower"), 0), slates, places[0], measured, tmp_path, areas=areas)


def test_people_are_asked_about_all_that_judges_will_be(changes, capsys):
    settings = read_settings(ROOT / CONFIGS[1], prefer.Settings, [*changes, "rounds.pairs=whole"])
    prefer.prefer(settings)
    assert "--areas upper,lower,whole --per-picture 6" in capsys.readouterr().out


def fails(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["prefer.py", *map(str, arguments)])
    assert prefer.main() == 1
    return capsys.readouterr().err


def test_errors_name_the_fix(monkeypatch, capsys, changes, tmp_path):
    config = ["--config", ROOT / CONFIGS[0], "--set", *changes]
    assert "unknown key align.bet; did you mean align.beta?" in fails(monkeypatch, capsys, *config, "align.bet=1")
    assert "--choices is for the setting judge: people" in fails(monkeypatch, capsys, "--choices", "x.jsonl", *config)
    database = tmp_path / "choices.sqlite"
    Store(database).close()
    asked = ["--config", ROOT / CONFIGS[1], "--choices", database, "--set", *changes]
    told = fails(monkeypatch, capsys, *asked)
    assert "choices.sqlite holds no choices" in told and "Give what semanticface choices --export wrote." in told
    assert "is no adapter: make one with train/distill.py" in fails(monkeypatch, capsys, *config, "model=nano")
    assert "judge must be one of simulated, people" in fails(monkeypatch, capsys, *config, "judge=me")
    missing = fails(monkeypatch, capsys, *config, f"dataset={tmp_path / 'none'}")
    assert "no such folder" in missing
