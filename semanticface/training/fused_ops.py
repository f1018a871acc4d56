"""Loss, LoRA and RMSNorm with fewer passes over memory than the separate operations of PyTorch, PEFT and transformers.

- ``chunked_cross_entropy``, ``chunked_argmax``: for a vocabulary of 152,000 and a batch of 8 answers, logits and their
  gradient take gigabytes each. Training needs only the loss and the gradient of the hidden states; the forward pass
  computes both chunk by chunk in reused buffers.
- ``fused_lora``: PEFT computes the update scale * B A x into one buffer, scales it into a second and adds it from a
  third, forward and backward, and converts the input twice in mixed precision. For small layers and long batches that
  costs as much as the matrix products. Here products and sums go into one buffer.
- ``fused_rms_norm``: frozen RMS norms as one operation. Written separately, a norm and its gradient read and write the
  hidden states a dozen times, on a CPU a tenth of the training time of a small model.
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

_CHUNK = 1 << 24
"""Logits held at once: 64 MB in float32. Larger chunks are no faster (measured for 152,000 and for 862 tokens)."""


def frozen_lm_head(model: Any) -> torch.nn.Linear | None:
    """Return a transformers model's LM head; None unless it is a frozen, unquantised, unadapted linear layer."""
    head = model.get_output_embeddings()
    config = model.config.get_text_config()
    # Comparing logits reveals other transformations, but softcapping hardly changes an untrained model's small logits.
    softcapped = getattr(config, "final_logit_softcapping", None) is not None
    frozen = type(head) is torch.nn.Linear and not any(each.requires_grad for each in head.parameters())
    return head if frozen and not softcapped else None


def _logit_chunks(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield slices of tokens and their logits float32[n, V], in a buffer that the next chunk overwrites."""
    count, vocabulary = len(hidden), len(weight)
    step = max(1, min(count, _CHUNK // vocabulary))
    if not count:
        return
    shape = (step, vocabulary)
    products = torch.empty(shape, dtype=weight.dtype, device=hidden.device)
    exact = products.dtype == torch.float32
    buffer = products if exact else torch.empty(shape, dtype=torch.float32, device=hidden.device)
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        length = part.stop - start
        torch.mm(hidden[part].to(weight.dtype), weight.t(), out=products[:length])
        logits = buffer[:length]
        if not exact:
            logits.copy_(products[:length])
        if bias is not None:
            logits += bias
        yield part, logits


class _WeightedCrossEntropy(torch.autograd.Function):
    """Computes the gradient in the forward pass; the backward pass only scales it."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        loss_weights: torch.Tensor,
    ) -> torch.Tensor:
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for part, logits in _logit_chunks(hidden, weight, bias):  # [n, V]
            label, token_weight = labels[part, None], loss_weights[part, None].float()  # [n, 1]
            label_logit = logits.gather(1, label)
            highest = logits.amax(1, keepdim=True)
            probs = torch.softmax(logits, 1, out=logits)
            # The largest probability is 1 / sum(exp(logit - highest)), which saves a pass for logsumexp.
            log_sum = highest - probs.amax(1, keepdim=True).log()
            total += ((log_sum - label_logit) * token_weight).sum()
            if gradient is not None:
                probs.scatter_add_(1, label, -torch.ones_like(label_logit))
                gradient[part] = probs.to(weight.dtype).mm(weight) * token_weight
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad, None, None, None, None


def chunked_cross_entropy(
    hidden: torch.Tensor,
    head: torch.nn.Linear,
    labels: torch.Tensor,
    weights: torch.Tensor,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Return sum(weight * cross-entropy), differentiable with respect to the hidden states.

    Args:
        hidden: [N, width], inputs of the head, any float dtype.
        head: frozen LM head.
        labels: int64[N], none of them ``IGNORE_INDEX``.
        weights: float32[N].
        dtype: dtype in which logits are computed and rounded, all else being float32; None for the head's own.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        return _WeightedCrossEntropy.apply(hidden, head.weight.to(dtype), head.bias, labels, weights)


@dataclass(frozen=True, slots=True)
class Predictions:
    """A model's predictions.

    Attributes:
        losses: float32[N], cross-entropy of each label.
        tokens: int64[N], most likely token of each position.
    """

    losses: torch.Tensor
    tokens: torch.Tensor


@torch.no_grad()
def chunked_argmax(
    hidden: torch.Tensor, head: torch.nn.Linear, labels: torch.Tensor, dtype: torch.dtype | None = None
) -> Predictions:
    """Return loss and most likely token of each position; arguments as for ``chunked_cross_entropy``."""
    losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    tokens = torch.empty_like(labels)
    with torch.autocast(hidden.device.type, enabled=False):
        for part, logits in _logit_chunks(hidden, head.weight.to(dtype), head.bias):
            losses[part] = functional.cross_entropy(logits, labels[part], reduction="none")
            tokens[part] = logits.argmax(1)
    return Predictions(losses, tokens)


class _LoraLinear(torch.autograd.Function):
    """W x + bias + scale * B A dropout(x), with gradients of x, A and B."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        lora_a: torch.Tensor,
        lora_b: torch.Tensor,
        scale: float,
        dropout: float,
    ) -> torch.Tensor:
        device = inputs.device.type
        ctx.dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else inputs.dtype
        with torch.autocast(device, enabled=False):
            x = inputs.reshape(-1, inputs.shape[-1]).to(ctx.dtype)  # [N, in]
            dropped, mask = torch.native_dropout(x, dropout, True) if dropout else (x, None)
            output = functional.linear(x, weight.to(ctx.dtype), None if bias is None else bias.to(ctx.dtype))
            low_rank = dropped.mm(lora_a.t().to(ctx.dtype))  # [N, r]
            output.addmm_(low_rank, lora_b.t().to(ctx.dtype), alpha=scale)  # [N, out]
        ctx.save_for_backward(weight, lora_a, lora_b, dropped, mask, low_rank)
        ctx.scale, ctx.dropout, ctx.input_dtype = scale, dropout, inputs.dtype
        return output.view(*inputs.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, lora_a, lora_b, dropped, mask, low_rank = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            flat = grad.reshape(-1, grad.shape[-1]).to(ctx.dtype)  # [N, out]
            grad_low_rank = flat.mm(lora_b.to(ctx.dtype))  # [N, r], not yet scaled
            grad_input = None
            if ctx.needs_input_grad[0]:
                grad_input = flat.mm(weight.to(ctx.dtype))
                if mask is None:
                    grad_input.addmm_(grad_low_rank, lora_a.to(ctx.dtype), alpha=ctx.scale)
                else:
                    grad_input.addcmul_(
                        grad_low_rank.mm(lora_a.to(ctx.dtype)), mask, value=ctx.scale / (1 - ctx.dropout)
                    )
                grad_input = grad_input.to(ctx.input_dtype).view(*grad.shape[:-1], -1)
            grad_a = grad_low_rank.t().mm(dropped).to(lora_a.dtype).mul_(ctx.scale)
            grad_b = flat.t().mm(low_rank).to(lora_b.dtype).mul_(ctx.scale)
        return grad_input, None, None, grad_a, grad_b, None, None


def _lora_forward(layer: Linear, adapter: str, weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    dropout = layer.lora_dropout[adapter]
    return _LoraLinear.apply(
        inputs,
        weight,
        layer.base_layer.bias,
        layer.lora_A[adapter].weight,
        layer.lora_B[adapter].weight,
        layer.scaling[adapter],
        dropout.p if layer.training and isinstance(dropout, torch.nn.Dropout) else 0.0,
    )


@contextlib.contextmanager
def fused_lora(model: torch.nn.Module, dtype: torch.dtype | None = None) -> Iterator[int]:
    """Fuse a PeftModel's LoRA layers inside the block; yields how many.

    4-bit base layers and layers with more than one plain adapter stay PEFT's.

    Args:
        model: changed in place, and restored.
        dtype: dtype of the products; frozen weights are converted to it once, here.
    """
    fused = []
    for layer in model.modules():
        if not isinstance(layer, Linear) or type(layer.base_layer) is not torch.nn.Linear:
            continue
        names = layer.active_adapters
        if len(names) == 1 and not layer.merged and not layer.lora_variant and not layer.lora_bias[names[0]]:
            layer.forward = functools.partial(_lora_forward, layer, names[0], layer.base_layer.weight.to(dtype))  # type: ignore[method-assign]
            fused.append(layer)
    try:
        yield len(fused)
    finally:
        for layer in fused:
            del layer.forward


class _RMSNorm(torch.autograd.Function):
    """weight * x / sqrt(mean(x^2) + epsilon), computed in float32 and rounded to the dtype of x before the product."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        x = inputs.float()
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse_rms = norm.square_().div_(inputs.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(inputs, weight, inverse_rms)
        return weight * (x * inverse_rms).to(inputs.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, weight, inverse_rms = ctx.saved_tensors
        x = inputs.float()
        weighted = grad.float() * weight
        along_x = (weighted * x).sum(-1, keepdim=True).mul_(inverse_rms.pow(3)).div_(-inputs.shape[-1])
        return weighted.mul_(inverse_rms).addcmul_(x, along_x).to(inputs.dtype), None, None


def _is_frozen_rms_norm(norm: Any) -> bool:
    """Whether a module is frozen and computes what ``_RMSNorm`` does, checked on sample inputs."""
    weight, epsilon = getattr(norm, "weight", None), getattr(norm, "variance_epsilon", None)
    if not isinstance(weight, torch.Tensor) or weight.ndim != 1 or weight.requires_grad or epsilon is None:
        return False
    sample = torch.linspace(-3, 3, 2 * len(weight), device=weight.device).view(1, 2, -1)
    with torch.no_grad():
        expected, found = norm(sample), _RMSNorm.apply(sample, weight, epsilon)
    return expected.dtype == found.dtype and torch.allclose(expected, found, rtol=1e-5, atol=1e-6)


def _norm_forward(norm: Any, inputs: torch.Tensor) -> torch.Tensor:
    return _RMSNorm.apply(inputs, norm.weight, norm.variance_epsilon)


@contextlib.contextmanager
def fused_rms_norm(model: torch.nn.Module) -> Iterator[int]:
    """Fuse a model's frozen RMS norms inside the block; yields how many."""
    fused: list[Any] = [
        module
        for module in model.modules()
        if type(module).__name__.endswith("RMSNorm") and _is_frozen_rms_norm(module)
    ]
    for norm in fused:
        norm.forward = functools.partial(_norm_forward, norm)
    try:
        yield len(fused)
    finally:
        for norm in fused:
            del norm.forward
