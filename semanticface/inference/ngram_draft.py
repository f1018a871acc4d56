"""Guesses at the words a model will write next, from what was written before.

A guess costs nothing when it is wrong: the decoder checks every token of it against the model in one pass and keeps
those that the model would have written anyway. Analyses are made of a few hundred phrases, so most guesses are right.
Where several words are likely, several are guessed: guesses form a tree (SpecInfer, Miao et al. 2023,
arXiv 2305.09781).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from semanticface.semantics.expression_sampler import sample_coefficients

_CONTEXTS = (12, 8, 5, 4, 3, 2, 1)
_DOUBT = 8
_MOST_CONTEXTS = 200_000


class NgramDraft:
    """Counts which token followed which tokens; each context says as much as it is sure of, the longest first.

    After Witten and Bell (1991): a context seen n times, with k different tokens behind it, speaks for n / (n + 8 k) of
    what longer ones left open (they have 1 in place of 8, which trusts what was seen once or twice too much here).
    """

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

    def guess(self, tokens: Sequence[int], most: int, least: float) -> tuple[list[int], list[int]]:
        """Return a tree of what may follow: the ``most`` likeliest beginnings, a token each, parents before children.

        Args:
            tokens: what is written so far.
            most: tokens in all.
            least: a beginning less likely than this is not worth showing.

        Returns:
            The tokens, and for each the index of the one before it, -1 for those that follow ``tokens``.
        """
        out: list[int] = []
        parents: list[int] = []
        # (minus the chance, order of discovery, what was known before, parent, token)
        open_ends: list[tuple[float, int, tuple[int, ...], int, int]] = []
        found = 0

        def spread(known: tuple[int, ...], chance: float, parent: int) -> None:
            nonlocal found
            for token, share in self._shares(known, least / chance).items():
                if chance * share >= least:
                    found += 1
                    heapq.heappush(open_ends, (-chance * share, found, known, parent, token))

        spread(tuple(tokens[-_CONTEXTS[0] :]), 1.0, -1)
        while open_ends and len(out) < most:
            chance, _, known, parent, token = heapq.heappop(open_ends)
            out.append(token)
            parents.append(parent)
            spread((*known, token)[-_CONTEXTS[0] :], -chance, len(out) - 1)
        return out, parents

    def _shares(self, known: tuple[int, ...], least: float) -> dict[int, float]:
        """How likely each token is to follow; once less than ``least`` is left open, the rest is not asked for."""
        shares: dict[int, float] = {}
        left = 1.0
        for length in _CONTEXTS:
            counts = self._following.get(known[-length:]) if len(known) >= length else None
            if counts:
                total = sum(counts.values())
                share = left * total / (total + _DOUBT * len(counts))
                left -= share
                for token, count in counts.items():
                    shares[token] = shares.get(token, 0.0) + share * count / total
                if left < least:
                    break
        return shares


def typical_expressions(count: int = 512) -> np.ndarray:
    """Return random expressions (``sample_coefficients``), whose descriptions use the common phrases as often as those
    of faces do; float32[count, 52]."""
    rng = np.random.default_rng(0)
    return np.stack([sample_coefficients(rng) for _ in range(count)])
