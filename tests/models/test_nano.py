"""Nano: its tokenizer, its stock classes, the script that trains it, and the packaged model."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from semanticface.arkit import N_ACTIONS
from semanticface.data.rendered import RenderSettings, render_set, subjects_by_split
from semanticface.evaluation import metrics
from semanticface.inference.predictor import Predictor
from semanticface.models import nano
from semanticface.models.loading import Bundle, LoraSettings, add_lora
from semanticface.rendering import STYLES, render
from semanticface.semantics.analysis import describe
from semanticface.semantics.answer import format_answer, parse_answer
from semanticface.semantics.expression_sampler import sample_coefficients
from tests.helpers.scripts import load_script

ROOT = Path(__file__).resolve().parents[2]


def faces(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([sample_coefficients(rng) for _ in range(count)])


@pytest.fixture(scope="module")
def tokenizer():
    return nano.build_tokenizer(format_answer(c, describe(c)) for c in faces(200))


def test_every_number_and_every_key_is_one_token(tokenizer):
    coefficients = np.linspace(0, 1, N_ACTIONS, dtype=np.float32)
    answer = format_answer(coefficients, describe(coefficients))
    numbers = answer[answer.index('"},"arkit":') :]
    ids = tokenizer.encode(numbers, add_special_tokens=False)
    assert len(ids) == 2 * N_ACTIONS + 1
    assert [tokenizer.decode(i) for i in ids[1::2]] == [f"{value:.2f}" for value in coefficients]
    assert tokenizer.decode(nano.number_token_ids(tokenizer)[37]) == "0.37"


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_survives_the_tokenizer(tokenizer, text):
    for special in nano.SPECIAL_TOKENS:
        text = text.replace(special, "")
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_neighbouring_numbers_start_alike(tokenizer):
    torch.manual_seed(0)
    table = nano.build_model(tokenizer).get_input_embeddings().weight[nano.number_token_ids(tokenizer)]
    near = (table[1:] - table[:-1]).norm(dim=1).mean()
    far = (table[50:] - table[:-50]).norm(dim=1).mean()
    assert near < far / 3


def test_a_saved_nano_is_a_stock_model(tokenizer, tmp_path):
    nano.build_model(tokenizer).save_pretrained(tmp_path)
    nano.build_processor(tokenizer).save_pretrained(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    picture = render(np.zeros(N_ACTIONS), style="drawn", size=90).image
    inputs = processor(images=[picture], text=["<|user|><image>Describe<|assistant|>"], return_tensors="pt")
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == 16
    assert inputs["pixel_values"].shape == (1, 3, nano.IMAGE_SIZE, nano.IMAGE_SIZE)
    assert abs(inputs["pixel_values"]).max() <= 1
    assert model(**inputs).logits.isfinite().all()


def test_training_does_not_change_the_frozen_encoders_statistics(tokenizer):
    model = nano.build_model(tokenizer)
    bundle = add_lora(Bundle(model, None, tokenizer, nano.IMAGE_SIZE, {}), LoraSettings(r=2))
    encoder = model.model.vision_tower
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    bundle.model.train()
    assert model.model.language_model.training
    features = encoder(torch.rand(4, 3, nano.IMAGE_SIZE, nano.IMAGE_SIZE) * 9).last_hidden_state
    assert all(torch.equal(value, before[name]) for name, value in encoder.named_buffers())
    bundle.model.eval()
    assert encoder(torch.rand(4, 3, nano.IMAGE_SIZE, nano.IMAGE_SIZE)).last_hidden_state.shape == features.shape


@pytest.mark.slow
def test_the_script_trains_a_model_and_resumes(tmp_path, monkeypatch):
    plan = RenderSettings(
        rows=120, looks={"drawn": 1.0}, size=64, supersample=1, framing="crop", splits={"train": 0.8, "validation": 0.2}
    )  # fewer training faces than the encoder's batch
    render_set(tmp_path / "faces", plan, workers=1)
    script, out = load_script("train/pretrain.py"), tmp_path / "nano"

    def run(language_samples: int) -> bytes:
        words = ["--faces", str(tmp_path / "faces"), "--out", str(out), "--vision-samples", "128"]
        monkeypatch.setattr(sys, "argv", ["pretrain.py", *words, "--language-samples", str(language_samples)])
        assert script.main() == 0
        return (out / "model/model.safetensors").read_bytes()

    first = run(32)
    states = {name: torch.load(out / name, weights_only=True) for name in ("tower.pt", "language.pt")}
    assert (states["tower.pt"]["step"], states["language.pt"]["step"]) == (1, 1)
    # Both stages are done, so the same command only saves again, and a longer one trains what is left.
    assert run(32) == first
    assert run(64) != first
    picture = render(np.zeros(N_ACTIONS), style="drawn", framing="crop", size=nano.IMAGE_SIZE).image
    (prediction,) = Predictor.from_pretrained(tmp_path / "nano/model")([_png(picture, tmp_path)], crop="none")
    assert prediction.status == "ok"
    assert parse_answer(prediction.text).coefficients.shape == (N_ACTIONS,)


def _png(picture: np.ndarray, folder: Path) -> Path:
    Image.fromarray(picture).save(folder / "face.png")
    return folder / "face.png"


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_the_packaged_nano_predicts_unseen_people(style):
    people = subjects_by_split(RenderSettings())["test"]
    truth = faces(64, seed=5)
    pictures = [
        render(
            c, style=style, subject=int(people[i]), shot=i, size=nano.IMAGE_SIZE, supersample=1, framing="crop"
        ).image
        for i, c in enumerate(truth)
    ]
    predictions = Predictor.from_pretrained("nano")([Image.fromarray(p) for p in pictures], crop="none")
    assert all(p.status == "ok" for p in predictions)
    result = metrics.score(truth, np.stack([p.coefficients for p in predictions]))
    assert result["model"]["correlation"] > 0.35
    assert result["model"]["mae"] < result["constant_mean"]["mae"]
