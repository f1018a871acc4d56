"""Constrained decoding: whatever the weights and the temperature, what comes out is a valid canonical answer.

The grammar is the text of ``answer.format_answer`` and nothing else: fixed keys in fixed order, no free whitespace,
free text of bounded length in the analysis, 52 numbers from 0.00 to 1.00. llguidance turns it into token masks for
any fast tokenizer; text that the grammar leaves no choice about is forced as the tokenizer itself would write it, so
a model reads what it saw in training. Every token is at least one byte of a text of bounded length, so an answer
always ends within ``AnswerDecoder.max_new_tokens``.

Readout of the numbers at temperature 0:

* ``greedy``: the likeliest token.
* ``mean``: the expectation of the model's distribution over the values, rounded to two decimals (RAIL, arXiv
  2403.04182), which is best for squared error; the written number is that value, so later tokens condition on it.
  With one token for each number (nano) it is exact. Where a number takes several tokens (digits), the
  expectation runs along the one path that is written: see ``_Estimate``.

A temperature above 0 asks for a sample, so then numbers are sampled like every other token.
"""

from __future__ import annotations

import bisect
import json
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

from semanticface.arkit import NAMES, REGIONS
from semanticface.errors import ModelError

Readout = Literal["greedy", "mean"]

MAX_TEXT = {"gaze": 256, "mouth": 720}
"""Longest free text of the analysis fields that can be long, in characters; all of Stage I's texts fit."""

MAX_OTHER_TEXT = 192
"""Longest free text of every other analysis field."""

_NUMBER_BYTES = 4
_VALUES = {b"%.2f" % (step / 100): step / 100 for step in range(101)}
# Printable ASCII without quote and backslash; a text does not begin with a space.
_LETTER = r"[ !#-\[\]-~]"
_FIRST_LETTER = r"[!#-\[\]-~]"
# Which tokens are made of letters alone llguidance finds out once, not at each place in a text: 6 times as fast for a
# vocabulary of 56,000.
_SLICES = [f"{_LETTER}{{1,16}}", f"{_LETTER}{{1,64}}"]
_ARKIT_OPENS = '"},"arkit":{'  # found nowhere else: free text holds no quotes
_CLOSES = "}}"

_log = logging.getLogger(__name__)


def _fields(emotion: bool) -> list[tuple[str, str]]:
    """Return the analysis' fields in order, each with the fixed string before its text."""
    before = {"expression_category": '{"analysis":{"expression_category":"'}
    before |= {region: f'","{region}":"' for region in REGIONS}
    before[REGIONS[0]] = f'","muscle_movements":{{"{REGIONS[0]}":"'
    if emotion:
        before |= {"emotional_implication": '"},"emotional_implication":"', "symmetry": '","symmetry":"'}
    else:
        before["symmetry"] = '"},"symmetry":"'
    return list(before.items())


def _keys() -> list[str]:
    """Return the fixed strings before the 52 numbers."""
    return [f'"{NAMES[0]}":', *(f',"{name}":' for name in NAMES[1:])]


def answer_grammar(*, emotion: bool = True) -> str:
    """Return the llguidance grammar (Lark) of the canonical answer."""
    body = []
    for field_name, before in _fields(emotion):
        body += [json.dumps(before), f"TEXT_{MAX_TEXT.get(field_name, MAX_OTHER_TEXT)}"]
    body.append(json.dumps(_ARKIT_OPENS))
    for before in _keys():
        body += [json.dumps(before), "NUMBER"]
    body.append(json.dumps(_CLOSES))
    lengths = {*MAX_TEXT.values(), MAX_OTHER_TEXT}
    texts = [rf"TEXT_{most}: /{_FIRST_LETTER}{_LETTER}{{0,{most - 1}}}/" for most in lengths]
    lines = [f"start: {' '.join(body)}", *texts, r"NUMBER: /0\.[0-9][0-9]|1\.00/"]
    return LLMatcher.grammar_from_lark("\n".join(lines) + "\n")


def longest_answer(*, emotion: bool = True) -> int:
    """Return the length of the longest text of the grammar, in bytes."""
    texts = sum(len(before) + MAX_TEXT.get(name, MAX_OTHER_TEXT) for name, before in _fields(emotion))
    numbers = sum(len(before) + _NUMBER_BYTES for before in _keys())
    return texts + len(_ARKIT_OPENS) + numbers + len(_CLOSES)


def _number_offsets() -> list[int]:
    """Return where each of the 52 numbers starts, in bytes after ``_ARKIT_OPENS``."""
    offsets, at = [], 0
    for before in _keys():
        at += len(before)
        offsets.append(at)
        at += _NUMBER_BYTES
    return offsets


_OFFSETS = _number_offsets()


def _reachable(part: bytes) -> list[bytes]:
    """Return the number texts that a number beginning with ``part`` can still become."""
    return [text for text in _VALUES if text.startswith(part[:_NUMBER_BYTES])]


@dataclass(frozen=True)
class _Choices:
    """The tokens allowed at one place of a number, and what each makes of it.

    Attributes:
        ids: token ids, int64[n].
        parts: how the number reads after each token, up to 4 bytes.
        values: float64[n], the number where ``parts`` is whole, else the middle of those it can still become.
        reachable: the number texts possible before the token.
    """

    ids: np.ndarray
    parts: tuple[bytes, ...]
    values: np.ndarray
    reachable: tuple[bytes, ...]


@dataclass
class _Estimate:
    """A running expectation of a number that is being written, exact for the tokens read so far.

    With several tokens a number the distribution of later digits is known only along the path that is written.
    The expectation then is ``rest + weight * E[value | path]``: branches not taken count with their probability
    times the middle of the values they lead to, the path taken with the model's own distribution at each
    further token. Each token written is the one that leads to the value nearest to the expectation so far, so the
    number can end up to half a tenth away from the true expectation when the model is torn between tenths, and
    equals it (to two decimals) when it is sure of them.

    Attributes:
        rest: sum of probability times middle over the branches not taken.
        weight: probability of the path taken.
    """

    rest: float = 0.0
    weight: float = 1.0

    def choose(self, choices: _Choices, logits: np.ndarray) -> int:
        """Take the token towards the expectation; logits: float64[n] of ``choices.ids``. Returns its id."""
        weights = np.exp(logits - logits.max())
        shares = weights / weights.sum()
        expectation = self.rest + self.weight * float(shares @ choices.values)
        aim = min(choices.reachable, key=lambda text: abs(_VALUES[text] - expectation))
        towards = [i for i, part in enumerate(choices.parts) if aim.startswith(part)]
        taken = max(towards, key=lambda i: shares[i])
        self.rest = expectation - self.weight * shares[taken] * choices.values[taken]
        self.weight *= shares[taken]
        return int(choices.ids[taken])


@dataclass
class _Row:
    """One answer being written."""

    matcher: LLMatcher
    rng: np.random.Generator
    text: bytearray = field(default_factory=bytearray)
    forced: deque[int] = field(default_factory=deque)
    arkit: int = -1
    finished: bool = False
    estimate: _Estimate = field(default_factory=_Estimate)

    def place(self) -> tuple[int, int] | None:
        """Return (which number comes next or is being written, bytes from its start to here), None if none does.

        The distance is negative while some of the key before the number is still to be written.
        """
        if self.arkit < 0:
            return None
        at = len(self.text) - self.arkit
        slot = bisect.bisect_left(_OFFSETS, at - _NUMBER_BYTES + 1)
        return (slot, at - _OFFSETS[slot]) if slot < len(_OFFSETS) else None


class AnswerDecoder:
    """Writes answers with a model under the grammar; one for each tokenizer and recipe.

    Args:
        tokenizer: any fast tokenizer.
        emotion: whether answers carry ``emotional_implication``.
        readout: ``greedy`` or ``mean``; see the module.

    Attributes:
        max_new_tokens: bound within which every answer ends, the end token included.

    Raises:
        ModelError: the tokenizer is not a fast one, has no end token, or cannot spell the answers;
            or the readout is unknown.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, *, emotion: bool = True, readout: Readout = "greedy"
    ) -> None:
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise ModelError(
                f"{type(tokenizer).__name__} is not a fast tokenizer: save the model with a tokenizer.json."
            )
        if readout not in get_args(Readout):
            raise ModelError(f"readout {readout!r} is unknown: the recipe must say {' or '.join(get_args(Readout))}.")
        if tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer names no end token: set eos_token in its tokenizer_config.json.")
        self.end = int(tokenizer.eos_token_id)
        self.pad = self.end if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        self.readout = readout
        self.max_new_tokens = longest_answer(emotion=emotion) + 1
        self._vocabulary = llguidance.hf.from_tokenizer(tokenizer, slices=_SLICES)
        self._matcher = LLMatcher(self._vocabulary, answer_grammar(emotion=emotion))
        if self._matcher.is_error():
            raise ModelError(f"the tokenizer cannot spell answers: {self._matcher.get_error()}")
        self._pieces: dict[int, bytes] = {}
        self._choices: dict[tuple[int, int, bytes], _Choices | None] = {}

    def generate(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        *,
        temperature: float = 0.0,
        seeds: Sequence[int | Sequence[int]] | None = None,
    ) -> list[str]:
        """Write one answer for each row of ``inputs``.

        Args:
            model: a transformers model, or a PeftModel; the one whose tokenizer this decoder was made for.
            inputs: what ``model.generate`` takes, prompts padded on the left; ``input_ids`` is int64[B, T].
            temperature: 0 takes the best token; above 0 samples.
            seeds: one for each row. A row's sample depends on its seed and its prompt alone, not on its batch.

        Returns:
            B canonical texts.

        Raises:
            ValueError: a negative temperature, or sampling without one seed for each row.
        """
        n_rows = len(inputs["input_ids"])
        if not temperature >= 0:
            raise ValueError(f"temperature is {temperature}: give 0 or more")
        if seeds is None and not temperature:
            seeds = [0] * n_rows
        if seeds is None or len(seeds) != n_rows:
            raise ValueError(f"sampling {n_rows} rows needs {n_rows} seeds")
        writer = _Writer(self, [np.random.default_rng(seed) for seed in seeds], temperature)
        settings = GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            eos_token_id=self.end,
            pad_token_id=self.pad,
            use_cache=True,
            # The writer picks each token itself; these keep a model's own generation settings out of its scores.
            do_sample=False,
            num_beams=1,
            temperature=1.0,
            top_k=50,
            top_p=1.0,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
        )
        with torch.inference_mode():
            model.generate(**inputs, generation_config=settings, logits_processor=LogitsProcessorList([writer]))
        return writer.texts()

    def start(self, rng: np.random.Generator) -> _Row:
        """Return a row with nothing written but what the grammar already forces."""
        row = _Row(self._matcher.deep_copy(), rng)
        self._force(row)
        return row

    def mask(self, row: _Row) -> np.ndarray:
        """Return the tokens the grammar allows next; bool[vocabulary]."""
        bits = llguidance.numpy.allocate_token_bitmask(1, self._vocabulary.vocab_size)
        llguidance.numpy.fill_next_token_bitmask(row.matcher, bits)
        return np.unpackbits(bits.view(np.uint8), bitorder="little")[: self._vocabulary.vocab_size].astype(bool)

    def append(self, row: _Row, token: int) -> None:
        """Write ``token``, which is the next forced one or one the grammar allows."""
        if row.forced:
            row.forced.popleft()
        elif row.matcher.consume_token(token):
            self._force(row)
        if row.matcher.is_error():
            _log.error("the grammar refused a token it had allowed: %s", row.matcher.get_error())
            row.finished = True
            return
        before = row.place()
        searched = max(0, len(row.text) - len(_ARKIT_OPENS))
        row.text += self._piece(token)
        if row.arkit < 0 and (found := row.text.find(_ARKIT_OPENS.encode(), searched)) >= 0:
            row.arkit = found + len(_ARKIT_OPENS)
        after = row.place()
        if before is None or after is None or before[0] != after[0]:
            row.estimate = _Estimate()
        row.finished = not row.forced and row.matcher.is_accepting()

    def choices(self, row: _Row) -> _Choices | None:
        """Return the choices a number offers next, None where no allowed token reaches into a number."""
        place = row.place()
        if place is None:
            return None
        slot, written = place
        part = bytes(row.text[len(row.text) - written :]) if written > 0 else b""
        # Numbers already closed change nothing of what may follow, so one look serves every answer.
        key = (slot, written, part)
        if key not in self._choices:
            self._choices[key] = self._find_choices(row, written, part)
        return self._choices[key]

    def _find_choices(self, row: _Row, written: int, part: bytes) -> _Choices | None:
        reachable = tuple(_reachable(part))
        ids = np.flatnonzero(self.mask(row))
        ahead = max(0, -written)
        parts = [(part + self._piece(int(token))[ahead:])[:_NUMBER_BYTES] for token in ids]
        if not any(len(after) > len(part) for after in parts):
            return None
        # With a token for every number left, ways of spelling them by pieces are not the tokenizer's own.
        whole = [i for i, after in enumerate(parts) if len(after) == _NUMBER_BYTES]
        kept = whole if {parts[i] for i in whole} == set(reachable) else range(len(parts))
        values = [float(np.mean([_VALUES[text] for text in _reachable(parts[i])])) for i in kept]
        return _Choices(ids[list(kept)], tuple(parts[i] for i in kept), np.array(values), reachable)

    def _force(self, row: _Row) -> None:
        forced = row.matcher.compute_ff_tokens()
        if forced and row.matcher.consume_tokens(forced):
            row.forced.extend(forced)

    def _piece(self, token: int) -> bytes:
        if token not in self._pieces:
            self._pieces[token] = self._vocabulary.decode_bytes([token])
        return self._pieces[token]


class _Writer(LogitsProcessor):
    """Picks every token of a batch inside ``generate``: leaves one finite score a row."""

    def __init__(self, decoder: AnswerDecoder, rngs: Sequence[np.random.Generator], temperature: float) -> None:
        self.decoder = decoder
        self.temperature = temperature
        self.rows = [decoder.start(rng) for rng in rngs]

    def texts(self) -> list[str]:
        return [row.text.decode("ascii", errors="replace") for row in self.rows]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        tokens = [row.forced[0] if row.forced else self.decoder.end for row in self.rows]
        free = [index for index, row in enumerate(self.rows) if not row.forced and not row.finished]
        if free:
            for index, token in zip(free, self._pick(free, scores), strict=True):
                tokens[index] = token
        for row, token in zip(self.rows, tokens, strict=True):
            if not row.finished:
                self.decoder.append(row, token)
        picked = torch.full_like(scores, -torch.inf)
        picked.scatter_(1, torch.tensor(tokens, device=scores.device)[:, None], 0.0)
        return cast(torch.FloatTensor, picked)

    def _pick(self, free: list[int], scores: torch.Tensor) -> list[int]:
        """Return a token for each row in ``free``; scores: float32[B, V], any value, NaN included."""
        limits = torch.finfo(scores.dtype)
        scores = torch.nan_to_num(scores[free], nan=limits.min, posinf=limits.max, neginf=limits.min)
        rows = [self.rows[index] for index in free]
        if self.temperature:
            return [self._sample(row, logits) for row, logits in zip(rows, scores.double().cpu().numpy(), strict=True)]
        tokens = [-1] * len(rows)
        if self.decoder.readout == "mean":
            for i, row in enumerate(rows):
                if choices := self.decoder.choices(row):
                    logits = scores[i, torch.from_numpy(choices.ids).to(scores.device)].double().cpu().numpy()
                    tokens[i] = row.estimate.choose(choices, logits)
        rest = [i for i, token in enumerate(tokens) if token < 0]
        if rest:
            masks = np.zeros((len(rest), scores.shape[1]), dtype=bool)
            for mask, i in zip(masks, rest, strict=True):
                allowed = self.decoder.mask(rows[i])[: len(mask)]
                mask[: len(allowed)] = allowed
            forbidden = torch.from_numpy(~masks).to(scores.device)
            best = scores[rest].masked_fill(forbidden, -torch.inf).argmax(dim=1)
            for i, token in zip(rest, best.tolist(), strict=True):
                tokens[i] = token
        return tokens

    def _sample(self, row: _Row, logits: np.ndarray) -> int:
        ids = np.flatnonzero(self.decoder.mask(row)[: len(logits)])
        heights = np.cumsum(np.exp((logits[ids] - logits[ids].max()) / self.temperature))
        drawn = np.searchsorted(heights, row.rng.random() * heights[-1], side="right")
        return int(ids[min(drawn, len(ids) - 1)])
