"""What a model says of photographs of people, without labels."""

import json

import numpy as np
import pytest

from semanticface import arkit
from semanticface.errors import ConfigError
from semanticface.evaluation import people
from semanticface.evaluation.benchmark import MODEL, PEER


def answers(count=40, seed=0):
    return np.random.default_rng(seed).random((count, 52))


def test_mediapipe_is_believed_on_whole_pairs_of_sides():
    assert people.BELIEVED["mouthSmileLeft"] == people.BELIEVED["mouthSmileRight"] == (0.82, 0.0)
    assert people.BELIEVED["mouthLeft"] != people.BELIEVED["mouthRight"]
    assert people.BELIEVED["eyeLookUpLeft"] == (1, 0)
    assert not {"cheekPuff", "tongueOut", "noseSneerLeft", "mouthFrownLeft", "mouthClose"} & set(people.BELIEVED)
    assert len(people.BELIEVED) == 30


def test_a_still_face_moves_nothing_that_mediapipe_can_be_believed_on():
    peer = np.zeros((5, 52))
    peer[1, arkit.INDEX["mouthSmileLeft"]] = 0.6
    peer[2, [arkit.INDEX["browDownLeft"], arkit.INDEX["eyeLookUpLeft"]]] = 0.9
    peer[3] = np.nan
    peer[4, arkit.INDEX["noseSneerLeft"]] = 0.9
    assert people.still_faces(peer).tolist() == [True, False, True, False, True]


def test_figures_on_people():
    peer = answers()
    peer[:8] = 0.05  # still
    peer[39] = np.nan
    model = 0.5 * peer
    up, down = (arkit.INDEX[name] for name in ("eyeLookUpLeft", "eyeLookDownRight"))
    model[:, up], model[:, down] = 0.4, 0.1
    model[:, [arkit.INDEX["eyeLookUpRight"], arkit.INDEX["eyeLookDownLeft"]]] = 0
    model[38] = np.nan
    sample = np.arange(40) >= 4
    found = people.score_people(model, peer, sample)
    assert (found["pictures"], found["still"], found["answered"]) == (36, 8, {MODEL: 38, PEER: 39})
    assert found["rest"]["pictures"] == 8
    assert found["rest"]["false_rate"][MODEL] == pytest.approx([1 / 52] * 3, abs=1e-5)
    assert found["gaze_up"][MODEL] == pytest.approx([0.15] * 3)
    assert set(found["actions"]) == set(people.BELIEVED)
    jaw = found["actions"]["jawOpen"]
    both = peer[4:38, arkit.INDEX["jawOpen"]]
    assert jaw["correlation"] == 1
    assert jaw["mean_model"] == pytest.approx(0.5 * both.mean(), abs=1e-5)
    assert jaw["mean_mediapipe"] == pytest.approx(np.clip(1.03 * both, 0, 1).mean(), abs=1e-5)
    gaze = [found["actions"][name]["correlation"] for name in ("eyeLookUpLeft", "eyeLookDownRight")]
    assert gaze == [0, 0]
    assert found["agreement"][0] == pytest.approx(26 / 30, abs=1e-5)
    line = dict(people.headline(found))
    assert line["people_gaze_up"] == pytest.approx(0.15)
    assert set(line) == {
        *("people_agreement", "people_rest_false_rate", "people_rest_false_rate_mediapipe"),
        *("people_gaze_up", "people_gaze_up_mediapipe"),
    }
    json.dumps(found, allow_nan=False)


def test_people_without_a_still_face_or_an_answer():
    nothing = np.full((3, 52), np.nan)
    found = people.score_people(nothing, answers(3) * 0.2 + 0.5, np.ones(3, bool))
    assert found["still"] == 0
    assert set(dict(people.headline(found)).values()) >= {None}
    assert found["gaze_up"][MODEL] is None and found["agreement"] is None


def test_portraits_are_the_pictures_of_a_folder(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        people.portraits(tmp_path / "gone")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match="no pictures"):
        people.portraits(tmp_path)
    for name in ("b.jpg", "a.PNG"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in people.portraits(tmp_path)] == ["a.PNG", "b.jpg"]
