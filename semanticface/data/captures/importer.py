"""Live Link Face takes to a dataset of faces: read, pair, thin, find, crop, write; take by take, and on after a stop.

A take whose rows are there already is not done again. What is wrong with a take, a frame or a row is said with its
place; the others go on.

Who may be imported, and into which split: the list of who agreed to what, looked at before any picture is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semanticface.data.captures.dataset import CaptureSet, TakeRecord, split_of
from semanticface.data.captures.files import TakeFiles, find_takes
from semanticface.data.captures.pairing import read_rows
from semanticface.data.captures.report import PAGE, write_index_page
from semanticface.data.captures.take import Calibrate, ImportSettings, TakeToImport, calibrated, import_take, rest_of
from semanticface.data.consent import NAME, Consent, Permission, Use, example, plain_name, read_list
from semanticface.errors import ConfigError, SemanticFaceError
from semanticface.utils.files import atomic_open


def take_consent(out: Path, consent: Path | None, subjects: Sequence[str]) -> dict[str, Permission]:
    """Read the list of who agreed to what, and put it where later steps look for it.

    Args:
        out: the folder of the dataset.
        consent: the list; by default the one in ``out``.
        subjects: who is to be imported, for the example in the error.

    Raises:
        ConfigError: there is none, with one to be filled in; it cannot be read; or it leaves out somebody whom the one
            in ``out`` has.
    """
    kept = out / NAME
    path = consent or kept
    if not path.is_file():
        shown = example(subjects or ["ann"])
        raise ConfigError(
            f"{path}: no list of who agreed to what, and nobody is imported without one. Write this into it, with what "
            f"is true in place of what stands here:\n\n{shown}"
        )
    permissions = read_list(path)
    if consent is not None and not (kept.exists() and kept.samefile(consent)):
        lost = sorted(set(read_list(kept)) - set(permissions)) if kept.exists() else []
        if lost:
            raise ConfigError(
                f"{consent} does not name {', '.join(lost)}, of whom {kept} speaks. Add them, or take them out there "
                "once `semanticface forget` has deleted them."
            )
        with atomic_open(kept, "wb") as file:
            file.write(consent.read_bytes())
    return permissions


def splits_for(
    captures: CaptureSet, subjects: set[str], splits: Mapping[str, float], assign: Mapping[str, str]
) -> dict[str, str]:
    """Return the split of each subject; a person who is there already stays where they are.

    Raises:
        ConfigError: ``assign`` names a split that is not there, or would move somebody.
    """
    there = {record.subject: record.split for record in captures.records()}
    for who, split in assign.items():
        if split not in splits:
            raise ConfigError(f"no split is called {split!r}; the splits are {', '.join(splits)}.")
        if there.get(who, split) != split:
            raise ConfigError(
                f"{who} is in the split {there[who]} already. Nobody may be in two: leave them there, or delete them "
                f"first: semanticface forget {who} {captures.folder}"
            )
    return {who: there.get(who) or assign.get(who) or split_of(who, splits) for who in subjects}


def refusal(what: str, subject: str, splits: Mapping[str, str], permissions: dict[str, Permission]) -> str:
    """Return why something of a person may not be imported, in a sentence; empty where it may.

    Args:
        what: the thing, for the sentence.
        subject: who is in it.
        splits: of each person; only ``train`` is learnt from.
        permissions: of each person.
    """
    split = splits[subject]
    why = Consent(False, permissions).refusal(subject, _use(split))
    if not why:
        return ""
    missing = f" Add an entry:\n\n{example([subject])}" if subject not in permissions else ""
    return f"{what}: left out of {split}: {why}.{missing}"


def ended(captures: CaptureSet, permissions: dict[str, Permission]) -> list[str]:
    """Say whose faces are in the dataset without a consent that still holds."""
    consent = Consent(False, permissions)
    there = {record.subject: record.split for record in captures.records()}
    found = (consent.refusal(who, _use(split)) for who, split in sorted(there.items()))
    return [why for why in found if why]


def _use(split: str) -> Use:
    return "train" if split == "train" else "evaluate"


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did.

    Attributes:
        records: the takes it brought in, and those that were there already.
        fresh: keys of the former.
        problems: a sentence for each take or archive that was left out as a whole.
        rows: of each split, all takes of the dataset.
    """

    records: list[TakeRecord]
    fresh: set[str]
    problems: list[str]
    rows: dict[str, int]

    @property
    def left_out(self) -> bool:
        """Whether anything broken was left out, a take, a frame or a row."""
        return bool(self.problems) or any(record.left_out for record in self.records)


def import_takes(
    paths: Sequence[Path],
    out: Path,
    settings: ImportSettings,
    *,
    consent: Path | None = None,
    subject: str | None = None,
    assign: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> Imported:
    """Bring takes into a dataset, new or begun by this function with the same settings.

    Args:
        paths: takes: CSVs, folders of any depth, ZIPs.
        out: the folder of the dataset.
        settings: what decides its rows.
        consent: the list of who agreed to what (``preference.consent``); by default the one in ``out``. It is copied
            there.
        subject: who is recorded in all of these takes; by default as the app has it.
        assign: subjects to put into a split by name, whatever the hash says.
        say: is told a line for each take.

    Raises:
        ConfigError: no consent list, or one that cannot be read; it shows one to be filled in.
        DatasetError: ``out`` holds something else or was begun with other settings.
        SemanticFaceError: the system refuses to write. What was there stays, and the same call goes on.
    """
    captures = CaptureSet(out, dataclasses.asdict(settings))
    try:
        return _import(captures, paths, settings, consent, subject, assign or {}, say)
    finally:
        captures.clear_scratch()


def _import(
    captures: CaptureSet,
    paths: Sequence[Path],
    settings: ImportSettings,
    consent: Path | None,
    subject: str | None,
    assign: Mapping[str, str],
    say: Callable[[str], None],
) -> Imported:
    out = captures.folder
    reads, problems = _read_all(paths, captures.scratch, subject, settings.calibrate)
    permissions = take_consent(out, consent, sorted({read.subject for read in reads}))
    splits = splits_for(captures, {read.subject for read in reads}, settings.splits, assign)
    (out / PAGE).unlink(missing_ok=True)  # written last: without it something is not finished
    for gone in captures.forget_empty():
        say(f"{gone.name}: {gone.subject} was forgotten; its page is deleted")
    for why in ended(captures, permissions):
        say(f"{why}. Delete their faces: semanticface forget SUBJECT {out}")
    refused = {read.key: refusal(str(read.files.table), read.subject, splits, permissions) for read in reads}
    reads = [read for read in reads if not refused[read.key]]
    problems += filter(None, refused.values())
    rests = _rests(reads, settings)
    there = {record.key: record for record in captures.records()}
    records: list[TakeRecord] = []
    fresh: set[str] = set()
    for read in reads:
        record = there.get(read.key)
        film = read.files.film
        wanted = (read.subject, splits[read.subject], film.size if film else 0)
        if record is not None and (record.subject, record.split, record.film_bytes) == wanted:
            say(f"{read.files.name}: there already, {record.kept:,} faces of {record.subject} in {record.split}")
        else:
            try:
                off, rest = rests[read.subject]
                values = calibrated(read.rows.coefficients, off)
                record = import_take(captures, read, splits[read.subject], settings, values, rest)
            except SemanticFaceError as error:
                problems.append(str(error))
                continue
            fresh.add(record.key)
            say(f"{record.name}: {_told(record)}")
        if record.key not in {other.key for other in records}:
            records.append(record)
    rows = captures.write_index(list(settings.splits))
    write_index_page(captures, problems)
    return Imported(records, fresh, problems, rows)


# --- before the pictures ------------------------------------------------------------------------------------------


def _read_all(
    paths: Sequence[Path], scratch: Path, subject: str | None, calibrate: Calibrate
) -> tuple[list[TakeToImport], list[str]]:
    """Read every table; return those that can be used, each once, and what is wrong with the others."""
    reads: dict[str, TakeToImport] = {}
    problems: list[str] = []
    for path in paths:
        takes, wrong = find_takes(path, scratch)
        problems += wrong
        for files in takes:
            try:
                read = _read(files, scratch, subject, calibrate)
                reads.setdefault(read.key, read)
            except SemanticFaceError as error:
                problems.append(str(error))
    return list(reads.values()), problems


def _read(files: TakeFiles, scratch: Path, subject: str | None, calibrate: Calibrate) -> TakeToImport:
    who = plain_name(subject or files.subject)
    if not who:
        raise SemanticFaceError(f"{files.table}: does not say who is recorded. Say it: --subject NAME")
    if files.film is None:
        raise SemanticFaceError(f"{files.table}: no video beside it. Copy the whole folder of the take.")
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


def _rests(reads: Sequence[TakeToImport], settings: ImportSettings) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return what to take off the numbers of each subject, float32[52], and what then is their rest."""
    out = {}
    for subject in {read.subject for read in reads}:
        theirs = [read for read in reads if read.subject == subject]
        recorded = np.concatenate([read.rows.coefficients for read in theirs])
        off = np.zeros(recorded.shape[1], np.float32)
        if settings.calibrate == "rest":
            known = [read.neutral for read in theirs if read.neutral is not None]
            off = np.mean(known, axis=0).astype(np.float32) if known else rest_of(recorded)
        out[subject] = off, rest_of(calibrated(recorded, off))
    return out


def _told(record: TakeRecord) -> str:
    """Say what became of a take."""
    dropped = ", ".join(f"{count:,} {fate}" for fate, count in record.counts.items() if fate != "kept")
    return f"{record.kept:,} faces of {record.subject} kept in {record.split} (left: {dropped or 'nothing'})"
