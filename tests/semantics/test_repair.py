"""What contradicts the numbers is replaced, and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semanticface.arkit import vector
from semanticface.semantics.analysis import Analysis, describe
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.semantics.faithfulness import agreement
from semanticface.semantics.movements import RELAXED
from semanticface.semantics.repair import repaired


@given(st.integers(0, 2**32 - 1))
def test_a_repaired_analysis_holds_and_a_true_one_stays(seed):
    rng = np.random.default_rng(seed)
    one, other = sample_coefficients(rng), sample_coefficients(rng)
    assert repaired(describe(one), one) == (describe(one), {})
    wrong = describe(other, emotion=bool(rng.integers(2)))
    found, changed = repaired(wrong, one)
    assert agreement(found, one).contradicts == ()
    for key, text in wrong.texts().items():
        assert changed.get(key, found.texts()[key]) == text


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("both corners strongly pulled up, lips fully pressed", "both corners strongly pulled up"),
        ("lips slightly funneled, both corners fully stretched", "both corners strongly pulled up"),
        ("upper lip rather curious, lips fully pressed", "upper lip rather curious, both corners strongly pulled up"),
        ("relaxed", "both corners strongly pulled up"),
    ],
)
def test_clauses_that_hold_stay(text, mended):
    smile = vector({"mouthSmileLeft": 0.7, "mouthSmileRight": 0.7})
    analysis = Analysis("smile", {**RELAXED, "mouth": text}, "joy", "symmetric")
    found, changed = repaired(analysis, smile)
    assert found.muscle_movements["mouth"] == mended
    assert changed == {"mouth": text}
