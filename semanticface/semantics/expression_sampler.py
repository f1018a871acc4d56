"""Sample random expressions that look human and still exercise every action evenly.

A sample combines prototype expressions and visemes (coherent, as people make them), gaze and eyelids (both eyes move
together), and independently sampled actions (so that no action can be predicted from another). Finally constraints
are enforced: some actions require each other, some exclude each other.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from semanticface import arkit
from semanticface.arkit import INDEX

# A family is one muscle group on both sides, or one midline movement. Sampling weights compensate for prototypes, which
# favour some families, and exclusions, which suppress others, so that all are active about equally often.
FAMILIES: MappingProxyType[str, float] = MappingProxyType(
    {
        "eyeSquint": 0.6, "eyeWide": 1.2, "jawForward": 0.6, "jawSide": 1.7, "jawOpen": 0.6, "mouthClose": 0.9,
        "mouthFunnel": 2.1, "mouthPucker": 1.2, "mouthSide": 1.6, "mouthSmile": 1.4, "mouthFrown": 0.9,
        "mouthDimple": 1.4, "mouthStretch": 1.0, "mouthRollLower": 1.3, "mouthRollUpper": 1.2, "mouthShrugLower": 0.7,
        "mouthShrugUpper": 0.8, "mouthPress": 1.6, "mouthLowerDown": 0.7, "mouthUpperUp": 0.6, "browDown": 0.6,
        "browInnerUp": 0.5, "browOuterUp": 0.9, "cheekPuff": 1.3, "cheekSquint": 0.7, "noseSneer": 0.7,
        "tongueOut": 1.4,
    }
)  # fmt: skip
_FAMILY_NAMES = tuple(FAMILIES)
_FAMILY_WEIGHTS = np.array(list(FAMILIES.values())) / sum(FAMILIES.values())

# Prototype expressions at full strength; a family sets both sides. From FACS descriptions of the basic emotions (EMFACS
# action unit sets) and of common conversational signals, translated to ARKit actions.
EXPRESSIONS: MappingProxyType[str, dict[str, float]] = MappingProxyType(
    {
        "smile": {"mouthSmile": 0.8, "cheekSquint": 0.5, "mouthDimple": 0.2, "eyeSquint": 0.3},
        "open smile": {"mouthSmile": 0.9, "cheekSquint": 0.6, "mouthUpperUp": 0.5, "mouthLowerDown": 0.4,
                       "jawOpen": 0.2, "eyeSquint": 0.4},
        "laugh": {"mouthSmile": 0.9, "cheekSquint": 0.8, "jawOpen": 0.6, "mouthUpperUp": 0.5, "mouthLowerDown": 0.5,
                  "eyeSquint": 0.7, "eyeBlink": 0.4, "noseSneer": 0.2},
        "surprise": {"browInnerUp": 0.8, "browOuterUp": 0.9, "eyeWide": 0.8, "jawOpen": 0.6, "mouthFunnel": 0.2},
        "awe": {"browInnerUp": 0.6, "browOuterUp": 0.5, "eyeWide": 0.5, "jawOpen": 0.4, "mouthSmile": 0.4},
        "anger": {"browDown": 0.9, "eyeSquint": 0.5, "noseSneer": 0.4, "mouthPress": 0.7, "mouthFrown": 0.3,
                  "jawForward": 0.3, "mouthShrugLower": 0.3},
        "rage": {"browDown": 1.0, "eyeWide": 0.4, "noseSneer": 0.7, "mouthUpperUp": 0.6, "mouthLowerDown": 0.7,
                 "mouthStretch": 0.4, "jawOpen": 0.5, "mouthFunnel": 0.3},
        "sadness": {"browInnerUp": 0.8, "browDown": 0.3, "mouthFrown": 0.8, "mouthShrugLower": 0.5,
                    "eyeSquint": 0.3, "eyeBlink": 0.2, "mouthRollLower": 0.2},
        "crying": {"browInnerUp": 0.8, "browDown": 0.4, "mouthFrown": 0.7, "mouthStretch": 0.6, "mouthLowerDown": 0.5,
                   "cheekSquint": 0.5, "eyeBlink": 0.6, "jawOpen": 0.3},
        "fear": {"browInnerUp": 0.9, "browOuterUp": 0.5, "browDown": 0.3, "eyeWide": 0.9, "mouthStretch": 0.8,
                 "jawOpen": 0.3, "mouthLowerDown": 0.3},
        "disgust": {"noseSneer": 0.9, "mouthUpperUp": 0.7, "browDown": 0.4, "cheekSquint": 0.4, "eyeSquint": 0.5,
                    "mouthShrugLower": 0.3, "mouthFrown": 0.3},
        "revulsion": {"noseSneer": 0.7, "mouthUpperUp": 0.6, "tongueOut": 0.7, "jawOpen": 0.5, "eyeSquint": 0.7,
                      "mouthStretch": 0.3, "browDown": 0.5},
        "contempt": {"mouthDimple": 0.7, "mouthSmile": 0.3, "mouthPress": 0.3, "eyeSquint": 0.2, "browDown": 0.2},
        "doubt": {"mouthShrugLower": 0.8, "mouthShrugUpper": 0.6, "mouthFrown": 0.5, "browInnerUp": 0.3,
                  "browOuterUp": 0.4},
        "suspicion": {"eyeSquint": 0.8, "browDown": 0.5, "mouthPress": 0.4, "mouthSide": 0.5, "mouthPucker": 0.2},
        "concentration": {"browDown": 0.5, "eyeSquint": 0.4, "mouthRollLower": 0.6, "mouthPress": 0.4,
                          "mouthSide": 0.2},
        "kiss": {"mouthPucker": 0.9, "eyeBlink": 0.5, "mouthFunnel": 0.2, "jawForward": 0.2},
        "whistle": {"mouthPucker": 0.8, "mouthFunnel": 0.5, "cheekPuff": 0.3, "browOuterUp": 0.3},
        "puff": {"cheekPuff": 0.9, "mouthPress": 0.5, "mouthClose": 0.1, "jawOpen": 0.15, "eyeWide": 0.3},
        "pout": {"mouthShrugLower": 0.8, "mouthPucker": 0.4, "mouthFrown": 0.4, "browDown": 0.3, "jawForward": 0.4},
        "cheeky tongue": {"tongueOut": 0.9, "jawOpen": 0.4, "mouthSmile": 0.5, "eyeSquint": 0.4},
        "yawn": {"jawOpen": 1.0, "eyeBlink": 0.8, "mouthStretch": 0.3, "browInnerUp": 0.4, "noseSneer": 0.3,
                 "mouthFunnel": 0.3},
        "pain": {"browDown": 0.8, "eyeSquint": 0.8, "cheekSquint": 0.7, "noseSneer": 0.5, "mouthUpperUp": 0.5,
                 "mouthStretch": 0.7, "eyeBlink": 0.5},
        "lips in": {"mouthRollLower": 0.8, "mouthRollUpper": 0.8, "mouthPress": 0.5, "browInnerUp": 0.3},
        "chewing": {"jawOpen": 0.2, "mouthClose": 0.18, "jawSide": 0.7, "mouthPress": 0.3, "cheekPuff": 0.2,
                    "mouthSide": 0.3},
        "grimace": {"mouthStretch": 0.9, "mouthLowerDown": 0.7, "mouthUpperUp": 0.3, "browInnerUp": 0.3,
                    "eyeWide": 0.3},
    }
)  # fmt: skip

# Visemes, by a sound that produces them.
VISEMES: MappingProxyType[str, dict[str, float]] = MappingProxyType(
    {
        "aa": {"jawOpen": 0.7, "mouthLowerDown": 0.4, "mouthUpperUp": 0.2},
        "ae": {"jawOpen": 0.5, "mouthStretch": 0.4, "mouthLowerDown": 0.4, "mouthUpperUp": 0.3},
        "ee": {"mouthSmile": 0.4, "mouthStretch": 0.4, "mouthLowerDown": 0.4, "mouthDimple": 0.3},
        "oh": {"jawOpen": 0.45, "mouthFunnel": 0.7, "mouthPucker": 0.3},
        "oo": {"mouthPucker": 0.8, "mouthFunnel": 0.5},
        "er": {"jawOpen": 0.25, "mouthFunnel": 0.5, "mouthShrugUpper": 0.3},
        "m b p": {"jawOpen": 0.2, "mouthClose": 0.19, "mouthPress": 0.4, "mouthRollLower": 0.3, "mouthRollUpper": 0.3},
        "f v": {"mouthRollLower": 0.7, "mouthUpperUp": 0.4, "mouthShrugUpper": 0.2},
        "th": {"jawOpen": 0.25, "tongueOut": 0.4, "mouthUpperUp": 0.2, "mouthLowerDown": 0.3},
        "sh ch": {"jawOpen": 0.15, "mouthFunnel": 0.6, "mouthUpperUp": 0.3, "mouthLowerDown": 0.3, "jawForward": 0.4},
        "s z": {"mouthStretch": 0.3, "mouthLowerDown": 0.5, "mouthUpperUp": 0.2, "jawForward": 0.3},
        "l n d": {"jawOpen": 0.3, "mouthLowerDown": 0.3, "mouthUpperUp": 0.3, "mouthShrugUpper": 0.2},
        "w": {"mouthPucker": 0.7, "mouthFunnel": 0.2, "mouthShrugLower": 0.2},
        "mm hm": {"jawOpen": 0.3, "mouthClose": 0.29, "mouthShrugLower": 0.3},
    }
)
_EXPRESSIONS = tuple(EXPRESSIONS.values())
_VISEMES = tuple(VISEMES.values())

# Pairs that rarely occur together: most samples suppress the weaker one.
_RARELY_TOGETHER: tuple[tuple[str, str], ...] = (
    ("mouthSmile", "mouthFrown"),
    ("mouthSmile", "mouthPucker"),
    ("mouthSmile", "mouthFunnel"),
    ("mouthStretch", "mouthPucker"),
    ("mouthStretch", "mouthFunnel"),
    ("mouthDimple", "mouthPucker"),
    ("mouthDimple", "mouthFunnel"),
    ("mouthPress", "mouthFunnel"),
    ("mouthPress", "mouthLowerDown"),
    ("mouthPress", "mouthUpperUp"),
    ("mouthRollLower", "mouthFunnel"),
    ("mouthRollLower", "mouthLowerDown"),
    ("mouthRollLower", "mouthShrugLower"),
    ("mouthRollUpper", "mouthFunnel"),
    ("mouthRollUpper", "mouthUpperUp"),
    ("mouthRollUpper", "mouthShrugUpper"),
    ("cheekPuff", "tongueOut"),
    ("cheekPuff", "mouthFunnel"),
    ("tongueOut", "mouthPress"),
    ("tongueOut", "mouthRollLower"),
    ("tongueOut", "mouthPucker"),
    ("browDown", "browOuterUp"),
    ("eyeWide", "eyeSquint"),
)
_SIDES = ("Left", "Right")


def _members(family: str) -> tuple[int, ...]:
    if family in INDEX:
        return (INDEX[family],)
    if family.endswith("Side"):
        return tuple(INDEX[family.removesuffix("Side") + side] for side in _SIDES)
    return tuple(INDEX[family + side] for side in _SIDES)


_MEMBERS = {name: _members(name) for name in (*FAMILIES, "eyeBlink")}
_I = INDEX
_EITHER_LEFT_OR_RIGHT = ("jawSide", "mouthSide")


def _side_gains(rng: np.random.Generator) -> tuple[float, float]:
    """Return gains of the left and right side: mostly equal, sometimes uneven, sometimes one side only."""
    kind = rng.random()
    if kind < 0.6:
        weaker = max(0.0, 1.0 - abs(rng.normal(0.0, 0.1)))
    elif kind < 0.8:
        weaker = rng.uniform(0.15, 0.8)
    else:
        weaker = 0.0
    return (1.0, weaker) if rng.random() < 0.5 else (weaker, 1.0)


def _raise_family(values: np.ndarray, family: str, level: float, gains: tuple[float, float]) -> None:
    """Raise a family to ``level``: both sides by their gains, or one side of a sideways movement."""
    members = _MEMBERS[family]
    if len(members) == 1:
        values[members[0]] = max(values[members[0]], level)
    elif family in _EITHER_LEFT_OR_RIGHT:
        index = members[0] if gains[0] >= gains[1] else members[1]
        values[index] = max(values[index], level)
    else:
        for index, gain in zip(members, gains, strict=True):
            values[index] = max(values[index], level * gain)


def add_prototype(values: np.ndarray, prototype: dict[str, float], rng: np.random.Generator) -> None:
    """Add a prototype at random strength, with each component varied and some dropped."""
    strength = rng.uniform(0.35, 1.15)
    gains = _side_gains(rng)
    for family, level in prototype.items():
        if rng.random() < 0.8:
            _raise_family(values, family, min(level * strength * rng.uniform(0.6, 1.4), 1.0), gains)


def add_independent(values: np.ndarray, count: int, rng: np.random.Generator) -> None:
    """Raise ``count`` families at random, in place."""
    for choice in rng.choice(len(_FAMILY_NAMES), size=count, replace=False, p=_FAMILY_WEIGHTS):
        _raise_family(values, _FAMILY_NAMES[choice], rng.uniform(0.05, 1.0), _side_gains(rng))


def _add_lids(values: np.ndarray, rng: np.random.Generator) -> None:
    """Sometimes close the eyes: a partial or full blink, or a wink."""
    kind = rng.random()
    if kind < 0.68:
        return
    level = rng.uniform(0.1, 1.0) if kind < 0.88 else rng.uniform(0.85, 1.0)
    other = rng.uniform(0.0, 0.3) if rng.random() < 0.35 else max(0.0, 1.0 - abs(rng.normal(0.0, 0.05)))
    _raise_family(values, "eyeBlink", level, (1.0, other) if rng.random() < 0.5 else (other, 1.0))


def add_gaze(values: np.ndarray, reach: float, rng: np.random.Generator) -> None:
    """Turn both eyes to one point, converging if it is near.

    Gaze fades as both eyes close, because closed lids hide it and an invisible label would be noise.
    """
    if rng.random() < 0.25:
        return
    across, up = reach * rng.uniform(-1.0, 1.0, 2)
    across, up = (0.0 if rng.random() < 0.12 else axis for axis in (across, up))
    nearness = rng.uniform(0.1, 0.5) if rng.random() < 0.2 else 0.0
    visibility = 1.0 - min(values[_I["eyeBlinkLeft"]], values[_I["eyeBlinkRight"]])
    visibility = min(1.0, 2.0 * visibility)
    for side, outward in (("Left", 1.0), ("Right", -1.0)):
        out = visibility * (outward * across - nearness + rng.normal(0.0, 0.02) * (across != 0.0))
        lift = visibility * (up + rng.normal(0.0, 0.02) * (up != 0.0))
        values[_I[f"eyeLookOut{side}"]], values[_I[f"eyeLookIn{side}"]] = max(out, 0.0), max(-out, 0.0)
        values[_I[f"eyeLookUp{side}"]], values[_I[f"eyeLookDown{side}"]] = max(lift, 0.0), max(-lift, 0.0)


def _keep_larger(values: np.ndarray, first: int, second: int, rest: float) -> None:
    """Scale the smaller of two values by ``rest``."""
    smaller = first if values[first] < values[second] else second
    values[smaller] *= rest


def _suppress_rare_pairs(values: np.ndarray, rng: np.random.Generator) -> None:
    for first, second in _RARELY_TOGETHER:
        rest = 1.0 if rng.random() < 0.12 else 0.0
        a, b = _MEMBERS[first], _MEMBERS[second]
        if len(a) == len(b):
            for i, j in zip(a, b, strict=True):
                if values[i] and values[j]:
                    _keep_larger(values, i, j, rest)
        elif values[list(a)].max() < values[list(b)].max():
            values[list(a)] *= rest
        else:
            values[list(b)] *= rest


def apply_exclusions(values: np.ndarray) -> None:
    """Remove from float[52], in place, what no face can do, such as closed eyes that are wide."""
    for side in _SIDES:
        _keep_larger(values, _I[f"eyeWide{side}"], _I[f"eyeBlink{side}"], 0.0)
    for left, right in (("jawLeft", "jawRight"), ("mouthLeft", "mouthRight")):
        _keep_larger(values, _I[left], _I[right], 0.0)

    tongue, jaw, close = _I["tongueOut"], _I["jawOpen"], _I["mouthClose"]
    if values[tongue] > 0.0:
        values[jaw] = max(values[jaw], 0.1 + 0.25 * values[tongue])
        values[close] = 0.0


def _apply_constraints(values: np.ndarray, rng: np.random.Generator) -> None:
    """Enforce the exclusions and requirements between actions."""
    _suppress_rare_pairs(values, rng)
    apply_exclusions(values)
    jaw, close = _I["jawOpen"], _I["mouthClose"]
    if values[close] > 0.0:
        # Lips closed over a lowered jaw: the jaw must be open at least as far as the lips compensate.
        slack = rng.uniform(0.0, 0.7) if rng.random() < 0.5 else 0.0
        values[jaw] = max(values[jaw], values[close] + slack * (1.0 - values[close]))
    if values[jaw] - values[close] > 0.35 and rng.random() < 0.85:
        # Puffing and pressing need sealed lips.
        values[[_I["cheekPuff"], _I["mouthPressLeft"], _I["mouthPressRight"]]] = 0.0


def sample_coefficients(rng: np.random.Generator) -> np.ndarray:
    """Sample one expression.

    5 % are almost neutral, 20 % have one to three families, 40 % are based on an expression, a viseme or both, and 35 %
    consist of independent families. Left and right are symmetric in distribution.

    Args:
        rng: the only source of randomness; the same state gives the same vector.

    Returns:
        float32[52] in [0, 1], project order. ``mouthClose <= jawOpen``; ``tongueOut`` implies an open jaw; at most one
        of each eye's wide/blink, up/down and in/out and of jaw and mouth left/right is above 0; both eyes look in the
        same vertical direction and, except for convergence, the same horizontal direction.
    """
    values = np.zeros(arkit.N_ACTIONS)
    kind = rng.random()
    reach = 1.0
    if kind < 0.05:
        add_independent(values, int(rng.integers(0, 4)), rng)
        values *= 0.12
        reach = 0.15
    else:
        if kind < 0.25:
            add_independent(values, int(rng.integers(1, 4)), rng)
        elif kind < 0.65:
            mix = rng.random()
            if mix < 0.7:
                add_prototype(values, _EXPRESSIONS[rng.integers(len(_EXPRESSIONS))], rng)
            if mix > 0.45:
                add_prototype(values, _VISEMES[rng.integers(len(_VISEMES))], rng)
            add_independent(values, int(rng.integers(1, 7)), rng)
        else:
            add_independent(values, int(rng.integers(6, 19)), rng)
        _add_lids(values, rng)
    _apply_constraints(values, rng)
    add_gaze(values, reach, rng)
    return np.clip(values, 0.0, 1.0).astype(np.float32) + np.float32(0.0)  # the sum turns -0.0 into 0.0
