"""Request parsing shared by both endpoints: options, base64 pictures, errors.

Every error has the format of OpenAI's API: ``{"error": {"message", "type", "param", "code"}}``.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from semanticface.errors import SemanticFaceError
from semanticface.serving.batching import ReadOptions
from semanticface.vision.crop import Box

MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp")
NO_URLS = "This server does not fetch URLs. Send the picture itself: data:image/png;base64,… (PNG, JPEG, WebP)."
_DATA_URI = re.compile(r"data:[^,]{0,200},", re.IGNORECASE)
_BARE_PICTURE = re.compile(r"\s*(iVBORw0KGgo|/9j/|UklGR|R0lGOD|[A-Za-z0-9+/\s]{200})")
_WHITESPACE = re.compile(r"\s+")
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

M = TypeVar("M", bound=BaseModel)


class RefusedError(SemanticFaceError):
    """A request that is refused.

    Attributes:
        status: HTTP status.
        code: machine-readable error code.
        param: the parameter at fault, or None.
        retry_after: seconds after which a retry may succeed; None if it cannot.
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
        """Return its HTTP headers."""
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        return headers | ({"www-authenticate": "Bearer"} if self.status == 401 else {})


class Problem(BaseModel):
    """The error of a refused request."""

    message: str
    type: str = Field(description="invalid_request_error, rate_limit_error, server_error, ...")
    param: str | None = Field(description="the parameter at fault")
    code: str | None = Field(description="error code, such as no_face or queue_full")


class Refusal(BaseModel):
    """The body of every error reply."""

    error: Problem


def error_body(status: int, code: str | None, message: str, param: str | None = None) -> dict[str, Any]:
    """Return the body of an error reply."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _parse_corners(value: object) -> object:
    if isinstance(value, str) and value not in ("auto", "none"):
        try:
            return [float(part) for part in value.split(",")]
        except ValueError:
            return value
    return value


def _parse_bool(value: object) -> object:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in a request, and how to read it.

    Attributes:
        data: the file's bytes, not decoded yet.
        name: the prediction's ``image``.
        crop: as in ``Predictor.stream``.
        options: how to read it.
    """

    data: bytes
    name: str
    crop: Literal["auto", "none"] | Box
    options: ReadOptions


class Strict(BaseModel):
    """A strictly validated request: unknown keys, strings for numbers and NaN are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Options(Strict):
    """How to read a picture; the server's defaults where omitted."""

    mode: Literal["full", "numbers"] | None = Field(
        None, description="full: analysis and coefficients; numbers: coefficients only, several times as fast"
    )
    readout: Literal["greedy", "mean", "median"] | None = Field(
        None, description="how a coefficient is read from the model's distribution"
    )
    emotion: Annotated[bool | None, BeforeValidator(_parse_bool)] = Field(
        None, description="false omits emotional_implication"
    )
    crop: Annotated[
        Literal["auto", "none"] | Annotated[list[float], Field(min_length=4, max_length=4)] | None,
        BeforeValidator(_parse_corners),
    ] = Field(
        None,
        description="auto detects the face; none: the picture is a square crop of one; or left, top, right, bottom in "
        "pixels of the upright picture (120,80,360,320 in a query or form)",
    )

    def box(self) -> Literal["auto", "none"] | Box:
        """Return the crop of ``Predictor.stream``."""
        if not isinstance(self.crop, list):
            return self.crop or "auto"
        x0, y0, x1, y1 = self.crop
        if not (x0 < x1 and y0 < y1):
            raise RefusedError(400, "bad_box", "The box has no area: give left, top, right, bottom.", param="crop")
        return Box(x0, y0, x1, y1)

    def read_options(self, defaults: ReadOptions) -> ReadOptions:
        """Return the options, completed by the server's defaults, at temperature 0."""
        if self.emotion and not defaults.emotion:
            message = "This server runs with --no-emotion. Omit emotion, or set it to false."
            raise RefusedError(400, "no_emotion", message, param="emotion")
        emotion = defaults.emotion if self.emotion is None else self.emotion
        return ReadOptions(self.mode or defaults.mode, self.readout or defaults.readout, emotion)


def read_request(model: type[M], body: bytes | dict[str, Any]) -> M:
    """Validate a request's JSON, or its fields; error messages name the field and never quote its value."""
    try:
        return model.model_validate_json(body) if isinstance(body, bytes) else model.model_validate(body)
    except ValidationError as error:
        # Of a union, report the alternative that was matched furthest: for a crop with three corners, the list.
        errors = error.errors(include_url=False, include_input=False)
        worst = max(errors, key=lambda each: (len(each["loc"]), each["type"] in ("too_short", "too_long")))
        param = _param(worst["loc"], body, missing=worst["type"] == "missing")
        message = worst["msg"].replace("Extra inputs are not permitted", "unknown parameter")
        raise RefusedError(
            400, "bad_request", f"{param}: {message}" if param else message, param=param or None
        ) from None


def _param(place: Sequence[int | str], body: bytes | dict[str, Any], *, missing: bool) -> str:
    """Return the path of a parameter as the client wrote it, without the names of pydantic's alternatives."""
    try:
        value = json.loads(body) if isinstance(body, bytes) else body
    except (ValueError, RecursionError):  # pydantic refuses what nests this deep, json runs out of stack
        return ""
    path = []
    tagged = False
    for number, part in enumerate(place, start=1):
        if not tagged and number < len(place) and isinstance(value, dict) and value.get("type") == part:
            tagged = True  # pydantic's name of the alternative
            continue
        if isinstance(part, str) and not re.fullmatch(r"\w{1,64}", part):
            continue
        if (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        ):
            value, tagged = value[part], False  # type: ignore[index]
        elif not (missing and number == len(place)):
            continue
        path.append(str(part))
    return ".".join(path)


def check_embedded(url: str, param: str) -> None:
    """Refuse what is no ``data:`` URI: URLs, which are never fetched, and base64 without the words before it."""
    if url[:5].lower() == "data:":
        return
    if _BARE_PICTURE.match(url):
        message = "This is base64 without its media type. Put data:image/png;base64, before it (PNG, JPEG, WebP)."
        raise RefusedError(400, "bad_base64", message, param=param)
    raise RefusedError(400, "remote_picture", NO_URLS, param=param)


def decode_picture(text: str, param: str) -> bytes:
    """Return the bytes of a picture in base64, plain or as a ``data:`` URI, without decoding the image.

    URLs are never fetched: they are refused as ``remote_picture``.
    """
    prefix = _DATA_URI.match(text)
    if prefix is None and re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,20}:", text):
        raise RefusedError(400, "remote_picture", NO_URLS, param=param)
    if prefix is not None and not prefix[0].lower().endswith(";base64,"):
        message = "The picture is not in base64. Send data:image/png;base64,… (PNG, JPEG, WebP)."
        raise RefusedError(400, "bad_base64", message, param=param)
    try:
        return base64.b64decode(_WHITESPACE.sub("", text[prefix.end() if prefix else 0 :]), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusedError(400, "bad_base64", f"The picture's base64 is invalid: {error}.", param=param) from None
