"""A binary glTF reader that shares nothing with the library and checks the specification.

``load(path)`` fails on the first violation of the glTF 2.0 specification in files like ours: chunk lengths, alignment,
bounds, index ranges, ``min`` and ``max``, morph targets, skins, animations. ``world`` places nodes as a player does.
"""

import json
import struct

import numpy as np

TYPES = {5121: "<u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTH = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


def load(path):
    """Return the JSON and every accessor as an array."""
    data = path.read_bytes()
    magic, version, total, first, kind = struct.unpack_from("<4sIIII", data)
    assert (magic, version, total, kind) == (b"glTF", 2, len(data), 0x4E4F534A) and first % 4 == 0
    document = json.loads(data[20 : 20 + first])
    count, kind = struct.unpack_from("<II", data, 20 + first)
    assert kind == 0x004E4942 and count % 4 == 0 and 28 + first + count == len(data)
    binary = data[28 + first :]
    (buffer,) = document["buffers"]
    assert "uri" not in buffer and 0 <= count - buffer["byteLength"] <= 3
    for view in document["bufferViews"]:
        assert view["byteLength"] > 0 and view["byteOffset"] + view["byteLength"] <= buffer["byteLength"]
    arrays = [_array(document, binary, item) for item in document["accessors"]]
    for mesh in document["meshes"]:
        _check_mesh(document, mesh, arrays)
    for node in document["nodes"]:
        if "skin" in node:
            _check_skin(document, node, arrays)
    for animation in document.get("animations", []):
        _check_animation(document, animation, arrays)
    return document, arrays, binary


def _slice(document, binary, at, kind, amount):
    view = document["bufferViews"][at["bufferView"]]
    start = view["byteOffset"] + at.get("byteOffset", 0)
    assert start % np.dtype(kind).itemsize == 0 and "byteStride" not in view
    assert at.get("byteOffset", 0) + amount * np.dtype(kind).itemsize <= view["byteLength"]
    return np.frombuffer(binary, kind, amount, start)


def _array(document, binary, item):
    kind, width, count = TYPES[item["componentType"]], WIDTH[item["type"]], item["count"]
    assert count > 0
    if "bufferView" in item:
        out = _slice(document, binary, item, kind, count * width).reshape(count, width).copy()
    else:
        out = np.zeros((count, width), kind)
    if "sparse" in item:
        sparse = item["sparse"]
        assert 0 < sparse["count"] <= count
        for part in ("indices", "values"):
            assert "target" not in document["bufferViews"][sparse[part]["bufferView"]]
        rows = _slice(document, binary, sparse["indices"], TYPES[sparse["indices"]["componentType"]], sparse["count"])
        assert (np.diff(rows.astype(int)) > 0).all() and rows.max() < count
        out[rows] = _slice(document, binary, sparse["values"], kind, sparse["count"] * width).reshape(-1, width)
    assert np.isfinite(out).all()
    if "min" in item:
        assert np.array_equal(out.min(0), np.array(item["min"], kind))
        assert np.array_equal(out.max(0), np.array(item["max"], kind))
    return out


def _check_mesh(document, mesh, arrays):
    numbers = {len(part.get("targets", [])) for part in mesh["primitives"]}
    assert len(numbers) == 1
    (number,) = numbers
    assert number == len(mesh.get("weights", [])) == len(mesh.get("extras", {}).get("targetNames", []))
    for part in mesh["primitives"]:
        used = part["attributes"]
        amount = len(arrays[used["POSITION"]])
        assert {len(arrays[accessor]) for accessor in used.values()} == {amount}
        assert np.allclose(np.linalg.norm(arrays[used["NORMAL"]], axis=1), 1, atol=1e-4)
        corners = arrays[part["indices"]].ravel()
        assert len(corners) % 3 == 0 and corners.max() < amount
        assert 0 <= part["material"] < len(document["materials"])
        for target in part.get("targets", []):
            assert all(len(arrays[accessor]) == amount for accessor in target.values())
        for accessor in (used["POSITION"], *(target["POSITION"] for target in part.get("targets", []))):
            assert {"min", "max"} <= document["accessors"][accessor].keys()


def _check_animation(document, animation, arrays):
    assert animation["channels"]
    for channel in animation["channels"]:
        sampler = animation["samplers"][channel["sampler"]]
        times, values = arrays[sampler["input"]].ravel(), arrays[sampler["output"]]
        assert times[0] >= 0 and (np.diff(times) > 0).all()
        assert {"min", "max"} <= document["accessors"][sampler["input"]].keys()
        node = document["nodes"][channel["target"]["node"]]
        if channel["target"]["path"] == "rotation":
            assert values.shape == (len(times), 4) and "matrix" not in node
            assert np.allclose(np.linalg.norm(values, axis=1), 1, atol=1e-6)
        else:
            assert channel["target"]["path"] == "weights"
            mesh = document["meshes"][node["mesh"]]
            assert values.size == len(times) * len(mesh["primitives"][0]["targets"])
    targets = [(each["target"]["node"], each["target"]["path"]) for each in animation["channels"]]
    assert len(set(targets)) == len(targets)


def _check_skin(document, node, arrays):
    skin = document["skins"][node["skin"]]
    assert arrays[skin["inverseBindMatrices"]].shape == (len(skin["joints"]), 16)
    assert document["nodes"].index(node) in document["scenes"][document["scene"]]["nodes"]
    for part in document["meshes"][node["mesh"]]["primitives"]:
        joints, weights = (arrays[part["attributes"][name]] for name in ("JOINTS_0", "WEIGHTS_0"))
        assert document["accessors"][part["attributes"]["WEIGHTS_0"]]["normalized"]
        assert joints.shape[1] == weights.shape[1] == 4 and joints.max() < len(skin["joints"])
        assert (weights.sum(1, dtype=int) == 255).all() and not joints[weights == 0].any()


def world(document, arrays, row=None):
    """Return the nodes' matrices [N, 4, 4], at rest or at a row of the last animation."""
    turned = {}
    if row is not None:
        animation = document["animations"][-1]
        for channel in animation["channels"]:
            if channel["target"]["path"] == "rotation":
                values = arrays[animation["samplers"][channel["sampler"]]["output"]]
                turned[channel["target"]["node"]] = values[row]
    out = np.tile(np.eye(4), (len(document["nodes"]), 1, 1))

    def place(index, parent):
        node, own = document["nodes"][index], np.eye(4)
        if "matrix" in node:
            own = np.reshape(node["matrix"], (4, 4)).T
        else:
            x, y, z, w = turned.get(index, node.get("rotation", (0, 0, 0, 1)))
            cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
            own[:3, :3] = (np.eye(3) + 2 * w * cross + 2 * cross @ cross) * node.get("scale", (1, 1, 1))
            own[:3, 3] = node.get("translation", (0, 0, 0))
        out[index] = parent @ own
        for child in node.get("children", []):
            place(child, out[index])

    for root in document["scenes"][document["scene"]]["nodes"]:
        place(root, np.eye(4))
    return out


def animated(document, arrays, node, path="weights"):
    """Return (times, values [T, width]) of a node."""
    for channel in document["animations"][-1]["channels"]:
        if channel["target"] == {"node": node, "path": path}:
            sampler = document["animations"][-1]["samplers"][channel["sampler"]]
            times = arrays[sampler["input"]].ravel()
            return times, arrays[sampler["output"]].reshape(len(times), -1)
    raise AssertionError(f"node {node} is not animated")
