"""Distributions of numbers as what they say: shortest intervals, calibrated levels, figures of error and coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semanticface.arkit import N_ACTIONS, NAMES
from semanticface.inference import intervals
from semanticface.inference.number_readout import N_VALUES, VALUES, NumberTrie, mean_of, median_of
from semanticface.semantics.answer import NUMBER_TEXTS

WHOLE = NumberTrie([(value,) for value in range(N_VALUES)])
DIGITS = NumberTrie([tuple(text.encode()) for text in NUMBER_TEXTS])


def distributions(rng: np.random.Generator, count: int, sharpness: float) -> np.ndarray:
    """Return distributions with much at 0.00, as those of actions that mostly rest."""
    shares = np.exp(rng.standard_normal((count, N_VALUES)) * sharpness)
    shares /= shares.sum(1, keepdims=True)
    rest = rng.random(count)[:, None] * (rng.random(count) < 0.7)[:, None]
    shares *= 1 - rest
    shares[:, :1] += rest
    return shares.astype(np.float32)


@given(
    seed=st.integers(0, 10_000),
    sharpness=st.sampled_from([0.0, 0.5, 2.0, 6.0]),
    level=st.sampled_from([0.5, 0.6, 0.8, 0.95, 1.0]),
)
def test_the_shortest_interval_is_the_shortest(seed, sharpness, level):
    """Against every interval there is."""
    shares = distributions(np.random.default_rng(seed), 5, sharpness)
    low, high, held = intervals.shortest(shares, level)
    for row, first, last, mass in zip(shares.astype(np.float64), low, high, held, strict=True):
        assert 0 <= first <= last <= 100
        assert mass == pytest.approx(row[first : last + 1].sum() / row.sum(), abs=1e-5)
        assert mass >= level - 1e-5
        heights = np.concatenate([[0], row.cumsum()])
        shorter = last - first
        if shorter:
            assert (heights[shorter:] - heights[:-shorter]).max() < level * heights[-1] + 1e-5


@given(seed=st.integers(0, 10_000), sharpness=st.sampled_from([0.0, 1.0, 6.0]), level=st.sampled_from([None, 0.5, 1.0]))
def test_a_reading_is_within_bounds_and_around_its_median(seed, sharpness, level):
    shares = distributions(np.random.default_rng(seed), 2 * N_ACTIONS, sharpness).reshape(2, N_ACTIONS, N_VALUES)
    found = intervals.summarize(WHOLE, shares, level)
    assert found.calibrated == (level is not None)
    low, high = found.interval[..., 0], found.interval[..., 1]
    assert ((low >= 0) & (low <= found.median) & (found.median <= high) & (high <= 1)).all()
    assert ((found.mean >= 0) & (found.mean <= 1)).all()
    assert np.array_equal(found.greedy, VALUES.astype(np.float32)[shares.argmax(-1)])
    assert np.allclose(found.mean, shares.astype(np.float64) @ VALUES, atol=1e-6)
    below = np.take_along_axis(shares.cumsum(-1), np.rint(found.median * 100).astype(int)[..., None], -1)[..., 0]
    assert (below > 0.5 - 1e-5).all()
    one = found.of(1)
    assert np.array_equal(one.interval, found.interval[1])
    told = intervals.interval_dict(one.interval, one.calibrated)
    assert told["calibrated"] == found.calibrated
    assert tuple(told["interval"]) == NAMES
    assert np.allclose(list(told["interval"].values()), one.interval, atol=1e-6)


def test_what_is_as_certain_as_it_gets_is_one_value():
    shares = np.eye(N_VALUES, dtype=np.float32)[[0, 100, 37]]
    low, high, held = intervals.shortest(shares, 0.8)
    assert low.tolist() == high.tolist() == [0, 100, 37] == median_of(shares).tolist()
    assert held.tolist() == [1, 1, 1]
    assert np.allclose(mean_of(shares), [0, 1, 0.37])


def drawn(rng: np.random.Generator, shares: np.ndarray) -> np.ndarray:
    """Return a truth for each distribution, drawn from it."""
    heights = shares.astype(np.float64).cumsum(-1)
    return VALUES[(heights < rng.random((*shares.shape[:-1], 1)) * heights[..., -1:]).sum(-1)]


@pytest.mark.parametrize("power", [0.6, 1.0, 1.6])
def test_a_level_makes_up_for_too_much_and_too_little_confidence(power):
    """Truths come from distributions of which the model says a power: 1.6 is too sure of itself, 0.6 too little."""
    rng = np.random.default_rng(1)
    honest = distributions(rng, 600 * N_ACTIONS, 1.5).reshape(600, N_ACTIONS, N_VALUES)
    true = drawn(rng, honest)
    said = honest**power
    said /= said.sum(-1, keepdims=True)
    level = intervals.fit_level(said[:300], true[:300])
    assert {0.6: level < 0.75, 1.0: abs(level - 0.8) < 0.02, 1.6: level > 0.85}[power]
    figures = intervals.figures(intervals.tally(true[300:], intervals.summarize(WHOLE, said[300:], level)))
    assert abs(figures["interval_coverage"] - 0.8) < 0.05
    assert abs(figures["interval_coverage_all"] - 0.8) < 0.1
    raw = intervals.figures(intervals.tally(true[300:], intervals.summarize(WHOLE, said[300:])))
    if power != 1:
        assert abs(raw["interval_coverage"] - 0.8) > 0.05


def test_a_level_wants_pictures_that_fit():
    with pytest.raises(ValueError, match="do not fit"):
        intervals.fit_level(np.zeros((0, N_ACTIONS, N_VALUES)), np.zeros((0, N_ACTIONS)))
    with pytest.raises(ValueError, match="do not fit"):
        intervals.fit_level(np.zeros((2, N_ACTIONS, N_VALUES)), np.zeros((3, N_ACTIONS)))


def test_figures_by_hand():
    def full(*values: float) -> np.ndarray:
        return np.tile(np.array(values, dtype=np.float32)[:, None], (1, N_ACTIONS))

    interval = np.stack([full(0, 0.2, 0.5), full(0, 0.6, 0.7)], axis=-1)
    reading = intervals.NumberSummary(full(0, 0.2, 0.5), full(0.1, 0.4, 0.6), full(0, 0.3, 0.6), interval)
    # Within, within by rounding, and out.
    true = full(0.004, 0.6049, 0.8).astype(np.float64)
    told = intervals.figures(intervals.tally(true, reading))
    assert told["greedy"]["mae"] == pytest.approx((0.004 + 0.4049 + 0.3) / 3, abs=1e-6)
    assert told["median"]["mae"] == pytest.approx((0.004 + 0.3049 + 0.2) / 3, abs=1e-6)
    assert told["mean"]["rmse"] == pytest.approx(((0.096**2 + 0.2049**2 + 0.2**2) / 3) ** 0.5, abs=1e-6)
    assert told["median_mae_gain"] == pytest.approx(1 - told["median"]["mae"] / told["greedy"]["mae"])
    assert told["mean_rmse_gain"] == pytest.approx(1 - told["mean"]["rmse"] / told["greedy"]["rmse"])
    assert told["in_doubt"] == pytest.approx(2 / 3)
    assert told["interval_coverage"] == pytest.approx(1 / 2)
    assert told["interval_coverage_all"] == pytest.approx(2 / 3)
    assert told["interval_width"] == pytest.approx(0.3, abs=1e-6)
    assert told["interval_width_all"] == pytest.approx(0.2, abs=1e-6)
    said = intervals.summary(told | {"median_mae_gain": 0.25, "mean_rmse_gain": -0.111}, calibrated=False)
    assert "the mean error is 25.0 % lower; read as the mean, the RMS error is 11.1 % higher." in said


def test_pictures_are_told_one_by_one_or_together():
    rng = np.random.default_rng(0)
    shares = distributions(rng, 3 * N_ACTIONS, 1.0).reshape(3, N_ACTIONS, N_VALUES)
    true = rng.random((3, N_ACTIONS))
    found = intervals.summarize(WHOLE, shares)
    together = intervals.tally(true, found)
    apart = np.stack([intervals.tally(row, found.of(index)) for index, row in enumerate(true)])
    assert np.allclose(apart, together)
    assert intervals.figures(apart) == intervals.figures(together)
    nothing = intervals.figures(np.zeros((0, together.shape[1])))
    assert nothing["interval_coverage"] is nothing["median_mae_gain"] is nothing["mean"]["rmse"] is None


# --- several tokens a number ----------------------------------------------------------------------------------------


def test_the_likeliest_digits_are_followed_not_the_likeliest_number():
    """0.4x is likelier than 0.2x, of which 0.20 is likelier than any other number."""
    shares = np.zeros((1, N_VALUES), dtype=np.float32)
    shares[0, 20], shares[0, 40:50], shares[0, 47] = 0.4, 0.05, 0.15
    assert shares.sum() == pytest.approx(1)
    assert WHOLE.likeliest(shares).tolist() == [20]
    assert DIGITS.likeliest(shares).tolist() == [47]


def test_where_digits_are_not_known_the_middle_is_taken():
    shares = np.zeros((1, N_VALUES), dtype=np.float32)
    shares[0, :10], shares[0, 30:40] = 0.06, 0.04
    assert DIGITS.likeliest(shares).tolist() == [5]
