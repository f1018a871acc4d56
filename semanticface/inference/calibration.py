"""Fit a model's intervals to held-out faces, and say how often they hold the truth on other people.

One level for each mode (``intervals.fit_level``) goes into the model's ``semanticface.json``, under ``calibration``,
with what it was found on. A model that is trained again gets a new file, and so starts uncalibrated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import datasets
import numpy as np
from PIL import Image

from semanticface.data.consent import require_consent
from semanticface.data.faces import coefficients_of, load_faces
from semanticface.errors import DatasetError, ModelError
from semanticface.inference.decoder import Mode
from semanticface.inference.intervals import SHARE, figures, fit_level, summarize, tally
from semanticface.inference.predictor import Predictor
from semanticface.models.files import resolve_model
from semanticface.models.loading import load_trained
from semanticface.recipe import RECIPE_NAME, git_commit, read_recipe, write_recipe
from semanticface.utils.html import Table
from semanticface.utils.progress import tqdm
from semanticface.vision.crop import Box, crop_face
from semanticface.vision.image_io import load_picture

LEAST = 40
"""Pictures with an answer, for fitting and checking together; with 52 numbers each even these give a steady level."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a calibration found in one mode.

    Attributes:
        mode: of the answers.
        level: probability of the model's distribution that its intervals hold from now on.
        fitted: pictures it was found on.
        checked: pictures of other people that ``before`` and ``after`` are about.
        before: ``intervals.figures`` of the model's own intervals.
        after: the same with the level.
    """

    mode: Mode
    level: float
    fitted: int
    checked: int
    before: dict[str, Any]
    after: dict[str, Any]


def calibrate(
    model: str | Path,
    dataset: str | Path,
    *,
    split: str = "validation",
    limit: int = 1000,
    crop: Literal["auto", "box"] = "auto",
    batch_size: int = 16,
    device: str | None = None,
    seed: int = 0,
) -> list[Calibrated]:
    """Calibrate a model on faces that it was not trained on, and write the levels into its folder.

    Half of the people (of a dataset of one person: half of the pictures) are fitted to, the others checked on.

    Args:
        model: ``nano`` or the folder of a model or adapter, which ``semanticface.json`` says how it was made.
        dataset: folder of faces.
        split: of the dataset.
        limit: pictures at most, drawn by the seed; each takes 21 kB of memory.
        crop: ``auto`` finds the face, as users get it; ``box`` takes the dataset's own box.
        batch_size: pictures at a time.
        device: as in ``Predictor.from_pretrained``.
        seed: draws the pictures and the halves.

    Returns:
        What was found in each mode.

    Raises:
        ModelError: no folder, or one without a recipe, or a model that cannot be loaded.
        DatasetError: no such split, no boxes where they are asked for, or too few pictures with an answer.
        SemanticFaceError: the folder cannot be written to.
    """
    if str(model) != "nano" and not Path(model).is_dir():
        raise ModelError(f"{model} is no folder: levels are kept in the model's own. Download the model first.")
    folder, _ = resolve_model(model)
    recipe = read_recipe(folder)
    faces = load_faces(dataset, split)
    require_consent(dataset, faces, "evaluate")
    if crop == "box" and "box" not in faces.column_names:
        raise DatasetError(f"{dataset} has no column box. Use --crop auto.")
    rng = np.random.default_rng(seed)
    faces = faces.select(np.sort(rng.permutation(len(faces))[:limit]))
    to_fit = _halves(np.array(faces["subject"]), rng)
    bundle = load_trained(model, device=device or "auto")
    found = []
    for mode in get_args(Mode):
        predictor = Predictor(bundle, mode=mode)
        shares, true, rows = _predicted(predictor, faces, crop, batch_size)
        if len(rows) < LEAST or not 0 < to_fit[rows].sum() < len(rows):
            raise DatasetError(
                f"{dataset}: {len(rows)} of {len(faces)} pictures have an answer, {LEAST} are needed, not all of one "
                "of its people. Give more, or --crop box where pictures are cropped already."
            )
        fit, check = to_fit[rows], ~to_fit[rows]
        level = fit_level(shares[fit], true[fit])
        tree = predictor.reader.decoder.tree
        before, after = (figures(tally(true[check], summarize(tree, shares[check], each))) for each in (None, level))
        found.append(Calibrated(mode, level, int(fit.sum()), int(check.sum()), before, after))
    recipe["calibration"] = {
        "share": SHARE,
        "levels": {each.mode: each.level for each in found},
        "coverage": {each.mode: each.after["interval_coverage"] for each in found},
        "coverage_all": {each.mode: each.after["interval_coverage_all"] for each in found},
        "pictures": found[0].fitted,
        "dataset": str(dataset),
        "split": split,
        "seed": seed,
        "commit": git_commit(),
    }
    write_recipe(folder, recipe)
    return found


def table(found: list[Calibrated], model: str | Path) -> str:
    """Return what a calibration found in a few lines of Markdown."""
    head = [
        "80 % intervals",
        "level",
        "hold the truth, before → after",
        "of numbers in doubt",
        "of all, before → after",
    ]
    rows = []
    for each in found:
        covered, everything = (
            " → ".join(_percent(side[key]) for side in (each.before, each.after))
            for key in ("interval_coverage", "interval_coverage_all")
        )
        rows.append([each.mode, f"{each.level:.3f}", covered, _percent(each.after["in_doubt"]), everything])
    first = found[0]
    lines = [
        Table(head, rows).markdown(),
        "",
        f"Levels fitted on {first.fitted} pictures, coverage on {first.checked} of other people. In doubt are numbers "
        "whose interval has more than one value; where the model is sure of one, that value is the interval.",
        f"Written to {resolve_model(model)[0] / RECIPE_NAME}.",
    ]
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _halves(subjects: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose half of the people, or half of the rows where all show one; bool[N]."""
    people, of = np.unique(subjects, return_inverse=True)
    if len(people) == 1:
        of = np.arange(len(subjects))
    order = rng.permutation(of.max() + 1)
    return np.isin(of, order[: (len(order) + 1) // 2])


def _predicted(
    predictor: Predictor, faces: datasets.Dataset, crop: str, batch_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distributions [n, 52, 101] and truths [n, 52] of the rows int64[n] that have an answer."""
    size = predictor.bundle.image_size

    def pictures() -> Iterator[Image.Image]:
        for row in faces:
            picture = row["picture"]
            yield picture if crop == "auto" else crop_face(load_picture(picture), Box(*row["box"]), size)

    how: Literal["auto", "none"] = "auto" if crop == "auto" else "none"
    stream = predictor.stream(pictures(), batch_size=batch_size, crop=how, keep_shares=True)
    bar = tqdm(stream, total=len(faces), unit="picture", desc=predictor.reader.decoder.mode)
    kept = [(index, each.shares) for index, each in enumerate(bar) if each.shares is not None]
    rows = np.array([index for index, _ in kept], dtype=np.int64)
    true = coefficients_of(faces)[rows]
    return np.array([shares for _, shares in kept], dtype=np.float32), true, rows
