"""Things that are neither head nor hair, as meshes that carry their own colour: frames, hats, hands, cups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Prop:
    """A thing in head space.

    Attributes:
        place: float32[P, 3], decimetres.
        colour: float32[P, 3], linear RGB.
        surface: float32[P, 4]: gloss; how far light bends round it (1 is skin); depth of its grain, 0 to 1; grains
            a decimetre.
        triangles: int32[T, 3], both sides are drawn.
    """

    place: np.ndarray
    colour: np.ndarray
    surface: np.ndarray
    triangles: np.ndarray


@dataclass(frozen=True, slots=True)
class Stuff:
    """What a thing is made of: linear RGB, and ``Prop.surface``."""

    colour: tuple[float, float, float]
    gloss: float = 0.3
    wrap: float = 0.0
    grain: float = 0.0
    grains: float = 20.0


def solid(place: np.ndarray, triangles: np.ndarray, stuff: Stuff) -> Prop:
    """A thing of one stuff."""
    surface = np.array([stuff.gloss, stuff.wrap, stuff.grain, stuff.grains], np.float32)
    n = len(place)
    return Prop(place.astype(np.float32), np.tile(np.array(stuff.colour, np.float32), (n, 1)), np.tile(surface, (n, 1)),
                triangles.astype(np.int32))  # fmt: skip


def join(props: Sequence[Prop]) -> Prop:
    """Several things as one."""
    starts = np.cumsum([0, *(len(p.place) for p in props[:-1])])
    return Prop(
        np.concatenate([p.place for p in props]),
        np.concatenate([p.colour for p in props]),
        np.concatenate([p.surface for p in props]),
        np.concatenate([p.triangles + np.int32(start) for p, start in zip(props, starts, strict=True)]),
    )


@lru_cache(maxsize=128)
def grid(rows: int, columns: int, *, round_rows: bool = False, round_columns: bool = False) -> np.ndarray:
    """Triangles over vertices laid out in rows, int64[T, 3]; ``round_…`` joins the last to the first."""
    i = np.arange(rows if round_rows else rows - 1)[:, None]
    j = np.arange(columns if round_columns else columns - 1)
    a, b = i * columns + j, i * columns + (j + 1) % columns
    c, d = (i + 1) % rows * columns + j, (i + 1) % rows * columns + (j + 1) % columns
    return np.concatenate([np.stack([a, c, d], -1).reshape(-1, 3), np.stack([a, d, b], -1).reshape(-1, 3)])


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross products of rows, several times faster than numpy's on a few."""
    (x, y, z), (u, v, w) = a.T, b.T
    return np.stack([y * w - z * v, z * u - x * w, x * v - y * u], 1)


def rod(
    path: np.ndarray, thick: np.ndarray | float, up: np.ndarray, *, deep: np.ndarray | float | None = None,
    closed: bool = False, around: int = 6, round_ends: bool = False,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A tube along a path.

    Args:
        path: float[N, 3].
        thick: radius across ``up``, a number or [N].
        up: float[3] or [N, 3], about across the path.
        deep: radius along ``up``; ``thick`` by default.
        closed: the path is a ring.
        around: corners of the tube's section.
        round_ends: end in half balls, else flat and open.

    Returns:
        (vertices float[M, 3], triangles int[T, 3]).
    """
    thick = np.broadcast_to(np.asarray(thick, float), len(path))
    deep = thick if deep is None else np.broadcast_to(np.asarray(deep, float), len(path))
    along = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    along = along / np.linalg.norm(along, axis=1, keepdims=True)
    side = _cross(along, np.broadcast_to(up, along.shape))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    high = _cross(side, along)
    if round_ends:
        turns = np.radians([15.0, 45.0, 75.0])
        caps = []
        for end, sign, lean in ((0, -1, turns[::-1]), (-1, 1, turns)):
            r = max(thick[end], deep[end])
            caps.append((path[end] + sign * r * np.sin(lean)[:, None] * along[end], np.cos(lean), end))
        path = np.concatenate([caps[0][0], path, caps[1][0]])
        thick = np.concatenate([caps[0][1] * thick[0], thick, caps[1][1] * thick[-1]])
        deep = np.concatenate([caps[0][1] * deep[0], deep, caps[1][1] * deep[-1]])
        side = np.concatenate([np.tile(side[0], (3, 1)), side, np.tile(side[-1], (3, 1))])
        high = np.concatenate([np.tile(high[0], (3, 1)), high, np.tile(high[-1], (3, 1))])
    turn = 2 * np.pi * np.arange(around) / around
    ring = (
        side[:, None] * (thick[:, None] * np.cos(turn))[..., None]
        + high[:, None] * (deep[:, None] * np.sin(turn))[..., None]
    )
    vertices = (path[:, None] + ring).reshape(-1, 3)
    return vertices, grid(len(path), around, round_rows=closed, round_columns=True)
