"""Pretrain nano, the base model in the package, on rendered faces.

    python data_prep/render_faces.py --out outputs/faces --rows 60000 --size 128 --supersample 1 --framing crop
    python train/pretrain.py --faces outputs/faces --out outputs/nano

Three stages; a stopped run resumes at its last checkpoint:

1. The vision encoder learns coefficients and landmarks, which the renderer knows.
2. The language model learns on the frozen vision encoder, whose feature maps are computed once.
3. Model, tokenizer, processor and recipe are saved as a stock transformers folder, in bfloat16.

In stage 2 half of the rows learn the ground truth analysis and, in parallel, the numbers without analysis; the other
half learn the numbers behind an analysis of the coefficients that the vision encoder predicts. Numbers never follow the
ground truth analysis: a model trained so copies them from its own analysis, which at inference is only a prediction.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn
from transformers import AutoModel

from semanticface.arkit import MIRROR_INDEX
from semanticface.cli.scripts import ScriptParser
from semanticface.config import check_range
from semanticface.errors import SemanticFaceError
from semanticface.evaluation import metrics
from semanticface.models import nano
from semanticface.models.answer_tokens import Numbers
from semanticface.prompts import load_prompt
from semanticface.recipe import make_recipe, prompt_record, write_recipe
from semanticface.rendering.types import POINTS
from semanticface.semantics.analysis import describe_many
from semanticface.semantics.answer import format_answer
from semanticface.training.muon import MuonAdamW
from semanticface.training.nano_pretraining import (
    PretrainData,
    PretrainSettings,
    make_targets,
    new_model,
    one_cycle,
    pretrain_language_model,
    save_state,
)
from semanticface.training.nano_vision import Faces, encode_batch, feature_maps, read_faces, to_tensor
from semanticface.utils.files import atomic_path
from semanticface.utils.prefetch import prefetch
from semanticface.utils.progress import tqdm

_LOGGED = ("mae", "correlation")
_SAVE_EVERY = 1000  # steps of the vision stage
_TOKENIZER_SAMPLES = 4000


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a pretraining.

    Attributes:
        faces: dataset folders.
        out: folder of the model and the checkpoints.
        vision_samples: pictures that the vision encoder trains on, repetitions counted.
        vision_learning_rate: peak rate of AdamW in the vision stage, a tenth of Muon's.
        vision_init: checkpoint of a vision stage to start from; None starts from scratch.
        vision_batch_size: pictures per step, over all processes.
        landmark_weight: weight of the landmark loss.
        language_samples: pictures that the language model trains on.
        language_learning_rate: as ``vision_learning_rate``.
        language_batch_size: as ``vision_batch_size``.
        numbers: layout of the 52 numbers.
        seed: of initial weights, order and augmentation.
    """

    faces: list[str]
    out: str
    vision_samples: int = 700_000
    vision_learning_rate: float = 2e-3
    vision_init: str | None = None
    vision_batch_size: int = 128
    landmark_weight: float = 0.1
    language_samples: int = 80_000
    language_learning_rate: float = 3e-3
    language_batch_size: int = 32
    numbers: Numbers = "parallel"
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("vision_samples", self.vision_samples, self.vision_batch_size)
        check_range("language_samples", self.language_samples, self.language_batch_size)


def main() -> int:
    parser = ScriptParser(__doc__)
    add = parser.add_argument
    add("--faces", nargs="+", required=True, help="dataset folders made by data_prep/render_faces.py")
    add("--out", required=True, help="folder of the model and the checkpoints")
    add("--vision-init", metavar="FILE", help="tower.pt of another run, to start the vision encoder from")
    add("--vision-samples", type=int, default=Settings.vision_samples, help="pictures for the vision encoder")
    add("--vision-learning-rate", type=float, default=Settings.vision_learning_rate)
    add("--language-samples", type=int, default=Settings.language_samples, help="pictures for the language model")
    add("--numbers", choices=get_args(Numbers), default=Settings.numbers, help="layout of the numbers (%(default)s)")
    add("--seed", type=int, default=Settings.seed)
    options = parser.parse_args()
    try:
        pretrain(Settings(**vars(options)))
    except SemanticFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command resumes from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def pretrain(settings: Settings) -> None:
    """Train the vision encoder, then the language model, and save the model."""
    accelerator, out = Accelerator(cpu=not torch.cuda.is_available()), Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    train, held_out = (read_faces(settings.faces, split, out, accelerator) for split in ("train", "validation"))
    accelerator.print(f"{len(train.pixels)} training faces, {len(held_out.pixels)} held out, of other subjects")
    vision_encoder, heads = train_vision_encoder(settings, accelerator, train, held_out, out / "tower.pt")
    model, processor = train_language_model(settings, accelerator, train, vision_encoder, heads, out / "language.pt")
    if not accelerator.is_main_process:
        return
    with atomic_path(out / "model") as folder:
        model.to(torch.bfloat16).save_pretrained(folder)
        processor.save_pretrained(folder)
        recipe = make_recipe(
            "base",
            base=None,
            prompt=prompt_record(load_prompt("distill")),
            emotion=True,
            readout="mean",
            numbers=settings.numbers,
            image_size=nano.IMAGE_SIZE,
            settings=dataclasses.asdict(settings),
            metrics={},
        )
        write_recipe(folder, recipe)
    print(f"saved {out / 'model'}; evaluate it: python eval/evaluate.py --model {out / 'model'} --dataset FACES")


# --- stage 1: the vision encoder --------------------------------------------------------------------------------------


def train_vision_encoder(
    settings: Settings, accelerator: Accelerator, train: Faces, held_out: Faces, state_file: Path
) -> tuple[nn.Module, nn.Module]:
    """Train the vision encoder on coefficients and landmarks; returns it and the heads that predict them."""
    torch.manual_seed(settings.seed)
    device = accelerator.device
    vision_encoder = AutoModel.from_config(nano.vision_config()).to(device, memory_format=torch.channels_last)
    heads = nano.VisionHeads(nano.HIDDEN_SIZES[-1], (nano.IMAGE_SIZE // nano.STRIDE) ** 2, len(POINTS)).to(device)
    if settings.vision_init:
        vision_encoder.load_state_dict(torch.load(settings.vision_init, weights_only=True)["tower"])
    filters = [weight for weight in vision_encoder.parameters() if weight.ndim == 4 and weight.shape[1] > 3]
    known = set(map(id, filters))
    others = [weight for module in (vision_encoder, heads) for weight in module.parameters() if id(weight) not in known]
    optimizer = MuonAdamW(accelerator, filters, others, settings.vision_learning_rate)
    steps = settings.vision_samples // settings.vision_batch_size
    first = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        vision_encoder.load_state_dict(state["tower"])
        heads.load_state_dict(state["heads"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    # Weigh all actions alike: rare and faint ones would otherwise hardly be learnt.
    scale = torch.from_numpy(1 / train.coefficients.std(0).clip(0.05)).to(device)

    batches = (_vision_batch(settings, accelerator, train, step) for step in range(first, steps))
    bar = tqdm(
        prefetch(batches, 1), desc="vision", initial=first, total=steps, unit="step",
        disable=not accelerator.is_main_process,
    )  # fmt: skip
    started = time.perf_counter()
    for step, (images, coefficients, points) in enumerate(bar, start=first):
        vision_encoder.train(), heads.train()
        predicted, predicted_points = heads(encode_batch(vision_encoder, images))
        coefficients, points = coefficients.to(device), points.to(device)
        visible = points.isfinite()
        action_loss = ((predicted - coefficients) * scale).square().mean()
        point_loss = (predicted_points - points.nan_to_num()).square()[visible].mean() * 1000
        optimizer.step(action_loss + settings.landmark_weight * point_loss, one_cycle(step, steps))
        if step % 50 == 0:
            bar.set_postfix(actions=f"{action_loss:.3f}", points=f"{point_loss:.3f}")
        if accelerator.is_main_process and ((step + 1) % _SAVE_EVERY == 0 or step + 1 == steps):
            save_state(
                state_file,
                tower=vision_encoder.state_dict(), heads=heads.state_dict(), optimizer=optimizer.state_dict(),
                step=step + 1,
            )  # fmt: skip
            _, predictions = predict(vision_encoder, heads, held_out.pixels)
            scores = metrics.score(held_out.coefficients, predictions.clip(0, 1), on_head=False)["model"]
            summary = ", ".join(f"{f.label} {f.text(scores[f.key])}" for f in metrics.FIGURES if f.key in _LOGGED)
            tqdm.write(f"{(step + 1) * settings.vision_batch_size} pictures; held out: {summary}")
    _print_speed(accelerator, "vision", (steps - first) * settings.vision_batch_size, started)
    accelerator.wait_for_everyone()
    # Batch norm statistics differ between processes: take those of the checkpoint.
    state = torch.load(state_file, weights_only=True)
    vision_encoder.load_state_dict(state["tower"])
    heads.load_state_dict(state["heads"])
    return vision_encoder, heads


def _vision_batch(
    settings: Settings, accelerator: Accelerator, train: Faces, step: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return this process's images [B, 3, H, W], coefficients [B, 52] and landmarks [B, 70, 2]; odd steps mirrored."""
    size = settings.vision_batch_size
    per_epoch = max(1, len(train.pixels) // size)  # fewer faces than a batch are one smaller batch
    order = np.random.default_rng([settings.seed, step // per_epoch]).permutation(len(train.pixels))
    start = (step % per_epoch) * size
    indices = np.sort(order[start : start + size])[accelerator.process_index :: accelerator.num_processes]
    rng = torch.Generator().manual_seed((settings.seed * 1_000_003 + step) * 1009 + accelerator.process_index)
    pixels, coefficients, points = train.pixels[indices], train.coefficients[indices], train.points[indices]
    if step % 2:
        pixels, coefficients = np.ascontiguousarray(pixels[:, :, ::-1]), coefficients[:, MIRROR_INDEX]
        points = points[:, MIRROR_POINTS] * np.array([-1, 1], dtype=np.float32) + np.array([1, 0], dtype=np.float32)
    return augment(to_tensor(pixels), rng), torch.from_numpy(coefficients), torch.from_numpy(points)


def _swap_sides(name: str) -> str:
    return name.replace("Left", "#").replace("Right", "Left").replace("#", "Right")


MIRROR_POINTS = np.array([POINTS.index(_swap_sides(name)) for name in POINTS])


def augment(images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Vary light, colour, sharpness and occlusion of images [B, 3, H, W] in [-1, 1], in place; labels stay valid."""
    n, _, height, width = images.shape

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=rng) * (high - low) + low

    def some(share: float) -> torch.Tensor:
        return (torch.rand(n, generator=rng) < share).nonzero().flatten()

    grey = some(0.15)
    images[grey] = images[grey].mean(1, keepdim=True)
    gain = uniform(0.6, 1.4, n, 1, 1, 1) * uniform(0.85, 1.15, n, 3, 1, 1)
    images.mul_(gain).add_(uniform(-0.3, 0.3, n, 1, 1, 1))
    soft, coarse, noisy = some(0.2), some(0.1), some(0.4)
    images[soft] = F.avg_pool2d(images[soft], 3, 1, 1, count_include_pad=False)
    images[coarse] = F.interpolate(F.avg_pool2d(images[coarse], 2), scale_factor=2.0, mode="bilinear")
    noise = torch.randn(len(noisy), 3, height, width, generator=rng)
    images[noisy] += noise * uniform(0, 0.12, len(noisy), 1, 1, 1)
    for row in some(0.2).tolist():
        top, left = int(uniform(0, height)), int(uniform(0, width))
        tall, wide = int(uniform(8, height / 3)), int(uniform(8, width / 3))
        images[row, :, top : top + tall, left : left + wide] = uniform(-1, 1, 3, 1, 1)
    return images.clamp_(-1, 1)


def predict(
    vision_encoder: nn.Module, heads: nn.Module, pixels: np.ndarray, *, mirrored: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return feature maps float16[N, C, H, W] and the coefficients that the heads predict from them, float32[N, 52]."""
    heads.eval()
    features, coefficients = [], []
    for maps in feature_maps(vision_encoder, pixels, mirrored=mirrored):
        features.append(maps.half().cpu().numpy())
        with torch.inference_mode():
            coefficients.append(heads(maps)[0].cpu().numpy())
    return np.concatenate(features), np.concatenate(coefficients)


def _print_speed(accelerator: Accelerator, stage: str, samples: int, started: float) -> None:
    if accelerator.is_main_process and samples > 0:
        print(f"{stage}: {samples / (time.perf_counter() - started):.1f} samples a second")


# --- stage 2: the language model --------------------------------------------------------------------------------------


def train_language_model(
    settings: Settings, accelerator: Accelerator, train: Faces, vision_encoder: nn.Module, heads: nn.Module, state: Path
) -> tuple[Any, Any]:
    """Train a new language model on the frozen vision encoder; returns model and processor."""
    features, predicted = predict(vision_encoder, heads, train.pixels)
    mirrored_features, mirrored_predicted = predict(vision_encoder, heads, train.pixels, mirrored=True)
    features = np.concatenate([features, mirrored_features])
    predicted = np.concatenate([predicted, mirrored_predicted]).clip(0, 1)
    truth = np.concatenate([train.coefficients, train.coefficients[:, MIRROR_INDEX]])

    sample = np.random.default_rng(settings.seed).permutation(len(truth))[:_TOKENIZER_SAMPLES]
    texts = []
    for values in (truth[sample], predicted[sample]):
        texts += [format_answer(each, analysis) for each, analysis in zip(values, describe_many(values), strict=True)]
    prompt = load_prompt("distill")
    tokenizer = nano.build_tokenizer([*texts, *[prompt.system, prompt.user] * 200])
    processor = nano.build_processor(tokenizer)
    model = new_model(tokenizer, vision_encoder, settings.seed)
    # The encoder's own predictions are far less noisy targets of the means than single labels.
    data = PretrainData(features, truth, predicted, mean_targets=predicted)
    plan = PretrainSettings(
        settings.language_samples,
        settings.language_learning_rate,
        settings.language_batch_size,
        settings.numbers,
        settings.seed,
    )
    started = time.perf_counter()
    steps = pretrain_language_model(model, processor, data, make_targets, plan, accelerator, state)
    _print_speed(accelerator, "language", steps * settings.language_batch_size, started)
    return model, processor


if __name__ == "__main__":
    sys.exit(main())
