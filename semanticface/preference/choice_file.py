"""Choices as JSONL: one object a line, the form in which they leave a machine and come to another."""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, get_args

from semanticface.errors import SemanticFaceError
from semanticface.formats.tables import read_objects
from semanticface.preference.regions import AREAS
from semanticface.preference.types import VERDICTS, Choice, Kind, Question
from semanticface.utils.csv_lines import short
from semanticface.utils.files import atomic_open

KINDS: tuple[Kind, ...] = get_args(Kind)
LONGEST_NAME = 200
"""Characters that an id, a pseudonym or a fingerprint may have."""

_QUESTION = ("id", "picture", "area", "a", "b", "kind", "of")
_CHOICE = ("question", "verdict", "annotator", "model", "round", "time")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)")


def now() -> str:
    """Return the time as choices note it: UTC, ISO 8601, to the millisecond, such as ``2026-11-22T09:30:00.123Z``."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def choice_dict(choice: Choice) -> dict[str, Any]:
    """Return a choice as plain values for JSON; ``choice_from`` reads them back."""
    return asdict(choice)


def choice_from(value: Mapping[str, Any]) -> Choice:
    """Return the choice that ``choice_dict`` gave.

    Raises:
        ValueError: says which part is missing, unknown or not of its kind.
    """
    _check_keys(value, _CHOICE, "choice")
    question = value["question"]
    if not isinstance(question, Mapping):
        raise ValueError("question is not an object")
    _check_keys(question, _QUESTION, "question")
    for key in ("id", "picture", "a", "b"):
        _check_name(question[key], f"question.{key}")
    for key, known in (("area", AREAS), ("kind", KINDS)):
        if question[key] not in known:
            raise ValueError(f"question.{key} is {_shown(question[key])}, not {' or '.join(known)}")
    if question["a"] == question["b"]:
        raise ValueError("question.a and question.b are the same candidate")
    if question["kind"] == "first":
        if question["of"] != "":
            raise ValueError("question.of must be empty where it is asked for the first time")
    else:
        _check_name(question["of"], "question.of")
    if value["verdict"] not in VERDICTS:
        raise ValueError(f"verdict is {_shown(value['verdict'])}, not one of {', '.join(VERDICTS)}")
    for key in ("annotator", "model"):
        _check_name(value[key], key)
    if type(value["round"]) is not int or not 1 <= value["round"] < 2**31:
        raise ValueError(f"round is {_shown(value['round'])}, not a whole number from 1")
    if not isinstance(value["time"], str) or not _TIME.fullmatch(value["time"]):
        raise ValueError(f"time is {_shown(value['time'])}, not a UTC time such as 2026-11-22T09:30:00Z")
    try:
        datetime.datetime.fromisoformat(value["time"])
    except ValueError:
        raise ValueError(f"time is {_shown(value['time'])}, which no calendar has") from None
    return Choice(
        Question(**question), value["verdict"], value["annotator"], value["model"], value["round"], value["time"]
    )


def write_choices(path: str | os.PathLike[str], choices: Iterable[Choice]) -> int:
    """Write choices as JSONL, whole or not at all; return how many.

    Raises:
        SemanticFaceError: the system refuses to write.
    """
    count = 0
    with atomic_open(path) as file:
        for choice in choices:
            file.write(json.dumps(choice_dict(choice), ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def read_choices(path: str | os.PathLike[str]) -> tuple[list[tuple[int, Choice]], list[str]]:
    """Read a JSONL of choices.

    Returns:
        Each good choice with its line number, in order; and what is wrong with each bad line, file, line number and
        fix included.

    Raises:
        TableError: no such file, or it is empty.
    """
    good: list[tuple[int, Choice]] = []
    bad: list[str] = []
    for line, value, problem in read_objects(path):
        if value is None:
            bad.append(problem)
            continue
        try:
            good.append((line, choice_from(value)))
        except ValueError as error:
            bad.append(f"{os.fspath(path)}, line {line}: {error}. Correct or remove the line.")
    return good, bad


def check_pseudonym(name: str) -> str:
    """Return an annotator's name if it is one that may stand in files.

    Raises:
        SemanticFaceError: it is empty, long, or has other than letters, digits, ``_``, ``-`` and ``.``.
    """
    if not re.fullmatch(r"\w[\w.-]{0,39}", name):
        raise SemanticFaceError(
            f"{short(name)} cannot be an annotator's name. Take a pseudonym of up to 40 letters, digits, '-', '_' or "
            "'.', such as robin: it is stored with every choice, so it should not be a real name or an address."
        )
    return name


def _check_keys(value: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    for key in known:
        if key not in value:
            raise ValueError(f"the {what} lacks {key}")
    for key in value:
        if key not in known:
            raise ValueError(f"{_shown(key)} is unknown in a {what}")


def _check_name(value: object, what: str) -> None:
    if not isinstance(value, str) or not value or len(value) > LONGEST_NAME or not value.isprintable():
        raise ValueError(f"{what} is {_shown(value)}, not a text of 1 to {LONGEST_NAME} printable characters")


def _shown(value: object) -> str:
    return short(value) if isinstance(value, str) else short(json.dumps(value))
