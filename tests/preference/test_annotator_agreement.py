"""Consistency and agreement of annotators, against choices with known values."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semanticface.preference.annotator_agreement import (
    Proportion,
    answer,
    consistency,
    format_report,
    krippendorff_alpha,
    report,
)
from semanticface.preference.types import VERDICTS, Choice, Question


def choice(name, verdict, annotator="robin", *, region="upper", sides=("model-1", "model-2"), kind="first", of=""):
    return Choice(Question(name, "p" + (of or name), region, *sides, kind, of), verdict, annotator, "m", 1, "t")


def test_consistency_of_repeats_and_mirrored_ones():
    given = [
        *(choice("q1", "a"), choice("q1r", "a", kind="repeat", of="q1")),
        *(choice("q2", "a"), choice("q2r", "b", kind="repeat", of="q2")),
        *(choice("q3", "a"), choice("q3m", "b", sides=("model-2", "model-1"), kind="mirrored", of="q3")),
        *(choice("q4", "b"), choice("q4m", "b", sides=("model-2", "model-1"), kind="mirrored", of="q4")),
        *(choice("q5", "same"), choice("q5m", "same", sides=("model-2", "model-1"), kind="mirrored", of="q5")),
        *(choice("q6", "skip"), choice("q6r", "a", kind="repeat", of="q6")),  # no opinion, so not counted
        choice("q7r", "a", kind="repeat", of="q7"),  # the first one was undone
    ]
    repeats, mirrored = consistency(given)
    assert (repeats.hits, repeats.of) == (1, 2)
    assert (mirrored.hits, mirrored.of) == (2, 3)


def test_agreement_ignores_sides_and_repetitions():
    swapped = ("model-2", "model-1")
    given = [
        *(choice("q1", "a"), choice("q1", "b", "kim", sides=swapped)),
        *(choice("q2", "a"), choice("q2", "a", "kim", sides=swapped)),
        *(choice("q3", "same"), choice("q3", "same", "kim")),
        *(choice("q4", "same", region="lower"), choice("q4", "a", "kim", region="lower")),
        *(choice("q5", "skip"), choice("q5", "a", "kim")),
        choice("q1r", "b", kind="repeat", of="q1"),
    ]
    found = report(given)
    whole, upper, lower = found.pairs
    assert (whole.same.hits, whole.same.of) == (2, 4) and (whole.winner.hits, whole.winner.of) == (1, 2)
    assert upper.region == "upper" and (upper.same.hits, upper.same.of) == (2, 3)
    assert lower.region == "lower" and (lower.same.hits, lower.same.of) == (0, 1)
    robin = next(each for each in found.annotators if each.annotator == "robin" and each.region is None)
    assert robin.choices == 6 and robin.decided.hits == 3 and robin.skipped.hits == 1
    assert (robin.left.hits, robin.left.of) == (2, 3)
    text = format_report(found)
    assert "kim, robin" in text and "50 % (1 of 2)" in text and "Krippendorff's alpha: all " in text


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
    assert plain.pairs == swapped.pairs
    assert plain.alpha == pytest.approx(swapped.alpha, nan_ok=True)


def _alpha_by_definition(units):
    """1 minus observed over expected disagreement, by enumerating ordered pairs of answers."""
    units = [unit for unit in units if len(unit) >= 2]
    answers = [each for unit in units for each in unit]
    observed = sum(sum(a != b for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in units)
    expected = sum(a != b for a, b in itertools.permutations(answers, 2)) / (len(answers) - 1)
    return 1 - observed / expected


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=4), max_size=10))
def test_alpha_matches_its_definition(units):
    answers = {each for unit in units if len(unit) >= 2 for each in unit}
    found = krippendorff_alpha(units)
    if len(answers) < 2:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(_alpha_by_definition(units))


def test_alpha_of_full_agreement_and_of_chance():
    assert krippendorff_alpha([["a", "a"], ["b", "b"]]) == 1.0
    rng = np.random.default_rng(0)
    assert abs(krippendorff_alpha([rng.choice(["a", "b"], 2).tolist() for _ in range(4000)])) < 0.05


def test_position_bias_is_marked():
    biased = [choice(f"q{n}", "a" if n % 5 else "b") for n in range(40)]
    even = [choice(f"q{n}", "a" if n % 2 else "b", "kim") for n in range(40)]
    text = format_report(report(biased + even))
    assert "80 %*" in text and "50 %\n" in text and "* position bias: favours one side" in text
    assert format_report(report([])) == "No choices yet."
    assert "their agreement is unknown" in format_report(report(biased))


def test_proportions():
    low, high = Proportion(80, 100).interval
    assert (low, high) == pytest.approx((0.7112, 0.8666), abs=1e-3)  # Wilson's, as tabulated
    assert math.isnan(Proportion(0, 0).value) and Proportion(0, 0).interval == (0.0, 1.0)
    assert answer(choice("q", "skip")) is None
