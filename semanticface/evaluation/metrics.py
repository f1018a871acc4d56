"""Metrics of predicted coefficients, each next to those of two constant predictors.

Always answering the training set's mean (or median) already gives a low mean error, because most actions are at rest
most of the time. So ``score`` reports every figure for those two constants as well.

Conventions:

* A row of ``predicted`` that holds a NaN is an invalid answer. It lowers the share of valid answers and is left out of
  all other figures; the constants are scored on the same remaining rows.
* An undefined figure (no valid row, no active action, a constant ground truth) is ``None``, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np

from semanticface import arkit
from semanticface.semantics.analysis import Analysis, describe
from semanticface.semantics.faithfulness import agreement
from semanticface.utils.html import Table

ACTIVE = 0.1
"""An action counts as active above this coefficient."""
ONE_SIDED = 0.2
"""The ground truth is clearly one-sided if left and right differ by more than this."""
UNDECIDED = 0.005
"""Left and right closer than this round to the same two decimals: the prediction takes no side."""
CONSTANT = 1e-6
"""A standard deviation below this means constant (float32 rounding stays far below it)."""

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """How an overall figure is displayed.

    Attributes:
        key: its key in ``result["model"]``.
        label: its displayed name.
        better: ``lower`` or ``higher``.
        percent: the value is a share, displayed in percent.
        suffix: unit after the number.
    """

    key: str
    label: str
    better: str
    percent: bool = False
    suffix: str = ""

    @property
    def arrow(self) -> str:
        """The direction that is better."""
        return "↓" if self.better == "lower" else "↑"

    def text(self, value: float | None) -> str:
        """Format the value; a dash if it is undefined."""
        if value is None:
            return "–"
        if self.percent:
            return f"{100 * value:.1f} %"
        return f"{value:.2f}{self.suffix}" if self.suffix else f"{value:.3f}"


FIGURES: tuple[Figure, ...] = (
    Figure("mae", "mean error (MAE)", "lower"),
    Figure("rmse", "RMS error", "lower"),
    Figure("mae_active", "mean error, active actions", "lower"),
    Figure("correlation", "correlation", "higher"),
    Figure("f1", "activation F1", "higher"),
    Figure("left_right_confusion", "left/right confused", "lower", percent=True),
    Figure("left_right_undecided", "left/right undecided", "lower", percent=True),
    Figure("vertex_error", "vertex error", "lower", suffix=" %"),
    Figure("vertex_error_p95", "vertex error, 95th pct.", "lower", suffix=" %"),
    Figure("valid_share", "valid answers", "higher", percent=True),
    Figure("agreement_own", "analysis matches own numbers", "higher", percent=True),
    Figure("agreement_true", "analysis matches ground truth", "higher", percent=True),
)

BASELINES: tuple[tuple[str, str], ...] = (("constant_mean", "constant mean"), ("constant_median", "constant median"))
"""Keys of the constant predictors in a result, and their displayed names."""

LEFT: np.ndarray = np.array([a.index for a in arkit.ACTIONS if a.side == "left"])
RIGHT: np.ndarray = arkit.MIRROR_INDEX[LEFT]
"""The actions of the subject's left, and their partners on the right; int64[P] each."""
_BLOCK = 4096  # rows converted to float64 at a time, to bound the memory


def constants(coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the median, float32[52] each, of training coefficients ``[N, 52]``."""
    coefficients = np.asarray(coefficients, dtype=np.float64)
    if coefficients.ndim != 2 or coefficients.shape[1] != arkit.N_ACTIONS or not len(coefficients):
        raise ValueError(f"expected at least one row of {arkit.N_ACTIONS} coefficients, got {coefficients.shape}")
    return coefficients.mean(axis=0).astype(np.float32), np.median(coefficients, axis=0).astype(np.float32)


def score(
    true: np.ndarray,
    predicted: np.ndarray,
    *,
    analyses: Iterable[Analysis | None] | None = None,
    train_mean: np.ndarray | None = None,
    train_median: np.ndarray | None = None,
    on_head: bool = True,
) -> Result:
    """Score predictions, and the constant-mean and constant-median predictors, against the ground truth.

    Args:
        true: ``[N, 52]``, each in [0, 1].
        predicted: ``[N, 52]``, each in [0, 1]; a row with NaN is an invalid answer.
        analyses: the model's N analyses, ``None`` for rows without one, iterated once; without them the agreement
            figures are ``None``.
        train_mean: float[52] from ``constants`` of the training set; give both or neither. Without them the constants
            come from the valid rows of ``true``, which favours the constants; ``constants_from`` says which.
        train_median: as ``train_mean``.
        on_head: also measure the vertex error on the plain head (about 1 ms per row).

    Returns:
        A JSON-serializable dict:

        * ``samples``, ``valid``: row counts; ``constants_from``: ``training set`` or ``test set``;
        * ``model``, ``constant_mean``, ``constant_median``: each a dict of

          - the keys of ``FIGURES``. ``correlation`` is the mean of the per-action Pearson correlations over the
            actions whose ground truth varies; a constant prediction there counts as 0. ``f1`` pools all actions.
            ``left_right_confusion`` is the share of clearly one-sided pairs (ground truth differs by more than 0.2)
            in which the prediction is larger on the wrong side, ``left_right_undecided`` the share in which it takes
            no side. ``vertex_error`` is the mean distance of the moving vertices of skin, eyes and tongue,
            ``vertex_error_p95`` the mean over pictures of the 95th percentile over those vertices, both in percent
            of the inter-pupil distance. The agreements are means of ``agreement(…).score``.
          - ``correlation_actions``, ``left_right_cases``, ``explained``: the numbers of actions, pairs and analyses
            behind the figures above.
          - ``per_action``: {action: {mae, rmse, mae_active, correlation, f1}};
          - ``per_region``: {region: the same, pooled over its actions}.

    Raises:
        ValueError: mismatched shapes or counts, values out of range, or only one constant given.
    """
    true, predicted = np.asarray(true), np.asarray(predicted)
    _check(true, predicted, train_mean, train_median)
    valid = ~np.isnan(predicted).any(axis=1)
    truth, answers = (true, predicted) if valid.all() else (true[valid], predicted[valid])
    if train_mean is not None and train_median is not None:
        origin, fixed = "training set", (train_mean, train_median)
    else:
        origin, fixed = "test set", constants(truth) if len(truth) else (np.zeros(arkit.N_ACTIONS),) * 2
    own = None if analyses is None else _of_valid(analyses, valid)
    head_errors = _HeadErrors(truth) if on_head and len(truth) else None

    result: Result = {"samples": len(true), "valid": int(valid.sum()), "constants_from": origin}
    result["model"] = _figures(truth, answers, own, head_errors)
    result["model"]["valid_share"] = _mean(valid)
    for (key, _), constant in zip(BASELINES, fixed, strict=True):
        rows = np.broadcast_to(np.asarray(constant, dtype=np.float64), truth.shape)
        repeated = None if analyses is None else repeat(describe(np.asarray(constant, np.float32)), len(rows))
        result[key] = _figures(truth, rows, repeated, head_errors)
        result[key]["valid_share"] = 1.0
    return result


def stacked(answers: Iterable[np.ndarray | None]) -> np.ndarray:
    """Stack answers, at least one, for ``score``: float32[N, 52], with NaN rows for missing ones."""
    missing = np.full(arkit.N_ACTIONS, np.nan, np.float32)
    return np.stack([missing if answer is None else answer for answer in answers])


def vertex_errors(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``vertex_error`` and ``vertex_error_p95`` of each picture, as ``score`` defines them.

    Args:
        true: ``[N, 52]`` in [0, 1], at least one row.
        predicted: ``[N, 52]`` in [0, 1], without NaN.

    Returns:
        Two arrays ``[N]``, in percent of the inter-pupil distance.
    """
    return _HeadErrors(np.asarray(true)).of_each(np.asarray(predicted))


def compare(results: Sequence[tuple[str, Result]]) -> str:
    """Return a Markdown table with a column per named result, followed by the constants of the last one."""
    if not results:
        raise ValueError("nothing to compare")
    if len({result["samples"] for _, result in results}) > 1:
        raise ValueError("the results are over different numbers of samples: score the same test set each time")
    last = results[-1][1]
    columns = [(name, result["model"]) for name, result in results]
    columns += [(label, last[key]) for key, label in BASELINES]
    rows = []
    for figure in FIGURES:
        values = [column[figure.key] for _, column in columns]
        if any(value is not None for value in values):
            rows.append([f"{figure.label} {figure.arrow}", *map(figure.text, values)])
    return f"{Table(['figure', *(name for name, _ in columns)], rows).markdown()}\n\n{caption(last)}"


def table(result: Result) -> str:
    """Return a Markdown table of one result and its constants, with a caption."""
    return compare([("model", result)])


def caption(result: Result) -> str:
    """Return a few sentences on the samples behind the figures and on their definitions."""
    pictures, valid = result["samples"], result["valid"]
    return (
        f"{pictures} pictures, {valid} with a valid answer. Constants from the {result['constants_from']}. "
        f"Correlation: mean over the {result['model']['correlation_actions']} of {arkit.N_ACTIONS} actions whose "
        f"ground truth varies. Active: above {ACTIVE}. Left/right: {result['model']['left_right_cases']} pairs whose "
        f"ground truth differs by more than {ONE_SIDED}. Vertex error: percent of the inter-pupil distance."
    )


def _check(
    true: np.ndarray,
    predicted: np.ndarray,
    train_mean: np.ndarray | None,
    train_median: np.ndarray | None,
) -> None:
    if true.ndim != 2 or true.shape[1] != arkit.N_ACTIONS or true.shape != predicted.shape:
        raise ValueError(f"expected two arrays [N, {arkit.N_ACTIONS}], got {true.shape} and {predicted.shape}")
    if not ((true >= 0) & (true <= 1)).all():
        raise ValueError("true coefficients must be numbers in [0, 1]")
    if not (np.isnan(predicted) | ((predicted >= 0) & (predicted <= 1))).all():
        raise ValueError("predicted coefficients must be in [0, 1], or NaN in the rows of invalid answers")
    if (train_mean is None) != (train_median is None):
        raise ValueError("give both train_mean and train_median (see constants), or neither")
    for constant in (train_mean, train_median):
        if constant is not None and np.shape(constant) != (arkit.N_ACTIONS,):
            raise ValueError(f"a constant predictor needs {arkit.N_ACTIONS} values, got {np.shape(constant)}")


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, rows, _BLOCK))


def _of_valid(analyses: Iterable[Analysis | None], valid: np.ndarray) -> Iterator[Analysis | None]:
    """Yield the analyses of the valid rows."""
    count = 0
    for count, analysis in enumerate(analyses, start=1):
        if count <= len(valid) and valid[count - 1]:
            yield analysis
    if count != len(valid):
        raise ValueError(f"{count} analyses for {len(valid)} rows: give one per row, None for a row without one")


def _figures(
    truth: np.ndarray,
    answers: np.ndarray,
    analyses: Iterable[Analysis | None] | None,
    head_errors: _HeadErrors | None,
) -> Result:
    """Return the figures of one predictor over valid rows, ``[n, 52]``."""
    sums = _sums(truth, answers)
    correlations = _correlations(truth, answers)
    defined = [value for value in correlations if value is not None]
    out: Result = _errors(sums)
    out["correlation"] = float(np.mean(defined)) if defined else None
    out["correlation_actions"] = len(defined)
    out |= _sides(truth, answers)
    out["vertex_error"], out["vertex_error_p95"] = (None, None) if head_errors is None else head_errors(answers)
    out |= _agreements(truth, answers, analyses)
    out["per_action"] = {
        name: _errors(sums[:, i]) | {"correlation": correlations[i]} for i, name in enumerate(arkit.NAMES)
    }
    out["per_region"] = {}
    for region, indices in arkit.REGION_INDEX.items():
        of_region = [c for c in (correlations[i] for i in indices) if c is not None]
        out["per_region"][region] = _errors(sums[:, indices]) | {
            "correlation": float(np.mean(of_region)) if of_region else None
        }
    return out


def _sums(truth: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return the sums over rows that ``_errors`` needs, float64[7, 52]."""
    out = np.zeros((7, arkit.N_ACTIONS))
    for block in _blocks(len(truth)):
        true, answer = truth[block].astype(np.float64), answers[block].astype(np.float64)
        error, is_active, says_active = np.abs(answer - true), true > ACTIVE, answer > ACTIVE
        parts = (
            np.ones_like(error), error, error**2,
            is_active, error * is_active, says_active, is_active & says_active,
        )  # fmt: skip
        out += [part.sum(axis=0) for part in parts]
    return out


def _errors(sums: np.ndarray) -> Result:
    """Return the error figures pooled over actions, from their columns of ``_sums``."""
    count, error, square, active, active_error, says, hits = sums.reshape(len(sums), -1).sum(axis=1).tolist()
    return {
        "mae": error / count if count else None,
        "rmse": (square / count) ** 0.5 if count else None,
        "mae_active": active_error / active if active else None,
        "f1": 2 * hits / (active + says) if active + says else None,
    }


def _correlations(truth: np.ndarray, answers: np.ndarray) -> list[float | None]:
    """Return Pearson's correlation of each action: None if the ground truth is constant, 0 if only the answer is."""
    if len(truth) < 2:
        return [None] * arkit.N_ACTIONS
    out: list[float | None] = []
    for i in range(arkit.N_ACTIONS):
        x, y = truth[:, i].astype(np.float64), answers[:, i].astype(np.float64)
        x, y = x - x.mean(), y - y.mean()
        std_x, std_y = x.std(), y.std()
        if std_x < CONSTANT:
            out.append(None)
        elif std_y < CONSTANT:
            out.append(0.0)
        else:
            out.append(min(1.0, max(-1.0, float((x * y).mean() / (std_x * std_y)))))
    return out


def _sides(truth: np.ndarray, answers: np.ndarray) -> Result:
    cases = confused = undecided = 0
    for block in _blocks(len(truth)):
        true, answer = truth[block].astype(np.float64), answers[block].astype(np.float64)
        true_lean, lean = true[:, LEFT] - true[:, RIGHT], answer[:, LEFT] - answer[:, RIGHT]
        one_sided, close = np.abs(true_lean) > ONE_SIDED, np.abs(lean) < UNDECIDED
        cases += int(one_sided.sum())
        undecided += int((one_sided & close).sum())
        confused += int((one_sided & ~close & (np.sign(lean) != np.sign(true_lean))).sum())
    return {
        "left_right_confusion": confused / cases if cases else None,
        "left_right_undecided": undecided / cases if cases else None,
        "left_right_cases": cases,
    }


def _agreements(truth: np.ndarray, answers: np.ndarray, analyses: Iterable[Analysis | None] | None) -> Result:
    if analyses is None:
        return {"agreement_own": None, "agreement_true": None, "explained": 0}
    own, real = [], []
    for analysis, answer, true in zip(analyses, answers, truth, strict=True):
        if analysis is not None:
            own.append(agreement(analysis, answer.astype(np.float32)).score)
            real.append(agreement(analysis, true.astype(np.float32)).score)
    return {"agreement_own": _mean(np.array(own)), "agreement_true": _mean(np.array(real)), "explained": len(own)}


class _HeadErrors:
    """Vertex errors of predictions against one ground truth."""

    def __init__(self, truth: np.ndarray) -> None:
        from semanticface.evaluation.vertex_error import moving_vertices

        self._truth = truth
        self._moving = moving_vertices()

    def __call__(self, answers: np.ndarray) -> tuple[float, float]:
        means, tails = self.of_each(answers)
        return float(means.mean()), float(tails.mean())

    def of_each(self, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and 95th percentile over the moving vertices of each row."""
        from semanticface.evaluation.vertex_error import vertex_distances

        return vertex_distances(answers, self._truth, self._moving)
