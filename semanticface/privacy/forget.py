"""Delete a person from a dataset, with all candidates, choices and pairs about their pictures.

An interrupted call can be repeated. Choices, pairs and pages go first, then the dataset rows, which tell whose pictures
they are about; candidate files, which also name the person, go last. ``forget_all`` does this for everything below a
folder.
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

from semanticface.data.captures.report import PAGE, delete_pages, remove_empty_takes
from semanticface.data.consent import NAME, is_capture_dataset, read_consent
from semanticface.data.faces import picture_bytes
from semanticface.errors import DatasetError, PictureError, SemanticFaceError
from semanticface.formats.tables import read_objects
from semanticface.preference.store import Store
from semanticface.utils.files import atomic_open, write_json
from semanticface.utils.progress import tqdm

EARLIER_NAME = "fingerprints.json"
"""In a dataset's folder: earlier fingerprints of its splits, by which candidates and models still refer to it."""

_Index = dict[str, dict[str, int]]  # row of each picture, by split and sha256


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was deleted.

    Attributes:
        rows: of the dataset.
        choices: in databases, including withdrawn ones.
        lines: of JSONL files (candidates, exported choices, pairs; all predictions of rounds), by file.
        takes: number of takes that are now empty, deleted with their pages and records.
        left: a sentence for each thing that still names the person and must be edited by hand.
    """

    rows: int
    choices: int
    lines: dict[Path, int]
    takes: int
    left: tuple[str, ...]


def forget(subject: str, dataset: str | Path, traces: Sequence[str | Path]) -> Forgotten:
    """Delete a person from a dataset and from the files about it.

    Later rows of the dataset move up, and candidates and pairs are renumbered. The predictions of alignment rounds on
    held-out pictures are deleted whole, because their lines follow the rows; the next run makes them again. Models
    trained on the pictures are not changed.

    Args:
        subject: as in the dataset's column.
        dataset: its folder.
        traces: databases of choices (``.sqlite``), files of candidates, choices or pairs (``.jsonl``), and folders to
            search for these.

    Raises:
        DatasetError: there is no dataset, or nothing about this subject.
        SemanticFaceError: something cannot be read or written; the same call resumes.
    """
    folder = Path(dataset)
    removed = finish_interrupted(folder)
    splits = splits_of(folder)
    files = list(trace_files(traces))
    pictures, known = pictures_of(subject, folder, splits)
    naming = set()
    for file in files:
        if file.suffix == ".jsonl" and (theirs := [each for each in _objects(file) if each.get("subject") == subject]):
            pictures |= {_picture(line) for line in theirs} - {""}
            naming.add(file)
    if not pictures and subject not in removed:
        raise DatasetError(f"{folder}: no picture of {subject!r}, here or in the files about it.{hint(subject, known)}")
    choices = 0
    for file in files:
        if file.suffix == ".sqlite":
            with Store(file, create=False) as store:
                choices += store.delete_pictures(pictures)
    _save_fingerprints(folder)
    known_prints = fingerprints(folder)
    lines: Counter[Path] = Counter()
    jsonl = [file for file in files if file.suffix == ".jsonl"]
    for file in jsonl:
        if _is_round_prediction(file, folder, known_prints):
            lines[file] = sum(1 for _ in _objects(file))
            file.unlink()
        elif file not in naming:
            # Without the dataset rows its lines could no longer be attributed to the person.
            lines[file] = _rewrite_trace(file, pictures, {}, {}, {})
    if is_capture_dataset(folder):
        delete_pages(folder, subject)
    rows = sum(_rewrite_split(folder / split, subject) for split in splits)
    removed += finish_interrupted(folder)
    splits = splits_of(folder)  # without splits that are now empty
    index, known_prints = _index(folder, splits), fingerprints(folder)
    prints = {split: _load(folder, split)._fingerprint for split in splits}
    for file in sorted((file for file in jsonl if file.exists()), key=naming.__contains__):
        lines[file] += _rewrite_trace(file, pictures, index, prints, known_prints)
    left = []
    if subject in read_consent(folder).until:
        left.append(f"{folder / NAME} still names {subject}: remove the line.")
    return Forgotten(rows, choices, dict(+lines), removed.count(subject), tuple(left))


def finish_interrupted(folder: Path) -> list[str]:
    """Finish an interrupted import or deletion in captures; return the subject of each take that is now removed.

    The index page is deleted first and written last: while it is missing, something is unfinished.
    """
    if not is_capture_dataset(folder) or (folder / PAGE).exists():
        return []
    return [record.subject for record in remove_empty_takes(folder)]


def hint(subject: str, known: Iterable[str]) -> str:
    """Return similar names as the end of a message; empty if there are none."""
    near = difflib.get_close_matches(subject, sorted(set(known)), n=3)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def splits_of(folder: Path) -> list[str]:
    """Return the splits of a dataset; one empty name if it was saved without splits."""
    index = folder / "dataset_dict.json"
    if index.is_file():
        try:
            splits = json.loads(index.read_text(encoding="utf-8"))["splits"]
            if not isinstance(splits, list) or not all(isinstance(split, str) for split in splits):
                raise TypeError("no list of splits")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{index} cannot be read: {error}. Make the dataset again, or delete it.") from error
        return splits
    if (folder / "state.json").is_file():
        return [""]
    raise DatasetError(f"{folder} is not a dataset of faces: {index.name} is missing. Give the dataset's own folder.")


def subjects_of(folder: Path) -> set[str]:
    """Return all subjects of a dataset; none if it has no column ``subject``."""
    splits = [_load(folder, split) for split in splits_of(folder)]
    return {who for faces in splits if "subject" in faces.column_names for who in faces["subject"] if who}


def fingerprints(folder: Path) -> dict[str, set[str]]:
    """Return the fingerprints of a dataset's splits, including those from before people were deleted."""
    path = folder / EARLIER_NAME
    out = {split: set(prints) for split, prints in object_in(path).items()}
    for split in splits_of(folder):
        out.setdefault(split, set()).add(_load(folder, split)._fingerprint)
    return out


def trace_files(paths: Iterable[str | Path]) -> Iterator[Path]:
    """Yield the JSONL and SQLite files among and below some paths; raise if a path is missing or of another kind."""
    for path in map(Path, paths):
        if path.is_dir():
            inside = [each for each in sorted(path.iterdir()) if not each.is_symlink()]
            yield from trace_files(each for each in inside if each.is_dir() or is_trace(each))
        elif not path.exists():
            raise SemanticFaceError(f"{path}: no such file or folder. Check the path; nothing was deleted.")
        elif not is_trace(path):
            raise SemanticFaceError(f"{path}: neither .jsonl nor .sqlite. Nothing was deleted.")
        else:
            yield path


def is_trace(path: Path) -> bool:
    """Whether a file has the suffix of choices, candidates or pairs."""
    return path.suffix in (".jsonl", ".sqlite")


def _is_round_prediction(path: Path, dataset: Path, prints: Mapping[str, Collection[str]]) -> bool:
    """Whether a file holds the predictions of an alignment round (``RoundRunner``) on this dataset."""
    if path.name != "predictions.jsonl" or re.fullmatch(r"round-\d+", path.parent.name) is None:
        return False
    run = settings_in(path.parent.parent)
    return "dataset" not in run or refers_to(run, dataset, prints)


def settings_in(run: Path) -> dict[str, Any]:
    """Return the settings of a training or alignment run; empty if there are none."""
    return object_in(run / "settings.json")


def object_in(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one if the file is missing or holds anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def refers_to(run: Mapping[str, Any], dataset: Path, prints: Mapping[str, Collection[str]]) -> bool:
    """Return whether a training, alignment or evaluation used this dataset.

    By fingerprint, since its path may be relative to another folder; else by path.

    Args:
        run: its record, with ``dataset`` and perhaps ``data``.
        dataset: the folder.
        prints: its ``fingerprints``.
    """
    data = run.get("data")
    parts = data.values() if isinstance(data, dict) else ()
    marks = [data] if isinstance(data, str) else [each.get("fingerprint") for each in parts if isinstance(each, dict)]
    if any(mark in known for mark in marks for known in prints.values()):
        return True
    path = run.get("dataset")
    return isinstance(path, str) and Path(path).resolve() == dataset.resolve()


def _objects(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the valid lines of a JSONL; an empty file has none."""
    if file.stat().st_size:
        yield from (line for _, line, _ in read_objects(file) if line is not None)


def count_lines(file: Path, subject: str, pictures: Collection[str]) -> int:
    """Return how many lines of a JSONL are about a subject or some pictures."""
    return sum(line.get("subject") == subject or _picture(line) in pictures for line in _objects(file))


def _picture(line: Mapping[str, Any]) -> str:
    """Return the picture of a candidate, choice or pair; empty for any other line."""
    question = line.get("question")
    picture = question.get("picture") if isinstance(question, dict) else line.get("picture")
    return picture if isinstance(picture, str) else ""


def _load(folder: Path, split: str) -> datasets.Dataset:
    try:
        return datasets.load_from_disk(str(folder / split))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise DatasetError(f"{folder / split} cannot be read: {error}. Make the dataset again.") from error


def lacks_columns(folder: Path) -> str:
    """Return which of the columns ``picture`` and ``subject`` some split lacks; empty if none."""
    splits = [_load(folder, split).column_names for split in splits_of(folder)]
    return " or ".join(name for name in ("picture", "subject") if not all(name in columns for columns in splits))


def _undecoded(folder: Path, split: str) -> datasets.Dataset:
    faces = _load(folder, split)
    if missing := lacks_columns(folder):
        raise DatasetError(f"{folder} is not a dataset of faces: it has no column {missing}.")
    return faces.cast_column("picture", datasets.Image(decode=False))


def _save_fingerprints(folder: Path) -> None:
    """Save the fingerprints of all splits before their rows change."""
    kept = {split: sorted(prints) for split, prints in fingerprints(folder).items()}
    write_json(folder / EARLIER_NAME, kept)


def _sha(stored: dict[str, Any], name: str) -> str:
    try:
        return hashlib.sha256(picture_bytes(stored, name)).hexdigest()
    except PictureError:
        return ""  # nothing refers to a missing picture


def pictures_of(subject: str, folder: Path, splits: Sequence[str]) -> tuple[set[str], list[str]]:
    """Return the sha256 of a subject's pictures, and the subject of every row that names one."""
    pictures: set[str] = set()
    known: list[str] = []
    for split in splits:
        faces = _undecoded(folder, split)
        subjects = list(faces["subject"])
        known += filter(None, subjects)
        pictures |= {_sha(faces[row]["picture"], split) for row, each in enumerate(subjects) if each == subject}
    return pictures - {""}, known


def _rewrite_split(folder: Path, subject: str) -> int:
    """Delete a subject's rows from the Arrow files of a split, and the split's caches; return the number of rows."""
    state_file = folder / "state.json"
    state = json.loads(state_file.read_text(encoding="utf-8"))
    # An interrupted import may have left takes that the index does not list.
    shards = sorted({folder / entry["filename"] for entry in state["_data_files"]} | set(folder.glob("take-*.arrow")))
    if not any(pc.any(_are(column, subject)).as_py() for file in shards for column in _subjects(file)):
        return 0
    # The fingerprint changes before the rows do: if interrupted in between, no cache mistakes new rows for old ones.
    state["_fingerprint"] = hashlib.sha256(f"{state['_fingerprint']} forgets".encode()).hexdigest()[:16]
    write_json(state_file, state)
    for cache in folder.glob("cache-*.arrow"):
        cache.unlink()
    dropped = 0
    for file in shards:
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
    """Return the current row of each picture of a dataset."""
    index: _Index = {}
    for split in splits:
        rows = _undecoded(folder, split).select_columns(["picture"])
        bar = tqdm(rows, desc=f"pictures of {folder.name} {split}".strip(), unit="picture", leave=False)
        index[split] = {_sha(row["picture"], split): number for number, row in enumerate(bar)}
    return index


def _rewrite_trace(
    file: Path, pictures: set[str], index: _Index, prints: Mapping[str, str], known: Mapping[str, Collection[str]]
) -> int:
    """Delete the lines about some pictures from a JSONL and renumber the others; return the number deleted.

    Args:
        file: the JSONL.
        pictures: sha256 of the pictures whose lines are deleted.
        index: current rows of the others.
        prints: current fingerprint of each split.
        known: all fingerprints that each split ever had.
    """
    kept = [(line, _picture(line)) for line in _objects(file)]
    # Row numbers refer to one split: the header's, or else one that contains all the pictures. A header with a
    # fingerprint that this dataset never had refers to another dataset, which may contain the same pictures.
    named = {about for _, about in kept} - pictures - {""}
    heads = [line for line, _ in kept if "dataset" in line and "split" in line]
    ours = [line["split"] for line in heads if line["dataset"] in known.get(line["split"], ())]
    home = next((split for split in (ours if heads else prints) if named <= index.get(split, {}).keys()), None)
    deleted, changed, out = 0, False, []
    raw = file.read_bytes().split(b"\n")
    for number, line, _ in read_objects(file) if kept else ():
        text = raw[number - 1]
        if line is not None:
            about = _picture(line)
            if about in pictures:
                deleted += 1
                continue
            updated = dict(line)
            if home is not None and about and "row" in line:
                updated["row"] = index[home][about]
            if home is not None and home in prints and "dataset" in line and "split" in line:
                updated["dataset"] = prints[home]
            if updated != line:
                changed, text = True, json.dumps(updated, ensure_ascii=False).encode()
        out.append(text + b"\n")
    if deleted or changed:
        with atomic_open(file, "wb") as target:
            target.writelines(out)
    return deleted
