"""One model, many askers: requests wait in line, and one thread that owns the model answers them in batches.

A request takes a *place* when it arrives and gives it back when it is over; there are only so many. While it has one it
makes its picture ready in whatever thread it likes (``predict.prepare``) and hands the crop in. The model's thread
takes the one that has waited longest, and with it up to ``batch_size`` others that are to be read alike. It waits for
others only while some are on their way, so somebody who is alone is answered at once.

What is answered does not depend on who else is in the batch: a picture's samples follow from its own seed, and each
answer goes back through its own ``Future``. A request that nobody waits for any more is cancelled through it, and its
picture is not read.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from PIL import Image
from tokenizers import Tokenizer

from semanticface.errors import SemanticFaceError
from semanticface.inference.decoder import Mode
from semanticface.inference.number_readout import Readout
from semanticface.inference.predictor import Prediction, Predictor, PreparedFace, prepare
from semanticface.vision.crop import Box

Status = Literal["loading", "ready", "failed", "stopped"]

_log = logging.getLogger(__name__)

_LONGEST_RETRY = 60


class UnavailableError(SemanticFaceError):
    """A request that cannot be taken now.

    Attributes:
        code: ``queue_full``, ``loading``, ``failed``, ``stopped``, or ``model_failed`` for the picture at hand.
        retry_after: seconds after which it is worth another try; None where it is not.
    """

    def __init__(self, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a picture is to be read; pictures with equal ones share a batch.

    Attributes:
        mode: as in ``Predictor``.
        readout: as in ``Predictor``.
        emotion: whether the answer may speak of emotion.
        temperature: 0 gives the best answer; above 0 samples.
        seed: of sampling.
        answers: samples, 1 at temperature 0.
    """

    mode: Mode
    readout: Readout
    emotion: bool
    temperature: float = 0.0
    seed: int = 0
    answers: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    style: PreparedFace
    ask: ReadOptions
    future: Future[list[Prediction]]


class QueueSlot:
    """A request's place; a context manager that gives it back."""

    def __init__(self, service: BatchingService) -> None:
        self._service = service
        self._coming = True

    def submit(self, style: PreparedFace, ask: ReadOptions) -> Future[list[Prediction]]:
        """Hand a picture in; once a place.

        Returns:
            What will hold ``ask.answers`` predictions, or one that says why there are none; or an ``UnavailableError``
            where the model failed unexpectedly. Cancel it if nobody waits.

        Raises:
            UnavailableError: the service is not running.
        """
        return self._service._submit(self, style, ask)

    def __enter__(self) -> QueueSlot:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._service._leave(self)


class BatchingService:
    """A model that answers in a thread of its own.

    Args:
        load: returns the model, with the settings by which it reads unless ``ReadOptions`` says otherwise. It runs in
            the model's thread.
        slots: requests taken at a time, at least 1.
        batch_size: pictures read together, at least 1.
        wait: seconds for which a batch waits for others that are on their way.

    Attributes:
        error: why the model could not be loaded; None otherwise.
        usual: how pictures are read unless asked otherwise; known when ready.
        predictor: the model, when ready. Other threads may look at it, not use it.
    """

    def __init__(
        self, load: Callable[[], Predictor], *, slots: int = 256, batch_size: int = 16, wait: float = 0.01
    ) -> None:
        if slots < 1 or batch_size < 1:
            raise ValueError(f"{slots} slots and batches of {batch_size}: give at least 1 of both")
        self.slots = slots
        self.batch_size = batch_size
        self.error: Exception | None = None
        self._load = load
        self._wait = wait
        self._status: Status = "loading"
        self._closing = False
        self._changed = threading.Condition()
        self._waiting: list[_Job] = []
        self._taken = 0
        self._coming = 0
        self._pace = 0.1  # seconds a picture, as it has been lately
        self._predictors: dict[tuple[Mode, Readout, bool], Predictor] = {}
        self._prompt_tokens: dict[bool, int] = {}
        self._thread = threading.Thread(target=self._run, name="semanticface model", daemon=True)

    def start(self, told: Callable[[BatchingService], None] = lambda _: None) -> None:
        """Begin to load the model; ``told`` is called from its thread when that has succeeded or failed."""
        self._told = told
        self._thread.start()

    def close(self) -> None:
        """Take no more pictures, answer those that were handed in, and return when all is done."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def status(self) -> Status:
        """``loading``, ``ready``, ``failed`` (see ``error``) or ``stopped``."""
        return self._status

    @property
    def taken(self) -> int:
        """How many places are taken."""
        return self._taken

    def place(self) -> QueueSlot:
        """Take a place.

        Raises:
            UnavailableError: all are taken, or the service is not running.
        """
        with self._changed:
            self._check_running()
            if self._taken >= self.slots:
                message = f"All {self.slots} places are taken. Try again a little later, or send fewer at a time."
                raise UnavailableError("queue_full", message, self._retry_after())
            self._taken += 1
            self._coming += 1
        return QueueSlot(self)

    def make_ready(self, data: bytes, crop: Literal["auto", "none"] | Box, name: str) -> PreparedFace | Prediction:
        """Return a picture as the model sees it, or the prediction that says why it cannot be used; in any thread.

        Args:
            data: a PNG, JPEG or WebP file.
            crop: as in ``Predictor.stream``.
            name: how the prediction calls it.
        """
        return prepare(data, 0, crop, self.predictor.bundle.image_size, name)

    def prompt_tokens(self, *, emotion: bool) -> int:
        """Return how many tokens the model is shown before it answers, those of the picture included."""
        return self._prompt_tokens[emotion and self.usual.emotion]

    def token_ends(self, text: str) -> list[int]:
        """Return after how many characters of an answer's text each of its tokens ends; in any thread."""
        return [end for _, end in self._tokenizer.encode(text, add_special_tokens=False).offsets]

    def _check_running(self) -> None:
        if self._closing or self._status == "stopped":
            raise UnavailableError("stopped", "The server is stopping. Ask another one, or later.", 5)
        if self._status == "loading":
            raise UnavailableError("loading", "The model is being loaded. Ask again when /ready answers 200.", 2)
        if self._status == "failed":
            raise UnavailableError("failed", "The model could not be loaded. The server's terminal says why.", 60)

    def _retry_after(self) -> int:
        return max(1, min(_LONGEST_RETRY, math.ceil(self._pace * self._taken)))

    def _submit(self, place: QueueSlot, style: PreparedFace, ask: ReadOptions) -> Future[list[Prediction]]:
        job = _Job(style, ask, Future())
        job.future.add_done_callback(lambda future: self._forget(job) if future.cancelled() else None)
        with self._changed:
            # A request that came before the end is still answered.
            if self._status != "ready":
                self._check_running()
            self._arrived(place)
            self._waiting.append(job)
            self._changed.notify_all()
        return job.future

    def _leave(self, place: QueueSlot) -> None:
        with self._changed:
            self._arrived(place)
            self._taken -= 1

    def _arrived(self, place: QueueSlot) -> None:
        if place._coming:
            place._coming = False
            self._coming -= 1
            self._changed.notify_all()

    def _forget(self, job: _Job) -> None:
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)

    # --- the model's thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._begin(self._load())
            self._status = "ready"
        except Exception as error:  # told to whoever started the service; a thread has nobody to raise it to
            self.error = error
            self._status = "failed"
        self._told(self)
        while self._status == "ready":
            batch = self._next_batch()
            if batch:
                self._answer(batch)

    def _begin(self, predictor: Predictor) -> None:
        """Read a blank picture in each wording of the question, so that the first asker need not wait for that."""
        from semanticface.models.inputs import prompt_inputs

        decoder = predictor.reader.decoder
        self.predictor = predictor
        self.usual = ReadOptions(decoder.mode, decoder.readout, decoder.emotion)
        self._predictors[self.usual.mode, self.usual.readout, self.usual.emotion] = predictor
        self._tokenizer = Tokenizer.from_str(predictor.bundle.tokenizer.backend_tokenizer.to_str())
        size = predictor.bundle.image_size
        blank = Image.new("RGB", (size, size), "grey")
        for emotion in {self.usual.emotion, False}:
            prompt = self._predictor(ReadOptions(self.usual.mode, self.usual.readout, emotion)).prompt
            inputs = prompt_inputs(predictor.bundle, prompt, [blank])
            self._prompt_tokens[emotion] = inputs["input_ids"].shape[1]
        prepare(blank, 0, "auto", size)  # loads the face finder
        predictor.answer([PreparedFace("blank", 0, blank, Box(0, 0, size, size), "")])

    def _next_batch(self) -> list[_Job]:
        """Wait for pictures and return those to be read next, all alike; none at the end, when it says so."""
        with self._changed:
            while not self._waiting:
                if self._closing:
                    self._status = "stopped"  # under the lock: what is handed in after this would never be read
                    return []
                self._changed.wait()
            until = time.monotonic() + self._wait
            while True:
                # Samples of one picture are rows of the batch, too.
                most = max(1, self.batch_size // self._waiting[0].ask.answers) if self._waiting else 0
                alike = [job for job in self._waiting if job.ask == self._waiting[0].ask][:most]
                left = until - time.monotonic()
                if len(alike) == most or not self._coming or left <= 0:
                    break
                self._changed.wait(left)
            self._waiting = [job for job in self._waiting if job not in alike]
        return [job for job in alike if job.future.set_running_or_notify_cancel()]

    def _answer(self, batch: list[_Job]) -> None:
        ask = batch[0].ask
        began = time.monotonic()
        try:
            looks = [job.style for job in batch]
            found = self._predictor(ask).answer(looks, ask.temperature, ask.seed, ask.answers)
        except Exception as error:  # one bad batch must not end the service
            _log.exception("a batch of %d failed", len(batch))
            for job in batch:
                failed = UnavailableError("model_failed", "The model failed. The server's terminal says why.")
                failed.__cause__ = error
                job.future.set_exception(failed)
            return
        self._pace += 0.2 * ((time.monotonic() - began) / len(batch) - self._pace)
        for job, predictions in zip(batch, found, strict=True):
            job.future.set_result(predictions)

    def _predictor(self, ask: ReadOptions) -> Predictor:
        key = (ask.mode, ask.readout, ask.emotion)
        if key not in self._predictors:
            self._predictors[key] = Predictor(
                self.predictor.bundle, mode=ask.mode, readout=ask.readout, emotion=ask.emotion
            )
        return self._predictors[key]
