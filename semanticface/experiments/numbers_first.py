"""Answers in the other order: coefficients, then the analysis given them, ``{"arkit":{…},"analysis":{…}}``.

The numbers are decoded as in answers without analysis, in parallel or sequentially. They are then appended to the
prompt as text, and the analysis is generated under its grammar, token by token. Used by ``eval/ablations.py``; the
library's answers have the analysis first.
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

_ANALYSIS_OPENS = '{"expression_category":"'
_BETWEEN = f'}},"analysis":{_ANALYSIS_OPENS}'
"""Text between the last number and the first word."""


def encode_analysis_after(encoder: AnswerEncoder, values: np.ndarray, analysis: Analysis) -> AnswerEncoding:
    """Return the encoding of an answer that learns the analysis behind given numbers.

    Args:
        encoder: of the model's tokenizer.
        values: float[52] in [0, 1], the numbers before the analysis.
        analysis: the analysis.
    """
    prefix = _numbers_prefix(encoder.number_tokens, encoder.tokenizer, values)
    text = json.dumps(analysis.to_dict(), ensure_ascii=False, separators=(",", ":")).removeprefix(_ANALYSIS_OPENS)
    learnt = [*encoder.tokenizer(f"{text}}}", add_special_tokens=False)["input_ids"], encoder.end_token_id]
    labels, ids = [*prefix, *learnt], [*prefix, *learnt[:-1]]
    return AnswerEncoding(
        ids=ids,
        position_offsets=list(range(1, len(ids) + 1)),
        branch_ids=[0] * len(ids),
        labels=labels,
        loss_weights=[0.0] * len(prefix) + [1.0] * len(learnt),
        number_ids=[-1] * len(labels),
    )


class Explainer:
    """Generates the analysis behind given numbers, with models of nano's kind only.

    Args:
        bundle: a model trained with ``encode_analysis_after``.
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
        """Return the analysis of each crop given its coefficients, float[N, 52] in [0, 1]."""
        inputs = prompt_inputs(self.bundle, self.prompt, crops)
        tokens, tokenizer = self.decoder.number_tokens, self.bundle.tokenizer
        prefixes = [_numbers_prefix(tokens, tokenizer, values) for values in coefficients]
        numbers = torch.tensor(prefixes, device=self.bundle.device)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], numbers], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        processor = _GrammarLogitsProcessor(self.decoder, [self._new_state() for _ in crops])
        with torch.inference_mode():
            self.bundle.model.generate(
                **inputs,
                generation_config=self.decoder.generation_config(),
                logits_processor=LogitsProcessorList([processor]),
            )
        texts = (row.text.decode("ascii", errors="replace").removesuffix("}") for row in processor.rows)
        return [Analysis.from_dict(json.loads(_ANALYSIS_OPENS + text)) for text in texts]

    def _new_state(self) -> AnswerState:
        none = np.zeros(0)
        return AnswerState(self._matcher.deep_copy(), np.random.default_rng(0), none, none, none)


class _GrammarLogitsProcessor(LogitsProcessor):
    """Chooses each row's next token inside ``generate``: leaves it the only finite score."""

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


def _numbers_prefix(tokens: NumberTokens, tokenizer: Any, values: np.ndarray) -> list[int]:
    """Return the tokens of the 52 numbers in sequential layout and of the text up to the first word."""
    out: list[int] = []
    for number, value in enumerate(to_hundredths(values).tolist()):
        out += tokens.keys[number] if number else tokens.opening
        out += tokens.value_tokens[value]
    return out + list(tokenizer(_BETWEEN, add_special_tokens=False)["input_ids"])
