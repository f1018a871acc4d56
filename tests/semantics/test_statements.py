"""Whatever is chosen among the statements about a face holds for its numbers, and is as sure as they are."""

import json

import llguidance.hf
import llguidance.numpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher
from transformers import AutoTokenizer

from semanticface import assets
from semanticface.arkit import INDEX, N_ACTIONS, REGIONS, vector
from semanticface.semantics.analysis import GRADES, Analysis
from semanticface.semantics.answer import ARKIT_START, MAX_DEFAULT_LENGTH, MAX_LENGTH
from semanticface.semantics.faithfulness import agreement
from semanticface.semantics.grammar import statements_grammar
from semanticface.semantics.statements import UNSURE, Statements, draw, statements


@pytest.fixture(scope="module")
def vocabulary():
    return llguidance.hf.from_tokenizer(AutoTokenizer.from_pretrained(assets.path("nano")))


def spread(values: np.ndarray, width: float) -> np.ndarray:
    """Return distributions around values in hundredths; float32[52, 101]."""
    distance = np.abs(np.arange(101) - values[:, None])
    probs = np.exp(-((distance / max(width, 0.1)) ** 2))
    return (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32)


def walk(vocabulary, found: Statements, rng: np.random.Generator) -> Analysis:
    """Return a random analysis of the grammar."""
    matcher = LLMatcher(vocabulary, statements_grammar(found))
    assert not matcher.is_error(), matcher.get_error()
    bits = llguidance.numpy.allocate_token_bitmask(1, vocabulary.vocab_size)
    tokens: list[int] = []
    while not matcher.is_accepting():
        llguidance.numpy.fill_next_token_bitmask(matcher, bits)
        allowed = np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little"))
        tokens.append(int(rng.choice(allowed)))
        matcher.consume_token(tokens[-1])
    text = vocabulary.decode_str(tokens).rpartition("," + ARKIT_START)[0]
    return Analysis.from_dict(json.loads(text + "}")["analysis"])


def face(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return random numbers and distributions that know of them, or not."""
    values = np.where(rng.random(N_ACTIONS) < rng.random(), rng.integers(0, 101, N_ACTIONS), 0)
    if rng.random() < 0.5:  # alike on both sides
        values[1::2] = values[::2]
    around = values if rng.random() < 0.7 else rng.integers(0, 101, N_ACTIONS)
    return values, spread(around, float(rng.choice([0, 3, 10, 30])))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_every_choice_holds_for_the_numbers(vocabulary, seed):
    rng = np.random.default_rng(seed)
    values, probs = face(rng)
    found = statements(values, probs, emotion=bool(rng.integers(2)))
    for _ in range(3):
        analysis = walk(vocabulary, found, rng)
        assert agreement(analysis, values / 100).contradicts == ()
        for key, text in analysis.texts().items():
            assert len(text) <= MAX_LENGTH.get(key, MAX_DEFAULT_LENGTH)


def region_of(found: Statements, region: str) -> list[str]:
    """Return everything that may be said of a region, clause by clause."""
    clauses, phrases = found.regions[region]
    return [clause.subject + text for clause in clauses for texts in clause.movements for text in texts] + [*phrases]


def of(named: dict[str, float], width: float) -> Statements:
    """Return what may be said of a face at rest but for some actions, which are in doubt."""
    values = np.rint(100 * vector(named)).astype(int)
    probs = spread(values, 0)
    rows = [INDEX[name] for name in named]
    probs[rows] = spread(values, width)[rows]
    return statements(values, probs)


def test_what_is_sure_is_said_plainly():
    found = of({"jawOpen": 0.7, "browDownLeft": 0.3, "browDownRight": 0.3}, 1)
    assert region_of(found, "jaw") == ["strongly open"]
    assert region_of(found, "brows") == ["both brows slightly lowered"]
    assert region_of(found, "tongue") == ["not visible"]
    assert "open mouth" in found.phrases["expression_category"]
    assert found.phrases["symmetry"][:2] == ("symmetric", "mostly symmetric")


def test_one_side_is_named_where_they_differ():
    found = of({"mouthSmileLeft": 0.7, "mouthSmileRight": 0.25}, 1)
    assert region_of(found, "mouth") == ["left corner strongly pulled up", "right corner slightly pulled up"]
    assert "asymmetric, left corner pulled up more" in found.phrases["symmetry"]


@pytest.mark.parametrize(
    ("value", "width", "texts"),
    [
        (0.4, 18, ["slightly or clearly open"]),
        (0.5, 40, ["jaw open"]),
    ],
)
def test_doubt_is_put_in_words(value, width, texts):
    assert region_of(of({"jawOpen": value}, width), "jaw") == texts


def test_what_may_not_be_there_is_said_with_perhaps_or_not_at_all():
    values = np.zeros(N_ACTIONS, dtype=int)
    probs = spread(values, 0)
    jaw = INDEX["jawOpen"]
    values[jaw] = 15  # the mean of 55 % rest and 45 % slightly open
    probs[jaw] = 0
    probs[jaw, [0, 30]] = 0.55, 0.45
    assert region_of(statements(values, probs), "jaw") == ["perhaps slightly open"]
    probs[jaw, [0, 30]] = 0.65, 0.35
    assert region_of(statements(values, probs), "jaw") == ["perhaps relaxed"]
    probs[jaw] = 0
    probs[jaw, [0, 100]] = 0.65, 0.35
    assert region_of(statements(values, probs), "jaw") == [UNSURE]


def test_a_face_of_which_nothing_is_known_gets_no_false_certainty(vocabulary):
    values = np.full(N_ACTIONS, 50)
    found = statements(values, np.full((N_ACTIONS, 101), 1 / 101, dtype=np.float32))
    for region in REGIONS:
        for text in region_of(found, region):
            assert not any(adverb in text.split() for adverb, _, _ in GRADES)
    analysis = walk(vocabulary, found, np.random.default_rng(0))
    assert agreement(analysis, values / 100).contradicts == ()


def test_drawn_faces_follow_the_distributions_and_both_sides_agree():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 101, N_ACTIONS)
    values[INDEX["mouthSmileRight"]] = values[INDEX["mouthSmileLeft"]]
    probs = spread(values, 20)
    drawn = draw(probs)
    np.testing.assert_allclose(drawn.mean(axis=0), probs @ np.arange(101), atol=1)
    correlations = np.corrcoef(drawn.T)
    assert correlations[INDEX["mouthSmileLeft"], INDEX["mouthSmileRight"]] > 0.7
    assert abs(correlations[INDEX["mouthSmileLeft"], INDEX["jawOpen"]]) < 0.3
