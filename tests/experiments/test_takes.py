"""Takes: exact labels in order of time, other labels on the same pictures, the same bytes whenever they are made."""

import dataclasses

import numpy as np
import pytest

from semanticface.data.consent import read_consent
from semanticface.data.faces import coefficients_of, dataset_record, load_faces
from semanticface.errors import DatasetError
from semanticface.experiments.noisy_captures import CaptureErrors, TakeSettings, captured, draw_takes, relabel, wander
from semanticface.recipe import RECIPE_NAME
from semanticface.semantics.answer import parse_answer

SETTINGS = TakeSettings(train=2, validation=1, frames=3, every=4, style="drawn")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw_takes(tmp_path_factory.mktemp("takes") / "exact", SETTINGS)


def test_frames_of_a_take_follow_each_other(drawn):
    faces = load_faces(drawn, "train")
    assert len(faces) == 6 and len(load_faces(drawn, "validation")) == 3
    assert np.allclose(coefficients_of(faces)[3:], wander(1, 12)[::4])
    assert len(set(faces["subject"])) == 2
    assert not set(faces["subject"]) & set(load_faces(drawn, "validation")["subject"])


def test_drawing_again_draws_nothing_and_gives_the_same(drawn, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in drawn.glob("*/*.arrow")}
    draw_takes(drawn, SETTINGS)
    assert {path: path.stat().st_mtime_ns for path in drawn.glob("*/*.arrow")} == before
    again = draw_takes(tmp_path / "again", SETTINGS)
    for path in before:
        assert (again / path.relative_to(drawn)).read_bytes() == path.read_bytes()


def test_other_takes_are_not_mixed_with_those_there(drawn):
    """Their pictures would stay, and these labels come beside them, as many."""
    before = {path: path.read_bytes() for path in drawn.rglob("*") if path.is_file()}
    with pytest.raises(DatasetError, match=r"holds other takes \(seed 0 there, 5 here\)"):
        draw_takes(drawn, dataclasses.replace(SETTINGS, seed=5))
    assert {path: path.read_bytes() for path in drawn.rglob("*") if path.is_file()} == before


def test_rendered_people_may_be_shown_to_annotators_under_any_labels(drawn, tmp_path):
    out = relabel(drawn, tmp_path / "out", {"train": np.zeros((6, 52), np.float32)}, {"seed": 3})
    for folder in (drawn, out):
        faces = load_faces(folder, "train")
        assert all(read_consent(folder).allows(subject) for subject in faces["subject"])
        # Trainings compare this record with the one that they were begun with, from before there was a recipe.
        assert dataset_record(faces, folder).keys() == {"fingerprint", "rows"}
    (drawn / RECIPE_NAME).rename(tmp_path / "recipe")
    try:
        others = relabel(drawn, tmp_path / "others", {"train": np.zeros((6, 52), np.float32)}, {})
    finally:
        (tmp_path / "recipe").rename(drawn / RECIPE_NAME)
    assert not any(read_consent(others).allows(subject) for subject in faces["subject"])


def test_relabelled_pictures_are_the_same_and_answers_belong_to_the_labels(drawn, tmp_path):
    errors = CaptureErrors.draw(3)
    labels = {split: captured(SETTINGS, errors, split) for split in SETTINGS.splits}
    out = relabel(drawn, tmp_path / "captured", labels, {"seed": 3})
    for split in SETTINGS.splits:
        exact, written = load_faces(drawn, split), load_faces(out, split)
        assert np.array_equal(coefficients_of(written), labels[split])
        assert not np.array_equal(coefficients_of(written), coefficients_of(exact))
        assert written[0]["picture"].tobytes() == exact[0]["picture"].tobytes()
        assert np.allclose(parse_answer(written[1]["answer"]).coefficients, labels[split][1])


def test_errors_trail_through_the_frames_between_pictures():
    errors = CaptureErrors.draw(5)
    whole = errors.corrupt(SETTINGS.sequence(0), take=0)
    assert np.array_equal(captured(SETTINGS, errors, "train")[:3], whole[::4])


def test_another_number_of_labels_is_refused(drawn, tmp_path):
    with pytest.raises(DatasetError, match="6 rows in train, but 2 labels"):
        relabel(drawn, tmp_path / "out", {"train": np.zeros((2, 52), np.float32)}, {})
