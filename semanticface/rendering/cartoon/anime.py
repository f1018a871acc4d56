"""Faces in the manner of anime: large tall eyes, small lipless mouths, pointed chins, bangs over brows and eyes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from semanticface.rendering.cartoon.style import (
    TEETH,
    Colour,
    Style,
    choose,
    luminance,
    mix,
    mouth_inside,
    reach_of,
    shade,
    vivid,
    western_style,
    with_blush,
)  # fmt: skip

BANGS = ("spikes", "curtain", "straight", "side", "locks")
_NOSES = ("dot", "dash", "shade", "none", "side")
_BACKS = ("none", "bob", "long", "tails", "bun", "spiky")
_EYES = ("box", "round", "oval", "almond")


def _grey(colour: Colour) -> Colour:
    value = luminance(colour)
    return value, value, value


def _printed(style: Style, rng: np.random.Generator) -> Style:
    """The style in black ink and grey tones on white paper, as in a printed manga."""
    hair = rng.choice([0.04, 0.5, 0.97])
    return replace(
        style, ink=(0.03, 0.03, 0.03), skin=(0.98, 0.98, 0.98), hair_colour=(hair, hair, hair),
        brow_colour=(0.1, 0.1, 0.1), iris=_grey(shade(style.iris, 0.8)), blush=(0.55, 0.55, 0.55),
        lips=(0.6, 0.6, 0.6), shirt=_grey(style.shirt), mouth_inside=_grey(style.mouth_inside),
    )  # fmt: skip


def anime_style(subject: int) -> Style:
    """Sample the style of an anime subject."""
    base = western_style(subject)
    rng = np.random.default_rng([subject, 0xA1])
    young = rng.random()  # 0 is an adult's proportions, 1 a child's
    skin = base.skin if rng.random() < 0.25 else mix((1.0, 0.93, 0.87), (0.97, 0.80, 0.69), rng.random())
    hair = vivid(rng, (0.15, 0.85), (0.3, 1.0)) if rng.random() < 0.6 else base.hair_colour
    kind = choose(rng, _EYES, 0.4)
    width = rng.uniform(0.19, 0.25) + 0.05 * young
    height = width * (rng.uniform(1.0, 1.45) if kind != "almond" else rng.uniform(0.65, 1.0))
    chin_y = rng.uniform(-1.12, -1.0) + 0.06 * young
    eye_y = rng.uniform(-0.16, 0.04) - 0.06 * young
    mouth_y = eye_y + (chin_y - eye_y) * rng.uniform(0.60, 0.70)
    mouth_width = rng.uniform(0.10, 0.20)
    jaw_drop = rng.uniform(0.12, 0.26)
    opening = min(rng.uniform(0.28, 0.44), mouth_y - chin_y + jaw_drop - 0.10)
    line = float(np.exp(rng.uniform(np.log(0.013), np.log(0.032))))
    tip = eye_y + height * rng.uniform(0.35, 1.5)
    style = replace(
        base,
        line=line,
        ink=mix((0.06, 0.04, 0.05), mix(skin, hair, 0.5), rng.uniform(0.0, 0.25)),
        contour=rng.random() < 0.93,
        skin=skin,
        hair_colour=hair,
        brow_colour=shade(hair, rng.uniform(0.4, 0.75)),
        iris=vivid(rng, (0.3, 0.9), (0.4, 0.95)) if rng.random() < 0.7 else base.iris,
        sclera=(1.0, 1.0, 1.0),
        blush=mix(skin, (0.98, 0.35, 0.38), rng.uniform(0.5, 0.9)),
        mouth_inside=mouth_inside(rng),
        lid_shade=1.0 if rng.random() < 0.6 else rng.uniform(0.92, 1.0),
        creases=1.0 if rng.random() < 0.3 else 0.0,
        cheek=rng.uniform(0.90, 1.02),
        jaw=rng.uniform(0.60, 0.78),
        chin=rng.uniform(0.02, 0.16),
        chin_y=chin_y,
        crown_y=rng.uniform(1.15, 1.4),
        ear=rng.uniform(0.08, 0.2),
        neck=rng.uniform(0.24, 0.36),
        jaw_drop=jaw_drop,
        eye_kind=kind,
        eye_x=width + rng.uniform(0.18, 0.27),
        eye_y=eye_y,
        eye_width=width,
        eye_height=height,
        eye_tilt=rng.normal(0.02, 0.035),
        iris_size=width * rng.uniform(0.55, 0.78),
        iris_aspect=float(np.clip(height / width * rng.uniform(0.9, 1.1), 1.0, 1.6)),
        pupil=rng.uniform(0.3, 0.62),
        big_eyes=True,
        eye_crease=rng.uniform(0.4, 1.0) if rng.random() < 0.65 else 0.0,
        lower_line=rng.uniform(0.3, 1.0),
        lashes=rng.uniform(0.04, 0.09) / line,
        lash_flick=rng.random() < 0.5,
        brow_y=eye_y + height + rng.uniform(0.12, 0.24),
        brow_length=rng.uniform(0.3, 0.5),
        brow_weight=rng.uniform(0.018, 0.06),
        brow_arch=rng.uniform(0.0, 0.1),
        nose_kind=choose(rng, _NOSES),
        nose_y=eye_y + (mouth_y - eye_y) * rng.uniform(0.5, 0.68),
        nose_width=rng.uniform(0.06, 0.11),
        mouth_y=mouth_y,
        mouth_width=mouth_width,
        mouth_open=opening,
        mouth_reach=reach_of(mouth_width),
        mouth_curve=rng.normal(0.004, 0.012),
        upper_lip=0.02,
        lower_lip=0.025,
        lipless=True,
        teeth=choose(rng, TEETH[::-1], 0.3),
        hair=choose(rng, _BACKS),
        hair_volume=rng.uniform(0.12, 0.32),
        bangs=choose(rng, BANGS) if rng.random() < 0.9 else "none",
        bangs_tip=tip,
        hair_shine=rng.random() < 0.4,
        brows_over_hair=float(rng.choice([1.0, 0.5, 0.0], p=[0.55, 0.35, 0.1])),
        beard="none" if rng.random() < 0.95 else base.beard,
        freckles=base.freckles if rng.random() < 0.4 else 0,
    )
    style = with_blush(style, rng)
    return _printed(style, rng) if rng.random() < 0.12 else style


def style_of(subject: int | None) -> Style:
    """Sample the style of a subject; ``None`` is the plain average face."""
    if subject is None:
        return Style()
    if np.random.default_rng([subject, 0xA0]).random() < 0.5:
        return anime_style(subject)
    return western_style(subject)
