"""A person's face at rest: what is taken off, where it is found, and what stays."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from semanticface import arkit
from semanticface.cli.main import main
from semanticface.errors import SemanticFaceError, VideoError
from semanticface.formats import tables
from semanticface.inference.live import FaceReader
from semanticface.inference.neutral import MAX_REST, NeutralFace, NeutralLearner
from semanticface.inference.neutral_source import neutral_from_picture, neutral_from_take
from semanticface.inference.predictor import Prediction, Predictor
from semanticface.rendering import render
from semanticface.semantics.analysis import describe
from semanticface.vision.image_io import load_picture
from semanticface.vision.video_reader import Frame, open_take
from tests.helpers.clips import PixelPredictor, bars, write_clip

ASTRONAUT = Path(__file__).resolve().parents[2] / "examples" / "astronaut.jpg"
FACES = arrays(np.float32, (52,), elements=st.floats(0, 1, width=32))


@given(FACES, FACES, FACES)
def test_rest_becomes_0_and_1_stays(rest, values, others):
    face = NeutralFace.from_readings(rest[None])
    assert np.array_equal(face.apply(np.minimum(rest, MAX_REST)), np.zeros(52))
    assert np.array_equal(face.apply(np.ones(52)), np.ones(52))
    low, high = face.apply(np.minimum(values, others)), face.apply(np.maximum(values, others))
    assert (low <= high).all() and low.min() >= 0 and high.max() <= 1


def test_a_blink_among_the_readings_changes_nothing():
    calm = np.full((7, 52), 0.1, np.float32)
    blink = calm.copy()
    blink[2, arkit.INDEX["eyeBlinkLeft"]] = 1
    assert np.array_equal(NeutralFace.from_readings(calm).rest, NeutralFace.from_readings(blink).rest)


@pytest.fixture(scope="module")
def nano():
    return Predictor.from_pretrained("nano")


def test_a_face_is_neutral_next_to_itself(nano):
    (plain,) = nano([ASTRONAUT])
    assert plain.coefficients.max() > 0.5
    nano.neutral = neutral_from_picture(nano, ASTRONAUT)
    try:
        (rested,) = nano([ASTRONAUT])
    finally:
        nano.neutral = None
    strong = plain.coefficients > MAX_REST
    assert np.allclose(rested.coefficients[~strong], 0, atol=1e-6)
    assert (rested.coefficients[strong] < plain.coefficients[strong]).all()
    assert rested.analysis == describe(rested.coefficients)
    low, high = rested.interval.T
    assert (low <= rested.summary.median).all() and (rested.summary.median <= high).all()
    assert rested.text == plain.text


class Scripted(PixelPredictor):
    """Answers what it is told to, frame by frame."""

    def __init__(self, readings):
        super().__init__()
        self._readings = iter(readings)

    def stream(self, pictures, *, crop):
        for index, (_, reading) in enumerate(zip(pictures, self._readings, strict=True)):
            yield Prediction(f"picture {index + 1}", "ok", coefficients=reading)


def test_the_calmest_frames_of_a_video_show_the_rest(tmp_path):
    smile = arkit.vector({"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8})
    # A jaw that the lips close, eyes that look about: a calm face all the same.
    rest = arkit.vector({"jawOpen": 0.4, "mouthClose": 0.38, "browDownLeft": 0.2, "eyeLookUpLeft": 0.5})
    blink = arkit.vector({"jawOpen": 0.4, "mouthClose": 0.38, "browDownLeft": 0.2, "eyeBlinkLeft": 1.0})
    mouth = arkit.vector({"jawOpen": 0.7})
    readings = [smile] * 3 + [rest] * 4 + [blink] * 2 + [mouth] * 3
    head = render(arkit.vector({}), style="photo", subject=11, size=96).image
    take = open_take(write_clip(tmp_path / "a.mp4", [head] * len(readings), rate=6))
    found = neutral_from_take(Scripted(readings), take, 1)
    assert np.allclose(found.rest, rest, atol=1e-6)


def test_too_few_faces(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", bars(6))
    with pytest.raises(VideoError, match="0 frames with a face are too few"):
        neutral_from_take(Scripted([]), open_take(clip), 1)


def test_a_picture_without_a_face(tmp_path, nano):
    load_picture(ASTRONAUT).crop((0, 0, 60, 60)).save(tmp_path / "wall.png")
    with pytest.raises(SemanticFaceError, match=r"no face found.*A neutral face is needed"):
        neutral_from_picture(nano, tmp_path / "wall.png")


def test_a_camera_shows_the_rest_in_its_first_seconds():
    learner = NeutralLearner(0.5)
    rest, smile = np.full(52, 0.2), np.full(52, 0.6)
    for number in range(6):
        assert np.array_equal(learner.step(rest, number / 10), rest)
    assert np.allclose(learner.step(rest, 0.6), 0, atol=1e-6)
    assert np.allclose(learner.step(smile, 0.7), 0.5)


def test_a_reader_learns_and_then_takes_off():
    picture = Image.fromarray(render(arkit.vector({}), subject=3, size=96).image)
    reader = FaceReader(PixelPredictor(), neutral=NeutralLearner(0.1))
    frames = [Frame(number, Fraction(number, 30), picture) for number in range(8)]
    seen = [reader.read([frame])[0] for frame in frames]
    assert seen[0].max() > 0.1 and seen[-1].max() < seen[0].max()


def test_predict_takes_a_neutral_picture_and_seconds_of_a_video(tmp_path, capsys):
    out = tmp_path / "faces.csv"
    command = ["predict", str(ASTRONAUT), "--neutral", str(ASTRONAUT), "--mode", "numbers", "--out", str(out)]
    assert main(command) == 0
    (row,) = tables.read_coefficients(out)
    assert np.sort(row.coefficients)[-4] < 0.3
    assert main(["predict", str(ASTRONAUT), "--neutral", "2"]) == 2
    assert "--neutral SECONDS is for a video" in capsys.readouterr().err
