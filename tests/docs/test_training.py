"""docs/training.md: every command in it, on a small scale."""

from pathlib import Path

import numpy as np
import pytest
from datasets import load_from_disk
from PIL import Image

from semanticface import rendering
from semanticface.formats import tables
from semanticface.semantics.expression_sampler import sample_coefficients
from tests.helpers import tiny_models
from tests.helpers.pages import ROOT, blocks, commands, run

PAGE = "training.md"
SMALL = ["train.max_steps=2", "train.eval_rows=2", "train.dataloader_num_workers=0"]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A folder with labelled pictures and one row that has an error."""
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    Path("train").symlink_to(ROOT / "train")
    rng = np.random.default_rng(8)
    rows = []
    for name in "abcdef":
        values = sample_coefficients(rng)
        picture = Image.fromarray(rendering.render(values, subject=3, size=64, framing="crop").image)
        picture.save(f"pictures/{name}.png")
        rows.append(tables.RowResult(f"{name}.png", coefficients=values))
    picture.resize((256, 256)).save("face.png")
    rows *= 34  # calibration needs 40 pictures of the held-out fifth
    tables.write("labels.csv", [*rows, tables.RowResult("g.png", "no_face", "nobody there")])
    return tmp_path


@pytest.mark.slow
def test_every_command_of_the_page(workspace, monkeypatch):
    (code,) = blocks(PAGE, "python")
    exec(code, {})
    small = str(tiny_models.qwen3_vl(workspace / "qwen"))
    finished = []
    for arguments in commands(PAGE):
        scaled = list(arguments)
        if "train/distill.py" in arguments:
            scaled += (
                SMALL if "quickstart" in " ".join(arguments) else [*SMALL, f"model.base={small}", "model.revision=null"]
            )
        assert run(scaled, monkeypatch) == 0, arguments
        finished.append(arguments)
    assert len(finished) > 8
    assert load_from_disk("outputs/mine")["train"].num_rows == 163
    for adapter in ("me", "qwen3_vl_4b", "small", "four"):
        assert Path("outputs", adapter, "adapter_model.safetensors").exists()
    assert Path("outputs/after/report.html").exists() and Path("face.html").exists()
