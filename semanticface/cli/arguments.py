"""What words on the command line may stand for; each raises an ``ArgumentTypeError`` that says what would be right."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

from semanticface.vision.timecode import parse_rate

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

OUT_HELP = "write X.jsonl or X.csv instead of a summary to the terminal"
DEVICE_HELP = "cpu, cuda, cuda:1, mps (default: the best there is)"
NO_EMOTION_HELP = "leave out what the face suggests a person feels"

if TYPE_CHECKING:
    from semanticface.vision.crop import Box


def example_lines(*lines: str) -> str:
    """Return the last lines of a ``--help``."""
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)


def add_command(commands: Subparsers, name: str, purpose: str, about: str, *examples: str) -> argparse.ArgumentParser:
    """Add a subcommand with its name, purpose, explanation and examples, and return its parser."""
    return commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.\n\n{about}",
        epilog=example_lines(*examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def box(text: str) -> Box:
    """Read four numbers, left, top, right, bottom."""
    from semanticface.vision.crop import Box

    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not four numbers such as 120,80,360,320") from None
    if not (x0 < x1 < float("inf") and y0 < y1 < float("inf")):
        raise argparse.ArgumentTypeError(f"{text!r} has no area: give left,top,right,bottom in pixels")
    return Box(x0, y0, x1, y1)


def shares(example: str) -> Callable[[str], dict[str, float]]:
    """Return what reads ``name=share,name=share``; ``example`` is shown to who writes something else."""

    def read(text: str) -> dict[str, float]:
        pairs = [part.partition("=") for part in text.split(",")]
        try:
            found = {name.strip(): float(value) for name, _, value in pairs}
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: write name=share,name=share, as in {example}") from error
        if len(found) < len(pairs):
            raise argparse.ArgumentTypeError(f"{text!r} names something twice")
        return found

    return read


def positive(text: str) -> int:
    """Read a count from 1 to 4096."""
    return _whole(text, 1, 4096)


def size(text: str) -> int:
    """Read a side in pixels."""
    return _whole(text, 32, 2048)


def seed(text: str) -> int:
    """Read a seed."""
    return _whole(text, 0, 2**31 - 1)


def rate(text: str) -> Fraction:
    """Read frames a second."""
    try:
        return parse_rate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _whole(text: str, low: int, high: int) -> int:
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
    return int(text)


def temperature(text: str) -> float:
    """Read a number from 0 to 10."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 10")
    return value
