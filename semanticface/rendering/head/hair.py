"""Hair as a sheet draped over the skull: short cuts, fringes, bobs, long hair, afros and buns.

The sheet is laid out on the base mesh by azimuth and by distance from crown to tip: it follows the skull at an offset
and hangs straight down where it is longer. A smooth warp fitted to the scalp then moves it to each identity.
Texture coordinates of its vertices are (azimuth in radians, length in decimetres, distance from the crown).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from semanticface.rendering.head.rig import SKIN, Identity, rig
from semanticface.rendering.kernels import NOISE_VOLUME
from semanticface.rendering.raster import visibility

HAIR_STYLES = ("bald", "crop", "short", "fringe", "bob", "long", "afro", "tied")
COLUMNS, ROWS = 72, 22
AXIS, TOP = 0.0, 1.54
_N_AZIMUTHS, _N_LEVELS, _Y_MIN, _Y_MAX = 144, 160, -2.0, 1.62


@dataclass(frozen=True, slots=True, eq=False)
class Cover:
    """Headwear that presses hair to the skull.

    Attributes:
        edge: float[N], height of its lower edge on the base mesh by azimuth, evenly from -pi to pi.
        clearance: between skull and cover, decimetres.
    """

    edge: np.ndarray
    clearance: float


@cache
def _skull_map() -> np.ndarray:
    """Distance of the base mesh from the head's axis by (height, azimuth), float32[160, 144], without ears."""
    r = rig()
    skin = r.triangles[(r.part[r.triangles[:, 0]] == SKIN) & (r.masks[r.triangles, 3] < 0.3).all(1)]
    azimuth = np.arctan2(r.base[:, 0], r.base[:, 2] - AXIS)
    distance = np.hypot(r.base[:, 0], r.base[:, 2] - AXIS)
    level = (r.base[:, 1] - _Y_MIN) / (_Y_MAX - _Y_MIN) * _N_LEVELS
    whole = np.ptp(azimuth[skin], axis=1) < 2.5
    screen = np.stack([(azimuth / (2 * np.pi) + 0.5) * _N_AZIMUTHS, level, distance], 1).astype(np.float32)
    out = visibility(screen, skin[whole], np.ones(int(whole.sum()), bool), _N_AZIMUTHS, _N_LEVELS, "skull")[3].copy()
    for row in out:
        filled = np.flatnonzero(row > 0.02)
        if len(filled) > 2:
            row[:] = np.interp(np.arange(_N_AZIMUTHS), filled, row[filled], period=_N_AZIMUTHS)
    # Below the skull hair hangs as if neck and shoulders were as wide as the head's lower end.
    nape = int((-0.25 - _Y_MIN) / (_Y_MAX - _Y_MIN) * _N_LEVELS)
    out[:nape] = out[nape]
    top = np.flatnonzero(out.max(1) > 0.02)[-1]
    out[top:] = out[top] * np.sqrt(np.clip(1 - np.arange(_N_LEVELS - top) / 6, 0, 1))[:, None]
    return out


def skull_distance(y: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    """Distance of the base mesh's skull from the head's axis at heights and azimuths (broadcast)."""
    skull = _skull_map()
    level = np.clip((y - _Y_MIN) / (_Y_MAX - _Y_MIN) * _N_LEVELS - 0.5, 0, _N_LEVELS - 1.001)
    column = np.clip((azimuth / (2 * np.pi) + 0.5) * _N_AZIMUTHS - 0.5, 0, _N_AZIMUTHS - 1.001)
    i, j = level.astype(int), column.astype(int)
    fi, fj = level - i, column - j
    return (skull[i, j] * (1 - fi) + skull[i + 1, j] * fi) * (1 - fj) + (
        skull[i, j + 1] * (1 - fi) + skull[i + 1, j + 1] * fi
    ) * fj


@cache
def _warp_fit(family: str) -> tuple[np.ndarray, np.ndarray]:
    """Scalp and neck vertices, and the pseudo-inverse that fits a quadratic displacement field to them."""
    r = rig(family)
    b = r.base
    plain = (r.part == SKIN) & (r.masks[:, 1] < 0.1) & (r.masks[:, 3] < 0.3)
    rows = np.flatnonzero(plain & ((b[:, 2] < 0.5) | (b[:, 1] > 0.75)))
    return rows, np.linalg.pinv(_quadratic_terms(b[rows])).astype(np.float32)


def _quadratic_terms(p: np.ndarray) -> np.ndarray:
    x, y, z = p[:, 0], np.clip(p[:, 1], -1.4, 2.2), p[:, 2]
    return np.stack([np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, y * z, x * z], 1)


def _tip_heights(style: str, azimuth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Height of the hair's lower edge by azimuth, decimetres on the base mesh."""
    a = np.abs(azimuth)
    at = [0, 0.5, 0.95, 1.12, 1.35, 1.5, 1.75, 2.1, np.pi]
    cut = np.interp(a, at, [0.98, 0.95, 0.74, 0.45, 0.28, 0.46, 0.25, -0.3, -0.38])
    if style == "afro":
        return np.interp(a, [0, 0.9, 1.3, 1.9, np.pi], [0.93, 0.72, 0.25, -0.1, -0.35])
    if style in ("short", "tied"):
        return cut
    lean = rng.normal(0, 0.5)
    fringe = rng.uniform(0.60, 0.78) + rng.uniform(0, 0.12) * np.abs(azimuth - lean)
    edge = rng.uniform(0.9, 1.1)
    if style == "fringe":
        return np.where(a < edge, np.minimum(fringe, cut), cut - 0.06)
    end = rng.uniform(-0.75, -0.2) if style == "bob" else rng.uniform(-2.0, -1.1)
    front = fringe if rng.random() < 0.45 else np.minimum(cut, 0.97 - rng.uniform(0, 0.2) * np.abs(azimuth - lean))
    return np.where(a < edge, np.maximum(front, np.interp(a, [0, edge], [-1, 0.55])), end)


def _hair_sheet(style: str, seed: int, cover: Cover | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hair on the base mesh: vertices, texture coordinates, triangles."""
    rng = np.random.default_rng([seed, 31])
    azimuth = np.linspace(-np.pi, np.pi, COLUMNS)
    t = np.linspace(0, 1, ROWS)[:, None]
    lumps = NOISE_VOLUME[int(rng.integers(32)), int(rng.integers(32))]
    clump = np.interp(np.arange(COLUMNS) * rng.uniform(0.2, 0.42), np.arange(32), lumps, period=32)
    clump[-1] = clump[0]
    tips = _tip_heights(style, azimuth, rng)
    volume = {"short": rng.uniform(0.04, 0.17), "fringe": rng.uniform(0.06, 0.14), "bob": rng.uniform(0.08, 0.2),
              "long": rng.uniform(0.06, 0.16), "afro": rng.uniform(0.22, 0.6), "tied": 0.045}[style]  # fmt: skip
    raggedness = {"short": 0.03, "tied": 0.02, "afro": 0.06}.get(style, 0.09)
    tips = tips + raggedness * (clump - 0.5) * 2
    y = TOP - (TOP - tips) * t**1.7
    distance = skull_distance(y, azimuth)
    distance[0] = 0.0
    is_long = style in ("bob", "long", "fringe")
    if is_long:
        distance = np.maximum(np.maximum.accumulate(distance, 0) - 0.10 * np.clip(0.2 - y, 0, 1), distance)
        distance = distance + rng.uniform(-0.03, 0.12) * np.clip(0.1 - y, 0, 1.5)
    taper = 0.9 * t**5 if not is_long else 0.45 * t**6
    if style == "afro":
        taper = 0.6 * t**8
    thickness = volume * (1 - taper) * (1 + 0.5 * (clump - 0.5) * min(1.0, 0.3 + 2 * volume))
    side = np.abs(np.sin(azimuth)) ** 2
    if style == "short":
        thickness = thickness * (1 - rng.uniform(0, 0.75) * side * t)
        quiff = 1.3 * max(rng.normal(0, 0.6), 0) * np.clip(np.cos(azimuth), 0, 1)
        thickness = thickness + volume * quiff * np.sin(np.pi * np.clip(t * 1.15, 0, 1))
    if style == "afro":
        bumps = NOISE_VOLUME[int(rng.integers(32))][np.ix_(np.arange(ROWS) * 3 % 32, np.arange(COLUMNS) * 5 % 32)]
        bumps[:, -1] = bumps[:, 0]
        thickness = thickness * (0.88 + 0.24 * bumps)
    radius = distance + thickness * np.minimum(1, 3 * t)
    lift = thickness * (1 - np.minimum(t * 1.2, 1) ** 2)
    if cover is not None:
        under = y > np.interp(azimuth, np.linspace(-np.pi, np.pi, len(cover.edge)), cover.edge) - 0.03
        radius = np.where(under, np.minimum(radius, distance + cover.clearance), radius)
        lift = np.where(under, np.minimum(lift, cover.clearance), lift)
    vertices = np.stack([radius * np.sin(azimuth), y + lift, AXIS + radius * np.cos(azimuth)], -1).reshape(-1, 3)
    coords = np.stack(np.broadcast_arrays(azimuth[None, :], (TOP - y) + radius, thickness * 0 + t * 0.25), -1).reshape(
        -1, 3
    )
    a = (np.arange(ROWS - 1)[:, None] * COLUMNS + np.arange(COLUMNS - 1)).ravel()
    quads = [(a, a + COLUMNS, a + COLUMNS + 1), (a, a + COLUMNS + 1, a + 1)]
    triangles = np.concatenate([np.stack(q, 1) for q in quads])
    if style == "tied" and cover is None:
        bun, bun_triangles = _bun(rng)
        triangles = np.concatenate([triangles, bun_triangles + len(vertices)])
        vertices = np.concatenate([vertices, bun])
        swirl = np.arctan2(bun[:, 0], bun[:, 1] - bun[:, 1].mean())
        swirl = np.stack([swirl, bun[:, 2] * 2, np.full(len(bun), 0.2)], 1)
        coords = np.concatenate([coords, swirl])
    return vertices, coords, triangles


def _bun(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A bun at a random height at the back of the head."""
    rings, around = 8, 14
    theta, phi = np.meshgrid(np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, around + 1), indexing="ij")
    ball = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], -1).reshape(-1, 3)
    height = rng.uniform(0.0, 1.5)
    centre = np.array([0, height, -0.15 - 0.95 * np.sqrt(max(0.0, 1 - ((height - 0.55) / 1.15) ** 2))])
    a = (np.arange(rings - 1)[:, None] * (around + 1) + np.arange(around)).ravel()
    triangles = [(a, a + 1, a + around + 2), (a, a + around + 2, a + around + 1)]
    return centre + ball * rng.uniform(0.24, 0.42, 3), np.concatenate([np.stack(q, 1) for q in triangles])


def fit_to_head(identity: Identity, positions: np.ndarray) -> np.ndarray:
    """Move base-mesh positions around the skull to an identity's skull; float32[N, 3]."""
    rows, solve = _warp_fit(identity.family)
    field = solve @ (identity.vertices[rows] - rig(identity.family).base[rows])
    return (positions + _quadratic_terms(positions) @ field).astype(np.float32)


def hair_mesh(
    identity: Identity, style: str, seed: int, cover: Cover | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hair of a head.

    Args:
        identity: the head.
        style: one of ``HAIR_STYLES``.
        seed: of the cut.
        cover: headwear; *optional*.

    Returns:
        (vertices float32[H, 3] in head space, texture coordinates float32[H, 3], triangles int32[T, 3]); empty for bald
        and cropped heads, whose hair is part of the skin texture, and under covers that hide all hair.
    """
    hidden = cover is not None and cover.edge.max() < _Y_MIN
    if style in ("bald", "crop") or hidden:
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
    vertices, coords, triangles = _hair_sheet(style, seed, cover)
    return fit_to_head(identity, vertices), coords.astype(np.float32), triangles.astype(np.int32)
