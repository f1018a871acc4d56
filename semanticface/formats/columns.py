"""Columns of a CSV of coefficients, found by name: apps differ in their order, spelling and number.

Names match in any spelling (``jawOpen``, ``JawOpen``, ``jaw_open``, ``eyeBlink_L``). The 52 actions must each be there
once; the timecode, Live Link's count, ``image`` and the nine rotations are optional; other columns are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from semanticface import arkit
from semanticface.errors import TableError
from semanticface.utils.csv_lines import quote
from semanticface.utils.listing import listed

_POSE_KEY = {name.lower(): name for name in arkit.POSE_NAMES}
_OTHER = {"timecode": "Timecode", "blendshapecount": "BlendShapeCount", "image": "image"}


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the columns of a table are, from 0.

    Attributes:
        header: their names in the file.
        timecode: or None.
        count: Live Link's ``BlendShapeCount``, or None.
        image: or None.
        actions: of the 52, in the project's order.
        pose: of ``arkit.POSE_NAMES``; None for each that is not there.
        unknown: all others.
    """

    header: tuple[str, ...]
    timecode: int | None
    count: int | None
    image: int | None
    actions: tuple[int, ...]
    pose: tuple[int | None, ...]
    unknown: tuple[int, ...]

    @property
    def is_recording(self) -> bool:
        """Whether rows have a timecode, as Live Link's have."""
        return self.timecode is not None

    def where(self, column: int, at: str) -> str:
        """Return the place of a cell, for messages: ``at``, the column's number from 1 and its name."""
        return f"{at}, column {column + 1} ({self.header[column]})"


def find_columns(header: Sequence[str], at: str) -> Columns:
    """Find the columns of a table by their names.

    Args:
        header: the cells of the first line.
        at: file and line, for errors.

    Raises:
        TableError: it is no table of coefficients, or an action is missing or there twice.
    """
    names = list(header)
    while names and not names[-1].strip():  # a comma at the end of the line
        names.pop()
    places: dict[str, list[int]] = defaultdict(list)
    unknown = []
    for column, text in enumerate(names):
        key = arkit.column_key(text)
        name = arkit.KEY_OF.get(key) or _POSE_KEY.get(key) or _OTHER.get(key)
        if name is None:
            unknown.append(column)
        else:
            places[name].append(column)
    missing = [name for name in arkit.NAMES if name not in places]
    if len(missing) == arkit.N_ACTIONS:
        first = names[0] if names else ""
        hint = " Its cells seem to be separated by ';': save it with commas." if ";" in first else ""
        raise TableError(
            f"{at}: the header starts with {quote(first)}, which is not a coefficient table.{hint} "
            "Give a Live Link Face CSV, or a CSV of image and the 52 ARKit action names."
        )
    for name, columns in places.items():
        if len(columns) > 1:
            numbers = " and ".join(f"{column + 1} ({names[column]})" for column in columns[:2])
            raise TableError(f"{at}: {name} is there twice, in columns {numbers}. Keep one of them.")
    if missing:
        raise TableError(
            f"{at}: no column for {listed(missing)} ({len(missing)} of the {arkit.N_ACTIONS} actions). "
            "Export the file again with all of them."
        )

    def place(name: str) -> int | None:
        return places[name][0] if name in places else None

    return Columns(
        tuple(names),
        place("Timecode"),
        place("BlendShapeCount"),
        place("image"),
        tuple(places[name][0] for name in arkit.NAMES),
        tuple(place(name) for name in arkit.POSE_NAMES),
        tuple(unknown),
    )


LIVE_LINK = find_columns(arkit.LIVE_LINK_COLUMNS, "Live Link Face")
"""The columns as Epic's app writes them."""
