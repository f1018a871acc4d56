"""Tables as Markdown and HTML, and self-contained HTML pages.

A page is one file without scripts that loads nothing external (its content security policy forbids it), so it can be
mailed, archived and opened offline. All inserted text is escaped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

from semanticface import __version__, assets
from semanticface.utils.files import atomic_open


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a header row; the first column names the rows.

    Attributes:
        head: cells of the header row.
        rows: cells of each row, as many as in ``head``.
        caption: one sentence.
        folded: on a page, collapsed until the caption is clicked.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    folded: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"a row of {len(row)} cells under a header of {len(self.head)}: {list(row)}")

    def markdown(self) -> str:
        """Return the table as Markdown, below its caption."""
        lines = [self.head, [":--", *["--:"] * (len(self.head) - 1)], *self.rows]
        table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        return f"{self.caption}\n\n{table}" if self.caption else table

    def html(self) -> Iterator[str]:
        """Yield the table as HTML with the classes of ``report.css``."""
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
class TableSection:
    """A page section of tables in one card, with an optional introductory sentence."""

    title: str
    tables: Sequence[Table]
    intro: str = ""

    def html(self) -> Iterator[str]:
        """Yield the card."""
        yield '<div class="card">'
        for table in self.tables:
            yield from table.html()
        yield "</div>\n"


class Section(Protocol):
    """A page section: heading, optional introductory sentence, content."""

    @property
    def title(self) -> str: ...
    @property
    def intro(self) -> str: ...
    def html(self) -> Iterator[str]: ...


def write_page(
    path: str | os.PathLike[str],
    title: str,
    sections: Iterable[Section],
    *,
    subtitle: str = "",
    recipe: Mapping[str, str] | None = None,
) -> None:
    """Write a page atomically.

    Args:
        path: the HTML file.
        title: heading and window title.
        sections: in order.
        subtitle: a sentence under the heading.
        recipe: facts by name at the top of the page, such as model, dataset and command.
    """
    facts = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in (recipe or {}).items())
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    with atomic_open(path, errors="backslashreplace") as file:
        file.write(
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(title)}</title>\n<style>\n{assets.path('report.css').read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
            f'<header><p class="name">SemanticFace</p><h1>{escape(title)}</h1>'
            + (f"<p>{escape(subtitle)}</p>" if subtitle else "")
            + (f'<dl class="recipe">{facts}</dl>' if facts else "")
            + "</header>\n<main>\n"
        )
        for section in sections:
            intro = f'<p class="quiet">{escape(section.intro)}</p>' if section.intro else ""
            file.write(f"<section>\n<h2>{escape(section.title)}</h2>{intro}\n")
            file.writelines(section.html())
            file.write("</section>\n")
        file.write(f"</main>\n<footer><p>Made by SemanticFace {escape(__version__)}.</p></footer>\n</body>\n</html>\n")
