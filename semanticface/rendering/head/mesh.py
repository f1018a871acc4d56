"""Everything solid in a shot as one mesh: head, clothes, hair, things; with what painters read at each vertex."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from semanticface.rendering.head import rig as rigs
from semanticface.rendering.head.cartoon_warp import Bend
from semanticface.rendering.head.hair import Cover, hair_mesh
from semanticface.rendering.head.props import Prop
from semanticface.rendering.head.rig import Identity, rig

CLOTH, HAIR, PROP = 7, 8, 9
# Columns of ``Mesh.attributes``.
BASE, NORMAL, PLACE, MASK, SKY = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 13), 13
N_ATTRIBUTES = 14


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """Triangles ready to draw.

    Attributes:
        attributes: float32[V, 14]: base-mesh coordinates, normal, head-space place, four masks, open sky; a thing has
            its colour and surface (see ``props.Prop``) where the head has coordinates and masks.
        triangles: int32[T, 3].
        part: uint8[T], as in ``rig`` plus ``CLOTH``, ``HAIR`` and ``PROP``.
        two_sided, casts: bool[T], draw the back; throw a shadow.
        fine: bool[T], eyes and mouth: small, and they tell most, so no sample of theirs is ever left out.
        solid: how many triangles come before those of the lashes, which are last.
    """

    attributes: np.ndarray
    triangles: np.ndarray
    part: np.ndarray
    two_sided: np.ndarray
    casts: np.ndarray
    fine: np.ndarray
    solid: int


@cache
def _cloth() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hem of the cropped body let down: (vertex on the hem int64[B], growth float32[2B, 3], triangles)."""
    r = rig()
    skin = r.triangles[r.part[r.triangles[:, 0]] == rigs.SKIN]
    edges = np.concatenate([skin[:, [0, 1]], skin[:, [1, 2]], skin[:, [2, 0]]])
    known = {(int(a), int(b)) for a, b in edges}
    hem = [(int(a), int(b)) for a, b in edges if (int(b), int(a)) not in known and r.base[a, 1] < -1.2]
    rim = sorted({i for e in hem for i in e})
    place = {v: k for k, v in enumerate(rim)}
    n, first = len(rim), len(r.base)
    growth = np.concatenate([np.tile([1.18, -0.45, 1.05], (n, 1)), np.tile([1.3, -4.0, 1.05], (n, 1))])
    triangles = []
    for a, b in hem:
        ring = [a, b, first + place[a], first + place[b], first + n + place[a], first + n + place[b]]
        for k in (0, 2):
            p, q, s, t = ring[k : k + 4]
            triangles += [(q, p, s), (q, s, t)]
    return np.array(rim), growth, np.array(triangles, np.int32)


def build(
    vertices: np.ndarray,
    who: Identity,
    style: str,
    hair_seed: int,
    bend: Bend | None = None,
    extra: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    prop: Prop | None = None,
    cover: Cover | None = None,
) -> Mesh:
    """Head under an expression, clothes, hair and what is worn or held as one mesh.

    Args:
        vertices: float32[V, 3] from ``Rig.vertices``.
        who: whose head.
        style: of the hair, one of ``hair.STYLES``.
        hair_seed: seed of its shape.
        bend: cartoon proportions; *optional*.
        extra: what grows on the head instead of hair, in the form ``hair_mesh`` returns; *optional*.
        prop: what is worn or held; *optional*.
        cover: what presses the hair down; *optional*.
    """
    rim, growth, _ = _cloth()
    fixed, part, casts, fine = _fixed()
    hair_vertices, hair_base, hair_triangles = extra or hair_mesh(who, style, hair_seed, cover)
    n, m, h = len(vertices), len(fixed), len(fixed) + len(hair_vertices)
    place = np.empty((h + (len(prop.place) if prop else 0), 3), np.float32)
    place[:n], place[m:h] = vertices, hair_vertices
    hem = np.concatenate([vertices[rim], vertices[rim]])
    place[n:m] = hem * growth
    place[n:m, 1] = hem[:, 1] + growth[:, 1]
    attributes = np.zeros((len(place), N_ATTRIBUTES), np.float32)
    attributes[:m] = fixed
    attributes[n:m, BASE], attributes[m:h, BASE], attributes[m:, SKY] = place[n:m], hair_base, 1.0
    solid, lashes = _triangles()
    more = [hair_triangles + np.int32(m)]
    if prop:
        place[h:], attributes[h:, BASE], attributes[h:, MASK] = prop.place, prop.colour, prop.surface
        more.append(prop.triangles + np.int32(h))
    if bend is not None:
        place = bend(place)
    triangles = np.concatenate([solid, *more, lashes])
    attributes[:, NORMAL] = rigs.normals(place, triangles)
    attributes[:, PLACE] = place
    kinds = np.repeat(np.array([HAIR, PROP], np.uint8)[: len(more)], [len(t) for t in more])
    k, grown = len(solid), len(kinds)
    part = np.concatenate([part[:k], kinds, part[k:]])
    casts = np.concatenate([casts[:k], np.ones(grown, bool), casts[k:]])
    fine = np.concatenate([fine[:k], np.zeros(grown, bool), fine[k:]])
    return Mesh(attributes, triangles, part, part >= CLOTH, casts, fine, k + grown)


@cache
def _triangles() -> tuple[np.ndarray, np.ndarray]:
    """Triangles that every head has: head and clothes, lashes."""
    r = rig()
    is_lash = r.part[r.triangles[:, 0]] == rigs.LASHES
    return np.concatenate([r.triangles[~is_lash], _cloth()[2]]), r.triangles[is_lash]


@cache
def _fixed() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What is the same in all meshes: attributes of head and clothes; part, shadow and fineness of ``_triangles``."""
    r = rig()
    n = len(r.base)
    attributes = np.zeros((n + len(_cloth()[1]), N_ATTRIBUTES), np.float32)
    attributes[:n, BASE], attributes[:n, MASK], attributes[:n, SKY], attributes[n:, SKY] = r.base, r.masks, r.sky, 1.0
    solid, lashes = _triangles()
    cloth = len(_cloth()[2])
    skull = r.part[solid[:-cloth, 0]]
    part = np.concatenate([skull, np.full(cloth, CLOTH, np.uint8), np.full(len(lashes), rigs.LASHES, np.uint8)])
    casts = np.isin(part, (rigs.SKIN, CLOTH))
    lips_or_inside = attributes[np.concatenate([solid, lashes])][:, :, MASK][..., :2].max((1, 2)) > 0.3
    return attributes, part, casts, ~casts | lips_or_inside
