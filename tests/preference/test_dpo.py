"""Pairs before a model: the numbers scored are those that training scores, and DPO prefers what was chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from semanticface.arkit import INDEX
from semanticface.data.faces import load_faces
from semanticface.errors import ConfigError, DatasetError
from semanticface.models.answer_tokens import to_model_inputs
from semanticface.preference import dpo as aligning
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
    """Pairs of a dataset's faces with faces that differ from them in some numbers."""
    out = []
    for row in rows:
        rng = np.random.default_rng(row)
        chosen = np.asarray(split[row]["coefficients"], np.float32).round(2)
        rejected = chosen.copy()
        numbers = rng.choice(52, differing, replace=False)
        rejected[numbers] = ((chosen[numbers] + rng.integers(1, 100, differing) / 100) % 1.01).round(2)
        out.append(Pair(f"picture-{row}", row, chosen, rejected, ("upper", "lower")))
    return out


def built(models, architecture="fast_vlm"):
    """A model with an adapter that changes something, as after distillation."""
    return adapted(models[architecture], side=SIDE[architecture] if architecture == "qwen3_vl" else None)


def scored_by_training(bundle, numbers, sides, face, *, words):
    """Log-probability of what of an answer is scored, by the collator and loss of training."""
    collator = Collator(bundle.processor, PROMPT, numbers=numbers)
    answer = format_answer(sides.faces[face], describe(sides.faces[face]) if words else None)
    inputs, targets = split_targets(collator([Example(sides.picture, answer)]))
    with torch.no_grad():
        losses = token_losses(bundle.model(**to_model_inputs(bundle.model, inputs)).logits, targets["labels"])[
            0
        ].numpy()
    differ = np.flatnonzero(np.rint(sides.faces[0] * 100) != np.rint(sides.faces[1] * 100))
    scored = np.isin(targets["numbers"][0].numpy(), differ)
    if words:
        said = collator.tokenizer(answer.partition('"},"arkit"')[0], add_special_tokens=False)["input_ids"]
        scored[: len(said) + 1] = True
    return -losses[scored].sum()


@pytest.mark.parametrize(
    ("architecture", "numbers", "words"),
    [
        ("fast_vlm", "parallel", False),
        ("fast_vlm", "parallel", True),
        ("fast_vlm", "sequential", False),
        ("smolvlm", "parallel", False),
        ("smolvlm", "sequential", True),
        ("qwen3_vl", "parallel", False),
    ],
)
def test_log_probabilities_are_those_of_training(models, split, architecture, numbers, words):
    bundle = built(models, architecture)
    bundle.model.eval()
    rows = PairDataset(made_pairs(split, range(2)), split, bundle.image_size, mirrored=True)
    collator = PairCollator(bundle.processor, PROMPT, numbers=numbers, words=words, emotion=True)
    wanted = [
        [scored_by_training(bundle, numbers, rows[place], face, words=words) for face in (0, 1)]
        for place in range(len(rows))
    ]
    with aligning._ready(bundle, collator, AlignSettings(per_device_train_batch_size=3)) as ready:
        found = ready.log_probs(rows, "")
        assert "saw 4 pictures once" in ready.look(rows) or architecture == "qwen3_vl"
        again = ready.log_probs(rows, "")
    assert found == pytest.approx(np.array(wanted), rel=1e-5, abs=1e-3)
    assert again == pytest.approx(found, rel=1e-5, abs=1e-3)
    assert len(np.unique(found)) == found.size


def test_only_numbers_that_differ_are_shown_and_scored(models, split):
    bundle = built(models)
    pair = made_pairs(split, [0], differing=3)[0]
    rows = PairDataset([pair], split, bundle.image_size, mirrored=False)
    collator = PairCollator(bundle.processor, PROMPT, numbers="parallel", words=False, emotion=True)
    batch = collator.of([rows[0]])
    prompt = collator.encode_prompts([rows.view(0)])["input_ids"].shape[1]
    keys = sum(len(collator.answer_encoder.tokens.keys[n]) for n in np.flatnonzero(pair.chosen != pair.rejected) if n)
    keys += len(collator.answer_encoder.tokens.opening) if pair.chosen[0] != pair.rejected[0] else 0
    assert batch["shown"]["input_ids"].shape == (1, prompt + keys)
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
    seen = np.asarray(blank(plain).picture)
    assert seen.shape == (32, 32, 3)
    assert (seen == GREY).all()


def test_training_prefers_what_was_chosen_and_changes_the_adapter_alone(models, split, tmp_path):
    bundle = built(models)
    before = {name: value.detach().clone() for name, value in bundle.model.named_parameters()}
    collator = PairCollator(bundle.processor, PROMPT, numbers="parallel", words=False, emotion=True)
    rows = PairDataset(made_pairs(split, range(6)), split, bundle.image_size, mirrored=True)
    held_out = PairDataset(made_pairs(split, [6, 7]), split, bundle.image_size, mirrored=False)
    settings = AlignSettings(per_device_train_batch_size=4, num_train_epochs=4, learning_rate=2e-3, sft_weight=0.1)
    said = []
    margins = align(bundle, settings, collator, rows, held_out, tmp_path, say=said.append)
    assert margins.after > margins.before + 1
    assert margins.pairs == 2
    changed = {name for name, value in bundle.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {name for name, value in bundle.model.named_parameters() if value.requires_grad}
    assert list(bundle.model.peft_config) == ["default"]
    assert "forward" not in vars(bundle.model.get_base_model())
    assert "saw 12 pictures once" in said[0]


def test_a_killed_training_goes_on_exactly(models, split, tmp_path):
    """Stopped between two checkpoints, the same call ends with the same weights and figures."""

    class Killed(Exception):
        pass

    class Kill(aligning.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise Killed

    settings = AlignSettings(per_device_train_batch_size=4, num_train_epochs=3, learning_rate=2e-3, save_steps=2)

    def trained(folder, *callbacks):
        bundle = built(models)
        collator = PairCollator(bundle.processor, PROMPT, numbers="parallel", words=False, emotion=True)
        rows = PairDataset(made_pairs(split, range(6)), split, bundle.image_size, mirrored=False)
        held_out = PairDataset(made_pairs(split, [6, 7]), split, bundle.image_size, mirrored=False)
        margins = align(bundle, settings, collator, rows, held_out, folder, callbacks=callbacks)
        return margins, {name: value for name, value in bundle.model.named_parameters() if value.requires_grad}

    calm, wanted = trained(tmp_path / "calm")
    with pytest.raises(Killed):
        trained(tmp_path / "killed", Kill())
    assert last_checkpoint(tmp_path / "killed" / "checkpoints").name == "checkpoint-2"
    again, found = trained(tmp_path / "killed")
    assert again == calm
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_what_remains_without_the_picture_is_told():
    margins = Margins(pairs=5, before=1.0, after=5.0, blank_before=2.0, blank_after=3.0, accuracy=0.8)
    assert margins.blank_ratio == 0.25
    assert np.isnan(replace(margins, after=1.0).blank_ratio)


def test_what_cannot_be_learnt_is_told(models, split, tmp_path):
    pair = made_pairs(split, [0])[0]
    with pytest.raises(DatasetError, match="row 99 of 8"):
        PairDataset([replace(pair, row=99)], split, 32, mirrored=False)
    with pytest.raises(DatasetError, match="row 0: both faces of a pair are equal"):
        PairDataset([replace(pair, rejected=pair.chosen)], split, 32, mirrored=False)
    with pytest.raises(ConfigError, match=r"align\.beta must be from 0\.001"):
        AlignSettings(beta=0)
    bundle = built(models)
    collator = PairCollator(bundle.processor, PROMPT, numbers="parallel", words=False, emotion=True)
    none = PairDataset([], split, 32, mirrored=False)
    with pytest.raises(DatasetError, match="0 pairs to learn and 0 held out"):
        align(bundle, AlignSettings(), collator, none, none, tmp_path)
