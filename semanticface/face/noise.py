"""Smooth tileable noise, read by every painter: one table, made once from a fixed seed."""

from __future__ import annotations

import numpy as np

from semanticface.face.compiled import kernel

SIZE = 32


def _volume() -> np.ndarray:
    return np.random.default_rng(5).random((SIZE, SIZE, SIZE), dtype=np.float32)


VOLUME = _volume()
"""float32[32, 32, 32] in [0, 1), repeating."""


@kernel
def noise(table, x, y, z):  # type: ignore[no-untyped-def]
    """Trilinear value noise in [0, 1) with one cell a unit."""
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    i, j, k = int(fx) & 31, int(fy) & 31, int(fz) & 31
    u, v, w = x - fx, y - fy, z - fz
    i1, j1, k1 = (i + 1) & 31, (j + 1) & 31, (k + 1) & 31
    a = table[i, j, k] * (1 - w) + table[i, j, k1] * w
    b = table[i, j1, k] * (1 - w) + table[i, j1, k1] * w
    c = table[i1, j, k] * (1 - w) + table[i1, j, k1] * w
    d = table[i1, j1, k] * (1 - w) + table[i1, j1, k1] * w
    return (a * (1 - v) + b * v) * (1 - u) + (c * (1 - v) + d * v) * u


@kernel
def smooth(low, high, x):  # type: ignore[no-untyped-def]
    """0 below ``low``, 1 above ``high``, a smooth step between."""
    t = (x - low) / (high - low)
    t = min(max(t, 0.0), 1.0)
    return t * t * (3 - 2 * t)
