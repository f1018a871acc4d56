"""Stage II: teach a vision-language model to explain a face and write its 52 coefficients, with LoRA.

    accelerate launch train/distill.py              # the quickstart: renders its faces first, minutes on a laptop
    accelerate launch train/distill.py --config train/configs/qwen3_vl_4b.yaml

Any setting of the config can be changed on the command line; what a setting means is said where it is defined
(``Settings`` below, ``ModelConfig``, ``LoraSettings``, ``AugmentSettings``, ``TrainSettings``):

    accelerate launch train/distill.py --config train/configs/qwen3_vl_4b.yaml --set model.quantize=nf4

The output folder is the adapter: ``adapter_model.safetensors``, ``adapter_config.json`` and ``semanticface.json``,
which holds the settings, the prompt's hash, versions, the commit and the figures on held-out rows. ``checkpoints``
and ``logs`` lie beside them (``tensorboard --logdir OUTPUT/logs``). A training that was stopped, however rudely, goes
on from its last checkpoint when the same command is given again, and ends with the same weights.
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

from semanticface.cli.scripts import ScriptParser
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
QUICKSTART_FACES = "--styles imp=1 --subject 7 --rows 800 --splits train=0.7,validation=0.1,test=0.2"


@dataclass(frozen=True)
class Settings:
    """All that decides a distillation.

    Attributes:
        dataset: folder of faces with answers; its ``train`` split is learnt, its ``validation`` split measured on.
        output: folder of the adapter.
        train: how long, how fast and how carefully.
        emotion: whether answers speak of emotion; must be as the dataset was made.
        numbers: how the 52 numbers are laid out: each read with those before it, or side by side, which is many times
            faster at work.
        readout: how numbers are read from the model unless asked otherwise: the likeliest, the expected or the middle
            value.
        model: the base model.
        lora: where LoRA goes.
        augment: how training rows are altered.
    """

    # What, and where to.
    dataset: str
    output: str
    emotion: bool = True
    numbers: Literal["sequential", "parallel"] = "parallel"
    readout: Readout = "greedy"
    # The model and what of it is trained.
    model: ModelConfig = field(default_factory=ModelConfig)
    lora: LoraSettings = field(default_factory=LoraSettings)
    # How.
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    train: TrainSettings = field(kw_only=True)


def say(*words: object) -> None:
    """Print, once however many processes train."""
    if int(os.environ.get("RANK", "0")) == 0:
        print(*words, flush=True)


def explain(bundle: Bundle, settings: Settings, rows: int) -> None:
    """Print what was chosen, and why."""
    model = bundle.model
    trainable, everything = model.get_nb_trainable_parameters()
    devices = int(os.environ.get("WORLD_SIZE", "1"))
    seen = (
        settings.train.max_steps
        * settings.train.per_device_train_batch_size
        * settings.train.gradient_accumulation_steps
        * devices
    )
    gpu = bundle.device.type == "cuda"
    asked = "the config asks for it" if settings.model.dtype != "auto" else f"auto, on {bundle.device.type}"
    say(f"base      {settings.model.base}, {everything:,} parameters, commit {bundle.recipe['source']['revision']}")
    say(f"device    {bundle.device}: {'a GPU is there' if gpu else 'no GPU, or the config asks for the CPU'}")
    say(f"dtype     {model.dtype} for the base ({asked}), float32 for LoRA")
    if settings.model.quantize == "nf4":
        say("4 bits    language layers of the base in NF4; picture layers stay whole, they are small and matter")
    layers = model.peft_config["default"].target_modules
    say(f"LoRA      {trainable:,} parameters ({trainable / everything:.1%}) on the layers {layers}")
    say(f"pictures  {bundle.image_size} px crops, {settings.augment.mirror:.0%} of them mirrored")
    say(f"rows      {rows:,}; {seen:,} shown over {devices} device(s), {seen / rows:.1f} passes")


def distill(settings: Settings) -> Path:
    """Run a distillation, or what is left of it, and return the adapter's folder."""
    output = Path(settings.output)

    # The data: answers must be what the config promises.
    faces = {split: load_faces(settings.dataset, split) for split in ("train", "validation")}
    for rows in faces.values():
        check_rows(rows, settings.dataset, emotion=settings.emotion)
    require_consent(settings.dataset, faces["train"], "train")
    require_consent(settings.dataset, faces["validation"], "evaluate")
    prompt = load_prompt("distill", emotion=settings.emotion)

    # The same output folder means the same training, begun or finished.
    record = dataclasses.asdict(settings) | {
        "base": base_record(settings.model),
        "prompt": prompt_record(prompt),
        "data": {split: dataset_record(rows, settings.dataset) for split, rows in faces.items()},
    }
    claim_output_dir(output, record)
    if (output / RECIPE_NAME).exists():
        say(f"{output} is finished already; remove it to train anew")
        return output

    # The model: seeded before LoRA's random start.
    transformers.set_seed(settings.train.seed)
    bundle = add_lora(load_base(settings.model), settings.lora)
    explain(bundle, settings, len(faces["train"]))

    # The training.
    def train_rows(count: int) -> TrainFaces:
        return TrainFaces(
            faces["train"],
            bundle.image_size,
            count=count,
            augment=settings.augment,
            emotion=settings.emotion,
            seed=settings.train.seed,
        )

    metrics, saves = train(
        bundle,
        settings.train,
        Collator(bundle.processor, prompt, numbers=settings.numbers, number_weight=settings.train.number_weight),
        train_rows,
        EvalFaces(faces["validation"], bundle.image_size, settings.train.eval_rows),
        output,
    )

    # The result, with all that is needed to make it again.
    if saves:
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
    say(f"{output}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    return output


def render_quickstart_faces(dataset: str) -> None:
    """Render the faces of the quickstart's config unless they are there; one process of a launch does it."""
    with PartialState().main_process_first():
        if not Path(dataset).exists():
            command = [sys.executable, str(ROOT / "data_prep" / "render_faces.py"), "--out", dataset]
            if subprocess.run([*command, *QUICKSTART_FACES.split()], check=False).returncode:
                raise SemanticFaceError(f"the faces in {dataset} could not be rendered; the lines above say why.")


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument(
        "--config",
        type=Path,
        help="a YAML file (default: train/configs/quickstart.yaml, whose faces are rendered first if they are missing)",
    )
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="settings that win over the config"
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
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
