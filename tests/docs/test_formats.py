"""docs/formats.md: every field that is written stands there, and nothing else does."""

import dataclasses
import json
import re
import sqlite3
import typing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import yaml

from semanticface import arkit
from semanticface.cli.main import main
from semanticface.data import faces
from semanticface.data.captures import dataset as capture_set
from semanticface.data.captures.dataset import TakeRecord
from semanticface.data.consent import USES, consent_template, read_consent_file
from semanticface.data.provenance import KEY, Source, write_people
from semanticface.data.rendered import RenderSettings, render_set
from semanticface.evaluation.metrics import score
from semanticface.evaluation.zero_shot.questions import ParsedReply, Reply
from semanticface.evaluation.zero_shot.run import AnswerLog
from semanticface.formats import live_link, tables
from semanticface.formats.live_link import LiveLinkRow
from semanticface.inference.intervals import NumberSummary
from semanticface.inference.predictor import Prediction
from semanticface.inference.video import FrameAnswer
from semanticface.llm.analysis_writer import WrittenAnalysis
from semanticface.preference.files import CandidateHeader, choice_dict, write_candidates
from semanticface.preference.pairs import write_pairs
from semanticface.preference.rounds import Rounds
from semanticface.preference.store import Store
from semanticface.preference.types import Candidate, CandidateSet, Choice, Pair, Question
from semanticface.recipe import read_recipe
from semanticface.semantics.analysis import describe
from semanticface.semantics.answer import format_answer
from semanticface.vision.crop import Box
from tests.helpers.formats_page import PAGE, listed
from tests.helpers.scripts import load_script

ROOT = Path(__file__).resolve().parents[2]
VALUES = np.linspace(0, 1, 52, dtype=np.float32)


def flat(value, *, into):
    """Keys of an object, with those of the objects named behind a dot."""
    return [
        f"{key}.{inner}" if key in into else key for key in value for inner in (value[key] if key in into else [""])
    ]


def keys_of_lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_answers():
    answer = json.loads(format_answer(VALUES, describe(VALUES), np.zeros(9)))
    assert listed("Answers") == flat(answer, into=("analysis",))
    for region in answer["analysis"]["muscle_movements"]:
        assert f"`{region}`" in PAGE


def test_predictions(tmp_path):
    interval = np.stack([VALUES, VALUES], axis=1)
    summary = NumberSummary(VALUES, VALUES, VALUES, interval, True)
    good = Prediction(
        "a.png", "ok", coefficients=VALUES, analysis=describe(VALUES), box=Box(0, 0, 9, 9), note="x", summary=summary,
        pose=np.zeros(9, np.float32), repaired={"jaw": "fully open"}, face=1,
    )  # fmt: skip
    bad = Prediction("b.png", "invalid_answer", "why", text="{")
    tables.write(tmp_path / "out.jsonl", [good, bad])
    written = {key for line in keys_of_lines(tmp_path / "out.jsonl") for key in line}
    assert set(listed("`predictions.jsonl`")) == written
    frame = FrameAnswer(
        "000001", coefficients=VALUES, frame=1, time=Fraction(1, 30), timecode="00:00:00:01.000", interval=interval
    )
    assert set(frame.to_dict()) - written == set(listed("`predictions.jsonl`", "field of a take"))


def test_convert_adds_the_pose(tmp_path):
    live_link.write(tmp_path / "a_1_b.csv", [LiveLinkRow("00:00:00:00.000", VALUES, np.full(9, 0.1))])
    assert main(["convert", str(tmp_path / "a_1_b.csv"), "--to", "jsonl", "--out", str(tmp_path / "x.jsonl")]) == 0
    (line,) = keys_of_lines(tmp_path / "x.jsonl")
    assert list(line["pose"]) == list(arkit.POSE_NAMES) and "`pose`" in PAGE
    assert set(line) - {"pose"} <= {*listed("`predictions.jsonl`"), *listed("`predictions.jsonl`", "field of a take")}


def test_published_rows_are_read(tmp_path):
    rows = [
        {"messages": [{"role": "assistant", "content": format_answer(VALUES, None)}], "images": ["a.jpg"]},
        {"response": format_answer(VALUES, None), "images": ["b.jpg"]},
    ]
    assert set(listed("ms-swift JSONL")) == {key for row in rows for key in row}
    (tmp_path / "swift.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "ours.csv"
    assert main(["convert", str(tmp_path / "swift.jsonl"), "--to", "csv", "--out", str(out)]) == 0
    assert [row.label for row in tables.read_coefficients(out)] == ["a.jpg", "b.jpg"]


def test_datasets():
    assert listed("Rendered faces", "column") == list(faces.FEATURES)
    assert all(f"`{key}`" in PAGE for key in faces.CAMERA_KEYS)
    assert listed("Captures", "column") == list(capture_set.FEATURES)
    assert listed("`takes/KEY.json`") == [each.name for each in dataclasses.fields(TakeRecord)]


def test_a_rendered_dataset_says_how_it_was_made(tmp_path):
    render_set(tmp_path / "faces", RenderSettings(rows=3, size=32, supersample=1, splits={"train": 1.0}))
    recipe = json.loads((tmp_path / "faces" / "semanticface.json").read_text())
    assert set(listed("`semanticface.json` of a dataset")) == set(recipe)


def test_consent(tmp_path):
    (tmp_path / "consent.yaml").write_text(consent_template(["ann"]))
    fields = listed("`consent.yaml`", "field of `subjects.NAME`")
    for field in ("reference", "licence"):
        entry = {field: "x", "uses": list(USES), "until": "2099-01-01"}
        assert set(entry) <= set(fields)
        (tmp_path / "list.yaml").write_text(yaml.safe_dump({"subjects": {"ann": entry}}).replace("'", ""))
        assert read_consent_file(tmp_path / "list.yaml")["ann"].uses == set(USES)
    assert set(yaml.safe_load(consent_template(["ann"]))["subjects"]["ann"]) <= set(fields)
    assert all(f"`{use}`" in PAGE for use in USES)


def test_described_tables(tmp_path):
    tables.write(tmp_path / "in.csv", [tables.RowResult("a", coefficients=VALUES), tables.RowResult("b", "x", "why")])
    from semanticface.data.describe import describe_table

    describe_table(tmp_path / "in.csv", tmp_path / "out.jsonl")
    written = {key for line in keys_of_lines(tmp_path / "out.jsonl") for key in line}
    assert written - {"image", "coefficients"} == set(listed("Described tables"))
    words = {each.name for each in dataclasses.fields(WrittenAnalysis)} - {"analysis"}
    assert set(listed("Described tables", "field with a writer")) == words


def test_recipes_of_models():
    recipe = read_recipe(ROOT / "semanticface" / "assets" / "nano")
    assert set(listed("`semanticface.json` of a model")) == {*recipe, KEY, "pose"}


def test_training_data_of_an_adapter(tmp_path):
    source = Source("outputs/captures", "train", "f", 3, 1, ("h",))
    write_people(tmp_path, [source])
    (entry,) = json.loads((tmp_path / "people.json").read_text())
    (in_recipe,) = [source.to_dict()]
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{KEY}` |")]
    assert all(f"`{key}`" in line or key in line for key in in_recipe)
    assert set(listed("`people.json`")) == entry.keys() - in_recipe.keys()


def test_zero_shot_replies(tmp_path):
    with AnswerLog(tmp_path / "toon.jsonl") as log:
        log.add(Reply("a", "{"), ParsedReply("a", "not_json", "why"), "f")
    (line,) = keys_of_lines(tmp_path / "toon.jsonl")
    assert line.keys() - set(listed("`predictions.jsonl`")) == set(listed("`SET.jsonl` of `eval/zero_shot.py`"))


def test_measurements():
    told = PAGE.partition("### `metrics.json` of `eval/evaluate.py`")[2]
    assert all(f"`{key}`" in told for key in score(VALUES[None], VALUES[None], on_head=False))
    benchmark = json.loads((ROOT / "eval" / "results" / "benchmark.json").read_text())
    assert listed("`benchmark.json` of `eval/benchmark.py`") == list(benchmark)
    assert all(f"`{key}`" in told for each in benchmark["sets"].values() for key in each)


def test_alignment(tmp_path):
    candidate_set = CandidateSet("a" * 64, 0, "ann", tuple(Candidate(name, "model", VALUES) for name in ("m-0", "m-1")))
    write_candidates(tmp_path / "c.jsonl", CandidateHeader("m", "d", "train", 1, {}), [candidate_set])
    header, line = keys_of_lines(tmp_path / "c.jsonl")
    assert listed("`candidates.jsonl`", "field of the header") == list(header)
    assert listed("`candidates.jsonl`", "field of a line") == list(line)
    assert all(f"`{key}`" in PAGE for key in line["candidates"][0])
    choice = Choice(Question("q", "a" * 64, "upper", "m-0", "m-1"), "a", "robin", "m", 1, "2026-11-22T09:30:00Z")
    fields = listed("`choices.jsonl`")
    assert fields == flat(choice_dict(choice), into=("question",))
    Store(tmp_path / "choices.sqlite").close()
    with sqlite3.connect(tmp_path / "choices.sqlite") as connection:
        columns = {row[1] for row in connection.execute("PRAGMA table_info(choices)")}
    connection.close()
    plain = {field.removeprefix("question.").replace("id", "question", 1) for field in fields}
    assert columns == plain | {"number", "withdrawn"}
    write_pairs(tmp_path / "p.jsonl", [Pair("a" * 64, 0, VALUES, VALUES, ("upper",))])
    assert listed("`pairs.jsonl`") == list(keys_of_lines(tmp_path / "p.jsonl")[0])
    assert listed("`rounds.json`") == [each.name for each in dataclasses.fields(Rounds)]


def rows_of(settings, prefix=""):
    """A table line for each setting, from its class."""
    told = dict(re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", settings.__doc__, re.MULTILINE))
    kinds = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        kind = kinds[field.name]
        if dataclasses.is_dataclass(kind):
            yield from rows_of(kind, f"{prefix}{field.name}.")
            continue
        default = "" if field.default is dataclasses.MISSING else f"`{in_yaml(field.default)}`"
        what = re.sub(r"\s+", " ", told[field.name]).replace("``", "`")
        if typing.get_origin(kind) is typing.Literal:
            what += f" One of {', '.join(f'`{each}`' for each in typing.get_args(kind))}."
        yield f"| `{prefix}{field.name}` | {default} | {what} |"


def in_yaml(value):
    return value if isinstance(value, str) else json.dumps(list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize("script", ["distill", "prefer"])
def test_settings(script):
    lines = ["| key | default | what |", "|---|---|---|", *rows_of(load_script(f"train/{script}.py").Settings)]
    table = "\n".join(lines)
    assert f"\n### `train/{script}.py`\n\n{table}\n" in PAGE, f"the table of docs/formats.md should be:\n{table}"
