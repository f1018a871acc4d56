"""The person of a drawn face: proportions, colours and drawing style, from a subject's seed.

Lengths are in units of half the width of an average face. About half of the subjects are in the manner of anime (see
``anime``), the others in that of Western cartoons.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field, replace

import numpy as np

Colour = tuple[float, float, float]  # red, green, blue, 0 to 1

HAIR = ("none", "buzz", "parted", "fringe", "spiky", "curly", "afro", "bob", "long", "bun", "mohawk", "tails", "widow")
NOSES = ("button", "wings", "side", "triangle", "dots")
EYES = ("almond", "round", "oval")
BLUSHES = ("none", "disc", "soft", "stripes", "band")
TEETH = ("rows", "upper", "none")
BEARDS = ("none", "stubble", "full", "goatee", "moustache")

_SKINS: tuple[Colour, ...] = (
    (1.00, 0.88, 0.80), (0.98, 0.81, 0.69), (0.93, 0.72, 0.57), (0.84, 0.60, 0.43), (0.70, 0.46, 0.31),
    (0.55, 0.35, 0.23), (0.44, 0.28, 0.20), (0.35, 0.22, 0.16),
)  # fmt: skip
_HAIRS: tuple[Colour, ...] = (
    (0.10, 0.08, 0.08), (0.24, 0.15, 0.10), (0.42, 0.26, 0.15), (0.62, 0.38, 0.18), (0.88, 0.72, 0.38),
    (0.70, 0.27, 0.12), (0.62, 0.62, 0.62), (0.92, 0.92, 0.90),
)  # fmt: skip
_IRISES: tuple[Colour, ...] = (
    (0.30, 0.18, 0.10), (0.45, 0.28, 0.13), (0.25, 0.45, 0.65), (0.35, 0.55, 0.75), (0.30, 0.50, 0.32),
    (0.48, 0.48, 0.25), (0.42, 0.45, 0.48),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Style:
    """A drawn person. The defaults are the plain average face."""

    # Drawing style
    line: float = 0.032  # width of an outline
    ink: Colour = (0.13, 0.09, 0.09)
    contour: bool = True  # whether head and hair have outlines
    # Colours
    skin: Colour = (0.96, 0.80, 0.68)
    lips: Colour = (0.80, 0.45, 0.42)
    blush: Colour = (0.93, 0.55, 0.48)
    blush_kind: str = "disc"
    blush_strength: float = 0.25
    hair_colour: Colour = (0.30, 0.19, 0.12)
    brow_colour: Colour = (0.24, 0.15, 0.10)
    iris: Colour = (0.36, 0.24, 0.13)
    sclera: Colour = (1.0, 1.0, 1.0)
    shirt: Colour = (0.35, 0.45, 0.62)
    mouth_inside: Colour = (0.22, 0.05, 0.07)
    lid_shade: float = 0.86  # of the upper lid's skin
    creases: float = 1.0  # of lines beside features that move anyway, as beside a smile
    # Head: half widths from the crown down, and heights
    cheek: float = 1.0
    jaw: float = 0.80
    chin: float = 0.36
    chin_y: float = -1.16
    crown_y: float = 1.22
    ear: float = 0.22
    neck: float = 0.42
    jaw_drop: float = 0.45  # of the chin at jawOpen 1
    # Eyes
    eye_kind: str = "almond"
    eye_x: float = 0.42
    eye_y: float = 0.08
    eye_width: float = 0.24
    eye_height: float = 0.145
    eye_tilt: float = 0.02
    iris_size: float = 0.115  # half its width
    iris_aspect: float = 1.0  # its height by its width
    pupil: float = 0.55  # size by the iris
    big_eyes: bool = False  # drawn as in anime: tapered lash line, shaded iris, several highlights
    eye_crease: float = 0.7  # strength of the line above the upper lid
    lower_line: float = 1.0  # share of the lower lid that is drawn, from the outer corner
    lashes: float = 1.5  # width of the upper lash line, in lines
    lash_flick: bool = False
    # Brows
    brow_y: float = 0.46
    brow_length: float = 0.46
    brow_weight: float = 0.065
    brow_arch: float = 0.07
    brow_slope: float = 0.0
    # Nose and mouth
    nose_kind: str = "wings"
    nose_y: float = -0.30
    nose_width: float = 0.15
    nose_side: float = 1.0
    mouth_y: float = -0.62
    mouth_width: float = 0.34
    mouth_open: float = 0.50  # height of the opening at jawOpen 1
    mouth_reach: float = 1.0  # how far corners and lips move
    upper_lip: float = 0.075
    lower_lip: float = 0.10
    mouth_curve: float = 0.0
    lip_fill: float = 0.85
    lipless: bool = False  # the mouth is a line, or a shape when open
    teeth: str = "rows"
    # Extras
    hair: str = "parted"
    hair_volume: float = 0.12
    bangs: str = "none"
    bangs_tip: float = 0.5  # height of the tips of bangs
    hair_shine: bool = False
    brows_over_hair: float = 1.0  # how strongly brows show through bangs
    beard: str = "none"
    glasses: bool = False
    freckles: int = 0
    earrings: bool = False
    detail_seed: tuple[int, ...] = field(default=(0,))  # of scattered details: freckles, curls


def mix(a: Colour, b: Colour, amount: float) -> Colour:
    """Interpolate from ``a`` to ``b`` by ``amount`` in 0 to 1."""
    return (a[0] + (b[0] - a[0]) * amount, a[1] + (b[1] - a[1]) * amount, a[2] + (b[2] - a[2]) * amount)


def shade(colour: Colour, factor: float) -> Colour:
    """A darker colour, or above 1 a lighter one."""
    return (min(1.0, colour[0] * factor), min(1.0, colour[1] * factor), min(1.0, colour[2] * factor))


def luminance(colour: Colour) -> float:
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


def pick(rng: np.random.Generator, palette: tuple[Colour, ...]) -> Colour:
    """A random colour between two neighbours of a palette."""
    place = rng.uniform(0, len(palette) - 1)
    i = min(int(place), len(palette) - 2)
    return mix(palette[i], palette[i + 1], place - i)


def vivid(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    """A random hue within bounds of saturation and value."""
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))


def choose(rng: np.random.Generator, options: tuple[str, ...], plain: float = 0.0) -> str:
    """One of the options; first of all the first one with probability ``plain``."""
    return options[0] if rng.random() < plain else options[int(rng.integers(len(options)))]


def reach_of(mouth_width: float) -> float:
    """How far the corners of a mouth move: less for small ones."""
    return min(1.0, 0.3 + 0.7 * mouth_width / 0.34)


def mouth_inside(rng: np.random.Generator) -> Colour:
    """Colour of an open mouth: dark red, black or plain red."""
    return mix((0.12, 0.03, 0.05), (0.72, 0.22, 0.22), rng.uniform(0.0, 1.0) ** 2)


def with_blush(style: Style, rng: np.random.Generator) -> Style:
    """The style with another blush, or without one."""
    kind = choose(rng, BLUSHES, 0.35)
    return replace(style, blush_kind=kind, blush_strength=rng.uniform(0.25, 0.9))


def western_style(subject: int) -> Style:
    """Sample the style of a Western cartoon."""
    rng = np.random.default_rng([subject, 0xD5])
    fantasy = rng.random() < 0.3
    skin = vivid(rng, (0.2, 0.65), (0.65, 1.0)) if fantasy else pick(rng, _SKINS)
    dark = luminance(skin) < 0.38
    hair = vivid(rng, (0.4, 0.95), (0.3, 0.95)) if rng.random() < 0.25 else pick(rng, _HAIRS)
    # Ink is a little tinted by the skin, less on dark skin, where it must stay visible.
    ink = mix((0.04, 0.03, 0.04), skin, rng.uniform(0.0, 0.12 if dark else 0.28))
    lips = (
        mix(skin, vivid(rng, (0.6, 0.9), (0.4, 0.8)), 0.6)
        if rng.random() < 0.15
        else mix(shade(skin, rng.uniform(0.72, 0.95)), (0.75, 0.22, 0.25), rng.uniform(0.15, 0.55))
    )
    brow = mix(shade(hair, 0.75), (0.08, 0.06, 0.06), rng.uniform(0.0, 0.5))
    if abs(luminance(brow) - luminance(skin)) < 0.16:
        brow = shade(skin, 0.4) if luminance(skin) > 0.3 else mix(skin, (0.0, 0.0, 0.0), 0.8)
    kind = choose(rng, EYES)
    big = rng.uniform(0.85, 1.35)
    eye_width = (0.22 if kind != "round" else 0.19) * big * rng.uniform(0.92, 1.1)
    eye_height = eye_width * {"almond": 0.6, "oval": 0.85, "round": 1.0}[kind] * rng.uniform(0.88, 1.12)
    if kind != "almond" and rng.random() < 0.3:
        eye_height *= rng.uniform(1.1, 1.5)
    eye_y = rng.uniform(0.02, 0.14)
    mouth_width = rng.uniform(0.12, 0.27) if rng.random() < 0.35 else rng.uniform(0.27, 0.42)
    lipless = rng.random() < 0.3
    thickness = mouth_width / 0.34 if mouth_width < 0.27 else 1.0
    bearded = rng.random() < 0.16
    return Style(
        line=float(np.exp(rng.uniform(np.log(0.017), np.log(0.05)))),
        ink=ink,
        contour=rng.random() < 0.85,
        skin=skin,
        lips=lips,
        blush=mix(skin, (0.95, 0.35, 0.35), 0.45),
        blush_kind=choose(rng, BLUSHES[:4], 0.35),
        blush_strength=rng.uniform(0.15, 0.8),
        hair_colour=hair,
        brow_colour=brow,
        iris=vivid(rng, (0.4, 0.9), (0.3, 0.8)) if fantasy and rng.random() < 0.5 else pick(rng, _IRISES),
        sclera=(1.0, 1.0, 1.0) if rng.random() < 0.8 else mix((1.0, 1.0, 1.0), skin, 0.2),
        shirt=vivid(rng, (0.1, 0.8), (0.2, 0.95)),
        cheek=rng.uniform(0.93, 1.08),
        jaw=rng.uniform(0.66, 0.96),
        chin=rng.uniform(0.24, 0.52),
        chin_y=rng.uniform(-1.28, -1.04),
        crown_y=rng.uniform(1.05, 1.35),
        ear=rng.uniform(0.15, 0.30),
        eye_kind=kind,
        eye_x=rng.uniform(0.37, 0.47) + 0.12 * (eye_width - 0.24),
        eye_y=eye_y,
        eye_width=eye_width,
        eye_height=eye_height,
        eye_tilt=rng.normal(0.015, 0.025),
        iris_size=eye_height * rng.uniform(0.55, 0.85),
        lashes=rng.uniform(1.0, 2.6),
        lash_flick=rng.random() < 0.3,
        brow_y=eye_y + eye_height + rng.uniform(0.2, 0.3),
        brow_length=rng.uniform(0.36, 0.54),
        brow_weight=float(np.exp(rng.uniform(np.log(0.03), np.log(0.12)))),
        brow_arch=rng.uniform(0.01, 0.12),
        brow_slope=rng.normal(0.0, 0.04),
        nose_kind=choose(rng, NOSES),
        nose_y=rng.uniform(-0.38, -0.22),
        nose_width=rng.uniform(0.10, 0.21),
        nose_side=1.0 if rng.random() < 0.5 else -1.0,
        mouth_y=rng.uniform(-0.69, -0.58),
        mouth_width=mouth_width,
        mouth_open=rng.uniform(0.36, 0.52),
        mouth_reach=reach_of(mouth_width),
        upper_lip=0.02 if lipless else thickness * rng.uniform(0.045, 0.10),
        lower_lip=0.025 if lipless else thickness * rng.uniform(0.06, 0.13),
        lipless=lipless,
        teeth=choose(rng, TEETH, 0.5),
        creases=1.0 if rng.random() < 0.6 else 0.0,
        mouth_inside=mouth_inside(rng),
        mouth_curve=rng.normal(0.0, 0.018),
        lip_fill=rng.uniform(0.6, 1.0) if rng.random() < 0.75 else rng.uniform(0.1, 0.5),
        hair=choose(rng, HAIR),
        hair_volume=rng.uniform(0.04, 0.24),
        beard=choose(rng, BEARDS[1:]) if bearded else "none",
        glasses=rng.random() < 0.12,
        freckles=int(rng.integers(8, 30)) if rng.random() < 0.12 else 0,
        earrings=rng.random() < 0.1,
        detail_seed=(subject, 0xDE),
    )
