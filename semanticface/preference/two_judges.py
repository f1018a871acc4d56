"""The two judges that rounds need: simulated people where the truth is known, or networks that learned from people."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from semanticface.data.faces import coefficients_of, load_faces
from semanticface.errors import DatasetError
from semanticface.inference.predictor import Predictor
from semanticface.preference.annotator_agreement import agreement
from semanticface.preference.judges import JND, NOISE, SimulatedJudge
from semanticface.preference.learned_judge import JudgeSettings, learn, look
from semanticface.preference.measured import Measured, picture_names
from semanticface.preference.regions import HALVES, Area
from semanticface.preference.rounds import Judges
from semanticface.preference.types import Choice, Slate
from semanticface.training.datasets import EvalRows


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
    slates: Sequence[Slate],
    reader: Path,
    measured: Measured,
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
    rows, other_rows = EvalRows(train, side), EvalRows(others, side)
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
