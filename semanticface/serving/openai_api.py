"""OpenAI's chat completions for a model that reads one face: requests and replies.

An unsupported parameter is refused with a reason, never silently ignored. The one documented exception is the client's
text: the models are trained on one prompt, which is always used.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, Field

from semanticface.serving.batching import ReadOptions
from semanticface.serving.requests import (
    Options,
    Picture,
    RefusedError,
    Strict,
    check_embedded,
    decode_picture,
    read_request,
)
from semanticface.serving.schema_fit import fits

_MAX_ANSWERS = 16


class TextPart(Strict):
    """Text, which the model does not see."""

    type: Literal["text"]
    text: str


class ImageUrl(Strict):
    """The picture, inside the request."""

    url: str = Field(description="data:image/png;base64,… of a PNG, JPEG or WebP file; URLs are refused")
    detail: Literal["auto", "low", "high", "original"] | None = Field(None, description="has no effect")


class ImagePart(Strict):
    """The picture; exactly one in a request."""

    type: Literal["image_url"]
    image_url: ImageUrl


class Message(Strict):
    """A message of the request."""

    role: Literal["system", "developer", "user"] = Field(
        description="assistant is not supported: there is no conversation"
    )
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]
    name: str | None = Field(None, description="has no effect")


class JsonSchema(Strict):
    """A schema for the answers."""

    name: str
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    """The format of the answer, which is always one JSON object."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Strict):
    """Options of a streamed reply."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(None, description="has no effect")


class ChatRequest(Options):
    """A request about one picture; mode, readout, emotion and crop are extensions of this server."""

    model: str | None = Field(None, description="as in /v1/models (default: the served model)")
    messages: list[Message] = Field(min_length=1, max_length=64)
    response_format: ResponseFormat | None = None
    temperature: float | None = Field(None, ge=0, le=2, description="above 0: sampling (default: 0, the best answer)")
    seed: int | None = Field(None, ge=0, lt=2**63, description="makes samples reproducible")
    n: int | None = Field(
        None, ge=1, le=_MAX_ANSWERS, description="number of samples; above 1 needs a temperature above 0"
    )
    max_tokens: int | None = Field(None, ge=1, description="longer answers are cut (finish_reason length)")
    max_completion_tokens: int | None = Field(None, ge=1, description="newer name of max_tokens")
    stream: bool | None = Field(None, description="server-sent events; the answer is one event, sent when complete")
    stream_options: StreamOptions | None = None
    # Accepted only with values that have no effect.
    top_p: float | None = Field(None, description="only 1")
    presence_penalty: float | None = Field(None, description="only 0")
    frequency_penalty: float | None = Field(None, description="only 0")
    logprobs: bool | None = Field(None, description="only false; /v1/face has intervals")
    top_logprobs: int | None = Field(None, description="only 0")
    stop: str | list[str] | None = Field(None, description="only an empty list")
    logit_bias: dict[str, float] | None = Field(None, description="only an empty object")
    tools: list[Any] | None = Field(None, description="only an empty list")
    tool_choice: Any = Field(None, description="only none or auto")
    modalities: list[str] | None = Field(None, description='only ["text"]')
    # Accepted, without effect on answers.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    service_tier: str | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None


_NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "top_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "stop": ([],),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "modalities": (["text"],),
}


@dataclass(frozen=True, slots=True)
class ParsedChat:
    """A parsed chat request.

    Attributes:
        picture: the picture and how to read it.
        max_tokens: of an answer; None sets no limit.
        stream: whether to reply with server-sent events.
        usage: whether a stream ends with the token counts.
    """

    picture: Picture
    max_tokens: int | None
    stream: bool
    usage: bool


def parse_chat(body: bytes, defaults: ReadOptions, model: str, *, max_answers: int = _MAX_ANSWERS) -> ParsedChat:
    """Parse the body of a request.

    Args:
        body: JSON.
        defaults: of the server.
        model: the name of the served model.
        max_answers: maximum number of samples.

    Raises:
        RefusedError: the request is invalid or not supported.
    """
    request = read_request(ChatRequest, body)
    if request.model not in (None, model):
        message = "Unknown model. See GET /v1/models."
        raise RefusedError(404, "model_not_found", message, param="model")
    for name, allowed in _NEUTRAL_VALUES.items():
        value = getattr(request, name)
        if value is not None and value not in allowed:
            message = f"{name}: only {' or '.join(map(json.dumps, allowed))} is supported. Omit it."
            raise RefusedError(400, "unsupported_parameter", message, param=name)
    options = _read_options(request, defaults)
    temperature, answers = request.temperature or 0.0, request.n or 1
    if answers > max_answers:
        raise RefusedError(400, "unsupported_value", f"n: at most {max_answers} on this server.", param="n")
    if temperature:
        seed = secrets.randbits(31) if request.seed is None else request.seed
        options = replace(options, temperature=temperature, seed=seed, answers=answers)
    elif answers > 1:
        message = "At temperature 0 all answers are equal. Set a temperature above 0, or omit n."
        raise RefusedError(400, "unsupported_value", message, param="n")
    limits = [limit for limit in (request.max_tokens, request.max_completion_tokens) if limit is not None]
    return ParsedChat(
        Picture(_picture(request.messages), "the picture", request.box(), options),
        min(limits, default=None),
        bool(request.stream),
        bool(request.stream_options and request.stream_options.include_usage),
    )


def _read_options(request: ChatRequest, defaults: ReadOptions) -> ReadOptions:
    """Return options whose answers satisfy the requested schema: without an analysis or emotion if it has none."""
    options = request.read_options(defaults)
    requested = request.response_format
    if requested is None or requested.type != "json_schema":
        return options
    if requested.json_schema is None or requested.json_schema.schema_ is None:
        message = "The schema is missing. Set json_schema.schema."
        raise RefusedError(400, "bad_request", message, param="response_format.json_schema.schema")
    modes = [options.mode] if request.mode else [options.mode, "numbers" if options.mode == "full" else "full"]
    emotions = [options.emotion] if request.emotion is not None or not options.emotion else [True, False]
    for mode, emotion in product(modes, emotions):
        if fits(requested.json_schema.schema_, cast(Any, mode), emotion=emotion):
            return replace(options, mode=cast(Any, mode), emotion=emotion)
    message = (
        "Answers of this model may violate the schema, and their form cannot be changed. "
        "Use the schema of /v1/schema, or json_object."
    )
    raise RefusedError(400, "unsupported_schema", message, param="response_format.json_schema.schema")


def _picture(messages: Sequence[Message]) -> bytes:
    images = [
        (f"messages.{index}.content.{part_index}.image_url.url", part.image_url.url)
        for index, message in enumerate(messages)
        if not isinstance(message.content, str)
        for part_index, part in enumerate(message.content)
        if isinstance(part, ImagePart)
    ]
    if not images:
        message = "There is no picture. Add a part of type image_url with data:image/png;base64,… to a user message."
        raise RefusedError(400, "no_picture", message, param="messages")
    if len(images) > 1:
        message = f"There are {len(images)} pictures. Send one picture per request."
        raise RefusedError(400, "several_pictures", message, param=images[1][0])
    ((param, url),) = images
    check_embedded(url, param)
    return decode_picture(url, param)


# --- replies ----------------------------------------------------------------------------------------------------------


class AssistantMessage(BaseModel):
    """The message with the answer."""

    role: Literal["assistant"] = "assistant"
    content: str = Field(description="JSON with the keys analysis (not with mode numbers) and arkit")
    refusal: None = None


class Choice(BaseModel):
    """An answer."""

    index: int
    message: AssistantMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class Usage(BaseModel):
    """Token counts; the prompt includes the picture."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(BaseModel):
    """The reply to a chat request."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    system_fingerprint: str = Field(description="version of the package, and the prompt")


class Model(BaseModel):
    """A served model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "semanticface"


class Models(BaseModel):
    """The list of served models, which has one entry."""

    object: Literal["list"] = "list"
    data: list[Model]


def complete(
    texts: Sequence[tuple[str, list[int]]],
    *,
    max_tokens: int | None,
    prompt_tokens: int,
    model: str,
    created: int,
    fingerprint: str,
) -> Completion:
    """Return the reply.

    Args:
        texts: each answer, with the end position in characters of each of its tokens.
        max_tokens: maximum length of an answer.
        prompt_tokens: length of the prompt.
        model: its name.
        created: Unix time in seconds.
        fingerprint: ``system_fingerprint``.
    """
    choices, used = [], 0
    for index, (text, ends) in enumerate(texts):
        kept = len(ends) if max_tokens is None else min(max_tokens, len(ends))
        used += kept
        cut = kept < len(ends)
        message = AssistantMessage(content=text[: ends[kept - 1]] if cut else text)
        choices.append(Choice(index=index, message=message, finish_reason="length" if cut else "stop"))
    usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=used, total_tokens=prompt_tokens + used)
    return Completion(
        id=f"chatcmpl-{secrets.token_hex(12)}",
        created=created,
        model=model,
        choices=choices,
        usage=usage,
        system_fingerprint=fingerprint,
    )


def events(reply: Completion, *, usage: bool) -> Iterator[str]:
    """Yield a reply as server-sent events: role, text and end of each answer, optionally the usage, and the end."""
    head = {
        "id": reply.id,
        "object": "chat.completion.chunk",
        "created": reply.created,
        "model": reply.model,
        "system_fingerprint": reply.system_fingerprint,
    }

    def event(choices: list[dict[str, Any]], used: dict[str, int] | None = None) -> str:
        extra = {"usage": used} if usage else {}
        return f"data: {json.dumps({**head, 'choices': choices, **extra}, separators=(',', ':'))}\n\n"

    for choice in reply.choices:
        deltas: tuple[dict[str, str], ...] = (
            {"role": "assistant", "content": ""},
            {"content": choice.message.content},
            {},
        )
        for delta, end in zip(deltas, (None, None, choice.finish_reason), strict=True):
            yield event([{"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": end}])
    if usage:
        yield event([], reply.usage.model_dump())
    yield "data: [DONE]\n\n"
