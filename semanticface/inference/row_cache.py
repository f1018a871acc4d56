"""A key-value cache whose rows move on at their own pace.

Slot s of a row holds the token at place s of that row, whatever the other rows have reached. A token written there
again simply takes the place, so guesses that turned out wrong cost no tidying up, and no row is ever padded.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

_BLOCK = 256


class _Layer(CacheLayerMixin):
    """One layer: ``keys`` and ``values`` float[B, heads, capacity, head width], written at the cache's slots."""

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.slots: torch.Tensor | None = None
        self.used = 0
        self.rows: torch.Tensor | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def _room(self, states: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
        """Return ``kept`` with room for the slots in use."""
        if kept is not None and kept.shape[2] >= self.used:
            return kept
        capacity = -(-self.used // _BLOCK) * _BLOCK
        n_rows = len(states) if kept is None else len(kept)
        grown = states.new_zeros(n_rows, states.shape[1], capacity, states.shape[3])
        if kept is not None:
            grown[:, :, : kept.shape[2]] = kept
        return grown

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write at the slots, and return everything up to the last one in use."""
        assert self.slots is not None
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values = self._room(key_states, self.keys), self._room(value_states, self.values)
        if self.rows is None:
            for kept, states in ((self.keys, key_states), (self.values, value_states)):
                kept.scatter_(2, self.slots[:, None, :, None].expand_as(states), states)
            return self.keys[:, :, : self.used], self.values[:, :, : self.used]
        for kept, states in ((self.keys, key_states), (self.values, value_states)):
            kept[self.rows[:, None], :, self.slots] = states.transpose(1, 2)
        return self.keys[self.rows, :, : self.used], self.values[self.rows, :, : self.used]

    def states(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of a layer that holds some."""
        assert self.keys is not None and self.values is not None
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.used

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.used, 0

    def get_max_length(self) -> int:
        return -1


class RowCache(Cache):
    """The cache of a batch."""

    def __init__(self) -> None:
        self._rows: list[_Layer] = []
        super().__init__(layers=cast(Any, self._rows))

    @classmethod
    def of_prefix(cls, prefix: RowCache, n_rows: int) -> RowCache:
        """Return a cache whose rows all begin with the one row of ``prefix``."""
        cache = cls()
        for layer in prefix._rows:
            copy = _Layer()
            copy.keys, copy.values = (kept[:, :, : layer.used].repeat(n_rows, 1, 1, 1) for kept in layer.states())
            copy.lazy_initialization(copy.keys, copy.values)
            cache._rows.append(copy)
        return cache

    def write_at(self, slots: torch.Tensor, used: int, rows: torch.Tensor | None = None) -> None:
        """Say where the next tokens go.

        Args:
            slots: int64[B, Q].
            used: slots in use afterwards, at least the highest + 1.
            rows: int64[B], the rows that the next tokens belong to; None for all.
        """
        self._at = (slots, used, rows)
        for layer in self._rows:
            layer.slots, layer.used, layer.rows = self._at

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one layer's states; layers come into being at the first pass."""
        while len(self._rows) <= layer_idx:
            layer = _Layer()
            layer.slots, layer.used, layer.rows = self._at
            self._rows.append(layer)
        return self._rows[layer_idx].update(key_states, value_states)

    def move(self, rows: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copy tokens of some rows to other slots; int64[n] the rows, int64[n, Q] from and to which slots."""
        rows = rows[:, None]
        for layer in self._rows:
            for kept in layer.states():
                kept[rows, :, targets] = kept[rows, :, sources]

    def take(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order, each as often as it is named; int64[n]."""
        for layer in self._rows:
            layer.keys, layer.values = (kept[rows] for kept in layer.states())
