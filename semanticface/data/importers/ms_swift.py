"""Read ms-swift JSONL: rows with ``messages`` and ``images``, the form in which SemanticFace was published.

Other forms of such rows are read too (``recording.training_row``), and arrays in a JSON file.

The assistant's last message holds the coefficients, in any form that ``answer.parse_answer`` reads. An analysis in our
form is kept; published prose is dropped and the analysis is written from the coefficients (Stage I).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semanticface.data.importers.pictures import LabelledImage, PicturePart, group_by_person, parse_subject
from semanticface.errors import TableError
from semanticface.formats.recording import read, training_row
from semanticface.formats.tables import read_objects

LABELS: dict[str, Any] = {"by": "the answers in ms-swift rows"}
"""What the recipe says about the coefficients."""

_URL = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_DRIVE = re.compile(r"[a-zA-Z]:[\\/]")


def read_swift(
    files: Sequence[Path], *, pictures: Path | None = None, column: str = "subject", subject: str | None = None
) -> tuple[list[PicturePart], list[str]]:
    """Read ms-swift rows and group them by person, in order.

    Args:
        files: JSONL.
        pictures: folder that image paths are relative to; by default that of the file.
        column: key that says who is in a row's picture.
        subject: who is in all pictures; overrides ``column``.

    Returns:
        The parts, and a sentence for each row that names nobody.

    Raises:
        TableError: a file is missing or has no usable row.
    """
    parts: list[PicturePart] = []
    problems: list[str] = []
    for file in files:
        found = _read_one(file, pictures or file.parent, column, subject, problems)
        if not found:
            first = f" {problems[-1]}" if problems else ""
            raise TableError(f"{file}: no usable row.{first}")
        parts += found
    return parts, problems


def _read_one(file: Path, folder: Path, column: str, subject: str | None, problems: list[str]) -> list[PicturePart]:
    items: dict[str, list[LabelledImage]] = defaultdict(list)
    bad: dict[str, list[str]] = defaultdict(list)
    for (line, row, _), moment in zip(read_objects(file), read(file), strict=True):
        at = f"{file}, line {line}"
        who = parse_subject(subject or (row or {}).get(column))
        if row is None or not who:
            unnamed = f"{at}: the subject is unknown. Add {column!r}, or name it for all rows: --subject NAME"
            problems.append(moment.reason if row is None else unnamed)
            continue
        values = moment.coefficients
        try:
            if values is None:
                raise TableError(moment.reason)
            name = _picture(training_row(row), at)
        except TableError as error:
            bad[who].append(str(error))
            continue
        pose = None if moment.pose is None else moment.pose.astype(np.float32)
        items[who].append(LabelledImage(at, line, folder / name, values, moment.analysis, pose))
    return group_by_person(file, items, bad)


def _picture(row: dict[str, Any], at: str) -> str:
    """Return the path of a row's one picture; URLs are not fetched."""
    found = row.get("images")
    if not isinstance(found, list) or len(found) != 1:
        count = len(found) if isinstance(found, list) else "no list of"
        raise TableError(f"{at}: {count} images. A row must have exactly one.")
    name = found[0].get("path") if isinstance(found[0], dict) else found[0]
    if not isinstance(name, str) or not name:
        raise TableError(f"{at}: the image has no path. Save it as a file and give its path.")
    if _URL.match(name) and not _DRIVE.match(name):
        raise TableError(f"{at}: the image is a URL, which is not fetched. Save it as a file and give its path.")
    return name
