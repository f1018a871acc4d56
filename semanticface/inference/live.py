"""A face read while it is seen: packets of Live Link Face from a video, in time with it, or from a camera.

A video is read ahead of its playing, on threads of their own. Where the machine is too slow for it, frames that would
be late are left out, so that those sent keep the video's time. Of a camera only the newest frame is ever read: what
came in while the one before was being read is left out, and nothing lags. The numbers are those that ``predict`` reads
from the same frames (``semanticface.inference.video``), and smoothing looks only back.
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

from semanticface.errors import PictureError, VideoError
from semanticface.formats.live_link_udp import Subject
from semanticface.inference.predictor import Predictor
from semanticface.utils.one_euro import Settings, coefficient_filter
from semanticface.utils.prefetch import prefetch
from semanticface.vision.crop import crop_face
from semanticface.vision.face_tracker import FaceTracker
from semanticface.vision.video_reader import Frame, Take
from semanticface.vision.webcam import Camera

LONGEST_SILENCE = Fraction(1, 4)
"""Seconds of a video within which one frame is read even if it comes late: a slow machine shows something."""
HEAD_START = 30
"""Frames read before a video begins to play."""

_READ_AHEAD = 300  # frames: ten seconds of numbers are nothing to keep
_DECODED_AHEAD = 8  # frames: a 4K picture has 25 MB
_TOGETHER = 4  # frames of a video read at once, a third faster than one by one
_LEAVE = 2.0  # seconds given to a camera's thread to end

T = TypeVar("T")
Read = Callable[[Sequence[Frame]], list[np.ndarray | None]]
"""Frames in order to float64[52] each, None where there is no answer."""


class FaceReader:
    """Follows one face through frames and reads it.

    Args:
        predictor: the model.
        smoothing: of the numbers, see ``smooth``; None leaves them as predicted.
    """

    def __init__(self, predictor: Predictor, smoothing: Settings | None = None) -> None:
        self._predictor = predictor
        self._tracker = FaceTracker()
        self._filter = None if smoothing is None else coefficient_filter(smoothing)

    def read(self, frames: Sequence[Frame]) -> list[np.ndarray | None]:
        """Return the numbers of the next frames, float64[52] each, None where there is no face or no answer."""
        crops = [self._crop(frame) for frame in frames]
        answers = self._predictor.stream(
            [crop for crop in crops if crop is not None], batch_size=max(1, len(crops)), crop="none"
        )
        said = [None if crop is None else next(answers).coefficients for crop in crops]
        return [self._steadied(values, float(frame.time)) for values, frame in zip(said, frames, strict=True)]

    def _crop(self, frame: Frame) -> Image.Image | None:
        if frame.picture is None:
            return None
        box = self._tracker.update(frame.picture, float(frame.time)).box
        try:
            return None if box is None else crop_face(frame.picture, box, self._predictor.bundle.image_size)
        except PictureError:
            return None

    def _steadied(self, values: np.ndarray | None, seconds: float) -> np.ndarray | None:
        if values is None:
            return None
        exact = values.astype(np.float64)
        return exact if self._filter is None else self._filter.step(exact, seconds)


@dataclass(slots=True)
class Tally:
    """What became of the frames so far.

    Attributes:
        sent: packets handed to the system.
        faceless: those of them without a face.
        dropped: frames left out for want of time.
        lags: seconds by which each packet was late (video), or from the frame's arrival to its packet (camera).
    """

    sent: int = 0
    faceless: int = 0
    dropped: int = 0
    lags: array[float] = field(default_factory=lambda: array("f"))
    _moments: tuple[float, float] = (0.0, 0.0)

    def add(self, moment: float, lag: float, face: bool) -> None:
        """Count a packet that left at a moment of the clock."""
        self._moments = self._moments[0] if self.sent else moment, moment
        self.sent += 1
        self.faceless += not face
        self.lags.append(lag)

    def told(self, lag: str) -> str:
        """Return all of it as a line; ``lag`` is what the lags are."""
        text = f"{self.sent} packets sent, {self.faceless} of them without a face; {self.dropped} frames dropped"
        if not self.lags:
            return text
        middle, most = np.percentile(np.asarray(self.lags), (50, 95)) * 1000
        text = f"{text}; {lag} {middle:.0f} ms (median), {most:.0f} ms (95 %)"
        first, last = self._moments
        # From the first packet to the last there is one less of them.
        faces = (self.sent - 1) * (1 - self.faceless / self.sent)
        return f"{text}; {faces / (last - first):.1f} faces a second" if last > first else text


# --- video --------------------------------------------------------------------------------------------------------


class _Playing:
    """When the frames of a video are due, by a clock that starts with the first packet."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._start: float | None = None

    def begin(self) -> None:
        self._start = self._now() if self._start is None else self._start

    def left(self, seconds: Fraction) -> float:
        """Seconds until a frame is due; infinitely many before the first packet."""
        return np.inf if self._start is None else self._start + float(seconds) - self._now()


def video_packets(
    take: Take,
    read: Read,
    subject: Subject,
    tally: Tally,
    *,
    loop: bool = False,
    now: Callable[[], float] = time.monotonic,
) -> Generator[tuple[float, bytes], None, None]:
    """Yield the packets of a video for ``live_link_udp.send``, one for each frame that is not dropped.

    Args:
        take: the video.
        read: see there.
        subject: whose face it is; its start is that of the first frame.
        tally: is kept up to date, packet by packet.
        loop: begin again after the last frame, for ever; frames are counted on.
        now: the clock, in seconds, the same as the sender's.

    Raises:
        VideoError: no frame in it, or as ``take.frames``.
    """
    playing = _Playing(now)
    faces = prefetch(_in_time(_frames(take, loop), read, playing, tally, now), depth=_READ_AHEAD)
    with contextlib.closing(faces):
        for seconds, values in chain(list(islice(faces, HEAD_START)), faces):
            playing.begin()
            yield float(seconds), subject.packet(seconds, values)
            tally.add(now(), max(0.0, -playing.left(seconds)), values is not None)


def _frames(take: Take, loop: bool) -> Iterator[Frame]:
    """Yield the frames, decoded ahead; in a loop their times go on."""
    begun = Fraction(0)
    for _ in count() if loop else range(1):
        end: Fraction | None = None
        with contextlib.closing(prefetch(take.frames(), depth=_DECODED_AHEAD)) as frames:
            for frame in frames:
                end = begun + frame.time
                yield Frame(frame.number, end, frame.picture)
        if end is None:
            raise VideoError(f"{take.path}: no frame in it. Export it again.")
        begun = end + 1 / take.rate


def _in_time(
    frames: Iterable[Frame], read: Read, playing: _Playing, tally: Tally, now: Callable[[], float]
) -> Iterator[tuple[Fraction, np.ndarray | None]]:
    """Yield the time and the numbers of each frame, leaving out those that would be late."""
    cost = 0.0  # seconds that a block took the last time, from its first frame's coming to its numbers
    last: Fraction | None = None
    block: list[Frame] = []
    begun = 0.0
    for frame in frames:
        recent = last is not None and frame.time - last < LONGEST_SILENCE
        if recent and playing.left(frame.time) < cost:
            tally.dropped += 1
            continue
        begun = begun if block else now()
        last = frame.time
        block.append(frame)
        if len(block) == _TOGETHER:
            values = read(block)
            cost = now() - begun
            yield from _timed(block, values)
            block = []
    if block:
        yield from _timed(block, read(block))


def _timed(block: Sequence[Frame], values: Sequence[np.ndarray | None]) -> Iterator[tuple[Fraction, np.ndarray | None]]:
    return zip((frame.time for frame in block), values, strict=True)


# --- camera -------------------------------------------------------------------------------------------------------


def camera_packets(
    camera: Camera,
    read: Read,
    name: str,
    tally: Tally,
    *,
    now: Callable[[], float] = time.monotonic,
    clock: Callable[[], datetime] = datetime.now,
) -> Generator[tuple[float, bytes], None, None]:
    """Yield packets for ``live_link_udp.send``, each due at once, until the camera ends; timecodes are of the clock.

    Args:
        camera: opened; the thread that reads it closes it.
        read: see there.
        name: of the subject.
        tally: is kept up to date, packet by packet.
        now: the clock that lags are measured by, in seconds.
        clock: the time of day, asked once.

    Raises:
        VideoError: the camera broke off.
    """

    def dropped() -> None:
        tally.dropped += 1

    stamped = ((now(), frame) for frame in camera.frames())
    first: float | None = None
    with contextlib.closing(newest(stamped, dropped)) as seen:
        for number, (arrived, frame) in enumerate(seen, start=1):
            if first is None:
                first = arrived
                day = clock()
                into = (day - day.replace(hour=0, minute=0, second=0, microsecond=0)).total_seconds()
                start = Fraction(into - (now() - arrived)) * round(camera.rate)
                subject = Subject(name, camera.rate, start)
            seconds = Fraction(arrived - first)
            picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
            (values,) = read([Frame(number, seconds, picture)])
            yield 0.0, subject.packet(seconds, values)
            gone = now()
            tally.add(gone, gone - arrived, values is not None)


def newest(items: Iterable[T], dropped: Callable[[], None]) -> Generator[T, None, None]:
    """Yield the newest of the items each time one is asked for; they are worked off on a thread of their own.

    An item that is not asked for before the next one comes is dropped; the last one never is. An error of ``items`` is
    raised after it. Closing this iterator ends the thread.

    Args:
        items: come when they come.
        dropped: is called for each item that nobody got, on the thread.
    """
    there = threading.Condition()
    slot: list[T] = []
    ended: list[BaseException | None] = []
    stopped = threading.Event()

    def work() -> None:
        error: BaseException | None = None
        source = iter(items)
        try:
            for item in source:
                with there:
                    if slot:
                        dropped()
                    slot[:] = [item]
                    there.notify()
                if stopped.is_set():
                    break
        except BaseException as raised:
            error = raised
        finally:
            if isinstance(source, Generator):
                source.close()  # on this thread, which may be the only one to touch what is behind it
            with there:
                ended.append(error)
                there.notify()

    thread = threading.Thread(target=work, name="newest", daemon=True)
    thread.start()
    try:
        while True:
            with there:
                there.wait_for(lambda: slot or ended)
                if not slot:
                    break
                item = slot.pop()
            yield item
        if ended[0] is not None:
            raise ended[0]
    finally:
        stopped.set()
        thread.join(_LEAVE)
