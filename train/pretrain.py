"""Make nano, the base model of the package, from rendered faces.

    python data_prep/render_faces.py --out outputs/faces --rows 60000 --size 128 --supersample 1 --framing crop
    python train/pretrain.py --faces outputs/faces --out outputs/nano

Three steps, each resumed where it was killed:

1. The tower learns to see from what a renderer knows for free: coefficients and projected landmarks.
2. The language model learns to speak beside the frozen tower, whose feature maps are computed once.
3. Model, tokenizer, processor and recipe are saved as a stock transformers folder, in bfloat16.

In step 2 half of the rows learn the words of the true analysis and, beside them, the true numbers without words; the
other half the true numbers behind an analysis of what the tower sees. Numbers never follow a true analysis: so taught,
a model copies from its own words, which at work are guesses.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm
from transformers import AutoModel

from semanticface import metrics, nano
from semanticface.answer import format_answer
from semanticface.arkit import MIRROR_INDEX
from semanticface.attention import ATTENTION, Rows
from semanticface.dataset import load_faces
from semanticface.face.types import POINTS
from semanticface.files import atomic_path
from semanticface.layout import IGNORED, AnswerTokens, Lesson, Numbers, branch_mask, join
from semanticface.prompts import load_prompt, messages
from semanticface.recipe import make_recipe, prompt_record, write_recipe
from semanticface.semantics import Analysis, describe_many
from semanticface.steps import Steps


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


@dataclasses.dataclass(frozen=True)
class Faces:
    """A split in memory: pixels uint8[N,128,128,3], coefficients float32[N,52], points float32[N,70,2] of the crop."""

    pixels: np.ndarray
    coefficients: np.ndarray
    points: np.ndarray


def read_faces(folders: list[str], split: str, out: Path, accelerator: Accelerator) -> Faces:
    """Decode one split of several dataset folders, once, into files that all processes map into their memory."""
    parts = [load_faces(folder, split) for folder in folders]
    name = hashlib.sha256("".join(part._fingerprint for part in parts).encode()).hexdigest()[:16]
    folder = out / f"{split}-{name}"
    if accelerator.is_main_process and not folder.exists():
        count = sum(map(len, parts))
        with atomic_path(folder) as scratch:
            scratch.mkdir()
            shape = (count, nano.PIXELS, nano.PIXELS, 3)
            pixels = np.lib.format.open_memmap(scratch / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
            coefficients, points = [], []
            rows = (row for part in parts for row in part)
            for place, row in enumerate(tqdm(rows, desc=f"reading {split}", total=count, unit="face")):
                picture = row["picture"].convert("RGB")
                size = picture.width
                if picture.size != (nano.PIXELS, nano.PIXELS):
                    picture = picture.resize((nano.PIXELS, nano.PIXELS), reducing_gap=2.0)
                pixels[place] = np.asarray(picture)
                coefficients.append(row["coefficients"])
                points.append(np.asarray(row["points"], dtype=np.float32) / size)
            np.save(scratch / "coefficients.npy", np.array(coefficients, dtype=np.float32))
            np.save(scratch / "points.npy", np.stack(points))
    accelerator.wait_for_everyone()
    return Faces(
        np.load(folder / "pixels.npy", mmap_mode="r"),
        np.load(folder / "coefficients.npy"),
        np.load(folder / "points.npy"),
    )


def _swap_sides(name: str) -> str:
    return name.replace("Left", "#").replace("Right", "Left").replace("#", "Right")


_TOLD = ("mae", "correlation")

MIRROR_POINTS = np.array([POINTS.index(_swap_sides(name)) for name in POINTS])


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Scale uint8 pixels [B, H, W, 3] as nano's processor does: float32 [B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1)


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


def prefetch(make: Callable[[int], tuple], count: int, start: int) -> Iterator[tuple]:
    """Yield ``make(start)`` to ``make(count - 1)``, each prepared on a thread while the one before is used."""
    if start >= count:
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(make, start)
        for step in range(start, count):
            ready = coming.result()
            if step + 1 < count:
                coming = pool.submit(make, step + 1)
            yield ready


def one_cycle(step: int, steps: int, warmup: int = 200) -> float:
    """Return the share of the peak learning rate at ``step``: linear warm-up, then a half cosine down to 1 %."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def say_speed(stage: str, samples: int, begun: float) -> None:
    """Print how many samples a second a stage took, where it did anything."""
    if samples > 0:
        print(f"{stage}: {samples / (time.perf_counter() - begun):.1f} samples a second")


def save_state(path: Path, **state: object) -> None:
    """Write a training state that a killed run goes on from."""
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def see(tower: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """The feature maps of a tower, float32[B, C, H, W], computed in bfloat16."""
    pictures = pictures.to(tower.device, memory_format=torch.channels_last)
    with torch.autocast(pictures.device.type, torch.bfloat16):
        return tower(pictures).last_hidden_state.float()


def tower_outputs(
    tower: nn.Module, heads: nn.Module, pixels: np.ndarray, *, mirrored: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return feature maps float16[N, C, H, W] and the coefficients the heads read from them, float32[N, 52]."""
    tower.eval(), heads.eval()
    features, coefficients = [], []
    with torch.inference_mode():
        for start in range(0, len(pixels), 256):
            part = pixels[start : start + 256]
            maps = see(tower, to_tensor(np.ascontiguousarray(part[:, :, ::-1]) if mirrored else np.array(part)))
            features.append(maps.half().cpu().numpy())
            coefficients.append(heads(maps)[0].cpu().numpy())
    return np.concatenate(features), np.concatenate(coefficients)


def train_tower(
    settings: Settings, accelerator: Accelerator, train: Faces, held_out: Faces, state_file: Path
) -> tuple[nn.Module, nn.Module]:
    """Bring the tower up on coefficients and landmarks; returns it with the heads that read them."""
    torch.manual_seed(settings.seed)
    tower = AutoModel.from_config(nano.tower_config()).to(accelerator.device, memory_format=torch.channels_last)
    heads = nano.TowerHeads(nano.WIDTHS[-1], (nano.PIXELS // nano.STRIDE) ** 2, len(POINTS)).to(accelerator.device)
    if settings.tower_from:
        tower.load_state_dict(torch.load(settings.tower_from, weights_only=True)["tower"])
    filters = [weight for weight in tower.parameters() if weight.ndim == 4 and weight.shape[1] > 3]
    known = set(map(id, filters))
    others = [weight for module in (tower, heads) for weight in module.parameters() if id(weight) not in known]
    steps = Steps(accelerator, filters, others, settings.tower_lr)
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
        per_pass = len(train.pixels) // settings.tower_batch
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
        guess, placed = heads(see(tower, pictures))
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


def lessons(tokens: AnswerTokens, values: np.ndarray, analysis: Analysis, glimpse: Analysis, turn: int) -> list[Lesson]:
    """Return the rows one picture is taught by: its coefficients, their analysis, and that of what the tower sees."""
    if turn % 2:
        return [tokens(format_answer(values, glimpse), "numbers")]
    both = [tokens(format_answer(values, analysis), "words"), tokens(format_answer(values, None), "numbers")]
    return [join(both)] if tokens.parallel else both


def train_to_speak(
    settings: Settings, accelerator: Accelerator, train: Faces, tower: nn.Module, heads: nn.Module, out: Path
):
    """Teach a new language model to say what the tower sees; returns model and processor."""
    state_file = out / "speak.pt"
    features, seen = tower_outputs(tower, heads, train.pixels)
    flipped, seen_flipped = tower_outputs(tower, heads, train.pixels, mirrored=True)
    features, seen = np.concatenate([features, flipped]), np.concatenate([seen, seen_flipped]).clip(0, 1)
    truth = np.concatenate([train.coefficients, train.coefficients[:, MIRROR_INDEX]])

    sample = np.random.default_rng(settings.seed).permutation(len(truth))[:4000]
    texts = [format_answer(c, a) for c, a in zip(truth[sample], describe_many(truth[sample]), strict=True)]
    texts += [format_answer(c, a) for c, a in zip(seen[sample], describe_many(seen[sample]), strict=True)]
    asked = {emotion: load_prompt("distill", emotion=emotion) for emotion in (True, False)}
    tokenizer = nano.build_tokenizer([*texts, *[asked[True].system, asked[True].user] * 200])
    processor = nano.build_processor(tokenizer)
    torch.manual_seed(settings.seed)
    model = nano.build_model(tokenizer).to(accelerator.device)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.vision_tower.requires_grad_(False).eval()
    n_cells = (nano.PIXELS // nano.STRIDE) ** 2
    prefixes = {}
    for emotion, prompt in asked.items():
        chat = processor.apply_chat_template(messages(prompt), add_generation_prompt=True)
        chat = chat.replace("<image>", "<image>" * n_cells)
        prefixes[emotion] = tokenizer.encode(chat, add_special_tokens=False)
    numbers = nano.number_ids(tokenizer)
    values = torch.linspace(0, 1, len(numbers), device=accelerator.device)

    learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    matrices = [weight for name, weight in learning.items() if weight.ndim == 2 and "embed" not in name]
    known = set(map(id, matrices))
    others = [weight for weight in learning.values() if id(weight) not in known]
    steps = Steps(accelerator, matrices, others, settings.speak_lr)
    count = settings.speak_samples // settings.speak_batch
    first = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        steps.load_state_dict(state["optimizer"])
        first = state["step"]

    answers = AnswerTokens(tokenizer, tokenizer.eos_token_id, numbers=settings.numbers)

    def batch(step: int) -> tuple[torch.Tensor, ...]:
        rng = np.random.default_rng([settings.seed, 1, step])
        chosen = rng.integers(0, len(truth), settings.speak_batch)[
            accelerator.process_index :: accelerator.num_processes
        ]
        emotion = step % 8 != 7
        prefix = prefixes[emotion]
        analyses = describe_many(truth[chosen], emotion=emotion)
        glimpses = describe_many(seen[chosen], emotion=emotion)
        rows = [
            (lesson, index)
            for turn, (index, analysis, glimpse) in enumerate(zip(chosen, analyses, glimpses, strict=True))
            for lesson in lessons(answers, truth[index], analysis, glimpse, turn)
        ]
        # The rows lie end to end, so that nothing is computed for padding.
        n, ids, places, labels, owners, masks = len(prefix), [], [], [], [], []
        for lesson, _ in rows:
            ids += prefix + lesson.ids
            places += [*range(n), *(n - 1 + step for step in lesson.steps)]
            labels += [IGNORED] * (n - 1)
            labels += [
                label if weight else IGNORED for label, weight in zip(lesson.labels, lesson.weights, strict=True)
            ]
            owners += [-1] * (n - 1) + lesson.numbers
            branches = torch.tensor([[0] * n + lesson.branches])
            masks.append(branch_mask(branches, branches, torch.arange(branches.shape[1])[None]))
        pictures, labels, owners = np.array([index for _, index in rows]), torch.tensor(labels), torch.tensor(owners)
        lengths = tuple(mask.shape[-1] for mask in masks)
        # The tower's own view of each number that is learnt, in the order of the labels.
        wanted = torch.from_numpy(seen[pictures])[np.repeat(np.arange(len(rows)), lengths), owners.clamp(min=0)]
        maps = torch.from_numpy(features[pictures]).float()
        return torch.tensor([ids]), torch.tensor([places]), Rows(lengths, tuple(masks)), labels, owners, wanted, maps

    model.train()
    model.model.vision_tower.eval()
    attention = model.model.language_model.config._attn_implementation
    model.model.language_model.set_attn_implementation(ATTENTION)
    bar = tqdm(
        prefetch(batch, count, first), desc="speak", initial=first, total=count, unit="step",
        disable=not accelerator.is_main_process,
    )  # fmt: skip
    begun = time.perf_counter()
    for step, (ids, places, rows, labels, owners, teacher, maps) in enumerate(bar, start=first):
        ids, labels, owners = (part.to(accelerator.device) for part in (ids, labels, owners))
        learnt = labels != IGNORED
        with torch.autocast(accelerator.device.type, torch.bfloat16):
            embeds = model.get_input_embeddings()(ids)
            image = model.model.multi_modal_projector(maps.to(ids.device).flatten(2).transpose(1, 2))
            embeds = embeds.masked_scatter((ids == model.config.image_token_id)[..., None], image.to(embeds.dtype))
            hidden = model.model.language_model(inputs_embeds=embeds, position_ids=places.to(ids.device), rows=rows)
            logits = model.lm_head(hidden.last_hidden_state[0, learnt]).float()
        words_loss = F.cross_entropy(logits, labels[learnt])
        # The readout takes the mean of the distribution over values, so that mean is taught as well: towards the
        # tower's own estimate, which is far less noisy than a single label.
        at_number = owners[learnt] >= 0
        expected = logits[at_number][:, numbers].softmax(-1) @ values
        numbers_loss = (expected - teacher.to(ids.device)[learnt][at_number]).square().mean()
        steps.take(words_loss + 20 * numbers_loss, one_cycle(step, count))
        if step % 20 == 0:
            bar.set_postfix(tokens=f"{words_loss:.3f}", numbers=f"{numbers_loss:.4f}")
        if accelerator.is_main_process and ((step + 1) % 500 == 0 or step + 1 == count):
            save_state(state_file, model=model.state_dict(), optimizer=steps.state_dict(), step=step + 1)
    model.model.language_model.set_attn_implementation(attention)
    if accelerator.is_main_process:
        say_speed("speak", (count - first) * settings.speak_batch, begun)
    return model, processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    settings = Settings(**vars(parser.parse_args()))
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
            image_size=nano.PIXELS,
            settings=dataclasses.asdict(settings),
            metrics={},
        )
        write_recipe(folder, made)
    print(f"saved {out / 'model'}; measure it: python eval/evaluate.py --model {out / 'model'} --dataset FACES")


if __name__ == "__main__":
    main()
