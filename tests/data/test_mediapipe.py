"""MediaPipe's Face Landmarker: order of actions and errors. The package is not needed."""

import hashlib
import importlib.metadata
import sys
import types

import numpy as np
import pytest
from PIL import Image

from semanticface import arkit
from semanticface.data.importers import mediapipe
from semanticface.errors import ConfigError, ModelError
from semanticface.rendering.camera import rotation_matrix
from semanticface.rendering.types import POINTS


def test_scores_in_our_order():
    scores = {name: i / 100 for i, name in enumerate(arkit.MEDIAPIPE)}
    vector = mediapipe.vector(scores | {"_neutral": 0.9, "jawOpen": 1.0001})
    assert vector.dtype == np.float32
    assert vector[arkit.INDEX["mouthSmileLeft"]] == np.float32(scores["mouthSmileLeft"])
    assert vector[arkit.INDEX["jawOpen"]] == 1
    assert vector[arkit.INDEX["tongueOut"]] == 0
    assert len(mediapipe.ACTIONS) == 51
    assert "tongueOut" not in mediapipe.ACTIONS
    with pytest.raises(ModelError, match="tongueOut"):
        mediapipe.vector(scores | {"tongueOut": 0.1})


def test_missing_file_or_package(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"gone\.task: No such file.*Download"):
        mediapipe.identity(tmp_path / "gone.task")
    task = tmp_path / "face.task"
    task.write_bytes(b"weights")
    monkeypatch.setattr(mediapipe, "PACKAGE", "no-such-package")
    with pytest.raises(ConfigError, match=r"pip install -c constraints\.txt mediapipe"):
        mediapipe.FaceLandmarker(task)
    monkeypatch.setattr(mediapipe, "PACKAGE", "numpy")
    expected = {"version": importlib.metadata.version("numpy"), "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert mediapipe.identity(task) == expected


MATRIX = np.eye(4)
MATRIX[:3, :3] = 1.5 * rotation_matrix(20, -10, 5)


class Landmarker:
    """A stand-in for MediaPipe's class: every score is the brightness; a black picture has no face."""

    closed = 0

    @classmethod
    def create_from_options(cls, options):
        if "broken" in options.base_options.model_asset_path:
            raise RuntimeError("Unable to open zip archive")
        assert options.output_face_blendshapes
        assert options.output_facial_transformation_matrixes
        assert options.num_faces == 1
        return cls()

    def detect(self, pixels):
        brightness = pixels.data.mean() / 255
        scores = [types.SimpleNamespace(category_name=name, score=brightness) for name in arkit.MEDIAPIPE]
        mesh = [types.SimpleNamespace(x=i / 478, y=0.5, z=0.0) for i in range(478)]
        return types.SimpleNamespace(
            face_blendshapes=[scores] if brightness else [],
            face_landmarks=[mesh],
            facial_transformation_matrixes=[MATRIX],
        )

    def close(self):
        Landmarker.closed += 1


@pytest.fixture
def package(monkeypatch):
    """A stand-in for the parts of the package that are used."""
    top, tasks, python = (types.ModuleType(name) for name in ("mediapipe", "mediapipe.tasks", "mediapipe.tasks.python"))
    record = types.SimpleNamespace
    top.Image, top.ImageFormat = record, record(SRGB="srgb")
    python.BaseOptions = record
    python.vision = record(FaceLandmarker=Landmarker, FaceLandmarkerOptions=record)
    for module in (top, tasks, python):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(mediapipe, "PACKAGE", "numpy")


def test_reading_pictures_with_and_without_a_face(package, tmp_path):
    task = tmp_path / "face.task"
    task.write_bytes(b"")
    with mediapipe.FaceLandmarker(task) as landmarker:
        assert landmarker.read(Image.new("RGB", (8, 8))) is None
        found = landmarker.read(Image.new("L", (8, 8), 51))
        assert found[arkit.INDEX["browInnerUp"]] == pytest.approx(0.2)
        measured = landmarker.measure(Image.new("L", (100, 50), 51))
        closed = Landmarker.closed
    assert np.array_equal(measured.coefficients, found)
    tip = measured.points[POINTS.index("noseTip")]
    np.testing.assert_allclose(tip, [100 * 4 / 478, 25], atol=1e-4)
    assert np.isnan(measured.points[POINTS.index("cheekLeft1")]).all()
    # MediaPipe's upright head looks down a little where ours looks straight ahead.
    np.testing.assert_allclose(np.degrees(measured.pose[:3]) * [-1, -1, 1], [20, -10 + 5.9, 5], atol=1e-3)
    assert Landmarker.closed == closed + 1
    task = tmp_path / "broken.task"
    task.write_bytes(b"")
    with pytest.raises(ModelError, match=r"rejects .*broken\.task: Unable to open zip"):
        mediapipe.FaceLandmarker(task)


def test_only_actions_in_which_it_agrees_with_arkit_are_kept_at_arkits_scale():
    predicted = np.full((2, arkit.N_ACTIONS), 0.2, np.float32)
    values, agreed = mediapipe.to_arkit(predicted)
    known = dict(zip(arkit.NAMES, agreed.tolist(), strict=True))
    assert known["jawOpen"] and known["browDownRight"] and known["eyeLookOutLeft"]
    assert not known["noseSneerLeft"] and not known["tongueOut"] and not known["cheekPuff"]
    assert values[0, arkit.INDEX["browDownLeft"]] == pytest.approx(0.2 * 2.99 + 0.02)
    assert values[:, ~agreed].max() == 0
    assert mediapipe.to_arkit(np.ones(arkit.N_ACTIONS))[0].max() == 1


def test_every_named_vertex_is_a_landmark_and_mirrored():
    assert mediapipe.MESH.keys() <= set(POINTS)
    for name, vertices in mediapipe.MESH.items():
        other = name.replace("Left", "#").replace("Right", "Left").replace("#", "Right")
        assert len(mediapipe.MESH[other]) == len(vertices)


def test_people_of_a_collection_are_unnamed_and_in_groups(tmp_path):
    for number in range(40):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    parts = mediapipe.collect_parts([tmp_path], collection="portraits")
    assert sum(len(part.items) for part in parts) == 40
    assert len(parts) > 5
    assert all(part.subject.startswith("portraits#") for part in parts)
    assert [item.number for item in parts[0].items] == list(range(1, len(parts[0].items) + 1))
