"""A small HTTP server with scripted chat completions. Not a test file."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class ServerLog:
    """The requests a server received."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    pending: int = 0
    max_concurrent: int = 0
    stopped: bool = False
    stop: Callable[[], None] = lambda: None


def completion(text: Any, finish: str = "stop", tokens: tuple[int, int] = (7, 3)) -> dict[str, Any]:
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]},
    }


@contextlib.contextmanager
def chat_server(answer: Callable[[dict[str, Any]], Any], port: int = 0) -> Iterator[ServerLog]:
    """Serve on loopback. ``answer`` maps a request's body to a reply's text, to (status, headers, body) with a body of
    bytes or JSON values, or to None, which drops the connection."""
    log, lock = ServerLog(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                log.bodies.append(body)
                log.headers.append(dict(self.headers))
                log.paths.append(self.path)
                log.pending += 1
                log.max_concurrent = max(log.max_concurrent, log.pending)
            try:
                reply = answer(body)
            finally:
                with lock:
                    log.pending -= 1
            if reply is None or log.stopped:
                self.close_connection = True
                return
            status, headers, content = (200, {}, completion(reply)) if isinstance(reply, str) else reply
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
    log.url = f"http://127.0.0.1:{server.server_port}/v1"

    def stop() -> None:
        log.stopped = True  # also for open connections
        server.shutdown()
        server.server_close()
        thread.join()

    log.stop = stop
    try:
        yield log
    finally:
        if thread.is_alive():
            stop()
