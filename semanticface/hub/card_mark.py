"""The invisible comment at the end of a model card: a hash of its text, and what its pictures show.

It lets an unedited card be regenerated, protects a card that was edited by hand, and tells a push which pictures are
rendered faces.
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
        untouched: whether the text is unedited.
        pictures: by file name, the sha256 and what it ``shows``: ``rendered``, or where consent is documented (may be
            empty).
    """

    untouched: bool
    pictures: Mapping[str, Mapping[str, str]]


def marked(text: str, pictures: Mapping[str, tuple[bytes, str]]) -> str:
    """Return a card with its comment; ``pictures`` maps file names to content and what it shows."""
    shown = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "shows": what} for name, (data, what) in pictures.items()
    }
    # Two hyphens would end the comment.
    mark = json.dumps({"text": _sha256(text), "pictures": shown}).replace("--", "-\\u002d")
    return f"{text}\n<!-- semanticface card {mark} -->\n"


def read_mark(text: str) -> Mark | None:
    """Parse a card's comment, wherever an edit left it; None for a text that no command wrote.

    The last comment counts: notes may contain another card's.
    """
    *_, found = [None, *_MARK.finditer(text)]
    if found is None:
        return None
    try:
        mark = json.loads(found[1])
        return Mark(found.end() == len(text) and mark["text"] == _sha256(text[: found.start()]), mark["pictures"])
    except (ValueError, KeyError, TypeError):
        return None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
