"""``semanticface predict``: pictures and videos to coefficients with an analysis."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from semanticface.cli import arguments, predict_video
from semanticface.cli.arguments import OUT_HELP, Subparsers, add_command
from semanticface.cli.output import deliver, warn
from semanticface.errors import SemanticFaceError

if TYPE_CHECKING:
    from semanticface.formats.tables import RowResult
    from semanticface.vision.crop import Box


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "predict",
        "predict 52 coefficients and an analysis from pictures or a video of a face",
        "Reads PNG, JPEG and WebP; a folder means the pictures in it, sorted by name. The face is detected and\n"
        "cropped first; of several faces the largest. Everything runs on this machine.\n\n"
        "The JSONL has one object per picture, in order: image, status (ok, or a short code with a reason),\n"
        "coefficients (by action name), interval (lowest and highest value of each with a probability of 80 %;\n"
        "calibrated says whether it was fitted on held-out faces), analysis. The CSV has image and the 52 actions; a\n"
        "failed picture keeps its row, with empty cells, and its reason is printed to standard error.\n\n"
        + predict_video.ABOUT,
        "semanticface predict face.jpg",
        "semanticface predict photos/ --out faces.csv",
        "semanticface predict frame.png --box 120,80,360,320 --report face.html",
        "semanticface predict party.jpg --all-faces --out faces.jsonl",
        "semanticface predict crops/ --no-crop --model outputs/my-adapter --out faces.jsonl",
        *predict_video.EXAMPLES,
    )
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="pictures, folders of pictures, or one video")
    arguments.add_model(parser)
    parser.add_argument("--out", metavar="X", help=OUT_HELP)
    parser.add_argument("--report", metavar="X.html", help="also write a page with pictures, analyses and bars")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--no-crop", action="store_true", help="the pictures are square crops of one face already")
    where.add_argument("--all-faces", action="store_true", help="a row for every face of a picture, from the left")
    where.add_argument(
        "--box", type=arguments.box, metavar="X0,Y0,X1,Y1", help="the face's box in pixels, the same in all pictures"
    )
    arguments.add_batch_size(parser)
    parser.add_argument(
        "--temperature", type=arguments.temperature, default=0.0, help="above 0: sample instead of greedy decoding"
    )
    arguments.add_seed(parser, "makes sampling repeatable")
    parser.add_argument(
        "--mode",
        choices=("full", "numbers"),
        help="full: numbers and analysis; numbers: numbers only, several times as fast "
        "(default: full; numbers for a video to .csv, which holds no analysis)",
    )
    parser.add_argument(
        "--order",
        choices=("numbers", "analysis"),
        help="what mode full decodes first: numbers, and then an analysis that holds for them; or the analysis, and "
        "then numbers conditioned on it, after which what does not hold is replaced and listed under repaired "
        "(default: numbers for models that decode them in parallel and without an analysis)",
    )
    parser.add_argument(
        "--readout",
        choices=("greedy", "mean", "median"),
        help="how coefficients are read from the model's distribution: the most likely token, the mean (least squared "
        "error) or the median (least absolute error; 0 for most resting actions) (default: the model's own)",
    )
    parser.add_argument(
        "--mirror",
        action="store_true",
        help="also read each picture's mirror image and average both: a little more accurate, twice the time",
    )
    arguments.add_no_emotion(parser)
    arguments.add_neutral(parser)
    predict_video.add_options(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if predict_video.is_take(options):
        return predict_video.run(options)

    from semanticface.utils.progress import tqdm
    from semanticface.vision.image_io import expand

    if options.out is not None:
        from semanticface.formats.tables import check_output

        check_output(options.out)
    if options.mirror and options.temperature > 0:
        raise SemanticFaceError("--mirror averages what --temperature would sample. Leave one of them out.")
    if options.report is not None and Path(options.report).suffix.lower() != ".html":
        raise SemanticFaceError(f"{options.report}: a report is a web page. End its name in .html.")
    if isinstance(options.neutral, float):
        raise SemanticFaceError("--neutral SECONDS is for a video. Give a picture of the person at rest instead.")
    pictures = list(map(os.fspath, expand(options.pictures, warn)))  # str: a third of a Path's memory
    if failures := _if_all_fail(pictures):
        return deliver(failures, options)

    from semanticface.inference.predictor import Predictor

    predictor = Predictor.from_pretrained(
        options.model,
        device=options.device,
        mode=options.mode or "full",
        readout=options.readout,
        emotion=not options.no_emotion,
        mirror=options.mirror,
        order=options.order,
    )
    if options.neutral is not None:
        predictor.neutral = predict_video.neutral_face(options.neutral, predictor)
    crop: Literal["auto", "all", "none"] | Box = options.box or "auto"
    if options.no_crop or options.all_faces:
        crop = "none" if options.no_crop else "all"
    stream = predictor.stream(
        pictures,
        batch_size=options.batch_size,
        crop=crop,
        temperature=options.temperature,
        seed=options.seed,
    )
    unit, total = ("face", None) if options.all_faces else ("picture", len(pictures))
    predictions = tqdm(stream, total=total, unit=unit, disable=len(pictures) == 1)
    if options.report is None:
        return deliver(predictions, options, log=tqdm.write)

    from semanticface.evaluation.report import PredictionReport

    report = PredictionReport()
    code = deliver(report.watch(predictions), options, log=tqdm.write)
    report.write(options.report, model=options.model)
    return code


def _if_all_fail(pictures: list[str]) -> list[RowResult]:
    """Return why no picture can be read, before a model is loaded for nothing; empty if one can."""
    from semanticface.errors import PictureError
    from semanticface.formats.tables import RowResult
    from semanticface.vision.image_io import load_picture

    failures = []
    for name in pictures:
        try:
            load_picture(name)
        except PictureError as error:
            failures.append(RowResult(name, error.code, str(error)))
        else:
            return []
    return failures
