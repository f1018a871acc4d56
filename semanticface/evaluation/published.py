"""Published figures: the benchmark's results as tables, and the marks in documents that show them.

A document shows a figure or a table between two invisible marks:

    <!-- benchmark:summary -->
    …
    <!-- /benchmark -->

``fill`` regenerates the text between marks from the results. A test checks that documents match the committed results.
A mark names one of:

* ``summary``: one row per set; ``tables``: every figure of every set with its interval; ``how``: how they were made;
* ``readout``: the gain of the median and the mean, and the coverage of the intervals;
* ``actions KEY``: correlation and mean error of each action in a set;
* a figure of the benchmark's last output line, such as ``photo_corr``, for use within a sentence.
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
    "found": "{actions} actions, the {pictures} pictures in which every method finds a face.",
}
NONE = "–"


def names(results: Results) -> dict[str, str]:
    """Return the displayed names of the methods by key, in the order of their columns."""
    return {MODEL: results["recipe"]["model"], PEER: "MediaPipe"} | dict(BASELINES)


def summary(results: Results) -> Table:
    """Return one row per set: correlation, mean error, analysis and faces detected, of model, peer and constants."""
    labels = names(results)
    peers = [PEER] if any(PEER in found["answered"] for found in results["sets"].values()) else []
    methods = [(MODEL, "all"), *((peer, "shared") for peer in peers)]
    both = ", ".join(labels[key] for key, _ in methods)
    head = ["pictures", *(f"correlation ↑ {labels[key]}" for key, _ in methods)]
    head += [f"MAE ↓ {labels[key]}" for key, _ in methods]
    head += ["MAE constant mean, median", "analysis correct ↑", f"faces detected ↑ {both}"]
    rows = []
    for name, found in results["sets"].items():

        def cell(key: str, scope: str, figure: str, found: Results = found, interval: bool = False) -> str:
            return estimate_text(_BY_KEY[figure], found["scopes"][scope]["figures"][key].get(figure), interval=interval)

        row = [name, *(cell(key, scope, "correlation", interval=True) for key, scope in methods)]
        row += [cell(key, scope, "mae") for key, scope in methods]
        row.append(", ".join(cell(key, "all", "mae") for key, _ in BASELINES))
        row.append(cell(MODEL, "all", "agreement_true"))
        row.append(", ".join(cell(key, scope, "valid_share") for key, scope in methods))
        rows.append(row)
    return Table(head, rows)


def scope_tables(results: Results, name: str) -> list[Table]:
    """Return the figures of one set with their intervals, one table per scope."""
    out = []
    labels = names(results)
    for scope, found in results["sets"][name]["scopes"].items():
        methods = [key for key in labels if key in found["figures"]]
        rows = []
        for figure in FIGURES:
            values = [found["figures"][key].get(figure.key) for key in methods]
            if any(value is not None for value in values):
                cells = [estimate_text(figure, value, interval=True) for value in values]
                rows.append([f"{figure.label} {figure.arrow}", *cells])
        caption = _SCOPES[scope].format(**found)
        if "lead" in found:
            leads = [f"{key} {signed_text(found['lead'][key])}" for key in ("correlation", "mae")]
            caption += f" {labels[MODEL]} minus MediaPipe: {', '.join(leads)}."
        out.append(Table(["figure", *[labels[key] for key in methods]], rows, caption))
    return out


def actions_table(results: Results, name: str) -> Table:
    """Return correlation and mean error of each action in one set, for every method."""
    labels, found = names(results), results["sets"][name]["per_action"]
    columns = [(key, "correlation") for key in (MODEL, PEER) if key in found]
    columns += [(key, "mae") for key in labels if key in found]
    head = [f"{labels[key]}: {'correlation' if figure == 'correlation' else 'MAE'}" for key, figure in columns]
    rows = [
        [action, *(_BY_KEY[figure].text(found[key].get(action, {}).get(figure)) for key, figure in columns)]
        for action in arkit.NAMES
    ]
    return Table(["action", *head], rows, f"{name}: each action, all pictures.", folded=True)


def readout_table(results: Results) -> Table:
    """Return the figures of the readouts and intervals of the model's distributions."""
    readouts = ("greedy", "median", "mean")
    head = ["pictures", "correlation ↑", "MAE ↓", "MAE gain of the median", "RMS error ↓", "RMS gain of the mean"]
    rows = []
    for name, result in results["sets"].items():
        found = result.get("readout")
        if found is not None:
            cells = [
                ", ".join(_number(found[readout][figure]) for readout in readouts)
                for figure in ("correlation", "mae", "rmse")
            ]
            cells.insert(2, _percent(found["median_mae_gain"]))
            cells += [_percent(found["mean_rmse_gain"]), _percent(found["interval_coverage"])]
            rows.append([name, *cells, _number(found["interval_width"])])
    caption = (
        "Three readouts of the same distributions: greedy, median, mean (gains are over greedy); and their 80 % "
        "intervals, over uncertain numbers."
    )
    return Table([*head, "interval coverage", "interval width ↓"], rows, caption)


def how(results: Results) -> str:
    """Return a few sentences on how the figures were made."""
    recipe, sets = results["recipe"], results["sets"]
    pictures = sorted({found["pictures"] for found in sets.values()})
    amount = str(pictures[0]) if len(pictures) == 1 else f"{pictures[0]} to {pictures[-1]}"
    people = min(found["people"] for found in sets.values())
    shown = "; ".join(f"*{key}*: {text}" for key, text in SETS.items() if key in sets)
    out = (
        f"`{recipe['command']}`: {amount} pictures per set, of at least {people} people who are in no training set; "
        f"faces are detected and cropped by the package. {shown}. In brackets: 95 % bootstrap intervals over people. A "
        "picture in which a method finds no face counts as its own mean answer over the others. The constants always "
        "answer the mean or the median of the distribution that labels are sampled from."
    )
    if "mediapipe" in recipe:
        out += f" MediaPipe {recipe['mediapipe']['version']}, which has no `tongueOut`, is scored on its 51 actions."
    return out


def fill(text: str, results: Results) -> str:
    """Return a document with the text between its marks regenerated from the results."""
    return _MARKED.sub(lambda match: match[1] + _content(match[2].strip(), results) + match[4], text)


def documents(root: Path) -> list[Path]:
    """Return the Markdown files with marks at a checkout's root, in docs/ and in semanticface/assets/."""
    found = [*root.glob("*.md"), *(root / "docs").rglob("*.md"), *(root / "semanticface" / "assets").rglob("*.md")]
    return sorted(path for path in found if marks(path.read_text(encoding="utf-8")))


def plain(text: str) -> str:
    """Remove Markdown's code and emphasis marks."""
    return text.replace("`", "").replace("*", "")


def marks(text: str) -> list[str]:
    """Return the names in a document's marks, in order."""
    return [match[2].strip() for match in _MARKED.finditer(text)]


def outside(text: str) -> str:
    """Return a document without its marks and the text between them."""
    return _MARKED.sub("", text)


def _content(mark: str, results: Results) -> str:
    kind, _, name = mark.partition(" ")
    if mark in results["headline"]:
        return _inline(mark, results["headline"][mark])
    if mark == "how":
        return f"\n{how(results)}\n"
    if mark == "summary":
        return f"\n{summary(results).markdown()}\n"
    if mark == "readout":
        return f"\n{readout_table(results).markdown()}\n"
    if mark == "tables":
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
    raise ConfigError(f"<!-- benchmark:{mark} -->: not in the results. They have {known}.")


def _inline(name: str, value: float | None) -> str:
    if name in ("median_mae_gain", "interval_coverage"):
        return _percent(value)
    return _number(value, 2 if "_corr" in name else 3)


def _number(value: float | None, digits: int = 3) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f} %"


def estimate_text(figure: Figure, value: list[float] | None, *, interval: bool) -> str:
    """Format a figure of a results file, [value, low, high] or None, with its interval if wanted."""
    if value is None:
        return NONE
    middle, low, high = value
    shown = figure.text(middle)
    if not interval or low == high:
        return shown
    ends = (figure.text(end).removesuffix(figure.suffix).removesuffix(" %") for end in (low, high))
    return f"{shown} ({'–'.join(ends)})"


def signed_text(value: list[float] | None) -> str:
    """Format a difference of a results file, [value, low, high] or None."""
    if value is None:
        return NONE
    middle, low, high = (f"{part:+.3f}" for part in value)
    return f"{middle} ({low} to {high})"
