"""A run of Stage I by a language model, as a person starts one: who writes, what it will cost, whether faces may leave.

Coefficients of a real face are personal data. A server on this machine is asked freely; any other only where it is said
that they may leave (``Choice.remote``).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from semanticface.errors import ConfigError
from semanticface.llm.analysis_writer import Chat, WriterSettings
from semanticface.llm.chat import ChatServer, read_key
from semanticface.llm.reply_cache import ReplyCache, request_key
from semanticface.semantics.analysis import describe

CHARACTERS_PER_TOKEN = 3.5
"""Of prompts and analyses alike: 2,199 characters of a prompt are 628 tokens of SmolLM2, chat template included."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Who writes.

    Attributes:
        writer: an API's URL, or what ``local_chat.LocalChat`` loads: a folder, a ``.gguf`` file, a hub id.
        model: the model's name at that URL; None elsewhere.
        key_env: the environment variable that holds the server's key; None where it wants none.
        concurrency: requests under way at once, or answered side by side.
        timeout: seconds for one attempt at a request.
        per_minute: most attempts a minute; None sets no limit.
        remote: whether what is known of faces may go to another machine.

    Raises:
        ConfigError: a URL without a model or a model without a URL, a key that is not there, a server that is not this
            machine where faces may not leave, or one that ``ChatServer`` refuses.
    """

    writer: str
    model: str | None = None
    key_env: str | None = None
    concurrency: int = 4
    timeout: float = 120.0
    per_minute: float | None = None
    remote: bool = False

    def __post_init__(self) -> None:
        if not self.is_server:
            if self.model or self.key_env or self.per_minute:
                raise ConfigError(f"{self.writer} is no URL: a model's name there, a key or a limit says nothing here")
            return
        server = self.server()
        if not server.is_local and not self.remote:
            raise ConfigError(
                f"{server.url} is another machine, and coefficients of a real face are personal data. If these faces "
                "are drawn, or everybody in them agreed to it, say so with --allow-remote."
            )

    @property
    def is_server(self) -> bool:
        """Whether a server is asked."""
        return "://" in self.writer

    @property
    def is_here(self) -> bool:
        """Whether nothing leaves this machine."""
        return not self.is_server or self.server().is_local

    @property
    def name(self) -> str:
        """The model's name, as rows have it."""
        return self.model or self.writer

    def server(self) -> ChatServer:
        """Return the server to ask."""
        if not self.model:
            raise ConfigError(f"{self.writer}: name the model to ask there (--writer-model)")
        return ChatServer(
            self.writer,
            self.model,
            read_key(self.key_env),
            timeout=self.timeout,
            concurrency=self.concurrency,
            per_minute=self.per_minute,
        )


@contextlib.contextmanager
def open_chat(choice: Choice) -> Iterator[Chat]:
    """Yield who is asked.

    Raises:
        ModelError: a local model does not load.
    """
    if choice.is_server:
        from semanticface.llm.client import ChatClient

        with ChatClient(choice.server()) as client:
            yield client
    else:
        from semanticface.llm.local import LocalChat

        yield LocalChat(choice.writer, batch=choice.concurrency)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will ask.

    Attributes:
        rows: faces.
        remembered: of them, those whose first reply is in the cache.
        requests: first requests that are to be made; equal faces share one.
        tokens_in, tokens_out: of these requests and of replies as long as the rules' own words.
        attempts: how often each may be asked.
    """

    rows: int
    remembered: int
    requests: int
    tokens_in: int
    tokens_out: int
    attempts: int

    def told(self, prices: tuple[float, float] | None = None) -> str:
        """Return it in words.

        Args:
            prices: of a million tokens in and of a million out, in any currency.
        """
        known = f", {self.remembered:,} of them answered in the cache" if self.remembered else ""
        lines = [
            f"{self.rows:,} faces{known}: {self.requests:,} requests if every first answer stands, "
            f"about {self.tokens_in:,} tokens in and {self.tokens_out:,} out; "
            f"at most {self.attempts} times that if none does."
        ]
        if prices is not None:
            cost = (self.tokens_in * prices[0] + self.tokens_out * prices[1]) / 1e6
            lines.append(f"At these prices: {cost:,.2f}, at most {cost * self.attempts:,.2f}.")
        return "\n".join(lines)


def estimate(faces: Iterable[np.ndarray], name: str, settings: WriterSettings, cache: ReplyCache) -> Estimate:
    """Return what writing about [52] vectors will take, from the prompts as they will be sent."""
    seen: set[str] = set()
    rows = remembered = characters_in = characters_out = 0
    for face in faces:
        rows += 1
        request = settings.request(face)
        key = request_key(name, request)
        if cache.get(key) is not None:
            remembered += 1
        elif key not in seen:
            seen.add(key)
            characters_in += sum(len(message["content"]) for message in request.messages)
            characters_out += len(json.dumps(describe(face, emotion=settings.emotion).to_dict()))
    tokens_in, tokens_out = (round(count / CHARACTERS_PER_TOKEN) for count in (characters_in, characters_out))
    return Estimate(rows, remembered, len(seen), tokens_in, tokens_out, settings.attempts)
