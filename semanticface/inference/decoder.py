"""Constrained decoding: whatever the weights and the temperature, the output is a valid canonical answer.

An answer is an analysis and 52 numbers. The analysis is decoded under a grammar (``grammar``), token by token;
text that the grammar leaves no choice about is forced, in the tokens the tokenizer itself would use. The numbers follow
fixed keys, and each is read off the model's distribution over its 101 values (``number_readout``). Every token is at
least one byte of a text of bounded length, so an answer always ends.

``AnswerDecoder`` holds the rules. ``engine.DecodingEngine`` applies them in few forward passes;
``generate_token_by_token`` applies them through transformers' ``generate``, for models whose attention the engine does
not support and as the baseline of its speed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
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

from semanticface.arkit import N_ACTIONS, N_POSE, NAMES
from semanticface.errors import ModelError
from semanticface.inference.number_readout import N_VALUES, NumberStates, NumberTrie, Readout
from semanticface.models.answer_tokens import Numbers, NumberTokens
from semanticface.semantics.analysis import Analysis
from semanticface.semantics.answer import (
    ANALYSIS_END,
    ARKIT_START,
    FIRST_KEY,
    NUMBER_TEXTS,
    POSE_KEYS,
    POSE_TEXTS,
    format_answer,
)
from semanticface.semantics.grammar import SLICES, analysis_grammar, max_answer_bytes, statements_grammar
from semanticface.semantics.statements import statements

Mode = Literal["full", "numbers"]
"""Analysis and numbers, or the numbers alone."""

Order = Literal["numbers", "analysis"]
"""What of a full answer is decoded first. The text has the analysis first in either case.

``numbers``: the numbers are read from the picture alone, as in mode ``numbers``. The analysis is then decoded among the
phrases that hold for them (``semantics.statements``), so it cannot contradict them. Parallel numbers only.
``analysis``: the analysis is decoded freely, and the numbers follow from the picture and the analysis.
"""

_log = logging.getLogger(__name__)


@dataclass
class AnswerState:
    """One answer while it is decoded.

    Attributes:
        matcher: the grammar's state in the analysis; None without one, and before the numbers that come first.
        rng: samples the analysis.
        uniforms: float64[N, tokens of a number] in [0, 1), sample the numbers by inverse CDF.
        tokens: decoded so far, up to the key of the first number.
        forced: tokens that come next whatever the model's logits.
        text: the bytes of ``tokens``.
        values: int64[N], 0 to 100, -1 until decoded; N is 52, or 61 with the pose.
        probs: float32[N, 101], the model's distribution of each decoded number; see
            ``semanticface.inference.number_readout``.
    """

    matcher: LLMatcher | None
    rng: np.random.Generator
    uniforms: np.ndarray
    values: np.ndarray
    probs: np.ndarray
    tokens: list[int] = field(default_factory=list)
    forced: deque[int] = field(default_factory=deque)
    text: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True, eq=False)
class DecodedAnswer:
    """An answer, and the model's distribution of each number.

    Attributes:
        text: canonical.
        probs: float32[52, 101], probability of each value from 0.00 to 1.00, as far as it is known (see
            ``semanticface.inference.number_readout``).
        pose_probs: float32[9, 101], likewise of each rotation from -1.00 to 1.00; None where the model predicts none.
    """

    text: str
    probs: np.ndarray
    pose_probs: np.ndarray | None = None


class AnswerDecoder:
    """The rules of decoding for one tokenizer and recipe.

    Args:
        tokenizer: any fast tokenizer.
        emotion: whether answers carry ``emotional_implication``.
        readout: how numbers are read at temperature 0; see ``semanticface.inference.number_readout``.
        numbers: the layout of the numbers that the model was trained with; see ``semanticface.models.answer_tokens``.
        mode: ``full`` decodes analysis and numbers, ``numbers`` the numbers alone.
        order: what is decoded first in mode ``full``.
        pose: whether the model also predicts the pose, in parallel.

    Attributes:
        max_new_tokens: within which every answer ends, the end token included.
        keys: the tokens before each of the 52 or 61 numbers; the first key also ends the analysis, if any.
        trie: the token spellings of the numbers.

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
        order: Order = "analysis",
        pose: bool = False,
    ) -> None:
        if pose and numbers != "parallel":
            raise ModelError("the pose is predicted with parallel numbers only: leave it out of the model's recipe.")
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise ModelError(
                f"{type(tokenizer).__name__} is not a fast tokenizer: save the model with a tokenizer.json."
            )
        for name, value, known in (
            ("readout", readout, Readout),
            ("numbers", numbers, Numbers),
            ("mode", mode, Mode),
            ("order", order, Order),
        ):
            if value not in get_args(known):
                raise ModelError(f"{name} {value!r} is unknown: it must be {' or '.join(get_args(known))}.")
        if order == "numbers" and numbers != "parallel":
            raise ModelError("only parallel numbers can be decoded before the analysis: leave order out.")
        if tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer has no end token: set eos_token in its tokenizer_config.json.")
        self.eos_token_id = int(tokenizer.eos_token_id)
        self.pad_token_id = self.eos_token_id if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        self.emotion = emotion
        self.readout: Readout = readout
        self.numbers: Numbers = numbers
        self.mode: Mode = mode
        self.numbers_first = mode == "full" and order == "numbers"
        self.max_new_tokens = max_answer_bytes(emotion=emotion, pose=pose) + 1
        self.tokenizer = tokenizer
        self.number_tokens = NumberTokens.from_tokenizer(tokenizer)
        analysis_first = mode == "full" and order == "analysis"
        opening = self.number_tokens.keys[0] if analysis_first else self.number_tokens.opening
        self.n_numbers = N_ACTIONS + (N_POSE if pose else 0)
        self.keys = (opening, *self.number_tokens.keys[1 : self.n_numbers])
        self.trie = NumberTrie(self.number_tokens.value_tokens, self.number_tokens.pose_value_tokens if pose else ())
        self._vocabulary = llguidance.hf.from_tokenizer(tokenizer, slices=list(SLICES))
        self._free = self._matcher(analysis_grammar(emotion=emotion))
        self._pieces: dict[int, bytes] = {}

    def generate_token_by_token(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        *,
        temperature: float = 0.0,
        seeds: Sequence[int | Sequence[int]] | None = None,
        change_numbers: Callable[[list[AnswerState]], None] | None = None,
    ) -> list[DecodedAnswer]:
        """Decode through ``model.generate``, one token a forward pass; prompts are padded on the left."""
        if self.numbers == "parallel":
            raise ModelError("parallel numbers cannot be decoded token by token: choose sequential.")
        processor = _AnswerLogitsProcessor(self, self.start(len(inputs["input_ids"]), temperature, seeds), temperature)
        with torch.inference_mode():
            model.generate(
                **inputs, generation_config=self.generation_config(), logits_processor=LogitsProcessorList([processor])
            )
        if change_numbers is not None:
            change_numbers(processor.rows)
        return [self.finish(row) for row in processor.rows]

    def generation_config(self) -> GenerationConfig:
        """Return settings for ``model.generate`` that take the best token a logits processor allows."""
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            eos_token_id=self.eos_token_id,
            pad_token_id=self.pad_token_id,
            use_cache=True,
            # Override the model's own generation settings.
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
        """Return empty answers; a ValueError for a negative temperature, or sampling without a seed for each."""
        if not temperature >= 0:
            raise ValueError(f"temperature is {temperature}: give 0 or more")
        if seeds is None and not temperature:
            seeds = [0] * n_rows
        if seeds is None or len(seeds) != n_rows:
            raise ValueError(f"sampling {n_rows} rows needs {n_rows} seeds")
        rows = []
        for seed in seeds:
            rng = np.random.default_rng(seed)
            row = AnswerState(
                self._free.deep_copy() if self.mode == "full" and not self.numbers_first else None,
                rng,
                uniforms=rng.random((self.n_numbers, self.trie.depth)),
                values=np.full(self.n_numbers, -1),
                probs=np.zeros((self.n_numbers, N_VALUES), dtype=np.float32),
            )
            if row.matcher is not None:
                self._force(row)
            elif not self.numbers_first:
                row.forced.extend(self.number_tokens.opening)
            rows.append(row)
        return rows

    def start_analysis(self, row: AnswerState) -> None:
        """Let a row whose numbers came first continue with an analysis that holds for them."""
        found = statements(row.values[:N_ACTIONS], row.probs[:N_ACTIONS], emotion=self.emotion)
        row.matcher = self._matcher(statements_grammar(found))
        self._force(row)

    def give_analysis(self, row: AnswerState, analysis: Analysis) -> None:
        """Let a new row whose analysis comes first have this one, and continue with its numbers."""
        text = format_answer(np.zeros(N_ACTIONS), analysis).partition(ANALYSIS_END + ARKIT_START)[0]
        tokens = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], *self.keys[0]]
        row.matcher = self._free.deep_copy()
        if not row.matcher.consume_tokens(tokens):
            raise ValueError(f"the grammar does not allow this analysis: {text[:80]}…")
        row.forced = deque(tokens)

    def _matcher(self, grammar: str) -> LLMatcher:
        matcher = LLMatcher(self._vocabulary, grammar)
        if matcher.is_error():
            raise ModelError(f"the tokenizer cannot spell answers: {matcher.get_error()}")
        return matcher

    def analysis_done(self, row: AnswerState) -> bool:
        """Return whether the next token is the first of the first number."""
        return not row.forced and (row.matcher is None or row.matcher.is_accepting())

    def allowed_tokens(self, row: AnswerState) -> np.ndarray:
        """Return the tokens the grammar allows next in the analysis; bool[V]."""
        assert row.matcher is not None
        bits = llguidance.numpy.allocate_token_bitmask(1, self._vocabulary.vocab_size)
        llguidance.numpy.fill_next_token_bitmask(row.matcher, bits)
        return np.unpackbits(bits.view(np.uint8), bitorder="little")[: self._vocabulary.vocab_size].astype(bool)

    def choose_token(self, row: AnswerState, logits: np.ndarray, temperature: float) -> int:
        """Return the next token of the analysis; logits: float[V], any value, NaN included."""
        if not temperature:
            best = int(logits.argmax())  # the first NaN, where there is one
            if logits[best] > -np.inf and self._allowed(row, best):
                return best
        ids = np.flatnonzero(self.allowed_tokens(row)[: len(logits)])
        scores = np.nan_to_num(logits[ids], nan=-np.inf)
        if not temperature:
            return int(ids[scores.argmax()])
        limits = np.finfo(np.float32)
        scores = np.clip(scores.astype(np.float64), limits.min, limits.max)
        cumulative = np.cumsum(np.exp((scores - scores.max()) / temperature))
        sampled = np.searchsorted(cumulative, row.rng.random() * cumulative[-1], side="right")
        return int(ids[min(sampled, len(ids) - 1)])

    def _allowed(self, row: AnswerState, token: int) -> bool:
        """Return whether the grammar allows one token next: much cheaper than ``allowed_tokens``."""
        assert row.matcher is not None
        return token < self._vocabulary.vocab_size and bool(row.matcher.validate_tokens([token]))

    def append(self, row: AnswerState, token: int) -> None:
        """Append ``token``, the next forced one or one that the grammar allows."""
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

    def n_analysis_tokens(self, row: AnswerState) -> int:
        """Return how many of a row's tokens are analysis, without those that end it and name the first number."""
        if row.matcher is None:
            return 0
        length, count = 0, 0
        for token in row.tokens:
            length += len(self._piece(token))
            if length > len(row.text) - len(FIRST_KEY):
                break
            count += 1
        return count

    def finish(self, row: AnswerState) -> DecodedAnswer:
        """Return the answer of a row whose numbers are all decoded."""
        analysis = "{"
        if row.matcher is not None:
            analysis = row.text[: -len(FIRST_KEY)].decode("ascii", errors="replace") + ANALYSIS_END
        values = row.values.tolist()
        numbers = ",".join(
            [f'"{name}":{NUMBER_TEXTS[value]}' for name, value in zip(NAMES, values[:N_ACTIONS], strict=True)]
        )
        rotations = zip(POSE_KEYS, values[N_ACTIONS:], strict=False)
        numbers += "".join([key + POSE_TEXTS[value] for key, value in rotations])
        pose_probs = row.probs[N_ACTIONS:] if len(values) > N_ACTIONS else None
        return DecodedAnswer(f"{analysis}{ARKIT_START}{numbers}}}}}", row.probs[:N_ACTIONS], pose_probs)

    def _force(self, row: AnswerState) -> None:
        assert row.matcher is not None
        forced = row.matcher.compute_ff_tokens()
        if forced and row.matcher.consume_tokens(forced):
            row.forced.extend(forced)

    def _piece(self, token: int) -> bytes:
        if token not in self._pieces:
            self._pieces[token] = self._vocabulary.decode_bytes([token])
        return self._pieces[token]


class _AnswerLogitsProcessor(LogitsProcessor):
    """Chooses every token of a batch inside ``generate``: leaves one finite score a row."""

    def __init__(self, decoder: AnswerDecoder, rows: list[AnswerState], temperature: float) -> None:
        self.decoder = decoder
        self.temperature = temperature
        self.rows = rows
        self._numbers: list[_NumberWriter | None] = [None] * len(rows)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        logits = scores.float().cpu().numpy()
        tokens = [self._next(index, each) for index, each in enumerate(logits)]
        chosen = torch.full_like(scores, -torch.inf)
        chosen.scatter_(1, torch.tensor(tokens, device=scores.device)[:, None], 0.0)
        return cast(torch.FloatTensor, chosen)

    def _next(self, index: int, logits: np.ndarray) -> int:
        row = self.rows[index]
        if self.decoder.analysis_done(row):
            numbers = self._numbers[index] = self._numbers[index] or _NumberWriter(self.decoder, row)
            return numbers.next(logits, self.temperature)
        token = row.forced[0] if row.forced else self.decoder.choose_token(row, logits, self.temperature)
        self.decoder.append(row, token)
        return token


class _NumberWriter:
    """The numbers of one answer, one token at a time."""

    def __init__(self, decoder: AnswerDecoder, row: AnswerState) -> None:
        self.decoder = decoder
        self.row = row
        self.forced: deque[int] = deque()
        self.number = 0
        self.level = 0
        self.state = NumberStates.start(1)

    def next(self, logits: np.ndarray, temperature: float) -> int:
        if self.forced:
            return self.forced.popleft()
        if self.number == N_ACTIONS:
            return self.decoder.eos_token_id
        trie, state = self.decoder.trie, self.state
        token = trie.step(
            state,
            logits[trie.ids[state.node]],
            readout=self.decoder.readout,
            temperature=temperature,
            uniforms=self.row.uniforms[self.number, self.level : self.level + 1],
        )
        self.level += 1
        if state.node[0] < 0:
            self.row.values[self.number], self.row.probs[self.number] = state.value[0], state.probs[0]
            self.number, self.level, self.state = self.number + 1, 0, NumberStates.start(1)
            tokens = self.decoder.number_tokens
            self.forced.extend(tokens.closing if self.number == N_ACTIONS else tokens.keys[self.number])
        return int(token[0])
