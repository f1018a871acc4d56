"""Export the project's head as glTF with 52 ARKit morph targets and a recording as its animation.

Metres; y up, z out of the face, x to the subject's left. Skin, eyes and lashes are baked to textures by the shaders of
the photo style. Morph targets add linearly, as in any avatar; our renderer also keeps lids off the eyeballs and rotates
the eyes, so combined expressions differ slightly.

The joint ``Head`` turns the head on its neck, ``LeftEye`` and ``RightEye`` the eyeballs. The gaze actions move the
eyeballs as morph targets already, so the eyes' joints turn by what is left to the recorded rotation.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semanticface import __version__, arkit
from semanticface.formats.gltf import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, Glb
from semanticface.formats.recording import CoefficientTrack
from semanticface.formats.rotations import gaze_rotations, inverse, multiply, recorded_eyes, recorded_head
from semanticface.rendering.head import channel
from semanticface.rendering.head.appearance import Appearance, appearance_of
from semanticface.rendering.head.mesh import CLOTH, HAIR, NORMAL, POSITION, Mesh, build_mesh
from semanticface.rendering.head.rig import EYE_LEFT, EYE_RIGHT, LASHES, LOWER_TEETH, SKIN, TONGUE, UPPER_TEETH, rig
from semanticface.rendering.kernels import NOISE_TABLE, noise, smoothstep
from semanticface.rendering.raster import visibility
from semanticface.rendering.shading import textures

_METRES = np.float32(0.1)  # the rig's units are decimetres
_MIN_SHIFT = 2e-5  # metres: smaller shifts are omitted from morph targets
_MIN_NORMAL_CHANGE = 0.01  # the same for unit normals
_SKIN_TEXTURE, _EYE_TEXTURE, _LASH_TEXTURE = 1024, 256, (128, 512)
_SEAM = 0.05  # triangles wider than this in texture space cross a seam
_BLEED = 6  # texels of colour bleed beyond borders, so that filtering shows no background
_IRIS_EXTENT = 0.75  # extent of the eye texture from the pupil in eyeball radii; the rest is white
_LASH_TURN, _LASH_NEAR, _LASH_FAR = 1.7, 0.145, 0.235  # radians and decimetres around the eyeball's centre
_NECK, _SKULL = (0.0, -1.2, -0.1), (0.0, -0.3, -0.05)  # joints of the neck and the head in decimetres
_NECK_LOW, _NECK_HIGH, _NECK_SLOPE = -1.15, -0.6, 0.3  # where the head's turn fades out: y + slope * z
_COLLAR = -1.22  # height on the base mesh below which cloth starts
_CLAMPED = {"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Geometry with one material.

    Attributes:
        name: of the material.
        rows: int64[N], mesh vertex indices.
        triangles: int64[T, 3], mesh vertex indices.
        roughness: 0 to 1.
        colour: linear RGB factor of texture or vertex colours.
        uv: float32[N, 2], v down; None without a texture.
        picture: texture, uint8[H, W, 3 or 4] in sRGB, or None.
        colours: linear vertex colours, float32[N, 3], or None.
        two_sided: whether back faces are drawn.
    """

    name: str
    rows: np.ndarray
    triangles: np.ndarray
    roughness: float
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    uv: np.ndarray | None = None
    picture: np.ndarray | None = None
    colours: np.ndarray | None = None
    two_sided: bool = False


class HeadJoint(IntEnum):
    """The joints of the head's skin, in its order."""

    NECK = 0
    HEAD = 1
    LEFT_EYE = 2
    RIGHT_EYE = 3


_JOINT_NAMES = ("Neck", "Head", "LeftEye", "RightEye")


@dataclass(frozen=True, slots=True)
class Head:
    """The head without an animation.

    Attributes:
        glb: the document.
        face: the node with the 52 morph targets.
        joints: the nodes of ``HeadJoint``.
    """

    glb: Glb
    face: int
    joints: tuple[int, ...]


def write_head(path: Path, track: CoefficientTrack, name: str) -> None:
    """Write the head to a .glb with a recording as its animation ``name``."""
    head = build_head()
    animate_head(head.glb, head.face, head.joints, track, name)
    head.glb.write(path)


def animate_head(glb: Glb, face: int, joints: Sequence[int], track: CoefficientTrack, name: str) -> None:
    """Add a recording to a ``Head`` as its animation ``name``, with the rotations that it has."""
    rotations: dict[int, np.ndarray] = {}
    if (turned := recorded_head(track)) is not None:
        rotations[joints[HeadJoint.HEAD]] = turned
    if (eyes := recorded_eyes(track)) is not None:
        left_over = multiply(eyes, inverse(gaze_rotations(track.values)))
        rotations[joints[HeadJoint.LEFT_EYE]], rotations[joints[HeadJoint.RIGHT_EYE]] = left_over.swapaxes(0, 1)
    glb.animate(name, track.times, {face: track.values}, rotations)


def build_head() -> Head:
    """Return the head without an animation."""
    glb = Glb()
    glb.document["asset"] |= {"generator": f"SemanticFace {__version__}", "copyright": "Head: MakeHuman data, CC0"}
    paints = appearance_of(None, rig().average)
    expressions = np.concatenate(
        [np.zeros((1, arkit.N_ACTIONS), np.float32), np.eye(arkit.N_ACTIONS, dtype=np.float32)]
    )
    built = [
        build_mesh(vertices, rig().average, paints.hair, paints.hair_seed) for vertices in rig().vertices(expressions)
    ]
    glb.add("samplers", _CLAMPED)
    face = {
        "name": "Face",
        "primitives": [_primitive(glb, part, built[0], built[1:]) for part in _morphed_parts(built[0], paints)],
        "weights": [0.0] * arkit.N_ACTIONS,
        "extras": {"targetNames": list(arkit.NAMES)},
    }
    static = [_primitive(glb, part, built[0]) for part in _static_parts(built[0], paints)]
    rest = {"name": "Hair and clothes", "primitives": static}
    skin, joints = _add_joints(glb)
    face_node = glb.add("nodes", {"name": "Face", "mesh": glb.add("meshes", face), "skin": skin})
    rest_node = glb.add("nodes", {"name": "Hair and clothes", "mesh": glb.add("meshes", rest), "skin": skin})
    # A parent would not move skinned meshes: they stand beside the joints.
    glb.document["scene"] = glb.add("scenes", {"nodes": [joints[HeadJoint.NECK], face_node, rest_node]})
    return Head(glb, face_node, joints)


def _add_joints(glb: Glb) -> tuple[int, tuple[int, ...]]:
    """Add the joints and their skin; return the skin and the nodes of ``HeadJoint``."""
    left, right = rig().average.eye_centres.astype(float)
    places = np.array([_NECK, _SKULL, left, right]) * float(_METRES)
    parents = (None, HeadJoint.NECK, HeadJoint.HEAD, HeadJoint.HEAD)
    joints = tuple(
        glb.add("nodes", {"name": name, "translation": (place - (0 if up is None else places[up])).tolist()})
        for name, place, up in zip(_JOINT_NAMES, places, parents, strict=True)
    )
    glb.document["nodes"][joints[HeadJoint.NECK]]["children"] = [joints[HeadJoint.HEAD]]
    glb.document["nodes"][joints[HeadJoint.HEAD]]["children"] = list(joints[HeadJoint.LEFT_EYE :])
    inverse_bind = np.tile(np.eye(4, dtype=np.float32), (len(joints), 1, 1))
    inverse_bind[:, 3, :3] = -places  # column-major
    skin = {"joints": list(joints), "inverseBindMatrices": glb.accessor(inverse_bind.reshape(-1, 16))}
    return glb.add("skins", skin), joints


def _skin_weights(part: _Part, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the joints of a part's vertices and their weights, 255 for 1, both uint8[N, 4]."""
    joints, weights = np.zeros((len(position), 4), np.uint8), np.zeros((len(position), 4), np.uint8)
    if part.name == "Eyes":
        joints[:, 0] = np.where(position[:, 0] > 0, HeadJoint.LEFT_EYE, HeadJoint.RIGHT_EYE)
        weights[:, 0] = 255
        return joints, weights
    height = position[:, 1] + _NECK_SLOPE * position[:, 2]
    # The throat bends with the chin, the teeth and the tongue do not.
    share = np.clip((height - _NECK_LOW) / (_NECK_HIGH - _NECK_LOW), 0, 1)
    if part.name in ("Teeth", "Tongue", "Lashes"):
        share = np.ones_like(share)
    share = np.rint(255 * share * share * (3 - 2 * share))
    turned = share > 0
    joints[turned, 0], weights[:, 0] = HeadJoint.HEAD, np.where(turned, share, 255)
    weights[turned, 1] = 255 - share[turned]
    return joints, weights


def _primitive(glb: Glb, part: _Part, mesh: Mesh, moved: list[Mesh] | None = None) -> dict[str, Any]:
    """Add a part's vertices, triangles and material; ``moved``: the mesh at each morph target's full weight."""
    position, normal = (mesh.attributes[part.rows, at] for at in (POSITION, NORMAL))
    joints, weights = _skin_weights(part, position)
    attributes = {
        "POSITION": glb.accessor(position * _METRES, ARRAY_BUFFER, bounds=True),
        "NORMAL": glb.accessor(_unit(normal), ARRAY_BUFFER),
        "JOINTS_0": glb.accessor(joints, ARRAY_BUFFER),
        "WEIGHTS_0": glb.accessor(weights, ARRAY_BUFFER, normalized=True),
    }
    surface: dict[str, Any] = {
        "baseColorFactor": [*map(float, part.colour), 1.0],
        "metallicFactor": 0.0,
        "roughnessFactor": part.roughness,
    }
    material: dict[str, Any] = {"name": part.name, "pbrMetallicRoughness": surface}
    if part.uv is not None and part.picture is not None:
        attributes["TEXCOORD_0"] = glb.accessor(part.uv.astype(np.float32), ARRAY_BUFFER)
        texture = glb.add("textures", {"sampler": 0, "source": glb.image(*_encode(part.picture))})
        surface["baseColorTexture"] = {"index": texture}
        if part.picture.shape[2] == 4:
            material["alphaMode"] = "BLEND"
    if part.colours is not None:
        attributes["COLOR_0"] = glb.accessor(part.colours.astype(np.float32), ARRAY_BUFFER)
    if part.two_sided:
        material["doubleSided"] = True
    new_rows = np.full(len(mesh.attributes), -1)
    new_rows[part.rows] = np.arange(len(part.rows))
    corners = new_rows[part.triangles].ravel().astype(np.uint16)
    out: dict[str, Any] = {
        "attributes": attributes,
        "indices": glb.accessor(corners, ELEMENT_ARRAY_BUFFER),
        "material": glb.add("materials", material),
    }
    if moved is not None:
        out["targets"] = []
        for other in moved:
            shift = (other.attributes[part.rows, POSITION] - position) * _METRES
            turn = _unit(other.attributes[part.rows, NORMAL]) - _unit(normal)
            shift, turn = shift.astype(np.float32), turn.astype(np.float32)
            out["targets"].append(
                {
                    "POSITION": glb.sparse(shift, _MIN_SHIFT, bounds=True),
                    "NORMAL": glb.sparse(turn, _MIN_NORMAL_CHANGE),
                }
            )
    return out


def _unit(normal: np.ndarray) -> np.ndarray:
    # Vertices without triangles have no normal, but glTF requires unit length.
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return np.where(length > 0, normal / np.maximum(length, 1e-12), (0, 0, 1)).astype(np.float32)


def _encode(picture: np.ndarray) -> tuple[bytes, str]:
    """Return a texture encoded as PNG if it has alpha, else as JPEG, and its MIME type."""
    data = io.BytesIO()
    if picture.shape[2] == 4:
        Image.fromarray(picture).save(data, "PNG", optimize=True)
        return data.getvalue(), "image/png"
    Image.fromarray(picture).save(data, "JPEG", quality=90)
    return data.getvalue(), "image/jpeg"


# --- parts --------------------------------------------------------------------------------------------------------


def _morphed_parts(mesh: Mesh, paints: Appearance) -> list[_Part]:
    head = rig()
    kind = mesh.part
    skin = mesh.triangles[kind == SKIN]
    width = np.ptp(head.uv[skin], axis=1).max(1)
    whole, torn = skin[width <= _SEAM], skin[width > _SEAM]
    uv, picture = _skin_texture(whole, paints)
    seam = np.unique(torn)
    corner_colours = _skin_colours(head.base[seam], head.masks[seam], paints)
    teeth = mesh.triangles[(kind == UPPER_TEETH) | (kind == LOWER_TEETH)]
    bare = paints.params.copy()
    bare[channel.TEETH_GAPS] = 0  # finer than the mesh
    row, muscle = np.unique(teeth), np.unique(tongue := mesh.triangles[kind == TONGUE])
    tooth = [
        textures.tooth(NOISE_TABLE, paints.colours, bare, *map(float, head.base[v]), head.part[v] == UPPER_TEETH)
        for v in row
    ]
    # Darker towards the back of the mouth.
    tooth = np.array(tooth) * [[1 - 0.75 * smoothstep(0.98, 0.72, z)] for z in head.base[row, 2].tolist()]
    pink = paints.colours[channel.TONGUE] * [
        [1 - 0.6 * smoothstep(0.9, 0.45, z)] for z in head.base[muscle, 2].tolist()
    ]
    return [
        _Part("Skin", np.unique(whole), whole, 0.55, uv=uv[np.unique(whole)], picture=picture),
        _Part("Skin at seams", seam, torn, 0.55, colours=corner_colours),
        _eyes(mesh, paints),
        _Part("Teeth", row, teeth, 0.25, colours=tooth),
        _Part("Tongue", muscle, tongue, 0.4, colours=pink),
        _lashes(mesh, paints),
    ]


def _static_parts(mesh: Mesh, paints: Appearance) -> list[_Part]:
    hair, cloth = mesh.triangles[mesh.part == HAIR], mesh.triangles[mesh.part == CLOTH]
    row = np.unique(hair)
    turn, way = mesh.attributes[row, 0].astype(float), mesh.attributes[row, 1].astype(float)
    tone = [0.7 + 0.6 * noise(NOISE_TABLE, t * 9, w * 2, 0.0) for t, w in zip(turn, way, strict=True)]
    strands = np.array(tone)[:, None] * paints.colours[channel.HAIR]
    blue = tuple(paints.colours[channel.CLOTH].astype(float))
    return [
        _Part("Hair", row, hair, 0.6, colours=strands, two_sided=True),
        _Part("Cloth", np.unique(cloth), cloth, 0.9, blue, two_sided=True),
    ]


def _skin_texture(triangles: np.ndarray, paints: Appearance) -> tuple[np.ndarray, np.ndarray]:
    """Return texture coordinates of all vertices, float32[V, 2], and the baked skin, uint8[S, S, 3]."""
    head, size = rig(), _SKIN_TEXTURE
    low, high = head.uv[triangles].min((0, 1)), head.uv[triangles].max((0, 1))
    uv = (head.uv - low) / (high - low)
    uv = np.stack([uv[:, 0], 1 - uv[:, 1]], 1)
    screen = np.concatenate([uv * size, np.ones((len(uv), 1))], 1).astype(np.float32)
    triangles = np.ascontiguousarray(triangles, np.int32)
    front, w1, w2, _ = visibility(screen, triangles, np.ones(len(triangles), bool), size, size, "baked")
    drawn = front >= 0
    a, b, c = triangles[front[drawn]].T
    second, third = w1[drawn][:, None], w2[drawn][:, None]
    first = 1 - second - third

    def mix(values: np.ndarray) -> np.ndarray:
        return first * values[a] + second * values[b] + third * values[c]

    colours = np.zeros((size, size, 3))
    colours[drawn] = _skin_colours(mix(head.base), mix(head.masks), paints)
    for _ in range(_BLEED):
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            fresh = ~drawn & np.roll(drawn, step, axis)
            colours[fresh] = np.roll(colours, step, axis)[fresh]
            drawn = drawn | fresh
    colours[~drawn] = paints.colours[channel.SKIN]
    return uv.astype(np.float32), _srgb(colours)


def _skin_colours(points: np.ndarray, masks: np.ndarray, paints: Appearance) -> np.ndarray:
    """Return linear RGB of skin points, float64[N, 3], from base-mesh coordinates [N, 3] and masks [N, 4]."""
    colours, amounts = paints.colours, paints.params
    out = np.empty((len(points), 3))
    for n, ((x, y, z), (lips, inside, lid, ear)) in enumerate(
        zip(points.astype(float).tolist(), masks.astype(float).tolist(), strict=True)
    ):
        if inside > 0.5:
            deep = smoothstep(0.98, 0.55, z)
            tone = (0.9 + 0.3 * noise(NOISE_TABLE, x * 12, y * 12, z * 12)) * (1 - 0.85 * deep)
            out[n] = 0.30 * tone, 0.075 * tone, 0.07 * tone
        elif y < _COLLAR - 0.35 * smoothstep(0.2, 0.9, z) + 0.9 * smoothstep(0.65, 1.1, abs(x)):
            out[n] = (0.85 + 0.3 * noise(NOISE_TABLE, x * 30, y * 30, z * 30)) * colours[channel.CLOTH]
        else:
            out[n] = textures.skin(NOISE_TABLE, colours, amounts, x, y, z, lips, lid, ear)[:3]
    return out


def _eyes(mesh: Mesh, paints: Appearance) -> _Part:
    head, size = rig(), _EYE_TEXTURE
    triangles = mesh.triangles[(mesh.part == EYE_LEFT) | (mesh.part == EYE_RIGHT)]
    rows = np.unique(triangles)
    side = (head.part[rows] == EYE_RIGHT).astype(int)
    who = head.average
    out = (who.vertices[rows] - who.eye_centres[side]) / who.eye_radii[side][:, None]
    across = out[:, :2].copy()
    behind = out[:, 2] < 0
    across[behind] /= np.maximum(np.linalg.norm(across[behind], axis=1, keepdims=True), 1e-6)
    uv = 0.5 + across * (0.5, -0.5) / _IRIS_EXTENT
    at = (np.arange(size) + 0.5) / size * 2 - 1
    colours = np.empty((size, size, 3))
    for row, y in enumerate((-at * _IRIS_EXTENT).tolist()):
        for column, x in enumerate((at * _IRIS_EXTENT).tolist()):
            z = max(1 - x * x - y * y, 1e-6) ** 0.5
            colours[row, column] = textures.eye(NOISE_TABLE, paints.colours, paints.params, x, y, z, 3.0)[:3]
    return _Part("Eyes", rows, triangles, 0.1, uv=uv, picture=_srgb(colours))


def _lashes(mesh: Mesh, paints: Appearance) -> _Part:
    """Return lashes as in the photo style, the upper ones in the texture's upper half."""
    head = rig()
    triangles = mesh.triangles[mesh.part == LASHES]
    position = np.stack([np.abs(head.base[:, 0]), head.base[:, 1], head.base[:, 2]], 1) - head.lash_centre
    upper = position[:, 1] > 0
    triangles = triangles[np.isin(upper[triangles].sum(1), (0, 3))]
    rows = np.unique(triangles)
    turn = np.arctan2(position[rows, 0], position[rows, 2]) / _LASH_TURN
    way = np.clip((np.linalg.norm(position[rows], axis=1) - _LASH_NEAR) / (_LASH_FAR - _LASH_NEAR), 0.02, 0.98)
    uv = np.stack([0.5 + 0.5 * turn, np.where(upper[rows], 0.0, 0.5) + 0.5 * way], 1)
    high, wide = _LASH_TEXTURE
    half = high // 2
    angle = ((np.arange(wide) + 0.5) / wide * 2 - 1) * _LASH_TURN
    out = ((np.arange(half) + 0.5) / half)[:, None]
    out = out * out * (3 - 2 * out)
    strand = 0.5 + 0.5 * np.sin(angle * 95.0 + 2 * np.sin(out * 5))
    rise = np.clip((strand - 0.05 - 0.85 * out) / 0.25, 0, 1)
    full = np.where(out > 0.25, rise * rise * (3 - 2 * rise), 1.0) * (1 - out)
    amount = float(paints.params[channel.LASH_AMOUNT])
    alpha = np.clip(np.concatenate([full * (0.3 + amount), full * 0.35 * amount]), 0, 1)
    colour = np.broadcast_to(_srgb(paints.colours[channel.LASH].astype(float)), (high, wide, 3))
    picture = np.concatenate([colour, np.rint(alpha * 255).astype(np.uint8)[..., None]], 2)
    return _Part("Lashes", rows, triangles, 0.9, uv=uv, picture=picture, two_sided=True)


def _srgb(light: np.ndarray) -> np.ndarray:
    """Convert linear light 0 to 1 to uint8 sRGB."""
    x = np.clip(light, 0, 1)
    return np.rint(255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)).astype(np.uint8)
