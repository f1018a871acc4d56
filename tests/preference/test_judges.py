"""Judges in place of people: nearer to the truth wins, as often as the noise says; duels are blind to sides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticface import arkit
from semanticface.errors import ConfigError, DatasetError
from semanticface.preference.judges import SimulatedJudge, decide, versus, win_rate
from semanticface.preference.regions import AREAS, distance, merge_halves
from semanticface.preference.types import Candidate, CandidateSet, Question
from semanticface.semantics.expression_sampler import sample_coefficients

REST = np.zeros(arkit.N_ACTIONS, np.float32)


def face(**values):
    return arkit.vector(values)


def slate_of(*faces, picture="p"):
    return CandidateSet(picture, 0, "anna", tuple(Candidate(str(n), "model", each) for n, each in enumerate(faces)))


def randoms(seed, count):
    rng = np.random.default_rng(seed)
    return np.array([sample_coefficients(rng) for _ in range(count)])


@pytest.mark.parametrize("area", AREAS)
def test_without_noise_the_nearer_face_wins_in_the_area_that_is_shown(area):
    truth, near, far = randoms(0, 3)
    if distance(near[None], truth[None], area) > distance(far[None], truth[None], area):
        near, far = far, near
    judge = SimulatedJudge({"p": truth}, noise=0, jnd=0.01)
    slates = {"p": slate_of(near, far)}
    asked = [Question("1", "p", area, "0", "1"), Question("2", "p", area, "1", "0"), Question("3", "p", area, "1", "1")]
    assert judge.choose(asked, slates) == ["a", "b", "same"]


def test_halves_are_judged_on_their_own():
    truth = face(browInnerUp=1, jawOpen=1)
    slates = {"p": slate_of(face(browInnerUp=1), face(jawOpen=1))}
    asked = [Question("1", "p", "upper", "0", "1"), Question("2", "p", "lower", "0", "1")]
    assert SimulatedJudge({"p": truth}, noise=0).choose(asked, slates) == ["a", "b"]


def test_a_difference_below_the_threshold_is_not_seen():
    slates = {"p": slate_of(face(jawOpen=0.5), face(jawOpen=0.51))}
    apart = distance(face(jawOpen=0.5)[None], face(jawOpen=0.51)[None], "lower")[0]
    asked = [Question("1", "p", "lower", "0", "1")]
    truth = {"p": face(jawOpen=0.4)}
    assert SimulatedJudge(truth, noise=0, jnd=apart * 1.01).choose(asked, slates) == ["same"]
    assert SimulatedJudge(truth, noise=0, jnd=apart * 0.99).choose(asked, slates) == ["a"]


def test_shares_of_verdicts_are_those_of_rao_and_kupper():
    one, other, truth = face(jawOpen=0.30), face(jawOpen=0.38), face(jawOpen=0.3)
    gain = distance(other[None], truth[None], "lower")[0]
    noise, jnd = 0.8, 0.5
    judge = SimulatedJudge({"p": truth}, noise=noise, jnd=jnd, seed=3)
    count = 4000
    verdicts = judge.choose(
        [Question(str(n), "p", "lower", "0", "1") for n in range(count)], {"p": slate_of(one, other)}
    )
    for verdict, z in (("a", gain - jnd), ("b", -gain - jnd)):
        share = 1 / (1 + np.exp(-z / noise))
        # Four standard errors.
        assert verdicts.count(verdict) / count == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / count))


def test_an_answer_depends_on_seed_and_id_not_on_company():
    truths = {str(n): each for n, each in enumerate(randoms(1, 40))}
    faces = randoms(2, 80)
    slates = {name: slate_of(faces[2 * n], faces[2 * n + 1], picture=name) for n, name in enumerate(truths)}
    asked = [Question(f"q{name}", name, AREAS[n % 3], "0", "1") for n, name in enumerate(truths)]
    judge = SimulatedJudge(truths, noise=2, seed=5)
    verdicts = judge.choose(asked, slates)
    assert judge.choose(asked[::-1], slates) == verdicts[::-1]
    assert [judge.choose([each], slates)[0] for each in asked[:5]] == verdicts[:5]
    assert SimulatedJudge(truths, noise=2, seed=6).choose(asked, slates) != verdicts
    assert judge.choose([], slates) == []


def test_strangers_are_refused_by_name():
    truths, slates = {"p": REST}, {"p": slate_of(REST, REST)}
    judge = SimulatedJudge(truths)
    with pytest.raises(DatasetError, match="question 7 shows candidate 9 of picture p"):
        judge.choose([Question("7", "p", "upper", "0", "9")], slates)
    with pytest.raises(DatasetError, match="no truth about picture x"):
        judge.choose([Question("7", "x", "upper", "0", "1")], slates)
    with pytest.raises(ConfigError, match="noise"):
        SimulatedJudge(truths, noise=-1)
    with pytest.raises(ConfigError, match="jnd"):
        SimulatedJudge(truths, jnd=float("nan"))


class Fixed:
    """Always says the same."""

    name = "fixed"

    def __init__(self, verdict):
        self.verdict = verdict

    def choose(self, questions, slates):
        return [self.verdict] * len(questions)


def test_choices_say_who_chose_what_from_which_model_and_when():
    asked = [Question("1", "p", "upper", "0", "1"), Question("2", "p", "lower", "0", "1")]
    slates = {"p": slate_of(face(jawOpen=1), REST)}
    choices = decide(SimulatedJudge({"p": REST}, noise=0), asked, slates, model="m", round=2, time="then")
    assert [(c.question, c.verdict) for c in choices] == list(zip(asked, ["same", "b"], strict=True))
    assert {(c.annotator, c.model, c.round, c.time) for c in choices} == {("simulated-0", "m", 2, "then")}
    assert decide(Fixed("a"), asked, slates, model="m", round=1)[0].time.endswith("+00:00")
    for broken in (Fixed("left"), Fixed(None)):
        with pytest.raises(ValueError, match="fixed gave 2 answers"):
            decide(broken, asked, slates, model="m", round=1)


def duel(ours, theirs, subjects=None):
    names = [f"p{n}" for n in range(len(ours))]
    return versus(names, range(len(ours)), subjects or names, ours, theirs)


def test_the_better_faces_win_and_halves_are_told_apart():
    truth = randoms(3, 30)
    names = {f"p{n}": each for n, each in enumerate(truth)}
    judge = SimulatedJudge(names, noise=0, jnd=0)
    worse = np.clip(truth + np.where(truth > 0.5, -0.4, 0.4), 0, 1).astype(np.float32)
    rates = win_rate(judge, duel(truth, worse))
    assert {area: each.value for area, each in rates.items()} == {"upper": 1, "lower": 1, "all": 1}
    assert (rates["all"].low, rates["all"].high) == (1, 1)
    mixed = win_rate(judge, duel(merge_halves(truth, worse), merge_halves(worse, truth)))
    assert {area: each.value for area, each in mixed.items()} == {"upper": 1, "lower": 0, "all": 0.5}
    assert win_rate(judge, duel(truth, truth))["all"].value == 0.5
    assert list(win_rate(judge, duel(truth, worse), areas=["whole"])) == ["whole", "all"]


@settings(max_examples=10)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3]))
def test_win_rates_of_two_sides_add_up_to_one(seed, jnd):
    truth, ours, theirs = randoms(seed, 12), randoms(seed + 1, 12), randoms(seed + 2, 12)
    judge = SimulatedJudge({f"p{n}": each for n, each in enumerate(truth)}, noise=0, jnd=jnd)
    one, other = win_rate(judge, duel(ours, theirs), seed=seed), win_rate(judge, duel(theirs, ours), seed=seed)
    for area in one:
        assert one[area].value + other[area].value == pytest.approx(1)
        assert one[area].low + other[area].high == pytest.approx(1)


def test_who_always_takes_the_left_side_prefers_nobody():
    faces = randoms(4, 400)
    rate = win_rate(Fixed("a"), duel(faces, faces[::-1]))["all"]
    assert 0.4 < rate.value < 0.6 and rate.low < 0.5 < rate.high
    for verdict in ("same", "neither"):
        assert win_rate(Fixed(verdict), duel(faces, faces[::-1]))["all"].value == 0.5
    assert np.isnan(win_rate(Fixed("skip"), duel(faces, faces[::-1]))["all"].value)


def test_intervals_draw_whole_people():
    truth = randoms(5, 40)
    far = np.array([face(jawOpen=1, browInnerUp=1, eyeBlinkLeft=1)] * 40)
    names = {f"p{n}": each for n, each in enumerate(truth)}
    judge = SimulatedJudge(names, noise=0, jnd=0)
    # Each half of the people is won entirely by one side: of four people, a fair share is quite unsure.
    ours, theirs = truth.copy(), far.copy()
    ours[20:], theirs[20:] = far[20:], truth[20:]
    sure = win_rate(judge, duel(ours, theirs))["all"]
    unsure = win_rate(judge, duel(ours, theirs, [str(n // 10) for n in range(40)]))["all"]
    assert sure.value == unsure.value == 0.5
    assert unsure.high - unsure.low > 1.5 * (sure.high - sure.low)


def test_duels_that_cannot_be_fought_are_refused():
    faces = randoms(6, 3)
    with pytest.raises(DatasetError, match="twice"):
        win_rate(Fixed("a"), [slate_of(*faces[:2]), slate_of(*faces[:2])])
    with pytest.raises(DatasetError, match="3 candidates for picture p"):
        win_rate(Fixed("a"), [slate_of(*faces)])
    with pytest.raises(ValueError, match="no pictures"):
        win_rate(Fixed("a"), [])
    with pytest.raises(ValueError):
        versus(["p"], [0], ["anna"], faces, faces)
