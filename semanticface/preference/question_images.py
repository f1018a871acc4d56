"""What a question shows: the picture of a person, and two renders of one plain head beside it.

Head, camera and light are the same in every render, so that nothing differs but what was judged; the half that is not
judged rests and is dimmed.
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
from semanticface.preference.regions import Area, mask_outside
from semanticface.preference.types import CandidateSet, Question
from semanticface.rendering import render
from semanticface.vision.crop import Box, crop_face
from semanticface.vision.image_io import encode_jpeg, load_picture

_JPEG_QUALITY = 92
_KEPT = 512  # drawings held in memory, some 60 KiB each
_DARK = np.array([17, 19, 24], np.float32)  # the page behind
_DIMMED = 0.72  # how far the other half goes towards it
# Where the dimming begins and is complete, from the top of the frame: upper lids and lower lids belong to the upper
# half, the bridge of the nose to the lower one.
_FADE: dict[Area, tuple[float, float]] = {"upper": (0.33, 0.43), "lower": (0.30, 0.20)}


@dataclass(frozen=True, slots=True, eq=False)
class QuestionImages:
    """A question as it is seen; three square JPEGs of one size, without metadata.

    Attributes:
        question: what is asked.
        reference: the person.
        a: render of the left candidate.
        b: render of the right one.
    """

    question: Question
    reference: bytes
    a: bytes
    b: bytes


class QuestionRenderer:
    """Draws what questions show; safe to use from several threads.

    Args:
        faces: the split of the dataset that the slates' rows are of, from ``load_faces``.
        slates: by picture.
        size: side of the pictures in pixels.
    """

    def __init__(self, faces: datasets.Dataset, slates: Mapping[str, CandidateSet], size: int) -> None:
        self._faces = faces.cast_column("picture", datasets.Image(decode=False))
        self._slates = slates
        self._size = size
        self._head = functools.lru_cache(maxsize=_KEPT)(self._draw_head)
        self._reference = functools.lru_cache(maxsize=_KEPT)(self._crop_reference)

    def __call__(self, question: Question) -> QuestionImages:
        """Return what a question shows.

        Raises:
            PictureError: the picture is missing, damaged, or another than the candidates were made for.
        """
        a, b = (self._head(question.picture, side, question.area) for side in (question.a, question.b))
        return QuestionImages(question, self._reference(question.picture), a, b)

    def _draw_head(self, picture: str, candidate: str, area: Area) -> bytes:
        (face,) = (each for each in self._slates[picture].candidates if each.id == candidate)
        drawn = render(mask_outside(face.coefficients, area), subject=None, size=self._size, framing="crop").image
        return encode_jpeg(Image.fromarray(dimmed(drawn, area)), _JPEG_QUALITY)

    def _crop_reference(self, picture: str) -> bytes:
        row = self._slates[picture].row
        return encode_jpeg(reference(self._faces, row, picture, self._size), _JPEG_QUALITY)


def reference(faces: datasets.Dataset, row: int, picture: str, size: int) -> Image.Image:
    """Return the face in a row of a dataset as a square crop.

    Args:
        faces: with the column picture undecoded (``datasets.Image(decode=False)``).
        row: which.
        picture: sha256 of the bytes that must be there.
        size: side of the crop in pixels.

    Raises:
        PictureError: no such row, the picture cannot be read, or it is another (``other_picture``).
    """
    if not 0 <= row < len(faces):
        raise PictureError("missing", f"row {row}: the dataset ends before it. Give the dataset of the candidates.")
    there = faces[row]
    data = picture_bytes(there["picture"], f"row {row}")
    if hashlib.sha256(data).hexdigest() != picture:
        raise PictureError(
            "other_picture",
            f"row {row}: another picture than the candidates were made for. Give the dataset they were made from, or "
            "make candidates anew.",
        )
    image = load_picture(data, name=f"row {row}")
    box = there.get("box")
    found = Box(0, 0, *image.size) if box is None or not np.isfinite(box).all() else Box(*box)
    return crop_face(image, found.square(), size)


def dimmed(picture: np.ndarray, area: Area) -> np.ndarray:
    """Return a render of the plain head, uint8[size, size, 3], with the half that is not judged darkened."""
    if area == "whole":
        return picture
    begins, complete = (edge * len(picture) for edge in _FADE[area])
    share = np.clip((np.arange(len(picture)) + 0.5 - begins) / (complete - begins), 0, 1)
    share = (_DIMMED * share * share * (3 - 2 * share))[:, None, None]
    return np.rint(picture * (1 - share) + _DARK * share).astype(np.uint8)
