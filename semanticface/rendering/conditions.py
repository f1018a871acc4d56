"""Probabilities and strengths of everything that makes an image hard to read, as two presets.

``usual`` is what models train on: most images are easily readable. ``hard`` is the shifted test set (harsh light, blur,
compression, noise, occluders, large head turns), each likelier and stronger. Nothing trains on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from semanticface.errors import ConfigError

Conditions = Literal["usual", "hard"]
CONDITIONS: tuple[Conditions, ...] = ("usual", "hard")


@dataclass(frozen=True, slots=True)
class ConditionSettings:
    """Probabilities in [0, 1] and ranges of strengths; lengths in pixels of a 224 px image.

    Attributes:
        turn_std, turn_max: standard deviation and limit of yaw, pitch and roll, degrees.
        contrast_beta: parameters of the beta distribution of the lights' contrast.
        side_light: key light far to one side, or below the face.
        shadow_pattern: shadow of blinds, leaves or bars across the face.
        coloured_light: lights in saturated colours.
        exposure_std: standard deviation of the exposure error, natural logarithm.
        defocus, defocus_max: probability of defocus blur, and its largest standard deviation.
        motion, motion_max: probability of motion blur, and its largest length.
        low_res, low_res_max: probability of an upscaled smaller image, and the largest factor.
        jpeg, jpeg_quality: probability of JPEG compression, and the range of qualities.
        noise_mean: mean of the noise's standard deviation, as a fraction of white.
        drawing_loss: probability that a drawing is degraded by the above.
        glasses: probability for subjects who usually wear glasses, and for the others.
        headwear: likewise.
        held_object: a hand, or something in one, in front of the face.
        loose_hair: hair across forehead and eyes.
    """

    turn_std: tuple[float, float, float]
    turn_max: tuple[float, float, float]
    contrast_beta: tuple[float, float]
    side_light: float
    shadow_pattern: float
    coloured_light: float
    exposure_std: float
    defocus: float
    defocus_max: float
    motion: float
    motion_max: float
    low_res: float
    low_res_max: float
    jpeg: float
    jpeg_quality: tuple[int, int]
    noise_mean: float
    drawing_loss: float
    glasses: tuple[float, float]
    headwear: tuple[float, float]
    held_object: float
    loose_hair: float


_USUAL = ConditionSettings(
    turn_std=(15, 8, 6), turn_max=(50, 28, 25), contrast_beta=(2, 2), side_light=0.10, shadow_pattern=0.07,
    coloured_light=0.12, exposure_std=0.22, defocus=0.10, defocus_max=2.0, motion=0.06, motion_max=6, low_res=0.14,
    low_res_max=2.2, jpeg=0.38, jpeg_quality=(25, 92), noise_mean=0.010, drawing_loss=0.35, glasses=(0.9, 0.015),
    headwear=(0.85, 0.02), held_object=0.05, loose_hair=0.06,
)  # fmt: skip
_HARD = ConditionSettings(
    turn_std=(27, 15, 12), turn_max=(60, 38, 40), contrast_beta=(5, 1.5), side_light=0.40, shadow_pattern=0.30,
    coloured_light=0.30, exposure_std=0.38, defocus=0.35, defocus_max=3.0, motion=0.30, motion_max=11, low_res=0.45,
    low_res_max=2.8, jpeg=0.8, jpeg_quality=(12, 45), noise_mean=0.020, drawing_loss=1.0, glasses=(1.0, 0.35),
    headwear=(1.0, 0.15), held_object=0.35, loose_hair=0.30,
)  # fmt: skip


def condition_settings(conditions: Conditions) -> ConditionSettings:
    if conditions not in CONDITIONS:
        raise ConfigError(f"conditions {conditions!r} are unknown: use one of {', '.join(CONDITIONS)}.")
    return _USUAL if conditions == "usual" else _HARD
