"""Teaching a new small language model beside a frozen vision tower, from feature maps that are computed once.

``train/pretrain.py`` makes nano so, ``eval/ablations.py`` compares what may stand in an answer and in which order. What
one picture is taught by is a function (``Teach``) that turns it into lessons; ``make_targets`` is nano's.

The loss is the cross-entropy of the tokens that are to be learnt, and beside it the squared distance of the mean of
each number's distribution from an aim, because that mean is what answers carry.

Optimizer steps of a training from nothing: Muon beside AdamW, on one process or several; and what is around them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

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
from semanticface.training.packing import ATTENTION, PackedRows
from semanticface.utils.files import atomic_path
from semanticface.utils.progress import tqdm

T = TypeVar("T")


class MuonAdamW:
    """Muon for matrices and filters, AdamW for other weights, on gradients averaged over all processes.

    Muon (Jordan et al. 2024) makes every update of a matrix orthogonal. From nothing, 40,000 pictures took the tower
    to a correlation of 0.23 where AdamW alone was at 0.04.
    """

    def __init__(self, accelerator: Accelerator, weights: list[nn.Parameter], others: list[nn.Parameter], lr: float):
        """Prepare to train.

        Args:
            accelerator: whose processes take part; the same weights in each.
            weights: matrices [out, in] and filters [out, in, H, W] in channels-last memory, for Muon at ten times lr.
            others: everything else that learns, for AdamW at lr.
            lr: peak learning rate.
        """
        self.accelerator, self.weights, self.others = accelerator, weights, others
        # Muon takes matrices: the same memory, a row for each filter.
        self.matrices = [nn.Parameter(_as_matrix(weight.data)) for weight in weights]
        if any(one.data_ptr() != other.data_ptr() for one, other in zip(self.matrices, weights, strict=True)):
            raise ValueError("Filters must be in channels-last memory: model.to(memory_format=torch.channels_last).")
        self.optimizers = (
            torch.optim.Muon(self.matrices, 10 * lr, weight_decay=0.05),
            torch.optim.AdamW(others, lr, weight_decay=0.05, betas=(0.9, 0.98)),
        )
        self.peaks = (10 * lr, lr)

    def take(self, loss: torch.Tensor, share: float) -> None:
        """Follow a loss at a share of the peak learning rates."""
        weights = self.weights + self.others
        for weight in weights:
            weight.grad = None
        loss.backward()
        average_gradients(self.accelerator, weights)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for matrix, weight in zip(self.matrices, self.weights, strict=True):
            matrix.grad = _as_matrix(_gradient(weight))
        for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * share
            optimizer.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


def one_cycle(step: int, steps: int, warmup: int = 200) -> float:
    """Return the share of the peak learning rate at ``step``: linear warm-up, then a half cosine down to 1 %."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def prefetch(make: Callable[[int], T], count: int, start: int) -> Iterator[T]:
    """Yield ``make(start)`` to ``make(count - 1)``, each prepared on a thread while the one before is used."""
    if start >= count:
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(make, start)
        for step in range(start, count):
            ready = coming.result()
            if step + 1 < count:
                coming = pool.submit(make, step + 1)
            yield ready


def save_state(path: Path, **state: object) -> None:
    """Write a training state that a killed run goes on from."""
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def average_gradients(accelerator: Accelerator, weights: list[nn.Parameter]) -> None:
    """Replace gradients by their mean over all processes."""
    if accelerator.num_processes > 1:
        gradients = [_gradient(weight) for weight in weights]
        shared = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
        for gradient, part in zip(gradients, shared.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _gradient(weight: nn.Parameter) -> torch.Tensor:
    assert weight.grad is not None
    return weight.grad


def _as_matrix(weight: torch.Tensor) -> torch.Tensor:
    return weight.permute(0, 2, 3, 1).flatten(1) if weight.ndim == 4 else weight


_MEAN_WEIGHT = 20.0
_WITHOUT_EMOTION = 8
"""One step in so many asks for no emotion, and none is told."""


@dataclass(frozen=True, eq=False)
class PretrainData:
    """What a language model is taught from.

    Attributes:
        maps: float16[N, C, H, W], a tower's feature maps.
        truth: float32[N, 52], the coefficients.
        seen: float32[N, 52] in [0, 1], what can be read off the maps.
        aims: float32[N, 52], where the means of the numbers' distributions are drawn to.
    """

    maps: np.ndarray
    truth: np.ndarray
    seen: np.ndarray
    aims: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class PretrainExample:
    """One picture of a batch.

    Attributes:
        values: float32[52], its coefficients.
        analysis: their analysis.
        glimpse: the analysis of what can be read off its map.
        turn: its place in the batch.
    """

    values: np.ndarray
    analysis: Analysis
    glimpse: Analysis
    turn: int


Teach = Callable[[AnswerEncoder, PretrainExample], list[AnswerEncoding]]
"""The lessons of one picture; those of a batch must teach at least one number."""


@dataclass(frozen=True)
class PretrainSettings:
    """How long and how fast.

    Attributes:
        samples: pictures shown; mirror images count, as do pictures shown again.
        lr: peak learning rate of AdamW, a tenth of Muon's.
        batch: pictures a step.
        numbers: how answers are laid out.
        seed: of the order of the pictures.
    """

    samples: int = 80_000
    lr: float = 3e-3
    batch: int = 32
    numbers: Numbers = "parallel"
    seed: int = 0

    @property
    def steps(self) -> int:
        """Optimizer steps that show the samples."""
        return self.samples // self.batch

    def rate(self, step: int) -> float:
        """Return the share of the peak learning rate at a step; at most a fifth of the steps warm up."""
        return one_cycle(step, self.steps, min(200, max(1, self.steps // 5)))

    def chosen(self, step: int, count: int) -> np.ndarray:
        """Return which of ``count`` pictures a step shows; int64[batch]."""
        return np.random.default_rng([self.seed, 1, step]).integers(0, count, self.batch)


def make_targets(tokens: AnswerEncoder, shown: PretrainExample) -> list[AnswerEncoding]:
    """Nano's lessons: every other picture numbers behind what the tower sees, the others words, and numbers alone."""
    if shown.turn % 2:
        return [tokens(format_answer(shown.values, shown.glimpse), "numbers")]
    both = [
        tokens(format_answer(shown.values, shown.analysis), "analysis"),
        tokens(format_answer(shown.values, None), "numbers"),
    ]
    return [concat_branches(both)] if tokens.parallel else both


def new_model(tokenizer: Any, tower: nn.Module, seed: int) -> Any:
    """Return nano with a tower that is frozen and a language model that knows nothing; on the tower's device."""
    torch.manual_seed(seed)
    model: Any = nano.build_model(tokenizer)
    model.to(next(tower.parameters()).device)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.vision_tower.requires_grad_(False).eval()
    return model


def pretrain_language_model(
    model: Any,
    processor: Any,
    sights: PretrainData,
    teach: Teach,
    settings: PretrainSettings,
    accelerator: Accelerator,
    state_file: Path,
    *,
    name: str = "language",
    save_every: int = 500,
) -> int:
    """Train a model's language half, or go on where an earlier call was stopped.

    Args:
        model: from ``new_model``.
        processor: nano's.
        sights: what to teach from; the same in every process.
        teach: what each picture is taught by.
        settings: how long and how fast.
        accelerator: whose processes share each batch.
        state_file: where the state is kept; read where it exists.
        name: of the progress bar.
        save_every: steps between two savings; the end is always saved.

    Returns:
        The steps that this call took.
    """
    tokenizer = processor.tokenizer
    prefixes = {emotion: _prefix(processor, emotion) for emotion in (True, False)}
    numbers = nano.number_token_ids(tokenizer)
    values = torch.linspace(0, 1, len(numbers), device=accelerator.device)
    answers = AnswerEncoder(tokenizer, tokenizer.eos_token_id, numbers=settings.numbers)

    learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    matrices = [weight for name, weight in learning.items() if weight.ndim == 2 and "embed" not in name]
    known = set(map(id, matrices))
    others = [weight for weight in learning.values() if id(weight) not in known]
    steps = MuonAdamW(accelerator, matrices, others, settings.lr)
    first = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        steps.load_state_dict(state["optimizer"])
        first = state["step"]

    def batch(step: int) -> tuple[Any, ...]:
        chosen = settings.chosen(step, len(sights.truth))[accelerator.process_index :: accelerator.num_processes]
        emotion = step % _WITHOUT_EMOTION != _WITHOUT_EMOTION - 1
        analyses = describe_many(sights.truth[chosen], emotion=emotion)
        glimpses = describe_many(sights.seen[chosen], emotion=emotion)
        rows = [
            (lesson, index)
            for turn, (index, analysis, glimpse) in enumerate(zip(chosen, analyses, glimpses, strict=True))
            for lesson in teach(answers, PretrainExample(sights.truth[index], analysis, glimpse, turn))
        ]
        return _packed(rows, prefixes[emotion], sights)

    model.train()
    model.model.vision_tower.eval()
    attention = model.model.language_model.config._attn_implementation
    model.model.language_model.set_attn_implementation(ATTENTION)
    bar = tqdm(
        prefetch(batch, settings.steps, first), desc=name, initial=first, total=settings.steps, unit="step",
        disable=not accelerator.is_main_process,
    )  # fmt: skip
    for step, (ids, places, rows, labels, owners, aims, maps) in enumerate(bar, start=first):
        ids, labels, owners = (part.to(accelerator.device) for part in (ids, labels, owners))
        learnt = labels != IGNORE_INDEX
        with torch.autocast(accelerator.device.type, torch.bfloat16):
            embeds = model.get_input_embeddings()(ids)
            image = model.model.multi_modal_projector(maps.to(ids.device).flatten(2).transpose(1, 2))
            embeds = embeds.masked_scatter((ids == model.config.image_token_id)[..., None], image.to(embeds.dtype))
            hidden = model.model.language_model(inputs_embeds=embeds, position_ids=places.to(ids.device), rows=rows)
            logits = model.lm_head(hidden.last_hidden_state[0, learnt]).float()
        tokens_loss = F.cross_entropy(logits, labels[learnt])
        at_number = owners[learnt] >= 0
        expected = logits[at_number][:, numbers].softmax(-1) @ values
        numbers_loss = (expected - aims.to(ids.device)[learnt][at_number]).square().mean()
        steps.take(tokens_loss + _MEAN_WEIGHT * numbers_loss, settings.rate(step))
        if step % 20 == 0:
            bar.set_postfix(tokens=f"{tokens_loss:.3f}", numbers=f"{numbers_loss:.4f}")
        if accelerator.is_main_process and ((step + 1) % save_every == 0 or step + 1 == settings.steps):
            save_state(state_file, model=model.state_dict(), optimizer=steps.state_dict(), step=step + 1)
    model.model.language_model.set_attn_implementation(attention)
    model.eval()
    return settings.steps - first


def _prefix(processor: Any, emotion: bool) -> list[int]:
    """Return the tokens of the prompt, up to where the answer begins."""
    chat = processor.apply_chat_template(messages(load_prompt("distill", emotion=emotion)), add_generation_prompt=True)
    chat = chat.replace("<image>", "<image>" * (nano.IMAGE_SIZE // nano.STRIDE) ** 2)
    ids: list[int] = processor.tokenizer.encode(chat, add_special_tokens=False)
    return ids


def _packed(rows: list[tuple[AnswerEncoding, int]], prefix: list[int], sights: PretrainData) -> tuple[Any, ...]:
    """Lay rows end to end, so that nothing is computed for padding.

    Returns:
        ids int64[1, T], positions int64[1, T], ``PackedRows``, labels int64[T], the number that each label is part of
        int64[T], its aim float32[T], and the feature maps float32[rows, C, H, W].
    """
    n, ids, places, labels, owners, masks = len(prefix), [], [], [], [], []
    for lesson, _ in rows:
        ids += prefix + lesson.ids
        places += [*range(n), *(n - 1 + step for step in lesson.position_offsets)]
        labels += [IGNORE_INDEX] * (n - 1)
        labels += [
            label if weight else IGNORE_INDEX for label, weight in zip(lesson.labels, lesson.loss_weights, strict=True)
        ]
        owners += [-1] * (n - 1) + lesson.number_ids
        branches = torch.tensor([[0] * n + lesson.branch_ids])
        masks.append(branch_mask(branches, branches, torch.arange(branches.shape[1])[None]))
    pictures, owner = np.array([index for _, index in rows]), torch.tensor(owners)
    lengths = tuple(mask.shape[-1] for mask in masks)
    aims = torch.from_numpy(sights.aims[pictures])[np.repeat(np.arange(len(rows)), lengths), owner.clamp(min=0)]
    maps = torch.from_numpy(sights.maps[pictures]).float()
    return (
        torch.tensor([ids]),
        torch.tensor([places]),
        PackedRows(lengths, tuple(masks)),
        torch.tensor(labels),
        owner,
        aims,
        maps,
    )
