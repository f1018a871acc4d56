"""What a subject wears and holds in a shot; a subject who wears something usually keeps it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semanticface.rendering.conditions import Conditions, odds
from semanticface.rendering.head.accessories import Lenses, earrings, spectacles
from semanticface.rendering.head.appearance import Appearance
from semanticface.rendering.head.hair import Cover
from semanticface.rendering.head.headwear import headwear
from semanticface.rendering.head.occluders import hand, strands, thing
from semanticface.rendering.head.props import Prop, join
from semanticface.rendering.head.rig import Identity


@dataclass(frozen=True, slots=True, eq=False)
class Outfit:
    """What is on and before a head.

    Attributes:
        solid: everything opaque as one thing; ``None`` for nothing.
        lenses: glass before the eyes; ``None`` for none.
        cover: what presses the hair down; ``None`` for nothing.
    """

    solid: Prop | None
    lenses: Lenses | None
    cover: Cover | None


NOTHING_ON = Outfit(None, None, None)


def outfit(
    subject: int | None,
    shot: int | None,
    who: Identity,
    vertices: np.ndarray,
    paint: Appearance,
    conditions: Conditions,
) -> Outfit:
    """Dress a subject for a shot; a plain portrait and the plain subject go bare.

    Args:
        subject: seed of what it likes to wear.
        shot: seed of what it wears and holds today.
        who: its head.
        vertices: float32[V, 3], the head under its expression.
        paint: its colours.
        conditions: how likely things are.
    """
    if subject is None or shot is None:
        return NOTHING_ON
    habits, today, chances = np.random.default_rng([subject, 13]), np.random.default_rng([shot, 28]), odds(conditions)
    things: list[Prop] = []
    lenses = None
    wears = habits.random() < (0.19 if who.age < 2.4 else 0.38)
    covered = habits.random() < 0.10
    own, dark = int(habits.integers(2**31)), habits.random() < 0.04
    if today.random() < chances.glasses[0 if wears else 1]:
        frame, lenses = spectacles(who, own, dark or today.random() < 0.06)
        things.append(frame)
    if habits.random() < (0.07 if who.masculine > 0.5 else 0.4):
        things.append(earrings(who, own))
    cover = None
    if today.random() < chances.headwear[0 if covered else 1]:
        hat, cover = headwear(who, own)
        things.append(hat)
    kind = today.random()
    if kind < chances.held:
        before = hand if kind < 0.68 * chances.held else thing
        things.append(before(vertices, paint, shot))
    if today.random() < chances.strands and paint.hair not in ("bald", "crop", "afro"):
        things.append(strands(vertices, paint, shot))
    return Outfit(join(things) if things else None, lenses, cover)
