"""docs/serving.md: every command, against servers started by the page's own commands."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.helpers.pages import ROOT, blocks, commands
from tests.helpers.served import TIMEOUT, crops, run_serve_command
from tests.helpers.tiny_adapter import tiny_adapter

PAGE = "serving.md"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the page mentions."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "examples" / "astronaut.jpg", "face.jpg")
    crops(24)[3].resize((128, 128), Image.Resampling.BICUBIC).save("crop.png")
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "my-adapter").symlink_to(tiny_adapter(tmp_path))
    return tmp_path


def test_every_command_of_the_page(folder, monkeypatch, capsys):
    if shutil.which("curl") is None:
        pytest.fail("curl is not installed. Install it: apt-get update && apt-get install -y curl")
    lines = commands(PAGE)
    pip, plain, *others = [words for words in lines if words[0] in ("pip", "semanticface")]
    curls = [words for words in lines if words[0] == "curl"]
    (key,) = [words for words in lines if words[0] == "python"]
    (code,) = blocks(PAGE, "python")
    assert plain == ["semanticface", "serve"] and len(curls) == 3 and len(others) == 3
    assert len(lines) == 2 + len(curls) + 1 + len(others)
    assert pip[2].removeprefix("semanticface") == "[serve]" and "\nserve = [" in (ROOT / "pyproject.toml").read_text()

    def ask(url):
        rows = []
        for words in curls:
            there = [word.replace("http://127.0.0.1:8000", url) for word in words]
            done = subprocess.run([*there, "--silent"], capture_output=True, check=True, timeout=TIMEOUT)
            rows.append(json.loads(done.stdout))
        exec(code.replace("http://127.0.0.1:8000", url), {})
        return url, rows

    url, (raw, form, crop) = run_serve_command(plain, monkeypatch, ask)
    assert [row["status"] for row in (raw, form, crop)] == ["ok"] * 3
    assert [row["image"] for row in (raw, form, crop)] == ["picture 1", "face.jpg", "crop.png"]
    assert "emotional_implication" in raw["analysis"] and "emotional_implication" not in crop["analysis"]
    assert form["analysis"] is None and crop["box"] == [0, 0, 128, 128]
    said = capsys.readouterr().out.splitlines()
    (shown,) = re.findall(r"^.* answers at http.*$", (ROOT / "docs" / PAGE).read_text(), re.MULTILINE)
    assert said[0] == shown.replace("http://127.0.0.1:8000", url)
    assert said[1].startswith('{"arkit":{"eyeBlinkLeft":0.') and said[-1] == "All accepted requests are answered."

    def names(url):
        headers = {"authorization": f"Bearer {Path('key').read_text().strip()}"} if Path("key").exists() else {}
        return httpx.get(f"{url}/v1/models", headers=headers).json()["data"][0]["id"]

    for words in others:
        if "--api-key-file" in words:
            made = subprocess.run([sys.executable, *key[1:-2]], capture_output=True, check=True)
            Path(key[-1]).write_bytes(made.stdout)
        assert run_serve_command(words, monkeypatch, names) == ("faces" if "--name" in words else "nano")
    assert {"key", "face.jpg", "crop.png", "outputs"} <= {path.name for path in folder.iterdir()}
