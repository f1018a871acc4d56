"""Controlled experiment: does alignment to choices between renders correct the errors of capture software?

    python eval/superface.py              # two hours of one core; the same command resumes
    python eval/superface.py --quick      # one seed, one round, a tiny budget: a smoke test

For each seed:

1. Takes of rendered people. Only simulated people and the measurements use the exact coefficients.
2. Pseudo labels: what capture software would have written (``experiments/noisy_captures.py``: gain and bias of each
   action, dead actions, crosstalk, noise and lag, as large as in a real Live Link Face take).
3. SFT: a language model trained from scratch on the frozen vision encoder of `--model` learns the pseudo labels, then a
   LoRA adapter on it (train/distill.py). The encoder learnt exact labels of other rendered people; here it only gives
   features.
4. Rounds of alignment (``preference/rounds.py``): candidates sampled from the model plus the pseudo label, comparisons
   of renders by a simulated person, DPO. This is done twice, with halves judged and paired by region and with whole
   faces, with equally many questions to people. A second person audits each round. Rounds after the stopping rule are
   made and reported too; the headline takes the round that the rule chose.

Measured on held-out people: errors against the ground truth; blind comparisons by a third simulated person with the SFT
model and with the pseudo labels of the same pictures, half by half, with the labels also as whole faces.

Writes `superface.json` and `superface.md` to `--out`, where intermediate results are kept for resuming. The last line
is one JSON object.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semanticface.cli.scripts import ScriptParser
from semanticface.utils.files import write_json

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # before TRL is imported

import numpy as np
import torch
from accelerate import Accelerator

from semanticface.arkit import MIRROR_INDEX
from semanticface.data.faces import coefficients_of
from semanticface.errors import SemanticFaceError
from semanticface.experiments.ablations import VARIANTS
from semanticface.experiments.noisy_captures import CaptureErrors, TakeSettings, record_takes
from semanticface.experiments.superface import WAYS, figures, headline, tables
from semanticface.models.files import resolve_model
from semanticface.models.loading import load_trained
from semanticface.preference.dpo import AlignSettings
from semanticface.preference.judges import SimulatedJudge
from semanticface.preference.learned_judge import truth_of
from semanticface.preference.round import RoundRunner, RoundSettings
from semanticface.preference.rounds import Judges, claim_output_dir, run_rounds
from semanticface.preference.sampling import CandidateSettings
from semanticface.recipe import files_sha256, git_commit, versions, write_recipe
from semanticface.training.nano_pretraining import PretrainData, PretrainSettings, new_model, pretrain_language_model
from semanticface.training.nano_vision import extract_features, read_faces
from semanticface.utils.files import atomic_open, atomic_path

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Budget:
    """Size of the experiment, per seed.

    Attributes:
        takes: people recorded.
        samples: pictures seen by the language model.
        steps: of the adapter on it.
        rounds: of alignment.
        candidates: as for train/prefer.py.
        align: as for train/prefer.py.
    """

    takes: TakeSettings
    samples: int
    steps: int
    rounds: RoundSettings
    candidates: CandidateSettings
    align: AlignSettings


FULL = Budget(
    takes=TakeSettings(),
    samples=12_000,
    steps=60,
    rounds=RoundSettings(early_stopping=False, per_picture=16, eval_rows=360),
    candidates=CandidateSettings(count=8, tries=2),
    align=AlignSettings(per_device_train_batch_size=160, learning_rate=4e-3, precision="fast"),
)
QUICK = Budget(
    takes=TakeSettings(train=12, validation=4, frames=8, style="drawn"),
    samples=640,
    steps=8,
    rounds=RoundSettings(max_rounds=1, early_stopping=False, per_picture=4, eval_rows=32),
    candidates=CandidateSettings(),
    align=AlignSettings(num_train_epochs=1),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing; return the exit code."""
    parser = ScriptParser(__doc__)
    parser.add_argument("--model", default="nano", help="model whose vision encoder to use")
    parser.add_argument("--quick", action="store_true", help="a tiny budget, as a smoke test")
    parser.add_argument("--seeds", type=int, help="number of seeds (default: 3, with --quick 1)")
    parser.add_argument("--out", type=Path, default=Path("outputs/superface"), help="folder (default: %(default)s)")
    options = parser.parse_args(arguments)
    seeds = (1 if options.quick else 3) if options.seeds is None else options.seeds
    if seeds < 1:
        parser.error(f"--seeds is {seeds}: give at least 1")
    try:
        results = run(options.model, QUICK if options.quick else FULL, seeds, options.out)
    except SemanticFaceError as error:
        print(f"superface: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("superface: interrupted; the same command resumes", file=sys.stderr)
        return 130
    print(json.dumps(results["headline"]))
    return 0


def run(model: str, budget: Budget, seeds: int, out: Path) -> dict[str, Any]:
    """Run every seed; write and return the results."""
    folder, _ = resolve_model(model)
    weights = files_sha256(list(folder.glob("*.safetensors")))[:16]
    claim_output_dir(out, {"budget": dataclasses.asdict(budget), "weights": weights})
    runs = [Experiment(model, budget, seed, out / f"seed-{seed}").run() for seed in range(seeds)]
    results = {
        "headline": headline(runs),
        "runs": runs,
        "recipe": {
            "budget": dataclasses.asdict(budget),
            "model": Path(model).name,
            "weights": weights,
            "commit": git_commit(),
            "versions": versions(),
        },
    }
    text = "\n\n".join(table.markdown() for table in tables(runs))
    with atomic_open(out / "superface.md") as file:
        file.write(f"{text}\n")
    write_json(out / "superface.json", results, compact=True)
    print(f"\n{text}\n\n{out / 'superface.md'}\n", flush=True)
    return results


class Experiment:
    """One seed.

    Args:
        model: whose vision encoder is used.
        budget: size of the experiment.
        seed: of people, errors, trainings and judges.
        out: folder of everything the experiment makes.
    """

    def __init__(self, model: str, budget: Budget, seed: int, out: Path) -> None:
        self.model, self.budget, self.seed, self.out = model, budget, seed, out
        takes = budget.takes
        people = takes.first_subject + seed * (takes.train + takes.validation)
        self.takes = dataclasses.replace(takes, seed=seed, first_subject=people)
        self.errors = CaptureErrors.sample(seed)

    def run(self) -> dict[str, Any]:
        """Return the figures of every round of both ways."""
        labels = record_takes(self.out, self.takes, self.errors)
        exact, pseudo = self.out / "exact", self.out / "captured"
        start = self._supervised(pseudo, labels["train"])
        truth = truth_of(pseudo, exact)
        # Each makes errors of their own.
        labelling, auditing, comparing = (SimulatedJudge(truth, seed=3 * self.seed + nth) for nth in range(3))
        results: dict[str, Any] = {"seed": self.seed}
        for way in WAYS:
            print(f"seed {self.seed}, pairs by {way}", flush=True)
            runner = RoundRunner(
                start=start,
                dataset=pseudo,
                output=self.out / way,
                rounds=dataclasses.replace(self.budget.rounds, pairs=way, seed=self.seed),
                candidates=dataclasses.replace(self.budget.candidates, seed=1000 * self.seed),
                align=dataclasses.replace(self.budget.align, seed=self.seed),
                truth=exact,
                labels=labels["train"],
            )
            made = run_rounds(runner, Judges(labelling, auditing))
            held_out = runner.held_out_set
            pseudo_labels = coefficients_of(held_out.faces(pseudo))
            answers = [runner.predict_held_out(number) for number in range(made.made + 1)]
            found = [figures(held_out, each, answers[0], pseudo_labels, comparing, seed=self.seed) for each in answers]
            for figure, metrics in zip(found[1:], made.metrics[1:], strict=True):
                figure["blank_ratio"] = metrics["margins"]["blank_ratio"]
            results["labels"] = held_out.errors(pseudo_labels)
            results[way] = {"best": made.best, "stopped": made.stopped, "rounds": found}
        return results

    def _supervised(self, pseudo: Path, labels: np.ndarray) -> Path:
        """Return the adapter of a model trained on the pseudo labels only."""
        base, adapter = self.out / "base", self.out / "sft"
        if not base.exists():
            self._pretrain(pseudo, labels, base)
        scripts = ROOT / "train"
        changes = {
            "dataset": pseudo, "output": adapter, "model.base": base, "train.max_steps": self.budget.steps,
            "train.seed": self.seed, "augment.numbers_only_prob": 1.0, "augment.decouple_numbers": "false",
            "train.learning_rate": 3e-4,
        }  # fmt: skip
        command = [sys.executable, str(scripts / "distill.py"), "--config", str(scripts / "configs/quickstart.yaml")]
        command += ["--set", *(f"{key}={value}" for key, value in changes.items())]
        if subprocess.run(command, check=False).returncode:
            raise SemanticFaceError(f"train/distill.py failed on {pseudo}; see its output.")
        return adapter

    def _pretrain(self, pseudo: Path, labels: np.ndarray, out: Path) -> None:
        """Train a language model on the pseudo labels and the frozen vision encoder, and save it as a base."""
        bundle, accelerator = load_trained(self.model), Accelerator(cpu=not torch.cuda.is_available())
        vision_encoder = bundle.model.model.vision_tower
        pixels = read_faces([pseudo], "train", self.out / "pixels", accelerator).pixels
        features = np.concatenate(
            [extract_features(vision_encoder, pixels, mirrored=mirrored) for mirrored in (False, True)]
        )
        truth = np.concatenate([labels, labels[:, MIRROR_INDEX]])
        settings = PretrainSettings(self.budget.samples, seed=self.seed)
        model = new_model(bundle.tokenizer, vision_encoder, self.seed)
        make_targets = VARIANTS["coefficients"].make_targets
        assert make_targets is not None
        pretrain_language_model(
            model, bundle.processor, PretrainData(features, truth, truth, truth), make_targets, settings, accelerator,
            self.out / "language.pt", name=f"SFT, seed {self.seed}",
        )  # fmt: skip
        with atomic_path(out) as folder:
            model.to(torch.bfloat16).save_pretrained(folder)
            bundle.processor.save_pretrained(folder)
            recipe = {key: value for key, value in bundle.recipe.items() if key != "calibration"}
            write_recipe(folder, recipe | {"settings": dataclasses.asdict(settings), "numbers": settings.numbers})


if __name__ == "__main__":
    sys.exit(main())
