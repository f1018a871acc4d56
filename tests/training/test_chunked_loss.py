"""The chunked loss equals the loss of whole logits."""

import pytest
import torch
from torch.nn import functional

from semanticface.training import fused_ops
from semanticface.training.fused_ops import chunked_argmax, chunked_cross_entropy, frozen_lm_head


@pytest.fixture(params=[None, 7 * 40])
def chunk(request, monkeypatch):
    """All tokens at once, and seven at a time."""
    if request.param:
        monkeypatch.setattr(fused_ops, "_CHUNK", request.param)


def case(count: int, *, bias: bool, dtype: torch.dtype = torch.float32):
    torch.manual_seed(count)
    head = torch.nn.Linear(16, 40, bias=bias).requires_grad_(False).to(dtype)
    hidden = (4 * torch.randn(count, 16)).requires_grad_()
    return hidden, head, torch.randint(0, 40, (count,)), torch.rand(count) * 4


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("count", [1, 7, 23])
def test_loss_and_gradient_are_those_of_whole_logits(chunk, count, bias):
    hidden, head, labels, weights = case(count, bias=bias)
    wanted = (functional.cross_entropy(head(hidden), labels, reduction="none") * weights).sum()
    (direction,) = torch.autograd.grad(3 * wanted, hidden)
    found = chunked_cross_entropy(hidden, head, labels, weights)
    (ours,) = torch.autograd.grad(3 * found, hidden)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(ours, direction, rtol=1e-5, atol=1e-6)


def test_an_underflowing_probability_has_a_finite_loss():
    head = torch.nn.Linear(1, 2, bias=False).requires_grad_(False)
    head.weight[:] = torch.tensor([[200.0], [-200.0]])
    hidden = torch.ones(1, 1, requires_grad=True)
    found = chunked_cross_entropy(hidden, head, torch.tensor([1]), torch.ones(1))
    assert found.item() == pytest.approx(400)
    found.backward()
    assert hidden.grad.item() == pytest.approx(400)


def test_scores_in_bfloat16_are_summed_in_float32(chunk):
    hidden, head, labels, weights = case(23, bias=False, dtype=torch.bfloat16)
    rounded = (hidden.bfloat16() @ head.weight.t()).float()
    wanted = (functional.cross_entropy(rounded, labels, reduction="none") * weights).sum()
    torch.testing.assert_close(chunked_cross_entropy(hidden, head, labels, weights), wanted, rtol=1e-5, atol=1e-4)


def test_predictions_are_those_of_whole_logits(chunk):
    hidden, head, labels, _ = case(23, bias=True)
    found = chunked_argmax(hidden, head, labels)
    assert torch.equal(found.tokens, head(hidden).argmax(1))
    torch.testing.assert_close(found.losses, functional.cross_entropy(head(hidden), labels, reduction="none"))
    assert not found.losses.requires_grad


def test_no_labels_give_no_loss():
    hidden, head, labels, weights = case(1, bias=False)
    found = chunked_cross_entropy(hidden[:0], head, labels[:0], weights[:0])
    assert found == 0


class ModelStub(torch.nn.Module):
    """The attributes of a transformers model that are read."""

    def __init__(self, head: torch.nn.Module, **config) -> None:
        super().__init__()
        self.head = head
        self.config = type("Config", (), {"get_text_config": lambda self: type("Text", (), config)})()

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head


def test_only_a_frozen_linear_head_is_accepted():
    head = torch.nn.Linear(2, 3).requires_grad_(False)
    assert frozen_lm_head(ModelStub(head)) is head
    assert frozen_lm_head(ModelStub(torch.nn.Linear(2, 3))) is None
    assert frozen_lm_head(ModelStub(torch.nn.Sequential(head))) is None
    assert frozen_lm_head(ModelStub(head, final_logit_softcapping=30.0)) is None
