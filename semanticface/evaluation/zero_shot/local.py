"""Zero-shot questions to a local model: any that ``AutoModelForImageTextToText`` supports, or a SemanticFace model.

A SemanticFace model (nano, an adapter) is run by ``Predictor`` as it was trained: its own prompt, the face detected and
cropped, its own readout. Any other model gets the question; decoding is constrained by the grammar of
``semanticface.inference.decoder``, or free if its tokenizer cannot spell answers or on request.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig

from semanticface.errors import ConfigError, ModelError, PictureError
from semanticface.evaluation.zero_shot.questions import MAX_TOKENS, Question, Reply, Semantics, apply_crop
from semanticface.inference.decoder import AnswerDecoder, Mode
from semanticface.inference.engine import DecodingEngine
from semanticface.inference.predictor import Predictor
from semanticface.models.files import resolve_model
from semanticface.models.inputs import end_token
from semanticface.models.loading import Bundle, load_trained
from semanticface.recipe import RECIPE_NAME, files_sha256
from semanticface.vision.crop import Box, crop_face

_MODES: dict[Semantics, Mode] = {"with": "full", "without": "numbers"}


class LocalModel:
    """A model on this machine.

    Args:
        model: ``nano``, a folder, or a Hub id.
        device: such as ``cpu`` or ``cuda``; None selects a GPU if there is one.
        batch_size: pictures per batch.
        free: decode without a grammar.
        max_tokens: limit of free answers; None means ``MAX_TOKENS``.

    Attributes:
        ours: whether it is a SemanticFace model.
        name: the last part of its path or id.
        obstacle: why decoding is free although a grammar was wanted; else empty.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str | None = None,
        batch_size: int = 8,
        free: bool = False,
        max_tokens: int | None = None,
    ) -> None:
        folder, _ = resolve_model(model)
        self.ours = (folder / RECIPE_NAME).is_file()
        if self.ours and free:
            raise ConfigError(
                f"{model} is a SemanticFace model, which answers in its own form only: leave out free decoding."
            )
        self.name = Path(model).name
        self.free = free
        self.bundle: Bundle = load_trained(model, device=device or "auto")
        self._weights = files_sha256(sorted(folder.glob("*.safetensors")))
        self._batch_size = batch_size
        self._max_tokens = max_tokens
        self._engines: dict[tuple[Semantics, bool], Predictor | DecodingEngine] = {}
        self.obstacle = ""
        if not self.ours and not free:
            try:
                AnswerDecoder(self.bundle.tokenizer)
            except ModelError as error:
                self.free, self.obstacle = True, str(error)

    def record(self, question: Question) -> dict[str, Any]:
        """Return the settings that determine the replies, besides the question."""
        out: dict[str, Any] = {"model": self.name, "weights": self._weights[:16], "ours": self.ours, "free": self.free}
        if self.free:
            out["max_tokens"] = self._max_tokens or MAX_TOKENS[question.semantics]
        return out

    def answer(self, question: Question, pictures: Iterable[tuple[str, Image.Image]]) -> Generator[Reply]:
        """Yield replies in order, batch by batch."""
        if not self.ours:
            yield from self._ask(question, pictures)
            return
        if question.examples or question.crop != "whole":
            raise ConfigError(
                f"{self.name} is a SemanticFace model and is run as it was trained: whole pictures, no examples."
            )
        yield from self._predict(question, pictures)

    # --- SemanticFace models --------------------------------------------------------------------------------------

    def _predict(self, question: Question, pictures: Iterable[tuple[str, Image.Image]]) -> Generator[Reply]:
        predictor = self._engine(question)
        assert isinstance(predictor, Predictor)

        def named() -> Iterator[Image.Image]:
            for name, picture in pictures:
                copy = picture.copy()
                copy.filename = name  # type: ignore[attr-defined]  # becomes Prediction.image
                yield copy

        start = time.monotonic()
        for prediction in predictor.stream(named(), batch_size=self._batch_size):
            now = time.monotonic()
            status = "ok" if prediction.text else prediction.status
            reason = prediction.reason.removeprefix(f"{prediction.image}: ")
            yield Reply(prediction.image, prediction.text, status, reason, prediction.box, now - start)
            start = now

    # --- other models ---------------------------------------------------------------------------------------------

    def _ask(self, question: Question, pictures: Iterable[tuple[str, Image.Image]]) -> Generator[Reply]:
        source = iter(pictures)
        while chunk := list(islice(source, self._batch_size)):
            inputs: list[tuple[str, Image.Image, Box | None]] = []
            for name, picture in chunk:
                try:
                    inputs.append((name, *apply_crop(picture, question.crop)))
                except PictureError as error:
                    yield Reply(name, status=error.code, reason=str(error))
            if inputs:
                yield from self._batch(question, inputs)

    def _batch(self, question: Question, batch: list[tuple[str, Image.Image, Box | None]]) -> list[Reply]:
        start = time.monotonic()
        try:
            inputs = self.inputs(question, [picture for _, picture, _ in batch])
            texts = self._free(question, inputs) if self.free else self._constrained(question, inputs)
        except (RuntimeError, ValueError, IndexError) as error:
            # The batch may be too large for the device, or one picture may be at fault: retry one by one.
            if len(batch) > 1:
                return [reply for one in batch for reply in self._batch(question, [one])]
            ((name, _, box),) = batch
            return [Reply(name, status="model_failed", reason=f"the model failed: {error}", box=box)]
        seconds = (time.monotonic() - start) / len(batch)
        n_in = inputs["input_ids"].shape[1]
        return [
            Reply(name, text, box=box, seconds=seconds, tokens_in=n_in, tokens_out=self._length(text))
            for (name, _, box), text in zip(batch, texts, strict=True)
        ]

    def _length(self, text: str) -> int:
        return len(self.bundle.tokenizer(text, add_special_tokens=False)["input_ids"])

    def inputs(self, question: Question, pictures: list[Image.Image]) -> dict[str, torch.Tensor]:
        """Return the model's inputs for each picture; all prompts have the same length.

        Pictures are padded to squares by repeating their border, and resized to the model's size.
        """
        side = self.bundle.image_size

        def square(picture: Image.Image) -> Image.Image:
            return crop_face(picture, Box(0, 0, picture.width, picture.height), side)

        turns = question.turns(pictures[0])
        chat = [
            {
                "role": turn.role,
                "content": [
                    *([{"type": "image"}] if turn.picture is not None else []),
                    {"type": "text", "text": turn.text},
                ],
            }
            for turn in turns
        ]
        processor = self.bundle.processor
        text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        examples = [square(turn.picture) for turn in turns[:-1] if turn.picture is not None]
        encoded = processor(
            images=[[*examples, square(picture)] for picture in pictures],
            text=[text] * len(pictures),
            return_tensors="pt",
        )
        model = self.bundle.model
        return {
            name: value.to(self.bundle.device, model.dtype if value.is_floating_point() else None)
            for name, value in dict(encoded).items()
        }

    def _constrained(self, question: Question, inputs: dict[str, torch.Tensor]) -> list[str]:
        engine = self._engine(question)
        assert isinstance(engine, DecodingEngine)
        return engine.generate_text(inputs)

    def _free(self, question: Question, inputs: dict[str, torch.Tensor]) -> list[str]:
        tokenizer = self.bundle.tokenizer
        ends = {end_token(self.bundle.processor, question.prompt)}
        if tokenizer.eos_token_id is not None:
            ends.add(int(tokenizer.eos_token_id))
        settings = GenerationConfig(
            max_new_tokens=self._max_tokens or MAX_TOKENS[question.semantics],
            eos_token_id=sorted(ends),
            pad_token_id=min(ends) if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id),
            do_sample=False,
        )
        with torch.inference_mode():
            generated = self.bundle.model.generate(**inputs, generation_config=settings)
        texts: list[str] = tokenizer.batch_decode(
            generated[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return texts

    def _engine(self, question: Question) -> Predictor | DecodingEngine:
        key = question.semantics, question.emotion
        if key not in self._engines:
            mode = _MODES[question.semantics]
            if self.ours:
                self._engines[key] = Predictor(self.bundle, mode=mode, emotion=question.emotion)
            else:
                decoder = AnswerDecoder(self.bundle.tokenizer, emotion=question.emotion, mode=mode)
                self._engines[key] = DecodingEngine(decoder, self.bundle.model)
        return self._engines[key]
