"""Pretrain nano, the base model in the package, on rendered faces and real pictures.

    python data_prep/render_faces.py --out outputs/faces --rows 60000 --size 128 --supersample 1 --framing crop
    python train/pretrain.py --faces outputs/faces --out outputs/nano
    python train/pretrain.py --faces outputs/faces --people outputs/people --vision-init nano --out outputs/nano-next

Three stages; a stopped run resumes at its last checkpoint:

1. The vision encoder learns coefficients, landmarks and pose, which the renderer knows. Of real pictures it learns
   what MediaPipe knows of them: the actions in which it agrees with ARKit, the landmarks and the head's pose. The other
   actions are learnt from renders alone; two views of one real picture are only asked to agree.
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
from accelerate import Accelerator
from torch import nn
from transformers import AutoModel

from semanticface.arkit import MIRROR_INDEX, NAMES, mirror_pose, pose_units
from semanticface.cli.scripts import ScriptParser
from semanticface.config import check_range
from semanticface.errors import SemanticFaceError
from semanticface.evaluation import metrics
from semanticface.models import nano
from semanticface.models.answer_tokens import Numbers
from semanticface.models.loading import load_trained
from semanticface.prompts import load_prompt
from semanticface.recipe import make_recipe, prompt_record, write_recipe
from semanticface.rendering.types import POINTS
from semanticface.semantics.analysis import describe_many
from semanticface.semantics.answer import format_answer
from semanticface.training.muon import MuonAdamW
from semanticface.training.nano_pretraining import (
    PretrainData,
    PretrainSettings,
    adopt_model,
    like_renders,
    make_targets,
    new_model,
    one_cycle,
    pretrain_language_model,
    save_state,
)
from semanticface.training.nano_vision import CAPTURE_MARGIN, Faces, encode_batch, feature_maps, read_faces
from semanticface.training.views import Views, concat_views, make_views
from semanticface.utils.files import atomic_path
from semanticface.utils.prefetch import prefetch
from semanticface.utils.progress import tqdm

_SAVE_EVERY = 250  # steps of the vision stage
_TOKENIZER_SAMPLES = 4000
_PEOPLE_SHARE = 0.15  # of real faces among the faces of the language stage


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a pretraining.

    Attributes:
        faces: dataset folders of renders.
        people: dataset folders of real pictures labelled by MediaPipe; None trains on renders alone.
        out: folder of the model and the checkpoints.
        people_share: share of real pictures in a batch of the vision stage; each gives two views.
        vision_samples: pictures that the vision encoder trains on, repetitions counted.
        vision_learning_rate: peak rate of AdamW in the vision stage, a tenth of Muon's.
        vision_init: checkpoint of a vision stage, or a model, to start from; None starts from scratch.
        vision_batch_size: pictures per step, over all processes.
        landmark_weight: weight of the landmark loss.
        pose_weight: weight of the pose loss.
        views_weight: weight of the difference between two views of one real picture.
        language_samples: pictures that the language model trains on.
        language_learning_rate: as ``vision_learning_rate``.
        language_init: model whose language model and tokenizer to start from; None starts from scratch.
        language_batch_size: as ``vision_batch_size``.
        numbers: layout of the 52 numbers.
        seed: of initial weights, order and augmentation.
    """

    faces: list[str]
    out: str
    people: list[str] | None = None
    people_share: float = 0.35
    vision_samples: int = 700_000
    vision_learning_rate: float = 2e-3
    vision_init: str | None = None
    vision_batch_size: int = 128
    landmark_weight: float = 0.1
    pose_weight: float = 0.1
    views_weight: float = 0.3
    language_samples: int = 80_000
    language_learning_rate: float = 3e-3
    language_init: str | None = None
    language_batch_size: int = 32
    numbers: Numbers = "parallel"
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("vision_samples", self.vision_samples, self.vision_batch_size)
        check_range("language_samples", self.language_samples, self.language_batch_size)
        check_range("people_share", self.people_share, 0, 0.9)

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each loss of the vision stage."""
        return {"actions": 1.0, "points": self.landmark_weight, "pose": self.pose_weight, "views": self.views_weight}


def main() -> int:
    parser = ScriptParser(__doc__)
    add = parser.add_argument
    add("--faces", nargs="+", required=True, help="dataset folders made by data_prep/render_faces.py")
    add("--out", required=True, help="folder of the model and the checkpoints")
    add("--people", nargs="+", help="folders of real pictures that data_prep/import_pictures.py labelled")
    add("--people-share", type=float, default=Settings.people_share, help="their share of a batch (%(default)s)")
    add("--vision-init", metavar="MODEL", help="start the vision encoder from this model, or from a run's tower.pt")
    add("--vision-samples", type=int, default=Settings.vision_samples, help="pictures for the vision encoder")
    add("--vision-learning-rate", type=float, default=Settings.vision_learning_rate)
    add("--language-samples", type=int, default=Settings.language_samples, help="pictures for the language model")
    add("--language-learning-rate", type=float, default=Settings.language_learning_rate)
    add("--language-init", metavar="MODEL", help="start the language model from this model, with its tokenizer")
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
    train, held_out = (_read_sources(settings, split, out, accelerator) for split in ("train", "validation"))
    for name, some, others in zip(("rendered", "real"), train, held_out, strict=False):
        accelerator.print(f"{len(some)} {name} training faces, {len(others)} held out, of other subjects")
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
            pose=settings.numbers == "parallel",
            image_size=nano.IMAGE_SIZE,
            settings=dataclasses.asdict(settings),
            metrics={},
        )
        write_recipe(folder, recipe)
    print(f"saved {out / 'model'}; evaluate it: python eval/evaluate.py --model {out / 'model'} --dataset FACES")


def _read_sources(settings: Settings, split: str, out: Path, accelerator: Accelerator) -> list[Faces]:
    sources = [read_faces(settings.faces, split, out, accelerator)]
    if settings.people:
        sources.append(read_faces(settings.people, split, out, accelerator, margin=CAPTURE_MARGIN))
    return sources


# --- stage 1: the vision encoder --------------------------------------------------------------------------------------


def train_vision_encoder(
    settings: Settings, accelerator: Accelerator, train: list[Faces], held_out: list[Faces], state_file: Path
) -> tuple[nn.Module, nn.Module]:
    """Train the vision encoder on coefficients, landmarks and pose; returns it and the heads that predict them.

    The first of ``train`` and ``held_out`` are renders; real pictures may follow.
    """
    torch.manual_seed(settings.seed)
    device = accelerator.device
    vision_encoder = AutoModel.from_config(nano.vision_config()).to(device, memory_format=torch.channels_last)
    heads = nano.VisionHeads(nano.HIDDEN_SIZES[-1], (nano.IMAGE_SIZE // nano.STRIDE) ** 2, len(POINTS)).to(device)
    if settings.vision_init and not state_file.exists():
        _load_vision_encoder(vision_encoder, settings.vision_init)
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
    scale = torch.from_numpy(1 / train[0].coefficients.std(0).clip(0.05)).to(device)

    batches = (_vision_batch(settings, accelerator, train, step) for step in range(first, steps))
    bar = tqdm(
        prefetch(batches, 1), desc="vision", initial=first, total=steps, unit="step",
        disable=not accelerator.is_main_process,
    )  # fmt: skip
    started = time.perf_counter()
    for step, (views, pairs) in enumerate(bar, start=first):
        vision_encoder.train(), heads.train()
        losses = _vision_losses(heads(encode_batch(vision_encoder, views.images)), views, pairs, scale)
        total = torch.stack([settings.weights[name] * loss for name, loss in losses.items()]).sum()
        optimizer.step(total, one_cycle(step, steps))
        if step % 50 == 0:
            bar.set_postfix({name: f"{loss:.3f}" for name, loss in losses.items()})
        if accelerator.is_main_process and ((step + 1) % _SAVE_EVERY == 0 or step + 1 == steps):
            save_state(
                state_file,
                tower=vision_encoder.state_dict(), heads=heads.state_dict(), optimizer=optimizer.state_dict(),
                step=step + 1,
            )  # fmt: skip
            tqdm.write(
                f"{(step + 1) * settings.vision_batch_size} pictures; " + _held_out(vision_encoder, heads, held_out)
            )
    _print_speed(accelerator, "vision", (steps - first) * settings.vision_batch_size, started)
    accelerator.wait_for_everyone()
    # Batch norm statistics differ between processes: take those of the checkpoint.
    state = torch.load(state_file, weights_only=True)
    vision_encoder.load_state_dict(state["tower"])
    heads.load_state_dict(state["heads"])
    return vision_encoder, heads


def _load_vision_encoder(vision_encoder: nn.Module, source: str) -> None:
    """Load the weights of a checkpoint of this stage, or of the vision encoder of a model."""
    if Path(source).is_file():
        vision_encoder.load_state_dict(torch.load(source, weights_only=True)["tower"])
        return
    model: Any = load_trained(source).model
    vision_encoder.load_state_dict(model.model.vision_tower.state_dict())


def _vision_losses(
    predicted: tuple[torch.Tensor, torch.Tensor, torch.Tensor], views: Views, pairs: int, scale: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the losses of a batch whose last ``2 * pairs`` views are two of each real picture."""
    device = scale.device
    coefficients, points, pose = predicted
    known, true_points, true_pose = views.known.to(device), views.points.to(device), views.pose.to(device)
    error = ((coefficients - views.coefficients.to(device)) * scale).square()
    visible, posed = true_points.isfinite(), true_pose.isfinite()
    losses = {
        "actions": error[known].mean(),
        "points": (points - true_points.nan_to_num()).square()[visible].mean() * 1000,
        "pose": (pose - true_pose.nan_to_num()).square()[posed].mean() * 100,
    }
    if pairs:
        # What two views of one picture show is the same, known or not.
        mirrored = views.mirrored.to(device)[:, None]
        upright = torch.where(mirrored, coefficients[:, torch.as_tensor(MIRROR_INDEX, device=device)], coefficients)
        one, other = upright[-2 * pairs : -pairs], upright[-pairs:]
        losses["views"] = ((one - other) * scale).square().mean()
    return losses


def _held_out(vision_encoder: nn.Module, heads: nn.Module, held_out: list[Faces]) -> str:
    """Return the figures on held-out faces of every source: those of the actions that are known."""
    parts = []
    for faces, name in zip(held_out, ("renders", "people"), strict=False):
        _, predictions, pose = predict(vision_encoder, heads, centre(faces))
        each = metrics.score(faces.coefficients, predictions.clip(0, 1), on_head=False)["model"]["per_action"]
        known = [each[name] for name, is_known in zip(NAMES, faces.known[0], strict=True) if is_known]
        correlation = np.mean([action["correlation"] for action in known if action["correlation"] is not None])
        mae = np.mean([action["mae"] for action in known])
        turned = np.degrees(np.nanmean(np.abs(pose - faces.pose)[:, :3]))
        parts.append(f"{name} correlation {correlation:.3f}, MAE {mae:.3f}, head {turned:.1f} degrees")
    return "; ".join(parts)


def centre(faces: Faces) -> np.ndarray:
    """Return the faces' boxes as a model sees them, uint8[N, 128, 128, 3]."""
    if faces.margin == 1:
        return faces.pixels
    spare = (faces.pixels.shape[1] - nano.IMAGE_SIZE) // 2
    return faces.pixels[:, spare : spare + nano.IMAGE_SIZE, spare : spare + nano.IMAGE_SIZE]


def _vision_batch(settings: Settings, accelerator: Accelerator, train: list[Faces], step: int) -> tuple[Views, int]:
    """Return this process's views of a step, and how many real pictures end them with two views each."""
    renders, *people = train
    share = accelerator.num_processes
    pairs = round(settings.vision_batch_size * settings.people_share / 2 / share) if people else 0
    seed = (settings.seed * 1_000_003 + step) * 1009 + accelerator.process_index
    rng = torch.Generator().manual_seed(seed)
    size = settings.vision_batch_size - 2 * pairs * share
    parts = [make_views(renders, _indices(settings.seed, step, size, len(renders), accelerator), rng)]
    if pairs:
        indices = _indices(settings.seed + 1, step, pairs * share, len(people[0]), accelerator)
        parts += [make_views(people[0], indices, rng), make_views(people[0], indices, rng)]
        pairs = len(indices)
    return concat_views(parts), pairs


def _indices(seed: int, step: int, size: int, count: int, accelerator: Accelerator) -> np.ndarray:
    """Return this process's faces of a step, from a new order in every pass over them."""
    per_epoch = max(1, count // size)  # fewer faces than a batch are one smaller batch
    order = np.random.default_rng([seed, step // per_epoch]).permutation(count)
    start = (step % per_epoch) * size
    chosen: np.ndarray = np.sort(order[start : start + size])[accelerator.process_index :: accelerator.num_processes]
    return chosen


def predict(
    vision_encoder: nn.Module, heads: nn.Module, pixels: np.ndarray, *, mirrored: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return feature maps float16[N, C, H, W] and what the heads predict: coefficients [N, 52] and pose [N, 9]."""
    heads.eval()
    features, coefficients, poses = [], [], []
    for maps in feature_maps(vision_encoder, pixels, mirrored=mirrored):
        features.append(maps.half().cpu().numpy())
        with torch.inference_mode():
            predicted, _, pose = heads(maps)
        coefficients.append(predicted.cpu().numpy())
        poses.append(pose.cpu().numpy())
    return np.concatenate(features), np.concatenate(coefficients), np.concatenate(poses)


def _read_both_ways(
    vision_encoder: nn.Module, heads: nn.Module, faces: Faces
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read faces, then their mirror images.

    Returns:
        feature maps float16[2N, C, H, W], coefficients float32[2N, 52] in [0, 1] and poses float32[2N, 9].
    """
    both = [predict(vision_encoder, heads, centre(faces), mirrored=mirrored) for mirrored in (False, True)]
    maps, values, poses = (np.concatenate(parts) for parts in zip(*both, strict=True))
    return maps, values.clip(0, 1), poses


def _build_processor(settings: Settings, truth: np.ndarray, predicted: np.ndarray) -> Any:
    """Return a processor with a tokenizer of the answers to learn."""
    sample = np.random.default_rng(settings.seed).permutation(len(truth))[:_TOKENIZER_SAMPLES]
    texts = []
    for values in (truth[sample], predicted[sample]):
        texts += [format_answer(each, analysis) for each, analysis in zip(values, describe_many(values), strict=True)]
    prompt = load_prompt("distill")
    return nano.build_processor(nano.build_tokenizer([*texts, *[prompt.system, prompt.user] * 200]))


def _print_speed(accelerator: Accelerator, stage: str, samples: int, started: float) -> None:
    if accelerator.is_main_process and samples > 0:
        print(f"{stage}: {samples / (time.perf_counter() - started):.1f} samples a second")


# --- stage 2: the language model --------------------------------------------------------------------------------------


def train_language_model(
    settings: Settings,
    accelerator: Accelerator,
    train: list[Faces],
    vision_encoder: nn.Module,
    heads: nn.Module,
    state: Path,
) -> tuple[Any, Any]:
    """Train a language model on the frozen vision encoder; returns model and processor."""
    renders, *people = train
    features, predicted, turned = _read_both_ways(vision_encoder, heads, renders)
    truth = np.concatenate([renders.coefficients, renders.coefficients[:, MIRROR_INDEX]])
    pose = np.concatenate([renders.pose, mirror_pose(renders.pose)])
    exact = np.ones(len(truth), bool)
    if settings.language_init:
        bundle = load_trained(settings.language_init)
        processor, model = bundle.processor, adopt_model(bundle, vision_encoder)
    else:
        processor = _build_processor(settings, truth, predicted)
        model = new_model(processor.tokenizer, vision_encoder, settings.seed)
    if people:
        maps, readings, directions = _read_both_ways(vision_encoder, heads, people[0])
        # Real faces are few: each takes part several times, with other draws of what it may be.
        times = max(1, round(_PEOPLE_SHARE * len(truth) / len(readings)))
        rng = np.random.default_rng([settings.seed, 2])
        drawn = [like_renders(predicted, truth, readings, rng) for _ in range(times)]
        truth = np.concatenate([truth, *drawn])
        features = np.concatenate([features, *[maps] * times])
        predicted = np.concatenate([predicted, *[readings] * times])
        turned = np.concatenate([turned, *[directions] * times])
        pose = np.concatenate([pose, *[np.concatenate([people[0].pose, mirror_pose(people[0].pose)])] * times])
        exact = np.concatenate([exact, np.zeros(len(truth) - len(exact), bool)])
    # The encoder's own predictions are far less noisy targets of the means than single labels.
    means = np.concatenate([predicted, pose_units(turned)], axis=1)
    data = PretrainData(features, truth, predicted, mean_targets=means, exact=exact, pose=pose)
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
