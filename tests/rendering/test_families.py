"""Families of heads, and subjects who carry out the actions in their own way."""

import numpy as np
import pytest

from semanticface import arkit
from semanticface.data.rendered import RenderSettings, family_of, render_row
from semanticface.errors import ConfigError
from semanticface.rendering import FAMILIES, POINTS, render
from semanticface.rendering.head.movement import movement_of, varied
from semanticface.rendering.head.rig import (
    EYE_LEFT,
    EYE_RIGHT,
    LOWER_TEETH,
    SKIN,
    TONGUE,
    UPPER_TEETH,
    Rig,
    rig,
)
from semanticface.semantics.expression_sampler import sample_coefficients

# Heights on the base mesh between which most of an action happens, by region.
HEIGHTS = {"brows": (0.2, 1.2), "eyes": (0.1, 0.7), "gaze": (0.1, 0.7), "nose": (-0.35, 0.6), "cheeks": (-0.8, 0.5),
           "mouth": (-1.2, 0.2), "jaw": (-1.7, 0.1), "tongue": (-0.9, 0.0)}  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def head(request: pytest.FixtureRequest) -> Rig:
    return rig(request.param)


def coefficients(*names: str, **values: float) -> np.ndarray:
    """Coefficients with the named actions at 1, or at the value given."""
    return arkit.vector(dict.fromkeys(names, 1.0) | values)


@pytest.mark.parametrize("action", arkit.ACTIONS, ids=lambda a: a.name)
def test_each_action_moves_its_region_on_its_side(head: Rig, action: arkit.Action) -> None:
    moved = np.linalg.norm(head.vertices(coefficients(action.name)) - head.average.vertices, axis=1)
    assert moved.max() > 0.03
    weights = moved * np.isin(head.part, (SKIN, TONGUE, EYE_LEFT, EYE_RIGHT))
    place = (head.base * weights[:, None]).sum(0) / weights.sum()
    low, high = HEIGHTS[action.region]
    assert low < place[1] < high
    if action.side != "both" and action.region not in ("jaw",) and action.name not in ("mouthLeft", "mouthRight"):
        assert place[0] * (1 if action.side == "left" else -1) > 0.05


def test_points_and_places_are_those_of_the_base_mesh(head: Rig) -> None:
    base = rig("makehuman")
    inner = [k for k, name in enumerate(POINTS) if name.startswith(("brow", "eye", "lip", "mouth", "noseT", "chin"))]
    assert np.abs(head.base[head.point_ids[inner]] - base.base[base.point_ids[inner]]).max() < 0.02
    assert np.abs(head.average.vertices[head.point_ids] - base.average.vertices[base.point_ids]).max() < 0.30
    names = dict(zip(POINTS, head.point_ids, strict=True))
    for name, i in names.items():
        if "Left" in name:
            other = head.average.vertices[names[name.replace("Left", "Right")]]
            assert np.allclose(head.average.vertices[i] * [-1, 1, 1], other, atol=0.03), name
    skin = head.part == SKIN
    flipped = head.average.vertices[head.mirror] * [-1, 1, 1]
    assert np.abs(flipped - head.average.vertices)[skin].max() < 0.08  # thinning is not symmetric


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_a_blink_closes_the_eye_of_every_head(head: Rig, seed: int | None) -> None:
    identity = head.average if seed is None else varied(head.identity(seed), seed)
    points = dict(zip(POINTS, head.point_ids, strict=True))
    shut = head.vertices(coefficients("eyeBlinkLeft", "eyeBlinkRight"), identity)
    for side in ("Left", "Right"):
        pairs = [(points[f"eye{side}Upper{k}"], points[f"eye{side}Lower{k}"]) for k in ("Inner", "Outer")]
        rest = np.mean([identity.vertices[a, 1] - identity.vertices[b, 1] for a, b in pairs])
        left = np.mean([shut[a, 1] - shut[b, 1] for a, b in pairs])
        assert left < 0.35 * rest


def test_teeth_of_the_second_family_lie_behind_the_lips_and_its_lids_before_the_eyes() -> None:
    head = rig("ict")
    points = dict(zip(POINTS, head.point_ids, strict=True))
    for seed in range(4):
        identity = head.identity(seed)
        lips = identity.vertices[[points["mouthUpper"], points["mouthLower"]], 2].min()
        assert identity.vertices[np.isin(head.part, (UPPER_TEETH, LOWER_TEETH, TONGUE)), 2].max() < lips
        v = head.vertices(coefficients("eyeBlinkLeft", "eyeSquintRight"), identity)
        for side in range(2):
            near = (head.part == SKIN) & (head.masks[:, 2] > 0.9) & (v[:, 2] > identity.eye_centres[side, 2])
            away = np.linalg.norm(v[near] - identity.eye_centres[side], axis=1)
            assert away.min() > 0.99 * identity.eye_radii[side]


def test_subjects_move_in_their_own_ways_about_the_same_mean() -> None:
    movements = [movement_of(k) for k in range(200)]
    gains = np.stack([np.diagonal(m.mixing) for m in movements])
    blink, jaw, close = (arkit.INDEX[n] for n in ("eyeBlinkLeft", "jawOpen", "mouthClose"))
    assert gains.min() >= 0.6 and gains.max() <= 1.4 + 1e-6
    assert np.abs(gains.mean(0) - 1).max() < 0.06
    assert (gains[:, blink] == 1).all() and gains[:, jaw].min() >= 0.8 and gains[:, jaw].max() <= 1.2 + 1e-6
    assert np.array_equal(gains[:, close], gains[:, jaw])
    left, right = (gains[:, arkit.INDEX[f"mouthSmile{side}"]] for side in ("Left", "Right"))
    assert 0 < np.abs(left - right).mean() < 0.1 and left.std() > 0.1
    extra = movements[0].mixing - np.diag(np.diagonal(movements[0].mixing))
    assert 0 < extra.max() < 0.08 and extra.min() == 0
    for j, action in enumerate(arkit.ACTIONS):
        for k in np.flatnonzero(extra[:, j]):
            assert arkit.ACTIONS[k].region == action.region
    gaze = np.stack([m.gaze for m in movements])
    assert gaze.min() >= 0.85 and gaze.max() <= 1.15
    assert np.array_equal(movement_of(5).mixing, movements[5].mixing)


def test_gaze_turns_by_the_subjects_own_angle() -> None:
    head = rig()
    identity = varied(head.average, 3)
    assert identity.movement is not None
    eye = int(np.flatnonzero(head.part == EYE_LEFT)[0])
    away = head.vertices(coefficients("eyeLookOutLeft"), identity)[eye] - identity.eye_centres[0]
    degrees = np.degrees(np.arcsin(away[0] / np.linalg.norm(away)))
    assert degrees == pytest.approx(arkit.GAZE_DEGREES["Out"] * identity.movement.gaze[0, 0], abs=0.5)


@pytest.mark.parametrize("style", ["photo", "toon"])
def test_renders_differ_by_family_and_movement_and_keep_their_labels(style: str) -> None:
    c = sample_coefficients(np.random.default_rng(4))
    plain, other, moved = (
        render(c, style=style, subject=5, shot=5, size=64, **kwargs)
        for kwargs in ({}, {"family": "ict"}, {"vary_actions": True})
    )
    again = render(c, style=style, subject=5, shot=5, size=64, family="ict")
    assert np.array_equal(other.image, again.image)
    assert not np.array_equal(plain.image, other.image) and not np.array_equal(plain.image, moved.image)
    for each in (plain, other, moved):
        assert np.array_equal(each.coefficients, c) and np.isfinite(each.points).all()
    with pytest.raises(ConfigError, match="family 'elf'"):
        render(c, family="elf")


def test_a_persons_family_depends_on_number_and_shares_only() -> None:
    shares = {"makehuman": 3.0, "ict": 1.0}
    families = [family_of(k, shares) for k in range(2000)]
    assert families == [family_of(k, shares) for k in range(2000)]
    assert families.count("ict") / 2000 == pytest.approx(0.25, abs=0.04)
    assert set(map(RenderSettings().families.get, FAMILIES)) == {1.0, None}
    settings = RenderSettings(rows=1, size=32, supersample=1, families={"ict": 1.0}, vary_actions=True)
    c = sample_coefficients(np.random.default_rng(1))
    rows = {style: render_row(settings, c, style=style, subject=1, shot=1, seed=1) for style in ("photo", "drawn")}
    assert rows["photo"]["family"] == "ict" and rows["drawn"]["family"] == ""
    assert np.array_equal(rows["photo"]["coefficients"], c)
    with pytest.raises(ConfigError, match="family 'elf'"):
        RenderSettings(families={"elf": 1.0})
