"""Expressions sampled like a take: possible, and with the statistics of parts of the take that were not fitted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticface import arkit, assets
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.semantics.take_sampler import sample_like_takes

# Gaze and blinks are sampled on their own; the held-out blocks show no tongue.
OWN = {*arkit.REGION_INDEX["gaze"], *(arkit.INDEX[name] for name in ("eyeBlinkLeft", "eyeBlinkRight", "tongueOut"))}
COMPARED = np.array([i for i in range(arkit.N_ACTIONS) if i not in OWN])
PAIRS = np.triu_indices(len(COMPARED), 1)


def many(sample: Callable[[np.random.Generator], np.ndarray]) -> np.ndarray:
    return np.stack([sample(np.random.default_rng([7, i])) for i in range(2000)])


@pytest.fixture(scope="module")
def like_takes() -> np.ndarray:
    return many(sample_like_takes)


@pytest.fixture(scope="module")
def held_out() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).with_name("take_held_out.npz")) as file:
        return {name: file[name].astype(float)[COMPARED] for name in file}


def agreement(values: np.ndarray, held_out: dict[str, np.ndarray]) -> tuple[float, float]:
    """Correlation of the correlations between actions, and of their standard deviations, with the held-out blocks'."""
    ours = np.corrcoef(values[:, COMPARED].T)[PAIRS]
    theirs = held_out["correlation"][:, COMPARED][PAIRS]
    return np.corrcoef(ours, theirs)[0, 1], np.corrcoef(values[:, COMPARED].std(0), held_out["sds"])[0, 1]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**63 - 1))
def test_every_sample_satisfies_the_constraints(seed):
    x = sample_like_takes(np.random.default_rng(seed))
    assert x.shape == (52,) and x.dtype == np.float32
    assert np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1
    assert not np.signbit(x).any()
    v = arkit.by_name(x)
    assert v["mouthClose"] <= v["jawOpen"]
    assert v["tongueOut"] == 0 or (v["jawOpen"] >= 0.1 and v["mouthClose"] == 0)
    for side in ("Left", "Right"):
        for a, b in (("eyeWide", "eyeBlink"), ("eyeLookUp", "eyeLookDown"), ("eyeLookIn", "eyeLookOut")):
            assert min(v[a + side], v[b + side]) == 0
    for part in ("jaw", "mouth"):
        assert min(v[f"{part}Left"], v[f"{part}Right"]) == 0


def test_actions_go_together_as_in_the_take(like_takes, held_out):
    together, spreads = agreement(like_takes, held_out)
    today, _ = agreement(many(sample_coefficients), held_out)
    assert together > 0.8 > today + 0.3
    assert spreads > 0.75


def test_means_and_spreads_are_those_of_the_take(like_takes, held_out):
    values = like_takes[:, COMPARED]
    assert np.abs(values.mean(0) - held_out["means"]).mean() < 0.06
    assert np.abs(values.std(0) - held_out["sds"]).mean() < 0.04


def test_left_and_right_have_equal_distributions(like_takes):
    assert np.abs(like_takes.mean(0) - arkit.mirror(like_takes).mean(0)).max() < 0.03


def test_blinks_and_gaze_are_rare_and_free(like_takes):
    closed = like_takes[:, arkit.INDEX["eyeBlinkLeft"]] > 0.5
    assert 0.03 < closed.mean() < 0.12
    gaze = np.abs(like_takes[:, arkit.REGION_INDEX["gaze"]]).max(1)
    assert 0.1 < (gaze > 0.3).mean() < 0.6


def test_samples_are_reproducible():
    first, again, other = (sample_like_takes(np.random.default_rng([3, k])) for k in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_no_frame_is_stored():
    with np.load(assets.path("take.npz")) as file:
        assert file["shares"].min() >= 5
        assert file["means"].shape == (len(file["shares"]), arkit.N_ACTIONS)
