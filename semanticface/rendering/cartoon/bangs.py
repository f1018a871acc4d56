"""Bangs and locks that hang over the forehead, brows and eyes of anime faces."""

from __future__ import annotations

import numpy as np
import skia

from semanticface.rendering.cartoon.geometry import depth
from semanticface.rendering.cartoon.painter import Painter
from semanticface.rendering.cartoon.style import Style, mix, shade


def _tips(style: Style, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Tips float[n, 2] of the strands and the n + 1 gaps between them, from the subject's left to the right."""
    kind = style.bangs
    n = {"spikes": 7, "curtain": 6, "straight": 11, "side": 6, "locks": 5}[kind] + int(rng.integers(-1, 2))
    gaps_x = np.linspace(0.97, -0.97, n + 1)
    gaps_x[1:-1] += rng.uniform(-0.06, 0.06, n - 1)
    middle = (gaps_x[1:] + gaps_x[:-1]) / 2
    lean = rng.uniform(-0.08, 0.08)
    drop = rng.uniform(-0.12, 0.12, n)
    if kind == "straight":
        drop *= 0.3
    if kind == "curtain":
        drop += 0.4 * (1.0 - np.abs(middle))
        lean = 0.0
        middle = middle * 1.08
    if kind == "side":
        drop += 0.3 * (0.5 + 0.5 * middle * style.nose_side)
        lean = -0.16 * style.nose_side
    tip_y = style.bangs_tip + drop
    # Tips before an eye stay at its upper edge, so that the eye can be read.
    before_eye = np.abs(np.abs(middle + lean) - style.eye_x) < 1.1 * style.eye_width
    tip_y = np.where(before_eye, np.maximum(tip_y, style.eye_y + 0.6 * style.eye_height), tip_y)
    if kind == "locks":
        tip_y[n // 2] = style.eye_y - 0.3 * style.eye_height
    # The outermost strands frame the face.
    side = rng.uniform(-0.9, 0.1)
    tip_y[[0, -1]] = side + rng.uniform(-0.1, 0.1, 2)
    tips = np.stack([middle + lean, tip_y], axis=-1)
    tips[[0, -1], 0] = 0.96, -0.96
    root = max(style.eye_y + style.eye_height + 0.08, style.brow_y - 0.02)
    gaps_y = np.maximum(root, style.bangs_tip + rng.uniform(0.1, 0.4, n + 1)) + (0.05 if kind != "straight" else -0.06)
    gaps_y = np.minimum(gaps_y, style.crown_y - 0.25)
    gaps_y[[0, -1]] = 0.35
    return tips, np.stack([gaps_x, gaps_y], axis=-1)


def _to_pixels(painter: Painter, points: np.ndarray, lift: float) -> np.ndarray:
    return painter.view.contour(np.concatenate([points, (0.8 * depth(points) + lift)[:, None]], axis=-1))


def bangs_path(painter: Painter) -> skia.Path:
    """Outline of the hair on top of the head with its strands, in pixels."""
    style = painter.style
    tips, gaps = _tips(style, np.random.default_rng([*style.detail_seed, 0xBA]))
    v, crown, side = style.hair_volume, style.crown_y, style.cheek
    half = np.array(
        [(0.64 * side + 0.6 * v, 0.9 * crown + 0.7 * v), (side + 0.7 * v, 0.5 * crown), (1.02 * side + 0.3 * v, 0.2)]
    )
    dome = np.concatenate([half[::-1] * (-1.0, 1.0), [[0.0, crown + v]], half])
    tip, gap = _to_pixels(painter, tips, 0.1), _to_pixels(painter, gaps, 0.0)
    rim = painter.view.contour(np.column_stack([dome, np.zeros(len(dome))]))
    path = skia.Path()
    path.moveTo(*rim[-1].tolist())
    for i in range(len(tip)):
        end = gap[i + 1] if i + 1 < len(tip) else rim[0]
        start = gap[i] if i > 0 else rim[-1]
        for a, b in ((start, tip[i]), (tip[i], end)):
            top = a if b is tip[i] else b
            control = 0.35 * top + 0.65 * np.array([0.7 * tip[i, 0] + 0.3 * top[0], 0.5 * (tip[i, 1] + top[1])])
            path.quadTo(*control.tolist(), *b.tolist())
    padded = np.concatenate([rim[:1], rim, rim[-1:]])
    for a, b, c, d in zip(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], strict=True):
        path.cubicTo(*(b + (c - a) / 6).tolist(), *(c - (d - b) / 6).tolist(), *c.tolist())
    path.close()
    return path


def paint_bangs_shadow(painter: Painter, head: skia.Path) -> None:
    """Paint the shadow of the bangs on the head."""
    if painter.style.bangs == "none":
        return
    path = bangs_path(painter)
    path.offset(0.0, 0.07 * painter.view.scale)
    painter.canvas.save()
    painter.canvas.clipPath(head, skia.ClipOp.kIntersect, True)
    painter.fill(path, shade(painter.style.skin, 0.84), 0.8)
    painter.canvas.restore()


def paint_bangs(painter: Painter) -> None:
    """Paint the hair on top of the head with its bangs."""
    style = painter.style
    path = bangs_path(painter)
    painter.fill(path, style.hair_colour)
    if style.hair_shine:
        y = 0.72 * style.crown_y
        x = np.linspace(-0.75, 0.75, 13)
        zigzag = y - 0.22 * x**2 + 0.05 * (np.arange(13) % 2)
        edge = np.concatenate([np.stack([x, zigzag + 0.09], axis=-1), np.stack([x, zigzag - 0.03], axis=-1)[::-1]])
        shine = [skia.Point(*at) for at in _to_pixels(painter, edge, 0.1).tolist()]
        painter.fill(skia.Path.Polygon(shine, True), mix(style.hair_colour, (1.0, 1.0, 1.0), 0.45))
    if style.contour:
        painter.stroke(path, style.ink, 0.8 * style.line)
