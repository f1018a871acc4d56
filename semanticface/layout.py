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
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from semanticface.answer import ARKIT_OPENS, NUMBER_TEXTS, format_answer
from semanticface.arkit import N_ACTIONS
from semanticface.errors import DatasetError, ModelError

Numbers = Literal["sequential", "parallel"]
"""How the 52 numbers are laid out, in training and at work."""

Learn = Literal["all", "words", "numbers"]
"""Which part of an answer counts in the loss."""

IGNORED = -100
"""Label of positions that no loss is taken of, as everywhere in transformers."""

_CLOSES_WORDS = '"}'
_VALUE = re.compile(r":(-?[0-9.]+)")


def number_owners(answer: str) -> np.ndarray:
    """Return which of the 52 numbers each character of a canonical answer belongs to.

    Returns:
        int[len(answer)]: 0 to 51 on the digits and the point of a coefficient, -1 elsewhere.

    Raises:
        DatasetError: the text does not hold 52 numbers after ``"arkit":{``.
    """
    owners = np.full(len(answer), -1)
    start = answer.rfind(ARKIT_OPENS)
    found = list(_VALUE.finditer(answer, start + len(ARKIT_OPENS))) if start >= 0 else []
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
    """How a tokenizer spells the numeric half of an answer.

    Attributes:
        keys: for each of the 52 numbers the tokens that name it; those of the first begin with what ends the words.
        opening: the tokens before the first number of an answer that has no words.
        spelled: for each of the values 0.00 to 1.00 its tokens.
    """

    keys: tuple[tuple[int, ...], ...]
    opening: tuple[int, ...]
    spelled: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tokenizer: Any) -> NumberTokens:
        """Read them off a fast tokenizer.

        Raises:
            ModelError: numbers and keys share tokens, or a number is spelled differently behind different keys.
        """
        spelled = []
        keys: list[tuple[int, ...]] = []
        for step in range(len(NUMBER_TEXTS)):
            bare = format_answer(np.full(N_ACTIONS, step / 100), None)
            keys, numbers = _split(tokenizer, _CLOSES_WORDS + "," + bare.removeprefix("{"))
            if len(set(numbers)) != 1:
                raise ModelError(f"the tokenizer spells {NUMBER_TEXTS[step]} in several ways: {_REMEDY}")
            spelled.append(numbers[0])
        opening = _split(tokenizer, format_answer(np.zeros(N_ACTIONS), None))[0][0]
        return cls(tuple(keys), opening, tuple(spelled))


_REMEDY = "set numbers: sequential for this model."


def _split(tokenizer: Any, text: str) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Return the tokens before each of the 52 numbers of a text, and those of each number."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    owners = number_owners(text)
    keys: list[list[int]] = [[]]
    numbers: list[list[int]] = []
    last = -1
    for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        touched = set(owners[start:end].tolist())
        if len(touched) > 1:
            raise ModelError(
                f"the tokenizer joins numbers with what stands beside them ({text[start:end]!r}): {_REMEDY}"
            )
        owner = touched.pop() if touched else last
        if owner < 0:
            if last >= 0:
                keys.append([])
            keys[-1].append(token)
        else:
            if owner != last:
                numbers.append([])
            numbers[-1].append(token)
        last = owner
    return [tuple(key) for key in keys[:N_ACTIONS]], [tuple(number) for number in numbers]


@dataclass(frozen=True)
class Lesson:
    """One answer's tokens, to stand behind a prompt. All lists but the first three begin with the prompt's last token.

    Attributes:
        ids: tokens shown.
        steps: how far each stands behind the prompt's last token, from 1; the steps of a branch begin again.
        branches: 0 for tokens that all later ones see, k for those of number k - 1's branch.
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


class AnswerTokens:
    """Turns answers into lessons.

    Args:
        tokenizer: a fast one.
        end: the token that ends an answer.
        numbers: the layout.
        number_weight: weight in the loss of tokens that hold digits of a coefficient; all others weigh 1.

    Raises:
        ModelError: the tokenizer does not allow the parallel layout.
    """

    def __init__(
        self, tokenizer: Any, end: int, *, numbers: Numbers = "sequential", number_weight: float = 1.0
    ) -> None:
        self.tokenizer = tokenizer
        self.end = end
        self.number_weight = number_weight
        self.parallel = NumberTokens.of(tokenizer) if numbers == "parallel" else None

    def __call__(self, answer: str, learn: Learn = "all") -> Lesson:
        """Lay out one canonical answer, with or without words.

        Raises:
            DatasetError: it does not hold 52 numbers.
        """
        return self._row(answer, learn) if self.parallel is None else self._tree(answer, learn, self.parallel)

    def _row(self, answer: str, learn: Learn) -> Lesson:
        encoded = self.tokenizer(answer, add_special_tokens=False, return_offsets_mapping=True)
        owners = number_owners(answer)
        numbers = [int(owners[start:end].max(initial=-1)) for start, end in encoded["offset_mapping"]]
        border = answer.rfind(ARKIT_OPENS)
        after = [end > border for _, end in encoded["offset_mapping"]] + [True]
        learnt = {"all": (True, False), "words": (False,), "numbers": (True,)}[learn]
        weights = [
            (self.number_weight if number >= 0 else 1.0) if place in learnt else 0.0
            for number, place in zip([*numbers, -1], after, strict=True)
        ]
        ids = encoded["input_ids"]
        steps = list(range(1, len(ids) + 1))
        return Lesson(ids, steps, [0] * len(ids), [*ids, self.end], weights, [*numbers, -1])

    def _tree(self, answer: str, learn: Learn, tokens: NumberTokens) -> Lesson:
        owners = number_owners(answer)
        opens = answer.rfind(ARKIT_OPENS)
        words = answer[: opens - len(_CLOSES_WORDS) - 1] if opens > 1 else ""
        said = self.tokenizer(words, add_special_tokens=False)["input_ids"] if words else []
        lesson = Lesson(list(said), list(range(1, len(said) + 1)), [0] * len(said))
        # Behind the last word the model must say that the words end.
        lesson.labels.extend([*said, tokens.keys[0][0]] if words else [IGNORED])
        counts = 1.0 if words and learn != "numbers" else 0.0
        lesson.weights.extend([counts] * len(lesson.labels))
        lesson.numbers.extend([-1] * len(lesson.labels))
        if learn == "words":
            return lesson
        starts = np.flatnonzero(np.diff(owners, prepend=-1) * (owners >= 0))
        for number, start in enumerate(starts.tolist()):
            spelled = tokens.spelled[NUMBER_TEXTS.index(answer[start : start + 4])]
            key = tokens.keys[number] if number or words else tokens.opening
            ids = [*key, *spelled[:-1]]
            lesson.ids.extend(ids)
            lesson.steps.extend(range(len(said) + 1, len(said) + 1 + len(ids)))
            lesson.branches.extend([number + 1] * len(ids))
            silent = len(key) - 1
            lesson.labels.extend([IGNORED] * silent + list(spelled))
            lesson.weights.extend([0.0] * silent + [self.number_weight] * len(spelled))
            lesson.numbers.extend([-1] * silent + [number] * len(spelled))
        return lesson


def branch_mask(branches: torch.Tensor, seen: torch.Tensor | None = None) -> torch.Tensor:
    """Return who attends to whom; bool[B, 1, Q, K].

    Args:
        branches: int64[B, Q] of the positions that look: 0 trunk, above 0 a branch, -1 padding.
        seen: int64[B, K] of those looked at, of which the last Q are the ones that look; None for the same.
    """
    seen = branches if seen is None else seen
    n_looking, n_seen = branches.shape[1], seen.shape[1]
    order = torch.arange(n_seen, device=seen.device)
    earlier = order[None, :] <= order[n_seen - n_looking :, None]
    own = (seen[:, None, :] == branches[:, :, None]) | (seen[:, None, :] == 0)
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


def lay_out(model: torch.nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """Turn a collator's ``branches`` and ``steps``, where there are any, into the model's own mask and positions."""
    if "branches" not in inputs:
        return inputs
    inputs = dict(inputs)
    dtype = next(weight.dtype for weight in model.parameters() if weight.is_floating_point())
    inputs["position_ids"] = rotary_positions(model, inputs, inputs.pop("steps"))
    inputs["attention_mask"] = additive(branch_mask(inputs.pop("branches")), dtype)
    return inputs
