"""The animated head: valid glTF, the rig's shapes under the 52 names, the take's times."""

import io

import numpy as np
import pytest
from PIL import Image

from semanticface import arkit
from semanticface.cli.main import main
from semanticface.formats import live_link
from semanticface.formats.live_link import LiveLinkRow
from semanticface.rendering.camera import rotation_matrix
from semanticface.rendering.head.rig import rig
from tests.helpers.glb_reader import animated, load, world

POSE = np.array(
    [[0.0] * 9, [0.4, 0, 0, 0, 0, 0, 0, 0, 0], [0, 0.3, 0, -0.2, 0.1, 0, 0.3, 0.1, 0],
     [0, 0, 0.35, 0, 0, 0, 0, 0, 0], [0.3, -0.2, -0.25, 0.1, -0.3, 0, 0.1, -0.3, 0]]
)  # fmt: skip


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    folder = tmp_path_factory.mktemp("head")
    rng = np.random.default_rng(3)
    values = rng.uniform(0, 1, (5, 52))
    codes = [f"10:00:00:{frame:06.3f}" for frame in (40, 42, 44, 48.5, 50)]
    live_link.write(folder / "a.csv", map(LiveLinkRow, codes, values, POSE))
    assert main(["convert", str(folder / "a.csv"), "--to", "glb", "--out", str(folder / "a.glb")]) == 0
    return *load(folder / "a.glb"), values, folder / "a.glb"


def face(document):
    (node,) = [n for n, item in enumerate(document["nodes"]) if item["name"] == "Face"]
    return node, document["meshes"][document["nodes"][node]["mesh"]]


def test_the_animation_is_the_take(head):
    document, arrays, _, values, path = head
    node, mesh = face(document)
    assert mesh["extras"]["targetNames"] == list(arkit.NAMES)
    times, weights = animated(document, arrays, node)
    assert np.allclose(times, np.array([0, 2, 4, 8.5, 10]) / 60, atol=1e-6) and np.allclose(weights, values, atol=1e-7)
    assert path.stat().st_size < 3_000_000


def test_every_morph_target_equals_the_rig(head):
    document, arrays, *_ = head
    _, mesh = face(document)
    still, moved = rig().vertices(np.zeros(52)), rig().vertices(np.eye(52))
    place = {tuple(np.round(point, 5)) for point in (still * 0.1).tolist()}
    for number, name in enumerate(arkit.NAMES):
        reach = 0.0
        for part in mesh["primitives"]:
            base = arrays[part["attributes"]["POSITION"]]
            shift = arrays[part["targets"][number]["POSITION"]]
            assert {tuple(np.round(point, 5)) for point in base[:3].astype(float).tolist()} <= place
            reach = max(reach, np.abs(shift).max())
        assert reach == pytest.approx(np.abs(moved[number] - still).max() * 0.1, rel=1e-4), name


def forward(document, arrays, name, row):
    """Return where a joint's x (to its left), y (up) and z (forward) axes point, columns of [3, 3]."""
    (node,) = [n for n, item in enumerate(document["nodes"]) if item["name"] == name]
    return world(document, arrays, row)[node, :3, :3]


def test_the_head_turns_as_the_renderer_turns_it(head):
    document, arrays, *_ = head
    for row, (yaw, pitch, roll) in enumerate(np.degrees(POSE[:, :3]) * (-1, -1, 1)):
        assert np.allclose(forward(document, arrays, "Head", row), rotation_matrix(yaw, pitch, roll), atol=1e-6)
    right, down, shoulder = (forward(document, arrays, "Head", row) for row in (1, 2, 3))
    assert right[0, 2] < -0.3 and down[1, 2] < -0.2 and shoulder[0, 1] > 0.3


def test_the_eyes_turn_once(head):
    document, arrays, _, values, _ = head
    for row in range(len(POSE)):
        for side, name in enumerate(("LeftEye", "RightEye")):
            moved = rig().eye_rotations(values[row].astype(np.float32))[side]  # what the morph targets stand for
            yaw, pitch, _ = POSE[row, 3 + 3 * side : 6 + 3 * side]
            wanted = [-np.sin(yaw) * np.cos(pitch), -np.sin(pitch), np.cos(yaw) * np.cos(pitch)]
            turned = forward(document, arrays, "Head", row).T @ forward(document, arrays, name, row)
            assert np.allclose(turned @ moved @ (0, 0, 1), wanted, atol=1e-5), (row, name)


def test_the_shoulders_stay(head):
    document, arrays, *_ = head
    joints = {document["nodes"][joint]["name"]: n for n, joint in enumerate(document["skins"][0]["joints"])}
    for mesh in document["meshes"]:
        for part in mesh["primitives"]:
            used = {key: arrays[accessor] for key, accessor in part["attributes"].items()}
            share = (used["WEIGHTS_0"] * (used["JOINTS_0"] != joints["Neck"])).sum(1) / 255
            y = used["POSITION"][:, 1]
            assert (share[y > -0.03] > 0.9).all() and (share[y < -0.16] == 0).all()


def test_a_recording_without_rotations_turns_nothing(tmp_path):
    live_link.write(tmp_path / "a.csv", [LiveLinkRow("10:00:00:00.000", np.zeros(52), np.zeros(9))])
    assert main(["convert", str(tmp_path / "a.csv"), "--to", "glb", "--out", str(tmp_path / "a.glb")]) == 0
    document, *_ = load(tmp_path / "a.glb")
    assert [each["target"]["path"] for each in document["animations"][0]["channels"]] == ["weights"]


def test_left_is_the_subjects_left(head):
    document, arrays, *_ = head
    _, mesh = face(document)
    skin = mesh["primitives"][0]
    base = arrays[skin["attributes"]["POSITION"]]
    shift = np.abs(arrays[skin["targets"][arkit.INDEX["mouthSmileLeft"]]["POSITION"]]).sum(1)
    assert (base[:, 0] * shift).sum() / shift.sum() > 0.01


def test_materials_and_textures(head):
    document, arrays, binary, *_ = head
    names = {material["name"] for material in document["materials"]}
    assert {"Skin", "Eyes", "Teeth", "Tongue", "Lashes", "Hair", "Cloth"} <= names
    sizes = []
    for image in document["images"]:
        view = document["bufferViews"][image["bufferView"]]
        data = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
            assert image["mimeType"] == f"image/{picture.format.lower()}"
            sizes.append(picture.size)
            if picture.size[0] == 256:
                iris, white = (np.asarray(picture)[128, x].astype(int) for x in (128, 4))
                assert iris.max() < 60 and white.min() > 150
    assert len(sizes) == 3
    _, mesh = face(document)
    for part in mesh["primitives"]:
        base, normal = (arrays[part["attributes"][name]] for name in ("POSITION", "NORMAL"))
        a, b, c = base[arrays[part["indices"]].reshape(-1, 3)].swapaxes(0, 1)
        outward = (np.cross(b - a, c - a) * normal[arrays[part["indices"]].reshape(-1, 3)[:, 0]]).sum(1)
        assert (outward > 0).mean() > 0.8  # counter-clockwise from outside, as glTF wants it


def test_a_recording_without_coefficients(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text('{"image": "x", "status": "no_face", "reason": "x: none"}\n')
    assert main(["convert", str(tmp_path / "a.jsonl"), "--to", "glb", "--out", str(tmp_path / "a.glb")]) == 2
    assert "no row with coefficients" in capsys.readouterr().err and not (tmp_path / "a.glb").exists()
