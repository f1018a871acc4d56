"""Files of candidates: JSONL, one slate a line behind a header that says which model and dataset they belong to.

Slates and pairs as lines of JSON: coefficients by action name, strict on the way in.

Choices as JSONL: one object a line, the form in which they leave a machine and come to another.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np

from semanticface.arkit import INDEX, NAMES, by_name, vector
from semanticface.data.consent import Consent
from semanticface.errors import DatasetError, ModelError, SemanticFaceError, TableError
from semanticface.formats.tables import read_objects
from semanticface.models.files import check_files, resolve_model
from semanticface.preference.regions import AREAS
from semanticface.preference.types import VERDICTS, Candidate, CandidateSet, Choice, Kind, Question, Source
from semanticface.recipe import files_sha256
from semanticface.utils.csv_lines import quote
from semanticface.utils.files import atomic_open

T = TypeVar("T")


def write_records(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line; the file appears only when it is complete.

    Raises:
        SemanticFaceError: the system refuses to write.
    """
    with atomic_open(path, newline="") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


def coefficients_record(coefficients: np.ndarray) -> dict[str, float]:
    """Return float32[52] by action name, as short as they can be written exactly."""
    # Adding 0 turns -0.0 into 0.0.
    return {name: round(value, 6) + 0.0 for name, value in by_name(coefficients).items()}


def coefficients_from(value: object, at: str) -> np.ndarray:
    """Return float32[52] from an object of all 52 action names.

    Args:
        value: read from JSON.
        at: file, line and key, for the message.

    Raises:
        TableError: no such object, or a number that is none or lies outside 0 to 1.
    """
    if not isinstance(value, dict) or value.keys() != INDEX.keys():
        raise TableError(f"{at}: not an object with exactly the 52 action names. Remove the line or make it again.")
    for name in NAMES:
        number = value[name]
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
            raise TableError(f"{at}: {name} is not a number from 0 to 1. Remove the line or make it again.")
    return vector(value)


def field(record: Mapping[str, Any], name: str, kind: type[T], at: str) -> T:
    """Return a field of a record.

    Raises:
        TableError: it is missing or of another type; ``at`` says where.
    """
    value = record.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TableError(f"{at}: {name} is not a JSON {kind.__name__}. Remove the line or make it again.")
    return value


_KIND = "candidates"
_ANSWERS_DEPEND_ON = ("*.safetensors", "config.json", "adapter_config.json", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class CandidateHeader:
    """What a file of candidates says of all of them.

    Attributes:
        model: ``fingerprint`` of the model that they were sampled from.
        dataset: fingerprint of the split that the pictures are in (``rows.dataset_record``).
        split: its name.
        round: of the alignment, from 1.
        settings: how they were sampled.
    """

    model: str
    dataset: str
    split: str
    round: int
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Candidates:
    """A file of candidates.

    Attributes:
        header: what holds for all.
        slates: in the order of the file.
        problems: what is wrong with lines that hold no slate, each with its number and the fix.
    """

    header: CandidateHeader
    slates: tuple[CandidateSet, ...]
    problems: tuple[str, ...]


def fingerprint(model: str | Path) -> str:
    """Return a sha256 over what a model's answers depend on: weights, configuration and tokenizer.

    Of an adapter these are the adapter's own. What a recipe says of a model, such as its calibration, is left out.

    Args:
        model: ``nano``, a folder or a hub id.

    Raises:
        ModelError: no such model, or a folder without weights.
    """
    folder, _ = resolve_model(model)
    check_files(folder, adapter=(folder / "adapter_config.json").exists())
    return files_sha256([path for pattern in _ANSWERS_DEPEND_ON for path in folder.glob(pattern)])


def write_candidates(path: str | Path, header: CandidateHeader, slates: Iterable[CandidateSet]) -> None:
    """Write candidates as JSONL: the header, then a slate a line; whole or not at all.

    Raises:
        SemanticFaceError: the system refuses to write.
    """
    write_records(path, _records(header, slates))


def _records(header: CandidateHeader, slates: Iterable[CandidateSet]) -> Iterator[dict[str, Any]]:
    yield {
        "kind": _KIND,
        "model": header.model,
        "dataset": header.dataset,
        "split": header.split,
        "round": header.round,
        "settings": dict(header.settings),
    }
    for slate in slates:
        yield {
            "picture": slate.picture,
            "row": slate.row,
            "subject": slate.subject,
            "candidates": [
                {"id": each.id, "source": each.source, "coefficients": coefficients_record(each.coefficients)}
                for each in slate.candidates
            ],
        }


def read_candidates(path: str | Path, *, model: str | None = None, dataset: str | None = None) -> Candidates:
    """Read what ``write_candidates`` wrote.

    Args:
        path: the file.
        model: fingerprint of the model that the candidates must come from; None for any.
        dataset: fingerprint of the split that they must be about; None for any.

    Raises:
        TableError: no such file, or one that does not begin with the header of candidates.
        ModelError: the candidates are of another model.
        DatasetError: the candidates are of other pictures.
    """
    objects = read_objects(path)
    _, first, problem = next(objects)
    header = _header(first, problem, path)
    check_header(header, path, model=model, dataset=dataset)
    slates: dict[str, CandidateSet] = {}
    problems = []
    for line, record, problem in objects:
        at = f"{path}, line {line}"
        try:
            if record is None:
                raise TableError(problem)
            slate = _slate(record, at)
            if slate.picture in slates:
                raise TableError(f"{at}: the picture has its candidates on another line. Remove one of the two.")
            slates[slate.picture] = slate
        except TableError as error:
            problems.append(str(error))
    return Candidates(header, tuple(slates.values()), tuple(problems))


def check_header(
    header: CandidateHeader, path: str | Path, *, model: str | None = None, dataset: str | None = None
) -> None:
    """Raise unless candidates are of the model and of the split of a dataset that are given; as ``read_candidates``."""
    if model is not None and header.model != model:
        raise ModelError(
            f"{path}: candidates of the model {header.model[:12]}, not of {model[:12]}. Give the model that they were "
            "sampled from, or sample candidates from this one."
        )
    if dataset is not None and header.dataset != dataset:
        raise DatasetError(
            f"{path}: candidates for the dataset {header.dataset[:12]}, not for {dataset[:12]}. Give the dataset that "
            "they were sampled for, or sample candidates for this one."
        )


def _header(record: Mapping[str, Any] | None, problem: str, path: str | Path) -> CandidateHeader:
    at = f"{path}, line 1"
    if record is None or record.get("kind") != _KIND:
        why = problem or f"{at}: not the header of a file of candidates."
        raise TableError(f"{why} Give the candidates.jsonl that train/prefer.py wrote.")
    return CandidateHeader(
        field(record, "model", str, at),
        field(record, "dataset", str, at),
        field(record, "split", str, at),
        field(record, "round", int, at),
        field(record, "settings", dict, at),
    )


def _slate(record: Mapping[str, Any], at: str) -> CandidateSet:
    picture, row = field(record, "picture", str, at), field(record, "row", int, at)
    if row < 0:
        raise TableError(f"{at}: row is {row}. Remove the line or make it again.")
    candidates = []
    for each in field(record, "candidates", list, at):
        if not isinstance(each, dict) or each.get("source") not in get_args(Source):
            raise TableError(f"{at}: a candidate without a source ({', '.join(get_args(Source))}). Make it again.")
        coefficients = coefficients_from(each.get("coefficients"), f"{at}, coefficients")
        candidates.append(Candidate(field(each, "id", str, at), each["source"], coefficients))
    if len({each.id for each in candidates}) < max(2, len(candidates)):
        raise TableError(f"{at}: fewer than two candidates, or two of one name. Remove the line or make it again.")
    return CandidateSet(picture, row, field(record, "subject", str, at), tuple(candidates))


def split_by_consent(consent: Consent, slates: Iterable[CandidateSet]) -> tuple[list[CandidateSet], Collection[str]]:
    """Return the slates that may be shown, and the subjects of those that may not."""
    shown, hidden = [], set()
    for slate in slates:
        if consent.allows(slate.subject):
            shown.append(slate)
        else:
            hidden.add(slate.subject)
    return shown, hidden


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
            f"{quote(name)} cannot be an annotator's name. Take a pseudonym of up to 40 letters, digits, '-', '_' or "
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
    return quote(value) if isinstance(value, str) else quote(json.dumps(value))
