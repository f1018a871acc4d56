"""Earrings: studs, hoops and drops on the lobes of a head's ears."""

from __future__ import annotations

from functools import cache

import numpy as np

from semanticface.rendering.head.appearance import linear
from semanticface.rendering.head.props import Prop, Stuff, join, rod, solid
from semanticface.rendering.head.rig import Identity, rig

_METALS = np.array(
    [(206, 168, 90), (200, 202, 206), (230, 226, 218), (150, 40, 60), (40, 120, 130), (30, 30, 34)], float
)
_UP, _OUT = np.array([0.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0])


@cache
def _lobe(side: int) -> np.ndarray:
    """The lowest vertices of an ear, int64[N]."""
    ear = np.flatnonzero((rig().masks[:, 3] > 0.5) & (side * rig().base[:, 0] > 0))
    return ear[rig().base[ear, 1] < np.quantile(rig().base[ear, 1], 0.12)]


def earrings(who: Identity, seed: int) -> Prop:
    """A pair, or at times a single one.

    Args:
        who: whose ears.
        seed: of kind, size and colour.
    """
    rng = np.random.default_rng([seed, 19])
    r, g, b = linear(_METALS[rng.integers(len(_METALS))] * rng.uniform(0.8, 1.05)).tolist()
    stuff = Stuff((r, g, b), 2.6)
    kind, size = rng.random(), rng.uniform(0.7, 1.3)
    parts = []
    for side in (1, -1) if rng.random() < 0.92 else (1,):
        low = who.vertices[_lobe(side)]
        lobe = np.array([side * (side * low[:, 0]).max(), low[:, 1].mean(), low[:, 2].mean()])
        if kind < 0.45:  # a stud
            ball = lobe + side * _OUT * np.linspace(0.0, 0.02, 3)[:, None]
            parts.append(solid(*rod(ball, 0.03 * size, _UP, round_ends=True), stuff))
        elif kind < 0.8:  # a hoop
            turn = 2 * np.pi * np.arange(20) / 20
            wide = 0.15 * size
            ring = np.stack([0 * turn, np.cos(turn) - 0.9, np.sin(turn)], 1) * wide + lobe + side * _OUT * 0.02
            parts.append(solid(*rod(ring, 0.014, _OUT, closed=True), stuff))
        else:  # a drop
            hang = lobe + side * _OUT * 0.03 - _UP * np.linspace(0, 0.38 * size, 8)[:, None]
            parts.append(solid(*rod(hang, np.array([1, 1, 1, 1, 2.5, 4, 4.5, 3]) * 0.009 * size, _OUT,
                                    round_ends=True), stuff))  # fmt: skip
    return join(parts)
