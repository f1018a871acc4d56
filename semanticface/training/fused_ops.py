"""The loss of an answer without its logits: the vocabulary's scores exist for a few tokens at a time, never as a whole.

For 152,000 tokens of vocabulary and a batch of 8 answers the logits alone are gigabytes, and so is their gradient. Yet
all that training needs of them is one number and the gradient of the hidden states, which is the size of the hidden
states; both are computed block by block in the forward pass, in buffers used again for every block.

LoRA layers in fewer passes over memory: the same products and sums as peft's, one after the other in one buffer.

A layer's answer is W x + scale * B A x. Written as separate operations, the update is computed into one buffer, scaled
into a second and added into a third, once forward and once backward, and in mixed precision its input is converted
twice. For the small layers and long batches of a training those passes cost as much as the update's products.

RMS norms in fewer passes over memory, for models whose own are frozen.

Written as separate operations, as models of transformers do, a norm and its gradient read and write the hidden states
a dozen times; on a CPU that is a tenth of the training of a small model.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch.nn import functional

_BLOCK = 1 << 24
"""Scores held at once: 64 MB in float32. Larger blocks are no faster (measured for 152,000 and for 862 tokens)."""


def frozen_lm_head(model: Any) -> torch.nn.Linear | None:
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


def chunked_cross_entropy(
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
        labels: int64[N], none of them ``IGNORE_INDEX``.
        weights: float32[N].
        dtype: what scores are computed in and rounded to, all else being float32; None for the head's own.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        return _WeightedLoss.apply(hidden, head.weight.to(dtype), head.bias, labels, weights)


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a model says.

    Attributes:
        losses: float32[N], cross-entropy of each label.
        tokens: int64[N], the likeliest token at each place.
    """

    losses: torch.Tensor
    tokens: torch.Tensor


@torch.no_grad()
def chunked_argmax(
    hidden: torch.Tensor, head: torch.nn.Linear, labels: torch.Tensor, dtype: torch.dtype | None = None
) -> Predictions:
    """Return what a model says at each place, and how far from the label (see ``chunked_cross_entropy``)."""
    losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    tokens = torch.empty_like(labels)
    with torch.autocast(hidden.device.type, enabled=False):
        for part, scores in _scored(hidden, head.weight.to(dtype), head.bias):
            losses[part] = functional.cross_entropy(scores, labels[part], reduction="none")
            tokens[part] = scores.argmax(1)
    return Predictions(losses, tokens)


class _Adapted(torch.autograd.Function):
    """W x + bias + scale * B A dropout(x), with gradients of x, A and B."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
        dropout: float,
    ) -> torch.Tensor:
        device = inputs.device.type
        ctx.dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else inputs.dtype
        with torch.autocast(device, enabled=False):
            flat = inputs.reshape(-1, inputs.shape[-1]).to(ctx.dtype)
            seen, kept = torch.native_dropout(flat, dropout, True) if dropout else (flat, None)
            answer = functional.linear(flat, weight.to(ctx.dtype), None if bias is None else bias.to(ctx.dtype))
            narrow = seen.mm(down.t().to(ctx.dtype))
            answer.addmm_(narrow, up.t().to(ctx.dtype), alpha=scale)
        ctx.save_for_backward(weight, down, up, seen, kept, narrow)
        ctx.scale, ctx.dropout, ctx.given = scale, dropout, inputs.dtype
        return answer.view(*inputs.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, direction: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, down, up, seen, kept, narrow = ctx.saved_tensors
        with torch.autocast(direction.device.type, enabled=False):
            flat = direction.reshape(-1, direction.shape[-1]).to(ctx.dtype)
            through = flat.mm(up.to(ctx.dtype))
            found = None
            if ctx.needs_input_grad[0]:
                found = flat.mm(weight.to(ctx.dtype))
                if kept is None:
                    found.addmm_(through, down.to(ctx.dtype), alpha=ctx.scale)
                else:
                    found.addcmul_(through.mm(down.to(ctx.dtype)), kept, value=ctx.scale / (1 - ctx.dropout))
                found = found.to(ctx.given).view(*direction.shape[:-1], -1)
            of_down = through.t().mm(seen).to(down.dtype).mul_(ctx.scale)
            of_up = flat.t().mm(narrow).to(up.dtype).mul_(ctx.scale)
        return found, None, None, of_down, of_up, None, None


def _lora_forward(layer: Linear, name: str, weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    base, dropout = layer.base_layer, layer.lora_dropout[name]
    rate = dropout.p if layer.training and isinstance(dropout, torch.nn.Dropout) else 0.0
    return _Adapted.apply(
        inputs,
        weight,
        base.bias,
        layer.lora_A[name].weight,
        layer.lora_B[name].weight,
        layer.scaling[name],
        rate,
    )


@contextlib.contextmanager
def fused_lora(model: torch.nn.Module, dtype: torch.dtype | None = None) -> Iterator[int]:
    """Compute a PeftModel's LoRA layers so until the block ends; yields how many.

    Args:
        model: changed in place, and back.
        dtype: what products will be computed in. Frozen weights are converted to it here, once, and not every time.

    Layers whose base is in 4 bits, and any that hold more than one plain adapter, stay peft's.
    """
    changed = []
    for layer in model.modules():
        if not isinstance(layer, Linear) or type(layer.base_layer) is not torch.nn.Linear:
            continue
        names = layer.active_adapters
        if len(names) == 1 and not layer.merged and not layer.lora_variant and not layer.lora_bias[names[0]]:
            layer.forward = functools.partial(_lora_forward, layer, names[0], layer.base_layer.weight.to(dtype))  # type: ignore[method-assign]
            changed.append(layer)
    try:
        yield len(changed)
    finally:
        for layer in changed:
            del layer.forward


class _Normed(torch.autograd.Function):
    """weight * x / sqrt(mean(x^2) + epsilon), computed in float32 and rounded to the dtype of x before the product."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        exact = inputs.float()
        length = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        shrink = length.square_().div_(inputs.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(inputs, weight, shrink)
        return weight * (exact * shrink).to(inputs.dtype)

    @staticmethod
    def backward(ctx: Any, direction: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, weight, shrink = ctx.saved_tensors
        exact = inputs.float()
        found = direction.float() * weight
        along = (found * exact).sum(-1, keepdim=True).mul_(shrink.pow(3)).div_(-inputs.shape[-1])
        return found.mul_(shrink).addcmul_(exact, along).to(inputs.dtype), None, None


def _same(norm: Any) -> bool:
    """Whether a module computes what ``_Normed`` does, looked at on random numbers."""
    weight, epsilon = getattr(norm, "weight", None), getattr(norm, "variance_epsilon", None)
    if not isinstance(weight, torch.Tensor) or weight.ndim != 1 or weight.requires_grad or epsilon is None:
        return False
    tried = torch.linspace(-3, 3, 2 * len(weight), device=weight.device).view(1, 2, -1)
    with torch.no_grad():
        wanted, found = norm(tried), _Normed.apply(tried, weight, epsilon)
    return wanted.dtype == found.dtype and torch.allclose(wanted, found, rtol=1e-5, atol=1e-6)


@contextlib.contextmanager
def fused_rms_norm(model: torch.nn.Module) -> Iterator[int]:
    """Compute a model's frozen RMS norms so until the block ends, where they are what they seem; yields how many."""
    changed: list[Any] = [
        module for module in model.modules() if type(module).__name__.endswith("RMSNorm") and _same(module)
    ]
    for norm in changed:
        norm.forward = functools.partial(_norm_forward, norm)
    try:
        yield len(changed)
    finally:
        for norm in changed:
            del norm.forward


def _norm_forward(norm: Any, inputs: torch.Tensor) -> torch.Tensor:
    return _Normed.apply(inputs, norm.weight, norm.variance_epsilon)
