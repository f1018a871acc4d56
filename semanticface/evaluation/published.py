"""Published figures: the benchmark's results as tables, and the marks in documents that show them.

A document shows a figure or a table between two invisible marks:

    <!-- benchmark:summary -->
    …
    <!-- /benchmark -->

Every table begins with the foreign head, if the results have it: in the first row, or in the first columns.

``fill`` regenerates the text between marks from the results. A test checks that documents match the committed results.
A mark names one of:

* ``summary``: one row per set; ``tables``: every figure of every set with its interval; ``how``: how they were made;
* ``readout``: the gain of the median and the mean, and the coverage of the intervals;
* ``actions KEY``: correlation and mean error of each action in a set;
* ``pose``: errors of head and eye rotations, if the results have them;
* ``words``: how many claims of the analyses hold, beside those of the rules;
* ``rest``: what fires on rendered faces at rest; ``people``: the figures on photographs of people, if there were any;
* a figure of the benchmark's last output line, such as ``photo_corr``, for use within a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semanticface import arkit
from semanticface.errors import ConfigError
from semanticface.evaluation import pose
from semanticface.evaluation.benchmark import FIRES, FOREIGN, MODEL, PEER, SETS
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
    """Return the figures of one set with their intervals, one table per scope, next to those of the foreign head."""
    out = []
    labels = names(results)
    foreign = {} if name == FOREIGN else results["sets"].get(FOREIGN, {}).get("scopes", {})
    for scope, found in results["sets"][name]["scopes"].items():
        beside = foreign.get(scope, {"figures": {}})
        methods = [(f"{FOREIGN}: {labels[key]}", beside, key) for key in (MODEL, PEER) if key in beside["figures"]]
        prefix = f"{name}: " if methods else ""
        methods += [(f"{prefix}{labels[key]}", found, key) for key in labels if key in found["figures"]]
        rows = []
        for figure in FIGURES:
            values = [of["figures"][key].get(figure.key) for _, of, key in methods]
            if any(value is not None for value in values):
                cells = [estimate_text(figure, value, interval=True) for value in values]
                rows.append([f"{figure.label} {figure.arrow}", *cells])
        caption = _SCOPES[scope].format(**found)
        if "lead" in found:
            leads = [f"{key} {signed_text(found['lead'][key])}" for key in ("correlation", "mae")]
            caption += f" {labels[MODEL]} minus MediaPipe: {', '.join(leads)}."
        if prefix:
            caption += f" *{FOREIGN}*: {beside['actions']} actions, {beside['pictures']} pictures."
        out.append(Table(["figure", *[head for head, *_ in methods]], rows, caption))
    return out


def actions_table(results: Results, name: str) -> Table:
    """Return correlation and mean error of each action in one set, for every method, next to the foreign head's."""
    labels, sets = names(results), results["sets"]
    beside = [FOREIGN] if FOREIGN in sets and name != FOREIGN else []
    columns = [(of, key, "correlation") for of in (*beside, name) for key in (MODEL, PEER)]
    columns += [(of, key, "mae") for of in beside for key in (MODEL, PEER)]
    columns += [(name, key, "mae") for key in labels]
    columns = [(of, key, figure) for of, key, figure in columns if key in sets[of]["per_action"]]
    head = [
        f"{f'{of}, ' if beside else ''}{labels[key]}: {'correlation' if figure == 'correlation' else 'MAE'}"
        for of, key, figure in columns
    ]
    rows = [
        [action, *(_BY_KEY[figure].text(sets[of]["per_action"][key].get(action, {}).get(figure))
                   for of, key, figure in columns)]
        for action in arkit.NAMES
    ]  # fmt: skip
    return Table(["action", *head], rows, f"{name}: each action, all pictures.", folded=True)


def rest_table(results: Results) -> Table:
    """Return what fires on rendered faces at rest, and on still faces of people if there were any: share and worst."""
    labels = names(results)
    found = {"rendered, at rest": results["rest"]}
    if "people" in results:
        found["people, still"] = results["people"]["rest"]
    methods = [key for key in (MODEL, PEER) if any(key in each["false_rate"] for each in found.values())]
    head = ["faces", "pictures", *(f"above {FIRES} ↓ {labels[key]}" for key in methods)]
    head += [f"most often {labels[key]}" for key in methods]
    rows = []
    for name, each in found.items():
        row = [name, str(each["pictures"])]
        row += [_share_text(each["false_rate"].get(key)) for key in methods]
        row += [_most_often(each["per_action"].get(key, {})) for key in methods]
        rows.append(row)
    caption = "Share of all numbers above the threshold on faces that show no expression; in brackets 95 % intervals."
    if "people" in results:
        caption += " MediaPipe chose the still faces of people, which flatters it."
    return Table(head, rows, caption)


def people_tables(results: Results) -> list[Table]:
    """Return gaze and agreement with MediaPipe on photographs of people, and the agreement by action."""
    labels, found = names(results), results["people"]
    rows = [
        ["gaze, up minus down", *(signed_text(found["gaze_up"][key]) for key in (MODEL, PEER))],
        ["agreement with MediaPipe (mean correlation) ↑", _interval_text(found["agreement"]), NONE],
    ]
    caption = f"{found['pictures']} photographs of people. Agreement: the actions below."
    tables = [Table(["figure", labels[MODEL], labels[PEER]], rows, caption)]
    rows = [
        [action, *(_number(each[figure]) for figure in ("correlation", "mean_model", "mean_mediapipe"))]
        for action, each in found["actions"].items()
    ]
    head = ["action", "correlation with MediaPipe", f"{labels[MODEL]}: mean", "MediaPipe, rescaled: mean"]
    caption = "Actions that vary and on which MediaPipe agrees with an iPhone's ARKit, and gaze."
    return [*tables, Table(head, rows, caption, folded=True)]


def pose_table(results: Results) -> Table:
    """Return the errors of rotations in degrees, one row per set and method, and of the gaze on turned heads."""
    labels = names(results)
    rows = [
        [name, labels[method], str(each["answered"]), *(_interval_text(each[figure], 1) for figure in pose.FIGURES)]
        for name, found in results["sets"].items()
        for method, each in found.get("pose", {}).items()
    ]
    if not any(MODEL in found.get("pose", {}) for found in results["sets"].values()):
        rows.append(["all", labels[MODEL], NONE, *[NONE] * len(pose.FIGURES)])
    apart = "; ".join(
        f"{labels[method]} {_interval_text(each['turned'])} and {_interval_text(each['frontal'])}"
        for method, each in results["gaze"].items()
    )
    caption = (
        "Mean absolute errors in degrees, of the pictures with an answer. MediaPipe: its transformation matrix, and "
        "its gaze actions as angles. MAE of the gaze actions on turned heads that look at the camera, and on frontal "
        f"heads whose eyes are turned as far: {apart}."
    )
    return Table(["set", "", "pictures", *(f"{name} ↓" for name in pose.FIGURES)], rows, caption)


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


def words_table(results: Results) -> Table:
    """Return how true the model's words are in each set, beside the rules' words from the same numbers."""
    head = [
        "pictures",
        "hold for their own numbers ↑",
        "true ↑",
        "rules: true ↑",
        "claims in a picture",
        "rules: claims",
    ]
    rows = []
    for name, result in results["sets"].items():
        if "words" in result:
            found = result["words"]
            shares = (_percent(found[key]) for key in ("own_hold", "true", "rules_true"))
            rows.append([name, *shares, *(_number(found[key], 1) for key in ("claims", "rules_claims"))])
    caption = (
        "Claims in the analyses, and in what the rules of Stage I write from the same numbers. What is left unsaid "
        "does not count."
    )
    return Table(head, rows, caption)


def how(results: Results) -> str:
    """Return a few sentences on how the figures were made."""
    recipe, sets = results["recipe"], results["sets"]
    pictures = sorted({found["pictures"] for found in sets.values()})
    amount = str(pictures[0]) if len(pictures) == 1 else f"{pictures[0]} to {pictures[-1]}"
    people = min(found["people"] for key, found in sets.items() if key != FOREIGN)
    shown = "; ".join(f"*{key}*: {text}" for key, text in SETS.items() if key in sets)
    over = f" (*{FOREIGN}*: pictures)" if FOREIGN in sets else ""
    labels = "our own labels" if FOREIGN in sets else "labels"
    out = (
        f"`{recipe['command']}`: {amount} pictures per set, of at least {people} people who are in no training set; "
        f"faces are detected and cropped by the package. {shown}. In brackets: 95 % bootstrap intervals over "
        f"people{over}. A picture in which a method finds no face counts as its own mean answer over the others. The "
        f"constants always answer the mean or the median of the distribution that {labels} are sampled from."
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
    if mark == "words":
        return f"\n{words_table(results).markdown()}\n"
    if mark == "tables":
        parts = [
            f"### {key}\n\n" + "\n\n".join(table.markdown() for table in scope_tables(results, key))
            for key in results["sets"]
        ]
        return "\n" + "\n\n".join(parts) + "\n"
    if mark == "pose" and "gaze" in results:
        return f"\n{pose_table(results).markdown()}\n"
    if mark == "rest" and "rest" in results:
        return f"\n{rest_table(results).markdown()}\n"
    if mark == "people" and "people" in results:
        return "\n" + "\n\n".join(table.markdown() for table in people_tables(results)) + "\n"
    if kind == "actions" and name in results["sets"]:
        return f"\n{actions_table(results, name).markdown()}\n"
    optional = [name for name, key in (("pose", "gaze"), ("rest", "rest"), ("people", "people")) if key in results]
    sets = [f"actions {key}" for key in results["sets"]]
    known = ", ".join(["summary", "tables", "readout", "words", "how", *optional, *sets, *results["headline"]])
    raise ConfigError(f"<!-- benchmark:{mark} -->: not in the results. They have {known}.")


def _inline(name: str, value: float | None) -> str:
    if name in ("median_mae_gain", "interval_coverage") or "_false_rate" in name or "words_" in name:
        return _percent(value)
    return _number(value, 2 if "_corr" in name or "_agreement" in name else 3)


def _number(value: float | None, digits: int = 3) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f} %"


def _share_text(value: list[float] | None) -> str:
    if value is None:
        return NONE
    middle, low, high = (f"{100 * part:.1f}" for part in value)
    return f"{middle} % ({low}–{high})"


def _interval_text(value: list[float] | None, digits: int = 3) -> str:
    if value is None:
        return NONE
    middle, low, high = (_number(part, digits) for part in value)
    return f"{middle} ({low}–{high})"


def _most_often(shares: Mapping[str, float], count: int = 4) -> str:
    """Return the actions that fire most often, such as ``eyeLookUpLeft 47 %, …``."""
    worst = sorted((item for item in shares.items() if item[1]), key=lambda item: -item[1])[:count]
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in worst) or NONE


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
