"""``eval/evaluate.py``: from a dataset and a model to metrics, predictions and report."""

import dataclasses
import json
import re
import weakref

import numpy as np
import pytest
from PIL import Image

from semanticface import arkit
from semanticface.evaluation import metrics
from semanticface.formats import tables
from semanticface.formats.tables import RowResult, read_coefficients
from semanticface.semantics.analysis import describe
from semanticface.vision.crop import Box
from tests.helpers.formats_page import listed
from tests.helpers.scripts import load_script
from tests.helpers.tiny_models import faces, fast_vlm


@pytest.fixture(scope="module")
def script():
    return load_script("eval/evaluate.py")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    faces(folder / "faces")
    return fast_vlm(folder / "tiny"), folder / "faces", folder


def test_before_and_after(script, places, capsys):
    model, dataset, folder = places
    common = ["--model", str(model), "--dataset", str(dataset), "--crop", "box"]
    assert script.main([*common, "--out", str(folder / "one")]) == 0
    printed = capsys.readouterr().out
    assert "| figure | model | constant mean | constant median |" in printed
    assert "2 pictures, 2 with a valid answer. Constants from the training set." in printed

    rows = list(read_coefficients(folder / "one" / "predictions.jsonl"))
    assert [row.label for row in rows] == ["test/0", "test/1"]
    written = json.loads((folder / "one" / "metrics.json").read_text())
    assert listed("`metrics.json` of `eval/evaluate.py`") == list(written)
    true = np.array(script.load_faces(dataset, "test")["coefficients"])
    model_error = np.abs(np.stack([row.coefficients for row in rows]) - true).mean()
    assert written["result"]["model"]["mae"] == pytest.approx(model_error, abs=1e-4)
    mean, _ = metrics.constants(script.load_faces(dataset, "train")["coefficients"])
    assert written["result"]["constant_mean"]["mae"] == pytest.approx(np.abs(true - mean).mean())
    assert written["recipe"]["command"].startswith("python eval/evaluate.py --model ")
    assert written["recipe"]["versions"]["torch"]
    assert (written["recipe"]["readout"], written["recipe"]["calibrated"]) == ("greedy", False)
    readouts = written["readouts"]
    assert readouts["greedy"]["mae"] == pytest.approx(written["result"]["model"]["mae"], abs=1e-4)
    assert f"| greedy | {readouts['greedy']['mae']:.4f} | {readouts['greedy']['rmse']:.4f} |" in printed
    assert f"The 80 % intervals (not calibrated) hold {100 * readouts['interval_coverage']:.1f} %" in printed
    page = (folder / "one" / "report.html").read_text()
    assert page.count("<article") == 2 and page.count("<img") >= 6
    assert "The 80 % intervals (not calibrated) hold" in page
    first = json.loads((folder / "one" / "predictions.jsonl").read_text().splitlines()[0])
    low, high = first["interval"]["jawOpen"]
    assert f"likely {low:.2f} to {high:.2f}" in page

    assert (
        script.main([*common, "--out", str(folder / "median"), "--readout", "median", "--mirror", "--mode", "numbers"])
        == 0
    )
    both = json.loads((folder / "median" / "metrics.json").read_text())
    assert (both["recipe"]["readout"], both["recipe"]["mirror"]) == ("median", True)
    assert both["readouts"]["median"]["mae"] == pytest.approx(both["result"]["model"]["mae"], abs=1e-4)
    assert both["readouts"]["mean"] != readouts["mean"]
    capsys.readouterr()

    assert script.main([*common, "--out", str(folder / "two"), "--before", str(folder / "one"), "--limit", "9"]) == 0
    printed = capsys.readouterr().out
    assert "| figure | before | after | constant mean | constant median |" in printed
    again = json.loads((folder / "two" / "metrics.json").read_text())
    assert again["result"] == written["result"]  # the same model on the same rows
    assert script.main([*common, "--out", str(folder / "three"), "--before", str(folder / "one"), "--limit", "1"]) == 2
    assert "Use the same dataset, split, limit and seed" in capsys.readouterr().err
    assert not (folder / "three").exists()


def test_constants_fall_back_to_the_split_with_a_warning(script, places, tmp_path, capsys):
    import datasets

    whole = datasets.load_from_disk(str(places[1]))
    datasets.DatasetDict({"test": whole["test"]}).save_to_disk(str(tmp_path / "faces"))
    assert script._constants(tmp_path / "faces", "test") is None
    assert "the constants come from the test split itself" in capsys.readouterr().err


def fake_predictor(monkeypatch, script, stream):
    """Replace the model by a function."""

    class Fake:
        bundle = level = None
        readout = "mean"

        @classmethod
        def from_pretrained(cls, *_, **__):
            return cls()

        def stream(self, pictures, **_):
            return stream(pictures)

    monkeypatch.setattr(script, "Predictor", Fake)


def test_predictions_are_not_kept(script, places, monkeypatch):
    _, dataset, folder = places
    analyses = [
        describe(arkit.vector({name: 0.6})) for name in ("jawOpen", "cheekPuff", "browInnerUp", "noseSneerLeft")
    ]
    made, alive = [], []

    def stream(pictures):
        for number, _ in enumerate(pictures):
            if number % 4 == 3:
                prediction = script.Prediction("?", "no_face", "no face found")
            else:
                face, box = arkit.vector({"jawOpen": number / 10}), Box(1, 2, 30, 40)
                analysis = dataclasses.replace(analyses[number % 4], symmetry=f"symmetry of {number}")
                prediction = script.Prediction("?", "ok", "", face, analysis, box=box, note=f"note on {number}")
            made.append(weakref.ref(prediction))
            yield prediction
            del prediction
            alive.append(sum(each() is not None for each in made))

    fake_predictor(monkeypatch, script, stream)
    out = folder / "streamed"
    assert script.main(["--dataset", str(dataset), "--split", "train", "--out", str(out)]) == 0
    count = len(script.load_faces(dataset, "train"))
    assert count > 6 and len(alive) == count and max(alive) <= 2
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [row["image"] for row in rows] == [f"train/{number}" for number in range(count)]
    result = json.loads((out / "metrics.json").read_text())["result"]["model"]
    assert result["explained"] == count - count // 4
    # Each card has its own analysis, box, note or reason, read back from the file.
    cards = (out / "report.html").read_text().split("<article")[1:]
    assert len(cards) == min(count, 18)
    for card in cards:
        number = int(re.search(r"train/(\d+)</h3>", card)[1])
        if number % 4 == 3:
            assert "no face found" in card
        else:
            assert f"symmetry of {number}<" in card and f"note on {number}<" in card and 'class="found"' in card
            assert f"jawOpen: prediction {number / 10:.2f}" in card


def test_photographs_and_failures_are_cards(script, places, monkeypatch):
    _, dataset, folder = places
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(folder / "photo.png")
    out = folder / "photos"

    def blind(pictures):
        return (script.Prediction(f"picture {number}", "no_face", "no face found") for number, _ in enumerate(pictures))

    fake_predictor(monkeypatch, script, blind)
    tables.write(
        folder / "p.jsonl", [RowResult(str(folder / "photo.png"), coefficients=arkit.vector({"jawOpen": 0.5}))]
    )
    arguments = ["--dataset", str(dataset), "--out", str(out), "--photos", str(folder / "p.jsonl")]
    assert script.main(arguments) == 0
    page = (out / "report.html").read_text()
    order = ["<h2>Figures", "<h2>Photographs", "photo.png</h3>", "<h2>Random", "<h2>Worst", "<h2>Best"]
    assert [page.index(words) for words in order] == sorted(page.index(words) for words in order)
    assert page.count("no face found") == 2
    assert json.loads((out / "metrics.json").read_text())["result"]["model"]["valid_share"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataset", "GONE"], ["no such folder"]),
        (["--dataset", "FACES", "--split", "exam"], ["no split 'exam'", "test"]),
        (["--dataset", "FACES", "--before", "GONE"], ["metrics.json", "Run evaluate.py first"]),
        (["--dataset", "FACES", "--model", "GONE"], ["GONE"]),
        (["--dataset", "FACES", "--photos", "GONE"], ["GONE", "No such file"]),
        (["--dataset", "FACES", "--photos", "HEADER"], ["HEADER has no rows", "semanticface predict"]),
    ],
)
def test_errors_are_one_line_and_write_nothing(script, places, tmp_path, capsys, arguments, words):
    (tmp_path / "HEADER").write_text(",".join(tables.COLUMNS) + "\n")
    named = {"GONE": str(tmp_path / "GONE"), "FACES": str(places[1]), "HEADER": str(tmp_path / "HEADER")}
    assert script.main([*(named.get(word, word) for word in arguments), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("evaluate: ")
    for word in words:
        assert word in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--limit", "--batch-size"])
def test_numbers_out_of_range(script, option, capsys):
    with pytest.raises(SystemExit) as stopped:
        script.main(["--dataset", "x", option, "0"])
    assert stopped.value.code == 2
    assert "give at least 1" in capsys.readouterr().err
