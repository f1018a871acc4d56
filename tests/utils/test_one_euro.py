"""The One-Euro filter: jitter, lag, bounds, and dependence on values and times only."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semanticface import arkit
from semanticface.utils import one_euro
from semanticface.utils.one_euro import DEFAULTS, MAX_GAP, OneEuroFilter, OneEuroSettings, coefficient_filter

unit = st.floats(0, 1)


def filtered(values, times, settings=DEFAULTS):
    smoother = coefficient_filter(settings)
    return np.array([smoother.step(value, time) for value, time in zip(values, times, strict=True)])


def everywhere(min_cutoff, beta):
    return dict.fromkeys(arkit.REGIONS, OneEuroSettings(min_cutoff, beta))


def walk(count, seed=0):
    rng = np.random.default_rng(seed)
    return np.clip(0.5 + np.cumsum(rng.normal(0, 0.05, (count, arkit.N_ACTIONS)), axis=0), 0, 1)


@given(value=unit, gaps=st.lists(st.floats(0.001, 0.4), min_size=1, max_size=20), cutoff=st.floats(0.1, 20))
def test_constant_values_are_unchanged_at_any_rate(value, gaps, cutoff):
    values = np.full((len(gaps), arkit.N_ACTIONS), value)
    assert np.allclose(filtered(values, np.cumsum(gaps), everywhere(cutoff, 1.0)), value, atol=1e-12)


@given(values=st.lists(unit, min_size=2, max_size=40), cutoff=st.floats(0.01, 50), beta=st.floats(0, 100))
def test_outputs_stay_within_the_range_of_inputs(values, cutoff, beta):
    column = np.array(values)
    out = filtered(np.repeat(column[:, None], 52, axis=1), np.arange(len(values)) / 30, everywhere(cutoff, beta))
    assert out.min() >= column.min() - 1e-12 and out.max() <= column.max() + 1e-12
    assert out.min() >= 0 and out.max() <= 1


def test_jitter_is_reduced_and_movement_is_not_delayed():
    rng = np.random.default_rng(1)
    times = np.arange(120) / 30
    still = 0.4 + rng.normal(0, 0.03, (120, arkit.N_ACTIONS))
    calm = filtered(still, times)
    mouth = arkit.REGION_INDEX["mouth"]
    assert np.abs(np.diff(calm[30:, mouth], axis=0)).mean() < 0.5 * np.abs(np.diff(still[30:, mouth], axis=0)).mean()
    step = np.repeat((times > 2).astype(float)[:, None], arkit.N_ACTIONS, axis=1)
    late = filtered(step, times)[times > 2 + 0.15]
    assert late[0, mouth].min() > 0.9


def test_no_lag_where_beta_is_high():
    values, times = walk(90), np.arange(90) / 30
    quick = filtered(values, times, everywhere(1.0, 1e9))
    assert np.abs(quick - values).max() < 1e-3
    slow = filtered(values, times, everywhere(1.0, 0.0))
    assert np.abs(slow - values).max() > 0.1


def test_only_eyes_are_unfiltered():
    values, times = walk(60), np.arange(60) / 30
    changed = np.abs(filtered(values, times) - values).max(axis=0) > 1e-6
    assert not changed[arkit.REGION_INDEX["eyes"]].any()
    others = np.setdiff1d(np.arange(arkit.N_ACTIONS), arkit.REGION_INDEX["eyes"])
    assert changed[others].all()
    assert set(DEFAULTS) == set(arkit.REGIONS)


def test_a_region_can_be_set_alone():
    values, times = walk(60), np.arange(60) / 30
    changed = np.abs(filtered(values, times, {"jaw": OneEuroSettings(1, 1), "mouth": None}) - values).max(axis=0) > 1e-6
    assert np.flatnonzero(changed).tolist() == arkit.REGION_INDEX["jaw"].tolist()


@given(cut=st.integers(1, 59))
def test_state_round_trips_through_json(cut):
    values, times = walk(60, seed=5), np.arange(60) / 24
    min_cutoff, beta = np.full(52, 1.5), np.full(52, 2.0)
    first = OneEuroFilter(min_cutoff, beta)
    expected = OneEuroFilter(min_cutoff, beta)
    for value, time in zip(values[:cut], times[:cut], strict=True):
        first.step(value, time)
        expected.step(value, time)
    second = OneEuroFilter(min_cutoff, beta, json.loads(json.dumps(first.state)))
    for value, time in zip(values[cut:], times[cut:], strict=True):
        assert np.array_equal(second.step(value, time), expected.step(value, time))


@pytest.mark.parametrize(("gap", "anew"), [(MAX_GAP + 0.1, True), (MAX_GAP - 0.1, False), (0.0, True), (-1, True)])
def test_it_restarts_after_a_gap_or_if_time_does_not_advance(gap, anew):
    one = OneEuroFilter(np.array([1.0]), np.array([0.0]))
    assert one.step(np.array([0.0]), 10.0) == 0
    assert (one.step(np.array([1.0]), 10.0 + gap) == 1.0) == anew


def test_the_first_steps_by_hand():
    # Algorithm 1 of the paper at 10 Hz: speed 10/s smoothed at 1 Hz, then a cutoff of 1 + 0.5 * that speed.
    one = OneEuroFilter(np.array([1.0]), np.array([0.5]))
    one.step(np.array([0.0]), 0.0)

    def weight(cutoff):
        return 1 / (1 + 1 / (2 * np.pi * cutoff * 0.1))

    speed = weight(1.0) * 10
    assert one.step(np.array([1.0]), 0.1)[0] == pytest.approx(weight(1 + 0.5 * speed))


@pytest.mark.parametrize(("cutoff", "beta"), [(0, 1), (-1, 1), (float("nan"), 1), (float("inf"), 1), (1, -1)])
def test_settings_out_of_range_are_rejected(cutoff, beta):
    with pytest.raises(ValueError, match="give a cutoff above 0"):
        OneEuroSettings(cutoff, beta)


def test_unknown_regions_are_rejected():
    with pytest.raises(KeyError):
        one_euro.coefficient_filter({"ears": None})
