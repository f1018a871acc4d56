"""Who may be imported, and into which split: the list of who agreed to what, looked at before any picture is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from semanticface.data.captures.dataset import CaptureSet, split_of
from semanticface.data.consent import NAME, Consent, Permission, Use, example, read_list
from semanticface.errors import ConfigError
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
