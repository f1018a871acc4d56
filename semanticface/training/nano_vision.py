"""Data and feature maps for nano's vision encoder: crops as arrays, and the encoder's outputs for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import nn

from semanticface.arkit import N_ACTIONS, N_POSE
from semanticface.data.consent import KIND
from semanticface.data.faces import load_faces, recipe_of_kind
from semanticface.data.importers.mediapipe import to_arkit
from semanticface.errors import DatasetError
from semanticface.models import nano
from semanticface.rendering.types import POINTS
from semanticface.utils.files import atomic_path
from semanticface.utils.precision import fast_products
from semanticface.utils.progress import tqdm
from semanticface.vision.crop import Box, crop_face, to_crop

_BATCH = 256

CAPTURE_MARGIN = 1.25
"""Side of a real picture's stored window in sides of the face's box, so that training can move and turn its views."""


@dataclass(frozen=True, eq=False)
class Faces:
    """Faces of one source in memory, with what is known of each.

    Attributes:
        pixels: uint8[N, S, S, 3]: the face's box enlarged by ``margin``.
        coefficients: float32[N, 52]; 0 where not known.
        known: bool[N, 52], which of them are.
        points: float32[N, 70, 2], landmarks (``rendering.types.POINTS``) in [0, 1] over the picture, NaN if not known.
        pose: float32[N, 9], ``arkit.POSE_NAMES``, NaN if not known.
        margin: 1 for renders.
    """

    pixels: np.ndarray
    coefficients: np.ndarray
    known: np.ndarray
    points: np.ndarray
    pose: np.ndarray
    margin: float = 1.0

    def __len__(self) -> int:
        return len(self.pixels)


def read_faces(
    folders: Sequence[str | Path], split: str, out: Path, accelerator: Accelerator, *, margin: float = 1.0
) -> Faces:
    """Decode one split of several dataset folders once, into memory-mapped files that all processes share.

    Coefficients that MediaPipe predicted are put on ARKit's scale, and only those in which the two agree are kept
    (``data.importers.mediapipe.to_arkit``).

    Args:
        folders: datasets of crops, from data_prep/render_faces.py with ``--framing crop`` or
            data_prep/import_pictures.py.
        split: such as ``train``.
        out: parent of the folder with the files, which is named by a hash of their rows.
        accelerator: of the processes that need them.
        margin: side of the stored pictures in sides of a face's box; above 1 needs pictures with context.
    """
    parts = {Path(folder): load_faces(folder, split) for folder in folders}
    for source, part in parts.items():
        if "points" not in part.column_names:
            raise DatasetError(
                f"{source} has no column points. Make it with `semanticface render-faces --framing crop`, or with "
                "`semanticface import pictures --mediapipe`."
            )
    key = json.dumps([[part._fingerprint for part in parts.values()], margin, _LAYOUT])
    folder = out / f"{split}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if accelerator.is_main_process and not folder.exists():
        with atomic_path(folder) as scratch:
            scratch.mkdir()
            _decode(parts, scratch, margin, split)
    accelerator.wait_for_everyone()
    labels = {name: np.load(folder / f"{name}.npy") for name in _LABELS}
    return Faces(np.load(folder / "pixels.npy", mmap_mode="r"), **labels, margin=margin)


_LABELS = ("coefficients", "known", "points", "pose")
_LAYOUT = 2  # of the files


def _decode(parts: dict[Path, Dataset], out: Path, margin: float, split: str) -> None:
    """Write pixels and labels of all rows into a folder."""
    count, side = sum(map(len, parts.values())), round(nano.IMAGE_SIZE * margin)
    shape = (count, side, side, 3)
    pixels = np.lib.format.open_memmap(out / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
    coefficients = np.zeros((count, N_ACTIONS), np.float32)
    known = np.ones((count, N_ACTIONS), bool)
    points = np.empty((count, len(POINTS), 2), np.float32)
    pose = np.full((count, N_POSE), np.nan, np.float32)
    bar = tqdm(desc=f"reading {split}", total=count, unit="face")
    index = 0
    for folder, part in parts.items():
        first = index
        for row in part:
            picture = row["picture"].convert("RGB")
            window = Box(0, 0, *picture.size) if margin == 1 else Box(*row["box"]).square(margin)
            pixels[index] = np.asarray(crop_face(picture, window, side))
            points[index] = to_crop(np.asarray(row["points"], np.float32), window, 1)
            coefficients[index] = row["coefficients"]
            if "pose" in row:
                pose[index] = row["pose"]
            index += 1
            bar.update()
        if _labelled_by_mediapipe(folder):
            coefficients[first:index], known[first:index] = to_arkit(coefficients[first:index])
    for name, values in zip(_LABELS, (coefficients, known, points, pose), strict=True):
        np.save(out / f"{name}.npy", values)


def _labelled_by_mediapipe(folder: Path) -> bool:
    recipe = recipe_of_kind(folder, KIND)
    labels = (recipe or {}).get("settings", {}).get("labels") or {}
    return str(labels.get("by", "")).startswith("MediaPipe")


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
