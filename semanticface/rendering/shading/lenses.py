"""Composite the lenses of glasses over a finished image: tint and reflection."""

from __future__ import annotations

import numpy as np

from semanticface.rendering import raster
from semanticface.rendering.conditions import Conditions
from semanticface.rendering.head.accessories import Lenses
from semanticface.rendering.kernels import kernel, smoothstep
from semanticface.rendering.lighting import Lights
from semanticface.rendering.shading.projection import View


def composite_lenses(
    image: np.ndarray, lenses: Lenses, view: View, lights: Lights, shot: int, conditions: Conditions
) -> None:
    """Composite lenses over an image.

    Args:
        image: float32[H, H, 3], sRGB, changed in place.
        lenses: in head space.
        view: the rasterised scene, for its depth.
        lights: of the scene.
        shot: seed of the reflection.
        conditions: how strong the reflection is.
    """
    factor = len(view.triangle_ids) // len(image)
    screen = view.camera.project(lenses.positions)
    n_samples = len(view.triangle_ids)
    x0, y0 = (int(v) // factor * factor for v in np.clip(np.floor(screen[:, :2].min(0)), 0, n_samples))
    x1, y1 = (int(v) for v in np.clip(np.ceil(screen[:, :2].max(0)), 0, n_samples))
    if x1 <= x0 or y1 <= y0:
        return
    window = screen - np.array([x0, y0, 0], np.float32)
    two_sided = np.ones(len(lenses.triangles), bool)
    triangle_ids, w1, w2, inv_depth = raster.visibility(window, lenses.triangles, two_sided, x1 - x0, y1 - y0, "glass")
    rng = np.random.default_rng([shot, 29])
    strong = rng.random() < (0.25 if conditions == "usual" else 0.6)
    glare = rng.uniform(0.2, 0.75) if strong else rng.uniform(0.0, 0.12)
    light_colour = np.clip(lights.colours[0] / lights.colours[0].max(), 0, 1)
    # A bright window in front of the subject: a rectangle in x/z and y/z of the reflected direction.
    window = np.array([rng.normal(0, 0.35), rng.uniform(-0.2, 0.7), rng.uniform(0.08, 0.4),
                             rng.uniform(0.08, 0.35), rng.normal(0, 0.3), rng.random()], np.float32)  # fmt: skip
    normal = lenses.normal @ view.camera.rotation.T
    to_camera = np.array([0, 0, view.camera.distance], np.float32) - lenses.positions @ view.camera.rotation.T
    to_camera /= np.linalg.norm(to_camera, axis=1, keepdims=True)
    reflected = (2 * (normal * to_camera).sum(1, keepdims=True) * normal - to_camera).astype(np.float32)
    vertex_values = np.concatenate([reflected, lenses.edge[:, None], lenses.positions[:, 1:2]], 1)
    y_range = np.array([lenses.positions[:, 1].min(), lenses.positions[:, 1].max()], np.float32)
    _composite(image, view.inv_depth, triangle_ids, w1, w2, inv_depth, x0, y0, factor, vertex_values, lenses.triangles,
               lenses.transmission, y_range, np.float32(glare), light_colour.astype(np.float32), window,
               np.float32(lenses.edge_darkness))  # fmt: skip


@kernel
def _composite(  # type: ignore[no-untyped-def]
    image, scene_inv_depth, triangle_ids, w1, w2, inv_depth, x0, y0, factor, vertex_values, triangles, transmission,
    y_range, glare, light, window, edge_darkness,
):  # fmt: skip
    height, width = triangle_ids.shape
    weight = np.float32(1 / (factor * factor))
    values = np.empty(5, np.float32)
    for y in range(0, height, factor):
        for x in range(0, width, factor):
            coverage = r = g = b = kept_r = kept_g = kept_b = np.float32(0)
            for j in range(y, min(y + factor, height)):
                for i in range(x, min(x + factor, width)):
                    t = triangle_ids[j, i]
                    if t < 0 or inv_depth[j, i] < scene_inv_depth[y0 + j, x0 + i]:
                        continue
                    b1, b2 = w1[j, i], w2[j, i]
                    b0 = np.float32(1) - b1 - b2
                    i0, i1, i2 = triangles[t, 0], triangles[t, 1], triangles[t, 2]
                    for k in range(5):
                        values[k] = b0 * vertex_values[i0, k] + b1 * vertex_values[i1, k] + b2 * vertex_values[i2, k]
                    coverage += weight
                    down = (y_range[1] - values[4]) / (y_range[1] - y_range[0])
                    edge = 1 - edge_darkness * smoothstep(0.9, 0.97, values[3])
                    kept_r += weight * edge * (transmission[0, 0] + (transmission[1, 0] - transmission[0, 0]) * down)
                    kept_g += weight * edge * (transmission[0, 1] + (transmission[1, 1] - transmission[0, 1]) * down)
                    kept_b += weight * edge * (transmission[0, 2] + (transmission[1, 2] - transmission[0, 2]) * down)
                    z = max(values[2], np.float32(0.1))
                    u, v = values[0] / z - window[0], values[1] / z - window[1]
                    u, v = u - window[4] * v, v + window[4] * u
                    in_window = smoothstep(window[2] + 0.05, window[2], abs(u)) * smoothstep(
                        window[3] + 0.05, window[3], abs(v)
                    )
                    if window[5] < 0.5:  # a glazing bar
                        in_window *= smoothstep(0.0, 0.04, abs(u - 0.1 * window[2]) - 0.01)
                    reflection = glare * in_window + 0.03 + 0.05 * smoothstep(-0.2, 0.8, values[1])
                    r, g, b = (
                        r + weight * reflection * light[0],
                        g + weight * reflection * light[1],
                        b + weight * reflection * light[2],
                    )
            if coverage > 0:
                p = image[(y0 + y) // factor, (x0 + x) // factor]
                p[0] = p[0] * (1 - coverage + kept_r) + r
                p[1] = p[1] * (1 - coverage + kept_g) + g
                p[2] = p[2] * (1 - coverage + kept_b) + b
