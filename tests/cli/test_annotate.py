"""``semanticface annotate`` and ``choices``, and the page in a real browser: no choice is lost or duplicated."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter

import pytest
from playwright.sync_api import TimeoutError as PageTimeout

from semanticface.cli.arguments import share
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
from tests.helpers.candidate_sets import candidate_sets_of, save
from tests.helpers.local_pages import check_only_the_page_is_served
from tests.helpers.tiny_models import faces

MODEL = "m" * 64
KEYS = {"a": ("ArrowLeft", "a"), "b": ("ArrowRight", "B"), "same": ("s",), "neither": ("N",), "skip": (" ",)}


def questions(count=3):
    return [Question(f"q{n}", f"p{n}", "upper", "model-1", "model-2") for n in range(count)]


def choice(number, annotator="robin", verdict="a"):
    return Choice(questions(number + 1)[number], verdict, annotator, MODEL, 1, "2026-11-22T09:30:00Z")


@pytest.fixture
def page(tmp_path):
    with Store(tmp_path / "choices.sqlite") as store:
        settings = {"annotator": "robin", "model": MODEL, "round": 1, "overlap": 1.0, "on_error": pytest.fail}
        pictures = (b"reference", b"left", b"right")
        session = Session(store, questions(), lambda question: QuestionImages(question, *pictures), **settings)
        yield Page(session)
        session.close()


def test_each_reply_has_the_whole_state(page):
    first = page.state()
    assert (first["done"], first["left"], first["can_undo"], first["error"]) == (0, 3, False, "")
    assert first["question"]["area"] == "upper"
    assert [first["question"][part][:23] for part in ("reference", "a", "b")] == ["data:image/jpeg;base64,"] * 3
    second = page.answer(first["question"]["id"], "b")
    assert second["done"] == 1 and second["question"]["id"] != first["question"]["id"]
    assert page.answer(first["question"]["id"], "a") == second  # from another tab, or a second key press
    assert page.answer(second["question"]["id"], "maybe")["error"].startswith("'maybe' is not a valid answer")
    assert page.undo()["question"]["id"] == first["question"]["id"]
    for _ in range(3):
        last = page.answer(page.state()["question"]["id"], "same")
    assert last["question"] is None and last["left"] == 0 and len(last["consistency"]) == 2
    json.dumps(last)


def test_a_question_stays_current_if_its_answer_cannot_be_stored(page, monkeypatch):
    def full(choice):
        raise SemanticFaceError("the disk is full. Free some space.")

    before = page.state()["question"]
    with monkeypatch.context() as patch:
        patch.setattr(page.session.store, "add", full)
        reply = page.answer(before["id"], "a")
    assert reply["error"] == "the disk is full. Free some space." and reply["question"] == before
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
        assert f"{added} choices added, {known} known already" in capsys.readouterr().out
    assert main(["choices", str(again)]) == 0
    report = capsys.readouterr().out
    assert "kim, robin" in report and "50 % (1 of 2)" in report and "4 choices, and 0 undone" in report
    write_choices(out, [choice(0, verdict="same"), choice(2)])
    out.write_text(out.read_text() + "{}\n")
    assert main(["choices", str(again), "--import", str(out)]) == 1
    printed = capsys.readouterr()
    assert "line 3: the choice lacks question" in printed.err
    assert "line 1: robin answered this question differently" in printed.err and "1 choices added" in printed.out
    assert main(["choices", str(tmp_path / "gone.sqlite")]) == 2
    assert main(["choices", str(again), "--export", str(tmp_path / "out.csv")]) == 2
    assert "Use a name that ends in .jsonl" in capsys.readouterr().err


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Pictures of three real people, b without consent, and candidates for the first of them."""
    folder = tmp_path_factory.mktemp("annotate")
    dataset = faces(folder / "faces", rows=20)
    (dataset / NAME).write_text("subjects:\n  a: true\n  b: false\n")
    return dataset, save(folder / "candidates.jsonl", dataset, candidate_sets_of(dataset, count=5))


@pytest.fixture
def served(monkeypatch):
    """Replaces the page; collects its sessions."""
    sessions = []
    monkeypatch.setattr(annotate, "check_installed", lambda: None)
    monkeypatch.setattr(annotate, "serve", lambda session, **_: sessions.append(session))
    return sessions


def test_the_command_starts_a_session(material, tmp_path, served, capsys):
    dataset, candidates = material
    arguments = ["annotate", str(candidates), "--dataset", str(dataset), "--annotator", "robin", "--size", "64"]
    database, before = tmp_path / "c.sqlite", signal.getsignal(signal.SIGINT)
    assert main([*arguments, "--database", str(database), "--regions", "lower", "--per-picture", "2"]) == 0
    (session,) = served
    assert session.model == MODEL and session.round == 1 and session.annotator == "robin"
    assert session.current.question.region == "lower" and session.progress().left == 44  # 40, and 4 repeated
    assert f"Choices go to {database}" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) == before
    assert main([*arguments[:-1], "48"]) == 0
    assert (candidates.parent / "choices.sqlite").is_file()


def test_candidates_are_read_once(material, tmp_path, served, monkeypatch):
    dataset, path = material
    read = []
    plain = candidates.read_objects
    monkeypatch.setattr(candidates, "read_objects", lambda path: read.append(path) or plain(path))
    arguments = ["annotate", str(path), "--dataset", str(dataset), "--annotator", "robin", "--size", "48"]
    assert main([*arguments, "--database", str(tmp_path / "c.sqlite")]) == 0
    assert read == [path]


def test_people_without_consent_are_hidden_and_counted(material, tmp_path, served, capsys):
    dataset, _ = material
    candidate_sets = [*candidate_sets_of(dataset, count=2)[:3], *candidate_sets_of(dataset, "validation", count=2)]
    both = save(tmp_path / "candidates.jsonl", dataset, candidate_sets)
    arguments = ["annotate", str(both), "--dataset", str(dataset), "--annotator", "robin", "--size", "48"]
    assert main(arguments) == 0
    assert {question.picture for question in served[0]._order} <= {each.picture for each in candidate_sets[:3]}
    assert "2 of 5 pictures are not shown: 1 subject without consent" in capsys.readouterr().err
    only = save(tmp_path / "b.jsonl", dataset, candidate_sets_of(dataset, "validation"), "validation")
    assert main(["annotate", str(only), *arguments[2:]]) == 2
    assert "none of 2 pictures may be shown" in capsys.readouterr().err


def test_errors_name_the_fix(material, tmp_path, served, capsys, monkeypatch):
    dataset, candidates = material
    arguments = ["annotate", str(candidates), "--dataset", str(dataset), "--annotator", "robin"]
    other = tmp_path / "other.jsonl"
    text = candidates.read_text().split("\n")
    other.write_text("\n".join([text[0].replace('"dataset": "', '"dataset": "x'), *text[1:]]))
    assert main(["annotate", str(other), *arguments[2:]]) == 2
    assert "Give the dataset that they were sampled for" in capsys.readouterr().err
    assert main([*arguments[:-1], "robin@example.org"]) == 2
    assert "pseudonym" in capsys.readouterr().err
    assert main([*arguments, "--repeats", "0.4", "--mirrored", "0.4"]) == 2
    assert "Lower them" in capsys.readouterr().err
    (tmp_path / "broken.sqlite").write_bytes(b"x" * 5000)
    assert main([*arguments, "--database", str(tmp_path / "broken.sqlite")]) == 2
    assert "damaged, or not a database" in capsys.readouterr().err
    for bad in (["--regions", "nose"], ["--regions", "upper,upper"], ["--port", "80"], ["--overlap", "2"]):
        with pytest.raises(SystemExit):
            main([*arguments, *bad])
    monkeypatch.undo()
    monkeypatch.setattr(local_page.importlib.util, "find_spec", lambda name: None)
    assert main(arguments) == 2
    assert "pip install 'semanticface[annotate]'" in capsys.readouterr().err
    assert not served and share("0.5") == 0.5


class Server:
    """The command in its own process, to be killed."""

    def __init__(self, arguments):
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "semanticface", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        )  # fmt: skip
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if found := re.search(r"Open (http://\S+) in", line):
                self.url = found[1]
                # Later output must not fill the pipe.
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
    """Wait until the page shows another question and accepts keys for it."""
    changed = """before => {
        const page = document.querySelector("#sf")?.dataset;
        return ["asking", "end"].includes(page?.state) && page.question !== before;
    }"""
    tab.wait_for_function(changed, arg=question, timeout=patience)
    tab.wait_for_timeout(160)


@pytest.mark.slow
def test_choices_by_keyboard(material, tmp_path, browser):
    dataset, candidates = material
    database, port = tmp_path / "choices.sqlite", _free_port()
    arguments = ["annotate", candidates, "--dataset", dataset, "--annotator", "robin", "--database", database, "--size"]
    arguments = [*map(str, arguments), "160", "--per-picture", "10", "--port", str(port)]
    server = Server(arguments)
    asked, errors = [], []
    tab = browser.new_page(viewport={"width": 1440, "height": 900})
    tab.set_default_timeout(120_000)
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: errors.append(str(error)))
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
                pass  # a page that is reconnecting or rendering ignores keys: press again
        else:
            pytest.fail("the page does not advance")
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

    # Undo twice, then answer differently.
    for key in ("u", "Backspace"):
        question = _question(tab)
        tab.keyboard.press(key)
        _after(tab, question)
        pressed.pop(_question(tab))
    assert tab.get_attribute("#sf", "data-done") == "79"
    for turn in range(81, 124):
        choose(turn)

    # The server is killed while a choice is sent: it is stored or asked again, and all earlier ones are stored.
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
    server = Server(arguments)
    tab.wait_for_selector(f"#sf[data-state=asking][data-done='{len(pressed)}']")
    tab.wait_for_selector(".sf-alert", state="hidden")
    tab.wait_for_timeout(160)
    assert not tab.locator(".sf-help").is_visible()

    tab.keyboard.press("z")
    tab.screenshot(path=tmp_path / "closer.png")
    tab.keyboard.press("z")
    # The page may still be reconnecting, and is then drawn anew: wait for what it shows.
    total = r"() => document.querySelector('.sf-done')?.textContent.match(/of (\d+)/)?.[1]"
    left = int(tab.wait_for_function(total).json_value()) - len(pressed)
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
    assert shown == [f"{each.hits} of {each.of}" for each in (repeats, mirrored)]
    kinds = Counter(choice.question.kind for choice in stored)
    assert kinds["repeat"] == kinds["mirrored"] == round(0.05 * kinds["first"])

    tab.keyboard.press("u")
    tab.wait_for_selector("#sf[data-state=asking]")
    tab.set_viewport_size({"width": 400, "height": 860})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    tab.screenshot(path=tmp_path / "phone.png")
    assert errors == []
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {f"{HOST}:{port}"}
    check_only_the_page_is_served(server.url, database)
    tab.close()
    assert server.end(signal.SIGTERM) == 0
