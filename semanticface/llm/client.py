"""A client for servers with OpenAI's chat completions API: vLLM, llama.cpp, ``transformers serve``, hosted ones.

Requests are sent concurrently, up to a limit. Temporary failures are retried; a failure that would affect every request
(unreachable server, wrong key, unknown model) raises one error. The calls are synchronous; an event loop runs in a
thread of its own, so that Ctrl-C takes effect at once, even during a long generation.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import random
import re
import threading
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar

import httpx

from semanticface.errors import ServerError
from semanticface.llm.chat import (
    MAX_REPLY_BYTES,
    RETRYABLE,
    ChatReply,
    ChatRequest,
    ChatServer,
    Status,
    image_part,
    read_reply,
    retry_after,
)

__all__ = ["ChatClient", "ChatReply", "ChatRequest", "ChatServer", "image_part"]

_MAX_RETRY_AFTER = 600.0  # seconds; a longer Retry-After is a failure
_FIRST_BACKOFF, _MAX_BACKOFF = 1.0, 60.0  # seconds between attempts, doubling
_CONNECT_TIMEOUT = 10.0  # seconds to connect, whatever the timeout of a reply
_MAX_QUOTED = 300  # characters of a server's error message
_NO_SCHEMA = re.compile(r"response_format|json_schema|schema|guided|structured|grammar", re.IGNORECASE)
_NO_MAX_TOKENS = re.compile(r"max_completion_tokens")

Key = TypeVar("Key", bound=Hashable)


class ChatClient:
    """Sends concurrent requests to a server. Use it as a context manager, or ``close`` it.

    Args:
        server: its address and limits.
        clock: a monotonic clock in seconds.
        sleep: replaced together with ``clock`` in tests.
        jitter: returns a random number in [0, 1), which spreads the retries of many clients.
    """

    def __init__(
        self,
        server: ChatServer,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.server = server
        self._clock, self._sleep, self._jitter = clock, sleep, jitter
        self._next = clock()  # earliest time of the next attempt
        self._reached = False
        self._schemas, self._max_tokens = True, "max_tokens"
        # Requests to this machine bypass the proxies of the environment.
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=min(_CONNECT_TIMEOUT, server.timeout)),
            limits=httpx.Limits(max_connections=server.concurrency),
            trust_env=not server.is_local,
            follow_redirects=False,
            headers={"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {server.key}"} if server.key else {}),
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chat client", daemon=True)
        self._thread.start()

    @property
    def schemas(self) -> bool:
        """Whether requests include their schema; False once the server has rejected one."""
        return self._schemas

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Cancel pending requests and close all connections; a second call does nothing."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel_all(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._http.aclose()

    def complete(self, request: ChatRequest) -> ChatReply:
        """Send a request and wait for its reply.

        Raises:
            ServerError: every request would fail: the server is unreachable, the key is wrong, or the model or path is
                unknown.
        """
        ((_, reply),) = self.complete_many([("", request)])
        return reply

    def complete_many(self, requests: Iterable[tuple[Key, ChatRequest]]) -> Iterator[tuple[Key, ChatReply]]:
        """Yield ``(key, reply)`` as replies arrive; ``requests`` is consumed no faster than it is sent.

        A failed request yields a reply with a ``status`` and does not affect the others.

        Raises:
            ServerError: as ``complete``, after the replies received so far.
        """
        source = iter(requests)
        pending: dict[concurrent.futures.Future[ChatReply], Key] = {}
        exhausted = False
        try:
            while True:
                while not exhausted and len(pending) < self.server.concurrency:
                    try:
                        key, request = next(source)
                    except StopIteration:
                        exhausted = True
                    else:
                        pending[asyncio.run_coroutine_threadsafe(self._complete(request), self._loop)] = key
                if not pending:
                    return
                done, _ = concurrent.futures.wait(pending, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in sorted(done, key=lambda future: future.exception() is not None):
                    key = pending.pop(future)
                    yield key, future.result()
        finally:
            for future in pending:
                future.cancel()

    # --- one request ----------------------------------------------------------------------------------------------

    async def _complete(self, request: ChatRequest) -> ChatReply:
        started = self._clock()
        attempt = 0
        while True:
            attempt += 1
            await self._throttle()
            variant = self._variant()
            try:
                async with asyncio.timeout(self.server.timeout):
                    status, retry_seconds, body = await self._post(self._body(request))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if not self._reached or attempt > self.server.retries:
                    raise ServerError(self._unreachable(error)) from error
                await self._sleep(self._backoff(attempt))
                continue
            except (TimeoutError, httpx.TimeoutException):
                reply = self._failure("timeout", f"no reply within {self.server.timeout:g} s: raise the timeout")
            except httpx.HTTPError as error:
                reply = self._failure("dropped", f"the connection broke ({error or type(error).__name__})")
            else:
                self._reached = True
                if status == 200:
                    reply = read_reply(body)
                    if reply.status in ("bad_reply", "server_error"):
                        reply = self._failure(reply.status, f"{reply.reason} (it is: {self._quoted(body)})")
                elif status in (400, 422, 501) and self._adapts(body, request, variant):
                    attempt -= 1
                    continue
                else:
                    reply = self._error(status, body)
                    if reply.status not in RETRYABLE:
                        retry_seconds = 0
                    elif retry_seconds > _MAX_RETRY_AFTER:
                        reason = f"the server asks to wait {retry_seconds:.0f} s: try again then ({reply.reason})"
                        return self._timed(self._failure(reply.status, reason), started, attempt)
                    self._next = max(self._next, self._clock() + retry_seconds)
            if reply.status not in RETRYABLE or attempt > self.server.retries:
                return self._timed(reply, started, attempt)
            await self._sleep(self._backoff(attempt))

    def _timed(self, reply: ChatReply, started: float, attempts: int) -> ChatReply:
        return replace(reply, seconds=self._clock() - started, attempts=attempts)

    async def _throttle(self) -> None:
        """Wait for the next free time slot of ``per_minute`` and ``Retry-After``."""
        now = self._clock()
        start = max(now, self._next)
        self._next = start + (60 / self.server.per_minute if self.server.per_minute else 0)
        if start > now:
            await self._sleep(start - now)

    def _backoff(self, attempt: int) -> float:
        return min(_FIRST_BACKOFF * 2 ** (attempt - 1), _MAX_BACKOFF) * (0.5 + self._jitter() / 2)

    def _variant(self) -> tuple[bool, str]:
        return self._schemas, self._max_tokens

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.server.model,
            "messages": request.messages,
            self._max_tokens: request.max_tokens,
            "temperature": request.temperature,
        }
        if request.seed is not None:
            body["seed"] = request.seed
        if request.schema is not None and self._schemas:
            form = {"name": "answer", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body

    async def _post(self, body: dict[str, Any]) -> tuple[int, float, bytes]:
        """Return the status, the seconds of ``Retry-After``, and the body, read up to just above the limit."""
        async with self._http.stream("POST", self.server.endpoint, json=body) as response:
            parts = bytearray()
            async for part in response.aiter_bytes():
                parts += part
                if len(parts) > MAX_REPLY_BYTES:
                    break
            return response.status_code, retry_after(response.headers.get("retry-after", "")), bytes(parts)

    def _adapts(self, body: bytes, request: ChatRequest, variant: tuple[bool, str]) -> bool:
        """Whether the server rejects an optional parameter, which is then dropped or renamed from now on."""
        if variant != self._variant():
            return True  # another request has just found out
        text = body[:MAX_REPLY_BYTES].decode(errors="replace")
        if self._max_tokens == "max_tokens" and _NO_MAX_TOKENS.search(text):
            self._max_tokens = "max_completion_tokens"
        elif request.schema is not None and self._schemas and _NO_SCHEMA.search(text):
            self._schemas = False
        return variant != self._variant()

    def _error(self, status: int, body: bytes) -> ChatReply:
        quoted = self._quoted(body)
        if status in (401, 403):
            raise ServerError(f"{self.server.url} refused access ({status}: {quoted}). Check the key.")
        if status in (404, 405):
            raise ServerError(
                f"{self.server.endpoint} or the model {self.server.model!r} does not exist ({status}: {quoted}). "
                "Check both; the URL usually ends in /v1."
            )
        if 300 <= status < 400:
            raise ServerError(f"{self.server.url} redirects ({status}), which is not followed: use the new URL.")
        if status in (408, 425, 429):
            return self._failure("busy", f"{status}: {quoted}")
        if status >= 500:
            return self._failure("server_error", f"{status}: {quoted}")
        return replace(self._failure("refused", f"{status}: {quoted}"), code=_code(body))

    def _quoted(self, body: bytes) -> str:
        """Return the server's message on one short line, without the key."""
        text = body[: 16 * _MAX_QUOTED].decode(errors="replace")
        try:
            value = json.loads(body)
            for name in ("error", "message", "detail"):
                value = value.get(name, value) if isinstance(value, dict) else value
            text = value if isinstance(value, str) else json.dumps(value)
        except (ValueError, RecursionError):
            pass
        if self.server.key:
            text = text.replace(self.server.key, "[key]")
        text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
        return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…"

    def _unreachable(self, error: Exception) -> str:
        if self._reached:
            return f"{self.server.url} no longer answers ({error or type(error).__name__}). Restart it and run again."
        return (
            f"no server answers at {self.server.url} ({error or type(error).__name__}). Start the server, for example "
            f"`vllm serve {self.server.model}` or `transformers serve {self.server.model}`, or correct the URL."
        )

    @staticmethod
    def _failure(status: Status, reason: str) -> ChatReply:
        return ChatReply("", status=status, reason=reason)


def _code(body: bytes) -> str:
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ""
    return code if isinstance(code, str) else ""
