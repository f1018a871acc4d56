"""Face tracking: tight, smooth, the same face, and resumable."""

import json
from functools import lru_cache

import numpy as np
import pytest
from PIL import Image

from semanticface.rendering import render
from semanticface.vision.crop import Box
from semanticface.vision.face_tracker import DETECT_EVERY, MAX_LAG, FaceTracker


@lru_cache(maxsize=4)
def head(subject=11, side=160):
    """Return a rendered head and the true box of its face."""
    drawn = render(np.zeros(52, np.float32), style="photo", subject=subject, size=side)
    return drawn.image, Box(*drawn.box)


def scene(*places, width=420, height=200):
    """Return a picture with heads at (x, y, subject), and their true boxes."""
    canvas = np.full((height, width, 3), 90, np.uint8)
    boxes = []
    for x, y, subject in places:
        pixels, box = head(subject)
        canvas[y : y + len(pixels), x : x + len(pixels)] = pixels
        boxes.append(Box(box.x0 + x, box.y0 + y, box.x1 + x, box.y1 + y))
    return Image.fromarray(canvas), boxes


def offset(found, true):
    """Return the offset of the centres in sides of the face."""
    return np.subtract(found.centre, true.centre) / true.width


class FakeDetector:
    """A fake detector with given faces per frame that counts calls; frames are their numbers."""

    def __init__(self, seen):
        self.seen = seen
        self.searched = self.followed = 0

    def detect(self, number):
        self.searched += 1
        return self.seen[number]

    def redetect(self, number, box):
        self.followed += 1
        return next((face for face in self.seen[number] if face.overlap(box) > 0), None)


def see(seen, rate=30):
    detector = FakeDetector(seen)
    tracker = FaceTracker(detector)
    return detector, [tracker.update(n, n / rate) for n in range(len(seen))]


def test_a_moving_face_stays_in_its_crop():
    tracker = FaceTracker()
    offsets, sizes = [], []
    for number in range(24):
        picture, (true,) = scene((10 + number * 8, 15 + number, 11))
        seen = tracker.update(picture, number / 30)
        offsets.append(offset(seen.box, true))
        sizes.append(seen.box.width / true.width)
        assert seen.note == ""
    assert np.abs(offsets).max() < 0.1
    assert min(sizes) > 0.85 and max(sizes) < 1.15 and np.std(sizes) < 0.02


def test_resuming_from_state_is_exact():
    pictures = [scene((10 + number * 6, 20, 11))[0] for number in range(12)]
    whole = FaceTracker()
    expected = [whole.update(picture, n / 30) for n, picture in enumerate(pictures)]
    for stop in (0, 1, 7):
        first = FaceTracker()
        for n in range(stop):
            first.update(pictures[n], n / 30)
        second = FaceTracker(state=json.loads(json.dumps(first.state)))
        found = [second.update(pictures[n], n / 30) for n in range(stop, len(pictures))]
        assert found == expected[stop:]
    assert second.state == whole.state


def test_jittering_boxes_are_smoothed():
    rng = np.random.default_rng(0)
    shaken = [[Box(*(np.array([100, 100, 200, 200]) + rng.normal(0, 1, 4)))] for _ in range(60)]
    shaken = [[faces[0].square()] for faces in shaken]
    _, seen = see(shaken)
    moves = [
        np.abs(np.diff([box.width for box in boxes])).mean()
        for boxes in ([f[0] for f in shaken], [s.box for s in seen])
    ]
    assert moves[1] < 0.4 * moves[0]


def test_the_lag_is_bounded():
    boxes = [[Box(10 * n, 0, 10 * n + 100, 100)] for n in range(20)]  # three sides a second, at once
    _, seen = see(boxes)
    for (true,), found in zip(boxes, seen, strict=True):
        assert np.abs(offset(found.box, true)).max() <= MAX_LAG + 1e-9


def test_full_frame_detection_is_rare():
    here = [Box(0, 0, 100, 100)]
    detector, seen = see([here] * (DETECT_EVERY - 1))
    assert (detector.searched, detector.followed) == (1, DETECT_EVERY - 2)
    assert {s.box for s in seen} == {here[0]}


def test_the_same_face_is_followed():
    left, right = Box(0, 0, 100, 100), Box(300, 0, 400, 100)
    # When the whole frame is searched again, the other face is the more prominent one.
    detector, seen = see([[left, right], *[[right, left]] * (DETECT_EVERY + 3)])
    assert detector.searched == 2
    assert seen[0].note == "2 faces found; following the largest one"
    assert {s.box for s in seen} == {left} and not any(s.note for s in seen[1:])


def test_two_rendered_faces():
    tracker = FaceTracker()
    picture, boxes = scene((20, 20, 11), (230, 20, 5))
    first = tracker.update(picture, 0.0)
    chosen = max(boxes, key=first.box.overlap)
    assert "2 faces found" in first.note
    for number in range(1, 4):
        assert max(boxes, key=tracker.update(picture, number / 30).box.overlap) == chosen


def test_a_lost_face_is_none_until_redetected():
    here, there = [Box(0, 0, 100, 100)], [Box(500, 300, 600, 400)]
    _, seen = see([here, here, [], [], there, there])
    assert [s.box for s in seen] == [here[0], here[0], None, None, there[0], there[0]]
    assert [bool(s.note) for s in seen] == [False, False, False, False, True, False] and "lost" in seen[4].note


def test_no_face():
    picture = Image.fromarray(np.full((120, 160, 3), 128, np.uint8))
    assert FaceTracker().update(picture, 0.0).box is None


@pytest.mark.parametrize("time", [0.0, -1.0])
def test_time_that_does_not_advance_is_harmless(time):
    tracker = FaceTracker(FakeDetector([[Box(0, 0, 100, 100)]]))
    tracker.update(0, 0.0)
    assert tracker.update(0, time).box == Box(0, 0, 100, 100)
