"""Sample a camera for a shot, project vertices to pixels, and compute the face's box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from semanticface.errors import ConfigError
from semanticface.rendering.conditions import Conditions, condition_settings

Framing = Literal["portrait", "crop"]
BOX_MARGIN = 1.25
MIN_DISTANCE = 4.5


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """A pinhole camera on the z axis; the head is rotated in front of it.

    Attributes:
        rotation: float32[3, 3], head space to camera space (x right in the image, y up, z towards the camera).
        distance: from the camera to the head's origin, decimetres.
        focal: focal length in pixels.
        centre: principal point, pixel x, y.
        yaw, pitch, roll: degrees; yaw to the subject's left, pitch up, roll towards the subject's left shoulder.
    """

    rotation: np.ndarray
    distance: float
    focal: float
    centre: tuple[float, float]
    yaw: float
    pitch: float
    roll: float

    def project(self, vertices: np.ndarray) -> np.ndarray:
        """Pixel x, y and 1 / depth of head-space points, float32[..., 3]."""
        p = vertices @ self.rotation.T
        inv_depth = 1 / (self.distance - p[..., 2])
        zoom = self.focal * inv_depth
        out = np.empty(p.shape, np.float32)
        out[..., 0] = self.centre[0] + zoom * p[..., 0]
        out[..., 1] = self.centre[1] - zoom * p[..., 1]
        out[..., 2] = inv_depth
        return out

    def scaled(self, factor: int) -> Camera:
        """The same view on an image of ``factor`` times the size."""
        centre = (self.centre[0] * factor, self.centre[1] * factor)
        return Camera(self.rotation, self.distance, self.focal * factor, centre, self.yaw, self.pitch, self.roll)

    def to_dict(self, size: int, box: np.ndarray) -> dict[str, float]:
        """The values of ``types.Rendered.camera``."""
        fov = float(np.degrees(2 * np.arctan(size / 2 / self.focal)))
        scale = float(box[2] - box[0]) / size
        return {"yaw": self.yaw, "pitch": self.pitch, "roll": self.roll, "fov": fov, "distance": self.distance,
                "scale": scale}  # fmt: skip


def rotation_matrix(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation by yaw about y, then pitch about the camera's x, then roll in the image; degrees."""
    y, p, r = np.radians([yaw, -pitch, -roll])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rx = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    rz = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return (rz @ rx @ ry).astype(np.float32)


def square_box(points: np.ndarray) -> np.ndarray:
    """Square box around projected vertices of the neutral face, enlarged by ``BOX_MARGIN``; float32[4]."""
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    centre, half = (low + high) / 2, (high - low).max() / 2 * BOX_MARGIN
    return np.concatenate([centre - half, centre + half]).astype(np.float32)


def place_camera(
    face: np.ndarray,
    shot: int | None,
    size: int,
    framing: Framing,
    conditions: Conditions = "usual",
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> tuple[Camera, np.ndarray]:
    """Sample a camera for a shot.

    Args:
        face: float32[B, 3], vertices of the neutral face that define the box.
        shot: seed; ``None`` is frontal with a 20 degree field of view.
        size: side of the square image in pixels.
        framing: ``portrait`` puts the head anywhere in the frame, ``crop`` fills the frame with the box.
        conditions: decides how far heads turn.
        turn: yaw, pitch and roll in degrees without a shot, with the signs of ``Camera``.

    Returns:
        The camera, and the box in pixels.
    """
    if framing not in ("portrait", "crop"):
        raise ConfigError(f"framing {framing!r} is unknown: use 'portrait' or 'crop'.")
    yaw, pitch, roll = turn
    fov, fraction, shift = 20.0, 0.72, np.zeros(2)
    jitter, zoom = np.zeros(2), 1.0
    if shot is not None:
        rng = np.random.default_rng([shot, 21])
        settings = condition_settings(conditions)
        spread = 1.7 if rng.random() < 0.08 else 1.0
        yaw, pitch, roll = (
            float(np.clip(rng.normal(0, s * spread), -m, m))
            for s, m in zip(settings.turn_std, settings.turn_max, strict=True)
        )
        fov = float(rng.uniform(16, 66))
        fraction = float(rng.uniform(0.42, 0.95))
        shift = rng.normal(0, 0.25, 2)
        jitter, zoom = rng.uniform(-0.06, 0.06, 2), float(rng.uniform(0.9, 1.1))
    rotation = rotation_matrix(yaw, pitch, roll)
    half = fraction * np.tan(np.radians(fov / 2))
    distance = float(max(1.05 * BOX_MARGIN * 0.75 / half, MIN_DISTANCE))
    camera = Camera(rotation, distance, 1.0, (0.0, 0.0), yaw, pitch, roll)
    box = square_box(camera.project(face))
    side = float(box[2] - box[0])
    middle = (box[:2] + box[2:]) / 2
    if framing == "crop":
        focal = size * zoom / side
        target = size * (0.5 + jitter)
    else:
        focal = size * fraction / side
        free = size * (1 - fraction) / 2
        target = size / 2 + np.clip(shift, -0.6, 0.6) * free
    centre = target - middle * focal
    camera = Camera(rotation, distance, float(focal), (float(centre[0]), float(centre[1])), yaw, pitch, roll)
    return camera, square_box(camera.project(face))
