"""``semanticface stream``: play a recording, a video or a camera to Unreal Engine."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from semanticface.cli import arguments
from semanticface.cli.arguments import Subparsers, add_command
from semanticface.cli.output import grouped_warnings, warn
from semanticface.cli.predict_video import check_timecode_rate, neutral_face
from semanticface.errors import SemanticFaceError
from semanticface.vision.timecode import parse_timecode

if TYPE_CHECKING:
    from semanticface.inference.live import FaceReader
    from semanticface.vision.video_reader import Take

_PORT = 11111  # where Unreal Engine listens for Live Link Face
_ADDRESS = re.compile(
    r"(?:\[(?P<inside>[^][]+)\]|(?P<name>[^][:]+))(?::(?P<port>[0-9]{1,5}))?|(?P<bare>[^][]*:[^][]*:[^][]*)",
    re.ASCII,
)


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "stream",
        "stream a recording, a video or a camera to Unreal Engine, in the protocol of the Live Link Face app",
        "SOURCE is a recording (a Live Link Face CSV, or a JSONL or CSV written by predict), a video, or a camera:\n"
        "camera, camera:1, /dev/video0; on macOS and Windows also camera:NAME. In Unreal, with the plugins Live Link\n"
        "and ARKit Face Support, the subject appears under --name. Packets go only to --to.\n\n"
        "Each row of a recording is sent as a UDP packet at the time its timecode gives, with head and eye rotations\n"
        "if the recording has them. A video is predicted as it plays, with the same numbers as predict; frames that\n"
        "would be late are dropped and counted. From a camera the newest frame is read, with the time of day as\n"
        "timecode, until Ctrl-C; a frame without a face is sent as such. At the end the packets' lateness, or the\n"
        "delay from frame to packet, is printed.",
        "semanticface stream Scene1_1_Ann.csv",
        "semanticface stream take.mp4 --smooth",
        "semanticface stream camera --smooth --to 192.168.1.20:11111 --name Ann",
        "semanticface stream faces.jsonl --fps 25 --to 127.0.0.1:11111 --name Ann --loop",
    )
    parser.add_argument("file", metavar="SOURCE", help="CSV or JSONL of coefficients, a video, or a camera")
    parser.add_argument(
        "--to",
        type=_address,
        default=f"127.0.0.1:{_PORT}",
        metavar="HOST:PORT",
        help="destination (default: %(default)s, this machine)",
    )
    parser.add_argument(
        "--name", help="subject name (default: the last part of a file name such as SLATE_TAKE_SUBJECT.csv)"
    )
    parser.add_argument("--loop", action="store_true", help="start again at the end, until Ctrl-C")
    parser.add_argument(
        "--fps",
        type=arguments.rate,
        metavar="N",
        help="recording: frames per second that timecodes count (default: what they show), "
        "or rows per second without timecodes (30); video: frames per second that timecodes count (default: its own "
        "rate); camera: frames per second to request (30)",
    )
    live = parser.add_argument_group("videos and cameras")
    live.add_argument("--model", help='"nano" (default; in the package), a folder or a Hub id')
    arguments.add_device(live)
    live.add_argument("--smooth", action="store_true", help="smooth the numbers, as predict --smooth does")
    arguments.add_neutral(live)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    # Neither loads torch: both only look at the name or open the file.
    from semanticface.vision.video_reader import is_video
    from semanticface.vision.webcam import is_camera

    if is_camera(options.file):
        return _camera(options)
    if is_video(options.file):
        return _video(options)
    given = {
        "--model": options.model,
        "--device": options.device,
        "--smooth": options.smooth,
        "--neutral": options.neutral,
    }
    for option, value in given.items():
        if value:
            raise SemanticFaceError(f"{option} is for videos and cameras. Leave it out for a recording.")
    return _recording(options)


def _recording(options: argparse.Namespace) -> int:
    from semanticface.formats import live_link_udp
    from semanticface.formats.recording import track

    bad = 0
    name = _name(options)
    with grouped_warnings() as warn_row:

        def warn_bad(text: str) -> None:
            nonlocal bad
            bad += 1
            warn_row(text)

        take = track(Path(options.file), options.fps, warn_bad, warn)
    total = None if options.loop else len(take.times)
    sent, stopped = _send(live_link_udp.packets(take, name, loop=options.loop), options, name, total)
    print(f"{sent} frames sent, {bad} rows left out", file=sys.stderr)
    if stopped and not options.loop:
        return 130
    return 1 if bad else 0


def _video(options: argparse.Namespace) -> int:
    from semanticface.formats.live_link_udp import Subject
    from semanticface.vision.video_reader import open_take

    take = open_take(options.file)
    name = _name(options)
    subject = Subject(name, *_rate_and_start(take, options.fps))
    reader = _reader(options, take)

    from semanticface.inference.live import StreamStats, video_packets

    stats = StreamStats()
    packets = video_packets(take, reader.read, subject, stats, loop=options.loop)
    _, stopped = _send(packets, options, name, None if options.loop else take.count)
    print(stats.summary("late by"), file=sys.stderr)
    if take.shortfall:
        warn(take.shortfall)
    if stopped and not options.loop:
        return 130
    return 1 if take.shortfall else 0


def _camera(options: argparse.Namespace) -> int:
    from semanticface.vision.webcam import Camera, find_camera

    if options.loop:
        raise SemanticFaceError("--loop is for recordings and videos. Leave it out for a camera.")
    camera = Camera(find_camera(options.file, options.fps))
    name = options.name or "SemanticFace"
    reader = _reader(options)

    from semanticface.inference.live import StreamStats, camera_packets

    stats = StreamStats()
    try:
        _send(camera_packets(camera, reader.read, name, stats), options, name, None)
    finally:  # also if the camera was unplugged
        print(stats.summary("from frame to packet"), file=sys.stderr)
    return 0


def _reader(options: argparse.Namespace, take: Take | None = None) -> FaceReader:
    """Return the reader of a video, or of a camera, whose first seconds show the face at rest."""
    from semanticface.inference.live import FaceReader
    from semanticface.inference.neutral import NeutralLearner
    from semanticface.inference.predictor import Predictor
    from semanticface.utils import one_euro

    predictor = Predictor.from_pretrained(options.model or "nano", device=options.device, mode="numbers")
    learner = None
    if take is None and isinstance(options.neutral, float):
        warn(f"keep a calm face for {options.neutral:g} s")
        learner = NeutralLearner(options.neutral)
    elif options.neutral is not None:
        predictor.neutral = neutral_face(options.neutral, predictor, take)
    return FaceReader(predictor, one_euro.DEFAULTS if options.smooth else None, learner)


def _send(
    packets: Generator[tuple[float, bytes], None, None], options: argparse.Namespace, name: str, total: int | None
) -> tuple[int, bool]:
    """Send packets with a progress bar; return how many, and whether Ctrl-C stopped it."""
    from semanticface.formats import live_link_udp
    from semanticface.utils.progress import tqdm

    host, port = options.to
    print(f"{options.file} to {host}:{port} as {name}; Ctrl-C stops.", file=sys.stderr, flush=True)
    sent = 0
    with contextlib.closing(packets), tqdm(total=total, unit="frame") as bar:
        try:
            for sent in live_link_udp.send(packets, host, port):  # noqa: B007 - returned, also after Ctrl-C
                bar.update()
        except KeyboardInterrupt:
            return sent, True
    return sent, False


def _rate_and_start(take: Take, fps: Fraction | None) -> tuple[Fraction, Fraction]:
    """Return the rate at which a video's timecodes count, and its first frame in frames since midnight."""
    own = take.timecode_rate
    rate = own if fps is None else check_timecode_rate(fps)
    if take.timecode is None:
        return rate, Fraction(0)
    try:
        start = parse_timecode(take.timecode, own)
    except SemanticFaceError as error:
        warn(f"{take.path}: its own timecode is not used: {error}")
        return rate, Fraction(0)
    return rate, start.seconds * round(rate) + Fraction(start.frame * round(rate), round(own))


def _name(options: argparse.Namespace) -> str:
    return options.name or Path(options.file).stem.split("_", 2)[-1] or "SemanticFace"


def _address(text: str) -> tuple[str, int]:
    """Parse HOST, HOST:PORT, IPv6 or [IPv6]:PORT."""
    found = _ADDRESS.fullmatch(text)
    port = int(found["port"] or _PORT) if found else 0
    if found is None or not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:11111 or [::1]:11111")
    return found["inside"] or found["bare"] or found["name"], port
