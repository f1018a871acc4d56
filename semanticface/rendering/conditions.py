"""How likely and how strong everything is that makes a picture hard to read, in two sets.

``usual`` is what models train on: most pictures are readable at once, a share is plain. ``hard`` is the shifted test:
harsh light, blur, compression, noise, things before the face, heads turned far, each likelier and stronger. Nothing
trains on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from semanticface.errors import ConfigError

Conditions = Literal["usual", "hard"]
CONDITIONS: tuple[Conditions, ...] = ("usual", "hard")


@dataclass(frozen=True, slots=True)
class ConditionSettings:
    """Shares of pictures in [0, 1] and ranges of strengths; lengths in pixels of a 224 px picture.

    Attributes:
        turn: standard deviations of yaw, pitch and roll, degrees.
        farthest: largest yaw, pitch and roll, degrees.
        contrast: shape of the beta distribution of the lamps' contrast.
        raking: lamp far to one side, or below the face.
        pattern: shade of blinds, leaves or bars across the face.
        coloured: lamps in plain colours.
        exposure: spread of the exposure's error, natural logarithm.
        defocus, defocus_most: a blurred picture, and its largest standard deviation.
        motion, motion_most: a picture moved while taken, and the longest way.
        coarse, coarse_most: a picture enlarged from a smaller one, and by how much at most.
        jpeg, quality: compressed, and the range of qualities.
        noise: mean of the noise's standard deviation, share of white.
        print: a drawing that went through a camera's or a file's losses, as above.
        glasses: worn by those who wear any, and by the others.
        headwear: likewise.
        held: a hand, or something in one, before the face.
        strands: hair across forehead and eyes.
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
    """The odds of a set.

    Raises:
        ConfigError: no set is called that.
    """
    if conditions not in CONDITIONS:
        raise ConfigError(f"conditions {conditions!r} are unknown: use one of {', '.join(CONDITIONS)}.")
    return _USUAL if conditions == "usual" else _HARD
