"""docs/privacy.md: the commands do what it says, and telemetry is off."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import DatasetDict
from PIL import Image

from semanticface import rendering
from semanticface.data.faces import load_faces
from semanticface.formats import live_link
from semanticface.formats.live_link import LiveLinkRow
from tests.helpers import tiny_models
from tests.helpers.pages import commands, run

PAGE = "privacy.md"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with two people, a take and a face."""
    monkeypatch.chdir(tmp_path)
    made = tiny_models.faces(tmp_path / "made", rows=4)
    train = load_faces(made, "train")
    named = train.remove_columns("subject").add_column(
        "subject", ["ann", "ben", "ann", "ben"], feature=train.features["subject"]
    )
    DatasetDict(train=named).save_to_disk("outputs/captures")
    values = np.full(52, 0.3, np.float32)
    live_link.write("take.csv", [LiveLinkRow("00:00:00:00.000", values, np.zeros(9))])
    Image.fromarray(rendering.render(values, subject=3, size=256, framing="crop").image).save("face.png")
    return tmp_path


def test_every_command_of_the_page(desk, monkeypatch, capsys):
    monkeypatch.setattr("builtins.input", lambda _: "y")  # forget asks
    words = commands(PAGE)
    assert len(words) > 3
    for line in words:
        assert run(line, monkeypatch) == 0, line
    assert set(load_faces("outputs/captures", "train")["subject"]) == {"ben"}
    printed = capsys.readouterr().out + Path("take.jsonl").read_text()
    assert "suggests" not in printed and "emotional_implication" not in printed


def test_telemetry_is_off_before_anything_is_imported():
    code = "import semanticface, os; from huggingface_hub import constants; from gradio import analytics; "
    code += "print(constants.HF_HUB_DISABLE_TELEMETRY, analytics.analytics_enabled())"
    names = ("HF_HUB_DISABLE_TELEMETRY", "GRADIO_ANALYTICS_ENABLED")
    plain = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain)
    assert done.stdout.split() == ["True", "False"]
