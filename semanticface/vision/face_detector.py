"""Finds faces of every look: two heads on one backbone, one for photographs and one for all our looks.

The backbone and the first head are CenterFace's (``semanticface.vision.centerface``), trained by its authors on
photographs. The second head is ours, trained on renders (``train/face_detector.py``): it says for each 8 x 8 cell
whether the centre of a face lies there, and how large the face is and how far off its centre, by the project's
definition of a box.

A picture is looked at twice as a whole, small (large faces) and twice as large (small faces); then each face so found
is looked at once more, alone and close, in itself and in its mirror image. That second look places the box and decides.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from semanticface import assets
from semanticface.errors import ModelError
from semanticface.vision import centerface
from semanticface.vision.centerface import FEATURES, CenterFaceNet, Pointwise
from semanticface.vision.crop import Box, crop_face, from_crop

INPUT_SIZE = 128
"""Side of the network's training input in pixels; the second look uses it, the first look also its double."""
STRIDE = 8
"""Pixels along one side of a cell."""
CLOSE_UP = 2.0
"""Side of the second look's window in sides of the face's box."""
UNIT = 32.0
"""The side, in pixels, of a box whose size the network writes as 0 (it writes natural logarithms)."""
METADATA_KEY = "semanticface"

_CANDIDATE = 0.15  # first look: more than this is worth a second one
_MOST_CANDIDATES = 32
_SAME_FACE = 0.4  # overlap above which two boxes are one face
_SMALLEST = 1 / 32  # of the picture's longer side: less is a stain more often than a face
_OURS_PLACES = 0.2  # with at least this score our head's box is the better one

# From CenterFace's boxes to ours, in geometric means of their sides: the median over 400 renders of the look photo.
_DOWN, _LARGER = 0.142, 1.216


class FaceDetectorNet(nn.Module):
    """Our own head, 0.3 M parameters, on the features of CenterFace's backbone.

    Only the head is trained: the backbone saw a great many photographs, which we do not have, and must not forget them.
    """

    def __init__(self, wide: int = 96, fine: int = 64) -> None:
        super().__init__()
        self.backbone = CenterFaceNet()
        quarter, eighth, sixteenth, thirtysecond = FEATURES
        self.context = nn.Sequential(Pointwise(thirtysecond, wide), _Step(wide))
        self.middle = Pointwise(sixteenth, wide)
        self.after_middle = nn.Sequential(_Step(wide), Pointwise(wide, fine))
        self.detail = Pointwise(eighth, fine)
        self.finest = nn.Conv2d(quarter, fine, 3, 2, 1)
        self.head = nn.Sequential(_Step(fine), _Step(fine))
        self.answer = Pointwise(fine, 4)
        # Faces are rare: start near their share of the cells, or the first steps only unlearn.
        self.answer.bias = nn.Parameter(torch.tensor([-4.0, 0.0, 0.0, 0.0]))

    def forward(self, pixels: Tensor) -> Tensor:
        """RGB pixels [B, 3, H, W] in 0..255, H and W multiples of 32, to float32 maps [B, 4, H/8, W/8].

        The channels: logit that a face's centre lies in the cell; the centre's offset from the middle of the cell in
        x and y, in sides of the face; natural logarithm of the side over ``UNIT``.
        """
        return self.predict_maps(self.backbone.features(pixels))

    def predict_maps(self, features: list[Tensor]) -> Tensor:
        """What ``forward`` returns, from the backbone's features."""
        finest, detail, middle, context = features
        values = self.middle(middle) + functional.interpolate(self.context(context), scale_factor=2.0)
        values = functional.interpolate(self.after_middle(values.relu_()), scale_factor=2.0)
        values = values + self.detail(detail) + self.finest(finest)
        maps: Tensor = self.answer(self.head(values.relu_())).float()
        return maps


class _Step(nn.Sequential):
    def __init__(self, width: int) -> None:
        convolution = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))

    def forward(self, pixels: Tensor) -> Tensor:
        changed: Tensor = super().forward(pixels)
        return pixels + changed


def to_batch(images: list[Image.Image]) -> Tensor:
    """RGB pictures of one size as the network's input, float32 [B, 3, H, W] in 0..255, stored channels last."""
    stacked = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float()


def decode_boxes(maps: Tensor) -> Tensor:
    """The face each cell speaks of: maps [B, 4, h, w] to (score, centre x, centre y, side) [B, 4, h, w], in pixels."""
    height, width = maps.shape[-2:]
    side = UNIT * maps[:, 3].clamp(-4.0, 4.0).exp()
    x = (torch.arange(width, device=maps.device) + 0.5) * STRIDE + maps[:, 1] * side
    y = (torch.arange(height, device=maps.device)[:, None] + 0.5) * STRIDE + maps[:, 2] * side
    return torch.stack([maps[:, 0].sigmoid(), x, y, side], dim=1)


@dataclass(frozen=True)
class FaceDetector:
    """A trained network and how it was made.

    Attributes:
        net: in evaluation mode, on the CPU: a picture takes a few hundredths of a second.
        recipe: settings, versions and figures of its training, and ``threshold``, the score a face must reach.
    """

    net: FaceDetectorNet
    recipe: dict[str, object]

    @property
    def threshold(self) -> float:
        return float(str(self.recipe["threshold"]))

    def detect(self, image: Image.Image, threshold: float | None = None) -> list[Box]:
        """Every face of an upright RGB picture, best first, as square boxes with scores.

        Args:
            image: an upright RGB picture.
            threshold: the least score; by default the one set when the finder was trained.
        """
        threshold = self.threshold if threshold is None else threshold
        whole = Box(0.0, 0.0, image.width, image.height).square()
        large = crop_face(image, whole, 2 * INPUT_SIZE, oversampling=2)
        candidates = []
        for view in (large.resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BICUBIC), large):
            for cells in self._look([view]):
                candidates += [_moved(box, whole, view.width) for box in _peaks(cells[0])]
        seen = self._second_look(image, non_max_suppression(candidates)[:_MOST_CANDIDATES], threshold)
        smallest = _SMALLEST * max(image.size)
        return [box for box in non_max_suppression(seen) if box.width >= smallest]

    def redetect(self, image: Image.Image, box: Box) -> Box | None:
        """The face near a box where one was a moment ago, None where there is none; a tenth of the work of ``find``."""
        seen = self._second_look(image, [box], self.threshold)
        return seen[0] if seen else None

    def _second_look(self, image: Image.Image, candidates: list[Box], threshold: float) -> list[Box]:
        """The faces of at least this score, each seen close up in itself and in its mirror image."""
        windows = [box.square(CLOSE_UP) for box in candidates if _touches(box, image)]
        if not windows:
            return []
        crops = [crop_face(image, window, INPUT_SIZE) for window in windows]
        # The best candidate mostly is a face, the others mostly are not: those are mirrored only if that could help.
        heads = self._look([*crops, _mirrored(crops[0])])
        straight = [[_middle(cells[number]) for cells in heads] for number in range(len(crops))]
        mirrored = {0: [_middle(cells[-1]) for cells in heads]}
        needed = [n for n in range(1, len(crops)) if max(cells[0] for cells in straight[n]) + 1 >= 2 * threshold]
        if needed:
            heads = self._look([_mirrored(crops[number]) for number in needed])
            mirrored |= {n: [_middle(cells[place]) for cells in heads] for place, n in enumerate(needed)}
        found = []
        for number, other in mirrored.items():
            ours, photographed = (_both(*both) for both in zip(straight[number], other, strict=True))
            score, (_, x, y, side) = max(ours[0], photographed[0]), ours if ours[0] >= _OURS_PLACES else photographed
            if score >= threshold:
                found.append(_moved(_box(score, x, y, side), windows[number], INPUT_SIZE))
        return found

    def _look(self, images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        """(score, centre x, centre y, side) of each cell's face, [B, 4, h, w]: by our head, and by CenterFace's."""
        with torch.inference_mode():
            features = self.net.backbone.features(to_batch(images))
            ours = decode_boxes(self.net.predict_maps(features)).numpy()
            score, x, y, width, height = centerface.decode_boxes(self.net.backbone.predict_maps(features)).unbind(1)
            side = (width * height).sqrt()
            return ours, torch.stack([score, x, y + _DOWN * side, _LARGER * side], dim=1).numpy()


def _mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _both(straight: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """The mean of what is said of a close-up and of its mirror image: (score, x, y, side)."""
    mean: np.ndarray = (straight + mirrored * (1, -1, 1, 1) + (0, INPUT_SIZE, 0, 0)) / 2
    return mean


def _box(score: float, x: float, y: float, side: float) -> Box:
    return Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2, float(score))


def _moved(box: Box, window: Box, size: int) -> Box:
    """A box in a crop of ``size`` pixels of a window, as a box in the picture."""
    (x0, y0), (x1, y1) = from_crop(np.array([[box.x0, box.y0], [box.x1, box.y1]]), window, size).tolist()
    return Box(x0, y0, x1, y1, box.score)


def _touches(box: Box, image: Image.Image) -> bool:
    return box.x1 > 0 and box.y1 > 0 and box.x0 < image.width and box.y0 < image.height and box.width >= 1


def _peaks(cells: np.ndarray) -> list[Box]:
    """The cells [4, h, w] that no neighbour beats."""
    score = cells[0]
    best_near = functional.max_pool2d(torch.from_numpy(score)[None], 3, 1, 1)[0].numpy()
    rows, columns = np.nonzero((score >= best_near) & (score >= _CANDIDATE))
    return [_box(*cells[:, row, column]) for row, column in zip(rows, columns, strict=True)]


def _middle(cells: np.ndarray) -> np.ndarray:
    """(score, x, y, side) of the face at the middle of a close-up: the best cell near it, with its neighbours' help."""
    score = cells[0]
    row, column = np.unravel_index(np.argmax(np.where(_near_middle(*score.shape), score, 0.0)), score.shape)
    near = cells[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].reshape(4, -1)
    weights = near[0] ** 2 + 1e-9
    return np.concatenate([[score[row, column]], (near[1:] * weights).sum(axis=1) / weights.sum()])


@functools.lru_cache(maxsize=4)
def _near_middle(height: int, width: int) -> np.ndarray:
    """Where the face that is looked at may be, bool[h, w]: one beside it must not take its place."""
    y, x = np.mgrid[:height, :width] + 0.5
    near: np.ndarray = np.hypot(x / width - 0.5, y / height - 0.5) * CLOSE_UP < 0.4
    return near


def non_max_suppression(boxes: list[Box]) -> list[Box]:
    """The boxes, best first, without those that overlap a better one by more than 0.4."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: -(box.score or 0.0)):
        if all(box.overlap(other) < _SAME_FACE for other in kept):
            kept.append(box)
    return kept


def _cpu_multiplies_bfloat16() -> bool:
    # A processor that has to imitate bfloat16 is slower with it; torch before 2.13 does not say.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def load_face_detector(path: str | Path) -> FaceDetector:
    """Load a finder from a safetensors file; in bfloat16 where the processor multiplies that, half as slow again.

    Raises:
        ModelError: the file is missing, no safetensors, or not a finder of this version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            recipe = json.loads(file.metadata()[METADATA_KEY])
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        net = FaceDetectorNet()
        net.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"cannot load the face finder {path}: {error}. Make one with train/face_detector.py."
        ) from error
    net = net.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    return FaceDetector(net.bfloat16() if _cpu_multiplies_bfloat16() else net, recipe)


@functools.lru_cache(maxsize=1)
def default_face_detector() -> FaceDetector:
    """The finder that ships with the package."""
    return load_face_detector(assets.path("finder.safetensors"))


def detect_faces(image: Image.Image) -> list[Box]:
    """Every face in an upright RGB picture as square boxes with scores, best first; empty when there is none.

    Finds photographs and drawn or modelled faces alike, from 3 % of the picture's longer side up to faces that fill
    it. See ``semanticface.vision.face_detector`` for how, and ``eval/speed/crop.py`` for how well.
    """
    return default_face_detector().detect(image)
