"""The benchmark: rendered sets of faces, and the scores of several methods on the same pictures and actions.

A method is a model, a peer such as MediaPipe, or a constant predictor. Methods differ in what they answer, so each set
is scored in up to three scopes:

* ``all``: the model on all 52 actions and all pictures, with the constants;
* ``shared``: if a peer answers fewer actions, every method on those;
* ``found``: if a method has no answer for some pictures, every method on the pictures that all of them answered.

In ``all`` and ``shared``, a picture without an answer counts as the method's own mean answer over the other pictures
of the set. That carries no information about the picture, so it costs correlation; and it cannot gain the low mean
error that answering zero would, since most actions are at rest. A method without any answer counts as a face at rest.

Row k of a set depends only on the set's key and k, so a smaller set is the beginning of a larger one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semanticface import arkit
from semanticface.data.rendered import RenderSettings, render_set, renderer_hash
from semanticface.evaluation import bootstrap, metrics
from semanticface.evaluation.bootstrap import Estimate
from semanticface.evaluation.metrics import BASELINES, vertex_errors
from semanticface.inference.intervals import NumberSummary, readout_sums
from semanticface.inference.intervals import figures as readout_figures
from semanticface.semantics.analysis import Analysis, describe
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.semantics.faithfulness import agreement

SETS: dict[str, str] = {
    "photo": "photo style, people never seen in training",
    "toon": "toon style",
    "drawn": "drawn style",
    "shifted": "photo style under hard conditions: harsh light, blur, noise, compression, occlusion",
}
"""Descriptions of the sets by key."""

MODEL, PEER = "model", "mediapipe"
_DIGITS = 5

ROWS = 500
SIZE = 512
FIRST_SUBJECT = 8_000_000
SUBJECTS = 100_000
"""Training sets number their people from 0, the face detector's from 5,000,000, the speed benchmarks from 9,000,000."""
LABELS_FOR_CONSTANTS = 20_000
SEED = 2026

Result = dict[str, Any]


def set_folder(pictures: Path, key: str, rows: int) -> Path:
    """Return the folder of a set's pictures; it depends on the renderer's version."""
    return pictures / f"{key}-{rows}-{renderer_hash()}"


def render_benchmark_set(pictures: Path, key: str, rows: int, *, size: int = SIZE, workers: int = 1) -> Path:
    """Return the folder of a set's pictures, rendered if missing; shows a progress bar.

    Args:
        pictures: folder of the sets.
        key: one of ``SETS``.
        rows: pictures of the set.
        size: side of the portraits in pixels.
        workers: rendering processes.
    """
    settings = RenderSettings(
        rows=rows,
        looks={"photo" if key == "shifted" else key: 1.0},
        size=size,
        conditions="hard" if key == "shifted" else "usual",
        splits={"test": 1.0},
        first_subject=FIRST_SUBJECT,
        subjects=SUBJECTS,
        seed=SEED,
        take_share=0.0,
    )
    return render_set(set_folder(pictures, key, rows), settings, workers=workers)


def constant_answers(labels: int = LABELS_FOR_CONSTANTS) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and median, float32[52] each, of ``labels`` samples from the label distribution."""
    rng = np.random.default_rng(SEED)
    return metrics.constants(np.stack([sample_coefficients(rng) for _ in range(labels)]))


@dataclass(frozen=True, eq=False)
class MethodAnswers:
    """A method's answers for a set of pictures.

    Attributes:
        answers: float[N, 52] in [0, 1]; rows without an answer are all NaN.
        actions: the actions that it answers; values of the others are ignored.
        analyses: N analyses, None for pictures without one; None if the method gives none at all.
    """

    answers: np.ndarray
    actions: tuple[str, ...] = arkit.NAMES
    analyses: Sequence[Analysis | None] | None = None


def score_set(
    true: np.ndarray,
    people: Sequence[str],
    methods: Mapping[str, MethodAnswers],
    *,
    mean: np.ndarray,
    median: np.ndarray,
    summaries: Sequence[NumberSummary | None] | None = None,
    seed: int = 0,
) -> Result:
    """Score methods on the same pictures in the scopes of this module.

    Args:
        true: ``[N, 52]`` in [0, 1].
        people: the person in each picture; the bootstrap resamples people, not pictures.
        methods: by key; ``model`` and optionally ``mediapipe``.
        mean: float[52], the constant mean's answer.
        median: float[52], the constant median's answer.
        summaries: the model's distributions for each picture; None for a picture without an answer.
        seed: of the bootstrap.

    Returns:
        A JSON-serializable dict; figures are rounded to five decimals:

        * ``pictures``, ``people``: counts;
        * ``answered``: pictures with an answer, by method;
        * ``scopes``: by name, each with ``actions`` and ``pictures`` (counts), ``figures`` ({method: {key of
          ``metrics.FIGURES``: [value, low, high], or None if undefined}}) and, with a peer, ``lead``: the model's
          ``correlation`` and ``mae`` minus the peer's, [value, low, high], over the same resamples;
        * ``per_action``: {method: {action: {correlation, mae}}} over all pictures;
        * ``readout``: ``intervals.figures`` of the summaries, if there are any, plus the ``correlation`` of greedy,
          mean and median.
    """
    true = np.asarray(true, np.float64)
    for key, method in methods.items():
        if method.answers.shape != true.shape:
            raise ValueError(f"the answers of {key} have shape {method.answers.shape}, the ground truth {true.shape}")
    constants = {key: np.tile(value, (len(true), 1)) for (key, _), value in zip(BASELINES, (mean, median), strict=True)}
    rows = {key: filled(method.answers) for key, method in methods.items()} | constants
    everything = np.ones(len(true), bool)
    answered = {key: ~np.isnan(method.answers).any(axis=1) for key, method in methods.items()}
    of_pictures = {key: _agreements(true, rows[key], method.analyses) for key, method in methods.items()}
    explained = any(method.analyses is not None for method in methods.values())
    of_pictures |= {
        key: _constant_agreements(true, values[0]) if explained else {} for key, values in constants.items()
    }
    for key in rows:
        of_pictures[key]["valid_share"] = answered.get(key, everything).astype(np.float64)

    shared = tuple(name for name in arkit.NAMES if all(name in method.actions for method in methods.values()))
    everybody = np.logical_and.reduce(list(answered.values()))
    scopes = {"all": ([MODEL, *constants], arkit.NAMES, everything)}
    if len(shared) < arkit.N_ACTIONS:
        scopes["shared"] = ([*rows], shared, everything)
    if not everybody.all() and everybody.any():
        scopes["found"] = ([*rows], shared, everybody)

    out: Result = {"pictures": len(true), "people": len(set(people)), "scopes": {}}
    out["answered"] = {key: int(each.sum()) for key, each in answered.items()}
    for name, (keys, actions, kept) in scopes.items():
        weights = bootstrap.resample(np.asarray(people)[kept], seed=seed)
        kept_figures = {key: {figure: values[kept] for figure, values in of_pictures[key].items()} for key in keys}
        out["scopes"][name] = _scope(true[kept], {key: rows[key][kept] for key in keys}, kept_figures, actions, weights)
    supported = {key: method.actions for key, method in methods.items()}
    out["per_action"] = {
        key: _per_action(true, values, supported.get(key, arkit.NAMES)) for key, values in rows.items()
    }
    pairs = [] if summaries is None else zip(true, summaries, strict=True)
    known = [(truth, summary) for truth, summary in pairs if summary is not None]
    if known:
        out["readout"] = _readout(np.stack([truth for truth, _ in known]), [summary for _, summary in known])
    return out


def _scope(
    true: np.ndarray,
    rows: Mapping[str, np.ndarray],
    of_pictures: Mapping[str, Mapping[str, np.ndarray]],
    actions: Sequence[str],
    weights: np.ndarray,
) -> Result:
    indices = np.array([arkit.INDEX[action] for action in actions])
    found = {}
    for key, answers in rows.items():
        per_picture = {**_on_head(true, answers, indices), **of_pictures[key]}
        found[key] = bootstrap.figures(true, answers, weights, actions=indices, of_pictures=per_picture)
    out: Result = {"actions": len(actions), "pictures": len(true)}
    out["figures"] = {
        key: {figure: _plain(bootstrap.estimate(values)) for figure, values in figures.items()}
        for key, figures in found.items()
    }
    if PEER in found:
        leads = {figure: found[MODEL][figure] - found[PEER][figure] for figure in ("correlation", "mae")}
        out["lead"] = {figure: _plain(bootstrap.estimate(values)) for figure, values in leads.items()}
    return out


def _readout(true: np.ndarray, summaries: Sequence[NumberSummary]) -> Result:
    out = readout_figures(
        np.stack([readout_sums(truth, summary) for truth, summary in zip(true, summaries, strict=True)])
    )
    once = np.ones((1, len(true)))
    for name in ("greedy", "mean", "median"):
        answers = np.stack([getattr(summary, name) for summary in summaries])
        out[name]["correlation"] = float(bootstrap.figures(true, answers, once)["correlation"][0])
    rounded: Result = _rounded(out)
    return rounded


def filled(answers: np.ndarray) -> np.ndarray:
    """Replace rows that hold NaN by the mean of the other rows; by zeros if there are none."""
    answers = np.asarray(answers, np.float64)
    missing = np.isnan(answers).any(axis=1)
    out = answers.copy()
    out[missing] = 0.0 if missing.all() else answers[~missing].mean(axis=0)
    return out


def headline(sets: Mapping[str, Result]) -> dict[str, float | None]:
    """Return the figures of the benchmark's last output line.

    Args:
        sets: results of ``score_set`` by key of ``SETS``.

    Returns:
        ``photo_corr``, ``photo_mae`` and the other sets' ``_corr`` of the model over all actions; the same names with
        ``_mediapipe`` of the peer over its actions, if it ran; and of the photo set ``median_mae_gain`` and
        ``interval_coverage``, as ``intervals.figures`` defines them.
    """
    wanted = [("photo", "correlation", "photo_corr"), ("photo", "mae", "photo_mae")]
    wanted += [(key, "correlation", f"{key}_corr") for key in SETS if key != "photo"]
    out: dict[str, float | None] = {}
    for method, scope, suffix in ((MODEL, "all", ""), (PEER, "shared", f"_{PEER}")):
        for key, figure, name in wanted:
            figures = sets[key]["scopes"].get(scope, {"figures": {}})["figures"]
            if method in figures:
                value = figures[method][figure]
                out[name + suffix] = None if value is None else value[0]
    return out | {name: sets["photo"].get("readout", {}).get(name) for name in ("median_mae_gain", "interval_coverage")}


def worst_and_typical(errors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Select the worst rows and those with an error nearest to the median, without overlap.

    Args:
        errors: float[N]; NaN, a picture without an answer, ranks worst.
        count: rows of each, fewer if there are not enough.

    Returns:
        Two arrays of row numbers, worst first and most typical first.
    """
    order = np.argsort(errors, kind="stable")[::-1]  # NaN sorts last, so it comes first
    worst, rest = order[:count], order[count:]
    rest = rest[~np.isnan(errors[rest])]
    middle = np.nanmedian(errors) if len(rest) else 0.0
    return worst, rest[np.argsort(np.abs(errors[rest] - middle), kind="stable")][:count]


def largest_errors(true: np.ndarray, predicted: np.ndarray, count: int = 4) -> str:
    """Return the actions with the largest errors, such as ``jawOpen 0.10 for 0.62, …``: predicted, then true."""
    order = np.argsort(-np.abs(np.asarray(predicted) - true), kind="stable")[:count]
    return ", ".join(f"{arkit.NAMES[i]} {predicted[i]:.2f} for {true[i]:.2f}" for i in order)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return None if value is None or np.isnan(value) else round(value, _DIGITS)


def _plain(value: Estimate) -> list[float] | None:
    if np.isnan(value.value):
        return None
    return [_rounded(part) for part in (value.value, value.low, value.high)]


def _on_head(true: np.ndarray, predicted: np.ndarray, actions: np.ndarray) -> dict[str, np.ndarray]:
    """Return the vertex errors of each picture; the other actions are set to their true values."""
    posed = true.copy()
    posed[:, actions] = predicted[:, actions]
    mean, tail = vertex_errors(true, posed)
    return {"vertex_error": mean, "vertex_error_p95": tail}


def _agreements(
    true: np.ndarray, predicted: np.ndarray, analyses: Iterable[Analysis | None] | None
) -> dict[str, np.ndarray]:
    """Return each analysis's agreement with its own numbers and the ground truth; NaN without an analysis."""
    if analyses is None:
        return {}
    pairs = [
        (np.nan, np.nan)
        if analysis is None
        else (agreement(analysis, answer.astype(np.float32)).score, agreement(analysis, truth.astype(np.float32)).score)
        for analysis, answer, truth in zip(analyses, predicted, true, strict=True)
    ]
    own, real = np.array(pairs, np.float64).T
    return {"agreement_own": own, "agreement_true": real}


def _constant_agreements(true: np.ndarray, constant: np.ndarray) -> dict[str, np.ndarray]:
    analysis = describe(constant.astype(np.float32))
    own = agreement(analysis, constant.astype(np.float32)).score
    real = [agreement(analysis, truth.astype(np.float32)).score for truth in true]
    return {"agreement_own": np.full(len(true), own), "agreement_true": np.array(real)}


def _per_action(true: np.ndarray, predicted: np.ndarray, actions: Sequence[str]) -> dict[str, dict[str, float | None]]:
    correlations = bootstrap.correlations(true, predicted, np.ones((1, len(true))))[0]
    errors = np.abs(predicted - true).mean(axis=0)
    out: dict[str, dict[str, float | None]] = {}
    for name in actions:
        i = arkit.INDEX[name]
        correlation = None if np.isnan(correlations[i]) else round(float(correlations[i]), _DIGITS)
        out[name] = {"correlation": correlation, "mae": round(float(errors[i]), _DIGITS)}
    return out
