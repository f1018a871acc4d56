"""Lights of a shot, and shading of blocks of samples with ambient light, three lights and a shadow map.

The styles fill the rows of a block sample by sample; ``illuminate`` then loops over whole rows without branches, which
the compiler vectorises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from semanticface.rendering import raster
from semanticface.rendering.conditions import Conditions, ConditionSettings, condition_settings
from semanticface.rendering.kernels import kernel, smoothstep

SHADOW_EXTENT = 3.2

_PATTERN_SIZE = 160


@dataclass(frozen=True, slots=True, eq=False)
class Lights:
    """Lights in camera space, linear RGB.

    Attributes:
        directions: float32[3, 3], unit vectors towards key, fill and rim light.
        colours: float32[3, 3].
        sky, ground: float32[3], ambient light from above and below.
        softness: of the shadow, 0 (hard) to 1 (none).
        exposure: gain before the tone curve.
        shadow_pattern: bool[P, P], occluder of the key light over the extent of its shadow map; ``None`` for none.
    """

    directions: np.ndarray
    colours: np.ndarray
    sky: np.ndarray
    ground: np.ndarray
    softness: float
    exposure: float
    shadow_pattern: np.ndarray | None = None


def _direction(azimuth: float, height: float) -> np.ndarray:
    a, h = np.radians([azimuth, height])
    return np.array([np.sin(a) * np.cos(h), np.sin(h), np.cos(a) * np.cos(h)])


def _tint(rng: np.random.Generator, warmth: float) -> np.ndarray:
    """White from warm (1) to cold (-1), luminance about 1."""
    n_dot_l = np.array([1 + 0.28 * warmth, 1.0, 1 - 0.34 * warmth]) * rng.normal(1, 0.03, 3)
    return n_dot_l / n_dot_l.mean()


def _key_direction(rng: np.random.Generator, settings: ConditionSettings) -> np.ndarray:
    """Direction of the key light: mostly in front of and above the face, sometimes far to one side or below."""
    kind = rng.random()
    if kind < 0.6 * settings.side_light:
        return _direction(rng.choice([-1, 1]) * rng.uniform(60, 100), rng.uniform(-15, 45))
    if kind < settings.side_light:
        return _direction(rng.normal(0, 25), rng.uniform(-65, -20))
    return _direction(np.clip(rng.normal(0, 40), -100, 100), np.clip(rng.normal(33, 19), -15, 80))


def _shadow_pattern(rng: np.random.Generator) -> np.ndarray:
    """Shadow of blinds, leaves, window bars or a single edge, bool[P, P]."""
    y, x = (np.mgrid[0:_PATTERN_SIZE, 0:_PATTERN_SIZE] / _PATTERN_SIZE - 0.5) * 2 * SHADOW_EXTENT
    angle = rng.normal(0, 0.35)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kind = rng.random()
    if kind < 0.35:  # blinds
        return (v / rng.uniform(0.16, 0.5) + rng.random()) % 1 < rng.uniform(0.3, 0.65)
    if kind < 0.75:  # leaves
        total = np.zeros((_PATTERN_SIZE, _PATTERN_SIZE), np.float32)
        for cells in (int(rng.integers(8, 18)), int(rng.integers(18, 36))):
            grain = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
            total += np.asarray(grain.resize((_PATTERN_SIZE, _PATTERN_SIZE), Image.Resampling.BICUBIC))
        return total > rng.uniform(-0.5, 0.6)
    if kind < 0.9:  # the bars of a window
        pitch, bar = rng.uniform(0.5, 1.2), rng.uniform(0.08, 0.2)
        return ((u + rng.uniform(0, pitch)) % pitch < bar) | ((v + rng.uniform(0, pitch)) % pitch < bar)
    angle = rng.uniform(0, 2 * np.pi)  # one edge across the face
    return x * np.cos(angle) + y * np.sin(angle) > rng.uniform(-0.3, 0.5)


def sample_lights(shot: int | None, conditions: Conditions = "usual") -> Lights:
    """Sample the lights of a shot; ``None`` is a plain soft portrait light."""
    if shot is None:
        directions = np.stack([_direction(-32, 32), _direction(48, 8), _direction(150, 35)])
        colours = np.array([[1.75, 1.7, 1.62], [0.5, 0.52, 0.56], [0.4, 0.4, 0.42]])
        return Lights(directions.astype(np.float32), colours.astype(np.float32), np.full(3, 0.50, np.float32),
                      np.full(3, 0.30, np.float32), 0.35, 0.80)  # fmt: skip
    rng, settings = np.random.default_rng([shot, 22]), condition_settings(conditions)
    key = _key_direction(rng, settings)
    fill = _direction(-np.sign(key[0]) * rng.uniform(20, 80), rng.uniform(-15, 35))
    rim = _direction(rng.choice([-1, 1]) * rng.uniform(115, 165), rng.uniform(0, 60))
    warmth = rng.normal(0, 0.45)
    contrast = rng.beta(*settings.contrast_beta)
    softness = rng.uniform(0.05, 0.85)
    shadow_pattern = None
    if rng.random() < settings.shadow_pattern:
        shadow_pattern = _shadow_pattern(rng)
        contrast, softness = 0.4 + 0.6 * contrast, 0.6 * softness
    colours = np.stack([
        _tint(rng, warmth) * (0.9 + 1.3 * contrast),
        _tint(rng, rng.normal(-0.3 * warmth, 0.4)) * rng.uniform(0.1, 0.8) * (1.1 - contrast),
        _tint(rng, rng.normal(0, 0.6)) * rng.exponential(0.6),
    ])  # fmt: skip
    if rng.random() < settings.coloured_light:
        for row in rng.permutation(3)[: rng.integers(1, 3)]:
            colours[row] *= 0.15 + 2.55 * rng.dirichlet([1.2, 1.2, 1.2])
    sky = _tint(rng, rng.normal(-0.1, 0.4)) * (0.15 + 0.65 * (1 - contrast)) * rng.uniform(0.6, 1.3)
    ground = sky * rng.uniform(0.3, 0.9) * _tint(rng, rng.normal(0.2, 0.2))
    # Auto exposure: the brighter the scene, the lower the gain, with an error of about a third of a stop.
    energy = colours[0].mean() * 0.55 + colours[1].mean() * 0.4 + sky.mean() * 0.7 + ground.mean() * 0.3
    exposure = 1.45 / energy * np.exp(np.clip(rng.normal(-0.17, settings.exposure_std), -1.1, 0.4))
    return Lights(directions=np.stack([key, fill, rim]).astype(np.float32), colours=colours.astype(np.float32),
                  sky=sky.astype(np.float32), ground=ground.astype(np.float32), softness=float(softness),
                  exposure=float(exposure), shadow_pattern=shadow_pattern)  # fmt: skip


BLOCK = 128
"""Samples per block: few enough that all rows stay in the L1 cache."""
# Offsets of the rows of a block: normal (any length), unit vector to the camera, head-space position, albedo, scalars.
NX, NY, NZ, VX, VY, VZ, PX, PY, PZ, RED, GREEN, BLUE, GLOSS, WRAP, WET, AMBIENT, DIRECT, IS_HAIR = range(
    0, 18 * BLOCK, BLOCK
)
# Filled by illuminate: accumulated light, fraction of the key light past the shadow, Fresnel rim.
_R, _G, _B, _LIT, _RIM = range(18 * BLOCK, 23 * BLOCK, BLOCK)
BLOCK_SIZE = 23 * BLOCK
SHADOW_BIAS = 0.035
# Wrapped diffuse of skin by channel: red scatters furthest under the surface.
_WRAP_RGB = np.array([0.30, 0.13, 0.08], np.float32)


def _tone_curve() -> np.ndarray:
    """Linear light to sRGB with a soft shoulder, indexed by the light's square root: 1024 steps per unit up to 4."""
    x = (np.arange(4097) / 1024) ** 2
    x = np.where(x < 0.6, x, 0.6 + 0.4 * (1 - np.exp(-(x - 0.6) / 0.4)))
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055).astype(np.float32)


TONE_CURVE = _tone_curve()


@kernel
def tone_map(x):  # type: ignore[no-untyped-def]
    """Linear light to sRGB by table, as powers would dominate the cost of a sample."""
    return TONE_CURVE[min(int(math.sqrt(max(x, 0.0)) * 1024 + 0.5), 4096)]


@kernel
def illuminate(  # type: ignore[no-untyped-def]
    block,
    count,
    directions,
    light_colours,
    sky,
    ground,
    up,
    shadow,
    bounds,
    shadow_right,
    shadow_up,
    softness,
    exposure,
):
    """Light the first ``count`` samples of a block.

    Args:
        block: float32[BLOCK_SIZE]; ``RED``, ``GREEN`` and ``BLUE`` hold the albedo and end as shaded sRGB. ``GLOSS``
            and ``WET`` are specular strengths of skin and eyes, ``WRAP`` is wrapped diffuse (1 is skin), ``AMBIENT``
            and ``DIRECT`` the fractions of ambient and direct light before shadows, ``IS_HAIR`` 1 for hair, lit from
            both sides.
        count: samples in it.
        directions, light_colours: float32[3, 3], unit vectors towards the lights in head space, and their colours.
        sky, ground, up: float32[3], ambient colours, and the camera's up in head space.
        shadow, bounds, shadow_right, shadow_up: the key light's ``projection.Shadow``.
        softness, exposure: as in ``Lights``.
    """
    key_x, key_y, key_z = directions[0, 0], directions[0, 1], directions[0, 2]
    for n in range(count):
        x, y, z = block[NX + n], block[NY + n], block[NZ + n]
        inv = 1 / max(math.sqrt(x * x + y * y + z * z), 1e-6)
        x, y, z = x * inv, y * inv, z * inv
        n_dot_v = x * block[VX + n] + y * block[VY + n] + z * block[VZ + n]
        rim = 1 - (n_dot_v if n_dot_v >= 0.0 else 0.02)
        block[_RIM + n] = rim * rim * rim * rim
        flip = 2 * min(n_dot_v, 0.0) * block[IS_HAIR + n]
        x, y, z = x - flip * block[VX + n], y - flip * block[VY + n], z - flip * block[VZ + n]
        block[NX + n], block[NY + n], block[NZ + n] = x, y, z
        up_weight = 0.5 + 0.5 * (x * up[0] + y * up[1] + z * up[2])
        block[_R + n] = (ground[0] + (sky[0] - ground[0]) * up_weight) * block[AMBIENT + n] * block[RED + n]
        block[_G + n] = (ground[1] + (sky[1] - ground[1]) * up_weight) * block[AMBIENT + n] * block[GREEN + n]
        block[_B + n] = (ground[2] + (sky[2] - ground[2]) * up_weight) * block[AMBIENT + n] * block[BLUE + n]
    half, texels = shadow.shape[0] / 2, shadow.shape[0] / 2 / SHADOW_EXTENT
    for n in range(count):
        # Offset the position along the normal, then map it to shadow-map texels and depth towards the light.
        x, y = block[PX + n] + 0.02 * block[NX + n], block[PY + n] + 0.02 * block[NY + n]
        z = block[PZ + n] + 0.02 * block[NZ + n]
        block[PX + n] = (x * shadow_right[0] + y * shadow_right[1] + z * shadow_right[2]) * texels + half - 0.5
        block[PY + n] = (x * shadow_up[0] + y * shadow_up[1] + z * shadow_up[2]) * texels + half - 0.5
        block[PZ + n] = x * key_x + y * key_y + z * key_z + SHADOW_BIAS
    for n in range(count):
        block[_LIT + n] = 1.0
        if block[NX + n] * key_x + block[NY + n] * key_y + block[NZ + n] * key_z > -0.3:
            light = raster.sample_shadow(shadow, bounds, block[PX + n], block[PY + n], block[PZ + n])
            light += (1 - light) * 0.6 * softness
            block[_LIT + n] = 0.25 + 0.75 * light if block[WET + n] > 0.0 else light
    for k in range(3):
        dx, dy, dz = directions[k, 0], directions[k, 1], directions[k, 2]
        red, green, blue = light_colours[k, 0], light_colours[k, 1], light_colours[k, 2]
        for n in range(count):
            x, y, z = block[NX + n], block[NY + n], block[NZ + n]
            vx, vy, vz = block[VX + n], block[VY + n], block[VZ + n]
            wet, is_hair, wrap = block[WET + n], block[IS_HAIR + n], block[WRAP + n]
            rim = block[_RIM + n]
            n_dot_l = x * dx + y * dy + z * dz
            visibility = block[DIRECT + n] * (block[_LIT + n] if k == 0 else 1.0)
            hx, hy, hz = dx + vx, dy + vy, dz + vz
            n_dot_h = max((x * hx + y * hy + z * hz) / math.sqrt(hx * hx + hy * hy + hz * hz), 0.0)
            h2 = n_dot_h * n_dot_h
            h4 = h2 * h2
            h8 = h4 * h4
            hair_lobe, skin_lobe = h8 * h4 * h2, h8 * h8 * h8 * h4
            specular = block[GLOSS + n] * (
                0.10 * (skin_lobe + (hair_lobe - skin_lobe) * is_hair) + 0.07 * h4 * h2 * n_dot_h * (0.3 + rim)
            )
            specular *= 1 + 3 * rim
            glint = wet * 1.6 * smoothstep(0.988, 0.996, n_dot_h) + 0.12 * h8 * h8 * h8 * h8 * h8
            specular += glint if wet > 0.0 else 0.0
            specular *= min(max(n_dot_l * 4, 0.0), 1.0)
            # Wrapped diffuse approximates subsurface scattering.
            wr, wg, wb = _WRAP_RGB[0] * wrap, _WRAP_RGB[1] * wrap, _WRAP_RGB[2] * wrap
            diffuse_r = block[RED + n] * max(n_dot_l + wr, 0.0) / ((1 + wr) * (1 + wr))
            diffuse_g = block[GREEN + n] * max(n_dot_l + wg, 0.0) / ((1 + wg) * (1 + wg))
            diffuse_b = block[BLUE + n] * max(n_dot_l + wb, 0.0) / ((1 + wb) * (1 + wb))
            block[_R + n] += (diffuse_r + specular) * visibility * red
            block[_G + n] += (diffuse_g + specular) * visibility * green
            block[_B + n] += (diffuse_b + specular) * visibility * blue
    for n in range(count):
        block[RED + n] = tone_map(block[_R + n] * exposure)
        block[GREEN + n] = tone_map(block[_G + n] * exposure)
        block[BLUE + n] = tone_map(block[_B + n] * exposure)
