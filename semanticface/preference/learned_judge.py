"""Judges for the rounds: simulated people where the ground truth is known, or networks that learned from choices.

A learned judge is a small network (``judge_network``). Of the picture it sees the feature map of nano's frozen vision
encoder and the vertex positions of a model's reading, its starting point. Of a render it sees the vertex positions,
which determine the pixels, since head, camera and light never change. From choices it learns where readings are wrong,
which image features tell so, and which differences count.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from semanticface.data.faces import coefficients_of, load_faces
from semanticface.errors import DatasetError, ModelError
from semanticface.inference.predictor import Predictor
from semanticface.models import nano
from semanticface.models.files import NANO
from semanticface.models.loading import load_trained
from semanticface.preference.annotator_agreement import Proportion, agreement, format_proportion
from semanticface.preference.judge_network import (
    ANSWERS,
    ImageFeatures,
    JudgeInputs,
    JudgeNetwork,
    JudgeSettings,
    best_temperature,
    fit_projection,
    log_probs,
    make_inputs,
    predict_probs,
    train_network,
)
from semanticface.preference.judges import JND, NOISE, SimulatedJudge, question_faces
from semanticface.preference.regions import HALVES, REGIONS, Region
from semanticface.preference.round import HeldOutSet, picture_names
from semanticface.preference.rounds import Judges
from semanticface.preference.types import CandidateSet, Choice, Question, Verdict
from semanticface.recipe import files_sha256, git_commit, versions
from semanticface.training.datasets import EvalFaces
from semanticface.training.nano_vision import feature_maps
from semanticface.utils.files import atomic_path, write_json
from semanticface.utils.progress import tqdm

_KIND = "judge"
_WEIGHTS, _RECIPE = "judge.safetensors", "judge.json"
_BINS = 10
_EPSILON = 1e-4


def image_features(predictor: Predictor, crops: Mapping[str, Image.Image]) -> dict[str, ImageFeatures]:
    """Return the inputs of a judge for pictures, to train on or to answer about.

    Args:
        predictor: reads them, in mode ``numbers``; a judge always needs the readings of the same model.
        crops: square RGB crops of faces by picture.

    Returns:
        Features by picture, without those that the model cannot read.
    """
    size = (nano.IMAGE_SIZE, nano.IMAGE_SIZE)
    pixels = [np.asarray(each.resize(size, Image.Resampling.BICUBIC)) for each in crops.values()]
    encoder = load_trained("nano").model.get_encoder(modality="image")
    maps = (each.flatten(1).numpy() for each in feature_maps(encoder, np.array(pixels, np.uint8)))
    features = (row for part in maps for row in part)
    readings = predictor.stream(crops.values(), crop="none")
    bar = tqdm(zip(crops, features, readings, strict=True), desc="encoding", total=len(crops), unit="picture")
    return {name: ImageFeatures(row, reading.mean) for name, row, reading in bar if reading.mean is not None}


@dataclass(frozen=True, slots=True)
class JudgeMetrics:
    """Metrics of a judge on held-out choices, about people it has not learned from. Names are keys of judge.json.

    Attributes:
        learned, tuned, tested: number of choices in each part.
        left_out: choices that do not rank the faces (neither, skip) or are about unread pictures.
        correct: test choices that it predicts: a, b or same.
        winner: same winner, among test choices that name one.
        log_loss, log_loss_before: mean negative log probability of the test choices, with its temperature and without.
        ece, ece_before: expected calibration error (Guo et al. 2017, 10 bins of equal width), with and without.
        temperature: divides the differences.
        agreement: same answer, among questions that two annotators answered.
        agreement_winner: same winner, among questions for which both named one.
    """

    learned: int
    tuned: int
    tested: int
    left_out: int
    correct: Proportion
    winner: Proportion
    log_loss: float
    log_loss_before: float
    ece: float
    ece_before: float
    temperature: float
    agreement: Proportion
    agreement_winner: Proportion

    def summary(self) -> str:
        """Return in one line how often it names the annotators' winner, and how often two annotators agree."""
        return (
            f"learned from {self.learned:,} choices; right winner in {format_proportion(self.winner)} of those held "
            f"out, two people agree in {format_proportion(self.agreement_winner)}; calibration error "
            f"{100 * self.ece:.1f} %"
        )


class LearnedJudge:
    """Predicts the choices of the people it learned from; a ``judges.Judge``.

    Attributes:
        name: the annotator in its choices.
        regions: those it learned to judge.
        metrics: on held-out choices; None if not measured.
    """

    def __init__(
        self,
        network: JudgeNetwork,
        pictures: Mapping[str, ImageFeatures],
        name: str,
        regions: Sequence[Region],
        metrics: JudgeMetrics | None = None,
    ) -> None:
        self.network = network.eval()
        self.pictures = pictures
        self.name = name
        self.regions = tuple(regions)
        self.metrics = metrics

    def choose(self, questions: Sequence[Question], candidate_sets: Mapping[str, CandidateSet]) -> list[Verdict]:
        """Return the most probable verdict for each question; skip for pictures without features."""
        probs = self.probabilities(questions, candidate_sets)
        return ["skip" if np.isnan(row[0]) else ANSWERS[int(row.argmax())] for row in probs]

    def probabilities(self, questions: Sequence[Question], candidate_sets: Mapping[str, CandidateSet]) -> np.ndarray:
        """Return the probabilities of ``ANSWERS``, float64[n, 3]; NaN for pictures without features.

        Raises:
            DatasetError: a question about an unknown picture or candidate, or a region it has not learned.
        """
        unknown = {question.region for question in questions} - set(self.regions)
        if unknown:
            raise DatasetError(
                f"{self.name} has not learned to judge {', '.join(sorted(unknown))}: it learned from choices about "
                f"{', '.join(self.regions)}. Ask about those, or train it on choices about the others."
            )
        out = np.full((len(questions), len(ANSWERS)), np.nan)
        left, right = question_faces(questions, candidate_sets)
        for region in self.regions:
            here = [i for i, q in enumerate(questions) if q.region == region and q.picture in self.pictures]
            if here:
                pictures = [self.pictures[questions[i].picture] for i in here]
                inputs = make_inputs(self.network, region, pictures, left[here], right[here])
                with torch.inference_mode():
                    out[here] = log_probs(self.network, region, inputs).exp().double().numpy()
        return out

    def save(self, folder: str | Path) -> None:
        """Write the judge, without the pictures, to a folder; all or nothing."""
        recipe = {
            "kind": _KIND,
            "name": self.name,
            "areas": self.regions,
            "tower": _encoder_sha256(),
            "figures": None if self.metrics is None else asdict(self.metrics),
            "versions": versions(),
            "commit": git_commit(),
        }
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            save_file(self.network.state_dict(), temporary / _WEIGHTS)
            write_json(temporary / _RECIPE, recipe)

    @staticmethod
    def load(folder: str | Path, pictures: Mapping[str, ImageFeatures]) -> LearnedJudge:
        """Load a judge.

        Args:
            folder: written by ``save``.
            pictures: features of the pictures to judge, with readings of the same model as in its training.

        Raises:
            ModelError: the folder is missing, damaged or no judge, or the judge was trained with another nano.
        """
        folder = Path(folder)
        try:
            recipe = json.loads((folder / _RECIPE).read_text(encoding="utf-8"))
            weights = load_file(folder / _WEIGHTS)
            if recipe["kind"] != _KIND:
                raise KeyError("kind")
            network = JudgeNetwork(weights["mean"], weights["basis"])
            network.load_state_dict(weights)
            figures, proportions = recipe["figures"], ("correct", "winner", "agreement", "agreement_winner")
            metrics = figures and JudgeMetrics(**figures | {name: Proportion(**figures[name]) for name in proportions})
            judge = LearnedJudge(network, pictures, recipe["name"], recipe["areas"], metrics)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"{folder} is not a readable judge ({error}): train it again.") from error
        if recipe["tower"] != _encoder_sha256():
            raise ModelError(f"{folder} was trained with another nano than the one in this package: train it again.")
        return judge


def train_judge(
    choices: Sequence[Choice],
    candidate_sets: Mapping[str, CandidateSet],
    pictures: Mapping[str, ImageFeatures],
    settings: JudgeSettings | None = None,
    *,
    name: str = "learned",
) -> LearnedJudge:
    """Train a judge on choices, and measure it on choices about other people.

    Args:
        choices: of any annotators.
        candidate_sets: by picture.
        pictures: from ``image_features``, by picture; those of the test choices too.
        settings: how.
        name: of the judge.

    Raises:
        DatasetError: too few choices, people or pictures for training, tuning and test; or a choice about an unknown
            picture or candidate.
    """
    settings = settings or JudgeSettings()
    usable = [each for each in choices if each.verdict in ANSWERS and each.question.picture in pictures]
    splits = _split([_subject_and_picture(each, candidate_sets) for each in usable], settings)
    if min(map(len, splits), default=0) == 0:
        raise DatasetError(
            f"{len(usable)} choices are too few, or about too few pictures, to train on some and be measured on "
            "others: make more choices."
        )
    training, tuning, testing = ([usable[index] for index in split] for split in splits)
    torch.manual_seed(settings.seed)
    names = sorted({each.question.picture for each in training})
    network = JudgeNetwork(*fit_projection([pictures[each] for each in names]))
    training_inputs, tuning_inputs, test_inputs = (
        _inputs_by_region(network, part, candidate_sets, pictures) for part in (training, tuning, testing)
    )
    regions: list[Region] = [region for region in REGIONS if region in training_inputs]
    train_network(network, training_inputs, tuning_inputs, settings)
    before = predict_probs(network, test_inputs)
    network.get_buffer("temperature").fill_(best_temperature(network, tuning_inputs))
    after = predict_probs(network, test_inputs)
    truth = np.concatenate([part.answer.numpy() for part in test_inputs.values()])
    named = truth < 2
    correct, winner = after.argmax(1) == truth, (after[:, 0] >= after[:, 1]) == (truth == 0)
    same, same_winner = agreement(choices)
    metrics = JudgeMetrics(
        len(training),
        len(tuning),
        len(testing),
        len(choices) - len(usable),
        Proportion(int(correct.sum()), len(truth)),
        Proportion(int(winner[named].sum()), int(named.sum())),
        _log_loss(after, truth),
        _log_loss(before, truth),
        _ece(after, truth),
        _ece(before, truth),
        float(network.get_buffer("temperature")),
        same,
        same_winner,
    )
    return LearnedJudge(network, pictures, name, regions, metrics)


def _encoder_sha256() -> str:
    return files_sha256([NANO / "model.safetensors"])


def _subject_and_picture(choice: Choice, candidate_sets: Mapping[str, CandidateSet]) -> tuple[str, str]:
    picture = choice.question.picture
    if picture not in candidate_sets:
        raise DatasetError(
            f"a choice is about picture {picture}, which has no candidates: give those it was made from."
        )
    return candidate_sets[picture].subject, picture


def _split(names: Sequence[tuple[str, str]], settings: JudgeSettings) -> list[list[int]]:
    """Split choices, given as (subject, picture), into training, tuning and test indices without splitting people.

    People are ordered by a hash of their names. With fewer than three people, pictures take their place.
    """
    by_person = len({subject for subject, _ in names}) > 2
    groups = [subject if by_person else picture for subject, picture in names]
    order = sorted(set(groups), key=lambda group: hashlib.sha256(f"{settings.seed} {group}".encode()).digest())
    rank = {group: index for index, group in enumerate(order)}
    ordered = sorted(range(len(groups)), key=lambda index: rank[groups[index]])
    parts: list[list[int]] = [[], [], []]
    ends = (settings.test * len(groups), (settings.test + settings.tuning) * len(groups))
    part_of: dict[str, int] = {}
    for count, index in enumerate(ordered):
        part = 2 if count < ends[0] else 1 if count < ends[1] else 0
        parts[part_of.setdefault(groups[index], part)].append(index)
    return parts


def _inputs_by_region(
    network: JudgeNetwork,
    choices: Sequence[Choice],
    candidate_sets: Mapping[str, CandidateSet],
    pictures: Mapping[str, ImageFeatures],
) -> dict[Region, JudgeInputs]:
    out: dict[Region, JudgeInputs] = {}
    for region in REGIONS:
        here = [each for each in choices if each.question.region == region]
        if here:
            left, right = question_faces([each.question for each in here], candidate_sets)
            features = [pictures[each.question.picture] for each in here]
            answers = [ANSWERS.index(each.verdict) for each in here]
            out[region] = make_inputs(network, region, features, left, right, answers)
    return out


def _log_loss(probs: np.ndarray, truth: np.ndarray) -> float:
    return float(-np.log(np.maximum(probs[np.arange(len(truth)), truth], _EPSILON)).mean())


def _ece(probs: np.ndarray, truth: np.ndarray) -> float:
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == truth
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [abs((confidence - correct)[bins == index].sum()) for index in range(_BINS)]
    return float(sum(gaps) / len(truth))


def simulated_judges(dataset: Path, truth: Path, *, noise: float = NOISE, jnd: float = JND, seed: int = 0) -> Judges:
    """Return two simulated people with independent errors.

    Args:
        dataset: folder of faces; they know the pictures of its splits ``train`` and ``validation``.
        truth: the same faces, row by row, with exact coefficients.
        noise: as in ``SimulatedJudge``.
        jnd: as in ``SimulatedJudge``.
        seed: of the first; the second has the next.

    Raises:
        DatasetError: the two folders do not hold the same pictures.
    """
    known = truth_of(dataset, truth)
    first, second = (SimulatedJudge(known, noise, jnd, seed + nth) for nth in (0, 1))
    return Judges(first, second)


def truth_of(dataset: Path, truth: Path) -> dict[str, np.ndarray]:
    """Return the exact coefficients float32[52] of each picture of the splits ``train`` and ``validation``.

    Args:
        dataset: folder of faces.
        truth: the same faces, row by row, with exact coefficients.

    Raises:
        DatasetError: the two folders do not hold the same pictures.
    """
    known: dict[str, np.ndarray] = {}
    for split in ("train", "validation"):
        faces, exact = load_faces(dataset, split), load_faces(truth, split)
        names = picture_names(faces)
        if names != (names if truth == dataset else picture_names(exact)):
            raise DatasetError(
                f"{truth} does not hold the pictures of {dataset}, {split}, in the same order: its coefficients are "
                "of other faces. Give the folder that was recorded with it."
            )
        known |= dict(zip(names, coefficients_of(exact), strict=True))
    return known


def learned_judges(
    choices: Sequence[Choice],
    candidate_sets: Sequence[CandidateSet],
    reader: Path,
    held_out: HeldOutSet,
    folder: Path,
    *,
    regions: Collection[Region] = HALVES,
    seed: int = 0,
    log: Callable[[str], object] = print,
) -> Judges:
    """Train two judges: each on the choices of half of the annotators, or, with one annotator, on all with two seeds.

    Args:
        choices: of one round.
        candidate_sets: of those choices, of the split ``train``.
        reader: folder of the model whose readings they start from; always the same one.
        held_out: pictures that they will judge later, besides those of the candidate sets.
        folder: each judge is saved here, under its name, with its metrics.
        regions: those they will have to judge.
        seed: of the first; the second has the next.
        log: receives each judge's metrics and the annotator agreement.

    Raises:
        DatasetError: too few choices to learn from, or none in one of the regions.
        SemanticFaceError: a judge cannot be saved.
    """
    people = sorted({choice.annotator for choice in choices})
    groups = [people[::2], people[1::2] or people]
    parts = [[choice for choice in choices if choice.annotator in group] for group in groups]
    for part in parts:
        missing = [region for region in regions if not any(choice.question.region == region for choice in part)]
        if missing:
            raise DatasetError(
                f"{', '.join(sorted({each.annotator for each in part}))} made no choices in the region "
                f"{' or '.join(missing)}, which judges have to learn: annotate with --regions {','.join(regions)}."
            )
    predictor = Predictor.from_pretrained(reader, mode="numbers")
    size = predictor.bundle.image_size
    train, validation = load_faces(held_out.dataset, "train"), held_out.faces(held_out.dataset)
    train_rows, validation_rows = EvalFaces(train, size), EvalFaces(validation, size)
    crops: dict[str, Image.Image | None] = {each.picture: train_rows[each.row].picture for each in candidate_sets}
    crops |= {name: validation_rows[row].picture for row, name in enumerate(picture_names(validation))}
    pictures = image_features(predictor, {name: crop for name, crop in crops.items() if crop is not None})
    by_picture = {each.picture: each for each in candidate_sets}
    same, same_winner = agreement(choices)
    judges = []
    for nth, part in enumerate(parts):
        judge = train_judge(part, by_picture, pictures, JudgeSettings(seed=seed + nth), name=f"learned-{nth + 1}")
        assert judge.metrics is not None
        # Agreement counts annotators of both groups.
        judge.metrics = dataclasses.replace(judge.metrics, agreement=same, agreement_winner=same_winner)
        judge.save(folder / judge.name)
        log(f"judge     {judge.name} {judge.metrics.summary()}")
        judges.append(judge)
    return Judges(*judges)
