"""Draw a face in any style: coefficients in, image and labels out."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from semanticface.arkit import pose_of
from semanticface.rendering import cartoon
from semanticface.rendering.camera import Framing, place_camera
from semanticface.rendering.conditions import Conditions
from semanticface.rendering.head.appearance import appearance_of
from semanticface.rendering.head.imp import horns, imp_of, stage_lights
from semanticface.rendering.head.mesh import POSITION, build_mesh
from semanticface.rendering.head.movement import varied
from semanticface.rendering.head.outfit import outfit
from semanticface.rendering.head.rig import Identity, rig
from semanticface.rendering.shading import photo, toon
from semanticface.rendering.shading.beard import grow_beard
from semanticface.rendering.types import HELD_OUT_STYLE, Family, Rendered


@lru_cache(maxsize=64)
def _identity_of(subject: int | None, family: str = "makehuman", vary_actions: bool = False) -> Identity:
    head = rig(family)
    if subject is None:
        return head.average
    identity = head.identity(subject)
    return varied(identity, subject) if vary_actions else identity


def draw(
    c: np.ndarray, *, style: str, subject: int | None, shot: int | None, size: int, supersample: int, framing: Framing,
    conditions: Conditions, family: Family, vary_actions: bool, turn: tuple[float, float, float],
) -> Rendered:  # fmt: skip
    """Draw a face; arguments as for ``semanticface.rendering.render``, which checks them; ``turn`` as for cameras."""
    if style == "drawn":
        return cartoon.draw(c, subject=subject, shot=shot, size=size, supersample=supersample, framing=framing,
                            conditions=conditions, turn=turn)  # fmt: skip
    if style == HELD_OUT_STYLE:
        imp = imp_of(subject, _identity_of)
        identity, warp, head = imp.identity, imp.warp, rig()
        camera, box = place_camera(warp(identity.vertices[head.box_ids]), shot, size, framing, conditions, turn)
        mesh = build_mesh(imp.stretch_ears(head.vertices(c, identity)), identity, imp.appearance.hair, 0, warp,
                          horns(identity, 0.55))  # fmt: skip
        image = photo.draw(
            mesh, imp.appearance, warp(identity.eye_centres), c, camera, lights=stage_lights(shot, conditions),
            shot=shot, size=size, supersample=supersample, conditions=conditions,
        )  # fmt: skip
        points = camera.project(mesh.attributes[head.point_ids, POSITION])[:, :2]
    else:
        identity, head = _identity_of(subject, family, vary_actions), rig(family)
        toon_style = toon.toon_style(subject, identity) if style == "toon" else None
        appearance = toon_style.appearance if toon_style else appearance_of(subject, identity)
        face = identity.vertices[head.box_ids]
        face = toon_style.warp(face) if toon_style else face
        camera, box = place_camera(face, shot, size, framing, conditions, turn)
        vertices = head.vertices(c, identity)
        worn = outfit(subject, shot, identity, vertices, appearance, conditions)
        mesh = build_mesh(grow_beard(vertices, appearance, head), identity, appearance.hair, appearance.hair_seed,
                          toon_style.warp if toon_style else None, prop=worn.prop, cover=worn.cover)  # fmt: skip
        if toon_style:
            image = toon.draw(mesh, toon_style, identity, c, camera, shot=shot, size=size, supersample=supersample,
                              conditions=conditions)  # fmt: skip
        else:
            image = photo.draw(mesh, appearance, identity.eye_centres, c, camera, shot=shot, size=size,
                               supersample=supersample, conditions=conditions, lenses=worn.lenses,
                               movement=identity.movement)  # fmt: skip
        # Labels lie on the face, under a beard.
        marks = vertices[head.point_ids]
        points = camera.project(toon_style.warp(marks) if toon_style else marks)[:, :2]
    pose = pose_of((camera.yaw, camera.pitch, camera.roll), head.eye_angles(c, identity.movement))
    return Rendered(image, points, box, camera.to_dict(size, box), pose, c)
