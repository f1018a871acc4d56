"""Guesses at the words a model will write next, from what was written before.

A guess costs nothing when it is wrong: the decoder checks every token of it against the model in one pass and keeps
those that the model would have written anyway. Analyses are made of a few hundred phrases, so most guesses are right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semanticface.arkit import N_ACTIONS

_CONTEXTS = (7, 5, 3, 2, 1)
_MOST_ENTRIES = 200_000


class Drafts:
    """Remembers which token followed which: the longest known context decides, the last sight of it wins."""

    def __init__(self) -> None:
        self._following: dict[tuple[int, ...], int] = {}

    def learn(self, tokens: Sequence[int]) -> None:
        """Remember one answer's tokens; past a bound of memory only contexts already known are brought up to date."""
        full = len(self._following) >= _MOST_ENTRIES
        for length in _CONTEXTS:
            for end in range(length, len(tokens)):
                context = tuple(tokens[end - length : end])
                if not full or context in self._following:
                    self._following[context] = tokens[end]

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """Return up to ``most`` tokens that may follow; fewer where nothing like it was seen."""
        known = list(tokens[-_CONTEXTS[0] :])
        out: list[int] = []
        while len(out) < most:
            for length in _CONTEXTS:
                token = self._following.get(tuple(known[-length:])) if len(known) >= length else None
                if token is not None:
                    break
            else:
                break
            out.append(token)
            known.append(token)
        return out


def typical_expressions(count: int = 256) -> np.ndarray:
    """Return random expressions whose descriptions use the common phrases; float32[count, 52]."""
    rng = np.random.default_rng(0)
    active = rng.random((count, N_ACTIONS)) < rng.uniform(0.02, 0.25, (count, 1))
    return (rng.random((count, N_ACTIONS)) * active).astype(np.float32)
