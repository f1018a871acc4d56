"""Zero-shot: questions, stored replies, and the whole command on local models and real servers."""

import base64
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

from semanticface import arkit
from semanticface.errors import ConfigError, SemanticFaceError, TableError
from semanticface.evaluation import benchmark
from semanticface.evaluation.zero_shot.local import LocalModel
from semanticface.evaluation.zero_shot.pictures import benchmark_set, folder_set
from semanticface.evaluation.zero_shot.questions import (
    EXAMPLE_SUBJECT,
    MAX_EXAMPLES,
    Reply,
    estimate,
    parse_reply,
    question,
    spent,
)
from semanticface.evaluation.zero_shot.run import AnswerLog, claim, fingerprint
from semanticface.formats import tables
from semanticface.inference.predictor import Predictor
from semanticface.llm.client import ChatClient
from semanticface.semantics.analysis import describe
from semanticface.semantics.answer import SCHEMA, format_answer
from tests.helpers.chat_servers import chat_server
from tests.helpers.pages import commands
from tests.helpers.scripts import ROOT, load_script
from tests.helpers.tiny_models import smolvlm

SIZE, LIMIT = 96, 4
PEOPLE = range(benchmark.FIRST_SUBJECT, benchmark.FIRST_SUBJECT + benchmark.SUBJECTS)
COEFFICIENTS = arkit.vector({"jawOpen": 0.5, "browInnerUp": 0.3})
ANSWER = format_answer(COEFFICIENTS, describe(COEFFICIENTS))


def noise(seed=0, side=40):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_the_prompt_without_semantics_asks_for_the_same_numbers_only():
    with_, without = question("with").prompt, question("without").prompt
    actions = with_.system.partition("The 52 actions")[2]
    assert actions and without.system.partition("The 52 actions")[2] == actions
    assert "analysis" not in without.user and "emotion" not in without.user
    (shown,) = [line for line in without.user.splitlines() if line.startswith("{")]
    (other,) = [line for line in with_.user.splitlines() if line.startswith("{")]
    assert parse_reply(Reply("a", shown)).analysis is None
    assert json.loads(shown)["arkit"] == json.loads(other)["arkit"]


@pytest.mark.parametrize("semantics", ["with", "without"])
def test_few_shot_examples_have_true_answers_and_other_people(semantics):
    picture = noise()
    asked = question(semantics, examples=3, styles=("drawn",))
    turns = asked.turns(picture)
    assert [turn.role for turn in turns] == ["system", *["user", "assistant"] * 3, "user"]
    assert turns[1].text == asked.prompt.user and turns[-1].picture is picture
    assert len({turn.text for turn in turns[3::2]}) == 1
    answers = [parse_reply(Reply("a", turn.text)) for turn in turns[2::2]]
    assert all((each.status, each.analysis is not None) == ("ok", semantics == "with") for each in answers)
    assert len({each.coefficients.tobytes() for each in answers}) == 3
    assert PEOPLE.stop <= EXAMPLE_SUBJECT
    assert EXAMPLE_SUBJECT + MAX_EXAMPLES < 9_000_000
    face = question(semantics, examples=1, crop="face").turns(picture)[1].picture
    assert face.width == face.height < 512
    records = [question(semantics, examples=k, styles=("drawn",)).record() for k in (0, 2, 3)]
    assert len({json.dumps(each) for each in records}) == 3
    with pytest.raises(ValueError, match="0 to 16"):
        question(semantics, examples=17)


@pytest.mark.parametrize("emotion", [True, False])
def test_the_schema_accepts_true_answers_and_requires_every_key(emotion):
    schema = question("with", emotion=emotion).schema()
    answer = json.loads(format_answer(COEFFICIENTS, describe(COEFFICIENTS, emotion=emotion)))
    jsonschema.validate(answer, schema)
    jsonschema.validate(answer, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            json.loads(format_answer(COEFFICIENTS, describe(COEFFICIENTS, emotion=not emotion))), schema
        )
    numbers = question("without").schema()
    jsonschema.validate(json.loads(format_answer(COEFFICIENTS, None)), numbers)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(answer, numbers)

    def objects(value):
        if isinstance(value, dict):
            yield from [value] if value.get("type") == "object" else []
            for part in value.values():
                yield from objects(part)

    # OpenAI's strict mode requires this of every object.
    assert all(each["required"] == list(each["properties"]) for each in objects(schema))
    assert not any(each["additionalProperties"] for each in objects(schema))
    assert "minLength" not in json.dumps(schema)


def test_a_parsed_reply_is_an_answer_or_has_a_reason():
    good = parse_reply(Reply("a.png", f"Here it is:\n```json\n{ANSWER}\n```"))
    assert good.status == "ok" and np.allclose(good.coefficients, COEFFICIENTS)
    assert good.analysis == describe(COEFFICIENTS)
    assert parse_reply(Reply("a.png", ANSWER), emotion=False).analysis.emotional_implication is None
    for text, code in (("I cannot see a face.", "no_json"), (ANSWER[:-9], "truncated"),
                       (ANSWER.replace("0.50", "1.50"), "out_of_range")):  # fmt: skip
        bad = parse_reply(Reply("a.png", text))
        assert (bad.status, bad.coefficients) == (code, None)
        assert bad.reason.startswith("a.png: ")
    silent = parse_reply(Reply("a.png", status="timeout", reason="no answer"))
    assert (silent.status, silent.reason) == ("timeout", "a.png: no answer")


def test_the_estimate_counts_pictures_examples_and_text():
    few, many = estimate(question("without"), 10, 512), estimate(question("without", examples=2), 10, 512)
    assert few.requests == many.requests == 10
    assert many.tokens_in > few.tokens_in + 10 * 2 * 512 * 512 / 28**2
    assert estimate(question("with"), 10, 512).tokens_out > few.tokens_out
    both = few + many
    assert both.summary((1, 2)).endswith(f"{(both.tokens_in + 2 * both.tokens_out) / 1e6:.2f} at the price given")
    assert spent(2_000_000, 1000) == "2.00 million tokens in and 1,000 out"


def test_replies_are_kept_and_only_missing_ones_are_queried(tmp_path):
    path = tmp_path / "with" / "toon.jsonl"
    replies = {"a": Reply("a", ANSWER, seconds=1.25, tokens_in=7, tokens_out=3), "b": Reply("b", "no"),
               "c": Reply("c", status="timeout", reason="late", attempts=5)}  # fmt: skip
    with AnswerLog(path) as log:
        for reply in replies.values():
            log.add(reply, parse_reply(reply), "print")
    text = path.read_text()
    path.write_text(text + '{"image": "d", "status": "ok", "coef')  # killed while writing
    with AnswerLog(path) as log:
        # b has a reply, although no answer; c has none.
        assert [(name, "print") in log for name in "abcd"] == [True, True, False, False]
        assert ("a", "another picture") not in log
        assert [log.reply(name).status for name in "abcd"] == ["ok", "no_json", "timeout", "not_asked"]
        assert np.array_equal(log.reply("a").coefficients, COEFFICIENTS)
        assert log.reply("a").analysis == describe(COEFFICIENTS)
        assert log.tokens(["a", "b"]) == (7, 3)
        late = Reply("c", ANSWER)
        log.add(late, parse_reply(late), "print")
    assert path.read_text().startswith(text) and len(path.read_text().splitlines()) == 4
    with AnswerLog(path) as log:
        assert log.reply("c").status == "ok"
    assert [row.label for row in tables.read_coefficients(path) if row.coefficients is not None] == ["a", "c"]
    for damage in ("garbage", '{"image": "a"}', '{"image": "a", "status": "ok", "box": [1]}'):
        path.write_text(f"{damage}\n{text}")
        with pytest.raises(TableError, match=r"toon\.jsonl, line 1.*Remove that line"):
            AnswerLog(path)


def test_a_full_disk_is_reported_and_earlier_replies_stay(tmp_path):
    path = tmp_path / "toon.jsonl"
    reply = Reply("a", ANSWER)
    with AnswerLog(path) as log:
        log.add(reply, parse_reply(reply), "print")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, hard))
    try:
        with pytest.raises(SemanticFaceError, match="Free some space"), AnswerLog(path) as log:
            log.add(replace(reply, image="b"), parse_reply(reply), "print")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with AnswerLog(path) as log:
        assert [(name, "print") in log for name in "ab"] == [True, False]


def test_replies_to_another_question_are_not_mixed(tmp_path):
    claim(tmp_path, {"question": 1, "reader": "x"})
    claim(tmp_path, {"question": 2, "reader": "x"})  # no replies yet
    (tmp_path / "toon.jsonl").write_text("{}\n")
    claim(tmp_path, {"question": 2, "reader": "x"})
    with pytest.raises(ConfigError, match=r"another question \(question differ"):
        claim(tmp_path, {"question": 1, "reader": "x"})


def test_a_folder_of_pictures_with_labels(tmp_path):
    for name in ("b.png", "a.png", "c.png"):
        noise().save(tmp_path / name)
    assert folder_set(tmp_path, 9).true is None
    rows = [tables.RowResult("elsewhere/b.png", coefficients=COEFFICIENTS),
            tables.RowResult("gone.png", "no_face", "no"),
            *(tables.RowResult(name, coefficients=COEFFICIENTS * 0) for name in ("b.png", "c.png", "B.png")),
            ]  # fmt: skip
    tables.write(tmp_path / "labels.jsonl", rows)
    found = folder_set(tmp_path, 2)
    assert found.names == ("a.png", "b.png")
    assert np.isnan(found.true[0]).all() and np.array_equal(found.true[1], COEFFICIENTS)
    left_out, *bad, unknown = found.problems
    assert (
        "first 2 of the 3 pictures" in left_out and "1 labels of pictures that are not here, such as 'B.png'" in unknown
    )
    assert len(bad) == 2 and "line 2" in bad[0] and "line 3" in bad[1]
    assert len(folder_set(tmp_path, 3).problems) == 3


async def no_sleep(seconds):
    """Do not wait."""


@pytest.fixture(scope="module")
def few_people():
    """Fifty of the benchmark's 100,000 people, which are checked at each start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "SUBJECTS", 50)
        yield


@pytest.fixture(scope="module")
def rendered(tmp_path_factory, few_people):
    """Small versions of the benchmark's sets, and their folder."""
    folder = tmp_path_factory.mktemp("faces")
    return {key: benchmark_set(folder, key, LIMIT, size=SIZE) for key in ("toon", "drawn")}, folder


@pytest.fixture
def script(monkeypatch, few_people):
    module = load_script("eval/zero_shot.py")
    monkeypatch.setattr(module, "SIZE", SIZE)
    monkeypatch.setattr(module, "LABELS_FOR_CONSTANTS", 50)
    monkeypatch.setattr(module, "ChatClient", partial(ChatClient, sleep=no_sleep))
    return module


def picture_of(body):
    """Return the last picture of a request."""
    last = body["messages"][-1]["content"]
    assert [part["type"] for part in last] == ["image_url", "text"]
    head, _, data = last[0]["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert not picture.info and not picture.getexif()
        return picture.convert("RGB")


def oracle(sets):
    """Return two functions of a request: its true answer, and the name of its picture."""
    known = {fingerprint(each.load(i)): (each.names[i], each.true[i]) for each in sets for i in range(len(each.names))}

    def name(body):
        return known[fingerprint(picture_of(body))][0]

    def answer(body):
        true = np.round(known[fingerprint(picture_of(body))][1], 2)
        analysis = describe(true) if "analysis" in body["messages"][1]["content"][-1]["text"] else None
        return format_answer(true, analysis)

    return answer, name


def last_line(capsys):
    printed = capsys.readouterr()
    return json.loads(printed.out.splitlines()[-1]), printed.err


def test_a_server_with_rate_limits_failures_and_invalid_replies(script, rendered, tmp_path, capsys):
    sets, folder = rendered
    truth, name = oracle(sets.values())
    seen = {}

    def answer(body):
        picture = name(body)
        seen[picture] = seen.get(picture, 0) + 1
        if picture == "toon/1" and seen[picture] < 3:
            return 429, {"Retry-After": "0"}, {"error": {"message": "slow down"}}
        if picture == "toon/2":
            return "What a lovely face!"
        if picture == "drawn/3":
            return 500, {}, b"broken"
        return truth(body)

    with chat_server(answer) as server:
        words = ["--url", server.url, "--model", "some/vlm", "--faces", str(folder), "--out", str(tmp_path)]
        words += ["--limit", str(LIMIT), "--semantics", "with", "--retries", "2"]
        assert script.main([*words, "--estimate"]) == 0
        assert "8 replies to get, about" in capsys.readouterr().err and not server.bodies
        assert script.main(words) == 1
        found, err = last_line(capsys)
        assert seen == {**{f"{key}/{i}": 1 for key in sets for i in range(LIMIT)}, "toon/1": 3, "drawn/3": 3}
        schema = question("with").schema()
        assert all(body["response_format"]["json_schema"]["schema"] == schema for body in server.bodies)
        assert found == {
            "toon_with_corr": pytest.approx(found["toon_with_corr"]), "toon_with_mae": found["toon_with_mae"],
            "toon_with_valid": 0.75, "drawn_with_corr": found["drawn_with_corr"],
            "drawn_with_mae": found["drawn_with_mae"], "drawn_with_valid": 0.75,
        }  # fmt: skip
        assert "no_json: toon/2" in err and "server_error: drawn/3: 500: broken" in err
        assert "replies still missing: 1. Run the same command again." in err

        # Only the picture without a reply is queried again.
        seen.clear()
        assert script.main(words) == 1
        assert seen == {"drawn/3": 3}
    out = tmp_path / "some-vlm"
    results = json.loads((out / "zero_shot.json").read_text())
    assert results["sets"]["toon"]["statuses"] == {"with": {"ok": 3, "no_json": 1}}
    assert results["sets"]["drawn"]["statuses"] == {"with": {"ok": 3, "server_error": 1}}
    scopes = results["sets"]["toon"]["scores"]["with"]["scopes"]
    assert scopes["found"]["pictures"] == 3
    assert scopes["found"]["figures"]["model"]["mae"][0] < 0.005 < scopes["all"]["figures"]["model"]["mae"][0]
    assert scopes["found"]["figures"]["model"]["agreement_own"][0] == 1
    assert results["recipe"]["command"] == (
        f"python eval/zero_shot.py --url {server.url} --model some/vlm --limit 4 --semantics with"
    )
    page = (out / "index.html").read_text()
    assert page.count("<article") == 8 and "What a lovely face" not in page
    assert "the text has no JSON object" in page and "prediction on the plain head" in page
    markdown = (out / "zero_shot.md").read_text()
    assert (
        "| toon | with | " in markdown
        and "| no_json | 1 |" in markdown
        and "only the pictures with a valid answer" in markdown
    )
    (line,) = [json.loads(line) for line in (out / "with" / "toon.jsonl").read_text().splitlines() if "lovely" in line]
    assert (line["status"], line["coefficients"], line["tokens_in"]) == ("no_json", None, 7)


def test_both_semantics_and_examples_on_a_server_without_schemas(script, rendered, tmp_path, capsys):
    sets, folder = rendered
    truth, _ = oracle([sets["toon"]])

    def answer(body):
        if "response_format" in body:
            return 400, {}, {"error": {"message": "response_format is not supported"}}
        if "analysis" in body["messages"][1]["content"][-1]["text"]:
            return truth(body)
        return format_answer(COEFFICIENTS, None)

    with chat_server(answer) as server:
        words = [
            "--url", server.url, "--model", "vlm", "--faces", str(folder), "--out", str(tmp_path), "--sets", "toon",
        ]  # fmt: skip
        words += ["--limit", str(LIMIT), "--examples", "2", "--concurrency", "2", "--price", "1,3"]
        assert script.main(words) == 0
    found, err = last_line(capsys)
    assert found["toon_with_corr"] > 0.9 and found["toon_without_corr"] == 0
    assert "at the price given" in err and server.max_concurrent <= 2
    results = json.loads((tmp_path / "vlm-2-examples" / "zero_shot.json").read_text())
    assert results["recipe"]["schema"] is False
    lead = results["sets"]["toon"]["lead"]["correlation"]
    assert lead[0] == pytest.approx(found["toon_with_corr"]) and lead[1] <= lead[0] <= lead[2]
    assert "agreement_own" not in results["sets"]["toon"]["scores"]["without"]["scopes"]["all"]["figures"]["model"]
    body = server.bodies[-1]
    assert [message["role"] for message in body["messages"]] == ["system", *["user", "assistant"] * 2, "user"]
    assert body["max_tokens"] == 1024 and parse_reply(Reply("", body["messages"][2]["content"])).status == "ok"


def test_a_killed_run_resumes(script, rendered, tmp_path, capsys):
    sets, folder = rendered
    truth, name = oracle(sets.values())
    names, process = [], None

    def answer(body):
        names.append(name(body))
        if len(names) == 4:
            process.send_signal(signal.SIGKILL)
            return None
        return truth(body)

    with chat_server(answer) as server:
        words = ["--url", server.url, "--model", "vlm", "--faces", str(folder), "--out", str(tmp_path), "--limit", "4"]
        words += ["--semantics", "without", "--concurrency", "1"]
        # The same small sets in the other process.
        code = f"import sys, runpy; import semanticface.evaluation.benchmark as s; s.SIZE, s.SUBJECTS = {SIZE}, 50; "
        code += f"sys.argv[0] = 'x'; runpy.run_path({str(ROOT / 'eval' / 'zero_shot.py')!r}, run_name='__main__')"
        process = subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True)
        _, err = process.communicate()
        assert process.returncode == -signal.SIGKILL, err
        first = list(names)
        assert script.main(words) == 0
    assert first == ["toon/0", "toon/1", "toon/2", "toon/3"]
    assert names[4:] == ["toon/3", "drawn/0", "drawn/1", "drawn/2", "drawn/3"]
    assert last_line(capsys)[0]["toon_without_valid"] == 1


def test_a_run_stops_if_every_request_fails(script, rendered, tmp_path, capsys, monkeypatch):
    _, folder = rendered
    monkeypatch.setattr(sys.modules["semanticface.evaluation.zero_shot.run"], "MAX_CONSECUTIVE_FAILURES", 3)
    words = ["--model", "vlm", "--faces", str(folder), "--limit", "4", "--out", str(tmp_path)]
    with chat_server(lambda body: (400, {}, {"error": {"message": "no images here"}})) as server:
        assert script.main(["--url", server.url, *words]) == 2
        assert len(server.bodies) <= 4
    err = capsys.readouterr().err
    assert "3 requests in a row got no reply; the last: 400: no images here. Fix" in err
    with chat_server(lambda body: (401, {}, {"error": {"message": "who are you?"}})) as server:
        monkeypatch.setenv("SOME_KEY", "s3cret-key")
        assert script.main(["--url", server.url, "--key-env", "SOME_KEY", *words]) == 2
        assert {each["Authorization"] for each in server.headers} == {"Bearer s3cret-key"}
    shown = capsys.readouterr()
    assert "refused access" in shown.err and "s3cret" not in shown.err + shown.out
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "s3cret" in path.read_text()]


def test_pictures_without_a_face_do_not_stop_a_run(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["semanticface.evaluation.zero_shot.run"], "MAX_CONSECUTIVE_FAILURES", 2)
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(5):
        noise(i).save(photos / f"{i}.png")
    last = fingerprint(noise(4))
    refusal = 400, {}, {"error": {"message": "the picture: no face found", "code": "no_face"}}

    with chat_server(lambda body: ANSWER if fingerprint(picture_of(body)) == last else refusal) as server:
        words = ["--url", server.url, "--model", "vlm", "--pictures", str(photos), "--out", str(tmp_path / "out")]
        assert script.main([*words, "--semantics", "with", "--concurrency", "1"]) == 0
    results = json.loads((tmp_path / "out" / "vlm-on-photos" / "zero_shot.json").read_text())
    assert results["sets"]["pictures"]["statuses"]["with"] == {"no_face": 4, "ok": 1}


def test_errors_are_one_line(script, tmp_path, capsys, monkeypatch):
    noise().save(tmp_path / "a.png")
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    far = ["--url", "https://models.example/v1", "--model", "m", "--out", str(tmp_path / "out")]
    for words, message in (
        ([*far, "--pictures", str(tmp_path)], "add --send-pictures"),
        ([*far, "--key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY is not set"),
        (["--url", "ftp://x", "--model", "m"], "is not the root of an API"),
        ([str(tmp_path / "gone")], "no model"),
        (["nano", "--free"], "is a SemanticFace model"),
        (["nano", "--examples", "1", "--pictures", str(tmp_path), "--out", str(tmp_path / "out")], "no examples"),
    ):
        assert script.main(words) == 2, words
        err = capsys.readouterr().err
        assert re.search(rf"^zero_shot: .*{re.escape(message)}", err, re.MULTILINE), err
    assert script.main([*far, "--pictures", str(tmp_path), "--send-pictures"]) == 2  # no network in tests
    assert "pictures are sent to models.example" in capsys.readouterr().err
    for words in ([], ["m", "--url", "http://x"], ["--url", "http://x"], ["m", "--examples", "17"],
                  ["m", "--limit", "501"], ["m", "--price", "1"]):  # fmt: skip
        with pytest.raises(SystemExit):
            script.main(words)


def test_a_local_model_with_and_without_grammar_on_a_folder(script, tmp_path, capsys):
    model = smolvlm(tmp_path / "tiny")
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        noise(i).save(photos / f"{i}.png")
    (photos / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    rows = [tables.RowResult(f"{i}.png", coefficients=COEFFICIENTS * i) for i in range(2)]
    tables.write(photos / "labels.csv", rows)
    words = [str(model), "--pictures", str(photos), "--out", str(tmp_path / "out")]
    assert script.main([*words, "--examples", "1"]) == 1
    found, err = last_line(capsys)
    assert found["pictures_with_valid"] == found["pictures_without_valid"] == 1
    assert "damaged: bad.png: a damaged or truncated PNG" in err and "replies still missing" not in err
    assert "unreadable pictures: 1. Fix or remove them" in err
    out = tmp_path / "out" / "tiny-on-photos-1-examples"
    results = json.loads((out / "zero_shot.json").read_text())
    assert results["sets"]["pictures"]["labelled"] == 2
    assert "4 pictures, of which 2 have a label and are scored" in (out / "index.html").read_text()
    assert results["sets"]["pictures"]["statuses"]["with"] == {"ok": 3, "damaged": 1}

    (photos / "bad.png").unlink()
    (photos / "labels.csv").unlink()
    assert script.main([*words, "--free", "--max-tokens", "24", "--semantics", "with"]) == 1  # nothing could be parsed
    assert last_line(capsys)[0] == {}
    out = tmp_path / "out" / "tiny-on-photos-free"
    statuses = json.loads((out / "zero_shot.json").read_text())["sets"]["pictures"]["statuses"]["with"]
    assert sum(statuses.values()) == 3 and "ok" not in statuses
    page = (out / "index.html").read_text()
    assert page.count("<article") == page.count('class="reason"') == 3
    assert "0 of 3" in page and "constant" not in page


def test_a_semanticface_model_answers_as_the_predictor_does_locally_and_over_http(script, tmp_path, capsys):
    faces = tmp_path / "faces"
    toon = benchmark_set(faces, "toon", 2, size=256)
    script.SIZE = 256
    common = ["--faces", str(faces), "--sets", "toon", "--limit", "2"]
    assert script.main(["nano", *common, "--out", str(tmp_path / "here")]) == 0
    here, _ = last_line(capsys)

    command = [sys.executable, "-m", "semanticface", "serve", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as server:
        try:
            url = re.search(r"answers at (\S+)", server.stdout.readline())[1]
            there = ["--url", url, "--model", "nano", *common, "--out", str(tmp_path / "there")]
            assert script.main(there) == 0
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate()
    assert last_line(capsys)[0] == here and here["toon_with_valid"] == here["toon_without_valid"] == 1
    bundle = Predictor.from_pretrained("nano").bundle
    for semantics, mode in (("with", "full"), ("without", "numbers")):
        expected = Predictor(bundle, mode=mode)([toon.load(i) for i in range(2)])
        for place in ("here", "there"):
            log = AnswerLog(tmp_path / place / "nano" / semantics / "toon.jsonl")
            for i, prediction in enumerate(expected):
                reply = log.reply(f"toon/{i}")
                assert np.array_equal(reply.coefficients, prediction.coefficients)
                assert reply.analysis == prediction.analysis


def test_a_tokenizer_that_cannot_spell_answers_means_free_decoding(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise sys.modules["semanticface.errors"].ModelError("the tokenizer cannot spell answers")

    monkeypatch.setattr(sys.modules["semanticface.evaluation.zero_shot.local"], "AnswerDecoder", refuse)
    model = LocalModel(str(smolvlm(tmp_path / "tiny")), max_tokens=8)
    assert model.free and "cannot spell" in model.obstacle
    (reply,) = model.answer(question("with"), [("a", noise())])
    assert (
        reply.status == "ok" and parse_reply(reply).status != "ok" and model.record(question("with"))["max_tokens"] == 8
    )


def test_every_command_of_the_page(script, rendered, tmp_path, capsys, monkeypatch):
    lines = commands("zero_shot.md")
    assert len(lines) > 6 and all(line[:2] == ["python", "eval/zero_shot.py"] for line in lines)

    def few(pictures, key, limit, **_):
        whole = rendered[0][key]
        return replace(whole, names=whole.names[:1], people=whole.people[:1], true=whole.true[:1])

    monkeypatch.setattr(script, "benchmark_set", few)
    monkeypatch.chdir(tmp_path)
    smolvlm(Path("models/my-vlm"))
    Path("examples").mkdir()
    shutil.copy(ROOT / "examples" / "astronaut.jpg", "examples")
    with chat_server(lambda body: ANSWER) as server:
        for _, _, *words in lines:
            words = [server.url if word.startswith("http://127.0.0.1:8000") else word for word in words]
            assert script.main(words) == 0, words
        assert len(server.bodies) == 4
    assert sorted(path.name for path in Path("outputs/zero_shot").iterdir()) == sorted(
        ["my-vlm", "my-vlm-2-examples", "my-vlm-face", "nano", "nano-on-examples", "Qwen-Qwen3-VL-4B-Instruct",
         "Qwen-Qwen3-VL-4B-Instruct-4-examples"]
    )  # fmt: skip
