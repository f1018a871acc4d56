"""Where a person's face at rest is found: in one neutral picture, or in the calmest frames of a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semanticface.arkit import INDEX, NAMES
from semanticface.errors import SemanticFaceError, VideoError
from semanticface.inference.neutral import MIN_FACES, NeutralFace
from semanticface.inference.predictor import Predictor
from semanticface.inference.video import cropped_frames
from semanticface.vision.video_reader import Take

_LOOKED_AT = 240  # frames of a video, evenly spaced, among which the calmest are looked for
_STILL = np.array([not name.startswith(("eyeBlink", "eyeLook")) for name in NAMES])


def neutral_from_picture(predictor: Predictor, picture: Path) -> NeutralFace:
    """Return the rest that one picture of a neutral face shows.

    Raises:
        SemanticFaceError: no face in it, or it cannot be read.
    """
    (found,) = predictor([picture])
    if found.coefficients is None:
        raise SemanticFaceError(f"{found.reason} A neutral face is needed: one picture of the person at rest.")
    return NeutralFace.from_readings(found.coefficients[None])


def neutral_from_take(predictor: Predictor, take: Take, seconds: float) -> NeutralFace:
    """Return the rest that the calmest frames of a video show, those with the smallest sum of squares.

    Args:
        predictor: the model.
        take: from ``video_reader.open_take``; of a long one 240 evenly spaced frames are read.
        seconds: how much of it, above 0; at least ``MIN_FACES`` of the frames read.

    Raises:
        VideoError: fewer than ``MIN_FACES`` frames show a face.
    """
    # Not all takes know how many frames they have: then all are read.
    every = max(1, (take.count or 0) // _LOOKED_AT)
    frames = (
        frame for frame in cropped_frames(take, predictor.bundle.image_size) if (frame.frame.number - 1) % every == 0
    )
    crops = (frame.crop for frame in frames if frame.crop is not None)
    values = [face.coefficients for face in predictor.stream(crops, crop="none") if face.coefficients is not None]
    if len(values) < MIN_FACES:
        raise VideoError(
            f"{take.path}: {len(values)} frames with a face are too few to find the face at rest. Give a neutral "
            "picture instead: --neutral face.jpg"
        )
    readings = np.stack(values)
    wanted = max(MIN_FACES, round(seconds * float(take.rate) / every))
    calmest = np.argsort(_expression(readings), kind="stable")[:wanted]
    return NeutralFace.from_readings(readings[calmest])


def _expression(readings: np.ndarray) -> np.ndarray:
    """Return how far faces [N, 52] are from rest: the sum of squares, as one strong action tells more than many faint.

    Eyes blink and wander on calm faces too, and ``mouthClose`` shuts what ``jawOpen`` opens.
    """
    moved = np.where(_STILL, readings, 0)
    moved[:, INDEX["jawOpen"]] -= moved[:, INDEX["mouthClose"]]
    moved[:, INDEX["mouthClose"]] = 0
    squares: np.ndarray = np.square(moved).sum(axis=1)
    return squares
