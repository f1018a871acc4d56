"""Stage I by a language model: the model writes each analysis, the coefficients decide whether it is accepted.

A reply is accepted if it has the right form, contradicts no coefficient and leaves little out
(``analysis_prompt.judge``). Otherwise the model gets the list of problems and is asked again with the next seed; after
the last attempt the rule-based analysis of ``semantics.analysis.describe`` is used, and the row says why. Replies are
cached by request (``reply_cache``), so an interrupted run resumes without repeating a request.

Coefficients of a real face are personal data: a server on another machine must be allowed explicitly
(``WriterSpec.remote``).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from semanticface.config import check_range
from semanticface.errors import ConfigError, ServerError
from semanticface.llm.analysis_prompt import PROMPT, build_request, judge, prompt_sha256
from semanticface.llm.chat import ChatReply, ChatRequest, ChatServer, read_key
from semanticface.llm.reply_cache import ReplyCache, request_key
from semanticface.prompts import load_prompt
from semanticface.semantics.analysis import Analysis, describe

RULES = "rules"
"""The ``writer`` of a rule-based analysis."""
_MAX_CONSECUTIVE_FAILURES = 20  # then every further request is expected to fail too


class ChatBackend(Protocol):
    """What answers the requests: ``client.ChatClient`` or ``local.LocalChat``."""

    def complete_many(self, requests: Iterable[tuple[str, ChatRequest]]) -> Iterator[tuple[str, ChatReply]]: ...


@dataclass(frozen=True, slots=True)
class WriterSpec:
    """Which language model writes.

    Attributes:
        writer: an API's URL, or what ``local.LocalChat`` loads: a folder, a ``.gguf`` file, a hub id.
        model: the model's name at that URL; None for a local model.
        key_env: the environment variable with the server's API key; None if it needs none.
        concurrency: simultaneous requests, or the batch size of a local model.
        timeout: seconds for one attempt at a request.
        per_minute: maximum number of attempts per minute; None sets no limit.
        remote: whether coefficients may be sent to another machine.

    Raises:
        ConfigError: a URL without a model or a model without a URL, a missing key, a server on another machine without
            ``remote``, or one that ``ChatServer`` refuses.
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
                raise ConfigError(f"{self.writer} is not a URL: remove the model name, the key and the rate limit")
            return
        server = self.server()
        if not server.is_local and not self.remote:
            raise ConfigError(
                f"{server.url} is another machine, and coefficients of a real face are personal data. If these faces "
                "are rendered, or everybody in them has consented, add --allow-remote."
            )

    @property
    def is_server(self) -> bool:
        """Whether the model is behind a server."""
        return "://" in self.writer

    @property
    def is_local(self) -> bool:
        """Whether no data leaves this machine."""
        return not self.is_server or self.server().is_local

    @property
    def name(self) -> str:
        """The model's name, as written into rows."""
        return self.model or self.writer

    def server(self) -> ChatServer:
        """Return the server."""
        if not self.model:
            raise ConfigError(f"{self.writer}: name the model on this server (--writer-model)")
        return ChatServer(
            self.writer,
            self.model,
            read_key(self.key_env),
            timeout=self.timeout,
            concurrency=self.concurrency,
            per_minute=self.per_minute,
        )


@contextlib.contextmanager
def open_chat(spec: WriterSpec) -> Iterator[ChatBackend]:
    """Yield the client of a server, or a loaded local model.

    Raises:
        ModelError: a local model does not load.
    """
    if spec.is_server:
        from semanticface.llm.client import ChatClient

        with ChatClient(spec.server()) as client:
            yield client
    else:
        from semanticface.llm.local import LocalChat

        yield LocalChat(spec.writer, batch=spec.concurrency)


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """How a model is asked.

    Attributes:
        attempts: maximum number of attempts per face, the first included.
        temperature: of the sampling; 0 always gives the same reply to the same request.
        seed: of the first attempt; each further attempt uses the next one.
        max_tokens: maximum length of a reply; an analysis has 150 to 400 tokens.
        emotion: whether to ask for ``emotional_implication``.
    """

    attempts: int = 3
    temperature: float = 0.7
    seed: int = 0
    max_tokens: int = 800
    emotion: bool = True

    def __post_init__(self) -> None:
        check_range("attempts", self.attempts, 1, 20)
        check_range("temperature", self.temperature, 0, 2)
        check_range("max_tokens", self.max_tokens, 1, 100_000)

    def request(self, coefficients: np.ndarray, attempt: int = 1, problems: tuple[str, ...] = ()) -> ChatRequest:
        """Return the request about a [52] vector at an attempt, counted from 1."""
        return build_request(
            coefficients,
            problems,
            emotion=self.emotion,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=self.seed + attempt - 1,
        )


@dataclass(frozen=True, slots=True)
class WrittenAnalysis:
    """The analysis of one face and its origin.

    Attributes:
        analysis: the analysis.
        writer: the model's name, or ``RULES``.
        attempts: how often the model was asked.
        fallback: why the rule-based analysis is used: the last ``Verdict.code`` or ``ChatReply.status``, a colon, and
            details; empty if the model's analysis was accepted.
    """

    analysis: Analysis
    writer: str
    attempts: int
    fallback: str = ""


@dataclass(slots=True)
class Tally:
    """Counts of a run.

    Attributes:
        accepted: rows written by the model, by attempt (from 1).
        fallbacks: rows written by rules, by code.
        failures: failed attempts by code, including those followed by a better one.
        requested: replies requested from the model.
        cached: replies found in the cache.
        tokens_in, tokens_out: of the requested replies, as counted by the server.
    """

    accepted: Counter[int] = field(default_factory=Counter)
    fallbacks: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    requested: int = 0
    cached: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def short(self) -> str:
        """Return a summary for a progress bar."""
        return f"{self.accepted.total()} by the model, {self.fallbacks.total()} by rules"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "by_model": {str(attempt): count for attempt, count in sorted(self.accepted.items())},
            "by_rules": dict(self.fallbacks),
            "attempts_that_failed": dict(self.failures),
        }

    def __str__(self) -> str:
        """Return a summary in two lines."""
        by_model, by_rules, first = self.accepted.total(), self.fallbacks.total(), self.accepted[1]
        fallbacks, failures = (
            ", ".join(f"{count} {_CODES.get(code, code)}" for code, count in counts.most_common())
            for counts in (self.fallbacks, self.failures)
        )
        return (
            f"{by_model} of {by_model + by_rules} written by the model ({first} at the first attempt, "
            f"{by_model - first} at a later one), {by_rules} by rules{f' ({fallbacks})' if fallbacks else ''}\n"
            f"{self.requested} replies requested, {self.cached} from the cache; {self.tokens_in:,} tokens in, "
            f"{self.tokens_out:,} out{f'; failed attempts: {failures}' if failures else ''}"
        )


_CODES = {
    "form": "not in the required form",
    "contradicts": "contradicting the coefficients",
    "omits": "leaving too much out",
    "server_error": "with a server error",
    "bad_reply": "unreadable",
    "too_large": "too large",
}


@dataclass(slots=True)
class _Face:
    index: int
    coefficients: np.ndarray
    attempt: int = 1
    problems: tuple[str, ...] = ()


class LanguageModelWriter:
    """Writes the analyses of many faces.

    Args:
        chat: answers the requests.
        name: of the model; part of every cache key, and written into each row.
        settings: how the model is asked.
        cache: of replies; None for no cache.
    """

    def __init__(
        self, chat: ChatBackend, name: str, settings: WriterSettings | None = None, cache: ReplyCache | None = None
    ) -> None:
        self.name = name
        self.settings = settings or WriterSettings()
        self.tally = Tally()
        self._chat, self._cache = chat, cache
        self._consecutive_failures = 0

    def record(self) -> dict[str, Any]:
        """Return the model, prompt and settings, for the file next to the output."""
        prompt = load_prompt(PROMPT, emotion=self.settings.emotion)
        sha256 = prompt_sha256(emotion=self.settings.emotion)
        return {
            "writer": self.name,
            "prompt": {"name": prompt.name, "version": prompt.version, "sha256": sha256},
            "settings": dataclasses.asdict(self.settings),
        }

    def write(self, faces: Sequence[np.ndarray], advance: Callable[[], object] = lambda: None) -> list[WrittenAnalysis]:
        """Return the analysis of each [52] vector, in order.

        Args:
            faces: vectors of coefficients in [0, 1].
            advance: called after each finished face.

        Raises:
            ServerError: the server no longer answers; replies received so far are in the cache.
        """
        out: list[WrittenAnalysis | None] = [None] * len(faces)
        queue = deque(_Face(index, face) for index, face in enumerate(faces))
        pending: dict[str, list[_Face]] = {}  # equal faces share a request

        def handle(face: _Face, reply: ChatReply) -> None:
            result = self._result(face, reply)
            if result is None:
                queue.append(face)
            else:
                out[face.index] = result
                advance()

        def new_requests() -> Iterator[tuple[str, ChatRequest]]:
            """Yield the requests whose reply is neither cached nor pending."""
            while queue:
                face = queue.popleft()
                request = self.settings.request(face.coefficients, face.attempt, face.problems)
                key = request_key(self.name, request)
                if key in pending:
                    pending[key].append(face)
                    continue
                reply = self._cache.get(key) if self._cache else None
                if reply is not None:
                    self.tally.cached += 1
                    handle(face, reply)
                    continue
                pending[key] = [face]
                yield key, request

        while queue:  # the replies to the last requests may need further attempts
            for key, reply in self._chat.complete_many(new_requests()):
                self._receive(key, reply)
                for face in pending.pop(key):
                    handle(face, reply)
        return [result for result in out if result is not None]

    def _receive(self, key: str, reply: ChatReply) -> None:
        self.tally.requested += 1
        self.tally.tokens_in += reply.tokens_in
        self.tally.tokens_out += reply.tokens_out
        if reply.status == "ok":
            self._consecutive_failures = 0
            if self._cache is not None:
                self._cache.put(key, reply)
            return
        self._consecutive_failures += 1
        if self._consecutive_failures >= _MAX_CONSECUTIVE_FAILURES:
            raise ServerError(
                f"the last {_MAX_CONSECUTIVE_FAILURES} requests failed ({reply.status}: {reply.reason}). "
                "Check the server."
            )

    def _result(self, face: _Face, reply: ChatReply) -> WrittenAnalysis | None:
        """Return the result for a face; None if the model is to be asked again."""
        if reply.status != "ok":  # the client has already retried
            return self._by_rules(face, reply.status, reply.reason)
        emotion = self.settings.emotion
        verdict = judge(reply.text, face.coefficients, emotion=emotion, cut=reply.finish == "length")
        if verdict.analysis is not None:
            self.tally.accepted[face.attempt] += 1
            return WrittenAnalysis(verdict.analysis, self.name, face.attempt)
        if face.attempt >= self.settings.attempts:
            return self._by_rules(face, verdict.code, "; ".join(verdict.problems))
        self.tally.failures[verdict.code] += 1
        face.attempt += 1
        face.problems = verdict.problems
        return None

    def _by_rules(self, face: _Face, code: str, details: str) -> WrittenAnalysis:
        self.tally.failures[code] += 1
        self.tally.fallbacks[code] += 1
        analysis = describe(face.coefficients, emotion=self.settings.emotion)
        return WrittenAnalysis(analysis, RULES, face.attempt, f"{code}: {details}")
