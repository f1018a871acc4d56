"""Analyses mention every visible action, make no false claims, and are parsed as intended."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from semanticface.arkit import NAMES, REGIONS, mirror, to_hundredths, vector
from semanticface.semantics.analysis import GRADES, UNCLEAR, VISIBLE, Analysis, describe, describe_many, visible
from semanticface.semantics.expression import CATEGORIES, EMOTIONS, MIXED_CATEGORY, NEUTRAL_CATEGORY
from semanticface.semantics.faithfulness import agreement, text_claims
from semanticface.semantics.lexicon import EMOTION_WORDS
from semanticface.semantics.movements import RELAXED

unit = st.floats(0, 1, width=32)
EDGES = (0.0, 0.0949, 0.095, 0.1, 0.195, 0.2, 0.395, 0.4, 0.595, 0.6, 0.845, 0.85, 1.0)
edges = st.sampled_from(EDGES)
vectors = st.one_of(
    arrays(np.float32, 52, elements=unit),
    arrays(np.float32, 52, elements=edges),
    arrays(np.float32, 52, elements=unit, fill=st.just(0.0)),
    st.dictionaries(st.sampled_from(NAMES), unit, max_size=12).map(vector),
)


def faces(count: int, seed: int = 0) -> np.ndarray:
    """Return random faces of every density, with extremes."""
    rng = np.random.default_rng(seed)
    values = rng.random((count, 52))
    values[::4] *= rng.random(values[::4].shape) < 0.2
    values[1::4] = rng.integers(0, 2, values[1::4].shape)
    values[2::4] **= 4
    return values


def manual(
    category: str = NEUTRAL_CATEGORY, emotion: str | None = None, symmetry: str = "symmetric", **movements: str
) -> Analysis:
    """Return an analysis; other regions are relaxed."""
    return Analysis(category, {**RELAXED, **movements}, emotion, symmetry)


def phrase_of(values: dict[str, float], region: str) -> str:
    return describe(vector(values)).muscle_movements[region]


def test_the_neutral_face():
    analysis = describe(np.zeros(52))
    assert analysis == manual(NEUTRAL_CATEGORY, UNCLEAR)
    assert list(analysis.muscle_movements) == list(REGIONS)


def test_grades_cover_the_visible_range_without_gaps():
    assert GRADES[0][1] == round(VISIBLE * 100) and GRADES[-1][2] == 100
    assert all(low == before + 1 for (_, _, before), (_, low, _) in pairwise(GRADES))
    for adverb, low, high in GRADES:
        for hundredth in (low, high):
            assert phrase_of({"jawOpen": hundredth / 100}, "jaw") == f"{adverb} open"
    assert phrase_of({"jawOpen": 0.0949}, "jaw") == "relaxed"
    assert phrase_of({"jawOpen": 0.0951}, "jaw") == "barely open"


@pytest.mark.parametrize(
    ("values", "region", "phrase"),
    [
        ({"browDownLeft": 0.3}, "brows", "left brow slightly lowered"),
        ({"browDownLeft": 0.3, "browDownRight": 0.25}, "brows", "both brows slightly lowered"),
        ({"browDownLeft": 0.3, "browDownRight": 0.7}, "brows", "left brow slightly and right brow strongly lowered"),
        ({"browInnerUp": 0.7, "browOuterUpLeft": 0.6, "browOuterUpRight": 0.8}, "brows", "both brows strongly raised"),
        (
            {"browInnerUp": 0.9, "browOuterUpLeft": 0.5},
            "brows",
            "inner brows fully raised, left outer brow clearly raised",
        ),
        ({"eyeWideLeft": 0.7, "eyeWideRight": 0.7}, "eyes", "both eyes strongly widened"),
        ({"eyeBlinkLeft": 1, "eyeBlinkRight": 0.3}, "eyes", "left eye fully closed, right eyelid slightly lowered"),
        (
            {"eyeBlinkLeft": 0.5, "eyeWideLeft": 0.3},
            "eyes",
            "left eyelid clearly lowered, yet left eye slightly widened",
        ),
        ({"eyeLookOutLeft": 0.3, "eyeLookInRight": 0.25}, "gaze", "looking slightly to the subject's left"),
        ({"eyeLookInLeft": 0.5, "eyeLookOutRight": 0.5}, "gaze", "looking clearly to the subject's right"),
        (
            {"eyeLookOutLeft": 0.3, "eyeLookInRight": 0.25, "eyeLookUpLeft": 0.7, "eyeLookUpRight": 0.7},
            "gaze",
            "looking slightly to the subject's left and strongly up",
        ),
        ({"eyeLookInLeft": 0.3, "eyeLookInRight": 0.3}, "gaze", "both eyes slightly turned inward"),
        ({"eyeLookOutRight": 0.9}, "gaze", "right eye fully turned outward"),
        ({"cheekPuff": 0.5}, "cheeks", "both cheeks clearly puffed out"),
        (
            {"noseSneerLeft": 0.5, "noseSneerRight": 0.2},
            "nose",
            "wrinkled clearly on the left and slightly on the right",
        ),
        ({"noseSneerLeft": 0.5}, "nose", "clearly wrinkled on the left"),
        (
            {"mouthFrownLeft": 0.3, "mouthFrownRight": 0.3, "mouthStretchLeft": 0.1, "mouthStretchRight": 0.1},
            "mouth",
            "both corners slightly pulled down, barely stretched",
        ),
        ({"mouthFunnel": 0.3, "mouthPucker": 0.3}, "mouth", "lips slightly funneled and puckered"),
        ({"mouthRollLower": 0.3, "mouthRollUpper": 0.3}, "mouth", "lips slightly rolled in"),
        ({"mouthClose": 0.3, "jawOpen": 0.4}, "mouth", "lips slightly closed over the open jaw"),
        ({"mouthClose": 0.3}, "mouth", "lips slightly drawn closed"),
        ({"mouthLeft": 0.3}, "mouth", "mouth slightly shifted left"),
        ({"jawOpen": 0.9, "jawRight": 0.3}, "jaw", "fully open, slightly shifted right"),
        ({"tongueOut": 0.9}, "tongue", "fully stuck out"),
    ],
)
def test_phrases(values, region, phrase):
    assert phrase_of(values, region) == phrase


@pytest.mark.parametrize(
    ("values", "category", "emotion"),
    [
        ({"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "cheekSquintLeft": 0.6, "cheekSquintRight": 0.6},
         "smile with raised cheeks", "strong joy"),
        ({"mouthSmileLeft": 0.3, "mouthSmileRight": 0.3}, "smile", "a hint of pleasure"),
        ({"mouthSmileLeft": 0.6}, "one-sided smile", "contempt"),
        ({"browInnerUp": 0.8, "browOuterUpLeft": 0.8, "browOuterUpRight": 0.8, "jawOpen": 0.4},
         "raised brows and open mouth", "surprise"),
        ({"browInnerUp": 0.8, "mouthFrownLeft": 0.5, "mouthFrownRight": 0.5},
         "raised inner brows and downturned mouth", "sadness"),
        ({"browDownLeft": 0.8, "browDownRight": 0.8, "mouthPressLeft": 0.7, "mouthPressRight": 0.7},
         "lowered brows and pressed lips", "strong anger"),
        ({"noseSneerLeft": 0.5, "noseSneerRight": 0.5, "mouthUpperUpLeft": 0.5, "mouthUpperUpRight": 0.5},
         "wrinkled nose and raised upper lip", "disgust"),
        ({"browInnerUp": 0.7, "browOuterUpLeft": 0.7, "browOuterUpRight": 0.7, "eyeWideLeft": 0.9, "eyeWideRight": 0.9,
          "mouthStretchLeft": 0.7, "mouthStretchRight": 0.7},
         "raised brows, wide eyes and stretched mouth", "strong fear"),
        ({"eyeBlinkRight": 0.9}, "wink", UNCLEAR),
        ({"eyeBlinkLeft": 0.9, "eyeBlinkRight": 0.9}, "closed eyes", UNCLEAR),
        ({"mouthPucker": 0.8}, "puckered lips", UNCLEAR),
        ({"jawOpen": 0.3, "mouthFunnel": 0.4}, "speech with rounded lips", UNCLEAR),
        ({"eyeLookUpLeft": 0.5, "eyeLookUpRight": 0.5}, "turned gaze", UNCLEAR),
    ],
)  # fmt: skip
def test_categories(values, category, emotion):
    analysis = describe(vector(values))
    assert (analysis.expression_category, analysis.emotional_implication) == (category, emotion)


def test_a_face_doing_everything_is_mixed():
    assert describe(np.ones(52)).expression_category == MIXED_CATEGORY


@pytest.mark.parametrize(
    ("values", "symmetry"),
    [
        ({"mouthSmileLeft": 0.5, "mouthSmileRight": 0.45}, "symmetric"),
        ({"mouthSmileLeft": 0.5, "mouthSmileRight": 0.3}, "mostly symmetric, left corner pulled up more"),
        ({"eyeBlinkRight": 1.0}, "asymmetric, right eyelid lowered more"),
        ({"mouthPressRight": 0.4}, "asymmetric, right side of the lips pressed more"),
        ({"jawLeft": 0.2}, "mostly symmetric, jaw shifted left"),
        ({"browDownLeft": 0.3, "jawRight": 0.6}, "asymmetric, jaw shifted right, left brow lowered more"),
        ({"eyeLookOutLeft": 0.9, "eyeLookInRight": 0.9}, "symmetric"),
    ],
)
def test_symmetry(values, symmetry):
    assert describe(vector(values)).symmetry == symmetry


@given(vectors)
def test_every_description_is_true_and_complete(coefficients):
    analysis = describe(coefficients)
    result = agreement(analysis, coefficients)
    assert result.contradicts == () and result.omits == () and result.score == 1
    without = describe(coefficients, emotion=False)
    assert agreement(without, coefficients).score == 1
    assert describe(coefficients) == analysis
    rounded = np.round(coefficients.astype(np.float64), 2)
    assert describe(rounded) == analysis, "the vector parsed from an answer has the same description"


def test_descriptions_of_a_thousand_faces_are_true_and_complete():
    values = faces(1200, seed=1)
    for row, analysis in zip(values, describe_many(values), strict=True):
        result = agreement(analysis, row)
        assert not result.contradicts and not result.omits, result


def test_describe_many_equals_describe():
    values = faces(4500)  # more than one batch
    values[1000:2000] = np.random.default_rng(2).choice([0.0, 0.15, 0.5, 0.9], (1000, 52))  # equal levels share clauses
    values[2000:3000] = np.random.default_rng(3).choice(EDGES, (1000, 52))
    many = describe_many(values, emotion=False)
    assert many == [describe(row, emotion=False) for row in values]
    assert [analysis.emotional_implication for analysis in many[:9]] == [None] * 9
    assert describe_many(values[::9]) == [describe(row) for row in values[::9]]
    assert describe_many(np.zeros((0, 52))) == []


def test_a_mirrored_face_swaps_sides():
    def swapped(text: str) -> list[str]:
        text = re.sub("left|right", lambda side: {"left": "right", "right": "left"}[side[0]], text)
        return sorted(re.split(r"\b", text))

    values = faces(300)
    for here, there in zip(describe_many(values), describe_many(mirror(values)), strict=True):
        assert here.expression_category == there.expression_category
        for region in REGIONS:
            assert swapped(here.muscle_movements[region]) == sorted(re.split(r"\b", there.muscle_movements[region]))


@given(vectors)
def test_emotion_off_omits_emotions_everywhere(coefficients):
    analysis = describe(coefficients, emotion=False)
    assert analysis.emotional_implication is None
    assert "emotional_implication" not in analysis.to_dict()
    text = json.dumps(analysis.to_dict()).lower()
    assert not any(pattern.search(text) for pattern in EMOTION_WORDS.values())


def test_no_category_names_an_emotion_and_every_emotion_has_words():
    for name, _, emotion in CATEGORIES:
        assert not any(pattern.search(name) for pattern in EMOTION_WORDS.values())
        assert emotion is None or any(pattern.search(emotion) for pattern in EMOTION_WORDS.values())
    assert {"joy", "surprise", "sadness", "fear", "anger", "disgust", "contempt"} <= set(EMOTIONS)


def test_the_vocabulary_is_small_and_texts_are_short():
    words: set[str] = set()
    lengths = []
    rng = np.random.default_rng(3)
    values = rng.random((4000, 52)) * (rng.random((4000, 52)) < 0.25)
    for analysis in describe_many(values):
        texts = [analysis.expression_category, analysis.emotional_implication, analysis.symmetry]
        found = re.findall(r"[\w'-]+", " ".join([*texts, *analysis.muscle_movements.values()]))
        words.update(found)
        lengths.append(len(found))
    assert len(words) < 150
    assert np.mean(lengths) < 110


def test_visible_lists_actions_of_the_first_grade_or_higher():
    assert visible(vector({"jawOpen": 0.1, "tongueOut": 0.094, "eyeBlinkLeft": 1})) == ("eyeBlinkLeft", "jawOpen")


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros(51), np.full(52, np.nan), np.full(52, 1.001), np.full(52, -0.001), np.full(52, np.inf),
        np.zeros((2, 2, 52)),
    ],
)  # fmt: skip
def test_invalid_coefficients_are_rejected(bad):
    for function in (describe, describe_many):
        with pytest.raises(ValueError, match="coefficients"):
            function(bad)
    with pytest.raises(ValueError, match="coefficients"):
        agreement(manual(), bad)


@given(unit)
def test_hundredths_round_as_text_does(value):
    assert to_hundredths(np.full(52, value))[0] == round(float(f"{value:.2f}") * 100)


def test_json_form_round_trips_and_rejects_others():
    for emotion in (True, False):
        analysis = describe(faces(4)[2], emotion=emotion)
        assert Analysis.from_dict(json.loads(json.dumps(analysis.to_dict()))) == analysis
    good = describe(np.zeros(52)).to_dict()
    for bad in (
        [],
        {},
        good | {"extra": "x"},
        good | {"symmetry": 1},
        good | {"symmetry": "  "},
        good | {"emotional_implication": None},
        good | {"muscle_movements": {"brows": "relaxed"}},
        {key: value for key, value in good.items() if key != "symmetry"},
    ):
        with pytest.raises(ValueError):
            Analysis.from_dict(bad)


def test_another_faces_analysis_does_not_agree():
    values = faces(200)
    own = [agreement(a, row).score for a, row in zip(describe_many(values), values, strict=True)]
    other = [agreement(a, row).score for a, row in zip(describe_many(np.roll(values, 4, axis=0)), values, strict=True)]
    assert min(own) == 1
    assert np.mean(other) < 0.4


def test_one_wrong_coefficient_is_detected():
    values = faces(24, seed=5)
    missed = 0
    for row, analysis in zip(values, describe_many(values), strict=True):
        for i in range(52):
            wrong = row.copy()
            wrong[i] = 0.0 if row[i] > 0.5 else 1.0
            missed += agreement(analysis, wrong).score == 1
    assert missed == 0


SMILE = {
    "mouthSmileLeft": 0.7, "mouthSmileRight": 0.72, "cheekSquintLeft": 0.5, "cheekSquintRight": 0.45,
    "eyeSquintLeft": 0.3, "eyeSquintRight": 0.3, "jawOpen": 0.15, "mouthUpperUpLeft": 0.4, "mouthUpperUpRight": 0.4,
}  # fmt: skip
STARTLED = {
    "browInnerUp": 0.8, "browOuterUpLeft": 0.7, "browOuterUpRight": 0.7, "eyeWideLeft": 0.6, "eyeWideRight": 0.6,
    "jawOpen": 0.7, "eyeLookOutLeft": 0.25, "eyeLookInRight": 0.25, "mouthStretchLeft": 0.3, "mouthStretchRight": 0.15,
}  # fmt: skip
WINKING = {
    "eyeBlinkLeft": 0.95, "mouthSmileLeft": 0.3, "eyeLookDownLeft": 0.4, "eyeLookDownRight": 0.4, "eyeLookInLeft": 0.3,
    "eyeLookOutRight": 0.3,
}  # fmt: skip


@pytest.mark.parametrize(
    ("values", "analysis"),
    [
        (
            STARTLED,
            manual(
                "surprise",
                "startled surprise",
                "mostly symmetric, the left mouth corner stretched a little more",
                brows="inner and outer brows raised strongly on both sides",
                eyes="both eyes opened wide",
                gaze="looking slightly to the subject's left",
                mouth="lips apart, corners stretched slightly, more on the left",
                jaw="dropped far",
            ),
        ),
        (
            SMILE,
            manual(
                "A broad, genuine smile",
                "The person seems happy.",
                "The face is symmetrical.",
                brows="The eyebrows are not raised and show no movement.",
                eyes="Eyes slightly squinted, crinkled at the corners of the eyes.",
                gaze="looking directly at the camera",
                cheeks="Cheeks are lifted noticeably by the smile.",
                nose="No wrinkling.",
                mouth="The mouth corners are pulled up strongly on both sides and the teeth visible; lips are parted.",
                jaw="The jaw is slightly open.",
            ),
        ),
        (
            WINKING,
            manual(
                "wink",
                "playful",
                "asymmetric, left eye closed",
                eyes="the left eye is fully closed while the right eye stays open",
                gaze="eyes look down and slightly to the right",
                mouth="slight smirk on the left, the right corner neutral",
            ),
        ),
    ],
)
def test_true_free_text_agrees(values, analysis):
    result = agreement(analysis, vector(values))
    assert result.contradicts == () and result.omits == () and result.score == 1


@pytest.mark.parametrize(
    ("region", "text", "true", "false"),
    [
        ("brows", "brows furrowed", {"browDownLeft": 0.5, "browDownRight": 0.5}, {}),
        ("brows", "the right eyebrow is arched slightly", {"browOuterUpRight": 0.3}, {"browOuterUpLeft": 0.3}),
        ("brows", "brows not lowered", {}, {"browDownLeft": 0.5}),
        ("eyes", "eyes half-closed", {"eyeBlinkLeft": 0.5, "eyeBlinkRight": 0.5}, {}),
        ("eyes", "eyes shut", {"eyeBlinkLeft": 0.9, "eyeBlinkRight": 0.9}, {"eyeBlinkLeft": 0.1}),
        ("eyes", "eyes not fully closed", {"eyeBlinkLeft": 0.5, "eyeBlinkRight": 0.5}, {"eyeBlinkLeft": 1}),
        ("eyes", "both eyes open", {}, {"eyeBlinkRight": 1}),
        ("eyes", "eyelids drooping slightly", {"eyeBlinkLeft": 0.3, "eyeBlinkRight": 0.3}, {}),
        ("gaze", "gaze directed upward", {"eyeLookUpLeft": 0.5, "eyeLookUpRight": 0.5}, {"eyeLookDownLeft": 0.5}),
        ("gaze", "glancing to his left", {"eyeLookOutLeft": 0.5, "eyeLookInRight": 0.5}, {"eyeLookInLeft": 0.5}),
        ("gaze", "eyes crossed", {"eyeLookInLeft": 0.5, "eyeLookInRight": 0.5}, {}),
        ("cheeks", "cheeks inflated moderately", {"cheekPuff": 0.5}, {"cheekPuff": 0.9}),
        ("nose", "wrinkled on the left", {"noseSneerLeft": 0.5}, {"noseSneerRight": 0.5}),
        ("mouth", "mouth closed", {}, {"jawOpen": 0.5}),
        ("mouth", "lips pursed", {"mouthPucker": 0.5}, {"mouthFunnel": 0.5}),
        ("mouth", "corners turned down", {"mouthFrownLeft": 0.5, "mouthFrownRight": 0.5}, {"mouthSmileLeft": 0.5}),
        ("mouth", "lips pressed together, more on the right", {"mouthPressRight": 0.5}, {"mouthPressLeft": 0.5}),
        ("mouth", "lower lip sucked in", {"mouthRollLower": 0.5}, {"mouthRollUpper": 0.5}),
        ("mouth", "mouth twisted to the right", {"mouthRight": 0.5}, {"mouthLeft": 0.5}),
        ("mouth", "no smile", {}, {"mouthSmileLeft": 0.5, "mouthSmileRight": 0.5}),
        ("mouth", "bared teeth", {"mouthUpperUpLeft": 0.5, "mouthLowerDownLeft": 0.5}, {}),
        ("jaw", "thrust forward", {"jawForward": 0.5}, {"jawOpen": 0.5}),
        ("jaw", "moved slightly to the left", {"jawLeft": 0.3}, {"jawRight": 0.3}),
        ("jaw", "closed", {}, {"jawOpen": 0.5}),
        ("tongue", "clearly visible", {"tongueOut": 0.5}, {}),
        ("tongue", "the tongue is not visible", {}, {"tongueOut": 0.5}),
    ],
)
def test_free_text_is_true_of_one_face_and_false_of_another(region, text, true, false):
    def about(values: dict[str, float]) -> list[bool]:
        result = agreement(manual(**{region: text}), vector(values))
        claims = [(True, claim) for claim in result.holds] + [(False, claim) for claim in result.contradicts]
        return [holds for holds, claim in claims if claim.source == region]

    assert about(true) and all(about(true))
    assert not all(about(false))


def test_false_claims_lower_the_score_and_are_listed():
    sad = manual("sadness", "sad", "symmetric", mouth="corners turned down", brows="inner ends of the brows raised")
    result = agreement(sad, vector(SMILE))
    assert {claim.source for claim in result.contradicts} == {
        "expression_category", "emotional_implication", "mouth", "brows", "cheeks", "eyes", "jaw",
    }  # fmt: skip
    assert set(result.omits) == set(SMILE)
    assert result.score < 0.3


def test_omissions_are_weighted_by_visibility():
    words = describe(vector({"jawOpen": 0.5}))
    faint = agreement(words, vector({"jawOpen": 0.5, "browInnerUp": 0.12}))
    plain = agreement(words, vector({"jawOpen": 0.5, "browInnerUp": 0.9}))
    assert faint.omits == plain.omits == ("browInnerUp",)
    assert plain.score < faint.score < 1


def test_text_without_claims_scores_zero():
    nothing = Analysis("…", dict.fromkeys(REGIONS, "n/a"), None, "?")
    assert agreement(nothing, vector({"jawOpen": 0.5})).score == 0
    assert agreement(nothing, np.zeros(52)).score == 0


@given(st.text(), st.text(), vectors)
def test_any_text_can_be_checked(one, other, coefficients):
    result = agreement(Analysis(one, dict.fromkeys(REGIONS, other), other, one), coefficients)
    assert 0 <= result.score <= 1


WORDS = re.findall(
    r"\S+",
    """
    left right both brow brows eye eyes lips corner corners jaw mouth looking raised lowered closed open pulled up down
    slightly strongly fully not no more and or , ; while relaxed neutral on the symmetric mostly turned shifted smile
    """,
)


@given(st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join), vectors)
def test_any_sequence_of_known_words_can_be_checked(text, coefficients):
    result = agreement(Analysis(text, dict.fromkeys(REGIONS, text), text, text), coefficients)
    assert 0 <= result.score <= 1


@pytest.mark.parametrize(
    ("region", "text", "bounds"),
    [
        ("mouth", "lips slightly or clearly funneled", [(15, 64)]),
        ("eyes", "both eyelids slightly to clearly lowered", [(15, 64)]),
        ("mouth", "both corners perhaps slightly pulled up, slightly or clearly stretched", [(0, 44), (15, 64)]),
        ("jaw", "maybe slightly open and clearly pushed forward", [(0, 44), (35, 64)]),
        ("gaze", "looking perhaps slightly up", [(0, 44)]),
        ("brows", "perhaps relaxed", [(0, 44)]),
        ("brows", "perhaps raised", []),
        ("brows", "unclear", []),
        ("symmetry", "perhaps symmetric", []),
        ("emotional_implication", "perhaps joy", []),
        ("expression_category", "perhaps neutral", []),
    ],
)
def test_doubt_widens_a_claim_and_what_excludes_nothing_is_none(region, text, bounds):
    assert [(claim.low, claim.high) for claim in text_claims(region, text)] == bounds
