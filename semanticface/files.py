"""Files that are either whole or absent: write to a temporary name beside the target, then rename."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from semanticface.errors import SemanticFaceError

# What a system answers when it will not store the bytes; other errors inside a block are the block's own.
_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


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
            target.rename(scratch / "replaced")
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


@contextlib.contextmanager
def atomic_open(target: str | os.PathLike[str], mode: str = "w", **options: Any) -> Iterator[IO[Any]]:
    """Open a file for writing under a temporary name that becomes ``target`` if the block succeeds."""
    if "b" not in mode:
        options.setdefault("encoding", "utf-8")
    with atomic_path(target) as temporary, temporary.open(mode, **options) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
