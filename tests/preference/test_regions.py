"""Upper and lower halves: every action is in exactly one, and distances see only their own region."""

import numpy as np
import pytest

from semanticface import arkit
from semanticface.preference.regions import ACTIONS, HALVES, REGIONS, distance, mask_outside, merge_halves


def faces(seed: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).random((count, arkit.N_ACTIONS)).astype(np.float32)


def test_halves_partition_the_actions_and_keep_mirror_partners_together():
    assert sorted(ACTIONS["upper"] + ACTIONS["lower"]) == list(range(arkit.N_ACTIONS)) == list(ACTIONS["whole"])
    for half in HALVES:
        assert {arkit.MIRROR_INDEX[index] for index in ACTIONS[half]} == set(ACTIONS[half])
    assert arkit.INDEX["browInnerUp"] in ACTIONS["upper"]
    assert arkit.INDEX["noseSneerLeft"] in ACTIONS["lower"]


def test_merging_a_face_with_itself_returns_it():
    one, other = faces(0), faces(1)
    assert np.array_equal(merge_halves(one, one), one)
    mixed = merge_halves(one, other)
    assert np.array_equal(mask_outside(mixed, "upper"), mask_outside(one, "upper"))
    assert np.array_equal(mask_outside(mixed, "lower"), mask_outside(other, "lower"))


@pytest.mark.parametrize("region", REGIONS)
def test_distance_sees_only_its_region(region):
    one, other = faces(2), faces(3)
    assert (distance(one, other, region) > 0).all()
    assert distance(one, one, region) == pytest.approx(np.zeros(4))
    if region != "whole":
        rest = "lower" if region == "upper" else "upper"
        changed = merge_halves(one, other) if region == "upper" else merge_halves(other, one)
        assert distance(changed, one, region) == pytest.approx(np.zeros(4))
        assert (distance(changed, one, rest) > 0).all()
