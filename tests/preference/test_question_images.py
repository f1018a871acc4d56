"""The images of a question: the right person, the right heads, the other half at rest and dimmed."""

import dataclasses
import hashlib
import io

import datasets
import numpy as np
import pytest
from PIL import Image

from semanticface.data.faces import load_faces, picture_bytes
from semanticface.errors import PictureError
from semanticface.preference.question_images import QuestionRenderer, dim_other_half, reference
from semanticface.preference.types import Question
from semanticface.vision.crop import Box, crop_face
from tests.helpers.candidate_sets import candidate_sets_of
from tests.helpers.tiny_models import faces

SIZE = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return faces(tmp_path_factory.mktemp("shown") / "faces", rows=3)


@pytest.fixture(scope="module")
def candidate_sets(folder):
    return candidate_sets_of(folder)


def pixels(jpeg):
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        assert not image.getexif() and "comment" not in image.info
        return np.asarray(image.convert("RGB"), np.float32)


def question(candidate_set, region="upper", a="model-1", b="model-2"):
    return Question("q", candidate_set.picture, region, a, b)


def test_images_show_the_person_and_the_candidates(folder, candidate_sets):
    faces = load_faces(folder, "train")
    renderer = QuestionRenderer(faces, {each.picture: each for each in candidate_sets}, SIZE)
    for candidate_set in candidate_sets:
        images = renderer(question(candidate_set))
        row = faces[candidate_set.row]
        crop = crop_face(row["picture"], Box(*row["box"]).square(), SIZE)
        assert np.abs(pixels(images.reference) - np.asarray(crop)).mean() < 12  # noise, through JPEG
    one = candidate_sets[0]
    other = renderer(question(one, a="model-2", b="model-1"))
    first = renderer(question(one))
    assert (first.a, first.b) == (other.b, other.a) and first.a != first.b


@pytest.mark.parametrize("region", ["upper", "lower"])
def test_the_half_that_is_not_judged_looks_the_same(folder, candidate_sets, region):
    renderer = QuestionRenderer(load_faces(folder, "train"), {each.picture: each for each in candidate_sets}, SIZE)
    images = renderer(question(candidate_sets[0], region))
    a, b = pixels(images.a), pixels(images.b)
    apart = np.abs(a - b).mean(axis=(1, 2))
    edge = SIZE * 5 // 10 if region == "upper" else SIZE * 2 // 10
    inside, outside = (apart[:edge], apart[edge:]) if region == "upper" else (apart[edge:], apart[:edge])
    assert inside.max() > 4 * max(outside.max(), 0.5)


def test_dimming_keeps_the_judged_half_and_darkens_the_other():
    grey = np.full((100, 100, 3), 180, np.uint8)
    upper, lower = dim_other_half(grey, "upper"), dim_other_half(grey, "lower")
    assert np.array_equal(dim_other_half(grey, "whole"), grey)
    assert (upper[:30] == 180).all() and (upper[45:] < 80).all()
    assert (lower[32:] == 180).all() and (lower[:18] < 80).all()
    assert (np.diff(upper[:, 0, 0].astype(int)) <= 0).all() and (np.diff(lower[:, 0, 0].astype(int)) >= 0).all()


def test_another_picture_in_the_row_is_refused(folder, candidate_sets):
    faces = load_faces(folder, "train")
    moved = dataclasses.replace(candidate_sets[0], row=1)
    with pytest.raises(PictureError, match="not the picture that the candidates were made for"):
        QuestionRenderer(faces, {moved.picture: moved}, SIZE)(question(moved))
    missing = dataclasses.replace(candidate_sets[0], row=99)
    with pytest.raises(PictureError, match="the dataset ends before it"):
        QuestionRenderer(faces, {missing.picture: missing}, SIZE)(question(missing))


def test_pictures_without_a_box_bytes_or_content(tmp_path, candidate_sets):
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
