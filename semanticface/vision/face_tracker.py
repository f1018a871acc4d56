"""Track one face through a take, so that all frames are cropped alike: tight, steady, and of the same person.

The whole frame is searched at the start, every ``DETECT_EVERY`` frames, and when the face is lost. In between, looking
near the previous box is enough and ten times cheaper. A One-Euro filter (``utils.one_euro``) smooths the box: it is
still on a face at rest, where detector jitter would shake the crop and so the coefficients, and follows a moving face
with a lag of at most ``MAX_LAG``.

Results depend only on the frames and their times; ``FaceTracker.state`` continues in another process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from semanticface.utils.one_euro import OneEuroFilter
from semanticface.vision.crop import Box
from semanticface.vision.face_detector import FaceDetector, default_face_detector, main_face

DETECT_EVERY = 60
"""Frames between full-frame detections while the face is in view."""
MAX_LAG = 0.03
"""Maximum offset and size difference between smoothed and detected box, in sides of the face."""

_SAME_FACE = 0.3  # IoU with the previous box from which a detected face is the same one
# Filter of the box's centre x, y and log size: Hz, and Hz per side per second.
_MIN_CUTOFF = np.array([1.0, 1.0, 0.5])
_BETA = np.array([20.0, 20.0, 2.0])


@dataclass(frozen=True, slots=True)
class TrackedFace:
    """The face in one frame.

    Attributes:
        box: square; None without a face.
        note: a remark, such as which of several faces is followed; usually empty.
    """

    box: Box | None
    note: str = ""


class FaceTracker:
    """Tracks one face; takes frames in order.

    Args:
        detector: by default the one in the package.
        state: ``state`` of another tracker, to continue from it.
    """

    def __init__(self, detector: FaceDetector | None = None, state: dict[str, Any] | None = None) -> None:
        self._detector = detector or default_face_detector()
        state = state or {"box": None, "lost": True, "age": 0, "unit": 1.0, "filter": None}
        self._box = Box(*state["box"]) if state["box"] else None
        self._lost: bool = state["lost"]
        self._age: int = state["age"]
        self._unit: float = state["unit"]
        self._filter = OneEuroFilter(_MIN_CUTOFF, _BETA, state["filter"])

    @property
    def state(self) -> dict[str, Any]:
        """The tracker's state; survives a round trip through JSON exactly."""
        box = self._box
        return {
            "box": box and [float(corner) for corner in (box.x0, box.y0, box.x1, box.y1)],
            "lost": self._lost,
            "age": self._age,
            "unit": self._unit,
            "filter": self._filter.state,
        }

    def update(self, image: Image.Image, time: float) -> TrackedFace:
        """Return the face in the next frame; ``time`` in seconds, ``image`` upright RGB."""
        box, note = self._detect(image)
        if box is None:
            self._lost = True
            return TrackedFace(None)
        self._lost = False
        self._box = box
        return TrackedFace(self._smooth(box, time), note)

    def _detect(self, image: Image.Image) -> tuple[Box | None, str]:
        """Return the detected box and a note."""
        self._age += 1
        near = None if self._lost or self._box is None else self._detector.redetect(image, self._box)
        if near is not None and self._age < DETECT_EVERY:
            return near, ""
        faces = self._detector.detect(image)
        if not faces:
            return near, ""
        self._age = 0
        previous = self._box
        if previous is not None:
            same = max(faces, key=previous.overlap)
            if same.overlap(previous) >= _SAME_FACE:
                return same, ""
            if near is not None:
                return near, ""
        # A new face: restart the filter.
        self._filter = OneEuroFilter(_MIN_CUTOFF, _BETA)
        main = main_face(faces)
        self._unit = main.width
        several = f"{len(faces)} faces found; following the largest one" if len(faces) > 1 else ""
        again = "" if previous is None else "the face was lost; following one found elsewhere in the picture"
        return main, several or again

    def _smooth(self, box: Box, time: float) -> Box:
        (x, y), side, unit = box.centre, box.width, self._unit
        detected = np.array([x / unit, y / unit, math.log(side / unit)])
        smoothed = self._filter.step(detected, time)
        max_offset = np.array([side / unit, side / unit, 1.0]) * MAX_LAG
        x, y, size = np.clip(smoothed, detected - max_offset, detected + max_offset).tolist()
        half = math.exp(size) * unit / 2
        x, y = x * unit, y * unit
        return Box(x - half, y - half, x + half, y + half, box.score)
