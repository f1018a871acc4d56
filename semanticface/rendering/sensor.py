"""Camera effects after shading: lens blur, sensor noise and colour, low resolution, JPEG."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image

from semanticface.rendering.conditions import Conditions, ConditionSettings, condition_settings
from semanticface.rendering.kernels import kernel

_TILE_SIZE = 256
_RESAMPLERS = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.NEAREST)


@cache
def _noise_tile() -> np.ndarray:
    """Tileable noise of unit variance, float32[256, 256, 6]: three channels of fine grain, three of coarse."""
    rng = np.random.default_rng(6)
    fine = rng.standard_normal((_TILE_SIZE, _TILE_SIZE, 3), dtype=np.float32)
    # Fine grain is mostly luminance noise.
    fine = 0.6 * fine + 0.8 * rng.standard_normal((_TILE_SIZE, _TILE_SIZE, 1), dtype=np.float32)
    coarse = rng.standard_normal((_TILE_SIZE // 4, _TILE_SIZE // 4, 3), dtype=np.float32).repeat(4, 0).repeat(4, 1)
    for axis in (0, 1):
        coarse = np.mean([np.roll(coarse, k, axis) for k in range(4)], 0)
    coarse -= coarse.mean(-1, keepdims=True)  # chroma noise alone, as denoising leaves it
    return np.concatenate([fine, coarse / coarse.std()], -1)


@kernel
def blur(image, weight):  # type: ignore[no-untyped-def]
    """Separable 3-tap blur; each neighbour weighs ``weight`` (float32, up to 1/3); negative values sharpen."""
    height, width = image.shape[0], image.shape[1]
    centre_weight = np.float32(1) - np.float32(2) * weight
    across = np.empty_like(image)
    out = np.empty_like(image)
    for y in range(height):
        row, target = image[y].ravel(), across[y].ravel()
        for c in range(3):
            last = 3 * width - 3 + c
            target[c] = row[c] * centre_weight + weight * (row[c] + row[c + 3])
            target[last] = row[last] * centre_weight + weight * (row[last - 3] + row[last])
        for k in range(3, 3 * width - 3):
            target[k] = row[k] * centre_weight + weight * (row[k - 3] + row[k + 3])
    for y in range(height):
        row, target = across[y].ravel(), out[y].ravel()
        above, below = across[max(y - 1, 0)].ravel(), across[min(y + 1, height - 1)].ravel()
        for k in range(3 * width):
            target[k] = row[k] * centre_weight + weight * (above[k] + below[k])
    return out


@kernel
def _motion_blur(image, dx, dy, steps):  # type: ignore[no-untyped-def]
    """Mean of ``steps`` copies shifted from -(dx, dy) / 2 to (dx, dy) / 2 pixels."""
    height, width = image.shape[0], image.shape[1]
    out = np.zeros_like(image)
    weight = np.float32(1 / steps)
    for k in range(steps):
        t = k / (steps - 1) - 0.5
        i, j = int(np.floor(t * dx + 0.5)), int(np.floor(t * dy + 0.5))
        for y in range(height):
            row, target = image[min(max(y + j, 0), height - 1)], out[y]
            for x in range(width):
                offset = min(max(x + i, 0), width - 1)
                target[x, 0] += weight * row[offset, 0]
                target[x, 1] += weight * row[offset, 1]
                target[x, 2] += weight * row[offset, 2]
    return out


@kernel
def _develop(image, noise_tile, offset, fine, coarse, saturation, gain, contrast, brightness, vignette):  # type: ignore[no-untyped-def]
    """Vignette, saturation, white balance, contrast and noise in one loop; uint8[H, W, 3]."""
    height, width = image.shape[0], image.shape[1]
    out = np.empty((height, width, 3), np.uint8)
    third, half, full = np.float32(1 / 3), np.float32(0.5), np.float32(255)
    inverse = np.float32(2 / max(height, width))
    for y in range(height):
        row = noise_tile[(y + offset[0]) & 255]
        v = (np.float32(y) + half) * inverse - 1
        for x in range(width):
            u = (np.float32(x) + half) * inverse - 1
            edge = 1 - vignette * (u * u + v * v)
            grey = (image[y, x, 0] + image[y, x, 1] + image[y, x, 2]) * third
            noise = row[(x + offset[1]) & 255]
            # Dark pixels are noisier: the tone curve stretches them.
            noise_gain = np.float32(1.35) - np.float32(0.7) * min(max(grey, np.float32(0)), np.float32(1))
            for c in range(3):
                value = (grey + (image[y, x, c] - grey) * saturation) * gain[c] * edge
                value = (value - half) * contrast + half + brightness
                value += noise_gain * (fine * noise[c] + coarse * noise[c + 3])
                out[y, x, c] = np.uint8(np.int32(min(max(value, np.float32(0)), np.float32(1)) * full + half))
    return out


def _gaussian_blur(image: np.ndarray, spread: float) -> np.ndarray:
    """Approximate a Gaussian blur of a standard deviation in pixels."""
    passes = max(1, round(spread * spread / 0.6))
    weight = np.float32(min(spread * spread / passes / 2, 1 / 3))
    for _ in range(passes):
        image = blur(image, weight)
    return image


def _jpeg_round_trip(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def _optics(image: np.ndarray, rng: np.random.Generator, settings: ConditionSettings) -> np.ndarray:
    """Defocus, motion blur, lens softness or sharpening."""
    unit = len(image) / 224
    kind = rng.random()
    if kind < settings.defocus:
        return _gaussian_blur(image, unit * rng.uniform(0.8, settings.defocus_max))
    if kind < settings.defocus + settings.motion:
        length, angle = unit * rng.uniform(2.5, settings.motion_max), rng.uniform(0, np.pi)
        return _motion_blur(image, length * np.cos(angle), length * np.sin(angle), int(length) + 2)
    kind = rng.random()
    if kind < 0.5:
        return _gaussian_blur(image, rng.uniform(0.25, 0.85))
    return blur(image, np.float32(-rng.uniform(0.04, 0.16))) if kind < 0.7 else image


def _downscale(image: np.ndarray, factor: float, resampler: Image.Resampling) -> np.ndarray:
    side = max(16, round(len(image) / factor))
    pixels = Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8))
    return np.asarray(pixels.resize((side, side), resampler), np.float32) / 255


def simulate_sensor(image: np.ndarray, shot: int | None, conditions: Conditions = "usual") -> np.ndarray:
    """Turn shaded light into a camera image.

    Args:
        image: float32[H, H, 3], sRGB, may exceed 1.
        shot: seed; ``None`` applies no effect.
        conditions: how strong the effects are.

    Returns:
        uint8[H, H, 3].
    """
    if shot is None:
        return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    rng, settings = np.random.default_rng([shot, 24]), condition_settings(conditions)
    size = len(image)
    image = _optics(image, rng, settings)
    low_res = rng.random() < settings.low_res
    if low_res:
        factor = rng.uniform(1.25, settings.low_res_max)
        image = _downscale(image, factor, _RESAMPLERS[rng.integers(3)])
    exposure = np.exp(rng.normal(0, 0.3 * settings.exposure_std))
    gain = (exposure * (1 + rng.normal(0, 0.04, 3))).astype(np.float32)
    contrast, brightness = np.float32(np.clip(rng.normal(1.0, 0.11), 0.7, 1.4)), np.float32(rng.normal(0, 0.03))
    kind = rng.random()
    saturation = np.float32(0.0 if kind < 0.06 else np.clip(rng.normal(1.0, 0.2), 0.2, 1.6))
    if saturation == 0 and rng.random() < 0.3:
        gain = gain * np.array([1.08, 1.0, 0.84], np.float32)  # sepia
    noise = min(rng.exponential(settings.noise_mean), 3 * settings.noise_mean)
    colour_noise = noise * rng.uniform(0, 1.2) if rng.random() < 0.4 and saturation > 0 else 0.0
    vignette = np.float32(rng.uniform(0.05, 0.3) if rng.random() < 0.25 else 0.0)
    offset = rng.integers(0, _TILE_SIZE, 2)
    out = _develop(image, _noise_tile(), offset, np.float32(noise), np.float32(colour_noise), saturation, gain,
                   contrast, brightness, vignette)  # fmt: skip
    if rng.random() < settings.jpeg:
        out = _jpeg_round_trip(out, int(rng.integers(*settings.jpeg_quality)))
    if low_res:
        resampler = _RESAMPLERS[rng.integers(1, 3) if rng.random() < 0.9 else 3]
        out = np.asarray(Image.fromarray(out).resize((size, size), resampler))
    return out


def degrade_drawing(image: np.ndarray, shot: int | None, conditions: Conditions = "usual") -> np.ndarray:
    """Degrade a drawing: often not at all, else blur, low resolution, noise, colour and JPEG.

    Args:
        image: uint8[H, H, 3].
        shot: seed; ``None`` changes nothing.
        conditions: how strong the effects are.

    Returns:
        uint8[H, H, 3].
    """
    settings = condition_settings(conditions)
    if shot is None:
        return image
    rng = np.random.default_rng([shot, 27])
    if rng.random() >= settings.drawing_loss:
        return image
    size = len(image)
    values = np.multiply(image, np.float32(1 / 255), dtype=np.float32)
    if rng.random() < 0.5:
        values = _optics(values, rng, settings)
    low_res = rng.random() < 2 * settings.low_res
    if low_res:
        values = _downscale(values, rng.uniform(1.25, settings.low_res_max), _RESAMPLERS[rng.integers(3)])
    noise = np.float32(
        min(rng.exponential(0.5 * settings.noise_mean), 2 * settings.noise_mean) if rng.random() < 0.4 else 0.0
    )
    gain = np.exp(rng.normal(0, [0.3 * settings.exposure_std] + [0.02] * 3))
    saturation = np.float32(0.0 if rng.random() < 0.05 else np.clip(rng.normal(1, 0.15), 0.4, 1.5))
    out = _develop(values, _noise_tile(), rng.integers(0, _TILE_SIZE, 2), noise, np.float32(0), saturation,
                   (gain[0] * gain[1:]).astype(np.float32), np.float32(np.clip(rng.normal(1, 0.08), 0.7, 1.3)),
                   np.float32(rng.normal(0, 0.02)), np.float32(0))  # fmt: skip
    if rng.random() < 1.5 * settings.jpeg:
        out = _jpeg_round_trip(out, int(rng.integers(*settings.jpeg_quality)))
    if low_res:
        out = np.asarray(Image.fromarray(out).resize((size, size), _RESAMPLERS[rng.integers(1, 3)]))
    return out
