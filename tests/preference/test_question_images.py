"""What a question shows: the right person, the right heads, the other half at rest and dark."""

from __future__ import annotations

import dataclasses
import hashlib
import io

import datasets
import numpy as np
import pytest
from PIL import Image

from semanticface.data.faces import load_faces, picture_bytes
from semanticface.errors import PictureError
from semanticface.preference.question_images import QuestionRenderer, dimmed, reference
from semanticface.preference.types import Question
from semanticface.vision.crop import Box, crop_face
from tests.helpers.slates import slates_of
from tests.helpers.tiny_models import faces

SIZE = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return faces(tmp_path_factory.mktemp("shown") / "faces", rows=3)


@pytest.fixture(scope="module")
def slates(folder):
    return slates_of(folder)


def pixels(jpeg):
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        assert not image.getexif() and "comment" not in image.info
        return np.asarray(image.convert("RGB"), np.float32)


def question(slate, area="upper", a="model-1", b="model-2"):
    return Question("q", slate.picture, area, a, b)


def test_a_question_shows_its_person_and_its_candidates(folder, slates):
    faces = load_faces(folder, "train")
    drawer = QuestionRenderer(faces, {slate.picture: slate for slate in slates}, SIZE)
    for slate in slates:
        shown = drawer(question(slate))
        row = faces[slate.row]
        crop = crop_face(row["picture"], Box(*row["box"]).square(), SIZE)
        assert np.abs(pixels(shown.reference) - np.asarray(crop)).mean() < 12  # noise, through JPEG
    one = slates[0]
    other = drawer(question(one, a="model-2", b="model-1"))
    first = drawer(question(one))
    assert (first.a, first.b) == (other.b, other.a) and first.a != first.b


@pytest.mark.parametrize("area", ["upper", "lower"])
def test_the_half_that_is_not_judged_looks_the_same_in_all(folder, slates, area):
    drawer = QuestionRenderer(load_faces(folder, "train"), {slate.picture: slate for slate in slates}, SIZE)
    shown = drawer(question(slates[0], area))
    a, b = pixels(shown.a), pixels(shown.b)
    apart = np.abs(a - b).mean(axis=(1, 2))
    edge = SIZE * 5 // 10 if area == "upper" else SIZE * 2 // 10
    inside, outside = (apart[:edge], apart[edge:]) if area == "upper" else (apart[edge:], apart[:edge])
    assert inside.max() > 4 * max(outside.max(), 0.5)


def test_dimming_keeps_the_judged_half_and_darkens_the_other():
    grey = np.full((100, 100, 3), 180, np.uint8)
    upper, lower = dimmed(grey, "upper"), dimmed(grey, "lower")
    assert np.array_equal(dimmed(grey, "whole"), grey)
    assert (upper[:30] == 180).all() and (upper[45:] < 80).all()
    assert (lower[32:] == 180).all() and (lower[:18] < 80).all()
    assert (np.diff(upper[:, 0, 0].astype(int)) <= 0).all() and (np.diff(lower[:, 0, 0].astype(int)) >= 0).all()


def test_another_picture_in_the_row_is_never_shown(folder, slates):
    faces = load_faces(folder, "train")
    moved = dataclasses.replace(slates[0], row=1)
    with pytest.raises(PictureError, match="another picture than the candidates were made for"):
        QuestionRenderer(faces, {moved.picture: moved}, SIZE)(question(moved))
    gone = dataclasses.replace(slates[0], row=99)
    with pytest.raises(PictureError, match="the dataset ends before it"):
        QuestionRenderer(faces, {gone.picture: gone}, SIZE)(question(gone))


def test_pictures_without_a_box_bytes_or_content(tmp_path, slates):
    path = tmp_path / "p.png"
    Image.new("RGB", (40, 30), (200, 10, 10)).save(path)
    data = path.read_bytes()
    name = hashlib.sha256(data).hexdigest()
    columns = {"picture": [{"bytes": None, "path": str(path)}], "box": [[float("nan")] * 4]}
    features = datasets.Features(
        {"picture": datasets.Image(decode=False), "box": datasets.List(datasets.Value("float32"))}
    )
    stored = datasets.Dataset.from_dict(columns, features=features)
    found = np.asarray(reference(stored, 0, name, 32))
    assert found.shape == (32, 32, 3) and np.abs(found.astype(int) - (200, 10, 10)).max() <= 1
    path.unlink()
    with pytest.raises(PictureError, match="row 0: no picture"):
        reference(stored, 0, name, 32)
    for nothing in (None, {"bytes": None, "path": None}):
        with pytest.raises(PictureError, match="row 7: no picture"):
            picture_bytes(nothing, "row 7")
