"""``semanticface calibrate``: levels fitted on some people, checked on others, stored with the model and read back."""

import json
import shutil

import numpy as np
import pytest

from semanticface.cli.main import main
from semanticface.errors import DatasetError, ModelError
from semanticface.inference import calibration
from semanticface.inference.calibration import MIN_PICTURES
from semanticface.inference.predictor import Predictor
from semanticface.models.files import NANO
from semanticface.recipe import RECIPE_NAME, calibrated_level, read_recipe
from tests.helpers.tiny_models import faces, fast_vlm


@pytest.fixture(scope="module")
def model_and_faces(tmp_path_factory):
    """An uncalibrated copy of nano, and pictures of noise."""
    folder = tmp_path_factory.mktemp("calibrate")
    model = shutil.copytree(NANO, folder / "nano")
    recipe = json.loads((model / RECIPE_NAME).read_text())
    recipe.pop("calibration", None)
    (model / RECIPE_NAME).write_text(json.dumps(recipe))
    return model, faces(folder / "faces", rows=MIN_PICTURES + 4)


def test_levels_are_fitted_stored_and_used(model_and_faces, capsys):
    model, dataset = model_and_faces
    before = read_recipe(model)
    assert calibrated_level(before, "full") is None
    assert main(["calibrate", str(model), str(dataset), "--split", "train", "--crop", "box"]) == 0
    printed = capsys.readouterr().out
    after = read_recipe(model)
    assert {key: value for key, value in after.items() if key != "calibration"} == before
    stored = after["calibration"]
    assert set(stored["levels"]) == {"full", "numbers"}
    assert (stored["dataset"], stored["split"], stored["pictures"]) == (str(dataset), "train", (MIN_PICTURES + 4) // 2)
    for mode, level in stored["levels"].items():
        assert 0.5 <= level <= 1
        assert f"| {mode} | {level:.3f} |" in printed
        predictor = Predictor.from_pretrained(model, device="cpu", mode=mode)
        assert predictor.level == level
    assert f"fitted on {(MIN_PICTURES + 4) // 2} pictures" in printed


def test_people_are_not_on_both_sides():
    subjects = np.array(["a", "b", "c", "a", "d", "b", "c", "c", "d", "a"])
    chosen = calibration._halves(subjects, np.random.default_rng(0))
    assert {len(set(chosen[subjects == person])) for person in "abcd"} == {1}
    assert len(set(subjects[chosen])) == 2
    alone = calibration._halves(np.array(["a"] * 9), np.random.default_rng(0))
    assert alone.sum() == 5


def test_calibration_errors(model_and_faces, tmp_path):
    model, dataset = model_and_faces
    before = (model / RECIPE_NAME).read_bytes()
    with pytest.raises(DatasetError, match=f"2 of 2 pictures have an answer; {MIN_PICTURES} are needed"):
        calibration.calibrate(model, dataset, crop="box")
    with pytest.raises(DatasetError, match="no split 'gone'"):
        calibration.calibrate(model, dataset, split="gone")
    with pytest.raises(ModelError, match="is no folder"):
        calibration.calibrate("some/model", dataset)
    with pytest.raises(ModelError, match=r"semanticface\.json is missing"):
        calibration.calibrate(fast_vlm(tmp_path / "bare"), dataset)
    assert (model / RECIPE_NAME).read_bytes() == before


@pytest.mark.parametrize(
    "wrong", [[], {"levels": None}, {"levels": {"words": 0.8}}, {"levels": {"full": 1.2}}, {"levels": {"full": True}}]
)
def test_a_damaged_calibration_is_an_error(model_and_faces, tmp_path, wrong):
    folder = tmp_path / "model"
    folder.mkdir()
    recipe = json.loads((model_and_faces[0] / RECIPE_NAME).read_text())
    (folder / RECIPE_NAME).write_text(json.dumps(recipe | {"calibration": wrong}))
    with pytest.raises(ModelError, match=r"calibration must have levels.*semanticface calibrate"):
        read_recipe(folder)
    (folder / RECIPE_NAME).write_text(json.dumps(recipe | {"calibration": {"levels": {"numbers": 0.9}}}))
    found = read_recipe(folder)
    assert (calibrated_level(found, "numbers"), calibrated_level(found, "full")) == (0.9, None)
