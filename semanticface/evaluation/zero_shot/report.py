"""Results of a zero-shot run: figures with intervals next to the constants, with and without semantics, and a page.

Scored as in the benchmark (``semanticface.evaluation.benchmark``): a picture without a valid answer counts as the
model's own mean answer over the others, and the share of valid answers is a figure of its own. A second table covers
only the pictures with a valid answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semanticface import arkit
from semanticface.errors import PictureError
from semanticface.evaluation import bootstrap, metrics, report
from semanticface.evaluation.benchmark import MODEL, MethodAnswers, filled, largest_errors, score_set, worst_and_typical
from semanticface.evaluation.metrics import BASELINES, FIGURES
from semanticface.evaluation.published import estimate_text, plain, signed_text
from semanticface.evaluation.zero_shot.pictures import PictureSet
from semanticface.evaluation.zero_shot.questions import ParsedReply
from semanticface.utils.html import Table, TableSection, write_page

TITLE = "Zero-shot evaluation"
WORST, TYPICAL = 6, 4
_SUMMARY = ("correlation", "mae", "vertex_error", "valid_share", "agreement_own", "agreement_true")
_BY_KEY = {figure.key: figure for figure in FIGURES}


@dataclass(frozen=True, eq=False)
class Scored:
    """A set of pictures, its replies and their scores.

    Attributes:
        pictures: the set.
        replies: by semantics, one for each picture, in order.
        result: of ``score``.
    """

    pictures: PictureSet
    replies: Mapping[str, Sequence[ParsedReply]]
    result: Mapping[str, Any]


def score(
    pictures: PictureSet,
    replies: Mapping[str, Sequence[ParsedReply]],
    mean: np.ndarray,
    median: np.ndarray,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Score the replies about a set of pictures.

    Args:
        pictures: the set.
        replies: by semantics, one for each picture, in order.
        mean: float32[52], the constant mean's answer.
        median: float32[52], the constant median's answer.
        seed: of the bootstrap.

    Returns:
        A dict of plain values: ``pictures``, ``labelled`` (counts); ``statuses`` ({semantics: {status: count}}); with
        labels, ``scores`` ({semantics: result of ``benchmark.score_set``}); and with both semantics, ``lead``:
        ``correlation`` and ``mae`` with semantics minus those without, [value, low, high] over the same
        resamples.
    """
    out: dict[str, Any] = {"pictures": len(pictures.names), "labelled": 0}
    out["statuses"] = {
        key: dict(Counter(each.status for each in found).most_common()) for key, found in replies.items()
    }
    if pictures.true is None:
        return out
    known = np.flatnonzero(~np.isnan(pictures.true).any(axis=1)).tolist()
    true, people = pictures.true[known], [pictures.people[i] for i in known]
    out["labelled"] = len(known)
    answers = {key: metrics.stacked(found[i].coefficients for i in known) for key, found in replies.items()}
    out["scores"] = {
        key: score_set(
            true,
            people,
            {
                MODEL: MethodAnswers(
                    answers[key], analyses=[found[i].analysis for i in known] if key == "with" else None
                )
            },
            mean=mean,
            median=median,
            seed=seed,
        )
        for key, found in replies.items()
    }
    if len(answers) == 2:
        weights = bootstrap.resample(people, seed=seed)
        found = {key: bootstrap.figures(true, filled(values), weights) for key, values in answers.items()}
        out["lead"] = {
            figure: _plain(bootstrap.estimate(found["with"][figure] - found["without"][figure]))
            for figure in ("correlation", "mae")
        }
    return out


def headline(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Return ``SET_SEMANTICS_corr``, ``_mae`` and ``_valid`` of every scored set, from results of ``score`` by set."""
    out: dict[str, float | None] = {}
    for name, result in results.items():
        for key, scored in result.get("scores", {}).items():
            figures = scored["scopes"]["all"]["figures"][MODEL]
            for figure, short in (("correlation", "corr"), ("mae", "mae"), ("valid_share", "valid")):
                value = figures[figure]
                out[f"{name}_{key}_{short}"] = None if value is None else value[0]
    return out


def summary(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return one row per set and semantics; without labels, only the number of valid answers."""
    if not any("scores" in result for result in results.values()):
        rows = [
            [name, key, f"{statuses.get('ok', 0)} of {result['pictures']}"]
            for name, result in results.items()
            for key, statuses in result["statuses"].items()
        ]
        return Table(["pictures", "semantics", "valid answers"], rows)
    head = ["pictures", "semantics", *(f"{_BY_KEY[key].label} {_BY_KEY[key].arrow}" for key in _SUMMARY)]
    head.append("MAE constant mean, median")
    rows = []
    for name, result in results.items():
        for key, scored in result["scores"].items():
            figures = scored["scopes"]["all"]["figures"]
            cells = [
                estimate_text(_BY_KEY[figure], figures[MODEL].get(figure), interval=figure in ("correlation", "mae"))
                for figure in _SUMMARY
            ]
            constants = [estimate_text(_BY_KEY["mae"], figures[base]["mae"], interval=False) for base, _ in BASELINES]
            rows.append([name, key, *cells, ", ".join(constants)])
    return Table(head, rows)


def figures(name: str, result: Mapping[str, Any]) -> list[Table]:
    """Return the tables of one set: figures with intervals, those of valid answers only, actions, failures."""
    out = []
    scored = result.get("scores", {})
    if scored:
        columns = [(f"{key} semantics", found["scopes"]["all"]["figures"][MODEL]) for key, found in scored.items()]
        first = next(iter(scored.values()))["scopes"]["all"]["figures"]
        columns += [(label, first[base]) for base, label in BASELINES]
        caption = f"{name}: all {result['labelled']} pictures with a label."
        if "lead" in result:
            leads = [f"{_BY_KEY[key].label} {signed_text(result['lead'][key])}" for key in ("correlation", "mae")]
            caption += f" With minus without semantics: {', '.join(leads)}."
        out.append(_table(columns, caption))
        answered = [
            (f"{key} semantics, {found['scopes']['found']['pictures']} pictures", found["scopes"]["found"]["figures"])
            for key, found in scored.items()
            if "found" in found["scopes"]
        ]
        if answered:
            of_answered = [(label, values[MODEL]) for label, values in answered]
            out.append(_table(of_answered, f"{name}: only the pictures with a valid answer."))
        per_action = {key: found["per_action"][MODEL] for key, found in scored.items()}
        head = [f"{figure} {key}" for figure in ("correlation", "MAE") for key in per_action]
        rows = [
            [
                action,
                *(_BY_KEY["correlation"].text(each[action]["correlation"]) for each in per_action.values()),
                *(_BY_KEY["mae"].text(each[action]["mae"]) for each in per_action.values()),
            ]
            for action in arkit.NAMES
        ]
        out.append(Table(["action", *head], rows, f"{name}: each action, all pictures.", folded=True))
    failures = sorted({status for statuses in result["statuses"].values() for status in statuses} - {"ok"})
    if failures:
        rows = [
            [status, *(str(statuses.get(status, 0)) for statuses in result["statuses"].values())]
            for status in ("ok", *failures)
        ]
        head = ["reply", *(f"{key} semantics" for key in result["statuses"])]
        out.append(Table(head, rows, f"{name}: replies for {result['pictures']} pictures."))
    return out


def how(results: Mapping[str, Mapping[str, Any]], recipe: Mapping[str, Any]) -> str:
    """Return a few sentences on how the figures were made."""
    sets = "; ".join(f"*{name}*: {result['about']}, {_count(result)}" for name, result in results.items())
    shots = recipe["examples"]
    shown = "no examples" if not shots else f"{shots} example{'s' if shots > 1 else ''} before each picture"
    out = (
        f"`{recipe['command']}`: {sets}. {shown[0].upper()}{shown[1:]}. *With* semantics the model describes the face "
        "before it gives the numbers; *without* it gives only the numbers."
    )
    if not any("scores" in result for result in results.values()):
        return out
    return (
        f"{out} In brackets: 95 % bootstrap intervals over people. A picture without a valid answer counts as the "
        "model's own mean answer over the others. The constants always answer the mean or the median of the "
        "distribution that the benchmark's labels are sampled from."
    )


def _count(result: Mapping[str, Any]) -> str:
    count, labelled = result["pictures"], result["labelled"]
    scored = f", of which {labelled} have a label and are scored" if 0 < labelled < count else ""
    return f"{count} picture{'s' if count > 1 else ''}{scored}"


def write_report(path: Path, sets: Mapping[str, Scored], recipe: Mapping[str, Any], facts: Mapping[str, str]) -> None:
    """Write the page: tables, then pictures with rendered predictions and analyses.

    Of labelled pictures it shows the worst and some typical ones, of others all, up to ``report.MAX_PREDICTIONS``.
    """
    write_page(path, TITLE, _sections(sets, recipe), recipe=facts)


def _sections(sets: Mapping[str, Scored], recipe: Mapping[str, Any]) -> Iterator[TableSection | report.Samples]:
    results = {name: scored.result for name, scored in sets.items()}
    yield TableSection("Summary", [summary(results)], plain(how(results, recipe)))
    for name, scored in sets.items():
        tables = figures(name, scored.result)
        if tables:
            yield TableSection(f"{name}: figures", tables, scored.pictures.about)
        for key in scored.replies:
            title = f"{name}, {key} semantics"
            if scored.pictures.true is None:
                count = min(len(scored.pictures.names), report.MAX_PREDICTIONS)
                intro = (
                    f"{count} of {len(scored.pictures.names)} pictures." if count < len(scored.pictures.names) else ""
                )
                yield report.Samples(title, _cards(scored, key, range(count)), intro)
                continue
            errors = _errors(scored, key)
            labelled = np.flatnonzero(~np.isnan(scored.pictures.true).any(axis=1))
            worst, typical = worst_and_typical(errors[labelled], max(WORST, TYPICAL))
            intro = "No answer, or the largest mean error."
            yield report.Samples(f"{title}: the worst", _cards(scored, key, labelled[worst[:WORST]].tolist()), intro)
            if len(typical):
                middle = np.nanmedian(errors[labelled])
                intro = f"A mean error near the median, {middle:.3f}."
                chosen = labelled[typical[:TYPICAL]].tolist()
                yield report.Samples(f"{title}: typical", _cards(scored, key, chosen), intro)


def _errors(scored: Scored, key: str) -> np.ndarray:
    true = scored.pictures.true
    answers = metrics.stacked(each.coefficients for each in scored.replies[key])
    return np.full(len(answers), np.nan) if true is None else np.abs(answers - true).mean(axis=1)


def _cards(scored: Scored, key: str, places: Sequence[int]) -> Iterator[report.Sample]:
    errors = _errors(scored, key)
    for i in places:
        reply = scored.replies[key][i]
        true = (
            None if scored.pictures.true is None or np.isnan(scored.pictures.true[i]).any() else scored.pictures.true[i]
        )
        note = ""
        if true is not None and reply.coefficients is not None:
            note = f"Largest errors: {largest_errors(true, reply.coefficients)}."
        try:
            picture = scored.pictures.load(i)
        except PictureError:
            picture = None  # the card shows the reason
        yield report.Sample(
            reply.image,
            picture,
            reply.coefficients,
            reply.analysis,
            truth=true,
            box=reply.box,
            chip="" if np.isnan(errors[i]) else f"mean error {errors[i]:.3f}",
            reason=reply.reason,
            note=note,
        )


def _table(columns: Sequence[tuple[str, Mapping[str, Any]]], caption: str) -> Table:
    rows = []
    for figure in FIGURES:
        values = [column.get(figure.key) for _, column in columns]
        if any(value is not None for value in values):
            cells = [estimate_text(figure, value, interval=True) for value in values]
            rows.append([f"{figure.label} {figure.arrow}", *cells])
    return Table(["figure", *(label for label, _ in columns)], rows, caption)


def _plain(value: bootstrap.Estimate) -> list[float] | None:
    if np.isnan(value.value):
        return None
    return [round(part, 5) for part in (value.value, value.low, value.high)]
