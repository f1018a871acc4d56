"""Drafts come from the longest context with enough counts, and stop where they are unlikely."""

import llguidance.hf
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher
from transformers import AutoTokenizer

from semanticface import assets
from semanticface.inference import ngram_draft
from semanticface.inference.ngram_draft import NgramDraft, typical_expressions
from semanticface.semantics.analysis import describe_many


def chain(proposal: tuple[list[int], list[int]]) -> list[int]:
    """Return the tokens of a proposal without forks."""
    tokens, parents = proposal
    assert parents == list(range(-1, len(tokens) - 1))
    return tokens


def test_what_the_grammar_forbids_is_not_proposed_and_what_it_forces_is():
    tokenizer = AutoTokenizer.from_pretrained(assets.path("nano"))
    vocabulary = llguidance.hf.from_tokenizer(tokenizer)
    matcher = LLMatcher(vocabulary, LLMatcher.grammar_from_regex("both (brows slightly raised|eyes closed)"))
    both, brows, eyes, slightly, clearly, raised = (
        tokenizer(text, add_special_tokens=False)["input_ids"][0]
        for text in ("both", " brows", " eyes", " slightly", " clearly", " raised")
    )
    draft = NgramDraft()
    draft.update([both, clearly], weight=9)
    draft.update([both, brows, clearly])
    matcher.consume_token(both)
    assert chain(draft.propose([both], 9, 0.01, matcher)) == [brows, slightly, raised]
    assert chain(draft.propose([both], 2, 0.01, matcher)) == [brows, slightly]
    assert matcher.validate_tokens([eyes]), "the state itself is not advanced"


def test_counted_tokens_are_proposed():
    draft = NgramDraft()
    draft.update([1, 2, 3, 4, 5])
    assert chain(draft.propose([1, 2], 10, 0.01)) == [3, 4, 5]
    assert chain(draft.propose([1, 2], 2, 0.01)) == [3, 4]
    assert chain(draft.propose([9], 10, 0.01)) == []


def test_the_likeliest_continuations_form_a_tree():
    draft = NgramDraft()
    for last in (4, 4, 4, 5):
        draft.update([1, 2, 3, last, 6])
    tokens, parents = draft.propose([1, 2], 10, min_prob=0.1)
    assert (tokens, parents) == ([3, 4, 6], [-1, 0, 1])
    tokens, parents = draft.propose([1, 2], 10, min_prob=0.02)
    assert (tokens, parents) == ([3, 4, 6, 5, 6], [-1, 0, 1, 0, 3])
    assert draft.propose([1, 2], 4, min_prob=0.02)[0] == [3, 4, 6, 5]


def test_a_longer_context_decides_once_it_is_frequent():
    draft = NgramDraft()
    draft.update([1, 2, 3], weight=15)
    draft.update([9, 2, 4], weight=20)
    assert draft.propose([1, 2], 1, 0.0)[0] == [3]
    assert draft.propose([8, 2], 1, 0.0)[0] == [4]


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(ngram_draft, "_MAX_CONTEXTS", 50)
    draft = NgramDraft()
    for start in range(0, 4000, 4):
        draft.update(range(start, start + 4))
    assert len(draft._counts) < 60
    for _ in range(5):
        draft.update([0, 3])
    assert draft.propose([0], 1, 0.0)[0] == [3], "known contexts are still updated"


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=20), max_size=5), st.integers(0, 9))
def test_a_proposal_is_a_tree_of_limited_size(answers, max_tokens):
    draft = NgramDraft()
    for answer in answers:
        draft.update(answer)
    tokens, parents = draft.propose([1, 2, 3], max_tokens, 0.01)
    assert len(tokens) == len(parents) <= max_tokens
    assert all(-1 <= parent < index for index, parent in enumerate(parents))
    assert len(set(zip(parents, tokens, strict=True))) == len(tokens), "no proposal is repeated"


def test_typical_expressions_use_many_phrases():
    texts = {text for analysis in describe_many(typical_expressions()) for text in analysis.muscle_movements.values()}
    assert len(texts) > 300
    assert (typical_expressions() == typical_expressions()).all()
