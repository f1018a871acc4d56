"""Delete a person from everything below some folders, and name the models trained on them.

Covered are datasets of faces (imported, described, filtered or relabelled, with splits or without), ms-swift exports
with their images, candidates, choices and pairs, pages and predictions of evaluations, pages of imports, and cached
vision features of unfinished trainings. Adapters cannot unlearn: they are named, with what to do about them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from semanticface.data.captures.dataset import CaptureSet
from semanticface.data.captures.report import PAGE
from semanticface.data.consent import is_capture_dataset
from semanticface.data.ms_swift_export import forget_rows
from semanticface.data.provenance import UNCOUNTED, Source, read_people, sources_from_recipe
from semanticface.errors import DatasetError
from semanticface.formats.tables import read_objects
from semanticface.preference.store import Store
from semanticface.privacy.forget import (
    count_lines,
    fingerprints,
    finish_interrupted,
    forget,
    hint,
    object_in,
    pictures_of,
    refers_to,
    settings_in,
    splits_of,
    subjects_of,
)
from semanticface.privacy.search import Places, search
from semanticface.recipe import RECIPE_NAME

OUTPUTS = Path("outputs")
"""The default folder."""

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
        skipped: a sentence for each thing that could not be read or deleted, or was passed over.
    """

    deleted: tuple[str, ...]
    left: tuple[str, ...]
    models: tuple[AffectedModel, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What a person's name leads to: everything that ``forget_found`` deletes from.

    Attributes:
        subject: as in the datasets' column.
        places: what lies below the folders.
        chosen: datasets that contain the person, or of which files about their pictures are left.
        models: that were or may have been trained on them.
        unfinished: captures with an interrupted import or deletion, which is finished first.
    """

    subject: str
    places: Places
    chosen: tuple[Path, ...]
    models: tuple[AffectedModel, ...]
    unfinished: tuple[Path, ...]

    @property
    def exports(self) -> list[Path]:
        """Exports that contain the person."""
        return [folder for folder, there in self.places.exports.items() if self.subject in there]

    def lines(self) -> Iterator[str]:
        """Yield a line for each thing that will be deleted; nothing is."""
        places, subject = self.places, self.subject
        yield from (f"{scratch}: left by a command that was stopped" for scratch in places.abandoned)
        yield from (f"{folder}: an interrupted import or deletion, to be finished" for folder in self.unfinished)
        pictures: set[str] = set()
        for folder in self.chosen:
            theirs, rows = pictures_of(subject, folder, splits_of(folder))
            pictures |= theirs
            yield f"{folder}: {rows.count(subject)} rows"
            yield from (f"{path}" for path in _derived(folder, places.folders))
        for file in places.files:
            if file.suffix == ".sqlite":
                with Store(file, create=False) as store:
                    count, unit = store.count_pictures(pictures), "choices"
            else:
                count, unit = count_lines(file, subject, pictures), "lines"
            if count:
                yield f"{file}: {count} {unit}"
        yield from (f"{folder}: rows and images of {subject}" for folder in self.exports)


def find_everywhere(subject: str, paths: Sequence[str | Path]) -> Found:
    """Find everything derived from a person's pictures, and the models trained on them; nothing is changed.

    Args:
        subject: as in the datasets' column.
        paths: folders, searched to any depth, and single files of choices, candidates or pairs.

    Raises:
        DatasetError: there is nothing about this subject; the message suggests similar names, and names what could
            not be searched.
        SemanticFaceError: a path is missing.
    """
    places = search(paths)
    named = _naming(subject, places.files)
    chosen = [
        folder
        for folder, there in places.people.items()
        if subject in there or any(named & prints for prints in fingerprints(folder).values())
    ]
    if not chosen and named:
        chosen = list(places.people)  # only traces are left, of an unknown dataset
    models = tuple(_models(subject, places.folders, chosen))
    captures = [folder for folder in places.folders if is_capture_dataset(folder)]
    unfinished = tuple(folder for folder in captures if not (folder / PAGE).exists())
    found = Found(subject, places, tuple(chosen), models, unfinished)
    if not chosen and not models and not found.exports and not unfinished:
        raise _nothing(found, paths)
    return found


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
        SemanticFaceError: a path is missing.
    """
    found = find_everywhere(subject, paths)
    gone = forget_found(found, log)
    if not gone.deleted and not found.chosen and not found.models and not found.exports and not gone.skipped:
        raise _nothing(found, paths)
    return gone


def forget_found(found: Found, log: Callable[[str], object] = print) -> ForgottenEverywhere:
    """Delete what ``find_everywhere`` found. What cannot be deleted is noted in ``skipped``, and the rest goes on.

    Args:
        found: of a person.
        log: receives each line as soon as it is true, models first.
    """
    subject, places = found.subject, found.places
    deleted: list[str] = []
    left: list[str] = []

    def done(line: str) -> None:
        deleted.append(line)
        log(line)

    def finish(folder: Path) -> None:
        CaptureSet(folder, None)  # deletes files unpacked by an interrupted import
        if subject in finish_interrupted(folder):
            done(f"{folder}: pages and records of {subject} deleted")

    def appeared(folder: Path) -> bool:
        """Whether finishing an import has made the person's rows readable."""
        return folder not in found.chosen and subject in (places.attempt(partial(subjects_of, folder)) or ())

    def clear(scratch: Path) -> None:
        shutil.rmtree(scratch)
        log(f"{scratch}: deleted, left by a command that was stopped")

    def from_dataset(folder: Path) -> None:
        # First, while the rows still show that there is something to delete.
        for line in _delete_derived(folder, places.folders):
            done(line)
        left.extend(_from_dataset(subject, folder, places.files, done))

    def from_export(folder: Path) -> None:
        rows, images, remark = forget_rows(folder, subject)
        done(f"{folder}: {rows} rows and {images} images deleted")
        left.extend([remark] if remark else [])

    for model in found.models:
        log(model.advice(subject))

    def each(step: Callable[[Path], None], folders: Iterable[Path]) -> None:
        for folder in folders:
            places.attempt(partial(step, folder))

    each(clear, places.abandoned)
    each(finish, filter(is_capture_dataset, places.folders))
    each(from_dataset, [*found.chosen, *filter(appeared, found.unfinished)])
    each(from_export, found.exports)
    for line in left:
        log(line)
    return ForgottenEverywhere(tuple(deleted), tuple(left), found.models, tuple(places.skipped))


def _nothing(found: Found, paths: Sequence[str | Path]) -> DatasetError:
    there = [*found.places.people.values(), *found.places.exports.values()]
    known = {who for people in there for who in people} - {found.subject}
    where = ", ".join(map(str, paths))
    unread = "".join(f"\n{line}" for line in found.places.skipped)
    return DatasetError(
        f"{where}: nothing about {found.subject!r}, and no model trained on them.{hint(found.subject, known)}{unread}"
    )


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


def _naming(subject: str, files: Sequence[Path]) -> set[str]:
    """Return the fingerprints of the datasets to which lines about a person refer; an empty one if not known."""
    prints: set[str] = set()
    for file in (each for each in files if each.suffix == ".jsonl" and each.stat().st_size):
        lines = [line for _, line, _ in read_objects(file) if line is not None]
        if any(line.get("subject") == subject and "picture" in line for line in lines):
            prints |= {str(line["dataset"]) for line in lines if "dataset" in line and "split" in line} or {""}
    return prints


# --- evaluations and caches ---------------------------------------------------------------------------------------


def _derived(dataset: Path, folders: Sequence[Path]) -> Iterator[Path]:
    """Yield the pages, predictions and cached features of single pictures of a dataset."""
    prints = fingerprints(dataset)
    for folder in folders:
        evaluated = object_in(folder / "metrics.json").get("recipe")
        if isinstance(evaluated, dict) and refers_to(evaluated, dataset, prints):
            yield from (folder / name for name in _EVALUATED if (folder / name).exists())
        if (folder / _FEATURES).is_dir() and refers_to(settings_in(folder), dataset, prints):
            yield folder / _FEATURES


def _delete_derived(dataset: Path, folders: Sequence[Path]) -> Iterator[str]:
    for path in list(_derived(dataset, folders)):
        if path.is_dir():
            shutil.rmtree(path)
            yield f"{path}: deleted"
        else:
            path.unlink()
            yield f"{path}: deleted; the figures stay. Evaluate again for a new one"


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
