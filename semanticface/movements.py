"""The words for muscle movements and symmetry: graded intensities, eight regions, two halves of a face.

Intensities are graded like the five letters of FACS (A trace, B slight, C marked or pronounced, D severe or extreme,
E maximum; FACS manual, Ekman, Friesen, Hager 2002), each with one adverb and one fixed range of the coefficient in
hundredths (``GRADES``). Everything is decided on coefficients rounded to hundredths, the precision of a written
answer, so that a vector and the vector read back from its answer are always described alike. A coefficient below
``VISIBLE`` is not mentioned; each one at or above it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from semanticface.arkit import INDEX, N_ACTIONS, NAMES, REGIONS

GRADES: tuple[tuple[str, int, int], ...] = (
    ("barely", 10, 19),
    ("slightly", 20, 39),
    ("clearly", 40, 59),
    ("strongly", 60, 84),
    ("fully", 85, 100),
)
"""(adverb, lowest, highest hundredth), FACS A to E; below the first range an action is not visible."""

VISIBLE = GRADES[0][1] / 100
"""Coefficients from here on (after rounding to hundredths) are visible and always mentioned."""

RELAXED = dict.fromkeys(REGIONS, "relaxed") | {"gaze": "straight ahead", "tongue": "not visible"}
"""What a region without visible action is said to be."""

_ADVERBS = ("", *(adverb for adverb, _, _ in GRADES))
_LEVEL = np.zeros(101, dtype=np.uint8)  # hundredth -> 0 (not visible), 1 to 5 (FACS A to E)
for _number, (_, _low, _high) in enumerate(GRADES, start=1):
    _LEVEL[_low : _high + 1] = _number


def hundredths(coefficients: np.ndarray) -> np.ndarray:
    """Return coefficients in whole hundredths, int64, same shape; the one rounding used in words and in answers.

    Raises:
        ValueError: the last dimension is not 52, or a value is not a number in [0, 1].
    """
    values = np.asarray(coefficients, dtype=np.float64)
    if values.shape[-1:] != (N_ACTIONS,):
        raise ValueError(f"expected [..., {N_ACTIONS}] coefficients, got shape {values.shape}")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("coefficients must be numbers from 0 to 1: clip or drop this row")
    return np.rint(values * 100).astype(np.int64)


# --- muscle movements ---------------------------------------------------------------------------------------------
# A region's phrase is made of items (noun, left level, right level, verb); an action on the midline has one level for
# both. Items of the same noun and levels share a clause: "both corners slightly pulled down and stretched".

_PAIRED = {  # nouns that come in two: left and right are said before the noun
    "brow": "brows", "outer brow": "outer brows", "eyelid": "eyelids", "eye": "eyes", "cheek": "cheeks",
    "corner": "corners",
}  # fmt: skip


@lru_cache(maxsize=1 << 12)
def _subject(noun: str, left: int, right: int) -> tuple[str, str, bool]:
    """Return what moves, how strongly, and whether a clause with the same subject may follow without naming it."""
    a, b = _ADVERBS[left], _ADVERBS[right]
    if noun in _PAIRED:
        if left == right:
            return f"both {_PAIRED[noun]} ", f"{a} ", True
        if left and right:
            return f"left {noun} {a} and right {noun} ", f"{b} ", False
        return (f"left {noun} ", f"{a} ", True) if left else (f"right {noun} ", f"{b} ", True)
    start = f"{noun} " if noun else ""
    if left == right:
        return start, f"{a} ", True
    return start, "" if left and right else f"{a or b} ", False


@lru_cache(maxsize=1 << 12)
def _side_after(noun: str, left: int, right: int) -> str:
    """Return the words after the movements, for nouns whose sides are said there."""
    if noun in _PAIRED or left == right:
        return ""
    if left and right:
        return f" {_ADVERBS[left]} on the left and {_ADVERBS[right]} on the right"
    return " on the left" if left else " on the right"


_Item = tuple[str, int, int, str]


def _listed(verbs: list[str]) -> str:
    return verbs[0] if len(verbs) == 1 else f"{', '.join(verbs[:-1])} and {verbs[-1]}"


def _clauses(items: Iterable[_Item]) -> list[str]:
    nouns: dict[str, dict[tuple[int, int], list[str]]] = {}
    for noun, left, right, verb in items:
        if left or right:
            nouns.setdefault(noun, {}).setdefault((left, right), []).append(verb)
    out = []
    for noun, groups in nouns.items():
        last = ""
        for (left, right), verbs in groups.items():
            subject, adverb, goes_on = _subject(noun, left, right)
            if not goes_on:
                out.append(f"{subject}{adverb}{' and '.join(verbs)}{_side_after(noun, left, right)}")
            elif subject == last:
                out.append(f"{adverb}{_listed(verbs)}")
            else:
                out.append(f"{subject}{adverb}{_listed(verbs)}")
            last = subject if goes_on else ""
    return out


def _phrase(region: str, items: Iterable[_Item]) -> str:
    return ", ".join(_clauses(items)) or RELAXED[region]


@lru_cache(maxsize=1 << 13)
def _brows(levels: bytes) -> str:
    down_left, down_right, inner, outer_left, outer_right = levels
    items = [("brow", down_left, down_right, "lowered")]
    if inner and inner == outer_left == outer_right:
        items.append(("brow", inner, inner, "raised"))
    else:
        items += [("inner brows", inner, inner, "raised"), ("outer brow", outer_left, outer_right, "raised")]
    return _phrase("brows", items)


@lru_cache(maxsize=1 << 16)
def _eyes(levels: bytes) -> str:
    blink_left, squint_left, wide_left, blink_right, squint_right, wide_right = levels
    shut_left, shut_right = blink_left // 5, blink_right // 5  # only a full blink is a closed eye
    items: list[_Item] = [
        ("eye", 5 * shut_left, 5 * shut_right, "closed"),
        ("eyelid", blink_left * (1 - shut_left), blink_right * (1 - shut_right), "lowered"),
        ("eye", squint_left, squint_right, "narrowed"),
    ]
    widened: _Item = ("eye", wide_left, wide_right, "widened")
    if (blink_left and wide_left) or (blink_right and wide_right):  # lids pulled both ways at once
        return f"{', '.join(_clauses(items))}, yet {_clauses([widened])[0]}"
    return _phrase("eyes", [*items, widened])


# The four directions of gaze: (what is said, the left eye's action, the right eye's action). Both eyes turn to the
# subject's left when the left one looks out and the right one looks in.
GAZE: tuple[tuple[str, str, str], ...] = (
    ("to the subject's left", "eyeLookOutLeft", "eyeLookInRight"),
    ("to the subject's right", "eyeLookInLeft", "eyeLookOutRight"),
    ("up", "eyeLookUpLeft", "eyeLookUpRight"),
    ("down", "eyeLookDownLeft", "eyeLookDownRight"),
)


@lru_cache(maxsize=1 << 15)
def _gaze(levels: bytes) -> str:
    """``levels``: for each direction left eye, right eye, mean of both."""
    together: list[str] = []
    apart: list[list[int]] = []
    for number, (direction, _, _) in enumerate(GAZE):
        left, right, mean = levels[3 * number : 3 * number + 3]
        if mean and abs(left - right) <= 1:
            together.append(f"{_ADVERBS[mean]} {direction}")
            apart.append([0, 0])
        else:
            apart.append([left, right])
    (out_left, in_right), (in_left, out_right), (up_left, up_right), (down_left, down_right) = apart
    items: list[_Item] = [
        ("eye", in_left, in_right, "turned inward"),
        ("eye", out_left, out_right, "turned outward"),
        ("eye", up_left, up_right, "turned up"),
        ("eye", down_left, down_right, "turned down"),
    ]
    said = [f"looking {' and '.join(together)}"] if together else []
    return ", ".join(said + _clauses(items)) or RELAXED["gaze"]


@lru_cache(maxsize=1 << 8)
def _cheeks(levels: bytes) -> str:
    puff, squint_left, squint_right = levels
    return _phrase("cheeks", [("cheek", puff, puff, "puffed out"), ("cheek", squint_left, squint_right, "raised")])


@lru_cache(maxsize=1 << 6)
def _nose(levels: bytes) -> str:
    return _phrase("nose", [("", levels[0], levels[1], "wrinkled")])


@lru_cache(maxsize=1 << 14)
def _mouth(levels: bytes) -> str:
    (
        close, funnel, pucker, right, left, smile_left, smile_right, frown_left, frown_right, dimple_left, dimple_right,
        stretch_left, stretch_right, roll_lower, roll_upper, shrug_lower, shrug_upper, press_left, press_right,
        lower_left, lower_right, upper_left, upper_right, jaw_open,
    ) = levels  # fmt: skip
    items: list[_Item] = [
        ("corner", smile_left, smile_right, "pulled up"),
        ("corner", frown_left, frown_right, "pulled down"),
        ("corner", dimple_left, dimple_right, "tucked in"),
        ("corner", stretch_left, stretch_right, "stretched"),
        ("lips", funnel, funnel, "funneled"),
        ("lips", pucker, pucker, "puckered"),
        ("lips", press_left, press_right, "pressed"),
    ]
    for lower, upper, verb in ((roll_lower, roll_upper, "rolled in"), (shrug_lower, shrug_upper, "pushed up")):
        if lower == upper:
            items.append(("lips", lower, lower, verb))
        else:
            items += [("lower lip", lower, lower, verb), ("upper lip", upper, upper, verb)]
    items += [
        ("upper lip", upper_left, upper_right, "raised"),
        ("lower lip", lower_left, lower_right, "pulled down"),
        ("lips", close, close, "closed over the open jaw" if jaw_open else "drawn closed"),
        ("mouth", left, left, "shifted left"),
        ("mouth", right, right, "shifted right"),
    ]
    return _phrase("mouth", items)


@lru_cache(maxsize=1 << 11)
def _jaw(levels: bytes) -> str:
    forward, right, left, opened = levels
    return _phrase(
        "jaw",
        [
            ("", opened, opened, "open"),
            ("", forward, forward, "pushed forward"),
            ("", left, left, "shifted left"),
            ("", right, right, "shifted right"),
        ],
    )


@lru_cache(maxsize=1 << 3)
def _tongue(levels: bytes) -> str:
    return _phrase("tongue", [("", levels[0], levels[0], "stuck out")])


def _columns(*names: str) -> list[int]:
    return [INDEX[name] for name in names]


# Where each region's writer finds its levels: columns of [52 levels | 4 mean gaze levels], in the writer's order.
_WRITERS = (
    (_brows, _columns("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight")),
    (
        _eyes,
        _columns("eyeBlinkLeft", "eyeSquintLeft", "eyeWideLeft", "eyeBlinkRight", "eyeSquintRight", "eyeWideRight"),
    ),
    (_gaze, [c for k, (_, left, right) in enumerate(GAZE) for c in (INDEX[left], INDEX[right], N_ACTIONS + k)]),
    (_cheeks, _columns("cheekPuff", "cheekSquintLeft", "cheekSquintRight")),
    (_nose, _columns("noseSneerLeft", "noseSneerRight")),
    (_mouth, [*range(INDEX["mouthClose"], INDEX["mouthUpperUpRight"] + 1), INDEX["jawOpen"]]),
    (_jaw, _columns("jawForward", "jawRight", "jawLeft", "jawOpen")),
    (_tongue, _columns("tongueOut")),
)
_ORDER = np.array([column for _, columns in _WRITERS for column in columns])
_BOUNDS = np.cumsum([0, *(len(columns) for _, columns in _WRITERS)]).tolist()
_PARTS = tuple(zip(REGIONS, (write for write, _ in _WRITERS), _BOUNDS[:-1], _BOUNDS[1:], strict=True))
_GAZE_LEFT = np.array([INDEX[left] for _, left, _ in GAZE])
_GAZE_RIGHT = np.array([INDEX[right] for _, _, right in GAZE])


def muscle_movements(values: np.ndarray) -> list[dict[str, str]]:
    """Return each face's phrases by region from coefficients in hundredths [N, 52]."""
    together = (values[:, _GAZE_LEFT] + values[:, _GAZE_RIGHT]) // 2
    levels = np.concatenate([_LEVEL[values], _LEVEL[together]], axis=1)[:, _ORDER]
    width = levels.shape[1]
    packed = np.ascontiguousarray(levels).tobytes()
    out = []
    for at in range(0, len(packed), width):
        out.append({region: write(packed[at + start : at + stop]) for region, write, start, stop in _PARTS})
    return out


# --- symmetry -----------------------------------------------------------------------------------------------------

# Action pairs compared for symmetry, and what the stronger side does. Gaze is left out: both eyes looking to one side
# is not an asymmetric face.
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
"""Hundredths between left and right from which a face is no longer called symmetric."""
ASYMMETRIC = 25
"""Hundredths between left and right from which a face is called asymmetric."""


def _more(pair: int, side: str) -> str:
    stem, words = PAIRS[pair]
    return f"{words} {side}" if stem in ("mouth", "jaw") else f"{side} {words} more"


def _symmetry_phrases() -> tuple[list[str], list[str]]:
    """Every phrase for the largest difference; index 2 * pair + (0: more on the left, 1: more on the right)."""
    more = [_more(pair, side) for pair in range(len(PAIRS)) for side in ("left", "right")]
    return more, [f"mostly symmetric, {phrase}" for phrase in more]


_MORE, _MOSTLY = _symmetry_phrases()


def symmetry(values: np.ndarray) -> list[str]:
    """Return each face's symmetry in words from coefficients in hundredths [N, 52]."""
    difference = values[:, PAIR_LEFT] - values[:, PAIR_RIGHT]
    size = np.abs(difference)
    order = np.argsort(-size, axis=1, kind="stable")[:, :2]
    rows = np.arange(len(values))[:, None]
    largest = size[rows, order].tolist()
    phrases = (2 * order + (difference[rows, order] < 0)).tolist()
    out = []
    for (first, second), (a, b) in zip(largest, phrases, strict=True):
        if first < DIFFERS:
            out.append("symmetric")
        elif first < ASYMMETRIC:
            out.append(_MOSTLY[a])
        elif second < ASYMMETRIC:
            out.append(f"asymmetric, {_MORE[a]}")
        else:
            out.append(f"asymmetric, {_MORE[a]}, {_MORE[b]}")
    return out


def visible(coefficients: np.ndarray) -> tuple[str, ...]:
    """Return the names of the actions a [52] vector visibly shows."""
    return tuple(NAMES[i] for i in np.flatnonzero(hundredths(coefficients) >= round(VISIBLE * 100)))
