"""The comment at the end of a model card, which readers do not see: what was written, and what its pictures show.

By it a card that nobody touched is written anew as often as one likes, one that was edited by hand is kept, and a push
knows which picture shows a rendered face.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

README = "README.md"
RENDERED = "rendered"
_MARK = re.compile(r"\n<!-- semanticface card (\{.*\}) -->\n")


@dataclass(frozen=True, slots=True)
class Mark:
    """The comment of a card.

    Attributes:
        untouched: whether the text is the one that was written.
        pictures: sha256 and what it ``shows``, ``rendered`` or where the consent is (empty: nowhere), by file name.
    """

    untouched: bool
    pictures: Mapping[str, Mapping[str, str]]


def marked(text: str, pictures: Mapping[str, tuple[bytes, str]]) -> str:
    """Return a card with its comment; ``pictures`` are content and what it shows, by file name."""
    shown = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "shows": what} for name, (data, what) in pictures.items()
    }
    # Two hyphens would end the comment.
    said = json.dumps({"text": _sha256(text), "pictures": shown}).replace("--", "-\\u002d")
    return f"{text}\n<!-- semanticface card {said} -->\n"


def read_mark(text: str) -> Mark | None:
    """Return what a card's comment says, wherever an edit left it; None for a text that no command wrote.

    It is the last one: notes may come from another card, with its comment.
    """
    *_, found = [None, *_MARK.finditer(text)]
    if found is None:
        return None
    try:
        said = json.loads(found[1])
        return Mark(found.end() == len(text) and said["text"] == _sha256(text[: found.start()]), said["pictures"])
    except (ValueError, KeyError, TypeError):
        return None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
