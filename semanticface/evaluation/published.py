"""Published figures: the benchmark's results as tables, and the places in documents that show them.

A document shows a figure or a table between two marks, which readers do not see:

    <!-- benchmark:summary -->
    …
    <!-- /benchmark -->

``fill`` writes what stands between marks anew from the results, and a test in this repository compares: no figure of
the benchmark can be in a document unless it is in the committed results. What can be named:

* ``summary``: one row a set; ``tables``: every figure of every set with its interval; ``how``: how they were made;
* ``readout``: what reading the median or the mean gains, and what the intervals hold;
* ``actions KEY``: correlation and mean error of each action in a set;
* a figure that the benchmark ends with, such as ``photo_corr``, which may stand in a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semanticface import arkit
from semanticface.errors import ConfigError
from semanticface.evaluation.benchmark import MODEL, PEER, SETS
from semanticface.evaluation.metrics import BASELINES, FIGURES, Figure
from semanticface.utils.html import Table

Results = Mapping[str, Any]

_MARKED = re.compile(r"(<!-- benchmark:(.*?) -->)(.*?)(<!-- /benchmark -->)", re.DOTALL)
_BY_KEY = {figure.key: figure for figure in FIGURES}
_SCOPES = {
    "all": "All {actions} actions, all {pictures} pictures.",
    "shared": "The {actions} actions that MediaPipe has, all {pictures} pictures.",
    "found": "{actions} actions, the {pictures} pictures in which every reader finds a face.",
}
NONE = "–"


def names(results: Results) -> dict[str, str]:
    """Return how readers are called, by key, in the order of their columns."""
    return {MODEL: results["recipe"]["model"], PEER: "MediaPipe"} | dict(BASELINES)


def summary(results: Results) -> Table:
    """Return one row a set: correlation, mean error, words and faces found, of model, peer and constants."""
    called = names(results)
    peers = [PEER] if any(PEER in found["answered"] for found in results["sets"].values()) else []
    readers = [(MODEL, "all"), *((peer, "shared") for peer in peers)]
    both = ", ".join(called[key] for key, _ in readers)
    head = ["pictures", *(f"correlation ↑ {called[key]}" for key, _ in readers)]
    head += [f"MAE ↓ {called[key]}" for key, _ in readers]
    head += ["MAE constant mean, median", "words true ↑", f"faces found ↑ {both}"]
    rows = []
    for name, found in results["sets"].items():

        def cell(key: str, scope: str, figure: str, found: Results = found, interval: bool = False) -> str:
            return estimate_text(_BY_KEY[figure], found["scopes"][scope]["figures"][key].get(figure), interval=interval)

        row = [name, *(cell(key, scope, "correlation", interval=True) for key, scope in readers)]
        row += [cell(key, scope, "mae") for key, scope in readers]
        row.append(", ".join(cell(key, "all", "mae") for key, _ in BASELINES))
        row.append(cell(MODEL, "all", "agreement_true"))
        row.append(", ".join(cell(key, scope, "valid_share") for key, scope in readers))
        rows.append(row)
    return Table(head, rows)


def scope_tables(results: Results, name: str) -> list[Table]:
    """Return the figures of one set with their intervals, a table for each scope."""
    out = []
    called = names(results)
    for scope, found in results["sets"][name]["scopes"].items():
        readers = [key for key in called if key in found["figures"]]
        rows = []
        for figure in FIGURES:
            values = [found["figures"][key].get(figure.key) for key in readers]
            if any(value is not None for value in values):
                cells = [estimate_text(figure, value, interval=True) for value in values]
                rows.append([f"{figure.label} {figure.arrow}", *cells])
        caption = _SCOPES[scope].format(**found)
        if "lead" in found:
            leads = [f"{key} {signed_text(found['lead'][key])}" for key in ("correlation", "mae")]
            caption += f" {called[MODEL]} less MediaPipe: {', '.join(leads)}."
        out.append(Table(["figure", *[called[key] for key in readers]], rows, caption))
    return out


def actions_table(results: Results, name: str) -> Table:
    """Return correlation and mean error of each action in one set, of every reader."""
    called, found = names(results), results["sets"][name]["per_action"]
    columns = [(key, "correlation") for key in (MODEL, PEER) if key in found]
    columns += [(key, "mae") for key in called if key in found]
    head = [f"{called[key]}: {'correlation' if figure == 'correlation' else 'MAE'}" for key, figure in columns]
    rows = [
        [action, *(_BY_KEY[figure].text(found[key].get(action, {}).get(figure)) for key, figure in columns)]
        for action in arkit.NAMES
    ]
    return Table(["action", *head], rows, f"{name}: each action, all pictures.", folded=True)


def readout_table(results: Results) -> Table:
    """Return what the model's distributions of the numbers are worth: readouts against each other, and intervals."""
    ways = ("greedy", "median", "mean")
    head = ["pictures", "correlation ↑", "MAE ↓", "median below likeliest", "RMS error ↓", "mean below likeliest"]
    rows = []
    for name, result in results["sets"].items():
        found = result.get("readout")
        if found is not None:
            cells = [
                ", ".join(_number(found[way][figure]) for way in ways) for figure in ("correlation", "mae", "rmse")
            ]
            cells.insert(2, _percent(found["median_mae_gain"]))
            cells += [_percent(found["mean_rmse_gain"]), _percent(found["interval_coverage"])]
            rows.append([name, *cells, _number(found["interval_width"])])
    caption = (
        "Numbers read in three ways off the same distributions: the likeliest, the median, the mean. And their 80 % "
        "intervals, where a number is in doubt."
    )
    return Table([*head, "intervals hold", "their width ↓"], rows, caption)


def how(results: Results) -> str:
    """Return in a few sentences what the figures rest on."""
    recipe, sets = results["recipe"], results["sets"]
    pictures = sorted({found["pictures"] for found in sets.values()})
    amount = str(pictures[0]) if len(pictures) == 1 else f"{pictures[0]} to {pictures[-1]}"
    people = min(found["people"] for found in sets.values())
    told = "; ".join(f"*{key}*: {text}" for key, text in SETS.items() if key in sets)
    out = (
        f"`{recipe['command']}`: {amount} pictures a set of at least {people} people who are in no training set, found "
        f"and cropped by the package. {told}. In brackets: 95 % bootstrap intervals over people. A picture in which a "
        "reader finds no face counts as its own mean answer over the others. The constants always answer the mean or "
        "the median of the distribution that labels are drawn from."
    )
    if "mediapipe" in recipe:
        out += f" MediaPipe {recipe['mediapipe']['version']}, which has no `tongueOut`, is scored on its 51 actions."
    return out


def fill(text: str, results: Results) -> str:
    """Return a document with everything between its marks written anew from the results.

    Raises:
        ConfigError: a mark names what the results do not have.
    """
    return _MARKED.sub(lambda match: match[1] + _content(match[2].strip(), results) + match[4], text)


def documents(root: Path) -> list[Path]:
    """Return the Markdown files of a checkout that show figures between marks: at its top, in docs/ and with models."""
    found = [*root.glob("*.md"), *(root / "docs").rglob("*.md"), *(root / "semanticface" / "assets").rglob("*.md")]
    return sorted(path for path in found if marks(path.read_text(encoding="utf-8")))


def plain(text: str) -> str:
    """Return a sentence without Markdown's marks for code and emphasis."""
    return text.replace("`", "").replace("*", "")


def marks(text: str) -> list[str]:
    """Return what a document shows between marks, by name, in order."""
    return [match[2].strip() for match in _MARKED.finditer(text)]


def outside(text: str) -> str:
    """Return a document without what stands between its marks."""
    return _MARKED.sub("", text)


def _content(what: str, results: Results) -> str:
    kind, _, name = what.partition(" ")
    if what in results["headline"]:
        return _inline(what, results["headline"][what])
    if what == "how":
        return f"\n{how(results)}\n"
    if what == "summary":
        return f"\n{summary(results).markdown()}\n"
    if what == "readout":
        return f"\n{readout_table(results).markdown()}\n"
    if what == "tables":
        parts = [
            f"### {key}\n\n" + "\n\n".join(table.markdown() for table in scope_tables(results, key))
            for key in results["sets"]
        ]
        return "\n" + "\n\n".join(parts) + "\n"
    if kind == "actions" and name in results["sets"]:
        return f"\n{actions_table(results, name).markdown()}\n"
    known = ", ".join(
        ["summary", "tables", "readout", "how", *(f"actions {key}" for key in results["sets"]), *results["headline"]]
    )
    raise ConfigError(f"<!-- benchmark:{what} -->: the results have no such thing. They have {known}.")


def _inline(name: str, value: float | None) -> str:
    if name in ("median_mae_gain", "interval_coverage"):
        return _percent(value)
    return _number(value, 2 if "_corr" in name else 3)


def _number(value: float | None, digits: int = 3) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f} %"


def estimate_text(figure: Figure, value: list[float] | None, *, interval: bool) -> str:
    """Return a figure of a results file, [value, low, high] or None, as tables show it, with its interval if wanted."""
    if value is None:
        return NONE
    middle, low, high = value
    shown = figure.text(middle)
    if not interval or low == high:
        return shown
    ends = (figure.text(end).removesuffix(figure.suffix).removesuffix(" %") for end in (low, high))
    return f"{shown} ({'–'.join(ends)})"


def signed_text(value: list[float] | None) -> str:
    """Return a difference of a results file, [value, low, high] or None, as tables show it."""
    if value is None:
        return NONE
    middle, low, high = (f"{part:+.3f}" for part in value)
    return f"{middle} ({low} to {high})"
