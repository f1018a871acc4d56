"""What a model said of the frames of a take so far, on disk frame by frame, so that a stopped run can go on.

One JSON object a line: first what the answers depend on, then one line for each frame, with the state that the tracker
was in after it. Numbers are written so that they come back exactly.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np

from semanticface import __version__
from semanticface.errors import SemanticFaceError
from semanticface.formats.tables import Answered
from semanticface.inference.intervals import interval_dict
from semanticface.semantics.analysis import Analysis
from semanticface.vision.crop import Box


@dataclass(frozen=True, slots=True, eq=False)
class FrameAnswer(Answered):
    """What a model says of one frame; a ``tables.Outcome``.

    Attributes:
        frame: from 1.
        time: seconds since the first frame.
        timecode: ``HH:MM:SS:FF.fff``; empty until the table is written.
        box: where the model looked, in pixels; None where it was not asked.
        note: what is worth knowing of the frame; mostly empty.
        interval: float32[52, 2], as in ``predict.Prediction``; None where there is no answer.
        calibrated: whether it was fitted on held-out faces.
    """

    frame: int = 0
    time: Fraction = Fraction(0)
    timecode: str = ""
    box: Box | None = None
    note: str = ""
    interval: np.ndarray | None = None
    calibrated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: as ``Answered``, with frame, timecode, time (seconds), and what else is there."""
        plain = Answered.to_dict(self)
        out = {"image": plain.pop("image"), "frame": self.frame, "timecode": self.timecode}
        out |= {"time": round(float(self.time), 6), "status": plain.pop("status")}
        if self.note:
            out["note"] = self.note
        if self.box is not None:
            out["box"] = [round(corner, 2) for corner in corners(self.box)]
        out["coefficients"] = plain.pop("coefficients")
        if self.interval is not None:
            out |= interval_dict(self.interval, self.calibrated)
        return out | plain


class SideFile:
    """The side file of one take; use it as a context to add frames.

    Args:
        path: taken up where it is begun; a frame cut off in the middle of its line is dropped.
        recipe: what the answers depend on, for JSON.
        batch: frames predicted together: only whole batches are taken up, so that the same frames share a batch again.

    Attributes:
        frames: how many frames are there.
        state: of the tracker after the last of them; None before the first, and where nothing is tracked.

    Raises:
        SemanticFaceError: begun with another recipe, or not to be read or written.
    """

    def __init__(self, path: Path, recipe: Mapping[str, Any], batch: int) -> None:
        self.path = path
        self.frames = 0
        self.state: dict[str, Any] | None = None
        self._file: IO[bytes] | None = None
        # Through JSON and back, so that tuples compare equal to the lists they are read as.
        self._recipe = json.loads(json.dumps({"semanticface": __version__, **recipe}))
        self._end = 0
        if path.exists():
            self._take_up(batch)

    def _take_up(self, batch: int) -> None:
        with _named(self.path), self.path.open("rb") as file:
            if not (head := file.readline()).endswith(b"\n"):
                return  # stopped before the first line was whole
            if _object(head) != self._recipe:
                raise SemanticFaceError(
                    f"{self.path}: begun with another take, model or other settings. Give the same as then to go on, "
                    "or delete it to begin anew."
                )
            self._end = offset = len(head)
            for number, line in enumerate(file, start=1):
                row = _object(line)
                if not line.endswith(b"\n") or row is None or row.get("frame") != number:
                    break
                offset += len(line)
                if number % batch == 0:
                    self.frames, self.state, self._end = number, row["state"], offset

    def __enter__(self) -> SideFile:
        with _named(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
            self._file.truncate(self._end)
            if self._end == 0:
                self._file.write(_line(self._recipe))
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        with _named(self.path):
            self._file.close()

    def append(self, answers: list[tuple[FrameAnswer, dict[str, Any] | None]]) -> None:
        """Add a batch of frames, each with the tracker's state after it, and hand them to the system."""
        assert self._file is not None
        with _named(self.path):
            for answer, state in answers:
                values = answer.coefficients
                row = {
                    "frame": answer.frame,
                    "time": str(answer.time),
                    "image": answer.image,
                    "status": answer.status,
                    "reason": answer.reason,
                    "coefficients": None if values is None else np.asarray(values, np.float32).tolist(),
                    "interval": None if answer.interval is None else np.rint(answer.interval * 100).tolist(),
                    "calibrated": answer.calibrated,
                    "analysis": answer.analysis and answer.analysis.to_dict(),
                    "box": answer.box and corners(answer.box),
                    "note": answer.note,
                    "state": state,
                }
                self._file.write(_line(row))
            self._file.flush()
        self.frames += len(answers)

    def __iter__(self) -> Iterator[FrameAnswer]:
        """Yield the frames from the first."""
        with _named(self.path), self.path.open("rb") as file:
            file.readline()
            for line in file:
                row = json.loads(line)
                values, analysis, box = row["coefficients"], row["analysis"], row["box"]
                interval = row["interval"]
                yield FrameAnswer(
                    row["image"],
                    row["status"],
                    row["reason"],
                    None if values is None else np.array(values, np.float32),
                    None if analysis is None else Analysis.from_dict(analysis),
                    row["frame"],
                    Fraction(row["time"]),
                    box=None if box is None else Box(*box),
                    note=row["note"],
                    interval=None if interval is None else np.array(interval, np.float32) / 100,
                    calibrated=row["calibrated"],
                )


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn the system's refusals within a block into an error that names the side file."""
    try:
        yield
    except OSError as error:
        raise SemanticFaceError(
            f"{path}: {error.strerror or error}. Free some space or choose another place; what is there is kept."
        ) from error


def corners(box: Box) -> list[float]:
    """Left, top, right and bottom as plain numbers."""
    return [float(corner) for corner in (box.x0, box.y0, box.x1, box.y1)]


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
