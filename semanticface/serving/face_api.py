"""The form of ``POST /v1/face``: a picture as it is, in a form, or as base64 in JSON; its row of ``predict`` back.

Forms are read in memory: what parses them elsewhere puts larger parts into files, and no picture is to touch the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.message import Message
from email.parser import HeaderParser
from typing import Annotated, Any

from pydantic import BaseModel, Field

from semanticface.arkit import NAMES
from semanticface.semantics.answer import SCHEMA
from semanticface.serving.batching import ReadOptions
from semanticface.serving.requests import MEDIA_TYPES, Options, Picture, RefusedError, decode_picture, read_request

RAW_TYPES = (*MEDIA_TYPES, "application/octet-stream")
FORM_TYPE = "multipart/form-data"
_MOST_PARTS = 16
_NAME = "picture"


class FaceOptions(Options):
    """Options that stand in the address, in a form or beside the picture in JSON."""

    name: str | None = Field(None, max_length=300, description='what "image" is to say (default: the file\'s name)')


class FaceRequest(FaceOptions):
    """A picture in JSON."""

    picture: str = Field(description="base64 of a PNG, JPEG or WebP file, or data:image/png;base64,…")


class FaceReply(BaseModel):
    """What ``semanticface predict`` writes of a picture."""

    image: str = Field(description="the name that the request gave it")
    status: str = Field(description="ok, or why there is no answer in a word, such as no_face")
    reason: str | None = Field(None, description="why there is no answer, and the fix; absent when ok")
    note: str | None = Field(None, description="such as further faces in the picture; mostly absent")
    box: list[float] | None = Field(None, description="left, top, right, bottom of where the model looked, in pixels")
    coefficients: dict[str, float] | None = Field(
        description="the 52 actions, from 0 to 1; null unless ok",
        json_schema_extra={"properties": SCHEMA["properties"]["arkit"]["properties"]},
    )
    interval: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]] | None = Field(
        None, description="lowest and highest value of each with a probability of 80 %"
    )
    calibrated: bool | None = Field(None, description="whether that was fitted on held-out faces")
    analysis: dict[str, Any] | None = Field(
        description="the explanation; null unless ok, and with mode numbers",
        json_schema_extra={"properties": SCHEMA["properties"]["analysis"]["properties"]},
    )
    text: str | None = Field(None, description="an answer that could not be read; absent when ok")


def read_face(body: bytes, content_type: str, query: Mapping[str, str], usual: ReadOptions) -> Picture:
    """Read a request.

    Args:
        body: its body.
        content_type: its header.
        query: what stands behind the ? in its address; wins over what the body says.
        usual: how the server reads pictures unless asked otherwise.

    Raises:
        RefusedError: it cannot be honoured.
    """
    header = Message()
    header["content-type"] = content_type
    kind = header.get_content_type() if content_type else ""
    if kind == "application/json":
        request = read_request(FaceRequest, body)
        picture = decode_picture(request.picture, _NAME)
        given = request.model_dump(exclude={"picture"}, exclude_none=True)
    elif kind == FORM_TYPE:
        picture, given = _read_form(body, str(header.get_param("boundary", "")))
    elif kind in RAW_TYPES:
        picture, given = body, {}
    else:
        known = ", ".join((*RAW_TYPES, FORM_TYPE))
        raise RefusedError(415, "unsupported_media_type", f"Content-Type must be one of {known}, application/json.")
    options = read_request(FaceOptions, {**given, **query})
    return Picture(picture, options.name or "picture 1", options.box(), options.ask(usual))


def _read_form(body: bytes, boundary: str) -> tuple[bytes, dict[str, Any]]:
    """Return the picture's bytes and the other fields; the file's name is the picture's unless a field says so."""
    if not 1 <= len(boundary) <= 70 or not boundary.isascii():
        raise RefusedError(400, "bad_form", "The form has no boundary in its Content-Type. Let the client set it.")
    # A boundary stands at the beginning of a line, and two dashes behind the last one.
    _, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    if not parts or not parts[-1].startswith(b"--"):
        raise RefusedError(400, "bad_form", "The form is incomplete. Send it again.")
    if len(parts) > _MOST_PARTS:
        raise RefusedError(400, "bad_form", f"The form has more than {_MOST_PARTS} parts. Send one picture.")
    pictures: list[bytes] = []
    fields: dict[str, Any] = {}
    for part in parts[:-1]:
        heads, blank, content = part.lstrip(b" \t").removeprefix(b"\r\n").partition(b"\r\n\r\n")
        heading = HeaderParser().parsestr(heads.decode("utf-8", "replace"))
        name = heading.get_param("name", None, "content-disposition")
        if not blank or not isinstance(name, str):
            raise RefusedError(400, "bad_form", "A part of the form has no name. Send the picture as field picture.")
        file = heading.get_filename()
        if name == _NAME:
            pictures.append(content)
            if file:
                fields.setdefault("name", file)
        elif file is not None:
            raise RefusedError(400, "bad_form", "A file of the form is in another field than picture.", param=_NAME)
        else:
            fields[name] = content.decode("utf-8", "replace")
    if len(pictures) != 1:
        raise RefusedError(
            400, "no_picture" if not pictures else "several_pictures",
            f"The form has {len(pictures)} fields named picture. Send one picture in a request.", param=_NAME,
        )  # fmt: skip
    return pictures[0], fields


def example() -> dict[str, Any]:
    """Return a reply as the documentation shows it: a resting face in which only the jaw drops."""
    values = dict.fromkeys(NAMES, 0.0) | {"jawOpen": 0.31}
    return {"image": "face.jpg", "status": "ok", "coefficients": values, "analysis": None}
