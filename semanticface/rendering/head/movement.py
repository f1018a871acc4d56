"""How one subject carries out the 52 actions: no two people, and no two makers of heads, move the same way.

The coefficients stay the label. What changes by subject is how far each action goes, and a little of what goes with it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from semanticface import arkit
from semanticface.rendering.head.rig import Identity, Movement

_GAIN_STD, _GAIN_MIN, _GAIN_MAX = 0.2, 0.6, 1.4
_SIDE_STD = 0.04
# Actions with a physical end: their gain, as (lowest, highest).
_LIMITS = {"eyeBlink": (1.0, 1.0), "jawOpen": (0.8, 1.2), "jawForward": (0.8, 1.2), "tongueOut": (0.8, 1.2)}
_GAZE_MIN, _GAZE_MAX = 0.85, 1.15
# An action brings up to this much of the deltas of this many others of its region.
_CROSSTALK, _NEIGHBOURS = 0.07, 3
_ALONE = ("eyeBlink", "eyeLook", "jawOpen", "mouthClose", "tongueOut")


def movement_of(subject: int) -> Movement:
    """Sample how a subject moves.

    Gains lie in 0.6 to 1.4, about 1 on average, and nearly the same on both sides. Lids still close at eyeBlink 1, lips
    at mouthClose 1 whatever jawOpen's gain, and eyes turn by 0.85 to 1.15 times the stated angles.
    """
    rng = np.random.default_rng([subject, 16])
    gaze = np.array([rng.uniform(_GAZE_MIN, _GAZE_MAX), rng.uniform(_GAZE_MIN, _GAZE_MAX)], np.float32)
    gains: dict[str, float] = {}
    for name in arkit.NAMES:
        stem = arkit.stem(name)
        if stem not in gains:
            low, high = _LIMITS.get(stem, (_GAIN_MIN, _GAIN_MAX))
            gains[stem] = float(np.clip(rng.normal(1, _GAIN_STD), low, high))
        gains[name] = gains[stem]
        if stem != name and stem not in _LIMITS:
            gains[name] = float(np.clip(gains[stem] * rng.normal(1, _SIDE_STD), _GAIN_MIN, _GAIN_MAX))
        if stem.startswith("eyeLook"):  # the lids follow the eye
            gains[name] = float(gaze[int(stem.endswith(("Up", "Down")))])
    gains["mouthClose"] = gains["jawOpen"]
    mixing = np.diag([gains[name] for name in arkit.NAMES])
    for j, action in enumerate(arkit.ACTIONS):
        others = _neighbours(action)
        if others:
            chosen = rng.choice(others, min(_NEIGHBOURS, len(others)), replace=False)
            mixing[chosen, j] = rng.uniform(0, _CROSSTALK, len(chosen))
    return Movement(mixing.astype(np.float32), np.stack([gaze, gaze]))


def _neighbours(action: arkit.Action) -> list[int]:
    """Actions of the same region that do not belong to the other side."""
    if action.name.startswith(_ALONE):
        return []
    return [
        k
        for k, other in enumerate(arkit.ACTIONS)
        if other.region == action.region and other.name != action.name and not other.name.startswith(_ALONE)
        and (other.side == "both" or action.side in ("both", other.side))
    ]  # fmt: skip


def varied(identity: Identity, subject: int) -> Identity:
    """The identity with the subject's own way of moving."""
    own = movement_of(subject)
    if identity.movement is not None:
        mixing, gaze = identity.movement.mixing @ own.mixing, identity.movement.gaze * own.gaze
        own = Movement(mixing.astype(np.float32), gaze)
    return replace(identity, movement=own)
