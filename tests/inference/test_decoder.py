"""Every answer is valid, whatever the weights, the tokenizer, the temperature and the batch."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from semanticface.arkit import N_ACTIONS, NAMES
from semanticface.errors import ModelError
from semanticface.inference.decoder import AnswerDecoder
from semanticface.inference.engine import DecodingEngine
from semanticface.inference.number_readout import NumberStates, NumberTrie
from semanticface.semantics.analysis import describe
from semanticface.semantics.answer import FIRST_KEY, NUMBER_TEXTS, format_answer, parse_answer
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.semantics.grammar import max_answer_bytes
from tests.helpers import tiny_models
from tests.helpers.random_weights import count_quotes, randomize_weights
from tests.helpers.same_answers import assert_same_answers


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The three architectures with random weights, large enough that all answers differ."""
    built = {}
    for name, build in tiny_models.BUILD.items():
        folder = build(tmp_path_factory.mktemp(name))
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        randomize_weights(model, tokenizer)
        built[name] = SimpleNamespace(model=model, tokenizer=tokenizer, decoder=AnswerDecoder(tokenizer))
    return built


def border_crossing_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer whose tokens cross every border of the grammar, such as ``5,"eye``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\s\S]{1,12}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<pad>", "<end>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(tiny_models.answers(30), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")


def prompts(tokenizer: PreTrainedTokenizerFast, rows: int) -> dict[str, torch.Tensor]:
    """Return ``rows`` different prompts without a picture as model inputs."""
    ids = [tokenizer.encode(f"{row}:", add_special_tokens=False) for row in range(rows)]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.ones(rows, len(ids[0]), dtype=torch.int64)}


def generate(tiny_model, decoder: AnswerDecoder, inputs: dict[str, torch.Tensor], **options):
    """Return the texts decoded token by token and the new token ids from ``model.generate``."""
    model, made = tiny_model.model, []

    def generate(**settings):
        made.append(model.generate(**settings))
        return made[0]

    texts = [
        each.text for each in decoder.generate_token_by_token(SimpleNamespace(generate=generate), inputs, **options)
    ]
    return texts, made[0][:, inputs["input_ids"].shape[1] :]


def assert_canonical(text: str, *, emotion: bool = True) -> None:
    answer = parse_answer(text)
    assert answer.analysis is not None
    assert (answer.analysis.emotional_implication is not None) == emotion
    assert format_answer(answer.coefficients, answer.analysis) == text


def assert_ends_after_brace(decoder: AnswerDecoder, text: str, ids: list[int], tokenizer) -> None:
    end = ids.index(tokenizer.eos_token_id)
    assert tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False) == text
    assert set(ids[end + 1 :]) <= {tokenizer.pad_token_id}
    assert end + 1 <= decoder.max_new_tokens


def vectors() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    crowded = list(rng.random((25, N_ACTIONS)))
    sparse = list(rng.random((25, N_ACTIONS)) * (rng.random((25, N_ACTIONS)) < 0.3))
    return [*crowded, *sparse, *(sample_coefficients(rng) for _ in range(25)), np.zeros(N_ACTIONS), np.ones(N_ACTIONS)]


@pytest.mark.parametrize("emotion", [True, False])
@pytest.mark.parametrize("name", tiny_models.BUILD)
def test_stage_one_answers_are_in_the_grammar_and_forced_tokens_are_those_of_training(tiny, name, emotion):
    tokenizer = tiny[name].tokenizer
    decoder = AnswerDecoder(tokenizer, emotion=emotion)
    forced = 0
    for vector in vectors():
        text = format_answer(vector, describe(vector, emotion=emotion))
        row = decoder.start(1)[0]
        ids = tokenizer.encode(text, add_special_tokens=False)
        rest = iter(ids)
        while not decoder.analysis_done(row):
            token = next(rest)
            if row.forced:
                forced += 1
                assert row.forced[0] == token
            decoder.append(row, token)
        assert row.text.decode() == text[: text.index(FIRST_KEY)] + FIRST_KEY
        spellings = decoder.number_tokens
        numbers = [spellings.value_tokens[round(100 * float(value))] for value in parse_answer(text).coefficients]
        expected = [*numbers[0]]
        for key, number in zip(decoder.keys[1:], numbers[1:], strict=True):
            expected += [*key, *number]
        assert list(rest) == [*expected, *spellings.closing]
        assert len(text) <= max_answer_bytes(emotion=emotion)
    assert forced > 8 * len(vectors())


@pytest.mark.parametrize(
    ("good_part", "bad_part"),
    [
        ('{"analysis"', '{ "analysis"'),
        ('"brows"', '"Brows"'),
        ("relaxed", "relaxéd"),
        ('"relaxed"', '""'),
        ('"relaxed"', '" relaxed"'),
        ("relaxed", "relaxed\\"),
        ("relaxed", "relaxed\n"),
    ],
)
def test_noncanonical_analyses_are_outside_the_grammar(tiny, good_part, bad_part):
    bad = format_answer(np.zeros(N_ACTIONS), describe(np.zeros(N_ACTIONS)))
    assert good_part in bad
    bad = bad.replace(good_part, bad_part, 1)
    tokenizer, decoder = tiny["qwen3_vl"].tokenizer, tiny["qwen3_vl"].decoder
    row = decoder.start(1)[0]
    for token in tokenizer.encode(bad, add_special_tokens=False):
        assert not decoder.analysis_done(row), "the grammar accepted it"
        if row.forced and row.forced[0] != token:
            return
        if not row.forced and not decoder.allowed_tokens(row)[token]:
            return
        decoder.append(row, token)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["plain", "nan", "inf", "tied"]))
def test_the_chosen_token_is_the_best_allowed_one(tiny, seed, kind):
    rng, decoder = np.random.default_rng(seed), tiny["qwen3_vl"].decoder
    row = decoder.start(1)[0]
    while not decoder.analysis_done(row):
        if row.forced:
            decoder.append(row, row.forced[0])
            continue
        logits = rng.normal(size=decoder.allowed_tokens(row).size + 3).astype(np.float32)
        if kind == "tied":
            logits = logits.round()
        elif kind != "plain":
            logits[rng.integers(len(logits), size=9)] = {"nan": np.nan, "inf": np.inf}[kind]
        if rng.random() < 0.5:
            logits[np.flatnonzero(decoder.allowed_tokens(row))[0]] = 10
        allowed = np.flatnonzero(decoder.allowed_tokens(row))
        scores = np.where(np.isnan(logits[allowed]), -np.inf, logits[allowed])
        token = decoder.choose_token(row, logits, 0.0)
        assert token == allowed[scores.argmax()]
        decoder.append(row, token)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("name", tiny_models.BUILD)
def test_random_weights_give_valid_answers(tiny, name, temperature):
    it = tiny[name]
    texts, ids = generate(it, it.decoder, prompts(it.tokenizer, 3), temperature=temperature, seeds=[1, 2, 3])
    for text, row in zip(texts, ids.tolist(), strict=True):
        assert_canonical(text)
        assert_ends_after_brace(it.decoder, text, row, it.tokenizer)
    assert len(set(texts)) == 3


@pytest.mark.parametrize("readout", ["greedy", "mean"])
@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_tokens_across_every_border_give_valid_answers(temperature, readout):
    tokenizer = border_crossing_tokenizer()
    assert any("0." in token and '"' in token for token in tokenizer.get_vocab())
    decoder = AnswerDecoder(tokenizer, readout=readout)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.4,
    )
    model = SimpleNamespace(model=LlamaForCausalLM(config).eval())
    inputs = {"input_ids": torch.tensor([[5, 6], [7, 8]]), "attention_mask": torch.ones(2, 2, dtype=torch.int64)}
    texts, ids = generate(model, decoder, inputs, temperature=temperature, seeds=[1, 2])
    for text, row in zip(texts, ids.tolist(), strict=True):
        assert_canonical(text)
        assert_ends_after_brace(decoder, text, row, tokenizer)


ADVERSARIES = {
    "nan": lambda logits, tokenizer: logits.fill_(torch.nan),
    "infinite": lambda logits, tokenizer: logits.fill_(torch.inf),
    "minus infinite": lambda logits, tokenizer: logits.fill_(-torch.inf),
    "wants to end": lambda logits, tokenizer: logits.index_fill_(-1, torch.tensor(tokenizer.eos_token_id), 1e9),
    "never closes a text": lambda logits, tokenizer: logits - 1e6 * count_quotes(tokenizer),
    "closes at once": lambda logits, tokenizer: logits + 1e6 * count_quotes(tokenizer),
}


@pytest.mark.parametrize(
    ("adversary", "temperature"),
    [
        ("nan", 0.0), ("nan", 2.0), ("infinite", 2.0), ("minus infinite", 2.0), ("wants to end", 0.0),
        ("wants to end", 2.0), ("never closes a text", 2.0), ("closes at once", 0.0),
    ],
)  # fmt: skip
def test_adversarial_weights_give_valid_answers(tiny, adversary, temperature):
    it = tiny["smolvlm"]
    hook = it.model.lm_head.register_forward_hook(
        lambda module, inputs, output: ADVERSARIES[adversary](output.clone(), it.tokenizer)
    )
    try:
        texts, ids = generate(it, it.decoder, prompts(it.tokenizer, 1), temperature=temperature, seeds=[0])
    finally:
        hook.remove()
    assert_canonical(texts[0])
    assert_ends_after_brace(it.decoder, texts[0], ids[0].tolist(), it.tokenizer)
    if adversary == "never closes a text":
        assert len(texts[0]) == max_answer_bytes()


def test_a_models_own_generation_settings_do_not_reach_the_answer(tiny):
    it = tiny["fast_vlm"]
    inputs = prompts(it.tokenizer, 1)
    plain, _ = generate(it, it.decoder, inputs)
    settings = it.model.generation_config
    before = settings.to_dict()
    settings.update(
        repetition_penalty=1.7, no_repeat_ngram_size=2, do_sample=True, top_k=2, num_beams=3, use_cache=False
    )
    try:
        other, _ = generate(it, it.decoder, inputs)
    finally:
        settings.update(**{key: before.get(key) for key in ("repetition_penalty", "no_repeat_ngram_size", "do_sample")})
        settings.update(top_k=before.get("top_k"), num_beams=before.get("num_beams"), use_cache=before.get("use_cache"))
    assert other == plain


@pytest.mark.parametrize("name", ["fast_vlm", "qwen3_vl"])
def test_a_row_read_as_the_mean_does_not_depend_on_its_batch(tiny, name):
    it = tiny[name]
    decoder = AnswerDecoder(it.tokenizer, readout="mean")
    inputs = prompts(it.tokenizer, 8)

    together, _ = generate(it, decoder, inputs)
    assert len(set(together)) > 4
    for rows in (slice(0, 3), slice(5, 8), slice(7, 8)):
        apart, _ = generate(it, decoder, {key: value[rows] for key, value in inputs.items()})
        assert_same_answers(apart, together[rows])


def test_a_seed_repeats_a_sample_and_another_seed_gives_another(tiny):
    it = tiny["fast_vlm"]
    same = {key: value[:1].repeat(3, 1) for key, value in prompts(it.tokenizer, 1).items()}
    first, _ = generate(it, it.decoder, same, temperature=1.0, seeds=[4, 5, 4])
    again, _ = generate(it, it.decoder, same, temperature=1.0, seeds=[4, 5, 4])
    assert first == again
    assert first[0] == first[2] != first[1]


def test_sampling_follows_the_models_distribution(tiny):
    """A number is sampled from the softmax over its 101 tokens, sharpened by the temperature."""
    trie = tiny["fast_vlm"].decoder.trie
    tokens = tiny["fast_vlm"].tokenizer.convert_tokens_to_ids(["0.10", "0.20", "0.30"])
    logits = np.full(trie.ids.shape[1], -np.inf)
    for token, share in zip(tokens, [0.2, 0.3, 0.5], strict=True):
        logits[trie.ids[0] == token] = np.log(share)
    uniforms = np.random.default_rng(0).random(4000)
    states = NumberStates.start(4000)
    sampled = trie.step(states, np.tile(logits, (4000, 1)), readout="greedy", temperature=0.5, uniforms=uniforms)
    squared = np.array([0.04, 0.09, 0.25]) / 0.38  # temperature 0.5 squares the odds
    assert np.allclose([(sampled == token).mean() for token in tokens], squared, atol=0.03)
    assert np.isin(states.value, [10, 20, 30]).all()


@pytest.mark.parametrize("name", tiny_models.BUILD)
def test_without_emotion_answers_have_none(tiny, name):
    it = tiny[name]
    decoder = AnswerDecoder(it.tokenizer, emotion=False)
    for text in generate(it, decoder, prompts(it.tokenizer, 2), temperature=1.0, seeds=[0, 1])[0]:
        assert_canonical(text, emotion=False)


def test_mean_readout_with_one_token_a_number_is_the_expectation(tiny):
    """Against a plain forward pass over the finished text, without cache, grammar or decoder."""
    it = tiny["fast_vlm"]
    decoder = AnswerDecoder(it.tokenizer, readout="mean")
    inputs = prompts(it.tokenizer, 3)
    texts, ids = generate(it, decoder, inputs)
    number_ids = it.tokenizer.convert_tokens_to_ids(list(NUMBER_TEXTS))
    values = torch.arange(101, dtype=torch.float64) / 100
    peaks = []
    for prompt, text, row in zip(inputs["input_ids"], texts, ids, strict=True):
        row = row[: row.tolist().index(it.tokenizer.eos_token_id)]
        with torch.inference_mode():
            logits = it.model(input_ids=torch.cat([prompt, row])[None]).logits[0, len(prompt) - 1 : -1].double()
        states = [position for position, token in enumerate(row.tolist()) if token in number_ids][-N_ACTIONS:]
        probs = logits[states][:, number_ids].softmax(dim=1)
        expected = (probs @ values).numpy()
        written = parse_answer(text).coefficients
        assert np.abs(written - expected).max() < 0.005 + 1e-4
        peaks.append(np.abs(written - probs.argmax(dim=1).numpy() / 100).max())
    assert max(peaks) > 0.02  # the likeliest token would have given another value


def test_mean_readout_of_digits_is_close_to_the_expectation_over_all_continuations(tiny):
    """Against the model's full distribution over the 101 texts at the same position, one forward pass for each."""
    it = tiny["qwen3_vl"]
    decoder = AnswerDecoder(it.tokenizer, readout="mean")
    inputs = prompts(it.tokenizer, 1)
    texts, ids = generate(it, decoder, inputs)
    text, written_ids = texts[0], ids[0].tolist()
    pieces = [it.tokenizer.decode(token) for token in written_ids]
    ends = np.cumsum([len(piece) for piece in pieces]).tolist()
    spellings = [it.tokenizer.encode(number, add_special_tokens=False) for number in NUMBER_TEXTS]
    assert {len(tokens) for tokens in spellings} == {4}
    for name in (NAMES[0], NAMES[20], NAMES[51]):
        before = text[: text.rindex(f'"{name}":') + len(name) + 3]
        context = inputs["input_ids"][0].tolist() + written_ids[: ends.index(len(before)) + 1]
        with torch.inference_mode():
            logits = it.model(input_ids=torch.tensor([context + tokens for tokens in spellings])).logits.double()
        probs = torch.ones(101, dtype=torch.float64)
        for position in range(4):
            # The probability of this number's next token among the tokens that can follow.
            after = logits[:, len(context) - 1 + position]
            for index, tokens in enumerate(spellings):
                siblings = {other[position] for other in spellings if other[:position] == tokens[:position]}
                chosen = after[index, sorted(siblings)].softmax(dim=0)
                probs[index] *= chosen[sorted(siblings).index(tokens[position])]
        assert float(probs.sum()) == pytest.approx(1)
        expected = float(probs @ (torch.arange(101, dtype=torch.float64) / 100))
        written = parse_answer(text).coefficients[NAMES.index(name)]
        assert abs(written - expected) <= 0.05 + 1e-4


DIGITS = NumberTrie([tuple(text.encode()) for text in NUMBER_TEXTS])


def read_digits(first: float, tenths: np.ndarray, hundredths: np.ndarray) -> float:
    """Read a number digit by digit; ``first`` is the probability of 1.00."""
    states, written = NumberStates.start(1), ""
    while states.node[0] >= 0:
        probs = {0: [1 - first, first], 2: tenths, 3: hundredths[int(written[2:3] or 0)]}.get(len(written), [1.0])
        ids, count = DIGITS.ids[states.node[0]], DIGITS.n_children[states.node[0]]
        if count == 1:
            probs = [1.0]
        assert [chr(token) for token in ids[:count]] == sorted(chr(token) for token in ids[:count])
        logits = np.zeros(len(ids))
        with np.errstate(divide="ignore"):
            logits[:count] = np.log(np.asarray(probs, dtype=np.float64))
        written += chr(DIGITS.step(states, logits[None], readout="mean")[0])
    assert float(written) == states.value[0] / 100
    return float(written)


@given(seed=st.integers(0, 10_000), sharpness=st.sampled_from([0.1, 1.0, 5.0, 40.0]))
def test_numbers_are_read_alike_in_a_batch_and_alone(seed, sharpness):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((4, 7, DIGITS.ids.shape[1])) * sharpness

    def read(rows: np.ndarray, **how) -> list[int]:
        states = NumberStates.start(len(rows))
        values = np.full(len(rows), -1)
        for level in range(4):
            unfinished = np.flatnonzero(values < 0)
            here = states.take(unfinished)
            DIGITS.step(here, logits[level][rows[unfinished]], **how)
            states.put(unfinished, here)
            values[unfinished[here.node < 0]] = here.value[here.node < 0]
        return values.tolist()

    for how in ({"readout": "greedy"}, {"readout": "mean"}, {"readout": "median"}):
        together = read(np.arange(7), **how)
        assert together == [read(np.array([row]), **how)[0] for row in range(7)]
        assert all(0 <= value <= 100 for value in together)


@given(
    first=st.sampled_from([0.0, 1e-6, 0.01, 0.4, 0.97, 0.999, 1.0]),
    seed=st.integers(0, 10_000),
    sharpness=st.sampled_from([0.1, 1.0, 5.0, 40.0]),
    sure=st.booleans(),
)
def test_the_estimate_from_one_path_is_within_half_a_tenth(first, seed, sharpness, sure):
    rng = np.random.default_rng(seed)
    tenths, hundredths = (np.exp(rng.standard_normal(shape) * sharpness) for shape in (10, (10, 10)))
    if sure:
        tenths = np.eye(10)[rng.integers(10)]
    tenths, hundredths = tenths / tenths.sum(), hundredths / hundredths.sum(axis=1, keepdims=True)
    below_one = tenths @ (np.arange(10) / 10 + hundredths @ (np.arange(10) / 100))
    expected = first + (1 - first) * below_one
    read = read_digits(first, tenths, hundredths)
    assert abs(read - expected) <= 0.05 + 1e-9
    if sure and first == 0:
        assert abs(read - expected) <= 0.005 + 1e-9


def read_with_probs(
    first: float, tenths: np.ndarray, hundredths: np.ndarray, readout: str
) -> tuple[NumberStates, np.ndarray]:
    """Read a number digit by digit; return its final state and the full distribution over the 101 values."""
    below_one = np.concatenate([tenths[tenth] * hundredths[tenth] for tenth in range(10)])
    whole = np.append((1 - first) * below_one, first)
    states, written = NumberStates.start(1), ""
    while states.node[0] >= 0:
        at = states.node[0]
        ids = DIGITS.ids[at, : DIGITS.n_children[at]].tolist()
        mass = [sum(whole[v] for v, text in enumerate(NUMBER_TEXTS) if text.startswith(written + chr(i))) for i in ids]
        logits = np.full(DIGITS.ids.shape[1], -np.inf)
        with np.errstate(divide="ignore"):
            logits[: len(ids)] = np.log(mass)
        written += chr(DIGITS.step(states, logits[None], readout=readout)[0])
    assert float(written) == states.value[0] / 100
    return states, whole


@given(
    first=st.sampled_from([0.0, 0.01, 0.4, 0.97]),
    seed=st.integers(0, 10_000),
    sharpness=st.sampled_from([0.1, 1.0, 5.0]),
    readout=st.sampled_from(["greedy", "mean", "median"]),
)
def test_digits_are_known_along_the_path_and_spread_evenly_beside_it(first, seed, sharpness, readout):
    rng = np.random.default_rng(seed)
    tenths, hundredths = (np.exp(rng.standard_normal(shape) * sharpness) for shape in (10, (10, 10)))
    tenths, hundredths = tenths / tenths.sum(), hundredths / hundredths.sum(axis=1, keepdims=True)
    states, whole = read_with_probs(first, tenths, hundredths, readout)
    value, probs = int(states.value[0]), states.probs[0]
    expected = np.append(np.repeat(whole[:100].reshape(10, 10).sum(1) / 10, 10), first)
    if value < 100:
        taken = slice(value // 10 * 10, value // 10 * 10 + 10)
        expected[taken] = whole[taken]
    else:
        expected[:100] = (1 - first) / 100
    assert np.allclose(probs, expected, atol=1e-9)
    assert probs.sum() == pytest.approx(1)
    if readout == "median":
        assert value == np.searchsorted(whole.cumsum(), 0.5 - 1e-12)
    if readout == "greedy":
        assert DIGITS.greedy_values(probs[None])[0] == value


def test_misuse_raises(tiny):
    it = tiny["fast_vlm"]
    inputs = prompts(it.tokenizer, 2)
    with pytest.raises(ValueError, match="2 seeds"):
        DecodingEngine(it.decoder, it.model).generate_text(inputs, temperature=1.0)
    with pytest.raises(ValueError, match="2 seeds"):
        DecodingEngine(it.decoder, it.model).generate_text(inputs, temperature=1.0, seeds=[1])
    with pytest.raises(ValueError, match="temperature"):
        DecodingEngine(it.decoder, it.model).generate_text(inputs, temperature=-1.0)
    with pytest.raises(ModelError, match="readout 'mode' is unknown: it must be greedy or mean or median"):
        AnswerDecoder(it.tokenizer, readout="mode")
    with pytest.raises(ModelError, match="numbers 'branched' is unknown"):
        AnswerDecoder(it.tokenizer, numbers="branched")
    with pytest.raises(ModelError, match="mode 'words' is unknown"):
        AnswerDecoder(it.tokenizer, mode="words")
    with pytest.raises(ModelError, match="choose sequential"):
        AnswerDecoder(it.tokenizer, numbers="parallel").generate_token_by_token(it.model, inputs)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        AnswerDecoder(object())
    with pytest.raises(ModelError, match="eos_token"):
        AnswerDecoder(PreTrainedTokenizerFast(tokenizer_object=it.tokenizer.backend_tokenizer))
