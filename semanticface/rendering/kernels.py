"""How every inner loop of the renderer is compiled: one place, so that no kernel is slower for a forgotten option."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba as nb
from numba.core.dispatcher import Dispatcher


def _digest() -> str:
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


_SOURCES = _digest()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function once for all processes.

    It goes without Python's check for a division by zero, which stops loops from being vectorised: kernels guard their
    own divisions. Numba throws away what it compiled when the function's own file changes, but a kernel also holds
    copies of the kernels and constants it took from other files, so here any change to the package counts.
    """
    compiled = nb.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")(function)
    if isinstance(compiled, Dispatcher):  # not so under NUMBA_DISABLE_JIT
        compiled._cache._cache_file._source_stamp = _SOURCES  # type: ignore[attr-defined]
    return compiled
