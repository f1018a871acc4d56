"""Import parts (takes, videos, groups of pictures) one by one, each whole or not at all.

Nobody is imported without consent, and each person is in one split; both are checked before any image is read. A part
that is already imported is skipped, so a stopped import resumes with the same call. A problem with one part is
reported; the others are still imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from semanticface.data.captures.dataset import CaptureSet, TakeRecord, split_of
from semanticface.data.captures.report import PAGE, write_index_page
from semanticface.data.consent import (
    NAME,
    Consent,
    Permission,
    Use,
    collection_of,
    consent_template,
    normalize_name,
    read_consent_file,
)
from semanticface.errors import ConfigError, SemanticFaceError
from semanticface.utils.files import atomic_open


class Part(Protocol):
    """What becomes one Arrow file of the dataset: a take, a video, or pictures of one person.

    ``key`` names its files; ``state`` changes with its content.
    """

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def state(self) -> int: ...


P = TypeVar("P", bound=Part)


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import did.

    Attributes:
        records: of the parts that were imported now or before.
        new: keys of those imported now.
        problems: a sentence for each part or archive that was left out as a whole.
        rows: of each split, over the whole dataset.
    """

    records: list[TakeRecord]
    new: set[str]
    problems: list[str]
    rows: dict[str, int]

    @property
    def left_out(self) -> bool:
        """Whether anything broken was left out, a part, a frame or a row."""
        return bool(self.problems) or any(record.left_out for record in self.records)


def import_each(
    captures: CaptureSet,
    parts: Sequence[P],
    import_part: Callable[[P, str], TakeRecord],
    splits: Mapping[str, float],
    *,
    consent: Path | None,
    assign: Mapping[str, str],
    problems: Sequence[str],
    log: Callable[[str], None],
    location: Callable[[P], str] | None = None,
) -> ImportResult:
    """Import the parts of people who agreed, then write index and report.

    Args:
        captures: the dataset.
        parts: to import.
        import_part: writes a part into a split.
        splits: share of each split.
        consent: the consent list; by default the dataset's own. It is copied into the dataset.
        assign: subjects to put into a given split.
        problems: already known.
        log: receives a line per part.
        location: what a refused part is called; None reports each refused person once, by the name of a part.
    """
    out = captures.folder
    subjects = sorted({part.subject for part in parts})
    permissions = adopt_consent(out, consent, subjects)
    split = assign_splits(captures, subjects, splits, assign)
    (out / PAGE).unlink(missing_ok=True)  # written last: while it is missing, something is unfinished
    for removed in captures.forget_empty():
        log(f"{removed.name}: {removed.subject} was forgotten; its page is deleted")
    for why in _expired(captures, permissions):
        log(f"{why}. Delete their faces: semanticface forget SUBJECT {out}")
    all_problems = list(problems)
    refused: set[str] = set()
    for part in parts:
        why = _refusal(location(part) if location else part.name, part.subject, split, permissions)
        if why and (location or part.subject not in refused):
            all_problems.append(why)
        if why:
            refused.add(part.subject)
    existing = {record.key: record for record in captures.records()}
    records: list[TakeRecord] = []
    new: set[str] = set()
    for part in parts:
        if part.subject in refused:
            continue
        record = existing.get(part.key)
        wanted = (part.subject, split[part.subject], part.state)
        if record is not None and (record.subject, record.split, record.film_bytes) == wanted:
            log(f"{part.name}: already imported, {record.kept:,} faces of {record.subject} in {record.split}")
        else:
            try:
                record = import_part(part, split[part.subject])
            except SemanticFaceError as error:
                all_problems.append(str(error))
                continue
            new.add(record.key)
            dropped = ", ".join(f"{count:,} {status}" for status, count in record.counts.items() if status != "kept")
            kept = f"{record.kept:,} faces of {record.subject} kept in {record.split}"
            log(f"{part.name}: {kept} (dropped: {dropped or 'none'})")
        records.append(record)
    rows = captures.write_index(list(splits))
    write_index_page(captures, all_problems)
    return ImportResult(records, new, all_problems, rows)


def adopt_consent(out: Path, consent: Path | None, subjects: Sequence[str]) -> dict[str, Permission]:
    """Read a consent list and copy it into the dataset, where later steps look for it.

    Args:
        out: folder of the dataset.
        consent: the list; by default the one in ``out``.
        subjects: who is to be imported, for the template in the error.

    Raises:
        ConfigError: there is no list (the message contains a template), it cannot be read, or it lacks somebody whom
            the list in ``out`` names.
    """
    kept = out / NAME
    path = consent or kept
    if not path.is_file():
        template = consent_template(dict.fromkeys(map(collection_of, subjects)) or ["ann"])
        raise ConfigError(
            f"{path}: there is no consent list, and nobody is imported without one. Write this into the file and "
            f"correct it:\n\n{template}"
        )
    permissions = read_consent_file(path)
    if consent is not None and not (kept.exists() and kept.samefile(consent)):
        missing = sorted(set(read_consent_file(kept)) - set(permissions)) if kept.exists() else []
        if missing:
            raise ConfigError(
                f"{consent} does not name {', '.join(missing)}, but {kept} does. Add them, or remove them there after "
                "`semanticface forget` has deleted them."
            )
        with atomic_open(kept, "wb") as file:
            file.write(consent.read_bytes())
    return permissions


def assign_splits(
    captures: CaptureSet, subjects: Sequence[str], splits: Mapping[str, float], assign: Mapping[str, str]
) -> dict[str, str]:
    """Return the split of each subject; people who are already in the dataset stay where they are.

    Raises:
        ConfigError: ``assign`` names an unknown split, or would move somebody.
    """
    current = {record.subject: record.split for record in captures.records()}
    for subject, split in assign.items():
        if split not in splits:
            raise ConfigError(f"there is no split {split!r}; the splits are {', '.join(splits)}.")
        if current.get(subject, split) != split:
            raise ConfigError(
                f"{subject} is already in the split {current[subject]}, and nobody may be in two. Leave them there, or "
                f"delete them first: semanticface forget {subject} {captures.folder}"
            )
    return {who: current.get(who) or assign.get(who) or split_of(who, splits) for who in subjects}


def _refusal(what: str, subject: str, splits: Mapping[str, str], permissions: dict[str, Permission]) -> str:
    """Return why a part may not be imported, in a sentence; empty if it may."""
    listed = subject if normalize_name(subject) in permissions else collection_of(subject)
    why = Consent(False, permissions).refusal(listed, _use(splits[subject]))
    if not why:
        return ""
    missing = f" Add an entry:\n\n{consent_template([collection_of(subject)])}" if subject not in permissions else ""
    return f"{what}: left out of {splits[subject]}: {why}.{missing}"


def _expired(captures: CaptureSet, permissions: dict[str, Permission]) -> list[str]:
    """Return a reason for each person in the dataset without a valid consent."""
    consent = Consent(False, permissions)
    subjects = {record.subject: record.split for record in captures.records()}
    found = (consent.refusal(subject, _use(split)) for subject, split in sorted(subjects.items()))
    return [why for why in found if why]


def _use(split: str) -> Use:
    return "train" if split == "train" else "evaluate"
