"""The mesh styles: every action is visible on its side, labels match the image, renders are deterministic."""

import numpy as np
import pytest

from semanticface import arkit
from semanticface.errors import ConfigError
from semanticface.rendering import HELD_OUT_STYLE, POINTS, render

STYLES = ("photo", "toon", HELD_OUT_STYLE)
SIZE = 112
NEEDS = {"mouthClose": "jawOpen", "tongueOut": "jawOpen"}


def draw(style: str, *names: str, **options: object) -> np.ndarray:
    """Image of a plain cropped face with the named actions at 1, as int."""
    c = np.zeros(arkit.N_ACTIONS, np.float32)
    c[[arkit.INDEX[n] for n in names]] = 1
    keywords = {"subject": None, "size": SIZE, "supersample": 2, "framing": "crop", **options}
    return render(c, style=style, **keywords).image.astype(int)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def rest() -> dict[str, np.ndarray]:
    return {style: draw(style) for style in STYLES}


@pytest.mark.parametrize("style", STYLES)
def test_every_action_is_visible_on_its_side(style: str, rest: dict[str, np.ndarray]) -> None:
    for action in arkit.ACTIONS:
        before = draw(style, NEEDS[action.name]) if action.name in NEEDS else rest[style]
        after = draw(style, *filter(None, (action.name, NEEDS.get(action.name))))
        change = np.abs(after - before).sum(-1)
        assert (change > 30).sum() > 20, f"{action.name} is invisible in {style}"
        if action.side != "both" and action.region not in ("jaw",) and action.name not in ("mouthLeft", "mouthRight"):
            left, right = change[:, SIZE // 2 :].sum(), change[:, : SIZE // 2].sum()
            mine, other = (left, right) if action.side == "left" else (right, left)
            assert mine > 1.5 * other, f"{action.name} shows on the wrong side in {style}"


@pytest.mark.parametrize(("name", "sign"), [("mouthLeft", 1), ("mouthRight", -1), ("jawLeft", 1), ("jawRight", -1)])
def test_sideways_actions_move_points_to_the_subjects_side(name: str, sign: int) -> None:
    c = np.zeros(52, np.float32)
    still = render(c, subject=None, size=SIZE)
    c[arkit.INDEX[name]] = 1
    moved = render(c, subject=None, size=SIZE)
    at = POINTS.index("lipLower" if name.startswith("mouth") else "chin")
    assert sign * (moved.points[at, 0] - still.points[at, 0]) > 1


@pytest.mark.parametrize("style", ["photo", "toon", "drawn"])
def test_the_head_turns_by_a_pose(style):
    plain = render(np.zeros(52), style=style, subject=None, size=48)
    for number, axis in enumerate((0, 1, 0)):  # to the right, down, to the left shoulder
        pose = np.zeros(9)
        pose[number] = 0.3
        turned = render(np.zeros(52), style=style, subject=None, size=48, pose=pose)
        assert np.allclose(turned.pose, pose, atol=1e-6)
        nose, brow = POINTS.index("noseTip"), POINTS.index("noseBridge")
        moved = (turned.points - plain.points)[[nose, brow], axis] / 48
        low, high = moved[0], moved[0] - moved[1]
        assert (low < -0.02, low > 0.02, high < -0.005)[number], (style, number, moved)


def test_a_mirrored_expression_is_about_the_flipped_image() -> None:
    rng = np.random.default_rng(4)
    c = (rng.random(52) * (rng.random(52) < 0.25)).astype(np.float32)
    one, other = (render(x, subject=None, size=SIZE, framing="crop") for x in (c, arkit.mirror(c)))
    # The key light comes from one side and the skin texture is asymmetric: compare the points.
    swap = [POINTS.index(_other_side(n)) for n in POINTS]
    flipped = other.points[swap] * [-1, 1] + [SIZE, 0]
    assert np.abs(flipped - one.points).max() < 1.5
    near = np.abs(one.image.astype(int) - other.image[:, ::-1]).mean()
    far = np.abs(one.image.astype(int) - other.image).mean()
    assert near < 16 and far > 0


def _other_side(name: str) -> str:
    if "Left" in name:
        return name.replace("Left", "Right")
    return name.replace("Right", "Left")


def _pupil_position(image: np.ndarray, points: np.ndarray, side: str) -> np.ndarray:
    """Centre of the dark pixels inside an eye's lids."""
    lids = np.array([points[k] for k, n in enumerate(POINTS) if n.startswith(f"eye{side}")])
    x0, y0, x1, y1 = np.round([*lids.min(0), *lids.max(0)]).astype(int)
    window = image[y0 : y1 + 1, x0 : x1 + 1].sum(-1).astype(float)
    weight = np.clip(np.median(window) * 0.75 - window, 0, None)
    return (weight.sum(0) * np.arange(weight.shape[1])).sum() / weight.sum() / (x1 - x0)


def test_eyes_follow_the_gaze_actions() -> None:
    places = {}
    for name, actions in {
        "left": ("eyeLookOutLeft", "eyeLookInRight"),
        "right": ("eyeLookInLeft", "eyeLookOutRight"),
    }.items():
        c = np.zeros(52, np.float32)
        c[[arkit.INDEX[a] for a in actions]] = 0.8
        r = render(c, style="toon", subject=None, size=448, framing="crop")
        iris = r.points[POINTS.index("irisLeft"), 0] + r.points[POINTS.index("irisRight"), 0]
        places[name] = (iris, _pupil_position(r.image, r.points, "Left"))
    assert places["left"][0] > places["right"][0] + 10
    assert places["left"][1] > places["right"][1] + 0.1


@pytest.mark.parametrize("style", STYLES)
def test_blinking_hides_the_eye(style: str) -> None:
    """Between closed lids is skin: the strip across the pupil loses its contrast."""
    still = render(np.zeros(52), style=style, subject=None, size=224, framing="crop")
    shut = np.zeros(52)
    shut[[arkit.INDEX["eyeBlinkLeft"], arkit.INDEX["eyeBlinkRight"]]] = 1
    closed = render(shut, style=style, subject=None, size=224, framing="crop")
    x, y = np.round(still.points[POINTS.index("irisLeft")]).astype(int)
    strip = np.s_[y - 2 : y + 2, x - 14 : x + 14]
    assert np.std(closed.image[strip].astype(float).sum(-1)) < 0.5 * np.std(still.image[strip].astype(float).sum(-1))


@pytest.mark.parametrize("style", STYLES)
def test_the_same_arguments_give_the_same_bytes(style: str) -> None:
    c = np.full(52, 0.2)
    first, again = (render(c, style=style, subject=5, shot=9, size=64) for _ in range(2))
    assert first.image.tobytes() == again.image.tobytes()
    assert np.array_equal(first.points, again.points) and np.array_equal(first.box, again.box)
    assert first.camera == again.camera


@pytest.mark.parametrize("style", STYLES)
def test_subject_and_shot_change_the_image_and_only_what_they_should(style: str) -> None:
    c = np.zeros(52)
    base = render(c, style=style, subject=5, shot=9, size=64)
    person = render(c, style=style, subject=6, shot=9, size=64)
    shot = render(c, style=style, subject=5, shot=10, size=64)
    assert np.abs(base.image.astype(int) - person.image).mean() > 3
    assert np.abs(base.image.astype(int) - shot.image).mean() > 3
    assert base.camera["yaw"] == person.camera["yaw"] != shot.camera["yaw"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("framing", ["portrait", "crop"])
def test_the_box_holds_the_face(style: str, framing: str) -> None:
    for k in range(6):
        r = render(np.zeros(52), style=style, subject=k, shot=k, size=64, supersample=1, framing=framing)  # type: ignore[arg-type]
        assert r.image.shape == (64, 64, 3) and r.image.dtype == np.uint8
        assert r.points.shape == (70, 2) and r.points.dtype == np.float32
        width, height = r.box[2] - r.box[0], r.box[3] - r.box[1]
        assert width == pytest.approx(height, rel=1e-3)
        inside = (r.points >= r.box[:2]) & (r.points <= r.box[2:])
        assert inside.all()
        chin, lip, tip = (r.points[POINTS.index(n)] for n in ("chin", "lipUpper", "noseTip"))
        brow = r.points[[POINTS.index("browLeft1"), POINTS.index("browRight1")]].mean(0)
        down = chin - brow
        assert 0 < (tip - brow) @ down < (lip - brow) @ down < down @ down
        if framing == "crop":
            assert 0.88 < width / 64 < 1.13
            assert np.abs((r.box[:2] + r.box[2:]) / 2 - 32).max() <= 0.0601 * 64
        else:
            assert 0.41 < width / 64 < 0.96


def test_points_do_not_depend_on_supersampling() -> None:
    one, two = (render(np.zeros(52), subject=3, shot=3, size=64, supersample=s) for s in (1, 2))
    assert np.array_equal(one.points, two.points)
    assert np.abs(one.image.astype(int) - two.image).mean() < 12


@pytest.mark.parametrize(
    "invalid", [{"style": "oil"}, {"framing": "wide"}, {"size": 4}, {"supersample": 9}, {"coefficients": np.zeros(51)}]
)
def test_invalid_arguments_are_rejected(invalid: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        render(**{"coefficients": np.zeros(52), "size": 32, **invalid})  # type: ignore[arg-type]
