"""How a result was made: settings read strictly from YAML, and the ``semanticface.json`` beside every model.

A settings class is a frozen dataclass, perhaps of frozen dataclasses. ``read_settings`` fills it from a YAML file and
``key.subkey=value`` overrides, and refuses whatever it does not know: a misspelt key must not train with a default.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import importlib.metadata
import json
import math
import subprocess
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

import semanticface
from semanticface.errors import ConfigError, ModelError
from semanticface.prompts import Prompt
from semanticface.utils.files import atomic_open

RECIPE_NAME = "semanticface.json"
_RECIPE_KEYS = (
    "kind",
    "base",
    "prompt",
    "emotion",
    "readout",
    "image_size",
    "settings",
    "versions",
    "commit",
    "metrics",
)
_LAYOUTS = ("sequential", "parallel")
_MODES = ("full", "numbers")
_PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "bitsandbytes", "numpy")
_HASHED_AT_ONCE = 1 << 20

T = TypeVar("T")


def read_settings(path: str | Path, settings: type[T], overrides: Sequence[str] = ()) -> T:
    """Read a YAML file into a settings dataclass.

    Args:
        path: the YAML file; a mapping whose keys are the fields of ``settings``, nested where a field is a dataclass.
        settings: a frozen dataclass; fields without a default must be in the file or in ``overrides``.
        overrides: ``key=value`` or ``key.subkey=value``, the value in YAML; they win over the file.

    Raises:
        ConfigError: the file is missing or no YAML mapping, a key is unknown or missing, a value has the wrong type
            or is out of range.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}. Configs are in train/configs/.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, found {type(values).__name__}")
    for override in overrides:
        _override(values, override)
    return _build(values, settings, str(path), "")


def _override(values: dict[str, Any], override: str) -> None:
    """Put one ``key.subkey=value`` into a nested mapping, in place."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r}: write it as key=value, for example --set train.steps=100")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML") from error
    *parents, last = key.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override!r}: {parent} is a single value, it has no key {last}")
        values = inner
    values[last] = value


def _build(values: Mapping[str, Any], settings: type[T], source: str, prefix: str) -> T:
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, settings))}
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known keys: {', '.join(fields)}"
            raise ConfigError(f"{source}: unknown key {prefix}{key}; {hint}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ConfigError(f"{source}: {prefix}{name} is missing; add it to the file or pass --set {prefix}{name}=…")
    hints = typing.get_type_hints(settings)
    converted = {key: _convert(value, hints[key], source, f"{prefix}{key}") for key, value in values.items()}
    try:
        return settings(**converted)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def _convert(value: Any, hint: Any, source: str, key: str) -> Any:
    """Return ``value`` as the type ``hint``, or raise a ConfigError that names the key."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, Mapping):
            return _build(value, typing.cast(type, hint), source, f"{key}.")
        wanted = "nested keys"
    elif origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _convert(value, inner, source, key)
    elif origin is typing.Literal:
        if value in arguments:
            return value
        wanted = "one of " + ", ".join(map(str, arguments))
    elif origin is tuple:
        if isinstance(value, list | tuple):
            return tuple(_convert(item, arguments[0], source, key) for item in value)
        wanted = "a list"
    elif hint is float:
        # YAML 1.1 reads 1e-4 as text, because it lacks the point.
        number = _number(value)
        if number is not None:
            return number
        wanted = "a number"
    else:
        if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
            return value
        wanted = {int: "a whole number", bool: "true or false", str: "text"}[hint]
    raise ConfigError(f"{source}: {key} must be {wanted}, not {value!r}")


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise a ConfigError unless ``low <= value <= high``; for ``__post_init__`` of settings."""
    if not low <= value <= high:
        span = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise ConfigError(f"{name} must be {span}, not {value:g}")


def versions() -> dict[str, str]:
    """Return the versions of this package and of those that decide what a training gives."""
    found = {"semanticface": semanticface.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def git_commit() -> str | None:
    """Return the commit of the checkout that this package runs from, with ``+changes`` where files differ from it.

    None where the package is installed rather than checked out, or git is missing.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if changes else "")


def files_sha256(paths: Sequence[Path]) -> str:
    """Return one sha256 over the names and bytes of files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda each: each.name):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            while block := file.read(_HASHED_AT_ONCE):
                digest.update(block)
    return digest.hexdigest()


def prompt_record(prompt: Prompt) -> dict[str, str]:
    """Return what a recipe says of the prompt a model was trained with: name, version and sha256."""
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
    trained_on: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return what ``semanticface.json`` says of a model.

    Args:
        kind: ``base`` for whole weights, ``adapter`` for a LoRA adapter.
        base: for an adapter, how to load and recognise the weights under it (``model.base_record``); None for a base.
        prompt: name, version and sha256 of the prompt that the model was trained with.
        emotion: whether its answers carry ``emotional_implication``.
        readout: how numbers are read from it unless the caller says otherwise, ``greedy``, ``mean`` or ``median``.
        image_size: side in pixels of the square crop it takes.
        settings: everything a person chose.
        metrics: figures measured on held-out rows.
        numbers: the layout of the 52 numbers it was trained with (``layout.Numbers``).
        trained_on: datasets that it learnt from (``provenance.told``); left out where None.
    """
    return {
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
    } | ({} if trained_on is None else {"trained_on": [dict(source) for source in trained_on]})


def write_recipe(folder: str | Path, recipe: Mapping[str, Any]) -> None:
    """Write ``semanticface.json`` into a model folder."""
    with atomic_open(Path(folder) / RECIPE_NAME) as file:
        json.dump(recipe, file, indent=2, ensure_ascii=False)
        file.write("\n")


def read_recipe(folder: str | Path) -> dict[str, Any]:
    """Read ``semanticface.json`` of a model folder; one that does not say how numbers are laid out has them in a row.

    Raises:
        ModelError: the file is missing, no JSON object, lacks a key of ``make_recipe``, or names an unknown layout; or
            what ``semanticface calibrate`` wrote into it is damaged.
    """
    path = Path(folder) / RECIPE_NAME
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{path} is missing: the folder was not made by SemanticFace, or its training did not finish. "
            "Copy the whole folder, or train again with train/distill.py."
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}. Copy the folder again from where it was made.") from error
    missing = [key for key in _RECIPE_KEYS if not isinstance(recipe, dict) or key not in recipe]
    if missing:
        raise ModelError(f"{path} lacks {', '.join(missing)}: it is from another version. Train the model again.")
    if recipe.setdefault("numbers", "sequential") not in _LAYOUTS:
        raise ModelError(f"{path}: numbers is {recipe['numbers']!r}, not {' or '.join(_LAYOUTS)}: update SemanticFace.")
    _check_calibration(recipe.get("calibration"), path)
    return recipe


def calibrated_level(recipe: Mapping[str, Any], mode: str) -> float | None:
    """Return the level that makes a model's intervals hold what they say (``semanticface.inference.intervals``).

    None where the model was not calibrated, or not in this mode.
    """
    level: float | None = ((recipe.get("calibration") or {}).get("levels") or {}).get(mode)
    return level


def _check_calibration(calibration: Any, path: Path) -> None:
    """Raise a ModelError unless there is none, or it has levels from 0.5 to 1 by mode."""
    if calibration is None:
        return
    levels = calibration.get("levels") if isinstance(calibration, dict) else None
    if (
        not isinstance(levels, dict)
        or not set(levels) <= set(_MODES)
        or not all(type(level) is float and 0.5 <= level <= 1 for level in levels.values())
    ):
        raise ModelError(
            f"{path}: calibration must have levels from 0.5 to 1 for {' or '.join(_MODES)}. Make it again: "
            "semanticface calibrate MODEL DATASET"
        )
