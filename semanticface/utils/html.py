"""Tables for readers: the same cells as Markdown and as HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a heading row; the first column names the rows.

    Attributes:
        head: texts of the heading row.
        rows: texts, as many in each row as in ``head``.
        caption: a sentence on what it shows.
        folded: on a page, shown only when the caption is clicked.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    folded: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"a row of {len(row)} cells under a head of {len(self.head)}: {list(row)}")

    def markdown(self) -> str:
        """Return the table in Markdown, under its caption."""
        lines = [self.head, [":--", *["--:"] * (len(self.head) - 1)], *self.rows]
        table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        return f"{self.caption}\n\n{table}" if self.caption else table

    def html(self) -> Iterator[str]:
        """Yield the table as HTML in the classes of the report's style sheet; every text is escaped."""
        head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in self.head)
        table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n'
        if self.folded:
            yield f"<details><summary>{escape(self.caption)}</summary>"
        elif self.caption:
            yield f'<p class="quiet checked">{escape(self.caption)}</p>\n'
        yield table
        for first, *rest in self.rows:
            cells = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
            yield f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>\n'
        yield "</tbody></table></div>\n"
        if self.folded:
            yield "</details>\n"


@dataclass(frozen=True, slots=True)
class Tables:
    """A section of a report: tables in one card under a heading, with an optional sentence of introduction."""

    title: str
    tables: Sequence[Table]
    intro: str = ""

    def html(self) -> Iterator[str]:
        """Yield the card."""
        yield '<div class="card">'
        for table in self.tables:
            yield from table.html()
        yield "</div>\n"
