"""The expression a whole face shows: interpretable rules from coefficients to a category and an emotion cue.

A *signal* is something one sees (raised brows, a smile, an open mouth): the mean of a few coefficients. A category is
one signal or several that belong together. Its score lies halfway between its strongest signal and the mean of all,
with a bonus of 0.15 for each signal beyond the first, and counts only if every signal reaches ``PRESENT``; the highest
score names the face. So a combination of two wins over its parts unless one is 0.6 stronger than the other.

The combinations that carry an emotion cue follow the prototypes of EMFACS (Ekman and Friesen; Friesen and Ekman 1983)
as far as ARKit can express them: joy 6+12, surprise 1+2+5+26, sadness 1+4+15, fear 1+2+4+5+20, anger 4+5+7+23/24,
disgust 9 or 10+17, contempt 12 or 14 on one side. Everything else suggests nothing and says so. A category's name says
what is seen and never a feeling, so that it can stay when emotion is switched off.
"""

from __future__ import annotations

import numpy as np

from semanticface.arkit import INDEX

PRESENT = 0.2
"""A signal from here on takes part in a combination."""
NEUTRAL_BELOW = 0.15
"""Faces whose best score stays below this are neutral."""
MIXED_FROM = 4
"""From this many clearly visible signals beside the best category's own, the face is a mix."""

# (category, its signals, the emotion it suggests or None), most specific first: the first of equal scores wins.
CATEGORIES: tuple[tuple[str, tuple[str, ...], str | None], ...] = (
    ("open smile with raised cheeks", ("smile", "cheeks", "open"), "joy"),
    ("smile with raised cheeks", ("smile", "cheeks"), "joy"),
    ("open smile", ("smile", "open"), "joy"),
    ("one-sided smile", ("smirk",), "contempt"),
    ("one tucked mouth corner", ("tuck",), "contempt"),
    ("raised brows, wide eyes and stretched mouth", ("brows up", "wide", "stretch"), "fear"),
    ("raised brows, wide eyes and open mouth", ("brows up", "wide", "open"), "surprise"),
    ("raised brows and open mouth", ("brows up", "open"), "surprise"),
    ("raised brows and wide eyes", ("brows up", "wide"), "surprise"),
    ("raised inner brows and downturned mouth", ("inner only", "frown"), "sadness"),
    ("wrinkled nose and raised upper lip", ("sneer", "upper lip"), "disgust"),
    ("wrinkled nose and lowered brows", ("sneer", "brows down"), "disgust"),
    ("lowered brows and pressed lips", ("brows down", "press"), "anger"),
    ("lowered brows and wide eyes", ("brows down", "wide"), "anger"),
    ("lowered brows and bared teeth", ("brows down", "teeth"), "anger"),
    ("lowered brows and narrowed eyes", ("brows down", "squint"), None),
    ("lowered brows and downturned mouth", ("brows down", "frown"), None),
    ("speech with rounded lips", ("open", "round"), None),
    ("speech with lips apart", ("open", "teeth"), None),
    ("wink", ("wink",), None),
    ("smile", ("smile",), "pleasure"),
    ("closed eyes", ("shut",), None),
    ("lowered eyelids", ("blink",), None),
    ("downturned mouth", ("frown",), None),
    ("raised brows", ("brows up",), None),
    ("raised inner brows", ("inner only",), None),
    ("lowered brows", ("brows down",), None),
    ("wide eyes", ("wide",), None),
    ("narrowed eyes", ("squint",), None),
    ("wrinkled nose", ("sneer",), "disgust"),
    ("puckered lips", ("pucker",), None),
    ("funneled lips", ("funnel",), None),
    ("puffed cheeks", ("puff",), None),
    ("tongue out", ("tongue",), None),
    ("open mouth", ("open",), None),
    ("pressed lips", ("press",), None),
    ("stretched mouth", ("stretch",), None),
    ("tucked mouth corners", ("dimple",), None),
    ("rolled lips", ("roll",), None),
    ("pushed up lips", ("shrug",), None),
    ("raised upper lip", ("upper lip",), None),
    ("lowered lower lip", ("lower lip",), None),
    ("raised cheeks", ("cheeks",), None),
    ("jaw forward", ("jaw forward",), None),
    ("shifted jaw", ("jaw shift",), None),
    ("shifted mouth", ("mouth shift",), None),
    ("closed lips over open jaw", ("close",), None),
    ("turned gaze", ("gaze",), None),
)
NEUTRAL_CATEGORY = "neutral"
UNCLEAR = "not clearly observable"
"""The emotion cue of a face whose category suggests none."""
MIXED_CATEGORY = "mixed expression"

EMOTIONS: tuple[str, ...] = tuple(dict.fromkeys(cue for _, _, cue in CATEGORIES if cue))


_STEMS = {name.removesuffix("Left"): i for i, name in enumerate(name for name in INDEX if name.endswith("Left"))}
_LEFT = np.array([INDEX[f"{stem}Left"] for stem in _STEMS])
_RIGHT = np.array([INDEX[f"{stem}Right"] for stem in _STEMS])


def signals(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return each signal's strength, float32[N] in [0, 1], from coefficients in hundredths [N, 52]."""
    v = np.asarray(values, dtype=np.float32).T / 100
    means = (v[_LEFT] + v[_RIGHT]) / 2

    def of(name: str) -> np.ndarray:
        return v[INDEX[name]]

    def mean(stem: str) -> np.ndarray:
        return means[_STEMS[stem]]

    outer, inner = mean("browOuterUp"), of("browInnerUp")
    smile, upper, lower = mean("mouthSmile"), mean("mouthUpperUp"), mean("mouthLowerDown")
    opened = np.maximum(of("jawOpen") - of("mouthClose"), 0)
    pucker, funnel = of("mouthPucker"), of("mouthFunnel")
    gaze = np.maximum.reduce([mean(f"eyeLook{way}") for way in ("Up", "Down")])
    aside = np.maximum(
        (of("eyeLookOutLeft") + of("eyeLookInRight")) / 2, (of("eyeLookInLeft") + of("eyeLookOutRight")) / 2
    )

    def one_sided(stem: str, least: float) -> np.ndarray:
        """The difference of the sides where only one of them moves, and by at least ``least``."""
        left, right = of(f"{stem}Left"), of(f"{stem}Right")
        apart = np.abs(left - right)
        return np.where((np.minimum(left, right) < PRESENT) & (apart >= least), apart, 0)

    return {
        "smile": smile,
        "smirk": one_sided("mouthSmile", PRESENT),
        "tuck": one_sided("mouthDimple", PRESENT),
        "cheeks": mean("cheekSquint"),
        "open": opened,
        "frown": mean("mouthFrown"),
        "brows up": (inner + outer) / 2 * (np.minimum(inner, outer) >= PRESENT / 2),
        "inner only": np.maximum(inner - outer, 0),
        "brows down": mean("browDown"),
        "wide": mean("eyeWide"),
        "squint": mean("eyeSquint"),
        "blink": mean("eyeBlink"),
        "shut": np.where(mean("eyeBlink") >= 3 * PRESENT, mean("eyeBlink"), 0),
        "wink": one_sided("eyeBlink", 2 * PRESENT),
        "sneer": mean("noseSneer"),
        "upper lip": upper,
        "lower lip": lower,
        "teeth": np.minimum(upper, lower),
        "pucker": pucker,
        "funnel": funnel,
        "round": np.maximum(pucker, funnel),
        "press": mean("mouthPress"),
        "stretch": mean("mouthStretch"),
        "dimple": mean("mouthDimple"),
        "roll": (of("mouthRollLower") + of("mouthRollUpper")) / 2,
        "shrug": (of("mouthShrugLower") + of("mouthShrugUpper")) / 2,
        "puff": of("cheekPuff"),
        "tongue": of("tongueOut"),
        "jaw forward": of("jawForward"),
        "jaw shift": np.abs(of("jawLeft") - of("jawRight")),
        "mouth shift": np.abs(of("mouthLeft") - of("mouthRight")),
        "close": np.minimum(of("mouthClose"), of("jawOpen")),
        "gaze": np.maximum(gaze, aside) / 2,  # where one looks is not an expression unless nothing else is
    }


# Signals that repeat others, so that they do not count towards a mix.
_DERIVED = {"smirk", "shut", "tuck", "inner only", "teeth", "round", "close", "gaze", "wink"}
_SIGNALS = tuple(signals(np.zeros((1, len(INDEX)), dtype=np.float32)))
_COUNTED = np.array([name not in _DERIVED for name in _SIGNALS])
_OWN = np.array([[name in parts for name in _SIGNALS] for _, parts, _ in CATEGORIES])
_N_PARTS = _OWN.sum(axis=1).astype(np.float32)
# Positions of each category's signals; where there are fewer than three the first is repeated, which changes neither
# the smallest nor the largest, and the weights leave it out of the mean.
_PARTS = np.array([[_SIGNALS.index((parts + parts[:1] * 2)[i]) for i in range(3)] for _, parts, _ in CATEGORIES])
_WEIGHTS = (np.arange(3) < _N_PARTS[:, None]) / _N_PARTS[:, None]
_BONUS = 0.15 * (_N_PARTS - 1)


def scores(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Judge every category on coefficients in hundredths [N, 52].

    Returns:
        The strength of every signal [N, signals], the score of every category [N, categories] (0 where a signal of a
        combination is missing), and the mean of its signals [N, categories]; float32.
    """
    found = signals(values)
    strength = np.stack([found[name] for name in _SIGNALS], axis=1).astype(np.float32)
    parts = strength[:, _PARTS]
    mean = (parts * _WEIGHTS.astype(np.float32)).sum(axis=2)
    together = (parts.max(axis=2) + mean) / 2 + _BONUS
    present = (_N_PARTS == 1) | (parts.min(axis=2) >= PRESENT)
    return strength, np.where(present, together, 0).astype(np.float32), mean


def _verdicts(strength: np.ndarray, score: np.ndarray) -> list[int | str]:
    """Return each face's category as a position in ``CATEGORIES``, or ``NEUTRAL_CATEGORY`` or ``MIXED_CATEGORY``."""
    best = score.argmax(axis=1)
    others = ((strength >= 2 * PRESENT) & _COUNTED & ~_OWN[best]).sum(axis=1)
    return [
        NEUTRAL_CATEGORY if highest < NEUTRAL_BELOW else MIXED_CATEGORY if rest >= MIXED_FROM else index
        for index, highest, rest in zip(best.tolist(), score.max(axis=1).tolist(), others.tolist(), strict=True)
    ]


def cue(emotion: str, strength: float) -> str:
    """Return the words for an emotion whose category has this mean signal strength in [0, 1]."""
    return f"a hint of {emotion}" if strength < 0.35 else emotion if strength < 0.7 else f"strong {emotion}"


def categories(values: np.ndarray) -> list[tuple[str, str | None]]:
    """Return (category, emotion cue or None) of each face from coefficients in hundredths [N, 52]."""
    strength, score, mean = scores(values)
    out: list[tuple[str, str | None]] = []
    for row, verdict in enumerate(_verdicts(strength, score)):
        if isinstance(verdict, str):
            out.append((verdict, None))
        else:
            name, _, emotion = CATEGORIES[verdict]
            out.append((name, cue(emotion, float(mean[row, verdict])) if emotion else None))
    return out


def measures(values: np.ndarray) -> dict[str, int]:
    """Return what can be said of one face's expression, in hundredths, from coefficients in hundredths [52].

    Keys: each of ``EMOTIONS`` (the largest mean signal among the categories that suggest it and are all there),
    ``own emotion`` (that of the cue the face is given, 0 without one) and ``expression`` (the best score, at most 100).
    """
    strength, score, mean = scores(values[None])
    out = dict.fromkeys(EMOTIONS, 0)
    power = np.rint(np.where(score[0] > 0, mean[0], 0) * 100).astype(int).tolist()
    for own, (_, _, emotion) in zip(power, CATEGORIES, strict=True):
        if emotion:
            out[emotion] = max(out[emotion], own)
    out["joy"] = max(out["joy"], out["pleasure"])  # pleasure is not told from joy by words
    (verdict,) = _verdicts(strength, score)
    suggests = not isinstance(verdict, str) and CATEGORIES[verdict][2]
    out["own emotion"] = power[verdict] if suggests else 0
    out["expression"] = int(min(score.max(), 1) * 100)
    return out
