"""Deleting a person: their pictures in a dataset, and every candidate, choice and pair that came of them.

Each step can be broken off anywhere and done again: choices, pairs and pages that show pictures go first, then the
dataset, which tells whose pictures they are, and files of candidates, which name the person too, last. ``forget_all``
does it for everything below a folder.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from semanticface.data.captures.report import PAGE, hide, tidy
from semanticface.data.consent import NAME, holds_captures, read_consent
from semanticface.data.faces import picture_bytes
from semanticface.errors import DatasetError, PictureError, SemanticFaceError
from semanticface.formats.tables import read_objects
from semanticface.preference.store import Store
from semanticface.utils.files import atomic_open, write_json
from semanticface.utils.progress import tqdm

EARLIER_NAME = "fingerprints.json"
"""In a dataset's folder: fingerprints that its splits had before people were deleted, by which traces name it."""

_Index = dict[str, dict[str, int]]
"""The row of each picture, by split and sha256."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was deleted.

    Attributes:
        rows: of the dataset.
        choices: in databases, withdrawn ones included.
        lines: of JSONL files, candidates, exported choices and pairs, by file; of predictions of rounds, all.
        takes: that were captured and are empty now, with their pages and records.
        left: what still names the person and is to be seen to by hand, a sentence each.
    """

    rows: int
    choices: int
    lines: dict[Path, int]
    takes: int
    left: tuple[str, ...]


def forget(subject: str, dataset: str | Path, traces: Sequence[str | Path]) -> Forgotten:
    """Delete a person from a dataset and from what was made of it.

    Rows of the dataset move up; candidates and pairs follow them. What rounds of alignment read from the pictures they
    are measured on goes whole, since its lines follow the rows; the next run reads it anew. Models that learned from
    the pictures stay as they are.

    Args:
        subject: as in the dataset's column.
        dataset: its folder.
        traces: databases of choices (``.sqlite``), files of candidates, choices or pairs (``.jsonl``), and folders in
            which all of these are looked for.

    Raises:
        DatasetError: no dataset, or nothing of this subject anywhere.
        SemanticFaceError: something cannot be read or written; what was deleted until then stays deleted, and the same
            call goes on.
    """
    folder = Path(dataset)
    gone = finish(folder)
    splits = splits_of(folder)
    files = list(trace_files(traces))
    pictures, known = _pictures_of(subject, folder, splits)
    naming = set()
    for file in files:
        if file.suffix == ".jsonl" and (theirs := [each for each in _objects(file) if each.get("subject") == subject]):
            pictures |= {_picture(line) for line in theirs} - {""}
            naming.add(file)
    if not pictures and subject not in gone:
        raise DatasetError(
            f"{folder}: no picture of {subject!r}, there or in what was made of it.{hint(subject, known)}"
        )
    choices = 0
    for file in files:
        if file.suffix == ".sqlite":
            with Store(file, create=False) as store:
                choices += store.delete_pictures(pictures)
    _remember(folder)
    ever = fingerprints(folder)
    lines: Counter[Path] = Counter()
    written = [file for file in files if file.suffix == ".jsonl"]
    for file in written:
        if _is_read(file, folder, ever):
            lines[file] = sum(1 for _ in _objects(file))
            file.unlink()
        elif file not in naming:
            # Once the pictures are gone nobody can tell any more that its lines are about them.
            lines[file] = _rewrite_trace(file, pictures, {}, {}, {})
    if holds_captures(folder):
        hide(folder, subject)
    rows = sum(_rewrite_split(folder / split, subject) for split in splits)
    gone += finish(folder)
    splits = splits_of(folder)  # one in which nobody is left is gone
    index, ever = _index(folder, splits), fingerprints(folder)
    prints = {split: _load(folder, split)._fingerprint for split in splits}
    for file in sorted((file for file in written if file.exists()), key=naming.__contains__):
        lines[file] += _rewrite_trace(file, pictures, index, prints, ever)
    left = []
    if subject in read_consent(folder).until:
        left.append(f"{folder / NAME} still names {subject}: remove the line.")
    return Forgotten(rows, choices, dict(+lines), gone.count(subject), tuple(left))


def finish(folder: Path) -> list[str]:
    """End what stopped half-way in captures, an import or a deletion; return whose takes are gone, a name for each.

    The page of captures goes first and comes last: without one there is something left to do.

    Raises:
        SemanticFaceError: the system refuses to write.
    """
    if not holds_captures(folder) or (folder / PAGE).exists():
        return []
    return [record.subject for record in tidy(folder)]


def hint(subject: str, known: Iterable[str]) -> str:
    """Return who may have been meant, as the end of a message; empty where nobody has such a name."""
    near = difflib.get_close_matches(subject, sorted(known), n=3)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def splits_of(folder: Path) -> list[str]:
    """Return the splits of a dataset; a single one without a name where it was saved without splits.

    Raises:
        DatasetError: no dataset.
    """
    index = folder / "dataset_dict.json"
    if index.is_file():
        return list(json.loads(index.read_text(encoding="utf-8"))["splits"])
    if (folder / "state.json").is_file():
        return [""]
    raise DatasetError(f"{folder} is not a dataset of faces: {index.name} is missing. Give the folder around it.")


def subjects_of(folder: Path) -> set[str]:
    """Return everybody in a dataset; nobody where it has no column of that name.

    Raises:
        DatasetError: it cannot be read.
    """
    splits = [_load(folder, split) for split in splits_of(folder)]
    return {who for faces in splits if "subject" in faces.column_names for who in faces["subject"] if who}


def fingerprints(folder: Path) -> dict[str, set[str]]:
    """Return the fingerprints of a dataset's splits, those included that they had before people were deleted."""
    path = folder / EARLIER_NAME
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    out = {split: set(prints) for split, prints in known.items()}
    for split in splits_of(folder):
        out.setdefault(split, set()).add(_load(folder, split)._fingerprint)
    return out


def trace_files(paths: Iterable[str | Path]) -> Iterator[Path]:
    """Yield the files among and below some paths in which traces of people can be.

    Raises:
        SemanticFaceError: a path is not there, or a file of another kind.
    """
    for path in map(Path, paths):
        if path.is_dir():
            yield from trace_files(each for each in sorted(path.iterdir()) if each.is_dir() or _is_trace(each))
        elif not path.exists():
            raise SemanticFaceError(f"{path}: no such file or folder. Check the path; nothing was deleted.")
        elif not _is_trace(path):
            raise SemanticFaceError(f"{path}: neither .jsonl nor .sqlite. Nothing was deleted.")
        else:
            yield path


def _is_trace(path: Path) -> bool:
    return path.suffix in (".jsonl", ".sqlite")


def _is_read(path: Path, dataset: Path, prints: Mapping[str, Collection[str]]) -> bool:
    """Whether a file is what a round's model reads from pictures (``Alignment.predicted``), not those of others."""
    if path.name != "predictions.jsonl" or re.fullmatch(r"round-\d+", path.parent.name) is None:
        return False
    run = settings_in(path.parent.parent)
    return "dataset" not in run or is_about(run, dataset, prints)


def settings_in(run: Path) -> dict[str, Any]:
    """Return the settings that a training or an alignment was begun with; none where they are not known."""
    return object_in(run / "settings.json")


def object_in(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one for whatever is not there or something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_about(made: Mapping[str, Any], dataset: Path, prints: Mapping[str, Collection[str]]) -> bool:
    """Whether what a training, an alignment or an evaluation notes of its dataset means this one.

    By its fingerprint, since places are as they were given then, from another folder perhaps; else by its place.

    Args:
        made: what it notes, ``dataset`` and perhaps ``data``.
        dataset: the folder.
        prints: ``fingerprints`` of it.
    """
    noted = made.get("data")
    marks = [noted] if isinstance(noted, str) else [each.get("fingerprint") for each in _objects_of(noted)]
    if any(mark in known for mark in marks for known in prints.values()):
        return True
    place = made.get("dataset")
    return isinstance(place, str) and Path(place).resolve() == dataset.resolve()


def _objects_of(noted: Any) -> list[dict[str, Any]]:
    return [each for each in noted.values() if isinstance(each, dict)] if isinstance(noted, dict) else []


def _objects(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the good lines of a JSONL; an empty file has none."""
    if file.stat().st_size:
        yield from (line for _, line, _ in read_objects(file) if line is not None)


def _picture(line: Mapping[str, Any]) -> str:
    """Return the picture that a candidate, a choice or a pair is about; empty for any other line."""
    question = line.get("question")
    about = question.get("picture") if isinstance(question, dict) else line.get("picture")
    return about if isinstance(about, str) else ""


def _load(folder: Path, split: str) -> datasets.Dataset:
    try:
        return datasets.load_from_disk(str(folder / split))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DatasetError(f"{folder / split} cannot be read: {error}. Make the dataset anew.") from error


def _undecoded(folder: Path, split: str) -> datasets.Dataset:
    faces = _load(folder, split)
    missing = [name for name in ("picture", "subject") if name not in faces.column_names]
    if missing:
        raise DatasetError(f"{folder} is not a dataset of faces: it has no column {' and no column '.join(missing)}.")
    return faces.cast_column("picture", datasets.Image(decode=False))


def _remember(folder: Path) -> None:
    """Note the fingerprints that splits have before their rows are changed."""
    kept = {split: sorted(prints) for split, prints in fingerprints(folder).items()}
    write_json(folder / EARLIER_NAME, kept)


def _sha(stored: dict[str, Any], name: str) -> str:
    try:
        return hashlib.sha256(picture_bytes(stored, name)).hexdigest()
    except PictureError:
        return ""  # a picture that is not there has no choices


def _pictures_of(subject: str, folder: Path, splits: Sequence[str]) -> tuple[set[str], list[str]]:
    """Return the sha256 of a subject's pictures, and all subjects."""
    pictures: set[str] = set()
    known: set[str] = set()
    for split in splits:
        faces = _undecoded(folder, split)
        subjects = list(faces["subject"])
        known |= set(subjects)
        pictures |= {_sha(faces[row]["picture"], split) for row, each in enumerate(subjects) if each == subject}
    return pictures - {""}, sorted(filter(None, known))


def _rewrite_split(folder: Path, subject: str) -> int:
    """Drop a subject's rows from the Arrow files of a split, and what was cached of it; return how many rows."""
    state_file = folder / "state.json"
    state = json.loads(state_file.read_text(encoding="utf-8"))
    # Beside the files that it names there may be takes of an import that was stopped.
    held = sorted({folder / entry["filename"] for entry in state["_data_files"]} | set(folder.glob("take-*.arrow")))
    if not any(pc.any(_are(column, subject)).as_py() for file in held for column in _subjects(file)):
        return 0
    # The name of the rows changes before the rows do: broken off in between, no cache takes new rows for the old.
    state["_fingerprint"] = hashlib.sha256(f"{state['_fingerprint']} forgets".encode()).hexdigest()[:16]
    write_json(state_file, state)
    for cache in folder.glob("cache-*.arrow"):
        cache.unlink()
    dropped = 0
    for file in held:
        with (
            pa.memory_map(str(file)) as source,
            pa.ipc.open_stream(source) as reader,
            atomic_open(file, "wb") as out,
            pa.ipc.new_stream(out, reader.schema) as stream,
        ):
            for batch in reader:
                kept = batch.filter(pc.invert(_are(batch.column("subject"), subject)))
                dropped += len(batch) - len(kept)
                stream.write_batch(kept)
    return dropped


def _are(subjects: pa.Array, subject: str) -> pa.Array:
    return pc.fill_null(pc.equal(subjects, subject), False)


def _subjects(file: Path) -> Iterator[pa.Array]:
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as reader:
        for batch in reader:
            yield batch.column("subject")


def _index(folder: Path, splits: Sequence[str]) -> _Index:
    """Return where each picture of a dataset is now."""
    index: _Index = {}
    for split in splits:
        rows = _undecoded(folder, split).select_columns(["picture"])
        bar = tqdm(rows, desc=f"pictures of {folder.name} {split}".strip(), unit="picture", leave=False)
        index[split] = {_sha(row["picture"], split): place for place, row in enumerate(bar)}
    return index


def _rewrite_trace(
    file: Path, pictures: set[str], index: _Index, prints: Mapping[str, str], known: Mapping[str, Collection[str]]
) -> int:
    """Drop the lines about some pictures from a JSONL and number the rows of the others anew; return how many went.

    Args:
        file: the JSONL.
        pictures: sha256 of those whose lines go.
        index: where the others are in the dataset now.
        prints: the fingerprint of each split now.
        known: all that it ever had.
    """
    kept = [(line, _picture(line)) for line in _objects(file)]
    # Rows are those of one split: the header's, or else one in which all the pictures are. A header with a fingerprint
    # that the dataset never had is about another one, in which the same pictures may be.
    named = {about for _, about in kept} - pictures - {""}
    heads = [line for line, _ in kept if "dataset" in line and "split" in line]
    ours = [line["split"] for line in heads if line["dataset"] in known.get(line["split"], ())]
    home = next((split for split in (ours if heads else prints) if named <= index.get(split, {}).keys()), None)
    dropped, changed, out = 0, False, []
    raw = file.read_bytes().split(b"\n")
    for number, line, _ in read_objects(file) if kept else ():
        written = raw[number - 1]
        if line is not None:
            about = _picture(line)
            if about in pictures:
                dropped += 1
                continue
            renewed = dict(line)
            if home is not None and about and "row" in line:
                renewed["row"] = index[home][about]
            if home is not None and home in prints and "dataset" in line and "split" in line:
                renewed["dataset"] = prints[home]
            if renewed != line:
                changed, written = True, json.dumps(renewed, ensure_ascii=False).encode()
        out.append(written + b"\n")
    if dropped or changed:
        with atomic_open(file, "wb") as target:
            target.writelines(out)
    return dropped
