"""The 52 ARKit face actions: names, order, region, side, mirror partner, FACS units and other vocabularies.

The project's order is the column order of a Live Link Face CSV. Code indexes actions by name through ``INDEX``; every
other order or spelling in use has one table here.

Left and right are the subject's own: ``mouthLeft`` moves towards the right border of an unmirrored picture.

Sources: action names from Apple's ``ARFaceAnchor.BlendShapeLocation``; the order from Live Link Face exports; FACS
units from the FACS manual (Ekman, Friesen, Hager 2002) as far as one unit describes the movement.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Side = Literal["left", "right", "both"]

_SEPARATORS = re.compile(r"[\s_.:-]+")

REGIONS = ("brows", "eyes", "gaze", "cheeks", "nose", "mouth", "jaw", "tongue")

# name -> (region, FACS units), in the project's order. Empty tuple: no FACS unit describes the movement.
_TABLE: dict[str, tuple[str, tuple[str, ...]]] = {
    "eyeBlinkLeft": ("eyes", ("AU45",)),
    "eyeLookDownLeft": ("gaze", ("AU64",)),
    "eyeLookInLeft": ("gaze", ("AU62",)),
    "eyeLookOutLeft": ("gaze", ("AU61",)),
    "eyeLookUpLeft": ("gaze", ("AU63",)),
    "eyeSquintLeft": ("eyes", ("AU7",)),
    "eyeWideLeft": ("eyes", ("AU5",)),
    "eyeBlinkRight": ("eyes", ("AU45",)),
    "eyeLookDownRight": ("gaze", ("AU64",)),
    "eyeLookInRight": ("gaze", ("AU61",)),
    "eyeLookOutRight": ("gaze", ("AU62",)),
    "eyeLookUpRight": ("gaze", ("AU63",)),
    "eyeSquintRight": ("eyes", ("AU7",)),
    "eyeWideRight": ("eyes", ("AU5",)),
    "jawForward": ("jaw", ("AD29",)),
    "jawRight": ("jaw", ("AD30",)),
    "jawLeft": ("jaw", ("AD30",)),
    "jawOpen": ("jaw", ("AU26", "AU27")),
    "mouthClose": ("mouth", ("AU8",)),
    "mouthFunnel": ("mouth", ("AU22",)),
    "mouthPucker": ("mouth", ("AU18",)),
    "mouthRight": ("mouth", ()),
    "mouthLeft": ("mouth", ()),
    "mouthSmileLeft": ("mouth", ("AU12",)),
    "mouthSmileRight": ("mouth", ("AU12",)),
    "mouthFrownLeft": ("mouth", ("AU15",)),
    "mouthFrownRight": ("mouth", ("AU15",)),
    "mouthDimpleLeft": ("mouth", ("AU14",)),
    "mouthDimpleRight": ("mouth", ("AU14",)),
    "mouthStretchLeft": ("mouth", ("AU20",)),
    "mouthStretchRight": ("mouth", ("AU20",)),
    "mouthRollLower": ("mouth", ("AU28",)),
    "mouthRollUpper": ("mouth", ("AU28",)),
    "mouthShrugLower": ("mouth", ("AU17",)),
    "mouthShrugUpper": ("mouth", ("AU17",)),
    "mouthPressLeft": ("mouth", ("AU24",)),
    "mouthPressRight": ("mouth", ("AU24",)),
    "mouthLowerDownLeft": ("mouth", ("AU16",)),
    "mouthLowerDownRight": ("mouth", ("AU16",)),
    "mouthUpperUpLeft": ("mouth", ("AU10",)),
    "mouthUpperUpRight": ("mouth", ("AU10",)),
    "browDownLeft": ("brows", ("AU4",)),
    "browDownRight": ("brows", ("AU4",)),
    "browInnerUp": ("brows", ("AU1",)),
    "browOuterUpLeft": ("brows", ("AU2",)),
    "browOuterUpRight": ("brows", ("AU2",)),
    "cheekPuff": ("cheeks", ("AD34",)),
    "cheekSquintLeft": ("cheeks", ("AU6",)),
    "cheekSquintRight": ("cheeks", ("AU6",)),
    "noseSneerLeft": ("nose", ("AU9",)),
    "noseSneerRight": ("nose", ("AU9",)),
    "tongueOut": ("tongue", ("AD19",)),
}


@dataclass(frozen=True, slots=True)
class Action:
    """One of the 52 face actions.

    Attributes:
        name: camelCase ARKit name.
        index: position in the project's order, 0 to 51.
        region: one of ``REGIONS``.
        side: which half of the face moves; ``both`` for actions on or across the midline.
        mirror: the action that gets this coefficient when a picture is flipped left to right.
        facs: FACS action units or descriptors of the movement; may be empty.
    """

    name: str
    index: int
    region: str
    side: Side
    mirror: str
    facs: tuple[str, ...]


def _side(name: str) -> Side:
    return "left" if name.endswith("Left") else "right" if name.endswith("Right") else "both"


def _mirror_name(name: str) -> str:
    if name.endswith("Left"):
        return name.removesuffix("Left") + "Right"
    if name.endswith("Right"):
        return name.removesuffix("Right") + "Left"
    return name


ACTIONS: tuple[Action, ...] = tuple(
    Action(name, index, region, _side(name), _mirror_name(name), facs)
    for index, (name, (region, facs)) in enumerate(_TABLE.items())
)
NAMES: tuple[str, ...] = tuple(_TABLE)
INDEX: dict[str, int] = {name: index for index, name in enumerate(NAMES)}
N_ACTIONS = len(NAMES)
REGION_INDEX: dict[str, np.ndarray] = {
    region: np.array([a.index for a in ACTIONS if a.region == region]) for region in REGIONS
}
MIRROR_INDEX: np.ndarray = np.array([INDEX[a.mirror] for a in ACTIONS])

# Other vocabularies, each a table from our name (or index) to theirs.
PASCAL_CASE: dict[str, str] = {name: name[0].upper() + name[1:] for name in NAMES}
"""Live Link Face and VRM perfect sync."""

SUFFIXED: dict[str, str] = {
    name: name
    if name in ("jawLeft", "jawRight", "mouthLeft", "mouthRight")
    else name.removesuffix("Left") + "_L"
    if name.endswith("Left")
    else name.removesuffix("Right") + "_R"
    if name.endswith("Right")
    else name
    for name in NAMES
}
"""FaceCap and ICT: ``eyeBlink_L``; ``jawLeft/Right`` and ``mouthLeft/Right`` keep their names."""

MEDIAPIPE: tuple[str, ...] = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
"""Output order of MediaPipe Face Landmarker: ``_neutral`` and 51 actions; no ``tongueOut``."""


def _udp_order() -> tuple[str, ...]:
    names = list(NAMES)
    for left, right in (("jawLeft", "jawRight"), ("mouthLeft", "mouthRight")):
        i, j = INDEX[left], INDEX[right]
        names[i], names[j] = names[j], names[i]
    return tuple(names)


UDP_ORDER: tuple[str, ...] = _udp_order()
"""Order of Live Link Face's UDP stream: like the CSV, but ``jawLeft`` and ``mouthLeft`` before the right ones."""

POSE_NAMES: tuple[str, ...] = (
    "HeadYaw", "HeadPitch", "HeadRoll", "LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll", "RightEyeYaw", "RightEyePitch",
    "RightEyeRoll",
)  # fmt: skip
"""The nine columns after the 52 in a Live Link Face CSV: rotations in radians.

Yaw is positive towards the subject's right, pitch downwards, roll towards the subject's left shoulder; those of the
head turn it against the camera, those of an eye turn it in the head. Measured on a take for the eyes, whose gaze
actions move with them (docs/formats.md); the head's follow from ARKit's axes, which the app treats alike.
"""
N_POSE = len(POSE_NAMES)
POSE_MIRROR_INDEX = np.array([0, 1, 2, 6, 7, 8, 3, 4, 5])
POSE_MIRROR_SIGNS = np.array([-1, 1, -1] * 3, dtype=np.float32)
"""The mirrored face's pose is ``pose[..., POSE_MIRROR_INDEX] * POSE_MIRROR_SIGNS``: eyes swapped, yaw, roll negated."""

LIVE_LINK_COLUMNS: tuple[str, ...] = (
    "Timecode", "BlendShapeCount", *(PASCAL_CASE[name] for name in NAMES), *POSE_NAMES,
)  # fmt: skip
"""The exact header of a Live Link Face CSV, 63 columns."""

NAME_OF: dict[str, str] = {
    spelling.lower(): name for name in NAMES for spelling in (name, PASCAL_CASE[name], SUFFIXED[name])
}
"""Every known spelling, lower case, to our name."""

KEY_OF: dict[str, str] = {
    spelling.lower(): name for name in NAMES for spelling in (name, re.sub("(L)eft$|(R)ight$", r"\1\2", name))
}
"""Every known spelling, lower case and without separators, to our name: ``eyeblinkleft`` and ``eyeblinkl``."""


def column_key(text: str) -> str:
    """Return a name in lower case without spaces and separators, as in ``KEY_OF``."""
    return _SEPARATORS.sub("", text).lower() if text.isascii() else text


def stem(name: str) -> str:
    """Return an action's name without its side, ``mouthSmile`` of ``mouthSmileLeft``; ``jaw`` of ``jawLeft``."""
    return name.removesuffix("Left").removesuffix("Right")


def mirror(coefficients: np.ndarray) -> np.ndarray:
    """Return the coefficients of the mirrored face; shape ``[..., 52]`` in and out."""
    coefficients = np.asarray(coefficients)
    if coefficients.shape[-1:] != (N_ACTIONS,):
        raise ValueError(f"expected [..., {N_ACTIONS}] coefficients, got shape {coefficients.shape}")
    return coefficients[..., MIRROR_INDEX]


def mirror_pose(pose: np.ndarray) -> np.ndarray:
    """Return the pose of the mirrored face: eyes swapped, yaw and roll negated; shape ``[..., 9]`` in and out."""
    mirrored: np.ndarray = np.asarray(pose)[..., POSE_MIRROR_INDEX] * POSE_MIRROR_SIGNS
    return mirrored


GAZE_DEGREES = {"Out": 30.0, "In": 30.0, "Up": 22.0, "Down": 25.0}
"""Degrees that an eye turns at coefficient 1 of each gaze action; a fit to an iPhone's take gives 35 to the side and 32
up and down."""


def gaze_degrees(coefficients: np.ndarray) -> np.ndarray:
    """Return the eyes' angles that gaze actions stand for, as ``pose_of`` takes them; [..., 52] to [..., 2, 2]."""

    def turn(way: str, side: str) -> np.ndarray:
        turned: np.ndarray = GAZE_DEGREES[way] * np.asarray(coefficients)[..., INDEX[f"eyeLook{way}{side}"]]
        return turned

    sides = [
        np.stack([sign * (turn("Out", side) - turn("In", side)), turn("Up", side) - turn("Down", side)], axis=-1)
        for side, sign in (("Left", 1), ("Right", -1))
    ]
    return np.stack(sides, axis=-2)


def pose_of(head: Sequence[float] | np.ndarray, gaze: np.ndarray) -> np.ndarray:
    """Return Live Link's pose from angles in degrees.

    Args:
        head: [..., 3], yaw to the subject's left, pitch up, roll towards the subject's left shoulder.
        gaze: [..., 2, 2], left and right eye in the head, each to the subject's left and up.

    Returns:
        float32[..., 9], ``POSE_NAMES``.
    """
    head, gaze = np.asarray(head, np.float64), np.asarray(gaze, np.float64)
    eyes = np.concatenate([-gaze, np.zeros_like(gaze[..., :1])], axis=-1)  # [..., 2, 3]
    angles = np.concatenate([head * (-1, -1, 1), eyes.reshape(*eyes.shape[:-2], 6)], axis=-1)
    return np.radians(angles).astype(np.float32)


def pose_units(pose: np.ndarray) -> np.ndarray:
    """Return a pose's share of the way from -1 to 1 radian, in [0, 1]: what models predict; any shape, clipped."""
    units: np.ndarray = (np.clip(pose, -1.0, 1.0) + 1) / 2
    return units


def pose_from_units(units: np.ndarray) -> np.ndarray:
    """Return the pose in radians that models predict as ``pose_units``, float32; any shape."""
    return (2 * np.asarray(units, np.float64) - 1).astype(np.float32)


def vector(values: Mapping[str, float]) -> np.ndarray:
    """Return a float32[52] from values by action name (KeyError if unknown); other actions are 0."""
    out = np.zeros(N_ACTIONS, dtype=np.float32)
    for name, value in values.items():
        out[INDEX[name]] = value
    return out


def by_name(coefficients: np.ndarray) -> dict[str, float]:
    """Return ``{action name: float}``, in the project's order, from a [52] vector."""
    return {name: float(value) for name, value in zip(NAMES, coefficients, strict=True)}


def to_hundredths(coefficients: np.ndarray) -> np.ndarray:
    """Return coefficients in whole hundredths, int64, same shape; used for both analyses and answers.

    Raises:
        ValueError: the last dimension is not 52, or a value is outside [0, 1].
    """
    values = np.asarray(coefficients, dtype=np.float64)
    if values.shape[-1:] != (N_ACTIONS,):
        raise ValueError(f"expected [..., {N_ACTIONS}] coefficients, got shape {values.shape}")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("coefficients must be numbers from 0 to 1: clip or drop this row")
    return np.rint(values * 100).astype(np.int64)
