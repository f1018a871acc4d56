"""Simulated judges: the nearer face wins as often as the noise says; win rates are blind to sides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticface import arkit
from semanticface.errors import ConfigError, DatasetError
from semanticface.preference.judges import SimulatedJudge, comparison_sets, judge_choices, win_rate
from semanticface.preference.regions import REGIONS, distance, merge_halves
from semanticface.preference.types import Candidate, CandidateSet, Question
from semanticface.semantics.expression_sampler import sample_coefficients

REST = np.zeros(arkit.N_ACTIONS, np.float32)


def face(**values):
    return arkit.vector(values)


def set_of(*faces, picture="p"):
    return CandidateSet(picture, 0, "anna", tuple(Candidate(str(n), "model", each) for n, each in enumerate(faces)))


def randoms(seed, count):
    rng = np.random.default_rng(seed)
    return np.array([sample_coefficients(rng) for _ in range(count)])


@pytest.mark.parametrize("region", REGIONS)
def test_without_noise_the_face_nearer_in_the_region_wins(region):
    truth, near, far = randoms(0, 3)
    if distance(near[None], truth[None], region) > distance(far[None], truth[None], region):
        near, far = far, near
    judge = SimulatedJudge({"p": truth}, noise=0, jnd=0.01)
    candidate_sets = {"p": set_of(near, far)}
    asked = [Question(str(n), "p", region, *sides) for n, sides in enumerate(("01", "10", "11"))]
    assert judge.choose(asked, candidate_sets) == ["a", "b", "same"]


def test_halves_are_judged_on_their_own():
    truth = face(browInnerUp=1, jawOpen=1)
    candidate_sets = {"p": set_of(face(browInnerUp=1), face(jawOpen=1))}
    asked = [Question("1", "p", "upper", "0", "1"), Question("2", "p", "lower", "0", "1")]
    assert SimulatedJudge({"p": truth}, noise=0).choose(asked, candidate_sets) == ["a", "b"]


def test_a_difference_below_the_threshold_is_not_seen():
    candidate_sets = {"p": set_of(face(jawOpen=0.5), face(jawOpen=0.51))}
    apart = distance(face(jawOpen=0.5)[None], face(jawOpen=0.51)[None], "lower")[0]
    asked = [Question("1", "p", "lower", "0", "1")]
    truth = {"p": face(jawOpen=0.4)}
    assert SimulatedJudge(truth, noise=0, jnd=apart * 1.01).choose(asked, candidate_sets) == ["same"]
    assert SimulatedJudge(truth, noise=0, jnd=apart * 0.99).choose(asked, candidate_sets) == ["a"]


def test_frequencies_of_verdicts_are_those_of_rao_and_kupper():
    one, other, truth = face(jawOpen=0.30), face(jawOpen=0.38), face(jawOpen=0.3)
    gain = distance(other[None], truth[None], "lower")[0]
    noise, jnd = 0.8, 0.5
    judge = SimulatedJudge({"p": truth}, noise=noise, jnd=jnd, seed=3)
    count = 4000
    verdicts = judge.choose([Question(str(n), "p", "lower", "0", "1") for n in range(count)], {"p": set_of(one, other)})
    for verdict, z in (("a", gain - jnd), ("b", -gain - jnd)):
        p = 1 / (1 + np.exp(-z / noise))
        # Four standard errors.
        assert verdicts.count(verdict) / count == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / count))


def test_an_answer_depends_on_seed_and_id_not_on_other_questions():
    truths = {str(n): each for n, each in enumerate(randoms(1, 40))}
    faces = randoms(2, 80)
    candidate_sets = {name: set_of(*faces[2 * n : 2 * n + 2], picture=name) for n, name in enumerate(truths)}
    asked = [Question(f"q{name}", name, REGIONS[n % 3], "0", "1") for n, name in enumerate(truths)]
    judge = SimulatedJudge(truths, noise=2, seed=5)
    verdicts = judge.choose(asked, candidate_sets)
    assert judge.choose(asked[::-1], candidate_sets) == verdicts[::-1]
    assert [judge.choose([each], candidate_sets)[0] for each in asked[:5]] == verdicts[:5]
    assert SimulatedJudge(truths, noise=2, seed=6).choose(asked, candidate_sets) != verdicts
    assert judge.choose([], candidate_sets) == []


def test_unknown_pictures_and_candidates_are_refused():
    truths, candidate_sets = {"p": REST}, {"p": set_of(REST, REST)}
    judge = SimulatedJudge(truths)
    with pytest.raises(DatasetError, match="question 7 shows candidate 9 of picture p"):
        judge.choose([Question("7", "p", "upper", "0", "9")], candidate_sets)
    with pytest.raises(DatasetError, match="no ground truth for picture x"):
        judge.choose([Question("7", "x", "upper", "0", "1")], candidate_sets)
    with pytest.raises(ConfigError, match="noise"):
        SimulatedJudge(truths, noise=-1)
    with pytest.raises(ConfigError, match="jnd"):
        SimulatedJudge(truths, jnd=float("nan"))


class Fixed:
    """Always gives the same verdict."""

    name = "fixed"

    def __init__(self, verdict):
        self.verdict = verdict

    def choose(self, questions, candidate_sets):
        return [self.verdict] * len(questions)


def test_choices_name_annotator_model_round_and_time():
    asked = [Question("1", "p", "upper", "0", "1"), Question("2", "p", "lower", "0", "1")]
    candidate_sets = {"p": set_of(face(jawOpen=1), REST)}
    judge = SimulatedJudge({"p": REST}, noise=0)
    choices = judge_choices(judge, asked, candidate_sets, model="m", round=2, time="then")
    assert [(c.question, c.verdict) for c in choices] == list(zip(asked, ["same", "b"], strict=True))
    assert {(c.annotator, c.model, c.round, c.time) for c in choices} == {("simulated-0", "m", 2, "then")}
    assert judge_choices(Fixed("a"), asked, candidate_sets, model="m", round=1)[0].time.endswith("+00:00")
    for broken in (Fixed("left"), Fixed(None)):
        with pytest.raises(ValueError, match="fixed gave 2 answers"):
            judge_choices(broken, asked, candidate_sets, model="m", round=1)


def compared(ours, theirs, subjects=None):
    names = [f"p{n}" for n in range(len(ours))]
    return comparison_sets(names, range(len(ours)), subjects or names, ours, theirs)


def test_the_better_faces_win_in_each_half():
    truth = randoms(3, 30)
    names = {f"p{n}": each for n, each in enumerate(truth)}
    judge = SimulatedJudge(names, noise=0, jnd=0)
    worse = np.clip(truth + np.where(truth > 0.5, -0.4, 0.4), 0, 1).astype(np.float32)
    rates = win_rate(judge, compared(truth, worse))
    assert {region: each.value for region, each in rates.items()} == {"upper": 1, "lower": 1, "all": 1}
    assert (rates["all"].low, rates["all"].high) == (1, 1)
    mixed = win_rate(judge, compared(merge_halves(truth, worse), merge_halves(worse, truth)))
    assert {region: each.value for region, each in mixed.items()} == {"upper": 1, "lower": 0, "all": 0.5}
    assert win_rate(judge, compared(truth, truth))["all"].value == 0.5
    assert list(win_rate(judge, compared(truth, worse), regions=["whole"])) == ["whole", "all"]


@settings(max_examples=10)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3]))
def test_win_rates_of_two_sides_add_up_to_one(seed, jnd):
    truth, ours, theirs = randoms(seed, 12), randoms(seed + 1, 12), randoms(seed + 2, 12)
    judge = SimulatedJudge({f"p{n}": each for n, each in enumerate(truth)}, noise=0, jnd=jnd)
    one, other = (win_rate(judge, compared(*both), seed=seed) for both in ((ours, theirs), (theirs, ours)))
    for region in one:
        assert one[region].value + other[region].value == pytest.approx(1)
        assert one[region].low + other[region].high == pytest.approx(1)


def test_a_judge_with_full_position_bias_prefers_nobody():
    faces = randoms(4, 400)
    rate = win_rate(Fixed("a"), compared(faces, faces[::-1]))["all"]
    assert 0.4 < rate.value < 0.6 and rate.low < 0.5 < rate.high
    for verdict in ("same", "neither"):
        assert win_rate(Fixed(verdict), compared(faces, faces[::-1]))["all"].value == 0.5
    assert np.isnan(win_rate(Fixed("skip"), compared(faces, faces[::-1]))["all"].value)


def test_intervals_are_bootstrapped_over_people():
    truth = randoms(5, 40)
    far = np.array([face(jawOpen=1, browInnerUp=1, eyeBlinkLeft=1)] * 40)
    names = {f"p{n}": each for n, each in enumerate(truth)}
    judge = SimulatedJudge(names, noise=0, jnd=0)
    # Each half of the people is won entirely by one side: with four people the interval is wide.
    ours, theirs = truth.copy(), far.copy()
    ours[20:], theirs[20:] = far[20:], truth[20:]
    sure = win_rate(judge, compared(ours, theirs))["all"]
    unsure = win_rate(judge, compared(ours, theirs, [str(n // 10) for n in range(40)]))["all"]
    assert sure.value == unsure.value == 0.5
    assert unsure.high - unsure.low > 1.5 * (sure.high - sure.low)


def test_invalid_comparisons_are_refused():
    faces = randoms(6, 3)
    with pytest.raises(DatasetError, match="twice"):
        win_rate(Fixed("a"), [set_of(*faces[:2]), set_of(*faces[:2])])
    with pytest.raises(DatasetError, match="3 candidates for picture p"):
        win_rate(Fixed("a"), [set_of(*faces)])
    with pytest.raises(ValueError, match="no pictures"):
        win_rate(Fixed("a"), [])
    with pytest.raises(ValueError):
        comparison_sets(["p"], [0], ["anna"], faces, faces)
