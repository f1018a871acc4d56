"""An external program, PyLiveLinkFace from the Unreal community, decodes our packets."""

from fractions import Fraction

import numpy as np
import pytest
from pylivelinkface import FaceBlendShape, PyLiveLinkFace

from semanticface import arkit
from semanticface.formats.live_link_udp import Subject

ANN = Subject("Änn", Fraction(60), Fraction(47584 * 60 + 31) + Fraction(652, 1000))


def test_every_value_is_decoded_under_its_name():
    values, pose = np.arange(52) / 52, np.arange(9) / -10
    seen, face = PyLiveLinkFace.decode(ANN.packet(0, values, pose))
    assert seen and face.name == "Änn" and face.fps == 60
    for name, value in zip(arkit.NAMES, values, strict=True):
        read = face.get_blendshape(FaceBlendShape[arkit.PASCAL_CASE[name]])
        assert read == pytest.approx(value, abs=1e-6), name
    for name, value in zip(arkit.POSE_NAMES, pose, strict=True):
        assert face.get_blendshape(FaceBlendShape[name]) == pytest.approx(value, abs=1e-6), name


def test_a_packet_without_a_face():
    seen, _ = PyLiveLinkFace.decode(ANN.packet(0, None))
    assert not seen
