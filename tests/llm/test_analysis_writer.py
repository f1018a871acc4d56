"""Stage I by a language model: what it is told, what of its words may stand, and that nothing is asked twice."""

from __future__ import annotations

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
from semanticface.llm.analysis_prompt import LEAST_SCORE, face_in_words, form_sha256, judge, schema
from semanticface.llm.analysis_writer import (
    CHARACTERS_PER_TOKEN,
    RULES,
    LanguageWriter,
    Tally,
    WriterSettings,
    estimate,
)
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
    """What the rules say, as somebody else would."""
    words = json.dumps(describe(values, emotion=emotion).to_dict())
    for ours, theirs in (("slightly", "a little"), ("strongly", "very"), ("raised", "lifted"), ("clearly", "markedly")):
        words = re.sub(rf"\b{ours}\b", theirs, words)
    return f"Here it is:\n```json\n{words}\n```"


def book(faces, emotion=True):
    """What a good writer answers to a face's question, however often it is asked."""
    settings = WriterSettings(emotion=emotion)
    return {settings.request(values).messages[1]["content"]: reworded(values, emotion) for values in faces}


def question(body):
    return body["messages"][1]["content"].partition("\n\nAn earlier answer")[0]


def client(url, **options):
    clock = Clock()
    return ChatClient(ChatServer(url, "tiny", **options), clock=clock, sleep=clock.sleep)


# --- what is told ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("emotion", [True, False])
def test_the_prompt_is_whole_and_its_example_is_true(emotion):
    prompt = load_prompt("describe", emotion=emotion)
    assert prompt.user.count("{face}") == 1 and "{emotion" not in prompt.user
    (example,) = [line for line in prompt.user.splitlines() if line.startswith("{") and line != "{face}"]
    verdict = judge(example, SMILE, emotion=emotion)
    assert verdict.code == "ok", verdict
    request = WriterSettings(emotion=emotion).request(SMILE)
    words = "\n".join(message["content"] for message in request.messages)
    assert "{face}" not in words and ("emotion" in words) is emotion and ("suggest" in words) is emotion
    assert form_sha256(emotion=True) != form_sha256(emotion=False)


def test_a_face_is_told_by_region_in_numbers_and_in_grades():
    assert face_in_words(face(browDownLeft=0.52, jawOpen=0.09, eyeLookOutLeft=0.3, eyeLookInRight=0.28)) == "\n".join(
        [
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
    )


@pytest.mark.parametrize("name", arkit.NAMES)
@pytest.mark.parametrize("value", [0.15, 0.5, 0.95])
def test_what_is_told_of_an_action_is_true_when_it_is_repeated(name, value):
    values = face(**{name: value})
    region = next(action.region for action in arkit.ACTIONS if action.name == name)
    (told,) = re.findall(r"- (.*): (\w+) \(", face_in_words(values))
    words = describe(values).to_dict()
    words["muscle_movements"][region] = " ".join(told)
    assert judge(json.dumps(words), values).code == "ok"
    assert name not in agreement(Analysis.from_dict(words), values).omits


def test_another_attempt_is_another_question():
    settings = WriterSettings(seed=7)
    first, second = settings.request(SMILE), settings.request(SMILE, 2, ("jaw: it is open",))
    assert (first.seed, second.seed) == (7, 8) and first.messages[0] == second.messages[0]
    assert second.messages[1]["content"].startswith(first.messages[1]["content"])
    assert "- jaw: it is open" in second.messages[1]["content"]
    keys = {request_key("a", first), request_key("b", first), request_key("a", second)}
    assert len(keys) == 3 and request_key("a", settings.request(SMILE.copy())) in keys


# --- what may stand -------------------------------------------------------------------------------------------------


FORMS = {
    emotion: [
        jsonschema.Draft202012Validator(form) for form in (schema(emotion=emotion), SCHEMA["properties"]["analysis"])
    ]
    for emotion in (True, False)
}


@given(vectors | sparse, st.booleans())
def test_the_rules_words_always_stand(values, emotion):
    words = describe(values, emotion=emotion).to_dict()
    assert all(form.is_valid(words) for form in FORMS[emotion])
    verdict = judge(json.dumps(words), values, emotion=emotion)
    assert verdict.code == "ok" and verdict.analysis == describe(values, emotion=emotion)


@given(sparse, sparse)
def test_whatever_stands_is_true(values, others):
    verdict = judge(json.dumps(describe(others).to_dict()), values)
    if verdict.analysis is None:
        assert verdict.problems and verdict.code in ("contradicts", "omits")
    else:
        found = agreement(verdict.analysis, values)
        assert not found.contradicts and found.score >= LEAST_SCORE


def words_of(**changed):
    return json.dumps(describe(SMILE).to_dict() | changed)


@pytest.mark.parametrize(
    "text",
    [
        reworded(SMILE),
        f"<think>{words_of()} or not?</think>{words_of()}",
        json.dumps({"analysis": describe(SMILE).to_dict()}),
        "Sure {I think}: " + words_of() + " Anything else?",
    ],
)
def test_what_models_put_around_an_answer_is_passed_over(text):
    assert judge(text, SMILE).code == "ok"


def test_typographic_marks_become_plain_ones():
    text = words_of(emotional_implication="joy – “quiet”\n and  the subject’s own.")
    assert judge(text, SMILE).analysis.emotional_implication == "joy - 'quiet' and the subject's own"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "JSON object"),
        ("no braces at all", "JSON object"),
        (words_of()[:-9], "keys"),  # the inner object is whole, the outer one is not
        ('{"a": ' * 20_000, "JSON object"),
        ("[1, 2]", "JSON object"),
        (words_of(extra="x"), "keys"),
        (words_of(symmetry=""), "empty"),
        (words_of(symmetry="对称"), "plain"),
        (words_of(symmetry="back\\slash"), "plain"),
        (words_of(symmetry="symmetric " * 40), "too long"),
        (words_of(muscle_movements={"jaw": "open"}), "muscle_movements"),
        (json.dumps({"analysis": "smile"}), "object"),
        (json.dumps(describe(SMILE, emotion=False).to_dict()), "emotional_implication"),
    ],
)
def test_what_has_another_form_is_refused_with_a_reason(text, why):
    verdict = judge(text, SMILE)
    assert (verdict.analysis, verdict.code) == (None, "form") and why in verdict.problems[0]
    assert "too long" in judge(text, SMILE, cut=True).problems[0]


def test_no_emotion_may_come_where_none_was_asked_for():
    verdict = judge(words_of(), SMILE, emotion=False)
    assert verdict.code == "form" and "not asked for" in verdict.problems[0]


def test_a_contradiction_is_told_with_the_numbers():
    moved = describe(SMILE).muscle_movements | {"brows": "both brows strongly raised"}
    verdict = judge(words_of(muscle_movements=moved), SMILE)
    assert verdict.code == "contradicts" and verdict.analysis is None
    assert verdict.problems[0].startswith("brows: both brows strongly raised (in fact inner brows raised: not at all;")


def test_what_is_left_out_is_told_strongest_first():
    still = describe(SMILE).muscle_movements | {"mouth": "expressive", "cheeks": "expressive"}
    verdict = judge(words_of(expression_category="a face", muscle_movements=still), SMILE)
    assert verdict.code == "omits"
    # The symmetry speaks of the left corner, but only the mouth can say how far it is pulled.
    assert verdict.problems[0] == "it leaves out: left corner pulled up, strongly (0.72)"


def test_the_symmetry_does_not_make_good_what_a_region_leaves_out():
    lopsided = face(mouthSmileLeft=0.7, mouthSmileRight=0.1)
    words = describe(lopsided).to_dict()
    assert judge(json.dumps(words), lopsided).code == "ok"
    words["muscle_movements"]["mouth"] = "as ever"
    assert judge(json.dumps(words), lopsided).code == "omits"


def test_long_thoughts_before_an_answer_are_passed_over():
    assert judge(f"{'hm, ' * 10_000}</think>{words_of()}", SMILE).code == "ok"


def test_words_that_say_nothing_do_not_stand():
    words = dict.fromkeys(("expression_category", "emotional_implication", "symmetry"), "hm")
    words["muscle_movements"] = dict.fromkeys(arkit.REGIONS, "hm")
    verdict = judge(json.dumps(words), np.zeros(52))
    assert (verdict.code, verdict.problems) == ("omits", ("it says nothing that could be checked",))


# --- asking, again and not again ------------------------------------------------------------------------------------


def test_a_writer_s_words_are_kept_in_order_and_counted():
    answers = book(FACES)
    with chat_server(lambda body: answers[question(body)]) as said, client(said.url, concurrency=3) as chat:
        writer = LanguageWriter(chat, "good")
        advanced = []
        written = writer.write(FACES, lambda: advanced.append(1))
    assert [found.writer for found in written] == ["good"] * 8 and len(advanced) == len(said.bodies) == 8
    for values, found in zip(FACES, written, strict=True):
        assert (
            found.analysis == judge(answers[WriterSettings().request(values).messages[1]["content"]], values).analysis
        )
        assert found.analysis != describe(values) and not agreement(found.analysis, values).contradicts
    assert writer.tally.kept == {1: 8} and not writer.tally.fallbacks and writer.tally.tokens_out == 24
    assert said.bodies[0]["response_format"]["json_schema"]["schema"] == schema()
    assert "8 of 8 written by the model (8 at the first attempt" in str(writer.tally)


def test_a_wrong_answer_is_asked_again_with_its_mistake_named():
    lie = json.dumps(describe(face(jawOpen=0.9)).to_dict())

    def answer(body):
        return book([SMILE])[question(body)] if body["seed"] == 1 else lie

    with chat_server(answer) as said, client(said.url) as chat:
        writer = LanguageWriter(chat, "second")
        (written,) = writer.write([SMILE])
    assert (written.writer, written.attempts, written.fallback) == ("second", 2, "")
    assert [body["seed"] for body in said.bodies] == [0, 1]
    assert "jaw: fully open (in fact jaw open: slightly (0.25))" in said.bodies[1]["messages"][1]["content"]
    assert writer.tally.kept == {2: 1} and writer.tally.wrong == {"contradicts": 1}


def test_rules_stand_in_after_the_last_attempt_and_say_why():
    lie, tongue = json.dumps(describe(face(jawOpen=0.9)).to_dict()), face(tongueOut=0.7)
    texts = {
        question(json_of(SMILE)): lie,
        question(json_of(tongue)): "the tongue is out",
        question(json_of(np.zeros(52))): (400, {}, b"no"),
    }
    with chat_server(lambda body: texts[question(body)]) as said, client(said.url) as chat:
        writer = LanguageWriter(chat, "bad", WriterSettings(attempts=2))
        written = writer.write([SMILE, tongue, np.zeros(52)])
    assert [found.writer for found in written] == [RULES] * 3 and [found.attempts for found in written] == [2, 2, 1]
    assert [found.fallback.partition(":")[0] for found in written] == ["contradicts", "form", "refused"]
    assert written[0].analysis == describe(SMILE) and written[1].analysis == describe(tongue)
    assert writer.tally.fallbacks == {"contradicts": 1, "form": 1, "refused": 1} and len(said.bodies) == 5
    assert writer.tally.wrong == {"contradicts": 2, "form": 2, "refused": 1}


def json_of(values):
    return {"messages": WriterSettings().request(values).messages}


def test_equal_faces_are_asked_about_once_and_a_second_run_asks_nothing(tmp_path):
    faces = [SMILE, FACES[0], SMILE.copy(), SMILE + 1e-4, FACES[0]]
    answers = book(faces)
    with chat_server(lambda body: answers[question(body)]) as said, client(said.url) as chat:
        with ReplyCache(tmp_path / "replies.sqlite") as cache:
            first = LanguageWriter(chat, "m", cache=cache).write(faces)
        assert len(said.bodies) == 2
        with ReplyCache(tmp_path / "replies.sqlite") as cache:
            again = LanguageWriter(chat, "m", cache=cache)
            assert again.write(faces) == first and again.tally.asked == 0 and again.tally.remembered == 5
            other = LanguageWriter(chat, "another model", cache=cache)
            other.write(faces)
    assert other.tally.asked == 2 and len(said.bodies) == 4


def test_a_failed_request_is_not_remembered(tmp_path):
    answers = book([SMILE])
    with ReplyCache(tmp_path / "r.sqlite") as cache:
        for answer, writer in ((lambda body: (400, {}, b"no"), RULES), (lambda body: answers[question(body)], "m")):
            with chat_server(answer) as said, client(said.url) as chat:
                assert LanguageWriter(chat, "m", cache=cache).write([SMILE])[0].writer == writer


def test_a_server_that_fails_at_everything_ends_the_run():
    faces = [face(jawOpen=0.1 + n / 100) for n in range(60)]
    with (
        chat_server(lambda body: (500, {}, b"broken")) as said,
        client(said.url, retries=0) as chat,
        pytest.raises(ServerError, match=r"last 20 requests failed.*broken"),
    ):
        LanguageWriter(chat, "m").write(faces)
    assert len(said.bodies) < 30


def test_a_server_that_dies_half_way_leaves_its_replies_in_the_cache(tmp_path):
    answers = book(FACES)
    with chat_server(lambda body: answers[question(body)]) as said, ReplyCache(tmp_path / "r.sqlite") as cache:
        with client(said.url, concurrency=1) as chat:
            writer = LanguageWriter(chat, "m", cache=cache)
            with pytest.raises(ServerError, match="no longer answers"):
                writer.write(FACES, lambda: len(said.bodies) == 4 and said.stop())
        kept = len(cache)
        assert kept in (4, 5)
        with chat_server(lambda body: answers[question(body)]) as said, client(said.url) as chat:
            again = LanguageWriter(chat, "m", cache=cache)
            assert all(found.writer == "m" for found in again.write(FACES))
        assert len(said.bodies) == 8 - kept and again.tally.remembered == kept


# --- the cache ------------------------------------------------------------------------------------------------------


def test_a_reply_is_found_again_as_it_was(tmp_path):
    reply = ChatReply("wörds \x00 and lines\n", "length", 5, 6, 1.5, attempts=3)
    with ReplyCache(tmp_path / "deep" / "r.sqlite") as cache:
        assert cache.get("k") is None and not cache.path.exists() and len(cache) == 0
        cache.put("k", reply)
        cache.put("k", reply)
        assert len(cache) == 1
    with ReplyCache(tmp_path / "deep" / "r.sqlite") as cache:
        assert cache.get("k") == ChatReply(reply.text, "length", 5, 6) and cache.get("other") is None


def test_a_file_that_is_no_cache_is_left_alone(tmp_path):
    (tmp_path / "text").write_text("not a database, but long enough to look at " * 9)
    with contextlib.closing(sqlite3.connect(tmp_path / "other")) as other:
        other.execute("CREATE TABLE mine (a)")
    for name in ("text", "other"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(SemanticFaceError, match=name):
            ReplyCache(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before


# --- tables and datasets --------------------------------------------------------------------------------------------


def write_table(path, faces, bad=()):
    lines = [",".join(("image", *arkit.NAMES))]
    lines += [",".join([f"{n}.png", *(["x"] if n in bad else map(str, values))]) for n, values in enumerate(faces)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("emotion", [True, False])
def test_a_table_says_of_each_row_who_wrote_it(tmp_path, emotion):
    answers = book(FACES[:3], emotion)  # of the fourth the model knows nothing
    source = write_table(tmp_path / "t.csv", FACES[:4] + FACES[:1], bad=(1,))
    with chat_server(lambda body: answers.get(question(body), "I cannot say")) as said, client(said.url) as chat:
        writer = LanguageWriter(chat, "m", WriterSettings(attempts=2, emotion=emotion))
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
    assert record["writer"] == "m" and record["prompt"]["sha256"] == form_sha256(emotion=emotion)
    assert record["rows"] == {"by_model": {"1": 3}, "by_rules": {"form": 1}, "attempts_that_failed": {"form": 2}}
    assert [row.label for row in tables.read_coefficients(tmp_path / "t.jsonl") if not row.error]


def test_a_dataset_says_so_too(tmp_path):
    rows = [values.tolist() for values in FACES[:3]]
    whole = datasets.Dataset.from_dict({"coefficients": [*rows, [2.0] * 52], "writer": ["old"] * 4})
    datasets.DatasetDict(train=whole, test=whole.select([0])).save_to_disk(str(tmp_path / "in"))
    answers = book([np.array(row, dtype=np.float32) for row in rows])
    with chat_server(lambda body: answers[question(body)]) as said, client(said.url) as chat:
        writer = LanguageWriter(chat, "m")
        total, failures = describe_dataset(tmp_path / "in", tmp_path / "out", writer=writer)
    assert total == 5 and len(failures) == 1 and len(said.bodies) in (3, 4)
    made = datasets.load_from_disk(str(tmp_path / "out"))
    assert made["train"]["writer"] == ["m", "m", "m", None] and made["train"]["attempts"] == [1, 1, 1, None]
    assert made["test"]["writer"] == ["m"] and made["train"]["status"] == ["ok", "ok", "ok", "bad_row"]
    assert parse_answer(made["train"][0]["answer"]).analysis != describe(FACES[0])
    assert json.loads((tmp_path / "out" / "writer.json").read_text())["rows"]["by_model"] == {"1": 4}


# --- the script -----------------------------------------------------------------------------------------------------


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = load_script("data_prep/describe.py")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["describe.py", *map(str, words)])
        try:
            return module.main()
        except SystemExit as ended:
            return ended.code

    return run


def test_the_cost_comes_first_and_a_dry_run_asks_nothing(script, capsys):
    write_table(Path("t.csv"), [SMILE, SMILE, FACES[0]], bad=(2,))
    with chat_server(lambda body: pytest.fail("asked")) as said:
        words = ("t.csv", "t.jsonl", "--writer", said.url, "--writer-model", "m", "--dry-run", "--prices", "2", "10")
        assert script(*words) == 0
        assert script(*words[:-4], *words[-3:]) == 2  # nobody at the terminal to agree to the price
    out = capsys.readouterr().err
    settings = WriterSettings()
    tokens = sum(len(message["content"]) for message in settings.request(SMILE).messages) / CHARACTERS_PER_TOKEN
    said_out = len(json.dumps(describe(SMILE).to_dict())) / CHARACTERS_PER_TOKEN
    assert f"2 faces: 1 requests if every first answer stands, about {tokens:,.0f} tokens in and {said_out:,.0f}" in out
    cost = (round(tokens) * 2 + round(said_out) * 10) / 1e6
    assert f"At these prices: {cost:.2f}, at most {3 * cost:.2f}" in out and "add --yes" in out
    assert not Path("t.jsonl").exists() and not Path("t.jsonl.replies.sqlite").exists()


def test_what_is_remembered_costs_nothing(tmp_path):
    settings = WriterSettings()
    with ReplyCache(tmp_path / "r.sqlite") as cache:
        cache.put(request_key("m", settings.request(SMILE)), ChatReply("{}"))
        found = estimate([SMILE, FACES[0]], "m", settings, cache)
    assert (found.rows, found.remembered, found.requests) == (2, 1, 1) and "1 of them answered" in found.told()


def test_faces_do_not_leave_the_machine_unasked(script, capsys, monkeypatch):
    write_table(Path("t.csv"), [SMILE])
    words = ("t.csv", "t.jsonl", "--writer", "https://example.org/v1", "--writer-model", "m")
    assert script(*words) == 2 and "personal data" in capsys.readouterr().err
    assert script(*words, "--allow-remote") == 2
    assert "goes to https://example.org/v1" in (err := capsys.readouterr().err) and "--yes" in err
    assert script(*words, "--allow-remote", "--key-env", "NO_SUCH_KEY") == 2
    assert "NO_SUCH_KEY" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert script(*words, "--allow-remote") == 2 and "nothing was asked" in capsys.readouterr().err


def test_a_target_that_cannot_be_is_said_before_a_model_is_asked_or_loaded(script, capsys):
    write_table(Path("t.csv"), [SMILE])
    datasets.Dataset.from_dict({"coefficients": [SMILE.tolist()]}).save_to_disk("faces")
    capsys.readouterr()
    for words, told in ((("t.csv", "t.csv"), "JSONL"), (("faces", "faces"), "exists"), (("x.csv", "t.jsonl"), "x.csv")):
        assert script(*words, "--writer", "no/such-model") == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ") and told in err and "such-model" not in err


def test_options_that_would_do_nothing_are_refused(script, capsys):
    write_table(Path("t.csv"), [SMILE])
    assert script("t.csv", "t.jsonl", "--attempts", "2") == 2 and "--attempts" in capsys.readouterr().err
    assert script("t.csv", "t.jsonl", "--writer", "some/model", "--writer-model", "m") == 2
    assert script("t.csv", "t.jsonl", "--writer", "http://127.0.0.1:9/v1") == 2
    assert "--writer-model" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="attempts"):
        WriterSettings(attempts=0)


def test_nobody_there_is_one_error_that_names_the_way_on(script, capsys):
    write_table(Path("t.csv"), FACES)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert script("t.csv", "t.jsonl", "--writer", f"http://127.0.0.1:{port}/v1", "--writer-model", "m") == 2
    err = capsys.readouterr().err
    assert err.count("error:") == 1 and f"127.0.0.1:{port}" in err and "Start the server" in err
    assert "begins anew" in err and not Path("t.jsonl").exists()


def test_a_server_dying_half_way_ends_with_what_to_do(script, capsys, monkeypatch):
    monkeypatch.setattr(chat_client, "_FIRST_WAIT", 0.001)
    write_table(Path("t.csv"), FACES)
    answers = book(FACES)
    gone = threading.Event()

    def answer(body):
        if len(said.bodies) > 4:
            gone.set()
        return None if gone.is_set() else answers[question(body)]

    with chat_server(answer) as said:
        words = ("t.csv", "t.jsonl", "--writer", said.url, "--writer-model", "m", "--concurrency", "1")
        threading.Thread(target=lambda: gone.wait(20) and said.stop(), daemon=True).start()
        code = script(*words)
    err = capsys.readouterr().err
    if code == 0:  # the server dropped every request before its socket was gone: rules stood in
        pytest.fail(err)
    assert code == 2 and "4 replies are kept in t.jsonl.replies.sqlite: the same command goes on" in err
    assert not Path("t.jsonl").exists()
    with chat_server(lambda body: answers[question(body)]) as said:
        assert script("t.csv", "t.jsonl", "--writer", said.url, "--writer-model", "m") == 0
    assert len(said.bodies) == 4 and "4 replies asked for, 4 remembered" in capsys.readouterr().err
    assert {json.loads(line)["writer"] for line in Path("t.jsonl").read_text().splitlines()} == {"m"}


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_stopped_in_the_middle_nothing_is_asked_twice(tmp_path, kind):
    write_table(tmp_path / "t.csv", FACES)
    answers = book(FACES)
    stuck, release, asked = threading.Event(), threading.Event(), []

    def answer(body):
        if len(asked) >= 5 and not release.is_set():
            stuck.set()
            release.wait(60)
            return None
        asked.append(question(body))
        return answers[question(body)]

    with chat_server(answer) as said:
        words = ["t.csv", "t.jsonl", "--writer", said.url, "--writer-model", "m", "--concurrency", "1"]
        program = [sys.executable, SCRIPT, *words]
        with subprocess.Popen(program, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
            assert stuck.wait(60)
            run.send_signal(kind)
            _, err = run.communicate(timeout=60)
        release.set()
        assert run.returncode == (-9 if kind == signal.SIGKILL else 130) and not (tmp_path / "t.jsonl").exists()
        if kind == signal.SIGINT:
            assert "5 replies are kept" in err and "Traceback" not in err
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "3 replies asked for, 5 remembered" in done.stderr, done.stderr
    assert sorted(asked) == sorted(answers) and "8 of 8 rows described" in done.stdout


# --- docs/stage1.md -------------------------------------------------------------------------------------------------


def test_every_command_of_the_page(script, monkeypatch, capsys):
    for folder in ("takes", "outputs", "models"):
        Path(folder).mkdir()
    write_table(Path("takes/take_3.csv"), FACES[:2])
    write_tiny_chat(Path("models/writer"))
    datasets.Dataset.from_dict({"coefficients": [values.tolist() for values in FACES[:3]]}).save_to_disk(
        "outputs/faces"
    )
    monkeypatch.setenv("MODELS_KEY", "hush")
    faces = [values.astype(np.float32) for values in FACES[:3]]
    answers = book(faces)
    lines = commands("stage1.md")
    assert len(lines) == 6
    with chat_server(lambda body: answers[question(body)]) as said:
        for words in lines:
            assert words[:2] == ["python", "data_prep/describe.py"]
            # The page's servers are not here: another one stands in for each.
            given = [said.url if word.startswith("http") else word for word in words[2:]]
            assert script(*given) == 0, words
            assert Path(words[3]).exists() is ("--dry-run" not in words)
    assert len(said.bodies) == 6 and {head.get("Authorization") for head in said.headers} == {None, "Bearer hush"}
    for name in ("written", "hosted"):
        assert set(datasets.load_from_disk(f"outputs/{name}")["writer"]) <= {"Qwen/Qwen3-8B", "large"}
    rows = [json.loads(line) for line in Path("outputs/take_3_written.jsonl").read_text().splitlines()]
    assert {row["writer"] for row in rows} == {RULES} and {row["attempts"] for row in rows} == {2}
    assert "hush" not in "".join(capsys.readouterr())


def test_what_the_page_shows_is_what_is_told():
    told, _ = re.findall(r"```text\n(.*?)\n```", PAGE.read_text(), re.DOTALL)
    assert told == face_in_words(face(browDownLeft=0.52, browDownRight=0.61, jawOpen=0.25))
    wrong = describe(face(browDownLeft=0.52, browDownRight=0.61, jawOpen=0.25)).to_dict()
    wrong["muscle_movements"]["jaw"] = "fully open"
    (problem,) = judge(json.dumps(wrong), face(browDownLeft=0.52, browDownRight=0.61, jawOpen=0.25)).problems
    assert f"`{problem}`" in PAGE.read_text()


def test_the_counts_on_the_page_are_those_of_such_a_run():
    tally = Tally(asked=8, tokens_in=5600, tokens_out=2400)
    tally.kept.update({1: 4, 2: 1})
    tally.fallbacks["contradicts"] += 1
    tally.wrong["contradicts"] += 4
    assert f"```text\n{tally}\n```" in PAGE.read_text()


# --- eval/speed/stage1.py --------------------------------------------------------------------------------------


def test_what_is_damaged_does_not_stand(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["stage1.py", "--rows", "40", "--out", str(tmp_path / "stage1.json")])
    assert load_script("eval/speed/stage1.py").main() == 0
    shares = json.loads(capsys.readouterr().out.splitlines()[-1])
    counts = json.loads((tmp_path / "stage1.json").read_text())["counts"]
    assert {key for key, share in shares.items() if share == 1} >= {"true_rules", "true_everyday", "true_facs"}
    lies = {"another_face", "mirrored", "sides_exchanged", "grade_2_off", "rest_moves", "clear_at_rest", "clear_unsaid"}
    assert {key for key, share in shares.items() if share == 0} == {f"false_{lie}" for lie in lies}
    assert len(shares) == len(counts) == 13 and all(sum(found.values()) >= 10 for found in counts.values())
