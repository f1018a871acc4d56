"""What ``semanticface stream`` does: its options, its checks, what it tells."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from semanticface import arguments, live_link_udp
from semanticface.recording import track

Command = Callable[..., argparse.ArgumentParser]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser], command: Command) -> None:
    """Add the subcommand; ``command`` makes one with its name, purpose, explanation and examples."""
    parser = command(
        commands,
        "stream",
        "play a recording to Unreal Engine, as the Live Link Face app sends it",
        "FILE is a Live Link Face CSV, or a JSONL or CSV made by predict. Each row goes out as a UDP packet when it\n"
        "is due by its timecode, with head and eye rotations where the recording has them. In Unreal, with the\n"
        "plugins Live Link and ARKit Face Support, the subject appears under --name. Nothing is sent but to --to.",
        "semanticface stream Scene1_1_Ann.csv",
        "semanticface stream faces.jsonl --fps 25 --to 127.0.0.1:11111 --name Ann --loop",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="CSV or JSONL of coefficients")
    parser.add_argument(
        "--to",
        type=_address,
        default=(live_link_udp.HOST, live_link_udp.PORT),
        metavar="HOST:PORT",
        help=f"where to (default: {live_link_udp.HOST}:{live_link_udp.PORT}, this machine)",
    )
    parser.add_argument(
        "--name", help="of the subject (default: the last part of a name such as SLATE_TAKE_SUBJECT.csv)"
    )
    parser.add_argument("--loop", action="store_true", help="begin again at the end, until Ctrl-C")
    parser.add_argument(
        "--fps",
        type=arguments.rate,
        metavar="N",
        help="frames a second that timecodes count (default: 60 where a frame number exceeds 29, else 30), or rows a "
        "second where there are no timecodes (30)",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    name = options.name or options.file.stem.split("_", 2)[-1] or "SemanticFace"
    bad = 0

    def complain(text: str) -> None:
        nonlocal bad
        bad += 1
        tqdm.write(f"semanticface: {text}", file=sys.stderr)

    take = track(options.file, options.fps, complain)
    host, port = options.to
    print(f"{options.file} to {host}:{port} as {name}; Ctrl-C stops.", file=sys.stderr, flush=True)
    sent, stopped = 0, False
    sending = live_link_udp.send(live_link_udp.packets(take, name, loop=options.loop), host, port)
    with tqdm(total=None if options.loop else len(take.times), unit="frame") as bar:
        try:
            for sent in sending:  # noqa: B007 - told below, also after Ctrl-C
                bar.update()
        except KeyboardInterrupt:
            stopped = True
    print(f"{sent} frames sent, {bad} rows left out", file=sys.stderr)
    if stopped and not options.loop:
        return 130
    return 1 if bad else 0


def _address(text: str) -> tuple[str, int]:
    """Read HOST, HOST:PORT or [IPv6]:PORT."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(live_link_udp.PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:11111")
    return host, int(port)
