"""Pairs: they say what was chosen and no more, whoever chose it, on whichever side and in whatever order."""

from __future__ import annotations

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


def slate(picture: str = "p", count: int = 4, row: int = 0) -> CandidateSet:
    faces = np.random.default_rng(row).integers(0, 101, (count, N_ACTIONS)) / 100
    candidates = [Candidate(f"c{n}", "model", face.astype(np.float32)) for n, face in enumerate(faces)]
    return CandidateSet(picture, row, "someone", tuple(candidates))


def choice(area, a, b, verdict, annotator="ann", picture="p", kind="first") -> Choice:
    question = Question(f"{picture}/{area}/{a}/{b}/{kind}", picture, area, a, b, kind)
    return Choice(question, verdict, annotator, "model", 1, "2026-01-01T00:00:00Z")


def face(of: CandidateSet, place: int) -> np.ndarray:
    return of.candidates[place].coefficients


def plain(pairs) -> list[tuple]:
    return [(p.picture, p.row, p.chosen.tolist(), p.rejected.tolist(), p.areas) for p in pairs]


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


SLATES = [slate("p", row=0), slate("q", row=1)]


@pytest.mark.parametrize("build", [region_pairs, whole_pairs])
@given(given_choices=some_choices(), data=st.data())
@settings(max_examples=80, deadline=None)
def test_sides_and_order_change_nothing(build, given_choices, data):
    pairs, counts = build(SLATES, given_choices, seed=3)
    shuffled = data.draw(st.permutations(given_choices))
    turned = [swapped(each) if data.draw(st.booleans()) else each for each in dict.fromkeys(shuffled)]
    # A choice and its mirror image become one and the same if only one of them is turned.
    if len(set(turned)) == len(turned):
        again, counts_again = build(SLATES[::-1], turned, seed=3)
        assert plain(again) == plain(pairs)
        assert counts_again == counts


@given(some_choices())
@settings(max_examples=150, deadline=None)
def test_pairs_differ_in_judged_halves_alone_and_use_each_judgement_once(choices):
    pairs, counts = region_pairs(SLATES, choices, seed=0)
    by_picture = {each.picture: each for each in SLATES}
    used = 0
    for pair in pairs:
        used += len(pair.areas)
        assert pair.chosen.dtype == pair.rejected.dtype == np.float32
        assert set(pair.areas) <= {"upper", "lower"}
        for half in ("upper", "lower"):
            indices = list(ACTIONS[half])
            same = np.array_equal(pair.chosen[indices], pair.rejected[indices])
            assert same == (half not in pair.areas)
            halves = [each.coefficients[indices].tolist() for each in by_picture[pair.picture].candidates]
            assert pair.chosen[indices].tolist() in halves
            assert pair.rejected[indices].tolist() in halves
    assert used == counts.kept
    assert counts.both_halves + counts.one_half == len(pairs)
    told = [c for c in set(choices) if c.question.area != "whole" and c.question.picture != "gone"]
    told = [c for c in told if c.question.a != c.question.b]
    opinions = [c for c in told if c.verdict != "skip"]
    judged = {(c.question.picture, c.question.area, *sorted((c.question.a, c.question.b))) for c in opinions}
    assert counts.same + counts.neither + counts.ties + counts.contradictions + counts.kept == len(judged)
    assert counts.choices == len(set(choices)) == counts.foreign + len(told)
    assert counts.skipped == len(told) - len(opinions)


@given(some_choices())
@settings(max_examples=100, deadline=None)
def test_whole_pairs_are_whole_candidates_and_never_go_round(choices):
    pairs, counts = whole_pairs(SLATES, choices, seed=0)
    assert len(pairs) == counts.kept == counts.both_halves
    beats: dict[str, set[tuple[int, int]]] = {"p": set(), "q": set()}
    for pair in pairs:
        assert pair.areas == ("whole",)
        faces = [each.coefficients.tolist() for each in SLATES[pair.row].candidates]
        beats[pair.picture].add((faces.index(pair.chosen.tolist()), faces.index(pair.rejected.tolist())))
    for edges in beats.values():
        while leaves := {loser for _, loser in edges} - {winner for winner, _ in edges}:
            edges = {edge for edge in edges if edge[1] not in leaves}
        assert not edges


def test_halves_are_put_together_from_their_winners_and_losers():
    one = slate()
    choices = [choice("upper", "c0", "c1", "a"), choice("lower", "c2", "c3", "b")]
    (pair,), counts = region_pairs([one], choices, seed=0)
    assert np.array_equal(pair.chosen, merge_halves(face(one, 0), face(one, 3)))
    assert np.array_equal(pair.rejected, merge_halves(face(one, 1), face(one, 2)))
    assert pair.areas == ("upper", "lower")
    assert (counts.choices, counts.kept, counts.both_halves, counts.one_half) == (2, 2, 1, 0)


def test_a_half_without_a_verdict_is_the_winners_own_in_both():
    one = slate()
    (pair,), counts = region_pairs([one], [choice("lower", "c2", "c1", "b")], seed=0)
    assert np.array_equal(pair.chosen, face(one, 1))
    assert np.array_equal(pair.rejected, merge_halves(face(one, 1), face(one, 2)))
    assert pair.areas == ("lower",)
    assert counts.one_half == 1


def test_a_half_without_a_verdict_is_the_best_of_other_verdicts_if_there_are_any():
    one = slate()
    uppers = [choice("upper", "c0", "c1", "a"), choice("upper", "c0", "c2", "a")]
    pairs, counts = region_pairs([one], [*uppers, choice("lower", "c0", "c3", "b")], seed=0)
    alone = next(pair for pair in pairs if pair.areas == ("upper",))
    assert np.array_equal(alone.chosen, merge_halves(face(one, 0), face(one, 3)))
    assert (counts.both_halves, counts.one_half) == (1, 1)


def test_annotators_vote_and_each_counts_once():
    votes = [
        choice("upper", "c0", "c1", "a", "ann"),
        choice("upper", "c0", "c1", "a", "ann", kind="repeat"),
        choice("upper", "c1", "c0", "b", "ann", kind="mirrored"),
        choice("upper", "c0", "c1", "b", "bob"),
    ]
    assert region_pairs([slate()], votes, seed=0)[1].ties == 1
    votes.append(choice("upper", "c0", "c1", "b", "eve"))
    (pair,), _ = region_pairs([slate()], votes, seed=0)
    assert np.array_equal(pair.chosen, face(slate(), 1))
    # Who says one thing and then the other has no vote.
    undecided = [choice("upper", "c0", "c1", "a", "zoe"), choice("upper", "c0", "c1", "b", "zoe", kind="repeat")]
    assert region_pairs([slate()], undecided, seed=0)[1].ties == 1
    (pair,), _ = region_pairs([slate()], [*votes, *undecided], seed=0)
    assert np.array_equal(pair.chosen, face(slate(), 1))


def test_a_choice_given_twice_counts_once():
    votes = [choice("upper", "c0", "c1", "a")] * 2 + [choice("upper", "c0", "c1", "b", kind="repeat")]
    _, counts = region_pairs([slate()], votes, seed=0)
    assert (counts.choices, counts.ties, counts.kept) == (2, 1, 0)


def test_no_difference_both_wrong_no_opinion_and_strangers_give_no_pair_and_are_counted():
    twins = slate()
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


def test_a_circle_of_three_is_dropped_and_what_hangs_on_it_is_kept():
    circle = [("c0", "c1"), ("c1", "c2"), ("c2", "c0"), ("c0", "c3")]
    pairs, counts = region_pairs([slate()], [choice("upper", *edge, "a") for edge in circle], seed=0)
    assert (counts.contradictions, counts.kept) == (3, 1)
    assert np.array_equal(pairs[0].rejected[list(ACTIONS["upper"])], face(slate(), 3)[list(ACTIONS["upper"])])


def test_a_circle_with_a_clear_rank_loses_only_what_goes_against_it():
    # c0 beats all but c3, which it lost to; c1 beats c2 and c3, c2 beats c3: net 1, 1, -1, -1.
    edges = [("c0", "c1"), ("c0", "c2"), ("c1", "c2"), ("c1", "c3"), ("c2", "c3"), ("c3", "c0")]
    pairs, counts = whole_pairs([slate()], [choice("whole", *edge, "a") for edge in edges], seed=0)
    kept = {(pair.chosen.tobytes(), pair.rejected.tobytes()) for pair in pairs}
    faces = [face(slate(), n).tobytes() for n in range(4)]
    assert kept == {(faces[0], faces[2]), (faces[1], faces[2]), (faces[1], faces[3])}
    assert (counts.contradictions, counts.kept) == (3, 3)


def test_a_chain_is_no_contradiction_though_its_first_won_less_often():
    edges = [("c0", "c1"), ("c1", "c2"), ("c1", "c3")]
    _, counts = region_pairs([slate()], [choice("upper", *edge, "a") for edge in edges], seed=0)
    assert (counts.contradictions, counts.kept) == (0, 3)


def test_halves_make_a_whole_where_they_agree():
    choices = [
        choice("upper", "c0", "c1", "a"),
        choice("lower", "c1", "c0", "b"),  # agrees
        choice("upper", "c0", "c2", "a"),
        choice("lower", "c0", "c2", "b"),  # does not
        choice("upper", "c0", "c3", "a"),  # says nothing of the other half
        choice("upper", "c1", "c2", "a"),
        choice("lower", "c1", "c2", "a"),
        choice("whole", "c1", "c2", "b"),  # overrules its halves
    ]
    pairs, counts = whole_pairs([slate()], choices, seed=0)
    kept = {(pair.chosen.tobytes(), pair.rejected.tobytes()) for pair in pairs}
    faces = [face(slate(), n).tobytes() for n in range(4)]
    assert kept == {(faces[0], faces[1]), (faces[2], faces[1])}
    assert (counts.kept, counts.ties, counts.half_judged) == (2, 1, 1)


def test_the_seed_decides_which_halves_meet():
    edges = [("c0", "c1"), ("c0", "c2"), ("c0", "c3"), ("c1", "c2"), ("c1", "c3"), ("c2", "c3")]
    choices = [choice(area, *edge, "a") for area in ("upper", "lower") for edge in edges]
    built = [plain(region_pairs([slate()], choices, seed=seed)[0]) for seed in (0, 0, 1)]
    assert built[0] == built[1] != built[2]
    assert len(built[0]) == 6


@pytest.mark.parametrize("build", [region_pairs, whole_pairs])
def test_mixed_rounds_and_double_slates_are_refused(build):
    one = choice("upper", "c0", "c1", "a")
    for other in (replace(one, round=2), replace(one, model="another")):
        with pytest.raises(DatasetError, match="one round at a time"):
            build([slate()], [one, other], seed=0)
    with pytest.raises(ValueError, match="two slates"):
        build([slate(), slate()], [one], seed=0)


# --- files --------------------------------------------------------------------------------------------------------


def some_pairs():
    choices = [choice("upper", "c0", "c1", "a"), choice("lower", "c2", "c3", "b"), choice("lower", "c0", "c3", "b")]
    return region_pairs([slate(row=7)], choices, seed=0)[0]


def test_pairs_survive_their_file(tmp_path):
    write_pairs(tmp_path / "pairs.jsonl", some_pairs())
    read, problems = read_pairs(tmp_path / "pairs.jsonl")
    assert plain(read) == plain(some_pairs())
    assert problems == []
    assert read[0].chosen.dtype == np.float32


@pytest.mark.parametrize(
    ("change", "told"),
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
def test_a_bad_line_is_named_and_spoils_no_other(tmp_path, change, told):
    path = tmp_path / "pairs.jsonl"
    write_pairs(path, some_pairs())
    lines = path.read_text().splitlines()
    spoilt = change(json.loads(lines[0]))
    lines[0] = spoilt if isinstance(spoilt, str) else json.dumps(spoilt)
    path.write_text("\n".join(lines))
    read, (problem,) = read_pairs(path)
    assert plain(read) == plain(some_pairs())[1:]
    assert f"{path}, line 1" in problem
    assert told in problem


def test_no_pairs_file_no_pairs(tmp_path):
    with pytest.raises(TableError, match="Check the path"):
        read_pairs(tmp_path / "none.jsonl")
