"""Live prediction: Live Link Face packets from a video, in time with it, or from a camera.

Threads predict a video ahead of playback. If the machine is too slow, late frames are dropped, so that packets keep the
video's time. Of a camera only the newest frame is predicted: those that arrived during the one before
are dropped, and lag does not build up. The numbers are those of ``predict`` for the same frames
(``semanticface.inference.video``), and smoothing is causal.
"""

from __future__ import annotations

import contextlib
import threading
import time
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from itertools import chain, count, islice
from typing import TypeVar

import numpy as np
from PIL import Image

from semanticface.arkit import N_ACTIONS
from semanticface.errors import PictureError, VideoError
from semanticface.formats.live_link_udp import Subject
from semanticface.inference.neutral import NeutralLearner
from semanticface.inference.predictor import Prediction, Predictor
from semanticface.utils.one_euro import FaceFilter, Settings
from semanticface.utils.prefetch import prefetch
from semanticface.vision.crop import crop_face
from semanticface.vision.face_tracker import FaceTracker
from semanticface.vision.video_reader import Frame, Take
from semanticface.vision.webcam import Camera

MAX_GAP = Fraction(1, 4)
"""Seconds of a video within which one frame is predicted even if late, so that a slow machine shows something."""
PREBUFFER = 30
"""Frames predicted before playback starts."""

_PREDICTED_AHEAD = 300  # frames: ten seconds of numbers take little memory
_DECODED_AHEAD = 8  # frames: a 4K picture has 25 MB
_BATCH_SIZE = 4  # frames of a video, a third faster than one by one
_JOIN_TIMEOUT = 2.0  # seconds for a camera's thread to end

T = TypeVar("T")
Predict = Callable[[Sequence[Frame]], list[np.ndarray | None]]
"""Maps frames in order to float64[61] each: coefficients and pose, or float64[52] without; None for no answer."""


class FaceReader:
    """Tracks one face through frames and predicts its coefficients.

    Args:
        predictor: the model.
        smoothing: of the numbers, see ``one_euro``; None leaves them as predicted.
        neutral: learns the face at rest from the first seconds; None takes off what ``predictor.neutral`` does.
    """

    def __init__(
        self, predictor: Predictor, smoothing: Settings | None = None, neutral: NeutralLearner | None = None
    ) -> None:
        self._predictor = predictor
        self._neutral = neutral
        self._tracker = FaceTracker()
        self._filter = FaceFilter(smoothing)

    def read(self, frames: Sequence[Frame]) -> list[np.ndarray | None]:
        """Return coefficients and pose of the next frames, float64[61] each, [52] if the model predicts no pose.

        None where there is no face or no answer.
        """
        crops = [self._crop(frame) for frame in frames]
        answers = self._predictor.stream(
            [crop for crop in crops if crop is not None], batch_size=max(1, len(crops)), crop="none"
        )
        found = [None if crop is None else next(answers) for crop in crops]
        return [self._smooth(answer, float(frame.time)) for answer, frame in zip(found, frames, strict=True)]

    def _crop(self, frame: Frame) -> Image.Image | None:
        if frame.picture is None:
            return None
        box = self._tracker.update(frame.picture, float(frame.time)).box
        try:
            return None if box is None else crop_face(frame.picture, box, self._predictor.bundle.image_size)
        except PictureError:
            return None

    def _smooth(self, answer: Prediction | None, seconds: float) -> np.ndarray | None:
        if answer is None or answer.coefficients is None:
            return None
        values = answer.coefficients if self._neutral is None else self._neutral.step(answer.coefficients, seconds)
        values, pose = self._filter.step(values, answer.pose, seconds)
        return values if pose is None else np.concatenate([values, pose])


@dataclass(slots=True)
class StreamStats:
    """Counts of the frames so far.

    Attributes:
        sent: packets handed to the system.
        faceless: those of them without a face.
        dropped: frames dropped for lack of time.
        lags: seconds by which each packet was late (video), or from the frame's arrival to its packet (camera).
    """

    sent: int = 0
    faceless: int = 0
    dropped: int = 0
    lags: array[float] = field(default_factory=lambda: array("f"))
    _moments: tuple[float, float] = (0.0, 0.0)

    def add(self, moment: float, lag: float, face: bool) -> None:
        """Count a packet sent at ``moment`` of the clock."""
        self._moments = self._moments[0] if self.sent else moment, moment
        self.sent += 1
        self.faceless += not face
        self.lags.append(lag)

    def summary(self, lag: str) -> str:
        """Return everything in a line; ``lag`` names what the lags are."""
        text = f"{self.sent} packets sent, {self.faceless} of them without a face; {self.dropped} frames dropped"
        if not self.lags:
            return text
        median, high = np.percentile(np.asarray(self.lags), (50, 95)) * 1000
        text = f"{text}; {lag} {median:.0f} ms (median), {high:.0f} ms (95 %)"
        first, last = self._moments
        # From the first packet to the last there are sent - 1 intervals.
        faces = (self.sent - 1) * (1 - self.faceless / self.sent)
        return f"{text}; {faces / (last - first):.1f} faces a second" if last > first else text


# --- video --------------------------------------------------------------------------------------------------------


class _PlaybackClock:
    """When the frames of a video are due; starts with the first packet."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._start: float | None = None

    def start(self) -> None:
        self._start = self._now() if self._start is None else self._start

    def left(self, seconds: Fraction) -> float:
        """Return the seconds until a frame is due; infinity before the first packet."""
        return np.inf if self._start is None else self._start + float(seconds) - self._now()


def video_packets(
    take: Take,
    predict: Predict,
    subject: Subject,
    stats: StreamStats,
    *,
    loop: bool = False,
    now: Callable[[], float] = time.monotonic,
) -> Generator[tuple[float, bytes], None, None]:
    """Yield the packets of a video for ``live_link_udp.send``, one for each frame that is not dropped.

    Args:
        take: the video.
        predict: see ``Predict``.
        subject: whose face it is; its start is that of the first frame.
        stats: updated packet by packet.
        loop: start over after the last frame, for ever; frame numbers and times continue.
        now: the clock, in seconds, the same as the sender's.
    """
    clock = _PlaybackClock(now)
    faces = prefetch(_in_time(_frames(take, loop), predict, clock, stats, now), depth=_PREDICTED_AHEAD)
    with contextlib.closing(faces):
        for seconds, values in chain(list(islice(faces, PREBUFFER)), faces):
            clock.start()
            yield float(seconds), _packet(subject, seconds, values)
            stats.add(now(), max(0.0, -clock.left(seconds)), values is not None)


def _frames(take: Take, loop: bool) -> Iterator[Frame]:
    """Yield the frames, decoded ahead; in a loop their times continue."""
    start = Fraction(0)
    for _ in count() if loop else range(1):
        end: Fraction | None = None
        with contextlib.closing(prefetch(take.frames(), depth=_DECODED_AHEAD)) as frames:
            for frame in frames:
                end = start + frame.time
                yield Frame(frame.number, end, frame.picture)
        if end is None:
            raise VideoError(f"{take.path}: no frame in it. Export it again.")
        start = end + 1 / take.rate


def _in_time(
    frames: Iterable[Frame], predict: Predict, clock: _PlaybackClock, stats: StreamStats, now: Callable[[], float]
) -> Iterator[tuple[Fraction, np.ndarray | None]]:
    """Yield the time and the coefficients of each frame, dropping those that would be late."""
    cost = 0.0  # seconds that the last block took, from the arrival of its first frame to its coefficients
    last: Fraction | None = None
    block: list[Frame] = []
    arrived = 0.0
    for frame in frames:
        recent = last is not None and frame.time - last < MAX_GAP
        if recent and clock.left(frame.time) < cost:
            stats.dropped += 1
            continue
        arrived = arrived if block else now()
        last = frame.time
        block.append(frame)
        if len(block) == _BATCH_SIZE:
            values = predict(block)
            cost = now() - arrived
            yield from _timed(block, values)
            block = []
    if block:
        yield from _timed(block, predict(block))


def _timed(block: Sequence[Frame], values: Sequence[np.ndarray | None]) -> Iterator[tuple[Fraction, np.ndarray | None]]:
    return zip((frame.time for frame in block), values, strict=True)


def _packet(subject: Subject, seconds: Fraction, values: np.ndarray | None) -> bytes:
    """Return the packet of what ``Predict`` returned for a frame."""
    if values is None or len(values) == N_ACTIONS:
        return subject.packet(seconds, values)
    return subject.packet(seconds, values[:N_ACTIONS], values[N_ACTIONS:])


# --- camera -------------------------------------------------------------------------------------------------------


def camera_packets(
    camera: Camera,
    predict: Predict,
    name: str,
    stats: StreamStats,
    *,
    now: Callable[[], float] = time.monotonic,
    clock: Callable[[], datetime] = datetime.now,
) -> Generator[tuple[float, bytes], None, None]:
    """Yield packets for ``live_link_udp.send``, each due at once, until the camera ends; timecodes are the time of day.

    Args:
        camera: opened; the thread that reads it closes it.
        predict: see ``Predict``.
        name: of the subject.
        stats: updated packet by packet.
        now: the clock that lags are measured by, in seconds.
        clock: the time of day, called once.
    """

    def dropped() -> None:
        stats.dropped += 1

    stamped = ((now(), frame) for frame in camera.frames())
    first: float | None = None
    with contextlib.closing(newest(stamped, dropped)) as frames:
        for number, (arrived, frame) in enumerate(frames, start=1):
            if first is None:
                first = arrived
                day = clock()
                since_midnight = (day - day.replace(hour=0, minute=0, second=0, microsecond=0)).total_seconds()
                start = Fraction(since_midnight - (now() - arrived)) * round(camera.rate)
                subject = Subject(name, camera.rate, start)
            seconds = Fraction(arrived - first)
            picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
            (values,) = predict([Frame(number, seconds, picture)])
            yield 0.0, _packet(subject, seconds, values)
            sent = now()
            stats.add(sent, sent - arrived, values is not None)


def newest(items: Iterable[T], dropped: Callable[[], None]) -> Generator[T, None, None]:
    """Yield the newest of the items whenever one is requested; a thread iterates over them.

    An item that is not requested before the next one arrives is dropped; the last one never is. An error of
    ``items`` is raised after it. Closing this iterator ends the thread.

    Args:
        items: arrive in their own time.
        dropped: called on the thread for each dropped item.
    """
    changed = threading.Condition()
    slot: list[T] = []
    ended: list[BaseException | None] = []
    stopped = threading.Event()

    def work() -> None:
        error: BaseException | None = None
        source = iter(items)
        try:
            for item in source:
                with changed:
                    if slot:
                        dropped()
                    slot[:] = [item]
                    changed.notify()
                if stopped.is_set():
                    break
        except BaseException as raised:
            error = raised
        finally:
            if isinstance(source, Generator):
                source.close()  # on this thread, the only one that may touch the source
            with changed:
                ended.append(error)
                changed.notify()

    thread = threading.Thread(target=work, name="newest", daemon=True)
    thread.start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: slot or ended)
                if not slot:
                    break
                item = slot.pop()
            yield item
        if ended[0] is not None:
            raise ended[0]
    finally:
        stopped.set()
        thread.join(_JOIN_TIMEOUT)
