"""A judge that learns from choices: it finds what readings get wrong, is measured on others, and is saved whole."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from semanticface import arkit
from semanticface.errors import ConfigError, DatasetError, ModelError
from semanticface.inference.predictor import Predictor
from semanticface.preference.judge_network import ANSWERS, ImageFeatures, JudgeSettings, places
from semanticface.preference.judges import SimulatedJudge, decide
from semanticface.preference.learned_judge import LearnedJudge, learn, look
from semanticface.preference.regions import ACTIONS, distance
from semanticface.preference.types import Candidate, CandidateSet, Question
from semanticface.rendering import render
from semanticface.semantics.expression_sampler import sample_coefficients

PICTURES, QUICK = 120, JudgeSettings(learning_rate=3e-3, epochs=30)
JAW = arkit.INDEX["jawOpen"]


def world(seed=0, *, hidden=0.5):
    """People whose jaw is read as open as half of them have it: features alone tell whose."""
    rng = np.random.default_rng(seed)
    truth = np.array([sample_coefficients(rng) for _ in range(PICTURES)])
    shift = rng.choice([-1.0, 1.0], PICTURES) * hidden
    truth[:, JAW] = 0.5 + shift * 0.8
    truth[:, arkit.INDEX["mouthClose"]] = 0
    reading = truth.copy()
    reading[:, JAW] = 0.5
    features = rng.normal(0, 0.3, (PICTURES, 6)).astype(np.float32)
    features[:, 0] = 2 * shift
    other = truth.copy()
    other[:, JAW] = 1 - truth[:, JAW]
    names = [f"p{n}" for n in range(PICTURES)]
    slates = {
        name: CandidateSet(name, n, f"person {n // 2}", (_candidate("right", truth[n]), _candidate("wrong", other[n])))
        for n, name in enumerate(names)
    }
    sights = {name: ImageFeatures(features[n], reading[n].astype(np.float32)) for n, name in enumerate(names)}
    return dict(zip(names, truth, strict=True)), slates, sights


def _candidate(name, face):
    return Candidate(name, "model", face.astype(np.float32))


def asked(names, area="lower"):
    sides = [("right", "wrong"), ("wrong", "right")]
    return [Question(f"{area}-{name}-{n}", name, area, *sides[n]) for name in names for n in range(2)]


@pytest.fixture(scope="module")
def taught():
    truth, slates, sights = world()
    choices = []
    for seed in (1, 2):
        judge = SimulatedJudge(truth, noise=0.3, jnd=0.2, seed=seed)
        choices += decide(judge, asked(slates), slates, model="m", round=1, time="")
    return learn(choices, slates, sights, QUICK), choices, slates, sights


def test_it_learns_from_choices_what_the_readings_do_not_say(taught):
    judge, choices, slates, sights = taught
    figures = judge.figures
    assert figures.learned + figures.tuned + figures.tested == len(choices) and figures.left_out == 0
    assert min(figures.learned, figures.tuned, figures.tested) > 0
    # To the reading both faces are equally near; the features of people it never saw tell which.
    assert figures.winner.value > 0.8
    blind = {name: ImageFeatures(np.zeros_like(each.features), each.reading) for name, each in sights.items()}
    questions = asked(slates)
    right = ["a" if question.a == "right" else "b" for question in questions]
    for seen, low, high in ((sights, 0.8, 1.0), (blind, 0.0, 0.7)):
        answers = LearnedJudge(judge.network, seen, "again", judge.areas).choose(questions, slates)
        assert low <= np.mean([one == other for one, other in zip(answers, right, strict=True)]) <= high
    assert figures.agreement.of > 0 and figures.agreement_winner.value > 0.8
    assert 0 <= figures.ece <= 1 and figures.log_loss < np.log(3)


def test_probabilities_add_up_and_swap_with_the_sides(taught):
    judge, _, slates, _ = taught
    shares = judge.probabilities(asked(slates), slates)
    assert shares.shape == (2 * PICTURES, len(ANSWERS)) and np.allclose(shares.sum(1), 1, atol=1e-3)
    assert np.allclose(shares[0::2], shares[1::2][:, [1, 0, 2]], atol=1e-5)


def test_a_picture_it_has_not_seen_is_skipped_and_an_area_refused(taught):
    judge, _, slates, sights = taught
    few = LearnedJudge(judge.network, {"p3": sights["p3"]}, "few", judge.areas)
    answers = few.choose(asked(["p2", "p3"]), slates)
    assert answers[:2] == ["skip", "skip"] and "skip" not in answers[2:]
    with pytest.raises(DatasetError, match="few has not learned to judge upper"):
        few.choose(asked(["p3"], "upper"), slates)
    with pytest.raises(DatasetError, match="candidate other"):
        few.choose([Question("1", "p3", "lower", "other", "right")], slates)


def test_the_same_choices_teach_the_same_and_people_are_kept_apart(taught):
    judge, choices, slates, sights = taught
    again = learn(choices, slates, sights, QUICK)
    assert again.figures == judge.figures
    assert all(torch.equal(one, other) for one, other in zip(
        judge.network.state_dict().values(), again.network.state_dict().values(), strict=True
    ))  # fmt: skip
    other = learn(choices, slates, sights, dataclasses.replace(QUICK, seed=1))
    assert other.figures != judge.figures
    # Both pictures of a person, and all four choices about each, fall to one purpose.
    assert {figures % 8 for figures in (judge.figures.learned, judge.figures.tuned, judge.figures.tested)} == {0}


def test_verdicts_that_rank_nothing_are_left_out_and_counted(taught):
    _, choices, slates, sights = taught
    spoiled = [dataclasses.replace(each, verdict=("skip", "neither")[n % 2]) for n, each in enumerate(choices[:40])]
    figures = learn(spoiled + choices[40:], slates, sights, dataclasses.replace(QUICK, epochs=1)).figures
    assert figures.left_out == 40
    with pytest.raises(DatasetError, match="1 choices are too few"):
        learn(choices[:1], slates, sights, QUICK)
    with pytest.raises(DatasetError, match="0 choices are too few"):
        learn(choices, slates, {}, QUICK)
    with pytest.raises(DatasetError, match="no candidates"):
        learn(choices, {}, sights, QUICK)
    with pytest.raises(ConfigError, match="judge"):
        JudgeSettings(tuning=0)


def test_a_saved_judge_answers_as_before(taught, tmp_path, monkeypatch):
    judge, _, slates, sights = taught
    judge.save(tmp_path / "judge")
    again = LearnedJudge.load(tmp_path / "judge", sights)
    assert (again.name, again.areas, again.figures) == (judge.name, judge.areas, judge.figures)
    assert np.array_equal(again.probabilities(asked(slates), slates), judge.probabilities(asked(slates), slates))
    with monkeypatch.context() as patch:
        patch.setattr("semanticface.preference.learned_judge._tower_sha256", lambda: "another")
        with pytest.raises(ModelError, match="another nano"):
            LearnedJudge.load(tmp_path / "judge", sights)
    (tmp_path / "judge" / "judge.safetensors").write_bytes(b"{}")
    for folder in (tmp_path / "judge", tmp_path / "none"):
        with pytest.raises(ModelError, match="teach one again"):
            LearnedJudge.load(folder, sights)


def test_places_are_as_far_apart_as_vertices():
    rng = np.random.default_rng(4)
    one, other = (np.array([sample_coefficients(rng) for _ in range(20)]) for _ in range(2))
    for area in ("upper", "lower"):
        apart = np.linalg.norm(places(one, area) - places(other, area), axis=1)
        means = distance(one, other, area)
        assert np.corrcoef(apart, means)[0, 1] > 0.95
        # Root mean squares are no smaller than means.
        assert (apart > 0.95 * means).all()
        rest = [index for index in range(arkit.N_ACTIONS) if index not in ACTIONS[area]]
        changed = one.copy()
        changed[:, rest] = other[:, rest]
        assert np.array_equal(places(changed, area), places(one, area))


def test_looking_reads_pictures_and_keeps_their_names():
    faces = [arkit.vector({"jawOpen": 0.9}), arkit.vector({"eyeBlinkLeft": 1, "eyeBlinkRight": 1})]
    crops = {
        name: Image.fromarray(render(face, framing="crop", size=160, supersample=1).image)
        for name, face in zip(("open", "closed"), faces, strict=True)
    }
    seen = look(Predictor.from_pretrained("nano", mode="numbers"), crops)
    assert list(seen) == ["open", "closed"]
    assert seen["open"].features.shape == (4096,) and seen["open"].reading.shape == (52,)
    assert not np.allclose(seen["open"].features, seen["closed"].features)
    assert seen["open"].reading[JAW] > seen["closed"].reading[JAW]
    blink = arkit.INDEX["eyeBlinkLeft"]
    assert seen["closed"].reading[blink] > seen["open"].reading[blink]
