"""Helpers: Live Link Face takes like those of the app, generated in code."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from semanticface import arkit
from semanticface.formats import live_link
from semanticface.formats.live_link import LiveLinkRow
from semanticface.vision.crop import Box
from semanticface.vision.face_tracker import TrackedFace
from tests.helpers.clips import bars, number_of, write_clip

CLOCK = ((13 * 60 + 13) * 60 + 4) * 1000
"""Default start of takes, milliseconds since midnight."""


def timecode(tick: int, base: int) -> str:
    """Format thousandths of a frame since midnight like the app."""
    seconds, tick = divmod(tick, base * 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{tick // 1000:02d}.{tick % 1000:03d}"


def ticks(count: int, *, base: int = 60, rate: Fraction | int = 30, phase: int = 652, clock: int = CLOCK) -> list[int]:
    """Return frame times in thousandths of a timecode frame since midnight; 29.97 counts as 30."""
    step = Fraction(base * 1000) / round(rate)
    return [clock * base + phase + round(number * step) for number in range(count)]


def face(number: int) -> np.ndarray:
    """Return coefficients that identify a row; float64[52]."""
    values = np.full(arkit.N_ACTIONS, 0.05)
    values[arkit.INDEX["jawOpen"]] = number / 100
    return values


def row(number: int, when: str) -> LiveLinkRow:
    """Return the row of a frame, counted from 0."""
    return LiveLinkRow(when, face(number), np.linspace(-0.1, 0.1, arkit.N_POSE))


def write_take(
    folder: Path,
    name: str = "Scene_1_ann",
    *,
    count: int = 12,
    rate: Fraction | int = 30,
    base: int = 60,
    rows: Sequence[int] | None = None,
    frames: Sequence[int] | None = None,
    says: str = "video",
    pictures: Sequence[np.ndarray] | None = None,
    subject: str | None = None,
    clock: int = CLOCK,
) -> Path:
    """Write a take whose row n belongs to the picture n of ``clips.bars``.

    Args:
        folder: created if needed.
        name: of the files.
        count: number of camera frames.
        rate: of the camera.
        base: of the timecodes.
        rows: frames with CSV rows; by default all.
        frames: frames in the video; by default all.
        says: source of the video's frame times: ``video``, ``log`` or none.
        pictures: instead of bars.
        subject: for ``take.json``, written only if given.
        clock: start of the take, milliseconds since midnight.
    """
    folder.mkdir(parents=True, exist_ok=True)
    when = ticks(count, base=base, rate=rate, clock=clock)
    live_link.write(folder / f"{name}.csv", [row(n, timecode(when[n], base)) for n in rows or range(count)])
    present = list(frames or range(count))
    pictures = pictures or bars(count, 64, 64)
    write_clip(
        folder / f"{name}.mov",
        [pictures[n] for n in present],
        rate=rate,
        times=None if frames is None else [float((n - present[0]) / Fraction(rate)) for n in present],
        timecode=timecode(when[present[0]] * round(rate) // base, round(rate)).partition(".")[0]
        if says == "video"
        else "",
        options={"crf": "5", "bf": "0"},
    )
    if says == "log":
        lines = [f"V,{place},{n * 20},600,{timecode(when[n], base)},0" for place, n in enumerate(present)]
        (folder / "frame_log.csv").write_text("A,0,0,44100,13:13:04:30.1\n" + "\n".join(lines) + "\n")
    if subject is not None:
        (folder / "take.json").write_text(json.dumps({"slate": "Scene", "take": 1, "subject": subject}))
    return folder


def count_sixty(video: Path) -> None:
    """Let the timecode track of a 30 fps video that starts at 13:13:04:15 count 60, as the app may do."""
    data = bytearray(video.read_bytes())
    seconds = CLOCK // 1000
    first = data.index((seconds * 30 + 15).to_bytes(4, "big"))
    data[first : first + 4] = (seconds * 60 + 30).to_bytes(4, "big")
    entry = data.index(b"tmcd" + bytes(7) + b"\x01")
    data[entry + 20 : entry + 29] = (60).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes([60])
    video.write_bytes(data)


class WholePicture:
    """A fake ``FaceTracker`` that takes the whole picture; ``faceless``: frame numbers without a face."""

    faceless: tuple[int, ...] = ()

    def update(self, image, time):
        if number_of(np.asarray(image)) in self.faceless:
            return TrackedFace(None)
        half = image.width / 3
        middle = image.width / 2
        return TrackedFace(Box(middle - half, middle - half, middle + half, middle + half))
