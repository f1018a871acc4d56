"""The client for chat servers over real sockets: retries, limits, errors, no lost reply, no leaked key."""

import email.utils
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64decode
from io import BytesIO

import pytest
from PIL import Image

from semanticface.errors import ConfigError, PictureError, ServerError
from semanticface.llm import chat
from semanticface.llm import client as chat_client
from semanticface.llm.chat import read_key
from semanticface.llm.client import ChatClient, ChatReply, ChatRequest, ChatServer, image_part
from tests.helpers.chat_servers import chat_server, completion

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


def ask(text="hello", **options):
    return ChatRequest([{"role": "user", "content": text}], **({"max_tokens": 9} | options))


class Clock:
    """Time that advances only during sleep."""

    def __init__(self):
        self.now = 100.0
        self.slept = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def client(url, clock=None, **options):
    clock = clock or Clock()
    server = ChatServer(url, "tiny", **options)
    return ChatClient(server, clock=clock, sleep=clock.sleep, jitter=lambda: 1.0)


def sequence(*answers):
    """Answer with each of these in order, then repeat the last one."""
    remaining = list(answers)
    return lambda body: remaining.pop(0) if len(remaining) > 1 else remaining[0]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_request_is_sent_and_its_reply_parsed():
    found = completion("hi there", "length", (11, 5))
    with chat_server(lambda body: (200, {}, found)) as server, client(server.url + "/", key="secret") as asking:
        reply = asking.complete(ask("hello", schema=SCHEMA, seed=4, temperature=0.5, max_tokens=33))
    assert reply == ChatReply("hi there", "length", 11, 5, reply.seconds)
    assert server.paths == ["/v1/chat/completions"] and server.headers[0]["Authorization"] == "Bearer secret"
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    said = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "response_format": form}
    assert server.bodies == [said | {"max_tokens": 33, "temperature": 0.5, "seed": 4}]


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1/chat/completions"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1/chat/completions"),
        ("http://localhost/v1/", "http://localhost/v1/chat/completions"),
        ("https://example.org/api/v3/chat/completions", "https://example.org/api/v3/chat/completions"),
    ],
)
def test_the_endpoint_for_each_form_of_url(url, endpoint):
    assert ChatServer(url, "m").endpoint == endpoint


@pytest.mark.parametrize(
    ("content", "text"),
    [([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"), ("half \ud83d", "half ?")],
)
def test_content_in_parts_and_lone_surrogates(content, text):
    with chat_server(lambda body: (200, {}, completion(content))) as server, client(server.url) as asking:
        assert asking.complete(ask()).text == text


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[1]", b'{"choices": []}', b'{"choices": [{"message": null}]}'])
def test_a_body_that_is_not_a_completion(body):
    with chat_server(lambda _: (200, {}, body)) as server, client(server.url) as asking:
        reply = asking.complete(ask())
    assert reply.status == "bad_reply" and not reply.text and len(server.bodies) == 1


def test_replies_without_text_or_of_excessive_length(monkeypatch):
    monkeypatch.setattr(chat, "MAX_REPLY_BYTES", 1000)
    monkeypatch.setattr(chat_client, "MAX_REPLY_BYTES", 1000)
    answers = sequence((200, {}, completion(None)), (200, {}, b" " * 200_000))
    with chat_server(answers) as server, client(server.url) as asking:
        assert [asking.complete(ask()).status for _ in range(2)] == ["bad_reply", "too_large"]


def test_the_reason_for_an_empty_reply():
    reasoning = {"message": {"content": None, "reasoning_content": "hm"}, "finish_reason": "length"}
    answers = sequence((200, {}, {"choices": [reasoning]}), (200, {}, b"<p>log in, hush</p>"))
    with chat_server(answers) as server, client(server.url, key="hush") as asking:
        cut, page = asking.complete(ask()), asking.complete(ask())
    assert cut.status == page.status == "bad_reply" and "allow more tokens" in cut.reason
    assert page.reason.endswith("(it is: <p>log in, [key]</p>)")


def test_an_error_with_status_200_is_retried():
    answers = sequence((200, {}, {"error": {"message": "overloaded", "code": 502}}), "now")
    with chat_server(answers) as server, client(server.url) as asking:
        assert asking.complete(ask()).text == "now" and len(server.bodies) == 2
    failing = sequence((200, {}, {"error": "overloaded"}))
    with chat_server(failing) as server, client(server.url, retries=1) as asking:
        reply = asking.complete(ask())
    assert (reply.status, reply.attempts) == ("server_error", 2) and "overloaded" in reply.reason


def test_values_that_cannot_be_stored_are_replaced():
    answers = sequence((200, {}, completion("x", "\ud83d", (10**30, 3))))
    with chat_server(answers) as server, client(server.url) as asking:
        reply = asking.complete(ask())
    assert (reply.finish, reply.tokens_in, reply.tokens_out) == ("?", 0, 3)


def test_temporary_failures_are_retried_with_backoff():
    clock = Clock()
    answers = sequence((500, {}, b"oh"), None, (503, {}, b"loading"), (429, {}, b"slow down"), "at last")
    with chat_server(answers) as server, client(server.url, clock) as asking:
        reply = asking.complete(ask())
    assert (reply.text, reply.status, reply.attempts) == ("at last", "ok", 5) and len(server.bodies) == 5
    assert clock.slept == [1, 2, 4, 8] and reply.seconds == 15


@pytest.mark.parametrize("form", [30, "date"])
def test_retry_after_is_honoured(form, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_000_000_000.0)
    after = email.utils.formatdate(1_000_000_030, usegmt=True) if form == "date" else str(form)
    clock, answers = Clock(), sequence((429, {"Retry-After": after}, b""), "yes")
    with chat_server(answers) as server, client(server.url, clock) as asking:
        assert asking.complete(ask()).text == "yes"
    assert clock.now == 130


def test_retry_after_delays_all_requests():
    clock, answers = Clock(), sequence((429, {"Retry-After": "50"}, b""), "a", "b")
    with chat_server(answers) as server, client(server.url, clock) as asking:
        assert asking.complete(ask()).text == "a"
        before = clock.now
        assert asking.complete(ask()).text == "b"
    assert before >= 150 and clock.now == before


@pytest.mark.parametrize(("code", "status"), [(429, "busy"), (503, "server_error"), (400, "refused")])
def test_a_very_long_retry_after_is_a_failure(code, status):
    clock = Clock()
    answers = sequence((code, {"Retry-After": "86400"}, b"later"), "a")
    with chat_server(answers) as server, client(server.url, clock) as asking:
        reply = asking.complete(ask())
        assert len(server.bodies) == 1 and asking.complete(ask()).text == "a" and not clock.slept
    assert reply.status == status and ("86400 s" in reply.reason) is (code != 400) and "later" in reply.reason


@pytest.mark.parametrize(
    ("answer", "status", "asked"),
    [
        ((429, {}, b'{"error": {"message": "too many"}}'), "busy", 3),
        ((502, {}, b"bad gateway"), "server_error", 3),
        (None, "dropped", 3),
        ((400, {}, b'{"detail": "context too long"}'), "refused", 1),
        ((422, {}, b'{"message": "unexpected field"}'), "refused", 1),
    ],
)
def test_a_failed_request_has_a_reason(answer, status, asked):
    with chat_server(lambda body: answer) as server, client(server.url, retries=2) as asking:
        reply = asking.complete(ask())
    assert (reply.status, reply.attempts, len(server.bodies)) == (status, asked, asked)
    reasons = {"busy": "429: too many", "server_error": "502: bad gateway", "dropped": "connection broke"}
    assert reasons.get(status, "4") in reply.reason and not reply.text


def test_an_attempt_times_out():
    release = threading.Event()
    with chat_server(lambda body: str(release.wait(20))) as server:
        with client(server.url, timeout=0.2, retries=1) as asking:
            reply = asking.complete(ask())
        release.set()
    assert reply.status == "timeout" and "0.2 s" in reply.reason and len(server.bodies) == 2


def test_an_unreachable_server_is_one_immediate_error():
    clock, port = Clock(), free_port()
    consumed = []

    def requests():
        for n in range(100):
            consumed.append(n)
            yield n, ask()

    expected = pytest.raises(ServerError, match=rf"127.0.0.1:{port}.*Start the server")
    with client(f"http://127.0.0.1:{port}/v1", clock) as asking, expected:
        list(asking.complete_many(requests()))
    assert len(consumed) <= 8 and not clock.slept


def test_replies_before_a_server_dies_are_yielded():
    got = []
    with (
        chat_server(lambda body: body["messages"][0]["content"]) as server,
        client(server.url, concurrency=1) as asking,
        pytest.raises(ServerError, match="no longer answers"),
    ):
        for key, reply in asking.complete_many((n, ask(f"n{n}")) for n in range(10)):
            got.append((key, reply.text))
            if key == 3:
                server.stop()
    assert got[:4] == [(n, f"n{n}") for n in range(4)] and len(got) <= 5


@pytest.mark.parametrize(
    ("code", "message"), [(401, "Check the key"), (404, "'tiny' does not exist"), (302, "redirects")]
)
def test_a_wrong_key_model_or_address_stops_everything(code, message):
    answer = (code, {"Location": "http://127.0.0.1:1/"}, b'{"error": {"message": "no: s3cret-key"}}')
    with (
        chat_server(lambda body: answer) as server,
        client(server.url, key="s3cret-key", concurrency=1) as asking,
        pytest.raises(ServerError, match=message) as caught,
    ):
        list(asking.complete_many((n, ask()) for n in range(5)))
    assert len(server.bodies) == 1 and "s3cret-key" not in str(caught.value)


def test_an_unsupported_schema_is_dropped():
    def answer(body):
        if "response_format" in body:
            return 400, {}, b'{"error": {"message": "response_format json_schema is not supported"}}'
        return "free"

    with chat_server(answer) as server, client(server.url) as asking:
        assert asking.schemas
        replies = [asking.complete(ask(schema=SCHEMA)) for _ in range(3)]
    assert [reply.text for reply in replies] == ["free"] * 3 and not asking.schemas
    assert ["response_format" in body for body in server.bodies] == [True, False, False, False]
    assert {reply.attempts for reply in replies} == {1}


def test_max_completion_tokens_is_used_if_required():
    def answer(body):
        if "max_tokens" in body:
            return 400, {}, b'{"error": {"message": "use max_completion_tokens instead"}}'
        return str(body["max_completion_tokens"])

    with chat_server(answer) as server, client(server.url) as asking:
        assert [asking.complete(ask(max_tokens=5)).text for _ in range(2)] == ["5", "5"]
    assert len(server.bodies) == 3


def test_requests_are_consumed_as_sent_and_replies_match():
    consumed, gate = [], threading.Barrier(3)

    def answer(body):
        gate.wait(20)  # no reply until three requests are pending
        return body["messages"][0]["content"]

    def requests():
        for n in range(30):
            consumed.append(n)
            yield n, ask(f"n{n}")

    with chat_server(answer) as server, client(server.url, concurrency=3) as asking:
        got = {}
        for key, reply in asking.complete_many(requests()):
            got[key] = reply.text
            assert len(consumed) <= len(got) + 3
    assert got == {n: f"n{n}" for n in range(30)} and server.max_concurrent == 3


def test_close_cancels_pending_requests():
    release = threading.Event()

    def answer(body):
        if body["messages"][0]["content"] != "n0":
            release.wait(20)
        return "done"

    with chat_server(answer) as server, client(server.url, concurrency=2) as asking:
        for key, _ in asking.complete_many((n, ask(f"n{n}")) for n in range(50)):
            assert key == 0
            break
        asking.close()
        assert len(server.bodies) <= 3
        release.set()


def test_per_minute_spaces_requests_evenly():
    clock = Clock()
    with chat_server(lambda body: "x") as server, client(server.url, clock, per_minute=30, concurrency=1) as asking:
        assert len(list(asking.complete_many((n, ask()) for n in range(5)))) == 5
    assert clock.slept == [2, 2, 2, 2] and len(server.bodies) == 5


INTERRUPTED = """
import sys
from semanticface.llm.client import ChatClient, ChatRequest, ChatServer
request = ChatRequest([{"role": "user", "content": "x"}], 5)
try:
    with ChatClient(ChatServer(sys.argv[1], "tiny", timeout=600)) as client:
        print("asking", flush=True)
        list(client.complete_many((n, request) for n in range(9)))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_takes_effect_during_a_request():
    release, asked = threading.Event(), threading.Event()

    def answer(body):
        asked.set()
        return str(release.wait(60))

    with chat_server(answer) as server:
        program = [sys.executable, "-c", INTERRUPTED, server.url]
        with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert asked.wait(60)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        release.set()
    assert out.split() == ["asking", "interrupted"] and process.returncode == 0 and not err


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("http://example.org/v1", {"key": "k"}),
        ("http://user:password@127.0.0.1/v1", {}),
        ("127.0.0.1:8000", {}),
        ("ftp://127.0.0.1/v1", {}),
        ("http://127.0.0.1/v1?key=1", {}),
        ("http://[::1", {}),
        ("http://user:password@[::1", {}),
        ("http://127.0.0.1/v1", {"key": "two words\n"}),
        ("http://127.0.0.1/v1", {"concurrency": 0}),
        ("http://127.0.0.1/v1", {"timeout": float("nan")}),
        ("http://127.0.0.1/v1", {"retries": -1}),
        ("http://127.0.0.1/v1", {"per_minute": 0}),
    ],
)
def test_invalid_servers_and_leaks_of_the_key_are_refused(url, options):
    with pytest.raises(ConfigError) as caught:
        ChatServer(url, "m", **options)
    assert "password@" not in str(caught.value)


def test_a_key_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("SOME_KEY", " hush\n")
    assert (read_key("SOME_KEY"), read_key(None)) == ("hush", "")
    monkeypatch.setenv("SOME_KEY", " ")
    with pytest.raises(ConfigError, match="SOME_KEY is not set"):
        read_key("SOME_KEY")


def test_a_model_must_be_named():
    with pytest.raises(ConfigError, match="name the model"):
        ChatServer("http://127.0.0.1/v1", "")


def test_a_key_is_not_printed():
    server = ChatServer("https://example.org/v1", "m", key="hush")
    assert "hush" not in repr(server) and not server.is_local
    assert ChatServer("http://[::1]:80/v1", "m", key="hush").is_local
    assert ChatServer("http://localhost/v1", "m").is_local


def test_requests_to_this_machine_bypass_proxies(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with chat_server(lambda body: "direct") as server, client(server.url) as asking:
        assert asking.complete(ask()).text == "direct"
    assert os.environ["HTTP_PROXY"]


def test_an_image_is_sent_without_metadata():
    picture = Image.new("RGB", (32, 32), (200, 10, 10))
    exif = picture.getexif()
    exif[0x010E] = "a secret place"
    buffer = BytesIO()
    picture.save(buffer, "JPEG", exif=exif, comment=b"a secret word")
    for format in ("JPEG", "PNG"):
        part = image_part(buffer.getvalue(), format=format)
        assert part["type"] == "image_url"
        head, _, data = part["image_url"]["url"].partition(",")
        assert head == f"data:image/{format.lower()};base64"
        sent = b64decode(data)
        assert b"secret" not in sent and Image.open(BytesIO(sent)).size == (32, 32)
    with pytest.raises(PictureError):
        image_part(b"not a picture")
    assert json.dumps(part)
