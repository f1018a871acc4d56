"""Ablations: what an analysis costs or gains, in which order, compared with plain regression.

    python eval/ablations.py              # an hour and a half on two quiet cores; the same command resumes
    python eval/ablations.py --quick      # one seed, a tiny budget: a smoke test
    python eval/ablations.py --only coefficients semantics-first --seeds 5

Compared for each seed, with the same data, the same pictures in the same order and the same number of steps:

    coefficients           the 52 numbers only
    semantics-first        analysis, then numbers, trained behind the ground truth analysis as in the paper
    semantics-first-seen   the same, but numbers trained behind a predicted analysis (as nano is)
    coefficients-first     numbers, then analysis
    linear, mlp            no language model: a regression head on the vision encoder's feature map
    personal               LoRA (train/distill.py) on 50, 200 and 1,000 pictures of one new character, and the base

The first four are a small language model trained from scratch on the frozen vision encoder of `--model`. All train on
the photo style and are tested on unseen people in the photo, toon and drawn styles. The vision encoder may have seen
those styles: to test transfer of the whole model, give one whose encoder was trained on photo only. Crops are given, so
no face detector takes part. All answer with the means of their distributions, as nano does.

Every variant decodes the numbers in parallel, so a number depends on the picture and on what the variant puts before
it, never on other numbers. The loss pulls each number's mean towards its label. `semantics-first-seen` needs analyses
with the errors of inference: Stage I describes the predictions of ridge regression fitted on other people.
`coefficients-first` decodes the numbers, appends them to the prompt, and generates the analysis behind them.

Of the variants that decode the analysis first, another table says what it causes: one sentence of each analysis is
replaced by a false one before the numbers are decoded (`semanticface.experiments.counterfactual`).

`personal` trains on `--personal` pictures, different ones for each seed, with the steps of
train/configs/quickstart.yaml, and tests on held-out pictures of the same character.

Writes `ablations.json` and `ablations.md` to `--out`, where pictures and one JSON per run in `runs` are kept for
resuming. The last line is one JSON object with means over seeds: for each variant and style correlation and MAE, on
photo the agreement of the analysis, and the gain of each personalisation.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image

from semanticface.arkit import MIRROR_INDEX
from semanticface.cli.scripts import ScriptParser
from semanticface.config import check_range
from semanticface.data.faces import coefficients_of, load_faces
from semanticface.data.rendered import RenderSettings, render_set, renderer_hash
from semanticface.errors import SemanticFaceError
from semanticface.evaluation import metrics
from semanticface.experiments import ablations as tables
from semanticface.experiments import regression_heads
from semanticface.experiments.ablations import VARIANTS, figures, predict
from semanticface.experiments.counterfactual import causes
from semanticface.models.files import resolve_model
from semanticface.models.loading import Bundle, load_trained
from semanticface.recipe import files_sha256, git_commit, versions
from semanticface.training.nano_pretraining import PretrainData, PretrainSettings, new_model, pretrain_language_model
from semanticface.training.nano_vision import extract_features, read_faces
from semanticface.utils.files import atomic_open, atomic_path, write_json
from semanticface.vision.crop import Box, crop_face
from semanticface.vision.image_io import load_picture

ROOT = Path(__file__).resolve().parents[1]
PERSONAL = "personal"
TRAINED_ON, TESTED = "photo", ("photo", "toon", "drawn")
CHARACTER, CHARACTER_STYLE = 7, "imp"
SPLITS = {"train": 0.8, "test": 0.2}
FIRST_SUBJECT, SUBJECTS = 6_000_000, 20_000
SEED = 2027
VALIDATION_ROWS = 64
SAVE_EVERY = 100


@dataclasses.dataclass(frozen=True)
class Budget:
    """Size of the experiment.

    Attributes:
        rows: training pictures, without their mirror images.
        samples: pictures seen in a training, repetitions counted.
        tests: test pictures of each style.
        seeds: trainings of each variant.
        personal: numbers of pictures of the character.
        steps: of a personalisation; 0 for those of the config.
    """

    rows: int = 12_000
    samples: int = 16_000
    tests: int = 300
    seeds: int = 3
    personal: tuple[int, ...] = (50, 200, 1000)
    steps: int = 0


FULL = Budget()
QUICK = Budget(rows=600, samples=1_600, tests=24, seeds=1, personal=(50,), steps=40)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing; return the exit code."""
    options = _options(arguments)
    try:
        results = Ablations(options).run()
    except SemanticFaceError as error:
        print(f"ablations: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ablations: interrupted; the same command resumes", file=sys.stderr)
        return 130
    print(json.dumps(results["headline"]))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    parser.add_argument("--model", default="nano", help="model whose vision encoder to use")
    parser.add_argument("--quick", action="store_true", help="a tiny budget, as a smoke test")
    parser.add_argument("--rows", type=int, help=f"training pictures ({FULL.rows:,})")
    parser.add_argument("--samples", type=int, help=f"pictures seen in each training ({FULL.samples:,})")
    parser.add_argument("--tests", type=int, help=f"test pictures of each style ({FULL.tests})")
    parser.add_argument("--seeds", type=int, help=f"trainings of each variant ({FULL.seeds})")
    parser.add_argument(
        "--personal", type=int, nargs="+", metavar="N",
        help=f"pictures of the new character ({' '.join(map(str, FULL.personal))})",
    )  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=(*VARIANTS, PERSONAL), help="variants to run (default: all)")
    parser.add_argument("--out", type=Path, default=Path("outputs/ablations"), help="folder (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes that render pictures (default: all cores)"
    )
    options = parser.parse_args(arguments)
    budget = QUICK if options.quick else FULL
    given = {name: getattr(options, name) for name in ("rows", "samples", "tests", "seeds", "personal")}
    for name, value in given.items():
        for each in value if isinstance(value, list) else [value]:
            if each is not None and each < 1:
                parser.error(f"--{name} is {each}: give at least 1")
    overrides = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items() if value}
    options.budget = dataclasses.replace(budget, **overrides)
    options.only = options.only or [*VARIANTS, PERSONAL]
    return options


class Ablations:
    """Pictures, trainings, tests and tables of one command."""

    def __init__(self, options: argparse.Namespace) -> None:
        check_range("workers", options.workers, 1)
        self.budget: Budget = options.budget
        self.only: list[str] = options.only
        self.model: str = options.model
        self.out: Path = options.out
        self.workers: int = options.workers
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        folder, _ = resolve_model(options.model)
        self.made_by = {"weights": files_sha256(list(folder.glob("*.safetensors")))[:16], "renderer": renderer_hash()}

    def run(self) -> dict[str, Any]:
        """Run what is missing; write and return the results."""
        runs = {key: self._variant(key) for key in VARIANTS if key in self.only}
        personal, base = self._personal() if PERSONAL in self.only else ({}, {})
        results = {
            "headline": tables.headline(runs, TRAINED_ON, personal, base),
            "variants": {key: tables.to_json(tables.over_seeds(found)) for key, found in runs.items()},
            "personal": {str(size): tables.to_json(tables.over_seeds(found)) for size, found in personal.items()},
            "runs": {
                **runs,
                **{f"{PERSONAL}-{size}": found for size, found in personal.items()},
                "personal-base": base,
            },
            "recipe": {
                "budget": dataclasses.asdict(self.budget),
                "model": Path(self.model).name,
                **self.made_by,
                "commit": git_commit(),
                "versions": versions(),
                "machine": platform.machine(),
                "processors": os.cpu_count(),
            },
        }
        results_tables = [*tables.variant_tables(runs, TRAINED_ON), *tables.cause_tables(runs, TRAINED_ON)]
        results_tables += tables.personal_tables(personal, base)
        text = "\n\n".join(table.markdown() for table in results_tables)
        with atomic_open(self.out / "ablations.md") as file:
            file.write(f"{text}\n")
        write_json(self.out / "ablations.json", results, compact=True)
        print(f"\n{text}\n\n{self.out / 'ablations.md'}\n", flush=True)
        return results

    # --- pictures and their feature maps ---------------------------------------------------------------------

    def _rendered(self, name: str, settings: RenderSettings) -> Path:
        folder = self.out / "pictures" / f"{name}-{settings.rows}-{renderer_hash()}"
        return render_set(folder, settings, workers=self.workers)

    def _crops(self, style: str, split: str, rows: int) -> Path:
        settings = RenderSettings(
            rows=rows, looks={style: 1.0}, size=128, supersample=1, framing="crop", splits=SPLITS, only=split,
            first_subject=FIRST_SUBJECT, subjects=SUBJECTS, seed=SEED, take_share=0.0,
        )  # fmt: skip
        return self._rendered(f"{split}-{style}", settings)

    @functools.cached_property
    def _bundle(self) -> Bundle:
        return load_trained(self.model)

    @functools.cached_property
    def _data(self) -> PretrainData:
        """Training data of every variant: photo style, and its mirror images."""
        folder = self._crops(TRAINED_ON, "train", self.budget.rows)
        faces = read_faces([folder], "train", folder.with_name(f"{folder.name}-pixels"), self.accelerator)
        vision_encoder = self._bundle.model.model.vision_tower
        features = np.concatenate(
            [extract_features(vision_encoder, faces.pixels, mirrored=mirrored) for mirrored in (False, True)]
        )
        truth = np.concatenate([faces.coefficients, faces.coefficients[:, MIRROR_INDEX]])
        people = load_faces(folder, "train")["subject"]
        predicted = regression_heads.cross_fitted_ridge(features, truth, [*people, *people])
        return PretrainData(features, truth, predicted, mean_targets=truth)

    @functools.cached_property
    def _tests(self) -> dict[str, tuple[np.ndarray, list[Image.Image]]]:
        out = {}
        for style in TESTED:
            faces = load_faces(self._crops(style, "test", self.budget.tests), "test")
            out[style] = coefficients_of(faces), [load_picture(picture) for picture in faces["picture"]]
        return out

    # --- one run --------------------------------------------------------------------------------------------------

    def _cached(self, name: str, inputs: dict[str, Any], work: Callable[[Path], Any]) -> Any:
        """Return the kept figures of a run, or do the run in a folder of its own, which is then removed."""
        digest = hashlib.sha256(json.dumps(inputs | self.made_by, sort_keys=True).encode()).hexdigest()[:8]
        path = self.out / "runs" / f"{name}-{digest}.json"
        if not path.is_file():
            started = time.perf_counter()
            found = work(path.with_suffix(""))
            write_json(path, inputs | {"figures": found, "seconds": round(time.perf_counter() - started)})
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        return json.loads(path.read_text(encoding="utf-8"))["figures"]

    def _variant(self, key: str) -> dict[int, Any]:
        """Return the figures of a variant by seed and style, with the constants."""
        budget = self.budget
        inputs = {"rows": budget.rows, "samples": budget.samples, "tests": budget.tests}
        return {
            seed: self._cached(f"{key}-{seed}", inputs, functools.partial(self._train_and_test, key, seed))
            for seed in range(budget.seeds)
        }

    def _train_and_test(self, key: str, seed: int, folder: Path) -> dict[str, Any]:
        variant, settings = VARIANTS[key], PretrainSettings(self.budget.samples, seed=seed)
        if variant.head is not None:
            head = regression_heads.train_head(variant.head, self._data, settings, self.accelerator.device)
            return self._scored(lambda _, crops: (head.predict(self._features(crops)), None))
        assert variant.make_targets is not None
        bundle = self._bundle
        model = new_model(bundle.tokenizer, bundle.model.model.vision_tower, seed)
        pretrain_language_model(
            model, bundle.processor, self._data, variant.make_targets, settings, self.accelerator,
            folder / "language.pt", name=f"{key}, seed {seed}", save_every=SAVE_EVERY,
        )  # fmt: skip
        recipe = {**bundle.recipe, "readout": "mean", "numbers": settings.numbers}
        trained = dataclasses.replace(bundle, model=model, recipe=recipe)
        scored = self._scored(lambda style, crops: predict(trained, variant.order, crops, name=f"testing {style}"))
        if variant.order == "analysis, numbers":
            for style, (_, crops) in self._tests.items():
                scored[style]["causes"] = causes(trained, crops, seed=SEED)
        return scored

    def _features(self, crops: Sequence[Image.Image]) -> np.ndarray:
        pixels = np.stack([np.asarray(crop) for crop in crops])
        return extract_features(self._bundle.model.model.vision_tower, pixels)

    def _scored(self, predict_crops: Callable[[str, Sequence[Image.Image]], tuple[np.ndarray, Any]]) -> dict[str, Any]:
        """Return figures by style."""
        constants = metrics.constants(self._data.truth)
        return {
            style: figures(true, *predict_crops(style, crops), constants)
            for style, (true, crops) in self._tests.items()
        }

    # --- personalisation ------------------------------------------------------------------------------------------

    def _personal(self) -> tuple[dict[int, dict[int, Any]], dict[int, Any]]:
        """Return the figures by number of pictures and seed, and those of the base model."""
        budget = self.budget
        most = max(budget.personal)
        splits = {"train": most, "validation": VALIDATION_ROWS, "test": budget.tests}
        settings = RenderSettings(
            rows=sum(splits.values()),
            looks={CHARACTER_STYLE: 1.0},
            subject=CHARACTER,
            splits=dict(splits),
            seed=SEED,
            take_share=0.0,
        )
        character = functools.cache(lambda: self._rendered(CHARACTER_STYLE, settings))
        inputs = {"tests": budget.tests, "of": most, "steps": budget.steps}
        base = self._cached(f"{PERSONAL}-base", inputs, lambda _: _test_on(self.model, character()))

        def work(size: int, seed: int, folder: Path) -> dict[str, Any]:
            adapter = self._distill(character(), size, seed, folder)
            return _test_on(adapter, character())

        found = {
            size: {
                seed: self._cached(f"{PERSONAL}-{size}-{seed}", inputs, functools.partial(work, size, seed))
                for seed in range(budget.seeds)
            }
            for size in budget.personal
        }
        return found, {0: base}

    def _distill(self, character: Path, size: int, seed: int, folder: Path) -> Path:
        """Train an adapter on some of the character's pictures and return its folder."""
        rows, adapter = folder / "faces", folder / "adapter"
        if not rows.exists():
            train = load_faces(character, "train")
            chosen = np.sort(np.random.default_rng([SEED, seed]).permutation(len(train))[:size])
            splits = {"train": train.select(chosen), "validation": load_faces(character, "validation")}
            with atomic_path(rows) as temporary:
                datasets.DatasetDict(splits).save_to_disk(str(temporary))
        changes = {"dataset": rows, "output": adapter, "model.base": self.model, "train.seed": seed}
        if self.budget.steps:
            changes |= {"train.max_steps": self.budget.steps}
        scripts = ROOT / "train"
        command = [sys.executable, str(scripts / "distill.py")]
        command += ["--config", str(scripts / "configs" / "quickstart.yaml"), "--set"]
        command += [f"{key}={value}" for key, value in changes.items()]
        if subprocess.run(command, check=False).returncode:
            raise SemanticFaceError(f"train/distill.py failed on {rows}; see its output.")
        return adapter


def _test_on(model: str | Path, character: Path) -> dict[str, Any]:
    """Return a model's figures on held-out pictures of a character, cropped by their own boxes."""
    bundle, faces = load_trained(model), load_faces(character, "test")
    crops = [crop_face(load_picture(row["picture"]), Box(*row["box"]), bundle.image_size) for row in faces]
    predictions = predict(bundle, "analysis, numbers", crops, name="testing the character")
    constants = metrics.constants(coefficients_of(load_faces(character, "train")))
    return {CHARACTER_STYLE: figures(coefficients_of(faces), *predictions, constants)}


if __name__ == "__main__":
    sys.exit(main())
