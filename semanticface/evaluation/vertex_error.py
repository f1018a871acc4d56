"""Distance between two expressions on the plain head, in percent of the inter-pupil distance."""

from __future__ import annotations

import functools

import numpy as np

from semanticface import arkit
from semanticface.rendering.head.rig import EYE_LEFT, EYE_RIGHT, SKIN, TONGUE, rig

_VISIBLE = 0.5  # percent of the inter-pupil distance
_BLOCK = 64


@functools.cache
def moving_vertices(actions: tuple[int, ...] = tuple(range(arkit.N_ACTIONS))) -> np.ndarray:
    """Return the vertices that any of the actions moves visibly; int64[V].

    The back of the skull would dilute every error; teeth and lashes would count jaw and lids twice.

    Args:
        actions: indices of actions in the project's order.
    """
    each = np.eye(arkit.N_ACTIONS)[list(actions)]
    travel = _distances(each, np.zeros((1, arkit.N_ACTIONS)))
    visible = np.isin(rig().part, (SKIN, EYE_LEFT, EYE_RIGHT, TONGUE))
    return np.flatnonzero((travel.max(axis=0) > _VISIBLE) & visible)


def vertex_distances(one: np.ndarray, other: np.ndarray, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and 95th percentile of the vertex distances of each pair of faces.

    Args:
        one: ``[n, 52]`` in [0, 1].
        other: ``[n, 52]``, likewise.
        vertices: which to compare, from ``moving_vertices``.

    Returns:
        Two arrays ``[n]``, in percent of the inter-pupil distance.
    """
    means, tails = np.zeros(len(one)), np.zeros(len(one))
    for start in range(0, len(one), _BLOCK):  # bounds the memory
        block = slice(start, start + _BLOCK)
        distances = _distances(one[block], other[block])[:, vertices]  # [n, V]
        means[block] = distances.mean(axis=1)
        tails[block] = np.percentile(distances, 95, axis=1)
    return means, tails


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    head = rig()
    difference = head.vertices(one.astype(np.float32)) - head.vertices(other.astype(np.float32))
    return np.linalg.norm(difference, axis=-1) * (100 / head.inter_pupil)
