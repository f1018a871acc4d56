"""``semanticface serve``: an HTTP server with an OpenAI-compatible endpoint."""

from __future__ import annotations

import argparse
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from semanticface.cli import arguments
from semanticface.cli.arguments import Subparsers, add_command
from semanticface.cli.signals import handle_signals
from semanticface.errors import ConfigError, SemanticFaceError

if TYPE_CHECKING:
    import socket

    from semanticface.inference.predictor import Predictor
    from semanticface.serving.batching import BatchingService

_MIN_KEY_LENGTH = 16
_MORE_CONNECTIONS = 1000
"""Connections beyond ``--queue``; uvicorn refuses further ones without a JSON body."""


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "serve",
        "serve predictions over HTTP: an OpenAI-compatible endpoint and a small one of its own",
        "POST /v1/chat/completions takes what OpenAI clients send, with one picture as a data: URI; POST /v1/face\n"
        "takes a picture and answers as predict does. GET /openapi.json describes both; /health and /ready report the\n"
        "server's state. Requests are processed in batches; beyond --queue they get 429 and Retry-After.\n\n"
        "Everything stays on this machine: pictures are neither stored nor logged, and no URL is fetched. Any --host\n"
        "other than this machine's opens the server to everyone who can reach it: set a key. Ctrl-C finishes the\n"
        "accepted requests, then stops. Requires: pip install 'semanticface[serve]'",
        "semanticface serve",
        "semanticface serve --model outputs/my-adapter --device cuda --batch-size 32",
        "semanticface serve --mode numbers --port 9000 --no-emotion",
        "curl --data-binary @face.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/v1/face",
    )
    arguments.add_model(parser)
    parser.add_argument("--name", help="the model's name for clients (default: its folder's name, or the Hub id)")
    parser.add_argument(
        "--mode", choices=("full", "numbers"), default="full", help="default for requests (default: %(default)s)"
    )
    parser.add_argument(
        "--readout", choices=("greedy", "mean", "median"), help="default for requests (default: the model's own)"
    )
    arguments.add_no_emotion(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=arguments.port_or_any, default=8000, help="port; 0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a host name that clients may use for the server, besides localhost and numeric addresses",
    )
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="file with the key that requests must carry (Authorization: Bearer KEY)",
    )
    arguments.add_batch_size(parser)
    parser.add_argument(
        "--queue",
        type=arguments.positive,
        default=256,
        metavar="N",
        help="maximum concurrent requests, from first byte to answer (default: %(default)s)",
    )
    parser.add_argument(
        "--max-mib",
        type=arguments.positive,
        default=32,
        metavar="N",
        help="maximum request size; base64 makes a picture a third larger (default: %(default)s)",
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
    import importlib.util

    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise SemanticFaceError(f"{' and '.join(missing)} not installed. Run: pip install 'semanticface[serve]'")
    key = None if options.api_key_file is None else read_key(options.api_key_file)
    listening = _listen(options.host, options.port)

    import uvicorn

    from semanticface.models.files import display_name
    from semanticface.serving.app import Limits, create_app
    from semanticface.serving.batching import BatchingService
    from semanticface.serving.middleware import idle_timeout_protocol

    class Server(uvicorn.Server):
        def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
            """Only stop at a signal: uvicorn's own version raises it again at the end."""
            return handle_signals(self.handle_exit)

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
    name = options.name or display_name(options.model)

    def on_loaded(service: BatchingService) -> None:
        if service.error is None:
            print(f"{name} answers at {url}/v1 and {url}/v1/face. Ctrl-C stops.", flush=True)
        else:
            server.should_exit = True

    _warn_if_public(host, key)
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
    service.start(on_loaded)
    server.run(sockets=[listening])
    if service.error is not None:
        raise service.error
    if server.force_exit:
        return 130
    print("All accepted requests are answered.", flush=True)
    return 0


def read_key(path: Path) -> str:
    """Return the key in a file: one line of at least 16 printable characters without spaces."""
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"cannot read the key file {path}: {reason}.") from error
    if len(key) < _MIN_KEY_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"{path}: a key is one line of at least {_MIN_KEY_LENGTH} letters, digits and signs. "
            f"Make one: python -c 'import secrets; print(secrets.token_urlsafe())' > {path}"
        )
    return key


def _listen(host: str, port: int) -> socket.socket:
    import socket

    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        # Listen before the model loads: otherwise a second server could take the same port meanwhile.
        listening.listen()
    except OSError as error:
        raise SemanticFaceError(
            f"cannot listen on {host}:{port}: {error.strerror}. Give another --host or --port."
        ) from error
    return listening


def _warn_if_public(host: str, key: str | None) -> None:
    import ipaddress

    if ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        return
    access = "No key is required (--api-key-file)" if key is None else "Requests need the key"
    print(
        f"semanticface: warning: {host} can be reached from other machines. {access}, and nothing is encrypted. "
        "Pictures of faces are personal data: put a TLS proxy in front of it.",
        file=sys.stderr,
        flush=True,
    )
