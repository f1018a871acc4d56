"""Errors of rotations, and pairs of pictures that tell pose and gaze apart."""

import numpy as np
import pytest

from semanticface import arkit
from semanticface.evaluation.pose import FIGURES, FRONTAL, TURNED, gaze_errors, gaze_pairs, pose_errors, pose_headline
from semanticface.rendering import render


def test_errors_in_degrees():
    true, ours, theirs = np.zeros((4, 9)), np.zeros((4, 9)), np.zeros((4, 9))
    ours[:, 0], ours[:, 4], ours[3] = np.radians(6), np.radians(-8), np.nan
    theirs[:, 8] = 1  # no figure: eyes do not roll
    found = pose_errors(true, {"model": ours, "mediapipe": theirs, "other": np.full((4, 9), np.nan)}, list("abcd"))
    assert found.keys() == {"model", "mediapipe"}
    assert found["model"]["answered"] == 3
    values = [found["model"][name][0] for name in FIGURES]
    assert values == pytest.approx([2, 6, 0, 0, 2], abs=1e-4)
    assert all(found["mediapipe"][name] == [0, 0, 0] for name in FIGURES)
    names = pose_headline(
        {"": found, "_foreign": {}}, {"model": {"turned": [0.1, 0, 0], "frontal": None}}, {"model": ""}
    )
    assert names == {
        "head_degrees": pytest.approx(2, abs=1e-4), "gaze_degrees": pytest.approx(2, abs=1e-4),
        "head_degrees_foreign": None, "gaze_degrees_foreign": None, "gaze_mae_turned": 0.1, "gaze_mae_frontal": None,
    }  # fmt: skip


def test_pairs_look_at_the_camera_or_as_far_aside():
    expressions, shots = gaze_pairs(np.full((4, 52), 0.2, np.float32), 1)
    again, _ = gaze_pairs(np.full((4, 52), 0.2, np.float32), 1)
    assert np.array_equal(expressions, again)
    gaze = arkit.gaze_degrees(expressions)
    assert np.allclose(gaze[0::2], gaze[1::2]) and not expressions[:, arkit.INDEX["eyeBlinkLeft"]].any()
    for number, shot in enumerate(shots):
        camera = render(expressions[number], subject=3, shot=shot, size=32, supersample=1).camera
        if number % 2:
            assert abs(camera["yaw"]) <= FRONTAL
        else:
            assert TURNED[0] <= abs(camera["yaw"]) <= TURNED[1]
            assert np.allclose(gaze[number, :, 0], -camera["yaw"], atol=1e-3)
            assert np.allclose(gaze[number, :, 1], np.clip(-camera["pitch"], -25, 22), atol=1e-3)


def test_errors_of_the_gaze_actions():
    true = np.zeros((4, 52))
    rows = np.full((4, 52), 0.9)
    rows[:, [arkit.INDEX[name] for name in arkit.NAMES if name.startswith("eyeLook")]] = 0.1
    rows[0] = np.nan
    found = gaze_errors(true, {"model": rows, "mediapipe": np.full((4, 52), np.nan)})
    assert found == {
        "model": {"turned": [0.1] * 3, "frontal": [0.1] * 3},
        "mediapipe": {"turned": None, "frontal": None},
    }
