"""One round of alignment: its steps, and the held-out pictures that all rounds are measured on.

The steps are candidates, choices, pairs, an adapter and its predictions. Each step writes a file; where the file
exists, it is read instead. ``rounds`` lists the files and runs the rounds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import transformers

from semanticface.config import check_range
from semanticface.data.faces import coefficients_of, dataset_record, load_faces, picture_bytes
from semanticface.data.provenance import KEY, merge_sources, read_people, source_of, sources_from_recipe, write_people
from semanticface.errors import DatasetError, ModelError, TableError
from semanticface.evaluation import metrics
from semanticface.formats import tables
from semanticface.inference.predictor import Predictor
from semanticface.models.loading import load_trained, save_adapter
from semanticface.preference.dpo import AlignSettings, align
from semanticface.preference.files import (
    CandidateHeader,
    fingerprint,
    read_candidates,
    read_choices,
    write_candidates,
    write_choices,
)
from semanticface.preference.judges import Judge, comparison_sets, judge_choices
from semanticface.preference.pair_collator import PairCollator, PairDataset
from semanticface.preference.pairs import PairCounts, region_pairs, whole_pairs, write_pairs
from semanticface.preference.questions import make_questions
from semanticface.preference.regions import HALVES, REGIONS, Region, distance
from semanticface.preference.sampling import CandidateSettings, sample_candidates
from semanticface.preference.types import CandidateSet, Choice, Pair
from semanticface.prompts import load_prompt
from semanticface.recipe import RECIPE_NAME, make_recipe, read_recipe
from semanticface.training.datasets import EvalFaces
from semanticface.utils.files import nonfinite_to_none

JUDGED_AT = "2000-01-01T00:00:00Z"
"""Fixed time of a judge's choices, so that a resumed run writes the same bytes as an uninterrupted one."""

_SPLIT = "validation"


def picture_names(faces: datasets.Dataset) -> list[str]:
    """Return the sha256 of each picture of a split, as in ``CandidateSet``."""
    stored = faces.cast_column("picture", datasets.Image(decode=False)).select_columns("picture")
    return [hashlib.sha256(picture_bytes(row["picture"], f"row {nth}")).hexdigest() for nth, row in enumerate(stored)]


@dataclass(frozen=True, slots=True)
class HeldOutSet:
    """Pictures of the validation split, evenly spread over it.

    Attributes:
        dataset: folder of faces.
        truth: the same faces with exact coefficients; the dataset itself where it is exact.
        count: how many, at most.
    """

    dataset: Path
    truth: Path
    count: int

    def faces(self, folder: Path) -> datasets.Dataset:
        """Return the rows in either folder."""
        faces = load_faces(folder, _SPLIT)
        return faces.select(EvalFaces(faces, 1, self.count).indices)

    def predict(self, model: Path, path: Path) -> np.ndarray:
        """Return a model's coefficients for the pictures, without analysis; float32[n, 52], NaN where it failed.

        Args:
            model: its folder.
            path: JSONL of the predictions; written if missing.

        Raises:
            PictureError: a picture is missing or damaged.
            TableError: the file has predictions for another number of pictures.
        """
        if not path.exists():
            predictor = Predictor.from_pretrained(model, mode="numbers")
            rows = EvalFaces(load_faces(self.dataset, _SPLIT), predictor.bundle.image_size, self.count)
            crops = (rows[index].picture for index in range(len(rows)))
            tables.write(path, predictor.stream(filter(None, crops), crop="none"))
        found = metrics.stacked(row.coefficients for row in tables.read_coefficients(path))
        if len(found) != (wanted := len(self.faces(self.dataset))):
            raise TableError(f"{path}: {len(found)} predictions for {wanted} pictures. Remove it; it is made again.")
        return found

    def compare(self, ours: np.ndarray, theirs: np.ndarray) -> list[CandidateSet]:
        """Return candidate sets for ``win_rate`` from the predictions of two models.

        Args:
            ours: float32[n, 52], from ``predict``; pictures with NaN in either are left out, as are repeated ones.
            theirs: float32[n, 52], likewise.

        Raises:
            ModelError: no picture is left.
        """
        faces = self.faces(self.dataset)
        valid = ~np.isnan(ours + theirs).any(axis=1)
        names = picture_names(faces)
        kept = sorted({name: index for index, name in enumerate(names) if valid[index]}.values())
        if not kept:
            raise ModelError("no picture has an answer from both models: one of them is not a model of faces.")
        subjects = list(map(str, faces["subject"]))
        if len(set(subjects)) == 1:  # with one person, bootstrap over pictures
            subjects = names
        kept_names, kept_subjects = [names[index] for index in kept], [subjects[index] for index in kept]
        return comparison_sets(kept_names, kept, kept_subjects, ours[kept], theirs[kept])

    def errors(self, answers: np.ndarray) -> dict[str, float]:
        """Return the errors of predictions against the ground truth.

        Args:
            answers: float32[n, 52], from ``predict``; rows with NaN do not count.

        Returns:
            ``vertex_error_upper``, ``_lower`` and ``_whole``, percent of the inter-pupil distance, each with the rest
            at rest; ``mae``.

        Raises:
            ModelError: there are no answers.
        """
        true = coefficients_of(self.faces(self.truth))
        valid = ~np.isnan(answers).any(axis=1)
        if not valid.any():
            raise ModelError(
                f"the model has no answer to any of {len(answers)} pictures of {self.dataset}: it is broken. Lower "
                "align.learning_rate, or start from another model."
            )
        found = {
            f"vertex_error_{region}": float(distance(answers[valid], true[valid], region).mean()) for region in REGIONS
        }
        return found | {"mae": float(np.abs(answers[valid] - true[valid]).mean())}


@dataclass(frozen=True, slots=True)
class RoundSettings:
    """How rounds are made.

    Attributes:
        max_rounds: most rounds; the auditor may stop earlier.
        early_stopping: stop at the first round without a gain by the auditor; if false, all rounds are made, and the
            best is still the last before that one.
        pairs: how choices become pairs: merged halves (``region``) or whole candidates (``whole``).
        per_picture: most questions about a picture.
        train_rows: pictures with candidates, spread over the split; 0 for all.
        held_out: proportion of their people whose choices are for measuring, not training; of the pictures, where all
            show one person.
        eval_rows: pictures of the validation split to measure on.
        seed: of questions, sides and pairs.
    """

    max_rounds: int = 3
    early_stopping: bool = True
    pairs: Literal["region", "whole"] = "region"
    per_picture: int = 8
    train_rows: int = 0
    held_out: float = 0.1
    eval_rows: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_rounds", "per_picture", "eval_rows"):
            check_range(f"rounds.{name}", getattr(self, name), 1)
        check_range("rounds.train_rows", self.train_rows, 0)
        check_range("rounds.held_out", self.held_out, 0.01, 0.9)
        check_range("rounds.seed", self.seed, 0)


@dataclass(frozen=True, slots=True, eq=False)
class RoundRunner:
    """Runs the steps of rounds.

    Attributes:
        start: folder of the adapter to start from.
        dataset: folder of faces, with the splits ``train`` and ``validation``.
        output: folder of the rounds.
        rounds: how rounds are made.
        candidates: how candidates are sampled.
        align: how DPO trains.
        truth: the same faces with exact coefficients, to measure errors; the dataset itself where it is exact.
        labels: float32[rows of ``train``, 52] of the capture software, as candidates; None for none.
        choices: people's choices between round 1's candidates; None where a judge answers.
        log: receives progress messages.
    """

    start: Path
    dataset: Path
    output: Path
    rounds: RoundSettings
    candidates: CandidateSettings
    align: AlignSettings
    truth: Path
    labels: np.ndarray | None = None
    choices: Sequence[Choice] | None = None
    log: Callable[[str], object] = print

    def folder(self, number: int) -> Path:
        """Return the folder of a round."""
        return self.output / f"round-{number}"

    def model(self, number: int) -> Path:
        """Return the folder of a round's adapter; for round 0 the one to start from."""
        return self.folder(number) / "adapter" if number else self.start

    @property
    def held_out_set(self) -> HeldOutSet:
        """The pictures that all rounds are measured on."""
        return HeldOutSet(self.dataset, self.truth, self.rounds.eval_rows)

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions that questions are about."""
        return HALVES if self.rounds.pairs == "region" else ("whole",)

    def sample_candidates(self, number: int) -> tuple[list[CandidateSet], str]:
        """Return a round's candidates, sampled from the previous round's model, and that model's fingerprint.

        Raises:
            ModelError: the file's candidates are of another model.
            DatasetError: the file's candidates are for other pictures, there are none, or the dataset has no boxes.
        """
        path, before = self.folder(number) / "candidates.jsonl", self.model(number - 1)
        faces = load_faces(self.dataset, "train")
        model, data = fingerprint(before), dataset_record(faces, self.dataset)["fingerprint"]
        if not path.exists():
            settings = dataclasses.replace(self.candidates, seed=self.candidates.seed + number)
            predictor = Predictor.from_pretrained(before, mode="numbers")
            counts: Counter[str] = Counter()
            rows = np.linspace(0, len(faces) - 1, min(self.rounds.train_rows or len(faces), len(faces)))
            rows = rows.round().astype(int).tolist()
            made = sample_candidates(predictor, faces, settings, rows=rows, labels=self.labels, counts=counts)
            header = CandidateHeader(model, data, "train", number, dataclasses.asdict(settings))
            write_candidates(path, header, made)
            self.log(f"pictures  {', '.join(f'{count:,} {what}' for what, count in sorted(counts.items()))}")
        found = read_candidates(path, model=model, dataset=data)
        for problem in found.problems:
            self.log(f"left out  {problem}")
        if not found.candidate_sets:
            raise DatasetError(
                f"{path} has no candidates: no picture had two that differ. Raise candidates.temperature."
            )
        return list(found.candidate_sets), model

    def collect_choices(
        self, number: int, candidate_sets: Sequence[CandidateSet], model: str, judge: Judge | None = None
    ) -> list[Choice]:
        """Return a round's choices: people's in round 1 where given, else the judge's.

        Raises:
            DatasetError: none of people's choices is about these candidates, a round was trained on others already, or
                no two candidates differ enough.
        """
        path = self.folder(number) / "choices.jsonl"
        if number == 1 and self.choices is not None:
            self._save_given(self.choices, path, model)
        if not path.exists():
            if judge is None:
                raise DatasetError(f"{path} is missing: give people's choices between the candidates beside it.")
            seed = self.rounds.seed + number
            questions = make_questions(candidate_sets, self.regions, per_picture=self.rounds.per_picture, seed=seed)
            if not questions:
                raise DatasetError(
                    f"{self.folder(number) / 'candidates.jsonl'}: no two candidates of a picture can be told apart in "
                    f"{' or '.join(self.regions)}. Raise candidates.min_distance or candidates.temperature."
                )
            by_picture = {each.picture: each for each in candidate_sets}
            choices = judge_choices(judge, questions, by_picture, model=model, round=number, time=JUDGED_AT)
            write_choices(path, choices)
        return self._read_choices(path)

    def _read_choices(self, path: Path) -> list[Choice]:
        found, problems = read_choices(path)
        for problem in problems:
            self.log(f"left out  {problem}")
        return [choice for _, choice in found]

    def _save_given(self, given: Sequence[Choice], path: Path, model: str) -> None:
        """Save people's choices of round 1, unless it was trained on others."""
        unique = list(dict.fromkeys(given))  # two exports may overlap
        ours = [choice for choice in unique if (choice.model, choice.round) == (model, 1)]
        if not ours:
            raise DatasetError(
                f"none of the {len(given)} choices is about the candidates in {path.parent}: they were made for "
                "another model or round. Give those that were exported for these candidates."
            )
        if path.exists() and set(self._read_choices(path)) == set(ours):
            return
        if path.exists() and any((path.parent / started).exists() for started in ("training", "adapter")):
            raise DatasetError(
                f"round 1 was trained on other choices than those given now, {path}. Give none to continue with those, "
                "or another output to start over: there the same candidates are sampled."
            )
        if len(ours) < len(unique):
            self.log(f"left out  {len(unique) - len(ours):,} choices about candidates of other models or rounds")
        write_choices(path, ours)

    def build_pairs(
        self, number: int, candidate_sets: Sequence[CandidateSet], choices: Sequence[Choice]
    ) -> tuple[list[Pair], list[Pair], PairCounts]:
        """Return the pairs to train on, the held-out ones, and how the choices to train on were used."""
        first = candidate_sets
        if number > 1:
            first = read_candidates(self.folder(1) / "candidates.jsonl").candidate_sets
        held_out = held_out_pictures(candidate_sets, self.rounds.held_out, self.rounds.seed, first=first)
        make = region_pairs if self.rounds.pairs == "region" else whole_pairs
        parts = []
        for name, is_held_out in (("pairs", False), ("held_out_pairs", True)):
            pairs, counts = make(
                [each for each in candidate_sets if (each.picture in held_out) is is_held_out],
                [choice for choice in choices if (choice.question.picture in held_out) is is_held_out],
                seed=self.rounds.seed,
            )
            write_pairs(self.folder(number) / f"{name}.jsonl", pairs)
            parts.append((pairs, counts))
        (training, counts), (measuring, _) = parts
        return training, measuring, counts

    def train_adapter(self, number: int, training: Sequence[Pair], held_out: Sequence[Pair]) -> dict[str, Any]:
        """Train a round's adapter from the previous round's; return its ``Margins`` on the held-out pairs."""
        folder, before = self.model(number), self.model(number - 1)
        if not (folder / RECIPE_NAME).exists():
            transformers.set_seed(self.align.seed)
            bundle = load_trained(before, trainable=True)
            recipe, faces = bundle.recipe, load_faces(self.dataset, "train")
            prompt = load_prompt(recipe["prompt"]["name"], emotion=recipe["emotion"])
            collator = PairCollator(
                bundle.processor,
                prompt,
                numbers=recipe["numbers"],
                analysis=self.align.analysis,
                emotion=recipe["emotion"],
            )
            rows = PairDataset(training, faces, bundle.image_size, mirrored=self.align.mirror)
            held_out_rows = PairDataset(held_out, faces, bundle.image_size, mirrored=False)
            scratch = self.folder(number) / "training"
            margins = align(bundle, self.align, collator, rows, held_out_rows, scratch, log=self.log)
            figures = nonfinite_to_none(dataclasses.asdict(margins) | {"blank_ratio": margins.blank_ratio})
            settings = {"round": number, "before": fingerprint(before), "align": dataclasses.asdict(self.align)}
            kept = {key: recipe[key] for key in ("base", "prompt", "emotion", "readout", "image_size", "numbers")}
            # The people it learned from are known only if those of the previous model are.
            known = read_people(before) or sources_from_recipe(recipe)
            if known is not None:
                sources = merge_sources(known, [source_of(faces, self.dataset, "train")])
                write_people(folder, sources)
                kept[KEY] = [source.to_dict() for source in sources]
            save_adapter(bundle, folder, make_recipe("adapter", **kept, settings=settings, metrics=figures))
            shutil.rmtree(scratch, ignore_errors=True)
        metrics: dict[str, Any] = read_recipe(folder)["metrics"]
        return metrics

    def predict_held_out(self, number: int) -> np.ndarray:
        """Return the predictions of a round's model, as ``HeldOutSet.predict``."""
        return self.held_out_set.predict(self.model(number), self.folder(number) / "predictions.jsonl")


def held_out_pictures(
    candidate_sets: Sequence[CandidateSet], proportion: float, seed: int, *, first: Sequence[CandidateSet] | None = None
) -> set[str]:
    """Return the pictures to measure on: those of a proportion of the people, leaving at least one on each side.

    Args:
        candidate_sets: two at least.
        proportion: of the people; of the pictures where all show one person.
        seed: of the choice of people, together with their names.
        first: the sets of round 1, where ``candidate_sets`` are of a later round that may lack some pictures. They
            determine the held-out people, so that none of them was trained on before.
    """
    deciding = candidate_sets if first is None else first
    one_person = len({each.subject for each in deciding}) == 1

    def name(candidate_set: CandidateSet) -> str:
        return candidate_set.picture if one_person else candidate_set.subject

    names = sorted(set(map(name, deciding)), key=lambda each: hashlib.sha256(f"{seed}:{each}".encode()).digest())
    held_out = set(names[: min(max(1, round(proportion * len(names))), len(names) - 1)])
    return {each.picture for each in candidate_sets if name(each) in held_out}
