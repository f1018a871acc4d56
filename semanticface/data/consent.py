"""What may be done with whose pictures: a list beside the dataset, in which every real person needs an entry.

``consent.yaml`` in the folder of the dataset::

    subjects:
      ann:
        reference: form signed on 2026-03-14, binder 7  # where the consent is to be found; or licence: CC-BY-4.0
        uses: [train, show]                             # any of train, evaluate, show, publish
        until: 2027-12-31                               # the last day, UTC; may be left out
      ben: false                                        # nothing; as if they were not listed
      cem: true                                         # may be shown to annotators, no more
      eve: {until: 2027-12-31}                          # may be shown up to that day

Who may be trained on may be measured on too. People whom ``data_prep/render_faces.py`` drew need no entry: they do not
exist.
"""

from __future__ import annotations

import datetime
import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import datasets
import yaml

from semanticface.data.faces import begun_recipe
from semanticface.errors import ConfigError

NAME = "consent.yaml"
_DRAWN = re.compile(r"face-\d{7}")  # render_set.subject_name

KIND = "captures"
LOOK = "capture"
"""What the column ``look`` says of real pictures."""
_NAMED = 5  # people named in an error

Use = Literal["train", "evaluate", "show", "publish"]
USES: tuple[Use, ...] = get_args(Use)
"""To learn from, to measure on, to show to annotators, to show to everybody."""


@dataclass(frozen=True, slots=True)
class Permission:
    """What one person agreed to.

    Attributes:
        uses: some of ``USES``.
        until: the last day, UTC; ``date.max`` where there is none.
        reference: where the consent is to be found, or the licence; empty in entries that only allow to show.
    """

    uses: frozenset[str]
    until: datetime.date = datetime.date.max
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Consent:
    """What may be done with whose pictures.

    Attributes:
        rendered: whether the dataset was drawn by this project.
        permissions: of each subject who agreed to anything, by ``plain_name``.
    """

    rendered: bool
    permissions: dict[str, Permission]

    @property
    def until(self) -> dict[str, datetime.date]:
        """The last day for each subject who agreed; ``date.max`` where there is none."""
        return {subject: permission.until for subject, permission in self.permissions.items()}

    def allows(self, subject: str, day: datetime.date | None = None, *, use: Use = "show") -> bool:
        """Return whether something may be done with a subject's pictures.

        Args:
            subject: as in the dataset.
            day: by default today, UTC.
            use: what is to be done.
        """
        return not self.refusal(subject, use, day)

    def refusal(self, subject: str, use: Use, day: datetime.date | None = None) -> str:
        """Return why something may not be done with a subject's pictures, in half a sentence; empty where it may."""
        if self.rendered and is_drawn(subject):
            return ""
        if not subject:
            return "some rows do not say who is in them"
        permission = self.permissions.get(plain_name(subject))
        if permission is None:
            return f"no consent of {subject}"
        if use not in permission.uses and not (use == "evaluate" and "train" in permission.uses):
            return f"{subject} agreed to {', '.join(sorted(permission.uses))}, not to {use}"
        if (day or datetime.datetime.now(datetime.UTC).date()) > permission.until:
            return f"the consent of {subject} ended on {permission.until}"
        return ""


def is_drawn(subject: str) -> bool:
    """Whether a name is one that ``data_prep/render_faces.py`` gives to the people it draws."""
    return _DRAWN.fullmatch(subject) is not None


def plain_name(name: str) -> str:
    """Return a person's name in one spelling: file systems write an accent as a letter of its own, people do not."""
    return unicodedata.normalize("NFC", name.strip())


def real_people(faces: datasets.Dataset, *, rendered: bool) -> set[str]:
    """Return who must have agreed to what is done with rows of a dataset; an empty name stands for rows without one.

    People whom this project drew are left out, also where their rows were put among those of others
    (``datasets.concatenate_datasets``): then their seed tells them.

    Args:
        faces: the rows.
        rendered: whether the whole dataset was drawn by this project (``Consent.rendered``).
    """
    seeds = faces["seed"] if "seed" in faces.column_names else [None] * len(faces)
    rows = zip(faces["subject"], seeds, strict=True)
    return {who or "" for who, seed in rows if not (who and is_drawn(who) and (rendered or seed is not None))}


def read_consent(dataset: str | Path) -> Consent:
    """Read who in a dataset agreed to what; nobody to anything where there is no list.

    Args:
        dataset: the folder of the dataset.

    Raises:
        ConfigError: the list cannot be read, or an entry is not of its form or is there twice.
    """
    folder = Path(dataset)
    path = folder / NAME
    rendered = begun_recipe(folder) is not None
    return Consent(rendered, read_list(path) if path.exists() else {})


def read_list(path: Path) -> dict[str, Permission]:
    """Read a list of its own, wherever it lies: what each subject agreed to.

    Raises:
        ConfigError: it is missing, cannot be read, or an entry is not of its form or is there twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Nobody is shown before it can.") from error
    try:
        value = yaml.load(text, _Strict)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}. Nobody is shown before it is.") from error
    if not isinstance(value, dict) or set(value) != {"subjects"} or not isinstance(value["subjects"] or {}, dict):
        raise ConfigError(f"{path} must hold `subjects:` with a line `name: true` for each, and nothing else.")
    permissions = {}
    for subject, entry in (value["subjects"] or {}).items():
        if not isinstance(subject, str):
            raise ConfigError(f"{path}: YAML reads the subject {subject} as no text. Put it in quotation marks.")
        who = plain_name(subject)
        if who in permissions:
            raise ConfigError(f"{path}: {who} is there twice, in two spellings that look alike. Remove one.")
        if (permission := _permission(entry, f"{path}, {subject}")) is not None:
            permissions[who] = permission
    return permissions


def example(subjects: Iterable[str]) -> str:
    """Return a complete list to be filled in for these subjects."""
    lines = ["subjects:"]
    for subject in subjects:
        lines += [
            f"  {json.dumps(subject, ensure_ascii=not subject.isprintable())}:",  # YAML ends lines at more than \n
            "    reference: form signed on 2026-03-14, binder 7  # where the consent is; or licence: CC-BY-4.0",
            f"    uses: [train, evaluate, show]  # what they agreed to, any of {', '.join(USES)}",
            "    until: 2027-12-31  # the last day; leave the line out where there is none",
        ]
    return "\n".join(lines) + "\n"


def _permission(entry: Any, at: str) -> Permission | None:
    if isinstance(entry, bool):
        return Permission(frozenset({"show"})) if entry else None
    known = {"reference", "licence", "uses", "until"}
    if not isinstance(entry, dict) or not entry or not set(entry) <= known:
        raise ConfigError(
            f"{at}: {entry!r} is not true, false, {{until: 2027-12-31}} or an entry of reference or licence, uses and "
            "until. Correct the entry."
        )
    # A datetime is a date too, to Python; only a plain day says what is meant in every time zone.
    until = entry.get("until", datetime.date.max)
    if type(until) is not datetime.date:
        raise ConfigError(f"{at}: until {until!r} is not true, false or a day such as 2027-12-31. Correct the entry.")
    if set(entry) == {"until"}:
        return Permission(frozenset({"show"}), until)
    uses, named = entry.get("uses"), [entry[key] for key in ("reference", "licence") if key in entry]
    if not isinstance(uses, list) or not uses or not all(use in USES for use in uses):
        raise ConfigError(f"{at}: uses must be a list of some of {', '.join(USES)}, not {uses!r}.")
    if not named or not all(isinstance(text, str) and text.strip() for text in named):
        raise ConfigError(f"{at}: say where the consent is to be found (reference:), or the licence (licence:).")
    return Permission(frozenset(uses), until, "; ".join(named))


class _Strict(yaml.SafeLoader):
    """YAML in which nothing is said twice: the later of two entries would silently overrule the other."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        out = super().construct_mapping(node, deep)
        if len(out) != len(node.value):
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"a name is there twice in the list that begins in line {line}")
        return out


def holds_captures(folder: Path) -> bool:
    """Return whether a folder is such a dataset."""
    return begun_recipe(folder, KIND) is not None


def require_consent(dataset: str | Path, faces: datasets.Dataset, use: Use) -> None:
    """Check that everybody in a dataset agreed to what is about to be done.

    Asked are captures, known by their recipe or the column ``look``, also copied, described anew or put together with
    others; and every dataset that has a list of who agreed to what. People whom this project drew are not.

    Args:
        dataset: its folder.
        faces: rows of it.
        use: what is about to be done.

    Raises:
        ConfigError: somebody did not, or not any more; the list of who did cannot be read.
    """
    folder = Path(dataset)
    captured = holds_captures(folder) or ("look" in faces.column_names and LOOK in faces.unique("look"))
    if not captured and not (folder / NAME).exists():
        return
    consent = read_consent(folder)
    people = sorted(real_people(faces, rendered=consent.rendered))
    refused = [why for subject in people if (why := consent.refusal(subject, use))]
    if refused:
        raise ConfigError(
            f"{folder / NAME}: {'; '.join(refused[:_NAMED])}{' …' if len(refused) > _NAMED else ''}. Ask them and "
            "write it there, or delete their faces with `semanticface forget SUBJECT`."
        )
