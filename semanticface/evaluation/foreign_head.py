"""A head that is not ours, to measure on: the generic head of FaceCap's example, drawn with this project's lights.

Our own heads share one mesh, one set of expressions and one painter of skin and eyes, and models train on them. This
head has none of these: it was modelled, textured and rigged by someone else (hizzlehoff's FaceCap example, MIT, see
``eval/data/LICENSE-facecap.txt``), from whom come the vertices, the 52 ARKit deltas and the texture. Camera, light,
background and sensor are those of our photo style. Nothing may be trained on this head or tuned to it.

Its lower teeth follow the jaw by its own deltas. Added here, because its file has neither:

* the eyeballs turn by the angles of our own rig (30 degrees out and in, 22 up, 25 down at coefficient 1);
* the neck is closed, and the inside of the head is dark, so that an open mouth does not show the background.

``tongueOut`` moves nothing on this head: leave it out of the score.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semanticface import arkit
from semanticface.arkit import gaze_degrees, pose_of
from semanticface.recipe import files_sha256
from semanticface.rendering import Rendered, lighting, raster
from semanticface.rendering.camera import Camera, place_camera
from semanticface.rendering.head.rig import rig, sphere_of, vertex_normals
from semanticface.rendering.lighting import Lights, illuminate, sample_lights
from semanticface.rendering.sensor import simulate_sensor
from semanticface.rendering.shading.background import background
from semanticface.rendering.types import POINTS

UNSCORED = ("tongueOut",)
"""Actions that do not move this head."""

SKIN, EYE_LEFT, EYE_RIGHT, TEETH, INSIDE = range(5)
_SCALE = 0.1  # to decimetres, as our own heads
_SHADOW_TEXELS = 640
_LOWER_TEETH = 0.145  # of the texture's width: what lies left of it is painted on the lower teeth
_INSIDE = 0.03  # brightness of the head's inside, of its outside's
_ROWS = 18  # of a block that ``illuminate`` reads


class ForeignHead:
    """The head in decimetres: y up, z out of the face, +x to the subject's left. It never changes.

    Args:
        folder: with ``facecap.npz`` and ``facecap.png``.

    Attributes:
        name: of the person that it shows.
        identity: hash of the files and of this module: the same identity draws the same pictures, as far as the
            renderer is the same.
        triangles: int32[T, 3], of corners; a vertex has one corner for each of its places in the texture.
        part: uint8[T], one of ``SKIN``, ``EYE_LEFT``, ``EYE_RIGHT``, ``TEETH`` and ``INSIDE``.
        corners: int64[C], the vertex of each corner.
        n_surface: number of triangles before those that close the neck, which are last.
        eye_centres: float32[2, 3], left eye first.
    """

    name = "facecap"

    def __init__(self, folder: Path) -> None:
        self.identity = files_sha256([folder / "facecap.npz", folder / "facecap.png", Path(__file__)])[:16]
        with np.load(folder / "facecap.npz") as file:
            data = dict(file)
        with Image.open(folder / "facecap.png") as opened:
            picture = np.asarray(opened.convert("RGB"), np.float32) / 255
        # sRGB to linear light.
        self._texture = np.where(picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055) ** 2.4)
        names = [str(name) for name in data["expr_names"]]
        self._deltas = _SCALE * data["expr"].astype(np.float32)[[names.index(arkit.SUFFIXED[n]) for n in arkit.NAMES]]

        meshes = [
            (part, *(data[f"{name}_{what}"] for what in ("vertices", "faces", "uv", "face_uv")))
            for part, name in ((SKIN, "head"), (EYE_LEFT, "eyeLeft"), (EYE_RIGHT, "eyeRight"), (TEETH, "teeth"))
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
        self.corners, self._uv = np.concatenate(corners), np.concatenate(uv).astype(np.float32)
        part[0][data["head_uv"][data["head_face_uv"], 0].max(axis=1) < _LOWER_TEETH] = TEETH
        # The corners of the rim of the neck: any place in the texture will do, as the lid that closes it is dark.
        rim = np.searchsorted(corners[0], _longest_rim(data["head_faces"]))
        lid = [(rim[0], rim[k], rim[k + 1]) for k in range(1, len(rim) - 1)]
        self.n_surface = sum(map(len, triangles))
        self.triangles = np.concatenate([*triangles, lid]).astype(np.int32)
        self.part = np.concatenate([*part, np.full(len(lid), INSIDE)]).astype(np.uint8)
        self._head, self._eyes = rows[0], rows[1:3]
        self.eye_centres = np.stack([sphere_of(self._vertices[eye])[0] for eye in self._eyes]).astype(np.float32)

        head = self._vertices[self._head]
        # What our own heads' boxes hold too: from the brows to the chin, cheek to cheek.
        brows = np.linalg.norm(self._deltas[arkit.INDEX["browOuterUpLeft"]], axis=1).argmax()
        self._box = (head[:, 2] > 0.1) & (head[:, 1] < head[brows, 1] + 0.05) & (head[:, 1] > -0.9)

    def vertices(self, coefficients: np.ndarray) -> np.ndarray:
        """Positions under an expression, float32[V, 3]: head and lower teeth, left eye, right eye, upper teeth.

        Args:
            coefficients: float[52] in [0, 1], project order.
        """
        c = np.asarray(coefficients, np.float32)
        out = self._vertices.copy()
        out[self._head] += np.tensordot(c, self._deltas, axes=1)
        for centre, rows, rotation in zip(self.eye_centres, self._eyes, rig().eye_rotations(c), strict=True):
            out[rows] = centre + (out[rows] - centre) @ rotation.T
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
        faces = self.corners[self.triangles[: self.n_surface]].astype(np.int32)
        attributes = np.concatenate(
            [self._uv, vertex_normals(vertices, faces)[self.corners], vertices[self.corners]], 1
        )
        image = self._shade(attributes, camera, sample_lights(shot), background(shot, size), supersample)
        points = np.full((len(POINTS), 2), np.nan, np.float32)
        pose = pose_of((camera.yaw, camera.pitch, camera.roll), gaze_degrees(c))
        return Rendered(simulate_sensor(image, shot), points, box, camera.to_dict(size, box), pose, c)

    def _shade(
        self, attributes: np.ndarray, camera: Camera, lights: Lights, ground: np.ndarray, supersample: int
    ) -> np.ndarray:
        """Return the shaded picture, float32[size, size, 3], sRGB; ``attributes`` as in ``_material``."""
        side = len(ground) * supersample
        positions = np.ascontiguousarray(attributes[:, 5:8])
        screen = camera.scaled(supersample).project(positions)
        two_sided = (self.part == SKIN) | (self.part == INSIDE)
        found, w1, w2, _ = raster.visibility(screen, self.triangles, two_sided, side, side, "foreign")
        out = np.repeat(np.repeat(ground, supersample, axis=0), supersample, axis=1).reshape(-1, 3)
        hit = np.flatnonzero(found != raster.EMPTY)
        triangle, b1, b2 = found.ravel()[hit], w1.ravel()[hit, None], w2.ravel()[hit, None]
        a, b, c = (attributes[self.triangles[triangle, k]] for k in range(3))
        rows = self._material((1 - b1 - b2) * a + b1 * b + b2 * c, self.part[triangle], camera)
        inside = _seen_from_behind(screen, self.triangles) | (self.part == INSIDE)
        red = lighting.RED // lighting.BLOCK
        rows[red : red + 3, inside[triangle]] *= _INSIDE
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


def _seen_from_behind(screen: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return which triangles show their back, bool[T]."""
    a, b, c = (screen[triangles[:, k], :2] for k in range(3))
    ab, ac = b - a, c - a
    return np.asarray(ab[:, 1] * ac[:, 0] - ab[:, 0] * ac[:, 1] < 0)


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


def _longest_rim(faces: np.ndarray) -> np.ndarray:
    """Return the vertices along the longest border of a mesh, int64[R]; here the neck's."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).tolist()
    directed = {(a, b) for a, b in edges}
    after = {b: a for a, b in directed if (b, a) not in directed}
    rims = []
    while after:
        vertex = next(iter(sorted(after)))
        rim = []
        while vertex in after:
            rim.append(vertex)
            vertex = after.pop(vertex)
        rims.append(rim)
    return np.array(max(rims, key=len))
