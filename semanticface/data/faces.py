"""Faces on disk: pictures with their exact coefficients, in the form of ``datasets.DatasetDict.save_to_disk``.

``datasets.load_from_disk`` reads such a folder anywhere; ``load_faces`` does the same and says what is wrong when it
cannot. The files that mark a folder as complete are written last, so an interrupted one is recognised.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets import Features, Image, List, Value

from semanticface import arkit
from semanticface.errors import DatasetError, PictureError
from semanticface.recipe import RECIPE_NAME
from semanticface.rendering.types import POINTS
from semanticface.utils.files import atomic_open, write_json

CAMERA_KEYS = ("yaw", "pitch", "roll", "fov", "scale")

FEATURES = Features(
    {
        "picture": Image(),
        "coefficients": List(Value("float32"), length=arkit.N_ACTIONS),
        "subject": Value("string"),
        "look": Value("string"),
        "camera": {key: Value("float32") for key in CAMERA_KEYS},
        "pose": List(Value("float32"), length=arkit.N_POSE),
        "seed": Value("int64"),
        "answer": Value("string"),
        "points": List(List(Value("float32"), length=2), length=len(POINTS)),
        "box": List(Value("float32"), length=4),
        "family": Value("string"),
    }
)
"""The columns. ``coefficients`` in the project's order; ``subject`` is the person, whatever the style; ``look`` is the
style; ``camera`` in degrees (``scale``: the face box's share of the frame's width); ``pose`` in radians
(``arkit.POSE_NAMES``); ``seed`` reproduces the row; ``answer`` is the canonical text of Stage I; ``points``
(``rendering.types.POINTS``) and ``box`` are in pixels; ``family`` is that of the head, empty where a style has none."""

_NEEDED = ("picture", "coefficients", "subject", "answer")


def shard_path(folder: Path, split: str, index: int, count: int) -> Path:
    """Return the path of one of a split's ``count`` Arrow files, named as ``datasets`` names them."""
    return folder / split / f"data-{index:05d}-of-{count:05d}.arrow"


def write_shard(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows (keys of ``FEATURES``; the picture as encoded bytes) as one Arrow file, whole or not at all."""
    schema = FEATURES.arrow_schema
    columns = {name: [row[name] for row in rows] for name in FEATURES if name != "picture"}
    columns["picture"] = [{"bytes": row["picture"], "path": None} for row in rows]
    table = pa.table({name: pa.array(columns[name], type=schema.field(name).type) for name in FEATURES}, schema=schema)
    with atomic_open(path, "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        stream.write_table(table)


def write_index(folder: Path, shards: Mapping[str, int], recipe: Mapping[str, Any]) -> None:
    """Mark a folder as complete: write the small files that ``datasets.load_from_disk`` looks for.

    Args:
        folder: already holds every Arrow file.
        shards: number of Arrow files of each split, in the order in which the splits are listed.
        recipe: how the rows were made; each split's fingerprint comes from it, so equal rows share one.
    """
    text = json.dumps(recipe, sort_keys=True)
    for split, count in shards.items():
        files = [shard_path(folder, split, i, count).name for i in range(count)]
        write_split_index(folder, split, FEATURES, files, f"{split}:{text}")
    write_json(folder / "dataset_dict.json", {"splits": list(shards)})


def write_split_index(folder: Path, split: str, features: Features, files: Sequence[str], identity: str) -> None:
    """Write the index of one split; its fingerprint is a hash of ``identity``."""
    info = {"citation": "", "description": "", "features": features.to_dict(), "homepage": "", "license": ""}
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in files],
        "_fingerprint": hashlib.sha256(identity.encode()).hexdigest()[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    write_json(folder / split / "dataset_info.json", info)
    write_json(folder / split / "state.json", state)


def split_at(position: float, splits: Mapping[str, float]) -> str:
    """Return the split at a position in [0, 1) when the splits are laid end to end by their shares."""
    position *= sum(splits.values())
    ends = zip(splits, accumulate(splits.values()), strict=True)
    return next((name for name, end in ends if position < end), list(splits)[-1])


def recipe_of_kind(folder: Path, kind: str = "faces") -> dict[str, Any] | None:
    """Return the recipe of a folder if it holds a dataset of this kind, complete or not; else None."""
    try:
        recipe = json.loads((folder / RECIPE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return recipe if isinstance(recipe, dict) and recipe.get("kind") == kind else None


def load_faces(folder: str | Path, split: str) -> datasets.Dataset:
    """Open one split of a dataset of faces; rows stay on disk until they are read.

    Args:
        folder: written by ``data_prep/render_faces.py``, or by ``save_to_disk`` of any ``DatasetDict`` with the columns
            picture, coefficients, subject and answer.
        split: such as ``train``, ``validation`` or ``test``.

    Raises:
        DatasetError: the folder is missing, incomplete or not such a dataset, or has no such split.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder. Make it with: semanticface render-faces --out {folder}")
    index = folder / "dataset_dict.json"
    if not index.is_file():
        if recipe_of_kind(folder) is not None:
            raise DatasetError(f"{folder} is incomplete. Run the command that makes it again; it resumes.")
        raise DatasetError(
            f"{folder} is not a dataset of faces: dataset_dict.json is missing. Give the folder that "
            "semanticface render-faces (or save_to_disk of a DatasetDict) wrote, not a folder inside it."
        )
    splits = _read_json(index).get("splits", [])
    if split not in splits:
        raise DatasetError(f"{folder} has no split {split!r}. It has: {', '.join(splits) or 'none'}.")
    state = folder / split / "state.json"
    for entry in _read_json(state).get("_data_files", []):
        file = folder / split / entry["filename"]
        if not file.is_file():
            raise DatasetError(f"{file} is missing: copy the whole folder, or make the dataset again.")
    try:
        loaded = datasets.load_from_disk(str(folder / split))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DatasetError(f"{folder / split} cannot be read: {error}. Make the dataset again.") from error
    missing = [name for name in _NEEDED if name not in loaded.column_names]
    if missing:
        raise DatasetError(
            f"{folder} lacks the columns {', '.join(missing)}; it has {', '.join(loaded.column_names)}. "
            "Rename yours, or make answers with `semanticface write-answers`."
        )
    if not isinstance(loaded.features["picture"], Image):
        raise DatasetError(f"{folder}: the column picture must be a datasets.Image, not {loaded.features['picture']}.")
    return loaded


def coefficients_of(faces: datasets.Dataset) -> np.ndarray:
    """Return the labels of all rows, float32[N, 52], without reading other columns."""
    labels: np.ndarray = faces.with_format("numpy")["coefficients"][:].astype(np.float32)
    return labels


def picture_bytes(stored: Mapping[str, Any] | None, name: str) -> bytes:
    """Return the bytes of a picture from an undecoded ``datasets.Image`` column, reading its path if it has none.

    Raises:
        PictureError: there is no picture; the message begins with ``name``.
    """
    if stored is None:
        raise PictureError("missing", f"{name}: no picture. Make the dataset again, or remove the row.")
    if stored["bytes"] is not None:
        return bytes(stored["bytes"])
    try:
        return Path(stored["path"]).read_bytes()
    except (OSError, TypeError) as error:
        raise PictureError("missing", f"{name}: no picture ({error}). Copy the whole dataset.") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}. Copy the whole folder, or make it again.") from error
    if not isinstance(value, dict):
        raise DatasetError(f"{path} is not in the format that save_to_disk writes. Make the dataset again.")
    return value


def dataset_record(faces: datasets.Dataset, folder: str | Path) -> dict[str, Any]:
    """Return how a dataset was made, as far as its recipe says, and a fingerprint of its rows."""
    recipe = Path(folder) / RECIPE_NAME
    try:
        made = json.loads(recipe.read_text(encoding="utf-8"))
    except FileNotFoundError:
        made = {}
    except (OSError, ValueError) as error:
        raise DatasetError(f"{recipe} cannot be read: {error}. Copy it again, or make the dataset again.") from error
    return {"fingerprint": faces._fingerprint, "rows": len(faces)} | {
        key: made[key] for key in ("settings", "versions", "commit") if key in made
    }
