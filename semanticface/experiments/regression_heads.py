"""Coefficients regressed from a frozen vision encoder's feature maps: by a trained head, and by ridge regression.

A map is flattened, so every cell has its own weights. Features are standardised with their own means but one common
scale, the root of their mean variance: two in three are nearly always off, and scales of their own would amplify noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import nn

from semanticface.arkit import N_ACTIONS
from semanticface.training.nano_pretraining import PretrainData, PretrainSettings
from semanticface.utils.progress import tqdm

Kind = Literal["linear", "mlp"]
"""One linear layer; or two with ``HIDDEN`` units, about as many weights as nano's language model."""

HIDDEN = 448
LEARNING_RATE = 1e-4
"""Peak rate: about the best of 3e-5 to 1e-3 on held-out faces for both kinds; Muon did no better."""
_RIDGES = (0.3, 3.0, 30.0)
"""Penalties to choose from, per picture and squared weight."""
_FOLDS = 4
_BATCH = 2048
_MIN_VARIANCE = 1e-8


class Head(nn.Module):
    """Predicts coefficients from feature maps.

    Args:
        kind: its layers.
        features: float16[N, C, H, W], from which the standardisation is computed.
        truth: float32[N, 52], whose mean is the initial prediction.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, kind: Kind, features: np.ndarray, truth: np.ndarray) -> None:
        super().__init__()
        mean, scale = _moments(features)
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("scale", torch.tensor(scale))
        hidden = [] if kind == "linear" else [nn.Linear(len(mean), HIDDEN), nn.GELU()]
        last = nn.Linear(HIDDEN if hidden else len(mean), N_ACTIONS)
        with torch.no_grad():
            last.weight.zero_()
            last.bias.copy_(torch.from_numpy(truth.mean(0)))
        self.layers = nn.Sequential(*hidden, last)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return unbounded coefficients float32[B, 52] of feature maps float32[B, C, H, W]."""
        out: torch.Tensor = self.layers((features.flatten(1) - self.mean) / self.scale)
        return out

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return coefficients float32[N, 52] in [0, 1] of feature maps float16[N, C, H, W]."""
        with torch.inference_mode():
            parts = [
                self(torch.from_numpy(features[start : start + _BATCH]).float().to(self.mean.device)).clamp(0, 1)
                for start in range(0, len(features), _BATCH)
            ]
        predictions: np.ndarray = torch.cat(parts).cpu().numpy()
        return predictions


def train_head(kind: Kind, data: PretrainData, settings: PretrainSettings, device: torch.device) -> Head:
    """Train a head by squared error on the pictures, in the order and for the steps that a language model gets.

    Args:
        kind: its layers.
        data: feature maps and ground truth.
        settings: length of the training; the learning rate is ``LEARNING_RATE``.
        device: to train on.
    """
    torch.manual_seed(settings.seed)
    head = Head(kind, data.features, data.truth).to(device)
    optimizer = torch.optim.AdamW(head.parameters(), LEARNING_RATE, weight_decay=0.05, betas=(0.9, 0.98))
    for step in tqdm(range(settings.steps), desc=f"{kind} head, seed {settings.seed}", unit="step"):
        indices = settings.batch_indices(step, len(data.truth))
        predicted = head(torch.from_numpy(data.features[indices]).float().to(device))
        loss = (predicted - torch.from_numpy(data.truth[indices]).to(device)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * settings.lr_factor(step)
        optimizer.step()
    return head.eval()


def cross_fitted_ridge(features: np.ndarray, truth: np.ndarray, people: Sequence[str]) -> np.ndarray:
    """Return predictions of each feature map by ridge regression fitted on the maps of other people.

    Training pictures are so predicted with the errors of unseen pictures. The penalty with the smallest squared error
    is chosen.

    Args:
        features: float16[N, C, H, W].
        truth: float32[N, 52].
        people: the person in each picture; at least four different ones.

    Returns:
        float32[N, 52] in [0, 1].
    """
    names, member = np.unique(np.asarray(people), return_inverse=True)
    if len(names) < _FOLDS:
        raise ValueError(f"{len(names)} people: {_FOLDS} or more are needed")
    fold = member % _FOLDS
    mean, scale = _moments(features)

    def design(rows: np.ndarray) -> np.ndarray:
        standardised = (features[rows].reshape(len(rows), -1).astype(np.float32) - mean) / scale
        return np.concatenate([standardised, np.ones((len(rows), 1), np.float32)], axis=1)

    size = len(mean) + 1
    squares = np.zeros((_FOLDS, size, size), np.float32)
    products = np.zeros((_FOLDS, size, N_ACTIONS), np.float32)
    for k in range(_FOLDS):
        rows = np.flatnonzero(fold == k)
        for start in tqdm(range(0, len(rows), _BATCH), desc=f"fitting {k + 1} of {_FOLDS}", unit="part"):
            part = rows[start : start + _BATCH]
            x = design(part)
            squares[k] += x.T @ x
            products[k] += x.T @ truth[part]
    out = np.zeros((len(_RIDGES), *truth.shape), np.float32)
    for k in range(_FOLDS):
        rows = np.flatnonzero(fold == k)
        square, product = squares.sum(0) - squares[k], products.sum(0) - products[k]
        for each, ridge in enumerate(_RIDGES):
            penalty = np.full(size, ridge * (len(truth) - len(rows)), np.float32)
            penalty[-1] = 0
            weights = np.linalg.solve(square + np.diag(penalty), product)
            for start in range(0, len(rows), _BATCH):
                part = rows[start : start + _BATCH]
                out[each, part] = design(part) @ weights
    best: np.ndarray = out[np.square(out - truth).mean(axis=(1, 2)).argmin()].clip(0, 1)
    return best


def _moments(features: np.ndarray) -> tuple[np.ndarray, float]:
    """Return each feature's mean, float32[C * H * W], and the root of all features' mean variance."""
    total, square = np.zeros(features[0].size), 0.0
    for start in range(0, len(features), _BATCH):
        part = features[start : start + _BATCH].reshape(-1, features[0].size).astype(np.float32)
        total += part.sum(0, dtype=np.float64)
        square += float(np.square(part, dtype=np.float64).sum())
    mean = total / len(features)
    variance = square / features.size - np.square(mean).mean()
    return mean.astype(np.float32), float(np.sqrt(max(variance, _MIN_VARIANCE)))
