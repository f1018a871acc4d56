"""Who answers questions in place of people, and how often one set of faces beats another in the eyes of a judge.

A judge perceives how much nearer one face is than the other, with an error, and sees no difference below a threshold.
With a logistic error that is the model of Rao and Kupper (1967), Bradley and Terry's (1952) with ties:
P(A) = s((gain - threshold) / noise), P(B) = s((-gain - threshold) / noise), the rest is "same"; s is the logistic
function and the gain says how much nearer A is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import numpy as np

from semanticface import arkit
from semanticface.config import check_range
from semanticface.errors import DatasetError
from semanticface.evaluation.bootstrap import Estimate, estimate, resample
from semanticface.preference.regions import AREAS, HALVES, Area, distance
from semanticface.preference.types import VERDICTS, Candidate, CandidateSet, Choice, Question, Verdict

NOISE = 0.5
"""How far a simulated person misjudges, percent of the inter-pupil distance.

Between two samples of nano for one rendered photograph, with ``JND``, the nearer one is then chosen in 89 of 100 lower
and 77 of 100 upper halves in which one is chosen at all, where differences are smaller; where two such people both
choose, they agree in 85 and 70 of 100. A quarter of it would make 95 and 89, the double 79 and 66."""

JND = 0.2
"""The least difference a simulated person notices, percent of the inter-pupil distance.

In a render of 480 pixels of a face that is a third of a pixel, in the mean over all that can move: what inner brows
raised by half, or one corner of the mouth pulled up by 0.07, makes. One in seven pairs of nano's upper halves and one
in twelve of its lower ones look the same then."""


class Judge(Protocol):
    """Whoever answers questions: a simulated person or a learned network.

    Attributes:
        name: stands in place of an annotator's in choices.
    """

    @property
    def name(self) -> str: ...

    def choose(self, questions: Sequence[Question], slates: Mapping[str, CandidateSet]) -> list[Verdict]:
        """Return a verdict for each question.

        Args:
            questions: about candidates of ``slates``.
            slates: by picture.

        Raises:
            DatasetError: a question about a picture or candidate that is not there.
        """
        ...


def shown(questions: Sequence[Question], slates: Mapping[str, CandidateSet]) -> tuple[np.ndarray, np.ndarray]:
    """Return the faces that questions show on the left and on the right, two float32[n, 52].

    Args:
        questions: n of them.
        slates: by picture.

    Raises:
        DatasetError: a question about a picture or candidate that is not there.
    """
    faces = {name: {each.id: each.coefficients for each in slate.candidates} for name, slate in slates.items()}
    sides = np.zeros((2, len(questions), arkit.N_ACTIONS), np.float32)
    for place, question in enumerate(questions):
        for side, candidate in enumerate((question.a, question.b)):
            try:
                sides[side, place] = faces[question.picture][candidate]
            except KeyError:
                raise DatasetError(
                    f"question {question.id} shows candidate {candidate} of picture {question.picture}, which is not "
                    "among the candidates: give the candidates that the questions were made from."
                ) from None
    return sides[0], sides[1]


def decide(
    judge: Judge,
    questions: Sequence[Question],
    slates: Mapping[str, CandidateSet],
    *,
    model: str,
    round: int,
    time: str | None = None,
) -> list[Choice]:
    """Have a judge answer questions.

    Args:
        judge: who answers.
        questions: what is asked.
        slates: by picture.
        model: fingerprint of the model that the candidates come from.
        round: of the alignment, from 1.
        time: written into the choices, for files that must be the same bytes again; by default the present.

    Raises:
        DatasetError: a question about a picture or candidate that is not there.
        ValueError: the judge did not answer every question with a verdict.
    """
    verdicts = judge.choose(questions, slates)
    if len(verdicts) != len(questions) or not set(verdicts) <= set(VERDICTS):
        raise ValueError(f"{judge.name} gave {len(verdicts)} answers to {len(questions)} questions, or none of ours")
    time = datetime.now(UTC).isoformat(timespec="seconds") if time is None else time
    return [
        Choice(question, verdict, judge.name, model, round, time)
        for question, verdict in zip(questions, verdicts, strict=True)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedJudge:
    """A person who sees how far each render is from the truth, roughly.

    The answer depends on truth, candidates, seed and the question's id alone: asked the same question again under
    another id, this person may answer otherwise.

    Attributes:
        truth: float[52] in [0, 1] by picture.
        noise: scale of the logistic error, percent of the inter-pupil distance; 0 never errs.
        jnd: least difference noticed, likewise; of what is perceived, so that close calls too are at times seen alike.
        seed: of the person.

    Raises:
        ConfigError: noise or jnd out of range.
    """

    truth: Mapping[str, np.ndarray]
    noise: float = NOISE
    jnd: float = JND
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("noise", self.noise, 0, 100)
        check_range("jnd", self.jnd, 0, 100)

    @property
    def name(self) -> str:
        return f"simulated-{self.seed}"

    def choose(self, questions: Sequence[Question], slates: Mapping[str, CandidateSet]) -> list[Verdict]:
        """Return a verdict for each question: the nearer one, or the same; see ``Judge.choose``."""
        perceived = self._gains(questions, slates) + self.noise * self._errors(questions)
        return ["same" if abs(gain) <= self.jnd else "a" if gain > 0 else "b" for gain in perceived]

    def _gains(self, questions: Sequence[Question], slates: Mapping[str, CandidateSet]) -> np.ndarray:
        """By how much the left face is nearer to the truth than the right one, float64[n]."""
        for question in questions:
            if question.picture not in self.truth:
                raise DatasetError(f"no truth about picture {question.picture}: give that of every picture asked about")
        faces = np.concatenate(shown(questions, slates))
        # A candidate is shown in several questions, and measured once.
        keys = [(each.area, each.picture, each.a) for each in questions]
        keys += [(each.area, each.picture, each.b) for each in questions]
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        away: dict[tuple[Area, str, str], float] = {}
        for area in AREAS:
            here = [key for key in first if key[0] == area]
            if here:
                true = np.array([self.truth[picture] for _, picture, _ in here], np.float32)
                away |= dict(zip(here, distance(faces[[first[key] for key in here]], true, area), strict=True))
        left, right = np.array([away[key] for key in keys]).reshape(2, -1)
        return np.asarray(right - left)

    def _errors(self, questions: Sequence[Question]) -> np.ndarray:
        return np.array(
            [np.random.default_rng([self.seed, *_digits(question.id)]).logistic() for question in questions]
        )


def versus(
    pictures: Sequence[str], rows: Sequence[int], subjects: Sequence[str], ours: np.ndarray, theirs: np.ndarray
) -> list[CandidateSet]:
    """Return slates of two for ``win_rate``, from two sets of faces for the same pictures.

    Args:
        pictures: as in ``CandidateSet``, n of them.
        rows: likewise.
        subjects: likewise.
        ours: float32[n, 52] in [0, 1].
        theirs: float32[n, 52] in [0, 1].

    Raises:
        ValueError: lengths differ.
    """
    told = zip(pictures, rows, subjects, ours, theirs, strict=True)
    return [
        CandidateSet(picture, row, subject, (Candidate("one", "model", one), Candidate("other", "model", other)))
        for picture, row, subject, one, other in told
    ]


def win_rate(
    judge: Judge, slates: Sequence[CandidateSet], *, areas: Sequence[Area] = HALVES, seed: int = 0
) -> dict[str, Estimate]:
    """Return how often a judge prefers the first candidate of each slate to the second, blind.

    Each pair is shown once an area, sides drawn at random. No difference, and both wrong, count as half a win; skipped
    ones do not count. Intervals are bootstrapped over people (``bootstrap``).

    Args:
        judge: who compares.
        slates: of two candidates, such as ``versus`` makes; each picture once.
        areas: what is shown; ``all`` counts every comparison once.
        seed: of sides, questions' ids and the bootstrap.

    Returns:
        Share of wins in [0, 1] with its 95 % interval, by area and under ``all``; NaN where all were skipped.

    Raises:
        DatasetError: a slate that is not of two, or a picture twice.
        ValueError: no slates.
    """
    by_picture = {slate.picture: slate for slate in slates}
    if len(by_picture) != len(slates):
        raise DatasetError("a picture is to be compared twice: remove pictures with equal bytes from the dataset.")
    for slate in slates:
        if len(slate.candidates) != 2:
            raise DatasetError(f"{len(slate.candidates)} candidates for picture {slate.picture}: give two to compare.")
    swapped = np.random.default_rng([seed, 5]).random((len(areas), len(slates))) < 0.5
    questions = []
    for area, swaps in zip(areas, swapped, strict=True):
        for slate, swap in zip(slates, swaps, strict=True):
            one, other = (candidate.id for candidate in slate.candidates)
            a, b = (other, one) if swap else (one, other)
            questions.append(Question(f"win-{seed}-{area}-{slate.picture}", slate.picture, area, a, b))
    verdicts = judge.choose(questions, by_picture)
    points = {"a": 1.0, "b": 0.0, "same": 0.5, "neither": 0.5, "skip": np.nan}
    left = np.array([points[verdict] for verdict in verdicts]).reshape(swapped.shape)
    wins = np.where(swapped, 1 - left, left)
    weights = resample([slate.subject for slate in slates], seed=seed)
    found: dict[str, Estimate] = {area: _share(row[None], weights) for area, row in zip(areas, wins, strict=True)}
    return found | {"all": _share(wins, weights)}


def _share(wins: np.ndarray, weights: np.ndarray) -> Estimate:
    """Mean of wins [areas, n] that are not NaN, by weights of pictures [B, n]."""
    count = weights @ (~np.isnan(wins)).sum(axis=0)
    mean = np.full(len(weights), np.nan)
    np.divide(weights @ np.nansum(wins, axis=0), count, out=mean, where=count > 0)
    return estimate(mean)


def _digits(text: str) -> list[int]:
    """Numbers that seed a generator, from any text."""
    return list(hashlib.sha256(text.encode()).digest()[:8])
