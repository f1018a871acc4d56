"""Light, background and sensor of a shot: everything about a photograph that is not the head."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from semanticface.face.compiled import kernel
from semanticface.face.scratch import scratch


@dataclass(frozen=True, slots=True, eq=False)
class Lights:
    """Lights in camera space, linear RGB.

    Attributes:
        directions: float32[3, 3], unit vectors towards key, fill and rim light.
        colours: float32[3, 3].
        sky, ground: float32[3], ambient light from above and below.
        soft: 0 (hard shadow) to 1 (no shadow).
        exposure: gain before the tone curve.
    """

    directions: np.ndarray
    colours: np.ndarray
    sky: np.ndarray
    ground: np.ndarray
    soft: float
    exposure: float


def _towards(azimuth: float, height: float) -> np.ndarray:
    a, h = np.radians([azimuth, height])
    return np.array([np.sin(a) * np.cos(h), np.sin(h), np.cos(a) * np.cos(h)])


def _tint(rng: np.random.Generator, warm: float) -> np.ndarray:
    """White from warm (1) to cold (-1), luminance about 1."""
    c = np.array([1 + 0.28 * warm, 1.0, 1 - 0.34 * warm]) * rng.normal(1, 0.03, 3)
    return c / c.mean()


def lights(shot: int | None) -> Lights:
    """The lights of a shot; ``None`` is a plain soft portrait light."""
    if shot is None:
        directions = np.stack([_towards(-32, 32), _towards(48, 8), _towards(150, 35)])
        colours = np.array([[1.75, 1.7, 1.62], [0.5, 0.52, 0.56], [0.4, 0.4, 0.42]])
        return Lights(directions.astype(np.float32), colours.astype(np.float32), np.full(3, 0.50, np.float32),
                      np.full(3, 0.30, np.float32), 0.35, 0.80)  # fmt: skip
    rng = np.random.default_rng([shot, 22])
    side = rng.normal(0, 42)
    key = _towards(np.clip(side, -100, 100), np.clip(rng.normal(32, 20), -25, 80))
    fill = _towards(-np.sign(side) * rng.uniform(20, 80), rng.uniform(-15, 35))
    rim = _towards(rng.choice([-1, 1]) * rng.uniform(115, 165), rng.uniform(0, 60))
    warm = rng.normal(0, 0.45)
    contrast = rng.beta(2, 2)
    colours = np.stack([
        _tint(rng, warm) * (0.9 + 1.3 * contrast),
        _tint(rng, rng.normal(-0.3 * warm, 0.4)) * rng.uniform(0.1, 0.8) * (1.1 - contrast),
        _tint(rng, rng.normal(0, 0.6)) * rng.exponential(0.6),
    ])  # fmt: skip
    if rng.random() < 0.1:
        row = rng.integers(3)
        colours[row] *= rng.dirichlet([1.2, 1.2, 1.2]) * 3
    sky = _tint(rng, rng.normal(-0.1, 0.4)) * (0.15 + 0.65 * (1 - contrast)) * rng.uniform(0.6, 1.3)
    ground = sky * rng.uniform(0.3, 0.9) * _tint(rng, rng.normal(0.2, 0.2))
    # Metered as a camera does: the brighter the scene, the lower the gain, with an error of about a third of a stop.
    energy = colours[0].mean() * 0.55 + colours[1].mean() * 0.4 + sky.mean() * 0.7 + ground.mean() * 0.3
    exposure = 1.45 / energy * np.exp(rng.normal(-0.12, 0.2))
    return Lights(directions=np.stack([key, fill, rim]).astype(np.float32), colours=colours.astype(np.float32),
                  sky=sky.astype(np.float32), ground=ground.astype(np.float32), soft=float(rng.uniform(0.05, 0.85)),
                  exposure=float(exposure))  # fmt: skip


def background(shot: int | None, size: int) -> np.ndarray:
    """A picture behind the head, float32[size, size, 3], sRGB in [0, 1]."""
    if shot is None:
        shade = np.linspace(0.66, 0.52, size, dtype=np.float32)[:, None, None]
        return np.broadcast_to(shade * np.array([0.94, 1.0, 1.06], np.float32), (size, size, 3)).copy()
    rng = np.random.default_rng([shot, 23])
    small = 72
    kind = rng.choice(["gradient", "noise", "shapes", "room", "plain"], p=[0.2, 0.17, 0.25, 0.26, 0.12])
    tone = rng.uniform(10, 245, 3) if rng.random() < 0.15 else rng.uniform(15, 235) + rng.normal(0, 22, 3)
    other = np.clip(tone * rng.uniform(0.3, 1.5) + rng.normal(0, 30, 3), 0, 255)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:small, 0:small] / (small - 1) - 0.5
    ramp = np.clip(0.5 + (x * np.cos(angle) + y * np.sin(angle)), 0, 1)[..., None]
    base = tone + (other - tone) * ramp if kind != "plain" else np.broadcast_to(tone, (small, small, 3))
    picture = Image.fromarray(np.clip(base, 0, 255).astype(np.uint8))
    if kind == "noise":
        total = np.zeros((small, small, 3))
        for cells in (3, 6, 12, 24):
            grain = rng.integers(0, 256, (cells, cells, 1)) + rng.integers(-60, 61, (cells, cells, 3))
            layer = Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8))
            total += np.asarray(layer.resize((small, small), Image.Resampling.BICUBIC), float) / cells**0.6
        total = (total - total.mean()) / total.std() * rng.uniform(12, 50)
        picture = Image.fromarray(np.clip(np.asarray(picture, float) + total, 0, 255).astype(np.uint8))
    elif kind in ("shapes", "room"):
        draw = ImageDraw.Draw(picture)
        for _ in range(int(rng.integers(4, 16))):
            shade = rng.choice([tone, other]) * rng.uniform(0.4, 1.7) + rng.normal(0, 25, 3)
            colour = tuple(int(c) for c in np.clip(shade, 0, 255))
            cx, cy = rng.uniform(-5, small + 5, 2)
            if kind == "room":
                w, h = rng.exponential(14) + 2, rng.exponential(22) + 3
                draw.rectangle([cx - w, cy - h, cx + w, cy + h], fill=colour)
            else:
                w, h = rng.exponential(9, 2) + 1.5
                if rng.random() < 0.6:
                    draw.ellipse([cx - w, cy - h, cx + w, cy + h], fill=colour)
                else:
                    corners = rng.uniform(-w - h, w + h, (3, 2)) + np.array([cx, cy])
                    draw.polygon([tuple(corner) for corner in corners], fill=colour)
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.exponential(1.2))))
    picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    return np.multiply(np.asarray(picture), np.float32(1 / 255), dtype=np.float32)


@kernel
def blur(picture, weight):  # type: ignore[no-untyped-def]
    """Three-tap blur both ways; ``weight`` (float32, 0 to 1/3) goes to each neighbour."""
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
def _develop(picture, noise, amount, saturation, gain, contrast, level):  # type: ignore[no-untyped-def]
    """Saturation, cast, contrast and noise in one pass; uint8[H, W, 3]."""
    height, width = picture.shape[0], picture.shape[1]
    out = np.empty((height, width, 3), np.uint8)
    third, half, full = np.float32(1 / 3), np.float32(0.5), np.float32(255)
    for y in range(height):
        for x in range(width):
            grey = (picture[y, x, 0] + picture[y, x, 1] + picture[y, x, 2]) * third
            for c in range(3):
                value = (grey + (picture[y, x, c] - grey) * saturation) * gain[c]
                value = (value - half) * contrast + half + level + amount * noise[y, x, c]
                out[y, x, c] = np.uint8(np.int32(min(max(value, np.float32(0)), np.float32(1)) * full + half))
    return out


def sensor(picture: np.ndarray, shot: int | None) -> np.ndarray:
    """What a camera makes of it: blur, colour cast, contrast, noise, sometimes JPEG; uint8[H, W, 3]."""
    if shot is None:
        return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    rng = np.random.default_rng([shot, 24])
    if rng.random() < 0.6:
        for _ in range(int(rng.integers(1, 3))):
            picture = blur(picture, np.float32(rng.uniform(0.03, 0.26)))
    gain = (1 + rng.normal(0, 0.035, 3)).astype(np.float32)
    contrast, level = np.float32(rng.normal(1.0, 0.09)), np.float32(rng.normal(0, 0.025))
    saturation = np.float32(np.clip(rng.normal(1.0, 0.18), 0, 1.6)) if rng.random() > 0.04 else np.float32(0)
    amount = np.float32(min(rng.exponential(0.009), 0.035))
    noise = scratch("grain", picture.shape)
    rng.standard_normal(dtype=np.float32, out=noise)
    out = _develop(picture, noise, amount, saturation, gain, contrast, level)
    if rng.random() < 0.3:
        store = io.BytesIO()
        Image.fromarray(out).save(store, "JPEG", quality=int(rng.integers(35, 92)))
        out = np.asarray(Image.open(store))
    return out
