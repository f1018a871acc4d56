"""Delete a person from everything below some folders, and name the models trained on them.

Covered are datasets of faces (imported, described, filtered or relabelled, with splits or without), ms-swift exports
with their images, candidates, choices and pairs, pages and predictions of evaluations, pages of imports, and cached
vision features of unfinished trainings. Adapters cannot unlearn: they are named, with what to do about them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semanticface.data.captures.dataset import CaptureSet
from semanticface.data.consent import is_capture_dataset
from semanticface.data.ms_swift_export import forget_rows, is_export, subjects_in
from semanticface.data.provenance import UNCOUNTED, Source, read_people, sources_from_recipe
from semanticface.errors import DatasetError, SemanticFaceError
from semanticface.formats.tables import read_objects
from semanticface.privacy.forget import (
    fingerprints,
    finish_interrupted,
    forget,
    hint,
    object_in,
    refers_to,
    settings_in,
    splits_of,
    subjects_of,
    trace_files,
)
from semanticface.recipe import RECIPE_NAME
from semanticface.utils.files import abandoned_writes

OUTPUTS = Path("outputs")
"""The default folder."""

_SKIPPED = {"checkpoints", "logs", "node_modules", "__pycache__"}
_EVALUATED = ("predictions.jsonl", "report.html")
_FEATURES = "features"  # cached vision features of a running training, see training.trainer


@dataclass(frozen=True, slots=True)
class AffectedModel:
    """A model that was, or may have been, trained on a person.

    Attributes:
        folder: of the model, or of an unfinished training.
        certain: whether it was trained on them; otherwise it was trained on a dataset that once contained them.
        finished: False for an unfinished training.
        dataset: that it was trained on.
    """

    folder: Path
    certain: bool
    finished: bool
    dataset: str

    def advice(self, subject: str) -> str:
        """Return what to do about it, in a line."""
        if not self.finished:
            return f"{self.folder}: an unfinished training on {self.dataset}. Delete the folder and start again."
        how = f"trained on {subject}" if self.certain else f"trained on {self.dataset}, perhaps with {subject} in it"
        return (
            f"{self.folder}: {how}. A model cannot unlearn: delete it and all its copies, and train again on "
            f"{self.dataset}."
        )


@dataclass(frozen=True, slots=True)
class ForgottenEverywhere:
    """What was deleted, and which models were trained on it.

    Attributes:
        deleted: a line for each folder or file from which something was deleted.
        left: a sentence for each thing that still names the person and must be edited by hand.
        models: that were or may have been trained on them.
    """

    deleted: tuple[str, ...]
    left: tuple[str, ...]
    models: tuple[AffectedModel, ...]


def forget_everywhere(
    subject: str, paths: Sequence[str | Path], log: Callable[[str], object] = print
) -> ForgottenEverywhere:
    """Delete a person from everything derived from their pictures, and name the models trained on them.

    Args:
        subject: as in the datasets' column.
        paths: folders, searched to any depth, and single files of choices, candidates or pairs.
        log: receives each line as soon as it is true, models first.

    Raises:
        DatasetError: there is nothing about this subject; the message suggests similar names.
        SemanticFaceError: something cannot be read or written; the same call resumes.
    """
    deleted: list[str] = []

    def done(line: str) -> None:
        deleted.append(line)
        log(line)

    for scratch in [each for path in map(Path, paths) for each in abandoned_writes(path)]:
        shutil.rmtree(scratch)
        log(f"{scratch}: deleted, left by a command that was stopped")
    folders = [folder for path in map(Path, paths) for folder in _folders(path)]
    files = list(dict.fromkeys(trace_files(paths)))
    sets = [folder for folder in folders if _is_dataset(folder)]
    for folder in filter(is_capture_dataset, sets):
        CaptureSet(folder, None)  # deletes files unpacked by an interrupted import
        if subject in finish_interrupted(folder):
            done(f"{folder}: pages and records of {subject} deleted")
    people = {folder: subjects_of(folder) for folder in sets}
    exports = {folder: subjects_in(folder) for folder in folders if is_export(folder)}
    named = _naming(subject, files)
    chosen = [
        folder
        for folder, there in people.items()
        if subject in there or any(named & prints for prints in fingerprints(folder).values())
    ]
    if not chosen and named:
        chosen = sets  # only traces are left, of an unknown dataset
    models = _models(subject, folders, chosen)
    for model in models:
        log(model.advice(subject))
    if not deleted and not chosen and not models and not any(subject in there for there in exports.values()):
        known = {who for there in [*people.values(), *exports.values()] for who in there} - {subject}
        where = ", ".join(map(str, paths))
        raise DatasetError(f"{where}: nothing about {subject!r}, and no model trained on them.{hint(subject, known)}")
    left: list[str] = []
    for folder in chosen:
        # First, while the rows still show that there is something to delete.
        for line in _delete_derived(folder, folders):
            done(line)
        left += _from_dataset(subject, folder, files, done)
    for folder, there in exports.items():
        if subject in there:
            rows, images, remark = forget_rows(folder, subject)
            done(f"{folder}: {rows} rows and {images} images deleted")
            left += [remark] if remark else []
    for line in left:
        log(line)
    return ForgottenEverywhere(tuple(deleted), tuple(left), tuple(models))


def _from_dataset(subject: str, folder: Path, files: Sequence[Path], done: Callable[[str], None]) -> tuple[str, ...]:
    result = forget(subject, folder, [file for file in files if file.exists()])
    done(f"{folder}: {result.rows} rows deleted")
    if any(file.suffix == ".sqlite" for file in files):
        done(f"{result.choices} choices deleted from databases")
    for file, count in result.lines.items():
        done(f"{file}: {count} lines deleted")
    if result.takes:
        done(f"{folder}: pages and records of {result.takes} takes deleted")
    return result.left


# --- search -------------------------------------------------------------------------------------------------------


def _folders(path: Path) -> Iterator[Path]:
    """Yield a folder and those below it, except those inside a dataset."""
    if not path.exists():
        raise SemanticFaceError(f"{path}: no such file or folder. Check the path; nothing was deleted.")
    for name, below, _ in os.walk(path):
        folder = Path(name)
        yield folder
        inside = _is_dataset(folder)
        below[:] = [] if inside else sorted(each for each in below if each[0] != "." and each not in _SKIPPED)


def _is_dataset(folder: Path) -> bool:
    try:
        splits_of(folder)
    except DatasetError:
        return is_capture_dataset(folder)
    return True


def _naming(subject: str, files: Sequence[Path]) -> set[str]:
    """Return the fingerprints of the datasets to which lines about a person refer; an empty one if not known."""
    prints: set[str] = set()
    for file in files:
        if file.suffix != ".jsonl" or not file.stat().st_size:
            continue
        lines = [line for _, line, _ in read_objects(file) if line is not None]
        if any(line.get("subject") == subject and "picture" in line for line in lines):
            prints |= {str(line["dataset"]) for line in lines if "dataset" in line and "split" in line} or {""}
    return prints


# --- evaluations and caches ---------------------------------------------------------------------------------------


def _delete_derived(dataset: Path, folders: Sequence[Path]) -> Iterator[str]:
    """Delete pages, predictions and cached features of single pictures of a dataset; yield a line for each."""
    prints = fingerprints(dataset)
    for folder in folders:
        evaluated = object_in(folder / "metrics.json").get("recipe")
        if isinstance(evaluated, dict) and refers_to(evaluated, dataset, prints):
            deleted = [name for name in _EVALUATED if (folder / name).exists()]
            for name in deleted:
                (folder / name).unlink()
            if deleted:
                yield f"{folder}: {' and '.join(deleted)} deleted; the figures stay. Evaluate again for a new page"
        if (folder / _FEATURES).is_dir() and refers_to(settings_in(folder), dataset, prints):
            shutil.rmtree(folder / _FEATURES)
            yield f"{folder / _FEATURES}: deleted"


# --- models -------------------------------------------------------------------------------------------------------


def _models(subject: str, folders: Sequence[Path], datasets: Sequence[Path]) -> list[AffectedModel]:
    """Return the models trained on a person, or on one of the datasets, which contain or contained them."""
    prints = {folder: fingerprints(folder) for folder in datasets}

    def used(run: Mapping[str, Any]) -> bool:
        return any(refers_to(run, folder, prints[folder]) for folder in datasets)

    out = []
    for folder in folders:
        recipe = object_in(folder / RECIPE_NAME)
        if recipe.get("kind") == "adapter":
            sources = read_people(folder) or sources_from_recipe(recipe)
            if sources is None:
                dataset = _alignment_dataset(folder)
                sources = [] if dataset is None else [Source(dataset, "train", "", 0, UNCOUNTED)]
            certain = [source for source in sources if source.includes(subject)]
            possible = [
                source
                for source in sources
                if not source.known and used({"dataset": source.dataset, "data": source.fingerprint})
            ]
            if certain or possible:
                names = " and ".join(dict.fromkeys(source.dataset for source in certain or possible))
                out.append(AffectedModel(folder, bool(certain), True, names))
        elif used(settings := settings_in(folder)) and not _has_adapter(folder):
            out.append(AffectedModel(folder, False, False, str(settings["dataset"])))
    return out


def _alignment_dataset(adapter: Path) -> str | None:
    """Return the dataset of the alignment run that an adapter belongs to, for older adapters without sources."""
    found = (settings_in(parent).get("dataset") for parent in adapter.parents[:2])
    return next((each for each in found if isinstance(each, str)), None)


def _has_adapter(run: Path) -> bool:
    """Whether an alignment run finished; its adapters are listed one by one."""
    return (run / "adapter" / RECIPE_NAME).exists()
