"""Attention over rows that lie end to end in one sequence, each attending to itself alone.

Registered with transformers under ``ATTENTION``, so that any of its decoders can be set to it; ``packing`` and
``speaking`` do.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from semanticface.models.answer_tokens import additive

ATTENTION = "semanticface_rows"
_SHORT = 1024
"""Up to so many tokens a CPU is faster with plain products of bfloat16 than with its fused kernels."""
_BLOCK = 128
"""Tokens that look at a time; what comes after them is not computed."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """How the rows of a packed sequence are told apart.

    Attributes:
        lengths: tokens of each row, in order.
        masks: for each row bool[1, 1, length, length], who attends to whom; None where every token attends to all
            before it.
    """

    lengths: tuple[int, ...]
    masks: tuple[torch.Tensor | None, ...]


@functools.lru_cache(maxsize=1)
def _added(rows: Rows, dtype: torch.dtype) -> list[torch.Tensor]:
    """What is added to each row's scores, [length, length]; the same in every layer of a step."""
    masks = (
        torch.ones(length, length, dtype=torch.bool).tril() if mask is None else mask[0, 0]
        for length, mask in zip(rows.lengths, rows.masks, strict=True)
    )
    return [additive(mask, dtype) for mask in masks]


def _products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, added: torch.Tensor, scale: float
) -> torch.Tensor:
    """Attention of one row as products, the heads that share a key in one, block by block: none looks ahead."""
    heads, groups, length, width = query.shape[1], key.shape[1], query.shape[2], query.shape[3]
    shared = heads // groups
    heard = []
    for start in range(0, length, _BLOCK):
        end = min(start + _BLOCK, length)
        looking = query[:, :, start:end].reshape(groups, -1, width)
        bias = added[start:end, :end].repeat(shared, 1).expand(groups, -1, -1)
        weights = torch.baddbmm(bias, looking, key[0, :, :end].transpose(1, 2), alpha=scale).softmax(-1)
        heard.append(torch.bmm(weights, value[0, :, :end]).view(1, heads, end - start, width))
    return torch.cat(heard, dim=2)


def attend_within_rows(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    rows: Rows,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers asks for it (query [1, heads, T, width]), row by row."""
    device, given = query.device.type, value.dtype
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else given
    quick = device == "cpu" and dtype == torch.bfloat16 and not dropout and max(rows.lengths) <= _SHORT
    if device == "cpu" and not quick:
        # The fused kernels of CPUs take several times as long in bfloat16.
        dtype = torch.float32
    with torch.autocast(device, enabled=False):
        split = (states.to(dtype).split(rows.lengths, dim=2) for states in (query, key, value))
        apart = zip(*split, strict=True)
        if quick:
            scale = query.shape[-1] ** -0.5 if scaling is None else scaling
            heard = [
                _products(q, k, v, bias, scale) for (q, k, v), bias in zip(apart, _added(rows, dtype), strict=True)
            ]
        else:
            grouped = query.shape[1] != key.shape[1]
            heard = [
                functional.scaled_dot_product_attention(
                    q,
                    k,
                    v,
                    attn_mask=mask,
                    dropout_p=dropout,
                    is_causal=mask is None,
                    scale=scaling,
                    enable_gqa=grouped,
                )
                for (q, k, v), mask in zip(apart, rows.masks, strict=True)
            ]
    return torch.cat(heard, dim=2).transpose(1, 2).to(given), None


AttentionInterface.register(ATTENTION, attend_within_rows)
