"""What makes pictures wild: it follows from the seed, changes no label, and hard is harder than usual."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from semanticface.errors import ConfigError
from semanticface.rendering import CONDITIONS, render
from semanticface.rendering.head.accessories import glasses
from semanticface.rendering.head.appearance import appearance_of
from semanticface.rendering.head.hair import hair_mesh
from semanticface.rendering.head.headwear import headwear
from semanticface.rendering.head.occluders import hand, held_object, loose_hair
from semanticface.rendering.head.outfit import EMPTY_OUTFIT, Outfit, outfit
from semanticface.rendering.head.props import Prop
from semanticface.rendering.head.rig import rig
from semanticface.rendering.sensor import degrade_drawing, simulate_sensor
from semanticface.rendering.shading.background import background
from semanticface.rendering.shading.lighting import sample_lights


def test_conditions_leave_labels_of_a_plain_portrait_alone() -> None:
    c = np.full(52, 0.3)
    for style in ("photo", "toon", "drawn"):
        usual, hard = (render(c, style=style, subject=4, size=64, conditions=name) for name in CONDITIONS)
        assert usual.image.tobytes() == hard.image.tobytes()
    with pytest.raises(ConfigError, match="nightmare"):
        render(c, size=64, conditions="nightmare")  # type: ignore[arg-type]


def test_hard_turns_heads_further_and_loses_more() -> None:
    turns, lost = {}, {}
    clean = render(np.zeros(52), style="toon", subject=None, size=96).image.astype(np.float32) / 255
    for name in CONDITIONS:
        faces = [render(np.zeros(52), style="drawn", subject=k, shot=k, size=32, conditions=name) for k in range(60)]
        turns[name] = np.mean([abs(face.camera["yaw"]) for face in faces])
        # How much of the finest detail's contrast a sensor leaves is not a matter of exposure.
        lost[name] = np.mean([_correlation(simulate_sensor(clean, k, name), clean) for k in range(60)])
    assert turns["hard"] > 1.25 * turns["usual"]
    assert 1 - lost["hard"] > 1.5 * (1 - lost["usual"])


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    edges = [np.diff(p.astype(float).mean(-1), axis=1).ravel() for p in (one, other)]
    return float(np.corrcoef(*edges)[0, 1])


def test_light_is_more_contrasted_in_hard_conditions() -> None:
    harsh = {}
    for name in CONDITIONS:
        scenes = [sample_lights(k, name) for k in range(200)]
        harsh[name] = np.mean([s.pattern is not None for s in scenes])
        assert all(np.allclose(np.linalg.norm(s.directions, axis=1), 1, atol=1e-5) for s in scenes)
        assert all(s.exposure > 0 and (s.colours >= 0).all() for s in scenes)
    assert 0.02 < harsh["usual"] < 0.15 < harsh["hard"]


@pytest.mark.parametrize("conditions", CONDITIONS)
def test_sensor_and_print_follow_from_the_seed(conditions: str) -> None:
    picture = background(1, 80)
    shown = (picture * 255).astype(np.uint8)
    seen = set()
    for k in range(25):
        first, again = (simulate_sensor(picture, k, conditions) for _ in range(2))  # type: ignore[arg-type]
        assert first.shape == (80, 80, 3) and first.dtype == np.uint8 and first.tobytes() == again.tobytes()
        drawn = degrade_drawing(shown, k, conditions)  # type: ignore[arg-type]
        assert drawn.shape == shown.shape and drawn.tobytes() == degrade_drawing(shown, k, conditions).tobytes()  # type: ignore[arg-type]
        seen.add(first.tobytes())
    assert len(seen) == 25
    assert np.array_equal(simulate_sensor(picture, None), (picture * 255 + 0.5).astype(np.uint8))


def test_backgrounds_differ_and_stay_in_range() -> None:
    pictures = [background(k, 40) for k in range(80)]
    for picture in pictures:
        assert picture.shape == (40, 40, 3) and picture.dtype == np.float32
        assert picture.min() >= 0 and picture.max() <= 1
    assert len({p.tobytes() for p in pictures}) == 80
    assert np.array_equal(pictures[7], background(7, 40))


@pytest.mark.parametrize("subject", range(12))
def test_glasses_stand_before_the_eyes_and_clear_the_face(subject: int) -> None:
    identity = rig().identity(subject)
    frame, lenses = glasses(identity, subject, tinted=False)
    assert np.isfinite(frame.positions).all() and frame.triangles.max() < len(frame.positions)
    assert lenses.triangles.max() < len(lenses.positions)
    half = len(lenses.positions) // 2
    for pane, eye in zip((lenses.positions[:half], lenses.positions[half:]), identity.eye_centres, strict=True):
        low, high = pane.min(0), pane.max(0)
        assert (low[:2] < eye[:2]).all() and (eye[:2] < high[:2]).all() and low[2] > eye[2] + 0.05
    # The arms end behind the ears' front, the frame is about as wide as the head.
    assert frame.positions[:, 2].min() < 0.15 and 0.45 < frame.positions[:, 0].max() < 1.2


def worn(subject: int, shot: int | None, conditions: str = "usual") -> Outfit:
    identity = rig().average
    return outfit(subject, shot, identity, identity.vertices, appearance_of(subject, identity), conditions)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [hand, held_object, loose_hair])
def test_what_is_held_lies_before_the_face_and_not_in_it(make: Callable[..., Prop]) -> None:
    identity = rig().average
    front = np.zeros(52, np.float32)
    vertices = rig().vertices(front, identity)
    for seed in range(8):
        prop = make(vertices, appearance_of(1, identity), seed)
        assert np.isfinite(prop.positions).all() and prop.triangles.min() == 0
        assert len(prop.positions) == len(prop.colour) == len(prop.surface) == prop.triangles.max() + 1
        assert (prop.colour >= 0).all() and prop.positions[:, 2].max() > 0.6
        again = make(vertices, appearance_of(1, identity), seed)
        assert np.array_equal(prop.positions, again.positions)


def test_hats_lie_on_the_hair_and_leave_the_eyes_free() -> None:
    kinds = set()
    for seed in range(24):
        identity = rig().identity(seed)
        hat, cover = headwear(identity, seed)
        kinds.add(len(hat.positions))
        assert np.isfinite(hat.positions).all() and hat.triangles.max() < len(hat.positions) == len(hat.colour)
        assert hat.positions[:, 1].max() > 0.7
        before = hat.positions[
            (abs(hat.positions[:, 0]) < 0.5) & (hat.positions[:, 2] > 0.5) & (hat.positions[:, 1] > -0.4)
        ]
        assert before[:, 1].min() > identity.eye_centres[:, 1].max() + 0.1
        free, pressed = (hair_mesh(identity, "afro", 3, c)[0] for c in (None, cover))
        if cover.edge.max() < -5:
            assert len(pressed) == 0
        elif cover.edge.max() < 5:
            assert pressed[:, 1].max() < min(free[:, 1].max(), hat.positions[:, 1].max() + 0.02)
    assert len(kinds) >= 4


def test_things_change_the_picture_and_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    c = np.full(52, 0.2)
    subject = next(k for k in range(100) if worn(k, 1).lenses is not None)
    for style in ("photo", "toon"):
        dressed = render(c, style=style, subject=subject, shot=1, size=64)
        with monkeypatch.context() as bare:
            bare.setattr("semanticface.rendering.draw.outfit", lambda *_: EMPTY_OUTFIT)
            naked = render(c, style=style, subject=subject, shot=1, size=64)
        assert not np.array_equal(dressed.image, naked.image)
        assert np.array_equal(dressed.points, naked.points) and np.array_equal(dressed.box, naked.box)
    assert worn(subject, None, "hard") is EMPTY_OUTFIT


def test_a_fifth_wears_glasses_and_keeps_them() -> None:
    habit = np.array([[worn(k, shot).lenses is not None for shot in range(6)] for k in range(150)]).mean(1)
    assert 0.12 < habit.mean() < 0.30
    assert ((habit > 0.5) | (habit < 0.35)).mean() > 0.95
    hard = np.mean([worn(k, k, "hard").lenses is not None for k in range(150)])
    assert hard > 1.5 * habit.mean()
