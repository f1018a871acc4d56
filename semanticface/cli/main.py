"""The ``semanticface`` command: predict, calibrate, parse, describe, render, convert, stream, annotate, ...

Thin: each subcommand calls the library.

Exit codes: 0 all went well; 1 some rows or pictures failed (each named on standard error, its place kept); 2 nothing
could be done, with one line that says why; 130 interrupted. Heavy modules are imported where they are used, so that
``--help``, ``parse`` and ``describe`` start without torch.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from semanticface import __version__
from semanticface.cli import annotate, arguments, card, convert, demo, forget, predict_video, push, serve, show
from semanticface.cli import stream as stream_command
from semanticface.errors import AnswerError, SemanticFaceError
from semanticface.formats import tables
from semanticface.formats.tables import Answered, Outcome

if TYPE_CHECKING:
    from semanticface.semantics.analysis import Analysis
    from semanticface.vision.crop import Box

_DESCRIBED_AT_ONCE = 1024


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; ``words`` defaults to the command line's."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    options = _parser().parse_args(words)
    try:
        code = options.run(options)
        sys.stdout.flush()
    except SemanticFaceError as error:
        print(f"semanticface: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("semanticface: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; point stdout away so that its closing does not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # The library reports its own files; what remains is standard output, redirected to a full disk for example.
        where = error.filename or "the output"
        print(
            f"semanticface: cannot use {where}: {error.strerror}. Free some space or choose another.", file=sys.stderr
        )
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="semanticface",
        description="Face pictures to 52 ARKit blendshape coefficients with a readable explanation, and back.",
        epilog=_examples(
            "semanticface predict face.jpg",
            "semanticface predict photos/ --out faces.jsonl --report faces.html",
            "semanticface predict take.mp4 --out take.csv",
            "semanticface describe take.csv",
            "semanticface render faces.jsonl --out frames/",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"semanticface {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_predict(commands)
    _add_calibrate(commands)
    _add_parse(commands)
    _add_describe(commands)
    _add_render(commands)
    for module in (
        convert,
        stream_command,
        show,
        serve,
        demo,
        annotate,
        forget,
        card,
        push,
    ):
        module.add_commands(commands, _command)
    return parser


def _examples(*lines: str) -> str:
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, purpose: str, about: str, *examples: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.\n\n{about}",
        epilog=_examples(*examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


_OUT_HELP = "write X.jsonl or X.csv instead of a summary to the terminal"
_DEVICE_HELP = "cpu, cuda, cuda:1, mps (default: the best there is)"
_NO_EMOTION_HELP = "leave out what the face suggests a person feels"


def _add_predict(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "predict",
        "picture or video of a face in, 52 coefficients and their explanation out",
        "Reads PNG, JPEG and WebP; a folder stands for the pictures in it, sorted by name. The face is found and\n"
        "cropped first; with several faces the most certain one is taken. Everything runs on this machine.\n\n"
        "The JSONL has one object a picture, in order: image, status (ok, or a short code with a reason beside it),\n"
        "coefficients (by action name), interval (lowest and highest value of each with a probability of 80 %;\n"
        "calibrated says whether that was fitted on held-out faces), analysis. The CSV has image and the 52 actions;\n"
        "a failed picture keeps its row, with empty cells, and its reason goes to standard error.\n\n"
        + predict_video.ABOUT,
        "semanticface predict face.jpg",
        "semanticface predict photos/ --out faces.csv",
        "semanticface predict frame.png --box 120,80,360,320 --report face.html",
        "semanticface predict crops/ --no-crop --model outputs/my-adapter --out faces.jsonl",
        *predict_video.EXAMPLES,
    )
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="picture, folder of pictures, or one video")
    parser.add_argument(
        "--model", default="nano", help='"nano" (ships with the package), a folder or a hub id (default: %(default)s)'
    )
    parser.add_argument("--out", metavar="X", help=_OUT_HELP)
    parser.add_argument("--report", metavar="X.html", help="also write a page with pictures, explanations and bars")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--no-crop", action="store_true", help="the pictures are square crops of a face already")
    where.add_argument(
        "--box", type=arguments.box, metavar="X0,Y0,X1,Y1", help="the face's box in pixels, the same in all pictures"
    )
    parser.add_argument(
        "--batch-size",
        type=arguments.positive,
        default=16,
        help="pictures at a time; lower it if memory runs out (%(default)s)",
    )
    parser.add_argument(
        "--temperature", type=arguments.temperature, default=0.0, help="above 0: sample answers instead of the best one"
    )
    parser.add_argument(
        "--seed", type=arguments.seed, default=0, help="makes sampling repeatable (default: %(default)s)"
    )
    parser.add_argument(
        "--mode",
        choices=("full", "numbers"),
        help="full: words, then numbers in the light of them; numbers: numbers alone, several times as fast "
        "(default: full; numbers for a video to .csv, which holds no words)",
    )
    parser.add_argument(
        "--readout",
        choices=("greedy", "mean", "median"),
        help="what of the model's distribution the coefficients are: the likeliest token, the mean (least squared "
        "error) or the median (least absolute error; most resting actions are 0) (default: the model's own)",
    )
    parser.add_argument(
        "--mirror",
        action="store_true",
        help="read each picture's mirror image too and average both, for twice the time: a little more accurate",
    )
    parser.add_argument("--device", help=_DEVICE_HELP)
    parser.add_argument("--no-emotion", action="store_true", help=_NO_EMOTION_HELP)
    predict_video.add_options(parser)
    parser.set_defaults(run=_predict)


def _add_calibrate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "calibrate",
        "fit a model's intervals to faces it was not trained on",
        "They hold 80 % of the truths then. MODEL is nano or the folder of a model or adapter, DATASET a folder of\n"
        "faces with labels, as data_prep/render_faces.py writes it. Half of its people are fitted to; on the others\n"
        "it is measured how often the intervals hold the truth. The result goes into MODEL's semanticface.json, for\n"
        "words with numbers and for numbers alone. Uncalibrated intervals are what the model's distribution says.",
        "semanticface calibrate outputs/my-adapter outputs/faces",
        "semanticface calibrate outputs/my-adapter outputs/crops --crop box --split test --limit 300",
    )
    parser.add_argument("model", metavar="MODEL", help='"nano", or a folder')
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder of faces")
    parser.add_argument("--split", default="validation", help="part of it, unseen in training (default: %(default)s)")
    parser.add_argument(
        "--limit", type=arguments.positive, default=1000, help="pictures at most (default: %(default)s)"
    )
    parser.add_argument(
        "--crop", choices=("auto", "box"), default="auto", help="find the face, or take the dataset's box (%(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=arguments.positive, default=16, help="pictures at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=arguments.seed, default=0, help="draws pictures and halves (default: %(default)s)"
    )
    parser.add_argument("--device", help=_DEVICE_HELP)
    parser.set_defaults(run=_calibrate)


def _add_parse(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "parse",
        "read coefficients out of the texts any model wrote",
        'Each line of FILE is a JSON object with the generated text under "response" or "text" and, if you like, an\n'
        '"image" that names it. Code fences, prose around the JSON, PascalCase names and 61 keys are understood; an\n'
        "answer that is incomplete, out of range or cut off is refused with a reason, in its place.",
        "semanticface parse answers.jsonl",
        "semanticface parse answers.jsonl --out faces.csv",
    )
    parser.add_argument("file", type=Path, metavar="FILE.jsonl", help="one JSON object a line")
    parser.add_argument("--out", metavar="X", help=_OUT_HELP)
    parser.add_argument("--no-emotion", action="store_true", help=_NO_EMOTION_HELP)
    parser.set_defaults(run=_parse)


def _add_describe(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "describe",
        "say in words what coefficients look like",
        "FILE is a Live Link Face export (63 columns) or a CSV of image and the 52 actions, as predict writes it.\n"
        "Left and right are the subject's own.",
        "semanticface describe take.csv",
        "semanticface describe take.csv --no-emotion --out take.jsonl",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a CSV of coefficients, or a JSONL made by predict")
    parser.add_argument("--out", metavar="X", help=_OUT_HELP)
    parser.add_argument("--no-emotion", action="store_true", help=_NO_EMOTION_HELP)
    parser.set_defaults(run=_describe)


def _add_render(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "render",
        "draw coefficients on a plain head, one PNG a row",
        "FILE is a Live Link Face export, a CSV of image and the 52 actions, or a JSONL made by predict or parse.\n"
        "Row 1 becomes 000001.png and so on; a bad row leaves a gap. Run the same command again to go on where it\n"
        "stopped. As a video: ffmpeg -i DIR/%06d.png face.mp4",
        "semanticface render take.csv --out frames/",
        "semanticface render faces.jsonl --out heads/ --look toon --size 512 --sheet",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="CSV or JSONL of coefficients")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the pictures")
    parser.add_argument("--look", default="photo", help="photo, toon or drawn (default: %(default)s)")
    parser.add_argument("--size", type=arguments.size, default=256, help="pixels a side (default: %(default)s)")
    parser.add_argument(
        "--sheet",
        action="store_true",
        help="also write sheet.png, an overview of up to 60 rows evenly spread over the file",
    )
    parser.set_defaults(run=_render)


def _predict(options: argparse.Namespace) -> int:
    if predict_video.is_take(options):
        return predict_video.run(options)

    from tqdm import tqdm

    from semanticface.vision.image_io import expand

    if options.out is not None:
        tables.check_target(options.out)
    if options.mirror and options.temperature > 0:
        raise SemanticFaceError("--mirror averages what --temperature would sample. Leave one of them out.")
    if options.report is not None and Path(options.report).suffix.lower() != ".html":
        raise SemanticFaceError(f"{options.report}: a report is a web page. End its name in .html.")
    pictures = list(map(os.fspath, expand(options.pictures)))  # text: a third of a Path's memory

    from semanticface.inference.predictor import Predictor

    predictor = Predictor.from_pretrained(
        options.model,
        device=options.device,
        mode=options.mode or "full",
        readout=options.readout,
        emotion=not options.no_emotion,
        mirror=options.mirror,
    )
    crop: Literal["auto", "none"] | Box = "none" if options.no_crop else options.box or "auto"
    stream = predictor.stream(
        pictures,
        batch_size=options.batch_size,
        crop=crop,
        temperature=options.temperature,
        seed=options.seed,
    )
    predictions = tqdm(stream, total=len(pictures), unit="picture", disable=len(pictures) == 1)
    if options.report is None:
        return _deliver(predictions, options, say=tqdm.write)

    from semanticface.evaluation.report import PredictionReport

    report = PredictionReport()
    code = _deliver(report.watch(predictions), options, say=tqdm.write)
    report.write(options.report, model=options.model)
    return code


def _calibrate(options: argparse.Namespace) -> int:
    from semanticface.inference.calibration import calibrate, table

    found = calibrate(
        options.model,
        options.dataset,
        split=options.split,
        limit=options.limit,
        crop=options.crop,
        batch_size=options.batch_size,
        device=options.device,
        seed=options.seed,
    )
    print(table(found, options.model))
    return 0


def _parse(options: argparse.Namespace) -> int:
    return _deliver(_parsed(options.file, emotion=not options.no_emotion), options)


def _parsed(path: Path, *, emotion: bool) -> Iterator[Answered]:
    from semanticface.semantics.answer import parse_answer

    for line, row, error in tables.read_objects(path):
        at = f"{path}, line {line}"
        row = row or {}
        name = row["image"] if isinstance(row.get("image"), str) and row["image"] else f"{path.name}:{line}"
        text = row.get("response", row.get("text"))
        if error:
            yield Answered(name, "bad_line", error)
        elif not isinstance(text, str):
            yield Answered(name, "no_text", f'{at}: no text under "response" or "text". Add the generated text.')
        else:
            try:
                answer = parse_answer(text)
                analysis = answer.analysis if emotion else _without_emotion(answer.analysis)
                yield Answered(name, coefficients=answer.coefficients, analysis=analysis)
            except AnswerError as refused:
                yield Answered(name, refused.code, f"{at}: {refused}")


def _describe(options: argparse.Namespace) -> int:
    return _deliver(_described(options.file, emotion=not options.no_emotion), options)


def _described(path: Path, *, emotion: bool) -> Iterator[Answered]:
    import numpy as np

    from semanticface.semantics.analysis import describe_many

    rows = tables.read_coefficients(path)
    while block := list(islice(rows, _DESCRIBED_AT_ONCE)):
        good = [row.coefficients for row in block if row.coefficients is not None]
        analyses = iter(describe_many(np.stack(good), emotion=emotion) if good else [])
        for row in block:
            name = row.label or f"{path.name}:{row.line}"
            if row.coefficients is None:
                yield Answered(name, "bad_row", row.error)
            else:
                yield Answered(name, coefficients=row.coefficients, analysis=next(analyses))


def _deliver(outcomes: Iterable[Outcome], options: argparse.Namespace, say: Callable[..., None] = print) -> int:
    """Write outcomes to ``--out`` or print them as they come, name the failed ones, and return the exit code.

    ``say`` is ``print``, or what prints above a progress bar.
    """
    failed = total = 0

    def checked() -> Iterator[Outcome]:
        nonlocal failed, total
        for outcome in outcomes:
            total += 1
            if outcome.status != "ok":
                failed += 1
                say(f"semanticface: {outcome.reason}", file=sys.stderr)
            yield outcome

    if options.out is None:
        for outcome in checked():
            say(_summary(outcome))
    else:
        tables.write(options.out, checked())
        print(f"{options.out}: {total} rows, {failed} failed", file=sys.stderr)
    return 1 if failed else 0


def _without_emotion(analysis: Analysis | None) -> Analysis | None:
    return analysis and dataclasses.replace(analysis, emotional_implication=None)


def _summary(outcome: Outcome) -> str:
    """Return one outcome as a paragraph for the terminal."""
    from semanticface import arkit
    from semanticface.evaluation.metrics import ACTIVE

    lines = [outcome.image]
    if outcome.coefficients is None:
        return f"{outcome.image}\n  {outcome.status}: {outcome.reason}\n"
    analysis = outcome.analysis
    if analysis is not None:
        lines.append(f"  {analysis.expression_category}")
        if analysis.emotional_implication is not None:
            lines.append(f"  suggests  {analysis.emotional_implication}")
        lines += [f"  {region:<8}  {words}" for region, words in analysis.muscle_movements.items()]
        lines.append(f"  symmetry  {analysis.symmetry}")
    strongest = sorted(arkit.by_name(outcome.coefficients).items(), key=lambda item: -item[1])
    active = [f"{name} {value:.2f}" for name, value in strongest if value > ACTIVE]
    lines.append(f"  active    {', '.join(active) or 'nothing above ' + str(ACTIVE)}")
    return "\n".join(lines) + "\n"


def _render(options: argparse.Namespace) -> int:
    from semanticface.evaluation.render_table import render_table

    bad = render_table(options.file, options.out, look=options.look, size=options.size, sheet=options.sheet)
    return 1 if bad else 0
