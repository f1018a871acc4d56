"""The judged regions of a face: its upper and its lower half, or the whole.

Upper: brows, eyes, gaze, and the cheek squints, which show at the lower lids. Lower: all else.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from semanticface import arkit
from semanticface.evaluation.vertex_error import moving_vertices, vertex_distances

Half = Literal["upper", "lower"]
Region = Literal["upper", "lower", "whole"]

HALVES: tuple[Half, ...] = ("upper", "lower")
REGIONS: tuple[Region, ...] = (*HALVES, "whole")

_UPPER = tuple(
    action.index
    for action in arkit.ACTIONS
    if action.region in ("brows", "eyes", "gaze") or action.name.startswith("cheekSquint")
)
ACTIONS: dict[Region, tuple[int, ...]] = {
    "upper": _UPPER,
    "lower": tuple(index for index in range(arkit.N_ACTIONS) if index not in _UPPER),
    "whole": tuple(range(arkit.N_ACTIONS)),
}
"""Indices of the actions of each region, in the project's order."""


def mask_outside(coefficients: np.ndarray, region: Region) -> np.ndarray:
    """Return coefficients ``[..., 52]`` with every action outside a region set to 0."""
    out = np.zeros_like(coefficients)
    indices = list(ACTIONS[region])
    out[..., indices] = coefficients[..., indices]
    return out


def merge_halves(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Return faces ``[..., 52]`` with the upper half of one and the lower half of the other."""
    return mask_outside(upper, "upper") + mask_outside(lower, "lower")


def distance(one: np.ndarray, other: np.ndarray, region: Region) -> np.ndarray:
    """Return the distance between faces in a region, the rest at rest; ``[n]``, percent of the inter-pupil distance.

    It is the mean over the vertices of the neutral head that the region's actions move visibly.

    Args:
        one: ``[n, 52]`` in [0, 1].
        other: ``[n, 52]`` in [0, 1].
        region: which part.
    """
    vertices = moving_vertices(ACTIONS[region])
    return vertex_distances(mask_outside(one, region), mask_outside(other, region), vertices)[0]
