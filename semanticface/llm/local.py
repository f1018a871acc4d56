"""A local chat model loaded by transformers, with the interface of the chat client.

llguidance constrains each token of a reply to the request's schema. A sample depends on the request's seed alone, not
on the other rows of its batch: each row adds Gumbel noise from its own generator to its logits and takes the argmax,
which samples from the softmax (the Gumbel-max trick: Gumbel 1954, Maddison et al. 2014).
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
from semanticface.models.processors import quiet_transformers
from semanticface.semantics.grammar import SLICES

_GGUF = ".gguf"
_DEFAULT_SEED = 0


class LocalChat:
    """A local chat model.

    Args:
        name: a folder, a ``.gguf`` file, a hub id, or ``ID:FILE.gguf`` for one file of a hub id.
        batch: the batch size.
        device: ``auto`` uses a GPU if there is one.

    Raises:
        ModelError: the model does not exist, does not load, or is not a chat model.
        ConfigError: the device does not exist.
    """

    @quiet_transformers()
    def __init__(self, name: str, *, batch: int = 4, device: str = "auto") -> None:
        self.name, self._batch = name, batch
        target = choose_device(device)
        folder, gguf = _locate(name)
        weights: dict[str, Any] = {"use_safetensors": True}
        if gguf:
            # Dequantized, because transformers fetches the kernels for quantized weights from the hub.
            weights = {"gguf_file": gguf, "quantization_config": GgufConfig(dequantize=True)}
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=False, **({"gguf_file": gguf} if gguf else {})
            )
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=choose_dtype("auto", target),
                device_map={"": target},
                trust_remote_code=False,
                **weights,
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, struct.error) as error:
            raise ModelError(f"{name} does not load as a chat model: {error}. Check that it is complete.") from error
        if tokenizer.chat_template is None:
            raise ModelError(f"{name} has no chat template: choose a chat model, such as one named Instruct.")
        if not tokenizer.is_fast:
            raise ModelError(f"{name} has no tokenizer.json, which constrained decoding needs: choose another model.")
        tokenizer.padding_side = "left"
        eos = model.generation_config.eos_token_id
        eos = [*(eos if isinstance(eos, list) else [eos]), tokenizer.eos_token_id]
        self._eos_ids: list[int] = [token for token in dict.fromkeys(eos) if token is not None]
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token_id = self._eos_ids[0]
        self._vocabulary = llguidance.hf.from_tokenizer(tokenizer, eos_token=self._eos_ids, slices=list(SLICES))
        self._model, self._tokenizer = model.eval(), tokenizer

    def complete_many(self, requests: Iterable[tuple[str, ChatRequest]]) -> Iterator[tuple[str, ChatReply]]:
        """Yield ``(key, reply)``, a batch at a time; ``requests`` is consumed one batch at a time too.

        A request that exceeds the model's context has the status ``refused``.

        Raises:
            ModelError: an unsupported schema, or too little memory for a batch.
        """
        source = iter(requests)
        context = getattr(self._model.config, "max_position_embeddings", None) or 2**31
        while batch := list(islice(source, self._batch)):
            fitting = []
            for key, request in batch:
                ids = self._encode(request.messages)
                if len(ids) + request.max_tokens <= context:
                    fitting.append((key, request, ids))
                else:
                    reason = (
                        f"{len(ids)} tokens and a reply exceed the model's context of {context}: choose another model"
                    )
                    yield key, ChatReply("", tokens_in=len(ids), status="refused", reason=reason)
            if fitting:
                keys, accepted, prompts = zip(*fitting, strict=True)
                try:
                    replies = self._generate(accepted, prompts)
                except torch.OutOfMemoryError as error:
                    raise ModelError(
                        f"{self.name}: a batch of {len(accepted)} does not fit into memory. Lower --concurrency."
                    ) from error
                yield from zip(keys, replies, strict=True)

    def _encode(self, messages: list[dict[str, Any]]) -> list[int]:
        try:
            text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except TemplateError:  # some chat templates have no system role
            first, second, *rest = messages
            joined = {"role": "user", "content": f"{first['content']}\n\n{second['content']}"}
            text = self._tokenizer.apply_chat_template([joined, *rest], add_generation_prompt=True, tokenize=False)
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @torch.inference_mode()
    def _generate(self, requests: tuple[ChatRequest, ...], prompts: tuple[list[int], ...]) -> list[ChatReply]:
        started = time.monotonic()
        inputs = self._tokenizer.pad({"input_ids": list(prompts)}, return_tensors="pt").to(self._model.device)
        processor = _ConstrainedSampling(self._vocabulary, self._eos_ids[0], requests)
        out = self._model.generate(
            **inputs,
            generation_config=GenerationConfig(
                max_new_tokens=max(request.max_tokens for request in requests),
                do_sample=False,
                eos_token_id=self._eos_ids,
                pad_token_id=self._tokenizer.pad_token_id,
            ),
            logits_processor=LogitsProcessorList([processor]),
        )
        seconds = time.monotonic() - started
        replies = []
        for row, (request, ids) in enumerate(zip(requests, prompts, strict=True)):
            tokens = out[row, inputs["input_ids"].shape[1] :].tolist()[: request.max_tokens]
            end = next((index for index, token in enumerate(tokens) if token in self._eos_ids), None)
            text = self._tokenizer.decode(tokens[:end], skip_special_tokens=True)
            finish = "length" if end is None else "stop"
            count = len(tokens) if end is None else end + 1
            replies.append(ChatReply(text, finish, len(ids), count, seconds))
        return replies


class _ConstrainedSampling(LogitsProcessor):
    """Masks the tokens that a row's schema forbids and adds the row's Gumbel noise."""

    def __init__(self, vocabulary: Any, eos_id: int, requests: tuple[ChatRequest, ...]) -> None:
        self._eos_id = eos_id
        self._temperatures = [request.temperature for request in requests]
        self._generators = [torch.Generator().manual_seed(request.seed or _DEFAULT_SEED) for request in requests]
        self._matchers = [_matcher(vocabulary, request.schema) for request in requests]
        self._allowed = llguidance.numpy.allocate_token_bitmask(1, vocabulary.vocab_size)
        self._started = False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.float()
        for row, matcher in enumerate(self._matchers):
            logits = scores[row : row + 1]  # [1, V], a view
            if matcher is not None:
                if self._started and not matcher.is_stopped():
                    matcher.consume_token(int(input_ids[row, -1]))
                if matcher.is_stopped():  # the object is complete
                    logits.fill_(-torch.inf)[:, self._eos_id] = 0
                    continue
                llguidance.numpy.fill_next_token_bitmask(matcher, self._allowed)
                bits = np.unpackbits(self._allowed.view(np.uint8), bitorder="little")[: logits.shape[1]]
                allowed = torch.from_numpy(bits.astype(bool)).to(logits.device)
                logits[:, len(bits) :] = -torch.inf  # some models have more logits than their tokenizer has tokens
                logits[:, : len(bits)].masked_fill_(~allowed, -torch.inf)
            if self._temperatures[row]:
                uniform = torch.rand(logits.shape[1], generator=self._generators[row], dtype=torch.float64)
                gumbel = -torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16)))
                logits.div_(self._temperatures[row]).add_(gumbel.to(logits.device, logits.dtype))
        self._started = True
        return scores


def _matcher(vocabulary: Any, schema: dict[str, Any] | None) -> LLMatcher | None:
    if schema is None:
        return None
    # Without optional whitespace, which models otherwise repeat endlessly.
    grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults={"whitespace_flexible": False})
    matcher = LLMatcher(vocabulary, grammar)
    if matcher.is_error():
        raise ModelError(f"unsupported schema: {matcher.get_error()}. Leave it out.")
    return matcher


def _locate(name: str) -> tuple[Path, str | None]:
    """Return the folder of a model, and the name of its GGUF file if it has one."""
    path = Path(name)
    if path.is_file() and path.suffix == _GGUF:
        return path.parent, path.name
    repository, colon, file = name.rpartition(":")
    if not (colon and file.endswith(_GGUF)):
        if path.suffix == _GGUF:
            raise ModelError(f"{name} does not exist: check the path.")
        return resolve_model(name)[0], None
    try:
        return Path(snapshot_download(repository, allow_patterns=[file])), file
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise ModelError(
            f"cannot get {file} of {repository!r} from the hub: check the name and the connection."
        ) from error
