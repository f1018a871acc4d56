"""train/prefer.py: a small quickstart, runs before and after people chose, and errors."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from semanticface.config import read_settings
from semanticface.data.faces import coefficients_of, load_faces
from semanticface.errors import DatasetError
from semanticface.experiments.noisy_captures import CaptureErrors, TakeSettings, record_takes, render_takes
from semanticface.preference.annotator_agreement import agreement, format_proportion
from semanticface.preference.files import read_candidates, write_choices
from semanticface.preference.judges import judge_choices
from semanticface.preference.learned_judge import LearnedJudge, learned_judges, simulated_judges, train_judge, truth_of
from semanticface.preference.questions import make_questions
from semanticface.preference.round import HeldOutSet
from semanticface.preference.rounds import Judges
from semanticface.preference.store import Store
from semanticface.recipe import read_recipe
from tests.helpers.scripts import ROOT, load_script
from tests.helpers.tiny_adapter import tiny_adapter

CONFIGS = "train/configs/prefer_quickstart.yaml", "train/configs/prefer.yaml"
SMALL = [
    "rounds.max_rounds=1", "rounds.eval_rows=2", "align.num_train_epochs=1", "align.precision=model",
    "candidates.tries=1",
]  # fmt: skip
TAKES = TakeSettings(train=5, validation=1, frames=2, every=4, style="drawn")

prefer = load_script("train/prefer.py")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prefer")
    record_takes(folder, TAKES, CaptureErrors.sample(0))
    return tiny_adapter(folder), folder / "captured", folder / "exact"


@pytest.fixture
def changes(places, tmp_path):
    model, captured, exact = places
    return [f"model={model}", f"dataset={captured}", f"truth={exact}", f"output={tmp_path / 'out'}", *SMALL]


@pytest.mark.parametrize("config", CONFIGS)
def test_configs_say_how_to_run_them(config):
    assert f"python train/prefer.py --config {config}" in (ROOT / config).read_text(encoding="utf-8")
    read_settings(ROOT / config, prefer.Settings)


def test_a_small_quickstart(changes, places, tmp_path, capsys):
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
    assert settings["align"]["num_train_epochs"] == 1
    # Candidates include the capture labels but never the ground truth.
    exact = coefficients_of(load_faces(places[2], "train"))
    written = coefficients_of(load_faces(places[1], "train"))
    candidates = read_candidates(tmp_path / "out" / "round-1" / "candidates.jsonl")
    sources = {"model": 0, "capture": 0}
    for candidate_set in candidates.candidate_sets:
        for each in candidate_set.candidates:
            sources[each.source] += 1
            assert not np.allclose(each.coefficients, exact[candidate_set.row])
            assert (each.source == "capture") == np.allclose(each.coefficients, written[candidate_set.row])
    assert all(sources.values())


def test_the_truth_must_be_about_the_same_pictures(places, tmp_path):
    """Ground truth of other people would teach the opposite of what judges see."""
    assert truth_of(places[1], places[2]).keys() == truth_of(places[1], places[1]).keys()
    others = render_takes(
        tmp_path / "others", TakeSettings(train=5, validation=1, frames=2, every=4, style="drawn", seed=1)
    )
    with pytest.raises(DatasetError, match="does not hold the pictures of"):
        simulated_judges(places[1], others)


def test_people_choose_between_two_runs(changes, places, tmp_path, capsys, monkeypatch):
    settings = read_settings(
        ROOT / CONFIGS[1], prefer.Settings, [*changes, "align.analysis=false", "align.per_device_train_batch_size=8"]
    )
    assert prefer.prefer(settings) is None
    printed = capsys.readouterr().out
    made = tmp_path / "out" / "round-1" / "candidates.jsonl"
    assert f"semanticface annotate {made} --dataset {places[1]} --regions upper,lower --per-picture 6 " in printed
    candidate_sets = read_candidates(made).candidate_sets
    model = read_candidates(made).header.model
    judges = simulated_judges(places[1], places[1])
    by_picture = {each.picture: each for each in candidate_sets}
    questions = make_questions(candidate_sets, ("upper", "lower"), per_picture=6, seed=0)
    choices = judge_choices(judges.labeler, questions, by_picture, model=model, round=1, time="2026-01-02T03:04:05Z")
    path = tmp_path / "choices.jsonl"
    write_choices(path, choices)
    path.write_text(path.read_text() + "{\n")
    # Ten pictures of one person are too few to train a judge; see the test below for that.
    monkeypatch.setattr(prefer, "learned_judges", lambda *args, **named: Judges(judges.auditor, judges.auditor))
    assert prefer.prefer(settings, path).made == 1
    assert f"line {len(choices) + 1}" in capsys.readouterr().out
    # Choices are not needed again.
    assert prefer.prefer(settings).made == 1
    assert "against the labels of the capture software" not in capsys.readouterr().out
    # Without a ground truth, errors are held_out against the labels that people correct.
    without_truth = replace(settings, truth=None, output=str(tmp_path / "without_truth"))
    assert prefer.prefer(without_truth) is None
    assert prefer.prefer(without_truth, path).made == 1
    assert "against the labels of the capture software" in capsys.readouterr().out


@pytest.fixture
def sampled(places, tmp_path):
    """Candidates to choose from, and a function that chooses."""
    settings = [*SMALL, f"model={places[0]}", f"dataset={places[1]}", f"output={tmp_path / 'out'}"]
    settings = read_settings(ROOT / CONFIGS[1], prefer.Settings, settings)
    prefer.prefer(settings)
    candidate_sets = read_candidates(tmp_path / "out" / "round-1" / "candidates.jsonl").candidate_sets

    def choose(regions, seed):
        judge = simulated_judges(places[1], places[2], seed=seed).labeler
        questions = make_questions(candidate_sets, regions, per_picture=6, seed=0)
        by_picture = {each.picture: each for each in candidate_sets}
        return judge_choices(judge, questions, by_picture, model="m", round=1)

    return candidate_sets, choose


def test_two_judges_learn_from_people(places, sampled, tmp_path, monkeypatch):
    candidate_sets, choose = sampled
    trained = []

    def train_briefly(choices, candidate_sets, pictures, settings, *, name):
        trained.append(({choice.annotator for choice in choices}, settings.seed, set(pictures)))
        return train_judge(choices, candidate_sets, pictures, replace(settings, epochs=1), name=name)

    monkeypatch.setattr("semanticface.preference.learned_judge.train_judge", train_briefly)
    held_out = HeldOutSet(places[1], places[1], 2)
    messages = []
    one, log = choose(("upper", "lower"), 3), messages.append
    made = learned_judges(one, candidate_sets, places[0], held_out, tmp_path / "one", seed=4, log=log)
    assert (made.labeler.name, made.auditor.name) == ("learned-1", "learned-2")
    assert [(who, seed) for who, seed, _ in trained] == [({"simulated-3"}, 4), ({"simulated-3"}, 5)]
    assert all({each.picture for each in candidate_sets} < seen for _, _, seen in trained)
    assert "two people agree in -;" in messages[0]

    # With two annotators each trains one judge; their agreement is logged with the judge's accuracy.
    both = one + choose(("upper", "lower"), 4)
    made = learned_judges(both, candidate_sets, places[0], held_out, tmp_path / "two", log=log)
    assert [who for who, _, _ in trained[2:]] == [{"simulated-3"}, {"simulated-4"}]
    for judge, line in zip((made.labeler, made.auditor), messages[2:], strict=True):
        metrics = LearnedJudge.load(tmp_path / "two" / judge.name, {}).metrics
        assert metrics == judge.metrics
        assert (metrics.agreement, metrics.agreement_winner) == agreement(both)
        assert metrics.agreement_winner.of > 0
        assert f"right winner in {format_proportion(metrics.winner)} of those held out" in line
        assert f"two people agree in {format_proportion(metrics.agreement_winner)};" in line


def test_judges_must_learn_all_regions_they_will_judge(places, sampled, tmp_path):
    """Otherwise a round trains for hours before its judges turn out to be unable to judge."""
    candidate_sets, choose = sampled
    held_out = HeldOutSet(places[1], places[1], 2)
    with pytest.raises(DatasetError, match=r"simulated-0 made no choices in the region upper.*--regions upper,lower"):
        learned_judges(choose(("lower",), 0), candidate_sets, places[0], held_out, tmp_path)
    with pytest.raises(DatasetError, match="--regions upper,lower,whole"):
        regions = "upper", "lower", "whole"
        learned_judges(choose(("upper", "lower"), 0), candidate_sets, places[0], held_out, tmp_path, regions=regions)


def test_people_annotate_all_regions_that_judges_need(changes, capsys):
    settings = read_settings(ROOT / CONFIGS[1], prefer.Settings, [*changes, "rounds.pairs=whole"])
    prefer.prefer(settings)
    assert "--regions upper,lower,whole --per-picture 6" in capsys.readouterr().out


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
    message = fails(monkeypatch, capsys, *asked)
    assert "choices.sqlite holds no choices" in message and "Give what semanticface choices --export wrote." in message
    assert "is not an adapter: train one with `semanticface train`" in fails(monkeypatch, capsys, *config, "model=nano")
    assert "judge must be one of simulated, people" in fails(monkeypatch, capsys, *config, "judge=me")
    missing = fails(monkeypatch, capsys, *config, f"dataset={tmp_path / 'none'}")
    assert "no such folder" in missing
