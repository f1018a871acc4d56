"""Atomic writes: to a temporary path next to the target, then rename."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from semanticface.errors import SemanticFaceError

# Errors of a system that cannot store the bytes; other errors inside a block are the caller's.
_WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
_SCRATCH = re.compile(r"\.(.+)\.[a-z0-9_]{8}")  # names that mkdtemp creates from the prefix below
_REPLACED = "replaced"


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path (of a file or folder to create) that becomes ``target`` if the block succeeds.

    On an error the temporary path is removed and ``target`` is unchanged. A full disk or missing permission raises a
    ``SemanticFaceError``.
    """
    target = Path(target)
    scratch = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        temporary = scratch / target.name
        yield temporary
        if temporary.is_dir() and target.is_dir():
            target.rename(scratch / _REPLACED)
        temporary.replace(target)
    except OSError as error:
        if scratch is not None and error.errno not in _WRITE_ERRORS:
            raise
        raise SemanticFaceError(
            f"cannot write {target}: {error.strerror or error}. Free some space or choose another location."
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def check_not_an_input(target: str | os.PathLike[str], *inputs: str | os.PathLike[str] | None) -> None:
    """Raise a ``SemanticFaceError`` if the output ``target`` is one of the inputs."""
    target = Path(target)
    for path in (Path(each) for each in inputs if each is not None):
        same = target.samefile(path) if target.exists() and path.exists() else target.resolve() == path.resolve()
        if same:
            raise SemanticFaceError(f"{target}: is an input of this command. Choose another name for the output.")


@contextlib.contextmanager
def atomic_open(target: str | os.PathLike[str], mode: str = "w", **options: Any) -> Iterator[IO[Any]]:
    """Open a temporary file for writing that becomes ``target`` if the block succeeds."""
    if "b" not in mode:
        options.setdefault("encoding", "utf-8")
    with atomic_path(target) as temporary, temporary.open(mode, **options) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def nonfinite_to_none(value: Any) -> Any:
    """Return a JSON value, recursively, with NaN and infinities replaced by None."""
    if isinstance(value, Mapping):
        return {name: nonfinite_to_none(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [nonfinite_to_none(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(target: str | os.PathLike[str], value: Any, *, compact: bool = False) -> None:
    """Write a value as JSON atomically; NaN and infinities become null.

    ``compact`` writes one line without spaces, for files that people do not read.
    """
    layout: dict[str, Any] = {"separators": (",", ":")} if compact else {"indent": 2}
    with atomic_open(target) as file:
        json.dump(nonfinite_to_none(value), file, ensure_ascii=False, allow_nan=False, **layout)
        file.write("\n")


def is_abandoned(folder: Path) -> bool:
    """Return whether a folder is a temporary one of ``atomic_path``, which a killed process left."""
    found = _SCRATCH.fullmatch(folder.name)
    try:
        return found is not None and {path.name for path in folder.iterdir()} <= {found[1], _REPLACED}
    except OSError:
        return False
