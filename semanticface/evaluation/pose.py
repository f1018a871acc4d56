"""Errors of head and eye rotations, and whether a turned head is mistaken for a turned gaze.

For the latter, ``gaze_pairs`` gives pictures in pairs: a turned head whose eyes look at the camera, and a head that
faces the camera with the eyes turned as far. A method that tells pose and gaze apart reads the gaze actions of both
equally well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semanticface import arkit
from semanticface.evaluation import bootstrap
from semanticface.evaluation.benchmark import plain
from semanticface.rendering.camera import place_camera
from semanticface.rendering.head.rig import rig

FIGURES = ("head", "yaw", "pitch", "roll", "gaze")
"""Mean absolute errors in degrees: of head yaw, pitch and roll together; of each; of both eyes' yaw and pitch."""
TURNED, FRONTAL = (15.0, 28.0), 6.0
"""Degrees of yaw of the turned heads of ``gaze_pairs``, at least and at most, and of the others at most."""

_EYES = [arkit.POSE_NAMES.index(f"{side}Eye{way}") for side in ("Left", "Right") for way in ("Yaw", "Pitch")]
_COLUMNS = {"head": [0, 1, 2], "yaw": [0], "pitch": [1], "roll": [2], "gaze": _EYES}
_GAZE = [arkit.INDEX[name] for name in arkit.NAMES if name.startswith("eyeLook")]


def pose_errors(
    true: np.ndarray, answers: Mapping[str, np.ndarray], people: Sequence[str], *, seed: int = 0
) -> dict[str, Any]:
    """Return the errors of rotations in degrees.

    Args:
        true: [N, 9] in radians.
        answers: [N, 9] in radians by method; rows without an answer are NaN and do not count.
        people: the person in each picture; the bootstrap resamples people, or pictures if all show the same one.
        seed: of the bootstrap.

    Returns:
        By method, ``answered`` (count) and the ``FIGURES``, [value, low, high] or None. Methods that answer no rotation
        are left out.
    """
    out: dict[str, Any] = {}
    for method, rows in answers.items():
        known = ~np.isnan(rows).any(axis=1)
        if known.any():
            errors = np.degrees(np.abs(rows[known] - np.asarray(true, np.float64)[known]))
            means = {name: errors[:, columns].mean(axis=1) for name, columns in _COLUMNS.items()}
            weights = bootstrap.resample(_groups(people, known), seed=seed)
            out[method] = {"answered": int(known.sum())} | {
                name: plain(bootstrap.mean(each, weights)) for name, each in means.items()
            }
    return out


def gaze_pairs(expressions: np.ndarray, seed: int) -> tuple[np.ndarray, list[int]]:
    """Return expressions and shots of pairs: a turned head that looks at the camera, then a frontal one.

    Args:
        expressions: float32[2 P, 52]; their gaze is replaced, and their eyes are open.
        seed: of the shots.

    Returns:
        float32[2 P, 52], and the seed of each shot for ``rendering.render``.
    """
    rng = np.random.default_rng([seed, 7])
    face = rig().average.vertices[rig().box_ids]
    out, shots = expressions.copy(), []
    gaze = np.zeros(2)
    for number in range(len(out)):
        turned = number % 2 == 0
        while True:
            shot = int(rng.integers(2**31))
            camera, _ = place_camera(face, shot, 64, "portrait")
            if TURNED[0] <= abs(camera.yaw) <= TURNED[1] if turned else abs(camera.yaw) <= FRONTAL:
                break
        if turned:
            gaze = -np.array([camera.yaw, camera.pitch])
        _look(out[number], *gaze)
        shots.append(shot)
    return out, shots


def gaze_errors(true: np.ndarray, answers: Mapping[str, np.ndarray], *, seed: int = 0) -> dict[str, Any]:
    """Return the mean absolute error of the eight gaze actions on pictures of ``gaze_pairs``.

    Args:
        true: [N, 52].
        answers: [N, 52] by method; rows without an answer are NaN, and do not count.
        seed: of the bootstrap over pictures.

    Returns:
        By method, ``turned`` and ``frontal``: [value, low, high], or None without an answer.
    """
    turned = np.arange(len(true)) % 2 == 0
    out: dict[str, Any] = {}
    for method, rows in answers.items():
        errors = np.abs(rows - true)[:, _GAZE].mean(axis=1)
        out[method] = {}
        for name, some in (("turned", turned), ("frontal", ~turned)):
            kept = some & ~np.isnan(errors)
            weights = bootstrap.resample(np.arange(kept.sum()), seed=seed) if kept.any() else None
            out[method][name] = None if weights is None else plain(bootstrap.mean(errors[kept], weights))
    return out


def pose_headline(sets: Mapping[str, Any], gaze: Mapping[str, Any], methods: Mapping[str, str]) -> dict[str, Any]:
    """Return the figures of the benchmark's last line.

    Args:
        sets: ``pose_errors`` by suffix of the figures' names.
        gaze: the result of ``gaze_errors``.
        methods: suffix of the names by method.

    Returns:
        ``head_degrees`` and ``gaze_degrees`` with the suffixes, null for a method without rotations; and
        ``gaze_mae_turned`` and ``gaze_mae_frontal``.
    """
    out: dict[str, Any] = {}
    for method, end in methods.items():
        for suffix, found in sets.items():
            for name in ("head", "gaze"):
                value = found.get(method, {}).get(name)
                out[f"{name}_degrees{suffix}{end}"] = None if value is None else value[0]
        for name, value in gaze.get(method, {}).items():
            out[f"gaze_mae_{name}{end}"] = None if value is None else value[0]
    return out


def _look(coefficients: np.ndarray, across: float, up: float) -> None:
    """Open the eyes and turn both by degrees to the subject's left and up: the inverse of ``arkit.gaze_degrees``."""
    for side, outward in (("Left", across), ("Right", -across)):
        for way, angle in (("Out", outward), ("In", -outward), ("Up", up), ("Down", -up)):
            coefficients[arkit.INDEX[f"eyeLook{way}{side}"]] = np.clip(angle / arkit.GAZE_DEGREES[way], 0, 1)
        coefficients[arkit.INDEX[f"eyeBlink{side}"]] = 0


def _groups(people: Sequence[str], known: np.ndarray) -> np.ndarray:
    names = np.asarray(people)[known]
    return names if len(set(people)) > 1 else np.arange(len(names))
