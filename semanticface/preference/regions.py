"""The parts of a face that are judged: its upper and its lower half, or the whole.

Upper: brows, eyes, gaze, and the squint of the cheeks, which is seen at the lower lids. Lower: all else.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from semanticface import arkit
from semanticface.evaluation.vertex_error import moving_vertices, vertex_distances

Half = Literal["upper", "lower"]
Area = Literal["upper", "lower", "whole"]

HALVES: tuple[Half, ...] = ("upper", "lower")
AREAS: tuple[Area, ...] = (*HALVES, "whole")

_UPPER = tuple(
    action.index
    for action in arkit.ACTIONS
    if action.region in ("brows", "eyes", "gaze") or action.name.startswith("cheekSquint")
)
ACTIONS: dict[Area, tuple[int, ...]] = {
    "upper": _UPPER,
    "lower": tuple(index for index in range(arkit.N_ACTIONS) if index not in _UPPER),
    "whole": tuple(range(arkit.N_ACTIONS)),
}
"""Indices of the actions of each area, in the project's order."""


def mask_outside(coefficients: np.ndarray, area: Area) -> np.ndarray:
    """Return coefficients ``[..., 52]`` with every action outside an area at rest."""
    out = np.zeros_like(coefficients)
    indices = list(ACTIONS[area])
    out[..., indices] = coefficients[..., indices]
    return out


def merge_halves(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Return faces ``[..., 52]`` with the upper half of one and the lower half of the other."""
    return mask_outside(upper, "upper") + mask_outside(lower, "lower")


def distance(one: np.ndarray, other: np.ndarray, area: Area) -> np.ndarray:
    """Return how far apart faces are in an area, the rest at rest; ``[n]``, percent of the inter-pupil distance.

    The mean over the vertices of the plain head that the area's actions move visibly.

    Args:
        one: ``[n, 52]`` in [0, 1].
        other: ``[n, 52]``, likewise.
        area: which part.
    """
    return vertex_distances(mask_outside(one, area), mask_outside(other, area), moving_vertices(ACTIONS[area]))[0]
