"""Fused LoRA layers compute what PEFT's do."""

import bitsandbytes
import peft
import pytest
import torch

from semanticface.training.fused_ops import fused_lora


class Layers(torch.nn.Module):
    def __init__(self, *, bias: bool, last: type[torch.nn.Module] = torch.nn.Linear) -> None:
        super().__init__()
        self.first = torch.nn.Linear(12, 20, bias=bias)
        self.last = last(20, 8, bias=bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(inputs).tanh())


def adapted(*, bias: bool = True, dropout: float = 0.0, **layers) -> peft.PeftModel:
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, lora_alpha=12, lora_dropout=dropout, target_modules=["first", "last"])
    model = peft.get_peft_model(Layers(bias=bias, **layers), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    return model


def outcome(model: peft.PeftModel, dtype: torch.dtype | None = None) -> list[torch.Tensor]:
    """Return output and gradients of the input and of every trainable parameter."""
    torch.manual_seed(1)
    inputs = torch.randn(2, 5, 12, requires_grad=True)
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        output = model(inputs)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [output, *torch.autograd.grad(output.float().square().sum(), [inputs, *trained])]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_outputs_and_gradients_are_those_of_peft(bias, dropout):
    model = adapted(bias=bias, dropout=dropout)
    wanted = outcome(model)
    with fused_lora(model) as count:
        found = outcome(model)
    assert count == 2
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_mixed_precision_is_as_close_as_pefts():
    model = adapted()
    exact, theirs = outcome(model), outcome(model, torch.bfloat16)
    with fused_lora(model):
        ours = outcome(model, torch.bfloat16)
    assert [one.dtype for one in ours] == [one.dtype for one in theirs]
    for one, other, truth in zip(ours, theirs, exact, strict=True):
        assert (one - truth).norm() < 1.3 * (other - truth).norm() + 1e-6
        assert (one - truth).norm() < 0.02 * truth.norm()


def test_no_dropout_in_eval_mode():
    model = adapted(dropout=0.5).eval()
    with fused_lora(model):
        torch.testing.assert_close(outcome(model)[0], outcome(model)[0], rtol=0, atol=0)


def test_other_layers_stay_pefts_and_all_are_restored():
    model = adapted(last=bitsandbytes.nn.Linear4bit)
    layers = [module for module in model.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
    assert len(layers) == 2
    with fused_lora(model) as count:
        assert count == 1
    assert not any("forward" in vars(layer) for layer in layers)
    model.add_adapter("second", peft.LoraConfig(r=2, target_modules=["first", "last"]))
    model.base_model.set_adapter(["default", "second"])
    with fused_lora(model) as count:
        assert count == 0
