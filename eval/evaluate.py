"""Measure a model on a dataset of faces: every figure beside constant predictors, and a page to look at.

    python eval/evaluate.py --model nano --dataset outputs/faces --out outputs/nano-on-faces

writes into ``--out``:

* ``metrics.json``: the result of ``metrics.score`` and how it was made;
* ``predictions.jsonl``: one line a row of the split, in order, as ``semanticface predict`` writes it;
* ``report.html``: the figures, and the worst, the best and some random pictures.

To see what a training changed, evaluate the model before it, then the one after it beside it:

    python eval/evaluate.py --model outputs/adapter --dataset outputs/faces --out outputs/after --before outputs/before

Photographs have no truth to be measured by, but they can be looked at in the same report:

    semanticface predict photos/ --model outputs/adapter --out photos.jsonl
    python eval/evaluate.py --model outputs/adapter --dataset outputs/faces --out outputs/after --photos photos.jsonl
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from semanticface import metrics, report, tables
from semanticface.crop import Box, crop_face
from semanticface.dataset import load_faces
from semanticface.errors import DatasetError, SemanticFaceError
from semanticface.files import atomic_open
from semanticface.picture import load_picture
from semanticface.predict import Prediction, Predictor
from semanticface.recipe import git_commit, versions

CARDS = 6
"""Sample cards in each of the three selections of the report."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the evaluation and return the exit code."""
    options = _options(arguments)
    try:
        result = evaluate(options)
    except SemanticFaceError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("evaluate: interrupted", file=sys.stderr)
        return 130
    print(metrics.compare(result))
    print(f"\n{options.out / 'report.html'}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help='"nano", a model or adapter folder, or a hub id (%(default)s)')
    parser.add_argument("--dataset", type=Path, required=True, help="folder that data_prep/render_faces.py wrote")
    parser.add_argument("--split", default="test", help="which part of it (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="at most this many rows, drawn by --seed (default: all)")
    parser.add_argument("--out", type=Path, default=Path("outputs/evaluation"), help="folder (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="draws the rows of --limit and the random cards")
    parser.add_argument(
        "--crop",
        choices=("auto", "box"),
        default="auto",
        help="auto: find the face, as users get it; box: the dataset's own box, to measure the model alone",
    )
    parser.add_argument(
        "--mode", choices=("full", "numbers"), default="full", help="numbers: no words, as for video (%(default)s)"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="pictures at a time (default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda, … (default: the best there is)")
    parser.add_argument("--before", type=Path, metavar="DIR", help="--out of an earlier run, shown beside this one")
    parser.add_argument(
        "--photos", type=Path, metavar="X.jsonl", help="written by semanticface predict --out: shown in the report too"
    )
    parser.add_argument("--title", default="How well the model reads faces", help="heading of the report")
    options = parser.parse_args(arguments)
    for name, least in (("limit", 1), ("seed", 0), ("batch_size", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            parser.error(f"--{name.replace('_', '-')} is {value}: give at least {least}")
    options.command = shlex.join(["python", "eval/evaluate.py", *(sys.argv[1:] if arguments is None else arguments)])
    return options


def evaluate(options: argparse.Namespace) -> list[tuple[str, metrics.Result]]:
    """Predict the rows, score them, write the three files, and return the named results."""
    faces = load_faces(options.dataset, options.split)
    if not len(faces):
        raise DatasetError(f"{options.dataset}: the split {options.split} has no rows. Choose another --split.")
    earlier = None if options.before is None else _earlier(options.before)
    constants = _constants(options.dataset, options.split)
    indices = np.arange(len(faces))
    if options.limit is not None and options.limit < len(faces):
        indices = np.sort(np.random.default_rng(options.seed).choice(len(faces), options.limit, replace=False))
    photos = [] if options.photos is None else list(report.file_samples(options.photos))
    predictor = Predictor.from_pretrained(options.model, device=options.device, mode=options.mode)
    if options.crop == "box" and "box" not in faces.column_names:
        raise DatasetError(f"{options.dataset} has no column box. Use --crop auto.")

    def pictures() -> Iterator[Image.Image]:
        for index in indices.tolist():
            row = faces[index]
            if options.crop == "box":
                yield crop_face(load_picture(row["picture"]), Box(*row["box"]), predictor.bundle.image_size)
            else:
                yield row["picture"]

    crop: Literal["auto", "none"] = "none" if options.crop == "box" else "auto"
    stream = predictor.stream(pictures(), batch_size=options.batch_size, crop=crop)
    predictions = []
    for index, prediction in zip(indices.tolist(), tqdm(stream, total=len(indices), unit="picture"), strict=True):
        box = Box(*faces[index]["box"]) if options.crop == "box" else prediction.box
        predictions.append(dataclasses.replace(prediction, image=f"{options.split}/{index}", box=box))
    true = faces.select(indices).with_format("numpy")["coefficients"][:].astype(np.float32)
    unknown = np.full(true.shape[1], np.nan, dtype=np.float32)
    answers = np.stack([unknown if p.coefficients is None else p.coefficients for p in predictions])
    mean, median = constants or (None, None)
    result = metrics.score(
        true, answers, analyses=[p.analysis for p in predictions], train_mean=mean, train_median=median
    )
    results = [("model", result)] if earlier is None else [("before", earlier), ("after", result)]
    try:
        metrics.compare(results)
    except ValueError as error:
        raise SemanticFaceError(f"{options.before}: {error}. Use the same dataset, split, limit and seed.") from error

    recipe = {
        "command": options.command,
        "model": str(options.model),
        "dataset": str(options.dataset),
        "split": options.split,
        "rows": len(true),
        "seed": options.seed,
        "crop": options.crop,
        "mode": options.mode,
        "commit": git_commit(),
        "versions": versions(),
    }
    tables.write(options.out / "predictions.jsonl", predictions)
    _write_report(options, results, recipe, faces, indices, predictions, true, answers, photos)
    with atomic_open(options.out / "metrics.json") as file:
        json.dump({"result": result, "recipe": recipe}, file, indent=2, allow_nan=False)
        file.write("\n")
    return results


def _constants(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return mean and median of the training split; None, said aloud, where there is none to take them from."""
    try:
        train = load_faces(folder, "train")
    except DatasetError as error:
        print(f"evaluate: the constants come from the {split} split itself: {error}", file=sys.stderr)
        return None
    return metrics.constants(train.with_format("numpy")["coefficients"][:].astype(np.float32))


def _earlier(folder: Path) -> metrics.Result:
    path = folder / "metrics.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))["result"]
        metrics.table(result)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SemanticFaceError(f"{path}: not the metrics of an earlier evaluation. Run evaluate.py first.") from error
    return result


def _write_report(
    options: argparse.Namespace,
    results: list[tuple[str, metrics.Result]],
    recipe: dict[str, Any],
    faces: Any,
    indices: np.ndarray,
    predictions: list[Prediction],
    true: np.ndarray,
    answers: np.ndarray,
    photos: list[report.Sample],
) -> None:
    errors = np.abs(answers - true).mean(axis=1)

    def cards(rows: np.ndarray) -> Iterator[report.Sample]:
        for row in rows.tolist():
            prediction = predictions[row]
            yield report.Sample(
                prediction.image,
                load_picture(faces[int(indices[row])]["picture"]),
                prediction.coefficients,
                prediction.analysis,
                truth=true[row],
                box=prediction.box,
                chip="" if np.isnan(errors[row]) else f"mean error {errors[row]:.3f}",
                reason=prediction.reason,
                note=prediction.note,
            )

    worst, best, drawn = report.selections(errors, CARDS, options.seed)
    sections: list[report.Figures | report.Samples] = [report.Figures("Figures", results)]
    if photos:
        intro = "Pictures from outside the data set, without a truth to compare with."
        sections.append(report.Samples("Photographs", photos, intro))
    sections += [
        report.Samples("Random", cards(drawn), f"Drawn by the seed {options.seed}."),
        report.Samples("Worst", cards(worst), "Without an answer, or with the largest mean error."),
        report.Samples("Best", cards(best), "With the smallest mean error."),
    ]
    shown = {key: str(recipe[key]) for key in ("model", "mode", "dataset", "split", "rows", "crop", "seed", "command")}
    if recipe["commit"]:
        shown["commit"] = recipe["commit"]
    report.write_report(options.out / "report.html", options.title, sections, recipe=shown)


if __name__ == "__main__":
    sys.exit(main())
