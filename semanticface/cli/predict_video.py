"""``semanticface predict`` for a take: a video, or a folder of frames."""

from __future__ import annotations

import argparse
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from semanticface.cli import arguments
from semanticface.cli.output import warn
from semanticface.errors import SemanticFaceError
from semanticface.vision.timecode import (
    RATES,
    UNREAL_RATES,
    Clock,
    Start,
    format_rate,
    parse_timecode,
    standard_rate,
    timecode_rate,
)

if TYPE_CHECKING:
    from semanticface.inference.decoder import Mode
    from semanticface.inference.neutral import NeutralFace
    from semanticface.inference.predictor import Predictor
    from semanticface.utils.one_euro import OneEuroSettings
    from semanticface.vision.video_reader import Take

ABOUT = (
    "A video (MP4, MOV, MKV, WebM, AVI), or a folder with --fps, is a take: the face is tracked from frame to frame,\n"
    "and --out X.csv is a Live Link Face recording (63 columns, timecodes HH:MM:SS:FF.fff, head and eye rotations 0).\n"
    "A frame without an answer has no row there, which the timecodes show; it is named on standard error. A JSONL has\n"
    "every frame. If interrupted, run the same command again to resume (X.csv.partial holds the finished frames).\n"
    "Unreal Engine reads every take as 30 frames per second, or as 60 if some FF exceeds 30: pass --fps 60 for videos\n"
    "of 24, 25 or 50. It takes the subject's name from a file named SLATE_TAKE_SUBJECT.csv."
)
EXAMPLES = (
    "semanticface predict take.mp4 --out Scene1_1_Ann.csv --smooth",
    "semanticface predict take.mp4 --neutral 2 --out take.csv",
    "semanticface predict frames/ --fps 25 --out take.csv --smooth-region mouth=2,4 --smooth-region gaze=off",
)
SMOOTHING_HELP = "brows 1,3, eyes off, gaze 1.5,3, cheeks 1,2, nose 1,2, mouth 1.5,3, jaw 1,3, tongue 1,3"
"""``one_euro.DEFAULTS`` in words: importing them would load numpy for every ``--help``."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for takes."""
    group = parser.add_argument_group("videos and folders of frames")
    group.add_argument(
        "--fps",
        type=arguments.rate,
        metavar="N",
        help="folder: its pictures are the frames of one take, N per second, in natural order of their names; "
        f"video: its timecodes count N per second ({', '.join(map(format_rate, RATES))}; 29.97 and the like as "
        "non-drop) instead of the video's own rate, for the same times",
    )
    group.add_argument(
        "--start",
        metavar="HH:MM:SS:FF",
        help="timecode of the first frame (default: the video's own, else 00:00:00:00)",
    )
    group.add_argument(
        "--smooth",
        action="store_true",
        help=f"smooth the CSV with One-Euro filters; minimum cutoff in Hz and beta by region: {SMOOTHING_HELP}",
    )
    group.add_argument(
        "--smooth-region",
        type=_region,
        action="append",
        default=[],
        metavar="REGION=CUTOFF,BETA",
        help="--smooth with other settings for one region, or REGION=off: a lower cutoff is smoother, a higher beta "
        "faster",
    )


def is_take(options: argparse.Namespace) -> bool:
    """Whether the input is a take; raises a SemanticFaceError if the options do not fit together."""
    from semanticface.vision.video_reader import is_video

    takes = [path for path in options.pictures if is_video(path) or (options.fps is not None and Path(path).is_dir())]
    named = {"--fps": options.fps, "--start": options.start, "--smooth": options.smooth or options.smooth_region}
    given = [option for option, value in named.items() if value]
    if not takes:
        if given:
            raise SemanticFaceError(f"{given[0]} is for a video or a folder of frames. Leave it out for pictures.")
        return False
    if len(options.pictures) > 1:
        raise SemanticFaceError(f"{takes[0]}: a take needs a command of its own. Leave out the other files.")
    if options.out is None:
        raise SemanticFaceError(f"{takes[0]}: say where its frames go: --out take.csv (Live Link) or --out take.jsonl")
    from semanticface.formats.tables import check_output

    suffix = check_output(options.out)
    if suffix != ".csv" and "--smooth" in given:
        raise SemanticFaceError("--smooth is for a Live Link CSV. End the name after --out in .csv, or leave it out.")
    if options.report is not None:
        raise SemanticFaceError("--report is for pictures. See a take with: semanticface render TAKE.csv --out DIR")
    if options.all_faces:
        raise SemanticFaceError("--all-faces is for pictures: a take follows one face. Choose another one with --box.")
    if options.temperature > 0:
        raise SemanticFaceError("--temperature is for pictures: sampled frames would jump. Leave it out for a take.")
    return True


def run(options: argparse.Namespace) -> int:
    """Predict a take and return the exit code."""
    from semanticface.utils import one_euro
    from semanticface.vision.video_reader import open_take

    take = open_take(options.pictures[0], options.fps)
    clock = _clock(take, options)
    smoothing = {**one_euro.DEFAULTS, **dict(options.smooth_region)}

    from semanticface.inference.predictor import Predictor
    from semanticface.inference.video import model_record, predict_take

    mode: Mode = options.mode or ("numbers" if Path(options.out).suffix.lower() == ".csv" else "full")
    emotion = not options.no_emotion
    predictor = Predictor.from_pretrained(
        options.model,
        device=options.device,
        mode=mode,
        readout=options.readout,
        emotion=emotion,
        mirror=options.mirror,
        order=options.order,
    )
    try:
        if options.neutral is not None:
            predictor.neutral = neutral_face(options.neutral, predictor, take)
        report = predict_take(
            take,
            Path(options.out),
            predictor,
            crop="none" if options.no_crop else options.box or "track",
            clock=clock,
            smoothing=smoothing if options.smooth or options.smooth_region else None,
            batch_size=options.batch_size,
            settings={
                "model": model_record(options.model, predictor),
                "mode": mode,
                "readout": options.readout,
                "emotion": emotion,
                "mirror": options.mirror,
                "neutral": None if predictor.neutral is None else predictor.neutral.rest.tolist(),
            },
        )
    except KeyboardInterrupt:
        warn("interrupted; run the same command again to resume")
        return 130
    for remark in [*report.remarks, report.shortfall]:
        if remark:
            warn(remark)
    rows = report.frames - (report.failed if Path(options.out).suffix.lower() == ".csv" else 0)
    print(f"{options.out}: {rows} rows of {report.frames} frames, {report.failed} failed", file=sys.stderr)
    return 1 if report.failed or report.shortfall else 0


def neutral_face(neutral: Path | float, predictor: Predictor, take: Take | None = None) -> NeutralFace:
    """Return the face at rest that ``--neutral`` names: a picture's, or that of some seconds of ``take``."""
    from semanticface.inference.neutral_source import neutral_from_picture, neutral_from_take

    if isinstance(neutral, Path):
        return neutral_from_picture(predictor, neutral)
    assert take is not None  # seconds are those of a take
    warn(f"{take.path}: looking for its calmest {neutral:g} s")
    return neutral_from_take(predictor, take, neutral)


def check_timecode_rate(fps: Fraction) -> Fraction:
    """Return the rate at which timecodes count for ``--fps``; raises a SemanticFaceError if there is none."""
    if standard_rate(fps) is None:
        raise SemanticFaceError(
            f"--fps {format_rate(fps)}: timecodes count {', '.join(map(format_rate, RATES))} frames per second. "
            "Choose one."
        )
    return timecode_rate(fps)


def _clock(take: Take, options: argparse.Namespace) -> Clock:
    """Return the clock that labels the frames; warns about what is unusual."""
    rate = take.timecode_rate
    if options.fps is not None and not Path(options.pictures[0]).is_dir():
        rate = check_timecode_rate(options.fps)
    start, start_rate = Start(), rate
    if options.start is not None:
        start = parse_timecode(options.start, rate)
    elif take.timecode is not None:
        start_rate = take.timecode_rate
        try:
            start = parse_timecode(take.timecode, start_rate)
        except SemanticFaceError as error:
            warn(f"{take.path}: its own timecode is not used: {error}")
    if start.drop_frame:
        warn(f"{take.path}: drop-frame timecode; continued from its first frame as non-drop")
    if rate not in UNREAL_RATES and Path(options.out).suffix.lower() == ".csv":
        warn(f"timecodes count {format_rate(rate)} frames per second; Unreal Engine needs 30 or 60: --fps 60")
    return Clock(rate, start, start_rate)


def _region(text: str) -> tuple[str, OneEuroSettings | None]:
    from semanticface.arkit import REGIONS
    from semanticface.utils.one_euro import OneEuroSettings

    region, _, setting = text.partition("=")
    if region not in REGIONS:
        raise argparse.ArgumentTypeError(f"{region!r} is no region: {', '.join(REGIONS)}")
    if setting == "off":
        return region, None
    try:
        min_cutoff, beta = (float(part) for part in setting.split(","))
        return region, OneEuroSettings(min_cutoff, beta)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give a cutoff above 0 and a beta of 0 or more, such as {region}=1.5,3, or {region}=off"
        ) from None
