"""Batched forward passes over a key-value cache whose rows advance independently.

Slot s of a cache row holds the token at index s of that row, however far the other rows are. Writing a slot again
overwrites it, so rejected draft tokens need no cleanup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from semanticface.inference.decoder import AnswerDecoder, AnswerState
from semanticface.models.answer_tokens import additive_mask, branch_mask, rotary_positions

HIDDEN = -2
"""Branch id of tokens that no other token attends to."""

_GROWTH = 256  # slots that a layer grows by
_TOKEN_INPUTS = ("input_ids", "attention_mask", "mm_token_type_ids")


class _Layer(CacheLayerMixin):
    """One layer: ``keys`` and ``values`` float[B, heads, capacity, head width], written at the cache's slots."""

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.slots: torch.Tensor | None = None
        self.n_slots = 0
        self.rows: torch.Tensor | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def _grown(self, states: torch.Tensor, cached: torch.Tensor | None) -> torch.Tensor:
        """Return ``cached`` with capacity for the slots in use."""
        if cached is not None and cached.shape[2] >= self.n_slots:
            return cached
        capacity = -(-self.n_slots // _GROWTH) * _GROWTH
        n_rows = len(states) if cached is None else len(cached)
        grown = states.new_zeros(n_rows, states.shape[1], capacity, states.shape[3])
        if cached is not None:
            grown[:, :, : cached.shape[2]] = cached
        return grown

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write states at the slots, and return everything up to the last slot in use."""
        assert self.slots is not None
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values = self._grown(key_states, self.keys), self._grown(value_states, self.values)
        if self.rows is None:
            for cached, states in ((self.keys, key_states), (self.values, value_states)):
                cached.scatter_(2, self.slots[:, None, :, None].expand_as(states), states)
            return self.keys[:, :, : self.n_slots], self.values[:, :, : self.n_slots]
        for cached, states in ((self.keys, key_states), (self.values, value_states)):
            cached[self.rows[:, None], :, self.slots] = states.transpose(1, 2)
        return self.keys[self.rows, :, : self.n_slots], self.values[self.rows, :, : self.n_slots]

    def states(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of a layer that has been written to."""
        assert self.keys is not None and self.values is not None
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.n_slots

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.n_slots, 0

    def get_max_length(self) -> int:
        return -1


class RowCache(Cache):
    """The key-value cache of a batch; layers are created by the first forward pass."""

    def __init__(self) -> None:
        self._layers: list[_Layer] = []
        super().__init__(layers=cast(Any, self._layers))

    @classmethod
    def from_prefix(cls, prefix: RowCache, n_rows: int) -> RowCache:
        """Return a cache of ``n_rows`` copies of the one row of ``prefix``."""
        cache = cls()
        for layer in prefix._layers:
            copy = _Layer()
            copy.keys, copy.values = (each[:, :, : layer.n_slots].repeat(n_rows, 1, 1, 1) for each in layer.states())
            copy.lazy_initialization(copy.keys, copy.values)
            cache._layers.append(copy)
        return cache

    def set_slots(self, slots: torch.Tensor, n_slots: int, rows: torch.Tensor | None = None) -> None:
        """Set where the next forward pass writes.

        Args:
            slots: int64[B, Q].
            n_slots: slots in use afterwards, at least the highest + 1.
            rows: int64[B], the rows of the cache that are written; None for all.
        """
        self._target = (slots, n_slots, rows)
        for layer in self._layers:
            layer.slots, layer.n_slots, layer.rows = self._target

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        while len(self._layers) <= layer_idx:
            layer = _Layer()
            layer.slots, layer.n_slots, layer.rows = self._target
            self._layers.append(layer)
        return self._layers[layer_idx].update(key_states, value_states)

    def copy_slots(self, rows: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copy the tokens of some rows, int64[n], from slots int64[n, Q] to slots int64[n, Q]."""
        rows = rows[:, None]
        for layer in self._layers:
            for cached in layer.states():
                cached[rows, :, targets] = cached[rows, :, sources]

    def select_rows(self, rows: torch.Tensor) -> None:
        """Keep these rows, int64[n], in this order; a row may be repeated."""
        for layer in self._layers:
            layer.keys, layer.values = (cached[rows] for cached in layer.states())


@dataclass
class Branches:
    """The branches of one row's tokens, as in ``semanticface.models.answer_tokens``.

    Attributes:
        start: index of the first token that is in a branch.
        ids: the branch of every token from there on, ``HIDDEN`` for those that no token attends to.
        position_offsets: position of each relative to ``start``.
    """

    start: int
    ids: list[int]
    position_offsets: list[int]


@dataclass(frozen=True)
class PrefixCache:
    """The part of the prompt before the image, cached.

    Attributes:
        ids: its tokens.
        cache: of one row.
    """

    ids: list[int]
    cache: RowCache

    @classmethod
    def compute(cls, model: Any, ids: list[int]) -> PrefixCache:
        """Run the model on the prefix."""
        cache = RowCache()
        slots = torch.arange(len(ids), device=model.device)[None]
        cache.set_slots(slots, len(ids))
        trunk = torch.zeros_like(slots)
        model(
            input_ids=torch.tensor([ids], device=model.device),
            attention_mask=additive_mask(branch_mask(trunk, trunk, slots), model.get_input_embeddings().weight.dtype),
            position_ids=slots,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return cls(ids, cache)


class Batch:
    """The answers of one call, and how far each has come.

    Tokens of a row are indexed from the start of its prompt, and token k lies in slot k of the cache. The first forward
    pass runs the prompt together with the first tokens of the answer.

    Args:
        decoder: the rules.
        model: a vision-language model.
        prefix: the cached start of the prompts, if any.
        inputs: model inputs, prompts of one length; ``input_ids`` is int64[B, T].
        rows: B x repeats empty answers.
        repeats: answers to each prompt, in consecutive rows.
        temperature: above 0 samples.

    Attributes:
        n_cached: int64[rows], tokens of each row in the cache; the prompt counts from the start.
        inputs: None after the first forward pass.
    """

    def __init__(
        self,
        decoder: AnswerDecoder,
        model: Any,
        prefix: PrefixCache | None,
        inputs: dict[str, Any],
        rows: list[AnswerState],
        repeats: int,
        temperature: float,
    ) -> None:
        self.decoder, self.model = decoder, model
        self.rows = rows
        self.repeats = repeats
        self.temperature = temperature
        self.inputs: dict[str, Any] | None = inputs
        ids = inputs["input_ids"]
        self.device = ids.device
        self.dtype = self.model.get_input_embeddings().weight.dtype
        self.vocab_size = self.model.get_output_embeddings().weight.shape[0]
        n_prompts, self.n_prompt = ids.shape
        in_order = torch.arange(self.n_prompt, device=self.device).expand(n_prompts, -1)
        self.prompt_positions = rotary_positions(self.model, inputs, in_order)  # [B, T] or [3, B, T]
        # Rotary position minus index of every token after the image.
        positions = self.prompt_positions
        self.position_delta = positions.amax(dim=(0, 2) if positions.ndim == 3 else 1) + 1 - self.n_prompt
        if prefix is not None and not bool(
            (ids[:, : len(prefix.ids)] == torch.tensor(prefix.ids, device=ids.device)).all()
        ):
            prefix = None
        self.n_prefix = 0 if prefix is None else len(prefix.ids)
        self.cache = RowCache() if prefix is None else RowCache.from_prefix(prefix.cache, n_prompts)
        self.n_cached = np.full(len(rows), self.n_prompt)

    def forward(
        self,
        tokens: Sequence[Sequence[int]],
        columns: np.ndarray,
        *,
        branches: Sequence[Branches] | None = None,
        parents: Sequence[Sequence[int]] | None = None,
        active_rows: np.ndarray | None = None,
    ) -> torch.Tensor:
        """Run the model on the next tokens of each row; the first call also runs the image and the prompt.

        Args:
            tokens: for each row its tokens from index ``n_cached`` on.
            columns: int64[K], ascending; the columns of ``tokens`` to return logits of.
            branches: for each row the branches of its tokens; None where there are none.
            parents: for each row, where ``tokens`` is a tree, the column of the token before each, -1 where that is
                cached already; a token attends to its own path alone.
            active_rows: int64[B], the rows that ``tokens`` belong to; None for all, as in the first call.

        Returns:
            logits [B, K, V].
        """
        active_rows = None if active_rows is None or len(active_rows) == len(self.n_cached) else active_rows
        n_cached = self.n_cached if active_rows is None else self.n_cached[active_rows]
        if self.inputs is not None:
            # Answers to one prompt begin with the same tokens: run them once.
            n_cached, tokens = n_cached[:: self.repeats], tokens[:: self.repeats]
            branches, parents = branches and branches[:: self.repeats], parents and parents[:: self.repeats]
        width = max(map(len, tokens))
        n_slots = int(n_cached.max()) + width
        ids = np.array([[*each, *[self.decoder.pad_token_id] * (width - len(each))] for each in tokens])
        slots = n_cached[:, None] + np.arange(width)  # [B, Q]
        positions = slots.copy()
        if parents is None:
            queries, keys = np.zeros_like(slots), np.zeros((len(tokens), n_slots), dtype=np.int64)
            for b, branch in enumerate(branches or []):
                n = len(tokens[b])
                start = max(0, branch.start - n_cached[b])
                keys[b, branch.start :] = HIDDEN
                keys[b, branch.start : n_cached[b] + n] = branch.ids
                queries[b, start:] = HIDDEN
                queries[b, start:n] = branch.ids[start - n :]
                positions[b, start:n] = branch.start + np.array(branch.position_offsets[start - n :])
            mask = branch_mask(*map(self._tensor, (queries, keys, slots)))  # [B, 1, Q, slots]
        else:
            on_path = np.zeros((len(tokens), width, n_slots), dtype=bool)
            for b, row_parents in enumerate(parents):
                on_path[b, :, : n_cached[b]] = True
                for column, parent in enumerate(row_parents):
                    if parent >= 0:
                        on_path[b, column] = on_path[b, parent]
                        positions[b, column] = positions[b, parent] + 1
                    on_path[b, column, n_cached[b] + column] = True
            mask = self._tensor(on_path)[:, None]
        rows = None if active_rows is None else self._tensor(active_rows)
        tensors = map(self._tensor, (ids, slots, positions, columns))
        return self._run(*tensors, mask=mask, rows=rows)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)

    def _run(
        self,
        ids: torch.Tensor,
        slots: torch.Tensor,
        positions: torch.Tensor,
        columns: torch.Tensor,
        *,
        mask: torch.Tensor,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        """Run the model on tokens [B, Q] at ``slots`` and text ``positions``; the first time, the prompt first."""
        positions = positions + (self.position_delta if rows is None else self.position_delta[rows])[:, None]
        if self.prompt_positions.ndim == 3:
            positions = positions.expand(3, -1, -1)
        extra: dict[str, Any] = {}
        first = self.inputs
        n_slots = mask.shape[-1]
        if first is not None:
            prompt_slots = torch.arange(self.n_prefix, self.n_prompt, device=self.device).expand(len(ids), -1)
            ids = torch.cat([first["input_ids"][:, self.n_prefix :], ids], dim=1)
            slots = torch.cat([prompt_slots, slots], dim=1)
            positions = torch.cat([self.prompt_positions[..., self.n_prefix :], positions], dim=-1)
            causal = torch.arange(n_slots, device=self.device) <= prompt_slots[:, :, None]
            mask = torch.cat([causal[:, None], mask], dim=2)
            columns = columns + prompt_slots.shape[1]
            extra = {name: value for name, value in first.items() if name not in _TOKEN_INPUTS}
        self.cache.set_slots(slots, n_slots, rows)
        logits: torch.Tensor = self.model(
            input_ids=ids,
            attention_mask=additive_mask(mask, self.dtype),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=columns,
            **extra,
        ).logits
        if first is not None:
            self.inputs = None
            if self.repeats > 1:
                order = torch.arange(len(ids), device=self.device).repeat_interleave(self.repeats)
                self.cache.select_rows(order)
                self.position_delta, logits = self.position_delta[order], logits[order]
        return logits

    def accept(self, active_rows: np.ndarray, columns: Sequence[Sequence[int]]) -> None:
        """Keep of each row's last tokens only these, moved next to each other in the cache.

        Args:
            active_rows: int64[B].
            columns: for each of those rows the columns of the accepted tokens, ascending.
        """
        n_cached = self.n_cached[active_rows]
        width = max(map(len, columns))
        # A row with fewer tokens copies its last one onto itself.
        sources = np.array([[*each, *[each[-1]] * (width - len(each))] for each in columns])
        targets = np.array([[*range(len(each)), *[each[-1]] * (width - len(each))] for each in columns])
        if (sources != targets).any():
            slots = (self._tensor(n_cached[:, None] + each) for each in (sources, targets))
            self.cache.copy_slots(self._tensor(active_rows), *slots)
        self.n_cached[active_rows] = n_cached + np.array(list(map(len, columns)))

    def number_logits(
        self, logits: torch.Tensor, rows: np.ndarray, columns: np.ndarray, nodes: np.ndarray
    ) -> np.ndarray:
        """Return the logits of the children of N trie nodes; float[N, C]."""
        ids = self._tensor(self.decoder.trie.ids[nodes])
        b, k = (self._tensor(each)[:, None] for each in (rows, columns))
        return logits[b, k, ids].float().cpu().numpy()

    def append_forced(self, row: AnswerState) -> None:
        """Append the tokens that the grammar forces next."""
        while row.forced:
            self.decoder.append(row, row.forced[0])

    def keep_rows(self, rows: np.ndarray) -> None:
        """Drop all other rows of the cache; int64[n]."""
        kept = self._tensor(rows)
        self.n_cached, self.position_delta = self.n_cached[rows], self.position_delta[kept]
        self.cache.select_rows(kept)
