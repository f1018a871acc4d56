"""Forward passes of a batch of answers, each as far as it has come: what is shown, where it lies, who sees whom.

A key-value cache whose rows move on at their own pace.

Slot s of a row holds the token at place s of that row, whatever the other rows have reached. A token written there
again simply takes the place, so guesses that turned out wrong cost no tidying up, and no row is ever padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from semanticface.inference.decoder import AnswerDecoder, AnswerState
from semanticface.models.answer_tokens import additive, branch_mask, rotary_positions

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


HIDDEN = -2
"""The branch of tokens that no other may see."""

_OF_TOKENS = ("input_ids", "attention_mask", "mm_token_type_ids")


@dataclass
class Branches:
    """The branches of one row's tokens; see ``layout``.

    Attributes:
        trunk: the place of the first token that is in a branch; those before it in a feed are in none.
        of: the branch of every token from there on, ``HIDDEN`` for those that no token may see.
        steps: how far each stands behind the trunk.
    """

    trunk: int
    of: list[int]
    steps: list[int]


@dataclass(frozen=True)
class PrefixCache:
    """The beginning of a prompt, and what the model made of it.

    Attributes:
        ids: its tokens, all those before the picture.
        cache: of one row.
    """

    ids: list[int]
    cache: RowCache

    @classmethod
    def of(cls, model: Any, ids: list[int]) -> PrefixCache:
        """Show a model the beginning of a prompt."""
        cache = RowCache()
        slots = torch.arange(len(ids), device=model.device)[None]
        cache.write_at(slots, len(ids))
        trunk = torch.zeros_like(slots)
        model(
            input_ids=torch.tensor([ids], device=model.device),
            attention_mask=additive(branch_mask(trunk, trunk, slots), model.get_input_embeddings().weight.dtype),
            position_ids=slots,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return cls(ids, cache)


class Batch:
    """The answers of one call, and how far each has come.

    Tokens of a row are counted from the start of its prompt, and token k lies in slot k of the cache. The prompt goes
    through with the first tokens of the answer.

    Args:
        decoder: the rules.
        model: a vision-language model.
        prefix: how the prompts begin, where that is known.
        inputs: what the model takes, prompts of one length; ``input_ids`` is int64[B, T].
        rows: B x repeats answers with nothing written.
        repeats: answers to each prompt, beside each other.
        temperature: above 0 samples.

    Attributes:
        fed: int64[rows], the place of each row's next token to be shown.
        inputs: None from the first pass on.
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
        self.n_vocabulary = self.model.get_output_embeddings().weight.shape[0]
        n_prompts, self.n_prompt = ids.shape
        straight = torch.arange(self.n_prompt, device=self.device).expand(n_prompts, -1)
        self.asked = rotary_positions(self.model, inputs, straight)
        # How far the position of a token behind the picture is ahead of its place.
        self.ahead = self.asked.amax(dim=(0, 2) if self.asked.ndim == 3 else 1) + 1 - self.n_prompt
        if prefix is not None and not bool(
            (ids[:, : len(prefix.ids)] == torch.tensor(prefix.ids, device=ids.device)).all()
        ):
            prefix = None
        self.n_prefix = 0 if prefix is None else len(prefix.ids)
        self.cache = RowCache() if prefix is None else RowCache.of_prefix(prefix.cache, n_prompts)
        self.fed = np.full(len(rows), self.n_prompt)

    def show(
        self,
        feeds: Sequence[Sequence[int]],
        wanted: np.ndarray,
        *,
        branches: Sequence[Branches] | None = None,
        parents: Sequence[Sequence[int]] | None = None,
        live: np.ndarray | None = None,
    ) -> torch.Tensor:
        """Show each row its next tokens; the first pass shows the picture and the prompt before them.

        Args:
            feeds: for each row its tokens from place ``fed`` on (behind the prompt, where that is not shown yet).
            wanted: int64[K], rising; the columns of ``feeds`` whose logits are wanted.
            branches: for each row, in which branches its tokens are; None where all are in one row.
            parents: for each row, the index in its feed of the token before each, -1 where that is no longer fed, when
                a feed is a tree; a token sees those on its own path alone.
            live: int64[B], the rows that these are; None for all. The first pass shows all.

        Returns:
            logits [B, K, V].
        """
        live = None if live is None or len(live) == len(self.fed) else live
        fed = self.fed if live is None else self.fed[live]
        if self.inputs is not None:
            # Answers to one picture begin alike.
            fed, feeds = fed[:: self.repeats], feeds[:: self.repeats]
            branches, parents = branches and branches[:: self.repeats], parents and parents[:: self.repeats]
        width = max(map(len, feeds))
        used = int(fed.max()) + width
        ids = np.array([[*feed, *[self.decoder.pad] * (width - len(feed))] for feed in feeds])
        slots = fed[:, None] + np.arange(width)
        steps = slots.copy()
        if parents is None:
            looking, seen = np.zeros_like(slots), np.zeros((len(feeds), used), dtype=np.int64)
            for b, branch in enumerate(branches or []):
                n = len(feeds[b])
                start = max(0, branch.trunk - fed[b])
                seen[b, branch.trunk :] = HIDDEN
                seen[b, branch.trunk : fed[b] + n] = branch.of
                looking[b, start:] = HIDDEN
                looking[b, start:n] = branch.of[start - n :]
                steps[b, start:n] = branch.trunk + np.array(branch.steps[start - n :])
            mask = branch_mask(*map(self._tensor, (looking, seen, slots)))
        else:
            path = np.zeros((len(feeds), width, used), dtype=bool)
            for b, before in enumerate(parents):
                path[b, :, : fed[b]] = True
                for index, parent in enumerate(before):
                    if parent >= 0:
                        path[b, index] = path[b, parent]
                        steps[b, index] = steps[b, parent] + 1
                    path[b, index, fed[b] + index] = True
            mask = self._tensor(path)[:, None]
        rows = None if live is None else self._tensor(live)
        tokens, places, angles = map(self._tensor, (ids, slots, steps))
        return self._forward(tokens, places, angles, mask, self._tensor(wanted), rows)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)

    def _forward(
        self,
        ids: torch.Tensor,
        slots: torch.Tensor,
        steps: torch.Tensor,
        mask: torch.Tensor,
        wanted: torch.Tensor,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        """Run the model on tokens at ``slots``, rotated by ``steps``; the first time on the prompt too."""
        positions = steps + (self.ahead if rows is None else self.ahead[rows])[:, None]
        if self.asked.ndim == 3:
            positions = positions.expand(3, -1, -1)
        extra: dict[str, Any] = {}
        first = self.inputs
        used = mask.shape[-1]
        if first is not None:
            prompt = torch.arange(self.n_prefix, self.n_prompt, device=self.device).expand(len(ids), -1)
            ids = torch.cat([first["input_ids"][:, self.n_prefix :], ids], dim=1)
            slots = torch.cat([prompt, slots], dim=1)
            positions = torch.cat([self.asked[..., self.n_prefix :], positions], dim=-1)
            earlier = torch.arange(used, device=self.device) <= prompt[:, :, None]
            mask = torch.cat([earlier[:, None], mask], dim=2)
            wanted = wanted + prompt.shape[1]
            extra = {name: value for name, value in first.items() if name not in _OF_TOKENS}
        self.cache.write_at(slots, used, rows)
        logits: torch.Tensor = self.model(
            input_ids=ids,
            attention_mask=additive(mask, self.dtype),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=wanted,
            **extra,
        ).logits
        if first is not None:
            self.inputs = None
            if self.repeats > 1:
                order = torch.arange(len(ids), device=self.device).repeat_interleave(self.repeats)
                self.cache.take(order)
                self.ahead, logits = self.ahead[order], logits[order]
        return logits

    def advance(self, live: np.ndarray, kept: Sequence[Sequence[int]]) -> None:
        """Keep of each row's last feed these tokens alone, one behind the other.

        Args:
            live: int64[B], the rows.
            kept: for each the indices of its tokens, rising.
        """
        fed = self.fed[live]
        width = max(map(len, kept))
        # A row with fewer moves its last token onto itself.
        sources = np.array([[*each, *[each[-1]] * (width - len(each))] for each in kept])
        targets = np.array([[*range(len(each)), *[each[-1]] * (width - len(each))] for each in kept])
        if (sources != targets).any():
            self.cache.move(self._tensor(live), *(self._tensor(fed[:, None] + each) for each in (sources, targets)))
        self.fed[live] = fed + np.array(list(map(len, kept)))

    def gather(self, logits: torch.Tensor, rows: np.ndarray, columns: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """Return the logits of the tokens that numbers at ``nodes`` can go on with; float[N, C]."""
        ids = self._tensor(self.decoder.tree.ids[nodes])
        b, k = (self._tensor(each)[:, None] for each in (rows, columns))
        return logits[b, k, ids].float().cpu().numpy()

    def settle(self, row: AnswerState) -> None:
        """Write the tokens that the grammar forces next."""
        while row.forced:
            self.decoder.append(row, row.forced[0])

    def keep(self, rows: np.ndarray) -> None:
        """Go on with these rows of the cache alone; int64[n]."""
        chosen = self._tensor(rows)
        self.fed, self.ahead = self.fed[rows], self.ahead[chosen]
        self.cache.take(chosen)
