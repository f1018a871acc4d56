"""SuperFace: align a model to what people see, with DPO on choices between renders, in rounds.

    python train/prefer.py --config train/configs/prefer_quickstart.yaml

Any setting of the config can be changed on the command line; what a setting means is said where it is defined
(``Settings`` below, ``RoundSettings``, ``CandidateSettings``, ``AlignSettings``):

    python train/prefer.py --config train/configs/prefer.yaml --set rounds.max_rounds=1 align.beta=0.3

Who chooses is the config's ``judge``. ``simulated`` stands for people where the truth is known: faces with exact
coefficients. With ``people`` the first run samples candidates and says how to annotate them; the second is given what
was chosen, learns from it, and trains a judge on it that answers for people in later rounds:

    python train/prefer.py --config train/configs/prefer.yaml
    semanticface annotate outputs/prefer/round-1/candidates.jsonl --dataset outputs/captures --annotator robin
    python train/prefer.py --config train/configs/prefer.yaml --choices choices.jsonl

The output folder has a folder for every round with all that it was made of, ``rounds.json`` with its figures, and
``adapter``, that of the best round; where people chose, ``judges`` holds the two that learned from them. A run that was
stopped, however rudely, goes on when the same command is given again.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

# Before TRL is imported: nothing is told to anybody.
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
from semanticface.preference.regions import AREAS, HALVES
from semanticface.preference.round import RoundRunner, RoundSettings
from semanticface.preference.rounds import Rounds, claim, run_rounds
from semanticface.preference.sampling import CandidateSettings
from semanticface.preference.types import Choice


@dataclass(frozen=True)
class Settings:
    """All that decides an alignment.

    Attributes:
        model: folder of the adapter to begin from, made by ``train/distill.py``.
        dataset: folder of faces; its ``train`` split is learnt from, its ``validation`` split measured on.
        output: folder of the rounds.
        judge: who chooses.
        truth: folder of the same faces with exact coefficients, for simulated people and to measure by; leave it out
            where the dataset's own are exact.
        capture: whether the dataset's coefficients, as the capture software wrote them, are candidates too.
        noise: how far simulated people misjudge, percent of the inter-pupil distance.
        jnd: the least difference they notice, likewise.
        rounds: how many, and what each is made of.
        candidates: how they are sampled.
        align: how a model learns from pairs.
    """

    # What, and where to.
    model: str
    dataset: str
    output: str
    # Who chooses.
    judge: Literal["simulated", "people"]
    truth: str | None = None
    capture: bool = True
    noise: float = NOISE
    jnd: float = JND
    # How.
    rounds: RoundSettings = field(default_factory=RoundSettings)
    candidates: CandidateSettings = field(default_factory=CandidateSettings)
    align: AlignSettings = field(default_factory=AlignSettings)


def good(path: Path) -> list[Choice]:
    """Read choices, and say which lines hold none."""
    found, problems = read_choices(path)
    if not found:
        raise TableError(f"{path} holds no choices: {problems[0]} Give what semanticface choices --export wrote.")
    for problem in problems:
        print(f"left out  {problem}")
    return [choice for _, choice in found]


def prefer(settings: Settings, choices: Path | None = None) -> Rounds | None:
    """Run an alignment, or what is left of it; None where people have to choose first."""
    output = Path(settings.output)
    if choices is not None and settings.judge != "people":
        raise ConfigError("--choices is for the setting judge: people")

    # The data: pictures, and what the capture software says of them.
    train = load_faces(settings.dataset, "train")
    require_consent(settings.dataset, train, "train")
    require_consent(settings.dataset, load_faces(settings.dataset, "validation"), "evaluate")
    alignment = RoundRunner(
        start=Path(settings.model),
        dataset=Path(settings.dataset),
        output=output,
        rounds=settings.rounds,
        candidates=settings.candidates,
        align=settings.align,
        truth=Path(settings.truth or settings.dataset),
        labels=coefficients_of(train) if settings.capture else None,
        choices=None if choices is None else good(choices),
    )

    # The same output folder means the same alignment, begun or finished.
    record = dataclasses.asdict(settings) | {
        "begun_from": fingerprint(settings.model),
        "data": dataset_record(train, settings.dataset)["fingerprint"],
    }
    claim(output, record)

    # Those who choose.
    if settings.judge == "simulated":
        judges = simulated_judges(
            alignment.dataset, alignment.truth, noise=settings.noise, jnd=settings.jnd, seed=settings.rounds.seed
        )
    else:
        slates, model = alignment.slates(1)
        made = alignment.folder(1)
        # What is learnt from, and the halves in which rounds are compared.
        areas = tuple(area for area in AREAS if area in {*HALVES, *alignment.areas})
        if choices is None and not (made / "choices.jsonl").exists():
            print(f"{len(slates):,} pictures have candidates. Let people choose, export, and run this again:\n")
            words = (
                f"--dataset {settings.dataset} --areas {','.join(areas)} --per-picture {settings.rounds.per_picture}"
            )
            print(f"  semanticface annotate {made / 'candidates.jsonl'} {words} --annotator NAME")
            print(f"  semanticface choices {made / 'choices.sqlite'} --export choices.jsonl")
            print("  python train/prefer.py … --choices choices.jsonl")
            return None
        chosen = alignment.chosen(1, slates, model)
        judges = learned_judges(
            chosen,
            slates,
            alignment.start,
            alignment.measured,
            output / "judges",
            areas=areas,
            seed=settings.rounds.seed,
        )

    # The rounds.
    if settings.judge == "people" and settings.truth is None:
        print("errors    are told against what the capture software wrote, which people may find wrong")
    result = run_rounds(alignment, judges)
    print(f"best      round {result.best} of {result.made}: {result.stopped}")
    print(f"{output / 'adapter'}: predict and evaluate with --model {output / 'adapter'}")
    return result


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a YAML file, see train/configs/prefer*.yaml")
    parser.add_argument("--choices", type=Path, help="what people chose between round 1's candidates, JSONL")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="settings that win over the config"
    )
    options = parser.parse_args()
    try:
        prefer(read_settings(options.config, Settings, options.set), options.choices)
    except SemanticFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the step it was in", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
