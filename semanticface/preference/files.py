"""Files of candidates: JSONL, one slate a line behind a header that says which model and dataset they belong to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from semanticface.data.consent import Consent
from semanticface.errors import DatasetError, ModelError, TableError
from semanticface.formats.tables import read_objects
from semanticface.models.files import check_files, find_folder
from semanticface.preference.records import coefficients_from, coefficients_record, field, write_records
from semanticface.preference.types import Candidate, Slate, Source
from semanticface.recipe import files_sha256

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
    slates: tuple[Slate, ...]
    problems: tuple[str, ...]


def fingerprint(model: str | Path) -> str:
    """Return a sha256 over what a model's answers depend on: weights, configuration and tokenizer.

    Of an adapter these are the adapter's own. What a recipe says of a model, such as its calibration, is left out.

    Args:
        model: ``nano``, a folder or a hub id.

    Raises:
        ModelError: no such model, or a folder without weights.
    """
    folder, _ = find_folder(model)
    check_files(folder, adapter=(folder / "adapter_config.json").exists())
    return files_sha256([path for pattern in _ANSWERS_DEPEND_ON for path in folder.glob(pattern)])


def write_candidates(path: str | Path, header: CandidateHeader, slates: Iterable[Slate]) -> None:
    """Write candidates as JSONL: the header, then a slate a line; whole or not at all.

    Raises:
        SemanticFaceError: the system refuses to write.
    """
    write_records(path, _records(header, slates))


def _records(header: CandidateHeader, slates: Iterable[Slate]) -> Iterator[dict[str, Any]]:
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
    slates: dict[str, Slate] = {}
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


def _slate(record: Mapping[str, Any], at: str) -> Slate:
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
    return Slate(picture, row, field(record, "subject", str, at), tuple(candidates))


def split_by_consent(consent: Consent, slates: Iterable[Slate]) -> tuple[list[Slate], Collection[str]]:
    """Return the slates that may be shown, and the subjects of those that may not."""
    shown, hidden = [], set()
    for slate in slates:
        if consent.allows(slate.subject):
            shown.append(slate)
        else:
            hidden.add(slate.subject)
    return shown, hidden
