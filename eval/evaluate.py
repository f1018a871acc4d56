"""Evaluate a model on a dataset of faces: metrics next to those of constant predictors, and an HTML report.

    python eval/evaluate.py --model nano --dataset outputs/faces --out outputs/nano-on-faces

writes into ``--out``:

* ``metrics.json``: the result of ``metrics.score``; greedy, mean and median readouts of the same forward pass and the
  coverage of the intervals (``intervals.figures``); and how it was made;
* ``predictions.jsonl``: one line per row of the split, in order, as ``semanticface predict`` writes it;
* ``report.html``: the figures, and the worst, the best and some random pictures.

To compare a model before and after training, evaluate the first, then the second with ``--before``:

    python eval/evaluate.py --model outputs/adapter --dataset outputs/faces --out outputs/after --before outputs/before

Photographs have no ground truth, but can be shown in the same report:

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
from typing import Any

import numpy as np
from PIL import Image

from semanticface.arkit import NAMES
from semanticface.cli.scripts import ScriptParser
from semanticface.data.consent import require_consent
from semanticface.data.faces import coefficients_of, load_faces
from semanticface.errors import DatasetError, SemanticFaceError
from semanticface.evaluation import metrics, report
from semanticface.formats import tables
from semanticface.inference import intervals
from semanticface.inference.predictor import Prediction, Predictor
from semanticface.models.files import resolve_model
from semanticface.recipe import files_sha256, git_commit, versions
from semanticface.semantics.analysis import Analysis
from semanticface.utils.files import write_json
from semanticface.utils.html import write_page
from semanticface.utils.progress import tqdm
from semanticface.vision.crop import Box, crop_face
from semanticface.vision.image_io import load_picture

CARDS = 6
"""Cards in each of the report's three selections."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the evaluation and return the exit code."""
    options = _options(arguments)
    try:
        results, readouts = evaluate(options)
    except SemanticFaceError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("evaluate: interrupted", file=sys.stderr)
        return 130
    print(metrics.compare(results))
    print(f"\n{readouts}")
    print(f"\n{options.out / 'report.html'}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    parser.add_argument("--model", default="nano", help='"nano", a model or adapter folder, or a Hub id (%(default)s)')
    parser.add_argument("--dataset", type=Path, required=True, help="folder that data_prep/render_faces.py wrote")
    parser.add_argument("--split", default="test", help="split of the dataset (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="maximum rows, selected by --seed (default: all)")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/evaluation"), help="output folder (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="selects the rows of --limit and the random cards")
    parser.add_argument(
        "--crop",
        choices=("auto", "box"),
        default="auto",
        help="auto: detect the face, as in use; box: the dataset's box, to measure the model alone",
    )
    parser.add_argument(
        "--mode", choices=("full", "numbers"), default="full", help="numbers: no analysis, as for video (%(default)s)"
    )
    parser.add_argument(
        "--readout", choices=("greedy", "mean", "median"), help="how numbers are read (default: the model's own)"
    )
    parser.add_argument(
        "--mirror", action="store_true", help="also read each picture's mirror image and average both (twice the time)"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="pictures per batch (default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda, … (default: the best available)")
    parser.add_argument("--before", type=Path, metavar="DIR", help="--out of an earlier run to compare with")
    parser.add_argument(
        "--photos", type=Path, metavar="X.jsonl", help="output of semanticface predict --out, to show in the report"
    )
    parser.add_argument("--title", default="How well the model reads faces", help="heading of the report")
    options = parser.parse_args(arguments)
    for name, least in (("limit", 1), ("seed", 0), ("batch_size", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            parser.error(f"--{name.replace('_', '-')} is {value}: give at least {least}")
    name = parser.prog.split() if parser.prog.startswith("semanticface ") else ["python", "eval/evaluate.py"]
    options.command = shlex.join([*name, *(sys.argv[1:] if arguments is None else arguments)])
    return options


def evaluate(options: argparse.Namespace) -> tuple[list[tuple[str, metrics.Result]], str]:
    """Predict, score and write the three files; return the named results and a table of the readouts."""
    faces = load_faces(options.dataset, options.split)
    require_consent(options.dataset, faces, "evaluate")
    if not len(faces):
        raise DatasetError(f"{options.dataset}: the split {options.split} has no rows. Choose another --split.")
    earlier = None if options.before is None else _earlier(options.before)
    constants = _constants(options.dataset, options.split)
    indices = np.arange(len(faces))
    if options.limit is not None and options.limit < len(faces):
        indices = np.sort(np.random.default_rng(options.seed).choice(len(faces), options.limit, replace=False))
    if earlier is not None and earlier["samples"] != len(indices):
        raise SemanticFaceError(
            f"{options.before}: has {earlier['samples']} pictures, this run {len(indices)}. "
            "Use the same dataset, split, limit and seed."
        )
    # Checked before the model runs.
    if options.photos is not None and next(tables.read_coefficients(options.photos), None) is None:
        raise SemanticFaceError(f"{options.photos} has no rows. Give the output of semanticface predict for pictures.")
    predictor = Predictor.from_pretrained(
        options.model, device=options.device, mode=options.mode, readout=options.readout, mirror=options.mirror
    )
    if options.crop == "box" and "box" not in faces.column_names:
        raise DatasetError(f"{options.dataset} has no column box. Use --crop auto.")

    chosen = faces.select(indices)
    true = coefficients_of(chosen)
    boxes = chosen.with_format("numpy")["box"][:] if options.crop == "box" else None

    def dataset_box(place: int) -> Box | None:
        return None if boxes is None else Box(*boxes[place].tolist())

    def pictures() -> Iterator[Image.Image]:
        for place, row in enumerate(chosen.select_columns("picture")):
            box = dataset_box(place)
            if box is None:
                yield row["picture"]
            else:
                yield crop_face(load_picture(row["picture"]), box, predictor.bundle.image_size)

    stream = predictor.stream(pictures(), batch_size=options.batch_size, crop="auto" if boxes is None else "none")
    answers = np.full_like(true, np.nan)
    # One array: many small ones would fragment the memory that each batch frees.
    tallies = np.full((len(true), intervals.N_SUMS), np.nan)

    def predictions() -> Iterator[Prediction]:
        for place, prediction in enumerate(tqdm(stream, total=len(indices), unit="picture")):
            if prediction.coefficients is not None:
                answers[place] = prediction.coefficients
            if prediction.summary is not None:
                tallies[place] = intervals.readout_sums(true[place], prediction.summary)
            box = dataset_box(place) or prediction.box
            yield dataclasses.replace(prediction, image=f"{options.split}/{indices[place]}", box=box)

    # Analyses are many times larger than numbers: they are read back from the file when needed.
    predictions_path = options.out / "predictions.jsonl"
    tables.write(predictions_path, predictions())
    mean, median = constants or (None, None)
    analyses = (row["analysis"] and Analysis.from_dict(row["analysis"]) for row in _read(predictions_path))
    result = metrics.score(true, answers, analyses=analyses, train_mean=mean, train_median=median)
    results = [("model", result)] if earlier is None else [("before", earlier), ("after", result)]

    calibrated = predictor.level is not None
    readouts = intervals.figures(tallies[~np.isnan(tallies).any(axis=1)])
    recipe = {
        "command": options.command,
        "model": str(options.model),
        "weights": files_sha256(list(resolve_model(options.model)[0].glob("*.safetensors"))),
        "dataset": str(options.dataset),
        "data": faces._fingerprint,
        "split": options.split,
        "rows": len(true),
        "seed": options.seed,
        "crop": options.crop,
        "mode": options.mode,
        "readout": predictor.readout,
        "mirror": options.mirror,
        "calibrated": calibrated,
        "commit": git_commit(),
        "versions": versions(),
    }
    _write_report(options, results, recipe, chosen, true, answers, intervals.summary(readouts, calibrated))
    write_json(options.out / "metrics.json", {"result": result, "readouts": readouts, "recipe": recipe})
    return results, intervals.table(readouts, calibrated)


def _constants(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return mean and median of the training split; None, with a warning, if there is no such split."""
    try:
        train = load_faces(folder, "train")
    except DatasetError as error:
        print(f"evaluate: the constants come from the {split} split itself: {error}", file=sys.stderr)
        return None
    return metrics.constants(coefficients_of(train))


def _read(predictions: Path) -> Iterator[dict[str, Any]]:
    with predictions.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


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
    chosen: Any,
    true: np.ndarray,
    answers: np.ndarray,
    summary: str,
) -> None:
    errors = np.array([np.abs(answer - truth).mean() for answer, truth in zip(answers, true, strict=True)])
    worst, best, random = report.selections(errors, CARDS, options.seed)
    shown = {*worst.tolist(), *best.tolist(), *random.tolist()}
    rows_shown = {place: row for place, row in enumerate(_read(options.out / "predictions.jsonl")) if place in shown}

    def cards(rows: np.ndarray) -> Iterator[report.Sample]:
        for place in rows.tolist():
            row = rows_shown[place]
            box, analysis = row.get("box"), row["analysis"]
            yield report.Sample(
                row["image"],
                load_picture(chosen[place]["picture"]),
                None if row["coefficients"] is None else answers[place],
                analysis and Analysis.from_dict(analysis),
                truth=true[place],
                box=box and Box(*box),
                chip="" if np.isnan(errors[place]) else f"mean error {errors[place]:.3f}",
                reason=row.get("reason", ""),
                note=row.get("note", ""),
                interval=np.array([row["interval"][name] for name in NAMES]) if "interval" in row else None,
            )

    sections: list[report.Figures | report.Samples] = [report.Figures("Figures", results, summary)]
    if options.photos is not None:
        intro = "Pictures from outside the dataset, without ground truth."
        sections.append(report.Samples("Photographs", report.file_samples(options.photos), intro))
    sections += [
        report.Samples("Random", cards(random), f"Selected by seed {options.seed}."),
        report.Samples("Worst", cards(worst), "No answer, or the largest mean error."),
        report.Samples("Best", cards(best), "The smallest mean error."),
    ]
    facts = {key: str(recipe[key]) for key in ("model", "mode", "dataset", "split", "rows", "crop", "seed", "command")}
    if recipe["commit"]:
        facts["commit"] = recipe["commit"]
    write_page(options.out / "report.html", options.title, sections, recipe=facts)


if __name__ == "__main__":
    sys.exit(main())
