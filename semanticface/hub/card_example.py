"""The example of a model card: faces, each with the model's prediction rendered on the plain head.

By default the faces are rendered, of people in no training set or benchmark, with expressions sampled by seed: no real
person's face, and no hand-picked example.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from semanticface import arkit, rendering
from semanticface.errors import PictureError
from semanticface.evaluation.metrics import ACTIVE
from semanticface.inference.predictor import Prediction, Predictor
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.vision.image_io import encode_jpeg, load_picture

SIDE = 320
"""Side of each tile in pixels."""
_PERSON = 9_000_001  # training sets number from 0, the detector's from 5,000,000, the benchmark's from 8,000,000
_STYLES = ("photo", "toon")
_COLUMNS = 80
_GAP, _PAPER = 8, (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Example:
    """A model's answers for example pictures.

    Attributes:
        picture: JPEG without metadata: each input, with the prediction on the plain head to its right.
        caption: a sentence.
        answers: the formatted answer for each picture.
    """

    picture: bytes
    caption: str
    answers: tuple[str, ...]


def rendered_example(predictor: Predictor, seed: int = 0) -> Example:
    """Return the model's answers for rendered faces, determined by the seed."""
    rng = np.random.default_rng(seed)
    inputs = []
    for place, style in enumerate(_STYLES):
        vector = sample_coefficients(rng)
        one = _PERSON + place + len(_STYLES) * seed
        drawn = rendering.render(vector, style=style, subject=one, shot=one, size=2 * SIDE)
        inputs.append(Image.fromarray(drawn.image))
    caption = (
        "Two faces rendered by this project, of people in no training set, with random expressions (seed "
        f"{seed}); to the right of each, the model's prediction on the plain head."
    )
    return _example(predictor, inputs, ("photo style", "toon style"), caption)


def given_example(predictor: Predictor, path: Path) -> Example:
    """Return the model's answer for the user's picture; only the file's pixels are used."""
    caption = "A picture, and to its right the model's prediction on the plain head."
    return _example(predictor, [load_picture(path)], ("picture",), caption)


def _example(predictor: Predictor, inputs: Sequence[Image.Image], names: Sequence[str], caption: str) -> Example:
    tiles: list[Image.Image] = []
    answers = []
    for name, picture, found in zip(names, inputs, predictor(inputs), strict=True):
        if found.coefficients is None:
            raise PictureError(found.status, f"{name}: {found.reason} A card needs an example with an answer.")
        head = rendering.render(found.coefficients, subject=None, size=SIDE, framing="crop").image
        tiles += [ImageOps.fit(picture, (SIDE, SIDE)), Image.fromarray(head)]
        answers.append(f"{name}\n{_formatted(found)}")
    sheet = Image.new("RGB", (len(tiles) * (SIDE + _GAP) - _GAP, SIDE), _PAPER)
    for place, tile in enumerate(tiles):
        sheet.paste(tile, (place * (SIDE + _GAP), 0))
    return Example(encode_jpeg(sheet, 90), caption, tuple(answers))


def _formatted(found: Prediction) -> str:
    assert found.coefficients is not None
    lines = []
    if found.analysis is not None:
        lines.append(_line("expression", found.analysis.expression_category))
        if found.analysis.emotional_implication is not None:
            lines.append(_line("suggests", found.analysis.emotional_implication))
        lines += [_line(region, text) for region, text in found.analysis.muscle_movements.items()]
        lines.append(_line("symmetry", found.analysis.symmetry))
    strongest = sorted(arkit.by_name(found.coefficients).items(), key=lambda item: -item[1])
    active = [f"{name} {value:.2f}" for name, value in strongest if value > ACTIVE][:8]
    lines.append(_line("active", ", ".join(active) or f"nothing above {ACTIVE}"))
    return "\n".join(lines)


def _line(name: str, text: str) -> str:
    """Return a line, wrapped so that a card does not scroll."""
    return textwrap.fill(text, _COLUMNS, initial_indent=f"  {name:<10}  ", subsequent_indent=" " * 14)
