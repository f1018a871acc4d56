"""A chat model on this machine, through transformers, asked in the way of a chat server.

Replies are held to the request's schema by llguidance, token by token. What is drawn at random depends on a request's
seed alone, not on those beside it: noise from a generator of its own is added to each row's scores, of which the
largest is then taken, which draws from the same distribution (the Gumbel-max trick: Gumbel 1954, Maddison et al. 2014).
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import llguidance.hf
import llguidance.numpy
import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from jinja2 import TemplateError
from llguidance import LLMatcher
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GgufConfig,
    LogitsProcessor,
    LogitsProcessorList,
)

from semanticface.errors import ModelError
from semanticface.llm.chat import ChatReply, ChatRequest
from semanticface.models.files import resolve_model
from semanticface.models.loading import choose_device, choose_dtype
from semanticface.semantics.grammar import SLICES

_GGUF = ".gguf"
_SEED = 0  # of a request that names none


class LocalChat:
    """A chat model of this machine.

    Args:
        name: a folder, a ``.gguf`` file, a hub id, or ``ID:FILE.gguf`` for one file of a hub id.
        batch: requests answered side by side.
        device: ``auto`` is the GPU where there is one.

    Raises:
        ModelError: no such model, one that does not load, or one that is not made for chats.
        ConfigError: the device is not there.
    """

    def __init__(self, name: str, *, batch: int = 4, device: str = "auto") -> None:
        self.name, self._batch = name, batch
        place = choose_device(device)
        folder, gguf = _find(name)
        weights: dict[str, Any] = {"use_safetensors": True}
        if gguf:
            # Unpacked, because packed weights are multiplied by programs that transformers fetches from the hub.
            weights = {"gguf_file": gguf, "quantization_config": GgufConfig(dequantize=True)}
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=False, **({"gguf_file": gguf} if gguf else {})
            )
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=choose_dtype("auto", place),
                device_map={"": place},
                trust_remote_code=False,
                **weights,
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, struct.error) as error:
            raise ModelError(f"{name} does not load as a chat model: {error}. Give a complete one.") from error
        if tokenizer.chat_template is None:
            raise ModelError(f"{name} has no chat template: give a model made for chats, such as one named Instruct.")
        if not tokenizer.is_fast:
            raise ModelError(f"{name} has no tokenizer.json, without which its answers cannot be held to a form.")
        tokenizer.padding_side = "left"
        ends = model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self._ends: list[int] = [end for end in dict.fromkeys([*ends, tokenizer.eos_token_id]) if end is not None]
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token_id = self._ends[0]
        self._vocabulary = llguidance.hf.from_tokenizer(tokenizer, eos_token=self._ends, slices=list(SLICES))
        self._model, self._tokenizer = model.eval(), tokenizer

    def complete_many(self, requests: Iterable[tuple[str, ChatRequest]]) -> Iterator[tuple[str, ChatReply]]:
        """Yield ``(key, reply)``, a batch at a time; requests are drawn as batches begin.

        A request that leaves the model no room has the status ``refused``.

        Raises:
            ModelError: a schema that cannot be followed, or too little memory for a batch.
        """
        source = iter(requests)
        room = getattr(self._model.config, "max_position_embeddings", None) or 2**31
        while batch := list(islice(source, self._batch)):
            fitting = []
            for key, request in batch:
                ids = self._encode(request.messages)
                if len(ids) + request.max_tokens <= room:
                    fitting.append((key, request, ids))
                else:
                    reason = f"{len(ids)} tokens and a reply do not fit the model's {room}: choose another model"
                    yield key, ChatReply("", tokens_in=len(ids), status="refused", reason=reason)
            if fitting:
                keys, asked, prompts = zip(*fitting, strict=True)
                try:
                    replies = self._answer(asked, prompts)
                except torch.OutOfMemoryError as error:
                    told = f"{self.name}: {len(asked)} replies at once do not fit the memory."
                    raise ModelError(f"{told} Ask for fewer (--concurrency).") from error
                yield from zip(keys, replies, strict=True)

    def _encode(self, messages: list[dict[str, Any]]) -> list[int]:
        try:
            text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except TemplateError:  # some models know no system message
            first, second, *rest = messages
            joined = {"role": "user", "content": f"{first['content']}\n\n{second['content']}"}
            text = self._tokenizer.apply_chat_template([joined, *rest], add_generation_prompt=True, tokenize=False)
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @torch.inference_mode()
    def _answer(self, requests: tuple[ChatRequest, ...], prompts: tuple[list[int], ...]) -> list[ChatReply]:
        began = time.monotonic()
        shown = self._tokenizer.pad({"input_ids": list(prompts)}, return_tensors="pt").to(self._model.device)
        steps = _Steps(self._vocabulary, self._ends[0], requests)
        out = self._model.generate(
            **shown,
            generation_config=GenerationConfig(
                max_new_tokens=max(request.max_tokens for request in requests),
                do_sample=False,
                eos_token_id=self._ends,
                pad_token_id=self._tokenizer.pad_token_id,
            ),
            logits_processor=LogitsProcessorList([steps]),
        )
        seconds = time.monotonic() - began
        replies = []
        for row, (request, ids) in enumerate(zip(requests, prompts, strict=True)):
            tokens = out[row, shown["input_ids"].shape[1] :].tolist()[: request.max_tokens]
            end = next((place for place, token in enumerate(tokens) if token in self._ends), None)
            text = self._tokenizer.decode(tokens[:end], skip_special_tokens=True)
            finish = "length" if end is None else "stop"
            count = len(tokens) if end is None else end + 1
            replies.append(ChatReply(text, finish, len(ids), count, seconds))
        return replies


class _Steps(LogitsProcessor):
    """Before each token: what the schema forbids is struck out, and the request's own noise is added."""

    def __init__(self, vocabulary: Any, end: int, requests: tuple[ChatRequest, ...]) -> None:
        self._end = end
        self._heats = [request.temperature for request in requests]
        self._noise = [torch.Generator().manual_seed(request.seed or _SEED) for request in requests]
        self._matchers = [_matcher(vocabulary, request.schema) for request in requests]
        self._allowed = llguidance.numpy.allocate_token_bitmask(1, vocabulary.vocab_size)
        self._begun = False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.float()
        for row, matcher in enumerate(self._matchers):
            own = scores[row : row + 1]
            if matcher is not None:
                if self._begun and not matcher.is_stopped():
                    matcher.consume_token(int(input_ids[row, -1]))
                if matcher.is_stopped():  # the object is whole
                    own.fill_(-torch.inf)[:, self._end] = 0
                    continue
                llguidance.numpy.fill_next_token_bitmask(matcher, self._allowed)
                bits = np.unpackbits(self._allowed.view(np.uint8), bitorder="little")[: own.shape[1]]
                allowed = torch.from_numpy(bits.astype(bool)).to(own.device)
                own[:, len(bits) :] = -torch.inf  # some models have more scores than their tokenizer has tokens
                own[:, : len(bits)].masked_fill_(~allowed, -torch.inf)
            if self._heats[row]:
                uniform = torch.rand(own.shape[1], generator=self._noise[row], dtype=torch.float64)
                gumbel = -torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16)))
                own.div_(self._heats[row]).add_(gumbel.to(own.device, own.dtype))
        self._begun = True
        return scores


def _matcher(vocabulary: Any, schema: dict[str, Any] | None) -> LLMatcher | None:
    if schema is None:
        return None
    # No free spaces: a model that may write them writes them for ever.
    grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults={"whitespace_flexible": False})
    matcher = LLMatcher(vocabulary, grammar)
    if matcher.is_error():
        raise ModelError(f"the schema cannot be followed: {matcher.get_error()}. Ask without it.")
    return matcher


def _find(name: str) -> tuple[Path, str | None]:
    """Return the folder of a model, and its GGUF file's name if that is what the weights are in."""
    path = Path(name)
    if path.is_file() and path.suffix == _GGUF:
        return path.parent, path.name
    repository, colon, file = name.rpartition(":")
    if not (colon and file.endswith(_GGUF)):
        if path.suffix == _GGUF:
            raise ModelError(f"there is no file {name}: check the path.")
        return resolve_model(name)[0], None
    try:
        return Path(snapshot_download(repository, allow_patterns=[file])), file
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise ModelError(f"no {file} in the hub's {repository!r}: check the spelling and the connection.") from error
