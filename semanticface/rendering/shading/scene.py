"""The light of a shot: three lamps, sky and ground, and what stands between the first lamp and the face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from semanticface.rendering.conditions import Conditions, Odds, odds
from semanticface.rendering.shading.projection import SHADOW_EXTENT

_PATTERN_SIDE = 160


@dataclass(frozen=True, slots=True, eq=False)
class Lights:
    """Lights in camera space, linear RGB.

    Attributes:
        directions: float32[3, 3], unit vectors towards key, fill and rim light.
        colours: float32[3, 3].
        sky, ground: float32[3], ambient light from above and below.
        soft: 0 (hard shadow) to 1 (no shadow).
        exposure: gain before the tone curve.
        pattern: bool[P, P], what stands before the first lamp, over the extent of its shadow map; ``None`` is nothing.
    """

    directions: np.ndarray
    colours: np.ndarray
    sky: np.ndarray
    ground: np.ndarray
    soft: float
    exposure: float
    pattern: np.ndarray | None = None


def _towards(azimuth: float, height: float) -> np.ndarray:
    a, h = np.radians([azimuth, height])
    return np.array([np.sin(a) * np.cos(h), np.sin(h), np.cos(a) * np.cos(h)])


def _tint(rng: np.random.Generator, warm: float) -> np.ndarray:
    """White from warm (1) to cold (-1), luminance about 1."""
    c = np.array([1 + 0.28 * warm, 1.0, 1 - 0.34 * warm]) * rng.normal(1, 0.03, 3)
    return c / c.mean()


def _key(rng: np.random.Generator, chances: Odds) -> np.ndarray:
    """Where the first lamp stands: mostly before and above the face, at times far aside or below it."""
    kind = rng.random()
    if kind < 0.6 * chances.raking:
        return _towards(rng.choice([-1, 1]) * rng.uniform(60, 100), rng.uniform(-15, 45))
    if kind < chances.raking:
        return _towards(rng.normal(0, 25), rng.uniform(-65, -20))
    return _towards(np.clip(rng.normal(0, 40), -100, 100), np.clip(rng.normal(33, 19), -15, 80))


def _pattern(rng: np.random.Generator) -> np.ndarray:
    """The shade of blinds, leaves, bars or an edge, bool[P, P]."""
    y, x = (np.mgrid[0:_PATTERN_SIDE, 0:_PATTERN_SIDE] / _PATTERN_SIDE - 0.5) * 2 * SHADOW_EXTENT
    turn = rng.normal(0, 0.35)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    kind = rng.random()
    if kind < 0.35:  # blinds
        return (v / rng.uniform(0.16, 0.5) + rng.random()) % 1 < rng.uniform(0.3, 0.65)
    if kind < 0.75:  # leaves
        total = np.zeros((_PATTERN_SIDE, _PATTERN_SIDE), np.float32)
        for cells in (int(rng.integers(8, 18)), int(rng.integers(18, 36))):
            grain = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
            total += np.asarray(grain.resize((_PATTERN_SIDE, _PATTERN_SIDE), Image.Resampling.BICUBIC))
        return total > rng.uniform(-0.5, 0.6)
    if kind < 0.9:  # the bars of a window
        wide, bar = rng.uniform(0.5, 1.2), rng.uniform(0.08, 0.2)
        return ((u + rng.uniform(0, wide)) % wide < bar) | ((v + rng.uniform(0, wide)) % wide < bar)
    turn = rng.uniform(0, 2 * np.pi)  # one edge across the face
    return x * np.cos(turn) + y * np.sin(turn) > rng.uniform(-0.3, 0.5)


def lights(shot: int | None, conditions: Conditions = "usual") -> Lights:
    """The lights of a shot; ``None`` is a plain soft portrait light."""
    if shot is None:
        directions = np.stack([_towards(-32, 32), _towards(48, 8), _towards(150, 35)])
        colours = np.array([[1.75, 1.7, 1.62], [0.5, 0.52, 0.56], [0.4, 0.4, 0.42]])
        return Lights(directions.astype(np.float32), colours.astype(np.float32), np.full(3, 0.50, np.float32),
                      np.full(3, 0.30, np.float32), 0.35, 0.80)  # fmt: skip
    rng, chances = np.random.default_rng([shot, 22]), odds(conditions)
    key = _key(rng, chances)
    fill = _towards(-np.sign(key[0]) * rng.uniform(20, 80), rng.uniform(-15, 35))
    rim = _towards(rng.choice([-1, 1]) * rng.uniform(115, 165), rng.uniform(0, 60))
    warm = rng.normal(0, 0.45)
    contrast = rng.beta(*chances.contrast)
    soft = rng.uniform(0.05, 0.85)
    pattern = None
    if rng.random() < chances.pattern:
        pattern = _pattern(rng)
        contrast, soft = 0.4 + 0.6 * contrast, 0.6 * soft
    colours = np.stack([
        _tint(rng, warm) * (0.9 + 1.3 * contrast),
        _tint(rng, rng.normal(-0.3 * warm, 0.4)) * rng.uniform(0.1, 0.8) * (1.1 - contrast),
        _tint(rng, rng.normal(0, 0.6)) * rng.exponential(0.6),
    ])  # fmt: skip
    if rng.random() < chances.coloured:
        for row in rng.permutation(3)[: rng.integers(1, 3)]:
            colours[row] *= 0.15 + 2.55 * rng.dirichlet([1.2, 1.2, 1.2])
    sky = _tint(rng, rng.normal(-0.1, 0.4)) * (0.15 + 0.65 * (1 - contrast)) * rng.uniform(0.6, 1.3)
    ground = sky * rng.uniform(0.3, 0.9) * _tint(rng, rng.normal(0.2, 0.2))
    # Metered as a camera does: the brighter the scene, the lower the gain, with an error of about a third of a stop.
    energy = colours[0].mean() * 0.55 + colours[1].mean() * 0.4 + sky.mean() * 0.7 + ground.mean() * 0.3
    exposure = 1.45 / energy * np.exp(np.clip(rng.normal(-0.17, chances.exposure), -1.1, 0.4))
    return Lights(directions=np.stack([key, fill, rim]).astype(np.float32), colours=colours.astype(np.float32),
                  sky=sky.astype(np.float32), ground=ground.astype(np.float32), soft=float(soft),
                  exposure=float(exposure), pattern=pattern)  # fmt: skip
