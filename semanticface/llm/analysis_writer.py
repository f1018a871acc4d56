"""Stage I by a language model: it writes the analysis, the numbers decide whether that stands.

A reply is kept if it has the right form, contradicts no coefficient and leaves little unsaid (``stage1_prompt.judge``).
Otherwise the model is told what was wrong and asked again with another seed; after the last attempt the rule-written
analysis of ``semantics.describe`` takes its place, and the row says why. Replies are kept by what was asked
(``chat_cache``), so a run that was stopped goes on without asking anything twice.

A run of Stage I by a language model, as a person starts one: who writes, what it will cost, whether faces may leave.

Coefficients of a real face are personal data. A server on this machine is asked freely; any other only where it is said
that they may leave (``Choice.remote``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from semanticface.config import check_range
from semanticface.errors import ConfigError, ServerError
from semanticface.llm.analysis_prompt import PROMPT, build_request, form_sha256, judge
from semanticface.llm.chat import ChatReply, ChatRequest, ChatServer, read_key
from semanticface.llm.reply_cache import ReplyCache, request_key
from semanticface.prompts import load_prompt
from semanticface.semantics.analysis import Analysis, describe

RULES = "rules"
"""Who wrote an analysis that no model did."""
_HOPELESS = 20  # failed requests in a row after which the rest would fail as well


class Chat(Protocol):
    """Who is asked: a ``chat_client.ChatClient`` or a ``local_chat.LocalChat``."""

    def complete_many(self, requests: Iterable[tuple[str, ChatRequest]]) -> Iterator[tuple[str, ChatReply]]: ...


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """How a model is asked.

    Attributes:
        attempts: how often for one face, the first time included.
        temperature: 0 would give the same answer to the same question.
        seed: of the first attempt; each further one has the next.
        max_tokens: where a reply is cut; an analysis has 150 to 400.
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
        """Return what is asked about a [52] vector at an attempt, from 1."""
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
    """The analysis of one face and where it comes from.

    Attributes:
        analysis: the words.
        writer: the model's name, or ``RULES``.
        attempts: how often the model was asked.
        fallback: why the rules stand in: the last ``Verdict.code`` or ``ChatReply.status``, a colon, and details; empty
            where the model's words stand.
    """

    analysis: Analysis
    writer: str
    attempts: int
    fallback: str = ""


@dataclass(slots=True)
class Tally:
    """What has happened so far.

    Attributes:
        kept: rows by the attempt, from 1, whose words stand.
        fallbacks: rows by the code why the rules stand in.
        wrong: attempts by the code of what was wrong with them, those included that were followed by a better one.
        asked: replies that the model was asked for.
        remembered: replies that were in the cache.
        tokens_in, tokens_out: of the replies asked for, as far as the server counts.
    """

    kept: Counter[int] = field(default_factory=Counter)
    fallbacks: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    remembered: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def short(self) -> str:
        """Return it in a few words, for a progress bar."""
        return f"{self.kept.total()} by the model, {self.fallbacks.total()} by rules"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "by_model": {str(attempt): count for attempt, count in sorted(self.kept.items())},
            "by_rules": dict(self.fallbacks),
            "attempts_that_failed": dict(self.wrong),
        }

    def __str__(self) -> str:
        """Return it in words, in two lines."""
        by_model, by_rules = self.kept.total(), self.fallbacks.total()
        first = self.kept[1]
        reasons = ", ".join(f"{count} {_CODES.get(code, code)}" for code, count in self.fallbacks.most_common())
        wrong = ", ".join(f"{count} {_CODES.get(code, code)}" for code, count in self.wrong.most_common())
        lines = [
            f"{by_model} of {by_model + by_rules} written by the model ({first} at the first attempt, "
            f"{by_model - first} at a later one), {by_rules} by rules" + (f" ({reasons})" if reasons else ""),
            f"{self.asked} replies asked for, {self.remembered} remembered; {self.tokens_in:,} tokens in, "
            f"{self.tokens_out:,} out" + (f"; attempts that failed: {wrong}" if wrong else ""),
        ]
        return "\n".join(lines)


_CODES = {
    "form": "not in the form asked for",
    "contradicts": "contradicting the numbers",
    "omits": "leaving too much unsaid",
    "server_error": "failed by the server",
    "bad_reply": "unreadable",
    "too_large": "too large",
}


@dataclass(slots=True)
class _Face:
    index: int
    coefficients: np.ndarray
    attempt: int = 1
    problems: tuple[str, ...] = ()


class LanguageWriter:
    """Writes the analyses of many faces.

    Args:
        chat: who is asked.
        name: of the model; part of every key of the cache, and written into each row.
        settings: how it is asked.
        cache: where replies are kept; None keeps none.
    """

    def __init__(
        self, chat: Chat, name: str, settings: WriterSettings | None = None, cache: ReplyCache | None = None
    ) -> None:
        self.name = name
        self.settings = settings or WriterSettings()
        self.tally = Tally()
        self._chat, self._cache = chat, cache
        self._failed_in_a_row = 0

    def record(self) -> dict[str, Any]:
        """Return who writes and how they are asked, for the file beside what is written."""
        prompt = load_prompt(PROMPT, emotion=self.settings.emotion)
        asked = {"name": prompt.name, "version": prompt.version, "sha256": form_sha256(emotion=self.settings.emotion)}
        return {"writer": self.name, "prompt": asked, "settings": dataclasses.asdict(self.settings)}

    def write(self, faces: Sequence[np.ndarray], advance: Callable[[], object] = lambda: None) -> list[WrittenAnalysis]:
        """Return what is written of each [52] vector, in their order.

        Args:
            faces: vectors of coefficients in [0, 1].
            advance: called whenever one is done.

        Raises:
            ServerError: nothing more can be had from the server; replies received until then are in the cache.
        """
        out: list[WrittenAnalysis | None] = [None] * len(faces)
        ready = deque(_Face(index, face) for index, face in enumerate(faces))
        waiting: dict[str, list[_Face]] = {}

        def settle(face: _Face, reply: ChatReply) -> None:
            written = self._settle(face, reply)
            if written is None:
                ready.append(face)
            else:
                out[face.index] = written
                advance()

        def unknown() -> Iterator[tuple[str, ChatRequest]]:
            """The requests whose reply is neither in the cache nor under way."""
            while ready:
                face = ready.popleft()
                request = self.settings.request(face.coefficients, face.attempt, face.problems)
                key = request_key(self.name, request)
                if key in waiting:
                    waiting[key].append(face)
                    continue
                reply = self._cache.get(key) if self._cache else None
                if reply is not None:
                    self.tally.remembered += 1
                    settle(face, reply)
                    continue
                waiting[key] = [face]
                yield key, request

        while ready:  # replies to the last requests drawn may leave more to ask
            for key, reply in self._chat.complete_many(unknown()):
                self._received(key, reply)
                for face in waiting.pop(key):
                    settle(face, reply)
        return [written for written in out if written is not None]

    def _received(self, key: str, reply: ChatReply) -> None:
        self.tally.asked += 1
        self.tally.tokens_in += reply.tokens_in
        self.tally.tokens_out += reply.tokens_out
        if reply.status == "ok":
            self._failed_in_a_row = 0
            if self._cache is not None:
                self._cache.put(key, reply)
            return
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= _HOPELESS:
            raise ServerError(f"the last {_HOPELESS} requests failed ({reply.status}: {reply.reason}). Look after it.")

    def _settle(self, face: _Face, reply: ChatReply) -> WrittenAnalysis | None:
        """Return what stands of a face; None if the model is to be asked again."""
        if reply.status != "ok":  # the client has tried often enough
            return self._by_rules(face, reply.status, reply.reason)
        emotion = self.settings.emotion
        verdict = judge(reply.text, face.coefficients, emotion=emotion, cut=reply.finish == "length")
        if verdict.analysis is not None:
            self.tally.kept[face.attempt] += 1
            return WrittenAnalysis(verdict.analysis, self.name, face.attempt)
        if face.attempt >= self.settings.attempts:
            return self._by_rules(face, verdict.code, "; ".join(verdict.problems))
        self.tally.wrong[verdict.code] += 1
        face.attempt += 1
        face.problems = verdict.problems
        return None

    def _by_rules(self, face: _Face, code: str, details: str) -> WrittenAnalysis:
        self.tally.wrong[code] += 1
        self.tally.fallbacks[code] += 1
        analysis = describe(face.coefficients, emotion=self.settings.emotion)
        return WrittenAnalysis(analysis, RULES, face.attempt, f"{code}: {details}")


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
