"""The figures of a model card, as tables and as the Hub's model index, from results files.

Two kinds of file are supported: ``benchmark.json`` of ``eval/benchmark.py`` and ``metrics.json`` of
``eval/evaluate.py``. A file about another model is refused; no figure comes from anywhere else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from semanticface.errors import ConfigError
from semanticface.evaluation import metrics, published
from semanticface.evaluation.benchmark import MODEL, SETS
from semanticface.hub.public_recipe import public_command
from semanticface.inference import intervals
from semanticface.recipe import files_sha256

_TASK = "image-text-to-text"
_TASK_NAME = "52 ARKit coefficients of a face"
# The project's names of metrics to the Hub's.
_METRICS = {"mae": "mae", "rmse": "rmse", "correlation": "pearsonr"}
_LABELS = {figure.key: figure.label for figure in metrics.FIGURES}


@dataclass(frozen=True, slots=True)
class Figures:
    """The contents of one results file.

    Attributes:
        text: Markdown: tables, how they were made, and the command.
        results: the metrics that the Hub has names for.
    """

    text: str
    results: tuple[EvalResult, ...]


def read_figures(path: Path, folder: Path) -> Figures:
    """Read a results file.

    Args:
        path: ``benchmark.json`` or ``metrics.json``.
        folder: the model's; results of other weights are refused.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        recipe = found["recipe"] = found["recipe"] | {"command": public_command(found["recipe"]["command"])}
        if "sets" in found:
            _check_same(recipe, folder, path)
            return Figures(_benchmark_text(found), tuple(_benchmark_results(found)))
        if "result" in found:
            _check_same(recipe, folder, path)
            return Figures(_evaluation_text(found), tuple(_evaluation_results(found)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} holds no valid results ({type(error).__name__}: {error}). Give benchmark.json of "
            "eval/benchmark.py or metrics.json of eval/evaluate.py."
        ) from error
    raise ConfigError(f"{path} is neither benchmark.json of eval/benchmark.py nor metrics.json of eval/evaluate.py.")


def _check_same(recipe: Mapping[str, Any], folder: Path, path: Path) -> None:
    if recipe["weights"] != files_sha256(list(folder.glob("*.safetensors"))):
        raise ConfigError(
            f"{path} is about other weights (of {recipe['model']}) than those in {folder}. Evaluate this model: "
            f"{recipe['command']}"
        )


def _benchmark_text(found: Mapping[str, Any]) -> str:
    tables = [published.summary(found).markdown()]
    if any(each.get("readout") is not None for each in found["sets"].values()):
        tables.append(published.readout_table(found).markdown())
    return "\n\n".join([published.how(found), *tables])


def _benchmark_results(found: Mapping[str, Any]) -> Iterator[EvalResult]:
    for name, measured in found["sets"].items():
        figures = measured["scopes"]["all"]["figures"][MODEL]
        for key in ("correlation", "mae", "rmse"):
            if figures.get(key) is not None:
                yield _result("semanticface-benchmark", f"SemanticFace benchmark: {SETS[name]}", name, "test", key,
                              figures[key][0])  # fmt: skip


def _evaluation_text(found: Mapping[str, Any]) -> str:
    recipe = found["recipe"]
    calibrated = bool(recipe.get("calibrated"))
    how = f"`{recipe['command']}`: {recipe['rows']} pictures of the split *{recipe['split']}*."
    parts = [how, metrics.table(found["result"]), intervals.summary(found["readouts"], calibrated)]
    return "\n\n".join(filter(None, parts))


def _evaluation_results(found: Mapping[str, Any]) -> Iterator[EvalResult]:
    recipe = found["recipe"]
    name = Path(recipe["dataset"]).name
    for key in ("correlation", "mae", "rmse"):
        value = found["result"]["model"].get(key)
        if value is not None:
            yield _result("faces", f"labelled faces: {name}", name, recipe["split"], key, value)


def _result(kind: str, name: str, config: str, split: str, key: str, value: float) -> EvalResult:
    return EvalResult(
        task_type=_TASK,
        task_name=_TASK_NAME,
        dataset_type=kind,
        dataset_name=name,
        dataset_config=config,
        dataset_split=split,
        metric_type=_METRICS[key],
        metric_name=_LABELS[key],
        metric_value=round(float(value), 4),
    )
