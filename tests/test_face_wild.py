"""What makes pictures wild: it follows from the seed, changes no label, and hard is harder than usual."""

from __future__ import annotations

import numpy as np
import pytest

from semanticface.errors import ConfigError
from semanticface.face import CONDITIONS, render
from semanticface.face.backdrop import background
from semanticface.face.scene import lights
from semanticface.face.sensor import reprint, sensor


def test_conditions_leave_labels_of_a_plain_portrait_alone() -> None:
    c = np.full(52, 0.3)
    for look in ("photo", "toon", "drawn"):
        usual, hard = (render(c, look=look, subject=4, size=64, conditions=name) for name in CONDITIONS)
        assert usual.picture.tobytes() == hard.picture.tobytes()
    with pytest.raises(ConfigError, match="nightmare"):
        render(c, size=64, conditions="nightmare")  # type: ignore[arg-type]


def test_hard_turns_heads_further_and_loses_more() -> None:
    turns, lost = {}, {}
    clean = background(3, 96)
    for name in CONDITIONS:
        faces = [render(np.zeros(52), look="drawn", subject=k, shot=k, size=32, conditions=name) for k in range(60)]
        turns[name] = np.mean([abs(face.camera["yaw"]) for face in faces])
        # How much of the finest detail's contrast a sensor leaves is not a matter of exposure.
        lost[name] = np.mean([_correlation(sensor(clean, k, name), clean) for k in range(60)])
    assert turns["hard"] > 1.25 * turns["usual"]
    assert 1 - lost["hard"] > 1.5 * (1 - lost["usual"])


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    edges = [np.diff(p.astype(float).mean(-1), axis=1).ravel() for p in (one, other)]
    return float(np.corrcoef(*edges)[0, 1])


def test_light_is_more_contrasted_in_hard_conditions() -> None:
    harsh = {}
    for name in CONDITIONS:
        scenes = [lights(k, name) for k in range(200)]
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
        first, again = (sensor(picture, k, conditions) for _ in range(2))  # type: ignore[arg-type]
        assert first.shape == (80, 80, 3) and first.dtype == np.uint8 and first.tobytes() == again.tobytes()
        drawn = reprint(shown, k, conditions)  # type: ignore[arg-type]
        assert drawn.shape == shown.shape and drawn.tobytes() == reprint(shown, k, conditions).tobytes()  # type: ignore[arg-type]
        seen.add(first.tobytes())
    assert len(seen) == 25
    assert np.array_equal(sensor(picture, None), (picture * 255 + 0.5).astype(np.uint8))


def test_backgrounds_differ_and_stay_in_range() -> None:
    pictures = [background(k, 40) for k in range(80)]
    for picture in pictures:
        assert picture.shape == (40, 40, 3) and picture.dtype == np.float32
        assert picture.min() >= 0 and picture.max() <= 1
    assert len({p.tobytes() for p in pictures}) == 80
    assert np.array_equal(pictures[7], background(7, 40))
