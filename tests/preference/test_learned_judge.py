"""A learned judge: it learns what readings get wrong, is measured on other people, and survives saving."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from semanticface import arkit
from semanticface.errors import ConfigError, DatasetError, ModelError
from semanticface.inference.predictor import Predictor
from semanticface.preference.judge_network import ANSWERS, ImageFeatures, JudgeSettings, project_vertices
from semanticface.preference.judges import SimulatedJudge, judge_choices
from semanticface.preference.learned_judge import LearnedJudge, image_features, train_judge
from semanticface.preference.regions import ACTIONS, distance
from semanticface.preference.types import Candidate, CandidateSet, Question
from semanticface.rendering import render
from semanticface.semantics.expression_sampler import sample_coefficients

PICTURES, QUICK = 120, JudgeSettings(learning_rate=3e-3, epochs=30)
JAW = arkit.INDEX["jawOpen"]


def world(seed=0, *, hidden=0.5):
    """People whose jaw is always read as half open: only the features tell whose is open."""
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
    candidate_sets = {}
    for n, name in enumerate(names):
        candidates = (_candidate("right", truth[n]), _candidate("wrong", other[n]))
        candidate_sets[name] = CandidateSet(name, n, f"person {n // 2}", candidates)
    pictures = {name: ImageFeatures(features[n], reading[n].astype(np.float32)) for n, name in enumerate(names)}
    return dict(zip(names, truth, strict=True)), candidate_sets, pictures


def _candidate(name, face):
    return Candidate(name, "model", face.astype(np.float32))


def asked(names, region="lower"):
    sides = [("right", "wrong"), ("wrong", "right")]
    return [Question(f"{region}-{name}-{n}", name, region, *sides[n]) for name in names for n in range(2)]


@pytest.fixture(scope="module")
def trained():
    truth, candidate_sets, pictures = world()
    choices = []
    for seed in (1, 2):
        judge = SimulatedJudge(truth, noise=0.3, jnd=0.2, seed=seed)
        choices += judge_choices(judge, asked(candidate_sets), candidate_sets, model="m", round=1, time="")
    return train_judge(choices, candidate_sets, pictures, QUICK), choices, candidate_sets, pictures


def test_it_learns_from_choices_what_readings_get_wrong(trained):
    judge, choices, candidate_sets, pictures = trained
    metrics = judge.metrics
    assert metrics.learned + metrics.tuned + metrics.tested == len(choices) and metrics.left_out == 0
    assert min(metrics.learned, metrics.tuned, metrics.tested) > 0
    # Both faces are equally near to the reading; only the features of the new people tell which is right.
    assert metrics.winner.value > 0.8
    blind = {name: ImageFeatures(np.zeros_like(each.features), each.reading) for name, each in pictures.items()}
    questions = asked(candidate_sets)
    right = ["a" if question.a == "right" else "b" for question in questions]
    for features_of, low, high in ((pictures, 0.8, 1.0), (blind, 0.0, 0.7)):
        answers = LearnedJudge(judge.network, features_of, "again", judge.regions).choose(questions, candidate_sets)
        assert low <= np.mean([one == other for one, other in zip(answers, right, strict=True)]) <= high
    assert metrics.agreement.of > 0 and metrics.agreement_winner.value > 0.8
    assert 0 <= metrics.ece <= 1 and metrics.log_loss < np.log(3)


def test_probabilities_add_up_and_swap_with_the_sides(trained):
    judge, _, candidate_sets, _ = trained
    probs = judge.probabilities(asked(candidate_sets), candidate_sets)
    assert probs.shape == (2 * PICTURES, len(ANSWERS)) and np.allclose(probs.sum(1), 1, atol=1e-3)
    assert np.allclose(probs[0::2], probs[1::2][:, [1, 0, 2]], atol=1e-5)


def test_unknown_pictures_are_skipped_and_unknown_regions_refused(trained):
    judge, _, candidate_sets, pictures = trained
    few = LearnedJudge(judge.network, {"p3": pictures["p3"]}, "few", judge.regions)
    answers = few.choose(asked(["p2", "p3"]), candidate_sets)
    assert answers[:2] == ["skip", "skip"] and "skip" not in answers[2:]
    with pytest.raises(DatasetError, match="few has not learned to judge upper"):
        few.choose(asked(["p3"], "upper"), candidate_sets)
    with pytest.raises(DatasetError, match="candidate other"):
        few.choose([Question("1", "p3", "lower", "other", "right")], candidate_sets)


def test_training_is_deterministic_and_people_are_not_split(trained):
    judge, choices, candidate_sets, pictures = trained
    again = train_judge(choices, candidate_sets, pictures, QUICK)
    assert again.metrics == judge.metrics
    assert all(torch.equal(one, other) for one, other in zip(
        judge.network.state_dict().values(), again.network.state_dict().values(), strict=True
    ))  # fmt: skip
    other = train_judge(choices, candidate_sets, pictures, dataclasses.replace(QUICK, seed=1))
    assert other.metrics != judge.metrics
    # Both pictures of a person, with four choices each, are in one part.
    assert {metrics % 8 for metrics in (judge.metrics.learned, judge.metrics.tuned, judge.metrics.tested)} == {0}


def test_verdicts_that_rank_nothing_are_left_out_and_counted(trained):
    _, choices, candidate_sets, pictures = trained
    spoiled = [dataclasses.replace(each, verdict=("skip", "neither")[n % 2]) for n, each in enumerate(choices[:40])]
    settings = dataclasses.replace(QUICK, epochs=1)
    metrics = train_judge(spoiled + choices[40:], candidate_sets, pictures, settings).metrics
    assert metrics.left_out == 40
    with pytest.raises(DatasetError, match="1 choices are too few"):
        train_judge(choices[:1], candidate_sets, pictures, QUICK)
    with pytest.raises(DatasetError, match="0 choices are too few"):
        train_judge(choices, candidate_sets, {}, QUICK)
    with pytest.raises(DatasetError, match="no candidates"):
        train_judge(choices, {}, pictures, QUICK)
    with pytest.raises(ConfigError, match="judge"):
        JudgeSettings(tuning=0)


def test_a_saved_judge_answers_as_before(trained, tmp_path, monkeypatch):
    judge, _, candidate_sets, pictures = trained
    judge.save(tmp_path / "judge")
    again = LearnedJudge.load(tmp_path / "judge", pictures)
    assert (again.name, again.regions, again.metrics) == (judge.name, judge.regions, judge.metrics)
    one, other = (each.probabilities(asked(candidate_sets), candidate_sets) for each in (again, judge))
    assert np.array_equal(one, other)
    with monkeypatch.context() as patch:
        patch.setattr("semanticface.preference.learned_judge._encoder_sha256", lambda: "another")
        with pytest.raises(ModelError, match="another nano"):
            LearnedJudge.load(tmp_path / "judge", pictures)
    (tmp_path / "judge" / "judge.safetensors").write_bytes(b"{}")
    for folder in (tmp_path / "judge", tmp_path / "none"):
        with pytest.raises(ModelError, match="is not a readable judge"):
            LearnedJudge.load(folder, pictures)


def test_projected_distances_match_vertex_distances():
    rng = np.random.default_rng(4)
    one, other = (np.array([sample_coefficients(rng) for _ in range(20)]) for _ in range(2))
    for region in ("upper", "lower"):
        apart = np.linalg.norm(project_vertices(one, region) - project_vertices(other, region), axis=1)
        means = distance(one, other, region)
        assert np.corrcoef(apart, means)[0, 1] > 0.95
        # Root mean squares are no smaller than means.
        assert (apart > 0.95 * means).all()
        rest = [index for index in range(arkit.N_ACTIONS) if index not in ACTIONS[region]]
        changed = one.copy()
        changed[:, rest] = other[:, rest]
        assert np.array_equal(project_vertices(changed, region), project_vertices(one, region))


def test_image_features_keep_names_and_order():
    faces = [arkit.vector({"jawOpen": 0.9}), arkit.vector({"eyeBlinkLeft": 1, "eyeBlinkRight": 1})]
    crops = {
        name: Image.fromarray(render(face, framing="crop", size=160, supersample=1).image)
        for name, face in zip(("open", "closed"), faces, strict=True)
    }
    features_of = image_features(Predictor.from_pretrained("nano", mode="numbers"), crops)
    assert list(features_of) == ["open", "closed"]
    assert features_of["open"].features.shape == (4096,) and features_of["open"].reading.shape == (52,)
    assert not np.allclose(features_of["open"].features, features_of["closed"].features)
    assert features_of["open"].reading[JAW] > features_of["closed"].reading[JAW]
    blink = arkit.INDEX["eyeBlinkLeft"]
    assert features_of["closed"].reading[blink] > features_of["open"].reading[blink]
