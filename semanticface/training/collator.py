"""Turns examples into training batches: the prompt as at inference, the answer as labels, and a loss weight per token.

Prompt and answer are tokenised separately and concatenated, as happens at inference, so no token straddles the border.
Only the answer and the token that ends the assistant's turn are labels. ``models.answer_tokens`` defines the token
order and the attention mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch.nn import functional

from semanticface.models.answer_tokens import IGNORE_INDEX, AnswerEncoder, AnswerEncoding, LossOn, Numbers
from semanticface.models.inputs import end_token, prompt_tensors, prompt_text
from semanticface.prompts import Prompt


@dataclass(frozen=True, slots=True)
class Example:
    """One training example.

    Attributes:
        picture: square RGB crop at the model's image size; None where vision features are cached.
        answer: canonical text (``answer.format_answer``), with or without analysis.
        loss_on: the part of the answer that counts in the loss: the ``analysis``, the ``numbers`` with their
            keys, or ``all``.
        features: cached vision features (``vision_cache.CachedVisionEncoder``), each tensor [1, …].
    """

    picture: Image.Image | None
    answer: str
    loss_on: LossOn = "all"
    features: Mapping[str, torch.Tensor] | None = None


class Collator:
    """Makes training batches.

    Args:
        processor: of the model to train; its tokenizer must be a fast one.
        prompt: the prompt.
        numbers: layout of the 52 numbers.
        number_weight: loss weight of tokens that hold digits of a coefficient; all others weigh 1.

    Attributes:
        template: the processor's tensors for the prompt with one picture, for examples with cached features.
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
        """Return the processor's tensors, or the template's with the cached features of each example."""
        pictures = [example.picture for example in examples if example.picture is not None]
        if len(pictures) == len(examples):
            return dict(self.encode_prompts(pictures))
        if self.template is None:
            raise ValueError("examples without pictures need a template")
        # The template's pixels are ignored: the vision encoder returns the cached features.
        batch: dict[str, Any] = {
            name: value.repeat(len(examples), *[1] * (value.ndim - 1)) for name, value in self.template.items()
        }
        features = [example.features or {} for example in examples]
        batch["features"] = {name: torch.cat([each[name] for each in features]) for name in features[0]}
        return batch

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return the batch, padded on the right.

        Returns:
            The processor's tensors, those shaped like ``input_ids`` extended by the answer, and
            ``labels`` int64[B, L]: the token each position predicts, ``IGNORE_INDEX`` where there is none;
            ``loss_weights`` float32[B, L]: weight of each label in the loss, 0 where there is none;
            ``number_ids`` int64[B, L]: which of the 52 numbers a label belongs to, -1 for none;
            in the parallel layout ``text_positions`` and ``branch_ids``, int64[B, L], for
            ``answer_tokens.to_model_inputs``;
            with cached features the mapping ``features``.
        """
        return self.append_answers(
            self._prompts(examples), [self.answer_encoder(example.answer, example.loss_on) for example in examples]
        )

    def append_answers(self, batch: dict[str, Any], encodings: Sequence[AnswerEncoding]) -> dict[str, Any]:
        """Append an answer to each prompt of a batch (``encode_prompts``); returns what ``__call__`` does."""
        batch = dict(batch)
        shape = batch["input_ids"].shape
        longest = max(len(each.ids) for each in encodings)

        def padded(rows: Sequence[list[Any]], fill: float) -> torch.Tensor:
            width = max(map(len, rows))
            return torch.tensor([row + [fill] * (width - len(row)) for row in rows]).reshape(len(rows), width)

        ids = padded([each.ids for each in encodings], self.pad_id).long()
        attended = padded([[1] * len(each.ids) for each in encodings], 0).long()
        # Other per-token tensors, such as Qwen-VL's mm_token_type_ids, are 0 for text.
        suffixes = {"input_ids": ids, "attention_mask": attended}
        for name, value in batch.items():
            if isinstance(value, torch.Tensor) and value.shape == shape:
                batch[name] = torch.cat([value, suffixes.get(name, torch.zeros_like(ids))], dim=1)
        before = (shape[0], shape[1] - 1)  # the prompt's last token predicts the answer's first
        for name, fill in (("labels", IGNORE_INDEX), ("loss_weights", 0.0), ("number_ids", -1)):
            rows = padded([getattr(each, name) for each in encodings], fill)
            batch[name] = torch.cat([torch.full(before, fill, dtype=rows.dtype), rows], dim=1)
        if self.parallel:
            prompt_positions = torch.arange(shape[1]).expand(shape)
            positions = padded([each.position_offsets for each in encodings], longest).long() + shape[1] - 1
            branch_ids = padded([each.branch_ids for each in encodings], -1).long()
            batch["text_positions"] = torch.cat([prompt_positions, positions], dim=1)
            batch["branch_ids"] = torch.cat([torch.zeros_like(prompt_positions), branch_ids], dim=1)
        return batch


def split_targets(batch: dict[str, torch.Tensor]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Split a batch into model inputs and targets.

    Returns:
        The inputs, with ``logits_to_keep`` so that no logits are computed before the answer; and ``labels``,
        ``loss_weights`` and ``number_ids``, each [B, K], aligned with the logits [B, K, V].
    """
    targets = {name: batch[name] for name in ("labels", "loss_weights", "number_ids")}
    first = int((targets["labels"] != IGNORE_INDEX).any(0).int().argmax())
    inputs: dict[str, Any] = {name: value for name, value in batch.items() if name not in targets}
    inputs["logits_to_keep"] = targets["labels"].shape[1] - first
    return inputs, {name: value[:, first:] for name, value in targets.items()}


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of every label, computed in float32; 0 where it is ``IGNORE_INDEX``.

    Args:
        logits: [B, K, V], any float dtype.
        labels: int64[B, K].

    Returns:
        float32[B, K].
    """
    flat = functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    return flat.view(labels.shape)
