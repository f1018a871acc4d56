"""Text to a face, and back within one grade."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semanticface import arkit, coefficients_from_text, describe
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.semantics.phrasing import GRADES


def read(text: str) -> dict[str, float]:
    face = coefficients_from_text(text)
    return {
        name: face.coefficients[arkit.INDEX[name]] for name in face.mentioned if face.coefficients[arkit.INDEX[name]]
    }


def levels(coefficients: np.ndarray) -> np.ndarray:
    return np.digitize(arkit.to_hundredths(coefficients), [low for _, low, _ in GRADES])


def test_described_faces_read_back_within_one_grade():
    rng = np.random.default_rng(16)
    for _ in range(300):
        face = sample_coefficients(rng)
        again = coefficients_from_text(describe(face)).coefficients
        assert (abs(levels(face) - levels(again)) <= 1).all(), describe(face)


@pytest.mark.parametrize(
    ("text", "actions"),
    [
        ("left brow raised", {"browInnerUp", "browOuterUpLeft"}),
        ("a faint one-sided smile", {"mouthSmileLeft"}),
        ("eyes half closed", {"eyeBlinkLeft", "eyeBlinkRight"}),
        ("Wink with the right eye", {"eyeBlinkRight"}),
        ("mouth wide open", {"jawOpen"}),
        ("close the left eye", {"eyeBlinkLeft"}),
        ("widen the eyes", {"eyeWideLeft", "eyeWideRight"}),
        ("lower the brows", {"browDownLeft", "browDownRight"}),
        ("not smiling, jaw open", {"jawOpen"}),
        ("looking up", {"eyeLookUpLeft", "eyeLookUpRight"}),
        ("the lower lip is pulled down on the left", {"mouthLowerDownLeft"}),
        ("neutral", set()),
    ],
)
def test_english_becomes_actions(text, actions):
    assert set(read(text)) == actions
    assert coefficients_from_text(text).not_understood == ()


def test_intensities_are_ordered():
    amounts = [read(f"{word} smile")["mouthSmileLeft"] for word in ("faint", "slight", "clear", "wide", "full")]
    assert amounts == sorted(set(amounts))


@pytest.mark.parametrize(
    ("text", "axis", "sign"),
    [
        ("head turned to the left", 0, -1),
        ("head turned to the right", 0, 1),
        ("head raised", 1, -1),
        ("head down", 1, 1),
        ("head tilted to the left", 2, 1),
    ],
)
def test_the_head_turns_in_live_links_signs(text, axis, sign):
    face = coefficients_from_text(text)
    assert np.sign(face.pose[axis]) == sign
    assert np.count_nonzero(face.pose) == 1
    assert not face.coefficients.any()


def test_what_is_not_understood_is_said():
    face = coefficients_from_text("smiling with purple ears, raised")
    assert face.not_understood == ("purple", "ears", "raised")
    assert face.coefficients[arkit.INDEX["mouthSmileLeft"]] > 0


@given(st.text())
def test_any_text_gives_a_face(text):
    face = coefficients_from_text(text)
    assert ((face.coefficients >= 0) & (face.coefficients <= 1)).all()
    assert np.isfinite(face.pose).all()
