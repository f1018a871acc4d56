"""Clean shutdown of the commands that serve until they are stopped."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def handle_signals(handler: Callable[..., Any]) -> Iterator[None]:
    """Call ``handler(signal, frame)`` on SIGINT and SIGTERM within the block; restore the previous handlers after."""
    before = {which: signal.signal(which, handler) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for which, previous in before.items():
            signal.signal(which, previous)
