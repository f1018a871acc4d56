"""Model inputs from a prompt and pictures, the same in training and inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from semanticface.errors import ModelError
from semanticface.prompts import Prompt, messages

if TYPE_CHECKING:
    from semanticface.models.loading import Bundle

_PLACEHOLDER = "ANSWER"


def prompt_text(processor: Any, prompt: Prompt) -> str:
    """Return the chat up to the assistant's answer, with one image placeholder."""
    return processor.apply_chat_template(messages(prompt), add_generation_prompt=True, tokenize=False)


def prompt_tensors(processor: Any, text: str, pictures: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
    """Return the processor's output for one text with each picture; rows have equal lengths."""
    encoded = processor(images=[[picture] for picture in pictures], text=[text] * len(pictures), return_tensors="pt")
    return dict(encoded)


def prompt_inputs(bundle: Bundle, prompt: Prompt, crops: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
    """Return the model's inputs for each crop, on the model's device and in its dtype.

    Args:
        bundle: the model.
        prompt: from ``load_prompt``.
        crops: square RGB pictures of ``bundle.image_size``.
    """
    inputs = prompt_tensors(bundle.processor, prompt_text(bundle.processor, prompt), crops)
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
        raise ModelError("neither the chat template nor the tokenizer defines how an answer ends: set eos_token.")
    return int(tokenizer.eos_token_id)
