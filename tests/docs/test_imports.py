"""docs/imports.md: every command does what the page says."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from semanticface import arkit
from semanticface.cli.main import main
from semanticface.data.faces import load_faces
from semanticface.data.importers import mediapipe, pictures
from semanticface.semantics.analysis import describe
from semanticface.semantics.answer import format_answer
from semanticface.vision.crop import Box
from tests.data.test_ms_swift import row
from tests.helpers.clips import bars, write_clip
from tests.helpers.live_takes import WholePicture
from tests.helpers.pages import commands
from tests.helpers.scripts import ROOT, load_script
from tests.scripts.test_import_pictures import agree, categories, grey, reader, scores

PAGE = ROOT / "docs" / "imports.md"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with the files of the page, and stand-ins for MediaPipe and the face detector."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mediapipe, "PACKAGE", "numpy")
    monkeypatch.setattr(mediapipe, "FaceTracker", WholePicture)
    monkeypatch.setattr(pictures, "_detect_faces", lambda image: [Box(0, 0, *image.size)])
    agree(tmp_path, "ann", "ben", "holiday", "portraits")
    (tmp_path / "face_landmarker.task").write_bytes(b"weights")
    for who in ("ann", "ben"):
        for number in range(2):
            grey(tmp_path / "photos" / who / f"{number}.png", 0.3 + number / 10)
    grey(tmp_path / "holiday" / "0.png", 0.5)
    grey(tmp_path / "crops" / "0.png", 0.5)
    grey(tmp_path / "portraits" / "0.png", 0.5)
    write_clip(tmp_path / "ann.mp4", bars(4, 64, 64))
    found = scores(0.4)
    faces = [categories(found)]
    results = [{"image": f"photos/{who}/0.png", "person": who, "face_blendshapes": faces} for who in ("ann", "ben")]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in results))
    cells = ",".join(str(found[name]) for name in arkit.MEDIAPIPE)
    (tmp_path / "results.csv").write_text(f"image,{','.join(arkit.MEDIAPIPE)}\n0.png,{cells}\n")
    (tmp_path / "blendshapes").mkdir()
    (tmp_path / "blendshapes" / "1.json").write_text(json.dumps(categories(found)))
    text = format_answer(np.zeros(52), describe(np.zeros(52)))
    rows = [row(text, f"photos/{who}/1.png", person=who) for who in ("ann", "ben")]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    (tmp_path / "ann.jsonl").write_text(json.dumps(row(text, "0.png")) + "\n")
    return tmp_path


def test_every_command_of_the_page(desk, monkeypatch, capsys):
    monkeypatch.setattr("builtins.input", lambda _: "y")  # forget asks

    class Landmarker:
        def __init__(self, task):
            assert task.is_file()

        def __enter__(self):
            return SimpleNamespace(measure=reader)

        def __exit__(self, *_):
            pass

    words = commands("imports.md")
    assert len(words) == 11
    for line in words:
        if line[0] == "semanticface":
            assert main(line[1:]) == 0, line
            continue
        assert line[0] == "python"
        script = load_script(line[1])
        if "import_pictures" in line[1]:
            monkeypatch.setattr(script, "FaceLandmarker", Landmarker)
        monkeypatch.setattr(sys, "argv", line[1:])
        assert script.main() == 0, (line, capsys.readouterr().err)
    printed = capsys.readouterr().out
    assert "tongueOut is 0 in every row" in printed
    sets = [index.parent for index in (desk / "outputs").glob("*/dataset_dict.json")]
    left = {folder.name: who(folder) for folder in sets}
    assert left["published"] == left["photos"] == left["saved"] == {"ben"} and left["csv"] == set()
    (unnamed,) = left["people"]
    assert unnamed.startswith("portraits#") and unnamed.endswith("-0001")
    for name in ("swift", "swift-published"):
        rows = [json.loads(line) for path in (desk / "outputs" / name).glob("*.jsonl") for line in path.open()]
        assert [each["subject"] for each in rows] == ["ben"]
        assert [path.name for path in (desk / "outputs" / name / "images").iterdir()] == [
            rows[0]["images"][0].removeprefix("images/")
        ]
        with Image.open(desk / "outputs" / name / rows[0]["images"][0]) as picture:
            assert picture.format == "JPEG"


def who(folder):
    splits = json.loads((folder / "dataset_dict.json").read_text())["splits"]
    return {subject for split in splits for subject in load_faces(folder, split)["subject"]}
