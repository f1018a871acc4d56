"""Training data of a model: the datasets in its recipe, and hashes of the people in them next to the weights.

The recipe (``semanticface.json``) names the datasets and is public. ``people.json`` holds hashed names, so that it can
be checked whether a model was trained on somebody who wants to be forgotten. Whoever knows a name can check it there,
so the file is never published. Rendered people are not listed: they do not exist.
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
"""Key of the sources in a recipe."""
UNCOUNTED = -1
"""``Source.people`` in recipes from before people were counted."""


@dataclass(frozen=True, slots=True)
class Source:
    """One split that a model was trained on.

    Attributes:
        dataset: its folder, as given to the training.
        split: such as ``train``.
        fingerprint: of its rows at that time.
        rows: number of rows.
        people: number of real people in them, or ``UNCOUNTED``; all rows that name nobody count as one.
        hashes: of those people, sorted; empty if not known, as in a recipe.
    """

    dataset: str
    split: str
    fingerprint: str
    rows: int
    people: int
    hashes: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether the hashes of all people are known."""
        return len(self.hashes) == self.people

    def includes(self, subject: str) -> bool:
        """Return whether a person is among the known hashes."""
        return self.hash(subject) in self.hashes

    def hash(self, subject: str) -> str:
        """Return the hash of a name, which differs between datasets so that two lists cannot be compared."""
        return _hash(self.fingerprint, subject)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form for a recipe: without hashes."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key != "hashes"}


def source_of(faces: datasets.Dataset, dataset: str | Path, split: str) -> Source:
    """Return the source record of a split that a model is about to be trained on.

    Raises:
        ConfigError: the consent list in its folder cannot be read.
    """
    real = real_people(faces, rendered=read_consent(dataset).rendered)
    mark = faces._fingerprint
    return Source(str(dataset), split, mark, len(faces), len(real), tuple(sorted(_hash(mark, who) for who in real)))


def merge_sources(*parts: Sequence[Source]) -> list[Source]:
    """Return all sources, in order, each once."""
    return list(dict.fromkeys(source for part in parts for source in part))


def write_people(folder: str | Path, sources: Iterable[Source]) -> None:
    """Write ``people.json`` into a model folder."""
    write_json(Path(folder) / PEOPLE_NAME, [dataclasses.asdict(source) for source in sources])


def read_people(folder: str | Path) -> list[Source] | None:
    """Return the sources of a model folder with their hashes; None if it has no ``people.json``.

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


def sources_from_recipe(recipe: dict[str, Any]) -> list[Source] | None:
    """Return the sources in a recipe, without hashes; None if it has none.

    Recipes that ``train/distill.py`` wrote before they had sources are read too, with people ``UNCOUNTED``.
    """
    try:
        if KEY in recipe:
            return [Source(**each) for each in recipe[KEY]]
        settings = recipe.get("settings") or {}
        data = settings["data"]["train"]
        return [Source(settings["dataset"], "train", data["fingerprint"], data["rows"], UNCOUNTED)]
    except (KeyError, TypeError):
        return None


def _hash(mark: str, subject: str) -> str:
    return hashlib.sha256(f"{mark}:{subject}".encode()).hexdigest()[:32]
