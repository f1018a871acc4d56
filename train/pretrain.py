"""Make nano, the base model of the package, from rendered faces.

    python data_prep/render_faces.py --out outputs/faces --rows 60000 --size 128 --supersample 1 --framing crop
    python train/pretrain.py --faces outputs/faces --out outputs/nano

Three steps, each resumed where it was killed:

1. The vision encoder learns from what a renderer knows for free: coefficients and projected landmarks.
2. The language model learns on top of the frozen vision encoder, whose feature maps are computed once.
3. Model, tokenizer, processor and recipe are saved as a stock transformers folder, in bfloat16.

In step 2 half of the rows learn the words of the true analysis and, beside them, the true numbers without words; the
other half the true numbers behind an analysis of what the tower sees. Numbers never follow a true analysis: so taught,
a model copies from its own words, which at work are guesses.
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
from semanticface.training.nano_pretraining import (
    MuonAdamW,
    PretrainData,
    PretrainSettings,
    make_targets,
    new_model,
    one_cycle,
    prefetch,
    pretrain_language_model,
    save_state,
)
from semanticface.training.nano_vision import Faces, encode_batch, feature_maps, read_faces, to_tensor
from semanticface.utils.files import atomic_path
from semanticface.utils.progress import tqdm


@dataclasses.dataclass(frozen=True)
class Settings:
    """What one pretraining run is told."""

    faces: list[str]
    out: str
    tower_samples: int = 700_000
    tower_lr: float = 2e-3
    tower_from: str | None = None
    tower_batch: int = 128
    point_weight: float = 0.1
    speak_samples: int = 80_000
    speak_lr: float = 3e-3
    speak_batch: int = 32
    numbers: Numbers = "parallel"
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("tower_samples", self.tower_samples, self.tower_batch)
        check_range("speak_samples", self.speak_samples, self.speak_batch)


def _swap_sides(name: str) -> str:
    return name.replace("Left", "#").replace("Right", "Left").replace("#", "Right")


_TOLD = ("mae", "correlation")

MIRROR_POINTS = np.array([POINTS.index(_swap_sides(name)) for name in POINTS])


def disturb(pictures: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Vary light, colour, sharpness and occlusion of pictures [B, 3, H, W] in [-1, 1], in place; labels stay true."""
    n, _, height, width = pictures.shape

    def draw(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=rng) * (high - low) + low

    def some(share: float) -> torch.Tensor:
        return (torch.rand(n, generator=rng) < share).nonzero().flatten()

    grey = some(0.15)
    pictures[grey] = pictures[grey].mean(1, keepdim=True)
    gain = draw(0.6, 1.4, n, 1, 1, 1) * draw(0.85, 1.15, n, 3, 1, 1)
    pictures.mul_(gain).add_(draw(-0.3, 0.3, n, 1, 1, 1))
    soft, coarse, noisy = some(0.2), some(0.1), some(0.4)
    pictures[soft] = F.avg_pool2d(pictures[soft], 3, 1, 1, count_include_pad=False)
    pictures[coarse] = F.interpolate(F.avg_pool2d(pictures[coarse], 2), scale_factor=2.0, mode="bilinear")
    noise = torch.randn(len(noisy), 3, height, width, generator=rng)
    pictures[noisy] += noise * draw(0, 0.12, len(noisy), 1, 1, 1)
    for row in some(0.2).tolist():
        top, left = int(draw(0, height)), int(draw(0, width))
        tall, wide = int(draw(8, height / 3)), int(draw(8, width / 3))
        pictures[row, :, top : top + tall, left : left + wide] = draw(-1, 1, 3, 1, 1)
    return pictures.clamp_(-1, 1)


def say_speed(stage: str, samples: int, begun: float) -> None:
    """Print how many samples a second a stage took, where it did anything."""
    if samples > 0:
        print(f"{stage}: {samples / (time.perf_counter() - begun):.1f} samples a second")


def tower_outputs(
    tower: nn.Module, heads: nn.Module, pixels: np.ndarray, *, mirrored: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return feature maps float16[N, C, H, W] and the coefficients the heads read from them, float32[N, 52]."""
    heads.eval()
    features, coefficients = [], []
    for maps in feature_maps(tower, pixels, mirrored=mirrored):
        features.append(maps.half().cpu().numpy())
        with torch.inference_mode():
            coefficients.append(heads(maps)[0].cpu().numpy())
    return np.concatenate(features), np.concatenate(coefficients)


def train_tower(
    settings: Settings, accelerator: Accelerator, train: Faces, held_out: Faces, state_file: Path
) -> tuple[nn.Module, nn.Module]:
    """Bring the tower up on coefficients and landmarks; returns it with the heads that read them."""
    torch.manual_seed(settings.seed)
    tower = AutoModel.from_config(nano.vision_config()).to(accelerator.device, memory_format=torch.channels_last)
    heads = nano.VisionHeads(nano.HIDDEN_SIZES[-1], (nano.IMAGE_SIZE // nano.STRIDE) ** 2, len(POINTS)).to(
        accelerator.device
    )
    if settings.tower_from:
        tower.load_state_dict(torch.load(settings.tower_from, weights_only=True)["tower"])
    filters = [weight for weight in tower.parameters() if weight.ndim == 4 and weight.shape[1] > 3]
    known = set(map(id, filters))
    others = [weight for module in (tower, heads) for weight in module.parameters() if id(weight) not in known]
    steps = MuonAdamW(accelerator, filters, others, settings.tower_lr)
    count = settings.tower_samples // settings.tower_batch
    first = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        tower.load_state_dict(state["tower"])
        heads.load_state_dict(state["heads"])
        steps.load_state_dict(state["optimizer"])
        first = state["step"]
    # Each action counts alike: rare and faint ones would otherwise hardly be learned.
    scale = torch.from_numpy(1 / train.coefficients.std(0).clip(0.05)).to(accelerator.device)

    def batch(step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        per_pass = max(1, len(train.pixels) // settings.tower_batch)  # fewer faces than a batch are one smaller batch
        order = np.random.default_rng([settings.seed, step // per_pass]).permutation(len(train.pixels))
        at = (step % per_pass) * settings.tower_batch
        chosen = np.sort(order[at : at + settings.tower_batch])[accelerator.process_index :: accelerator.num_processes]
        rng = torch.Generator().manual_seed((settings.seed * 1_000_003 + step) * 1009 + accelerator.process_index)
        pixels, coefficients, points = train.pixels[chosen], train.coefficients[chosen], train.points[chosen]
        if step % 2:
            pixels, coefficients = np.ascontiguousarray(pixels[:, :, ::-1]), coefficients[:, MIRROR_INDEX]
            points = points[:, MIRROR_POINTS] * np.array([-1, 1], dtype=np.float32) + np.array([1, 0], dtype=np.float32)
        return disturb(to_tensor(pixels), rng), torch.from_numpy(coefficients), torch.from_numpy(points)

    bar = tqdm(
        prefetch(batch, count, first), desc="tower", initial=first, total=count, unit="step",
        disable=not accelerator.is_main_process,
    )  # fmt: skip
    begun = time.perf_counter()
    for step, (pictures, coefficients, points) in enumerate(bar, start=first):
        tower.train(), heads.train()
        guess, placed = heads(encode_batch(tower, pictures))
        coefficients, points = coefficients.to(guess.device), points.to(guess.device)
        seen = points.isfinite()
        loss_actions = ((guess - coefficients) * scale).square().mean()
        loss_points = (placed - points.nan_to_num()).square()[seen].mean() * 1000
        steps.take(loss_actions + settings.point_weight * loss_points, one_cycle(step, count))
        if step % 50 == 0:
            bar.set_postfix(actions=f"{loss_actions:.3f}", points=f"{loss_points:.3f}")
        if accelerator.is_main_process and ((step + 1) % 1000 == 0 or step + 1 == count):
            save_state(
                state_file,
                tower=tower.state_dict(), heads=heads.state_dict(), optimizer=steps.state_dict(), step=step + 1,
            )  # fmt: skip
            _, read = tower_outputs(tower, heads, held_out.pixels)
            figures = metrics.score(held_out.coefficients, read.clip(0, 1), on_head=False)["model"]
            told = ", ".join(f"{f.label} {f.text(figures[f.key])}" for f in metrics.FIGURES if f.key in _TOLD)
            tqdm.write(f"{(step + 1) * settings.tower_batch} pictures seen; held out: {told}")
    if accelerator.is_main_process:
        say_speed("tower", (count - first) * settings.tower_batch, begun)
    accelerator.wait_for_everyone()
    # What the norms have seen differs between processes.
    state = torch.load(state_file, weights_only=True)
    tower.load_state_dict(state["tower"])
    heads.load_state_dict(state["heads"])
    return tower, heads


def train_to_speak(
    settings: Settings, accelerator: Accelerator, train: Faces, tower: nn.Module, heads: nn.Module, out: Path
) -> tuple[Any, Any]:
    """Teach a new language model to say what the tower sees; returns model and processor."""
    features, seen = tower_outputs(tower, heads, train.pixels)
    flipped, seen_flipped = tower_outputs(tower, heads, train.pixels, mirrored=True)
    features, seen = np.concatenate([features, flipped]), np.concatenate([seen, seen_flipped]).clip(0, 1)
    truth = np.concatenate([train.coefficients, train.coefficients[:, MIRROR_INDEX]])

    sample = np.random.default_rng(settings.seed).permutation(len(truth))[:4000]
    texts = [format_answer(c, a) for c, a in zip(truth[sample], describe_many(truth[sample]), strict=True)]
    texts += [format_answer(c, a) for c, a in zip(seen[sample], describe_many(seen[sample]), strict=True)]
    asked = load_prompt("distill")
    tokenizer = nano.build_tokenizer([*texts, *[asked.system, asked.user] * 200])
    processor = nano.build_processor(tokenizer)
    model = new_model(tokenizer, tower, settings.seed)
    # Numbers are drawn towards the tower's own estimates, which are far less noisy than single labels.
    sights = PretrainData(features, truth, seen, aims=seen)
    plan = PretrainSettings(
        settings.speak_samples, settings.speak_lr, settings.speak_batch, settings.numbers, settings.seed
    )
    begun = time.perf_counter()
    taken = pretrain_language_model(model, processor, sights, make_targets, plan, accelerator, out / "language.pt")
    if accelerator.is_main_process:
        say_speed("language", taken * settings.speak_batch, begun)
    return model, processor


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("--faces", nargs="+", required=True, help="dataset folders made by data_prep/render_faces.py")
    parser.add_argument("--out", required=True, help="folder of the model and of the states a killed run goes on from")
    parser.add_argument(
        "--tower-from", help="a tower.pt to start the tower from, such as one brought up on fewer looks"
    )
    parser.add_argument("--tower-samples", type=int, default=Settings.tower_samples, help="pictures the tower sees")
    parser.add_argument("--tower-lr", type=float, default=Settings.tower_lr)
    parser.add_argument(
        "--speak-samples", type=int, default=Settings.speak_samples, help="rows the language model sees"
    )
    parser.add_argument(
        "--numbers", choices=get_args(Numbers), default=Settings.numbers, help="how answers are laid out (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=Settings.seed)
    options = parser.parse_args()
    try:
        pretrain(Settings(**vars(options)))
    except SemanticFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last state", file=sys.stderr)
        return 130
    return 0


def pretrain(settings: Settings) -> None:
    """Train the tower, then the language model, and save what they come to.

    Raises:
        SemanticFaceError: the faces cannot be read, or the disk refuses.
    """
    accelerator, out = Accelerator(cpu=not torch.cuda.is_available()), Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    train, held_out = (read_faces(settings.faces, split, out, accelerator) for split in ("train", "validation"))
    accelerator.print(f"{len(train.pixels)} training faces, {len(held_out.pixels)} held out, of other subjects")
    tower, heads = train_tower(settings, accelerator, train, held_out, out / "tower.pt")
    model, processor = train_to_speak(settings, accelerator, train, tower, heads, out)
    if not accelerator.is_main_process:
        return
    with atomic_path(out / "model") as folder:
        model.to(torch.bfloat16).save_pretrained(folder)
        processor.save_pretrained(folder)
        made = make_recipe(
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
        write_recipe(folder, made)
    print(f"saved {out / 'model'}; measure it: python eval/evaluate.py --model {out / 'model'} --dataset FACES")


if __name__ == "__main__":
    sys.exit(main())
