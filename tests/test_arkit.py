"""The 52 names, their orders, spellings and sides."""

import numpy as np
import pytest

from semanticface import arkit


def test_order_is_that_of_a_live_link_csv():
    assert len(arkit.NAMES) == len(set(arkit.NAMES)) == 52
    assert arkit.NAMES[0] == "eyeBlinkLeft"
    assert arkit.NAMES[15:17] == ("jawRight", "jawLeft")
    assert arkit.NAMES[21:23] == ("mouthRight", "mouthLeft")
    assert arkit.NAMES[-1] == "tongueOut"
    header = (
        "Timecode,BlendShapeCount,EyeBlinkLeft,EyeLookDownLeft,EyeLookInLeft,EyeLookOutLeft,EyeLookUpLeft,"
        "EyeSquintLeft,EyeWideLeft,EyeBlinkRight,EyeLookDownRight,EyeLookInRight,EyeLookOutRight,EyeLookUpRight,"
        "EyeSquintRight,EyeWideRight,JawForward,JawRight,JawLeft,JawOpen,MouthClose,MouthFunnel,MouthPucker,"
        "MouthRight,MouthLeft,MouthSmileLeft,MouthSmileRight,MouthFrownLeft,MouthFrownRight,MouthDimpleLeft,"
        "MouthDimpleRight,MouthStretchLeft,MouthStretchRight,MouthRollLower,MouthRollUpper,MouthShrugLower,"
        "MouthShrugUpper,MouthPressLeft,MouthPressRight,MouthLowerDownLeft,MouthLowerDownRight,MouthUpperUpLeft,"
        "MouthUpperUpRight,BrowDownLeft,BrowDownRight,BrowInnerUp,BrowOuterUpLeft,BrowOuterUpRight,CheekPuff,"
        "CheekSquintLeft,CheekSquintRight,NoseSneerLeft,NoseSneerRight,TongueOut,HeadYaw,HeadPitch,HeadRoll,"
        "LeftEyeYaw,LeftEyePitch,LeftEyeRoll,RightEyeYaw,RightEyePitch,RightEyeRoll"
    )
    assert ",".join(arkit.LIVE_LINK_COLUMNS) == header


def test_every_action_belongs_to_one_region():
    assert {action.region for action in arkit.ACTIONS} == set(arkit.REGIONS)
    assert sorted(np.concatenate(list(arkit.REGION_INDEX.values()))) == list(range(52))
    assert [len(arkit.REGION_INDEX[region]) for region in arkit.REGIONS] == [5, 6, 8, 3, 2, 23, 4, 1]


def test_mirror_swaps_twenty_pairs_and_keeps_twelve():
    kept = [action.name for action in arkit.ACTIONS if action.mirror == action.name]
    assert len(kept) == 12
    assert arkit.ACTIONS[arkit.INDEX["jawLeft"]].mirror == "jawRight"
    assert arkit.ACTIONS[arkit.INDEX["mouthRight"]].mirror == "mouthLeft"
    values = np.random.default_rng(0).random((3, 52)).astype(np.float32)
    flipped = arkit.mirror(values)
    assert not np.array_equal(flipped, values)
    assert np.array_equal(arkit.mirror(flipped), values)
    assert flipped[1, arkit.INDEX["mouthSmileLeft"]] == values[1, arkit.INDEX["mouthSmileRight"]]


def test_mirror_rejects_other_lengths():
    with pytest.raises(ValueError, match="52"):
        arkit.mirror(np.zeros(51))


def test_gaze_units_name_one_direction_for_both_eyes():
    units = {action.name: action.facs for action in arkit.ACTIONS}
    assert units["eyeLookOutLeft"] == units["eyeLookInRight"] == ("AU61",)  # both eyes to the subject's left
    assert units["eyeLookInLeft"] == units["eyeLookOutRight"] == ("AU62",)


def test_other_vocabularies_cover_the_same_actions():
    assert len(set(arkit.PASCAL_CASE.values())) == len(set(arkit.SUFFIXED.values())) == 52
    assert arkit.SUFFIXED["eyeBlinkLeft"] == "eyeBlink_L"
    assert arkit.SUFFIXED["jawLeft"] == "jawLeft"
    for name in arkit.NAMES:
        for spelling in (name, arkit.PASCAL_CASE[name], arkit.SUFFIXED[name], name.upper()):
            assert arkit.NAME_OF[spelling.lower()] == name
    assert set(arkit.MEDIAPIPE) - {"_neutral"} == set(arkit.NAMES) - {"tongueOut"}


def test_the_udp_stream_has_left_before_right_where_the_csv_does_not():
    assert sorted(arkit.UDP_ORDER) == sorted(arkit.NAMES)
    assert arkit.UDP_ORDER[15:17] == ("jawLeft", "jawRight")
    assert arkit.UDP_ORDER[21:23] == ("mouthLeft", "mouthRight")
    moved = [name for name, other in zip(arkit.NAMES, arkit.UDP_ORDER, strict=True) if name != other]
    assert moved == ["jawRight", "jawLeft", "mouthRight", "mouthLeft"]


def test_vector_and_by_name_are_inverse():
    values = {"jawOpen": 0.5, "tongueOut": 1.0}
    vector = arkit.vector(values)
    assert vector.shape == (52,) and vector.dtype == np.float32
    assert {name: value for name, value in arkit.by_name(vector).items() if value} == values
    with pytest.raises(KeyError):
        arkit.vector({"JawOpen": 0.5})
