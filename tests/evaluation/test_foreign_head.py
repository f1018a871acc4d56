"""The head of another maker: every action moves the right part and side, and the pictures show it."""

from pathlib import Path

import numpy as np
import pytest

from semanticface import arkit
from semanticface.evaluation.foreign_head import EYE_LEFT, EYE_RIGHT, TEETH, UNSCORED, ForeignHead

FOLDER = Path(__file__).parents[2] / "eval" / "data"


@pytest.fixture(scope="module")
def head():
    return ForeignHead(FOLDER)


def moved(head, **values):
    return head.vertices(arkit.vector(values)) - head.vertices(np.zeros(52))


@pytest.mark.parametrize("name", [n for n in arkit.NAMES if n not in UNSCORED])
def test_an_action_moves_its_side(head, name):
    delta, rest = moved(head, **{name: 1.0}), head.vertices(np.zeros(52))
    amount = np.linalg.norm(delta, axis=1)
    assert amount.max() > 0.03
    place, way = np.average(rest[:, 0], weights=amount), np.average(delta[:, 0], weights=amount)
    if name in ("jawLeft", "jawRight", "mouthLeft", "mouthRight"):
        place = way  # the whole part moves to the side
    if name.endswith("Left"):
        assert place > 0.01
    elif name.endswith("Right"):
        assert place < -0.01
    else:
        assert abs(place) < 0.01


def test_the_tongue_does_not_move(head):
    assert UNSCORED == ("tongueOut",)
    assert not moved(head, tongueOut=1.0).any()


def test_eyes_turn_by_the_angles_of_our_rig(head):
    rest = head.vertices(np.zeros(52))
    for side, name in enumerate(("Left", "Right")):
        centre = head.eye_centres[side]
        eye = np.unique(head.corners[head.triangles[head.part == (EYE_LEFT, EYE_RIGHT)[side]]])
        front = eye[rest[eye, 2].argmax()]
        for way, degrees, axis in (("Out", 30, 0), ("In", 30, 0), ("Up", 22, 1), ("Down", 25, 1)):
            turned = head.vertices(arkit.vector({f"eyeLook{way}{name}": 1.0}))[front] - centre
            before = rest[front] - centre
            # Angles within the plane in which the eye turns.
            found = np.degrees(np.arctan2(turned[axis], turned[2]) - np.arctan2(before[axis], before[2]))
            outwards = 1 - 2 * side
            sign = {"Out": outwards, "In": -outwards, "Up": 1, "Down": -1}[way]
            assert found == pytest.approx(sign * degrees, abs=1.5), (name, way)


def test_lower_teeth_follow_the_jaw_and_upper_ones_stay(head):
    teeth = np.unique(head.corners[head.triangles[head.part == TEETH]])
    upper, lower = teeth[teeth >= len(head.vertices(np.zeros(52))) - 614], teeth[:574]
    assert len(upper) == 614 and len(lower) == 574
    opened = moved(head, jawOpen=1.0)
    assert not opened[upper].any()
    assert opened[lower, 1].max() < -0.1
    assert (moved(head, jawLeft=1.0)[lower, 0] > 0.02).all()


def test_pictures_show_the_expression_and_repeat(head):
    plain = head.draw(np.zeros(52), size=96)
    assert plain.image.shape == (96, 96, 3)
    assert plain.box[2] - plain.box[0] == pytest.approx(0.72 * 96, rel=0.01)
    assert plain.camera["yaw"] == 0
    # The subject's left is on the right of the picture.
    wink = head.draw(arkit.vector({"eyeBlinkLeft": 1.0}), size=96)
    change = np.abs(wink.image.astype(int) - plain.image).sum(axis=(0, 2))
    assert change[48:].sum() > 20 * change[:48].sum()
    shots = [head.draw(np.zeros(52), shot=shot, size=64) for shot in (1, 1, 2)]
    assert np.array_equal(shots[0].image, shots[1].image)
    assert not np.array_equal(shots[0].image, shots[2].image)
    assert shots[0].camera != shots[2].camera
    assert np.isnan(shots[0].points).all()
