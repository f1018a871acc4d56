"""Retargeting: name spellings, VRM expressions, missing actions; everything else in the avatar is unchanged."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semanticface import arkit
from semanticface.cli.main import main
from semanticface.formats import gltf, live_link
from semanticface.formats.bones import find_bones, match_bone
from semanticface.formats.live_link import LiveLinkRow
from semanticface.formats.retarget import find_bindings, match_action
from semanticface.rendering.camera import rotation_matrix
from tests.helpers.glb_reader import animated, load, world


def snake(name):
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


SPELLINGS = {
    "camel": str,
    "pascal": arkit.PASCAL_CASE.get,
    "snake": snake,
    "suffixed": arkit.SUFFIXED.get,
    "upper": lambda name: snake(name).upper(),
    "dotted": lambda name: arkit.SUFFIXED[name].replace("_", "."),
    "numbered": lambda name: f"A25_{snake(name)}",
    "vroid": lambda name: f"Fcl_{arkit.PASCAL_CASE[name]}",
    "maya": lambda name: f"blendShape1.{name}",
    "rig": lambda name: f"rig_head:{name}",
    "copy": lambda name: f"{name}.001",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_action_matches_in_every_spelling(spelling):
    assert [match_action(SPELLINGS[spelling](name))[0] for name in arkit.NAMES] == list(arkit.NAMES)


@pytest.mark.parametrize("name", ["Basis", "", "Fcl_MTH_A", "jawOpen_mouthClose", "blink_l", "vrc.v_aa", "smileLeft"])
def test_other_names_do_not_match(name):
    assert match_action(name) is None


@given(st.text(max_size=30))
def test_any_name_can_be_matched(name):
    found = match_action(name)
    assert found is None or found[0] in arkit.INDEX


def write_avatar(path, names, *, location="mesh", extensions=None, nodes=1):
    """Write a triangle with morph targets, like other programs do."""
    triangle = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")
    shifts = [np.full((3, 3), n + 1, "<f4") for n in range(len(names))]
    normal = np.tile(np.array([0, 0, 1], "<f4"), (3, 1))
    corners = np.array([0, 1, 2], "<u2").tobytes() + b"\0\0"
    arrays = [triangle, *shifts, normal]
    binary = b"".join(array.tobytes() for array in arrays) + corners
    views = [{"buffer": 0, "byteOffset": 36 * n, "byteLength": 36} for n in range(len(arrays))]
    views.append({"buffer": 0, "byteOffset": 36 * len(arrays), "byteLength": 6})
    accessors = [
        {"bufferView": n, "componentType": 5126, "count": 3, "type": "VEC3",
         "min": array.min(0).tolist(), "max": array.max(0).tolist()}
        for n, array in enumerate(arrays)
    ]  # fmt: skip
    accessors.append({"bufferView": len(arrays), "componentType": 5123, "count": 3, "type": "SCALAR"})
    targets = [{"POSITION": 1 + n} for n in range(len(names))]
    part = {"attributes": {"POSITION": 0, "NORMAL": len(arrays) - 1}, "indices": len(arrays), "material": 0,
            "targets": targets}  # fmt: skip
    mesh = {"primitives": [part], "weights": [0.0] * len(names)}
    if location == "target":
        for target, name in zip(targets, names, strict=True):
            target["extra"] = {"name": name}
    elif location == "accessor":
        for target, name in zip(targets, names, strict=True):
            accessors[target["POSITION"]]["name"] = name
    else:
        (mesh if location == "mesh" else part)["extras"] = {"targetNames": names}
    document = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": list(range(nodes))}],
        "nodes": [{"mesh": 0} for _ in range(nodes)], "meshes": [mesh], "materials": [{"name": "robot"}],
        "accessors": accessors, "bufferViews": views, "buffers": [{"byteLength": len(binary)}],
    }  # fmt: skip
    if extensions:
        document |= {"extensions": extensions, "extensionsUsed": list(extensions)}
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    return document


@pytest.fixture
def take(tmp_path):
    rows = np.random.default_rng(5).uniform(0, 1, (4, 52)).round(6)
    codes = [f"00:00:00:{frame:06.3f}" for frame in (0, 1, 2, 4)]
    live_link.write(tmp_path / "take.csv", map(LiveLinkRow, codes, rows, np.zeros((4, 9))))
    return tmp_path / "take.csv", rows


def convert(take, tmp_path, avatar="avatar.glb", out="out.glb"):
    return main(["convert", str(take), "--to", "glb", "--avatar", str(tmp_path / avatar), "--out",
                     str(tmp_path / out)])  # fmt: skip


def test_an_avatar_with_all_52_in_another_order(take, tmp_path, capsys):
    path, rows = take
    order = np.random.default_rng(1).permutation(52)
    names = [f"Fcl_{arkit.PASCAL_CASE[arkit.NAMES[k]]}" for k in order]
    before = write_avatar(tmp_path / "avatar.glb", [*names, "smirk"])
    assert convert(path, tmp_path) == 0 and "no morph target" not in capsys.readouterr().err
    document, arrays, _ = load(tmp_path / "out.glb")
    times, weights = animated(document, arrays, 0)
    assert np.allclose(times, np.array([0, 1, 2, 4]) / 30)
    assert np.allclose(weights[:, :52], rows[:, order]) and not weights[:, 52].any()
    for key in ("nodes", "meshes", "materials", "scenes"):
        assert document[key] == before[key]
    assert document["accessors"][: len(before["accessors"])] == before["accessors"]


def test_targets_without_an_action_keep_their_weight(take, tmp_path):
    def rest(document):
        document["meshes"][0]["weights"] = [0.0] * 52 + [1.5]

    write_avatar(tmp_path / "avatar.glb", [*arkit.NAMES, "wide"])
    rewrite(tmp_path / "avatar.glb", rest)
    assert convert(take[0], tmp_path) == 0
    document, arrays, _ = load(tmp_path / "out.glb")
    assert (animated(document, arrays, 0)[1][:, 52] == 1.5).all()


def test_an_avatar_with_external_images(take, tmp_path, capsys):
    def paint(document):
        document["images"] = [{"uri": "skin.png"}]

    write_avatar(tmp_path / "avatar.glb", list(arkit.NAMES))
    rewrite(tmp_path / "avatar.glb", paint)
    assert convert(take[0], tmp_path) == 2
    assert "it refers to external files" in capsys.readouterr().err


def rewrite(path, change):
    """Change an avatar's JSON."""
    glb = gltf.read(path)
    change(glb.document)
    glb.write(path)


def test_missing_actions_are_reported(take, tmp_path, capsys):
    write_avatar(tmp_path / "avatar.glb", [name for name in arkit.NAMES if name not in ("tongueOut", "cheekPuff")])
    assert convert(take[0], tmp_path) == 0
    assert "avatar.glb: no morph target for cheekPuff, tongueOut (2 of 52 actions)" in capsys.readouterr().err


def test_the_best_name_and_both_halves(take, tmp_path):
    path, rows = take
    names = ["old_jawOpen", "jawOpen", "browInnerUp_L", "browInnerUp_R", "cheekPuff", "cheekPuff_L"]
    write_avatar(tmp_path / "avatar.glb", names, nodes=2)
    assert convert(path, tmp_path) == 0
    document, arrays, _ = load(tmp_path / "out.glb")
    jaw, brow, puff = (rows[:, arkit.INDEX[name]] for name in ("jawOpen", "browInnerUp", "cheekPuff"))
    for node in (0, 1):
        _, weights = animated(document, arrays, node)
        assert np.allclose(weights.T, [jaw * 0, jaw, brow, brow, puff, puff * 0])


@pytest.mark.parametrize("version", [0, 1])
def test_vrm_expressions_are_used(take, tmp_path, version):
    path, rows = take
    if version == 0:
        binds = [{"mesh": 0, "index": 0, "weight": 50}, {"mesh": 0, "index": 2, "weight": 100}]
        groups = [{"name": "JawOpen", "binds": binds}, {"name": "Joy", "binds": binds}, {"name": "TongueOut"}]
        extensions = {"VRM": {"blendShapeMaster": {"blendShapeGroups": groups}}}
    else:
        binds = [{"node": 0, "index": 0, "weight": 0.5}, {"node": 0, "index": 2, "weight": 1}]
        custom = {"jawOpen": {"morphTargetBinds": binds}, "tongueOut": {}}
        extensions = {"VRMC_vrm": {"expressions": {"preset": {"happy": {"morphTargetBinds": binds}}, "custom": custom}}}
    write_avatar(tmp_path / "avatar.vrm", ["mouth1", "jawOpen", "teeth", "tongueOut"], extensions=extensions)
    assert convert(path, tmp_path, "avatar.vrm", "out.vrm") == 0
    document, arrays, _ = load(tmp_path / "out.vrm")
    _, weights = animated(document, arrays, 0)
    jaw, tongue = (rows[:, arkit.INDEX[name]] for name in ("jawOpen", "tongueOut"))
    assert np.allclose(weights.T, [jaw * 0.5, jaw * 0, jaw, tongue], atol=1e-6)
    assert document["extensions"] == extensions


@pytest.mark.parametrize("location", ["mesh", "primitive", "target", "accessor"])
def test_names_in_every_exporter_location(tmp_path, location):
    document = write_avatar(tmp_path / "avatar.glb", ["jawOpen", "noseSneer_L"], location=location)
    assert [drive.action for drive in find_bindings(document)] == [arkit.INDEX["jawOpen"], arkit.INDEX["noseSneerLeft"]]


def test_unusable_avatars(take, tmp_path, capsys):
    write_avatar(tmp_path / "avatar.glb", ["Fcl_MTH_A", "Fcl_MTH_I"])
    assert convert(take[0], tmp_path) == 2
    assert "(found Fcl_MTH_A, Fcl_MTH_I)" in capsys.readouterr().err
    write_avatar(tmp_path / "avatar.glb", [])
    assert convert(take[0], tmp_path) == 2
    assert "no named morph target" in capsys.readouterr().err
    write_avatar(tmp_path / "avatar.glb", ["jawOpen"])
    rewrite(tmp_path / "avatar.glb", lambda document: document["meshes"].clear())
    assert convert(take[0], tmp_path) == 2
    error = capsys.readouterr().err
    assert "avatar.glb: its glTF is damaged: a mesh, node or accessor is missing" in error and "Error(" not in error
    assert not (tmp_path / "out.glb").exists()
    assert convert(take[0], tmp_path, out="avatar.glb") == 2
    assert main(["convert", str(take[0]), "--to", "csv", "--avatar", "a.glb", "--out", str(tmp_path / "a.csv")]) == 2


RIGS = {
    "ready player me": ("Head", "LeftEye", "RightEye"),
    "mixamo": ("mixamorig:Head", "mixamorig:LeftEye", "mixamorig:RightEye"),
    "mixamo in three.js": ("mixamorigHead", "mixamorigLeftEye", "mixamorigRightEye"),
    "character creator": ("CC_Base_Head", "CC_Base_L_Eye", "CC_Base_R_Eye"),
    "vroid": ("J_Bip_C_Head", "J_Adj_L_FaceEye", "J_Adj_R_FaceEye"),
    "blender": ("head", "eye.L", "eye.R"),
    "rigify": ("DEF-head", "DEF-eye.L", "DEF-eye.R"),
    "biped": ("Bip001 Head", "Bip001 LEye", "Bip001 REye"),
    "unity": ("head", "eye_left", "eye_right"),
    "plain": ("HEAD", "lefteye", "righteye"),
    "eyeballs": ("Head.001", "EyeballL", "EyeballR"),
}


@pytest.mark.parametrize("names", RIGS.values(), ids=RIGS)
def test_bones_of_common_rigs(names):
    assert [match_bone(name) for name in names] == ["head", "left eye", "right eye"]


@pytest.mark.parametrize(
    "name", ["HeadTop_End", "head_end", "Headphones", "Wolf3D_Head", "eye", "LeftEye_end", "eyebrow.L", "lid.T.L", "",
             "Ahead", "LeftEyeRight", "EyelashLeft"]
)  # fmt: skip
def test_other_bones_do_not_match(name):
    assert match_bone(name) is None


@given(st.text(max_size=30))
def test_any_bone_can_be_matched(name):
    assert match_bone(name) in (None, "head", "left eye", "right eye")


POSE = [0.4, 0.2, -0.3, 0.1, -0.2, 0, 0.3, -0.2, 0]
SQUARE = float(np.sqrt(0.5))


@pytest.fixture
def turned(tmp_path):
    """A take in which the head and the eyes turn."""
    rows = np.zeros((2, 52))
    rows[1, arkit.INDEX["eyeLookUpLeft"]] = 1
    poses = np.array([[0.01] * 9, POSE])
    live_link.write(tmp_path / "take.csv", map(LiveLinkRow, ["00:00:00:00.000", "00:00:00:01.000"], rows, poses))
    return tmp_path / "take.csv"


def give_bones(path, names, *, extensions=None, matrix=False):
    """Add a skeleton whose armature stands on its side, as Blender and FBX converters write it."""

    def change(document):
        first = len(document["nodes"])
        leaning = {"rotation": [-SQUARE, 0.0, 0.0, SQUARE]}
        if matrix:
            leaning = {"matrix": [1.0, 0, 0, 0, 0, 0, -1, 0, 0, 1, 0, 0, 0, 0, 0, 1]}
        bones = [{"name": name, "rotation": [0.0, 0.6, 0.0, 0.8]} for name in names]
        if matrix:
            bones[0] = {"name": names[0], "matrix": [0.0, 2, 0, 0, -2, 0, 0, 0, 0, 0, 2, 0, 1, 2, 3, 1]}
        document["nodes"] += [{"name": "Armature", **leaning, "children": [first + 1]}, *bones]
        bones[0]["children"] = [first + 2 + n for n in range(len(bones) - 1)]
        document["scenes"][0]["nodes"].append(first)
        document["extensions"] = (extensions or (lambda _: {}))(first + 1)

    rewrite(path, change)


def moved(document, arrays, name):
    """Return the rotation of a bone against its rest in the avatar's axes, [3, 3]."""
    (node,) = [n for n, item in enumerate(document["nodes"]) if item.get("name") == name]
    before, after = (world(document, arrays, row)[node, :3, :3] for row in (None, 1))
    return after @ np.linalg.inv(before)


@pytest.mark.parametrize("matrix", [False, True])
@pytest.mark.parametrize("gaze", [False, True])
def test_the_head_turns_and_the_eyes_once(turned, tmp_path, capsys, gaze, matrix):
    names = [name for name in arkit.NAMES if gaze or "eyeLook" not in name]
    write_avatar(tmp_path / "avatar.glb", names)
    give_bones(tmp_path / "avatar.glb", RIGS["mixamo"], matrix=matrix)
    assert convert(turned, tmp_path) == 0
    assert "no " not in capsys.readouterr().err
    document, arrays, _ = load(tmp_path / "out.glb")
    yaw, pitch, roll = np.degrees(POSE[:3]) * (-1, -1, 1)
    head = moved(document, arrays, "mixamorig:Head")
    assert np.allclose(head, rotation_matrix(yaw, pitch, roll), atol=1e-6)
    for name, (yaw, pitch) in {"LeftEye": POSE[3:5], "RightEye": POSE[6:8]}.items():
        looks = head.T @ moved(document, arrays, f"mixamorig:{name}") @ (0, 0, 1)
        wanted = (-np.sin(yaw) * np.cos(pitch), -np.sin(pitch), np.cos(yaw) * np.cos(pitch))
        assert np.allclose(looks, (0, 0, 1) if gaze else wanted, atol=1e-6)


def test_eyes_follow_the_actions_of_a_take_without_rotations(take, tmp_path, capsys):
    write_avatar(tmp_path / "avatar.glb", [name for name in arkit.NAMES if "eyeLook" not in name])
    give_bones(tmp_path / "avatar.glb", RIGS["blender"])
    assert convert(take[0], tmp_path) == 0
    assert "no " not in capsys.readouterr().err
    document, arrays, _ = load(tmp_path / "out.glb")
    (yaw, pitch), _ = np.radians(arkit.gaze_degrees(take[1][1]))
    looks = moved(document, arrays, "eye.L") @ (0, 0, 1)
    assert np.allclose(looks, (np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)), atol=1e-6)
    assert np.allclose(moved(document, arrays, "head"), np.eye(3))


@pytest.mark.parametrize("version", [0, 1])
def test_the_bones_of_a_vrm(turned, tmp_path, version):
    def extensions(first):
        names = zip(("head", "leftEye", "rightEye"), range(first, first + 3), strict=True)
        if version:
            return {"VRMC_vrm": {"humanoid": {"humanBones": {name: {"node": node} for name, node in names}}}}
        return {"VRM": {"humanoid": {"humanBones": [{"bone": name, "node": node} for name, node in names]}}}

    write_avatar(tmp_path / "avatar.vrm", ["jawOpen"])
    give_bones(tmp_path / "avatar.vrm", ["a", "b", "c"], extensions=extensions)
    assert convert(turned, tmp_path, "avatar.vrm", "out.vrm") == 0
    document, arrays, _ = load(tmp_path / "out.vrm")
    yaw, pitch, roll = np.degrees(POSE[:3]) * (-1, -1, 1)
    around = np.diag([1, 1, 1] if version else [-1, 1, -1])  # a VRM 0 looks along -z
    assert np.allclose(moved(document, arrays, "a"), around @ rotation_matrix(yaw, pitch, roll) @ around, atol=1e-6)


def test_missing_bones_are_reported_once(turned, tmp_path, capsys):
    write_avatar(tmp_path / "avatar.glb", ["jawOpen"])
    assert convert(turned, tmp_path) == 0
    error = capsys.readouterr().err
    assert error.count("no bone for the head, the left eye, the right eye") == 1


def test_a_rig_without_morph_targets_turns_its_head(turned, tmp_path, capsys):
    write_avatar(tmp_path / "avatar.glb", [])
    give_bones(tmp_path / "avatar.glb", RIGS["mixamo"])
    assert convert(turned, tmp_path) == 0
    assert "(44 of 52 actions)" in capsys.readouterr().err
    document, _, _ = load(tmp_path / "out.glb")
    assert len(document["animations"][0]["channels"]) == 3


def test_skinned_meshes_and_odd_spellings_are_no_bones():
    nodes = [{"name": "EyeLeft", "skin": 0}, {"name": "Head", "mesh": 0}, {"name": "rig_head"}, {"name": "LeftEye"}]
    assert find_bones({"nodes": nodes, "skins": [{"joints": [2]}]}) == {"head": 2, "left eye": 3}


def weights_of(path, node=0):
    """The animated weights of a node, [targets, T], also of meshes whose names do not fit."""
    glb = gltf.read(path)
    animation = glb.document["animations"][-1]
    (channel,) = [
        channel for channel in animation["channels"] if channel["target"] == {"node": node, "path": "weights"}
    ]
    item = glb.document["accessors"][animation["samplers"][channel["sampler"]]["output"]]
    view = glb.document["bufferViews"][item["bufferView"]]
    values = np.frombuffer(bytes(glb._binary), "<f4", item["count"], view["byteOffset"])
    return values.reshape(4, -1).T


def test_names_on_accessors_in_every_mesh(take, tmp_path):
    def second(document):
        document["meshes"].append(json.loads(json.dumps(document["meshes"][0])))
        document["nodes"].append({"mesh": 1})
        document["scenes"][0]["nodes"].append(1)

    path, rows = take
    names = ["jawOpen", "eyeBlinkLeft", "browInnerUp"]
    write_avatar(tmp_path / "avatar.glb", names, location="accessor")
    rewrite(tmp_path / "avatar.glb", second)
    assert convert(path, tmp_path) == 0
    for node in (0, 1):
        assert np.allclose(weights_of(tmp_path / "out.glb", node), [rows[:, arkit.INDEX[name]] for name in names])


@pytest.mark.parametrize("rest", ["Basis", "neutral", "Basis_Shape"])
def test_a_leading_name_of_the_rest_shape_is_no_target(take, tmp_path, rest):
    path, rows = take
    names = ["jawOpen", "eyeBlinkLeft", "browInnerUp"]
    write_avatar(tmp_path / "avatar.glb", names)
    rewrite(tmp_path / "avatar.glb", lambda document: document["meshes"][0]["extras"]["targetNames"].insert(0, rest))
    assert convert(path, tmp_path) == 0
    assert np.allclose(weights_of(tmp_path / "out.glb"), [rows[:, arkit.INDEX[name]] for name in names])


@pytest.mark.parametrize("names", [["jawOpen", "smirk", "eyeBlinkLeft", "x"], ["jawOpen", "smirk"]])
def test_another_number_of_names_moves_nothing(take, tmp_path, capsys, names):
    def rename(document):
        document["meshes"][0] |= {"name": "Face", "extras": {"targetNames": names}}

    write_avatar(tmp_path / "avatar.glb", ["jawOpen", "smirk", "eyeBlinkLeft"])
    rewrite(tmp_path / "avatar.glb", rename)
    assert convert(take[0], tmp_path) == 2
    error = capsys.readouterr().err
    assert f"avatar.glb: mesh Face: {len(names)} names for 3 morph targets" in error
    assert "the names of its morph targets do not fit their number" in error and not (tmp_path / "out.glb").exists()


def test_an_action_twice_in_a_mesh_moves_both(take, tmp_path, capsys):
    path, rows = take
    write_avatar(tmp_path / "avatar.glb", ["jawOpen", "jawOpen", "browInnerUp", "jawOpen.001", "lash_jawOpen"])
    assert convert(path, tmp_path) == 0
    jaw, brow = (rows[:, arkit.INDEX[name]] for name in ("jawOpen", "browInnerUp"))
    assert np.allclose(weights_of(tmp_path / "out.glb"), [jaw, jaw, brow, jaw, jaw * 0])
    assert "mesh 0: not moved, since another name fits better: lash_jawOpen." in capsys.readouterr().err


BINDS = [{"mesh": 0, "node": 0, "index": 0, "weight": 100}]
ODD_GROUPS = [
    None, 3, {}, {"name": None, "binds": []}, {"name": 7, "binds": BINDS}, {"name": "TongueOut", "binds": 3},
    {"name": "CheekPuff", "binds": [{}]}, {"name": "NoseSneerLeft", "binds": [{**BINDS[0], "weight": "1"}, None]},
    {"name": "MouthClose", "binds": [{**BINDS[0], "mesh": [0], "node": [0]}]}, {"name": "JawLeft", "binds": None},
]  # fmt: skip


@pytest.mark.parametrize("version", [0, 1])
def test_odd_vrm_expressions_are_left_out(take, tmp_path, capsys, version):
    path, rows = take
    groups = [*ODD_GROUPS, {"name": "JawOpen", "binds": BINDS}]
    extensions = {"VRM": {"blendShapeMaster": {"blendShapeGroups": groups}}}
    if version == 1:
        custom = {
            str(group["name"]): {"morphTargetBinds": group.get("binds")}
            for group in groups
            if isinstance(group, dict) and "name" in group and group["name"] != "JawOpen"
        }
        custom["jawOpen"] = {"morphTargetBinds": [{**BINDS[0], "weight": 1.0}]}
        extensions = {"VRMC_vrm": {"expressions": {"custom": custom | {"browInnerUp": None}}}}
    write_avatar(tmp_path / "avatar.vrm", ["k0", "k1", "k2"], extensions=extensions)
    assert convert(path, tmp_path, "avatar.vrm", "out.vrm") == 0
    jaw = rows[:, arkit.INDEX["jawOpen"]]
    assert np.allclose(weights_of(tmp_path / "out.vrm"), [jaw, jaw * 0, jaw * 0], atol=1e-6)
    error = capsys.readouterr().err
    assert "the expression CheekPuff is malformed and left out" in error and "Error" not in error


KEYS = st.sampled_from(["name", "binds", "mesh", "index", "weight"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["jawOpen", "binds"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
    max_leaves=8,
)


@given(JSON)
def test_any_vrm_extension_is_read(value):
    mesh = {"primitives": [{"targets": [{"POSITION": 0}]}], "extras": {"targetNames": ["mouthClose"]}}
    for extensions in (
        {"VRM": value}, {"VRM": {"blendShapeMaster": {"blendShapeGroups": value}}},
        {"VRMC_vrm": {"expressions": {"custom": value}}},
    ):  # fmt: skip
        document = {"nodes": [{"mesh": 0}], "meshes": [mesh], "extensions": extensions}
        assert arkit.INDEX["mouthClose"] in {binding.action for binding in find_bindings(document)}
