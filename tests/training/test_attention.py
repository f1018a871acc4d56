from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from semanticface.models.answer_tokens import branch_mask
from semanticface.training.packing import PackedRows, packed_attention

HEADS, GROUPS, WIDTH = 6, 3, 16
LENGTHS = (5, 150, 17)  # the second is longer than a block


def rows(branching: bool) -> PackedRows:
    masks: list[torch.Tensor | None] = []
    for length in LENGTHS:
        branches = torch.arange(length)[None] // 4
        masks.append(branch_mask(branches, branches, torch.arange(length)[None]) if branching else None)
    return PackedRows(LENGTHS, tuple(masks))


def states(dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [
        torch.randn(1, heads, sum(LENGTHS), WIDTH).to(dtype).requires_grad_(True) for heads in (HEADS, GROUPS, GROUPS)
    ]


def one_by_one(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, told: PackedRows) -> torch.Tensor:
    """Every row on its own, in double precision."""
    parts = []
    apart = zip(*(x.double().split(LENGTHS, 2) for x in (query, key, value)), told.masks, strict=True)
    for q, k, v, mask in apart:
        repeated = [x.repeat_interleave(HEADS // GROUPS, 1) for x in (k, v)]
        parts.append(functional.scaled_dot_product_attention(q, *repeated, attn_mask=mask, is_causal=mask is None))
    return torch.cat(parts, 2).transpose(1, 2)


@pytest.mark.parametrize("branching", [False, True])
@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_rows_attend_as_each_would_alone(dtype: torch.dtype, apart: float, branching: bool) -> None:
    told = rows(branching)
    given, exact = states(dtype), [x.detach().double().requires_grad_(True) for x in states(dtype)]
    found, _ = packed_attention(torch.nn.Identity(), *given, None, rows=told)
    wanted = one_by_one(*exact, told)
    assert found.dtype == dtype
    assert (found - wanted).norm() < apart * wanted.norm()
    found.float().square().sum().backward()
    wanted.square().sum().backward()
    for one, other in zip(given, exact, strict=True):
        assert (one.grad - other.grad).norm() < apart * other.grad.norm()


def test_a_mask_is_not_taken_for_that_of_the_rows_before() -> None:
    given = states(torch.bfloat16)
    for branching in (False, True, False):
        told = rows(branching)
        found, _ = packed_attention(torch.nn.Identity(), *given, None, rows=told)
        wanted = one_by_one(*given, told)
        assert (found - wanted).norm() < 0.03 * wanted.norm()
