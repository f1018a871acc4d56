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


class Landmarker:
    """A stand-in for MediaPipe's class: every score is the brightness; a black picture has no face."""

    closed = 0

    @classmethod
    def create_from_options(cls, options):
        if "broken" in options.base_options.model_asset_path:
            raise RuntimeError("Unable to open zip archive")
        assert options.output_face_blendshapes
        assert options.num_faces == 1
        return cls()

    def detect(self, pixels):
        brightness = pixels.data.mean() / 255
        scores = [types.SimpleNamespace(category_name=name, score=brightness) for name in arkit.MEDIAPIPE]
        return types.SimpleNamespace(face_blendshapes=[scores] if brightness else [])

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
        closed = Landmarker.closed
    assert Landmarker.closed == closed + 1
    task = tmp_path / "broken.task"
    task.write_bytes(b"")
    with pytest.raises(ModelError, match=r"rejects .*broken\.task: Unable to open zip"):
        mediapipe.FaceLandmarker(task)
