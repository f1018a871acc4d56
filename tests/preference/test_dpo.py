"""DPO on pairs of faces: the scored tokens are those of training, and the chosen face becomes more likely."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from semanticface.arkit import INDEX
from semanticface.data.faces import load_faces
from semanticface.errors import ConfigError, DatasetError
from semanticface.models.answer_tokens import to_model_inputs
from semanticface.preference import dpo
from semanticface.preference.dpo import AlignSettings, Margins, align
from semanticface.preference.pair_collator import GREY, PairCollator, PairDataset, blank
from semanticface.preference.types import Pair
from semanticface.prompts import load_prompt
from semanticface.semantics.analysis import describe
from semanticface.semantics.answer import format_answer
from semanticface.training.collator import Collator, Example, split_targets, token_losses
from semanticface.training.trainer import last_checkpoint
from tests.helpers.tiny_adapter import adapted
from tests.helpers.tiny_models import BUILD, SIDE, faces

PROMPT = load_prompt("distill")


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return load_faces(faces(tmp_path_factory.mktemp("data") / "faces"), "train")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: build(folder / name) for name, build in BUILD.items()}


def made_pairs(split, rows, differing=20):
    """Pairs of a dataset's faces with faces that differ in some numbers."""
    out = []
    for row in rows:
        rng = np.random.default_rng(row)
        chosen = np.asarray(split[row]["coefficients"], np.float32).round(2)
        rejected = chosen.copy()
        numbers = rng.choice(52, differing, replace=False)
        rejected[numbers] = ((chosen[numbers] + rng.integers(1, 100, differing) / 100) % 1.01).round(2)
        out.append(Pair(f"picture-{row}", row, chosen, rejected, ("upper", "lower")))
    return out


def adapted_bundle(models, architecture="fast_vlm"):
    """A model with a nonzero adapter, as after distillation."""
    return adapted(models[architecture], side=SIDE[architecture] if architecture == "qwen3_vl" else None)


def scored_by_training(bundle, numbers, example, face, *, analysis):
    """Log-probability of the scored tokens of an answer, by the collator and loss of training."""
    collator = Collator(bundle.processor, PROMPT, numbers=numbers)
    answer = format_answer(example.faces[face], describe(example.faces[face]) if analysis else None)
    inputs, targets = split_targets(collator([Example(example.picture, answer)]))
    with torch.no_grad():
        losses = token_losses(bundle.model(**to_model_inputs(bundle.model, inputs)).logits, targets["labels"])[
            0
        ].numpy()
    differ = np.flatnonzero(np.rint(example.faces[0] * 100) != np.rint(example.faces[1] * 100))
    scored = np.isin(targets["number_ids"][0].numpy(), differ)
    if analysis:
        analysis_ids = collator.tokenizer(answer.partition('"},"arkit"')[0], add_special_tokens=False)["input_ids"]
        scored[: len(analysis_ids) + 1] = True
    return -losses[scored].sum()


@pytest.mark.parametrize(
    ("architecture", "numbers", "analysis"),
    [
        ("fast_vlm", "parallel", False), ("fast_vlm", "parallel", True), ("fast_vlm", "sequential", False),
        ("smolvlm", "parallel", False), ("smolvlm", "sequential", True), ("qwen3_vl", "parallel", False),
    ],
)  # fmt: skip
def test_log_probabilities_are_those_of_training(models, split, architecture, numbers, analysis):
    bundle = adapted_bundle(models, architecture)
    bundle.model.eval()
    rows = PairDataset(made_pairs(split, range(2)), split, bundle.image_size, mirrored=True)
    collator = PairCollator(bundle.processor, PROMPT, numbers=numbers, analysis=analysis, emotion=True)
    wanted = [
        [scored_by_training(bundle, numbers, rows[index], face, analysis=analysis) for face in (0, 1)]
        for index in range(len(rows))
    ]
    with dpo._prepared(bundle, collator, AlignSettings(per_device_train_batch_size=3)) as model:
        found = model.log_probs(rows, "")
        assert "cached features of 4 pictures" in model.cache_features(rows) or architecture == "qwen3_vl"
        again = model.log_probs(rows, "")
    assert found == pytest.approx(np.array(wanted), rel=1e-5, abs=1e-3)
    assert again == pytest.approx(found, rel=1e-5, abs=1e-3)
    assert len(np.unique(found)) == found.size


def test_only_numbers_that_differ_are_encoded_and_scored(models, split):
    bundle = adapted_bundle(models)
    pair = made_pairs(split, [0], differing=3)[0]
    rows = PairDataset([pair], split, bundle.image_size, mirrored=False)
    collator = PairCollator(bundle.processor, PROMPT, numbers="parallel", analysis=False, emotion=True)
    batch = collator([rows[0]])
    prompt = collator.encode_prompts([rows.view(0)])["input_ids"].shape[1]
    tokens = collator.answer_encoder.number_tokens
    keys = sum(len(tokens.keys[n]) for n in np.flatnonzero(pair.chosen != pair.rejected) if n)
    keys += len(tokens.opening) if pair.chosen[0] != pair.rejected[0] else 0
    assert batch["model_inputs"]["input_ids"].shape == (1, prompt + keys)
    spelled = [collator.tokenizer.decode(ids[1:], clean_up_tokenization_spaces=False) for ids in batch["input_ids"]]
    differ = np.flatnonzero(pair.chosen != pair.rejected)
    assert spelled == ["".join(f"{face[n]:.2f}" for n in differ) for face in (pair.chosen, pair.rejected)]


def test_mirror_images_swap_sides_and_blank_pictures_are_grey(models, split):
    rows = PairDataset(made_pairs(split, range(2)), split, 32, mirrored=True)
    plain, flipped = rows[1], rows[3]
    names = ["eyeBlinkLeft", "jawLeft"], ["eyeBlinkRight", "jawRight"]
    for left, right in zip(*names, strict=True):
        assert (flipped.faces[:, INDEX[left]] == plain.faces[:, INDEX[right]]).all()
    assert (np.asarray(flipped.picture) == np.asarray(plain.picture)[:, ::-1]).all()
    grey = np.asarray(blank(plain).picture)
    assert grey.shape == (32, 32, 3)
    assert (grey == GREY).all()


def test_training_prefers_what_was_chosen_and_changes_the_adapter_alone(models, split, tmp_path):
    bundle = adapted_bundle(models)
    before = {name: value.detach().clone() for name, value in bundle.model.named_parameters()}
    collator = PairCollator(bundle.processor, PROMPT, numbers="parallel", analysis=False, emotion=True)
    rows = PairDataset(made_pairs(split, range(6)), split, bundle.image_size, mirrored=True)
    held_out = PairDataset(made_pairs(split, [6, 7]), split, bundle.image_size, mirrored=False)
    settings = AlignSettings(per_device_train_batch_size=4, num_train_epochs=4, learning_rate=2e-3, sft_weight=0.1)
    log = []
    margins = align(bundle, settings, collator, rows, held_out, tmp_path, log=log.append)
    assert margins.after > margins.before + 1
    assert margins.pairs == 2
    changed = {name for name, value in bundle.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {name for name, value in bundle.model.named_parameters() if value.requires_grad}
    assert list(bundle.model.peft_config) == ["default"]
    assert "forward" not in vars(bundle.model.get_base_model())
    assert "cached features of 12 pictures" in log[0]


def test_a_killed_training_resumes_exactly(models, split, tmp_path):
    """Killed between two checkpoints, the same call ends with the same weights and margins."""

    class Killed(Exception):
        pass

    class Kill(dpo.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise Killed

    settings = AlignSettings(per_device_train_batch_size=4, num_train_epochs=3, learning_rate=2e-3, save_steps=2)

    def trained(folder, *callbacks):
        bundle = adapted_bundle(models)
        collator = PairCollator(bundle.processor, PROMPT, numbers="parallel", analysis=False, emotion=True)
        rows = PairDataset(made_pairs(split, range(6)), split, bundle.image_size, mirrored=False)
        held_out = PairDataset(made_pairs(split, [6, 7]), split, bundle.image_size, mirrored=False)
        margins = align(bundle, settings, collator, rows, held_out, folder, callbacks=callbacks)
        return margins, {name: value for name, value in bundle.model.named_parameters() if value.requires_grad}

    margins, wanted = trained(tmp_path / "uninterrupted")
    with pytest.raises(Killed):
        trained(tmp_path / "killed", Kill())
    assert last_checkpoint(tmp_path / "killed" / "checkpoints").name == "checkpoint-2"
    again, found = trained(tmp_path / "killed")
    assert again == margins
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_blank_ratio():
    margins = Margins(pairs=5, before=1.0, after=5.0, blank_before=2.0, blank_after=3.0, accuracy=0.8)
    assert margins.blank_ratio == 0.25
    assert np.isnan(replace(margins, after=1.0).blank_ratio)


def test_invalid_pairs_and_settings_are_refused(models, split, tmp_path):
    pair = made_pairs(split, [0])[0]
    with pytest.raises(DatasetError, match="row 99 of 8"):
        PairDataset([replace(pair, row=99)], split, 32, mirrored=False)
    with pytest.raises(DatasetError, match="row 0: both faces of a pair are equal"):
        PairDataset([replace(pair, rejected=pair.chosen)], split, 32, mirrored=False)
    with pytest.raises(ConfigError, match=r"align\.beta must be from 0\.001"):
        AlignSettings(beta=0)
    bundle = adapted_bundle(models)
    collator = PairCollator(bundle.processor, PROMPT, numbers="parallel", analysis=False, emotion=True)
    none = PairDataset([], split, 32, mirrored=False)
    with pytest.raises(DatasetError, match="0 pairs to train on and 0 held out"):
        align(bundle, AlignSettings(), collator, none, none, tmp_path)
