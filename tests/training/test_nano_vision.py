"""Crops as arrays: every row of every folder, in order, decoded once."""

import datasets
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from semanticface.data.faces import FEATURES
from semanticface.errors import DatasetError
from semanticface.models import nano
from semanticface.rendering.types import POINTS
from semanticface.training import nano_vision
from semanticface.vision.crop import Box, crop_face
from tests.helpers.tiny_models import faces


def crops(folder, count, seed):
    rng = np.random.default_rng(seed)
    columns = {
        "picture": [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(count)],
        "coefficients": rng.random((count, 52)),
        "subject": ["a"] * count,
        "answer": [""] * count,
        "points": rng.random((count, len(POINTS), 2)) * 64,
    }
    kept = datasets.Features({name: FEATURES[name] for name in columns})
    split = datasets.Dataset.from_dict({name: list(values) for name, values in columns.items()}, features=kept)
    datasets.DatasetDict({"train": split}).save_to_disk(str(folder))
    return folder, columns


def test_rows_of_several_folders_are_read_in_order_and_once(tmp_path, monkeypatch):
    (first, one), (second, other) = crops(tmp_path / "one", 3, 0), crops(tmp_path / "other", 2, 1)
    found = nano_vision.read_faces([first, second], "train", tmp_path / "kept", Accelerator(cpu=True))
    assert found.pixels.shape == (5, nano.IMAGE_SIZE, nano.IMAGE_SIZE, 3)
    np.testing.assert_allclose(found.coefficients, [*one["coefficients"], *other["coefficients"]], atol=1e-6)
    np.testing.assert_allclose(found.points, np.concatenate([one["points"], other["points"]]) / 64, atol=1e-6)
    expected = np.asarray(crop_face(other["picture"][1], Box(0, 0, 64, 64), nano.IMAGE_SIZE))
    np.testing.assert_array_equal(found.pixels[4], expected)

    monkeypatch.setattr(nano_vision, "atomic_path", None)  # nothing may be written again
    again = nano_vision.read_faces([first, second], "train", tmp_path / "kept", Accelerator(cpu=True))
    np.testing.assert_array_equal(again.pixels, found.pixels)


def test_faces_without_landmarks_are_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"plain has no column points\. Make it with `semanticface render-faces"):
        nano_vision.read_faces([faces(tmp_path / "plain")], "train", tmp_path / "kept", Accelerator(cpu=True))


def test_mirrored_maps_are_those_of_mirror_images():
    layer = torch.nn.Conv2d(3, 2, 3)

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, images):
            return type("Output", (), {"last_hidden_state": self.layer(images)})

    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    (plain,) = nano_vision.feature_maps(Encoder(), pixels[:, :, ::-1])
    (mirrored,) = nano_vision.feature_maps(Encoder(), pixels, mirrored=True)
    assert mirrored.dtype == torch.float32
    torch.testing.assert_close(mirrored, plain)
