"""Answers in few forward passes, the same text as token by token.

What is known before the model speaks is never asked for one token at a time:

* The prompt up to the picture is the same for every picture: its keys and values are computed once and kept.
* Tokens that the grammar forces go through together with the token before them.
* Words are guessed (``drafts``) and checked: one pass reads several tokens, those the model would not have written are
  dropped, and the first of its own takes their place. So the text is exactly the model's.
* Numbers in a row are guessed and read all at once, until all guesses are right (``in_a_row``).
* Numbers side by side need no guesses: they are read in one or two passes (``beside``). With no words before them they
  even go through together with the prompt.

Rows of a batch move on at their own pace (``row_cache``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from semanticface.arkit import N_ACTIONS
from semanticface.errors import ModelError
from semanticface.inference.batch import Batch, PrefixCache
from semanticface.inference.decoder import AnswerDecoder, AnswerState, DecodedAnswer
from semanticface.inference.ngram_draft import NgramDraft, typical_expressions
from semanticface.inference.number_decoding import decode_parallel, decode_sequential
from semanticface.semantics.analysis import describe_many
from semanticface.semantics.answer import ANALYSIS_END, ARKIT_START, format_answer

_GUESSED = {1: 40, 4: 12, 12: 6}
"""Most tokens of words guessed ahead of a pass, by the rows of a batch from which on: many rows fill a machine."""

_LIKELY = 0.02
"""Guesses less likely than this cost more to show than they save."""

_OWN = 2
"""How often a model's own words count, beside what Stage I would say."""

_KNOWN_INPUTS = {"input_ids", "attention_mask", "pixel_values", "pixel_attention_mask", "image_grid_thw",
                 "mm_token_type_ids", "image_sizes"}  # fmt: skip


class DecodingEngine:
    """Reads answers off one model; keep it for as long as the model's weights stay as they are.

    Args:
        decoder: the rules.
        model: a transformers model, or a PeftModel, whose tokenizer is the decoder's.
    """

    def __init__(self, decoder: AnswerDecoder, model: Any) -> None:
        self.decoder = decoder
        self.model = model
        self._prefix: PrefixCache | None = None
        self._drafts: NgramDraft | None = None
        self._last_values = np.zeros(N_ACTIONS, dtype=np.int64)

    def read(
        self,
        inputs: Mapping[str, Any],
        *,
        temperature: float = 0.0,
        seeds: Sequence[int | Sequence[int]] | None = None,
        repeats: int = 1,
    ) -> list[str]:
        """Return the texts of ``write``."""
        answers = self.write(inputs, temperature=temperature, seeds=seeds, repeats=repeats)
        return [answer.text for answer in answers]

    def write(
        self,
        inputs: Mapping[str, Any],
        *,
        temperature: float = 0.0,
        seeds: Sequence[int | Sequence[int]] | None = None,
        repeats: int = 1,
    ) -> list[DecodedAnswer]:
        """Write ``repeats`` answers for each row of ``inputs``, those of one row beside each other.

        A row asked several times goes through the model's picture tower, and its prompt through the model, once.

        Args:
            inputs: what ``model.generate`` takes; ``input_ids`` is int64[B, T].
            temperature: 0 takes the best token; above 0 samples.
            seeds: one for each answer.
            repeats: answers a row.

        Returns:
            B x repeats answers.

        Raises:
            ValueError: a negative temperature, or sampling without one seed for each answer.
            ModelError: numbers are to be read side by side, and the model's attention does not allow it.
        """
        obstacle = self.obstacle(inputs)
        if obstacle:
            if self.decoder.numbers == "parallel":
                raise ModelError(f"numbers cannot be read side by side: {obstacle}. Train with numbers: sequential.")
            repeated = {name: value.repeat_interleave(repeats, 0) for name, value in inputs.items()}
            return self.decoder.write_token_by_token(self.model, repeated, temperature=temperature, seeds=seeds)
        rows = self.decoder.start(len(inputs["input_ids"]) * repeats, temperature, seeds)
        if rows:
            with torch.inference_mode():
                self._fill(dict(inputs), rows, repeats, temperature)
        return [self.decoder.written(row) for row in rows]

    def _fill(self, inputs: dict[str, Any], rows: list[AnswerState], repeats: int, temperature: float) -> None:
        prefix = self.prefix(inputs["input_ids"][0].tolist())
        batch = Batch(self.decoder, self.model, prefix, inputs, rows, repeats, temperature)
        if self.decoder.mode == "full":
            _write_words(batch, self.drafts())
        if self.decoder.numbers == "parallel":
            decode_parallel(batch)
        else:
            self._last_values = decode_sequential(batch, self._last_values)

    def drafts(self) -> NgramDraft:
        """Return what is known of the words so far; at first, what Stage I would say of some expressions."""
        if self._drafts is None:
            self._drafts = NgramDraft()
            encode = self.decoder.tokenizer
            first = list(self.decoder.number_tokens.keys[0])
            values = typical_expressions()
            for analysis in describe_many(values, emotion=self.decoder.emotion):
                words = format_answer(np.zeros(N_ACTIONS), analysis).partition(ANALYSIS_END + ARKIT_START)[0]
                self._drafts.learn([*encode(words, add_special_tokens=False)["input_ids"], *first])
        return self._drafts

    def prefix(self, ids: list[int]) -> PrefixCache | None:
        """Return how a prompt begins, up to the picture; read when it is new."""
        config = self.model.config
        picture = getattr(config, "image_token_id", getattr(config, "image_token_index", None))
        shared = ids[: ids.index(picture)] if picture in ids else []
        if shared and (self._prefix is None or self._prefix.ids != shared):
            self._prefix = PrefixCache.of(self.model, shared)
        return self._prefix if shared else None

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


def _write_words(batch: Batch, drafts: NgramDraft) -> None:
    """Write the words of every row, and what follows them up to the first number."""
    for row in batch.rows:
        batch.settle(row)
    while busy := [index for index, row in enumerate(batch.rows) if not batch.decoder.words_done(row)]:
        most = [count for rows, count in _GUESSED.items() if rows <= len(busy)][-1]
        feeds, parents, known = [], [], []
        for index in busy:
            row = batch.rows[index]
            unfed = row.tokens[batch.fed[index] - batch.n_prompt :]
            tokens, before = drafts.guess(row.tokens, most, _LIKELY)
            feeds.append(unfed + tokens)
            # A guess whose parent is -1 follows the last token known.
            parents.append([*range(-1, len(unfed) - 1), *(len(unfed) + parent for parent in before)])
            known.append(len(unfed))
        first = min(known) - 1
        live = np.array(busy)
        wanted = np.arange(first, max(map(len, feeds)))
        logits = batch.show(feeds, wanted, parents=parents, live=live).float().cpu().numpy()
        kept = [
            _check(batch, batch.rows[index], feed, before, n_known, seen, first)
            for index, feed, before, n_known, seen in zip(busy, feeds, parents, known, logits, strict=True)
        ]
        batch.advance(live, kept)
    for row in batch.rows:
        drafts.learn(row.tokens, _OWN)


def _check(
    batch: Batch, row: AnswerState, feed: list[int], parents: list[int], known: int, logits: np.ndarray, first: int
) -> list[int]:
    """Write what the model says to a feed whose tokens behind ``known`` are guesses.

    Returns:
        Which tokens of the feed are part of the answer, in order.
    """
    guesses = {(parents[index], feed[index]): index for index in range(known, len(feed))}
    kept = list(range(known))
    while row.forced or not batch.decoder.words_done(row):
        seen = logits[kept[-1] - first]
        token = row.forced[0] if row.forced else batch.decoder.choose_word(row, seen, batch.temperature)
        batch.decoder.append(row, token)
        guess = guesses.get((kept[-1], token))
        if guess is None:
            batch.settle(row)
            break
        kept.append(guess)
    return kept
