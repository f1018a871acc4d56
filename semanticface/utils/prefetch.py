"""An iterator worked ahead of its consumer on a thread of its own, so that neither waits for the other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")

_POLL = 0.1  # seconds after which a full queue is tried again, so that an abandoned thread ends


def prefetch(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Yield the items in order, computed on a thread that runs up to ``depth`` items ahead.

    An error of ``items`` is raised here, in its place. Closing this iterator ends the thread.
    """
    waiting: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(kind: str, value: T | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                waiting.put((kind, value), timeout=_POLL)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put("item", item)
                if stopped.is_set():
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
