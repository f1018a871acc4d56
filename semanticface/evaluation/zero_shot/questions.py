"""Zero-shot questions to any vision-language model: the prompt, few-shot examples, and the parsing of replies.

A question is the same for every picture: a prompt that explains the 52 actions (``prompts/``), with or without
semantics, and optionally few-shot examples: rendered faces with their true answers, as earlier turns of the chat. *With
semantics* the model describes the face first and conditions the numbers on its own analysis, as SemanticFace does;
*without* it gives only the numbers.

Replies are parsed by ``answer.parse_answer``: 52 numbers in [0, 1], or a reason why there are none.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from semanticface.data.rendered import RenderSettings, render_row, renderer_hash
from semanticface.errors import AnswerError, PictureError
from semanticface.prompts import Prompt, load_prompt
from semanticface.semantics.analysis import Analysis
from semanticface.semantics.answer import answer_schema, format_answer, parse_answer
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.vision.crop import Box, crop_face
from semanticface.vision.face_detector import detect_faces, main_face
from semanticface.vision.image_io import load_picture

Semantics = Literal["with", "without"]
Crop = Literal["whole", "face"]
"""The model's input: the whole picture, or the detected face."""

EXAMPLE_SUBJECT = 8_500_000
"""Examples show people from this number on, who are in no test or training set."""
MAX_EXAMPLES = 16
EXAMPLE_STYLES = ("toon", "drawn", "photo")
"""Styles of the examples, in turn, for pictures of unknown style."""
MAX_TOKENS = {"with": 2048, "without": 1024}
"""Limits of a reply; a full answer takes about 800 tokens, its numbers alone about 510, with one token per digit and no
spaces."""

_NEXT = "Another face. Answer in the same way."
_TYPICAL = {"with": 800, "without": 510}
_CHARACTERS_A_TOKEN = 4
_PIXELS_A_TOKEN = 28 * 28  # Qwen2-VL's merged patches; other models are of the same order


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A few-shot example: a face with its true answer.

    Attributes:
        picture: an upright RGB portrait.
        box: the face within it.
        answer: canonical text.
    """

    picture: Image.Image
    box: Box
    answer: str

    def cropped(self, crop: Crop) -> Image.Image:
        """Return the model's input."""
        if crop == "whole":
            return self.picture
        return crop_face(self.picture, self.box, round(max(self.box.width, self.box.height)))


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One message of a chat; a user's text follows the picture."""

    role: Literal["system", "user", "assistant"]
    text: str
    picture: Image.Image | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A question about every picture of a set.

    Attributes:
        prompt: from ``load_prompt``.
        semantics: ``with`` or ``without`` an analysis before the numbers.
        emotion: whether the analysis may say what emotion the face suggests.
        crop: the part of a picture that the model gets, also of examples.
        examples: few-shot examples, in order.
    """

    prompt: Prompt
    semantics: Semantics
    emotion: bool = True
    crop: Crop = "whole"
    examples: tuple[Example, ...] = ()

    def turns(self, picture: Image.Image) -> list[Turn]:
        """Return the chat about a picture, up to the assistant's turn."""
        turns = [Turn("system", self.prompt.system)]
        text = self.prompt.user
        for example in self.examples:
            turns += [Turn("user", text, example.cropped(self.crop)), Turn("assistant", example.answer)]
            text = _NEXT
        return [*turns, Turn("user", text, picture)]

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a reply, within the subset that servers can enforce."""
        return answer_schema("full" if self.semantics == "with" else "numbers", emotion=self.emotion)

    def record(self) -> dict[str, Any]:
        """Return what identifies the question, as plain values."""
        shown = [(*dataclasses.astuple(example.box), example.answer) for example in self.examples]
        return {
            "prompt": {"name": self.prompt.name, "version": self.prompt.version, "sha256": self.prompt.sha256},
            "semantics": self.semantics,
            "emotion": self.emotion,
            "crop": self.crop,
            "examples": len(self.examples),
            "examples_sha256": hashlib.sha256(repr([renderer_hash(), _NEXT, shown]).encode()).hexdigest()[:16]
            if self.examples
            else None,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """A model's reply about a picture.

    Attributes:
        image: the picture's name.
        text: the generated text; empty if ``status`` is not ``ok``.
        status: ``ok``, or why there is no text: a code of ``PictureError``, a ``chat.Status``, or ``model_failed``.
        reason: details of the status for this picture.
        box: the model's crop within the picture, if known.
        seconds: including waiting.
        tokens_in, tokens_out: 0 if unknown.
        attempts: number of requests.
    """

    image: str
    text: str = ""
    status: str = "ok"
    reason: str = ""
    box: Box | None = None
    seconds: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    attempts: int = 1


class ZeroShotModel(Protocol):
    """A local model or a server."""

    @property
    def name(self) -> str:
        """The model's name in tables and file names."""

    def record(self, question: Question) -> dict[str, Any]:
        """Return the settings that determine the replies, besides the question; plain values."""

    def answer(self, question: Question, pictures: Iterable[tuple[str, Image.Image]]) -> Generator[Reply]:
        """Yield a reply for each named picture, in any order, as they arrive."""


@dataclass(frozen=True, slots=True, eq=False)
class ParsedReply:
    """A parsed reply: the fields of ``tables.RowResult`` and the model's crop.

    Attributes:
        image, status, reason: as in ``Reply``; text that is no answer has a code of ``AnswerError`` as its status.
        coefficients: float32[52], or None.
        analysis: the analysis, or None.
        box: the model's crop within the picture, or None.
    """

    image: str
    status: str = "ok"
    reason: str = ""
    coefficients: np.ndarray | None = None
    analysis: Analysis | None = None
    box: Box | None = None


def parse_reply(reply: Reply, *, emotion: bool = True) -> ParsedReply:
    """Parse the answer in a reply; without ``emotion``, its emotional implication is dropped."""
    if reply.status != "ok":
        return ParsedReply(reply.image, reply.status, f"{reply.image}: {reply.reason}", box=reply.box)
    try:
        answer = parse_answer(reply.text)
    except AnswerError as error:
        return ParsedReply(reply.image, error.code, f"{reply.image}: {error}", box=reply.box)
    analysis = answer.analysis
    if analysis is not None and not emotion:
        analysis = dataclasses.replace(analysis, emotional_implication=None)
    return ParsedReply(reply.image, "ok", "", answer.coefficients, analysis, reply.box)


def question(
    semantics: Semantics,
    *,
    emotion: bool = True,
    crop: Crop = "whole",
    examples: int = 0,
    styles: Sequence[str] = EXAMPLE_STYLES,
    seed: int = 0,
) -> Question:
    """Build a question with one of the project's prompts.

    Args:
        semantics: whether the answer has an analysis.
        emotion: whether the analysis covers emotion.
        crop: the part of each picture that the model gets.
        examples: number of few-shot examples, up to ``MAX_EXAMPLES``.
        styles: of the examples, in turn.
        seed: of the examples' expressions.
    """
    if not 0 <= examples <= MAX_EXAMPLES:
        raise ValueError(f"examples is {examples}: give 0 to {MAX_EXAMPLES}")
    prompt = load_prompt("zero_shot" if semantics == "with" else "zero_shot_numbers", emotion=emotion)
    shown = [_example(styles[i % len(styles)], i, seed, semantics == "with", emotion) for i in range(examples)]
    return Question(prompt, semantics, emotion, crop, tuple(shown))


@lru_cache(maxsize=4 * MAX_EXAMPLES)
def _example(style: str, number: int, seed: int, semantics: bool, emotion: bool) -> Example:
    settings = RenderSettings(looks={style: 1.0}, size=512, emotion=emotion)
    coefficients = sample_coefficients(np.random.default_rng([EXAMPLE_SUBJECT, seed, number]))
    subject = EXAMPLE_SUBJECT + number
    row = render_row(settings, coefficients, style=style, subject=subject, shot=subject, seed=seed)
    answer = row["answer"] if semantics else format_answer(np.round(coefficients, 2), None)
    return Example(load_picture(row["picture"]), Box(*map(float, row["box"])), answer)


def apply_crop(picture: Image.Image, crop: Crop) -> tuple[Image.Image, Box | None]:
    """Return the model's input, and the face's box if it was cropped; raises a PictureError ``no_face``."""
    if crop == "whole":
        return picture, None
    faces = detect_faces(picture)
    if not faces:
        raise PictureError("no_face", "no face found. Use the whole picture with --crop whole.")
    box = main_face(faces).square()
    return crop_face(picture, box, max(1, round(box.width))), box


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected cost of a run.

    Attributes:
        requests: replies still missing.
        tokens_in, tokens_out: rough totals.
    """

    requests: int
    tokens_in: int
    tokens_out: int

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.requests + other.requests, self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out
        )

    def summary(self, price: tuple[float, float] | None = None) -> str:
        """Return the estimate in words, with its cost if ``price`` gives the prices per million tokens, in and out."""
        tokens = f"about {_amount(self.tokens_in)} tokens in and {_amount(self.tokens_out)} out"
        return f"{self.requests} replies to get, {tokens}{_cost(self.tokens_in, self.tokens_out, price)}"


def estimate(question: Question, requests: int, side: int) -> Estimate:
    """Roughly estimate the tokens for ``requests`` pictures of about ``side`` pixels; tokenizers and models differ."""
    turns = question.turns(Image.new("RGB", (side, side)))
    text = sum(len(turn.text) for turn in turns) / _CHARACTERS_A_TOKEN
    pixels = sum(turn.picture.width * turn.picture.height for turn in turns if turn.picture is not None)
    tokens_in = round(text + pixels / _PIXELS_A_TOKEN)
    return Estimate(requests, requests * tokens_in, requests * _TYPICAL[question.semantics])


def spent(tokens_in: int, tokens_out: int, price: tuple[float, float] | None = None) -> str:
    """Describe the tokens used, by the model's own count."""
    return f"{_amount(tokens_in)} tokens in and {_amount(tokens_out)} out{_cost(tokens_in, tokens_out, price)}"


def _cost(tokens_in: int, tokens_out: int, price: tuple[float, float] | None) -> str:
    return "" if price is None else f": {(tokens_in * price[0] + tokens_out * price[1]) / 1e6:.2f} at the price given"


def _amount(count: int) -> str:
    return f"{count / 1e6:.2f} million" if count >= 100_000 else f"{count:,}"
