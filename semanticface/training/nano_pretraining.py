"""Pretraining of nano: the optimizer of both stages, and the language stage on feature maps that are computed once.

``train/pretrain.py`` makes nano with it; ``eval/ablations.py`` compares what an answer holds and in which order. A
``MakeTargets`` function turns each picture into the answers to learn; ``make_targets`` is nano's.

The language loss is the cross-entropy of the labels plus, because answers carry the mean of each number's
distribution, the squared distance of that mean from a target.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

from semanticface.arkit import N_ACTIONS
from semanticface.models import nano
from semanticface.models.answer_tokens import (
    IGNORE_INDEX,
    AnswerEncoder,
    AnswerEncoding,
    Numbers,
    branch_mask,
    concat_branches,
)
from semanticface.prompts import load_prompt, messages
from semanticface.semantics.analysis import Analysis, describe_many
from semanticface.semantics.answer import format_answer
from semanticface.training.muon import MuonAdamW
from semanticface.training.packing import ATTENTION, PackedRows
from semanticface.utils.files import atomic_path
from semanticface.utils.precision import fast_products
from semanticface.utils.prefetch import prefetch
from semanticface.utils.progress import tqdm

_MEAN_WEIGHT = 20.0
_NO_EMOTION_EVERY = 8
"""One step in so many prompts for no emotion, with answers that have none."""


def one_cycle(step: int, steps: int, warmup: int = 200) -> float:
    """Return the share of the peak learning rate at ``step``: linear warm-up, then a half cosine down to 1 %."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def save_state(path: Path, **state: object) -> None:
    """Write a checkpoint."""
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


@dataclass(frozen=True, eq=False)
class PretrainData:
    """Training data of the language stage.

    Attributes:
        features: float16[N, C, H, W], the vision encoder's feature maps.
        truth: float32[N, 52], ground truth coefficients.
        predicted: float32[N, 52] in [0, 1], coefficients predicted from the feature maps.
        mean_targets: float32[N, 61], targets of the means of the numbers' distributions, those of the pose in
            ``arkit.pose_units``; [N, 52] without pose.
        pose: float32[N, 9], radians (``arkit.POSE_NAMES``); None teaches no pose.
        exact: bool[N], whether ``truth`` is that of the whole face; None if all are. Others teach numbers, no words.
    """

    features: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    mean_targets: np.ndarray
    exact: np.ndarray | None = None
    pose: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PretrainExample:
    """One picture of a batch.

    Attributes:
        coefficients: float32[52], ground truth.
        analysis: of the ground truth.
        predicted_analysis: of the coefficients predicted from the feature map.
        index: position in the batch.
        exact: whether the ground truth is that of the whole face.
        pose: float32[9], radians, or None.
    """

    coefficients: np.ndarray
    analysis: Analysis
    predicted_analysis: Analysis
    index: int
    exact: bool = True
    pose: np.ndarray | None = None


MakeTargets = Callable[[AnswerEncoder, PretrainExample], list[AnswerEncoding]]
"""Returns the answers to learn for one picture; those of a batch must hold at least one number."""


def make_targets(encoder: AnswerEncoder, example: PretrainExample) -> list[AnswerEncoding]:
    """Nano's targets: for every other picture numbers behind the predicted analysis, for the others the ground truth
    analysis, and numbers without analysis. Without exact ground truth there are only numbers."""
    if example.index % 2:
        return [encoder(format_answer(example.coefficients, example.predicted_analysis, example.pose), "numbers")]
    if not example.exact:
        return [encoder(format_answer(example.coefficients, None, example.pose), "numbers")]
    both = [
        encoder(format_answer(example.coefficients, example.analysis), "analysis"),
        encoder(format_answer(example.coefficients, None, example.pose), "numbers"),
    ]
    return [concat_branches(both)] if encoder.parallel else both


@dataclass(frozen=True)
class PretrainSettings:
    """Hyperparameters of the language stage.

    Attributes:
        samples: pictures trained on, mirror images and repetitions counted.
        learning_rate: peak learning rate of AdamW, a tenth of Muon's.
        batch_size: pictures per step.
        numbers: layout of the 52 numbers.
        seed: of the order of the pictures.
    """

    samples: int = 80_000
    learning_rate: float = 3e-3
    batch_size: int = 32
    numbers: Numbers = "parallel"
    seed: int = 0

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return self.samples // self.batch_size

    def lr_factor(self, step: int) -> float:
        """Return the share of the peak learning rate at a step; at most a fifth of the steps warm up."""
        return one_cycle(step, self.steps, min(200, max(1, self.steps // 5)))

    def batch_indices(self, step: int, count: int) -> np.ndarray:
        """Return which of ``count`` pictures a step takes; int64[batch_size]."""
        return np.random.default_rng([self.seed, 1, step]).integers(0, count, self.batch_size)


def like_renders(
    predicted: np.ndarray, truth: np.ndarray, readings: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Sample what real faces may be, given what the vision encoder reads from them.

    Nobody knows the true coefficients of a photograph. Each is drawn from renders that the encoder reads alike, so that
    the language model learns how sure it can be and not the reading itself.

    Args:
        predicted: float32[N, 52], read from renders.
        truth: float32[N, 52], of the same renders.
        readings: float32[M, 52], read from real pictures.
        rng: of the draws.

    Returns:
        float32[M, 52].
    """
    out = np.empty_like(readings)
    near = max(1, len(predicted) // 100)
    for action in range(readings.shape[1]):
        order = np.argsort(predicted[:, action])
        place = np.searchsorted(predicted[order, action], readings[:, action]) + rng.integers(
            -near, near + 1, len(readings)
        )
        out[:, action] = truth[order[place.clip(0, len(order) - 1)], action]
    return out


def adopt_model(bundle: Any, vision_encoder: nn.Module) -> Any:
    """Return a trained model with another vision encoder, frozen, and a language model to train on.

    Its tokenizer gets the tokens of a pose if it lacks them.
    """
    model: Any = bundle.model.float()
    nano.add_pose_tokens(bundle.tokenizer)
    if model.get_input_embeddings().num_embeddings < len(bundle.tokenizer):
        model.resize_token_embeddings(len(bundle.tokenizer), mean_resizing=False)
    model.requires_grad_(True)
    model.model.vision_tower.load_state_dict(vision_encoder.state_dict())
    model.model.vision_tower.requires_grad_(False).eval()
    return model.to(next(vision_encoder.parameters()).device)


def new_model(tokenizer: Any, vision_encoder: nn.Module, seed: int) -> Any:
    """Return nano with a frozen vision encoder and an untrained language model, on the encoder's device."""
    torch.manual_seed(seed)
    model: Any = nano.build_model(tokenizer)
    model.to(next(vision_encoder.parameters()).device)
    model.model.vision_tower.load_state_dict(vision_encoder.state_dict())
    model.model.vision_tower.requires_grad_(False).eval()
    return model


def pretrain_language_model(
    model: Any,
    processor: Any,
    data: PretrainData,
    make_targets: MakeTargets,
    settings: PretrainSettings,
    accelerator: Accelerator,
    state_file: Path,
    *,
    name: str = "language",
    save_every: int = 500,
) -> int:
    """Train a model's projector and language model, or resume a stopped training.

    Args:
        model: from ``new_model``.
        processor: nano's.
        data: training data, the same in every process.
        make_targets: returns the answers to learn for a picture.
        settings: hyperparameters.
        accelerator: of the processes, which share each batch.
        state_file: checkpoint; loaded if it exists.
        name: of the progress bar.
        save_every: steps between checkpoints; the last step is always saved.

    Returns:
        The number of steps taken by this call.
    """
    tokenizer = processor.tokenizer
    prompts = {emotion: _prompt_ids(processor, emotion) for emotion in (True, False)}
    # The tokens of the values of a number, and of a rotation.
    kinds = [nano.number_token_ids] if data.pose is None else [nano.number_token_ids, nano.pose_token_ids]
    number_ids = torch.stack([ids_of(tokenizer) for ids_of in kinds])  # [kinds, 101]
    values = torch.linspace(0, 1, number_ids.shape[1], device=accelerator.device)
    encoder = AnswerEncoder(tokenizer, tokenizer.eos_token_id, numbers=settings.numbers)

    trainable = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    matrices = [weight for name, weight in trainable.items() if weight.ndim == 2 and "embed" not in name]
    known = set(map(id, matrices))
    others = [weight for weight in trainable.values() if id(weight) not in known]
    optimizer = MuonAdamW(accelerator, matrices, others, settings.learning_rate)
    first = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]

    exact = np.ones(len(data.truth), bool) if data.exact is None else data.exact
    poses = [None] * len(data.truth) if data.pose is None else data.pose

    def make_batch(step: int) -> tuple[Any, ...]:
        indices = settings.batch_indices(step, len(data.truth))[accelerator.process_index :: accelerator.num_processes]
        emotion = step % _NO_EMOTION_EVERY != _NO_EMOTION_EVERY - 1
        analyses = describe_many(data.truth[indices], emotion=emotion)
        predicted = describe_many(data.predicted[indices], emotion=emotion)
        rows = [
            (encoding, index)
            for position, (index, analysis, other) in enumerate(zip(indices, analyses, predicted, strict=True))
            for encoding in make_targets(
                encoder, PretrainExample(data.truth[index], analysis, other, position, exact[index], poses[index])
            )
        ]
        return _pack(rows, prompts[emotion], data)

    model.train()
    model.model.vision_tower.eval()
    attention = model.model.language_model.config._attn_implementation
    model.model.language_model.set_attn_implementation(ATTENTION)
    bar = tqdm(
        prefetch((make_batch(step) for step in range(first, settings.steps)), 1),
        desc=name, initial=first, total=settings.steps, unit="step", disable=not accelerator.is_main_process,
    )  # fmt: skip
    for step, (ids, positions, rows, labels, owners, mean_targets, features) in enumerate(bar, start=first):
        ids, labels, owners = (part.to(accelerator.device) for part in (ids, labels, owners))
        labelled = labels != IGNORE_INDEX
        with fast_products(accelerator.device):
            embeds = model.get_input_embeddings()(ids)  # [1, T, D]
            image = model.model.multi_modal_projector(features.to(ids.device).flatten(2).transpose(1, 2))
            embeds = embeds.masked_scatter((ids == model.config.image_token_id)[..., None], image.to(embeds.dtype))
            hidden = model.model.language_model(inputs_embeds=embeds, position_ids=positions.to(ids.device), rows=rows)
            logits = model.lm_head(hidden.last_hidden_state[0, labelled]).float()  # [labels, V]
        token_loss = F.cross_entropy(logits, labels[labelled])
        owner = owners[labelled]
        own_ids = number_ids.to(ids.device)[(owner[owner >= 0] >= N_ACTIONS).long()]  # [numbers, 101]
        means = logits[owner >= 0].gather(1, own_ids).softmax(-1) @ values
        number_loss = (means - mean_targets.to(ids.device)[labelled][owner >= 0]).square().mean()
        optimizer.step(token_loss + _MEAN_WEIGHT * number_loss, settings.lr_factor(step))
        if step % 20 == 0:
            bar.set_postfix(tokens=f"{token_loss:.3f}", numbers=f"{number_loss:.4f}")
        if accelerator.is_main_process and ((step + 1) % save_every == 0 or step + 1 == settings.steps):
            save_state(state_file, model=model.state_dict(), optimizer=optimizer.state_dict(), step=step + 1)
    model.model.language_model.set_attn_implementation(attention)
    model.eval()
    return settings.steps - first


def _prompt_ids(processor: Any, emotion: bool) -> list[int]:
    chat = processor.apply_chat_template(messages(load_prompt("distill", emotion=emotion)), add_generation_prompt=True)
    chat = chat.replace("<image>", "<image>" * (nano.IMAGE_SIZE // nano.STRIDE) ** 2)
    ids: list[int] = processor.tokenizer.encode(chat, add_special_tokens=False)
    return ids


def _pack(rows: list[tuple[AnswerEncoding, int]], prompt: list[int], data: PretrainData) -> tuple[Any, ...]:
    """Pack rows, each an answer and the index of its picture, without padding.

    Returns:
        ids int64[1, T], positions int64[1, T], ``PackedRows``, labels int64[T], the number that each label belongs to
        int64[T], its mean target float32[T], and the feature maps float32[rows, C, H, W].
    """
    n, ids, positions, labels, owners, masks = len(prompt), [], [], [], [], []
    for encoding, _ in rows:
        ids += prompt + encoding.ids
        positions += [*range(n), *(n - 1 + offset for offset in encoding.position_offsets)]
        labels += [IGNORE_INDEX] * (n - 1)
        weighted = zip(encoding.labels, encoding.loss_weights, strict=True)
        labels += [label if weight else IGNORE_INDEX for label, weight in weighted]
        owners += [-1] * (n - 1) + encoding.number_ids
        branches = torch.tensor([[0] * n + encoding.branch_ids])
        masks.append(branch_mask(branches, branches, torch.arange(branches.shape[1])[None]))
    pictures, owner = np.array([index for _, index in rows]), torch.tensor(owners)
    lengths = tuple(mask.shape[-1] for mask in masks)
    row_of_token = np.repeat(np.arange(len(rows)), lengths)
    mean_targets = torch.from_numpy(data.mean_targets[pictures])[row_of_token, owner.clamp(min=0)]
    return (
        torch.tensor([ids]),
        torch.tensor([positions]),
        PackedRows(lengths, tuple(masks)),
        torch.tensor(labels),
        owner,
        mean_targets,
        torch.from_numpy(data.features[pictures]).float(),
    )
