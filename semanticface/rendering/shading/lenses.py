"""Panes of glass laid over a finished picture: what they dim, and what they mirror."""

from __future__ import annotations

import numpy as np

from semanticface.rendering.conditions import Conditions
from semanticface.rendering.head.accessories import Lenses
from semanticface.rendering.kernels import kernel, smooth
from semanticface.rendering.shading import raster
from semanticface.rendering.shading.lighting import Lights
from semanticface.rendering.shading.projection import View


def look_through(
    picture: np.ndarray, lenses: Lenses, view: View, scene: Lights, shot: int, conditions: Conditions
) -> None:
    """Lay lenses over a picture.

    Args:
        picture: float32[H, H, 3], sRGB, changed in place.
        lenses: bent as the head is.
        view: what the picture shows, with its depth.
        scene: its light.
        shot: seed of what the glass mirrors.
        conditions: how strongly it does.
    """
    factor = len(view.front) // len(picture)
    screen = view.camera.screen(lenses.place)
    full = len(view.front)
    x0, y0 = (int(v) // factor * factor for v in np.clip(np.floor(screen[:, :2].min(0)), 0, full))
    x1, y1 = (int(v) for v in np.clip(np.ceil(screen[:, :2].max(0)), 0, full))
    if x1 <= x0 or y1 <= y0:
        return
    window = screen - np.array([x0, y0, 0], np.float32)
    both = np.ones(len(lenses.triangles), bool)
    front, w1, w2, near = raster.visibility(window, lenses.triangles, both, x1 - x0, y1 - y0, "glass")
    rng = np.random.default_rng([shot, 29])
    strong = rng.random() < (0.25 if conditions == "usual" else 0.6)
    gleam = rng.uniform(0.2, 0.75) if strong else rng.uniform(0.0, 0.12)
    lamp = np.clip(scene.colours[0] / scene.colours[0].max(), 0, 1)
    # A window or a lamp somewhere before the subject: a rectangle in the tangents of the mirrored direction.
    patch = np.array([rng.normal(0, 0.35), rng.uniform(-0.2, 0.7), rng.uniform(0.08, 0.4), rng.uniform(0.08, 0.35),
                      rng.normal(0, 0.3), rng.random()], np.float32)  # fmt: skip
    normal = lenses.normal @ view.camera.turn.T
    towards = np.array([0, 0, view.camera.distance], np.float32) - lenses.place @ view.camera.turn.T
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    mirrored = (2 * (normal * towards).sum(1, keepdims=True) * normal - towards).astype(np.float32)
    read = np.concatenate([mirrored, lenses.edge[:, None], lenses.place[:, 1:2]], 1)
    ends = np.array([lenses.place[:, 1].min(), lenses.place[:, 1].max()], np.float32)
    _lay(picture, view.near, front, w1, w2, near, x0, y0, factor, read, lenses.triangles, lenses.clear, ends,
         np.float32(gleam), lamp.astype(np.float32), patch, np.float32(lenses.drawn))  # fmt: skip


@kernel
def _lay(  # type: ignore[no-untyped-def]
    picture, solid, front, w1, w2, near, x0, y0, factor, read, triangles, clear, ends, gleam, lamp, patch, drawn
):
    height, width = front.shape
    share = np.float32(1 / (factor * factor))
    s = np.empty(5, np.float32)
    for y in range(0, height, factor):
        for x in range(0, width, factor):
            cover = r = g = b = dr = dg = db = np.float32(0)
            for j in range(y, min(y + factor, height)):
                for i in range(x, min(x + factor, width)):
                    t = front[j, i]
                    if t < 0 or near[j, i] < solid[y0 + j, x0 + i]:
                        continue
                    b1, b2 = w1[j, i], w2[j, i]
                    b0 = np.float32(1) - b1 - b2
                    i0, i1, i2 = triangles[t, 0], triangles[t, 1], triangles[t, 2]
                    for k in range(5):
                        s[k] = b0 * read[i0, k] + b1 * read[i1, k] + b2 * read[i2, k]
                    cover += share
                    down = (ends[1] - s[4]) / (ends[1] - ends[0])
                    dark = 1 - drawn * smooth(0.9, 0.97, s[3])
                    dr += share * dark * (clear[0, 0] + (clear[1, 0] - clear[0, 0]) * down)
                    dg += share * dark * (clear[0, 1] + (clear[1, 1] - clear[0, 1]) * down)
                    db += share * dark * (clear[0, 2] + (clear[1, 2] - clear[0, 2]) * down)
                    z = max(s[2], np.float32(0.1))
                    u, v = s[0] / z - patch[0], s[1] / z - patch[1]
                    u, v = u - patch[4] * v, v + patch[4] * u
                    inside = smooth(patch[2] + 0.05, patch[2], abs(u)) * smooth(patch[3] + 0.05, patch[3], abs(v))
                    if patch[5] < 0.5:  # a window's bar
                        inside *= smooth(0.0, 0.04, abs(u - 0.1 * patch[2]) - 0.01)
                    shine = gleam * inside + 0.03 + 0.05 * smooth(-0.2, 0.8, s[1])
                    r, g, b = r + share * shine * lamp[0], g + share * shine * lamp[1], b + share * shine * lamp[2]
            if cover > 0:
                p = picture[(y0 + y) // factor, (x0 + x) // factor]
                p[0] = p[0] * (1 - cover + dr) + r
                p[1] = p[1] * (1 - cover + dg) + g
                p[2] = p[2] * (1 - cover + db) + b
