"""Import Live Link Face takes into a dataset of faces."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from semanticface.data.captures.admission import ImportResult, import_each
from semanticface.data.captures.dataset import CaptureSet, TakeRecord
from semanticface.data.captures.files import TakeFiles, find_takes
from semanticface.data.captures.pairing import read_rows
from semanticface.data.captures.take import (
    Calibrate,
    ImportSettings,
    TakeToImport,
    estimate_rest,
    import_take,
    subtract_rest,
)
from semanticface.data.consent import normalize_name
from semanticface.errors import SemanticFaceError
from semanticface.utils.lock import exclusive


def import_takes(
    paths: Sequence[Path],
    out: Path,
    settings: ImportSettings,
    *,
    consent: Path | None = None,
    subject: str | None = None,
    assign: Mapping[str, str] | None = None,
    log: Callable[[str], None] = print,
) -> ImportResult:
    """Import takes into a dataset, new or started by this function with the same settings.

    Args:
        paths: CSVs, folders of any depth, or ZIPs of takes.
        out: folder of the dataset.
        settings: which rows to write.
        consent: the consent list (``data.consent``); by default the one in ``out``. It is copied there.
        subject: who is recorded in all of these takes; by default as the app has it.
        assign: subjects to put into a given split, whatever the hash says.
        log: receives a line per take.

    Raises:
        ConfigError: there is no consent list (the message contains a template), or it cannot be read.
        DatasetError: ``out`` holds something else or was started with other settings.
        SemanticFaceError: nothing can be written. Finished takes stay, and the same call resumes.
    """
    with exclusive(out):
        captures = CaptureSet(out, dataclasses.asdict(settings))
        try:
            takes, problems = _read_takes(paths, captures.scratch, subject, settings.calibrate)
            rests: dict[str, tuple[np.ndarray, np.ndarray]] = {}

            def import_one(take: TakeToImport, split: str) -> TakeRecord:
                if take.subject not in rests:
                    theirs = [other for other in takes if other.subject == take.subject]
                    rests[take.subject] = _rest(theirs, settings.calibrate)
                offset, rest = rests[take.subject]
                values = subtract_rest(take.rows.coefficients, offset)
                return import_take(captures, take, split, settings, values, rest)

            return import_each(
                captures,
                takes,
                import_one,
                settings.splits,
                consent=consent,
                assign=assign or {},
                problems=problems,
                log=log,
                location=lambda take: str(take.files.table),
            )
        finally:
            captures.clear_scratch()


def _read_takes(
    paths: Sequence[Path], scratch: Path, subject: str | None, calibrate: Calibrate
) -> tuple[list[TakeToImport], list[str]]:
    """Read every table; return the usable takes, each once, and the problems with the others."""
    takes: dict[str, TakeToImport] = {}
    problems: list[str] = []
    for path in paths:
        found, wrong = find_takes(path, scratch)
        problems += wrong
        for files in found:
            try:
                take = _read_take(files, scratch, subject, calibrate)
                takes.setdefault(take.key, take)
            except SemanticFaceError as error:
                problems.append(str(error))
    return list(takes.values()), problems


def _read_take(files: TakeFiles, scratch: Path, subject: str | None, calibrate: Calibrate) -> TakeToImport:
    who = normalize_name(subject or files.subject)
    if not who:
        raise SemanticFaceError(f"{files.table}: the subject is unknown. Name it: --subject NAME")
    if files.video is None:
        raise SemanticFaceError(f"{files.table}: its video is missing. Copy the whole folder of the take.")
    table = files.table if calibrate == "app" or files.raw is None else files.raw
    with table.on_disk(scratch) as path:
        rows = read_rows(path, str(table))
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    neutral = None
    if files.neutral is not None and calibrate == "rest":
        with files.neutral.on_disk(scratch) as path:
            neutral = np.median(read_rows(path, str(files.neutral)).coefficients, axis=0)
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", files.name).strip("-")[:60] or "take"
    return TakeToImport(files, f"{slug}-{digest[:8]}", who, rows, neutral)


def _rest(takes: Sequence[TakeToImport], calibrate: Calibrate) -> tuple[np.ndarray, np.ndarray]:
    """Return what to subtract from a person's coefficients, float32[52], and their rest after that."""
    recorded = np.concatenate([take.rows.coefficients for take in takes])  # [N, 52]
    offset = np.zeros(recorded.shape[1], np.float32)
    if calibrate == "rest":
        known = [take.neutral for take in takes if take.neutral is not None]
        offset = np.mean(known, axis=0).astype(np.float32) if known else estimate_rest(recorded)
    return offset, estimate_rest(subtract_rest(recorded, offset))
