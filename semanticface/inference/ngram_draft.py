"""The draft of speculative decoding: n-gram counts of earlier analyses propose the next tokens.

A wrong proposal costs little: one forward pass verifies all proposed tokens, and keeps those the model would choose.
Analyses consist of a few hundred phrases, so most proposals are right. Where several continuations are likely,
several are proposed, as a tree (SpecInfer, Miao et al. 2023, arXiv 2305.09781).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from llguidance import LLMatcher

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

    def propose(
        self, tokens: Sequence[int], max_tokens: int, min_prob: float, matcher: LLMatcher | None = None
    ) -> tuple[list[int], list[int]]:
        """Return the likeliest continuations as a tree, parents before children.

        Args:
            tokens: the answer so far.
            max_tokens: size of the tree.
            min_prob: continuations less likely than this are left out.
            matcher: state of the grammar after ``tokens``, not changed; None proposes what it does not allow too.

        Returns:
            The tokens, and for each the index of its parent, -1 for those that follow ``tokens``.
        """
        out: list[int] = []
        parents: list[int] = []
        # (minus the probability, order of discovery, context, parent, grammar before the token, token)
        frontier: list[tuple[float, int, tuple[int, ...], int, LLMatcher | None, int]] = []
        found = 0

        def expand(context: tuple[int, ...], prob: float, parent: int, state: LLMatcher | None) -> None:
            nonlocal found
            probs = self._probs(context, min_prob / prob)
            if state is not None:
                probs = _allowed(probs, state)
            for token, conditional in probs.items():
                if prob * conditional >= min_prob:
                    found += 1
                    heapq.heappush(frontier, (-prob * conditional, found, context, parent, state, token))

        expand(tuple(tokens[-_CONTEXTS[0] :]), 1.0, -1, matcher)
        while frontier and len(out) < max_tokens:
            prob, _, context, parent, state, token = heapq.heappop(frontier)
            follows = [token]
            if state is not None:
                state = state.deep_copy()
                state.consume_token(token)
                forced = state.compute_ff_tokens()
                if forced and state.consume_tokens(forced):
                    follows += forced
            for each in follows:
                out.append(each)
                parents.append(parent)
                parent = len(out) - 1
            if state is None or not state.is_accepting():
                expand((*context, *follows)[-_CONTEXTS[0] :], -prob, parent, state)
        return out[:max_tokens], parents[:max_tokens]

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


def _allowed(probs: dict[int, float], state: LLMatcher) -> dict[int, float]:
    """Return the probabilities of the tokens that the grammar allows, given that it allows them."""
    allowed = {token: prob for token, prob in probs.items() if state.validate_tokens([token])}
    total = sum(allowed.values())
    return {token: prob / total for token, prob in allowed.items()}


def typical_expressions(count: int = 512) -> np.ndarray:
    """Return random expressions whose descriptions use phrases about as often as those of faces; float32[count, 52]."""
    rng = np.random.default_rng(0)
    return np.stack([sample_coefficients(rng) for _ in range(count)])
