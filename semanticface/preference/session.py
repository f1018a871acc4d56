"""One annotator at work: which question is next, what became of it, how far along they are.

Some questions, the same for all, are put to every annotator, so that agreement can be measured; each other question is
answered by whoever comes to it first. Everybody has an order of their own, so two who work at the same time rarely
meet.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass

import numpy as np

from semanticface.errors import PictureError, SemanticFaceError
from semanticface.preference.files import now
from semanticface.preference.question_images import QuestionImages
from semanticface.preference.store import Store
from semanticface.preference.types import Choice, Question, Verdict
from semanticface.utils.prefetch import prefetch

DEPTH = 6
"""Questions drawn ahead of the annotator."""


def shared(question: Question, overlap: float) -> bool:
    """Return whether a question belongs to the share that is put to every annotator; a repetition goes with its first.

    Args:
        question: which.
        overlap: that share, 0 to 1.
    """
    digest = hashlib.sha256((question.of or question.id).encode()).digest()
    return int.from_bytes(digest[:8], "big") < overlap * 2**64


def plan(questions: Sequence[Question], annotator: str) -> list[Question]:
    """Return the questions in the order in which an annotator gets them.

    Everybody's order is their own, so that two who work at the same time rarely have the same question before them. A
    repetition keeps its distance from the question that it repeats.

    Args:
        questions: from ``questions.ask``.
        annotator: pseudonym.
    """
    before = {question.id: place for place, question in enumerate(q for q in questions if not q.of)}
    rng = np.random.default_rng(list(hashlib.sha256(annotator.encode()).digest()))
    own = dict(zip(before, rng.permutation(len(before)).tolist(), strict=True))
    placed = []
    passed = 0
    for order, question in enumerate(questions):
        if question.of:
            placed.append((own[question.of] + passed - before[question.of] - 0.5, order, question))
        else:
            placed.append((own[question.id], order, question))
            passed += 1
    return [question for _, _, question in sorted(placed, key=lambda each: each[:2])]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an annotator is.

    Attributes:
        done: questions answered by this annotator.
        left: questions that still wait for them; fewer once others answer some of those.
        can_undo: whether there is a choice to take back.
    """

    done: int
    left: int
    can_undo: bool


class Session:
    """Puts questions to one annotator and stores what they choose; safe to use from several threads.

    Args:
        store: where choices go.
        questions: of the round, from ``questions.ask``.
        draw: makes what a question shows; a ``PictureError`` leaves the question out.
        annotator: pseudonym.
        model: fingerprint of the model that the candidates come from.
        round: of the alignment, from 1.
        overlap: share of questions put to every annotator.
        complain: is told what is wrong with each picture that cannot be shown.
    """

    def __init__(
        self,
        store: Store,
        questions: Sequence[Question],
        draw: Callable[[Question], QuestionImages],
        *,
        annotator: str,
        model: str,
        round: int,
        overlap: float,
        complain: Callable[[str], None],
    ) -> None:
        self.store = store
        self.annotator = annotator
        self.model = model
        self.round = round
        self._draw = draw
        self._overlap = overlap
        self._complain = complain
        self._lock = threading.Lock()
        self._questions = {question.id: question for question in questions}
        self._broken: set[str] = set()  # pictures that cannot be shown
        mine = store.choices(annotator=annotator, model=model, round=round)
        self._answered = {choice.question.id for choice in mine}
        self._order = plan(questions, annotator)
        self._again: deque[QuestionImages] = deque()  # taken back, to be shown before what was drawn ahead
        self._drawn = prefetch(self._drawings(), DEPTH)
        self._current: QuestionImages | None = None
        self._advance()

    def close(self) -> None:
        """Stop drawing ahead."""
        self._drawn.close()

    @property
    def current(self) -> QuestionImages | None:
        """The question to be answered; None when there are no more."""
        return self._current

    def progress(self) -> Progress:
        """Return how far the annotator is."""
        with self._lock:
            others = self._others()
            left = sum(self._open(question, others) for question in self._order)
            done = len(self._answered.intersection(self._questions))
            return Progress(done, left, done > 0)

    def answer(self, question: str, verdict: Verdict) -> bool:
        """Store a choice and go on to the next question; False, and nothing changes, if it is not the current one.

        Raises:
            SemanticFaceError: it cannot be stored; the question stays the current one.
        """
        with self._lock:
            if self._current is None or self._current.question.id != question:
                return False
            choice = Choice(self._current.question, verdict, self.annotator, self.model, self.round, now())
            self.store.add(choice)
            self._answered.add(question)
            self._advance()
            return True

    def undo(self) -> bool:
        """Take back the annotator's last choice and ask that question again; False if none of this session's is left.

        Raises:
            SemanticFaceError: it cannot be stored.
        """
        with self._lock:
            mine = self.store.choices(annotator=self.annotator, model=self.model, round=self.round)
            # One about other areas may be the last; nobody takes back what they do not see.
            if not mine or mine[-1].question.id not in self._questions:
                return False
            self.store.undo(self.annotator, self.model, self.round)
            question = self._questions[mine[-1].question.id]
            self._answered.discard(question.id)
            shown = self._draw_or_complain(question)
            if shown is not None:
                if self._current is not None:
                    self._again.appendleft(self._current)
                self._current = shown
            return True

    def _advance(self) -> None:
        """Make the next question that still waits for an answer the current one."""
        others = self._others()
        waiting = itertools.chain((self._again.popleft() for _ in range(len(self._again))), self._drawn)
        try:
            self._current = next((shown for shown in waiting if self._open(shown.question, others)), None)
        except SemanticFaceError:
            # What was drawn ahead ended with it, and there are more questions.
            self._drawn = prefetch(self._drawings(), DEPTH)
            raise

    def _drawings(self) -> Iterator[QuestionImages]:
        """Draw the questions that wait for an answer; runs ahead on a thread of its own."""
        for question in self._order:
            if self._open(question, self._others()) and (shown := self._draw_or_complain(question)) is not None:
                yield shown

    def _draw_or_complain(self, question: Question) -> QuestionImages | None:
        try:
            return self._draw(question)
        except PictureError as error:
            if question.picture not in self._broken:
                self._broken.add(question.picture)
                self._complain(str(error))
            return None

    def _others(self) -> set[str]:
        return self.store.answered_by_others(self.annotator, self.model, self.round)

    def _open(self, question: Question, others: Set[str]) -> bool:
        """Return whether the annotator is still to answer a question, now or after the one that it repeats."""
        if question.id in self._answered or question.picture in self._broken:
            return False
        if question.of:
            return question.of in self._answered or self._open(self._questions[question.of], others)
        return question.id not in others or shared(question, self._overlap)
