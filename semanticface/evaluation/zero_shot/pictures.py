"""The pictures that zero-shot questions are about: sets of the benchmark, or a folder of somebody's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from semanticface import arkit
from semanticface.data.faces import coefficients_of, load_faces
from semanticface.errors import PictureError
from semanticface.evaluation.benchmark import ROWS, SETS, SIZE, draw_set, set_folder
from semanticface.formats import tables
from semanticface.vision.image_io import expand, load_picture

LABELS = ("labels.csv", "labels.jsonl")
"""Names under which a folder of pictures may hold their coefficients, in a form of ``semanticface.formats.tables``."""


@dataclass(frozen=True, eq=False)
class PictureSet:
    """Named pictures, perhaps with truth.

    Attributes:
        key: short name.
        about: what it shows, for readers.
        names: of the pictures, all different.
        people: who each shows; where that is unknown, the picture's own name.
        true: float32[N, 52], NaN throughout the rows without a label; None where there is no label at all.
        looks: of the examples that are shown before these pictures; empty where any will do.
        load: gives a picture by its place; raises a ``PictureError``.
        problems: what is wrong with the labels, or left out, a sentence each.
    """

    key: str
    about: str
    names: tuple[str, ...]
    people: tuple[str, ...]
    true: np.ndarray | None
    looks: tuple[str, ...]
    load: Callable[[int], Image.Image]
    problems: tuple[str, ...] = ()


def benchmark_set(pictures: Path, key: str, limit: int, *, size: int = SIZE, workers: int = 1) -> PictureSet:
    """Return the first pictures of a set of ``eval/benchmark.py``, drawn where they are not there yet.

    Args:
        pictures: folder of the sets; the benchmark's own is used where it is whole.
        key: one of ``benchmark.SETS``.
        limit: how many.
        size: side of the portraits in pixels.
        workers: processes that draw.

    Raises:
        SemanticFaceError: as ``benchmark_sets.draw_set`` and ``dataset.load_faces``.
    """
    whole = (set_folder(pictures, key, ROWS) / "dataset_dict.json").is_file()
    folder = draw_set(pictures, key, ROWS if whole and limit <= ROWS else limit, size=size, workers=workers)
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
    """Return the pictures of a folder, by name, with the labels of ``LABELS`` where there are some.

    A label belongs to the picture whose file name it gives; a bad one is a problem, and its picture has none.

    Raises:
        PictureError: no such folder, or no picture in it.
        TableError: the labels are no table.
    """
    if not folder.is_dir():
        raise PictureError("missing", f"{folder}: no such folder. Give the folder that your pictures are in.")
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


def _labels(folder: Path, names: tuple[str, ...], there: set[str]) -> tuple[np.ndarray | None, list[str]]:
    """Return the labels of the named pictures, and what is wrong; ``there`` are all pictures of the folder."""
    path = next((folder / name for name in LABELS if (folder / name).is_file()), None)
    if path is None:
        return None, []
    places = {name: i for i, name in enumerate(names)}
    true = np.full((len(names), arkit.N_ACTIONS), np.nan, np.float32)
    problems = []
    strange: list[str] = []
    for row in tables.read_coefficients(path):
        place = places.get(Path(row.label).name)
        if row.coefficients is None:
            problems.append(row.error)
        elif place is None:
            strange += [row.label] * (Path(row.label).name not in there)
        elif not np.isnan(true[place]).any():
            problems.append(f"{path}, line {row.line}: {row.label} has a label already. Remove one; the first counts.")
        else:
            true[place] = row.coefficients
    if strange:
        problems.append(f"{path}: {len(strange)} labels of pictures that are not here, such as {strange[0]!r}")
    if np.isnan(true).all():
        return None, [*problems, f"{path}: no label belongs to a picture here. Its image column must give file names."]
    return true, problems
