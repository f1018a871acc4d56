"""A batch without padding: its rows one behind the other in a single sequence, each attending to itself alone.

Everything in a language model but attention treats tokens one by one, so padding is computed in vain in all of it, and
so is whatever stands behind the last token of a row that is learnt from. Here rows lie end to end, and `attention`
takes the sequence apart again. Rows keep their order, and what is computed for each token is the same.

Only models whose layers attend to everything before them can be laid out so; ``packed`` compares before it trusts.

Attention over rows that lie end to end in one sequence, each attending to itself alone.

Registered with transformers under ``ATTENTION``, so that any of its decoders can be set to it; ``packing`` and
``speaking`` do.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from semanticface.models.answer_tokens import IGNORE_INDEX, additive_mask, branch_mask, rotary_positions
from semanticface.training.fused_ops import frozen_lm_head

ATTENTION = "semanticface_rows"
_SHORT = 1024
"""Up to so many tokens a CPU is faster with plain products of bfloat16 than with its fused kernels."""
_BLOCK = 128
"""Tokens that look at a time; what comes after them is not computed."""


@dataclass(frozen=True, slots=True, eq=False)
class PackedRows:
    """How the rows of a packed sequence are told apart.

    Attributes:
        lengths: tokens of each row, in order.
        masks: for each row bool[1, 1, length, length], who attends to whom; None where every token attends to all
            before it.
    """

    lengths: tuple[int, ...]
    masks: tuple[torch.Tensor | None, ...]


@functools.lru_cache(maxsize=1)
def _added(rows: PackedRows, dtype: torch.dtype) -> list[torch.Tensor]:
    """What is added to each row's scores, [length, length]; the same in every layer of a step."""
    masks = (
        torch.ones(length, length, dtype=torch.bool).tril() if mask is None else mask[0, 0]
        for length, mask in zip(rows.lengths, rows.masks, strict=True)
    )
    return [additive_mask(mask, dtype) for mask in masks]


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


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    rows: PackedRows,
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


AttentionInterface.register(ATTENTION, packed_attention)


TARGETS = ("labels", "loss_weights", "number_ids")
_STEP = 64
"""Packed sequences are multiples of this, so that libraries which prepare themselves for a shape meet few."""
_TRIED = "brows raised, jaw dropped"
_ALIKE = {torch.float32: 1e-3, torch.bfloat16: 0.05}
"""How far logits may be apart, as a share of their size, when the same is computed in another order."""


def pack(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Lay the rows of a collator's batch end to end.

    Args:
        model: any vision-language model of transformers, wrapped or not; it says where pictures stand.
        batch: from ``collate.Collator``.

    Returns:
        The model's inputs, with ``logits_to_keep`` naming the positions that are learnt from; and ``labels``,
        ``loss_weights`` and ``number_ids`` of those positions, each [K], with ``owners`` int64[K], the row of each.
    """
    batch = dict(batch)
    targets = {name: batch.pop(name) for name in TARGETS}
    shape = batch["input_ids"].shape
    learnt = (targets["labels"] != IGNORE_INDEX) & (targets["loss_weights"] > 0)
    # Nothing that is learnt looks at what stands behind the last token learnt from.
    needed = learnt.flip(1).cummax(1).values.flip(1) & batch["attention_mask"].bool()
    places = torch.arange(shape[1], device=needed.device).expand(shape)
    branches = batch.pop("branch_ids", None)
    positions = rotary_positions(model, batch, batch.pop("text_positions", places))
    inputs: dict[str, Any] = {
        name: value[needed][None] if value.shape == shape else value
        for name, value in batch.items()
        if name != "attention_mask"
    }
    inputs["position_ids"] = positions[..., needed][..., None, :]
    lengths = needed.sum(1).tolist()
    masks = _masks(branches, lengths)
    if spare := -sum(lengths) % _STEP:
        # A last row of no meaning, of answer tokens, since those of pictures are counted.
        for name, value in inputs.items():
            if value.shape[-2:] == (1, sum(lengths)):
                inputs[name] = torch.cat([value, value[..., -1:].expand(*value.shape[:-1], spare)], dim=-1)
        lengths, masks = [*lengths, spare], [*masks, None]
    inputs["rows"] = PackedRows(tuple(lengths), tuple(masks))
    inputs["logits_to_keep"] = learnt[needed].nonzero().flatten()
    found = {name: values[learnt] for name, values in targets.items()}
    return inputs, found | {"owners": learnt.nonzero()[:, 0]}


def _masks(branches: torch.Tensor | None, lengths: list[int]) -> list[torch.Tensor | None]:
    if branches is None:
        return [None] * len(lengths)
    masks: list[torch.Tensor | None] = []
    for row, length in zip(branches, lengths, strict=True):
        own = row[None, :length]
        places = torch.arange(length, device=own.device)[None]
        masks.append(branch_mask(own, own, places) if own.any() else None)
    return masks


class _HiddenStates(torch.nn.Module):
    """In the place of the head, so that a model returns what the head would be given."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


@contextlib.contextmanager
def padding_free(model: Any, tokenizer: Any) -> Iterator[torch.nn.Linear | None]:
    """Make a model take packed batches and return hidden states as its ``logits``, until the block ends.

    Args:
        model: a transformers model, or the PeftModel around it; changed in place, and back.
        tokenizer: its tokenizer.

    Yields:
        The head that turns those hidden states into logits. None, and the model as it was, where its head is no plain
        linear layer, where a layer attends otherwise than to everything before, or where logits come out differently.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head, decoder = frozen_lm_head(base), base.get_decoder()
    kinds = set(getattr(decoder.config, "layer_types", None) or ["full_attention"])
    before = decoder.config._attn_implementation
    if head is None or kinds != {"full_attention"} or before not in ("sdpa", "eager"):
        yield None
        return
    ids = tokenizer(_TRIED, add_special_tokens=False, return_tensors="pt").input_ids.to(head.weight.device)
    lengths = (ids.shape[1], ids.shape[1] - 2)
    padded = {"input_ids": ids.repeat(2, 1), "attention_mask": torch.ones_like(ids).repeat(2, 1)}
    padded["attention_mask"][1, lengths[1] :] = 0
    real = padded["attention_mask"].bool()
    places = torch.cat([torch.arange(length, device=ids.device) for length in lengths])
    laid = {"input_ids": padded["input_ids"][real][None], "position_ids": places[None]}
    training = base.training
    try:
        base.eval()
        with torch.no_grad():
            wanted = base(**padded, use_cache=False).logits[real]
            base.set_output_embeddings(_HiddenStates())
            decoder.set_attn_implementation(ATTENTION)
            hidden = base(**laid, rows=PackedRows(lengths, (None, None)), use_cache=False).logits[0]
            found = functional.linear(hidden, head.weight, head.bias)
        alike = found.shape == wanted.shape and (found - wanted).norm() <= _ALIKE[wanted.dtype] * wanted.norm()
        if not alike:
            base.set_output_embeddings(head)
            decoder.set_attn_implementation(before)
        yield head if alike else None
    finally:
        base.train(training)
        base.set_output_embeddings(head)
        decoder.set_attn_implementation(before)
