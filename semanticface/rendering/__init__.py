"""Render a face from 52 coefficients, with exact labels.

    from semanticface.rendering import render
    render(coefficients, style="photo", subject=7, shot=3).image

The subject's seed fixes shape and appearance, the shot's seed camera, light and background. The same arguments give
the same bytes.
"""

from __future__ import annotations

import numpy as np

from semanticface.arkit import N_ACTIONS, N_POSE
from semanticface.errors import ConfigError
from semanticface.rendering.camera import Framing
from semanticface.rendering.conditions import CONDITIONS, Conditions, condition_settings
from semanticface.rendering.types import FAMILIES, HEAD_STYLES, HELD_OUT_STYLE, POINTS, STYLES, Family, Rendered

__all__ = [
    "CONDITIONS",
    "FAMILIES",
    "HEAD_STYLES",
    "HELD_OUT_STYLE",
    "POINTS",
    "STYLES",
    "Conditions",
    "Family",
    "Rendered",
    "render",
]


def render(
    coefficients: np.ndarray, *, style: str = "photo", subject: int | None = 0, shot: int | None = None,
    size: int = 224, supersample: int = 2, framing: Framing = "portrait", conditions: Conditions = "usual",
    family: Family = "makehuman", vary_actions: bool = False, pose: np.ndarray | None = None,
) -> Rendered:  # fmt: skip
    """Render a face.

    Args:
        coefficients: [52] in [0, 1], project order.
        style: one of ``STYLES``, or ``HELD_OUT_STYLE``.
        subject: seed of shape and appearance; ``None`` is the plain average head.
        shot: seed of camera, light, background and sensor; ``None`` is a plain frontal portrait.
        size: side of the square image in pixels.
        supersample: samples per pixel along each side, 1 to 4.
        framing: ``portrait``: the head somewhere in the frame; ``crop``: the frame is the face's box, jittered by
            the shot by up to 6 % of its side and 10 % in scale.
        conditions: ``usual``: what models train on; ``hard``: harsh light, blur, noise, compression, occluders,
            large head turns. Without a shot both are the same.
        family: of heads that ``photo`` and ``toon`` render, one of ``FAMILIES``; the other styles have their own.
        vary_actions: whether each subject carries out the actions in their own way, see ``head.movement``; otherwise
            all do exactly what the family's data says. The coefficients are the label either way.
        pose: [9], ``arkit.POSE_NAMES`` in radians: turns the head without a shot; the eyes follow the coefficients.

    Raises:
        ConfigError: unknown style, framing, conditions or family; size or supersample out of range; wrong shape of
            ``coefficients`` or ``pose``.
    """
    c = np.asarray(coefficients, np.float32)
    if c.shape != (N_ACTIONS,) or not np.isfinite(c).all():
        raise ConfigError(f"coefficients must be {N_ACTIONS} finite numbers, got shape {c.shape}.")
    if not 16 <= size <= 2048 or not 1 <= supersample <= 4:
        raise ConfigError(f"size {size} and supersample {supersample}: use 16 to 2048 and 1 to 4.")
    c = np.clip(c, 0, 1)
    condition_settings(conditions)
    if style not in (*STYLES, HELD_OUT_STYLE):
        raise ConfigError(f"style {style!r} is unknown: use one of {', '.join((*STYLES, HELD_OUT_STYLE))}.")
    if family not in FAMILIES:
        raise ConfigError(f"family {family!r} is unknown: use one of {', '.join(FAMILIES)}.")
    turn = np.zeros(3) if pose is None else np.degrees(np.asarray(pose, np.float64)[:3]) * (-1, -1, 1)
    if turn.shape != (3,) or not np.isfinite(turn).all():
        raise ConfigError(f"pose must be {N_POSE} finite numbers.")
    yaw, pitch, roll = turn.tolist()
    # Imported here so that the package's names and constants load neither numba nor skia.
    from semanticface.rendering.draw import draw

    return draw(c, style=style, subject=subject, shot=shot, size=size, supersample=supersample, framing=framing,
                conditions=conditions, family=family, vary_actions=vary_actions,
                turn=(yaw, pitch, roll))  # fmt: skip
