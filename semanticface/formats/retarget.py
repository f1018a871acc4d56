"""A recording onto somebody's own avatar, glTF or VRM: morph targets found by their ARKit names, however spelt.

A VRM tells how its expressions are mixed from morph targets (VRM 0 ``blendShapeGroups``, VRM 1 ``expressions``; 52 of
them under ARKit names are what apps call perfect sync): where there is one for an action it is followed. Otherwise the
morph targets of that name are moved, in all meshes that have one.

Names: ``eyeBlinkLeft``, ``EyeBlinkLeft``, ``eye_blink_left``, ``eyeBlink_L``, ``EyeBlink.L``; with something before
them that ends in a separator (``blendShape1.``, ``Fcl_``, ``rig_head:``); with Blender's ``.001`` after them; and
``browInnerUp`` and ``cheekPuff`` in two halves.
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
from semanticface.formats.recording import CoefficientTrack

_SEPARATORS = re.compile(r"[^A-Za-z0-9]+")
_COPY = re.compile(r"\.\d{3}$")
_NAMED = 8  # morph targets named in a message


def _spellings() -> dict[str, str]:
    out: dict[str, str] = {}
    for name in arkit.NAMES:
        out[name.lower()] = name
        for side in ("Left", "Right"):
            if name.endswith(side):
                out[(name.removesuffix(side) + side[0]).lower()] = name
    return out


_ACTION_OF = _spellings()
"""Letters of a name, in lower case and without separators, to the action."""
_HALF_OF = {
    f"{name}{side}".lower(): name for name in ("browInnerUp", "cheekPuff") for side in ("Left", "Right", "L", "R")
}


@dataclass(frozen=True, slots=True)
class MorphBinding:
    """One morph target that follows an action.

    Attributes:
        node: of the glTF document.
        target: its place among the morph targets of the node's mesh.
        action: index of the action.
        share: what the coefficient is multiplied with.
    """

    node: int
    target: int
    action: int
    share: float = 1.0


def match_action(name: str) -> tuple[str, int] | None:
    """Return the action that a morph target's name stands for, and how well it fits: 0 is best; None for no action.

    1 is a name with something before it, 2 one half of an action, 3 both.
    """
    parts = [part for part in _SEPARATORS.split(_COPY.sub("", name)) if part]
    for first in range(len(parts)):
        key = "".join(parts[first:]).lower()
        found = _ACTION_OF.get(key) or _HALF_OF.get(key)
        if found is None:
            continue
        # A corrective such as jawOpen_mouthClose is no action of its own.
        before = {"".join(parts[i:j]).lower() for i in range(first) for j in range(i + 1, first + 1)}
        if before & _ACTION_OF.keys():
            return None
        return found, int(first > 0) + 2 * (key not in _ACTION_OF)
    return None


def find_bindings(document: Mapping[str, Any]) -> list[MorphBinding]:
    """Return what in a glTF document follows the actions.

    Raises:
        KeyError, TypeError, IndexError, AttributeError, ValueError: the document is not as glTF and VRM have it.
    """
    nodes = document.get("nodes", [])
    meshes = document.get("meshes", [])
    counts = [len(mesh["primitives"][0].get("targets", [])) for mesh in meshes]
    where: dict[int, list[int]] = {}
    for place, node in enumerate(nodes):
        if "mesh" in node and counts[node["mesh"]]:
            where.setdefault(node["mesh"], []).append(place)
    out = [
        drive
        for drive in _expressions(document, where)
        if "mesh" in nodes[drive.node] and 0 <= drive.target < counts[nodes[drive.node]["mesh"]]
    ]
    told = {drive.action for drive in out}
    for mesh, places in where.items():
        best: dict[int, tuple[int, list[int]]] = {}
        for target, name in enumerate(_target_names(meshes[mesh])[: counts[mesh]]):
            found = match_action(name)
            if found is None or arkit.INDEX[found[0]] in told:
                continue
            action, rank = arkit.INDEX[found[0]], found[1]
            known = best.get(action)
            if known is None or rank < known[0]:
                best[action] = rank, [target]
            elif rank == known[0] and rank >= 2:  # the other half
                known[1].append(target)
        out += [
            MorphBinding(place, target, action)
            for place in places
            for action, (_, targets) in best.items()
            for target in targets
        ]
    return out


def write_avatar(path: Path, avatar: Path, track: CoefficientTrack, name: str) -> list[str]:
    """Write an avatar with a recording as one more animation; all else in it stays as it is.

    Args:
        path: of the new file.
        avatar: .glb or .vrm.
        track: what it does.
        name: of the animation.

    Returns:
        The actions for which the avatar has no morph target; they do not show.

    Raises:
        SemanticFaceError: no binary glTF, none of the actions found in it, its data in other files, or no room to
            write.
    """
    glb = gltf.read(avatar)
    document = glb.document
    try:
        found = find_bindings(document)
        if not found:
            raise SemanticFaceError(f"{avatar}: {_nothing(document)}")
        buffers, images = document.get("buffers", []), document.get("images", [])
        elsewhere = [part for part in (*buffers, *images) if not str(part.get("uri", "data:")).startswith("data:")]
        if elsewhere or (buffers and "uri" in buffers[0]):
            raise SemanticFaceError(f"{avatar}: part of it lies in other files. Export it as one .glb.")
        weights = _weights(document, found, track.values)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise SemanticFaceError(f"{avatar}: its glTF is damaged ({error!r}). Export it again.") from error
    glb.animate(name, track.times, weights)
    glb.write(path)
    moved = {drive.action for drive in found}
    return [action for index, action in enumerate(arkit.NAMES) if index not in moved]


def _weights(document: Mapping[str, Any], found: Sequence[MorphBinding], values: np.ndarray) -> dict[int, np.ndarray]:
    """Weights of every morph target of each node that is driven; those of no action keep their resting weight."""
    out: dict[int, np.ndarray] = {}
    for drive in found:
        if drive.node not in out:
            node = document["nodes"][drive.node]
            mesh = document["meshes"][node["mesh"]]
            count = len(mesh["primitives"][0]["targets"])
            rest = np.zeros(count, np.float32)
            rest[:] = node.get("weights", mesh.get("weights", rest))
            rest[[other.target for other in found if other.node == drive.node]] = 0
            out[drive.node] = np.tile(rest, (len(values), 1))
        out[drive.node][:, drive.target] += np.float32(drive.share) * values[:, drive.action]
    for node, weights in out.items():
        driven = sorted({other.target for other in found if other.node == node})
        weights[:, driven] = np.clip(weights[:, driven], 0, 1)
    return out


def _target_names(mesh: Mapping[str, Any]) -> list[str]:
    """Names of a mesh's morph targets; they stand in one of three places, by the age of the exporter."""
    first = mesh["primitives"][0]
    for holder in (mesh, first):
        names = (holder.get("extras") or {}).get("targetNames")
        if isinstance(names, list):
            return [str(name) for name in names]
    extras = [target.get("extra") or target.get("extras") or {} for target in first.get("targets", [])]
    return [str(extra.get("name") or extra.get("targetName") or "") for extra in extras]


def _expressions(document: Mapping[str, Any], where: Mapping[int, list[int]]) -> Iterator[MorphBinding]:
    """Yield what the expressions of a VRM under ARKit names move."""
    extensions = document.get("extensions", {})
    for group in extensions.get("VRM", {}).get("blendShapeMaster", {}).get("blendShapeGroups", []):
        if found := match_action(group.get("name", "")):
            for bind in group.get("binds") or []:
                for node in where.get(bind["mesh"], []):
                    yield MorphBinding(node, bind["index"], arkit.INDEX[found[0]], bind["weight"] / 100)
    expressions = extensions.get("VRMC_vrm", {}).get("expressions", {})
    for name, expression in (expressions.get("custom") or {}).items():
        if found := match_action(name):
            for bind in expression.get("morphTargetBinds") or []:
                yield MorphBinding(bind["node"], bind["index"], arkit.INDEX[found[0]], bind["weight"])


def _nothing(document: Mapping[str, Any]) -> str:
    names = [name for mesh in document.get("meshes", []) for name in _target_names(mesh) if name]
    if not names:
        return "no morph target with a name. Export shape keys together with their names."
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"none of the 52 ARKit names among its morph targets ({', '.join(names[:_NAMED])}{more}). "
        "Rename them after the actions, such as jawOpen."
    )
