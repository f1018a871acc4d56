"""LoRA SFT: transformers' ``Trainer`` with a weighted loss, exact evaluation metrics and resumable checkpoints.

The loss of a step is sum(weight * cross-entropy) / sum(weight) over all answer tokens of the step, so it does not
depend on batch size, gradient accumulation or the number of GPUs.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback

from semanticface.config import check_range
from semanticface.errors import ConfigError, SemanticFaceError
from semanticface.models.answer_tokens import IGNORE_INDEX, to_model_inputs
from semanticface.models.loading import Bundle
from semanticface.recipe import RECIPE_NAME
from semanticface.training.collator import Collator, Example, split_targets, token_losses
from semanticface.training.datasets import TrainFaces
from semanticface.training.fused_ops import chunked_argmax, chunked_cross_entropy, fused_lora, fused_rms_norm
from semanticface.training.packing import pack, padding_free
from semanticface.training.vision_cache import CachedVisionEncoder, cache_vision_features
from semanticface.utils.files import write_json
from semanticface.utils.precision import has_bfloat16

SETTINGS_NAME = "settings.json"
_DECIMAL = re.compile(r"\d\.\d+")
# Messages of torch, safetensors and the system when a write fails; not all of them carry an errno.
_WRITE_FAILED = re.compile(
    r"No space left|quota exceeded|File too large|Read-only file system|Permission denied|PytorchStreamWriter failed"
)
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Hyperparameters of the training loop.

    Attributes:
        max_steps: optimizer steps of batch x accumulation rows on each device.
        per_device_train_batch_size: rows per forward pass; lower it when memory is short.
        gradient_accumulation_steps: batches per optimizer step; raise it as the batch size falls to train alike.
        learning_rate: peak rate; decays to zero along a cosine.
        warmup_ratio: share of the steps over which the rate rises from zero.
        weight_decay: of the LoRA matrices.
        max_grad_norm: gradient clipping norm.
        precision: dtype of matrix products. ``model``: the base model's dtype. ``fast``: bfloat16 where the hardware
            multiplies it, with float32 sums and unchanged weights; else as ``model``.
        number_weight: loss weight of tokens that hold digits of a coefficient; all others weigh 1.
        gradient_checkpointing: recompute activations instead of keeping them: a third slower, far less memory.
        eval_steps: steps between evaluations on held-out rows.
        eval_rows: held-out rows to evaluate on.
        save_steps: steps between checkpoints; a stopped training resumes from the last.
        logging_steps: steps between log entries.
        dataloader_num_workers: processes that load pictures; 0 loads them in the training process.
        seed: of LoRA's initial weights, row order, augmentation and dropout.
    """

    max_steps: int
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-4
    warmup_ratio: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    precision: Literal["model", "fast"] = "model"
    number_weight: float = 4.0
    gradient_checkpointing: bool = False
    eval_steps: int = 100
    eval_rows: int = 64
    save_steps: int = 100
    logging_steps: int = 10
    dataloader_num_workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "max_steps",
            "per_device_train_batch_size",
            "gradient_accumulation_steps",
            "eval_steps",
            "eval_rows",
            "save_steps",
            "logging_steps",
        ):
            check_range(f"train.{name}", getattr(self, name), 1)
        for name in ("dataloader_num_workers", "weight_decay", "seed"):
            check_range(f"train.{name}", getattr(self, name), 0)
        check_range("train.learning_rate", self.learning_rate, 1e-8, 1)
        check_range("train.warmup_ratio", self.warmup_ratio, 0, 1)
        check_range("train.max_grad_norm", self.max_grad_norm, 1e-3)
        check_range("train.number_weight", self.number_weight, 0.01, 1000)


class FaceTrainer(Trainer):
    """``Trainer`` with the weighted loss, and evaluation metrics that do not depend on batching.

    Args:
        head: LM head of a model inside ``packing.padding_free``; None for an unchanged model.
        vision_encoder: takes the features of batches that carry them; None for batches of pictures.
    """

    def __init__(
        self, *args: Any, head: torch.nn.Linear | None, vision_encoder: CachedVisionEncoder | None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.head = head
        self.vision_encoder = vision_encoder
        self.logits_dtype = torch.bfloat16 if self.args.bf16 else None
        # compute_loss divides by the step's total weight itself, whatever the model class accepts.
        self.model_accepts_loss_kwargs = True

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor | None:
        if not batch_samples:
            return None
        total = torch.stack([batch["loss_weights"].sum() for batch in batch_samples]).sum().to(device)
        return self.accelerator.gather(total).sum()

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Return this batch's share of the step's weighted mean cross-entropy."""
        inputs = dict(inputs)
        if self.vision_encoder is not None:
            self.vision_encoder.set_features(inputs.pop("features"))
        if self.head is None:
            inputs, targets = split_targets(inputs)
            losses = token_losses(model(**to_model_inputs(model, inputs), use_cache=False).logits, targets["labels"])
            loss = (losses * targets["loss_weights"]).sum()
        else:
            inputs, targets = pack(model, inputs)
            hidden = model(**inputs, use_cache=False).logits[0]
            loss = chunked_cross_entropy(
                hidden, self.head, targets["labels"], targets["loss_weights"], self.logits_dtype
            )
        # Gradients are averaged over the processes, but each holds a part of the sum.
        return loss / num_items_in_batch * self.accelerator.num_processes

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Evaluate on held-out rows with teacher forcing.

        Returns:
            ``eval_loss``: weighted mean cross-entropy; ``eval_token_accuracy``: share of answer tokens predicted;
            ``eval_number_readable``: share of the 52 numbers whose most likely tokens spell a number, and
            ``eval_number_mae``: the mean absolute error of those.
        """
        loader = self.get_eval_dataloader(eval_dataset)
        model: Any = self.model
        model.eval()
        totals = torch.zeros(7, dtype=torch.float64, device=self.args.device)
        for batch in loader:
            with torch.no_grad(), self.compute_loss_context_manager():
                losses, tokens, targets = self._predict(model, self._prepare_inputs(batch))
            weights = targets["loss_weights"].double()
            sums = [
                (losses.double() * weights).sum(),
                weights.sum(),
                (tokens == targets["labels"]).sum(),
                len(tokens),
                *self._number_error(tokens, targets),
            ]
            totals += torch.stack([torch.as_tensor(each, dtype=torch.float64, device=totals.device) for each in sums])
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        loss, weight, hits, n_tokens, error, readable, numbers = self.accelerator.reduce(totals, "sum").tolist()
        metrics = {
            f"{metric_key_prefix}_loss": loss / weight,
            f"{metric_key_prefix}_token_accuracy": hits / n_tokens,
            f"{metric_key_prefix}_number_readable": readable / numbers,
        }
        if readable:
            metrics[f"{metric_key_prefix}_number_mae"] = error / readable
        model.train()
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _predict(self, model: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Return loss and most likely token of each weighted label, float[K] and int64[K], and targets as ``pack``."""
        if self.head is not None:
            inputs, targets = pack(model, batch)
            hidden = model(**inputs, use_cache=False).logits[0]
            predictions = chunked_argmax(hidden, self.head, targets["labels"], self.logits_dtype)
            return predictions.losses, predictions.tokens, targets
        inputs, targets = split_targets(batch)
        logits = model(**to_model_inputs(model, inputs), use_cache=False).logits
        counts = (targets["labels"] != IGNORE_INDEX) & (targets["loss_weights"] > 0)
        flat = {name: values[counts] for name, values in targets.items()} | {"owners": counts.nonzero()[:, 0]}
        return token_losses(logits, targets["labels"])[counts], logits.argmax(-1)[counts], flat

    def _number_error(self, tokens: torch.Tensor, targets: dict[str, torch.Tensor]) -> tuple[float, int, int]:
        """Return the summed error of numbers whose predicted tokens spell one, their count, and the count of all."""
        collator: Any = self.data_collator
        digits = targets["number_ids"] >= 0
        owners = torch.stack([targets["owners"], targets["number_ids"]])[:, digits]
        starts = (owners.diff(dim=1) != 0).any(0).nonzero().flatten().cpu() + 1
        spelled = [
            collator.tokenizer.batch_decode([part.tolist() for part in ids[digits].cpu().tensor_split(starts)])
            for ids in (tokens, targets["labels"])
        ]
        errors = [
            abs(float(predicted[0]) - float(truth[0]))
            for predicted, truth in zip(*(map(_DECIMAL.search, texts) for texts in spelled), strict=True)
            if predicted and truth
        ]
        return sum(errors), len(errors), len(spelled[0])


class SanityCheckCallback(TrainerCallback):
    """Stops a training that cannot succeed: trainable parameters without gradient, or a loss that is not finite."""

    def __init__(self) -> None:
        self.checked = False

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check all gradients at the first step."""
        if not self.checked:
            check_gradients(kwargs["model"])
            self.checked = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Check each logged loss."""
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise SemanticFaceError(
                f"the loss became {loss} by step {state.global_step}: lower train.learning_rate, or set "
                "model.dtype to float32."
            )


def check_gradients(model: torch.nn.Module) -> None:
    """Raise a SemanticFaceError unless every trainable parameter has a finite gradient."""
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    no_grad = [name for name, parameter in trainable.items() if parameter.grad is None]
    if no_grad or not trainable:
        raise SemanticFaceError(
            f"{len(no_grad)} of {len(trainable)} trainable parameters got no gradient, such as "
            f"{no_grad[0] if no_grad else 'none at all'}: take their layers out of lora.target_modules."
        )
    broken = [
        name
        for name, parameter in trainable.items()
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all()
    ]
    if broken:
        raise SemanticFaceError(
            f"the gradient of {broken[0]} (and {len(broken) - 1} more) is not finite: lower train.learning_rate, or "
            "set model.dtype to float32."
        )


def claim_output_dir(folder: Path, settings: dict[str, Any]) -> None:
    """Claim an output folder for a training; raise a ConfigError if it holds one with other settings."""
    path = folder / SETTINGS_NAME
    # The JSON form, in which tuples are lists.
    settings = json.loads(json.dumps(settings))
    if path.exists():
        try:
            previous = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read: {error}. Remove {folder} to start over.") from error
        differing = _differences(previous, settings)
        # A training without a checkpoint has nothing to resume.
        trained = (folder / RECIPE_NAME).exists() or last_checkpoint(folder / "checkpoints") is not None
        if differing and trained:
            raise ConfigError(
                f"{folder} holds a training with other settings: {'; '.join(differing)}. Use the same, choose "
                "another output, or remove the folder to start over."
            )
    write_json(path, settings)


def _differences(previous: Any, current: Any, prefix: str = "") -> list[str]:
    if isinstance(previous, dict) and isinstance(current, dict):
        keys = {**previous, **current}
        return [line for key in keys for line in _differences(previous.get(key), current.get(key), f"{prefix}{key}.")]
    return [] if previous == current else [f"{prefix.removesuffix('.')} was {previous}, now {current}"]


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint, None if there is none.

    ``trainer_state.json`` is written last: in an incomplete checkpoint it is missing or cut short.
    """
    found = []
    for path in folder.glob("checkpoint-*"):
        number = _CHECKPOINT.fullmatch(path.name)
        try:
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if number and isinstance(state, dict) and "global_step" in state:
            found.append((int(number[1]), path))
    return max(found)[1] if found else None


def train(
    bundle: Bundle,
    settings: TrainSettings,
    collator: Collator,
    train_rows: Callable[[int], TrainFaces],
    eval_rows: Dataset[Example],
    folder: Path,
) -> tuple[dict[str, float], bool]:
    """Train the bundle's model in place, resuming from the last complete checkpoint in ``folder``.

    Args:
        bundle: its trainable parameters are trained, in their dtype.
        settings: hyperparameters.
        collator: makes batches.
        train_rows: given the number of examples of the whole training, returns exactly those, in order.
        eval_rows: held-out rows.
        folder: gets ``checkpoints``, TensorBoard's ``logs``, and until the end cached vision features in ``features``.

    Returns:
        The metrics of ``FaceTrainer.evaluate`` at the end, and whether this process is the one that saves.

    Raises:
        SemanticFaceError: a parameter without a finite gradient, a loss that is not finite, or a failed write.
    """
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        per_device_eval_batch_size=settings.per_device_train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=int(settings.warmup_ratio * settings.max_steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        # LoRA's matrices stay float32: products in bfloat16, sums and updates in float32.
        bf16=bundle.model.dtype == torch.bfloat16 or (settings.precision == "fast" and has_bfloat16(bundle.device)),
        use_cpu=bundle.device.type == "cpu",
        eval_strategy="steps",
        eval_steps=settings.eval_steps,
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,
        logging_steps=settings.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),  # a log gets a line per logging_steps
        remove_unused_columns=False,
        # TrainFaces shuffles.
        train_sampling_strategy="sequential",
        # SanityCheckCallback checks that every trainable parameter is used.
        ddp_find_unused_parameters=False,
        dataloader_num_workers=min(settings.dataloader_num_workers, os.cpu_count() or 1),
        seed=settings.seed,
    )
    if settings.gradient_checkpointing:
        with warnings.catch_warnings():
            # transformers 6 calls it activation checkpointing.
            warnings.simplefilter("ignore", FutureWarning)
            bundle.model.gradient_checkpointing_enable({"use_reentrant": False})
    checkpoint = last_checkpoint(folder / "checkpoints")
    callbacks: list[TrainerCallback] = [SanityCheckCallback()]
    try:
        if arguments.process_index == 0:
            start = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
            callbacks.append(TensorBoardCallback(SummaryWriter(str(folder / "logs"), purge_step=start + 1)))
        products = torch.bfloat16 if arguments.bf16 else None
        rows = train_rows(
            settings.max_steps
            * settings.per_device_train_batch_size
            * settings.gradient_accumulation_steps
            * arguments.world_size
        )
        with (
            cache_vision_features(bundle, collator, rows, folder / "features", products) as (encoder, cache_summary),
            padding_free(bundle.model, bundle.tokenizer) as head,
            fused_lora(bundle.model, products) as n_fused,
            fused_rms_norm(bundle.model) as n_norms,
        ):
            if arguments.process_index == 0:
                batches = "packed, without padding" if head is not None else "padded (this model cannot be packed)"
                print(f"batches   {batches}; products in {products or bundle.model.dtype}")
                print(f"fused     {n_fused} LoRA layers, {n_norms} norms")
                print(f"vision    {cache_summary}", flush=True)
            trainer = FaceTrainer(
                head=head,
                vision_encoder=encoder,
                model=bundle.model,
                args=arguments,
                data_collator=collator,
                train_dataset=rows,
                eval_dataset=eval_rows,
                callbacks=callbacks,
            )
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except (OSError, RuntimeError, SafetensorError) as error:
        if _WRITE_FAILED.search(str(error)) is None:
            raise
        raise SemanticFaceError(
            f"cannot write a checkpoint or log in {folder}: {error}. Free some space; the same command resumes "
            "from the last complete checkpoint."
        ) from error
    # Trainer evaluates after the last step; a training resumed after it has the evaluation in its history.
    last = [entry for entry in trainer.state.log_history if "eval_loss" in entry][-1]
    metrics = {name: value for name, value in last.items() if name.startswith("eval_")}
    return metrics, trainer.is_world_process_zero()
