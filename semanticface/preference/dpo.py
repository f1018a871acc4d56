"""Teach a model pairs of faces: DPO (Rafailov et al. 2023) with TRL's ``DPOTrainer`` on its LoRA adapter.

The reference is the adapter as it was before the first step: its log-probabilities of all pairs are computed once,
which TRL itself refuses for pictures. The loss is -log sigmoid(beta * (gain of the chosen - gain of the rejected)), a
gain being how much likelier than for the reference, plus ``sft`` times the mean negative log-likelihood of the chosen,
without which both may become unlikelier. What of an answer is scored, ``sides`` says.

A model may come to prefer without looking. So margins are measured with a blank picture too: what was learnt must
mostly be gone without the picture.
"""

from __future__ import annotations

import contextlib
import math
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
from semanticface.models.answer_tokens import IGNORED, to_model_inputs
from semanticface.models.loading import Bundle
from semanticface.preference.pair_collator import CHOSEN, REJECTED, PairCollator, PairDataset, PairExample, blank
from semanticface.training.collator import split_targets
from semanticface.training.fused_ops import fused_lora, fused_rms_norm
from semanticface.training.packing import pack, padding_free
from semanticface.training.trainer import SanityCheckCallback, has_bfloat16, last_checkpoint
from semanticface.training.vision_cache import CachedVisionEncoder, encode_images
from semanticface.utils.progress import tqdm

_KEPT = 2**30
"""Bytes of what the tower saw that are kept in memory; where it would be more, the tower looks every time."""
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class AlignSettings:
    """How a model learns pairs.

    Attributes:
        beta: how dearly straying from the reference is paid; higher strays less.
        sft_weight: weight of the likelihood of chosen numbers beside the preference.
        words: pairs have words too, what Stage I says of each face; false for models whose words are guesses.
        mirror: also learn every pair's mirror image.
        num_train_epochs: how often each pair (and mirror image) is learnt.
        per_device_train_batch_size: pairs that go through the model together; lower it when memory is short.
        gradient_accumulation_steps: batches added up to one step.
        learning_rate: highest rate; it falls to zero along a cosine.
        warmup_ratio: share of the steps over which the rate rises from zero.
        max_grad_norm: longest gradient; longer ones are scaled down.
        precision: as in ``training.TrainSettings``.
        gradient_checkpointing: compute activations twice instead of keeping them: slower, far less memory.
        save_steps: steps between checkpoints; a killed training goes on from the last.
        seed: of the order of pairs.
    """

    beta: float = 0.3
    sft_weight: float = 0.2
    words: bool = False
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
    """What a model makes of pairs: means over pairs, in nats.

    Attributes:
        pairs: how many.
        before: log p(chosen) - log p(rejected) for the reference.
        after: the same for the trained model.
        blank_before: ``before`` with a grey picture.
        blank_after: ``after`` with a grey picture.
        accuracy: share of pairs whose margin grew, those that stayed as they were counting half.
    """

    pairs: int
    before: float
    after: float
    blank_before: float
    blank_after: float
    accuracy: float

    @property
    def blank_ratio(self) -> float:
        """How much of what was learnt remains without the picture: near 1 the model learnt to prefer unseeing."""
        learnt = self.after - self.before
        return (self.blank_after - self.blank_before) / learnt if learnt else float("nan")


class Scorer:
    """The log-probabilities of a batch of ``PairCollator``: ``forward`` of a PeftModel's base while it is trained.

    Args:
        base: the transformers model inside.
        head: from ``packing.padding_free``.
        tower: what is given the features of batches that carry them.
    """

    def __init__(self, base: Any, head: torch.nn.Linear | None, tower: CachedVisionEncoder | None) -> None:
        self.base = base
        self.head = head
        self.tower = tower

    def forward(self, *, shown: dict[str, Any], labels: torch.Tensor, **_: Any) -> FusedCausalLMOutput:
        """Return what TRL wants to know of each token that is scored.

        Args:
            shown: as in the batch.
            labels: int64[2B, 1 + K], the tokens that are scored, behind one without meaning.
            _: what TRL also passes: the tokens again, and how its own forward would have to work.

        Returns:
            ``log_probs``, ``entropy``, ``mean_logits`` and ``is_top1``, each [2B, K], 0 where no token is.
        """
        shown = dict(shown)
        of, to = shown.pop("of"), shown.pop("to")
        if self.tower is not None:
            self.tower.set_features(shown.pop("features"))
        scored = shown["labels"] != IGNORED
        plain = type(self.base).forward
        if self.head is None:
            inputs, targets = split_targets(shown)
            logits = plain(self.base, **to_model_inputs(self.base, inputs), use_cache=False).logits
            scores = logits[scored[:, -targets["labels"].shape[1] :]].float()
        else:
            inputs, _targets = pack(self.base, shown)
            hidden = plain(self.base, **inputs, use_cache=False).logits[0]
            with torch.autocast(hidden.device.type, enabled=False):
                bias = None if self.head.bias is None else self.head.bias.float()
                scores = torch.nn.functional.linear(hidden.float(), self.head.weight.float(), bias)
        # Each token that is scored: where among the scores, and which token.
        at = (scored.flatten().cumsum(0) - 1)[of]
        tokens = labels[:, 1:].flatten()
        wanted = tokens[to]
        logs = scores.log_softmax(-1)
        with torch.no_grad():
            entropy = -(logs.exp() * logs).sum(-1)
            found = {"entropy": entropy[at], "mean_logits": scores.mean(-1)[at]}
            found["is_top1"] = (scores.argmax(-1)[at] == wanted).float()
        found["log_probs"] = logs[at, wanted]
        nothing = torch.zeros(len(tokens), dtype=torch.float32, device=tokens.device)
        laid = {name: nothing.index_add(0, to, values).view(len(labels), -1) for name, values in found.items()}
        return FusedCausalLMOutput(**laid | {"is_top1": laid["is_top1"].bool()})


class FaceDPOTrainer(DPOTrainer):
    """``DPOTrainer`` whose pairs come ready, with what the reference says of them; it tells nobody that it runs."""

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
class _Ready:
    """A model prepared to be given pairs."""

    bundle: Bundle
    collator: PairCollator
    scorer: Scorer
    seen: CachedVisionEncoder | None
    products: torch.dtype | None
    batch: int

    def log_probs(self, rows: PairDataset | Sequence[PairExample], told: str) -> np.ndarray:
        """Return the log-probability of each side's scored tokens; float64[n, 2]."""
        found = []
        model, device = self.bundle.model, self.bundle.device
        training = model.training
        model.eval()
        for start in tqdm(range(0, len(rows), self.batch), desc=told, unit=f"{self.batch} pairs", leave=False):
            batch = self.collator.of([rows[place] for place in range(start, min(start + self.batch, len(rows)))])
            batch = _moved(batch, device)
            products = torch.autocast(device.type, self.products or torch.bfloat16, enabled=self.products is not None)
            with torch.no_grad(), products:
                scores = model(shown=batch["shown"], labels=batch["input_ids"]).log_probs
            found.append(scores.double().sum(1).view(2, -1).T.cpu().numpy())
        model.train(training)
        return np.concatenate(found)

    def look(self, rows: PairDataset) -> str:
        """Let the tower see each picture once, if all it says may be kept in memory; say whether."""
        if self.seen is None:
            return "looks every time: LoRA trains layers inside it, or the model has none of its own"
        base = self.scorer.base
        kept: list[dict[str, torch.Tensor]] = []
        for start in tqdm(range(0, rows.views, _AT_ONCE), desc="looking", unit=f"{_AT_ONCE} pictures", leave=False):
            crops = [rows.view(number) for number in range(start, min(start + _AT_ONCE, rows.views))]
            found = encode_images(self.bundle, base, self.seen, self.collator, crops, self.products)
            if found is None:
                return "looks every time: it says more than tensors of pictures"
            kept += [{name: value[k : k + 1].clone() for name, value in found.items()} for k in range(len(crops))]
            size = sum(value.nbytes for value in kept[0].values()) * rows.views
            if size > _KEPT:
                return f"looks every time: {size / 1e9:.1f} GB would have to be kept"
        rows.features = kept
        self.scorer.tower = self.seen
        self.collator.template = self.collator.encode_prompts([rows.view(0)])
        return f"saw {rows.views:,} pictures once, for {len(rows):,} pairs"

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Look at pictures themselves until the block ends."""
        tower, self.scorer.tower = self.scorer.tower, None
        try:
            yield
        finally:
            self.scorer.tower = tower


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    return {name: _moved(inner, device) for name, inner in value.items()} if isinstance(value, dict) else value


@contextlib.contextmanager
def _ready(bundle: Bundle, collator: PairCollator, settings: AlignSettings) -> Iterator[_Ready]:
    """Make a PeftModel take batches of pairs, until the block ends."""
    model = bundle.model
    base = model.get_base_model()
    fast = model.dtype == torch.bfloat16 or (settings.precision == "fast" and has_bfloat16(bundle.device))
    products = torch.bfloat16 if fast else None
    tower = base.get_encoder(modality="image")
    own = tower is not None and tower is not base and not any(each.requires_grad for each in tower.parameters())
    seen = CachedVisionEncoder(tower) if own else None
    if seen is not None:
        tower.forward = seen.forward
    try:
        with padding_free(model, bundle.tokenizer) as head, fused_lora(model, products), fused_rms_norm(model):
            scorer = Scorer(base, head, None)
            base.forward = scorer.forward
            yield _Ready(bundle, collator, scorer, seen, products, settings.per_device_train_batch_size)
    finally:
        base.__dict__.pop("forward", None)
        collator.template = None
        if seen is not None:
            tower.forward = seen.original_forward


def align(
    bundle: Bundle,
    settings: AlignSettings,
    collator: PairCollator,
    rows: PairDataset,
    held_out: PairDataset,
    folder: Path,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    say: Callable[[str], object] = print,
) -> Margins:
    """Train the bundle's adapter in place, from the last whole checkpoint in ``folder`` if there is one.

    Args:
        bundle: from ``model.load_trained(…, trainable=True)``; as it is now, its adapter is the reference.
        settings: how.
        collator: makes batches.
        rows: the pairs to learn.
        held_out: pairs of other pictures, without mirror images, to measure margins on.
        folder: checkpoints go to ``checkpoints`` inside.
        callbacks: also told of each step.
        say: is told what was chosen.

    Returns:
        What the model makes of the pairs held out.

    Raises:
        DatasetError: no pairs to learn, or none held out.
        SemanticFaceError: a parameter without a finite gradient, or a loss that is no number.
    """
    if not len(rows) or not len(held_out):
        raise DatasetError(
            f"{len(rows)} pairs to learn and {len(held_out)} held out: both are needed, of different people, or of "
            "different pictures where all show one. Make more choices."
        )
    order = np.concatenate([rows.shuffled([settings.seed, nth]) for nth in range(settings.num_train_epochs)])
    per_step = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    steps = math.ceil(len(order) / per_step)
    with _ready(bundle, collator, settings) as ready:
        with ready.looking():
            blanks = [blank(held_out[place]) for place in range(len(held_out))]
            blind_before = _margin(ready.log_probs(blanks, "before, blank"))
            before = _margin(ready.log_probs(held_out, "before"))
        say(f"tower     {ready.look(rows)}")
        reference = ready.log_probs(rows, "reference")
        trainer = _trainer(ready, settings, rows, reference, order, steps, folder, callbacks)
        resumed = last_checkpoint(folder / "checkpoints")
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        with ready.looking():
            blind_after = _margin(ready.log_probs(blanks, "after, blank"))
            after = _margin(ready.log_probs(held_out, "after"))
    gain = after - before
    return Margins(
        pairs=len(held_out),
        before=float(before.mean()),
        after=float(after.mean()),
        blank_before=float(blind_before.mean()),
        blank_after=float(blind_after.mean()),
        accuracy=float((gain > 0).mean() + (gain == 0).mean() / 2),
    )


def _margin(log_probs: np.ndarray) -> np.ndarray:
    return log_probs[:, CHOSEN] - log_probs[:, REJECTED]


def _trainer(
    ready: _Ready,
    settings: AlignSettings,
    rows: PairDataset,
    reference: np.ndarray,
    order: np.ndarray,
    steps: int,
    folder: Path,
    callbacks: Sequence[TrainerCallback],
) -> FaceDPOTrainer:
    """Return TRL's trainer, which adds an adapter for the reference and a forward of its own: both are undone."""
    model, forward = ready.bundle.model, ready.scorer.forward
    columns = {
        "place": order,
        "ref_chosen_logps": reference[order, CHOSEN],
        "ref_rejected_logps": reference[order, REJECTED],
    }
    data = datasets.Dataset.from_dict(columns)

    def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        told = {
            name: torch.tensor([item[name] for item in items], dtype=torch.float32)
            for name in ("ref_chosen_logps", "ref_rejected_logps")
        }
        return ready.collator.of([rows[item["place"]] for item in items]) | told

    with warnings.catch_warnings():
        # transformers 6 calls it activation checkpointing; TRL does not yet.
        warnings.simplefilter("ignore", FutureWarning)
        arguments = _arguments(ready, settings, steps, folder)
    trainer = FaceDPOTrainer(
        model=model,
        args=arguments,
        data_collator=collate,
        train_dataset=data,
        processing_class=ready.bundle.processor,
        callbacks=[SanityCheckCallback(), *callbacks],
    )
    model.delete_adapter("ref")
    ready.scorer.base.forward = forward
    return trainer


def _arguments(ready: _Ready, settings: AlignSettings, steps: int, folder: Path) -> DPOConfig:
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
        bf16=ready.products is not None,
        use_cpu=ready.bundle.device.type == "cpu",
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,
        logging_steps=10,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to="none",
        remove_unused_columns=False,
        # The order is that of the rows, which are shuffled already.
        train_sampling_strategy="sequential",
        ddp_find_unused_parameters=False,
        seed=settings.seed,
    )
