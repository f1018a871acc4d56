"""Describe muscle movements of eight regions, with graded intensities, and the symmetry of a face.

Everything is computed from coefficients rounded to hundredths, the precision of an answer, so a vector and the vector
parsed from its answer get the same description. Exactly the coefficients of at least ``VISIBLE`` are mentioned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from semanticface.arkit import INDEX, N_ACTIONS, NAMES, REGIONS, to_hundredths
from semanticface.semantics.phrasing import ADVERBS, GRADES, Noun, fragments, phrase

VISIBLE = GRADES[0][1] / 100
"""Coefficients from here on (rounded to hundredths) are visible and always mentioned."""

RELAXED = dict.fromkeys(REGIONS, "relaxed") | {"gaze": "straight ahead", "tongue": "not visible"}
"""Phrase of a region without visible actions."""

_LEVEL = np.zeros(101, dtype=np.int8)  # hundredth -> 0 (not visible), 1 to 5 (FACS A to E)
for _number, (_, _low, _high) in enumerate(GRADES, start=1):
    _LEVEL[_low : _high + 1] = _number


# --- muscle movements ---------------------------------------------------------------------------------------------
# Each region's items (see ``phrasing``) from its levels, in output order. Levels are ints for one face and int8[N] for
# many; the same code handles both, so conditions are written as factors of 0 and 1.

_Level = Any
_BROW, _INNER, _OUTER = Noun("brow", "brows"), Noun("inner brows"), Noun("outer brow", "outer brows")
_EYE, _EYELID, _YET_EYE = Noun("eye", "eyes"), Noun("eyelid", "eyelids"), Noun("eye", "eyes", lead=", yet ")
_CHEEK, _CORNER, _ITSELF = Noun("cheek", "cheeks"), Noun("corner", "corners"), Noun("")
_LIPS, _LOWER, _UPPER, _MOUTH = Noun("lips"), Noun("lower lip"), Noun("upper lip"), Noun("mouth")


def _brows(down_left: _Level, down_right: _Level, inner: _Level, outer_left: _Level, outer_right: _Level) -> list[Any]:
    whole = inner * ((inner == outer_left) & (inner == outer_right))
    return [
        (_BROW, down_left, down_right, "lowered"),
        (_BROW, whole, whole, "raised"),
        (_INNER, inner - whole, inner - whole, "raised"),
        (_OUTER, outer_left - whole, outer_right - whole, "raised"),
    ]


def _eyes(
    blink_left: _Level,
    squint_left: _Level,
    wide_left: _Level,
    blink_right: _Level,
    squint_right: _Level,
    wide_right: _Level,
) -> list[Any]:
    shut_left, shut_right = blink_left // 5 * 5, blink_right // 5 * 5  # only a full blink is a closed eye
    against = blink_left * wide_left + blink_right * wide_right > 0  # lids pulled both ways at once
    return [
        (_EYE, shut_left, shut_right, "closed"),
        (_EYELID, blink_left - shut_left, blink_right - shut_right, "lowered"),
        (_EYE, squint_left, squint_right, "narrowed"),
        (_EYE, wide_left - wide_left * against, wide_right - wide_right * against, "widened"),
        (_YET_EYE, wide_left * against, wide_right * against, "widened"),
    ]


# Gaze directions: (phrase, left eye's action, right eye's action). Both eyes turn to the subject's left when the left
# eye looks out and the right eye looks in.
GAZE: tuple[tuple[str, str, str], ...] = (
    ("to the subject's left", "eyeLookOutLeft", "eyeLookInRight"),
    ("to the subject's right", "eyeLookInLeft", "eyeLookOutRight"),
    ("up", "eyeLookUpLeft", "eyeLookUpRight"),
    ("down", "eyeLookDownLeft", "eyeLookDownRight"),
)


def _gaze(*levels: _Level) -> tuple[list[_Level], list[Any]]:
    """Return the level of both eyes' gaze in each direction, and items of eyes that turn independently.

    ``levels``: for each direction left eye, right eye, mean of both.
    """
    together, apart = [], []
    for left, right, mean in zip(levels[::3], levels[1::3], levels[2::3], strict=True):
        alike = (mean > 0) & (abs(left - right) <= 1)
        together.append(mean * alike)
        apart.append((left - left * alike, right - right * alike))
    (out_left, in_right), (in_left, out_right), up, down = apart
    return together, [
        (_EYE, in_left, in_right, "turned inward"),
        (_EYE, out_left, out_right, "turned outward"),
        (_EYE, *up, "turned up"),
        (_EYE, *down, "turned down"),
    ]


def _gaze_phrase(level: int, direction: int, continues: bool) -> str:
    return f"{' and' if continues else 'looking'} {ADVERBS[level]} {GAZE[direction][0]}" if level else ""


def _cheeks(puff: _Level, squint_left: _Level, squint_right: _Level) -> list[Any]:
    return [(_CHEEK, puff, puff, "puffed out"), (_CHEEK, squint_left, squint_right, "raised")]


def _nose(left: _Level, right: _Level) -> list[Any]:
    return [(_ITSELF, left, right, "wrinkled")]


def _mouth(*levels: _Level) -> list[Any]:
    (
        close, funnel, pucker, right, left, smile_left, smile_right, frown_left, frown_right, dimple_left, dimple_right,
        stretch_left, stretch_right, roll_lower, roll_upper, shrug_lower, shrug_upper, press_left, press_right,
        lower_left, lower_right, upper_left, upper_right, jaw_open,
    ) = levels  # fmt: skip
    items = [
        (_CORNER, smile_left, smile_right, "pulled up"),
        (_CORNER, frown_left, frown_right, "pulled down"),
        (_CORNER, dimple_left, dimple_right, "tucked in"),
        (_CORNER, stretch_left, stretch_right, "stretched"),
        (_LIPS, funnel, funnel, "funneled"),
        (_LIPS, pucker, pucker, "puckered"),
        (_LIPS, press_left, press_right, "pressed"),
    ]
    for lower, upper, verb in ((roll_lower, roll_upper, "rolled in"), (shrug_lower, shrug_upper, "pushed up")):
        both = lower * (lower == upper)
        items += [
            (_LIPS, both, both, verb),
            (_LOWER, lower - both, lower - both, verb),
            (_UPPER, upper - both, upper - both, verb),
        ]
    over = close * (jaw_open > 0)
    return [
        *items,
        (_UPPER, upper_left, upper_right, "raised"),
        (_LOWER, lower_left, lower_right, "pulled down"),
        (_LIPS, over, over, "closed over the open jaw"),
        (_LIPS, close - over, close - over, "drawn closed"),
        (_MOUTH, left, left, "shifted left"),
        (_MOUTH, right, right, "shifted right"),
    ]


def _jaw(forward: _Level, right: _Level, left: _Level, opened: _Level) -> list[Any]:
    return [
        (_ITSELF, opened, opened, "open"),
        (_ITSELF, forward, forward, "pushed forward"),
        (_ITSELF, left, left, "shifted left"),
        (_ITSELF, right, right, "shifted right"),
    ]


def _tongue(out: _Level) -> list[Any]:
    return [(_ITSELF, out, out, "stuck out")]


def _columns(*names: str) -> list[int]:
    return [INDEX[name] for name in names]


# Each region's function and the columns of its arguments in [52 levels | 4 mean gaze levels].
_REGIONS: dict[str, tuple[Callable[..., Any], list[int]]] = {
    "brows": (_brows, _columns("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight")),
    "eyes": (
        _eyes,
        _columns("eyeBlinkLeft", "eyeSquintLeft", "eyeWideLeft", "eyeBlinkRight", "eyeSquintRight", "eyeWideRight"),
    ),
    "gaze": (_gaze, [c for k, (_, left, right) in enumerate(GAZE) for c in (INDEX[left], INDEX[right], N_ACTIONS + k)]),
    "cheeks": (_cheeks, _columns("cheekPuff", "cheekSquintLeft", "cheekSquintRight")),
    "nose": (_nose, _columns("noseSneerLeft", "noseSneerRight")),
    "mouth": (_mouth, [*range(INDEX["mouthClose"], INDEX["mouthUpperUpRight"] + 1), INDEX["jawOpen"]]),
    "jaw": (_jaw, _columns("jawForward", "jawRight", "jawLeft", "jawOpen")),
    "tongue": (_tongue, _columns("tongueOut")),
}
_GAZE_LEFT = np.array([INDEX[left] for _, left, _ in GAZE])
_GAZE_RIGHT = np.array([INDEX[right] for _, _, right in GAZE])


def _levels(values: np.ndarray) -> np.ndarray:
    """Return the level of each action and of both eyes' mean gaze per direction, int8[56, N]."""
    together = (values[:, _GAZE_LEFT] + values[:, _GAZE_RIGHT]) // 2
    return np.ascontiguousarray(np.concatenate([_LEVEL[values], _LEVEL[together]], axis=1).T)


def muscle_movements(values: np.ndarray) -> dict[str, str]:
    """Return one face's phrase per region, from coefficients in hundredths [52]."""
    levels = _levels(values[None])[:, 0].tolist()
    out = {}
    for region, (items_of, columns) in _REGIONS.items():
        items, start = items_of(*[levels[column] for column in columns]), ""
        if region == "gaze":
            together, items = items
            for direction, level in enumerate(together):
                start += _gaze_phrase(level, direction, continues=start != "")
        out[region] = phrase(items, start) or RELAXED[region]
    return out


def muscle_movements_many(values: np.ndarray) -> list[dict[str, str]]:
    """Return ``muscle_movements`` of each face of [N, 52], much faster per face."""
    levels = _levels(values)
    phrases = []
    for region, (items_of, columns) in _REGIONS.items():
        items = items_of(*levels[columns])
        if region == "gaze":
            together, items = items
            started, looking = _gaze_phrases(together)
            text = np.concatenate([looking, fragments(items, started)])
        else:
            text = fragments(items)
        relaxed = RELAXED[region]
        phrases.append(["".join(parts) or relaxed for parts in zip(*text.tolist(), strict=True)])
    return [dict(zip(REGIONS, face, strict=True)) for face in zip(*phrases, strict=True)]


def _gaze_phrases(together: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return which faces turn both eyes, bool[N], and the text fragments for it, object [4, N]."""
    started = np.zeros(len(together[0]), dtype=bool)
    out = []
    for direction, level in enumerate(together):
        out.append(_GAZE_PHRASES[direction, level, started.astype(np.intp)])
        started |= level > 0
    return started, np.stack(out)


_GAZE_PHRASES = np.array(
    [[[_gaze_phrase(level, way, continues) for continues in (False, True)] for level in range(6)] for way in range(4)],
    dtype=object,
)


# --- symmetry -----------------------------------------------------------------------------------------------------

# Action pairs compared for symmetry, with the phrase for the stronger side. Gaze is excluded: both eyes looking to one
# side does not make a face asymmetric.
PAIRS: tuple[tuple[str, str], ...] = (
    ("eyeBlink", "eyelid lowered"),
    ("eyeSquint", "eye narrowed"),
    ("eyeWide", "eye widened"),
    ("mouthSmile", "corner pulled up"),
    ("mouthFrown", "corner pulled down"),
    ("mouthDimple", "corner tucked in"),
    ("mouthStretch", "corner stretched"),
    ("mouthPress", "side of the lips pressed"),
    ("mouthLowerDown", "side of the lower lip pulled down"),
    ("mouthUpperUp", "side of the upper lip raised"),
    ("browDown", "brow lowered"),
    ("browOuterUp", "outer brow raised"),
    ("cheekSquint", "cheek raised"),
    ("noseSneer", "side of the nose wrinkled"),
    ("mouth", "mouth shifted"),
    ("jaw", "jaw shifted"),
)
PAIR_LEFT = np.array([INDEX[f"{stem}Left"] for stem, _ in PAIRS])
PAIR_RIGHT = np.array([INDEX[f"{stem}Right"] for stem, _ in PAIRS])
DIFFERS = 10
"""Difference of left and right, in hundredths, from which a face is not symmetric."""
ASYMMETRIC = 25
"""Difference of left and right, in hundredths, from which a face is asymmetric."""


def difference_phrase(pair: int, side: str) -> str:
    """Return the phrase for a pair of ``PAIRS`` whose ``side`` is the stronger."""
    stem, words = PAIRS[pair]
    return f"{words} {side}" if stem in ("mouth", "jaw") else f"{side} {words} more"


def _symmetry_phrases() -> np.ndarray:
    """Return all phrases, object [4 kinds, 2 * pairs, 2 * pairs], by largest and second largest difference.

    Kinds: symmetric; mostly symmetric; asymmetric; asymmetric in two pairs. A difference has the index 2 * pair, plus
    1 if the right side is stronger.
    """
    more = [difference_phrase(pair, side) for pair in range(len(PAIRS)) for side in ("left", "right")]
    out = np.full((4, len(more), len(more)), "symmetric", dtype=object)
    for first, words in enumerate(more):
        out[1, first] = f"mostly symmetric, {words}"
        out[2, first] = f"asymmetric, {words}"
        out[3, first] = [f"asymmetric, {words}, {other}" for other in more]
    return out


_SYMMETRY = _symmetry_phrases()


def symmetry(values: np.ndarray) -> list[str]:
    """Return each face's symmetry phrase, from coefficients in hundredths [N, 52]."""
    difference = (values[:, PAIR_LEFT] - values[:, PAIR_RIGHT]).astype(np.int8)
    size = np.abs(difference)
    rows = np.arange(len(values))
    differences, sizes = [], []
    for _ in range(2):
        largest = size.argmax(axis=1)
        sizes.append(size[rows, largest])
        differences.append(2 * largest + (difference[rows, largest] < 0))
        size[rows, largest] = -1
    first, second = sizes
    kind = np.where(first < DIFFERS, 0, np.where(first < ASYMMETRIC, 1, np.where(second < ASYMMETRIC, 2, 3)))
    phrases: list[str] = _SYMMETRY[kind, differences[0], differences[1]].tolist()
    return phrases


def visible(coefficients: np.ndarray) -> tuple[str, ...]:
    """Return the names of the visible actions of a [52] vector."""
    return tuple(NAMES[i] for i in np.flatnonzero(to_hundredths(coefficients) >= round(VISIBLE * 100)))
