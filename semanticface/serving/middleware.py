"""Access control in front of the endpoints: origin, host name and API key.

Every page open in the user's browser can reach a server on 127.0.0.1. Pages of other sites are refused by their
``Origin`` or ``Sec-Fetch-Site`` header; DNS rebinding (a site whose name resolves to this machine) is refused by the
``Host`` header, which must be an IP address or an allowed name. No CORS header lets other origins read replies. If
there is a key, every path except the health checks requires it.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from semanticface.serving.requests import RefusedError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATHS = ("/health", "/ready")
"""Paths that need no key."""
_HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
_DRAIN_TIMEOUT = 5.0


class RequestGuard:
    """ASGI middleware that refuses requests without access.

    Args:
        app: the wrapped application.
        hosts: allowed host names, in addition to ``localhost`` and IP addresses.
        key: the API key required as ``Authorization: Bearer …``; None requires none.
        max_bytes: of a refused request's body that are read and discarded, so that its sender receives the reply.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], key: str | None, max_bytes: int) -> None:
        self.app = app
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._key = None if key is None else key.encode()
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        try:
            self._check({name.decode("latin-1"): value for name, value in scope["headers"]}, scope["path"])
        except RefusedError as refused:
            await drain(receive, self._max_bytes)
            body = json.dumps(refused.body()).encode()
            extra = [(name.encode(), value.encode()) for name, value in refused.headers().items()]
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *extra]
            await send_with_headers({"type": "http.response.start", "status": refused.status, "headers": headers})
            await send_with_headers({"type": "http.response.body", "body": body})
        else:
            await self.app(scope, receive, send_with_headers)

    def _check(self, headers: dict[str, bytes], path: str) -> None:
        host = headers.get("host", b"").decode("latin-1").lower()
        if not self._allowed(host):
            message = "Unknown host name. Use the server's IP address, or start it with --allow-host NAME."
            raise RefusedError(403, "unknown_host", message)
        origin = headers.get("origin", b"").decode("latin-1").lower()
        cross_origin = origin and origin not in (f"http://{host}", f"https://{host}")
        if cross_origin or headers.get("sec-fetch-site", b"none") not in (b"none", b"same-origin"):
            raise RefusedError(403, "foreign_origin", "Requests from other sites are refused.")
        if self._key is not None and path not in OPEN_PATHS:
            scheme, _, given = headers.get("authorization", b"").partition(b" ")
            if not hmac.compare_digest(given.strip(), self._key) or scheme.lower() != b"bearer":
                message = "The API key is missing or wrong. Send it as Authorization: Bearer KEY."
                raise RefusedError(401, "invalid_api_key", message)

    def _allowed(self, host: str) -> bool:
        name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True


def idle_timeout_protocol(seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol with an idle timeout: between one and two times ``seconds`` without a request.

    uvicorn waits for a request's headers indefinitely, so a few idle clients could use up its connections.
    """
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class IdleTimeoutProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._schedule_check(None)

        def connection_lost(self, exc: Exception | None) -> None:
            self._next_check.cancel()
            super().connection_lost(exc)

        def _schedule_check(self, last: Any) -> None:
            self._next_check = self.loop.call_later(seconds, self._check, last)

        def _check(self, last: Any) -> None:
            if self.cycle is last and (last is None or last.response_complete):
                self.transport.close()
            else:
                self._schedule_check(self.cycle)

    return IdleTimeoutProtocol


async def drain(receive: Receive, max_bytes: int) -> None:
    """Read and discard the rest of a request's body, up to a number of bytes and for a few seconds."""
    try:
        async with asyncio.timeout(_DRAIN_TIMEOUT):
            more = True
            while more and max_bytes > 0:
                message = await receive()
                max_bytes -= len(message.get("body", b""))
                more = message["type"] == "http.request" and message.get("more_body", False)
    except TimeoutError:
        return
