"""Provenance of a model: ``semanticface.json`` in every model folder, with settings, versions, prompt and metrics."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import semanticface
from semanticface.errors import ModelError
from semanticface.prompts import Prompt
from semanticface.utils.files import write_json

RECIPE_NAME = "semanticface.json"
_RECIPE_KEYS = (
    "kind", "base", "prompt", "emotion", "readout", "image_size", "settings", "versions", "commit", "metrics",
)  # fmt: skip
_LAYOUTS = ("sequential", "parallel")
_MODES = ("full", "numbers")
_PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "bitsandbytes", "numpy")
_BLOCK_BYTES = 1 << 20


def versions() -> dict[str, str]:
    """Return the versions of this package and of the packages that affect training."""
    found = {"semanticface": semanticface.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def git_commit() -> str | None:
    """Return the checkout's commit, with ``+changes`` if tracked files are modified.

    None if the package is not run from a checkout, or git is missing.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if changes else "")


def files_sha256(paths: Sequence[Path]) -> str:
    """Return one sha256 over the names and contents of files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda each: each.name):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def prompt_record(prompt: Prompt) -> dict[str, str]:
    """Return a recipe's entry for the training prompt: name, version and sha256."""
    return {"name": prompt.name, "version": str(prompt.version), "sha256": prompt.sha256}


def make_recipe(
    kind: str,
    *,
    base: Mapping[str, Any] | None,
    prompt: Mapping[str, Any],
    emotion: bool,
    readout: str,
    image_size: int,
    settings: Mapping[str, Any],
    metrics: Mapping[str, Any],
    numbers: str = "sequential",
    pose: bool = False,
    trained_on: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the content of ``semanticface.json`` for a model.

    Args:
        kind: ``base`` for full weights, ``adapter`` for a LoRA adapter.
        base: for an adapter, how to load and identify its base weights (``model.base_record``); None for a base.
        prompt: name, version and sha256 of the training prompt.
        emotion: whether answers have ``emotional_implication``.
        readout: default readout of numbers: ``greedy``, ``mean`` or ``median``.
        image_size: side of the square input crop in pixels.
        settings: all user-chosen settings.
        metrics: measured on held-out rows.
        numbers: ``sequential`` or ``parallel`` decoding of the 52 numbers.
        pose: whether the model predicts the pose too; needs parallel decoding.
        trained_on: training datasets (``data.provenance``); omitted if None.
    """
    return (
        {
            "kind": kind,
            "base": dict(base) if base is not None else None,
            "prompt": dict(prompt),
            "emotion": emotion,
            "readout": readout,
            "numbers": numbers,
            "image_size": image_size,
            "settings": dict(settings),
            "versions": versions(),
            "commit": git_commit(),
            "metrics": dict(metrics),
        }
        | ({"pose": True} if pose else {})
        | ({} if trained_on is None else {"trained_on": [dict(source) for source in trained_on]})
    )


def write_recipe(folder: str | Path, recipe: Mapping[str, Any]) -> None:
    """Write ``semanticface.json`` into a model folder."""
    write_json(Path(folder) / RECIPE_NAME, recipe)


def read_recipe(folder: str | Path) -> dict[str, Any]:
    """Read ``semanticface.json`` of a model folder; ``numbers`` defaults to ``sequential``.

    Raises:
        ModelError: the file is missing, not a JSON object, lacks a key of ``make_recipe``, has an unknown value of
            ``numbers``, or an invalid calibration.
    """
    path = Path(folder) / RECIPE_NAME
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{path} is missing: the folder was not written by SemanticFace, or its training did not finish. "
            "Copy the whole folder, or train again with `semanticface train`."
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}. Copy the folder again from its source.") from error
    missing = [key for key in _RECIPE_KEYS if not isinstance(recipe, dict) or key not in recipe]
    if missing:
        raise ModelError(f"{path} lacks {', '.join(missing)}: it is from another version. Retrain the model.")
    if recipe.setdefault("numbers", "sequential") not in _LAYOUTS:
        raise ModelError(f"{path}: numbers is {recipe['numbers']!r}, not {' or '.join(_LAYOUTS)}: update SemanticFace.")
    _check_calibration(recipe.get("calibration"), path)
    return recipe


def default_order(recipe: Mapping[str, Any]) -> Literal["numbers", "analysis"]:
    """Return what a model decodes first in full answers (``inference.decoder.Order``).

    Numbers come first if they are decoded in parallel and the model has learnt them without an analysis.
    """
    augment = recipe["settings"].get("augment")
    learnt = not isinstance(augment, dict) or bool(augment.get("numbers_only_prob", 0))
    return "numbers" if recipe["numbers"] == "parallel" and learnt else "analysis"


def calibrated_level(recipe: Mapping[str, Any], mode: str) -> float | None:
    """Return the calibrated level of intervals (``inference.intervals``); None if not calibrated in this mode."""
    level: float | None = ((recipe.get("calibration") or {}).get("levels") or {}).get(mode)
    return level


def _check_calibration(calibration: Any, path: Path) -> None:
    """Raise a ModelError unless it is None or has levels from 0.5 to 1 by mode."""
    if calibration is None:
        return
    levels = calibration.get("levels") if isinstance(calibration, dict) else None
    if (
        not isinstance(levels, dict)
        or not set(levels) <= set(_MODES)
        or not all(type(level) is float and 0.5 <= level <= 1 for level in levels.values())
    ):
        raise ModelError(
            f"{path}: calibration must have levels from 0.5 to 1 for {' or '.join(_MODES)}. Repeat it: "
            "semanticface calibrate MODEL DATASET"
        )
