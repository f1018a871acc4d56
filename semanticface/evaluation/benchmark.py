"""The benchmark's figures: several readers of the same pictures, on the same actions, each beside the constants.

A reader is a model, a peer such as MediaPipe, or a constant. Readers differ in what they answer, so each set of
pictures is scored in up to three scopes:

* ``all``: the model over all 52 actions and all pictures, with the constants;
* ``shared``: where a peer answers fewer actions, every reader over those alone;
* ``found``: where a reader had no answer for some pictures, every reader over the pictures that all of them answered.

A picture without an answer counts in ``all`` and ``shared`` as the reader's own mean answer over the other pictures of
the set: that tells nothing about the picture, so it costs correlation, and it cannot win what answering zero would win
on mean error, where most actions rest. A reader without any answer counts as a face at rest.

The benchmark's pictures: who is drawn, in which look, how; and the constants that readers of them stand beside.

Row k of a set follows from the set's key and k alone, so the first 50 pictures of 500 are the 50 of a smaller set.
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
    "photo": "photo look, people never seen in training",
    "toon": "toon look",
    "drawn": "drawn look",
    "shifted": "photo look under hard conditions: harsh light, blur, noise, compression, things in front of the face",
}
"""The sets of pictures by key, with what they show."""

MODEL, PEER = "model", "mediapipe"
_DIGITS = 5

Result = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Contender:
    """One reader and what it says of a set of pictures.

    Attributes:
        answers: float[N, 52] in [0, 1]; NaN throughout the rows in which it has no answer.
        actions: the actions that it can answer; the others' values do not count.
        analyses: N explanations, None where it gives none; None where it never gives any.
    """

    answers: np.ndarray
    actions: tuple[str, ...] = arkit.NAMES
    analyses: Sequence[Analysis | None] | None = None


def score_set(
    true: np.ndarray,
    people: Sequence[str],
    readers: Mapping[str, Contender],
    *,
    mean: np.ndarray,
    median: np.ndarray,
    readings: Sequence[NumberSummary | None] | None = None,
    seed: int = 0,
) -> Result:
    """Score readers of the same pictures in the scopes above.

    Args:
        true: ``[N, 52]`` in [0, 1].
        people: who each picture shows; intervals draw people, not pictures.
        readers: by key; ``model`` and perhaps ``mediapipe``.
        mean: float[52], what the constant mean answers.
        median: float[52], what the constant median answers.
        readings: what the model's distributions say of each picture, None where it has no answer.
        seed: draws the resamples.

    Returns:
        A dict of plain Python values, fit for JSON; figures are rounded to five decimals:

        * ``pictures``, ``people``: counts;
        * ``answered``: pictures with an answer, by reader;
        * ``scopes``: by name, each with ``actions`` and ``pictures`` (counts), ``figures`` ({reader: {key of
          ``metrics.FIGURES``: [value, low, high], or None where undefined}}) and, with a peer, ``lead``: the model's
          ``correlation`` and ``mae`` less the peer's, [value, low, high], over the same resamples;
        * ``per_action``: {reader: {action: {correlation, mae}}} over all pictures;
        * ``readout``: ``intervals.figures`` of the readings, where there are any, with the ``correlation`` of greedy,
          mean and median beside their errors.

    Raises:
        ValueError: shapes do not fit, or no pictures.
    """
    true = np.asarray(true, np.float64)
    for key, reader in readers.items():
        if reader.answers.shape != true.shape:
            raise ValueError(f"{key} answers {reader.answers.shape}, the truth is {true.shape}")
    constants = {key: np.tile(value, (len(true), 1)) for (key, _), value in zip(BASELINES, (mean, median), strict=True)}
    rows = {key: filled(reader.answers) for key, reader in readers.items()} | constants
    everything = np.ones(len(true), bool)
    answered = {key: ~np.isnan(reader.answers).any(axis=1) for key, reader in readers.items()}
    of_pictures = {key: _agreements(true, rows[key], reader.analyses) for key, reader in readers.items()}
    explained = any(reader.analyses is not None for reader in readers.values())
    of_pictures |= {
        key: _constant_agreements(true, values[0]) if explained else {} for key, values in constants.items()
    }
    for key in rows:
        of_pictures[key]["valid_share"] = answered.get(key, everything).astype(np.float64)

    shared = tuple(name for name in arkit.NAMES if all(name in reader.actions for reader in readers.values()))
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
        told = {key: {figure: values[kept] for figure, values in of_pictures[key].items()} for key in keys}
        out["scopes"][name] = _scope(true[kept], {key: rows[key][kept] for key in keys}, told, actions, weights)
    supported = {key: reader.actions for key, reader in readers.items()}
    out["per_action"] = {
        key: _per_action(true, values, supported.get(key, arkit.NAMES)) for key, values in rows.items()
    }
    pairs = [] if readings is None else zip(true, readings, strict=True)
    known = [(truth, reading) for truth, reading in pairs if reading is not None]
    if known:
        out["readout"] = _readout(np.stack([truth for truth, _ in known]), [reading for _, reading in known])
    return out


def _scope(
    true: np.ndarray,
    rows: Mapping[str, np.ndarray],
    of_pictures: Mapping[str, Mapping[str, np.ndarray]],
    actions: Sequence[str],
    weights: np.ndarray,
) -> Result:
    """Return what ``score_set`` tells of a scope."""
    numbers = np.array([arkit.INDEX[action] for action in actions])
    found = {}
    for key, answers in rows.items():
        told = {**_on_head(true, answers, numbers), **of_pictures[key]}
        found[key] = bootstrap.figures(true, answers, weights, actions=numbers, of_pictures=told)
    out: Result = {"actions": len(actions), "pictures": len(true)}
    out["figures"] = {
        key: {figure: _plain(bootstrap.estimate(values)) for figure, values in figures.items()}
        for key, figures in found.items()
    }
    if PEER in found:
        leads = {figure: found[MODEL][figure] - found[PEER][figure] for figure in ("correlation", "mae")}
        out["lead"] = {figure: _plain(bootstrap.estimate(values)) for figure, values in leads.items()}
    return out


def _readout(true: np.ndarray, readings: Sequence[NumberSummary]) -> Result:
    out = readout_figures(
        np.stack([readout_sums(truth, reading) for truth, reading in zip(true, readings, strict=True)])
    )
    once = np.ones((1, len(true)))
    for name in ("greedy", "mean", "median"):
        answers = np.stack([getattr(reading, name) for reading in readings])
        out[name]["correlation"] = float(bootstrap.figures(true, answers, once)["correlation"][0])
    rounded: Result = _rounded(out)
    return rounded


def filled(answers: np.ndarray) -> np.ndarray:
    """Return answers with the mean of the others in the rows that hold NaN; zeros where there is no other."""
    answers = np.asarray(answers, np.float64)
    missing = np.isnan(answers).any(axis=1)
    out = answers.copy()
    out[missing] = 0.0 if missing.all() else answers[~missing].mean(axis=0)
    return out


def headline(sets: Mapping[str, Result]) -> dict[str, float | None]:
    """Return the figures that the benchmark ends its output with.

    Args:
        sets: results of ``score_set`` by key of ``SETS``.

    Returns:
        ``photo_corr``, ``photo_mae`` and the other sets' ``_corr`` of the model over all actions; the same names with
        ``_mediapipe`` of the peer over the actions it has, where it ran; and of the photo set ``median_mae_gain`` and
        ``interval_coverage``, as ``intervals.figures`` defines them.
    """
    wanted = [("photo", "correlation", "photo_corr"), ("photo", "mae", "photo_mae")]
    wanted += [(key, "correlation", f"{key}_corr") for key in SETS if key != "photo"]
    out: dict[str, float | None] = {}
    for reader, scope, suffix in ((MODEL, "all", ""), (PEER, "shared", f"_{PEER}")):
        for key, figure, name in wanted:
            figures = sets[key]["scopes"].get(scope, {"figures": {}})["figures"]
            if reader in figures:
                value = figures[reader][figure]
                out[name + suffix] = None if value is None else value[0]
    return out | {name: sets["photo"].get("readout", {}).get(name) for name in ("median_mae_gain", "interval_coverage")}


def worst_and_typical(errors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose rows to show: the worst, and those whose error is nearest to the median, no row twice.

    Args:
        errors: float[N]; NaN, a picture without an answer, is worse than any error.
        count: rows of each, fewer where there are not enough.

    Returns:
        Two arrays of row numbers, the worst first and the most typical first.
    """
    order = np.argsort(errors, kind="stable")[::-1]  # NaN, which sorts last, comes first
    worst, rest = order[:count], order[count:]
    rest = rest[~np.isnan(errors[rest])]
    middle = np.nanmedian(errors) if len(rest) else 0.0
    return worst, rest[np.argsort(np.abs(errors[rest] - middle), kind="stable")][:count]


def largest_errors(true: np.ndarray, predicted: np.ndarray, count: int = 4) -> str:
    """Return the actions that are furthest off, such as ``jawOpen 0.10 for 0.62, …``: predicted, then true."""
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
    """Return the vertex errors of each picture; actions that do not count are taken as right."""
    shown = true.copy()
    shown[:, actions] = predicted[:, actions]
    mean, tail = vertex_errors(true, shown)
    return {"vertex_error": mean, "vertex_error_p95": tail}


def _agreements(
    true: np.ndarray, predicted: np.ndarray, analyses: Iterable[Analysis | None] | None
) -> dict[str, np.ndarray]:
    """Return how far each explanation holds for its own numbers and for the truth; NaN where there is none."""
    if analyses is None:
        return {}
    nothing = (np.nan, np.nan)
    pairs = [
        nothing
        if analysis is None
        else (agreement(analysis, answer.astype(np.float32)).score, agreement(analysis, truth.astype(np.float32)).score)
        for analysis, answer, truth in zip(analyses, predicted, true, strict=True)
    ]
    own, real = np.array(pairs, np.float64).T
    return {"agreement_own": own, "agreement_true": real}


def _constant_agreements(true: np.ndarray, constant: np.ndarray) -> dict[str, np.ndarray]:
    words = describe(constant.astype(np.float32))
    own = agreement(words, constant.astype(np.float32)).score
    real = [agreement(words, truth.astype(np.float32)).score for truth in true]
    return {"agreement_own": np.full(len(true), own), "agreement_true": np.array(real)}


def _per_action(true: np.ndarray, predicted: np.ndarray, actions: Sequence[str]) -> dict[str, dict[str, float | None]]:
    related = bootstrap.correlations(true, predicted, np.ones((1, len(true))))[0]
    errors = np.abs(predicted - true).mean(axis=0)
    out: dict[str, dict[str, float | None]] = {}
    for name in actions:
        i = arkit.INDEX[name]
        related_here = None if np.isnan(related[i]) else round(float(related[i]), _DIGITS)
        out[name] = {"correlation": related_here, "mae": round(float(errors[i]), _DIGITS)}
    return out


ROWS = 500
SIZE = 512
FIRST_SUBJECT = 8_000_000
SUBJECTS = 100_000
"""Training sets count their people from 0, the face finder's from 5,000,000, the benchmarks of speed from 9,000,000."""
LABELS_FOR_CONSTANTS = 20_000
SEED = 2026


def set_folder(pictures: Path, key: str, rows: int) -> Path:
    """Return where a set's pictures are kept; another renderer, another folder."""
    return pictures / f"{key}-{rows}-{renderer_hash()}"


def draw_set(pictures: Path, key: str, rows: int, *, size: int = SIZE, workers: int = 1) -> Path:
    """Return the folder of a set's pictures, drawn where they are not there yet; shows a progress bar.

    Args:
        pictures: folder of the sets.
        key: one of ``benchmark.SETS``.
        rows: pictures of the set.
        size: side of the portraits in pixels.
        workers: processes that draw.

    Raises:
        ConfigError: settings that cannot be met.
        DatasetError: the folder holds something else, or a worker was killed.
        SemanticFaceError: the system refuses to write.
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
    )
    return render_set(set_folder(pictures, key, rows), settings, workers=workers)


def constant_answers(labels: int = LABELS_FOR_CONSTANTS) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and median, float32[52] each, of the distribution that labels are drawn from, over ``labels``."""
    rng = np.random.default_rng(SEED)
    return metrics.constants(np.stack([sample_coefficients(rng) for _ in range(labels)]))
