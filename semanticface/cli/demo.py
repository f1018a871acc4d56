"""What ``semanticface demo`` does: its options, its checks, what it tells."""

from __future__ import annotations

import argparse
import signal
import threading

from semanticface.cli.arguments import Subparsers, add_command


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "demo",
        "a page in your browser: pictures, webcam and clips in, words, bars and a head out",
        "Serves a page to your browser, on this machine alone. Drop a picture or a short clip onto it, use the webcam\n"
        "or one of the examples: it shows the explanation, the 52 coefficients by region with their 80 % intervals,\n"
        "and a head that makes the expression and can be turned. Answers can be saved as JSON, as a Live Link Face\n"
        "recording and as an animated head (glb).\n\n"
        "Nothing leaves this machine: the page loads nothing from elsewhere, pictures stay in memory, and what is\n"
        "uploaded is not kept. Stop with Ctrl-C.",
        "semanticface demo",
        "semanticface demo --model outputs/my-adapter --no-emotion",
        "semanticface demo --port 8000 --no-browser",
    )
    parser.add_argument(
        "--model", default="nano", help='"nano" (ships with the package), a folder or a hub id (default: %(default)s)'
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    parser.add_argument("--port", type=_port, default=7860, help="of 127.0.0.1 (default: %(default)s)")
    parser.add_argument(
        "--no-emotion", action="store_true", help="leave out what the face suggests a person feels, and its switch"
    )
    parser.add_argument("--no-browser", action="store_true", help="only print the address, open no browser")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from semanticface.serving.pages import local_page

    local_page.check_installed("demo")
    stop = threading.Event()
    before = {which: signal.signal(which, lambda *_: stop.set()) for which in (signal.SIGINT, signal.SIGTERM)}

    def ready(url: str) -> None:
        print(f"Open {url} in your browser. Ctrl-C stops.", flush=True)
        if not options.no_browser:
            import webbrowser

            webbrowser.open(url)

    try:
        with local_page.private_gradio():
            from semanticface.serving.pages.demo import build

            print(f"Loading {options.model} ...", flush=True)
            blocks = build(options.model, emotion=not options.no_emotion, device=options.device)
            if not stop.is_set():
                local_page.show(blocks, port=options.port, ready=ready, stop=stop)
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
    return 0


def _port(text: str) -> int:
    """Read a port that needs no privileges."""
    if not text.isascii() or not text.isdigit() or not 1024 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1024 to 65535")
    return int(text)
