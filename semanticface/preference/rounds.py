"""Rounds of alignment: sample, ask, choose, pair, train, measure. Each step leaves a file, so a stopped run goes on.

``round-1`` and those after it hold ``candidates.jsonl``, ``choices.jsonl``, ``pairs.jsonl`` (learnt from),
``held_out_pairs.jsonl`` (measured on), ``adapter``, ``predictions.jsonl`` (of the validation split) and
``metrics.json``; ``round-0`` what the model said before. A step whose file is there is not taken again.
``rounds.json`` says which round is the best and why no more were made; ``adapter`` is that round's.

Two judges keep each other honest. One answers the questions that the model learns from; the other, from which it never
learns, compares what it says of held-out pictures before and after. A model that found out how to please the first
judge does not win with the second: unless it beats the round before in more than half of these comparisons, by the
interval, the alignment ends and the round before is the best, whatever the first judge says.
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
from semanticface.preference.regions import AREAS
from semanticface.preference.round import RoundRunner
from semanticface.recipe import RECIPE_NAME
from semanticface.utils.files import atomic_path, write_json

_RESULT = "rounds.json"


@dataclass(frozen=True, slots=True)
class Judges:
    """Who judges in a round.

    Attributes:
        labels: answers the questions that are learnt from.
        audits: compares what was learnt with what was known before; must not have seen what the first one says.
    """

    labels: Judge
    audits: Judge


@dataclass(frozen=True, slots=True)
class Rounds:
    """What an alignment came to.

    Attributes:
        best: number of the best round; 0 for the model as it was.
        made: rounds that were made.
        stopped: why no more.
        metrics: of each round, the model as it was first: ``Measured.errors``, and of rounds that were made ``audit``
            and ``label`` (``win_rate`` over the round before, in the eyes of either judge), ``margins`` of the pairs
            held out, and ``pairs`` (``PairCounts``).
    """

    best: int
    made: int
    stopped: str
    metrics: tuple[dict[str, Any], ...]


def run_rounds(alignment: RoundRunner, judges: Judges) -> Rounds:
    """Make rounds until the auditor sees no more gain, or there are as many as wanted; or go on with what is there.

    Args:
        alignment: what from and how.
        judges: who choose.

    Returns:
        What it came to, as in ``rounds.json``.

    Raises:
        DatasetError: no candidates, no choices or too few pairs.
        ModelError: files of another model, or nothing to begin from.
        SemanticFaceError: the disk refuses.
    """
    if not (alignment.start / "adapter_config.json").exists():
        raise ModelError(f"{alignment.start} is no adapter: make one with train/distill.py, and begin from that.")
    say = alignment.say
    answers = alignment.predicted(0)
    metrics: list[dict[str, Any]] = [alignment.measured.errors(answers)]
    write_json(alignment.folder(0) / "metrics.json", metrics[0])
    say(f"round 0   {_told(metrics[0])}")
    best, stopped = 0, ""
    for number in range(1, alignment.rounds.max_rounds + 1):
        slates, model = alignment.slates(number)
        choices = alignment.chosen(number, slates, model, judges.labels)
        learnt, measured, counts = alignment.paired(number, slates, choices)
        say(f"pairs     {len(learnt):,} to learn, {len(measured):,} held out, of {counts.choices:,} choices")
        margins = alignment.trained(number, learnt, measured)
        newer = alignment.predicted(number)
        both = alignment.measured.compared(newer, answers)
        audited, labelled = (
            win_rate(judge, both, seed=alignment.rounds.seed) for judge in (judges.audits, judges.labels)
        )
        found = alignment.measured.errors(newer) | {
            "audit": _estimates(audited),
            "label": _estimates(labelled),
            "margins": margins,
            "pairs": dataclasses.asdict(counts),
        }
        write_json(alignment.folder(number) / "metrics.json", found)
        metrics.append(found)
        share = audited["all"]
        say(f"round {number}   {_told(found)}; auditor {share.value:.1%} ({share.low:.1%} to {share.high:.1%})")
        ratio = margins["blank_ratio"]
        left = "nothing was learnt" if ratio is None else f"{ratio:.0%} of what was learnt is left with a blank picture"
        say(f"held out  {margins['accuracy']:.1%} of {margins['pairs']:,} pairs moved the right way; {left}")
        if not stopped and not share.low > 0.5:
            stopped = (
                f"round {number} wins {share.value:.1%} of the auditor's comparisons with round {best}, perhaps only "
                f"{share.low:.1%}: no gain that is sure"
            )
        if stopped and alignment.rounds.early_stopping:
            break
        best, answers = best if stopped else number, newer
    stopped = stopped or f"{alignment.rounds.max_rounds} rounds were asked for"
    _copy_adapter(alignment.model(best), alignment.output / "adapter")
    result = Rounds(best, len(metrics) - 1, stopped, tuple(metrics))
    write_json(alignment.output / _RESULT, dataclasses.asdict(result))
    return result


def _estimates(found: dict[str, Estimate]) -> dict[str, dict[str, float]]:
    return {area: dataclasses.asdict(estimate) for area, estimate in found.items()}


def _told(metrics: dict[str, Any]) -> str:
    return "vertex error " + ", ".join(f"{area} {metrics[f'vertex_error_{area}']:.2f} %" for area in AREAS)


def _copy_adapter(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        temporary.mkdir()
        for name in ("adapter_model.safetensors", "adapter_config.json", RECIPE_NAME, PEOPLE_NAME):
            if name != PEOPLE_NAME or (source / name).exists():
                shutil.copyfile(source / name, temporary / name)


def claim(output: Path, settings: dict[str, Any]) -> None:
    """Claim a folder, or check that what it holds was made with the same settings.

    Raises:
        ConfigError: it was begun with others; going on would mix two runs.
        SemanticFaceError: the disk refuses.
    """
    path = output / "settings.json"
    settings = json.loads(json.dumps(settings))
    if any(each.is_dir() for each in output.glob("*")):
        try:
            begun = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read: {error}. Remove {output} to start anew.") from error
        differing = sorted(key for key in begun | settings if begun.get(key) != settings.get(key))
        if differing:
            raise ConfigError(
                f"{output} was begun with other settings: {', '.join(differing)}. Use the same, choose "
                "another output, or remove the folder to start anew."
            )
    write_json(path, settings)
