"""Are the papers' claims true here? What explanations cost or gain, in which order, beside plain regression.

    python eval/ablations.py              # an hour and a half on two quiet cores; killed, the same command goes on
    python eval/ablations.py --quick      # one seed, a tiny budget: a look, no result
    python eval/ablations.py --only coefficients semantics-first --seeds 5

Compared, each from the same data, the same pictures in the same order and as many steps, for each seed:

    coefficients           the 52 numbers alone
    semantics-first        words, then numbers, taught behind true words as in the paper
    semantics-first-seen   the same, but numbers taught behind the words of what can be seen (as nano is)
    coefficients-first     numbers, then words
    linear, mlp            no language model: a head on the tower's feature map
    personal               LoRA (train/distill.py) on 50, 200 and 1,000 pictures of one new character, beside the base

The first four are one small language model trained from nothing beside the frozen tower of `--model`; all learn from
the photo look alone and are tested on unseen people in the photo, toon and drawn looks. The tower itself is frozen as
it is and may have seen those looks: for transfer of the whole, give a model whose tower has seen photo alone. Crops are
given, so no face finder takes part. All read the means of their distributions, as nano does.

Numbers lie side by side in every variant: a number is then read off the picture and what the variant puts before it,
never off other numbers. A number's mean is drawn towards its label in all of them. `semantics-first-seen` needs words
as wrong as those at work: Stage I describes what ridge regression, fitted on other people, reads off each training map.
`coefficients-first` reads the numbers, puts them before the model in a row, and writes the words behind them.

`personal` trains `--personal` pictures for as many steps as train/configs/quickstart.yaml says, other pictures for each
seed, and tests on held-out pictures of the same character.

Writes into `--out`: `ablations.json`, `ablations.md`; pictures, and one JSON a run in `runs`, are kept, so nothing is
done twice. The last line is one JSON object: for each variant and look correlation and MAE, the agreements of words on
photo, and the gain of each personalisation: means over the seeds.
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
from semanticface.experiments.ablations import VARIANTS, answer, figures
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
LEARNT, TESTED = "photo", ("photo", "toon", "drawn")
CHARACTER, LOOK = 7, "imp"
SPLITS = {"train": 0.8, "test": 0.2}
FIRST_SUBJECT, SUBJECTS = 6_000_000, 20_000
SEED = 2027
VALIDATED = 64
SAVE_EVERY = 100


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much is done.

    Attributes:
        rows: pictures to learn from; their mirror images come on top.
        samples: pictures shown in a training.
        tests: pictures of each look to test on.
        seeds: trainings of each variant.
        personal: numbers of pictures of the character.
        steps: of a personalisation; 0 takes those of the config.
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
    """Run what is missing and return the exit code."""
    options = _options(arguments)
    try:
        results = Ablations(options).run()
    except SemanticFaceError as error:
        print(f"ablations: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ablations: interrupted; the same command goes on", file=sys.stderr)
        return 130
    print(json.dumps(results["headline"]))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    parser.add_argument("--model", default="nano", help="whose tower is looked through: nano, or a folder like it")
    parser.add_argument("--quick", action="store_true", help="a tiny budget, to see it work")
    parser.add_argument("--rows", type=int, help=f"pictures to learn from ({FULL.rows:,})")
    parser.add_argument("--samples", type=int, help=f"pictures shown in each training ({FULL.samples:,})")
    parser.add_argument("--tests", type=int, help=f"pictures of each look to test on ({FULL.tests})")
    parser.add_argument("--seeds", type=int, help=f"trainings of each variant ({FULL.seeds})")
    parser.add_argument(
        "--personal", type=int, nargs="+", metavar="N",
        help=f"pictures of the new character ({' '.join(map(str, FULL.personal))})",
    )  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=(*VARIANTS, PERSONAL), help="these alone (default: all)")
    parser.add_argument("--out", type=Path, default=Path("outputs/ablations"), help="folder (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="that draw pictures (all cores)")
    options = parser.parse_args(arguments)
    budget = QUICK if options.quick else FULL
    given = {name: getattr(options, name) for name in ("rows", "samples", "tests", "seeds", "personal")}
    for name, value in given.items():
        for each in value if isinstance(value, list) else [value]:
            if each is not None and each < 1:
                parser.error(f"--{name} is {each}: give at least 1")
    chosen = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items() if value}
    options.budget = dataclasses.replace(budget, **chosen)
    options.only = options.only or [*VARIANTS, PERSONAL]
    return options


class Ablations:
    """One command's work: pictures, trainings, tests, tables.

    Args:
        options: of the command line.
    """

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
        """Do what is missing; write and return the results."""
        runs = {key: self._variant(key) for key in VARIANTS if key in self.only}
        personal, base = self._personal() if PERSONAL in self.only else ({}, {})
        results = {
            "headline": tables.headline(runs, LEARNT, personal, base),
            "variants": {key: tables.plain(tables.over_seeds(found)) for key, found in runs.items()},
            "personal": {str(size): tables.plain(tables.over_seeds(found)) for size, found in personal.items()},
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
        shown = [*tables.variant_tables(runs, LEARNT), *tables.personal_tables(personal, base)]
        text = "\n\n".join(table.markdown() for table in shown)
        with atomic_open(self.out / "ablations.md") as file:
            file.write(f"{text}\n")
        write_json(self.out / "ablations.json", results, compact=True)
        print(f"\n{text}\n\n{self.out / 'ablations.md'}\n", flush=True)
        return results

    # --- pictures and what the tower sees in them ---------------------------------------------------------------

    def _drawn(self, name: str, settings: RenderSettings) -> Path:
        folder = self.out / "pictures" / f"{name}-{settings.rows}-{renderer_hash()}"
        return render_set(folder, settings, workers=self.workers)

    def _crops(self, style: str, split: str, rows: int) -> Path:
        settings = RenderSettings(
            rows=rows, looks={style: 1.0}, size=128, supersample=1, framing="crop", splits=SPLITS, only=split,
            first_subject=FIRST_SUBJECT, subjects=SUBJECTS, seed=SEED,
        )  # fmt: skip
        return self._drawn(f"{split}-{style}", settings)

    @functools.cached_property
    def _bundle(self) -> Bundle:
        return load_trained(self.model)

    @functools.cached_property
    def _sights(self) -> PretrainData:
        """What every variant learns from: the photo look, and its mirror images."""
        folder = self._crops(LEARNT, "train", self.budget.rows)
        faces = read_faces([folder], "train", folder.with_name(f"{folder.name}-pixels"), self.accelerator)
        tower = self._bundle.model.model.vision_tower
        maps = np.concatenate([extract_features(tower, faces.pixels, mirrored=mirrored) for mirrored in (False, True)])
        truth = np.concatenate([faces.coefficients, faces.coefficients[:, MIRROR_INDEX]])
        people = load_faces(folder, "train")["subject"]
        seen = regression_heads.cross_fitted_ridge(maps, truth, [*people, *people])
        return PretrainData(maps, truth, seen, aims=truth)

    @functools.cached_property
    def _tests(self) -> dict[str, tuple[np.ndarray, list[Image.Image]]]:
        out = {}
        for style in TESTED:
            faces = load_faces(self._crops(style, "test", self.budget.tests), "test")
            out[style] = coefficients_of(faces), [load_picture(picture) for picture in faces["picture"]]
        return out

    # --- one run --------------------------------------------------------------------------------------------------

    def _kept(self, name: str, told: dict[str, Any], work: Callable[[Path], Any]) -> Any:
        """Return what a run came to; it is done where it is not kept, in a folder of its own that then goes."""
        digest = hashlib.sha256(json.dumps(told | self.made_by, sort_keys=True).encode()).hexdigest()[:8]
        path = self.out / "runs" / f"{name}-{digest}.json"
        if not path.is_file():
            begun = time.perf_counter()
            found = work(path.with_suffix(""))
            write_json(path, told | {"figures": found, "seconds": round(time.perf_counter() - begun)})
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        return json.loads(path.read_text(encoding="utf-8"))["figures"]

    def _variant(self, key: str) -> dict[int, Any]:
        """Return the figures of a variant by seed and look, the constants among them."""
        budget = self.budget
        told = {"rows": budget.rows, "samples": budget.samples, "tests": budget.tests}
        return {
            seed: self._kept(f"{key}-{seed}", told, functools.partial(self._learn_and_test, key, seed))
            for seed in range(budget.seeds)
        }

    def _learn_and_test(self, key: str, seed: int, place: Path) -> dict[str, Any]:
        variant, settings = VARIANTS[key], PretrainSettings(self.budget.samples, seed=seed)
        if variant.head is not None:
            head = regression_heads.train_head(variant.head, self._sights, settings, self.accelerator.device)
            return self._scored(lambda _, crops: (head.read(self._maps(crops)), None))
        assert variant.teach is not None
        bundle = self._bundle
        model = new_model(bundle.tokenizer, bundle.model.model.vision_tower, seed)
        pretrain_language_model(
            model, bundle.processor, self._sights, variant.teach, settings, self.accelerator,
            place / "language.pt", name=f"{key}, seed {seed}", save_every=SAVE_EVERY,
        )  # fmt: skip
        recipe = {**bundle.recipe, "readout": "mean", "numbers": settings.numbers}
        learnt = dataclasses.replace(bundle, model=model, recipe=recipe)
        return self._scored(lambda style, crops: answer(learnt, variant.order, crops, name=f"reading {style}"))

    def _maps(self, crops: Sequence[Image.Image]) -> np.ndarray:
        pixels = np.stack([np.asarray(crop) for crop in crops])
        tower = self._bundle.model.model.vision_tower
        return extract_features(tower, pixels)

    def _scored(self, read: Callable[[str, Sequence[Image.Image]], tuple[np.ndarray, Any]]) -> dict[str, Any]:
        """Return figures by look."""
        constants = metrics.constants(self._sights.truth)
        return {style: figures(true, *read(style, crops), constants) for style, (true, crops) in self._tests.items()}

    # --- personalisation ------------------------------------------------------------------------------------------

    def _personal(self) -> tuple[dict[int, dict[int, Any]], dict[int, Any]]:
        """Return the figures by number of pictures and seed, and those of the base."""
        budget = self.budget
        most = max(budget.personal)
        shares = {"train": most, "validation": VALIDATED, "test": budget.tests}
        settings = RenderSettings(
            rows=sum(shares.values()), looks={LOOK: 1.0}, subject=CHARACTER, splits=dict(shares), seed=SEED
        )
        character = functools.cache(lambda: self._drawn(LOOK, settings))
        told = {"tests": budget.tests, "of": most, "steps": budget.steps}
        base = self._kept(f"{PERSONAL}-base", told, lambda _: _test_on(self.model, character()))

        def work(size: int, seed: int, place: Path) -> dict[str, Any]:
            adapter = self._distil(character(), size, seed, place)
            return _test_on(adapter, character())

        found = {
            size: {
                seed: self._kept(f"{PERSONAL}-{size}-{seed}", told, functools.partial(work, size, seed))
                for seed in range(budget.seeds)
            }
            for size in budget.personal
        }
        return found, {0: base}

    def _distil(self, character: Path, size: int, seed: int, place: Path) -> Path:
        """Train an adapter on some of the character's pictures and return its folder."""
        rows, adapter = place / "faces", place / "adapter"
        if not rows.exists():
            train = load_faces(character, "train")
            drawn = np.sort(np.random.default_rng([SEED, seed]).permutation(len(train))[:size])
            splits = {"train": train.select(drawn), "validation": load_faces(character, "validation")}
            with atomic_path(rows) as folder:
                datasets.DatasetDict(splits).save_to_disk(str(folder))
        changes = {"dataset": rows, "output": adapter, "model.base": self.model, "train.seed": seed}
        if self.budget.steps:
            changes |= {"train.max_steps": self.budget.steps}
        scripts = ROOT / "train"
        command = [sys.executable, str(scripts / "distill.py")]
        command += ["--config", str(scripts / "configs" / "quickstart.yaml"), "--set"]
        command += [f"{key}={value}" for key, value in changes.items()]
        if subprocess.run(command, check=False).returncode:
            raise SemanticFaceError(f"train/distill.py failed on {rows}; what it printed says why.")
        return adapter


def _test_on(model: str | Path, character: Path) -> dict[str, Any]:
    """Return a model's figures on the held-out pictures of a character, cut out by their own boxes."""
    bundle, faces = load_trained(model), load_faces(character, "test")
    crops = [crop_face(load_picture(row["picture"]), Box(*row["box"]), bundle.image_size) for row in faces]
    read = answer(bundle, "words, numbers", crops, name="reading the character")
    constants = metrics.constants(coefficients_of(load_faces(character, "train")))
    return {LOOK: figures(coefficients_of(faces), *read, constants)}


if __name__ == "__main__":
    sys.exit(main())
