"""A recording of any form that the project knows, row by row: who, when, the 52 coefficients, head and eye rotations.

``read`` takes a Live Link Face CSV, our CSV, our JSONL, and the JSONL of ms-swift in which SemanticFace was published:
``messages`` whose last answer holds the JSON (and the picture's name under ``images``), or ``response``, as inference
writes it. Numbers come as they stand in the file, digit by digit. ``track`` gives a recording its time.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from semanticface import arkit
from semanticface.errors import AnswerError, TableError
from semanticface.formats import tables
from semanticface.semantics.analysis import Analysis
from semanticface.semantics.answer import parse_answer
from semanticface.utils import csv_lines
from semanticface.utils.progress import tqdm
from semanticface.vision.timecode import Clock, format_rate, parse, timecode_rate

DEFAULT_RATE = Fraction(30)
"""Rows a second where nothing says when they were."""
PROGRESS_DELAY = 2
"""Seconds before a bar shows how far reading is."""

_DAY = 24 * 60 * 60
_OURS = {"image", "timecode", "status", "reason", "coefficients", "pose", "analysis"}


@dataclass(frozen=True, slots=True, eq=False)
class RecordedFrame:
    """One row of a recording; a ``tables.Outcome``.

    Attributes:
        line: in the file, from 1.
        image: the row's name: a picture, a frame, a timecode.
        status: ``ok``, or a short code.
        reason: what is wrong, file and line included; empty where ``ok``.
        timecode: ``HH:MM:SS:FF.fff``; empty where the file has none.
        time: seconds, as ``predict`` writes it for a take; None where the file has none.
        values: float64[52] as in the file, from -0.02 to 1.02; None unless ``ok``.
        pose: float64[9], ``arkit.POSE_NAMES``, in the file's own units; None where the file has none.
        analysis: the explanation, or None.
        more: what else our JSONL said of the row, by key.
    """

    line: int
    image: str
    status: str = "ok"
    reason: str = ""
    timecode: str = ""
    time: Fraction | None = None
    values: np.ndarray | None = None
    pose: np.ndarray | None = None
    analysis: Analysis | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def coefficients(self) -> np.ndarray | None:
        """float32[52] in [0, 1], or None."""
        return None if self.values is None else np.clip(self.values, 0, 1).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of our JSONL, with ``timecode`` and ``pose`` where there are any; no digit is lost."""
        out: dict[str, Any] = {"image": self.image}
        if self.timecode:
            out["timecode"] = self.timecode
        out["status"] = self.status
        if self.reason:
            out["reason"] = self.reason
        out |= self.more
        out["coefficients"] = None if self.values is None else dict(zip(arkit.NAMES, self.values.tolist(), strict=True))
        if self.pose is not None:
            out["pose"] = dict(zip(arkit.POSE_NAMES, self.pose.tolist(), strict=True))
        out["analysis"] = None if self.analysis is None else self.analysis.to_dict()
        return out


def read(path: Path) -> Iterator[RecordedFrame]:
    """Yield the rows of a recording, bad ones in their place.

    Raises:
        TableError: no such file, of no form that is known, empty, or too long (``tables.MAX_ROWS``).
    """
    return _from_jsonl(path) if path.suffix.lower() == ".jsonl" else _from_csv(path)


def _from_csv(path: Path) -> Iterator[RecordedFrame]:
    for row in tables.read_coefficients(path):
        name = row.label or f"{path.name}:{row.line}"
        if row.coefficients is None:
            yield RecordedFrame(row.line, name, "bad_row", row.error)
        elif row.live_link is not None:
            there = row.live_link
            # Rotations that were not recorded stand as zeros: they are not known to be zero.
            pose = there.pose if there.pose.any() else None
            yield RecordedFrame(row.line, name, timecode=there.timecode, values=there.coefficients, pose=pose)
        else:
            timecode = row.label if parse(row.label) else ""
            # Our CSV has six decimals; float32 adds digits that are not in the file.
            values = np.round(row.coefficients.astype(np.float64), 6)
            yield RecordedFrame(row.line, name, timecode=timecode, values=values)


def _from_jsonl(path: Path) -> Iterator[RecordedFrame]:
    for line, found, error in tables.read_objects(path):
        if found is None:
            yield RecordedFrame(line, f"{path.name}:{line}", "bad_row", error)
        elif "coefficients" not in found and ("messages" in found or "response" in found):
            yield _answered(found, path, line)
        else:
            yield _ours(found, path, line)


def _ours(found: dict[str, Any], path: Path, line: int) -> RecordedFrame:
    row = tables.parse_row(found, path, line)
    name = row.label or f"{path.name}:{line}"
    at = f"{path}, line {line}"
    more = {key: value for key, value in found.items() if key not in _OURS}
    timecode = found.get("timecode") or (row.label if parse(row.label) else "")
    try:
        if not isinstance(timecode, str):
            raise TableError(f"{at}: the timecode is not text. Write HH:MM:SS:FF.fff, or leave it out.")
        if row.coefficients is None:
            status = found.get("status")
            status = status if isinstance(status, str) and status != "ok" else "bad_row"
            reason = found.get("reason")
            kept = reason if status != "bad_row" and isinstance(reason, str) else row.error
            return RecordedFrame(line, name, status, kept, timecode, more=more)
        time = found.get("time")
        if time is not None and (isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time < 1e9):
            raise TableError(
                f"{at}: {csv_lines.quote(str(time))} is not a time in seconds. Correct it or leave it out."
            )
        values = np.array([found["coefficients"][name] for name in arkit.NAMES], dtype=np.float64)
        return RecordedFrame(
            line,
            name,
            timecode=timecode,
            time=None if time is None else Fraction(str(time)),
            values=values,
            pose=_pose(found.get("pose"), at),
            analysis=row.analysis,
            more=more,
        )
    except TableError as error:
        return RecordedFrame(line, name, "bad_row", str(error))


def _pose(given: object, at: str) -> np.ndarray | None:
    if given is None:
        return None
    if not isinstance(given, dict) or given.keys() != set(arkit.POSE_NAMES):
        raise TableError(f'{at}: "pose" must hold {", ".join(arkit.POSE_NAMES)}, or be left out.')
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
            raise TableError(
                f"{at}, {name}: {csv_lines.quote(str(value))} is not a number. Correct it or leave pose out."
            )
    return np.array([given[name] for name in arkit.POSE_NAMES], dtype=np.float64)


def _answered(found: dict[str, Any], path: Path, line: int) -> RecordedFrame:
    """Read a row of the published JSONL, or of what inference with ms-swift writes."""
    name, at = _picture(found) or f"{path.name}:{line}", f"{path}, line {line}"
    text = found.get("response")
    if not isinstance(text, str):
        said = found.get("messages")
        turns = [turn for turn in said if isinstance(turn, dict)] if isinstance(said, list) else []
        text = next((turn.get("content") for turn in reversed(turns) if turn.get("role") == "assistant"), None)
    if not isinstance(text, str):
        return RecordedFrame(line, name, "no_text", f"{at}: no answer of the assistant among the messages. Add one.")
    try:
        answer = parse_answer(text)
    except AnswerError as refused:
        return RecordedFrame(line, name, refused.code, f"{at}: {refused}")
    # One decimal in the text must not become 0.10000000149 by way of float32.
    values = np.round(answer.coefficients.astype(np.float64), 6)
    pose = answer.pose
    if pose is not None and (pose.keys() != set(arkit.POSE_NAMES) or not any(pose.values())):
        pose = None
    return RecordedFrame(line, name, values=values, pose=_pose(pose, at), analysis=answer.analysis)


def _picture(found: Mapping[str, Any]) -> str:
    pictures = found.get("images")
    first = pictures[0] if isinstance(pictures, list) and pictures else found.get("image")
    if isinstance(first, dict):
        first = first.get("path")
    return first if isinstance(first, str) else ""


# --- time ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class CoefficientTrack:
    """A recording on a time axis.

    Attributes:
        times: float64[T], seconds since the first row, each later than the one before.
        values: float32[T, 52] in [0, 1].
        pose: float32[T, 9], ``arkit.POSE_NAMES``; 0 where the file has none.
        rate: frames a second in which timecodes count.
        start: the first row's timecode, in frames since midnight; 0 where the file has none.
    """

    times: np.ndarray
    values: np.ndarray
    pose: np.ndarray
    rate: Fraction
    start: Fraction


def track(path: Path, fps: Fraction | None, complain: Callable[[str], None]) -> CoefficientTrack:
    """Read a recording and say when each of its rows was.

    Seconds that the file tells come first, then its timecodes, else rows follow each other evenly. Bad rows, and rows
    that are not later than the one before, are left out; their time stays empty.

    Args:
        path: see ``read``.
        fps: frames a second in which timecodes count (by default 60 where some FF exceeds 29, else 30), or rows a
            second where there are no timecodes (30).
        complain: is told of each row left out, in a sentence.

    Raises:
        TableError: as ``read``, or no row that can be used.
    """
    rows: list[int] = []
    labels: list[tuple[int, Fraction] | None] = []
    told: list[Fraction | None] = []
    values, pose = array("f"), array("f")
    for count, moment in enumerate(tqdm(read(path), unit="row", delay=PROGRESS_DELAY, leave=False)):
        if moment.values is None:
            complain(moment.reason)
            continue
        if moment.timecode and parse(moment.timecode) is None:
            complain(f"{path}, line {moment.line}: {csv_lines.quote(moment.timecode)} is not a timecode. Correct it.")
            continue
        rows.append(count)
        labels.append(parse(moment.timecode) if moment.timecode else None)
        told.append(moment.time)
        values.extend(np.clip(moment.values, 0, 1))
        pose.extend(np.zeros(len(arkit.POSE_NAMES)) if moment.pose is None else moment.pose)
    if not rows:
        raise TableError(f"{path}: no row with coefficients. Give a file that has some.")
    rate, frames = _counted(path, labels, fps)
    if None not in told:
        seconds = [time for time in told if time is not None]
    elif frames is not None:
        seconds = [frame / rate for frame in frames]
    elif any(labels):
        raise TableError(f"{path}: some rows have a timecode and some have none. Give all of them one, or none.")
    else:
        seconds = [row / (fps or DEFAULT_RATE) for row in rows]
    kept: list[int] = []
    for place, second in enumerate(seconds):
        if kept and second <= seconds[kept[-1]]:
            complain(f"{path}: row {rows[place] + 1} is not later than the one before. Left out.")
        else:
            kept.append(place)
    return CoefficientTrack(
        times=np.array([float(seconds[place] - seconds[0]) for place in kept]),
        values=np.frombuffer(values, np.float32).reshape(-1, arkit.N_ACTIONS)[kept] + np.float32(0),
        pose=np.frombuffer(pose, np.float32).reshape(-1, len(arkit.POSE_NAMES))[kept],
        rate=rate,
        start=frames[0] if frames is not None else Fraction(0),
    )


def _counted(
    path: Path, labels: list[tuple[int, Fraction] | None], fps: Fraction | None
) -> tuple[Fraction, list[Fraction] | None]:
    """Return the rate of timecodes and frames since the first one's midnight; None for frames without timecodes."""
    there = [label for label in labels if label is not None]
    highest = max((int(frame) for _, frame in there), default=0)
    rate = timecode_rate(fps) if fps is not None else Fraction(60 if highest >= 30 else 30)
    base = round(rate)
    if highest >= base:
        raise TableError(
            f"{path}: a timecode counts frame {highest}, there are {base} at {format_rate(rate)} a second. "
            "Give the rate in which they count, or leave it out."
        )
    if len(there) < len(labels):
        return rate, None
    out: list[Fraction] = []
    days = 0
    for seconds, frame in there:
        now = (seconds + days * _DAY) * base + frame
        if out and now + _DAY * base / 2 < out[-1]:  # past midnight
            days += 1
            now += _DAY * base
        out.append(now)
    return rate, out


class TimecodeLabels:
    """Timecodes for the rows of a Live Link CSV: the recording's own, or made up where it has none.

    Those made up count 30 a second, or 60 for rates other than 30 and 29.97: Unreal Engine knows no other counting.

    Args:
        fps: rows a second where there are no timecodes.
    """

    def __init__(self, fps: Fraction | None) -> None:
        self._fps = fps or DEFAULT_RATE
        base = timecode_rate(self._fps)
        self._clock = Clock(base if round(base) in (30, 60) else Fraction(60))
        self._own: bool | None = None

    def label(self, moment: RecordedFrame, row: int) -> str:
        """The timecode of a row, the ``row``-th from 0, good ones and bad ones counted.

        Raises:
            TableError: some rows have a timecode and this one has none, or the other way round.
        """
        own = bool(moment.timecode)
        if self._own is None:
            self._own = own
        if own is not self._own:
            with_, without = ("others", "this row") if self._own else ("this row", "others")
            raise TableError(
                f"line {moment.line}: {with_} have a timecode, {without} have none. Give all one, or none."
            )
        if own:
            return moment.timecode
        return self._clock.label(moment.time if moment.time is not None else row / self._fps)
