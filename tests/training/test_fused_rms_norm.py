"""Fused norms compute what the models' own do; other norms are left alone."""

import pytest
import torch
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from semanticface.training.fused_ops import fused_rms_norm


def frozen(norm: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    norm.weight.data.normal_(1, 0.3)
    return norm.requires_grad_(False)


def outcome(norm: torch.nn.Module, dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(1)
    inputs = (5 * torch.randn(2, 7, 24)).to(dtype).requires_grad_()
    output = norm(inputs)
    return [output, *torch.autograd.grad((output.float() * torch.randn(2, 7, 24)).sum(), inputs)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_are_those_of_the_model(dtype):
    norm = frozen(Qwen2RMSNorm(24))
    wanted = outcome(norm, dtype)
    with fused_rms_norm(norm) as count:
        found = outcome(norm, dtype)
    assert count == 1
    assert "forward" not in vars(norm)
    close = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=close, atol=close)


def test_other_and_trainable_norms_are_left_alone():
    other, trained = frozen(GemmaRMSNorm(24)), frozen(Qwen2RMSNorm(24)).requires_grad_(True)
    with fused_rms_norm(torch.nn.ModuleList([other, trained, torch.nn.LayerNorm(24)])) as count:
        assert count == 0
