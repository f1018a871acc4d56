"""Padding-free batches: rows are concatenated into one sequence, and each attends to itself alone.

Outside attention a language model treats tokens one by one, so it computes padding, and tokens behind a row's last
label, in vain. ``pack`` leaves both out. ``packed_attention``, registered with transformers as ``ATTENTION``, splits
the sequence into its rows again. Rows keep their order, and every token gets the same result as in a padded batch.

This holds only for models whose layers all use full causal attention; ``padding_free`` compares logits before it
changes a model.
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
TARGETS = ("labels", "loss_weights", "number_ids")
_SHORT = 1024
"""Up to this row length a CPU is faster with plain bfloat16 products than with its fused kernels."""
_BLOCK = 128
"""Queries computed together by plain products; keys behind the block are skipped."""
_MULTIPLE = 64
"""Packed lengths are multiples of this, so that libraries which tune themselves to a shape meet few shapes."""
_SAMPLE = "brows raised, jaw dropped"
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05}
"""Relative difference allowed between logits computed in another order."""


@dataclass(frozen=True, slots=True, eq=False)
class PackedRows:
    """The rows of a packed sequence.

    Attributes:
        lengths: tokens of each row, in order.
        masks: attention mask of each row, bool[1, 1, length, length]; None for causal attention.
    """

    lengths: tuple[int, ...]
    masks: tuple[torch.Tensor | None, ...]


@functools.lru_cache(maxsize=1)
def _additive_masks(rows: PackedRows, dtype: torch.dtype) -> list[torch.Tensor]:
    """Each row's additive mask, [length, length]; cached, because every layer of a step uses the same."""
    masks = (
        torch.ones(length, length, dtype=torch.bool).tril() if mask is None else mask[0, 0]
        for length, mask in zip(rows.lengths, rows.masks, strict=True)
    )
    return [additive_mask(mask, dtype) for mask in masks]


def _block_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scale: float
) -> torch.Tensor:
    """Attend within one row by plain products: query [1, H, T, D], key and value [1, G, T, D], additive mask [T, T]."""
    heads, groups, length, width = query.shape[1], key.shape[1], query.shape[2], query.shape[3]
    shared = heads // groups
    outputs = []
    for start in range(0, length, _BLOCK):
        end = min(start + _BLOCK, length)
        queries = query[:, :, start:end].reshape(groups, -1, width)  # heads that share a key in one product
        bias = mask[start:end, :end].repeat(shared, 1).expand(groups, -1, -1)
        probs = torch.baddbmm(bias, queries, key[0, :, :end].transpose(1, 2), alpha=scale).softmax(-1)
        outputs.append(torch.bmm(probs, value[0, :, :end]).view(1, heads, end - start, width))
    return torch.cat(outputs, dim=2)


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
    """Attend row by row, with the signature of transformers' attention functions (query [1, H, T, D])."""
    device, value_dtype = query.device.type, value.dtype
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value_dtype
    plain = device == "cpu" and dtype == torch.bfloat16 and not dropout and max(rows.lengths) <= _SHORT
    if device == "cpu" and not plain:
        # The fused kernels of CPUs take several times as long in bfloat16.
        dtype = torch.float32
    with torch.autocast(device, enabled=False):
        split = (states.to(dtype).split(rows.lengths, dim=2) for states in (query, key, value))
        by_row = zip(*split, strict=True)
        if plain:
            scale = query.shape[-1] ** -0.5 if scaling is None else scaling
            outputs = [
                _block_attention(q, k, v, mask, scale)
                for (q, k, v), mask in zip(by_row, _additive_masks(rows, dtype), strict=True)
            ]
        else:
            grouped = query.shape[1] != key.shape[1]
            outputs = [
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
                for (q, k, v), mask in zip(by_row, rows.masks, strict=True)
            ]
    return torch.cat(outputs, dim=2).transpose(1, 2).to(value_dtype), None


AttentionInterface.register(ATTENTION, packed_attention)


def pack(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Pack the rows of a collator's batch.

    Args:
        model: any vision-language model of transformers, wrapped or not; it computes the position ids.
        batch: from ``collator.Collator``.

    Returns:
        The model's inputs, with ``logits_to_keep`` naming the positions with a label; and ``labels``, ``loss_weights``
        and ``number_ids`` of those positions, each [K], with ``owners`` int64[K], the row of each.
    """
    batch = dict(batch)
    targets = {name: batch.pop(name) for name in TARGETS}
    shape = batch["input_ids"].shape
    labelled = (targets["labels"] != IGNORE_INDEX) & (targets["loss_weights"] > 0)
    # No label depends on tokens behind the row's last one.
    needed = labelled.flip(1).cummax(1).values.flip(1) & batch["attention_mask"].bool()
    positions = torch.arange(shape[1], device=needed.device).expand(shape)
    branches = batch.pop("branch_ids", None)
    position_ids = rotary_positions(model, batch, batch.pop("text_positions", positions))
    inputs: dict[str, Any] = {
        name: value[needed][None] if value.shape == shape else value
        for name, value in batch.items()
        if name != "attention_mask"
    }
    inputs["position_ids"] = position_ids[..., needed][..., None, :]
    lengths = needed.sum(1).tolist()
    masks = _branch_masks(branches, lengths)
    if spare := -sum(lengths) % _MULTIPLE:
        # Fill up with a row of answer tokens: models count the image tokens.
        for name, value in inputs.items():
            if value.shape[-2:] == (1, sum(lengths)):
                inputs[name] = torch.cat([value, value[..., -1:].expand(*value.shape[:-1], spare)], dim=-1)
        lengths, masks = [*lengths, spare], [*masks, None]
    inputs["rows"] = PackedRows(tuple(lengths), tuple(masks))
    inputs["logits_to_keep"] = labelled[needed].nonzero().flatten()
    kept = {name: values[labelled] for name, values in targets.items()}
    return inputs, kept | {"owners": labelled.nonzero()[:, 0]}


def _branch_masks(branches: torch.Tensor | None, lengths: list[int]) -> list[torch.Tensor | None]:
    if branches is None:
        return [None] * len(lengths)
    masks: list[torch.Tensor | None] = []
    for row, length in zip(branches, lengths, strict=True):
        own = row[None, :length]
        positions = torch.arange(length, device=own.device)[None]
        masks.append(branch_mask(own, own, positions) if own.any() else None)
    return masks


class _HiddenStates(torch.nn.Module):
    """Replaces the LM head, so that a model returns hidden states as logits."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


@contextlib.contextmanager
def padding_free(model: Any, tokenizer: Any) -> Iterator[torch.nn.Linear | None]:
    """Make a model take packed batches and return hidden states as its ``logits`` inside the block.

    Args:
        model: a transformers model or the PeftModel around it; changed in place, and restored.
        tokenizer: its tokenizer.

    Yields:
        The LM head, which turns those hidden states into logits. None, with the model unchanged, if the head is not a
        frozen linear layer, a layer does not use full attention, or the logits of a sample differ.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head, decoder = frozen_lm_head(base), base.get_decoder()
    layer_types = set(getattr(decoder.config, "layer_types", None) or ["full_attention"])
    attention = decoder.config._attn_implementation
    if head is None or layer_types != {"full_attention"} or attention not in ("sdpa", "eager"):
        yield None
        return
    # Two rows of different lengths, padded and packed.
    ids = tokenizer(_SAMPLE, add_special_tokens=False, return_tensors="pt").input_ids.to(head.weight.device)
    lengths = (ids.shape[1], ids.shape[1] - 2)
    padded = {"input_ids": ids.repeat(2, 1), "attention_mask": torch.ones_like(ids).repeat(2, 1)}
    padded["attention_mask"][1, lengths[1] :] = 0
    real = padded["attention_mask"].bool()
    positions = torch.cat([torch.arange(length, device=ids.device) for length in lengths])
    packed = {"input_ids": padded["input_ids"][real][None], "position_ids": positions[None]}
    training = base.training
    try:
        base.eval()
        with torch.no_grad():
            expected = base(**padded, use_cache=False).logits[real]
            base.set_output_embeddings(_HiddenStates())
            decoder.set_attn_implementation(ATTENTION)
            hidden = base(**packed, rows=PackedRows(lengths, (None, None)), use_cache=False).logits[0]
            found = functional.linear(hidden, head.weight, head.bias)
        same_shape = found.shape == expected.shape
        equal = same_shape and (found - expected).norm() <= _TOLERANCE[expected.dtype] * expected.norm()
        if not equal:
            base.set_output_embeddings(head)
            decoder.set_attn_implementation(attention)
        yield head if equal else None
    finally:
        base.train(training)
        base.set_output_embeddings(head)
        decoder.set_attn_implementation(attention)
