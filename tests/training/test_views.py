"""Views of faces: what is moved, turned and mirrored in a picture is so in its labels."""

import numpy as np
import pytest
import torch

from semanticface.arkit import INDEX, N_ACTIONS, POSE_NAMES
from semanticface.models import nano
from semanticface.rendering.types import POINTS
from semanticface.training import views
from semanticface.training.nano_vision import Faces


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.setattr(views, "augment", lambda images, rng: images)


def dots(margin: float = 1.0, count: int = 40) -> Faces:
    """Pictures of one white dot each, at the landmark noseTip; the left eye blinks and the head is turned."""
    side = round(nano.IMAGE_SIZE * margin)
    pixels = np.zeros((count, side, side, 3), np.uint8)
    row, column = round(0.55 * side), round(0.4 * side)
    pixels[:, row - 2 : row + 3, column - 2 : column + 3] = 255
    points = np.full((count, len(POINTS), 2), np.nan, np.float32)
    points[:, POINTS.index("noseTip")] = (column + 0.5) / side, (row + 0.5) / side
    coefficients = np.zeros((count, N_ACTIONS), np.float32)
    coefficients[:, INDEX["eyeBlinkLeft"]] = 1
    known = np.ones((count, N_ACTIONS), bool)
    known[:, INDEX["jawLeft"]] = False
    pose = np.zeros((count, len(POSE_NAMES)), np.float32)
    pose[:, 0], pose[:, 3] = 0.5, 0.25
    return Faces(pixels, coefficients, known, points, pose, margin)


@pytest.mark.parametrize("margin", [1.0, 1.25])
def test_labels_follow_the_picture(plain, margin):
    faces = dots(margin)
    found = views.make_views(faces, np.arange(len(faces)), torch.Generator().manual_seed(0))
    assert found.images.shape == (len(faces), 3, nano.IMAGE_SIZE, nano.IMAGE_SIZE)
    light = (found.images.mean(1) + 1) / 2
    total = light.sum((1, 2))
    centres = torch.arange(nano.IMAGE_SIZE) + 0.5
    seen = torch.stack([(light.sum(1) * centres).sum(1) / total, (light.sum(2) * centres).sum(1) / total], 1)
    expected = found.points[:, POINTS.index("noseTip")] * nano.IMAGE_SIZE
    torch.testing.assert_close(seen, expected, atol=0.5, rtol=0)
    assert expected.std(0).min() > 1  # views differ
    mirrored = found.mirrored
    assert 0 < mirrored.sum() < len(faces)
    assert torch.equal(found.coefficients[:, INDEX["eyeBlinkRight"]] == 1, mirrored)
    assert torch.equal(found.coefficients[:, INDEX["eyeBlinkLeft"]] == 1, ~mirrored)
    assert torch.equal(~found.known[:, INDEX["jawRight"]], mirrored)
    torch.testing.assert_close(found.pose[:, 0], torch.where(mirrored, -0.5, 0.5))
    torch.testing.assert_close(found.pose[:, 6], torch.where(mirrored, -0.25, 0.0))


def test_a_turned_view_turns_the_head(plain):
    """The line of the eyes falls as far as the roll says."""
    faces = dots()
    for name, x in (("eyeRightOuter", 0.3), ("eyeLeftOuter", 0.7)):
        faces.points[:, POINTS.index(name)] = x, 0.5
    found = views.make_views(faces, np.arange(len(faces)), torch.Generator().manual_seed(1))
    right, left = (found.points[:, POINTS.index(name)] for name in ("eyeRightOuter", "eyeLeftOuter"))
    falls = torch.atan2(left[:, 1] - right[:, 1], left[:, 0] - right[:, 0])
    torch.testing.assert_close(falls, found.pose[:, 2], atol=1e-4, rtol=0)
    assert falls.abs().max() > 0.1


def test_degraded_pictures_stay_in_range_and_are_repeatable():
    pictures = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    one, other = (views.augment(pictures.clone(), torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, other)
    assert one.abs().max() <= 1
    assert not torch.equal(one, pictures)
