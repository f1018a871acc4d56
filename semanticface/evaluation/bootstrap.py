"""Bootstrap intervals of every figure in ``metrics``: how much it would vary with other test pictures.

Test sets are resampled by person (Efron and Tibshirani 1993, chapters 13 and 8). A resample is a weight for each
picture: how often its person was drawn. Every figure is a function of weighted sums over pictures, so thousands of
resamples are a few matrix products. With all weights 1 the figures are those of ``metrics.score``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from semanticface import arkit
from semanticface.evaluation.metrics import ACTIVE, CONSTANT, LEFT, ONE_SIDED, RIGHT, UNDECIDED

RESAMPLES = 2000
LEVEL = 0.95

_ALL = np.arange(arkit.N_ACTIONS)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % interval; all three are NaN if the figure is undefined."""

    value: float
    low: float
    high: float


def resample(groups: Sequence[str] | np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Return the weights of resampled test sets, the original set first.

    Args:
        groups: the resampling unit of each picture: its person. If all differ, pictures are resampled.
        resamples: number of resampled sets.
        seed: of the resampling.

    Returns:
        float64[1 + resamples, N]: how often each picture counts; ones in the first row.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if not len(names):
        raise ValueError("no pictures to resample")
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return np.concatenate([np.ones((1, len(member))), drawn[:, member]])


def mean(values: np.ndarray, weights: np.ndarray) -> Estimate:
    """Return the mean of values [N] and its interval, by the weights [1 + resamples, N] of ``resample``."""
    return estimate(weights @ values / weights.sum(axis=1))


def estimate(values: np.ndarray) -> Estimate:
    """Return a figure and its percentile interval from its values for each row of ``resample``.

    Resamples in which the figure is undefined (NaN) are left out.
    """
    drawn = values[1:][~np.isnan(values[1:])]
    if np.isnan(values[0]) or not len(drawn):
        return Estimate(float(values[0]), float("nan"), float("nan"))
    low, high = np.percentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Estimate(float(values[0]), float(low), float(high))


def figures(
    true: np.ndarray,
    predicted: np.ndarray,
    weights: np.ndarray,
    *,
    actions: np.ndarray = _ALL,
    of_pictures: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Return the figures of ``metrics`` for each row of weights.

    Args:
        true: ``[N, 52]`` in [0, 1].
        predicted: ``[N, 52]`` in [0, 1], no NaN.
        weights: ``[B, N]``, as from ``resample``.
        actions: int[A], the actions that count.
        of_pictures: float[N] by name, figures that are means over pictures, such as the vertex error; NaN for pictures
            without a value.

    Returns:
        float64[B] by key of ``metrics.FIGURES``, NaN if undefined; those of ``of_pictures`` under their names.
    """
    true, predicted = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    if true.shape != predicted.shape or true.shape != (weights.shape[1], arkit.N_ACTIONS):
        raise ValueError(f"{true.shape} and {predicted.shape} do not fit weights of {weights.shape[1]} pictures")
    x, y = true[:, actions], predicted[:, actions]
    error, is_active, says_active = np.abs(y - x), x > ACTIVE, y > ACTIVE

    def total(parts: np.ndarray) -> np.ndarray:
        sums: np.ndarray = weights @ parts.sum(axis=1, dtype=np.float64)  # [B, N] @ [N] -> [B]
        return sums

    count = total(np.ones_like(error))
    out = {
        "mae": _ratio(total(error), count),
        "rmse": np.sqrt(_ratio(total(error**2), count)),
        "mae_active": _ratio(total(error * is_active), total(is_active)),
        "correlation": _mean_correlation(correlations(x, y, weights)),
        "f1": _ratio(2 * total(is_active & says_active), total(is_active) + total(says_active)),
    }
    pairs = np.isin(LEFT, actions) & np.isin(RIGHT, actions)
    left, right = LEFT[pairs], RIGHT[pairs]
    true_lean, lean = true[:, left] - true[:, right], predicted[:, left] - predicted[:, right]
    one_sided, close = np.abs(true_lean) > ONE_SIDED, np.abs(lean) < UNDECIDED
    cases = total(one_sided)
    out["left_right_confusion"] = _ratio(total(one_sided & ~close & (np.sign(lean) != np.sign(true_lean))), cases)
    out["left_right_undecided"] = _ratio(total(one_sided & close), cases)
    for name, values in (of_pictures or {}).items():
        known = ~np.isnan(values)
        out[name] = _ratio(weights @ np.where(known, values, 0.0), weights @ known.astype(np.float64))
    return out


def correlations(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation of each action for each row of weights, as ``metrics`` defines it.

    Args:
        true: ``[N, A]``.
        predicted: ``[N, A]``.
        weights: ``[B, N]``.

    Returns:
        float64[B, A]: NaN if the ground truth does not vary, 0 if only the prediction does not.
    """
    x = np.asarray(true, np.float64) - np.mean(true, axis=0, dtype=np.float64)
    y = np.asarray(predicted, np.float64) - np.mean(predicted, axis=0, dtype=np.float64)
    probs = weights / weights.sum(axis=1, keepdims=True)  # [B, N]
    mean_x, mean_y = probs @ x, probs @ y  # [B, A]
    # Rounding can leave a variance slightly below 0.
    std_x = np.sqrt(np.maximum(probs @ x**2 - mean_x**2, 0.0))
    std_y = np.sqrt(np.maximum(probs @ y**2 - mean_y**2, 0.0))
    covariance = probs @ (x * y) - mean_x * mean_y
    varied = (std_x >= CONSTANT) & (std_y >= CONSTANT)
    out = np.zeros_like(covariance)
    np.divide(covariance, std_x * std_y, out=out, where=varied)
    out[std_x < CONSTANT] = np.nan
    return out.clip(-1.0, 1.0)


def _mean_correlation(values: np.ndarray) -> np.ndarray:
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    out = np.full(len(above), np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out
