"""Takes of rendered people with exact labels, and the same pictures with the labels that capture software would write.

A take is a face that wanders from one expression to the next, at about 30 frames a second, of which every so many
frames one is drawn. Software errs over time, so errors are put into the whole sequence before frames are picked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from tqdm import tqdm

from semanticface.config import check_range
from semanticface.data.faces import begun_recipe, load_faces, shard_path, write_index, write_shard
from semanticface.data.rendered import RenderSettings, draw_row
from semanticface.errors import DatasetError
from semanticface.experiments.noisy_captures import CaptureErrors, wander
from semanticface.recipe import versions, write_recipe
from semanticface.semantics.analysis import describe_many
from semanticface.semantics.answer import format_answer


@dataclass(frozen=True, slots=True)
class TakeSettings:
    """What is recorded.

    Attributes:
        train: takes to learn from, each of another person.
        validation: takes to measure on, of people of their own.
        frames: pictures of each take.
        every: frames from one picture to the next, at about 30 a second.
        look: in which people are drawn.
        first_subject: number of the first person.
        seed: of expressions, cameras and light.
    """

    train: int = 150
    validation: int = 30
    frames: int = 12
    every: int = 12
    look: str = "photo"
    first_subject: int = 7_000_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("train", "validation", "frames", "every"):
            check_range(f"takes.{name}", getattr(self, name), 1)
        check_range("takes.seed", self.seed, 0)

    @property
    def splits(self) -> dict[str, int]:
        """Takes of each split; those of ``validation`` come behind those of ``train``."""
        return {"train": self.train, "validation": self.validation}

    def sequence(self, take: int) -> np.ndarray:
        """Return every frame of a take, float32[frames * every, 52]."""
        return wander(self.seed * 1_000_003 + take, self.frames * self.every)

    def numbers(self, split: str) -> range:
        """Return the numbers of a split's takes."""
        start = 0 if split == "train" else self.train
        return range(start, start + self.splits[split])


def record_takes(out: Path, settings: TakeSettings, errors: CaptureErrors) -> dict[str, np.ndarray]:
    """Draw takes and write them twice: ``out/exact``, and ``out/captured`` with the labels of software that errs.

    Returns:
        By split, what the software wrote; float32[takes * frames, 52].

    Raises:
        ConfigError: an unknown look.
        DatasetError: the folder holds other takes.
        SemanticFaceError: the disk refuses.
    """
    exact = draw_takes(out / "exact", settings)
    labels = {split: captured(settings, errors, split) for split in settings.splits}
    relabel(exact, out / "captured", labels, {"of": dataclasses.asdict(settings), "seed": errors.seed})
    return labels


def draw_takes(out: Path, settings: TakeSettings) -> Path:
    """Draw the pictures of all takes, 128 px crops with exact labels, in order of time; or find them drawn.

    Raises:
        ConfigError: an unknown look.
        DatasetError: the folder holds other takes, whose pictures would get these labels.
        SemanticFaceError: the disk refuses.
    """
    drawing = RenderSettings(rows=1, size=128, supersample=1, framing="crop")
    wanted, begun = dataclasses.asdict(settings), begun_recipe(out)
    if begun is not None and any(shard_path(out, split, 0, 1).is_file() for split in settings.splits):
        there = begun.get("takes", {})
        pairs = [(name, there.get(name), want) for name, want in wanted.items()]
        differing = [f"{name} {other} there, {want} here" for name, other, want in pairs if other != want]
        if differing:
            raise DatasetError(f"{out} holds other takes ({', '.join(differing)}). Use the same, or another folder.")
    write_recipe(out, {"kind": "faces", "takes": wanted})
    for split, takes in settings.splits.items():
        path = shard_path(out, split, 0, 1)
        if path.is_file():
            continue
        rows = []
        for take in tqdm(settings.numbers(split), desc=f"drawing takes, {split}", total=takes, unit="take"):
            rng = np.random.default_rng([settings.seed, take, 23])
            for coefficients in settings.sequence(take)[:: settings.every]:
                shot = int(rng.integers(2**31))
                subject = settings.first_subject + take
                rows.append(draw_row(drawing, coefficients, look=settings.look, subject=subject, shot=shot, seed=shot))
        write_shard(path, rows)
    write_index(out, dict.fromkeys(settings.splits, 1), {"takes": wanted, "versions": versions()})
    return out


def captured(settings: TakeSettings, errors: CaptureErrors, split: str) -> np.ndarray:
    """Return what software would have written for a split's pictures; float32[takes * frames, 52]."""
    return np.concatenate(
        [errors.corrupt(settings.sequence(take), take=take)[:: settings.every] for take in settings.numbers(split)]
    )


def relabel(faces: Path, out: Path, labels: Mapping[str, np.ndarray], told: Mapping[str, Any]) -> Path:
    """Write the same pictures with other labels and the answers that belong to them.

    Args:
        faces: a folder of faces.
        out: the new folder.
        labels: float32[rows, 52] in hundredths, for each split that is written.
        told: how they were made; decides the new dataset's fingerprint.

    Raises:
        DatasetError: another number of rows.
        SemanticFaceError: the disk refuses.
    """
    for split, values in labels.items():
        rows = load_faces(faces, split).cast_column("picture", datasets.Image(decode=False))
        if len(rows) != len(values):
            raise DatasetError(f"{faces}: {len(rows)} rows in {split}, but {len(values)} labels for them.")
        answers = [format_answer(value, each) for value, each in zip(values, describe_many(values), strict=True)]
        new = [
            row | {"picture": row["picture"]["bytes"], "coefficients": value, "answer": answer}
            for row, value, answer in zip(rows, values, answers, strict=True)
        ]
        write_shard(shard_path(out, split, 0, 1), new)
    write_index(out, dict.fromkeys(labels, 1), told)
    if begun_recipe(faces) is not None:  # nobody in them exists, so nobody has to agree to be shown
        write_recipe(out, {"kind": "faces", "relabelled": dict(told)})
    return out
