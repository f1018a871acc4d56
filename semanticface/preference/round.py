"""The steps of a round of alignment: candidates, choices, pairs, an adapter, what it answers.

A step is taken where its file is missing; else the file is read. Which files there are, and what rounds make of them,
``rounds`` says.

What rounds of alignment are measured on: pictures held out, what models say of them, and how far that is off.
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
from semanticface.preference.judges import Judge, decide, versus
from semanticface.preference.pair_collator import PairCollator, PairDataset
from semanticface.preference.pairs import PairCounts, region_pairs, whole_pairs, write_pairs
from semanticface.preference.questions import ask
from semanticface.preference.regions import AREAS, HALVES, Area, distance
from semanticface.preference.sampling import CandidateSettings, sample_slates
from semanticface.preference.types import CandidateSet, Choice, Pair
from semanticface.prompts import load_prompt
from semanticface.recipe import RECIPE_NAME, make_recipe, read_recipe
from semanticface.training.datasets import EvalFaces
from semanticface.utils.files import nonfinite_to_none

_SPLIT = "validation"


@dataclass(frozen=True, slots=True)
class HeldOutSet:
    """Pictures of the validation split, spread evenly over it.

    Attributes:
        dataset: folder of faces.
        truth: the same faces with exact coefficients; the dataset itself where they are exact.
        count: how many, or all there are.
    """

    dataset: Path
    truth: Path
    count: int

    def faces(self, folder: Path) -> datasets.Dataset:
        """Return the rows in either folder."""
        faces = load_faces(folder, _SPLIT)
        return faces.select(EvalFaces(faces, 1, self.count).indices)

    def predicted(self, model: Path, path: Path) -> np.ndarray:
        """Return what a model says of the pictures, without words; float32[n, 52], NaN where it has no answer.

        Args:
            model: its folder.
            path: JSONL of the predictions; made unless it is there.

        Raises:
            PictureError: a picture is missing or damaged.
            TableError: the predictions are of other pictures, as many as there were before.
        """
        if not path.exists():
            predictor = Predictor.from_pretrained(model, mode="numbers")
            rows = EvalFaces(load_faces(self.dataset, _SPLIT), predictor.bundle.image_size, self.count)
            crops = (rows[place].picture for place in range(len(rows)))
            tables.write(path, predictor.stream(filter(None, crops), crop="none"))
        found = metrics.stacked(row.coefficients for row in tables.read_coefficients(path))
        if len(found) != (wanted := len(self.faces(self.dataset))):
            raise TableError(f"{path}: {len(found)} predictions for {wanted} pictures. Remove it; it is made again.")
        return found

    def compared(self, ours: np.ndarray, theirs: np.ndarray) -> list[CandidateSet]:
        """Return slates of two for ``win_rate``: what two models say of the pictures.

        Args:
            ours: float32[n, 52], from ``predicted``; pictures with NaN in either are left out, and repeated ones.
            theirs: likewise.

        Raises:
            ModelError: no picture is left.
        """
        faces = self.faces(self.dataset)
        valid = ~np.isnan(ours + theirs).any(axis=1)
        names = picture_names(faces)
        chosen = sorted({name: place for place, name in enumerate(names) if valid[place]}.values())
        if not chosen:
            raise ModelError("no picture has an answer from both models: what is compared is no model of faces.")
        subjects = list(map(str, faces["subject"]))
        if len(set(subjects)) == 1:  # of one person, pictures are what could have been others
            subjects = names
        return versus(
            [names[place] for place in chosen],
            chosen,
            [subjects[place] for place in chosen],
            ours[chosen],
            theirs[chosen],
        )

    def errors(self, answers: np.ndarray) -> dict[str, float]:
        """Return how far answers are from the truth, or from what is taken for it.

        Args:
            answers: float32[n, 52], from ``predicted``; rows with NaN do not count.

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
                "align.learning_rate, or begin from another model."
            )
        found = {f"vertex_error_{area}": float(distance(answers[valid], true[valid], area).mean()) for area in AREAS}
        return found | {"mae": float(np.abs(answers[valid] - true[valid]).mean())}


def picture_names(faces: datasets.Dataset) -> list[str]:
    """Return what names each picture of a split, as in ``CandidateSet``: the sha256 of its bytes.

    Raises:
        PictureError: a row without a picture.
    """
    stored = faces.cast_column("picture", datasets.Image(decode=False)).select_columns("picture")
    return [
        hashlib.sha256(picture_bytes(row["picture"], f"row {place}")).hexdigest() for place, row in enumerate(stored)
    ]


JUDGED_AT = "2000-01-01T00:00:00Z"
"""Time of choices that no person made: a run that was stopped must end with the same bytes as one that was not."""


@dataclass(frozen=True, slots=True)
class RoundSettings:
    """How rounds are made.

    Attributes:
        max_rounds: rounds at most; the auditor may end them earlier.
        early_stopping: whether it may; if not, all are made, and the best is still the last up to which it always saw a
            gain.
        pairs: how choices become pairs: halves put together (``region``) or whole candidates (``whole``).
        per_picture: questions about a picture at most.
        train_rows: pictures that candidates are made for, spread over the split; 0 takes all.
        held_out: share of the people in them whose choices are measured on and not learnt from; of the pictures, where
            all show one person.
        eval_rows: pictures of the validation split that are measured on.
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
    """Everything that rounds are made of.

    Attributes:
        start: folder of the adapter to begin from.
        dataset: folder of faces; the split ``train`` is learnt from, ``validation`` measured on.
        output: folder of the rounds.
        rounds: how.
        candidates: likewise.
        align: likewise.
        truth: the same faces with exact coefficients, to measure by; the dataset itself where they are exact.
        labels: float32[rows of ``train``, 52] that the capture software wrote, as candidates; None for none.
        choices: those that people made of round 1's candidates; None where a judge answers.
        say: told what happens.
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
    say: Callable[[str], object] = print

    def folder(self, number: int) -> Path:
        """Return the folder of a round."""
        return self.output / f"round-{number}"

    def model(self, number: int) -> Path:
        """Return the folder of the adapter that a round made; of round 0 that to begin from."""
        return self.folder(number) / "adapter" if number else self.start

    @property
    def measured(self) -> HeldOutSet:
        """What all rounds are measured on."""
        return HeldOutSet(self.dataset, self.truth, self.rounds.eval_rows)

    def slates(self, number: int) -> tuple[list[CandidateSet], str]:
        """Return a round's candidates, sampled from the model of the round before, and that model's fingerprint.

        Raises:
            ModelError: the file's candidates are of another model.
            DatasetError: the file's candidates are of other pictures, there are none, or the dataset has no boxes.
        """
        path, before = self.folder(number) / "candidates.jsonl", self.model(number - 1)
        faces = load_faces(self.dataset, "train")
        model, data = fingerprint(before), dataset_record(faces, self.dataset)["fingerprint"]
        if not path.exists():
            settings = dataclasses.replace(self.candidates, seed=self.candidates.seed + number)
            predictor = Predictor.from_pretrained(before, mode="numbers")
            counts: Counter[str] = Counter()
            rows = np.linspace(0, len(faces) - 1, min(self.rounds.train_rows or len(faces), len(faces)))
            made = sample_slates(
                predictor,
                faces,
                settings,
                rows=rows.round().astype(int).tolist(),
                labels=self.labels,
                counts=counts,
            )
            header = CandidateHeader(model, data, "train", number, dataclasses.asdict(settings))
            write_candidates(path, header, made)
            self.say(f"pictures  {', '.join(f'{count:,} {what}' for what, count in sorted(counts.items()))}")
        found = read_candidates(path, model=model, dataset=data)
        for problem in found.problems:
            self.say(f"left out  {problem}")
        if not found.slates:
            raise DatasetError(
                f"{path} has no candidates: no picture had two that differ. Raise candidates.temperature."
            )
        return list(found.slates), model

    @property
    def areas(self) -> tuple[Area, ...]:
        """The areas that questions are about."""
        return HALVES if self.rounds.pairs == "region" else ("whole",)

    def chosen(
        self, number: int, slates: Sequence[CandidateSet], model: str, judge: Judge | None = None
    ) -> list[Choice]:
        """Return a round's choices: those that people made, in round 1 where there are some, or the judge's.

        Raises:
            DatasetError: none of the choices that people made is about these candidates, others than those were learnt
                from already, or no two candidates can be told apart.
        """
        path = self.folder(number) / "choices.jsonl"
        if number == 1 and self.choices is not None:
            self._take(self.choices, path, model)
        if not path.exists():
            if judge is None:
                raise DatasetError(f"{path} is missing: give the choices that people made of the candidates beside it.")
            questions = ask(slates, self.areas, per_picture=self.rounds.per_picture, seed=self.rounds.seed + number)
            if not questions:
                raise DatasetError(
                    f"{self.folder(number) / 'candidates.jsonl'}: no two candidates of a picture can be told apart in "
                    f"{' or '.join(self.areas)}. Raise candidates.min_distance or candidates.temperature."
                )
            by_picture = {slate.picture: slate for slate in slates}
            choices = decide(judge, questions, by_picture, model=model, round=number, time=JUDGED_AT)
            write_choices(path, choices)
        return self._choices(path)

    def _choices(self, path: Path) -> list[Choice]:
        found, problems = read_choices(path)
        for problem in problems:
            self.say(f"left out  {problem}")
        return [choice for _, choice in found]

    def _take(self, given: Sequence[Choice], path: Path, model: str) -> None:
        """Keep the choices that people made in round 1, unless others were learnt from."""
        known = list(dict.fromkeys(given))  # two exports may hold the same
        ours = [choice for choice in known if (choice.model, choice.round) == (model, 1)]
        if not ours:
            raise DatasetError(
                f"none of the {len(given)} choices is about the candidates in {path.parent}: they were made for "
                "another model or round. Give those that were exported for these candidates."
            )
        if path.exists() and set(self._choices(path)) == set(ours):
            return
        if path.exists() and any((path.parent / begun).exists() for begun in ("training", "adapter")):
            raise DatasetError(
                f"round 1 was taught other choices than those given now, {path}. Give none to go on with those, or "
                "another output to begin anew: there the same candidates are sampled."
            )
        if len(ours) < len(known):
            self.say(f"left out  {len(known) - len(ours):,} choices about candidates of other models or rounds")
        write_choices(path, ours)

    def paired(
        self, number: int, slates: Sequence[CandidateSet], choices: Sequence[Choice]
    ) -> tuple[list[Pair], list[Pair], PairCounts]:
        """Return the pairs to learn and those held out, and what became of the choices to learn."""
        first = slates if number == 1 else read_candidates(self.folder(1) / "candidates.jsonl").slates
        kept = held_out(slates, self.rounds.held_out, self.rounds.seed, first=first)
        make = region_pairs if self.rounds.pairs == "region" else whole_pairs
        parts = []
        for name, chosen in (("pairs", False), ("held_out_pairs", True)):
            pairs, counts = make(
                [slate for slate in slates if (slate.picture in kept) is chosen],
                [choice for choice in choices if (choice.question.picture in kept) is chosen],
                seed=self.rounds.seed,
            )
            write_pairs(self.folder(number) / f"{name}.jsonl", pairs)
            parts.append((pairs, counts))
        (learnt, counts), (measured, _) = parts
        return learnt, measured, counts

    def trained(self, number: int, learnt: Sequence[Pair], measured: Sequence[Pair]) -> dict[str, Any]:
        """Train a round's adapter from that of the round before; return ``Margins`` of the pairs held out."""
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
                words=self.align.words,
                emotion=recipe["emotion"],
            )
            rows = PairDataset(learnt, faces, bundle.image_size, mirrored=self.align.mirror)
            others = PairDataset(measured, faces, bundle.image_size, mirrored=False)
            training = self.folder(number) / "training"
            margins = align(bundle, self.align, collator, rows, others, training, say=self.say)
            figures = nonfinite_to_none(dataclasses.asdict(margins) | {"blank_ratio": margins.blank_ratio})
            settings = {"round": number, "before": fingerprint(before), "align": dataclasses.asdict(self.align)}
            kept = {key: recipe[key] for key in ("base", "prompt", "emotion", "readout", "image_size", "numbers")}
            # Whom it learnt from is known only if that is known of the model before.
            begun = read_people(before) or sources_from_recipe(recipe)
            if begun is not None:
                sources = merge_sources(begun, [source_of(faces, self.dataset, "train")])
                write_people(folder, sources)
                kept[KEY] = [source.to_dict() for source in sources]
            save_adapter(bundle, folder, make_recipe("adapter", **kept, settings=settings, metrics=figures))
            shutil.rmtree(training, ignore_errors=True)
        metrics: dict[str, Any] = read_recipe(folder)["metrics"]
        return metrics

    def predicted(self, number: int) -> np.ndarray:
        """Return what a round's model says of the held-out pictures, as ``HeldOutSet.predicted``."""
        return self.measured.predicted(self.model(number), self.folder(number) / "predictions.jsonl")


def held_out(
    slates: Sequence[CandidateSet], share: float, seed: int, *, first: Sequence[CandidateSet] | None = None
) -> set[str]:
    """Return the pictures to measure on: those of a share of the people, at least one of each kind.

    Args:
        slates: two at least.
        share: of the people; of the pictures where all show one person.
        seed: with the name, decides who.
        first: those of round 1, where ``slates`` are of a later one, in which other pictures may have candidates: they
            decide who is measured on, so that nobody is whom the model has learnt from.
    """
    deciding = slates if first is None else first
    alone = len({slate.subject for slate in deciding}) == 1

    def name(slate: CandidateSet) -> str:
        return slate.picture if alone else slate.subject

    names = sorted(set(map(name, deciding)), key=lambda each: hashlib.sha256(f"{seed}:{each}".encode()).digest())
    chosen = set(names[: min(max(1, round(share * len(names))), len(names) - 1)])
    return {slate.picture for slate in slates if name(slate) in chosen}
