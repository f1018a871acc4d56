import pytest
import torch
from torch.nn import functional

from semanticface.models.answer_tokens import branch_mask
from semanticface.training.packing import PackedRows, packed_attention

HEADS, GROUPS, WIDTH = 6, 3, 16
LENGTHS = (5, 150, 17)  # the second is longer than a block


def packed_rows(branching: bool) -> PackedRows:
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


def one_by_one(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: PackedRows) -> torch.Tensor:
    """Attend to each row separately, in double precision."""
    parts = []
    by_row = zip(*(x.double().split(LENGTHS, 2) for x in (query, key, value)), rows.masks, strict=True)
    for q, k, v, mask in by_row:
        repeated = [x.repeat_interleave(HEADS // GROUPS, 1) for x in (k, v)]
        parts.append(functional.scaled_dot_product_attention(q, *repeated, attn_mask=mask, is_causal=mask is None))
    return torch.cat(parts, 2).transpose(1, 2)


@pytest.mark.parametrize("branching", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_rows_attend_only_to_themselves(dtype: torch.dtype, tolerance: float, branching: bool) -> None:
    rows = packed_rows(branching)
    inputs, exact = states(dtype), [x.detach().double().requires_grad_(True) for x in states(dtype)]
    found, _ = packed_attention(torch.nn.Identity(), *inputs, None, rows=rows)
    wanted = one_by_one(*exact, rows)
    assert found.dtype == dtype
    assert (found - wanted).norm() < tolerance * wanted.norm()
    found.float().square().sum().backward()
    wanted.square().sum().backward()
    for one, other in zip(inputs, exact, strict=True):
        assert (one.grad - other.grad).norm() < tolerance * other.grad.norm()


def test_cached_masks_belong_to_the_rows() -> None:
    inputs = states(torch.bfloat16)
    for branching in (False, True, False):
        rows = packed_rows(branching)
        found, _ = packed_attention(torch.nn.Identity(), *inputs, None, rows=rows)
        wanted = one_by_one(*inputs, rows)
        assert (found - wanted).norm() < 0.03 * wanted.norm()
