"""JSONL files of candidates and choices.

A file of candidates has a header line that names their model and dataset, then one candidate set per line. A file of
choices has one choice per line; it carries choices from one machine to another. Coefficients are objects by action
name. Readers are strict: a bad line is reported with its number and skipped.
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
from semanticface.preference.regions import REGIONS
from semanticface.preference.types import VERDICTS, Candidate, CandidateSet, Choice, Kind, Question, Source
from semanticface.recipe import files_sha256
from semanticface.utils.csv_lines import quote
from semanticface.utils.files import atomic_open

T = TypeVar("T")

KINDS: tuple[Kind, ...] = get_args(Kind)
MAX_NAME_LENGTH = 200
"""Characters allowed in an id, a pseudonym or a fingerprint."""

_CANDIDATES = "candidates"  # the header's kind
_MODEL_FILES = ("*.safetensors", "config.json", "adapter_config.json", "tokenizer.json")
_QUESTION_KEYS = ("id", "picture", "area", "a", "b", "kind", "of")  # in the order of Question's fields
_CHOICE_KEYS = ("question", "verdict", "annotator", "model", "round", "time")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)")


def write_records(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line; the file appears only when complete."""
    with atomic_open(path, newline="") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


def field(record: Mapping[str, Any], name: str, kind: type[T], at: str) -> T:
    """Return a field of a record, or raise a TableError at ``at`` if it is missing or of another type."""
    value = record.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TableError(f"{at}: {name} is not a JSON {kind.__name__}. Remove the line or make it again.")
    return value


def coefficients_record(coefficients: np.ndarray) -> dict[str, float]:
    """Return float32[52] by action name, rounded to the shortest exact decimals."""
    # Adding 0 turns -0.0 into 0.0.
    return {name: round(value, 6) + 0.0 for name, value in by_name(coefficients).items()}


def parse_coefficients(value: object, at: str) -> np.ndarray:
    """Return float32[52] from an object with all 52 action names; ``at`` names file, line and key in errors."""
    if not isinstance(value, dict) or value.keys() != INDEX.keys():
        raise TableError(f"{at}: not an object with exactly the 52 action names. Remove the line or make it again.")
    for name in NAMES:
        number = value[name]
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
            raise TableError(f"{at}: {name} is not a number from 0 to 1. Remove the line or make it again.")
    return vector(value)


@dataclass(frozen=True, slots=True)
class CandidateHeader:
    """The header of a file of candidates.

    Attributes:
        model: ``fingerprint`` of the model that they were sampled from.
        dataset: fingerprint of the split with the pictures (``rows.dataset_record``).
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
        header: the first line.
        candidate_sets: in file order.
        problems: errors in unreadable lines, each with its number and the fix.
    """

    header: CandidateHeader
    candidate_sets: tuple[CandidateSet, ...]
    problems: tuple[str, ...]


def fingerprint(model: str | Path) -> str:
    """Return a sha256 over the files that a model's answers depend on: weights, configuration and tokenizer.

    For an adapter, its own files. The recipe (calibration and the like) is left out.

    Args:
        model: ``nano``, a folder or a hub id.

    Raises:
        ModelError: no such model, or a folder without weights.
    """
    folder, _ = resolve_model(model)
    check_files(folder, adapter=(folder / "adapter_config.json").exists())
    return files_sha256([path for pattern in _MODEL_FILES for path in folder.glob(pattern)])


def write_candidates(path: str | Path, header: CandidateHeader, candidate_sets: Iterable[CandidateSet]) -> None:
    """Write candidates as JSONL: the header, then one set per line; all or nothing.

    Raises:
        SemanticFaceError: the file cannot be written.
    """
    write_records(path, _candidate_records(header, candidate_sets))


def _candidate_records(header: CandidateHeader, candidate_sets: Iterable[CandidateSet]) -> Iterator[dict[str, Any]]:
    yield {
        "kind": _CANDIDATES,
        "model": header.model,
        "dataset": header.dataset,
        "split": header.split,
        "round": header.round,
        "settings": dict(header.settings),
    }
    for candidate_set in candidate_sets:
        yield {
            "picture": candidate_set.picture,
            "row": candidate_set.row,
            "subject": candidate_set.subject,
            "candidates": [
                {"id": each.id, "source": each.source, "coefficients": coefficients_record(each.coefficients)}
                for each in candidate_set.candidates
            ],
        }


def read_candidates(path: str | Path, *, model: str | None = None, dataset: str | None = None) -> Candidates:
    """Read a file of ``write_candidates``.

    Args:
        path: the file.
        model: required fingerprint of the model; None for any.
        dataset: required fingerprint of the split; None for any.

    Raises:
        TableError: no such file, or its first line is not a header of candidates.
        ModelError: the candidates come from another model.
        DatasetError: the candidates are for another dataset.
    """
    objects = read_objects(path)
    _, first, problem = next(objects)
    header = _parse_header(first, problem, path)
    check_header(header, path, model=model, dataset=dataset)
    candidate_sets: dict[str, CandidateSet] = {}
    problems = []
    for line, record, problem in objects:
        at = f"{path}, line {line}"
        try:
            if record is None:
                raise TableError(problem)
            candidate_set = _parse_candidate_set(record, at)
            if candidate_set.picture in candidate_sets:
                raise TableError(f"{at}: another line has candidates for the same picture. Remove one of the two.")
            candidate_sets[candidate_set.picture] = candidate_set
        except TableError as error:
            problems.append(str(error))
    return Candidates(header, tuple(candidate_sets.values()), tuple(problems))


def check_header(
    header: CandidateHeader, path: str | Path, *, model: str | None = None, dataset: str | None = None
) -> None:
    """Check that candidates come from a model and are for a split; arguments and errors as in ``read_candidates``."""
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


def _parse_header(record: Mapping[str, Any] | None, problem: str, path: str | Path) -> CandidateHeader:
    at = f"{path}, line 1"
    if record is None or record.get("kind") != _CANDIDATES:
        why = problem or f"{at}: not the header of a file of candidates."
        raise TableError(f"{why} Give the candidates.jsonl that semanticface prefer wrote.")
    return CandidateHeader(
        field(record, "model", str, at),
        field(record, "dataset", str, at),
        field(record, "split", str, at),
        field(record, "round", int, at),
        field(record, "settings", dict, at),
    )


def _parse_candidate_set(record: Mapping[str, Any], at: str) -> CandidateSet:
    picture, row = field(record, "picture", str, at), field(record, "row", int, at)
    if row < 0:
        raise TableError(f"{at}: row is {row}. Remove the line or make it again.")
    candidates = []
    for each in field(record, "candidates", list, at):
        if not isinstance(each, dict) or each.get("source") not in get_args(Source):
            raise TableError(f"{at}: a candidate without a source ({', '.join(get_args(Source))}). Make it again.")
        coefficients = parse_coefficients(each.get("coefficients"), f"{at}, coefficients")
        candidates.append(Candidate(field(each, "id", str, at), each["source"], coefficients))
    if len({each.id for each in candidates}) < max(2, len(candidates)):
        raise TableError(f"{at}: fewer than two candidates, or a repeated id. Remove the line or make it again.")
    return CandidateSet(picture, row, field(record, "subject", str, at), tuple(candidates))


def split_by_consent(
    consent: Consent, candidate_sets: Iterable[CandidateSet]
) -> tuple[list[CandidateSet], Collection[str]]:
    """Return the candidate sets that may be shown, and the subjects of those that may not."""
    allowed, hidden = [], set()
    for candidate_set in candidate_sets:
        if consent.allows(candidate_set.subject):
            allowed.append(candidate_set)
        else:
            hidden.add(candidate_set.subject)
    return allowed, hidden


def now() -> str:
    """Return the time of a choice: UTC, ISO 8601 in milliseconds, such as ``2026-11-22T09:30:00.123Z``."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def choice_dict(choice: Choice) -> dict[str, Any]:
    """Return a choice as a JSON object, readable by ``parse_choice``."""
    values = asdict(choice.question).values()
    return asdict(choice) | {"question": dict(zip(_QUESTION_KEYS, values, strict=True))}


def parse_choice(value: Mapping[str, Any]) -> Choice:
    """Return the choice in an object of ``choice_dict``, or raise a ValueError that names the bad part."""
    _check_keys(value, _CHOICE_KEYS, "choice")
    question = value["question"]
    if not isinstance(question, Mapping):
        raise ValueError("question is not an object")
    _check_keys(question, _QUESTION_KEYS, "question")
    for key in ("id", "picture", "a", "b"):
        _check_name(question[key], f"question.{key}")
    for key, known in (("area", REGIONS), ("kind", KINDS)):
        if question[key] not in known:
            raise ValueError(f"question.{key} is {_quoted(question[key])}, not {' or '.join(known)}")
    if question["a"] == question["b"]:
        raise ValueError("question.a and question.b are the same candidate")
    if question["kind"] == "first":
        if question["of"] != "":
            raise ValueError("question.of must be empty in a first question")
    else:
        _check_name(question["of"], "question.of")
    if value["verdict"] not in VERDICTS:
        raise ValueError(f"verdict is {_quoted(value['verdict'])}, not one of {', '.join(VERDICTS)}")
    for key in ("annotator", "model"):
        _check_name(value[key], key)
    if type(value["round"]) is not int or not 1 <= value["round"] < 2**31:
        raise ValueError(f"round is {_quoted(value['round'])}, not a whole number from 1")
    if not isinstance(value["time"], str) or not _TIME.fullmatch(value["time"]):
        raise ValueError(f"time is {_quoted(value['time'])}, not a UTC time such as 2026-11-22T09:30:00Z")
    try:
        datetime.datetime.fromisoformat(value["time"])
    except ValueError:
        raise ValueError(f"time is {_quoted(value['time'])}, not a valid date") from None
    asked = Question(*(question[key] for key in _QUESTION_KEYS))
    return Choice(asked, *(value[key] for key in _CHOICE_KEYS[1:]))


def write_choices(path: str | os.PathLike[str], choices: Iterable[Choice]) -> int:
    """Write choices as JSONL, all or nothing; return their number.

    Raises:
        SemanticFaceError: the file cannot be written.
    """
    records = [choice_dict(choice) for choice in choices]
    write_records(Path(path), records)
    return len(records)


def read_choices(path: str | os.PathLike[str]) -> tuple[list[tuple[int, Choice]], list[str]]:
    """Read a JSONL file of choices.

    Returns:
        Each valid choice with its line number, in order; and an error for each bad line, with file, line number and
        fix.

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
            good.append((line, parse_choice(value)))
        except ValueError as error:
            bad.append(f"{os.fspath(path)}, line {line}: {error}. Correct or remove the line.")
    return good, bad


def check_pseudonym(name: str) -> str:
    """Return an annotator's pseudonym, or raise a SemanticFaceError if it is not 1 to 40 of the allowed characters."""
    if not re.fullmatch(r"\w[\w.-]{0,39}", name):
        raise SemanticFaceError(
            f"{quote(name)} cannot be an annotator's name. Use a pseudonym of up to 40 letters, digits, '-', '_' or "
            "'.', such as robin: it is stored with every choice, so it should not be a real name or an address."
        )
    return name


def _check_keys(value: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    for key in known:
        if key not in value:
            raise ValueError(f"the {what} lacks {key}")
    for key in value:
        if key not in known:
            raise ValueError(f"{_quoted(key)} is unknown in a {what}")


def _check_name(value: object, what: str) -> None:
    if not isinstance(value, str) or not value or len(value) > MAX_NAME_LENGTH or not value.isprintable():
        raise ValueError(f"{what} is {_quoted(value)}, not a text of 1 to {MAX_NAME_LENGTH} printable characters")


def _quoted(value: object) -> str:
    return quote(value) if isinstance(value, str) else quote(json.dumps(value))
