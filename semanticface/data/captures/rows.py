"""How a face becomes a row of a capture dataset: the settings, the crop and the columns."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from semanticface import arkit
from semanticface.config import check_range
from semanticface.data.consent import LOOK
from semanticface.errors import ConfigError
from semanticface.rendering.types import POINTS
from semanticface.semantics.analysis import Analysis, describe
from semanticface.semantics.answer import format_answer
from semanticface.vision.crop import Box, crop_face, to_crop
from semanticface.vision.image_io import encode_jpeg

CONTEXT = 1.5
"""Side of a stored crop in sides of the face's box: training shifts and scales its crops by up to a tenth."""
MIN_SIDE = 64
"""Smallest side of a stored crop in pixels."""

_NO_POSE = np.zeros(arkit.N_POSE, np.float32)
_NO_POINTS = np.full((len(POINTS), 2), np.nan, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureSettings:
    """Settings that takes, videos and pictures share.

    Attributes:
        size: largest side of the stored crops in pixels; smaller faces are not enlarged.
        neutral: a frame is near neutral if no action differs from rest by this much.
        keep_neutral: near-neutral frames kept per take or video.
        apart: a frame is a near duplicate if no action differs by this much from a frame already kept.
        splits: share of each split, by name.
        emotion: whether answers contain an emotional implication.

    Raises:
        ConfigError: a value is out of range.
    """

    size: int = 512
    neutral: float = 0.15
    keep_neutral: int = 5
    apart: float = 0.1
    splits: dict[str, float] = field(default_factory=lambda: {"train": 0.8, "validation": 0.1, "test": 0.1})
    emotion: bool = True

    def __post_init__(self) -> None:
        check_range("size", self.size, MIN_SIDE, 2048)
        check_range("neutral", self.neutral, 0, 1)
        check_range("keep_neutral", self.keep_neutral, 0, 100_000)
        check_range("apart", self.apart, 0, 1)
        if not self.splits or not all(name.isidentifier() and share > 0 for name, share in self.splits.items()):
            raise ConfigError(f"splits must be name=share pairs with shares above 0, not {self.splits}")


def crop_with_context(
    image: Image.Image, box: Box, size: int, context: float = CONTEXT
) -> tuple[Image.Image, np.ndarray]:
    """Return the crop to store, at most ``size`` pixels a side, and the face's box in it, float32[4]."""
    window = box.square(context)
    side = min(size, max(MIN_SIDE, round(window.width)))
    corners = to_crop(np.array([[box.x0, box.y0], [box.x1, box.y1]]), window, side)  # [2, 2]
    return crop_face(image, window, side), corners.ravel().astype(np.float32)


def make_row(
    crop: Image.Image,
    box: np.ndarray,
    coefficients: np.ndarray,
    *,
    subject: str,
    take: str,
    frame: int,
    emotion: bool,
    timecode: str = "",
    pose: np.ndarray | None = None,
    points: np.ndarray | None = None,
    analysis: Analysis | None = None,
) -> dict[str, Any]:
    """Return a row of ``dataset.FEATURES``; a given analysis is kept as far as ``emotion`` allows."""
    # Stage I reads the numbers as the answer prints them, so that text and digits agree.
    rounded = np.round(coefficients, 2)
    if analysis is None or (emotion and analysis.emotional_implication is None):
        analysis = describe(rounded, emotion=emotion)
    elif not emotion:
        analysis = dataclasses.replace(analysis, emotional_implication=None)
    return {
        "picture": encode_jpeg(crop),
        "coefficients": coefficients,
        "subject": subject,
        "look": LOOK,
        "answer": format_answer(rounded, analysis),
        "box": box,
        "pose": _NO_POSE if pose is None else pose,
        "points": list(_NO_POINTS if points is None else points),
        "take": take,
        "timecode": timecode,
        "frame": frame,
    }
