"""Bootstrap intervals: the figures equal those of ``metrics``, a resample equals the test set it represents."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semanticface import arkit
from semanticface.evaluation import bootstrap, metrics
from semanticface.semantics.expression_sampler import sample_coefficients

KEYS = ("mae", "rmse", "mae_active", "correlation", "f1", "left_right_confusion", "left_right_undecided")


def faces(count, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([sample_coefficients(rng) for _ in range(count)])


def pair(count=60):
    true = faces(count)
    predicted = 0.6 * true + 0.4 * faces(count, 1)
    true[:, arkit.INDEX["tongueOut"]] = 0.3  # a constant ground truth
    predicted[:, arkit.INDEX["jawOpen"]] = 0.1  # a constant answer
    return true, predicted


def test_with_unit_weights_the_figures_are_those_of_metrics():
    true, predicted = pair()
    means, tails = metrics.vertex_errors(true, predicted)
    of_pictures = {"vertex_error": means, "vertex_error_p95": tails}
    found = bootstrap.figures(true, predicted, np.ones((1, 60)), of_pictures=of_pictures)
    scored = metrics.score(true, predicted)["model"]
    assert set(found) == {*KEYS, *of_pictures}
    for key, values in found.items():
        assert values.shape == (1,)
        assert values[0] == pytest.approx(scored[key], rel=1e-6), key


@given(st.lists(st.integers(0, 3), min_size=12, max_size=12).filter(lambda times: sum(times) > 1))
def test_a_resample_is_the_test_set_with_repeated_pictures(times):
    true, predicted = pair(12)
    found = bootstrap.figures(true, predicted, np.array([times], float))
    repeated = np.repeat(np.arange(12), times)
    scored = metrics.score(true[repeated], predicted[repeated], on_head=False)["model"]
    for key in KEYS:
        expected = np.nan if scored[key] is None else scored[key]
        assert found[key][0] == pytest.approx(expected, abs=1e-7, nan_ok=True), key


def test_actions_can_be_left_out():
    true, predicted = pair()
    kept = np.array([i for i, name in enumerate(arkit.NAMES) if name not in ("jawOpen", "mouthSmileLeft")])
    found = bootstrap.figures(true, predicted, np.ones((1, 60)), actions=kept)
    assert found["mae"][0] == pytest.approx(np.abs(predicted - true)[:, kept].mean())
    # Without jawOpen, whose correlation is 0; the tongue's ground truth is constant.
    expected = [np.corrcoef(true[:, i], predicted[:, i])[0, 1] for i in kept if arkit.NAMES[i] != "tongueOut"]
    assert found["correlation"][0] == pytest.approx(np.mean(expected))
    # A pair with one side left out does not count.
    lopsided = true.copy()
    lopsided[:, arkit.INDEX["mouthSmileLeft"]] = 1 - lopsided[:, arkit.INDEX["mouthSmileRight"]]
    again = bootstrap.figures(lopsided, predicted, np.ones((1, 60)), actions=kept)
    assert again["left_right_confusion"][0] == found["left_right_confusion"][0]


def test_resampling_is_by_person_and_seeded():
    people = ["b", "a", "b", "c", "a", "b"]
    weights = bootstrap.resample(people, resamples=50, seed=4)
    assert weights.shape == (51, 6)
    assert (weights[0] == 1).all()
    for one, other in ((0, 2), (0, 5), (1, 4)):
        assert (weights[:, one] == weights[:, other]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert len(np.unique(weights, axis=0)) > 5
    assert (bootstrap.resample(people, resamples=50, seed=4) == weights).all()
    assert not (bootstrap.resample(people, resamples=50, seed=5) == weights).all()
    with pytest.raises(ValueError, match="no pictures"):
        bootstrap.resample([])


def test_the_interval_of_a_mean_has_the_theoretical_width():
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = bootstrap.figures(
        faces(400), faces(400, 1), bootstrap.resample(np.arange(400)), of_pictures={"value": values}
    )
    estimate = bootstrap.estimate(found["value"])
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    # Two identical pictures per person count as one.
    twice = bootstrap.resample(np.arange(400).repeat(2))
    again = bootstrap.figures(
        faces(400).repeat(2, 0), faces(400, 1).repeat(2, 0), twice, of_pictures={"value": values.repeat(2)}
    )
    doubled = bootstrap.estimate(again["value"])
    assert doubled.high - doubled.low == pytest.approx(estimate.high - estimate.low, rel=0.1)


def test_undefined_figures_stay_undefined():
    true, weights = np.zeros((5, 52)), bootstrap.resample(np.arange(5), resamples=20)
    found = bootstrap.figures(true, true, weights, of_pictures={"agreement": np.array([np.nan, 1, np.nan, 0, np.nan])})
    for key in ("correlation", "mae_active", "f1", "left_right_confusion"):
        assert np.isnan(bootstrap.estimate(found[key]).value), key
    assert bootstrap.estimate(found["mae"]) == bootstrap.Estimate(0.0, 0.0, 0.0)
    agreement = bootstrap.estimate(found["agreement"])
    assert (agreement.value, agreement.low, agreement.high) == (0.5, 0.0, 1.0)  # undefined resamples are left out
    with pytest.raises(ValueError, match="do not fit weights of 5"):
        bootstrap.figures(true[:4], true[:4], weights)
