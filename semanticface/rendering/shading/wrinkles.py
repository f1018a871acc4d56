"""Expression wrinkles: height maps over the front of the face, weighted by coefficients.

The mesh is too coarse for wrinkles, yet they distinguish a smile, a sneer or a squint at small sizes. Each wrinkle is a
polyline in base-mesh coordinates (x, y in decimetres around ``rig.ORIGIN``), given for the left side and mirrored, with
the actions that deepen it.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np

from semanticface import arkit

X0, X1, Y0, Y1 = -0.8, 0.8, -0.85, 1.15
STEP = 0.008
WIDTH, HEIGHT = round((X1 - X0) / STEP), round((Y1 - Y0) / STEP)

# (polyline, width, depth, actions with weights); "{}" stands for the side.
_WRINKLES: list[tuple[list[tuple[float, float]], float, float, dict[str, float]]] = [
    ([(0.185, 0.0), (0.25, -0.08), (0.305, -0.18), (0.335, -0.29), (0.34, -0.36)], 0.022, 1.0,
     {"noseSneer{}": 0.8, "mouthSmile{}": 1.0, "cheekSquint{}": 0.55, "mouthUpperUp{}": 0.45, "mouthStretch{}": 0.3}),
    ([(0.475, 0.35), (0.54, 0.40), (0.61, 0.43)], 0.010, 0.6, {"eyeSquint{}": 0.8, "cheekSquint{}": 1.0}),
    ([(0.48, 0.325), (0.55, 0.325), (0.63, 0.335)], 0.010, 0.6, {"eyeSquint{}": 0.8, "cheekSquint{}": 1.0}),
    ([(0.475, 0.30), (0.54, 0.265), (0.60, 0.22)], 0.010, 0.6, {"eyeSquint{}": 0.8, "cheekSquint{}": 1.0}),
    ([(0.19, 0.265), (0.25, 0.225), (0.33, 0.215), (0.42, 0.25)], 0.012, 0.7,
     {"eyeSquint{}": 1.0, "cheekSquint{}": 0.7, "eyeBlink{}": 0.1}),
    ([(0.20, 0.20), (0.28, 0.15), (0.38, 0.155), (0.48, 0.21)], 0.018, 0.7, {"cheekSquint{}": 1.0}),
    ([(0.0, 0.66), (0.12, 0.665), (0.22, 0.645)], 0.016, 0.7, {"browInnerUp": 1.0}),
    ([(0.0, 0.75), (0.14, 0.76), (0.27, 0.735)], 0.016, 0.8, {"browInnerUp": 1.0}),
    ([(0.0, 0.85), (0.13, 0.86), (0.25, 0.84)], 0.016, 0.6, {"browInnerUp": 1.0}),
    ([(0.22, 0.645), (0.34, 0.655), (0.47, 0.61)], 0.016, 0.8, {"browOuterUp{}": 1.0}),
    ([(0.24, 0.735), (0.36, 0.745), (0.50, 0.69)], 0.016, 0.8, {"browOuterUp{}": 1.0}),
    ([(0.28, 0.83), (0.38, 0.83), (0.49, 0.78)], 0.016, 0.5, {"browOuterUp{}": 1.0}),
    ([(0.045, 0.40), (0.055, 0.50), (0.085, 0.61)], 0.014, 1.0, {"browDown{}": 1.0, "noseSneer{}": 0.25}),
    ([(0.0, 0.375), (0.06, 0.385)], 0.014, 0.6, {"browDown{}": 0.7, "noseSneer{}": 0.6}),
    ([(0.025, 0.29), (0.07, 0.25), (0.11, 0.20)], 0.010, 0.7, {"noseSneer{}": 1.0}),
    ([(0.03, 0.22), (0.08, 0.18), (0.125, 0.13)], 0.010, 0.7, {"noseSneer{}": 1.0}),
    ([(0.33, -0.27), (0.355, -0.335), (0.335, -0.40)], 0.016, 1.1, {"mouthDimple{}": 1.0, "mouthSmile{}": 0.15}),
    ([(0.27, -0.38), (0.30, -0.45), (0.305, -0.54)], 0.014, 0.9,
     {"mouthFrown{}": 1.0, "mouthLowerDown{}": 0.3, "mouthStretch{}": 0.3}),
    ([(0.36, -0.16), (0.41, -0.28), (0.42, -0.42)], 0.018, 0.8, {"mouthStretch{}": 1.0, "mouthSmile{}": 0.3}),
    ([(0.31, -0.38), (0.35, -0.47), (0.36, -0.56)], 0.014, 0.6, {"mouthStretch{}": 0.8}),
    ([(0.265, -0.29), (0.29, -0.345), (0.27, -0.40)], 0.012, 0.8, {"mouthPress{}": 1.0}),
    ([(0.0, -0.475), (0.09, -0.47), (0.16, -0.455)], 0.016, 0.9, {"mouthShrugLower": 1.0, "mouthPucker": 0.3}),
    ([(0.04, -0.20), (0.045, -0.15)], 0.010, 0.5, {"mouthPucker": 1.0, "mouthShrugUpper": 0.7}),
    ([(0.10, -0.21), (0.12, -0.15)], 0.010, 0.6, {"mouthPucker": 1.0, "mouthShrugUpper": 0.7}),
    ([(0.17, -0.25), (0.20, -0.20)], 0.010, 0.6, {"mouthPucker": 1.0, "mouthFunnel": 0.3}),
    ([(0.14, -0.45), (0.17, -0.50)], 0.010, 0.5, {"mouthPucker": 1.0}),
    ([(0.05, -0.54), (0.06, -0.56)], 0.014, 0.8, {"mouthShrugLower": 1.0}),
    ([(0.02, -0.61), (0.03, -0.62)], 0.014, 0.8, {"mouthShrugLower": 1.0}),
    ([(0.09, -0.60), (0.10, -0.61)], 0.014, 0.8, {"mouthShrugLower": 1.0}),
    ([(0.11, -0.53), (0.125, -0.545)], 0.014, 0.7, {"mouthShrugLower": 1.0}),
]  # fmt: skip
# Depth of every wrinkle in an old face at rest.
_RESTING_DEPTH = 0.22


def _wrinkle_height(line: list[tuple[float, float]], width: float, depth: float, side: int) -> np.ndarray:
    """Height of one wrinkle over the map: a groove with a soft ridge along it; float32[HEIGHT, WIDTH]."""
    x = (X0 + STEP * (np.arange(WIDTH) + 0.5))[None, :] * side
    y = (Y0 + STEP * (np.arange(HEIGHT) + 0.5))[:, None]
    distance = np.full((HEIGHT, WIDTH), np.inf)
    along = np.zeros((HEIGHT, WIDTH))
    lengths = [np.hypot(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(line)]
    length_before = 0.0
    for ((ax, ay), (bx, by)), length in zip(pairwise(line), lengths, strict=True):
        t = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length**2, 0, 1)
        d = np.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay))
        closer = d < distance
        distance = np.where(closer, d, distance)
        along = np.where(closer, length_before + t * length, along)
        length_before += length
    starts_at_midline = line[0][0] == 0.0
    taper = np.minimum(1.0, (length_before - along) / length_before * 3 + 0.25)
    if not starts_at_midline:
        taper = np.minimum(taper, along / length_before * 3 + 0.25)
    height = -np.exp(-((distance / width) ** 2)) + 0.35 * np.exp(-(((distance - 2 * width) / (1.2 * width)) ** 2))
    height = height * taper * depth * width
    height[np.broadcast_to(x < (-width if starts_at_midline else -STEP), height.shape)] = 0
    height[np.abs(height) < 1e-5] = 0
    return height.astype(np.float32)


@cache
def _maps() -> tuple[np.ndarray, np.ndarray]:
    """Height maps float32[K, HEIGHT, WIDTH] and their action weights float32[K, 52]."""
    maps, weights = [], []
    for line, width, depth, actions in _WRINKLES:
        for side, name in ((1, "Left"), (-1, "Right")):
            row = np.zeros(arkit.N_ACTIONS, np.float32)
            for action, weight in actions.items():
                row[arkit.INDEX[action.format(name)]] = weight
            maps.append(_wrinkle_height(line, width, depth, side))
            weights.append(row)
    return np.stack(maps), np.stack(weights)


@cache
def _windows() -> list[tuple[slice, slice]]:
    """The region of the map that each wrinkle touches."""
    out = []
    for m in _maps()[0]:
        rows, columns = np.flatnonzero(m.any(1)), np.flatnonzero(m.any(0))
        out.append((slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)))
    return out


def height_map(coefficients: np.ndarray, strength: float, resting: float) -> np.ndarray:
    """Skin height over the front of the face under an expression, decimetres, float32[HEIGHT, WIDTH].

    Args:
        coefficients: float32[52].
        strength: of expression wrinkles (about 1).
        resting: strength of wrinkles at rest, 0 (young) to 1 (old).
    """
    maps, weights = _maps()
    amounts = np.minimum(weights @ coefficients, 1.25) * strength + _RESTING_DEPTH * resting
    out = np.zeros((HEIGHT, WIDTH), np.float32)
    for amount, wrinkle, window in zip(amounts, maps, _windows(), strict=True):
        if amount > 0.01:
            out[window] += amount * wrinkle[window]
    return out
