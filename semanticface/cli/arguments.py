"""Options and argument types that several subcommands share; a type raises ``ArgumentTypeError`` with the fix."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from semanticface.vision.timecode import parse_rate

if TYPE_CHECKING:
    from semanticface.vision.crop import Box

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

OUT_HELP = "write X.jsonl or X.csv instead of printing a summary"
_DEFAULT = "(default: %(default)s)"


def example_lines(*lines: str) -> str:
    """Return the ``examples:`` block that ends a ``--help``."""
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)


def add_command(commands: Subparsers, name: str, purpose: str, about: str, *examples: str) -> argparse.ArgumentParser:
    """Add a subcommand: its name, one-line purpose, explanation and examples; return its parser."""
    return commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.\n\n{about}",
        epilog=example_lines(*examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add ``--model`` and ``--device``."""
    parser.add_argument("--model", default="nano", help=f'"nano" (in the package), a folder or a Hub id {_DEFAULT}')
    add_device(parser)


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add ``--device``."""
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best available)")


def add_no_emotion(parser: argparse.ArgumentParser) -> None:
    """Add ``--no-emotion``."""
    parser.add_argument("--no-emotion", action="store_true", help="leave out what emotion the face suggests")


def add_neutral(parser: argparse._ActionsContainer) -> None:
    """Add ``--neutral``."""
    parser.add_argument(
        "--neutral",
        type=neutral,
        metavar="PICTURE|SECONDS",
        help="take the person's face at rest off every answer; blinks still close the eyes. PICTURE shows it; SECONDS "
        "of a video: its calmest, wherever they are; of a camera: its first",
    )


def add_seed(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Add ``--seed``."""
    parser.add_argument("--seed", type=seed, default=0, help=f"{purpose} {_DEFAULT}")


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """Add ``--batch-size``."""
    parser.add_argument(
        "--batch-size", type=positive, default=16, help=f"pictures per batch; lower it if memory runs out {_DEFAULT}"
    )


def box(text: str) -> Box:
    """Parse ``left,top,right,bottom`` in pixels."""
    from semanticface.vision.crop import Box

    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not four numbers such as 120,80,360,320") from None
    if not (x0 < x1 < float("inf") and y0 < y1 < float("inf")):
        raise argparse.ArgumentTypeError(f"{text!r} has no area: give left,top,right,bottom in pixels")
    return Box(x0, y0, x1, y1)


def neutral(text: str) -> Path | float:
    """Parse ``--neutral``: the name of a picture, or seconds up to an hour, with or without an s."""
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        return Path(text)
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0 and up to 3600")
    return seconds


def weights(example: str) -> Callable[[str], dict[str, float]]:
    """Return a parser of ``name=weight,name=weight``; its error shows ``example``."""

    def read(text: str) -> dict[str, float]:
        pairs = [part.partition("=") for part in text.split(",")]
        try:
            found = {name.strip(): float(value) for name, _, value in pairs}
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: write name=weight,name=weight, as in {example}") from error
        if len(found) < len(pairs):
            raise argparse.ArgumentTypeError(f"{text!r} names something twice")
        return found

    return read


def positive(text: str) -> int:
    """Parse a count from 1 to 4096."""
    return _whole(text, 1, 4096)


def size(text: str) -> int:
    """Parse a side length in pixels."""
    return _whole(text, 32, 2048)


def seed(text: str) -> int:
    """Parse a seed."""
    return _whole(text, 0, 2**31 - 1)


def port(text: str) -> int:
    """Parse an unprivileged port."""
    return _whole(text, 1024, 65535)


def port_or_any(text: str) -> int:
    """Parse an unprivileged port, or 0 for any free one."""
    return 0 if text == "0" else port(text)


def rate(text: str) -> Fraction:
    """Parse frames per second."""
    try:
        return parse_rate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _whole(text: str, low: int, high: int) -> int:
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
    return int(text)


def temperature(text: str) -> float:
    """Parse a sampling temperature from 0 to 10."""
    return _number(text, 10)


def share(text: str) -> float:
    """Parse a share from 0 to 1."""
    return _number(text, 1)


def _number(text: str, high: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {high}")
    return value
