"""Stage I by a language model: the prompt, which replies are accepted, and that no request is repeated."""

import contextlib
import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import datasets
import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semanticface import arkit
from semanticface.data.describe import describe_dataset, describe_table
from semanticface.errors import ConfigError, SemanticFaceError, ServerError
from semanticface.formats import tables
from semanticface.llm import client as chat_client
from semanticface.llm.analysis_prompt import MIN_SCORE, format_measurements, judge, prompt_sha256, schema
from semanticface.llm.analysis_writer import RULES, LanguageModelWriter, Tally, WriterSettings
from semanticface.llm.chat import ChatReply, ChatServer
from semanticface.llm.client import ChatClient
from semanticface.llm.reply_cache import ReplyCache, request_key
from semanticface.prompts import load_prompt
from semanticface.semantics.analysis import Analysis, describe
from semanticface.semantics.answer import SCHEMA, parse_answer
from semanticface.semantics.faithfulness import agreement
from tests.helpers.chat_servers import chat_server
from tests.helpers.pages import commands
from tests.helpers.scripts import load_script
from tests.helpers.tiny_chat import write_tiny_chat
from tests.llm.test_client import Clock

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "stage1.md"
SCRIPT = ROOT / "data_prep" / "describe.py"
RNG = np.random.default_rng(3)
FACES = [np.where(RNG.random(52) < 0.2, RNG.random(52).round(2), 0) for _ in range(8)]
vectors = st.lists(st.integers(0, 100), min_size=52, max_size=52).map(lambda values: np.array(values) / 100)
sparse = st.dictionaries(st.integers(0, 51), st.integers(0, 100), max_size=8).map(
    lambda some: np.array([some.get(index, 0) / 100 for index in range(52)])
)


def face(**actions):
    values = np.zeros(52)
    for name, value in actions.items():
        values[arkit.INDEX[name]] = value
    return values


SMILE = face(mouthSmileLeft=0.72, mouthSmileRight=0.55, eyeSquintLeft=0.3, eyeSquintRight=0.3, jawOpen=0.25)
SMILE += face(cheekSquintLeft=0.48, cheekSquintRight=0.44, eyeLookOutLeft=0.36, eyeLookInRight=0.3)


def reworded(values, emotion=True):
    """The rule-based analysis in other words, inside a code fence."""
    text = json.dumps(describe(values, emotion=emotion).to_dict())
    synonyms = {"slightly": "a little", "strongly": "very", "raised": "lifted", "clearly": "markedly"}
    for word, synonym in synonyms.items():
        text = re.sub(rf"\b{word}\b", synonym, text)
    return f"Here it is:\n```json\n{text}\n```"


def good_replies(faces, emotion=True):
    """The replies of a good model, by user message."""
    settings = WriterSettings(emotion=emotion)
    return {settings.request(values).messages[1]["content"]: reworded(values, emotion) for values in faces}


def first_message(body):
    """The user message without the problems of an earlier attempt."""
    return body["messages"][1]["content"].partition("\n\nAn earlier answer")[0]


def client(url, **options):
    clock = Clock()
    return ChatClient(ChatServer(url, "tiny", **options), clock=clock, sleep=clock.sleep)


@pytest.mark.parametrize("emotion", [True, False])
def test_the_prompt_has_no_placeholders_and_a_valid_example(emotion):
    prompt = load_prompt("describe", emotion=emotion)
    assert prompt.user.count("{face}") == 1 and "{emotion" not in prompt.user
    (example,) = [line for line in prompt.user.splitlines() if line.startswith("{") and line != "{face}"]
    verdict = judge(example, SMILE, emotion=emotion)
    assert verdict.code == "ok", verdict
    request = WriterSettings(emotion=emotion).request(SMILE)
    words = "\n".join(message["content"] for message in request.messages)
    assert "{face}" not in words and ("emotion" in words) is emotion and ("suggest" in words) is emotion
    assert prompt_sha256(emotion=True) != prompt_sha256(emotion=False)


def test_measurements_are_listed_by_region_with_number_and_grade():
    values = face(browDownLeft=0.52, jawOpen=0.09, eyeLookOutLeft=0.3, eyeLookInRight=0.28)
    assert format_measurements(values).split("\n") == [
        "brows:",
        "- left brow lowered: clearly (0.52)",
        "eyes: relaxed",
        "gaze:",
        "- left eye looking to the subject's left: slightly (0.30)",
        "- right eye looking to the subject's left: slightly (0.28)",
        *("cheeks: relaxed", "nose: relaxed", "mouth: relaxed", "jaw: relaxed", "tongue: not visible"),
        "symmetry: asymmetric; the two sides differ most in: left brow lowered, which is more by 0.52",
        "what the muscles suggest: not clearly observable",
    ]


@pytest.mark.parametrize("name", arkit.NAMES)
@pytest.mark.parametrize("value", [0.15, 0.5, 0.95])
def test_the_wording_of_each_action_is_accepted_when_repeated(name, value):
    values = face(**{name: value})
    region = next(action.region for action in arkit.ACTIONS if action.name == name)
    (line,) = re.findall(r"- (.*): (\w+) \(", format_measurements(values))
    analysis = describe(values).to_dict()
    analysis["muscle_movements"][region] = " ".join(line)
    assert judge(json.dumps(analysis), values).code == "ok"
    assert name not in agreement(Analysis.from_dict(analysis), values).omits


def test_each_attempt_is_a_different_request():
    settings = WriterSettings(seed=7)
    first, second = settings.request(SMILE), settings.request(SMILE, 2, ("jaw: it is open",))
    assert (first.seed, second.seed) == (7, 8) and first.messages[0] == second.messages[0]
    assert second.messages[1]["content"].startswith(first.messages[1]["content"])
    assert "- jaw: it is open" in second.messages[1]["content"]
    keys = {request_key("a", first), request_key("b", first), request_key("a", second)}
    assert len(keys) == 3 and request_key("a", settings.request(SMILE.copy())) in keys


@given(vectors | sparse, st.booleans())
def test_a_rule_based_analysis_is_always_accepted(values, emotion):
    analysis = describe(values, emotion=emotion).to_dict()
    for form in (schema(emotion=emotion), SCHEMA["properties"]["analysis"]):
        assert jsonschema.Draft202012Validator(form).is_valid(analysis)
    verdict = judge(json.dumps(analysis), values, emotion=emotion)
    assert verdict.code == "ok" and verdict.analysis == describe(values, emotion=emotion)


@given(sparse, sparse)
def test_an_accepted_analysis_is_true(values, others):
    verdict = judge(json.dumps(describe(others).to_dict()), values)
    if verdict.analysis is None:
        assert verdict.problems and verdict.code in ("contradicts", "omits")
    else:
        found = agreement(verdict.analysis, values)
        assert not found.contradicts and found.score >= MIN_SCORE


def smile_reply(**changed):
    return json.dumps(describe(SMILE).to_dict() | changed)


@pytest.mark.parametrize(
    "text",
    [
        reworded(SMILE),
        f"<think>{smile_reply()} or not?</think>{smile_reply()}",
        json.dumps({"analysis": describe(SMILE).to_dict()}),
        "Sure {I think}: " + smile_reply() + " Anything else?",
        f"{'hm, ' * 10_000}</think>{smile_reply()}",
    ],
)
def test_text_around_the_object_is_ignored(text):
    assert judge(text, SMILE).code == "ok"


def test_typographic_marks_become_ascii():
    text = smile_reply(emotional_implication="joy – “quiet”\n and  the subject’s own.")
    assert judge(text, SMILE).analysis.emotional_implication == "joy - 'quiet' and the subject's own"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "JSON object"),
        ("no braces at all", "JSON object"),
        (smile_reply()[:-9], "keys"),  # the inner object is complete, the outer one is not
        ('{"a": ' * 20_000, "JSON object"),
        ("[1, 2]", "JSON object"),
        (smile_reply(extra="x"), "keys"),
        (smile_reply(symmetry=""), "empty"),
        (smile_reply(symmetry="对称"), "plain"),
        (smile_reply(symmetry="back\\slash"), "plain"),
        (smile_reply(symmetry="symmetric " * 40), "too long"),
        (smile_reply(muscle_movements={"jaw": "open"}), "muscle_movements"),
        (json.dumps({"analysis": "smile"}), "object"),
        (json.dumps(describe(SMILE, emotion=False).to_dict()), "emotional_implication"),
    ],
)
def test_a_malformed_reply_is_rejected_with_a_reason(text, why):
    verdict = judge(text, SMILE)
    assert (verdict.analysis, verdict.code) == (None, "form") and why in verdict.problems[0]
    assert "too long" in judge(text, SMILE, cut=True).problems[0]


def test_an_unrequested_emotion_is_rejected():
    verdict = judge(smile_reply(), SMILE, emotion=False)
    assert verdict.code == "form" and "not asked for" in verdict.problems[0]


def test_a_contradiction_is_reported_with_the_coefficients():
    moved = describe(SMILE).muscle_movements | {"brows": "both brows strongly raised"}
    verdict = judge(smile_reply(muscle_movements=moved), SMILE)
    assert verdict.code == "contradicts" and verdict.analysis is None
    assert verdict.problems[0].startswith("brows: both brows strongly raised (in fact inner brows raised: not at all;")


def test_omissions_are_reported_strongest_first():
    still = describe(SMILE).muscle_movements | {"mouth": "expressive", "cheeks": "expressive"}
    verdict = judge(smile_reply(expression_category="a face", muscle_movements=still), SMILE)
    assert verdict.code == "omits"
    # The symmetry mentions the left corner, but only the mouth can say how far it is pulled.
    assert verdict.problems[0] == "it leaves out: left corner pulled up, strongly (0.72)"


def test_the_symmetry_does_not_replace_a_region():
    lopsided = face(mouthSmileLeft=0.7, mouthSmileRight=0.1)
    analysis = describe(lopsided).to_dict()
    assert judge(json.dumps(analysis), lopsided).code == "ok"
    analysis["muscle_movements"]["mouth"] = "as ever"
    assert judge(json.dumps(analysis), lopsided).code == "omits"


def test_an_analysis_without_claims_is_rejected():
    analysis = dict.fromkeys(("expression_category", "emotional_implication", "symmetry"), "hm")
    analysis["muscle_movements"] = dict.fromkeys(arkit.REGIONS, "hm")
    verdict = judge(json.dumps(analysis), np.zeros(52))
    assert (verdict.code, verdict.problems) == ("omits", ("it says nothing that could be checked",))


def test_accepted_analyses_come_in_order_and_are_counted():
    answers = good_replies(FACES)
    with chat_server(lambda body: answers[first_message(body)]) as server, client(server.url, concurrency=3) as chat:
        writer = LanguageModelWriter(chat, "good")
        advanced = []
        written = writer.write(FACES, lambda: advanced.append(1))
    assert [found.writer for found in written] == ["good"] * 8 and len(advanced) == len(server.bodies) == 8
    for values, found in zip(FACES, written, strict=True):
        reply = answers[WriterSettings().request(values).messages[1]["content"]]
        assert found.analysis == judge(reply, values).analysis
        assert found.analysis != describe(values) and not agreement(found.analysis, values).contradicts
    assert writer.tally.accepted == {1: 8} and not writer.tally.fallbacks and writer.tally.tokens_out == 24
    assert server.bodies[0]["response_format"]["json_schema"]["schema"] == schema()
    assert "8 of 8 written by the model (8 at the first attempt" in str(writer.tally)


def test_a_rejected_reply_is_retried_with_its_problem():
    wrong = json.dumps(describe(face(jawOpen=0.9)).to_dict())

    def answer(body):
        return good_replies([SMILE])[first_message(body)] if body["seed"] == 1 else wrong

    with chat_server(answer) as server, client(server.url) as chat:
        writer = LanguageModelWriter(chat, "second")
        (written,) = writer.write([SMILE])
    assert (written.writer, written.attempts, written.fallback) == ("second", 2, "")
    assert [body["seed"] for body in server.bodies] == [0, 1]
    assert "jaw: fully open (in fact jaw open: slightly (0.25))" in server.bodies[1]["messages"][1]["content"]
    assert writer.tally.accepted == {2: 1} and writer.tally.failures == {"contradicts": 1}


def test_rules_are_the_fallback_after_the_last_attempt():
    wrong, tongue = json.dumps(describe(face(jawOpen=0.9)).to_dict()), face(tongueOut=0.7)
    texts = {
        first_message(body_of(SMILE)): wrong,
        first_message(body_of(tongue)): "the tongue is out",
        first_message(body_of(np.zeros(52))): (400, {}, b"no"),
    }
    with chat_server(lambda body: texts[first_message(body)]) as server, client(server.url) as chat:
        writer = LanguageModelWriter(chat, "bad", WriterSettings(attempts=2))
        written = writer.write([SMILE, tongue, np.zeros(52)])
    assert [found.writer for found in written] == [RULES] * 3 and [found.attempts for found in written] == [2, 2, 1]
    assert [found.fallback.partition(":")[0] for found in written] == ["contradicts", "form", "refused"]
    assert written[0].analysis == describe(SMILE) and written[1].analysis == describe(tongue)
    assert writer.tally.fallbacks == {"contradicts": 1, "form": 1, "refused": 1} and len(server.bodies) == 5
    assert writer.tally.failures == {"contradicts": 2, "form": 2, "refused": 1}


def body_of(values):
    return {"messages": WriterSettings().request(values).messages}


def test_equal_faces_share_a_request_and_a_second_run_sends_none(tmp_path):
    faces = [SMILE, FACES[0], SMILE.copy(), SMILE + 1e-4, FACES[0]]
    answers = good_replies(faces)
    with chat_server(lambda body: answers[first_message(body)]) as server, client(server.url) as chat:
        with ReplyCache(tmp_path / "replies.sqlite") as cache:
            first = LanguageModelWriter(chat, "m", cache=cache).write(faces)
        assert len(server.bodies) == 2
        with ReplyCache(tmp_path / "replies.sqlite") as cache:
            again = LanguageModelWriter(chat, "m", cache=cache)
            assert again.write(faces) == first and again.tally.requested == 0 and again.tally.cached == 5
            other = LanguageModelWriter(chat, "another model", cache=cache)
            other.write(faces)
    assert other.tally.requested == 2 and len(server.bodies) == 4


def test_a_failed_request_is_not_cached(tmp_path):
    answers = good_replies([SMILE])
    with ReplyCache(tmp_path / "r.sqlite") as cache:
        for answer, writer in (
            (lambda body: (400, {}, b"no"), RULES),
            (lambda body: answers[first_message(body)], "m"),
        ):
            with chat_server(answer) as server, client(server.url) as chat:
                assert LanguageModelWriter(chat, "m", cache=cache).write([SMILE])[0].writer == writer


def test_consecutive_failures_end_the_run():
    faces = [face(jawOpen=0.1 + n / 100) for n in range(60)]
    with (
        chat_server(lambda body: (500, {}, b"broken")) as server,
        client(server.url, retries=0) as chat,
        pytest.raises(ServerError, match=r"last 20 requests failed.*broken"),
    ):
        LanguageModelWriter(chat, "m").write(faces)
    assert len(server.bodies) < 30


def test_the_replies_of_a_server_that_dies_stay_in_the_cache(tmp_path):
    answers = good_replies(FACES)
    with chat_server(lambda body: answers[first_message(body)]) as server, ReplyCache(tmp_path / "r.sqlite") as cache:
        with client(server.url, concurrency=1) as chat:
            writer = LanguageModelWriter(chat, "m", cache=cache)
            with pytest.raises(ServerError, match="no longer answers"):
                writer.write(FACES, lambda: len(server.bodies) == 4 and server.stop())
        kept = len(cache)
        assert kept in (4, 5)
        with chat_server(lambda body: answers[first_message(body)]) as server, client(server.url) as chat:
            again = LanguageModelWriter(chat, "m", cache=cache)
            assert all(found.writer == "m" for found in again.write(FACES))
        assert len(server.bodies) == 8 - kept and again.tally.cached == kept


def test_a_cached_reply_is_unchanged(tmp_path):
    reply = ChatReply("wörds \x00 and lines\n", "length", 5, 6, 1.5, attempts=3)
    with ReplyCache(tmp_path / "deep" / "r.sqlite") as cache:
        assert cache.get("k") is None and not cache.path.exists() and len(cache) == 0
        cache.put("k", reply)
        cache.put("k", reply)
        assert len(cache) == 1
    with ReplyCache(tmp_path / "deep" / "r.sqlite") as cache:
        assert cache.get("k") == ChatReply(reply.text, "length", 5, 6) and cache.get("other") is None


def test_a_file_that_is_not_a_cache_is_not_touched(tmp_path):
    (tmp_path / "text").write_text("not a database, but long enough to look like one " * 9)
    with contextlib.closing(sqlite3.connect(tmp_path / "other")) as other:
        other.execute("CREATE TABLE mine (a)")
    for name in ("text", "other"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(SemanticFaceError, match=name):
            ReplyCache(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before


def write_table(path, faces, bad=()):
    lines = [",".join(("image", *arkit.NAMES))]
    lines += [",".join([f"{n}.png", *(["x"] if n in bad else map(str, values))]) for n, values in enumerate(faces)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("emotion", [True, False])
def test_each_row_of_a_table_names_its_writer(tmp_path, emotion):
    answers = good_replies(FACES[:3], emotion)  # the model fails at the fourth
    source = write_table(tmp_path / "t.csv", FACES[:4] + FACES[:1], bad=(1,))
    with (
        chat_server(lambda body: answers.get(first_message(body), "I cannot say")) as server,
        client(server.url) as chat,
    ):
        writer = LanguageModelWriter(chat, "m", WriterSettings(attempts=2, emotion=emotion))
        total, failures = describe_table(source, tmp_path / "t.jsonl", writer=writer)
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert total == 5 and len(failures) == 1 and [row["writer"] for row in rows] == ["m", None, "m", RULES, "m"]
    assert [row["attempts"] for row in rows] == [1, None, 1, 2, 1]
    assert rows[3]["fallback"].startswith("form: ") and rows[0]["fallback"] == ""
    for index in (0, 2, 3, 4):
        answer = parse_answer(rows[index]["answer"])
        assert answer.analysis.to_dict() == rows[index]["analysis"]
        assert ("emotional_implication" in rows[index]["analysis"]) is emotion
    record = json.loads((tmp_path / "t.writer.json").read_text())
    assert record["writer"] == "m" and record["prompt"]["sha256"] == prompt_sha256(emotion=emotion)
    assert record["rows"] == {"by_model": {"1": 3}, "by_rules": {"form": 1}, "attempts_that_failed": {"form": 2}}
    assert [row.label for row in tables.read_coefficients(tmp_path / "t.jsonl") if not row.error]


def test_each_row_of_a_dataset_names_its_writer(tmp_path):
    rows = [values.tolist() for values in FACES[:3]]
    whole = datasets.Dataset.from_dict({"coefficients": [*rows, [2.0] * 52], "writer": ["old"] * 4})
    datasets.DatasetDict(train=whole, test=whole.select([0])).save_to_disk(str(tmp_path / "in"))
    answers = good_replies([np.array(row, dtype=np.float32) for row in rows])
    with chat_server(lambda body: answers[first_message(body)]) as server, client(server.url) as chat:
        writer = LanguageModelWriter(chat, "m")
        total, failures = describe_dataset(tmp_path / "in", tmp_path / "out", writer=writer)
    assert total == 5 and len(failures) == 1 and len(server.bodies) in (3, 4)
    made = datasets.load_from_disk(str(tmp_path / "out"))
    assert made["train"]["writer"] == ["m", "m", "m", None] and made["train"]["attempts"] == [1, 1, 1, None]
    assert made["test"]["writer"] == ["m"] and made["train"]["status"] == ["ok", "ok", "ok", "bad_row"]
    assert parse_answer(made["train"][0]["answer"]).analysis != describe(FACES[0])
    assert json.loads((tmp_path / "out" / "writer.json").read_text())["rows"]["by_model"] == {"1": 4}


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = load_script("data_prep/describe.py")

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["describe.py", *map(str, args)])
        try:
            return module.main()
        except SystemExit as ended:
            return ended.code

    return run


def test_sending_faces_to_another_machine_must_be_confirmed(script, capsys, monkeypatch):
    write_table(Path("t.csv"), [SMILE])
    args = ("t.csv", "t.jsonl", "--writer", "https://example.org/v1", "--writer-model", "m")
    assert script(*args) == 2 and "personal data" in capsys.readouterr().err
    assert script(*args, "--allow-remote") == 2
    assert "will be sent to https://example.org/v1" in (err := capsys.readouterr().err) and "--yes" in err
    assert script(*args, "--allow-remote", "--key-env", "NO_SUCH_KEY") == 2
    assert "NO_SUCH_KEY" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert script(*args, "--allow-remote") == 2 and "nothing was sent" in capsys.readouterr().err


def test_the_target_is_checked_before_a_model_is_loaded(script, capsys):
    write_table(Path("t.csv"), [SMILE])
    datasets.Dataset.from_dict({"coefficients": [SMILE.tolist()]}).save_to_disk("faces")
    capsys.readouterr()
    for args, message in (("t.csv t.csv", "JSONL"), ("faces faces", "exists"), ("x.csv t.jsonl", "x.csv")):
        assert script(*args.split(), "--writer", "no/such-model") == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ") and message in err and "such-model" not in err


def test_options_without_effect_are_refused(script, capsys):
    write_table(Path("t.csv"), [SMILE])
    assert script("t.csv", "t.jsonl", "--attempts", "2") == 2 and "--attempts" in capsys.readouterr().err
    assert script("t.csv", "t.jsonl", "--writer", "some/model", "--writer-model", "m") == 2
    assert script("t.csv", "t.jsonl", "--writer", "http://127.0.0.1:9/v1") == 2
    assert "--writer-model" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="attempts"):
        WriterSettings(attempts=0)


def test_an_unreachable_server_is_one_error_with_the_fix(script, capsys):
    write_table(Path("t.csv"), FACES)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert script("t.csv", "t.jsonl", "--writer", f"http://127.0.0.1:{port}/v1", "--writer-model", "m") == 2
    err = capsys.readouterr().err
    assert err.count("error:") == 1 and f"127.0.0.1:{port}" in err and "Start the server" in err
    assert "to start over" in err and not Path("t.jsonl").exists()


def test_after_a_server_dies_the_same_command_resumes(script, capsys, monkeypatch):
    monkeypatch.setattr(chat_client, "_FIRST_BACKOFF", 0.001)
    write_table(Path("t.csv"), FACES)
    answers = good_replies(FACES)
    gone = threading.Event()

    def answer(body):
        if len(server.bodies) > 4:
            gone.set()
        return None if gone.is_set() else answers[first_message(body)]

    with chat_server(answer) as server:
        args = ("t.csv", "t.jsonl", "--writer", server.url, "--writer-model", "m", "--concurrency", "1")
        threading.Thread(target=lambda: gone.wait(20) and server.stop(), daemon=True).start()
        code = script(*args)
    err = capsys.readouterr().err
    if code == 0:  # the server dropped every request before its socket was closed: rules were the fallback
        pytest.fail(err)
    assert code == 2 and "4 replies are cached in t.jsonl.replies.sqlite: run the same command again to resume" in err
    assert not Path("t.jsonl").exists()
    with chat_server(lambda body: answers[first_message(body)]) as server:
        assert script("t.csv", "t.jsonl", "--writer", server.url, "--writer-model", "m") == 0
    assert len(server.bodies) == 4 and "4 replies requested, 4 from the cache" in capsys.readouterr().err
    assert {json.loads(line)["writer"] for line in Path("t.jsonl").read_text().splitlines()} == {"m"}


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_resumes_without_repeating_a_request(tmp_path, kind):
    write_table(tmp_path / "t.csv", FACES)
    answers = good_replies(FACES)
    stuck, release, asked = threading.Event(), threading.Event(), []

    def answer(body):
        if len(asked) >= 5 and not release.is_set():
            stuck.set()
            release.wait(60)
            return None
        asked.append(first_message(body))
        return answers[first_message(body)]

    with chat_server(answer) as server:
        args = ["t.csv", "t.jsonl", "--writer", server.url, "--writer-model", "m", "--concurrency", "1"]
        program = [sys.executable, SCRIPT, *args]
        with subprocess.Popen(program, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
            assert stuck.wait(60)
            run.send_signal(kind)
            _, err = run.communicate(timeout=60)
        release.set()
        assert run.returncode == (-9 if kind == signal.SIGKILL else 130) and not (tmp_path / "t.jsonl").exists()
        if kind == signal.SIGINT:
            assert "5 replies are cached" in err and "Traceback" not in err
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "3 replies requested, 5 from the cache" in done.stderr, done.stderr
    assert sorted(asked) == sorted(answers) and "8 of 8 rows described" in done.stdout


def test_every_command_of_the_page(script, monkeypatch, capsys):
    for folder in ("takes", "outputs", "models"):
        Path(folder).mkdir()
    write_table(Path("takes/take_3.csv"), FACES[:2])
    write_tiny_chat(Path("models/writer"))
    columns = {"coefficients": [values.tolist() for values in FACES[:3]]}
    datasets.Dataset.from_dict(columns).save_to_disk("outputs/faces")
    monkeypatch.setenv("MODELS_KEY", "hush")
    answers = good_replies([values.astype(np.float32) for values in FACES[:3]])
    lines = commands("stage1.md")
    assert len(lines) == 5
    with chat_server(lambda body: answers[first_message(body)]) as server:
        for args in lines:
            assert args[:2] == ["python", "data_prep/describe.py"]
            # A test server replaces the page's servers.
            given = [server.url if word.startswith("http") else word for word in args[2:]]
            assert script(*given) == 0, args
            assert Path(args[3]).exists()
    assert len(server.bodies) == 6 and {head.get("Authorization") for head in server.headers} == {None, "Bearer hush"}
    for name in ("written", "hosted"):
        assert set(datasets.load_from_disk(f"outputs/{name}")["writer"]) <= {"Qwen/Qwen3-8B", "large"}
    rows = [json.loads(line) for line in Path("outputs/take_3_written.jsonl").read_text().splitlines()]
    assert {row["writer"] for row in rows} == {RULES} and {row["attempts"] for row in rows} == {2}
    assert "hush" not in "".join(capsys.readouterr())


def test_the_page_shows_the_real_prompt():
    shown, _ = re.findall(r"```text\n(.*?)\n```", PAGE.read_text(), re.DOTALL)
    assert shown == format_measurements(face(browDownLeft=0.52, browDownRight=0.61, jawOpen=0.25))
    wrong = describe(face(browDownLeft=0.52, browDownRight=0.61, jawOpen=0.25)).to_dict()
    wrong["muscle_movements"]["jaw"] = "fully open"
    (problem,) = judge(json.dumps(wrong), face(browDownLeft=0.52, browDownRight=0.61, jawOpen=0.25)).problems
    assert f"`{problem}`" in PAGE.read_text()


def test_the_counts_on_the_page_have_the_real_format():
    tally = Tally(requested=8, tokens_in=5600, tokens_out=2400)
    tally.accepted.update({1: 4, 2: 1})
    tally.fallbacks["contradicts"] += 1
    tally.failures["contradicts"] += 4
    assert f"```text\n{tally}\n```" in PAGE.read_text()


def test_the_benchmark_rejects_damaged_texts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["stage1.py", "--rows", "40", "--out", str(tmp_path / "stage1.json")])
    assert load_script("eval/speed/stage1.py").main() == 0
    shares = json.loads(capsys.readouterr().out.splitlines()[-1])
    counts = json.loads((tmp_path / "stage1.json").read_text())["counts"]
    assert {key for key, share in shares.items() if share == 1} >= {"true_rules", "true_everyday", "true_facs"}
    damaged = {"another_face", "mirrored", "sides_exchanged", "grade_2_off", "rest_moves", "clear_at_rest",
               "clear_unsaid"}  # fmt: skip
    assert {key for key, share in shares.items() if share == 0} == {f"false_{kind}" for kind in damaged}
    assert len(shares) == len(counts) == 13 and all(sum(found.values()) >= 10 for found in counts.values())
