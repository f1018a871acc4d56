"""Drawing on a skia canvas: projection of the head, smooth curves, strokes and fills."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import skia

from semanticface.rendering.cartoon.geometry import depth
from semanticface.rendering.cartoon.style import Colour, Style


@dataclass(frozen=True, slots=True)
class View:
    """Rotation and position of the head in the image: parallel projection.

    Attributes:
        yaw, pitch, roll: radians, with the signs of ``camera.Camera``.
        scale: pixels per unit.
        x, y: pixel of the head's origin.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    scale: float = 1.0
    x: float = 0.0
    y: float = 0.0

    def _to_pixels(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        c, s = np.cos(self.roll), np.sin(self.roll)
        return np.stack([self.x + self.scale * (c * x + s * y), self.y - self.scale * (c * y - s * x)], axis=-1)

    def on_face(self, points: np.ndarray, offset: float | np.ndarray = 0.0) -> np.ndarray:
        """Pixels of points ``[n, 2]`` on the face, ``offset`` in front of its surface."""
        x, y, z = points[:, 0], points[:, 1], depth(points) + offset
        across = x * np.cos(self.yaw) + z * np.sin(self.yaw)
        inward = z * np.cos(self.yaw) - x * np.sin(self.yaw)
        return self._to_pixels(across, y * np.cos(self.pitch) + inward * np.sin(self.pitch))

    def contour(self, points: np.ndarray) -> np.ndarray:
        """Pixels of silhouette points ``[n, 3]``, which rotation shifts by their depth without narrowing."""
        return self._to_pixels(
            points[:, 0] + points[:, 2] * np.sin(self.yaw), points[:, 1] + points[:, 2] * np.sin(self.pitch)
        )


def spline(points: np.ndarray, closed: bool = False) -> skia.Path:
    """A Catmull-Rom curve through pixels ``[n, 2]``."""
    if closed:
        padded = np.concatenate([points[-1:], points, points[:2]])
    else:
        padded = np.concatenate([points[:1], points, points[-1:]])
    starts, ends = padded[1:-2], padded[2:-1]
    first = (starts + (ends - padded[:-3]) / 6.0).tolist()
    second = (ends - (padded[3:] - starts) / 6.0).tolist()
    path = skia.Path()
    path.moveTo(*points[0].tolist())
    for a, b, c in zip(first, second, ends.tolist(), strict=True):
        path.cubicTo(*a, *b, *c)
    if closed:
        path.close()
    return path


def band(upper: np.ndarray, lower: np.ndarray) -> skia.Path:
    """The closed path between two curves, with corners where they meet."""
    path = spline(upper)
    back = spline(lower[::-1])
    path.addPath(back, skia.Path.AddPathMode.kExtend_AddPathMode)
    path.close()
    return path


def skia_colour(colour: Colour, alpha: float = 1.0) -> int:
    r, g, b = (int(255 * min(1.0, max(0.0, part)) + 0.5) for part in colour)
    return skia.ColorSetARGB(int(255 * min(1.0, max(0.0, alpha)) + 0.5), r, g, b)


@dataclass(slots=True)
class Pen:
    """Draws on one canvas, with one view and style."""

    canvas: skia.Canvas
    view: View
    style: Style

    def fill(self, path: skia.Path, colour: Colour, alpha: float = 1.0) -> None:
        self.canvas.drawPath(path, skia.Paint(Color=skia_colour(colour, alpha), AntiAlias=True))

    def stroke(self, path: skia.Path, colour: Colour, weight: float, alpha: float = 1.0) -> None:
        paint = skia.Paint(
            Color=skia_colour(colour, alpha),
            AntiAlias=True,
            Style=skia.Paint.kStroke_Style,
            StrokeWidth=weight * self.view.scale,
            StrokeCap=skia.Paint.kRound_Cap,
            StrokeJoin=skia.Paint.kRound_Join,
        )
        self.canvas.drawPath(path, paint)

    def face_line(
        self, points: list[tuple[float, float]], alpha: float, weight: float = 0.8, offset: float = 0.0
    ) -> None:
        """A crease: an ink line on the face that fades in with ``alpha``."""
        if alpha > 0.03:
            path = spline(self.view.on_face(np.array(points), offset))
            self.stroke(path, self.style.ink, weight * max(self.style.line, 0.024), min(1.0, 0.15 + 0.85 * alpha))

    def disc(self, centre: np.ndarray, radius: float, colour: Colour, alpha: float, offset: float = 0.0) -> None:
        x, y = self.view.on_face(centre[None], offset)[0].tolist()
        self.canvas.drawCircle(
            x, y, radius * self.view.scale, skia.Paint(Color=skia_colour(colour, alpha), AntiAlias=True)
        )
