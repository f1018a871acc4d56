"""A dataset of faces that grows take by take: one Arrow file and one record for each take, whole or not there.

``load_faces`` and ``datasets.load_from_disk`` read it like any other. The index that lists the files is written last,
so until then what was there before is what is read::

    semanticface.json        how the rows were made
    consent.yaml             what each person agreed to
    takes/KEY.json           what became of each take
    SPLIT/take-KEY.arrow     its rows; a person is in one split only
    report.html, report/     pages with pictures
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets import Features, Image, List, Value

import semanticface
from semanticface import arkit
from semanticface.data.consent import KIND
from semanticface.data.consent import NAME as CONSENT
from semanticface.data.faces import begun_recipe
from semanticface.errors import DatasetError, SemanticFaceError
from semanticface.recipe import RECIPE_NAME, git_commit
from semanticface.utils.files import atomic_open, write_json

FEATURES = Features(
    {
        "picture": Image(),
        "coefficients": List(Value("float32"), length=arkit.N_ACTIONS),
        "subject": Value("string"),
        "look": Value("string"),
        "answer": Value("string"),
        "box": List(Value("float32"), length=4),
        "pose": List(Value("float32"), length=len(arkit.POSE_NAMES)),
        "take": Value("string"),
        "timecode": Value("string"),
        "frame": Value("int32"),
    }
)
"""The columns, the first six as in ``dataset.FEATURES`` (``look`` is ``capture``). ``pose`` holds the rotations of head
and eyes as the app wrote them, in its own units, 0 where it did not; ``frame`` counts from 1. There is no camera, no
seed and there are no points: nobody knows them here."""

_TAKES = "takes"
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class TakeRecord:
    """What became of one take.

    Attributes:
        key: names its files.
        name: as the app named it.
        subject: who is recorded.
        split: which split they are in.
        film_bytes: size of the video, or of imported pictures a number that stands for them; another one, another take.
        counts: rows by what became of them, and ``no row`` for frames without one.
        paired: how rows found their frames or pictures, in half a sentence.
        remarks: what is to be known of it, a sentence each.
        left_out: whether something was left out that is broken.
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
    drawn = int.from_bytes(hashlib.sha256(f"subject {subject}".encode()).digest()[:8], "big") / 2**64
    position = drawn * sum(splits.values())
    ends = zip(splits, accumulate(splits.values()), strict=True)
    return next((name for name, end in ends if position < end), list(splits)[-1])


class CaptureSet:
    """A dataset folder that takes are put into.

    Args:
        folder: new, empty, or begun with the same settings.
        settings: what decides the rows, for JSON; None takes up a folder whatever its settings.

    Raises:
        DatasetError: the folder holds something else, or was begun with other settings.
        SemanticFaceError: the system refuses to write.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any] | None) -> None:
        self.folder = folder
        begun = begun_recipe(folder, KIND)
        if begun is None and (settings is None or (folder.exists() and not (folder.is_dir() and _is_empty(folder)))):
            raise DatasetError(f"{folder} holds no captures. Choose a new folder, or one that this command made.")
        if settings is not None:
            there = (begun or {}).get("settings") or {}
            other = [key for key in {**there, **settings} if _text(there.get(key)) != _text(settings.get(key))]
            # A folder in which no take has arrived yet may still change its mind.
            if begun is None or (other and not any((folder / _TAKES).glob("*.json"))):
                begun = self._begin(folder / RECIPE_NAME, settings)
            elif other:
                told = ", ".join(f"{key} {there.get(key)} there, {settings.get(key)} here" for key in other)
                raise DatasetError(f"{folder} was begun with other settings ({told}). Use the same, or a new folder.")
        assert begun is not None
        self.recipe = begun
        self.clear_scratch()
        for half in folder.glob("*/.*"):  # what a killed run was writing, see files.atomic_path
            if half.is_dir() and half.name.rpartition(".")[0].endswith((".arrow", ".html", ".json")):
                shutil.rmtree(half, ignore_errors=True)

    @staticmethod
    def _begin(recipe: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
        begun = {
            "kind": KIND,
            "settings": dict(settings),
            "versions": {"semanticface": semanticface.__version__},
            "commit": git_commit(),
        }
        write_json(recipe, begun)
        return begun

    @property
    def scratch(self) -> Path:
        """Where archives may be unpacked for a while."""
        return self.folder / ".unpacked"

    def clear_scratch(self) -> None:
        """Delete what was unpacked."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def shard(self, record: TakeRecord) -> Path:
        """The Arrow file of a take."""
        return self.folder / record.split / f"take-{record.key}.arrow"

    def page(self, key: str) -> Path:
        """The report of a take."""
        return self.folder / "report" / f"{key}.html"

    def records(self) -> list[TakeRecord]:
        """Return the takes whose rows are there, by name.

        Raises:
            DatasetError: a record that cannot be read.
        """
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
        """Note that a take's rows are written."""
        write_json(self.folder / _TAKES / f"{record.key}.json", dataclasses.asdict(record))

    def forget_empty(self) -> list[TakeRecord]:
        """Drop record and page of takes whose rows are gone, as ``semanticface forget`` leaves them; return those."""
        gone = [record for record in self.records() if record.kept and not _rows(self.shard(record))]
        for record in gone:
            self.page(record.key).unlink(missing_ok=True)
            (self.folder / _TAKES / f"{record.key}.json").unlink()
        return gone

    def write_index(self, splits: Sequence[str]) -> dict[str, int]:
        """Declare the takes that are there to be the dataset; return the rows of each split.

        Args:
            splits: the names of all splits, in their order; those without rows are left out.
        """
        records = self.records()
        info = {"citation": "", "description": "", "features": FEATURES.to_dict(), "homepage": "", "license": ""}
        told = json.dumps(self.recipe, sort_keys=True)
        counts: dict[str, int] = {}
        for split in [*splits, *sorted({record.split for record in records} - set(splits))]:
            inside = [record for record in records if record.split == split]
            rows = {self.shard(record).name: _rows(self.shard(record)) for record in inside}
            if not sum(rows.values()):
                for name in ("state.json", "dataset_info.json"):
                    (self.folder / split / name).unlink(missing_ok=True)
                continue
            counts[split] = sum(rows.values())
            print_ = hashlib.sha256(f"{split}:{told}:{json.dumps(rows, sort_keys=True)}".encode()).hexdigest()
            state: dict[str, Any] = {
                "_data_files": [{"filename": name} for name in rows],
                "_fingerprint": print_[:16],
                "_format_columns": None,
                "_format_kwargs": {},
                "_format_type": None,
                "_output_all_columns": False,
                "_split": split,
            }
            write_json(self.folder / split / "dataset_info.json", info)
            write_json(self.folder / split / "state.json", state)
        write_json(self.folder / "dataset_dict.json", {"splits": list(counts)})
        listed = {self.shard(record) for record in records}
        for stray in set(self.folder.glob("*/take-*.arrow")) - listed:
            stray.unlink()  # of a take that was imported anew into another split, or whose people were forgotten
        return counts


class ShardWriter:
    """Writes rows into one Arrow file as they come, a few at a time, so that memory does not grow with the take."""

    def __init__(self, stream: pa.ipc.RecordBatchStreamWriter) -> None:
        self._stream = stream
        self._waiting: list[Mapping[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Add a row: keys of ``FEATURES``, the picture as encoded bytes."""
        self._waiting.append(row | {"picture": {"bytes": row["picture"], "path": None}})
        if len(self._waiting) >= _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Hand to the file what waits."""
        schema = FEATURES.arrow_schema
        columns = {
            name: pa.array([row[name] for row in self._waiting], type=schema.field(name).type) for name in FEATURES
        }
        self._stream.write_table(pa.table(columns, schema=schema))
        self._waiting.clear()


@contextlib.contextmanager
def shard_writer(path: Path) -> Iterator[ShardWriter]:
    """Open an Arrow file for the rows of a take; it appears only when the block succeeds.

    Raises:
        SemanticFaceError: the system refuses to write.
    """
    with atomic_open(path, "wb") as file, pa.ipc.new_stream(file, FEATURES.arrow_schema) as stream:
        writer = ShardWriter(stream)
        yield writer
        writer.flush()


def shard_rows(path: Path) -> datasets.Dataset:
    """Open the rows of one Arrow file; they stay on disk.

    Raises:
        SemanticFaceError: it cannot be read.
    """
    try:
        return datasets.Dataset.from_file(str(path))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SemanticFaceError(f"{path} cannot be read: {error}. Delete it and import the take again.") from error


def _rows(path: Path) -> int:
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
        return sum(len(batch) for batch in reader)


def _is_empty(folder: Path) -> bool:
    """Whether nothing is in a folder, but perhaps a consent list, which may be written before anything else."""
    return all(path.name == CONSENT or path.name.startswith(".") for path in folder.iterdir())


def _text(value: Any) -> str:
    # As text, because the order of splits decides too and dicts compare without it.
    return json.dumps(value)
