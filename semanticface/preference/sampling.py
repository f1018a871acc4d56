"""Candidates: sampled answers of a model for each picture, different enough to be told apart in renders.

Answers are sampled without an analysis, since only their numbers are rendered. A sample depends only on the seed, the
row and the model, not on other rows or the batch. The label of the capture software, where there is one, is another
candidate.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import datasets
import numpy as np
from PIL import Image

from semanticface.arkit import N_ACTIONS, to_hundredths
from semanticface.config import check_range
from semanticface.data.faces import picture_bytes
from semanticface.errors import DatasetError, PictureError
from semanticface.inference.predictor import Predictor
from semanticface.models.inputs import prompt_inputs
from semanticface.preference.questions import MIN_DISTANCE
from semanticface.preference.regions import HALVES, distance
from semanticface.preference.types import Candidate, CandidateSet
from semanticface.semantics.answer import parse_answer
from semanticface.utils.progress import tqdm
from semanticface.vision.crop import Box, crop_face
from semanticface.vision.image_io import load_picture

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CandidateSettings:
    """How candidates are sampled.

    Attributes:
        count: most sampled candidates per picture, besides the label of the capture software.
        temperature: of sampling; 1 samples the model's distribution.
        explore: probability that an action of a sample is replaced by a uniformly random value. Without it, an action
            that the capture software never reported and the model therefore never predicts could not be preferred.
        min_distance: smallest difference between two candidates, in at least one half of the face, in percent of the
            inter-pupil distance (``regions.distance``).
        tries: most samples for each candidate wanted; a confident model repeats itself.
        seed: of sampling.
        batch_size: pictures per batch.
    """

    count: int = 4
    temperature: float = 1.0
    explore: float = 0.01
    min_distance: float = MIN_DISTANCE
    tries: int = 4
    seed: int = 0
    batch_size: int = 16

    def __post_init__(self) -> None:
        check_range("candidates.count", self.count, 1, 100)
        check_range("candidates.temperature", self.temperature, 0.01, 100)
        check_range("candidates.explore", self.explore, 0, 1)
        check_range("candidates.min_distance", self.min_distance, 0, 100)
        check_range("candidates.tries", self.tries, 1, 100)
        check_range("candidates.seed", self.seed, 0)
        check_range("candidates.batch_size", self.batch_size, 1)


@dataclass(slots=True, eq=False)
class _Sampling:
    """A picture and the candidates found for it so far."""

    row: int
    picture: str
    subject: str
    crop: Image.Image
    label: np.ndarray | None
    sampled: list[np.ndarray]

    def add(self, face: np.ndarray, min_distance: float) -> None:
        """Add a face unless it looks like one found before."""
        known = self.sampled if self.label is None else [self.label, *self.sampled]
        if known:
            others, same = np.stack(known), np.repeat(face[None], len(known), axis=0)
            if np.maximum(*(distance(same, others, half) for half in HALVES)).min() < min_distance:
                return
        self.sampled.append(face)

    def candidate_set(self) -> CandidateSet:
        found = [Candidate(f"model-{n}", "model", face) for n, face in enumerate(self.sampled, start=1)]
        if self.label is not None:
            found.append(Candidate("capture", "capture", self.label))
        return CandidateSet(self.picture, self.row, self.subject, tuple(found))


def sample_candidates(
    predictor: Predictor,
    faces: datasets.Dataset,
    settings: CandidateSettings,
    *,
    rows: Sequence[int],
    labels: np.ndarray | None = None,
    counts: Counter[str] | None = None,
) -> Iterator[CandidateSet]:
    """Yield the candidate sets of some pictures, in order.

    Args:
        predictor: of mode ``numbers``.
        faces: from ``dataset.load_faces``. They are cropped by ``box``, as in training, or whole where it is empty;
            ``coefficients`` are not read.
        settings: how.
        rows: of ``faces``, which to take.
        labels: float32[len(faces), 52] in [0, 1], the labels of the capture software for all rows; None for none.
        counts: receives the number of rows by outcome, if given: ``sampled``; ``alike`` where fewer than two candidates
            differ; ``twice`` for a repeated picture; ``model_failed``; or the code of a ``PictureError``, such as
            ``missing``. Failures are logged.

    Raises:
        ValueError: a predictor of another mode, a missing row, or labels of another shape or range.
        DatasetError: no column ``box``.
    """
    if predictor.engine.decoder.mode != "numbers":
        raise ValueError("candidates have no analysis: make the predictor with mode='numbers'")
    if not all(0 <= row < len(faces) for row in rows):
        raise ValueError(f"rows go from {min(rows)} to {max(rows)}: the split has rows 0 to {len(faces) - 1}")
    if labels is not None:
        if labels.shape != (len(faces), N_ACTIONS):
            raise ValueError(f"labels have the shape {labels.shape}: give one of {N_ACTIONS} for each row of the split")
        labels = (to_hundredths(labels) / 100).astype(np.float32)
    if "box" not in faces.column_names:
        raise DatasetError(
            "the dataset has no column box, by which faces are cropped: add x0, y0, x1, y1 in pixels, the whole "
            "picture where it is cropped already."
        )
    return _sample_sets(predictor, faces, settings, rows, labels, Counter() if counts is None else counts)


def _sample_sets(
    predictor: Predictor,
    faces: datasets.Dataset,
    settings: CandidateSettings,
    rows: Sequence[int],
    labels: np.ndarray | None,
    counts: Counter[str],
) -> Iterator[CandidateSet]:
    stored = faces.cast_column("picture", datasets.Image(decode=False))
    seen: set[str] = set()
    with tqdm(total=len(rows), unit="picture", desc="candidates") as bar:
        for start in range(0, len(rows), settings.batch_size):
            chunk = rows[start : start + settings.batch_size]
            batch = []
            for row in map(int, chunk):
                try:
                    sampling = _read_row(stored, row, predictor.bundle.image_size, labels)
                except PictureError as error:
                    _log.warning("%s", error)
                    counts[error.code] += 1
                    continue
                if sampling.picture in seen:
                    counts["twice"] += 1
                    continue
                seen.add(sampling.picture)
                batch.append(sampling)
            failed: set[int] = set()
            for attempt in range(settings.tries):
                open_ = [each for each in batch if len(each.sampled) < settings.count and each.row not in failed]
                failed |= _sample(predictor, open_, settings, attempt)
            for sampling in batch:
                candidate_set = sampling.candidate_set()
                outcome = "sampled" if len(candidate_set.candidates) > 1 else "alike"
                outcome = "model_failed" if sampling.row in failed else outcome
                counts[outcome] += 1
                if outcome == "sampled":
                    yield candidate_set
            bar.update(len(chunk))


def _read_row(faces: datasets.Dataset, row: int, size: int, labels: np.ndarray | None) -> _Sampling:
    """Read a row and crop its face; raises a PictureError where that fails."""
    record, name = faces[row], f"row {row}"
    data = picture_bytes(record["picture"], name)
    image = load_picture(data, name=name)
    given = record["box"]
    box = Box(0, 0, *image.size) if given is None or not np.isfinite(given).all() else Box(*given)
    label = None if labels is None else labels[row]
    crop = crop_face(image, box, size)
    return _Sampling(row, hashlib.sha256(data).hexdigest(), str(record["subject"]), crop, label, [])


def _sample(predictor: Predictor, batch: Sequence[_Sampling], settings: CandidateSettings, attempt: int) -> set[int]:
    """Draw ``count`` more samples for each picture and keep those that differ; return the rows that failed."""
    if not batch:
        return set()
    draws = range(attempt * settings.count, (attempt + 1) * settings.count)
    seeds = [(settings.seed, sampling.row, draw) for sampling in batch for draw in draws]
    try:
        inputs = prompt_inputs(predictor.bundle, predictor.prompt, [sampling.crop for sampling in batch])
        texts = predictor.engine.generate_text(
            inputs, temperature=settings.temperature, seeds=seeds, repeats=settings.count
        )
    except (RuntimeError, ValueError, IndexError) as error:
        # The batch is too large for the device, or one picture is at fault: try each alone.
        if len(batch) == 1:
            _log.warning("row %d: the model failed: %s", batch[0].row, error)
            return {batch[0].row}
        return set().union(*(_sample(predictor, [sampling], settings, attempt) for sampling in batch))
    for index, (seed, text) in enumerate(zip(seeds, texts, strict=True)):
        sampling = batch[index // settings.count]
        if len(sampling.sampled) < settings.count:
            face = parse_answer(text).coefficients
            sampling.add(_explore(face, settings.explore, np.random.default_rng([*seed, 1])), settings.min_distance)
    return set()


def _explore(face: np.ndarray, probability: float, rng: np.random.Generator) -> np.ndarray:
    """Return float32[52] with some actions replaced by random hundredths."""
    replaced = rng.random(N_ACTIONS) < probability
    return np.where(replaced, rng.integers(0, 101, N_ACTIONS) / 100, face).astype(np.float32)
