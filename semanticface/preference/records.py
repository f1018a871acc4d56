"""Slates and pairs as lines of JSON: coefficients by action name, strict on the way in."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from semanticface.arkit import INDEX, NAMES, by_name, vector
from semanticface.errors import TableError
from semanticface.utils.files import atomic_open

T = TypeVar("T")


def write_records(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line; the file appears only when it is complete.

    Raises:
        SemanticFaceError: the system refuses to write.
    """
    with atomic_open(path, newline="") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """Return values for JSON, mappings and lists of them too, with None for numbers that are undefined or infinite."""
    if isinstance(value, Mapping):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def coefficients_record(coefficients: np.ndarray) -> dict[str, float]:
    """Return float32[52] by action name, as short as they can be written exactly."""
    # Adding 0 turns -0.0 into 0.0.
    return {name: round(value, 6) + 0.0 for name, value in by_name(coefficients).items()}


def coefficients_from(value: object, at: str) -> np.ndarray:
    """Return float32[52] from an object of all 52 action names.

    Args:
        value: read from JSON.
        at: file, line and key, for the message.

    Raises:
        TableError: no such object, or a number that is none or lies outside 0 to 1.
    """
    if not isinstance(value, dict) or value.keys() != INDEX.keys():
        raise TableError(f"{at}: not an object with exactly the 52 action names. Remove the line or make it again.")
    for name in NAMES:
        number = value[name]
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
            raise TableError(f"{at}: {name} is not a number from 0 to 1. Remove the line or make it again.")
    return vector(value)


def field(record: Mapping[str, Any], name: str, kind: type[T], at: str) -> T:
    """Return a field of a record.

    Raises:
        TableError: it is missing or of another type; ``at`` says where.
    """
    value = record.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TableError(f"{at}: {name} is not a JSON {kind.__name__}. Remove the line or make it again.")
    return value
