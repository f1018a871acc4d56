"""Coefficient tables: CSV and JSONL, read strictly and written atomically.

Two formats are read, distinguished by suffix:

* CSV: the 52 actions by name, in any order and spelling (``columns``), as Live Link Face and other capture apps write
  them with a ``Timecode``, and we with ``image``.
* Our JSONL: one object per line with ``image``, ``status``, ``coefficients``, ``analysis``, as written by ``predict``.

Other files raise ``TableError``. An invalid row is returned in order with ``error`` set instead, so that later rows
keep their numbers. What is no error but worth knowing goes to ``note``, once for a file: columns left out, values
beyond 0 and 1, rows in which the app had lost the face.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from semanticface import arkit
from semanticface.errors import SemanticFaceError, TableError
from semanticface.formats import live_link
from semanticface.formats.columns import Columns, find_columns
from semanticface.formats.live_link import LiveLinkRow
from semanticface.semantics.analysis import Analysis
from semanticface.utils import csv_lines
from semanticface.utils.csv_lines import quote
from semanticface.utils.files import atomic_open
from semanticface.utils.listing import listed

COLUMNS: tuple[str, ...] = ("image", *arkit.NAMES)
"""The header of our own CSV."""
COLUMNS_WITH_POSE: tuple[str, ...] = (*COLUMNS, *arkit.POSE_NAMES)
"""The header where head and eye rotations are known."""
SUFFIXES = (".csv", ".jsonl")
MAX_ROWS = 1_000_000
"""More than four hours of capture at 60 rows per second."""
MAX_CSV_LINE = 2**16
MAX_JSON_LINE = 2**20
MAX_ARRAY = 2**28
OVERSHOOT = 0.25
"""Farthest outside [0, 1] that is read, and clipped in ``coefficients``: capture apps overshoot."""

_SMALL_OVERSHOOT = 0.02  # beyond, it must be part of a movement
_MOVEMENT = 0.5  # largest step of an action from one row to the next that leads to an overshoot
_ROUNDING = 1e-6  # no overshoot, but 1 in float32
_GAZE = frozenset(arkit.REGION_INDEX["gaze"].tolist())

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table.

    Attributes:
        line: line number in the file, from 1, header included.
        label: the ``image`` cell or Live Link timecode; may be empty.
        coefficients: float32[52] in [0, 1]; None with an ``error``.
        analysis: from JSONL, or None.
        box: crop box x0, y0, x1, y1 in pixels, from JSONL written by predict, or None.
        live_link: the unclipped row of a Live Link CSV, with rotations, or None.
        pose: float64[9], ``arkit.POSE_NAMES``, from our CSV, or None.
        error: message with file, line and fix; empty in a valid row.
        lost: the app had lost the face: no coefficients, and no mistake of the file; ``error`` says so.
        outside: the values that ``coefficients`` has clipped.
    """

    line: int
    label: str
    coefficients: np.ndarray | None = None
    analysis: Analysis | None = None
    box: tuple[float, float, float, float] | None = None
    live_link: LiveLinkRow | None = None
    pose: np.ndarray | None = None
    error: str = ""
    lost: bool = False
    outside: tuple[float, ...] = ()


class Outcome(Protocol):
    """A row to write: a ``Prediction`` or a ``RowResult``."""

    @property
    def image(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def coefficients(self) -> np.ndarray | None: ...
    @property
    def analysis(self) -> Analysis | None: ...
    @property
    def pose(self) -> np.ndarray | None: ...
    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class RowResult:
    """Coefficients and analysis of one named row, or the error.

    Attributes:
        image: the row's name.
        status: ``ok``, or an error code.
        reason: error message; empty if ``ok``.
        coefficients: float32[52], or None.
        analysis: the analysis, or None.
        pose: float[9], radians, ``arkit.POSE_NAMES``; None if not known.
    """

    image: str
    status: str = "ok"
    reason: str = ""
    coefficients: np.ndarray | None = None
    analysis: Analysis | None = None
    pose: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object with image, status, reason (if any), coefficients by action name, analysis."""
        out: dict[str, Any] = {"image": self.image, "status": self.status}
        if self.reason:
            out["reason"] = self.reason
        values = self.coefficients
        out["coefficients"] = None if values is None else dict(zip(arkit.NAMES, _rounded(values), strict=True))
        if self.pose is not None:
            out["pose"] = dict(zip(arkit.POSE_NAMES, _rounded(self.pose), strict=True))
        out["analysis"] = None if self.analysis is None else self.analysis.to_dict()
        return out


def read_coefficients(path: str | os.PathLike[str], note: Note | None = None) -> Iterator[TableRow]:
    """Yield the rows of a Live Link CSV, our CSV or our JSONL, including invalid ones.

    Args:
        path: the file.
        note: called with a sentence for each kind of thing worth knowing, see above; by default nothing is said.

    Raises:
        TableError: the file is missing, empty, not a coefficient table, or has more than ``MAX_ROWS`` rows.
    """
    path = Path(path)
    if path.suffix.lower() == ".jsonl":
        return noted(_read_jsonl_rows(path), path, note)
    return noted(_read_csv_rows(path, note), path, note)


def noted(rows: Iterable[TableRow], path: Path, note: Note | None) -> Iterator[TableRow]:
    """Yield the rows; at their end say how many had no face, and how many values lay beyond 0 and 1."""
    lost: list[int] = []
    outside: list[float] = []
    for row in rows:
        if row.lost:
            lost.append(row.line)
        outside += row.outside
        yield row
    if note is None:
        return
    if lost:
        lines = f"line {lost[0]}" if len(lost) == 1 else f"lines {lost[0]} to {lost[-1]}"
        note(f"{path}: no face in {_count(len(lost), 'row')} ({lines}). They are a gap.")
    if outside:
        farthest = max(outside, key=lambda value: abs(value - 0.5))
        note(
            f"{path}: {_count(len(outside), 'value')} beyond 0 or 1, the farthest {farthest:g}, as capture apps write "
            "them. Another recording keeps them; everything else takes them for 0 or 1."
        )


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def read_objects(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    """Yield ``(line, object or None, error)`` for each line of a JSONL file, or item of an array in a JSON file.

    Strict: no NaN, no Infinity, no duplicate keys. Blank lines are errors, except at the end.

    Raises:
        TableError: the file is missing, empty, or has more than ``MAX_ROWS`` lines.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        yield from _read_array(path)
        return
    for line, text, problem in csv_lines.read_lines(path, max_line_bytes=MAX_JSON_LINE, max_lines=MAX_ROWS):
        at = f"{path}, line {line}"
        if problem:
            yield line, None, problem
            continue
        try:
            value = json.loads(text, parse_constant=_reject_constant, object_pairs_hook=_reject_duplicate_keys)
        except (ValueError, RecursionError) as error:
            what = "an empty line" if not text.strip() else f"not valid JSON ({_one_line(error)})"
            yield line, None, f"{at}: {what}. Each line must contain one JSON object."
            continue
        if isinstance(value, dict):
            yield line, value, ""
        else:
            yield line, None, f"{at}: a JSON {type(value).__name__}. Each line must contain one JSON object."


def _read_array(path: Path) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    try:
        if path.stat().st_size > MAX_ARRAY:
            raise TableError(f"{path}: larger than {MAX_ARRAY // 2**20} MiB. Write it as JSONL, one object a line.")
        text = path.read_text(encoding="utf-8-sig")
        items = json.loads(text, parse_constant=_reject_constant, object_pairs_hook=_reject_duplicate_keys)
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}. Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise TableError(f"{path}: not valid JSON ({_one_line(error)}). End the name of JSONL in .jsonl.") from error
    if not isinstance(items, list) or not items:
        raise TableError(f"{path}: not an array of rows. Give a JSON array of objects, or JSONL named .jsonl.")
    for number, item in enumerate(items, start=1):
        wrong = "" if isinstance(item, dict) else f"{path}, line {number}: an item that is no object. Remove it."
        yield number, None if wrong else item, wrong


def write(path: str | os.PathLike[str], outcomes: Iterable[Outcome]) -> None:
    """Write outcomes atomically as JSONL or CSV, by the suffix of ``path``.

    The CSV has the columns ``COLUMNS``, or ``COLUMNS_WITH_POSE`` if the first good row has a pose; a failed picture
    keeps its row, with empty cells.

    Raises:
        SemanticFaceError: another suffix, a folder of that name, or a failed write.
    """
    suffix = check_output(path)
    # backslashreplace: file names may not be valid Unicode.
    with atomic_open(path, newline="", errors="backslashreplace") as file:
        if suffix == ".jsonl":
            for outcome in outcomes:
                file.write(json.dumps(outcome.to_dict(), ensure_ascii=False, allow_nan=False) + "\n")
            return
        table = csv.writer(file, lineterminator="\n")
        outcomes, first = iter(outcomes), []
        for outcome in outcomes:
            first.append(outcome)
            if outcome.coefficients is not None:
                break
        columns = COLUMNS_WITH_POSE if first and first[-1].pose is not None else COLUMNS
        table.writerow(columns)
        for outcome in chain(first, outcomes):
            numbers: list[float | str] = []
            if outcome.coefficients is not None:
                numbers += _rounded(outcome.coefficients)
                numbers += [] if outcome.pose is None else _rounded(outcome.pose)
            numbers += [""] * (len(columns) - 1 - len(numbers))
            table.writerow([re.sub(r"[\r\n]+", " ", outcome.image), *numbers[: len(columns) - 1]])


def check_output(path: str | os.PathLike[str]) -> str:
    """Return the suffix of an output table, ``.csv`` or ``.jsonl``; an error for others and for folders."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise SemanticFaceError(f"{path}: unknown output format. Use the suffix .jsonl or .csv.")
    if Path(path).is_dir():
        raise SemanticFaceError(f"{path}: is a folder. Choose another name for the output.")
    return suffix


def _rounded(coefficients: np.ndarray) -> Iterator[float]:
    # Six decimals are the precision of float32 near 1 and print 0.37 as 0.37; adding 0 turns -0.0 into 0.0.
    return (round(float(value), 6) + 0.0 for value in coefficients)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def _read_csv_rows(path: Path, note: Note | None) -> Iterator[TableRow]:
    text_lines = csv_lines.read_lines(path, max_line_bytes=MAX_CSV_LINE, max_lines=MAX_ROWS)
    number, text, problem = next(text_lines)
    if problem:
        raise TableError(problem)
    at = f"{path}, line {number}"
    columns = find_columns(csv_lines.parse_cells(text, at), at)
    if columns.unknown and note is not None:
        names = [columns.header[column].strip() or f"column {column + 1}" for column in columns.unknown]
        note(f"{path}: {_count(len(names), 'column')} left out, of another name: {listed(names)}.")
    rows = _parsed_csv_rows(path, text_lines, columns)
    return _without_spikes(rows, path, columns) if columns.is_recording else rows


def _parsed_csv_rows(path: Path, text_lines: Iterator[tuple[int, str, str]], columns: Columns) -> Iterator[TableRow]:
    name = columns.timecode if columns.is_recording else columns.image
    for number, text, problem in text_lines:
        if problem:
            yield TableRow(number, "", error=problem)
            continue
        label = ""
        try:
            cells = csv_lines.parse_cells(text, f"{path}, line {number}")
            label = cells[name] if name is not None and name < len(cells) else ""
            yield _csv_row(cells, label, columns, number, f"{path}, line {number}")
        except TableError as error:
            yield TableRow(number, label, error=str(error))


def _without_spikes(rows: Iterator[TableRow], path: Path, columns: Columns) -> Iterator[TableRow]:
    """Reject values beyond 0 and 1 that no movement leads to.

    Apps overshoot at the end of a movement. A value that is beyond in one row alone, with both rows around it at rest,
    is a damaged number. Gaze is left alone: it is computed from the eyes' angles, and eyes do jump.
    """
    before: np.ndarray | None = None
    waiting: TableRow | None = None
    for row in chain(rows, [None]):
        after = None if row is None else row.coefficients
        if waiting is not None:
            around = [values for values in (before, after) if values is not None]
            yield _checked_spike(waiting, around, path, columns)
            before = waiting.coefficients
        waiting = row


def _checked_spike(row: TableRow, around: Sequence[np.ndarray], path: Path, columns: Columns) -> TableRow:
    if row.live_link is None or not row.outside or not around:
        return row
    values = row.live_link.coefficients
    for index in np.flatnonzero((values < -_SMALL_OVERSHOOT) | (values > 1 + _SMALL_OVERSHOOT)).tolist():
        if index not in _GAZE and all(abs(other[index] - values[index]) > _MOVEMENT for other in around):
            where = columns.where(columns.actions[index], f"{path}, line {row.line}")
            next_to = " and ".join(f"{other[index]:.2g}" for other in around)
            return TableRow(
                row.line,
                row.label,
                error=f"{where}: {values[index]:g} is outside 0 to 1, next to {next_to}. "
                "Correct the value or remove the row.",
            )
    return row


def _csv_row(cells: list[str], label: str, columns: Columns, number: int, at: str) -> TableRow:
    if cells == [""]:
        raise TableError(f"{at}: an empty line. Remove it.")
    width = len(columns.header)
    if len(cells) > width and not any(cell.strip() for cell in cells[width:]):
        cells = cells[:width]  # commas at the end
    if columns.is_recording and _has_lost_face(cells, columns):
        return TableRow(number, label, error=f"{at}: no face. The app had lost it.", lost=True)
    if len(cells) != width:
        what = "a short row" if len(cells) < width else "a long row"
        raise TableError(f"{at}: {what}, {len(cells)} cells where the header has {width}. Export the file again.")
    if not columns.is_recording and not any(cells[column].strip() for column in columns.actions):
        raise TableError(f"{at}: no coefficients: the prediction of this picture failed. Repeat it or remove the row.")
    recorded = pose = None
    if columns.is_recording:
        recorded = live_link.parse_row(cells, at, columns)
        values = recorded.coefficients.tolist()
    else:
        values = [csv_lines.parse_number(cells[column], columns.where(column, at)) for column in columns.actions]
        if all(column is not None and cells[column].strip() for column in columns.pose):
            pose = live_link.parse_pose(cells, at, columns)
    for column, value in zip(columns.actions, values, strict=True):
        if not -OVERSHOOT <= value <= 1 + OVERSHOOT:
            _check_range(value, columns.where(column, at))
    row = TableRow(number, label, _vector(values), live_link=recorded, pose=pose)
    outside = _outside(values)
    return replace(row, outside=outside) if outside else row


def _has_lost_face(cells: Sequence[str], columns: Columns) -> bool:
    """Whether the app counted no coefficients; such a row may end there, as its network packets do."""
    if columns.count is None or columns.count >= len(cells):
        return False
    return re.fullmatch(r"\s*0+(\.0*)?\s*", cells[columns.count]) is not None


def _check_range(value: float, at: str) -> None:
    if not -OVERSHOOT <= value <= 1 + OVERSHOOT:
        raise TableError(f"{at}: {value:g} is outside 0 to 1. Correct the value or remove the row.")


def _outside(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(value for value in values if not -_ROUNDING <= value <= 1 + _ROUNDING)


def _vector(values: Sequence[float]) -> np.ndarray:
    return np.clip(np.array(values, dtype=np.float32), 0.0, 1.0) + np.float32(0.0)


def _reject_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("duplicate key")
    return out


def _read_jsonl_rows(path: Path) -> Iterator[TableRow]:
    for line, row, error in read_objects(path):
        yield TableRow(line, "", error=error) if row is None else parse_row(row, path, line)


def parse_row(row: dict[str, Any], path: Path, line: int) -> TableRow:
    """Parse an object of our JSONL, from ``read_objects``; an invalid one has ``error`` set."""
    label = row.get("image")
    label = label if isinstance(label, str) else ""
    try:
        return _json_row(row, label, line, f"{path}, line {line}")
    except TableError as error:
        # A frame of a video without a face, as predict writes it.
        lost = row.get("status") == "no_face" and isinstance(row.get("timecode"), str)
        return TableRow(line, label, error=str(error), lost=lost)


def _json_row(row: dict[str, Any], label: str, line: int, at: str) -> TableRow:
    if row.get("status", "ok") != "ok":
        why = row["reason"] if isinstance(row.get("reason"), str) else "Repeat the prediction or remove the row."
        raise TableError(f"{at}: this row failed ({row['status']}). {why}")
    values = row.get("coefficients")
    if not isinstance(values, dict):
        raise TableError(f'{at}: no "coefficients" object. Give a JSONL file from predict, parse or describe.')
    if values.keys() != set(arkit.NAMES):
        odd = min(values.keys() ^ set(arkit.NAMES))
        what = "missing from" if odd in arkit.INDEX else "unknown in"
        raise TableError(f'{at}: {quote(odd)} is {what} "coefficients". It must have exactly the 52 action names.')
    for name, value in values.items():
        _check_range(_json_number(value, f"{at}, {name}"), f"{at}, {name}")
    try:
        analysis = None if row.get("analysis") is None else Analysis.from_dict(row["analysis"])
    except ValueError as error:
        raise TableError(f"{at}: {error}. Correct the analysis or set it to null.") from error
    box = row.get("box")
    if box is not None:
        if not isinstance(box, list) or len(box) != 4:
            raise TableError(f"{at}: the box is not four numbers. Correct it or set it to null.")
        x0, y0, x1, y1 = (_json_number(value, f"{at}, box") for value in box)
        box = x0, y0, x1, y1
    numbers = [values[name] for name in arkit.NAMES]
    return TableRow(line, label, _vector(numbers), analysis, box, outside=_outside(numbers))


def _json_number(value: object, at: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise TableError(f"{at}: {quote(str(value))} is not a number. Correct it or remove the row.")
    return float(value)
