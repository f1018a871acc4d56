"""The folder of a demo Space: it is complete, only its files are uploaded, and it runs."""

import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from gradio_client import Client
from huggingface_hub import RepoCard

import semanticface
from semanticface.cli.main import main
from semanticface.hub import space as space_module
from semanticface.hub.space import list_space
from tests.hub.test_push import hub, made

__all__ = ["hub", "made"]  # fixtures


@pytest.fixture(scope="module")
def original(made, tmp_path_factory):
    """The Space of a tiny full model."""
    folder = tmp_path_factory.mktemp("space") / "demo"
    assert main(["card", str(made / "base"), "--space", str(folder), "--repo", "ann/tiny-base"]) == 0
    return folder


@pytest.fixture
def space(original, tmp_path):
    """A copy to modify."""
    return Path(shutil.copytree(original, tmp_path / "demo"))


def test_it_is_complete(original, made):
    front = RepoCard.load(original / "README.md", repo_type="space").data
    assert (front.sdk, front.app_file, front.pinned) == ("gradio", "app.py", False) and front.models == [
        "ann/tiny-base"
    ]
    assert front.sdk_version == importlib.metadata.version("gradio")
    lines = (original / "requirements.txt").read_text().splitlines()
    assert {"torch", "transformers", "gradio", "pillow"} <= {line.partition("==")[0] for line in lines}
    for line in lines:
        name, version = re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups()
        assert importlib.metadata.version(name).partition("+")[0] == version
    home = Path(semanticface.__file__).parent
    for name in ("assets/head.npz", "assets/nano/model.safetensors", "serving/pages/demo.py"):
        assert (original / "semanticface" / name).read_bytes() == (home / name).read_bytes()
    assert (original / "semanticface" / "prompt_texts" / "distill.txt").is_file()
    assert not list(original.rglob("__pycache__"))
    for name in ("model.safetensors", "semanticface.json", "tokenizer.json"):
        assert (original / "model" / name).is_file()
    assert not (original / "model" / "README.md").exists()


def test_only_its_files_are_uploaded(space, made, hub, capsys):
    (space / ".env").write_text("A=1\n")
    (space / "me.jpg").write_bytes(b"x")
    (space / "semanticface" / "extra.py").write_text("print(1)\n")
    (space / "model" / "optimizer.pt").write_bytes(b"x")
    (space / "link.py").symlink_to(Path(__file__))
    words = ["push", str(made / "base"), "ann/tiny-base", "--space", str(space), "--yes"]
    assert main(words) == 0
    files = set(hub.files("ann/tiny-base", "spaces")) - {".gitattributes"}
    stray = {".env", "me.jpg", "semanticface/extra.py", "model/optimizer.pt", "link.py"}
    assert files == {path.relative_to(space).as_posix() for path in space.rglob("*") if path.is_file()} - stray
    assert hub.repos["spaces", "ann/tiny-base"].private
    assert f"{hub.url}/spaces/ann/tiny-base: " in capsys.readouterr().out


def test_modified_files_are_refused(space, made, hub, capsys):
    (space / "semanticface" / "cli" / "main.py").write_text("print(1)\n")
    (space / "model" / "config.json").write_text("{}")
    with (space / "app.py").open("a") as file:
        file.write("TOKEN = 'hf_" + "AbCdEfGh" * 5 + "'\n")
    found = {each.name: each for each in list_space(space, made / "base") if each.verdict == "refused"}
    assert set(found) == {"semanticface/cli/main.py", "model/config.json", "app.py"}
    assert "write the Space again" in found["semanticface/cli/main.py"].why and "token" in found["app.py"].why
    assert main(["push", str(made / "base"), "ann/tiny-base", "--space", str(space), "--yes"]) == 2
    assert not hub.asked


def test_other_files_of_a_working_tree_are_not_copied(tmp_path, monkeypatch):
    home = tmp_path / "semanticface"
    (home / "assets").mkdir(parents=True)
    for name in ("card.py", "assets/page.css", "me.jpg", "people.json", "dump.pkl", ".env"):
        (home / name).write_bytes(b"x")
    (home / "mine.py").symlink_to(Path(__file__))
    monkeypatch.setattr(semanticface, "__file__", str(home / "__init__.py"))
    names = {name for name, _ in space_module._package_files() if "/prompt_texts/" not in name}
    assert names == {"semanticface/card.py", "semanticface/assets/page.css"}


def test_embedded_pictures_are_refused(space, made):
    for name in ("README.md", "app.py"):
        with (space / name).open("a") as file:
            file.write('\n# <img src="data:image/jpeg;base64,/9j/4AAQ">\n')
    refused = {each.name for each in list_space(space, made / "base") if each.verdict == "refused"}
    assert refused == {"README.md", "app.py"}


def test_a_folder_with_other_content_is_not_overwritten(space, made, tmp_path, capsys):
    base = str(made / "base")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("Monday")
    for extra in ([], ["--force"]):
        assert main(["card", base, "--space", str(tmp_path / "mine"), *extra]) == 2
        assert "already contains something else" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["diary.txt"]
    assert main(["card", base, "--space", str(tmp_path / "new"), "--notes", "x.md"]) == 2
    assert "--notes is for a card" in capsys.readouterr().err and not (tmp_path / "new").exists()
    (space / "model" / "config.json").write_text("{}")
    assert main(["card", base, "--space", str(space)]) == 2 and "--force" in capsys.readouterr().err
    assert main(["card", base, "--space", str(space), "--force"]) == 0
    assert (space / "model" / "config.json").read_text() != "{}"
    assert main(["push", base, "ann/tiny-base", "--space", str(tmp_path / "mine"), "--dry-run"]) == 2
    assert "is no Space" in capsys.readouterr().err


@pytest.mark.slow
def test_it_runs_from_its_folder(space, tmp_path):
    """With its own copy of the package: the copy gets another version, which the server reports."""
    with (space / "semanticface" / "__init__.py").open("a") as file:
        file.write('__version__ = "99.0"\n')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONUNBUFFERED": "1",
        "GRADIO_TEMP_DIR": str(tmp_path / "cache"),
    }  # fmt: skip
    command = [sys.executable, "app.py"]
    with subprocess.Popen(
        command, cwd=space, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            output = []
            for line in process.stdout:
                output.append(line)
                if "Running on local URL" in line:
                    break
            else:
                pytest.fail("".join(output))
            client = Client(f"http://127.0.0.1:{port}", verbose=False)
            setup = client.predict(api_name="/setup")
            assert setup["version"] == "99.0" and setup["model"] == "model"
        finally:
            process.terminate()
            process.stdout.read()
