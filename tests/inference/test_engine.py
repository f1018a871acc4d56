"""Decoding in few forward passes: the same text as token by token, and parallel numbers as they were trained."""

from __future__ import annotations

import numpy as np
import peft
import pytest
import torch
from PIL import Image

from semanticface.arkit import INDEX, N_ACTIONS, POSE_NAMES, pose_units
from semanticface.errors import ModelError
from semanticface.inference.decoder import AnswerDecoder
from semanticface.inference.engine import DecodingEngine
from semanticface.inference.number_readout import NumberStates, NumberTrie, median_value
from semanticface.models.answer_tokens import AnswerEncoder, NumberTokens, concat_branches, to_model_inputs
from semanticface.models.inputs import prompt_inputs
from semanticface.models.loading import ModelConfig, load_base
from semanticface.prompts import load_prompt
from semanticface.semantics.answer import NUMBER_TEXTS, format_answer, parse_answer
from semanticface.semantics.faithfulness import agreement
from semanticface.training.collator import Collator, Example
from tests.helpers import tiny_models
from tests.helpers.random_weights import randomize_weights
from tests.helpers.same_answers import assert_same_answers

PROMPT = load_prompt("distill")
BUILD = tiny_models.BUILD | {"llava": tiny_models.llava}
HOW = [("full", "greedy"), ("full", "mean"), ("numbers", "greedy"), ("numbers", "mean"), ("numbers", "median")]


@pytest.fixture(scope="module", params=BUILD)
def architecture(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def bundle(architecture, tmp_path_factory):
    """A tiny model with weights large enough that every picture gets a different answer."""
    folder = BUILD[architecture](tmp_path_factory.mktemp("models") / architecture)
    loaded = load_base(ModelConfig(str(folder), image_size=tiny_models.SIDE[architecture]))
    randomize_weights(loaded.model, loaded.tokenizer)
    return loaded


def pictures(bundle, count: int, seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    shape = (bundle.image_size, bundle.image_size, 3)
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]


def inputs_of(bundle, count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    return prompt_inputs(bundle, PROMPT, pictures(bundle, count, seed))


def with_adapter(bundle):
    """Return the model with an unmerged LoRA adapter that changes its answers."""
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules=r".*(language_model|text_model).*\.(q_proj|v_proj|down_proj)")
    model = peft.get_peft_model(bundle.model, config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return model.eval()


class CountPasses:
    """Counts forward passes of a model's language layers and of its vision encoder."""

    def __init__(self, model) -> None:
        self.language = self.vision = 0
        encoder = model.get_encoder(modality="image")
        self.hooks = [
            model.get_decoder().register_forward_hook(self._language),
            encoder.register_forward_hook(self._vision),
        ]

    def _language(self, *_) -> None:
        self.language += 1

    def _vision(self, *_) -> None:
        self.vision += 1

    def __enter__(self) -> CountPasses:
        return self

    def __exit__(self, *_) -> None:
        for hook in self.hooks:
            hook.remove()


@pytest.mark.parametrize(("mode", "readout", "count"), [(*HOW[0], 60), *((*how, 6) for how in HOW[1:])])
def test_the_text_is_that_of_token_by_token(bundle, mode, readout, count):
    """240 pictures over the architectures with the likeliest token; some with the other readouts."""
    decoder = AnswerDecoder(bundle.tokenizer, readout=readout, mode=mode)
    crops = pictures(bundle, count)
    with CountPasses(bundle.model) as slow:
        answers = decoder.generate_token_by_token(bundle.model, prompt_inputs(bundle, PROMPT, crops))
        expected = [each.text for each in answers]
    if mode == "full":
        assert len(set(expected)) > 1
    for size, first in ((1, 4), (5, 15), (16, count)):
        engine = DecodingEngine(decoder, bundle.model)
        shown = crops[:first]
        with CountPasses(bundle.model) as quick:
            batches = [shown[start : start + size] for start in range(0, len(shown), size)]
            texts = [text for batch in batches for text in engine.generate_text(prompt_inputs(bundle, PROMPT, batch))]
        assert_same_answers(texts, expected[:first])
        assert quick.language < slow.language * len(batches) / 3


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_distributions_are_those_of_token_by_token(bundle, temperature):
    """Of every number, along the path taken; those of a sample are not sharpened by its temperature."""
    decoder = AnswerDecoder(bundle.tokenizer, readout="median", mode="numbers")
    inputs = inputs_of(bundle, 5)
    seeds = list(range(5))
    expected = decoder.generate_token_by_token(bundle.model, inputs, temperature=temperature, seeds=seeds)
    found = DecodingEngine(decoder, bundle.model).generate(inputs, temperature=temperature, seeds=seeds)
    for one, other in zip(expected, found, strict=True):
        assert one.text == other.text
        assert one.probs.shape == (N_ACTIONS, 101)
        np.testing.assert_allclose(one.probs.sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(other.probs, one.probs, atol=1e-4)
        written = (parse_answer(one.text).coefficients * 100).round().astype(int)
        if not temperature:
            assert np.array_equal(median_value(one.probs), written)
    assert len({answer.probs.tobytes() for answer in found}) == 5


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_text_is_the_same_with_an_adapter_and_in_samples(architecture, tmp_path, temperature):
    folder = BUILD[architecture](tmp_path / "model")
    own = load_base(ModelConfig(str(folder), image_size=tiny_models.SIDE[architecture]))
    randomize_weights(own.model, own.tokenizer)
    decoder = AnswerDecoder(own.tokenizer)
    inputs = inputs_of(own, 12)
    bare = DecodingEngine(decoder, own.model).generate_text(inputs)
    model = with_adapter(own)
    seeds = list(range(12))
    answers = decoder.generate_token_by_token(model, inputs, temperature=temperature, seeds=seeds)
    expected = [each.text for each in answers]
    assert expected != bare
    assert_same_answers(
        DecodingEngine(decoder, model).generate_text(inputs, temperature=temperature, seeds=seeds), expected
    )
    merged = model.merge_and_unload()
    assert_same_answers(
        DecodingEngine(decoder, merged).generate_text(inputs, temperature=temperature, seeds=seeds), expected
    )


def test_a_prompt_runs_once_for_many_batches_and_an_image_once_for_many_answers(bundle):
    decoder = AnswerDecoder(bundle.tokenizer)
    engine = DecodingEngine(decoder, bundle.model)
    inputs, seeds = inputs_of(bundle, 3), [7, 8, 9, 10, 11, 12]
    together = engine.generate_text(inputs, temperature=1.0, seeds=seeds, repeats=2)
    assert len(set(together)) == 6
    with CountPasses(bundle.model) as again:
        assert engine.generate_text(inputs, temperature=1.0, seeds=seeds, repeats=2) == together
    assert again.vision == 1  # one batch
    fresh_engine = DecodingEngine(decoder, bundle.model)
    assert_same_answers(fresh_engine.generate_text(inputs, temperature=1.0, seeds=seeds[::2]), together[::2])
    ids = inputs_of(bundle, 1)["input_ids"][0].tolist()
    config = bundle.model.config
    picture = getattr(config, "image_token_id", getattr(config, "image_token_index", None))
    before = ids.index(picture)
    assert before > 3
    for each, fresh in ((engine, False), (DecodingEngine(decoder, bundle.model), True)):
        shown: list[int] = []
        hook = bundle.model.get_input_embeddings().register_forward_hook(
            lambda _, args, out, shown=shown: shown.append(out.shape[1])
        )
        try:
            each.generate_text(inputs_of(bundle, 2, seed=5))
        finally:
            hook.remove()
        assert (shown[0] == before) == fresh
        assert shown[int(fresh)] >= len(ids) - before


def test_prompts_of_unequal_length_are_decoded_token_by_token(bundle):
    sequential, parallel = (AnswerDecoder(bundle.tokenizer, numbers=kind) for kind in ("sequential", "parallel"))
    inputs = inputs_of(bundle, 2)
    padded = dict(inputs)
    for name, fill in (("input_ids", sequential.pad_token_id), ("attention_mask", 0), ("mm_token_type_ids", 0)):
        if name in padded:
            padded[name] = torch.nn.functional.pad(padded[name], (2, 0), value=fill)
    with CountPasses(bundle.model) as slow:
        engine = DecodingEngine(sequential, bundle.model)
        assert_same_answers(engine.generate_text(padded), engine.generate_text(inputs))
    assert slow.language > 150
    with pytest.raises(ModelError, match=r"in parallel: the prompts are not of one length.*numbers: sequential"):
        DecodingEngine(parallel, bundle.model).generate_text(padded)


def test_sliding_window_attention_is_unsupported(bundle):
    engine = DecodingEngine(AnswerDecoder(bundle.tokenizer), bundle.model)
    text = bundle.model.config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    assert engine.unsupported(inputs_of(bundle, 1)) == ""
    text.layer_types = ["sliding_attention"] * text.num_hidden_layers
    try:
        assert "sliding_attention" in engine.unsupported(inputs_of(bundle, 1))
    finally:
        text.layer_types = kinds


def forward(bundle, crops, texts: list[str], analyses: list[list[int]] | None = None) -> tuple[dict, torch.Tensor]:
    """Return the collator's parallel batch of pictures and answers, and the model's logits on it.

    ``analyses`` has the tokens of the analyses, where a model spelled them in other tokens than the tokenizer would.
    """
    collator = Collator(bundle.processor, PROMPT, numbers="parallel")
    if analyses is not None:
        remaining = iter(analyses)
        collator.answer_encoder.tokenizer = lambda text, **_: {"input_ids": next(remaining)}
    batch = collator([Example(crop, text) for crop, text in zip(crops, texts, strict=True)])
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "loss_weights", "number_ids")}
    with torch.no_grad():
        return batch, bundle.model(**to_model_inputs(bundle.model, inputs)).logits


@pytest.mark.parametrize("pose", [False, True])
@pytest.mark.parametrize(("mode", "readout"), HOW)
def test_parallel_numbers_are_decoded_as_they_were_trained(bundle, mode, readout, pose, monkeypatch):
    """Against one forward pass over the answer as the collator encodes it."""
    decoder = AnswerDecoder(bundle.tokenizer, readout=readout, mode=mode, numbers="parallel", pose=pose)
    crops = pictures(bundle, 6)
    rows = []
    monkeypatch.setattr(decoder, "start", lambda *given: rows.extend(type(decoder).start(decoder, *given)) or rows)
    with CountPasses(bundle.model) as passes:
        texts = DecodingEngine(decoder, bundle.model).generate_text(prompt_inputs(bundle, PROMPT, crops))
    analyses = [row.tokens[: decoder.n_analysis_tokens(row)] for row in rows]
    if mode == "numbers":
        prefix = 0 if pose else len(decoder.trie.common_prefix()[0])  # rotations may begin with a minus
        assert passes.language <= 2 + decoder.trie.depth - prefix
    batch, logits = forward(bundle, crops, texts, analyses)
    for row, text in enumerate(texts):
        answer = parse_answer(text)
        turned = None if answer.pose is None else np.array([answer.pose[name] for name in POSE_NAMES])
        assert format_answer(answer.coefficients, answer.analysis, turned) == text
        assert (answer.analysis is None) == (mode == "numbers") and (turned is not None) == pose
        units = answer.coefficients if turned is None else np.concatenate([answer.coefficients, pose_units(turned)])
        for number, value in enumerate((units * 100).round().astype(int).tolist()):
            columns = (batch["number_ids"][row] == number).nonzero().flatten().tolist()
            states = NumberStates.start(1, 0 if number < N_ACTIONS else decoder.trie.pose_root)
            for column, token in zip(columns, decoder.number_tokens.tokens_of(number, value), strict=True):
                number_logits = logits[row, column].double().numpy()[decoder.trie.ids[states.node]]
                assert decoder.trie.step(states, number_logits, readout=readout)[0] == token
            assert states.value[0] == value
            np.testing.assert_allclose(rows[row].probs[number], states.probs[0], atol=1e-4)


def test_a_number_attends_to_prompt_analysis_and_its_own_key_alone(bundle):
    """Its logits are those of a sequence with nothing else, and no other number changes them."""
    texts = tiny_models.answers(2)
    crops = pictures(bundle, 2)
    batch, logits = forward(bundle, crops, texts)
    values = parse_answer(texts[0]).coefficients.copy()
    values[1:] = 1 - values[1:]
    _, moved = forward(bundle, crops, [format_answer(values, parse_answer(texts[0]).analysis), texts[1]])
    ends = [(batch["number_ids"][0] == number).nonzero()[0, 0] for number in range(N_ACTIONS)]
    torch.testing.assert_close(moved[0, ends], logits[0, ends], rtol=1e-4, atol=1e-4)
    tokens = NumberTokens.from_tokenizer(bundle.tokenizer)
    analysis = texts[0][: texts[0].index('"},"arkit"')]
    analysis_ids = bundle.tokenizer(analysis, add_special_tokens=False)["input_ids"]
    asked_once = prompt_inputs(bundle, PROMPT, crops[:1])
    for number in (0, 1, 30, 51):
        plain = dict(asked_once)
        added = torch.tensor([[*analysis_ids, *tokens.keys[number]]])
        for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            if name in plain:
                tail = {"input_ids": added, "attention_mask": torch.ones_like(added)}.get(name, torch.zeros_like(added))
                plain[name] = torch.cat([plain[name], tail], dim=1)
        with torch.no_grad():
            expected = bundle.model(**plain).logits[0, -1]
        torch.testing.assert_close(logits[0, ends[number]], expected, rtol=1e-3, atol=1e-3)


def test_encodings_about_one_picture_do_not_attend_to_each_other(bundle):
    first, second = tiny_models.answers(2)
    bare = format_answer(parse_answer(second).coefficients, None)
    tokens = AnswerEncoder(bundle.tokenizer, 0, numbers="parallel")
    crop = pictures(bundle, 1)
    parts = [tokens(first, "analysis"), tokens(bare, "numbers"), tokens(second, "numbers")]
    whole = concat_branches(parts)
    assert len(whole.labels) == len(whole.ids) + 1 == 1 + sum(len(part.ids) for part in parts)

    def logits(encoding) -> torch.Tensor:
        collator = Collator(bundle.processor, PROMPT, numbers="parallel")
        collator.answer_encoder = lambda answer, loss_on: encoding
        batch = collator([Example(crop[0], first)])
        inputs = {name: value for name, value in batch.items() if name not in ("labels", "loss_weights", "number_ids")}
        with torch.no_grad():
            found = bundle.model(**to_model_inputs(bundle.model, inputs)).logits[0]
        return found[batch["loss_weights"][0] > 0]

    apart = torch.cat([logits(part) for part in parts])
    torch.testing.assert_close(logits(whole), apart, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("mode", "order"), [("full", "analysis"), ("full", "numbers"), ("numbers", "numbers")])
def test_a_parallel_answer_does_not_depend_on_its_batch(bundle, mode, order):
    decoder = AnswerDecoder(bundle.tokenizer, numbers="parallel", mode=mode, order=order, readout="mean")
    together = DecodingEngine(decoder, bundle.model).generate_text(inputs_of(bundle, 7))
    engine = DecodingEngine(decoder, bundle.model)
    apart = [engine.generate_text(prompt_inputs(bundle, PROMPT, [crop]))[0]
             for crop in pictures(bundle, 7)]  # fmt: skip
    assert_same_answers(apart, together)
    seeds = list(range(21))
    sampled = engine.generate_text(inputs_of(bundle, 7), temperature=1.0, seeds=seeds, repeats=3)
    assert len(set(sampled)) == 21
    assert_same_answers(engine.generate_text(inputs_of(bundle, 7), temperature=1.0, seeds=seeds[::3]), sampled[::3])


@pytest.mark.parametrize("numbers", ["sequential", "parallel"])
@pytest.mark.parametrize("adversary", ["nan", "infinite", "minus infinite"])
def test_adversarial_weights_give_valid_answers(bundle, adversary, numbers):
    fill = {"nan": torch.nan, "infinite": torch.inf, "minus infinite": -torch.inf}[adversary]
    # Without analysis: a model that never ends a text would give the longest one, as in test_decoder.py.
    decoder = AnswerDecoder(bundle.tokenizer, numbers=numbers, mode="numbers")
    hook = bundle.model.get_output_embeddings().register_forward_hook(lambda _, args, out: torch.full_like(out, fill))
    try:
        texts = DecodingEngine(decoder, bundle.model).generate_text(inputs_of(bundle, 2))
    finally:
        hook.remove()
    for text in texts:
        answer = parse_answer(text)
        assert format_answer(answer.coefficients, answer.analysis) == text


@pytest.mark.parametrize("adversary", [None, "nan", "infinite"])
def test_an_analysis_after_its_numbers_holds_for_them(bundle, adversary):
    """Whatever the model prefers to say; and the numbers are those of mode ``numbers``."""
    fill = {"nan": torch.nan, "infinite": torch.inf}.get(adversary)
    hook = bundle.model.get_output_embeddings().register_forward_hook(
        lambda _, args, out: out if fill is None else torch.full_like(out, fill)
    )
    alone, both = (
        DecodingEngine(AnswerDecoder(bundle.tokenizer, numbers="parallel", mode=mode, order="numbers"), bundle.model)
        for mode in ("numbers", "full")
    )
    try:
        for how in ({}, {"temperature": 1.0, "seeds": range(4), "repeats": 2}):
            inputs = inputs_of(bundle, 2)
            for bare, full in zip(alone.generate(inputs, **how), both.generate(inputs, **how), strict=True):
                answer = parse_answer(full.text)
                assert np.array_equal(answer.coefficients, parse_answer(bare.text).coefficients)
                np.testing.assert_array_equal(full.probs, bare.probs)
                assert agreement(answer.analysis, answer.coefficients).contradicts == ()
                assert format_answer(answer.coefficients, answer.analysis) == full.text
    finally:
        hook.remove()


def test_changed_numbers_are_explained(bundle):
    decoder = AnswerDecoder(bundle.tokenizer, numbers="parallel", order="numbers")

    def open_the_jaw(rows):
        for row in rows:
            row.values[:], row.probs[:] = 0, np.eye(1, 101)
            row.values[INDEX["jawOpen"]], row.probs[INDEX["jawOpen"]] = 90, np.eye(1, 101, 90)

    engine = DecodingEngine(decoder, bundle.model)
    (found,) = engine.generate(inputs_of(bundle, 1), change_numbers=open_the_jaw)
    answer = parse_answer(found.text)
    assert answer.coefficients[INDEX["jawOpen"]] == np.float32(0.9)
    assert answer.analysis.muscle_movements["jaw"] == "fully open"
    (bare,) = engine.generate(inputs_of(bundle, 1), explain=False)
    assert parse_answer(bare.text).analysis is None


def test_numbers_that_follow_each_other_cannot_come_before_the_analysis(bundle):
    with pytest.raises(ModelError, match="parallel"):
        AnswerDecoder(bundle.tokenizer, numbers="sequential", order="numbers")


def test_the_tiny_tokenizers_spell_numbers_differently(bundle, architecture):
    value_tokens = NumberTokens.from_tokenizer(bundle.tokenizer).value_tokens
    lengths = {len(tokens) for tokens in value_tokens}
    assert lengths == {"fast_vlm": {1}, "smolvlm": {4}, "qwen3_vl": {4}, "llava": {3, 4}}[architecture]
    assert [bundle.tokenizer.decode(list(tokens)) for tokens in value_tokens] == list(NUMBER_TEXTS)
    trie = NumberTrie(value_tokens)
    rng = np.random.default_rng(0)
    for value, tokens in enumerate(value_tokens):
        states = NumberStates.start(1)
        for token in tokens:
            logits = np.where(trie.ids[states.node[0]] == token, 9.0, rng.random(trie.ids.shape[1]))
            assert trie.step(states, logits[None], readout="greedy")[0] == token
        assert states.value[0] == value


def test_a_tokenizer_that_changes_text_is_rejected():
    class Changing:
        def __call__(self, text, **_):
            return {"input_ids": list(text.lower().encode())}

        def decode(self, ids, **_):
            return bytes(ids).decode()

    with pytest.raises(ModelError, match="cannot spell answers"):
        NumberTokens.from_tokenizer(Changing())
