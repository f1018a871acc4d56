"""The packaged detector finds faces of every style, and its maps are decoded exactly."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from semanticface import assets
from semanticface.errors import ModelError
from semanticface.rendering import HELD_OUT_STYLE, STYLES, render
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.vision import centerface, face_detector
from semanticface.vision.crop import Box
from semanticface.vision.face_detector import (
    STRIDE,
    UNIT,
    decode_boxes,
    default_face_detector,
    detect_faces,
    load_face_detector,
    non_max_suppression,
)

WEIGHTS = assets.path("finder.safetensors")

ASTRONAUT = Path(__file__).resolve().parents[2] / "examples" / "astronaut.jpg"


def face(style: str, seed: int, size: int = 192) -> tuple[Image.Image, Box]:
    """Return a rendered portrait of a subject outside all training sets, and the true box."""
    drawn = render(sample_coefficients(np.random.default_rng(seed)), style=style, subject=9_000_000 + seed, shot=None,
                   size=size)  # fmt: skip
    return Image.fromarray(drawn.image), Box(*drawn.box.tolist())


@pytest.mark.parametrize("style", [*STYLES, HELD_OUT_STYLE])
def test_detects_rendered_faces_of_each_style(style):
    """The detector was trained before there were anime faces, and misses one in a dozen."""
    missed = 0
    for seed in range(3, 13):
        picture, box = face(style, seed)
        found = detect_faces(picture)
        missed += not found
        for each in found:
            assert each.overlap(box) > 0.7
            assert 0 < each.score <= 1
            assert each.width == pytest.approx(each.height)
        assert len(found) <= 1
    assert missed <= (2 if style == "drawn" else 0)


def test_detects_a_photographed_face():
    picture = Image.open(ASTRONAUT).convert("RGB")
    found = detect_faces(picture)
    # Measured by hand in the picture of 512 x 512 pixels: brow tops at 90, chin at 175, cheeks at 183 and 271.
    measured = np.array([172.0, 77.0, 282.0, 187.0]) * picture.width / 512
    assert len(found) == 1
    assert found[0].overlap(Box(*measured)) > 0.65


def room_with_two() -> tuple[Image.Image, list[Box]]:
    room = Image.new("RGB", (500, 300), (90, 110, 130))
    boxes = []
    for style, seed, side, place in (("photo", 1, 180, (20, 60)), ("drawn", 2, 150, (300, 90))):
        picture, box = face(style, seed, side)
        room.paste(picture, place)
        boxes.append(Box(box.x0 + place[0], box.y0 + place[1], box.x1 + place[0], box.y1 + place[1]))
    return room, boxes


def test_detects_two_faces():
    room, boxes = room_with_two()
    found = detect_faces(room)
    assert len(found) == 2
    assert all(max(box.overlap(other) for other in found) > 0.6 for box in boxes)
    assert found[0].score >= found[1].score


def test_skipped_candidates_could_not_reach_the_threshold():
    """A threshold of 0 mirrors every candidate; detections above the real threshold are the same."""
    own = default_face_detector()
    astronaut = Image.open(ASTRONAUT).convert("RGB")
    room, _ = room_with_two()
    room.paste(astronaut.rotate(180).resize((120, 120)), (190, 0))
    for picture, faces in ((astronaut, 1), (room, 2)):
        every, some = own.detect(picture, 0.0), own.detect(picture)
        assert len(every) > len(some) == faces
        for box, same in zip([box for box in every if box.score >= own.threshold], some, strict=True):
            assert box.overlap(same) > 0.98
            assert box.score == pytest.approx(same.score, abs=0.02)


@pytest.mark.parametrize("fast", [False, True])
def test_faces_are_the_same_in_either_precision(monkeypatch, fast):
    monkeypatch.setattr(face_detector, "has_bfloat16", lambda device: fast)
    loaded = load_face_detector(WEIGHTS)
    assert loaded.net.answer.weight.dtype == (torch.bfloat16 if fast else torch.float32)
    picture, box = face("toon", 4)
    for image, wanted in ((picture, [box]), room_with_two()):
        found = loaded.detect(image)
        assert len(found) == len(wanted)
        for box in wanted:
            assert max(box.overlap(other) for other in found) > 0.6


def test_pointwise_equals_convolution():
    torch.manual_seed(0)
    layer = centerface.Pointwise(5, 7)
    pixels = torch.randn(2, 5, 3, 4)
    plain = torch.nn.functional.conv2d(pixels, layer.weight, layer.bias)
    for stored in (pixels, pixels.contiguous(memory_format=torch.channels_last)):
        assert torch.allclose(layer(stored), plain, atol=1e-6)


def test_no_false_detections():
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    stripes = np.zeros((200, 200, 3), np.uint8)
    stripes[::8] = 200
    for picture in (np.full((100, 150, 3), 128, np.uint8), noise, stripes):
        assert detect_faces(Image.fromarray(picture)) == []


def test_a_tightly_cropped_face_is_detected():
    picture, box = face("photo", 5, 256)
    tight = picture.crop(tuple(round(edge) for edge in (box.x0, box.y0, box.x1, box.y1)))
    assert len(detect_faces(tight)) == 1


def test_maps_are_decoded_as_defined():
    maps = torch.zeros(1, 4, 6, 8)
    maps[0, :, 2, 5] = torch.tensor([0.0, 0.25, -0.5, np.log(2.0)])
    score, x, y, side = decode_boxes(maps)[0, :, 2, 5].tolist()
    assert (score, side) == (0.5, pytest.approx(2 * UNIT))
    assert (x, y) == (pytest.approx(5.5 * STRIDE + 0.25 * side), pytest.approx(2.5 * STRIDE - 0.5 * side))

    maps = torch.zeros(1, 5, 6, 8)
    maps[0, :, 2, 5] = torch.tensor([0.0, np.log(10.0), np.log(8.0), 0.25, -0.25])
    score, x, y, width, height = centerface.decode_boxes(maps)[0, :, 2, 5].tolist()
    assert (score, x, y) == (0.5, pytest.approx(4 * 5.25), pytest.approx(4 * 2.75))
    assert (width, height) == (pytest.approx(32), pytest.approx(40))


def test_non_max_suppression_keeps_the_better_box():
    boxes = [Box(0, 0, 10, 10, 0.5), Box(1, 1, 11, 11, 0.9), Box(30, 0, 40, 10, 0.7)]
    assert [box.score for box in non_max_suppression(boxes)] == [0.9, 0.7]


def test_the_recipe_is_stored_with_the_weights():
    detector = default_face_detector()
    assert detector.recipe["kind"] == "finder"
    assert 0 < detector.threshold < 1


@pytest.mark.parametrize("content", [None, b"", b"not weights"])
def test_invalid_files_are_rejected_by_name(tmp_path, content):
    path = tmp_path / "broken.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.safetensors"):
        load_face_detector(path)


def test_weights_of_another_network_are_rejected(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path, {"semanticface": "{}"})
    with pytest.raises(ModelError, match=r"other\.safetensors"):
        load_face_detector(path)
