"""Smooth tileable noise, read by every painter: one table, made once from a fixed seed."""

from __future__ import annotations

import numpy as np

from semanticface.rendering.kernels import kernel

SIZE = 32


def _volume() -> np.ndarray:
    return np.random.default_rng(5).random((SIZE, SIZE, SIZE), dtype=np.float32)


VOLUME = _volume()
"""float32[32, 32, 32] in [0, 1), repeating."""
TABLE = VOLUME.ravel()
"""float32[32768], the same as the painters read it."""


@kernel
def noise(table, x, y, z):  # type: ignore[no-untyped-def]
    """Trilinear value noise in [0, 1) with one cell a unit; ``table`` is ``TABLE``."""
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    u, v, w = x - fx, y - fy, z - fz
    i, j, k = int(fx) & 31, int(fy) & 31, int(fz) & 31
    i0, i1 = i << 10, ((i + 1) & 31) << 10
    j0, j1 = j << 5, ((j + 1) & 31) << 5
    k1 = (k + 1) & 31
    a, a1 = table[i0 | j0 | k], table[i0 | j0 | k1]
    b, b1 = table[i0 | j1 | k], table[i0 | j1 | k1]
    c, c1 = table[i1 | j0 | k], table[i1 | j0 | k1]
    d, d1 = table[i1 | j1 | k], table[i1 | j1 | k1]
    a, b, c, d = a + (a1 - a) * w, b + (b1 - b) * w, c + (c1 - c) * w, d + (d1 - d) * w
    a, c = a + (b - a) * v, c + (d - c) * v
    return a + (c - a) * u


@kernel
def smooth(low, high, x):  # type: ignore[no-untyped-def]
    """0 below ``low``, 1 above ``high``, a smooth step between."""
    t = (x - low) / (high - low)
    t = min(max(t, 0.0), 1.0)
    return t * t * (3 - 2 * t)


@kernel
def fade(x):  # type: ignore[no-untyped-def]
    """About ``exp(-x)`` for x >= 0, to within 0.0003: a soft spot's profile, at a fifth of the price."""
    t = min(x, 12.0) / 8
    p = 1 - t * (1 - t * (0.5 - t * (1 / 6 - t / 24)))
    p *= p
    p *= p
    return p * p
