"""Decode the 52 numbers of every row of a batch, in either layout.

Sequential numbers, each of which attends to those before it, are drafted and verified all at once (Jacobi decoding,
Santilli et al. 2023, arXiv 2305.10427): those up to the first wrong draft are what the model would have decoded one by
one, and its readings after that are the next drafts.

Parallel numbers, none of which attends to another, take one forward pass, or two where a number is several tokens.
"""

from __future__ import annotations

import numpy as np

from semanticface.arkit import N_ACTIONS
from semanticface.inference.batch import HIDDEN, Batch, Branches
from semanticface.inference.number_readout import N_VALUES, NumberStates

_MIN_DRAFT = 12
"""Numbers drafted for a forward pass after one whose drafts went wrong early."""

_MAX_LOGITS = 2**25
"""Logits of drafted numbers held at once."""


def decode_sequential(batch: Batch, draft: np.ndarray) -> np.ndarray:
    """Decode numbers that each attend to those before it.

    Args:
        batch: with the analysis decoded, if any.
        draft: int64[52] in hundredths, the first draft.

    Returns:
        int64[52]: the numbers of one of the rows, a good draft for the next batch.
    """
    trie, tokens = batch.decoder.trie, batch.decoder.number_tokens
    for row in batch.rows:
        batch.append_forced(row)
    # Everything below is indexed by the rows that are not done; ``active`` holds their indices in the batch.
    active = np.arange(len(batch.rows))
    drafts = np.tile(draft, (len(active), 1))
    n_done = np.zeros(len(active), dtype=np.int64)
    n_ahead = np.full(len(active), N_ACTIONS)
    while len(active):
        max_ahead = max(4, _MAX_LOGITS // (batch.vocab_size * trie.depth * len(active)))
        ends = np.minimum(n_done + np.minimum(n_ahead, max_ahead), N_ACTIONS)
        inputs: list[list[int]] = []
        starts = np.zeros(len(active), dtype=np.int64)  # index of the first input token in its answer
        indices = np.zeros((len(active), N_ACTIONS), dtype=np.int64)  # of each number's first token in its answer
        for b, index in enumerate(active.tolist()):
            answer = list(batch.rows[index].tokens)
            for number in range(int(ends[b])):
                if number:
                    answer += tokens.keys[number]
                indices[b, number] = len(answer)
                answer += tokens.value_tokens[drafts[b, number]]
            starts[b] = min(batch.n_cached[b] - batch.n_prompt, indices[b, n_done[b]] - 1)
            inputs.append(answer[starts[b] : -1])
        batch.n_cached = starts + batch.n_prompt
        values, probs, wrong = _verify(batch, inputs, indices - starts[:, None], n_done, ends, drafts, active)
        for b, index in enumerate(active.tolist()):
            number = int(n_done[b])
            while number < ends[b] and wrong[b, number] < 0:
                number += 1
            batch.n_cached[b] = batch.n_prompt + starts[b] + len(inputs[b])
            if number < ends[b]:
                batch.n_cached[b] = batch.n_prompt + indices[b, number] + wrong[b, number]
                # If only the last token of a number was wrong, the number is complete now.
                number += int(wrong[b, number] == len(tokens.value_tokens[values[b, number]]) - 1)
            drafts[b, n_done[b] : ends[b]] = values[b, n_done[b] : ends[b]]
            # Where drafts go wrong early, few are worth verifying.
            n_ahead[b] = max(_MIN_DRAFT, 2 * (number - int(n_done[b])))
            batch.rows[index].values[:number] = drafts[b, :number]
            batch.rows[index].probs[n_done[b] : number] = probs[b, n_done[b] : number]
            n_done[b] = number
        kept = np.flatnonzero(n_done < N_ACTIONS)
        if len(kept) < len(active):
            active, n_done, n_ahead, drafts = (each[kept] for each in (active, n_done, n_ahead, drafts))
            batch.keep_rows(kept)
    return batch.rows[-1].values.copy()


def _verify(
    batch: Batch,
    inputs: list[list[int]],
    columns: np.ndarray,
    n_done: np.ndarray,
    ends: np.ndarray,
    drafts: np.ndarray,
    active: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run the model on the drafts, and read each number given the drafts before it.

    Returns:
        int64[B, 52] the values read (where the first wrong token ends the reading, the nearest to the draft that can
        still follow), float32[B, 52, 101] their distributions as far as they were read, and
        int64[B, 52] which token of a draft was the first wrong one, -1 for none.
    """
    trie = batch.decoder.trie
    # N drafted numbers of all rows, one after the other.
    b, number = np.nonzero((np.arange(N_ACTIONS) >= n_done[:, None]) & (np.arange(N_ACTIONS) < ends[:, None]))
    draft, column = drafts[b, number], columns[b, number] - 1
    levels = [np.flatnonzero((node >= 0) & (trie.n_children[node] > 1)) for node in trie.path[draft].T]
    wanted = np.unique(np.concatenate([column[level] + t for t, level in enumerate(levels)]))
    logits = batch.forward(inputs, wanted)
    uniforms = np.stack([batch.rows[index].uniforms for index in active.tolist()])
    found, wrong = draft.copy(), np.full(len(draft), -1)
    states = NumberStates.start(len(draft))
    for t, level in enumerate(levels):
        level = level[wrong[level] < 0]
        node = trie.path[draft[level], t]
        here = states.take(level)
        here.node = node
        token = trie.step(
            here,
            batch.number_logits(logits, b[level], np.searchsorted(wanted, column[level] + t), node),
            readout=batch.decoder.readout,
            temperature=batch.temperature,
            uniforms=uniforms[b, number, t][level],
        )
        states.put(level, here)
        missed = np.flatnonzero(token != [trie.value_tokens[value][t] for value in draft[level].tolist()])
        wrong[level[missed]] = t
        complete = here.node[missed] < 0
        nearest = trie.nearest_values(here.node[missed], draft[level[missed]])
        found[level[missed]] = np.where(complete, here.value[missed], nearest)
    values, first_wrong = drafts.copy(), np.full(drafts.shape, -1)
    probs = np.zeros((*drafts.shape, N_VALUES), dtype=np.float32)
    values[b, number], probs[b, number], first_wrong[b, number] = found, states.probs, wrong
    return values, probs, first_wrong


def decode_parallel(batch: Batch) -> None:
    """Decode numbers that attend to the analysis and their own key: all at once, each token by token.

    The first forward pass runs the tokens of the analysis that are not cached yet, the key of each number, and the
    common prefix of numbers (``0.`` with digits).
    """
    trie, count = batch.decoder.trie, batch.decoder.n_numbers
    prefix, nodes = trie.common_prefix()
    # Rotations may begin with a minus: their branches do not hold the prefix.
    n_prefix = np.where(np.arange(count) < N_ACTIONS, len(prefix), 0)
    branch_starts = [batch.n_prompt + batch.decoder.n_analysis_tokens(row) for row in batch.rows]
    # The token that ends the analysis may also hold the start of what follows, and be cached: run it again.
    batch.n_cached = np.minimum(batch.n_cached, branch_starts)
    analyses = [
        row.tokens[n_cached - batch.n_prompt : start - batch.n_prompt]
        for row, n_cached, start in zip(batch.rows, batch.n_cached.tolist(), branch_starts, strict=True)
    ]
    # Padded with hidden tokens, so that the numbers of all rows are in the same columns.
    width = max(map(len, analyses))
    n_pad = [width - len(each) for each in analyses]
    ids: list[int] = []
    branch_ids: list[int] = []
    position_offsets: list[int] = []
    n_keys = np.array([len(key) for key in batch.decoder.keys])
    for branch_id, key in enumerate(batch.decoder.keys, start=1):
        start = [*key, *prefix[: n_prefix[branch_id - 1]]]
        ids += start
        branch_ids += [branch_id] * len(start)
        position_offsets += range(len(start))
    key_ends = np.cumsum(n_keys + n_prefix) - n_prefix - 1  # column of each key's last token
    branches = [
        Branches(start, [HIDDEN] * n + branch_ids, [0] * n + position_offsets)
        for start, n in zip(branch_starts, n_pad, strict=True)
    ]
    levels = np.flatnonzero(trie.n_children[nodes] > 1)
    wanted = width + np.unique([*np.add.outer(key_ends[:N_ACTIONS], levels).ravel(), *key_ends[N_ACTIONS:]])
    inputs = [[*each, *[batch.decoder.pad_token_id] * n, *ids] for each, n in zip(analyses, n_pad, strict=True)]
    logits = batch.forward(inputs, wanted, branches=branches)
    batch.n_cached = batch.n_cached + width + len(ids)

    # All numbers of all rows, one after the other.
    row = np.arange(len(batch.rows)).repeat(count)
    number = np.tile(np.arange(count), len(batch.rows))
    is_rotation = number >= N_ACTIONS
    states = NumberStates.start(len(row), np.where(is_rotation, trie.pose_root, 0))
    tokens: list[list[int]] = [[] for _ in row]
    n_run = np.zeros(len(row), dtype=np.int64)  # tokens of each number that its branch holds

    def step(chosen: np.ndarray, number_logits: np.ndarray) -> np.ndarray:
        here = states.take(chosen)
        uniforms = np.array([batch.rows[row[n]].uniforms[number[n], len(tokens[n])] for n in chosen.tolist()])
        chosen_tokens = trie.step(
            here,
            number_logits,
            readout=batch.decoder.readout,
            temperature=batch.temperature,
            uniforms=uniforms,
        )
        states.put(chosen, here)
        for n, token in zip(chosen.tolist(), chosen_tokens.tolist(), strict=True):
            tokens[n].append(token)
        return chosen_tokens

    def no_logits(chosen: np.ndarray) -> np.ndarray:
        """Return logits for nodes with a single child."""
        return np.zeros((len(chosen), trie.ids.shape[1]))

    if is_rotation.any():
        rotations = np.flatnonzero(is_rotation)
        columns = np.searchsorted(wanted, width + key_ends[number[rotations]])
        step(rotations, batch.number_logits(logits, row[rotations], columns, states.node[rotations]))
    on_prefix = np.flatnonzero(~is_rotation)
    for level, node in enumerate(nodes):
        number_logits = no_logits(on_prefix)
        if trie.n_children[node] > 1:
            columns = np.searchsorted(wanted, width + key_ends[number[on_prefix]] + level)
            number_logits = batch.number_logits(logits, row[on_prefix], columns, states.node[on_prefix])
        chosen_tokens = step(on_prefix, number_logits)
        if level < len(prefix):
            on_prefix = on_prefix[chosen_tokens == prefix[level]]
            n_run[on_prefix] += 1
    # Hide the prefix tokens that a number did not choose.
    for n in np.flatnonzero(n_run < n_prefix[number]).tolist():
        after_key = n_pad[row[n]] + int(key_ends[number[n]]) + 1
        row_ids = branches[row[n]].ids
        row_ids[after_key + n_run[n] : after_key + len(prefix)] = [HIDDEN] * (len(prefix) - int(n_run[n]))

    while True:
        while len(single := np.flatnonzero((states.node >= 0) & (trie.n_children[states.node] == 1))):
            step(single, no_logits(single))
        unfinished = np.flatnonzero(states.node >= 0)
        if not len(unfinished):
            break
        inputs = [[] for _ in batch.rows]
        columns = np.zeros(len(unfinished), dtype=np.int64)
        for k, n in enumerate(unfinished.tolist()):
            pending = tokens[n][n_run[n] :]
            branch = branches[row[n]]
            inputs[row[n]] += pending
            branch.ids += [int(number[n]) + 1] * len(pending)
            branch.position_offsets += range(int(n_keys[number[n]] + n_run[n]), int(n_keys[number[n]]) + len(tokens[n]))
            n_run[n] = len(tokens[n])
            columns[k] = len(inputs[row[n]]) - 1
        for row_inputs, branch in zip(inputs, branches, strict=True):
            if not row_inputs:
                row_inputs.append(batch.decoder.pad_token_id)
                branch.ids.append(HIDDEN)
                branch.position_offsets.append(0)
        wanted = np.unique(columns)
        logits = batch.forward(inputs, wanted, branches=branches)
        batch.n_cached = batch.n_cached + np.array(list(map(len, inputs)))
        columns = np.searchsorted(wanted, columns)
        step(unfinished, batch.number_logits(logits, row[unfinished], columns, states.node[unfinished]))
    for index, each in enumerate(batch.rows):
        own = slice(index * count, (index + 1) * count)
        each.values[:], each.probs[:] = states.value[own], states.probs[own]
