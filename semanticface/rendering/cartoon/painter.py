"""Paints a drawn face: head, cheeks, eyes, brows, nose, mouth and glasses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import skia

from semanticface.arkit import INDEX
from semanticface.rendering.cartoon.canvas import Pen, band, skia_colour, spline
from semanticface.rendering.cartoon.geometry import SIDES, Eye, Shape
from semanticface.rendering.cartoon.style import Colour, luminance, mix, shade

_PUPIL: Colour = (0.03, 0.03, 0.04)
_WHITE: Colour = (1.0, 1.0, 1.0)
_TEETH: Colour = (0.98, 0.97, 0.94)
_TONGUE: Colour = (0.88, 0.42, 0.44)
_GOLD: Colour = (0.95, 0.80, 0.30)


@dataclass(slots=True)
class Painter(Pen):
    """Draws one face on one canvas."""

    shape: Shape
    coefficients: np.ndarray

    def value(self, name: str) -> float:
        return float(self.coefficients[INDEX[name]])

    def head(self) -> skia.Path:
        """Fill the head and its ears; return the contour, for clipping and the outline."""
        style, view = self.style, self.view
        for _, sign in SIDES:
            ear = np.array(
                [
                    (0.93, 0.16, -0.18),
                    (0.98 + 0.7 * style.ear, 0.20, -0.18),
                    (0.98 + style.ear, 0.02, -0.18),
                    (0.98 + 0.6 * style.ear, -0.22, -0.18),
                    (0.92, -0.28, -0.18),
                ]
            )
            ear[:, 0] *= sign * style.cheek
            path = spline(view.contour(ear), closed=True)
            self.fill(path, shade(style.skin, 0.95))
            if style.contour:
                self.stroke(path, style.ink, style.line)
            if style.earrings:
                lobe = view.contour(ear[3:4] - (0.0, 0.06, 0.0))[0]
                self.canvas.drawCircle(
                    *lobe.tolist(), 0.05 * view.scale, skia.Paint(Color=skia_colour(_GOLD), AntiAlias=True)
                )
        path = spline(view.contour(self.shape.outline), closed=True)
        self.fill(path, style.skin)
        return path

    def cheeks(self) -> None:
        style, shape = self.style, self.shape
        puff = self.value("cheekPuff")
        for name, sign in SIDES:
            raised = self.value(f"cheekSquint{name}")
            smile = self.value(f"mouthSmile{name}")
            self._blush(np.array([sign * 0.55, -0.33 + 0.10 * raised + 0.04 * smile]), sign)
            if puff > 0.03:
                light = np.array([sign * 0.68, -0.36])
                self.disc(light, 0.10, shade(style.skin, 1.15), 0.5 * puff * style.creases)
                x, y = sign * (0.47 + 0.02 * puff), style.mouth_y + 0.02
                self.face_line([(x + sign * 0.05, y + 0.2), (x, y + 0.02), (x + sign * 0.05, y - 0.17)], puff)
            # The cheek's lower edge bunches up under the eye.
            x, y = sign * style.eye_x, style.eye_y - style.eye_height - 0.17 + 0.07 * raised
            self.face_line(
                [(x - sign * 0.22, y - 0.01), (x, y - 0.07), (x + sign * 0.2, y - 0.01), (x + sign * 0.3, y + 0.09)],
                raised,
                1.0,
            )
        if style.freckles:
            rng = np.random.default_rng(style.detail_seed)
            for x, y in rng.normal((0.0, -0.2), (0.4, 0.1), (style.freckles, 2)):
                self.disc(np.array([x, y]), 0.016, shade(style.skin, 0.6), 0.6)
        chin_x, chin_y = shape.chin.tolist()
        forward, shrug = self.value("jawForward"), self.value("mouthShrugLower")
        if forward > 0.03:
            self.disc(shape.chin + np.array([0.0, 0.03]), 0.15, shade(style.skin, 1.18), 0.7 * forward, 0.1)
            self.face_line(
                [(chin_x - 0.3, chin_y + 0.02), (chin_x - 0.2, chin_y - 0.1), (chin_x, chin_y - 0.15),
                 (chin_x + 0.2, chin_y - 0.1), (chin_x + 0.3, chin_y + 0.02)],
                forward, 1.0, 0.15,
            )  # fmt: skip
        if shrug > 0.03:
            for dx, dy in ((-0.1, 0.02), (0.0, 0.06), (0.1, 0.02), (-0.05, -0.05), (0.05, -0.05)):
                x, y = chin_x + dx, chin_y + dy
                self.face_line([(x - 0.025, y - 0.015), (x, y + 0.012), (x + 0.025, y - 0.015)], shrug, 0.7)

    def _blush(self, centre: np.ndarray, sign: float) -> None:
        """Colour a cheek as a matter of style, apart from any action."""
        style = self.style
        kind, strength = style.blush_kind, style.blush_strength
        if kind == "disc":
            self.disc(centre, 0.17, style.blush, strength)
        elif kind in ("soft", "band"):
            reach = np.array([0.0, 0.16]) if kind == "soft" else np.array([-sign * 0.25, 0.12])
            for width in (1.0, 0.75, 0.5):
                t = np.linspace(0, 2 * np.pi, 12, endpoint=False)
                ring = np.stack([width * (0.22 + abs(reach[0])) * np.cos(t), width * reach[1] * np.sin(t)], axis=-1)
                path = spline(self.view.on_face(centre + np.array([reach[0], 0.0]) + ring), closed=True)
                self.fill(path, style.blush, 0.4 * strength)
        if kind == "stripes":
            for step in (-0.1, 0.0, 0.1):
                ends = centre + np.array([(step + 0.03, 0.06), (step - 0.03, -0.06)])
                self.stroke(spline(self.view.on_face(ends)), style.blush, 0.8 * max(style.line, 0.03), strength)

    def forehead(self) -> None:
        style = self.style
        inner = style.creases * self.value("browInnerUp")
        for level in (0.0, 0.10):
            y = style.brow_y + 0.33 + level
            self.face_line([(-0.2, y - 0.02), (0.0, y + 0.02), (0.2, y - 0.02)], inner - 2.0 * level)
        for name, sign in SIDES:
            raised = style.creases * self.value(f"browOuterUp{name}")
            x, y = sign * (0.2 + 0.7 * style.brow_length), style.brow_y + style.brow_arch + 0.36
            self.face_line([(x - sign * 0.2, y - 0.03), (x, y + 0.03), (x + sign * 0.17, y - 0.05)], raised)
            lowered = style.creases * self.value(f"browDown{name}")
            x, y = sign * 0.065, style.brow_y - 0.14
            self.face_line([(x, y + 0.16), (x - sign * 0.015, y + 0.03), (x + sign * 0.01, y - 0.07)], lowered, 1.0)

    def eye(self, eye: Eye, name: str, sign: float) -> None:
        style, view = self.style, self.view
        upper, lower, socket = view.on_face(eye.upper), view.on_face(eye.lower), view.on_face(eye.socket)
        lid = shade(style.skin, style.lid_shade if luminance(style.skin) > 0.3 else style.lid_shade - 0.16)
        self.fill(band(socket, upper), lid)
        opening = band(upper, lower)
        height = float((eye.upper[4] - eye.lower[4])[1])
        if height > 0.012:
            self.fill(opening, style.sclera)
            self.canvas.save()
            self.canvas.clipPath(opening, skia.ClipOp.kIntersect, True)
            self._iris(eye.iris, 1.0 - 0.15 * self.value(f"eyeWide{name}") * style.big_eyes)
            # The lid's shadow makes a lowered lid recognisable.
            self.stroke(spline(upper), style.ink, 0.07 if not style.big_eyes else 0.12, 0.18)
            self.canvas.restore()
        if style.eye_crease > 0.0:
            self.stroke(
                spline(socket[2:-1] if style.big_eyes else socket), style.ink, 0.55 * style.line, style.eye_crease
            )
        n_drawn = max(2, round(9 * style.lower_line)) if height > 0.012 else 9
        self.stroke(spline(lower[-n_drawn:]), style.ink, 0.6 * style.line, 0.8)
        self.lashes(eye, sign)
        squint = self.value(f"eyeSquint{name}")
        below = eye.lower - (0.0, 0.055)
        self.face_line([tuple(point) for point in below[1:-1:3].tolist()], squint)
        corner_x, corner_y = eye.lower[-1].tolist()
        for step in (-0.045, 0.03):
            self.face_line(
                [(corner_x + sign * 0.05, corner_y + 0.5 * step), (corner_x + sign * 0.14, corner_y + 2.0 * step)],
                squint,
                0.7,
            )

    def _iris(self, centre: np.ndarray, size: float) -> None:
        style = self.style
        radius = size * style.iris_size
        if not style.big_eyes:
            self.disc(centre, radius, style.iris, 1.0)
            self.disc(centre, style.pupil * radius, _PUPIL, 1.0)
            self.disc(centre + radius * np.array([0.3, 0.35]), 0.24 * radius, _WHITE, 0.9)
            return
        tall = style.iris_aspect * radius
        self._oval(centre, radius, tall, shade(style.iris, 0.45))
        self._oval(centre - (0.0, 0.06 * tall), 0.88 * radius, 0.88 * tall, style.iris)
        self._oval(centre - (0.0, 0.5 * tall), 0.6 * radius, 0.36 * tall, mix(style.iris, _WHITE, 0.35))
        self._oval(centre + np.array([0.0, 0.55 * tall]), 0.85 * radius, 0.4 * tall, shade(style.iris, 0.35), 0.7)
        self._oval(centre, style.pupil * radius, style.pupil * tall, _PUPIL)
        side = style.nose_side
        self._oval(centre + np.array([0.42 * side * radius, 0.48 * tall]), 0.27 * radius, 0.25 * tall, _WHITE)
        self._oval(centre - (0.45 * side * radius, 0.5 * tall), 0.14 * radius, 0.13 * tall, _WHITE, 0.9)

    def _oval(self, centre: np.ndarray, width: float, height: float, colour: Colour, alpha: float = 1.0) -> None:
        t = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        ring = centre + np.stack([width * np.cos(t), height * np.sin(t)], axis=-1)
        self.fill(spline(self.view.on_face(ring), closed=True), colour, alpha)

    def lashes(self, eye: Eye, sign: float) -> None:
        """Paint the edge of the upper lid: a line, or in anime a shape that grows towards the outer corner."""
        style, view = self.style, self.view
        upper = view.on_face(eye.upper)
        thickness = style.lashes * style.line
        if style.big_eyes:
            rise = thickness * np.array([0.15, 0.4, 0.65, 0.85, 1.0, 1.1, 1.15, 1.1, 0.4])
            top = eye.upper + np.stack([sign * 0.35 * rise * np.linspace(0, 1, 9), rise], axis=-1)
            self.fill(band(view.on_face(top), upper), style.ink)
            self.stroke(spline(upper), style.ink, style.line)
        else:
            self.stroke(spline(upper), style.ink, thickness)
        if style.lash_flick:
            corner = eye.upper[-1]
            flick = np.array([eye.upper[-2], corner, corner + np.array([sign * 0.07, 0.05])])
            self.stroke(spline(view.on_face(flick)), style.ink, min(thickness, 0.06))

    def brows(self, alpha: float = 1.0) -> None:
        """Paint the brows; over dark bangs with a rim of skin, so that they can be told from hair."""
        style = self.style
        thickness = style.brow_weight * np.array([0.85, 1.0, 0.95, 0.7, 0.2])
        rise = np.stack([np.zeros(5), thickness / 2], axis=-1)
        rimmed = style.bangs != "none" and abs(luminance(style.hair_colour) - luminance(style.brow_colour)) < 0.15
        for middle in self.shape.brows:
            path = band(self.view.on_face(middle + rise, 0.03), self.view.on_face(middle - rise, 0.03))
            if rimmed:
                self.stroke(path, style.skin, 1.5 * style.line, alpha)
            self.fill(path, style.brow_colour, alpha)
            self.stroke(path, style.brow_colour, 0.35 * style.line, alpha)

    def nose(self) -> None:
        style, shape, view = self.style, self.shape, self.view
        (left, right), (_, tip_y), (_, base_y) = shape.nose_wings, shape.nose_tip, shape.nose_base
        kind, w = style.nose_kind, style.nose_width
        weight = 0.9
        if kind in ("none", "dot", "dash", "shade"):
            self._small_nose(kind, tip_y)
        elif kind == "button":
            self.disc(shape.nose_tip, 0.75 * w + 0.02, shade(style.skin, 0.9), 0.8, 0.2)
            self.face_line([(-0.7 * w, tip_y - 0.03), (0.0, base_y), (0.7 * w, tip_y - 0.03)], 1.0, weight, 0.2)
        elif kind == "side":
            s = style.nose_side
            self.face_line(
                [(0.03 * s, style.eye_y + 0.02), (0.08 * s, tip_y + 0.1), (0.6 * w * s, tip_y - 0.05),
                 (0.2 * w * s, base_y), (-0.4 * w * s, base_y)],
                1.0, weight, 0.2,
            )  # fmt: skip
        elif kind == "triangle":
            path = spline(
                view.on_face(np.array([(0.0, tip_y + 0.22), tuple(left), (0.0, base_y), tuple(right)]), 0.15),
                closed=True,
            )
            self.fill(path, shade(style.skin, 0.88))
            self.stroke(path, style.ink, 0.7 * style.line)
        else:
            self.face_line(
                [(-0.45 * w, base_y + 0.015), (0.0, base_y - 0.02), (0.45 * w, base_y + 0.015)], 1.0, weight, 0.2
            )
        if kind in ("dots", "triangle"):
            for wing in (left, right):
                self.disc(np.array([0.5 * wing[0], 0.5 * (wing[1] + base_y)]), 0.028, style.ink, 0.9, 0.15)
        for wing, (name, sign) in zip(shape.nose_wings, SIDES, strict=True):
            sneer = self.value(f"noseSneer{name}")
            x, y = wing.tolist()
            shown = 1.0 if kind == "wings" else sneer
            self.face_line(
                [(x - sign * 0.035, y + 0.08), (x, y + 0.03), (x - sign * 0.015, y - 0.05)], shown, 0.9, 0.08
            )
            for n in range(3):
                top = style.eye_y - 0.02 - 0.075 * n
                self.face_line([(sign * 0.035, top), (sign * (0.13 + 0.01 * n), top + 0.055)], sneer, 0.75, 0.1)

    def _small_nose(self, kind: str, tip_y: float) -> None:
        style, s = self.style, self.style.nose_side
        if kind == "dot":
            self.disc(np.array([0.0, tip_y]), 0.5 * style.line + 0.008, style.ink, 0.9, 0.2)
        elif kind == "dash":
            self.face_line([(0.0, tip_y + 0.05), (0.035 * s, tip_y - 0.01), (0.0, tip_y - 0.02)], 1.0, 0.8, 0.2)
        elif kind == "shade":
            corners = np.array([(0.0, tip_y + 0.04), (0.07 * s, tip_y - 0.03), (0.0, tip_y - 0.03)])
            path = skia.Path.Polygon([skia.Point(*at) for at in self.view.on_face(corners, 0.2).tolist()], True)
            self.fill(path, shade(style.skin, 0.8))

    def expression_lines(self) -> None:
        """Lines beside mouth and nose that come with their actions."""
        mouth, style = self.shape.mouth, self.style
        for (name, sign), end in zip(SIDES, (-1, 0), strict=True):
            x, y = mouth.inner_upper[end].tolist()
            wing_x, wing_y = self.shape.nose_wings[0 if sign > 0 else 1].tolist()
            smile, raised = self.value(f"mouthSmile{name}"), self.value(f"mouthUpperUp{name}")
            sneer, frown = self.value(f"noseSneer{name}"), self.value(f"mouthFrown{name}")
            self.face_line(
                [
                    (wing_x + sign * 0.05, wing_y + 0.03),
                    (0.4 * wing_x + 0.6 * x + sign * 0.13, 0.45 * (wing_y + y) + 0.1 * y + 0.08),
                    (x + sign * 0.15, y - 0.02 - 0.08 * smile),
                ],
                style.creases * max(0.85 * raised, 0.8 * smile, 0.75 * sneer),
            )
            self.face_line(
                [(x + sign * 0.05, y + 0.07), (x + sign * 0.09, y), (x + sign * 0.06, y - 0.06)],
                style.creases * smile,
                1.0,
            )
            self.face_line(
                [(x + sign * 0.02, y - 0.06), (x + sign * 0.06, y - 0.14), (x + sign * 0.05, y - 0.22)],
                style.creases * frown,
            )
            dimple = self.value(f"mouthDimple{name}")
            self.face_line(
                [(x + sign * 0.055, y + 0.09), (x + sign * 0.10, y + 0.01), (x + sign * 0.065, y - 0.07)], dimple, 1.4
            )
            if dimple > 0.03:
                self.disc(np.array([x + sign * 0.17, y + 0.02]), 0.065, shade(style.skin, 0.72), 0.85 * dimple)
            stretch = self.value(f"mouthStretch{name}")
            for step in (0.07, 0.16):
                self.face_line(
                    [(x + sign * step, y + 0.10), (x + sign * (step + 0.025), y - 0.02), (x + sign * step, y - 0.16)],
                    stretch,
                    0.9,
                )
            press = self.value(f"mouthPress{name}")
            for up in (1.0, -1.0):
                self.face_line(
                    [
                        (x - sign * 0.14, y + up * 0.10),
                        (x - sign * 0.02, y + up * 0.085),
                        (x + sign * 0.05, y + up * 0.02),
                    ],
                    press,
                    0.9,
                )

    def mouth(self) -> None:
        style, view, mouth = self.style, self.view, self.shape.mouth
        out = mouth.forward
        lower_out = out + mouth.lower_forward
        outer_upper, inner_upper = view.on_face(mouth.outer_upper, out), view.on_face(mouth.inner_upper, out)
        inner_lower, outer_lower = (
            view.on_face(mouth.inner_lower, lower_out),
            view.on_face(mouth.outer_lower, lower_out),
        )
        lips = mix(style.skin, style.lips, style.lip_fill)
        inside = band(inner_upper, inner_lower)
        gap = float((mouth.inner_upper - mouth.inner_lower)[:, 1].max())
        if gap > 0.012:
            self.fill(inside, style.mouth_inside)
            self.canvas.save()
            self.canvas.clipPath(inside, skia.ClipOp.kIntersect, True)
            self._teeth()
            self.canvas.restore()
        if not style.lipless:
            self.fill(band(outer_upper, inner_upper), shade(lips, 0.9))
            self.fill(band(inner_lower, outer_lower), lips)
            rim = 0.35 + 0.45 * (1.0 - style.lip_fill)
            self.stroke(spline(outer_upper), style.ink, 0.5 * style.line, rim)
            self.stroke(spline(outer_lower), style.ink, 0.6 * style.line, min(1.0, rim + 0.15))
        roll_upper, roll_lower = self.value("mouthRollUpper"), self.value("mouthRollLower")
        press = 0.5 * (self.value("mouthPressLeft") + self.value("mouthPressRight"))
        weight = style.line * (0.9 + 0.5 * max(press, roll_upper, roll_lower))
        self.stroke(spline(inner_upper), style.ink, weight)
        self.stroke(spline(inner_lower), style.ink, weight)
        for name, end in (("Left", -1), ("Right", 0)):
            half = inner_upper[7:] if end == -1 else inner_upper[:6]
            tight = self.value(f"mouthPress{name}")
            if tight > 0.03:
                self.stroke(spline(half), style.ink, 1.9 * max(style.line, 0.024), tight)
        if mouth.tongue is not None:
            self._tongue(mouth.tongue, lower_out)
        self._lip_creases(roll_upper, roll_lower, self.value("mouthPucker"))

    def _lip_creases(self, roll_upper: float, roll_lower: float, pucker: float) -> None:
        mouth = self.shape.mouth
        out = mouth.forward
        for curve, roll, up in ((mouth.outer_upper, roll_upper, 1.0), (mouth.outer_lower, roll_lower, -1.0)):
            # A rolled-in lip leaves a swollen edge of skin and a furrow beyond it.
            bulge = np.clip(1.0 - np.linspace(-1, 1, 13) ** 2, 0, 1)
            edge = curve + np.stack([np.zeros(13), up * (0.03 + 0.055 * bulge)], axis=-1)
            if roll > 0.03:
                swollen = band(self.view.on_face(edge, out), self.view.on_face(curve, out))
                self.fill(swollen, shade(self.style.skin, 0.86), 0.8 * roll)
            self.face_line([tuple(p) for p in edge[2:-2:2].tolist()], roll, 0.9, out)
        for i, lean in ((4, -0.02), (6, 0.0), (8, 0.02)):
            for curve, up in ((mouth.outer_upper, 1.0), (mouth.outer_lower, -1.0)):
                x, y = curve[i].tolist()
                self.face_line([(x, y - up * 0.045), (x + lean, y + up * 0.025)], pucker, 0.6, out)
        shrug = self.value("mouthShrugUpper")
        x, y = mouth.outer_upper[6].tolist()
        base = float(self.shape.nose_base[1])
        for side in (-1.0, 1.0):
            self.face_line(
                [(x + side * 0.045, y + 0.01), (0.5 * x + side * 0.06, base - 0.04), (side * 0.045, base + 0.01)],
                shrug,
                0.9,
                out,
            )

    def _teeth(self) -> None:
        style, view, mouth = self.style, self.view, self.shape.mouth
        floor = np.array([mouth.jaw_x, float(mouth.inner_lower[6, 1]) + 0.02 - 0.12 * self.value("mouthFunnel")])
        self.disc(floor, 0.5 * style.mouth_width, _TONGUE, 0.9)
        if style.teeth == "none":
            return
        half = (1.05 + 1.5 * (1.0 - style.mouth_reach)) * style.mouth_width
        x = np.linspace(-1.0, 1.0, 7)
        bend = 0.03 * x**2
        drop = 0.0 if style.teeth == "rows" else 0.12 * (self.value("jawOpen") - self.value("mouthClose"))
        for edge, far, shift in (
            (mouth.upper_teeth - drop, style.mouth_y + 0.24, 0.0),
            (mouth.lower_teeth, mouth.lower_teeth - 0.30, mouth.jaw_x),
        )[: 1 if style.teeth == "upper" else 2]:
            near = np.stack([half * x + shift, edge + bend], axis=-1)
            path = band(view.on_face(near), view.on_face(np.stack([half * x + shift, far + bend], axis=-1)))
            self.fill(path, _TEETH if far > edge else shade(_TEETH, 0.92))
            self.stroke(spline(view.on_face(near)), style.ink, 0.35 * style.line, 0.6)

    def _tongue(self, tip: float, out: float) -> None:
        view, mouth = self.view, self.shape.mouth
        x, lip = mouth.inner_lower[6].tolist()
        root = float(mouth.inner_upper[6, 1] * 0.35 + lip * 0.65)
        half = min(0.5 * (mouth.inner_lower[-1, 0] - mouth.inner_lower[0, 0]), 0.2) * 0.85
        middle = 0.5 * (root + tip)
        path = spline(
            view.on_face(
                np.array(
                    [(x - half, root), (x - 1.05 * half, middle), (x - 0.7 * half, tip + 0.05), (x, tip),
                     (x + 0.7 * half, tip + 0.05), (x + 1.05 * half, middle), (x + half, root)]
                ),
                out + 0.05
            ),
            closed=True,
        )  # fmt: skip
        self.fill(path, _TONGUE)
        self.stroke(path, self.style.ink, 0.7 * self.style.line)
        self.face_line([(x, root - 0.02), (x, tip + 0.09)], 0.8, 0.7, out + 0.05)

    def glasses(self) -> None:
        style = self.style
        for _, sign in SIDES:
            t = np.linspace(0, 2 * np.pi, 12, endpoint=False)
            rim = np.stack(
                [
                    sign * style.eye_x + (style.eye_width + 0.08) * np.cos(t),
                    style.eye_y - 0.02 + (style.eye_height + 0.11) * np.sin(t),
                ],
                axis=-1,
            )
            self.stroke(spline(self.view.on_face(rim, 0.1), closed=True), style.ink, 0.9 * style.line, 0.9)
        y = style.eye_y + 0.02
        inner = style.eye_x - style.eye_width - 0.08
        self.face_line([(-inner, y), (0.0, y + 0.05), (inner, y)], 1.0, 1.0, 0.15)
