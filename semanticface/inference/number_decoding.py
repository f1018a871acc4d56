"""Numbers in a row, each of which sees those before it, read many at a time.

All are guessed at once and shown at once (Jacobi decoding, Santilli et al. 2023, arXiv 2305.10427): those up to the
first wrong guess are what the model would have written one by one, and its readings behind that are the next guesses.

Numbers side by side, none of which sees another: read in one pass, or in two where a number is several tokens.
"""

from __future__ import annotations

import numpy as np

from semanticface.arkit import N_ACTIONS
from semanticface.inference.batch import HIDDEN, Batch, Branches
from semanticface.inference.number_readout import N_VALUES, NumberStates

_AT_LEAST = 12
"""Numbers guessed ahead of a pass where the last guesses went wrong early."""

_LOGITS = 2**25
"""Most logits of guessed numbers held at once."""


def decode_sequential(batch: Batch, guess: np.ndarray) -> np.ndarray:
    """Read the numbers of every row, each of which sees those before it.

    Args:
        batch: whose words are written.
        guess: int64[52] in hundredths, what to guess first.

    Returns:
        int64[52]: the numbers of one of the rows, a good first guess for the next batch.
    """
    tree, tokens = batch.decoder.tree, batch.decoder.number_tokens
    for row in batch.rows:
        batch.settle(row)
    guesses = np.tile(guess, (len(batch.rows), 1))
    done = np.zeros(len(batch.rows), dtype=np.int64)
    busy = np.arange(len(batch.rows))
    ahead = np.full(len(batch.rows), N_ACTIONS)
    while len(busy):
        most = max(4, _LOGITS // (batch.n_vocabulary * tree.depth * len(busy)))
        ends = np.minimum(done + np.minimum(ahead, most), N_ACTIONS)
        feeds: list[list[int]] = []
        starts = np.zeros(len(busy), dtype=np.int64)
        # Where each number's first token stands among the tokens of its answer.
        places = np.zeros((len(busy), N_ACTIONS), dtype=np.int64)
        for b, index in enumerate(busy.tolist()):
            written = list(batch.rows[index].tokens)
            for slot in range(int(ends[b])):
                if slot:
                    written += tokens.keys[slot]
                places[b, slot] = len(written)
                written += tokens.spelled[guesses[b, slot]]
            starts[b] = min(batch.fed[b] - batch.n_prompt, places[b, done[b]] - 1)
            feeds.append(written[starts[b] : -1])
        batch.fed = starts + batch.n_prompt
        found, shares, wrong = _read_guesses(batch, feeds, places - starts[:, None], done, ends, guesses, busy)
        for b, index in enumerate(busy.tolist()):
            slot = int(done[b])
            while slot < ends[b] and wrong[b, slot] < 0:
                slot += 1
            batch.fed[b] = batch.n_prompt + starts[b] + len(feeds[b])
            if slot < ends[b]:
                batch.fed[b] = batch.n_prompt + places[b, slot] + wrong[b, slot]
                # A number whose last token was the wrong one is whole now.
                slot += int(wrong[b, slot] == len(tokens.spelled[found[b, slot]]) - 1)
            guesses[b, done[b] : ends[b]] = found[b, done[b] : ends[b]]
            # Where guesses go wrong early, few are worth showing.
            ahead[b] = max(_AT_LEAST, 2 * (slot - int(done[b])))
            batch.rows[index].values[:slot] = guesses[b, :slot]
            batch.rows[index].shares[done[b] : slot] = shares[b, done[b] : slot]
            done[b] = slot
        kept = np.flatnonzero(done < N_ACTIONS)
        if len(kept) < len(busy):
            busy, done, ahead, guesses = (each[kept] for each in (busy, done, ahead, guesses))
            batch.keep(kept)
    return batch.rows[-1].values.copy()


def _read_guesses(
    batch: Batch,
    feeds: list[list[int]],
    columns: np.ndarray,
    done: np.ndarray,
    ends: np.ndarray,
    guesses: np.ndarray,
    busy: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Show guesses and read what the model makes of each behind the ones before it.

    Returns:
        int64[B, 52] the values read (as near to the guess as the tokens read allow, where not all could be),
        float32[B, 52, 101] their distributions as far as they were read, and
        int64[B, 52] which token of a guess was the first wrong one, -1 where none was.
    """
    tree = batch.decoder.tree
    b, slot = np.nonzero((np.arange(N_ACTIONS) >= done[:, None]) & (np.arange(N_ACTIONS) < ends[:, None]))
    guess, column = guesses[b, slot], columns[b, slot] - 1
    levels = [np.flatnonzero((node >= 0) & (tree.n_children[node] > 1)) for node in tree.path[guess].T]
    wanted = np.unique(np.concatenate([column[level] + t for t, level in enumerate(levels)]))
    logits = batch.show(feeds, wanted)
    draws = np.stack([batch.rows[index].draws for index in busy.tolist()])
    found, wrong = guess.copy(), np.full(len(guess), -1)
    state = NumberStates.start(len(guess))
    for t, level in enumerate(levels):
        level = level[wrong[level] < 0]
        node = tree.path[guess[level], t]
        here = state.take(level)
        here.node = node
        seen = batch.gather(logits, b[level], np.searchsorted(wanted, column[level] + t), node)
        token = tree.choose(
            here, seen, readout=batch.decoder.readout, temperature=batch.temperature, draws=draws[b, slot, t][level]
        )
        state.put(level, here)
        missed = np.flatnonzero(token != [tree.spelled[value][t] for value in guess[level].tolist()])
        wrong[level[missed]] = t
        whole = here.node[missed] < 0
        nearest = tree.nearest(here.node[missed], guess[level[missed]])
        found[level[missed]] = np.where(whole, here.value[missed], nearest)
    out, first = guesses.copy(), np.full(guesses.shape, -1)
    shares = np.zeros((*guesses.shape, N_VALUES), dtype=np.float32)
    out[b, slot], shares[b, slot], first[b, slot] = found, state.shares, wrong
    return out, shares, first


def decode_parallel(batch: Batch) -> None:
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
    places = NumberStates.start(len(row))
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
