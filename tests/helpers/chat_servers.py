"""A small real HTTP server that speaks chat completions as a test tells it to."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Said:
    """What the server was asked: each body, each request's headers, the most requests at once."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    under_way: int = 0
    most: int = 0
    stopped: bool = False
    stop: Callable[[], None] = lambda: None


def completion(text: Any, finish: str = "stop", tokens: tuple[int, int] = (7, 3)) -> dict[str, Any]:
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]},
    }


@contextlib.contextmanager
def chat_server(answer: Callable[[dict[str, Any]], Any], port: int = 0) -> Iterator[Said]:
    """Serve on loopback. ``answer`` turns a request's body into a reply's text, or (status, headers, body), or None,
    which drops the connection; a body may be bytes or what JSON can hold."""
    said, lock = Said(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                said.bodies.append(body)
                said.headers.append(dict(self.headers))
                said.paths.append(self.path)
                said.under_way += 1
                said.most = max(said.most, said.under_way)
            try:
                found = answer(body)
            finally:
                with lock:
                    said.under_way -= 1
            if found is None or said.stopped:
                self.close_connection = True
                return
            status, headers, content = (200, {}, completion(found)) if isinstance(found, str) else found
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            with contextlib.suppress(OSError):  # the client may have left
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(data))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    said.url = f"http://127.0.0.1:{server.server_port}/v1"

    def stop() -> None:
        said.stopped = True  # for connections that are still open
        server.shutdown()
        server.server_close()
        thread.join()

    said.stop = stop
    try:
        yield said
    finally:
        if thread.is_alive():
            stop()
