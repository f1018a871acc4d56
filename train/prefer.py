"""SuperFace: align a model to what people see, by rounds of DPO on choices between renders.

    python train/prefer.py --config train/configs/prefer_quickstart.yaml

The command line can override any setting of the config; settings are documented where they are defined (``Settings``
below, ``RoundSettings``, ``CandidateSettings``, ``AlignSettings``):

    python train/prefer.py --config train/configs/prefer.yaml --set rounds.max_rounds=1 align.beta=0.3

The config's ``judge`` makes the choices. ``simulated`` stands for people where the ground truth is known: faces with
exact coefficients. With ``people`` the first run samples candidates and prints how to annotate them; the second gets
the choices, trains on them, and trains a judge on them that answers for people in later rounds:

    python train/prefer.py --config train/configs/prefer.yaml
    semanticface annotate outputs/prefer/round-1/candidates.jsonl --dataset outputs/captures --annotator robin
    python train/prefer.py --config train/configs/prefer.yaml --choices choices.jsonl

The output folder has a folder for every round, ``rounds.json`` with the metrics, and ``adapter``, the best round's;
where people chose, ``judges`` holds the two learned judges. A killed run resumes with the same command.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

# Before TRL is imported: no telemetry.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

from semanticface.cli.scripts import ScriptParser
from semanticface.config import read_settings
from semanticface.data.consent import require_consent
from semanticface.data.faces import coefficients_of, dataset_record, load_faces
from semanticface.errors import ConfigError, SemanticFaceError, TableError
from semanticface.preference.dpo import AlignSettings
from semanticface.preference.files import fingerprint, read_choices
from semanticface.preference.judges import JND, NOISE
from semanticface.preference.learned_judge import learned_judges, simulated_judges
from semanticface.preference.regions import HALVES, REGIONS
from semanticface.preference.round import RoundRunner, RoundSettings
from semanticface.preference.rounds import Rounds, claim_output_dir, run_rounds
from semanticface.preference.sampling import CandidateSettings
from semanticface.preference.types import Choice


@dataclass(frozen=True)
class Settings:
    """Settings of an runner.

    Attributes:
        model: folder of the adapter to start from, made by ``train/distill.py``.
        dataset: folder of faces; trains on its ``train`` split and measures on its ``validation`` split.
        output: folder of the rounds.
        judge: who makes the choices.
        truth: folder of the same faces with exact coefficients, for simulated people and to measure errors; leave it
            out where the dataset's own are exact.
        capture: whether the dataset's coefficients, from the capture software, are candidates too.
        noise: scale of simulated people's error, percent of the inter-pupil distance.
        jnd: their just noticeable difference, percent of the inter-pupil distance.
        rounds: how rounds are made.
        candidates: how candidates are sampled.
        align: how DPO trains.
    """

    model: str
    dataset: str
    output: str
    judge: Literal["simulated", "people"]
    truth: str | None = None
    capture: bool = True
    noise: float = NOISE
    jnd: float = JND
    rounds: RoundSettings = field(default_factory=RoundSettings)
    candidates: CandidateSettings = field(default_factory=CandidateSettings)
    align: AlignSettings = field(default_factory=AlignSettings)


def read_valid_choices(path: Path) -> list[Choice]:
    """Read choices, and print errors in other lines."""
    found, problems = read_choices(path)
    if not found:
        raise TableError(f"{path} holds no choices: {problems[0]} Give what semanticface choices --export wrote.")
    for problem in problems:
        print(f"left out  {problem}")
    return [choice for _, choice in found]


def prefer(settings: Settings, choices: Path | None = None) -> Rounds | None:
    """Run or resume an alignment; None where people have to choose first."""
    output = Path(settings.output)
    if choices is not None and settings.judge != "people":
        raise ConfigError("--choices is for the setting judge: people")

    train = load_faces(settings.dataset, "train")
    require_consent(settings.dataset, train, "train")
    require_consent(settings.dataset, load_faces(settings.dataset, "validation"), "evaluate")
    runner = RoundRunner(
        start=Path(settings.model),
        dataset=Path(settings.dataset),
        output=output,
        rounds=settings.rounds,
        candidates=settings.candidates,
        align=settings.align,
        truth=Path(settings.truth or settings.dataset),
        labels=coefficients_of(train) if settings.capture else None,
        choices=None if choices is None else read_valid_choices(choices),
    )

    record = dataclasses.asdict(settings) | {
        "begun_from": fingerprint(settings.model),
        "data": dataset_record(train, settings.dataset)["fingerprint"],
    }
    claim_output_dir(output, record)

    if settings.judge == "simulated":
        judges = simulated_judges(
            runner.dataset, runner.truth, noise=settings.noise, jnd=settings.jnd, seed=settings.rounds.seed
        )
    else:
        candidate_sets, model = runner.sample_candidates(1)
        folder = runner.folder(1)
        # The regions to train on, and the halves in which rounds are compared.
        regions = tuple(region for region in REGIONS if region in {*HALVES, *runner.regions})
        if choices is None and not (folder / "choices.jsonl").exists():
            print(f"{len(candidate_sets):,} pictures have candidates. Let people choose, export, and run this again:\n")
            options = f"--dataset {settings.dataset} --regions {','.join(regions)}"
            options += f" --per-picture {settings.rounds.per_picture}"
            print(f"  semanticface annotate {folder / 'candidates.jsonl'} {options} --annotator NAME")
            print(f"  semanticface choices {folder / 'choices.sqlite'} --export choices.jsonl")
            print("  python train/prefer.py … --choices choices.jsonl")
            return None
        collected = runner.collect_choices(1, candidate_sets, model)
        judges = learned_judges(
            collected,
            candidate_sets,
            runner.start,
            runner.held_out_set,
            output / "judges",
            regions=regions,
            seed=settings.rounds.seed,
        )

    if settings.judge == "people" and settings.truth is None:
        print("errors    are measured against the labels of the capture software, which people may find wrong")
    result = run_rounds(runner, judges)
    print(f"best      round {result.best} of {result.made}: {result.stopped}")
    print(f"{output / 'adapter'}: predict and evaluate with --model {output / 'adapter'}")
    return result


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a YAML file, see train/configs/prefer*.yaml")
    parser.add_argument("--choices", type=Path, help="people's choices between round 1's candidates, JSONL")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="settings that override the config"
    )
    options = parser.parse_args()
    try:
        prefer(read_settings(options.config, Settings, options.set), options.choices)
    except SemanticFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command resumes at this step", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
