"""Parse and format rows of a Live Link Face CSV, 63 columns (``arkit.LIVE_LINK_COLUMNS``); others are read by name.

``format_row(parse_row(...))`` reproduces recorded rows digit by digit.

Unreal Engine's importer assumes 30 fps, or 60 if any FF exceeds 30; it stops at the first row of a wrong length; and it
takes the subject's name from file names like ``<Slate>_<Take>_<Subject>.csv``. So a frame without an answer has no row:
its timecode is missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from semanticface import arkit
from semanticface.formats.columns import LIVE_LINK, Columns
from semanticface.utils.csv_lines import parse_number
from semanticface.utils.files import atomic_open

HEADER = ",".join(arkit.LIVE_LINK_COLUMNS)
N_VALUES = len(arkit.LIVE_LINK_COLUMNS) - 2
"""61, the value of the second column: 52 coefficients, and three rotations of the head and of each eye."""


@dataclass(frozen=True, slots=True, eq=False)
class LiveLinkRow:
    """One row of the file.

    Attributes:
        timecode: ``HH:MM:SS:FF.fff``.
        coefficients: float64[52] in the project's order, unclipped.
        pose: float64[9], ``arkit.POSE_NAMES``; all 0 if not recorded.
    """

    timecode: str
    coefficients: np.ndarray
    pose: np.ndarray


def parse_row(cells: Sequence[str], at: str, columns: Columns = LIVE_LINK) -> LiveLinkRow:
    """Parse the cells of a row.

    Args:
        cells: one string per column.
        at: file and line, for errors.
        columns: of the file.

    Raises:
        TableError: a cell is not a finite number. The count may be any: apps write 51, 52, 61 or 61.0.
    """
    assert columns.timecode is not None
    if columns.count is not None:
        parse_number(cells[columns.count], columns.where(columns.count, at))
    values = [parse_number(cells[column], columns.where(column, at)) for column in columns.actions]
    return LiveLinkRow(cells[columns.timecode].strip(), np.array(values), parse_pose(cells, at, columns))


def parse_pose(cells: Sequence[str], at: str, columns: Columns) -> np.ndarray:
    """Return the rotations of a row, float64[9], ``arkit.POSE_NAMES``; 0 where a column or its cell is empty."""
    there = [None if column is None or not cells[column].strip() else column for column in columns.pose]
    return np.array(
        [0.0 if column is None else parse_number(cells[column], columns.where(column, at)) for column in there]
    )


def format_row(row: LiveLinkRow) -> str:
    """Return a row as a CSV line without line end; ten decimals, like the app."""
    values = np.concatenate([row.coefficients, row.pose]).tolist()
    return ",".join([row.timecode, str(N_VALUES), *(f"{value:.10f}" for value in values)])


def write(path: str | os.PathLike[str], rows: Iterable[LiveLinkRow]) -> None:
    """Write a take atomically."""
    with atomic_open(path, newline="") as file:
        file.write(HEADER + "\n")
        file.writelines(format_row(row) + "\n" for row in rows)
