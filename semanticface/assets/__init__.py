"""Data files that ship with the package: the head, nano, the face detector, pages."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def path(name: str) -> Path:
    """Return where an asset lies, such as ``path("head.npz")``."""
    return FOLDER / name
