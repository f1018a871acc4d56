"""Which samples of a supersampled picture are worth shading, and the picture from those that were.

Most pixels lie inside one smooth surface: there the samples along the pixel's diagonal tell what all of them would.
So the diagonal is shaded first, and the rest only where the pixel holds an edge (another part, a step in depth, a
lash, the background) or where the diagonal already differs by more than an eye could see.
"""

from __future__ import annotations

import numpy as np

from semanticface.face.compiled import kernel
from semanticface.face.raster import NOTHING

LASH_ONLY = -2
"""In a visibility buffer: nothing solid, but a lash was blended over the background."""
STEP = np.float32(4.0)
"""Depth over which a pixel counts as an edge, in pixel widths at that depth."""
TOLERANCE = np.float32(5 / 255)
"""How much the samples of a pixel's diagonal may differ in any channel before the others are shaded too, sRGB."""


@kernel
def first_samples(front, near, part, lashed, factor, focal):  # type: ignore[no-untyped-def]
    """Choose what to shade first.

    Args:
        front, near: int32[H, W] and float32[H, W] from ``raster.visibility``.
        part: uint8[T], part of each triangle.
        lashed: bool[H / factor, W / factor], pixels that a lash crosses.
        factor: samples a pixel along each side.
        focal: of the camera in pixels, float32.

    Returns:
        (flat indices of samples int32[N], bool[H / factor, W / factor]: pixels of which the diagonal was chosen only).
    """
    height, width = lashed.shape
    wide = width * factor
    even = np.zeros((height, width), np.bool_)
    samples = np.empty(front.size, np.int32)
    n = 0
    for y in range(height):
        for x in range(width):
            top, left = y * factor, x * factor
            first = front[top, left]
            alike = factor > 1 and first != NOTHING and not lashed[y, x]
            if alike:
                low = high = near[top, left]
                for j in range(top, top + factor):
                    for i in range(left, left + factor):
                        t = front[j, i]
                        if t == NOTHING or part[t] != part[first]:
                            alike = False
                        low, high = min(low, near[j, i]), max(high, near[j, i])
                alike = alike and (high - low) * focal < STEP * low
            even[y, x] = alike
            for j in range(factor):
                for i in range(factor):
                    if (i == j or not alike) and front[top + j, left + i] != NOTHING:
                        samples[n] = (top + j) * wide + left + i
                        n += 1
    return samples[:n], even


@kernel
def more_samples(out, even, factor):  # type: ignore[no-untyped-def]
    """Choose what else to shade: all but the diagonal of the pixels whose diagonal shows a contrast.

    Args:
        out: float32[H * W, 3], shaded samples.
        even: bool[H / factor, W / factor] from ``first_samples``; the chosen pixels are cleared.
        factor: samples a pixel along each side.

    Returns:
        Flat indices, int32[M].
    """
    height, width = even.shape
    wide = width * factor
    samples = np.empty(len(out), np.int32)
    n = 0
    for y in range(height):
        for x in range(width):
            if not even[y, x]:
                continue
            start = y * factor * wide + x * factor
            contrast = np.float32(0)
            for c in range(3):
                low = high = out[start, c]
                for k in range(1, factor):
                    value = out[start + k * (wide + 1), c]
                    low, high = min(low, value), max(high, value)
                contrast = max(contrast, high - low)
            if contrast > TOLERANCE:
                even[y, x] = False
                for j in range(factor):
                    for i in range(factor):
                        if i != j:
                            samples[n] = start + j * wide + i
                            n += 1
    return samples[:n]


@kernel
def resolve(out, front, even, background, factor):  # type: ignore[no-untyped-def]
    """Mean of each pixel's samples, float32[size, size, 3]; ``background`` where a sample shows nothing."""
    height, width = even.shape
    wide = width * factor
    picture = background.copy()
    for y in range(height):
        for x in range(width):
            r = g = b = np.float32(0)
            n = 0
            for j in range(factor):
                for i in range(factor):
                    if i != j and even[y, x]:
                        continue
                    at = (y * factor + j) * wide + x * factor + i
                    if front[y * factor + j, x * factor + i] == NOTHING:
                        r, g, b = r + background[y, x, 0], g + background[y, x, 1], b + background[y, x, 2]
                    else:
                        r, g, b = r + out[at, 0], g + out[at, 1], b + out[at, 2]
                    n += 1
            share = np.float32(1) / np.float32(n)
            picture[y, x, 0], picture[y, x, 1], picture[y, x, 2] = r * share, g * share, b * share
    return picture
