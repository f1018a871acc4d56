"""An annotator's session: the next question, its answer, the progress.

Some questions, the same for all, go to every annotator, so that agreement can be measured; each other question is
answered by whoever comes to it first. Everybody has their own order, so two who work at the same time rarely meet.
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

PREFETCH = 6
"""Questions rendered ahead of the annotator."""


def is_shared(question: Question, overlap: float) -> bool:
    """Return whether a question is in the proportion ``overlap`` that goes to all; a repetition follows its first."""
    digest = hashlib.sha256((question.of or question.id).encode()).digest()
    return int.from_bytes(digest[:8], "big") < overlap * 2**64


def question_order(questions: Sequence[Question], annotator: str) -> list[Question]:
    """Return questions from ``make_questions`` in an annotator's own order; repetitions keep their distance.

    Two annotators who work at the same time rarely see the same question.
    """
    before = {question.id: nth for nth, question in enumerate(q for q in questions if not q.of)}
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
    """An annotator's progress.

    Attributes:
        done: questions answered by this annotator.
        left: open questions; fewer once others answer some of them.
        can_undo: whether there is a choice to undo.
    """

    done: int
    left: int
    can_undo: bool


class Session:
    """Asks one annotator and stores their choices; thread-safe.

    Args:
        store: of the choices.
        questions: of the round, from ``make_questions``.
        render: makes a question's images; a ``PictureError`` skips the question.
        annotator: pseudonym.
        model: fingerprint of the model that the candidates come from.
        round: of the alignment, from 1.
        overlap: proportion of questions for every annotator.
        on_error: receives an error for each picture that cannot be shown.
    """

    def __init__(
        self,
        store: Store,
        questions: Sequence[Question],
        render: Callable[[Question], QuestionImages],
        *,
        annotator: str,
        model: str,
        round: int,
        overlap: float,
        on_error: Callable[[str], None],
    ) -> None:
        self.store = store
        self.annotator = annotator
        self.model = model
        self.round = round
        self._render = render
        self._overlap = overlap
        self._on_error = on_error
        self._lock = threading.Lock()
        self._questions = {question.id: question for question in questions}
        self._broken: set[str] = set()  # pictures that cannot be shown
        mine = store.choices(annotator=annotator, model=model, round=round)
        self._answered = {choice.question.id for choice in mine}
        self._order = question_order(questions, annotator)
        self._again: deque[QuestionImages] = deque()  # undone, to be asked before those rendered ahead
        self._rendered = prefetch(self._render_ahead(), PREFETCH)
        self._current: QuestionImages | None = None
        self._advance()

    def close(self) -> None:
        """Stop rendering ahead."""
        self._rendered.close()

    @property
    def current(self) -> QuestionImages | None:
        """The current question; None when there are no more."""
        return self._current

    def progress(self) -> Progress:
        """Return the annotator's progress."""
        with self._lock:
            others = self._others()
            left = sum(self._is_open(question, others) for question in self._order)
            done = len(self._answered.intersection(self._questions))
            return Progress(done, left, done > 0)

    def answer(self, question: str, verdict: Verdict) -> bool:
        """Store a choice and advance to the next question; False, and no effect, if it is not about the current one.

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
        """Undo the annotator's last choice and ask that question again; False if this session has none left.

        Raises:
            SemanticFaceError: it cannot be stored.
        """
        with self._lock:
            mine = self.store.choices(annotator=self.annotator, model=self.model, round=self.round)
            # The last choice may be about other regions, which this session does not ask about.
            if not mine or mine[-1].question.id not in self._questions:
                return False
            self.store.undo(self.annotator, self.model, self.round)
            question = self._questions[mine[-1].question.id]
            self._answered.discard(question.id)
            images = self._try_render(question)
            if images is not None:
                if self._current is not None:
                    self._again.appendleft(self._current)
                self._current = images
            return True

    def _advance(self) -> None:
        """Make the next open question the current one."""
        others = self._others()
        waiting = itertools.chain((self._again.popleft() for _ in range(len(self._again))), self._rendered)
        try:
            self._current = next((each for each in waiting if self._is_open(each.question, others)), None)
        except SemanticFaceError:
            # The error ended rendering ahead, and there are more questions.
            self._rendered = prefetch(self._render_ahead(), PREFETCH)
            raise

    def _render_ahead(self) -> Iterator[QuestionImages]:
        """Render open questions; runs ahead on its own thread."""
        for question in self._order:
            if self._is_open(question, self._others()) and (images := self._try_render(question)) is not None:
                yield images

    def _try_render(self, question: Question) -> QuestionImages | None:
        try:
            return self._render(question)
        except PictureError as error:
            if question.picture not in self._broken:
                self._broken.add(question.picture)
                self._on_error(str(error))
            return None

    def _others(self) -> set[str]:
        return self.store.answered_by_others(self.annotator, self.model, self.round)

    def _is_open(self, question: Question, others: Set[str]) -> bool:
        """Return whether the annotator still has to answer a question, now or after the one that it repeats."""
        if question.id in self._answered or question.picture in self._broken:
            return False
        if question.of:
            return question.of in self._answered or self._is_open(self._questions[question.of], others)
        return question.id not in others or is_shared(question, self._overlap)
