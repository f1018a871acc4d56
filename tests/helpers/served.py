"""A server on loopback, small test pictures, and a gate that blocks the model. Not a test file."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image, ImageEnhance

from semanticface.cli import serve as serve_command
from semanticface.cli.main import main
from semanticface.inference.predictor import Predictor
from semanticface.rendering import STYLES, render
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.serving.app import Limits, create_app
from semanticface.serving.batching import BatchingService
from semanticface.serving.middleware import idle_timeout_protocol

TIMEOUT = 120
"""Seconds a test waits for what should happen at once."""


@cache
def crops(count: int) -> tuple[Image.Image, ...]:
    """Return distinct small square pictures of faces: up to 8 faces at several brightnesses."""
    faces = []
    for number in range(min(count, 8)):
        values = sample_coefficients(np.random.default_rng([number, 71]))
        drawn = render(values, style=STYLES[number % len(STYLES)], subject=number, size=64, framing="crop")
        faces.append(Image.fromarray(drawn.image))
    return tuple(
        ImageEnhance.Brightness(faces[number % len(faces)]).enhance(0.4 + 1.2 * number / count)
        for number in range(count)
    )


def png(picture: Image.Image) -> bytes:
    """Return a picture as the bytes of a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def uri(picture: Image.Image) -> str:
    """Return a picture as a ``data:`` URI."""
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()


class Gate:
    """Blocks a predictor before each batch until ``open`` is set, and records the images of each batch."""

    def __init__(self, predictor: Predictor) -> None:
        self.open = threading.Event()
        self.reached = threading.Semaphore(0)
        self.batches: list[list[str]] = []
        self._answer = predictor.answer
        self._predictor = predictor

    def __enter__(self) -> Gate:
        self._predictor.answer = self._blocked  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        self.open.set()
        del self._predictor.answer

    def _blocked(self, faces: Sequence, *rest: object) -> list:
        self.batches.append([face.image for face in faces])
        self.reached.release()
        assert self.open.wait(TIMEOUT)
        return self._answer(faces, *rest)


@contextlib.contextmanager
def running_server(
    predictor: Predictor, limits: Limits | None = None, **settings: object
) -> Iterator[tuple[str, BatchingService]]:
    """Serve a model on a free port of 127.0.0.1; yields the URL and the service."""
    ready = threading.Event()
    service = BatchingService(lambda: predictor, **settings)
    service.start(lambda _: ready.set())
    assert ready.wait(TIMEOUT) and service.error is None
    listener = socket.create_server(("127.0.0.1", 0))
    protocol = idle_timeout_protocol((limits or Limits()).timeout)
    server = uvicorn.Server(uvicorn.Config(create_app(service, "nano", limits), http=protocol, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", service
    finally:
        server.should_exit = True
        thread.join(TIMEOUT)
        assert not thread.is_alive() and service.status == "stopped"


def run_serve_command(
    args: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[str], object],
    stop: signal.Signals | None = signal.SIGINT,
) -> object:
    """Run a serve command in this process on a free port, call ``ask`` with its URL, then stop it as Ctrl-C does.

    With ``stop`` None, ``ask`` stops the server itself.
    """
    listeners, results = [], []
    listen = serve_command._listen
    monkeypatch.setattr(
        serve_command, "_listen", lambda host, _: listeners.append(listen("127.0.0.1", 0)) or listeners[0]
    )

    def work():
        moment = threading.Event()
        for _ in range(TIMEOUT * 20):
            moment.wait(0.05)
            try:
                url = f"http://127.0.0.1:{listeners[0].getsockname()[1]}"
                ready = httpx.get(f"{url}/ready").status_code == 200
            except (IndexError, httpx.TransportError):
                continue
            if ready:
                try:
                    results.append(ask(url))
                finally:
                    if stop is not None or not results:
                        os.kill(os.getpid(), stop or signal.SIGINT)
                return

    thread = threading.Thread(target=work)
    thread.start()
    code = main(args[1:])
    thread.join()
    monkeypatch.setattr(serve_command, "_listen", listen)
    assert code == 0 and len(results) == 1, args
    return results[0]
