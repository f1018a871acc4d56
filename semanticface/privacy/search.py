"""What lies below some folders: datasets, exports, and files about their pictures; and what cannot be searched.

Nothing stops the search. Damaged and foreign files are named and passed over; links out of the folders are named and
not followed. Hidden folders are searched like others.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from semanticface.data.consent import is_capture_dataset
from semanticface.data.ms_swift_export import is_export, subjects_in
from semanticface.errors import SemanticFaceError
from semanticface.formats.tables import read_objects
from semanticface.llm.reply_cache import APPLICATION_ID as REPLY_CACHE
from semanticface.preference.store import APPLICATION_ID as CHOICES
from semanticface.preference.store import Store
from semanticface.privacy.forget import fingerprints, is_trace, lacks_columns, subjects_of
from semanticface.utils.files import is_abandoned

T = TypeVar("T")


@dataclass(slots=True)
class Places:
    """What lies below some folders.

    Attributes:
        folders: all, except those inside a dataset.
        files: readable files of choices, candidates and pairs.
        people: everybody in each readable dataset of faces.
        exports: everybody in each readable ms-swift export.
        abandoned: temporary folders of killed commands.
        skipped: a sentence for each thing that could not be searched, or was passed over.
    """

    folders: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    people: dict[Path, set[str]] = field(default_factory=dict)
    exports: dict[Path, set[str]] = field(default_factory=dict)
    abandoned: list[Path] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def attempt(self, step: Callable[[], T]) -> T | None:
        """Run a step; if it fails, note why and return None."""
        try:
            return step()
        except (SemanticFaceError, OSError) as error:
            self.skipped.append(str(error))
            return None


def search(paths: Sequence[str | Path]) -> Places:
    """Look through folders of any depth, and single files of choices, candidates or pairs.

    Raises:
        SemanticFaceError: a path is missing, or a file of another kind.
    """
    found = Places()
    roots = [Path(path) for path in paths]
    for path in roots:
        if not path.exists():
            raise SemanticFaceError(f"{path}: no such file or folder. Check the path; nothing was deleted.")
        if not path.is_dir() and not is_trace(path):
            raise SemanticFaceError(f"{path}: neither .jsonl nor .sqlite. Nothing was deleted.")
    inside = [root.resolve() for root in roots]
    for root in roots:
        if root.is_dir():
            _walk(root, inside, found)
        else:
            found.files.append(root)
    found.folders = list(dict.fromkeys(found.folders))
    found.skipped = list(dict.fromkeys(found.skipped))
    found.files = [file for file in dict.fromkeys(found.files) if _is_readable(file, found)]
    for folder in found.folders:
        if _has_index(folder):
            _add_dataset(folder, found)
        elif is_export(folder) and (there := found.attempt(partial(subjects_in, folder))) is not None:
            found.exports[folder] = there
    return found


def _walk(root: Path, inside: Sequence[Path], found: Places) -> None:
    def unreadable(error: OSError) -> None:
        found.skipped.append(f"{error.filename}: {error.strerror}, not searched.")

    in_dataset: list[Path] = []
    for name, below, names in os.walk(root, onerror=unreadable):
        folder = Path(name)
        for each in sorted([*below, *names]):
            path = folder / each
            # realpath, because Path.resolve raises on loops.
            target = Path(os.path.realpath(path))
            if path.is_symlink() and not any(target.is_relative_to(parent) for parent in inside):
                found.skipped.append(f"{path}: a link to {path.readlink()}, outside. It is not followed.")
            elif each in names and is_trace(path) and path.is_file():
                found.files.append(target if path.is_symlink() else path)
        abandoned = [each for each in below if is_abandoned(folder / each)]
        found.abandoned += [folder / each for each in abandoned]
        below[:] = sorted(set(below) - set(abandoned))
        if not any(folder.is_relative_to(dataset) for dataset in in_dataset):
            found.folders.append(folder)
            if _has_index(folder):
                in_dataset.append(folder)


def _has_index(folder: Path) -> bool:
    """Whether a folder is a dataset, perhaps a damaged one."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")) or is_capture_dataset(folder)


def _add_dataset(folder: Path, found: Places) -> None:
    if is_capture_dataset(folder) and not (folder / "dataset_dict.json").exists():
        return  # begun by an import that was interrupted

    def people() -> set[str]:
        fingerprints(folder)
        return subjects_of(folder)

    there = found.attempt(people)
    if there is None:
        return
    if there and (missing := lacks_columns(folder)):
        found.skipped.append(f"{folder}: not a dataset of faces (no column {missing}), not searched.")
    else:
        found.people[folder] = there


def _is_readable(file: Path, found: Places) -> bool:
    if file.suffix == ".jsonl":
        return found.attempt(lambda: _read(read_objects(file) if file.stat().st_size else ())) is not None
    application = _application(file)
    if application == REPLY_CACHE:
        return False  # replies by the hash of a request: they name nobody
    if application is None:
        found.skipped.append(f"{file}: damaged, or not a database. Choices in it are not deleted: delete the file.")
    elif application not in (CHOICES, 0):
        found.skipped.append(f"{file}: another program's database, not searched.")
    elif file.stat().st_size:
        return found.attempt(lambda: _opens(file)) is not None
    return False


def _opens(file: Path) -> bool:
    with Store(file, create=False):
        return True


def _read(lines: Iterable[object]) -> bool:
    for _ in lines:
        pass
    return True


def _application(file: Path) -> int | None:
    """Return the ``application_id`` of an SQLite file; None if it is none, or damaged."""
    try:
        connection = sqlite3.connect(file, timeout=20, isolation_level=None)
        try:
            return int(connection.execute("PRAGMA application_id").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.Error:
        return None
