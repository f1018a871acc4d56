"""Rounds of alignment: each step writes a file, a stopped run resumes exactly, and reward hacking is detected."""

import json
from dataclasses import replace

import datasets
import numpy as np
import pytest

from semanticface.data.faces import coefficients_of, load_faces
from semanticface.errors import ConfigError, DatasetError, ModelError, PictureError, TableError
from semanticface.preference import round as round_steps
from semanticface.preference import rounds
from semanticface.preference.dpo import AlignSettings, Margins
from semanticface.preference.files import read_choices
from semanticface.preference.judges import SimulatedJudge
from semanticface.preference.round import HeldOutSet, RoundRunner, RoundSettings, held_out_pictures, picture_names
from semanticface.preference.rounds import Judges, claim_output_dir, run_rounds
from semanticface.preference.sampling import CandidateSettings
from semanticface.preference.types import CandidateSet
from semanticface.recipe import read_recipe
from tests.helpers.formats_page import listed
from tests.helpers.tiny_adapter import tiny_adapter
from tests.helpers.tiny_models import faces as noise_faces


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """An untrained adapter, and pictures of noise."""
    folder = tmp_path_factory.mktemp("rounds")
    return tiny_adapter(folder), noise_faces(folder / "faces", rows=10)


@pytest.fixture
def runner(places, tmp_path):
    start, dataset = places
    return RoundRunner(
        start=start,
        dataset=dataset,
        output=tmp_path / "out",
        rounds=RoundSettings(max_rounds=2, per_picture=4, held_out=0.3),
        candidates=CandidateSettings(count=3, tries=1),
        align=AlignSettings(per_device_train_batch_size=8, num_train_epochs=1, mirror=False),
        truth=dataset,
        log=lambda message: None,
    )


class Partial:
    """Prefers a model's newer predictions, or the opposite; answers nothing else."""

    def __init__(self, name, newer):
        self.name, self.newer = name, newer

    def choose(self, questions, candidate_sets):
        return ["a" if (question.a == "one") == self.newer else "b" for question in questions]


def people(places, seed=0):
    truth = {}
    for split in ("train", "validation"):
        there = load_faces(places[1], split)
        truth |= dict(zip(picture_names(there), coefficients_of(there), strict=True))
    return SimulatedJudge(truth, seed=seed)


def tree(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_rounds_write_all_their_files(runner, places):
    judge, messages = people(places), []
    runner = replace(runner, log=messages.append)
    result = run_rounds(runner, Judges(judge, Partial("auditor", newer=True)))
    margins = [each["margins"] for each in result.metrics[1:]]
    for line, each in zip([line for line in messages if line.startswith("held out")], margins, strict=True):
        assert f"{each['accuracy']:.1%} of {each['pairs']} pairs" in line
        assert f"{each['blank_ratio']:.0%} of the gain remains with a blank picture" in line
    assert (result.best, result.made, result.stopped) == (2, 2, "reached rounds.max_rounds, 2")
    for number in (1, 2):
        names = {path.name for path in runner.folder(number).iterdir()}
        assert names == {
            "candidates.jsonl", "choices.jsonl", "pairs.jsonl", "held_out_pairs.jsonl", "adapter",
            "predictions.jsonl", "metrics.json",
        }  # fmt: skip
        assert {choice.round for _, choice in read_choices(runner.folder(number) / "choices.jsonl")[0]} == {number}
    recipe = read_recipe(runner.output / "adapter")
    assert recipe["settings"]["round"] == 2
    assert recipe["metrics"] == result.metrics[2]["margins"]
    assert (runner.output / "adapter" / "adapter_model.safetensors").read_bytes() == (
        runner.model(2) / "adapter_model.safetensors"
    ).read_bytes()
    result_file = json.loads((runner.output / "rounds.json").read_text())
    assert result_file["best"] == 2
    assert listed("`metrics.json` of a round") == list(result_file["metrics"][1])
    assert result_file["metrics"][1]["audit"]["all"]["value"] == 1
    assert result_file["metrics"][0]["vertex_error_whole"] > 0
    assert result_file["metrics"][1]["pairs"]["kept"] > 0


def test_a_gain_for_the_labeler_alone_is_not_trusted(runner):
    """The labeler prefers every round; the auditor sees no gain."""
    judges = Judges(Partial("pleased", newer=True), Partial("auditor", newer=False))
    result = run_rounds(runner, judges)
    assert (result.best, result.made) == (0, 1)
    assert "round 1 wins 0.0% of the auditor's comparisons with round 0" in result.stopped
    assert result.metrics[1]["label"]["all"]["value"] == 1
    without_stopping = replace(runner, rounds=replace(runner.rounds, early_stopping=False))
    result = run_rounds(without_stopping, judges)
    assert (result.best, result.made) == (0, 2)
    assert "round 1 wins 0.0%" in result.stopped
    assert (runner.output / "adapter" / "adapter_model.safetensors").read_bytes() == (
        runner.start / "adapter_model.safetensors"
    ).read_bytes()


def test_a_stopped_run_resumes_and_ends_with_the_same_bytes(runner, places, tmp_path, monkeypatch):
    judge = people(places)

    def run(where):
        return run_rounds(where, Judges(judge, Partial("auditor", newer=True)))

    short = replace(runner, rounds=replace(runner.rounds, max_rounds=1))
    wanted = run(replace(short, output=tmp_path / "uninterrupted"))

    class Stopped(Exception):
        pass

    killed = replace(short, output=tmp_path / "killed")
    for step in ("write_candidates", "write_choices", "write_pairs", "align", "save_adapter", "win_rate"):
        with monkeypatch.context() as patch:

            def stop(*_args, **_named):
                raise Stopped

            patch.setattr(rounds if step == "win_rate" else round_steps, step, stop)
            with pytest.raises(Stopped):
                run(killed)
    assert run(killed) == wanted
    assert tree(tmp_path / "killed") == tree(tmp_path / "uninterrupted")

    # A finished run makes nothing again.
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").rglob("*.safetensors")}
    assert run(killed) == wanted
    assert {path: path.stat().st_mtime_ns for path in stamps if path.parent.parent.name == "round-1"} == {
        path: stamp for path, stamp in stamps.items() if path.parent.parent.name == "round-1"
    }


def test_undefined_figures_are_null(runner, monkeypatch):
    """Unchanged margins have no ratio, and a judge who skips everything no win rate."""

    class Silent(Partial):
        def choose(self, questions, candidate_sets):
            answers = super().choose(questions, candidate_sets)
            return answers if "model-1" in {question.a for question in questions} else ["skip"] * len(answers)

    still = Margins(pairs=3, before=1.0, after=1.0, blank_before=0.5, blank_after=0.5, accuracy=0.5)
    monkeypatch.setattr(round_steps, "align", lambda *args, **named: still)
    messages = []
    once = replace(runner, rounds=replace(runner.rounds, max_rounds=1), log=messages.append)
    judge = Silent("silent", newer=True)
    result = run_rounds(once, Judges(judge, judge))

    def refuse(name):
        pytest.fail(f"{name} in a file of figures")

    files = [once.folder(1) / "metrics.json", once.output / "rounds.json", once.model(1) / "semanticface.json"]
    found, summary, recipe = (json.loads(file.read_text(), parse_constant=refuse) for file in files)
    assert found["margins"]["blank_ratio"] is None and recipe["metrics"]["blank_ratio"] is None
    assert found["audit"]["all"] == {"value": None, "low": None, "high": None}
    assert (summary["best"], result.best) == (0, 0)
    assert "held out  50.0% of 3 pairs moved the right way; no gain" in messages


def test_choices_of_people_are_used_in_round_one_or_refused(runner, places, tmp_path):
    judge = people(places)
    once = replace(runner, rounds=replace(runner.rounds, max_rounds=1))
    candidate_sets, model = once.sample_candidates(1)
    choices = once.collect_choices(1, candidate_sets, model, judge)
    given = [replace(choice, annotator="robin") for choice in choices]
    people_chose = replace(once, output=tmp_path / "people", choices=given)
    run_rounds(people_chose, Judges(judge, Partial("auditor", newer=True)))
    found, _ = read_choices(people_chose.folder(1) / "choices.jsonl")
    assert {choice.annotator for _, choice in found} == {"robin"}
    others = [replace(choice, model="another") for choice in choices]
    with pytest.raises(DatasetError, match="choices is about the candidates"):
        run_rounds(replace(once, output=tmp_path / "foreign", choices=others), Judges(judge, judge))


def test_new_choices_are_used_or_refused(runner, places, tmp_path):
    """Choices exported later must not be silently ignored."""
    judge = people(places)
    messages = []
    once = replace(runner, rounds=replace(runner.rounds, max_rounds=1), log=messages.append)
    candidate_sets, model = once.sample_candidates(1)
    everything = once.collect_choices(1, candidate_sets, model, judge)
    half = everything[::2]
    (once.folder(1) / "choices.jsonl").unlink()
    assert replace(once, choices=half).collect_choices(1, candidate_sets, model) == half
    other = replace(everything[0], round=2)
    assert replace(once, choices=[*everything, *half, other]).collect_choices(1, candidate_sets, model) == everything
    assert messages[1:] == ["left out  1 choices about candidates of other models or rounds"]
    given = replace(once, choices=everything)
    judges = Judges(judge, Partial("auditor", newer=True))
    wanted = run_rounds(given, judges)
    assert run_rounds(given, judges) == run_rounds(once, judges) == wanted
    with pytest.raises(DatasetError, match="another output to start over"):
        run_rounds(replace(once, choices=half), judges)
    assert once.collect_choices(1, candidate_sets, model) == everything


def test_one_picture_alone_is_too_few(runner, places):
    """Somebody must be held out."""
    once = replace(runner, rounds=replace(runner.rounds, max_rounds=1, train_rows=1))
    with pytest.raises(DatasetError, match=r"0 held out: both are needed, of different people"):
        run_rounds(once, Judges(people(places), Partial("auditor", newer=True)))


def test_indistinguishable_candidates_are_refused(runner):
    candidate_sets, model = runner.sample_candidates(1)
    first = candidate_sets[0].candidates[0]
    alike = [replace(each, candidates=(first, replace(first, id="twin"))) for each in candidate_sets]
    with pytest.raises(DatasetError, match="no two candidates of a picture can be told apart in upper or lower"):
        runner.collect_choices(1, alike, model, Partial("judge", newer=True))
    assert not (runner.folder(1) / "choices.jsonl").exists()


def test_files_of_another_model_or_settings_are_refused(runner, tmp_path):
    runner.sample_candidates(1)
    path = runner.folder(1) / "candidates.jsonl"
    header, rest = path.read_text().split("\n", 1)
    path.write_text(json.dumps(json.loads(header) | {"model": "another"}) + "\n" + rest)
    with pytest.raises(ModelError):
        runner.sample_candidates(1)
    claim_output_dir(tmp_path / "new", {"beta": 0.1})
    claim_output_dir(tmp_path / "new", {"beta": 0.2})
    (tmp_path / "new" / "round-0").mkdir()
    claim_output_dir(tmp_path / "new", {"beta": 0.2})
    with pytest.raises(ConfigError, match="has rounds with other settings: beta"):
        claim_output_dir(tmp_path / "new", {"beta": 0.3})


def test_people_are_held_out_with_all_pictures():
    candidate_sets = [CandidateSet(f"p{n}", n, f"s{n % 5}", ()) for n in range(40)]
    chosen = held_out_pictures(candidate_sets, 0.4, seed=0)
    subjects = {each.subject for each in candidate_sets if each.picture in chosen}
    assert len(subjects) == 2
    assert chosen == {each.picture for each in candidate_sets if each.subject in subjects}
    assert chosen == held_out_pictures(candidate_sets[::-1], 0.4, seed=0)
    alone = [replace(each, subject="s") for each in candidate_sets]
    assert len(held_out_pictures(alone, 0.25, seed=0)) == 10
    few, many = (len(held_out_pictures(candidate_sets, proportion, seed=0)) for proportion in (0.01, 0.9))
    assert 0 < few < many < 40


def test_people_held_out_in_round_one_stay_held_out():
    """In a later round some pictures may lack distinct candidates, which must not change who is held out."""
    candidate_sets = [CandidateSet(f"p{n}", n, f"s{n % 20}", ()) for n in range(40)]
    for everybody in (candidate_sets, [replace(each, subject="s") for each in candidate_sets]):
        kept = held_out_pictures(everybody, 0.3, seed=0)
        for missing in range(40):
            later = [each for each in everybody if each.row % 20 != missing % 20 and each.row != 39]
            still = held_out_pictures(later, 0.3, seed=0, first=everybody)
            assert still == kept & {each.picture for each in later}


def test_rounds_never_train_on_people_held_out_before(runner, places, monkeypatch):
    judge = people(places)
    made = {}
    sampled = round_steps.sample_candidates

    def fewer(*args, **named):
        """In the second round all but one of the held-out pictures lack candidates."""
        kept = held_out_pictures(made[1], runner.rounds.held_out, 0) if made else set()
        candidate_sets = [each for each in sampled(*args, **named) if each.picture not in sorted(kept)[1:]]
        made[len(made) + 1] = candidate_sets
        return candidate_sets

    monkeypatch.setattr(round_steps, "sample_candidates", fewer)
    run_rounds(runner, Judges(judge, Partial("auditor", newer=True)))

    def about(number, name):
        lines = (runner.folder(number) / f"{name}.jsonl").read_text().splitlines()
        return {json.loads(line)["picture"] for line in lines}

    assert len(made[2]) < len(made[1])
    assert about(2, "held_out_pairs") <= about(1, "held_out_pairs")
    assert not about(1, "pairs") & about(2, "held_out_pairs")


def test_with_one_person_pictures_are_bootstrapped(runner):
    """Otherwise the interval over people would be a point, and every gain significant."""
    answers = coefficients_of(load_faces(runner.dataset, "validation"))
    candidate_sets = runner.held_out_set.compare(answers, answers)
    assert len({each.subject for each in candidate_sets}) == len(candidate_sets) == 2
    answers[0] = np.nan
    assert len(runner.held_out_set.compare(answers, 1 - answers)) == 1


def test_a_model_without_answers_is_refused(runner):
    nothing = np.full((2, 52), np.nan, np.float32)
    with pytest.raises(ModelError, match="no answer to any of 2 pictures"):
        runner.held_out_set.errors(nothing)
    with pytest.raises(ModelError, match="no picture has an answer from both"):
        runner.held_out_set.compare(nothing, np.zeros((2, 52), np.float32))


@pytest.mark.parametrize(
    ("picture", "error"), [(b"no picture", "row 1: the content is not a picture"), (None, "row 1")]
)
def test_an_unreadable_picture_is_named(places, tmp_path, picture, error):
    start, dataset = places
    faces = load_faces(dataset, "validation")
    rows = faces.cast_column("picture", datasets.Image(decode=False)).to_list()
    rows[1]["picture"] = picture and {"bytes": picture, "path": None}
    features = datasets.Features(faces.features | {"picture": datasets.Image()})
    spoilt = datasets.DatasetDict({"validation": datasets.Dataset.from_list(rows, features=features)})
    spoilt.save_to_disk(str(tmp_path / "spoilt"))
    with pytest.raises(PictureError, match=error):
        HeldOutSet(tmp_path / "spoilt", tmp_path / "spoilt", 2).predict(start, tmp_path / "predictions.jsonl")
    assert not (tmp_path / "predictions.jsonl").exists()


def test_predictions_of_other_pictures_are_refused(runner):
    path = runner.folder(0) / "predictions.jsonl"
    assert len(runner.predict_held_out(0)) == 2
    path.write_text(path.read_text().split("\n")[0] + "\n")
    with pytest.raises(TableError, match="1 predictions for 2 pictures"):
        runner.predict_held_out(0)


def test_errors_are_measured_against_the_ground_truth(runner):
    true = coefficients_of(load_faces(runner.dataset, "validation"))
    found = runner.held_out_set.errors(true)
    assert found["vertex_error_whole"] == found["mae"] == 0
    missing = true.copy()
    missing[0] = np.nan
    assert runner.held_out_set.errors(missing)["mae"] == 0
    worse = runner.held_out_set.errors(1 - true)
    assert min(worse.values()) > 0
