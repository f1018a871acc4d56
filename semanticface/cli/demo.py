"""``semanticface demo``: a local web page for pictures, webcam and clips."""

from __future__ import annotations

import argparse
import threading

from semanticface.cli import arguments
from semanticface.cli.arguments import Subparsers, add_command
from semanticface.cli.signals import handle_signals


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "demo",
        "try the model in your browser: pictures, webcam and clips in; analysis, bars and a 3D head out",
        "Serves a page on this machine only. Drop in a picture or a short clip, use the webcam or pick an example.\n"
        "The page shows the analysis, the 52 coefficients by region with their 80 % intervals, and a 3D head that\n"
        "makes the expression. Save answers as JSON, as a Live Link Face recording or as an animated head (glb).\n\n"
        "Nothing leaves this machine: the page loads nothing from elsewhere, pictures stay in memory, and uploads are\n"
        "not kept. Stop with Ctrl-C. Requires: pip install 'semanticface[demo]'",
        "semanticface demo",
        "semanticface demo --model outputs/my-adapter --no-emotion",
        "semanticface demo --port 8000 --no-browser",
    )
    arguments.add_model(parser)
    parser.add_argument("--port", type=arguments.port, default=7860, help="port on 127.0.0.1 (default: %(default)s)")
    arguments.add_no_emotion(parser)
    parser.add_argument("--no-browser", action="store_true", help="print the address without opening a browser")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from semanticface.serving.pages import local_page

    local_page.check_installed("demo")
    stop = threading.Event()

    def ready(url: str) -> None:
        print(f"Open {url} in your browser. Ctrl-C stops.", flush=True)
        if not options.no_browser:
            import webbrowser

            webbrowser.open(url)

    with handle_signals(lambda *_: stop.set()), local_page.private_gradio():
        from semanticface.serving.pages.demo import build

        print(f"Loading {options.model} ...", flush=True)
        blocks = build(options.model, emotion=not options.no_emotion, device=options.device)
        if not stop.is_set():
            local_page.show(blocks, port=options.port, ready=ready, stop=stop)
    return 0
