"""A tower that sees each crop once changes nothing but the time."""

from __future__ import annotations

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
    settings = AugmentSettings(**({"variants": 2, "wordless": 0.3} | augment))
    split = load_faces(faces, "train").select(range(6))
    return TrainFaces(split, bundle.image_size, count=count, augment=settings, emotion=True, seed=3)


def trained(bundle: Bundle, faces: Path, folder: Path) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Return figures and weights of a training."""
    held_out = EvalFaces(load_faces(faces, "validation"), bundle.image_size)
    collator = Collator(bundle.processor, load_prompt("distill"), numbers="parallel")
    metrics, _ = train(bundle, STEPS, collator, lambda count: rows_of(bundle, faces, count), held_out, folder)
    return metrics, {name: each.detach() for name, each in bundle.model.named_parameters() if each.requires_grad}


def same(one: tuple, other: tuple) -> bool:
    return one[0] == other[0] and all(torch.equal(value, other[1][name]) for name, value in one[1].items())


@pytest.mark.parametrize("architecture", tiny_models.BUILD)
def test_losses_and_weights_are_those_of_a_tower_that_looks_each_time(
    architecture, models, faces, tmp_path, monkeypatch, capsys
):
    once = trained(adapted(models, architecture), faces, tmp_path / "once")
    assert "the tower saw 12 crops once, for 24 showings" in capsys.readouterr().out
    assert not (tmp_path / "once" / "features").exists()
    never = contextlib.nullcontext((None, "it is told not to"))
    monkeypatch.setattr("semanticface.training.trainer.seen_once", lambda *arguments: never)
    assert same(once, trained(adapted(models, architecture), faces, tmp_path / "each"))


def test_a_training_that_was_stopped_goes_on_exactly_and_looks_at_nothing_again(models, faces, tmp_path, monkeypatch):
    calm = trained(adapted(models), faces, tmp_path / "calm")

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
    assert same(calm, trained(adapted(models), faces, tmp_path / "stopped"))
    assert not wrote


def looked(bundle: Bundle, rows: TrainFaces, folder: Path) -> tuple[bool, str]:
    collator = Collator(bundle.processor, load_prompt("distill"))
    with cache_vision_features(bundle, collator, rows, folder) as (tower, why):
        return tower is not None, why


def test_a_file_cut_short_is_made_again_and_others_are_left_alone(models, faces, tmp_path, monkeypatch):
    monkeypatch.setattr(vision_cache, "_SHARD", 5)
    bundle = adapted(models)
    rows, collator = rows_of(bundle, faces), Collator(bundle.processor, load_prompt("distill"))
    folder = tmp_path / "features"
    (folder / "of another training").mkdir(parents=True)
    with (
        pytest.raises(RuntimeError, match="stopped"),
        cache_vision_features(bundle, collator, rows, folder) as (tower, _),
    ):
        before = {s: {name: value.clone() for name, value in tower.load(s).items()} for s in range(rows.n_slots)}
        raise RuntimeError("stopped")
    (place,) = folder.iterdir()
    files = sorted(place.iterdir())
    assert [file.name for file in files] == ["00000.safetensors", "00001.safetensors", "00002.safetensors"]
    files[1].write_bytes(files[1].read_bytes()[:-7])
    stamps = [file.stat().st_mtime_ns for file in files]
    with cache_vision_features(bundle, collator, rows, folder) as (tower, _):
        assert [file.stat().st_mtime_ns == stamp for file, stamp in zip(files, stamps, strict=True)] == [
            True,
            False,
            True,
        ]
        for slot, tensors in before.items():
            assert all(torch.equal(value, tower.load(slot)[name]) for name, value in tensors.items())


def test_what_is_kept_is_named_by_all_that_decides_it(models, faces):
    bundle, other = adapted(models), adapted(models)
    tower = other.model.get_base_model().get_encoder(modality="image")
    names = [
        vision_cache._name(bundle, rows_of(bundle, faces, **augment), tower, dtype)
        for augment, dtype in (({}, None), ({"shift": 0.01}, None), ({}, torch.bfloat16))
    ]
    next(tower.parameters()).data += 1
    names.append(vision_cache._name(bundle, rows_of(bundle, faces), tower, None))
    assert len(set(names)) == 4


def test_it_is_left_out_where_it_cannot_be_or_does_not_pay(models, faces, tmp_path, monkeypatch):
    bundle = adapted(models)
    assert looked(bundle, rows_of(bundle, faces), tmp_path)[0]
    assert looked(bundle, rows_of(bundle, faces, variants=0), tmp_path) == (
        False,
        "every showing is altered anew (augment.fixed_variants: 0)",
    )
    assert "too few are shown again" in looked(bundle, rows_of(bundle, faces, count=23), tmp_path)[1]
    inside = adapted(models, "qwen3_vl", projector=True)
    assert "inside the tower" in looked(inside, rows_of(inside, faces), tmp_path)[1]
    monkeypatch.setattr(vision_cache, "_SHARE", 0)
    found, why = looked(bundle, rows_of(bundle, faces), tmp_path / "full" / "features")
    assert not found
    assert "more than half of the free disk" in why


def test_a_row_has_as_many_looks_as_it_is_told_and_each_pass_takes_the_next(models, faces):
    bundle = adapted(models)
    rows = rows_of(bundle, faces, count=36, wordless=0)
    shown: dict[tuple, list] = {}
    for position in range(36):
        example = rows[position]
        shown.setdefault(np.asarray(example.picture).tobytes(), []).append((position // 6, example.answer))
    assert len(shown) == 12
    # Each look comes back every second pass, with the same answer: mirrored or not is part of the look.
    assert all(len(times) == 3 and len({answer for _, answer in times}) == 1 for times in shown.values())
    assert all({number % 2 for number, _ in times} in ({0}, {1}) for times in shown.values())
    first = rows.crop(0)
    assert any(not ImageChops.difference(first, rows[position].picture).getbbox() for position in range(6))
