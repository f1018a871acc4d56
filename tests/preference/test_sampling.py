"""Candidates: distinct, reproducible, and read back strictly."""

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
from semanticface.preference.files import CandidateHeader, fingerprint, read_candidates, write_candidates
from semanticface.preference.regions import HALVES, distance
from semanticface.preference.sampling import CandidateSettings, sample_candidates
from semanticface.preference.types import CandidateSet
from tests.helpers import tiny_models
from tests.helpers.random_weights import randomize_weights

FEW = CandidateSettings(count=3, batch_size=4)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_models.fast_vlm(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def predictor(model):
    bundle = load_trained(model, device="cpu")
    randomize_weights(bundle.model, bundle.tokenizer)
    return Predictor(bundle, mode="numbers")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return load_faces(tiny_models.faces(tmp_path_factory.mktemp("faces") / "faces", rows=6), "train")


def sampled(predictor, faces, settings=FEW, **options) -> list[CandidateSet]:
    return list(sample_candidates(predictor, faces, settings, **({"rows": range(6)} | options)))


def plain(candidate_sets) -> list[tuple]:
    return [
        (s.picture, s.row, s.subject, [(c.id, c.source, c.coefficients.tolist()) for c in s.candidates])
        for s in candidate_sets
    ]


@pytest.fixture(scope="module")
def candidate_sets(predictor, faces):
    return sampled(predictor, faces)


def test_a_candidate_set_has_its_picture_and_distinct_faces(candidate_sets, faces):
    assert [candidate_set.row for candidate_set in candidate_sets] == list(range(6))
    stored = faces.cast_column("picture", datasets.Image(decode=False))
    for candidate_set in candidate_sets:
        assert candidate_set.picture == hashlib.sha256(stored[candidate_set.row]["picture"]["bytes"]).hexdigest()
        assert candidate_set.subject == "a"
        assert [each.id for each in candidate_set.candidates] == ["model-1", "model-2", "model-3"]
        assert {each.source for each in candidate_set.candidates} == {"model"}
        for n, one in enumerate(candidate_set.candidates):
            face = one.coefficients
            assert face.dtype == np.float32
            assert face.shape == (N_ACTIONS,)
            assert np.array_equal(face, np.round(face.astype(np.float64) * 100).astype(np.float32) / 100)
            for other in candidate_set.candidates[:n]:
                far = [distance(face[None], other.coefficients[None], half)[0] for half in HALVES]
                assert max(far) >= FEW.min_distance
    assert len({plain([candidate_set])[0][3][0][2][0] for candidate_set in candidate_sets}) > 1


def test_samples_depend_only_on_seed_and_row(predictor, faces, candidate_sets):
    one_by_one = dataclasses.replace(FEW, batch_size=1)
    assert plain(sampled(predictor, faces, one_by_one, rows=[4, 1])) == plain([candidate_sets[4], candidate_sets[1]])
    more = dataclasses.replace(FEW, count=4)
    assert plain(sampled(predictor, faces, more, rows=[2]))[0][3][:3] == plain(candidate_sets)[2][3]
    assert plain(sampled(predictor, faces, dataclasses.replace(FEW, seed=1))) != plain(candidate_sets)


def test_the_capture_label_is_another_candidate(predictor, faces, candidate_sets):
    labels = np.random.default_rng(0).uniform(0, 1, (6, N_ACTIONS)).astype(np.float32)
    labels[3] = candidate_sets[3].candidates[1].coefficients
    for each in sampled(predictor, faces, labels=labels):
        *others, captured = each.candidates
        assert (captured.id, captured.source) == ("capture", "capture")
        assert np.array_equal(captured.coefficients, (np.round(labels[each.row] * 100) / 100).astype(np.float32))
        assert len(others) == 3
        if each.row == 3:  # a sample equal to the label is replaced by another
            assert not any(np.array_equal(other.coefficients, captured.coefficients) for other in others)
            assert np.array_equal(others[1].coefficients, candidate_sets[3].candidates[2].coefficients)


def test_exploring_brings_back_actions_the_model_never_predicts(predictor, faces):
    greedy = CandidateSettings(count=1, temperature=0.01, explore=0.0, tries=1)
    labels = np.ones((6, N_ACTIONS), dtype=np.float32)
    still = [s.candidates[0].coefficients for s in sampled(predictor, faces, greedy, labels=labels)]
    exploring = dataclasses.replace(greedy, explore=0.2)
    moved = [s.candidates[0].coefficients for s in sampled(predictor, faces, exploring, labels=labels)]
    changed = np.stack(still) != np.stack(moved)
    assert 0.1 < changed.mean() < 0.3
    assert (np.stack(moved)[changed] > 0.5).any()
    every = dataclasses.replace(greedy, explore=1.0)
    prior = np.stack([s.candidates[0].coefficients for s in sampled(predictor, faces, every, labels=labels)])
    assert prior.mean() == pytest.approx(0.5, abs=0.05)


def test_pictures_without_two_candidates_are_counted_and_skipped(predictor, faces):
    # No two faces are that far apart, whatever the random weights.
    sure = CandidateSettings(count=3, temperature=0.01, explore=0.0, min_distance=100.0, tries=2)
    counts: Counter[str] = Counter()
    assert sampled(predictor, faces, sure, counts=counts) == []
    assert counts == {"alike": 6}


def test_failing_rows_are_counted_and_skipped(predictor, faces, candidate_sets, monkeypatch, caplog):
    stored = faces.cast_column("picture", datasets.Image(decode=False)).to_list()
    stored[0]["picture"]["bytes"] = b"no picture"
    stored[1]["picture"] = None
    stored[5]["picture"] = stored[2]["picture"]
    features = datasets.Features(faces.features | {"picture": datasets.Image()})
    spoilt = datasets.Dataset.from_list(stored, features=features)
    generate = predictor.engine.generate_text

    def fails_at_three(inputs, *, seeds, **options):
        if any(row == 3 for _, row, _ in seeds):
            raise RuntimeError("out of memory")
        return generate(inputs, seeds=seeds, **options)

    monkeypatch.setattr(predictor.engine, "generate_text", fails_at_three)
    counts: Counter[str] = Counter()
    found = sampled(predictor, spoilt, counts=counts)
    assert plain(found) == plain([candidate_sets[2], candidate_sets[4]])
    assert counts == {"sampled": 2, "not_a_picture": 1, "missing": 1, "twice": 1, "model_failed": 1}
    for message in ("row 0", "row 1", "row 3: the model failed: out of memory"):
        assert message in caplog.text


def test_invalid_arguments_are_refused(predictor, faces):
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


HEADER = CandidateHeader("m" * 64, "d" * 16, "train", 1, {"count": 3})


@pytest.fixture
def written(candidate_sets, tmp_path):
    write_candidates(tmp_path / "candidates.jsonl", HEADER, candidate_sets)
    return tmp_path / "candidates.jsonl"


def test_candidates_survive_their_file(written, candidate_sets):
    found = read_candidates(written, model=HEADER.model, dataset=HEADER.dataset)
    assert found.header == HEADER
    assert plain(found.candidate_sets) == plain(candidate_sets)
    assert found.problems == ()


def test_candidates_of_another_model_or_dataset_are_refused(written):
    with pytest.raises(ModelError, match="sample candidates from this one"):
        read_candidates(written, model="another")
    with pytest.raises(DatasetError, match="sample candidates for this one"):
        read_candidates(written, dataset="another")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: "{", "not valid JSON"),
        (lambda r: r | {"row": -1}, "row is -1"),
        (lambda r: r | {"row": "1"}, "row is not a JSON int"),
        (lambda r: r | {"candidates": r["candidates"][:1]}, "fewer than two candidates"),
        (lambda r: r | {"candidates": r["candidates"] + r["candidates"][:1]}, "a repeated id"),
        (lambda r: r | {"candidates": [7, 8]}, "without a source"),
        (lambda r: r | {"candidates": [{"id": "x", "source": "dream"}]}, "without a source"),
        (lambda r: r | {"candidates": [{"id": "x", "source": "model", "coefficients": {}}]}, "exactly the 52"),
    ],
)
def test_a_bad_line_is_reported_and_affects_no_other(written, candidate_sets, change, message):
    lines = written.read_text().splitlines()
    spoilt = change(json.loads(lines[2]))
    lines[2] = spoilt if isinstance(spoilt, str) else json.dumps(spoilt)
    written.write_text("\n".join(lines))
    found = read_candidates(written)
    assert plain(found.candidate_sets) == plain([candidate_sets[0], *candidate_sets[2:]])
    (problem,) = found.problems
    assert f"{written}, line 3" in problem
    assert message in problem


def test_a_picture_on_two_lines_keeps_its_first(written, candidate_sets):
    lines = written.read_text().splitlines()
    written.write_text("\n".join([*lines, lines[1]]))
    found = read_candidates(written)
    assert len(found.candidate_sets) == len(candidate_sets)
    assert "line 8" in found.problems[0]


@pytest.mark.parametrize("first", ["", '{"kind":"pairs"}', "nonsense", '{"kind":"candidates","model":3}'])
def test_a_file_without_header_is_refused(written, first):
    lines = written.read_text().splitlines()
    written.write_text("\n".join([first, *lines[1:]]))
    with pytest.raises(TableError, match="line 1"):
        read_candidates(written)


def test_a_fingerprint_covers_weights_but_not_the_recipe(model, tmp_path):
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


def test_actions_are_named_in_the_file(written, candidate_sets):
    record = json.loads(written.read_text().splitlines()[1])["candidates"][0]["coefficients"]
    assert record["jawOpen"] == pytest.approx(candidate_sets[0].candidates[0].coefficients[INDEX["jawOpen"]])
    assert len(str(record["jawOpen"])) <= 4
