"""Whom a model learnt from: datasets in its recipe, and beside the weights the people in them as hashes.

The recipe (``semanticface.json``) tells the datasets, for everybody to read. ``people.json`` tells the people, so that
it can be found out later whether somebody who wants to be forgotten is among them; who knows a name can check it there,
so the file stays with those who trained and is never published. People whom this project drew are not listed: they do
not exist.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from semanticface.data.consent import read_consent, real_people
from semanticface.errors import ModelError
from semanticface.utils.files import write_json

PEOPLE_NAME = "people.json"
KEY = "trained_on"
"""Where a recipe has its sources."""
UNCOUNTED = -1
"""People of a source that was written down before people were counted."""


@dataclass(frozen=True, slots=True)
class Source:
    """One split that a model learnt from.

    Attributes:
        dataset: its folder, as the training was given it.
        split: such as ``train``.
        fingerprint: of its rows at that time.
        rows: how many there were.
        people: how many real people were in them, or ``UNCOUNTED``; all rows that name nobody count as one.
        hashes: of those, sorted; empty where they are not known, as in a recipe.
    """

    dataset: str
    split: str
    fingerprint: str
    rows: int
    people: int
    hashes: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether it is known who is in it."""
        return len(self.hashes) == self.people

    def includes(self, subject: str) -> bool:
        """Whether a person is among those whose hashes are known."""
        return self.hash(subject) in self.hashes

    def hash(self, subject: str) -> str:
        """The hash of a name: another one in every dataset, so that lists of two cannot be put beside each other."""
        return _hash(self.fingerprint, subject)


def source_of(faces: datasets.Dataset, dataset: str | Path, split: str) -> Source:
    """Return what is to be kept of a split that a model is about to learn from.

    Raises:
        ConfigError: the list of consent in its folder cannot be read.
    """
    real = real_people(faces, rendered=read_consent(dataset).rendered)
    mark = faces._fingerprint
    return Source(str(dataset), split, mark, len(faces), len(real), tuple(sorted(_hash(mark, who) for who in real)))


def joined(*parts: Sequence[Source]) -> list[Source]:
    """Return the sources of a model that learnt from several, one after the other, each once."""
    return list(dict.fromkeys(source for part in parts for source in part))


def told(sources: Iterable[Source]) -> list[dict[str, Any]]:
    """Return what a recipe says of sources: no hashes."""
    return [{key: value for key, value in dataclasses.asdict(source).items() if key != "hashes"} for source in sources]


def write_people(folder: str | Path, sources: Iterable[Source]) -> None:
    """Write ``people.json`` into a model folder.

    Raises:
        SemanticFaceError: the system refuses to write.
    """
    write_json(Path(folder) / PEOPLE_NAME, [dataclasses.asdict(source) for source in sources])


def read_people(folder: str | Path) -> list[Source] | None:
    """Return the sources of a model folder with their hashes; None where it has no such file.

    Raises:
        ModelError: the file cannot be read.
    """
    path = Path(folder) / PEOPLE_NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [Source(**{**each, "hashes": tuple(each["hashes"])}) for each in found]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path} cannot be read: {error}. Copy it again, or train the model again.") from error


def sources_in(recipe: dict[str, Any]) -> list[Source] | None:
    """Return the sources that a recipe tells, without hashes; None where it does not tell any.

    What ``train/distill.py`` wrote before recipes told them is understood too, with people ``UNCOUNTED``.
    """
    try:
        if KEY in recipe:
            return [Source(**each) for each in recipe[KEY]]
        settings = recipe.get("settings") or {}
        learnt = settings["data"]["train"]
        return [Source(settings["dataset"], "train", learnt["fingerprint"], learnt["rows"], UNCOUNTED)]
    except (KeyError, TypeError):
        return None


def _hash(mark: str, subject: str) -> str:
    return hashlib.sha256(f"{mark}:{subject}".encode()).hexdigest()[:32]
