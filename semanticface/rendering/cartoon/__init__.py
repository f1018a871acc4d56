"""The drawn style: a flat cartoon face in lines and fills that shows all 52 actions.

It has no mesh, so a model that reads it has learnt expressions rather than one renderer. Lids, lips, brows and the jaw
move; creases, dimples and bulges appear with their action.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import PIL.Image
import skia

from semanticface.arkit import gaze_degrees, pose_of
from semanticface.errors import ConfigError
from semanticface.rendering.camera import Framing, square_box
from semanticface.rendering.cartoon.anime import style_of
from semanticface.rendering.cartoon.bangs import paint_bangs, paint_bangs_shadow
from semanticface.rendering.cartoon.canvas import View, skia_colour
from semanticface.rendering.cartoon.geometry import SIDES, Shape, face_shape
from semanticface.rendering.cartoon.hair import paint_beard, paint_body, paint_hair
from semanticface.rendering.cartoon.painter import Painter
from semanticface.rendering.cartoon.style import Colour, Style, mix, shade, vivid, with_blush
from semanticface.rendering.conditions import Conditions
from semanticface.rendering.sensor import degrade_drawing
from semanticface.rendering.types import POINTS, Rendered

_PLAIN_BACKGROUND: Colour = (0.80, 0.85, 0.90)
# Standard deviation and limit of yaw, pitch and roll in degrees; a flat face cannot turn as far as a head.
_TURNS = {"usual": ((13, 32), (7, 20), (6, 25)), "hard": ((19, 38), (11, 24), (10, 35))}


def _place_view(
    neutral: Shape,
    style: Style,
    shot: int | None,
    size: int,
    framing: Framing,
    conditions: Conditions,
    turn: tuple[float, float, float],
) -> tuple[View, np.ndarray]:
    """Sample the view of the head; return it and the box of the neutral face."""
    limits = [limit for _, limit in _TURNS["hard"]]
    view = View(*np.radians(np.clip(turn, np.negative(limits), limits)).tolist())
    fraction, shift, jitter, zoom = 0.72, np.zeros(2), np.zeros(2), 1.0
    if shot is not None:
        rng = np.random.default_rng([shot, 0xD7])
        far = _TURNS[conditions]
        yaw, pitch, roll = (float(np.clip(rng.normal(0, s), -m, m)) for s, m in far)
        view = View(*np.radians([yaw, pitch, roll]).tolist())
        fraction = float(rng.uniform(0.42, 0.95))
        shift = np.clip(rng.normal(0, 0.25, 2), -0.6, 0.6)
        jitter, zoom = rng.uniform(-0.06, 0.06, 2), float(rng.uniform(0.9, 1.1))
    box = square_box(_face_extent(neutral, style, view))
    side = float(box[2] - box[0])
    if framing == "crop":
        scale, target = size * zoom / side, size * (0.5 + jitter)
    else:
        scale, target = size * fraction / side, size / 2 + shift * size * (1 - fraction) / 2
    x, y = (target - scale * (box[:2] + box[2:]) / 2).tolist()
    view = replace(view, scale=scale, x=x, y=y)
    return view, square_box(_face_extent(neutral, style, view))


def _face_extent(neutral: Shape, style: Style, view: View) -> np.ndarray:
    """Pixels that bound the face from brow tops to chin and cheek to cheek."""
    tops = np.concatenate(neutral.brows) + np.array([0.0, style.brow_weight / 2])
    return np.concatenate([view.on_face(tops, 0.03), view.contour(neutral.outline[3:14])])


def _landmarks(painter: Painter) -> np.ndarray:
    """The 70 points of ``types.POINTS`` in pixels."""
    view, shape, style = painter.view, painter.shape, painter.style
    mouth = shape.mouth
    parts = []
    for eye, brow in zip(shape.eyes, shape.brows, strict=True):
        parts.append(view.on_face(brow, 0.03))
        lids = [eye.upper[8], eye.upper[6], eye.upper[2], eye.upper[0], eye.lower[2], eye.lower[6], eye.iris]
        parts.append(view.on_face(np.array(lids)))
    bridge = np.stack([np.zeros(3), np.linspace(style.eye_y, shape.nose_tip[1], 4)[:3]], axis=-1)
    parts.append(view.on_face(bridge, np.array([0.05, 0.1, 0.15])))
    (left, right), base = shape.nose_wings, shape.nose_base
    parts.append(view.on_face(shape.nose_tip[None], 0.2))
    parts.append(view.on_face(np.array([left, (left + base) / 2, base, (right + base) / 2, right]), 0.1))
    lower_out = mouth.forward + mouth.lower_forward
    parts.append(view.on_face(mouth.outer_upper[[12, 10, 8, 6, 4, 2, 0]], mouth.forward))
    parts.append(view.on_face(mouth.outer_lower[[2, 4, 6, 8, 10]], lower_out))
    parts.append(view.on_face(mouth.inner_upper[[12, 9, 6, 3, 0]], mouth.forward))
    parts.append(view.on_face(mouth.inner_lower[[3, 6, 9]], lower_out))
    parts.append(view.contour(shape.outline[4:13]))
    for (name, sign), wing, end in zip(SIDES, shape.nose_wings, (-1, 0), strict=True):
        raised = 0.07 * painter.value(f"cheekSquint{name}")
        corner = mouth.inner_upper[end]
        cheek = [
            (sign * style.eye_x, style.eye_y - style.eye_height - 0.19 + raised),
            (sign * 0.72, -0.14 + 0.5 * raised),
            (wing[0] + sign * 0.12, wing[1] - 0.03),
            (corner[0] + sign * 0.14, corner[1]),
        ]
        parts.append(view.on_face(np.array(cheek)))
    points = np.concatenate(parts).astype(np.float32)
    assert len(points) == len(POINTS)
    return points


def _draw_background(canvas: skia.Canvas, shot: int | None, size: int) -> None:
    if shot is None:
        canvas.clear(skia_colour(_PLAIN_BACKGROUND))
        return
    rng = np.random.default_rng([shot, 0xB6])
    first = vivid(rng, (0.0, 0.9), (0.15, 1.0))
    second = mix(first, vivid(rng, (0.0, 0.9), (0.15, 1.0)), rng.uniform(0.2, 1.0))
    canvas.clear(skia_colour(first))
    kind = int(rng.integers(7))
    paint = skia.Paint(Color=skia_colour(second), AntiAlias=True)
    if kind == 1:
        angle = rng.uniform(0, 2 * np.pi)
        reach = size * np.array([np.cos(angle), np.sin(angle)])
        ends = [skia.Point(*(size / 2 + sign * reach / 2).tolist()) for sign in (-1, 1)]
        paint.setShader(skia.GradientShader.MakeLinear(points=ends, colors=[skia_colour(first), skia_colour(second)]))
        canvas.drawPaint(paint)
    elif kind in (2, 3):
        count = int(rng.integers(2, 9))
        canvas.save()
        canvas.rotate(float(rng.uniform(0, 180)), size / 2, size / 2)
        width = 2 * size / count
        for i in range(count):
            canvas.drawRect(skia.Rect.MakeXYWH(-size / 2 + i * width, -size, width / 2, 3 * size), paint)
        canvas.restore()
    elif kind == 4:
        for x, y, r in rng.uniform((0, 0, 0.03), (1, 1, 0.2), (int(rng.integers(4, 20)), 3)) * size:
            canvas.drawCircle(x, y, r, paint)
    elif kind == 5:
        canvas.drawRect(skia.Rect.MakeLTRB(0, rng.uniform(0.3, 0.8) * size, size, size), paint)
        for x, y, w, h in rng.uniform((0, 0, 0.1, 0.1), (0.9, 0.4, 0.3, 0.4), (2, 4)) * size:
            canvas.drawRect(skia.Rect.MakeXYWH(x, y, w, h), paint)
    elif kind == 6:
        paint.setShader(
            skia.GradientShader.MakeRadial(
                center=skia.Point(size / 2, size / 2),
                radius=0.75 * size,
                colors=[skia_colour(second), skia_colour(first)],
            )
        )
        canvas.drawPaint(paint)


def _draw_shadow(painter: Painter, contour: skia.Path, shot: int | None) -> None:
    """Shade one side of the head: flat, as halftone dots, or not at all."""
    if shot is None:
        return
    rng = np.random.default_rng([shot, 0x5A])
    kind, angle = rng.random(), rng.uniform(-0.6, np.pi + 0.6)
    if kind < 0.4:
        return
    view, canvas = painter.view, painter.canvas
    radius = view.scale * rng.uniform(1.15, 1.6)
    away = view.scale * rng.uniform(0.25, 0.55)
    lit = skia.Path.Circle(view.x + away * np.cos(angle), view.y - away * np.sin(angle), radius)
    lit.toggleInverseFillType()
    colour = shade(painter.style.skin, rng.uniform(0.72, 0.9))
    canvas.save()
    canvas.clipPath(contour, skia.ClipOp.kIntersect, True)
    if kind < 0.8:
        painter.fill(lit, colour)
    else:
        canvas.clipPath(lit, skia.ClipOp.kIntersect, True)
        step = max(3.0, 0.09 * view.scale)
        paint = skia.Paint(Color=skia_colour(colour), AntiAlias=True)
        bounds = contour.getBounds()
        for row, y in enumerate(np.arange(bounds.top(), bounds.bottom(), step).tolist()):
            for x in np.arange(bounds.left() + step / 2 * (row % 2), bounds.right(), step).tolist():
                canvas.drawCircle(x, y, 0.36 * step, paint)
    canvas.restore()


def _style_of_shot(subject: int | None, shot: int | None) -> Style:
    """The subject's style; in some shots the cheeks blush otherwise than usual, whatever the expression."""
    style = style_of(subject)
    if shot is None:
        return style
    rng = np.random.default_rng([shot, 0xB1])
    return with_blush(style, rng) if rng.random() < 0.3 else style


def draw(
    coefficients: np.ndarray, *, subject: int | None = 0, shot: int | None = None, size: int = 224,
    supersample: int = 2, framing: Framing = "portrait", conditions: Conditions = "usual",
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Rendered:  # fmt: skip
    """Draw a cartoon face.

    Args:
        coefficients: float[52] in [0, 1], project order.
        subject: seed of the person; ``None`` is the plain average face.
        shot: seed of head pose, position, background and shading; ``None`` is frontal on a plain background.
        size: side of the image in pixels.
        supersample: the canvas is this many times larger, then averaged; lines are antialiased at 1 already.
        framing: ``portrait``, the head somewhere in the frame, or ``crop``, the frame is the face's box.
        conditions: of head pose and image degradation.
        turn: yaw, pitch and roll in degrees without a shot, with the signs of ``camera.Camera``; a flat face turns as
            far as it can.
    """
    if framing not in ("portrait", "crop"):
        raise ConfigError(f"framing {framing!r} is unknown: use 'portrait' or 'crop'.")
    coefficients = np.asarray(coefficients, dtype=np.float32)
    style = _style_of_shot(subject, shot)
    neutral = face_shape(style, np.zeros_like(coefficients))
    view, box = _place_view(neutral, style, shot, size, framing, conditions, turn)

    pixels = np.empty((size * supersample, size * supersample, 4), dtype=np.uint8)
    canvas = skia.Surface(pixels).getCanvas()
    canvas.scale(supersample, supersample)
    painter = Painter(canvas, view, style, face_shape(style, coefficients), coefficients)
    _draw_background(canvas, shot, size)
    paint_body(painter)
    contour = painter.head()
    _draw_shadow(painter, contour, shot)
    paint_beard(painter)
    painter.cheeks()
    paint_bangs_shadow(painter, contour)
    painter.forehead()
    if style.contour:
        painter.stroke(contour, style.ink, style.line)
    for eye, (name, sign) in zip(painter.shape.eyes, SIDES, strict=True):
        painter.eye(eye, name, sign)
    painter.expression_lines()
    painter.nose()
    painter.mouth()
    if style.bangs == "none":
        paint_hair(painter)
        painter.brows()
    else:
        painter.brows()
        paint_bangs(painter)
        painter.brows(style.brows_over_hair)
    if style.glasses:
        painter.glasses()

    picture = degrade_drawing(_downsample(pixels, supersample), shot, conditions)
    degrees = np.degrees([view.yaw, view.pitch, view.roll])
    camera = dict(zip(("yaw", "pitch", "roll"), degrees.tolist(), strict=True))
    camera |= {"fov": 0.0, "scale": float(box[2] - box[0]) / size}
    pose = pose_of(degrees, gaze_degrees(coefficients))
    return Rendered(picture, _landmarks(painter), box, camera, pose, coefficients)


def _downsample(pixels: np.ndarray, supersample: int) -> np.ndarray:
    """RGB of skia's BGRA or RGBA raster, averaged down by ``supersample``."""
    order = [2, 1, 0] if skia.kN32_ColorType == skia.kBGRA_8888_ColorType else [0, 1, 2]
    averaged = np.asarray(PIL.Image.fromarray(pixels).reduce(supersample))
    return np.ascontiguousarray(averaged[..., order])
