"""Simulated judges, and the win rate of one set of faces over another.

A judge perceives how much nearer one face is than the other, with an error, and sees no difference below a threshold.
With a logistic error this is the model of Rao and Kupper (1967), Bradley and Terry's (1952) with ties:
P(A) = s((gain - threshold) / noise), P(B) = s((-gain - threshold) / noise), the rest is "same"; s is the logistic
function and the gain is how much nearer A is.
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
from semanticface.preference.regions import HALVES, REGIONS, Region, distance
from semanticface.preference.types import VERDICTS, Candidate, CandidateSet, Choice, Question, Verdict

NOISE = 0.5
"""Scale of a simulated person's error, percent of the inter-pupil distance.

Between two samples of nano for one rendered photograph, with ``JND``, the nearer one is then chosen in 89 of 100 lower
and 77 of 100 upper halves with a choice (differences are smaller in upper halves); where two such people both choose,
they agree in 85 and 70 of 100. A quarter of the noise gives 95 and 89, double the noise 79 and 66."""

JND = 0.2
"""Just noticeable difference of a simulated person, percent of the inter-pupil distance.

In a face rendered at 480 pixels this is a third of a pixel, averaged over all vertices that can move: about inner brows
raised by half, or one mouth corner pulled up by 0.07. One in seven pairs of nano's upper halves and one in twelve of
its lower halves then look the same."""


class Judge(Protocol):
    """Answers questions: a simulated person or a learned network.

    Attributes:
        name: the annotator in its choices.
    """

    @property
    def name(self) -> str: ...

    def choose(self, questions: Sequence[Question], candidate_sets: Mapping[str, CandidateSet]) -> list[Verdict]:
        """Return a verdict for each question.

        Args:
            questions: about candidates of ``candidate_sets``.
            candidate_sets: by picture.

        Raises:
            DatasetError: a question about an unknown picture or candidate.
        """
        ...


def question_faces(
    questions: Sequence[Question], candidate_sets: Mapping[str, CandidateSet]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the left and the right faces of n questions, two float32[n, 52]."""
    faces = {name: {each.id: each.coefficients for each in found.candidates} for name, found in candidate_sets.items()}
    sides = np.zeros((2, len(questions), arkit.N_ACTIONS), np.float32)
    for index, question in enumerate(questions):
        for side, candidate in enumerate((question.a, question.b)):
            try:
                sides[side, index] = faces[question.picture][candidate]
            except KeyError:
                raise DatasetError(
                    f"question {question.id} shows candidate {candidate} of picture {question.picture}, which is not "
                    "among the candidates: give the candidates that the questions were made from."
                ) from None
    return sides[0], sides[1]


def judge_choices(
    judge: Judge,
    questions: Sequence[Question],
    candidate_sets: Mapping[str, CandidateSet],
    *,
    model: str,
    round: int,
    time: str | None = None,
) -> list[Choice]:
    """Return a judge's choices.

    Args:
        judge: answers.
        questions: what to ask.
        candidate_sets: by picture.
        model: fingerprint of the model that the candidates come from.
        round: of the alignment, from 1.
        time: of the choices, fixed where files must be reproducible; default now.
    """
    verdicts = judge.choose(questions, candidate_sets)
    if len(verdicts) != len(questions) or not set(verdicts) <= set(VERDICTS):
        raise ValueError(f"{judge.name} gave {len(verdicts)} answers to {len(questions)} questions, or invalid ones")
    time = datetime.now(UTC).isoformat(timespec="seconds") if time is None else time
    return [
        Choice(question, verdict, judge.name, model, round, time)
        for question, verdict in zip(questions, verdicts, strict=True)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedJudge:
    """A person who perceives the distance of each render from the ground truth with an error.

    A verdict depends only on ground truth, candidates, seed and the question's id: a repetition, which has another id,
    may get another verdict.

    Attributes:
        truth: float[52] in [0, 1] by picture.
        noise: scale of the logistic error, percent of the inter-pupil distance; 0 for none.
        jnd: just noticeable difference, in the same unit; applied to the perceived difference, so close calls are
            sometimes judged the same.
        seed: of the error.

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

    def choose(self, questions: Sequence[Question], candidate_sets: Mapping[str, CandidateSet]) -> list[Verdict]:
        """Return a, b or same for each question; see ``Judge.choose``."""
        perceived = self._gains(questions, candidate_sets) + self.noise * self._errors(questions)
        return ["same" if abs(gain) <= self.jnd else "a" if gain > 0 else "b" for gain in perceived]

    def _gains(self, questions: Sequence[Question], candidate_sets: Mapping[str, CandidateSet]) -> np.ndarray:
        """Return how much nearer the left face is to the ground truth than the right one, float64[n]."""
        for question in questions:
            if question.picture not in self.truth:
                raise DatasetError(
                    f"no ground truth for picture {question.picture}: give that of every picture in a question"
                )
        faces = np.concatenate(question_faces(questions, candidate_sets))  # [2n, 52], left then right
        # Each candidate is measured once, though it appears in several questions.
        keys = [(each.region, each.picture, each.a) for each in questions]
        keys += [(each.region, each.picture, each.b) for each in questions]
        first = {key: index for index, key in reversed(list(enumerate(keys)))}
        distances: dict[tuple[Region, str, str], float] = {}
        for region in REGIONS:
            here = [key for key in first if key[0] == region]
            if here:
                true = np.array([self.truth[picture] for _, picture, _ in here], np.float32)
                distances |= dict(zip(here, distance(faces[[first[key] for key in here]], true, region), strict=True))
        left, right = np.array([distances[key] for key in keys]).reshape(2, -1)
        return np.asarray(right - left)

    def _errors(self, questions: Sequence[Question]) -> np.ndarray:
        return np.array(
            [np.random.default_rng([self.seed, *_seed_bytes(question.id)]).logistic() for question in questions]
        )


def comparison_sets(
    pictures: Sequence[str], rows: Sequence[int], subjects: Sequence[str], ours: np.ndarray, theirs: np.ndarray
) -> list[CandidateSet]:
    """Return candidate sets of two for ``win_rate``, from two float32[n, 52] in [0, 1] for the same n pictures."""
    return [
        CandidateSet(picture, row, subject, (Candidate("one", "model", one), Candidate("other", "model", other)))
        for picture, row, subject, one, other in zip(pictures, rows, subjects, ours, theirs, strict=True)
    ]


def win_rate(
    judge: Judge, candidate_sets: Sequence[CandidateSet], *, regions: Sequence[Region] = HALVES, seed: int = 0
) -> dict[str, Estimate]:
    """Return how often a judge, blind to the source, prefers the first candidate of each set to the second.

    Each pair is shown once per region, with random sides. "same" and "neither" count as half a win; "skip" does not
    count. Intervals are bootstrapped over people (``bootstrap``).

    Args:
        judge: compares.
        candidate_sets: of two candidates, as from ``comparison_sets``; each picture once.
        regions: what is shown; ``all`` counts every comparison once.
        seed: of sides, question ids and the bootstrap.

    Returns:
        Proportion of wins in [0, 1] with its 95 % interval, by region and under ``all``; NaN where all were skipped.

    Raises:
        DatasetError: a set that is not of two, or a picture twice.
        ValueError: no candidate sets.
    """
    by_picture = {each.picture: each for each in candidate_sets}
    if len(by_picture) != len(candidate_sets):
        raise DatasetError(
            "a picture appears twice in a comparison: remove pictures with equal bytes from the dataset."
        )
    for each in candidate_sets:
        if len(each.candidates) != 2:
            raise DatasetError(f"{len(each.candidates)} candidates for picture {each.picture}: give two to compare.")
    swapped = np.random.default_rng([seed, 5]).random((len(regions), len(candidate_sets))) < 0.5
    questions = []
    for region, swaps in zip(regions, swapped, strict=True):
        for each, swap in zip(candidate_sets, swaps, strict=True):
            one, other = (candidate.id for candidate in each.candidates)
            a, b = (other, one) if swap else (one, other)
            questions.append(Question(f"win-{seed}-{region}-{each.picture}", each.picture, region, a, b))
    verdicts = judge.choose(questions, by_picture)
    points = {"a": 1.0, "b": 0.0, "same": 0.5, "neither": 0.5, "skip": np.nan}
    left = np.array([points[verdict] for verdict in verdicts]).reshape(swapped.shape)  # [regions, n]
    wins = np.where(swapped, 1 - left, left)
    weights = resample([each.subject for each in candidate_sets], seed=seed)
    found: dict[str, Estimate] = {
        region: _win_estimate(row[None], weights) for region, row in zip(regions, wins, strict=True)
    }
    return found | {"all": _win_estimate(wins, weights)}


def _win_estimate(wins: np.ndarray, weights: np.ndarray) -> Estimate:
    """Return the mean of wins [regions, n] that are not NaN, by bootstrap weights of pictures [B, n]."""
    count = weights @ (~np.isnan(wins)).sum(axis=0)
    mean = np.full(len(weights), np.nan)
    np.divide(weights @ np.nansum(wins, axis=0), count, out=mean, where=count > 0)
    return estimate(mean)


def _seed_bytes(text: str) -> list[int]:
    return list(hashlib.sha256(text.encode()).digest()[:8])
