"""Pairs: they reflect the choices and no more, independent of annotator, side and order."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticface.arkit import N_ACTIONS
from semanticface.errors import DatasetError, TableError
from semanticface.preference.pairs import read_pairs, region_pairs, whole_pairs, write_pairs
from semanticface.preference.regions import ACTIONS, merge_halves
from semanticface.preference.types import Candidate, CandidateSet, Choice, Question

SIDES = {"a": "b", "b": "a"}


def candidate_set(picture: str = "p", count: int = 4, row: int = 0) -> CandidateSet:
    faces = np.random.default_rng(row).integers(0, 101, (count, N_ACTIONS)) / 100
    candidates = [Candidate(f"c{n}", "model", face.astype(np.float32)) for n, face in enumerate(faces)]
    return CandidateSet(picture, row, "someone", tuple(candidates))


def choice(region, a, b, verdict, annotator="ann", picture="p", kind="first") -> Choice:
    question = Question(f"{picture}/{region}/{a}/{b}/{kind}", picture, region, a, b, kind)
    return Choice(question, verdict, annotator, "model", 1, "2026-01-01T00:00:00Z")


def face(of: CandidateSet, place: int) -> np.ndarray:
    return of.candidates[place].coefficients


def plain(pairs) -> list[tuple]:
    return [(p.picture, p.row, p.chosen.tolist(), p.rejected.tolist(), p.regions) for p in pairs]


def swapped(given: Choice) -> Choice:
    """Return the same choice with its sides swapped."""
    question = replace(given.question, a=given.question.b, b=given.question.a)
    return replace(given, question=question, verdict=SIDES.get(given.verdict, given.verdict))


@st.composite
def some_choices(draw: st.DrawFn) -> list[Choice]:
    candidates = st.sampled_from(["c0", "c1", "c2", "c3"])
    one = st.builds(
        choice,
        st.sampled_from(["upper", "lower", "whole"]),
        candidates,
        candidates,
        st.sampled_from(["a", "a", "b", "b", "same", "neither", "skip"]),
        st.sampled_from(["ann", "bob", "eve"]),
        st.sampled_from(["p", "q", "gone"]),
        st.sampled_from(["first", "repeat", "mirrored"]),
    )
    return draw(st.lists(one, max_size=40))


CANDIDATE_SETS = [candidate_set("p", row=0), candidate_set("q", row=1)]


@pytest.mark.parametrize("build", [region_pairs, whole_pairs])
@given(given_choices=some_choices(), data=st.data())
@settings(max_examples=80, deadline=None)
def test_sides_and_order_change_nothing(build, given_choices, data):
    pairs, counts = build(CANDIDATE_SETS, given_choices, seed=3)
    shuffled = data.draw(st.permutations(given_choices))
    turned = [swapped(each) if data.draw(st.booleans()) else each for each in dict.fromkeys(shuffled)]
    # A choice and its mirror image become one and the same if only one of them is turned.
    if len(set(turned)) == len(turned):
        again, counts_again = build(CANDIDATE_SETS[::-1], turned, seed=3)
        assert plain(again) == plain(pairs)
        assert counts_again == counts


@given(some_choices())
@settings(max_examples=150, deadline=None)
def test_pairs_differ_in_judged_halves_only_and_use_each_judgement_once(choices):
    pairs, counts = region_pairs(CANDIDATE_SETS, choices, seed=0)
    by_picture = {each.picture: each for each in CANDIDATE_SETS}
    used = 0
    for pair in pairs:
        used += len(pair.regions)
        assert pair.chosen.dtype == pair.rejected.dtype == np.float32
        assert set(pair.regions) <= {"upper", "lower"}
        for half in ("upper", "lower"):
            indices = list(ACTIONS[half])
            same = np.array_equal(pair.chosen[indices], pair.rejected[indices])
            assert same == (half not in pair.regions)
            halves = [each.coefficients[indices].tolist() for each in by_picture[pair.picture].candidates]
            assert pair.chosen[indices].tolist() in halves
            assert pair.rejected[indices].tolist() in halves
    assert used == counts.kept
    assert counts.both_halves + counts.one_half == len(pairs)
    about_halves = [c for c in set(choices) if c.question.region != "whole" and c.question.picture != "gone"]
    about_halves = [c for c in about_halves if c.question.a != c.question.b]
    opinions = [c for c in about_halves if c.verdict != "skip"]
    judged = {(c.question.picture, c.question.region, *sorted((c.question.a, c.question.b))) for c in opinions}
    assert counts.same + counts.neither + counts.ties + counts.contradictions + counts.kept == len(judged)
    assert counts.choices == len(set(choices)) == counts.foreign + len(about_halves)
    assert counts.skipped == len(about_halves) - len(opinions)


@given(some_choices())
@settings(max_examples=100, deadline=None)
def test_whole_pairs_are_whole_candidates_without_cycles(choices):
    pairs, counts = whole_pairs(CANDIDATE_SETS, choices, seed=0)
    assert len(pairs) == counts.kept == counts.both_halves
    beats: dict[str, set[tuple[int, int]]] = {"p": set(), "q": set()}
    for pair in pairs:
        assert pair.regions == ("whole",)
        faces = [each.coefficients.tolist() for each in CANDIDATE_SETS[pair.row].candidates]
        beats[pair.picture].add((faces.index(pair.chosen.tolist()), faces.index(pair.rejected.tolist())))
    for edges in beats.values():
        while leaves := {loser for _, loser in edges} - {winner for winner, _ in edges}:
            edges = {edge for edge in edges if edge[1] not in leaves}
        assert not edges


def test_halves_are_merged_from_their_winners_and_losers():
    one = candidate_set()
    choices = [choice("upper", "c0", "c1", "a"), choice("lower", "c2", "c3", "b")]
    (pair,), counts = region_pairs([one], choices, seed=0)
    assert np.array_equal(pair.chosen, merge_halves(face(one, 0), face(one, 3)))
    assert np.array_equal(pair.rejected, merge_halves(face(one, 1), face(one, 2)))
    assert pair.regions == ("upper", "lower")
    assert (counts.choices, counts.kept, counts.both_halves, counts.one_half) == (2, 2, 1, 0)


def test_a_half_without_a_verdict_is_the_winners_own_in_both():
    one = candidate_set()
    (pair,), counts = region_pairs([one], [choice("lower", "c2", "c1", "b")], seed=0)
    assert np.array_equal(pair.chosen, face(one, 1))
    assert np.array_equal(pair.rejected, merge_halves(face(one, 1), face(one, 2)))
    assert pair.regions == ("lower",)
    assert counts.one_half == 1


def test_a_half_without_a_verdict_is_the_best_of_other_verdicts_if_there_are_any():
    one = candidate_set()
    uppers = [choice("upper", "c0", "c1", "a"), choice("upper", "c0", "c2", "a")]
    pairs, counts = region_pairs([one], [*uppers, choice("lower", "c0", "c3", "b")], seed=0)
    alone = next(pair for pair in pairs if pair.regions == ("upper",))
    assert np.array_equal(alone.chosen, merge_halves(face(one, 0), face(one, 3)))
    assert (counts.both_halves, counts.one_half) == (1, 1)


def test_annotators_vote_and_each_counts_once():
    votes = [
        choice("upper", "c0", "c1", "a", "ann"),
        choice("upper", "c0", "c1", "a", "ann", kind="repeat"),
        choice("upper", "c1", "c0", "b", "ann", kind="mirrored"),
        choice("upper", "c0", "c1", "b", "bob"),
    ]
    assert region_pairs([candidate_set()], votes, seed=0)[1].ties == 1
    votes.append(choice("upper", "c0", "c1", "b", "eve"))
    (pair,), _ = region_pairs([candidate_set()], votes, seed=0)
    assert np.array_equal(pair.chosen, face(candidate_set(), 1))
    # An annotator who contradicts themselves has no vote.
    undecided = [choice("upper", "c0", "c1", "a", "zoe"), choice("upper", "c0", "c1", "b", "zoe", kind="repeat")]
    assert region_pairs([candidate_set()], undecided, seed=0)[1].ties == 1
    (pair,), _ = region_pairs([candidate_set()], [*votes, *undecided], seed=0)
    assert np.array_equal(pair.chosen, face(candidate_set(), 1))


def test_a_choice_given_twice_counts_once():
    votes = [choice("upper", "c0", "c1", "a")] * 2 + [choice("upper", "c0", "c1", "b", kind="repeat")]
    _, counts = region_pairs([candidate_set()], votes, seed=0)
    assert (counts.choices, counts.ties, counts.kept) == (2, 1, 0)


def test_choices_without_a_preference_give_no_pair_and_are_counted():
    twins = candidate_set()
    twins = replace(twins, candidates=(*twins.candidates, Candidate("twin", "model", face(twins, 0).copy())))
    choices = [
        choice("upper", "c0", "c1", "same"),
        choice("upper", "c0", "twin", "a"),
        choice("lower", "c0", "c1", "neither"),
        choice("lower", "c0", "c2", "skip"),
        choice("lower", "c0", "c9", "a"),
        choice("lower", "c0", "c1", "a", picture="gone"),
        choice("whole", "c0", "c1", "a"),
    ]
    pairs, counts = region_pairs([twins], choices, seed=0)
    assert pairs == []
    assert (counts.same, counts.neither, counts.skipped, counts.foreign, counts.kept) == (2, 1, 1, 3, 0)


def test_a_cycle_of_three_is_dropped_and_edges_outside_it_are_kept():
    edges = [("c0", "c1"), ("c1", "c2"), ("c2", "c0"), ("c0", "c3")]
    pairs, counts = region_pairs([candidate_set()], [choice("upper", *edge, "a") for edge in edges], seed=0)
    assert (counts.contradictions, counts.kept) == (3, 1)
    assert np.array_equal(pairs[0].rejected[list(ACTIONS["upper"])], face(candidate_set(), 3)[list(ACTIONS["upper"])])


def test_a_cycle_with_a_clear_ranking_loses_only_edges_against_it():
    # c0 beats all but c3, which it lost to; c1 beats c2 and c3, c2 beats c3: net 1, 1, -1, -1.
    edges = [("c0", "c1"), ("c0", "c2"), ("c1", "c2"), ("c1", "c3"), ("c2", "c3"), ("c3", "c0")]
    pairs, counts = whole_pairs([candidate_set()], [choice("whole", *edge, "a") for edge in edges], seed=0)
    kept = {(pair.chosen.tobytes(), pair.rejected.tobytes()) for pair in pairs}
    faces = [face(candidate_set(), n).tobytes() for n in range(4)]
    assert kept == {(faces[0], faces[2]), (faces[1], faces[2]), (faces[1], faces[3])}
    assert (counts.contradictions, counts.kept) == (3, 3)


def test_a_chain_is_not_a_contradiction():
    edges = [("c0", "c1"), ("c1", "c2"), ("c1", "c3")]
    _, counts = region_pairs([candidate_set()], [choice("upper", *edge, "a") for edge in edges], seed=0)
    assert (counts.contradictions, counts.kept) == (0, 3)


def test_halves_make_a_whole_where_they_agree():
    choices = [
        choice("upper", "c0", "c1", "a"),
        choice("lower", "c1", "c0", "b"),  # agrees
        choice("upper", "c0", "c2", "a"),
        choice("lower", "c0", "c2", "b"),  # does not
        choice("upper", "c0", "c3", "a"),  # no verdict on the other half
        choice("upper", "c1", "c2", "a"),
        choice("lower", "c1", "c2", "a"),
        choice("whole", "c1", "c2", "b"),  # overrides its halves
    ]
    pairs, counts = whole_pairs([candidate_set()], choices, seed=0)
    kept = {(pair.chosen.tobytes(), pair.rejected.tobytes()) for pair in pairs}
    faces = [face(candidate_set(), n).tobytes() for n in range(4)]
    assert kept == {(faces[0], faces[1]), (faces[2], faces[1])}
    assert (counts.kept, counts.ties, counts.half_judged) == (2, 1, 1)


def test_the_seed_decides_which_halves_are_paired():
    edges = [("c0", "c1"), ("c0", "c2"), ("c0", "c3"), ("c1", "c2"), ("c1", "c3"), ("c2", "c3")]
    choices = [choice(region, *edge, "a") for region in ("upper", "lower") for edge in edges]
    built = [plain(region_pairs([candidate_set()], choices, seed=seed)[0]) for seed in (0, 0, 1)]
    assert built[0] == built[1] != built[2]
    assert len(built[0]) == 6


@pytest.mark.parametrize("build", [region_pairs, whole_pairs])
def test_mixed_rounds_and_repeated_pictures_are_refused(build):
    one = choice("upper", "c0", "c1", "a")
    for other in (replace(one, round=2), replace(one, model="another")):
        with pytest.raises(DatasetError, match="one round at a time"):
            build([candidate_set()], [one, other], seed=0)
    with pytest.raises(ValueError, match="two candidate sets"):
        build([candidate_set(), candidate_set()], [one], seed=0)


def some_pairs():
    choices = [choice("upper", "c0", "c1", "a"), choice("lower", "c2", "c3", "b"), choice("lower", "c0", "c3", "b")]
    return region_pairs([candidate_set(row=7)], choices, seed=0)[0]


def test_pairs_survive_their_file(tmp_path):
    write_pairs(tmp_path / "pairs.jsonl", some_pairs())
    read, problems = read_pairs(tmp_path / "pairs.jsonl")
    assert plain(read) == plain(some_pairs())
    assert problems == []
    assert read[0].chosen.dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: "{", "not valid JSON"),
        (lambda r: r | {"areas": []}, "areas must list"),
        (lambda r: r | {"areas": ["nose"]}, "areas must list"),
        (lambda r: r | {"areas": [["upper"]]}, "areas must list"),
        (lambda r: r | {"row": True}, "row is not a JSON int"),
        (lambda r: {k: v for k, v in r.items() if k != "picture"}, "picture is not a JSON str"),
        (lambda r: r | {"chosen": {"jawOpen": 1}}, "chosen: not an object with exactly the 52"),
        (lambda r: r | {"chosen": r["chosen"] | {"jawOpen": 1.5}}, "jawOpen is not a number from 0 to 1"),
        (lambda r: r | {"rejected": r["rejected"] | {"jawOpen": True}}, "jawOpen is not a number from 0 to 1"),
    ],
)
def test_a_bad_line_is_reported_and_affects_no_other(tmp_path, change, message):
    path = tmp_path / "pairs.jsonl"
    write_pairs(path, some_pairs())
    lines = path.read_text().splitlines()
    spoilt = change(json.loads(lines[0]))
    lines[0] = spoilt if isinstance(spoilt, str) else json.dumps(spoilt)
    path.write_text("\n".join(lines))
    read, (problem,) = read_pairs(path)
    assert plain(read) == plain(some_pairs())[1:]
    assert f"{path}, line 1" in problem
    assert message in problem


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(TableError, match="Check the path"):
        read_pairs(tmp_path / "none.jsonl")
