"""Classify the expression of a whole face: interpretable rules from coefficients to a category and an emotion cue.

A *signal* is a visible feature (raised brows, a smile, an open mouth): the mean of a few coefficients. A category is
one signal or a combination. Its score is halfway between its strongest signal and the mean of all its signals, plus
0.15 for each signal beyond the first, and counts only if every signal reaches ``PRESENT``; the highest score wins. So
a combination of two beats its parts unless one signal is 0.6 stronger than the other.

Combinations with an emotion cue follow the prototypes of EMFACS (Ekman and Friesen; Friesen and Ekman 1983) as far as
ARKit can express them: joy 6+12, surprise 1+2+5+26, sadness 1+4+15, fear 1+2+4+5+20, anger 4+5+7+23/24, disgust 9 or
10+17, contempt 12 or 14 on one side. Other categories have no cue. Category names describe what is visible and never
an emotion, so they stay valid when emotion is off.
"""

from __future__ import annotations

import numpy as np

from semanticface.arkit import INDEX

PRESENT = 0.2
"""Signals from here on count in a combination."""
NEUTRAL_BELOW = 0.15
"""Faces whose best score is below this are neutral."""
MIXED_FROM = 4
"""With this many clearly visible signals outside the best category, the expression is mixed."""

# (category, signals, suggested emotion or None), most specific first: ties go to the first.
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
"""The emotion cue of categories without one."""
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

    def one_sided(stem: str, minimum: float) -> np.ndarray:
        """The difference of the sides where only one of them moves, and by at minimum ``minimum``."""
        left, right = of(f"{stem}Left"), of(f"{stem}Right")
        apart = np.abs(left - right)
        return np.where((np.minimum(left, right) < PRESENT) & (apart >= minimum), apart, 0)

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
        "gaze": np.maximum(gaze, aside) / 2,  # halved: gaze only counts when nothing else does
    }


# Signals derived from others: they do not count towards a mixed expression.
_DERIVED = {"smirk", "shut", "tuck", "inner only", "teeth", "round", "close", "gaze", "wink"}
_SIGNALS = tuple(signals(np.zeros((1, len(INDEX)), dtype=np.float32)))
_COUNTED = np.array([name not in _DERIVED for name in _SIGNALS])
_OWN = np.array([[name in parts for name in _SIGNALS] for _, parts, _ in CATEGORIES])
_N_PARTS = _OWN.sum(axis=1).astype(np.float32)
# Signal indices of each category, [categories, 3]. Fewer than three are padded with the first, which leaves minimum and
# maximum unchanged and has weight 0 in the mean.
_PARTS = np.array([[_SIGNALS.index((parts + parts[:1] * 2)[i]) for i in range(3)] for _, parts, _ in CATEGORIES])
_WEIGHTS = (np.arange(3) < _N_PARTS[:, None]) / _N_PARTS[:, None]
_BONUS = 0.15 * (_N_PARTS - 1)


def scores(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score every category from coefficients in hundredths [N, 52].

    Returns:
        float32 arrays: signal strengths [N, signals], category scores [N, categories] (0 if a signal of a combination
        is missing), and the mean of each category's signals [N, categories].
    """
    found = signals(values)
    strength = np.stack([found[name] for name in _SIGNALS], axis=1).astype(np.float32)
    parts = strength[:, _PARTS]  # [N, categories, 3]
    mean = (parts * _WEIGHTS.astype(np.float32)).sum(axis=2)
    together = (parts.max(axis=2) + mean) / 2 + _BONUS
    present = (_N_PARTS == 1) | (parts.min(axis=2) >= PRESENT)
    return strength, np.where(present, together, 0).astype(np.float32), mean


_HAS_EMOTION = np.array([cue is not None for _, _, cue in CATEGORIES])


def _best(strength: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each face's best category, int64[N], and whether it is neutral or mixed instead, bool[N]."""
    best = score.argmax(axis=1)
    others = ((strength >= 2 * PRESENT) & _COUNTED & ~_OWN[best]).sum(axis=1)
    neutral = score.max(axis=1) < NEUTRAL_BELOW
    return best, neutral, ~neutral & (others >= MIXED_FROM)


def cue(emotion: str, strength: float) -> str:
    """Return the cue for an emotion at a mean signal strength in [0, 1]."""
    return f"a hint of {emotion}" if strength < 0.35 else emotion if strength < 0.7 else f"strong {emotion}"


def categories(values: np.ndarray) -> list[tuple[str, str | None]]:
    """Return each face's (category, emotion cue or None), from coefficients in hundredths [N, 52]."""
    strength, score, mean = scores(values)
    out: list[tuple[str, str | None]] = []
    found = zip(*(each.tolist() for each in _best(strength, score)), strict=True)
    for row, (best, neutral, mixed) in enumerate(found):
        if neutral or mixed:
            out.append((NEUTRAL_CATEGORY if neutral else MIXED_CATEGORY, None))
        else:
            name, _, emotion = CATEGORIES[best]
            out.append((name, cue(emotion, float(mean[row, best])) if emotion else None))
    return out


def measures(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return measures of faces' expressions, int64[N] in hundredths, from coefficients in hundredths [N, 52].

    Keys: each of ``EMOTIONS`` (the largest mean signal of the present categories that suggest it), ``own emotion``
    (the same for the face's own cue, 0 without one) and ``expression`` (the best score, at most 100).
    """
    strength, score, mean = scores(values)
    percent = np.rint(np.where(score > 0, mean, 0) * 100).astype(np.int64)
    out = {
        emotion: percent[:, [cue == emotion for _, _, cue in CATEGORIES]].max(axis=1, initial=0) for emotion in EMOTIONS
    }
    out["joy"] = np.maximum(out["joy"], out["pleasure"])  # analyses do not distinguish pleasure from joy
    best, neutral, mixed = _best(strength, score)
    plain = ~neutral & ~mixed & _HAS_EMOTION[best]
    out["own emotion"] = np.where(plain, percent[np.arange(len(best)), best], 0)
    out["expression"] = (np.minimum(score.max(axis=1), 1) * 100).astype(np.int64)
    return out
