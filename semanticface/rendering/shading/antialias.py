"""Adaptive antialiasing: choose which samples of a supersampled image to shade, and resolve them to pixels.

Most pixels lie inside one smooth surface, where shading the pixel's centre once is enough. Every sample is shaded only
in pixels with an edge (another part, a depth step, a lash, the background), with eyes or mouth, or that differ from a
neighbour by more than smooth shading does.
"""

from __future__ import annotations

import numpy as np

from semanticface.rendering.kernels import kernel
from semanticface.rendering.raster import EMPTY

LASH_ONLY = -2
"""In a visibility buffer: no triangle, but a lash blended over the background."""
DEPTH_STEP = np.float32(4.0)
"""Depth difference that makes a pixel an edge, in pixel widths at that depth."""
TOLERANCE = np.float32(12 / 255)
"""Difference of neighbouring smooth pixels in any sRGB channel above which both are shaded per sample."""


@kernel
def find_smooth_pixels(samples, triangle_ids, inv_depth, part, fine, has_lash, factor, focal):  # type: ignore[no-untyped-def]
    """Find the pixels that show one surface without an edge.

    Args:
        samples: int32[H * W], buffer for the result.
        triangle_ids, inv_depth: int32[H, W] and float32[H, W] from ``raster.visibility``.
        part, fine: uint8[T] and bool[>= T], part of each triangle, and whether all its samples must be shaded.
        has_lash: bool[H / factor, W / factor], pixels that a lash crosses.
        factor: samples per pixel along each side.
        focal: of the camera in pixels, float32.

    Returns:
        (bool[H / factor, W / factor], flat indices of the first samples of those pixels int32[N]).
    """
    height, width = has_lash.shape
    smooth = np.zeros((height, width), np.bool_)
    n = 0
    if factor == 1:
        return smooth, samples[:0]
    for y in range(height):
        for x in range(width):
            top, left = y * factor, x * factor
            first = triangle_ids[top, left]
            if first == EMPTY or has_lash[y, x]:
                continue
            first_part, same_surface = part[first], True
            low = high = inv_depth[top, left]
            for j in range(top, top + factor):
                for i in range(left, left + factor):
                    t = triangle_ids[j, i]
                    same_surface &= t != EMPTY and part[t] == first_part and not fine[t]
                    low, high = min(low, inv_depth[j, i]), max(high, inv_depth[j, i])
            if same_surface and (high - low) * focal < DEPTH_STEP * low:
                smooth[y, x] = True
                samples[n] = top * width * factor + left
                n += 1
    return smooth, samples[:n]


@kernel
def _differ(out, a, b):  # type: ignore[no-untyped-def]
    return (
        abs(out[a, 0] - out[b, 0]) > TOLERANCE
        or abs(out[a, 1] - out[b, 1]) > TOLERANCE
        or abs(out[a, 2] - out[b, 2]) > TOLERANCE
    )


@kernel
def find_edge_samples(samples, out, triangle_ids, smooth, factor):  # type: ignore[no-untyped-def]
    """Choose what to shade per sample: pixels with an edge, and smooth ones that differ from a smooth neighbour.

    Args:
        samples: int32[H * W], buffer for the result.
        out: float32[H * W, 3]; the first sample of each smooth pixel is shaded.
        triangle_ids: int32[H, W] from ``raster.visibility``.
        smooth: bool[H / factor, W / factor] from ``find_smooth_pixels``; those that differ are cleared.
        factor: samples per pixel along each side.

    Returns:
        Flat indices of samples, int32[M].
    """
    height, width = smooth.shape
    row_length = width * factor
    has_edge = ~smooth
    for y in range(height):
        for x in range(width):
            if not smooth[y, x]:
                continue
            index = (y * row_length + x) * factor
            if x + 1 < width and smooth[y, x + 1] and _differ(out, index, index + factor):
                has_edge[y, x] = has_edge[y, x + 1] = True
            if y + 1 < height and smooth[y + 1, x] and _differ(out, index, index + factor * row_length):
                has_edge[y, x] = has_edge[y + 1, x] = True
    n = 0
    for y in range(height):
        for x in range(width):
            if has_edge[y, x]:
                smooth[y, x] = False
                for j in range(y * factor, (y + 1) * factor):
                    for i in range(x * factor, (x + 1) * factor):
                        if triangle_ids[j, i] != EMPTY:
                            samples[n] = j * row_length + i
                            n += 1
    return samples[:n]


@kernel
def interpolate(values, index, n_samples, row_length, triangle_ids, w1, w2, attributes, triangles):  # type: ignore[no-untyped-def]
    """Fill ``values`` (float32[N_ATTRIBUTES]) with the vertex attributes at a sample, or at a pixel's centre.

    They are the mean of ``n_samples`` samples along the diagonal that starts at flat ``index``, in buffers that are
    ``row_length`` wide; ``triangle_ids``, ``w1`` and ``w2`` are flat.
    """
    weight = np.float32(1) / np.float32(n_samples)
    values[:] = 0
    for step in range(n_samples):
        t = triangle_ids[index + step * (row_length + 1)]
        b1, b2 = w1[index + step * (row_length + 1)] * weight, w2[index + step * (row_length + 1)] * weight
        b0 = weight - b1 - b2
        i0, i1, i2 = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        for k in range(len(values)):
            values[k] += b0 * attributes[i0, k] + b1 * attributes[i1, k] + b2 * attributes[i2, k]


@kernel
def copy_first_samples(out, group, smooth, factor):  # type: ignore[no-untyped-def]
    """Copy the first sample of each smooth pixel to its others; ``out`` float32[H, W, 3], ``group`` uint8[H, W]."""
    for y in range(smooth.shape[0]):
        for x in range(smooth.shape[1]):
            if smooth[y, x]:
                top, left = y * factor, x * factor
                for j in range(top, top + factor):
                    for i in range(left, left + factor):
                        group[j, i] = group[top, left]
                        for c in range(3):
                            out[j, i, c] = out[top, left, c]


@kernel
def resolve(out, triangle_ids, smooth, background, factor):  # type: ignore[no-untyped-def]
    """The image, float32[size, size, 3]: the first sample of smooth pixels, the mean of others, over ``background``."""
    height, width = smooth.shape
    row_length = width * factor
    weight = np.float32(1 / (factor * factor))
    image = np.empty_like(background)
    for y in range(height):
        for x in range(width):
            index = (y * row_length + x) * factor
            if smooth[y, x]:
                image[y, x, 0], image[y, x, 1], image[y, x, 2] = out[index, 0], out[index, 1], out[index, 2]
                continue
            r = g = b = np.float32(0)
            n_empty = 0
            for j in range(factor):
                for i in range(factor):
                    k = index + j * row_length + i
                    if triangle_ids[y * factor + j, x * factor + i] == EMPTY:
                        n_empty += 1
                    else:
                        r, g, b = r + out[k, 0], g + out[k, 1], b + out[k, 2]
            empty = np.float32(n_empty)
            image[y, x, 0] = (r + empty * background[y, x, 0]) * weight
            image[y, x, 1] = (g + empty * background[y, x, 1]) * weight
            image[y, x, 2] = (b + empty * background[y, x, 2]) * weight
    return image
