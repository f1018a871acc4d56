"""Stage I for a whole table or dataset: each row of coefficients gets its explanation and its answer.

Rows keep their order. A row that cannot be described stays in its place without analysis and answer, with ``status``
and ``reason`` saying why.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from semanticface.answer import format_answer
from semanticface.arkit import N_ACTIONS
from semanticface.errors import DatasetError, SemanticFaceError, TableError
from semanticface.files import atomic_open, atomic_path
from semanticface.semantics import Analysis, describe_many
from semanticface.tables import Answered, read_coefficients

_AT_ONCE = 1024
BAD_ROW = "bad_row"
"""The status of a row that could not be described."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A row without a description: where it is (file and line, or split and row) and what is wrong with it."""

    where: str
    reason: str


def describe_table(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, emotion: bool = True
) -> tuple[int, list[Failure]]:
    """Describe a table of coefficients (``tables.read_coefficients``) into a JSONL file, one object a row.

    An object has ``image``, ``status``, ``reason`` (of a failed row), ``coefficients``, ``analysis`` and ``answer``,
    the canonical text.

    Returns:
        The number of rows, and the failed ones.

    Raises:
        TableError: the source is not such a table.
        SemanticFaceError: the target does not end in ``.jsonl``, or the operating system refused to write.
    """
    if Path(target).suffix.lower() != ".jsonl":
        raise SemanticFaceError(f"{target}: answers are written as JSONL. End its name in .jsonl.")
    if not Path(source).exists():
        raise TableError(f"{source}: no such file or folder. Check the path.")
    rows = read_coefficients(source)
    failures: list[Failure] = []
    total = 0
    # backslashreplace: names that are not Unicode must not stop the table.
    with atomic_open(target, errors="backslashreplace") as file, tqdm(unit=" rows", desc="describing") as bar:
        while block := list(islice(rows, _AT_ONCE)):
            described = iter(_described([row.coefficients for row in block], emotion))
            for row in block:
                analysis, answer = next(described)
                if analysis is None:
                    failures.append(Failure(f"{source}, line {row.line}", row.error))
                    outcome = Answered(row.label, BAD_ROW, row.error)
                else:
                    outcome = Answered(row.label, coefficients=row.coefficients, analysis=analysis)
                file.write(json.dumps(outcome.to_dict() | {"answer": answer}, ensure_ascii=False) + "\n")
            total += len(block)
            bar.update(len(block))
    return total, failures


def describe_dataset(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, emotion: bool = True
) -> tuple[int, list[Failure]]:
    """Describe a dataset saved with ``save_to_disk``; the new folder has the same rows and splits.

    Columns added, or replaced where they exist: ``answer`` (the canonical text), ``analysis`` (its JSON), both null in
    a failed row, ``status`` (``ok`` or ``bad_row``) and ``reason``.

    Returns:
        The number of rows, and the failed ones.

    Raises:
        DatasetError: the source is no such folder, or has no ``coefficients``; or the target exists.
        SemanticFaceError: the operating system refused to write.
    """
    import datasets

    if Path(target).exists():
        raise DatasetError(f"{target} exists already. Choose a new folder, or remove this one first.")
    try:
        loaded = datasets.load_from_disk(str(source))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{source}: no dataset made by save_to_disk ({error}). Make it again.") from error
    splits = loaded if isinstance(loaded, datasets.DatasetDict) else datasets.DatasetDict({"": loaded})
    failures: list[Failure] = []
    total = 0
    # The map's cache would otherwise be left inside the source folder.
    caching = datasets.is_caching_enabled()
    datasets.disable_caching()
    try:
        for name, split in splits.items():
            place = f"{source}, {name + ', ' if name else ''}"
            if "coefficients" not in split.column_names:
                raise DatasetError(f"{place}columns {split.column_names}: there is no column coefficients. Add it.")
            old = [column for column in ("answer", "analysis", "status", "reason") if column in split.column_names]
            splits[name] = split.remove_columns(old).map(
                _columns,
                batched=True,
                batch_size=_AT_ONCE,
                with_indices=True,
                input_columns=["coefficients"],
                fn_kwargs={"emotion": emotion, "place": place, "failures": failures},
                features=datasets.Features(
                    {key: value for key, value in split.features.items() if key not in old}
                    | {key: datasets.Value("string") for key in ("answer", "analysis", "status", "reason")}
                ),
                desc=f"describing {name}".strip(),
            )
            total += len(split)
        with atomic_path(target) as temporary:
            (splits if isinstance(loaded, datasets.DatasetDict) else splits[""]).save_to_disk(str(temporary))
    finally:
        if caching:
            datasets.enable_caching()
    return total, failures


def _columns(
    coefficients: Sequence[Any], indices: Sequence[int], emotion: bool, place: str, failures: list[Failure]
) -> dict[str, list[str | None]]:
    vectors, reasons = [], []
    for index, values in zip(indices, coefficients, strict=True):
        vector, reason = _vector(values)
        if reason:
            failures.append(Failure(f"{place}row {index}", reason))
        vectors.append(vector)
        reasons.append(reason)
    described = list(_described(vectors, emotion))
    return {
        "answer": [answer for _, answer in described],
        "analysis": [json.dumps(words.to_dict(), ensure_ascii=False) if words else None for words, _ in described],
        "status": [BAD_ROW if reason else "ok" for reason in reasons],
        "reason": list(reasons),
    }


def _vector(values: Any) -> tuple[np.ndarray | None, str]:
    try:
        vector = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        return None, "coefficients are not numbers"
    if vector.shape != (N_ACTIONS,):
        return None, f"coefficients have shape {list(vector.shape)}, not [{N_ACTIONS}]"
    if not np.isfinite(vector).all():
        return None, "a coefficient is NaN, infinite or missing"
    if vector.min() < 0 or vector.max() > 1:
        return None, f"coefficients from {vector.min():g} to {vector.max():g} leave the range 0 to 1"
    return vector, ""


def _described(vectors: Sequence[np.ndarray | None], emotion: bool) -> Iterator[tuple[Analysis | None, str | None]]:
    good = [vector for vector in vectors if vector is not None]
    words = iter(describe_many(np.stack(good), emotion=emotion) if good else ())
    for vector in vectors:
        if vector is None:
            yield None, None
        else:
            analysis = next(words)
            yield analysis, format_answer(vector, analysis)
