"""A model's recipe for publication: local paths reduced to names, and its training data."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from semanticface.data.consent import is_capture_dataset
from semanticface.data.faces import recipe_of_kind
from semanticface.data.provenance import Source, sources_from_recipe

Origin = Literal["rendered", "captured", "unknown"]
_HOME = re.compile(r"~[\w.-]*/")
_ASSIGNED = re.compile(r"([\w.-]+=)(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Data:
    """Faces that a model was trained on.

    Attributes:
        folder: as in the recipe.
        rows: of the training split; None if not recorded.
        fingerprint: of those rows; None if not recorded.
        origin: rendered faces, pictures of people, or unknown.
        people: number of real people; 0 for none or unknown.
        styles: proportions of the styles of rendered faces, if recorded.
    """

    folder: str
    rows: int | None
    fingerprint: str | None
    origin: Origin
    people: int
    styles: Mapping[str, float]


def public(value: Any) -> Any:
    """Return a JSON value with local paths reduced to names."""
    if isinstance(value, Mapping):
        return {key: public(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [public(inner) for inner in value]
    return _name(value) if isinstance(value, str) else value


def public_command(command: str) -> str:
    """Return a command line with local paths reduced to names."""
    out = []
    for word in shlex.split(command):
        assigned = _ASSIGNED.fullmatch(word)
        out.append(assigned[1] + _name(assigned[2]) if assigned else _name(word))
    return shlex.join(out)


def _name(text: str) -> str:
    plain = text.removeprefix("file://")
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(plain).is_absolute() or ".." in kind(plain).parts or _HOME.match(plain):
            return kind(plain).name
    return text


def local_base(recipe: Mapping[str, Any]) -> str | None:
    """Return the folder of an adapter's base if it is local; None for nano and Hub ids."""
    base = recipe["base"] or {}
    # Weights in a folder are identified by hash, those from the Hub by commit (models.base_record).
    return base["name"] if base and base["name"] != "nano" and base.get("sha256") is not None else None


def training_data(recipe: Mapping[str, Any]) -> list[Data]:
    """Return the training data in a recipe; empty if not recorded.

    Full models are trained only on rendered faces, which ``train/pretrain.py`` ensures.
    """
    settings = recipe["settings"]
    if recipe["kind"] != "adapter":
        return [Data(folder, None, None, "rendered", 0, {}) for folder in settings.get("faces") or []]
    made = ((settings.get("data") or {}).get("train") or {}).get("settings") or {}
    recorded = made.get("looks")
    styles: Mapping[str, float] = recorded if isinstance(recorded, dict) else {}
    found = sources_from_recipe(dict(recipe)) or []
    return [_data(source, styles if source.dataset == settings.get("dataset") else {}) for source in found]


def _data(source: Source, styles: Mapping[str, float]) -> Data:
    origin: Origin = "rendered" if source.people == 0 else "captured" if source.people > 0 else "unknown"
    folder = Path(source.dataset)
    if origin == "unknown" and (styles or recipe_of_kind(folder) is not None):
        origin = "rendered"
    elif origin == "unknown" and is_capture_dataset(folder):
        origin = "captured"
    return Data(source.dataset, source.rows, source.fingerprint, origin, max(source.people, 0), styles)
