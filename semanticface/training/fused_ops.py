"""The loss of an answer without its logits: the vocabulary's scores exist for a few tokens at a time, never as a whole.

For 152,000 tokens of vocabulary and a batch of 8 answers the logits alone are gigabytes, and so is their gradient. Yet
all that training needs of them is one number and the gradient of the hidden states, which is the size of the hidden
states; both are computed block by block in the forward pass, in buffers used again for every block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

_BLOCK = 1 << 24
"""Scores held at once: 64 MB in float32. Larger blocks are no faster (measured for 152,000 and for 862 tokens)."""


def plain_head(model: Any) -> torch.nn.Linear | None:
    """Return the frozen linear layer that scores the vocabulary, None where it is anything else.

    Args:
        model: a transformers model; a layer in 4 bits or with an adapter on it is not plain.
    """
    head = model.get_output_embeddings()
    config = model.config.get_text_config()
    # The others are found by comparing logits; this one hardly bends the small scores of an untrained model.
    bent = getattr(config, "final_logit_softcapping", None) is not None
    plain = type(head) is torch.nn.Linear and not any(each.requires_grad for each in head.parameters())
    return head if plain and not bent else None


def _blocks(count: int, width: int) -> list[slice]:
    step = max(1, min(count, _BLOCK // width))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


class _WeightedLoss(torch.autograd.Function):
    """Cross-entropy in the forward pass together with its gradient, which the backward pass only scales."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        learning = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if learning else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for part, scores in _scored(hidden, weight, bias):
            chosen, counts = labels[part, None], weights[part, None].float()
            wanted = scores.gather(1, chosen)
            highest = scores.amax(1, keepdim=True)
            torch.softmax(scores, 1, out=scores)
            # The likeliest token's probability is 1 / sum(exp(score - highest)): no pass more for the log of the sum.
            spread = highest - scores.amax(1, keepdim=True).log()
            total += ((spread - wanted) * counts).sum()
            if gradient is not None:
                scores.scatter_add_(1, chosen, -torch.ones_like(wanted))
                gradient[part] = scores.to(weight.dtype).mm(weight) * counts
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * scale, None, None, None, None


def _scored(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> Any:
    """Yield blocks of tokens and their scores in float32; the buffer is the same every time."""
    blocks = _blocks(len(hidden), len(weight))
    if not blocks:
        return
    shape = (blocks[0].stop, len(weight))
    rough = torch.empty(shape, dtype=weight.dtype, device=hidden.device)
    exact = rough if rough.dtype == torch.float32 else torch.empty(shape, dtype=torch.float32, device=hidden.device)
    for part in blocks:
        length = part.stop - part.start
        torch.mm(hidden[part].to(weight.dtype), weight.t(), out=rough[:length])
        scores = exact[:length]
        if scores.dtype != rough.dtype:
            scores.copy_(rough[:length])
        if bias is not None:
            scores += bias
        yield part, scores


def weighted_loss(
    hidden: torch.Tensor,
    head: torch.nn.Linear,
    labels: torch.Tensor,
    weights: torch.Tensor,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Return sum(weight * cross-entropy) of tokens, differentiable by their hidden states.

    Args:
        hidden: [N, width], what the head is given, in any float dtype.
        head: frozen.
        labels: int64[N], none of them ``IGNORED``.
        weights: float32[N].
        dtype: what scores are computed in and rounded to, all else being float32; None for the head's own.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        return _WeightedLoss.apply(hidden, head.weight.to(dtype), head.bias, labels, weights)


@dataclass(frozen=True, slots=True)
class Guesses:
    """What a model says.

    Attributes:
        losses: float32[N], cross-entropy of each label.
        tokens: int64[N], the likeliest token at each place.
    """

    losses: torch.Tensor
    tokens: torch.Tensor


@torch.no_grad()
def guess(
    hidden: torch.Tensor, head: torch.nn.Linear, labels: torch.Tensor, dtype: torch.dtype | None = None
) -> Guesses:
    """Return what a model says at each place, and how far from the label; arguments as for ``weighted_loss``."""
    losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    tokens = torch.empty_like(labels)
    with torch.autocast(hidden.device.type, enabled=False):
        for part, scores in _scored(hidden, head.weight.to(dtype), head.bias):
            losses[part] = functional.cross_entropy(scores, labels[part], reduction="none")
            tokens[part] = scores.argmax(1)
    return Guesses(losses, tokens)
