"""The network of the learned judge: its inputs, its probabilities and its training.

The network predicts the true face: a model's reading of the picture plus a learned correction. The nearer a face to
that prediction, on the vertices of the neutral head, the better; between two faces it answers by the model of Rao and
Kupper (``judges``), with a learned noise and a learned threshold for "same".
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
from semanticface.preference.regions import ACTIONS, REGIONS, Region, mask_outside
from semanticface.preference.types import Verdict
from semanticface.rendering.head.rig import rig
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.utils.progress import tqdm

ANSWERS: tuple[Verdict, ...] = ("a", "b", "same")
"""The judge's classes, in the order of its probabilities."""

_AXES = 24  # principal axes of vertex positions
_EXAMPLES = 384  # random expressions that the axes are fitted to
_BATCH = 64
_FEATURES = 64  # principal axes of image features
_DROPOUT = 0.3
_LR_FACTORS = (100, 15, 1)
"""Learning rates relative to that of the feature weights: noise and threshold, then gains, biases and axis weights,
then feature weights. Every choice informs the noise and most inform gains; at equal rates the many feature weights
would fit the few choices first."""
_TEMPERATURES = np.geomspace(0.2, 5, 81)
_EPSILON = 1e-4


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """How a judge is trained.

    Attributes:
        epochs: passes over the choices, at most.
        patience: epochs without a lower loss on the tuning choices before early stopping.
        batch_size: choices per step.
        learning_rate: of AdamW, for the feature weights; 15 times that for gains and biases, 100 times for noise and
            threshold.
        weight_decay: of AdamW; pulls towards the reading and the plain distance.
        tuning: proportion of choices, about people of their own, for early stopping and the temperature.
        test: proportion of choices, about people of their own, for the metrics.
        seed: of all random numbers; people are split by a hash of their names and this seed.
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
    """The judge's view of a picture.

    Attributes:
        features: float32[D], the flattened feature map of nano's vision encoder.
        reading: float32[52] in [0, 1], a model's coefficients for it.
    """

    features: np.ndarray
    reading: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class JudgeInputs:
    """n questions of one region as tensors.

    Attributes:
        features: [n, F], image features along their principal axes.
        reading: [n, 52], a model's coefficients.
        predicted: [n, 24], vertex positions of the reading (``project_vertices``).
        left: [n, 24], vertex positions of the left face.
        right: [n, 24], vertex positions of the right face.
        answer: [n], classes as indices into ``ANSWERS``; empty where unknown.
    """

    features: torch.Tensor
    reading: torch.Tensor
    predicted: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    answer: torch.Tensor

    def select(self, indices: torch.Tensor) -> JudgeInputs:
        """Return some of the questions."""
        return JudgeInputs(*(getattr(self, name)[indices] for name in JudgeInputs.__slots__))


class _RegionHead(nn.Module):
    """The judge of one region; initially it trusts the reading and measures the plain distance.

    The prediction differs from the reading by a gain and a bias per action and by a linear function of the features;
    the difference moves vertices as actions do near rest. Attribute names are keys of saved weights.
    """

    moves: torch.Tensor

    def __init__(self, region: Region, features: int) -> None:
        super().__init__()
        ends = project_vertices(np.concatenate([np.eye(N_ACTIONS), np.zeros((1, N_ACTIONS))]), region)
        self.register_buffer("moves", torch.from_numpy(ends[:-1] - ends[-1:]), persistent=False)  # [52, 24]
        self.gain, self.bias = nn.Parameter(torch.zeros(N_ACTIONS)), nn.Parameter(torch.zeros(N_ACTIONS))
        self.tell = nn.Linear(features, N_ACTIONS, bias=False)
        nn.init.zeros_(self.tell.weight)
        self.weigh = nn.Parameter(torch.zeros(_AXES))
        self.steepness, self.threshold = nn.Parameter(torch.tensor(-1.0)), nn.Parameter(torch.tensor(-1.0))
        self.drop = nn.Dropout(_DROPOUT)

    def forward(self, inputs: JudgeInputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how much nearer the left face is, [B], and the threshold for "same", both in units of the noise."""
        correction = inputs.reading * self.gain + self.bias + self.tell(self.drop(inputs.features))  # [B, 52]
        predicted = inputs.predicted + correction @ self.moves  # [B, 24]
        left, right = (
            ((predicted - face) * self.weigh.exp()).square().sum(1).add(_EPSILON).sqrt()
            for face in (inputs.left, inputs.right)
        )
        return (right - left) * self.steepness.exp(), softplus(self.threshold)


class JudgeNetwork(nn.Module):
    """A head for each region, and the projection of image features [D, F]."""

    mean: torch.Tensor
    basis: torch.Tensor

    def __init__(self, mean: torch.Tensor, basis: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)
        self.register_buffer("temperature", torch.ones(()))
        self.eyes = nn.ModuleDict({region: _RegionHead(region, basis.shape[1]) for region in REGIONS})


def fit_projection(pictures: Sequence[ImageFeatures]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean [D] of image features and their principal axes [D, F], scaled to a mean square of a quarter."""
    features = np.array([each.features for each in pictures], np.float32)
    mean = features.mean(axis=0)
    basis = _principal_axes(features - mean, _FEATURES)
    spread = np.sqrt(np.mean(((features - mean) @ basis) ** 2)) if basis.size else 1.0
    return torch.from_numpy(mean), torch.from_numpy(basis / (2 * spread)).float()


def make_inputs(
    network: JudgeNetwork,
    region: Region,
    pictures: Sequence[ImageFeatures],
    left: np.ndarray,
    right: np.ndarray,
    answer: Sequence[int] = (),
) -> JudgeInputs:
    """Return n questions of one region as tensors.

    Args:
        network: projects the features.
        region: of all questions.
        pictures: of the questions, n of them.
        left: float32[n, 52], the faces on the left.
        right: float32[n, 52], the faces on the right.
        answer: classes as indices into ``ANSWERS``, if known.
    """
    features = torch.from_numpy(np.array([each.features for each in pictures], np.float32))
    readings = np.array([each.reading for each in pictures], np.float32)
    # Faces repeat: a candidate appears in several questions, a reading in all questions about its picture.
    faces, inverse = np.unique(np.concatenate([readings, left, right]), axis=0, return_inverse=True)
    predicted, one, other = torch.from_numpy(project_vertices(faces, region)[inverse]).chunk(3)
    projected = (features - network.mean) @ network.basis
    return JudgeInputs(projected, torch.from_numpy(readings), predicted, one, other, torch.tensor(answer))


def log_probs(network: JudgeNetwork, region: Region, inputs: JudgeInputs) -> torch.Tensor:
    """Return log probabilities of ``ANSWERS``, [B, 3]."""
    gain, threshold = network.eyes[region](inputs)
    temperature = network.get_buffer("temperature")
    a, b = logsigmoid((gain - threshold) / temperature), logsigmoid((-gain - threshold) / temperature)
    same = torch.log((1 - a.exp() - b.exp()).clamp_min(_EPSILON))
    return torch.stack([a, b, same], dim=1)


def train_network(
    network: JudgeNetwork,
    training: Mapping[Region, JudgeInputs],
    tuning: Mapping[Region, JudgeInputs],
    settings: JudgeSettings,
) -> None:
    """Train until the tuning loss stops falling; the network ends with the weights of the lowest tuning loss."""
    groups = [
        {
            "params": [parameter for parameter in network.parameters() if parameter.ndim == dimensions],
            "lr": factor * settings.learning_rate,
            "weight_decay": settings.weight_decay if dimensions else 0.0,
        }
        for dimensions, factor in enumerate(_LR_FACTORS)
    ]
    optimizer = torch.optim.AdamW(groups)
    examples = [(region, index) for region, inputs in training.items() for index in range(len(inputs.answer))]
    rng = np.random.default_rng([settings.seed, 21])
    best, lowest, stale = copy.deepcopy(network.state_dict()), float(_evaluate(network, tuning)), 0
    for _ in tqdm(range(settings.epochs), desc="learning", unit="epoch", leave=False):
        network.train()
        order = rng.permutation(len(examples))
        for batch in np.array_split(order, -(-len(order) // settings.batch_size)):
            drawn = [examples[index] for index in batch]
            parts = {}
            for region, inputs in training.items():
                here = [index for name, index in drawn if name == region]
                if here:
                    parts[region] = inputs.select(torch.tensor(here))
            optimizer.zero_grad()
            (_loss(network, parts) / len(batch)).backward()
            optimizer.step()
        loss, stale = _evaluate(network, tuning), stale + 1
        if loss < lowest:
            best, lowest, stale = copy.deepcopy(network.state_dict()), loss, 0
        if stale == settings.patience:
            break
    network.load_state_dict(best)
    network.eval()


def _evaluate(network: JudgeNetwork, parts: Mapping[Region, JudgeInputs]) -> float:
    network.eval()
    with torch.inference_mode():
        return float(_loss(network, parts))


def predict_probs(network: JudgeNetwork, parts: Mapping[Region, JudgeInputs]) -> np.ndarray:
    """Return probabilities of ``ANSWERS``, float64[n, 3]."""
    with torch.inference_mode():
        return np.concatenate(
            [log_probs(network, region, inputs).exp().double().numpy() for region, inputs in parts.items()]
        )


def best_temperature(network: JudgeNetwork, tuning: Mapping[Region, JudgeInputs]) -> float:
    """Return the temperature with the lowest loss on the tuning choices (Guo et al. 2017)."""
    temperature, losses = network.get_buffer("temperature"), []
    for value in _TEMPERATURES:
        temperature.fill_(float(value))
        losses.append(_evaluate(network, tuning))
    return float(_TEMPERATURES[int(np.argmin(losses))])


def _loss(network: JudgeNetwork, parts: Mapping[Region, JudgeInputs]) -> torch.Tensor:
    """Return the sum of negative log probabilities of the answers."""
    losses = [
        -log_probs(network, region, inputs).gather(1, inputs.answer[:, None]).sum() for region, inputs in parts.items()
    ]
    return torch.stack(losses).sum()


def project_vertices(faces: np.ndarray, region: Region) -> np.ndarray:
    """Return the vertex positions of faces, others than the region's actions at rest, along their principal axes.

    Args:
        faces: float[n, 52] in [0, 1].
        region: whose actions move the vertices.

    Returns:
        float32[n, 24]; distances are root mean squares over vertices, in percent of the inter-pupil distance.
    """
    mean, axes = _axes(region)
    return np.asarray((_vertices(faces, region) - mean) @ axes, np.float32)


@functools.cache
def _axes(region: Region) -> tuple[np.ndarray, np.ndarray]:
    """Return mean float32[3V] and principal axes float32[3V, 24] of random expressions."""
    rng = np.random.default_rng(20)
    examples = _vertices(np.array([sample_coefficients(rng) for _ in range(_EXAMPLES)]), region)
    mean = examples.mean(axis=0)
    return mean, _principal_axes(examples - mean, _AXES)


def _vertices(faces: np.ndarray, region: Region) -> np.ndarray:
    """Return the region's vertex positions, float32[n, 3V], in the scale of ``project_vertices``."""
    moving, head = moving_vertices(ACTIONS[region]), rig()
    masked = mask_outside(np.asarray(faces, np.float32), region)
    parts = [
        head.vertices(masked[start : start + _BATCH])[:, moving].reshape(-1, 3 * len(moving))
        for start in range(0, len(masked), _BATCH)
    ]
    return np.concatenate(parts) * np.float32(100 / head.inter_pupil / np.sqrt(len(moving)))


def _principal_axes(centred: np.ndarray, count: int) -> np.ndarray:
    """Return at most ``count`` orthonormal principal axes float32[D, k] of rows [n, D], by their [n, n] Gram matrix."""
    values, vectors = np.linalg.eigh(centred @ centred.T)  # ascending
    kept = [k for k in range(len(values) - 1, -1, -1) if values[k] > 1e-6 * values[-1]][:count]
    return np.asarray(centred.T @ (vectors[:, kept] / np.sqrt(values[kept])), np.float32)
