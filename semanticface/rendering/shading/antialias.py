"""Which samples of a supersampled picture are worth shading, and the picture from those that were.

Most pixels lie inside one smooth surface, where one shading at the pixel's middle tells what all its samples would. So
those are shaded once, and sample by sample only what holds an edge (another part, a step in depth, a lash, the
background), eyes or mouth, or differs from a neighbour by more than smooth shading does.
"""

from __future__ import annotations

import numpy as np

from semanticface.rendering.kernels import kernel
from semanticface.rendering.shading.raster import NOTHING

LASH_ONLY = -2
"""In a visibility buffer: nothing solid, but a lash was blended over the background."""
STEP = np.float32(4.0)
"""Depth over which a pixel counts as an edge, in pixel widths at that depth."""
TOLERANCE = np.float32(12 / 255)
"""How much neighbouring even pixels may differ in any channel before both are shaded sample by sample, sRGB."""


@kernel
def even_pixels(samples, front, near, part, fine, lashed, factor, focal):  # type: ignore[no-untyped-def]
    """Find the pixels that show one surface without an edge.

    Args:
        samples: int32[H * W], where the result goes.
        front, near: int32[H, W] and float32[H, W] from ``raster.visibility``.
        part, fine: uint8[T] and bool[>= T], part of each triangle, and whether no sample of it may be left out.
        lashed: bool[H / factor, W / factor], pixels that a lash crosses.
        factor: samples a pixel along each side.
        focal: of the camera in pixels, float32.

    Returns:
        (bool[H / factor, W / factor], flat indices of the first samples of those pixels int32[N]).
    """
    height, width = lashed.shape
    even = np.zeros((height, width), np.bool_)
    n = 0
    if factor == 1:
        return even, samples[:0]
    for y in range(height):
        for x in range(width):
            top, left = y * factor, x * factor
            first = front[top, left]
            if first == NOTHING or lashed[y, x]:
                continue
            kind, alike = part[first], True
            low = high = near[top, left]
            for j in range(top, top + factor):
                for i in range(left, left + factor):
                    t = front[j, i]
                    alike &= t != NOTHING and part[t] == kind and not fine[t]
                    low, high = min(low, near[j, i]), max(high, near[j, i])
            if alike and (high - low) * focal < STEP * low:
                even[y, x] = True
                samples[n] = top * width * factor + left
                n += 1
    return even, samples[:n]


@kernel
def _differ(out, one, other):  # type: ignore[no-untyped-def]
    return (
        abs(out[one, 0] - out[other, 0]) > TOLERANCE
        or abs(out[one, 1] - out[other, 1]) > TOLERANCE
        or abs(out[one, 2] - out[other, 2]) > TOLERANCE
    )


@kernel
def other_samples(samples, out, front, even, factor):  # type: ignore[no-untyped-def]
    """Choose what to shade sample by sample: pixels with an edge, and even ones that differ from an even neighbour.

    Args:
        samples: int32[H * W], where the result goes.
        out: float32[H * W, 3]; the first sample of each even pixel is shaded.
        front: int32[H, W] from ``raster.visibility``.
        even: bool[H / factor, W / factor] from ``even_pixels``; those that differ are cleared.
        factor: samples a pixel along each side.

    Returns:
        Flat indices of samples, int32[M].
    """
    height, width = even.shape
    wide = width * factor
    rough = ~even
    for y in range(height):
        for x in range(width):
            if not even[y, x]:
                continue
            at = (y * wide + x) * factor
            if x + 1 < width and even[y, x + 1] and _differ(out, at, at + factor):
                rough[y, x] = rough[y, x + 1] = True
            if y + 1 < height and even[y + 1, x] and _differ(out, at, at + factor * wide):
                rough[y, x] = rough[y + 1, x] = True
    n = 0
    for y in range(height):
        for x in range(width):
            if rough[y, x]:
                even[y, x] = False
                for j in range(y * factor, (y + 1) * factor):
                    for i in range(x * factor, (x + 1) * factor):
                        if front[j, i] != NOTHING:
                            samples[n] = j * wide + i
                            n += 1
    return samples[:n]


@kernel
def blend(s, at, span, wide, front, w1, w2, attributes, triangles):  # type: ignore[no-untyped-def]
    """Fill ``s`` (float32[N_ATTRIBUTES]) with what painters read at a sample, or in the middle of a pixel.

    It is the mean over ``span`` samples of a buffer ``wide`` across, along the diagonal that begins at ``at``;
    ``front``, ``w1`` and ``w2`` are flat.
    """
    share = np.float32(1) / np.float32(span)
    s[:] = 0
    for step in range(span):
        t = front[at + step * (wide + 1)]
        b1, b2 = w1[at + step * (wide + 1)] * share, w2[at + step * (wide + 1)] * share
        b0 = share - b1 - b2
        i0, i1, i2 = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        for k in range(len(s)):
            s[k] += b0 * attributes[i0, k] + b1 * attributes[i1, k] + b2 * attributes[i2, k]


@kernel
def spread(out, group, even, factor):  # type: ignore[no-untyped-def]
    """Copy the first sample of each even pixel to its others; ``out`` float32[H, W, 3], ``group`` uint8[H, W]."""
    for y in range(even.shape[0]):
        for x in range(even.shape[1]):
            if even[y, x]:
                top, left = y * factor, x * factor
                for j in range(top, top + factor):
                    for i in range(left, left + factor):
                        group[j, i] = group[top, left]
                        for c in range(3):
                            out[j, i, c] = out[top, left, c]


@kernel
def resolve(out, front, even, background, factor):  # type: ignore[no-untyped-def]
    """The picture, float32[size, size, 3]: first samples of even pixels, means of the others' samples.

    ``background`` stands where a sample shows nothing.
    """
    height, width = even.shape
    wide = width * factor
    share = np.float32(1 / (factor * factor))
    picture = np.empty_like(background)
    for y in range(height):
        for x in range(width):
            at = (y * wide + x) * factor
            if even[y, x]:
                picture[y, x, 0], picture[y, x, 1], picture[y, x, 2] = out[at, 0], out[at, 1], out[at, 2]
                continue
            r = g = b = np.float32(0)
            bare = 0
            for j in range(factor):
                for i in range(factor):
                    k = at + j * wide + i
                    if front[y * factor + j, x * factor + i] == NOTHING:
                        bare += 1
                    else:
                        r, g, b = r + out[k, 0], g + out[k, 1], b + out[k, 2]
            rest = np.float32(bare)
            picture[y, x, 0] = (r + rest * background[y, x, 0]) * share
            picture[y, x, 1] = (g + rest * background[y, x, 1]) * share
            picture[y, x, 2] = (b + rest * background[y, x, 2]) * share
    return picture
