"""Which rows a model is shown, in which order and how altered: a pure function of the settings and a position.

Position k of a training always gives the same example, so a training that was killed goes on exactly, and neither
batch size, accumulation nor the number of loader processes changes what is seen.
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

_INSPECTED = 32


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """How training rows are altered; rows for evaluation never are.

    Attributes:
        mirror: share of rows flipped left to right, with coefficients swapped and the answer written anew.
        shift: the crop's centre moves by up to this share of the face box's side, either way, across and down.
        scale: the crop is up to this share larger or smaller than the face box.
        numbers_only_prob: share of rows whose answer is its numbers alone, for answering without words.
        fixed_variants: in how many fixed alterations a row is shown, over and over, so that a frozen vision tower need
            not look at each more than once; 0 alters every showing anew.
        decouple_numbers: learn words and numbers from different rows. One row learns the words of its answer; the next
            learns its numbers behind the words of another face, so that they must be read from the picture. A small
            model taught whole answers copies its numbers from the true words before them, but at work its words are
            guesses.
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
    """Look at some rows and refuse answers that a model could not be trained on as configured.

    Raises:
        DatasetError: no rows, or an answer that is not canonical.
        ConfigError: the answers speak of emotion and the config does not, or the other way round.
    """
    if len(faces) == 0:
        raise DatasetError(f"{folder} has no rows in this split: render more faces.")
    for index in np.unique(np.linspace(0, len(faces) - 1, _INSPECTED).astype(int)).tolist():
        text = faces[index]["answer"]
        try:
            answer = parse_answer(text)
        except AnswerError as error:
            raise DatasetError(f"{folder}, row {index}: {error} Write the column answer anew.") from error
        if answer.analysis is None or text != format_answer(answer.coefficients, answer.analysis):
            raise DatasetError(
                f"{folder}, row {index}: the answer is not in the canonical form. "
                "Write the column answer with data_prep/describe.py."
            )
        spoken = answer.analysis.emotional_implication is not None
        if spoken != emotion:
            raise ConfigError(
                f"{folder} was made {'with' if spoken else 'without'} emotion, the config says emotion: "
                f"{str(emotion).lower()}. Set emotion: {str(spoken).lower()}, or make the dataset anew"
                f"{' with --no-emotion' if spoken else ' without --no-emotion'}."
            )


def _face_box(row: dict[str, Any], picture: Image.Image) -> Box:
    """Return the row's box, or the whole picture where it has none."""
    box = row.get("box")
    if box is None or not all(map(math.isfinite, box)):
        return Box(0, 0, picture.width, picture.height)
    return Box(*box)


class EvalFaces(torch.utils.data.Dataset[Example]):
    """Rows spread evenly over a split, unaltered.

    Args:
        faces: from ``load_faces``.
        image_size: side of the crops in pixels.
        count: how many rows; None takes all.
    """

    def __init__(self, faces: datasets.Dataset, image_size: int, count: int | None = None) -> None:
        self.faces = faces.cast_column("picture", datasets.Image(decode=False))
        self.image_size = image_size
        self.indices = np.linspace(0, len(faces) - 1, min(count or len(faces), len(faces))).round().astype(int)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Example:
        """Return a row; raises a ``PictureError`` that names it where its picture is missing or damaged."""
        index = int(self.indices[position])
        row, name = self.faces[index], f"row {index}"
        picture = load_picture(picture_bytes(row["picture"], name), name=name)
        return Example(crop_face(picture, _face_box(row, picture).square(), self.image_size), row["answer"])


class TrainFaces(torch.utils.data.Dataset[Example]):
    """The rows of a whole training in the order in which they are shown; every pass is shuffled anew.

    Args:
        faces: from ``load_faces``.
        image_size: side of the crops in pixels.
        count: rows shown in all, over as many passes as that takes.
        augment: how they are altered.
        emotion: whether answers written anew for mirrored rows speak of emotion.
        seed: of order and alterations.

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
        # Without the picture, which takes longest to read.
        self._worded = faces.select_columns([name for name in faces.column_names if name != "picture"])
        self.image_size = image_size
        self.count = count
        self.augment = augment
        self.emotion = emotion
        self.seed = seed
        self.cached_features: Callable[[int], Mapping[str, torch.Tensor]] | None = None
        self._last_order: tuple[int, np.ndarray] | None = None

    def _order(self, pass_number: int) -> np.ndarray:
        """Return the order of rows in a pass; that of the last pass asked for is kept."""
        if self._last_order is None or self._last_order[0] != pass_number:
            order = np.random.default_rng([self.seed, 0, pass_number]).permutation(len(self.faces))
            self._last_order = (pass_number, order)
        return self._last_order[1]

    def __len__(self) -> int:
        return self.count

    @property
    def n_slots(self) -> int:
        """How many different crops are shown, where alterations are fixed; slot = row * variants + variant."""
        return len(self.faces) * self.augment.fixed_variants

    def crop(self, slot: int) -> Image.Image:
        """Return one of the fixed alterations of a row."""
        draws, mirrored = self._draws([2, slot])
        return self._crop(self.faces[slot // self.augment.fixed_variants], draws, mirrored)

    def _draws(self, place: list[int]) -> tuple[np.random.Generator, bool]:
        """Return what a crop's alterations are drawn from, and whether it is mirrored."""
        rng = np.random.default_rng([self.seed, *place])
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
        pass_number, place = divmod(position, len(self.faces))
        index = int(self._order(pass_number)[place])
        rng, mirrored = self._draws([1, position])
        draws, slot = rng, index * self.augment.fixed_variants
        if self.augment.fixed_variants:
            slot += pass_number % self.augment.fixed_variants
            draws, mirrored = self._draws([2, slot])
        crop, features = None, None
        if self.cached_features is None:
            row = self.faces[index]
            crop = self._crop(row, draws, mirrored)
        else:
            row, features = self._worded[index], self.cached_features(slot)
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
        words = parse_answer(self._worded[int(rng.integers(len(self.faces)))]["answer"]).analysis
        if words is None:
            raise DatasetError("an answer holds no analysis. Write the column answer with data_prep/describe.py.")
        return Example(crop, format_answer(parse_answer(answer).coefficients, words), "numbers", features)


def _jittered(box: Box, rng: np.random.Generator, augment: AugmentSettings) -> Box:
    """Return the box moved and scaled at random."""
    across, down = rng.uniform(-augment.shift, augment.shift, 2) * max(box.width, box.height)
    window = box.square(1 + rng.uniform(-augment.scale, augment.scale))
    return Box(window.x0 + across, window.y0 + down, window.x1 + across, window.y1 + down)
