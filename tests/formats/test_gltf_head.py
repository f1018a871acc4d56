"""The animated head: valid glTF, the rig's shapes under the 52 names, the take's times."""

import io

import numpy as np
import pytest
from PIL import Image

from semanticface import arkit
from semanticface.cli.main import main
from semanticface.formats import live_link
from semanticface.formats.live_link import LiveLinkRow
from semanticface.rendering.head.rig import rig
from tests.helpers.glb_reader import animated, load


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    folder = tmp_path_factory.mktemp("head")
    rng = np.random.default_rng(3)
    values = rng.uniform(0, 1, (5, 52))
    codes = [f"10:00:00:{frame:06.3f}" for frame in (40, 42, 44, 48.5, 50)]
    live_link.write(folder / "a.csv", map(LiveLinkRow, codes, values, np.zeros((5, 9))))
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
