"""Live Link Face's UDP protocol for Unreal Engine: one packet per frame, version 6, big-endian.

``u8 6 | i32 36 | uuid, 36 bytes | i32 length | subject's name | i32 frame | f32 subframe | i32 rate | i32 denominator |
u8 61 | 61 x f32``. The frame counts from midnight at rate / denominator, like the timecode; the 61 values are the
actions in ``arkit.UDP_ORDER``, then three rotations of the head and of each eye. A packet without a face ends before
``u8 61``.
"""

from __future__ import annotations

import socket
import struct
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import count

import numpy as np

from semanticface import arkit
from semanticface.errors import SemanticFaceError
from semanticface.formats.live_link import N_VALUES
from semanticface.formats.recording import CoefficientTrack

VERSION = 6

_ORDER = np.array([arkit.INDEX[name] for name in arkit.UDP_ORDER])
_SUBFRAMES = 1000  # timecodes have three decimals
_DAY = 24 * 60 * 60


def packet(
    name: str,
    device: str,
    frame: int,
    subframe: float,
    rate: Fraction,
    values: np.ndarray | None,
    pose: np.ndarray | None = None,
) -> bytes:
    """Encode one frame.

    Args:
        name: of the subject, as listed in Unreal.
        device: a UUID of 36 characters.
        frame: since midnight.
        subframe: from 0 to 1.
        rate: fps.
        values: [52], project order; None without a face.
        pose: [9], ``arkit.POSE_NAMES``; None sends zeros.
    """
    name_bytes, device_bytes = name.encode(errors="replace"), device.encode()
    if len(device_bytes) != 36:
        raise ValueError(f"{device!r} is not a UUID of 36 characters")
    head = b"".join(
        [
            struct.pack(">Bi", VERSION, len(device_bytes)),
            device_bytes,
            struct.pack(">i", len(name_bytes)),
            name_bytes,
            struct.pack(">ifii", frame, subframe, rate.numerator, rate.denominator),
        ]
    )
    if values is None:
        return head
    rotations = np.zeros(arkit.N_POSE) if pose is None else pose
    numbers = np.concatenate([np.asarray(values)[_ORDER], rotations]).astype(">f4")
    return head + struct.pack(">B", N_VALUES) + numbers.tobytes()


@dataclass(frozen=True, slots=True)
class Subject:
    """A Live Link subject and its frame counting.

    Attributes:
        name: as listed in Unreal.
        rate: fps.
        start: the first frame, in frames since midnight.
    """

    name: str
    rate: Fraction
    start: Fraction = Fraction(0)

    def packet(self, seconds: float | Fraction, values: np.ndarray | None, pose: np.ndarray | None = None) -> bytes:
        """Return the packet of the frame ``seconds`` after the first; ``values`` and ``pose`` as in ``packet``."""
        day = _DAY * round(self.rate) * _SUBFRAMES
        ticks = round((self.start + Fraction(seconds) * self.rate) * _SUBFRAMES) % day
        frame, rest = divmod(ticks, _SUBFRAMES)
        # A constant device id per name, so that Unreal recognises the subject.
        device = str(uuid.uuid5(uuid.NAMESPACE_OID, f"semanticface:{self.name}")).upper()
        return packet(self.name, device, frame, rest / _SUBFRAMES, self.rate, values, pose)


def packets(track: CoefficientTrack, name: str, *, loop: bool = False) -> Generator[tuple[float, bytes], None, None]:
    """Yield (seconds after the first frame, packet) of each frame.

    Args:
        track: the recording.
        name: of the subject.
        loop: repeat forever; frame numbers continue.
    """
    subject = Subject(name, track.rate, track.start)
    step = float(np.median(np.diff(track.times))) if len(track.times) > 1 else float(1 / track.rate)
    lap = float(track.times[-1]) + step
    for turn in count() if loop else range(1):
        for at, values, pose in zip(track.times.tolist(), track.values, track.pose, strict=True):
            due = turn * lap + at
            yield due, subject.packet(due, values, pose)


def send(
    due: Iterator[tuple[float, bytes]],
    host: str,
    port: int,
    *,
    now: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[int]:
    """Send packets on time and yield the number sent after each.

    The clock starts with the first packet. Late packets are sent at once; timing does not drift.

    Args:
        due: (seconds after the first, packet), for example from ``packets``.
        host: name or address.
        port: UDP port.
        now: clock, in seconds.
        wait: sleep function, in seconds.

    Raises:
        SemanticFaceError: an unknown host, or sending fails.
    """
    try:
        # Prefer IPv4, the only one that Unreal listens on.
        found = sorted(
            socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM), key=lambda each: each[0] != socket.AF_INET
        )
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as out:
            start: float | None = None
            for sent, (at, data) in enumerate(due, start=1):
                start = now() if start is None else start
                if (left := start + at - now()) > 0:
                    wait(left)
                out.sendto(data, address)
                yield sent
    except (OSError, UnicodeError) as error:  # UnicodeError: a name too long to resolve
        why = getattr(error, "strerror", None) or error
        raise SemanticFaceError(f"{host}:{port}: {why}. Check the address and the network.") from error
