"""Reading numbers off a model's logits, for many numbers at once.

A number is one of 101 texts, 0.00 to 1.00, and a tokenizer spells each as a path of tokens: one token (nano) or several
(digits). ``NumberTrie`` holds those paths as tables, so that a step down the tree is a few array operations whether it
is taken by one number or by the 52 of sixteen answers.

While a number is written, the model's distribution over the 101 values is gathered on the way
(``NumberStates.shares``). With one token a number it is exact. With several, the model is asked along the path that is
written alone: how likely each branch beside the path is, is exact, and its probability is spread evenly over the values
it leads to; at the path's end all is exact. Of digits: the tenths are exact, and the hundredths within the tenth that
is written.

Readout at temperature 0, each of the distribution as far as it is known:

* ``greedy``: the likeliest token.
* ``mean``: the expectation, rounded to two decimals (RAIL, arXiv 2403.04182), which is best for squared error. Of
  digits it can be up to half a tenth away from the true expectation when the model is torn between tenths, and equals
  it (to two decimals) when it is sure of them.
* ``median``: the value that truth is as likely above as below, which is best for absolute error. It is exact for digits
  too: the path that is written is the one to the median, and the distribution along it is known.

The written number is the value read, so later tokens condition on it. Each of its tokens is the one that leads to the
value nearest to the one read so far.

A temperature above 0 asks for a sample, so then numbers are sampled like every other token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Readout = Literal["greedy", "mean", "median"]

N_VALUES = 101
VALUES: np.ndarray = np.arange(N_VALUES) / 100
"""float64[101], what a number can be."""

_LARGEST = float(np.finfo(np.float32).max)


@dataclass
class NumberStates:
    """Where N numbers stand while they are being written.

    Attributes:
        node: int64[N], place in the tree; -1 where the number is whole.
        value: int64[N], hundredths, where the number is whole.
        weight: float64[N], probability of the path taken.
        shares: float64[N, 101], probability of each value, as far as the path taken tells; each row sums to 1.
    """

    node: np.ndarray
    value: np.ndarray
    weight: np.ndarray
    shares: np.ndarray

    @classmethod
    def start(cls, count: int) -> NumberStates:
        """Return numbers of which nothing is written."""
        shares = np.full((count, N_VALUES), 1 / N_VALUES)
        return cls(np.zeros(count, np.int64), np.full(count, -1), np.ones(count), shares)

    def take(self, chosen: np.ndarray) -> NumberStates:
        """Return a copy of some of them; int64[n] or bool[N]."""
        return NumberStates(self.node[chosen], self.value[chosen], self.weight[chosen], self.shares[chosen])

    def put(self, chosen: np.ndarray, moved: NumberStates) -> None:
        """Set those that ``take`` copied to what has become of the copy."""
        self.node[chosen], self.value[chosen] = moved.node, moved.value
        self.weight[chosen], self.shares[chosen] = moved.weight, moved.shares


class NumberTrie:
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
        self._child_of = np.full((len(children), N_VALUES), -1)
        # Of the branch that a value is on: how many values it leads to.
        self._breadth = np.ones((len(children), N_VALUES))
        for node, paths in enumerate(children):
            self.ids[node] = paths[0][-1]
            for child, path in enumerate(paths):
                self.ids[node, child] = path[-1]
                self._child_of[node, reached[path]] = child
                self._breadth[node, reached[path]] = len(reached[path])
                if path in index:
                    self._next[node, child] = index[path]
                else:
                    self._whole[node, child] = reached[path][0]
        self._missing = np.arange(width) >= self.n_children[:, None]
        self.path = np.full((N_VALUES, self.depth), -1)
        for value, tokens in enumerate(spelled):
            self.path[value, : len(tokens)] = [index[tokens[:length]] for length in range(len(tokens))]

    def choose(
        self,
        places: NumberStates,
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
        known = self._learn(places, logits)
        if temperature:
            assert draws is not None
            heights = np.exp((logits - logits.max(1, keepdims=True)) / temperature).cumsum(1)
            child = (heights <= draws[:, None] * heights[:, -1:]).sum(1)
            child = np.minimum(child, self.n_children[node] - 1)
        elif readout == "greedy":
            child = logits.argmax(1)
        else:
            read = mean_of(places.shares) if readout == "mean" else VALUES[median_of(places.shares)]
            distance = np.abs(VALUES - read[:, None])
            distance[self._child_of[node] < 0] = np.inf
            child = self._child_of[node, distance.argmin(1)]
        places.weight = places.weight * known[np.arange(len(node)), child]
        places.value = self._whole[node, child]
        places.node = self._next[node, child]
        return self.ids[node, child]

    def _learn(self, places: NumberStates, logits: np.ndarray) -> np.ndarray:
        """Add to the shares of N places what the model says of their next token; float64[N, C], its probabilities."""
        known = np.exp(logits - logits.max(1, keepdims=True))
        known /= known.sum(1, keepdims=True)
        child = self._child_of[places.node]
        spread = np.take_along_axis(known, child, 1) * (places.weight[:, None] / self._breadth[places.node])
        places.shares = np.where(child >= 0, spread, places.shares)
        return known

    def likeliest(self, shares: np.ndarray) -> np.ndarray:
        """Return the values to which the likeliest tokens lead; int64[N], hundredths.

        Of branches that nothing tells apart it is the one in the middle; only values beside a path of several tokens
        are on such branches.

        Args:
            shares: float[N, 101], as in ``NumberStates``.
        """
        value = np.full(len(shares), -1)
        node = np.zeros(len(shares), dtype=np.int64)
        while len(rows := np.flatnonzero(value < 0)):
            for at in np.unique(node[rows]).tolist():
                here = rows[node[rows] == at]
                of = self._child_of[at]
                order = np.argsort(of, kind="stable")[np.count_nonzero(of < 0) :]
                starts = np.searchsorted(of[order], np.arange(self.n_children[at]))
                mass = np.add.reduceat(shares[np.ix_(here, order)], starts, axis=1)
                alike = (mass.min(1) == mass.max(1)) & (at > 0)  # the first token is always asked for
                child = np.where(alike, self.n_children[at] // 2, mass.argmax(1))
                value[here], node[here] = self._whole[at, child], self._next[at, child]
        return value

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
            if 2 * counts[child] <= N_VALUES or self._next[node, child] < 0:
                return tokens, nodes
            tokens.append(int(self.ids[node, child]))
            nodes.append(int(self._next[node, child]))

    def nearest(self, node: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Return, for N places, the value nearest to the given one that can still be written; int64[N]."""
        distance = np.abs(VALUES - VALUES[value][:, None])
        distance[self._child_of[node] < 0] = np.inf
        return distance.argmin(1)


def mean_of(shares: np.ndarray) -> np.ndarray:
    """Return the expectation of each distribution; shares float[..., 101], float64[...]."""
    # Row by row, not as a product of matrices: what a row gives must not depend on the others.
    return np.asarray((shares * VALUES).sum(-1))


def median_of(shares: np.ndarray) -> np.ndarray:
    """Return the lowest value that holds half of each distribution with those below it; int64[...], hundredths."""
    heights = shares.cumsum(-1, dtype=np.float64)
    return np.asarray((heights < heights[..., -1:] / 2).sum(-1))
