"""Pictures and videos that MediaPipe is to read, for a dataset of faces.

Its answers are labels of a kind: as good as MediaPipe, no better. Of the 52 actions it has no ``tongueOut`` and hardly
ever sees ``cheekPuff``; both stay what it says, 0 or near it, in numbers and in words, since training has no way to
leave an action out. The recipe of the dataset and of every model made with it says so (``labels``).

MediaPipe is shown the very crop that is kept, so that the numbers are those of the face in it.

MediaPipe's Face Landmarker, asked about the same pictures as our models, so that both can be measured alike.

MediaPipe (Apache-2.0) is no dependency of this package, and its model file does not come with it: ``pip install
mediapipe`` and the ``face_landmarker.task`` that MediaPipe's users download are needed where this is used. It runs with
its own defaults, for still pictures and one face.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semanticface import arkit
from semanticface.data.captures.dataset import ShardWriter
from semanticface.data.captures.report import SHOWN, Thumbnail, thumbnail
from semanticface.data.captures.take import rest_of, thin
from semanticface.data.importers.pictures import (
    Labelled,
    Outcome,
    Part,
    PictureSettings,
    Reader,
    cropped,
    key_of,
    mark_of,
    parts_of,
    person,
    row_of,
)
from semanticface.errors import ConfigError, ModelError, SemanticFaceError
from semanticface.utils.progress import tqdm
from semanticface.vision.crop import Box
from semanticface.vision.face_tracker import FaceTracker
from semanticface.vision.image_io import SUFFIXES, encode_jpeg
from semanticface.vision.timecode import Clock
from semanticface.vision.video_reader import MAX_FRAMES, Take, open_take
from semanticface.vision.video_reader import SUFFIXES as VIDEO_SUFFIXES

PACKAGE = "mediapipe"
ACTIONS: tuple[str, ...] = tuple(name for name in arkit.NAMES if name in arkit.MEDIAPIPE)
"""What it answers, in the project's order: all but ``tongueOut``."""


class FaceLandmarker:
    """MediaPipe with one ``.task`` file; a context manager, to be left before the program ends.

    Args:
        task: the bundle, such as ``face_landmarker.task``.

    Attributes:
        identity: the package's version and the sha256 of the bundle: the same identity gives the same answers.

    Raises:
        ConfigError: the package is not installed, or there is no such file.
        ModelError: MediaPipe does not take the file.
    """

    def __init__(self, task: str | Path) -> None:
        path = Path(task)
        self.identity = identity(path)
        from mediapipe import Image as MediaPipeImage
        from mediapipe import ImageFormat
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(path)), output_face_blendshapes=True, num_faces=1
        )
        try:
            self._landmarker: Any = vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelError(
                f"MediaPipe does not take {path}: {error}. Give the face_landmarker.task that it publishes."
            ) from error
        self._wrap = lambda pixels: MediaPipeImage(image_format=ImageFormat.SRGB, data=pixels)

    def __enter__(self) -> FaceLandmarker:
        return self

    def __exit__(self, *_: object) -> None:
        self._landmarker.close()

    def read(self, picture: Image.Image) -> np.ndarray | None:
        """Return float32[52] in [0, 1], 0 at ``tongueOut``, which it does not have; None where it finds no face."""
        found = self._landmarker.detect(self._wrap(np.ascontiguousarray(picture.convert("RGB")))).face_blendshapes
        return vector({each.category_name: each.score for each in found[0]}) if found else None


def identity(task: str | Path) -> dict[str, str]:
    """Return what MediaPipe's answers depend on: ``version`` of the package and ``sha256`` of the bundle.

    Raises:
        ConfigError: the package is not installed, or there is no such file.
    """
    try:
        data = Path(task).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{task}: {error.strerror}. Download MediaPipe's face_landmarker.task and name its place."
        ) from error
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(
            "MediaPipe is not installed. Install it with: pip install -c constraints.txt mediapipe"
        ) from error
    return {"version": version, "sha256": hashlib.sha256(data).hexdigest()}


def vector(scores: Mapping[str, float]) -> np.ndarray:
    """Return float32[52] from MediaPipe's scores by name, 0 at ``tongueOut``; ``_neutral`` is left aside.

    Raises:
        ModelError: other names than MediaPipe's.
    """
    if scores.keys() != set(arkit.MEDIAPIPE):
        odd = min(scores.keys() ^ set(arkit.MEDIAPIPE))
        raise ModelError(f"MediaPipe's answer has other actions than expected: {odd}. Use its face_landmarker.task.")
    return np.clip(arkit.vector({name: scores[name] for name in ACTIONS}), 0.0, 1.0)


UNKNOWN = ("tongueOut",)
"""Actions that MediaPipe does not have."""
WEAK = ("cheekPuff",)
"""Actions that it has and hardly ever answers."""


def labels(by: str, **more: Any) -> dict[str, Any]:
    """Return what the recipe says of coefficients that are MediaPipe's."""
    return {"by": by, "unknown": list(UNKNOWN), "weak": list(WEAK), **more}


def labels_of(task: str | Path) -> dict[str, Any]:
    """Return the same of MediaPipe as it is installed here, with this ``.task`` file.

    Raises:
        ConfigError: the package is not installed, or there is no such file.
    """
    known = identity(task)
    return labels(f"MediaPipe {known['version']}", sha256=known["sha256"])


def read_places(paths: Sequence[Path], subject: str | None = None) -> list[Part]:
    """Return the parts that pictures, folders and videos make: one of each folder and each video.

    Args:
        paths: a folder stands for the pictures and videos in it and in its folders.
        subject: who is in all of them; by default a folder's own name says who is in its pictures and videos.

    Raises:
        SemanticFaceError: no such file or folder, one that holds nothing, or a file that does not say who is in it.
    """
    parts: list[Part] = []
    for path in paths:
        found = list(_files(path))
        if not found:
            raise SemanticFaceError(f"{path}: no picture and no video in this folder. Give one that has some.")
        pictures: dict[Path, list[Path]] = defaultdict(list)
        for file in found:
            if not subject and path.is_file():
                raise SemanticFaceError(f"{file}: does not say who is in it. Say it: --subject NAME")
            if file.suffix.lower() in VIDEO_SUFFIXES:
                parts.append(video_part(file, person(subject or file.resolve().parent.name)))
            else:
                pictures[file.parent].append(file)
        for folder, files in pictures.items():
            items = [Labelled(str(file), number, file) for number, file in enumerate(files, start=1)]
            parts += parts_of(folder, {person(subject or folder.resolve().name): items}, {})
    return parts


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise SemanticFaceError(f"{path}: no such file or folder. Check the path.")
    for name, below, files in os.walk(path):
        below[:] = sorted(each for each in below if each[0] != ".")
        for file in sorted(files):
            if file[0] != "." and Path(file).suffix.lower() in (*SUFFIXES, *VIDEO_SUFFIXES):
                yield Path(name) / file


@dataclass(frozen=True, slots=True)
class Video:
    """A video of one person, a ``Part``: read frame by frame, then thinned out as takes are.

    Attributes:
        name: what to call it.
        key: names its files.
        subject: who is in it.
        mark: tells it from another one of the same key.
        path: the file.
    """

    name: str
    key: str
    subject: str
    mark: int
    path: Path

    def write(self, writer: ShardWriter, settings: PictureSettings, reader: Reader | None) -> Outcome:
        """Write the faces that are worth keeping."""
        if reader is None:
            raise SemanticFaceError(f"{self.path}: a video, and nothing reads it.")
        out = Outcome(told="Read from the frames")
        take = open_take(self.path)
        # Without a name from the start, so that no picture is left anywhere, however this ends.
        with tempfile.TemporaryFile() as spool:
            seen = list(self._seen(take, settings, reader, out, spool))
            if take.shortfall:
                out.remarks.append(take.shortfall)
                out.broken = True
            if not seen:
                return out
            values = np.stack([each.values for each in seen])
            fates = thin(
                values,
                rest_of(values),
                neutral=settings.neutral,
                keep_neutral=settings.keep_neutral,
                apart=settings.apart,
            )
            clock = Clock(take.timecode_rate)
            looked = {fate: _spread(fates, fate) for fate in SHOWN}
            for place, (each, fate) in enumerate(zip(seen, fates, strict=True)):
                out.fates[fate] += 1
                if fate != "kept" and place not in looked[fate]:
                    continue
                spool.seek(each.start)
                with Image.open(io.BytesIO(spool.read(each.length)), formats=("JPEG",)) as opened:
                    crop = opened.convert("RGB")
                if fate == "kept":
                    code = clock.label(each.time)
                    writer.add(row_of(crop, each.box, each.values, self, settings, number=each.number, timecode=code))
                if place in looked[fate]:
                    small = thumbnail(crop, Box(*each.box.tolist()))
                    out.shown[fate].append(Thumbnail(small, f"frame {each.number}", each.values))
        return out

    def _seen(self, take: Take, settings: PictureSettings, reader: Reader, out: Outcome, spool: Any) -> Iterator[_Seen]:
        tracker = FaceTracker()
        start = 0
        for frame in tqdm(take.frames(), total=take.count, unit="frame", leave=False, desc=self.name):
            at = f"{self.path}, frame {frame.number}"
            if frame.number > MAX_FRAMES:
                break
            if frame.picture is None:
                out.miss("damaged frame", f"{at}: {frame.reason}")
                continue
            box: Box | None = Box(0, 0, *frame.picture.size)
            if settings.crop == "find":
                found = tracker.update(frame.picture, float(frame.time))
                box = found.box
                if found.note:
                    out.remarks.append(f"{at}: {found.note}")
            if box is None:
                out.miss("no face", f"{at}: no face found. Left out.")
                continue
            crop, corners = cropped(frame.picture, box, settings)
            values = reader(crop)
            if values is None:
                out.miss("no face", f"{at}: {settings.labels['by']} sees no face in the crop. Left out.")
                continue
            data = encode_jpeg(crop)
            spool.write(data)
            yield _Seen(frame.number, frame.time, start, len(data), corners, values)
            start += len(data)


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    number: int
    time: Fraction
    start: int
    length: int
    box: np.ndarray
    values: np.ndarray


def video_part(path: Path, subject: str) -> Video:
    """Return the part that a video makes."""
    status = path.stat()
    key = key_of(f"{path.stem}-{subject}", f"{path.resolve()}\n{subject}")
    return Video(path.name, key, subject, mark_of(str(status.st_size), str(status.st_mtime_ns)), path)


def _spread(fates: Sequence[str], fate: str) -> set[int]:
    """Return some places of a fate, spread evenly."""
    there = [place for place, each in enumerate(fates) if each == fate]
    return {there[place] for place in np.linspace(0, len(there) - 1, min(SHOWN[fate], len(there))).round().astype(int)}
