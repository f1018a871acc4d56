"""Binary glTF: files round-trip, and other files are rejected with a reason."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semanticface.errors import SemanticFaceError
from semanticface.formats import gltf
from semanticface.formats.gltf import Glb


def raw(document, binary=b"", *, version=2):
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    out = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
    return struct.pack("<4sII", b"glTF", version, 12 + len(out)) + out


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_views_are_aligned_and_keep_their_bytes(lengths, tmp_path_factory):
    path = tmp_path_factory.mktemp("g") / "a.glb"
    glb = Glb()
    for number, length in enumerate(lengths):
        assert glb.view(bytes([number]) * length) == number
    glb.write(path)
    data = path.read_bytes()
    text, _ = struct.unpack_from("<II", data, 12)
    binary = data[28 + text :]
    document = json.loads(data[20 : 20 + text])
    assert len(data) == struct.unpack_from("<I", data, 8)[0] and len(data) % 4 == 0
    for number, view in enumerate(document["bufferViews"]):
        start = view["byteOffset"]
        assert start % 4 == 0 and binary[start : start + view["byteLength"]] == bytes([number]) * lengths[number]


def test_a_rewritten_file_keeps_its_bytes_and_grows(tmp_path):
    document = {"asset": {"version": "2.0"}, "buffers": [{"byteLength": 5}], "extensions": {"VRM": {"meta": "ü"}}}
    (tmp_path / "a.vrm").write_bytes(raw(document, b"abcde\0\0\0"))
    glb = gltf.read(tmp_path / "a.vrm")
    assert glb.document == document
    glb.accessor(np.arange(3, dtype=np.uint16))
    glb.write(tmp_path / "b.vrm")
    again = gltf.read(tmp_path / "b.vrm")
    assert again.document["extensions"] == document["extensions"]
    (view,) = again.document["bufferViews"]
    assert view["byteOffset"] == 8 and again.document["buffers"] == [{"byteLength": 16}]


def test_sparse_rows_and_their_bounds():
    glb = Glb()
    values = np.zeros((6, 3), np.float32)
    values[4] = 0.5, 1, 2
    values[1] = 1e-6
    glb.sparse(values, 1e-3, bounds=True)
    glb.sparse(values * 0, 1e-3, bounds=True)
    some, none = glb.document["accessors"]
    assert some["sparse"]["count"] == 1 and (some["min"], some["max"]) == ([0, 0, 0], [0.5, 1, 2])
    assert "sparse" not in none and "bufferView" not in none and none["max"] == [0, 0, 0]
    glb.sparse(values[4:5], 1e-3, bounds=True)
    assert glb.document["accessors"][2]["min"] == [0.5, 1, 2]


def test_times_equal_in_float32_are_merged():
    glb = Glb()
    glb.animate("take", np.array([0, 40000, 40000.0001]), {3: np.zeros((3, 2), np.float32)})
    assert [item["count"] for item in glb.document["accessors"]] == [2, 4]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"Kaydara FBX Binary", "Export the avatar as .glb"),
        (raw({}, version=1), "not glTF 2.0"),
        (raw({})[:30], "damaged"),
        (raw([]), "damaged"),
        (raw({"scale": float("nan")}), "damaged"),
        (b"glTF", "damaged"),
    ],
)
def test_other_files_are_rejected(tmp_path, data, word):
    (tmp_path / "a.glb").write_bytes(data)
    with pytest.raises(SemanticFaceError, match=word) as caught:
        gltf.read(tmp_path / "a.glb")
    assert "a.glb" in str(caught.value)


def test_missing_and_oversized_files(tmp_path, monkeypatch):
    with pytest.raises(SemanticFaceError, match="Check the path"):
        gltf.read(tmp_path / "a.glb")
    monkeypatch.setattr(gltf, "MAX_BYTES", 3)
    (tmp_path / "a.glb").write_bytes(raw({}))
    with pytest.raises(SemanticFaceError, match="smaller avatar"):
        gltf.read(tmp_path / "a.glb")
