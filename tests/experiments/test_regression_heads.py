"""Heads on a tower's maps: they learn what is there, and what others' maps say holds nothing of one's own label."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semanticface.experiments.regression_heads import Head, cross_fitted_ridge, train_head
from semanticface.training.nano_pretraining import PretrainData, PretrainSettings


def maps_of(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(2, 3, (count, 8, 2, 2)).astype(np.float16)


def told_by(maps: np.ndarray) -> np.ndarray:
    flat = (maps.reshape(len(maps), -1).astype(np.float32) - 2) / 3
    weights = np.random.default_rng(1).normal(0, 0.03, (flat.shape[1], 52)).astype(np.float32)
    return (0.5 + flat @ weights).clip(0, 1)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_head_learns_what_the_maps_say(kind):
    maps = maps_of(400)
    truth = told_by(maps)
    head = train_head(kind, PretrainData(maps, truth, truth, truth), PretrainSettings(40_000), torch.device("cpu"))
    read = head.read(maps)
    assert read.shape == (400, 52)
    assert ((read >= 0) & (read <= 1)).all()
    assert np.square(read - truth).mean() < 0.2 * truth.var(axis=0).mean()
    assert np.abs(head.read(maps[:3]) - read[:3]).max() < 1e-5


def test_a_head_begins_at_the_mean_answer_with_features_of_one_scale():
    maps = maps_of(300)
    head = Head("mlp", maps, told_by(maps))
    assert np.abs(head.read(maps) - told_by(maps).mean(0)).max() < 1e-6
    assert float(head.mean.mean()) == pytest.approx(2, abs=0.1)
    assert float(head.spread) == pytest.approx(3, abs=0.1)


def test_others_maps_tell_what_maps_tell_but_not_a_label_that_only_the_person_has():
    maps = np.concatenate([maps_of(240)] * 2)
    people = [f"p{i}" for i in range(240)] * 2
    truth = told_by(maps)
    seen = cross_fitted_ridge(maps, truth, people)
    assert np.square(seen - truth).mean() < 0.5 * truth.var(axis=0).mean()
    luck = np.concatenate([np.random.default_rng(5).random((240, 52), dtype=np.float32)] * 2)
    seen = cross_fitted_ridge(maps, luck, people)
    related = [np.corrcoef(seen[:, i], luck[:, i])[0, 1] for i in range(52)]
    assert np.mean(related) < 0.1  # the same picture stands twice: fitted on itself, it would be 0.3 and more
    with pytest.raises(ValueError, match="4 or more"):
        cross_fitted_ridge(maps[:3], truth[:3], ["a", "b", "c"])
