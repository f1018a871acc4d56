"""A client for any server that speaks OpenAI's chat completions: vLLM, llama.cpp, ``transformers serve``, hosted ones.

Many requests go out at once, up to a limit; what fails for a reason that may pass is tried again; what would fail for
every request (nobody there, a wrong key, an unknown model) stops the work with one error. The calls are synchronous;
inside, one thread runs an event loop, so that Ctrl-C ends everything at once, however long a model would have thought.
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
    PASSING,
    ChatReply,
    ChatRequest,
    ChatServer,
    Status,
    picture_part,
    read_reply,
    retry_after,
)

__all__ = ["ChatClient", "ChatReply", "ChatRequest", "ChatServer", "picture_part"]

LONGEST_WAIT = 600.0
"""Seconds; a server that asks for more patience (``Retry-After``) is not waited for."""

_FIRST_WAIT, _MOST_WAIT = 1.0, 60.0  # seconds of the doubling wait between attempts
_CONNECT = 10.0  # seconds to reach a server, however long it may then take to answer
_SAID = 300  # characters of a server's own words that are passed on
_NO_SCHEMA = re.compile(r"response_format|json_schema|schema|guided|structured|grammar", re.IGNORECASE)
_NO_MAX_TOKENS = re.compile(r"max_completion_tokens")

Key = TypeVar("Key", bound=Hashable)


class ChatClient:
    """Asks a server, many requests at a time. Use it as a context manager, or ``close`` it.

    Args:
        server: where, and the limits.
        clock: seconds that only go forward.
        sleep: how to wait; given with ``clock`` by tests, which have no time.
        jitter: a random number in [0, 1), which spreads the attempts of many clients.
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
        self._next = clock()  # when the next attempt may go out
        self._reached = False
        self._schemas, self._max_tokens = True, "max_tokens"
        # Proxies of the environment are for the world outside: this machine is asked directly.
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=min(_CONNECT, server.timeout)),
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
        """Whether requests still carry their schema; False once the server has said that it cannot follow one."""
        return self._schemas

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Break off what is under way and let go of every connection; a second call does nothing."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._http.aclose()

    def complete(self, request: ChatRequest) -> ChatReply:
        """Ask once and wait for the reply.

        Raises:
            ServerError: every request would fail: nobody is there, the key is wrong, or the model or the path unknown.
        """
        ((_, reply),) = self.complete_many([("", request)])
        return reply

    def complete_many(self, requests: Iterable[tuple[Key, ChatRequest]]) -> Iterator[tuple[Key, ChatReply]]:
        """Yield ``(key, reply)`` as replies come in; requests are drawn as there is room for them.

        A request that fails has its reply with a ``status``; the others go on.

        Raises:
            ServerError: as ``complete``; replies that were there by then have been yielded.
        """
        source = iter(requests)
        waiting: dict[concurrent.futures.Future[ChatReply], Key] = {}
        more = True
        try:
            while True:
                while more and len(waiting) < self.server.concurrency:
                    try:
                        key, request = next(source)
                    except StopIteration:
                        more = False
                    else:
                        waiting[asyncio.run_coroutine_threadsafe(self._ask(request), self._loop)] = key
                if not waiting:
                    return
                done, _ = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in sorted(done, key=lambda future: future.exception() is not None):
                    key = waiting.pop(future)
                    yield key, future.result()
        finally:
            for future in waiting:
                future.cancel()

    # --- one request ----------------------------------------------------------------------------------------------

    async def _ask(self, request: ChatRequest) -> ChatReply:
        began = self._clock()
        attempt = 0
        while True:
            attempt += 1
            await self._turn()
            shape = self._shape()
            try:
                async with asyncio.timeout(self.server.timeout):
                    status, wait_for, body = await self._post(self._body(request))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if not self._reached or attempt > self.server.retries:
                    raise ServerError(self._nobody(error)) from error
                await self._sleep(self._pause(attempt))
                continue
            except (TimeoutError, httpx.TimeoutException):
                reply = self._failed("timeout", f"no answer within {self.server.timeout:g} s: allow more, or ask less")
            except httpx.HTTPError as error:
                reply = self._failed("dropped", f"the connection broke ({error or type(error).__name__})")
            else:
                self._reached = True
                if status == 200:
                    reply = read_reply(body)
                    if reply.status in ("bad_reply", "server_error"):
                        reply = self._failed(reply.status, f"{reply.reason} (it is: {self._said(body)})")
                elif status in (400, 422, 501) and self._yields(body, request, shape):
                    attempt -= 1
                    continue
                else:
                    reply = self._refused(status, body)
                    if reply.status not in PASSING:
                        wait_for = 0
                    elif wait_for > LONGEST_WAIT:
                        told = f"the server asks to wait {wait_for:.0f} s: come back then ({reply.reason})"
                        return self._timed(self._failed(reply.status, told), began, attempt)
                    self._next = max(self._next, self._clock() + wait_for)
            if reply.status not in PASSING or attempt > self.server.retries:
                return self._timed(reply, began, attempt)
            await self._sleep(self._pause(attempt))

    def _timed(self, reply: ChatReply, began: float, attempts: int) -> ChatReply:
        return replace(reply, seconds=self._clock() - began, attempts=attempts)

    async def _turn(self) -> None:
        """Wait until an attempt may go out; each takes its own place in the line."""
        now = self._clock()
        start = max(now, self._next)
        self._next = start + (60 / self.server.per_minute if self.server.per_minute else 0)
        if start > now:
            await self._sleep(start - now)

    def _pause(self, attempt: int) -> float:
        return min(_FIRST_WAIT * 2 ** (attempt - 1), _MOST_WAIT) * (0.5 + self._jitter() / 2)

    def _shape(self) -> tuple[bool, str]:
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
        """Return the status, the seconds the server asks to wait, and the reply's bytes, one more than allowed."""
        async with self._http.stream("POST", self.server.endpoint, json=body) as response:
            parts = bytearray()
            async for part in response.aiter_bytes():
                parts += part
                if len(parts) > MAX_REPLY_BYTES:
                    break
            return response.status_code, retry_after(response.headers.get("retry-after", "")), bytes(parts)

    def _yields(self, body: bytes, request: ChatRequest, shape: tuple[bool, str]) -> bool:
        """Whether the server refuses a form that can be left out; then it is left out from now on."""
        if shape != self._shape():
            return True  # another request has just found out
        said = body[:MAX_REPLY_BYTES].decode(errors="replace")
        if self._max_tokens == "max_tokens" and _NO_MAX_TOKENS.search(said):
            self._max_tokens = "max_completion_tokens"
        elif request.schema is not None and self._schemas and _NO_SCHEMA.search(said):
            self._schemas = False
        return shape != self._shape()

    def _refused(self, status: int, body: bytes) -> ChatReply:
        said = self._said(body)
        if status in (401, 403):
            raise ServerError(f"{self.server.url} does not let us in ({status}: {said}). Check the key.")
        if status in (404, 405):
            raise ServerError(
                f"{self.server.endpoint} or the model {self.server.model!r} is not there ({status}: {said}). "
                "Check both; the URL usually ends in /v1."
            )
        if 300 <= status < 400:
            raise ServerError(f"{self.server.url} sends us elsewhere ({status}), which is not followed: give that URL.")
        if status in (408, 425, 429):
            return self._failed("busy", f"{status}: {said}")
        if status >= 500:
            return self._failed("server_error", f"{status}: {said}")
        return replace(self._failed("refused", f"{status}: {said}"), code=_code(body))

    def _said(self, body: bytes) -> str:
        """Return the server's words, on one line, short, without the key."""
        text = body[: 16 * _SAID].decode(errors="replace")
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
        return text if len(text) <= _SAID else f"{text[:_SAID]}…"

    def _nobody(self, error: Exception) -> str:
        if self._reached:
            return f"{self.server.url} no longer answers ({error or type(error).__name__}). Start it again and go on."
        return (
            f"nobody answers at {self.server.url} ({error or type(error).__name__}). Start the server, for example "
            f"`vllm serve {self.server.model}` or `transformers serve {self.server.model}`, or correct the URL."
        )

    @staticmethod
    def _failed(status: Status, reason: str) -> ChatReply:
        return ChatReply("", status=status, reason=reason)


def _code(body: bytes) -> str:
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ""
    return code if isinstance(code, str) else ""
