"""Live Link over UDP: packets of the app's protocol, checked by an independent decoder, and timing."""

import socket
import struct
from fractions import Fraction

import numpy as np
import pytest

from semanticface import arkit
from semanticface.errors import SemanticFaceError
from semanticface.formats import live_link
from semanticface.formats.live_link import LiveLinkRow
from semanticface.formats.live_link_udp import packet, packets, send
from semanticface.formats.recording import track

# The 52 of a packet, in the order in which Unreal Engine's ARKit face support lists its blend shapes.
ORDER = [
    "EyeBlinkLeft", "EyeLookDownLeft", "EyeLookInLeft", "EyeLookOutLeft", "EyeLookUpLeft", "EyeSquintLeft",
    "EyeWideLeft", "EyeBlinkRight", "EyeLookDownRight", "EyeLookInRight", "EyeLookOutRight", "EyeLookUpRight",
    "EyeSquintRight", "EyeWideRight", "JawForward", "JawLeft", "JawRight", "JawOpen", "MouthClose", "MouthFunnel",
    "MouthPucker", "MouthLeft", "MouthRight", "MouthSmileLeft", "MouthSmileRight", "MouthFrownLeft",
    "MouthFrownRight", "MouthDimpleLeft", "MouthDimpleRight", "MouthStretchLeft", "MouthStretchRight",
    "MouthRollLower", "MouthRollUpper", "MouthShrugLower", "MouthShrugUpper", "MouthPressLeft", "MouthPressRight",
    "MouthLowerDownLeft", "MouthLowerDownRight", "MouthUpperUpLeft", "MouthUpperUpRight", "BrowDownLeft",
    "BrowDownRight", "BrowInnerUp", "BrowOuterUpLeft", "BrowOuterUpRight", "CheekPuff", "CheekSquintLeft",
    "CheekSquintRight", "NoseSneerLeft", "NoseSneerRight", "TongueOut", "HeadYaw", "HeadPitch", "HeadRoll",
    "LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll", "RightEyeYaw", "RightEyePitch", "RightEyeRoll",
]  # fmt: skip


def decode(data):
    """Decode a packet; one without a face ends early."""
    version, length = struct.unpack_from(">Bi", data)
    assert (version, length) == (6, 36)
    device = data[5:41].decode("ascii")
    (size,) = struct.unpack_from(">i", data, 41)
    name = data[45 : 45 + size].decode()
    frame, subframe, rate, denominator = struct.unpack_from(">ifii", data, 45 + size)
    assert 0 <= subframe < 1
    header = {"device": device, "name": name, "frame": frame, "subframe": subframe, "rate": (rate, denominator)}
    if len(data) == 45 + size + 16:
        return header | {"values": None}
    assert data[45 + size + 16] == 61 and len(data) == 45 + size + 17 + 61 * 4
    values = struct.unpack_from(">61f", data, 45 + size + 17)
    return header | {"values": dict(zip(ORDER, values, strict=True))}


@pytest.fixture
def take(tmp_path):
    rng = np.random.default_rng(2)
    codes = ["23:59:59:58.250", "00:00:00:00.250", "00:00:00:04.250"]
    rows = [LiveLinkRow(code, rng.uniform(0, 1, 52).round(6), rng.uniform(-0.6, 0.6, 9).round(6)) for code in codes]
    live_link.write(tmp_path / "a.csv", rows)
    return track(tmp_path / "a.csv", None, pytest.fail), rows


def test_every_value_is_at_its_position():
    values, pose = np.arange(52) / 52, np.arange(9) / -10
    device = "12345678-ABCD-ABCD-ABCD-123456789ABC"
    found = decode(packet("Änn", device, 47584 * 60 + 31, 0.5, Fraction(60), values, pose))
    assert (found["name"], found["device"], found["frame"], found["subframe"], found["rate"]) == (
        "Änn", device, 2855071, 0.5, (60, 1),
    )  # fmt: skip
    for name, value in zip(arkit.NAMES, values, strict=True):
        assert found["values"][arkit.PASCAL_CASE[name]] == pytest.approx(value, abs=1e-7)
    for name, value in zip(arkit.POSE_NAMES, pose, strict=True):
        assert found["values"][name] == pytest.approx(value, abs=1e-7)
    with pytest.raises(ValueError, match="36 characters"):
        packet("Ann", "phone", 0, 0.0, Fraction(30), values, pose)


def test_without_a_face_a_packet_ends_before_the_numbers():
    found = decode(packet("Ann", "0" * 36, 31, 0.25, Fraction(60), None))
    assert found == {"device": "0" * 36, "name": "Ann", "frame": 31, "subframe": 0.25, "rate": (60, 1), "values": None}


def test_unknown_rotations_are_zero():
    found = decode(packet("Ann", "0" * 36, 31, 0.25, Fraction(60), np.full(52, 0.5)))
    assert {found["values"][name] for name in arkit.POSE_NAMES} == {0.0}


def test_a_broadcast_rate_is_a_fraction():
    found = decode(packet("A", "0" * 36, 1, 0.0, Fraction(30000, 1001), np.zeros(52), np.zeros(9)))
    assert found["rate"] == (30000, 1001)


def test_frames_follow_the_timecodes_past_midnight(take):
    found, rows = take
    sent = [(at, decode(data)) for at, data in packets(found, "Ann")]
    day = 24 * 60 * 60 * 60
    assert [one["frame"] for _, one in sent] == [day - 2, 0, 4]
    assert all(one["subframe"] == 0.25 for _, one in sent)
    assert np.allclose([at for at, _ in sent], [0, 2 / 60, 6 / 60])
    for (_, one), row in zip(sent, rows, strict=True):
        assert one["values"]["JawLeft"] == pytest.approx(row.coefficients[arkit.INDEX["jawLeft"]])
        assert one["values"]["HeadRoll"] == pytest.approx(row.pose[2])


def test_a_loop_continues_frame_numbers(take):
    found, _ = take
    endless = packets(found, "Ann", loop=True)
    sent = [(at, decode(data)) for at, data in (next(endless) for _ in range(7))]
    assert [one["frame"] for _, one in sent[1:]] == [0, 4, 7, 9, 13, 16]
    assert np.allclose(np.diff([at for at, _ in sent]) * 60, [2, 4, 3, 2, 4, 3])
    assert sent[3][1]["values"] == sent[0][1]["values"]
    assert len({one["device"] for _, one in sent}) == 1


class Clock:
    """A clock that advances by waiting, and by 0.01 s per call."""

    def __init__(self):
        self.time = 100.0
        self.waited = []

    def now(self):
        self.time += 0.01
        return self.time

    def wait(self, seconds):
        assert seconds > 0
        self.waited.append(seconds)
        self.time += seconds


def test_packets_arrive_on_time_without_drift():
    clock = Clock()
    due = [(0.0, b"a"), (0.5, b"b"), (0.505, b"c"), (1.0, b"d")]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        times = []
        for _ in send(iter(due), "127.0.0.1", receiver.getsockname()[1], now=clock.now, wait=clock.wait):
            times.append(clock.time - 100.01)
        assert [receiver.recv(99) for _ in due] == [b"a", b"b", b"c", b"d"]
    assert np.allclose(times, [0.01, 0.5, 0.51, 1.0]) and len(clock.waited) == 2


def test_invalid_addresses(monkeypatch):
    with pytest.raises(SemanticFaceError, match="Check the address"):
        list(send(iter([(0.0, b"a")]), "a" * 300, 11111))

    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(SemanticFaceError, match="nowhere:1: Name or service not known"):
        list(send(iter([(0.0, b"a")]), "nowhere", 1))
