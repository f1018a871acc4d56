"""Figures and tables of the controlled alignment experiment (``eval/superface.py``).

Errors are measured against ground truth that neither the model nor the judges' answers contain. Comparisons are made
blind by a simulated person who took no part in the rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semanticface.evaluation.metrics import Figure
from semanticface.experiments.ablations import Spread
from semanticface.preference.judges import Judge, win_rate
from semanticface.preference.regions import HALVES, REGIONS, Region
from semanticface.preference.round import HeldOutSet
from semanticface.utils.files import nonfinite_to_none
from semanticface.utils.html import Table

WAYS = ("region", "whole")
"""How choices become pairs: halves combined as in SuperFace, or whole candidates, the baseline."""

FIGURES = (
    Figure("mae", "mean error (MAE)", "lower"),
    *(Figure(f"vertex_error_{region}", f"vertex error, {region}", "lower", suffix=" %") for region in REGIONS),
    Figure("reduction", "vertex error less than SFT's by", "higher", percent=True),
    Figure("wins_sft", "wins over SFT", "higher", percent=True),
    Figure("wins_labels", "wins over the pseudo labels", "higher", percent=True),
    Figure("wins_labels_whole", "wins over the pseudo labels, whole faces", "higher", percent=True),
    Figure("blank_ratio", "margin left with a blank picture", "lower", percent=True),
)
"""Columns of the table of rounds."""

_DIGITS = 4  # in the headline
_FIGURE = {figure.key: figure for figure in FIGURES}


def figures(
    held_out: HeldOutSet,
    answers: np.ndarray,
    before: np.ndarray,
    labels: np.ndarray,
    judge: Judge,
    *,
    seed: int,
) -> dict[str, float]:
    """Return the figures of one model.

    Args:
        held_out: the pictures and their ground truth.
        answers: float32[n, 52], the model's predictions.
        before: float32[n, 52], predictions of the model trained on pseudo labels.
        labels: float32[n, 52], the pseudo labels of the same pictures.
        judge: makes the comparisons.
        seed: of the order of sides.

    Returns:
        The keys of ``FIGURES`` except ``blank_ratio``; errors as ``HeldOutSet.errors``, the rest as shares. Wins are
        means over both halves, each shown alone, unless the key says ``whole``.
    """
    found = held_out.errors(answers)
    base = held_out.errors(before)
    found["reduction"] = 1 - found["vertex_error_whole"] / base["vertex_error_whole"]
    comparisons: dict[str, tuple[np.ndarray, Sequence[Region]]] = {
        "wins_sft": (before, HALVES),
        "wins_labels": (labels, HALVES),
        "wins_labels_whole": (labels, ("whole",)),
    }
    for key, (other, regions) in comparisons.items():
        found[key] = win_rate(judge, held_out.compare(answers, other), regions=regions, seed=seed)["all"].value
    return found


def headline(runs: Sequence[Mapping[str, Any]]) -> dict[str, float | int | None]:
    """Return the last line of ``eval/superface.py``: means over seeds, of the rounds that the stopping rule chose.

    Seeds for which a figure is undefined, such as the remaining margin where the rule chose round 0, do not count; if
    it is undefined for all, it is None.

    Args:
        runs: one per seed; for each way ``rounds`` (figures of round 0 and on) and ``best``.
    """

    def mean(way: str, key: str) -> float | None:
        known = [value for run in runs if (value := nonfinite_to_none(_best(run[way]).get(key))) is not None]
        return float(np.mean(known)) if known else None

    region, whole = (mean(way, "reduction") for way in WAYS)
    found = {
        "vertex_error_reduction": region,
        "win_rate_over_pseudo_labels": mean("region", "wins_labels"),
        "win_rate_over_pseudo_labels_whole": mean("region", "wins_labels_whole"),
        "win_rate_over_sft": mean("region", "wins_sft"),
        "region_minus_whole": None if region is None or whole is None else region - whole,
        "rounds": max(len(run["region"]["rounds"]) - 1 for run in runs),
        "seeds": len(runs),
        "blank_picture_margin_ratio": mean("region", "blank_ratio"),
    }
    return {key: round(value, _DIGITS) if isinstance(value, float) else value for key, value in found.items()}


def tables(runs: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return a table of every round of both ways, and one of the rounds that the rule chose.

    Args:
        runs: as for ``headline``.
    """
    rows = [_row("pseudo labels", [run["labels"] for run in runs])]
    supervised = [run[WAYS[0]]["rounds"][0] for run in runs]
    # Comparisons with itself mean nothing.
    omitted = ("reduction", "wins_sft")
    rows.append(
        _row("SFT on pseudo labels", [{key: run[key] for key in run if key not in omitted} for run in supervised])
    )
    for way in WAYS:
        for number in range(1, max(len(run[way]["rounds"]) for run in runs)):
            made = [run[way]["rounds"][number] for run in runs if number < len(run[way]["rounds"])]
            rows.append(_row(f"{way}, round {number}", made))
    chosen = [
        [way, *(str(run[way]["best"]) for run in runs), _spread("reduction", [_best(run[way]) for run in runs])]
        for way in WAYS
    ]
    caption = f"Held-out people, against the truth: mean ± standard deviation over {len(runs)} seeds."
    seeds = [f"seed {run['seed']}" for run in runs]
    return [
        Table(["model", *(figure.label for figure in FIGURES)], rows, caption),
        Table(["pairs", *seeds, _FIGURE["reduction"].label], chosen, "The round that the rule of stopping chose."),
    ]


def _best(way: Mapping[str, Any]) -> Mapping[str, float | None]:
    best: Mapping[str, float | None] = way["rounds"][way["best"]]
    return best


def _row(name: str, made: Sequence[Mapping[str, float | None]]) -> list[str]:
    return [name, *(_spread(figure.key, made) for figure in FIGURES)]


def _spread(key: str, made: Sequence[Mapping[str, float | None]]) -> str:
    return Spread.of([nonfinite_to_none(each.get(key)) for each in made]).text(_FIGURE[key])
