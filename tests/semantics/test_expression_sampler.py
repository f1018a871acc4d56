"""Random expressions are possible, cover every action, and are symmetric in distribution."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticface import arkit
from semanticface.arkit import INDEX
from semanticface.semantics.expression_sampler import EXPRESSIONS, FAMILIES, VISEMES, sample_coefficients

SIDES = ("Left", "Right")


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    return np.stack([sample_coefficients(np.random.default_rng([7, i])) for i in range(6000)])


def column(values: np.ndarray, name: str) -> np.ndarray:
    return values[..., INDEX[name]]


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**63 - 1))
def test_every_sample_satisfies_the_constraints(seed):
    x = sample_coefficients(np.random.default_rng(seed))
    assert x.shape == (52,)
    assert x.dtype == np.float32
    assert np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1
    assert not np.signbit(x).any()
    v = arkit.by_name(x)
    assert v["mouthClose"] <= v["jawOpen"]
    assert v["tongueOut"] == 0 or v["jawOpen"] >= 0.1 * min(1, 8 * v["tongueOut"])
    assert min(v["tongueOut"], v["mouthClose"]) == 0
    for side in SIDES:
        assert min(v[f"eyeWide{side}"], v[f"eyeBlink{side}"]) == 0
        assert min(v[f"eyeLookUp{side}"], v[f"eyeLookDown{side}"]) == 0
        assert min(v[f"eyeLookIn{side}"], v[f"eyeLookOut{side}"]) == 0
    assert min(v["jawLeft"], v["jawRight"]) == 0
    assert min(v["mouthLeft"], v["mouthRight"]) == 0


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**63 - 1))
def test_both_eyes_look_at_one_point(seed):
    v = arkit.by_name(sample_coefficients(np.random.default_rng(seed)))
    lift = [v[f"eyeLookUp{side}"] - v[f"eyeLookDown{side}"] for side in SIDES]
    assert abs(lift[0] - lift[1]) < 0.2
    towards_left = (v["eyeLookOutLeft"] - v["eyeLookInLeft"], v["eyeLookInRight"] - v["eyeLookOutRight"])
    # Eyes may converge (the left eye turned further right than the right eye), hardly ever diverge.
    assert -1.1 <= towards_left[0] - towards_left[1] <= 0.2


def test_every_action_covers_its_range(many):
    share = (many > 0.1).mean(axis=0)
    assert share.min() > 0.14, arkit.NAMES[share.argmin()]
    # The jaw opens for three reasons: on its own, for the tongue, and below lips that stay closed.
    assert 0.3 < share[INDEX["jawOpen"]] < 0.55
    assert np.delete(share, INDEX["jawOpen"]).max() < 0.45
    for name in arkit.NAMES:
        active = column(many, name)[column(many, name) > 0.1]
        assert (active < 0.4).mean() > 0.15, name
        assert (active > 0.7).mean() > 0.15, name
    assert (many == 0).mean() > 0.5, "faces at rest in most actions"


def test_unrelated_actions_are_uncorrelated(many):
    correlation = np.corrcoef(many.T)
    related = np.eye(52, dtype=bool)
    related[np.arange(52), arkit.MIRROR_INDEX] = True
    gaze = arkit.REGION_INDEX["gaze"]
    related[np.ix_(gaze, gaze)] = True
    for a, b in (("mouthClose", "jawOpen"), ("tongueOut", "jawOpen")):
        related[INDEX[a], INDEX[b]] = related[INDEX[b], INDEX[a]] = True
    assert np.abs(correlation[~related]).max() < 0.3
    assert np.abs(correlation[~related]).mean() < 0.06


def test_left_and_right_have_equal_distributions(many):
    flipped = arkit.mirror(many)
    assert np.abs(many.mean(axis=0) - flipped.mean(axis=0)).max() < 0.02
    for name in ("mouthSmile", "browDown", "noseSneer", "mouthLowerDown"):
        left, right = column(many, f"{name}Left"), column(many, f"{name}Right")
        shown = np.maximum(left, right) > 0.2
        lopsided = np.abs(left - right)[shown] > 0.3
        assert 0.1 < lopsided.mean() < 0.4, name
        assert abs((left > right)[shown & (left != right)].mean() - 0.5) < 0.06, name


def test_opposites_are_rare_and_near_neutral_faces_occur(many):
    for a, b in (("mouthSmile", "mouthFrown"), ("mouthStretch", "mouthPress")):
        for side in SIDES:
            both = (column(many, a + side) > 0.15) & (column(many, b + side) > 0.15)
            assert both.mean() < 0.05
    assert 0.03 < (many.max(axis=1) < 0.17).mean() < 0.12
    wink = np.abs(column(many, "eyeBlinkLeft") - column(many, "eyeBlinkRight")) > 0.5
    assert 0.02 < wink.mean() < 0.2


def test_gaze_fades_behind_closed_lids(many):
    shut = (column(many, "eyeBlinkLeft") > 0.97) & (column(many, "eyeBlinkRight") > 0.97)
    assert shut.any()
    assert many[shut][:, arkit.REGION_INDEX["gaze"]].max() < 0.12


def test_samples_are_reproducible():
    first, again, other = (sample_coefficients(np.random.default_rng([3, k])) for k in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_prototypes_use_known_families():
    for prototype in (*EXPRESSIONS.values(), *VISEMES.values()):
        for family, level in prototype.items():
            assert family in FAMILIES or family == "eyeBlink"
            assert 0 < level <= 1
