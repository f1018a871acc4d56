"""How capture software errs: plausible sequences, each error on its own, and statistics that find them again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticface import arkit
from semanticface.errors import ConfigError
from semanticface.experiments.noisy_captures import CaptureErrors, statistics, wander

INDEX = arkit.INDEX


def errors(**changed):
    """Errors that are none, but for what is given."""
    none = {"gain": np.ones(52), "bias": np.zeros(52), "mix": np.eye(52), "lag": 0.0, "noise": 0.0, "memory": 0.0}
    return CaptureErrors(**(none | {"seed": 0} | changed))


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.integers(0, 200))
def test_wandering_is_smooth_and_obeys_the_rules_of_a_face(seed, frames):
    sequence = wander(seed, frames)
    assert sequence.shape == (frames, 52) and sequence.dtype == np.float32
    assert ((sequence >= 0) & (sequence <= 1)).all()
    assert np.array_equal(sequence, wander(seed, frames + 50)[:frames])
    if frames > 1:
        # The steepest part of a minimum-jerk path of 4 frames, from one extreme to its opposite.
        assert np.abs(np.diff(sequence, axis=0)).max() < 2 * 1.875 / 4
    assert (sequence[:, INDEX["mouthClose"]] <= sequence[:, INDEX["jawOpen"]] + 1e-6).all()
    for one, other in (("jawLeft", "jawRight"), ("eyeLookInLeft", "eyeLookOutLeft"), ("eyeWideLeft", "eyeBlinkLeft")):
        assert not (sequence[:, INDEX[one]] * sequence[:, INDEX[other]]).any()


def test_seeds_wander_elsewhere():
    assert not np.array_equal(wander(0, 60), wander(1, 60))
    with pytest.raises(ConfigError, match="frames"):
        wander(0, -1)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
@settings(max_examples=15)
def test_whatever_is_drawn_gives_hundredths_in_range_again_and_again(seed, severity):
    drawn, true = CaptureErrors.draw(seed, severity), wander(seed, 40)
    written = drawn.corrupt(true)
    assert written.shape == true.shape and written.dtype == np.float32
    assert ((written >= 0) & (written <= 1)).all() and not np.signbit(written).any()
    assert np.allclose(written * 100, np.round(written * 100), atol=1e-4)
    assert np.array_equal(written, CaptureErrors.draw(seed, severity).corrupt(true))
    assert (written[:, drawn.dead] == 0).all()
    assert np.array_equal(drawn.dead, drawn.dead[arkit.MIRROR_INDEX])
    if severity == 0:
        assert np.allclose(written, true, atol=0.0051)
    elif severity == 1:
        assert np.abs(written - true).mean() > 0.03


def test_each_error_does_what_it_says():
    true = np.zeros((60, 52), np.float32)
    smile, frown, jaw = INDEX["mouthSmileLeft"], INDEX["mouthFrownLeft"], INDEX["jawOpen"]
    true[20:, smile] = 0.8
    gain, bias, mix = np.ones(52), np.zeros(52), np.eye(52)
    gain[smile], gain[jaw], bias[frown], mix[frown, smile] = 0.5, 0.0, -0.1, 0.25
    written = errors(gain=gain, bias=bias, mix=mix).corrupt(true)
    assert written[-1, smile] == pytest.approx(0.4) and not written[:20].any()
    assert written[-1, frown] == pytest.approx(0.25 * 0.8 - 0.1)
    assert errors(gain=gain).dead.nonzero()[0].tolist() == [jaw]
    assert np.count_nonzero(written[-1]) == 2


def test_what_is_written_trails_by_the_lag():
    true = np.zeros((400, 52), np.float32)
    true[100:, 17] = np.minimum(np.arange(300) / 200, 1)
    written = errors(lag=3.0).corrupt(true)[:, 17]
    # On a slope a filter of first order trails by its mean delay.
    assert written[250] == pytest.approx(true[247, 17], abs=0.006)
    assert written[-1] == pytest.approx(1, abs=0.006)


def test_noise_has_its_spread_and_memory_and_is_new_in_each_take():
    true = np.full((3000, 52), 0.5, np.float32)
    noisy = errors(noise=0.05, memory=0.9)
    seen = statistics(noisy.corrupt(true))
    assert noisy.corrupt(true).std(axis=0).mean() == pytest.approx(0.05, rel=0.1)
    assert np.median(seen.steadiness) == pytest.approx(0.9, abs=0.03)
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
    assert found.sides.shape == (16,) and found.sides.max() == pytest.approx(1) and np.median(found.sides) < 0.1
    assert found.together[left, right] == pytest.approx(1) and found.together[left, 16] == pytest.approx(0, abs=0.1)
    assert np.isnan(found.together[18, 16]) and np.isnan(found.steadiness[18])
    assert found.jitter[16] == pytest.approx(x[:, 16].std(), rel=0.05)
    steady = statistics(wander(0, 300))
    assert np.nanmedian(steady.steadiness) > 0.95 and np.median(steady.jitter) < 0.02
    assert found.summary()["inactive"] == pytest.approx(1 / 52)
    with pytest.raises(ValueError, match="T > 31"):
        statistics(x[:31])
    with pytest.raises(ValueError, match=r"\(2, 51\)"):
        errors().corrupt(np.zeros((2, 51)))


def test_severity_one_leaves_what_a_real_take_leaves():
    true = wander(5, 900)
    exact, captured = (statistics(each).summary() for each in (true.round(2), CaptureErrors.draw(5).corrupt(true)))
    assert exact["never_zero"] == 0 and captured["never_zero"] > 0.15
    assert captured["mostly_zero"] < 0.5 < exact["mostly_zero"]
    assert exact["sides"] < 0.95 < captured["sides"]
    assert captured["high"] < exact["high"]
    assert captured["together"] > exact["together"]
    assert captured["jitter"] < exact["jitter"]
    with pytest.raises(ConfigError, match="severity"):
        CaptureErrors.draw(0, 3)
