"""The rendered head: coefficients in, a picture with exact labels out.

    from semanticface.rendering import render
    render(coefficients, look="photo", subject=7, shot=3).picture

A subject's seed fixes who it is (shape and paint), a shot's seed fixes camera, light and background. The same
arguments give the same bytes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from semanticface.arkit import N_ACTIONS
from semanticface.errors import ConfigError
from semanticface.rendering import cartoon
from semanticface.rendering.camera import Framing, shoot
from semanticface.rendering.conditions import CONDITIONS, Conditions, odds
from semanticface.rendering.head import imp as imps
from semanticface.rendering.head import mesh as meshes
from semanticface.rendering.head.appearance import appearance
from semanticface.rendering.head.outfit import outfit
from semanticface.rendering.head.rig import Identity, rig
from semanticface.rendering.shading import photo, toon
from semanticface.rendering.types import POINTS, Rendered

LOOKS = ("photo", "toon", "drawn")
HELD_OUT_LOOK = "imp"
"""A goblin of the mesh looks that never enters the base model's training: the new character of the quickstart."""

__all__ = ["CONDITIONS", "HELD_OUT_LOOK", "LOOKS", "POINTS", "Conditions", "Rendered", "render"]


@lru_cache(maxsize=64)
def _human(subject: int | None) -> Identity:
    return rig().average if subject is None else rig().identity(subject)


def render(
    coefficients: np.ndarray, *, look: str = "photo", subject: int | None = 0, shot: int | None = None,
    size: int = 224, supersample: int = 2, framing: Framing = "portrait", conditions: Conditions = "usual",
) -> Rendered:  # fmt: skip
    """Draw a face.

    Args:
        coefficients: [52] in [0, 1], project order.
        look: one of ``LOOKS``, or ``HELD_OUT_LOOK``.
        subject: seed of shape and paint; ``None`` is the plain average head.
        shot: seed of camera, light, background and sensor; ``None`` is a plain frontal portrait.
        size: of the square picture, pixels.
        supersample: samples a pixel along each side, 1 to 4.
        framing: ``portrait``: the head somewhere in the frame; ``crop``: the frame is the face's box, jittered by
            the shot by up to 6 % of its side and 10 % in scale.
        conditions: ``usual``: what models train on; ``hard``: harsh light, blur, noise, compression, things before
            the face, heads turned far. A plain portrait (no shot) is the same in both.

    Raises:
        ConfigError: an unknown look, framing or conditions, a size or supersampling out of range, coefficients of
            another shape.
    """
    c = np.asarray(coefficients, np.float32)
    if c.shape != (N_ACTIONS,) or not np.isfinite(c).all():
        raise ConfigError(f"coefficients must be {N_ACTIONS} finite numbers, not of shape {c.shape}.")
    if not 16 <= size <= 2048 or not 1 <= supersample <= 4:
        raise ConfigError(f"size {size} and supersample {supersample}: use 16 to 2048 and 1 to 4.")
    c = np.clip(c, 0, 1)
    odds(conditions)
    if look == "drawn":
        return cartoon.draw(c, subject=subject, shot=shot, size=size, supersample=supersample, framing=framing,
                          conditions=conditions)  # fmt: skip
    if look not in (*LOOKS, HELD_OUT_LOOK):
        raise ConfigError(f"look {look!r} is unknown: use one of {', '.join((*LOOKS, HELD_OUT_LOOK))}.")
    head = rig()
    if look == HELD_OUT_LOOK:
        goblin = imps.imp(subject, _human)
        who, bend, grown = goblin.who, goblin.shape, imps.horns(goblin.who, 0.55)
        camera, box = shoot(bend(who.vertices[head.box_ids]), shot, size, framing, conditions)
        mesh = meshes.build(goblin.ears(head.vertices(c, who)), who, goblin.paint.hair, 0, bend, grown)
        scene, centres = imps.stage(shot, conditions), bend(who.eye_centres)
        picture = photo.draw(
            mesh, goblin.paint, centres, c, camera, scene=scene, shot=shot, size=size, supersample=supersample,
            conditions=conditions,
        )  # fmt: skip
    elif look == "toon":
        who = _human(subject)
        style = toon.style_of(subject, who)
        camera, box = shoot(style.bend(who.vertices[head.box_ids]), shot, size, framing, conditions)
        vertices = head.vertices(c, who)
        wears = outfit(subject, shot, who, vertices, style.paint, conditions)
        mesh = meshes.build(
            vertices, who, style.paint.hair, style.paint.hair_seed, style.bend, prop=wears.solid, cover=wears.cover
        )  # fmt: skip
        picture = toon.draw(mesh, style, who, c, camera, shot=shot, size=size, supersample=supersample,
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
