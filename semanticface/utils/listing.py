"""Lists of names in messages."""

from __future__ import annotations

from collections.abc import Sequence

_MAX_LISTED = 8


def listed(names: Sequence[str]) -> str:
    """Return names separated by commas; of more than eight the first, and how many more there are."""
    rest = len(names) - _MAX_LISTED
    return ", ".join(names[:_MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")
