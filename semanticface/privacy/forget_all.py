"""Deleting a person everywhere: all that was derived from their pictures below some folders, and whom they taught.

What is found by itself: datasets of faces (imported, described, cut or labelled anew, with splits or without), exports
for ms-swift with their pictures, candidates, choices and pairs, pages and predictions of evaluations, pages of imports,
and what unfinished trainings keep of pictures. Adapters cannot unlearn: they are named, with what to do about them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semanticface.data.captures.dataset import CaptureSet
from semanticface.data.consent import holds_captures
from semanticface.data.ms_swift_export import forget_rows, holds_export, subjects_in
from semanticface.data.provenance import UNCOUNTED, Source, read_people, sources_in
from semanticface.errors import DatasetError, SemanticFaceError
from semanticface.formats.tables import read_objects
from semanticface.privacy.forget import (
    fingerprints,
    finish,
    forget,
    hint,
    is_about,
    object_in,
    settings_in,
    splits_of,
    subjects_of,
    trace_files,
)
from semanticface.recipe import RECIPE_NAME
from semanticface.utils.files import abandoned_writes

OUTPUTS = Path("outputs")
"""Where everything lies unless told otherwise."""

_SKIPPED = {"checkpoints", "logs", "node_modules", "__pycache__"}
_EVALUATED = ("predictions.jsonl", "report.html")
_FEATURES = "features"  # what a training keeps of pictures while it runs, see training.train


@dataclass(frozen=True, slots=True)
class Learnt:
    """A model that learnt from a person, or may have.

    Attributes:
        folder: of the model, or of a training that did not finish.
        sure: whether it certainly did; otherwise it learnt from a dataset that the person was in at some time.
        finished: whether it is a model already.
        dataset: what it learnt from.
    """

    folder: Path
    sure: bool
    finished: bool
    dataset: str

    def told(self, subject: str) -> str:
        """Return what it is and what to do about it, in a line."""
        if not self.finished:
            return f"{self.folder}: an unfinished training on {self.dataset}. Delete the folder and begin anew."
        how = f"learnt from {subject}" if self.sure else f"learnt from {self.dataset}, perhaps with {subject} in it"
        return (
            f"{self.folder}: {how}. A model cannot unlearn: delete it and all copies of it, and train it anew on "
            f"{self.dataset}."
        )


@dataclass(frozen=True, slots=True)
class ForgottenEverywhere:
    """What was deleted, and who learnt from it.

    Attributes:
        deleted: a line for each thing of which something was deleted.
        left: what still names the person and is to be seen to by hand, a sentence each.
        models: that learnt from them.
    """

    deleted: tuple[str, ...]
    left: tuple[str, ...]
    models: tuple[Learnt, ...]


def forget_everywhere(
    subject: str, places: Sequence[str | Path], say: Callable[[str], object] = print
) -> ForgottenEverywhere:
    """Delete a person from all that was derived from their pictures, and say which models learnt from them.

    Args:
        subject: as in the datasets' column.
        places: folders, searched to any depth, and single files of choices, candidates or pairs.
        say: told each line as soon as it is true, models first: broken off anywhere, the same call goes on.

    Raises:
        DatasetError: nothing of this subject anywhere; the message says who may have been meant.
        SemanticFaceError: something cannot be read or written; what was deleted until then stays deleted.
    """
    deleted: list[str] = []

    def done(line: str) -> None:
        deleted.append(line)
        say(line)

    for scratch in [each for place in map(Path, places) for each in abandoned_writes(place)]:
        shutil.rmtree(scratch)
        say(f"{scratch}: deleted, a command that was stopped left it")
    folders = [folder for place in map(Path, places) for folder in _folders(place)]
    files = list(dict.fromkeys(trace_files(places)))
    sets = [folder for folder in folders if _is_dataset(folder)]
    for folder in filter(holds_captures, sets):
        CaptureSet(folder, None)  # deletes what an import that was stopped had unpacked
        if subject in finish(folder):
            done(f"{folder}: pages and records of {subject} deleted")
    people = {folder: subjects_of(folder) for folder in sets}
    exports = {folder: subjects_in(folder) for folder in folders if holds_export(folder)}
    named = _naming(subject, files)
    chosen = [
        folder
        for folder, there in people.items()
        if subject in there or any(named & prints for prints in fingerprints(folder).values())
    ]
    if not chosen and named:
        chosen = sets  # of their pictures only traces are left, of a dataset that nobody knows any more
    models = _models(subject, folders, chosen)
    for model in models:
        say(model.told(subject))
    if not deleted and not chosen and not models and not any(subject in there for there in exports.values()):
        known = {who for there in [*people.values(), *exports.values()] for who in there} - {subject}
        where = ", ".join(str(place) for place in places)
        near = hint(subject, known)
        raise DatasetError(f"{where}: nothing of {subject!r} in it, and no model that learnt from them.{near}")
    left: list[str] = []
    for folder in chosen:
        # First, while the rows still tell that there is something to be deleted.
        for line in _made_of(folder, folders):
            done(line)
        left += _from_dataset(subject, folder, files, done)
    for folder, there in exports.items():
        if subject in there:
            rows, pictures, remark = forget_rows(folder, subject)
            done(f"{folder}: {rows} rows and {pictures} pictures deleted")
            left += [remark] if remark else []
    for line in left:
        say(line)
    return ForgottenEverywhere(tuple(deleted), tuple(left), tuple(models))


def _from_dataset(subject: str, folder: Path, files: Sequence[Path], done: Callable[[str], None]) -> tuple[str, ...]:
    gone = forget(subject, folder, [file for file in files if file.exists()])
    done(f"{folder}: {gone.rows} rows deleted")
    if any(file.suffix == ".sqlite" for file in files):
        done(f"{gone.choices} choices deleted from databases")
    for file, count in gone.lines.items():
        done(f"{file}: {count} lines deleted")
    if gone.takes:
        done(f"{folder}: pages and records of {gone.takes} takes deleted")
    return gone.left


# --- what there is ------------------------------------------------------------------------------------------------


def _folders(place: Path) -> Iterator[Path]:
    """Yield a folder and those below it in which something can be; not what lies inside a dataset.

    Raises:
        SemanticFaceError: there is no such file or folder.
    """
    if not place.exists():
        raise SemanticFaceError(f"{place}: no such file or folder. Check the path; nothing was deleted.")
    for name, below, _ in os.walk(place):
        folder = Path(name)
        yield folder
        inside = _is_dataset(folder)
        below[:] = [] if inside else sorted(each for each in below if each[0] != "." and each not in _SKIPPED)


def _is_dataset(folder: Path) -> bool:
    try:
        splits_of(folder)
    except DatasetError:
        return holds_captures(folder)
    return True


def _naming(subject: str, files: Sequence[Path]) -> set[str]:
    """Return the fingerprints of datasets of which some trace names a person."""
    prints: set[str] = set()
    for file in files:
        if file.suffix != ".jsonl" or not file.stat().st_size:
            continue
        lines = [line for _, line, _ in read_objects(file) if line is not None]
        if any(line.get("subject") == subject and "picture" in line for line in lines):
            prints |= {str(line["dataset"]) for line in lines if "dataset" in line and "split" in line} or {""}
    return prints


# --- what was made of a dataset -----------------------------------------------------------------------------------


def _made_of(dataset: Path, folders: Sequence[Path]) -> Iterator[str]:
    """Delete what shows or describes single pictures of a dataset, person by person or not; yield what went."""
    prints = fingerprints(dataset)
    for folder in folders:
        evaluated = object_in(folder / "metrics.json").get("recipe")
        if isinstance(evaluated, dict) and is_about(evaluated, dataset, prints):
            gone = [name for name in _EVALUATED if (folder / name).exists()]
            for name in gone:
                (folder / name).unlink()
            if gone:
                yield f"{folder}: {' and '.join(gone)} deleted; the figures stay. Evaluate anew for a page"
        if (folder / _FEATURES).is_dir() and is_about(settings_in(folder), dataset, prints):
            shutil.rmtree(folder / _FEATURES)
            yield f"{folder / _FEATURES}: deleted"


# --- who learnt from them -----------------------------------------------------------------------------------------


def _models(subject: str, folders: Sequence[Path], held: Sequence[Path]) -> list[Learnt]:
    """Return the models that learnt from a person, or from a dataset that holds or held them."""
    prints = {folder: fingerprints(folder) for folder in held}

    def about(made: Mapping[str, Any]) -> bool:
        return any(is_about(made, folder, prints[folder]) for folder in held)

    out = []
    for folder in folders:
        recipe = object_in(folder / RECIPE_NAME)
        if recipe.get("kind") == "adapter":
            sources = read_people(folder) or sources_in(recipe)
            if sources is None:
                run = _run_of(folder)
                sources = [] if run is None else [Source(run, "train", "", 0, UNCOUNTED)]
            sure = [source for source in sources if source.includes(subject)]
            noted = [(source, {"dataset": source.dataset, "data": source.fingerprint}) for source in sources]
            perhaps = [source for source, made in noted if not source.known and about(made)]
            if sure or perhaps:
                told = " and ".join(dict.fromkeys(source.dataset for source in sure or perhaps))
                out.append(Learnt(folder, bool(sure), True, told))
        elif about(begun := settings_in(folder)) and not _has_adapter(folder):
            out.append(Learnt(folder, False, False, str(begun["dataset"])))
    return out


def _run_of(adapter: Path) -> str | None:
    """Return the dataset of the alignment that an adapter belongs to, which older ones do not tell themselves."""
    found = (settings_in(parent).get("dataset") for parent in adapter.parents[:2])
    return next((each for each in found if isinstance(each, str)), None)


def _has_adapter(run: Path) -> bool:
    """Whether a run of alignment ended; its adapters are told one by one."""
    return (run / "adapter" / RECIPE_NAME).exists()
