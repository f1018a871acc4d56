"""Nano's vision tower on its own: crops in arrays, and the feature maps that a tower makes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from semanticface.data.faces import load_faces
from semanticface.errors import DatasetError
from semanticface.models import nano
from semanticface.utils.files import atomic_path
from semanticface.utils.progress import tqdm

_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Faces:
    """A split in memory.

    Attributes:
        pixels: uint8[N, 128, 128, 3].
        coefficients: float32[N, 52].
        points: float32[N, 70, 2], landmarks (``face.types.POINTS``) from 0 to 1 over the crop, NaN where out of sight.
    """

    pixels: np.ndarray
    coefficients: np.ndarray
    points: np.ndarray


def read_faces(folders: Sequence[str | Path], split: str, out: Path, accelerator: Accelerator) -> Faces:
    """Decode one split of several dataset folders, once, into files that all processes map into their memory.

    Args:
        folders: datasets of crops, as data_prep/render_faces.py writes them with ``--framing crop``.
        split: such as ``train``.
        out: the files lie in a folder inside, named by the rows they hold.
        accelerator: of the processes that want them.

    Raises:
        DatasetError: a folder cannot be read, or has no landmarks.
        SemanticFaceError: the disk refuses.
    """
    parts = [load_faces(folder, split) for folder in folders]
    for given, part in zip(folders, parts, strict=True):
        if "points" not in part.column_names:
            raise DatasetError(f"{given} has no column points. Make it with data_prep/render_faces.py --framing crop.")
    name = hashlib.sha256("".join(part._fingerprint for part in parts).encode()).hexdigest()[:16]
    folder = out / f"{split}-{name}"
    if accelerator.is_main_process and not folder.exists():
        count = sum(map(len, parts))
        with atomic_path(folder) as scratch:
            scratch.mkdir()
            shape = (count, nano.IMAGE_SIZE, nano.IMAGE_SIZE, 3)
            pixels = np.lib.format.open_memmap(scratch / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
            coefficients, points = [], []
            rows = (row for part in parts for row in part)
            for place, row in enumerate(tqdm(rows, desc=f"reading {split}", total=count, unit="face")):
                picture = row["picture"].convert("RGB")
                size = picture.width
                if picture.size != (nano.IMAGE_SIZE, nano.IMAGE_SIZE):
                    picture = picture.resize((nano.IMAGE_SIZE, nano.IMAGE_SIZE), reducing_gap=2.0)
                pixels[place] = np.asarray(picture)
                coefficients.append(row["coefficients"])
                points.append(np.asarray(row["points"], dtype=np.float32) / size)
            np.save(scratch / "coefficients.npy", np.array(coefficients, dtype=np.float32))
            np.save(scratch / "points.npy", np.stack(points))
    accelerator.wait_for_everyone()
    return Faces(
        np.load(folder / "pixels.npy", mmap_mode="r"),
        np.load(folder / "coefficients.npy"),
        np.load(folder / "points.npy"),
    )


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Scale uint8 pixels [B, H, W, 3] as nano's processor does: float32 [B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1)


def encode_batch(tower: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """The feature maps of a tower, float32[B, C, H, W], computed in bfloat16."""
    pictures = pictures.to(next(tower.parameters()).device, memory_format=torch.channels_last)
    with torch.autocast(pictures.device.type, torch.bfloat16):
        seen: torch.Tensor = tower(pictures).last_hidden_state.float()
    return seen


def feature_maps(tower: nn.Module, pixels: np.ndarray, *, mirrored: bool = False) -> Iterator[torch.Tensor]:
    """Yield what a tower makes of pictures uint8[N, H, W, 3], or of their mirror images: float32[B, C, H, W] a part."""
    tower.eval()
    for start in range(0, len(pixels), _AT_ONCE):
        part = pixels[start : start + _AT_ONCE]
        with torch.inference_mode():
            maps = encode_batch(
                tower, to_tensor(np.ascontiguousarray(part[:, :, ::-1]) if mirrored else np.array(part))
            )
        yield maps


def extract_features(tower: nn.Module, pixels: np.ndarray, *, mirrored: bool = False) -> np.ndarray:
    """Return ``feature_maps`` of all pictures as they are kept: float16[N, C, H, W]."""
    return np.concatenate([part.half().cpu().numpy() for part in feature_maps(tower, pixels, mirrored=mirrored)])
