"""The drawn style: every action is visible and distinct, labels lie on the drawn lines."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from semanticface import arkit
from semanticface.errors import ConfigError
from semanticface.rendering import cartoon
from semanticface.rendering.cartoon import draw
from semanticface.rendering.cartoon.anime import style_of
from semanticface.rendering.cartoon.geometry import face_shape
from semanticface.rendering.cartoon.style import BLUSHES, Style
from semanticface.rendering.types import POINTS

NEUTRAL = arkit.vector({})
# Actions that need an open jaw are compared with the jaw open.
NEEDS_JAW = {"mouthClose": 0.7, "tongueOut": 0.35}


def coefficients_of(name: str, level: float = 1.0) -> np.ndarray:
    values = {name: level * NEEDS_JAW[name] if name == "mouthClose" else level}
    if name in NEEDS_JAW:
        values["jawOpen"] = NEEDS_JAW[name]
    return arkit.vector(values)


def draw_image(coefficients, subject=None, shot=None, size=96):
    rendered = draw(coefficients, subject=subject, shot=shot, size=size, supersample=1, framing="crop")
    return rendered.image.astype(np.int16)


def point(rendered, name: str) -> np.ndarray:
    return rendered.points[POINTS.index(name)]


ANIME = [subject for subject in range(40) if style_of(subject).big_eyes and style_of(subject).brows_over_hair == 1.0]


@pytest.mark.parametrize("subject", [None, 3, 8, 17, 29, *ANIME[:4]])
def test_every_action_is_visible_and_grows(subject):
    for name in arkit.NAMES:
        rest = draw_image(coefficients_of(name, 0.0) if name in NEEDS_JAW else NEUTRAL, subject)
        half, full = draw_image(coefficients_of(name, 0.5), subject), draw_image(coefficients_of(name), subject)
        changed = np.abs(full - rest).max(axis=-1) > 24
        assert changed.sum() >= 12, f"{name} moves only {changed.sum()} of {changed.size} pixels"
        assert (np.abs(half - rest).max(axis=-1) > 12).sum() >= 6, f"{name} at 0.5 is not visible"
        assert (np.abs(full - half).max(axis=-1) > 12).sum() >= 6, f"{name} at 1 looks as at 0.5"


@pytest.mark.parametrize("subject", [None, 11, ANIME[3]])
def test_no_two_actions_look_alike(subject):
    rendered = np.stack([draw_image(coefficients_of(name), subject) for name in arkit.NAMES])
    for i, name in enumerate(arkit.NAMES):
        n_different = (np.abs(rendered[i + 1 :] - rendered[i]).max(axis=-1) > 24).sum(axis=(1, 2))
        if n_different.size:
            assert n_different.min() >= 15, f"{name} looks like {arkit.NAMES[i + 1 + int(n_different.argmin())]}"


def test_one_sided_actions_change_their_own_half():
    middle = 48
    neutral = draw_image(NEUTRAL)
    for name in arkit.NAMES:
        if not name.endswith("Left") or name in ("jawLeft", "mouthLeft"):
            continue
        changed = np.abs(draw_image(coefficients_of(name)) - neutral).sum(axis=(0, 2))
        assert changed[middle:].sum() > 3 * changed[:middle].sum(), f"{name}: the subject's left is the picture's right"


@settings(max_examples=25, deadline=None)
@given(arrays(np.float32, 52, elements=st.floats(0, 1, width=32)))
def test_mirrored_coefficients_give_mirrored_points(coefficients):
    size = 64
    once = draw(coefficients, subject=None, size=size, supersample=1, framing="crop").points
    other = draw(arkit.mirror(coefficients), subject=None, size=size, supersample=1, framing="crop").points
    swap = {"Left": "Right", "Right": "Left"}
    partner = [
        POINTS.index(next((name.replace(side, swap[side]) for side in swap if side in name), name)) for name in POINTS
    ]
    flipped = other[partner] * (-1, 1) + (size, 0)
    np.testing.assert_allclose(once, flipped, atol=0.01)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, 52, elements=st.floats(0, 1, width=32)),
    st.one_of(st.none(), st.integers(0, 10**6)),
    st.one_of(st.none(), st.integers(0, 10**6)),
    st.sampled_from(["portrait", "crop"]),
)
def test_any_vector_subject_and_shot_can_be_drawn(coefficients, subject, shot, framing):
    rendered = draw(coefficients, subject=subject, shot=shot, size=48, supersample=1, framing=framing)
    assert rendered.image.shape == (48, 48, 3) and rendered.image.dtype == np.uint8
    assert rendered.points.shape == (70, 2) and np.isfinite(rendered.points).all()
    x0, y0, x1, y1 = rendered.box
    assert x1 - x0 == pytest.approx(y1 - y0, abs=1e-3)
    assert set(rendered.camera) == {"yaw", "pitch", "roll", "fov", "scale"}


def test_points_follow_the_actions():
    def at(name: str, **values: float) -> np.ndarray:
        return point(draw(arkit.vector(values), subject=None, framing="crop"), name)

    def opening(**values: float) -> float:
        rendered = draw(arkit.vector(values), subject=None, framing="crop")
        return float(point(rendered, "eyeLeftLowerInner")[1] - point(rendered, "eyeLeftUpperInner")[1])

    assert opening(eyeBlinkLeft=1) < 1 < opening(eyeSquintLeft=1) < opening() < opening(eyeWideLeft=1)
    assert at("irisLeft", eyeLookOutLeft=1)[0] > at("irisLeft")[0] + 5
    assert at("irisRight", eyeLookOutRight=1)[0] < at("irisRight")[0] - 5
    assert at("irisLeft", eyeLookUpLeft=1)[1] < at("irisLeft")[1] - 3
    assert at("chin", jawOpen=1)[1] > at("chin")[1] + 15
    assert at("chin", jawLeft=1)[0] > at("chin")[0] + 8
    assert at("lipCornerLeft", mouthSmileLeft=1)[1] < at("lipCornerLeft")[1] - 8
    assert at("lipCornerLeft", mouthFrownLeft=1)[1] > at("lipCornerLeft")[1] + 8
    assert at("lipCornerRight", mouthStretchRight=1)[0] < at("lipCornerRight")[0] - 5
    assert at("browLeft1", browInnerUp=1)[1] < at("browLeft1")[1] - 8
    assert at("browRight4", browOuterUpRight=1)[1] < at("browRight4")[1] - 8
    assert at("mouthUpper", mouthShrugUpper=1)[1] < at("mouthUpper")[1]


def test_iris_point_lies_on_a_dark_pupil():
    for subject in (None, 5, 6, 7):
        for shot in (None, 1, 2):
            rendered = draw(NEUTRAL, subject=subject, shot=shot, size=224, framing="crop")
            for name in ("irisLeft", "irisRight"):
                x, y = point(rendered, name).astype(int)
                assert rendered.image[y, x].max() < 90


def test_closed_lips_meet_over_a_lowered_jaw():
    style = style_of(None)
    closed = face_shape(style, arkit.vector({"jawOpen": 0.8, "mouthClose": 0.8}))
    opened = face_shape(style, arkit.vector({"jawOpen": 0.8}))
    assert (closed.mouth.inner_upper - closed.mouth.inner_lower)[:, 1].max() < 0.03
    assert (opened.mouth.inner_upper - opened.mouth.inner_lower)[:, 1].max() > 0.3
    np.testing.assert_allclose(closed.outline, opened.outline)


def test_box_is_that_of_the_neutral_face():
    for subject, shot in ((None, None), (4, None), (4, 9), (12, 77)):
        neutral = draw(NEUTRAL, subject=subject, shot=shot, size=200)
        moved = draw(
            arkit.vector({"jawOpen": 1, "browInnerUp": 1, "cheekPuff": 1}), subject=subject, shot=shot, size=200
        )
        np.testing.assert_array_equal(neutral.box, moved.box)
        x0, y0, x1, y1 = neutral.box
        inside = (neutral.points > (x0, y0)).all(axis=1) & (neutral.points < (x1, y1)).all(axis=1)
        assert inside.all()
        face = neutral.points[[i for i, name in enumerate(POINTS) if name.startswith(("brow", "jaw", "chin"))]]
        assert (x1 - x0) / 1.25 == pytest.approx(np.ptp(face, axis=0).max(), rel=0.08)


def test_crop_is_the_box_with_limited_jitter():
    plain = draw(NEUTRAL, subject=5, shot=None, size=128, framing="crop")
    np.testing.assert_allclose(plain.box, (0, 0, 128, 128), atol=1e-3)
    for shot in range(40):
        box = draw(NEUTRAL, subject=5, shot=shot, size=32, supersample=1, framing="crop").box
        centre, side = (box[:2] + box[2:]) / 2 / 32, (box[2] - box[0]) / 32
        assert np.abs(centre - 0.5).max() <= 0.0601
        assert 0.8999 <= side <= 1.1001


def test_portraits_keep_the_face_in_the_frame():
    for shot in range(60):
        rendered = draw(NEUTRAL, subject=shot, shot=shot, size=100, supersample=1)
        assert 0.4 < rendered.camera["scale"] < 0.96
        x0, y0, x1, y1 = rendered.box
        assert min(x0, y0) > -1 and max(x1, y1) < 101


def test_head_rotation_moves_the_points():
    def nose_between_ears(rendered) -> float:
        left, right, tip = (point(rendered, name)[0] for name in ("jawLeft4", "jawRight4", "noseTip"))
        return (tip - right) / (left - right)

    rotated = [draw(NEUTRAL, subject=2, shot=shot, size=64, supersample=1) for shot in range(30)]
    straight = [rendered for rendered in rotated if abs(rendered.camera["roll"]) < 4]
    yaw = [rendered.camera["yaw"] for rendered in straight]
    assert np.corrcoef(yaw, [nose_between_ears(rendered) for rendered in straight])[0, 1] > 0.97


def test_same_arguments_give_the_same_bytes_others_do_not():
    c = arkit.vector({"mouthSmileLeft": 0.4, "jawOpen": 0.3})
    first = draw(c, subject=7, shot=8, size=64)
    assert draw(c, subject=7, shot=8, size=64).image.tobytes() == first.image.tobytes()
    assert draw(c, subject=9, shot=8, size=64).image.tobytes() != first.image.tobytes()
    assert draw(c, subject=7, shot=9, size=64).image.tobytes() != first.image.tobytes()


def test_supersampling_does_not_move_the_points():
    c = arkit.vector({"mouthSmileLeft": 0.7})
    coarse, fine = (draw(c, subject=7, shot=8, size=96, supersample=n) for n in (1, 3))
    np.testing.assert_array_equal(coarse.points, fine.points)
    assert fine.image.shape == (96, 96, 3)
    assert np.abs(coarse.image.astype(int) - fine.image).mean() < 4


def test_subjects_vary():
    rendered = np.stack([draw_image(NEUTRAL, subject, size=32) for subject in range(40)]).reshape(40, -1)
    assert len(np.unique(rendered, axis=0)) == 40
    styles = [style_of(subject) for subject in range(300)]
    assert len({style.hair for style in styles}) == 13
    assert len({style.nose_kind for style in styles}) == 9
    assert 10 < sum(style.beard != "none" for style in styles) < 90


def box_of(rendered, prefix: str) -> tuple[slice, slice]:
    """Rows and columns around the points whose names begin with ``prefix``."""
    points = rendered.points[[i for i, name in enumerate(POINTS) if name.startswith(prefix)]]
    x0, y0 = np.floor(points.min(axis=0)).astype(int).clip(0)
    x1, y1 = np.ceil(points.max(axis=0)).astype(int) + 1
    return slice(y0, y1), slice(x0, x1)


def changed_in(subject: int, prefix: str, at: np.ndarray, rest: np.ndarray = NEUTRAL) -> float:
    """Share of the pixels in the box of some features that actions change."""
    before, after = (draw(c, subject=subject, shot=None, size=128, supersample=1, framing="crop") for c in (rest, at))
    rows, columns = box_of(after if prefix in ("lip", "mouth") else before, prefix)
    difference = np.abs(after.image[rows, columns].astype(int) - before.image[rows, columns])
    return float((difference.max(axis=-1) > 24).mean())


def test_half_of_the_subjects_are_anime():
    styles = [style_of(subject) for subject in range(300)]
    anime = [style for style in styles if style.big_eyes]
    assert 120 < len(anime) < 180
    assert all(0.1 <= style.mouth_width <= 0.2 and style.lipless for style in anime)
    assert np.mean([style.eye_height > style.eye_width for style in anime]) > 0.6
    western = [style for style in styles if not style.big_eyes]
    assert min(style.mouth_width for style in western) < 0.16 and max(style.mouth_width for style in western) > 0.38
    assert any(style.eye_height > 1.1 * style.eye_width for style in western)
    assert 0.15 < np.mean([style.lipless for style in western]) < 0.45


@pytest.mark.parametrize("subject", ANIME[:6])
def test_anime_actions_show_where_they_happen(subject):
    assert changed_in(subject, "lip", arkit.vector({"jawOpen": 1})) > 0.3
    assert changed_in(subject, "lip", arkit.vector({"mouthSmileLeft": 1, "mouthSmileRight": 1})) > 0.05
    for side, other in (("Left", "Right"), ("Right", "Left")):
        blink = arkit.vector({f"eyeBlink{side}": 1})
        assert changed_in(subject, f"eye{side}", blink) > 0.3
        assert changed_in(subject, f"eye{other}", blink) == 0
        assert changed_in(subject, f"eye{side}", arkit.vector({f"eyeLookOut{side}": 1})) > 0.15
        assert changed_in(subject, f"brow{side}", arkit.vector({f"browDown{side}": 1})) > 0.02


@pytest.mark.parametrize("subject", [None, 5, *ANIME[:4]])
def test_an_open_mouth_grows_downwards(subject):
    def opening(level: float) -> float:
        shape = face_shape(style_of(subject), arkit.vector({"jawOpen": level}))
        assert shape.mouth.inner_lower[:, 1].min() > shape.outline[8, 1] + 0.05
        return float((shape.mouth.inner_upper - shape.mouth.inner_lower)[:, 1].max())

    assert opening(0.0) < 0.01 < 0.1 < opening(0.5) < opening(1.0) - 0.1


def blushing(monkeypatch, kind: str, shot: int | None = None, **values: float) -> int:
    """Number of pixels in a blush's colour, which nothing else has."""
    style = Style(skin=(1.0, 0.9, 0.8), blush=(0.0, 1.0, 0.0), blush_kind=kind, blush_strength=1.0, lipless=True)
    monkeypatch.setattr(cartoon, "style_of", lambda subject: style)
    image = draw(arkit.vector(values), subject=0, shot=shot, size=96, framing="crop").image.astype(int)
    return int((image[..., 1] > np.maximum(image[..., 0], image[..., 2]) + 8).sum())


@pytest.mark.parametrize("kind", BLUSHES)
def test_blush_is_apart_from_every_action(kind, monkeypatch):
    rest = blushing(monkeypatch, kind)
    puffed = blushing(monkeypatch, kind, cheekPuff=1)
    raised = blushing(monkeypatch, kind, cheekSquintLeft=1, cheekSquintRight=1)
    assert (rest > 0) == (kind != "none")
    assert abs(puffed - rest) <= 0.2 * rest and abs(raised - rest) <= 0.3 * rest


def test_puffed_cheeks_widen_the_outline():
    for subject in (None, *ANIME[:3]):
        rest, puffed = (face_shape(style_of(subject), arkit.vector({"cheekPuff": level})).outline for level in (0, 1))
        assert (np.abs(puffed[4:6, 0]) > np.abs(rest[4:6, 0]) + 0.07).all()


def test_blush_varies_with_the_shot(monkeypatch):
    monkeypatch.setattr(cartoon, "_draw_background", lambda canvas, shot, size: canvas.clear(0xFFFFFFFF))
    blushes = [blushing(monkeypatch, "none", shot) > 20 for shot in range(40)]
    assert 2 < sum(blushes) < 20


def test_unknown_framing_is_rejected():
    with pytest.raises(ConfigError, match="portrait"):
        draw(NEUTRAL, framing="wide")
