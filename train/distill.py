"""Stage II: fine-tune a vision-language model with LoRA to describe a face and write its 52 coefficients.

    accelerate launch train/distill.py              # the quickstart: renders its faces first, minutes on a laptop
    accelerate launch train/distill.py --config train/configs/qwen3_vl_4b.yaml

Any setting can be changed on the command line; docs/formats.md lists them all:

    accelerate launch train/distill.py --config train/configs/qwen3_vl_4b.yaml --set model.quantize=nf4

The output folder is the adapter: ``adapter_model.safetensors``, ``adapter_config.json`` and ``semanticface.json`` with
the settings, the prompt's hash, versions, the commit and the metrics on held-out rows. It also has ``checkpoints`` and
``logs`` (``tensorboard --logdir OUTPUT/logs``). A stopped training, even a killed one, resumes from its last checkpoint
with the same command and ends with the same weights.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import transformers
from accelerate import PartialState

from semanticface.cli.scripts import QUICKSTART_FACES, ScriptParser
from semanticface.config import read_settings
from semanticface.data.consent import require_consent
from semanticface.data.faces import dataset_record, load_faces
from semanticface.data.provenance import source_of, write_people
from semanticface.errors import SemanticFaceError
from semanticface.inference.number_readout import Readout
from semanticface.models.loading import (
    Bundle,
    LoraSettings,
    ModelConfig,
    add_lora,
    base_record,
    load_base,
    save_adapter,
)
from semanticface.prompts import load_prompt
from semanticface.recipe import RECIPE_NAME, make_recipe, prompt_record
from semanticface.training.collator import Collator
from semanticface.training.datasets import AugmentSettings, EvalFaces, TrainFaces, check_rows
from semanticface.training.trainer import TrainSettings, claim_output_dir, train

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = ROOT / "train" / "configs" / "quickstart.yaml"


@dataclass(frozen=True)
class Settings:
    """Settings of a distillation.

    Attributes:
        dataset: folder of faces with answers; trained on its ``train`` split, evaluated on its ``validation`` split.
        output: folder of the adapter.
        train: hyperparameters of the training loop.
        emotion: whether answers contain emotion; must match the dataset.
        numbers: layout of the 52 numbers: ``sequential`` generates each after the ones before it; ``parallel`` decodes
            all together, many times faster.
        readout: default readout of the numbers: the most likely, the expected or the median value.
        model: the base model.
        lora: LoRA settings.
        augment: augmentation of training rows.
    """

    dataset: str
    output: str
    emotion: bool = True
    numbers: Literal["sequential", "parallel"] = "parallel"
    readout: Readout = "greedy"
    model: ModelConfig = field(default_factory=ModelConfig)
    lora: LoraSettings = field(default_factory=LoraSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    train: TrainSettings = field(kw_only=True)


def log(*parts: object) -> None:
    """Print in the main process only."""
    if int(os.environ.get("RANK", "0")) == 0:
        print(*parts, flush=True)


def log_setup(bundle: Bundle, settings: Settings, rows: int) -> None:
    """Print the model, device, dtype, LoRA layers and length of the training."""
    model = bundle.model
    trainable, everything = model.get_nb_trainable_parameters()
    devices = int(os.environ.get("WORLD_SIZE", "1"))
    examples = (
        settings.train.max_steps
        * settings.train.per_device_train_batch_size
        * settings.train.gradient_accumulation_steps
        * devices
    )
    gpu = bundle.device.type == "cuda"
    reason = "set in the config" if settings.model.dtype != "auto" else f"auto, on {bundle.device.type}"
    commit = bundle.recipe["source"]["revision"]
    log(f"base      {settings.model.base}, {everything - trainable:,} parameters, commit {commit}")
    log(f"device    {bundle.device}: {'GPU found' if gpu else 'no GPU, or the config asks for the CPU'}")
    log(f"dtype     {model.dtype} for the base ({reason}), float32 for LoRA")
    if settings.model.quantize == "nf4":
        log("4 bits    language layers of the base in NF4; the small vision layers stay unquantised")
    layers = model.peft_config["default"].target_modules
    log(f"LoRA      {trainable:,} parameters ({trainable / everything:.1%}) on the layers {layers}")
    log(f"pictures  {bundle.image_size} px crops, {settings.augment.mirror:.0%} of them mirrored")
    log(f"rows      {rows:,}; {examples:,} examples on {devices} device(s), {examples / rows:.1f} epochs")


def distill(settings: Settings) -> Path:
    """Run or resume a distillation; return the adapter's folder."""
    output = Path(settings.output)

    faces = {split: load_faces(settings.dataset, split) for split in ("train", "validation")}
    for rows in faces.values():
        check_rows(rows, settings.dataset, emotion=settings.emotion)
    require_consent(settings.dataset, faces["train"], "train")
    require_consent(settings.dataset, faces["validation"], "evaluate")
    prompt = load_prompt("distill", emotion=settings.emotion)

    record = dataclasses.asdict(settings) | {
        "base": base_record(settings.model),
        "prompt": prompt_record(prompt),
        "data": {split: dataset_record(rows, settings.dataset) for split, rows in faces.items()},
    }
    claim_output_dir(output, record)
    if (output / RECIPE_NAME).exists():
        log(f"{output} is finished already; remove it to train again")
        return output

    transformers.set_seed(settings.train.seed)  # before LoRA's random initialisation
    bundle = add_lora(load_base(settings.model), settings.lora)
    log_setup(bundle, settings, len(faces["train"]))

    def train_rows(count: int) -> TrainFaces:
        return TrainFaces(
            faces["train"],
            bundle.image_size,
            count=count,
            augment=settings.augment,
            emotion=settings.emotion,
            seed=settings.train.seed,
        )

    metrics, is_main_process = train(
        bundle,
        settings.train,
        Collator(bundle.processor, prompt, numbers=settings.numbers, number_weight=settings.train.number_weight),
        train_rows,
        EvalFaces(faces["validation"], bundle.image_size, settings.train.eval_rows),
        output,
    )

    if is_main_process:
        sources = [source_of(faces["train"], settings.dataset, "train")]
        write_people(output, sources)
        recipe = make_recipe(
            "adapter",
            base=record["base"],
            prompt=record["prompt"],
            emotion=settings.emotion,
            readout=settings.readout,
            image_size=bundle.image_size,
            settings=record,
            metrics=metrics,
            numbers=settings.numbers,
            trained_on=[source.to_dict() for source in sources],
        )
        save_adapter(bundle, output, recipe)
    log(f"{output}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    return output


def render_quickstart_faces(dataset: str) -> None:
    """Render the quickstart config's faces if they are missing, in one process of a launch."""
    with PartialState().main_process_first():
        if not Path(dataset).exists():
            command = [sys.executable, str(ROOT / "data_prep" / "render_faces.py"), "--out", dataset]
            if subprocess.run([*command, *QUICKSTART_FACES.split()], check=False).returncode:
                raise SemanticFaceError(f"the faces in {dataset} could not be rendered; see the output above.")


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument(
        "--config",
        type=Path,
        help="a YAML file (default: train/configs/quickstart.yaml, whose faces are rendered first if they are missing)",
    )
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="settings that override the config"
    )
    options = parser.parse_args()
    try:
        settings = read_settings(options.config or QUICKSTART, Settings, options.set)
        if options.config is None:
            render_quickstart_faces(settings.dataset)
        distill(settings)
    except SemanticFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command resumes from the last checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
