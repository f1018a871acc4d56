"""What a model's recipe says when the model leaves this machine: without its places, and what it learnt from."""

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
    """Faces that a model learnt from.

    Attributes:
        folder: as the recipe names it.
        rows: of the split that it learnt from; None where the recipe does not say.
        fingerprint: of those rows; None likewise.
        origin: who they show: nobody who exists, people, or nobody knows.
        people: how many real people; 0 where there are none or nobody counted.
        looks: rendered faces' shares of looks, where the recipe says.
    """

    folder: str
    rows: int | None
    fingerprint: str | None
    origin: Origin
    people: int
    looks: Mapping[str, float]


def public(value: Any) -> Any:
    """Return a JSON value in which every place on this machine is only a name."""
    if isinstance(value, Mapping):
        return {key: public(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [public(inner) for inner in value]
    return _name(value) if isinstance(value, str) else value


def public_command(command: str) -> str:
    """Return a command line in which every place on this machine is only a name."""
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
    """Return the folder of the base of an adapter, where it is one of this machine; None for nano and hub ids."""
    base = recipe["base"] or {}
    # Only the weights of a folder are known by their hash, those from the hub by their commit (model.base_record).
    return base["name"] if base and base["name"] != "nano" and base.get("sha256") is not None else None


def training_data(recipe: Mapping[str, Any]) -> list[Data]:
    """Return what a recipe says that the model learnt from; nothing where it does not say.

    Whole bases learn from rendered faces alone, which ``train/pretrain.py`` sees to.
    """
    settings = recipe["settings"]
    if recipe["kind"] != "adapter":
        return [Data(folder, None, None, "rendered", 0, {}) for folder in settings.get("faces") or []]
    made = ((settings.get("data") or {}).get("train") or {}).get("settings") or {}
    told = made.get("looks")
    looks: Mapping[str, float] = told if isinstance(told, dict) else {}
    found = sources_from_recipe(dict(recipe)) or []
    return [_data(source, looks if source.dataset == settings.get("dataset") else {}) for source in found]


def _data(source: Source, looks: Mapping[str, float]) -> Data:
    origin: Origin = "rendered" if source.people == 0 else "captured" if source.people > 0 else "unknown"
    folder = Path(source.dataset)
    if origin == "unknown" and (looks or recipe_of_kind(folder) is not None):
        origin = "rendered"
    elif origin == "unknown" and is_capture_dataset(folder):
        origin = "captured"
    return Data(source.dataset, source.rows, source.fingerprint, origin, max(source.people, 0), looks)
