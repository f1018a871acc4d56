"""Asking a vision-language model that was not trained here: the question, its examples, and what a reply is worth.

A question is the same for every picture: a prompt that explains the 52 actions (``prompts/``), with or without
semantics, and perhaps examples, rendered faces with their true answers, shown before the picture. *With semantics* the
model describes the face first and gives the numbers in the light of its own words, as SemanticFace teaches models to;
*without* it gives the numbers alone.

Replies are read by ``answer.parse_answer``: 52 numbers in [0, 1], or a reason why there are none.
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
from semanticface.vision.face_detector import detect_faces
from semanticface.vision.image_io import load_picture

Semantics = Literal["with", "without"]
Crop = Literal["whole", "face"]
"""What a model is shown: the whole picture, or the face that the package's finder finds in it."""

EXAMPLE_SUBJECT = 8_500_000
"""Examples show people from this number on, who are in no test set and in no training set."""
MAX_EXAMPLES = 16
EXAMPLE_LOOKS = ("toon", "drawn", "photo")
"""Looks of the examples before pictures of no known look, in turn."""
LONGEST = {"with": 2048, "without": 1024}
"""Tokens after which a reply is cut; a full answer takes about 800, its numbers alone about 510, where digits are
spelled one by one and no space is written."""

_NEXT = "Another face. Answer in the same way."
_TYPICAL = {"with": 800, "without": 510}
_CHARACTERS_A_TOKEN = 4
_PIXELS_A_TOKEN = 28 * 28  # Qwen2-VL's merged patches; other models are of the same order


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A face with its true answer.

    Attributes:
        picture: an upright RGB portrait.
        box: where in it the face is.
        answer: canonical text.
    """

    picture: Image.Image
    box: Box
    answer: str

    def shown(self, crop: Crop) -> Image.Image:
        """Return what is to be shown of it."""
        if crop == "whole":
            return self.picture
        return crop_face(self.picture, self.box, round(max(self.box.width, self.box.height)))


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One message of a chat; what a user says follows the picture."""

    role: Literal["system", "user", "assistant"]
    text: str
    picture: Image.Image | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What is asked about every picture of a set.

    Attributes:
        prompt: from ``load_prompt``.
        semantics: ``with`` words before the numbers, or ``without``.
        emotion: whether the words may say what the face suggests a person feels.
        crop: what of a picture is shown, of examples as well.
        examples: shown first, in order.
    """

    prompt: Prompt
    semantics: Semantics
    emotion: bool = True
    crop: Crop = "whole"
    examples: tuple[Example, ...] = ()

    def turns(self, picture: Image.Image) -> list[Turn]:
        """Return the chat that asks about a picture; the assistant's turn is open."""
        turns = [Turn("system", self.prompt.system)]
        text = self.prompt.user
        for example in self.examples:
            turns += [Turn("user", text, example.shown(self.crop)), Turn("assistant", example.answer)]
            text = _NEXT
        return [*turns, Turn("user", text, picture)]

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a reply, in the part of JSON Schema that servers can hold a model to."""
        return answer_schema("full" if self.semantics == "with" else "numbers", emotion=self.emotion)

    def record(self) -> dict[str, Any]:
        """Return what tells one question from another, as plain values."""
        told = [(*dataclasses.astuple(example.box), example.answer) for example in self.examples]
        return {
            "prompt": {"name": self.prompt.name, "version": self.prompt.version, "sha256": self.prompt.sha256},
            "semantics": self.semantics,
            "emotion": self.emotion,
            "crop": self.crop,
            "examples": len(self.examples),
            "examples_sha256": hashlib.sha256(repr([renderer_hash(), _NEXT, told]).encode()).hexdigest()[:16]
            if self.examples
            else None,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """What a model said of a picture.

    Attributes:
        image: the picture's name.
        text: as the model wrote it; empty where ``status`` is not ``ok``.
        status: ``ok``, or why nothing was said: a code of ``PictureError``, a ``chat.Status``, or ``model_failed``.
        reason: what the code means for this picture.
        box: where in the picture the model looked, where that is known.
        seconds: that it took, waiting included.
        tokens_in, tokens_out: as far as they are known, else 0.
        attempts: how often it was asked.
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
    """What answers questions: a local model or a server."""

    @property
    def name(self) -> str:
        """How the model is called in tables and file names."""

    def record(self, question: Question) -> dict[str, Any]:
        """Return what else, beside the question, decides the replies; plain values."""

    def read(self, question: Question, pictures: Iterable[tuple[str, Image.Image]]) -> Generator[Reply]:
        """Yield a reply for each named picture, in any order, as they come."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A reply as it is scored and shown; what ``tables.RowResult`` has, and where the model looked.

    Attributes:
        image, status, reason: as in ``Reply``; the status of text that is no answer is a code of ``AnswerError``.
        coefficients: float32[52], or None.
        analysis: the explanation, or None.
        box: where in the picture the model looked, or None.
    """

    image: str
    status: str = "ok"
    reason: str = ""
    coefficients: np.ndarray | None = None
    analysis: Analysis | None = None
    box: Box | None = None


def judge(reply: Reply, *, emotion: bool = True) -> Judged:
    """Read the answer out of a reply; with ``emotion`` off, what it says of emotion is dropped."""
    if reply.status != "ok":
        return Judged(reply.image, reply.status, f"{reply.image}: {reply.reason}", box=reply.box)
    try:
        answer = parse_answer(reply.text)
    except AnswerError as error:
        return Judged(reply.image, error.code, f"{reply.image}: {error}", box=reply.box)
    analysis = answer.analysis
    if analysis is not None and not emotion:
        analysis = dataclasses.replace(analysis, emotional_implication=None)
    return Judged(reply.image, "ok", "", answer.coefficients, analysis, reply.box)


def question(
    semantics: Semantics,
    *,
    emotion: bool = True,
    crop: Crop = "whole",
    examples: int = 0,
    looks: Sequence[str] = EXAMPLE_LOOKS,
    seed: int = 0,
) -> Question:
    """Return a question in its usual form.

    Args:
        semantics: whether the answer has words.
        emotion: whether those speak of emotion.
        crop: what of each picture is shown.
        examples: how many faces with answers are shown first, up to ``MAX_EXAMPLES``.
        looks: of the examples, in turn.
        seed: of the examples' expressions.

    Raises:
        ValueError: too many examples, or fewer than none.
    """
    if not 0 <= examples <= MAX_EXAMPLES:
        raise ValueError(f"examples is {examples}: give 0 to {MAX_EXAMPLES}")
    prompt = load_prompt("zero_shot" if semantics == "with" else "zero_shot_numbers", emotion=emotion)
    shown = [_example(looks[i % len(looks)], i, seed, semantics == "with", emotion) for i in range(examples)]
    return Question(prompt, semantics, emotion, crop, tuple(shown))


@lru_cache(maxsize=4 * MAX_EXAMPLES)
def _example(style: str, number: int, seed: int, words: bool, emotion: bool) -> Example:
    settings = RenderSettings(looks={style: 1.0}, size=512, emotion=emotion)
    coefficients = sample_coefficients(np.random.default_rng([EXAMPLE_SUBJECT, seed, number]))
    subject = EXAMPLE_SUBJECT + number
    row = render_row(settings, coefficients, style=style, subject=subject, shot=subject, seed=seed)
    answer = row["answer"] if words else format_answer(np.round(coefficients, 2), None)
    return Example(load_picture(row["picture"]), Box(*map(float, row["box"])), answer)


def look_at(picture: Image.Image, crop: Crop) -> tuple[Image.Image, Box | None]:
    """Return what is shown of a picture, and the face's box where only that is.

    Raises:
        PictureError: ``no_face``.
    """
    if crop == "whole":
        return picture, None
    faces = detect_faces(picture)
    if not faces:
        raise PictureError("no_face", "no face found. Show the whole picture with --crop whole.")
    box = faces[0].square()
    return crop_face(picture, box, max(1, round(box.width))), box


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is about to be spent.

    Attributes:
        requests: replies still wanted.
        tokens_in, tokens_out: of all of them, roughly.
    """

    requests: int
    tokens_in: int
    tokens_out: int

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.requests + other.requests, self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out
        )

    def told(self, price: tuple[float, float] | None = None) -> str:
        """Return it in words, with what it costs where ``price`` gives both million tokens' prices."""
        tokens = f"about {_many(self.tokens_in)} tokens in and {_many(self.tokens_out)} out"
        return f"{self.requests} replies to get, {tokens}{_cost(self.tokens_in, self.tokens_out, price)}"


def estimate(asked: Question, requests: int, side: int) -> Estimate:
    """Return what ``requests`` pictures of about ``side`` pixels cost, roughly: tokenizers and models differ."""
    turns = asked.turns(Image.new("RGB", (side, side)))
    words = sum(len(turn.text) for turn in turns) / _CHARACTERS_A_TOKEN
    pixels = sum(turn.picture.width * turn.picture.height for turn in turns if turn.picture is not None)
    tokens_in = round(words + pixels / _PIXELS_A_TOKEN)
    return Estimate(requests, requests * tokens_in, requests * _TYPICAL[asked.semantics])


def spent(tokens_in: int, tokens_out: int, price: tuple[float, float] | None = None) -> str:
    """Return as a sentence what replies took, by the model's own count."""
    return f"{_many(tokens_in)} tokens in and {_many(tokens_out)} out{_cost(tokens_in, tokens_out, price)}"


def _cost(tokens_in: int, tokens_out: int, price: tuple[float, float] | None) -> str:
    return "" if price is None else f": {(tokens_in * price[0] + tokens_out * price[1]) / 1e6:.2f} at the price given"


def _many(count: int) -> str:
    return f"{count / 1e6:.2f} million" if count >= 100_000 else f"{count:,}"
