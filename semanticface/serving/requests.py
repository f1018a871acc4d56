"""What both endpoints of the server share on the wire: options of a reading, pictures as text, refusals.

A refusal is one form everywhere, that of OpenAI's API: ``{"error": {"message", "type", "param", "code"}}``.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from semanticface.errors import SemanticFaceError
from semanticface.serving.batching import ReadOptions
from semanticface.vision.crop import Box

MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp")
FETCHES_NOTHING = "This server fetches nothing. Send the picture itself: data:image/png;base64,… (PNG, JPEG, WebP)."
_DATA_URI = re.compile(r"data:[^,]{0,200},")
_BLANK = re.compile(r"\s+")
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

M = TypeVar("M", bound=BaseModel)


class RefusedError(SemanticFaceError):
    """A request that is not answered.

    Attributes:
        status: HTTP status.
        code: short machine-readable reason.
        param: the part of the request at fault, where there is one.
        retry_after: seconds after which the same request is worth another try; None where it is not.
    """

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """Return the JSON form."""
        return error_body(self.status, self.code, str(self), self.param)

    def headers(self) -> dict[str, str]:
        """Return the headers that go with it."""
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        return headers | ({"www-authenticate": "Bearer"} if self.status == 401 else {})


class Problem(BaseModel):
    """Why a request is not answered."""

    message: str
    type: str = Field(description="invalid_request_error, rate_limit_error, server_error, ...")
    param: str | None = Field(description="the part of the request at fault")
    code: str | None = Field(description="the reason in a word, such as no_face or queue_full")


class Refusal(BaseModel):
    """The body of every reply that is no answer."""

    error: Problem


def error_body(status: int, code: str | None, message: str, param: str | None = None) -> dict[str, Any]:
    """Return the body of a refusal."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _corners(value: object) -> object:
    if isinstance(value, str) and value not in ("auto", "none"):
        try:
            return [float(part) for part in value.split(",")]
        except ValueError:
            return value
    return value


def _truth(value: object) -> object:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that came with a request, and what is to be done with it.

    Attributes:
        data: the file's bytes, not looked at yet.
        name: how its prediction calls it.
        crop: where to look.
        ask: how to read.
    """

    data: bytes
    name: str
    crop: Literal["auto", "none"] | Box
    ask: ReadOptions


class Strict(BaseModel):
    """A request in which nothing is guessed: unknown keys, texts for numbers and NaN are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Options(Strict):
    """How a picture is to be read; left out, as the server was started."""

    mode: Literal["full", "numbers"] | None = Field(
        None, description="full: words and numbers; numbers: no words, several times as fast"
    )
    readout: Literal["greedy", "mean", "median"] | None = Field(
        None, description="what of the model's distributions the numbers are"
    )
    emotion: Annotated[bool | None, BeforeValidator(_truth)] = Field(
        None, description="false leaves out what the face suggests a person feels"
    )
    crop: Annotated[
        Literal["auto", "none"] | Annotated[list[float], Field(min_length=4, max_length=4)] | None,
        BeforeValidator(_corners),
    ] = Field(
        None,
        description="auto finds the face; none: the picture is a square crop of one; left, top, right, bottom in "
        "pixels of the upright picture (in a query or form 120,80,360,320)",
    )

    def box(self) -> Literal["auto", "none"] | Box:
        """Return where to look.

        Raises:
            RefusedError: a box without area.
        """
        if not isinstance(self.crop, list):
            return self.crop or "auto"
        x0, y0, x1, y1 = self.crop
        if not (x0 < x1 and y0 < y1):
            raise RefusedError(400, "bad_box", "The box has no area: give left, top, right, bottom.", param="crop")
        return Box(x0, y0, x1, y1)

    def ask(self, usual: ReadOptions) -> ReadOptions:
        """Return how to read, at temperature 0.

        Raises:
            RefusedError: emotion where the server leaves it out.
        """
        if self.emotion and not usual.emotion:
            message = "This server leaves emotion out. Leave out emotion, or set it to false."
            raise RefusedError(400, "no_emotion", message, param="emotion")
        emotion = usual.emotion if self.emotion is None else self.emotion
        return ReadOptions(self.mode or usual.mode, self.readout or usual.readout, emotion)


def read_request(model: type[M], body: bytes | dict[str, Any]) -> M:
    """Read a request's JSON, or its fields.

    Raises:
        RefusedError: it does not have the form; the message names the place and never repeats what stood there.
    """
    try:
        return model.model_validate_json(body) if isinstance(body, bytes) else model.model_validate(body)
    except ValidationError as error:
        # Of the forms that a value may have, the one that was followed furthest is the one that was meant; of a box
        # with three corners that is the list, not the words.
        found = error.errors(include_url=False, include_input=False)
        worst = max(found, key=lambda each: (len(each["loc"]), each["type"] in ("too_short", "too_long")))
        fields = [str(part) for part in worst["loc"] if isinstance(part, int) or re.fullmatch(r"\w{1,64}", part)]
        place = ".".join(fields)
        what = worst["msg"].replace("Extra inputs are not permitted", "this server does not know it")
        raise RefusedError(400, "bad_request", f"{place}: {what}" if place else what, param=place or None) from None


def decode_picture(text: str, param: str) -> bytes:
    """Return the bytes of a picture in base64, plain or as a ``data:`` URI; what they hold is not looked at.

    Raises:
        RefusedError: ``remote_picture`` for an address, which is never fetched; ``bad_base64``.
    """
    head = _DATA_URI.match(text)
    if head is None and re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,20}:", text):
        raise RefusedError(400, "remote_picture", FETCHES_NOTHING, param=param)
    if head is not None and not head[0].lower().endswith(";base64,"):
        message = "The picture is not in base64. Send data:image/png;base64,… (PNG, JPEG, WebP)."
        raise RefusedError(400, "bad_base64", message, param=param)
    try:
        return base64.b64decode(_BLANK.sub("", text[head.end() if head else 0 :]), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusedError(400, "bad_base64", f"The picture's base64 cannot be read: {error}.", param=param) from None
