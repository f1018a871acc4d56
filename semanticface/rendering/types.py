"""The result of a render: the image and the positions of the face's landmarks in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

STYLES = ("photo", "toon", "drawn")
HEAD_STYLES = ("photo", "toon")
"""The styles that render any family of heads."""
HELD_OUT_STYLE = "imp"
"""A goblin that is kept out of the base model's training: the new character of the quickstart."""

Family = Literal["makehuman", "ict"]
FAMILIES: tuple[Family, ...] = ("makehuman", "ict")
"""Families of heads, each one maker's mesh, identities and idea of the actions: MakeHuman, and ICT-FaceKit's scans."""


def _eye_points(side: str) -> list[str]:
    brow = [f"brow{side}{n}" for n in range(1, 6)]
    lids = [f"eye{side}{n}" for n in ("Outer", "UpperOuter", "UpperInner", "Inner", "LowerInner", "LowerOuter")]
    return [*brow, *lids, f"iris{side}"]


POINTS: tuple[str, ...] = (
    *_eye_points("Left"),
    *_eye_points("Right"),
    *("noseBridge", "noseMiddle", "noseLow", "noseTip"),
    *("noseWingLeft", "nostrilLeft", "noseBase", "nostrilRight", "noseWingRight"),
    *("lipCornerLeft", "lipUpperLeft2", "lipUpperLeft1", "lipUpper", "lipUpperRight1", "lipUpperRight2"),
    *("lipCornerRight", "lipLowerRight2", "lipLowerRight1", "lipLower", "lipLowerLeft1", "lipLowerLeft2"),
    *("mouthCornerLeft", "mouthUpperLeft", "mouthUpper", "mouthUpperRight"),
    *("mouthCornerRight", "mouthLowerRight", "mouthLower", "mouthLowerLeft"),
    *("jawLeft4", "jawLeft3", "jawLeft2", "jawLeft1", "chin", "jawRight1", "jawRight2", "jawRight3", "jawRight4"),
    *(f"cheekLeft{n}" for n in range(1, 5)),
    *(f"cheekRight{n}" for n in range(1, 5)),
)
"""The 70 facial landmarks, the same in every style. Left and right are the subject's own.

Brow points run from the nose outwards; ``lip`` points lie on the outer border of the lips, ``mouth`` points on the
inner; jaw points run from the chin (1) up to the ear (4). Cheek points: 1 under the eye, 2 on the cheekbone, 3 beside
the nose wing, 4 outside the mouth corner.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """One rendered face with its exact labels.

    Attributes:
        image: uint8[size, size, 3], RGB.
        points: float32[70, 2], pixel x and y of ``POINTS`` (pixel centres at .5); NaN where a style does not draw one.
        box: float32[4], pixel x0, y0, x1, y1: the bounding box of this face *without expression* from brow tops to
            chin and cheek to cheek under the same camera, made square by its longer side, then enlarged by 1.25.
        camera: yaw, pitch and roll of the head towards the camera and the field of view, in degrees; ``scale`` is the
            box's side as a fraction of the image's.
        pose: float32[9], ``arkit.POSE_NAMES``: how far the head is turned from the camera, and the eyes in it.
        coefficients: float32[52], as rendered.
    """

    image: np.ndarray
    points: np.ndarray
    box: np.ndarray
    camera: dict[str, float]
    pose: np.ndarray
    coefficients: np.ndarray
