"""Beards with a shape: the skin under a full beard is drawn outwards and down, so that its outline is that of hair.

Lips and landmarks stay where they are; the texture, which is fixed to the skin, stretches into strands.
"""

from __future__ import annotations

import numpy as np

from semanticface.rendering.head import channel as ch
from semanticface.rendering.head.appearance import Appearance
from semanticface.rendering.head.rig import SKIN, Rig
from semanticface.rendering.kernels import kernel, smoothstep
from semanticface.rendering.shading.textures import beard

_THICKNESS = 0.05  # decimetres, of a beard of any length


@kernel
def _grow(vertices, base, lips, is_skin, params, length):  # type: ignore[no-untyped-def]
    out = vertices.copy()
    for i in range(len(base)):
        if not is_skin[i]:
            continue
        x, y, z = base[i, 0], base[i, 1], base[i, 2]
        cover = beard(params, x, y, z, lips[i])[1] * params[ch.BEARD]
        if cover <= 0.0:
            continue
        hang = cover * length * smoothstep(-0.42, -0.80, y) * smoothstep(0.70, 0.15, abs(x))
        thick = cover * min(_THICKNESS, 0.5 * length)
        out[i, 0] += thick * (x / 0.7) - 0.25 * hang * x
        out[i, 1] -= hang
        out[i, 2] += thick + 0.15 * hang
    return out


def grow_beard(vertices: np.ndarray, appearance: Appearance, head: Rig) -> np.ndarray:
    """Vertices of a head with the appearance's beard, float32[V, 3]; the same array without one."""
    if appearance.beard_length <= 0.0:
        return vertices
    lips = np.ascontiguousarray(head.masks[:, 0])
    return _grow(vertices, head.base, lips, head.part == SKIN, appearance.params, np.float32(appearance.beard_length))
