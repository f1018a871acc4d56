"""What a subject wears and holds in a shot; glasses and headwear are mostly kept across shots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semanticface.rendering.conditions import Conditions, condition_settings
from semanticface.rendering.head.accessories import Lenses, earrings, glasses
from semanticface.rendering.head.appearance import Appearance
from semanticface.rendering.head.hair import Cover
from semanticface.rendering.head.headwear import headwear
from semanticface.rendering.head.occluders import hand, held_object, loose_hair
from semanticface.rendering.head.props import Prop, join_props
from semanticface.rendering.head.rig import Identity


@dataclass(frozen=True, slots=True, eq=False)
class Outfit:
    """What a head wears and what occludes it.

    Attributes:
        prop: everything opaque, joined; ``None`` for nothing.
        lenses: of glasses; ``None`` for none.
        cover: headwear that presses the hair down; ``None`` for none.
    """

    prop: Prop | None
    lenses: Lenses | None
    cover: Cover | None


EMPTY_OUTFIT = Outfit(None, None, None)


def outfit(
    subject: int | None, shot: int | None, identity: Identity, vertices: np.ndarray, appearance: Appearance,
    conditions: Conditions,
) -> Outfit:  # fmt: skip
    """Sample the outfit of a shot; empty without a subject or a shot.

    Args:
        subject: seed of what the subject usually wears.
        shot: seed of what is worn and held in this shot.
        identity: the subject's head.
        vertices: float32[V, 3], the head under its expression.
        appearance: the subject's colours.
        conditions: decides the probabilities.
    """
    if subject is None or shot is None:
        return EMPTY_OUTFIT
    subject_rng, shot_rng = np.random.default_rng([subject, 13]), np.random.default_rng([shot, 28])
    settings = condition_settings(conditions)
    props: list[Prop] = []
    lenses = None
    wears_glasses = subject_rng.random() < (0.19 if identity.age < 2.4 else 0.38)
    wears_headwear = subject_rng.random() < 0.10
    item_seed, sunglasses = int(subject_rng.integers(2**31)), subject_rng.random() < 0.04
    if shot_rng.random() < settings.glasses[0 if wears_glasses else 1]:
        frame, lenses = glasses(identity, item_seed, sunglasses or shot_rng.random() < 0.06)
        props.append(frame)
    if subject_rng.random() < (0.07 if identity.masculine > 0.5 else 0.4):
        props.append(earrings(identity, item_seed))
    cover = None
    if shot_rng.random() < settings.headwear[0 if wears_headwear else 1]:
        hat, cover = headwear(identity, item_seed)
        props.append(hat)
    kind = shot_rng.random()
    if kind < settings.held_object:
        make = hand if kind < 0.68 * settings.held_object else held_object
        props.append(make(vertices, appearance, shot, identity.family))
    if shot_rng.random() < settings.loose_hair and appearance.hair not in ("bald", "crop", "afro"):
        props.append(loose_hair(vertices, appearance, shot, identity.family))
    return Outfit(join_props(props) if props else None, lenses, cover)
