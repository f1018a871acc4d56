"""What rounds of alignment are measured on: pictures held out, what models say of them, and how far that is off."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np

from semanticface.data.faces import coefficients_of, load_faces, picture_bytes
from semanticface.errors import ModelError, TableError
from semanticface.evaluation import metrics
from semanticface.formats import tables
from semanticface.inference.predictor import Predictor
from semanticface.preference.judges import versus
from semanticface.preference.regions import AREAS, distance
from semanticface.preference.types import Slate
from semanticface.training.datasets import EvalRows

_SPLIT = "validation"


@dataclass(frozen=True, slots=True)
class Measured:
    """Pictures of the validation split, spread evenly over it.

    Attributes:
        dataset: folder of faces.
        truth: the same faces with exact coefficients; the dataset itself where they are exact.
        count: how many, or all there are.
    """

    dataset: Path
    truth: Path
    count: int

    def faces(self, folder: Path) -> datasets.Dataset:
        """Return the rows in either folder."""
        faces = load_faces(folder, _SPLIT)
        return faces.select(EvalRows(faces, 1, self.count).indices)

    def predicted(self, model: Path, path: Path) -> np.ndarray:
        """Return what a model says of the pictures, without words; float32[n, 52], NaN where it has no answer.

        Args:
            model: its folder.
            path: JSONL of the predictions; made unless it is there.

        Raises:
            PictureError: a picture is missing or damaged.
            TableError: the predictions are of other pictures, as many as there were before.
        """
        if not path.exists():
            predictor = Predictor.from_pretrained(model, mode="numbers")
            rows = EvalRows(load_faces(self.dataset, _SPLIT), predictor.bundle.image_size, self.count)
            crops = (rows[place].picture for place in range(len(rows)))
            tables.write(path, predictor.stream(filter(None, crops), crop="none"))
        found = metrics.stacked(row.coefficients for row in tables.read_coefficients(path))
        if len(found) != (wanted := len(self.faces(self.dataset))):
            raise TableError(f"{path}: {len(found)} predictions for {wanted} pictures. Remove it; it is made again.")
        return found

    def compared(self, ours: np.ndarray, theirs: np.ndarray) -> list[Slate]:
        """Return slates of two for ``win_rate``: what two models say of the pictures.

        Args:
            ours: float32[n, 52], from ``predicted``; pictures with NaN in either are left out, and repeated ones.
            theirs: likewise.

        Raises:
            ModelError: no picture is left.
        """
        faces = self.faces(self.dataset)
        valid = ~np.isnan(ours + theirs).any(axis=1)
        names = picture_names(faces)
        chosen = sorted({name: place for place, name in enumerate(names) if valid[place]}.values())
        if not chosen:
            raise ModelError("no picture has an answer from both models: what is compared is no model of faces.")
        subjects = list(map(str, faces["subject"]))
        if len(set(subjects)) == 1:  # of one person, pictures are what could have been others
            subjects = names
        return versus(
            [names[place] for place in chosen],
            chosen,
            [subjects[place] for place in chosen],
            ours[chosen],
            theirs[chosen],
        )

    def errors(self, answers: np.ndarray) -> dict[str, float]:
        """Return how far answers are from the truth, or from what is taken for it.

        Args:
            answers: float32[n, 52], from ``predicted``; rows with NaN do not count.

        Returns:
            ``vertex_error_upper``, ``_lower`` and ``_whole``, percent of the inter-pupil distance, each with the rest
            at rest; ``mae``.

        Raises:
            ModelError: there are no answers.
        """
        true = coefficients_of(self.faces(self.truth))
        valid = ~np.isnan(answers).any(axis=1)
        if not valid.any():
            raise ModelError(
                f"the model has no answer to any of {len(answers)} pictures of {self.dataset}: it is broken. Lower "
                "align.learning_rate, or begin from another model."
            )
        found = {f"vertex_error_{area}": float(distance(answers[valid], true[valid], area).mean()) for area in AREAS}
        return found | {"mae": float(np.abs(answers[valid] - true[valid]).mean())}


def picture_names(faces: datasets.Dataset) -> list[str]:
    """Return what names each picture of a split, as in ``Slate``: the sha256 of its bytes.

    Raises:
        PictureError: a row without a picture.
    """
    stored = faces.cast_column("picture", datasets.Image(decode=False)).select_columns("picture")
    return [
        hashlib.sha256(picture_bytes(row["picture"], f"row {place}")).hexdigest() for place, row in enumerate(stored)
    ]
