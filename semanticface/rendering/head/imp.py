"""The imp: a goblin kept out of all base training, for teaching a model a new character.

It is the same head with its own cartoon warp (huge eyes, wide jaw, long pointed ears), horns, spotted green to violet
skin, yellow eyes and coloured stage light. Subjects are small variations of this one character.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from semanticface.rendering.conditions import Conditions
from semanticface.rendering.head import channel as ch
from semanticface.rendering.head.appearance import Appearance, linear
from semanticface.rendering.head.cartoon_warp import CartoonWarp, cartoon_warp
from semanticface.rendering.head.rig import Identity, rig
from semanticface.rendering.lighting import Lights, sample_lights

# Skin, spots, lips, and horns and brows of the three palettes, sRGB.
_PALETTES = np.array(
    [[(104, 158, 72), (58, 104, 58), (122, 70, 84), (70, 52, 44)],
     [(64, 152, 136), (30, 96, 104), (96, 62, 110), (52, 44, 60)],
     [(134, 96, 172), (86, 52, 128), (74, 40, 92), (58, 40, 50)]], float)  # fmt: skip
_HORN_RINGS, _HORN_SIDES = 7, 10


@dataclass(frozen=True, slots=True, eq=False)
class Imp:
    """One imp.

    Attributes:
        identity: the head before the warp.
        appearance: its colours, as in the photo style.
        warp: its proportions.
        ear_reach: how far the ears are stretched (sideways, up), decimetres.
    """

    identity: Identity
    appearance: Appearance
    warp: CartoonWarp
    ear_reach: tuple[float, float]

    def stretch_ears(self, vertices: np.ndarray) -> np.ndarray:
        """Vertices of the head with long pointed ears, float32[V, 3]."""
        r = rig()
        mask, base = r.masks[:, 3], r.base
        high = np.clip((base[:, 1] + 0.13) / 0.53, 0, 1)
        out_by = np.clip((np.abs(base[:, 0]) - 0.70) / 0.18, 0, 1)
        pull = (mask * out_by * high**1.6)[:, None]
        side, same = np.sign(base[:, 0]), np.ones(len(base))
        tip = np.stack([side * self.ear_reach[0], same * self.ear_reach[1], same * -0.2], 1)
        return (vertices + pull * tip).astype(np.float32)


def horns(identity: Identity, length: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two curved horns on the forehead, in the form ``hair.hair_mesh`` returns."""
    r = rig()
    t = np.linspace(0, 1, _HORN_RINGS)[:, None]
    angle = 2 * np.pi * np.arange(_HORN_SIDES + 1) / _HORN_SIDES
    vertices: list[np.ndarray] = []
    coords: list[np.ndarray] = []
    triangles: list[np.ndarray] = []
    a = (np.arange(_HORN_RINGS - 1)[:, None] * (_HORN_SIDES + 1) + np.arange(_HORN_SIDES)).ravel()
    quads = [(a, a + 1, a + _HORN_SIDES + 2), (a, a + _HORN_SIDES + 2, a + _HORN_SIDES + 1)]
    for side in (1, -1):
        root = np.array([0.36 * side, 1.06, 0.72])
        near = np.argmin(((r.base - root) ** 2).sum(1))
        root = root + identity.vertices[near] - r.base[near]
        axis = root + length * np.concatenate([0.35 * side * t, 0.8 * t, 0.25 * t - 0.6 * t**2], 1) - [0, 0.06, 0.06]
        radius = 0.115 * (1 - 0.93 * t**1.2) * (1 + 0.06 * np.sin(t * 40))
        ring = np.stack([np.cos(angle) * side, 0 * angle, np.sin(angle)], 1)
        first = sum(len(v) for v in vertices)
        vertices.append((axis[:, None] + radius[:, :, None] * ring[None]).reshape(-1, 3))
        coords.append(np.stack(np.broadcast_arrays(angle[None] * 0.05, t * 6, 0.2 + 0 * t), -1).reshape(-1, 3))
        triangles.append(np.concatenate([np.stack(q, 1) for q in quads]) + first)
    return (np.concatenate(vertices).astype(np.float32), np.concatenate(coords).astype(np.float32),
            np.concatenate(triangles).astype(np.int32))  # fmt: skip


def imp_of(subject: int | None, human_of: Callable[[int | None], Identity]) -> Imp:
    """The imp of a subject; ``human_of(None)`` is the head underneath, the same for all."""
    rng = np.random.default_rng([51] if subject is None else [subject, 51])
    spread = 0.0 if subject is None else 1.0
    identity = human_of(None)
    palette = _PALETTES[0 if subject is None else rng.integers(3)] * (1 + spread * rng.normal(0, 0.05, 3))
    skin, spots, lips, dark = np.clip(palette, 0, 255)
    colours = np.zeros((15, 3))
    for row, value in ((ch.SKIN, skin), (ch.BLOOD, 0.5 * skin + 0.5 * spots),
                       (ch.LIPS, lips), (ch.BROW, dark * 0.6), (ch.HAIR, dark * 1.6),
                       (ch.IRIS, (214, 92, 26)), (ch.IRIS_RING, (92, 24, 10)),
                       (ch.SCLERA, (238, 214, 112)), (ch.TEETH, (226, 212, 160)),
                       (ch.TONGUE, (150, 60, 128)), (ch.CLOTH, (112, 66, 38)),
                       (ch.CLOTH2, (74, 44, 28)), (ch.LID, 0.6 * skin + 0.4 * spots),
                       (ch.LASH, dark * 0.3), (ch.SPOT, spots)):  # fmt: skip
        colours[row] = linear(np.clip(np.asarray(value, float), 0, 255))
    params = np.zeros(ch.N_PARAMS)
    brows = 1.7 + 0.2 * spread * rng.normal()
    for index, amount in ((ch.BLOTCH, 0.5), (ch.PORES, 0.9), (ch.SHINE, 0.9),
                          (ch.BROW_THICK, brows), (ch.BROW_DENSE, 1.1), (ch.BROW_ARCH, 1.4),
                          (ch.BROW_LENGTH, 1.05), (ch.IRIS_SIZE, 0.52), (ch.PUPIL, 0.42),
                          (ch.VEINS, 0.5), (ch.LIP_EDGE, 0.9), (ch.LIP_GLOSS, 0.4),
                          (ch.LASH_AMOUNT, 0.4), (ch.TEETH_GAPS, 0.9), (ch.GRAIN, 0.8),
                          (ch.PATTERN, 0.9), (ch.SEED, 4 + spread * rng.uniform(0, 9)),
                          (ch.SHADOW_MAKEUP, 0.8), (ch.SPOTS, 1.0), (ch.COLLAR, -0.1)):  # fmt: skip
        params[index] = amount
    appearance = Appearance(colours.astype(np.float32), params.astype(np.float32), 0.5, 1.3, "horns", 0)
    warp = cartoon_warp(
        identity, eyes=0.80 + spread * rng.normal(0, 0.06), mouth=0.22 + spread * rng.normal(0, 0.04),
        nose=0.30 + spread * rng.normal(0, 0.12), cheeks=0.12, chin=0.20 + spread * rng.normal(0, 0.08),
        widths=(1.16 + spread * rng.normal(0, 0.03), 1.08, 0.90), stretch=0.90 + spread * rng.normal(0, 0.02),
    )  # fmt: skip
    ear_reach = (0.75 + spread * rng.normal(0, 0.1), 0.42 + spread * rng.normal(0, 0.1))
    return Imp(identity, appearance, warp, ear_reach)


def stage_lights(shot: int | None, conditions: Conditions) -> Lights:
    """The imp's light: a warm key light and a strong teal or magenta rim light."""
    plain = sample_lights(shot, conditions)
    rng = np.random.default_rng([52] if shot is None else [shot, 52])
    colours = plain.colours.copy()
    colours[0] *= np.array([1.1, 1.0, 0.82], np.float32)
    behind = np.array([0.35, 1.5, 1.6] if rng.random() < 0.6 else [1.6, 0.4, 1.3])
    colours[2] = behind * rng.uniform(0.7, 1.3)
    return replace(plain, colours=colours)
