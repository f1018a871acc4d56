"""One face, from coefficients to pixels, in each style."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from semanticface.rendering import cartoon
from semanticface.rendering.camera import Framing, shoot
from semanticface.rendering.conditions import Conditions
from semanticface.rendering.head import imp as imps
from semanticface.rendering.head import mesh as meshes
from semanticface.rendering.head.appearance import appearance
from semanticface.rendering.head.outfit import outfit
from semanticface.rendering.head.rig import Identity, rig
from semanticface.rendering.shading import photo, toon
from semanticface.rendering.types import HELD_OUT_STYLE, Rendered


@lru_cache(maxsize=64)
def _human(subject: int | None) -> Identity:
    return rig().average if subject is None else rig().identity(subject)


def draw(
    c: np.ndarray, *, style: str, subject: int | None, shot: int | None, size: int, supersample: int, framing: Framing,
    conditions: Conditions,
) -> Rendered:  # fmt: skip
    """Draw a face; arguments as for ``semanticface.rendering.render``, which checks them."""
    if style == "drawn":
        return cartoon.draw(c, subject=subject, shot=shot, size=size, supersample=supersample, framing=framing,
                          conditions=conditions)  # fmt: skip
    head = rig()
    if style == HELD_OUT_STYLE:
        goblin = imps.imp(subject, _human)
        who, bend, grown = goblin.who, goblin.shape, imps.horns(goblin.who, 0.55)
        camera, box = shoot(bend(who.vertices[head.box_ids]), shot, size, framing, conditions)
        mesh = meshes.build(goblin.ears(head.vertices(c, who)), who, goblin.paint.hair, 0, bend, grown)
        scene, centres = imps.stage(shot, conditions), bend(who.eye_centres)
        picture = photo.draw(
            mesh, goblin.paint, centres, c, camera, scene=scene, shot=shot, size=size, supersample=supersample,
            conditions=conditions,
        )  # fmt: skip
    elif style == "toon":
        who = _human(subject)
        toon_style = toon.style_of(subject, who)
        camera, box = shoot(toon_style.bend(who.vertices[head.box_ids]), shot, size, framing, conditions)
        vertices = head.vertices(c, who)
        wears = outfit(subject, shot, who, vertices, toon_style.paint, conditions)
        mesh = meshes.build(
            vertices, who, toon_style.paint.hair, toon_style.paint.hair_seed, toon_style.bend, prop=wears.solid,
            cover=wears.cover
        )  # fmt: skip
        picture = toon.draw(mesh, toon_style, who, c, camera, shot=shot, size=size, supersample=supersample,
                            conditions=conditions)  # fmt: skip
    else:
        who = _human(subject)
        paint = appearance(subject, who)
        camera, box = shoot(who.vertices[head.box_ids], shot, size, framing, conditions)
        vertices = head.vertices(c, who)
        wears = outfit(subject, shot, who, vertices, paint, conditions)
        mesh = meshes.build(vertices, who, paint.hair, paint.hair_seed, prop=wears.solid, cover=wears.cover)
        picture = photo.draw(mesh, paint, who.eye_centres, c, camera, shot=shot, size=size, supersample=supersample,
                             conditions=conditions, lenses=wears.lenses)  # fmt: skip
    points = camera.screen(mesh.attributes[head.point_ids, meshes.PLACE])[:, :2]
    return Rendered(picture, points, box, camera.facts(size, box), c)
