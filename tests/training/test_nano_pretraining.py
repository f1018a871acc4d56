"""The language stage of nano: trainable weights, resuming, and the targets of each variant."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from transformers import AutoModel

from semanticface.experiments.ablations import VARIANTS, predict
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

TARGETS = {key: variant.make_targets for key, variant in VARIANTS.items() if variant.make_targets} | {
    "pretraining": make_targets
}


def vectors(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([sample_coefficients(rng) for _ in range(count)]).astype(np.float32)


@pytest.fixture(scope="module")
def processor():
    prompt = load_prompt("distill")
    texts = [format_answer(c, a) for c, a in zip(vectors(60), describe_many(vectors(60)), strict=True)]
    return nano.build_processor(nano.build_tokenizer([*texts, *[prompt.system, prompt.user] * 60]))


@pytest.fixture(scope="module")
def vision_encoder():
    torch.manual_seed(1)
    return AutoModel.from_config(nano.vision_config()).eval()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(3).integers(0, 256, (4, nano.IMAGE_SIZE, nano.IMAGE_SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def data(vision_encoder, pixels):
    (maps,) = feature_maps(vision_encoder, pixels)
    return PretrainData(maps.half().numpy(), vectors(4, 1), vectors(4, 2), vectors(4, 1))


@pytest.fixture
def example(data):
    values = data.truth[0]
    return PretrainExample(values, describe(values), describe(data.predicted[0]), 0)


def train(processor, vision_encoder, data, targets, file, *, samples=6, batch=2, **options):
    model = new_model(processor.tokenizer, vision_encoder, 0)
    settings = PretrainSettings(samples, batch_size=batch)
    return model, pretrain_language_model(
        model, processor, data, targets, settings, Accelerator(cpu=True), file, **options
    )


@pytest.mark.parametrize("key", TARGETS)
def test_the_whole_language_model_learns_and_the_vision_encoder_does_not(
    key, processor, vision_encoder, data, tmp_path
):
    before = {
        name: weight.clone() for name, weight in new_model(processor.tokenizer, vision_encoder, 0).state_dict().items()
    }
    model, steps = train(processor, vision_encoder, data, TARGETS[key], tmp_path / "language.pt")
    assert steps == 3
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]) == ("vision_tower" in name), name
        assert weight.isfinite().all()


def test_a_stopped_training_resumes_to_the_same_weights(processor, vision_encoder, data, tmp_path):
    whole, _ = train(processor, vision_encoder, data, make_targets, tmp_path / "whole.pt")
    calls = []

    def stops(encoder, example):
        calls.append(example)
        if len(calls) > 4:
            raise RuntimeError("stopped")
        return make_targets(encoder, example)

    with pytest.raises(RuntimeError, match="stopped"):
        train(processor, vision_encoder, data, stops, tmp_path / "language.pt", save_every=1)
    assert torch.load(tmp_path / "language.pt", weights_only=True)["step"] in (1, 2)
    model, steps = train(processor, vision_encoder, data, make_targets, tmp_path / "language.pt")
    assert steps in (1, 2)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, whole.state_dict()[name]), name


def test_at_most_a_fifth_of_the_steps_warms_up():
    short, long = PretrainSettings(320), PretrainSettings(80_000)
    assert [short.lr_factor(step) for step in (0, 1, 2)] == [0.5, 1.0, 1.0]
    assert long.lr_factor(199) == 1.0
    assert long.lr_factor(99) == 0.5
    assert short.lr_factor(9) < 0.1


def test_each_variant_has_its_order(processor, example):
    tokenizer = processor.tokenizer
    encoder = AnswerEncoder(tokenizer, tokenizer.eos_token_id, numbers="parallel")
    encodings = {
        key: variant.make_targets(encoder, example) for key, variant in VARIANTS.items() if variant.make_targets
    }
    assert all(len(found) == 1 for found in encodings.values())

    def learnt(key, numbers):
        (encoding,) = encodings[key]
        kept = zip(encoding.labels, encoding.loss_weights, encoding.number_ids, strict=True)
        return [
            label for label, weight, number in kept if weight and label != IGNORE_INDEX and (number >= 0) == numbers
        ]

    values = [encoder.number_tokens.value_tokens[round(100 * float(value))][0] for value in example.coefficients]
    assert all(learnt(key, True) == values for key in encodings)
    assert not learnt("coefficients", False)
    assert learnt("semantics-first", False) == learnt("semantics-first-seen", False)
    analysis = tokenizer.decode(learnt("semantics-first", False), clean_up_tokenization_spaces=False)
    assert example.analysis.symmetry in analysis
    # The numbers behind the predicted analysis do not attend to the ground truth analysis, which has its own group.
    (seen,) = encodings["semantics-first-seen"]
    groups = {branch // 64 for branch in seen.branch_ids}
    assert groups == {1, 2}
    behind = [token for token, branch in zip(seen.ids, seen.branch_ids, strict=True) if branch == 128]
    assert example.predicted_analysis.symmetry in tokenizer.decode(behind, clean_up_tokenization_spaces=False)


def test_an_analysis_behind_numbers_spells_an_answer_and_only_it_is_learnt(processor, example):
    tokenizer = processor.tokenizer
    encoder = AnswerEncoder(tokenizer, tokenizer.eos_token_id, numbers="parallel")
    encoding = encode_analysis_after(encoder, example.coefficients, example.analysis)
    text = tokenizer.decode(encoding.ids, clean_up_tokenization_spaces=False)
    assert text.startswith('{"arkit":{"eyeBlinkLeft":')
    found = parse_answer(text)
    assert found.analysis == example.analysis
    assert np.abs(found.coefficients - example.coefficients).max() <= 0.005001
    learnt = [label for label, weight in zip(encoding.labels, encoding.loss_weights, strict=True) if weight]
    analysis = tokenizer.decode(learnt, clean_up_tokenization_spaces=False)
    assert analysis.startswith(example.analysis.expression_category)
    assert analysis.endswith('"}}<|end|>')
    assert encoding.labels[:-1] == encoding.ids


def test_a_memorised_picture_is_predicted_exactly(processor, vision_encoder, pixels, data, tmp_path):
    """Training and decoding use the same tokens at the same positions."""
    one = PretrainData(data.features[:1], data.truth[:1], data.truth[:1], data.truth[:1])
    targets = VARIANTS["coefficients-first"].make_targets
    model, _ = train(processor, vision_encoder, one, targets, tmp_path / "language.pt", samples=60, batch=1)
    recipe = {
        "prompt": prompt_record(load_prompt("distill")), "emotion": True, "readout": "mean", "numbers": "parallel",
    }  # fmt: skip
    bundle = Bundle(model, processor, processor.tokenizer, nano.IMAGE_SIZE, recipe)
    predicted, analyses = predict(bundle, "numbers, analysis", [Image.fromarray(pixels[0])])
    assert analyses == [describe(one.truth[0])]
    assert np.abs(predicted[0] - one.truth[0]).mean() < 0.05
