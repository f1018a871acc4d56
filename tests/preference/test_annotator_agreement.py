"""Consistency and agreement, against choices of which it is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semanticface.preference.annotator_agreement import Share, answer, consistency, krippendorff, report, table
from semanticface.preference.types import VERDICTS, Choice, Question


def choice(name, verdict, annotator="robin", *, area="upper", sides=("model-1", "model-2"), kind="first", of=""):
    return Choice(Question(name, "p" + (of or name), area, *sides, kind, of), verdict, annotator, "m", 1, "t")


def test_consistency_of_repeats_and_mirrored_ones():
    given = [
        *(choice("q1", "a"), choice("q1r", "a", kind="repeat", of="q1")),
        *(choice("q2", "a"), choice("q2r", "b", kind="repeat", of="q2")),
        *(choice("q3", "a"), choice("q3m", "b", sides=("model-2", "model-1"), kind="mirrored", of="q3")),
        *(choice("q4", "b"), choice("q4m", "b", sides=("model-2", "model-1"), kind="mirrored", of="q4")),
        *(choice("q5", "same"), choice("q5m", "same", sides=("model-2", "model-1"), kind="mirrored", of="q5")),
        *(choice("q6", "skip"), choice("q6r", "a", kind="repeat", of="q6")),  # no opinion, no consistency
        choice("q7r", "a", kind="repeat", of="q7"),  # the first one was taken back
    ]
    repeats, mirrored = consistency(given)
    assert (repeats.hits, repeats.of) == (1, 2)
    assert (mirrored.hits, mirrored.of) == (2, 3)


def test_agreement_looks_through_sides_and_kinds():
    swapped = ("model-2", "model-1")
    given = [
        *(choice("q1", "a"), choice("q1", "b", "kim", sides=swapped)),
        *(choice("q2", "a"), choice("q2", "a", "kim", sides=swapped)),
        *(choice("q3", "same"), choice("q3", "same", "kim")),
        *(choice("q4", "same", area="lower"), choice("q4", "a", "kim", area="lower")),
        *(choice("q5", "skip"), choice("q5", "a", "kim")),
        choice("q1r", "b", kind="repeat", of="q1"),
    ]
    found = report(given)
    whole, upper, lower = found.together
    assert (whole.same.hits, whole.same.of) == (2, 4) and (whole.winner.hits, whole.winner.of) == (1, 2)
    assert upper.area == "upper" and (upper.same.hits, upper.same.of) == (2, 3)
    assert lower.area == "lower" and (lower.same.hits, lower.same.of) == (0, 1)
    robin = next(each for each in found.alone if each.annotator == "robin" and each.area is None)
    assert robin.choices == 6 and robin.decided.hits == 3 and robin.skipped.hits == 1
    assert (robin.left.hits, robin.left.of) == (2, 3)
    told = table(found)
    assert "kim, robin" in told and "50 % (1 of 2)" in told and "Krippendorff's alpha: all " in told


@given(st.lists(st.tuples(st.sampled_from(VERDICTS), st.sampled_from(VERDICTS)), max_size=12), st.data())
def test_swapping_the_sides_of_a_question_changes_no_agreement(pairs, data):
    def both(swap):
        for n, (one, other) in enumerate(pairs):
            yield choice(f"q{n}", one)
            if swap and data.draw(st.booleans()):
                turned = {"a": "b", "b": "a"}.get(other, other)
                yield choice(f"q{n}", turned, "kim", sides=("model-2", "model-1"))
            else:
                yield choice(f"q{n}", other, "kim")

    plain, swapped = report(both(False)), report(both(True))
    assert plain.together == swapped.together
    assert plain.alpha == pytest.approx(swapped.alpha, nan_ok=True)


def _by_definition(units):
    """1 minus observed over expected disagreement, by enumerating ordered pairs of answers."""
    units = [unit for unit in units if len(unit) >= 2]
    answers = [each for unit in units for each in unit]
    observed = sum(sum(a != b for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in units)
    expected = sum(a != b for a, b in itertools.permutations(answers, 2)) / (len(answers) - 1)
    return 1 - observed / expected


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=4), max_size=10))
def test_alpha_is_what_its_definition_says(units):
    answers = {each for unit in units if len(unit) >= 2 for each in unit}
    found = krippendorff(units)
    if len(answers) < 2:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(_by_definition(units))


def test_alpha_of_full_agreement_and_of_chance():
    assert krippendorff([["a", "a"], ["b", "b"]]) == 1.0
    rng = np.random.default_rng(0)
    assert abs(krippendorff([rng.choice(["a", "b"], 2).tolist() for _ in range(4000)])) < 0.05


def test_a_lean_to_one_side_is_marked():
    leaning = [choice(f"q{n}", "a" if n % 5 else "b") for n in range(40)]
    even = [choice(f"q{n}", "a" if n % 2 else "b", "kim") for n in range(40)]
    told = table(report(leaning + even))
    assert "80 %*" in told and "50 %\n" in told and "* leans to one side" in told
    assert table(report([])) == "No choices yet."
    assert "their agreement is not known" in table(report(leaning))


def test_shares():
    low, high = Share(80, 100).interval
    assert (low, high) == pytest.approx((0.7112, 0.8666), abs=1e-3)  # Wilson's, as tabulated
    assert math.isnan(Share(0, 0).value) and Share(0, 0).interval == (0.0, 1.0)
    assert answer(choice("q", "skip")) is None
