"""Who may be shown to annotators: a list beside the dataset, in which every real person needs an entry.

``consent.yaml`` in the folder of the dataset::

    subjects:
      ann: true                 # may be shown
      ben: false                # may not; as if they were not listed
      cem: {until: 2027-12-31}  # may be shown up to that day, UTC

People whom ``data_prep/render_faces.py`` drew need none: they do not exist.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from semanticface.dataset import begun_recipe
from semanticface.errors import ConfigError
from semanticface.preference.types import Slate

NAME = "consent.yaml"
_DRAWN = re.compile(r"face-\d{7}")  # render_set.subject_name


@dataclass(frozen=True, slots=True)
class Consent:
    """Whose pictures may be shown.

    Attributes:
        rendered: whether the dataset was drawn by this project.
        until: the last day for each subject who agreed; ``date.max`` where there is none.
    """

    rendered: bool
    until: dict[str, datetime.date]

    def allows(self, subject: str, day: datetime.date | None = None) -> bool:
        """Return whether a subject may be shown.

        Args:
            subject: as in the dataset.
            day: by default today, UTC.
        """
        if self.rendered and _DRAWN.fullmatch(subject):
            return True
        day = day or datetime.datetime.now(datetime.UTC).date()
        return subject in self.until and day <= self.until[subject]

    def split(self, slates: Iterable[Slate]) -> tuple[list[Slate], Collection[str]]:
        """Return the slates that may be shown, and the subjects of those that may not."""
        shown, hidden = [], set()
        for slate in slates:
            if self.allows(slate.subject):
                shown.append(slate)
            else:
                hidden.add(slate.subject)
        return shown, hidden


def read_consent(dataset: str | Path) -> Consent:
    """Read who in a dataset agreed to be shown; nobody where there is no list.

    Args:
        dataset: the folder of the dataset.

    Raises:
        ConfigError: the list cannot be read, or an entry is not of its form or is there twice.
    """
    folder = Path(dataset)
    path = folder / NAME
    rendered = begun_recipe(folder) is not None
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Consent(rendered, {})
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Nobody is shown before it can.") from error
    try:
        value = yaml.load(text, _Strict)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}. Nobody is shown before it is.") from error
    if not isinstance(value, dict) or set(value) != {"subjects"} or not isinstance(value["subjects"] or {}, dict):
        raise ConfigError(f"{path} must hold `subjects:` with a line `name: true` for each, and nothing else.")
    until = {}
    for subject, entry in (value["subjects"] or {}).items():
        if not isinstance(subject, str):
            raise ConfigError(f"{path}: YAML reads the subject {subject} as no text. Put it in quotation marks.")
        if (last := _last_day(entry, f"{path}, {subject}")) is not None:
            until[subject] = last
    return Consent(rendered, until)


def _last_day(entry: Any, at: str) -> datetime.date | None:
    if isinstance(entry, bool):
        return datetime.date.max if entry else None
    # A datetime is a date too, to Python; only a plain day says what is meant in every time zone.
    if isinstance(entry, dict) and set(entry) == {"until"} and type(entry["until"]) is datetime.date:
        return entry["until"]
    raise ConfigError(f"{at}: {entry!r} is not true, false or {{until: 2027-12-31}}. Correct the entry.")


class _Strict(yaml.SafeLoader):
    """YAML in which nothing is said twice: the later of two entries would silently overrule the other."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        out = super().construct_mapping(node, deep)
        if len(out) != len(node.value):
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"a name is there twice in the list that begins in line {line}")
        return out
