"""Candidates: distinct, the same whenever they are asked for, and read back strictly."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections import Counter

import datasets
import numpy as np
import pytest

from semanticface.arkit import INDEX, N_ACTIONS
from semanticface.data.faces import load_faces
from semanticface.errors import ConfigError, DatasetError, ModelError, TableError
from semanticface.inference.predictor import Predictor
from semanticface.models import files
from semanticface.models.loading import load_trained
from semanticface.preference.files import (
    CandidateHeader,
    fingerprint,
    read_candidates,
    write_candidates,
)
from semanticface.preference.regions import HALVES, distance
from semanticface.preference.sampling import CandidateSettings, sample_slates
from semanticface.preference.types import CandidateSet
from tests.helpers import tiny_models
from tests.helpers.lively import make_lively

FEW = CandidateSettings(count=3, batch_size=4)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_models.fast_vlm(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def predictor(model):
    bundle = load_trained(model, device="cpu")
    make_lively(bundle.model, bundle.tokenizer)
    return Predictor(bundle, mode="numbers")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return load_faces(tiny_models.faces(tmp_path_factory.mktemp("faces") / "faces", rows=6), "train")


def sampled(predictor, faces, settings=FEW, **options) -> list[CandidateSet]:
    return list(sample_slates(predictor, faces, settings, **({"rows": range(6)} | options)))


def plain(slates) -> list[tuple]:
    return [
        (s.picture, s.row, s.subject, [(c.id, c.source, c.coefficients.tolist()) for c in s.candidates]) for s in slates
    ]


@pytest.fixture(scope="module")
def slates(predictor, faces):
    return sampled(predictor, faces)


def test_a_slate_names_its_picture_and_holds_faces_that_can_be_told_apart(slates, faces):
    assert [slate.row for slate in slates] == list(range(6))
    stored = faces.cast_column("picture", datasets.Image(decode=False))
    for slate in slates:
        assert slate.picture == hashlib.sha256(stored[slate.row]["picture"]["bytes"]).hexdigest()
        assert slate.subject == "a"
        assert [each.id for each in slate.candidates] == ["model-1", "model-2", "model-3"]
        assert {each.source for each in slate.candidates} == {"model"}
        for n, one in enumerate(slate.candidates):
            face = one.coefficients
            assert face.dtype == np.float32
            assert face.shape == (N_ACTIONS,)
            assert np.array_equal(face, np.round(face.astype(np.float64) * 100).astype(np.float32) / 100)
            for other in slate.candidates[:n]:
                far = [distance(face[None], other.coefficients[None], half)[0] for half in HALVES]
                assert max(far) >= FEW.min_distance
    assert len({plain([slate])[0][3][0][2][0] for slate in slates}) > 1


def test_samples_depend_on_seed_and_row_alone(predictor, faces, slates):
    one_by_one = dataclasses.replace(FEW, batch_size=1)
    assert plain(sampled(predictor, faces, one_by_one, rows=[4, 1])) == plain([slates[4], slates[1]])
    more = dataclasses.replace(FEW, count=4)
    assert plain(sampled(predictor, faces, more, rows=[2]))[0][3][:3] == plain(slates)[2][3]
    assert plain(sampled(predictor, faces, dataclasses.replace(FEW, seed=1))) != plain(slates)


def test_the_label_of_the_capture_software_is_one_more_candidate(predictor, faces, slates):
    labels = np.random.default_rng(0).uniform(0, 1, (6, N_ACTIONS)).astype(np.float32)
    labels[3] = slates[3].candidates[1].coefficients
    for slate in sampled(predictor, faces, labels=labels):
        *others, captured = slate.candidates
        assert (captured.id, captured.source) == ("capture", "capture")
        assert np.array_equal(captured.coefficients, (np.round(labels[slate.row] * 100) / 100).astype(np.float32))
        assert len(others) == 3
        if slate.row == 3:  # a sample that says what the label says is left out for another
            assert not any(np.array_equal(each.coefficients, captured.coefficients) for each in others)
            assert np.array_equal(others[1].coefficients, slates[3].candidates[2].coefficients)


def test_exploring_brings_back_what_the_model_believes_dead(predictor, faces):
    greedy = CandidateSettings(count=1, temperature=0.01, explore=0.0, tries=1)
    labels = np.ones((6, N_ACTIONS), dtype=np.float32)
    still = [s.candidates[0].coefficients for s in sampled(predictor, faces, greedy, labels=labels)]
    share = dataclasses.replace(greedy, explore=0.2)
    moved = [s.candidates[0].coefficients for s in sampled(predictor, faces, share, labels=labels)]
    changed = np.stack(still) != np.stack(moved)
    assert 0.1 < changed.mean() < 0.3
    assert (np.stack(moved)[changed] > 0.5).any()
    every = dataclasses.replace(greedy, explore=1.0)
    prior = np.stack([s.candidates[0].coefficients for s in sampled(predictor, faces, every, labels=labels)])
    assert prior.mean() == pytest.approx(0.5, abs=0.05)


def test_pictures_without_two_candidates_are_counted_and_stop_nobody(predictor, faces):
    # However sure random weights are: no two faces are that far apart.
    sure = CandidateSettings(count=3, temperature=0.01, explore=0.0, min_distance=100.0, tries=2)
    counts: Counter[str] = Counter()
    assert sampled(predictor, faces, sure, counts=counts) == []
    assert counts == {"alike": 6}


def test_rows_that_fail_are_counted_and_stop_nobody(predictor, faces, slates, monkeypatch, caplog):
    stored = faces.cast_column("picture", datasets.Image(decode=False)).to_list()
    stored[0]["picture"]["bytes"] = b"no picture"
    stored[1]["picture"] = None
    stored[5]["picture"] = stored[2]["picture"]
    features = datasets.Features(faces.features | {"picture": datasets.Image()})
    spoilt = datasets.Dataset.from_list(stored, features=features)
    read = predictor.reader.read

    def fails_at_three(inputs, *, seeds, **options):
        if any(row == 3 for _, row, _ in seeds):
            raise RuntimeError("out of memory")
        return read(inputs, seeds=seeds, **options)

    monkeypatch.setattr(predictor.reader, "read", fails_at_three)
    counts: Counter[str] = Counter()
    found = sampled(predictor, spoilt, counts=counts)
    assert plain(found) == plain([slates[2], slates[4]])
    assert counts == {"slates": 2, "not_a_picture": 1, "missing": 1, "twice": 1, "model_failed": 1}
    for told in ("row 0", "row 1", "row 3: the model failed: out of memory"):
        assert told in caplog.text


def test_what_does_not_fit_is_refused(predictor, faces):
    with pytest.raises(ValueError, match="rows 0 to 5"):
        sampled(predictor, faces, rows=[6])
    with pytest.raises(ValueError, match="one of 52 for each row"):
        sampled(predictor, faces, labels=np.zeros((2, N_ACTIONS)))
    with pytest.raises(ValueError, match="from 0 to 1"):
        sampled(predictor, faces, labels=np.full((6, N_ACTIONS), np.nan))
    with pytest.raises(DatasetError, match="no column box"):
        sampled(predictor, faces.remove_columns("box"))
    with pytest.raises(ValueError, match="mode='numbers'"):
        sampled(Predictor(predictor.bundle), faces)


@pytest.mark.parametrize(
    "changed", [{"count": 0}, {"temperature": 0}, {"explore": 1.1}, {"min_distance": -1}, {"tries": 0}, {"seed": -1}]
)
def test_settings_out_of_range_are_refused(changed):
    with pytest.raises(ConfigError, match=next(iter(changed))):
        CandidateSettings(**changed)


# --- files --------------------------------------------------------------------------------------------------------

HEADER = CandidateHeader("m" * 64, "d" * 16, "train", 1, {"count": 3})


@pytest.fixture
def written(slates, tmp_path):
    write_candidates(tmp_path / "candidates.jsonl", HEADER, slates)
    return tmp_path / "candidates.jsonl"


def test_candidates_survive_their_file(written, slates):
    found = read_candidates(written, model=HEADER.model, dataset=HEADER.dataset)
    assert found.header == HEADER
    assert plain(found.slates) == plain(slates)
    assert found.problems == ()


def test_candidates_of_another_model_or_dataset_are_refused(written):
    with pytest.raises(ModelError, match="sample candidates from this one"):
        read_candidates(written, model="another")
    with pytest.raises(DatasetError, match="sample candidates for this one"):
        read_candidates(written, dataset="another")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda r: "{", "not valid JSON"),
        (lambda r: r | {"row": -1}, "row is -1"),
        (lambda r: r | {"row": "1"}, "row is not a JSON int"),
        (lambda r: r | {"candidates": r["candidates"][:1]}, "fewer than two candidates"),
        (lambda r: r | {"candidates": r["candidates"] + r["candidates"][:1]}, "two of one name"),
        (lambda r: r | {"candidates": [7, 8]}, "without a source"),
        (lambda r: r | {"candidates": [{"id": "x", "source": "dream"}]}, "without a source"),
        (lambda r: r | {"candidates": [{"id": "x", "source": "model", "coefficients": {}}]}, "exactly the 52"),
    ],
)
def test_a_bad_line_is_named_and_spoils_no_other(written, slates, change, told):
    lines = written.read_text().splitlines()
    spoilt = change(json.loads(lines[2]))
    lines[2] = spoilt if isinstance(spoilt, str) else json.dumps(spoilt)
    written.write_text("\n".join(lines))
    found = read_candidates(written)
    assert plain(found.slates) == plain([slates[0], *slates[2:]])
    (problem,) = found.problems
    assert f"{written}, line 3" in problem
    assert told in problem


def test_a_picture_on_two_lines_keeps_its_first(written, slates):
    lines = written.read_text().splitlines()
    written.write_text("\n".join([*lines, lines[1]]))
    found = read_candidates(written)
    assert len(found.slates) == len(slates)
    assert "line 8" in found.problems[0]


@pytest.mark.parametrize("first", ["", '{"kind":"pairs"}', "nonsense", '{"kind":"candidates","model":3}'])
def test_another_file_is_refused(written, first):
    lines = written.read_text().splitlines()
    written.write_text("\n".join([first, *lines[1:]]))
    with pytest.raises(TableError, match="line 1"):
        read_candidates(written)


def test_a_fingerprint_is_of_weights_and_not_of_their_recipe(model, tmp_path):
    copy = shutil.copytree(model, tmp_path / "copy")
    (copy / "semanticface.json").write_text('{"calibration": 1}')
    assert fingerprint(copy) == fingerprint(model)
    assert fingerprint("nano") == fingerprint(files.NANO) != fingerprint(model)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert fingerprint(copy) != fingerprint(model)
    with pytest.raises(ModelError):
        fingerprint(tmp_path / "copy" / "config.json")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError):
        fingerprint(copy)


def test_actions_are_named_in_the_file(written, slates):
    record = json.loads(written.read_text().splitlines()[1])["candidates"][0]["coefficients"]
    assert record["jawOpen"] == pytest.approx(slates[0].candidates[0].coefficients[INDEX["jawOpen"]])
    assert len(str(record["jawOpen"])) <= 4
