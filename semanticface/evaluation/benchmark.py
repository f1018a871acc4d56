"""The benchmark: rendered sets of faces, and the scores of several methods on the same pictures and actions.

``foreign`` shows the head of another maker (``foreign_head``), which nothing is trained on or tuned to; ``take`` shows
our own photo style. Both have the expressions of a real take: its rows are divided into ten equal contiguous blocks,
of which only some are measured (``semantics.take_sampler.HELD_OUT_BLOCKS``), so that the others may be trained on. The
sets in ``HOME`` have our own heads, styles and expressions.

A method is a model, a peer such as MediaPipe, or a constant predictor. Methods differ in what they answer, so each set
is scored in up to three scopes:

* ``all``: the model on all actions that the set shows and all pictures, with the constants;
* ``shared``: if there is a peer, every method on the actions that it answers too;
* ``found``: if a method has no answer for some pictures, every method on the pictures that all of them answered.

In ``all`` and ``shared``, a picture without an answer counts as the method's own mean answer over the other pictures
of the set. That carries no information about the picture, so it costs correlation; and it cannot gain the low mean
error that answering zero would, since most actions are at rest. A method without any answer counts as a face at rest.

Row k of a set depends only on the set's key and k, so a smaller set is the beginning of a larger one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semanticface import arkit
from semanticface.data.faces import shard_path, write_index, write_shard
from semanticface.data.rendered import RenderSettings, render_row, render_set, renderer_hash, row_of
from semanticface.errors import ConfigError
from semanticface.evaluation import bootstrap, metrics
from semanticface.evaluation.bootstrap import Estimate
from semanticface.evaluation.foreign_head import ForeignHead
from semanticface.evaluation.metrics import BASELINES, vertex_errors
from semanticface.formats import recording
from semanticface.inference.intervals import NumberSummary, readout_sums
from semanticface.inference.intervals import figures as readout_figures
from semanticface.recipe import RECIPE_NAME
from semanticface.semantics.analysis import Analysis, describe
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.semantics.faithfulness import agreement
from semanticface.semantics.take_sampler import TakeStatistics, split_rows
from semanticface.utils.files import write_json
from semanticface.utils.progress import tqdm

FOREIGN, TAKE = "foreign", "take"
SETS: dict[str, str] = {
    FOREIGN: "a head of another maker, which nothing was trained on, with expressions from a real take",
    TAKE: "photo style, people never seen in training, with expressions from a real take",
    "photo": "photo style, people never seen in training",
    "toon": "toon style",
    "drawn": "drawn style",
    "shifted": "photo style under hard conditions: harsh light, blur, noise, compression, occlusion",
}
"""Descriptions of the sets by key, in the order of the tables."""
HOME = ("photo", "toon", "drawn", "shifted")
"""Sets with our own heads, styles and distribution of expressions."""
FIRES = 0.15
"""Coefficient above which an action counts as carried out on a face at rest."""

MODEL, PEER = "model", "mediapipe"
_DIGITS = 5
_SHARD_ROWS = 20

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
        key: one of ``HOME``.
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


def modelled_expressions(statistics: Path, count: int) -> np.ndarray:
    """Return expressions with the statistics of a take's measured rows, float32[count, 52] in [0, 1]."""
    take, rng = TakeStatistics.load(statistics), np.random.default_rng(SEED)
    return np.stack([take.sample(rng) for _ in range(count)]).astype(np.float32)


def held_out_expressions(take: Path) -> np.ndarray:
    """Return the measured rows of a take, float32[N, 52] in [0, 1], shuffled so that any first part covers them all.

    Args:
        take: a recording that ``formats.recording`` reads, such as a Live Link Face CSV; rows without a face are left
            out after the division into blocks.

    Raises:
        TableError: the file cannot be read.
        ConfigError: it has no measured rows.
    """
    rows = [frame.coefficients for frame in recording.read(take)]
    _, numbers = split_rows(len(rows))
    found = [rows[i] for i in np.random.default_rng(SEED).permutation(numbers)]
    known = [row for row in found if row is not None]
    if not known:
        raise ConfigError(f"{take}: no faces in the rows that are measured. Give a longer recording.")
    return np.stack(known)


def render_expressions(
    pictures: Path,
    key: str,
    expressions: np.ndarray,
    *,
    size: int = SIZE,
    head: ForeignHead | None = None,
    shots: Sequence[int | None] | None = None,
) -> Path:
    """Return the folder of a set with given expressions, rendered if missing; shows a progress bar.

    Args:
        pictures: folder of the sets.
        key: of the set, such as ``take``; names the folder and seeds people and shots.
        expressions: float32[N, 52] in [0, 1]; of ``head``'s, the actions that do not move it must be 0.
        size: side of the portraits in pixels.
        head: the foreign head; by default, people of our own in the photo style, as in ``HOME``.
        shots: seeds of the shots; by default they follow from ``key``.
    """
    shots = [None] * len(expressions) if shots is None else shots
    state = hashlib.sha256(np.ascontiguousarray(expressions, np.float32).tobytes())
    state.update((f"{size} " if head is None else f"{size} {head.identity}").encode())
    state.update("".join(f" {shot}" for shot in shots if shot is not None).encode())
    folder = pictures / f"{key}-{len(expressions)}-{renderer_hash()}-{state.hexdigest()[:8]}"
    if (folder / "dataset_dict.json").is_file():
        return folder
    recipe = {"kind": "faces", "set": key, "rows": len(expressions), "size": size, "renderer": renderer_hash()}
    write_json(folder / RECIPE_NAME, recipe)
    starts = range(0, len(expressions), _SHARD_ROWS)
    with tqdm(total=len(expressions), unit="row", desc=f"rendering {folder.name}") as bar:
        for number, start in enumerate(starts):
            path = shard_path(folder, "test", number, len(starts))
            part = expressions[start : start + _SHARD_ROWS]
            if not path.is_file():
                rows = (_row(key, start + k, row, size, head, shots[start + k]) for k, row in enumerate(part))
                write_shard(path, list(rows))
            bar.update(len(part))
    write_index(folder, {"test": len(starts)}, recipe)
    return folder


def _row(
    key: str, number: int, expression: np.ndarray, size: int, head: ForeignHead | None, shot: int | None
) -> dict[str, Any]:
    """Return one row of ``faces.FEATURES``; it depends on its arguments only."""
    rng = np.random.default_rng([SEED, *key.encode(), number])
    subject, own = FIRST_SUBJECT + int(rng.integers(SUBJECTS)), int(rng.integers(2**31))
    shot = own if shot is None else shot
    if head is not None:
        return row_of(head.draw(expression, shot=shot, size=size), subject=head.name, look=FOREIGN, seed=shot)
    settings = RenderSettings(size=size)
    return render_row(settings, expression, style="photo", subject=subject, shot=shot, seed=shot)


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
    scored: Sequence[str] = arkit.NAMES,
    seed: int = 0,
) -> Result:
    """Score methods on the same pictures in the scopes of this module.

    Args:
        true: ``[N, 52]`` in [0, 1].
        people: the person in each picture; the bootstrap resamples people, or pictures if all show the same one.
        methods: by key; ``model`` and optionally ``mediapipe``.
        mean: float[52], the constant mean's answer.
        median: float[52], the constant median's answer.
        summaries: the model's distributions for each picture; None for a picture without an answer.
        scored: the actions that count, as the pictures show no others.
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
          mean and median;
        * ``words``: ``words_of`` the model's analyses, if there are any.
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

    shared = tuple(name for name in scored if all(name in method.actions for method in methods.values()))
    everybody = np.logical_and.reduce(list(answered.values()))
    scopes = {"all": ([MODEL, *constants], tuple(scored), everything)}
    if PEER in methods:
        scopes["shared"] = ([*rows], shared, everything)
    if not everybody.all() and everybody.any():
        scopes["found"] = ([*rows], shared, everybody)

    groups = np.asarray(people) if len(set(people)) > 1 else np.arange(len(true))
    out: Result = {"pictures": len(true), "people": len(set(people)), "scopes": {}}
    out["answered"] = {key: int(each.sum()) for key, each in answered.items()}
    for name, (keys, actions, kept) in scopes.items():
        weights = bootstrap.resample(groups[kept], seed=seed)
        kept_figures = {key: {figure: values[kept] for figure, values in of_pictures[key].items()} for key in keys}
        out["scopes"][name] = _scope(true[kept], {key: rows[key][kept] for key in keys}, kept_figures, actions, weights)
    supported = {key: method.actions for key, method in methods.items()}
    out["per_action"] = {
        key: _per_action(true, values, [name for name in supported.get(key, arkit.NAMES) if name in scored])
        for key, values in rows.items()
    }
    if methods[MODEL].analyses is not None:
        out["words"] = words_of(true, methods[MODEL])
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
        key: {figure: plain(bootstrap.estimate(values)) for figure, values in figures.items()}
        for key, figures in found.items()
    }
    if PEER in found:
        leads = {figure: found[MODEL][figure] - found[PEER][figure] for figure in ("correlation", "mae")}
        out["lead"] = {figure: plain(bootstrap.estimate(values)) for figure, values in leads.items()}
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


def words_of(true: np.ndarray, method: MethodAnswers) -> Result:
    """Return how true a method's words are, beside what Stage I's rules write from the same numbers.

    Returns:
        A JSON-serializable dict: ``own_hold``, the share of all claims in the analyses that hold for the answers beside
        them; ``true`` and ``rules_true``, the share that holds for the ground truth, of the method's words and the
        rules'; ``claims`` and ``rules_claims``, how many there are in a picture. None without an analysis.
    """
    counts = np.zeros((3, 2))  # own numbers, truth, rules and truth: claims that hold, claims
    n_analyses = 0
    for analysis, answer, truth in zip(method.analyses or (), method.answers, true, strict=True):
        if analysis is None:
            continue
        n_analyses += 1
        numbers, label = answer.astype(np.float32), truth.astype(np.float32)
        pairs = ((analysis, numbers), (analysis, label), (describe(numbers), label))
        for row, (words, measure) in enumerate(pairs):
            found = agreement(words, measure)
            counts[row] += len(found.holds), len(found.holds) + len(found.contradicts)
    holds, claims = counts.T

    def ratio(part: float, whole: float) -> float | None:
        return part / whole if whole else None

    rounded: Result = _rounded(
        {
            **{key: ratio(holds[row], claims[row]) for row, key in enumerate(("own_hold", "true", "rules_true"))},
            "claims": ratio(claims[1], n_analyses),
            "rules_claims": ratio(claims[2], n_analyses),
        }
    )
    return rounded


def filled(answers: np.ndarray) -> np.ndarray:
    """Replace rows that hold NaN by the mean of the other rows; by zeros if there are none."""
    answers = np.asarray(answers, np.float64)
    missing = np.isnan(answers).any(axis=1)
    out = answers.copy()
    out[missing] = 0.0 if missing.all() else answers[~missing].mean(axis=0)
    return out


def false_rates(
    answers: Mapping[str, np.ndarray],
    people: Sequence[str] | np.ndarray,
    *,
    actions: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> Result:
    """Return how often methods say that an action is carried out on faces at rest.

    Args:
        answers: float[N, 52] by method, of faces whose coefficients are all 0; NaN rows, which do not count, without an
            answer.
        people: the person in each picture; the bootstrap resamples people.
        actions: the actions that a method answers, all by default.
        seed: of the bootstrap.

    Returns:
        A JSON-serializable dict: ``pictures``, and by method ``answered`` (count), ``false_rate`` (the share of all
        numbers, of each action in each picture, that are above ``FIRES``: [value, low, high], or None without an
        answer) and ``per_action`` ({action: share of the pictures}).
    """
    out: Result = {"pictures": len(people), "answered": {}, "false_rate": {}, "per_action": {}}
    for key, rows in answers.items():
        names = list((actions or {}).get(key, arkit.NAMES))
        known = ~np.isnan(rows).any(axis=1)
        fires = rows[known][:, [arkit.INDEX[name] for name in names]] > FIRES
        out["answered"][key] = int(known.sum())
        out["false_rate"][key], out["per_action"][key] = None, {}
        if known.any():
            weights = bootstrap.resample(np.asarray(people)[known], seed=seed)
            out["false_rate"][key] = plain(bootstrap.mean(fires.mean(axis=1), weights))
            shares = _rounded(dict(zip(names, fires.mean(axis=0).tolist(), strict=True)))
            out["per_action"][key] = shares
    return out


def headline(sets: Mapping[str, Result], rest: Result | None = None) -> dict[str, float | None]:
    """Return the figures of the benchmark's last output line.

    Args:
        sets: results of ``score_set`` by key of ``SETS``; without a take there is no ``foreign`` and no ``take``.
        rest: result of ``false_rates`` on rendered faces at rest.

    Returns:
        ``foreign_corr``, ``foreign_mae``, ``take_corr``, ``take_mae``, ``photo_corr``, ``photo_mae`` and the other
        sets' ``_corr`` of the model over all actions of the set; the same names with ``_mediapipe`` of the peer over
        its actions, if it ran; ``own_words_hold``, the least ``own_hold`` of ``words_of`` any set, ``words_true_photo``
        and ``words_true_foreign``, if there are analyses; of the photo set ``median_mae_gain`` and
        ``interval_coverage``, as ``intervals.figures`` defines them; and ``rest_false_rate``, with ``_mediapipe`` if
        it ran.
    """
    wanted = [
        (key, figure, f"{key}_{short}")
        for key in (FOREIGN, TAKE, "photo")
        for figure, short in (("correlation", "corr"), ("mae", "mae"))
    ]
    wanted += [(key, "correlation", f"{key}_corr") for key in HOME if key != "photo"]
    out: dict[str, float | None] = {}
    for method, scope, suffix in ((MODEL, "all", ""), (PEER, "shared", f"_{PEER}")):
        for key, figure, name in wanted:
            figures = sets.get(key, {"scopes": {}})["scopes"].get(scope, {"figures": {}})["figures"]
            if method in figures:
                value = figures[method][figure]
                out[name + suffix] = None if value is None else value[0]
    out |= {name: sets["photo"].get("readout", {}).get(name) for name in ("median_mae_gain", "interval_coverage")}
    words = {key: found["words"] for key, found in sets.items() if "words" in found}
    if words:
        known = [each["own_hold"] for each in words.values() if each["own_hold"] is not None]
        out["own_words_hold"] = min(known, default=None)
        out |= {f"words_true_{key}": words[key]["true"] for key in ("photo", FOREIGN) if key in words}
    for method, suffix in ((MODEL, ""), (PEER, f"_{PEER}")):
        if rest is not None and method in rest["false_rate"]:
            value = rest["false_rate"][method]
            out[f"rest_false_rate{suffix}"] = None if value is None else value[0]
    return out


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


def plain(value: Estimate) -> list[float] | None:
    """Return a figure of a results file, [value, low, high] rounded, or None if it is undefined."""
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
