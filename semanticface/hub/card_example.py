"""The example of a model card: a face, and what the model itself reads off it, drawn on the plain head.

Unless a picture is given the faces are rendered on the spot, of people that no training set and no benchmark contains,
with expressions drawn by a seed: nobody's face, and nobody's choice of a good one.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from semanticface import arkit, rendering
from semanticface.errors import PictureError
from semanticface.evaluation.metrics import ACTIVE
from semanticface.inference.predictor import Prediction, Predictor
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.vision.image_io import load_picture

SIDE = 320
"""Of each tile, in pixels."""
_PERSON = 9_000_001  # training sets count from 0, the finder's from 5,000,000, the benchmark's from 8,000,000
_LOOKS = ("photo", "toon")
_COLUMNS = 80
_GAP, _PAPER = 8, (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Example:
    """A model's answer to pictures, to be shown.

    Attributes:
        picture: JPEG without metadata: each input, and right of it the prediction on the plain head.
        caption: a sentence on what it shows.
        answers: what the model said of each, for readers.
    """

    picture: bytes
    caption: str
    answers: tuple[str, ...]


def rendered_example(predictor: Predictor, seed: int = 0) -> Example:
    """Return the model's answers to rendered faces, the same for the same seed."""
    rng = np.random.default_rng(seed)
    inputs = []
    for place, style in enumerate(_LOOKS):
        vector = sample_coefficients(rng)
        one = _PERSON + place + len(_LOOKS) * seed
        drawn = rendering.render(vector, style=style, subject=one, shot=one, size=2 * SIDE)
        inputs.append(Image.fromarray(drawn.image))
    caption = (
        "Two faces that this project rendered, of people in no training set, with expressions drawn at random (seed "
        f"{seed}); right of each, on the plain head, what the model reads."
    )
    return _example(predictor, inputs, ("photo look", "toon look"), caption)


def given_example(predictor: Predictor, path: Path) -> Example:
    """Return the model's answer to a picture of the user's; of the file only its pixels are taken.

    Raises:
        PictureError: it cannot be read, or there is no answer to it.
    """
    caption = "A picture, and right of it, on the plain head, what the model reads."
    return _example(predictor, [load_picture(path)], ("picture",), caption)


def _example(predictor: Predictor, inputs: Sequence[Image.Image], names: Sequence[str], caption: str) -> Example:
    tiles: list[Image.Image] = []
    answers = []
    for name, picture, found in zip(names, inputs, predictor(inputs), strict=True):
        if found.coefficients is None:
            raise PictureError(found.status, f"{name}: {found.reason} A card needs an example with an answer.")
        head = rendering.render(found.coefficients, subject=None, size=SIDE, framing="crop").image
        tiles += [ImageOps.fit(picture, (SIDE, SIDE)), Image.fromarray(head)]
        answers.append(f"{name}\n{_said(found)}")
    sheet = Image.new("RGB", (len(tiles) * (SIDE + _GAP) - _GAP, SIDE), _PAPER)
    for place, tile in enumerate(tiles):
        sheet.paste(tile, (place * (SIDE + _GAP), 0))
    out = BytesIO()
    sheet.save(out, "JPEG", quality=90)
    return Example(out.getvalue(), caption, tuple(answers))


def _said(found: Prediction) -> str:
    assert found.coefficients is not None
    lines = []
    if found.analysis is not None:
        lines.append(_line("expression", found.analysis.expression_category))
        if found.analysis.emotional_implication is not None:
            lines.append(_line("suggests", found.analysis.emotional_implication))
        lines += [_line(region, words) for region, words in found.analysis.muscle_movements.items()]
        lines.append(_line("symmetry", found.analysis.symmetry))
    strongest = sorted(arkit.by_name(found.coefficients).items(), key=lambda item: -item[1])
    active = [f"{name} {value:.2f}" for name, value in strongest if value > ACTIVE][:8]
    lines.append(_line("active", ", ".join(active) or f"nothing above {ACTIVE}"))
    return "\n".join(lines)


def _line(name: str, words: str) -> str:
    """Return a line that wraps where a card would otherwise scroll."""
    return textwrap.fill(words, _COLUMNS, initial_indent=f"  {name:<10}  ", subsequent_indent=" " * 14)
