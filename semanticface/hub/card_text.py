"""The text of a model card: a recipe in sentences and tables, and what applies to all models of this kind."""

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

This toolkit is an independent implementation, not by the papers' authors."""

USES = """**Intended for** avatars, animation, games and art; trying the toolkit; research on facial action estimation;
distillation on your own character, or on people who agreed.

**Not intended for** judging anyone: not identity, health, honesty, attention, fitness for a job, or mood at work or
school; no surveillance, and no decision about a person."""

_LIMITS = """- One face per picture, from frontal to about 35 degrees to a side. Occluded parts are guesses.
- Accuracy is lowest for actions that are barely visible: gaze inwards and outwards, squints, stretched and dimpled
  mouth corners.
- Nobody has measured whether it works equally well across skin tones, ages and faces. It has not been tested on
  children or on people whose faces move differently, for example after a palsy.
- The analysis says nothing that contradicts the numbers, but both can be wrong: trust neither blindly."""

_EMOTION_LAW = """`emotional_implication` infers an emotion from a face. The EU AI Act (Regulation (EU) 2024/1689)
prohibits this at work and in education except for medical and safety reasons (Article 5(1)(f)), classifies other
emotion recognition systems as high-risk (Annex III), and requires that people exposed to them be informed (Article
50(3)). The field states what a face suggests, by rules on its muscles, not what anyone feels."""

_PRIVACY = """The model runs on your machine and sends nothing anywhere. The coefficients and the analysis of a person's
face are personal data, like the picture. Weights are safetensors; loading them runs no code from this repository."""

_ORIGINS = {
    "rendered": "faces rendered by this project (heads from MakeHuman's CC0 data); no real person",
    "captured": "pictures of people",
    "unknown": "faces of unrecorded origin",
}


def about() -> str:
    """Describe the inputs and outputs."""
    rows = [
        ["In", "a picture of a face, photograph or cartoon; SemanticFace detects and crops the face"],
        ["Out", "JSON: the expression, movements by region, symmetry, and the 52 ARKit coefficients, each in [0, 1]"],
        ["Also", "mean, median and an 80 % interval of every coefficient"],
    ]
    return _facts(rows)


def use(name: str) -> str:
    """Describe how to use a model; ``name`` is what it is loaded by."""
    return f"""With the SemanticFace toolkit:

```python
from semanticface.inference.predictor import Predictor

for face in Predictor.from_pretrained({json.dumps(name)})(["face.jpg"]):
    print(face.status, face.analysis, face.coefficients)
```

```sh
semanticface predict face.jpg --model {name}
```

Decoding is constrained by a grammar: each answer is a complete, valid set of 52 numbers, or an error with its reason.
Left is the subject's left."""


def making(recipe: Mapping[str, Any], data: Sequence[Data], base: str | None) -> str:
    """Describe how a model was made: a table, and all settings, folded."""
    settings = recipe["settings"]
    rows = [["Kind", "LoRA adapter" if recipe["kind"] == "adapter" else "full weights"]]
    if recipe["base"]:
        rows.append(["Base", _base(recipe["base"], base)])
    if isinstance(settings.get("lora"), dict):
        rows.append(["LoRA", _lora(settings["lora"])])
    rows += [["Training data", _data(each)] for each in data]
    if not data:
        rows.append(["Training data", "not recorded in the recipe of this model"])
    if "round" in settings:
        rows.append(
            ["Alignment", f"round {settings['round']} of preference optimisation (DPO) on choices between faces"]
        )
    prompt = recipe["prompt"]
    rows.append(["Prompt", f"{prompt['name']}, version {prompt['version']}, sha256 `{prompt['sha256'][:16]}…`"])
    layout = "in parallel, in one forward pass" if recipe["numbers"] == "parallel" else "sequentially"
    rows.append(["Numbers", f"decoded {layout}; read as the {_readout(recipe['readout'])} unless asked otherwise"])
    rows.append(["Crop", f"{recipe['image_size']} px"])
    training = settings.get("train") or settings.get("align")
    if isinstance(training, dict):
        rows.append(["Training", ", ".join(_hyperparameters(training))])
    calibration = recipe.get("calibration")
    if calibration:
        rows.append(["Intervals", _calibration(calibration)])
    else:
        rows.append(["Intervals", "not calibrated: from the model's own distribution"])
    rows.append(["Versions", ", ".join(f"{name} {version}" for name, version in recipe["versions"].items())])
    rows.append(["Commit", f"`{recipe['commit']}`" if recipe["commit"] else "not recorded"])
    if recipe["metrics"]:
        final = ", ".join(f"{name} {value:.4g}" for name, value in recipe["metrics"].items() if value is not None)
        rows.append(["Final metrics", f"on held-out rows, as measured in training: {final}"])
    every = yaml.safe_dump(public(settings), sort_keys=False, allow_unicode=True, width=100)
    folded = f"<details><summary>All settings</summary>\n\n```yaml\n{every}```\n\n</details>" if settings else ""
    return "\n\n".join(filter(None, (_facts(rows), folded)))


def limits(data: Sequence[Data]) -> str:
    """Describe a model's limits, by the origin of its training data."""
    seen = {each.origin for each in data}
    first = ""
    if seen == {"rendered"}:
        first = (
            "- Trained on rendered faces. Its accuracy on photographs, paintings and other people's drawings is "
            "unknown,\n  unless a table above reports it.\n"
        )
    elif "captured" in seen:
        first = (
            "- Trained on the output of capture software for a few people: it works best on their faces, and has "
            "learned the\n  software's errors.\n"
        )
    return first + _LIMITS


def emotion(recipe: Mapping[str, Any]) -> str:
    """Describe the emotion switch and the law."""
    if recipe["emotion"]:
        state = (
            "**The switch is on**: answers include `emotional_implication`. `--no-emotion` (commands) and "
            "`emotion=False` (Python)\nremove it from both prompt and answer."
        )
    else:
        state = "**The switch is off**: this model was trained without `emotional_implication` and never writes it."
    return f"{state}\n\n{_EMOTION_LAW}"


def privacy(recipe: Mapping[str, Any], data: Sequence[Data]) -> str:
    """Describe the use of people's data."""
    seen = {each.origin for each in data}
    if "captured" in seen:
        training = (
            "It was trained on pictures of people who agreed to that. Weights can contain traces of their training "
            "data; a request\nto be forgotten means that this model is withdrawn."
        )
    elif seen == {"rendered"}:
        training = "No picture of a person was used to train it."
    else:
        training = "Whether pictures of people were used to train it is not recorded."
    if recipe["base"] and recipe["base"]["name"] != "nano":
        training += " For the training data of its base, ask the base's authors."
    return f"{_PRIVACY}\n\n{training}"


def _facts(rows: Sequence[Sequence[str]]) -> str:
    return Table(["", " "], rows).markdown().replace("--:", ":--")


def _base(base: Mapping[str, Any], named: str | None) -> str:
    nano = base["name"] == "nano"
    name = "nano, the model in the SemanticFace package" if nano else named or public(base["name"])
    if base.get("revision"):
        return f"{name}, commit `{base['revision']}`"
    return f"{name}, sha256 of the weights `{base['sha256'][:16]}…`" if base.get("sha256") else name


def _lora(lora: Mapping[str, Any]) -> str:
    shown = {name: " ".join(value) if isinstance(value, list) else value for name, value in lora.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def _data(data: Data) -> str:
    rows = "" if data.rows is None else f"{data.rows:,} rows: "
    styles = f", styles {', '.join(f'{name} {share:g}' for name, share in data.styles.items())}" if data.styles else ""
    mark = "" if data.fingerprint is None else f"; fingerprint `{data.fingerprint}`"
    people = f", {data.people:,} of them" if data.people else ""
    return f"{rows}{_ORIGINS[data.origin]}{people}{styles} (`{public(data.folder)}`{mark})"


def _hyperparameters(training: Mapping[str, Any]) -> list[str]:
    names = (
        "max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
        "warmup_ratio", "weight_decay", "beta", "seed",
    )  # fmt: skip
    return [f"{name} {training[name]:g}" for name in names if training.get(name) is not None]


def _readout(readout: str) -> str:
    return {"greedy": "most likely value"}.get(readout, readout)


def _calibration(calibration: Mapping[str, Any]) -> str:
    coverage = calibration.get("coverage", {}).get("full")
    text = f"calibrated on {calibration['pictures']} pictures of other people"
    return text if coverage is None else f"{text}; coverage {100 * coverage:.1f} % over uncertain numbers"
