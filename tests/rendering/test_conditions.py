"""Condition presets: deterministic in the seed, labels unchanged, ``hard`` harder than ``usual``."""

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
from semanticface.rendering.lighting import sample_lights
from semanticface.rendering.sensor import degrade_drawing, simulate_sensor
from semanticface.rendering.shading.background import background


def test_conditions_do_not_change_a_plain_portrait() -> None:
    c = np.full(52, 0.3)
    for style in ("photo", "toon", "drawn"):
        usual, hard = (render(c, style=style, subject=4, size=64, conditions=name) for name in CONDITIONS)
        assert usual.image.tobytes() == hard.image.tobytes()
    with pytest.raises(ConfigError, match="nightmare"):
        render(c, size=64, conditions="nightmare")  # type: ignore[arg-type]


def test_hard_conditions_rotate_further_and_degrade_more() -> None:
    yaw, correlation = {}, {}
    clean = render(np.zeros(52), style="toon", subject=None, size=96).image.astype(np.float32) / 255
    for name in CONDITIONS:
        faces = [render(np.zeros(52), style="drawn", subject=k, shot=k, size=32, conditions=name) for k in range(60)]
        yaw[name] = np.mean([abs(face.camera["yaw"]) for face in faces])
        # Correlation of fine detail, which does not depend on exposure.
        correlation[name] = np.mean([_correlation(simulate_sensor(clean, k, name), clean) for k in range(60)])
    assert yaw["hard"] > 1.25 * yaw["usual"]
    assert 1 - correlation["hard"] > 1.5 * (1 - correlation["usual"])


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    edges = [np.diff(p.astype(float).mean(-1), axis=1).ravel() for p in (one, other)]
    return float(np.corrcoef(*edges)[0, 1])


def test_light_is_more_contrasted_in_hard_conditions() -> None:
    patterned = {}
    for name in CONDITIONS:
        scenes = [sample_lights(k, name) for k in range(200)]
        patterned[name] = np.mean([s.shadow_pattern is not None for s in scenes])
        assert all(np.allclose(np.linalg.norm(s.directions, axis=1), 1, atol=1e-5) for s in scenes)
        assert all(s.exposure > 0 and (s.colours >= 0).all() for s in scenes)
    assert 0.02 < patterned["usual"] < 0.15 < patterned["hard"]


@pytest.mark.parametrize("conditions", CONDITIONS)
def test_sensor_and_drawing_degradation_are_deterministic(conditions: str) -> None:
    image = background(1, 80)
    pixels = (image * 255).astype(np.uint8)
    results = set()
    for k in range(25):
        first, again = (simulate_sensor(image, k, conditions) for _ in range(2))  # type: ignore[arg-type]
        assert first.shape == (80, 80, 3) and first.dtype == np.uint8 and first.tobytes() == again.tobytes()
        drawn = degrade_drawing(pixels, k, conditions)  # type: ignore[arg-type]
        assert drawn.shape == pixels.shape and drawn.tobytes() == degrade_drawing(pixels, k, conditions).tobytes()  # type: ignore[arg-type]
        results.add(first.tobytes())
    assert len(results) == 25
    assert np.array_equal(simulate_sensor(image, None), (image * 255 + 0.5).astype(np.uint8))


def test_backgrounds_differ_and_stay_in_range() -> None:
    images = [background(k, 40) for k in range(80)]
    for image in images:
        assert image.shape == (40, 40, 3) and image.dtype == np.float32
        assert image.min() >= 0 and image.max() <= 1
    assert len({p.tobytes() for p in images}) == 80
    assert np.array_equal(images[7], background(7, 40))


@pytest.mark.parametrize("subject", range(12))
def test_glasses_sit_in_front_of_the_eyes_and_clear_the_face(subject: int) -> None:
    identity = rig().identity(subject)
    frame, lenses = glasses(identity, subject, tinted=False)
    assert np.isfinite(frame.positions).all() and frame.triangles.max() < len(frame.positions)
    assert lenses.triangles.max() < len(lenses.positions)
    half = len(lenses.positions) // 2
    for pane, eye in zip((lenses.positions[:half], lenses.positions[half:]), identity.eye_centres, strict=True):
        low, high = pane.min(0), pane.max(0)
        assert (low[:2] < eye[:2]).all() and (eye[:2] < high[:2]).all() and low[2] > eye[2] + 0.05
    # The temple arms end behind the front of the ears; the frame is about as wide as the head.
    assert frame.positions[:, 2].min() < 0.15 and 0.45 < frame.positions[:, 0].max() < 1.2


def outfit_of(subject: int, shot: int | None, conditions: str = "usual") -> Outfit:
    identity = rig().average
    return outfit(subject, shot, identity, identity.vertices, appearance_of(subject, identity), conditions)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [hand, held_object, loose_hair])
def test_occluders_lie_in_front_of_the_face(make: Callable[..., Prop]) -> None:
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


def test_headwear_presses_the_hair_and_leaves_the_eyes_free() -> None:
    kinds = set()
    for seed in range(24):
        identity = rig().identity(seed)
        hat, cover = headwear(identity, seed)
        kinds.add(len(hat.positions))
        assert np.isfinite(hat.positions).all() and hat.triangles.max() < len(hat.positions) == len(hat.colour)
        assert hat.positions[:, 1].max() > 0.7
        in_front = hat.positions[
            (abs(hat.positions[:, 0]) < 0.5) & (hat.positions[:, 2] > 0.5) & (hat.positions[:, 1] > -0.4)
        ]
        assert in_front[:, 1].min() > identity.eye_centres[:, 1].max() + 0.1
        free, pressed = (hair_mesh(identity, "afro", 3, c)[0] for c in (None, cover))
        if cover.edge.max() < -5:
            assert len(pressed) == 0
        elif cover.edge.max() < 5:
            assert pressed[:, 1].max() < min(free[:, 1].max(), hat.positions[:, 1].max() + 0.02)
    assert len(kinds) >= 4


def test_outfits_change_the_image_and_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    c = np.full(52, 0.2)
    subject = next(k for k in range(100) if outfit_of(k, 1).lenses is not None)
    for style in ("photo", "toon"):
        dressed = render(c, style=style, subject=subject, shot=1, size=64)
        with monkeypatch.context() as bare:
            bare.setattr("semanticface.rendering.draw.outfit", lambda *_: EMPTY_OUTFIT)
            undressed = render(c, style=style, subject=subject, shot=1, size=64)
        assert not np.array_equal(dressed.image, undressed.image)
        assert np.array_equal(dressed.points, undressed.points) and np.array_equal(dressed.box, undressed.box)
    assert outfit_of(subject, None, "hard") is EMPTY_OUTFIT


def test_a_fifth_of_subjects_wear_glasses_consistently() -> None:
    rates = np.array([[outfit_of(k, shot).lenses is not None for shot in range(6)] for k in range(150)]).mean(1)
    assert 0.12 < rates.mean() < 0.30
    assert ((rates > 0.5) | (rates < 0.35)).mean() > 0.95
    hard = np.mean([outfit_of(k, k, "hard").lenses is not None for k in range(150)])
    assert hard > 1.5 * rates.mean()
