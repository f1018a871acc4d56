"""One face followed through a take, so that every frame is cropped alike: tight, steady, and always the same person.

The whole frame is searched at first, every ``DETECT_EVERY`` frames, and when the face is lost. In between one look at
where it was is enough, ten times cheaper. The box then passes a One-Euro filter (``semanticface.utils.one_euro``): it
rests on a face at rest, where the finder's own trembling would shake the crop and with it the coefficients, and goes
along with a face that moves, never more than ``MAX_LAG`` behind.

What comes out depends on the frames and their times alone; ``FaceTracker.state`` goes on in another process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from semanticface.utils.one_euro import OneEuroFilter
from semanticface.vision.crop import Box
from semanticface.vision.face_detector import FaceDetector, default_face_detector

DETECT_EVERY = 60
"""Frames between searches of the whole frame while the face is in view."""
MAX_LAG = 0.03
"""Sides of the face that the steady box may lie, or differ in size, from where the finder sees the face."""

_SAME_FACE = 0.3  # overlap with where it was from which a face found in the whole frame is still the same one
# Hz, and Hz for each side a second (of the logarithm of the size for the third): the box's centre and size.
_MIN_CUTOFF = np.array([1.0, 1.0, 0.5])
_BETA = np.array([20.0, 20.0, 2.0])


@dataclass(frozen=True, slots=True)
class TrackedFace:
    """Where the face is in one frame.

    Attributes:
        box: square; None where there is no face.
        note: what is worth knowing, such as which of several faces is followed; mostly empty.
    """

    box: Box | None
    note: str = ""


class FaceTracker:
    """Follows one face; to be shown the frames in order.

    Args:
        finder: finds faces; by default the one in the package.
        state: what ``state`` of an earlier tracker was.
    """

    def __init__(self, finder: FaceDetector | None = None, state: dict[str, Any] | None = None) -> None:
        self._finder = finder or default_face_detector()
        state = state or {"box": None, "lost": True, "age": 0, "unit": 1.0, "filter": None}
        self._box = Box(*state["box"]) if state["box"] else None
        self._lost: bool = state["lost"]
        self._age: int = state["age"]
        self._unit: float = state["unit"]
        self._filter = OneEuroFilter(_MIN_CUTOFF, _BETA, state["filter"])

    @property
    def state(self) -> dict[str, Any]:
        """What the next frame's answer depends on, for JSON: it survives being written and read exactly."""
        box = self._box
        return {
            "box": box and [float(corner) for corner in (box.x0, box.y0, box.x1, box.y1)],
            "lost": self._lost,
            "age": self._age,
            "unit": self._unit,
            "filter": self._filter.state,
        }

    def update(self, image: Image.Image, time: float) -> TrackedFace:
        """Return where the face is in the next frame; ``time`` in seconds, ``image`` upright RGB."""
        box, note = self._look(image)
        if box is None:
            self._lost = True
            return TrackedFace(None)
        self._lost = False
        self._box = box
        return TrackedFace(self._steadied(box, time), note)

    def _look(self, image: Image.Image) -> tuple[Box | None, str]:
        """Return where the finder sees the face, and what is to be said of it."""
        self._age += 1
        near = None if self._lost or self._box is None else self._finder.redetect(image, self._box)
        if near is not None and self._age < DETECT_EVERY:
            return near, ""
        faces = self._finder.detect(image)
        if not faces:
            return near, ""
        self._age = 0
        was = self._box
        if was is not None:
            same = max(faces, key=was.overlap)
            if same.overlap(was) >= _SAME_FACE:
                return same, ""
            if near is not None:
                return near, ""
        # Another place than before, or no place before: nothing of an earlier face may weigh in.
        self._filter = OneEuroFilter(_MIN_CUTOFF, _BETA)
        self._unit = faces[0].width
        several = f"{len(faces)} faces found; following the most prominent one" if len(faces) > 1 else ""
        again = "" if was is None else "the face was lost; following one found elsewhere in the picture"
        return faces[0], several or again

    def _steadied(self, box: Box, time: float) -> Box:
        (x, y), side, unit = box.centre, box.width, self._unit
        seen = np.array([x / unit, y / unit, math.log(side / unit)])
        steady = self._filter.step(seen, time)
        most = np.array([side / unit, side / unit, 1.0]) * MAX_LAG
        x, y, size = np.clip(steady, seen - most, seen + most).tolist()
        half = math.exp(size) * unit / 2
        x, y = x * unit, y * unit
        return Box(x - half, y - half, x + half, y + half, box.score)
