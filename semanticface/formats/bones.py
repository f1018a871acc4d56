"""Find and turn the head and eye bones of a glTF or VRM avatar.

A VRM names its bones (``humanoid``). In other avatars they are found by name, in any spelling and with the prefixes of
common rigs: ``Head`` and ``LeftEye`` of Ready Player Me, ``mixamorig:Head``, ``CC_Base_Head`` and ``CC_Base_L_Eye`` of
Character Creator, ``J_Bip_C_Head`` and ``J_Adj_L_FaceEye`` of VRoid, ``DEF-eye.L`` of Blender, ``Bip001 Head``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from semanticface.formats.rotations import from_matrix, inverse, multiply

BONES = ("head", "left eye", "right eye")
"""The bones that are turned."""

_VRM_NAMES = {"head": "head", "leftEye": "left eye", "rightEye": "right eye"}
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_COPY = re.compile(r"\.\d{3}$")
# Words of rigs that say nothing about which bone it is.
_FILLERS = {
    "mixamorig", "cc", "base", "j", "adj", "bip", "b", "c", "m", "def", "rig", "armature", "skeleton", "character",
    "avatar", "bone", "joint", "jnt", "bn", "face", "facial",
}  # fmt: skip
_EYE = re.compile(r"(left|right|l|r|)eye(?:ball)?(left|right|l|r|)")
_SIDES = {"l": "left", "r": "right", "left": "left", "right": "right"}


def match_bone(name: str) -> str | None:
    """Return which of ``BONES`` a node's name means, or None."""
    words = {word.lower() for word in _WORDS.findall(_COPY.sub("", name))} - _FILLERS
    if words == {"head"}:
        return "head"
    sides = {_SIDES[word] for word in words & _SIDES.keys()}
    eyes = [_EYE.fullmatch(word) for word in words - _SIDES.keys()]
    if len(eyes) == 1 and eyes[0] is not None:
        sides |= {_SIDES[side] for side in eyes[0].groups() if side}
        return f"{sides.pop()} eye" if len(sides) == 1 else None
    return None


def find_bones(document: Mapping[str, Any]) -> dict[str, int]:
    """Return the nodes of the ``BONES`` that an avatar has; a malformed document raises errors of various types."""
    extensions = document.get("extensions", {})
    humanoid = extensions.get("VRM", {}).get("humanoid", {}).get("humanBones", [])
    listed = {bone["bone"]: bone["node"] for bone in humanoid}
    for name, bone in extensions.get("VRMC_vrm", {}).get("humanoid", {}).get("humanBones", {}).items():
        listed[name] = bone["node"]
    nodes = document.get("nodes", [])
    named = {ours: listed[theirs] for theirs, ours in _VRM_NAMES.items() if 0 <= listed.get(theirs, -1) < len(nodes)}
    joints = {joint for skin in document.get("skins", []) for joint in skin["joints"]}
    found: dict[str, tuple[tuple[bool, bool, int], int]] = {}
    for index, node in enumerate(nodes):
        bone = match_bone(node.get("name", ""))
        # A skinned mesh does not follow its own node.
        if bone is None or "skin" in node:
            continue
        rank = index not in joints, "mesh" in node, len(node["name"])
        if bone not in found or rank < found[bone][0]:
            found[bone] = rank, index
    return {bone: index for bone, (_, index) in found.items()} | named


def turn_bone(document: dict[str, Any], node: int, turn: np.ndarray) -> np.ndarray:
    """Return a node's rotations under which it is turned in the avatar's axes, and make it fit for animation.

    Args:
        document: of the avatar; a matrix of the node is replaced by its translation, rotation and scale.
        node: index of the bone.
        turn: unit quaternions [T, 4] in the avatar's axes at rest: x to its left, y up, z out of its face. Ancestors'
            animations come on top.

    Returns:
        float64[T, 4], local rotations.
    """
    nodes = document["nodes"]
    above = {child: index for index, each in enumerate(nodes) for child in each.get("children", [])}
    parent, at, seen = np.array([0.0, 0.0, 0.0, 1.0]), node, {node}
    while (at := above.get(at, -1)) >= 0:
        if at in seen:
            raise ValueError("a node is its own ancestor")
        seen.add(at)
        parent = multiply(_rotation(nodes[at]), parent)
    if "matrix" in nodes[node]:
        translation, own, size = _separated(nodes[node].pop("matrix"))
        nodes[node] |= {"translation": translation.tolist(), "rotation": own.tolist(), "scale": size.tolist()}
    own = _rotation(nodes[node])
    if "VRM" in document.get("extensions", {}):
        turn = turn * (-1, 1, -1, 1)  # a VRM 0 looks along -z
    return multiply(inverse(parent), multiply(turn, multiply(parent, own)))


def _rotation(node: Mapping[str, Any]) -> np.ndarray:
    """Return a node's own rotation, float64[4]."""
    if "matrix" in node:
        return _separated(node["matrix"])[1]
    rotation = np.array(node.get("rotation", (0, 0, 0, 1)), np.float64)
    unit: np.ndarray = rotation / np.linalg.norm(rotation)
    return unit


def _separated(matrix: list[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return translation [3], rotation [4] and scale [3] of a node's matrix, 16 numbers by columns."""
    whole = np.array(matrix, np.float64).reshape(4, 4).T
    turned = whole[:3, :3]
    size = np.linalg.norm(turned, axis=0) * (1, 1, np.sign(np.linalg.det(turned)))
    return whole[:3, 3], from_matrix(turned / size), size
