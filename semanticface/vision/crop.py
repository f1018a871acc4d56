"""Face boxes and the square crops that models see.

Coordinates are continuous pixels: x to the right, y down, (0, 0) the outer corner of the top-left pixel, so that
pixel's centre is (0.5, 0.5) and the whole picture is the box (0, 0, width, height).

The project's definition of a face box: the axis-aligned bounds of the face with a neutral expression, from brow tops to
chin and from cheek to cheek, expanded to a square about its centre, then enlarged by 1.25. It follows the head, not the
expression: an open jaw does not move it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from semanticface.errors import PictureError

# Windows this much larger than the picture contain almost only repeated border pixels.
_MAX_WINDOW = 8.0


@dataclass(frozen=True)
class Box:
    """A rectangle in a picture's continuous pixel coordinates; it may reach beyond the picture.

    Attributes:
        x0, y0, x1, y1: left, top, right and bottom.
        score: detection confidence in [0, 1]; None for boxes not from a detector. Ignored in comparisons.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    score: float | None = field(default=None, compare=False)

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def centre(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def square(self, scale: float = 1.0) -> Box:
        """Return the square with the same centre and ``scale`` times the longer side."""
        (x, y), half = self.centre, max(self.width, self.height) * scale / 2
        return replace(self, x0=x - half, y0=y - half, x1=x + half, y1=y + half)

    def overlap(self, other: Box) -> float:
        """Return the intersection over union with another box, in [0, 1]."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        if width <= 0 or height <= 0:
            return 0.0
        intersection = width * height
        return intersection / (self.width * self.height + other.width * other.height - intersection)


def crop_face(image: Image.Image, box: Box, size: int, *, oversampling: int = 4) -> Image.Image:
    """Crop the square window of a box and resample it to ``size`` x ``size`` pixels.

    The window is exact to fractions of a pixel and antialiased (bicubic, widened when shrinking); border pixels repeat
    outside the picture. A box that is not square is expanded to one.

    Args:
        image: an upright RGB picture.
        box: the window, in pixels of ``image``.
        size: output side in pixels.
        oversampling: when the picture shrinks a lot, input pixels the filter sees for each output pixel, along one side
            (means of blocks); fewer are faster and slightly less exact.

    Raises:
        PictureError: code ``bad_box`` if the box is empty, smaller than a pixel, outside the picture or absurdly large.
    """
    window = _check_box(image, box).square()
    # When shrinking a lot, average whole blocks first: equally sharp, and little memory.
    block = max(1, int(window.width / (oversampling * size)))
    # Reach of the filter beyond the window, in blocks: real pixels if there are any, else repeated ones.
    reach = math.ceil(2 * max(1.0, window.width / block / size)) + 1
    left = max(0, math.floor(window.x0) - reach * block)
    top = max(0, math.floor(window.y0) - reach * block)
    right = min(image.width, math.ceil(window.x1) + reach * block)
    bottom = min(image.height, math.ceil(window.y1) + reach * block)
    region = image.reduce(block, (left, top, right, bottom))
    x0, y0 = (window.x0 - left) / block, (window.y0 - top) / block
    side = window.width / block
    before_x, before_y = (max(0, reach - math.floor(start)) for start in (x0, y0))
    after_x = max(0, math.ceil(x0 + side) + reach - region.width)
    after_y = max(0, math.ceil(y0 + side) + reach - region.height)
    if before_x or before_y or after_x or after_y:
        margins = ((before_y, after_y), (before_x, after_x), (0, 0))
        region = Image.fromarray(np.pad(np.asarray(region), margins, mode="edge"))
    x0, y0 = x0 + before_x, y0 + before_y
    return region.resize((size, size), Image.Resampling.BICUBIC, box=(x0, y0, x0 + side, y0 + side))


def to_crop(points: np.ndarray, box: Box, size: int) -> np.ndarray:
    """Map picture coordinates [..., 2] to coordinates in ``crop_face(image, box, size)``."""
    window = box.square()
    return (np.asarray(points) - (window.x0, window.y0)) * (size / window.width)


def from_crop(points: np.ndarray, box: Box, size: int) -> np.ndarray:
    """Map coordinates [..., 2] in ``crop_face(image, box, size)`` to picture coordinates; inverse of ``to_crop``."""
    window = box.square()
    return np.asarray(points) * (window.width / size) + (window.x0, window.y0)


def _check_box(image: Image.Image, box: Box) -> Box:
    corners = (box.x0, box.y0, box.x1, box.y1)
    shown = ", ".join(f"{corner:g}" for corner in corners)
    if not all(map(math.isfinite, corners)) or box.width <= 0 or box.height <= 0:
        raise PictureError("bad_box", f"the box ({shown}) is empty: give left, top, right, bottom in pixels.")
    if max(box.width, box.height) < 1:
        raise PictureError(
            "bad_box", f"the box ({shown}) is smaller than a pixel: give it in pixels, not in fractions."
        )
    if box.x1 <= 0 or box.y1 <= 0 or box.x0 >= image.width or box.y0 >= image.height:
        raise PictureError(
            "bad_box",
            f"the box ({shown}) lies outside the picture of {image.width} x {image.height} pixels: "
            "give left, top, right, bottom in pixels of the upright picture.",
        )
    if max(box.width, box.height) > _MAX_WINDOW * max(image.size):
        raise PictureError(
            "bad_box",
            f"the box ({shown}) is more than {_MAX_WINDOW:g} times as large as the picture of "
            f"{image.width} x {image.height} pixels: give a box around the face.",
        )
    return box
