"""Stage I for a whole table or dataset: each row of coefficients gets its analysis and its answer.

Rows keep their order. An invalid row stays in its place without analysis and answer; ``status`` and ``reason`` say why.
Rules write the analyses, or a language model does (``llm.analysis_writer``); then each row also records its ``writer``,
the number of ``attempts``, and in ``fallback`` why the rules' analysis was used instead.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semanticface.arkit import N_ACTIONS
from semanticface.errors import DatasetError, SemanticFaceError, TableError
from semanticface.formats.tables import RowResult, read_coefficients
from semanticface.recipe import RECIPE_NAME
from semanticface.semantics.analysis import Analysis, describe_many
from semanticface.semantics.answer import format_answer
from semanticface.utils.files import atomic_open, atomic_path, check_not_an_input, write_json
from semanticface.utils.progress import tqdm

if TYPE_CHECKING:
    from semanticface.llm.analysis_writer import LanguageModelWriter, WrittenAnalysis

_BATCH_ROWS = 1024
BAD_ROW = "bad_row"
"""Status of an invalid row."""
WRITER_RECORD = "writer.json"
"""In a dataset folder, or as a table's suffix instead of ``.jsonl``: the writer's settings and counts."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An invalid row: its location (file and line, or split and row) and what is wrong with it."""

    where: str
    reason: str


def check_paths(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Raise the errors of ``describe_table`` or ``describe_dataset`` about paths, before any work is done."""
    if Path(source).is_dir():
        _check_new(target)
        return
    if Path(target).suffix.lower() != ".jsonl":
        raise SemanticFaceError(f"{target}: the output is JSONL. End its name in .jsonl.")
    if not Path(source).exists():
        raise TableError(f"{source}: no such file or folder. Check the path.")
    check_not_an_input(target, source)


def describe_table(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    emotion: bool = True,
    writer: LanguageModelWriter | None = None,
) -> tuple[int, list[Failure]]:
    """Describe a table of coefficients (``tables.read_coefficients``) into a JSONL file, one object a row.

    An object has ``image``, ``status``, ``reason`` (of an invalid row), ``coefficients``, ``analysis`` and ``answer``,
    the canonical text; with a writer also ``writer``, ``attempts`` and ``fallback``.

    Args:
        source: the table.
        target: the JSONL file.
        emotion: whether to include an emotional implication; ignored with a writer, whose settings decide.
        writer: the language model that writes the analyses; by default rules do.

    Returns:
        The number of rows, and the invalid ones.

    Raises:
        TableError: the source is not such a table.
        ServerError: the writer's server stopped responding; nothing is written, but replies stay cached.
        SemanticFaceError: the target does not end in ``.jsonl`` or cannot be written.
    """
    check_paths(source, target)
    rows = read_coefficients(source)
    failures: list[Failure] = []
    total = 0
    # backslashreplace: a name that is not valid Unicode must not stop the table.
    with atomic_open(target, errors="backslashreplace") as file, tqdm(unit=" rows", desc="describing") as bar:
        while block := list(islice(rows, _BATCH_ROWS)):
            described = _describe([row.coefficients for row in block], emotion, writer, bar)
            for row, (analysis, answer, written) in zip(block, described, strict=True):
                if analysis is None:
                    failures.append(Failure(f"{source}, line {row.line}", row.error))
                    outcome = RowResult(row.label, BAD_ROW, row.error)
                else:
                    outcome = RowResult(row.label, coefficients=row.coefficients, analysis=analysis)
                origin = {} if writer is None else _origin(written)
                file.write(json.dumps(outcome.to_dict() | {"answer": answer} | origin, ensure_ascii=False) + "\n")
            total += len(block)
        if writer is not None:
            _write_record(Path(target).with_suffix(f".{WRITER_RECORD}"), writer)
    return total, failures


def describe_dataset(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    emotion: bool = True,
    writer: LanguageModelWriter | None = None,
) -> tuple[int, list[Failure]]:
    """Describe a dataset saved with ``save_to_disk``; the new folder has the same rows and splits.

    Consent list and recipe are copied. Columns added or replaced: ``answer`` (the canonical text), ``analysis`` (its
    JSON), both null in an invalid row, ``status`` (``ok`` or ``bad_row``) and ``reason``; with a writer also
    ``writer``, ``attempts`` and ``fallback``, and a file ``writer.json``.

    Args:
        source: the folder.
        target: the new folder.
        emotion: whether to include an emotional implication; ignored with a writer, whose settings decide.
        writer: the language model that writes the analyses; by default rules do.

    Returns:
        The number of rows, and the invalid ones.

    Raises:
        DatasetError: the source is not such a folder or has no ``coefficients``, or the target exists.
        ServerError: as ``describe_table``.
        SemanticFaceError: the target cannot be written.
    """
    import datasets

    _check_new(target)
    loaded, splits = _splits(source)
    columns = ("answer", "analysis", "status", "reason", *(("writer", "attempts", "fallback") if writer else ()))
    made = {}
    failures: list[Failure] = []
    total = 0
    # Otherwise map would leave its cache in the source folder.
    caching, bars = datasets.is_caching_enabled(), datasets.are_progress_bars_disabled()
    datasets.disable_caching()
    datasets.disable_progress_bars()  # there is one for all splits
    try:
        rows = sum(len(split) for _, split, _ in splits)
        with tqdm(total=rows, unit=" rows", desc="describing") as bar:
            for name, split, location in splits:
                old = [column for column in columns if column in split.column_names]
                # datasets cannot hash a writer with its connections.
                identity = None if writer is None else json.dumps([split._fingerprint, writer.record()])
                made[name] = split.remove_columns(old).map(
                    _columns,
                    batched=True,
                    batch_size=_BATCH_ROWS,
                    with_indices=True,
                    input_columns=["coefficients"],
                    fn_kwargs={
                        "emotion": emotion,
                        "location": location,
                        "failures": failures,
                        "writer": writer,
                        "bar": bar,
                    },
                    features=datasets.Features(
                        {key: value for key, value in split.features.items() if key not in old}
                        | {key: datasets.Value("int32" if key == "attempts" else "string") for key in columns}
                    ),
                    new_fingerprint=identity and hashlib.sha256(identity.encode()).hexdigest()[:16],
                )
                total += len(split)
        with atomic_path(target) as temporary:
            whole = datasets.DatasetDict(made) if isinstance(loaded, datasets.DatasetDict) else made[""]
            whole.save_to_disk(str(temporary))
            _copy_origin(Path(source), temporary, emotion)
            if writer is not None:
                _write_record(temporary / WRITER_RECORD, writer)
    finally:
        if caching:
            datasets.enable_caching()
        if not bars:
            datasets.enable_progress_bars()
    return total, failures


def _check_new(target: str | os.PathLike[str]) -> None:
    if Path(target).exists():
        raise DatasetError(f"{target} already exists. Choose a new folder, or remove this one first.")


def _splits(source: str | os.PathLike[str]) -> tuple[Any, list[tuple[str, Any, str]]]:
    """Return a loaded folder and its splits, each with its name (empty if there is only one) and its location."""
    import datasets

    try:
        loaded = datasets.load_from_disk(str(source))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{source}: not a dataset made by save_to_disk ({error}). Make it again.") from error
    splits = loaded if isinstance(loaded, datasets.DatasetDict) else {"": loaded}
    out = []
    for name, split in splits.items():
        location = f"{source}, {name + ', ' if name else ''}"
        if "coefficients" not in split.column_names:
            raise DatasetError(f"{location}columns {split.column_names}: there is no column coefficients. Add it.")
        out.append((name, split, location))
    return loaded, out


def _copy_origin(source: Path, target: Path, emotion: bool) -> None:
    """Copy consent list and recipe: the people stay the same, whatever the analyses."""
    from semanticface.data.consent import NAME as CONSENT

    for name in (CONSENT, RECIPE_NAME):
        if (source / name).is_file():
            (target / name).write_bytes((source / name).read_bytes())
    try:
        recipe = json.loads((target / RECIPE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    # Takes cannot be added to the copy; rendered people still need no consent.
    kind = recipe.get("kind")
    recipe |= {
        "kind": kind if kind == "faces" else "described",
        "described": {"dataset": str(source), "emotion": emotion},
    }
    (target / RECIPE_NAME).write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")


def _columns(
    coefficients: Sequence[Any],
    indices: Sequence[int],
    emotion: bool,
    location: str,
    failures: list[Failure],
    writer: LanguageModelWriter | None,
    bar: tqdm,
) -> dict[str, list[Any]]:
    vectors, reasons = [], []
    for index, values in zip(indices, coefficients, strict=True):
        vector, reason = _vector(values)
        if reason:
            failures.append(Failure(f"{location}row {index}", reason))
        vectors.append(vector)
        reasons.append(reason)
    described = list(_describe(vectors, emotion, writer, bar))
    out: dict[str, list[Any]] = {
        "answer": [answer for _, answer, _ in described],
        "analysis": [json.dumps(each.to_dict(), ensure_ascii=False) if each else None for each, _, _ in described],
        "status": [BAD_ROW if reason else "ok" for reason in reasons],
        "reason": list(reasons),
    }
    if writer is not None:
        origins = [_origin(written) for _, _, written in described]
        out |= {key: [origin[key] for origin in origins] for key in origins[0]}
    return out


def _origin(written: WrittenAnalysis | None) -> dict[str, Any]:
    if written is None:
        return {"writer": None, "attempts": None, "fallback": None}
    return {"writer": written.writer, "attempts": written.attempts, "fallback": written.fallback}


def _write_record(path: Path, writer: LanguageModelWriter) -> None:
    write_json(path, writer.record() | {"rows": writer.tally.to_dict()})


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


def _describe(
    vectors: Sequence[np.ndarray | None], emotion: bool, writer: LanguageModelWriter | None, bar: tqdm
) -> Iterator[tuple[Analysis | None, str | None, WrittenAnalysis | None]]:
    good = [vector for vector in vectors if vector is not None]
    if writer is None:
        found: Iterator[Any] = iter(describe_many(np.stack(good), emotion=emotion) if good else ())
    else:

        def advance() -> None:
            bar.set_postfix_str(writer.tally.short(), refresh=False)
            bar.update()

        found = iter(writer.write(good, advance))
        bar.update(len(vectors) - len(good))
    for vector in vectors:
        if vector is None:
            yield None, None, None
        elif writer is None:
            analysis = next(found)
            yield analysis, format_answer(vector, analysis), None
        else:
            written = next(found)
            yield written.analysis, format_answer(vector, written.analysis), written
    if writer is None:
        bar.update(len(vectors))
