"""Compare face detectors on renders of every style and on photographs.

    python eval/speed/crop.py --photographs outputs/finder/scikit_image-*.whl

Renders are of subjects that no detector was trained on; the style ``imp`` was never trained on at all. ``portrait`` is
a render as it is, ``scene`` has it small in a photograph. Metrics: recall (IoU above 0.5), false positives per image,
mean IoU, and median error of centre and side in percent of the side. Photographs are listed one by one.

Baselines are CenterFace alone (our detector's backbone, made for photographs) and, with ``--cascade`` (needs
opencv-python-headless below 5), OpenCV's cascades. Their boxes follow other definitions, so each gets the constant
shift and scale that fits ours best on other renders. ``--annotated`` takes folders of images with a ``boxes.json``:
{"picture.jpg": [[x0, y0, x1, y1], …]}, boxes by our definition.
"""

from __future__ import annotations

import functools
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

from semanticface.cli.scripts import ScriptParser
from semanticface.rendering import HELD_OUT_STYLE, STYLES, render
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.utils.progress import tqdm
from semanticface.vision import centerface
from semanticface.vision.crop import Box
from semanticface.vision.face_detector import default_face_detector, detect_faces, non_max_suppression, to_batch

Detector = Callable[[Image.Image], list[Box]]
LabelledImage = tuple[Image.Image, list[Box]]

# Photographs without a human face in scikit-image's package that train/face_detector.py does not use.
WITHOUT_FACES = ("chelsea.png", "coffee.png", "grass.png", "moon.png", "microaneurysms.png", "phantom.png")
FIRST_SUBJECT = 7_000_000  # train/face_detector.py uses others
SCENE = 512


def centerface_alone(image: Image.Image) -> list[Box]:
    """CenterFace as published: one scale, at most 640 pixels a side, its own score."""
    net = default_face_detector().net.backbone
    scale = min(1.0, 640 / max(image.size))
    width, height = (max(32, round(side * scale / 32) * 32) for side in image.size)
    with torch.inference_mode():
        cells = centerface.decode_boxes(net.predict_maps(net.features(to_batch([image.resize((width, height))]))))[0]
    score, x, y, wide, tall = cells[:, cells[0] > 0.35].numpy()
    x, wide, y, tall = (
        values * stretch
        for values, stretch in zip(
            (x, wide, y, tall), np.repeat(np.divide(image.size, (width, height)), 2), strict=True
        )
    )
    corners = np.stack([x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2, score], axis=1)
    return non_max_suppression([Box(*each) for each in corners.tolist()])


def cascade(path: Path) -> Detector:
    """A Viola-Jones cascade with OpenCV's default settings."""
    import cv2

    classifier = cv2.CascadeClassifier(str(path))
    if classifier.empty():
        raise SystemExit(f"{path} is not a cascade that OpenCV {cv2.__version__} can read.")

    def detect(image: Image.Image) -> list[Box]:
        grey = np.asarray(image.convert("L"))
        found, _, weights = classifier.detectMultiScale3(grey, 1.1, 4, minSize=(24, 24), outputRejectLevels=True)
        boxes = [Box(float(x), float(y), float(x + w), float(y + h)) for x, y, w, h in found]
        order = np.argsort(-np.ravel(weights)) if len(boxes) else []
        return [boxes[index] for index in order]

    return detect


@functools.cache
def portrait(style: str, number: int) -> LabelledImage:
    seed = FIRST_SUBJECT + number
    coefficients = sample_coefficients(np.random.default_rng([seed, 1]))
    rendered = render(coefficients, style=style, subject=seed, shot=seed, size=256, framing="portrait")
    return Image.fromarray(rendered.image), [Box(*rendered.box.tolist())]


def in_scene(style: str, number: int, photographs: list[Image.Image]) -> LabelledImage:
    """The portrait, softly masked, at 7 to 35 % of a photograph's side."""
    rng = np.random.default_rng([FIRST_SUBJECT, number])
    face, (box,) = portrait(style, number)
    canvas = photographs[number % len(photographs)].convert("RGB").resize((SCENE, SCENE), Image.Resampling.BICUBIC)
    side = SCENE * float(np.exp(rng.uniform(np.log(0.07), np.log(0.35))))
    scale = side / box.width
    size = max(8, round(face.width * scale))
    scale = size / face.width
    mask = Image.new("L", face.size)
    (x, y), reach = box.centre, 0.75 * box.width
    ImageDraw.Draw(mask).ellipse((x - 0.85 * reach, y - 1.1 * reach, x + 0.85 * reach, y + 0.95 * reach), fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(0.04 * box.width))
    left, top = (int(rng.uniform(-0.15 * size, SCENE - 0.85 * size)) for _ in range(2))
    canvas.paste(face.resize((size, size), Image.Resampling.LANCZOS), (left, top), mask.resize((size, size)))
    corners = (box.x0 * scale + left, box.y0 * scale + top, box.x1 * scale + left, box.y1 * scale + top)
    return canvas, [Box(*corners)]


def calibrate(detect: Detector, images: list[LabelledImage]) -> Detector:
    """The detector with the constant shift and scale, in sides of its box, that map its boxes to our definition."""
    changes = []
    for image, (box,) in images:
        for found in detect(image)[:1]:
            found = found.square()
            if found.overlap(box) > 0.2:
                shift = np.subtract(box.centre, found.centre) / found.width
                changes.append((*shift, box.width / found.width))
    if not changes:
        return detect
    x, y, scale = np.median(changes, axis=0)

    def changed(image: Image.Image) -> list[Box]:
        return [_shifted(box.square(), x, y, scale) for box in detect(image)]

    return changed


def _shifted(box: Box, x: float, y: float, scale: float) -> Box:
    (cx, cy), half = box.centre, box.width * scale / 2
    cx, cy = cx + x * box.width, cy + y * box.width
    return Box(cx - half, cy - half, cx + half, cy + half, box.score)


def measure(detect: Detector, images: list[LabelledImage]) -> dict[str, float]:
    overlaps, centres, sides, n_missed, n_false = [], [], [], 0, 0
    for image, truth in images:
        left = detect(image)
        for box in truth:
            best = max(left, key=box.overlap, default=None)
            if best is None or box.overlap(best) <= 0.5:
                n_missed += 1
                continue
            left.remove(best)
            overlaps.append(box.overlap(best))
            centres.append(np.hypot(*np.subtract(best.centre, box.centre)) / box.width)
            sides.append(abs(np.log(best.square().width / box.width)))
        n_false += len(left)
    found = len(overlaps)
    return {
        "faces": found + n_missed,
        "found": found / max(found + n_missed, 1),
        "false_per_picture": n_false / len(images),
        "overlap": float(np.mean(overlaps)) if found else float("nan"),
        "centre_error": float(np.median(centres)) if found else float("nan"),
        "side_error": float(np.median(sides)) if found else float("nan"),
    }


def read_wheel(path: Path, names: tuple[str, ...]) -> dict[str, Image.Image]:
    with zipfile.ZipFile(path) as archive:
        inside = {Path(name).name: name for name in archive.namelist()}
        return {name: Image.open(io.BytesIO(archive.read(inside[name]))).convert("RGB") for name in names}


def read_annotated(folder: Path) -> dict[str, LabelledImage]:
    boxes = json.loads((folder / "boxes.json").read_text())
    return {name: (Image.open(folder / name).convert("RGB"), [Box(*box) for box in boxes[name]]) for name in boxes}


def main() -> None:
    parser = ScriptParser(__doc__)
    parser.add_argument("--photographs", type=Path, required=True, help="the scikit-image wheel")
    parser.add_argument("--count", type=int, default=60, help="renders per style and set")
    parser.add_argument("--annotated", type=Path, nargs="*", default=[], help="folders of images with a boxes.json")
    parser.add_argument("--cascade", type=Path, nargs="*", default=[], help="OpenCV cascade XML files")
    parser.add_argument("--out", type=Path, default=Path("outputs/crop.json"))
    options = parser.parse_args()

    without = read_wheel(options.photographs, WITHOUT_FACES)
    styles = (*STYLES, HELD_OUT_STYLE)
    sets: dict[str, list[LabelledImage]] = {}
    for style in tqdm(styles, desc="renders", unit="style"):
        sets[f"{style} portrait"] = [portrait(style, number) for number in range(options.count)]
        sets[f"{style} scene"] = [in_scene(style, number, list(without.values())) for number in range(options.count)]
    sets |= {f"photograph: {name}, no face": [(image, [])] for name, image in without.items()}
    for folder in options.annotated:
        sets |= {f"photograph: {name}": [image] for name, image in read_annotated(folder).items()}

    calibration = [portrait("photo", 10_000 + number) for number in range(40)]
    detectors: dict[str, Detector] = {"ours": detect_faces, "centerface": calibrate(centerface_alone, calibration)}
    for path in options.cascade:
        detectors[path.stem] = calibrate(cascade(path), calibration)

    results: dict[str, dict[str, dict[str, float]]] = {}
    for name, detect in detectors.items():
        print(f"\n{name:42} faces  found  false/picture  overlap  centre %  side %")
        results[name] = {}
        for title, images in sets.items():
            figures = results[name][title] = measure(detect, images)
            print(
                f"{title:42} {figures['faces']:5}  {figures['found']:5.3f}  {figures['false_per_picture']:13.3f}  "
                f"{figures['overlap']:7.3f}  {100 * figures['centre_error']:8.1f}  {100 * figures['side_error']:6.1f}"
            )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2))
    print(f"\nwrote {options.out}")


if __name__ == "__main__":
    main()
