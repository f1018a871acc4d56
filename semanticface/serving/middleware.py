"""What stands before the server's endpoints: no page of another site, no name that is not the server's, no stranger.

A server on 127.0.0.1 can be reached by every page that the user's browser opens. A page of another site is refused by
its ``Origin`` or ``Sec-Fetch-Site`` header, and one that has its own name resolve to this machine (DNS rebinding) by
the ``Host`` header: an address in digits cannot be rebound, and other names must be known. Nothing says that other
origins may read replies (no CORS). Where there is a key, everything but the two questions for health wants it.
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
"""What is answered without a key."""
_HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
_DRAINED_FOR = 5.0


class RequestGuard:
    """ASGI middleware that lets through what may be answered.

    Args:
        app: what answers.
        names: host names by which the server may be addressed, beside ``localhost`` and addresses in digits.
        key: what requests must carry as ``Authorization: Bearer …``; None lets everybody in.
        most_bytes: of a refused request's body that are read and thrown away, so that its sender gets to read why.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], key: str | None, most_bytes: int) -> None:
        self.app = app
        self._names = {"localhost", *(name.lower() for name in names)}
        self._key = None if key is None else key.encode()
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        try:
            self._check({name.decode("latin-1"): value for name, value in scope["headers"]}, scope["path"])
        except RefusedError as refused:
            await drain(receive, self._most_bytes)
            body = json.dumps(refused.body()).encode()
            extra = [(name.encode(), value.encode()) for name, value in refused.headers().items()]
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *extra]
            await marked({"type": "http.response.start", "status": refused.status, "headers": headers})
            await marked({"type": "http.response.body", "body": body})
        else:
            await self.app(scope, receive, marked)

    def _check(self, headers: dict[str, bytes], path: str) -> None:
        host = headers.get("host", b"").decode("latin-1").lower()
        if not self._known(host):
            message = "The server does not go by this name. Use its address, or start it with --allow-host NAME."
            raise RefusedError(403, "unknown_host", message)
        origin = headers.get("origin", b"").decode("latin-1").lower()
        foreign = origin and origin not in (f"http://{host}", f"https://{host}")
        if foreign or headers.get("sec-fetch-site", b"none") not in (b"none", b"same-origin"):
            raise RefusedError(403, "foreign_origin", "Pages of other sites may not use this server.")
        if self._key is not None and path not in OPEN_PATHS:
            scheme, _, given = headers.get("authorization", b"").partition(b" ")
            if not hmac.compare_digest(given.strip(), self._key) or scheme.lower() != b"bearer":
                message = "The key is missing or wrong. Send it as Authorization: Bearer KEY."
                raise RefusedError(401, "invalid_api_key", message)

    def _known(self, host: str) -> bool:
        name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True


def idle_timeout_protocol(seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol, closing connections on which for so long, or up to twice, no request begins.

    uvicorn itself waits for a request's head for ever, and takes only so many connections: a few that send nothing
    would in time keep everybody else out.
    """
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class IdleTimeoutProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._look_again(None)

        def connection_lost(self, exc: Exception | None) -> None:
            self._next_look.cancel()
            super().connection_lost(exc)

        def _look_again(self, last: Any) -> None:
            self._next_look = self.loop.call_later(seconds, self._look, last)

        def _look(self, last: Any) -> None:
            if self.cycle is last and (last is None or last.response_complete):
                self.transport.close()
            else:
                self._look_again(self.cycle)

    return IdleTimeoutProtocol


async def drain(receive: Receive, most_bytes: int) -> None:
    """Read what is left of a request's body and throw it away, up to a number of bytes and for a few seconds."""
    try:
        async with asyncio.timeout(_DRAINED_FOR):
            more = True
            while more and most_bytes > 0:
                message = await receive()
                most_bytes -= len(message.get("body", b""))
                more = message["type"] == "http.request" and message.get("more_body", False)
    except TimeoutError:
        return
