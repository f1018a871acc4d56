"""The entry point for inference: pictures in, predictions out.

Every picture gives one ``Prediction``, in order: 52 coefficients with their analysis, or a status and the reason why
there are none. Answers are decoded under a grammar (``semanticface.inference.decoder``), so no model, however badly
trained, gives a malformed one. The coefficients come with the mean, the median and an 80 % interval of the model's
distributions (``semanticface.inference.intervals``).
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps

from semanticface.arkit import (
    MIRROR_INDEX,
    N_ACTIONS,
    POSE_MIRROR_INDEX,
    POSE_MIRROR_SIGNS,
    POSE_NAMES,
    by_name,
    pose_from_units,
    to_hundredths,
)
from semanticface.errors import AnswerError, PictureError
from semanticface.inference.decoder import AnswerDecoder, AnswerState, DecodedAnswer, Mode, Order
from semanticface.inference.engine import DecodingEngine
from semanticface.inference.intervals import COVERAGE, NumberSummary, interval_dict, shortest, summarize
from semanticface.inference.neutral import NeutralFace
from semanticface.inference.number_readout import VALUES, Readout, mean_value
from semanticface.models.inputs import prompt_inputs
from semanticface.models.loading import Bundle, load_trained
from semanticface.prompts import load_prompt
from semanticface.recipe import calibrated_level, default_order
from semanticface.semantics.analysis import Analysis, describe
from semanticface.semantics.answer import parse_answer
from semanticface.semantics.repair import repaired
from semanticface.vision.crop import Box, crop_face
from semanticface.vision.face_detector import detect_faces, main_face
from semanticface.vision.image_io import load_picture

Picture = str | Path | bytes | Image.Image
Crop = Literal["auto", "all", "none"] | Box

_log = logging.getLogger(__name__)
_SMALL = 20_000_000  # parameters; nano has 5.5 million


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer about one picture.

    Attributes:
        image: the picture's path, or ``picture 3`` for the third of those given as bytes or images.
        status: ``ok``, or why there is no answer: a code of ``PictureError`` (``missing``, ``damaged``, ...),
            ``no_face``, ``model_failed`` or ``invalid_answer``.
        reason: why there is no answer, in a sentence with the fix; empty when there is one.
        coefficients: float32[52] in [0, 1], project order; None unless ``ok``.
        analysis: the explanation; None unless ``ok``, and in mode ``numbers``.
        repaired: of an analysis that was decoded before its numbers, what of it did not hold for them and was replaced
            (``semanticface.semantics.repair``): the model's words by region or key; mostly empty.
        text: the answer as decoded; empty where the model did not run.
        box: the part of the upright picture that the model saw; None where it did not run.
        note: a remark on a good answer, such as further faces in the picture; mostly empty.
        summary: greedy, mean, median and interval of each coefficient, one of which ``coefficients`` is, rounded; None
            unless ``ok``.
        probs: float32[52, 101], the distributions behind it (``decoder.DecodedAnswer``); None unless asked for.
        pose: float32[9], radians, ``arkit.POSE_NAMES``: how head and eyes are turned, the expectation of each rotation;
            None unless ``ok``, and of models that do not predict it.
        pose_interval: float32[9, 2], which holds each rotation with probability 0.8 by the model's own distribution.
        face: which face of the picture, counted from 1 and from the left, where all were asked for; otherwise 0.
    """

    image: str
    status: str
    reason: str = ""
    coefficients: np.ndarray | None = None
    analysis: Analysis | None = None
    text: str = ""
    box: Box | None = None
    note: str = ""
    summary: NumberSummary | None = None
    probs: np.ndarray | None = None
    pose: np.ndarray | None = None
    pose_interval: np.ndarray | None = None
    face: int = 0
    repaired: Mapping[str, str] = field(default_factory=dict)

    @property
    def mean(self) -> np.ndarray | None:
        """float32[52], the expectation of each coefficient: best for squared error; None unless ``ok``."""
        return None if self.summary is None else self.summary.mean

    @property
    def median(self) -> np.ndarray | None:
        """float32[52], the median of each coefficient: best for absolute error; None unless ``ok``."""
        return None if self.summary is None else self.summary.median

    @property
    def interval(self) -> np.ndarray | None:
        """float32[52, 2], which holds each coefficient with probability 0.8; None unless ``ok``.

        ``summary.calibrated`` says whether it was fitted on held-out pictures (``semanticface calibrate``).
        """
        return None if self.summary is None else self.summary.interval

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: always image, status, coefficients by action name, analysis; the rest if present.

        ``interval`` has [lowest, highest] by action name; ``calibrated`` is as in ``NumberSummary``.
        """
        out: dict[str, Any] = {"image": self.image, "status": self.status}
        if self.face:
            out["face"] = self.face
        if self.reason:
            out["reason"] = self.reason
        if self.note:
            out["note"] = self.note
        if self.box is not None:
            corners = (self.box.x0, self.box.y0, self.box.x1, self.box.y1)
            out["box"] = [round(corner, 2) for corner in corners]
        if self.coefficients is None:
            out["coefficients"] = None
        else:
            out["coefficients"] = {name: round(value, 4) for name, value in by_name(self.coefficients).items()}
        if self.summary is not None:
            out |= interval_dict(self.summary.interval, self.summary.calibrated)
        if self.pose is not None:
            out["pose"] = {name: round(value, 4) for name, value in zip(POSE_NAMES, self.pose.tolist(), strict=True)}
        out["analysis"] = None if self.analysis is None else self.analysis.to_dict()
        if self.repaired:
            out["repaired"] = dict(self.repaired)
        if self.text and self.status != "ok":
            out["text"] = self.text
        return out


@dataclass(frozen=True)
class PreparedFace:
    """One picture ready for the model: the crop, its box, and the picture's index in the input."""

    image: str
    index: int
    crop: Image.Image
    box: Box
    note: str
    face: int = 0


class Predictor:
    """A model that predicts coefficients and analysis from pictures of faces.

    Args:
        bundle: the model; its recipe names the prompt, the readout, the layout of the numbers and whether answers speak
            of emotion. Its weights must not change while the predictor is in use.
        mode: ``full`` decodes analysis and numbers; ``numbers`` the numbers alone, several times as fast: for video.
        readout: how the numbers of the answer are read, ``greedy``, ``mean`` or ``median`` (see
            ``semanticface.inference.number_readout``); None takes the recipe's.
        emotion: False leaves emotion out of question and answers, whatever the recipe says.
        mirror: also predict each picture's mirror image and average both distributions of each coefficient, for twice
            the time; the analysis is that of the picture itself.
        order: what mode ``full`` decodes first, ``numbers`` or ``analysis`` (``semanticface.inference.decoder.Order``);
            None takes ``recipe.default_order``.

    Attributes:
        readout: how the numbers of the answers are read.
        level: the level of the intervals (``intervals.fit_level``); None where they are not calibrated.
        neutral: a person's face at rest (``semanticface.inference.neutral``), taken off every answer; None at first.
            Analyses are then those of the coefficients that remain, in the words of Stage I; text and distributions
            stay the model's.

    Raises:
        ModelError: answers cannot be decoded with the model's tokenizer.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        mode: Mode = "full",
        readout: Readout | None = None,
        emotion: bool = True,
        mirror: bool = False,
        order: Order | None = None,
    ) -> None:
        recipe = bundle.recipe
        self.bundle = bundle
        trained = load_prompt(recipe["prompt"]["name"], emotion=recipe["emotion"])
        if trained.sha256 != recipe["prompt"]["sha256"]:
            _log.warning(
                "the prompt %s is not the text this model was trained with (version %s, now %s): answers may be worse",
                trained.name,
                recipe["prompt"]["version"],
                trained.version,
            )
        emotion = emotion and recipe["emotion"]
        self.prompt = load_prompt(trained.name, emotion=emotion)
        decoder = AnswerDecoder(
            bundle.tokenizer,
            emotion=emotion,
            readout=readout or recipe["readout"],
            numbers=recipe["numbers"],
            mode=mode,
            order=order or default_order(recipe),
            pose=recipe.get("pose", False),
        )
        self.engine = DecodingEngine(decoder, bundle.model)
        self.readout = decoder.readout
        self.mirror = mirror
        self.level = calibrated_level(recipe, "numbers" if decoder.numbers_first else mode)
        self.neutral: NeutralFace | None = None

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path = "nano",
        *,
        device: str | None = None,
        mode: Mode = "full",
        readout: Readout | None = None,
        emotion: bool = True,
        mirror: bool = False,
        order: Order | None = None,
    ) -> Predictor:
        """Load ``nano``, a model or adapter folder, or a model from the hub.

        A small model on the CPU sets torch to one thread, unless ``OMP_NUM_THREADS`` is set.

        Args:
            path_or_id: as in ``load_trained``.
            device: such as ``cpu`` or ``cuda``; None takes a GPU where there is one.
            mode: as in the class.
            readout: as in the class.
            emotion: as in the class.
            mirror: as in the class.
            order: as in the class.

        Raises:
            ModelError: the model is missing, damaged or unsafe.
            ConfigError: the device is not available.
        """
        bundle = load_trained(path_or_id, device=device or "auto")
        parameters = sum(weights.numel() for weights in bundle.model.parameters())
        if bundle.model.device.type == "cpu" and parameters < _SMALL and "OMP_NUM_THREADS" not in os.environ:
            # A second thread makes nano a sixth faster on an idle machine, and several times slower next to a browser:
            # its steps are so short that threads mostly wait for each other.
            torch.set_num_threads(1)
        return cls(bundle, mode=mode, readout=readout, emotion=emotion, mirror=mirror, order=order)

    def __call__(
        self,
        pictures: Iterable[Picture],
        *,
        batch_size: int = 16,
        crop: Crop = "auto",
        temperature: float = 0.0,
        seed: int = 0,
        answers: int = 1,
        keep_probs: bool = False,
    ) -> list[Prediction]:
        """Return the predictions for each picture, in order; arguments as in ``stream``."""
        stream = self.stream(
            pictures,
            batch_size=batch_size,
            crop=crop,
            temperature=temperature,
            seed=seed,
            answers=answers,
            keep_probs=keep_probs,
        )
        return list(stream)

    def stream(
        self,
        pictures: Iterable[Picture],
        *,
        batch_size: int = 16,
        crop: Crop = "auto",
        temperature: float = 0.0,
        seed: int = 0,
        answers: int = 1,
        keep_probs: bool = False,
    ) -> Iterator[Prediction]:
        """Yield the predictions for each picture, in order, with one batch in memory at a time.

        Args:
            pictures: paths, file contents or Pillow images.
            batch_size: pictures decoded together, at least 1. Results do not depend on it, except where two tokens are
                equally likely to within rounding.
            crop: ``auto`` finds the largest face, and says so in ``note`` when there were several; ``all`` gives one
                prediction for each face, from the left; ``none`` takes the whole picture; a box, in pixels of the
                upright picture, takes that part of every picture.
            temperature: 0 gives the best answer; above 0 samples one.
            seed: of sampling. A picture's samples depend on the seed and its index, not on its batch.
            answers: samples of each picture, at least 1, in consecutive predictions; the picture is encoded once. A
                picture without an answer still gives one prediction.
            keep_probs: return the distributions of the numbers too, 21 kB a picture.

        Raises:
            ValueError: an argument out of range.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: give at least 1")
        if not temperature >= 0:  # which catches NaN too
            raise ValueError(f"temperature is {temperature}: give 0 or more")
        if answers < 1 or (answers > 1 and not temperature):
            raise ValueError(f"answers is {answers}: give 1, or more with a temperature above 0")
        if self.mirror and temperature:
            raise ValueError(f"temperature is {temperature}: give 0 with mirror, which averages distributions")
        if seed < 0:
            raise ValueError(f"seed is {seed}: give 0 or more")
        if not isinstance(crop, Box) and crop not in ("auto", "all", "none"):
            raise ValueError(f"crop is {crop!r}: give auto, all, none or a Box")
        numbered = enumerate(pictures)
        while chunk := list(islice(numbered, batch_size)):
            size = self.bundle.image_size
            prepared = [item for index, picture in chunk for item in prepare_all(picture, index, crop, size)]
            faces = [item for item in prepared if isinstance(item, PreparedFace)]
            batches = (faces[start : start + batch_size] for start in range(0, len(faces), batch_size))
            answered = (
                each for batch in batches for each in self.answer(batch, temperature, seed, answers, keep_probs)
            )
            for item in prepared:
                if isinstance(item, PreparedFace):
                    yield from next(answered)
                else:
                    yield item

    def answer(
        self,
        faces: Sequence[PreparedFace],
        temperature: float = 0.0,
        seed: int = 0,
        answers: int = 1,
        keep_probs: bool = False,
    ) -> list[list[Prediction]]:
        """Return the predictions for each of some faces from ``prepare``, all in one batch.

        Arguments are as in ``stream``, and are not checked here.
        """
        if not faces:
            return []
        try:
            seeds = [(seed, face.index, nth) for face in faces for nth in range(answers)]
            decoded = self._decode([face.crop for face in faces], temperature, seeds, answers)
        except (RuntimeError, ValueError, IndexError) as error:
            # The batch may be too large for the device, or one picture at fault: try each alone.
            if len(faces) > 1:
                return [self.answer([face], temperature, seed, answers, keep_probs)[0] for face in faces]
            reason = f"{faces[0].image}: the model failed: {error}"
            failed = Prediction(faces[0].image, "model_failed", reason, box=faces[0].box, face=faces[0].face)
            return [[failed]]
        summaries = summarize(self.engine.decoder.trie, np.stack([each.probs for each in decoded]), self.level)
        predictions = [
            _prediction(faces[index // answers], each, summaries.row(index), keep_probs)
            for index, each in enumerate(decoded)
        ]
        if self.neutral is not None:
            predictions = [_without_rest(prediction, self.neutral) for prediction in predictions]
        return [predictions[index * answers : (index + 1) * answers] for index in range(len(faces))]

    def _decode(
        self, crops: Sequence[Image.Image], temperature: float, seeds: Sequence[Sequence[int]], answers: int
    ) -> list[DecodedAnswer]:
        inputs = prompt_inputs(self.bundle, self.prompt, crops)
        if not self.mirror:
            return self.engine.generate(inputs, temperature=temperature, seeds=seeds, repeats=answers)
        flipped = prompt_inputs(self.bundle, self.prompt, [ImageOps.mirror(crop) for crop in crops])
        mirrored = self.engine.generate(flipped, explain=False)

        def average(rows: list[AnswerState]) -> None:
            for row, other in zip(rows, mirrored, strict=True):
                row.probs[:N_ACTIONS] = (row.probs[:N_ACTIONS] + other.probs[MIRROR_INDEX]) / 2
                summary = summarize(self.engine.decoder.trie, row.probs[:N_ACTIONS])
                row.values[:N_ACTIONS] = to_hundredths(getattr(summary, self.readout))
                if other.pose_probs is not None:
                    row.probs[N_ACTIONS:] = _both_poses(row.probs[N_ACTIONS:], other.pose_probs)
                    row.values[N_ACTIONS:] = np.rint(100 * mean_value(row.probs[N_ACTIONS:]))

        return self.engine.generate(inputs, change_numbers=average)


def _both_poses(plain: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """Return the mean distributions of the rotations in a picture and in its mirror image, float32[9, 101]."""
    back = mirrored[POSE_MIRROR_INDEX]
    both: np.ndarray = (plain + np.where(POSE_MIRROR_SIGNS[:, None] < 0, back[:, ::-1], back)) / 2
    return both


def prepare(picture: Picture, index: int, crop: Crop, size: int, name: str = "") -> PreparedFace | Prediction:
    """Load a picture and crop the face, or return why that failed. It needs no model, so any thread may call it.

    Args:
        picture: a path, a file's bytes or a Pillow image.
        index: its index among the pictures, which seeds its samples.
        crop: as in ``Predictor.stream``, but for ``all``.
        size: side of the crop in pixels, ``bundle.image_size``.
        name: its name in the prediction and in errors; by default the path, or ``picture 1`` for index 0.
    """
    (item,) = prepare_all(picture, index, crop, size, name)
    return item


def prepare_all(picture: Picture, index: int, crop: Crop, size: int, name: str = "") -> list[PreparedFace | Prediction]:
    """Load a picture and crop one face, or ``all``, or return why that failed; arguments as in ``prepare``."""
    name = name or _name(picture, index)
    try:
        image = load_picture(picture, name=name)
        return [
            PreparedFace(name, index, crop_face(image, box, size), box, note, face)
            for face, (box, note) in enumerate(_choose_boxes(image, name, crop), start=int(crop == "all"))
        ]
    except PictureError as error:
        return [Prediction(name, error.code, str(error))]


def _name(picture: Picture, index: int) -> str:
    if isinstance(picture, (str, os.PathLike)):
        return os.fspath(picture)
    return getattr(picture, "filename", "") or f"picture {index + 1}"


def _choose_boxes(image: Image.Image, name: str, crop: Crop) -> list[tuple[Box, str]]:
    """Return each box to crop and a note on the choice; of ``all`` faces from the left."""
    if isinstance(crop, Box):
        return [(crop, "")]
    if crop == "none":
        return [(Box(0, 0, image.width, image.height), "")]
    faces = detect_faces(image)
    if not faces:
        raise PictureError(
            "no_face", f"{name}: no face found. Give a box around it, or use the whole picture as it is."
        )
    if crop == "all":
        return [(box, "") for box in sorted(faces, key=lambda box: box.centre)]
    note = f"{len(faces)} faces found; this is the largest" if len(faces) > 1 else ""
    return [(main_face(faces), note)]


def _prediction(face: PreparedFace, decoded: DecodedAnswer, summary: NumberSummary, keep_probs: bool) -> Prediction:
    text = decoded.text
    try:
        answer = parse_answer(text)
    except AnswerError as error:
        reason = f"{face.image}: {error}"
        return Prediction(face.image, "invalid_answer", reason, text=text, box=face.box, face=face.face)
    analysis = answer.analysis
    changed: dict[str, str] = {}
    if analysis is not None:
        analysis, changed = repaired(analysis, answer.coefficients)
    pose, pose_interval = None, None
    if decoded.pose_probs is not None:
        pose = pose_from_units(mean_value(decoded.pose_probs))
        low, high, _ = shortest(decoded.pose_probs, COVERAGE)
        pose_interval = pose_from_units(VALUES[np.stack([low, high], axis=-1)])
    return Prediction(
        face.image,
        "ok",
        "",
        answer.coefficients,
        analysis,
        text=text,
        box=face.box,
        note=face.note,
        summary=summary,
        probs=decoded.probs if keep_probs else None,
        pose=pose,
        pose_interval=pose_interval,
        face=face.face,
        repaired=changed,
    )


def _without_rest(prediction: Prediction, neutral: NeutralFace) -> Prediction:
    """Return a prediction without what the face shows at rest."""
    if prediction.coefficients is None or prediction.summary is None:
        return prediction
    coefficients, analysis = neutral.apply(prediction.coefficients), prediction.analysis
    if analysis is not None:
        analysis = describe(coefficients, emotion=analysis.emotional_implication is not None)
    read = prediction.summary
    summary = NumberSummary(
        neutral.apply(read.greedy),
        neutral.apply(read.mean),
        neutral.apply(read.median),
        neutral.apply(read.interval.T).T,
        read.calibrated,
    )
    return dataclasses.replace(prediction, coefficients=coefficients, analysis=analysis, summary=summary, repaired={})
