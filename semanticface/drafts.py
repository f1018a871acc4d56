"""Guesses at the words a model will write next, from what was written before.

A guess costs nothing when it is wrong: the decoder checks every token of it against the model in one pass and keeps
those that the model would have written anyway. Analyses are made of a few hundred phrases, so most guesses are right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semanticface.arkit import N_ACTIONS

_CONTEXTS = (12, 8, 5, 4, 3, 2, 1)
_ENOUGH = 3
_MOST_CONTEXTS = 200_000


class Drafts:
    """Counts which token followed which tokens; the longest context seen often enough decides."""

    def __init__(self) -> None:
        self._following: dict[tuple[int, ...], dict[int, int]] = {}

    def learn(self, tokens: Sequence[int], weight: int = 1) -> None:
        """Count one answer's tokens, ``weight`` times; past a bound of memory only in contexts already known."""
        full = len(self._following) >= _MOST_CONTEXTS
        for length in _CONTEXTS:
            for end in range(length, len(tokens)):
                context = tuple(tokens[end - length : end])
                if full and context not in self._following:
                    continue
                counts = self._following.setdefault(context, {})
                counts[tokens[end]] = counts.get(tokens[end], 0) + weight

    def guess(self, tokens: Sequence[int], most: int, least: float) -> list[int]:
        """Return tokens that may follow: up to ``most``, as long as their chance to be right together is ``least``."""
        known = list(tokens[-_CONTEXTS[0] :])
        out: list[int] = []
        chance = 1.0
        while len(out) < most:
            counts = self._counts(known)
            if not counts:
                break
            token = max(counts, key=counts.__getitem__)
            chance *= counts[token] / sum(counts.values())
            if chance < least:
                break
            out.append(token)
            known.append(token)
        return out

    def _counts(self, known: list[int]) -> dict[int, int]:
        longest: dict[int, int] = {}
        for length in _CONTEXTS:
            counts = self._following.get(tuple(known[-length:])) if len(known) >= length else None
            if counts:
                longest = longest or counts
                if sum(counts.values()) >= _ENOUGH:
                    return counts
        return longest


def typical_expressions(count: int = 256) -> np.ndarray:
    """Return random expressions whose descriptions use the common phrases; float32[count, 52]."""
    rng = np.random.default_rng(0)
    active = rng.random((count, N_ACTIONS)) < rng.uniform(0.02, 0.25, (count, 1))
    return (rng.random((count, N_ACTIONS)) * active).astype(np.float32)
