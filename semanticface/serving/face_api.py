"""``POST /v1/face``: a picture as the body, in a form, or as base64 in JSON; the reply is its row of ``predict``.

Forms are parsed in memory: common parsers write large parts to files, and no picture may touch the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.message import Message
from email.parser import HeaderParser
from typing import Annotated, Any

from pydantic import BaseModel, Field

from semanticface.semantics.answer import SCHEMA
from semanticface.serving.batching import ReadOptions
from semanticface.serving.requests import MEDIA_TYPES, Options, Picture, RefusedError, decode_picture, read_request

RAW_TYPES = (*MEDIA_TYPES, "application/octet-stream")
FORM_TYPE = "multipart/form-data"
_MAX_PARTS = 16
_FIELD = "picture"


class FaceOptions(Options):
    """Options in the query, in a form, or next to the picture in JSON."""

    name: str | None = Field(
        None, max_length=300, description='value of "image" in the reply (default: the file\'s name)'
    )


class FaceRequest(FaceOptions):
    """A picture in JSON."""

    picture: str = Field(description="base64 of a PNG, JPEG or WebP file, or data:image/png;base64,…")


class FaceReply(BaseModel):
    """The row of a picture, as ``semanticface predict`` writes it."""

    image: str = Field(description="the name in the request")
    status: str = Field(description="ok, or an error code such as no_face")
    reason: str | None = Field(None, description="why there is no answer, and the fix; absent if ok")
    note: str | None = Field(None, description="for example about further faces; usually absent")
    box: list[float] | None = Field(
        None, description="left, top, right, bottom of the crop that the model saw, in pixels"
    )
    coefficients: dict[str, float] | None = Field(
        description="the 52 actions, from 0 to 1; null unless ok",
        json_schema_extra={"properties": SCHEMA["properties"]["arkit"]["properties"]},
    )
    interval: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]] | None = Field(
        None, description="80 % interval of each coefficient: low, high"
    )
    calibrated: bool | None = Field(None, description="whether the intervals were calibrated on held-out faces")
    analysis: dict[str, Any] | None = Field(
        description="the analysis; null unless ok, and with mode numbers",
        json_schema_extra={"properties": SCHEMA["properties"]["analysis"]["properties"]},
    )
    repaired: dict[str, str] | None = Field(
        None, description="the model's words that did not hold for the coefficients and were replaced; usually absent"
    )
    text: str | None = Field(None, description="an answer that could not be parsed; absent if ok")


def parse_face(body: bytes, content_type: str, query: Mapping[str, str], defaults: ReadOptions) -> Picture:
    """Parse a request.

    Args:
        body: of the request.
        content_type: its header.
        query: parameters of the URL; they override options in the body.
        defaults: of the server.

    Raises:
        RefusedError: the request is invalid.
    """
    header = Message()
    header["content-type"] = content_type
    kind = header.get_content_type() if content_type else ""
    if kind == "application/json":
        request = read_request(FaceRequest, body)
        picture = decode_picture(request.picture, _FIELD)
        fields = request.model_dump(exclude={"picture"}, exclude_none=True)
    elif kind == FORM_TYPE:
        picture, fields = _parse_form(body, str(header.get_param("boundary", "")))
    elif kind in RAW_TYPES:
        picture, fields = body, {}
    else:
        supported = ", ".join((*RAW_TYPES, FORM_TYPE))
        raise RefusedError(415, "unsupported_media_type", f"Content-Type must be one of {supported}, application/json.")
    options = read_request(FaceOptions, {**fields, **query})
    return Picture(picture, options.name or "picture 1", options.box(), options.read_options(defaults))


def _parse_form(body: bytes, boundary: str) -> tuple[bytes, dict[str, Any]]:
    """Return the picture's bytes and the other fields; ``name`` defaults to the file's name."""
    if not 1 <= len(boundary) <= 70 or not boundary.isascii():
        raise RefusedError(400, "bad_form", "The form's Content-Type has no boundary. Let the client set the header.")
    # Each boundary starts a line; the last one is followed by two dashes.
    _, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    if not parts or not parts[-1].startswith(b"--"):
        raise RefusedError(400, "bad_form", "The form is incomplete. Send it again.")
    if len(parts) > _MAX_PARTS:
        raise RefusedError(400, "bad_form", f"The form has more than {_MAX_PARTS} parts. Send one picture.")
    pictures: list[bytes] = []
    fields: dict[str, Any] = {}
    for part in parts[:-1]:
        header_text, blank, content = part.lstrip(b" \t").removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = HeaderParser().parsestr(header_text.decode("utf-8", "replace"))
        name = headers.get_param("name", None, "content-disposition")
        if not blank or not isinstance(name, str):
            raise RefusedError(
                400, "bad_form", "A part of the form has no name. Send the picture in the field picture."
            )
        filename = headers.get_filename()
        if name == _FIELD:
            pictures.append(content)
            if filename:
                fields.setdefault("name", filename)
        elif filename is not None:
            raise RefusedError(400, "bad_form", "The form has a file in a field other than picture.", param=_FIELD)
        else:
            fields[name] = content.decode("utf-8", "replace")
    if len(pictures) != 1:
        raise RefusedError(
            400, "no_picture" if not pictures else "several_pictures",
            f"The form has {len(pictures)} fields named picture. Send one picture per request.", param=_FIELD,
        )  # fmt: skip
    return pictures[0], fields
