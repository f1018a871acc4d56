"""Strict, bounded reading of text files by line and CSV lines by cell; every error has file, line and column."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path

from semanticface.errors import TableError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def read_lines(path: Path, *, max_line_bytes: int, max_lines: int) -> Iterator[tuple[int, str, str]]:
    """Yield ``(line number, text without line end, problem)``; trailing blank lines are dropped.

    Args:
        path: UTF-8 text, with or without a byte order mark.
        max_line_bytes: longer lines are yielded with a problem.
        max_lines: more lines are an error.

    Raises:
        TableError: the file is missing, empty, or has more than ``max_lines`` lines.
    """
    blank: list[int] = []
    number = 0
    try:
        with path.open("rb") as file:
            while raw := file.readline(max_line_bytes + 1):
                number += 1
                if number > max_lines:
                    raise TableError(f"{path}: more than {max_lines:,} lines. Split the file.")
                too_long = len(raw) > max_line_bytes
                while too_long and not raw.endswith(b"\n") and (more := file.readline(max_line_bytes + 1)):
                    raw = more
                if not too_long and not raw.strip():
                    blank.append(number)
                    continue
                yield from ((line, "", "") for line in blank)
                blank.clear()
                yield number, *_decode(raw, f"{path}, line {number}", max_line_bytes, too_long, first=number == 1)
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}. Check the path.") from error
    if number == len(blank):
        raise TableError(f"{path}: the file is empty. Copy or export it again.")


def _decode(raw: bytes, at: str, limit: int, too_long: bool, *, first: bool) -> tuple[str, str]:
    if too_long:
        return "", f"{at}: longer than {limit // 1024} KiB. Is this the right file?"
    try:
        return raw.decode("utf-8-sig" if first else "utf-8").rstrip("\r\n"), ""
    except UnicodeDecodeError:
        return "", f"{at}: not UTF-8 text. Save the file again as UTF-8."


def parse_cells(text: str, at: str) -> list[str]:
    """Return the cells of one CSV line; a TableError that starts with ``at`` if quotation marks do not match."""
    # One line is one row: an unclosed quote must not swallow the rows after it.
    try:
        (row,) = csv.reader([text], strict=True) if text.strip() else ([""],)
    except csv.Error as error:
        raise TableError(f"{at}: not a CSV row ({error}). Close every quotation mark on its line.") from error
    return row


def parse_number(cell: str, at: str) -> float:
    """Return a finite number from a cell, or raise a TableError that starts with ``at``."""
    # float() alone would also accept "nan", "inf" and "1_0".
    if not _NUMBER.fullmatch(cell.strip()) or not math.isfinite(value := float(cell)):
        raise TableError(f"{at}: {quote(cell)} is not a number. Correct the cell or remove the row.")
    return value


def quote(text: str) -> str:
    """Return the text in quotation marks, truncated for messages."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
