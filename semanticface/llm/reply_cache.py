"""Replies of language models on disk, found again by what was asked: a stopped run asks nothing twice.

A key is the hash of the model's name and the whole request, so that any change of words, settings or measurements asks
anew. A reply is on disk when ``put`` returns, whole or not at all.
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

_APPLICATION = 0x53464C52  # "SFLR", kept in the file as application_id: whose file this is
_TABLE = f"""
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY,
    text TEXT NOT NULL, finish TEXT NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION};
"""
_WAIT = 20.0  # seconds to wait for another program's write, which takes milliseconds


def request_key(model: str, request: ChatRequest) -> str:
    """Return the key of a request to a model: a sha256 in hex."""
    told = json.dumps([model, dataclasses.asdict(request)], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(told.encode()).hexdigest()


class ReplyCache:
    """Replies by key, in one SQLite file; used by one thread.

    Args:
        path: of the file; made, with its folder, by the first ``put`` if it is not there.

    Raises:
        SemanticFaceError: the file is damaged, another program's, or may not be read; so do the methods.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._open: sqlite3.Connection | None = None
        if self.path.exists():
            self._connect()

    def __enter__(self) -> ReplyCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def __len__(self) -> int:
        if self._open is None:
            return 0
        with self._named():
            (count,) = self._open.execute("SELECT count(*) FROM replies").fetchone()
        return int(count)

    def get(self, key: str) -> ChatReply | None:
        """Return the reply kept under a key, or None."""
        if self._open is None:
            return None
        with self._named():
            row = self._open.execute(
                "SELECT text, finish, tokens_in, tokens_out FROM replies WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else ChatReply(*row)

    def put(self, key: str, reply: ChatReply) -> None:
        """Keep a reply; one that is there already under this key is replaced."""
        with self._named():
            connection = self._open or self._connect()
            values = (key, reply.text, reply.finish, reply.tokens_in, reply.tokens_out)
            connection.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?)", values)

    def _connect(self) -> sqlite3.Connection:
        with self._named():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None)  # each statement commits
            try:
                (found,) = connection.execute("PRAGMA application_id").fetchone()
                tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                if tables and found != _APPLICATION:
                    raise SemanticFaceError(f"{self.path} is a database of something else. Name another file.")
                connection.executescript(_TABLE)
            except BaseException:
                connection.close()
                raise
            self._open = connection
        return connection

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise SemanticFaceError(
                f"{self.path}: no replies can be kept there ({error}). Free some space, or name another file."
            ) from error
