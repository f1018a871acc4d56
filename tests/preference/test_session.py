"""A session: each annotator has their own order; shared questions go to all, others to whoever comes first."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semanticface.errors import PictureError, SemanticFaceError
from semanticface.preference.annotator_agreement import consistency
from semanticface.preference.question_images import QuestionImages
from semanticface.preference.session import Session, is_shared, question_order
from semanticface.preference.store import Store
from semanticface.preference.types import Question


def questions(count, again=()):
    """Questions q0, q1, …; each (first, place, kind) in ``again`` is asked once more after ``place`` first ones."""
    out = [[Question(f"q{n}", f"p{n}", "upper", "model-1", "model-2")] for n in range(count)]
    for first, place, kind in again:
        sides = ("model-2", "model-1") if kind == "mirrored" else ("model-1", "model-2")
        out[place].append(Question(f"q{first}/{kind}", f"p{first}", "upper", *sides, kind, f"q{first}"))
    return [question for group in out for question in group]


def render(question):
    return QuestionImages(question, b"picture", b"left", b"right")


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "choices.sqlite") as opened:
        yield opened


@pytest.fixture
def start(store):
    sessions = []

    def _start(asked, annotator="robin", *, overlap=1.0, render=render, on_error=pytest.fail):
        session = Session(
            store, asked, render, annotator=annotator, model="m", round=1, overlap=overlap, on_error=on_error
        )
        sessions.append(session)
        return session

    yield _start
    for session in sessions:
        session.close()


def work(session, count=None, verdict="a"):
    """Answer questions, all by default, and return their ids."""
    done = []
    while session.current is not None and len(done) != count:
        done.append(session.current.question.id)
        assert session.answer(done[-1], verdict)
    return done


@given(st.integers(1, 30), st.data(), st.text(max_size=5))
def test_everybody_gets_every_question_and_repetitions_keep_their_distance(count, data, name):
    firsts = st.integers(0, count - 1)
    again = {
        first: (first, data.draw(st.integers(first, count - 1)), data.draw(st.sampled_from(["repeat", "mirrored"])))
        for first in data.draw(st.lists(firsts, unique=True))
    }
    asked = questions(count, again.values())
    order = question_order(asked, name)
    assert sorted(question.id for question in order) == sorted(question.id for question in asked)
    place = {question.id: n for n, question in enumerate(order)}
    for question in asked:
        if question.of:
            between = order[place[question.of] + 1 : place[question.id]]
            first, base, _ = again[int(question.of[1:])]
            wanted = min(base - first, sum(not each.of for each in order[place[question.of] + 1 :]))
            assert place[question.id] > place[question.of]
            assert sum(not each.of for each in between) == wanted


def test_annotators_have_their_own_orders():
    asked = questions(40)
    assert len({question_order(asked, name)[0].id for name in ("robin", "kim", "alex", "sam")}) > 2


def test_the_proportion_of_shared_questions():
    asked = questions(2000, [(n, n, "repeat") for n in range(0, 2000, 10)])
    overlapping = {question.id for question in asked if is_shared(question, 0.2)}
    assert 0.17 < len(overlapping) / len(asked) < 0.23
    assert all((question.id in overlapping) == (question.of in overlapping) for question in asked if question.of)
    assert not any(is_shared(each, 0.0) for each in asked) and all(is_shared(each, 1.0) for each in asked)


def test_a_session_stores_resumes_and_ends(store, start):
    asked = questions(5, [(0, 3, "repeat"), (1, 4, "mirrored")])
    session = start(asked)
    assert session.progress().left == 7 and not session.progress().can_undo
    first = work(session, 3)
    assert not session.answer(first[-1], "b")  # a second key for the question before
    again = start(asked)  # as after a kill: the first session is abandoned
    rest = work(again)
    assert sorted(first + rest) == sorted(question.id for question in asked)
    assert again.current is None and again.progress().left == 0 and again.progress().done == 7
    assert [choice.question.id for choice in store.choices()] == first + rest
    repeats, mirrored = consistency(store.choices())
    assert (repeats.hits, repeats.of, mirrored.hits, mirrored.of) == (1, 1, 0, 1)


def test_undo_asks_again_and_then_resumes(store, start):
    session = start(questions(6))
    done = work(session, 3)
    waiting = session.current.question.id
    assert session.undo() and session.current.question.id == done[2]
    assert session.undo() and session.current.question.id == done[1]
    assert work(session, 2, "b") == done[1:]
    assert session.current.question.id == waiting
    assert [choice.verdict for choice in store.choices()] == ["a", "b", "b"]
    work(session)
    assert session.current is None and session.undo() and session.current is not None
    while session.undo():
        pass
    assert session.progress().done == 0 and store.choices() == []


def test_undo_ignores_questions_of_other_sessions(store, start):
    work(start(questions(2)))
    other = start([Question("other", "p0", "lower", "model-1", "model-2")])
    assert not other.undo()
    assert len(store.choices()) == 2


def test_two_annotators_share_the_work(store, start):
    asked = questions(60, [(n, 59, "repeat") for n in range(0, 60, 7)])
    robin, kim = start(asked, "robin", overlap=0.3), start(asked, "kim", overlap=0.3)
    while robin.current or kim.current:
        work(robin, 1)
        work(kim, 1)
    answers = store.choices()
    both = [q for q in asked if not q.of and is_shared(q, 0.3)]
    assert both
    by = {name: {choice.question.id for choice in answers if choice.annotator == name} for name in ("robin", "kim")}
    met = 0
    for question in asked:
        if question.of:  # only whoever answered it first is asked again
            assert all((question.id in mine) == (question.of in mine) for mine in by.values())
        elif question in both:
            assert all(question.id in mine for mine in by.values())
        else:
            times = sum(question.id in mine for mine in by.values())
            assert times
            met += times - 1
    assert met <= 5  # reached by one while the other has it on screen
    assert min(len(mine) for mine in by.values()) > 20


def test_an_unreadable_picture_is_reported_once_and_skipped(start):
    errors = []

    def breaking(question):
        if question.picture == "p1":
            raise PictureError("missing", "row 1: no picture.")
        return render(question)

    session = start(questions(4, [(1, 3, "repeat")]), render=breaking, on_error=errors.append)
    assert sorted(work(session)) == ["q0", "q2", "q3"]
    assert errors == ["row 1: no picture."] and session.progress().left == 0


def test_a_temporary_read_error_does_not_end_the_session(store, start, monkeypatch):
    """An error in rendering ahead, as on a full disk, must not look like the end of the questions."""
    session = start(questions(30))
    plain, done = store.answered_by_others, []

    def refusing(*args):
        if threading.current_thread().name == "prefetch":
            raise SemanticFaceError("the disk is full")
        return plain(*args)

    with monkeypatch.context() as patch:
        patch.setattr(store, "answered_by_others", refusing)
        with pytest.raises(SemanticFaceError, match="full"):
            while session.current is not None:
                done.append(session.current.question.id)
                session.answer(done[-1], "a")
    assert session.current is not None and session.progress().left == 30 - len(done)
    done += work(session)
    assert {*done} == {question.id for question in questions(30)}
    assert len(store.choices()) == 30 and session.progress().left == 0


def test_a_question_stays_current_if_its_answer_cannot_be_stored(store, start, monkeypatch):
    session = start(questions(2))
    current = session.current.question.id

    def full(choice):
        raise SemanticFaceError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "add", full)
        with pytest.raises(SemanticFaceError):
            session.answer(current, "a")
    assert session.current.question.id == current
    assert session.answer(current, "a")
