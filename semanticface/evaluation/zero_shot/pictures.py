"""Pictures for zero-shot evaluation: sets of the benchmark, or the user's own folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from semanticface import arkit
from semanticface.data.faces import coefficients_of, load_faces
from semanticface.errors import PictureError
from semanticface.evaluation.benchmark import ROWS, SETS, SIZE, render_benchmark_set, set_folder
from semanticface.formats import tables
from semanticface.vision.image_io import expand, load_picture

LABELS = ("labels.csv", "labels.jsonl")
"""Files of coefficients that a folder of pictures may contain, as in ``semanticface.formats.tables``."""


@dataclass(frozen=True, eq=False)
class PictureSet:
    """Named pictures, optionally with ground truth.

    Attributes:
        key: short name.
        about: description for reports.
        names: of the pictures, unique.
        people: the person in each picture; the picture's own name if unknown.
        true: float32[N, 52], with NaN rows for pictures without a label; None without any label.
        styles: of the few-shot examples for these pictures; empty for any.
        load: loads a picture by index; raises a ``PictureError``.
        problems: sentences on what is wrong with the labels, or left out.
    """

    key: str
    about: str
    names: tuple[str, ...]
    people: tuple[str, ...]
    true: np.ndarray | None
    styles: tuple[str, ...]
    load: Callable[[int], Image.Image]
    problems: tuple[str, ...] = ()


def benchmark_set(pictures: Path, key: str, limit: int, *, size: int = SIZE, workers: int = 1) -> PictureSet:
    """Return the first pictures of a set of ``eval/benchmark.py``, rendered if missing.

    Args:
        pictures: folder of the sets; the benchmark's complete set is used if it is there.
        key: one of ``benchmark.HOME``.
        limit: number of pictures.
        size: side of the portraits in pixels.
        workers: rendering processes.
    """
    complete = (set_folder(pictures, key, ROWS) / "dataset_dict.json").is_file()
    folder = render_benchmark_set(
        pictures, key, ROWS if complete and limit <= ROWS else limit, size=size, workers=workers
    )
    faces = load_faces(folder, "test").select(range(limit))
    return PictureSet(
        key,
        SETS[key],
        tuple(f"{key}/{i}" for i in range(limit)),
        tuple(faces["subject"]),
        coefficients_of(faces),
        ("photo" if key == "shifted" else key,),
        lambda i: load_picture(faces[i]["picture"]),
    )


def folder_set(folder: Path, limit: int) -> PictureSet:
    """Return the pictures of a folder, sorted by name, with labels from one of ``LABELS`` if there is one.

    Labels are matched by file name; a bad label becomes a problem and leaves its picture unlabelled.
    """
    if not folder.is_dir():
        raise PictureError("missing", f"{folder}: no such folder. Give the folder of your pictures.")
    found = expand([folder])
    paths = found[:limit]
    names = tuple(path.name for path in paths)
    true, problems = _labels(folder, names, {path.name for path in found})
    if len(paths) < len(found):
        problems.insert(0, f"the first {limit} of the {len(found)} pictures in {folder}; --limit takes more")
    return PictureSet(
        "pictures",
        f"the pictures in {folder.name}",
        names,
        names,
        true,
        (),
        lambda i: load_picture(paths[i], name=names[i]),
        tuple(problems),
    )


def _labels(folder: Path, names: tuple[str, ...], in_folder: set[str]) -> tuple[np.ndarray | None, list[str]]:
    """Return the labels of the named pictures, and the problems; ``in_folder`` are all pictures of the folder."""
    path = next((folder / name for name in LABELS if (folder / name).is_file()), None)
    if path is None:
        return None, []
    index_of = {name: i for i, name in enumerate(names)}
    true = np.full((len(names), arkit.N_ACTIONS), np.nan, np.float32)
    problems = []
    unknown: list[str] = []
    for row in tables.read_coefficients(path):
        i = index_of.get(Path(row.label).name)
        if row.coefficients is None:
            problems.append(row.error)
        elif i is None:
            unknown += [row.label] * (Path(row.label).name not in in_folder)
        elif not np.isnan(true[i]).any():
            problems.append(f"{path}, line {row.line}: {row.label} has a label already. Remove one; the first counts.")
        else:
            true[i] = row.coefficients
    if unknown:
        problems.append(f"{path}: {len(unknown)} labels of pictures that are not here, such as {unknown[0]!r}")
    if np.isnan(true).all():
        return None, [*problems, f"{path}: no label belongs to a picture here. Its image column must give file names."]
    return true, problems
