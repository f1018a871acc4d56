"""The store of choices: one SQLite file, written as each choice is made, by several annotators at once.

A choice is durable when ``Store.add`` returns: the file is in WAL mode with ``synchronous=FULL``, so neither a killed
program nor a power cut loses it. Nothing is overwritten: undoing marks a choice withdrawn. Only ``delete_pictures``
deletes, and it wipes what it deletes from the file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semanticface.errors import SemanticFaceError
from semanticface.preference.files import now
from semanticface.preference.types import Choice, Question

VERSION = 1
"""Of the schema, the file's ``user_version``."""
APPLICATION_ID = 0x53464331
"""Marks the file as ours: "SFC1"; its ``application_id``."""
_WAIT = 20.0  # seconds to wait for another annotator's write, which takes milliseconds
_COLUMNS = "question, picture, area, a, b, kind, of, verdict, annotator, model, round, time"

_TABLES = f"""
CREATE TABLE choices (
    number INTEGER PRIMARY KEY,
    question TEXT NOT NULL, picture TEXT NOT NULL, area TEXT NOT NULL, a TEXT NOT NULL, b TEXT NOT NULL,
    kind TEXT NOT NULL, of TEXT NOT NULL, verdict TEXT NOT NULL, annotator TEXT NOT NULL, model TEXT NOT NULL,
    round INTEGER NOT NULL, time TEXT NOT NULL,
    withdrawn TEXT
) STRICT;
CREATE UNIQUE INDEX standing ON choices (annotator, model, round, question) WHERE withdrawn IS NULL;
CREATE INDEX pictures ON choices (picture);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The result of an import.

    Attributes:
        added: new choices.
        known: choices already in the store, standing or withdrawn.
        differing: indices of imported choices whose question the same annotator answered otherwise here; those here
            stay.
    """

    added: int
    known: int
    differing: tuple[int, ...]


class Store:
    """The choices of any annotators, models and rounds; safe for several threads and processes.

    Args:
        path: of the SQLite file; created with its folder if missing, where ``create`` is set.
        create: whether to create a missing file.

    Raises:
        SemanticFaceError: the file is missing, damaged, another program's, a newer version's, or not writable.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = True) -> None:
        self.path = Path(path)
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        if not create and not self.path.is_file():
            raise SemanticFaceError(f"{self.path}: no such database of choices. Give the one that annotate wrote.")
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._open()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every thread's connection; the write-ahead log is merged into the file."""
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
            self._local = threading.local()

    def add(self, choice: Choice) -> bool:
        """Store a choice; False, and no effect, if its annotator has answered its question already.

        Raises:
            SemanticFaceError: it cannot be stored, for example on a full disk; earlier choices are safe.
        """
        with self._writing() as connection:
            return self._insert(connection, choice)

    def add_many(self, choices: Iterable[Choice]) -> ImportResult:
        """Import choices, all or nothing; importing the same ones again has no effect.

        A choice that was withdrawn here stays withdrawn. One that differs from the same annotator's answer here is left
        out.

        Raises:
            SemanticFaceError: they cannot be stored.
        """
        added = known = 0
        differing = []
        with self._writing() as connection:
            for index, choice in enumerate(choices):
                same = connection.execute(
                    f"SELECT 1 FROM choices WHERE ({_COLUMNS}) = (?,?,?,?,?,?,?,?,?,?,?,?)", _row(choice)
                ).fetchone()
                if same is not None:
                    known += 1
                elif self._insert(connection, choice):
                    added += 1
                else:
                    differing.append(index)
        return ImportResult(added, known, tuple(differing))

    def undo(self, annotator: str, model: str, round: int) -> Choice | None:
        """Withdraw an annotator's last standing choice in a round and return it; None if there is none."""
        with self._writing() as connection:
            last = connection.execute(
                f"SELECT {_COLUMNS}, number FROM choices "
                "WHERE annotator = ? AND model = ? AND round = ? AND withdrawn IS NULL ORDER BY number DESC LIMIT 1",
                (annotator, model, round),
            ).fetchone()
            if last is None:
                return None
            *values, number = last
            connection.execute("UPDATE choices SET withdrawn = ? WHERE number = ?", (now(), number))
            return _choice(values)

    def choices(
        self, *, annotator: str | None = None, model: str | None = None, round: int | None = None
    ) -> list[Choice]:
        """Return the standing choices in the order they were stored, all or those that match.

        Raises:
            SemanticFaceError: the file cannot be read.
        """
        with self._explained():
            rows = self._connection().execute(
                f"SELECT {_COLUMNS} FROM choices WHERE withdrawn IS NULL AND (?1 IS NULL OR annotator = ?1) "
                "AND (?2 IS NULL OR model = ?2) AND (?3 IS NULL OR round = ?3) ORDER BY number",
                (annotator, model, round),
            )
            return [_choice(row) for row in rows]

    def answered_by_others(self, annotator: str, model: str, round: int) -> set[str]:
        """Return the ids of a round's questions that anybody else has answered."""
        with self._explained():
            found = self._connection().execute(
                "SELECT DISTINCT question FROM choices "
                "WHERE annotator != ? AND model = ? AND round = ? AND withdrawn IS NULL",
                (annotator, model, round),
            )
            return {question for (question,) in found}

    def withdrawn(self) -> int:
        """Return how many choices were withdrawn."""
        with self._explained():
            found = self._connection().execute("SELECT count(*) FROM choices WHERE withdrawn IS NOT NULL").fetchone()
        return int(found[0])

    def count_pictures(self, pictures: Collection[str]) -> int:
        """Return how many choices are about some pictures, withdrawn ones included."""
        with self._explained():
            count = "SELECT count(*) FROM choices WHERE picture = ?"
            return sum(self._connection().execute(count, (picture,)).fetchone()[0] for picture in pictures)

    def delete_pictures(self, pictures: Collection[str]) -> int:
        """Delete every choice about some pictures, withdrawn ones too, wipe them from the file and return how many.

        Raises:
            SemanticFaceError: they cannot be deleted, and are all still there; or they are deleted, but another program
                prevents wiping them.
        """
        with self._writing() as connection:
            count = sum(
                connection.execute("DELETE FROM choices WHERE picture = ?", (picture,)).rowcount
                for picture in sorted(pictures)
            )
        with self._explained():
            # secure_delete overwrites deleted rows; the write-ahead log still holds them and is truncated.
            (busy, *_) = self._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise SemanticFaceError(
                f"{self.path}: {count} choices are deleted, but another program is reading the file, so they are not "
                "yet wiped from it. Stop annotate and try again."
            )
        return count

    def _insert(self, connection: sqlite3.Connection, choice: Choice) -> bool:
        values = ", ".join("?" * len(_row(choice)))
        # Only the index of standing choices may conflict; anything else is an error.
        inserted = connection.execute(
            f"INSERT INTO choices ({_COLUMNS}) VALUES ({values}) "
            "ON CONFLICT (annotator, model, round, question) WHERE withdrawn IS NULL DO NOTHING",
            _row(choice),
        )
        return inserted.rowcount == 1

    def _open(self) -> None:
        """Create missing tables and check existing ones."""
        deadline = time.monotonic() + _WAIT
        with self._explained():
            connection = self._connection()
            while True:
                try:
                    self._prepare(connection)
                    return
                except sqlite3.OperationalError as error:
                    # Changing to WAL needs exclusive access and does not wait by itself.
                    if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._has_tables(connection)  # before anything of another program's file is changed
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        with self._transaction(connection):
            if not self._has_tables(connection):
                for statement in filter(str.strip, _TABLES.split(";")):
                    connection.execute(statement)
        problems = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
        if problems != ["ok"]:
            raise self._damaged(problems[0])

    def _has_tables(self, connection: sqlite3.Connection) -> bool:
        """Return whether the file is a store, False if empty; raise if it is anything else."""
        if not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            return False
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID:
            raise SemanticFaceError(f"{self.path}: another program's database. Choose another --database.")
        if version != VERSION:
            raise SemanticFaceError(
                f"{self.path}: written by another version of SemanticFace (tables {version}, here {VERSION}). "
                "Update SemanticFace, or export with the version that wrote it and import here."
            )
        return True

    def _connection(self) -> sqlite3.Connection:
        """Return this thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            # Used by this thread only; any thread may close it.
            connection = sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
            with self._lock:
                self._connections.append(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON").fetchone()
            self._local.connection = connection
        return connection

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction, committed if the block succeeds."""
        with self._explained():
            connection = self._connection()
            with self._transaction(connection):
                yield connection

    @staticmethod
    @contextlib.contextmanager
    def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of SQLite and the system into errors that name the file and the fix."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._explain(error) from error
        except OSError as error:
            raise SemanticFaceError(f"{self.path}: {error.strerror or error}. Choose another --database.") from error

    def _explain(self, error: sqlite3.Error) -> SemanticFaceError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self._damaged(str(error))
        safe = "Earlier choices are safe; this one was not stored."
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return SemanticFaceError(f"{self.path}: {error}. {safe} Free some space on this disk and try again.")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return SemanticFaceError(
                f"{self.path}: locked by another program for {_WAIT:.0f} seconds. {safe} Close that program and "
                "try again."
            )
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return SemanticFaceError(
                f"{self.path}: {error}. {safe} Choose another --database, or make the file and its folder writable."
            )
        return SemanticFaceError(f"{self.path}: {error}. {safe}")

    def _damaged(self, what: str) -> SemanticFaceError:
        return SemanticFaceError(
            f"{self.path}: damaged, or not a database ({what}). Move it away, recover what can be read with\n"
            f"  sqlite3 {self.path} .recover | sqlite3 recovered.sqlite\n"
            "and use recovered.sqlite, or create a new one and import your last export into it."
        )


def _row(choice: Choice) -> tuple[Any, ...]:
    q = choice.question
    return (
        *(q.id, q.picture, q.region, q.a, q.b, q.kind, q.of),
        *(choice.verdict, choice.annotator, choice.model, choice.round, choice.time),
    )


def _choice(row: Iterable[Any]) -> Choice:
    id, picture, region, a, b, kind, of, *rest = row
    return Choice(Question(id, picture, region, a, b, kind, of), *rest)
