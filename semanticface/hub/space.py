"""The folder of a demo Space on the Hub: app, card, requirements, this package, and the model.

A Space installs ``requirements.txt`` before it has any other file, so it could not find a wheel in the repository, and
this package is on no index. Its files are therefore copied into the folder, where the app can import them.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.resources
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import SpaceCardData

import semanticface
from semanticface import __version__
from semanticface.errors import ConfigError
from semanticface.hub.card_mark import README
from semanticface.hub.upload_list import UploadEntry, hidden_in, list_model
from semanticface.models.files import NANO, resolve_model
from semanticface.recipe import read_recipe
from semanticface.utils.files import atomic_path

PACKAGE = "semanticface"
MODEL = "model"
APP = "app.py"
REQUIREMENTS = "requirements.txt"
_GRADIO = "gradio"
_PROMPTS = "prompt_texts"
_ASSETS = "assets"
_OWN = "# Written by semanticface card --space"
_APP = f'''{_OWN}; run it here with: python app.py
"""The demo of a SemanticFace model."""

from pathlib import Path

from semanticface.serving.pages.demo import build
from semanticface.serving.pages.local_page import launch_options

build(%s, emotion=%s).launch(**launch_options())
'''


def write_space(
    model: str, out: Path, *, repo: str | None = None, licence: str | None = None, force: bool = False
) -> None:
    """Write the folder of a Space that shows a model.

    Args:
        model: ``nano``, or the folder of a model or adapter.
        out: a new folder.
        repo: the model's Hub id, for a link.
        licence: the Hub's id of a licence.
        force: replace a Space that this function wrote.

    Raises:
        ConfigError: the folder is not empty, or a part of the model must not be published.
        ModelError: no such model.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        ours = (out / APP).is_file() and (out / APP).read_text(encoding="utf-8", errors="replace").startswith(_OWN)
        if not (ours and force):
            fix = "Replace it with --force" if ours else "Choose a new folder"
            raise ConfigError(f"{out} already contains {'a Space' if ours else 'something else'}. {fix}.")
    if model != "nano" and not Path(model).is_dir():
        raise ConfigError(f"{model} is no folder: a Space is written for a model on this machine.")
    folder, _ = resolve_model(model)
    parts = _parts(folder)
    refused = [each for each in parts if each.verdict == "refused"]
    if refused:
        raise ConfigError(f"{refused[0].path}: {refused[0].why}.")
    with atomic_path(out) as temporary:
        temporary.mkdir()
        for name, source in _package():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, temporary / name)
        for each in parts:
            if each.verdict == "included":
                (temporary / MODEL).mkdir(exist_ok=True)
                content = each.path.read_bytes() if each.content is None else each.content
                (temporary / MODEL / each.name).write_bytes(content)
        (temporary / APP).write_text(_app(folder), encoding="utf-8")
        (temporary / REQUIREMENTS).write_text("".join(f"{line}\n" for line in requirements(folder)), encoding="utf-8")
        (temporary / README).write_text(_card(folder, repo, licence), encoding="utf-8")


def list_space(folder: Path, model: Path) -> list[UploadEntry]:
    """Return the verdict on each file of a Space's folder: only files that ``write_space`` writes are uploaded.

    Args:
        folder: of the Space.
        model: the folder of its model; another model's files are refused.
    """
    if not (folder / APP).is_file():
        raise ConfigError(f"{folder} is no Space: write it with semanticface card MODEL --space {folder}.")
    package = dict(_package())
    parts = {f"{MODEL}/{each.name}": each for each in _parts(model)}
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return [_classify(path, path.relative_to(folder).as_posix(), package, parts) for path in paths]


def requirements(model: Path) -> list[str]:
    """Return what the Space of a model needs beyond this package, pinned to the installed versions."""
    named = [line for line in importlib.metadata.requires(PACKAGE) or [] if "extra ==" not in line]
    adapted = {"peft"} if (model / "adapter_config.json").exists() else set()
    needed = sorted({re.match(r"[\w.-]+", line)[0] for line in named} | {_GRADIO} | adapted)  # type: ignore[index]
    return [f"{name}=={_version(name)}" for name in needed]


def _version(name: str) -> str:
    try:
        # A local part such as +cpu names a build that no index has.
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(f"a Space needs {name}, which is not installed. pip install 'semanticface[demo]'") from error


def _parts(folder: Path) -> list[UploadEntry]:
    """Return the verdict on each file of a model; none for nano, which is part of the package."""
    return [] if folder == NANO else list_model(folder, None)


@functools.cache
def _package() -> tuple[tuple[str, Path], ...]:
    """Return the files of this package, with their installed names."""
    return tuple(sorted(_package_files()))


def _package_files() -> Iterator[tuple[str, Path]]:
    home = Path(semanticface.__file__).parent
    prompts = importlib.resources.files(f"{PACKAGE}.{_PROMPTS}")
    for root, below in ((home, PACKAGE), (Path(str(prompts)), f"{PACKAGE}/{_PROMPTS}")):
        for path in root.rglob("*"):
            inside = path.relative_to(root)
            hidden = any(part == "__pycache__" or part.startswith(".") for part in inside.parts)
            # A working tree may contain other files.
            ours = path.suffix == (".py" if root == home else ".txt") or inside.parts[0] == _ASSETS
            if ours and not hidden and path.is_file() and not path.is_symlink():
                yield f"{below}/{inside.as_posix()}", path


def _app(folder: Path) -> str:
    where = '"nano"' if folder == NANO else f'str(Path(__file__).parent / "{MODEL}")'
    text = _APP % (where, read_recipe(folder)["emotion"])
    return text if MODEL in where else text.replace("from pathlib import Path\n\n", "")


def _card(folder: Path, repo: str | None, licence: str | None) -> str:
    name = repo.rpartition("/")[2] if repo else folder.resolve().name
    front = SpaceCardData(
        title=f"SemanticFace: {name}",
        sdk=_GRADIO,
        sdk_version=_version(_GRADIO),
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file=APP,
        license=licence,
        models=[repo] if repo else None,
        emoji="🙂",
        colorFrom="gray",
        colorTo="blue",
        pinned=False,
        short_description="52 ARKit coefficients of a face, with an analysis",
    )
    return f"""---
{front.to_yaml()}
---

# SemanticFace: {name}

Turns a picture, webcam frame or short clip of a face into the 52 ARKit blendshape coefficients, an analysis of which
muscles moved, and a 3D head. Uploads are not kept.

Not for judging anyone. Made with SemanticFace {__version__}, included in `{PACKAGE}/`.
"""


def _classify(path: Path, name: str, package: dict[str, Path], parts: dict[str, UploadEntry]) -> UploadEntry:
    size = path.lstat().st_size
    if path.is_symlink():
        return UploadEntry(name, path, size, "left out", "a symlink")
    if name in package:
        same = path.read_bytes() == package[name].read_bytes()
        why = (
            f"of {PACKAGE} {__version__}"
            if same
            else f"differs from {PACKAGE} {__version__} here: write the Space again"
        )
        return UploadEntry(name, path, size, "included" if same else "refused", why)
    if name.startswith(f"{MODEL}/"):
        part = parts.get(name)
        if part is not None and part.verdict == "included":
            same = path.read_bytes() == (part.path.read_bytes() if part.content is None else part.content)
            why = f"as in the model: {part.why}" if same else "differs from the pushed model: write the Space again"
            return UploadEntry(name, path, size, "included" if same else "refused", why)
        return UploadEntry(name, path, size, "left out", part.why if part is not None else "not part of the model")
    if name in (APP, README, REQUIREMENTS):
        if problem := hidden_in(path.read_bytes()):
            return UploadEntry(name, path, size, "refused", problem)
        return UploadEntry(name, path, size, "included", "part of the Space")
    return UploadEntry(name, path, size, "left out", "not part of a Space")
