"""Synthetic scenes for ``train/face_detector.py``: rendered faces composited into images, and images without a face.

Cues that the detector must not learn from are randomised and appear without faces too: borders of pasted patches,
surroundings of a face, colours, sharpness. Photographs without faces come from a folder, zip or wheel; textures are
generated.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from semanticface.rendering import POINTS
from semanticface.vision.face_detector import INPUT_SIZE

PHOTOGRAPH_SUFFIXES = (".png", ".jpg", ".jpeg")
MIN_SIDE = 7.0
"""Side in pixels of the smallest face that counts as positive."""
MAX_FACES = 4
_JAW = [
    POINTS.index(name)
    for name in (*(f"jawLeft{n}" for n in (4, 3, 2, 1)), "chin", *(f"jawRight{n}" for n in range(1, 5)))
]
_IRISES = [POINTS.index("irisLeft"), POINTS.index("irisRight")]


@dataclass(frozen=True)
class Faces:
    """Rendered portraits: pictures uint8 [N, S, S, 3], points float32 [N, 70, 2], boxes float32 [N, 4], in pixels."""

    pictures: np.ndarray
    points: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True)
class Scene:
    """A square image and its labels.

    Attributes:
        image: RGB, ``INPUT_SIZE`` pixels a side.
        faces: float32 [n, 3], centre x, centre y and side of each face's box in pixels.
        ignored: float32 [n, 3], the same of faces too small or truncated to count as positive or negative.
    """

    image: Image.Image
    faces: np.ndarray
    ignored: np.ndarray


def read_photographs(source: Path, names: tuple[str, ...]) -> list[Image.Image]:
    """Read the photographs of these file names from a folder, zip or wheel, sorted by name."""
    found: dict[str, Image.Image] = {}
    if source.is_dir():
        for path in source.rglob("*"):
            if path.name in names:
                found[path.name] = Image.open(path).convert("RGB")
    else:
        with zipfile.ZipFile(source) as archive:
            for path in map(Path, archive.namelist()):
                if path.name in names:
                    found[path.name] = Image.open(io.BytesIO(archive.read(str(path)))).convert("RGB")
    if missing := set(names) - set(found):
        raise FileNotFoundError(f"{source} lacks {', '.join(sorted(missing))}: give the scikit-image wheel.")
    return [found[name] for name in sorted(found)]


def scene(rng: np.random.Generator, faces: Faces, photographs: list[Image.Image]) -> Scene:
    """Generate a scene: none to four faces, distractors, and image degradation."""
    canvas = background(rng, photographs)
    for _ in range(rng.integers(0, 3)):
        _paste_distractor(rng, canvas, photographs)
    close_up = rng.random() < 0.4
    count = 1 if close_up else int(rng.choice([0, 1, 2, 3, MAX_FACES], p=[0.3, 0.4, 0.15, 0.1, 0.05]))
    placed: list[tuple[float, float, float]] = []
    for _ in range(count):
        place = _place_face(rng, placed, close_up)
        if place is not None:
            _paste_face(rng, canvas, faces, int(rng.integers(len(faces.pictures))), place)
            placed.append(place)
            if rng.random() < 0.35:
                _occlude(rng, canvas, place, photographs)
    canvas, frame = _pad_edges(rng, _degrade(rng, canvas))
    counts = [_visible_share(place, frame) > 0.5 and place[2] >= MIN_SIDE for place in placed]
    positives = [place for place, keep in zip(placed, counts, strict=True) if keep]
    ignored = [place for place, keep in zip(placed, counts, strict=True) if not keep]
    return Scene(canvas, np.array(positives, np.float32).reshape(-1, 3), np.array(ignored, np.float32).reshape(-1, 3))


def background(rng: np.random.Generator, photographs: list[Image.Image], size: int = INPUT_SIZE) -> Image.Image:
    """An image without a face: a random crop of a photograph, or a generated texture."""
    if rng.random() < 0.55:
        photograph = photographs[rng.integers(len(photographs))]
        side = min(photograph.size) * rng.uniform(0.15, 1.0)
        x, y = rng.uniform(0, photograph.width - side), rng.uniform(0, photograph.height - side)
        cut = photograph.resize((size, size), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side), reducing_gap=2)
        if rng.random() < 0.3:
            cut = cut.rotate(90 * int(rng.integers(1, 4)))
        return _recolour(rng, cut) if rng.random() < 0.4 else cut
    return _texture(rng, size)


def _texture(rng: np.random.Generator, size: int) -> Image.Image:
    """Smooth noise of random frequency between two colours, sometimes with stripes, shapes or text."""
    cells = int(rng.choice([1, 2, 3, 5, 9, 20, 64]))
    noise = rng.random((cells + 1, cells + 1, 3)) if rng.random() < 0.4 else rng.random((cells + 1, cells + 1, 1))
    low, high = _colour(rng), _colour(rng)
    pixels = low + (high - low) * noise * rng.uniform(0.1, 1.0)
    canvas = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    kind = rng.random()
    if kind < 0.2:
        step, width = rng.uniform(4, 40), int(rng.integers(1, 12))
        slant = rng.uniform(-size, size)
        for start in np.arange(-size, 2 * size, step):
            draw.line(
                (start, 0, start + slant, size),
                fill=_ink(rng) if rng.random() < 0.1 else tuple(map(int, high)),
                width=width,
            )
    elif kind < 0.6:
        for _ in range(rng.integers(1, 25)):
            _shape(rng, draw, size)
    elif kind < 0.7:
        for _ in range(rng.integers(3, 12)):
            place = tuple(rng.uniform(0, size, 2))
            text = "".join(
                rng.choice(list("abcdefgh ijkmnoprstuvwxyzABCDEFGH0123456789.,:;?!()"), int(rng.integers(2, 20)))
            )
            draw.text(place, text, fill=_ink(rng), font_size=float(rng.uniform(7, 40)))
    return canvas


def _shape(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: int) -> None:
    x, y = rng.uniform(0, size, 2)
    width, height = rng.uniform(2, size * 0.5, 2)
    frame = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    outline = _ink(rng) if rng.random() < 0.4 else None
    match rng.integers(4):
        case 0:
            draw.ellipse(frame, fill=_ink(rng), outline=outline, width=int(rng.integers(1, 5)))
        case 1:
            draw.rectangle(frame, fill=_ink(rng), outline=outline, width=int(rng.integers(1, 5)))
        case 2:
            draw.arc(frame, *sorted(rng.uniform(0, 360, 2)), fill=_ink(rng), width=int(rng.integers(1, 8)))
        case _:
            corners = [
                (x + rng.normal(0, width / 2), y + rng.normal(0, height / 2)) for _ in range(int(rng.integers(3, 7)))
            ]
            draw.polygon(corners, fill=_ink(rng), outline=outline)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """A colour as float [3] in 0..255: any, a grey, or a skin tone."""
    kind = rng.random()
    if kind < 0.25:
        return np.full(3, rng.uniform(0, 255))
    if kind < 0.5:
        return np.array([1.0, rng.uniform(0.6, 0.85), rng.uniform(0.4, 0.75)]) * rng.uniform(60, 255)
    return rng.uniform(0, 255, 3)


def _ink(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = _colour(rng).astype(int).tolist()
    return red, green, blue


def _recolour(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    mixing = np.eye(3) + rng.normal(0, 0.25, (3, 3))
    rows = np.concatenate([mixing / mixing.sum(axis=1, keepdims=True).clip(0.5), rng.normal(0, 15, (3, 1))], axis=1)
    return picture.convert("RGB", tuple(rows.ravel().tolist()))


def _place_face(
    rng: np.random.Generator, placed: list[tuple[float, float, float]], close_up: bool
) -> tuple[float, float, float] | None:
    """Centre and side of a new face's box that overlaps no other; None when no room was found."""
    for _ in range(8):
        if close_up:  # as in re-detection: half the window, roughly centred
            side = INPUT_SIZE / 2 * np.exp(rng.normal(0, 0.25))
            x, y = INPUT_SIZE / 2 + rng.normal(0, 0.12, 2) * side
        else:
            largest = INPUT_SIZE * (1.3 if not placed else 0.5)
            side = np.exp(rng.uniform(np.log(5.5), np.log(largest)))
            margin = min(side * rng.uniform(-0.1, 0.5), INPUT_SIZE / 2 - 1)
            x, y = rng.uniform(margin, INPUT_SIZE - margin, 2)
        if all(max(abs(x - a), abs(y - b)) > 0.75 * (side + s) / 2 for a, b, s in placed):
            return float(x), float(y), float(side)
    return None


def _visible_share(place: tuple[float, float, float], frame: tuple[int, int, int, int]) -> float:
    x, y, side = place
    width = min(x + side / 2, frame[2]) - max(x - side / 2, frame[0])
    height = min(y + side / 2, frame[3]) - max(y - side / 2, frame[1])
    return max(width, 0) * max(height, 0) / side**2


def _paste_face(
    rng: np.random.Generator, canvas: Image.Image, faces: Faces, index: int, place: tuple[float, float, float]
) -> None:
    """Composite a render into the canvas so that its box has this position, cut out in one of several ways."""
    picture, points, box = Image.fromarray(faces.pictures[index]), faces.points[index], faces.boxes[index]
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        points = points * (-1, 1) + (picture.width, 0)
        box = np.array([picture.width - box[2], box[1], picture.width - box[0], box[3]])
    if rng.random() < 0.3:
        picture = _recolour(rng, picture)
    mask = _cutout_mask(rng, picture.size, points, box)
    scale = place[2] / float(box[2] - box[0])
    centre = (box[:2] + box[2:]) / 2
    left, top = place[0] - centre[0] * scale, place[1] - centre[1] * scale
    if mask is not None and rng.random() < 0.6:
        _person(rng, canvas, place)
    # Resample only the visible part, at subpixel offsets, so that labels stay exact.
    x0, y0 = max(0, int(np.ceil(left))), max(0, int(np.ceil(top)))
    x1, y1 = (min(INPUT_SIZE, int(np.floor(start + picture.width * scale))) for start in (left, top))
    if x1 <= x0 or y1 <= y0:
        return
    source = tuple(((edge - start) / scale) for edge, start in ((x0, left), (y0, top), (x1, left), (y1, top)))
    size = (x1 - x0, y1 - y0)
    patch = picture.resize(size, Image.Resampling.BILINEAR, box=source)
    canvas.paste(patch, (x0, y0), None if mask is None else mask.resize(size, Image.Resampling.BILINEAR, box=source))
    if rng.random() < 0.2:
        _glasses(rng, canvas, points[_IRISES] * scale + (left, top), place[2])


def _cutout_mask(
    rng: np.random.Generator, size: tuple[int, int], points: np.ndarray, box: np.ndarray
) -> Image.Image | None:
    """Mask of a render: None for all of it, a soft ellipse around the head, or the face's outline."""
    kind = rng.random()
    if kind < 0.4:
        return None
    side, (x, y) = float(box[2] - box[0]), (box[:2] + box[2:]) / 2
    mask = Image.new("L", size, 0)
    draw = ImageDraw.Draw(mask)
    jaw = points[_JAW]
    if kind < 0.75 or np.isnan(jaw).any():
        width, height = side * rng.uniform(0.42, 0.75), side * rng.uniform(0.5, 0.9)
        y -= side * rng.uniform(0.0, 0.2)
        draw.ellipse((x - width, y - height, x + width, y + height), fill=255)
    else:
        rise = side * rng.uniform(0.25, 0.6)
        angles = np.linspace(0, np.pi, 9)[1:-1]
        (ax, ay), (bx, by) = jaw[-1], jaw[0]
        middle, half = ((ax + bx) / 2, (ay + by) / 2), (bx - ax) / 2
        arch = [(middle[0] + half * np.cos(a), middle[1] - rise * np.sin(a)) for a in angles]
        draw.polygon([tuple(point) for point in jaw[::-1]] + arch, fill=255)
    return mask.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.06 * side)))


def _person(rng: np.random.Generator, canvas: Image.Image, place: tuple[float, float, float]) -> None:
    """Hair or a hat behind a face, and shoulders under it, as plain shapes."""
    x, y, side = place
    draw = ImageDraw.Draw(canvas)
    width, neck = side * rng.uniform(0.6, 1.4), side * rng.uniform(0.12, 0.28)
    shoulder = y + side * rng.uniform(0.5, 0.8)
    draw.polygon(
        [(x - neck, y), (x + neck, y), (x + neck, shoulder), (x + width, shoulder + side * 0.25),
         (x + width, y + 3 * side), (x - width, y + 3 * side), (x - width, shoulder + side * 0.25),
         (x - neck, shoulder)],
        fill=_ink(rng),
    )  # fmt: skip
    hair, tint = rng.uniform(0.42, 0.75, 2) * side, _ink(rng)
    down = side * rng.uniform(-0.25, 0.15)
    draw.ellipse((x - hair[0], y + down - hair[1], x + hair[0], y + down + hair[1]), fill=tint)
    if rng.random() < 0.35:
        draw.rectangle((x - hair[0], y + down, x + hair[0], y + side * rng.uniform(0.3, 1.2)), fill=tint)


def _glasses(rng: np.random.Generator, canvas: Image.Image, irises: np.ndarray, side: float) -> None:
    if np.isnan(irises).any():
        return
    draw = ImageDraw.Draw(canvas)
    ink, width, round_ = _ink(rng), max(1, round(side * rng.uniform(0.01, 0.04))), rng.random() < 0.5
    half = side * rng.uniform(0.09, 0.14), side * rng.uniform(0.06, 0.13)
    for x, y in irises:
        frame = (x - half[0], y - half[1], x + half[0], y + half[1])
        (draw.ellipse if round_ else draw.rectangle)(
            frame, outline=ink, width=width, fill=ink if rng.random() < 0.3 else None
        )
    draw.line([tuple(irises[0]), tuple(irises[1])], fill=ink, width=width)


def _occlude(
    rng: np.random.Generator, canvas: Image.Image, place: tuple[float, float, float], photographs: list[Image.Image]
) -> None:
    """Cover part of a face: hat, fringe, hand, mask or an object at one side."""
    x, y, side = place
    mask = Image.new("L", canvas.size, 0)
    draw = ImageDraw.Draw(mask)
    width, height = side * rng.uniform(0.15, 0.5), side * rng.uniform(0.1, 0.3)
    angle = rng.uniform(0, 2 * np.pi)
    away = side * rng.uniform(0.3, 0.55)
    cx, cy = x + away * np.cos(angle), y + away * np.sin(angle)
    frame = (cx - width, cy - height, cx + width, cy + height)
    (draw.ellipse if rng.random() < 0.6 else draw.rectangle)(frame, fill=255)
    if rng.random() < 0.5:
        mask = mask.rotate(rng.uniform(-40, 40), center=(cx, cy))
    filling = Image.new("RGB", canvas.size, _ink(rng)) if rng.random() < 0.6 else background(rng, photographs)
    canvas.paste(filling, (0, 0), mask)


def _paste_distractor(rng: np.random.Generator, canvas: Image.Image, photographs: list[Image.Image]) -> None:
    """Paste something that is no face: a framed image, a soft ellipse of texture, a head from behind."""
    side = float(np.exp(rng.uniform(np.log(8), np.log(INPUT_SIZE))))
    x, y = rng.uniform(0, INPUT_SIZE, 2)
    if rng.random() < 0.4:
        _person(rng, canvas, (x, y, side))
        if rng.random() < 0.5:
            half = side * 0.4
            ImageDraw.Draw(canvas).ellipse(
                (x - half, y - half, x + half, y + half * rng.uniform(0.8, 1.4)), fill=_ink(rng)
            )
        return
    patch = background(rng, photographs)
    mask = Image.new("L", canvas.size, 0)
    draw = ImageDraw.Draw(mask)
    frame = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    (draw.ellipse if rng.random() < 0.5 else draw.rectangle)(frame, fill=255)
    canvas.paste(patch, (0, 0), mask.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 3))))


def _degrade(rng: np.random.Generator, canvas: Image.Image) -> Image.Image:
    """Degrade the image: upscaling, blur, sharpening, JPEG."""
    if rng.random() < 0.2:
        small = int(INPUT_SIZE / rng.uniform(1.2, 3.5))
        canvas = canvas.resize((small, small), Image.Resampling.BILINEAR).resize(canvas.size, Image.Resampling.BICUBIC)
    if rng.random() < 0.1:
        canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.5)))
    if rng.random() < 0.15:
        canvas = Image.blend(canvas, canvas.filter(ImageFilter.UnsharpMask(1.5, 200)), rng.uniform(0.3, 1.0))
    if rng.random() < 0.25:
        packed = io.BytesIO()
        canvas.save(packed, "JPEG", quality=int(rng.integers(15, 80)))
        canvas = Image.open(packed)
        canvas.load()
    return canvas


def _pad_edges(rng: np.random.Generator, canvas: Image.Image) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """Sometimes pad by repeating edge pixels, as ``crop_face`` does; and the frame of real pixels."""
    before, after = rng.integers(0, INPUT_SIZE // 4, 2).tolist() if rng.random() < 0.25 else (0, 0)
    if rng.random() < 0.5:
        frame = (before, 0, INPUT_SIZE - after, INPUT_SIZE)
        margins = ((0, 0), (before, after), (0, 0))
    else:
        frame = (0, before, INPUT_SIZE, INPUT_SIZE - after)
        margins = ((before, after), (0, 0), (0, 0))
    return Image.fromarray(np.pad(np.asarray(canvas.crop(frame)), margins, mode="edge")), frame
