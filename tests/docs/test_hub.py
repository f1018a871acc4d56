"""docs/hub.md: every command works as described, with a fake Hub."""

import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard, constants
from PIL import Image

from semanticface import rendering
from semanticface.cli.main import main
from semanticface.hub import card
from tests.helpers.hub_models import adapter_of_nano
from tests.helpers.pages import commands
from tests.hub.test_card import EXAMPLE, evaluated
from tests.hub.test_push import hub

__all__ = ["hub"]  # a fixture

PAGE = Path(__file__).resolve().parents[2] / "docs" / "hub.md"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with the files that the page names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(card, "rendered_example", lambda *_: EXAMPLE)
    adapter_of_nano(Path("outputs/my-adapter"))
    Path("outputs/after").mkdir()
    evaluated(Path("outputs/after/metrics.json"), Path("outputs/my-adapter"))
    Path("eval/results").mkdir(parents=True)
    Path("eval/results/benchmark.json").write_bytes(
        (PAGE.parents[1] / "eval" / "results" / "benchmark.json").read_bytes()
    )
    Path("notes.md").write_text("It rained.\n")
    Image.fromarray(rendering.render(np.zeros(52, np.float32), size=256).image).save("face.jpg")
    return tmp_path


def test_every_command_of_the_page(desk, hub, capsys):
    lines = commands("hub.md")
    assert len(lines) == 8 and all(line[0] == "semanticface" for line in lines)
    outputs = []
    for line in lines:
        assert main(line[1:]) == 0, line
        outputs.append(capsys.readouterr().out)
        if "--dry-run" in line:
            assert not hub.asked
    read = ModelCard.load("outputs/my-adapter/README.md")
    assert read.data.eval_results and "It rained." in read.text
    assert ModelCard.load("nano-card/README.md").data.eval_results
    assert json.loads(hub.files("ann/my-adapter")["semanticface.json"])["kind"] == "adapter"
    assert hub.files("ann/my-adapter", "spaces")["app.py"] == Path("outputs/my-space/app.py").read_bytes()
    assert all(repo.private for repo in hub.repos.values())
    (there,) = (text for text in outputs if "face.jpg" in text)
    assert main(["predict", "face.jpg", "--model", "outputs/my-adapter"]) == 0
    assert there == capsys.readouterr().out
