"""Guesses at words: from the longest context that was seen often enough, and only as far as they are worth it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from semanticface.inference import ngram_draft
from semanticface.inference.ngram_draft import NgramDraft, typical_expressions
from semanticface.semantics.analysis import describe_many


def chain(guess: tuple[list[int], list[int]]) -> list[int]:
    """Return the tokens of a guess that has no forks."""
    tokens, parents = guess
    assert parents == list(range(-1, len(tokens) - 1))
    return tokens


def test_what_was_seen_is_guessed():
    known = NgramDraft()
    known.learn([1, 2, 3, 4, 5])
    assert chain(known.guess([1, 2], 10, 0.01)) == [3, 4, 5]
    assert chain(known.guess([1, 2], 2, 0.01)) == [3, 4]
    assert chain(known.guess([9], 10, 0.01)) == []


def test_the_likeliest_beginnings_make_a_tree():
    known = NgramDraft()
    for last in (4, 4, 4, 5):
        known.learn([1, 2, 3, last, 6])
    tokens, parents = known.guess([1, 2], 10, least=0.1)
    assert (tokens, parents) == ([3, 4, 6], [-1, 0, 1])
    tokens, parents = known.guess([1, 2], 10, least=0.02)
    assert (tokens, parents) == ([3, 4, 6, 5, 6], [-1, 0, 1, 0, 3])
    assert known.guess([1, 2], 4, least=0.02)[0] == [3, 4, 6, 5]


def test_a_longer_context_decides_once_it_was_seen_often():
    known = NgramDraft()
    known.learn([1, 2, 3], weight=15)
    known.learn([9, 2, 4], weight=20)
    assert known.guess([1, 2], 1, 0.0)[0] == [3]
    assert known.guess([8, 2], 1, 0.0)[0] == [4]


def test_memory_has_a_bound(monkeypatch):
    monkeypatch.setattr(ngram_draft, "_MOST_CONTEXTS", 50)
    known = NgramDraft()
    for start in range(0, 4000, 4):
        known.learn(range(start, start + 4))
    assert len(known._following) < 60
    for _ in range(5):
        known.learn([0, 3])
    assert known.guess([0], 1, 0.0)[0] == [3], "contexts already known are brought up to date"


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=20), max_size=5), st.integers(0, 9))
def test_a_guess_is_a_tree_of_at_most_the_tokens_asked(answers, most):
    known = NgramDraft()
    for answer in answers:
        known.learn(answer)
    tokens, parents = known.guess([1, 2, 3], most, 0.01)
    assert len(tokens) == len(parents) <= most
    assert all(-1 <= parent < index for index, parent in enumerate(parents))
    assert len(set(zip(parents, tokens, strict=True))) == len(tokens), "no guess is made twice"


def test_typical_expressions_use_many_phrases():
    texts = {text for analysis in describe_many(typical_expressions()) for text in analysis.muscle_movements.values()}
    assert len(texts) > 300
    assert (typical_expressions() == typical_expressions()).all()
