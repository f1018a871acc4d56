"""What ``semanticface predict`` does with a video or a folder of frames: its options, its checks, what it tells."""

from __future__ import annotations

import argparse
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from semanticface import arkit
from semanticface.cli import arguments
from semanticface.errors import SemanticFaceError
from semanticface.utils import one_euro
from semanticface.utils.one_euro import OneEuroSettings
from semanticface.vision.timecode import RATES, Clock, Start, format_rate, parse_timecode, standard_rate, timecode_rate

if TYPE_CHECKING:
    from semanticface.inference.decoder import Mode
    from semanticface.vision.video_reader import Take

ABOUT = (
    "A video (MP4, MOV, MKV, WebM, AVI), or a folder with --fps, is a take: its face is followed from frame to frame,\n"
    "and --out X.csv is a Live Link Face recording (63 columns, timecodes HH:MM:SS:FF.fff, head and eye rotations 0).\n"
    "A frame without an answer has no row there, which its timecode shows; it is named on standard error. A JSONL\n"
    "has every frame. Stopped at any moment, the same command goes on from there (X.csv.partial holds what is done).\n"
    "Unreal Engine takes every take for 30 frames a second, or for 60 if some FF exceeds 30: give --fps 60 for videos\n"
    "of 24, 25 or 50. It takes the subject's name from a file named SLATE_TAKE_SUBJECT.csv."
)
EXAMPLES = (
    "semanticface predict take.mp4 --out Scene1_1_Ann.csv --smooth",
    "semanticface predict frames/ --fps 25 --out take.csv --smooth-region mouth=2,4 --smooth-region gaze=off",
)
_UNREAL = (Fraction(30000, 1001), Fraction(30), Fraction(60000, 1001), Fraction(60))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that are for takes alone."""
    group = parser.add_argument_group("videos and folders of frames")
    group.add_argument(
        "--fps",
        type=arguments.rate,
        metavar="N",
        help="of a folder: its pictures are the frames of one take, N a second, in natural order of their names; "
        f"of a video: its timecodes count N a second ({', '.join(map(format_rate, RATES))}; 29.97 and its like without "
        "dropping) instead of its own rate, at the same true times",
    )
    group.add_argument(
        "--start",
        metavar="HH:MM:SS:FF",
        help="timecode of the first frame (default: the video's own, else 00:00:00:00)",
    )
    regions = ", ".join(
        f"{name} {setting.min_cutoff:g},{setting.beta:g}" if setting else f"{name} off"
        for name, setting in one_euro.DEFAULTS.items()
    )
    group.add_argument(
        "--smooth",
        action="store_true",
        help=f"steady the numbers of the CSV with One-Euro filters; lowest cutoff in Hz and beta by region: {regions}",
    )
    group.add_argument(
        "--smooth-region",
        type=_region,
        action="append",
        default=[],
        metavar="REGION=CUTOFF,BETA",
        help="--smooth, with another setting for a region, or REGION=off: low cutoffs are steady, high betas quick",
    )


def is_take(options: argparse.Namespace) -> bool:
    """Whether the command is about a take; checks that it is about nothing else, and that options fit.

    Raises:
        SemanticFaceError: several takes, pictures beside one, or options that do not go together.
    """
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
    if options.temperature > 0:
        raise SemanticFaceError("--temperature is for pictures: sampled frames would jump. Leave it out for a take.")
    return True


def run(options: argparse.Namespace) -> int:
    """Predict a take; returns the exit code."""
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
    )
    try:
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
            },
        )
    except KeyboardInterrupt:
        _tell("interrupted; the same command goes on from where it stopped")
        return 130
    for remark in [*report.remarks, report.shortfall]:
        if remark:
            _tell(remark)
    rows = report.frames - (report.failed if Path(options.out).suffix.lower() == ".csv" else 0)
    print(f"{options.out}: {rows} rows of {report.frames} frames, {report.failed} failed", file=sys.stderr)
    return 1 if report.failed or report.shortfall else 0


def _clock(take: Take, options: argparse.Namespace) -> Clock:
    """Return what labels the frames, and tell how."""
    rate = take.timecode_rate
    if options.fps is not None and not Path(options.pictures[0]).is_dir():
        if standard_rate(options.fps) is None:
            raise SemanticFaceError(
                f"--fps {format_rate(options.fps)}: timecodes count {', '.join(map(format_rate, RATES))} frames a "
                "second. Choose one of these."
            )
        rate = timecode_rate(options.fps)
    start, start_rate = Start(), rate
    if options.start is not None:
        start = parse_timecode(options.start, rate)
    elif take.timecode is not None:
        start_rate = take.timecode_rate
        try:
            start = parse_timecode(take.timecode, start_rate)
        except SemanticFaceError as error:
            _tell(f"{take.path}: its own timecode is not used: {error}")
    if start.drop_frame:
        _tell(f"{take.path}: drop-frame timecode; counted on from its first frame without dropping")
    if rate not in _UNREAL and Path(options.out).suffix.lower() == ".csv":
        _tell(f"timecodes count {format_rate(rate)} frames a second; Unreal Engine needs 30 or 60: --fps 60")
    return Clock(rate, start, start_rate)


def _tell(text: str) -> None:
    print(f"semanticface: {text}", file=sys.stderr)


def _region(text: str) -> tuple[str, OneEuroSettings | None]:
    region, _, setting = text.partition("=")
    if region not in arkit.REGIONS:
        raise argparse.ArgumentTypeError(f"{region!r} is no region: {', '.join(arkit.REGIONS)}")
    if setting == "off":
        return region, None
    try:
        min_cutoff, beta = (float(part) for part in setting.split(","))
        return region, OneEuroSettings(min_cutoff, beta)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give a cutoff above 0 and a beta of 0 or more, such as {region}=1.5,3, or {region}=off"
        ) from None
