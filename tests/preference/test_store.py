"""The store of choices: durable, without duplicates, shared by threads and processes, with clear errors."""

import contextlib
import dataclasses
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from semanticface.errors import SemanticFaceError
from semanticface.preference import store as store_module
from semanticface.preference.store import Store
from semanticface.preference.types import Choice, Question


def choice(number=0, *, annotator="robin", verdict="a", round=1, picture="p0"):
    question = Question(f"q{number}", picture, "upper", "model-0", "model-1")
    return Choice(question, verdict, annotator, "model", round, "2026-11-22T09:30:00.123Z")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "choices.sqlite"


def test_a_choice_is_stored_at_once_and_only_once(path):
    with Store(path) as store:
        assert store.add(choice(0))
        with Store(path) as other:
            assert other.choices() == [choice(0)]
            assert not other.add(choice(0, verdict="b"))
            assert other.add(choice(0, annotator="kim")) and other.add(choice(0, round=2))
        assert store.choices() == [choice(0), choice(0, annotator="kim"), choice(0, round=2)]
        assert store.choices(annotator="robin", round=1) == [choice(0)]
        assert store.choices(model="another") == []
        assert store.answered_by_others("alex", "model", 1) == {"q0"}
        assert store.answered_by_others("robin", "model", 2) == set()


def test_undo_withdraws_the_annotators_last_choice(path):
    with Store(path) as store:
        for number in range(2):
            store.add(choice(number))
        store.add(choice(1, annotator="kim"))
        assert store.undo("robin", "model", 1) == choice(1)
        assert store.undo("robin", "model", 1) == choice(0)
        assert store.undo("robin", "model", 1) is None
        assert store.add(choice(1, verdict="neither"))
        assert store.choices() == [choice(1, annotator="kim"), choice(1, verdict="neither")]
        assert store.withdrawn() == 2


def test_importing_twice_changes_nothing(path):
    imported = [choice(0), choice(1), choice(2)]
    with Store(path) as store:
        store.add(choice(1, verdict="b"))
        first = store.add_many(imported)
        assert (first.added, first.known, first.differing) == (2, 0, (1,))
        before = store.choices()
        second = store.add_many(imported)
        assert (second.added, second.known, second.differing) == (0, 2, (1,))
        assert store.choices() == before
        assert store.undo("robin", "model", 1) == choice(2)
        assert store.add_many(imported).added == 0  # withdrawn choices do not return
        assert choice(2) not in store.choices()


def test_deleted_choices_are_wiped_from_the_file(path):
    with Store(path) as store:
        store.add(choice(0, picture="secret-picture"))
        store.undo("robin", "model", 1)
        store.add(choice(0, picture="secret-picture"))
        store.add(choice(1, picture="other-picture"))
        assert store.delete_pictures({"secret-picture", "never-seen"}) == 2
        assert store.choices() == [choice(1, picture="other-picture")]
        held = b"".join(file.read_bytes() for file in path.parent.iterdir())
        assert b"secret-picture" not in held and b"other-picture" in held


def test_a_reader_that_prevents_wiping_is_reported(path, monkeypatch):
    monkeypatch.setattr(store_module, "_WAIT", 0.05)
    with Store(path) as store, contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        store.add(choice(0, picture="secret-picture"))
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM choices").fetchone()
        with pytest.raises(SemanticFaceError, match="Stop annotate and try again"):
            store.delete_pictures({"secret-picture"})
        reader.execute("ROLLBACK")
        assert store.delete_pictures({"secret-picture"}) == 0
        assert b"secret-picture" not in b"".join(file.read_bytes() for file in path.parent.iterdir())


def test_threads_share_a_store(path):
    with Store(path) as store:

        def work(name):
            for number in range(20):
                store.add(choice(number, annotator=name))
                store.add(choice(number, annotator="both"))

        threads = [threading.Thread(target=work, args=(name,)) for name in ("robin", "kim", "alex")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store.choices()) == 80


_ANNOTATOR = """
import sys
from semanticface.preference.store import Store
from semanticface.preference.types import Choice, Question
path, name = sys.argv[1:]
with Store(path) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(60):
        question = Question(f"q{number}", "p0", "upper", "model-0", "model-1")
        store.add(Choice(question, "a", name, "model", 1, "2026-11-22T09:30:00.123Z"))
        print(number, flush=True)
"""


def _annotator(path, name):
    return subprocess.Popen(
        [sys.executable, "-c", _ANNOTATOR, str(path), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_two_processes_create_and_fill_one_database_and_a_kill_loses_nothing(path):
    robin, kim = _annotator(path, "robin"), _annotator(path, "kim")
    for each in (robin, kim):
        assert each.stdout.readline() == "ready\n"
    for each in (robin, kim):
        each.stdin.write("go\n")
        each.stdin.flush()
    printed = [int(robin.stdout.readline()) for _ in range(20)]
    os.kill(robin.pid, signal.SIGKILL)
    printed += [int(line) for line in robin.communicate()[0].split()]
    kim.communicate()
    assert kim.returncode == 0
    with Store(path) as store:
        stored = [int(each.question.id[1:]) for each in store.choices(annotator="robin")]
        assert stored[: len(printed)] == printed and len(stored) <= len(printed) + 1
        assert len(store.choices(annotator="kim")) == 60


_FILL = """
import resource, sys
from semanticface.errors import SemanticFaceError
from semanticface.preference.store import Store
from semanticface.preference.types import Choice, Question
store = Store(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
stored = 0
try:
    while True:
        question = Question(f"q{stored}", "p" * 100, "upper", "model-0", "model-1")
        stored += store.add(Choice(question, "a", "robin", "model", 1, "2026-11-22T09:30:00.123Z"))
except SemanticFaceError as error:
    print(stored, error)
"""


def test_a_full_disk_is_reported_and_earlier_choices_stay(path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    done = subprocess.run([sys.executable, "-c", _FILL, str(path)], capture_output=True, text=True)
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == (soft, hard)
    assert done.returncode == 0, done.stderr
    stored, message = done.stdout.split(" ", 1)
    assert "this one was not stored. Free some space" in message and str(path) in message
    with Store(path) as store:
        assert len(store.choices()) == int(stored) > 10
        assert store.add(dataclasses.replace(choice(0), round=2))  # works again once there is space


def test_a_full_database_is_reported_as_a_full_disk(path):
    with Store(path) as store:
        pages = store._connection().execute("PRAGMA page_count").fetchone()[0]
        store._connection().execute(f"PRAGMA max_page_count = {pages}").fetchone()
        with pytest.raises(SemanticFaceError, match=r"is full.*Free some space"):
            store.add_many(choice(number, picture="p" * 150) for number in range(200))
        assert store.choices() == []


def test_other_files_are_refused_and_left_unchanged(path):
    path.write_bytes(b"no database, but long enough to look like something " * 40)
    with pytest.raises(SemanticFaceError, match=r"damaged, or not a database.*\n.*\.recover"):
        Store(path)
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE songs (name)")
    other.close()
    held = path.read_bytes()
    with pytest.raises(SemanticFaceError, match="another program's database"):
        Store(path)
    assert path.read_bytes() == held
    with pytest.raises(SemanticFaceError, match="no such database"):
        Store(path.with_name("gone.sqlite"), create=False)
    with pytest.raises(SemanticFaceError, match="Choose another"):
        Store(path.parent)


def test_a_newer_version_is_refused(path):
    Store(path).close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 2")
    newer.close()
    with pytest.raises(SemanticFaceError, match="tables 2, here 1"):
        Store(path)


def test_internal_damage_is_reported(path):
    with Store(path) as store:
        store.add_many(choice(number, picture="p" * 150) for number in range(300))
    data = bytearray(path.read_bytes())
    data[3 * 4096 : 6 * 4096] = b"\xa5" * (3 * 4096)
    path.write_bytes(data)
    with pytest.raises(SemanticFaceError, match="damaged"):
        Store(path)
