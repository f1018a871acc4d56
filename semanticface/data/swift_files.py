"""Folders that ``swift_export`` wrote: known again, asked who is in them, and rid of a person."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from semanticface.data.consent import NAME as CONSENT
from semanticface.data.consent import read_list
from semanticface.formats.tables import read_objects
from semanticface.recipe import RECIPE_NAME
from semanticface.utils.files import atomic_open

KIND = "ms-swift"
IMAGES = "images"
"""The folder of pictures in it."""


def holds_export(folder: Path) -> bool:
    """Return whether a folder is such an export."""
    try:
        found = json.loads((folder / RECIPE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("kind") == KIND


def subjects_in(folder: Path) -> set[str]:
    """Return everybody in an export."""
    found = (row.get("subject") for file in sorted(folder.glob("*.jsonl")) for row in _rows(file) if row is not None)
    return {who for who in found if isinstance(who, str)}


def forget_rows(folder: Path, subject: str) -> tuple[int, int, str]:
    """Delete a person's rows and pictures from an export.

    Returns:
        How many rows, how many pictures, and what is still to be seen to by hand (mostly empty).

    Raises:
        SemanticFaceError: the system refuses to write.
    """
    rows = pictures = 0
    for file in sorted(folder.glob("*.jsonl")):
        found = list(_rows(file))
        theirs = [row is not None and row.get("subject") == subject for row in found]
        if not any(theirs):
            continue
        others = {name for row, gone in zip(found, theirs, strict=True) if row and not gone for name in _images(row)}
        # Pictures first: the rows that name them go last, so that the same call goes on.
        for row, gone in zip(found, theirs, strict=True):
            for name in _images(row) if row and gone else ():
                path = (folder / name).resolve()
                if name not in others and path.is_relative_to(folder.resolve()) and path.is_file():
                    path.unlink()
                    pictures += 1
        raw = file.read_bytes().split(b"\n")
        kept = [line for line, gone in zip(raw, theirs, strict=False) if not gone]
        rows += sum(theirs)
        with atomic_open(file, "wb") as out:
            out.writelines(line + b"\n" for line in kept)
    listed = folder / CONSENT
    named = listed.is_file() and subject in read_list(listed)
    return rows, pictures, f"{listed} still names {subject}: remove the line." if named else ""


def _rows(file: Path) -> Iterator[Mapping[str, Any] | None]:
    """Yield the lines of a JSONL, None for bad ones."""
    if file.stat().st_size:
        yield from (row for _, row, _ in read_objects(file))


def _images(row: Mapping[str, Any]) -> list[str]:
    found = row.get("images")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
