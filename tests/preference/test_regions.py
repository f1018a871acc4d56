"""Upper and lower halves: every action in one of them, none in both, and distances that see only their own."""

import numpy as np
import pytest

from semanticface import arkit
from semanticface.preference.regions import ACTIONS, AREAS, HALVES, distance, mask_outside, merge_halves


def faces(seed: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).random((count, arkit.N_ACTIONS)).astype(np.float32)


def test_halves_part_the_actions_and_keep_mirror_partners_together():
    assert sorted(ACTIONS["upper"] + ACTIONS["lower"]) == list(range(arkit.N_ACTIONS)) == list(ACTIONS["whole"])
    for half in HALVES:
        assert {arkit.MIRROR_INDEX[index] for index in ACTIONS[half]} == set(ACTIONS[half])
    assert arkit.INDEX["browInnerUp"] in ACTIONS["upper"]
    assert arkit.INDEX["noseSneerLeft"] in ACTIONS["lower"]


def test_combining_a_face_with_itself_gives_it_back():
    one, other = faces(0), faces(1)
    assert np.array_equal(merge_halves(one, one), one)
    mixed = merge_halves(one, other)
    assert np.array_equal(mask_outside(mixed, "upper"), mask_outside(one, "upper"))
    assert np.array_equal(mask_outside(mixed, "lower"), mask_outside(other, "lower"))


@pytest.mark.parametrize("area", AREAS)
def test_distance_sees_its_own_area_alone(area):
    one, other = faces(2), faces(3)
    assert (distance(one, other, area) > 0).all()
    assert distance(one, one, area) == pytest.approx(np.zeros(4))
    if area != "whole":
        rest = "lower" if area == "upper" else "upper"
        changed = merge_halves(one, other) if area == "upper" else merge_halves(other, one)
        assert distance(changed, one, area) == pytest.approx(np.zeros(4))
        assert (distance(changed, one, rest) > 0).all()
