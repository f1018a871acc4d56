"""The metrics, checked against values computed by hand and against properties that they must have."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from semanticface import arkit
from semanticface.evaluation import metrics
from semanticface.semantics.analysis import describe, describe_many

I = arkit.INDEX  # noqa: E741


def rows(*named):
    return np.stack([arkit.vector(values) for values in named])


def random_rows(n, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (n, arkit.N_ACTIONS)).round(2)


def score(true, predicted, **options):
    return metrics.score(true, predicted, on_head=options.pop("on_head", False), **options)


def test_errors_by_hand():
    true = rows({"jawOpen": 0.5}, {"jawOpen": 0.05})
    predicted = rows({"jawOpen": 0.3, "tongueOut": 0.4}, {"jawOpen": 0.05})
    model = score(true, predicted)["model"]
    assert model["mae"] == pytest.approx((0.2 + 0.4) / 104)
    assert model["rmse"] == pytest.approx(((0.04 + 0.16) / 104) ** 0.5)
    assert model["mae_active"] == pytest.approx(0.2)  # 0.05 is at rest
    assert model["per_action"]["jawOpen"]["mae"] == pytest.approx(0.1)
    assert model["per_action"]["tongueOut"]["mae_active"] is None
    assert model["per_region"]["jaw"]["mae"] == pytest.approx(0.2 / 8)
    assert model["per_region"]["brows"]["rmse"] == 0
    assert model["f1"] == pytest.approx(2 * 1 / (1 + 2))
    assert model["per_action"]["jawOpen"]["f1"] == 1
    assert model["per_action"]["tongueOut"]["f1"] == 0
    assert model["per_action"]["cheekPuff"]["f1"] is None


def test_correlation_skips_constant_truth_and_counts_constant_answers_as_zero():
    true = rows({"jawOpen": 0.1}, {"jawOpen": 0.5, "cheekPuff": 0.3}, {"jawOpen": 0.9})
    predicted = rows({"jawOpen": 0.2, "tongueOut": 0.5}, {"jawOpen": 0.3}, {"jawOpen": 0.4})
    model = score(true, predicted)["model"]
    assert model["per_action"]["jawOpen"]["correlation"] == pytest.approx(1)
    assert model["per_action"]["cheekPuff"]["correlation"] == 0
    assert model["per_action"]["tongueOut"]["correlation"] is None
    assert model["correlation_actions"] == 2
    assert model["correlation"] == pytest.approx(0.5)


def test_correlation_agrees_with_numpy():
    true, predicted = random_rows(30, 1), random_rows(30, 2)
    per_action = score(true, predicted)["model"]["per_action"]
    for i, name in enumerate(arkit.NAMES):
        assert per_action[name]["correlation"] == pytest.approx(np.corrcoef(true[:, i], predicted[:, i])[0, 1])


def test_left_right():
    true = rows(
        {"mouthSmileLeft": 0.9},  # predicted on the wrong side
        {"mouthSmileLeft": 0.9},  # correct side
        {"jawRight": 0.5},  # no side taken
        {"browDownLeft": 0.3, "browDownRight": 0.15},  # not clearly one-sided: not counted
    )
    predicted = rows({"mouthSmileRight": 0.5}, {"mouthSmileLeft": 0.1}, {}, {"browDownRight": 1})
    model = score(true, predicted)["model"]
    assert model["left_right_cases"] == 3
    assert model["left_right_confusion"] == pytest.approx(1 / 3)
    assert model["left_right_undecided"] == pytest.approx(1 / 3)


def test_swapped_sides_are_all_confused():
    true = random_rows(20)
    model = score(true, arkit.mirror(true))["model"]
    assert model["left_right_confusion"] == 1
    assert score(true, true)["model"]["left_right_confusion"] == 0


def test_invalid_rows_only_lower_the_valid_share():
    true, predicted = random_rows(5, 1), random_rows(5, 2)
    predicted[2, 7] = np.nan
    kept = [0, 1, 3, 4]
    result = score(true, predicted, train_mean=true[0], train_median=true[1])
    without = score(true[kept], predicted[kept], train_mean=true[0], train_median=true[1])
    assert (result["samples"], result["valid"]) == (5, 4)
    assert result["model"].pop("valid_share") == pytest.approx(0.8)
    assert without["model"].pop("valid_share") == 1
    assert result["model"] == without["model"]
    assert result["constant_mean"] == without["constant_mean"]


def test_without_valid_rows_figures_are_undefined_not_zero():
    result = score(random_rows(3), np.full((3, 52), np.nan), on_head=True, analyses=[None] * 3)
    assert result["model"]["valid_share"] == 0
    for key in ("mae", "rmse", "correlation", "f1", "left_right_confusion", "vertex_error", "agreement_own"):
        assert result["model"][key] is None
    assert "0 with a valid answer" in metrics.table(result)


def test_constants_and_their_origin():
    train, true = random_rows(40, 3), random_rows(20, 4)
    mean, median = metrics.constants(train)
    given = score(true, true, train_mean=mean, train_median=median)
    fallback = score(true, true)
    assert given["constants_from"] == "training set"
    assert fallback["constants_from"] == "test set"
    assert given["constant_mean"]["rmse"] > fallback["constant_mean"]["rmse"]
    assert given["constant_median"]["mae"] == pytest.approx(np.abs(true - np.median(train, axis=0)).mean())
    assert given["constant_mean"]["correlation"] == 0
    assert given["constant_mean"]["valid_share"] == 1


def test_the_result_is_plain_json_with_all_figures():
    result = score(random_rows(4, 1), random_rows(4, 2))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    for column in ("model", "constant_mean", "constant_median"):
        assert set(result[column]) >= {figure.key for figure in metrics.FIGURES}
        assert list(result[column]["per_action"]) == list(arkit.NAMES)
        assert list(result[column]["per_region"]) == list(arkit.REGIONS)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_properties(data):
    array = st_numpy.arrays(np.float32, (data.draw(st.integers(1, 6)), 52), elements=st.floats(0, 1, width=32))
    true = data.draw(array)
    predicted = data.draw(st_numpy.arrays(np.float32, true.shape, elements=st.floats(0, 1, width=32)))
    result = score(true, predicted)
    model, best = result["model"], score(true, true)["model"]
    assert model["rmse"] + 1e-12 >= model["mae"] >= 0 == best["mae"]
    assert best["left_right_confusion"] in (0, None)
    assert best["f1"] in (1, None)
    assert best["correlation"] is None or best["correlation"] == pytest.approx(1)
    # Mirroring both changes no overall figure.
    flipped = score(arkit.mirror(true), arkit.mirror(predicted))["model"]
    for figure in metrics.FIGURES:
        assert flipped[figure.key] == pytest.approx(model[figure.key], nan_ok=True) or model[figure.key] is None


def test_agreement_of_analyses():
    true = rows({"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8}, {"jawOpen": 0.9}, {"cheekPuff": 0.6})
    predicted = rows({"mouthSmileLeft": 0.7, "mouthSmileRight": 0.7}, {"browInnerUp": 0.9}, {"cheekPuff": 0.6})
    analyses = [describe(row) for row in predicted]
    model = score(true, predicted, analyses=[analyses[0], analyses[1], None])["model"]
    assert model["explained"] == 2
    assert model["agreement_own"] == pytest.approx(1)
    assert model["agreement_true"] < 0.9
    swapped = score(true, predicted, analyses=[analyses[1], analyses[0], None])["model"]
    assert swapped["agreement_own"] < model["agreement_own"]


def test_vertex_error_on_the_head():
    true = rows({"jawOpen": 1.0}, {})
    model = score(true, true, on_head=True)["model"]
    assert model["vertex_error"] == model["vertex_error_p95"] == 0
    half = score(true, rows({"jawOpen": 0.5}, {}), on_head=True)["model"]
    none = score(true, rows({}, {}), on_head=True)["model"]
    assert 0 < half["vertex_error"] < none["vertex_error"] < none["vertex_error_p95"] < 100


def test_vertex_error_does_not_depend_on_the_block(monkeypatch):
    true, predicted = random_rows(7, 5), random_rows(7, 6)
    whole = score(true, predicted, on_head=True)["model"]["vertex_error_p95"]
    monkeypatch.setattr("semanticface.evaluation.vertex_error._BLOCK", 3)
    assert score(true, predicted, on_head=True)["model"]["vertex_error_p95"] == pytest.approx(whole, rel=1e-5)


def test_the_block_size_does_not_change_the_figures(monkeypatch):
    true, predicted = random_rows(10, 3).astype(np.float32), random_rows(10, 4).astype(np.float32)
    predicted[7, 2] = np.nan
    analyses = describe_many(np.nan_to_num(predicted))
    whole = score(true, predicted, analyses=analyses)
    monkeypatch.setattr(metrics, "_BLOCK", 3)
    parts = score(true, predicted, analyses=(each for each in analyses))
    for column in ("model", "constant_mean", "constant_median"):
        for figure in metrics.FIGURES:
            assert parts[column][figure.key] == pytest.approx(whole[column][figure.key])
        assert parts[column]["per_action"]["jawOpen"] == pytest.approx(whole[column]["per_action"]["jawOpen"])
    for count in (9, 11):
        with pytest.raises(ValueError, match=f"{count} analyses for 10 rows"):
            score(true, predicted, analyses=iter((analyses * 2)[:count]))


def test_missing_answers_are_nan_rows():
    known = random_rows(1, 0)[0].astype(np.float32)
    found = metrics.stacked(iter([None, known, None]))
    assert found.dtype == np.float32
    assert np.isnan(found[[0, 2]]).all() and np.array_equal(found[1], known)
    assert score(np.stack([known] * 3), found)["model"]["valid_share"] == pytest.approx(1 / 3)


def test_table_and_comparison():
    true = random_rows(6, 1)
    before, after = score(true, random_rows(6, 2)), score(true, true)
    text = metrics.compare([("before", before), ("a|b", after)])
    head, rule, first, *_ = text.splitlines()
    assert head == r"| figure | before | a\|b | constant mean | constant median |"
    assert rule.count("--:") == 4
    assert first.startswith("| mean error (MAE) ↓ |") and " 0.000 " in first
    assert "| vertex error" not in text  # not measured
    assert "Constants from the test set" in text
    assert "| figure | model |" in metrics.table(after)
    with pytest.raises(ValueError, match="different numbers"):
        metrics.compare([("before", score(true[:3], true[:3])), ("after", after)])
    with pytest.raises(ValueError, match="nothing"):
        metrics.compare([])


@pytest.mark.parametrize(
    ("true", "predicted", "options", "message"),
    [
        (np.zeros((2, 51)), np.zeros((2, 51)), {}, "expected two arrays"),
        (np.zeros((2, 52)), np.zeros((3, 52)), {}, "expected two arrays"),
        (np.full((1, 52), 1.5), np.zeros((1, 52)), {}, "true coefficients"),
        (np.full((1, 52), np.nan), np.zeros((1, 52)), {}, "true coefficients"),
        (np.zeros((1, 52)), np.full((1, 52), -0.1), {}, "predicted coefficients"),
        (np.zeros((1, 52)), np.full((1, 52), np.inf), {}, "predicted coefficients"),
        (np.zeros((2, 52)), np.zeros((2, 52)), {"analyses": [None]}, "1 analyses for 2 rows"),
        (np.zeros((1, 52)), np.zeros((1, 52)), {"train_mean": np.zeros(52)}, "both"),
        (np.zeros((1, 52)), np.zeros((1, 52)), {"train_mean": np.zeros(3), "train_median": np.zeros(52)}, "52 values"),
    ],
)
def test_wrong_input(true, predicted, options, message):
    with pytest.raises(ValueError, match=message):
        score(true, predicted, **options)


def test_constants_need_rows():
    with pytest.raises(ValueError, match="at least one row"):
        metrics.constants(np.zeros((0, 52)))
