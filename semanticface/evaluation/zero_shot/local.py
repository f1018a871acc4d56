"""Zero-shot questions to a model on this machine: any that ``AutoModelForImageTextToText`` knows, and our own.

A model that was trained here (nano, an adapter) is asked as it was trained to be, by ``Predictor``: its own prompt, the
face found and cropped, its own readout. Any other model gets the question; its answer is written under the grammar of
``semanticface.inference.decoder`` where its tokenizer allows that, and freely where not, or where that is wanted.
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
from semanticface.evaluation.zero_shot.questions import LONGEST, Question, Reply, Semantics, look_at
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
        model: ``nano``, a folder, or a hub id.
        device: such as ``cpu`` or ``cuda``; None takes a GPU where there is one.
        batch_size: pictures at a time.
        free: let the model write without a grammar.
        max_tokens: where free answers are cut; None takes ``LONGEST``.

    Attributes:
        ours: whether it was trained here, and is asked as it was trained to be.
        name: the last part of its path or id.

    Raises:
        ModelError, ConfigError: as ``model.load_trained``; or our own model is to write freely.
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
            raise ConfigError(f"{model} was trained here, to answer in its form alone: leave out the free form.")
        self.name = Path(model).name
        self.free = free
        self.bundle: Bundle = load_trained(model, device=device or "auto")
        self._weights = files_sha256(sorted(folder.glob("*.safetensors")))
        self._batch_size = batch_size
        self._max_tokens = max_tokens
        self._readers: dict[tuple[Semantics, bool], Predictor | DecodingEngine] = {}
        self.obstacle = ""
        if not self.ours and not free:
            try:
                AnswerDecoder(self.bundle.tokenizer)
            except ModelError as error:
                self.free, self.obstacle = True, str(error)

    def record(self, question: Question) -> dict[str, Any]:
        """Return what else decides the replies."""
        told: dict[str, Any] = {"model": self.name, "weights": self._weights[:16], "ours": self.ours, "free": self.free}
        if self.free:
            told["max_tokens"] = self._max_tokens or LONGEST[question.semantics]
        return told

    def read(self, question: Question, pictures: Iterable[tuple[str, Image.Image]]) -> Generator[Reply]:
        """Yield replies in order, a batch at a time.

        Raises:
            ConfigError: examples, or a part of the pictures, for a model that was trained here.
        """
        if not self.ours:
            yield from self._ask(question, pictures)
            return
        if question.examples or question.crop != "whole":
            raise ConfigError(
                f"{self.name} was trained here and is asked as it was trained to be: whole pictures, no examples."
            )
        yield from self._predict(question, pictures)

    # --- our own models -------------------------------------------------------------------------------------------

    def _predict(self, question: Question, pictures: Iterable[tuple[str, Image.Image]]) -> Generator[Reply]:
        predictor = self._reader(question)
        assert isinstance(predictor, Predictor)

        def named() -> Iterator[Image.Image]:
            for name, picture in pictures:
                shown = picture.copy()
                shown.filename = name  # type: ignore[attr-defined]  # what predictions are named by
                yield shown

        began = time.monotonic()
        for said in predictor.stream(named(), batch_size=self._batch_size):
            now = time.monotonic()
            status = "ok" if said.text else said.status
            reason = said.reason.removeprefix(f"{said.image}: ")
            yield Reply(said.image, said.text, status, reason, said.box, now - began)
            began = now

    # --- any other ------------------------------------------------------------------------------------------------

    def _ask(self, question: Question, pictures: Iterable[tuple[str, Image.Image]]) -> Generator[Reply]:
        source = iter(pictures)
        while chunk := list(islice(source, self._batch_size)):
            looks: list[tuple[str, Image.Image, Box | None]] = []
            for name, picture in chunk:
                try:
                    looks.append((name, *look_at(picture, question.crop)))
                except PictureError as error:
                    yield Reply(name, status=error.code, reason=str(error))
            if looks:
                yield from self._batch(question, looks)

    def _batch(self, question: Question, looks: list[tuple[str, Image.Image, Box | None]]) -> list[Reply]:
        began = time.monotonic()
        try:
            inputs = self.inputs(question, [picture for _, picture, _ in looks])
            texts = self._free(question, inputs) if self.free else self._constrained(question, inputs)
        except (RuntimeError, ValueError, IndexError) as error:
            # A batch may be too large for the device, or one picture at fault: what can be answered alone, is.
            if len(looks) > 1:
                return [reply for style in looks for reply in self._batch(question, [style])]
            ((name, _, box),) = looks
            return [Reply(name, status="model_failed", reason=f"the model failed: {error}", box=box)]
        seconds = (time.monotonic() - began) / len(looks)
        n_in = inputs["input_ids"].shape[1]
        return [
            Reply(name, text, box=box, seconds=seconds, tokens_in=n_in, tokens_out=self._length(text))
            for (name, _, box), text in zip(looks, texts, strict=True)
        ]

    def _length(self, text: str) -> int:
        return len(self.bundle.tokenizer(text, add_special_tokens=False)["input_ids"])

    def inputs(self, question: Question, pictures: list[Image.Image]) -> dict[str, torch.Tensor]:
        """Return the model's inputs for asking about each picture; all prompts have one length.

        Pictures are made square, their border repeated, and brought to the model's size.
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
        engine = self._reader(question)
        assert isinstance(engine, DecodingEngine)
        return engine.generate_text(inputs)

    def _free(self, question: Question, inputs: dict[str, torch.Tensor]) -> list[str]:
        tokenizer = self.bundle.tokenizer
        ends = {end_token(self.bundle.processor, question.prompt)}
        if tokenizer.eos_token_id is not None:
            ends.add(int(tokenizer.eos_token_id))
        settings = GenerationConfig(
            max_new_tokens=self._max_tokens or LONGEST[question.semantics],
            eos_token_id=sorted(ends),
            pad_token_id=min(ends) if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id),
            do_sample=False,
        )
        with torch.inference_mode():
            written = self.bundle.model.generate(**inputs, generation_config=settings)
        texts: list[str] = tokenizer.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return texts

    def _reader(self, question: Question) -> Predictor | DecodingEngine:
        key = question.semantics, question.emotion
        if key not in self._readers:
            mode = _MODES[question.semantics]
            if self.ours:
                self._readers[key] = Predictor(self.bundle, mode=mode, emotion=question.emotion)
            else:
                decoder = AnswerDecoder(self.bundle.tokenizer, emotion=question.emotion, mode=mode)
                self._readers[key] = DecodingEngine(decoder, self.bundle.model)
        return self._readers[key]
