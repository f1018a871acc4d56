"""Coefficient tables: CSV and JSONL, read strictly and written atomically.

Three formats are read, distinguished by header or suffix:

* Live Link Face CSV: 63 columns, ``arkit.LIVE_LINK_COLUMNS`` (``BlendshapeCount`` is accepted for the second).
* Our CSV: ``image``, then the 52 camelCase action names in the project's order.
* Our JSONL: one object per line with ``image``, ``status``, ``coefficients``, ``analysis``, as written by ``predict``.

Other files raise ``TableError``. An invalid row is returned in order with ``error`` set instead, so that later rows
keep their numbers.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from semanticface import arkit
from semanticface.errors import SemanticFaceError, TableError
from semanticface.formats import live_link
from semanticface.formats.live_link import LiveLinkRow
from semanticface.semantics.analysis import Analysis
from semanticface.utils import csv_lines
from semanticface.utils.csv_lines import quote
from semanticface.utils.files import atomic_open

COLUMNS: tuple[str, ...] = ("image", *arkit.NAMES)
"""The header of our own CSV."""
COLUMNS_WITH_POSE: tuple[str, ...] = (*COLUMNS, *arkit.POSE_NAMES)
"""The header where head and eye rotations are known."""
SUFFIXES = (".csv", ".jsonl")
MAX_ROWS = 1_000_000
"""More than four hours of capture at 60 rows per second."""
MAX_CSV_LINE = 2**16
MAX_JSON_LINE = 2**20
OVERSHOOT = 0.02
"""Tolerance outside [0, 1], clipped: capture apps occasionally write 1.0033."""


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
    """

    line: int
    label: str
    coefficients: np.ndarray | None = None
    analysis: Analysis | None = None
    box: tuple[float, float, float, float] | None = None
    live_link: LiveLinkRow | None = None
    pose: np.ndarray | None = None
    error: str = ""


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


def read_coefficients(path: str | os.PathLike[str]) -> Iterator[TableRow]:
    """Yield the rows of a Live Link CSV, our CSV or our JSONL, including invalid ones.

    Raises:
        TableError: the file is missing, empty, not a coefficient table, or has more than ``MAX_ROWS`` rows.
    """
    path = Path(path)
    return _read_jsonl_rows(path) if path.suffix.lower() == ".jsonl" else _read_csv_rows(path)


def read_objects(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    """Yield ``(line, object or None, error)`` for each line of a JSONL file.

    Strict: no NaN, no Infinity, no duplicate keys. Blank lines are errors, except at the end.

    Raises:
        TableError: the file is missing, empty, or has more than ``MAX_ROWS`` lines.
    """
    path = Path(path)
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


def _read_csv_rows(path: Path) -> Iterator[TableRow]:
    text_lines = csv_lines.read_lines(path, max_line_bytes=MAX_CSV_LINE, max_lines=MAX_ROWS)
    number, text, problem = next(text_lines)
    if problem:
        raise TableError(problem)
    header = csv_lines.parse_cells(text, f"{path}, line {number}")
    is_live_link = header[0].lower() == "timecode"
    _check_header(path, header, is_live_link)
    for number, text, problem in text_lines:
        if problem:
            yield TableRow(number, "", error=problem)
            continue
        label = ""
        try:
            cells = csv_lines.parse_cells(text, f"{path}, line {number}")
            label = cells[0]
            yield _csv_row(cells, header, is_live_link, number, f"{path}, line {number}")
        except TableError as error:
            yield TableRow(number, label, error=str(error))


def _check_header(path: Path, header: Sequence[str], is_live_link: bool) -> None:
    own = COLUMNS_WITH_POSE if len(header) > len(COLUMNS) else COLUMNS
    expected = arkit.LIVE_LINK_COLUMNS if is_live_link else own
    kind = "a Live Link Face export" if is_live_link else "a table of image and 52 actions"
    found = list(header)
    if is_live_link and len(found) > 1 and found[1] == "BlendshapeCount":
        found[1] = "BlendShapeCount"
    if tuple(found) == tuple(expected):
        return
    if not is_live_link and found[0] != "image":
        hint = " Its cells seem to be separated by ';': save it with commas." if ";" in found[0] else ""
        raise TableError(
            f"{path}, line 1: the header starts with {quote(found[0])}, which is not a coefficient table.{hint} "
            "Give a Live Link Face CSV (63 columns) or a CSV of image and the 52 camelCase action names."
        )
    for column, (name, wanted) in enumerate(zip(found, expected, strict=False), start=1):
        if name != wanted:
            raise TableError(
                f"{path}, line 1: column {column} is {quote(name)}, {kind} has {wanted!r} there. "
                "Restore the exact header."
            )
    raise TableError(f"{path}, line 1: {len(found)} columns, {kind} has {len(expected)}. Restore the exact header.")


def _csv_row(cells: Sequence[str], header: Sequence[str], is_live_link: bool, number: int, at: str) -> TableRow:
    if cells == [""]:
        raise TableError(f"{at}: an empty line. Remove it.")
    if len(cells) != len(header):
        what = "a short row" if len(cells) < len(header) else "a long row"
        raise TableError(f"{at}: {what}, {len(cells)} cells where the header has {len(header)}. Export the file again.")
    if not is_live_link and not any(cell.strip() for cell in cells[1:]):
        raise TableError(f"{at}: no coefficients: the prediction of this picture failed. Repeat it or remove the row.")
    recorded = live_link.parse_row(cells, at, header) if is_live_link else None
    if recorded is not None:
        first, values, pose = 3, recorded.coefficients.tolist(), None
    else:
        first = 2
        values = [
            csv_lines.parse_number(cell, f"{at}, column {column} ({header[column - 1]})")
            for column, cell in enumerate(cells[1 : len(COLUMNS)], start=2)
        ]
        rotations = [
            csv_lines.parse_number(cell, f"{at}, column {column} ({header[column - 1]})")
            for column, cell in enumerate(cells[len(COLUMNS) :], start=len(COLUMNS) + 1)
            if cell.strip()
        ]
        pose = np.array(rotations, dtype=np.float64) if len(rotations) == arkit.N_POSE else None
    for column, value in enumerate(values, start=first):
        _check_range(value, f"{at}, column {column} ({header[column - 1]})")
    return TableRow(number, cells[0], _vector(values), live_link=recorded, pose=pose)


def _check_range(value: float, at: str) -> None:
    if not -OVERSHOOT <= value <= 1 + OVERSHOOT:
        raise TableError(f"{at}: {value:g} is outside 0 to 1. Correct the value or remove the row.")


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
        return TableRow(line, label, error=str(error))


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
    return TableRow(line, label, _vector([values[name] for name in arkit.NAMES]), analysis, box)


def _json_number(value: object, at: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise TableError(f"{at}: {quote(str(value))} is not a number. Correct it or remove the row.")
    return float(value)
