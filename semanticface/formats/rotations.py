"""Head and eye rotations of a recording as quaternions, for animations.

Axes of the face: x to the subject's left, y up, z out of the face, as glTF has them. Quaternions are x, y, z, w. The
head turns by yaw about its own y axis, then by pitch about the viewer's x axis, then by roll in the picture, as in
``rendering.camera.rotation_matrix``; an eye by pitch, then by yaw, as in ``rendering.head.rig``.
"""

from __future__ import annotations

import numpy as np

from semanticface import arkit
from semanticface.formats.recording import CoefficientTrack

_HEAD, _EYES = slice(0, 3), slice(3, 9)


def multiply(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the quaternions of ``second``, then ``first``; [..., 4] and [..., 4] to [..., 4]."""
    a, b = np.asarray(first)[..., 3:], np.asarray(second)[..., 3:]
    u, v = np.asarray(first)[..., :3], np.asarray(second)[..., :3]
    return np.concatenate([a * v + b * u + np.cross(u, v), a * b - (u * v).sum(-1, keepdims=True)], -1)


def inverse(rotation: np.ndarray) -> np.ndarray:
    """Return the opposite rotations of unit quaternions [..., 4]."""
    out: np.ndarray = np.asarray(rotation) * (-1, -1, -1, 1)
    return out


def head_rotations(pose: np.ndarray) -> np.ndarray:
    """Return how a pose [..., 9] in radians turns the head, float64[..., 4]."""
    yaw, pitch, roll = np.moveaxis(np.asarray(pose, np.float64)[..., _HEAD], -1, 0)
    return multiply(_about(2, -roll), multiply(_about(0, pitch), _about(1, -yaw)))


def eye_rotations(pose: np.ndarray) -> np.ndarray:
    """Return how a pose [..., 9] in radians turns the left and the right eye in the head, float64[..., 2, 4]."""
    eyes = np.asarray(pose, np.float64)[..., _EYES].reshape(*np.shape(pose)[:-1], 2, 3)
    yaw, pitch, roll = np.moveaxis(eyes, -1, 0)
    return multiply(_about(1, -yaw), multiply(_about(0, pitch), _about(2, -roll)))


def gaze_rotations(coefficients: np.ndarray) -> np.ndarray:
    """Return how the gaze actions of coefficients [..., 52] turn the eyes, as ``eye_rotations``."""
    gaze = arkit.gaze_degrees(coefficients)
    return eye_rotations(arkit.pose_of(np.zeros((*gaze.shape[:-2], 3)), gaze))


def recorded_head(track: CoefficientTrack) -> np.ndarray | None:
    """Return the head's rotations over a recording, float64[T, 4]; None if it has none."""
    return head_rotations(track.pose) if track.pose[:, _HEAD].any() else None


def recorded_eyes(track: CoefficientTrack) -> np.ndarray | None:
    """Return the eyes' rotations over a recording, float64[T, 2, 4]; None if it has none."""
    return eye_rotations(track.pose) if track.pose[:, _EYES].any() else None


def from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Return the unit quaternion of a rotation matrix [3, 3], float64[4]."""
    # The eigenvector of the largest eigenvalue: Bar-Itzhack, "New Method for Extracting the Quaternion from a Rotation
    # Matrix", 2000. Unlike the common formula it has no special cases.
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = np.asarray(matrix, np.float64).tolist()
    k = np.array(
        [
            [xx - yy - zz, 0, 0, 0],
            [yx + xy, yy - xx - zz, 0, 0],
            [zx + xz, zy + yz, zz - xx - yy, 0],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    vector: np.ndarray = np.linalg.eigh(k)[1][:, -1]  # takes the lower triangle
    return vector if vector[3] >= 0 else -vector


def _about(axis: int, angle: np.ndarray) -> np.ndarray:
    out = np.zeros((*np.shape(angle), 4))
    out[..., axis], out[..., 3] = np.sin(angle / 2), np.cos(angle / 2)
    return out
