"""Light on painted surfaces: sky, three lamps, a shadow, a tone curve; for a block of samples at a time.

A painter fills the rows of a block one sample after the other; the lamps then go over whole rows, which the compiler
turns into instructions that do many samples at once. That is why nothing here branches.
"""

from __future__ import annotations

import math

import numpy as np

from semanticface.rendering.kernels import kernel
from semanticface.rendering.noise import smooth
from semanticface.rendering.shading import raster
from semanticface.rendering.shading.projection import SHADOW_EXTENT

BLOCK = 128
"""Samples in a block: few enough that all rows stay in the nearest cache."""
# Where the rows of a block begin: normal (any length), unit vector to the camera, place in head space, colour; then
# numbers.
NX, NY, NZ, VX, VY, VZ, QX, QY, QZ, RED, GREEN, BLUE, GLOSS, WRAP, WET, OPEN, DIRECT, HAIRY = range(
    0, 18 * BLOCK, BLOCK
)
# Filled and used here: light of the surroundings, share of the first lamp that comes past what throws a shadow.
_R, _G, _B, _FREE, _RIM = range(18 * BLOCK, 23 * BLOCK, BLOCK)
BLOCK_SIZE = 23 * BLOCK
SHADOW_BIAS = 0.035
# How far each colour of light bends round skin: red travels furthest under it.
_BENT = np.array([0.30, 0.13, 0.08], np.float32)


def _tones() -> np.ndarray:
    """Linear light to sRGB with a soft shoulder, by the light's square root: 1024 steps a unit up to 4."""
    x = (np.arange(4097) / 1024) ** 2
    x = np.where(x < 0.6, x, 0.6 + 0.4 * (1 - np.exp(-(x - 0.6) / 0.4)))
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055).astype(np.float32)


TONES = _tones()


@kernel
def curve(x):  # type: ignore[no-untyped-def]
    """Linear light to sRGB; powers cost most of a pixel, so it is looked up."""
    return TONES[min(int(math.sqrt(max(x, 0.0)) * 1024 + 0.5), 4096)]


@kernel
def illuminate(  # type: ignore[no-untyped-def]
    block, count, directions, lamps, sky, ground, up, shadow, bounds, right, over, soft, exposure
):
    """Light the first ``count`` samples of a block.

    Args:
        block: float32[BLOCK_SIZE]; the painter's rows are read, ``RED``, ``GREEN`` and ``BLUE`` end as light in
            sRGB. ``GLOSS`` and ``WET`` are the strengths of highlights on skin and on eyes, ``WRAP`` is how far light
            bends round the surface, ``OPEN`` and ``DIRECT`` the shares of sky and lamps that reach it
            whatever the shadow, ``HAIRY`` 1 for hair, whose back is lit like its front.
        count: samples in it.
        directions, lamps: float32[3, 3], unit vectors towards the lamps in head space and their colours.
        sky, ground, up: float32[3], ambient colours, and the camera's up in head space.
        shadow, bounds, right, over: the first lamp's ``view.Shadow``.
        soft, exposure: as in ``scene.Lights``.
    """
    key_x, key_y, key_z = directions[0, 0], directions[0, 1], directions[0, 2]
    for n in range(count):
        x, y, z = block[NX + n], block[NY + n], block[NZ + n]
        inv = 1 / max(math.sqrt(x * x + y * y + z * z), 1e-6)
        x, y, z = x * inv, y * inv, z * inv
        facing = x * block[VX + n] + y * block[VY + n] + z * block[VZ + n]
        rim = 1 - (facing if facing >= 0.0 else 0.02)
        block[_RIM + n] = rim * rim * rim * rim
        turned = 2 * min(facing, 0.0) * block[HAIRY + n]
        x, y, z = x - turned * block[VX + n], y - turned * block[VY + n], z - turned * block[VZ + n]
        block[NX + n], block[NY + n], block[NZ + n] = x, y, z
        tall = 0.5 + 0.5 * (x * up[0] + y * up[1] + z * up[2])
        block[_R + n] = (ground[0] + (sky[0] - ground[0]) * tall) * block[OPEN + n] * block[RED + n]
        block[_G + n] = (ground[1] + (sky[1] - ground[1]) * tall) * block[OPEN + n] * block[GREEN + n]
        block[_B + n] = (ground[2] + (sky[2] - ground[2]) * tall) * block[OPEN + n] * block[BLUE + n]
    half, texels = shadow.shape[0] / 2, shadow.shape[0] / 2 / SHADOW_EXTENT
    for n in range(count):
        # The place, moved out of the surface a little, on the shadow map and towards the light.
        x, y, z = (
            block[QX + n] + 0.02 * block[NX + n],
            block[QY + n] + 0.02 * block[NY + n],
            block[QZ + n] + 0.02 * block[NZ + n],
        )
        block[QX + n] = (x * right[0] + y * right[1] + z * right[2]) * texels + half - 0.5
        block[QY + n] = (x * over[0] + y * over[1] + z * over[2]) * texels + half - 0.5
        block[QZ + n] = x * key_x + y * key_y + z * key_z + SHADOW_BIAS
    for n in range(count):
        block[_FREE + n] = 1.0
        if block[NX + n] * key_x + block[NY + n] * key_y + block[NZ + n] * key_z > -0.3:
            reached = raster.lit(shadow, bounds, block[QX + n], block[QY + n], block[QZ + n])
            reached += (1 - reached) * 0.6 * soft
            block[_FREE + n] = 0.25 + 0.75 * reached if block[WET + n] > 0.0 else reached
    for k in range(3):
        dx, dy, dz = directions[k, 0], directions[k, 1], directions[k, 2]
        red, green, blue = lamps[k, 0], lamps[k, 1], lamps[k, 2]
        for n in range(count):
            x, y, z = block[NX + n], block[NY + n], block[NZ + n]
            vx, vy, vz = block[VX + n], block[VY + n], block[VZ + n]
            wet, hairy, wrap = block[WET + n], block[HAIRY + n], block[WRAP + n]
            rim = block[_RIM + n]
            c = x * dx + y * dy + z * dz
            reach = block[DIRECT + n] * (block[_FREE + n] if k == 0 else 1.0)
            ex, ey, ez = dx + vx, dy + vy, dz + vz
            e = max((x * ex + y * ey + z * ez) / math.sqrt(ex * ex + ey * ey + ez * ez), 0.0)
            e2 = e * e
            e4 = e2 * e2
            e8 = e4 * e4
            hair, skin = e8 * e4 * e2, e8 * e8 * e8 * e4
            shine = block[GLOSS + n] * (0.10 * (skin + (hair - skin) * hairy) + 0.07 * e4 * e2 * e * (0.3 + rim))
            shine *= 1 + 3 * rim
            gleam = wet * 1.6 * smooth(0.988, 0.996, e) + 0.12 * e8 * e8 * e8 * e8 * e8
            shine += gleam if wet > 0.0 else 0.0
            shine *= min(max(c * 4, 0.0), 1.0)
            # Wrapped diffuse, a cheap stand-in for light scattered under the skin.
            wr, wg, wb = _BENT[0] * wrap, _BENT[1] * wrap, _BENT[2] * wrap
            diffuse_r = block[RED + n] * max(c + wr, 0.0) / ((1 + wr) * (1 + wr))
            diffuse_g = block[GREEN + n] * max(c + wg, 0.0) / ((1 + wg) * (1 + wg))
            diffuse_b = block[BLUE + n] * max(c + wb, 0.0) / ((1 + wb) * (1 + wb))
            block[_R + n] += (diffuse_r + shine) * reach * red
            block[_G + n] += (diffuse_g + shine) * reach * green
            block[_B + n] += (diffuse_b + shine) * reach * blue
    for n in range(count):
        block[RED + n] = curve(block[_R + n] * exposure)
        block[GREEN + n] = curve(block[_G + n] * exposure)
        block[BLUE + n] = curve(block[_B + n] * exposure)
