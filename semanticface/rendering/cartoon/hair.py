"""Hair, beards, necks and shirts of drawn faces."""

from __future__ import annotations

import numpy as np
import skia

from semanticface.rendering.cartoon.canvas import band, spline
from semanticface.rendering.cartoon.geometry import SIDES, depth
from semanticface.rendering.cartoon.painter import Painter
from semanticface.rendering.cartoon.style import shade

_BEHIND = {"bob", "long", "afro", "tails", "bun", "curly"}


def _on_head(points: np.ndarray) -> np.ndarray:
    """Add the depth of the head's surface to points ``[n, 2]``."""
    return np.concatenate([points, 0.8 * depth(points)[:, None]], axis=-1)


def _fill_hair(painter: Painter, path: skia.Path, factor: float = 1.0, alpha: float = 1.0) -> None:
    style = painter.style
    painter.fill(path, shade(style.hair_colour, factor), alpha)
    if style.contour:
        painter.stroke(path, style.ink, 0.8 * style.line)


def paint_body(painter: Painter) -> None:
    """Paint what is behind the head: long hair, neck, shoulders."""
    style, view = painter.style, painter.view
    v, low = style.hair_volume, style.chin_y
    if style.hair in _BEHIND:
        far = {"bob": low + 0.1, "long": low - 0.75, "curly": -0.3}.get(style.hair)
        if style.hair == "afro":
            t = np.linspace(0, 2 * np.pi, 14, endpoint=False)
            ring = np.stack([(1.25 + v) * np.cos(t), 0.45 + (1.15 + v) * np.sin(t), np.full(14, -0.2)], axis=-1)
            _fill_hair(painter, spline(view.contour(ring), closed=True), 0.9)
        elif style.hair == "bun":
            t = np.linspace(0, 2 * np.pi, 10, endpoint=False)
            ring = np.stack([0.36 * np.cos(t), style.crown_y + 0.2 + 0.32 * np.sin(t), np.full(10, -0.2)], axis=-1)
            _fill_hair(painter, spline(view.contour(ring), closed=True), 0.9)
        elif style.hair == "tails":
            for _, sign in SIDES:
                tail = np.array(
                    [
                        (0.9, 0.55, -0.1),
                        (1.5 + v, 0.6, -0.2),
                        (1.6 + v, -0.3, -0.2),
                        (1.3, -0.9, -0.2),
                        (1.15, -0.1, -0.1),
                    ]
                )
                tail[:, 0] *= sign
                _fill_hair(painter, spline(view.contour(tail), closed=True), 0.9)
        elif far is not None:
            reach = 1.08 + v
            fall = np.array(
                [(0.0, style.crown_y + v), (0.8, 0.95), (reach, 0.3), (reach + 0.04, 0.4 * far), (reach - 0.1, far),
                 (0.0, far + 0.1), (-reach + 0.1, far), (-reach - 0.04, 0.4 * far), (-reach, 0.3), (-0.8, 0.95)]
            )  # fmt: skip
            _fill_hair(painter, spline(view.contour(np.column_stack([fall, np.full(10, -0.2)])), closed=True), 0.85)
    # The neck is attached to the skull, so an opening jaw moves in front of it.
    wide = style.neck
    neck = np.array([(wide, -0.6, -0.15), (wide + 0.02, low - 0.25, -0.2), (wide + 0.18, low - 0.7, -0.3)])
    mirrored = neck * (-1.0, 1.0, 1.0)
    path = band(view.contour(neck), view.contour(mirrored))
    painter.fill(path, shade(style.skin, 0.86))
    if style.contour:
        for side in (neck, mirrored):
            painter.stroke(spline(view.contour(side)), style.ink, style.line)
    for name, sign in SIDES:
        alpha = painter.value(f"mouthStretch{name}")
        if alpha > 0.03:
            tendon = np.array([(sign * 0.3, low - 0.05, -0.1), (sign * 0.18, low - 0.5, -0.2)])
            painter.stroke(spline(view.contour(tendon)), style.ink, 0.8 * style.line, alpha)
    shoulders = np.array(
        [(-2.6, low - 7.0), (-2.2, low - 2.2), (-1.75, low - 0.95), (-0.62, low - 0.50), (0.0, low - 0.66),
         (0.62, low - 0.50), (1.75, low - 0.95), (2.2, low - 2.2), (2.6, low - 7.0)]
    )  # fmt: skip
    path = spline(view.contour(np.column_stack([shoulders, np.full(9, -0.3)])))
    path.close()
    painter.fill(path, style.shirt)
    if style.contour:
        painter.stroke(path, style.ink, style.line)


def paint_hair(painter: Painter) -> None:
    """Paint the hair on top of the head; brows are drawn over it later."""
    style, view = painter.style, painter.view
    kind = style.hair
    if kind == "none":
        return
    v = 0.02 if kind == "buzz" else style.hair_volume
    crown = style.crown_y
    side = style.cheek
    outer = np.array(
        [(1.02 * side, 0.12), (1.0 * side + 0.6 * v, 0.46 * crown), (0.64 * side + 0.6 * v, 0.88 * crown + 0.7 * v),
         (0.0, crown + v), (-0.64 * side - 0.6 * v, 0.88 * crown + 0.7 * v), (-1.0 * side - 0.6 * v, 0.46 * crown),
         (-1.02 * side, 0.12)]
    )  # fmt: skip
    height = min(style.brow_y + 0.44, crown - 0.2)
    line = {
        "fringe": [(-0.93, 0.25), (-0.86, height - 0.2), (-0.5, height - 0.16), (-0.3, height - 0.08),
                   (0.0, height - 0.18), (0.3, height - 0.08), (0.6, height - 0.17), (0.86, height - 0.2),
                   (0.93, 0.25)],
        "parted": [(-0.94, 0.2), (-0.88, 0.6 * height), (-0.35, height + 0.12), (0.1, height), (0.6, height - 0.12),
                   (0.9, 0.5 * height), (0.94, 0.2)],
        "widow": [(-0.95, 0.25), (-0.8, height - 0.1), (-0.45, height + 0.16), (0.0, height - 0.12),
                  (0.45, height + 0.16), (0.8, height - 0.1), (0.95, 0.25)]
    }.get(kind, [(-0.95, 0.22), (-0.85, height - 0.22), (-0.45, height), (0.0, height + 0.05), (0.45, height),
                 (0.85, height - 0.22), (0.95, 0.22)])  # fmt: skip
    hairline = np.array(line) * (style.nose_side * side if kind == "parted" else side, 1.0)
    if hairline[0, 0] < 0:
        hairline = hairline[::-1]  # from the subject's left to the right, as ``outer`` runs
    if kind in ("mohawk", "spiky"):
        _spikes(painter, outer if kind == "spiky" else None, hairline, height)
        return
    far = view.contour(np.column_stack([outer, np.zeros(len(outer))]))
    _fill_hair(
        painter,
        band(far, view.contour(_on_head(hairline))),
        1.0,
        0.75 if kind == "buzz" else 1.0,
    )
    if kind == "curly":
        rng = np.random.default_rng(style.detail_seed)
        for x, y in np.concatenate([outer, hairline[1:-1] + np.array([0.0, 0.1])]):
            centre = (
                view.contour(_on_head(np.array([[x, max(y, 0.3)]])))[0]
                if abs(x) < 0.6
                else view.contour(np.array([[x, y, 0.0]]))[0]
            )
            curl = skia.Path.Circle(*centre.tolist(), rng.uniform(0.13, 0.2) * view.scale)
            _fill_hair(painter, curl, rng.uniform(0.9, 1.1))


def _spikes(painter: Painter, outer: np.ndarray | None, hairline: np.ndarray, height: float) -> None:
    style, view = painter.style, painter.view
    rng = np.random.default_rng(style.detail_seed)
    long = 0.18 + style.hair_volume
    if outer is None:
        x = np.linspace(-0.22, 0.22, 7)
        y = np.where(np.arange(7) % 2, style.crown_y + long + 0.15, style.crown_y - 0.02)
        base = np.array([(0.2, height + 0.05), (0.0, height - 0.05), (-0.2, height + 0.05)])
        tips = np.column_stack([x, y, np.zeros(7)])
    else:
        steps = np.linspace(0, len(outer) - 1, 17)
        rim = np.stack([np.interp(steps, np.arange(len(outer)), outer[:, i]) for i in (0, 1)], axis=-1)
        push = np.where(np.arange(17) % 2, 1.0 + long * rng.uniform(0.5, 1.1, 17), 1.0)
        tips = np.column_stack([rim * push[:, None], np.zeros(17)])
        base = hairline[::-1]
    zigzag = np.concatenate([view.contour(tips), view.contour(_on_head(base))])
    path = skia.Path.Polygon([skia.Point(*point) for point in zigzag.tolist()], True)
    _fill_hair(painter, path)


def paint_beard(painter: Painter) -> None:
    """Paint a beard below the lines of mouth and chin, so that it hides none of them."""
    style, view, shape = painter.style, painter.view, painter.shape
    kind = style.beard
    if kind == "none":
        return
    mouth = shape.mouth
    if kind != "stubble":
        lip = mouth.outer_upper[1:-1]
        rise = 0.10 * np.clip(1.0 - np.linspace(-1, 1, len(lip)) ** 4, 0.2, 1.0)
        path = band(
            view.on_face(lip + np.stack([np.zeros(len(lip)), rise], axis=-1), 0.06),
            view.on_face(lip - (0.0, 0.01), 0.06),
        )
        painter.fill(path, style.hair_colour, 0.85)
    if kind in ("stubble", "full"):
        rim = view.contour(shape.outline[4:13])
        (left, left_y), (right, right_y) = mouth.inner_upper[-1].tolist(), mouth.inner_upper[0].tolist()
        inner = np.array(
            [(0.97, -0.22), (0.80, -0.50), (left + 0.13, left_y + 0.1), (0.0, mouth.outer_upper[6, 1] + 0.06),
             (right - 0.13, right_y + 0.1), (-0.80, -0.50), (-0.97, -0.22)]
        )  # fmt: skip
        painter.fill(band(rim, view.on_face(inner)), style.hair_colour, 0.28 if kind == "stubble" else 0.85)
    if kind == "goatee":
        x, y = shape.chin.tolist()
        patch = np.array(
            [(x - 0.22, y + 0.05), (x, y + 0.09), (x + 0.22, y + 0.05), (x + 0.16, y - 0.17), (x - 0.16, y - 0.17)]
        )
        painter.fill(spline(view.on_face(patch), closed=True), style.hair_colour, 0.85)
