"""Questions: only visible differences are asked about, sides are balanced, and every run asks the same."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticface.arkit import N_ACTIONS, vector
from semanticface.preference.questions import MAX_REPEATED, MIN_DISTANCE, REPEAT_GAP, make_questions
from semanticface.preference.regions import REGIONS, distance
from semanticface.preference.types import Candidate, CandidateSet

ACTIVE = ("browInnerUp", "eyeBlinkLeft", "jawOpen", "mouthSmileRight")


def candidate_set(picture: str, faces: np.ndarray, *, captured: bool = False) -> CandidateSet:
    """Candidates model-1, model-2, …; the last one is the capture software's if ``captured``."""
    candidates = [Candidate(f"model-{n}", "model", face) for n, face in enumerate(faces, start=1)]
    if captured:
        candidates[-1] = Candidate("capture", "capture", faces[-1])
    return CandidateSet(picture, 0, "someone", tuple(candidates))


def random_candidate_sets(count: int, candidates: int = 5, seed: int = 0) -> list[CandidateSet]:
    rng = np.random.default_rng(seed)
    faces = rng.uniform(0, 1, (count, candidates, N_ACTIONS)).astype(np.float32)
    return [candidate_set(f"picture {n}", each, captured=n % 3 > 0) for n, each in enumerate(faces)]


@st.composite
def some_candidate_sets(draw: st.DrawFn) -> list[CandidateSet]:
    """Candidates of few actions at few levels, so that many candidates look alike in a half."""
    levels = st.sampled_from([0.0, 0.02, 0.5, 1.0])
    face = st.builds(lambda *values: vector(dict(zip(ACTIVE, values, strict=True))), *[levels] * len(ACTIVE))
    faces = draw(st.lists(st.lists(face, min_size=2, max_size=5), min_size=1, max_size=8))
    return [candidate_set(f"p{n}", np.stack(each), captured=draw(st.booleans())) for n, each in enumerate(faces)]


asked = st.fixed_dictionaries(
    {
        "regions": st.lists(st.sampled_from(REGIONS), min_size=1, unique=True),
        "per_picture": st.integers(1, 12),
        "repeats": st.floats(0, MAX_REPEATED / 2),
        "mirrored": st.floats(0, MAX_REPEATED / 2),
        "seed": st.integers(0, 3),
    }
)


@given(some_candidate_sets(), asked)
@settings(max_examples=40, deadline=None)
def test_questions_are_balanced(candidate_sets, arguments):
    questions = make_questions(candidate_sets, **arguments)
    firsts = [question for question in questions if question.kind == "first"]
    by_picture = {each.picture: each for each in candidate_sets}
    assert len({question.id for question in questions}) == len(questions)
    assert len({(q.picture, q.region, *sorted((q.a, q.b))) for q in firsts}) == len(firsts)

    # Differences are visible, and no picture has too many questions.
    assert {question.region for question in questions} <= set(arguments["regions"])
    for question in firsts:
        faces = {each.id: each.coefficients for each in by_picture[question.picture].candidates}
        one, other = faces[question.a][None], faces[question.b][None]
        assert distance(one, other, question.region)[0] >= MIN_DISTANCE
    assert all(count <= arguments["per_picture"] for count in Counter(q.picture for q in firsts).values())

    # Sides are balanced for each candidate, and for the captured candidates of all pictures, in each region.
    left_surplus: Counter[tuple[str, ...]] = Counter()
    for question in firsts:
        for side, candidate in ((1, question.a), (-1, question.b)):
            left_surplus[question.picture, question.region, candidate] += side
            if candidate == "capture":
                left_surplus[question.region] += side
    assert all(abs(each) <= 1 for each in left_surplus.values())

    # Repetitions come once, later, as they were or mirrored.
    place = {question.id: index for index, question in enumerate(questions)}
    by_id = {question.id: question for question in questions}
    again = [question for question in questions if question.kind != "first"]
    assert len({question.of for question in again}) == len(again)
    for question in again:
        first = by_id[question.of]
        sides = (first.a, first.b) if question.kind == "repeat" else (first.b, first.a)
        assert (question.picture, question.region, question.a, question.b) == (first.picture, first.region, *sides)
        between = questions[place[first.id] + 1 : place[question.id]]
        assert sum(each.kind == "first" for each in between) >= min(REPEAT_GAP, len(firsts) // 2)

    # Questions do not depend on the order of the candidate sets.
    assert make_questions(candidate_sets[::-1], **arguments) == questions


def test_regions_share_questions_and_candidates_appear_about_equally_often():
    candidate_sets = random_candidate_sets(12)
    questions = make_questions(candidate_sets, ("upper", "lower"), per_picture=10, seed=0)
    assert len(questions) == 120
    shown = Counter((q.picture, q.region, candidate) for q in questions for candidate in (q.a, q.b))
    assert set(Counter((q.picture, q.region) for q in questions).values()) == {5}
    assert set(shown.values()) <= {1, 2, 3}
    assert len(shown) == 12 * 2 * 5
    pairs = {region: {(q.picture, *sorted((q.a, q.b))) for q in questions if q.region == region} for region in REGIONS}
    assert pairs["upper"] == pairs["lower"]
    few = make_questions(candidate_sets, ("upper", "lower", "whole"), per_picture=2, seed=0)
    assert set(Counter(q.picture for q in few).values()) == {2}
    assert {q.region for q in few} == set(REGIONS)


def test_order_and_sides_are_random_and_the_seed_decides():
    candidate_sets = random_candidate_sets(30)
    one, other = (make_questions(candidate_sets, ("upper", "lower"), per_picture=4, seed=seed) for seed in (0, 1))
    assert one != other
    assert {question.id for question in one} != {question.id for question in other}
    pictures = [question.picture for question in one]
    assert sum(first == second for first, second in pairwise(pictures)) < 12
    models = [q for q in one if "capture" not in (q.a, q.b)]
    assert 0.3 < np.mean([q.a < q.b for q in models]) < 0.7


def test_the_requested_number_is_repeated_at_random_positions():
    repeated = {"repeats": 0.1, "mirrored": 0.05}
    questions = make_questions(random_candidate_sets(50), ("upper", "lower"), per_picture=4, seed=0, **repeated)
    kinds = Counter(question.kind for question in questions)
    assert kinds == {"first": 200, "repeat": 20, "mirrored": 10}
    place = {question.id: index for index, question in enumerate(questions)}
    waits = [place[question.id] - place[question.of] for question in questions if question.of]
    assert np.ptp(waits) > 50


def test_a_question_keeps_its_id_when_other_pictures_change():
    candidate_sets = random_candidate_sets(6)
    every = make_questions(candidate_sets, ("upper",), per_picture=3, seed=5)
    some = make_questions(candidate_sets[:4], ("upper",), per_picture=3, seed=5)
    kept = {each.picture for each in candidate_sets[:4]}
    assert {q.id for q in some} == {q.id for q in every if q.picture in kept}


def test_no_visible_difference_no_question():
    faces = np.stack([vector({"jawOpen": value}) for value in (0.0, 1.0)])
    assert make_questions([candidate_set("p", faces)], ("upper",), per_picture=4, repeats=0.3, seed=0) == []
    assert len(make_questions([candidate_set("p", faces)], ("upper", "lower"), per_picture=4, seed=0)) == 1
    assert make_questions([candidate_set("p", faces)], ("lower",), per_picture=4, seed=0, min_distance=50.0) == []
    assert make_questions([], ("lower",), per_picture=4, seed=0) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"per_picture": 0}, {"seed": -1}, {"regions": ()}, {"regions": ("upper", "upper")}, {"regions": ("nose",)},
        {"repeats": -0.1}, {"repeats": 0.3, "mirrored": 0.3}, {"repeats": float("nan")},
    ],
)  # fmt: skip
def test_arguments_out_of_range_are_refused(changed):
    arguments = {"regions": ("upper",), "per_picture": 2, "seed": 0} | changed
    with pytest.raises(ValueError, match="give"):
        make_questions(random_candidate_sets(2), **arguments)


def test_two_candidate_sets_of_one_picture_are_refused():
    with pytest.raises(ValueError, match="two candidate sets"):
        make_questions(random_candidate_sets(2) + random_candidate_sets(1), ("upper",), per_picture=1, seed=0)
