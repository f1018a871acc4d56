"""A small z-buffer rasteriser: triangles to a visibility buffer, and a shadow map.

It answers one question a pixel: which triangle is in front, and where on it. Looks then shade each visible pixel
once, reading what they need from the triangle's three corners. Nothing but numba is needed.
"""

from __future__ import annotations

import numba as nb
import numpy as np

NOTHING = -1


@nb.njit(cache=True, nogil=True, fastmath=True)
def visibility(screen, triangles, two_sided, width, height):  # type: ignore[no-untyped-def]
    """Draw triangles into a visibility buffer.

    Args:
        screen: float32[V, 3], pixel x, pixel y (down) and 1 / depth of every vertex; depth must be positive.
        triangles: int32[T, 3], counter-clockwise seen from outside.
        two_sided: bool[T], draw the back as well.
        width, height: of the buffer in pixels.

    Returns:
        (triangle int32[H, W] or ``NOTHING``, weight of corner 1 float32[H, W], of corner 2 float32[H, W],
        1 / depth float32[H, W]); the weights are perspective-correct.
    """
    front = np.full((height, width), NOTHING, np.int32)
    near = np.zeros((height, width), np.float32)
    w1 = np.zeros((height, width), np.float32)
    w2 = np.zeros((height, width), np.float32)
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
        scale = 1.0 / area
        ubx, uby = (cy - ay) * -scale, (cx - ax) * scale
        ucx, ucy = (by - ay) * scale, (bx - ax) * -scale
        for y in range(y0, y1 + 1):
            dy = y + 0.5 - ay
            for x in range(x0, x1 + 1):
                dx = x + 0.5 - ax
                u = ubx * dx + uby * dy
                if u < 0.0:
                    continue
                v = ucx * dx + ucy * dy
                if v < 0.0 or u + v > 1.0:
                    continue
                z = az + u * (bz - az) + v * (cz - az)
                if z > near[y, x]:
                    near[y, x] = z
                    front[y, x] = t
                    w1[y, x] = u * bz / z
                    w2[y, x] = v * cz / z
    return front, w1, w2, near


@nb.njit(cache=True, nogil=True, fastmath=True)
def shadow_map(points, triangles, casts, right, up, light, size, extent):  # type: ignore[no-untyped-def]
    """Depth towards a distant light, float32[size, size]: the largest ``p . light`` over each texel (-1e9: nothing).

    Texel x and y are ``(p . right, p . up) / extent`` mapped from [-1, 1] to the map.
    """
    out = np.full((size, size), np.float32(-1e9))
    half = size / 2
    flat = np.empty((len(points), 3), np.float32)
    for i in range(len(points)):
        p = points[i]
        flat[i, 0] = ((p[0] * right[0] + p[1] * right[1] + p[2] * right[2]) / extent + 1) * half
        flat[i, 1] = ((p[0] * up[0] + p[1] * up[1] + p[2] * up[2]) / extent + 1) * half
        flat[i, 2] = p[0] * light[0] + p[1] * light[1] + p[2] * light[2]
    for t in range(len(triangles)):
        if not casts[t]:
            continue
        a, b, c = flat[triangles[t, 0]], flat[triangles[t, 1]], flat[triangles[t, 2]]
        area = (c[0] - a[0]) * (b[1] - a[1]) - (b[0] - a[0]) * (c[1] - a[1])
        if area == 0.0:
            continue
        x0 = max(int(np.ceil(min(a[0], b[0], c[0]) - 0.5)), 0)
        x1 = min(int(np.floor(max(a[0], b[0], c[0]) - 0.5)), size - 1)
        y0 = max(int(np.ceil(min(a[1], b[1], c[1]) - 0.5)), 0)
        y1 = min(int(np.floor(max(a[1], b[1], c[1]) - 0.5)), size - 1)
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                dx, dy = x + 0.5 - a[0], y + 0.5 - a[1]
                u = ((c[0] - a[0]) * dy - (c[1] - a[1]) * dx) / area
                v = ((b[1] - a[1]) * dx - (b[0] - a[0]) * dy) / area
                if u < 0.0 or v < 0.0 or u + v > 1.0:
                    continue
                z = a[2] + u * (b[2] - a[2]) + v * (c[2] - a[2])
                out[y, x] = max(out[y, x], z)
    return out


def across(direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors across a unit direction and each other, float32[3] each: the axes of a shadow map."""
    helper = np.array([0, 1, 0]) if abs(direction[1]) < 0.9 else np.array([1, 0, 0])
    right = np.cross(helper, direction)
    right = (right / np.linalg.norm(right)).astype(np.float32)
    return right, np.cross(direction, right).astype(np.float32)


@nb.njit(cache=True, nogil=True, fastmath=True)
def lit(shadow, x, y, z, right, up, light, extent, bias):  # type: ignore[no-untyped-def]
    """Share of the light that reaches a point, 0 to 1: 3 x 3 bilinear taps of a ``shadow_map``."""
    size = shadow.shape[0]
    half = size / 2
    u = ((x * right[0] + y * right[1] + z * right[2]) / extent + 1) * half - 0.5
    v = ((x * up[0] + y * up[1] + z * up[2]) / extent + 1) * half - 0.5
    depth = x * light[0] + y * light[1] + z * light[2] + bias
    x0, y0 = int(np.floor(u)), int(np.floor(v))
    if x0 < 1 or y0 < 1 or x0 + 2 >= size or y0 + 2 >= size:
        return 1.0
    fx, fy = u - x0, v - y0
    total = 0.0
    for j in range(-1, 3):
        wy = (1 - fy) if j == -1 else (fy if j == 2 else 1.0)
        for i in range(-1, 3):
            wx = (1 - fx) if i == -1 else (fx if i == 2 else 1.0)
            if shadow[y0 + j, x0 + i] <= depth:
                total += wx * wy
    return total / 9.0


@nb.njit(cache=True, nogil=True, fastmath=True)
def downsample(picture, factor):  # type: ignore[no-untyped-def]
    """Mean of ``factor`` x ``factor`` blocks, float32[H / factor, W / factor, 3]."""
    if factor == 1:
        return picture
    height, width = picture.shape[0] // factor, picture.shape[1] // factor
    out = np.zeros((height, width, 3), np.float32)
    share = 1.0 / (factor * factor)
    for y in range(height):
        for x in range(width):
            r = g = b = 0.0
            for j in range(y * factor, (y + 1) * factor):
                for i in range(x * factor, (x + 1) * factor):
                    r += picture[j, i, 0]
                    g += picture[j, i, 1]
                    b += picture[j, i, 2]
            out[y, x, 0], out[y, x, 1], out[y, x, 2] = r * share, g * share, b * share
    return out
