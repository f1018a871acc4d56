"""The network of the learned judge: what it makes of a picture and two faces, and how it is trained.

It believes in a face for the picture: what a model reads from it, changed by what it learned. The nearer a face to
that one, on the vertices of the plain head, the better; between two faces its answer is that of Rao and Kupper's model
(``judges``), with a learned noise and a learned threshold for "same".
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import logsigmoid, softplus

from semanticface.arkit import N_ACTIONS
from semanticface.config import check_range
from semanticface.evaluation.vertex_error import moving_vertices
from semanticface.preference.regions import ACTIONS, AREAS, Area, mask_outside
from semanticface.preference.types import Verdict
from semanticface.rendering.head.rig import rig
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.utils.progress import tqdm

ANSWERS: tuple[Verdict, ...] = ("a", "b", "same")
"""What the judge can say of faces it sees, in the order of its probabilities."""

_AXES = 24
_EXAMPLES = 384
_AT_ONCE = 64
_FEATURES = 64
_DROPOUT = 0.3
_FASTER = (100, 15, 1)
"""How much faster than the weights of features noise and threshold learn, and gains, biases and weights of axes. Every
choice tells how sure to be and most tell of gains; were all as fast, many weights would fit the few choices first."""
_TEMPERATURES = np.geomspace(0.2, 5, 81)
_TINY = 1e-4


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """How a judge learns.

    Attributes:
        epochs: times every choice is seen, at most.
        patience: epochs without a smaller loss on the tuning choices after which it stops.
        batch_size: choices a step.
        learning_rate: of AdamW, for what features tell; 15 times that for gains and biases, 100 times for noise and
            threshold.
        weight_decay: likewise; pulls towards the reading and the plain distance.
        tuning: share of choices, about people of their own, that tell when to stop and how sure to be.
        test: share of choices, about people of their own, that figures are measured on.
        seed: of everything drawn; the people are parted by a hash of their names, with this seed.
    """

    epochs: int = 80
    patience: int = 8
    batch_size: int = 64
    learning_rate: float = 1e-4
    weight_decay: float = 0.3
    tuning: float = 0.15
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("judge.epochs", self.epochs, 1)
        check_range("judge.patience", self.patience, 1)
        check_range("judge.batch_size", self.batch_size, 1)
        check_range("judge.learning_rate", self.learning_rate, 1e-6, 1)
        check_range("judge.weight_decay", self.weight_decay, 0, 100)
        check_range("judge.tuning", self.tuning, 0.01, 0.5)
        check_range("judge.test", self.test, 0.01, 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class ImageFeatures:
    """What the judge sees in a picture.

    Attributes:
        features: float32[D], the flattened feature map of nano's tower.
        reading: float32[52] in [0, 1], what a model reads from it.
    """

    features: np.ndarray
    reading: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class JudgeInputs:
    """Questions of one area as the network sees them.

    Attributes:
        features: [n, F], what the tower saw, along its main axes.
        reading: [n, 52], what a model reads.
        believed: [n, 24], where that puts the vertices (``places``).
        left: [n, 24], where the face on the left puts them.
        right: [n, 24], likewise.
        answer: [n], those given, as places in ``ANSWERS``; empty where none are known.
    """

    features: torch.Tensor
    reading: torch.Tensor
    believed: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    answer: torch.Tensor

    def part(self, places: torch.Tensor) -> JudgeInputs:
        """Return some of the questions."""
        return JudgeInputs(*(getattr(self, name)[places] for name in JudgeInputs.__slots__))


class _Eye(nn.Module):
    """How one area is judged; it begins where the reading is believed and distance is plain.

    What is believed differs from the reading by a gain and a bias of each action, and by what features tell; that moves
    vertices as actions do near rest.
    """

    moves: torch.Tensor

    def __init__(self, area: Area, features: int) -> None:
        super().__init__()
        ends = places(np.concatenate([np.eye(N_ACTIONS), np.zeros((1, N_ACTIONS))]), area)
        self.register_buffer("moves", torch.from_numpy(ends[:-1] - ends[-1:]), persistent=False)
        self.gain, self.bias = nn.Parameter(torch.zeros(N_ACTIONS)), nn.Parameter(torch.zeros(N_ACTIONS))
        self.tell = nn.Linear(features, N_ACTIONS, bias=False)
        nn.init.zeros_(self.tell.weight)
        self.weigh = nn.Parameter(torch.zeros(_AXES))
        self.steepness, self.threshold = nn.Parameter(torch.tensor(-1.0)), nn.Parameter(torch.tensor(-1.0))
        self.drop = nn.Dropout(_DROPOUT)

    def forward(self, seen: JudgeInputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how much nearer the left face is, [B], and the least difference noticed, in units of the noise."""
        amiss = seen.reading * self.gain + self.bias + self.tell(self.drop(seen.features))
        believed = seen.believed + amiss @ self.moves
        away = [
            ((believed - face) * self.weigh.exp()).square().sum(1).add(_TINY).sqrt() for face in (seen.left, seen.right)
        ]
        return (away[1] - away[0]) * self.steepness.exp(), softplus(self.threshold)


class Network(nn.Module):
    """An eye for each area, and how features are brought to few dimensions."""

    mean: torch.Tensor
    basis: torch.Tensor

    def __init__(self, mean: torch.Tensor, basis: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)
        self.register_buffer("temperature", torch.ones(()))
        self.eyes = nn.ModuleDict({area: _Eye(area, basis.shape[1]) for area in AREAS})


def main_features(sights: Sequence[ImageFeatures]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [D] of feature maps, and their main axes [D, F], scaled to a mean square of a quarter."""
    features = np.array([each.features for each in sights], np.float32)
    mean = features.mean(axis=0)
    basis = _main_axes(features - mean, _FEATURES)
    spread = np.sqrt(np.mean(((features - mean) @ basis) ** 2)) if basis.size else 1.0
    return torch.from_numpy(mean), torch.from_numpy(basis / (2 * spread)).float()


def encode(
    network: Network,
    area: Area,
    sights: Sequence[ImageFeatures],
    left: np.ndarray,
    right: np.ndarray,
    answer: Sequence[int] = (),
) -> JudgeInputs:
    """Return questions of one area as the network sees them.

    Args:
        network: by whose axes features are told.
        area: of all questions.
        sights: of their pictures, n of them.
        left: float32[n, 52], the faces on the left.
        right: float32[n, 52], likewise.
        answer: those given, as places in ``ANSWERS``.
    """
    features = torch.from_numpy(np.array([each.features for each in sights], np.float32))
    readings = np.array([each.reading for each in sights], np.float32)
    # A candidate is shown in several questions, and a reading goes with all questions about its picture.
    faces, of = np.unique(np.concatenate([readings, left, right]), axis=0, return_inverse=True)
    believed, one, other = torch.from_numpy(places(faces, area)[of]).chunk(3)
    told = (features - network.mean) @ network.basis
    return JudgeInputs(told, torch.from_numpy(readings), believed, one, other, torch.tensor(answer))


def log_shares(network: Network, area: Area, seen: JudgeInputs) -> torch.Tensor:
    """Log probabilities of ``ANSWERS``, [B, 3]."""
    gain, least = network.eyes[area](seen)
    heat = network.get_buffer("temperature")
    a, b = logsigmoid((gain - least) / heat), logsigmoid((-gain - least) / heat)
    same = torch.log((1 - a.exp() - b.exp()).clamp_min(_TINY))
    return torch.stack([a, b, same], dim=1)


def train(
    network: Network, taught: Mapping[Area, JudgeInputs], tuned: Mapping[Area, JudgeInputs], settings: JudgeSettings
) -> None:
    """Learn until the loss of the tuning choices falls no more; the network ends as it was when that was least."""
    steps = [
        {
            "params": [parameter for parameter in network.parameters() if parameter.ndim == dimensions],
            "lr": faster * settings.learning_rate,
            "weight_decay": settings.weight_decay if dimensions else 0.0,
        }
        for dimensions, faster in enumerate(_FASTER)
    ]
    optimizer = torch.optim.AdamW(steps)
    places_of = [(area, place) for area, seen in taught.items() for place in range(len(seen.answer))]
    rng = np.random.default_rng([settings.seed, 21])
    best, least, worse = copy.deepcopy(network.state_dict()), float(_evaluated(network, tuned)), 0
    for _ in tqdm(range(settings.epochs), desc="learning", unit="epoch", leave=False):
        network.train()
        order = rng.permutation(len(places_of))
        for batch in np.array_split(order, -(-len(order) // settings.batch_size)):
            drawn = [places_of[place] for place in batch]
            parts = {}
            for area, seen in taught.items():
                here = [place for name, place in drawn if name == area]
                if here:
                    parts[area] = seen.part(torch.tensor(here))
            optimizer.zero_grad()
            (_loss(network, parts) / len(batch)).backward()
            optimizer.step()
        loss, worse = _evaluated(network, tuned), worse + 1
        if loss < least:
            best, least, worse = copy.deepcopy(network.state_dict()), loss, 0
        if worse == settings.patience:
            break
    network.load_state_dict(best)
    network.eval()


def _evaluated(network: Network, parts: Mapping[Area, JudgeInputs]) -> float:
    network.eval()
    with torch.inference_mode():
        return float(_loss(network, parts))


def answers(network: Network, parts: Mapping[Area, JudgeInputs]) -> np.ndarray:
    """Probabilities of ``ANSWERS``, float64[n, 3]."""
    with torch.inference_mode():
        return np.concatenate([log_shares(network, area, seen).exp().double().numpy() for area, seen in parts.items()])


def best_temperature(network: Network, tuned: Mapping[Area, JudgeInputs]) -> float:
    """Return the temperature that makes the tuning choices most probable (Guo et al. 2017)."""
    heat, losses = network.get_buffer("temperature"), []
    for temperature in _TEMPERATURES:
        heat.fill_(float(temperature))
        losses.append(_evaluated(network, tuned))
    return float(_TEMPERATURES[int(np.argmin(losses))])


def _loss(network: Network, parts: Mapping[Area, JudgeInputs]) -> torch.Tensor:
    """Sum of negative log probabilities of the answers."""
    losses = [-log_shares(network, area, seen).gather(1, seen.answer[:, None]).sum() for area, seen in parts.items()]
    return torch.stack(losses).sum()


def places(faces: np.ndarray, area: Area) -> np.ndarray:
    """Return where faces put what an area's actions move, the rest at rest, along the axes it moves along most.

    Args:
        faces: float[n, 52] in [0, 1].
        area: which part.

    Returns:
        float32[n, 24]; distances are root mean squares over vertices, in percent of the inter-pupil distance.
    """
    mean, axes = _axes(area)
    return np.asarray((_vertices(faces, area) - mean) @ axes, np.float32)


@functools.cache
def _axes(area: Area) -> tuple[np.ndarray, np.ndarray]:
    """Mean float32[3V] and main axes float32[3V, 24] of random expressions."""
    rng = np.random.default_rng(20)
    examples = _vertices(np.array([sample_coefficients(rng) for _ in range(_EXAMPLES)]), area)
    mean = examples.mean(axis=0)
    return mean, _main_axes(examples - mean, _AXES)


def _vertices(faces: np.ndarray, area: Area) -> np.ndarray:
    """Places of the area's vertices, float32[n, 3V], scaled as ``places`` says."""
    moving, head = moving_vertices(ACTIONS[area]), rig()
    shaped = mask_outside(np.asarray(faces, np.float32), area)
    parts = [
        head.vertices(shaped[start : start + _AT_ONCE])[:, moving].reshape(-1, 3 * len(moving))
        for start in range(0, len(shaped), _AT_ONCE)
    ]
    return np.concatenate(parts) * np.float32(100 / head.inter_pupil / np.sqrt(len(moving)))


def _main_axes(centred: np.ndarray, count: int) -> np.ndarray:
    """Orthonormal axes float32[D, count or fewer] along which rows [n, D] spread most, by way of the n x n products."""
    sizes, mixes = np.linalg.eigh(centred @ centred.T)
    kept = [k for k in range(len(sizes) - 1, -1, -1) if sizes[k] > 1e-6 * sizes[-1]][:count]
    return np.asarray(centred.T @ (mixes[:, kept] / np.sqrt(sizes[kept])), np.float32)
