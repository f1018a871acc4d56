"""Crops are exact to fractions of a pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from semanticface.errors import PictureError
from semanticface.vision.crop import Box, crop_face, from_crop, to_crop


def ramp(width: int, height: int) -> Image.Image:
    """Return a picture with red = 2 x and green = 2 y at pixel centres, which encodes positions."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return Image.fromarray(np.stack([2 * x, 2 * y, np.full_like(x, 40)], axis=-1).astype(np.uint8))


def places(crop: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the x and y of ``ramp`` at each pixel of a crop."""
    values = np.asarray(crop).astype(float)
    return values[..., 0] / 2, values[..., 1] / 2


@pytest.mark.parametrize(
    ("box", "size"),
    [
        (Box(20, 30, 52, 62), 32),  # pixel for pixel
        (Box(20.25, 30.5, 52.25, 62.5), 32),  # a fraction of a pixel aside
        (Box(20.3, 30.6, 84.7, 95.0), 16),  # shrunk
        (Box(40.4, 40.8, 50.1, 50.5), 64),  # enlarged
        (Box(14.7, 13.1, 107.9, 106.3), 11),  # shrunk by more than a block
    ],
)
def test_every_pixel_is_sampled_at_its_position(box, size):
    x, y = places(crop_face(ramp(122, 120), box, size))
    steps = (np.arange(size) + 0.5) / size
    assert np.abs(x - (box.x0 + box.width * steps)[None, :]).max() <= 0.3
    assert np.abs(y - (box.y0 + box.height * steps)[:, None]).max() <= 0.3


def test_lower_oversampling_keeps_positions():
    box, size = Box(14.7, 13.1, 97.9, 96.3), 11
    x, y = places(crop_face(ramp(122, 120), box, size, oversampling=2))
    steps = (np.arange(size) + 0.5) / size
    assert np.abs(x - (box.x0 + box.width * steps)[None, :]).max() <= 0.3
    assert np.abs(y - (box.y0 + box.height * steps)[:, None]).max() <= 0.3


def test_a_box_on_whole_pixels_copies_them():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    crop = crop_face(Image.fromarray(pixels), Box(7, 5, 31, 29), 24)
    assert np.array_equal(np.asarray(crop), pixels[5:29, 7:31])


def test_border_pixels_repeat_outside():
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    crop = np.asarray(crop_face(Image.fromarray(pixels), Box(-8, -3, 32, 37), 40))
    assert np.array_equal(crop, np.pad(pixels, ((3, 17), (8, 2), (0, 0)), mode="edge"))


def test_shrinking_is_antialiased():
    """Stripes finer than the crop's pixels become their mean grey, at every factor, and no moire."""
    stripes = np.zeros((600, 600, 3), np.uint8)
    stripes[:, ::2] = 255
    for size in (20, 32, 57, 100):
        crop = np.asarray(crop_face(Image.fromarray(stripes), Box(50.3, 50.3, 550.3, 550.3), size)).astype(int)
        assert np.abs(crop - 127).max() <= 3


def test_a_box_that_is_not_square_is_expanded_about_its_centre():
    picture = ramp(100, 100)
    assert crop_face(picture, Box(40, 20, 60, 80), 30) == crop_face(picture, Box(20, 20, 80, 80), 30)
    assert Box(40, 20, 60, 80).square(1.25) == Box(12.5, 12.5, 87.5, 87.5)


def test_a_window_far_beyond_a_long_picture_is_cheap():
    crop = crop_face(Image.new("RGB", (20_000, 40), (10, 200, 30)), Box(-50_000, -60_000, 70_000, 60_000), 64)
    assert np.all(np.asarray(crop) == (10, 200, 30))


@given(
    st.floats(-50, 50), st.floats(-50, 50), st.floats(1, 200), st.floats(1, 200), st.integers(8, 512),
    st.lists(st.tuples(st.floats(-300, 300), st.floats(-300, 300)), min_size=1, max_size=5),
)  # fmt: skip
def test_points_round_trip_through_the_crop(x, y, width, height, size, points):
    box = Box(x, y, x + width, y + height)
    there = to_crop(np.array(points), box, size)
    assert np.allclose(from_crop(there, box, size), points, atol=1e-6)
    window = box.square()
    assert np.allclose(to_crop(np.array([[window.x0, window.y0], [window.x1, window.y1]]), box, size),
                       [[0, 0], [size, size]], atol=1e-6)  # fmt: skip


def test_points_match_pixels():
    """A white dot lands where ``to_crop`` says."""
    pixels = np.zeros((200, 200, 3), np.uint8)
    pixels[120:124, 80:84] = 255
    box = Box(31.4, 52.8, 161.4, 182.8)
    crop = np.asarray(crop_face(Image.fromarray(pixels), box, 64)).astype(float)[..., 0]
    y, x = np.mgrid[:64, :64] + 0.5
    seen = np.array([(crop * x).sum(), (crop * y).sum()]) / crop.sum()
    assert np.abs(seen - to_crop(np.array([82.0, 122.0]), box, 64)).max() < 0.05


@pytest.mark.parametrize(
    "box",
    [
        Box(5, 5, 5, 9), Box(9, 5, 5, 9), Box(float("nan"), 0, 5, 5), Box(0, 0, float("inf"), 5),
        Box(0.1, 0.1, 0.9, 0.9), Box(60, 0, 90, 30), Box(-30, 0, 0, 30), Box(-1e6, -1e6, 1e6, 1e6),
    ],
)  # fmt: skip
def test_invalid_boxes_are_rejected(box):
    with pytest.raises(PictureError, match="the box") as caught:
        crop_face(Image.new("RGB", (60, 40)), box, 32)
    assert caught.value.code == "bad_box"


def test_overlap():
    assert Box(0, 0, 10, 10).overlap(Box(5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert Box(0, 0, 10, 10).overlap(Box(10, 0, 20, 10)) == 0
    assert Box(0, 0, 10, 10, score=0.5) == Box(0, 0, 10, 10)
