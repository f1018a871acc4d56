"""The head that the demo turns and plays: the project's plain head as glTF, at rest, and as somebody's animation."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from semanticface.formats import gltf
from semanticface.formats.gltf_head import plain_head
from semanticface.formats.recording import Track

RISE, HOLD = 0.4, 1.6
"""Seconds in which a single expression comes up from rest, and after which its animation ends."""


def head_at_rest() -> bytes:
    """The head without an animation, as a .glb with 52 morph targets under their ARKit names."""
    return _built()[0]


def animated_head(track: Track, name: str) -> bytes:
    """The head with a recording as its animation, as a .glb; a single row comes up from rest and stays.

    Args:
        track: what the head does.
        name: of the animation.
    """
    data, face = _built()
    times, values = track.times, track.values
    if len(times) == 1:
        times = np.array([0.0, RISE, HOLD])
        values = np.concatenate([np.zeros_like(values), values, values])
    with tempfile.TemporaryDirectory(prefix="semanticface-head-") as folder:
        path = Path(folder) / "head.glb"
        path.write_bytes(data)
        glb = gltf.read(path)
        glb.animate(name, times, {face: values})
        glb.write(path)
        return path.read_bytes()


@lru_cache(maxsize=1)
def _built() -> tuple[bytes, int]:
    glb, face = plain_head()
    with tempfile.TemporaryDirectory(prefix="semanticface-head-") as folder:
        path = Path(folder) / "head.glb"
        glb.write(path)
        return path.read_bytes(), face
