"""Rounds of alignment: sample, ask, pair, train, measure. Each step leaves a file, so a stopped run resumes.

``round-1`` and later hold ``candidates.jsonl``, ``choices.jsonl``, ``pairs.jsonl`` (to train on),
``held_out_pairs.jsonl`` (to measure on), ``adapter``, ``predictions.jsonl`` (of the validation split) and
``metrics.json``; ``round-0`` has the predictions and metrics of the model at the start. A step whose file exists is
skipped. ``rounds.json`` says which round is the best and why the rounds ended; ``adapter`` is that round's.

Two judges guard against reward hacking. The labeler answers the questions that the model learns from. The auditor, from
which it never learns, compares predictions for held-out pictures before and after. A model that exploits the labeler
does not win with the auditor: unless it beats the previous round in significantly more than half of these comparisons,
alignment ends and the previous round is the best, whatever the labeler says.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semanticface.data.provenance import PEOPLE_NAME
from semanticface.errors import ConfigError, ModelError
from semanticface.evaluation.bootstrap import Estimate
from semanticface.preference.judges import Judge, win_rate
from semanticface.preference.regions import REGIONS
from semanticface.preference.round import RoundRunner
from semanticface.recipe import RECIPE_NAME
from semanticface.utils.files import atomic_path, write_json

_RESULT = "rounds.json"


@dataclass(frozen=True, slots=True)
class Judges:
    """The two judges of a round.

    Attributes:
        labeler: answers the questions to learn from.
        auditor: compares each round's model with the previous one; independent of the labeler.
    """

    labeler: Judge
    auditor: Judge


@dataclass(frozen=True, slots=True)
class Rounds:
    """The result of an alignment.

    Attributes:
        best: number of the best round; 0 for the model at the start.
        made: number of rounds made.
        stopped: why they ended.
        metrics: of each round, from round 0: ``HeldOutSet.errors``, and from round 1 on ``audit`` and ``label``
            (``win_rate`` over the previous round by either judge), ``margins`` of the held-out pairs, and ``pairs``
            (``PairCounts``).
    """

    best: int
    made: int
    stopped: str
    metrics: tuple[dict[str, Any], ...]


def run_rounds(runner: RoundRunner, judges: Judges) -> Rounds:
    """Make rounds until the auditor sees no gain or ``max_rounds`` is reached; resumes from existing files.

    Args:
        runner: of the steps.
        judges: labeler and auditor.

    Returns:
        The result, as in ``rounds.json``.

    Raises:
        DatasetError: no candidates, no choices or too few pairs.
        ModelError: files of another model, or no adapter to start from.
        SemanticFaceError: a file cannot be written.
    """
    if not (runner.start / "adapter_config.json").exists():
        raise ModelError(f"{runner.start} is not an adapter: train one with `semanticface train`, and start from that.")
    log = runner.log
    answers = runner.predict_held_out(0)
    metrics: list[dict[str, Any]] = [runner.held_out_set.errors(answers)]
    write_json(runner.folder(0) / "metrics.json", metrics[0])
    log(f"round 0   {_summary(metrics[0])}")
    best, stopped = 0, ""
    for number in range(1, runner.rounds.max_rounds + 1):
        candidate_sets, model = runner.sample_candidates(number)
        choices = runner.collect_choices(number, candidate_sets, model, judges.labeler)
        training, held_out, counts = runner.build_pairs(number, candidate_sets, choices)
        log(f"pairs     {len(training):,} to train on, {len(held_out):,} held out, of {counts.choices:,} choices")
        margins = runner.train_adapter(number, training, held_out)
        newer = runner.predict_held_out(number)
        both = runner.held_out_set.compare(newer, answers)
        audit, label = (win_rate(judge, both, seed=runner.rounds.seed) for judge in (judges.auditor, judges.labeler))
        found = runner.held_out_set.errors(newer) | {
            "audit": _estimates(audit),
            "label": _estimates(label),
            "margins": margins,
            "pairs": dataclasses.asdict(counts),
        }
        write_json(runner.folder(number) / "metrics.json", found)
        metrics.append(found)
        wins = audit["all"]
        log(f"round {number}   {_summary(found)}; auditor {wins.value:.1%} ({wins.low:.1%} to {wins.high:.1%})")
        ratio = margins["blank_ratio"]
        rest = "no gain" if ratio is None else f"{ratio:.0%} of the gain remains with a blank picture"
        log(f"held out  {margins['accuracy']:.1%} of {margins['pairs']:,} pairs moved the right way; {rest}")
        if not stopped and not wins.low > 0.5:
            stopped = (
                f"round {number} wins {wins.value:.1%} of the auditor's comparisons with round {best}, with a lower "
                f"bound of {wins.low:.1%}: no significant gain"
            )
        if stopped and runner.rounds.early_stopping:
            break
        best, answers = best if stopped else number, newer
    stopped = stopped or f"reached rounds.max_rounds, {runner.rounds.max_rounds}"
    _copy_adapter(runner.model(best), runner.output / "adapter")
    result = Rounds(best, len(metrics) - 1, stopped, tuple(metrics))
    write_json(runner.output / _RESULT, dataclasses.asdict(result))
    return result


def _estimates(found: dict[str, Estimate]) -> dict[str, dict[str, float]]:
    return {region: dataclasses.asdict(estimate) for region, estimate in found.items()}


def _summary(metrics: dict[str, Any]) -> str:
    return "vertex error " + ", ".join(f"{region} {metrics[f'vertex_error_{region}']:.2f} %" for region in REGIONS)


def _copy_adapter(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        temporary.mkdir()
        for name in ("adapter_model.safetensors", "adapter_config.json", RECIPE_NAME, PEOPLE_NAME):
            if name != PEOPLE_NAME or (source / name).exists():
                shutil.copyfile(source / name, temporary / name)


def claim_output_dir(output: Path, settings: dict[str, Any]) -> None:
    """Claim a folder for an alignment, or check that its rounds were made with the same settings.

    Raises:
        ConfigError: they were made with other settings.
        SemanticFaceError: the folder cannot be written.
    """
    path = output / "settings.json"
    settings = json.loads(json.dumps(settings))
    if any(each.is_dir() for each in output.glob("*")):
        try:
            previous = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read: {error}. Remove {output} to start over.") from error
        differing = sorted(key for key in previous | settings if previous.get(key) != settings.get(key))
        if differing:
            raise ConfigError(
                f"{output} has rounds with other settings: {', '.join(differing)}. Use the same, choose another "
                "output, or remove the folder to start over."
            )
    write_json(path, settings)
