"""Regression heads learn from feature maps; cross-fitted predictions never see their own label."""

import numpy as np
import pytest
import torch

from semanticface.experiments.regression_heads import Head, cross_fitted_ridge, train_head
from semanticface.training.nano_pretraining import PretrainData, PretrainSettings


def features_of(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(2, 3, (count, 8, 2, 2)).astype(np.float16)


def coefficients_of(features: np.ndarray) -> np.ndarray:
    flat = (features.reshape(len(features), -1).astype(np.float32) - 2) / 3
    weights = np.random.default_rng(1).normal(0, 0.03, (flat.shape[1], 52)).astype(np.float32)
    return (0.5 + flat @ weights).clip(0, 1)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_head_learns_from_features(kind):
    features = features_of(400)
    truth = coefficients_of(features)
    head = train_head(kind, PretrainData(features, truth, truth, truth), PretrainSettings(40_000), torch.device("cpu"))
    predicted = head.predict(features)
    assert predicted.shape == (400, 52)
    assert ((predicted >= 0) & (predicted <= 1)).all()
    assert np.square(predicted - truth).mean() < 0.2 * truth.var(axis=0).mean()
    assert np.abs(head.predict(features[:3]) - predicted[:3]).max() < 1e-5


def test_a_head_starts_at_the_mean_with_standardised_features():
    features = features_of(300)
    head = Head("mlp", features, coefficients_of(features))
    assert np.abs(head.predict(features) - coefficients_of(features).mean(0)).max() < 1e-6
    assert float(head.mean.mean()) == pytest.approx(2, abs=0.1)
    assert float(head.scale) == pytest.approx(3, abs=0.1)


def test_cross_fitted_predictions_never_see_their_own_label():
    features = np.concatenate([features_of(240)] * 2)
    people = [f"p{i}" for i in range(240)] * 2
    truth = coefficients_of(features)
    predicted = cross_fitted_ridge(features, truth, people)
    assert np.square(predicted - truth).mean() < 0.5 * truth.var(axis=0).mean()
    noise = np.concatenate([np.random.default_rng(5).random((240, 52), dtype=np.float32)] * 2)
    predicted = cross_fitted_ridge(features, noise, people)
    correlations = [np.corrcoef(predicted[:, i], noise[:, i])[0, 1] for i in range(52)]
    assert np.mean(correlations) < 0.1  # each picture is there twice: fitted on itself it would be 0.3 or more
    with pytest.raises(ValueError, match="4 or more"):
        cross_fitted_ridge(features[:3], truth[:3], ["a", "b", "c"])
