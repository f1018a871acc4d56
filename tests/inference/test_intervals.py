"""Summaries of distributions: shortest intervals, calibrated levels, figures of error and coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semanticface.arkit import N_ACTIONS, NAMES
from semanticface.inference import intervals
from semanticface.inference.number_readout import N_VALUES, VALUES, NumberTrie, mean_value, median_value
from semanticface.semantics.answer import NUMBER_TEXTS

WHOLE = NumberTrie([(value,) for value in range(N_VALUES)])
DIGITS = NumberTrie([tuple(text.encode()) for text in NUMBER_TEXTS])


def distributions(rng: np.random.Generator, count: int, sharpness: float) -> np.ndarray:
    """Return distributions with much mass at 0.00, as of actions that mostly rest."""
    probs = np.exp(rng.standard_normal((count, N_VALUES)) * sharpness)
    probs /= probs.sum(1, keepdims=True)
    rest = rng.random(count)[:, None] * (rng.random(count) < 0.7)[:, None]
    probs *= 1 - rest
    probs[:, :1] += rest
    return probs.astype(np.float32)


@given(
    seed=st.integers(0, 10_000),
    sharpness=st.sampled_from([0.0, 0.5, 2.0, 6.0]),
    level=st.sampled_from([0.5, 0.6, 0.8, 0.95, 1.0]),
)
def test_the_shortest_interval_is_the_shortest(seed, sharpness, level):
    """Against every possible interval."""
    probs = distributions(np.random.default_rng(seed), 5, sharpness)
    low, high, held = intervals.shortest(probs, level)
    for row, first, last, mass in zip(probs.astype(np.float64), low, high, held, strict=True):
        assert 0 <= first <= last <= 100
        assert mass == pytest.approx(row[first : last + 1].sum() / row.sum(), abs=1e-5)
        assert mass >= level - 1e-5
        cumulative = np.concatenate([[0], row.cumsum()])
        shorter = last - first
        if shorter:
            assert (cumulative[shorter:] - cumulative[:-shorter]).max() < level * cumulative[-1] + 1e-5


@given(seed=st.integers(0, 10_000), sharpness=st.sampled_from([0.0, 1.0, 6.0]), level=st.sampled_from([None, 0.5, 1.0]))
def test_an_interval_is_within_bounds_and_holds_the_median(seed, sharpness, level):
    probs = distributions(np.random.default_rng(seed), 2 * N_ACTIONS, sharpness).reshape(2, N_ACTIONS, N_VALUES)
    found = intervals.summarize(WHOLE, probs, level)
    assert found.calibrated == (level is not None)
    low, high = found.interval[..., 0], found.interval[..., 1]
    assert ((low >= 0) & (low <= found.median) & (found.median <= high) & (high <= 1)).all()
    assert ((found.mean >= 0) & (found.mean <= 1)).all()
    assert np.array_equal(found.greedy, VALUES.astype(np.float32)[probs.argmax(-1)])
    assert np.allclose(found.mean, probs.astype(np.float64) @ VALUES, atol=1e-6)
    below = np.take_along_axis(probs.cumsum(-1), np.rint(found.median * 100).astype(int)[..., None], -1)[..., 0]
    assert (below > 0.5 - 1e-5).all()
    one = found.row(1)
    assert np.array_equal(one.interval, found.interval[1])
    as_dict = intervals.interval_dict(one.interval, one.calibrated)
    assert as_dict["calibrated"] == found.calibrated
    assert tuple(as_dict["interval"]) == NAMES
    assert np.allclose(list(as_dict["interval"].values()), one.interval, atol=1e-6)


def test_a_certain_distribution_has_an_interval_of_one_value():
    probs = np.eye(N_VALUES, dtype=np.float32)[[0, 100, 37]]
    low, high, held = intervals.shortest(probs, 0.8)
    assert low.tolist() == high.tolist() == [0, 100, 37] == median_value(probs).tolist()
    assert held.tolist() == [1, 1, 1]
    assert np.allclose(mean_value(probs), [0, 1, 0.37])


def sample_from(rng: np.random.Generator, probs: np.ndarray) -> np.ndarray:
    """Sample a true value from each distribution."""
    cumulative = probs.astype(np.float64).cumsum(-1)
    return VALUES[(cumulative < rng.random((*probs.shape[:-1], 1)) * cumulative[..., -1:]).sum(-1)]


@pytest.mark.parametrize("power", [0.6, 1.0, 1.6])
def test_a_level_corrects_over_and_underconfidence(power):
    """The model states a power of the true distributions: 1.6 is overconfident, 0.6 underconfident."""
    rng = np.random.default_rng(1)
    honest = distributions(rng, 600 * N_ACTIONS, 1.5).reshape(600, N_ACTIONS, N_VALUES)
    true = sample_from(rng, honest)
    stated = honest**power
    stated /= stated.sum(-1, keepdims=True)
    level = intervals.fit_level(stated[:300], true[:300])
    assert {0.6: level < 0.75, 1.0: abs(level - 0.8) < 0.02, 1.6: level > 0.85}[power]
    figures = intervals.figures(intervals.readout_sums(true[300:], intervals.summarize(WHOLE, stated[300:], level)))
    assert abs(figures["interval_coverage"] - 0.8) < 0.05
    assert abs(figures["interval_coverage_all"] - 0.8) < 0.1
    raw = intervals.figures(intervals.readout_sums(true[300:], intervals.summarize(WHOLE, stated[300:])))
    if power != 1:
        assert abs(raw["interval_coverage"] - 0.8) > 0.05


def test_a_level_needs_matching_pictures():
    with pytest.raises(ValueError, match="do not match"):
        intervals.fit_level(np.zeros((0, N_ACTIONS, N_VALUES)), np.zeros((0, N_ACTIONS)))
    with pytest.raises(ValueError, match="do not match"):
        intervals.fit_level(np.zeros((2, N_ACTIONS, N_VALUES)), np.zeros((3, N_ACTIONS)))


def test_figures_by_hand():
    def full(*values: float) -> np.ndarray:
        return np.tile(np.array(values, dtype=np.float32)[:, None], (1, N_ACTIONS))

    interval = np.stack([full(0, 0.2, 0.5), full(0, 0.6, 0.7)], axis=-1)
    summary = intervals.NumberSummary(full(0, 0.2, 0.5), full(0.1, 0.4, 0.6), full(0, 0.3, 0.6), interval)
    # Within, within by rounding, and out.
    true = full(0.004, 0.6049, 0.8).astype(np.float64)
    found = intervals.figures(intervals.readout_sums(true, summary))
    assert found["greedy"]["mae"] == pytest.approx((0.004 + 0.4049 + 0.3) / 3, abs=1e-6)
    assert found["median"]["mae"] == pytest.approx((0.004 + 0.3049 + 0.2) / 3, abs=1e-6)
    assert found["mean"]["rmse"] == pytest.approx(((0.096**2 + 0.2049**2 + 0.2**2) / 3) ** 0.5, abs=1e-6)
    assert found["median_mae_gain"] == pytest.approx(1 - found["median"]["mae"] / found["greedy"]["mae"])
    assert found["mean_rmse_gain"] == pytest.approx(1 - found["mean"]["rmse"] / found["greedy"]["rmse"])
    assert found["in_doubt"] == pytest.approx(2 / 3)
    assert found["interval_coverage"] == pytest.approx(1 / 2)
    assert found["interval_coverage_all"] == pytest.approx(2 / 3)
    assert found["interval_width"] == pytest.approx(0.3, abs=1e-6)
    assert found["interval_width_all"] == pytest.approx(0.2, abs=1e-6)
    stated = intervals.summary(found | {"median_mae_gain": 0.25, "mean_rmse_gain": -0.111}, calibrated=False)
    assert "the mean error is 25.0 % lower; read as the mean, the RMS error is 11.1 % higher." in stated


def test_sums_are_the_same_one_by_one_or_together():
    rng = np.random.default_rng(0)
    probs = distributions(rng, 3 * N_ACTIONS, 1.0).reshape(3, N_ACTIONS, N_VALUES)
    true = rng.random((3, N_ACTIONS))
    found = intervals.summarize(WHOLE, probs)
    together = intervals.readout_sums(true, found)
    apart = np.stack([intervals.readout_sums(row, found.row(index)) for index, row in enumerate(true)])
    assert np.allclose(apart, together)
    assert intervals.figures(apart) == intervals.figures(together)
    empty = intervals.figures(np.zeros((0, together.shape[1])))
    assert empty["interval_coverage"] is empty["median_mae_gain"] is empty["mean"]["rmse"] is None


def test_greedy_follows_the_likeliest_digits_not_the_likeliest_number():
    """0.4x is likelier than 0.2x, of which 0.20 is likelier than any other number."""
    probs = np.zeros((1, N_VALUES), dtype=np.float32)
    probs[0, 20], probs[0, 40:50], probs[0, 47] = 0.4, 0.05, 0.15
    assert probs.sum() == pytest.approx(1)
    assert WHOLE.greedy_values(probs).tolist() == [20]
    assert DIGITS.greedy_values(probs).tolist() == [47]


def test_equally_likely_digits_give_the_middle_one():
    probs = np.zeros((1, N_VALUES), dtype=np.float32)
    probs[0, :10], probs[0, 30:40] = 0.06, 0.04
    assert DIGITS.greedy_values(probs).tolist() == [5]
