"""The words of a model card: what a recipe says, in sentences and tables, and what holds for all such models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from semanticface.hub.public_recipe import Data, public
from semanticface.utils.html import Table

CITATION = """```bibtex
@misc{kang2026semanticface,
  title         = {SemanticFace: Semantic Facial Action Estimation via Semantic Distillation in Interpretable Space},
  author        = {Kang, Zejian and Zheng, Kai and Fei, Yuanchen and Yang, Wentao and Zou, Hongyuan and Huang, Xiangru},
  year          = {2026},
  eprint        = {2603.14827},
  archivePrefix = {arXiv},
  primaryClass  = {cs.CV}
}

@misc{kang2026superface,
  title         = {SuperFace: Preference-Aligned Facial Expression Estimation Beyond Pseudo Supervision},
  author        = {Kang, Zejian and Xu, Xuanyang and Yang, Wentao and Zheng, Kai and Fei, Yuanchen and Zou, Hongyuan and
                   Shan, Hui and Yang, Shuo and Huang, Xiangru},
  year          = {2026},
  eprint        = {2605.06179},
  archivePrefix = {arXiv},
  primaryClass  = {cs.CV}
}
```

The software is an implementation of its own, not by the papers' authors."""

USES = """**Meant for** avatars, animation, games and art; trying the toolkit; research on how well faces can be read; a
start for distillation on your own character, or on people who agreed.

**Not meant for** judging anyone: not identity, health, honesty, attention, fitness for a job, mood at work or at
school; no surveillance, and no decision about a person."""

_LIMITS = """- One face a picture, seen from the front to about 35 degrees to a side. What is hidden is guessed.
- Actions that a picture barely shows are read worst: gaze inwards and outwards, squints, stretched and dimpled corners
  of the mouth.
- Nobody has measured whether it reads people of every skin, age and face alike. It has not been tested on children or
  on people whose faces move otherwise, after a palsy for example.
- Its words are the likeliest text and so overstate. Where words and numbers differ, believe the numbers."""

_EMOTION_LAW = """`emotional_implication` infers an emotion from a face. The EU's AI Act (Regulation (EU) 2024/1689)
forbids this at work and in education but for medical and safety reasons (Article 5(1)(f)), counts other systems for
emotion recognition among those of high risk (Annex III), and asks that people who are exposed to them be told (Article
50(3)). The field says what a face suggests by rules on its muscles, not what anyone feels."""

_PRIVACY = """The model runs where you run it; nothing is sent anywhere. The coefficients of a person's face, and what
is said of it, are personal data like the picture they came from. Its weights are safetensors, and loading them runs no
code from this repository."""

_ORIGINS = {
    "rendered": "faces rendered by this project (heads from MakeHuman's CC0 data); nobody who exists",
    "captured": "pictures of people",
    "unknown": "faces of an origin that is not recorded",
}


def about() -> str:
    """Return what goes in and what comes out."""
    rows = [
        ["In", "a picture of a face, photograph or cartoon; SemanticFace finds the face and crops it"],
        ["Out", "JSON: the expression, movements by region, symmetry, and the 52 ARKit coefficients, each in [0, 1]"],
        ["Beside them", "mean, median and an 80 % interval of every coefficient"],
    ]
    return _facts(rows)


def use(name: str) -> str:
    """Return how a model is used; ``name`` is what it is loaded by."""
    return f"""With the SemanticFace toolkit:

```python
from semanticface.inference.predictor import Predictor

for face in Predictor.from_pretrained({json.dumps(name)})(["face.jpg"]):
    print(face.status, face.analysis, face.coefficients)
```

```sh
semanticface predict face.jpg --model {name}
```

Answers are decoded under a grammar: each is a full, valid set of 52 numbers, or an error with its reason. Left is the
subject's left."""


def making(recipe: Mapping[str, Any], data: Sequence[Data], base: str | None) -> str:
    """Return how a model was made, as a table and, folded, with every setting."""
    settings = recipe["settings"]
    rows = [["Kind", "LoRA adapter" if recipe["kind"] == "adapter" else "whole weights"]]
    if recipe["base"]:
        rows.append(["Base", _base(recipe["base"], base)])
    if isinstance(settings.get("lora"), dict):
        rows.append(["LoRA", _lora(settings["lora"])])
    rows += [["Learnt from", _data(each)] for each in data]
    if not data:
        rows.append(["Learnt from", "not recorded in the recipe of this model"])
    if "round" in settings:
        rows.append(["Alignment", f"round {settings['round']} of preference optimisation (DPO) on choices of faces"])
    prompt = recipe["prompt"]
    rows.append(["Prompt", f"{prompt['name']}, version {prompt['version']}, sha256 `{prompt['sha256'][:16]}…`"])
    layout = "side by side, in one pass" if recipe["numbers"] == "parallel" else "one after the other"
    rows.append(["Numbers", f"written {layout}; read as the {_readout(recipe['readout'])} unless asked otherwise"])
    rows.append(["Crop", f"{recipe['image_size']} px"])
    training = settings.get("train") or settings.get("align")
    if isinstance(training, dict):
        rows.append(["Training", ", ".join(_told(training))])
    calibration = recipe.get("calibration")
    if calibration:
        rows.append(["Intervals", _calibration(calibration)])
    else:
        rows.append(["Intervals", "not calibrated: they are what the model's own distribution says"])
    rows.append(["Versions", ", ".join(f"{name} {version}" for name, version in recipe["versions"].items())])
    rows.append(["Commit", f"`{recipe['commit']}`" if recipe["commit"] else "not recorded"])
    if recipe["metrics"]:
        told = ", ".join(f"{name} {value:.4g}" for name, value in recipe["metrics"].items() if value is not None)
        rows.append(["At its end", f"on held-out rows, as the training measured: {told}"])
    every = yaml.safe_dump(public(settings), sort_keys=False, allow_unicode=True, width=100)
    folded = f"<details><summary>Every setting</summary>\n\n```yaml\n{every}```\n\n</details>" if settings else ""
    return "\n\n".join(filter(None, (_facts(rows), folded)))


def limits(data: Sequence[Data]) -> str:
    """Return what a model cannot, by what it learnt from."""
    seen = {each.origin for each in data}
    first = ""
    if seen == {"rendered"}:
        first = (
            "- It learnt from rendered faces. How well it reads photographs, paintings and drawings by others is not "
            "known,\n  unless a table above says so.\n"
        )
    elif "captured" in seen:
        first = (
            "- It learnt from what capture software wrote of a few people: their faces it reads best, and the "
            "software's errors\n  it learnt too.\n"
        )
    return first + _LIMITS


def emotion(recipe: Mapping[str, Any]) -> str:
    """Return the state of the emotion switch and what the law says."""
    if recipe["emotion"]:
        state = (
            "**The switch is on**: answers carry `emotional_implication`. `--no-emotion` (commands) and "
            "`emotion=False` (Python)\nleave it out, of the question as of the answer."
        )
    else:
        state = "**The switch is off**: this model was trained without `emotional_implication` and never writes it."
    return f"{state}\n\n{_EMOTION_LAW}"


def privacy(recipe: Mapping[str, Any], data: Sequence[Data]) -> str:
    """Return what there is to know of people's data."""
    seen = {each.origin for each in data}
    if "captured" in seen:
        learnt = (
            "It learnt from pictures of people who agreed to that. Weights can hold traces of what they were trained "
            "on; who asks\nto be forgotten asks for this model to be withdrawn."
        )
    elif seen == {"rendered"}:
        learnt = "No picture of a person was used to train it."
    else:
        learnt = "Whether pictures of people were used to train it is not recorded."
    if recipe["base"] and recipe["base"]["name"] != "nano":
        learnt += " What its base has seen, the base's makers know."
    return f"{_PRIVACY}\n\n{learnt}"


def _facts(rows: Sequence[Sequence[str]]) -> str:
    return Table(["", " "], rows).markdown().replace("--:", ":--")


def _base(base: Mapping[str, Any], named: str | None) -> str:
    nano = base["name"] == "nano"
    told = "nano, the model in the SemanticFace package" if nano else named or public(base["name"])
    if base.get("revision"):
        return f"{told}, commit `{base['revision']}`"
    return f"{told}, weights' sha256 `{base['sha256'][:16]}…`" if base.get("sha256") else told


def _lora(lora: Mapping[str, Any]) -> str:
    layers = ", ".join(lora["targets"]) + (" and the projector" if lora["projector"] else "")
    return f"rank {lora['rank']}, alpha {lora['alpha']}, dropout {lora['dropout']:g}, on {layers}"


def _data(data: Data) -> str:
    rows = "" if data.rows is None else f"{data.rows:,} rows: "
    looks = f", looks {', '.join(f'{name} {share:g}' for name, share in data.looks.items())}" if data.looks else ""
    mark = "" if data.fingerprint is None else f"; fingerprint `{data.fingerprint}`"
    people = f", {data.people:,} of them" if data.people else ""
    return f"{rows}{_ORIGINS[data.origin]}{people}{looks} (`{public(data.folder)}`{mark})"


def _told(training: Mapping[str, Any]) -> list[str]:
    names = ("steps", "passes", "batch", "accumulation", "learning_rate", "warmup", "weight_decay", "beta", "seed")
    return [f"{name.replace('_', ' ')} {training[name]:g}" for name in names if training.get(name) is not None]


def _readout(readout: str) -> str:
    return {"greedy": "likeliest value"}.get(readout, readout)


def _calibration(calibration: Mapping[str, Any]) -> str:
    held = calibration.get("coverage", {}).get("full")
    told = f"calibrated on {calibration['pictures']} pictures of other people"
    return told if held is None else f"{told}; they hold {100 * held:.1f} % of the truths where the model is in doubt"
