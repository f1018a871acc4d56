"""Read numbers off a model's logits, many at once.

A number is one of 101 texts, 0.00 to 1.00, and a tokenizer spells each as a path of tokens: one token (nano) or several
(digits). ``NumberTrie`` holds these paths as arrays, so that a step down the trie is a few array operations for one
number as for the 52 of sixteen answers.

``NumberStates.probs`` collects the model's distribution over the 101 values while a number is decoded. With one token a
number it is exact. With several, the model is only evaluated along the path that is taken: the probability of a branch
beside the path is exact, and is spread evenly over the values below it; at the end of the path all is exact. With
digits, the tenths are exact, and so are the hundredths within the chosen tenth.

Readout at temperature 0, from the distribution as far as it is known:

* ``greedy``: the likeliest token.
* ``mean``: the expectation, rounded to two decimals (RAIL, arXiv 2403.04182), best for squared error. With digits it
  can be up to half a tenth off the true expectation where the model hesitates between tenths, and equals it (to two
  decimals) where it is sure of them.
* ``median``: the value that the ground truth is as likely above as below, best for absolute error. Exact with digits
  too: the path to the median is the one that is taken, and the distribution along it is known.

The text carries the value that was read, so later tokens are conditioned on it: each token of a number is the one that
leads to the value nearest to the readout so far.

A temperature above 0 samples numbers like every other token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Readout = Literal["greedy", "mean", "median"]

N_VALUES = 101
VALUES: np.ndarray = np.arange(N_VALUES) / 100
"""float64[101], the values of a number."""

_LARGEST = float(np.finfo(np.float32).max)


@dataclass
class NumberStates:
    """The states of N numbers that are being decoded.

    Attributes:
        node: int64[N], position in the trie; -1 where the number is complete.
        value: int64[N], 0 to 100, where the number is complete: hundredths, of a rotation fiftieths from -1.
        path_prob: float64[N], probability of the path taken.
        probs: float64[N, 101], probability of each value, as far as the path tells; each row sums to 1.
    """

    node: np.ndarray
    value: np.ndarray
    path_prob: np.ndarray
    probs: np.ndarray

    @classmethod
    def start(cls, count: int, root: int | np.ndarray = 0) -> NumberStates:
        """Return the states before the first token, at a node of the trie."""
        probs = np.full((count, N_VALUES), 1 / N_VALUES)
        return cls(np.full(count, root, np.int64), np.full(count, -1), np.ones(count), probs)

    def take(self, chosen: np.ndarray) -> NumberStates:
        """Return a copy of some states; int64[n] or bool[N]."""
        return NumberStates(self.node[chosen], self.value[chosen], self.path_prob[chosen], self.probs[chosen])

    def put(self, chosen: np.ndarray, states: NumberStates) -> None:
        """Overwrite the states that ``take`` copied."""
        self.node[chosen], self.value[chosen] = states.node, states.value
        self.path_prob[chosen], self.probs[chosen] = states.path_prob, states.probs


class NumberTrie:
    """The 101 numbers as paths of tokens.

    Args:
        value_tokens: the tokens of each value from 0.00 to 1.00; none is a prefix of another.
        pose_value_tokens: likewise of each rotation from -1.00 to 1.00, for models that predict the pose.

    Attributes:
        pose_root: the node before the first token of a rotation; -1 without. That of a number is 0.
        ids: int64[nodes, C], the tokens that can follow at a node; repeated to fill a row.
        n_children: int64[nodes].
        depth: most tokens of a number.
        path: int64[101, depth], the node before each token of a value; -1 after its last.
    """

    def __init__(
        self, value_tokens: Sequence[tuple[int, ...]], pose_value_tokens: Sequence[tuple[int, ...]] = ()
    ) -> None:
        self.value_tokens = tuple(value_tokens)
        spellings = [self.value_tokens, tuple(pose_value_tokens)] if pose_value_tokens else [self.value_tokens]
        # A path is the kind of number, then its tokens.
        reached: dict[tuple[int, ...], list[int]] = {}
        for kind, spelling in enumerate(spellings):
            for value, tokens in enumerate(spelling):
                for length in range(len(tokens) + 1):
                    reached.setdefault((kind, *tokens[:length]), []).append(value)
        whole = {(kind, *tokens) for kind, spelling in enumerate(spellings) for tokens in spelling}
        index = {
            path: node for node, path in enumerate(sorted(set(reached) - whole, key=lambda path: (len(path), path)))
        }
        self.pose_root = index.get((1,), -1)
        children: list[list[tuple[int, ...]]] = [[] for _ in index]
        for path in sorted(reached):
            if len(path) > 1:
                children[index[path[:-1]]].append(path)
        width = max(map(len, children))
        self.depth = max(len(tokens) for spelling in spellings for tokens in spelling)
        self.n_children = np.array([len(each) for each in children])
        shape = (len(children), width)
        self.ids = np.zeros(shape, dtype=np.int64)
        self._next = np.full(shape, -1)
        self._leaf_value = np.full(shape, -1)
        self._child_of = np.full((len(children), N_VALUES), -1)
        # How many values share the child that a value is below.
        self._n_below = np.ones((len(children), N_VALUES))
        for node, paths in enumerate(children):
            self.ids[node] = paths[0][-1]
            for child, path in enumerate(paths):
                self.ids[node, child] = path[-1]
                self._child_of[node, reached[path]] = child
                self._n_below[node, reached[path]] = len(reached[path])
                if path in index:
                    self._next[node, child] = index[path]
                else:
                    self._leaf_value[node, child] = reached[path][0]
        self._is_fill = np.arange(width) >= self.n_children[:, None]
        self.path = np.full((N_VALUES, self.depth), -1)
        for value, tokens in enumerate(self.value_tokens):
            self.path[value, : len(tokens)] = [index[(0, *tokens[:length])] for length in range(len(tokens))]

    def step(
        self,
        states: NumberStates,
        logits: np.ndarray,
        *,
        readout: Readout,
        temperature: float = 0.0,
        uniforms: np.ndarray | None = None,
    ) -> np.ndarray:
        """Choose the next token of N incomplete numbers, and advance their states.

        Args:
            states: of N numbers, changed in place.
            logits: float[N, C] of ``ids[states.node]``, any value, NaN included.
            readout: how to read at temperature 0.
            temperature: above 0 samples.
            uniforms: float64[N] in [0, 1), sample by inverse CDF.

        Returns:
            int64[N]: the token ids.
        """
        node = states.node
        logits = np.nan_to_num(logits.astype(np.float64), nan=-np.inf).clip(-_LARGEST, _LARGEST)
        logits[self._is_fill[node]] = -np.inf
        token_probs = self._update_probs(states, logits)
        if temperature:
            assert uniforms is not None
            cumulative = np.exp((logits - logits.max(1, keepdims=True)) / temperature).cumsum(1)
            child = (cumulative <= uniforms[:, None] * cumulative[:, -1:]).sum(1)
            child = np.minimum(child, self.n_children[node] - 1)
        elif readout == "greedy":
            child = logits.argmax(1)
        else:
            target = mean_value(states.probs) if readout == "mean" else VALUES[median_value(states.probs)]
            distance = np.abs(VALUES - target[:, None])
            distance[self._child_of[node] < 0] = np.inf
            child = self._child_of[node, distance.argmin(1)]
        states.path_prob = states.path_prob * token_probs[np.arange(len(node)), child]
        states.value = self._leaf_value[node, child]
        states.node = self._next[node, child]
        return self.ids[node, child]

    def _update_probs(self, states: NumberStates, logits: np.ndarray) -> np.ndarray:
        """Update ``states.probs`` by the logits of the next token; float64[N, C], the probabilities of that token."""
        token_probs = np.exp(logits - logits.max(1, keepdims=True))
        token_probs /= token_probs.sum(1, keepdims=True)
        child = self._child_of[states.node]  # [N, 101]
        spread = np.take_along_axis(token_probs, child, 1) * (states.path_prob[:, None] / self._n_below[states.node])
        states.probs = np.where(child >= 0, spread, states.probs)
        return token_probs

    def greedy_values(self, probs: np.ndarray) -> np.ndarray:
        """Return the values that the likeliest tokens lead to; int64[N], hundredths.

        Where all children of a node are equally likely, the middle one is taken; with several tokens a number this
        happens beside the path that was taken only.

        Args:
            probs: float[N, 101], as in ``NumberStates``.
        """
        value = np.full(len(probs), -1)
        node = np.zeros(len(probs), dtype=np.int64)
        while len(rows := np.flatnonzero(value < 0)):
            for at in np.unique(node[rows]).tolist():
                here = rows[node[rows] == at]
                child_of = self._child_of[at]
                order = np.argsort(child_of, kind="stable")[np.count_nonzero(child_of < 0) :]
                starts = np.searchsorted(child_of[order], np.arange(self.n_children[at]))
                mass = np.add.reduceat(probs[np.ix_(here, order)], starts, axis=1)  # [n, children]
                equal = (mass.min(1) == mass.max(1)) & (at > 0)  # the model is always evaluated for the first token
                child = np.where(equal, self.n_children[at] // 2, mass.argmax(1))
                value[here], node[here] = self._leaf_value[at, child], self._next[at, child]
        return value

    def common_prefix(self) -> tuple[list[int], list[int]]:
        """Return the tokens with which more than half of the values begin, and the nodes before each and after them.

        With digits these are ``0`` and ``.``; where a number is one token there are none.
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

    def nearest_values(self, node: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Return, for N nodes, the value below the node that is nearest to the given one; int64[N]."""
        distance = np.abs(VALUES - VALUES[value][:, None])
        distance[self._child_of[node] < 0] = np.inf
        return distance.argmin(1)


def mean_value(probs: np.ndarray) -> np.ndarray:
    """Return the expectation of each distribution; probs float[..., 101], float64[...]."""
    # Not a matrix product, whose rounding of a row can depend on the other rows.
    return np.asarray((probs * VALUES).sum(-1))


def median_value(probs: np.ndarray) -> np.ndarray:
    """Return the lowest value with at least half of each distribution at or below it; int64[...], hundredths."""
    cumulative = probs.cumsum(-1, dtype=np.float64)
    return np.asarray((cumulative < cumulative[..., -1:] / 2).sum(-1))
