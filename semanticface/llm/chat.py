"""Requests to a chat server and its replies, in the format of OpenAI's chat completions."""

from __future__ import annotations

import base64
import email.utils
import ipaddress
import json
import os
import re
import time
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Literal

import httpx
from PIL import Image

from semanticface.errors import ConfigError
from semanticface.vision.image_io import encode_jpeg, load_picture

MAX_REPLY_BYTES = 8 * 2**20
"""Longer replies are not read to the end; a full answer has about 2 kB."""


@dataclass(frozen=True, slots=True)
class ChatServer:
    """Address and limits of a chat server.

    Attributes:
        url: the API's root, such as ``http://127.0.0.1:8000/v1``; without a path, ``/v1`` is added.
        model: the model's name on the server.
        key: the API key, sent as ``Authorization: Bearer``; never printed. Callers read it from the environment.
        timeout: seconds for one whole attempt.
        concurrency: simultaneous requests.
        retries: further attempts after a temporary failure.
        per_minute: maximum number of attempts per minute, evenly spaced; None sets no limit.

    Raises:
        ConfigError: an invalid URL, a key that would be sent unencrypted, or a number out of range.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    timeout: float = 120.0
    concurrency: int = 4
    retries: int = 4
    per_minute: float | None = None

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            shown = self.url.rpartition("@")[2]  # without a possible password
            raise ConfigError(f"{shown!r} is not a URL ({error}): write it as http://127.0.0.1:8000/v1") from error
        if url.userinfo:
            raise ConfigError(f"the URL of {url.host} contains a password: pass the key in an environment variable")
        if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
            raise ConfigError(f"{self.url!r} is not the root of an API: write it as http://127.0.0.1:8000/v1")
        if not self.model:
            raise ConfigError(f"{self.url}: name the model on this server")
        if self.key and url.scheme == "http" and not self.is_local:
            raise ConfigError(f"{self.url}: the key would be sent unencrypted. Use https.")
        if not (self.key.isascii() and self.key.isprintable()) or self.key != self.key.strip():
            raise ConfigError("the key contains spaces or other invalid characters: copy it again")
        for name, value, low in (("timeout", self.timeout, 0.001), ("concurrency", self.concurrency, 1)):
            if not value >= low:
                raise ConfigError(f"{name} is {value}: it must be at least {low:g}")
        if self.retries < 0:
            raise ConfigError(f"retries is {self.retries}: it cannot be negative")
        if self.per_minute is not None and not self.per_minute > 0:
            raise ConfigError(f"per_minute is {self.per_minute}: it must be above 0")

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine."""
        host = httpx.URL(self.url).host
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")
        return address.is_loopback or address.is_unspecified

    @property
    def endpoint(self) -> str:
        """The full URL of chat completions."""
        root = self.url.rstrip("/").removesuffix("/chat/completions")
        if httpx.URL(root).path in ("", "/"):
            root += "/v1"
        return f"{root}/chat/completions"


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request.

    Attributes:
        messages: the chat in OpenAI's format.
        max_tokens: maximum length of the reply.
        schema: a JSON Schema for the reply, if the server supports it; see ``ChatClient.schemas``.
        temperature: of the sampling; 0 is greedy.
        seed: of the sampling, for servers that take one.
    """

    messages: list[dict[str, Any]]
    max_tokens: int
    schema: dict[str, Any] | None = None
    temperature: float = 0.0
    seed: int | None = None


Status = Literal["ok", "refused", "busy", "server_error", "timeout", "dropped", "too_large", "bad_reply"]

RETRYABLE: tuple[Status, ...] = ("busy", "server_error", "timeout", "dropped")
"""Temporary failures, which are retried."""


@dataclass(frozen=True, slots=True)
class ChatReply:
    """A reply, or the reason why there is none.

    Attributes:
        text: of the model; empty unless ``status`` is ``ok``.
        finish: the server's finish reason: ``stop``, ``length`` (cut at ``max_tokens``) or another.
        tokens_in, tokens_out: as counted by the server; 0 if it does not say.
        seconds: from the first attempt to the end, waiting included.
        status: ``ok``; ``refused`` (the server rejects this request), ``busy``, ``server_error``, ``timeout``,
            ``dropped`` (the connection broke), all after the last attempt; ``too_large``, ``bad_reply``.
        reason: details of a failure; empty if ``ok``.
        code: the server's error code, such as ``no_face``; empty if it gives none.
        attempts: how often the request was sent.
    """

    text: str
    finish: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    status: Status = "ok"
    reason: str = ""
    code: str = ""
    attempts: int = 1


def read_key(variable: str | None) -> str:
    """Return the key in an environment variable; empty if no variable is named.

    Raises:
        ConfigError: the variable is not set.
    """
    key = "" if variable is None else os.environ.get(variable, "").strip()
    if variable is not None and not key:
        raise ConfigError(f"the environment variable {variable} is not set: put the server's key there")
    return key


def image_part(
    picture: str | os.PathLike[str] | bytes | Image.Image, *, format: Literal["PNG", "JPEG"] = "JPEG"
) -> dict[str, Any]:
    """Return an image part of a message: the picture re-encoded without metadata, as a data URI.

    Raises:
        PictureError: ``load_picture`` cannot read the picture.
    """
    image = load_picture(picture)
    if format == "JPEG":
        data = encode_jpeg(image)
    else:
        buffer = BytesIO()
        image.save(buffer, format)
        data = buffer.getvalue()
    url = f"data:image/{format.lower()};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def retry_after(text: str) -> float:
    """Return the seconds in a ``Retry-After`` header, a number or a date; 0 if it is neither."""
    text = text.strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def read_reply(body: bytes) -> ChatReply:
    """Parse a chat completion; on failure the status is ``too_large``, ``bad_reply`` or ``server_error``."""
    if len(body) > MAX_REPLY_BYTES:
        return ChatReply("", status="too_large", reason=f"the reply exceeds {MAX_REPLY_BYTES >> 20} MiB")
    try:
        value = json.loads(body)
        if isinstance(value, dict) and value.get("error") and not value.get("choices"):
            return ChatReply("", status="server_error", reason="an error with status 200")
        choice = value["choices"][0]
        content = choice["message"]["content"]
        usage = value.get("usage") or {}
        if isinstance(content, list):  # some servers reply in parts
            content = "".join(part["text"] for part in content if part.get("type") == "text")
        finish, counts = choice.get("finish_reason"), [usage.get(f"{kind}_tokens") for kind in ("prompt", "completion")]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return ChatReply("", status="bad_reply", reason="the reply is not a chat completion: check the URL")
    if not isinstance(content, str):
        # A reasoning model may reach the limit before its answer.
        why = ": it was cut before the answer; allow more tokens" if finish == "length" else ""
        return ChatReply("", status="bad_reply", reason=f"the reply contains no text{why}")
    # A lone surrogate or a number of more than 64 bits cannot be stored.
    content, finish = (part.encode(errors="replace").decode() for part in (content, str(finish or "")))
    tokens_in, tokens_out = (count if isinstance(count, int) and 0 <= count < 2**63 else 0 for count in counts)
    return ChatReply(content, finish, tokens_in, tokens_out)
