"""Candidates: some answers of a model for each picture, different enough to be told apart when they are rendered.

Answers are sampled without words, since only their numbers are rendered. A sample depends on the seed, the row and the
model alone: not on which other rows are asked for, nor on the batch. The label of the capture software, where there is
one, stands among the samples as one more candidate.
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
from semanticface.preference.questions import NOTICEABLE
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
        count: sampled candidates of a picture at most; the label of the capture software comes on top.
        temperature: of sampling; 1 samples what the model believes.
        explore: chance of each action of a sample to be drawn anew from a plain prior, every value as likely. An action
            that the model believes dead, because the capture software never reported it, is in no other sample, and
            could never be preferred.
        min_distance: smallest difference between two candidates, in at least one half of the face, in percent of the
            inter-pupil distance (``areas.distance``).
        tries: samples drawn at most for each candidate wanted; a model that is sure of itself repeats itself.
        seed: of sampling.
        batch_size: pictures sampled together.
    """

    count: int = 4
    temperature: float = 1.0
    explore: float = 0.01
    min_distance: float = NOTICEABLE
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
class _Sitting:
    """One picture, and the candidates found for it so far."""

    row: int
    picture: str
    subject: str
    crop: Image.Image
    label: np.ndarray | None
    sampled: list[np.ndarray]

    def take(self, face: np.ndarray, apart: float) -> None:
        """Add a face unless it looks like one that is there."""
        there = self.sampled if self.label is None else [self.label, *self.sampled]
        if there:
            others, same = np.stack(there), np.repeat(face[None], len(there), axis=0)
            if np.maximum(*(distance(same, others, half) for half in HALVES)).min() < apart:
                return
        self.sampled.append(face)

    def slate(self) -> CandidateSet:
        found = [Candidate(f"model-{n}", "model", face) for n, face in enumerate(self.sampled, start=1)]
        if self.label is not None:
            found.append(Candidate("capture", "capture", self.label))
        return CandidateSet(self.picture, self.row, self.subject, tuple(found))


def sample_slates(
    predictor: Predictor,
    faces: datasets.Dataset,
    settings: CandidateSettings,
    *,
    rows: Sequence[int],
    labels: np.ndarray | None = None,
    counts: Counter[str] | None = None,
) -> Iterator[CandidateSet]:
    """Yield the candidates for some pictures, in order.

    Args:
        predictor: of mode ``numbers``.
        faces: from ``dataset.load_faces``, with ``box``, by which training crops too, or the whole picture where a row
            has none; of ``coefficients`` nothing is read.
        settings: how.
        rows: of ``faces``, which to take.
        labels: float32[len(faces), 52] in [0, 1], what the capture software says of every row; without it no slate has
            a candidate from there.
        counts: told what became of each row, if given: ``slates``; ``alike`` where fewer than two candidates differ;
            ``twice`` where the picture had its turn already; ``model_failed``; or the code of a ``PictureError``, such
            as ``missing``. Why a row failed is logged.

    Raises:
        ValueError: a predictor of another mode, a row that is not there, or labels of another shape or range.
        DatasetError: no column ``box``.
    """
    if predictor.reader.decoder.mode != "numbers":
        raise ValueError("candidates have no words: make the predictor with mode='numbers'")
    if not all(0 <= row < len(faces) for row in rows):
        raise ValueError(f"rows go from {min(rows)} to {max(rows)}: the split has rows 0 to {len(faces) - 1}")
    if labels is not None:
        if labels.shape != (len(faces), N_ACTIONS):
            raise ValueError(f"labels have the shape {labels.shape}: give one of {N_ACTIONS} for each row of the split")
        labels = (to_hundredths(labels) / 100).astype(np.float32)
    if "box" not in faces.column_names:
        raise DatasetError(
            "the dataset has no column box, by which training crops: add x0, y0, x1, y1 in pixels, the whole picture "
            "where it is cropped already."
        )
    return _slates(predictor, faces, settings, rows, labels, Counter() if counts is None else counts)


def _slates(
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
            sittings = []
            for row in map(int, chunk):
                try:
                    sitting = _sit(stored, row, predictor.bundle.image_size, labels)
                except PictureError as error:
                    _log.warning("%s", error)
                    counts[error.code] += 1
                    continue
                if sitting.picture in seen:
                    counts["twice"] += 1
                    continue
                seen.add(sitting.picture)
                sittings.append(sitting)
            failed: set[int] = set()
            for turn in range(settings.tries):
                wanting = [s for s in sittings if len(s.sampled) < settings.count and s.row not in failed]
                failed |= _sample(predictor, wanting, settings, turn)
            for sitting in sittings:
                slate = sitting.slate()
                what = "slates" if len(slate.candidates) > 1 else "alike"
                counts["model_failed" if sitting.row in failed else what] += 1
                if what == "slates" and sitting.row not in failed:
                    yield slate
            bar.update(len(chunk))


def _sit(faces: datasets.Dataset, row: int, size: int, labels: np.ndarray | None) -> _Sitting:
    """Read a row and cut its face out; raises a PictureError where that cannot be done."""
    there, name = faces[row], f"row {row}"
    data = picture_bytes(there["picture"], name)
    image = load_picture(data, name=name)
    given = there["box"]
    box = Box(0, 0, *image.size) if given is None or not np.isfinite(given).all() else Box(*given)
    label = None if labels is None else labels[row]
    cut = crop_face(image, box, size)
    return _Sitting(row, hashlib.sha256(data).hexdigest(), str(there["subject"]), cut, label, [])


def _sample(predictor: Predictor, sittings: Sequence[_Sitting], settings: CandidateSettings, turn: int) -> set[int]:
    """Draw ``count`` more samples for each picture and keep those that differ; returns the rows that failed."""
    if not sittings:
        return set()
    draws = range(turn * settings.count, (turn + 1) * settings.count)
    seeds = [(settings.seed, sitting.row, draw) for sitting in sittings for draw in draws]
    try:
        inputs = prompt_inputs(predictor.bundle, predictor.prompt, [sitting.crop for sitting in sittings])
        texts = predictor.reader.read(inputs, temperature=settings.temperature, seeds=seeds, repeats=settings.count)
    except (RuntimeError, ValueError, IndexError) as error:
        # A batch may be too large for the device, or one picture at fault: what can be answered alone, is.
        if len(sittings) == 1:
            _log.warning("row %d: the model failed: %s", sittings[0].row, error)
            return {sittings[0].row}
        return set().union(*(_sample(predictor, [sitting], settings, turn) for sitting in sittings))
    for index, (seed, text) in enumerate(zip(seeds, texts, strict=True)):
        sitting = sittings[index // settings.count]
        if len(sitting.sampled) < settings.count:
            face = parse_answer(text).coefficients
            sitting.take(_explored(face, settings.explore, np.random.default_rng([*seed, 1])), settings.min_distance)
    return set()


def _explored(face: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return float32[52] with some actions drawn anew, in to_hundredths."""
    anew = rng.random(N_ACTIONS) < share
    return np.where(anew, rng.integers(0, 101, N_ACTIONS) / 100, face).astype(np.float32)
