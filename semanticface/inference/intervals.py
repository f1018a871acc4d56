"""Summaries of the distributions of the 52 numbers: greedy, mean, median and an interval; and how good each is.

The interval is the shortest run of values that holds a given probability of the model's distribution (``shortest``).
That probability is 0.8 or, once the model is calibrated, the *level* at which intervals held 0.8 of the true values of
pictures that it was not trained on (``fit_level``). The level is one number: split-conformal calibration (Vovk,
Gammerman and Shafer 2005) over sets that grow with the model's own distribution, so intervals are wide where it is in
doubt.

Most actions rest most of the time. Where a model is sure of a single value (0.00 in nearly all cases), that value is
the interval, which is then right more often than 0.8 and cannot be shorter. So coverage is reported twice: over all
numbers, and over those in doubt, whose interval has more than one value. Compare the second with 0.8: over all numbers,
answering 0.00 to everything would come close to it.

A true value is rounded to hundredths, as in an answer, before it is compared with an interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from semanticface.arkit import NAMES
from semanticface.inference.number_readout import N_VALUES, VALUES, NumberTrie, mean_value, median_value
from semanticface.utils.html import Table

COVERAGE = 0.8
"""Share of the true values that intervals should hold."""
LOWEST_LEVEL = 0.5
"""An interval that holds half of a distribution contains its median."""

_STEPS = 14
_ROUNDING = 1e-6  # float32 probabilities that add up to a level may miss it by this


@dataclass(frozen=True, slots=True, eq=False)
class NumberSummary:
    """A summary of the distributions of N x 52 numbers.

    Attributes:
        greedy: float32[N, 52], the values that the likeliest tokens lead to.
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

    def row(self, index: int) -> NumberSummary:
        """Return the summary of one row: arrays [52] and [52, 2]."""
        return NumberSummary(
            self.greedy[index], self.mean[index], self.median[index], self.interval[index], self.calibrated
        )


def interval_dict(interval: np.ndarray, calibrated: bool) -> dict[str, Any]:
    """Return the JSON form of intervals [52, 2]: [lowest, highest] by action name, and whether they are calibrated."""
    pairs = zip(NAMES, interval.tolist(), strict=True)
    by_name = {name: [round(low, 2), round(high, 2)] for name, (low, high) in pairs}
    return {"interval": by_name, "calibrated": calibrated}


def summarize(trie: NumberTrie, probs: np.ndarray, level: float | None = None) -> NumberSummary:
    """Summarize distributions.

    Args:
        trie: of the model's tokenizer.
        probs: float[N, 52, 101], as in ``DecodedAnswer``.
        level: probability that the intervals hold, from ``fit_level``; None takes ``COVERAGE``, uncalibrated.
    """
    shape = probs.shape[:-1]
    flat = probs.reshape(-1, N_VALUES)
    median = median_value(flat)
    low, high, _ = shortest(flat, COVERAGE if level is None else level)
    # Rounding could exclude the median from an interval that holds just half.
    interval = np.stack([np.minimum(low, median), np.maximum(high, median)], axis=-1)
    hundredths = (each.reshape(shape) for each in (trie.greedy_values(flat), median))
    greedy, median = (VALUES[each].astype(np.float32) for each in hundredths)
    mean = mean_value(flat).clip(0, 1).astype(np.float32).reshape(shape)
    interval = VALUES[interval].astype(np.float32).reshape(*shape, 2)
    return NumberSummary(greedy, mean, median, interval, level is not None)


def shortest(probs: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the shortest runs of values that hold ``level`` of each distribution; of equally short ones the lowest.

    Args:
        probs: float[N, 101].
        level: above 0, at most 1.

    Returns:
        int64[N] lowest and int64[N] highest value in hundredths, float64[N] the probability they hold.
    """
    low = probs.argmax(1)
    high = low.copy()
    held = probs[np.arange(len(probs)), low].astype(np.float64)
    wide = np.flatnonzero(held < level - _ROUNDING)
    if not len(wide):
        return low, high, held
    cumulative = np.zeros((len(wide), N_VALUES + 1))
    np.cumsum(probs[wide], axis=1, dtype=np.float64, out=cumulative[:, 1:])
    cumulative /= cumulative[:, -1:]
    # Offset each row above the one before it, so that one search finds the last value for each first of every row.
    offset = 2.0 * np.arange(len(wide))[:, None]
    wanted = cumulative[:, :-1] + (level - _ROUNDING) + offset
    found = np.searchsorted((cumulative + offset).ravel(), wanted.ravel()).reshape(wanted.shape)
    last = found - (N_VALUES + 1) * np.arange(len(wide))[:, None] - 1
    length = np.where(last < N_VALUES, last - np.arange(N_VALUES), N_VALUES)
    rows = np.arange(len(wide))
    low[wide] = first = length.argmin(1)
    high[wide] = end = last[rows, first]
    held[wide] = cumulative[rows, end + 1] - cumulative[rows, first]
    return low, high, held


def fit_level(probs: np.ndarray, true: np.ndarray) -> float:
    """Return the level at which intervals hold ``COVERAGE`` of the true values.

    An interval that holds more than the level because a single value does counts in proportion, as a smoothed conformal
    predictor does on average; otherwise values the model is sure of would dominate.

    Args:
        probs: float[N, 52, 101] of pictures that the model was not trained on.
        true: float[N, 52] in [0, 1].
    """
    if not len(true) or probs.shape != (*true.shape, N_VALUES):
        raise ValueError(f"distributions {probs.shape} and true values {true.shape} do not match, or are empty")
    flat, wanted = probs.reshape(-1, N_VALUES), _hundredths(true).ravel()
    least, most = LOWEST_LEVEL, 1.0
    for _ in range(_STEPS):
        level = (least + most) / 2
        low, high, held = shortest(flat, level)
        covered = ((low <= wanted) & (wanted <= high)) * np.minimum(1, level / held)
        if covered.mean() < COVERAGE:
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


def readout_sums(true: np.ndarray, summary: NumberSummary) -> np.ndarray:
    """Return the sums of each picture that ``figures`` are computed from; stack those of any pictures or resample.

    Args:
        true: float[N, 52] in [0, 1], or [52] of one picture.
        summary: of the same pictures.

    Returns:
        float64[N, N_SUMS], or [N_SUMS].
    """
    true = np.asarray(true, dtype=np.float64)
    columns = [np.ones_like(true)]
    for name in READOUTS:
        error = np.abs(getattr(summary, name) - true)
        columns += [error, error**2]
    low, high = summary.interval[..., 0], summary.interval[..., 1]
    rounded = _hundredths(true)
    covered = (_hundredths(low) <= rounded) & (rounded <= _hundredths(high))
    doubt = high > low
    columns += [covered, high - low, doubt, covered & doubt, np.where(doubt, high - low, 0)]
    return np.stack([column.sum(axis=-1) for column in columns], axis=-1).astype(np.float64)


def figures(sums: np.ndarray) -> dict[str, Any]:
    """Return the figures over all numbers of the pictures that ``readout_sums`` are of; None where undefined.

    Returns:
        A dict of plain Python values:

        * ``greedy``, ``mean``, ``median``: each ``mae`` and ``rmse`` of that readout;
        * ``median_mae_gain``: how far the median's MAE is below that of greedy, as a share;
          ``mean_rmse_gain`` likewise for the mean's RMS error;
        * ``interval_coverage``: share of the true values within their interval, over numbers in doubt;
          ``interval_coverage_all``: over all numbers; ``in_doubt``: share of the numbers in doubt;
          ``interval_width``, ``interval_width_all``: mean widths.
    """
    total = dict(zip(_SUMS, np.asarray(sums).reshape(-1, len(_SUMS)).sum(axis=0).tolist(), strict=True))
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


def table(found: dict[str, Any], calibrated: bool) -> str:
    """Return ``figures`` as Markdown: a table of the readouts, and ``summary``."""
    rows = [[name, *("–" if value is None else f"{value:.4f}" for value in found[name].values())] for name in READOUTS]
    head = ["read as", "mean error (MAE) ↓", "RMS error ↓"]
    return f"{Table(head, rows).markdown()}\n\n{summary(found, calibrated)}"


def summary(found: dict[str, Any], calibrated: bool) -> str:
    """Return a sentence on the readouts and one on the intervals, where ``figures`` has them."""
    sentences = []
    if found["median_mae_gain"] is not None and found["mean_rmse_gain"] is not None:
        sentences.append(
            f"Read as the median, not the likeliest token, the mean error is {_change(found['median_mae_gain'])}; "
            f"read as the mean, the RMS error is {_change(found['mean_rmse_gain'])}."
        )
    if found["interval_coverage"] is not None:
        sentences.append(
            f"The {100 * COVERAGE:.0f} % intervals ({'calibrated' if calibrated else 'not calibrated'}) hold "
            f"{100 * found['interval_coverage']:.1f} % of the true values where the model is in doubt "
            f"({100 * found['in_doubt']:.1f} % of the numbers), {100 * found['interval_coverage_all']:.1f} % of all; "
            f"where in doubt they are {found['interval_width']:.2f} wide."
        )
    return " ".join(sentences)


def _change(gain: float) -> str:
    return f"{abs(100 * gain):.1f} % {'lower' if gain >= 0 else 'higher'}"


def _hundredths(values: np.ndarray) -> np.ndarray:
    return np.rint(np.asarray(values, dtype=np.float64) * 100).astype(np.int64)
