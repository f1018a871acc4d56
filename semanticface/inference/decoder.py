"""Constrained decoding: whatever the weights and the temperature, what comes out is a valid canonical answer.

An answer is words and numbers. The words are written under a grammar (``grammar``), token by token, each the model's
best that the grammar allows; text that the grammar leaves no choice about is forced as the tokenizer itself would write
it. The numbers follow fixed keys, and each is read off the model's distribution over the 101 texts it can be
(``numbers``). Every token is at least one byte of a text of bounded length, so an answer always ends.

``AnswerDecoder`` knows the rules. ``reader.Reader`` applies them in few forward passes; ``write_token_by_token``
applies them through transformers' own ``generate``, one token a pass, for models whose attention the reader does not
know and as the measure of what it saves.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

import llguidance.hf
import llguidance.numpy
import numpy as np
import torch
from llguidance import LLMatcher
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
)

from semanticface.arkit import N_ACTIONS, NAMES
from semanticface.errors import ModelError
from semanticface.inference.number_readout import N_VALUES, NumberStates, NumberTrie, Readout
from semanticface.models.answer_tokens import Numbers, NumberTokens
from semanticface.semantics.answer import ANALYSIS_END, ARKIT_START, FIRST_KEY, NUMBER_TEXTS
from semanticface.semantics.grammar import SLICES, analysis_grammar, max_answer_bytes

Mode = Literal["full", "numbers"]
"""What is written: words and numbers, or the numbers alone."""

_log = logging.getLogger(__name__)


@dataclass
class AnswerState:
    """One answer being written.

    Attributes:
        matcher: the grammar's state within the words; None where none are written.
        rng: luck of the words.
        draws: float64[52, tokens of a number], luck of the numbers.
        tokens: what is written so far, up to the key of the first number.
        forced: tokens that come next whatever the model thinks.
        text: the bytes of ``tokens``.
        values: int64[52] in hundredths, -1 where not yet read.
        shares: float32[52, 101], the model's distribution of each number that is read; see
            ``semanticface.inference.number_readout``.
    """

    matcher: LLMatcher | None
    rng: np.random.Generator
    draws: np.ndarray
    tokens: list[int] = field(default_factory=list)
    forced: deque[int] = field(default_factory=deque)
    text: bytearray = field(default_factory=bytearray)
    values: np.ndarray = field(default_factory=lambda: np.full(N_ACTIONS, -1))
    shares: np.ndarray = field(default_factory=lambda: np.zeros((N_ACTIONS, N_VALUES), dtype=np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class DecodedAnswer:
    """An answer, and what the model made of each number.

    Attributes:
        text: canonical.
        shares: float32[52, 101], the distribution that each number was read off, as far as it is known; the probability
            of each value from 0.00 to 1.00 (see ``semanticface.inference.number_readout``).
    """

    text: str
    shares: np.ndarray


class AnswerDecoder:
    """The rules by which answers are written; one for each tokenizer and recipe.

    Args:
        tokenizer: any fast tokenizer.
        emotion: whether answers carry ``emotional_implication``.
        readout: how numbers are read at temperature 0; see ``semanticface.inference.number_readout``.
        numbers: how the numbers are laid out before the model, as it was trained; see
            ``semanticface.models.answer_tokens``.
        mode: ``full`` writes words and numbers, ``numbers`` no words.

    Attributes:
        max_new_tokens: bound within which every answer ends, the end token included.
        keys: the tokens before each of the 52 numbers; those of the first end the words, where there are any.
        tree: how the numbers are spelled.

    Raises:
        ModelError: the tokenizer is not a fast one, has no end token, or cannot spell the answers;
            or the readout or the layout is unknown.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        *,
        emotion: bool = True,
        readout: Readout = "greedy",
        numbers: Numbers = "sequential",
        mode: Mode = "full",
    ) -> None:
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise ModelError(
                f"{type(tokenizer).__name__} is not a fast tokenizer: save the model with a tokenizer.json."
            )
        for name, value, known in (("readout", readout, Readout), ("numbers", numbers, Numbers), ("mode", mode, Mode)):
            if value not in get_args(known):
                raise ModelError(f"{name} {value!r} is unknown: it must be {' or '.join(get_args(known))}.")
        if tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer names no end token: set eos_token in its tokenizer_config.json.")
        self.end = int(tokenizer.eos_token_id)
        self.pad = self.end if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        self.emotion = emotion
        self.readout: Readout = readout
        self.numbers: Numbers = numbers
        self.mode: Mode = mode
        self.max_new_tokens = max_answer_bytes(emotion=emotion) + 1
        self.tokenizer = tokenizer
        self.number_tokens = NumberTokens.of(tokenizer)
        opening = self.number_tokens.keys[0] if mode == "full" else self.number_tokens.opening
        self.keys = (opening, *self.number_tokens.keys[1:])
        self.tree = NumberTrie(self.number_tokens.spelled)
        self._vocabulary = llguidance.hf.from_tokenizer(tokenizer, slices=list(SLICES))
        self._matcher = LLMatcher(self._vocabulary, analysis_grammar(emotion=emotion))
        if self._matcher.is_error():
            raise ModelError(f"the tokenizer cannot spell answers: {self._matcher.get_error()}")
        self._pieces: dict[int, bytes] = {}

    def write_token_by_token(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        *,
        temperature: float = 0.0,
        seeds: Sequence[int | Sequence[int]] | None = None,
    ) -> list[DecodedAnswer]:
        """Write the same answers through ``model.generate``, one token a forward pass; prompts padded on the left.

        Raises:
            ValueError: a negative temperature, or sampling without one seed for each row.
            ModelError: numbers are to be read side by side.
        """
        if self.numbers == "parallel":
            raise ModelError("numbers read side by side are not written token by token: choose sequential.")
        writer = _Writer(self, self.start(len(inputs["input_ids"]), temperature, seeds), temperature)
        with torch.inference_mode():
            model.generate(
                **inputs, generation_config=self.generation_config(), logits_processor=LogitsProcessorList([writer])
            )
        return [self.written(row) for row in writer.rows]

    def generation_config(self) -> GenerationConfig:
        """Return the settings with which ``model.generate`` takes the best token that a processor allows."""
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            eos_token_id=self.end,
            pad_token_id=self.pad,
            use_cache=True,
            # These keep a model's own generation settings out of its scores.
            do_sample=False,
            num_beams=1,
            temperature=1.0,
            top_k=50,
            top_p=1.0,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
        )

    def start(
        self, n_rows: int, temperature: float = 0.0, seeds: Sequence[int | Sequence[int]] | None = None
    ) -> list[AnswerState]:
        """Return rows with nothing written.

        Raises:
            ValueError: a negative temperature, or sampling without one seed for each row.
        """
        if not temperature >= 0:
            raise ValueError(f"temperature is {temperature}: give 0 or more")
        if seeds is None and not temperature:
            seeds = [0] * n_rows
        if seeds is None or len(seeds) != n_rows:
            raise ValueError(f"sampling {n_rows} rows needs {n_rows} seeds")
        rows = []
        for seed in seeds:
            rng = np.random.default_rng(seed)
            draws = rng.random((N_ACTIONS, self.tree.depth))
            row = AnswerState(self._matcher.deep_copy() if self.mode == "full" else None, rng, draws)
            if row.matcher is None:
                row.forced.extend(self.number_tokens.opening)
            else:
                self._force(row)
            rows.append(row)
        return rows

    def words_done(self, row: AnswerState) -> bool:
        """Return whether the next token is the first of the first number."""
        return not row.forced and (row.matcher is None or row.matcher.is_accepting())

    def mask(self, row: AnswerState) -> np.ndarray:
        """Return the tokens the grammar allows next among the words; bool[vocabulary]."""
        assert row.matcher is not None
        bits = llguidance.numpy.allocate_token_bitmask(1, self._vocabulary.vocab_size)
        llguidance.numpy.fill_next_token_bitmask(row.matcher, bits)
        return np.unpackbits(bits.view(np.uint8), bitorder="little")[: self._vocabulary.vocab_size].astype(bool)

    def choose_word(self, row: AnswerState, logits: np.ndarray, temperature: float) -> int:
        """Return the next token of the words; logits: float[V], any value, NaN included."""
        if not temperature:
            best = int(logits.argmax())  # the first NaN, where there is one
            if logits[best] > -np.inf and self._allowed(row, best):
                return best
        ids = np.flatnonzero(self.mask(row)[: len(logits)])
        scores = np.nan_to_num(logits[ids], nan=-np.inf)
        if not temperature:
            return int(ids[scores.argmax()])
        limits = np.finfo(np.float32)
        scores = np.clip(scores.astype(np.float64), limits.min, limits.max)
        heights = np.cumsum(np.exp((scores - scores.max()) / temperature))
        drawn = np.searchsorted(heights, row.rng.random() * heights[-1], side="right")
        return int(ids[min(drawn, len(ids) - 1)])

    def _allowed(self, row: AnswerState, token: int) -> bool:
        """Return whether the grammar allows a token next: much cheaper than asking which it allows."""
        assert row.matcher is not None
        return token < self._vocabulary.vocab_size and bool(row.matcher.validate_tokens([token]))

    def append(self, row: AnswerState, token: int) -> None:
        """Write ``token``, which is the next forced one or one the grammar allows."""
        if row.forced:
            row.forced.popleft()
        else:
            assert row.matcher is not None
            if row.matcher.consume_token(token):
                self._force(row)
            if row.matcher.is_error():
                raise RuntimeError(f"the grammar refused a token it had allowed: {row.matcher.get_error()}")
        row.tokens.append(token)
        row.text += self._piece(token)

    def n_said(self, row: AnswerState) -> int:
        """Return how many of a row's tokens are words, without those that end them and name the first number."""
        if row.matcher is None:
            return 0
        length, count = 0, 0
        for token in row.tokens:
            length += len(self._piece(token))
            if length > len(row.text) - len(FIRST_KEY):
                break
            count += 1
        return count

    def written(self, row: AnswerState) -> DecodedAnswer:
        """Return the answer of a row whose numbers are all read."""
        words = "{"
        if row.matcher is not None:
            words = row.text[: -len(FIRST_KEY)].decode("ascii", errors="replace") + ANALYSIS_END
        numbers = [f'"{name}":{NUMBER_TEXTS[value]}' for name, value in zip(NAMES, row.values.tolist(), strict=True)]
        return DecodedAnswer(f"{words}{ARKIT_START}{','.join(numbers)}}}}}", row.shares)

    def _force(self, row: AnswerState) -> None:
        assert row.matcher is not None
        forced = row.matcher.compute_ff_tokens()
        if forced and row.matcher.consume_tokens(forced):
            row.forced.extend(forced)

    def _piece(self, token: int) -> bytes:
        if token not in self._pieces:
            self._pieces[token] = self._vocabulary.decode_bytes([token])
        return self._pieces[token]


class _Writer(LogitsProcessor):
    """Picks every token of a batch inside ``generate``: leaves one finite score a row."""

    def __init__(self, decoder: AnswerDecoder, rows: list[AnswerState], temperature: float) -> None:
        self.decoder = decoder
        self.temperature = temperature
        self.rows = rows
        self._numbers: list[_Numbers | None] = [None] * len(rows)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        logits = scores.float().cpu().numpy()
        tokens = [self._next(index, each) for index, each in enumerate(logits)]
        picked = torch.full_like(scores, -torch.inf)
        picked.scatter_(1, torch.tensor(tokens, device=scores.device)[:, None], 0.0)
        return cast(torch.FloatTensor, picked)

    def _next(self, index: int, logits: np.ndarray) -> int:
        row = self.rows[index]
        if self.decoder.words_done(row):
            numbers = self._numbers[index] = self._numbers[index] or _Numbers(self.decoder, row)
            return numbers.next(logits, self.temperature)
        token = row.forced[0] if row.forced else self.decoder.choose_word(row, logits, self.temperature)
        self.decoder.append(row, token)
        return token


class _Numbers:
    """The numeric half of one answer, one token at a time."""

    def __init__(self, decoder: AnswerDecoder, row: AnswerState) -> None:
        self.decoder = decoder
        self.row = row
        self.forced: deque[int] = deque()
        self.slot = 0
        self.level = 0
        self.place = NumberStates.start(1)

    def next(self, logits: np.ndarray, temperature: float) -> int:
        if self.forced:
            return self.forced.popleft()
        if self.slot == N_ACTIONS:
            return self.decoder.end
        tree = self.decoder.tree
        draws = self.row.draws[self.slot, self.level : self.level + 1]
        seen = logits[tree.ids[self.place.node]]
        token = tree.choose(self.place, seen, readout=self.decoder.readout, temperature=temperature, draws=draws)
        self.level += 1
        if self.place.node[0] < 0:
            self.row.values[self.slot], self.row.shares[self.slot] = self.place.value[0], self.place.shares[0]
            self.slot, self.level, self.place = self.slot + 1, 0, NumberStates.start(1)
            keys = self.decoder.number_tokens
            self.forced.extend(keys.closing if self.slot == N_ACTIONS else keys.keys[self.slot])
        return int(token[0])
