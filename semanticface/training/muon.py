"""The optimizer of nano's pretraining: Muon for matrices and filters, AdamW for other weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from semanticface.utils.precision import has_bfloat16

_MOMENTUM = 0.95
_WEIGHT_DECAY = 0.05
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration, from Jordan et al. 2024 (github.com/KellerJordan/Muon)."""
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) with Nesterov momentum and decoupled weight decay.

    ``torch.optim.Muon`` always multiplies in bfloat16, which CPUs without it emulate: a step then takes 15 times as
    long as its gradient. This one multiplies in float32 there.
    """

    def __init__(self, matrices: list[nn.Parameter], lr: float):
        super().__init__(matrices, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for matrix in group["params"]:
                momentum = self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix.grad))
                momentum.lerp_(matrix.grad, 1 - _MOMENTUM)
                update = orthogonalize(matrix.grad.lerp(momentum, _MOMENTUM))
                matrix.mul_(1 - group["lr"] * _WEIGHT_DECAY)
                matrix.add_(update, alpha=-group["lr"] * math.sqrt(max(1, matrix.shape[0] / matrix.shape[1])))


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """Return the nearest matrix [N, M] whose singular values are about 1, in 0.5 to 1.5."""
    wide = matrix.T if len(matrix) > matrix.shape[1] else matrix
    if has_bfloat16(matrix.device):
        wide = wide.bfloat16()
    wide = wide / wide.norm().clamp(min=1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return (wide.T if len(matrix) > matrix.shape[1] else wide).to(matrix.dtype)


class MuonAdamW:
    """Muon for matrices and filters, AdamW for other weights, on gradients averaged over all processes.

    Muon (Jordan et al. 2024) orthogonalises every update of a matrix. After 40,000 pictures from scratch the vision
    encoder reached a correlation of 0.23, with AdamW alone 0.04.
    """

    def __init__(self, accelerator: Accelerator, weights: list[nn.Parameter], others: list[nn.Parameter], lr: float):
        """Prepare the optimizers.

        Args:
            accelerator: of the processes, which hold the same weights.
            weights: matrices [out, in] and filters [out, in, H, W] in channels-last memory, for Muon at ten times lr.
            others: all other trainable weights, for AdamW at lr.
            lr: peak learning rate.
        """
        self.accelerator, self.weights, self.others = accelerator, weights, others
        # Muon takes matrices: views of the same memory with a row per filter.
        self.matrices = [nn.Parameter(_as_matrix(weight.data)) for weight in weights]
        if any(one.data_ptr() != other.data_ptr() for one, other in zip(self.matrices, weights, strict=True)):
            raise ValueError("Filters must be in channels-last memory: model.to(memory_format=torch.channels_last).")
        self.optimizers = (
            Muon(self.matrices, 10 * lr),
            torch.optim.AdamW(others, lr, weight_decay=_WEIGHT_DECAY, betas=(0.9, 0.98)),
        )
        self.peaks = (10 * lr, lr)

    def step(self, loss: torch.Tensor, lr_factor: float) -> None:
        """Backpropagate a loss and update the weights, at a share of the peak learning rates."""
        weights = self.weights + self.others
        for weight in weights:
            weight.grad = None
        loss.backward()
        _average_gradients(self.accelerator, weights)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for matrix, weight in zip(self.matrices, self.weights, strict=True):
            matrix.grad = _as_matrix(_gradient(weight))
        for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * lr_factor
            optimizer.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


def _average_gradients(accelerator: Accelerator, weights: list[nn.Parameter]) -> None:
    if accelerator.num_processes > 1:
        gradients = [_gradient(weight) for weight in weights]
        means = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
        for gradient, part in zip(gradients, means.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _gradient(weight: nn.Parameter) -> torch.Tensor:
    assert weight.grad is not None
    return weight.grad


def _as_matrix(weight: torch.Tensor) -> torch.Tensor:
    return weight.permute(0, 2, 3, 1).flatten(1) if weight.ndim == 4 else weight
