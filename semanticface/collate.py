"""Chats to tensors: the prompt as at inference, the answer as labels, and a weight for every token of it.

Prompt and answer are tokenised apart and joined, because that is how an answer comes about at inference: no token can
straddle the border. Only the answer and the token that ends the assistant's turn count in the loss.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from semanticface.arkit import N_ACTIONS
from semanticface.errors import DatasetError, ModelError
from semanticface.prompts import Prompt, messages

if TYPE_CHECKING:
    from semanticface.model import Bundle

IGNORED = -100
"""Label of positions that no loss is taken of, as everywhere in transformers."""

_ARKIT_OPENS = '"arkit":{'
_VALUE = re.compile(r":(-?[0-9.]+)")
_PLACEHOLDER = "ANSWER"


@dataclass(frozen=True, slots=True)
class Example:
    """One row as the model is to learn it.

    Attributes:
        picture: square RGB crop at the model's image size.
        answer: canonical text (``answer.format_answer``).
        learn: which part of the answer counts in the loss: the ``words`` of the analysis, the ``numbers`` after them
            with their keys, or ``all``.
    """

    picture: Image.Image
    answer: str
    learn: Literal["all", "words", "numbers"] = "all"


def prompt_text(processor: Any, prompt: Prompt) -> str:
    """Return the chat up to where the assistant starts to write, with one picture placeholder."""
    return processor.apply_chat_template(messages(prompt), add_generation_prompt=True, tokenize=False)


def _prompt_tensors(processor: Any, text: str, pictures: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
    """Return the processor's output for one text with each picture; all rows have the same length."""
    encoded = processor(images=[[picture] for picture in pictures], text=[text] * len(pictures), return_tensors="pt")
    return dict(encoded)


def prompt_inputs(bundle: Bundle, prompt: Prompt, crops: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
    """Return the model's inputs for asking about each crop, on the model's device and in its dtype.

    Args:
        bundle: the model.
        prompt: from ``load_prompt``.
        crops: square RGB pictures of ``bundle.image_size``.
    """
    inputs = _prompt_tensors(bundle.processor, prompt_text(bundle.processor, prompt), crops)
    return {
        name: value.to(bundle.device, bundle.model.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }


def end_token(processor: Any, prompt: Prompt) -> int:
    """Return the id of the token with which the chat template ends an assistant's turn."""
    tokenizer = processor.tokenizer
    finished = processor.apply_chat_template(messages(prompt, _PLACEHOLDER), tokenize=False)
    after = tokenizer(finished.rpartition(_PLACEHOLDER)[2], add_special_tokens=False).input_ids
    if after and after[0] in tokenizer.all_special_ids:
        return int(after[0])
    if tokenizer.eos_token_id is None:
        raise ModelError("neither the chat template nor the tokenizer says how an answer ends: set eos_token.")
    return int(tokenizer.eos_token_id)


def number_owners(answer: str) -> np.ndarray:
    """Return which of the 52 numbers each character of a canonical answer belongs to.

    Returns:
        int[len(answer)]: 0 to 51 on the digits and the point of a coefficient, -1 elsewhere.

    Raises:
        DatasetError: the text does not hold 52 numbers after ``"arkit":{``.
    """
    owners = np.full(len(answer), -1)
    start = answer.rfind(_ARKIT_OPENS)
    found = list(_VALUE.finditer(answer, start + len(_ARKIT_OPENS))) if start >= 0 else []
    if len(found) != N_ACTIONS:
        raise DatasetError(
            f"an answer holds {len(found)} coefficients, not {N_ACTIONS}: {answer[:80]!r}… "
            "Write the column answer with data_prep/describe.py."
        )
    for number, match in enumerate(found):
        owners[slice(*match.span(1))] = number
    return owners


class Collator:
    """Makes a training batch of examples.

    Args:
        processor: of the model to be trained; its tokenizer must be a fast one.
        prompt: what the model is asked.
        number_weight: weight in the loss of tokens that hold digits of a coefficient; all others weigh 1.
    """

    def __init__(self, processor: Any, prompt: Prompt, *, number_weight: float = 1.0) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.text = prompt_text(processor, prompt)
        self.end = end_token(processor, prompt)
        self.number_weight = number_weight
        pad = self.tokenizer.pad_token_id
        self.pad = self.end if pad is None else pad

    def _answer(self, example: Example) -> tuple[list[int], list[int], list[float]]:
        """Return an answer's token ids, for each the number it belongs to (-1: none), and its weight in the loss."""
        text = example.answer
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        owners = number_owners(text)
        numbers = [int(owners[start:end].max(initial=-1)) for start, end in encoded["offset_mapping"]]
        border = text.rfind(_ARKIT_OPENS)
        after = [end > border for _, end in encoded["offset_mapping"]] + [True]
        learnt = {"all": (True, False), "words": (False,), "numbers": (True,)}[example.learn]
        weights = [
            (self.number_weight if number >= 0 else 1.0) if place in learnt else 0.0
            for number, place in zip([*numbers, -1], after, strict=True)
        ]
        return [*encoded["input_ids"], self.end], [*numbers, -1], weights

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return the batch, padded on the right.

        Returns:
            The processor's tensors (``input_ids`` and others shaped like it now span prompt and answer), and
            ``labels`` int64[B, L]: the answer and its end token, ``IGNORED`` elsewhere;
            ``weights`` float32[B, L]: weight of each label in the loss, 0 where there is none;
            ``numbers`` int64[B, L]: which of the 52 numbers a label is part of, -1 for none.
        """
        batch = _prompt_tensors(self.processor, self.text, [example.picture for example in examples])
        shape = batch["input_ids"].shape
        answers = [self._answer(example) for example in examples]
        longest = max(len(ids) for ids, _, _ in answers)

        def padded(rows: Sequence[list[Any]], fill: float) -> torch.Tensor:
            return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])

        ids = padded([ids for ids, _, _ in answers], self.pad)
        numbers = padded([numbers for _, numbers, _ in answers], -1)
        weights = padded([weights for _, _, weights in answers], 0.0)
        real = padded([[1] * len(ids) for ids, _, _ in answers], 0)
        # What a processor says of each token (Qwen-VL: is it a picture?) is 0 for the words of an answer.
        endings = {"input_ids": ids, "attention_mask": real}
        for name, value in batch.items():
            if value.shape == shape:
                batch[name] = torch.cat([value, endings.get(name, torch.zeros_like(ids))], dim=1)
        before = torch.full(shape, IGNORED)
        batch["labels"] = torch.cat([before, ids.masked_fill(real == 0, IGNORED)], dim=1)
        batch["weights"] = torch.cat([torch.zeros(shape), weights], dim=1)
        batch["numbers"] = torch.cat([torch.full(shape, -1), numbers], dim=1)
        return batch


def split_targets(batch: dict[str, torch.Tensor]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Split a batch into what the model is given and what is compared with its logits.

    Returns:
        The model's inputs, with ``logits_to_keep`` so that no logits are computed for the prompt; and ``labels``,
        ``weights`` and ``numbers``, each [B, K], aligned with ``logits[:, :-1]`` of shape [B, K, vocabulary].
    """
    targets = {name: batch[name] for name in ("labels", "weights", "numbers")}
    first = int((targets["labels"] != IGNORED).any(0).int().argmax())
    inputs: dict[str, Any] = {name: value for name, value in batch.items() if name not in targets}
    inputs["logits_to_keep"] = targets["labels"].shape[1] - first + 1
    return inputs, {name: value[:, first:] for name, value in targets.items()}


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of every label, 0 where it is ``IGNORED``.

    Args:
        logits: [B, K, vocabulary], in any float dtype; computed on in float32.
        labels: int64[B, K].

    Returns:
        float32[B, K].
    """
    flat = functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return flat.view(labels.shape)
