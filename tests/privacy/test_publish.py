"""Models record their training data, and publishing requires the consent of everybody in it."""

import datetime
import json

import datasets
import numpy as np
import pytest

from semanticface.data.consent import NAME
from semanticface.data.faces import FEATURES, coefficients_of, load_faces
from semanticface.data.provenance import (
    KEY,
    PEOPLE_NAME,
    Source,
    merge_sources,
    read_people,
    source_of,
    sources_from_recipe,
    write_people,
)
from semanticface.errors import ConfigError, ModelError
from semanticface.preference.dpo import AlignSettings
from semanticface.preference.judges import SimulatedJudge
from semanticface.preference.round import RoundRunner, RoundSettings, picture_names
from semanticface.preference.rounds import _copy_adapter
from semanticface.preference.sampling import CandidateSettings
from semanticface.privacy.forget import forget
from semanticface.privacy.publish import require_publish
from semanticface.recipe import RECIPE_NAME, make_recipe, read_recipe, write_recipe
from tests.helpers.tiny_adapter import tiny_adapter
from tests.helpers.tiny_models import answers
from tests.helpers.tiny_models import faces as noise_faces


def faces(folder, people, kind=None):
    """A dataset with a picture of each of these people, in the split train."""
    rng = np.random.default_rng(0)
    columns = {
        "picture": [rng.integers(0, 256, (24, 24, 3), dtype=np.uint8) for _ in people],
        "coefficients": [np.zeros(52, np.float32)] * len(people),
        "subject": list(people),
        "answer": answers(1) * len(people),
    }
    rows = datasets.Dataset.from_dict(columns, features=datasets.Features({key: FEATURES[key] for key in columns}))
    datasets.DatasetDict({"train": rows}).save_to_disk(str(folder))
    if kind:
        (folder / RECIPE_NAME).write_text(json.dumps({"kind": kind}))
    return folder


def adapter(folder, sources, *, people=True, settings=None):
    """A model folder as written by training, without weights."""
    folder.mkdir(parents=True)
    recipe = make_recipe(
        "adapter",
        base={"name": "nano"},
        prompt={"name": "distill"},
        emotion=True,
        readout="mean",
        image_size=32,
        settings=settings or {},
        metrics={},
        trained_on=None if sources is None else [source.to_dict() for source in sources],
    )
    write_recipe(folder, recipe)
    if people and sources is not None:
        write_people(folder, sources)
    return folder


def trained(folder, dataset, **options):
    return adapter(folder, [source_of(load_faces(dataset, "train"), dataset, "train")], **options)


def agree(dataset, **uses):
    entries = "".join(f"  {who}: {{reference: form, uses: [{what}]}}\n" for who, what in uses.items())
    (dataset / NAME).write_text(f"subjects:\n{entries}")


def test_rendered_people_need_no_consent(tmp_path):
    dataset = faces(tmp_path / "faces", ["face-0000001", "face-0000002"], kind="faces")
    model = trained(tmp_path / "model", dataset)
    (source,) = read_people(model)
    assert (source.people, source.rows, source.hashes) == (0, 2, ())
    dataset.rename(tmp_path / "gone")
    require_publish(model)
    other = trained(tmp_path / "other", faces(tmp_path / "mixed", ["face-0000001", "ann"], kind="faces"))
    with pytest.raises(ConfigError, match=r"may not be published:\n.*consent\.yaml: no consent of ann\. Ask them"):
        require_publish(other)
    # The names alone do not make them rendered.
    with pytest.raises(ConfigError, match="no consent of face-0000001"):
        require_publish(trained(tmp_path / "third", faces(tmp_path / "copied", ["face-0000001"])))


@pytest.mark.parametrize("people", [True, False])
def test_everybody_must_agree(tmp_path, people):
    dataset = faces(tmp_path / "faces", ["ann", "ben", "ann", "cem"])
    model = trained(tmp_path / "model", dataset, people=people)
    agree(dataset, ann="train, publish", ben="train", cem="publish")
    with pytest.raises(ConfigError) as refused:
        require_publish(model)
    assert "ben agreed to train, not to publish" in str(refused.value)
    assert "ann" not in str(refused.value).replace(str(tmp_path), "") and "cem" not in str(refused.value)
    agree(dataset, ann="publish", ben="publish", cem="publish")
    require_publish(model)
    day = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=1)
    list_ = dataset / NAME
    list_.write_text(list_.read_text().replace("uses: [publish]", f"uses: [publish], until: {day}", 1))
    with pytest.raises(ConfigError, match=f"the consent of ann ended on {day}"):
        require_publish(model)


def test_forgotten_people_are_still_in_the_model(tmp_path):
    dataset = faces(tmp_path / "faces", ["ann", "ben", "cem"])
    agree(dataset, ann="publish", ben="publish", cem="publish")
    model, old = trained(tmp_path / "model", dataset), trained(tmp_path / "old", dataset, people=False)
    forget("ann", dataset, [])
    with pytest.raises(ConfigError, match=r"1 person it was trained on is no longer in .*faces\. Train it again"):
        require_publish(model)
    with pytest.raises(ConfigError, match="has changed since"):
        require_publish(old)
    require_publish(trained(tmp_path / "anew", dataset))


def test_unknown_training_data_is_refused(tmp_path):
    dataset = faces(tmp_path / "faces", ["ann", None])
    agree(dataset, ann="publish")
    model = trained(tmp_path / "model", dataset)
    assert read_people(model)[0].people == 2
    with pytest.raises(ConfigError, match="do not say who is in them"):
        require_publish(model)
    dataset.rename(tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"whose people are not known: no such folder\. Run this where"):
        require_publish(model)
    with pytest.raises(ConfigError, match="does not record its training data"):
        require_publish(adapter(tmp_path / "silent", None, settings={"round": 1}))
    with pytest.raises(ModelError, match="is missing"):
        require_publish(tmp_path / "nothing")
    (model / PEOPLE_NAME).write_text("[{}]")
    with pytest.raises(ModelError, match="cannot be read"):
        require_publish(model)


def test_models_from_before_recipes_had_sources(tmp_path):
    dataset = faces(tmp_path / "faces", ["ann"])
    agree(dataset, ann="train")
    data = {"train": {"fingerprint": load_faces(dataset, "train")._fingerprint, "rows": 1}}
    model = adapter(tmp_path / "model", None, settings={"dataset": str(dataset), "data": data})
    with pytest.raises(ConfigError, match="ann agreed to train, not to publish"):
        require_publish(model)
    agree(dataset, ann="publish")
    require_publish(model)


def test_base_models_need_no_consent(tmp_path):
    recipe = make_recipe(
        "base", base=None, prompt={}, emotion=True, readout="mean", image_size=96, settings={}, metrics={}
    )
    write_recipe(tmp_path, recipe)
    require_publish(tmp_path)


def test_sources_contain_no_names(tmp_path):
    dataset, again = (faces(tmp_path / name, ["ann", "ben"]) for name in ("one", "two"))
    one = source_of(load_faces(dataset, "train"), dataset, "train")
    assert one.includes("ann") and not one.includes("cem") and one.people == 2
    other = Source(str(again), "train", "another", 2, 2)
    assert one.hash("ann") != other.hash("ann")
    assert merge_sources([one], [one, other]) == [one, other]
    model = adapter(tmp_path / "model", [one, other])
    recipe = json.loads((model / RECIPE_NAME).read_text())
    assert [source.hashes for source in sources_from_recipe(recipe)] == [(), ()] and len(
        read_people(model)[0].hashes
    ) == 2
    kept = (model / PEOPLE_NAME).read_text() + json.dumps(recipe)
    assert '"ann"' not in kept and one.hash("ann") not in json.dumps(recipe)


@pytest.mark.parametrize("known", [True, False])
def test_an_aligned_model_inherits_the_sources_of_its_start(tmp_path, known):
    """If the sources of the starting model are unknown, so are those of the aligned one."""
    start, dataset = tiny_adapter(tmp_path), noise_faces(tmp_path / "faces", rows=10)
    first = Source("elsewhere", "train", "f" * 16, 3, 2, ("a" * 32, "b" * 32))
    if known:
        write_people(start, [first])
    alignment = RoundRunner(
        start=start,
        dataset=dataset,
        output=tmp_path / "out",
        rounds=RoundSettings(max_rounds=2, per_picture=4, held_out=0.3, early_stopping=False),
        candidates=CandidateSettings(count=3, tries=1),
        align=AlignSettings(per_device_train_batch_size=8, num_train_epochs=1, mirror=False),
        truth=dataset,
        log=lambda _: None,
    )
    train = load_faces(dataset, "train")
    judge = SimulatedJudge(dict(zip(picture_names(train), coefficients_of(train), strict=True)), seed=0)
    candidate_sets, model = alignment.sample_candidates(1)
    choices = alignment.collect_choices(1, candidate_sets, model, judge)
    training, held_out, _ = alignment.build_pairs(1, candidate_sets, choices)
    alignment.train_adapter(1, training, held_out)
    second = source_of(train, dataset, "train")
    expected = [first, second] if known else None
    assert read_people(alignment.model(1)) == expected
    recipe = read_recipe(alignment.model(1))
    assert recipe.get(KEY) == ([source.to_dict() for source in expected] if known else None)
    _copy_adapter(alignment.model(1), tmp_path / "best")
    assert read_people(tmp_path / "best") == expected
    with pytest.raises(ConfigError, match="may not be published" if known else "does not record its training data"):
        require_publish(tmp_path / "best")
