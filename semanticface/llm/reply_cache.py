"""An on-disk cache of language model replies, so that a resumed run repeats no request.

A key is the hash of the model's name and the whole request: any change of prompt, settings or measurements is a new
request. ``put`` is atomic, and the reply is on disk when it returns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from semanticface.errors import SemanticFaceError
from semanticface.llm.chat import ChatReply, ChatRequest

APPLICATION_ID = 0x53464C52
"""Marks the file as ours: "SFLR"; its ``application_id``."""
_TABLE = f"""
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY,
    text TEXT NOT NULL, finish TEXT NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
"""
_LOCK_TIMEOUT = 20.0  # seconds to wait for another program's write, which takes milliseconds


def request_key(model: str, request: ChatRequest) -> str:
    """Return the cache key of a request to a model: a SHA-256 in hex."""
    payload = json.dumps([model, dataclasses.asdict(request)], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(payload.encode()).hexdigest()


class ReplyCache:
    """Replies by key in one SQLite file; for one thread.

    Args:
        path: of the file; created, with its folder, by the first ``put``.

    Raises:
        SemanticFaceError: the file is damaged, belongs to another program, or cannot be read; so do the methods.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._connection: sqlite3.Connection | None = None
        if self.path.exists():
            self._connect()

    def __enter__(self) -> ReplyCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __len__(self) -> int:
        if self._connection is None:
            return 0
        with self._errors():
            (count,) = self._connection.execute("SELECT count(*) FROM replies").fetchone()
        return int(count)

    def get(self, key: str) -> ChatReply | None:
        """Return the reply under a key, or None."""
        if self._connection is None:
            return None
        with self._errors():
            row = self._connection.execute(
                "SELECT text, finish, tokens_in, tokens_out FROM replies WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else ChatReply(*row)

    def put(self, key: str, reply: ChatReply) -> None:
        """Store a reply, replacing an earlier one under this key."""
        with self._errors():
            connection = self._connection or self._connect()
            values = (key, reply.text, reply.finish, reply.tokens_in, reply.tokens_out)
            connection.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?)", values)

    def _connect(self) -> sqlite3.Connection:
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self.path, timeout=_LOCK_TIMEOUT, isolation_level=None
            )  # each statement commits
            try:
                (found,) = connection.execute("PRAGMA application_id").fetchone()
                tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                if tables and found != APPLICATION_ID:
                    raise SemanticFaceError(f"{self.path} is another program's database. Choose another file.")
                connection.executescript(_TABLE)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return connection

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise SemanticFaceError(
                f"{self.path}: the reply cache cannot be used ({error}). Free some space, or choose another file."
            ) from error
