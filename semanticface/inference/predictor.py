"""Pictures in, predictions out: the one public entry for inference.

A ``Prediction`` comes back for every picture, in order: either 52 coefficients with their analysis, or a status that
says in a word, and a reason that says in a sentence, why there are none. Answers are decoded under the grammar of
``semanticface.inference.decoder``, so no model, however badly trained, can give a malformed one. With the coefficients
come what the model's distributions of them say: mean, median and an 80 % interval
(``semanticface.inference.intervals``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps

from semanticface.arkit import MIRROR_INDEX, by_name
from semanticface.errors import AnswerError, PictureError
from semanticface.inference.decoder import AnswerDecoder, DecodedAnswer, Mode
from semanticface.inference.engine import DecodingEngine
from semanticface.inference.intervals import NumberSummary, interval_dict, summarize
from semanticface.inference.number_readout import Readout
from semanticface.models.inputs import prompt_inputs
from semanticface.models.loading import Bundle, load_trained
from semanticface.prompts import load_prompt
from semanticface.recipe import calibrated_level
from semanticface.semantics.analysis import Analysis
from semanticface.semantics.answer import format_answer, parse_answer
from semanticface.vision.crop import Box, crop_face
from semanticface.vision.face_detector import detect_faces
from semanticface.vision.image_io import load_picture

Picture = str | Path | bytes | Image.Image
Crop = Literal["auto", "none"] | Box

_log = logging.getLogger(__name__)
_SMALL = 20_000_000  # parameters; nano has 5.5 million


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of one picture.

    Attributes:
        image: the picture's path, or ``picture 3`` for the third of those given as bytes or images.
        status: ``ok``, or why there is no answer in a word: a code of ``PictureError`` (``missing``, ``damaged``, ...),
            ``no_face``, ``model_failed`` or ``invalid_answer``.
        reason: why there is no answer, in a sentence with the fix; empty when there is one.
        coefficients: float32[52] in [0, 1], project order; None unless ``ok``.
        analysis: the explanation; None unless ``ok``, and where numbers alone were asked for.
        text: the answer as the model wrote it; empty where it was not asked.
        box: where in the upright picture the model looked; None where it was not asked.
        note: what is worth knowing of a good answer, such as further faces in the picture; mostly empty.
        reading: greedy, mean, median and interval of each coefficient, one of which ``coefficients`` is, rounded; None
            unless ``ok``.
        shares: float32[52, 101], the distributions that they come from (``decode.Written``); None unless asked for.
    """

    image: str
    status: str
    reason: str = ""
    coefficients: np.ndarray | None = None
    analysis: Analysis | None = None
    text: str = ""
    box: Box | None = None
    note: str = ""
    reading: NumberSummary | None = None
    shares: np.ndarray | None = None

    @property
    def mean(self) -> np.ndarray | None:
        """float32[52], the expectation of each coefficient, best for squared error; None unless ``ok``."""
        return None if self.reading is None else self.reading.mean

    @property
    def median(self) -> np.ndarray | None:
        """float32[52], what each coefficient is as likely above as below: best for absolute error; None unless ok."""
        return None if self.reading is None else self.reading.median

    @property
    def interval(self) -> np.ndarray | None:
        """float32[52, 2], where each coefficient is with a probability of 0.8; None unless ``ok``.

        ``reading.calibrated`` says whether that was fitted on held-out pictures (``semanticface calibrate``).
        """
        return None if self.reading is None else self.reading.interval

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: always image, status, coefficients by action name, analysis; the rest where it is.

        ``interval`` has [lowest, highest] by action name, ``calibrated`` how it is to be taken.
        """
        out: dict[str, Any] = {"image": self.image, "status": self.status}
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
        if self.reading is not None:
            out |= interval_dict(self.reading.interval, self.reading.calibrated)
        out["analysis"] = None if self.analysis is None else self.analysis.to_dict()
        if self.text and self.status != "ok":
            out["text"] = self.text
        return out


@dataclass(frozen=True)
class PreparedFace:
    """One picture ready for the model: the crop, where it was cut, and which place it has in the input."""

    image: str
    index: int
    crop: Image.Image
    box: Box
    note: str


class Predictor:
    """A model that reads faces.

    Args:
        bundle: the model; its recipe names the prompt, the readout, the layout of the numbers and whether answers speak
            of emotion. Its weights must stay as they are while the predictor is in use.
        mode: ``full`` writes the explanation and the numbers, ``numbers`` the numbers alone, which is several times as
            fast: for video.
        readout: how the numbers of the answer are read, ``greedy``, ``mean`` or ``median`` (see
            ``semanticface.inference.number_readout``); None takes the recipe's.
        emotion: False leaves emotion out, of the question and of the answers, whatever the recipe says.
        mirror: also read each picture's mirror image and average both distributions of each coefficient, for twice the
            time; the words are those of the picture itself.

    Attributes:
        readout: how the numbers of the answers are read.
        level: what the intervals were fitted to hold (``intervals.fit_level``); None where they were not.

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
    ) -> None:
        recipe = bundle.recipe
        self.bundle = bundle
        trained = load_prompt(recipe["prompt"]["name"], emotion=recipe["emotion"])
        if trained.sha256 != recipe["prompt"]["sha256"]:
            _log.warning(
                "the prompt %s is not the text this model was trained with (version %s, now %s): answers may suffer",
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
        )
        self.reader = DecodingEngine(decoder, bundle.model)
        self.readout = decoder.readout
        self.mirror = mirror
        self.level = calibrated_level(recipe, mode)

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
    ) -> Predictor:
        """Load ``nano``, a model or adapter folder, or a model from the hub.

        Where a small model runs on the CPU, torch is told to use one thread, unless ``OMP_NUM_THREADS`` says otherwise.

        Args:
            path_or_id: what ``model.load_trained`` takes.
            device: such as ``cpu`` or ``cuda``; None takes a GPU where there is one.
            mode: as in the class.
            readout: as in the class.
            emotion: as in the class.
            mirror: as in the class.

        Raises:
            ModelError: anything about the model that is missing, damaged or unsafe.
            ConfigError: the device is not there.
        """
        bundle = load_trained(path_or_id, device=device or "auto")
        parameters = sum(weights.numel() for weights in bundle.model.parameters())
        if bundle.model.device.type == "cpu" and parameters < _SMALL and "OMP_NUM_THREADS" not in os.environ:
            # A second thread makes nano a sixth quicker on an idle machine, and several times slower beside a browser:
            # its steps are so short that threads mostly wait for each other.
            torch.set_num_threads(1)
        return cls(bundle, mode=mode, readout=readout, emotion=emotion, mirror=mirror)

    def __call__(
        self,
        pictures: Iterable[Picture],
        *,
        batch_size: int = 16,
        crop: Crop = "auto",
        temperature: float = 0.0,
        seed: int = 0,
        answers: int = 1,
        keep_shares: bool = False,
    ) -> list[Prediction]:
        """Return the predictions for each picture, in order; arguments as in ``stream``."""
        stream = self.stream(
            pictures,
            batch_size=batch_size,
            crop=crop,
            temperature=temperature,
            seed=seed,
            answers=answers,
            keep_shares=keep_shares,
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
        keep_shares: bool = False,
    ) -> Iterator[Prediction]:
        """Yield the predictions for each picture, in order, holding one batch in memory at a time.

        Args:
            pictures: paths, file contents or Pillow images.
            batch_size: pictures decoded together, at least 1; results do not depend on it.
            crop: ``auto`` finds the face and says in ``note`` when it chose among several; ``none`` shows the whole
                picture; a box, in pixels of the upright picture, shows that part of every picture.
            temperature: 0 gives the best answer; above 0 samples one.
            seed: of sampling. A picture's samples depend on the seed and the picture's place, not on its batch.
            answers: samples of each picture, at least 1, one behind the other; the picture is looked at once. A picture
                without an answer still gives one prediction.
            keep_shares: hand out the distributions of the numbers too, 21 kB a picture.

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
            raise ValueError(f"temperature is {temperature}: give 0 with mirror, which averages what would be sampled")
        if seed < 0:
            raise ValueError(f"seed is {seed}: give 0 or more")
        if not isinstance(crop, Box) and crop not in ("auto", "none"):
            raise ValueError(f"crop is {crop!r}: give auto, none or a Box")
        numbered = enumerate(pictures)
        while chunk := list(islice(numbered, batch_size)):
            prepared = [prepare(picture, index, crop, self.bundle.image_size) for index, picture in chunk]
            looks = [item for item in prepared if isinstance(item, PreparedFace)]
            answered = iter(self.answer(looks, temperature, seed, answers, keep_shares))
            for item in prepared:
                if isinstance(item, PreparedFace):
                    yield from next(answered)
                else:
                    yield item

    def answer(
        self,
        looks: Sequence[PreparedFace],
        temperature: float = 0.0,
        seed: int = 0,
        answers: int = 1,
        keep_shares: bool = False,
    ) -> list[list[Prediction]]:
        """Return the predictions for each of some pictures that ``prepare`` made ready, all in one batch.

        Arguments are as in ``stream``, and are not checked here.
        """
        if not looks:
            return []
        try:
            seeds = [(seed, style.index, nth) for style in looks for nth in range(answers)]
            written = self._write([style.crop for style in looks], temperature, seeds, answers)
        except (RuntimeError, ValueError, IndexError) as error:
            # A batch may be too large for the device, or one picture at fault: what can be answered alone, is.
            if len(looks) > 1:
                return [self.answer([style], temperature, seed, answers, keep_shares)[0] for style in looks]
            reason = f"{looks[0].image}: the model failed: {error}"
            return [[Prediction(looks[0].image, "model_failed", reason, box=looks[0].box)]]
        reading = summarize(self.reader.decoder.tree, np.stack([each.shares for each in written]), self.level)
        predictions = [
            _read(looks[index // answers], each, reading.of(index), keep_shares) for index, each in enumerate(written)
        ]
        return [predictions[index * answers : (index + 1) * answers] for index in range(len(looks))]

    def _write(
        self, crops: Sequence[Image.Image], temperature: float, seeds: Sequence[Sequence[int]], answers: int
    ) -> list[DecodedAnswer]:
        """Return the answers to each crop."""
        inputs = prompt_inputs(self.bundle, self.prompt, crops)
        written = self.reader.write(inputs, temperature=temperature, seeds=seeds, repeats=answers)
        if not self.mirror:
            return written
        flipped = prompt_inputs(self.bundle, self.prompt, [ImageOps.mirror(crop) for crop in crops])
        decoder = self.reader.decoder
        out = []
        for plain, other in zip(written, self.reader.write(flipped), strict=True):
            shares = (plain.shares + other.shares[MIRROR_INDEX]) / 2
            values = getattr(summarize(decoder.tree, shares), self.readout)
            try:
                analysis = parse_answer(plain.text).analysis
            except AnswerError:
                out.append(plain)  # `_read` says what is wrong with it
            else:
                out.append(DecodedAnswer(format_answer(values, analysis), shares))
        return out


def prepare(picture: Picture, index: int, crop: Crop, size: int, name: str = "") -> PreparedFace | Prediction:
    """Load a picture and cut the face out, or say why that cannot be done; needs no model, so any thread may do it.

    Args:
        picture: a path, a file's bytes or a Pillow image.
        index: its place among others, from which its samples follow.
        crop: as in ``Predictor.stream``.
        size: side of the crop in pixels, ``bundle.image_size``.
        name: how the prediction and errors call it; by default the path, or ``picture 1`` for index 0.
    """
    name = name or _name(picture, index)
    try:
        image = load_picture(picture, name=name)
        box, note = _choose(image, name, crop)
        return PreparedFace(name, index, crop_face(image, box, size), box, note)
    except PictureError as error:
        return Prediction(name, error.code, str(error))


def _name(picture: Picture, index: int) -> str:
    if isinstance(picture, (str, os.PathLike)):
        return os.fspath(picture)
    return getattr(picture, "filename", "") or f"picture {index + 1}"


def _choose(image: Image.Image, name: str, crop: Crop) -> tuple[Box, str]:
    """Return the box to look at and what is to be said of the choice."""
    if isinstance(crop, Box):
        return crop, ""
    if crop == "none":
        return Box(0, 0, image.width, image.height), ""
    faces = detect_faces(image)
    if not faces:
        raise PictureError(
            "no_face", f"{name}: no face found. Give a box around it, or use the whole picture as it is."
        )
    note = f"{len(faces)} faces found; this is the most prominent" if len(faces) > 1 else ""
    return faces[0], note


def _read(style: PreparedFace, written: DecodedAnswer, reading: NumberSummary, keep_shares: bool) -> Prediction:
    text = written.text
    try:
        answer = parse_answer(text)
    except AnswerError as error:
        return Prediction(style.image, "invalid_answer", f"{style.image}: {error}", text=text, box=style.box)
    return Prediction(
        style.image,
        "ok",
        "",
        answer.coefficients,
        answer.analysis,
        text=text,
        box=style.box,
        note=style.note,
        reading=reading,
        shares=written.shares if keep_shares else None,
    )
