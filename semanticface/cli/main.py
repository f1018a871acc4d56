"""The ``semanticface`` command: parses the arguments and runs a subcommand, which calls the library.

Exit codes: 0 success; 1 some rows or pictures failed (each is named on standard error and keeps its place); 2 nothing
could be done, with one line that says why; 130 interrupted. Building the parsers imports neither numpy nor torch:
subcommands import what they need when they run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from semanticface import __version__
from semanticface.cli import (
    annotate,
    calibrate,
    card,
    convert,
    demo,
    describe,
    forget,
    parse,
    pose,
    predict,
    push,
    render,
    script_commands,
    serve,
    show,
    stream,
)
from semanticface.cli.arguments import example_lines
from semanticface.errors import SemanticFaceError
from semanticface.utils.files import check_not_an_input

_COMMANDS = (
    predict, calibrate, parse, describe, pose, render, convert, stream, show, serve, demo, annotate, forget, card, push,
    script_commands,
)  # fmt: skip

_EXTRAS = {
    **dict.fromkeys(("accelerate", "bitsandbytes", "datasets", "peft", "tensorboard"), "train"),
    "trl": "align",
}
"""Optional packages that a command may lack, and the extra of pyproject.toml that installs each."""

_INPUTS = ("file", "pictures", "avatar", "neutral", "candidates", "database", "source", "dataset")
_OUTPUTS = ("out", "report", "export")
"""Options of the subcommands that name what is read, and what is written."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; ``argv`` defaults to the process's arguments."""
    for file in (sys.stdout, sys.stderr):
        file.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = script_commands.run(words)
        if code is None:
            code = _run(words)
        sys.stdout.flush()
    except SemanticFaceError as error:
        print(f"semanticface: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        print(
            f"semanticface: {words[0]} needs {error.name}, which is not installed. "
            f"Install it: pip install 'semanticface[{_EXTRAS[error.name]}]'",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("semanticface: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The other end of the pipe closed early. Redirect stdout, so that flushing it at exit does not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # The library reports errors of its own files; what remains is standard output, such as on a full disk.
        where = error.filename or "the output"
        print(
            f"semanticface: cannot use {where}: {error.strerror}. Free some space or choose another.", file=sys.stderr
        )
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    return code


def _run(words: list[str]) -> int:
    parser = _parser()
    options = parser.parse_args(words)
    if options.run is None:
        parser.print_help()
        return 0
    _check_outputs(options)
    return int(options.run(options))


def _check_outputs(options: argparse.Namespace) -> None:
    """Refuse an output that is one of the inputs, before anything is read."""
    given = [getattr(options, name, None) for name in _INPUTS]
    inputs = [path for each in given for path in (each if isinstance(each, list) else [each])]
    for name in _OUTPUTS:
        if (target := getattr(options, name, None)) is not None:
            check_not_an_input(target, *(path for path in inputs if isinstance(path, str | os.PathLike)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="semanticface",
        description="Turn pictures of faces into 52 ARKit blendshape coefficients and a readable analysis, and back.",
        epilog=example_lines(
            "semanticface predict face.jpg",
            "semanticface predict photos/ --out faces.jsonl --report faces.html",
            "semanticface predict take.mp4 --out take.csv",
            "semanticface describe take.csv",
            "semanticface render faces.jsonl --out frames/",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"semanticface {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    parser.set_defaults(run=None)
    for module in _COMMANDS:
        module.add_commands(commands)
    return parser
