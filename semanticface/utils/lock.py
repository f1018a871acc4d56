"""One owner for each output: a lock between processes, which ends with its process."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from semanticface.errors import ConfigError, SemanticFaceError


@contextlib.contextmanager
def exclusive(output: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other runs from an output, a file or a folder to come, while the block runs.

    The lock is a file ``.NAME.lock`` beside the output, deleted at the end; that of a killed run is taken over.

    Raises:
        ConfigError: another run is using the output.
        SemanticFaceError: its folder cannot be written.
    """
    output = Path(output).resolve()
    path = output.with_name(f".{output.name}.lock")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise ConfigError(f"another run is using {output}: wait for it, or choose another --out.") from error
        raise SemanticFaceError(f"cannot write into {output.parent}: {error}. Choose another --out.") from error
    except OSError as error:
        raise SemanticFaceError(
            f"cannot write into {output.parent}: {error.strerror}. Choose another --out."
        ) from error
    with contextlib.closing(lock):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # some systems do not delete open files
                path.unlink()


def _lock(path: Path) -> sqlite3.Connection:
    """Return a connection that holds the lock: SQLite locks files on every system, until the process ends."""
    while True:
        path.touch()
        before = path.stat().st_ino
        lock = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            lock.execute("BEGIN EXCLUSIVE")
            # An owner may have deleted the file between our opening and locking it.
            if path.exists() and path.stat().st_ino == before:
                return lock
        except sqlite3.OperationalError:
            lock.close()
            raise
        lock.close()
