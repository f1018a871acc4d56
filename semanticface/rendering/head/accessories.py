"""Glasses and earrings, fitted to a head.

Glasses rest on the bridge of the neutral head's nose, clear its brows and reach its ears; expressions do not move them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from semanticface.rendering.head.appearance import linear_rgb
from semanticface.rendering.head.props import Material, Prop, join_props, make_prop, tube
from semanticface.rendering.head.rig import SKIN, Identity, rig

_OUTLINE_POINTS = 40
_TILT, _WRAP = 0.10, 0.18
_PLASTIC = np.array([(16, 15, 16), (22, 20, 24), (62, 36, 20), (96, 60, 34), (112, 20, 28), (24, 40, 84),
                     (206, 200, 190), (30, 70, 60), (232, 228, 222), (170, 60, 110)], float)  # fmt: skip
_METAL = np.array([(196, 160, 92), (190, 192, 196), (84, 86, 92), (24, 24, 26), (190, 140, 120)], float)


@dataclass(frozen=True, slots=True, eq=False)
class Lenses:
    """The two lenses of glasses.

    Attributes:
        positions, normal: float32[P, 3], in head space.
        edge: float32[P], 0 in the middle and 1 at the edge.
        triangles: int32[T, 3].
        transmission: float32[2, 3], transmitted fraction of each colour, at the top and at the bottom.
        edge_darkness: how dark the lens's edge is, 0 where a rim hides it.
    """

    positions: np.ndarray
    normal: np.ndarray
    edge: np.ndarray
    triangles: np.ndarray
    transmission: np.ndarray
    edge_darkness: float


def _outline(kind: str, a: float, b: float) -> np.ndarray:
    """Outline of the left lens around its centre, float[N, 2]; x runs outwards."""
    t = 2 * np.pi * np.arange(_OUTLINE_POINTS) / _OUTLINE_POINTS
    power = {"round": 1.0, "oval": 0.95, "rectangle": 0.45, "square": 0.6, "cat": 0.7, "aviator": 0.8}[kind]
    c, s = np.cos(t), np.sin(t)
    x, y = np.sign(c) * np.abs(c) ** power, np.sign(s) * np.abs(s) ** power
    if kind == "cat":
        y = y + 0.45 * np.clip(x, 0, 1) ** 2 * np.clip(y + 0.2, 0, 1)
        x = x * (1 + 0.12 * y)
    elif kind == "aviator":
        x = x * (1 - 0.08 * y) - 0.10 * np.clip(-y, 0, 1)
        y = np.where(y > 0, 0.85 * y, 1.1 * y)
    elif kind == "square":
        x = x * (1 + 0.08 * y)
    return np.stack([a * x, b * y], 1)


def glasses(identity: Identity, seed: int, tinted: bool) -> tuple[Prop, Lenses]:
    """Fit a pair of glasses.

    Args:
        identity: the head.
        seed: of shape, frame and colour.
        tinted: sunglasses.

    Returns:
        The frame and its lenses.
    """
    rng = np.random.default_rng([seed, 14])
    kind = str(rng.choice(["round", "oval", "rectangle", "square", "cat", "aviator"],
                          p=[0.2, 0.12, 0.28, 0.2, 0.1, 0.1]))  # fmt: skip
    frame_kind = str(rng.choice(["metal", "plastic", "rimless", "half"], p=[0.36, 0.44, 0.1, 0.1]))
    scale = abs(identity.eye_centres[:, 0]).mean() / 0.31
    half_bridge = rng.uniform(0.075, 0.11) * scale
    a = rng.uniform(0.22, 0.275) * scale
    b = a * {"round": 0.93, "oval": 0.68, "rectangle": 0.58, "square": 0.78, "cat": 0.66, "aviator": 0.82}[kind]
    b *= rng.uniform(0.92, 1.12) * (1.1 if tinted else 1.0)
    centre = np.array([half_bridge + a, identity.eye_centres[:, 1].mean() + rng.uniform(-0.08, -0.01)])
    outline = _outline(kind, a, b)
    metal = _METAL[rng.integers(len(_METAL))] * rng.uniform(0.8, 1.05)
    plastic = _PLASTIC[min(int(rng.exponential(2.6)), len(_PLASTIC) - 1)] * rng.uniform(0.8, 1.1)
    tortoise = 0.9 if rng.random() < 0.3 else 0.0
    if frame_kind == "plastic":
        material = Material(linear_rgb(plastic), 1.6, 0.2, tortoise, 14)
        radius, up_radius = rng.uniform(0.013, 0.029), rng.uniform(0.018, 0.03)
    else:
        material = Material(linear_rgb(metal), 2.6, 0.0)
        radius = up_radius = rng.uniform(0.008, 0.013)

    z0 = _frame_z(identity, centre[0] + a, centre[1] - b, centre[1] + b, centre[1])
    nose = identity.vertices[_fit_vertices(identity.family).nose]
    nose = nose[abs(nose[:, 1] - centre[1] - 0.04) < 0.05]
    z_nose = float(nose[:, 2].max()) + 0.03 if len(nose) else z0

    def at(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Points of the frame's face: bent round the head, the lower edge nearer to the cheeks."""
        return np.stack([x, y, z0 + _TILT * (y - centre[1]) - _WRAP * x * x], -1)

    frame, lens_parts = [], []
    forward = np.array([0.0, 0.0, 1.0])
    for k, side in enumerate((1, -1)):
        rim = at(side * (centre[0] + outline[:, 0]), centre[1] + outline[:, 1])
        lens_parts.append(_lens(rim))
        if frame_kind in ("metal", "plastic"):
            heavy = radius * (1 + 0.5 * np.clip(outline[:, 1] / b, 0, 1)) if frame_kind == "plastic" else radius
            frame.append(make_prop(*tube(rim, heavy, forward, up_radius=up_radius, closed=True), material))
        elif frame_kind == "half":
            upper = np.flatnonzero(outline[:, 1] > -0.1 * b)
            upper = upper[np.argsort(-outline[upper, 0])]
            frame.append(make_prop(*tube(rim[upper], radius, forward), material))
        hinge = rim[np.argmax(outline[:, 0] + 0.6 * outline[:, 1])] + [0, 0, -0.01]
        arm = _temple_arm(identity, hinge, identity.vertices[_fit_vertices(identity.family).ear_roots[k]].mean(0), side)
        arm_radius = radius * (0.9 if frame_kind == "plastic" else 1.0)
        frame.append(make_prop(*tube(arm, arm_radius, np.array([0.0, 1.0, 0.0]), up_radius=1.6 * up_radius), material))
    high = centre[1] + b * rng.uniform(0.15, 0.5)
    inner = at(np.array([half_bridge - 0.012]), np.array([high]))[0]
    t = np.linspace(-1, 1, 9)
    rise = rng.uniform(0.02, 0.06)
    arc = np.stack([t * inner[0], high + rise * (1 - t * t), np.maximum(inner[2], z_nose) + 0 * t], 1)
    arc[[0, -1], 2] = inner[2]
    frame.append(make_prop(*tube(arc, radius, forward, up_radius=up_radius), material))
    if kind == "aviator" and frame_kind != "plastic":
        frame.append(
            make_prop(*tube(arc + forward[[0, 2, 0]] * 0.55 * (centre[1] + b - high), radius, forward), material)
        )

    positions, normal, edge, triangles = (np.concatenate(rows) for rows in zip(*lens_parts, strict=True))
    triangles[len(triangles) // 2 :] += len(positions) // 2
    shade = np.ones((2, 3))
    if tinted:
        tone = np.array([(0.30, 0.30, 0.32), (0.42, 0.30, 0.2), (0.3, 0.36, 0.3), (0.5, 0.32, 0.42)][rng.integers(4)])
        shade = np.stack([tone * rng.uniform(0.35, 1.0), tone * rng.uniform(0.6, 1.9)])
    elif rng.random() < 0.4:
        shade = shade * rng.uniform(0.86, 0.98, 3)
    lenses = Lenses(positions.astype(np.float32), normal.astype(np.float32), edge.astype(np.float32),
                    triangles.astype(np.int32), shade.astype(np.float32),
                    0.35 if frame_kind in ("rimless", "half") else 0.0)  # fmt: skip
    return join_props(frame), lenses


@dataclass(frozen=True, slots=True, eq=False)
class _FitVertices:
    """Vertices that glasses are fitted to, int64[N] each; ears' upper roots left and right."""

    nose: np.ndarray
    face: np.ndarray
    ear_roots: tuple[np.ndarray, np.ndarray]


@cache
def _fit_vertices(family: str) -> _FitVertices:
    r, b = rig(family), rig(family).base
    skin = (r.part == SKIN) & (r.masks[:, 1] < 0.5) & (b[:, 2] > 0.3) & (b[:, 1] > -0.5) & (b[:, 1] < 1.0)
    ear_roots = []
    for side in (1, -1):
        ear = np.flatnonzero((r.masks[:, 3] > 0.5) & (side * b[:, 0] > 0))
        ear = ear[b[ear, 1] > np.quantile(b[ear, 1], 0.8)]
        scale = side * b[ear, 0] < np.quantile(side * b[ear, 0], 0.6)
        ear_roots.append(ear[scale & (b[ear, 2] > np.quantile(b[ear, 2], 0.4))])
    nose = np.flatnonzero(skin & (abs(b[:, 0]) < 0.06) & (b[:, 2] > 0.5))
    return _FitVertices(nose, np.flatnonzero(skin & (abs(b[:, 0]) > 0.08)), (ear_roots[0], ear_roots[1]))


def _frame_z(identity: Identity, half_width: float, low: float, high: float, centre: float) -> float:
    """Depth at which the frame clears brows, lids and cheeks."""
    v = identity.vertices[_fit_vertices(identity.family).face]
    x, y = abs(v[:, 0]), v[:, 1]
    under = v[(x > 0.16) & (x < half_width) & (y > low - 0.02) & (y < high)]
    transmission = under[:, 2] - _TILT * (under[:, 1] - centre) + _WRAP * under[:, 0] ** 2
    lids = identity.eye_centres[:, 2].max() + identity.eye_radii.max() + 0.06
    return float(max(transmission.max(initial=0.0) + 0.035, lids))


@cache
def _temple_vertices(family: str, side: int) -> np.ndarray:
    """Skin beside the head on one side that a temple arm passes, int64[N]."""
    r, b = rig(family), rig(family).base
    beside = (side * b[:, 0] > 0.3) & (abs(b[:, 1] - 0.3) < 0.5) & (abs(b[:, 2] - 0.3) < 0.7)
    return np.flatnonzero((r.part == SKIN) & (r.masks[:, 3] < 0.3) & beside)


def _temple_arm(identity: Identity, hinge: np.ndarray, ear: np.ndarray, side: int) -> np.ndarray:
    """Path from the hinge along the temple over the ear and down behind it, outside the skin; float[N, 3]."""
    t = np.linspace(0, 1, 9)[:, None]
    path = hinge + (ear - hinge) * t
    skull = identity.vertices[_temple_vertices(identity.family, side)]
    beside = (abs(skull[:, 1] - path[:, 1:2]) < 0.10) & (abs(skull[:, 2] - path[:, 2:]) < 0.12)
    widest = np.where(beside, side * skull[:, 0], 0.0).max(1) + 0.012
    path[1:, 0] = side * np.maximum(side * path[1:, 0], widest[1:])
    inwards = np.array([side, 1, 1])
    behind = path[-1] + inwards * [[-0.01, -0.03, -0.10], [-0.03, -0.16, -0.17], [-0.05, -0.28, -0.2]]
    path[0, 0] += 0.02 * side
    return np.concatenate([path, behind])


def _lens(rim: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A lens inside its rim: (positions, normals, edge, triangles); the normals are those of curved glass."""
    centre = rim.mean(0)
    inner = centre + 0.6 * (rim - centre)
    positions = np.concatenate([centre[None], inner, rim])
    positions[: 1 + len(rim), 2] += 0.012
    away = positions - centre
    normal = np.stack([away[:, 0] / 1.1 + 2 * _WRAP * centre[0], away[:, 1] / 1.1 - _TILT, np.ones(len(positions))], 1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    edge = np.concatenate([[0.0], np.full(len(rim), 0.6), np.ones(len(rim))])
    n = len(rim)
    k = np.arange(n)
    nxt = (k + 1) % n
    fan = np.stack([np.zeros(n, int), 1 + k, 1 + nxt], 1)
    belt = [np.stack([1 + k, 1 + n + k, 1 + n + nxt], 1), np.stack([1 + k, 1 + n + nxt, 1 + nxt], 1)]
    return positions, normal, edge, np.concatenate([fan, *belt])


_METALS = np.array(
    [(206, 168, 90), (200, 202, 206), (230, 226, 218), (150, 40, 60), (40, 120, 130), (30, 30, 34)], float
)
_UP, _OUT = np.array([0.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0])


@cache
def _lobe(family: str, side: int) -> np.ndarray:
    """The lowest vertices of an ear, int64[N]."""
    r = rig(family)
    ear = np.flatnonzero((r.masks[:, 3] > 0.5) & (side * r.base[:, 0] > 0))
    return ear[r.base[ear, 1] < np.quantile(r.base[ear, 1], 0.12)]


def earrings(identity: Identity, seed: int) -> Prop:
    """A pair of studs, hoops or drops, or at times a single one.

    Args:
        identity: the head.
        seed: of kind, size and colour.
    """
    rng = np.random.default_rng([seed, 19])
    material = Material(linear_rgb(_METALS[rng.integers(len(_METALS))] * rng.uniform(0.8, 1.05)), 2.6)
    kind, size = rng.random(), rng.uniform(0.7, 1.3)
    parts = []
    for side in (1, -1) if rng.random() < 0.92 else (1,):
        low = identity.vertices[_lobe(identity.family, side)]
        lobe = np.array([side * (side * low[:, 0]).max(), low[:, 1].mean(), low[:, 2].mean()])
        if kind < 0.45:  # a stud
            ball = lobe + side * _OUT * np.linspace(0.0, 0.02, 3)[:, None]
            parts.append(make_prop(*tube(ball, 0.03 * size, _UP, rounded=True), material))
        elif kind < 0.8:  # a hoop
            angle = 2 * np.pi * np.arange(20) / 20
            hoop_radius = 0.15 * size
            ring = (
                np.stack([0 * angle, np.cos(angle) - 0.9, np.sin(angle)], 1) * hoop_radius + lobe + side * _OUT * 0.02
            )
            parts.append(make_prop(*tube(ring, 0.014, _OUT, closed=True), material))
        else:  # a drop
            hang = lobe + side * _OUT * 0.03 - _UP * np.linspace(0, 0.38 * size, 8)[:, None]
            parts.append(make_prop(*tube(hang, np.array([1, 1, 1, 1, 2.5, 4, 4.5, 3]) * 0.009 * size, _OUT,
                                    rounded=True), material))  # fmt: skip
    return join_props(parts)
