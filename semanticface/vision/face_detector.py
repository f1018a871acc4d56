"""Face detector for every style: two heads on one backbone, one for photographs and one for all our styles.

The backbone and the first head are CenterFace's (``vision.centerface``), trained by its authors on photographs. The
second head is ours, trained on renders (``train/face_detector.py``): for each 8 x 8 cell it predicts whether it holds a
face's centre, the face's size and its offset from the cell, by the project's definition of a box.

The whole picture is processed at two scales, for large and for small faces; then each candidate is refined on a close
crop and its mirror image. Refinement determines the box and the score.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from semanticface import assets
from semanticface.errors import ModelError
from semanticface.utils.precision import has_bfloat16
from semanticface.vision import centerface
from semanticface.vision.centerface import FEATURES, CenterFaceNet, Pointwise
from semanticface.vision.crop import Box, crop_face, from_crop

INPUT_SIZE = 128
"""Training input size in pixels; also used for refinement, and together with its double for detection."""
STRIDE = 8
"""Side of a cell in pixels."""
CLOSE_UP = 2.0
"""Side of the refinement window, in sides of the face's box."""
UNIT = 32.0
"""Side in pixels of a box of predicted size 0 (sizes are natural logarithms)."""
METADATA_KEY = "semanticface"

_MIN_CANDIDATE_SCORE = 0.15  # minimum score to refine
_MAX_CANDIDATES = 32
_SAME_FACE = 0.4  # IoU above which two boxes are one face
_MIN_SIDE = 1 / 32  # of the picture's longer side: smaller boxes are mostly false
_NEARLY = 0.7  # of the highest score in a picture: less sure than this, a larger face is not preferred
_OURS_MIN_SCORE = 0.2  # from this score on our head's box is more accurate

# CenterFace's boxes to ours, in geometric means of their sides: the median over 400 renders in the style photo.
_DOWN, _LARGER = 0.142, 1.216


class FaceDetectorNet(nn.Module):
    """Our head, 0.3 M parameters, on features of CenterFace's backbone.

    Only the head is trained, so that the backbone keeps what it learned from photographs that we do not have.
    """

    def __init__(self, wide: int = 96, fine: int = 64) -> None:
        super().__init__()
        self.backbone = CenterFaceNet()
        quarter, eighth, sixteenth, thirtysecond = FEATURES
        self.context = nn.Sequential(Pointwise(thirtysecond, wide), _ResidualBlock(wide))
        self.middle = Pointwise(sixteenth, wide)
        self.after_middle = nn.Sequential(_ResidualBlock(wide), Pointwise(wide, fine))
        self.detail = Pointwise(eighth, fine)
        self.finest = nn.Conv2d(quarter, fine, 3, 2, 1)
        self.head = nn.Sequential(_ResidualBlock(fine), _ResidualBlock(fine))
        self.answer = Pointwise(fine, 4)
        # Faces are rare: start near their prior, or the first steps are wasted.
        self.answer.bias = nn.Parameter(torch.tensor([-4.0, 0.0, 0.0, 0.0]))

    def forward(self, pixels: Tensor) -> Tensor:
        """Map RGB pixels [B, 3, H, W] in 0..255, H and W multiples of 32, to float32 [B, 4, H/8, W/8].

        Channels: logit that a face's centre lies in the cell; the centre's offset from the cell's centre in x and y, in
        sides of the face; natural logarithm of the side over ``UNIT``.
        """
        return self.predict_maps(self.backbone.features(pixels))

    def predict_maps(self, features: list[Tensor]) -> Tensor:
        """Return the output of ``forward`` from the backbone's features."""
        finest, detail, middle, context = features
        values = self.middle(middle) + functional.interpolate(self.context(context), scale_factor=2.0)
        values = functional.interpolate(self.after_middle(values.relu_()), scale_factor=2.0)
        values = values + self.detail(detail) + self.finest(finest)
        maps: Tensor = self.answer(self.head(values.relu_())).float()
        return maps


class _ResidualBlock(nn.Sequential):
    def __init__(self, width: int) -> None:
        convolution = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))

    def forward(self, pixels: Tensor) -> Tensor:
        changed: Tensor = super().forward(pixels)
        return pixels + changed


def to_batch(images: list[Image.Image]) -> Tensor:
    """Return RGB pictures of one size as network input, float32 [B, 3, H, W] in 0..255, channels last in memory."""
    stacked = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float()


def decode_boxes(maps: Tensor) -> Tensor:
    """Decode maps [B, 4, h, w] to each cell's (score, centre x, centre y, side) [B, 4, h, w], in pixels."""
    height, width = maps.shape[-2:]
    side = UNIT * maps[:, 3].clamp(-4.0, 4.0).exp()
    x = (torch.arange(width, device=maps.device) + 0.5) * STRIDE + maps[:, 1] * side
    y = (torch.arange(height, device=maps.device)[:, None] + 0.5) * STRIDE + maps[:, 2] * side
    return torch.stack([maps[:, 0].sigmoid(), x, y, side], dim=1)


@dataclass(frozen=True)
class FaceDetector:
    """A trained face detector.

    Attributes:
        net: in evaluation mode, on the CPU: a picture takes a few hundredths of a second.
        recipe: settings, versions and metrics of its training, and ``threshold``, the minimum score of a face.
    """

    net: FaceDetectorNet
    recipe: dict[str, object]

    @property
    def threshold(self) -> float:
        return float(str(self.recipe["threshold"]))

    def detect(self, image: Image.Image, threshold: float | None = None) -> list[Box]:
        """Return every face of an upright RGB picture as square boxes with scores, best first.

        ``threshold`` is the minimum score, by default the one from training.
        """
        threshold = self.threshold if threshold is None else threshold
        whole = Box(0.0, 0.0, image.width, image.height).square()
        large = crop_face(image, whole, 2 * INPUT_SIZE, oversampling=2)
        candidates = []
        for view in (large.resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BICUBIC), large):
            for cells in self._predict([view]):
                candidates += [_to_picture(box, whole, view.width) for box in _peaks(cells[0])]
        refined = self._refine(image, non_max_suppression(candidates)[:_MAX_CANDIDATES], threshold)
        min_side = _MIN_SIDE * max(image.size)
        return [box for box in non_max_suppression(refined) if box.width >= min_side]

    def redetect(self, image: Image.Image, box: Box) -> Box | None:
        """Return the face near a previous box, or None; a tenth of the cost of ``detect``."""
        refined = self._refine(image, [box], self.threshold)
        return refined[0] if refined else None

    def _refine(self, image: Image.Image, candidates: list[Box], threshold: float) -> list[Box]:
        """Return the candidates of at least this score, refined on a close crop and its mirror image."""
        windows = [box.square(CLOSE_UP) for box in candidates if _touches(box, image)]
        if not windows:
            return []
        crops = [crop_face(image, window, INPUT_SIZE) for window in windows]
        # Usually only the best candidate is a face: mirror the others only if they can still reach the threshold.
        heads = self._predict([*crops, _mirrored(crops[0])])
        straight = [[_centre_face(cells[number]) for cells in heads] for number in range(len(crops))]
        mirrored = {0: [_centre_face(cells[-1]) for cells in heads]}
        unsure = [n for n in range(1, len(crops)) if max(cells[0] for cells in straight[n]) + 1 >= 2 * threshold]
        if unsure:
            heads = self._predict([_mirrored(crops[number]) for number in unsure])
            mirrored |= {n: [_centre_face(cells[i]) for cells in heads] for i, n in enumerate(unsure)}
        found = []
        for number, other in mirrored.items():
            ours, photographed = (_merge_mirrored(*both) for both in zip(straight[number], other, strict=True))
            score, (_, x, y, side) = max(ours[0], photographed[0]), ours if ours[0] >= _OURS_MIN_SCORE else photographed
            if score >= threshold:
                found.append(_to_picture(_box(score, x, y, side), windows[number], INPUT_SIZE))
        return found

    def _predict(self, images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        """Return each cell's (score, centre x, centre y, side), [B, 4, h, w], from our head and from CenterFace's."""
        with torch.inference_mode():
            features = self.net.backbone.features(to_batch(images))
            ours = decode_boxes(self.net.predict_maps(features)).numpy()
            score, x, y, width, height = centerface.decode_boxes(self.net.backbone.predict_maps(features)).unbind(1)
            side = (width * height).sqrt()
            return ours, torch.stack([score, x, y + _DOWN * side, _LARGER * side], dim=1).numpy()


def _mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _merge_mirrored(straight: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """Return the mean (score, x, y, side) of a crop and of its mirror image."""
    mean: np.ndarray = (straight + mirrored * (1, -1, 1, 1) + (0, INPUT_SIZE, 0, 0)) / 2
    return mean


def _box(score: float, x: float, y: float, side: float) -> Box:
    return Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2, float(score))


def _to_picture(box: Box, window: Box, size: int) -> Box:
    """Return the picture box of a box in a crop of ``window`` with ``size`` pixels."""
    (x0, y0), (x1, y1) = from_crop(np.array([[box.x0, box.y0], [box.x1, box.y1]]), window, size).tolist()
    return Box(x0, y0, x1, y1, box.score)


def _touches(box: Box, image: Image.Image) -> bool:
    return box.x1 > 0 and box.y1 > 0 and box.x0 < image.width and box.y0 < image.height and box.width >= 1


def _peaks(cells: np.ndarray) -> list[Box]:
    """Return boxes of the local maxima of cells [4, h, w]."""
    score = cells[0]
    best_near = functional.max_pool2d(torch.from_numpy(score)[None], 3, 1, 1)[0].numpy()
    rows, columns = np.nonzero((score >= best_near) & (score >= _MIN_CANDIDATE_SCORE))
    return [_box(*cells[:, row, column]) for row, column in zip(rows, columns, strict=True)]


def _centre_face(cells: np.ndarray) -> np.ndarray:
    """Return (score, x, y, side) of the face at the centre of a crop: the best cell, averaged with its neighbours."""
    score = cells[0]
    row, column = np.unravel_index(np.argmax(np.where(_near_centre(*score.shape), score, 0.0)), score.shape)
    near = cells[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].reshape(4, -1)
    weights = near[0] ** 2 + 1e-9
    return np.concatenate([[score[row, column]], (near[1:] * weights).sum(axis=1) / weights.sum()])


@functools.lru_cache(maxsize=4)
def _near_centre(height: int, width: int) -> np.ndarray:
    """Return where the refined face's centre may be, bool[h, w]: excludes neighbouring faces."""
    y, x = np.mgrid[:height, :width] + 0.5
    near: np.ndarray = np.hypot(x / width - 0.5, y / height - 0.5) * CLOSE_UP < 0.4
    return near


def non_max_suppression(boxes: list[Box]) -> list[Box]:
    """Return the boxes, best first, without those of an IoU of at least 0.4 with a better one."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: -(box.score or 0.0)):
        if all(box.overlap(other) < _SAME_FACE for other in kept):
            kept.append(box)
    return kept


def main_face(faces: list[Box]) -> Box:
    """Return whose face a picture shows: the largest of the faces that are nearly as sure as the surest.

    A face on a poster, or on a card in the hand, is often sharper and surer than the person's.
    """
    surest = max(face.score or 0.0 for face in faces)
    return max((face for face in faces if (face.score or 0.0) >= _NEARLY * surest), key=lambda face: face.width)


def load_face_detector(path: str | Path) -> FaceDetector:
    """Load a detector from a safetensors file, in bfloat16 if the processor supports it natively (1.5 times as fast).

    Raises:
        ModelError: the file is missing, not safetensors, or not a detector of this version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            recipe = json.loads(file.metadata()[METADATA_KEY])
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        net = FaceDetectorNet()
        net.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"cannot load the face detector {path}: {error}. Train one with train/face_detector.py."
        ) from error
    net = net.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    return FaceDetector(net.bfloat16() if has_bfloat16(torch.device("cpu")) else net, recipe)


@functools.lru_cache(maxsize=1)
def default_face_detector() -> FaceDetector:
    """Return the detector that ships with the package."""
    return load_face_detector(assets.path("finder.safetensors"))


def detect_faces(image: Image.Image) -> list[Box]:
    """Return every face in an upright RGB picture as square boxes with scores, best first.

    Detects photographed, drawn and modelled faces, from 3 % of the picture's longer side up to faces that fill it.
    ``eval/speed/crop.py`` measures it.
    """
    return default_face_detector().detect(image)
