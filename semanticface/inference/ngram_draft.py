"""The draft of speculative decoding: n-gram counts of earlier analyses propose the next tokens.

A wrong proposal costs little: one forward pass verifies all proposed tokens, and keeps those the model would choose.
Analyses consist of a few hundred phrases, so most proposals are right. Where several continuations are likely,
several are proposed, as a tree (SpecInfer, Miao et al. 2023, arXiv 2305.09781).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from semanticface.semantics.expression_sampler import sample_coefficients

_CONTEXTS = (12, 8, 5, 4, 3, 2, 1)
_BACKOFF = 8
_MAX_CONTEXTS = 200_000


class NgramDraft:
    """Interpolated n-gram counts, longest context first.

    After Witten and Bell (1991): a context seen n times with k different next tokens takes n / (n + 8 k) of the
    probability that longer ones left. (They use 1 for 8, which trusts what was seen once or twice too much here.)
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[int, ...], dict[int, int]] = {}

    def update(self, tokens: Sequence[int], weight: int = 1) -> None:
        """Count one answer's tokens ``weight`` times; once memory is full, only in known contexts."""
        full = len(self._counts) >= _MAX_CONTEXTS
        for length in _CONTEXTS:
            for end in range(length, len(tokens)):
                context = tuple(tokens[end - length : end])
                if full and context not in self._counts:
                    continue
                counts = self._counts.setdefault(context, {})
                counts[tokens[end]] = counts.get(tokens[end], 0) + weight

    def propose(self, tokens: Sequence[int], max_tokens: int, min_prob: float) -> tuple[list[int], list[int]]:
        """Return the likeliest continuations as a tree, parents before children.

        Args:
            tokens: the answer so far.
            max_tokens: size of the tree.
            min_prob: continuations less likely than this are left out.

        Returns:
            The tokens, and for each the index of its parent, -1 for those that follow ``tokens``.
        """
        out: list[int] = []
        parents: list[int] = []
        # (minus the probability, order of discovery, context, parent, token)
        frontier: list[tuple[float, int, tuple[int, ...], int, int]] = []
        found = 0

        def expand(context: tuple[int, ...], prob: float, parent: int) -> None:
            nonlocal found
            for token, conditional in self._probs(context, min_prob / prob).items():
                if prob * conditional >= min_prob:
                    found += 1
                    heapq.heappush(frontier, (-prob * conditional, found, context, parent, token))

        expand(tuple(tokens[-_CONTEXTS[0] :]), 1.0, -1)
        while frontier and len(out) < max_tokens:
            prob, _, context, parent, token = heapq.heappop(frontier)
            out.append(token)
            parents.append(parent)
            expand((*context, token)[-_CONTEXTS[0] :], -prob, len(out) - 1)
        return out, parents

    def _probs(self, context: tuple[int, ...], min_prob: float) -> dict[int, float]:
        """Return next-token probabilities; shorter contexts are skipped once less than ``min_prob`` is left."""
        probs: dict[int, float] = {}
        left = 1.0
        for length in _CONTEXTS:
            counts = self._counts.get(context[-length:]) if len(context) >= length else None
            if counts:
                total = sum(counts.values())
                weight = left * total / (total + _BACKOFF * len(counts))
                left -= weight
                for token, count in counts.items():
                    probs[token] = probs.get(token, 0.0) + weight * count / total
                if left < min_prob:
                    break
        return probs


def typical_expressions(count: int = 512) -> np.ndarray:
    """Return random expressions whose descriptions use phrases about as often as those of faces; float32[count, 52]."""
    rng = np.random.default_rng(0)
    return np.stack([sample_coefficients(rng) for _ in range(count)])
