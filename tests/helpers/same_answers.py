"""Answers that other batch sizes or code paths computed, compared. Not a test file."""

from collections.abc import Sequence

import numpy as np

from semanticface.semantics.answer import parse_answer

_STEP = 0.01 + 1e-6  # one hundredth, the last digit of a number in an answer


def assert_same_answers(found: Sequence[str], expected: Sequence[str]) -> None:
    """Assert that answers say the same, up to a last digit that rounding decided.

    Another batch size or code path adds the same products in another order, and each processor in its own: logits
    differ by about 1e-6. Where a mean or median lies that close to the border between two hundredths, the last digit
    goes either way. That is rare, so one answer in ten may differ, in its numbers alone and by one hundredth.
    """
    assert len(found) == len(expected)
    differing = [(one, other) for one, other in zip(found, expected, strict=True) if one != other]
    assert len(differing) <= max(1, len(found) // 10), differing[0]
    for one, other in differing:
        first, second = parse_answer(one), parse_answer(other)
        assert first.analysis == second.analysis
        assert np.abs(first.coefficients - second.coefficients).max() < _STEP
