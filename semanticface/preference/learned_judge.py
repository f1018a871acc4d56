"""A judge that learns from choices: a small network that sees the picture of a person and what a render shows.

Of the picture it sees the feature map of nano's frozen tower, and where a model's reading of the picture would put the
vertices of the plain head: its starting point. Of a render it sees where the vertices are. Head, camera and light of
renders never change, so that says all that their pixels do, exactly and without drawing. What people choose teaches it
in which way readings are wrong, what in the picture tells so, and which differences count.

The nearer a face to where the network believes the person's face to be, the better; between two faces its answer is
that of Rao and Kupper's model (``judges``), with a learned noise and a learned threshold for "same".

The two judges that rounds need: simulated people where the truth is known, or networks that learned from people.
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
from semanticface.preference.annotator_agreement import Share, agreement, counted
from semanticface.preference.judge_network import (
    ANSWERS,
    ImageFeatures,
    JudgeInputs,
    JudgeSettings,
    Network,
    answers,
    best_temperature,
    encode,
    log_shares,
    main_features,
    train,
)
from semanticface.preference.judges import JND, NOISE, SimulatedJudge, shown
from semanticface.preference.regions import AREAS, HALVES, Area
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
_TINY = 1e-4


def look(predictor: Predictor, crops: Mapping[str, Image.Image]) -> dict[str, ImageFeatures]:
    """Look at pictures, for a judge to learn from or to answer about.

    Args:
        predictor: reads them, in mode ``numbers``; a judge must always be given the readings of the same model.
        crops: square RGB crops of faces by picture.

    Returns:
        What is seen, by picture; those that the model cannot read are left out.
    """
    pixels = [np.asarray(each.resize((nano.PIXELS, nano.PIXELS), Image.Resampling.BICUBIC)) for each in crops.values()]
    tower = load_trained("nano").model.get_encoder(modality="image")
    maps = (each.flatten(1).numpy() for each in feature_maps(tower, np.array(pixels, np.uint8)))
    features = (row for part in maps for row in part)
    readings = predictor.stream(crops.values(), crop="none")
    told = tqdm(zip(crops, features, readings, strict=True), desc="looking", total=len(crops), unit="picture")
    return {name: ImageFeatures(seen, read.mean) for name, seen, read in told if read.mean is not None}


@dataclass(frozen=True, slots=True)
class JudgeFigures:
    """What is known of a judge: figures on held-out choices, about people it has not learned from.

    Attributes:
        learned, tuned, tested: choices for each purpose.
        left_out: choices that say nothing about which face is nearer (neither, skip), or about pictures not seen.
        correct: test choices that it would have made itself: a, b or same.
        winner: same winner, of those that name one.
        log_loss, log_loss_before: mean negative log probability of the test choices, with its temperature and without.
        ece, ece_before: expected calibration error (Guo et al. 2017, 10 bins of equal width), likewise.
        temperature: what differences are divided by.
        agreement: same answer, of questions that two annotators answered.
        agreement_winner: same winner, of questions for which both named one.
    """

    learned: int
    tuned: int
    tested: int
    left_out: int
    correct: Share
    winner: Share
    log_loss: float
    log_loss_before: float
    ece: float
    ece_before: float
    temperature: float
    agreement: Share
    agreement_winner: Share

    def told(self) -> str:
        """Return in a line how often it names the winner that people named, beside how often two people agree."""
        return (
            f"learned from {self.learned:,} choices; right winner in {counted(self.winner)} of those held out, two "
            f"people agree in {counted(self.agreement_winner)}; calibration error {100 * self.ece:.1f} %"
        )


class LearnedJudge:
    """Answers questions as the people whose choices it learned from would; see ``judges.Judge``.

    Attributes:
        name: stands in place of an annotator's in choices.
        areas: those it learned to judge.
        figures: how good it is; None if it was not measured.
    """

    def __init__(
        self,
        network: Network,
        sights: Mapping[str, ImageFeatures],
        name: str,
        areas: Sequence[Area],
        figures: JudgeFigures | None = None,
    ) -> None:
        self.network = network.eval()
        self.sights = sights
        self.name = name
        self.areas = tuple(areas)
        self.figures = figures

    def choose(self, questions: Sequence[Question], slates: Mapping[str, CandidateSet]) -> list[Verdict]:
        """Return the most probable verdict for each question; skip for pictures it has not seen.

        Raises:
            DatasetError: a question about a picture or candidate that is not there, or an area it has not learned.
        """
        shares = self.probabilities(questions, slates)
        return ["skip" if np.isnan(share[0]) else ANSWERS[int(share.argmax())] for share in shares]

    def probabilities(self, questions: Sequence[Question], slates: Mapping[str, CandidateSet]) -> np.ndarray:
        """Return the probability of each of ``ANSWERS``, float64[n, 3]; NaN for pictures it has not seen.

        Raises:
            DatasetError: as ``choose``.
        """
        unknown = {question.area for question in questions} - set(self.areas)
        if unknown:
            raise DatasetError(
                f"{self.name} has not learned to judge {', '.join(sorted(unknown))}: it learned from choices about "
                f"{', '.join(self.areas)}. Ask about those, or teach it with choices about the others."
            )
        out = np.full((len(questions), len(ANSWERS)), np.nan)
        left, right = shown(questions, slates)
        for area in self.areas:
            here = [i for i, q in enumerate(questions) if q.area == area and q.picture in self.sights]
            if here:
                seen = encode(
                    self.network, area, [self.sights[questions[i].picture] for i in here], left[here], right[here]
                )
                with torch.inference_mode():
                    out[here] = log_shares(self.network, area, seen).exp().double().numpy()
        return out

    def save(self, folder: str | Path) -> None:
        """Write the judge, without the pictures, into a folder, whole or not at all.

        Raises:
            SemanticFaceError: the system refuses to write.
        """
        recipe = {
            "kind": _KIND,
            "name": self.name,
            "areas": self.areas,
            "tower": _tower_sha256(),
            "figures": None if self.figures is None else asdict(self.figures),
            "versions": versions(),
            "commit": git_commit(),
        }
        with atomic_path(folder) as scratch:
            scratch.mkdir()
            save_file(self.network.state_dict(), scratch / _WEIGHTS)
            write_json(scratch / _RECIPE, recipe)

    @staticmethod
    def load(folder: str | Path, sights: Mapping[str, ImageFeatures]) -> LearnedJudge:
        """Read a judge.

        Args:
            folder: that ``save`` wrote.
            sights: of the pictures it is to judge, read by the model whose readings it learned with.

        Raises:
            ModelError: the folder is missing, damaged or holds something else, or it learned with another nano.
        """
        folder = Path(folder)
        try:
            recipe = json.loads((folder / _RECIPE).read_text(encoding="utf-8"))
            weights = load_file(folder / _WEIGHTS)
            if recipe["kind"] != _KIND:
                raise KeyError("kind")
            network = Network(weights["mean"], weights["basis"])
            network.load_state_dict(weights)
            told, shares = recipe["figures"], ("correct", "winner", "agreement", "agreement_winner")
            known = told and JudgeFigures(**told | {name: Share(**told[name]) for name in shares})
            judge = LearnedJudge(network, sights, recipe["name"], recipe["areas"], known)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"{folder} holds no judge that can be read ({error}): teach one again.") from error
        if recipe["tower"] != _tower_sha256():
            raise ModelError(f"{folder} learned with another nano than the one in this package: teach it again.")
        return judge


def learn(
    choices: Sequence[Choice],
    slates: Mapping[str, CandidateSet],
    sights: Mapping[str, ImageFeatures],
    settings: JudgeSettings | None = None,
    *,
    name: str = "learned",
) -> LearnedJudge:
    """Teach a judge by choices, and measure it on choices about other people.

    Args:
        choices: standing ones, of any annotators.
        slates: by picture.
        sights: by picture, from ``look``; of test pictures too.
        settings: how.
        name: of the judge.

    Raises:
        DatasetError: too few choices, or not of enough people or pictures, to learn, tune and test with; a choice
            about a picture or candidate that is not among the slates.
    """
    settings = settings or JudgeSettings()
    usable = [each for each in choices if each.verdict in ANSWERS and each.question.picture in sights]
    groups = _parts([_who(each, slates) for each in usable], settings)
    if min(map(len, groups), default=0) == 0:
        raise DatasetError(
            f"{len(usable)} choices are too few, or about too few pictures, to learn from some and be measured on "
            "others: make more choices."
        )
    learning, tuning, testing = ([usable[place] for place in group] for group in groups)
    torch.manual_seed(settings.seed)
    network = Network(*main_features([sights[p] for p in sorted({each.question.picture for each in learning})]))
    taught, tuned, tested = (_by_area(network, part, slates, sights) for part in (learning, tuning, testing))
    areas: list[Area] = [area for area in AREAS if area in taught]
    train(network, taught, tuned, settings)
    before = answers(network, tested)
    network.get_buffer("temperature").fill_(best_temperature(network, tuned))
    after, truth = answers(network, tested), np.concatenate([part.answer.numpy() for part in tested.values()])
    named = truth < 2
    said, winner = after.argmax(1) == truth, (after[:, 0] >= after[:, 1]) == (truth == 0)
    same, same_winner = agreement(choices)
    figures = JudgeFigures(
        len(learning),
        len(tuning),
        len(testing),
        len(choices) - len(usable),
        Share(int(said.sum()), len(truth)),
        Share(int(winner[named].sum()), int(named.sum())),
        _log_loss(after, truth),
        _log_loss(before, truth),
        _ece(after, truth),
        _ece(before, truth),
        float(network.get_buffer("temperature")),
        same,
        same_winner,
    )
    return LearnedJudge(network, sights, name, areas, figures)


def _tower_sha256() -> str:
    return files_sha256([NANO / "model.safetensors"])


def _who(choice: Choice, slates: Mapping[str, CandidateSet]) -> tuple[str, str]:
    """Subject and picture."""
    picture = choice.question.picture
    if picture not in slates:
        raise DatasetError(
            f"a choice is about picture {picture}, which has no candidates: give those it was made from."
        )
    return slates[picture].subject, picture


def _parts(names: Sequence[tuple[str, str]], settings: JudgeSettings) -> list[list[int]]:
    """Part choices, told by subject and picture, into learning, tuning and test, people kept together.

    People come in the order of a hash of their names; of fewer than three people, pictures.
    """
    by_person = len({subject for subject, _ in names}) > 2
    groups = [subject if by_person else picture for subject, picture in names]
    order = sorted(set(groups), key=lambda group: hashlib.sha256(f"{settings.seed} {group}".encode()).digest())
    rank = {group: place for place, group in enumerate(order)}
    sorted_places = sorted(range(len(groups)), key=lambda place: rank[groups[place]])
    parts: list[list[int]] = [[], [], []]
    wanted = (settings.test * len(groups), (settings.test + settings.tuning) * len(groups))
    part_of: dict[str, int] = {}
    for count, place in enumerate(sorted_places):
        part = 2 if count < wanted[0] else 1 if count < wanted[1] else 0
        parts[part_of.setdefault(groups[place], part)].append(place)
    return parts


def _by_area(
    network: Network, choices: Sequence[Choice], slates: Mapping[str, CandidateSet], sights: Mapping[str, ImageFeatures]
) -> dict[Area, JudgeInputs]:
    out: dict[Area, JudgeInputs] = {}
    for area in AREAS:
        here = [each for each in choices if each.question.area == area]
        if here:
            left, right = shown([each.question for each in here], slates)
            seen = [sights[each.question.picture] for each in here]
            out[area] = encode(network, area, seen, left, right, [ANSWERS.index(each.verdict) for each in here])
    return out


def _log_loss(shares: np.ndarray, truth: np.ndarray) -> float:
    return float(-np.log(np.maximum(shares[np.arange(len(truth)), truth], _TINY)).mean())


def _ece(shares: np.ndarray, truth: np.ndarray) -> float:
    sure, right = shares.max(axis=1), shares.argmax(axis=1) == truth
    inside = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    gaps = [abs((sure - right)[inside == place].sum()) for place in range(_BINS)]
    return float(sum(gaps) / len(truth))


def simulated_judges(dataset: Path, truth: Path, *, noise: float = NOISE, jnd: float = JND, seed: int = 0) -> Judges:
    """Return two simulated people, who know the truth of every picture and err each in their own way.

    Args:
        dataset: folder of faces; pictures of its splits ``train`` and ``validation`` are known to them.
        truth: the same faces, row by row, with exact coefficients.
        noise: as for ``SimulatedJudge``.
        jnd: likewise.
        seed: of the first; the second has the next.

    Raises:
        DatasetError: the two folders do not hold the same pictures.
    """
    known = truth_of(dataset, truth)
    first, second = (SimulatedJudge(known, noise, jnd, seed + nth) for nth in (0, 1))
    return Judges(first, second)


def truth_of(dataset: Path, truth: Path) -> dict[str, np.ndarray]:
    """Return the exact coefficients float32[52] of each picture, by its name, of the splits that rounds look at.

    Args:
        dataset: folder of faces.
        truth: the same faces, row by row, with exact coefficients.

    Raises:
        DatasetError: the two folders do not hold the same pictures.
    """
    known: dict[str, np.ndarray] = {}
    for split in ("train", "validation"):
        pictures, exact = load_faces(dataset, split), load_faces(truth, split)
        names = picture_names(pictures)
        if names != (names if truth == dataset else picture_names(exact)):
            raise DatasetError(
                f"{truth} does not hold the pictures of {dataset}, {split}, in their order: its coefficients are of "
                "other faces. Give the folder that was recorded with it."
            )
        known |= dict(zip(names, coefficients_of(exact), strict=True))
    return known


def learned_judges(
    choices: Sequence[Choice],
    slates: Sequence[CandidateSet],
    reader: Path,
    measured: HeldOutSet,
    folder: Path,
    *,
    areas: Collection[Area] = HALVES,
    seed: int = 0,
    say: Callable[[str], object] = print,
) -> Judges:
    """Teach two judges by what people chose: by half of the annotators each, or by all with two seeds where one chose.

    Args:
        choices: of one round.
        slates: the candidates that they are about, of the split ``train``.
        reader: folder of the model whose readings of pictures they start from; always the same one.
        measured: what they will have to judge later, beside the pictures of the slates.
        folder: where each is saved, by name, with what is known of it.
        areas: those they will have to judge.
        seed: of the first; the second has the next.
        say: told how good they are, beside how far people agree.

    Raises:
        DatasetError: too few choices to learn from, or none in one of the areas.
        SemanticFaceError: the disk refuses.
    """
    people = sorted({choice.annotator for choice in choices})
    groups = [people[::2], people[1::2] or people]
    parts = [[choice for choice in choices if choice.annotator in group] for group in groups]
    for part in parts:
        missing = [area for area in areas if not any(choice.question.area == area for choice in part)]
        if missing:
            raise DatasetError(
                f"{', '.join(sorted({each.annotator for each in part}))} chose nothing in the area "
                f"{' or '.join(missing)}, which judges have to learn: annotate with --areas {','.join(areas)}."
            )
    predictor = Predictor.from_pretrained(reader, mode="numbers")
    side = predictor.bundle.image_size
    train, others = load_faces(measured.dataset, "train"), measured.faces(measured.dataset)
    rows, other_rows = EvalFaces(train, side), EvalFaces(others, side)
    crops: dict[str, Image.Image | None] = {slate.picture: rows[slate.row].picture for slate in slates}
    crops |= {name: other_rows[place].picture for place, name in enumerate(picture_names(others))}
    sights = look(predictor, {name: crop for name, crop in crops.items() if crop is not None})
    by_picture = {slate.picture: slate for slate in slates}
    same, same_winner = agreement(choices)
    judges = []
    for nth, part in enumerate(parts):
        judge = learn(part, by_picture, sights, JudgeSettings(seed=seed + nth), name=f"learned-{nth + 1}")
        assert judge.figures is not None
        # People agree or not across the two groups, too.
        judge.figures = dataclasses.replace(judge.figures, agreement=same, agreement_winner=same_winner)
        judge.save(folder / judge.name)
        say(f"judge     {judge.name} {judge.figures.told()}")
        judges.append(judge)
    return Judges(*judges)
