"""The server on loopback with real clients: answers, errors, concurrency, access control, shutdown."""

import asyncio
import base64
import contextlib
import importlib.util
import json
import os
import signal
import socket
import threading
from typing import Annotated

import httpx
import jsonschema
import numpy as np
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel, Field, create_model

from semanticface.arkit import INDEX, NAMES
from semanticface.cli import serve as serve_command
from semanticface.cli.main import _parser, main
from semanticface.errors import SemanticFaceError
from semanticface.inference.predictor import Predictor
from semanticface.models.files import display_name
from semanticface.semantics.answer import SCHEMA, answer_schema, format_answer, parse_answer
from semanticface.serving.app import Limits
from semanticface.serving.batching import ReadOptions
from semanticface.serving.face_api import parse_face
from semanticface.serving.openai_api import parse_chat
from semanticface.serving.requests import Picture, RefusedError
from semanticface.vision.crop import Box
from tests.helpers.same_answers import assert_same_answers
from tests.helpers.scripts import load_script
from tests.helpers.served import TIMEOUT, Gate, crops, png, run_serve_command, running_server, uri


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_pretrained("nano", device="cpu")


@pytest.fixture(scope="module")
def server(predictor):
    with running_server(predictor, batch_size=8) as (url, service):
        yield url, service


@pytest.fixture(scope="module")
def url(server):
    return server[0]


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as opened:
        yield opened


def messages_about(picture, text="What do you see?"):
    part = {"type": "image_url", "image_url": {"url": uri(picture), "detail": "high"}}
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": text}, part]},
    ]


def chat(picture, **more):
    return {"model": "nano", "messages": messages_about(picture), "crop": "none", **more}


def post(url, **body):
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=TIMEOUT)


def refusal(reply, status, code):
    """Check that a reply is an error in OpenAI's format; return it."""
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["code"] == code
    return error


def test_openais_client_gets_the_predictors_answer(client, predictor):
    picture = crops(24)[3]
    reply = client.chat.completions.create(
        model="nano",
        messages=messages_about(picture),
        user="ann",
        metadata={"a": "b"},
        top_p=1,
        extra_body={"crop": "none"},
    )
    (direct,) = predictor([picture], crop="none")
    (choice,) = reply.choices
    assert choice.message.content == direct.text and choice.finish_reason == "stop"
    ids = predictor.bundle.tokenizer(direct.text, add_special_tokens=False)["input_ids"]
    assert reply.usage.completion_tokens == len(ids) and reply.usage.prompt_tokens > 40
    assert reply.usage.total_tokens == len(ids) + reply.usage.prompt_tokens
    assert reply.model == "nano" and predictor.prompt.sha256[:8] in reply.system_fingerprint
    assert [model.id for model in client.models.list()] == ["nano"] and client.models.retrieve("nano").id == "nano"


def test_a_clients_text_does_not_change_the_answer(url):
    picture = crops(24)[3]
    replies = [
        post(url, **{**chat(picture), "messages": messages_about(picture, text)}) for text in ("Hello", "Say no")
    ]
    assert len({reply.json()["choices"][0]["message"]["content"] for reply in replies}) == 1


def test_a_stream_has_the_same_answer(client):
    messages, more = messages_about(crops(24)[4]), {"crop": "none", "mode": "numbers"}
    whole = client.chat.completions.create(model="nano", messages=messages, extra_body=more)
    chunks = list(
        client.chat.completions.create(
            model="nano", messages=messages, stream=True, stream_options={"include_usage": True}, extra_body=more
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    ends = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert ends[-1] == "stop" and set(ends[:-1]) == {None}
    assert chunks[-1].usage == whole.usage and all(chunk.usage is None for chunk in chunks[:-1])


def test_samples_are_reproducible_and_equal_the_predictors(client, predictor):
    picture, more = crops(24)[5], {"crop": "none", "mode": "numbers"}
    numbers = Predictor(predictor.bundle, mode="numbers")
    direct = [each.text for each in numbers([picture], crop="none", temperature=0.8, seed=11, answers=3)]

    def sample(**settings):
        reply = client.chat.completions.create(
            model="nano", messages=messages_about(picture), temperature=0.8, extra_body=more, **settings
        )
        return [choice.message.content for choice in reply.choices]

    assert sample(n=3, seed=11) == direct and sample(seed=11) == direct[:1]
    assert sample() != sample(), "without a seed each request has its own"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_max_tokens_cuts_the_answer(client, name):
    def ask(**limit):
        return client.chat.completions.create(
            model="nano", messages=messages_about(crops(24)[6]), extra_body={"crop": "none", "mode": "numbers"}, **limit
        )

    whole, cut = ask(), ask(**{name: 12})
    assert cut.choices[0].finish_reason == "length" and cut.usage.completion_tokens == 12
    assert 10 < len(cut.choices[0].message.content) < len(whole.choices[0].message.content)
    assert whole.choices[0].message.content.startswith(cut.choices[0].message.content)
    enough = ask(**{name: whole.usage.completion_tokens})
    assert enough.choices[0] == whole.choices[0]


def test_schemas_are_satisfied_or_refused(client, url):
    coefficient = Annotated[float, Field(ge=0, le=1)]
    Arkit = create_model("Arkit", **dict.fromkeys(NAMES, (coefficient, ...)))

    class Numbers(BaseModel, extra="forbid"):
        arkit: Arkit  # type: ignore[valid-type]

    class Mood(BaseModel):
        mood: str

    picture = crops(24)[7]
    common = dict(model="nano", messages=messages_about(picture), extra_body={"crop": "none"})  # noqa: C408
    parsed = client.chat.completions.parse(response_format=Numbers, **common)
    assert parsed.choices[0].message.parsed.arkit.jawOpen == pytest.approx(
        parse_answer(parsed.choices[0].message.content).coefficients[INDEX["jawOpen"]], abs=1e-6
    )
    for form in ({"type": "json_object"}, {"type": "text"}):
        text = client.chat.completions.create(response_format=form, **common).choices[0].message.content
        jsonschema.validate(json.loads(text), SCHEMA)
    with pytest.raises(openai.BadRequestError, match="their form cannot be changed") as refused:
        client.chat.completions.parse(response_format=Mood, **common)
    assert refused.value.code == "unsupported_schema"

    def request(schema, **more):
        format = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        return post(url, **chat(picture, response_format=format, **more))

    text = request(answer_schema("full", emotion=False)).json()["choices"][0]["message"]["content"]
    assert "muscle_movements" in text and "emotional_implication" not in text
    refusal(request(answer_schema("numbers", emotion=True), mode="full"), 400, "unsupported_schema")
    assert httpx.get(f"{url}/v1/schema?mode=numbers").json() == answer_schema("numbers", emotion=True)


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"model": "gpt-4o"}, "model_not_found", "model"),
        ({"n": 2}, "unsupported_value", "n"),
        ({"n": 9, "temperature": 1}, "unsupported_value", "n"),
        ({"n": 17, "temperature": 1}, "bad_request", "n"),
        ({"temperature": 2.5}, "bad_request", "temperature"),
        ({"temperature": "0"}, "bad_request", "temperature"),
        ({"temperature": float("nan")}, "bad_request", "temperature"),
        ({"seed": -1}, "bad_request", "seed"),
        ({"max_tokens": 0}, "bad_request", "max_tokens"),
        ({"top_p": 0.5}, "unsupported_parameter", "top_p"),
        ({"stop": ["}"]}, "unsupported_parameter", "stop"),
        ({"logprobs": True}, "unsupported_parameter", "logprobs"),
        ({"tools": [{"type": "function"}]}, "unsupported_parameter", "tools"),
        ({"guided_json": {}}, "bad_request", "guided_json"),
        ({"mode": "words"}, "bad_request", "mode"),
        ({"crop": [1, 2, 3]}, "bad_request", "crop"),
        ({"crop": [5, 5, 5, 9]}, "bad_box", "crop"),
        ({"response_format": {"type": "json_schema"}}, "bad_request", "response_format.json_schema.schema"),
        ({"response_format": {"type": "regex"}}, "bad_request", "response_format.type"),
        ({"messages": []}, "bad_request", "messages"),
        ({"messages": [{"role": "user", "content": "Hello"}]}, "no_picture", "messages"),
        ({"messages": [{"role": "assistant", "content": "{}"}]}, "bad_request", "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "bad_request", "messages.0.content.0"),
    ],
)  # fmt: skip
def test_invalid_and_unsupported_parameters_are_refused(url, changes, code, param):
    body = json.dumps({**chat(crops(24)[0]), **changes})
    headers = {"content-type": "application/json"}
    reply = httpx.post(f"{url}/v1/chat/completions", content=body, headers=headers, timeout=TIMEOUT)
    error = refusal(reply, 404 if code == "model_not_found" else 400, code)
    assert error["param"] == param and error["type"] == "invalid_request_error" and len(error["message"]) > 10


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("https://example.org/face.png", "remote_picture"),
        ("http://169.254.169.254/latest", "remote_picture"),
        ("file:///etc/passwd", "remote_picture"),
        ("face.png", "remote_picture"),
        ("data:image/png,abc", "bad_base64"),
        ("data:image/png;base64,a", "bad_base64"),
        ("data:image/png;base64,", "empty"),
        ("data:image/png;base64," + base64.b64encode(b"GIF89a" + bytes(40)).decode(), "unsupported_format"),
        ("data:image/png;base64," + base64.b64encode(b"no picture at all").decode(), "not_a_picture"),
        ("data:image/png;base64," + base64.b64encode(png(crops(24)[0])[:300]).decode(), "damaged"),
        (uri(Image.new("RGB", (8, 8))), "too_small"),
        (uri(Image.new("RGB", (64, 64), "white")), "no_face"),
    ],
)  # fmt: skip
def test_unreadable_pictures(url, address, code):
    parts = [{"type": "image_url", "image_url": {"url": address}}]
    refusal(post(url, messages=[{"role": "user", "content": parts}]), 400, code)


def test_two_pictures_are_refused(url):
    messages = [*messages_about(crops(24)[0]), *messages_about(crops(24)[1])]
    error = refusal(post(url, messages=messages), 400, "several_pictures")
    assert error["param"] == "messages.3.content.1.image_url.url" and "2 pictures" in error["message"]


@given(
    st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)),
    st.sampled_from(["application/json", "image/png", "multipart/form-data; boundary=b", "multipart/form-data", "x"]),
    st.dictionaries(st.sampled_from(["crop", "mode", "emotion", "name", "colour"]), st.text(max_size=9), max_size=3),
)
def test_any_request_is_parsed_or_refused(body, kind, query):
    defaults = ReadOptions("full", "mean", True)
    form = b'--b\r\nContent-Disposition: form-data; name="picture"\r\n' + body + b"\r\n\r\n\r\n--b--"
    for each in (body, form):
        with contextlib.suppress(RefusedError):
            assert isinstance(parse_face(each, kind, query, defaults), Picture)
    nested = json.dumps({"messages": [{"role": "user", "content": body.decode("latin-1")}], **query}).encode()
    for each in (body, nested, b"[" * 5000 + body):
        with pytest.raises(RefusedError):
            parse_chat(each, defaults, "nano")


@pytest.mark.parametrize(
    ("crop", "message"), [("1,2,3", "at least 4 items"), ("1,2,3,4,5", "at most 4 items"), ("all", "'auto' or 'none'")]
)
def test_the_error_of_a_wrong_crop(crop, message):
    with pytest.raises(RefusedError, match=message):
        parse_face(b"", "image/png", {"crop": crop}, ReadOptions("numbers", "mean", True))


def test_an_error_never_quotes_the_picture(url):
    data = uri(crops(24)[0])
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data, "extra": data}}]}]
    reply = post(url, messages=messages)
    refusal(reply, 400, "bad_request")
    assert len(reply.text) < 400 and data[:60] not in reply.text


def test_a_picture_in_every_encoding(url, predictor, tmp_path):
    picture = crops(24)[8]
    data = png(picture)
    (direct,) = Predictor(predictor.bundle, mode="numbers", readout="median")([data], crop="none")
    options = {"mode": "numbers", "readout": "median", "crop": "none"}
    face = f"{url}/v1/face"
    file = {"picture": ("ann.png", data, "image/png")}
    replies = {
        "picture 1": httpx.post(face, params=options, content=data, headers={"content-type": "image/png"}),
        "ann.png": httpx.post(face, data=options, files=file),
        "ben.png": httpx.post(face, data=options, files=file, params={"name": "ben.png"}),
        "a": httpx.post(face, json={**options, "picture": base64.b64encode(data).decode(), "name": "a"}),
        "b": httpx.post(face, json={**options, "picture": uri(picture), "name": "b", "emotion": False}),
    }
    for name, reply in replies.items():
        assert reply.status_code == 200, reply.text
        row = reply.json()
        expected = direct.to_dict() | {"image": name}
        if name == "b":  # another prompt
            assert row.keys() == expected.keys()
        else:
            assert row["coefficients"] == expected["coefficients"]
            assert {key: row[key] for key in ("image", "status", "box", "analysis", "calibrated")} == {
                key: expected[key] for key in ("image", "status", "box", "analysis", "calibrated")
            }
            assert row["interval"].keys() == expected["interval"].keys()
    boxed = httpx.post(face, params={"crop": "4,4,60,60"}, content=data, headers={"content-type": "image/png"}).json()
    assert boxed["box"] == [4, 4, 60, 60] and boxed["analysis"]["muscle_movements"]
    again = httpx.post(face, json={"picture": uri(picture), "crop": [4, 4, 60, 60]}).json()
    assert again == boxed
    assert boxed["coefficients"] == predictor([data], crop=Box(4, 4, 60, 60))[0].to_dict()["coefficients"]


def test_the_reply_without_a_face(url):
    white = png(Image.new("RGB", (64, 64), "white"))
    reply = httpx.post(f"{url}/v1/face", files={"picture": ("w.png", white)})
    error = refusal(reply, 422, "no_face")
    row = reply.json()
    assert (row["image"], row["status"], row["coefficients"], row["analysis"]) == ("w.png", "no_face", None, None)
    assert row["reason"] == error["message"] and row["reason"].startswith("w.png: no face found")


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"x", "", 415, "unsupported_media_type"),
        (b"x", "text/plain", 415, "unsupported_media_type"),
        (b"{", "application/json", 400, "bad_request"),
        (b"[]", "application/json", 400, "bad_request"),
        (b'{"picture": "https://example.org/a.png"}', "application/json", 400, "remote_picture"),
        (b'{"picture": "", "colour": 1}', "application/json", 400, "bad_request"),
        (b"x", "multipart/form-data", 400, "bad_form"),
        (b"--a\r\nx", "multipart/form-data; boundary=a", 400, "bad_form"),
        (b"--a\r\n\r\nx\r\n--a--", "multipart/form-data; boundary=a", 400, "bad_form"),
        (b"--a--", "multipart/form-data; boundary=a", 400, "no_picture"),
        (b"--a" + b"\r\n--a" * 20 + b"--", "multipart/form-data; boundary=a", 400, "bad_form"),
        (b"", "image/png", 422, "empty"),
    ],
)  # fmt: skip
def test_unreadable_uploads(url, content, kind, status, code):
    headers = {"content-type": kind} if kind else {}
    refusal(httpx.post(f"{url}/v1/face", content=content, headers=headers), status, code)


def test_a_form_keeps_a_files_bytes(url):
    """Line ends, dashes and the start of the boundary inside a picture belong to the picture."""
    data = png(crops(24)[9]) + b"\r\n--\r\n\r\n--bound\r"  # after the end of a PNG, ignored by decoders
    head = b'--boundary\r\nContent-Disposition: form-data; name="picture"; filename="a b.png"\r\n\r\n'
    crop = b'\r\n--boundary\r\nContent-Disposition: form-data; name="crop"\r\n\r\nnone\r\n--boundary--\r\n'
    headers = {"content-type": 'multipart/form-data; boundary="boundary"'}
    row = httpx.post(f"{url}/v1/face?mode=numbers", content=head + data + crop, headers=headers).json()
    assert (row["status"], row["image"]) == ("ok", "a b.png")
    again = httpx.post(f"{url}/v1/face?mode=numbers&crop=none", content=data, headers={"content-type": "image/png"})
    assert again.json()["coefficients"] == row["coefficients"]
    two = {"content-type": "multipart/form-data; boundary=boundary"}
    refusal(httpx.post(f"{url}/v1/face", content=head + data + b"\r\n" + head + data + crop, headers=two), 400,
            "several_pictures")  # fmt: skip


async def _all(url, bodies):
    limits = httpx.Limits(max_connections=len(bodies))
    async with httpx.AsyncClient(limits=limits, timeout=TIMEOUT) as opened:
        return await asyncio.gather(*[opened.post(f"{url}/v1/chat/completions", json=body) for body in bodies])


def test_each_of_200_concurrent_requests_gets_its_own_answer(predictor):
    numbers = Predictor(predictor.bundle, mode="numbers")
    direct = [each.text for each in numbers(crops(50), crop="none")]
    assert len(set(direct)) == 50
    with running_server(numbers) as (url, service):
        replies = asyncio.run(_all(url, [chat(picture) for picture in crops(50) * 4]))
        assert {reply.status_code for reply in replies} == {200}
        found = [reply.json()["choices"][0]["message"]["content"] for reply in replies]
        assert_same_answers(found, direct * 4)
        assert service.slots_taken == 0


def test_requests_beyond_the_slots_are_refused(predictor):
    numbers = Predictor(predictor.bundle, mode="numbers")
    direct = [each.text for each in numbers(crops(40), crop="none")]
    with running_server(numbers, slots=8) as (url, service), Gate(numbers) as gate:
        refused = threading.Semaphore(0)

        async def one(opened, body):
            reply = await opened.post(f"{url}/v1/chat/completions", json=body)
            if reply.status_code == 429:
                refused.release()
            return reply

        async def send_all():
            limits = httpx.Limits(max_connections=40)
            async with httpx.AsyncClient(limits=limits, timeout=TIMEOUT) as opened:
                pending = asyncio.gather(*[one(opened, chat(picture)) for picture in crops(40)])
                # The model is blocked until all requests beyond the slots have been refused.
                await asyncio.to_thread(lambda: [refused.acquire(timeout=TIMEOUT) for _ in range(32)])
                gate.open.set()
                return await pending

        replies = asyncio.run(send_all())
        statuses = [reply.status_code for reply in replies]
        assert (statuses.count(200), statuses.count(429)) == (8, 32)
        answered = [(reply, text) for reply, text in zip(replies, direct, strict=True) if reply.status_code == 200]
        found = [reply.json()["choices"][0]["message"]["content"] for reply, _ in answered]
        assert_same_answers(found, [text for _, text in answered])
        for reply in replies:
            if reply.status_code != 200:
                error = refusal(reply, 429, "queue_full")
                assert error["type"] == "rate_limit_error" and 1 <= int(reply.headers["retry-after"]) <= 60
        assert service.slots_taken == 0
        with contextlib.ExitStack() as stack:
            opened = stack.enter_context(openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0))
            for _ in range(8):
                stack.enter_context(service.acquire_slot())
            with pytest.raises(openai.RateLimitError, match="8 slots are in use"):
                opened.chat.completions.create(model="nano", messages=messages_about(crops(40)[0]))


def test_disconnected_and_timed_out_requests_are_not_read(predictor):
    numbers = Predictor(predictor.bundle, mode="numbers")
    with (
        running_server(numbers, Limits(timeout=1.0), batch_size=1) as (url, service),
        Gate(numbers) as gate,
        httpx.Client(timeout=TIMEOUT) as opened,
    ):
        error = refusal(opened.post(f"{url}/v1/chat/completions", json=chat(crops(24)[0])), 504, "timeout")
        assert "within 1 s" in error["message"]
        late = refusal(opened.post(f"{url}/v1/chat/completions", json=chat(crops(24)[0])), 504, "timeout")
        assert late == error and service.slots_taken == 0 and len(gate.batches) == 1
        body = json.dumps(chat(crops(24)[1])).encode()
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as line:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            line.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            _until(lambda: service._queue)
        with socket.create_connection((host, int(port))) as line:
            line.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-1])
            line.settimeout(TIMEOUT)
            assert b" 408 " in line.recv(40)
        _until(lambda: not service._queue and service.slots_taken == 0)
        # A connection without a complete request is closed, whether it is the first request on it or a later one.
        for start in (b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            with socket.create_connection((host, int(port))) as line:
                line.settimeout(TIMEOUT)
                line.sendall(start)
                if start:
                    assert b" 200 " in line.recv(4096)
                line.sendall(b"GET /health HT")
                while line.recv(4096):
                    pass
        gate.open.set()
        row = opened.post(f"{url}/v1/face?crop=none", content=png(crops(24)[2]), headers={"content-type": "image/png"})
        assert row.status_code == 200 and len(gate.batches) == 2


def _until(holds):
    """Wait until a condition set by another thread holds."""
    moment = threading.Event()
    for _ in range(TIMEOUT * 100):
        if holds():
            return
        moment.wait(0.01)
    pytest.fail("timeout")


def test_the_benchmark_counts_mixed_and_lost_replies():
    benchmark = load_script("eval/speed/serve.py")
    texts = [format_answer(np.full(52, value), None) for value in (0.2, 0.21, 0.5)]

    def reply(text, status=200):
        return httpx.Response(status, json={"choices": [{"message": {"content": text}}]})

    tally = benchmark.Tally(16)
    tally.add([reply(text) for text in texts], texts)
    assert (tally.asked, tally.same, tally.mixed, tally.lost, tally.largest) == (3, 3, 0, 0, 0)
    tally.add([reply(texts[1]), reply(texts[2]), reply(texts[0][:-9]), reply(texts[0], 429)], [texts[0]] * 4)
    assert (tally.asked, tally.same, tally.mixed, tally.lost, tally.largest) == (7, 3, 2, 1, 1)
    row = {"at_once": 16, "requests_per_second": 9.0, "ratio": 0.5, "median_ms": 1.0, "p95_ms": 2.0}
    row |= {"asked": 7, "same": 3, "mixed": 2, "lost": 1, "largest": 1.0}
    part = {"work": "full", "predictor_per_second": 18.0, "rows": [row]}
    summary = benchmark.figures([part, part], {"refused": 4})
    assert (summary["ratio_full"], summary["mixed"], summary["lost"], summary["beyond_refused"]) == (0.5, 4, 2, 4)


@pytest.fixture(scope="module")
def guarded(predictor):
    limits = Limits(max_bytes=20_000, timeout=TIMEOUT, hosts=("faces.example",), key="k" * 20)
    with running_server(predictor, limits) as (url, _):
        yield url


KEY = {"authorization": "Bearer " + "k" * 20}


def test_large_requests_are_refused_with_or_without_content_length(guarded):
    face = f"{guarded}/v1/face"
    headers = KEY | {"content-type": "image/png"}
    error = refusal(httpx.post(face, content=bytes(20_001), headers=headers), 413, "too_large")
    assert "0.019" in error["message"]
    refusal(httpx.post(face, content=iter([bytes(9000)] * 3), headers=headers), 413, "too_large")
    assert httpx.post(face, content=png(crops(24)[0]), headers=headers).status_code in (200, 422)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "invalid_api_key"),
        ({"authorization": "Bearer wrong"}, 401, "invalid_api_key"),
        ({"authorization": "Bearer é"}, 401, "invalid_api_key"),
        ({"authorization": "Basic " + "k" * 20}, 401, "invalid_api_key"),
        (KEY | {"host": "evil.example"}, 403, "unknown_host"),
        (KEY | {"host": ""}, 403, "unknown_host"),
        (KEY | {"host": "faces.example.evil.example:8000"}, 403, "unknown_host"),
        (KEY | {"origin": "https://evil.example"}, 403, "foreign_origin"),
        (KEY | {"origin": "null"}, 403, "foreign_origin"),
        (KEY | {"sec-fetch-site": "cross-site"}, 403, "foreign_origin"),
        (KEY, 200, ""),
        (KEY | {"host": "Faces.Example:8000"}, 200, ""),
        (KEY | {"host": "[::1]:8000"}, 200, ""),
        (KEY | {"host": "localhost", "origin": "http://localhost", "sec-fetch-site": "same-origin"}, 200, ""),
    ],
)  # fmt: skip
def test_requests_without_access_are_refused(guarded, headers, status, code):
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    reply = httpx.get(f"{guarded}/v1/models", headers=raw)
    assert "access-control-allow-origin" not in reply.headers and reply.headers["cache-control"] == "no-store"
    if status == 200:
        assert reply.status_code == 200
    else:
        refusal(reply, status, code)
        assert ("www-authenticate" in reply.headers) == (status == 401)


def test_health_needs_no_key_and_reveals_nothing(guarded, url):
    for path in ("/health", "/ready"):
        assert httpx.get(guarded + path).json() == {"status": "ready", "model": "nano", "taken": 0, "places": 256}
    assert httpx.get(f"{guarded}/openapi.json").status_code == 401
    refusal(httpx.get(f"{url}/v1/nothing"), 404, "not_found")
    refusal(httpx.get(f"{url}/v1/face"), 405, "method_not_allowed")
    refusal(httpx.get(f"{url}/docs"), 404, "not_found")
    refusal(httpx.post(f"{url}/v1/chat/completions", content="{}"), 415, "unsupported_media_type")


def test_the_openapi_document_matches_the_replies(url, guarded):
    document = httpx.get(f"{url}/openapi.json").json()
    assert document["openapi"].startswith("3.1") and "security" not in document
    assert httpx.get(f"{guarded}/openapi.json", headers=KEY).json()["security"] == [{"key": []}]
    schemas = document["components"]["schemas"]

    def validate(name, value):
        jsonschema.validate(value, {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}})

    paths = document["paths"]
    assert set(paths) == {"/v1/chat/completions", "/v1/face", "/v1/models", "/v1/models/{name}", "/v1/schema",
                          "/health", "/ready"}  # fmt: skip
    for path in ("/v1/chat/completions", "/v1/face"):
        content = paths[path]["post"]["requestBody"]["content"]["application/json"]
        validate(content["schema"]["$ref"].rpartition("/")[2], content["example"])
    data = png(crops(24)[10])
    validate("ChatRequest", chat(crops(24)[10], temperature=0.5, n=2))
    validate("Completion", post(url, **chat(crops(24)[10])).json())
    face = httpx.post(f"{url}/v1/face?crop=none", content=data, headers={"content-type": "image/png"}).json()
    validate("FaceReply", face)
    validate("Models", httpx.get(f"{url}/v1/models").json())
    validate("Refusal", post(url, messages=[]).json())
    for wrong in (face | {"status": 1}, face | {"coefficients": {"jawOpen": 2}}, {"image": "a"}):
        with pytest.raises(jsonschema.ValidationError):
            validate("FaceReply", wrong)
    named = {each["name"] for each in paths["/v1/face"]["post"]["parameters"]}
    assert named == {"mode", "readout", "emotion", "crop", "name"}


def test_a_server_without_emotion_never_gives_one(predictor):
    silent = Predictor(predictor.bundle, emotion=False)
    with running_server(silent) as (url, _):
        text = post(url, **chat(crops(24)[0])).json()["choices"][0]["message"]["content"]
        assert "emotional_implication" not in text and "analysis" in text
        error = refusal(post(url, **chat(crops(24)[0], emotion=True)), 400, "no_emotion")
        assert error["param"] == "emotion"


def test_the_command_serves_and_answers_pending_requests_on_shutdown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_text("q" * 24 + "\n")

    def ask(url):
        with openai.OpenAI(base_url=f"{url}/v1", api_key="q" * 24, max_retries=0) as opened:
            reply = opened.chat.completions.create(
                model="mine", messages=messages_about(crops(24)[0]), extra_body={"crop": "none"}
            )
        assert set(json.loads(reply.choices[0].message.content)) == {"arkit"}
        # This request starts before the signal; its last byte is sent after it.
        body = json.dumps(chat(crops(24)[0], model="mine")).encode()
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as line:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {'q' * 24}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            line.sendall(head.encode() + body[:-1])
            _until(lambda: httpx.get(f"{url}/health").json()["taken"] == 1)
            os.kill(os.getpid(), signal.SIGTERM)
            line.settimeout(TIMEOUT)
            _until(lambda: _refuses(host, int(port)))
            line.sendall(body[-1:])
            answer = b""
            while part := line.recv(65536):
                answer += part
        return url, answer

    args = ["serve", "--port", "0", "--mode", "numbers", "--name", "mine", "--api-key-file", "key"]
    before = signal.getsignal(signal.SIGTERM)
    url, answer = run_serve_command(["semanticface", *args], monkeypatch, ask, stop=None)
    assert answer.startswith(b"HTTP/1.1 200") and b"jawOpen" in answer
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"mine answers at {url}/v1 ") and "Ctrl-C" in lines[0]
    assert lines[-1] == "All accepted requests are answered." and signal.getsignal(signal.SIGTERM) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key"], "nothing is written"


def _refuses(host, port):
    try:
        socket.create_connection((host, port)).close()
    except OSError:
        return True
    return False


def test_errors_of_the_command(capsys, tmp_path, monkeypatch):
    def error(*args):
        assert main(["serve", *map(str, args)]) == 2
        return capsys.readouterr().err

    assert "nothing/here" in error("--model", "nothing/here", "--port", 0)
    short = tmp_path / "key"
    short.write_text("abc")
    assert "at least 16" in error("--api-key-file", short)
    assert "No such file" in error("--api-key-file", tmp_path / "none")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "cannot listen on 127.0.0.1" in error("--port", taken.getsockname()[1])
    assert "cannot listen on nowhere.invalid" in error("--host", "nowhere.invalid")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "fastapi" else find(name))
    assert "pip install 'semanticface[serve]'" in error()


def test_a_warning_if_other_machines_have_access(capsys):
    serve_command._warn_if_public("127.0.0.1", None)
    serve_command._warn_if_public("::1", None)
    assert capsys.readouterr().err == ""
    serve_command._warn_if_public("0.0.0.0", None)
    assert "can be reached from other machines. No key is required" in capsys.readouterr().err
    serve_command._warn_if_public("192.168.0.7", "key")
    assert "nothing is encrypted" in capsys.readouterr().err


def test_a_folder_is_served_under_its_name(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert display_name(".") == "mine"
    assert display_name(str(tmp_path / "mine")) == "mine"
    assert display_name("Qwen/Qwen3-VL-4B-Instruct") == "Qwen/Qwen3-VL-4B-Instruct"


def test_the_default_address_is_loopback():
    options = _parser().parse_args(["serve"])
    assert options.host == "127.0.0.1" and options.api_key_file is None
    with contextlib.closing(serve_command._listen(options.host, 0)) as listener:
        address, port = listener.getsockname()
        assert address == "127.0.0.1"
        with pytest.raises(SemanticFaceError, match=f"cannot listen on 127.0.0.1:{port}"):
            serve_command._listen(options.host, port)  # its model is still being loaded
