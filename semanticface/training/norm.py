"""RMS norms in fewer passes over memory, for models whose own are frozen.

Written as separate operations, as models of transformers do, a norm and its gradient read and write the hidden states
a dozen times; on a CPU that is a tenth of the training of a small model.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch


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
def fused_norms(model: torch.nn.Module) -> Iterator[int]:
    """Compute a model's frozen RMS norms so until the block ends, where they are what they seem; yields how many."""
    changed: list[Any] = [
        module for module in model.modules() if type(module).__name__.endswith("RMSNorm") and _same(module)
    ]
    for norm in changed:
        norm.forward = functools.partial(_forward, norm)
    try:
        yield len(changed)
    finally:
        for norm in changed:
            del norm.forward


def _forward(norm: Any, inputs: torch.Tensor) -> torch.Tensor:
    return _Normed.apply(inputs, norm.weight, norm.variance_epsilon)
