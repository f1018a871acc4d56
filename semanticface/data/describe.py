"""Stage I for a whole table or dataset: each row of coefficients gets its explanation and its answer.

Rows keep their order. A row that cannot be described stays in its place without analysis and answer, with ``status``
and ``reason`` saying why. The words come from rules, or from a language model (``stage1``); then each row also says in
``writer`` whose words it has, in ``attempts`` how often the model was asked, and in ``fallback`` why rules stand in.
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
from semanticface.utils.files import atomic_open, atomic_path, write_json
from semanticface.utils.progress import tqdm

if TYPE_CHECKING:
    from semanticface.llm.analysis_writer import LanguageModelWriter, WrittenAnalysis

_AT_ONCE = 1024
BAD_ROW = "bad_row"
"""The status of a row that could not be described."""
WRITER_RECORD = "writer.json"
"""In a dataset folder, or behind a table's name in place of ``.jsonl``: how a model was asked, and what came of it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A row without a description: where it is (file and line, or split and row) and what is wrong with it."""

    where: str
    reason: str


def check_places(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Raise what ``describe_table`` or ``describe_dataset`` would of where they read and write, before anything else.

    Raises:
        TableError, DatasetError, SemanticFaceError: as these say.
    """
    if Path(source).is_dir():
        _check_new(target)
        return
    if Path(target).suffix.lower() != ".jsonl":
        raise SemanticFaceError(f"{target}: answers are written as JSONL. End its name in .jsonl.")
    if not Path(source).exists():
        raise TableError(f"{source}: no such file or folder. Check the path.")


def describe_table(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    emotion: bool = True,
    writer: LanguageModelWriter | None = None,
) -> tuple[int, list[Failure]]:
    """Describe a table of coefficients (``tables.read_coefficients``) into a JSONL file, one object a row.

    An object has ``image``, ``status``, ``reason`` (of a failed row), ``coefficients``, ``analysis`` and ``answer``,
    the canonical text; with a writer also ``writer``, ``attempts`` and ``fallback``.

    Args:
        source: the table.
        target: the JSONL file.
        emotion: whether to say what a face suggests; with a writer, its settings decide.
        writer: the language model that finds the words; by default rules do.

    Returns:
        The number of rows, and the failed ones.

    Raises:
        TableError: the source is not such a table.
        ServerError: the writer's server answers no more; nothing is written, but its cache keeps what it said.
        SemanticFaceError: the target does not end in ``.jsonl``, or the operating system refused to write.
    """
    check_places(source, target)
    rows = read_coefficients(source)
    failures: list[Failure] = []
    total = 0
    # backslashreplace: names that are not Unicode must not stop the table.
    with atomic_open(target, errors="backslashreplace") as file, tqdm(unit=" rows", desc="describing") as bar:
        while block := list(islice(rows, _AT_ONCE)):
            described = _described([row.coefficients for row in block], emotion, writer, bar)
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

    The list of who agreed to what and the recipe go with them.

    Columns added, or replaced where they exist: ``answer`` (the canonical text), ``analysis`` (its JSON), both null in
    a failed row, ``status`` (``ok`` or ``bad_row``) and ``reason``; with a writer also ``writer``, ``attempts`` and
    ``fallback``, and a file ``writer.json``.

    Args:
        source: the folder.
        target: the new folder.
        emotion: whether to say what a face suggests; with a writer, its settings decide.
        writer: the language model that finds the words; by default rules do.

    Returns:
        The number of rows, and the failed ones.

    Raises:
        DatasetError: the source is no such folder, or has no ``coefficients``; or the target exists.
        ServerError: as ``describe_table``.
        SemanticFaceError: the operating system refused to write.
    """
    import datasets

    _check_new(target)
    loaded, splits = _splits(source)
    columns = ("answer", "analysis", "status", "reason", *(("writer", "attempts", "fallback") if writer else ()))
    made = {}
    failures: list[Failure] = []
    total = 0
    # The map's cache would otherwise be left inside the source folder.
    caching, bars = datasets.is_caching_enabled(), datasets.are_progress_bars_disabled()
    datasets.disable_caching()
    datasets.disable_progress_bars()  # there is one for all splits
    try:
        rows = sum(len(split) for _, split, _ in splits)
        with tqdm(total=rows, unit=" rows", desc="describing") as bar:
            for name, split, place in splits:
                old = [column for column in columns if column in split.column_names]
                # A writer, with its connections, cannot be hashed.
                told = None if writer is None else json.dumps([split._fingerprint, writer.record()])
                made[name] = split.remove_columns(old).map(
                    _columns,
                    batched=True,
                    batch_size=_AT_ONCE,
                    with_indices=True,
                    input_columns=["coefficients"],
                    fn_kwargs={"emotion": emotion, "place": place, "failures": failures, "writer": writer, "bar": bar},
                    features=datasets.Features(
                        {key: value for key, value in split.features.items() if key not in old}
                        | {key: datasets.Value("int32" if key == "attempts" else "string") for key in columns}
                    ),
                    new_fingerprint=told and hashlib.sha256(told.encode()).hexdigest()[:16],
                )
                total += len(split)
        with atomic_path(target) as temporary:
            whole = datasets.DatasetDict(made) if isinstance(loaded, datasets.DatasetDict) else made[""]
            whole.save_to_disk(str(temporary))
            _keep_origin(Path(source), temporary, emotion)
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
        raise DatasetError(f"{target} exists already. Choose a new folder, or remove this one first.")


def _splits(source: str | os.PathLike[str]) -> tuple[Any, list[tuple[str, Any, str]]]:
    """Return a loaded folder and its splits, each with its name (empty where there is but one) and how errors call it.

    Raises:
        DatasetError: no such folder, or a split has no ``coefficients``.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(str(source))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{source}: no dataset made by save_to_disk ({error}). Make it again.") from error
    splits = loaded if isinstance(loaded, datasets.DatasetDict) else {"": loaded}
    out = []
    for name, split in splits.items():
        place = f"{source}, {name + ', ' if name else ''}"
        if "coefficients" not in split.column_names:
            raise DatasetError(f"{place}columns {split.column_names}: there is no column coefficients. Add it.")
        out.append((name, split, place))
    return loaded, out


def _keep_origin(source: Path, target: Path, emotion: bool) -> None:
    """Copy who agreed to what, and how the rows were made: with other words, people are still the same people."""
    from semanticface.data.consent import NAME as CONSENT

    for name in (CONSENT, RECIPE_NAME):
        if (source / name).is_file():
            (target / name).write_bytes((source / name).read_bytes())
    try:
        recipe = json.loads((target / RECIPE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    # Not a folder that takes can be put into any more; rendered people are still nobody who could be asked.
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
    place: str,
    failures: list[Failure],
    writer: LanguageModelWriter | None,
    bar: tqdm,
) -> dict[str, list[Any]]:
    vectors, reasons = [], []
    for index, values in zip(indices, coefficients, strict=True):
        vector, reason = _vector(values)
        if reason:
            failures.append(Failure(f"{place}row {index}", reason))
        vectors.append(vector)
        reasons.append(reason)
    described = list(_described(vectors, emotion, writer, bar))
    out: dict[str, list[Any]] = {
        "answer": [answer for _, answer, _ in described],
        "analysis": [json.dumps(words.to_dict(), ensure_ascii=False) if words else None for words, _, _ in described],
        "status": [BAD_ROW if reason else "ok" for reason in reasons],
        "reason": list(reasons),
    }
    if writer is not None:
        origins = [_origin(written) for _, _, written in described]
        out |= {key: [origin[key] for origin in origins] for key in origins[0]}
    return out


def _origin(written: WrittenAnalysis | None) -> dict[str, Any]:
    """Return what a row says of who wrote it."""
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


def _described(
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
