"""LoRA layers in fewer passes over memory: the same products and sums as peft's, one after the other in one buffer.

A layer's answer is W x + scale * B A x. Written as separate operations, the update is computed into one buffer, scaled
into a second and added into a third, once forward and once backward, and in mixed precision its input is converted
twice. For the small layers and long batches of a training those passes cost as much as the update's products.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch.nn import functional


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


def _forward(layer: Linear, name: str, weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
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
def fused(model: torch.nn.Module, dtype: torch.dtype | None = None) -> Iterator[int]:
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
            layer.forward = functools.partial(_forward, layer, names[0], layer.base_layer.weight.to(dtype))  # type: ignore[method-assign]
            changed.append(layer)
    try:
        yield len(changed)
    finally:
        for layer in changed:
            del layer.forward
