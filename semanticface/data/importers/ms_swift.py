"""ms-swift JSONL to a dataset of faces: rows with ``messages`` and ``images``, as SemanticFace was published.

The last answer of the assistant holds the numbers, in any form that ``answer.parse_answer`` reads. Words come with them
where they are in our form; prose is left behind, and words are written anew from the numbers (Stage I).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semanticface.data.importers.pictures import Labelled, Pictures, parts_of, person
from semanticface.errors import TableError
from semanticface.formats.recording import read
from semanticface.formats.tables import read_objects

LABELS: dict[str, Any] = {"by": "the answers in ms-swift rows"}
"""What the recipe says of the coefficients."""

_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_DRIVE = re.compile(r"[a-zA-Z]:[\\/]")


def read_swift(
    files: Sequence[Path], *, pictures: Path | None = None, column: str = "subject", subject: str | None = None
) -> tuple[list[Pictures], list[str]]:
    """Read files of ms-swift rows, and group the rows by person, in order.

    Args:
        files: JSONL.
        pictures: folder that pictures' names are relative to; by default that of the file.
        column: key of a row that says who is in its picture.
        subject: who is in all of them; then no row has to say it.

    Returns:
        The parts, and what is wrong with rows that say nobody, a sentence each.

    Raises:
        TableError: no such file, or no row of it can be used.
    """
    parts: list[Pictures] = []
    problems: list[str] = []
    for file in files:
        found = _read_one(file, pictures or file.parent, column, subject, problems)
        if not found:
            first = f" {problems[-1]}" if problems else ""
            raise TableError(f"{file}: no row that can be used.{first}")
        parts += found
    return parts, problems


def _read_one(file: Path, folder: Path, column: str, subject: str | None, problems: list[str]) -> list[Pictures]:
    items: dict[str, list[Labelled]] = defaultdict(list)
    bad: dict[str, list[str]] = defaultdict(list)
    for (line, row, _), moment in zip(read_objects(file), read(file), strict=True):
        at = f"{file}, line {line}"
        who = person(subject or (row or {}).get(column))
        if row is None or not who:
            silent = f"{at}: does not say who is in it. Add {column!r}, or say it for all: --subject NAME"
            problems.append(moment.reason if row is None else silent)
            continue
        values = moment.coefficients
        try:
            if values is None:
                raise TableError(moment.reason)
            name = _picture(row, at)
        except TableError as error:
            bad[who].append(str(error))
            continue
        pose = None if moment.pose is None else moment.pose.astype(np.float32)
        items[who].append(Labelled(at, line, folder / name, values, moment.analysis, pose))
    return parts_of(file, items, bad)


def _picture(row: dict[str, Any], at: str) -> str:
    """Return the name of a row's one picture; nothing is fetched from anywhere."""
    found = row.get("images")
    if not isinstance(found, list) or len(found) != 1:
        count = len(found) if isinstance(found, list) else "no list of"
        raise TableError(f"{at}: {count} images. A row must name exactly one picture.")
    name = found[0].get("path") if isinstance(found[0], dict) else found[0]
    if not isinstance(name, str) or not name:
        raise TableError(f"{at}: the image has no path. Save the picture as a file and name it.")
    if _ELSEWHERE.match(name) and not _DRIVE.match(name):
        raise TableError(f"{at}: the image is no file. Pictures are not fetched: save it as a file and name that.")
    return name
