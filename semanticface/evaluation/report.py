"""Sections of a self-contained HTML page: figures with their baselines, and samples with pictures, analysis and bars.

Text from outside is escaped; ``utils.html.write_page`` writes the page.
"""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from semanticface import arkit
from semanticface.errors import PictureError
from semanticface.evaluation.metrics import BASELINES, FIGURES, Result, caption
from semanticface.formats.tables import read_coefficients
from semanticface.rendering import render
from semanticface.semantics.analysis import Analysis
from semanticface.semantics.faithfulness import agreement
from semanticface.semantics.movements import RELAXED
from semanticface.utils.html import write_page
from semanticface.vision.crop import Box, crop_face
from semanticface.vision.image_io import encode_jpeg, load_picture

if TYPE_CHECKING:
    from semanticface.inference.predictor import Prediction

_VISIBLE = 0.05
"""Actions below this in ground truth and prediction are folded."""
_PICTURE_SIDE = 480
_HEAD_SIDE = 240
MAX_PREDICTIONS = 200
"""Maximum pictures in a report of predictions; each takes about 50 kB."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture and its prediction.

    Attributes:
        title: heading of its card.
        picture: the upright RGB picture; None if it could not be read.
        predicted: float32[52]; None if ``reason`` says why.
        analysis: the analysis, or None.
        truth: the ground truth, float32[52], if known.
        box: the model's crop within the picture.
        chip: short text at the right of the heading, such as the error.
        reason: why there is no prediction.
        note: a remark on a prediction.
        interval: float32[52, 2], the 80 % interval of each coefficient; or None.
    """

    title: str
    picture: Image.Image | None
    predicted: np.ndarray | None
    analysis: Analysis | None = None
    truth: np.ndarray | None = None
    box: Box | None = None
    chip: str = ""
    reason: str = ""
    note: str = ""
    interval: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Samples:
    """A section of sample cards, with an optional introduction."""

    title: str
    samples: Iterable[Sample]
    intro: str = ""

    def html(self) -> Iterator[str]:
        """Yield the cards."""
        return _samples(self)


@dataclass(frozen=True, slots=True)
class Figures:
    """A section with the table of figures.

    Attributes:
        title: its heading.
        results: named results of ``metrics.score`` over the same samples, oldest first; the constants and the
            per-region and per-action tables are those of the last.
        intro: optional text under the heading.
    """

    title: str
    results: Sequence[tuple[str, Result]]
    intro: str = ""

    def html(self) -> Iterator[str]:
        """Yield the tables."""
        return _figures(self)


def prediction_samples(predictions: Iterable[Prediction]) -> Iterator[Sample]:
    """Yield a card for each prediction, with its picture loaded again by name."""
    for prediction in predictions:
        yield Sample(
            Path(prediction.image).name,
            _reload(prediction.image),
            prediction.coefficients,
            prediction.analysis,
            box=prediction.box,
            reason=prediction.reason,
            note=prediction.note,
            interval=prediction.interval,
        )


def file_samples(path: str | os.PathLike[str]) -> Iterator[Sample]:
    """Yield a card for each line of a JSONL written by ``predict``, with its picture loaded again by name."""
    for row in read_coefficients(path):
        box = None if row.box is None else Box(*row.box)
        title = Path(row.label).name or f"line {row.line}"
        yield Sample(title, _reload(row.label), row.coefficients, row.analysis, box=box, reason=row.error)


def _reload(path: str) -> Image.Image | None:
    # An unreadable picture is left out of its card, which shows the reason.
    with contextlib.suppress(PictureError):
        return load_picture(path)
    return None


class PredictionReport:
    """A page of predictions without ground truth; it keeps only the predictions that it shows."""

    def __init__(self) -> None:
        self._shown: list[Prediction] = []
        self._total = self._failed = 0

    def watch(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Pass the predictions through, recording them."""
        for prediction in predictions:
            self._total += 1
            self._failed += prediction.status != "ok"
            if self._total <= MAX_PREDICTIONS:
                self._shown.append(prediction)
            yield prediction

    def write(self, path: str | os.PathLike[str], *, model: str) -> None:
        """Write the page of the recorded predictions."""
        intro = f"{_count(self._total, 'picture')}, {self._failed} without an answer."
        if self._total > MAX_PREDICTIONS:
            intro += f" The first {MAX_PREDICTIONS} are shown."
        shown = Samples("Pictures", prediction_samples(self._shown), intro)
        write_page(path, "What the faces do", [shown], recipe={"model": model})


def selections(errors: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Select the worst, the best and random rows, without overlap.

    Args:
        errors: float[N]; NaN, an invalid answer, ranks worst.
        count: rows in each selection, fewer if there are not enough.
        seed: selects the random rows.

    Returns:
        Three arrays of row numbers: worst first, best first, random in order.
    """
    order = np.argsort(errors, kind="stable")  # NaN sorts last
    count = min(count, -(-len(errors) // 3))
    worst, best = order[::-1][:count], order[: min(count, len(errors) - count)]
    best = best[~np.isnan(errors[best])]
    rest = np.setdiff1d(np.arange(len(errors)), np.concatenate([worst, best]))
    random = np.random.default_rng(seed).choice(rest, min(count, len(rest)), replace=False)
    return worst, best, np.sort(random)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# --- figures ------------------------------------------------------------------------------------------------------


def _figures(section: Figures) -> Iterator[str]:
    last = section.results[-1][1]
    columns = [(name, result["model"], "") for name, result in section.results]
    columns += [(name, last[key], "base") for key, name in BASELINES]
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name, _, _ in columns)
    yield f'<div class="card"><div class="scroll"><table>\n<thead><tr><th scope="col">figure</th>{heads}</tr></thead>'
    yield "<tbody>\n"
    for figure in FIGURES:
        values = [column[figure.key] for _, column, _ in columns]
        known = [value for value in values if value is not None]
        if not known:
            continue
        best = min(known) if figure.better == "lower" else max(known)
        # Constants are never marked best: some figures, such as confused sides, are trivially perfect for them.
        cells = "".join(
            f'<td class="{style or ("best" if value == best else "")}">{escape(figure.text(value))}</td>'
            for value, (_, _, style) in zip(values, columns, strict=True)
        )
        way = f'<span class="way">{figure.arrow}</span>'
        yield f'<tr><th scope="row">{escape(figure.label)} {way}</th>{cells}</tr>\n'
    yield f'</tbody></table></div>\n<p class="quiet checked">{escape(caption(last))} ↓ lower is better, ↑ higher.</p>'
    for heading, key in (("By region", "per_region"), ("By action", "per_action")):
        yield f"<details><summary>{heading}</summary>{_breakdown(last['model'][key])}</details>\n"
    yield "</div>\n"


def _breakdown(parts: Mapping[str, Mapping[str, float | None]]) -> str:
    names = {
        "mae": "error",
        "rmse": "RMS error",
        "mae_active": "error when active",
        "correlation": "correlation",
        "f1": "F1",
    }
    shown = [figure for figure in FIGURES if figure.key in names]
    heads = "".join(f'<th scope="col">{names[figure.key]}</th>' for figure in shown)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(figure.text(values[figure.key]))}</td>" for figure in shown)
        + "</tr>\n"
        for name, values in parts.items()
    )
    return f'<div class="scroll"><table><thead><tr><th></th>{heads}</tr></thead><tbody>\n{rows}</tbody></table></div>'


# --- samples ------------------------------------------------------------------------------------------------------


def _samples(section: Samples) -> Iterator[str]:
    for sample in section.samples:
        chip = f'<span class="chip">{escape(sample.chip)}</span>' if sample.chip else ""
        yield f'<article class="card"><div class="cardhead"><h3>{escape(sample.title)}</h3>{chip}</div>\n'
        figures = _pictures(sample)
        if figures:
            few = " two" if len(figures) < 3 else " many" if len(figures) > 3 else ""
            yield f'<div class="pictures{few}">{"".join(figures)}</div>\n'
        if sample.reason:
            yield f'<p class="reason">{escape(sample.reason)}</p>\n'
        if sample.note:
            yield f'<p class="quiet">{escape(sample.note)}</p>\n'
        if sample.predicted is not None:
            text = ""
            if sample.analysis is not None:
                text = _analysis(sample.analysis) + _agreement(sample.analysis, sample.predicted, sample.truth)
            yield f'<div class="split"><div>{text}</div><div>{_bars(sample, sample.predicted)}</div></div>\n'
        yield "</article>\n"


def _pictures(sample: Sample) -> list[str]:
    out = []
    if sample.picture is not None:
        out.append(_figure(_framed(sample.picture, sample.box), "input"))
        if sample.box is not None and max(sample.box.width, sample.box.height) < 0.7 * min(sample.picture.size):
            out.append(_figure(_image(crop_face(sample.picture, sample.box, _HEAD_SIDE), "face"), "model input"))
    for coefficients, name in ((sample.truth, "ground truth"), (sample.predicted, "prediction")):
        if coefficients is not None:
            head = Image.fromarray(render(coefficients, subject=None, size=_HEAD_SIDE, framing="crop").image)
            out.append(_figure(_image(head, name), f"{name} on the plain head"))
    return out


def _figure(inside: str, label: str) -> str:
    return f'<figure><div class="frame">{inside}</div><figcaption>{escape(label)}</figcaption></figure>'


def _framed(picture: Image.Image, box: Box | None) -> str:
    width, height = picture.size
    fit = "width:100%" if width >= height else "height:100%"
    mark = ""
    if box is not None and (box.x0 > 0 or box.y0 > 0 or box.x1 < width or box.y1 < height):
        left, top = 100 * box.x0 / width, 100 * box.y0 / height
        across, down = 100 * box.width / width, 100 * box.height / height
        place = f"left:{left:.2f}%;top:{top:.2f}%;width:{across:.2f}%;height:{down:.2f}%"
        mark = f'<span class="found" style="{place}"></span>'
    return f'<div class="photo" style="{fit};aspect-ratio:{width}/{height}">{_image(picture, "input")}{mark}</div>'


def _image(picture: Image.Image, label: str) -> str:
    small = picture.copy()
    small.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
    data = base64.b64encode(encode_jpeg(small, 88)).decode()
    return f'<img alt="{escape(label)}" src="data:image/jpeg;base64,{data}">'


def _analysis(analysis: Analysis) -> str:
    out = [f'<p class="headline">{escape(analysis.expression_category)}</p><dl class="words">']
    if analysis.emotional_implication is not None:
        out.append(f"<dt>suggests</dt><dd>{escape(analysis.emotional_implication)}</dd>")
    for region, text in analysis.muscle_movements.items():
        rest = ' class="rest"' if text == RELAXED.get(region) else ""
        out.append(f"<dt>{escape(region)}</dt><dd{rest}>{escape(text)}</dd>")
    out.append(f"<dt>symmetry</dt><dd>{escape(analysis.symmetry)}</dd></dl>")
    return "".join(out)


def _agreement(analysis: Analysis, predicted: np.ndarray, truth: np.ndarray | None) -> str:
    """Return a sentence on how far the analysis matches the ground truth, or its own numbers if that is unknown."""
    measure, whose = (predicted, "its own numbers") if truth is None else (truth, "the ground truth")
    found = agreement(analysis, measure)
    claims = len(found.holds) + len(found.contradicts)
    out = f"{len(found.holds)} of {_count(claims, 'claim')} in the analysis match {whose}."
    wrong = list(dict.fromkeys(claim.text for claim in found.contradicts))
    if wrong:
        out += f" Wrong: {'; '.join(wrong)}."
    if found.omits:
        out += f" Missing: {', '.join(found.omits)}."
    return f'<p class="quiet checked">{escape(out)}</p>'


def _bars(sample: Sample, predicted: np.ndarray) -> str:
    """Return bars that grow outwards from the action's name; the subject's right is on the left, as in the picture."""
    truth = sample.truth
    active: list[str] = []
    still: list[str] = []
    for action in arkit.ACTIONS:
        if action.name != action.mirror and action.side == "right":
            continue  # shown with its left partner
        left, right = action.index, arkit.INDEX[action.mirror]
        known = [predicted] if truth is None else [predicted, truth]
        row = _bar(action, predicted, truth, sample.interval)
        (active if max(max(v[left], v[right]) for v in known) >= _VISIBLE else still).append(row)
    key = '<li class="truth">ground truth</li>' if truth is not None else ""
    key += "<li>prediction</li>" + ('<li class="likely">80 % interval</li>' if sample.interval is not None else "")
    out = f'<ul class="legend">{key}</ul><div class="bars">'
    out += '<div class="barhead"><span class="right">subject\'s right</span><span></span>'
    out += '<span class="left">left</span></div>'
    out += "".join(active) or '<p class="quiet">No action is visible.</p>'
    if still:
        out += f"<details><summary>{_count(len(still), 'action')} at rest</summary>{''.join(still)}</details>"
    return out + "</div>"


def _bar(action: arkit.Action, predicted: np.ndarray, truth: np.ndarray | None, interval: np.ndarray | None) -> str:
    sides = []
    for side, name in (("right", action.mirror), ("left", action.name)):
        value = float(predicted[arkit.INDEX[name]])
        true = None if truth is None else float(truth[arkit.INDEX[name]])
        label = f"{name}: prediction {value:.2f}" + ("" if true is None else f", ground truth {true:.2f}")
        likely = ""
        if interval is not None:
            low, high = interval[arkit.INDEX[name]].tolist()
            label += f", likely {low:.2f} to {high:.2f}"
            inner, outer = ("left", "right") if side == "left" else ("right", "left")
            likely = f'<i class="likely" style="{inner}:{100 * low:.1f}%;{outer}:{100 - 100 * high:.1f}%"></i>'
        bars = "" if true is None else f'<i class="truth" style="width:{100 * true:.1f}%"></i>'
        bars += f'{likely}<i style="width:{100 * value:.1f}%"></i>'
        # An action on the midline has bars on both sides and one number.
        number = "" if action.side == "both" and side == "right" else f"{value:.2f}"
        sides.append(
            f'<span class="side {side}" role="img" aria-label="{label}" title="{label}">'
            f'<span class="track">{bars}</span><b>{number}</b></span>'
        )
    return f'<div class="bar">{sides[0]}<span>{_plain(action)}</span>{sides[1]}</div>'


def _plain(action: arkit.Action) -> str:
    """Return an action's name in words, without its side: ``mouthSmileLeft`` is "mouth smile"."""
    base = action.name if action.side == "both" else action.name.removesuffix("Left")
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in base)
    return f"{words} sideways" if base in ("jaw", "mouth") else words
