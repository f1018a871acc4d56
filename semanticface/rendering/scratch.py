"""Buffers that a thread keeps from one picture to the next.

A picture needs some ten megabytes for a moment. Asking the system for them every time costs about 2 of 20 milliseconds
in page faults, so each thread keeps the last set; pictures beyond ``LARGEST`` give theirs back.
"""

from __future__ import annotations

import math
import threading

import numpy as np
from numpy.typing import DTypeLike

LARGEST = 1 << 25
"""Bytes above which a buffer is not kept."""


class _Kept(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[str, np.ndarray] = {}


_kept = _Kept()


def scratch(name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> np.ndarray:
    """An array of arbitrary content, valid until this thread asks for the same name again.

    Args:
        name: of the buffer; one buffer a name and thread is kept, of the largest shape asked for.
        shape: of the array.
        dtype: always the same for a name.
    """
    length = math.prod(shape)
    buffer = _kept.buffers.get(name)
    if buffer is None or len(buffer) < length:
        buffer = np.empty(length, dtype)
        if buffer.nbytes <= LARGEST:
            _kept.buffers[name] = buffer
    return buffer[:length].reshape(shape)
