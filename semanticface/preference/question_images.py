"""The images of a question: the person's picture and two renders of one neutral head.

Head, camera and light are the same in every render, so that only the judged region differs; the other half is at rest
and dimmed.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import datasets
import numpy as np
from PIL import Image

from semanticface.data.faces import picture_bytes
from semanticface.errors import PictureError
from semanticface.preference.regions import Region, mask_outside
from semanticface.preference.types import CandidateSet, Question
from semanticface.rendering import render
from semanticface.vision.crop import Box, crop_face
from semanticface.vision.image_io import encode_jpeg, load_picture

_JPEG_QUALITY = 92
_CACHE_SIZE = 512  # images in memory, some 60 KiB each
_BACKGROUND = np.array([17, 19, 24], np.float32)  # of the page
_DIMMING = 0.72  # share of the background in the other half
# Where dimming begins and is complete, from the top of the frame: the upper half includes the lower lids, the lower
# half the bridge of the nose.
_FADE: dict[Region, tuple[float, float]] = {"upper": (0.33, 0.43), "lower": (0.30, 0.20)}


@dataclass(frozen=True, slots=True, eq=False)
class QuestionImages:
    """A question with three square JPEGs of one size, without metadata.

    Attributes:
        question: what is asked.
        reference: the person.
        a: render of the left candidate.
        b: render of the right candidate.
    """

    question: Question
    reference: bytes
    a: bytes
    b: bytes


class QuestionRenderer:
    """Makes the images of questions; thread-safe.

    Args:
        faces: the split that the candidate sets' rows refer to, from ``load_faces``.
        candidate_sets: by picture.
        size: side of the images in pixels.
    """

    def __init__(self, faces: datasets.Dataset, candidate_sets: Mapping[str, CandidateSet], size: int) -> None:
        self._faces = faces.cast_column("picture", datasets.Image(decode=False))
        self._candidate_sets = candidate_sets
        self._size = size
        self._head = functools.lru_cache(maxsize=_CACHE_SIZE)(self._render_head)
        self._reference = functools.lru_cache(maxsize=_CACHE_SIZE)(self._crop_reference)

    def __call__(self, question: Question) -> QuestionImages:
        """Return the images of a question.

        Raises:
            PictureError: the picture is missing, damaged, or not the one that the candidates were made for.
        """
        a, b = (self._head(question.picture, side, question.region) for side in (question.a, question.b))
        return QuestionImages(question, self._reference(question.picture), a, b)

    def _render_head(self, picture: str, candidate: str, region: Region) -> bytes:
        (face,) = (each for each in self._candidate_sets[picture].candidates if each.id == candidate)
        image = render(mask_outside(face.coefficients, region), subject=None, size=self._size, framing="crop").image
        return encode_jpeg(Image.fromarray(dim_other_half(image, region)), _JPEG_QUALITY)

    def _crop_reference(self, picture: str) -> bytes:
        row = self._candidate_sets[picture].row
        return encode_jpeg(reference(self._faces, row, picture, self._size), _JPEG_QUALITY)


def reference(faces: datasets.Dataset, row: int, picture: str, size: int) -> Image.Image:
    """Return the face in a row of a dataset as a square crop.

    Args:
        faces: with the column picture undecoded (``datasets.Image(decode=False)``).
        row: which.
        picture: required sha256 of its bytes.
        size: side of the crop in pixels.

    Raises:
        PictureError: no such row, the picture cannot be read, or it is another (``other_picture``).
    """
    if not 0 <= row < len(faces):
        raise PictureError("missing", f"row {row}: the dataset ends before it. Give the dataset of the candidates.")
    record = faces[row]
    data = picture_bytes(record["picture"], f"row {row}")
    if hashlib.sha256(data).hexdigest() != picture:
        raise PictureError(
            "other_picture",
            f"row {row}: not the picture that the candidates were made for. Give the dataset they were made from, or "
            "make candidates again.",
        )
    image = load_picture(data, name=f"row {row}")
    box = record.get("box")
    face = Box(0, 0, *image.size) if box is None or not np.isfinite(box).all() else Box(*box)
    return crop_face(image, face.square(), size)


def dim_other_half(image: np.ndarray, region: Region) -> np.ndarray:
    """Return a render of the neutral head, uint8[size, size, 3], with the half that is not judged darkened."""
    if region == "whole":
        return image
    begin, complete = (edge * len(image) for edge in _FADE[region])
    alpha = np.clip((np.arange(len(image)) + 0.5 - begin) / (complete - begin), 0, 1)
    alpha = (_DIMMING * alpha * alpha * (3 - 2 * alpha))[:, None, None]  # smoothstep, [size, 1, 1]
    return np.rint(image * (1 - alpha) + _BACKGROUND * alpha).astype(np.uint8)
