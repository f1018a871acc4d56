"""Training speed of `train/distill.py` and of TRL's SFTTrainer: the same model, rows, LoRA, batches and steps.

    python eval/speed/train.py                # some fifteen minutes on two cores
    python eval/speed/train.py --quick        # under a minute

Two models: nano, and a Qwen3-VL of the real architecture and vocabulary (151,936 tokens), otherwise scaled down (8
layers of width 256, a vision encoder of depth 6), with random weights. Every run is a process of its own with one
thread; the two sides alternate, and figures are medians over the repeats.

Equal on both sides: rows and their order (rendered once, no augmentation), prompt and answer, LoRA (rank 16, same
initial weights), batch, learning rate with cosine, AdamW, clipping, no gradient checkpointing, float32 weights,
products in bfloat16 where the hardware has them (TRL's default), an unweighted mean over the answer tokens
(`number_weight: 1`), sequential numbers. Measured is the rest: ours packs rows without padding, computes logits of
answer tokens only, fuses LoRA, and caches vision features (`augment.fixed_variants: 1`; computing them counts). TRL
(max_length None, completion-only loss) runs with its defaults; it also logs entropy and token accuracy.

Samples per second are of CPU time, which a busy machine distorts less than wall time (also printed), from the start of
training, its preparations included, to the end of its last step. Memory is the process's peak resident set. Loss curves
are compared step by step: `loss_gap` is the mean difference over the mean loss.

The last line is one JSON object. `pretrain_samples_per_second` is the speed of `train/pretrain.py`'s language stage in
wall time, with one process per core.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from semanticface.cli.scripts import ScriptParser
from semanticface.utils.files import write_json

ROOT = Path(__file__).resolve().parents[2]
SIDES = ("ours", "trl")
LEARNING_RATE = 1e-3


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison.

    Attributes:
        model: ``nano``, or the folder of one.
        batch: rows per step.
        steps: of each run.
        rows: of the training split, repeated as needed.
        image_size: of the crop; None for the model's own.
        projector: whether LoRA also trains the projector, as in the configs.
    """

    model: str
    batch: int
    steps: int
    rows: int
    image_size: int | None = None
    projector: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """Speed, memory and losses of one training."""

    per_cpu_second: float
    per_second: float
    peak_mb: float
    losses: list[float]


class Clock:
    """Times from the start of training to the end of its last step."""

    def __init__(self) -> None:
        self.start = (0.0, 0.0)
        self.end = (0.0, 0.0)

    def begin(self) -> None:
        self.start = self.end = (time.process_time(), time.perf_counter())

    def tick(self) -> None:
        self.end = (time.process_time(), time.perf_counter())

    def run(self, samples: int, losses: list[float]) -> Run:
        cpu, seconds = (end - start for start, end in zip(self.start, self.end, strict=True))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        return Run(samples / cpu, samples / seconds, peak, losses)


def script(name: str) -> ModuleType:
    """Import a script of train/, which is not a package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "train" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def distill_settings(case: Case, faces: Path, output: Path) -> list[str]:
    """Changes of train/configs/quickstart.yaml."""
    size = "null" if case.image_size is None else case.image_size
    return [
        f"dataset={faces}", f"output={output}", f"model.base={case.model}", f"model.image_size={size}",
        f"lora.projector={str(case.projector).lower()}", f"train.per_device_train_batch_size={case.batch}",
        f"train.max_steps={case.steps}",
        "numbers=sequential", "augment.mirror=0", "augment.shift=0", "augment.scale=0", "augment.numbers_only_prob=0",
        "augment.decouple_numbers=false", "augment.fixed_variants=1", f"train.learning_rate={LEARNING_RATE}",
        "train.warmup_ratio=0",
        "train.number_weight=1", "train.logging_steps=1", f"train.eval_steps={case.steps}",
        f"train.save_steps={case.steps}", "train.eval_rows=1",
    ]  # fmt: skip


def ours(case: Case, faces: Path, scratch: Path) -> Run:
    """Run `distill` of train/distill.py."""
    from semanticface.config import read_settings
    from semanticface.training import trainer as training

    distill, clock = script("distill"), Clock()
    callback = training.SanityCheckCallback
    callback.on_train_begin = lambda *_, **__: None  # type: ignore[method-assign]
    callback.on_step_end = lambda *_, **__: clock.tick()  # type: ignore[method-assign]
    train = distill.train

    def timed(*arguments: Any) -> Any:
        clock.begin()
        return train(*arguments)

    distill.train = timed
    output = scratch / "ours"
    config = ROOT / "train" / "configs" / "quickstart.yaml"
    distill.distill(read_settings(config, distill.Settings, distill_settings(case, faces, output)))
    state = output / "checkpoints" / f"checkpoint-{case.steps}" / "trainer_state.json"
    history = json.loads(state.read_text(encoding="utf-8"))["log_history"]
    return clock.run(case.batch * case.steps, [entry["loss"] for entry in history if "loss" in entry])


def trl(case: Case, faces: Path, scratch: Path) -> Run:
    """Run SFTTrainer on the same rows."""
    import datasets
    import transformers
    from trl import SFTConfig, SFTTrainer

    from semanticface.data.faces import load_faces
    from semanticface.models.inputs import end_token, prompt_text
    from semanticface.models.loading import LoraSettings, ModelConfig, add_lora, load_base
    from semanticface.prompts import load_prompt
    from semanticface.training.datasets import AugmentSettings, TrainFaces
    from semanticface.utils.precision import has_bfloat16

    transformers.set_seed(0)
    base = load_base(ModelConfig(case.model, image_size=case.image_size))
    bundle, prompt = add_lora(base, LoraSettings(projector=case.projector)), load_prompt("distill")
    rows = TrainFaces(
        load_faces(faces, "train"),
        bundle.image_size,
        count=case.batch * case.steps,
        augment=AugmentSettings(mirror=0, shift=0, scale=0),
        emotion=True,
        seed=0,
    )
    prompt_string = prompt_text(bundle.processor, prompt)
    end = bundle.tokenizer.decode([end_token(bundle.processor, prompt)])

    def examples() -> Any:
        for index in range(len(rows)):
            row = rows[index]
            yield {"images": [row.picture], "prompt": prompt_string, "completion": row.answer + end}

    text = datasets.Value("string")
    features = datasets.Features({"images": datasets.List(datasets.Image()), "prompt": text, "completion": text})
    clock = Clock()

    class Ticks(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    arguments = SFTConfig(
        output_dir=str(scratch / "trl"),
        max_length=None,
        completion_only_loss=True,
        per_device_train_batch_size=case.batch,
        max_steps=case.steps,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine",
        warmup_steps=0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        gradient_checkpointing=False,
        bf16=has_bfloat16(bundle.device),
        use_cpu=True,
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        seed=0,
    )
    trainer = SFTTrainer(
        model=bundle.model,
        args=arguments,
        train_dataset=datasets.Dataset.from_generator(examples, features=features, cache_dir=str(scratch / "cache")),
        processing_class=bundle.processor,
        callbacks=[Ticks()],
    )
    clock.begin()
    trainer.train()
    history = trainer.state.log_history
    return clock.run(case.batch * case.steps, [entry["loss"] for entry in history if "loss" in entry])


def scaled_qwen3_vl(folder: Path) -> Path:
    """Save a Qwen3-VL with the real vocabulary and everything else small, and the tests' tiny tokenizer."""
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    sys.path.insert(0, str(ROOT))
    from tests.helpers import tiny_models

    tiny_models.qwen3_vl(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text: dict[str, Any] = config["text_config"]
    text |= {"vocab_size": 151_936, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 8}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}
    text["rope_parameters"]["mrope_section"] = [12, 10, 10]
    vision: dict[str, Any] = config["vision_config"]
    vision |= {"depth": 6, "hidden_size": 128, "intermediate_size": 512, "num_heads": 4, "out_hidden_size": 256}
    vision |= {"deepstack_visual_indexes": [1, 3, 5], "num_position_embeddings": 2304}
    torch.manual_seed(0)
    Qwen3VLForConditionalGeneration(Qwen3VLConfig(**config)).save_pretrained(folder)
    return folder


def output_of(command: list[str], *, threads: int | None = None) -> str:
    """Run a command of this repository and return its output; exit with its errors if it fails."""
    environment = os.environ | {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if threads:
        environment |= {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def render_faces(scratch: Path, rows: int, name: str, *more: str) -> Path:
    """Render a dataset of drawn crops with that many training rows."""
    folder = scratch / name
    output_of(
        ["data_prep/render_faces.py", "--out", str(folder), "--rows", str(rows + 16), "--styles", "drawn=1", *more,
         "--framing", "crop", "--subject", "1", "--splits", f"train={rows / (rows + 16)},validation={16 / (rows + 16)}"]
    )  # fmt: skip
    return folder


def measure(case: Case, side: str, faces: Path) -> Run:
    """Run one side in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        given = json.dumps({"case": asdict(case), "side": side, "faces": str(faces), "scratch": scratch})
        return Run(**json.loads(output_of([__file__, "--worker", given], threads=1).splitlines()[-1]))


def compare(name: str, case: Case, scratch: Path, repeats: int) -> dict[str, Any]:
    """Run both sides alternately; print and return their figures."""
    faces = render_faces(scratch, case.rows, f"{name}-faces", "--size", "128")
    runs: dict[str, list[Run]] = {side: [] for side in SIDES}
    for _ in range(repeats):
        for side in SIDES:
            runs[side].append(measure(case, side, faces))
    figures: dict[str, Any] = {"case": asdict(case)}
    for side, found in runs.items():
        medians = {
            "per_cpu_second": statistics.median(run.per_cpu_second for run in found),
            "per_second": statistics.median(run.per_second for run in found),
            "peak_mb": statistics.median(run.peak_mb for run in found),
        }
        figures[side] = medians | {"losses": found[0].losses}
        print(
            f"{name:14}{side:6}{medians['per_cpu_second']:14.2f}{medians['per_second']:12.2f}{medians['peak_mb']:10,.0f}"
            f"{found[0].losses[0]:12.4f}{found[0].losses[-1]:12.4f}",
            flush=True,
        )
    one, other = (figures[side]["losses"] for side in SIDES)
    figures["loss_gap"] = sum(abs(a - b) for a, b in zip(one, other, strict=True)) / sum(other)
    figures["speedup"] = figures["ours"]["per_cpu_second"] / figures["trl"]["per_cpu_second"]
    figures["memory_ratio"] = figures["ours"]["peak_mb"] / figures["trl"]["peak_mb"]
    print(
        f"{'':14}{figures['speedup']:.2f} times the samples a second, {figures['memory_ratio']:.2f} of the memory, "
        f"losses {figures['loss_gap']:.2%} apart\n"
    )
    return figures


def pretraining(scratch: Path, rows: int, samples: int) -> float:
    """Return the samples per second that train/pretrain.py prints for its language stage."""
    faces = render_faces(scratch, rows, "pretrain-faces", "--size", "128", "--supersample", "1")
    printed = output_of(
        ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(os.cpu_count()), "train/pretrain.py",
         "--faces", str(faces), "--out", str(scratch / "pretrained"), "--vision-samples", "640",
         "--language-samples", str(samples)],
        threads=1,
    )  # fmt: skip
    found = re.findall(r"^language: ([\d.]+) samples a second$", printed, re.MULTILINE)
    if not found:
        raise SystemExit(f"train/pretrain.py did not print the speed of its language stage:\n{printed[-2000:]}")
    return float(found[-1])


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("--quick", action="store_true", help="few steps, once: a smoke test")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs/speed/train.json"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        given = json.loads(options.worker)
        work = {"ours": ours, "trl": trl}[given["side"]]
        print(json.dumps(asdict(work(Case(**given["case"]), Path(given["faces"]), Path(given["scratch"])))))
        return 0
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    from semanticface.recipe import versions

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        qwen = str(scaled_qwen3_vl(scratch / "qwen3_vl"))
        if options.quick:
            cases = {"nano": Case("nano", 8, 6, 16, projector=True), "qwen3vl": Case(qwen, 1, 2, 16, 128)}
        else:
            cases = {"nano": Case("nano", 8, 60, 96, projector=True), "qwen3vl": Case(qwen, 2, 8, 16, 224)}
        print(f"{'':14}{'':6}{'a CPU second':>14}{'a second':>12}{'peak MB':>10}{'first loss':>12}{'last':>12}")
        results = {
            name: compare(name, case, scratch, 1 if options.quick else options.repeats) for name, case in cases.items()
        }
        speed = pretraining(scratch, *((96, 640) if options.quick else (600, 6_400)))
        print(f"pretrain.py, language stage: {speed:.1f} samples a second")
    summary = {
        "nano_speedup": round(results["nano"]["speedup"], 2),
        "qwen3vl_speedup": round(results["qwen3vl"]["speedup"], 2),
        "pretrain_samples_per_second": speed,
    }
    machine = {"machine": platform.machine(), "processors": os.cpu_count(), "versions": versions()}
    write_json(options.out, summary | {"quick": options.quick, "cases": results} | machine)
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
