"""Labels and loss weights of batches; order and augmentation of rows."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops
from torch.nn import functional

from semanticface import arkit
from semanticface.data.faces import load_faces
from semanticface.errors import ConfigError, DatasetError
from semanticface.models.answer_tokens import IGNORE_INDEX, number_owners
from semanticface.models.inputs import end_token, prompt_inputs
from semanticface.models.loading import Bundle, ModelConfig, load_base
from semanticface.prompts import load_prompt
from semanticface.semantics.analysis import describe
from semanticface.semantics.answer import parse_answer
from semanticface.training.collator import Collator, Example, split_targets, token_losses
from semanticface.training.datasets import AugmentSettings, EvalFaces, TrainFaces, check_rows
from tests.helpers import tiny_models

END_TOKENS = {"fast_vlm": "<|end|>", "smolvlm": "<end_of_utterance>", "qwen3_vl": "<|im_end|>"}
NO_AUGMENTATION = AugmentSettings(mirror=0, shift=0, scale=0)


@pytest.fixture(scope="module", params=tiny_models.BUILD)
def architecture(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def bundle(architecture, tmp_path_factory) -> Bundle:
    folder = tiny_models.BUILD[architecture](tmp_path_factory.mktemp("models") / architecture)
    return load_base(ModelConfig(str(folder), image_size=tiny_models.SIDE[architecture]))


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return load_faces(tiny_models.faces(tmp_path_factory.mktemp("data") / "faces"), "train")


def examples(bundle: Bundle, count: int = 3) -> list[Example]:
    """Return examples whose answers differ in length."""
    side = (bundle.image_size, bundle.image_size)
    return [
        Example(Image.new("RGB", side, (60 * index, 90, 200)), text)
        for index, text in enumerate(tiny_models.answers(count))
    ]


def test_only_the_answer_and_its_end_are_labels(bundle, architecture):
    rows = examples(bundle)
    batch = Collator(bundle.processor, load_prompt("distill"))(rows)
    assert len({int((labels != IGNORE_INDEX).sum()) for labels in batch["labels"]}) > 1, "the rows must need padding"
    for row, ids, mask, labels in zip(rows, batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        learnt = labels != IGNORE_INDEX
        assert bundle.tokenizer.decode(labels[learnt]) == row.answer + END_TOKENS[architecture]
        # Each position's label is the next token; the end token is a label only.
        following = ids.roll(-1)
        last = learnt.nonzero().max()
        assert torch.equal(following[learnt][:-1], labels[learnt][:-1])
        assert mask[learnt].all()
        # Right padding: real tokens come first, those of the answer last.
        assert not mask.int().diff().gt(0).any()
        assert last == mask.sum() - 1


def test_a_prompt_in_training_is_the_prompt_at_inference(bundle):
    rows = examples(bundle, 2)
    prompt = load_prompt("distill")
    expected = prompt_inputs(bundle, prompt, [row.picture for row in rows])
    batch = Collator(bundle.processor, prompt)(rows)
    length = expected["input_ids"].shape[1]
    assert torch.equal(batch["input_ids"][:, :length], expected["input_ids"])
    assert (batch["labels"][:, : length - 1] == IGNORE_INDEX).all()
    assert (batch["labels"][:, length - 1] != IGNORE_INDEX).all()
    for name in ("pixel_values", "image_grid_thw", "pixel_attention_mask"):
        if name in expected:
            assert torch.equal(batch[name], expected[name])


def test_number_tokens_weigh_more(bundle, architecture):
    batch = Collator(bundle.processor, load_prompt("distill"), number_weight=5.0)(examples(bundle))
    learnt = batch["labels"] != IGNORE_INDEX
    assert (batch["loss_weights"][~learnt] == 0).all()
    assert set(batch["loss_weights"][learnt].tolist()) == {1.0, 5.0}
    assert torch.equal(batch["loss_weights"] == 5.0, batch["number_ids"] >= 0)
    per_number = 1 if architecture == "fast_vlm" else 4
    for row, (labels, numbers) in enumerate(zip(batch["labels"], batch["number_ids"], strict=True)):
        coefficients = parse_answer(tiny_models.answers(3)[row]).coefficients
        for index in range(arkit.N_ACTIONS):
            spelled = labels[numbers == index]
            assert len(spelled) == per_number
            assert float(bundle.tokenizer.decode(spelled)) == pytest.approx(float(coefficients[index]))


def test_the_loss_can_be_on_analysis_or_numbers_alone(bundle, architecture):
    whole = examples(bundle, 1)[0]
    collator = Collator(bundle.processor, load_prompt("distill"), number_weight=5.0)
    both, words, numbers = (
        collator([Example(whole.picture, whole.answer, part)]) for part in ("all", "analysis", "numbers")
    )
    assert torch.equal(words["loss_weights"] + numbers["loss_weights"], both["loss_weights"])
    assert not ((words["loss_weights"] > 0) & (numbers["loss_weights"] > 0)).any()
    assert (words["loss_weights"] < 5).all()
    assert torch.equal(numbers["loss_weights"] == 5, both["number_ids"] >= 0)
    learnt = bundle.tokenizer.decode(numbers["labels"][numbers["loss_weights"] > 0])
    tail = whole.answer[whole.answer.index('"arkit"') :] + END_TOKENS[architecture]
    # A token may straddle the border between analysis and numbers.
    assert learnt.endswith(tail)
    assert len(learnt) - len(tail) < 8


def test_the_end_token_is_the_templates(bundle, architecture):
    end = end_token(bundle.processor, load_prompt("distill"))
    assert bundle.tokenizer.decode([end]) == END_TOKENS[architecture]


def test_split_targets_line_up_with_the_logits(bundle):
    """The weighted loss equals one computed naively from all logits."""
    batch = Collator(bundle.processor, load_prompt("distill"), number_weight=3.0)(examples(bundle, 2))
    inputs, targets = split_targets(dict(batch))
    with torch.no_grad():
        short = bundle.model(**inputs).logits
        inputs.pop("logits_to_keep")
        full = bundle.model(**inputs).logits
    assert short.shape[1] < full.shape[1]
    ours = token_losses(short, targets["labels"])
    naive = functional.cross_entropy(full.transpose(1, 2), batch["labels"], reduction="none")
    torch.testing.assert_close(
        (ours * targets["loss_weights"]).sum(), (naive * batch["loss_weights"]).sum(), rtol=1e-5, atol=1e-4
    )
    assert targets["loss_weights"].sum() == batch["loss_weights"].sum()


def test_padding_changes_no_loss(bundle):
    """A short answer has the same loss alone as next to a longer one."""
    collator = Collator(bundle.processor, load_prompt("distill"))
    rows = sorted(examples(bundle), key=lambda row: len(row.answer))

    def losses(batch):
        inputs, targets = split_targets(batch)
        with torch.no_grad():
            found = token_losses(bundle.model(**inputs).logits, targets["labels"])
        return found[0][targets["labels"][0] != IGNORE_INDEX]

    torch.testing.assert_close(losses(collator(rows[:1])), losses(collator([rows[0], rows[-1]])), rtol=1e-4, atol=1e-4)


def test_number_owners_marks_digits_and_points_only():
    answer = tiny_models.answers(1)[0]
    owners = number_owners(answer)
    values = parse_answer(answer).coefficients
    for index in range(arkit.N_ACTIONS):
        spelled = "".join(char for char, owner in zip(answer, owners, strict=True) if owner == index)
        assert float(spelled) == pytest.approx(float(values[index]))
    assert (owners[: answer.index('"arkit"')] == -1).all()


def test_number_owners_refuses_an_answer_without_52_numbers():
    with pytest.raises(DatasetError, match="51 numbers, not 52"):
        number_owners(tiny_models.answers(1)[0].replace('"tongueOut":', '"tongueOut"'))


def train_rows(faces, **changes):
    settings = {"count": 24, "augment": AugmentSettings(), "emotion": True, "seed": 5} | changes
    return TrainFaces(faces, 32, **settings)


def same(first: Example, second: Example) -> bool:
    return first.answer == second.answer and not ImageChops.difference(first.picture, second.picture).getbbox()


def test_a_position_always_gives_the_same_example(faces):
    rows = train_rows(faces)
    backwards = [rows[position] for position in reversed(range(24))][::-1]
    assert all(same(rows[position], backwards[position]) for position in range(24))
    assert not all(same(train_rows(faces, seed=6)[position], rows[position]) for position in range(24))


def test_every_epoch_has_every_row_once_in_another_order(faces):
    rows = train_rows(faces, augment=NO_AUGMENTATION)
    epochs = [[rows[position].answer for position in range(start, start + 8)] for start in (0, 8, 16)]
    assert all(sorted(answers) == sorted(faces["answer"]) for answers in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    with pytest.raises(IndexError):
        rows[24]


def test_mirrored_rows_are_mirrored_in_picture_numbers_and_analysis(faces):
    plain, flipped = (train_rows(faces, augment=AugmentSettings(mirror, 0, 0)) for mirror in (0, 1))
    for position in range(8):
        before, after = plain[position], flipped[position]
        assert same(before, Example(after.picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), before.answer))
        truth, mirrored = parse_answer(before.answer), parse_answer(after.answer)
        np.testing.assert_allclose(mirrored.coefficients, arkit.mirror(truth.coefficients))
        assert mirrored.analysis == describe(mirrored.coefficients)


def test_decoupled_numbers_follow_the_analysis_of_another_face(faces):
    plain = train_rows(faces, augment=NO_AUGMENTATION, count=64)
    decoupled = train_rows(faces, augment=AugmentSettings(0, 0, 0, decouple_numbers=True), count=64)
    parts, changed = [], 0
    for position in range(64):
        before, after = plain[position], decoupled[position]
        parts.append(after.loss_on)
        if after.loss_on == "analysis":
            assert same(before, after)
            continue
        truth, found = parse_answer(before.answer), parse_answer(after.answer)
        np.testing.assert_array_equal(found.coefficients, truth.coefficients)
        changed += found.analysis != truth.analysis
    assert set(parts) == {"analysis", "numbers"}
    assert 20 < parts.count("analysis") < 44
    assert changed > 10


def test_a_share_of_rows_learns_numbers_without_analysis(faces):
    plain = train_rows(faces, augment=NO_AUGMENTATION, count=64)
    numbers_only = train_rows(
        faces, augment=AugmentSettings(0, 0, 0, numbers_only_prob=0.3, decouple_numbers=True), count=64
    )
    bare = 0
    for position in range(64):
        truth, found = parse_answer(plain[position].answer), parse_answer(numbers_only[position].answer)
        np.testing.assert_array_equal(found.coefficients, truth.coefficients)
        if found.analysis is None:
            bare += 1
            assert numbers_only[position].loss_on == "numbers"
    assert 10 < bare < 30


def test_training_jitters_the_box_and_evaluation_does_not(faces):
    rows, held_out = train_rows(faces, augment=AugmentSettings(mirror=0)), EvalFaces(faces, 32)
    assert len(held_out) == len(faces)
    by_answer = {example.answer: example for example in (held_out[index] for index in range(len(faces)))}
    assert not any(same(rows[position], by_answer[rows[position].answer]) for position in range(8))
    still = train_rows(faces, augment=NO_AUGMENTATION)
    assert all(same(still[position], by_answer[still[position].answer]) for position in range(8))


def test_evaluation_spreads_over_the_split(faces):
    few = EvalFaces(faces, 32, 3)
    assert [few[index].answer for index in range(len(few))] == [faces["answer"][row] for row in (0, 4, 7)]


def test_answers_must_be_canonical_and_as_configured(faces, tmp_path):
    check_rows(faces, "here", emotion=True)
    with pytest.raises(ConfigError, match="made with emotion, the config says emotion: false"):
        check_rows(faces, "here", emotion=False)
    silent = load_faces(tiny_models.faces(tmp_path / "silent", emotion=False), "train")
    check_rows(silent, "here", emotion=False)
    with pytest.raises(ConfigError, match="made without emotion"):
        check_rows(silent, "here", emotion=True)
    with pytest.raises(DatasetError, match="row 0: the answer is not in the canonical form"):
        check_rows(faces.map(lambda row: {"answer": row["answer"].replace(":0.00", ":0.0")}), "here", emotion=True)
    with pytest.raises(DatasetError, match="row 0"):
        check_rows(faces.map(lambda row: {"answer": row["answer"][:-9]}), "here", emotion=True)
    with pytest.raises(DatasetError, match="no rows"):
        check_rows(faces.select([]), "here", emotion=True)
