"""The ``semanticface`` command: predict, calibrate, parse, describe, render, convert, stream, annotate, ...

Thin: each subcommand calls the library.

Exit codes: 0 all went well; 1 some rows or pictures failed (each named on standard error, its place kept); 2 nothing
could be done, with one line that says why; 130 interrupted. Heavy modules are imported where they are used, so that
``--help``, ``parse`` and ``describe`` start without torch.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from semanticface import __version__
from semanticface.cli import (
    annotate,
    arguments,
    calibrate,
    card,
    convert,
    demo,
    describe,
    forget,
    parse,
    predict,
    push,
    render,
    serve,
    show,
    stream,
)
from semanticface.errors import SemanticFaceError


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; ``words`` defaults to the command line's."""
    for file in (sys.stdout, sys.stderr):
        file.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
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
        epilog=arguments.example_lines(
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
    for module in (
        predict,
        calibrate,
        parse,
        describe,
        render,
        convert,
        stream,
        show,
        serve,
        demo,
        annotate,
        forget,
        card,
        push,
    ):
        module.add_commands(commands)
    return parser
