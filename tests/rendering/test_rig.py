"""The rig: what each action moves, gaze, identities."""

import numpy as np
import pytest

from semanticface import arkit
from semanticface.rendering.head.rig import EYE_LEFT, EYE_RIGHT, SKIN, Rig, rig
from semanticface.rendering.types import POINTS


@pytest.fixture(scope="module")
def head() -> Rig:
    return rig()


def coefficients(*names: str, **values: float) -> np.ndarray:
    """Coefficients with the named actions at 1, or at the value given."""
    return arkit.vector(dict.fromkeys(names, 1.0) | values)


@pytest.mark.parametrize("action", arkit.ACTIONS, ids=lambda a: a.name)
def test_each_action_moves_its_own_side(head: Rig, action: arkit.Action) -> None:
    moved = np.linalg.norm(head.vertices(coefficients(action.name)) - head.average.vertices, axis=1)
    assert moved.max() > 0.03
    if action.side != "both" and action.region not in ("jaw", "mouth"):
        sign = 1 if action.side == "left" else -1
        off_side = head.base[:, 0] * sign < -0.12
        assert moved[~off_side].max() > 3 * moved[off_side].max()
    if action.name.startswith(("mouthSmile", "mouthStretch", "mouthFrown", "mouthDimple", "mouthPress")):
        sign = 1 if action.side == "left" else -1
        assert moved[head.base[:, 0] * sign > 0.2].mean() > 2 * moved[head.base[:, 0] * sign < -0.2].mean()


def test_mirrored_coefficients_give_the_mirrored_head(head: Rig) -> None:
    rng = np.random.default_rng(0)
    c = (rng.random(52) * (rng.random(52) < 0.3)).astype(np.float32)
    left = head.vertices(c)
    right = head.vertices(arkit.mirror(c))[head.mirror] * [-1, 1, 1]
    skin = head.part == SKIN
    assert np.abs(left - right)[skin].max() < 0.03  # the pack's own targets are not perfectly symmetric


@pytest.mark.parametrize(
    ("name", "axis", "degrees"),
    [("eyeLookOutLeft", 0, 30.0), ("eyeLookInLeft", 0, -30.0), ("eyeLookUpLeft", 1, 22.0)],
)
def test_gaze_rotates_the_eyeball_by_the_stated_angle(head: Rig, name: str, axis: int, degrees: float) -> None:
    pupil = int(np.flatnonzero(head.part == EYE_LEFT)[0])
    still = int(np.flatnonzero(head.part == EYE_RIGHT)[0])
    v = head.vertices(coefficients(name))
    direction = v[pupil] - head.average.eye_centres[0]
    assert np.degrees(np.arcsin(direction[axis] / np.linalg.norm(direction))) == pytest.approx(degrees, abs=0.5)
    assert np.allclose(v[still], head.average.vertices[still])


def test_both_eyes_look_to_the_subjects_left(head: Rig) -> None:
    gaze = head.eye_angles(coefficients("eyeLookOutLeft", "eyeLookInRight"))
    assert np.allclose(gaze, [[30, 0], [30, 0]])


def test_lids_meet_at_blink_whatever_the_gaze(head: Rig) -> None:
    points = dict(zip(POINTS, head.point_ids, strict=True))
    upper, lower = points["eyeLeftUpperInner"], points["eyeLeftLowerInner"]
    open_gap = np.diff(head.average.vertices[[lower, upper], 1])[0]
    for extra in ([], ["eyeLookDownLeft"], ["eyeSquintLeft"], ["eyeLookDownLeft", "eyeSquintLeft"]):
        v = head.vertices(coefficients("eyeBlinkLeft", *extra))
        assert abs(v[upper, 1] - v[lower, 1]) < 0.6 * open_gap


def test_lids_never_sink_into_the_eyeball(head: Rig) -> None:
    for seed in range(4):
        identity = head.identity(seed)
        v = head.vertices(coefficients("eyeBlinkLeft", "eyeSquintRight", "eyeLookUpRight"), identity)
        for side in range(2):
            near = (head.part == SKIN) & (head.masks[:, 2] > 0.9) & (v[:, 2] > identity.eye_centres[side, 2])
            away = np.linalg.norm(v[near] - identity.eye_centres[side], axis=1)
            assert away.min() > 0.99 * identity.eye_radii[side]


def test_mouth_close_shuts_the_lips_of_an_open_jaw(head: Rig) -> None:
    points = dict(zip(POINTS, head.point_ids, strict=True))
    rows = [points["mouthUpper"], points["mouthLower"], points["chin"]]

    def gap(c: np.ndarray) -> tuple[float, float]:
        upper, lower, chin = head.vertices(c)[rows, 1]
        return float(upper - lower), float(chin)

    (rest, chin_rest), (wide, chin_wide) = gap(coefficients()), gap(coefficients("jawOpen"))
    shut, chin_shut = gap(coefficients("jawOpen", "mouthClose"))
    assert wide > rest + 0.15
    assert abs(shut - rest) < 0.05
    assert chin_shut == pytest.approx(chin_wide, abs=0.05) and chin_wide < chin_rest - 0.1


def test_a_batch_equals_single_calls(head: Rig) -> None:
    c = np.random.default_rng(1).random((2, 3, 52)).astype(np.float32)
    batch = head.vertices(c)
    assert batch.shape == (2, 3, len(head.base), 3) and batch.dtype == np.float32
    assert np.array_equal(batch[1, 2], head.vertices(c[1, 2]))


def test_identities_differ_but_keep_their_eyes_in_place(head: Rig) -> None:
    a, b = head.identity(1), head.identity(2)
    assert np.abs(a.vertices - b.vertices).max() > 0.1
    assert np.array_equal(a.vertices, head.identity(1).vertices)
    assert np.allclose(a.eye_centres.mean(0), b.eye_centres.mean(0), atol=1e-4)
    assert sum(a.ancestry) == pytest.approx(1)
    wild = head.identity(1, spread=0.45)
    assert np.abs(wild.vertices - head.average.vertices).mean() > np.abs(a.vertices - head.average.vertices).mean()


def test_points_lie_where_their_names_say(head: Rig) -> None:
    v = head.average.vertices
    at = {name: v[i] for name, i in zip(POINTS, head.point_ids, strict=True)}
    for name, place in at.items():
        if "Left" in name:
            assert place[0] > 0, name
            assert np.allclose(place * [-1, 1, 1], at[name.replace("Left", "Right")], atol=0.03), name
    down = ["browLeft3", "eyeLeftUpperInner", "eyeLeftLowerInner", "noseTip", "noseBase", "lipUpper", "mouthUpper",
            "mouthLower", "lipLower", "chin"]  # fmt: skip
    heights = [at[name][1] for name in down]
    assert heights == sorted(heights, reverse=True)
    assert 0.5 < head.inter_pupil < 0.75


def test_faces_at_rest_differ_and_are_uneven_by_shape(head: Rig) -> None:
    people = [head.identity(seed) for seed in range(12)]
    lids = np.array([p.lids for p in people])
    assert lids.std(0).min() > 0.03
    assert 0 < np.abs(lids[:, 0] - lids[:, 1]).max() < 0.15
    corners = [POINTS.index(name) for name in ("lipCornerLeft", "lipCornerRight")]
    heights = np.array([p.vertices[head.point_ids[corners], 1] for p in people])
    assert 0.005 < np.abs(heights[:, 0] - heights[:, 1]).max() < 0.1


def test_low_lids_close_as_far_as_others(head: Rig) -> None:
    upper, lower = (POINTS.index(f"eyeLeft{lid}Inner") for lid in ("Upper", "Lower"))
    gaps = []
    for seed in range(8):
        v = head.vertices(coefficients("eyeBlinkLeft"), head.identity(seed))
        gaps.append(v[head.point_ids[upper], 1] - v[head.point_ids[lower], 1])
    open_gap = np.diff(head.average.vertices[head.point_ids[[lower, upper]], 1])[0]
    assert np.abs(gaps).max() < 0.4 * open_gap
