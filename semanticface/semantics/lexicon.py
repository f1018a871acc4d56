"""Vocabulary that ``faithfulness`` understands: parts of the face, movements, intensities, sides, and their actions.

Phrases become tokens with a kind and a value (``NOUN brow``, ``VERB up``); a noun and a verb together map to actions.
The vocabulary covers the project's own phrases and synonyms used by people and language models.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from semanticface.semantics.phrasing import GRADES

NOUN, VERB, GRADE, MAYBE, SIDE, NOT, MORE, LOOK, AND, BREAK, REST, SKIP = (
    "noun", "verb", "grade", "maybe", "side", "not", "more", "look", "and", "break", "rest", "skip",
)  # fmt: skip


class Token(NamedTuple):
    """A recognised word or phrase: kind, value and character span."""

    kind: str
    value: str
    start: int
    stop: int


_NEXT = tuple(pairwise(GRADES))
GRADE_RANGES: dict[str, tuple[int, int]] = {
    **{adverb: (low, high) for adverb, low, high in GRADES},
    "half": (30, 70),
    **{f"{weaker} or {stronger}": (low, high) for (weaker, low, _), (stronger, _, high) in _NEXT},
}
"""Coefficient range of each intensity, in hundredths, and of doubt between two adjacent ones."""

# kind -> value -> regular expressions. At one position the longest match wins.
_PHRASES: dict[str, dict[str, str]] = {
    NOUN: {
        "inner brow": r"inner (?:(?:ends?|parts?|corners?) of (?:the |both )?)?(?:eye)?brows?",
        "outer brow": r"outer (?:(?:ends?|parts?|corners?) of (?:the |both )?)?(?:eye)?brows?",
        "brow": r"(?:inner and outer )?(?:eye)?brows?|forehead",
        "lower lid": r"lower (?:eye)?lids?",
        "lid": r"(?:upper )?(?:eye)?lids?",
        "eye": r"eyes?",
        "cheek": r"cheeks?",
        "nose": r"nose|nostrils?|nasal bridge",
        "corner": r"(?:mouth |lip )?corners?(?: of (?:the |his |her |their )?(?:mouth|lips))?",
        "upper lip": r"upper lips?",
        "lower lip": r"lower lips?|bottom lip",
        "lips": r"(?:both |upper and lower )?lips?",
        "mouth": r"mouth",
        "jaw": r"jaw|mandible",
        "chin": r"chin",
        "tongue": r"tongue",
        "teeth": r"teeth",
    },
    VERB: {
        "up": r"(?:(?:pulled|drawn|turned|curved|lifted|raised) )?(?:up|upwards?)|rais(?:ed?|ing|es)|lift(?:ed|ing|s)?"
        r"|elevated|arch(?:ed|ing)|upturned|rising",
        "down": r"(?:(?:pulled|drawn|turned|curved|lowered) )?(?:down|downwards?)|lowered|lowering|depressed"
        r"|droop(?:ed|ing|y|s)?|downturned|dropp(?:ed|ing)|drops?|slack",
        "together": r"furrow(?:ed|ing)?|knit(?:ted)?|(?:drawn|pulled) together|pinched|contracted|frown(?:ed|ing|s)?"
        r"|scowl(?:ing)?",
        "wide": r"(?:wide|widened|widely)(?: open(?:ed)?)?|open(?:ed)? wide|widening|enlarged|bulging",
        "narrow": r"narrow(?:ed|ing)?|tighten(?:ed|ing)?|tensed?|crinkled?|squeezed",
        "closed": r"closed|closing|shut",
        "blink": r"blink(?:ed|ing|s)?",
        "wink": r"wink(?:ed|ing|s)?",
        "squint": r"squint(?:ed|ing|s)?",
        "open": r"open(?:ed|ing|s)?|parted|apart|agape|ajar|speech|speaking|talking",
        "smile": r"smil(?:e|es|ing)|grin(?:ning)?|smirk(?:ing)?",
        "stretched": r"stretch(?:ed|ing)?|spread|(?:pulled|drawn|stretched) (?:sideways|back|outwards?|apart)",
        "tucked": r"tucked(?: in)?|dimpl(?:ed|es?|ing)",
        "rounded": r"rounded|round|o shape(?:d)?",
        "funneled": r"funnel(?:l?ed|l?ing)?",
        "puckered": r"pucker(?:ed|ing)?|purs(?:ed|ing)|kiss(?:ing)?",
        "pressed": r"press(?:ed|ing)?(?: together)?|compressed|clamped|tight",
        "rolled": r"roll(?:ed|ing)?(?: in(?:wards?)?)?|sucked in|curled in",
        "pushed up": r"push(?:ed|ing) up(?:wards?)?|shrug(?:ged|ging)?",
        "forward": r"(?:(?:pushed|thrust|moved) )?forwards?|thrust(?:ing)?|protrud(?:ed|ing|es)|jut(?:s|ting)?",
        "puffed": r"puff(?:ed|ing|y)?(?: out)?|inflated|blown(?: (?:out|up))?|filled with air",
        "wrinkled": r"wrinkl(?:ed?|es|ing)|scrunched(?: up)?|flared",
        "sneer": r"sneer(?:ed|ing|s)?",
        "out": r"(?:stuck |sticking |poking )?out|extended|visible",
        "bared": r"bared|shown|showing|exposed",
        "shifted": r"(?:shift(?:ed|s|ing)?|mov(?:ed|es|ing)|skewed|slid|twist(?:ed|s)?)(?: sideways)?",
        "over jaw": r"closed over the open jaw|drawn closed|closed lips over open jaw",
        "inward": r"inwards?|cross eyed|crossed",
        "outward": r"outwards?|diverg(?:ed|ing)",
    },
    GRADE: {
        "barely": r"barely|very slightly|faint(?:ly)?|trace(?: of)?|hint(?: of)?|minimal(?:ly)?|tiny|hardly",
        "slightly": r"slight(?:ly)?|a (?:little|bit)|mild(?:ly)?|subtl[ey]|somewhat|light(?:ly)?|gent(?:le|ly)|small",
        "clearly": r"clear(?:ly)?|moderate(?:ly)?|noticeabl[ey]|marked(?:ly)?|pronounced|medium",
        "strongly": r"strong(?:ly)?|severe(?:ly)?|very|heav(?:y|ily)|great(?:ly)?|deep(?:ly)?|big|broad(?:ly)?|far"
        r"|intense(?:ly)?|significant(?:ly)?|nearly|almost",
        "fully": r"full(?:y)?|complete(?:ly)?|maxim(?:um|al|ally)|extreme(?:ly)?|entire(?:ly)?|total(?:ly)?",
        "half": r"half(?:way)?|partly|partially|partial",
    },
    MAYBE: {"maybe": r"perhaps|maybe|possibly|probably|apparently|seemingly"},
    SIDE: {
        "left": r"(?:on |to |at |towards? )?(?:the |his |her |their )?(?:subject's |person's |character's )?left"
        r"(?:wards?)?(?: (?:side|half)(?: of (?:the )?)?)?",
        "right": r"(?:on |to |at |towards? )?(?:the |his |her |their )?(?:subject's |person's |character's )?right"
        r"(?:wards?)?(?: (?:side|half)(?: of (?:the )?)?)?",
        "both": r"both|on both sides|left and right|right and left|bilaterally",
    },
    NOT: {"not": r"not|no|never|neither|nor|isn't|aren't|without"},
    MORE: {"more": r"more|stronger|higher|further|greater"},
    LOOK: {"look": r"look(?:ing|s)?|gaz(?:e|ing)|glanc(?:e|ing)|turned|directed|averted"},
    AND: {"and": r"and|or"},
    BREAK: {"break": r"while|but|yet|whereas|with|although|as"},
    REST: {
        "rest": r"relaxed|neutral|at rest|resting|inactive|unchanged|straight(?: ahead| forward)?|centered|not visible"
        r"|at the (?:camera|viewer)|no (?:visible |clear )?(?:movement|action|activation|activity|change)"
    },
    SKIP: {
        "skip": r"otherwise|the rest|remaining|mostly relaxed|inside|visible (?:movement|action)|lower face|upper face"
        r"|corners? of (?:the |both )?eyes?"
    },
}

_PHRASES[GRADE] |= {
    f"{weaker} or {stronger}": f"(?:{_PHRASES[GRADE][weaker]}) (?:or|to) (?:{_PHRASES[GRADE][stronger]})"
    for (weaker, *_), (stronger, *_) in _NEXT
}

_PATTERNS = [
    (kind, value, re.compile(rf"(?:{phrases})(?![\w'])"))
    for kind, values in _PHRASES.items()
    for value, phrases in values.items()
]
_WORD = re.compile(r"[\w']+")


@lru_cache(maxsize=1 << 14)
def tokens(text: str) -> tuple[Token, ...]:
    """Return the recognised tokens of an English phrase, in order; other words are skipped.

    At each word the longest phrase that starts there wins.
    """
    text = text.lower().replace("’", "'").replace("-", " ")
    out: list[Token] = []
    position = 0
    while word := _WORD.search(text, position):
        best: Token | None = None
        for kind, value, pattern in _PATTERNS:
            match = pattern.match(text, word.start())
            if match and (best is None or match.end() > best.stop):
                best = Token(kind, value, match.start(), match.end())
        if best is not None:
            out.append(best)
        position = best.stop if best is not None else word.end()
    return tuple(out)


# (noun, verb) -> actions; * stands for Left and Right.
_MEANINGS: dict[str, dict[str, str]] = {
    "brow": {"up": "browInnerUp browOuterUp*", "down": "browDown*", "together": "browDown*", "narrow": "browDown*"},
    "inner brow": {"up": "browInnerUp", "down": "browDown*", "together": "browDown*"},
    "outer brow": {"up": "browOuterUp*", "down": "browDown*"},
    "lid": {"down": "eyeBlink*", "closed": "eyeBlink*", "up": "eyeWide*", "wide": "eyeWide*", "narrow": "eyeSquint*"},
    "lower lid": {"up": "eyeSquint*", "narrow": "eyeSquint*"},
    "eye": {
        "closed": "eyeBlink*", "blink": "eyeBlink*", "wink": "eyeBlink*", "wide": "eyeWide*",
        "narrow": "eyeSquint*", "squint": "eyeSquint*",
    },
    "cheek": {"up": "cheekSquint*", "narrow": "cheekSquint*", "puffed": "cheekPuff"},
    "nose": {"wrinkled": "noseSneer*", "sneer": "noseSneer*", "up": "noseSneer*", "narrow": "noseSneer*"},
    "corner": {
        "up": "mouthSmile*", "smile": "mouthSmile*", "down": "mouthFrown*", "together": "mouthFrown*",
        "stretched": "mouthStretch*", "wide": "mouthStretch*", "outward": "mouthStretch*", "tucked": "mouthDimple*",
        "narrow": "mouthDimple*",
    },
    "upper lip": {"up": "mouthUpperUp*", "rolled": "mouthRollUpper", "pushed up": "mouthShrugUpper"},
    "lower lip": {
        "down": "mouthLowerDown*", "rolled": "mouthRollLower", "pushed up": "mouthShrugLower", "up": "mouthShrugLower",
    },
    "lips": {
        "funneled": "mouthFunnel", "puckered": "mouthPucker", "rounded": "mouthFunnel mouthPucker",
        "forward": "mouthFunnel mouthPucker", "pressed": "mouthPress*", "narrow": "mouthPress*",
        "rolled": "mouthRollLower mouthRollUpper", "pushed up": "mouthShrugLower mouthShrugUpper",
        "over jaw": "mouthClose", "stretched": "mouthStretch*", "smile": "mouthSmile*",
        "shifted left": "mouthLeft", "shifted right": "mouthRight", "shifted": "mouthLeft mouthRight",
    },
    "mouth": {"up": "mouthSmile*", "down": "mouthFrown*", "together": "mouthFrown*", "tucked": "mouthDimple*",
        "wide": "mouthStretch*"},
    "jaw": {
        "open": "jawOpen", "down": "jawOpen", "forward": "jawForward", "wide": "jawOpen",
        "shifted left": "jawLeft", "shifted right": "jawRight", "shifted": "jawLeft jawRight",
    },
    "chin": {"pushed up": "mouthShrugLower", "up": "mouthShrugLower"},
    "tongue": {"out": "tongueOut", "forward": "tongueOut"},
    "teeth": {"bared": "mouthUpperUp* mouthLowerDown*", "out": "mouthUpperUp* mouthLowerDown*"},
    "gaze": {
        "left": "eyeLookOutLeft eyeLookInRight", "right": "eyeLookInLeft eyeLookOutRight", "up": "eyeLookUp*",
        "down": "eyeLookDown*", "inward": "eyeLookIn*", "outward": "eyeLookOut*",
    },
}  # fmt: skip
_MEANINGS["mouth"] = _MEANINGS["lips"] | _MEANINGS["mouth"]


def _expand(stems: str) -> tuple[str, ...]:
    out: list[str] = []
    for stem in stems.split():
        out += [stem[:-1] + "Left", stem[:-1] + "Right"] if stem.endswith("*") else [stem]
    return tuple(out)


MEANINGS: dict[str, dict[str, tuple[str, ...]]] = {
    noun: {verb: _expand(stems) for verb, stems in verbs.items()} for noun, verbs in _MEANINGS.items()
}
"""noun -> verb -> actions; gaze directions are verbs of the noun ``gaze``."""

REGION_NOUN: dict[str, str] = {
    "brows": "brow", "eyes": "eye", "gaze": "gaze", "cheeks": "cheek", "nose": "nose", "mouth": "mouth", "jaw": "jaw",
    "tongue": "tongue",
}  # fmt: skip
"""The subject of a region's phrase that names none."""

IMPLIED_NOUN: dict[str, str] = {"blink": "eye", "wink": "eye", "squint": "eye", "sneer": "nose", "puffed": "cheek"}
"""Verbs that imply their noun."""

_EMOTION_WORDS: dict[str, str] = {
    "joy": r"joy|joyful|joyous|happy|happiness|delight|delighted|amused|amusement|cheerful|cheerfulness|pleased"
    r"|pleasure|pleasant|friendly|friendliness|polite|politeness",
    "surprise": r"surprise|surprised|surprising|startled|astonished|astonishment|amazed|amazement|shock|shocked",
    "fear": r"fear|fearful|afraid|scared|terror|terrified|frightened",
    "sadness": r"sad|sadness|sorrow|sorrowful|grief|grieving|unhappy|unhappiness|misery|miserable",
    "anger": r"anger|angry|rage|furious|fury|annoyed|annoyance|irritated|irritation|hostile|hostility",
    "disgust": r"disgust|disgusted|revulsion|repulsed|aversion",
    "contempt": r"contempt|contemptuous|disdain|disdainful|scorn|scornful|smug|smugness",
}
EMOTION_WORDS = {emotion: re.compile(rf"\b(?:{words})\b") for emotion, words in _EMOTION_WORDS.items()}
"""Words of each emotion of ``expression``; pleasure counts as joy."""
