"""The prompts a model is trained and asked with, and the chat messages made from them.

A prompt is one text file in the repository's ``prompts/`` folder, installed as the package
``semanticface.prompt_texts``. Its first line gives its version; the lines ``=== system ===`` and ``=== user ===`` head
its two parts. Text in ``{emotion:…}`` is kept only while emotion is on, without the marks.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from semanticface.errors import ConfigError

_FORM = re.compile(r"version: (\d+)\n=== system ===\n(.+)\n=== user ===\n(.+)", re.DOTALL)
_EMOTION = re.compile(r"\{emotion:(.*?)\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as a model sees it.

    Attributes:
        name: the file's name without ``.txt``.
        version: the number in its first line, raised with every change of its words.
        system: the system message.
        user: the user message, which follows the picture.
        sha256: of the file's text as loaded, so that emotion on and off have different ones.
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
        emotion: False leaves out every request for an emotion.

    Raises:
        ConfigError: no prompt of this name, or a file that does not have the expected form.
    """
    if name not in prompt_names():
        raise ConfigError(f"there is no prompt {name!r}: choose one of {', '.join(prompt_names())}")
    text = resources.files("semanticface.prompt_texts").joinpath(f"{name}.txt").read_text(encoding="utf-8")
    text = text.replace("\r\n", "\n")  # a checkout may have changed line ends; the words are the same
    form = _FORM.fullmatch(text)
    if form is None:
        raise ConfigError(f"prompts/{name}.txt: expected `version: N`, `=== system ===` and `=== user ===` lines")
    text = _EMOTION.sub(lambda mark: mark[1] if emotion else "", text)
    form = _FORM.fullmatch(text)
    assert form is not None  # taking words out of the parts leaves their heads in place
    version, system, user = form.groups()
    return Prompt(name, int(version), system.strip(), user.strip(), hashlib.sha256(text.encode()).hexdigest())


def messages(prompt: Prompt, answer: str | None = None, n_images: int = 1) -> list[dict[str, Any]]:
    """Return chat messages in the form of Hugging Face chat templates.

    Args:
        prompt: from ``load_prompt``.
        answer: the assistant's answer to train on; None leaves the assistant's turn open.
        n_images: pictures that come before the user's words.
    """
    pictures = [{"type": "image"} for _ in range(n_images)]
    chat: list[dict[str, Any]] = [
        {"role": "system", "content": [{"type": "text", "text": prompt.system}]},
        {"role": "user", "content": [*pictures, {"type": "text", "text": prompt.user}]},
    ]
    if answer is not None:
        chat.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return chat
