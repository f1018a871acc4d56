"""Read blendshapes that were saved from MediaPipe, and the pictures they belong to.

A result is what MediaPipe's APIs return: a list of categories with ``categoryName`` (JavaScript) or ``category_name``
(Python) and ``score``, for one face or a list of faces, bare or under ``face_blendshapes`` or ``faceBlendshapes``. It
comes from:

* JSONL: a result a line, with the picture under ``image``;
* JSON: a list of such results, or an object of results by picture;
* CSV: ``image`` and MediaPipe's names, in any order;
* a folder of JSON files, each with one result, named like its picture.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from semanticface import arkit
from semanticface.data.importers.mediapipe import vector
from semanticface.data.importers.pictures import LabelledImage, PicturePart, group_by_person, parse_subject
from semanticface.errors import ModelError, TableError
from semanticface.formats.tables import MAX_CSV_LINE, MAX_ROWS, read_objects
from semanticface.utils import csv_lines
from semanticface.vision.image_io import SUFFIXES

MAX_JSON = 2**30
"""Bytes of one JSON."""

_RESULTS = ("face_blendshapes", "faceBlendshapes")
_NAMES = ("category_name", "categoryName")


def read_saved(
    saved: Path, *, pictures: Path | None = None, column: str = "subject", subject: str | None = None
) -> tuple[list[PicturePart], list[str]]:
    """Read saved results and group them by person.

    Args:
        saved: the file, or a folder of JSON files.
        pictures: folder that image paths are relative to; by default that of the file, or the folder itself.
        column: key or column that says who is in a picture.
        subject: who is in all pictures; overrides ``column``.

    Returns:
        The parts, and a sentence for each result that names nobody.

    Raises:
        TableError: the file is missing or has no usable result.
    """
    home = pictures or (saved if saved.is_dir() else saved.parent)
    items: dict[str, list[LabelledImage]] = defaultdict(list)
    bad: dict[str, list[str]] = defaultdict(list)
    problems: list[str] = []
    for number, at, found, error in _results(saved, home):
        who = parse_subject(subject or found.get(column))
        if not who:
            unnamed = f"{at}: the subject is unknown. Add {column!r}, or name it for all results: --subject NAME"
            problems.append(error or unnamed)
            continue
        try:
            if error:
                raise TableError(error)
            name = found.get("image")
            if not isinstance(name, str) or not name:
                raise TableError(f'{at}: the picture is missing. Give its path under "image".')
            items[who].append(LabelledImage(at, number, home / name, _coefficients(found, at)))
        except TableError as wrong:
            bad[who].append(str(wrong))
    if not items:
        every = [*problems, *(text for texts in bad.values() for text in texts)]
        raise TableError(f"{saved}: no usable result. {every[0] if every else 'It is empty.'}")
    return group_by_person(saved, items, bad), problems


# --- files --------------------------------------------------------------------------------------------------------


def _results(saved: Path, home: Path) -> Iterator[tuple[int, str, Mapping[str, Any], str]]:
    """Yield number, location, result with ``image`` in it, and the problem with it."""
    suffix = saved.suffix.lower()
    if saved.is_dir():
        yield from _folder(saved, home)
    elif suffix == ".jsonl":
        for line, found, error in read_objects(saved):
            yield line, f"{saved}, line {line}", found or {}, error
    elif suffix == ".csv":
        yield from _table(saved)
    elif suffix == ".json":
        value = _json(saved)
        if isinstance(value, dict) and not set(value) & {*_RESULTS, "image"}:
            listed = [_named(name, each) for name, each in value.items()]
        else:
            listed = value if isinstance(value, list) else [value]
        for number, each in enumerate(listed, start=1):
            at = f"{saved}, result {number}"
            if isinstance(each, dict):
                yield number, at, each, ""
            else:
                yield number, at, {}, f"{at}: not an object with its picture under 'image'."
    else:
        raise TableError(f"{saved}: not a .jsonl, .json or .csv, nor a folder of .json files.")


def _named(name: str, value: Any) -> dict[str, Any]:
    more = value if isinstance(value, dict) and set(value) & set(_RESULTS) else {_RESULTS[0]: value}
    return {**more, "image": name}


def _folder(folder: Path, home: Path) -> Iterator[tuple[int, str, Mapping[str, Any], str]]:
    by_stem: dict[str, list[str]] = defaultdict(list)
    for path in sorted(home.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            by_stem[path.stem].append(path.name)
    for number, file in enumerate(sorted(folder.glob("*.json")), start=1):
        names = by_stem.get(file.stem, [])
        error = ""
        value: Any = {}
        try:
            value = _json(file)
            if len(names) != 1:
                raise TableError(f"{file}: {len(names)} pictures of this name in {home}, not one.")
        except TableError as wrong:
            error = str(wrong)
        yield number, str(file), _named(names[0] if names else "", value), error


def _table(path: Path) -> Iterator[tuple[int, str, Mapping[str, Any], str]]:
    rows = csv_lines.read_lines(path, max_line_bytes=MAX_CSV_LINE, max_lines=MAX_ROWS)
    number, text, problem = next(rows)
    if problem:
        raise TableError(problem)
    header = csv_lines.parse_cells(text, f"{path}, line {number}")
    lacking = {"image", *arkit.MEDIAPIPE} - {"_neutral"} - set(header)
    if lacking or len(set(header)) != len(header):
        why = f"there is no column {min(lacking)}" if lacking else "a column appears twice"
        raise TableError(f"{path}, line {number}: {why}. The header needs image and MediaPipe's 51 names, each once.")
    for number, text, problem in rows:
        at = f"{path}, line {number}"
        try:
            if problem:
                raise TableError(problem)
            cells = csv_lines.parse_cells(text, at)
            if len(cells) != len(header):
                raise TableError(f"{at}: {len(cells)} cells where the header has {len(header)}. Save the file again.")
        except TableError as error:
            yield number, at, {}, str(error)
            continue
        found: dict[str, Any] = dict(zip(header, cells, strict=True))
        try:
            scores = {
                name: csv_lines.parse_number(found.pop(name), f"{at}, {name}")
                for name in arkit.MEDIAPIPE
                if name in found
            }
        except TableError as error:
            yield number, at, found, str(error)
            continue
        yield number, at, {**found, _RESULTS[0]: scores}, ""


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_JSON:
            raise TableError(f"{path}: larger than {MAX_JSON // 2**30} GiB. Split it, or save JSONL.")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}. Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise TableError(f"{path}: not valid JSON ({error}). Save it again.") from error


# --- results ------------------------------------------------------------------------------------------------------


def _coefficients(found: Mapping[str, Any], at: str) -> np.ndarray:
    """Return float32[52] of a result's one face, 0 for ``tongueOut``; raise a TableError if it is not valid."""
    result = next((found[key] for key in _RESULTS if key in found), None)
    if result is None:
        raise TableError(f"{at}: no face_blendshapes. Save the whole result, with blendshapes enabled.")
    faces = _faces(result)
    if len(faces) != 1:
        what = "MediaPipe found no face" if not faces else f"{len(faces)} faces"
        raise TableError(f"{at}: {what}. A result must have one face.")
    scores = _scores(faces[0], at)
    for name, score in scores.items():
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise TableError(f"{at}, {name}: {csv_lines.quote(str(score))} is not a number. Save it again.")
        if not -0.02 <= score <= 1.02:
            raise TableError(f"{at}, {name}: {score:g} is outside 0 to 1. Correct it or remove the result.")
    try:
        return vector({"_neutral": 0.0, **scores})
    except ModelError as error:
        raise TableError(f"{at}: {error}") from error


def _faces(result: Any) -> list[Any]:
    """Return the faces of a result, each a list of categories or an object of scores."""
    if isinstance(result, dict):
        return [result.get("categories", result)]
    if not isinstance(result, list):
        return []
    if all(isinstance(each, dict) and any(name in each for name in _NAMES) for each in result):
        return [result] if result else []
    return [each.get("categories", each) if isinstance(each, dict) else each for each in result]


def _scores(face: Any, at: str) -> dict[str, Any]:
    if isinstance(face, dict):
        return dict(face)
    out: dict[str, Any] = {}
    for each in face if isinstance(face, list) else [None]:
        name = next((each[key] for key in _NAMES if key in each), None) if isinstance(each, dict) else None
        if not isinstance(each, dict) or not isinstance(name, str) or "score" not in each:
            raise TableError(f"{at}: not a list of categories with a name and a score. Save the result again.")
        if name in out:
            raise TableError(f"{at}: {name} appears twice. Save the result again.")
        out[name] = each["score"]
    return out
