"""Coefficients read straight off a frozen tower's feature maps: by a trained head, and by ridge regression.

A map is flattened, so every cell of it has its own weights. Features are brought to mean 0 and, by one factor for all,
to a mean variance of 1: two in three are next to never on, and spreads of their own would blow up the little they say.
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
"""One linear layer; or two with ``HIDDEN`` units between, about as many weights as nano's language model."""

HIDDEN = 448
RATE = 1e-4
"""Peak learning rate: of 3e-5 to 1e-3 about the best on held-out faces for both kinds; Muon did no better."""
_RIDGES = (0.3, 3.0, 30.0)
"""Penalties to choose from, a picture and squared unit of weight."""
_FOLDS = 4
_AT_ONCE = 2048
_TINY = 1e-8


class Head(nn.Module):
    """Reads coefficients from feature maps.

    Args:
        kind: its layers.
        maps: float16[N, C, H, W], by whose mean and spread it scales.
        truth: float32[N, 52], at whose mean it begins.
    """

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, kind: Kind, maps: np.ndarray, truth: np.ndarray) -> None:
        super().__init__()
        mean, spread = _moments(maps)
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("spread", torch.tensor(spread))
        hidden = [] if kind == "linear" else [nn.Linear(len(mean), HIDDEN), nn.GELU()]
        last = nn.Linear(HIDDEN if hidden else len(mean), N_ACTIONS)
        with torch.no_grad():
            last.weight.zero_()
            last.bias.copy_(torch.from_numpy(truth.mean(0)))
        self.layers = nn.Sequential(*hidden, last)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return coefficients float32[B, 52], not bounded, from maps float32[B, C, H, W]."""
        out: torch.Tensor = self.layers((maps.flatten(1) - self.mean) / self.spread)
        return out

    def read(self, maps: np.ndarray) -> np.ndarray:
        """Return coefficients float32[N, 52] in [0, 1] of maps float16[N, C, H, W]."""
        with torch.inference_mode():
            parts = [
                self(torch.from_numpy(maps[start : start + _AT_ONCE]).float().to(self.mean.device)).clamp(0, 1)
                for start in range(0, len(maps), _AT_ONCE)
            ]
        read: np.ndarray = torch.cat(parts).cpu().numpy()
        return read


def train_head(kind: Kind, sights: PretrainData, settings: PretrainSettings, device: torch.device) -> Head:
    """Train a head by squared error on the pictures, in the order and in as many steps, that a language model gets.

    Args:
        kind: its layers.
        sights: what to learn from: maps and truth.
        settings: how long; the learning rate is a head's own, ``RATE``.
        device: where.
    """
    torch.manual_seed(settings.seed)
    head = Head(kind, sights.maps, sights.truth).to(device)
    optimizer = torch.optim.AdamW(head.parameters(), RATE, weight_decay=0.05, betas=(0.9, 0.98))
    for step in tqdm(range(settings.steps), desc=f"{kind} head, seed {settings.seed}", unit="step"):
        chosen = settings.chosen(step, len(sights.truth))
        guess = head(torch.from_numpy(sights.maps[chosen]).float().to(device))
        loss = (guess - torch.from_numpy(sights.truth[chosen]).to(device)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = RATE * settings.rate(step)
        optimizer.step()
    return head.eval()


def cross_fitted_ridge(maps: np.ndarray, truth: np.ndarray, people: Sequence[str]) -> np.ndarray:
    """Return what ridge regression reads off each map that was fitted on the maps of other people.

    So the training pictures are read with the errors that new pictures will be read with. Of a few penalties the one
    with the smallest squared error is taken.

    Args:
        maps: float16[N, C, H, W].
        truth: float32[N, 52].
        people: of each map, who is shown; at least four different ones.

    Returns:
        float32[N, 52] in [0, 1].

    Raises:
        ValueError: fewer than four people.
    """
    names, member = np.unique(np.asarray(people), return_inverse=True)
    if len(names) < _FOLDS:
        raise ValueError(f"{len(names)} people: {_FOLDS} or more are needed")
    fold = member % _FOLDS
    mean, spread = _moments(maps)

    def features(rows: np.ndarray) -> np.ndarray:
        plain = (maps[rows].reshape(len(rows), -1).astype(np.float32) - mean) / spread
        return np.concatenate([plain, np.ones((len(rows), 1), np.float32)], axis=1)

    size = len(mean) + 1
    squares = np.zeros((_FOLDS, size, size), np.float32)
    products = np.zeros((_FOLDS, size, N_ACTIONS), np.float32)
    for k in range(_FOLDS):
        rows = np.flatnonzero(fold == k)
        for start in tqdm(range(0, len(rows), _AT_ONCE), desc=f"fitting {k + 1} of {_FOLDS}", unit="part"):
            part = rows[start : start + _AT_ONCE]
            x = features(part)
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
            for start in range(0, len(rows), _AT_ONCE):
                part = rows[start : start + _AT_ONCE]
                out[each, part] = features(part) @ weights
    best: np.ndarray = out[np.square(out - truth).mean(axis=(1, 2)).argmin()].clip(0, 1)
    return best


def _moments(maps: np.ndarray) -> tuple[np.ndarray, float]:
    """Return each feature's mean, float32[C * H * W], and the root of all features' mean variance."""
    total, square = np.zeros(maps[0].size), 0.0
    for start in range(0, len(maps), _AT_ONCE):
        part = maps[start : start + _AT_ONCE].reshape(-1, maps[0].size).astype(np.float32)
        total += part.sum(0, dtype=np.float64)
        square += float(np.square(part, dtype=np.float64).sum())
    mean = total / len(maps)
    variance = square / maps.size - np.square(mean).mean()
    return mean.astype(np.float32), float(np.sqrt(max(variance, _TINY)))
