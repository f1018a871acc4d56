"""Sentences are replaced by false ones, and the numbers behind them compared."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from semanticface.experiments import ablations, counterfactual
from semanticface.experiments.counterfactual import FIGURES, causes, replaced
from semanticface.inference.decoder import AnswerDecoder
from semanticface.inference.engine import DecodingEngine
from semanticface.models.inputs import prompt_inputs
from semanticface.models.loading import load_trained
from semanticface.prompts import load_prompt
from semanticface.semantics.analysis import describe
from semanticface.semantics.answer import parse_answer
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.semantics.faithfulness import agreement


@pytest.fixture(scope="module")
def bundle():
    return load_trained("nano", device="cpu")


def crops(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)) for _ in range(count)]


def test_one_sentence_is_replaced_by_a_false_one():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        values = sample_coefficients(rng)
        own = describe(values)
        found, region = replaced(own, values, rng)
        assert {key for key, text in found.texts().items() if text != own.texts()[key]} == {region}
        assert {claim.source for claim in agreement(found, values).contradicts} == {region}


def test_a_given_analysis_is_taken_and_its_own_changes_nothing(bundle):
    decoder = AnswerDecoder(bundle.tokenizer, numbers="parallel", readout="mean")
    engine, inputs = DecodingEngine(decoder, bundle.model), prompt_inputs(bundle, load_prompt("distill"), crops(2))
    own = engine.generate_text(inputs)
    analyses = [parse_answer(text).analysis for text in own]
    assert [each.text for each in engine.generate(inputs, analyses=analyses)] == own
    other = [describe(sample_coefficients(np.random.default_rng(seed))) for seed in range(2)]
    assert [parse_answer(each.text).analysis for each in engine.generate(inputs, analyses=other)] == other
    with pytest.raises(ValueError, match="grammar"):
        engine.generate(inputs, analyses=[dataclasses.replace(each, symmetry="\u00e9") for each in other])


def test_figures_and_table(bundle, monkeypatch):
    monkeypatch.setattr(counterfactual, "replaced", lambda analysis, *_: (analysis, "jaw"))
    found = causes(bundle, crops(3), batch_size=2)
    assert set(found) == set(FIGURES) and found["named_change"] == found["drift"] == 0
    runs = {"semantics-first": {0: {"photo": {"causes": {"followed": 0.25, "named_change": 0.1, "drift": 0.01}}}}}
    (table,) = ablations.cause_tables(runs, "photo")
    assert table.rows == [["semantics, then coefficients", "25.0 %", "0.100", "0.010"]]
    assert ablations.cause_tables({}, "photo") == []
