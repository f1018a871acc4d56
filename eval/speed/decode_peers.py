"""The peers of `decode.py`: transformers' `generate` under a grammar of xgrammar or outlines.

Both produce the language of our own grammar: canonical JSON in fixed key order, texts of bounded length, 52 numbers of
two decimals.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from semanticface.arkit import N_ACTIONS
from semanticface.inference.decoder import AnswerDecoder
from semanticface.models.loading import Bundle
from semanticface.semantics.analysis import describe
from semanticface.semantics.answer import format_answer
from semanticface.semantics.grammar import MAX_DEFAULT_LENGTH, MAX_LENGTH

Inputs = Mapping[str, torch.Tensor]
Method = Callable[[Inputs], list[str]]


def pieces(*, emotion: bool) -> list[str | int | None]:
    """Return the parts of a canonical answer in order: fixed strings, maximum lengths of texts, None for a number."""

    def walk(key: str, value: Any) -> Iterator[str | int | None]:
        if isinstance(value, dict):
            for n, (name, inner) in enumerate(value.items()):
                yield f'{"," if n else "{"}"{name}":'
                yield from walk(name, inner)
            yield "}"
        elif isinstance(value, str):
            yield from ('"', MAX_LENGTH.get(key, MAX_DEFAULT_LENGTH), '"')
        else:
            yield None

    still = np.zeros(N_ACTIONS)
    answer = json.loads(format_answer(still, describe(still, emotion=emotion)))
    out: list[str | int | None] = []
    for piece in walk("", answer):
        if isinstance(piece, str) and out and isinstance(out[-1], str):
            out[-1] += piece
        else:
            out.append(piece)
    return out


def as_regex(parts: Sequence[str | int | None]) -> str:
    """Return the pieces as a regular expression."""

    def one(part: str | int | None) -> str:
        if part is None:
            return r"(?:0\.[0-9][0-9]|1\.00)"
        return re.escape(part) if isinstance(part, str) else rf"[!#-\[\]-~][ !#-\[\]-~]{{0,{part - 1}}}"

    return "".join(map(one, parts))


def as_ebnf(parts: Sequence[str | int | None]) -> str:
    """Return the pieces as xgrammar's EBNF."""

    def one(part: str | int | None) -> str:
        if part is None:
            return "number"
        return json.dumps(part) if isinstance(part, str) else f"first letter{{0,{part - 1}}}"

    rules = (
        f"root ::= {' '.join(map(one, parts))}",
        r"first ::= [!#-\[\]-~]",
        r"letter ::= [ !#-\[\]-~]",
        'number ::= "0." [0-9] [0-9] | "1.00"',
    )
    return "\n".join(rules) + "\n"


def xgrammar_maker(bundle: Bundle, emotion: bool) -> Callable[[], Any]:
    """Return a factory of xgrammar's processor, for one call of `generate` each."""
    import xgrammar
    from xgrammar.contrib.hf import LogitsProcessor

    width = bundle.model.get_output_embeddings().weight.shape[0]
    info = xgrammar.TokenizerInfo.from_huggingface(
        bundle.tokenizer, vocab_size=width, stop_token_ids=[bundle.tokenizer.eos_token_id]
    )
    compiled = xgrammar.GrammarCompiler(info).compile_grammar(as_ebnf(pieces(emotion=emotion)))
    return lambda: LogitsProcessor(compiled)


def outlines_maker(bundle: Bundle, emotion: bool) -> Callable[[], Any]:
    """Return a factory of outlines' processor, for one call of `generate` each."""
    import outlines
    from outlines.backends import get_regex_logits_processor

    model = outlines.from_transformers(bundle.model, bundle.tokenizer)
    processor = get_regex_logits_processor(None, model, as_regex(pieces(emotion=emotion)))

    def reset() -> Any:
        processor.reset()
        return processor

    return reset


def peer(bundle: Bundle, decoder: AnswerDecoder, maker: Callable[[], Any]) -> Method:
    """Return greedy `generate` under a processor; every text ends with the tokenizer's end token."""
    from transformers import LogitsProcessorList

    def generate(inputs: Inputs) -> list[str]:
        with torch.inference_mode():
            ids = bundle.model.generate(
                **inputs,
                generation_config=decoder.generation_config(),
                logits_processor=LogitsProcessorList([maker()]),
            )
        answers = ids[:, inputs["input_ids"].shape[1] :]
        return bundle.tokenizer.batch_decode(answers, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    return generate


MAKERS = {"xgrammar": xgrammar_maker, "outlines": outlines_maker}
