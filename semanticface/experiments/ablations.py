"""What the claims are compared by: what an answer holds and in which order, taught and read alike in all else.

Every variant learns the same pictures in the same order and in as many steps, beside the same frozen tower, from the
same weights for each seed. The 52 numbers lie side by side in all of them (``layout``): so what a number is read off is
the picture and what the variant puts before it, never other numbers, which in a row would teach it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from semanticface.evaluation import metrics
from semanticface.evaluation.metrics import FIGURES, Figure
from semanticface.experiments import regression_heads
from semanticface.experiments.numbers_first import Explainer, words_behind
from semanticface.inference.predictor import Predictor
from semanticface.models.answer_tokens import AnswerTokens, Lesson, join
from semanticface.models.loading import Bundle
from semanticface.semantics.analysis import Analysis, describe_many
from semanticface.semantics.answer import format_answer
from semanticface.semantics.faithfulness import agreement
from semanticface.training.nano_pretraining import Shown, Teach

Order = Literal["numbers", "words, numbers", "numbers, words"]
"""What is read of a picture, in this order."""

RULE = Figure("agreement_rule", "words made of the numbers by rule match the truth", "higher", percent=True)
"""What Stage I says of the predicted numbers, held against the truth: what words cost nothing to have."""


def _numbers_alone(tokens: AnswerTokens, shown: Shown) -> list[Lesson]:
    return [tokens(format_answer(shown.values, None), "numbers")]


def _behind_true_words(tokens: AnswerTokens, shown: Shown) -> list[Lesson]:
    return [tokens(format_answer(shown.values, shown.analysis), "all")]


def _behind_seen_words(tokens: AnswerTokens, shown: Shown) -> list[Lesson]:
    words = tokens(format_answer(shown.values, shown.analysis), "words")
    return [join([words, tokens(format_answer(shown.values, shown.glimpse), "numbers")])]


def _before_words(tokens: AnswerTokens, shown: Shown) -> list[Lesson]:
    numbers = tokens(format_answer(shown.values, None), "numbers")
    return [join([numbers, words_behind(tokens, shown.values, shown.analysis)])]


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
