"""Rounds of alignment: every step a file, a stopped run ends as one that was not, and a gamed judge is found out."""

from __future__ import annotations

import json
from dataclasses import replace

import datasets
import numpy as np
import pytest

from semanticface.data.faces import coefficients_of, load_faces
from semanticface.errors import ConfigError, DatasetError, ModelError, PictureError, TableError
from semanticface.preference import round as stepping
from semanticface.preference import rounds as making
from semanticface.preference.dpo import AlignSettings, Margins
from semanticface.preference.files import read_choices
from semanticface.preference.judges import SimulatedJudge
from semanticface.preference.round import HeldOutSet, RoundRunner, RoundSettings, held_out, picture_names
from semanticface.preference.rounds import Judges, claim, run_rounds
from semanticface.preference.sampling import CandidateSettings
from semanticface.preference.types import CandidateSet
from semanticface.recipe import read_recipe
from tests.helpers.formats_page import listed
from tests.helpers.tiny_adapter import tiny_adapter
from tests.helpers.tiny_models import faces as noise_faces


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """An adapter that was never taught, and pictures of noise."""
    folder = tmp_path_factory.mktemp("rounds")
    return tiny_adapter(folder), noise_faces(folder / "faces", rows=10)


@pytest.fixture
def alignment(places, tmp_path):
    start, dataset = places
    return RoundRunner(
        start=start,
        dataset=dataset,
        output=tmp_path / "out",
        rounds=RoundSettings(max_rounds=2, per_picture=4, held_out=0.3),
        candidates=CandidateSettings(count=3, tries=1),
        align=AlignSettings(per_device_train_batch_size=8, num_train_epochs=1, mirror=False),
        truth=dataset,
        say=lambda told: None,
    )


class Partial:
    """Prefers what a model newly says, or the opposite; answers nothing else."""

    def __init__(self, name, newer):
        self.name, self.newer = name, newer

    def choose(self, questions, slates):
        return ["a" if (question.a == "one") == self.newer else "b" for question in questions]


def people(places, seed=0):
    truth = {}
    for split in ("train", "validation"):
        there = load_faces(places[1], split)
        truth |= dict(zip(picture_names(there), coefficients_of(there), strict=True))
    return SimulatedJudge(truth, seed=seed)


def tree(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_rounds_leave_all_they_are_made_of(alignment, places):
    judge, said = people(places), []
    alignment = replace(alignment, say=said.append)
    result = run_rounds(alignment, Judges(judge, Partial("auditor", newer=True)))
    margins = [each["margins"] for each in result.metrics[1:]]
    for line, each in zip([line for line in said if line.startswith("held out")], margins, strict=True):
        assert f"{each['accuracy']:.1%} of {each['pairs']} pairs" in line
        assert f"{each['blank_ratio']:.0%} of what was learnt is left with a blank picture" in line
    assert (result.best, result.made, result.stopped) == (2, 2, "2 rounds were asked for")
    for number in (1, 2):
        names = {path.name for path in alignment.folder(number).iterdir()}
        assert names == {
            "candidates.jsonl",
            "choices.jsonl",
            "pairs.jsonl",
            "held_out_pairs.jsonl",
            "adapter",
            "predictions.jsonl",
            "metrics.json",
        }
        assert {choice.round for _, choice in read_choices(alignment.folder(number) / "choices.jsonl")[0]} == {number}
    recipe = read_recipe(alignment.output / "adapter")
    assert recipe["settings"]["round"] == 2
    assert recipe["metrics"] == result.metrics[2]["margins"]
    assert (alignment.output / "adapter" / "adapter_model.safetensors").read_bytes() == (
        alignment.model(2) / "adapter_model.safetensors"
    ).read_bytes()
    told = json.loads((alignment.output / "rounds.json").read_text())
    assert told["best"] == 2
    assert listed("`metrics.json` of a round") == list(told["metrics"][1])
    assert told["metrics"][1]["audit"]["all"]["value"] == 1
    assert told["metrics"][0]["vertex_error_whole"] > 0
    assert told["metrics"][1]["pairs"]["kept"] > 0


def test_a_judge_that_is_pleased_alone_is_not_believed(alignment):
    """The labelling judge applauds every round; the auditor sees that nothing became better."""
    judges = Judges(Partial("pleased", newer=True), Partial("auditor", newer=False))
    result = run_rounds(alignment, judges)
    assert (result.best, result.made) == (0, 1)
    assert "round 1 wins 0.0% of the auditor's comparisons with round 0" in result.stopped
    assert result.metrics[1]["label"]["all"]["value"] == 1
    unheeded = replace(alignment, rounds=replace(alignment.rounds, early_stopping=False))
    result = run_rounds(unheeded, judges)
    assert (result.best, result.made) == (0, 2)
    assert "round 1 wins 0.0%" in result.stopped
    assert (alignment.output / "adapter" / "adapter_model.safetensors").read_bytes() == (
        alignment.start / "adapter_model.safetensors"
    ).read_bytes()


def test_a_stopped_run_goes_on_at_its_step_and_ends_with_the_same_bytes(alignment, places, tmp_path, monkeypatch):
    judge = people(places)

    def run(where):
        return run_rounds(where, Judges(judge, Partial("auditor", newer=True)))

    short = replace(alignment, rounds=replace(alignment.rounds, max_rounds=1))
    wanted = run(replace(short, output=tmp_path / "calm"))

    class Stopped(Exception):
        pass

    killed = replace(short, output=tmp_path / "killed")
    for step in ("write_candidates", "write_choices", "write_pairs", "align", "save_adapter", "win_rate"):
        with monkeypatch.context() as patch:

            def stop(*_args, **_named):
                raise Stopped

            patch.setattr(making if step == "win_rate" else stepping, step, stop)
            with pytest.raises(Stopped):
                run(killed)
    assert run(killed) == wanted
    assert tree(tmp_path / "killed") == tree(tmp_path / "calm")

    # Finished is finished: nothing is made again.
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").rglob("*.safetensors")}
    assert run(killed) == wanted
    assert {path: path.stat().st_mtime_ns for path in stamps if path.parent.parent.name == "round-1"} == {
        path: stamp for path, stamp in stamps.items() if path.parent.parent.name == "round-1"
    }


def test_figures_that_are_undefined_are_null(alignment, monkeypatch):
    """Margins that did not move at all have no ratio, and a judge who skips everything no share of wins."""

    class Silent(Partial):
        def choose(self, questions, slates):
            answers = super().choose(questions, slates)
            return answers if "model-1" in {question.a for question in questions} else ["skip"] * len(answers)

    still = Margins(pairs=3, before=1.0, after=1.0, blank_before=0.5, blank_after=0.5, accuracy=0.5)
    monkeypatch.setattr(stepping, "align", lambda *args, **named: still)
    said = []
    once = replace(alignment, rounds=replace(alignment.rounds, max_rounds=1), say=said.append)
    judge = Silent("silent", newer=True)
    result = run_rounds(once, Judges(judge, judge))

    def refuse(name):
        pytest.fail(f"{name} in a file of figures")

    files = [once.folder(1) / "metrics.json", once.output / "rounds.json", once.model(1) / "semanticface.json"]
    found, told, recipe = (json.loads(file.read_text(), parse_constant=refuse) for file in files)
    assert found["margins"]["blank_ratio"] is None and recipe["metrics"]["blank_ratio"] is None
    assert found["audit"]["all"] == {"value": None, "low": None, "high": None}
    assert (told["best"], result.best) == (0, 0)
    assert "held out  50.0% of 3 pairs moved the right way; nothing was learnt" in said


def test_choices_of_people_are_used_in_round_one_or_refused(alignment, places, tmp_path):
    judge = people(places)
    once = replace(alignment, rounds=replace(alignment.rounds, max_rounds=1))
    slates, model = once.slates(1)
    choices = once.chosen(1, slates, model, judge)
    given = [replace(choice, annotator="robin") for choice in choices]
    people_chose = replace(once, output=tmp_path / "people", choices=given)
    run_rounds(people_chose, Judges(judge, Partial("auditor", newer=True)))
    found, _ = read_choices(people_chose.folder(1) / "choices.jsonl")
    assert {choice.annotator for _, choice in found} == {"robin"}
    others = [replace(choice, model="another") for choice in choices]
    with pytest.raises(DatasetError, match="choices is about the candidates"):
        run_rounds(replace(once, output=tmp_path / "foreign", choices=others), Judges(judge, judge))


def test_choices_given_anew_are_learnt_from_or_refused(alignment, places, tmp_path):
    """More choices, exported later, must not be left aside in silence."""
    judge = people(places)
    told = []
    once = replace(alignment, rounds=replace(alignment.rounds, max_rounds=1), say=told.append)
    slates, model = once.slates(1)
    everything = once.chosen(1, slates, model, judge)
    half = everything[::2]
    (once.folder(1) / "choices.jsonl").unlink()
    assert replace(once, choices=half).chosen(1, slates, model) == half
    foreign = replace(everything[0], round=2)
    assert replace(once, choices=[*everything, *half, foreign]).chosen(1, slates, model) == everything
    assert told[1:] == ["left out  1 choices about candidates of other models or rounds"]
    given = replace(once, choices=everything)
    judges = Judges(judge, Partial("auditor", newer=True))
    wanted = run_rounds(given, judges)
    assert run_rounds(given, judges) == run_rounds(once, judges) == wanted
    with pytest.raises(DatasetError, match="another output to begin anew"):
        run_rounds(replace(once, choices=half), judges)
    assert once.chosen(1, slates, model) == everything


def test_one_picture_alone_is_too_few(alignment, places):
    """Somebody must be measured on of whom nothing was learnt."""
    once = replace(alignment, rounds=replace(alignment.rounds, max_rounds=1, train_rows=1))
    with pytest.raises(DatasetError, match=r"0 held out: both are needed, of different people"):
        run_rounds(once, Judges(people(places), Partial("auditor", newer=True)))


def test_candidates_that_nobody_can_tell_apart_are_told(alignment):
    slates, model = alignment.slates(1)
    alike = [
        replace(slate, candidates=(slate.candidates[0], replace(slate.candidates[0], id="twin"))) for slate in slates
    ]
    with pytest.raises(DatasetError, match="no two candidates of a picture can be told apart in upper or lower"):
        alignment.chosen(1, alike, model, Partial("judge", newer=True))
    assert not (alignment.folder(1) / "choices.jsonl").exists()


def test_files_of_another_model_or_settings_are_refused(alignment, tmp_path):
    alignment.slates(1)
    path = alignment.folder(1) / "candidates.jsonl"
    header, rest = path.read_text().split("\n", 1)
    path.write_text(json.dumps(json.loads(header) | {"model": "another"}) + "\n" + rest)
    with pytest.raises(ModelError):
        alignment.slates(1)
    claim(tmp_path / "new", {"beta": 0.1})
    claim(tmp_path / "new", {"beta": 0.2})
    (tmp_path / "new" / "round-0").mkdir()
    claim(tmp_path / "new", {"beta": 0.2})
    with pytest.raises(ConfigError, match="begun with other settings: beta"):
        claim(tmp_path / "new", {"beta": 0.3})


def test_people_are_held_out_whole():
    slates = [CandidateSet(f"p{n}", n, f"s{n % 5}", ()) for n in range(40)]
    chosen = held_out(slates, 0.4, seed=0)
    subjects = {slate.subject for slate in slates if slate.picture in chosen}
    assert len(subjects) == 2
    assert chosen == {slate.picture for slate in slates if slate.subject in subjects}
    assert chosen == held_out(slates[::-1], 0.4, seed=0)
    alone = [replace(slate, subject="s") for slate in slates]
    assert len(held_out(alone, 0.25, seed=0)) == 10
    assert 0 < len(held_out(slates, 0.01, seed=0)) < len(held_out(slates, 0.9, seed=0)) < 40


def test_who_is_held_out_in_round_one_stays_held_out():
    """In a later round some pictures may have no candidates that differ, which must not change who is measured on."""
    slates = [CandidateSet(f"p{n}", n, f"s{n % 20}", ()) for n in range(40)]
    for everybody in (slates, [replace(slate, subject="s") for slate in slates]):
        kept = held_out(everybody, 0.3, seed=0)
        for missing in range(40):
            later = [slate for slate in everybody if slate.row % 20 != missing % 20 and slate.row != 39]
            still = held_out(later, 0.3, seed=0, first=everybody)
            assert still == kept & {slate.picture for slate in later}


def test_rounds_learn_from_nobody_whom_an_earlier_one_measured(alignment, places, monkeypatch):
    judge = people(places)
    made = {}
    sampled = stepping.sample_slates

    def fewer(*args, **named):
        """The second round's model has nothing to choose from for pictures that the first held out, but one."""
        kept = held_out(made[1], alignment.rounds.held_out, 0) if made else set()
        slates = [slate for slate in sampled(*args, **named) if slate.picture not in sorted(kept)[1:]]
        made[len(made) + 1] = slates
        return slates

    monkeypatch.setattr(stepping, "sample_slates", fewer)
    run_rounds(alignment, Judges(judge, Partial("auditor", newer=True)))

    def about(number, name):
        lines = (alignment.folder(number) / f"{name}.jsonl").read_text().splitlines()
        return {json.loads(line)["picture"] for line in lines}

    assert len(made[2]) < len(made[1])
    assert about(2, "held_out_pairs") <= about(1, "held_out_pairs")
    assert not about(1, "pairs") & about(2, "held_out_pairs")


def test_pictures_of_one_person_stand_for_themselves(alignment):
    """Else an interval over people would be a point, and every rise of the win rate sure."""
    answers = coefficients_of(load_faces(alignment.dataset, "validation"))
    slates = alignment.measured.compared(answers, answers)
    assert len({slate.subject for slate in slates}) == len(slates) == 2
    answers[0] = np.nan
    assert len(alignment.measured.compared(answers, 1 - answers)) == 1


def test_a_model_without_answers_is_told_and_not_measured(alignment):
    nothing = np.full((2, 52), np.nan, np.float32)
    with pytest.raises(ModelError, match="no answer to any of 2 pictures"):
        alignment.measured.errors(nothing)
    with pytest.raises(ModelError, match="no picture has an answer from both"):
        alignment.measured.compared(nothing, np.zeros((2, 52), np.float32))


@pytest.mark.parametrize(("picture", "told"), [(b"no picture", "row 1: the content is not a picture"), (None, "row 1")])
def test_a_picture_that_cannot_be_read_is_named(places, tmp_path, picture, told):
    start, dataset = places
    faces = load_faces(dataset, "validation")
    rows = faces.cast_column("picture", datasets.Image(decode=False)).to_list()
    rows[1]["picture"] = picture and {"bytes": picture, "path": None}
    features = datasets.Features(faces.features | {"picture": datasets.Image()})
    spoilt = datasets.DatasetDict({"validation": datasets.Dataset.from_list(rows, features=features)})
    spoilt.save_to_disk(str(tmp_path / "spoilt"))
    with pytest.raises(PictureError, match=told):
        HeldOutSet(tmp_path / "spoilt", tmp_path / "spoilt", 2).predicted(start, tmp_path / "predictions.jsonl")
    assert not (tmp_path / "predictions.jsonl").exists()


def test_predictions_of_other_pictures_are_refused(alignment):
    path = alignment.folder(0) / "predictions.jsonl"
    assert len(alignment.predicted(0)) == 2
    path.write_text(path.read_text().split("\n")[0] + "\n")
    with pytest.raises(TableError, match="1 predictions for 2 pictures"):
        alignment.predicted(0)


def test_errors_are_measured_by_the_truth(alignment):
    true = coefficients_of(load_faces(alignment.dataset, "validation"))
    found = alignment.measured.errors(true)
    assert found["vertex_error_whole"] == found["mae"] == 0
    missing = true.copy()
    missing[0] = np.nan
    assert alignment.measured.errors(missing)["mae"] == 0
    worse = alignment.measured.errors(1 - true)
    assert min(worse.values()) > 0
