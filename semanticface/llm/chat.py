"""What is said to a chat server and what comes back, in the forms of OpenAI's chat completions."""

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
from semanticface.vision.image_io import load_picture

MAX_REPLY_BYTES = 8 * 2**20
"""A longer reply is not read to its end; a full answer has about 2 kB."""


@dataclass(frozen=True, slots=True)
class ChatServer:
    """Where the model is and how hard it may be pressed.

    Attributes:
        url: the API's root, such as ``http://127.0.0.1:8000/v1``; ``/v1`` is added where there is no path.
        model: the model's name there.
        key: sent as ``Authorization: Bearer``; never printed. Callers read it from an environment variable.
        timeout: seconds that one attempt may take from beginning to end.
        concurrency: requests under way at once.
        retries: further attempts at a request that failed for a reason that may pass.
        per_minute: most attempts a minute, spread evenly; None sets no limit.

    Raises:
        ConfigError: a URL that is none, a key that would travel unencrypted, or a number out of range.
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
            shown = self.url.rpartition("@")[2]  # there may be a password before
            raise ConfigError(f"{shown!r} is not a URL ({error}): write it as http://127.0.0.1:8000/v1") from error
        if url.userinfo:
            raise ConfigError(f"the URL of {url.host} holds a password: give the key by an environment variable")
        if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
            raise ConfigError(f"{self.url!r} is not the root of an API: write it as http://127.0.0.1:8000/v1")
        if not self.model:
            raise ConfigError(f"{self.url}: name the model to ask there")
        if self.key and url.scheme == "http" and not self.is_local:
            raise ConfigError(f"{self.url}: the key would cross the network unencrypted. Use https.")
        if not (self.key.isascii() and self.key.isprintable()) or self.key != self.key.strip():
            raise ConfigError("the key holds spaces or other characters that no key has: copy it again")
        for name, value, low in (("timeout", self.timeout, 0.001), ("concurrency", self.concurrency, 1)):
            if not value >= low:
                raise ConfigError(f"{name} is {value}: it must be at least {low:g}")
        if self.retries < 0:
            raise ConfigError(f"retries is {self.retries}: it cannot be negative")
        if self.per_minute is not None and not self.per_minute > 0:
            raise ConfigError(f"per_minute is {self.per_minute}: it must be above 0")

    @property
    def is_local(self) -> bool:
        """Whether the server is this very machine, so that nothing said to it leaves."""
        host = httpx.URL(self.url).host
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")
        return address.is_loopback or address.is_unspecified

    @property
    def endpoint(self) -> str:
        """The full address of chat completions."""
        root = self.url.rstrip("/").removesuffix("/chat/completions")
        if httpx.URL(root).path in ("", "/"):
            root += "/v1"
        return f"{root}/chat/completions"


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What to ask.

    Attributes:
        messages: the chat in OpenAI's form.
        max_tokens: where the reply is cut.
        schema: a JSON Schema that the server is asked to hold the reply to, as far as it can; see
            ``ChatClient.schemas``.
        temperature: 0 is the likeliest reply.
        seed: of the sampling, for servers that take one.
    """

    messages: list[dict[str, Any]]
    max_tokens: int
    schema: dict[str, Any] | None = None
    temperature: float = 0.0
    seed: int | None = None


Status = Literal["ok", "refused", "busy", "server_error", "timeout", "dropped", "too_large", "bad_reply"]

PASSING: tuple[Status, ...] = ("busy", "server_error", "timeout", "dropped")
"""What may be gone at the next attempt."""


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What came back, or why nothing did.

    Attributes:
        text: what the model wrote; empty where ``status`` is not ``ok``.
        finish: ``stop``, ``length`` (cut at ``max_tokens``) or another word of the server's.
        tokens_in, tokens_out: as the server counted them; 0 where it does not say.
        seconds: from the first attempt to the end, waiting included.
        status: ``ok``; ``refused`` (the server will not answer this request), ``busy``, ``server_error``,
            ``timeout``, ``dropped`` (the connection broke), all after the last attempt; ``too_large``, ``bad_reply``.
        reason: what the code means here; empty where ``ok``.
        code: the server's own short word for why it refused, such as ``no_face``; empty where it has none.
        attempts: how often it was asked.
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
    """Return the key that an environment variable holds; an empty one where no variable is named.

    Raises:
        ConfigError: the variable is not set.
    """
    key = "" if variable is None else os.environ.get(variable, "").strip()
    if variable is not None and not key:
        raise ConfigError(f"the environment variable {variable} is not set: put the server's key there")
    return key


def picture_part(
    picture: str | os.PathLike[str] | bytes | Image.Image, *, form: Literal["PNG", "JPEG"] = "JPEG"
) -> dict[str, Any]:
    """Return the part of a message that shows a picture: re-encoded, without metadata, as a data URI.

    Raises:
        PictureError: it is no picture that ``picture.load_picture`` reads.
    """
    buffer = BytesIO()
    load_picture(picture).save(buffer, form, **({"quality": 95, "subsampling": 0} if form == "JPEG" else {}))
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/{form.lower()};base64,{data}"}}


def retry_after(text: str) -> float:
    """Return the seconds that a ``Retry-After`` header asks for: a number, or a date; 0 where it is neither."""
    text = text.strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def read_reply(body: bytes) -> ChatReply:
    """Read a chat completion; what is none has the status ``too_large``, ``bad_reply`` or ``server_error``."""
    if len(body) > MAX_REPLY_BYTES:
        return ChatReply("", status="too_large", reason=f"the reply exceeds {MAX_REPLY_BYTES >> 20} MiB")
    try:
        value = json.loads(body)
        if isinstance(value, dict) and value.get("error") and not value.get("choices"):
            return ChatReply("", status="server_error", reason="an error that calls itself a success")
        choice = value["choices"][0]
        content = choice["message"]["content"]
        usage = value.get("usage") or {}
        if isinstance(content, list):  # some servers answer in parts
            content = "".join(part["text"] for part in content if part.get("type") == "text")
        finish, counts = choice.get("finish_reason"), [usage.get(f"{way}_tokens") for way in ("prompt", "completion")]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return ChatReply(
            "", status="bad_reply", reason="the reply is no chat completion: is the URL that of such an API?"
        )
    if not isinstance(content, str):
        # A model that thinks aloud may have come no further than its thoughts.
        why = ": it was cut before the answer began; allow it more tokens" if finish == "length" else ""
        return ChatReply("", status="bad_reply", reason=f"the reply holds no text{why}")
    # Half a surrogate pair, and a number of more than 64 bits, could never be written to a file.
    content, finish = (part.encode(errors="replace").decode() for part in (content, str(finish or "")))
    tokens_in, tokens_out = (count if isinstance(count, int) and 0 <= count < 2**63 else 0 for count in counts)
    return ChatReply(content, finish, tokens_in, tokens_out)
