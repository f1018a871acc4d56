"""Cartoon proportions: a warp of space applied after the expression, so that every action keeps its meaning.

A warp is a set of local scalings (about a centre, fading with distance) and a taper of the head from jaw to crown.
Scaling about an eye's centre is isotropic, so the eyeball stays round inside its lids.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semanticface.rendering.head.rig import Identity, rig
from semanticface.rendering.kernels import kernel


@dataclass(frozen=True, slots=True, eq=False)
class CartoonWarp:
    """A warp of head space.

    Attributes:
        centres: float32[K, 3].
        radii: float32[K], distance at which a scaling has faded to a third, decimetres.
        scales: float32[K, 3], added scale along x, y and z at each centre.
        widths: float32[3], width of the head at jaw, eyes and crown (1 keeps it).
        stretch: height of the head (1 keeps it).
    """

    centres: np.ndarray
    radii: np.ndarray
    scales: np.ndarray
    widths: np.ndarray
    stretch: float

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Warped points, float32[N, 3]."""
        p = np.ascontiguousarray(points, np.float32)
        return _warp(p, self.centres, self.radii, self.scales, self.widths, np.float32(self.stretch))


@kernel
def _warp(points, centres, radii, scales, widths, stretch):  # type: ignore[no-untyped-def]
    out = np.empty_like(points)
    for i in range(len(points)):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        mx = my = mz = np.float32(0)
        for k in range(len(centres)):
            dx, dy, dz = x - centres[k, 0], y - centres[k, 1], z - centres[k, 2]
            d = (dx * dx + dy * dy + dz * dz) / (radii[k] * radii[k])
            if d > 6.0:
                continue
            w = np.exp(-d)
            mx += w * scales[k, 0] * dx
            my += w * scales[k, 1] * dy
            mz += w * scales[k, 2] * dz
        x, y, z = x + mx, y + my, z + mz
        # Jaw at -0.7, eyes at 0.33, crown at 1.5; the neck below the jaw fades back to its own width.
        if y < 0.33:
            t = min((0.33 - y) / 1.03, 1.0)
            t = t * t * (3 - 2 * t)
            width = widths[1] + (widths[0] - widths[1]) * t
            back = min(max((-0.75 - y) / 0.7, 0.0), 1.0)
            width += (1 - width) * back
        else:
            t = min((y - 0.33) / 1.17, 1.0)
            width = widths[1] + (widths[2] - widths[1]) * t * t * (3 - 2 * t)
        out[i, 0] = x * width
        out[i, 1] = y * stretch
        out[i, 2] = z * (1 + 0.5 * (width - 1)) if z > 0 else z * width
    return out


def cartoon_warp(
    identity: Identity, *, eyes: float, mouth: float, nose: float, cheeks: float, chin: float,
    widths: tuple[float, float, float], stretch: float,
) -> CartoonWarp:  # fmt: skip
    """A warp for a head; eyes to chin are added scales, 0 keeps the feature."""
    head = rig(identity.family)
    base, landmarks = head.base, head.point_ids
    offsets = identity.vertices - base

    def centre(x: float, y: float, z: float) -> np.ndarray:
        nearest = landmarks[np.argmin(((base[landmarks] - (x, y, z)) ** 2).sum(1))]
        return np.array([x, y, z]) + offsets[nearest]

    rows = [(identity.eye_centres[0], 0.30, (eyes,) * 3), (identity.eye_centres[1], 0.30, (eyes,) * 3),
            (centre(0, -0.34, 0.95), 0.42, (mouth, mouth, 0.2 * mouth)), (centre(0, 0.0, 1.05), 0.24, (nose,) * 3),
            (centre(0.42, -0.1, 0.75), 0.30, (cheeks,) * 3), (centre(-0.42, -0.1, 0.75), 0.30, (cheeks,) * 3),
            (centre(0, -0.65, 0.85), 0.28, (chin,) * 3)]  # fmt: skip
    centres, radii, scales = zip(*rows, strict=True)
    return CartoonWarp(np.array(centres, np.float32), np.array(radii, np.float32), np.array(scales, np.float32),
                np.array(widths, np.float32), float(stretch))  # fmt: skip
