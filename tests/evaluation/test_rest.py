"""Measures of a face at rest, on landmarks placed by hand."""

import numpy as np
import pytest

from semanticface import arkit
from semanticface.evaluation.rest import MEASURES, is_at_rest, measure, statistics


def face(*, lift: float = 0.0, smile: float = 0.0) -> np.ndarray:
    """Landmarks, float[478, 3] in pixels: eyes 40 wide and 100 apart, irises ``lift`` above their corners.

    The subject's left lies to the right of the picture; ``smile`` raises the left corner of the mouth.
    """
    points = np.zeros((478, 3))
    for middle, side, (inner, outer), upper, lower, iris, brow in (
        (150, 1, (362, 263), 386, 374, 473, (334, 296, 293, 282, 295, 283)),
        (50, -1, (133, 33), 159, 145, 468, (105, 66, 63, 52, 65, 53)),
    ):
        points[inner, :2], points[outer, :2] = (middle - 20 * side, 100), (middle + 20 * side, 100)
        points[upper, :2], points[lower, :2], points[iris, :2] = (middle, 92), (middle, 104), (middle, 100 - lift)
        points[list(brow), :2] = middle, 70
    points[[0, 17, 13, 14, 61, 291, 10, 152], :2] = [
        (100, 190), (100, 210), (100, 199), (100, 201), (75, 200), (125, 200 - smile), (100, 20), (100, 260),
    ]  # fmt: skip
    points[10, 2] = -25
    return points


def test_measures():
    found = measure(face(lift=2, smile=6))
    expected = {
        "iris": 0.05, "upper lid": 0.15, "opening": 0.3, "lips": 0.2, "brow": 0.3, "mouth corners": 0.03,
        "brow sides": 0.0, "mouth sides": 0.06,
    }  # fmt: skip
    assert found == pytest.approx(expected)
    assert list(found) == list(MEASURES)


def test_measures_do_not_depend_on_roll_and_scale():
    c, s = np.cos(0.4), np.sin(0.4)
    turned = face(lift=2, smile=6)
    turned[:, :2] = 3 * turned[:, :2] @ np.array([[c, s], [-s, c]]) + 11
    assert measure(turned) == pytest.approx(measure(face(lift=2, smile=6)))


def test_faces_at_rest():
    still = np.zeros(52)
    assert is_at_rest(face(), still)
    for name, value in (("mouthSmileLeft", 0.5), ("jawOpen", 0.2), ("eyeBlinkRight", 0.4)):
        assert not is_at_rest(face(), arkit.vector({name: value}))
    turned, gaping = face(), face()
    turned[263, 2] = 60
    gaping[14, 1] += 20
    assert not is_at_rest(turned, still)
    assert not is_at_rest(gaping, still)


def test_statistics():
    found = statistics([measure(face(lift=1)), measure(face(lift=3))])
    assert found["iris"] == pytest.approx((0.05, 0.025))
