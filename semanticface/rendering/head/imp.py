"""The imp: one goblin of our own, kept out of all base training, for teaching a model a new character.

It is the same head under its own bend (huge eyes, wide jaw, long pointed ears), with horns, spotted skin between
green and violet, yellow eyes, and a theatre's coloured light. A subject varies it a little; it stays one character.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from semanticface.rendering.conditions import Conditions
from semanticface.rendering.head import appearance as look
from semanticface.rendering.head.appearance import Appearance, linear
from semanticface.rendering.head.cartoon_warp import Bend, bend
from semanticface.rendering.head.rig import Identity, rig
from semanticface.rendering.shading.lighting import Lights, lights

# Skin, spots, lips, horns and brows of its moods, sRGB.
_MOODS = np.array(
    [[(104, 158, 72), (58, 104, 58), (122, 70, 84), (70, 52, 44)],
     [(64, 152, 136), (30, 96, 104), (96, 62, 110), (52, 44, 60)],
     [(134, 96, 172), (86, 52, 128), (74, 40, 92), (58, 40, 50)]], float)  # fmt: skip
_HORN_RINGS, _HORN_AROUND = 7, 10


@dataclass(frozen=True, slots=True, eq=False)
class Imp:
    """One imp.

    Attributes:
        who: the head under the character.
        paint: its colours, as in the photo look.
        shape: bend of the head.
        reach: how far the ears are drawn out, (sideways, up), decimetres.
    """

    who: Identity
    paint: Appearance
    shape: Bend
    reach: tuple[float, float]

    def ears(self, vertices: np.ndarray) -> np.ndarray:
        """Vertices of the head with long pointed ears, float32[V, 3]."""
        r = rig()
        mask, base = r.masks[:, 3], r.base
        high = np.clip((base[:, 1] + 0.13) / 0.53, 0, 1)
        out_by = np.clip((np.abs(base[:, 0]) - 0.70) / 0.18, 0, 1)
        pull = (mask * out_by * high**1.6)[:, None]
        side, same = np.sign(base[:, 0]), np.ones(len(base))
        tip = np.stack([side * self.reach[0], same * self.reach[1], same * -0.2], 1)
        return (vertices + pull * tip).astype(np.float32)


def horns(who: Identity, length: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two curved horns on the forehead, in the form ``hair.hair_mesh`` returns."""
    r = rig()
    t = np.linspace(0, 1, _HORN_RINGS)[:, None]
    turn = 2 * np.pi * np.arange(_HORN_AROUND + 1) / _HORN_AROUND
    vertices: list[np.ndarray] = []
    read: list[np.ndarray] = []
    triangles: list[np.ndarray] = []
    a = (np.arange(_HORN_RINGS - 1)[:, None] * (_HORN_AROUND + 1) + np.arange(_HORN_AROUND)).ravel()
    quads = [(a, a + 1, a + _HORN_AROUND + 2), (a, a + _HORN_AROUND + 2, a + _HORN_AROUND + 1)]
    for side in (1, -1):
        root = np.array([0.36 * side, 1.06, 0.72])
        near = np.argmin(((r.base - root) ** 2).sum(1))
        root = root + who.vertices[near] - r.base[near]
        axis = root + length * np.concatenate([0.35 * side * t, 0.8 * t, 0.25 * t - 0.6 * t**2], 1) - [0, 0.06, 0.06]
        girth = 0.115 * (1 - 0.93 * t**1.2) * (1 + 0.06 * np.sin(t * 40))
        ring = np.stack([np.cos(turn) * side, 0 * turn, np.sin(turn)], 1)
        first = sum(len(v) for v in vertices)
        vertices.append((axis[:, None] + girth[:, :, None] * ring[None]).reshape(-1, 3))
        read.append(np.stack(np.broadcast_arrays(turn[None] * 0.05, t * 6, 0.2 + 0 * t), -1).reshape(-1, 3))
        triangles.append(np.concatenate([np.stack(q, 1) for q in quads]) + first)
    return (np.concatenate(vertices).astype(np.float32), np.concatenate(read).astype(np.float32),
            np.concatenate(triangles).astype(np.int32))  # fmt: skip


def imp(subject: int | None, human: Callable[[int | None], Identity]) -> Imp:
    """The imp of a subject; ``human`` gives the head underneath, which is always the same one."""
    rng = np.random.default_rng([51] if subject is None else [subject, 51])
    vary = 0.0 if subject is None else 1.0
    who = human(None)
    mood = _MOODS[0 if subject is None else rng.integers(3)] * (1 + vary * rng.normal(0, 0.05, 3))
    skin, spots, lips, dark = np.clip(mood, 0, 255)
    colours = np.zeros((15, 3))
    for row, value in ((look.SKIN, skin), (look.BLOOD, 0.5 * skin + 0.5 * spots), (look.LIPS, lips),
                       (look.BROW, dark * 0.6), (look.HAIR, dark * 1.6), (look.IRIS, (214, 92, 26)),
                       (look.IRIS_RING, (92, 24, 10)),
                       (look.SCLERA, (238, 214, 112)), (look.TEETH, (226, 212, 160)), (look.TONGUE, (150, 60, 128)),
                       (look.CLOTH, (112, 66, 38)), (look.CLOTH2, (74, 44, 28)), (look.LID, 0.6 * skin + 0.4 * spots),
                       (look.LASH, dark * 0.3), (look.SPOT, spots)):  # fmt: skip
        colours[row] = linear(np.clip(np.asarray(value, float), 0, 255))
    amounts = np.zeros(look.N_AMOUNTS)
    brows = 1.7 + 0.2 * vary * rng.normal()
    for place, amount in ((look.BLOTCH, 0.5), (look.PORES, 0.9), (look.SHINE, 0.9), (look.BROW_THICK, brows),
                          (look.BROW_DENSE, 1.1), (look.BROW_ARCH, 1.4), (look.BROW_LENGTH, 1.05),
                          (look.IRIS_SIZE, 0.52), (look.PUPIL, 0.42), (look.VEINS, 0.5), (look.LIP_EDGE, 0.9),
                          (look.LIP_GLOSS, 0.4),
                          (look.LASH_AMOUNT, 0.4), (look.TEETH_GAPS, 0.9), (look.GRAIN, 0.8), (look.PATTERN, 0.9),
                          (look.SEED, 4 + vary * rng.uniform(0, 9)), (look.SHADOW_MAKEUP, 0.8), (look.SPOTS, 1.0),
                          (look.COLLAR, -0.1)):  # fmt: skip
        amounts[place] = amount
    paint = Appearance(colours.astype(np.float32), amounts.astype(np.float32), 0.5, 1.3, "horns", 0)
    shape = bend(
        who, eyes=0.80 + vary * rng.normal(0, 0.06), mouth=0.22 + vary * rng.normal(0, 0.04),
        nose=0.30 + vary * rng.normal(0, 0.12), cheeks=0.12, chin=0.20 + vary * rng.normal(0, 0.08),
        widths=(1.16 + vary * rng.normal(0, 0.03), 1.08, 0.90), stretch=0.90 + vary * rng.normal(0, 0.02),
    )  # fmt: skip
    reach = (0.75 + vary * rng.normal(0, 0.1), 0.42 + vary * rng.normal(0, 0.1))
    return Imp(who, paint, shape, reach)


def stage(shot: int | None, conditions: Conditions) -> Lights:
    """The imp's light: warm key and a strong teal or magenta light from behind."""
    plain = lights(shot, conditions)
    rng = np.random.default_rng([52] if shot is None else [shot, 52])
    colours = plain.colours.copy()
    colours[0] *= np.array([1.1, 1.0, 0.82], np.float32)
    behind = np.array([0.35, 1.5, 1.6] if rng.random() < 0.6 else [1.6, 0.4, 1.3])
    colours[2] = behind * rng.uniform(0.7, 1.3)
    return Lights(plain.directions, colours, plain.sky, plain.ground, plain.soft, plain.exposure,
                  plain.pattern)  # fmt: skip
