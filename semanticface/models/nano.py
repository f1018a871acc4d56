"""Nano, the base model in the package: a stock FastVLM of a ResNet and a small Qwen2, with its own tokenizer.

All classes are transformers' own, so a saved folder loads with ``AutoModelForImageTextToText`` and ``AutoProcessor``
and runs no code of ours. ``train/pretrain.py`` trains it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    ResNetConfig,
)

from semanticface.arkit import N_ACTIONS, N_POSE
from semanticface.models.processors import quiet_transformers
from semanticface.semantics.analysis import Analysis, describe
from semanticface.semantics.answer import NUMBER_TEXTS, POSE_KEYS, POSE_TEXTS, format_answer

IMAGE_SIZE = 128
STRIDE = 32
HIDDEN_SIZES = (32, 64, 160, 256)
SPECIAL_TOKENS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<image>")

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def structure_tokens() -> list[str]:
    """Return the fixed strings between the free slots of canonical answers: with and without emotion, and numbers only.

    Each becomes one token, so that an answer takes two tokens an action and one a field besides its free text.
    """
    found: dict[str, None] = {}
    blank = "\x00"
    for emotion in (True, False):
        analysis = describe(np.zeros(N_ACTIONS, dtype=np.float32), emotion=emotion)
        emptied = Analysis(
            expression_category=blank,
            muscle_movements=dict.fromkeys(analysis.muscle_movements, blank),
            emotional_implication=blank if emotion else None,
            symmetry=blank,
        )
        text = format_answer(np.zeros(N_ACTIONS, dtype=np.float32), emptied)
        text = text.replace("\\u0000", blank).replace("0.00", blank)
        found.update(dict.fromkeys(text.split(blank)))
    bare = format_answer(np.zeros(N_ACTIONS, dtype=np.float32), None)
    found[bare.partition("0.00")[0]] = None
    return list(found)


def add_pose_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    """Make every key and rotation of a pose one token, where it is not yet."""
    texts = [*POSE_KEYS, *POSE_TEXTS]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in texts if text not in tokenizer.get_vocab()])


def build_tokenizer(texts: Iterable[str], *, words: int = 768) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on ``texts`` (answers and prompts); any string encodes and decodes exactly.

    Args:
        texts: what the model reads and writes.
        words: size of the BPE vocabulary, 256 bytes included; answer structure and numbers come on top.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?[A-Za-z]+|[0-9]| ?[^A-Za-z0-9 ]| +"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=words,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fixed = sorted(structure_tokens(), key=len, reverse=True)

    def free_text() -> Iterable[str]:
        for text in texts:
            for piece in fixed:
                text = text.replace(piece, "\n")
            yield text

    tokenizer.train_from_iterator(free_text(), trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in (*structure_tokens(), *NUMBER_TEXTS)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        extra_special_tokens={"image_token": "<image>"},
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        padding_side="right",
    )
    add_pose_tokens(fast)
    return fast


@quiet_transformers()
def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Return the processor of nano: square crops resized to ``IMAGE_SIZE`` and scaled to [-1, 1]."""
    from transformers import CLIPImageProcessor  # here, because its import prints a note where torchvision is missing

    images = CLIPImageProcessor(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        do_center_crop=False,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=STRIDE,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=CHAT_TEMPLATE,
    )


def vision_config() -> ResNetConfig:
    """Return the vision encoder's config: 3.5 M parameters, 4 x 4 image tokens of 256 channels at 128 px."""
    config = ResNetConfig(
        embedding_size=32,
        hidden_sizes=list(HIDDEN_SIZES),
        depths=[2, 2, 3, 2],
        layer_type="basic",
        hidden_act="relu",
    )
    # FastVLM reads the encoder's width under this name.
    config.hidden_size = HIDDEN_SIZES[-1]
    return config


def build_model(tokenizer: PreTrainedTokenizerFast) -> FastVlmForConditionalGeneration:
    """Return an untrained nano with the vocabulary of ``tokenizer``.

    The embeddings of number tokens start as smooth functions of the value, so that neighbouring numbers start alike.
    """
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = FastVlmConfig(
        vision_config=vision_config(),
        text_config=text,
        image_token_index=tokenizer.get_vocab()["<image>"],
        image_seq_length=(IMAGE_SIZE // STRIDE) ** 2,
        tie_word_embeddings=True,
    )
    model = FastVlmForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    with torch.no_grad():
        table: torch.Tensor = model.lm_head.weight  # tied to the embeddings
        smooth = _smooth_embeddings(table)
        # Rotations first: some of their texts are numbers too.
        if POSE_KEYS[0] in tokenizer.get_vocab():
            table[pose_token_ids(tokenizer)] = _smooth_embeddings(table)
        table[number_token_ids(tokenizer)] = smooth
    return model


def _smooth_embeddings(table: torch.Tensor) -> torch.Tensor:
    """Return embeddings [101, D] of the scale of a table's that are smooth functions of their index."""
    values = torch.linspace(0, 1, len(NUMBER_TEXTS))[:, None]
    order = torch.arange(24)
    waves = torch.cos(torch.pi * values * order) / (1 + order).sqrt()
    smooth: torch.Tensor = waves @ torch.randn(len(order), table.shape[1]) * table.std()
    return smooth


def number_token_ids(tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Return the ids of the tokens ``0.00`` to ``1.00``; int64[101]."""
    return torch.tensor(tokenizer.convert_tokens_to_ids(list(NUMBER_TEXTS)))


def pose_token_ids(tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Return the ids of the tokens ``-1.00`` to ``1.00`` of rotations; int64[101]."""
    return torch.tensor(tokenizer.convert_tokens_to_ids(list(POSE_TEXTS)))


class VisionHeads(nn.Module):
    """Heads that predict the renderer's labels from the feature map, to pretrain the vision encoder; not shipped.

    Args:
        channels: channels of the feature map.
        cells: its height times width.
        n_points: number of landmarks.
    """

    def __init__(self, channels: int, cells: int, n_points: int) -> None:
        super().__init__()
        self.coefficients = nn.Linear(channels * cells, N_ACTIONS)
        self.points = nn.Linear(channels * cells, n_points * 2)
        self.pose = nn.Linear(channels * cells, N_POSE)

    def forward(self, feature_map: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Predict from feature maps [B, C, H, W].

        Returns:
            coefficients [B, 52], points [B, n_points, 2] (0 to 1 over the crop), and pose [B, 9], radians.
        """
        flat = feature_map.flatten(1)
        return self.coefficients(flat), self.points(flat).unflatten(1, (-1, 2)), self.pose(flat)
