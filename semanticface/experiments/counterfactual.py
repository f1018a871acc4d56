"""What an analysis causes: one sentence is replaced by another before the numbers are decoded.

If the numbers follow from the analysis, those that the new sentence names change to what it says, and only they. If
they follow from the picture, nothing changes. Numbers decoded before the analysis cannot change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image

from semanticface.arkit import NAMES, REGION_INDEX, REGIONS, to_hundredths
from semanticface.inference.decoder import AnswerDecoder
from semanticface.inference.engine import DecodingEngine
from semanticface.models.inputs import prompt_inputs
from semanticface.models.loading import Bundle
from semanticface.prompts import load_prompt
from semanticface.semantics.analysis import Analysis, describe
from semanticface.semantics.answer import parse_answer
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.semantics.faithfulness import Faces, text_claims
from semanticface.semantics.movements import RELAXED

FIGURES = {
    "followed": "numbers follow the new sentence",
    "named_change": "mean change, actions named",
    "drift": "mean change, other regions",
}
"""Keys of ``causes``, and how tables call them."""


def replaced(analysis: Analysis, coefficients: np.ndarray, rng: np.random.Generator) -> tuple[Analysis, str]:
    """Return an analysis with another sentence about one region, false for the [52] coefficients, and the region."""
    faces = Faces(to_hundredths(coefficients)[None])
    while True:
        other = describe(sample_coefficients(rng)).muscle_movements
        regions = [region for region in REGIONS if other[region] != RELAXED[region]]
        false = [
            region
            for region in regions
            if not all(faces.first_holds(claim) for claim in text_claims(region, other[region]))
        ]
        if false:
            region = str(rng.choice(false))
            movements = {**analysis.muscle_movements, region: other[region]}
            return dataclasses.replace(analysis, muscle_movements=movements), region


def causes(bundle: Bundle, crops: Sequence[Image.Image], *, seed: int = 0, batch_size: int = 16) -> dict[str, float]:
    """Replace one sentence of each picture's own analysis, and compare the numbers behind it.

    Args:
        bundle: a model that decodes its analysis first.
        crops: of ``bundle.image_size``.
        seed: of the sentences.
        batch_size: pictures per batch.

    Returns:
        ``followed``, the share of the new sentences that hold for the numbers behind them (none held before);
        ``named_change`` and ``drift``, the mean absolute change of the coefficients that the new sentence is about, and
        of those in other regions.
    """
    recipe, rng = bundle.recipe, np.random.default_rng(seed)
    prompt = load_prompt(recipe["prompt"]["name"], emotion=recipe["emotion"])
    decoder = AnswerDecoder(
        bundle.tokenizer, emotion=recipe["emotion"], readout=recipe["readout"], numbers=recipe["numbers"]
    )
    engine = DecodingEngine(decoder, bundle.model)
    rows: list[tuple[float, float, float]] = []
    for start in range(0, len(crops), batch_size):
        inputs = prompt_inputs(bundle, prompt, crops[start : start + batch_size])
        before = [parse_answer(text) for text in engine.generate_text(inputs)]
        edits = [replaced(each.analysis, each.coefficients, rng) for each in before if each.analysis is not None]
        answers = engine.generate(inputs, analyses=[analysis for analysis, _ in edits])
        for old, answer, (analysis, region) in zip(before, answers, edits, strict=True):
            new = parse_answer(answer.text).coefficients
            claims = text_claims(region, analysis.muscle_movements[region])
            faces, change = Faces(to_hundredths(new)[None]), np.abs(new - old.coefficients)
            named = [NAMES.index(name) for claim in claims for name in claim.actions if name in NAMES]
            others = np.delete(change, [*REGION_INDEX[region], *named])
            rows.append((float(all(map(faces.first_holds, claims))), change[named].mean(), others.mean()))
    return dict(zip(FIGURES, np.mean(rows, axis=0).tolist(), strict=True))
