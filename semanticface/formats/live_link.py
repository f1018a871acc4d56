"""Live Link Face CSV, 63 columns: rows to numbers and back, both by the one header in ``arkit.LIVE_LINK_COLUMNS``.

Whatever an app recorded comes out of ``format_row(parse_row(...))`` as it went in, digit by digit.

What Unreal Engine's importer makes of such a file: it takes the rate for 30 frames a second unless some FF exceeds 30,
then for 60; it stops at the first row that is short or long; and it takes the subject's name from a file name of the
form ``<Slate>_<Take>_<Subject>.csv``. So a frame without an answer has no row here: its timecode is missing.
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
"""61: the 52 coefficients, then three rotations of the head and of each eye. It stands in the second column."""


@dataclass(frozen=True, slots=True, eq=False)
class LiveLinkRow:
    """One row as the file has it.

    Attributes:
        timecode: ``HH:MM:SS:FF.fff``.
        coefficients: float64[52] in the project's order, unclipped.
        pose: float64[9], ``arkit.POSE_NAMES``; all 0 where rotations were not recorded.
    """

    timecode: str
    coefficients: np.ndarray
    pose: np.ndarray


def parse_row(cells: Sequence[str], at: str, header: Sequence[str] = arkit.LIVE_LINK_COLUMNS) -> LiveLinkRow:
    """Read the 63 cells of a row.

    Args:
        cells: one string a column.
        at: file and line, for errors.
        header: the file's own spelling of the columns, for errors.

    Raises:
        TableError: the second cell is not 61, or a cell is not a finite number.
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
    """Write a row as its line of CSV, without the line's end: ten decimals, as the app has them."""
    values = np.concatenate([row.coefficients, row.pose]).tolist()
    return ",".join([row.timecode, str(N_VALUES), *(f"{value:.10f}" for value in values)])


def write(path: str | os.PathLike[str], rows: Iterable[LiveLinkRow]) -> None:
    """Write a take; the file appears only when it is complete.

    Raises:
        SemanticFaceError: the system refuses to write.
    """
    with atomic_open(path, newline="") as file:
        file.write(HEADER + "\n")
        file.writelines(format_row(row) + "\n" for row in rows)
