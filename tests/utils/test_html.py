"""Tables as Markdown and HTML."""

import pytest

from semanticface.utils.html import Table, TableSection


def test_markdown_and_html_have_the_same_cells():
    table = Table(["name", "a|b"], [["one", "1 < 2"], ["two", "–"]], "What it is.")
    assert table.markdown() == "What it is.\n\n| name | a\\|b |\n| :-- | --: |\n| one | 1 < 2 |\n| two | – |"
    page = "".join(TableSection("Title", [table]).html())
    assert '<th scope="row">one</th><td>1 &lt; 2</td>' in page
    assert page.index("What it is.") < page.index("<table>")
    folded = "".join(Table(["name"], [], "<b>", folded=True).html())
    assert "<details><summary>&lt;b&gt;</summary>" in folded
    assert folded.rstrip().endswith("</details>")
    assert Table(["name"], []).markdown() == "| name |\n| :-- |"


def test_rows_match_the_header():
    with pytest.raises(ValueError, match="3 cells under a header of 2"):
        Table(["a", "b"], [["1", "2", "3"]])
