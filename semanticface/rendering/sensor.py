"""From light to a file: a lens's blur, a sensor's noise and colours, a small picture enlarged, JPEG."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image

from semanticface.rendering.conditions import Conditions, Odds, odds
from semanticface.rendering.kernels import kernel

_TILE = 256
_SCALES = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.NEAREST)


@cache
def _grain() -> np.ndarray:
    """Noise of unit spread, float32[256, 256, 6], repeating: three channels of fine grain, three of coarse."""
    rng = np.random.default_rng(6)
    fine = rng.standard_normal((_TILE, _TILE, 3), dtype=np.float32)
    fine = 0.6 * fine + 0.8 * rng.standard_normal((_TILE, _TILE, 1), dtype=np.float32)  # mostly in the brightness
    coarse = rng.standard_normal((_TILE // 4, _TILE // 4, 3), dtype=np.float32).repeat(4, 0).repeat(4, 1)
    for axis in (0, 1):
        coarse = np.mean([np.roll(coarse, k, axis) for k in range(4)], 0)
    coarse -= coarse.mean(-1, keepdims=True)  # coarse noise is in the colours, as cheap noise reduction leaves it
    return np.concatenate([fine, coarse / coarse.std()], -1)


@kernel
def blur(picture, weight):  # type: ignore[no-untyped-def]
    """Three-tap blur both ways; ``weight`` (float32, up to 1/3) goes to each neighbour; below 0 it sharpens."""
    height, width = picture.shape[0], picture.shape[1]
    own = np.float32(1) - np.float32(2) * weight
    across = np.empty_like(picture)
    out = np.empty_like(picture)
    for y in range(height):
        line, into = picture[y].ravel(), across[y].ravel()
        for c in range(3):
            last = 3 * width - 3 + c
            into[c] = line[c] * own + weight * (line[c] + line[c + 3])
            into[last] = line[last] * own + weight * (line[last - 3] + line[last])
        for k in range(3, 3 * width - 3):
            into[k] = line[k] * own + weight * (line[k - 3] + line[k + 3])
    for y in range(height):
        line, into = across[y].ravel(), out[y].ravel()
        over, under = across[max(y - 1, 0)].ravel(), across[min(y + 1, height - 1)].ravel()
        for k in range(3 * width):
            into[k] = line[k] * own + weight * (over[k] + under[k])
    return out


@kernel
def _smear(picture, dx, dy, steps):  # type: ignore[no-untyped-def]
    """Mean of ``steps`` copies moved from half of (-dx, -dy) pixels to half of (dx, dy)."""
    height, width = picture.shape[0], picture.shape[1]
    out = np.zeros_like(picture)
    share = np.float32(1 / steps)
    for k in range(steps):
        t = k / (steps - 1) - 0.5
        i, j = int(np.floor(t * dx + 0.5)), int(np.floor(t * dy + 0.5))
        for y in range(height):
            line, into = picture[min(max(y + j, 0), height - 1)], out[y]
            for x in range(width):
                at = min(max(x + i, 0), width - 1)
                into[x, 0] += share * line[at, 0]
                into[x, 1] += share * line[at, 1]
                into[x, 2] += share * line[at, 2]
    return out


@kernel
def _develop(picture, grain, at, fine, coarse, saturation, gain, contrast, level, corner):  # type: ignore[no-untyped-def]
    """Vignette, saturation, cast, contrast and noise in one pass; uint8[H, W, 3]."""
    height, width = picture.shape[0], picture.shape[1]
    out = np.empty((height, width, 3), np.uint8)
    third, half, full = np.float32(1 / 3), np.float32(0.5), np.float32(255)
    inverse = np.float32(2 / max(height, width))
    for y in range(height):
        row = grain[(y + at[0]) & 255]
        v = (np.float32(y) + half) * inverse - 1
        for x in range(width):
            u = (np.float32(x) + half) * inverse - 1
            edge = 1 - corner * (u * u + v * v)
            grey = (picture[y, x, 0] + picture[y, x, 1] + picture[y, x, 2]) * third
            noise = row[(x + at[1]) & 255]
            # Dark parts are noisier, as the tone curve stretches them.
            rough = np.float32(1.35) - np.float32(0.7) * min(max(grey, np.float32(0)), np.float32(1))
            for c in range(3):
                value = (grey + (picture[y, x, c] - grey) * saturation) * gain[c] * edge
                value = (value - half) * contrast + half + level
                value += rough * (fine * noise[c] + coarse * noise[c + 3])
                out[y, x, c] = np.uint8(np.int32(min(max(value, np.float32(0)), np.float32(1)) * full + half))
    return out


def _soften(picture: np.ndarray, spread: float) -> np.ndarray:
    """Blur by a standard deviation in pixels."""
    passes = max(1, round(spread * spread / 0.6))
    weight = np.float32(min(spread * spread / passes / 2, 1 / 3))
    for _ in range(passes):
        picture = blur(picture, weight)
    return picture


def _jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    store = io.BytesIO()
    Image.fromarray(picture).save(store, "JPEG", quality=quality)
    return np.asarray(Image.open(store))


def _optics(picture: np.ndarray, rng: np.random.Generator, chances: Odds) -> np.ndarray:
    """What blurs or sharpens: focus, a moving hand, the lens itself, or a phone's eagerness."""
    unit = len(picture) / 224
    kind = rng.random()
    if kind < chances.defocus:
        return _soften(picture, unit * rng.uniform(0.8, chances.defocus_most))
    if kind < chances.defocus + chances.motion:
        way, turn = unit * rng.uniform(2.5, chances.motion_most), rng.uniform(0, np.pi)
        return _smear(picture, way * np.cos(turn), way * np.sin(turn), int(way) + 2)
    kind = rng.random()
    if kind < 0.5:
        return _soften(picture, rng.uniform(0.25, 0.85))
    return blur(picture, np.float32(-rng.uniform(0.04, 0.16))) if kind < 0.7 else picture


def _smaller(picture: np.ndarray, factor: float, scale: Image.Resampling) -> np.ndarray:
    """Shrink by a factor; float32 again."""
    small = max(16, round(len(picture) / factor))
    shown = Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))
    return np.asarray(shown.resize((small, small), scale), np.float32) / 255


def sensor(picture: np.ndarray, shot: int | None, conditions: Conditions = "usual") -> np.ndarray:
    """What a camera makes of light.

    Args:
        picture: float32[H, H, 3], sRGB, 0 to 1 and above.
        shot: seed; ``None`` leaves everything out.
        conditions: how much goes wrong.

    Returns:
        uint8[H, H, 3].
    """
    if shot is None:
        return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    rng, chances = np.random.default_rng([shot, 24]), odds(conditions)
    size = len(picture)
    picture = _optics(picture, rng, chances)
    coarse = rng.random() < chances.coarse
    if coarse:
        factor = rng.uniform(1.25, chances.coarse_most)
        picture = _smaller(picture, factor, _SCALES[rng.integers(3)])
    exposed = np.exp(rng.normal(0, 0.3 * chances.exposure))
    gain = (exposed * (1 + rng.normal(0, 0.04, 3))).astype(np.float32)
    contrast, level = np.float32(np.clip(rng.normal(1.0, 0.11), 0.7, 1.4)), np.float32(rng.normal(0, 0.03))
    kind = rng.random()
    saturation = np.float32(0.0 if kind < 0.06 else np.clip(rng.normal(1.0, 0.2), 0.2, 1.6))
    if saturation == 0 and rng.random() < 0.3:
        gain = gain * np.array([1.08, 1.0, 0.84], np.float32)  # sepia
    noise = min(rng.exponential(chances.noise), 3 * chances.noise)
    blotches = noise * rng.uniform(0, 1.2) if rng.random() < 0.4 and saturation > 0 else 0.0
    corner = np.float32(rng.uniform(0.05, 0.3) if rng.random() < 0.25 else 0.0)
    at = rng.integers(0, _TILE, 2)
    out = _develop(picture, _grain(), at, np.float32(noise), np.float32(blotches), saturation, gain, contrast, level,
                   corner)  # fmt: skip
    if rng.random() < chances.jpeg:
        out = _jpeg(out, int(rng.integers(*chances.quality)))
    if coarse:
        scale = _SCALES[rng.integers(1, 3) if rng.random() < 0.9 else 3]
        out = np.asarray(Image.fromarray(out).resize((size, size), scale))
    return out


def reprint(picture: np.ndarray, shot: int | None, conditions: Conditions = "usual") -> np.ndarray:
    """What becomes of a drawing on its way: often nothing, else other sizes, soft edges, JPEG, a film's grain.

    Args:
        picture: uint8[H, H, 3].
        shot: seed; ``None`` leaves everything out.
        conditions: how much goes wrong.

    Returns:
        uint8[H, H, 3].
    """
    chances = odds(conditions)
    if shot is None:
        return picture
    rng = np.random.default_rng([shot, 27])
    if rng.random() >= chances.print:
        return picture
    size = len(picture)
    values = np.multiply(picture, np.float32(1 / 255), dtype=np.float32)
    if rng.random() < 0.5:
        values = _optics(values, rng, chances)
    coarse = rng.random() < 2 * chances.coarse
    if coarse:
        values = _smaller(values, rng.uniform(1.25, chances.coarse_most), _SCALES[rng.integers(3)])
    noise = np.float32(min(rng.exponential(0.5 * chances.noise), 2 * chances.noise) if rng.random() < 0.4 else 0.0)
    gain = np.exp(rng.normal(0, [0.3 * chances.exposure] + [0.02] * 3))
    saturation = np.float32(0.0 if rng.random() < 0.05 else np.clip(rng.normal(1, 0.15), 0.4, 1.5))
    out = _develop(values, _grain(), rng.integers(0, _TILE, 2), noise, np.float32(0), saturation,
                   (gain[0] * gain[1:]).astype(np.float32), np.float32(np.clip(rng.normal(1, 0.08), 0.7, 1.3)),
                   np.float32(rng.normal(0, 0.02)), np.float32(0))  # fmt: skip
    if rng.random() < 1.5 * chances.jpeg:
        out = _jpeg(out, int(rng.integers(*chances.quality)))
    if coarse:
        out = np.asarray(Image.fromarray(out).resize((size, size), _SCALES[rng.integers(1, 3)]))
    return out
