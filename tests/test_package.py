"""The wheel: built once, installed in a new environment, and used outside the checkout."""

import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command outside the checkout and return its output; show errors if it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build a wheel from a copy of the sources, so that the checkout gets no build folder."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, source)
    for name in ("semanticface", "prompts", "train", "eval", "data_prep"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
        "--wheel-dir", folder, source, cwd=folder)  # fmt: skip
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Return the bin folder of a new environment with the wheel and this environment's other packages."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    libraries = next(folder.glob("lib/python*/site-packages"))
    # A .pth file adds libraries; the editable install's own .pth is among them but is not processed from there.
    (libraries / "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    run(sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet", "--no-deps",
        "--no-index", "--ignore-installed", wheel, cwd=folder)  # fmt: skip
    return folder / "bin"


def test_the_wheel_holds_the_library_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"semanticface"}
    assert {"LICENSE"} <= {Path(name).name for name in names}
    assets = {str(path.relative_to(ROOT)) for path in (ROOT / "semanticface/assets").rglob("*") if path.is_file()}
    assert {"semanticface/assets/head.npz", "semanticface/assets/finder.safetensors"} <= assets <= set(names)
    assert any(name.startswith("semanticface/assets/nano/") and name.endswith(".safetensors") for name in names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_the_installed_library_is_imported(installed, tmp_path):
    where = run(installed / "python", "-c", "import semanticface; print(semanticface.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)


def test_prompts_and_assets_are_found(installed, tmp_path):
    code = (
        "import numpy as np; from semanticface.prompts import load_prompt; "
        "from semanticface.rendering.head.rig import rig; "
        "print(load_prompt('distill').name, rig().vertices(np.zeros(52, np.float32)).shape[-1])"
    )
    assert run(installed / "python", "-c", code, cwd=tmp_path).split() == ["distill", "3"]


def test_the_command_is_installed(installed, tmp_path):
    assert "predict" in run(installed / "semanticface", "--help", cwd=tmp_path)


def test_scripts_are_commands_of_the_installed_package(installed, tmp_path):
    out = run(installed / "semanticface", "render-faces", "--rows", "3", "--splits", "train=1", "--size", "64", "--out",
              tmp_path / "faces", "--workers", "1", cwd=tmp_path)  # fmt: skip
    assert "3 rows" in out and (tmp_path / "faces").is_dir()
    config = run(installed / "python", "-c", "from semanticface.cli.script_commands import script_path as path; "
                 "print(path('train/configs/quickstart.yaml').is_file())", cwd=tmp_path)  # fmt: skip
    assert config.strip() == "True"
