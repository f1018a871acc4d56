"""Training and evaluation examples: row order and augmentation are a pure function of settings and position.

Position k of a training always gives the same example, so training resumes exactly, and batch size, gradient
accumulation and the number of loader processes do not change the examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import torch.utils.data
from PIL import Image

from semanticface import arkit
from semanticface.config import check_range
from semanticface.data.faces import picture_bytes
from semanticface.errors import AnswerError, ConfigError, DatasetError
from semanticface.semantics.analysis import describe
from semanticface.semantics.answer import format_answer, parse_answer
from semanticface.training.collator import Example
from semanticface.vision.crop import Box, crop_face
from semanticface.vision.image_io import load_picture

_CHECKED_ROWS = 32


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """Augmentation of training rows; evaluation rows are never augmented.

    Attributes:
        mirror: share of rows flipped left to right, with mirrored coefficients and a new answer.
        shift: the crop's centre moves by up to this share of the face box's side, horizontally and vertically.
        scale: the crop is up to this share larger or smaller than the face box.
        numbers_only_prob: share of rows whose answer has numbers but no analysis, for inference without analysis.
        fixed_variants: number of fixed augmentations per row, so that a frozen vision encoder computes each only once;
            0 augments anew each time.
        decouple_numbers: learn analysis and numbers from different rows: one row learns its analysis, the next learns
            its numbers behind the analysis of another face, so that they must be read from the picture. Trained on
            whole answers, a small model copies its numbers from the ground truth analysis before them, but at
            inference its analysis is only a prediction.
    """

    mirror: float = 0.5
    shift: float = 0.06
    scale: float = 0.1
    numbers_only_prob: float = 0.0
    fixed_variants: int = 0
    decouple_numbers: bool = False

    def __post_init__(self) -> None:
        check_range("augment.mirror", self.mirror, 0, 1)
        check_range("augment.shift", self.shift, 0, 0.5)
        check_range("augment.scale", self.scale, 0, 0.5)
        check_range("augment.numbers_only_prob", self.numbers_only_prob, 0, 1)
        check_range("augment.fixed_variants", self.fixed_variants, 0, 1000)


def check_rows(faces: datasets.Dataset, folder: str | Path, *, emotion: bool) -> None:
    """Check that some answers are canonical and contain emotion as configured."""
    if len(faces) == 0:
        raise DatasetError(f"{folder} has no rows in this split: render more faces.")
    for index in np.unique(np.linspace(0, len(faces) - 1, _CHECKED_ROWS).astype(int)).tolist():
        text = faces[index]["answer"]
        try:
            answer = parse_answer(text)
        except AnswerError as error:
            raise DatasetError(f"{folder}, row {index}: {error} Rewrite the column answer.") from error
        if answer.analysis is None or text != format_answer(answer.coefficients, answer.analysis):
            raise DatasetError(
                f"{folder}, row {index}: the answer is not in the canonical form. "
                "Write the column answer with `semanticface write-answers`."
            )
        has_emotion = answer.analysis.emotional_implication is not None
        if has_emotion != emotion:
            raise ConfigError(
                f"{folder} was made {'with' if has_emotion else 'without'} emotion, the config says emotion: "
                f"{str(emotion).lower()}. Set emotion: {str(has_emotion).lower()}, or remake the dataset"
                f"{' with --no-emotion' if has_emotion else ' without --no-emotion'}."
            )


def _face_box(row: dict[str, Any], picture: Image.Image) -> Box:
    """Return the row's box, or that of the whole picture."""
    box = row.get("box")
    if box is None or not all(map(math.isfinite, box)):
        return Box(0, 0, picture.width, picture.height)
    return Box(*box)


class EvalFaces(torch.utils.data.Dataset[Example]):
    """Rows spread evenly over a split, without augmentation.

    Args:
        faces: from ``load_faces``.
        image_size: side of the crops in pixels.
        count: number of rows; None for all.
    """

    def __init__(self, faces: datasets.Dataset, image_size: int, count: int | None = None) -> None:
        self.faces = faces.cast_column("picture", datasets.Image(decode=False))
        self.image_size = image_size
        self.indices = np.linspace(0, len(faces) - 1, min(count or len(faces), len(faces))).round().astype(int)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Example:
        """Return a row; a missing or damaged picture raises a ``PictureError`` that names the row."""
        index = int(self.indices[position])
        row, name = self.faces[index], f"row {index}"
        picture = load_picture(picture_bytes(row["picture"], name), name=name)
        return Example(crop_face(picture, _face_box(row, picture).square(), self.image_size), row["answer"])


class TrainFaces(torch.utils.data.Dataset[Example]):
    """The examples of a whole training in order; every epoch is shuffled differently.

    Args:
        faces: from ``load_faces``.
        image_size: side of the crops in pixels.
        count: examples in all, over as many epochs as that takes.
        augment: augmentation.
        emotion: whether new answers of mirrored rows contain emotion.
        seed: of order and augmentation.

    Attributes:
        cached_features: returns the vision features of a crop by its slot; None for rows with pictures.
    """

    def __init__(
        self,
        faces: datasets.Dataset,
        image_size: int,
        *,
        count: int,
        augment: AugmentSettings,
        emotion: bool,
        seed: int,
    ) -> None:
        self.faces = faces
        # Reading the picture takes longest.
        self._without_pictures = faces.select_columns([name for name in faces.column_names if name != "picture"])
        self.image_size = image_size
        self.count = count
        self.augment = augment
        self.emotion = emotion
        self.seed = seed
        self.cached_features: Callable[[int], Mapping[str, torch.Tensor]] | None = None
        self._last_order: tuple[int, np.ndarray] | None = None

    def _order(self, epoch: int) -> np.ndarray:
        if self._last_order is None or self._last_order[0] != epoch:
            order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.faces))
            self._last_order = (epoch, order)
        return self._last_order[1]

    def __len__(self) -> int:
        return self.count

    @property
    def n_slots(self) -> int:
        """Number of different crops with fixed augmentation; slot = row * variants + variant."""
        return len(self.faces) * self.augment.fixed_variants

    def crop(self, slot: int) -> Image.Image:
        """Return the crop of a slot."""
        rng, mirrored = self._augmentation([2, slot])
        return self._crop(self.faces[slot // self.augment.fixed_variants], rng, mirrored)

    def _augmentation(self, key: list[int]) -> tuple[np.random.Generator, bool]:
        """Return a crop's random generator, and whether it is mirrored."""
        rng = np.random.default_rng([self.seed, *key])
        return rng, bool(rng.random() < self.augment.mirror)

    def _crop(self, row: dict[str, Any], rng: np.random.Generator, mirrored: bool) -> Image.Image:
        picture = load_picture(row["picture"])
        box = _face_box(row, picture)
        if row.get("box") is not None:
            box = _jittered(box, rng, self.augment)
        crop = crop_face(picture, box, self.image_size)
        return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else crop

    def __getitem__(self, position: int) -> Example:
        if not 0 <= position < self.count:
            raise IndexError(position)
        epoch, index = divmod(position, len(self.faces))
        index = int(self._order(epoch)[index])
        rng, mirrored = self._augmentation([1, position])
        crop_rng, slot = rng, index * self.augment.fixed_variants
        if self.augment.fixed_variants:
            slot += epoch % self.augment.fixed_variants
            crop_rng, mirrored = self._augmentation([2, slot])
        crop, features = None, None
        if self.cached_features is None:
            row = self.faces[index]
            crop = self._crop(row, crop_rng, mirrored)
        else:
            row, features = self._without_pictures[index], self.cached_features(slot)
        answer = row["answer"]
        if mirrored:
            coefficients = arkit.mirror(np.asarray(row["coefficients"], dtype=np.float32))
            answer = format_answer(coefficients, describe(coefficients, emotion=self.emotion))
        if rng.random() < self.augment.numbers_only_prob:
            return Example(crop, format_answer(parse_answer(answer).coefficients, None), "numbers", features)
        if not self.augment.decouple_numbers:
            return Example(crop, answer, "all", features)
        if rng.random() < 0.5:
            return Example(crop, answer, "analysis", features)
        other = parse_answer(self._without_pictures[int(rng.integers(len(self.faces)))]["answer"]).analysis
        if other is None:
            raise DatasetError(
                "an answer holds no analysis. Write the column answer with `semanticface write-answers`."
            )
        return Example(crop, format_answer(parse_answer(answer).coefficients, other), "numbers", features)


def _jittered(box: Box, rng: np.random.Generator, augment: AugmentSettings) -> Box:
    dx, dy = rng.uniform(-augment.shift, augment.shift, 2) * max(box.width, box.height)
    window = box.square(1 + rng.uniform(-augment.scale, augment.scale))
    return Box(window.x0 + dx, window.y0 + dy, window.x1 + dx, window.y1 + dy)
