"""What compiled loops of the renderer share: the ``kernel`` decorator, noise, easing functions, scratch buffers."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba as nb
import numpy as np
from numba.core.dispatcher import Dispatcher
from numpy.typing import DTypeLike


def _digest() -> str:
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


_SOURCES = _digest()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function with the renderer's Numba options, cached for all processes.

    ``error_model="numpy"`` drops the check for division by zero, which prevents vectorisation: kernels guard their own
    divisions. Numba discards its cache when the function's own file changes, but a kernel also inlines kernels and
    constants of other files, so here any change to the package invalidates it.
    """
    compiled = nb.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")(function)
    if isinstance(compiled, Dispatcher):  # not so under NUMBA_DISABLE_JIT
        compiled._cache._cache_file._source_stamp = _SOURCES  # type: ignore[attr-defined]
    return compiled


NOISE_VOLUME = np.random.default_rng(5).random((32, 32, 32), dtype=np.float32)
"""float32[32, 32, 32] in [0, 1), tileable."""
NOISE_TABLE = NOISE_VOLUME.ravel()
"""float32[32768], the same flattened: what ``noise`` reads."""


@kernel
def noise(table, x, y, z):  # type: ignore[no-untyped-def]
    """Trilinear value noise in [0, 1), one cell per unit; ``table`` is ``NOISE_TABLE``."""
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    u, v, w = x - fx, y - fy, z - fz
    i, j, k = int(fx) & 31, int(fy) & 31, int(fz) & 31
    i0, i1 = i << 10, ((i + 1) & 31) << 10
    j0, j1 = j << 5, ((j + 1) & 31) << 5
    k1 = (k + 1) & 31
    a, a1 = table[i0 | j0 | k], table[i0 | j0 | k1]
    b, b1 = table[i0 | j1 | k], table[i0 | j1 | k1]
    c, c1 = table[i1 | j0 | k], table[i1 | j0 | k1]
    d, d1 = table[i1 | j1 | k], table[i1 | j1 | k1]
    a, b, c, d = a + (a1 - a) * w, b + (b1 - b) * w, c + (c1 - c) * w, d + (d1 - d) * w
    a, c = a + (b - a) * v, c + (d - c) * v
    return a + (c - a) * u


@kernel
def smoothstep(low, high, x):  # type: ignore[no-untyped-def]
    """0 below ``low``, 1 above ``high``, smooth in between."""
    t = (x - low) / (high - low)
    t = min(max(t, 0.0), 1.0)
    return t * t * (3 - 2 * t)


@kernel
def falloff(x):  # type: ignore[no-untyped-def]
    """About ``exp(-x)`` for x >= 0, to within 0.0003, at a fifth of the cost."""
    t = min(x, 12.0) / 8
    p = 1 - t * (1 - t * (0.5 - t * (1 / 6 - t / 24)))
    p *= p
    p *= p
    return p * p


MAX_KEPT_BYTES = 1 << 25
"""Size above which a buffer is not kept."""


class _ThreadBuffers(threading.local):
    def __init__(self) -> None:
        self.by_name: dict[str, np.ndarray] = {}


_buffers = _ThreadBuffers()


def scratch_buffer(name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> np.ndarray:
    """A reused array of arbitrary content, valid until this thread asks for the same name again.

    Allocating an image's ten megabytes anew costs about 2 of 20 milliseconds in page faults, so each thread keeps one
    buffer per name, of the largest shape asked for, up to ``MAX_KEPT_BYTES``.

    Args:
        name: of the buffer.
        shape: of the array.
        dtype: always the same for a name.
    """
    length = math.prod(shape)
    buffer = _buffers.by_name.get(name)
    if buffer is None or len(buffer) < length:
        buffer = np.empty(length, dtype)
        if buffer.nbytes <= MAX_KEPT_BYTES:
            _buffers.by_name[name] = buffer
    return buffer[:length].reshape(shape)
