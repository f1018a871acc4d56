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
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from semanticface.utils.listing import listed

_SEPARATORS = re.compile(r"[^A-Za-z0-9]+")
_COPY = re.compile(r"\.\d{3}$")
_SIDES = ("Left", "Right")
_REST_SHAPES = {"basis", "neutral", "base", "basisshape", "default", "rest", "original", "restpose"}

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
        found = arkit.KEY_OF.get(key) or _HALF_OF.get(key)
        if found is None:
            continue
        # A corrective such as jawOpen_mouthClose is not an action.
        before = {"".join(parts[i:j]).lower() for i in range(first) for j in range(i + 1, first + 1)}
        if before & arkit.KEY_OF.keys():
            return None
        return found, int(first > 0) + 2 * (key not in arkit.KEY_OF)
    return None


def find_bindings(document: Mapping[str, Any], note: Callable[[str], None] = lambda _: None) -> list[MorphBinding]:
    """Return all bindings of a glTF document; a malformed one raises errors of various types.

    Args:
        document: its JSON.
        note: called with a sentence on names and expressions that are not used.
    """
    nodes = document.get("nodes", [])
    meshes = document.get("meshes", [])
    counts = [len(mesh["primitives"][0].get("targets", [])) for mesh in meshes]
    nodes_of: dict[int, list[int]] = {}
    for node_index, node in enumerate(nodes):
        if "mesh" in node and counts[node["mesh"]]:
            nodes_of.setdefault(node["mesh"], []).append(node_index)
    out = [
        binding
        for binding in _expressions(document, nodes_of, note)
        if "mesh" in nodes[binding.node] and 0 <= binding.target < counts[nodes[binding.node]["mesh"]]
    ]
    from_expressions = {binding.action for binding in out}
    for mesh, node_indices in nodes_of.items():
        best: dict[int, tuple[int, list[int]]] = {}
        left: list[str] = []
        names = _fitting_names(document, mesh, counts[mesh], note)
        for target, name in enumerate(names):
            found = match_action(name)
            if found is None or arkit.INDEX[found[0]] in from_expressions:
                continue
            action, rank = arkit.INDEX[found[0]], found[1]
            known = best.get(action)
            if known is None or rank < known[0]:
                left += [] if known is None else [names[other] for other in known[1]]
                best[action] = rank, [target]
            elif rank == known[0]:  # the other half of the action, or lashes beside lids
                known[1].append(target)
            else:
                left.append(name)
        if left:
            note(f"{_mesh_name(document, mesh)}: not moved, since another name fits better: {listed(left)}.")
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


def write_avatar(path: Path, avatar: Path, track: CoefficientTrack, name: str, note: Callable[[str], None]) -> Unmoved:
    """Write a copy of an avatar with a recording as an additional animation.

    Args:
        path: output file.
        avatar: .glb or .vrm.
        track: the recording.
        name: of the animation.
        note: called with a sentence on names and expressions of the avatar that are not used.

    Raises:
        SemanticFaceError: not binary glTF, nothing to move, data in external files, or a failed write.
    """
    glb = gltf.read(avatar)
    document = glb.document
    try:
        found = find_bindings(document, lambda text: note(f"{avatar}: {text}"))
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
        raise SemanticFaceError(
            f"{avatar}: its glTF is damaged: a mesh, node or accessor is missing or malformed. Export it again."
        ) from error
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


def _fitting_names(
    document: Mapping[str, Any], mesh: int, count: int, note: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Return the names of a mesh's ``count`` morph targets; none if there is another number of them.

    Such names are off by some targets, and three.js ignores them too. Only a leading name of the rest shape, which is
    no target, is known to be one too many.
    """
    names = _target_names(document, mesh)
    if len(names) == count + 1 and arkit.column_key(names[0]) in _REST_SHAPES:
        return names[1:]
    if len(names) == count:
        return names
    if names:
        note(
            f"{_mesh_name(document, mesh)}: {len(names)} names for {count} morph targets: which is whose is not known. "
            "It is not moved; export it again."
        )
    return []


def _mesh_name(document: Mapping[str, Any], mesh: int) -> str:
    name = document["meshes"][mesh].get("name")
    return f"mesh {name}" if isinstance(name, str) and name else f"mesh {mesh}"


def _target_names(document: Mapping[str, Any], mesh: int) -> list[str]:
    """Return the names of a mesh's morph targets, which exporters store in one of four locations."""
    whole = document["meshes"][mesh]
    first = whole["primitives"][0]
    for holder in (whole, first):
        names = (holder.get("extras") or {}).get("targetNames")
        if isinstance(names, list) and names:
            return [str(name) for name in names]
    targets = first.get("targets", [])
    extras = [target.get("extra") or target.get("extras") or {} for target in targets]
    names = [str(extra.get("name") or extra.get("targetName") or "") for extra in extras]
    if any(names):
        return names
    accessors = [document["accessors"][min(target.values())] if target else {} for target in targets]
    names = [str(accessor.get("name") or "") for accessor in accessors]
    return names if any(names) else []


def _expressions(
    document: Mapping[str, Any], nodes_of: Mapping[int, list[int]], note: Callable[[str], None]
) -> Iterator[MorphBinding]:
    """Yield the bindings of a VRM's expressions with ARKit names; odd expressions are left out."""
    for name, binds, place, whole in _vrm_expressions(document):
        found = match_action(name)
        if found is None:
            continue
        try:
            yield from [
                MorphBinding(node, int(bind["index"]), arkit.INDEX[found[0]], float(bind["weight"]) / whole)
                for bind in binds or []
                for node in (nodes_of.get(bind["mesh"], []) if place == "mesh" else [_existing(document, bind["node"])])
            ]
        except (KeyError, TypeError, IndexError, AttributeError, ValueError):
            note(f"the expression {name} is malformed and left out.")


def _existing(document: Mapping[str, Any], node: int) -> int:
    document["nodes"][node]
    return node


def _vrm_expressions(document: Mapping[str, Any]) -> Iterator[tuple[str, Any, str, float]]:
    """Yield name, binds, what a bind refers to and the weight that is 1, of each expression that has a name."""
    groups = _inside(document, "extensions", "VRM", "blendShapeMaster", "blendShapeGroups")
    for group in groups if isinstance(groups, list) else []:
        if isinstance(group, Mapping) and isinstance(name := group.get("name"), str):
            yield name, group.get("binds"), "mesh", 100.0
    custom = _inside(document, "extensions", "VRMC_vrm", "expressions", "custom")
    for name, expression in custom.items() if isinstance(custom, Mapping) else ():
        if isinstance(expression, Mapping):
            yield name, expression.get("morphTargetBinds"), "node", 1.0


def _inside(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _no_match_message(document: Mapping[str, Any]) -> str:
    meshes = document.get("meshes", [])
    names = [name for mesh in range(len(meshes)) for name in _target_names(document, mesh) if name]
    if not names:
        return "no named morph target. Export shape keys with their names."
    if any(match_action(name) for name in names):
        return "the names of its morph targets do not fit their number. Export it again."
    return (
        f"no morph target with an ARKit name (found {listed(names)}). Rename them after the actions, such as jawOpen."
    )
