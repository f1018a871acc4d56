"""The forms of OpenAI's chat completions: what may be asked of a model that reads one face, and how it replies.

What cannot be honoured is refused with a reason, never ignored in silence, with one exception that the documentation
names: a client's own words. The models are trained on one question and are asked that one.
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
    FETCHES_NOTHING,
    Options,
    Picture,
    RefusedError,
    Strict,
    decode_picture,
    read_request,
)
from semanticface.serving.schema_fit import fits

_MOST_ANSWERS = 16


class TextPart(Strict):
    """Words, which the model does not see."""

    type: Literal["text"]
    text: str


class ImageUrl(Strict):
    """A picture in the request itself."""

    url: str = Field(description="data:image/png;base64,… of a PNG, JPEG or WebP file; addresses are refused")
    detail: Literal["auto", "low", "high", "original"] | None = Field(None, description="has no effect")


class ImagePart(Strict):
    """The picture; exactly one in a request."""

    type: Literal["image_url"]
    image_url: ImageUrl


class Message(Strict):
    """One of the request's messages."""

    role: Literal["system", "developer", "user"] = Field(
        description="there is no conversation, so no message is the assistant's"
    )
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]
    name: str | None = Field(None, description="has no effect")


class JsonSchema(Strict):
    """A schema that answers are to satisfy."""

    name: str
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    """What the answer is to be; it is always one JSON object."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Strict):
    """Of a streamed reply."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(None, description="has no effect")


class ChatRequest(Options):
    """A question about one picture; mode, readout, emotion and crop are this server's own."""

    model: str | None = Field(None, description="one that /v1/models lists (default: the one there is)")
    messages: list[Message] = Field(min_length=1, max_length=64)
    response_format: ResponseFormat | None = None
    temperature: float | None = Field(None, ge=0, le=2, description="above 0 samples (default: 0, the best answer)")
    seed: int | None = Field(None, ge=0, lt=2**63, description="makes samples repeatable")
    n: int | None = Field(None, ge=1, le=_MOST_ANSWERS, description="samples; above 1 with a temperature above 0")
    max_tokens: int | None = Field(None, ge=1, description="a longer answer is cut there (finish_reason length)")
    max_completion_tokens: int | None = Field(None, ge=1, description="the same under its newer name")
    stream: bool | None = Field(None, description="events; the answer comes in one, when it is complete")
    stream_options: StreamOptions | None = None
    # Taken where they ask for nothing.
    top_p: float | None = Field(None, description="1 alone")
    presence_penalty: float | None = Field(None, description="0 alone")
    frequency_penalty: float | None = Field(None, description="0 alone")
    logprobs: bool | None = Field(None, description="false alone; intervals are in /v1/face")
    top_logprobs: int | None = Field(None, description="0 alone")
    stop: str | list[str] | None = Field(None, description="an empty list alone: an answer ends by itself")
    logit_bias: dict[str, float] | None = Field(None, description="an empty object alone")
    tools: list[Any] | None = Field(None, description="an empty list alone")
    tool_choice: Any = Field(None, description="none or auto alone")
    modalities: list[str] | None = Field(None, description='["text"] alone')
    # Without effect on any answer.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    service_tier: str | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None


_ASK_FOR_NOTHING: dict[str, tuple[Any, ...]] = {
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
class Question:
    """A chat request, understood.

    Attributes:
        picture: it is about.
        most_tokens: of an answer; None without a limit.
        stream: whether the reply is one of events.
        usage: whether a stream ends with the tokens used.
    """

    picture: Picture
    most_tokens: int | None
    stream: bool
    usage: bool


def read_chat(body: bytes, usual: ReadOptions, model: str, *, most_answers: int = _MOST_ANSWERS) -> Question:
    """Read the body of a request.

    Args:
        body: JSON.
        usual: how the server reads pictures unless asked otherwise.
        model: its name for its model.
        most_answers: that it can write side by side.

    Raises:
        RefusedError: it cannot be honoured.
    """
    request = read_request(ChatRequest, body)
    if request.model not in (None, model):
        message = "There is no model of this name here. GET /v1/models lists what there is."
        raise RefusedError(404, "model_not_found", message, param="model")
    for name, harmless in _ASK_FOR_NOTHING.items():
        value = getattr(request, name)
        if value is not None and value not in harmless:
            only = " or ".join(map(json.dumps, harmless))
            raise RefusedError(
                400, "unsupported_parameter", f"{name}: only {only} can be honoured. Leave it out.", param=name
            )
    ask = _formed(request, usual)
    temperature, answers = request.temperature or 0.0, request.n or 1
    if answers > most_answers:
        raise RefusedError(400, "unsupported_value", f"n: at most {most_answers} here.", param="n")
    if temperature:
        seed = secrets.randbits(31) if request.seed is None else request.seed
        ask = replace(ask, temperature=temperature, seed=seed, answers=answers)
    elif answers > 1:
        message = "At temperature 0 all answers are the same. Give a temperature above 0, or leave n out."
        raise RefusedError(400, "unsupported_value", message, param="n")
    limits = [limit for limit in (request.max_tokens, request.max_completion_tokens) if limit is not None]
    return Question(
        Picture(_picture(request.messages), "the picture", request.box(), ask),
        min(limits, default=None),
        bool(request.stream),
        bool(request.stream_options and request.stream_options.include_usage),
    )


def _formed(request: ChatRequest, usual: ReadOptions) -> ReadOptions:
    """Return how to read so that the answer has the form asked for.

    A schema without words, or without emotion, says that they are not wanted.
    """
    ask = request.ask(usual)
    form = request.response_format
    if form is None or form.type != "json_schema":
        return ask
    if form.json_schema is None or form.json_schema.schema_ is None:
        message = "There is no schema. Give one under json_schema.schema."
        raise RefusedError(400, "bad_request", message, param="response_format.json_schema.schema")
    modes = [ask.mode] if request.mode else [ask.mode, "numbers" if ask.mode == "full" else "full"]
    emotions = [ask.emotion] if request.emotion is not None or not ask.emotion else [True, False]
    for mode, emotion in product(modes, emotions):
        if fits(form.json_schema.schema_, cast(Any, mode), emotion=emotion):
            return replace(ask, mode=cast(Any, mode), emotion=emotion)
    message = (
        "Not every answer of this model would satisfy the schema, and its answers have no other form. "
        "/v1/schema has the schema they always satisfy; json_object takes any."
    )
    raise RefusedError(400, "unsupported_schema", message, param="response_format.json_schema.schema")


def _picture(messages: Sequence[Message]) -> bytes:
    found = [
        (f"messages.{place}.content.{nth}.image_url.url", part.image_url.url)
        for place, message in enumerate(messages)
        if not isinstance(message.content, str)
        for nth, part in enumerate(message.content)
        if isinstance(part, ImagePart)
    ]
    if not found:
        message = "There is no picture. Add a part of type image_url with data:image/png;base64,… to a user message."
        raise RefusedError(400, "no_picture", message, param="messages")
    if len(found) > 1:
        message = f"There are {len(found)} pictures. The model reads one: send a request for each."
        raise RefusedError(400, "several_pictures", message, param=found[1][0])
    ((param, url),) = found
    if url[:5].lower() != "data:":
        raise RefusedError(400, "remote_picture", FETCHES_NOTHING, param=param)
    return decode_picture(url, param)


# --- replies ----------------------------------------------------------------------------------------------------------


class Said(BaseModel):
    """An answer."""

    role: Literal["assistant"] = "assistant"
    content: str = Field(description="JSON with the keys analysis (not with mode numbers) and arkit")
    refusal: None = None


class Choice(BaseModel):
    """One of the answers."""

    index: int
    message: Said
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class Usage(BaseModel):
    """Tokens, of which those of the prompt include the picture's."""

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
    system_fingerprint: str = Field(description="the package's version, and the prompt that was asked")


class Model(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "semanticface"


class Models(BaseModel):
    """The models that are served: one."""

    object: Literal["list"] = "list"
    data: list[Model]


def complete(
    texts: Sequence[tuple[str, list[int]]],
    *,
    most_tokens: int | None,
    prompt_tokens: int,
    model: str,
    created: int,
    fingerprint: str,
) -> Completion:
    """Return the reply.

    Args:
        texts: each answer, and after how many characters each of its tokens ends.
        most_tokens: after which an answer is cut.
        prompt_tokens: that the model was shown.
        model: its name.
        created: seconds since 1970.
        fingerprint: of what answered.
    """
    choices, used = [], 0
    for index, (text, ends) in enumerate(texts):
        kept = len(ends) if most_tokens is None else min(most_tokens, len(ends))
        used += kept
        cut = kept < len(ends)
        said = Said(content=text[: ends[kept - 1]] if cut else text)
        choices.append(Choice(index=index, message=said, finish_reason="length" if cut else "stop"))
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
    """Yield a reply as server-sent events: role, text and end of each answer, the usage if wanted, and the end."""
    head = {
        "id": reply.id,
        "object": "chat.completion.chunk",
        "created": reply.created,
        "model": reply.model,
        "system_fingerprint": reply.system_fingerprint,
    }

    def event(choices: list[dict[str, Any]], used: dict[str, int] | None = None) -> str:
        told = {"usage": used} if usage else {}
        return f"data: {json.dumps({**head, 'choices': choices, **told}, separators=(',', ':'))}\n\n"

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
