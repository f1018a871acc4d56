"""The imp: one goblin of our own, kept out of all base training, for teaching a model a new character.

It is the same head under its own bend (huge eyes, wide jaw, long pointed ears), with horns, spotted skin between
green and violet, yellow eyes, and a theatre's coloured light. A subject varies it a little; it stays one character.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from semanticface.rendering.conditions import Conditions
from semanticface.rendering.head import channel
from semanticface.rendering.head.appearance import Appearance, linear
from semanticface.rendering.head.cartoon_warp import CartoonWarp, cartoon_warp
from semanticface.rendering.head.rig import Identity, rig
from semanticface.rendering.shading.lighting import Lights, sample_lights

# Skin, spots, lips, horns and brows of its moods, sRGB.
_PALETTES = np.array(
    [[(104, 158, 72), (58, 104, 58), (122, 70, 84), (70, 52, 44)],
     [(64, 152, 136), (30, 96, 104), (96, 62, 110), (52, 44, 60)],
     [(134, 96, 172), (86, 52, 128), (74, 40, 92), (58, 40, 50)]], float)  # fmt: skip
_HORN_RINGS, _HORN_SIDES = 7, 10


@dataclass(frozen=True, slots=True, eq=False)
class Imp:
    """One imp.

    Attributes:
        who: the head under the character.
        paint: its colours, as in the photo look.
        shape: bend of the head.
        reach: how far the ears are drawn out, (sideways, up), decimetres.
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
    """The imp of a subject; ``human`` gives the head underneath, which is always the same one."""
    rng = np.random.default_rng([51] if subject is None else [subject, 51])
    spread = 0.0 if subject is None else 1.0
    identity = human_of(None)
    palette = _PALETTES[0 if subject is None else rng.integers(3)] * (1 + spread * rng.normal(0, 0.05, 3))
    skin, spots, lips, dark = np.clip(palette, 0, 255)
    colours = np.zeros((15, 3))
    for row, value in ((channel.SKIN, skin), (channel.BLOOD, 0.5 * skin + 0.5 * spots),
                       (channel.LIPS, lips), (channel.BROW, dark * 0.6), (channel.HAIR, dark * 1.6),
                       (channel.IRIS, (214, 92, 26)), (channel.IRIS_RING, (92, 24, 10)),
                       (channel.SCLERA, (238, 214, 112)), (channel.TEETH, (226, 212, 160)),
                       (channel.TONGUE, (150, 60, 128)), (channel.CLOTH, (112, 66, 38)),
                       (channel.CLOTH2, (74, 44, 28)), (channel.LID, 0.6 * skin + 0.4 * spots),
                       (channel.LASH, dark * 0.3), (channel.SPOT, spots)):  # fmt: skip
        colours[row] = linear(np.clip(np.asarray(value, float), 0, 255))
    params = np.zeros(channel.N_PARAMS)
    brows = 1.7 + 0.2 * spread * rng.normal()
    for index, amount in ((channel.BLOTCH, 0.5), (channel.PORES, 0.9), (channel.SHINE, 0.9),
                          (channel.BROW_THICK, brows), (channel.BROW_DENSE, 1.1), (channel.BROW_ARCH, 1.4),
                          (channel.BROW_LENGTH, 1.05), (channel.IRIS_SIZE, 0.52), (channel.PUPIL, 0.42),
                          (channel.VEINS, 0.5), (channel.LIP_EDGE, 0.9), (channel.LIP_GLOSS, 0.4),
                          (channel.LASH_AMOUNT, 0.4), (channel.TEETH_GAPS, 0.9), (channel.GRAIN, 0.8),
                          (channel.PATTERN, 0.9), (channel.SEED, 4 + spread * rng.uniform(0, 9)),
                          (channel.SHADOW_MAKEUP, 0.8), (channel.SPOTS, 1.0), (channel.COLLAR, -0.1)):  # fmt: skip
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
    """The imp's light: warm key and a strong teal or magenta light from behind."""
    plain = sample_lights(shot, conditions)
    rng = np.random.default_rng([52] if shot is None else [shot, 52])
    colours = plain.colours.copy()
    colours[0] *= np.array([1.1, 1.0, 0.82], np.float32)
    behind = np.array([0.35, 1.5, 1.6] if rng.random() < 0.6 else [1.6, 0.4, 1.3])
    colours[2] = behind * rng.uniform(0.7, 1.3)
    return replace(plain, colours=colours)
