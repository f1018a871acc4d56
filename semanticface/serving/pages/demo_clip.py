"""A short clip, read frame by frame for the demo: what ``predict`` writes of it, as text."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

from semanticface.errors import VideoError
from semanticface.formats.convert import convert
from semanticface.inference.predictor import Predictor
from semanticface.inference.video import predict_take
from semanticface.vision.timecode import Clock
from semanticface.vision.video_reader import Frame, Take, open_take

MOST_FRAMES = 600
"""Frames of a clip that are read: 20 seconds at 30 a second."""

_BATCH = 16
_UNREAL = (Fraction(30000, 1001), Fraction(30), Fraction(60000, 1001), Fraction(60))  # rates in which it can count


@dataclass(frozen=True, slots=True)
class ClipReading:
    """What was read of a clip.

    Attributes:
        jsonl: a line for every frame, as ``semanticface predict --out X.jsonl`` writes it.
        csv: a Live Link Face recording of the frames that have an answer.
        frames: how many were read.
        failed: how many of them have no answer.
        note: what is worth knowing, in sentences; mostly empty.
    """

    jsonl: str
    csv: str
    frames: int
    failed: int
    note: str


class _Beginning(Take):
    """The first frames of a take, under another name, with somebody told of each."""

    def __init__(self, take: Take, name: str, told: Callable[[int, int | None], None]) -> None:
        self._take, self._told = take, told
        count = None if take.count is None else min(take.count, MOST_FRAMES)
        super().__init__(Path(name), take.rate, count, take.identity)

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        for frame in islice(self._take.frames(skip), MOST_FRAMES):
            self._told(frame.number, self.count)
            yield dataclasses.replace(frame, reason=frame.reason.replace(str(self._take.path), str(self.path)))
        self.shortfall = self._take.shortfall.replace(str(self._take.path), str(self.path))


def read_clip(path: Path, name: str, predictor: Predictor, told: Callable[[int, int | None], None]) -> ClipReading:
    """Read the first ``MOST_FRAMES`` frames of a video.

    Args:
        path: of the video.
        name: by which answers and errors call it.
        predictor: the model.
        told: is given the number of each frame as it is taken up, and how many there are where that is known.

    Raises:
        VideoError: not a video that can be read, no frame in it, or no face in any.
    """
    try:
        take = open_take(path)
        with tempfile.TemporaryDirectory(prefix="semanticface-clip-") as folder:
            rows, recording = Path(folder) / "clip.jsonl", Path(folder) / "clip.csv"
            # Timecodes that Unreal Engine counts right, whatever the clip's own rate.
            clock = Clock(take.counting_rate if take.counting_rate in _UNREAL else Fraction(60))
            report = predict_take(_Beginning(take, name, told), rows, predictor, clock=clock, batch_size=_BATCH)
            if report.failed == report.frames:
                if "no face found" in report.remarks[0]:  # its fixes are those of the command line
                    raise VideoError(f"{name}: no face found. Try a clip in which the face is larger and not covered.")
                raise VideoError(f"{name}: {report.remarks[0].removeprefix(f'{name}, ')}")
            convert(rows, recording, "livelink", None, lambda _: None)
            jsonl, csv = rows.read_text(encoding="utf-8"), recording.read_text(encoding="utf-8")
    except VideoError as error:
        raise VideoError(str(error).replace(str(path), name)) from error
    notes = []
    if take.count is not None and take.count > report.frames == MOST_FRAMES:
        notes.append(f"Only the first {MOST_FRAMES} of {take.count} frames were read.")
    if report.failed:
        notes.append(f"{report.failed} of {report.frames} frames have no answer.")
    return ClipReading(jsonl, csv, report.frames, report.failed, " ".join(notes))
