"""Prompts for training and inference, and the chat messages built from them.

A prompt is a text file in the repository's ``prompts/`` folder, installed as the package
``semanticface.prompt_texts``. The first line is its version; ``=== system ===`` and ``=== user ===`` start its two
parts. Text in ``{emotion:…}`` is kept, without the markers, only when emotion is on.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from semanticface.errors import ConfigError

_FORMAT = re.compile(r"version: (\d+)\n=== system ===\n(.+)\n=== user ===\n(.+)", re.DOTALL)
_EMOTION = re.compile(r"\{emotion:(.*?)\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A loaded prompt.

    Attributes:
        name: file name without ``.txt``.
        version: number in the first line, incremented with every change of the text.
        system: the system message.
        user: the user message, which follows the image.
        sha256: of the text as loaded, so it differs with emotion on and off.
    """

    name: str
    version: int
    system: str
    user: str
    sha256: str


def prompt_names() -> tuple[str, ...]:
    """Return the names of the installed prompts, sorted."""
    folder = resources.files("semanticface.prompt_texts")
    return tuple(sorted(item.name.removesuffix(".txt") for item in folder.iterdir() if item.name.endswith(".txt")))


@cache
def load_prompt(name: str, *, emotion: bool = True) -> Prompt:
    """Load a prompt by name: ``distill`` (short, for training) or ``zero_shot`` (complete, for any model).

    Args:
        name: one of ``prompt_names()``.
        emotion: False omits everything about emotions.

    Raises:
        ConfigError: unknown name, or a malformed file.
    """
    if name not in prompt_names():
        raise ConfigError(f"there is no prompt {name!r}: choose one of {', '.join(prompt_names())}")
    text = resources.files("semanticface.prompt_texts").joinpath(f"{name}.txt").read_text(encoding="utf-8")
    text = text.replace("\r\n", "\n")  # git may convert line ends; the hash must not change
    parsed = _FORMAT.fullmatch(text)
    if parsed is None:
        raise ConfigError(f"prompts/{name}.txt: expected `version: N`, `=== system ===` and `=== user ===` lines")
    text = _EMOTION.sub(lambda mark: mark[1] if emotion else "", text)
    parsed = _FORMAT.fullmatch(text)
    assert parsed is not None  # the substitution keeps the headings
    version, system, user = parsed.groups()
    return Prompt(name, int(version), system.strip(), user.strip(), hashlib.sha256(text.encode()).hexdigest())


def messages(prompt: Prompt, answer: str | None = None, n_images: int = 1) -> list[dict[str, Any]]:
    """Return messages for a Hugging Face chat template.

    Args:
        prompt: from ``load_prompt``.
        answer: the assistant's answer to train on; None leaves the assistant's turn open.
        n_images: images before the user's text.
    """
    images = [{"type": "image"} for _ in range(n_images)]
    chat: list[dict[str, Any]] = [
        {"role": "system", "content": [{"type": "text", "text": prompt.system}]},
        {"role": "user", "content": [*images, {"type": "text", "text": prompt.user}]},
    ]
    if answer is not None:
        chat.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return chat
