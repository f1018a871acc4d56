"""The curves of a drawn face under 52 coefficients.

Curves lie in the plane of the face: x to the subject's left, y up, 1 = half the width of an average face. ``depth``
lifts the plane onto a rounded head, so that head rotation shifts near features past far ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from semanticface.arkit import INDEX
from semanticface.rendering.cartoon.style import Style

SIDES = (("Left", 1.0), ("Right", -1.0))
_EYE_T = np.linspace(-1.0, 1.0, 9)  # from the inner to the outer corner
_BROW_T = np.linspace(0.0, 1.0, 5)  # from the nose outwards
_LIP_T = np.linspace(-1.0, 1.0, 13)  # from the subject's right to the left corner
_EYE_POWER = {"almond": 0.8, "oval": 0.6, "round": 0.5, "box": 0.4}


@dataclass(frozen=True, slots=True)
class Eye:
    """One eye; curves run from the inner to the outer corner.

    Attributes:
        upper, lower: float[9, 2], edges of the lids.
        socket: float[9, 2], crease of the upper lid; between it and ``upper`` the lid's skin shows.
        iris: float[2], its centre; radius and pupil are the style's.
    """

    upper: np.ndarray
    lower: np.ndarray
    socket: np.ndarray
    iris: np.ndarray


@dataclass(frozen=True, slots=True)
class Mouth:
    """The lips as four curves float[13, 2] from the subject's right corner to the left one, with teeth and tongue.

    Attributes:
        outer_upper, inner_upper, inner_lower, outer_lower: borders of the lips from the top down.
        upper_teeth, lower_teeth: heights of the teeth's edges.
        jaw_x: shift of the lower teeth to the left.
        tongue: height of the tongue's tip, or None where it stays inside.
        forward: how far the lips protrude; the lower one by ``lower_forward`` more.
    """

    outer_upper: np.ndarray
    inner_upper: np.ndarray
    inner_lower: np.ndarray
    outer_lower: np.ndarray
    upper_teeth: float
    lower_teeth: float
    jaw_x: float
    tongue: float | None
    forward: float
    lower_forward: float


@dataclass(frozen=True, slots=True)
class Shape:
    """A face under an expression.

    Attributes:
        outline: float[17, 3], the head's contour from the crown down the subject's left side and up the right.
        eyes, brows: left and right; brows float[5, 2] along their middle from the nose outwards.
        mouth: the mouth.
        nose_wings: float[2, 2], left and right; nose_tip, nose_base: float[2].
        chin: float[2], front of the chin.
    """

    outline: np.ndarray
    eyes: tuple[Eye, Eye]
    brows: tuple[np.ndarray, np.ndarray]
    mouth: Mouth
    nose_wings: np.ndarray
    nose_tip: np.ndarray
    nose_base: np.ndarray
    chin: np.ndarray


def depth(points: np.ndarray) -> np.ndarray:
    """Distance in front of the ears of points ``[..., 2]`` of the face's plane."""
    x, y = points[..., 0], points[..., 1]
    return 0.8 * np.sqrt(np.clip(1.0 - (x / 1.18) ** 2 - ((y + 0.05) / 1.6) ** 2, 0.03, 1.0))


def _smoothstep(t: np.ndarray, low: float, high: float) -> np.ndarray:
    u = np.clip((t - low) / (high - low), 0.0, 1.0)
    return u * u * (3.0 - 2.0 * u)


def outline_of(style: Style, value: Callable[[str], float]) -> np.ndarray:
    """The head's contour, float[17, 3]; index 0 is the crown and 8 the chin."""
    drop = style.jaw_drop * value("jawOpen")
    aside = 0.26 * (value("jawLeft") - value("jawRight"))
    forward, puff = value("jawForward"), value("cheekPuff")
    chin_y = style.chin_y
    # x, y, depth, weight of the jaw's movement
    half = np.array(
        [
            (0.62 * style.cheek, 0.86 * style.crown_y, 0.0, 0.0),
            (0.95 * style.cheek, 0.46 * style.crown_y, 0.0, 0.0),
            (1.01 * style.cheek, 0.10, 0.0, 0.0),
            (1.00 * style.cheek, -0.22, 0.04, 0.0),
            (0.5 * (style.cheek + style.jaw) + 0.02, -0.55, 0.12, 0.25),
            (style.jaw, 0.70 * chin_y, 0.22, 0.6),
            (style.chin + 0.12, 0.93 * chin_y, 0.34, 0.95),
        ]
    )
    crown = np.array([[0.0, style.crown_y, 0.0, 0.0]])
    chin = np.array([[0.0, chin_y, 0.40, 1.0]])
    sides = []
    for name, sign in SIDES:
        side = half.copy()
        side[:, 0] += puff * np.array([0, 0, 0, 0.08, 0.23, 0.15, 0.0])
        lift = 0.05 * value(f"cheekSquint{name}") + 0.03 * value(f"mouthSmile{name}")
        side[:, 0] += lift * np.array([0, 0, 0.2, 1.0, 0.8, 0, 0])
        side[:, 0] += 0.05 * value(f"mouthStretch{name}") * np.array([0, 0, 0, 0, 0.3, 1.0, 0.6])
        side[:, 0] += 0.10 * forward * np.array([0, 0, 0, 0, 0, 0.3, 1.0])
        side[:, 0] *= sign
        sides.append(side)
    points = np.concatenate([crown, sides[0], chin, sides[1][::-1], crown])[:-1]
    jaw = points[:, 3]
    points[:, 0] += aside * jaw
    points[:, 1] -= (drop + 0.07 * forward - 0.05 * value("mouthShrugLower")) * jaw
    points[:, 2] += 0.25 * forward * jaw
    return points[:, :3]


def _eye(style: Style, value: Callable[[str], float], name: str, sign: float) -> Eye:
    blink, squint, wide = value(f"eyeBlink{name}"), value(f"eyeSquint{name}"), value(f"eyeWide{name}")
    up, down = value(f"eyeLookUp{name}"), value(f"eyeLookDown{name}")
    outward = value(f"eyeLookOut{name}") - value(f"eyeLookIn{name}")
    cheek = value(f"cheekSquint{name}")
    height = style.eye_height
    profile = np.clip(1.0 - _EYE_T**2, 0.0, 1.0) ** _EYE_POWER[style.eye_kind]
    across = style.eye_x + _EYE_T * style.eye_width
    tilt = style.eye_y + style.eye_tilt * _EYE_T
    below = height * (0.9 - 0.95 * squint - 0.28 * cheek + 0.12 * wide - 0.1 * down)
    above = height * (1.0 + 0.55 * wide + 0.12 * up - 0.32 * down - 0.15 * squint)
    above = max(above, -below + 0.1 * height)
    above += (-below - above) * blink
    fold = height * (1.35 + 0.35 * wide - 0.1 * value(f"browDown{name}"))

    def along(level: float) -> np.ndarray:
        return np.stack([sign * across, tilt + level * profile], axis=-1)

    iris = np.array(
        [sign * (style.eye_x + 0.62 * style.eye_width * outward), style.eye_y + height * (0.62 * up - 0.55 * down)]
    )
    return Eye(along(above), along(-below), along(max(fold, above)), iris)


def _brow(style: Style, value: Callable[[str], float], name: str, sign: float) -> np.ndarray:
    t = _BROW_T
    down, outer, inner = value(f"browDown{name}"), value(f"browOuterUp{name}"), value("browInnerUp")
    x = 0.19 + t * style.brow_length - 0.08 * down * (1.0 - t)
    y = style.brow_y + style.brow_arch * np.sin(np.pi * (0.15 + 0.75 * t)) + style.brow_slope * (t - 0.5)
    y -= down * (0.19 - 0.10 * t) + 0.05 * value(f"noseSneer{name}") * (1.0 - t)
    y += inner * (0.21 * (1.0 - t) ** 1.4 - 0.03 * t) + outer * 0.21 * _smoothstep(t, 0.05, 0.75)
    return np.stack([sign * x, y], axis=-1)


def _mouth(style: Style, value: Callable[[str], float]) -> Mouth:
    t = _LIP_T
    reach = np.abs(t)
    left = _smoothstep(t, -0.6, 0.6)
    arch = np.clip(1.0 - t**2, 0.0, 1.0)

    def sided(name: str, each: np.ndarray | float = 1.0) -> np.ndarray:
        return (value(f"{name}Left") * left + value(f"{name}Right") * (1.0 - left)) * each

    funnel, pucker = value("mouthFunnel"), value("mouthPucker")
    jaw, close = value("jawOpen"), min(value("mouthClose"), value("jawOpen"))
    roll_upper, roll_lower = value("mouthRollUpper"), value("mouthRollLower")
    shrug_upper, shrug_lower = value("mouthShrugUpper"), value("mouthShrugLower")
    forward, tongue = value("jawForward"), value("tongueOut")
    press = sided("mouthPress")
    far, small = style.mouth_reach, 1.0 - style.mouth_reach
    jaw_x = 0.20 * far * (value("jawLeft") - value("jawRight"))

    # A small mouth widens more with an action than a wide one, and does not narrow as the jaw opens.
    narrow = (1.0 - 0.42 * funnel) * (1.0 - 0.55 * pucker) * (1.0 - 0.08 * roll_lower)
    narrow *= 1.0 + (0.9 * small - 0.10) * (jaw - close)
    widen = 1.0 + sided("mouthStretch", 0.42 + 0.5 * small) + sided("mouthDimple", 0.16)
    widen = widen + sided("mouthSmile", 0.22 + 0.6 * small)
    x = style.mouth_width * t * narrow * widen
    x += 0.26 * far * (value("mouthLeft") - value("mouthRight")) * (1.0 - 0.25 * reach)

    corner = reach**1.6
    line = style.mouth_y + style.mouth_curve * (2.0 * t**2 - 1.0)
    line = line + far * corner * (sided("mouthSmile", 0.24) - sided("mouthFrown", 0.22) - sided("mouthStretch", 0.03))
    line = line - 0.04 * arch * sided("mouthSmile") + 0.03 * arch * sided("mouthFrown")
    line = line + 0.06 * (value("mouthLeft") - value("mouthRight")) * t
    line = line + (0.10 * shrug_lower + 0.05 * shrug_upper) * arch - 0.05 * (jaw - close) * corner
    line = line - 0.58 * style.jaw_drop * close

    # How far the lips part above and below the line where they meet.
    side_bump = np.clip(1.0 - (reach - 0.45) ** 2 / np.where(reach < 0.45, 1.2, 0.3), 0.0, 1.0)
    part_up = sided("mouthUpperUp", 0.17 * far * side_bump) + 0.11 * funnel * arch
    part_up = part_up * (1.0 - 0.6 * roll_upper)
    part_down = style.mouth_open * (jaw - close) * arch**0.75 + 0.11 * funnel * arch
    part_down = part_down + sided("mouthLowerDown", 0.18 * far * side_bump)
    part_down = part_down + 0.10 * tongue * arch
    part_down = part_down * (1.0 - 0.35 * roll_lower) - (0.05 * forward + 0.06 * roll_lower * (1 - jaw)) * arch
    inner_upper = line + part_up
    inner_lower = np.minimum(line - part_down, inner_upper)

    bow = np.interp(reach, [0.0, 0.25, 0.6, 1.0], [0.82, 1.0, 0.68, 0.0])
    plump = 1.0 + 0.45 * funnel + 0.5 * pucker
    flat = (1.0 - 0.55 * press) * (1.0 - sided("mouthStretch", 0.35)) * (1.0 - sided("mouthDimple", 0.25))
    upper = style.upper_lip * bow * plump * flat * (1.0 - 0.92 * roll_upper) + 0.10 * shrug_upper * arch**2
    lower = style.lower_lip * arch**0.6 * plump * flat * (1.0 - 0.92 * roll_lower)
    lower = lower * (1.0 + 0.45 * shrug_lower + 0.35 * forward)
    outer_upper = inner_upper + upper + 0.05 * close * arch
    outer_lower = inner_lower - lower
    lower_x = x + jaw_x * arch**0.5
    upper_x = x + 0.25 * jaw_x * arch

    return Mouth(
        np.stack([upper_x, outer_upper], axis=-1),
        np.stack([upper_x, inner_upper], axis=-1),
        np.stack([lower_x, inner_lower], axis=-1),
        np.stack([lower_x, outer_lower], axis=-1),
        upper_teeth=style.mouth_y - 0.03 + 0.07 * funnel,
        lower_teeth=style.mouth_y - 0.07 - 0.86 * style.mouth_open * jaw + 0.06 * forward - 0.07 * funnel,
        jaw_x=jaw_x,
        tongue=float(inner_lower.min() - far * (0.06 + 0.30 * tongue)) if tongue > 0.02 else None,
        forward=0.05 + 0.14 * max(funnel, pucker),
        lower_forward=0.2 * forward,
    )


def face_shape(style: Style, coefficients: np.ndarray) -> Shape:
    """The curves of a face.

    Args:
        style: the person.
        coefficients: float[52] in [0, 1], project order.
    """

    def value(name: str) -> float:
        return float(coefficients[INDEX[name]])

    outline = outline_of(style, value)
    lift = 0.06 * value("mouthShrugUpper")
    wings = [
        (
            sign * (style.nose_width + 0.03 * value(f"noseSneer{name}")),
            style.nose_y + 0.02 + 0.11 * value(f"noseSneer{name}") + 0.4 * lift,
        )
        for name, sign in SIDES
    ]
    chin = outline[8, :2] + (0.0, 0.16 + 0.06 * value("mouthShrugLower"))
    return Shape(
        outline=outline,
        eyes=(_eye(style, value, *SIDES[0]), _eye(style, value, *SIDES[1])),
        brows=(_brow(style, value, *SIDES[0]), _brow(style, value, *SIDES[1])),
        mouth=_mouth(style, value),
        nose_wings=np.array(wings),
        nose_tip=np.array([0.0, style.nose_y + 0.07 + 0.3 * lift]),
        nose_base=np.array([0.0, style.nose_y - 0.03 + lift]),
        chin=chin,
    )
