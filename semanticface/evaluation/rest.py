"""How faces at rest look: a few distances on the face, from MediaPipe's landmarks, of people and of renders.

A renderer's neutral face must look like people's, or a model that learns from it reads their shape as an expression:
a gaze at the camera as a look up, thin lips as rolled in. The measures need MediaPipe's landmarks only, so pictures
and renders are measured alike.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from semanticface import arkit

MEASURES: MappingProxyType[str, str] = MappingProxyType(
    {
        "iris": "iris above the line of the eye corners, in eye widths",
        "upper lid": "upper lid above the iris centre, in eye widths",
        "opening": "lid from lid, in eye widths",
        "lips": "height of the closed lips, in distances of the eyes",
        "brow": "brow above the line of the eye corners, in distances of the eyes",
        "mouth corners": "mouth corners above the line between the lips, in distances of the eyes",
        "brow sides": "left brow above the right, in distances of the eyes",
        "mouth sides": "left mouth corner above the right, in distances of the eyes",
    }
)
"""What each measure is; the last two are signed differences of the sides, 0 on a symmetric face."""
# Landmarks of MediaPipe's face mesh, the subject's left first: eye corners, lids, iris and brow of each side.
_CORNERS = ((362, 263), (133, 33))
_UPPER_LID, _LOWER_LID, _IRIS = (386, 159), (374, 145), (473, 468)
_BROWS = ((334, 296, 293, 282, 295, 283), (105, 66, 63, 52, 65, 53))
_LIPS_TOP, _LIPS_BOTTOM, _LIPS_INNER, _MOUTH_CORNERS = 0, 17, (13, 14), (291, 61)
_FOREHEAD, _CHIN = 10, 152
# Of a face at rest, seen from the front: degrees from MediaPipe's usual -6 of pitch, and distances of the eyes.
_MOST_TURN, _USUAL_PITCH, _MOST_GAP = 12.0, -6.0, 0.06


def measure(points: np.ndarray) -> dict[str, float]:
    """Return the measures of one face by name; the distance of the eyes is that of the middles of their corners.

    Args:
        points: float[478, 2 or more], MediaPipe's landmarks in pixels, y downwards.
    """
    points = points[:, :2]
    corners = points[np.array(_CORNERS)]
    centres = corners.mean(1)
    across = centres[0] - centres[1]
    distance = float(np.linalg.norm(across))
    x, y = across / distance, np.array([across[1], -across[0]]) / distance
    face = np.stack([(points - centres.mean(0)) @ x, (points - centres.mean(0)) @ y], 1)
    eyes = []
    for side in range(2):
        inner, outer = face[list(_CORNERS[side])]
        width = np.linalg.norm(outer - inner)
        along = (outer - inner) / width
        up = np.array([-along[1], along[0]]) * np.sign(along[0])
        iris, upper, lower = (
            (face[places[side]] - (inner + outer) / 2) @ up / width for places in (_IRIS, _UPPER_LID, _LOWER_LID)
        )
        eyes.append((iris, upper - iris, upper - lower))
    iris, upper, opening = np.mean(eyes, 0)
    brows = [face[list(brow), 1].mean() / distance for brow in _BROWS]
    mouth = face[list(_MOUTH_CORNERS), 1]
    return {
        "iris": float(iris),
        "upper lid": float(upper),
        "opening": float(opening),
        "lips": float(face[_LIPS_TOP, 1] - face[_LIPS_BOTTOM, 1]) / distance,
        "brow": float(np.mean(brows)),
        "mouth corners": float(mouth.mean() - face[list(_LIPS_INNER), 1].mean()) / distance,
        "brow sides": float(brows[0] - brows[1]),
        "mouth sides": float(mouth[0] - mouth[1]) / distance,
    }


def is_at_rest(points: np.ndarray, scores: np.ndarray) -> bool:
    """Return whether a face is near-neutral, its lips closed, and seen from the front, by MediaPipe's numbers.

    Args:
        points: float[478, 3], landmarks in pixels, depth in the same scale.
        scores: float[52], MediaPipe's coefficients.
    """
    value = arkit.by_name(scores)
    across = points[_CORNERS[0][1]] - points[_CORNERS[1][1]]
    down = points[_CHIN] - points[_FOREHEAD]
    yaw, pitch = np.degrees([np.arctan2(across[2], across[0]), np.arctan2(-down[2], down[1])])
    upper, lower = points[list(_LIPS_INNER)]
    return bool(
        max(value["mouthSmileLeft"], value["mouthSmileRight"]) < 0.4
        and value["jawOpen"] < 0.1
        and max(value["eyeBlinkLeft"], value["eyeBlinkRight"]) < 0.3
        and np.linalg.norm(upper - lower) < _MOST_GAP * np.linalg.norm(across)
        and max(abs(yaw), abs(pitch - _USUAL_PITCH)) < _MOST_TURN
    )


def statistics(faces: list[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Return mean and standard deviation of each measure over faces."""
    return {name: (float(np.mean(v)), float(np.std(v))) for name in MEASURES for v in [[f[name] for f in faces]]}
