"""Settings as frozen dataclasses, read strictly from YAML with ``key.subkey=value`` overrides.

Unknown keys are errors, so a misspelt key cannot silently fall back to a default.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from semanticface.errors import ConfigError

T = TypeVar("T")


def read_settings(path: str | Path, settings: type[T], overrides: Sequence[str] = ()) -> T:
    """Read a YAML file into a settings dataclass.

    Args:
        path: YAML mapping with the fields of ``settings`` as keys, nested for dataclass fields.
        settings: a frozen dataclass; fields without a default must be in the file or in ``overrides``.
        overrides: ``key=value`` or ``key.subkey=value``, the value in YAML; they take precedence over the file.

    Raises:
        ConfigError: the file is missing or not a YAML mapping, a key is unknown or missing, or a value has the wrong
            type or is out of range.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}. Configs are in train/configs/.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must contain `key: value` lines, found {type(values).__name__}")
    for override in overrides:
        _override(values, override)
    return _build(values, settings, str(path), "")


def _override(values: dict[str, Any], override: str) -> None:
    """Set one ``key.subkey=value`` in a nested mapping, in place."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r}: write it as key=value, for example --set train.max_steps=100")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML") from error
    *parents, last = key.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override!r}: {parent} is a single value and has no key {last}")
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
    """Return ``value`` as type ``hint``, or raise a ConfigError that names the key."""
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
        # YAML 1.1 parses 1e-4 as text, because it has no decimal point.
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
