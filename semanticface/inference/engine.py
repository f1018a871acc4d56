"""Decoding in few forward passes; the text is that of one token a pass, except where two tokens tie within rounding.

* The prompt before the image is the same for every image: its keys and values are computed once (prefix cache).
* Tokens that the grammar forces run together with the token before them.
* The analysis is decoded speculatively: an n-gram draft proposes tokens that the grammar allows, one forward pass
  verifies several, and the first one that the model would not have chosen is replaced by the model's own.
* Sequential numbers are drafted and verified all at once until every draft is right (``decode_sequential``).
* Parallel numbers need no draft: they take one or two forward passes (``decode_parallel``); without an analysis
  before them they even run together with the prompt.

Rows of a batch advance independently (``batch.RowCache``). Batch sizes and code paths round differently, so a tie may
resolve differently than token by token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from semanticface.arkit import N_ACTIONS
from semanticface.errors import ModelError
from semanticface.inference.batch import Batch, PrefixCache
from semanticface.inference.decoder import AnswerDecoder, AnswerState, DecodedAnswer
from semanticface.inference.ngram_draft import NgramDraft, typical_expressions
from semanticface.inference.number_decoding import decode_parallel, decode_sequential
from semanticface.semantics.analysis import Analysis, describe_many
from semanticface.semantics.answer import ANALYSIS_END, ARKIT_START, format_answer

_MAX_DRAFT = {1: 40, 4: 12, 12: 6}
"""Drafted tokens per row and forward pass, by the least number of active rows: many rows keep a machine busy anyway."""

_MIN_DRAFT_PROB = 0.02
"""Drafts less likely than this cost more to verify than they save."""

_OWN_WEIGHT = 2
"""Weight of the model's own analyses in the draft, relative to those of Stage I."""

ChangeNumbers = Callable[[list[AnswerState]], None]

_KNOWN_INPUTS = {"input_ids", "attention_mask", "pixel_values", "pixel_attention_mask", "image_grid_thw",
                 "mm_token_type_ids", "image_sizes"}  # fmt: skip


class DecodingEngine:
    """Decodes the answers of one model. Make a new one when the model's weights change.

    Args:
        decoder: the rules.
        model: a transformers model, or a PeftModel, with the decoder's tokenizer.
    """

    def __init__(self, decoder: AnswerDecoder, model: Any) -> None:
        self.decoder = decoder
        self.model = model
        self._prefix: PrefixCache | None = None
        self._draft: NgramDraft | None = None
        self._last_values = np.zeros(N_ACTIONS, dtype=np.int64)

    def generate_text(
        self,
        inputs: Mapping[str, Any],
        *,
        temperature: float = 0.0,
        seeds: Sequence[int | Sequence[int]] | None = None,
        repeats: int = 1,
    ) -> list[str]:
        """Return the texts of ``generate``."""
        answers = self.generate(inputs, temperature=temperature, seeds=seeds, repeats=repeats)
        return [answer.text for answer in answers]

    def generate(
        self,
        inputs: Mapping[str, Any],
        *,
        temperature: float = 0.0,
        seeds: Sequence[int | Sequence[int]] | None = None,
        repeats: int = 1,
        change_numbers: ChangeNumbers | None = None,
        explain: bool = True,
        analyses: Sequence[Analysis] | None = None,
    ) -> list[DecodedAnswer]:
        """Decode ``repeats`` answers for each row of ``inputs``; those of one row are consecutive.

        The image and the prompt of a row run through the model once, whatever ``repeats`` is.

        Args:
            inputs: what ``model.generate`` takes; ``input_ids`` is int64[B, T].
            temperature: 0 takes the best token; above 0 samples.
            seeds: one for each answer.
            repeats: answers a row.
            change_numbers: changes ``values`` and ``probs`` of the answers once they are decoded; an analysis that is
                decoded after its numbers follows the changed ones.
            explain: False leaves out an analysis that would be decoded after its numbers.
            analyses: taken for the model's own, one for each answer, where they come before the numbers.

        Returns:
            B x repeats answers.

        Raises:
            ValueError: a negative temperature, or sampling without one seed for each answer.
            ModelError: the layout is parallel, and the model's attention does not support it.
        """
        reason = self.unsupported(inputs)
        if reason:
            if self.decoder.numbers == "parallel":
                raise ModelError(f"numbers cannot be decoded in parallel: {reason}. Train with numbers: sequential.")
            repeated = {name: value.repeat_interleave(repeats, 0) for name, value in inputs.items()}
            return self.decoder.generate_token_by_token(
                self.model, repeated, temperature=temperature, seeds=seeds, change_numbers=change_numbers
            )
        rows = self.decoder.start(len(inputs["input_ids"]) * repeats, temperature, seeds)
        for row, analysis in zip(rows, analyses or (), strict=False):
            self.decoder.give_analysis(row, analysis)
        if rows:
            with torch.inference_mode():
                self._decode(dict(inputs), rows, repeats, temperature, change_numbers, explain)
        return [self.decoder.finish(row) for row in rows]

    def _decode(
        self,
        inputs: dict[str, Any],
        rows: list[AnswerState],
        repeats: int,
        temperature: float,
        change_numbers: ChangeNumbers | None,
        explain: bool,
    ) -> None:
        prefix = self.prefix(inputs["input_ids"][0].tolist())
        batch = Batch(self.decoder, self.model, prefix, inputs, rows, repeats, temperature)
        if self.decoder.mode == "full" and not self.decoder.numbers_first:
            _decode_analysis(batch, self.draft())
        if self.decoder.numbers == "parallel":
            decode_parallel(batch)
        else:
            self._last_values = decode_sequential(batch, self._last_values)
        if change_numbers is not None:
            change_numbers(rows)
        if self.decoder.numbers_first and explain:
            # The analysis follows the prompt alone: it overwrites the numbers in the cache.
            batch.n_cached[:] = batch.n_prompt
            for row in rows:
                self.decoder.start_analysis(row)
            _decode_analysis(batch, self.draft())

    def draft(self) -> NgramDraft:
        """Return the draft of analyses; it starts with what Stage I says of some typical expressions."""
        if self._draft is None:
            self._draft = NgramDraft()
            encode = self.decoder.tokenizer
            first_key = list(self.decoder.number_tokens.keys[0])
            values = typical_expressions()
            texts = [
                format_answer(np.zeros(N_ACTIONS), analysis).partition(ANALYSIS_END + ARKIT_START)[0]
                for analysis in describe_many(values, emotion=self.decoder.emotion)
            ]
            for ids in encode(texts, add_special_tokens=False)["input_ids"]:
                self._draft.update([*ids, *first_key])
        return self._draft

    def prefix(self, ids: list[int]) -> PrefixCache | None:
        """Return the cached prompt before the image, computed anew when it changes."""
        config = self.model.config
        image_token = getattr(config, "image_token_id", getattr(config, "image_token_index", None))
        shared = ids[: ids.index(image_token)] if image_token in ids else []
        if shared and (self._prefix is None or self._prefix.ids != shared):
            self._prefix = PrefixCache.compute(self.model, shared)
        return self._prefix if shared else None

    def unsupported(self, inputs: Mapping[str, Any]) -> str:
        """Return why the engine cannot run the model, empty if it can."""
        config = self.model.config
        text = config.get_text_config()
        layer_types = set(getattr(text, "layer_types", None) or ["full_attention"])
        unknown = set(inputs) - _KNOWN_INPUTS
        if unknown:
            return f"the model takes {', '.join(sorted(unknown))}"
        if layer_types != {"full_attention"} or config.is_encoder_decoder:
            return f"the model has layers of type {', '.join(sorted(layer_types))}"
        if text._attn_implementation not in ("sdpa", "eager"):
            return f"the attention {text._attn_implementation} takes no mask"
        if not bool(inputs["attention_mask"].all()):
            return "the prompts are not of one length"
        return ""


def _decode_analysis(batch: Batch, draft: NgramDraft) -> None:
    """Decode the analysis of every row, and what follows it up to the first number."""
    for row in batch.rows:
        batch.append_forced(row)
    while active := [index for index, row in enumerate(batch.rows) if not batch.decoder.analysis_done(row)]:
        max_draft = [count for rows, count in _MAX_DRAFT.items() if rows <= len(active)][-1]
        tokens, parents, n_known = [], [], []
        for index in active:
            row = batch.rows[index]
            uncached = row.tokens[batch.n_cached[index] - batch.n_prompt :]
            drafted, draft_parents = draft.propose(row.tokens, max_draft, _MIN_DRAFT_PROB, row.matcher)
            tokens.append(uncached + drafted)
            # A draft whose parent is -1 follows the last token known.
            parents.append([*range(-1, len(uncached) - 1), *(len(uncached) + parent for parent in draft_parents)])
            n_known.append(len(uncached))
        first = min(n_known) - 1
        rows = np.array(active)
        columns = np.arange(first, max(map(len, tokens)))
        logits = batch.forward(tokens, columns, parents=parents, active_rows=rows).float().cpu().numpy()
        accepted = [
            _verify(batch, batch.rows[index], row_tokens, row_parents, known, row_logits, first)
            for index, row_tokens, row_parents, known, row_logits in zip(
                active, tokens, parents, n_known, logits, strict=True
            )
        ]
        batch.accept(rows, accepted)
    for row in batch.rows:
        draft.update(row.tokens, _OWN_WEIGHT)


def _verify(
    batch: Batch,
    row: AnswerState,
    tokens: list[int],
    parents: list[int],
    n_known: int,
    logits: np.ndarray,
    first: int,
) -> list[int]:
    """Append the model's choices for as long as the draft, ``tokens[n_known:]``, contains them, and one more.

    Returns:
        The columns of ``tokens`` that are part of the answer, ascending.
    """
    drafted = {(parents[column], tokens[column]): column for column in range(n_known, len(tokens))}
    accepted = list(range(n_known))
    while row.forced or not batch.decoder.analysis_done(row):
        token_logits = logits[accepted[-1] - first]
        token = row.forced[0] if row.forced else batch.decoder.choose_token(row, token_logits, batch.temperature)
        batch.decoder.append(row, token)
        column = drafted.get((accepted[-1], token))
        if column is None:
            batch.append_forced(row)
            break
        accepted.append(column)
    return accepted
