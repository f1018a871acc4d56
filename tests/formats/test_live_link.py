"""Live Link rows: digits round-trip, and files equal those of Live Link Face."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semanticface import arkit
from semanticface.errors import TableError
from semanticface.formats import live_link, tables
from semanticface.formats.live_link import LiveLinkRow, format_row, parse_row

digits = st.integers(-(10**10), 10**10 + 10**8).map(lambda n: f"{n / 10**10:.10f}")


@given(values=st.lists(digits, min_size=61, max_size=61))
def test_a_recorded_row_round_trips_exactly(values):
    cells = ["13:13:04:31.652", "61", *values]
    assert format_row(parse_row(cells, "t")) == ",".join(cells)


def test_a_file_in_the_apps_format(tmp_path):
    rng = np.random.default_rng(4)
    rows = [
        LiveLinkRow(f"13:13:04:{frame:02d}.651", rng.uniform(0, 1.003, 52), rng.uniform(-0.6, 0.6, 9))
        for frame in range(5)
    ]
    path = tmp_path / "take.csv"
    live_link.write(path, rows)
    data = path.read_bytes()
    header, *lines = data.decode().split("\n")
    assert tuple(header.split(",")) == arkit.LIVE_LINK_COLUMNS
    assert lines.pop() == "" and b"\r" not in data
    again = [format_row(parse_row(next(csv.reader([line])), "t")) for line in lines]
    assert again == lines
    assert lines[0].startswith(f"13:13:04:00.651,61,{rows[0].coefficients[0]:.10f},")
    read = list(tables.read_coefficients(path))
    assert [row.label for row in read] == [row.timecode for row in rows]
    assert np.allclose(read[2].coefficients, np.clip(rows[2].coefficients, 0, 1))


def test_left_and_right_keep_their_columns():
    values = np.zeros(52)
    values[arkit.INDEX["jawRight"]] = 0.25
    cells = format_row(LiveLinkRow("00:00:00:00.000", values, np.zeros(9))).split(",")
    assert cells[arkit.LIVE_LINK_COLUMNS.index("JawRight")] == "0.2500000000"
    assert sum(float(cell) for cell in cells[2:]) == 0.25


@pytest.mark.parametrize(
    ("column", "cell", "word"), [(1, "many", "column 2 .BlendShapeCount."), (7, "x", "column 8 .EyeSquintLeft.")]
)
def test_invalid_cells_are_named(column, cell, word):
    cells = ["13:13:04:31.652", "61", *["0"] * 61]
    cells[column] = cell
    with pytest.raises(TableError, match=word):
        parse_row(cells, "take.csv, line 2")
