"""Pictures in requests: schemes in any case, base64 without one, and places as the client wrote them."""

import base64
import json

import pytest

from semanticface.serving.batching import ReadOptions
from semanticface.serving.openai_api import parse_chat
from semanticface.serving.requests import RefusedError, decode_picture

DEFAULTS = ReadOptions("full", "greedy", True)
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode()


def chat(content):
    return parse_chat(json.dumps({"messages": [{"role": "user", "content": content}]}).encode(), DEFAULTS, "nano")


def refusal(content):
    with pytest.raises(RefusedError) as caught:
        chat(content)
    return caught.value


@pytest.mark.parametrize("scheme", ["data:image/png;base64,", "DATA:image/png;base64,", "Data:IMAGE/PNG;Base64,"])
def test_schemes_ignore_case(scheme):
    picture = {"type": "image_url", "image_url": {"url": scheme + PNG}}
    assert chat([picture]).picture.data == decode_picture(scheme + PNG, "picture") == base64.b64decode(PNG)


@pytest.mark.parametrize("text", [PNG, "/9j/4AAQSkZJRgABAQ", "UklGRiQAAABXRUJQVlA4", "QUJD" * 100])
def test_bare_base64_is_told_what_to_put_before_it(text):
    error = refusal([{"type": "image_url", "image_url": {"url": text}}])
    assert error.code == "bad_base64" and "Put data:image/png;base64, before it" in str(error)


@pytest.mark.parametrize(
    ("content", "param"),
    [
        ([{"type": "image_url", "image_url": {"url": 3}}], "messages.0.content.0.image_url.url"),
        ([{"type": "image_url", "image_url": {}}], "messages.0.content.0.image_url.url"),
        ([{"type": "image_url"}], "messages.0.content.0.image_url"),
        ([{"type": "text"}], "messages.0.content.0.text"),
        ([{"type": "text", "text": "a", "more": 1}], "messages.0.content.0.more"),
    ],
)
def test_places_are_those_of_the_request(content, param):
    error = refusal(content)
    assert error.param == param and str(error).startswith(f"{param}: ")
