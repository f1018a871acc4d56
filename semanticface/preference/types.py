"""What passes between the steps of preference training.

A *slate* holds the candidates for one picture. A *question* shows two of them, side by side, in one area. A *choice* is
somebody's answer to a question. A *pair* is what a model learns: one face to be preferred to another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from semanticface.preference.regions import Area

Source = Literal["model", "capture"]
"""Where a candidate comes from: sampled from a model, or the label that the capture software wrote."""

Verdict = Literal["a", "b", "same", "neither", "skip"]
"""Left is nearer, right is nearer, no difference to be seen, both are wrong, no opinion."""

VERDICTS: tuple[Verdict, ...] = ("a", "b", "same", "neither", "skip")

Kind = Literal["first", "repeat", "mirrored"]
"""Asked for the first time, again, or again with its sides swapped: to measure an annotator's consistency."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One face that may be the right one for a picture.

    Attributes:
        id: unique within its slate, such as ``model-2``.
        source: where it comes from.
        coefficients: float32[52] in [0, 1], hundredths.
    """

    id: str
    source: Source
    coefficients: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class CandidateSet:
    """The candidates for one picture.

    Attributes:
        picture: what names the picture in every file and table: the sha256 of its bytes.
        row: its row in the split of the dataset that the candidates were made for.
        subject: who is seen.
        candidates: at least two.
    """

    picture: str
    row: int
    subject: str
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """Two candidates to choose between.

    Attributes:
        id: unique within a round.
        picture: as in ``CandidateSet``.
        area: what is judged; the rest is shown at rest.
        a: id of the candidate shown on the left.
        b: id of the candidate shown on the right.
        kind: whether it was asked before.
        of: id of the question that it repeats; empty for a first one.
    """

    id: str
    picture: str
    area: Area
    a: str
    b: str
    kind: Kind = "first"
    of: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """An answer to a question.

    Attributes:
        question: which.
        verdict: what was chosen.
        annotator: a local pseudonym, or the name of a judge.
        model: fingerprint of the model that the candidates come from.
        round: of the alignment, from 1.
        time: when, in UTC, ISO 8601.
    """

    question: Question
    verdict: Verdict
    annotator: str
    model: str
    round: int
    time: str


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """What a model learns from choices about one picture.

    Attributes:
        picture: as in ``CandidateSet``.
        row: as in ``CandidateSet``.
        chosen: float32[52], the face to be preferred.
        rejected: float32[52], the face it is preferred to; equal to ``chosen`` in halves without a verdict.
        areas: the areas in which somebody chose.
    """

    picture: str
    row: int
    chosen: np.ndarray
    rejected: np.ndarray
    areas: tuple[Area, ...]
