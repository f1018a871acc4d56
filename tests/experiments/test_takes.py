"""Takes: exact labels in order of time, captured labels on the same pictures, reproducible bytes."""

import dataclasses

import numpy as np
import pytest

from semanticface.data.consent import read_consent
from semanticface.data.faces import coefficients_of, dataset_record, load_faces
from semanticface.errors import DatasetError
from semanticface.experiments.noisy_captures import (
    CaptureErrors,
    TakeSettings,
    captured_labels,
    expression_sequence,
    relabel,
    render_takes,
)
from semanticface.recipe import RECIPE_NAME
from semanticface.semantics.answer import parse_answer

SETTINGS = TakeSettings(train=2, validation=1, frames=3, every=4, style="drawn")


@pytest.fixture(scope="module")
def takes(tmp_path_factory):
    return render_takes(tmp_path_factory.mktemp("takes") / "exact", SETTINGS)


def test_frames_of_a_take_are_in_order(takes):
    faces = load_faces(takes, "train")
    assert len(faces) == 6 and len(load_faces(takes, "validation")) == 3
    assert np.allclose(coefficients_of(faces)[3:], expression_sequence(1, 12)[::4])
    assert len(set(faces["subject"])) == 2
    assert not set(faces["subject"]) & set(load_faces(takes, "validation")["subject"])


def test_rendering_again_changes_nothing(takes, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in takes.glob("*/*.arrow")}
    render_takes(takes, SETTINGS)
    assert {path: path.stat().st_mtime_ns for path in takes.glob("*/*.arrow")} == before
    again = render_takes(tmp_path / "again", SETTINGS)
    for path in before:
        assert (again / path.relative_to(takes)).read_bytes() == path.read_bytes()


def test_other_takes_are_refused(takes):
    before = {path: path.read_bytes() for path in takes.rglob("*") if path.is_file()}
    with pytest.raises(DatasetError, match=r"holds other takes \(seed was 0, now 5\)"):
        render_takes(takes, dataclasses.replace(SETTINGS, seed=5))
    assert {path: path.read_bytes() for path in takes.rglob("*") if path.is_file()} == before


def test_rendered_people_need_no_consent_under_any_labels(takes, tmp_path):
    out = relabel(takes, tmp_path / "out", {"train": np.zeros((6, 52), np.float32)}, {"seed": 3})
    for folder in (takes, out):
        faces = load_faces(folder, "train")
        assert all(read_consent(folder).allows(subject) for subject in faces["subject"])
        # Resumed trainings compare this record, which predates dataset recipes.
        assert dataset_record(faces, folder).keys() == {"fingerprint", "rows"}
    (takes / RECIPE_NAME).rename(tmp_path / "recipe")
    try:
        others = relabel(takes, tmp_path / "others", {"train": np.zeros((6, 52), np.float32)}, {})
    finally:
        (tmp_path / "recipe").rename(takes / RECIPE_NAME)
    assert not any(read_consent(others).allows(subject) for subject in faces["subject"])


def test_relabelled_pictures_are_the_same_and_answers_match_the_labels(takes, tmp_path):
    errors = CaptureErrors.sample(3)
    labels = {split: captured_labels(SETTINGS, errors, split) for split in SETTINGS.splits}
    out = relabel(takes, tmp_path / "captured", labels, {"seed": 3})
    for split in SETTINGS.splits:
        exact, relabelled = load_faces(takes, split), load_faces(out, split)
        assert np.array_equal(coefficients_of(relabelled), labels[split])
        assert not np.array_equal(coefficients_of(relabelled), coefficients_of(exact))
        assert relabelled[0]["picture"].tobytes() == exact[0]["picture"].tobytes()
        assert np.allclose(parse_answer(relabelled[1]["answer"]).coefficients, labels[split][1])


def test_errors_apply_to_the_frames_between_pictures():
    errors = CaptureErrors.sample(5)
    whole = errors.corrupt(SETTINGS.sequence(0), take=0)
    assert np.array_equal(captured_labels(SETTINGS, errors, "train")[:3], whole[::4])


def test_a_wrong_number_of_labels_is_refused(takes, tmp_path):
    with pytest.raises(DatasetError, match="6 rows in train, but 2 labels"):
        relabel(takes, tmp_path / "out", {"train": np.zeros((2, 52), np.float32)}, {})
