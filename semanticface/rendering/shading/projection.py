"""Rasterise a mesh from the camera and from the key light: what the mesh styles share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semanticface.rendering import raster
from semanticface.rendering.camera import Camera
from semanticface.rendering.head.mesh import BASE, POSITION, Mesh
from semanticface.rendering.head.rig import rig
from semanticface.rendering.kernels import kernel
from semanticface.rendering.lighting import SHADOW_EXTENT

_LASH_BIAS = np.float32(0.995)
"""A lash is drawn where its 1 / depth is at least this fraction of the skin's, as it may lie on a lid."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Visible samples of a mesh; valid until the same thread rasterises another.

    Attributes:
        camera: scaled to samples instead of pixels.
        triangles: int32[T, 3], everything but the lashes.
        part: uint8[T].
        triangle_ids, w1, w2, inv_depth: as ``raster.visibility`` returns them.
        lash_samples: int32[L], flat indices of samples that a lash covers.
        lash_offsets: float32[L, 3], their base-mesh position from the eye's centre, both eyes mapped to the left.
    """

    camera: Camera
    triangles: np.ndarray
    part: np.ndarray
    triangle_ids: np.ndarray
    w1: np.ndarray
    w2: np.ndarray
    inv_depth: np.ndarray
    lash_samples: np.ndarray
    lash_offsets: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Shadow:
    """Shadow map of a distant light.

    Attributes:
        depth: float32[size, size], a ``raster.shadow_map`` of extent ``SHADOW_EXTENT``.
        bounds: float32[size, size, 2], its ``raster.shadow_bounds``.
        right, up, light: float32[3], axes of the map and unit vector towards the light, in head space.
    """

    depth: np.ndarray
    bounds: np.ndarray
    right: np.ndarray
    up: np.ndarray
    light: np.ndarray


def rasterise(mesh: Mesh, camera: Camera, size: int, supersample: int) -> View:
    """Rasterise a mesh for a square image of ``size`` pixels with ``supersample`` samples per pixel and side."""
    camera, side = camera.scaled(supersample), size * supersample
    screen = camera.project(mesh.attributes[:, POSITION])
    triangles, lashes = mesh.triangles[: mesh.n_opaque], mesh.triangles[mesh.n_opaque :]
    triangle_ids, w1, w2, inv_depth = raster.visibility(screen, triangles, mesh.two_sided, side, side, "solid")
    # Lashes cover a small window; full-size buffers would cost more than rasterising them.
    lash_points = screen[lashes.min() : lashes.max() + 1, :2]
    x0, y0 = (int(v) for v in np.clip(np.floor(lash_points.min(0)), 0, side))
    x1, y1 = (int(v) for v in np.clip(np.ceil(lash_points.max(0)), 0, side))
    window = screen - np.array([x0, y0, 0], np.float32)
    two_sided = np.ones(len(lashes), bool)
    buffers = raster.visibility(window, lashes, two_sided, max(x1 - x0, 0), max(y1 - y0, 0), "lashes")
    base, centre = mesh.attributes[:, BASE], rig().lash_centre
    lash_samples, lash_offsets = _visible_lashes(inv_depth, *buffers, x0, y0, base, lashes, centre)
    part = mesh.part[: mesh.n_opaque]
    return View(camera, triangles, part, triangle_ids, w1, w2, inv_depth, lash_samples, lash_offsets)


@kernel
def _visible_lashes(inv_depth, triangle_ids, w1, w2, lash_inv_depth, x0, y0, base, triangles, centre):  # type: ignore[no-untyped-def]
    """Flat indices of samples with a lash in front, int32[L], and their offsets, float32[L, 3]."""
    height, width = triangle_ids.shape
    samples = np.empty(triangle_ids.size, np.int32)
    offsets = np.empty((triangle_ids.size, 3), np.float32)
    n = 0
    for y in range(height):
        for x in range(width):
            t = triangle_ids[y, x]
            if t < 0 or lash_inv_depth[y, x] < inv_depth[y0 + y, x0 + x] * _LASH_BIAS:
                continue
            b1, b2 = w1[y, x], w2[y, x]
            b0 = np.float32(1) - b1 - b2
            p, q, r = base[triangles[t, 0]], base[triangles[t, 1]], base[triangles[t, 2]]
            offsets[n, 0] = abs(b0 * p[0] + b1 * q[0] + b2 * r[0]) - centre[0]
            offsets[n, 1] = b0 * p[1] + b1 * q[1] + b2 * r[1] - centre[1]
            offsets[n, 2] = b0 * p[2] + b1 * q[2] + b2 * r[2] - centre[2]
            samples[n] = (y0 + y) * inv_depth.shape[1] + x0 + x
            n += 1
    return samples[:n], offsets[:n]


def cast_shadow(mesh: Mesh, direction: np.ndarray, size: int, pattern: np.ndarray | None = None) -> Shadow:
    """Shadow map of a mesh for the light from ``direction`` (unit vector in head space), ``size`` texels a side.

    ``pattern`` is an occluder far in front of the mesh, see ``lighting.Lights.shadow_pattern``.
    """
    light = direction.astype(np.float32)
    right, up = raster.orthonormal_axes(light)
    depth = raster.shadow_map(mesh.attributes[:, POSITION], mesh.triangles, mesh.casts_shadow, right, up, light, size,
                              SHADOW_EXTENT)  # fmt: skip
    if pattern is not None:
        texels = np.arange(size) * len(pattern) // size
        depth[pattern[np.ix_(texels, texels)]] = -raster.FAR
    return Shadow(depth, raster.shadow_bounds(depth), right, up, light)
