"""Apply a recording to a custom glTF or VRM avatar, matching morph targets by their ARKit names in any spelling.

VRM expressions are mixtures of morph targets (VRM 0 ``blendShapeGroups``, VRM 1 ``expressions``; 52 of them with ARKit
names are called perfect sync). If an expression matches an action, it is used; otherwise the morph targets of that name
in all meshes.

Accepted names: ``eyeBlinkLeft``, ``EyeBlinkLeft``, ``eye_blink_left``, ``eyeBlink_L``, ``EyeBlink.L``; with a prefix
that ends in a separator (``blendShape1.``, ``Fcl_``, ``rig_head:``); with Blender's suffix ``.001``; and
``browInnerUp`` and ``cheekPuff`` as two halves.

The head's bone turns by the recorded rotation. Most avatars with morph targets for the gaze have bones for the eyes
too; they stay at rest, or the eyes would move twice. Eyes without such targets are turned, by the recorded rotation or
by what the gaze actions stand for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semanticface import arkit
from semanticface.errors import SemanticFaceError
from semanticface.formats import gltf
from semanticface.formats.bones import find_bones, turn_bone
from semanticface.formats.recording import CoefficientTrack
from semanticface.formats.rotations import gaze_rotations, recorded_eyes, recorded_head

_SEPARATORS = re.compile(r"[^A-Za-z0-9]+")
_COPY = re.compile(r"\.\d{3}$")
_SIDES = ("Left", "Right")
_MAX_LISTED = 8  # morph targets listed in an error message


def _spellings() -> dict[str, str]:
    out: dict[str, str] = {}
    for name in arkit.NAMES:
        out[name.lower()] = name
        for side in _SIDES:
            if name.endswith(side):
                out[(name.removesuffix(side) + side[0]).lower()] = name
    return out


_ACTION_OF = _spellings()
"""Lower-case name without separators to action."""
_HALF_OF = {f"{name}{side}".lower(): name for name in ("browInnerUp", "cheekPuff") for side in (*_SIDES, "L", "R")}


@dataclass(frozen=True, slots=True)
class MorphBinding:
    """One morph target driven by an action.

    Attributes:
        node: glTF node index.
        target: index among the morph targets of the node's mesh.
        action: action index.
        weight: factor of the coefficient.
    """

    node: int
    target: int
    action: int
    weight: float = 1.0


def match_action(name: str) -> tuple[str, int] | None:
    """Return the action of a morph target's name and a rank, or None if there is none.

    Ranks: 0 exact, 1 with a prefix, 2 half of an action, 3 a half with a prefix.
    """
    parts = [part for part in _SEPARATORS.split(_COPY.sub("", name)) if part]
    for first in range(len(parts)):
        key = "".join(parts[first:]).lower()
        found = _ACTION_OF.get(key) or _HALF_OF.get(key)
        if found is None:
            continue
        # A corrective such as jawOpen_mouthClose is not an action.
        before = {"".join(parts[i:j]).lower() for i in range(first) for j in range(i + 1, first + 1)}
        if before & _ACTION_OF.keys():
            return None
        return found, int(first > 0) + 2 * (key not in _ACTION_OF)
    return None


def find_bindings(document: Mapping[str, Any]) -> list[MorphBinding]:
    """Return all bindings of a glTF document; a malformed one raises errors of various types."""
    nodes = document.get("nodes", [])
    meshes = document.get("meshes", [])
    counts = [len(mesh["primitives"][0].get("targets", [])) for mesh in meshes]
    nodes_of: dict[int, list[int]] = {}
    for node_index, node in enumerate(nodes):
        if "mesh" in node and counts[node["mesh"]]:
            nodes_of.setdefault(node["mesh"], []).append(node_index)
    out = [
        binding
        for binding in _expressions(document, nodes_of)
        if "mesh" in nodes[binding.node] and 0 <= binding.target < counts[nodes[binding.node]["mesh"]]
    ]
    from_expressions = {binding.action for binding in out}
    for mesh, node_indices in nodes_of.items():
        best: dict[int, tuple[int, list[int]]] = {}
        for target, name in enumerate(_target_names(meshes[mesh])[: counts[mesh]]):
            found = match_action(name)
            if found is None or arkit.INDEX[found[0]] in from_expressions:
                continue
            action, rank = arkit.INDEX[found[0]], found[1]
            known = best.get(action)
            if known is None or rank < known[0]:
                best[action] = rank, [target]
            elif rank == known[0] and rank >= 2:  # the other half of the action
                known[1].append(target)
        out += [
            MorphBinding(node_index, target, action)
            for node_index in node_indices
            for action, (_, targets) in best.items()
            for target in targets
        ]
    return out


@dataclass(frozen=True, slots=True)
class Unmoved:
    """What a recording has and an avatar lacks.

    Attributes:
        actions: without a morph target, and without a bone that does the same.
        bones: of ``bones.BONES`` that have recorded rotations.
    """

    actions: list[str]
    bones: list[str]


def write_avatar(path: Path, avatar: Path, track: CoefficientTrack, name: str) -> Unmoved:
    """Write a copy of an avatar with a recording as an additional animation.

    Args:
        path: output file.
        avatar: .glb or .vrm.
        track: the recording.
        name: of the animation.

    Raises:
        SemanticFaceError: not binary glTF, nothing to move, data in external files, or a failed write.
    """
    glb = gltf.read(avatar)
    document = glb.document
    try:
        found = find_bindings(document)
        moved = {arkit.NAMES[binding.action] for binding in found}
        rotations, missing = _rotations(document, track, moved)
        if not found and not rotations:
            raise SemanticFaceError(f"{avatar}: {_no_match_message(document)}")
        buffers, images = document.get("buffers", []), document.get("images", [])
        external = [part for part in (*buffers, *images) if not str(part.get("uri", "data:")).startswith("data:")]
        if external or (buffers and "uri" in buffers[0]):
            raise SemanticFaceError(f"{avatar}: it refers to external files. Export it as one .glb.")
        weights = _weights(document, found, track.values)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise SemanticFaceError(f"{avatar}: its glTF is damaged ({error!r}). Export it again.") from error
    glb.animate(name, track.times, weights, rotations)
    glb.write(path)
    return Unmoved([action for action in arkit.NAMES if action not in moved], missing)


def _rotations(
    document: dict[str, Any], track: CoefficientTrack, moved: set[str]
) -> tuple[dict[int, np.ndarray], list[str]]:
    """Return rotations of bones by node, and the missing bones; adds the gaze actions that bones do to ``moved``."""
    bones = find_bones(document)
    turns: dict[str, np.ndarray] = {}
    if (head := recorded_head(track)) is not None:
        turns["head"] = head
    eyes = recorded_eyes(track)
    missing = [bone for bone in turns if bone not in bones]
    for side, bone in enumerate(("left eye", "right eye")):
        gaze = {action for action in arkit.NAMES if action.startswith("eyeLook") and action.endswith(_SIDES[side])}
        if moved & gaze:
            continue
        if bone in bones:
            turns[bone] = (gaze_rotations(track.values) if eyes is None else eyes)[:, side]
            moved |= gaze
        elif eyes is not None:
            missing.append(bone)
    return {
        bones[bone]: turn_bone(document, bones[bone], turn) for bone, turn in turns.items() if bone in bones
    }, missing


def _weights(document: Mapping[str, Any], found: Sequence[MorphBinding], values: np.ndarray) -> dict[int, np.ndarray]:
    """Return float32 weights [T, targets] of each driven node; targets without an action keep their rest weight."""
    out: dict[int, np.ndarray] = {}
    for binding in found:
        if binding.node not in out:
            node = document["nodes"][binding.node]
            mesh = document["meshes"][node["mesh"]]
            count = len(mesh["primitives"][0]["targets"])
            rest = np.zeros(count, np.float32)
            rest[:] = node.get("weights", mesh.get("weights", rest))
            rest[[other.target for other in found if other.node == binding.node]] = 0
            out[binding.node] = np.tile(rest, (len(values), 1))
        out[binding.node][:, binding.target] += np.float32(binding.weight) * values[:, binding.action]
    for node, weights in out.items():
        driven = sorted({other.target for other in found if other.node == node})
        weights[:, driven] = np.clip(weights[:, driven], 0, 1)
    return out


def _target_names(mesh: Mapping[str, Any]) -> list[str]:
    """Return the names of a mesh's morph targets, which exporters store in one of three locations."""
    first = mesh["primitives"][0]
    for holder in (mesh, first):
        names = (holder.get("extras") or {}).get("targetNames")
        if isinstance(names, list):
            return [str(name) for name in names]
    extras = [target.get("extra") or target.get("extras") or {} for target in first.get("targets", [])]
    return [str(extra.get("name") or extra.get("targetName") or "") for extra in extras]


def _expressions(document: Mapping[str, Any], nodes_of: Mapping[int, list[int]]) -> Iterator[MorphBinding]:
    """Yield the bindings of a VRM's expressions with ARKit names."""
    extensions = document.get("extensions", {})
    for group in extensions.get("VRM", {}).get("blendShapeMaster", {}).get("blendShapeGroups", []):
        if found := match_action(group.get("name", "")):
            for bind in group.get("binds") or []:
                for node in nodes_of.get(bind["mesh"], []):
                    yield MorphBinding(node, bind["index"], arkit.INDEX[found[0]], bind["weight"] / 100)
    expressions = extensions.get("VRMC_vrm", {}).get("expressions", {})
    for name, expression in (expressions.get("custom") or {}).items():
        if found := match_action(name):
            for bind in expression.get("morphTargetBinds") or []:
                yield MorphBinding(bind["node"], bind["index"], arkit.INDEX[found[0]], bind["weight"])


def _no_match_message(document: Mapping[str, Any]) -> str:
    names = [name for mesh in document.get("meshes", []) for name in _target_names(mesh) if name]
    if not names:
        return "no named morph target. Export shape keys with their names."
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return (
        f"no morph target with an ARKit name (found {', '.join(names[:_MAX_LISTED])}{more}). "
        "Rename them after the actions, such as jawOpen."
    )
