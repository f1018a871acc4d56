"""Helper: the tables of docs/formats.md, for tests that compare files with them."""

import re
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")


def listed(heading: str, first: str = "field") -> list[str]:
    """Return the names in a section's table whose first column is called ``first``."""
    (section,) = re.findall(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    (table,) = re.findall(rf"^\| {re.escape(first)} \| what \|\n\|---\|---\|\n((?:\|.*\n)+)", section, re.MULTILINE)
    names = []
    for line in table.splitlines():
        name = re.match(r"\| `([^`]+)` \|", line)
        assert name, line
        names.append(name[1])
    return names
