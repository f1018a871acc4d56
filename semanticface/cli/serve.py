"""What ``semanticface serve`` does: its options, its checks, what it tells, and how it ends."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import ipaddress
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from semanticface.cli import arguments
from semanticface.cli.arguments import Subparsers, add_command
from semanticface.errors import ConfigError, SemanticFaceError

if TYPE_CHECKING:
    from semanticface.inference.predictor import Predictor
    from semanticface.serving.batching import BatchingService


_SHORTEST_KEY = 16
_MORE_CONNECTIONS = 1000
"""Beside those that have a place: the last line of defence, where a refusal has no JSON."""


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "serve",
        "answer over HTTP: an OpenAI-compatible endpoint and a small one of its own",
        "POST /v1/chat/completions takes what OpenAI's clients send, with one picture as a data: URI; POST /v1/face\n"
        "takes a picture and answers what predict writes. GET /openapi.json describes both, /health and /ready tell\n"
        "how the server is. Requests are read in batches; beyond --queue they are refused with 429 and Retry-After.\n\n"
        "Everything stays on this machine: pictures are neither stored nor logged, and no address is fetched. Any\n"
        "--host but this machine's own opens the server to whoever reaches it: give it a key. Ctrl-C answers what\n"
        "was begun, and ends. Needs: pip install 'semanticface[serve]'",
        "semanticface serve",
        "semanticface serve --model outputs/my-adapter --device cuda --batch-size 32",
        "semanticface serve --mode numbers --port 9000 --no-emotion",
        "curl --data-binary @face.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/v1/face",
    )
    parser.add_argument(
        "--model", default="nano", help='"nano" (ships with the package), a folder or a hub id (default: %(default)s)'
    )
    parser.add_argument("--name", help="of the model for clients (default: that of its folder, or the hub id)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    parser.add_argument("--mode", choices=("full", "numbers"), default="full", help="unless asked otherwise (full)")
    parser.add_argument(
        "--readout", choices=("greedy", "mean", "median"), help="unless asked otherwise (default: the model's own)"
    )
    parser.add_argument(
        "--no-emotion", action="store_true", help="leave out what the face suggests a person feels, for all"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=_port, default=8000, help="to listen on; 0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a host name by which clients may address the server, beside localhost and addresses in digits",
    )
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="a file with a key that requests must carry (Authorization: Bearer KEY)",
    )
    parser.add_argument(
        "--batch-size",
        type=arguments.positive,
        default=16,
        help="pictures read together; lower it if memory runs out (%(default)s)",
    )
    parser.add_argument(
        "--queue",
        type=arguments.positive,
        default=256,
        metavar="N",
        help="requests at a time, from their first byte to their answer (default: %(default)s)",
    )
    parser.add_argument(
        "--max-mib",
        type=arguments.positive,
        default=32,
        metavar="N",
        help="largest request; base64 makes a picture a third larger (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=arguments.positive,
        default=60,
        metavar="SECONDS",
        help="from a request's first byte to its answer (default: %(default)s)",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise SemanticFaceError(f"{' and '.join(missing)} not installed. Run: pip install 'semanticface[serve]'")
    key = None if options.api_key_file is None else read_key(options.api_key_file)
    listening = _listen(options.host, options.port)

    import uvicorn

    from semanticface.serving.app import Limits, create_app
    from semanticface.serving.batching import BatchingService
    from semanticface.serving.middleware import idle_timeout_protocol

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Stop at a signal, and leave it at that: uvicorn's own would raise the signal again in the end."""
            before = {which: signal.signal(which, self.handle_exit) for which in (signal.SIGINT, signal.SIGTERM)}
            try:
                yield
            finally:
                for which, handler in before.items():
                    signal.signal(which, handler)

    def load() -> Predictor:
        from semanticface.inference.predictor import Predictor

        return Predictor.from_pretrained(
            options.model,
            device=options.device,
            mode=options.mode,
            readout=options.readout,
            emotion=not options.no_emotion,
        )

    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    from semanticface.models.files import display_name

    name = options.name or display_name(options.model)

    def told(service: BatchingService) -> None:
        if service.error is None:
            print(f"{name} answers at {url}/v1 and {url}/v1/face. Ctrl-C stops.", flush=True)
        else:
            server.should_exit = True

    _warn(host, key)
    service = BatchingService(load, slots=options.queue, batch_size=options.batch_size)
    names = (options.host, *options.allow_host)
    app = create_app(service, name, Limits(options.max_mib * 2**20, options.timeout, names, key))
    config = uvicorn.Config(
        app,
        http=idle_timeout_protocol(options.timeout),
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=options.queue + _MORE_CONNECTIONS,
        timeout_graceful_shutdown=options.timeout,
    )
    server = Server(config)
    service.start(told)
    server.run(sockets=[listening])
    if service.error is not None:
        raise service.error
    if server.force_exit:
        return 130
    print("All that was begun is answered.", flush=True)
    return 0


def read_key(path: Path) -> str:
    """Return the key in a file: one line of at least 16 printable characters without spaces.

    Raises:
        ConfigError: the file cannot be read or holds something else.
    """
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"cannot read the key file {path}: {reason}.") from error
    if len(key) < _SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"{path}: a key is one line of at least {_SHORTEST_KEY} letters, digits and signs. "
            f"Make one: python -c 'import secrets; print(secrets.token_urlsafe())' > {path}"
        )
    return key


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        # Now, not when the model is loaded: until then a second server could take the same port.
        listening.listen()
    except OSError as error:
        raise SemanticFaceError(
            f"cannot listen on {host}:{port}: {error.strerror}. Give another --host or --port."
        ) from error
    return listening


def _warn(host: str, key: str | None) -> None:
    if ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        return
    guarded = "Nobody is asked for a key (--api-key-file)" if key is None else "Requests need the key"
    print(
        f"semanticface: warning: {host} can be reached from other machines. {guarded}, and nothing is encrypted. "
        "Pictures of faces are personal data: put a proxy with TLS before it.",
        file=sys.stderr,
        flush=True,
    )


def _port(text: str) -> int:
    """Read a port, or 0."""
    if not text.isascii() or not text.isdigit() or not (text == "0" or 1024 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not 0 or a port from 1024 to 65535")
    return int(text)
