"""Cached vision features change nothing but the time."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageChops

from semanticface.data.faces import load_faces
from semanticface.models.loading import Bundle, LoraSettings, ModelConfig, add_lora, load_base
from semanticface.prompts import load_prompt
from semanticface.training import vision_cache
from semanticface.training.collator import Collator
from semanticface.training.datasets import AugmentSettings, EvalFaces, TrainFaces
from semanticface.training.trainer import SanityCheckCallback, TrainSettings, train
from semanticface.training.vision_cache import cache_vision_features
from tests.helpers import tiny_models

STEPS = TrainSettings(
    max_steps=6, per_device_train_batch_size=4, warmup_ratio=0, eval_steps=6, eval_rows=2, save_steps=2, logging_steps=1
)


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    return tiny_models.faces(tmp_path_factory.mktemp("data") / "faces")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: build(folder / name) for name, build in tiny_models.BUILD.items()}


def adapted(models: dict[str, Path], architecture: str = "fast_vlm", *, projector: bool = False) -> Bundle:
    torch.manual_seed(0)
    base = load_base(ModelConfig(str(models[architecture]), image_size=tiny_models.SIDE[architecture]))
    return add_lora(base, LoraSettings(projector=projector))


def rows_of(bundle: Bundle, faces: Path, count: int = 24, **augment) -> TrainFaces:
    settings = AugmentSettings(**({"fixed_variants": 2, "numbers_only_prob": 0.3} | augment))
    split = load_faces(faces, "train").select(range(6))
    return TrainFaces(split, bundle.image_size, count=count, augment=settings, emotion=True, seed=3)


def trained(bundle: Bundle, faces: Path, folder: Path) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Return metrics and weights of a training."""
    held_out = EvalFaces(load_faces(faces, "validation"), bundle.image_size)
    collator = Collator(bundle.processor, load_prompt("distill"), numbers="parallel")
    metrics, _ = train(bundle, STEPS, collator, lambda count: rows_of(bundle, faces, count), held_out, folder)
    return metrics, {name: each.detach() for name, each in bundle.model.named_parameters() if each.requires_grad}


def same(one: tuple, other: tuple) -> bool:
    return one[0] == other[0] and all(torch.equal(value, other[1][name]) for name, value in one[1].items())


@pytest.mark.parametrize("architecture", tiny_models.BUILD)
def test_metrics_and_weights_are_those_without_cache(architecture, models, faces, tmp_path, monkeypatch, capsys):
    once = trained(adapted(models, architecture), faces, tmp_path / "once")
    assert "features of 12 crops cached for 24 examples" in capsys.readouterr().out
    assert not (tmp_path / "once" / "features").exists()
    uncached = contextlib.nullcontext((None, "off"))
    monkeypatch.setattr("semanticface.training.trainer.cache_vision_features", lambda *arguments: uncached)
    metrics, weights = trained(adapted(models, architecture), faces, tmp_path / "each")
    # Features in batches and features a step at a time are rounded differently: not the same bits on every processor.
    assert once[0] == pytest.approx(metrics, rel=1e-5, abs=1e-6)
    for name, value in once[1].items():
        torch.testing.assert_close(value, weights[name], rtol=1e-3, atol=1e-4)


def test_a_stopped_training_resumes_exactly_without_computing_features_again(models, faces, tmp_path, monkeypatch):
    whole = trained(adapted(models), faces, tmp_path / "whole")

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SanityCheckCallback, "on_step_end", stop)
        trained(adapted(models), faces, tmp_path / "stopped")
    (kept,) = (tmp_path / "stopped" / "features").glob("*/*.safetensors")
    stamp, wrote = kept.stat().st_mtime_ns, []
    monkeypatch.setattr(vision_cache, "save_file", lambda *arguments: wrote.append(arguments))
    assert kept.stat().st_mtime_ns == stamp
    assert same(whole, trained(adapted(models), faces, tmp_path / "stopped"))
    assert not wrote


def is_cached(bundle: Bundle, rows: TrainFaces, folder: Path) -> tuple[bool, str]:
    collator = Collator(bundle.processor, load_prompt("distill"))
    with cache_vision_features(bundle, collator, rows, folder) as (encoder, why):
        return encoder is not None, why


def test_an_incomplete_file_is_rewritten_and_others_are_kept(models, faces, tmp_path, monkeypatch):
    monkeypatch.setattr(vision_cache, "_SHARD", 5)
    bundle = adapted(models)
    rows, collator = rows_of(bundle, faces), Collator(bundle.processor, load_prompt("distill"))
    folder = tmp_path / "features"
    (folder / "of another training").mkdir(parents=True)
    with (
        pytest.raises(RuntimeError, match="stopped"),
        cache_vision_features(bundle, collator, rows, folder) as (encoder, _),
    ):
        before = {s: {name: value.clone() for name, value in encoder.load(s).items()} for s in range(rows.n_slots)}
        raise RuntimeError("stopped")
    (cache,) = folder.iterdir()
    files = sorted(cache.iterdir())
    assert [file.name for file in files] == ["00000.safetensors", "00001.safetensors", "00002.safetensors"]
    files[1].write_bytes(files[1].read_bytes()[:-7])
    stamps = [file.stat().st_mtime_ns for file in files]
    with cache_vision_features(bundle, collator, rows, folder) as (encoder, _):
        kept = [file.stat().st_mtime_ns == stamp for file, stamp in zip(files, stamps, strict=True)]
        assert kept == [True, False, True]
        for slot, tensors in before.items():
            assert all(torch.equal(value, encoder.load(slot)[name]) for name, value in tensors.items())


def test_the_cache_key_covers_everything_that_determines_features(models, faces):
    bundle, other = adapted(models), adapted(models)
    encoder = other.model.get_base_model().get_encoder(modality="image")
    keys = [
        vision_cache._cache_key(bundle, rows_of(bundle, faces, **augment), encoder, dtype)
        for augment, dtype in (({}, None), ({"shift": 0.01}, None), ({}, torch.bfloat16))
    ]
    next(encoder.parameters()).data += 1
    keys.append(vision_cache._cache_key(bundle, rows_of(bundle, faces), encoder, None))
    assert len(set(keys)) == 4


def test_caching_is_off_where_it_is_impossible_or_does_not_pay(models, faces, tmp_path, monkeypatch):
    bundle = adapted(models)
    assert is_cached(bundle, rows_of(bundle, faces), tmp_path)[0]
    assert is_cached(bundle, rows_of(bundle, faces, fixed_variants=0), tmp_path) == (
        False,
        "off: crops are augmented anew each time (augment.fixed_variants: 0)",
    )
    assert "too few repeat" in is_cached(bundle, rows_of(bundle, faces, count=23), tmp_path)[1]
    inside = adapted(models, "qwen3_vl", projector=True)
    assert "LoRA trains layers of the vision encoder" in is_cached(inside, rows_of(inside, faces), tmp_path)[1]
    monkeypatch.setattr(vision_cache, "_DISK_SHARE", 0)
    found, why = is_cached(bundle, rows_of(bundle, faces), tmp_path / "full" / "features")
    assert not found
    assert "more than half of the free disk" in why


def test_a_row_has_fixed_variants_and_each_epoch_takes_the_next(models, faces):
    bundle = adapted(models)
    rows = rows_of(bundle, faces, count=36, numbers_only_prob=0)
    seen: dict[tuple, list] = {}
    for position in range(36):
        example = rows[position]
        seen.setdefault(np.asarray(example.picture).tobytes(), []).append((position // 6, example.answer))
    assert len(seen) == 12
    # Each variant returns every second epoch with the same answer: mirroring is part of the variant.
    assert all(len(times) == 3 and len({answer for _, answer in times}) == 1 for times in seen.values())
    assert all({number % 2 for number, _ in times} in ({0}, {1}) for times in seen.values())
    first = rows.crop(0)
    assert any(not ImageChops.difference(first, rows[position].picture).getbbox() for position in range(6))
