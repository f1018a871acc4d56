"""The data that passes between the steps of preference training.

A *candidate set* holds the candidates for one picture. A *question* shows two of them side by side, in one region of
the face. A *choice* is an answer to a question. A *pair* is a DPO example: a chosen face and a rejected one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from semanticface.preference.regions import Region

Source = Literal["model", "capture"]
"""Origin of a candidate: sampled from a model, or the label written by the capture software."""

Verdict = Literal["a", "b", "same", "neither", "skip"]
"""Left is nearer, right is nearer, no visible difference, both are wrong, no opinion."""

VERDICTS: tuple[Verdict, ...] = ("a", "b", "same", "neither", "skip")

Kind = Literal["first", "repeat", "mirrored"]
"""Asked for the first time, again, or again with sides swapped: the latter two measure an annotator's consistency."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One possible face for a picture.

    Attributes:
        id: unique within its set, such as ``model-2``.
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
        picture: sha256 of the picture's bytes, its name in every file and table.
        row: its row in the split of the dataset that the candidates were made for.
        subject: the person in the picture.
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
        region: the judged region, ``area`` in files; the rest is rendered at rest.
        a: id of the candidate on the left.
        b: id of the candidate on the right.
        kind: first, repeat or mirrored.
        of: id of the repeated question; empty for a first one.
    """

    id: str
    picture: str
    region: Region
    a: str
    b: str
    kind: Kind = "first"
    of: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """An answer to a question.

    Attributes:
        question: what was asked.
        verdict: what was chosen.
        annotator: a local pseudonym, or the name of a judge.
        model: fingerprint of the model that the candidates come from.
        round: of the alignment, from 1.
        time: UTC, ISO 8601.
    """

    question: Question
    verdict: Verdict
    annotator: str
    model: str
    round: int
    time: str


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A DPO example from choices about one picture.

    Attributes:
        picture: as in ``CandidateSet``.
        row: as in ``CandidateSet``.
        chosen: float32[52], the preferred face.
        rejected: float32[52]; equal to ``chosen`` in halves without a verdict.
        regions: the regions with a verdict, ``areas`` in files.
    """

    picture: str
    row: int
    chosen: np.ndarray
    rejected: np.ndarray
    regions: tuple[Region, ...]
