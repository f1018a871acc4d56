"""A z-buffer rasteriser: triangles to a visibility buffer, and shadow maps.

It stores the front triangle of each sample and the barycentric weights on it; the styles then shade only what is
visible. It needs nothing but Numba. Inner loops run over a row in float32 without branches, so the compiler vectorises
them.
"""

from __future__ import annotations

import numpy as np

from semanticface.rendering.kernels import kernel, scratch_buffer

EMPTY = -1
FAR = np.float32(-1e9)
"""Depth in a shadow map where nothing casts a shadow."""
_HALF, _ZERO, _ONE = np.float32(0.5), np.float32(0), np.float32(1)


def visibility(
    screen: np.ndarray, triangles: np.ndarray, two_sided: np.ndarray, width: int, height: int, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rasterise triangles into a visibility buffer.

    Args:
        screen: float32[V, 3], pixel x, pixel y (down) and 1 / depth of every vertex; depth must be positive.
        triangles: int32[T, 3], counter-clockwise seen from outside.
        two_sided: bool[>= T], draw the back as well.
        width, height: of the buffer in pixels.
        name: of the scratch buffers; the result is valid until the name is used again.

    Returns:
        (triangle int32[H, W] or ``EMPTY``, weight of corner 1 float32[H, W], of corner 2 float32[H, W],
        1 / depth float32[H, W]); weights are perspective-correct, and arbitrary where nothing is drawn.
    """
    triangle_ids = scratch_buffer(f"{name} front", (height, width), np.int32)
    w1, w2, inv_depth = (scratch_buffer(f"{name} {what}", (height, width)) for what in ("w1", "w2", "near"))
    _rasterise(screen, triangles, two_sided, triangle_ids, w1, w2, inv_depth)
    return triangle_ids, w1, w2, inv_depth


@kernel
def _rasterise(screen, triangles, two_sided, triangle_ids, w1, w2, inv_depth):  # type: ignore[no-untyped-def]
    height, width = triangle_ids.shape
    triangle_ids[:] = EMPTY
    inv_depth[:] = 0
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, az = screen[a, 0], screen[a, 1], screen[a, 2]
        bx, by, bz = screen[b, 0], screen[b, 1], screen[b, 2]
        cx, cy, cz = screen[c, 0], screen[c, 1], screen[c, 2]
        area = (cx - ax) * (by - ay) - (bx - ax) * (cy - ay)
        if area == 0.0 or (area < 0.0 and not two_sided[t]):
            continue
        x0 = max(int(np.ceil(min(ax, bx, cx) - 0.5)), 0)
        x1 = min(int(np.floor(max(ax, bx, cx) - 0.5)), width - 1)
        y0 = max(int(np.ceil(min(ay, by, cy) - 0.5)), 0)
        y1 = min(int(np.floor(max(ay, by, cy) - 0.5)), height - 1)
        if x0 > x1 or y0 > y1:
            continue
        scale = _ONE / area
        ubx, uby = (cy - ay) * -scale, (cx - ax) * scale
        ucx, ucy = (by - ay) * scale, (bx - ax) * -scale
        dx, dbz, dcz = np.float32(x0) + _HALF - ax, bz - az, cz - az
        for y in range(y0, y1 + 1):
            dy = np.float32(y) + _HALF - ay
            u0, v0 = ubx * dx + uby * dy, ucx * dx + ucy * dy
            row_ids, row_inv_depth = triangle_ids[y, x0 : x1 + 1], inv_depth[y, x0 : x1 + 1]
            row_w1, row_w2 = w1[y, x0 : x1 + 1], w2[y, x0 : x1 + 1]
            for x in range(x1 + 1 - x0):
                step = np.float32(np.int32(x))
                u, v = u0 + ubx * step, v0 + ucx * step
                z = az + u * dbz + v * dcz
                if (u >= _ZERO) & (v >= _ZERO) & (u + v <= _ONE) & (z > row_inv_depth[x]):
                    row_inv_depth[x] = z
                    row_ids[x] = t
                    row_w1[x] = u * bz / z
                    row_w2[x] = v * cz / z


@kernel
def shadow_map(points, triangles, casts_shadow, right, up, light, size, extent):  # type: ignore[no-untyped-def]
    """Depth towards a distant light, float32[size, size]: the largest ``p . light`` over each texel, or ``FAR``.

    Texel x and y are ``(p . right, p . up) / extent``, mapped from [-1, 1] to the map.
    """
    out = np.full((size, size), FAR)
    half, texels = np.float32(size / 2), np.float32(size / 2 / extent)
    projected = np.empty((len(points), 3), np.float32)
    for i in range(len(points)):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        projected[i, 0] = (x * right[0] + y * right[1] + z * right[2]) * texels + half
        projected[i, 1] = (x * up[0] + y * up[1] + z * up[2]) * texels + half
        projected[i, 2] = x * light[0] + y * light[1] + z * light[2]
    for t in range(len(triangles)):
        if not casts_shadow[t]:
            continue
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, az = projected[a, 0], projected[a, 1], projected[a, 2]
        bx, by, bz = projected[b, 0], projected[b, 1], projected[b, 2]
        cx, cy, cz = projected[c, 0], projected[c, 1], projected[c, 2]
        area = (cx - ax) * (by - ay) - (bx - ax) * (cy - ay)
        x0 = max(int(np.ceil(min(ax, bx, cx) - 0.5)), 0)
        x1 = min(int(np.floor(max(ax, bx, cx) - 0.5)), size - 1)
        y0 = max(int(np.ceil(min(ay, by, cy) - 0.5)), 0)
        y1 = min(int(np.floor(max(ay, by, cy) - 0.5)), size - 1)
        if area == 0.0 or x0 > x1 or y0 > y1:
            continue
        scale = _ONE / area
        ubx, uby = (cy - ay) * -scale, (cx - ax) * scale
        ucx, ucy = (by - ay) * scale, (bx - ax) * -scale
        dx = np.float32(x0) + _HALF - ax
        for y in range(y0, y1 + 1):
            dy = np.float32(y) + _HALF - ay
            u0, v0 = ubx * dx + uby * dy, ucx * dx + ucy * dy
            row = out[y, x0 : x1 + 1]
            for x in range(x1 + 1 - x0):
                step = np.float32(np.int32(x))
                u, v = u0 + ubx * step, v0 + ucx * step
                z = az + u * (bz - az) + v * (cz - az)
                if (u >= _ZERO) & (v >= _ZERO) & (u + v <= _ONE) & (z > row[x]):
                    row[x] = z
    return out


@kernel
def shadow_bounds(shadow):  # type: ignore[no-untyped-def]
    """Lowest and highest depth of the 4 x 4 texels that ``sample_shadow`` reads, float32[size, size, 2].

    Most points are clearly in front of or behind all of them, which the bounds decide without sixteen comparisons.
    Texels too near the border for ``sample_shadow`` stay unset.
    """
    size = shadow.shape[0]
    low, high = np.empty_like(shadow), np.empty_like(shadow)
    for y in range(size):
        for x in range(1, size - 2):
            a, b, c, d = shadow[y, x - 1], shadow[y, x], shadow[y, x + 1], shadow[y, x + 2]
            low[y, x], high[y, x] = min(a, b, c, d), max(a, b, c, d)
    out = np.empty((size, size, 2), np.float32)
    for y in range(1, size - 2):
        for x in range(1, size - 2):
            out[y, x, 0] = min(low[y - 1, x], low[y, x], low[y + 1, x], low[y + 2, x])
            out[y, x, 1] = max(high[y - 1, x], high[y, x], high[y + 1, x], high[y + 2, x])
    return out


def orthonormal_axes(direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors orthogonal to a unit direction and to each other, float32[3] each: axes of a shadow map."""
    reference = np.array([0, 1, 0]) if abs(direction[1]) < 0.9 else np.array([1, 0, 0])
    right = np.cross(reference, direction)
    right = (right / np.linalg.norm(right)).astype(np.float32)
    return right, np.cross(direction, right).astype(np.float32)


@kernel
def sample_shadow(shadow, bounds, u, v, depth):  # type: ignore[no-untyped-def]
    """Fraction of the light that reaches a point, 0 to 1: percentage-closer filtering with 3 x 3 bilinear taps.

    ``u`` and ``v`` are the texel (centres at whole numbers), ``depth`` the depth towards the light plus a bias.
    """
    size = shadow.shape[0]
    x, y = int(np.floor(u)), int(np.floor(v))
    if x < 1 or y < 1 or x + 2 >= size or y + 2 >= size or bounds[y, x, 1] <= depth:
        return _ONE
    if bounds[y, x, 0] > depth:
        return _ZERO
    right, low = np.float32(u - x), np.float32(v - y)
    left, high = _ONE - right, _ONE - low
    total = _ZERO
    for j in range(4):
        row_sum = left if shadow[y - 1 + j, x - 1] <= depth else _ZERO
        row_sum += _ONE if shadow[y - 1 + j, x] <= depth else _ZERO
        row_sum += _ONE if shadow[y - 1 + j, x + 1] <= depth else _ZERO
        row_sum += right if shadow[y - 1 + j, x + 2] <= depth else _ZERO
        total += row_sum * (high if j == 0 else low if j == 3 else _ONE)
    return total * np.float32(1 / 9)


@kernel
def upsample(out, image, factor):  # type: ignore[no-untyped-def]
    """Fill ``out``, float32[H * factor, W * factor, 3], with each pixel repeated ``factor`` x ``factor`` times."""
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            for c in range(3):
                out[y, x, c] = image[y // factor, x // factor, c]


@kernel
def downsample(image, factor):  # type: ignore[no-untyped-def]
    """Mean of ``factor`` x ``factor`` blocks, float32[H / factor, W / factor, 3]."""
    if factor == 1:
        return image
    height, width = image.shape[0] // factor, image.shape[1] // factor
    out = np.zeros((height, width, 3), np.float32)
    weight = 1.0 / (factor * factor)
    for y in range(height):
        for x in range(width):
            r = g = b = 0.0
            for j in range(y * factor, (y + 1) * factor):
                for i in range(x * factor, (x + 1) * factor):
                    r += image[j, i, 0]
                    g += image[j, i, 1]
                    b += image[j, i, 2]
            out[y, x, 0], out[y, x, 1], out[y, x, 2] = r * weight, g * weight, b * weight
    return out
