"""A binary glTF reader that shares nothing with the library and checks the specification.

``load(path)`` fails on the first violation of the glTF 2.0 specification in files like ours: chunk lengths, alignment,
bounds, index ranges, ``min`` and ``max``, morph targets, animations.
"""

import json
import struct

import numpy as np

TYPES = {5121: "<u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTH = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


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
        times, weights = arrays[sampler["input"]].ravel(), arrays[sampler["output"]].ravel()
        assert times[0] >= 0 and (np.diff(times) > 0).all()
        assert {"min", "max"} <= document["accessors"][sampler["input"]].keys()
        assert channel["target"]["path"] == "weights"
        mesh = document["meshes"][document["nodes"][channel["target"]["node"]]["mesh"]]
        assert len(weights) == len(times) * len(mesh["primitives"][0]["targets"])


def animated(document, arrays, node):
    """Return (times, weights [T, targets]) of a node."""
    for channel in document["animations"][-1]["channels"]:
        if channel["target"]["node"] == node:
            sampler = document["animations"][-1]["samplers"][channel["sampler"]]
            times = arrays[sampler["input"]].ravel()
            return times, arrays[sampler["output"]].reshape(len(times), -1)
    raise AssertionError(f"node {node} is not animated")
