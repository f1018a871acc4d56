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
class Odds:
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

    turn: tuple[float, float, float]
    farthest: tuple[float, float, float]
    contrast: tuple[float, float]
    raking: float
    pattern: float
    coloured: float
    exposure: float
    defocus: float
    defocus_most: float
    motion: float
    motion_most: float
    coarse: float
    coarse_most: float
    jpeg: float
    quality: tuple[int, int]
    noise: float
    print: float
    glasses: tuple[float, float]
    headwear: tuple[float, float]
    held: float
    strands: float


_USUAL = Odds(
    turn=(15, 8, 6), farthest=(50, 28, 25), contrast=(2, 2), raking=0.10, pattern=0.07, coloured=0.12, exposure=0.22,
    defocus=0.10, defocus_most=2.0, motion=0.06, motion_most=6, coarse=0.14, coarse_most=2.2, jpeg=0.38,
    quality=(25, 92), noise=0.010, print=0.35, glasses=(0.9, 0.015), headwear=(0.85, 0.02), held=0.05, strands=0.06,
)  # fmt: skip
_HARD = Odds(
    turn=(27, 15, 12), farthest=(60, 38, 40), contrast=(5, 1.5), raking=0.40, pattern=0.30, coloured=0.30,
    exposure=0.38, defocus=0.35, defocus_most=3.0, motion=0.30, motion_most=11, coarse=0.45, coarse_most=2.8, jpeg=0.8,
    quality=(12, 45), noise=0.020, print=1.0, glasses=(1.0, 0.35), headwear=(1.0, 0.15), held=0.35, strands=0.30,
)  # fmt: skip


def odds(conditions: Conditions) -> Odds:
    """The odds of a set.

    Raises:
        ConfigError: no set is called that.
    """
    if conditions not in CONDITIONS:
        raise ConfigError(f"conditions {conditions!r} are unknown: use one of {', '.join(CONDITIONS)}.")
    return _USUAL if conditions == "usual" else _HARD
