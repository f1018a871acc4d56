"""A subject's appearance besides the head's shape: skin, hair, brows, eyes, lips, clothes.

Colours are linear RGB. Everything follows from the subject's seed and the identity, so it is the same in every shot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from semanticface.rendering.head import channel as ch
from semanticface.rendering.head.rig import Identity

# sRGB skin from very light to very dark.
_SKIN = np.array(
    [(248, 215, 196), (238, 194, 168), (222, 172, 140), (201, 147, 112), (172, 117, 82), (134, 86, 58), (96, 60, 42),
     (66, 42, 32)], float)  # fmt: skip
_HAIR = np.array(
    [(18, 15, 14), (32, 24, 20), (52, 36, 26), (84, 57, 37), (120, 84, 52), (168, 128, 80), (205, 172, 120),
     (128, 58, 28), (150, 148, 146), (214, 212, 208)], float)  # fmt: skip
_IRIS = np.array(
    [(52, 31, 18), (78, 48, 26), (104, 72, 40), (122, 106, 62), (96, 118, 78), (92, 122, 136), (112, 146, 172),
     (128, 140, 146)], float)  # fmt: skip


_LIPSTICK = np.array(
    [(168, 36, 48), (196, 82, 92), (120, 34, 54), (206, 110, 98), (150, 60, 40), (196, 40, 110), (84, 30, 60),
     (212, 84, 60), (178, 122, 104), (60, 24, 30)], float)  # fmt: skip
_EYE_SHADOW = np.array(
    [(120, 80, 70), (90, 70, 90), (60, 70, 100), (140, 100, 60), (70, 50, 45), (40, 38, 42), (80, 120, 150),
     (90, 130, 100), (190, 120, 140), (150, 60, 130), (210, 170, 110)], float)  # fmt: skip
# Density at moustache, chin and jaw of each beard cut, and the cuts' probabilities.
_BEARDS = np.array([(1, 1, 1), (1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 1, 1), (1, 0.9, 0.35)], float)
_BEARD_PROBS = (0.42, 0.16, 0.10, 0.18, 0.05, 0.09)


def linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB 0..255 to linear 0..1."""
    c = np.asarray(srgb, float) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def linear_rgb(srgb: np.ndarray) -> tuple[float, float, float]:
    """One colour, clipped to 0..255, as linear RGB."""
    r, g, b = linear(np.clip(srgb, 0, 255)).tolist()
    return r, g, b


@dataclass(frozen=True, slots=True, eq=False)
class Appearance:
    """Colours and texture parameters of one subject.

    Attributes:
        colours: float32[15, 3], linear RGB, rows as in ``channel``.
        params: float32[36], entries as in ``channel``.
        resting_wrinkles: strength of wrinkles at rest, 0 to 1.
        wrinkle_depth: of expression wrinkles, about 1.
        hair: hair style, one of ``hair.HAIR_STYLES``.
        hair_seed: seed of the hair's shape.
        beard_length: how far a full beard hangs below the chin, decimetres.
    """

    colours: np.ndarray
    params: np.ndarray
    resting_wrinkles: float
    wrinkle_depth: float
    hair: str
    hair_seed: int
    beard_length: float = 0.0


def _pick(rng: np.random.Generator, table: np.ndarray, index: float) -> np.ndarray:
    """A slightly varied colour at a position in [0, 1] of a colour ramp."""
    at = float(np.clip(index, 0, 1)) * (len(table) - 1)
    low = min(int(at), len(table) - 2)
    colour = table[low] + (table[low + 1] - table[low]) * (at - low)
    return np.clip(colour * rng.normal(1, 0.03, 3), 0, 255)


def _plain() -> Appearance:
    colours = np.zeros((15, 3))
    for row, value in ((ch.SKIN, (224, 178, 150)), (ch.BLOOD, (205, 120, 105)),
                       (ch.LIPS, (192, 124, 112)), (ch.BROW, (64, 44, 32)),
                       (ch.HAIR, (58, 42, 32)), (ch.IRIS, (96, 76, 52)),
                       (ch.IRIS_RING, (34, 26, 20)), (ch.SCLERA, (222, 216, 210)),
                       (ch.TEETH, (232, 224, 206)), (ch.TONGUE, (196, 104, 100)),
                       (ch.CLOTH, (92, 104, 118)), (ch.LID, (196, 140, 118)),
                       (ch.LASH, (26, 20, 18)), (ch.CLOTH2, (70, 80, 92))):  # fmt: skip
        colours[row] = linear(np.array(value))
    params = np.zeros(ch.N_PARAMS)
    for index, amount in ((ch.BLOTCH, 0.3), (ch.PORES, 0.4), (ch.SHINE, 0.5), (ch.BROW_THICK, 1.0),
                          (ch.BROW_DENSE, 0.9), (ch.BROW_ARCH, 1.0), (ch.BROW_LENGTH, 1.0),
                          (ch.CROP, 1.0), (ch.IRIS_SIZE, 0.47), (ch.PUPIL, 0.4), (ch.VEINS, 0.2),
                          (ch.LIP_EDGE, 0.7), (ch.LIP_GLOSS, 0.4), (ch.LASH_AMOUNT, 0.7),
                          (ch.TEETH_GAPS, 0.5), (ch.COLLAR, 0.0), (ch.SIDEBURN, 0.5),
                          (ch.SEED, 3.0), (ch.GRAIN, 0.5)):  # fmt: skip
        params[index] = amount
    return Appearance(colours.astype(np.float32), params.astype(np.float32), 0.15, 1.0, "short", 3)


def appearance_of(subject: int | None, identity: Identity) -> Appearance:
    """Sample the appearance of a subject; ``None`` is the plain average one."""
    if subject is None:
        return _plain()
    rng = np.random.default_rng([subject, 12])
    african, asian, caucasian = identity.ancestry
    man, old = identity.masculine > 0.5, max(0.0, identity.age - 2)
    darkness = np.clip(0.78 * african + 0.36 * asian + 0.16 * caucasian + rng.normal(0, 0.13), 0, 1)
    skin = _pick(rng, _SKIN, darkness)
    flush = rng.uniform(0.0, 1.0) * (1 - 0.6 * darkness)
    skin = skin * np.array([1 + 0.03 * flush, 1 - 0.05 * flush, 1 - 0.06 * flush])
    grey = rng.random() < 0.65 * old
    if grey:
        hair = _pick(rng, _HAIR[8:], rng.random())
    elif rng.random() < 0.05:
        hair = rng.uniform(30, 220, 3)
    else:
        light = np.clip(
            rng.beta(1.1, 1.6) * (1.15 - 1.3 * darkness) if rng.random() < 0.75 else rng.random() * 0.2, 0, 1
        )
        red = rng.random() > 0.93 and darkness <= 0.4
        hair = _pick(rng, _HAIR[[7, 7]], 0) if red else _pick(rng, _HAIR[:7], light)
    brow = hair * rng.uniform(0.55, 0.85) if hair.mean() > 60 else hair
    if rng.random() < 0.15:  # dyed hair, or darkened brows
        brow = _pick(rng, _HAIR[:5], rng.random())
    iris = _pick(rng, _IRIS, rng.beta(0.9, 1.1) if darkness < 0.4 else rng.beta(0.7, 4.0))
    makeup = rng.random() < (0.12 if man else 0.55)
    lip = skin * np.array([0.88, 0.62, 0.62]) * rng.normal(1, 0.04, 3) * (1 - 0.1 * darkness)
    if makeup and rng.random() < 0.7:
        tint = _LIPSTICK[rng.integers(len(_LIPSTICK))] * rng.uniform(0.8, 1.1)
        lip = lip + (tint - lip) * rng.uniform(0.3, 0.9)
    shadow_tint = _EYE_SHADOW[rng.integers(len(_EYE_SHADOW))] * rng.uniform(0.7, 1.2)
    cloth = rng.uniform(15, 235, 3)
    cloth = (cloth.mean() + (cloth - cloth.mean()) * rng.uniform(0, 0.9)) * (0.35 + 0.65 * rng.random())
    cloth2 = cloth * 0.7 if rng.random() < 0.6 else rng.uniform(15, 235, 3)
    white = rng.uniform(0.84, 1.0)
    yellow = rng.uniform(0, 1)
    values = {
        ch.SKIN: skin, ch.BLOOD: skin * np.array([0.98, 0.66, 0.62]), ch.LIPS: lip, ch.BROW: brow,
        ch.HAIR: hair, ch.IRIS: iris, ch.IRIS_RING: iris * rng.uniform(0.25, 0.6),
        ch.SCLERA: np.array([222, 216, 210]) * white,
        ch.TEETH: np.array([238, 233 - 8 * yellow, 222 - 34 * yellow]) * rng.uniform(0.85, 1.0),
        ch.TONGUE: np.array([200, 104, 102]) * rng.uniform(0.8, 1.05), ch.CLOTH: cloth,
        ch.CLOTH2: cloth2, ch.LID: skin + (shadow_tint - skin) * (rng.uniform(0.3, 0.8) if makeup else 0.0),
        ch.LASH: np.minimum(hair * 0.5, 40), ch.SPOT: skin + 0.55 * (np.array([244, 214, 198]) - skin),
    }  # fmt: skip
    colours = np.stack([linear(np.clip(values[k], 0, 255)) for k in range(15)])
    bearded = man and identity.age > 1.8
    beard = bearded and rng.random() < 0.42
    params = np.zeros(ch.N_PARAMS)
    params[ch.BLOTCH] = rng.uniform(0.1, 0.8)
    params[ch.FRECKLES] = rng.uniform(0.3, 1.0) if rng.random() < 0.18 * (1.3 - darkness) else 0.0
    params[ch.PORES] = rng.uniform(0.1, 0.8) + 0.3 * min(old, 1)
    params[ch.SHINE] = rng.uniform(0.15, 1.0)
    params[ch.STUBBLE] = rng.uniform(0.2, 1.0) if bearded and rng.random() < 0.6 else 0.0
    params[ch.BEARD] = rng.uniform(0.45, 1.0) if beard else 0.0
    params[[ch.MOUSTACHE, ch.CHIN_BEARD, ch.JAW_BEARD]] = _BEARDS[rng.choice(len(_BEARDS), p=_BEARD_PROBS)]
    params[ch.BLEMISHES] = rng.uniform(0.3, 1.2) if rng.random() < (0.3 if identity.age < 2.1 else 0.12) else 0.0
    params[ch.EYE_BAGS] = 0.35 * rng.random() ** 2 + 0.15 * min(old, 1.0) * rng.random()
    if rng.random() < 0.015:  # vitiligo
        params[ch.SPOTS] = rng.uniform(0.5, 1.0)
    params[ch.BROW_THICK] = np.clip(rng.normal(1.15 if man else 0.85, 0.32), 0.35, 2.2)
    params[ch.BROW_DENSE] = np.clip(rng.normal(0.82, 0.26), 0.2, 1.25)
    params[ch.BROW_LIFT] = rng.normal(0.0, 0.012)
    params[ch.BROW_ARCH] = np.clip(rng.normal(0.9 if man else 1.2, 0.4), -0.2, 2.2)
    params[ch.BROW_LENGTH] = np.clip(rng.normal(1.0, 0.08), 0.75, 1.2)
    params[ch.HAIRLINE] = rng.normal(0.0, 0.05)
    balding = man and identity.age > 2.1 and rng.random() < 0.4
    params[ch.RECEDE] = rng.uniform(0.3, 1.0) if balding else rng.uniform(0, 0.2)
    params[ch.IRIS_SIZE] = rng.uniform(0.44, 0.51)
    params[ch.PUPIL] = rng.uniform(0.26, 0.58)
    params[ch.VEINS] = rng.uniform(0.0, 0.7)
    params[ch.LIP_EDGE] = rng.uniform(0.4, 1.0)
    params[ch.LIP_GLOSS] = rng.uniform(0.1, 0.6) + (0.4 if makeup else 0)
    params[ch.SHADOW_MAKEUP] = rng.uniform(0.3, 1.0) if makeup else 0.0
    params[ch.LINER] = rng.uniform(0.2, 1.0) if makeup else 0.0
    params[ch.LASH_AMOUNT] = rng.uniform(0.7, 1.0) if makeup else rng.uniform(0.3, 0.75)
    params[ch.BLUSH] = rng.uniform(0.2, 0.8) if makeup else 0.0
    params[ch.COLLAR] = rng.uniform(-0.25, 0.2)
    params[ch.PATTERN] = rng.uniform(0, 1)
    params[ch.SEED] = rng.uniform(0, 31)
    params[ch.TEETH_GAPS] = rng.uniform(0.2, 0.9)
    params[ch.SIDEBURN] = rng.uniform(0, 1)
    params[ch.MOLES] = rng.random() if rng.random() < 0.3 else 0.0
    params[ch.GRAIN] = rng.uniform(0.2, 1.0)
    styles = ["bald", "crop", "short", "fringe", "bob", "long", "afro", "tied"]
    men, women = [0.12, 0.24, 0.34, 0.10, 0.03, 0.03, 0.08, 0.06], [0.02, 0.05, 0.13, 0.14, 0.2, 0.22, 0.07, 0.17]
    style = "bald" if balding and rng.random() < 0.3 else styles[rng.choice(8, p=men if man else women)]
    params[ch.CROP] = 0.0 if style == "bald" else 1.0
    if style == "bald" and rng.random() < 0.5:
        params[ch.CROP] = 0.35
    resting = float(np.clip(0.25 * rng.random() + 0.8 * old, 0, 1))
    depth = float(np.clip(rng.normal(0.85 + 0.3 * old, 0.2), 0.4, 1.5))
    seed = int(rng.integers(2**31))
    appearance = Appearance(colours.astype(np.float32), params.astype(np.float32), resting, depth, style, seed)
    extra = np.random.default_rng([subject, 14])
    kind = extra.random()
    if kind < 0.06:
        return _material(appearance, extra)
    if kind < 0.14:
        return _smooth(appearance, extra)
    if not beard:
        return appearance
    long = extra.random() < 0.3
    return replace(appearance, beard_length=extra.uniform(0.2, 0.7) if long else extra.uniform(0.0, 0.15))


def _material(appearance: Appearance, rng: np.random.Generator) -> Appearance:
    """A head without textures, in one grey, clay or plaster, as in a viewer of 3-D models."""
    material = linear(
        np.full(3, rng.uniform(110, 225)) * rng.uniform([1.0, 0.8, 0.65], [1.05, 1.0, 1.0]) ** rng.random()
    )
    colours, params = appearance.colours.copy(), np.zeros_like(appearance.params)
    for row in (ch.SKIN, ch.BLOOD, ch.LIPS, ch.HAIR, ch.LID, ch.SPOT, ch.CLOTH, ch.CLOTH2):
        colours[row] = material
    colours[ch.BROW] = material * (1.0 if rng.random() < 0.5 else rng.uniform(0.3, 0.8))
    if rng.random() < 0.5:  # eyes, teeth and tongue too; iris and pupil remain darker
        colours[ch.SCLERA], colours[ch.TEETH], colours[ch.TONGUE] = material, material, 0.6 * material
        colours[ch.IRIS], colours[ch.IRIS_RING] = 0.4 * material, 0.2 * material
    kept = (ch.BROW_THICK, ch.BROW_LIFT, ch.BROW_ARCH, ch.BROW_LENGTH, ch.BROW_DENSE, ch.IRIS_SIZE, ch.PUPIL, ch.COLLAR,
            ch.TEETH_GAPS, ch.SEED)  # fmt: skip
    params[list(kept)] = appearance.params[list(kept)]
    params[ch.COLLAR], params[ch.PATTERN] = -2.0, 1.0
    params[ch.SHINE] = rng.uniform(0.0, 0.6)
    return replace(appearance, colours=np.clip(colours, 0, 1).astype(np.float32), params=params, hair="bald")


def _smooth(appearance: Appearance, rng: np.random.Generator) -> Appearance:
    """Skin without grain or blemish, as that of an avatar in a game."""
    params = appearance.params.copy()
    for index in (ch.BLOTCH, ch.PORES, ch.MOLES, ch.BLEMISHES, ch.FRECKLES, ch.VEINS, ch.EYE_BAGS):
        params[index] = 0.0
    params[ch.SHINE] = rng.uniform(0.2, 1.0)
    return replace(appearance, params=params, resting_wrinkles=0.0, wrinkle_depth=appearance.wrinkle_depth * 0.6)
