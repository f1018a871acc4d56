"""One mesh per image: head, clothes, hair and props, with the vertex attributes that the styles shade from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from semanticface.rendering.head.cartoon_warp import CartoonWarp
from semanticface.rendering.head.hair import Cover, hair_mesh
from semanticface.rendering.head.props import Prop
from semanticface.rendering.head.rig import LASHES, SKIN, Identity, rig, vertex_normals

CLOTH, HAIR, PROP = 7, 8, 9
# Columns of ``Mesh.attributes``.
BASE, NORMAL, POSITION, MASK, OPENNESS = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 13), 13
N_ATTRIBUTES = 14


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """Triangles and vertex attributes.

    Attributes:
        attributes: float32[V, 14]: base-mesh coordinates, normal, head-space position, four masks, openness; props have
            colour and surface (see ``props.Prop``) in place of coordinates and masks.
        triangles: int32[T, 3].
        part: uint8[T], as in ``rig`` plus ``CLOTH``, ``HAIR`` and ``PROP``.
        two_sided, casts_shadow: bool[T].
        fine: bool[T], eyes and mouth: small and expressive, so all their samples are shaded.
        n_opaque: number of triangles before those of the lashes, which are last.
    """

    attributes: np.ndarray
    triangles: np.ndarray
    part: np.ndarray
    two_sided: np.ndarray
    casts_shadow: np.ndarray
    fine: np.ndarray
    n_opaque: int


@cache
def _clothes(family: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hem of the cropped body extended down: (hem vertices int64[B], offsets float32[2B, 3], triangles)."""
    r = rig(family)
    skin = r.triangles[r.part[r.triangles[:, 0]] == SKIN]
    edges = np.concatenate([skin[:, [0, 1]], skin[:, [1, 2]], skin[:, [2, 0]]])
    directed = {(int(a), int(b)) for a, b in edges}
    hem = [(int(a), int(b)) for a, b in edges if (int(b), int(a)) not in directed and r.base[a, 1] < -1.2]
    rim = sorted({i for e in hem for i in e})
    positions = {v: k for k, v in enumerate(rim)}
    n, first = len(rim), len(r.base)
    offsets = r.hem.astype(float).repeat(n, axis=0)
    triangles = []
    for a, b in hem:
        ring = [a, b, first + positions[a], first + positions[b], first + n + positions[a], first + n + positions[b]]
        for k in (0, 2):
            p, q, s, t = ring[k : k + 4]
            triangles += [(q, p, s), (q, s, t)]
    return np.array(rim), offsets, np.array(triangles, np.int32)


def build_mesh(
    vertices: np.ndarray, identity: Identity, hair_style: str, hair_seed: int, warp: CartoonWarp | None = None,
    hair: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None, prop: Prop | None = None, cover: Cover | None = None,
) -> Mesh:  # fmt: skip
    """Build the mesh of a head under an expression, with clothes, hair and props.

    Args:
        vertices: float32[V, 3] from ``Rig.vertices``.
        identity: the head.
        hair_style: one of ``hair.HAIR_STYLES``.
        hair_seed: seed of the hair's shape.
        warp: cartoon proportions; *optional*.
        hair: replaces the hair, in the form ``hair_mesh`` returns; *optional*.
        prop: what is worn or held; *optional*.
        cover: headwear that presses the hair down; *optional*.
    """
    rim, offsets, _ = _clothes(identity.family)
    fixed, part, casts_shadow, fine = _fixed(identity.family)
    hair_vertices, hair_base, hair_triangles = hair or hair_mesh(identity, hair_style, hair_seed, cover)
    n, m, h = len(vertices), len(fixed), len(fixed) + len(hair_vertices)
    positions = np.empty((h + (len(prop.positions) if prop else 0), 3), np.float32)
    positions[:n], positions[m:h] = vertices, hair_vertices
    hem = np.concatenate([vertices[rim], vertices[rim]])
    positions[n:m] = hem * offsets
    positions[n:m, 1] = hem[:, 1] + offsets[:, 1]
    attributes = np.zeros((len(positions), N_ATTRIBUTES), np.float32)
    attributes[:m] = fixed
    attributes[n:m, BASE], attributes[m:h, BASE], attributes[m:, OPENNESS] = positions[n:m], hair_base, 1.0
    n_opaque, lashes = _triangles(identity.family)
    extra = [hair_triangles + np.int32(m)]
    if prop:
        positions[h:], attributes[h:, BASE], attributes[h:, MASK] = prop.positions, prop.colour, prop.surface
        extra.append(prop.triangles + np.int32(h))
    if warp is not None:
        positions = warp(positions)
    triangles = np.concatenate([n_opaque, *extra, lashes])
    attributes[:, NORMAL] = vertex_normals(positions, triangles)
    attributes[:, POSITION] = positions
    part_ids = np.repeat(np.array([HAIR, PROP], np.uint8)[: len(extra)], [len(t) for t in extra])
    k, n_added = len(n_opaque), len(part_ids)
    part = np.concatenate([part[:k], part_ids, part[k:]])
    casts_shadow = np.concatenate([casts_shadow[:k], np.ones(n_added, bool), casts_shadow[k:]])
    fine = np.concatenate([fine[:k], np.zeros(n_added, bool), fine[k:]])
    return Mesh(attributes, triangles, part, part >= CLOTH, casts_shadow, fine, k + n_added)


@cache
def _triangles(family: str) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of every head of a family: (head and clothes, lashes)."""
    r = rig(family)
    is_lash = r.part[r.triangles[:, 0]] == LASHES
    return np.concatenate([r.triangles[~is_lash], _clothes(family)[2]]), r.triangles[is_lash]


@cache
def _fixed(family: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The same in a family's meshes: attributes of head and clothes; part, shadow, fine flags of ``_triangles``."""
    r = rig(family)
    n = len(r.base)
    attributes = np.zeros((n + len(_clothes(family)[1]), N_ATTRIBUTES), np.float32)
    attributes[:n, BASE], attributes[:n, MASK], attributes[:n, OPENNESS], attributes[n:, OPENNESS] = (
        r.base,
        r.masks,
        r.openness,
        1.0,
    )
    n_opaque, lashes = _triangles(family)
    cloth = len(_clothes(family)[2])
    skull = r.part[n_opaque[:-cloth, 0]]
    part = np.concatenate([skull, np.full(cloth, CLOTH, np.uint8), np.full(len(lashes), LASHES, np.uint8)])
    casts_shadow = np.isin(part, (SKIN, CLOTH))
    lips_or_inside = attributes[np.concatenate([n_opaque, lashes])][:, :, MASK][..., :2].max((1, 2)) > 0.3
    return attributes, part, casts_shadow, ~casts_shadow | lips_or_inside
