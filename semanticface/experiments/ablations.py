"""What the claims are compared by: what an answer holds and in which order, taught and read alike in all else.

Every variant learns the same pictures in the same order and in as many steps, beside the same frozen tower, from the
same weights for each seed. The 52 numbers lie side by side in all of them (``layout``): so what a number is read off is
the picture and what the variant puts before it, never other numbers, which in a row would teach it too.

Runs of the ablations told: mean and spread over seeds, what each variant gains, as tables and as one line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from semanticface.evaluation import metrics
from semanticface.evaluation.metrics import BASELINES, FIGURES, Figure
from semanticface.experiments import regression_heads
from semanticface.experiments.numbers_first import Explainer, encode_analysis_after
from semanticface.inference.predictor import Predictor
from semanticface.models.answer_tokens import AnswerEncoder, AnswerEncoding, concat_branches
from semanticface.models.loading import Bundle
from semanticface.semantics.analysis import Analysis, describe_many
from semanticface.semantics.answer import format_answer
from semanticface.semantics.faithfulness import agreement
from semanticface.training.nano_pretraining import PretrainExample, Teach
from semanticface.utils.html import Table
from semanticface.utils.progress import tqdm

Order = Literal["numbers", "words, numbers", "numbers, words"]
"""What is read of a picture, in this order."""

RULE = Figure("agreement_rule", "words made of the numbers by rule match the truth", "higher", percent=True)
"""What Stage I says of the predicted numbers, held against the truth: what words cost nothing to have."""


def _numbers_alone(tokens: AnswerEncoder, shown: PretrainExample) -> list[AnswerEncoding]:
    return [tokens(format_answer(shown.values, None), "numbers")]


def _behind_true_words(tokens: AnswerEncoder, shown: PretrainExample) -> list[AnswerEncoding]:
    return [tokens(format_answer(shown.values, shown.analysis), "all")]


def _behind_seen_words(tokens: AnswerEncoder, shown: PretrainExample) -> list[AnswerEncoding]:
    words = tokens(format_answer(shown.values, shown.analysis), "analysis")
    return [concat_branches([words, tokens(format_answer(shown.values, shown.glimpse), "numbers")])]


def _before_words(tokens: AnswerEncoder, shown: PretrainExample) -> list[AnswerEncoding]:
    numbers = tokens(format_answer(shown.values, None), "numbers")
    return [concat_branches([numbers, encode_analysis_after(tokens, shown.values, shown.analysis)])]


@dataclass(frozen=True)
class Variant:
    """One way to learn coefficients and words.

    Attributes:
        title: for tables.
        teach: how a language model is taught; None for a head.
        order: how it is read.
        head: the kind of regression head; None for a language model.
    """

    title: str
    teach: Teach | None = None
    order: Order = "numbers"
    head: regression_heads.Kind | None = None


VARIANTS: dict[str, Variant] = {
    "coefficients": Variant("coefficients only", _numbers_alone),
    "semantics-first": Variant("semantics, then coefficients", _behind_true_words, "words, numbers"),
    "semantics-first-seen": Variant(
        "semantics, then coefficients, taught behind what is seen", _behind_seen_words, "words, numbers"
    ),
    "coefficients-first": Variant("coefficients, then semantics", _before_words, "numbers, words"),
    "linear": Variant("regression head, linear", head="linear"),
    "mlp": Variant("regression head, MLP", head="mlp"),
}
"""By key. The paper teaches numbers behind the words of the true analysis; ``semantics-first-seen`` teaches them behind
words as wrong as those that the model will write itself, and the true words beside that."""


def answer(
    bundle: Bundle, order: Order, crops: Sequence[Image.Image], *, batch: int = 64, name: str = "reading"
) -> tuple[np.ndarray, list[Analysis | None] | None]:
    """Read pictures with a language model.

    Args:
        bundle: the model.
        order: what it was taught to answer.
        crops: of ``bundle.image_size``.
        batch: pictures at a time.
        name: of the progress bar.

    Returns:
        float32[N, 52] in [0, 1], NaN in rows without an answer, and the N explanations, where the order has any.
    """
    predictor = Predictor(bundle, mode="full" if order == "words, numbers" else "numbers")
    stream = predictor.stream(crops, batch_size=batch, crop="none")
    predictions = list(tqdm(stream, desc=name, total=len(crops), unit="picture"))
    read = metrics.stacked(each.coefficients for each in predictions)
    if order == "numbers":
        return read, None
    analyses = [each.analysis for each in predictions]
    if order == "numbers, words":
        explainer = Explainer(bundle)
        told = np.flatnonzero(~np.isnan(read).any(axis=1))
        for start in tqdm(range(0, len(told), batch), desc=f"{name}, words", unit="batch"):
            part = told[start : start + batch].tolist()
            words = explainer([crops[index] for index in part], read[part])
            for index, analysis in zip(part, words, strict=True):
                analyses[index] = analysis
    return read, analyses


def figures(
    true: np.ndarray,
    read: np.ndarray,
    analyses: Sequence[Analysis | None] | None,
    constants: tuple[np.ndarray, np.ndarray],
) -> dict[str, dict[str, float | None]]:
    """Return the figures of one run on one set.

    Args:
        true: ``[N, 52]``.
        read: ``[N, 52]``, NaN in rows without an answer.
        analyses: N explanations, or None where the variant gives none.
        constants: mean and median of the training set.

    Returns:
        ``model``, ``constant_mean`` and ``constant_median``, each with the keys of ``metrics.FIGURES`` and
        ``agreement_rule``; None where undefined.
    """
    scored = metrics.score(true, read, analyses=analyses, train_mean=constants[0], train_median=constants[1])
    out = {}
    rows = {
        "model": read,
        **{key: np.tile(value, (len(true), 1)) for (key, _), value in zip(metrics.BASELINES, constants, strict=True)},
    }
    for key, values in rows.items():
        out[key] = {figure.key: scored[key][figure.key] for figure in FIGURES}
        known = ~np.isnan(values).any(axis=1)
        ruled = zip(describe_many(values[known]), true[known].astype(np.float32), strict=True)
        scores = [agreement(words, truth).score for words, truth in ruled]
        out[key][RULE.key] = float(np.mean(scores)) if scores else None
    return out


Runs = Mapping[int, Mapping[str, Mapping[str, Mapping[str, float | None]]]]
"""By seed, by set: what ``ablation.figures`` returns."""

SHOWN = (
    "correlation", "mae", "rmse", "mae_active", "left_right_confusion", "vertex_error", "agreement_own",
    "agreement_true", RULE.key,
)  # fmt: skip
"""The figures of the tables."""

_FIGURE = {figure.key: figure for figure in (*FIGURES, RULE)}
_BASE = "coefficients"
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over several seeds.

    Attributes:
        mean: over the seeds; None where it is undefined in one of them.
        deviation: standard deviation between seeds (n - 1); None for fewer than two.
    """

    mean: float | None
    deviation: float | None = None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread:
        """Return that of one value a seed, at least one."""
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return cls(None)
        deviation = round(float(np.std(known, ddof=1)), _DIGITS) if len(known) > 1 else None
        return cls(round(float(np.mean(known)), _DIGITS), deviation)

    def text(self, figure: Figure, *, signed: bool = False) -> str:
        """Return it as shown in tables, with the deviation behind a plus-minus sign."""
        shown = figure.text(self.mean)
        if signed and self.mean is not None and self.mean > 0:
            shown = f"+{shown}"
        if self.deviation is None:
            return shown
        return f"{shown.removesuffix(' %')} ± {figure.text(self.deviation)}"


Spreads = dict[str, Spread]
"""By key of ``metrics.FIGURES``, and ``ablation.RULE``."""


def over_seeds(runs: Runs, who: str = "model") -> dict[str, Spreads]:
    """Return for each set each figure's mean and spread; of a constant predictor, if ``who`` names one."""
    sets = next(iter(runs.values()))
    return {
        name: {key: Spread.of([run[name][who][key] for run in runs.values()]) for key in sets[name][who]}
        for name in sets
    }


def gains(runs: Runs, base: Runs) -> dict[str, Spreads]:
    """Return for each set by how much each figure is above that of a base with the same seed: mean and spread.

    A base that knows no such seed was run once, and stands for every seed.
    """
    once = next(iter(base.values()))

    def gain(seed: int, name: str, key: str) -> float | None:
        own, other = runs[seed][name]["model"][key], base.get(seed, once)[name]["model"][key]
        return None if own is None or other is None else own - other

    return {
        name: {key: Spread.of([gain(seed, name, key) for seed in runs]) for key in once[name]["model"]} for name in once
    }


def variant_tables(runs: Mapping[str, Runs], learnt: str) -> list[Table]:
    """Return for each set a table of all variants beside the constants, and one of their gains over numbers alone.

    Args:
        runs: by key of ``ablation.VARIANTS``.
        learnt: the look that was learnt.
    """
    if not runs:
        return []
    first = next(iter(runs.values()))
    sets, seeds = next(iter(first.values())), _seeds(first)
    out = []
    for name in sets:
        rows = [(VARIANTS[key].title, over_seeds(found)[name]) for key, found in runs.items()]
        rows += [(title, over_seeds(first, key)[name]) for key, title in BASELINES]
        out.append(_table(rows, f"**{name}**, unseen people; learnt from {learnt} alone. {seeds}"))
    others = {key: found for key, found in runs.items() if key != _BASE}
    if _BASE in runs and others:
        for name in sets:
            rows = [(VARIANTS[key].title, gains(found, runs[_BASE])[name]) for key, found in others.items()]
            out.append(_table(rows, f"**{name}**: less {VARIANTS[_BASE].title} of the same seed. {seeds}", signed=True))
    return out


def personal_tables(personal: Mapping[int, Runs], base: Runs) -> list[Table]:
    """Return the figures of adapters on one character beside the base and the constants, and their gains over the base.

    Args:
        personal: by number of pictures learnt from.
        base: of the model as it is, one run.
    """
    if not personal:
        return []
    (name,) = next(iter(base.values()))
    seeds = _seeds(next(iter(personal.values())))
    rows = [("as it is", over_seeds(base)[name])]
    rows += [(f"{size} pictures", over_seeds(found)[name]) for size, found in personal.items()]
    rows += [(title, over_seeds(base, key)[name]) for key, title in BASELINES]
    gained = [(f"{size} pictures", gains(found, base)[name]) for size, found in personal.items()]
    return [
        _table(rows, f"**Personalisation**: held-out pictures of one new character ({name}). {seeds}"),
        _table(gained, f"**Personalisation**: less the model as it is. {seeds}", signed=True),
    ]


def headline(
    runs: Mapping[str, Runs], learnt: str, personal: Mapping[int, Runs], base: Runs
) -> dict[str, float | None]:
    """Return the main figures, means over the seeds, under names such as ``semantics_first_photo_corr``.

    Of each variant correlation (``_corr``) and MAE (``_mae``) of each set, and on the look that was learnt how far its
    words hold for its own numbers and for the truth; of each personalisation what both figures gain.
    """
    out: dict[str, float | None] = {}
    for key, found in runs.items():
        variant = key.replace("-", "_")
        for name, spreads in over_seeds(found).items():
            out[f"{variant}_{name}_corr"], out[f"{variant}_{name}_mae"] = (
                spreads["correlation"].mean,
                spreads["mae"].mean,
            )
            if name == learnt and spreads["agreement_own"].mean is not None:
                out |= {f"{variant}_{figure}": spreads[figure].mean for figure in ("agreement_own", "agreement_true")}
    for size, found in personal.items():
        (gained,) = gains(found, base).values()
        out[f"personal_{size}_corr_gain"], out[f"personal_{size}_mae_gain"] = (
            gained["correlation"].mean,
            gained["mae"].mean,
        )
    return out


def plain(spreads: Mapping[str, Spreads]) -> dict[str, dict[str, list[float | None]]]:
    """Return spreads by set in the form of JSON: [mean, deviation]."""
    return {
        name: {key: [spread.mean, spread.deviation] for key, spread in found.items()} for name, found in spreads.items()
    }


def _seeds(runs: Runs) -> str:
    return f"Mean ± standard deviation of {len(runs)} seeds." if len(runs) > 1 else "One seed."


def _table(rows: Sequence[tuple[str, Spreads]], caption: str, *, signed: bool = False) -> Table:
    """Return a table of the figures that any row has."""
    keys = [key for key in SHOWN if any(found[key].mean is not None for _, found in rows)]
    head = ["", *(f"{_FIGURE[key].label} {_FIGURE[key].arrow}" for key in keys)]
    cells = [[title, *(found[key].text(_FIGURE[key], signed=signed) for key in keys)] for title, found in rows]
    return Table(head, cells, caption)
