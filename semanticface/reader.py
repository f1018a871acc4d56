"""Answers in few forward passes, the same text as token by token.

What is known before the model speaks is never asked for one token at a time:

* The prompt up to the picture is the same for every picture: its keys and values are computed once and kept.
* Tokens that the grammar forces go through together with the token before them.
* Words are guessed (``drafts``) and checked: one pass reads several tokens, those the model would not have written are
  dropped, and the first of its own takes their place. So the text is exactly the model's.
* Numbers in a row are guessed all at once and read all at once (Jacobi decoding, Santilli et al. 2023,
  arXiv 2305.10427): those up to the first wrong guess are right, and the readings behind it are the next guesses.
* Numbers side by side (``layout``) need no guesses: they do not see each other, and are read in one or two passes. With
  no words before them they even go through together with the prompt.

Rows of a batch move on at their own pace (``row_cache``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from semanticface.answer import format_answer
from semanticface.arkit import N_ACTIONS
from semanticface.decode import AnswerDecoder, Row
from semanticface.drafts import Drafts, typical_expressions
from semanticface.errors import ModelError
from semanticface.layout import CLOSES_WORDS, additive, branch_mask, rotary_positions
from semanticface.numbers import Places
from semanticface.row_cache import RowCache
from semanticface.semantics import describe_many

_GUESSED = 12
"""Tokens of words, or numbers, guessed ahead of a pass: more are rarely all right."""

_LOGITS = 2**25
"""Most logits of guessed numbers held at once."""

_KNOWN_INPUTS = {"input_ids", "attention_mask", "pixel_values", "pixel_attention_mask", "image_grid_thw",
                 "mm_token_type_ids", "image_sizes"}  # fmt: skip
_HIDDEN = -2
_OF_TOKENS = ("input_ids", "attention_mask", "mm_token_type_ids")


class Reader:
    """Reads answers off one model; keep it for as long as the model's weights stay as they are.

    Args:
        decoder: the rules.
        model: a transformers model, or a PeftModel, whose tokenizer is the decoder's.
    """

    def __init__(self, decoder: AnswerDecoder, model: Any) -> None:
        self.decoder = decoder
        self.model = model
        tokens = decoder.number_tokens
        self.keys = tokens.keys if decoder.mode == "full" else (tokens.opening, *tokens.keys[1:])
        self.trunk, self.trunk_nodes = decoder.tree.trunk()
        self._prefix: tuple[list[int], RowCache] | None = None
        self._drafts: Drafts | None = None
        self.last_values = np.zeros(N_ACTIONS, dtype=np.int64)
        self.n_vocabulary = model.get_output_embeddings().weight.shape[0]

    def read(
        self,
        inputs: Mapping[str, Any],
        *,
        temperature: float = 0.0,
        seeds: Sequence[int | Sequence[int]] | None = None,
        repeats: int = 1,
    ) -> list[str]:
        """Write ``repeats`` answers for each row of ``inputs``, those of one row beside each other.

        A row asked several times goes through the model's picture tower, and its prompt through the model, once.

        Args:
            inputs: what ``model.generate`` takes; ``input_ids`` is int64[B, T].
            temperature: 0 takes the best token; above 0 samples.
            seeds: one for each answer.
            repeats: answers a row.

        Returns:
            B x repeats canonical texts.

        Raises:
            ValueError: a negative temperature, or sampling without one seed for each answer.
            ModelError: numbers are to be read side by side, and the model's attention does not allow it.
        """
        obstacle = self.obstacle(inputs)
        if obstacle:
            if self.decoder.numbers == "parallel":
                raise ModelError(f"numbers cannot be read side by side: {obstacle}. Train with numbers: sequential.")
            repeated = {name: value.repeat_interleave(repeats, 0) for name, value in inputs.items()}
            return self.decoder.token_by_token(self.model, repeated, temperature=temperature, seeds=seeds)
        rows = self.decoder.start(len(inputs["input_ids"]) * repeats, temperature, seeds)
        if rows:
            with torch.inference_mode():
                _Batch(self, dict(inputs), rows, repeats, temperature).run()
        return [self.decoder.text(row) for row in rows]

    def drafts(self) -> Drafts:
        """Return what is known of the words so far; at first, what Stage I would say of some expressions."""
        if self._drafts is None:
            self._drafts = Drafts()
            encode = self.decoder.tokenizer
            first = list(self.decoder.number_tokens.keys[0])
            values = typical_expressions()
            for analysis in describe_many(values, emotion=self.decoder.emotion):
                words = format_answer(np.zeros(N_ACTIONS), analysis).partition(CLOSES_WORDS + '"arkit"')[0]
                self._drafts.learn([*encode(words, add_special_tokens=False)["input_ids"], *first])
        return self._drafts

    def prefix(self, ids: list[int]) -> tuple[list[int], RowCache | None]:
        """Return what comes before the picture and its cache, computed when it is new."""
        config = self.model.config
        picture = getattr(config, "image_token_id", getattr(config, "image_token_index", None))
        shared = ids[: ids.index(picture)] if picture in ids else []
        if not shared:
            return [], None
        if self._prefix is None or self._prefix[0] != shared:
            cache = RowCache()
            n = len(shared)
            slots = torch.arange(n, device=self.model.device)[None]
            cache.write_at(slots, n)
            dtype = self.model.get_input_embeddings().weight.dtype
            mask = additive(branch_mask(torch.zeros_like(slots), torch.zeros_like(slots), slots), dtype)
            self.model(
                input_ids=torch.tensor([shared], device=self.model.device),
                attention_mask=mask,
                position_ids=slots,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            self._prefix = (shared, cache)
        return self._prefix

    def obstacle(self, inputs: Mapping[str, Any]) -> str:
        """Return why the model cannot be read this way, empty if it can."""
        config = self.model.config
        text = config.get_text_config()
        kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
        strange = set(inputs) - _KNOWN_INPUTS
        if strange:
            return f"the model takes {', '.join(sorted(strange))}"
        if kinds != {"full_attention"} or config.is_encoder_decoder:
            return f"the model's layers are of the kind {', '.join(sorted(kinds))}"
        if text._attn_implementation not in ("sdpa", "eager"):
            return f"the attention {text._attn_implementation} takes no mask"
        if not bool(inputs["attention_mask"].all()):
            return "the prompts are not of one length"
        return ""


class _Batch:
    """The answers of one call, and how far each has come.

    Tokens of a row are counted from the start of its prompt, and token k lies in slot k of the cache. ``fed`` is the
    place of each row's next token to be shown. The prompt goes through with the first tokens of the answer; ``inputs``
    is None from then on.
    """

    def __init__(
        self, reader: Reader, inputs: dict[str, Any], rows: list[Row], repeats: int, temperature: float
    ) -> None:
        self.reader, self.decoder, self.model = reader, reader.decoder, reader.model
        self.rows = rows
        self.repeats = repeats
        self.temperature = temperature
        self.inputs: dict[str, Any] | None = inputs
        ids = inputs["input_ids"]
        self.device = ids.device
        self.dtype = self.model.get_input_embeddings().weight.dtype
        n_prompts, self.n_prompt = ids.shape
        straight = torch.arange(self.n_prompt, device=self.device).expand(n_prompts, -1)
        self.asked = rotary_positions(self.model, inputs, straight)
        # How far the position of a token behind the picture is ahead of its place.
        self.ahead = self.asked.amax(dim=(0, 2) if self.asked.ndim == 3 else 1) + 1 - self.n_prompt
        shared, prefix = reader.prefix(ids[0].tolist())
        if prefix is None or not bool((ids[:, : len(shared)] == ids[:1, : len(shared)]).all()):
            shared, prefix = [], RowCache()
        self.n_prefix = len(shared)
        self.cache = RowCache.of_prefix(prefix, n_prompts)
        self.fed = np.full(len(rows), self.n_prompt)

    def run(self) -> None:
        """Write every row to its end."""
        if self.decoder.mode == "full":
            self._words()
        if self.decoder.numbers == "parallel":
            self._numbers_beside()
        else:
            self._numbers_in_a_row()

    # --- one forward pass ---------------------------------------------------------------------------------------------

    def _pass(
        self, feeds: Sequence[Sequence[int]], wanted: np.ndarray, branches: Sequence[_Branches] | None = None
    ) -> torch.Tensor:
        """Show each row its next tokens; the first pass shows the picture and the prompt before them.

        Args:
            feeds: for each row its tokens from place ``fed`` on (behind the prompt, where that is not shown yet).
            wanted: int64[K], rising; the columns of ``feeds`` whose logits are wanted.
            branches: for each row, in which branches its tokens are; None where all are in one row.

        Returns:
            logits [B, K, V].
        """
        fed = self.fed
        if self.inputs is not None:
            # Answers to one picture begin alike.
            fed, feeds, branches = fed[:: self.repeats], feeds[:: self.repeats], branches and branches[:: self.repeats]
        width = max(map(len, feeds))
        used = int(fed.max()) + width
        ids = np.array([[*feed, *[self.decoder.pad] * (width - len(feed))] for feed in feeds])
        slots = fed[:, None] + np.arange(width)
        steps = slots.copy()
        looking, seen = np.zeros_like(slots), np.zeros((len(feeds), used), dtype=np.int64)
        for b, branch in enumerate(branches or []):
            n = len(feeds[b])
            seen[b, branch.trunk :] = _HIDDEN
            seen[b, branch.trunk : fed[b] + n] = branch.of
            looking[b] = _HIDDEN
            looking[b, :n] = branch.of[-n:]
            steps[b, :n] = branch.trunk + np.array(branch.steps[-n:])
        return self._forward(
            *(torch.from_numpy(each).to(self.device) for each in (ids, slots, steps, looking, seen, wanted))
        )

    def _forward(
        self,
        ids: torch.Tensor,
        slots: torch.Tensor,
        steps: torch.Tensor,
        looking: torch.Tensor,
        seen: torch.Tensor,
        wanted: torch.Tensor,
    ) -> torch.Tensor:
        """Run the model on tokens at ``slots``, rotated by ``steps``; the first time on the prompt too."""
        positions = steps + self.ahead[:, None]
        if self.asked.ndim == 3:
            positions = positions.expand(3, -1, -1)
        extra: dict[str, Any] = {}
        first = self.inputs
        if first is not None:
            prompt = torch.arange(self.n_prefix, self.n_prompt, device=self.device).expand(len(ids), -1)
            ids = torch.cat([first["input_ids"][:, self.n_prefix :], ids], dim=1)
            slots = torch.cat([prompt, slots], dim=1)
            positions = torch.cat([self.asked[..., self.n_prefix :], positions], dim=-1)
            looking = torch.cat([torch.zeros_like(prompt), looking], dim=1)
            wanted = wanted + prompt.shape[1]
            extra = {name: value for name, value in first.items() if name not in _OF_TOKENS}
        self.cache.write_at(slots, seen.shape[1])
        logits: torch.Tensor = self.model(
            input_ids=ids,
            attention_mask=additive(branch_mask(looking, seen, slots), self.dtype),
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

    # --- words --------------------------------------------------------------------------------------------------------

    def _words(self) -> None:
        """Write the words of every row, and what follows them up to the first number."""
        drafts = self.reader.drafts()
        for row in self.rows:
            self._settle(row)
        while busy := [index for index, row in enumerate(self.rows) if not self.decoder.words_done(row)]:
            feeds: list[list[int]] = [[] for _ in self.rows]
            known = np.zeros(len(self.rows), dtype=np.int64)
            for index in busy:
                row = self.rows[index]
                unfed = row.tokens[self.fed[index] - self.n_prompt :]
                known[index] = len(unfed)
                feeds[index] = unfed + drafts.guess(row.tokens, _GUESSED)
            first = int(known[busy].min()) - 1
            wanted = np.arange(first, max(map(len, feeds)))
            logits = self._pass(feeds, wanted).float().cpu().numpy()
            for index in busy:
                self.fed[index] += self._check(self.rows[index], feeds[index], int(known[index]), logits[index], first)
        for row in self.rows:
            drafts.learn(row.tokens)

    def _settle(self, row: Row) -> None:
        while row.forced:
            self.decoder.append(row, row.forced[0])

    def _check(self, row: Row, feed: list[int], known: int, logits: np.ndarray, first: int) -> int:
        """Write what the model says to a feed whose tokens behind ``known`` are guesses.

        Returns:
            How many tokens of the feed are part of the answer.
        """
        at = known - 1
        while row.forced or not self.decoder.words_done(row):
            token = row.forced[0] if row.forced else self.decoder.choose_word(row, logits[at - first], self.temperature)
            self.decoder.append(row, token)
            if at + 1 == len(feed) or feed[at + 1] != token:
                self._settle(row)
                break
            at += 1
        return at + 1

    # --- numbers in a row ---------------------------------------------------------------------------------------------

    def _numbers_in_a_row(self) -> None:
        """Read numbers each of which sees those before it: guess all, keep those up to the first wrong guess."""
        tree, tokens = self.decoder.tree, self.decoder.number_tokens
        for row in self.rows:
            self._settle(row)
        guesses = np.tile(self.reader.last_values, (len(self.rows), 1))
        done = np.zeros(len(self.rows), dtype=np.int64)
        busy = np.arange(len(self.rows))
        ahead = np.full(len(self.rows), N_ACTIONS)
        while len(busy):
            most = max(4, _LOGITS // (self.reader.n_vocabulary * tree.depth * len(busy)))
            ends = np.minimum(done + np.minimum(ahead, most), N_ACTIONS)
            feeds: list[list[int]] = []
            starts = np.zeros(len(busy), dtype=np.int64)
            # Where each number's first token stands among the tokens of its answer.
            places = np.zeros((len(busy), N_ACTIONS), dtype=np.int64)
            for b, index in enumerate(busy.tolist()):
                written = list(self.rows[index].tokens)
                for slot in range(int(ends[b])):
                    if slot:
                        written += tokens.keys[slot]
                    places[b, slot] = len(written)
                    written += tokens.spelled[guesses[b, slot]]
                starts[b] = min(self.fed[b] - self.n_prompt, places[b, done[b]] - 1)
                feeds.append(written[starts[b] : -1])
            self.fed = starts + self.n_prompt
            found, wrong = self._read_guesses(feeds, places - starts[:, None], done, ends, guesses, busy)
            for b, index in enumerate(busy.tolist()):
                slot = int(done[b])
                while slot < ends[b] and wrong[b, slot] < 0:
                    slot += 1
                self.fed[b] = self.n_prompt + starts[b] + len(feeds[b])
                if slot < ends[b]:
                    self.fed[b] = self.n_prompt + places[b, slot] + wrong[b, slot]
                    # A number whose last token was the wrong one is whole now.
                    slot += int(wrong[b, slot] == len(tokens.spelled[found[b, slot]]) - 1)
                guesses[b, done[b] : ends[b]] = found[b, done[b] : ends[b]]
                # Where guesses go wrong early, few are worth showing.
                ahead[b] = max(_GUESSED, 2 * (slot - int(done[b])))
                done[b] = slot
                self.rows[index].values[:slot] = guesses[b, :slot]
            kept = np.flatnonzero(done < N_ACTIONS)
            if len(kept) < len(busy):
                self.reader.last_values = self.rows[int(busy[done == N_ACTIONS][-1])].values.copy()
                busy, done, ahead, guesses, self.fed = (each[kept] for each in (busy, done, ahead, guesses, self.fed))
                rows = torch.from_numpy(kept).to(self.device)
                self.ahead = self.ahead[rows]
                self.cache.take(rows)

    def _read_guesses(
        self,
        feeds: list[list[int]],
        columns: np.ndarray,
        done: np.ndarray,
        ends: np.ndarray,
        guesses: np.ndarray,
        busy: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Show guesses and read what the model makes of each behind the ones before it.

        Returns:
            int64[B, 52] the values read (as near to the guess as the tokens read allow, where not all could be), and
            int64[B, 52] which token of a guess was the first wrong one, -1 where none was.
        """
        tree = self.decoder.tree
        b, slot = np.nonzero((np.arange(N_ACTIONS) >= done[:, None]) & (np.arange(N_ACTIONS) < ends[:, None]))
        guess, column = guesses[b, slot], columns[b, slot] - 1
        levels = [np.flatnonzero((node >= 0) & (tree.n_children[node] > 1)) for node in tree.path[guess].T]
        wanted = np.unique(np.concatenate([column[level] + t for t, level in enumerate(levels)]))
        logits = self._pass(feeds, wanted)
        draws = np.stack([self.rows[index].draws for index in busy.tolist()])
        found, wrong = guess.copy(), np.full(len(guess), -1)
        state = Places.start(len(guess))
        for t, level in enumerate(levels):
            level = level[wrong[level] < 0]
            node = tree.path[guess[level], t]
            here = Places(node, state.value[level], state.rest[level], state.weight[level])
            seen = self._gather(logits, b[level], np.searchsorted(wanted, column[level] + t), node)
            token = tree.choose(
                here, seen, readout=self.decoder.readout, temperature=self.temperature, draws=draws[b, slot, t][level]
            )
            state.rest[level], state.weight[level] = here.rest, here.weight
            missed = np.flatnonzero(token != [tree.spelled[value][t] for value in guess[level].tolist()])
            wrong[level[missed]] = t
            whole = here.node[missed] < 0
            nearest = tree.nearest(here.node[missed], guess[level[missed]])
            found[level[missed]] = np.where(whole, here.value[missed], nearest)
        out, first = guesses.copy(), np.full(guesses.shape, -1)
        out[b, slot], first[b, slot] = found, wrong
        return out, first

    def _gather(self, logits: torch.Tensor, rows: np.ndarray, columns: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """Return the logits of the tokens that numbers at ``nodes`` can go on with; float[N, C]."""
        ids = torch.from_numpy(self.decoder.tree.ids[nodes]).to(self.device)
        b, k = (torch.from_numpy(each).to(self.device)[:, None] for each in (rows, columns))
        return logits[b, k, ids].float().cpu().numpy()

    # --- numbers side by side -----------------------------------------------------------------------------------------

    def _numbers_beside(self) -> None:
        """Read numbers that see the words and their own key: all 52 at once, each token by token.

        The first pass shows the key of each number and what nearly every number begins with (``0.`` of digits).
        """
        tree, trunk, nodes = self.decoder.tree, self.reader.trunk, self.reader.trunk_nodes
        said = np.array([self.decoder.n_said(row) for row in self.rows])
        self._show_last_words(said)
        self.fed = self.n_prompt + said
        ids: list[int] = []
        of: list[int] = []
        steps: list[int] = []
        n_keys = np.array([len(key) for key in self.reader.keys])
        for number, key in enumerate(self.reader.keys):
            ids += [*key, *trunk]
            of += [number + 1] * (len(key) + len(trunk))
            steps += range(len(key) + len(trunk))
        ends = np.cumsum(n_keys + len(trunk)) - len(trunk) - 1  # where each key ends
        branches = [_Branches(self.n_prompt + int(n), list(of), list(steps)) for n in said]
        wanted = np.unique(np.add.outer(ends, np.flatnonzero(tree.n_children[nodes] > 1)))
        logits = self._pass([ids] * len(self.rows), wanted, branches)
        self.fed = self.fed + len(ids)

        # All numbers of all rows, one behind the other.
        row, number = np.divmod(np.arange(len(self.rows) * N_ACTIONS), N_ACTIONS)
        places = Places.start(len(row))
        written: list[list[int]] = [[] for _ in row]
        shown = np.zeros(len(row), dtype=np.int64)  # tokens of each number that its branch sees

        def write(chosen: np.ndarray, seen: np.ndarray) -> np.ndarray:
            here = Places(*(each[chosen] for each in (places.node, places.value, places.rest, places.weight)))
            draws = np.array([self.rows[row[n]].draws[number[n], len(written[n])] for n in chosen.tolist()])
            tokens = tree.choose(here, seen, readout=self.decoder.readout, temperature=self.temperature, draws=draws)
            places.node[chosen], places.value[chosen] = here.node, here.value
            places.rest[chosen], places.weight[chosen] = here.rest, here.weight
            for n, token in zip(chosen.tolist(), tokens.tolist(), strict=True):
                written[n].append(token)
            return tokens

        def blind(chosen: np.ndarray) -> np.ndarray:
            return np.zeros((len(chosen), tree.ids.shape[1]))

        along = np.arange(len(row))
        for level, node in enumerate(nodes):
            seen = blind(along)
            if tree.n_children[node] > 1:
                columns = np.searchsorted(wanted, ends[number[along]] + level)
                seen = self._gather(logits, row[along], columns, places.node[along])
            tokens = write(along, seen)
            if level < len(trunk):
                along = along[tokens == trunk[level]]
                shown[along] += 1
        for n in np.flatnonzero(shown < len(trunk)).tolist():
            after = int(ends[number[n]]) + 1
            of_row = branches[row[n]].of
            of_row[after + shown[n] : after + len(trunk)] = [_HIDDEN] * (len(trunk) - int(shown[n]))

        while True:
            while len(single := np.flatnonzero((places.node >= 0) & (tree.n_children[places.node] == 1))):
                write(single, blind(single))
            unfinished = np.flatnonzero(places.node >= 0)
            if not len(unfinished):
                break
            feeds: list[list[int]] = [[] for _ in self.rows]
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
                    feed.append(self.decoder.pad)
                    branch.of.append(_HIDDEN)
                    branch.steps.append(0)
            wanted = np.unique(columns)
            logits = self._pass(feeds, wanted, branches)
            self.fed = self.fed + np.array(list(map(len, feeds)))
            seen = self._gather(logits, row[unfinished], np.searchsorted(wanted, columns), places.node[unfinished])
            write(unfinished, seen)
        for index, each in enumerate(self.rows):
            each.values[:] = places.value[index * N_ACTIONS : (index + 1) * N_ACTIONS]

    def _show_last_words(self, said: np.ndarray) -> None:
        """Show words that the longest possible text forced behind the last token that was shown."""
        unfed = [
            row.tokens[fed - self.n_prompt : n] for row, fed, n in zip(self.rows, self.fed.tolist(), said, strict=True)
        ]
        if any(unfed):
            self._pass([feed or [self.decoder.pad] for feed in unfed], np.zeros(1, dtype=np.int64))


@dataclass
class _Branches:
    """The branches of one row's tokens.

    Attributes:
        trunk: the place of the first token that is in a branch.
        of: the branch of every token from there on, ``_HIDDEN`` for those that no token may see.
        steps: how far each stands behind the trunk.
    """

    trunk: int
    of: list[int]
    steps: list[int]
