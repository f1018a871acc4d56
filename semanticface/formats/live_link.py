"""Parse and format rows of a Live Link Face CSV, 63 columns (``arkit.LIVE_LINK_COLUMNS``).

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
from semanticface.errors import TableError
from semanticface.utils.csv_lines import parse_number, quote
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


def parse_row(cells: Sequence[str], at: str, header: Sequence[str] = arkit.LIVE_LINK_COLUMNS) -> LiveLinkRow:
    """Parse the 63 cells of a row; a ``TableError`` for a count other than 61 or a cell that is not a finite number.

    Args:
        cells: one string per column.
        at: file and line, for errors.
        header: the file's own column names, for errors.
    """
    if cells[1].strip() != str(N_VALUES):
        raise TableError(f"{at}, column 2: {header[1]} is {quote(cells[1])}, expected {N_VALUES}. Remove the row.")
    values = np.array(
        [
            parse_number(cell, f"{at}, column {column} ({header[column - 1]})")
            for column, cell in enumerate(cells[2:], start=3)
        ]
    )
    return LiveLinkRow(cells[0], values[: arkit.N_ACTIONS], values[arkit.N_ACTIONS :])


def format_row(row: LiveLinkRow) -> str:
    """Return a row as a CSV line without line end; ten decimals, like the app."""
    values = np.concatenate([row.coefficients, row.pose]).tolist()
    return ",".join([row.timecode, str(N_VALUES), *(f"{value:.10f}" for value in values)])


def write(path: str | os.PathLike[str], rows: Iterable[LiveLinkRow]) -> None:
    """Write a take atomically."""
    with atomic_open(path, newline="") as file:
        file.write(HEADER + "\n")
        file.writelines(format_row(row) + "\n" for row in rows)
