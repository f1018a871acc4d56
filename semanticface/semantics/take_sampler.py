"""Sample random expressions as people make them: which actions go together, how strong, how rare.

The statistics come from a recorded take (``assets/TAKE_LICENSE.txt``): mean and spread of groups of alike frames.
One person's take knows neither other people's habits nor their gaze, so groups are combined, mirrored, scaled and
varied, and speech, blinks and gaze are added as ``expression_sampler`` has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from semanticface import arkit, assets
from semanticface.arkit import INDEX
from semanticface.semantics.expression_sampler import (
    VISEMES,
    add_gaze,
    add_independent,
    add_prototype,
    apply_exclusions,
)

_VISEMES = tuple(VISEMES.values())
_LIDS = [INDEX["eyeBlinkLeft"], INDEX["eyeBlinkRight"]]
_GAZE = np.array(arkit.REGION_INDEX["gaze"])
_LOWER = np.array([i for i, name in enumerate(arkit.NAMES) if name.startswith(("jaw", "mouth", "tongue"))])
_LEFT, _RIGHT = ([i for i, name in enumerate(arkit.NAMES) if name.endswith(side)] for side in ("Left", "Right"))
_JAW, _CLOSE = INDEX["jawOpen"], INDEX["mouthClose"]


BLOCKS, HELD_OUT_BLOCKS = 10, (2, 5, 8)
"""Equal contiguous blocks of a take's rows, counted from 0, and those that are measured and never trained on."""


def split_rows(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which of ``count`` rows of a take may be fitted, and which are held out; int64[n] each."""
    blocks = np.array_split(np.arange(count), BLOCKS)
    fitted = [block for k, block in enumerate(blocks) if k not in HELD_OUT_BLOCKS]
    return np.concatenate(fitted), np.concatenate([blocks[k] for k in HELD_OUT_BLOCKS])


@dataclass(frozen=True, eq=False)
class TakeStatistics:
    """Groups of alike frames of a take; ``data_prep/assets/build_take.py`` writes them.

    Attributes:
        shares: float64[K], cumulated shares of the groups.
        means, spreads: float64[K, 52], mean and standard deviation of each group.
        rest: float64[52], the face at rest.
    """

    shares: np.ndarray
    means: np.ndarray
    spreads: np.ndarray
    rest: np.ndarray

    @classmethod
    def load(cls, path: Path) -> TakeStatistics:
        """Read statistics from an npz file."""
        with np.load(path) as file:
            shares = np.cumsum(file["shares"], dtype=float)
            return cls(shares / shares[-1], file["means"] / 255, file["spreads"] / 255, file["rest"] / 255)

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """Sample one expression of the take, float64[52]."""
        k = int(np.searchsorted(self.shares, rng.random()))
        # Frames of a group differ together (how strong) more than each action on its own.
        together = 0.7 * rng.normal() * np.sign(self.means[k])
        spread = self.spreads[k] * (together + 0.7 * rng.normal(size=arkit.N_ACTIONS))
        return np.clip(self.means[k] + spread, 0.0, 1.0)


@cache
def _take() -> TakeStatistics:
    return TakeStatistics.load(assets.path("take.npz"))


def _add_blink(values: np.ndarray, rng: np.random.Generator) -> None:
    """Set the lids: mostly open or a little lowered, sometimes in a blink or a wink."""
    kind = rng.random()
    level = rng.uniform(0.3, 1.0) if kind < 0.1 else min(abs(rng.normal(0.0, 0.08)), 0.3)
    other = rng.uniform(0.0, 0.4) if kind < 0.015 else np.clip(level + rng.normal(0.0, 0.02), 0.0, 1.0)
    values[_LIDS] = (level, other) if rng.random() < 0.5 else (other, level)


def sample_like_takes(rng: np.random.Generator) -> np.ndarray:
    """Sample one expression with the statistics of a recorded take.

    Half of the samples are at 0 where the recorded person rests; the others keep that person's rest. A fifth combine
    the upper and lower face of two moments, a tenth are uneven, a tenth have a viseme and a tenth one more action.
    Left and right are symmetric in distribution.

    Args:
        rng: the only source of randomness; the same state gives the same vector.

    Returns:
        float32[52] in [0, 1], project order. ``mouthClose <= jawOpen``; ``tongueOut`` implies an open jaw; at most one
        of each eye's wide/blink, up/down and in/out and of jaw and mouth left/right is above 0.
    """
    take = _take()
    values = take.sample(rng)
    if rng.random() < 0.2:
        values[_LOWER] = take.sample(rng)[_LOWER]
    if rng.random() < 0.5:
        values = np.maximum(values - take.rest, 0.0) / (1.0 - take.rest)
    values *= rng.uniform(0.6, 1.3)
    if rng.random() < 0.1:
        values[_LEFT if rng.random() < 0.5 else _RIGHT] *= rng.uniform(0.2, 0.8)
    if rng.random() < 0.5:
        values = arkit.mirror(values)
    if rng.random() < 0.1:
        add_prototype(values, _VISEMES[rng.integers(len(_VISEMES))], rng)
    if rng.random() < 0.1:
        add_independent(values, 1, rng)
    _add_blink(values, rng)
    apply_exclusions(values)
    values[_CLOSE] = min(values[_CLOSE], values[_JAW])
    values[_GAZE] = 0.0
    add_gaze(values, 0.15 if rng.random() < 0.5 else 0.7, rng)
    values = np.clip(values, 0.0, 1.0).astype(np.float32)
    return values + np.float32(0.0)  # the sum turns -0.0 into 0.0
