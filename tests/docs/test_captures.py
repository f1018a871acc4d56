"""docs/captures.md: every command, on synthetic takes; tests/privacy/test_forget.py runs those that forget."""

import re
import shutil
from pathlib import Path

import pytest
from datasets import load_from_disk

from semanticface.data.captures import take as capture_take
from tests.helpers import tiny_models
from tests.helpers.live_takes import WholePicture, write_take
from tests.helpers.pages import ROOT, blocks, commands, run

PAGE = "captures.md"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with takes of two people, one zipped, and the page's consent list."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(capture_take, "FaceTracker", WholePicture)  # bars are not faces
    Path("train").symlink_to(ROOT / "train")
    for who in ("ann", "ben"):
        write_take(Path("takes") / who, f"Scene_1_{who}", count=60)
    write_take(Path("zipped") / "Scene_2_phone", "Scene_2_phone", count=60, clock=3_600_000)
    shutil.make_archive("ann", "zip", "zipped")
    (listed,) = blocks(PAGE, "yaml")
    entry = re.sub(r" +#.*", "", listed.partition("\n")[2])
    Path("consent.yaml").write_text(listed + entry.replace("ann", "ben"))
    return tmp_path


def test_every_command_of_the_page(desk, monkeypatch, capsys):
    model = tiny_models.qwen3_vl(desk / "qwen")
    small = [
        f"model.base={model}", "model.revision=null", "train.max_steps=1", "train.eval_rows=1",
        "train.dataloader_num_workers=0",
    ]  # fmt: skip
    done = 0
    for words in commands(PAGE):
        if words[:2] == ["semanticface", "forget"]:
            continue
        scaled = [*words, *small] if "train/distill.py" in words else words
        assert run(scaled, monkeypatch) == 0, (words, capsys.readouterr().err)
        done += 1
    assert done == 5
    assert set(load_from_disk("outputs/placed")) == {"train", "validation"}
    takes = {row["take"] for split in load_from_disk("outputs/captures").values() for row in split}
    assert sorted(take.rpartition("-")[0] for take in takes) == ["Scene_1_ann", "Scene_1_ben", "Scene_2_phone"]
