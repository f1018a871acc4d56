"""The language stage of nano: what learns, that it goes on where it stopped, and answers in either order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from transformers import AutoModel

from semanticface.experiments.ablations import VARIANTS, answer
from semanticface.experiments.numbers_first import encode_analysis_after
from semanticface.models import nano
from semanticface.models.answer_tokens import IGNORE_INDEX, AnswerEncoder
from semanticface.models.loading import Bundle
from semanticface.prompts import load_prompt
from semanticface.recipe import prompt_record
from semanticface.semantics.analysis import describe, describe_many
from semanticface.semantics.answer import format_answer, parse_answer
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.training.nano_pretraining import (
    PretrainData,
    PretrainExample,
    PretrainSettings,
    make_targets,
    new_model,
    pretrain_language_model,
)
from semanticface.training.nano_vision import feature_maps

LANGUAGE = {key: variant.teach for key, variant in VARIANTS.items() if variant.teach} | {"pretraining": make_targets}


def vectors(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([sample_coefficients(rng) for _ in range(count)]).astype(np.float32)


@pytest.fixture(scope="module")
def processor():
    prompt = load_prompt("distill")
    texts = [format_answer(c, a) for c, a in zip(vectors(60), describe_many(vectors(60)), strict=True)]
    return nano.build_processor(nano.build_tokenizer([*texts, *[prompt.system, prompt.user] * 60]))


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(1)
    return AutoModel.from_config(nano.vision_config()).eval()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(3).integers(0, 256, (4, nano.IMAGE_SIZE, nano.IMAGE_SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def sights(tower, pixels):
    (maps,) = feature_maps(tower, pixels)
    return PretrainData(maps.half().numpy(), vectors(4, 1), vectors(4, 2), vectors(4, 1))


@pytest.fixture
def shown(sights):
    values = sights.truth[0]
    return PretrainExample(values, describe(values), describe(sights.seen[0]), 0)


def taught(processor, tower, sights, teach, file, *, samples=6, batch=2, **options):
    model = new_model(processor.tokenizer, tower, 0)
    settings = PretrainSettings(samples, batch=batch)
    return model, pretrain_language_model(
        model, processor, sights, teach, settings, Accelerator(cpu=True), file, **options
    )


@pytest.mark.parametrize("key", LANGUAGE)
def test_all_of_the_language_model_learns_and_the_tower_does_not(key, processor, tower, sights, tmp_path):
    before = {name: weight.clone() for name, weight in new_model(processor.tokenizer, tower, 0).state_dict().items()}
    model, taken = taught(processor, tower, sights, LANGUAGE[key], tmp_path / "language.pt")
    assert taken == 3
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]) == ("vision_tower" in name), name
        assert weight.isfinite().all()


def test_a_stopped_training_ends_with_the_same_weights(processor, tower, sights, tmp_path):
    whole, _ = taught(processor, tower, sights, make_targets, tmp_path / "whole.pt")
    calls = []

    def stops(tokens, shown):
        calls.append(shown)
        if len(calls) > 4:
            raise RuntimeError("pulled the plug")
        return make_targets(tokens, shown)

    with pytest.raises(RuntimeError, match="plug"):
        taught(processor, tower, sights, stops, tmp_path / "language.pt", save_every=1)
    assert torch.load(tmp_path / "language.pt", weights_only=True)["step"] in (1, 2)
    model, taken = taught(processor, tower, sights, make_targets, tmp_path / "language.pt")
    assert taken in (1, 2)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, whole.state_dict()[name]), name


def test_a_fifth_of_few_steps_warms_up_and_never_more_than_nano_has():
    short, long = PretrainSettings(320), PretrainSettings(80_000)
    assert [short.rate(step) for step in (0, 1, 2)] == [0.5, 1.0, 1.0]
    assert long.rate(199) == 1.0
    assert long.rate(99) == 0.5
    assert short.rate(9) < 0.1


def test_what_stands_behind_what_in_the_variants(processor, shown):
    tokenizer = processor.tokenizer
    tokens = AnswerEncoder(tokenizer, tokenizer.eos_token_id, numbers="parallel")
    lessons = {key: VARIANTS[key].teach(tokens, shown) for key in VARIANTS if VARIANTS[key].teach}
    assert all(len(found) == 1 for found in lessons.values())

    def learnt(key, numbers):
        (lesson,) = lessons[key]
        kept = zip(lesson.labels, lesson.loss_weights, lesson.number_ids, strict=True)
        return [
            label for label, weight, number in kept if weight and label != IGNORE_INDEX and (number >= 0) == numbers
        ]

    values = [tokens.number_tokens.value_tokens[round(100 * float(value))][0] for value in shown.values]
    assert all(learnt(key, True) == values for key in lessons)
    assert not learnt("coefficients", False)
    assert learnt("semantics-first", False) == learnt("semantics-first-seen", False)
    words = tokenizer.decode(learnt("semantics-first", False), clean_up_tokenization_spaces=False)
    assert shown.analysis.symmetry in words
    # Where numbers are read behind what is seen, the true words are in a group of their own, which they do not see.
    (seen,) = lessons["semantics-first-seen"]
    groups = {branch // 64 for branch in seen.branch_ids}
    assert groups == {1, 2}
    behind = [token for token, branch in zip(seen.ids, seen.branch_ids, strict=True) if branch == 128]
    assert shown.glimpse.symmetry in tokenizer.decode(behind, clean_up_tokenization_spaces=False)


def test_words_behind_numbers_spell_an_answer_and_are_all_that_is_learnt(processor, shown):
    tokenizer = processor.tokenizer
    tokens = AnswerEncoder(tokenizer, tokenizer.eos_token_id, numbers="parallel")
    lesson = encode_analysis_after(tokens, shown.values, shown.analysis)
    text = tokenizer.decode(lesson.ids, clean_up_tokenization_spaces=False)
    assert text.startswith('{"arkit":{"eyeBlinkLeft":')
    found = parse_answer(text)
    assert found.analysis == shown.analysis
    assert np.abs(found.coefficients - shown.values).max() <= 0.005001
    learnt = [label for label, weight in zip(lesson.labels, lesson.loss_weights, strict=True) if weight]
    told = tokenizer.decode(learnt, clean_up_tokenization_spaces=False)
    assert told.startswith(shown.analysis.expression_category)
    assert told.endswith('"}}<|end|>')
    assert lesson.labels[:-1] == lesson.ids


def test_what_was_taught_is_what_is_read(processor, tower, pixels, sights, tmp_path):
    """A picture learnt by heart comes back, so lessons and reading mean the same tokens at the same places."""
    one = PretrainData(sights.maps[:1], sights.truth[:1], sights.truth[:1], sights.truth[:1])
    teach = VARIANTS["coefficients-first"].teach
    model, _ = taught(processor, tower, one, teach, tmp_path / "language.pt", samples=60, batch=1)
    recipe = {
        "prompt": prompt_record(load_prompt("distill")), "emotion": True, "readout": "mean", "numbers": "parallel",
    }  # fmt: skip
    bundle = Bundle(model, processor, processor.tokenizer, nano.IMAGE_SIZE, recipe)
    read, analyses = answer(bundle, "numbers, words", [Image.fromarray(pixels[0])])
    assert analyses == [describe(one.truth[0])]
    assert np.abs(read[0] - one.truth[0]).mean() < 0.05
