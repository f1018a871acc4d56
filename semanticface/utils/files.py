"""Files that are either whole or absent: write to a temporary name beside the target, then rename."""

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

# What a system answers when it will not store the bytes; other errors inside a block are the block's own.
_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


_SCRATCH = re.compile(r"\.(.+)\.[a-z0-9_]{8}")  # as mkdtemp makes them of the prefix below
_REPLACED = "replaced"


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path (file or folder, not yet made) that becomes ``target`` if the block succeeds.

    On an error the temporary path is removed and ``target`` stays as it was.

    Raises:
        SemanticFaceError: the operating system refused to write (full disk, no permission, no such folder).
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
        if scratch is not None and error.errno not in _REFUSED:
            raise
        raise SemanticFaceError(
            f"cannot write {target}: {error.strerror or error}. Free some space or choose another place."
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def check_not_an_input(target: str | os.PathLike[str], *inputs: str | os.PathLike[str] | None) -> None:
    """Refuse a target that is one of the files it is made from.

    Raises:
        SemanticFaceError: it is.
    """
    here = Path(target).resolve()
    for each in inputs:
        if each is not None and Path(each).resolve() == here:
            raise SemanticFaceError(f"{target}: is what it would be made from. Choose another name for the output.")


@contextlib.contextmanager
def atomic_open(target: str | os.PathLike[str], mode: str = "w", **options: Any) -> Iterator[IO[Any]]:
    """Open a file for writing under a temporary name that becomes ``target`` if the block succeeds."""
    if "b" not in mode:
        options.setdefault("encoding", "utf-8")
    with atomic_path(target) as temporary, temporary.open(mode, **options) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def nonfinite_to_none(value: Any) -> Any:
    """Return values for JSON, mappings and lists of them too, with None for numbers that are undefined or infinite."""
    if isinstance(value, Mapping):
        return {name: nonfinite_to_none(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [nonfinite_to_none(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(target: str | os.PathLike[str], value: Any, *, compact: bool = False) -> None:
    """Write a value as JSON, whole or not at all; numbers that are undefined or infinite become null.

    Args:
        target: the file.
        value: what ``json.dump`` takes.
        compact: on one line without spaces, for files that people do not read.
    """
    layout: dict[str, Any] = {"separators": (",", ":")} if compact else {"indent": 2}
    with atomic_open(target) as file:
        json.dump(nonfinite_to_none(value), file, ensure_ascii=False, allow_nan=False, **layout)
        file.write("\n")


def abandoned_writes(place: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the folders at any depth below a place in which a killed process was writing what ``atomic_path`` makes."""
    for name, below, _ in os.walk(place):
        for each in sorted(below):
            found = _SCRATCH.fullmatch(each)
            if found and {inside.name for inside in Path(name, each).iterdir()} <= {found[1], _REPLACED}:
                below.remove(each)
                yield Path(name, each)
