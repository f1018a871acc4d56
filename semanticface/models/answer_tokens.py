"""How an answer's tokens are laid out before a model: in a row, or the 52 numbers side by side.

``sequential`` is the text as it stands: every number is read with all the numbers before it.

``parallel`` hangs 52 branches on the words. A branch holds the tokens that name one number, and that number's own
first tokens; it attends to the prompt, the words and itself, never to another branch, and every branch starts at the
position that follows the words. So all 52 numbers are read at once: in one pass where a number is one token (nano), in
two where it is several (digits). The text that comes out is the same JSON.

Both layouts give each position the token *it* is to predict as its label. In a row that is the next one; at the end of
a branch's key it is the number, whatever stands beside it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from semanticface.arkit import N_ACTIONS, NAMES
from semanticface.errors import DatasetError, ModelError
from semanticface.semantics.answer import ANALYSIS_END, ARKIT_START, FIRST_KEY, NUMBER_TEXTS

Numbers = Literal["sequential", "parallel"]
"""How the 52 numbers are laid out, in training and at work."""

LossOn = Literal["all", "words", "numbers"]
"""Which part of an answer counts in the loss."""

GROUP = 64
"""Branches of one lesson are counted up to here; see ``branch_mask``."""

IGNORED = -100
"""Label of positions that no loss is taken of, as everywhere in transformers."""

_VALUE = re.compile(r":(-?[0-9.]+)")


def number_owners(answer: str) -> np.ndarray:
    """Return which of the 52 numbers each character of a canonical answer belongs to.

    Returns:
        int[len(answer)]: 0 to 51 on the digits and the point of a coefficient, -1 elsewhere.

    Raises:
        DatasetError: the text does not hold 52 numbers after ``"arkit":{``.
    """
    owners = np.full(len(answer), -1)
    start = answer.rfind(ARKIT_START)
    found = list(_VALUE.finditer(answer, start + len(ARKIT_START))) if start >= 0 else []
    if len(found) != N_ACTIONS:
        raise DatasetError(
            f"an answer holds {len(found)} coefficients, not {N_ACTIONS}: {answer[:80]!r}… "
            "Write the column answer with data_prep/describe.py."
        )
    for number, match in enumerate(found):
        owners[slice(*match.span(1))] = number
    return owners


@dataclass(frozen=True)
class NumberTokens:
    """How a tokenizer spells the numeric half of an answer: keys and numbers never share a token.

    Attributes:
        keys: for each of the 52 numbers the tokens that name it; those of the first begin with what ends the words.
        opening: the tokens before the first number of an answer that has no words.
        closing: the tokens behind the last number.
        spelled: for each of the values 0.00 to 1.00 its tokens.
    """

    keys: tuple[tuple[int, ...], ...]
    opening: tuple[int, ...]
    closing: tuple[int, ...]
    spelled: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tokenizer: Any) -> NumberTokens:
        """Read them off a fast tokenizer.

        Raises:
            ModelError: it cannot write a piece back as it was.
        """

        def tokens(text: str) -> tuple[int, ...]:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            if tokenizer.decode(ids, clean_up_tokenization_spaces=False) != text:
                raise ModelError(f"the tokenizer cannot spell answers: it turns {text!r} into other text")
            return tuple(ids)

        keys = [tokens(FIRST_KEY), *(tokens(f',"{name}":') for name in NAMES[1:])]
        opening = tokens("{" + FIRST_KEY.removeprefix(ANALYSIS_END))
        return cls(tuple(keys), opening, tokens("}}"), tuple(map(tokens, NUMBER_TEXTS)))


@dataclass(frozen=True)
class AnswerEncoding:
    """One answer's tokens, to stand behind a prompt. All lists but the first three begin with the prompt's last token.

    Attributes:
        ids: tokens shown.
        steps: how far each stands behind the prompt's last token, from 1; the steps of a branch begin again.
        branches: 0 for tokens that all later ones see, k for those of number k - 1's branch; see ``branch_mask``.
        labels: what each position is to predict, ``IGNORED`` where nothing; one more than ``ids``.
        weights: weight of each label in the loss.
        numbers: which of the 52 numbers each label is part of, -1 for none.
    """

    ids: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)


class AnswerEncoder:
    """Turns answers into lessons.

    Args:
        tokenizer: a fast one.
        end: the token that ends an answer.
        numbers: the layout.
        number_weight: weight in the loss of tokens that hold digits of a coefficient; all others weigh 1.

    Raises:
        ModelError: the tokenizer cannot spell answers.
    """

    def __init__(
        self, tokenizer: Any, end: int, *, numbers: Numbers = "sequential", number_weight: float = 1.0
    ) -> None:
        self.tokenizer = tokenizer
        self.end = end
        self.number_weight = number_weight
        self.parallel = numbers == "parallel"
        self.tokens = NumberTokens.of(tokenizer)

    def __call__(self, answer: str, learn: LossOn = "all") -> AnswerEncoding:
        """Lay out one canonical answer, with or without words.

        Raises:
            DatasetError: it does not hold 52 numbers, or not in the canonical form.
        """
        return self._tree(answer, learn) if self.parallel else self._row(answer, learn)

    def _said(self, answer: str) -> tuple[list[int], bool, list[int]]:
        """Return the tokens of an answer's words, whether it has any, and its 52 numbers in hundredths."""
        opens = answer.rfind(ARKIT_START)
        owners = number_owners(answer)
        starts = np.flatnonzero(np.diff(owners, prepend=-1) * (owners >= 0)).tolist()
        try:
            values = [NUMBER_TEXTS.index(answer[start : start + 4]) for start in starts]
        except ValueError:
            raise DatasetError(
                f"an answer is not in the canonical form: {answer[:80]!r}… Write it with data_prep/describe.py."
            ) from None
        words = answer[: opens - len(ANALYSIS_END)] if opens > 1 else ""
        ids = self.tokenizer(words, add_special_tokens=False)["input_ids"] if words else []
        return list(ids), bool(words), values

    def _row(self, answer: str, learn: LossOn) -> AnswerEncoding:
        said, has_words, values = self._said(answer)
        labels, numbers = list(said), [-1] * len(said)
        for number, value in enumerate(values):
            key = self.tokens.keys[number] if number or has_words else self.tokens.opening
            spelled = self.tokens.spelled[value]
            labels += [*key, *spelled]
            numbers += [-1] * len(key) + [number] * len(spelled)
        labels += [*self.tokens.closing, self.end]
        numbers += [-1] * (len(labels) - len(numbers))
        words = [learn != "numbers"] * len(said)
        rest = [learn != "words"] * (len(labels) - len(said))
        weights = [
            (self.number_weight if number >= 0 else 1.0) if learnt else 0.0
            for number, learnt in zip(numbers, words + rest, strict=True)
        ]
        ids = labels[:-1]
        return AnswerEncoding(ids, list(range(1, len(ids) + 1)), [0] * len(ids), labels, weights, numbers)

    def _tree(self, answer: str, learn: LossOn) -> AnswerEncoding:
        said, has_words, values = self._said(answer)
        # Behind the last word the model must say that the words end.
        labels = [*said, self.tokens.keys[0][0]] if has_words else [IGNORED]
        weights = [1.0 if has_words and learn != "numbers" else 0.0] * len(labels)
        lesson = AnswerEncoding(
            said, list(range(1, len(said) + 1)), [0] * len(said), labels, weights, [-1] * len(labels)
        )
        if learn == "words":
            return lesson
        n_said = len(said)
        for number, value in enumerate(values):
            key = self.tokens.keys[number] if number or has_words else self.tokens.opening
            spelled = self.tokens.spelled[value]
            ids = [*key, *spelled[:-1]]
            lesson.ids.extend(ids)
            lesson.steps.extend(range(n_said + 1, n_said + 1 + len(ids)))
            lesson.branches.extend([number + 1] * len(ids))
            silent = len(key) - 1
            lesson.labels.extend([IGNORED] * silent + list(spelled))
            lesson.weights.extend([0.0] * silent + [self.number_weight] * len(spelled))
            lesson.numbers.extend([-1] * silent + [number] * len(spelled))
        return lesson


def concat_branches(lessons: Sequence[AnswerEncoding]) -> AnswerEncoding:
    """Return several parallel lessons about one picture as one, so that the prompt before them is shown once.

    None sees another. At most the first may learn from the prompt's last token.
    """
    out = AnswerEncoding(labels=lessons[0].labels[:1], weights=lessons[0].weights[:1], numbers=lessons[0].numbers[:1])
    for group, lesson in enumerate(lessons, start=1):
        out.ids.extend(lesson.ids)
        out.steps.extend(lesson.steps)
        out.branches.extend(group * GROUP + branch for branch in lesson.branches)
        out.labels.extend(lesson.labels[1:])
        out.weights.extend(lesson.weights[1:])
        out.numbers.extend(lesson.numbers[1:])
    return out


def branch_mask(looking: torch.Tensor, seen: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return who attends to whom; bool[B, 1, Q, K].

    A token sees those before it that are in no branch (0), in its own, or in the one its own hangs on: branch
    ``g * GROUP + k`` hangs on ``g * GROUP``.

    Args:
        looking: int64[B, Q], the branch of each position that looks; below 0 padding.
        seen: int64[B, K], the branch of each position there is.
        places: int64[B, Q], which of the K positions the ones that look are.
    """
    earlier = torch.arange(seen.shape[1], device=seen.device) <= places[:, :, None]
    seen, looking = seen[:, None, :], looking[:, :, None]
    own = (seen == looking) | (seen == 0) | (seen == looking - looking % GROUP)
    return (earlier & own)[:, None]


def additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a mask as what is added to attention scores, which every implementation but flash attention takes."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def rotary_positions(model: torch.nn.Module, inputs: dict[str, Any], steps: torch.Tensor) -> torch.Tensor:
    """Return the ``position_ids`` of a batch whose text positions are given.

    Args:
        model: any vision-language model of transformers, wrapped or not.
        inputs: its inputs; ``input_ids`` int64[B, L], ``attention_mask`` int64[B, L].
        steps: int64[B, L], the position each token would have were there no pictures.

    Returns:
        int64[B, L], or int64[3, B, L] for models that place pictures in three dimensions (Qwen-VL).
    """
    placing: Any = next((module for module in model.modules() if hasattr(module, "get_rope_index")), None)
    if placing is None:
        return steps
    names = ("input_ids", "attention_mask", "image_grid_thw", "mm_token_type_ids")
    straight, _ = placing.get_rope_index(**{name: inputs[name] for name in names if name in inputs})
    return straight + (steps - torch.arange(steps.shape[1], device=steps.device))


def to_model_inputs(model: torch.nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """Turn a collator's ``branches`` and ``steps``, where there are any, into the model's own mask and positions."""
    if "branches" not in inputs:
        return inputs
    inputs = dict(inputs)
    dtype = next(weight.dtype for weight in model.parameters() if weight.is_floating_point())
    inputs["position_ids"] = rotary_positions(model, inputs, inputs.pop("steps"))
    branches = inputs.pop("branches")
    places = torch.arange(branches.shape[1], device=branches.device).expand_as(branches)
    inputs["attention_mask"] = additive(branch_mask(branches, branches, places), dtype)
    return inputs
