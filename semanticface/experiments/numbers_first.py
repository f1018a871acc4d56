"""The other order: coefficients, then words in the light of them, ``{"arkit":{…},"analysis":{…}}``.

The numbers are read as they are without words, side by side or in a row. Then they stand before the model as text, in a
row, and the words behind them are written under the words' grammar, token by token. ``eval/ablations.py`` asks what the
order is worth; answers at work have the words first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import llguidance.hf
import numpy as np
import torch
from llguidance import LLMatcher
from PIL import Image
from transformers import LogitsProcessor, LogitsProcessorList

from semanticface.arkit import to_hundredths
from semanticface.errors import ModelError
from semanticface.inference.decoder import AnswerDecoder, AnswerState
from semanticface.models.answer_tokens import AnswerEncoder, AnswerEncoding, NumberTokens
from semanticface.models.inputs import prompt_inputs
from semanticface.models.loading import Bundle
from semanticface.prompts import load_prompt
from semanticface.semantics.analysis import Analysis
from semanticface.semantics.grammar import SLICES, analysis_grammar

_WORDS_OPEN = '{"expression_category":"'
_BETWEEN = f'}},"analysis":{_WORDS_OPEN}'
"""What stands between the last number and the first word."""


def encode_analysis_after(answers: AnswerEncoder, values: np.ndarray, analysis: Analysis) -> AnswerEncoding:
    """Return the lesson that teaches the words behind numbers which are shown, and not learnt.

    Args:
        answers: of the model's tokenizer.
        values: float[52] in [0, 1], the numbers before the words.
        analysis: the words.
    """
    shown = _shown(answers.number_tokens, answers.tokenizer, values)
    words = json.dumps(analysis.to_dict(), ensure_ascii=False, separators=(",", ":")).removeprefix(_WORDS_OPEN)
    told = [*answers.tokenizer(f"{words}}}", add_special_tokens=False)["input_ids"], answers.end_token_id]
    labels, ids = [*shown, *told], [*shown, *told[:-1]]
    return AnswerEncoding(
        ids=ids,
        position_offsets=list(range(1, len(ids) + 1)),
        branch_ids=[0] * len(ids),
        labels=labels,
        loss_weights=[0.0] * len(shown) + [1.0] * len(told),
        number_ids=[-1] * len(labels),
    )


class Explainer:
    """Writes the words behind numbers that are read already; nano's kind of model alone.

    Args:
        bundle: a model that was taught with ``encode_analysis_after``.

    Raises:
        ModelError: the tokenizer cannot spell answers.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        emotion = bundle.recipe["emotion"]
        self.prompt = load_prompt(bundle.recipe["prompt"]["name"], emotion=emotion)
        self.decoder = AnswerDecoder(bundle.tokenizer, emotion=emotion)
        vocabulary = llguidance.hf.from_tokenizer(bundle.tokenizer, slices=list(SLICES))
        self._matcher = LLMatcher(vocabulary, analysis_grammar(emotion=emotion, after_numbers=True))
        if self._matcher.is_error():
            raise ModelError(f"the tokenizer cannot spell answers: {self._matcher.get_error()}")

    def __call__(self, crops: Sequence[Image.Image], coefficients: np.ndarray) -> list[Analysis]:
        """Return what the model says of each crop behind the coefficients, float[N, 52] in [0, 1]."""
        inputs = prompt_inputs(self.bundle, self.prompt, crops)
        tokens, tokenizer = self.decoder.number_tokens, self.bundle.tokenizer
        shown = torch.tensor([_shown(tokens, tokenizer, values) for values in coefficients], device=self.bundle.device)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], shown], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        writer = _Writer(self.decoder, [self._row() for _ in crops])
        with torch.inference_mode():
            self.bundle.model.generate(
                **inputs,
                generation_config=self.decoder.generation_config(),
                logits_processor=LogitsProcessorList([writer]),
            )
        texts = (_WORDS_OPEN + row.text.decode("ascii", errors="replace").removesuffix("}") for row in writer.rows)
        return [Analysis.from_dict(json.loads(text)) for text in texts]

    def _row(self) -> AnswerState:
        return AnswerState(self._matcher.deep_copy(), np.random.default_rng(0), np.zeros(0))


class _Writer(LogitsProcessor):
    """Writes the words of a batch inside ``generate``: leaves one finite score a row."""

    def __init__(self, decoder: AnswerDecoder, rows: list[AnswerState]) -> None:
        self.decoder, self.rows = decoder, rows

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        logits = scores.float().cpu().numpy()
        tokens = [self._next(row, each) for row, each in zip(self.rows, logits, strict=True)]
        picked = torch.full_like(scores, -torch.inf)
        picked.scatter_(1, torch.tensor(tokens, device=scores.device)[:, None], 0.0)
        return cast(torch.FloatTensor, picked)

    def _next(self, row: AnswerState, logits: np.ndarray) -> int:
        if self.decoder.analysis_done(row):
            return self.decoder.eos_token_id
        token = row.forced[0] if row.forced else self.decoder.choose_token(row, logits, 0.0)
        self.decoder.append(row, token)
        return token


def _shown(tokens: NumberTokens, tokenizer: Any, values: np.ndarray) -> list[int]:
    """Return the tokens of 52 numbers in a row, and of all that follows them up to the first word."""
    out: list[int] = []
    for number, value in enumerate(to_hundredths(values).tolist()):
        out += tokens.keys[number] if number else tokens.opening
        out += tokens.value_tokens[value]
    return out + list(tokenizer(_BETWEEN, add_special_tokens=False)["input_ids"])
