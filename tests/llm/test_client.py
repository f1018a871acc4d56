"""The client for chat servers, over real sockets: retries, limits, refusals, nothing lost, nothing told."""

from __future__ import annotations

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
from semanticface.llm.client import ChatClient, ChatReply, ChatRequest, ChatServer, picture_part
from tests.helpers.chat_servers import chat_server, completion

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


def ask(text="hello", **options):
    return ChatRequest([{"role": "user", "content": text}], **({"max_tokens": 9} | options))


class Clock:
    """Time that passes only while somebody sleeps."""

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


def in_turn(*answers):
    """Answer with each of these in turn, the last one from then on."""
    left = list(answers)
    return lambda body: left.pop(0) if len(left) > 1 else left[0]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- what is sent and what comes back -------------------------------------------------------------------------------


def test_a_request_arrives_as_it_was_meant_and_its_reply_is_read():
    found = completion("hi there", "length", (11, 5))
    with chat_server(lambda body: (200, {}, found)) as said, client(said.url + "/", key="secret") as asking:
        reply = asking.complete(ask("hello", schema=SCHEMA, seed=4, temperature=0.5, max_tokens=33))
    assert reply == ChatReply("hi there", "length", 11, 5, reply.seconds)
    assert said.paths == ["/v1/chat/completions"] and said.headers[0]["Authorization"] == "Bearer secret"
    form = {"name": "answer", "schema": SCHEMA, "strict": True}
    assert said.bodies == [
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": 33,
            "temperature": 0.5,
            "seed": 4,
            "response_format": {"type": "json_schema", "json_schema": form},
        }
    ]


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1/chat/completions"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1/chat/completions"),
        ("http://localhost/v1/", "http://localhost/v1/chat/completions"),
        ("https://example.org/api/v3/chat/completions", "https://example.org/api/v3/chat/completions"),
    ],
)
def test_any_spelling_of_the_root_leads_to_chat_completions(url, endpoint):
    assert ChatServer(url, "m").endpoint == endpoint


@pytest.mark.parametrize(
    ("content", "text"),
    [([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"), ("half \ud83d", "half ?")],
)
def test_content_in_parts_and_half_characters_are_read(content, text):
    with chat_server(lambda body: (200, {}, completion(content))) as said, client(said.url) as asking:
        assert asking.complete(ask()).text == text


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[1]", b'{"choices": []}', b'{"choices": [{"message": null}]}'])
def test_what_is_no_completion_is_said_to_be_none(body):
    with chat_server(lambda _: (200, {}, body)) as said, client(said.url) as asking:
        reply = asking.complete(ask())
    assert reply.status == "bad_reply" and not reply.text and len(said.bodies) == 1


def test_a_reply_without_text_and_one_that_never_ends_are_refused(monkeypatch):
    monkeypatch.setattr(chat, "MAX_REPLY_BYTES", 1000)
    monkeypatch.setattr(chat_client, "MAX_REPLY_BYTES", 1000)
    answers = in_turn((200, {}, completion(None)), (200, {}, b" " * 200_000))
    with chat_server(answers) as said, client(said.url) as asking:
        assert [asking.complete(ask()).status for _ in range(2)] == ["bad_reply", "too_large"]


def test_a_reply_says_why_there_is_nothing_in_it():
    thoughts = {"message": {"content": None, "reasoning_content": "hm"}, "finish_reason": "length"}
    answers = in_turn((200, {}, {"choices": [thoughts]}), (200, {}, b"<p>log in, hush</p>"))
    with chat_server(answers) as said, client(said.url, key="hush") as asking:
        cut, page = asking.complete(ask()), asking.complete(ask())
    assert cut.status == page.status == "bad_reply" and "allow it more tokens" in cut.reason
    assert page.reason.endswith("(it is: <p>log in, [key]</p>)")


def test_an_error_that_calls_itself_a_success_is_one():
    answers = in_turn((200, {}, {"error": {"message": "overloaded", "code": 502}}), "now")
    with chat_server(answers) as said, client(said.url) as asking:
        assert asking.complete(ask()).text == "now" and len(said.bodies) == 2
    with chat_server(lambda body: (200, {}, {"error": "overloaded"})) as said, client(said.url, retries=1) as asking:
        reply = asking.complete(ask())
    assert (reply.status, reply.attempts) == ("server_error", 2) and "overloaded" in reply.reason


def test_counts_and_words_that_no_file_could_hold_are_left_out():
    with (
        chat_server(lambda body: (200, {}, completion("x", "\ud83d", (10**30, 3)))) as said,
        client(said.url) as asking,
    ):
        reply = asking.complete(ask())
    assert (reply.finish, reply.tokens_in, reply.tokens_out) == ("?", 0, 3)


# --- trying again ---------------------------------------------------------------------------------------------------


def test_what_may_pass_is_tried_again_with_growing_patience():
    clock = Clock()
    answers = in_turn((500, {}, b"oh"), None, (503, {}, b"loading"), (429, {}, b"slow down"), "at last")
    with chat_server(answers) as said, client(said.url, clock) as asking:
        reply = asking.complete(ask())
    assert (reply.text, reply.status, reply.attempts) == ("at last", "ok", 5) and len(said.bodies) == 5
    assert clock.slept == [1, 2, 4, 8] and reply.seconds == 15


@pytest.mark.parametrize("far", [30, "date"])
def test_a_server_that_asks_for_time_gets_it(far, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_000_000_000.0)
    after = email.utils.formatdate(1_000_000_030, usegmt=True) if far == "date" else str(far)
    clock = Clock()
    with chat_server(in_turn((429, {"Retry-After": after}, b""), "yes")) as said, client(said.url, clock) as asking:
        assert asking.complete(ask()).text == "yes"
    assert clock.now == 130


def test_the_time_a_server_asks_for_holds_back_every_request():
    clock = Clock()
    with chat_server(in_turn((429, {"Retry-After": "50"}, b""), "a", "b")) as said, client(said.url, clock) as asking:
        assert asking.complete(ask()).text == "a"
        began = clock.now
        assert asking.complete(ask()).text == "b"
    assert began >= 150 and clock.now == began


@pytest.mark.parametrize(("code", "status"), [(429, "busy"), (503, "server_error"), (400, "refused")])
def test_more_patience_than_is_sensible_is_not_shown(code, status):
    clock = Clock()
    answers = in_turn((code, {"Retry-After": "86400"}, b"later"), "a")
    with chat_server(answers) as said, client(said.url, clock) as asking:
        reply = asking.complete(ask())
        assert len(said.bodies) == 1 and asking.complete(ask()).text == "a" and not clock.slept
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
def test_a_failed_request_has_a_reply_that_says_why(answer, status, asked):
    with chat_server(lambda body: answer) as said, client(said.url, retries=2) as asking:
        reply = asking.complete(ask())
    assert (reply.status, reply.attempts, len(said.bodies)) == (status, asked, asked)
    words = {"busy": "429: too many", "server_error": "502: bad gateway", "dropped": "connection broke"}
    assert words.get(status, "4") in reply.reason and not reply.text


def test_an_attempt_that_takes_too_long_is_given_up():
    release = threading.Event()
    with chat_server(lambda body: str(release.wait(20))) as said:
        with client(said.url, timeout=0.2, retries=1) as asking:
            reply = asking.complete(ask())
        release.set()
    assert reply.status == "timeout" and "0.2 s" in reply.reason and len(said.bodies) == 2


# --- what holds for every request -----------------------------------------------------------------------------------


def test_nobody_there_is_one_error_at_once():
    clock, port = Clock(), free_port()
    drawn = []

    def requests():
        for n in range(100):
            drawn.append(n)
            yield n, ask()

    told = pytest.raises(ServerError, match=rf"127.0.0.1:{port}.*Start the server")
    with client(f"http://127.0.0.1:{port}/v1", clock) as asking, told:
        list(asking.complete_many(requests()))
    assert len(drawn) <= 8 and not clock.slept


def test_a_server_that_dies_half_way_leaves_what_it_answered():
    got = []
    with (
        chat_server(lambda body: body["messages"][0]["content"]) as said,
        client(said.url, concurrency=1) as asking,
        pytest.raises(ServerError, match="no longer answers"),
    ):
        for key, reply in asking.complete_many((n, ask(f"n{n}")) for n in range(10)):
            got.append((key, reply.text))
            if key == 3:
                said.stop()
    assert got[:4] == [(n, f"n{n}") for n in range(4)] and len(got) <= 5


@pytest.mark.parametrize(("code", "words"), [(401, "Check the key"), (404, "'tiny' is not there"), (302, "elsewhere")])
def test_a_wrong_key_model_or_address_stops_everything(code, words):
    answer = (code, {"Location": "http://127.0.0.1:1/"}, b'{"error": {"message": "no: s3cret-key"}}')
    with (
        chat_server(lambda body: answer) as said,
        client(said.url, key="s3cret-key", concurrency=1) as asking,
        pytest.raises(ServerError, match=words) as caught,
    ):
        list(asking.complete_many((n, ask()) for n in range(5)))
    assert len(said.bodies) == 1 and "s3cret-key" not in str(caught.value)


def test_a_schema_the_server_cannot_follow_is_left_out_from_then_on():
    def answer(body):
        if "response_format" in body:
            return 400, {}, b'{"error": {"message": "response_format json_schema is not supported"}}'
        return "free"

    with chat_server(answer) as said, client(said.url) as asking:
        assert asking.schemas
        replies = [asking.complete(ask(schema=SCHEMA)) for _ in range(3)]
    assert [reply.text for reply in replies] == ["free"] * 3 and not asking.schemas
    assert ["response_format" in body for body in said.bodies] == [True, False, False, False]
    assert {reply.attempts for reply in replies} == {1}


def test_the_newer_name_of_the_limit_is_learned():
    def answer(body):
        if "max_tokens" in body:
            return 400, {}, b'{"error": {"message": "use max_completion_tokens instead"}}'
        return str(body["max_completion_tokens"])

    with chat_server(answer) as said, client(said.url) as asking:
        assert [asking.complete(ask(max_tokens=5)).text for _ in range(2)] == ["5", "5"]
    assert len(said.bodies) == 3


# --- many at once ---------------------------------------------------------------------------------------------------


def test_many_requests_are_drawn_only_as_there_is_room_and_none_is_mixed_up():
    drawn, gate = [], threading.Barrier(3)

    def answer(body):
        gate.wait(20)  # three must be under way at once, or nobody is answered
        return body["messages"][0]["content"]

    def requests():
        for n in range(30):
            drawn.append(n)
            yield n, ask(f"n{n}")

    with chat_server(answer) as said, client(said.url, concurrency=3) as asking:
        got = {}
        for key, reply in asking.complete_many(requests()):
            got[key] = reply.text
            assert len(drawn) <= len(got) + 3
    assert got == {n: f"n{n}" for n in range(30)} and said.most == 3


def test_leaving_early_breaks_off_what_is_under_way():
    release = threading.Event()

    def answer(body):
        if body["messages"][0]["content"] != "n0":
            release.wait(20)
        return "done"

    with chat_server(answer) as said, client(said.url, concurrency=2) as asking:
        for key, _ in asking.complete_many((n, ask(f"n{n}")) for n in range(50)):
            assert key == 0
            break
        asking.close()
        assert len(said.bodies) <= 3
        release.set()


def test_requests_are_spread_over_the_minute():
    clock = Clock()
    with chat_server(lambda body: "x") as said, client(said.url, clock, per_minute=30, concurrency=1) as asking:
        assert len(list(asking.complete_many((n, ask()) for n in range(5)))) == 5
    assert clock.slept == [2, 2, 2, 2] and len(said.bodies) == 5


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


def test_ctrl_c_ends_at_once_while_a_model_thinks():
    release, asked = threading.Event(), threading.Event()

    def answer(body):
        asked.set()
        return str(release.wait(60))

    with chat_server(answer) as said:
        program = [sys.executable, "-c", INTERRUPTED, said.url]
        with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert asked.wait(60)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        release.set()
    assert out.split() == ["asking", "interrupted"] and process.returncode == 0 and not err


# --- trust ----------------------------------------------------------------------------------------------------------


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
def test_a_server_that_makes_no_sense_or_would_leak_the_key_is_refused(url, options):
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


def test_this_machine_is_not_asked_through_a_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with chat_server(lambda body: "direct") as said, client(said.url) as asking:
        assert asking.complete(ask()).text == "direct"
    assert os.environ["HTTP_PROXY"]


def test_a_picture_goes_out_without_metadata():
    picture = Image.new("RGB", (32, 32), (200, 10, 10))
    exif = picture.getexif()
    exif[0x010E] = "a secret place"
    buffer = BytesIO()
    picture.save(buffer, "JPEG", exif=exif, comment=b"a secret word")
    for form in ("JPEG", "PNG"):
        part = picture_part(buffer.getvalue(), form=form)
        assert part["type"] == "image_url"
        head, _, data = part["image_url"]["url"].partition(",")
        assert head == f"data:image/{form.lower()};base64"
        sent = b64decode(data)
        assert b"secret" not in sent and Image.open(BytesIO(sent)).size == (32, 32)
    with pytest.raises(PictureError):
        picture_part(b"not a picture")
    assert json.dumps(part)
