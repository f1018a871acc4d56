"""What a model's distributions of the 52 numbers say: greedy, mean, median and an interval; and how good each is.

The interval is the shortest run of values that holds a given probability of the model's distribution (``shortest``).
That probability is 0.8, or, once the model is calibrated, the *level* at which intervals held 0.8 of the truths of
pictures that it was not trained on (``fit_level``). It is one number: split-conformal calibration (Vovk, Gammerman and
Shafer 2005) over sets that grow with the model's own distribution, so that intervals are wide where it is in doubt.

Most actions rest most of the time. Where a model is sure of a single value (0.00 in nearly all cases), that value is
the interval, which is then right more often than 0.8 and cannot be made shorter. So coverage is told twice: over all
numbers, and over those in doubt, whose interval has more than one value. The second is what 0.8 is to be held against:
over all numbers, an answer of 0.00 to everything would come close to it.

A truth is compared with an interval as the answer would have written it, rounded to hundredths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from semanticface.arkit import NAMES
from semanticface.inference.number_readout import N_VALUES, VALUES, NumberTrie, mean_of, median_of
from semanticface.utils.html import Table

SHARE = 0.8
"""Of the truths an interval is to hold."""
LOWEST_LEVEL = 0.5
"""An interval that holds half of a distribution contains its median."""

_STEPS = 14
_ROUNDING = 1e-6  # float32 shares that add up to a level may miss it by this


@dataclass(frozen=True, slots=True, eq=False)
class NumberSummary:
    """What distributions of N x 52 numbers say.

    Attributes:
        greedy: float32[N, 52], the values to which the likeliest tokens lead.
        mean: float32[N, 52], expectations, not rounded.
        median: float32[N, 52], in hundredths.
        interval: float32[N, 52, 2], lowest and highest value, in [0, 1]; contains the median.
        calibrated: whether the intervals were fitted on held-out pictures, or are the model's own.
    """

    greedy: np.ndarray
    mean: np.ndarray
    median: np.ndarray
    interval: np.ndarray
    calibrated: bool = False

    def of(self, row: int) -> NumberSummary:
        """Return one row's: arrays [52] and [52, 2]."""
        return NumberSummary(self.greedy[row], self.mean[row], self.median[row], self.interval[row], self.calibrated)


def interval_dict(interval: np.ndarray, calibrated: bool) -> dict[str, Any]:
    """Return the JSON form of intervals [52, 2]: [lowest, highest] by action name, and whether they are calibrated."""
    pairs = zip(NAMES, interval.tolist(), strict=True)
    told = {name: [round(low, 2), round(high, 2)] for name, (low, high) in pairs}
    return {"interval": told, "calibrated": calibrated}


def summarize(tree: NumberTrie, shares: np.ndarray, level: float | None = None) -> NumberSummary:
    """Read distributions.

    Args:
        tree: how the model spells numbers.
        shares: float[N, 52, 101], as in ``decode.Written``.
        level: probability that the intervals hold, as ``fit_level`` found it; None takes ``SHARE``, uncalibrated.
    """
    shape = shares.shape[:-1]
    flat = shares.reshape(-1, N_VALUES)
    median = median_of(flat)
    low, high, _ = shortest(flat, SHARE if level is None else level)
    # Rounding could leave the median out of an interval that holds just half.
    interval = np.stack([np.minimum(low, median), np.maximum(high, median)], axis=-1)
    hundredths = (each.reshape(shape) for each in (tree.likeliest(flat), median))
    greedy, median = (VALUES[each].astype(np.float32) for each in hundredths)
    mean = mean_of(flat).clip(0, 1).astype(np.float32).reshape(shape)
    interval = VALUES[interval].astype(np.float32).reshape(*shape, 2)
    return NumberSummary(greedy, mean, median, interval, level is not None)


def shortest(shares: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the shortest runs of values that hold ``level`` of each distribution; of equally short ones the lowest.

    Args:
        shares: float[N, 101].
        level: above 0, at most 1.

    Returns:
        int64[N] lowest and int64[N] highest value in hundredths, float64[N] what they hold.
    """
    low = shares.argmax(1)
    high = low.copy()
    held = shares[np.arange(len(shares)), low].astype(np.float64)
    wide = np.flatnonzero(held < level - _ROUNDING)
    if not len(wide):
        return low, high, held
    heights = np.zeros((len(wide), N_VALUES + 1))
    np.cumsum(shares[wide], axis=1, dtype=np.float64, out=heights[:, 1:])
    heights /= heights[:, -1:]
    # Each row is lifted above the one before it, so that one search finds the last value for each first of every row.
    lift = 2.0 * np.arange(len(wide))[:, None]
    wanted = heights[:, :-1] + (level - _ROUNDING) + lift
    found = np.searchsorted((heights + lift).ravel(), wanted.ravel()).reshape(wanted.shape)
    last = found - (N_VALUES + 1) * np.arange(len(wide))[:, None] - 1
    length = np.where(last < N_VALUES, last - np.arange(N_VALUES), N_VALUES)
    rows = np.arange(len(wide))
    low[wide] = first = length.argmin(1)
    high[wide] = end = last[rows, first]
    held[wide] = heights[rows, end + 1] - heights[rows, first]
    return low, high, held


def fit_level(shares: np.ndarray, true: np.ndarray) -> float:
    """Return the level at which intervals hold ``SHARE`` of the truths.

    An interval that holds more than the level because a single value does counts in proportion, as the luck of a
    smoothed conformal predictor would have it on average: else values the model is sure of would crowd out the rest.

    Args:
        shares: float[N, 52, 101] of pictures that the model was not trained on.
        true: float[N, 52] in [0, 1].

    Raises:
        ValueError: no pictures, or shapes that do not fit.
    """
    if not len(true) or shares.shape != (*true.shape, N_VALUES):
        raise ValueError(f"distributions {shares.shape} and truths {true.shape} do not fit, or there are none")
    flat, wanted = shares.reshape(-1, N_VALUES), _hundredths(true).ravel()
    least, most = LOWEST_LEVEL, 1.0
    for _ in range(_STEPS):
        level = (least + most) / 2
        low, high, held = shortest(flat, level)
        covered = ((low <= wanted) & (wanted <= high)) * np.minimum(1, level / held)
        if covered.mean() < SHARE:
            least = level
        else:
            most = level
    return round((least + most) / 2, 4)


READOUTS = ("greedy", "mean", "median")

_SUMS = (
    "numbers", "greedy_error", "greedy_square", "mean_error", "mean_square", "median_error", "median_square",
    "covered", "width", "in_doubt", "covered_in_doubt", "width_in_doubt",
)  # fmt: skip
N_SUMS = len(_SUMS)


def tally(true: np.ndarray, reading: NumberSummary) -> np.ndarray:
    """Return the sums of each picture from which ``figures`` are made; any number of them, or a sample, may be joined.

    Args:
        true: float[N, 52] in [0, 1], or [52] of one picture.
        reading: of the same pictures.

    Returns:
        float64[N, N_SUMS], or [N_SUMS].
    """
    true = np.asarray(true, dtype=np.float64)
    columns = [np.ones_like(true)]
    for name in READOUTS:
        error = np.abs(getattr(reading, name) - true)
        columns += [error, error**2]
    low, high = reading.interval[..., 0], reading.interval[..., 1]
    rounded = _hundredths(true)
    covered = (_hundredths(low) <= rounded) & (rounded <= _hundredths(high))
    doubt = high > low
    columns += [covered, high - low, doubt, covered & doubt, np.where(doubt, high - low, 0)]
    return np.stack([column.sum(axis=-1) for column in columns], axis=-1).astype(np.float64)


def figures(tallies: np.ndarray) -> dict[str, Any]:
    """Return what tallies of pictures come to, over all their numbers; None where there are none to tell of.

    Returns:
        A dict of plain Python values:

        * ``greedy``, ``mean``, ``median``: each ``mae`` and ``rmse`` of that readout;
        * ``median_mae_gain``: by which share the median's MAE is below the likeliest token's;
          ``mean_rmse_gain`` likewise for the mean's RMS error;
        * ``interval_coverage``: share of the truths within their interval, over numbers in doubt;
          ``interval_coverage_all``: over all numbers; ``in_doubt``: how many are in doubt, as a share;
          ``interval_width``, ``interval_width_all``: mean widths.
    """
    total = dict(zip(_SUMS, np.asarray(tallies).reshape(-1, len(_SUMS)).sum(axis=0).tolist(), strict=True))
    count, doubt = total["numbers"], total["in_doubt"]

    def ratio(part: float | None, whole: float | None) -> float | None:
        return part / whole if part is not None and whole else None

    out: dict[str, Any] = {}
    for name in READOUTS:
        square = ratio(total[f"{name}_square"], count)
        out[name] = {"mae": ratio(total[f"{name}_error"], count), "rmse": None if square is None else square**0.5}
    for name, figure in (("median", "mae"), ("mean", "rmse")):
        left = ratio(out[name][figure], out["greedy"][figure])
        out[f"{name}_{figure}_gain"] = None if left is None else 1 - left
    return out | {
        "interval_coverage": ratio(total["covered_in_doubt"], doubt),
        "interval_coverage_all": ratio(total["covered"], count),
        "in_doubt": ratio(doubt, count),
        "interval_width": ratio(total["width_in_doubt"], doubt),
        "interval_width_all": ratio(total["width"], count),
    }


def table(told: dict[str, Any], calibrated: bool) -> str:
    """Return ``figures`` as Markdown: the readouts side by side, and ``summary``."""
    rows = [[name, *("–" if value is None else f"{value:.4f}" for value in told[name].values())] for name in READOUTS]
    head = ["read as", "mean error (MAE) ↓", "RMS error ↓"]
    return f"{Table(head, rows).markdown()}\n\n{summary(told, calibrated)}"


def summary(told: dict[str, Any], calibrated: bool) -> str:
    """Return what ``figures`` say of the readouts and of the intervals, a sentence each, as far as they are there."""
    said = []
    if told["median_mae_gain"] is not None and told["mean_rmse_gain"] is not None:
        said.append(
            f"Read as the median instead of the likeliest token, the mean error is {_change(told['median_mae_gain'])}; "
            f"read as the mean, the RMS error is {_change(told['mean_rmse_gain'])}."
        )
    if told["interval_coverage"] is not None:
        said.append(
            f"The {100 * SHARE:.0f} % intervals ({'calibrated' if calibrated else 'not calibrated'}) hold "
            f"{100 * told['interval_coverage']:.1f} % of the truths where the model is in doubt, which it is of "
            f"{100 * told['in_doubt']:.1f} % of the numbers, and {100 * told['interval_coverage_all']:.1f} % of all; "
            f"where in doubt they are {told['interval_width']:.2f} wide."
        )
    return " ".join(said)


def _change(gain: float) -> str:
    return f"{abs(100 * gain):.1f} % {'lower' if gain >= 0 else 'higher'}"


def _hundredths(values: np.ndarray) -> np.ndarray:
    return np.rint(np.asarray(values, dtype=np.float64) * 100).astype(np.int64)
