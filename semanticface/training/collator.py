"""Chats to tensors: the prompt as at inference, the answer as labels, and a weight for every token of it.

Prompt and answer are tokenised apart and joined, because that is how an answer comes about at inference: no token can
straddle the border. Only the answer and the token that ends the assistant's turn count in the loss. ``layout`` says in
which order and who sees whom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch.nn import functional

from semanticface.models.answer_tokens import IGNORE_INDEX, AnswerEncoder, AnswerEncoding, LossOn, Numbers
from semanticface.models.inputs import end_token, prompt_tensors, prompt_text
from semanticface.prompts import Prompt

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class Example:
    """One row as the model is to learn it.

    Attributes:
        picture: square RGB crop at the model's image size; None where what the tower saw in it is at hand.
        answer: canonical text (``answer.format_answer``), with or without words.
        loss_on: which part of the answer counts in the loss: the ``analysis``, the ``numbers`` after it
            with their keys, or ``all``.
        features: what the tower saw (``features.SeenTower``), each tensor [1, …].
    """

    picture: Image.Image | None
    answer: str
    loss_on: LossOn = "all"
    features: Mapping[str, torch.Tensor] | None = None


class Collator:
    """Makes a training batch of examples.

    Args:
        processor: of the model to be trained; its tokenizer must be a fast one.
        prompt: what the model is asked.
        numbers: how the 52 numbers are laid out.
        number_weight: weight in the loss of tokens that hold digits of a coefficient; all others weigh 1.
    """

    def __init__(
        self, processor: Any, prompt: Prompt, *, numbers: Numbers = "sequential", number_weight: float = 1.0
    ) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.text = prompt_text(processor, prompt)
        self.parallel = numbers == "parallel"
        end = end_token(processor, prompt)
        self.answer_encoder = AnswerEncoder(self.tokenizer, end, numbers=numbers, number_weight=number_weight)
        pad = self.tokenizer.pad_token_id
        self.pad_id = end if pad is None else pad
        self.template: dict[str, torch.Tensor] | None = None

    def encode_prompts(self, crops: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        """Return the processor's tensors for the prompt with each crop."""
        return prompt_tensors(self.processor, self.text, crops)

    def _prompts(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Return the processor's tensors, or those of the template with the features of each example."""
        shown = [example.picture for example in examples if example.picture is not None]
        if len(shown) == len(examples):
            return dict(self.encode_prompts(shown))
        if self.template is None:
            raise ValueError("examples without pictures need a template")
        # Every row has the tokens of the template, and its pixels are not looked at.
        batch: dict[str, Any] = {
            name: value.repeat(len(examples), *[1] * (value.ndim - 1)) for name, value in self.template.items()
        }
        features = [example.features or {} for example in examples]
        batch["features"] = {name: torch.cat([each[name] for each in features]) for name in features[0]}
        return batch

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return the batch, padded on the right.

        Returns:
            The processor's tensors (``input_ids`` and others shaped like it now span prompt and answer), and
            ``labels`` int64[B, L]: the token each position is to predict, ``IGNORE_INDEX`` where nothing is learnt;
            ``loss_weights`` float32[B, L]: weight of each label in the loss, 0 where there is none;
            ``number_ids`` int64[B, L]: which of the 52 numbers a label is part of, -1 for none;
            and in the parallel layout, for ``to_model_inputs``, ``text_positions`` and ``branch_ids``, int64[B, L].
            Where examples carry features instead of pictures, those too, joined, as a mapping ``features``.
        """
        return self.append_answers(
            self._prompts(examples), [self.answer_encoder(example.answer, example.loss_on) for example in examples]
        )

    def append_answers(self, batch: dict[str, Any], lessons: Sequence[AnswerEncoding]) -> dict[str, Any]:
        """Return a batch of prompts (``encode_prompts``) with a lesson behind each, as ``__call__`` does."""
        batch = dict(batch)
        shape = batch["input_ids"].shape
        longest = max(len(lesson.ids) for lesson in lessons)

        def padded(rows: Sequence[list[Any]], fill: float) -> torch.Tensor:
            width = max(map(len, rows))
            return torch.tensor([row + [fill] * (width - len(row)) for row in rows]).reshape(len(rows), width)

        ids = padded([lesson.ids for lesson in lessons], self.pad_id).long()
        real = padded([[1] * len(lesson.ids) for lesson in lessons], 0).long()
        # What a processor says of each token (Qwen-VL: is it a picture?) is 0 for the words of an answer.
        endings = {"input_ids": ids, "attention_mask": real}
        for name, value in batch.items():
            if isinstance(value, torch.Tensor) and value.shape == shape:
                batch[name] = torch.cat([value, endings.get(name, torch.zeros_like(ids))], dim=1)
        before = (shape[0], shape[1] - 1)  # the prompt's last token predicts the answer's first
        for name, fill in (("labels", IGNORE_INDEX), ("loss_weights", 0.0), ("number_ids", -1)):
            rows = padded([getattr(lesson, name) for lesson in lessons], fill)
            batch[name] = torch.cat([torch.full(before, fill, dtype=rows.dtype), rows], dim=1)
        if self.parallel:
            asked = torch.arange(shape[1]).expand(shape)
            steps = padded([lesson.position_offsets for lesson in lessons], longest).long() + shape[1] - 1
            branches = padded([lesson.branch_ids for lesson in lessons], -1).long()
            batch["text_positions"] = torch.cat([asked, steps], dim=1)
            batch["branch_ids"] = torch.cat([torch.zeros_like(asked), branches], dim=1)
        return batch


def split_targets(batch: dict[str, torch.Tensor]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Split a batch into what the model is given and what is compared with its logits.

    Returns:
        The model's inputs, with ``logits_to_keep`` so that no logits are computed before the answer; and ``labels``,
        ``loss_weights`` and ``number_ids``, each [B, K], aligned with the logits of shape [B, K, vocabulary].
    """
    targets = {name: batch[name] for name in ("labels", "loss_weights", "number_ids")}
    first = int((targets["labels"] != IGNORE_INDEX).any(0).int().argmax())
    inputs: dict[str, Any] = {name: value for name, value in batch.items() if name not in targets}
    inputs["logits_to_keep"] = targets["labels"].shape[1] - first
    return inputs, {name: value[:, first:] for name, value in targets.items()}


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of every label, 0 where it is ``IGNORE_INDEX``.

    Args:
        logits: [B, K, vocabulary], in any float dtype; computed on in float32.
        labels: int64[B, K].

    Returns:
        float32[B, K].
    """
    flat = functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    return flat.view(labels.shape)
