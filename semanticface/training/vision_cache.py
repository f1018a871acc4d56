"""What a frozen vision tower sees, computed once: LoRA never changes it, so a picture shown again looks the same.

Before a training, every crop it shows goes through the tower, and all that the tower returned is kept in safetensors
files of ``_SHARD`` crops, read through memory maps. During the training neither Pillow, processor nor tower run: the
model is given the template of one picture, and its tower returns what was kept, in the dtype it was computed in.

A file is named by nothing but its number, in a folder named by all that decides its content: rows, their alterations,
the processor, the tower's weights and the versions of the software. What is begun is gone on with, other folders go.
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
_AT_ONCE = 16
_SHARE = 0.5
"""Of the free disk, at most so much is used."""


class CachedVisionEncoder:
    """Stands in for a tower's ``forward``: returns what is put before it, and runs the tower where nothing is.

    Attributes:
        folder: of the files; None while there are none.
    """

    def __init__(self, tower: torch.nn.Module) -> None:
        self.tower = tower
        self.original_forward = tower.forward
        self.folder: Path | None = None
        self._answer: Any = None
        self._fields: dict[str, list[Any] | Any] = {}
        self._kind: type = object

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the answer put before it last, once, or else the tower's own, and remember that."""
        if self._answer is None:
            looked = self.original_forward(*args, **kwargs)
            # As it is now: models put what they make of it into the same object.
            self._kind = type(looked)
            self._fields = dict(looked.items()) if isinstance(looked, ModelOutput) else {"": None}
            return looked
        answer, self._answer = self._answer, None
        return answer

    def last_features(self, count: int) -> dict[str, torch.Tensor] | None:
        """Return all tensors of the tower's last answer, about ``count`` pictures: each [count, …]; None if not so."""
        found = {}
        for name, value in self._fields.items():
            for index, tensor in enumerate(value if isinstance(value, list | tuple) else [value]):
                if not isinstance(tensor, torch.Tensor) or tensor.ndim == 0 or tensor.shape[0] % count:
                    return None
                found[f"{name}.{index}"] = tensor.unflatten(0, (count, -1)).cpu().contiguous()
        return found

    def set_features(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put an answer before the model: tensors as ``load`` returns them, those of several crops joined."""
        fields: dict[str, Any] = {}
        for name, value in self._fields.items():
            several = isinstance(value, list | tuple)
            parts = [tensors[f"{name}.{index}"].flatten(0, 1) for index in range(len(value) if several else 1)]
            fields[name] = parts if several else parts[0]
        self._answer = self._kind(**fields)

    def load(self, slot: int) -> dict[str, torch.Tensor]:
        """Return what the tower said of one crop, each tensor [1, …]."""
        assert self.folder is not None
        with safe_open(_shard_path(self.folder, slot // _SHARD), "pt") as file:
            place = slot % _SHARD
            return {name: file.get_slice(name)[place : place + 1] for name in file.keys()}  # noqa: SIM118 (no mapping)


def _shard_path(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}.safetensors"


def _whole(path: Path, count: int) -> bool:
    """Whether a file was written to its end; a shorter one does not open."""
    try:
        with safe_open(path, "pt") as file:
            return all(file.get_slice(name).get_shape()[0] == count for name in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return False


def _name(bundle: Bundle, rows: TrainFaces, tower: torch.nn.Module, dtype: torch.dtype | None) -> str:
    """Return a hash of all that decides what the tower sees, and how exactly."""
    told = {
        "rows": rows.faces._fingerprint,
        "augment": asdict(rows.augment),
        "seed": rows.seed,
        "size": bundle.image_size,
        "processor": json.loads(bundle.processor.image_processor.to_json_string()),
        "dtype": str(dtype),
        "versions": versions(),
    }
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name, value in sorted(tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _why_not(base: Any, tower: Any, rows: TrainFaces) -> str | None:
    if not rows.augment.fixed_variants:
        return "every showing is altered anew (augment.fixed_variants: 0)"
    if len(rows) < 2 * rows.n_slots:
        return f"{rows.n_slots:,} crops for {len(rows):,} showings: too few are shown again"
    if tower is base or tower is None:
        return "this model has no tower of its own"
    if any(parameter.requires_grad for parameter in tower.parameters()):
        return "LoRA trains layers inside the tower"
    return None


@contextlib.contextmanager
def cache_vision_features(
    bundle: Bundle, collator: Collator, rows: TrainFaces, folder: Path, dtype: torch.dtype | None = None
) -> Iterator[tuple[CachedVisionEncoder | None, str]]:
    """Let the tower see each crop of a training once, where that pays; until the block ends, rows carry what it saw.

    Args:
        bundle: the model that is to be trained; its tower is changed, and changed back.
        collator: of the training; given the template of a picture, and relieved of it.
        rows: of the training; told where features are, and relieved of them.
        folder: what is kept lies in a folder inside, whose name no one chose; others there are removed.
        dtype: what products are computed in, None for that of the weights.

    Yields:
        The tower, to be given the ``features`` of each batch; None where it does not pay or cannot be. And a sentence
        that says which, or why.

    Raises:
        SemanticFaceError: the disk refuses.
    """
    model = bundle.model
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    tower = base.get_encoder(modality="image")
    why_not = _why_not(base, tower, rows)
    if why_not:
        shutil.rmtree(folder, ignore_errors=True)
        yield None, why_not
        return
    seen = CachedVisionEncoder(tower)
    tower.forward = seen.forward
    training = tower.training
    try:
        tower.eval()
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / _name(bundle, rows, tower, dtype)
        one = encode_images(bundle, base, seen, collator, [rows.crop(0)], dtype)
        size = rows.n_slots * sum(value.nbytes for value in (one or {}).values())
        if one is None:
            why_not = "its tower returns more than tensors of pictures"
        elif size > _SHARE * shutil.disk_usage(folder).free:
            why_not = f"they would take {size / 1e9:,.1f} GB, more than half of the free disk"
        if why_not:
            tower.forward = seen.original_forward
            shutil.rmtree(folder, ignore_errors=True)
            yield None, why_not
            return
        with PartialState().local_main_process_first():
            _fill(bundle, base, seen, collator, rows, place, dtype)
        tower.train(training)
        seen.folder = place
        rows.cached_features, collator.template = seen.load, collator.encode_prompts([rows.crop(0)])
        yield seen, f"the tower saw {rows.n_slots:,} crops once, for {len(rows):,} showings ({size / 1e6:,.0f} MB)"
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        tower.train(training)
        tower.forward = seen.original_forward
        rows.cached_features = collator.template = None


def encode_images(
    bundle: Bundle,
    base: Any,
    seen: CachedVisionEncoder,
    collator: Collator,
    crops: list[Any],
    dtype: torch.dtype | None,
) -> dict[str, torch.Tensor] | None:
    """Return what the tower says of some crops, each tensor [crops, …]; None if it says anything else."""
    text_inputs = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
    prompts = collator.encode_prompts(crops)
    inputs = {name: value.to(bundle.device) for name, value in prompts.items() if name not in text_inputs}
    autocast = torch.autocast(bundle.device.type, dtype or torch.bfloat16, enabled=dtype is not None)
    with torch.no_grad(), autocast:
        base.get_image_features(**inputs)
    return seen.last_features(len(crops))


def _fill(
    bundle: Bundle,
    base: Any,
    seen: CachedVisionEncoder,
    collator: Collator,
    rows: TrainFaces,
    place: Path,
    dtype: torch.dtype | None,
) -> None:
    """Write every file that is not there yet, each whole or not at all."""
    for other in place.parent.glob("*"):
        if other != place:
            shutil.rmtree(other, ignore_errors=True)
    for shard in tqdm(range(-(-rows.n_slots // _SHARD)), desc="looking", unit=f"{_SHARD} crops"):
        slots = range(shard * _SHARD, min((shard + 1) * _SHARD, rows.n_slots))
        path = _shard_path(place, shard)
        if _whole(path, len(slots)):
            continue
        parts = []
        for start in range(0, len(slots), _AT_ONCE):
            crops = [rows.crop(slot) for slot in slots[start : start + _AT_ONCE]]
            parts.append(encode_images(bundle, base, seen, collator, crops, dtype) or {})
        with atomic_path(path) as temporary:
            save_file({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, temporary)
