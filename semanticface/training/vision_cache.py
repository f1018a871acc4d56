"""Cached vision features: a frozen vision encoder computes each crop once, because LoRA never changes its output.

Before a training, all of its crops go through the vision encoder, and the outputs are kept in safetensors files of
``_SHARD`` crops, read through memory maps. Training then runs neither Pillow nor processor nor encoder: the model gets
the prompt tensors of one picture as a template, and the encoder returns cached features in their original dtype.

The files lie in a folder named by a hash of all that determines their content: rows, augmentation, processor, encoder
weights and software versions. A matching folder is completed; others are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers.utils import ModelOutput

from semanticface.models.loading import Bundle
from semanticface.recipe import versions
from semanticface.training.collator import Collator
from semanticface.training.datasets import TrainFaces
from semanticface.utils.files import atomic_path
from semanticface.utils.progress import tqdm

_SHARD = 256
_BATCH = 16
_DISK_SHARE = 0.5
"""Largest share of the free disk space to use."""


class CachedVisionEncoder:
    """Replaces a vision encoder's ``forward``: returns features set before, or runs the encoder if none are.

    Attributes:
        folder: of the files; None while there are none.
    """

    def __init__(self, encoder: torch.nn.Module) -> None:
        self.original_forward = encoder.forward
        self.folder: Path | None = None
        self._next_output: Any = None
        self._fields: dict[str, list[Any] | Any] = {}
        self._output_type: type = object

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output set last, once; otherwise run the encoder and remember its output."""
        if self._next_output is None:
            output = self.original_forward(*args, **kwargs)
            # A copy of the fields: models store derived values in the same object.
            self._output_type = type(output)
            self._fields = dict(output.items()) if isinstance(output, ModelOutput) else {"": None}
            return output
        output, self._next_output = self._next_output, None
        return output

    def last_features(self, count: int) -> dict[str, torch.Tensor] | None:
        """Return the encoder's last output for ``count`` pictures, each tensor [count, …]; None if it has others."""
        features = {}
        for name, value in self._fields.items():
            for index, tensor in enumerate(value if isinstance(value, list | tuple) else [value]):
                if not isinstance(tensor, torch.Tensor) or tensor.ndim == 0 or tensor.shape[0] % count:
                    return None
                features[f"{name}.{index}"] = tensor.unflatten(0, (count, -1)).cpu().contiguous()
        return features

    def set_features(self, features: Mapping[str, torch.Tensor]) -> None:
        """Set the next output: tensors as ``load`` returns them, those of several crops concatenated."""
        fields: dict[str, Any] = {}
        for name, value in self._fields.items():
            several = isinstance(value, list | tuple)
            parts = [features[f"{name}.{index}"].flatten(0, 1) for index in range(len(value) if several else 1)]
            fields[name] = parts if several else parts[0]
        self._next_output = self._output_type(**fields)

    def load(self, slot: int) -> dict[str, torch.Tensor]:
        """Return the features of one crop, each tensor [1, …]."""
        assert self.folder is not None
        with safe_open(_shard_path(self.folder, slot // _SHARD), "pt") as file:
            index = slot % _SHARD
            return {name: file.get_slice(name)[index : index + 1] for name in file.keys()}  # noqa: SIM118 (no mapping)


def _shard_path(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}.safetensors"


def _is_complete(path: Path, count: int) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return all(file.get_slice(name).get_shape()[0] == count for name in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return False


def _cache_key(bundle: Bundle, rows: TrainFaces, encoder: torch.nn.Module, dtype: torch.dtype | None) -> str:
    inputs = {
        "rows": rows.faces._fingerprint,
        "augment": asdict(rows.augment),
        "seed": rows.seed,
        "size": bundle.image_size,
        "processor": json.loads(bundle.processor.image_processor.to_json_string()),
        "dtype": str(dtype),
        "versions": versions(),
    }
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode())
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _why_not(base: Any, encoder: Any, rows: TrainFaces) -> str | None:
    if not rows.augment.fixed_variants:
        return "off: crops are augmented anew each time (augment.fixed_variants: 0)"
    if len(rows) < 2 * rows.n_slots:
        return f"off: {rows.n_slots:,} crops for {len(rows):,} examples, too few repeat"
    if encoder is base or encoder is None:
        return "off: this model has no separate vision encoder"
    if any(parameter.requires_grad for parameter in encoder.parameters()):
        return "off: LoRA trains layers of the vision encoder"
    return None


@contextlib.contextmanager
def cache_vision_features(
    bundle: Bundle, collator: Collator, rows: TrainFaces, folder: Path, dtype: torch.dtype | None = None
) -> Iterator[tuple[CachedVisionEncoder | None, str]]:
    """Cache the vision features of a training if that pays; inside the block, rows carry features.

    Args:
        bundle: the model to train; its vision encoder is changed, and restored.
        collator: of the training; its ``template`` is set inside the block.
        rows: of the training; their ``cached_features`` are set inside the block.
        folder: parent of the cache's folder; other folders in it are removed.
        dtype: dtype of the products, None for that of the weights.

    Yields:
        The encoder, which takes the ``features`` of each batch, or None if caching does not pay or is impossible; and
        a sentence that says which, or why.
    """
    model = bundle.model
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    encoder = base.get_encoder(modality="image")
    why_not = _why_not(base, encoder, rows)
    if why_not:
        shutil.rmtree(folder, ignore_errors=True)
        yield None, why_not
        return
    cached = CachedVisionEncoder(encoder)
    encoder.forward = cached.forward
    training = encoder.training
    try:
        encoder.eval()
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / _cache_key(bundle, rows, encoder, dtype)
        sample = encode_images(bundle, base, cached, collator, [rows.crop(0)], dtype)
        size = rows.n_slots * sum(value.nbytes for value in (sample or {}).values())
        if sample is None:
            why_not = "off: the vision encoder returns other outputs than tensors per picture"
        elif size > _DISK_SHARE * shutil.disk_usage(folder).free:
            why_not = f"off: the features take {size / 1e9:,.1f} GB, more than half of the free disk"
        if why_not:
            encoder.forward = cached.original_forward
            shutil.rmtree(folder, ignore_errors=True)
            yield None, why_not
            return
        with PartialState().local_main_process_first():
            _write_shards(bundle, base, cached, collator, rows, target, dtype)
        encoder.train(training)
        cached.folder = target
        rows.cached_features, collator.template = cached.load, collator.encode_prompts([rows.crop(0)])
        yield cached, f"features of {rows.n_slots:,} crops cached for {len(rows):,} examples ({size / 1e6:,.0f} MB)"
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        encoder.train(training)
        encoder.forward = cached.original_forward
        rows.cached_features = collator.template = None


def encode_images(
    bundle: Bundle,
    base: Any,
    cached: CachedVisionEncoder,
    collator: Collator,
    crops: list[Any],
    dtype: torch.dtype | None,
) -> dict[str, torch.Tensor] | None:
    """Return the vision features of some crops, each tensor [crops, …]; None as ``last_features``."""
    text_inputs = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
    prompts = collator.encode_prompts(crops)
    inputs = {name: value.to(bundle.device) for name, value in prompts.items() if name not in text_inputs}
    autocast = torch.autocast(bundle.device.type, dtype or torch.bfloat16, enabled=dtype is not None)
    with torch.no_grad(), autocast:
        base.get_image_features(**inputs)
    return cached.last_features(len(crops))


def _write_shards(
    bundle: Bundle,
    base: Any,
    cached: CachedVisionEncoder,
    collator: Collator,
    rows: TrainFaces,
    target: Path,
    dtype: torch.dtype | None,
) -> None:
    """Write the missing files, and remove the folders of other caches."""
    for other in target.parent.glob("*"):
        if other != target:
            shutil.rmtree(other, ignore_errors=True)
    for shard in tqdm(range(-(-rows.n_slots // _SHARD)), desc="vision features", unit=f"{_SHARD} crops"):
        slots = range(shard * _SHARD, min((shard + 1) * _SHARD, rows.n_slots))
        path = _shard_path(target, shard)
        if _is_complete(path, len(slots)):
            continue
        parts = []
        for start in range(0, len(slots), _BATCH):
            crops = [rows.crop(slot) for slot in slots[start : start + _BATCH]]
            parts.append(encode_images(bundle, base, cached, collator, crops, dtype) or {})
        with atomic_path(path) as temporary:
            save_file({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, temporary)
