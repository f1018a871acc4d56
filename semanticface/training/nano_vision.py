"""Data and feature maps for nano's vision encoder: crops as arrays, and the encoder's outputs for them."""

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
from semanticface.utils.precision import fast_products
from semanticface.utils.progress import tqdm

_BATCH = 256


@dataclass(frozen=True, eq=False)
class Faces:
    """A split in memory.

    Attributes:
        pixels: uint8[N, 128, 128, 3].
        coefficients: float32[N, 52].
        points: float32[N, 70, 2], landmarks (``rendering.types.POINTS``) in [0, 1] over the crop, NaN where hidden.
    """

    pixels: np.ndarray
    coefficients: np.ndarray
    points: np.ndarray


def read_faces(folders: Sequence[str | Path], split: str, out: Path, accelerator: Accelerator) -> Faces:
    """Decode one split of several dataset folders once, into memory-mapped files that all processes share.

    Args:
        folders: datasets of crops, from data_prep/render_faces.py with ``--framing crop``.
        split: such as ``train``.
        out: parent of the folder with the files, which is named by a hash of their rows.
        accelerator: of the processes that need them.
    """
    parts = [load_faces(folder, split) for folder in folders]
    for source, part in zip(folders, parts, strict=True):
        if "points" not in part.column_names:
            raise DatasetError(f"{source} has no column points. Make it with data_prep/render_faces.py --framing crop.")
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
            for index, row in enumerate(tqdm(rows, desc=f"reading {split}", total=count, unit="face")):
                picture = row["picture"].convert("RGB")
                size = picture.width
                if picture.size != (nano.IMAGE_SIZE, nano.IMAGE_SIZE):
                    picture = picture.resize((nano.IMAGE_SIZE, nano.IMAGE_SIZE), reducing_gap=2.0)
                pixels[index] = np.asarray(picture)
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


def encode_batch(vision_encoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return feature maps float32[B, C, H, W] of images float32[B, 3, H, W], in ``fast_products``."""
    images = images.to(next(vision_encoder.parameters()).device, memory_format=torch.channels_last)
    with fast_products(images.device):
        features: torch.Tensor = vision_encoder(images).last_hidden_state.float()
    return features


def feature_maps(vision_encoder: nn.Module, pixels: np.ndarray, *, mirrored: bool = False) -> Iterator[torch.Tensor]:
    """Yield batches of feature maps, float32[B, C, H, W], of pictures uint8[N, H, W, 3] or their mirror images."""
    vision_encoder.eval()
    for start in range(0, len(pixels), _BATCH):
        part = pixels[start : start + _BATCH]
        part = np.ascontiguousarray(part[:, :, ::-1]) if mirrored else np.array(part)
        with torch.inference_mode():
            maps = encode_batch(vision_encoder, to_tensor(part))
        yield maps


def extract_features(vision_encoder: nn.Module, pixels: np.ndarray, *, mirrored: bool = False) -> np.ndarray:
    """Return the feature maps of all pictures, float16[N, C, H, W]."""
    parts = feature_maps(vision_encoder, pixels, mirrored=mirrored)
    return np.concatenate([part.half().cpu().numpy() for part in parts])
