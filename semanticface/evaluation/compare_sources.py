"""Find the input of each row of a predictions file: its picture, or its exact frame of a video."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from semanticface import arkit
from semanticface.data.captures.pairing import Label, TakeRows, detect_base, pair_rows, parse_label, ticks
from semanticface.errors import SemanticFaceError, TableError, VideoError
from semanticface.evaluation.metrics import ACTIVE
from semanticface.formats.recording import DEFAULT_RATE, PROGRESS_DELAY, RecordedFrame, read
from semanticface.formats.timecode_count import BASES, NTSC
from semanticface.utils.progress import tqdm
from semanticface.vision.crop import Box
from semanticface.vision.timecode import standard_rate, timecode_base
from semanticface.vision.video_reader import MAX_FRAMES, Take, VideoFile, open_take

_FRAME = re.compile(r"(.+), frame \d+")
_ROUNDED = 2  # thousandths of a frame: rounding error of a written timecode


@dataclass(frozen=True, slots=True, eq=False)
class ShownRow:
    """The parts of one row of a predictions file that are shown.

    Attributes:
        name: its picture, frame or timecode.
        values: float32[52] in [0, 1]; None if ``reason`` says why.
        reason: why there are no values, in a sentence; else empty.
        caption: the expression and the strongest actions, in a line.
        box: the model's crop; None if the file does not say.
        frame: of a video, from 1; None if the file does not say.
        time: of the frame in seconds; None if the file does not say.
        timecode: ``HH:MM:SS:FF.fff``; empty if the file has none.
        pose: float[9] in radians; None if the file does not say.
    """

    name: str
    values: np.ndarray | None
    reason: str
    caption: str
    box: Box | None
    frame: int | None
    time: Fraction | None
    timecode: str
    failed: bool
    pose: np.ndarray | None


def read_rows(file: Path, note: Callable[[str], None] | None = None) -> list[ShownRow]:
    """Read every row of a file that ``recording.read`` supports; bad rows keep their place. ``note``: see there."""
    return [_row(moment) for moment in tqdm(read(file, note), unit="row", delay=PROGRESS_DELAY, leave=False)]


def _row(moment: RecordedFrame) -> ShownRow:
    frame = moment.extra.get("frame")
    return ShownRow(
        moment.image,
        moment.coefficients,
        moment.reason,
        _caption(moment),
        _box(moment.extra.get("box")),
        frame if isinstance(frame, int) and not isinstance(frame, bool) and frame > 0 else None,
        moment.time,
        moment.timecode,
        moment.failed,
        moment.pose,
    )


def _box(given: object) -> Box | None:
    if not isinstance(given, list) or len(given) != 4:
        return None
    if any(isinstance(corner, bool) or not isinstance(corner, int | float) for corner in given):
        return None
    return Box(*map(float, given))


def _caption(moment: RecordedFrame) -> str:
    """Return the expression, if the row has an analysis, and the strongest actions."""
    if moment.coefficients is None:
        return ""
    strongest = sorted(arkit.by_name(moment.coefficients).items(), key=lambda item: -item[1])
    active = ", ".join(f"{name} {value:.2f}" for name, value in strongest[:5] if value > ACTIVE)
    expression = moment.analysis.expression_category if moment.analysis else ""
    return " - ".join(part for part in (expression, active) if part) or "at rest"


def locate(name: str, file: Path, folder: Path | None) -> Path | None:
    """Return the path of a picture or video that a predictions file names; None if it is not found.

    Args:
        name: as in the file. Looked up in ``folder``, with leading folders dropped one by one; as it is; and next to
            the file.
        file: the predictions file.
        folder: given by the user; *optional*.
    """
    parts = Path(name).parts[1:] if Path(name).is_absolute() else Path(name).parts
    places = [] if folder is None else [folder.joinpath(*parts[start:]) for start in range(len(parts))]
    for place in (*places, Path(name), file.parent / name):
        try:
            if place.exists():
                return place
        except (OSError, ValueError):  # not a valid file name
            return None
    return None


def find_take(file: Path, rows: Sequence[ShownRow], video: Path | None, folder: Path | None) -> Take | None:
    """Return the video or folder of frames of the rows; None for rows of single pictures.

    Args:
        file: the predictions file.
        rows: its rows.
        video: given by the user; *optional*.
        folder: where to look otherwise; *optional*.
    """
    if video is None:
        framed = next((found for row in rows if row.frame and (found := _FRAME.fullmatch(row.name))), None)
        if framed is None:
            if any(row.timecode and row.timecode == row.name for row in rows):
                raise TableError(f"{file}: a recording does not name its video. Give it: --video take.mov")
            return None
        video = locate(framed[1], file, folder)
        if video is None:
            raise VideoError(f"{framed[1]}: not found. Say where the video of {file} is: --video {framed[1]}")
    return open_take(video, _rate(rows) if video.is_dir() else None)


def _rate(rows: Sequence[ShownRow]) -> Fraction:
    """Return the frames per second of a folder of frames, from the last row with a time."""
    timed = [(row.frame, row.time) for row in rows if row.frame and row.time]
    if not timed:
        return DEFAULT_RATE
    frame, time = max(timed)
    rate = Fraction(frame - 1) / time
    return standard_rate(rate) or rate.limit_denominator(1001)


def frames_of(file: Path, rows: Sequence[ShownRow], take: Take, warn: Callable[[str], None]) -> list[int | None]:
    """Return the frame, from 1, of each row; None for rows whose frame cannot be determined.

    Frame numbers in the file decide, else timecodes: those of ``predict`` to a thousandth of a frame, others as
    captures are paired (``data.captures.pairing``).

    Args:
        file: the predictions file.
        rows: its rows.
        take: the video.
        warn: called with a sentence on what is uncertain.
    """
    if any(row.frame for row in rows):
        return [row.frame for row in rows]
    labels = [parse_label(row.timecode) if row.timecode else None for row in rows]
    there = [label for label in labels if label is not None]
    if not there:
        raise TableError(f"{file}: no row has a frame number or timecode. Predict the video itself, into a .jsonl.")
    frames = tqdm(take.frames(MAX_FRAMES), total=take.count, unit="frame", desc="timing", leave=False)
    times = [frame.time for frame in frames]
    if not times:
        raise VideoError(f"{take.path}: no frame in it. Export it again.")
    found = _to_the_thousandth(there, take, times)
    if found is None:
        found = _as_captured(file, rows, there, take, times, warn)
    numbers = iter(found.tolist())
    places = [None if label is None else next(numbers) + 1 for label in labels]
    return [place or None for place in places]


def _to_the_thousandth(labels: Sequence[Label], take: Take, times: Sequence[Fraction]) -> np.ndarray | None:
    """Return each label's frame, from 0, if all match timecodes of frames exactly, as ``predict`` writes them."""
    start = parse_label(take.timecode) if take.timecode else Label(0, 0)
    if start is None:
        return None
    own = round(take.timecode_rate)
    # Timecodes within one second do not show their counting rate: try the video's own first.
    one_second = len({label.seconds for label in labels}) == 1
    likely = detect_base(labels, take.rate)
    seconds = np.array([float(time) for time in times])
    highest = max(label.frame for label in labels)
    for base in dict.fromkeys((own, likely, *BASES) if one_second else (likely,)):
        if highest >= base * 1000:
            continue
        rows_at = ticks(labels, base)
        first = start.seconds * base * 1000 + start.frame * base / own
        for rate in (Fraction(base), base * NTSC):
            frames_at = first + seconds * float(rate) * 1000
            after = np.searchsorted(frames_at, rows_at).clip(0, len(times) - 1)
            before = (after - 1).clip(0)
            nearest = np.where(rows_at - frames_at[before] < frames_at[after] - rows_at, before, after)
            if (np.abs(frames_at[nearest] - rows_at) <= _ROUNDED).all():
                return nearest
    return None


def _as_captured(
    file: Path,
    rows: Sequence[ShownRow],
    labels: Sequence[Label],
    take: Take,
    times: Sequence[Fraction],
    warn: Callable[[str], None],
) -> np.ndarray:
    codes = tuple(row.timecode for row in rows if row.timecode and parse_label(row.timecode) is not None)
    count = len(labels)
    captured = TakeRows(
        np.arange(count), codes, tuple(labels), np.zeros((count, arkit.N_ACTIONS)), np.zeros((count, 9)), (), count
    )
    base = timecode_base(take.path) if isinstance(take, VideoFile) else None
    try:
        pairing = pair_rows(captured, times, take.rate, start=take.timecode, start_base=base)
    except SemanticFaceError as error:
        raise TableError(f"{file}: {error}") from error
    if not (pairing.frames >= 0).any():
        raise TableError(f"{file}: {pairing.warning or f'no row matches a frame of {take.path}.'}")
    if pairing.source == "first row":
        warn(
            f"{take.path}: no matching timecode: its first frame is assumed to be the first row's. "
            "Check that they belong together."
        )
    return pairing.frames
