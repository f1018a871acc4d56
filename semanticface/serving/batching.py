"""Batched inference behind a queue: a single thread owns the model and answers concurrent requests in batches.

A request acquires a slot on arrival and releases it when it is done; the number of slots is limited. Meanwhile it
prepares its image in any thread (``predictor.prepare``) and submits the crop. The model's thread takes the job that has
waited longest, and others with equal options, up to ``batch_size``. It waits for further jobs only while other requests
hold a slot without having submitted, so a lone request is answered at once.

An answer does not depend on the other images in its batch: samples use the seed of their own request, and each result
is delivered through its own ``Future``. Cancelling the future removes a job that has not started.
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

_MAX_RETRY_AFTER = 60


class UnavailableError(SemanticFaceError):
    """A request that cannot be accepted now.

    Attributes:
        code: ``queue_full``, ``loading``, ``failed``, ``stopped``, or ``model_failed`` for this image.
        retry_after: seconds after which a retry may succeed; None if it cannot.
    """

    def __init__(self, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read an image; images with equal options share a batch.

    Attributes:
        mode: as in ``Predictor``.
        readout: as in ``Predictor``.
        emotion: whether the analysis may include an emotion.
        temperature: of the sampling; 0 gives the best answer.
        seed: of the sampling.
        answers: number of samples; 1 at temperature 0.
    """

    mode: Mode
    readout: Readout
    emotion: bool
    temperature: float = 0.0
    seed: int = 0
    answers: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    face: PreparedFace
    options: ReadOptions
    future: Future[list[Prediction]]


class QueueSlot:
    """The slot of one request; a context manager that releases it."""

    def __init__(self, service: BatchingService) -> None:
        self._service = service
        self._submitted = False

    def submit(self, face: PreparedFace, options: ReadOptions) -> Future[list[Prediction]]:
        """Submit a prepared image; once per slot.

        Returns:
            A future of ``options.answers`` predictions, or of one with the reason why there are none. It raises
            ``UnavailableError`` if the model fails unexpectedly.

        Raises:
            UnavailableError: the service is not running.
        """
        return self._service._submit(self, face, options)

    def __enter__(self) -> QueueSlot:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._service._release(self)


class BatchingService:
    """A model that answers requests in its own thread.

    Args:
        load: returns the model; its settings are the defaults of ``ReadOptions``. Runs in the model's thread.
        slots: maximum number of concurrent requests, at least 1.
        batch_size: maximum number of images per batch, at least 1.
        wait: seconds a batch waits for requests that have not submitted yet.

    Attributes:
        error: why the model could not be loaded, or None.
        defaults: the default options; set once ready.
        predictor: the model; set once ready. Other threads may inspect it, not use it.
    """

    def __init__(
        self, load: Callable[[], Predictor], *, slots: int = 256, batch_size: int = 16, wait: float = 0.01
    ) -> None:
        if slots < 1 or batch_size < 1:
            raise ValueError(f"{slots} slots and a batch size of {batch_size}: both must be at least 1")
        self.slots = slots
        self.batch_size = batch_size
        self.error: Exception | None = None
        self._load = load
        self._wait = wait
        self._status: Status = "loading"
        self._closing = False
        self._changed = threading.Condition()
        self._queue: list[_Job] = []
        self._slots_taken = 0
        self._not_submitted = 0  # slots whose request is still being received or prepared
        self._seconds_per_image = 0.1  # moving average
        self._predictors: dict[tuple[Mode, Readout, bool], Predictor] = {}
        self._prompt_tokens: dict[bool, int] = {}
        self._thread = threading.Thread(target=self._run, name="semanticface model", daemon=True)

    def start(self, on_loaded: Callable[[BatchingService], None] = lambda _: None) -> None:
        """Start loading the model; ``on_loaded`` is called from its thread once this has succeeded or failed."""
        self._on_loaded = on_loaded
        self._thread.start()

    def close(self) -> None:
        """Accept no more requests, finish the submitted ones, and return when all are done."""
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
    def slots_taken(self) -> int:
        """Number of slots in use."""
        return self._slots_taken

    def acquire_slot(self) -> QueueSlot:
        """Acquire a slot.

        Raises:
            UnavailableError: all slots are in use, or the service is not running.
        """
        with self._changed:
            self._check_running()
            if self._slots_taken >= self.slots:
                message = f"All {self.slots} slots are in use. Try again later, or send fewer requests at a time."
                raise UnavailableError("queue_full", message, self._retry_after())
            self._slots_taken += 1
            self._not_submitted += 1
        return QueueSlot(self)

    def prepare(self, data: bytes, crop: Literal["auto", "none"] | Box, name: str) -> PreparedFace | Prediction:
        """Return the prepared face, or a prediction with the reason why there is none; in any thread.

        Args:
            data: a PNG, JPEG or WebP file.
            crop: as in ``Predictor.stream``.
            name: the prediction's ``image``.
        """
        return prepare(data, 0, crop, self.predictor.bundle.image_size, name)

    def prompt_tokens(self, *, emotion: bool) -> int:
        """Return the number of prompt tokens, including those of the image."""
        return self._prompt_tokens[emotion and self.defaults.emotion]

    def token_ends(self, text: str) -> list[int]:
        """Return the end position in characters of each token of an answer's text; in any thread."""
        return [end for _, end in self._tokenizer.encode(text, add_special_tokens=False).offsets]

    def _check_running(self) -> None:
        if self._closing or self._status == "stopped":
            raise UnavailableError("stopped", "The server is stopping. Try another one, or try again later.", 5)
        if self._status == "loading":
            raise UnavailableError("loading", "The model is loading. Try again when /ready returns 200.", 2)
        if self._status == "failed":
            raise UnavailableError("failed", "The model could not be loaded. See the server's log.", 60)

    def _retry_after(self) -> int:
        return max(1, min(_MAX_RETRY_AFTER, math.ceil(self._seconds_per_image * self._slots_taken)))

    def _submit(self, slot: QueueSlot, face: PreparedFace, options: ReadOptions) -> Future[list[Prediction]]:
        job = _Job(face, options, Future())
        job.future.add_done_callback(lambda future: self._discard(job) if future.cancelled() else None)
        with self._changed:
            # While closing, requests that already hold a slot are still answered.
            if self._status != "ready":
                self._check_running()
            self._mark_submitted(slot)
            self._queue.append(job)
            self._changed.notify_all()
        return job.future

    def _release(self, slot: QueueSlot) -> None:
        with self._changed:
            self._mark_submitted(slot)
            self._slots_taken -= 1

    def _mark_submitted(self, slot: QueueSlot) -> None:
        if not slot._submitted:
            slot._submitted = True
            self._not_submitted -= 1
            self._changed.notify_all()

    def _discard(self, job: _Job) -> None:
        with self._changed:
            if job in self._queue:
                self._queue.remove(job)

    # --- the model's thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._warm_up(self._load())
            self._status = "ready"
        except Exception as error:  # reported through on_loaded: nothing catches it in a thread
            self.error = error
            self._status = "failed"
        self._on_loaded(self)
        while self._status == "ready":
            batch = self._next_batch()
            if batch:
                self._answer(batch)

    def _warm_up(self, predictor: Predictor) -> None:
        """Count the tokens of each prompt and read a blank image, so that the first request is not slower."""
        from semanticface.models.inputs import prompt_inputs

        decoder = predictor.engine.decoder
        self.predictor = predictor
        self.defaults = ReadOptions(decoder.mode, decoder.readout, decoder.emotion)
        self._predictors[self.defaults.mode, self.defaults.readout, self.defaults.emotion] = predictor
        self._tokenizer = Tokenizer.from_str(predictor.bundle.tokenizer.backend_tokenizer.to_str())
        size = predictor.bundle.image_size
        blank = Image.new("RGB", (size, size), "grey")
        for emotion in {self.defaults.emotion, False}:
            prompt = self._predictor(ReadOptions(self.defaults.mode, self.defaults.readout, emotion)).prompt
            inputs = prompt_inputs(predictor.bundle, prompt, [blank])
            self._prompt_tokens[emotion] = inputs["input_ids"].shape[1]
        prepare(blank, 0, "auto", size)  # loads the face detector
        predictor.answer([PreparedFace("blank", 0, blank, Box(0, 0, size, size), "")])

    def _next_batch(self) -> list[_Job]:
        """Wait for jobs and return the next batch, all with equal options; empty when closing."""
        with self._changed:
            while not self._queue:
                if self._closing:
                    self._status = "stopped"  # under the lock: a job submitted later would never be answered
                    return []
                self._changed.wait()
            deadline = time.monotonic() + self._wait
            while True:
                # Each sample of an image is a row of the batch.
                limit = max(1, self.batch_size // self._queue[0].options.answers) if self._queue else 0
                batch = [job for job in self._queue if job.options == self._queue[0].options][:limit]
                remaining = deadline - time.monotonic()
                if len(batch) == limit or not self._not_submitted or remaining <= 0:
                    break
                self._changed.wait(remaining)
            self._queue = [job for job in self._queue if job not in batch]
        return [job for job in batch if job.future.set_running_or_notify_cancel()]

    def _answer(self, batch: list[_Job]) -> None:
        options = batch[0].options
        started = time.monotonic()
        try:
            faces = [job.face for job in batch]
            results = self._predictor(options).answer(faces, options.temperature, options.seed, options.answers)
        except Exception as error:  # a failed batch must not end the service
            _log.exception("a batch of %d failed", len(batch))
            for job in batch:
                failure = UnavailableError("model_failed", "The model failed. See the server's log.")
                failure.__cause__ = error
                job.future.set_exception(failure)
            return
        self._seconds_per_image += 0.2 * ((time.monotonic() - started) / len(batch) - self._seconds_per_image)
        for job, predictions in zip(batch, results, strict=True):
            job.future.set_result(predictions)

    def _predictor(self, options: ReadOptions) -> Predictor:
        key = (options.mode, options.readout, options.emotion)
        if key not in self._predictors:
            self._predictors[key] = Predictor(
                self.predictor.bundle, mode=options.mode, readout=options.readout, emotion=options.emotion
            )
        return self._predictors[key]
