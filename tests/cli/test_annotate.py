"""``semanticface annotate`` and ``choices``, and the page in a real browser: nothing lost, nothing doubled."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter

import pytest
from playwright.sync_api import TimeoutError as PageTimeout

from semanticface.cli import annotate as annotate_command
from semanticface.cli.main import main
from semanticface.data.consent import NAME
from semanticface.errors import SemanticFaceError
from semanticface.preference import files as candidates
from semanticface.preference.annotator_agreement import consistency
from semanticface.preference.files import read_choices, write_choices
from semanticface.preference.question_images import QuestionImages
from semanticface.preference.session import Session
from semanticface.preference.store import Store
from semanticface.preference.types import Choice, Question
from semanticface.serving.pages import annotate, local_page
from semanticface.serving.pages.annotate import Page
from semanticface.serving.pages.local_page import HOST
from tests.helpers.slates import save, slates_of
from tests.helpers.tiny_models import faces

MODEL = "m" * 64
KEYS = {"a": ("ArrowLeft", "a"), "b": ("ArrowRight", "B"), "same": ("s",), "neither": ("N",), "skip": (" ",)}


def ask(count=3):
    return [Question(f"q{n}", f"p{n}", "upper", "model-1", "model-2") for n in range(count)]


def choice(number, annotator="robin", verdict="a"):
    return Choice(ask(number + 1)[number], verdict, annotator, MODEL, 1, "2026-11-22T09:30:00Z")


@pytest.fixture
def page(tmp_path):
    with Store(tmp_path / "choices.sqlite") as store:
        session = Session(
            store,
            ask(),
            lambda question: QuestionImages(question, b"reference", b"left", b"right"),
            annotator="robin",
            model=MODEL,
            round=1,
            overlap=1.0,
            complain=pytest.fail,
        )
        yield Page(session)
        session.close()


def test_each_reply_of_the_page_is_all_that_it_shows(page):
    first = page.state()
    assert (first["done"], first["left"], first["can_undo"], first["error"]) == (0, 3, False, "")
    assert first["question"]["area"] == "upper"
    assert [first["question"][part][:23] for part in ("reference", "a", "b")] == ["data:image/jpeg;base64,"] * 3
    second = page.answer(first["question"]["id"], "b")
    assert second["done"] == 1 and second["question"]["id"] != first["question"]["id"]
    assert page.answer(first["question"]["id"], "a") == second  # from another tab, or a key too many
    assert page.answer(second["question"]["id"], "maybe")["error"].startswith("'maybe' is not a valid answer")
    assert page.undo()["question"]["id"] == first["question"]["id"]
    for _ in range(3):
        last = page.answer(page.state()["question"]["id"], "same")
    assert last["question"] is None and last["left"] == 0 and len(last["consistency"]) == 2
    json.dumps(last)


def test_a_choice_that_cannot_be_stored_is_told_and_stays_the_question(page, monkeypatch):
    def full(choice):
        raise SemanticFaceError("the disk is full. Free some space.")

    before = page.state()["question"]
    with monkeypatch.context() as patch:
        patch.setattr(page.session.store, "add", full)
        told = page.answer(before["id"], "a")
    assert told["error"] == "the disk is full. Free some space." and told["question"] == before
    assert page.answer(before["id"], "a")["error"] == ""


def test_export_import_and_report(tmp_path, capsys):
    database, again = tmp_path / "one.sqlite", tmp_path / "new" / "two.sqlite"
    given = [choice(0), choice(1, verdict="b"), choice(0, "kim"), choice(1, "kim")]
    with Store(database) as store:
        store.add_many(given)
    out = tmp_path / "out.jsonl"
    assert main(["choices", str(database), "--export", str(out)]) == 0
    assert [each for _, each in read_choices(out)[0]] == given
    for added, known in ((4, 0), (0, 4)):
        assert main(["choices", str(again), "--import", str(out)]) == 0
        assert f"{added} choices added, {known} were there already" in capsys.readouterr().out
    assert main(["choices", str(again)]) == 0
    told = capsys.readouterr().out
    assert "kim, robin" in told and "50 % (1 of 2)" in told and "4 choices stand, 0 were taken back" in told
    write_choices(out, [choice(0, verdict="same"), choice(2)])
    out.write_text(out.read_text() + "{}\n")
    assert main(["choices", str(again), "--import", str(out)]) == 1
    told = capsys.readouterr()
    assert "line 3: the choice lacks question" in told.err
    assert "line 1: robin answered this question otherwise" in told.err and "1 choices added" in told.out
    assert main(["choices", str(tmp_path / "gone.sqlite")]) == 2
    assert main(["choices", str(again), "--export", str(tmp_path / "out.csv")]) == 2
    assert "End its name in .jsonl" in capsys.readouterr().err


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Pictures of three real people, of whom b did not agree, and candidates for the first of them."""
    folder = tmp_path_factory.mktemp("annotate")
    dataset = faces(folder / "faces", rows=20)
    (dataset / NAME).write_text("subjects:\n  a: true\n  b: false\n")
    return dataset, save(folder / "candidates.jsonl", dataset, slates_of(dataset, count=5))


@pytest.fixture
def served(monkeypatch):
    """In place of the page: what it would be given."""
    sessions = []
    monkeypatch.setattr(annotate, "check_installed", lambda: None)
    monkeypatch.setattr(annotate, "serve", lambda session, **_: sessions.append(session))
    return sessions


def test_the_command_puts_a_session_together(material, tmp_path, served, capsys):
    dataset, candidates = material
    words = ["annotate", str(candidates), "--dataset", str(dataset), "--annotator", "robin", "--size", "64"]
    database, before = tmp_path / "c.sqlite", signal.getsignal(signal.SIGINT)
    assert main([*words, "--database", str(database), "--areas", "lower", "--per-picture", "2"]) == 0
    (session,) = served
    assert session.model == MODEL and session.round == 1 and session.annotator == "robin"
    assert session.current.question.area == "lower" and session.progress().left == 44  # 40, and 4 once more
    assert f"Choices go to {database}" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) == before
    assert main([*words[:-1], "48"]) == 0
    assert (candidates.parent / "choices.sqlite").is_file()


def test_candidates_are_read_once(material, tmp_path, served, monkeypatch):
    dataset, path = material
    read = []
    plain = candidates.read_objects
    monkeypatch.setattr(candidates, "read_objects", lambda path: read.append(path) or plain(path))
    words = ["annotate", str(path), "--dataset", str(dataset), "--annotator", "robin", "--size", "48"]
    assert main([*words, "--database", str(tmp_path / "c.sqlite")]) == 0
    assert read == [path]


def test_people_who_did_not_agree_are_not_shown_and_counted(material, tmp_path, served, capsys):
    dataset, _ = material
    slates = [*slates_of(dataset, count=2)[:3], *slates_of(dataset, "validation", count=2)]
    both = save(tmp_path / "candidates.jsonl", dataset, slates)
    words = ["annotate", str(both), "--dataset", str(dataset), "--annotator", "robin", "--size", "48"]
    assert main(words) == 0
    assert {question.picture for question in served[0]._order} <= {slate.picture for slate in slates[:3]}
    assert "2 of 5 pictures are not shown: 1 subject without consent" in capsys.readouterr().err
    only = save(tmp_path / "b.jsonl", dataset, slates_of(dataset, "validation"), "validation")
    assert main(["annotate", str(only), *words[2:]]) == 2
    assert "none of 2 pictures may be shown" in capsys.readouterr().err


def test_what_does_not_fit_is_told(material, tmp_path, served, capsys, monkeypatch):
    dataset, candidates = material
    words = ["annotate", str(candidates), "--dataset", str(dataset), "--annotator", "robin"]
    other = tmp_path / "other.jsonl"
    text = candidates.read_text().split("\n")
    other.write_text("\n".join([text[0].replace('"dataset": "', '"dataset": "x'), *text[1:]]))
    assert main(["annotate", str(other), *words[2:]]) == 2
    assert "Give the dataset that they were sampled for" in capsys.readouterr().err
    assert main([*words[:-1], "robin@example.org"]) == 2
    assert "pseudonym" in capsys.readouterr().err
    assert main([*words, "--repeats", "0.4", "--mirrored", "0.4"]) == 2
    assert "Lower them" in capsys.readouterr().err
    (tmp_path / "broken.sqlite").write_bytes(b"x" * 5000)
    assert main([*words, "--database", str(tmp_path / "broken.sqlite")]) == 2
    assert "damaged, or not a database" in capsys.readouterr().err
    for bad in (["--areas", "nose"], ["--areas", "upper,upper"], ["--port", "80"], ["--overlap", "2"]):
        with pytest.raises(SystemExit):
            main([*words, *bad])
    monkeypatch.undo()
    monkeypatch.setattr(local_page.importlib.util, "find_spec", lambda name: None)
    assert main(words) == 2
    assert "pip install 'semanticface[annotate]'" in capsys.readouterr().err
    assert not served and annotate_command._share("0.5") == 0.5


# --- in a browser -------------------------------------------------------------------------------------------------


class Server:
    """The command in a process of its own, to be killed."""

    def __init__(self, words):
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "semanticface", *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        )  # fmt: skip
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if found := re.search(r"Open (http://\S+) in", line):
                self.url = found[1]
                # What it says later must not fill the pipe.
                threading.Thread(target=self.process.stdout.read, daemon=True).start()
                return
        pytest.fail("the server did not start:\n" + "".join(lines))

    def end(self, how):
        self.process.send_signal(how)
        return self.process.wait()


def _free_port():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def _question(tab):
    return tab.get_attribute("#sf", "data-question")


def _after(tab, question, patience=120_000):
    """Wait until the page has gone on, and is past the moment in which keys are taken for the question before."""
    gone = """before => {
        const page = document.querySelector("#sf")?.dataset;
        return ["asking", "end"].includes(page?.state) && page.question !== before;
    }"""
    tab.wait_for_function(gone, arg=question, timeout=patience)
    tab.wait_for_timeout(160)


@pytest.mark.slow
def test_an_hour_of_choices_by_keyboard(material, tmp_path, browser):
    dataset, candidates = material
    database, port = tmp_path / "choices.sqlite", _free_port()
    words = ["annotate", candidates, "--dataset", dataset, "--annotator", "robin", "--database", database, "--size"]
    words = [*map(str, words), "160", "--per-picture", "10", "--port", str(port)]
    server = Server(words)
    asked, told = [], []
    tab = browser.new_page(viewport={"width": 1440, "height": 900})
    tab.set_default_timeout(120_000)
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: told.append(str(error)))
    tab.goto(server.url)
    tab.wait_for_selector("#sf[data-state=asking]")
    assert tab.locator(".sf-help").is_visible()  # the first time on this machine
    tab.screenshot(path=tmp_path / "help.png")
    before = _question(tab)
    tab.keyboard.press("a")
    tab.keyboard.press("Escape")
    assert not tab.locator(".sf-help").is_visible() and _question(tab) == before
    tab.wait_for_timeout(160)
    tab.screenshot(path=tmp_path / "question.png")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 1440
    assert tab.evaluate("[...document.querySelectorAll('.sf-frame img')].every(i => i.naturalWidth === 160)")
    sides = [tab.locator(f".sf-{part}").bounding_box()["x"] for part in ("a", "reference", "b")]
    assert sides == sorted(sides)

    pressed = {}

    def choose(turn):
        question = _question(tab)
        verdict = list(KEYS)[turn * 7 % 5]
        for _ in range(40):
            tab.keyboard.press(KEYS[verdict][turn % len(KEYS[verdict])])
            try:
                _after(tab, question, patience=3000)
                break
            except PageTimeout:
                pass  # a page that is coming back, or still drawing, took no key: somebody would press it again
        else:
            pytest.fail("the page does not go on")
        pressed[question] = verdict

    for turn in range(80):
        choose(turn)
    tab.reload()
    tab.wait_for_selector("#sf[data-state=asking]")
    tab.wait_for_timeout(160)
    assert tab.inner_text(".sf-done").startswith("80 of ")

    # A key held down, or pressed twice, is one choice.
    question = _question(tab)
    tab.keyboard.down("ArrowLeft")
    tab.keyboard.down("ArrowLeft")
    tab.keyboard.up("ArrowLeft")
    tab.keyboard.press("ArrowLeft")
    _after(tab, question)
    pressed[question] = "a"
    assert tab.get_attribute("#sf", "data-done") == "81"

    # Two steps back, the second one answered otherwise.
    for key in ("u", "Backspace"):
        question = _question(tab)
        tab.keyboard.press(key)
        _after(tab, question)
        pressed.pop(_question(tab))
    assert tab.get_attribute("#sf", "data-done") == "79"
    for turn in range(81, 124):
        choose(turn)

    # The server dies with a choice on its way: that one is stored or asked again, and all before it are there.
    question = _question(tab)
    tab.keyboard.press("ArrowRight")
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    with Store(database) as store:
        stored = {choice.question.id for choice in store.choices()}
        assert pressed.keys() <= stored <= {*pressed, question}
    if question in stored:
        pressed[question] = "b"
    tab.keyboard.press("ArrowRight")
    tab.wait_for_selector(".sf-alert:not([hidden])")
    assert "Every confirmed choice is stored" in tab.inner_text(".sf-alert")
    tab.screenshot(path=tmp_path / "gone.png")
    server = Server(words)
    tab.wait_for_selector(f"#sf[data-state=asking][data-done='{len(pressed)}']")
    tab.wait_for_selector(".sf-alert", state="hidden")
    tab.wait_for_timeout(160)
    assert not tab.locator(".sf-help").is_visible()

    tab.keyboard.press("z")
    tab.screenshot(path=tmp_path / "closer.png")
    tab.keyboard.press("z")
    # The page may still be coming back from the server's death: what it asks is waited for, the end is counted.
    left = int(re.findall(r"\d+", tab.inner_text(".sf-done"))[1]) - len(pressed)
    for turn in range(201, 201 + left):
        tab.wait_for_selector("#sf[data-state=asking]")
        choose(turn)
    tab.wait_for_selector("#sf:not([data-state=asking])")
    assert len(pressed) >= 200
    tab.screenshot(path=tmp_path / "end.png")
    assert f"You answered {len(pressed)} questions" in tab.inner_text(".sf-end")

    with Store(database) as store:
        stored = store.choices()
    assert {choice.question.id: choice.verdict for choice in stored} == pressed and len(stored) == len(pressed)
    repeats, mirrored = consistency(stored)
    shown = tab.locator(".sf-figures dd").all_inner_texts()
    assert repeats.of and mirrored.of
    assert shown == [f"{share.hits} of {share.of}" for share in (repeats, mirrored)]
    kinds = Counter(choice.question.kind for choice in stored)
    assert kinds["repeat"] == kinds["mirrored"] == round(0.05 * kinds["first"])

    tab.keyboard.press("u")
    tab.wait_for_selector("#sf[data-state=asking]")
    tab.set_viewport_size({"width": 400, "height": 860})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    tab.screenshot(path=tmp_path / "phone.png")
    assert told == []
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {f"{HOST}:{port}"}
    _nothing_else_is_served(server.url, database)
    tab.close()
    assert server.end(signal.SIGTERM) == 0


def _nothing_else_is_served(url, database):
    for path, host in ((f"gradio_api/file={database}", None), ("", "evil.example")):
        request = urllib.request.Request(url + path, headers={} if host is None else {"Host": host})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code in (400, 403, 404)
    with urllib.request.urlopen(url) as page:
        assert "default-src 'none'" in page.headers["content-security-policy"]
