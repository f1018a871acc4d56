"""Fit a model's intervals to held-out faces, and measure their coverage on other people.

One level for each mode (``intervals.fit_level``) is stored in the model's ``semanticface.json``, under ``calibration``,
with the data it was fitted on. Training writes a new file, and so an uncalibrated model.
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
from semanticface.inference.intervals import COVERAGE, figures, fit_level, readout_sums, summarize
from semanticface.inference.predictor import Predictor
from semanticface.models.files import resolve_model
from semanticface.models.loading import load_trained
from semanticface.recipe import RECIPE_NAME, git_commit, read_recipe, write_recipe
from semanticface.utils.html import Table
from semanticface.utils.progress import tqdm
from semanticface.vision.crop import Box, crop_face
from semanticface.vision.image_io import load_picture

MIN_PICTURES = 40
"""Pictures with an answer, for fitting and checking together; with 52 numbers each they give a stable level."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calibration of one mode.

    Attributes:
        mode: of the answers.
        level: probability of the model's distribution that its intervals hold from now on.
        fitted: pictures the level was fitted on.
        checked: pictures of other people that ``before`` and ``after`` are measured on.
        before: ``intervals.figures`` of the uncalibrated intervals.
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
) -> list[Calibration]:
    """Calibrate a model on faces it was not trained on, and write the levels into its folder.

    Half of the people (with a single person, half of the pictures) are fitted on, the others checked.

    Args:
        model: ``nano`` or the folder of a model or adapter with its ``semanticface.json``.
        dataset: folder of faces.
        split: of the dataset.
        limit: most pictures, sampled by the seed; each takes 21 kB of memory.
        crop: ``auto`` finds the face, as for users; ``box`` takes the dataset's own box.
        batch_size: pictures at a time.
        device: as in ``Predictor.from_pretrained``.
        seed: samples the pictures and the halves.

    Returns:
        The calibration of each mode.

    Raises:
        ModelError: no folder, or one without a recipe, or a model that cannot be loaded.
        DatasetError: no such split, no boxes with ``box``, or too few pictures with an answer.
        SemanticFaceError: the folder is not writable.
    """
    if str(model) != "nano" and not Path(model).is_dir():
        raise ModelError(f"{model} is no folder: levels are stored in the model's own. Download the model first.")
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
        probs, true, rows = _predicted(predictor, faces, crop, batch_size)
        if len(rows) < MIN_PICTURES or not 0 < to_fit[rows].sum() < len(rows):
            raise DatasetError(
                f"{dataset}: {len(rows)} of {len(faces)} pictures have an answer; {MIN_PICTURES} are needed, not all "
                "of one person. Give more, or --crop box where pictures are cropped already."
            )
        fit, check = to_fit[rows], ~to_fit[rows]
        level = fit_level(probs[fit], true[fit])
        trie = predictor.engine.decoder.trie
        before, after = (
            figures(readout_sums(true[check], summarize(trie, probs[check], each))) for each in (None, level)
        )
        found.append(Calibration(mode, level, int(fit.sum()), int(check.sum()), before, after))
    recipe["calibration"] = {
        "share": COVERAGE,
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


def table(found: list[Calibration], model: str | Path) -> str:
    """Return the result of a calibration in a few lines of Markdown."""
    head = [
        "80 % intervals",
        "level",
        "hold the true value, before → after",
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
        "whose interval has more than one value; where the model is sure of one value, that is the interval.",
        f"Written to {resolve_model(model)[0] / RECIPE_NAME}.",
    ]
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _halves(subjects: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose half of the people, or half of the rows if all show one; bool[N]."""
    people, person = np.unique(subjects, return_inverse=True)
    if len(people) == 1:
        person = np.arange(len(subjects))
    order = rng.permutation(person.max() + 1)
    return np.isin(person, order[: (len(order) + 1) // 2])


def _predicted(
    predictor: Predictor, faces: datasets.Dataset, crop: str, batch_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distributions [n, 52, 101], true values [n, 52] and rows int64[n] of the faces with an answer."""
    size = predictor.bundle.image_size

    def pictures() -> Iterator[Image.Image]:
        for row in faces:
            picture = row["picture"]
            yield picture if crop == "auto" else crop_face(load_picture(picture), Box(*row["box"]), size)

    crop_mode: Literal["auto", "none"] = "auto" if crop == "auto" else "none"
    stream = predictor.stream(pictures(), batch_size=batch_size, crop=crop_mode, keep_probs=True)
    bar = tqdm(stream, total=len(faces), unit="picture", desc=predictor.engine.decoder.mode)
    kept = [(index, each.probs) for index, each in enumerate(bar) if each.probs is not None]
    rows = np.array([index for index, _ in kept], dtype=np.int64)
    true = coefficients_of(faces)[rows]
    return np.array([probs for _, probs in kept], dtype=np.float32), true, rows
