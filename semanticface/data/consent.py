"""Consent: which uses of their pictures people agreed to, in a list next to the dataset.

``consent.yaml`` in the folder of the dataset, with an entry for every real person::

    subjects:
      ann:
        reference: form signed on 2026-03-14, binder 7  # where to find the consent; or licence: CC-BY-4.0
        uses: [train, show]                             # any of train, evaluate, show, publish
        until: 2027-12-31                               # the last day, UTC; optional
      ben: false                                        # no use; same as no entry, but for unnamed people
      cem: true                                         # show only
      eve: {until: 2027-12-31}                          # show only, up to that day
      portraits:                                        # unnamed people of a collection (portraits#3-0042)
        licence: public domain
        uses: [train, show]
      portraits#3-0042: false                           # but not this one of them

``train`` includes ``evaluate``. People rendered by ``data_prep/render_faces.py`` need no entry: they do not exist.
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

from semanticface.data.faces import recipe_of_kind
from semanticface.errors import ConfigError

NAME = "consent.yaml"
_RENDERED = re.compile(r"face-\d{7}")  # rendered.subject_name

KIND = "captures"
LOOK = "capture"
"""Value of the column ``look`` for real pictures."""
_UNNAMED = re.compile(r"(.+)#\d-\d{4,}")
_GROUP = re.compile(r"(.+)#\d")  # of unnamed people, as imports handle them
_MAX_NAMED = 5  # people in an error message

Use = Literal["train", "evaluate", "show", "publish"]
USES: tuple[Use, ...] = get_args(Use)
"""Training, evaluation, showing to annotators, showing to everybody."""


@dataclass(frozen=True, slots=True)
class Permission:
    """What one person agreed to.

    Attributes:
        uses: some of ``USES``.
        until: the last day, UTC; ``date.max`` for no limit.
        reference: where to find the consent, or the licence; empty in entries that only allow ``show``.
    """

    uses: frozenset[str]
    until: datetime.date = datetime.date.max
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Consent:
    """The permissions for a dataset.

    Attributes:
        rendered: whether the whole dataset was rendered by this project.
        permissions: of each subject listed, by ``normalize_name``; without uses for an entry of ``false``.
    """

    rendered: bool
    permissions: dict[str, Permission]

    @property
    def until(self) -> dict[str, datetime.date]:
        """The last day for each subject who agreed; ``date.max`` for no limit."""
        return {subject: permission.until for subject, permission in self.permissions.items() if permission.uses}

    def allows(self, subject: str, day: datetime.date | None = None, *, use: Use = "show") -> bool:
        """Return whether a use of a subject's pictures is allowed on a day, by default today, UTC."""
        return not self.refusal(subject, use, day)

    def refusal(self, subject: str, use: Use, day: datetime.date | None = None) -> str:
        """Return why a use of a subject's pictures is not allowed, in half a sentence; empty if it is."""
        if self.rendered and is_rendered(subject):
            return ""
        if not subject:
            return "some rows do not say who is in them"
        unnamed = _UNNAMED.fullmatch(subject)
        names = [subject] if unnamed is None else [subject, unnamed[1]]
        listed = [found for name in names if (found := self.permissions.get(normalize_name(name))) is not None]
        permission = listed[0] if listed else None
        if permission is None or not permission.uses:
            return f"no consent of {subject}"
        if use not in permission.uses and not (use == "evaluate" and "train" in permission.uses):
            return f"{subject} agreed to {', '.join(sorted(permission.uses))}, not to {use}"
        if (day or datetime.datetime.now(datetime.UTC).date()) > permission.until:
            return f"the consent of {subject} ended on {permission.until}"
        return ""


def is_rendered(subject: str) -> bool:
    """Return whether a name is one that ``data_prep/render_faces.py`` gives to people."""
    return _RENDERED.fullmatch(subject) is not None


def collection_of(subject: str) -> str:
    """Return the collection of an unnamed person, or of a group of them: ``portraits`` of ``portraits#3-0042``.

    The name of anybody else is returned as it is.
    """
    found = _UNNAMED.fullmatch(subject) or _GROUP.fullmatch(subject)
    return subject if found is None else found[1]


def normalize_name(name: str) -> str:
    """Return a person's name in NFC: some file systems store an accent as a character of its own."""
    return unicodedata.normalize("NFC", name.strip())


def real_people(faces: datasets.Dataset, *, rendered: bool) -> set[str]:
    """Return the people whose consent the rows need; an empty name stands for rows that name nobody.

    Rendered people are left out. If their rows are mixed with others (``datasets.concatenate_datasets``), the column
    ``seed`` identifies them.

    Args:
        faces: the rows.
        rendered: whether the whole dataset was rendered (``Consent.rendered``).
    """
    seeds = faces["seed"] if "seed" in faces.column_names else [None] * len(faces)
    rows = zip(faces["subject"], seeds, strict=True)
    return {who or "" for who, seed in rows if not (who and is_rendered(who) and (rendered or seed is not None))}


def read_consent(dataset: str | Path) -> Consent:
    """Read the consent list in a dataset's folder; without a list nobody agreed to anything.

    Raises:
        ConfigError: the list cannot be read, or an entry is malformed or duplicate.
    """
    folder = Path(dataset)
    path = folder / NAME
    rendered = recipe_of_kind(folder) is not None
    return Consent(rendered, read_consent_file(path) if path.exists() else {})


def read_consent_file(path: Path) -> dict[str, Permission]:
    """Read a consent list: what each subject agreed to.

    Raises:
        ConfigError: the file is missing or cannot be read, or an entry is malformed or duplicate.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Nothing is allowed until it can.") from error
    try:
        value = yaml.load(text, _Strict)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}. Nothing is allowed until it is.") from error
    if not isinstance(value, dict) or set(value) != {"subjects"} or not isinstance(value["subjects"] or {}, dict):
        raise ConfigError(f"{path} must contain `subjects:` with entries such as `name: true`, and nothing else.")
    permissions: dict[str, Permission] = {}
    for subject, entry in (value["subjects"] or {}).items():
        if not isinstance(subject, str):
            raise ConfigError(f"{path}: YAML does not read the subject {subject} as text. Quote it.")
        who = normalize_name(subject)
        if who in permissions:
            raise ConfigError(f"{path}: {who} appears twice, in two spellings that look alike. Remove one.")
        permissions[who] = _permission(entry, f"{path}, {subject}")
    return permissions


def consent_template(subjects: Iterable[str]) -> str:
    """Return a consent list to fill in for these subjects."""
    lines = ["subjects:"]
    for subject in subjects:
        lines += [
            f"  {json.dumps(subject, ensure_ascii=not subject.isprintable())}:",  # YAML ends lines at more than \n
            "    reference: form signed on 2026-03-14, binder 7  # where the consent is; or licence: own drawing",
            f"    uses: [train, evaluate, show]  # what they agreed to, any of {', '.join(USES)}",
            "    until: 2027-12-31  # the last day; remove the line if there is none",
        ]
    return "\n".join(lines) + "\n"


def _permission(entry: Any, at: str) -> Permission:
    if isinstance(entry, bool):
        return Permission(frozenset({"show"} if entry else ()))
    known = {"reference", "licence", "uses", "until"}
    if not isinstance(entry, dict) or not entry or not set(entry) <= known:
        raise ConfigError(
            f"{at}: {entry!r} is not true, false, {{until: 2027-12-31}} or an entry of reference or licence, uses and "
            "until. Correct the entry."
        )
    # A datetime is a date to Python too; only a plain day means the same in every time zone.
    until = entry.get("until", datetime.date.max)
    if type(until) is not datetime.date:
        raise ConfigError(f"{at}: until {until!r} is not true, false or a day such as 2027-12-31. Correct the entry.")
    if set(entry) == {"until"}:
        return Permission(frozenset({"show"}), until)
    uses, named = entry.get("uses"), [entry[key] for key in ("reference", "licence") if key in entry]
    if not isinstance(uses, list) or not uses or not all(use in USES for use in uses):
        raise ConfigError(f"{at}: uses must be a list of some of {', '.join(USES)}, not {uses!r}.")
    if not named or not all(isinstance(text, str) and text.strip() for text in named):
        raise ConfigError(f"{at}: say where to find the consent (reference:), or the licence (licence:).")
    return Permission(frozenset(uses), until, "; ".join(named))


class _Strict(yaml.SafeLoader):
    """YAML without duplicate keys: the later of two entries would silently replace the other."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        out = super().construct_mapping(node, deep)
        if len(out) != len(node.value):
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"a name appears twice in the list that begins in line {line}")
        return out


def is_capture_dataset(folder: Path) -> bool:
    """Return whether takes or pictures were imported into a folder."""
    return recipe_of_kind(folder, KIND) is not None


def require_consent(dataset: str | Path, faces: datasets.Dataset, use: Use) -> None:
    """Check that everybody in a dataset agreed to a use.

    This applies to captures, recognised by their recipe or by the column ``look`` (so copies and concatenations too),
    and to every dataset with a consent list; never to rendered people.

    Args:
        dataset: its folder.
        faces: rows of it.
        use: what the caller is about to do.

    Raises:
        ConfigError: somebody did not agree, or no longer does, or the list cannot be read.
    """
    folder = Path(dataset)
    captured = is_capture_dataset(folder) or ("look" in faces.column_names and LOOK in faces.unique("look"))
    if not captured and not (folder / NAME).exists():
        return
    consent = read_consent(folder)
    people = sorted(real_people(faces, rendered=consent.rendered))
    refused = {subject: why for subject in people if (why := consent.refusal(subject, use))}
    if refused:
        reasons = "; ".join(list(refused.values())[:_MAX_NAMED]) + (" …" if len(refused) > _MAX_NAMED else "")
        named = [subject for subject in refused if subject][:_MAX_NAMED]
        entries = f" Such entries in {folder / NAME} allow it:\n\n{consent_template(named)}" if named else ""
        raise ConfigError(
            f"{folder / NAME}: {reasons}. Ask them and add it there, or delete their faces with `semanticface forget "
            f"SUBJECT`.{entries.rstrip()}"
        )
