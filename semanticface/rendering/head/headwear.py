"""Caps, beanies, brimmed hats, headbands, headscarves and hoods, draped over the skull as hair is.

They are laid out on the base mesh by azimuth and height, and moved to each identity by the warp of the hair. A brim's
shadow comes from the shadow map.
"""

from __future__ import annotations

import numpy as np

from semanticface.rendering.head.appearance import linear_rgb
from semanticface.rendering.head.hair import AXIS, TOP, Cover, fit_to_head, skull_distance
from semanticface.rendering.head.props import Material, Prop, grid_triangles, join_props, make_prop
from semanticface.rendering.head.rig import Identity
from semanticface.rendering.kernels import NOISE_VOLUME

COLUMNS, ROWS = 49, 14
_AZIMUTH = np.linspace(-np.pi, np.pi, COLUMNS)
_CLOTH = np.array([(26, 26, 30), (30, 40, 78), (120, 24, 30), (206, 200, 188), (92, 94, 98), (70, 92, 62),
                   (196, 150, 90), (90, 66, 48), (190, 90, 120), (222, 180, 60), (60, 110, 150)], float)  # fmt: skip


def _cloth_material(rng: np.random.Generator, grain: float, grain_frequency: float, gloss: float = 0.06) -> Material:
    colour = np.clip(_CLOTH[rng.integers(len(_CLOTH))] * rng.uniform(0.6, 1.15) + rng.normal(0, 8, 3), 6, 250)
    return Material(linear_rgb(colour), gloss, 0.1, grain, grain_frequency)


def _rings(radius: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Points at distances from the head's axis, in rows of ``_AZIMUTH``; float[R * COLUMNS, 3]."""
    radius, y = np.broadcast_arrays(radius, y)
    return np.stack([radius * np.sin(_AZIMUTH), y, AXIS + radius * np.cos(_AZIMUTH)], -1).reshape(-1, 3)


def _height_profile(at: list[float], height: list[float]) -> np.ndarray:
    """Heights by absolute azimuth, float[COLUMNS]."""
    return np.interp(np.abs(_AZIMUTH), at, height)


def _dome(edge: np.ndarray, thickness: np.ndarray | float, lift: float = 0.0) -> np.ndarray:
    """A cap that follows the skull down to ``edge``, float[ROWS * COLUMNS, 3]."""
    t = np.linspace(0, 1, ROWS)[:, None]
    y = TOP - (TOP - edge) * t**1.6
    radius = np.maximum.accumulate(skull_distance(y, np.broadcast_to(_AZIMUTH, y.shape)), 0)
    radius[0] = 0
    thickness = np.broadcast_to(thickness, y.shape)
    return _rings(radius + thickness * np.minimum(1, 4 * t), y + thickness * (1 - t) ** 0.5 + lift * (1 - t**2))


def _recolour_rows(prop: Prop, rng: np.random.Generator, other: tuple[float, float, float], rows: np.ndarray) -> Prop:
    """Rows of a dome in another colour."""
    colour = prop.colour.copy().reshape(-1, COLUMNS, 3)
    colour[rows] = np.array(other, np.float32) * rng.uniform(0.8, 1.1)
    return Prop(prop.positions, colour.reshape(-1, 3), prop.surface, prop.triangles)


def _beanie(rng: np.random.Generator) -> tuple[Prop, np.ndarray, float]:
    front, low = rng.uniform(0.74, 0.98), rng.uniform(0.2, 0.5)
    edge = _height_profile([0, 0.8, 1.3, 1.8, np.pi], [front, front - 0.08, low + 0.1, low, low - 0.35])
    thickness = np.full((ROWS, 1), rng.uniform(0.05, 0.09))
    cuff = rng.random() < 0.6
    if cuff:
        thickness[-4:] += 0.045
    prop = make_prop(_dome(edge, thickness, rng.choice([0.0, 0.25]) * rng.random()), grid_triangles(ROWS, COLUMNS),
                 _cloth_material(rng, rng.uniform(0.3, 0.7), rng.uniform(14, 34)))  # fmt: skip
    if rng.random() < 0.4:
        rows = np.arange(ROWS) >= ROWS - 4 if cuff else (np.arange(ROWS) % int(rng.integers(3, 6))) == 1
        prop = _recolour_rows(prop, rng, _cloth_material(rng, 0, 1).colour, rows)
    return prop, edge, float(thickness[0, 0])


def _cap(rng: np.random.Generator) -> tuple[Prop, np.ndarray, float]:
    front = rng.uniform(0.84, 1.0)
    edge = _height_profile([0, 0.9, 1.4, 1.9, np.pi], [front, front - 0.1, 0.58, 0.42, 0.12])
    material = _cloth_material(rng, 0.15, 24)
    crown = make_prop(
        _dome(edge, rng.uniform(0.05, 0.09), rng.uniform(0, 0.15)), grid_triangles(ROWS, COLUMNS), material
    )
    if rng.random() < 0.07:  # worn back to front
        return crown, edge, 0.05
    # The brim: half an ellipse at the front of the edge.
    wide, long, droop = rng.uniform(0.85, 1.05), rng.uniform(0.5, 0.75), rng.uniform(0.05, 0.4)
    u, s = np.linspace(-1, 1, 17)[:, None], np.linspace(0, 1, 6)
    azimuth = u * wide
    high = np.interp(azimuth[:, 0], _AZIMUTH, edge)[:, None]
    radius = skull_distance(high, azimuth) + 0.07
    reach = long * np.sqrt(np.clip(1 - u * u, 0, 1)) * s
    x, z = radius * np.sin(azimuth) * (1 + 0.12 * s), AXIS + radius * np.cos(azimuth) + reach
    y = high - droop * reach - rng.uniform(0.1, 0.35) * x * x * s
    brim = np.stack(np.broadcast_arrays(x, y, z), -1).reshape(-1, 3)
    cloth = material if rng.random() < 0.6 else _cloth_material(rng, 0.1, 24)
    return join_props([crown, make_prop(brim, grid_triangles(17, 6), cloth)]), edge, 0.05


def _hat(rng: np.random.Generator) -> tuple[Prop, np.ndarray, float]:
    """A crown with flat sides and a brim all round."""
    front = rng.uniform(0.88, 1.02)
    edge = _height_profile([0, 0.9, 1.5, np.pi], [front, front - 0.05, front - 0.22, front - 0.5])
    level = np.linspace(edge, TOP - 0.05, 12)
    wide = skull_distance(level, np.broadcast_to(_AZIMUTH, level.shape)).max(0) + 0.06
    top = TOP + rng.uniform(0.08, 0.35)
    taper, dent = rng.uniform(0.75, 0.98), rng.uniform(0, 0.12)
    radii = np.array([0, 0.45, 0.85, 0.97, 1.0])[:, None]  # from the crown's centre outwards
    roof = top - dent * np.cos(radii * 2.6) * (radii < 0.9)
    down = np.linspace(0.12, 1, 5)[:, None]
    radius = np.concatenate([radii * wide * taper, wide * (taper + (1 - taper) * down)])
    y = np.concatenate([np.broadcast_to(roof, (5, COLUMNS)), top + (edge - top) * down])
    straw = rng.random() < 0.3
    material = _cloth_material(rng, 0.35 if straw else 0.15, 30 if straw else 12)
    prop = make_prop(_rings(radius, y), grid_triangles(10, COLUMNS), material)
    band = np.isin(np.arange(10), (8, 9)) if rng.random() < 0.7 else np.zeros(10, bool)
    prop = _recolour_rows(prop, rng, _cloth_material(rng, 0, 1).colour, band)
    out, s = rng.uniform(0.3, 0.95), np.linspace(0, 1, 5)[:, None]
    bend = rng.uniform(-0.15, 0.25) * np.abs(np.sin(_AZIMUTH)) - rng.uniform(0, 0.25) * np.cos(_AZIMUTH) ** 2
    brim = make_prop(_rings(wide + out * s, edge + bend * s**1.5 * out), grid_triangles(5, COLUMNS), material)
    return join_props([prop, brim]), edge, 0.04


def _headband(rng: np.random.Generator) -> tuple[Prop, np.ndarray, float]:
    """A band around forehead and hair; the hair above it stays."""
    low, tall = rng.uniform(0.78, 0.98), rng.uniform(0.12, 0.32)
    edge = low - 0.18 * np.abs(_AZIMUTH) / np.pi
    y = edge + tall * np.linspace(1, 0, 5)[:, None]
    bulge = np.array([-0.02, 0.02, 0.03, 0.02, -0.02])[:, None]
    radius = skull_distance(y, np.broadcast_to(_AZIMUTH, y.shape)) + 0.05 + bulge
    prop = make_prop(_rings(radius, y), grid_triangles(5, COLUMNS), _cloth_material(rng, 0.25, 26))
    return prop, np.full(COLUMNS, 9.0), 0.05


def _scarf(rng: np.random.Generator) -> tuple[Prop, np.ndarray, float]:
    """A headscarf or a hood: covers head, ears and neck, leaves the face open."""
    hood = rng.random() < 0.45
    front, open_to = rng.uniform(0.82, 1.05), rng.uniform(0.95, 1.15)
    rows = 26
    t = np.linspace(0, 1, rows)[:, None]
    edge = np.where(np.abs(_AZIMUTH) < open_to, front - 0.25 * (np.abs(_AZIMUTH) / open_to) ** 2, -1.75)
    edge = np.interp(_AZIMUTH, _AZIMUTH[[0, *range(1, COLUMNS - 1, 2), COLUMNS - 1]],
                     edge[[0, *range(1, COLUMNS - 1, 2), COLUMNS - 1]])  # fmt: skip
    y = TOP - (TOP - edge) * t**1.5
    radius = np.maximum.accumulate(skull_distance(y, np.broadcast_to(_AZIMUTH, y.shape)), 0)
    radius[0] = 0
    folds = np.interp(np.arange(COLUMNS) * 0.6, np.arange(32), NOISE_VOLUME[int(rng.integers(32)), 3], period=32)
    folds[-1] = folds[0]
    thickness = rng.uniform(0.16, 0.34) if hood else rng.uniform(0.05, 0.10)
    radius = radius + thickness * np.minimum(1, 4 * t) + 0.10 * (folds - 0.5) * t - 0.18 * np.clip(-0.6 - y, 0, 1)
    cloth = _cloth_material(rng, 0.2, 16)
    drape = make_prop(
        _rings(radius, y + thickness * (1 - t) + (0.1 if hood else 0.0) * (1 - t)), grid_triangles(rows, COLUMNS), cloth
    )
    if hood:
        return drape, np.full(COLUMNS, -9.0), 0.03
    # The part under the chin, clear of an open jaw.
    t = np.linspace(0, 1, 8)[:, None]
    y = -0.78 - 0.9 * t + 0.06 * (folds - 0.5)
    under = 0.60 + 0.25 * t + 0.08 * (folds - 0.5) + 0.10 * np.cos(_AZIMUTH)
    neck = make_prop(_rings(under, y), grid_triangles(8, COLUMNS), cloth)
    return join_props([drape, neck]), np.full(COLUMNS, -9.0), 0.03


def headwear(identity: Identity, seed: int) -> tuple[Prop, Cover]:
    """Sample headwear.

    Args:
        identity: the head.
        seed: of kind, shape and colour.

    Returns:
        The mesh, and the cover that presses the hair down.
    """
    rng = np.random.default_rng([seed, 18])
    make = (_cap, _beanie, _hat, _headband, _scarf)[rng.choice(5, p=[0.3, 0.22, 0.18, 0.12, 0.18])]
    prop, edge, thickness = make(rng)
    prop = Prop(fit_to_head(identity, prop.positions), prop.colour, prop.surface, prop.triangles)
    return prop, Cover(edge, 0.6 * thickness)
