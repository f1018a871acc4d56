"""Numbers side by side, none of which sees another: read in one pass, or in two where a number is several tokens."""

from __future__ import annotations

import numpy as np

from semanticface.arkit import N_ACTIONS
from semanticface.inference.batch import HIDDEN, Batch, Branches
from semanticface.inference.number_readout import Places


def read_beside(batch: Batch) -> None:
    """Read numbers that see the words and their own key: all 52 at once, each token by token.

    The first pass shows the last words, where they are not shown yet, the key of each number, and what nearly every
    number begins with (``0.`` of digits).
    """
    tree = batch.decoder.tree
    trunk, nodes = tree.trunk()
    trunks = [batch.n_prompt + batch.decoder.n_said(row) for row in batch.rows]
    # Words may end before what was fed does: the token that ends them may hold the first of what follows, too.
    batch.fed = np.minimum(batch.fed, trunks)
    words = [
        row.tokens[fed - batch.n_prompt : trunk - batch.n_prompt]
        for row, fed, trunk in zip(batch.rows, batch.fed.tolist(), trunks, strict=True)
    ]
    # Nobody sees what fills rows up, so that numbers stand in the same columns of all.
    width = max(map(len, words))
    fill = [width - len(each) for each in words]
    ids: list[int] = []
    of: list[int] = []
    steps: list[int] = []
    n_keys = np.array([len(key) for key in batch.decoder.keys])
    for slot, key in enumerate(batch.decoder.keys):
        ids += [*key, *trunk]
        of += [slot + 1] * (len(key) + len(trunk))
        steps += range(len(key) + len(trunk))
    ends = np.cumsum(n_keys + len(trunk)) - len(trunk) - 1  # where each key ends
    branches = [Branches(trunk, [HIDDEN] * n + of, [0] * n + steps) for trunk, n in zip(trunks, fill, strict=True)]
    wanted = width + np.unique(np.add.outer(ends, np.flatnonzero(tree.n_children[nodes] > 1)))
    feeds = [[*each, *[batch.decoder.pad] * n, *ids] for each, n in zip(words, fill, strict=True)]
    logits = batch.show(feeds, wanted, branches=branches)
    batch.fed = batch.fed + width + len(ids)

    # All numbers of all rows, one behind the other.
    row = np.arange(len(batch.rows)).repeat(N_ACTIONS)
    number = np.tile(np.arange(N_ACTIONS), len(batch.rows))
    places = Places.start(len(row))
    written: list[list[int]] = [[] for _ in row]
    shown = np.zeros(len(row), dtype=np.int64)  # tokens of each number that its branch sees

    def write(chosen: np.ndarray, seen: np.ndarray) -> np.ndarray:
        here = places.take(chosen)
        draws = np.array([batch.rows[row[n]].draws[number[n], len(written[n])] for n in chosen.tolist()])
        tokens = tree.choose(here, seen, readout=batch.decoder.readout, temperature=batch.temperature, draws=draws)
        places.put(chosen, here)
        for n, token in zip(chosen.tolist(), tokens.tolist(), strict=True):
            written[n].append(token)
        return tokens

    def blind(chosen: np.ndarray) -> np.ndarray:
        return np.zeros((len(chosen), tree.ids.shape[1]))

    along = np.arange(len(row))
    for level, node in enumerate(nodes):
        seen = blind(along)
        if tree.n_children[node] > 1:
            columns = np.searchsorted(wanted, width + ends[number[along]] + level)
            seen = batch.gather(logits, row[along], columns, places.node[along])
        tokens = write(along, seen)
        if level < len(trunk):
            along = along[tokens == trunk[level]]
            shown[along] += 1
    for n in np.flatnonzero(shown < len(trunk)).tolist():
        after = fill[row[n]] + int(ends[number[n]]) + 1
        of_row = branches[row[n]].of
        of_row[after + shown[n] : after + len(trunk)] = [HIDDEN] * (len(trunk) - int(shown[n]))

    while True:
        while len(single := np.flatnonzero((places.node >= 0) & (tree.n_children[places.node] == 1))):
            write(single, blind(single))
        unfinished = np.flatnonzero(places.node >= 0)
        if not len(unfinished):
            break
        feeds = [[] for _ in batch.rows]
        columns = np.zeros(len(unfinished), dtype=np.int64)
        for k, n in enumerate(unfinished.tolist()):
            unfed = written[n][shown[n] :]
            branch = branches[row[n]]
            feeds[row[n]] += unfed
            branch.of += [int(number[n]) + 1] * len(unfed)
            branch.steps += range(int(n_keys[number[n]] + shown[n]), int(n_keys[number[n]]) + len(written[n]))
            shown[n] = len(written[n])
            columns[k] = len(feeds[row[n]]) - 1
        for feed, branch in zip(feeds, branches, strict=True):
            if not feed:
                feed.append(batch.decoder.pad)
                branch.of.append(HIDDEN)
                branch.steps.append(0)
        wanted = np.unique(columns)
        logits = batch.show(feeds, wanted, branches=branches)
        batch.fed = batch.fed + np.array(list(map(len, feeds)))
        seen = batch.gather(logits, row[unfinished], np.searchsorted(wanted, columns), places.node[unfinished])
        write(unfinished, seen)
    for index, each in enumerate(batch.rows):
        own = slice(index * N_ACTIONS, (index + 1) * N_ACTIONS)
        each.values[:], each.shares[:] = places.value[own], places.shares[own]
