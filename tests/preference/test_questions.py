"""Questions: only what can be seen is asked, sides are fair, and every run asks the same."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticface.arkit import N_ACTIONS, vector
from semanticface.preference.questions import GAP, MOST_AGAIN, NOTICEABLE, ask
from semanticface.preference.regions import AREAS, distance
from semanticface.preference.types import Candidate, CandidateSet

ACTIVE = ("browInnerUp", "eyeBlinkLeft", "jawOpen", "mouthSmileRight")


def slate(picture: str, faces: np.ndarray, *, captured: bool = False) -> CandidateSet:
    """Return a slate of candidates model-1, model-2, ...; with the capture's own as the last if ``captured``."""
    candidates = [Candidate(f"model-{n}", "model", face) for n, face in enumerate(faces, start=1)]
    if captured:
        candidates[-1] = Candidate("capture", "capture", faces[-1])
    return CandidateSet(picture, 0, "someone", tuple(candidates))


def random_slates(count: int, candidates: int = 5, seed: int = 0) -> list[CandidateSet]:
    rng = np.random.default_rng(seed)
    faces = rng.uniform(0, 1, (count, candidates, N_ACTIONS)).astype(np.float32)
    return [slate(f"picture {n}", each, captured=n % 3 > 0) for n, each in enumerate(faces)]


@st.composite
def some_slates(draw: st.DrawFn) -> list[CandidateSet]:
    """Slates of few actions at few levels, so that many candidates look alike in a half."""
    levels = st.sampled_from([0.0, 0.02, 0.5, 1.0])
    face = st.builds(lambda *values: vector(dict(zip(ACTIVE, values, strict=True))), *[levels] * len(ACTIVE))
    faces = draw(st.lists(st.lists(face, min_size=2, max_size=5), min_size=1, max_size=8))
    return [slate(f"p{n}", np.stack(each), captured=draw(st.booleans())) for n, each in enumerate(faces)]


asked = st.fixed_dictionaries(
    {
        "areas": st.lists(st.sampled_from(AREAS), min_size=1, unique=True),
        "per_picture": st.integers(1, 12),
        "repeats": st.floats(0, MOST_AGAIN / 2),
        "mirrored": st.floats(0, MOST_AGAIN / 2),
        "seed": st.integers(0, 3),
    }
)


@given(some_slates(), asked)
@settings(max_examples=40, deadline=None)
def test_questions_are_fair(slates, arguments):
    questions = ask(slates, **arguments)
    firsts = [question for question in questions if question.kind == "first"]
    by_picture = {each.picture: each for each in slates}
    assert len({question.id for question in questions}) == len(questions)
    assert len({(q.picture, q.area, *sorted((q.a, q.b))) for q in firsts}) == len(firsts)

    # What is asked can be seen, and no more of it is asked than was wanted.
    assert {question.area for question in questions} <= set(arguments["areas"])
    for question in firsts:
        faces = {each.id: each.coefficients for each in by_picture[question.picture].candidates}
        one, other = faces[question.a][None], faces[question.b][None]
        assert distance(one, other, question.area)[0] >= NOTICEABLE
    assert all(count <= arguments["per_picture"] for count in Counter(q.picture for q in firsts).values())

    # Sides: each candidate in each area, and the captured candidates of all pictures in each area.
    lean: Counter[tuple[str, ...]] = Counter()
    for question in firsts:
        for side, candidate in ((1, question.a), (-1, question.b)):
            lean[question.picture, question.area, candidate] += side
            if candidate == "capture":
                lean[question.area] += side
    assert all(abs(each) <= 1 for each in lean.values())

    # What is asked again is asked as it was or mirrored, once, and later.
    place = {question.id: index for index, question in enumerate(questions)}
    by_id = {question.id: question for question in questions}
    again = [question for question in questions if question.kind != "first"]
    assert len({question.of for question in again}) == len(again)
    for question in again:
        first = by_id[question.of]
        sides = (first.a, first.b) if question.kind == "repeat" else (first.b, first.a)
        assert (question.picture, question.area, question.a, question.b) == (first.picture, first.area, *sides)
        between = questions[place[first.id] + 1 : place[question.id]]
        assert sum(each.kind == "first" for each in between) >= min(GAP, len(firsts) // 2)

    # Every run asks the same, whatever the order in which slates are read.
    assert ask(slates[::-1], **arguments) == questions


def test_areas_share_the_questions_and_candidates_are_shown_about_equally_often():
    slates = random_slates(12)
    questions = ask(slates, ("upper", "lower"), per_picture=10, seed=0)
    assert len(questions) == 120
    shown = Counter((q.picture, q.area, candidate) for q in questions for candidate in (q.a, q.b))
    assert set(Counter((q.picture, q.area) for q in questions).values()) == {5}
    assert set(shown.values()) <= {1, 2, 3}
    assert len(shown) == 12 * 2 * 5
    pairs = {area: {(q.picture, *sorted((q.a, q.b))) for q in questions if q.area == area} for area in AREAS}
    assert pairs["upper"] == pairs["lower"]
    few = ask(slates, ("upper", "lower", "whole"), per_picture=2, seed=0)
    assert set(Counter(q.picture for q in few).values()) == {2}
    assert {q.area for q in few} == set(AREAS)


def test_order_and_sides_are_random_and_the_seed_decides():
    slates = random_slates(30)
    one, other = (ask(slates, ("upper", "lower"), per_picture=4, seed=seed) for seed in (0, 1))
    assert one != other
    assert {question.id for question in one} != {question.id for question in other}
    pictures = [question.picture for question in one]
    assert sum(first == second for first, second in pairwise(pictures)) < 12
    models = [q for q in one if "capture" not in (q.a, q.b)]
    assert 0.3 < np.mean([q.a < q.b for q in models]) < 0.7


def test_as_many_are_asked_again_as_wanted_at_random_places():
    questions = ask(random_slates(50), ("upper", "lower"), per_picture=4, repeats=0.1, mirrored=0.05, seed=0)
    kinds = Counter(question.kind for question in questions)
    assert kinds == {"first": 200, "repeat": 20, "mirrored": 10}
    place = {question.id: index for index, question in enumerate(questions)}
    waits = [place[question.id] - place[question.of] for question in questions if question.of]
    assert np.ptp(waits) > 50


def test_a_question_keeps_its_id_when_other_pictures_come_and_go():
    slates = random_slates(6)
    every = ask(slates, ("upper",), per_picture=3, seed=5)
    some = ask(slates[:4], ("upper",), per_picture=3, seed=5)
    kept = {each.picture for each in slates[:4]}
    assert {q.id for q in some} == {q.id for q in every if q.picture in kept}


def test_nothing_to_see_nothing_to_ask():
    faces = np.stack([vector({"jawOpen": value}) for value in (0.0, 1.0)])
    assert ask([slate("p", faces)], ("upper",), per_picture=4, repeats=0.3, seed=0) == []
    assert len(ask([slate("p", faces)], ("upper", "lower"), per_picture=4, seed=0)) == 1
    assert ask([slate("p", faces)], ("lower",), per_picture=4, seed=0, noticeable=50.0) == []
    assert ask([], ("lower",), per_picture=4, seed=0) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"per_picture": 0},
        {"seed": -1},
        {"areas": ()},
        {"areas": ("upper", "upper")},
        {"areas": ("nose",)},
        {"repeats": -0.1},
        {"repeats": 0.3, "mirrored": 0.3},
        {"repeats": float("nan")},
    ],
)
def test_arguments_out_of_range_are_refused(changed):
    arguments = {"areas": ("upper",), "per_picture": 2, "seed": 0} | changed
    with pytest.raises(ValueError, match="give"):
        ask(random_slates(2), **arguments)


def test_two_slates_of_one_picture_are_refused():
    with pytest.raises(ValueError, match="two slates"):
        ask(random_slates(2) + random_slates(1), ("upper",), per_picture=1, seed=0)
