"""Tiny random models of the supported architectures, built in code and saved like their hub folders.

Each has the real classes with small widths, a miniature of its chat template and a tokenizer trained on a few answers:
numbers are whole tokens in the nano-like model and single digits in the others, as in the real ones.
"""

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    ResNetConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from semanticface.data.faces import FEATURES
from semanticface.prompts import load_prompt
from semanticface.semantics.analysis import describe
from semanticface.semantics.answer import format_answer
from semanticface.semantics.expression_sampler import sample_coefficients

SIDE = {"fast_vlm": 32, "smolvlm": 32, "qwen3_vl": 64, "llava": 32}
"""Image sizes in pixels; Qwen3-VL's comes from its config (``model.image_size``), the others' are built in."""

_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As in SmolVLM: the prompt ends with "Assistant:", while a finished turn puts a space before the text.
_SMOL = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_PLAIN = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def answers(count: int, *, emotion: bool = True) -> list[str]:
    """Return canonical answers of random expressions; the same for the same count."""
    rng = np.random.default_rng(7)
    vectors = [sample_coefficients(rng) for _ in range(count)]
    return [format_answer(vector, describe(vector, emotion=emotion)) for vector in vectors]


def faces(folder: Path, rows: int = 8, *, emotion: bool = True, size: int = 48) -> Path:
    """Save a dataset of noise with real answers: ``rows`` in train, 2 in validation and 2 in test."""
    rng = np.random.default_rng(3)
    columns = ("picture", "coefficients", "subject", "answer", "box")
    features = datasets.Features({name: FEATURES[name] for name in columns})

    def split(subject: str, count: int) -> datasets.Dataset:
        vectors = [sample_coefficients(rng) for _ in range(count)]
        columns = {
            "picture": [Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)) for _ in range(count)],
            "coefficients": vectors,
            "subject": [subject] * count,
            "answer": [format_answer(vector, describe(vector, emotion=emotion)) for vector in vectors],
            "box": [[4.0, 6.0, size - 6.0, size - 4.0]] * count,
        }
        return datasets.Dataset.from_dict(columns, features=features)

    splits = {"train": split("a", rows), "validation": split("b", 2), "test": split("c", 2)}
    datasets.DatasetDict(splits).save_to_disk(str(folder))
    return folder


def _tokenizer(
    specials: list[str], *, numbers: bool, single_digits: bool = True, **named: object
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on a few answers; ``numbers`` adds 0.00 to 1.00 as whole tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=single_digits), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    prompt = load_prompt("distill")
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*answers(20), prompt.system, prompt.user], trainer)
    if numbers:
        tokenizer.add_tokens([AddedToken(f"{value / 100:.2f}", normalized=False) for value in range(101)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **named)


def _save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, files: dict[str, object]) -> Path:
    # As large as in trained models: with small random embeddings no LoRA could change a prediction.
    for table in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
        table.data.mul_(25)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content, indent=2)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def fast_vlm(folder: Path) -> Path:
    """Save a nano-like FastVLM: a convolutional encoder with batch norms, a small Qwen2, whole numbers as tokens."""
    torch.manual_seed(0)
    specials = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<image>"]
    tokenizer = _tokenizer(
        specials,
        numbers=True,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        extra_special_tokens={"image_token": "<image>"},
    )
    encoder = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 32], depths=[1, 1, 1], layer_type="basic")
    # FastVLM reads the encoder's width under this name.
    encoder.hidden_size = 32
    config = FastVlmConfig(
        vision_config=encoder,
        text_config=Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
        tie_word_embeddings=True,
    )
    images = CLIPImageProcessor(size={"height": SIDE["fast_vlm"], "width": SIDE["fast_vlm"]}, do_center_crop=False)
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="full",
        chat_template=_PLAIN,
    )
    processor.save_pretrained(folder)
    return _save(folder, FastVlmForConditionalGeneration(config), tokenizer, {})


def smolvlm(folder: Path) -> Path:
    """Save a SmolVLM: SigLIP with pixel shuffle, Llama, single digits."""
    torch.manual_seed(0)
    specials = [
        "<|im_start|>", "<end_of_utterance>", "<|pad|>", "<image>", "<fake_token_around_image>", "<global-img>",
    ]  # fmt: skip
    tokenizer = _tokenizer(
        specials,
        numbers=False,
        pad_token="<|pad|>",
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        extra_special_tokens={
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
    )
    side = SIDE["smolvlm"]
    config = SmolVLMConfig(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": side,
            "patch_size": 8,
        },
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        ),
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
    )
    pictures = {
        "do_image_splitting": True,
        "image_processor_type": "SmolVLMImageProcessor",
        "max_image_size": {"longest_edge": side},
        "processor_class": "SmolVLMProcessor",
        "size": {"longest_edge": 4 * side},
    }
    files = {
        "preprocessor_config.json": pictures,
        "video_preprocessor_config.json": pictures | {"video_processor_type": "SmolVLMVideoProcessor"},
        "processor_config.json": {"image_seq_len": 4, "processor_class": "SmolVLMProcessor"},
        "chat_template.json": {"chat_template": _SMOL},
    }
    return _save(folder, SmolVLMForConditionalGeneration(config), tokenizer, files)


def qwen3_vl(folder: Path) -> Path:
    """Save a Qwen3-VL: deepstack encoder, Qwen3 with interleaved rotary sections, single digits."""
    torch.manual_seed(0)
    specials = [
        "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
        "<|video_pad|>",
    ]  # fmt: skip
    tokenizer = _tokenizer(specials, numbers=False, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    config = Qwen3VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
        },
        **{
            f"{name}_id": tokenizer.convert_tokens_to_ids(token)
            for name, token in {
                "image_token": "<|image_pad|>",
                "video_token": "<|video_pad|>",
                "vision_start_token": "<|vision_start|>",
                "vision_end_token": "<|vision_end|>",
            }.items()
        },
        tie_word_embeddings=True,
    )
    pictures = {
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "image_std": [0.5, 0.5, 0.5],
        "merge_size": 2,
        "patch_size": 16,
        "processor_class": "Qwen3VLProcessor",
        "size": {"longest_edge": 16777216, "shortest_edge": 65536},
        "temporal_patch_size": 2,
    }
    files = {
        "preprocessor_config.json": pictures,
        "video_preprocessor_config.json": pictures | {"video_processor_type": "Qwen3VLVideoProcessor"},
        "chat_template.json": {"chat_template": _CHATML},
    }
    return _save(folder, Qwen3VLForConditionalGeneration(config), tokenizer, files)


def llava(folder: Path) -> Path:
    """Save a LLaVA: CLIP, Llama; digits in groups, so that numbers differ in their number of tokens."""
    torch.manual_seed(0)
    specials = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<image>"]
    tokenizer = _tokenizer(
        specials,
        numbers=False,
        single_digits=False,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        extra_special_tokens={"image_token": "<image>"},
    )
    side = SIDE["llava"]
    encoder = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=side, patch_size=16
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = LlavaConfig(
        vision_config=encoder,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"height": side, "width": side}, do_center_crop=False),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_PLAIN,
    )
    processor.save_pretrained(folder)
    return _save(folder, LlavaForConditionalGeneration(config), tokenizer, {})


BUILD: dict[str, Callable[[Path], Path]] = {"fast_vlm": fast_vlm, "smolvlm": smolvlm, "qwen3_vl": qwen3_vl}
