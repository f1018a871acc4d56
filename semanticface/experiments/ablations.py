"""Ablations of what an answer holds and in which order: the variants, their evaluation, and tables over seeds.

All variants learn the same pictures in the same order and number of steps, on the same frozen vision encoder, from the
same initial weights per seed. All decode the 52 numbers in parallel, so a number depends on the picture and on what the
variant puts before it, never on other numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from semanticface.evaluation import metrics
from semanticface.evaluation.metrics import BASELINES, FIGURES, Figure
from semanticface.experiments import counterfactual, regression_heads
from semanticface.experiments.numbers_first import Explainer, encode_analysis_after
from semanticface.inference.predictor import Predictor
from semanticface.models.answer_tokens import AnswerEncoder, AnswerEncoding, concat_branches
from semanticface.models.loading import Bundle
from semanticface.semantics.analysis import Analysis, describe_many
from semanticface.semantics.answer import format_answer, parse_answer
from semanticface.semantics.faithfulness import agreement
from semanticface.training.nano_pretraining import MakeTargets, PretrainExample
from semanticface.utils.html import Table
from semanticface.utils.progress import tqdm

Order = Literal["numbers", "analysis, numbers", "numbers, analysis"]
"""What an answer holds, in this order."""

RULE = Figure("agreement_rule", "rule-based analysis matches the truth", "higher", percent=True)
"""Agreement of Stage I's analysis of the predicted numbers with the ground truth."""


def _numbers_only(encoder: AnswerEncoder, example: PretrainExample) -> list[AnswerEncoding]:
    return [encoder(format_answer(example.coefficients, None), "numbers")]


def _after_true_analysis(encoder: AnswerEncoder, example: PretrainExample) -> list[AnswerEncoding]:
    return [encoder(format_answer(example.coefficients, example.analysis), "all")]


def _after_predicted_analysis(encoder: AnswerEncoder, example: PretrainExample) -> list[AnswerEncoding]:
    analysis = encoder(format_answer(example.coefficients, example.analysis), "analysis")
    numbers = encoder(format_answer(example.coefficients, example.predicted_analysis), "numbers")
    return [concat_branches([analysis, numbers])]


def _before_analysis(encoder: AnswerEncoder, example: PretrainExample) -> list[AnswerEncoding]:
    numbers = encoder(format_answer(example.coefficients, None), "numbers")
    return [concat_branches([numbers, encode_analysis_after(encoder, example.coefficients, example.analysis)])]


@dataclass(frozen=True)
class Variant:
    """One way to learn coefficients and analysis.

    Attributes:
        title: for tables.
        make_targets: returns what a language model learns; None for a regression head.
        order: of the answer.
        head: kind of regression head; None for a language model.
    """

    title: str
    make_targets: MakeTargets | None = None
    order: Order = "numbers"
    head: regression_heads.Kind | None = None


VARIANTS: dict[str, Variant] = {
    "coefficients": Variant("coefficients only", _numbers_only),
    "semantics-first": Variant("semantics, then coefficients", _after_true_analysis, "analysis, numbers"),
    "semantics-first-seen": Variant(
        "semantics, then coefficients, trained on predicted semantics", _after_predicted_analysis, "analysis, numbers"
    ),
    "coefficients-first": Variant("coefficients, then semantics", _before_analysis, "numbers, analysis"),
    "linear": Variant("regression head, linear", head="linear"),
    "mlp": Variant("regression head, MLP", head="mlp"),
}
"""By key. The paper trains numbers behind the ground truth analysis; ``semantics-first-seen`` trains them behind an
analysis with the errors of the model's own at inference, and separately the ground truth analysis."""


def predict(
    bundle: Bundle, order: Order, crops: Sequence[Image.Image], *, batch_size: int = 64, name: str = "predicting"
) -> tuple[np.ndarray, list[Analysis | None] | None]:
    """Predict coefficients and analyses with a language model.

    Args:
        bundle: the model.
        order: of the answers it was trained on.
        crops: of ``bundle.image_size``.
        batch_size: pictures per batch.
        name: of the progress bar.

    Returns:
        float32[N, 52] in [0, 1], NaN in rows without an answer, and N analyses if the order has any.
    """
    predictor = Predictor(bundle, mode="full" if order == "analysis, numbers" else "numbers", order="analysis")
    stream = predictor.stream(crops, batch_size=batch_size, crop="none")
    predictions = list(tqdm(stream, desc=name, total=len(crops), unit="picture"))
    coefficients = metrics.stacked(each.coefficients for each in predictions)
    if order == "numbers":
        return coefficients, None
    # As the model wrote them: the predictions' own are repaired.
    analyses = [parse_answer(each.text).analysis if each.status == "ok" else None for each in predictions]
    if order == "numbers, analysis":
        explainer = Explainer(bundle)
        valid = np.flatnonzero(~np.isnan(coefficients).any(axis=1))
        for start in tqdm(range(0, len(valid), batch_size), desc=f"{name}, analysis", unit="batch"):
            part = valid[start : start + batch_size].tolist()
            explained = explainer([crops[index] for index in part], coefficients[part])
            for index, analysis in zip(part, explained, strict=True):
                analyses[index] = analysis
    return coefficients, analyses


def figures(
    true: np.ndarray,
    predicted: np.ndarray,
    analyses: Sequence[Analysis | None] | None,
    constants: tuple[np.ndarray, np.ndarray],
) -> dict[str, dict[str, float | None]]:
    """Return the figures of one run on one set.

    Args:
        true: ``[N, 52]``.
        predicted: ``[N, 52]``, NaN in rows without an answer.
        analyses: N analyses, or None if the variant has none.
        constants: mean and median of the training set.

    Returns:
        ``model``, ``constant_mean`` and ``constant_median``, each with the keys of ``metrics.FIGURES`` and
        ``agreement_rule``; None where undefined.
    """
    scored = metrics.score(true, predicted, analyses=analyses, train_mean=constants[0], train_median=constants[1])
    out = {}
    rows = {
        "model": predicted,
        **{key: np.tile(value, (len(true), 1)) for (key, _), value in zip(metrics.BASELINES, constants, strict=True)},
    }
    for key, values in rows.items():
        out[key] = {figure.key: scored[key][figure.key] for figure in FIGURES}
        valid = ~np.isnan(values).any(axis=1)
        pairs = zip(describe_many(values[valid]), true[valid].astype(np.float32), strict=True)
        scores = [agreement(analysis, truth).score for analysis, truth in pairs]
        out[key][RULE.key] = float(np.mean(scores)) if scores else None
    return out


Runs = Mapping[int, Mapping[str, Mapping[str, Mapping[str, float | None]]]]
"""By seed, then by set: what ``figures`` returns."""

_TABLE_KEYS = (
    "correlation", "mae", "rmse", "mae_active", "left_right_confusion", "vertex_error", "agreement_own",
    "agreement_true", RULE.key,
)  # fmt: skip
_FIGURE = {figure.key: figure for figure in (*FIGURES, RULE)}
_BASE = "coefficients"
_WORDS_FIRST: Order = "analysis, numbers"
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and spread of a figure over seeds.

    Attributes:
        mean: None where undefined for one of the seeds.
        deviation: standard deviation between seeds (n - 1); None for fewer than two.
    """

    mean: float | None
    deviation: float | None = None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread:
        """Compute it from one value per seed."""
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return cls(None)
        deviation = round(float(np.std(known, ddof=1)), _DIGITS) if len(known) > 1 else None
        return cls(round(float(np.mean(known)), _DIGITS), deviation)

    def text(self, figure: Figure, *, signed: bool = False) -> str:
        """Return mean ± deviation as in tables."""
        text = figure.text(self.mean)
        if signed and self.mean is not None and self.mean > 0:
            text = f"+{text}"
        if self.deviation is None:
            return text
        return f"{text.removesuffix(' %')} ± {figure.text(self.deviation)}"


Spreads = dict[str, Spread]
"""By key of ``metrics.FIGURES`` and ``RULE``."""


def over_seeds(runs: Runs, source: str = "model") -> dict[str, Spreads]:
    """Return each set's figures over seeds, of the model or the constant baseline that ``source`` names."""
    sets = next(iter(runs.values()))
    return {
        name: {key: Spread.of([run[name][source][key] for run in runs.values()]) for key in sets[name][source]}
        for name in sets
    }


def gains(runs: Runs, base: Runs) -> dict[str, Spreads]:
    """Return each set's differences to the base with the same seed, over seeds.

    A base without that seed was run once and stands for every seed.
    """
    once = next(iter(base.values()))

    def gain(seed: int, name: str, key: str) -> float | None:
        own, other = runs[seed][name]["model"][key], base.get(seed, once)[name]["model"][key]
        return None if own is None or other is None else own - other

    return {
        name: {key: Spread.of([gain(seed, name, key) for seed in runs]) for key in once[name]["model"]} for name in once
    }


def variant_tables(runs: Mapping[str, Runs], trained_on: str) -> list[Table]:
    """Return for each set a table of variants and constants, and a table of differences to coefficients only.

    Args:
        runs: by key of ``VARIANTS``.
        trained_on: style of the training pictures.
    """
    if not runs:
        return []
    first = next(iter(runs.values()))
    sets, seeds = next(iter(first.values())), _seeds(first)
    out = []
    for name in sets:
        rows = [(VARIANTS[key].title, over_seeds(found)[name]) for key, found in runs.items()]
        rows += [(title, over_seeds(first, key)[name]) for key, title in BASELINES]
        out.append(_table(rows, f"**{name}**, unseen people; trained on {trained_on} only. {seeds}"))
    others = {key: found for key, found in runs.items() if key != _BASE}
    if _BASE in runs and others:
        for name in sets:
            rows = [(VARIANTS[key].title, gains(found, runs[_BASE])[name]) for key, found in others.items()]
            out.append(
                _table(
                    rows, f"**{name}**: difference to {VARIANTS[_BASE].title} of the same seed. {seeds}", signed=True
                )
            )
    return out


def cause_tables(runs: Mapping[str, Runs], trained_on: str) -> list[Table]:
    """Return a table of what the analysis causes in variants that decode it first, if there are any."""
    found = {key: over_seeds(runs[key], "causes")[trained_on] for key in runs if VARIANTS[key].order == _WORDS_FIRST}
    if not found:
        return []
    labels = counterfactual.FIGURES
    rows = [
        [VARIANTS[key].title, *(each[figure].text(Figure(figure, label, "higher", percent=figure == "followed"))
                                for figure, label in labels.items())]
        for key, each in found.items()
    ]  # fmt: skip
    caption = (
        f"**What the analysis causes**, {trained_on}: one of its sentences is replaced by one that is false for the "
        f"numbers, which are then decoded again. Numbers decoded before the analysis never follow or change. "
        f"{_seeds(runs[next(iter(found))])}"
    )
    return [Table(["", *labels.values()], rows, caption)]


def personal_tables(personal: Mapping[int, Runs], base: Runs) -> list[Table]:
    """Return a table of adapters to one character, the base and the constants, and one of differences to the base.

    Args:
        personal: by number of training pictures.
        base: of the model without adapter, one run.
    """
    if not personal:
        return []
    (name,) = next(iter(base.values()))
    seeds = _seeds(next(iter(personal.values())))
    rows = [("base model", over_seeds(base)[name])]
    rows += [(f"{size} pictures", over_seeds(found)[name]) for size, found in personal.items()]
    rows += [(title, over_seeds(base, key)[name]) for key, title in BASELINES]
    gained = [(f"{size} pictures", gains(found, base)[name]) for size, found in personal.items()]
    return [
        _table(rows, f"**Personalisation**: held-out pictures of one new character ({name}). {seeds}"),
        _table(gained, f"**Personalisation**: difference to the base model. {seeds}", signed=True),
    ]


def headline(
    runs: Mapping[str, Runs], trained_on: str, personal: Mapping[int, Runs], base: Runs
) -> dict[str, float | None]:
    """Return the main figures, means over seeds, with keys such as ``semantics_first_photo_corr``.

    For each variant correlation (``_corr``) and MAE (``_mae``) on each set, and on the training style the agreement of
    its analysis with its own numbers and with the truth; for each personalisation the gain in correlation and MAE.
    """
    out: dict[str, float | None] = {}
    for key, found in runs.items():
        variant = key.replace("-", "_")
        for name, spreads in over_seeds(found).items():
            out[f"{variant}_{name}_corr"] = spreads["correlation"].mean
            out[f"{variant}_{name}_mae"] = spreads["mae"].mean
            if name == trained_on and spreads["agreement_own"].mean is not None:
                out |= {f"{variant}_{figure}": spreads[figure].mean for figure in ("agreement_own", "agreement_true")}
    for size, found in personal.items():
        (gained,) = gains(found, base).values()
        out[f"personal_{size}_corr_gain"] = gained["correlation"].mean
        out[f"personal_{size}_mae_gain"] = gained["mae"].mean
    return out


def to_json(spreads: Mapping[str, Spreads]) -> dict[str, dict[str, list[float | None]]]:
    """Return spreads by set as [mean, deviation]."""
    return {
        name: {key: [spread.mean, spread.deviation] for key, spread in found.items()} for name, found in spreads.items()
    }


def _seeds(runs: Runs) -> str:
    return f"Mean ± standard deviation of {len(runs)} seeds." if len(runs) > 1 else "One seed."


def _table(rows: Sequence[tuple[str, Spreads]], caption: str, *, signed: bool = False) -> Table:
    """Return a table of the figures that are defined for any row."""
    keys = [key for key in _TABLE_KEYS if any(found[key].mean is not None for _, found in rows)]
    head = ["", *(f"{_FIGURE[key].label} {_FIGURE[key].arrow}" for key in keys)]
    cells = [[title, *(found[key].text(_FIGURE[key], signed=signed) for key in keys)] for title, found in rows]
    return Table(head, cells, caption)
