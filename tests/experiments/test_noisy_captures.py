"""Simulated capture: plausible sequences, each error separately, and statistics that show them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticface import arkit
from semanticface.errors import ConfigError
from semanticface.experiments.noisy_captures import CaptureErrors, expression_sequence, statistics

INDEX = arkit.INDEX


def errors(**changed):
    """No errors except those given."""
    none = {
        "gain": np.ones(52), "bias": np.zeros(52), "mix": np.eye(52), "lag": 0.0, "noise": 0.0,
        "noise_correlation": 0.0,
    }  # fmt: skip
    return CaptureErrors(**(none | {"seed": 0} | changed))


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.integers(0, 200))
def test_sequences_are_smooth_and_plausible(seed, frames):
    sequence = expression_sequence(seed, frames)
    assert sequence.shape == (frames, 52) and sequence.dtype == np.float32
    assert ((sequence >= 0) & (sequence <= 1)).all()
    assert np.array_equal(sequence, expression_sequence(seed, frames + 50)[:frames])
    if frames > 1:
        # The steepest part of a minimum-jerk path of 4 frames, from one extreme to its opposite.
        assert np.abs(np.diff(sequence, axis=0)).max() < 2 * 1.875 / 4
    assert (sequence[:, INDEX["mouthClose"]] <= sequence[:, INDEX["jawOpen"]] + 1e-6).all()
    for one, other in (("jawLeft", "jawRight"), ("eyeLookInLeft", "eyeLookOutLeft"), ("eyeWideLeft", "eyeBlinkLeft")):
        assert not (sequence[:, INDEX[one]] * sequence[:, INDEX[other]]).any()


def test_seeds_give_different_sequences():
    assert not np.array_equal(expression_sequence(0, 60), expression_sequence(1, 60))
    with pytest.raises(ConfigError, match="frames"):
        expression_sequence(0, -1)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
@settings(max_examples=15)
def test_sampled_errors_give_reproducible_hundredths_in_range(seed, severity):
    sampled, true = CaptureErrors.sample(seed, severity), expression_sequence(seed, 40)
    labels = sampled.corrupt(true)
    assert labels.shape == true.shape and labels.dtype == np.float32
    assert ((labels >= 0) & (labels <= 1)).all() and not np.signbit(labels).any()
    assert np.allclose(labels * 100, np.round(labels * 100), atol=1e-4)
    assert np.array_equal(labels, CaptureErrors.sample(seed, severity).corrupt(true))
    assert (labels[:, sampled.dead] == 0).all()
    assert np.array_equal(sampled.dead, sampled.dead[arkit.MIRROR_INDEX])
    if severity == 0:
        assert np.allclose(labels, true, atol=0.0051)
    elif severity == 1:
        assert np.abs(labels - true).mean() > 0.03


def test_each_error_has_its_effect():
    true = np.zeros((60, 52), np.float32)
    smile, frown, jaw = INDEX["mouthSmileLeft"], INDEX["mouthFrownLeft"], INDEX["jawOpen"]
    true[20:, smile] = 0.8
    gain, bias, mix = np.ones(52), np.zeros(52), np.eye(52)
    gain[smile], gain[jaw], bias[frown], mix[frown, smile] = 0.5, 0.0, -0.1, 0.25
    labels = errors(gain=gain, bias=bias, mix=mix).corrupt(true)
    assert labels[-1, smile] == pytest.approx(0.4) and not labels[:20].any()
    assert labels[-1, frown] == pytest.approx(0.25 * 0.8 - 0.1)
    assert errors(gain=gain).dead.nonzero()[0].tolist() == [jaw]
    assert np.count_nonzero(labels[-1]) == 2


def test_labels_are_delayed_by_the_lag():
    true = np.zeros((400, 52), np.float32)
    true[100:, 17] = np.minimum(np.arange(300) / 200, 1)
    labels = errors(lag=3.0).corrupt(true)[:, 17]
    # On a slope a first-order filter is late by its mean delay.
    assert labels[250] == pytest.approx(true[247, 17], abs=0.006)
    assert labels[-1] == pytest.approx(1, abs=0.006)


def test_noise_has_its_spread_and_correlation_and_differs_between_takes():
    true = np.full((3000, 52), 0.5, np.float32)
    noisy = errors(noise=0.05, noise_correlation=0.9)
    seen = statistics(noisy.corrupt(true))
    assert noisy.corrupt(true).std(axis=0).mean() == pytest.approx(0.05, rel=0.1)
    assert np.median(seen.autocorrelation_1) == pytest.approx(0.9, abs=0.03)
    first, second = noisy.corrupt(true, take=0), noisy.corrupt(true, take=1)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02


def test_statistics_measure_what_they_name():
    rng = np.random.default_rng(0)
    x = rng.integers(1, 101, (2000, 52)) / 100
    left, right = INDEX["browDownLeft"], INDEX["browDownRight"]
    x[:, right] = x[:, left]
    x[:1500, 17] = 0
    x[:, 18] = 0.1
    found = statistics(x)
    assert found.zeros[17] == 0.75 and found.zeros[16] == 0
    assert found.inactive.nonzero()[0].tolist() == [18]
    assert found.low[16] == pytest.approx(0.05, abs=0.02) and found.high[16] == pytest.approx(0.99, abs=0.02)
    assert (
        found.side_correlations.shape == (16,)
        and found.side_correlations.max() == pytest.approx(1)
        and np.median(found.side_correlations) < 0.1
    )
    assert found.correlations[left, right] == pytest.approx(1) and found.correlations[left, 16] == pytest.approx(
        0, abs=0.1
    )
    assert np.isnan(found.correlations[18, 16]) and np.isnan(found.autocorrelation_1[18])
    assert found.jitter[16] == pytest.approx(x[:, 16].std(), rel=0.05)
    steady = statistics(expression_sequence(0, 300))
    assert np.nanmedian(steady.autocorrelation_1) > 0.95 and np.median(steady.jitter) < 0.02
    assert found.summary()["inactive"] == pytest.approx(1 / 52)
    with pytest.raises(ValueError, match="T > 31"):
        statistics(x[:31])
    with pytest.raises(ValueError, match=r"\(2, 51\)"):
        errors().corrupt(np.zeros((2, 51)))


def test_severity_one_is_like_a_real_take():
    true = expression_sequence(5, 900)
    exact, captured = (statistics(each).summary() for each in (true.round(2), CaptureErrors.sample(5).corrupt(true)))
    assert exact["never_zero"] == 0 and captured["never_zero"] > 0.15
    assert captured["mostly_zero"] < 0.5 < exact["mostly_zero"]
    assert exact["sides"] < 0.95 < captured["sides"]
    assert captured["high"] < exact["high"]
    assert captured["together"] > exact["together"]
    assert captured["jitter"] < exact["jitter"]
    with pytest.raises(ConfigError, match="severity"):
        CaptureErrors.sample(0, 3)
