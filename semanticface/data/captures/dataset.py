"""A dataset of faces that grows take by take: one Arrow file and one record per take, each written whole or not at all.

``load_faces`` and ``datasets.load_from_disk`` read it like any other. The index that lists the files is written last;
until then readers see the previous state::

    semanticface.json        recipe: how the rows were made
    consent.yaml             what each person agreed to
    takes/KEY.json           record of each take
    SPLIT/take-KEY.arrow     its rows; a person is in one split only
    report.html, report/     pages with thumbnails
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets import Features, Image, List, Value

import semanticface
from semanticface import arkit
from semanticface.data.consent import KIND
from semanticface.data.consent import NAME as CONSENT
from semanticface.data.faces import recipe_of_kind, split_at, write_split_index
from semanticface.errors import DatasetError, SemanticFaceError
from semanticface.recipe import RECIPE_NAME, git_commit
from semanticface.rendering.types import POINTS
from semanticface.utils.files import atomic_open, write_json

FEATURES = Features(
    {
        "picture": Image(),
        "coefficients": List(Value("float32"), length=arkit.N_ACTIONS),
        "subject": Value("string"),
        "look": Value("string"),
        "answer": Value("string"),
        "box": List(Value("float32"), length=4),
        "pose": List(Value("float32"), length=arkit.N_POSE),
        "points": List(List(Value("float32"), length=2), length=len(POINTS)),
        "take": Value("string"),
        "timecode": Value("string"),
        "frame": Value("int32"),
    }
)
"""The columns, the first six as in ``faces.FEATURES`` (``look`` is ``capture``). ``pose`` holds the rotations of head
and eyes (``arkit.POSE_NAMES``), 0 if not known; ``points`` as in ``faces.FEATURES``, NaN if not known; ``frame`` counts
from 1. Camera and seed are not known."""

_TAKES = "takes"
_BATCH_ROWS = 64


@dataclass(frozen=True, slots=True)
class TakeRecord:
    """The record of one imported take, or of one part of imported pictures.

    Attributes:
        key: base name of its files.
        name: as the app named it.
        subject: who is recorded.
        split: that they are in.
        film_bytes: size of the video, or a hash of the imported pictures; if it changes, the take is imported again.
        counts: rows by status (``report.STATUSES``), and frames without a row.
        paired: how rows were paired with frames or pictures, in half a sentence.
        remarks: a sentence each.
        left_out: whether something broken was left out.
    """

    key: str
    name: str
    subject: str
    split: str
    film_bytes: int
    counts: dict[str, int]
    paired: str
    remarks: list[str] = field(default_factory=list)
    left_out: bool = False

    @property
    def kept(self) -> int:
        return self.counts.get("kept", 0)


def split_of(subject: str, splits: Mapping[str, float]) -> str:
    """Return the split a person belongs to, from a hash of the name: it depends on nothing but the arguments."""
    digest = hashlib.sha256(f"subject {subject}".encode()).digest()
    return split_at(int.from_bytes(digest[:8], "big") / 2**64, splits)


class CaptureSet:
    """A dataset folder that takes are added to.

    Args:
        folder: new, empty, or started with the same settings.
        settings: of the import, for JSON; None opens an existing folder whatever its settings.

    Raises:
        DatasetError: the folder holds something else, or was started with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any] | None) -> None:
        self.folder = folder
        recipe = recipe_of_kind(folder, KIND)
        if recipe is None and (settings is None or (folder.exists() and not (folder.is_dir() and _is_empty(folder)))):
            raise DatasetError(f"{folder} holds no captures. Choose a new folder, or one that this command made.")
        if settings is not None:
            old = (recipe or {}).get("settings") or {}
            # Compared as text: the order of splits matters too, and dicts compare without it.
            changed = [key for key in {**old, **settings} if json.dumps(old.get(key)) != json.dumps(settings.get(key))]
            # Settings may still change while the folder has no take.
            if recipe is None or (changed and not any((folder / _TAKES).glob("*.json"))):
                recipe = {
                    "kind": KIND,
                    "settings": dict(settings),
                    "versions": {"semanticface": semanticface.__version__},
                    "commit": git_commit(),
                }
                write_json(folder / RECIPE_NAME, recipe)
            elif changed:
                text = ", ".join(f"{key} {old.get(key)} there, {settings.get(key)} here" for key in changed)
                raise DatasetError(f"{folder} was started with other settings ({text}). Use the same, or a new folder.")
        assert recipe is not None
        self.recipe = recipe
        self.clear_scratch()
        for partial in folder.glob("*/.*"):  # left by a killed run, see files.atomic_path
            if partial.is_dir() and partial.name.rpartition(".")[0].endswith((".arrow", ".html", ".json")):
                shutil.rmtree(partial, ignore_errors=True)

    @property
    def scratch(self) -> Path:
        """Where archives are unpacked."""
        return self.folder / ".unpacked"

    def clear_scratch(self) -> None:
        """Delete unpacked files."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def shard(self, record: TakeRecord) -> Path:
        """The Arrow file of a take."""
        return self.folder / record.split / f"take-{record.key}.arrow"

    def page(self, key: str) -> Path:
        """The report of a take."""
        return self.folder / "report" / f"{key}.html"

    def records(self) -> list[TakeRecord]:
        """Return the records of takes that have rows, by subject and name."""
        out = []
        for path in sorted((self.folder / _TAKES).glob("*.json")):
            try:
                record = TakeRecord(**json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError) as error:
                raise DatasetError(f"{path} cannot be read: {error}. Delete it and import the take again.") from error
            if self.shard(record).is_file():
                out.append(record)
        return sorted(out, key=lambda record: (record.subject, record.name, record.key))

    def put(self, record: TakeRecord) -> None:
        """Write the record of a take whose rows are written."""
        write_json(self.folder / _TAKES / f"{record.key}.json", dataclasses.asdict(record))

    def forget_empty(self) -> list[TakeRecord]:
        """Delete record and page of takes whose rows ``semanticface forget`` deleted; return those takes."""
        empty = [record for record in self.records() if record.kept and not _rows(self.shard(record))]
        for record in empty:
            self.page(record.key).unlink(missing_ok=True)
            (self.folder / _TAKES / f"{record.key}.json").unlink()
        return empty

    def write_index(self, splits: Sequence[str]) -> dict[str, int]:
        """Make the imported takes the dataset; return the rows of each split.

        Args:
            splits: the names of all splits, in order; those without rows are left out.
        """
        records = self.records()
        recipe = json.dumps(self.recipe, sort_keys=True)
        counts: dict[str, int] = {}
        for split in [*splits, *sorted({record.split for record in records} - set(splits))]:
            inside = [record for record in records if record.split == split]
            rows = {self.shard(record).name: _rows(self.shard(record)) for record in inside}
            if not sum(rows.values()):
                for name in ("state.json", "dataset_info.json"):
                    (self.folder / split / name).unlink(missing_ok=True)
                continue
            counts[split] = sum(rows.values())
            identity = f"{split}:{recipe}:{json.dumps(rows, sort_keys=True)}"
            write_split_index(self.folder, split, FEATURES, list(rows), identity)
        write_json(self.folder / "dataset_dict.json", {"splits": list(counts)})
        listed = {self.shard(record) for record in records}
        for stray in set(self.folder.glob("*/take-*.arrow")) - listed:
            stray.unlink()  # of a take that was imported again into another split, or whose subject was forgotten
        return counts


class ShardWriter:
    """Writes rows to one Arrow file in small batches, so that memory does not grow with the take."""

    def __init__(self, stream: pa.ipc.RecordBatchStreamWriter) -> None:
        self._stream = stream
        self._rows: list[Mapping[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Add a row: keys of ``FEATURES``, the picture as encoded bytes."""
        self._rows.append(row | {"picture": {"bytes": row["picture"], "path": None}})
        if len(self._rows) >= _BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the buffered rows."""
        schema = FEATURES.arrow_schema
        columns = {name: pa.array([row[name] for row in self._rows], type=schema.field(name).type) for name in FEATURES}
        self._stream.write_table(pa.table(columns, schema=schema))
        self._rows.clear()


@contextlib.contextmanager
def shard_writer(path: Path) -> Iterator[ShardWriter]:
    """Open an Arrow file for the rows of a take; it appears only when the block succeeds."""
    with atomic_open(path, "wb") as file, pa.ipc.new_stream(file, FEATURES.arrow_schema) as stream:
        writer = ShardWriter(stream)
        yield writer
        writer.flush()


def shard_rows(path: Path) -> datasets.Dataset:
    """Open the rows of one Arrow file; they stay on disk."""
    try:
        return datasets.Dataset.from_file(str(path))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SemanticFaceError(f"{path} cannot be read: {error}. Delete it and import the take again.") from error


def _rows(path: Path) -> int:
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
        return sum(len(batch) for batch in reader)


def _is_empty(folder: Path) -> bool:
    """Whether a folder is empty but for hidden files and a consent list, which may be written first."""
    return all(path.name == CONSENT or path.name.startswith(".") for path in folder.iterdir())
