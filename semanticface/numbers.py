"""Reading numbers off a model's logits, for many numbers at once.

A number is one of 101 texts, 0.00 to 1.00, and a tokenizer spells each as a path of tokens: one token (nano) or several
(digits). ``NumberTree`` holds those paths as tables, so that a step down the tree is a few array operations whether it
is taken by one number or by the 52 of sixteen answers.

Readout at temperature 0:

* ``greedy``: the likeliest token.
* ``mean``: the expectation of the model's distribution over the values, rounded to two decimals (RAIL, arXiv
  2403.04182), which is best for squared error; the written number is that value, so later tokens condition on it. With
  one token for each number it is exact. With several, the distribution of later digits is known along the path that is
  written alone. The expectation then is ``rest + weight * E[value | path]``: branches not taken count with their
  probability times the middle of the values they lead to, the path taken with the model's own distribution at each
  further token. Each token written is the one that leads to the value nearest to the expectation so far, so the number
  can end up to half a tenth away from the true expectation when the model is torn between tenths, and equals it (to two
  decimals) when it is sure of them.

A temperature above 0 asks for a sample, so then numbers are sampled like every other token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Readout = Literal["greedy", "mean"]

_LARGEST = float(np.finfo(np.float32).max)


@dataclass
class Places:
    """Where N numbers stand while they are being written.

    Attributes:
        node: int64[N], place in the tree; -1 where the number is whole.
        value: int64[N], hundredths, where the number is whole.
        rest: float64[N], sum of probability times middle over the branches not taken.
        weight: float64[N], probability of the path taken.
    """

    node: np.ndarray
    value: np.ndarray
    rest: np.ndarray
    weight: np.ndarray

    @classmethod
    def start(cls, count: int) -> Places:
        """Return numbers of which nothing is written."""
        return cls(np.zeros(count, np.int64), np.full(count, -1), np.zeros(count), np.ones(count))


class NumberTree:
    """The 101 numbers as paths of tokens.

    Args:
        spelled: the tokens of each value from 0.00 to 1.00; none is the beginning of another.

    Attributes:
        ids: int64[nodes, C], the tokens a number at a node can go on with; repeated to fill a row.
        n_children: int64[nodes].
        depth: most tokens of a number.
        path: int64[101, depth], the node before each token of a value; -1 behind its last.
    """

    def __init__(self, spelled: Sequence[tuple[int, ...]]) -> None:
        self.spelled = tuple(spelled)
        values = np.arange(len(spelled)) / 100
        reached: dict[tuple[int, ...], list[int]] = {}
        for value, tokens in enumerate(spelled):
            for length in range(len(tokens) + 1):
                reached.setdefault(tokens[:length], []).append(value)
        inner = set(reached) - set(self.spelled)
        index = {path: place for place, path in enumerate(sorted(inner, key=len))}
        children: list[list[tuple[int, ...]]] = [[] for _ in index]
        for path in sorted(reached):
            if path:
                children[index[path[:-1]]].append(path)
        width = max(map(len, children))
        self.depth = max(map(len, spelled))
        self.n_children = np.array([len(each) for each in children])
        shape = (len(children), width)
        self.ids = np.zeros(shape, dtype=np.int64)
        self._next = np.full(shape, -1)
        self._whole = np.full(shape, -1)
        self._middle = np.zeros(shape)
        self._child_of = np.full((len(children), len(values)), -1)
        for node, paths in enumerate(children):
            self.ids[node] = paths[0][-1]
            for child, path in enumerate(paths):
                self.ids[node, child] = path[-1]
                self._middle[node, child] = values[reached[path]].mean()
                self._child_of[node, reached[path]] = child
                if path in index:
                    self._next[node, child] = index[path]
                else:
                    self._whole[node, child] = reached[path][0]
        self._values = values
        self._missing = np.arange(width) >= self.n_children[:, None]
        self.path = np.full((len(values), self.depth), -1)
        for value, tokens in enumerate(spelled):
            self.path[value, : len(tokens)] = [index[tokens[:length]] for length in range(len(tokens))]

    def choose(
        self,
        places: Places,
        logits: np.ndarray,
        *,
        readout: Readout,
        temperature: float = 0.0,
        draws: np.ndarray | None = None,
    ) -> np.ndarray:
        """Take the next token of N numbers that are not whole, and move the places on.

        Args:
            places: of N numbers, changed in place.
            logits: float[N, C] of ``ids[places.node]``, any value, NaN included.
            readout: how to read at temperature 0.
            temperature: above 0 samples.
            draws: float64[N] in [0, 1), the luck of a sample.

        Returns:
            int64[N]: the token ids.
        """
        node = places.node
        logits = np.nan_to_num(logits.astype(np.float64), nan=-np.inf).clip(-_LARGEST, _LARGEST)
        logits[self._missing[node]] = -np.inf
        rows = np.arange(len(node))
        if temperature:
            assert draws is not None
            heights = np.exp((logits - logits.max(1, keepdims=True)) / temperature).cumsum(1)
            child = (heights <= draws[:, None] * heights[:, -1:]).sum(1)
            child = np.minimum(child, self.n_children[node] - 1)
        elif readout == "greedy":
            child = logits.argmax(1)
        else:
            shares = np.exp(logits - logits.max(1, keepdims=True))
            shares /= shares.sum(1, keepdims=True)
            expectation = places.rest + places.weight * (shares * self._middle[node]).sum(1)
            distance = np.abs(self._values - expectation[:, None])
            distance[self._child_of[node] < 0] = np.inf
            child = self._child_of[node, distance.argmin(1)]
            taken = shares[rows, child]
            places.rest = expectation - places.weight * taken * self._middle[node, child]
            places.weight = places.weight * taken
        places.value = self._whole[node, child]
        places.node = self._next[node, child]
        return self.ids[node, child]

    def trunk(self) -> tuple[list[int], list[int]]:
        """Return the tokens with which more than half of the values begin, and the nodes before each and behind them.

        Of digits these are ``0`` and ``.``; where a number is one token there are none.
        """
        tokens: list[int] = []
        nodes = [0]
        while True:
            node = nodes[-1]
            counts = np.bincount(self._child_of[node][self._child_of[node] >= 0])
            child = int(counts.argmax())
            if 2 * counts[child] <= len(self._values) or self._next[node, child] < 0:
                return tokens, nodes
            tokens.append(int(self.ids[node, child]))
            nodes.append(int(self._next[node, child]))

    def nearest(self, node: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Return, for N places, the value nearest to the given one that can still be written; int64[N]."""
        distance = np.abs(self._values - self._values[value][:, None])
        distance[self._child_of[node] < 0] = np.inf
        return distance.argmin(1)
