"""Props: meshes with their own colour, such as frames, hats, hands and cups, and helpers to build them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Prop:
    """A mesh in head space.

    Attributes:
        positions: float32[P, 3], decimetres.
        colour: float32[P, 3], linear RGB.
        surface: float32[P, 4]: gloss; wrapped diffuse (1 is skin); amplitude of the grain, 0 to 1; its frequency per
            decimetre.
        triangles: int32[T, 3], drawn from both sides.
    """

    positions: np.ndarray
    colour: np.ndarray
    surface: np.ndarray
    triangles: np.ndarray


@dataclass(frozen=True, slots=True)
class Material:
    """Linear RGB colour, and the values of ``Prop.surface``."""

    colour: tuple[float, float, float]
    gloss: float = 0.3
    wrap: float = 0.0
    grain: float = 0.0
    grain_frequency: float = 20.0


def make_prop(positions: np.ndarray, triangles: np.ndarray, material: Material) -> Prop:
    """A mesh of one material."""
    surface = np.array([material.gloss, material.wrap, material.grain, material.grain_frequency], np.float32)
    n = len(positions)
    return Prop(positions.astype(np.float32), np.tile(np.array(material.colour, np.float32), (n, 1)), np.tile(surface,
                (n, 1)), triangles.astype(np.int32))  # fmt: skip


def join_props(props: Sequence[Prop]) -> Prop:
    """Join several props into one."""
    starts = np.cumsum([0, *(len(p.positions) for p in props[:-1])])
    return Prop(
        np.concatenate([p.positions for p in props]),
        np.concatenate([p.colour for p in props]),
        np.concatenate([p.surface for p in props]),
        np.concatenate([p.triangles + np.int32(start) for p, start in zip(props, starts, strict=True)]),
    )


@lru_cache(maxsize=128)
def grid_triangles(rows: int, columns: int, *, wrap_rows: bool = False, wrap_columns: bool = False) -> np.ndarray:
    """Triangles of a grid of vertices, int64[T, 3]; ``wrap_…`` joins the last to the first."""
    i = np.arange(rows if wrap_rows else rows - 1)[:, None]
    j = np.arange(columns if wrap_columns else columns - 1)
    a, b = i * columns + j, i * columns + (j + 1) % columns
    c, d = (i + 1) % rows * columns + j, (i + 1) % rows * columns + (j + 1) % columns
    return np.concatenate([np.stack([a, c, d], -1).reshape(-1, 3), np.stack([a, d, b], -1).reshape(-1, 3)])


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Row-wise cross product, several times faster than numpy's on a few rows."""
    (x, y, z), (u, v, w) = a.T, b.T
    return np.stack([y * w - z * v, z * u - x * w, x * v - y * u], 1)


def tube(
    path: np.ndarray, radius: np.ndarray | float, up: np.ndarray, *, up_radius: np.ndarray | float | None = None,
    closed: bool = False, sides: int = 6, rounded: bool = False,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A tube along a path.

    Args:
        path: float[N, 3].
        radius: across ``up``, a number or [N].
        up: float[3] or [N, 3], roughly orthogonal to the path.
        up_radius: radius along ``up``; ``radius`` by default.
        closed: the path is a ring.
        sides: of the cross-section.
        rounded: end in hemispheres instead of flat and open.

    Returns:
        (vertices float[M, 3], triangles int[T, 3]).
    """
    radius = np.broadcast_to(np.asarray(radius, float), len(path))
    up_radius = radius if up_radius is None else np.broadcast_to(np.asarray(up_radius, float), len(path))
    along = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    along = along / np.linalg.norm(along, axis=1, keepdims=True)
    binormal = _cross(along, np.broadcast_to(up, along.shape))
    binormal /= np.linalg.norm(binormal, axis=1, keepdims=True)
    normal = _cross(binormal, along)
    if rounded:
        cap_angles = np.radians([15.0, 45.0, 75.0])
        caps = []
        for end, sign, angles in ((0, -1, cap_angles[::-1]), (-1, 1, cap_angles)):
            r = max(radius[end], up_radius[end])
            caps.append((path[end] + sign * r * np.sin(angles)[:, None] * along[end], np.cos(angles), end))
        path = np.concatenate([caps[0][0], path, caps[1][0]])
        radius = np.concatenate([caps[0][1] * radius[0], radius, caps[1][1] * radius[-1]])
        up_radius = np.concatenate([caps[0][1] * up_radius[0], up_radius, caps[1][1] * up_radius[-1]])
        binormal = np.concatenate([np.tile(binormal[0], (3, 1)), binormal, np.tile(binormal[-1], (3, 1))])
        normal = np.concatenate([np.tile(normal[0], (3, 1)), normal, np.tile(normal[-1], (3, 1))])
    angle = 2 * np.pi * np.arange(sides) / sides
    ring = (
        binormal[:, None] * (radius[:, None] * np.cos(angle))[..., None]
        + normal[:, None] * (up_radius[:, None] * np.sin(angle))[..., None]
    )
    vertices = (path[:, None] + ring).reshape(-1, 3)
    return vertices, grid_triangles(len(path), sides, wrap_rows=closed, wrap_columns=True)
