"""Which frames of a take are worth keeping, and what the software reads in a face at rest.

Thirty frames a second mostly repeat each other, and people in front of a camera mostly rest. Everything here looks at
coefficients alone, never at pictures.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from semanticface import arkit

Fate = Literal["kept", "near neutral", "near duplicate"]

_AT_REST = 10
"""Percentile that is taken for rest: most actions rest most of the time, and the lowest values of all are noise."""
_EYES = np.isin(np.arange(arkit.N_ACTIONS), np.concatenate([arkit.REGION_INDEX["eyes"], arkit.REGION_INDEX["gaze"]]))


def rest_of(coefficients: np.ndarray) -> np.ndarray:
    """Return what a person's coefficients are at rest, float32[52], given all of theirs, float32[N, 52].

    The tenth percentile of each action; the median for eyelids and gaze, which have no rest to go back to.
    """
    rest = np.percentile(coefficients, _AT_REST, axis=0)
    return np.where(_EYES, np.median(coefficients, axis=0), rest).astype(np.float32)


def calibrated(coefficients: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Take the resting face off: rest becomes 0 and 1 stays 1. Eyelids and gaze are left alone.

    Args:
        coefficients: float32[N, 52] in [0, 1].
        rest: float32[52].

    Returns:
        float32[N, 52] in [0, 1].
    """
    # An action that "rests" near 1 would be blown up to noise; it does not rest, it is always there.
    off = np.where(_EYES, 0, np.clip(rest, 0, 0.9))
    return np.clip((coefficients - off) / (1 - off), 0, 1).astype(np.float32)


def thin(coefficients: np.ndarray, rest: np.ndarray, *, neutral: float, keep_neutral: int, apart: float) -> list[Fate]:
    """Say of each frame of a take, in order of time, whether it is kept, and if not, why.

    Args:
        coefficients: float32[N, 52].
        rest: float32[52], of the person, as they are in ``coefficients``.
        neutral: a face in which no action is this far from rest is near neutral.
        keep_neutral: how many of those are kept all the same, spread over the take: models must see faces at rest.
        apart: a face is a near duplicate of one kept before where no action differs by this much.
    """
    resting = np.flatnonzero(np.abs(coefficients - rest).max(axis=1, initial=0.0) < neutral)
    spread = np.linspace(0, len(resting) - 1, min(keep_neutral, len(resting))).round().astype(int)
    wanted = set(resting[spread].tolist())
    skipped = set(resting.tolist()) - wanted
    fates: list[Fate] = []
    kept = np.empty_like(coefficients)
    count = 0
    for place, face in enumerate(coefficients):
        if place in skipped:
            fates.append("near neutral")
            continue
        if place not in wanted and count and np.abs(kept[:count] - face).max(axis=1).min() < apart:
            fates.append("near duplicate")
            continue
        kept[count] = face
        count += 1
        fates.append("kept")
    return fates
