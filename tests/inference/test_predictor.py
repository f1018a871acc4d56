"""One prediction for each picture, in order, or a reason for the failure; whatever the batch and the weights."""

import io
import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from semanticface.arkit import MIRROR_INDEX, NAMES
from semanticface.inference import predictor as predict
from semanticface.inference.decoder import DecodedAnswer
from semanticface.inference.engine import DecodingEngine
from semanticface.inference.predictor import Prediction, Predictor
from semanticface.models.loading import load_trained
from semanticface.prompts import load_prompt
from semanticface.semantics.answer import parse_answer
from semanticface.semantics.faithfulness import agreement
from semanticface.vision.crop import Box
from tests.helpers import tiny_models
from tests.helpers.random_weights import randomize_weights
from tests.helpers.same_answers import assert_same_answers


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: build(tmp_path_factory.mktemp(name)) for name, build in tiny_models.BUILD.items()}


@pytest.fixture(scope="module")
def predictors(folders):
    """A predictor for each architecture, with random weights that depend on the picture."""
    made = {}
    for name, folder in folders.items():
        bundle = load_trained(folder, device="cpu")
        randomize_weights(bundle.model, bundle.tokenizer)
        bundle.recipe |= recipe_of("distill")
        made[name] = Predictor(bundle)
    return made


def recipe_of(name: str, *, emotion: bool = True, readout: str = "greedy") -> dict:
    prompt = load_prompt(name, emotion=emotion)
    record = {"name": name, "version": str(prompt.version), "sha256": prompt.sha256}
    return {"prompt": record, "emotion": emotion, "readout": readout}


@pytest.fixture(scope="module")
def nano_like(predictors):
    return predictors["fast_vlm"]


def pictures(count: int, side: int = 48) -> list[Image.Image]:
    """Return different pictures of coloured patches."""
    rng = np.random.default_rng(5)
    patches = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(patch).resize((side, side), Image.Resampling.BICUBIC) for patch in patches]


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def texts(predictions: list[Prediction]) -> list[str]:
    assert [p.status for p in predictions] == ["ok"] * len(predictions), [p.reason for p in predictions]
    return [p.text for p in predictions]


@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("name", tiny_models.BUILD)
def test_random_weights_give_valid_predictions(predictors, name, temperature):
    found = predictors[name](pictures(2), crop="none", temperature=temperature)
    for prediction in found:
        assert prediction.status == "ok"
        assert prediction.reason == prediction.note == ""
        assert prediction.coefficients.dtype == np.float32
        assert prediction.coefficients.shape == (52,)
        answer = parse_answer(prediction.text)
        assert np.array_equal(answer.coefficients, prediction.coefficients)
        assert {**prediction.analysis.texts(), **prediction.repaired} == answer.analysis.texts()
        assert agreement(prediction.analysis, prediction.coefficients).contradicts == ()
    assert found[0].text != found[1].text


@pytest.mark.parametrize("name", tiny_models.BUILD)
def test_batches_do_not_change_greedy_answers(predictors, name):
    given = pictures(8)
    together = texts(predictors[name](given, crop="none", batch_size=8))
    assert len(set(together)) > 2
    for count, batch in ((5, 3), (2, 1)):
        apart = texts(predictors[name](given[:count], crop="none", batch_size=batch))
        assert_same_answers(apart, together[:count])


def test_a_sample_depends_on_seed_and_index_alone(nano_like):
    given = pictures(1) * 4
    first = texts(nano_like(given, crop="none", temperature=1.0, seed=3, batch_size=4))
    assert len(set(first)) == 4
    assert_same_answers(texts(nano_like(given, crop="none", temperature=1.0, seed=3, batch_size=3)), first)
    assert texts(nano_like(given, crop="none", temperature=1.0, seed=4, batch_size=4)) != first


def test_the_recipe_applies_and_can_be_overridden(folders):
    bundle = load_trained(folders["fast_vlm"], device="cpu")
    randomize_weights(bundle.model, bundle.tokenizer)
    assert Predictor(bundle).prompt == load_prompt("zero_shot")
    assert Predictor(bundle).engine.decoder.readout == "greedy"
    silent = Predictor(bundle, emotion=False)
    assert silent.prompt == load_prompt("zero_shot", emotion=False)
    assert silent(pictures(1), crop="none")[0].analysis.emotional_implication is None

    bundle.recipe |= recipe_of("distill", emotion=False, readout="mean")
    trained = Predictor(bundle)
    assert trained.prompt == load_prompt("distill", emotion=False)
    found = trained(pictures(1), crop="none")[0]
    assert found.analysis.emotional_implication is None
    assert "emotional_implication" not in found.to_dict()["analysis"]
    assert found.text == Predictor(bundle, readout="mean", emotion=False)(pictures(1), crop="none")[0].text
    assert found.text != Predictor(bundle, readout="greedy")(pictures(1), crop="none")[0].text


@pytest.mark.parametrize("readout", ["greedy", "mean", "median"])
@pytest.mark.parametrize("numbers", ["sequential", "parallel"])
def test_greedy_mean_median_and_interval_come_from_one_pass(folders, numbers, readout):
    bundle = load_trained(folders["fast_vlm"], device="cpu")
    randomize_weights(bundle.model, bundle.tokenizer)
    bundle.recipe["numbers"] = numbers
    predictor = Predictor(bundle, mode="numbers", readout=readout)
    assert predictor.level is None
    for found in predictor(pictures(3), crop="none", batch_size=2, keep_probs=True):
        values = np.arange(101) / 100
        assert np.allclose(found.probs.sum(1), 1, atol=1e-5)
        assert np.allclose(found.mean, found.probs @ values, atol=1e-5)
        assert np.array_equal(found.summary.greedy, values.astype(np.float32)[found.probs.argmax(1)])
        assert np.abs(getattr(found.summary, readout) - found.coefficients).max() <= 0.005 + 1e-6
        low, high = found.interval.T
        assert ((low >= 0) & (low <= found.median) & (found.median <= high) & (high <= 1)).all()
        inside = (found.probs * ((values >= low[:, None] - 1e-6) & (values <= high[:, None] + 1e-6))).sum(1)
        assert (inside > 0.8 - 1e-5).all()
        assert not found.summary.calibrated
    plain = predictor(pictures(1), crop="none")[0]
    assert plain.probs is None
    assert plain.mean is not None


def test_a_calibrated_model_has_other_intervals_and_reports_it(folders):
    bundle = load_trained(folders["fast_vlm"], device="cpu")
    randomize_weights(bundle.model, bundle.tokenizer)
    raw = Predictor(bundle, mode="numbers")(pictures(1), crop="none")[0]
    bundle.recipe["calibration"] = {"levels": {"numbers": 0.95}}
    fitted = Predictor(bundle, mode="numbers")(pictures(1), crop="none")[0]
    assert fitted.text == raw.text
    widths = [np.ptp(one.interval, axis=1) for one in (raw, fitted)]
    assert (widths[1] >= widths[0]).all()
    assert widths[1].mean() > widths[0].mean()
    assert [one.to_dict()["calibrated"] for one in (raw, fitted)] == [False, True]
    assert Predictor(bundle, mode="full").level is None


@pytest.mark.parametrize("mirror", [False, True])
def test_nano_reads_the_numbers_first_and_says_what_holds_for_them(mirror):
    bundle = load_trained("nano", device="cpu")
    numbers, full = (
        Predictor(bundle, mode=mode, mirror=mirror)(pictures(2), crop="none") for mode in ("numbers", "full")
    )
    for bare, found in zip(numbers, full, strict=True):
        assert np.array_equal(bare.coefficients, found.coefficients)
        assert np.array_equal(bare.interval, found.interval)
        assert agreement(found.analysis, found.coefficients).contradicts == ()
        assert found.repaired == {} and "repaired" not in found.to_dict()


def test_words_before_their_numbers_are_repaired():
    bundle = load_trained("nano", device="cpu")
    written, changed = 0, 0
    for found in Predictor(bundle, order="analysis")(pictures(3), crop="none"):
        assert agreement(found.analysis, found.coefficients).contradicts == ()
        own = parse_answer(found.text).analysis.texts()
        assert own == {**found.analysis.texts(), **found.repaired}
        assert found.to_dict().get("repaired", {}) == found.repaired
        written, changed = written + len(own), changed + len(found.repaired)
    assert 0 < changed < written


@pytest.mark.parametrize("readout", ["greedy", "mean", "median"])
@pytest.mark.parametrize("name", ["fast_vlm", "qwen3_vl"])
def test_mirror_averages_both_distributions(predictors, name, readout):
    bundle = predictors[name].bundle
    given = pictures(3)
    plain, both = (Predictor(bundle, readout=readout, mirror=mirror) for mirror in (False, True))
    alone = plain(given, crop="none", keep_probs=True)
    mirrored = plain([ImageOps.mirror(one) for one in given], crop="none", keep_probs=True)
    found = both([*given, b"no picture"], crop="none", batch_size=2, keep_probs=True)
    assert found.pop().status != "ok"
    for one, other, mean in zip(alone, mirrored, found, strict=True):
        assert mean.analysis == one.analysis
        assert parse_answer(mean.text).analysis == one.analysis
        expected = (one.probs + other.probs[MIRROR_INDEX]) / 2
        np.testing.assert_allclose(mean.probs, expected, atol=1e-4)
        assert np.abs(getattr(mean.summary, readout) - mean.coefficients).max() <= 0.005 + 1e-6
        assert np.array_equal(parse_answer(mean.text).coefficients, mean.coefficients)
        assert not np.allclose(mean.probs, one.probs, atol=1e-4)
    again = both([ImageOps.mirror(one) for one in given], crop="none")
    for one, other in zip(found, again, strict=True):
        np.testing.assert_allclose(one.mean[MIRROR_INDEX], other.mean, atol=1e-4)
    with pytest.raises(ValueError, match="temperature"):
        both(given, crop="none", temperature=1.0)


@pytest.mark.parametrize("numbers", ["sequential", "parallel"])
def test_numbers_without_analysis(folders, numbers):
    bundle = load_trained(folders["fast_vlm"], device="cpu")
    randomize_weights(bundle.model, bundle.tokenizer)
    bundle.recipe["numbers"] = numbers
    given = pictures(5)
    found = Predictor(bundle, mode="numbers")(given, crop="none", batch_size=2)
    assert {one.status for one in found} == {"ok"}
    assert all(one.analysis is None and one.text.startswith('{"arkit":{') for one in found)
    assert all(one.to_dict()["analysis"] is None for one in found)
    full = Predictor(bundle)(given, crop="none")
    assert [one.text for one in found] != [one.text for one in full]
    assert all(one.analysis is not None for one in full)


def test_several_samples_of_each_picture_stay_together(nano_like):
    given = [*pictures(2), b"no picture", *pictures(1)]
    found = nano_like(given, crop="none", temperature=1.0, seed=3, answers=3, batch_size=2)
    assert [one.status for one in found] == [*["ok"] * 6, found[6].status, *["ok"] * 3]
    assert found[6].coefficients is None
    assert [one.image for one in found[:7]] == [*["picture 1"] * 3, *["picture 2"] * 3, "picture 3"]
    assert len({one.text for one in found}) == 10
    again = nano_like(given, crop="none", temperature=1.0, seed=3, answers=3, batch_size=4)
    assert [one.text for one in again] == [one.text for one in found]
    for wrong in ({"answers": 0}, {"answers": 2}):
        with pytest.raises(ValueError, match="answers"):
            nano_like(given, crop="none", **wrong)


def test_a_changed_prompt_is_a_warning(folders, caplog):
    bundle = load_trained(folders["fast_vlm"], device="cpu")
    with caplog.at_level(logging.WARNING):
        Predictor(bundle)
    assert "prompt" not in caplog.text
    bundle.recipe["prompt"]["sha256"] = "0" * 64
    with caplog.at_level(logging.WARNING):
        Predictor(bundle)
    assert "zero_shot is not the text this model was trained with" in caplog.text


def test_from_pretrained_loads_a_folder(folders):
    predictor = Predictor.from_pretrained(folders["fast_vlm"], device="cpu", readout="mean")
    assert predictor.engine.decoder.readout == "mean"
    assert predictor(pictures(1), crop="none", temperature=0.5)[0].status == "ok"


def test_bad_pictures_keep_their_order(nano_like, tmp_path):
    good = pictures(3)
    good[1].save(tmp_path / "good.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(png(good[0])[:200])
    given = [
        png(good[0]), tmp_path / "empty.png", str(tmp_path / "good.png"), tmp_path / "gone.png", b"not a picture",
        tmp_path / "cut.png", good[2],
    ]  # fmt: skip
    alone = texts(nano_like(good, crop="none"))
    for batch_size in (1, 2, 7):
        found = nano_like(given, crop="none", batch_size=batch_size)
        assert [p.status for p in found] == ["ok", "empty", "ok", "missing", "not_a_picture", "damaged", "ok"]
        assert [p.text for p in found if p.status == "ok"] == alone
        assert [p.image for p in found] == [
            "picture 1", str(tmp_path / "empty.png"), str(tmp_path / "good.png"), str(tmp_path / "gone.png"),
            "picture 5", str(tmp_path / "cut.png"), "picture 7",
        ]  # fmt: skip
        for prediction in found:
            assert (prediction.coefficients is None) == (prediction.analysis is None) == (prediction.status != "ok")
            assert (prediction.image in prediction.reason) == (prediction.status != "ok")


def test_a_picture_the_model_fails_on_does_not_take_others_with_it(nano_like):
    given = [*pictures(2), Image.new("RGB", (48, 48), "white"), *pictures(1)]

    alone = texts(nano_like(pictures(2), crop="none"))

    def refuse_plain(module, arguments, options):
        pixels = arguments[0] if arguments else options["pixel_values"]
        if any(bool((row == row[:, :1, :1]).all()) for row in pixels):
            raise RuntimeError("out of memory")

    hook = nano_like.bundle.model.model.vision_tower.register_forward_pre_hook(refuse_plain, with_kwargs=True)
    try:
        found = nano_like(given, crop="none")
    finally:
        hook.remove()
    assert [p.status for p in found] == ["ok", "ok", "model_failed", "ok"]
    assert [found[0].text, found[1].text, found[3].text] == [*alone, alone[0]]
    assert found[2].reason == "picture 3: the model failed: out of memory"


@pytest.mark.parametrize("mirror", [False, True])
def test_an_answer_that_does_not_parse_is_reported_with_its_text(nano_like, monkeypatch, mirror):
    monkeypatch.setattr(nano_like, "mirror", mirror)
    cut = DecodedAnswer('{"analysis":{"expr', np.full((52, 101), 1 / 101, dtype=np.float32))
    monkeypatch.setattr(DecodingEngine, "generate", lambda self, inputs, **options: [cut])
    found = nano_like(pictures(1), crop="none")[0]
    assert (found.status, found.coefficients) == ("invalid_answer", None)
    assert found.text == found.to_dict()["text"] == '{"analysis":{"expr'
    assert "picture 1" in found.reason


def test_one_batch_is_in_memory_at_a_time(nano_like):
    taken = []

    def counted():
        for index, picture in enumerate(pictures(7)):
            taken.append(index)
            yield picture

    stream = nano_like.stream(counted(), crop="none", batch_size=2)
    assert taken == []
    for index, prediction in enumerate(stream):
        assert prediction.image == f"picture {index + 1}"
        assert len(taken) <= index - index % 2 + 2
    assert len(taken) == 7


def test_no_pictures_no_predictions(nano_like):
    assert nano_like([]) == []


def test_the_model_sees_the_box_alone(nano_like):
    wide = Image.new("RGB", (144, 48), "grey")
    for index, picture in enumerate(pictures(3)):
        wide.paste(picture, (48 * index, 0))
    middle = nano_like([wide], crop=Box(48, 0, 96, 48))[0]
    assert middle.box == Box(48, 0, 96, 48)
    # Resampling looks a few pixels beyond the box, so the reference is the same picture shifted, not the patch alone.
    shifted = wide.crop((24, 0, 144, 48))
    assert nano_like([shifted], crop=Box(24, 0, 72, 48))[0].text == middle.text
    assert nano_like([wide], crop=Box(0, 0, 48, 48))[0].text != middle.text
    outside = nano_like([wide, pictures(1)[0]], crop=Box(96, 0, 144, 48))
    assert [p.status for p in outside] == ["ok", "bad_box"]


def test_no_face_and_several_faces_are_reported(nano_like, monkeypatch):
    faces = {40: [], 44: [Box(4, 4, 40, 40, 0.9)], 48: [Box(0, 0, 24, 24, 0.9), Box(24, 24, 48, 48, 0.5)]}
    monkeypatch.setattr(predict, "detect_faces", lambda image: faces[image.width])
    given = [picture.resize((side, side)) for picture, side in zip(pictures(3), (40, 44, 48), strict=True)]
    none, one, two = nano_like(given)
    assert (none.status, none.box, none.note) == ("no_face", None, "")
    assert "picture 1: no face found" in none.reason
    assert (one.status, one.box, one.note) == ("ok", Box(4, 4, 40, 40), "")
    assert (two.status, two.box, two.reason) == ("ok", Box(0, 0, 24, 24), "")
    assert two.note == "2 faces found; this is the largest"


def test_the_largest_face_is_read_unless_it_is_doubtful(nano_like, monkeypatch):
    card, person, wall = Box(0, 0, 10, 10, 0.95), Box(12, 0, 40, 28, 0.8), Box(0, 8, 40, 48, 0.3)
    monkeypatch.setattr(predict, "detect_faces", lambda image: [card, person, wall])
    assert nano_like(pictures(1))[0].box == person


def test_all_faces_have_a_row_each(nano_like, monkeypatch):
    left, right = Box(0, 0, 24, 24, 0.5), Box(24, 24, 48, 48, 0.9)
    monkeypatch.setattr(predict, "detect_faces", lambda image: [right, left] if image.width == 48 else [])
    first, empty, third = pictures(3)
    empty = empty.resize((40, 40))
    # Three faces in one batch of two pictures and the next, and an empty picture between them.
    found = nano_like([first, empty, third], crop="all", batch_size=2)
    assert [(each.image, each.face, each.box) for each in found] == [
        ("picture 1", 1, left), ("picture 1", 2, right), ("picture 2", 0, None), ("picture 3", 1, left),
        ("picture 3", 2, right),
    ]  # fmt: skip
    assert found[2].status == "no_face"
    for each, picture in zip((found[0], found[4]), (first, third), strict=True):
        (alone,) = nano_like([picture], crop=each.box)
        assert each.text == alone.text
    assert list(found[1].to_dict())[:3] == ["image", "status", "face"] and "face" not in found[2].to_dict()


def test_json_form(nano_like):
    good, bad = (p.to_dict() for p in nano_like([pictures(1)[0], b""], crop="none"))
    assert list(good) == ["image", "status", "box", "coefficients", "interval", "calibrated", "analysis"]
    assert good["box"] == [0, 0, 48, 48]
    assert tuple(good["coefficients"]) == NAMES
    assert all(value == round(value, 2) for value in good["coefficients"].values())
    assert tuple(good["interval"]) == NAMES
    assert all(0 <= low <= high <= 1 for low, high in good["interval"].values())
    assert good["calibrated"] is False
    nothing = {"coefficients": None, "analysis": None}
    assert bad == {"image": "picture 2", "status": "empty", "reason": bad["reason"]} | nothing
    assert json.loads(json.dumps([good, bad])) == [good, bad]


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0}, {"temperature": -0.1}, {"temperature": float("nan")}, {"seed": -1}, {"crop": "face"},
        {"crop": (0, 0, 1, 1)},
    ],
)  # fmt: skip
def test_misuse_raises(nano_like, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        nano_like(pictures(1), **wrong)


@pytest.mark.parametrize(("variable", "threads"), [(None, 1), ("2", 2)])
def test_small_models_use_one_thread_unless_omp_num_threads_is_set(monkeypatch, variable, threads):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    try:
        torch.set_num_threads(2)
        Predictor.from_pretrained("nano", device="cpu")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
