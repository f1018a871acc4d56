"""Phrases for many faces equal phrases for one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semanticface.semantics.phrasing import ADVERBS, GRADES, Noun, fragments, phrase

NOUNS = (Noun("ear", "ears"), Noun("tail"), Noun(""), Noun("ear", "ears", lead=", yet "))
EAR, TAIL, ITSELF, YET = NOUNS
item_lists = st.lists(st.tuples(st.sampled_from(NOUNS), st.booleans()), min_size=1, max_size=7)


def test_every_level_has_its_adverb():
    assert ADVERBS[1:] == tuple(adverb for adverb, _, _ in GRADES)


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([], ""),
        ([(EAR, 0, 0, "up")], ""),
        ([(EAR, 2, 2, "up"), (EAR, 2, 2, "back"), (EAR, 2, 2, "out")], "both ears slightly up, back and out"),
        ([(EAR, 2, 0, "up"), (EAR, 3, 0, "back")], "left ear slightly up, clearly back"),
        ([(EAR, 2, 0, "up"), (EAR, 0, 3, "back")], "left ear slightly up, right ear clearly back"),
        ([(EAR, 2, 3, "up"), (EAR, 2, 3, "back")], "left ear slightly and right ear clearly up and back"),
        ([(EAR, 1, 1, "up"), (TAIL, 5, 5, "out"), (EAR, 1, 1, "back")], "both ears barely up and back, tail fully out"),
        ([(EAR, 0, 0, "up"), (TAIL, 5, 5, "out"), (EAR, 1, 1, "back")], "tail fully out, both ears barely back"),
        ([(TAIL, 2, 4, "out"), (TAIL, 1, 1, "up")], "tail out slightly on the left and strongly on the right, "
         "tail barely up"),
        ([(ITSELF, 4, 0, "bent")], "strongly bent on the left"),
        ([(EAR, 4, 4, "up"), (YET, 2, 0, "down")], "both ears strongly up, yet left ear slightly down"),
        ([(EAR, 0, 0, "up"), (YET, 2, 0, "down")], "left ear slightly down"),
    ],
)  # fmt: skip
def test_clauses(items, text):
    assert phrase(items) == text


def test_a_phrase_continues_its_start():
    assert phrase([], "so") == "so"
    assert phrase([(TAIL, 5, 5, "out")], "so") == "so, tail fully out"
    assert phrase([(YET, 5, 5, "up")], "so") == "so, yet both ears fully up"


@given(item_lists, st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_fragments_of_many_faces_equal_single_phrases(items, seed, highest):
    rng = np.random.default_rng(seed)
    faces = 40
    levels = rng.integers(0, highest, (len(items), 2, faces)).astype(np.int8)
    for place, (_, midline) in enumerate(items):
        if midline:
            levels[place, 1] = levels[place, 0]
    verbs = [f"verb{place}" for place in range(len(items))]
    started = rng.random(faces) < 0.5
    nouns = [noun for noun, _ in items]
    many = list(zip(nouns, levels[:, 0], levels[:, 1], verbs, strict=True))
    for prefixed in (None, started):
        parts = fragments(many, prefixed)
        for face in range(faces):
            own = [
                (n, int(left), int(right), v)
                for n, (left, right), v in zip(nouns, levels[:, :, face], verbs, strict=True)
            ]
            start = "so" if prefixed is not None and prefixed[face] else ""
            assert start + "".join(parts[:, face]) == phrase(own, start)
