"""The two token layouts of an answer: its text in order, or the 52 numbers as parallel branches.

``sequential`` is the text as it stands: each number attends to all numbers before it.

``parallel`` attaches 52 branches to the analysis, and nine more where an answer has a pose. A branch holds the key
tokens that name one number and the first tokens of that number. It attends to the prompt, the analysis and itself,
never to another branch, and every branch starts at the position after the analysis. So all numbers are read at once: in
one forward pass where a number is one token (nano), in two where it is several (digits). The resulting text is the same
JSON.

In both layouts the label of a position is the token *it* predicts. Sequentially that is the next token; at the end of a
branch's key it is the number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from semanticface.arkit import N_ACTIONS, N_POSE, NAMES
from semanticface.errors import DatasetError, ModelError
from semanticface.semantics.answer import (
    ANALYSIS_END,
    ARKIT_START,
    FIRST_KEY,
    NUMBER_TEXTS,
    POSE_KEYS,
    POSE_START,
    POSE_TEXTS,
)

Numbers = Literal["sequential", "parallel"]
"""Layout of the 52 numbers, in training and inference."""

LossOn = Literal["all", "analysis", "numbers"]
"""Which part of an answer counts in the loss."""

BRANCHES_PER_ANSWER = 64
"""Branch ids per answer where one prompt carries several (``branch_mask``); at least 53: trunk and numbers."""

IGNORE_INDEX = -100
"""Label of positions without loss, as in PyTorch and transformers."""

_VALUE = re.compile(r":(-?[0-9.]+)")


def number_owners(answer: str) -> np.ndarray:
    """Return which number each character of a canonical answer belongs to.

    Returns:
        int[len(answer)]: 0 to 51 on the digits and the point of a coefficient, 52 to 60 on those of the pose, -1
        elsewhere.
    """
    owners = np.full(len(answer), -1)
    start = answer.rfind(ARKIT_START)
    found = list(_VALUE.finditer(answer, start + len(ARKIT_START))) if start >= 0 else []
    expected = N_ACTIONS + (N_POSE if POSE_START in answer[start:] else 0)
    if len(found) != expected:
        raise DatasetError(
            f"an answer holds {len(found)} numbers, not {expected}: {answer[:80]!r}… "
            "Write the column answer with `semanticface write-answers`."
        )
    for number, match in enumerate(found):
        owners[slice(*match.span(1))] = number
    return owners


@dataclass(frozen=True)
class NumberTokens:
    """How a tokenizer spells the ``arkit`` half of an answer; keys and numbers never share a token.

    Attributes:
        keys: for each of the 52 numbers and the nine of the pose the tokens that name it; the first key begins with the
            end of the analysis, the first of the pose with that of the 52.
        opening: the tokens before the first number of an answer without analysis.
        closing: the tokens after the last number.
        value_tokens: the tokens of each value, 0.00 to 1.00.
        pose_value_tokens: those of each rotation, -1.00 to 1.00.
    """

    keys: tuple[tuple[int, ...], ...]
    opening: tuple[int, ...]
    closing: tuple[int, ...]
    value_tokens: tuple[tuple[int, ...], ...]
    pose_value_tokens: tuple[tuple[int, ...], ...]

    def tokens_of(self, number: int, value: int) -> tuple[int, ...]:
        """Return the tokens of a value, 0 to 100, of one of the 61 numbers."""
        return (self.value_tokens if number < N_ACTIONS else self.pose_value_tokens)[value]

    @classmethod
    def from_tokenizer(cls, tokenizer: Any) -> NumberTokens:
        """Encode every key and value; a ModelError if a fast tokenizer does not decode them back unchanged."""

        def tokens(text: str) -> tuple[int, ...]:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            if tokenizer.decode(ids, clean_up_tokenization_spaces=False) != text:
                raise ModelError(f"the tokenizer cannot spell answers: it turns {text!r} into other text")
            return tuple(ids)

        keys = [tokens(FIRST_KEY), *(tokens(f',"{name}":') for name in NAMES[1:]), *map(tokens, POSE_KEYS)]
        opening = tokens("{" + FIRST_KEY.removeprefix(ANALYSIS_END))
        values, rotations = (tuple(map(tokens, texts)) for texts in (NUMBER_TEXTS, POSE_TEXTS))
        return cls(tuple(keys), opening, tokens("}}"), values, rotations)


@dataclass(frozen=True)
class AnswerEncoding:
    """The tokens of one answer, to follow a prompt. ``labels`` and the lists after it begin at the prompt's last token.

    Attributes:
        ids: input tokens.
        position_offsets: position of each after the prompt's last token, from 1; every branch starts over.
        branch_ids: 0 for tokens that all later ones attend to, k + 1 for the branch of number k; see ``branch_mask``.
        labels: the token each position predicts, ``IGNORE_INDEX`` for none; one more than ``ids``.
        loss_weights: weight of each label in the loss.
        number_ids: which of the 61 numbers each label is part of, -1 for none.
    """

    ids: list[int] = field(default_factory=list)
    position_offsets: list[int] = field(default_factory=list)
    branch_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    loss_weights: list[float] = field(default_factory=list)
    number_ids: list[int] = field(default_factory=list)


class AnswerEncoder:
    """Encodes canonical answers for training.

    Args:
        tokenizer: a fast one.
        end_token_id: the token that ends an answer.
        numbers: the layout.
        number_weight: loss weight of the tokens of a coefficient; all others weigh 1.
    """

    def __init__(
        self, tokenizer: Any, end_token_id: int, *, numbers: Numbers = "sequential", number_weight: float = 1.0
    ) -> None:
        self.tokenizer = tokenizer
        self.end_token_id = end_token_id
        self.number_weight = number_weight
        self.parallel = numbers == "parallel"
        self.number_tokens = NumberTokens.from_tokenizer(tokenizer)

    def __call__(self, answer: str, loss_on: LossOn = "all") -> AnswerEncoding:
        """Encode one canonical answer, with or without analysis."""
        return self._parallel(answer, loss_on) if self.parallel else self._sequential(answer, loss_on)

    def _parse(self, answer: str) -> tuple[list[int], bool, list[int]]:
        """Return the tokens of the analysis, whether there is one, and the 52 or 61 numbers as values 0 to 100."""
        opens = answer.rfind(ARKIT_START)
        owners = number_owners(answer)
        starts = np.flatnonzero(np.diff(owners, prepend=-1) * (owners >= 0)).tolist()
        try:
            values = [
                (POSE_TEXTS if number >= N_ACTIONS else NUMBER_TEXTS).index(_VALUE.match(answer, start - 1)[1])  # type: ignore[index]
                for number, start in enumerate(starts)
            ]
        except ValueError:
            raise DatasetError(
                f"an answer is not in the canonical form: {answer[:80]!r}… Write it with `semanticface write-answers`."
            ) from None
        analysis = answer[: opens - len(ANALYSIS_END)] if opens > 1 else ""
        ids = self.tokenizer(analysis, add_special_tokens=False)["input_ids"] if analysis else []
        return list(ids), bool(analysis), values

    def _key(self, number: int, has_analysis: bool) -> tuple[int, ...]:
        return self.number_tokens.keys[number] if number or has_analysis else self.number_tokens.opening

    def _sequential(self, answer: str, loss_on: LossOn) -> AnswerEncoding:
        analysis, has_analysis, values = self._parse(answer)
        labels, number_ids = list(analysis), [-1] * len(analysis)
        for number, value in enumerate(values):
            key, digits = self._key(number, has_analysis), self.number_tokens.tokens_of(number, value)
            labels += [*key, *digits]
            number_ids += [-1] * len(key) + [number] * len(digits)
        labels += [*self.number_tokens.closing, self.end_token_id]
        number_ids += [-1] * (len(labels) - len(number_ids))
        counts = [loss_on != "numbers"] * len(analysis) + [loss_on != "analysis"] * (len(labels) - len(analysis))
        weights = [
            (self.number_weight if number >= 0 else 1.0) if counted else 0.0
            for number, counted in zip(number_ids, counts, strict=True)
        ]
        ids = labels[:-1]
        return AnswerEncoding(ids, list(range(1, len(ids) + 1)), [0] * len(ids), labels, weights, number_ids)

    def _parallel(self, answer: str, loss_on: LossOn) -> AnswerEncoding:
        analysis, has_analysis, values = self._parse(answer)
        n = len(analysis)
        # After its last token the model must predict that the analysis ends.
        labels = [*analysis, self.number_tokens.keys[0][0]] if has_analysis else [IGNORE_INDEX]
        weights = [1.0 if has_analysis and loss_on != "numbers" else 0.0] * len(labels)
        encoding = AnswerEncoding(analysis, list(range(1, n + 1)), [0] * n, labels, weights, [-1] * len(labels))
        if loss_on == "analysis":
            return encoding
        for number, value in enumerate(values):
            key, digits = self._key(number, has_analysis), self.number_tokens.tokens_of(number, value)
            ids = [*key, *digits[:-1]]
            encoding.ids.extend(ids)
            encoding.position_offsets.extend(range(n + 1, n + 1 + len(ids)))
            encoding.branch_ids.extend([number + 1] * len(ids))
            n_ignored = len(key) - 1
            encoding.labels.extend([IGNORE_INDEX] * n_ignored + list(digits))
            encoding.loss_weights.extend([0.0] * n_ignored + [self.number_weight] * len(digits))
            encoding.number_ids.extend([-1] * n_ignored + [number] * len(digits))
        return encoding


def concat_branches(encodings: Sequence[AnswerEncoding]) -> AnswerEncoding:
    """Join several parallel encodings about one picture, so that they share one prompt.

    None attends to another. At most the first may have a loss on the prompt's last token.
    """
    first = encodings[0]
    out = AnswerEncoding(labels=first.labels[:1], loss_weights=first.loss_weights[:1], number_ids=first.number_ids[:1])
    for group, encoding in enumerate(encodings, start=1):
        out.ids.extend(encoding.ids)
        out.position_offsets.extend(encoding.position_offsets)
        out.branch_ids.extend(group * BRANCHES_PER_ANSWER + branch for branch in encoding.branch_ids)
        out.labels.extend(encoding.labels[1:])
        out.loss_weights.extend(encoding.loss_weights[1:])
        out.number_ids.extend(encoding.number_ids[1:])
    return out


def branch_mask(query_branches: torch.Tensor, key_branches: torch.Tensor, query_slots: torch.Tensor) -> torch.Tensor:
    """Return the attention mask of branched tokens; bool[B, 1, Q, K].

    A query attends to the keys up to its own slot that are in no branch (0), in its own branch, or in the one that its
    own is attached to: branch ``g * BRANCHES_PER_ANSWER + k`` is attached to ``g * BRANCHES_PER_ANSWER``.

    Args:
        query_branches: int64[B, Q], below 0 for padding.
        key_branches: int64[B, K].
        query_slots: int64[B, Q], which of the K keys each query is.
    """
    causal = torch.arange(key_branches.shape[1], device=key_branches.device) <= query_slots[:, :, None]  # [B, Q, K]
    keys, queries = key_branches[:, None, :], query_branches[:, :, None]
    same = (keys == queries) | (keys == 0) | (keys == queries - queries % BRANCHES_PER_ANSWER)
    return (causal & same)[:, None]


def additive_mask(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a boolean mask as the term added to attention scores, which eager and SDPA attention take."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def rotary_positions(model: torch.nn.Module, inputs: dict[str, Any], text_positions: torch.Tensor) -> torch.Tensor:
    """Return the ``position_ids`` of a batch from its text positions.

    Args:
        model: any vision-language model of transformers, wrapped or not.
        inputs: its inputs; ``input_ids`` int64[B, L], ``attention_mask`` int64[B, L].
        text_positions: int64[B, L], the position of each token if images took one position a token, like text.

    Returns:
        int64[B, L], or int64[3, B, L] for models with multimodal rotary positions (Qwen-VL).
    """
    owner: Any = next((module for module in model.modules() if hasattr(module, "get_rope_index")), None)
    if owner is None:
        return text_positions
    names = ("input_ids", "attention_mask", "image_grid_thw", "mm_token_type_ids")
    in_order, _ = owner.get_rope_index(**{name: inputs[name] for name in names if name in inputs})
    return in_order + (text_positions - torch.arange(text_positions.shape[1], device=text_positions.device))


def to_model_inputs(model: torch.nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """Turn a collator's ``branch_ids`` and ``text_positions``, if any, into the model's own mask and positions."""
    if "branch_ids" not in inputs:
        return inputs
    inputs = dict(inputs)
    dtype = next(weight.dtype for weight in model.parameters() if weight.is_floating_point())
    inputs["position_ids"] = rotary_positions(model, inputs, inputs.pop("text_positions"))
    branches = inputs.pop("branch_ids")
    slots = torch.arange(branches.shape[1], device=branches.device).expand_as(branches)
    inputs["attention_mask"] = additive_mask(branch_mask(branches, branches, slots), dtype)
    return inputs
