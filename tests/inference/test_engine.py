"""Reading in few passes: the same text as token by token, and numbers side by side as they were trained."""

from __future__ import annotations

import numpy as np
import peft
import pytest
import torch
from PIL import Image

from semanticface.arkit import N_ACTIONS
from semanticface.errors import ModelError
from semanticface.inference.decoder import AnswerDecoder
from semanticface.inference.engine import DecodingEngine
from semanticface.inference.number_readout import NumberStates, NumberTrie, median_of
from semanticface.models.answer_tokens import AnswerEncoder, NumberTokens, concat_branches, to_model_inputs
from semanticface.models.inputs import prompt_inputs
from semanticface.models.loading import ModelConfig, load_base
from semanticface.prompts import load_prompt
from semanticface.semantics.answer import NUMBER_TEXTS, format_answer, parse_answer
from semanticface.training.collator import Collator, Example
from tests.helpers import tiny_models
from tests.helpers.lively import make_lively

PROMPT = load_prompt("distill")
BUILD = tiny_models.BUILD | {"llava": tiny_models.llava}
HOW = [("full", "greedy"), ("full", "mean"), ("numbers", "greedy"), ("numbers", "mean"), ("numbers", "median")]


@pytest.fixture(scope="module", params=BUILD)
def architecture(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def bundle(architecture, tmp_path_factory):
    """A tiny model with weights large enough that every picture gets another answer."""
    folder = BUILD[architecture](tmp_path_factory.mktemp("models") / architecture)
    loaded = load_base(ModelConfig(str(folder), image_size=tiny_models.SIDE[architecture]))
    make_lively(loaded.model, loaded.tokenizer)
    return loaded


def pictures(bundle, count: int, seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    shape = (bundle.image_size, bundle.image_size, 3)
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]


def asked(bundle, count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    return prompt_inputs(bundle, PROMPT, pictures(bundle, count, seed))


def with_adapter(bundle):
    """The model with a LoRA adapter that changes what it says, kept apart as it is in training."""
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules=r".*(language_model|text_model).*\.(q_proj|v_proj|down_proj)")
    model = peft.get_peft_model(bundle.model, config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return model.eval()


class Passes:
    """Counts forward passes of a model's language layers, and pictures that go through its tower."""

    def __init__(self, model) -> None:
        self.language = self.pictures = 0
        tower = model.get_encoder(modality="image")
        self.hooks = [
            model.get_decoder().register_forward_hook(self._language),
            tower.register_forward_hook(self._tower),
        ]

    def _language(self, *_) -> None:
        self.language += 1

    def _tower(self, *_) -> None:
        self.pictures += 1

    def __enter__(self) -> Passes:
        return self

    def __exit__(self, *_) -> None:
        for hook in self.hooks:
            hook.remove()


# --- in a row: the same text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "readout", "count"), [(*HOW[0], 60), *((*how, 6) for how in HOW[1:])])
def test_the_text_is_that_of_token_by_token(bundle, mode, readout, count):
    """240 pictures in all, over the architectures, with the likeliest token; some with the other readings."""
    decoder = AnswerDecoder(bundle.tokenizer, readout=readout, mode=mode)
    crops = pictures(bundle, count)
    with Passes(bundle.model) as slow:
        expected = [
            each.text for each in decoder.write_token_by_token(bundle.model, prompt_inputs(bundle, PROMPT, crops))
        ]
    if mode == "full":
        assert len(set(expected)) > 1
    for size, first in ((1, 4), (5, 15), (16, count)):
        reader = DecodingEngine(decoder, bundle.model)
        shown = crops[:first]
        with Passes(bundle.model) as quick:
            batches = [shown[start : start + size] for start in range(0, len(shown), size)]
            texts = [text for batch in batches for text in reader.read(prompt_inputs(bundle, PROMPT, batch))]
        assert texts == expected[:first]
        assert quick.language < slow.language * len(batches) / 3


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_distributions_are_those_of_token_by_token(bundle, temperature):
    """Of every number, along the path that is written; a sample's are not sharpened by its temperature."""
    decoder = AnswerDecoder(bundle.tokenizer, readout="median", mode="numbers")
    inputs = asked(bundle, 5)
    seeds = list(range(5))
    expected = decoder.write_token_by_token(bundle.model, inputs, temperature=temperature, seeds=seeds)
    found = DecodingEngine(decoder, bundle.model).write(inputs, temperature=temperature, seeds=seeds)
    for one, other in zip(expected, found, strict=True):
        assert one.text == other.text
        assert one.shares.shape == (N_ACTIONS, 101)
        np.testing.assert_allclose(one.shares.sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(other.shares, one.shares, atol=1e-4)
        written = (parse_answer(one.text).coefficients * 100).round().astype(int)
        if not temperature:
            assert np.array_equal(median_of(one.shares), written)
    assert len({answer.shares.tobytes() for answer in found}) == 5


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_text_is_the_same_with_an_adapter_and_in_samples(architecture, tmp_path, temperature):
    folder = BUILD[architecture](tmp_path / "model")
    own = load_base(ModelConfig(str(folder), image_size=tiny_models.SIDE[architecture]))
    make_lively(own.model, own.tokenizer)
    decoder = AnswerDecoder(own.tokenizer)
    inputs = asked(own, 12)
    bare = DecodingEngine(decoder, own.model).read(inputs)
    model = with_adapter(own)
    seeds = list(range(12))
    expected = [each.text for each in decoder.write_token_by_token(model, inputs, temperature=temperature, seeds=seeds)]
    assert expected != bare
    assert DecodingEngine(decoder, model).read(inputs, temperature=temperature, seeds=seeds) == expected
    merged = model.merge_and_unload()
    assert DecodingEngine(decoder, merged).read(inputs, temperature=temperature, seeds=seeds) == expected


def test_a_prompt_is_read_once_for_many_batches_and_a_picture_once_for_many_answers(bundle):
    decoder = AnswerDecoder(bundle.tokenizer)
    reader = DecodingEngine(decoder, bundle.model)
    together = reader.read(asked(bundle, 3), temperature=1.0, seeds=[7, 8, 9, 10, 11, 12], repeats=2)
    assert len(set(together)) == 6
    with Passes(bundle.model) as again:
        assert reader.read(asked(bundle, 3), temperature=1.0, seeds=[7, 8, 9, 10, 11, 12], repeats=2) == together
    assert again.pictures == 1  # one batch
    assert (
        DecodingEngine(decoder, bundle.model).read(asked(bundle, 3), temperature=1.0, seeds=[7, 9, 11]) == together[::2]
    )
    ids = asked(bundle, 1)["input_ids"][0].tolist()
    config = bundle.model.config
    picture = getattr(config, "image_token_id", getattr(config, "image_token_index", None))
    before = ids.index(picture)
    assert before > 3
    for each, fresh in ((reader, False), (DecodingEngine(decoder, bundle.model), True)):
        shown: list[int] = []
        hook = bundle.model.get_input_embeddings().register_forward_hook(
            lambda _, args, out, shown=shown: shown.append(out.shape[1])
        )
        try:
            each.read(asked(bundle, 2, seed=5))
        finally:
            hook.remove()
        assert (shown[0] == before) == fresh
        assert shown[int(fresh)] >= len(ids) - before


def test_prompts_of_unequal_length_are_read_token_by_token(bundle):
    sequential, parallel = (AnswerDecoder(bundle.tokenizer, numbers=kind) for kind in ("sequential", "parallel"))
    inputs = asked(bundle, 2)
    padded = dict(inputs)
    for name, fill in (("input_ids", sequential.pad), ("attention_mask", 0), ("mm_token_type_ids", 0)):
        if name in padded:
            padded[name] = torch.nn.functional.pad(padded[name], (2, 0), value=fill)
    with Passes(bundle.model) as slow:
        assert DecodingEngine(sequential, bundle.model).read(padded) == DecodingEngine(sequential, bundle.model).read(
            inputs
        )
    assert slow.language > 150
    with pytest.raises(ModelError, match=r"side by side: the prompts are not of one length.*numbers: sequential"):
        DecodingEngine(parallel, bundle.model).read(padded)


def test_layers_that_see_a_window_are_not_read_in_leaps(bundle):
    reader = DecodingEngine(AnswerDecoder(bundle.tokenizer), bundle.model)
    text = bundle.model.config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    assert reader.obstacle(asked(bundle, 1)) == ""
    text.layer_types = ["sliding_attention"] * text.num_hidden_layers
    try:
        assert "sliding_attention" in reader.obstacle(asked(bundle, 1))
    finally:
        text.layer_types = kinds


# --- side by side ---------------------------------------------------------------------------------------------------


def told(bundle, crops, texts: list[str], said: list[list[int]] | None = None) -> tuple[dict, torch.Tensor]:
    """Return the collator's parallel batch of pictures and answers, and the model's logits on it.

    ``said`` has the tokens of the words, where a model wrote them in other pieces than the tokenizer would.
    """
    collator = Collator(bundle.processor, PROMPT, numbers="parallel")
    if said is not None:
        written = iter(said)
        collator.answer_encoder.tokenizer = lambda words, **_: {"input_ids": next(written)}
    batch = collator([Example(crop, text) for crop, text in zip(crops, texts, strict=True)])
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "weights", "numbers")}
    with torch.no_grad():
        return batch, bundle.model(**to_model_inputs(bundle.model, inputs)).logits


@pytest.mark.parametrize(("mode", "readout"), HOW)
def test_numbers_are_read_as_they_were_trained(bundle, mode, readout, monkeypatch):
    """The reader's passes against one forward pass over the answer as the collator lays it out."""
    decoder = AnswerDecoder(bundle.tokenizer, readout=readout, mode=mode, numbers="parallel")
    crops = pictures(bundle, 6)
    rows = []
    monkeypatch.setattr(decoder, "start", lambda *given: rows.extend(type(decoder).start(decoder, *given)) or rows)
    with Passes(bundle.model) as passes:
        texts = DecodingEngine(decoder, bundle.model).read(prompt_inputs(bundle, PROMPT, crops))
    said = [row.tokens[: decoder.n_said(row)] for row in rows]
    if mode == "numbers":
        most = 1 + max(map(len, decoder.number_tokens.spelled)) - len(decoder.tree.trunk()[0])
        assert passes.language <= 1 + most
    batch, logits = told(bundle, crops, texts, said)
    for row, text in enumerate(texts):
        answer = parse_answer(text)
        assert format_answer(answer.coefficients, answer.analysis) == text
        assert (answer.analysis is None) == (mode == "numbers")
        for number, value in enumerate((answer.coefficients * 100).round().astype(int).tolist()):
            columns = (batch["numbers"][row] == number).nonzero().flatten().tolist()
            places = NumberStates.start(1)
            for column, token in zip(columns, decoder.tree.spelled[value], strict=True):
                seen = logits[row, column].double().numpy()[decoder.tree.ids[places.node]]
                assert decoder.tree.choose(places, seen, readout=readout)[0] == token
            assert places.value[0] == value
            np.testing.assert_allclose(rows[row].shares[number], places.shares[0], atol=1e-4)


def test_a_number_sees_prompt_words_and_its_own_key_alone(bundle):
    """Its logits are those of a plain sequence that holds nothing else, and no other number changes them."""
    texts = tiny_models.answers(2)
    crops = pictures(bundle, 2)
    batch, logits = told(bundle, crops, texts)
    values = parse_answer(texts[0]).coefficients.copy()
    values[1:] = 1 - values[1:]
    _, moved = told(bundle, crops, [format_answer(values, parse_answer(texts[0]).analysis), texts[1]])
    ends = [(batch["numbers"][0] == number).nonzero()[0, 0] for number in range(N_ACTIONS)]
    torch.testing.assert_close(moved[0, ends], logits[0, ends], rtol=1e-4, atol=1e-4)
    tokens = NumberTokens.of(bundle.tokenizer)
    words = texts[0][: texts[0].index('"},"arkit"')]
    said = bundle.tokenizer(words, add_special_tokens=False)["input_ids"]
    asked_once = prompt_inputs(bundle, PROMPT, crops[:1])
    for number in (0, 1, 30, 51):
        plain = dict(asked_once)
        added = torch.tensor([[*said, *tokens.keys[number]]])
        for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            if name in plain:
                tail = {"input_ids": added, "attention_mask": torch.ones_like(added)}.get(name, torch.zeros_like(added))
                plain[name] = torch.cat([plain[name], tail], dim=1)
        with torch.no_grad():
            expected = bundle.model(**plain).logits[0, -1]
        torch.testing.assert_close(logits[0, ends[number]], expected, rtol=1e-3, atol=1e-3)


def test_lessons_about_one_picture_do_not_see_each_other(bundle):
    first, second = tiny_models.answers(2)
    bare = format_answer(parse_answer(second).coefficients, None)
    tokens = AnswerEncoder(bundle.tokenizer, 0, numbers="parallel")
    crop = pictures(bundle, 1)
    parts = [tokens(first, "words"), tokens(bare, "numbers"), tokens(second, "numbers")]
    whole = concat_branches(parts)
    assert len(whole.labels) == len(whole.ids) + 1 == 1 + sum(len(part.ids) for part in parts)

    def logits(lesson) -> torch.Tensor:
        collator = Collator(bundle.processor, PROMPT, numbers="parallel")
        collator.answer_encoder = lambda answer, learn: lesson
        batch = collator([Example(crop[0], first)])
        inputs = {name: value for name, value in batch.items() if name not in ("labels", "weights", "numbers")}
        with torch.no_grad():
            found = bundle.model(**to_model_inputs(bundle.model, inputs)).logits[0]
        return found[batch["weights"][0] > 0]

    apart = torch.cat([logits(part) for part in parts])
    torch.testing.assert_close(logits(whole), apart, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mode", ["full", "numbers"])
def test_an_answer_side_by_side_does_not_depend_on_its_batch(bundle, mode):
    decoder = AnswerDecoder(bundle.tokenizer, numbers="parallel", mode=mode, readout="mean")
    together = DecodingEngine(decoder, bundle.model).read(asked(bundle, 7))
    reader = DecodingEngine(decoder, bundle.model)
    apart = [reader.read(prompt_inputs(bundle, PROMPT, [crop]))[0]
             for crop in pictures(bundle, 7)]  # fmt: skip
    assert apart == together
    seeds = list(range(21))
    sampled = reader.read(asked(bundle, 7), temperature=1.0, seeds=seeds, repeats=3)
    assert len(set(sampled)) == 21
    assert reader.read(asked(bundle, 7), temperature=1.0, seeds=seeds[::3]) == sampled[::3]


@pytest.mark.parametrize("numbers", ["sequential", "parallel"])
@pytest.mark.parametrize("adversary", ["nan", "infinite", "minus infinite"])
def test_adversarial_weights_write_valid_answers(bundle, adversary, numbers):
    fill = {"nan": torch.nan, "infinite": torch.inf, "minus infinite": -torch.inf}[adversary]
    # Without words: a model that never ends a text would write the longest there is, as tests/test_decode.py has it do.
    decoder = AnswerDecoder(bundle.tokenizer, numbers=numbers, mode="numbers")
    hook = bundle.model.get_output_embeddings().register_forward_hook(lambda _, args, out: torch.full_like(out, fill))
    try:
        texts = DecodingEngine(decoder, bundle.model).read(asked(bundle, 2))
    finally:
        hook.remove()
    for text in texts:
        answer = parse_answer(text)
        assert format_answer(answer.coefficients, answer.analysis) == text


# --- tokenizers -----------------------------------------------------------------------------------------------------


def test_the_tiny_tokenizers_spell_numbers_in_different_ways(bundle, architecture):
    spelled = NumberTokens.of(bundle.tokenizer).spelled
    lengths = {len(tokens) for tokens in spelled}
    assert lengths == {"fast_vlm": {1}, "smolvlm": {4}, "qwen3_vl": {4}, "llava": {3, 4}}[architecture]
    assert [bundle.tokenizer.decode(list(tokens)) for tokens in spelled] == list(NUMBER_TEXTS)
    tree = NumberTrie(spelled)
    rng = np.random.default_rng(0)
    for value, tokens in enumerate(spelled):
        places = NumberStates.start(1)
        for token in tokens:
            logits = np.where(tree.ids[places.node[0]] == token, 9.0, rng.random(tree.ids.shape[1]))
            assert tree.choose(places, logits[None], readout="greedy")[0] == token
        assert places.value[0] == value


def test_a_tokenizer_that_changes_text_is_refused():
    class Changing:
        def __call__(self, text, **_):
            return {"input_ids": list(text.lower().encode())}

        def decode(self, ids, **_):
            return bytes(ids).decode()

    with pytest.raises(ModelError, match="cannot spell answers"):
        NumberTokens.of(Changing())
