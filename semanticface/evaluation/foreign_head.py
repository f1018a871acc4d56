"""A head that is not ours, to measure on: the generic head of FaceCap's example, drawn with this project's lights.

Our own heads share one mesh, one set of expressions and one painter of skin and eyes, and models train on them. This
head has none of these: it was modelled, textured and rigged by someone else (hizzlehoff's FaceCap example, MIT, see
``eval/data/LICENSE-facecap.txt``), from whom come the vertices, the 52 ARKit deltas and the texture. Camera, light,
background and sensor are those of our photo style. Nothing may be trained on this head or tuned to it.

Added here, because its file has none of it:

* the eyeballs turn by the angles of our own rig (30 degrees out and in, 22 up, 25 down at coefficient 1);
* a lower row of teeth, the upper one upside down, that follows the jaw: with ``jawOpen`` about the hinge that fits how
  the chin moves, with the three other jaw actions along the chin.

``tongueOut`` moves nothing on this head: leave it out of the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semanticface import arkit
from semanticface.rendering import Rendered, lighting, raster
from semanticface.rendering.camera import Camera, place_camera
from semanticface.rendering.head.rig import rig, vertex_normals
from semanticface.rendering.lighting import Lights, illuminate, sample_lights
from semanticface.rendering.sensor import simulate_sensor
from semanticface.rendering.shading.background import background
from semanticface.rendering.types import POINTS

UNSCORED = ("tongueOut",)
"""Actions that do not move this head."""

SKIN, EYE_LEFT, EYE_RIGHT, TEETH = range(4)
_SCALE = 0.1  # to decimetres, as our own heads
_SHADOW_TEXELS = 256
_SIDES = ("Left", "Right")
# In the file's units: the plane in which the upper teeth are mirrored, and how far the lower row is set back.
_BITE, _SET_BACK, _LOWER_ROW_SCALE = -4.55, 0.25, 0.94
_ROWS = 18  # of a block that ``illuminate`` reads


class ForeignHead:
    """The head in decimetres: y up, z out of the face, +x to the subject's left. It never changes.

    Args:
        folder: with ``facecap.npz`` and ``facecap.png``.

    Attributes:
        triangles: int32[T, 3], of corners; a vertex has one corner for each of its places in the texture.
        part: uint8[T], one of ``SKIN``, ``EYE_LEFT``, ``EYE_RIGHT`` and ``TEETH``.
        eye_centres: float32[2, 3], left eye first.
        jaw_angle: rotation of the jaw at ``jawOpen`` 1, radians; positive opens the mouth.
        jaw_hinge: float32[2], y and z of its axis.
    """

    def __init__(self, folder: Path) -> None:
        with np.load(folder / "facecap.npz") as file:
            data = dict(file)
        with Image.open(folder / "facecap.png") as opened:
            picture = np.asarray(opened.convert("RGB"), np.float32) / 255
        # sRGB to linear light.
        self._texture = np.where(picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055) ** 2.4)
        names = [str(name) for name in data["expr_names"]]
        self._deltas = _SCALE * data["expr"].astype(np.float32)[[names.index(arkit.SUFFIXED[n]) for n in arkit.NAMES]]

        meshes = [
            (SKIN, data["head_vertices"], *(data[f"head_{what}"] for what in ("faces", "uv", "face_uv"))),
            *(
                (part, data[f"eye{side}_vertices"], *(data[f"eye{side}_{what}"] for what in ("faces", "uv", "face_uv")))
                for part, side in ((EYE_LEFT, "Left"), (EYE_RIGHT, "Right"))
            ),
            *_teeth(data),
        ]
        vertices, triangles, corners, uv, part, rows = [], [], [], [], [], []
        n_vertices = n_corners = 0
        for kind, positions, faces, places, face_places in meshes:
            pairs = np.stack([faces.ravel(), face_places.ravel()], axis=-1)
            unique, member = np.unique(pairs, axis=0, return_inverse=True)
            vertices.append(positions * _SCALE)
            triangles.append(member.reshape(-1, 3) + n_corners)
            corners.append(unique[:, 0] + n_vertices)
            uv.append(places[unique[:, 1]])
            part.append(np.full(len(faces), kind))
            rows.append(slice(n_vertices, n_vertices + len(positions)))
            n_vertices, n_corners = n_vertices + len(positions), n_corners + len(unique)
        self._vertices = np.concatenate(vertices).astype(np.float32)
        self._corners, self._uv = np.concatenate(corners), np.concatenate(uv).astype(np.float32)
        self.triangles = np.concatenate(triangles).astype(np.int32)
        self.part = np.concatenate(part).astype(np.uint8)
        self._head, self._eyes, self._lower_teeth = rows[0], rows[1:3], rows[4]
        self.eye_centres = np.stack([_sphere_centre(self._vertices[eye]) for eye in self._eyes])

        head = self._vertices[self._head]
        opening = self._deltas[arkit.INDEX["jawOpen"]]
        self._chin = np.linalg.norm(opening, axis=1) > 0.75 * np.linalg.norm(opening, axis=1).max()
        self.jaw_angle, self.jaw_hinge = _hinge(head[self._chin], opening[self._chin])
        # What our own heads' boxes hold too: from the brows to the chin, cheek to cheek.
        brows = np.linalg.norm(self._deltas[arkit.INDEX["browOuterUpLeft"]], axis=1).argmax()
        self._box = (head[:, 2] > 0.1) & (head[:, 1] < head[brows, 1] + 0.05) & (head[:, 1] > -0.9)

    def vertices(self, coefficients: np.ndarray) -> np.ndarray:
        """Positions under an expression, float32[V, 3]: head, left eye, right eye, upper teeth, lower teeth.

        Args:
            coefficients: float[52] in [0, 1], project order.
        """
        c = np.asarray(coefficients, np.float32)
        out = self._vertices.copy()
        out[self._head] += np.tensordot(c, self._deltas, axes=1)
        for centre, rows, rotation in zip(self.eye_centres, self._eyes, rig().eye_rotations(c), strict=True):
            out[rows] = centre + (out[rows] - centre) @ rotation.T
        angle = c[arkit.INDEX["jawOpen"]] * self.jaw_angle
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
        teeth = out[self._lower_teeth]
        teeth[:, 1:] = self.jaw_hinge + (teeth[:, 1:] - self.jaw_hinge) @ turn.T
        for name in ("jawForward", "jawLeft", "jawRight"):
            i = arkit.INDEX[name]
            teeth += c[i] * self._deltas[i][self._chin].mean(axis=0)
        out[self._lower_teeth] = teeth
        return out

    def draw(
        self, coefficients: np.ndarray, *, shot: int | None = None, size: int = 512, supersample: int = 2
    ) -> Rendered:
        """Draw the head as a photograph of our photo style's usual conditions.

        Args:
            coefficients: float[52] in [0, 1], project order.
            shot: seed of camera, light, background and sensor; None is a plain frontal portrait.
            size: side of the picture in pixels.
            supersample: samples per pixel along each side.

        Returns:
            As ``rendering.render``; the landmarks are NaN, as nobody has placed any on this head.
        """
        c = np.asarray(coefficients, np.float32)
        camera, box = place_camera(self._vertices[self._head][self._box], shot, size, "portrait")
        vertices = self.vertices(c)
        faces = self._corners[self.triangles].astype(np.int32)
        attributes = np.concatenate([self._uv, vertex_normals(vertices, faces)[self._corners], vertices[self._corners]], 1)
        image = self._shade(attributes, camera, sample_lights(shot), background(shot, size), supersample)
        points = np.full((len(POINTS), 2), np.nan, np.float32)
        return Rendered(simulate_sensor(image, shot), points, box, camera.to_dict(size, box), c)

    def _shade(
        self, attributes: np.ndarray, camera: Camera, lights: Lights, ground: np.ndarray, supersample: int
    ) -> np.ndarray:
        """Return the shaded picture, float32[size, size, 3], sRGB; ``attributes`` as in ``_material``."""
        side = len(ground) * supersample
        positions = np.ascontiguousarray(attributes[:, 5:8])
        screen = camera.scaled(supersample).project(positions)
        two_sided = np.zeros(len(self.triangles), bool)
        found, w1, w2, _ = raster.visibility(screen, self.triangles, two_sided, side, side, "foreign")
        out = np.repeat(np.repeat(ground, supersample, axis=0), supersample, axis=1).reshape(-1, 3)
        hit = np.flatnonzero(found != raster.EMPTY)
        triangle, b1, b2 = found.ravel()[hit], w1.ravel()[hit, None], w2.ravel()[hit, None]
        a, b, c = (attributes[self.triangles[triangle, k]] for k in range(3))
        rows = self._material((1 - b1 - b2) * a + b1 * b + b2 * c, self.part[triangle], camera)
        out[hit] = _lit(rows, self._lights(positions, camera, lights)).T
        return raster.downsample(out.reshape(side, side, 3), supersample)

    def _material(self, samples: np.ndarray, part: np.ndarray, camera: Camera) -> np.ndarray:
        """Return what ``illuminate`` reads, float32[18, N].

        Args:
            samples: float32[N, 8]: place in the texture, normal, position.
            part: uint8[N].
            camera: the view.
        """
        position = samples[:, 5:8]
        to_camera = np.array([0, 0, camera.distance], np.float32) @ camera.rotation - position
        rows = np.zeros((_ROWS, len(samples)), np.float32)

        def put(first: int, values: Any, count: int = 1) -> None:
            rows[first // lighting.BLOCK : first // lighting.BLOCK + count] = values

        put(lighting.NX, samples[:, 2:5].T, 3)
        put(lighting.VX, (to_camera / np.linalg.norm(to_camera, axis=1, keepdims=True)).T, 3)
        put(lighting.PX, position.T, 3)
        put(lighting.RED, self._colours(samples[:, :2]).T, 3)
        eye, teeth = (part == EYE_LEFT) | (part == EYE_RIGHT), part == TEETH
        put(lighting.GLOSS, np.select([eye, teeth], [0.0, 0.5], 0.25))
        put(lighting.WRAP, np.select([eye, teeth], [0.4, 0.4], 1.0))
        put(lighting.WET, eye)
        # Lids shade the eyes, lips the teeth.
        centre = self.eye_centres[(part == EYE_RIGHT).astype(int)]
        height = (position - centre)[:, 1] / np.float32(1.9 * _SCALE)
        open_eye = 1 - 0.5 * np.clip((height - 0.1) / 0.5, 0, 1)
        open_mouth = np.clip((position[:, 2] - 0.15) / 0.4, 0.15, 0.9)
        openness = np.select([eye, teeth], [open_eye, open_mouth], 1.0)
        put(lighting.AMBIENT, openness)
        put(lighting.DIRECT, openness)
        return rows

    def _colours(self, uv: np.ndarray) -> np.ndarray:
        """Sample the texture bilinearly, float32[N, 3], linear light; ``uv`` float32[N, 2] with v upwards."""
        height, width = self._texture.shape[:2]
        x = np.clip(uv[:, 0] * width - 0.5, 0, width - 1.001)
        y = np.clip((1 - uv[:, 1]) * height - 0.5, 0, height - 1.001)
        i, j = y.astype(int), x.astype(int)
        fy, fx = (y - i)[:, None], (x - j)[:, None]
        top = (1 - fx) * self._texture[i, j] + fx * self._texture[i, j + 1]
        low = (1 - fx) * self._texture[i + 1, j] + fx * self._texture[i + 1, j + 1]
        colours: np.ndarray = (1 - fy) * top + fy * low
        return colours

    def _lights(self, positions: np.ndarray, camera: Camera, lights: Lights) -> tuple[Any, ...]:
        """Return the arguments of ``illuminate`` after the block and the count."""
        directions = (lights.directions @ camera.rotation).astype(np.float32)
        key = directions[0]
        right, up = raster.orthonormal_axes(key)
        everything = np.ones(len(self.triangles), bool)
        depth = raster.shadow_map(
            positions, self.triangles, everything, right, up, key, _SHADOW_TEXELS, lighting.SHADOW_EXTENT
        )
        if lights.shadow_pattern is not None:
            texels = np.arange(_SHADOW_TEXELS) * len(lights.shadow_pattern) // _SHADOW_TEXELS
            depth[lights.shadow_pattern[np.ix_(texels, texels)]] = -raster.FAR
        return (
            directions, lights.colours, lights.sky, lights.ground, camera.rotation[1].copy(), depth,
            raster.shadow_bounds(depth), right, up, np.float32(lights.softness), np.float32(lights.exposure),
        )  # fmt: skip


def _lit(rows: np.ndarray, lights: tuple[Any, ...]) -> np.ndarray:
    """Light samples block by block; float32[3, N], sRGB."""
    red = lighting.RED // lighting.BLOCK
    out = np.empty((3, rows.shape[1]), np.float32)
    block = np.empty(lighting.BLOCK_SIZE, np.float32)
    table = block[: _ROWS * lighting.BLOCK].reshape(_ROWS, lighting.BLOCK)
    for start in range(0, rows.shape[1], lighting.BLOCK):
        part = rows[:, start : start + lighting.BLOCK]
        count = part.shape[1]
        table[:, :count] = part
        illuminate(block, count, *lights)
        out[:, start : start + count] = table[red : red + 3, :count]
    return out


def _teeth(data: dict[str, np.ndarray]) -> Sequence[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Return the upper row of teeth and the lower one made of it, as (part, vertices, faces, uv, uv of faces)."""
    upper, faces, uv, face_uv = (data[f"teeth_{what}"] for what in ("vertices", "faces", "uv", "face_uv"))
    lower = upper * np.array([_LOWER_ROW_SCALE, -1, _LOWER_ROW_SCALE], np.float32)
    lower += np.array([0, 2 * _BITE, -_SET_BACK], np.float32)
    return (TEETH, upper, faces, uv, face_uv), (TEETH, lower, faces[:, ::-1], uv, face_uv[:, ::-1])


def _sphere_centre(points: np.ndarray) -> np.ndarray:
    """Return the centre of the sphere nearest to the points, float32[3], by least squares."""
    equations = np.concatenate([2 * points, np.ones((len(points), 1))], axis=1)
    solution = np.linalg.lstsq(equations, (points.astype(np.float64) ** 2).sum(axis=1), rcond=None)[0]
    return solution[:3].astype(np.float32)


def _hinge(points: np.ndarray, deltas: np.ndarray) -> tuple[float, np.ndarray]:
    """Return angle and axis (y, z) of the rotation about an axis along x that best moves points by deltas.

    The angle is that of the best rigid motion in the plane of y and z (Kabsch 1976); the axis stays where it is.
    """
    before, after = points[:, 1:].astype(np.float64), (points + deltas)[:, 1:].astype(np.float64)
    p, q = before - before.mean(axis=0), after - after.mean(axis=0)
    angle = float(np.arctan2((p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum(), (p * q).sum()))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offset = after.mean(axis=0) - turn @ before.mean(axis=0)
    return angle, np.linalg.solve(np.eye(2) - turn, offset).astype(np.float32)
