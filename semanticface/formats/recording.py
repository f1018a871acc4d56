"""Read recordings in every supported format, row by row: name, time, 52 coefficients, head and eye rotations.

``read`` accepts a Live Link Face CSV, our CSV, our JSONL, and ms-swift JSONL, in which SemanticFace was published:
``messages`` with the answer's JSON in the last one (and the picture's name in ``images``), or ``response`` from its
inference; also other forms of training rows (``training_row``). Numbers keep all digits of the file. ``track``
adds a time axis.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from semanticface import arkit
from semanticface.errors import AnswerError, TableError
from semanticface.formats import tables
from semanticface.formats.timecode_count import BASES, find_counting
from semanticface.semantics.analysis import Analysis
from semanticface.semantics.answer import parse_answer
from semanticface.utils import csv_lines
from semanticface.utils.progress import tqdm
from semanticface.vision.timecode import Clock, format_rate, parse, timecode_rate

DEFAULT_RATE = Fraction(30)
"""Rows per second without times."""
PROGRESS_DELAY = 2
"""Seconds before a progress bar appears."""

_DAY = 24 * 60 * 60
_TRAINING_KEYS = {"messages", "response", "conversations", "completion"}
_ROLES = {"gpt": "assistant", "model": "assistant", "human": "user"}
_OURS = {"image", "timecode", "status", "reason", "coefficients", "pose", "analysis"}


@dataclass(frozen=True, slots=True, eq=False)
class RecordedFrame:
    """One row of a recording; a ``tables.Outcome``.

    Attributes:
        line: in the file, from 1.
        image: the row's name: a picture, frame or timecode.
        status: ``ok``, or an error code.
        reason: error message with file and line; empty if ``ok``.
        timecode: ``HH:MM:SS:FF.fff``, or empty.
        time: seconds, as written by ``predict`` for takes, or None.
        values: float64[52] as in the file, up to ``tables.OVERSHOOT`` beyond 0 and 1; None unless ``ok``.
        pose: float64[9], ``arkit.POSE_NAMES``, in the file's units, or None.
        analysis: the analysis, or None.
        extra: other keys of our JSONL.
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
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether something is wrong with the row; a frame of a take without a face is a gap in it."""
        return self.status != "ok" and not (self.status == "no_face" and bool(self.timecode))

    @property
    def coefficients(self) -> np.ndarray | None:
        """float32[52] in [0, 1], or None."""
        return None if self.values is None else np.clip(self.values, 0, 1).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return an object of our JSONL, with ``timecode`` and ``pose`` if present; keeps all digits."""
        out: dict[str, Any] = {"image": self.image}
        if self.timecode:
            out["timecode"] = self.timecode
        out["status"] = self.status
        if self.reason:
            out["reason"] = self.reason
        out |= self.extra
        out["coefficients"] = None if self.values is None else dict(zip(arkit.NAMES, self.values.tolist(), strict=True))
        if self.pose is not None:
            out["pose"] = dict(zip(arkit.POSE_NAMES, self.pose.tolist(), strict=True))
        out["analysis"] = None if self.analysis is None else self.analysis.to_dict()
        return out


def read(path: Path, note: tables.Note | None = None) -> Iterator[RecordedFrame]:
    """Yield the rows of a recording, including invalid ones.

    Args:
        path: the file.
        note: called with what is worth knowing and no error, once for the file; see ``tables``.

    Raises:
        TableError: the file is missing, empty, of an unknown format, or too long (``tables.MAX_ROWS``).
    """
    return _from_jsonl(path, note) if path.suffix.lower() in (".jsonl", ".json") else _from_csv(path, note)


def _from_csv(path: Path, note: tables.Note | None) -> Iterator[RecordedFrame]:
    for row in tables.read_coefficients(path, note):
        name = row.label or f"{path.name}:{row.line}"
        if row.lost:
            yield RecordedFrame(row.line, name, "no_face", row.error, row.label)
        elif row.coefficients is None:
            yield RecordedFrame(row.line, name, "bad_row", row.error)
        elif row.live_link is not None:
            recorded = row.live_link
            # Apps write zeros for rotations that were not recorded.
            pose = recorded.pose if recorded.pose.any() else None
            yield RecordedFrame(row.line, name, timecode=recorded.timecode, values=recorded.coefficients, pose=pose)
        else:
            timecode = row.label if parse(row.label) else ""
            # Our CSV has six decimals; float32 would add digits.
            values = np.round(row.coefficients.astype(np.float64), 6)
            yield RecordedFrame(row.line, name, timecode=timecode, values=values, pose=row.pose)


def _from_jsonl(path: Path, note: tables.Note | None) -> Iterator[RecordedFrame]:
    frames: deque[RecordedFrame] = deque()

    def rows() -> Iterator[tables.TableRow]:
        for line, found, error in tables.read_objects(path):
            row = tables.TableRow(line, "", error=error)
            if found is None:
                frames.append(RecordedFrame(line, f"{path.name}:{line}", "bad_row", error))
            elif "coefficients" not in found and found.keys() & _TRAINING_KEYS:
                frames.append(_parse_ms_swift(found, path, line))
            else:
                row = tables.parse_row(found, path, line)
                frames.append(_parse_jsonl_row(row, found, path))
            yield row

    for _ in tables.noted(rows(), path, note):
        yield frames.popleft()


def _parse_jsonl_row(row: tables.TableRow, found: dict[str, Any], path: Path) -> RecordedFrame:
    line = row.line
    name = row.label or f"{path.name}:{line}"
    at = f"{path}, line {line}"
    extra = {key: value for key, value in found.items() if key not in _OURS}
    timecode = found.get("timecode") or (row.label if parse(row.label) else "")
    try:
        if not isinstance(timecode, str):
            raise TableError(f"{at}: the timecode is not text. Write HH:MM:SS:FF.fff, or omit it.")
        if row.coefficients is None:
            status = found.get("status")
            status = status if isinstance(status, str) and status != "ok" else "bad_row"
            reason = found.get("reason")
            kept = reason if status != "bad_row" and isinstance(reason, str) else row.error
            return RecordedFrame(line, name, status, kept, timecode, extra=extra)
        time = found.get("time")
        if time is not None and (isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time < 1e9):
            raise TableError(f"{at}: {csv_lines.quote(str(time))} is not a time in seconds. Correct or omit it.")
        values = np.array([found["coefficients"][name] for name in arkit.NAMES], dtype=np.float64)
        return RecordedFrame(
            line,
            name,
            timecode=timecode,
            time=None if time is None else Fraction(str(time)),
            values=values,
            pose=_pose(found.get("pose"), at),
            analysis=row.analysis,
            extra=extra,
        )
    except TableError as error:
        return RecordedFrame(line, name, "bad_row", str(error))


def _pose(given: object, at: str) -> np.ndarray | None:
    if given is None:
        return None
    if not isinstance(given, dict) or given.keys() != set(arkit.POSE_NAMES):
        raise TableError(f'{at}: "pose" must have {", ".join(arkit.POSE_NAMES)}, or be omitted.')
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
            raise TableError(f"{at}, {name}: {csv_lines.quote(str(value))} is not a number. Correct it or omit pose.")
    return np.array([given[name] for name in arkit.POSE_NAMES], dtype=np.float64)


def _parse_ms_swift(found: dict[str, Any], path: Path, line: int) -> RecordedFrame:
    """Parse a row of the published JSONL, of ms-swift inference, or of another form of training rows."""
    found = training_row(found)
    name, at = _image_name(found) or f"{path.name}:{line}", f"{path}, line {line}"
    text = found.get("response")
    if not isinstance(text, str):
        messages = found.get("messages")
        turns = [turn for turn in messages if isinstance(turn, dict)] if isinstance(messages, list) else []
        text = next((turn.get("content") for turn in reversed(turns) if turn.get("role") == "assistant"), None)
    if not isinstance(text, str):
        return RecordedFrame(line, name, "no_text", f"{at}: the messages have no assistant answer. Add one.")
    try:
        answer = parse_answer(text)
    except AnswerError as error:
        return RecordedFrame(line, name, error.code, f"{at}: {error}")
    # 0.1 in the text must not become 0.10000000149 in float32.
    values = np.round(answer.coefficients.astype(np.float64), 6)
    pose = answer.pose
    if pose is not None and (pose.keys() != set(arkit.POSE_NAMES) or not any(pose.values())):
        pose = None
    return RecordedFrame(line, name, values=values, pose=_pose(pose, at), analysis=answer.analysis)


def training_row(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a training row as ms-swift has it: ``messages`` with text as content, and ``images``.

    Read are also messages with content in parts (OpenAI, TRL), ``conversations`` with ``from`` and ``value``
    (ShareGPT), and ``prompt`` with ``completion``, as text or messages (TRL). Other rows come back as they are.
    """
    turns = found.get("messages", found.get("conversations"))
    if turns is None and "completion" in found:
        turns = []
        for role, key in (("user", "prompt"), ("assistant", "completion")):
            said = found.get(key)
            turns += said if isinstance(said, list) else [{"role": role, "content": said}]
    if not isinstance(turns, list):
        return dict(found)
    messages, pictures = [], []
    for turn in turns:
        if not isinstance(turn, Mapping):
            continue
        role = turn.get("role", turn.get("from"))
        content = turn.get("content", turn.get("value"))
        if isinstance(content, list):
            parts = [part for part in content if isinstance(part, Mapping)]
            pictures += [name for part in parts if (name := _part_image(part)) is not None]
            content = "".join(part["text"] for part in parts if isinstance(part.get("text"), str)) or None
        messages.append({"role": _ROLES.get(role, role) if isinstance(role, str) else role, "content": content})
    row = dict(found) | {"messages": messages}
    if "images" not in row:
        row["images"] = [row["image"]] if isinstance(row.get("image"), str) else pictures
    return row


def _part_image(part: Mapping[str, Any]) -> str | None:
    """Return the picture that a part of a message names; one without a name belongs to ``images``."""
    named = next((part[key] for key in ("image", "image_url", "path", "url") if part.get(key)), None)
    if isinstance(named, Mapping):
        named = named.get("url") or named.get("path")
    return named if isinstance(named, str) else None


def _image_name(found: Mapping[str, Any]) -> str:
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
        times: float64[T], seconds since the first row, strictly increasing.
        values: float32[T, 52] in [0, 1].
        pose: float32[T, 9], ``arkit.POSE_NAMES``; 0 if not in the file.
        rate: timecode rate in fps.
        start: the first row's timecode in frames since midnight; 0 without timecodes.
        total: rows in the file, with those that have no place in the track.
    """

    times: np.ndarray
    values: np.ndarray
    pose: np.ndarray
    rate: Fraction
    start: Fraction
    total: int


def track(
    path: Path, fps: Fraction | None, warn: Callable[[str], None], note: tables.Note | None = None
) -> CoefficientTrack:
    """Read a recording with a time axis.

    Times come from the file's seconds, else from its timecodes, else rows are evenly spaced. Invalid rows, and rows not
    later than the previous one, are skipped and leave a gap.

    Args:
        path: see ``read``.
        fps: timecode rate (default: what the timecodes show, ``timecode_count``), or rows per second without
            timecodes (30).
        warn: called with a message for each skipped row; rows without a face (``RecordedFrame.failed``) are a gap.
        note: see ``read``.

    Raises:
        TableError: as ``read``, or no usable row.
    """
    rows: list[int] = []
    labels: list[tuple[int, Fraction] | None] = []
    row_seconds: list[Fraction | None] = []
    values, pose = array("f"), array("f")
    total, drop_frame = 0, False
    for count, frame in enumerate(tqdm(read(path, note), unit="row", delay=PROGRESS_DELAY, leave=False)):
        total += 1
        if frame.values is None:
            if frame.failed:
                warn(frame.reason)
            continue
        if frame.timecode and parse(frame.timecode) is None:
            warn(f"{path}, line {frame.line}: {csv_lines.quote(frame.timecode)} is not a timecode. Correct it.")
            continue
        rows.append(count)
        labels.append(parse(frame.timecode) if frame.timecode else None)
        drop_frame |= ";" in frame.timecode
        row_seconds.append(frame.time)
        values.extend(np.clip(frame.values, 0, 1))
        pose.extend(np.zeros(arkit.N_POSE) if frame.pose is None else frame.pose)
    if not rows:
        raise TableError(f"{path}: no row with coefficients. Give another file.")
    rate, frames = _timecode_frames(path, labels, fps, drop_frame=drop_frame)
    if None not in row_seconds:
        seconds = [time for time in row_seconds if time is not None]
    elif frames is not None:
        seconds = [frame / rate for frame in frames]
    elif any(labels):
        raise TableError(f"{path}: some rows have a timecode and others do not. Give one to all rows, or to none.")
    else:
        seconds = [row / (fps or DEFAULT_RATE) for row in rows]
    kept: list[int] = []
    for index, second in enumerate(seconds):
        if kept and second <= seconds[kept[-1]]:
            warn(f"{path}: row {rows[index] + 1} is not later than the previous one. Skipped.")
        else:
            kept.append(index)
    return CoefficientTrack(
        times=np.array([float(seconds[index] - seconds[0]) for index in kept]),
        values=np.frombuffer(values, np.float32).reshape(-1, arkit.N_ACTIONS)[kept] + np.float32(0),
        pose=np.frombuffer(pose, np.float32).reshape(-1, arkit.N_POSE)[kept],
        rate=rate,
        start=frames[0] if frames is not None else Fraction(0),
        total=total,
    )


def _timecode_frames(
    path: Path, labels: Sequence[tuple[int, Fraction] | None], fps: Fraction | None, *, drop_frame: bool
) -> tuple[Fraction, list[Fraction] | None]:
    """Return the timecode rate, and frames since the first one's midnight or None if some lack timecodes."""
    present = [label for label in labels if label is not None]
    rate = None if fps is None else fps if round(fps) in BASES else timecode_rate(fps)
    counting = find_counting(present, drop_frame=drop_frame, rate=rate)
    highest = max((int(frame) for _, frame in present), default=0)
    if highest >= counting.base:
        raise TableError(
            f"{path}: a timecode has frame {highest}, but there are only {counting.base} at "
            f"{format_rate(counting.rate)} fps. Give the timecodes' rate, or omit it."
        )
    if len(present) < len(labels):
        return counting.rate, None
    out: list[Fraction] = []
    days = 0
    for seconds, frame in present:
        now = counting.frame(seconds + days * _DAY, frame)
        if out and now + _DAY * counting.base / 2 < out[-1]:  # past midnight
            days += 1
            now = counting.frame(seconds + days * _DAY, frame)
        out.append(now)
    return counting.rate, out


class TimecodeLabels:
    """Timecodes for the rows of a Live Link CSV: the recording's own, or generated ones.

    Generated ones count 30 per second, or 60 for rates other than 30 and 29.97, the only rates of Unreal Engine.

    Args:
        fps: rows per second without timecodes.
    """

    def __init__(self, fps: Fraction | None) -> None:
        self._fps = fps or DEFAULT_RATE
        base = timecode_rate(self._fps)
        self._clock = Clock(base if round(base) in (30, 60) else Fraction(60))
        self._own: bool | None = None

    def label(self, frame: RecordedFrame, row: int) -> str:
        """Return the timecode of a row, counted from 0 with invalid ones; a TableError if only some have one."""
        own = bool(frame.timecode)
        if self._own is None:
            self._own = own
        if own is not self._own:
            with_, without = ("other rows have", "this row has") if self._own else ("this row has", "other rows have")
            raise TableError(f"line {frame.line}: {with_} a timecode, {without} none. Give one to all, or to none.")
        if own:
            return frame.timecode
        return self._clock.label(frame.time if frame.time is not None else row / self._fps)
