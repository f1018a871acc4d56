import pytest
import torch
from accelerate import Accelerator
from torch import nn

from semanticface.training.muon import MuonAdamW


def small() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 2))
    return layers.to(memory_format=torch.channels_last)


def optimizer_of(model: nn.Sequential, lr: float) -> MuonAdamW:
    return MuonAdamW(Accelerator(cpu=True), [model[0].weight, model[3].weight], [model[0].bias, model[3].bias], lr)


def loss_of(model: nn.Sequential) -> torch.Tensor:
    images = torch.randn(16, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    return (model(images) - images.mean((1, 2, 3))[:, None]).square().mean()


def test_filters_and_matrices_learn_in_place() -> None:
    model = small()
    before = [weight.clone() for weight in model.parameters()]
    optimizer, first = optimizer_of(model, 3e-3), float(loss_of(model))
    for _ in range(60):
        optimizer.step(loss_of(model), 1.0)
    assert float(loss_of(model)) < 0.2 * first
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_an_update_of_filters_is_orthogonal() -> None:
    model = small()
    before = model[0].weight.detach().clone()
    optimizer_of(model, 1e-3).step(loss_of(model), 0.5)
    update = (model[0].weight.detach() - before * (1 - 0.005 * 0.05)).flatten(1) / 0.005
    sizes = torch.linalg.svdvals(update)
    assert sizes.min() > 0.5
    assert sizes.max() < 1.5


def test_resumes_exactly_from_its_state() -> None:
    whole, part = small(), small()
    optimizer = optimizer_of(whole, 1e-3)
    for _ in range(4):
        optimizer.step(loss_of(whole), 1.0)
    optimizer = optimizer_of(part, 1e-3)
    for _ in range(2):
        optimizer.step(loss_of(part), 1.0)
    state, resumed = optimizer.state_dict(), small()
    resumed.load_state_dict(part.state_dict())
    optimizer = optimizer_of(resumed, 1e-3)
    optimizer.load_state_dict(state)
    for _ in range(2):
        optimizer.step(loss_of(resumed), 1.0)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_filters_not_in_channels_last_memory_are_refused() -> None:
    filters = nn.Conv2d(4, 8, 3)
    with pytest.raises(ValueError, match="channels-last"):
        MuonAdamW(Accelerator(cpu=True), [filters.weight], [filters.bias], 1e-3)
