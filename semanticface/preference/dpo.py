"""DPO (Rafailov et al. 2023) on pairs of faces, with TRL's ``DPOTrainer`` on the model's LoRA adapter.

The reference model is the adapter before the first step. Its log-probabilities of all pairs are computed once, which
TRL itself refuses for pictures. The loss is -log sigmoid(beta * (reward of the chosen - reward of the rejected)), where
a reward is the log-probability relative to the reference, plus ``sft_weight`` times the mean negative log-likelihood of
the chosen face, without which both faces may become less likely. ``pair_collator`` says which tokens are scored.

A model may learn to prefer without looking. So reward margins are measured with a blank picture too: most of the gain
must vanish without the picture.
"""

from __future__ import annotations

import contextlib
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import torch
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer
from trl.trainer.utils import FusedCausalLMOutput

from semanticface.config import check_range
from semanticface.errors import DatasetError
from semanticface.models.answer_tokens import IGNORE_INDEX, to_model_inputs
from semanticface.models.loading import Bundle
from semanticface.preference.pair_collator import CHOSEN, REJECTED, PairCollator, PairDataset, PairExample, blank
from semanticface.training.collator import split_targets
from semanticface.training.fused_ops import fused_lora, fused_rms_norm
from semanticface.training.packing import pack, padding_free
from semanticface.training.trainer import SanityCheckCallback, last_checkpoint
from semanticface.training.vision_cache import CachedVisionEncoder, encode_images
from semanticface.utils.precision import has_bfloat16
from semanticface.utils.progress import tqdm

_CACHE_BYTES = 2**30
"""Most memory for cached vision features; beyond it the vision encoder runs for every batch."""
_BATCH = 16  # pictures encoded together


@dataclass(frozen=True, slots=True)
class AlignSettings:
    """How DPO trains; names as in TRL's ``DPOConfig`` where it has them.

    Attributes:
        beta: strength of the pull towards the reference model; higher deviates less.
        sft_weight: weight of the chosen face's negative log-likelihood beside the DPO loss.
        analysis: pairs have an analysis too, Stage I's of each face; false for models whose analyses are unreliable.
        mirror: also train on every pair's mirror image.
        num_train_epochs: epochs over the pairs and mirror images.
        per_device_train_batch_size: pairs per forward pass; lower it when memory is short.
        gradient_accumulation_steps: batches per optimizer step.
        learning_rate: peak; falls to zero along a cosine.
        warmup_ratio: proportion of the steps over which the rate rises from zero.
        max_grad_norm: longer gradients are clipped.
        precision: as in ``training.TrainSettings``.
        gradient_checkpointing: recompute activations instead of keeping them: slower, far less memory.
        save_steps: steps between checkpoints; a killed training resumes from the last.
        seed: of the order of pairs.
    """

    beta: float = 0.3
    sft_weight: float = 0.2
    analysis: bool = False
    mirror: bool = False
    num_train_epochs: int = 2
    per_device_train_batch_size: int = 48
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-3
    warmup_ratio: float = 0.1
    max_grad_norm: float = 1.0
    precision: Literal["model", "fast"] = "model"
    gradient_checkpointing: bool = False
    save_steps: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "save_steps"):
            check_range(f"align.{name}", getattr(self, name), 1)
        check_range("align.beta", self.beta, 1e-3, 100)
        check_range("align.sft_weight", self.sft_weight, 0, 100)
        check_range("align.learning_rate", self.learning_rate, 1e-8, 1)
        check_range("align.warmup_ratio", self.warmup_ratio, 0, 1)
        check_range("align.max_grad_norm", self.max_grad_norm, 1e-3)
        check_range("align.seed", self.seed, 0)


@dataclass(frozen=True, slots=True)
class Margins:
    """Margins between chosen and rejected faces: means over pairs, in nats.

    Attributes:
        pairs: how many.
        before: log p(chosen) - log p(rejected) of the reference model.
        after: the same of the policy.
        blank_before: ``before`` with a grey picture.
        blank_after: ``after`` with a grey picture.
        accuracy: proportion of pairs whose margin grew; unchanged ones count half.
    """

    pairs: int
    before: float
    after: float
    blank_before: float
    blank_after: float
    accuracy: float

    @property
    def blank_ratio(self) -> float:
        """Proportion of the gain that remains without the picture; near 1 the model learned to ignore the picture."""
        gain = self.after - self.before
        return (self.blank_after - self.blank_before) / gain if gain else float("nan")


class PairScorer:
    """Log-probabilities of a batch of ``PairCollator``; replaces ``forward`` of a PeftModel's base in training.

    Args:
        base: the transformers model inside.
        head: from ``packing.padding_free``.
        encoder: receives the features of batches that carry them.
    """

    def __init__(self, base: Any, head: torch.nn.Linear | None, encoder: CachedVisionEncoder | None) -> None:
        self.base = base
        self.head = head
        self.encoder = encoder

    def forward(self, *, model_inputs: dict[str, Any], labels: torch.Tensor, **_: Any) -> FusedCausalLMOutput:
        """Return what TRL needs for each scored token.

        Args:
            model_inputs: as in the batch.
            labels: int64[2B, 1 + K], the scored tokens behind a pad token.
            _: other arguments of TRL: the tokens again, and options of its own forward.

        Returns:
            ``log_probs``, ``entropy``, ``mean_logits`` and ``is_top1``, each [2B, K], 0 where there is no token.
        """
        model_inputs = dict(model_inputs)
        positions, slots = model_inputs.pop("score_positions"), model_inputs.pop("token_slots")
        if self.encoder is not None:
            self.encoder.set_features(model_inputs.pop("features"))
        scored = model_inputs["labels"] != IGNORE_INDEX  # [R, L]
        forward = type(self.base).forward
        if self.head is None:
            inputs, targets = split_targets(model_inputs)
            logits = forward(self.base, **to_model_inputs(self.base, inputs), use_cache=False).logits
            logits = logits[scored[:, -targets["labels"].shape[1] :]].float()  # [scored positions, V]
        else:
            inputs, _targets = pack(self.base, model_inputs)
            hidden = forward(self.base, **inputs, use_cache=False).logits[0]
            with torch.autocast(hidden.device.type, enabled=False):
                bias = None if self.head.bias is None else self.head.bias.float()
                logits = torch.nn.functional.linear(hidden.float(), self.head.weight.float(), bias)
        # For each scored token [T]: its row in the logits, and the token itself.
        rows = (scored.flatten().cumsum(0) - 1)[positions]
        tokens = labels[:, 1:].flatten()
        scored_ids = tokens[slots]
        log_probs = logits.log_softmax(-1)
        with torch.no_grad():
            entropy = -(log_probs.exp() * log_probs).sum(-1)
            found = {"entropy": entropy[rows], "mean_logits": logits.mean(-1)[rows]}
            found["is_top1"] = (logits.argmax(-1)[rows] == scored_ids).float()
        found["log_probs"] = log_probs[rows, scored_ids]
        zeros = torch.zeros(len(tokens), dtype=torch.float32, device=tokens.device)
        output = {name: zeros.index_add(0, slots, values).view(len(labels), -1) for name, values in found.items()}
        return FusedCausalLMOutput(**output | {"is_top1": output["is_top1"].bool()})


class FaceDPOTrainer(DPOTrainer):
    """``DPOTrainer`` for collated pairs with the reference model's log-probabilities; sends no telemetry."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _send_telemetry(self) -> None:
        pass

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # Without TRL's model card.
        super(DPOTrainer, self)._save_checkpoint(model, trial)


@dataclass(slots=True)
class _PreparedModel:
    """A model whose forward takes batches of pairs."""

    bundle: Bundle
    collator: PairCollator
    scorer: PairScorer
    encoder: CachedVisionEncoder | None
    autocast: torch.dtype | None
    batch_size: int

    def log_probs(self, rows: PairDataset | Sequence[PairExample], desc: str) -> np.ndarray:
        """Return the log-probability of each side's scored tokens; float64[n, 2]."""
        found = []
        model, device = self.bundle.model, self.bundle.device
        training = model.training
        model.eval()
        for start in tqdm(
            range(0, len(rows), self.batch_size), desc=desc, unit=f"{self.batch_size} pairs", leave=False
        ):
            batch = self.collator([rows[i] for i in range(start, min(start + self.batch_size, len(rows)))])
            batch = _to_device(batch, device)
            autocast = torch.autocast(device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None)
            with torch.no_grad(), autocast:
                scores = model(model_inputs=batch["model_inputs"], labels=batch["input_ids"]).log_probs
            found.append(scores.double().sum(1).view(2, -1).T.cpu().numpy())
        model.train(training)
        return np.concatenate(found)

    def cache_features(self, rows: PairDataset) -> str:
        """Cache the vision features of all pictures if they fit in memory; return what was done, and why."""
        if self.encoder is None:
            return "runs for every batch: LoRA trains layers inside it, or the model has none of its own"
        base = self.scorer.base
        cached: list[dict[str, torch.Tensor]] = []
        for start in tqdm(range(0, rows.n_views, _BATCH), desc="encoding", unit=f"{_BATCH} pictures", leave=False):
            crops = [rows.view(number) for number in range(start, min(start + _BATCH, rows.n_views))]
            found = encode_images(self.bundle, base, self.encoder, self.collator, crops, self.autocast)
            if found is None:
                return "runs for every batch: it returns more than tensors of pictures"
            cached += [{name: value[k : k + 1].clone() for name, value in found.items()} for k in range(len(crops))]
            size = sum(value.nbytes for value in cached[0].values()) * rows.n_views
            if size > _CACHE_BYTES:
                return f"runs for every batch: its features would take {size / 1e9:.1f} GB"
        rows.features = cached
        self.scorer.encoder = self.encoder
        self.collator.template = self.collator.encode_prompts([rows.view(0)])
        return f"cached features of {rows.n_views:,} pictures, for {len(rows):,} pairs"

    @contextlib.contextmanager
    def uncached(self) -> Iterator[None]:
        """Run the vision encoder on the pictures themselves until the block ends."""
        encoder, self.scorer.encoder = self.scorer.encoder, None
        try:
            yield
        finally:
            self.scorer.encoder = encoder


def _to_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    return {name: _to_device(inner, device) for name, inner in value.items()} if isinstance(value, dict) else value


@contextlib.contextmanager
def _prepared(bundle: Bundle, collator: PairCollator, settings: AlignSettings) -> Iterator[_PreparedModel]:
    """Make a PeftModel's forward take batches of pairs until the block ends."""
    model = bundle.model
    base = model.get_base_model()
    fast = model.dtype == torch.bfloat16 or (settings.precision == "fast" and has_bfloat16(bundle.device))
    autocast = torch.bfloat16 if fast else None
    tower = base.get_encoder(modality="image")
    frozen = tower is not None and tower is not base and not any(each.requires_grad for each in tower.parameters())
    encoder = CachedVisionEncoder(tower) if frozen else None
    if encoder is not None:
        tower.forward = encoder.forward
    try:
        with padding_free(model, bundle.tokenizer) as head, fused_lora(model, autocast), fused_rms_norm(model):
            scorer = PairScorer(base, head, None)
            base.forward = scorer.forward
            yield _PreparedModel(bundle, collator, scorer, encoder, autocast, settings.per_device_train_batch_size)
    finally:
        base.__dict__.pop("forward", None)
        collator.template = None
        if encoder is not None:
            tower.forward = encoder.original_forward


def align(
    bundle: Bundle,
    settings: AlignSettings,
    collator: PairCollator,
    rows: PairDataset,
    held_out: PairDataset,
    folder: Path,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    log: Callable[[str], object] = print,
) -> Margins:
    """Train the bundle's adapter in place, resuming from the last whole checkpoint in ``folder``.

    Args:
        bundle: from ``model.load_trained(…, trainable=True)``; its adapter at the start is the reference model.
        settings: how.
        collator: makes batches.
        rows: pairs to train on.
        held_out: pairs of other pictures, without mirror images, to measure margins on.
        folder: checkpoints go to ``checkpoints`` inside.
        callbacks: of the trainer.
        log: receives what was decided about vision features.

    Returns:
        Margins on the held-out pairs.

    Raises:
        DatasetError: no pairs to train on, or none held out.
        SemanticFaceError: a parameter without a finite gradient, or a loss that is not finite.
    """
    if not len(rows) or not len(held_out):
        raise DatasetError(
            f"{len(rows)} pairs to train on and {len(held_out)} held out: both are needed, of different people, or of "
            "different pictures where all show one. Make more choices."
        )
    order = np.concatenate([rows.shuffled([settings.seed, epoch]) for epoch in range(settings.num_train_epochs)])
    per_step = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    steps = math.ceil(len(order) / per_step)
    with _prepared(bundle, collator, settings) as model:
        with model.uncached():
            blanks = [blank(held_out[index]) for index in range(len(held_out))]
            blank_before = _margin(model.log_probs(blanks, "before, blank"))
            before = _margin(model.log_probs(held_out, "before"))
        log(f"encoder   {model.cache_features(rows)}")
        reference = model.log_probs(rows, "reference")
        trainer = _make_trainer(model, settings, rows, reference, order, steps, folder, callbacks)
        checkpoint = last_checkpoint(folder / "checkpoints")
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        with model.uncached():
            blank_after = _margin(model.log_probs(blanks, "after, blank"))
            after = _margin(model.log_probs(held_out, "after"))
    gain = after - before
    return Margins(
        pairs=len(held_out),
        before=float(before.mean()),
        after=float(after.mean()),
        blank_before=float(blank_before.mean()),
        blank_after=float(blank_after.mean()),
        accuracy=float((gain > 0).mean() + (gain == 0).mean() / 2),
    )


def _margin(log_probs: np.ndarray) -> np.ndarray:
    return log_probs[:, CHOSEN] - log_probs[:, REJECTED]


def _make_trainer(
    model: _PreparedModel,
    settings: AlignSettings,
    rows: PairDataset,
    reference: np.ndarray,
    order: np.ndarray,
    steps: int,
    folder: Path,
    callbacks: Sequence[TrainerCallback],
) -> FaceDPOTrainer:
    """Return TRL's trainer, without the reference adapter and the forward that its constructor adds."""
    columns = {
        "index": order,
        "ref_chosen_logps": reference[order, CHOSEN],
        "ref_rejected_logps": reference[order, REJECTED],
    }
    data = datasets.Dataset.from_dict(columns)

    def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        logps = {
            name: torch.tensor([item[name] for item in items], dtype=torch.float32)
            for name in ("ref_chosen_logps", "ref_rejected_logps")
        }
        return model.collator([rows[item["index"]] for item in items]) | logps

    with warnings.catch_warnings():
        # transformers 6 calls it activation checkpointing; TRL does not yet.
        warnings.simplefilter("ignore", FutureWarning)
        arguments = _dpo_config(model, settings, steps, folder)
    forward = model.scorer.forward
    trainer = FaceDPOTrainer(
        model=model.bundle.model,
        args=arguments,
        data_collator=collate,
        train_dataset=data,
        processing_class=model.bundle.processor,
        callbacks=[SanityCheckCallback(), *callbacks],
    )
    model.bundle.model.delete_adapter("ref")
    model.scorer.base.forward = forward
    return trainer


def _dpo_config(model: _PreparedModel, settings: AlignSettings, steps: int, folder: Path) -> DPOConfig:
    return DPOConfig(
        output_dir=str(folder / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=int(settings.warmup_ratio * steps),
        max_grad_norm=settings.max_grad_norm,
        beta=settings.beta,
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, settings.sft_weight],
        max_length=None,
        precompute_ref_log_probs=True,
        gradient_checkpointing=settings.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        bf16=model.autocast is not None,
        use_cpu=model.bundle.device.type == "cpu",
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,
        logging_steps=10,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),  # a log gets a line per logging_steps
        remove_unused_columns=False,
        train_sampling_strategy="sequential",  # ``order`` is shuffled already
        ddp_find_unused_parameters=False,
        seed=settings.seed,
    )
